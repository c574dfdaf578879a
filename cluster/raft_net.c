/* libraft's links on the raft thread; raft_net.h says how they work. */
#include "cluster/raft_net.h"

#include <inttypes.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "cluster/raft_wire.h"
#include "net/loop.h"
#include "net/stream.h"

enum {
	/* A link that holds more takes no further message until it is down to half of it. */
	HIGH = 256 << 10,
	/* What a turn says is collected up to a record of TLS; an entry beyond COPY goes there by itself. */
	RECORD = 16 << 10,
	COPY = 4 << 10,
};

struct raft_dial {
	struct list node;
	uint64_t request;
	raft_net_dial_cb cb;
	void *arg;
};

/* A message of libraft's: it waits for its link, or for being told. */
struct net_send {
	struct list node;
	struct raft_io_send *req;
	raft_io_send_cb cb;
	struct raft_message message; /* borrows what libraft's does */
	int status;
};

/* What we send to a peer. */
struct net_out {
	struct list node;
	struct raft_net *net;
	uint64_t id;
	char *address;
	struct raft_way *way; /* NULL: it is dialled, or waits for the timer */
	uint64_t request;
	struct list waiting; /* struct net_send */
	size_t n_waiting;
	struct buf said; /* in this turn, and not yet written */
	struct loop_timer retry;
};

/* What a peer sends to us. */
struct net_in {
	struct list node;
	struct raft_net *net;
	uint64_t id;
	char *address;
	struct raft_way *way;
	struct wire_reader reader;
	bool busy, gone; /* in libraft's callback; it ended there */
};

/* ---- connections ---- */

static void way_free(struct raft_way *w)
{
	list_remove(&w->node);
	mem_free(w);
}

/* It is no more: whom it concerns is told, which may dial anew. */
static void way_lost(struct raft_way *w, const char *why)
{
	struct raft_net *net = w->net;
	const struct raft_way_user *user = w->user;
	void *user_arg = w->arg;
	uint64_t name = w->name;

	stream_abort(w->stream);
	way_free(w);
	if (name != 0) {
		net->ended(net->arg, name, true);
	}
	user->on_end(user_arg, why);
}

static void way_on_data(void *arg, const uint8_t *data, size_t len)
{
	struct raft_way *w = arg;

	METRICS_COUNT("skerry_peer_raft_bytes_total", "Bytes of raft links, both directions", len);
	w->user->on_data(w->arg, data, len);
}

static void way_on_close(void *arg, const struct err *err)
{
	way_lost(arg, err->msg); /* what is aborted has ended already: nothing happens to it */
}

static void way_on_writable(void *arg)
{
	struct raft_way *w = arg;

	if (w->user->on_writable != NULL) {
		w->user->on_writable(w->arg);
	}
}

static const struct stream_handler way_handler = {
	.on_data = way_on_data,
	.on_close = way_on_close,
	.on_writable = way_on_writable,
};

static struct raft_way *way_new(struct raft_net *net, uint64_t name, struct stream *stream)
{
	struct raft_way *w = MEM_NEW(struct raft_way);

	w->net = net;
	w->name = name;
	w->stream = stream;
	list_push(&net->ways, &w->node);
	/* What is full is asked before a message, which is taken as a whole then. */
	stream_set_limits(stream, HIGH, SIZE_MAX);
	return w;
}

void raft_way_use(struct raft_way *w, const struct raft_way_user *user, void *arg)
{
	w->user = user;
	w->arg = arg;
	stream_set_handler(w->stream, &way_handler, w);
}

void raft_way_write(struct raft_way *w, const void *data, size_t len)
{
	if (stream_write(w->stream, data, len) == 0) {
		METRICS_COUNT("skerry_peer_raft_bytes_total",
			      "Bytes of raft links, both directions", len);
	}
}

void raft_way_close(struct raft_way *w, bool linger)
{
	struct raft_net *net = w->net;
	uint64_t name = w->name;

	if (linger) {
		stream_close(w->stream);
	} else {
		stream_abort(w->stream);
	}
	way_free(w);
	if (name != 0 && !net->closing) {
		net->ended(net->arg, name, false);
	}
}

void raft_net_cut(struct raft_net *net, uint64_t name)
{
	LIST_FOREACH(&net->ways, it)
	{
		struct raft_way *w = LIST_ENTRY(it, struct raft_way, node);

		if (w->name == name) {
			const struct raft_way_user *user = w->user;
			void *arg = w->arg;

			stream_abort(w->stream);
			way_free(w);
			user->on_end(arg, "cut");
			return;
		}
	}
}

void raft_net_renew(struct raft_net *net)
{
	LIST_FOREACH_SAFE(&net->ways, it, tmp)
	{
		struct raft_way *w = LIST_ENTRY(it, struct raft_way, node);

		if (stream_stalled(w->stream)) {
			METRICS_COUNT("skerry_peer_raft_links_renewed_total",
				      "Raft links made anew as TCP was stuck on them", 1);
			way_lost(w, "TCP is stuck on it");
		}
	}
}

/* Nobody wants it. */
static void refuse(struct raft_net *net, uint64_t name, struct stream *stream)
{
	stream_abort(stream);
	if (name != 0 && !net->closing) {
		net->ended(net->arg, name, false);
	}
}

/* ---- dialling ---- */

void raft_net_dial(struct raft_net *net, uint64_t id, const char *address, raft_net_dial_cb cb,
		   void *arg, uint64_t *ret_request)
{
	struct raft_dial *d = MEM_NEW(struct raft_dial);

	*ret_request = d->request = ++net->next_request;
	d->cb = cb;
	d->arg = arg;
	list_push(&net->dials, &d->node);
	net->connect(net->arg, d->request, id, address);
}

static bool dial_take(struct raft_net *net, uint64_t request, struct raft_dial *ret)
{
	LIST_FOREACH(&net->dials, it)
	{
		struct raft_dial *d = LIST_ENTRY(it, struct raft_dial, node);

		if (d->request == request) {
			list_remove(&d->node);
			*ret = *d;
			mem_free(d);
			return true;
		}
	}
	return false;
}

void raft_net_dial_cancel(struct raft_net *net, uint64_t request)
{
	struct raft_dial d;

	IGNORE(dial_take(net, request, &d));
}

void raft_net_connected(struct raft_net *net, uint64_t request, uint64_t name,
			struct stream *stream)
{
	struct raft_dial d;

	if (dial_take(net, request, &d)) {
		d.cb(d.arg, stream != NULL ? way_new(net, name, stream) : NULL);
	} else if (stream != NULL) {
		refuse(net, name, stream);
	}
}

/* ---- sending ---- */

static void tell(struct raft_net *net, struct net_send *s, int status)
{
	s->status = status;
	list_push(&net->told, &s->node);
	loop_flush_add(net->loop, &net->hook); /* where something is said, something is told */
}

static void tell_all(struct raft_net *net)
{
	struct list due;

	list_init(&due);
	list_splice(&due, &net->told);
	while (!list_empty(&due)) {
		struct net_send *s = LIST_ENTRY(list_pop(&due), struct net_send, node);
		struct raft_io_send *req = s->req;
		raft_io_send_cb cb = s->cb;
		int status = s->status;

		mem_free(s);
		if (cb != NULL) {
			cb(req, status);
		}
	}
}

static void out_write(struct net_out *o)
{
	if (o->way != NULL && o->said.len > 0) {
		raft_way_write(o->way, o->said.data, o->said.len);
	}
	buf_reset(&o->said);
}

static int out_encode(struct net_out *o, const struct raft_message *m)
{
	int rv = wire_put(&o->said, m);

	if (rv != 0 || m->type != RAFT_APPEND_ENTRIES) {
		return rv;
	}
	for (unsigned i = 0; i < m->append_entries.n_entries; i++) {
		const struct raft_buffer *b = &m->append_entries.entries[i].buf;

		if (b->len <= COPY) {
			buf_append(&o->said, b->base, b->len);
		} else {
			out_write(o);
			raft_way_write(o->way, b->base, b->len);
		}
		if (o->said.len >= RECORD) {
			out_write(o);
		}
	}
	return 0;
}

static void out_dial(struct net_out *o);

static bool out_takes(const struct net_out *o)
{
	return o->way != NULL && !stream_is_full(o->way->stream);
}

static struct net_send *waiting_pop(struct net_out *o)
{
	o->n_waiting--;
	return LIST_ENTRY(list_pop(&o->waiting), struct net_send, node);
}

/* The oldest go: what they say is said again, or is out of date. */
static void waiting_shrink(struct net_out *o, size_t most)
{
	while (o->n_waiting > most) {
		METRICS_COUNT("skerry_peer_raft_unsent_total",
			      "Raft messages that had no link, or waited in vain for it", 1);
		tell(o->net, waiting_pop(o), RAFT_NOCONNECTION);
	}
}

static void waiting_send(struct net_out *o)
{
	while (o->n_waiting > 0 && out_takes(o)) {
		struct net_send *s = waiting_pop(o);

		tell(o->net, s, out_encode(o, &s->message));
	}
}

static void out_on_data(void *arg, const uint8_t *data, size_t len)
{
	struct net_out *o = arg;
	struct raft_way *w = o->way;

	(void)data;
	LOG_WARN("raft link to %" PRIu64 ": %zu bytes came back on a link that has one direction; "
		 "it is made anew",
		 o->id, len);
	o->way = NULL;
	buf_reset(&o->said);
	raft_way_close(w, false);
	out_dial(o);
}

static void out_on_end(void *arg, const char *why)
{
	struct net_out *o = arg;

	LOG_DEBUG("raft link to %" PRIu64 " ended: %s", o->id, why);
	o->way = NULL;
	buf_reset(&o->said);
	if (!o->net->closing) {
		out_dial(o);
	}
}

static void out_on_writable(void *arg)
{
	waiting_send(arg);
	out_write(arg);
}

static const struct raft_way_user out_user = {
	.on_data = out_on_data,
	.on_writable = out_on_writable,
	.on_end = out_on_end,
};

static void out_on_retry(void *arg)
{
	out_dial(arg);
}

static void out_on_dialled(void *arg, struct raft_way *w)
{
	struct net_out *o = arg;

	o->request = 0;
	if (w == NULL) {
		waiting_shrink(o, LIM_RAFT_KEPT);
		loop_timer_start(&o->retry, o->net->loop, RAFT_NET_RETRY_MS, out_on_retry, o);
		return;
	}
	o->way = w;
	raft_way_use(w, &out_user, o);
	waiting_send(o);
}

static void out_dial(struct net_out *o)
{
	raft_net_dial(o->net, o->id, o->address, out_on_dialled, o, &o->request);
}

static struct net_out *out_of(struct raft_net *net, const struct raft_message *m)
{
	struct net_out *o;

	LIST_FOREACH(&net->outs, it)
	{
		o = LIST_ENTRY(it, struct net_out, node);
		if (o->id == m->server_id) {
			return o;
		}
	}
	o = MEM_NEW(struct net_out);
	o->net = net;
	o->id = m->server_id;
	o->address = mem_strdup(m->server_address);
	list_init(&o->waiting);
	list_push(&net->outs, &o->node);
	out_dial(o);
	return o;
}

int raft_net_send(struct raft_net *net, struct raft_io_send *req, const struct raft_message *m,
		  raft_io_send_cb cb)
{
	struct net_send *s;
	struct net_out *o;
	int rv = 0;

	if (net->closing) {
		return RAFT_CANCELED;
	}
	if (m->type == RAFT_INSTALL_SNAPSHOT) {
		return RAFT_INVALID;
	}
	o = out_of(net, m);
	if (o->n_waiting == 0 && out_takes(o)) {
		rv = out_encode(o, m);
		if (rv != 0) {
			return rv;
		}
		s = MEM_NEW(struct net_send);
		s->req = req;
		s->cb = cb;
		tell(net, s, 0);
		return 0;
	}
	s = MEM_NEW(struct net_send);
	s->req = req;
	s->cb = cb;
	s->message = *m;
	list_push(&o->waiting, &s->node);
	o->n_waiting++;
	waiting_shrink(o, LIM_RAFT_WAITING);
	return 0;
}

void raft_net_flush(struct raft_net *net)
{
	loop_flush_remove(&net->hook);
	tell_all(net);
	LIST_FOREACH(&net->outs, it)
	{
		out_write(LIST_ENTRY(it, struct net_out, node));
	}
}

/* ---- receiving ---- */

static void in_free(struct net_in *in)
{
	wire_reader_done(&in->reader);
	mem_free(in->address);
	mem_free(in);
}

static void in_gone(struct net_in *in)
{
	list_remove(&in->node);
	in->way = NULL;
	in->gone = true;
	if (!in->busy) {
		in_free(in);
	}
}

static void in_refuse(struct net_in *in, const struct err *e)
{
	struct raft_way *w = in->way;

	METRICS_COUNT("skerry_peer_raft_malformed_total",
		      "Raft messages that made no sense: the link was ended", 1);
	LOG_ERROR("raft link from %" PRIu64 " ended: %s; do both lighthouses run a build that the "
		  "cluster supports?",
		  in->id, e->msg);
	in_gone(in);
	raft_way_close(w, false);
}

static void in_on_data(void *arg, const uint8_t *data, size_t len)
{
	struct net_in *in = arg;
	struct raft_message m;
	struct err e = {0};
	size_t used;
	int r;

	while (len > 0) {
		r = wire_read(&in->reader, data, len, &used, &m, &e);
		if (r < 0) {
			in_refuse(in, &e);
			return;
		}
		data += used;
		len -= used;
		if (r == 0) {
			continue;
		}
		m.server_id = in->id;
		m.server_address = in->address;
		in->busy = true;
		in->net->recv(in->net->io, &m);
		in->busy = false;
		if (in->gone) {
			in_free(in);
			return;
		}
	}
}

static void in_on_end(void *arg, const char *why)
{
	struct net_in *in = arg;

	LOG_DEBUG("raft link from %" PRIu64 " ended: %s", in->id, why);
	in_gone(in);
}

static const struct raft_way_user in_user = {.on_data = in_on_data, .on_end = in_on_end};

void raft_net_accepted(struct raft_net *net, uint64_t id, const char *address, uint64_t name,
		       struct stream *stream)
{
	struct net_in *in;

	if (net->closing || net->recv == NULL) {
		refuse(net, name, stream);
		return;
	}
	in = MEM_NEW(struct net_in);
	in->net = net;
	in->id = id;
	in->address = mem_strdup(address);
	in->way = way_new(net, name, stream);
	list_push(&net->ins, &in->node);
	raft_way_use(in->way, &in_user, in);
}

/* ---- life ---- */

static void on_hook(void *arg)
{
	raft_net_flush(arg);
}

void raft_net_init(struct raft_net *net)
{
	net->hook = (struct flush_hook){.run = on_hook, .arg = net};
	list_init(&net->dials);
	list_init(&net->ways);
	list_init(&net->outs);
	list_init(&net->ins);
	list_init(&net->told);
}

void raft_net_start(struct raft_net *net, struct raft_io *io, raft_io_recv_cb recv)
{
	net->io = io;
	net->recv = recv;
}

static void out_free(struct net_out *o)
{
	while (o->n_waiting > 0) {
		tell(o->net, waiting_pop(o), RAFT_CANCELED);
	}
	if (o->way != NULL) {
		raft_way_close(o->way, true);
	}
	list_remove(&o->node);
	loop_timer_stop(&o->retry);
	buf_done(&o->said);
	mem_free(o->address);
	mem_free(o);
}

void raft_net_close(struct raft_net *net)
{
	if (net->closing) {
		return;
	}
	net->closing = true;
	raft_net_flush(net); /* what was said still leaves */
	while (!list_empty(&net->outs)) {
		out_free(LIST_ENTRY(net->outs.next, struct net_out, node));
	}
	while (!list_empty(&net->ins)) {
		struct net_in *in = LIST_ENTRY(net->ins.next, struct net_in, node);
		struct raft_way *w = in->way;

		in_gone(in);
		raft_way_close(w, false);
	}
	while (!list_empty(&net->dials)) {
		struct raft_dial d;

		IGNORE(dial_take(net, LIST_ENTRY(net->dials.next, struct raft_dial, node)->request,
				 &d));
	}
	tell_all(net);
	loop_flush_remove(&net->hook);
}
