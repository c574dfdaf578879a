/*
 * Life of a forwarded query: sent by UDP to every resolver at once from a fresh port with a fresh id. The first good
 * answer ends it. After DNS_TCP_AFTER_MS, or when the answer was cut and the client came by TCP, the resolvers are asked
 * by TCP too. Soft failures (SERVFAIL, REFUSED) are kept and used when nothing better came by DNS_BUDGET_MS.
 */
#include "dns/forward.h"

#include <string.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/rand.h"
#include "dns/wire.h"
#include "net/dial.h"
#include "net/loop.h"
#include "net/stream.h"
#include "net/udp.h"

enum { DNS_BUDGET_MS = 5000, DNS_TCP_AFTER_MS = 2000 };

struct dns_forwarder {
	struct loop *loop;
	uint32_t mark;
	struct list queries;
	size_t pending;
};

struct query;

/* One TCP attempt. */
struct attempt {
	struct query *query;
	struct dial *dial;
	struct stream *stream;
	struct buf in;
};

struct query {
	struct dns_forwarder *f;
	struct list link;
	dns_forward_cb cb;
	void *arg;
	bool tcp; /* the client's transport */
	bool tcp_started;
	uint16_t client_id, id;
	uint8_t *msg;
	size_t len;
	struct ipport resolver[DNS_RESOLVERS_MAX];
	bool failed[DNS_RESOLVERS_MAX];
	size_t n;
	struct udp *udp4, *udp6;
	struct attempt attempt[DNS_RESOLVERS_MAX];
	uint8_t *soft; /* the failure that is passed on when nothing better comes */
	size_t soft_len;
	struct loop_timer budget, tcp_timer;
};

static void query_free(struct query *q)
{
	list_remove(&q->link);
	q->f->pending--;
	loop_timer_stop(&q->budget);
	loop_timer_stop(&q->tcp_timer);
	udp_close(q->udp4);
	udp_close(q->udp6);
	for (size_t i = 0; i < q->n; i++) {
		struct attempt *t = &q->attempt[i];

		dial_cancel(t->dial);
		stream_abort(t->stream);
		buf_done(&t->in);
	}
	mem_free(q->soft);
	mem_free(q->msg);
	mem_free(q);
}

/* Hands the answer out and ends the query. */
static void query_end(struct query *q, uint8_t *msg, size_t len)
{
	dns_forward_cb cb = q->cb;
	void *arg = q->arg;

	msg[0] = (uint8_t)(q->client_id >> 8);
	msg[1] = (uint8_t)q->client_id;
	/* The message may live in the query: the callback comes first. */
	cb(arg, msg, len);
	query_free(q);
}

static void query_timeout(void *arg)
{
	struct query *q = arg;
	uint8_t failure[DNS_HEADER];

	if (q->soft)
		query_end(q, q->soft, q->soft_len);
	else
		query_end(q, failure, wire_error(q->msg, q->len, DNS_SERVFAIL, failure));
}

static void start_tcp(void *arg);

/* One response; false: it is not an answer to this query. The query may be gone when it returns true. */
static bool query_response(struct query *q, const uint8_t *data, size_t len, bool by_tcp,
			   size_t from)
{
	struct dns_response r;
	uint8_t *copy;

	if (!wire_response(data, len, &r) || r.id != q->id ||
	    !wire_same_question(q->msg, q->len, data, len))
		return false;
	if (r.truncated && q->tcp && !by_tcp) {
		start_tcp(q);
		return true;
	}
	copy = mem_memdup(data, len);
	if (r.rcode == DNS_SERVFAIL || r.rcode == DNS_REFUSED) {
		bool all = true;

		if (!q->soft || r.rcode == DNS_SERVFAIL) {
			mem_free(q->soft);
			q->soft = copy;
			q->soft_len = len;
		} else {
			mem_free(copy);
		}
		q->failed[from] = true;
		for (size_t i = 0; i < q->n; i++)
			all = all && q->failed[i];
		if (all)
			query_end(q, q->soft, q->soft_len);
		return true;
	}
	/* query_end frees q, not the copy. */
	query_end(q, copy, len);
	mem_free(copy);
	return true;
}

static void udp_received(void *arg, const struct ipport *from, const uint8_t *data, size_t len)
{
	struct query *q = arg;

	for (size_t i = 0; i < q->n; i++) {
		if (ipport_equal(from, &q->resolver[i])) {
			IGNORE(query_response(q, data, len, false, i));
			return;
		}
	}
}

static void tcp_data(void *arg, const uint8_t *data, size_t len)
{
	struct attempt *t = arg;
	struct query *q = t->query;
	size_t want;

	if (t->in.len + len > 2 + DNS_MESSAGE_MAX) {
		stream_abort(t->stream);
		t->stream = NULL;
		return;
	}
	buf_append(&t->in, data, len);
	if (t->in.len < 2)
		return;
	want = (size_t)t->in.data[0] << 8 | t->in.data[1];
	if (t->in.len < want + 2)
		return;
	if (!query_response(q, t->in.data + 2, want, true, (size_t)(t - q->attempt)))
		q->failed[t - q->attempt] =
			true; /* not an answer: this connection has said its part */
}

static void tcp_closed(void *arg, const struct err *err)
{
	struct attempt *t = arg;

	(void)err;
	t->stream = NULL;
}

static void tcp_dialled(void *arg, struct stream *stream, size_t which, const struct err *err)
{
	static const struct stream_handler handler = {.on_data = tcp_data, .on_close = tcp_closed};
	struct attempt *t = arg;
	struct query *q = t->query;
	uint8_t prefix[2] = {(uint8_t)(q->len >> 8), (uint8_t)q->len};

	(void)which;
	(void)err;
	t->dial = NULL;
	if (!stream)
		return;
	t->stream = stream;
	stream_set_handler(stream, &handler, t);
	if (stream_write(stream, prefix, sizeof(prefix)) < 0 ||
	    stream_write(stream, q->msg, q->len) < 0) {
		stream_abort(stream);
		t->stream = NULL;
	}
}

static void start_tcp(void *arg)
{
	struct query *q = arg;

	if (q->tcp_started)
		return;
	q->tcp_started = true;
	loop_timer_stop(&q->tcp_timer);
	for (size_t i = 0; i < q->n; i++) {
		struct dial_opts o = {.timeout_ms = DNS_BUDGET_MS, .mark = q->f->mark};
		char text[IPPORT_TEXT];

		q->attempt[i].query = q;
		q->attempt[i].dial = dial_start(q->f->loop, ipport_format(&q->resolver[i], text),
						&o, tcp_dialled, &q->attempt[i]);
	}
}

static void send_udp(struct query *q, const struct ipport *to)
{
	struct udp **u = to->addr.family == 6 ? &q->udp6 : &q->udp4;
	struct ipport any = {.addr.family = to->addr.family};

	/* A resolver that cannot be reached is one that does not answer. */
	if (!*u && udp_open(q->f->loop, &any, udp_received, q, u, NULL) < 0)
		return;
	if (q->f->mark)
		IGNORE(udp_set_mark(*u, q->f->mark));
	IGNORE(udp_send(*u, to, q->msg, q->len));
}

struct dns_forwarder *dns_forwarder_new(struct loop *loop, uint32_t mark)
{
	struct dns_forwarder *f = mem_zalloc(sizeof(*f));

	f->loop = loop;
	f->mark = mark;
	list_init(&f->queries);
	return f;
}

void dns_forwarder_free(struct dns_forwarder *f)
{
	if (!f)
		return;
	while (!list_empty(&f->queries))
		query_free(container_of(f->queries.next, struct query, link));
	mem_free(f);
}

int dns_forward(struct dns_forwarder *f, const uint8_t *msg, size_t len,
		const struct dns_route *route, bool tcp, dns_forward_cb cb, void *arg)
{
	struct query *q;

	if (f->pending >= LIM_DNS_PENDING)
		return ERR_LIMIT;
	q = mem_zalloc(sizeof(*q));
	q->f = f;
	q->cb = cb;
	q->arg = arg;
	q->tcp = tcp;
	q->msg = mem_memdup(msg, len);
	q->len = len;
	q->client_id = (uint16_t)(msg[0] << 8 | msg[1]);
	q->id = (uint16_t)rand_u64();
	q->msg[0] = (uint8_t)(q->id >> 8);
	q->msg[1] = (uint8_t)q->id;
	q->n = MIN(route->n_resolvers, (size_t)DNS_RESOLVERS_MAX);
	memcpy(q->resolver, route->resolvers, q->n * sizeof(*q->resolver));
	list_push(&f->queries, &q->link);
	f->pending++;
	loop_timer_start(&q->budget, f->loop, DNS_BUDGET_MS, query_timeout, q);
	loop_timer_start(&q->tcp_timer, f->loop, DNS_TCP_AFTER_MS, start_tcp, q);
	for (size_t i = 0; i < q->n; i++)
		send_udp(q, &q->resolver[i]);
	return 0;
}

size_t dns_forwarder_pending(const struct dns_forwarder *f)
{
	return f->pending;
}
