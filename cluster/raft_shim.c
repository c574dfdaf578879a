/* The fail-stop shim over raft_io; raft_shim.h says what it does and why. */
#include "cluster/raft_shim.h"

#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "cluster/link_int.h"
#include "cluster/raft_net.h"
#include "cluster/raft_shim_int.h"

struct shim_append {
	struct raft_io_append req;
	struct raft_io_append *orig;
	raft_io_append_cb cb;
	struct raft_shim *shim;
	struct list node;
	uint64_t since_ms, since_ns;
};

struct shim_put {
	struct raft_io_snapshot_put req;
	struct raft_io_snapshot_put *orig;
	raft_io_snapshot_put_cb cb;
	struct raft_shim *shim;
	unsigned trailing;
	struct raft_snapshot *snapshot;
};

/* libraft's request for the newest snapshot, to be answered with an empty one. */
struct shim_get {
	struct list node;
	struct raft_io_snapshot_get *req;
	raft_io_snapshot_get_cb cb;
};

/* A message of ours on its way; libraft's request was answered. */
struct shim_send {
	struct raft_io_send req;
	struct raft_shim *shim;
	struct list node;
	struct raft_message message; /* flat kinds only, address owned */
	unsigned tries;
	bool vote;
};

struct shim_answer {
	struct list node;
	struct raft_io_send *req;
	raft_io_send_cb cb;
};

static struct raft_shim *shim_of(struct raft_io *io)
{
	return container_of(io, struct raft_shim, io);
}

static bool check(struct raft_shim *s, const char *what, int rv)
{
	if (rv != 0) {
		cluster_fail("raft log: %s failed: %s%s%s; check disk and file system of the state "
			     "directory, then start again",
			     what, raft_strerror(rv), s->io.errmsg[0] != '\0' ? ": " : "",
			     s->io.errmsg);
	}
	return rv == 0;
}

/* ---- disk ---- */

static int op_set_term(struct raft_io *io, raft_term term)
{
	struct raft_shim *s = shim_of(io);
	int rv = s->inner.set_term(io, term);

	check(s, "storing the term", rv);
	return rv;
}

static int op_set_vote(struct raft_io *io, raft_id id)
{
	struct raft_shim *s = shim_of(io);
	int rv = s->inner.set_vote(io, id);

	check(s, "storing the vote", rv);
	return rv;
}

static int op_truncate(struct raft_io *io, raft_index index)
{
	struct raft_shim *s = shim_of(io);
	int rv = s->inner.truncate(io, index);

	check(s, "truncating", rv);
	return rv;
}

static void on_append(struct raft_io_append *req, int status)
{
	struct shim_append *a = container_of(req, struct shim_append, req);
	struct raft_io_append *orig = a->orig;
	raft_io_append_cb cb = a->cb;

	list_remove(&a->node);
	if (status != RAFT_CANCELED) {
		check(a->shim, "appending", status);
	}
	if (status == 0) {
		uint64_t ns = clock_mono_ns() - a->since_ns;

		histogram_observe(raft_metrics()->append, (double)ns / 1e9);
		append_times_add(&a->shim->append_times, clock_mono_ms(), ns / 1000);
	}
	mem_free(a);
	cb(orig, status);
}

static int op_append(struct raft_io *io, struct raft_io_append *req,
		     const struct raft_entry entries[], unsigned n, raft_io_append_cb cb)
{
	struct raft_shim *s = shim_of(io);
	struct shim_append *a = MEM_NEW(struct shim_append);
	int rv;

	a->orig = req;
	a->cb = cb;
	a->shim = s;
	a->since_ms = clock_mono_ms();
	a->since_ns = clock_mono_ns();
	list_push(&s->appends, &a->node);
	rv = s->inner.append(io, &a->req, entries, n, on_append);
	if (rv != 0) {
		list_remove(&a->node);
		mem_free(a);
		check(s, "appending", rv);
	}
	return rv;
}

static void on_put(struct raft_io_snapshot_put *req, int status)
{
	struct shim_put *p = container_of(req, struct shim_put, req);
	struct raft_io_snapshot_put *orig = p->orig;
	raft_io_snapshot_put_cb cb = p->cb;

	p->shim->putting = false;
	if (status != RAFT_CANCELED) {
		check(p->shim, "storing a snapshot", status);
	}
	mem_free(p);
	cb(orig, status);
}

static int put_begin(struct shim_put *p)
{
	struct raft_shim *s = p->shim;
	int rv = s->inner.snapshot_put(&s->io, p->trailing, &p->req, p->snapshot, on_put);

	if (rv != 0) {
		s->putting = false;
		mem_free(p);
		check(s, "storing a snapshot", rv);
	}
	return rv;
}

static int op_snapshot_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
			   const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
	struct raft_shim *s = shim_of(io);
	struct shim_put *p = MEM_NEW(struct shim_put);
	int rv;

	p->orig = req;
	p->cb = cb;
	p->shim = s;
	p->trailing = trailing;
	p->snapshot = (struct raft_snapshot *)(uintptr_t)snapshot; /* libraft's request holds it */
	s->putting = true;
	if (s->prepare == NULL || trailing == 0) {
		return put_begin(p);
	}
	rv = s->prepare(s->arg);
	if (rv != 0) {
		s->putting = false;
		mem_free(p);
		return rv;
	}
	s->put = p;
	return 0;
}

void raft_shim_prepared(struct raft_shim *s, int status, struct raft_buffer *bufs, unsigned n)
{
	struct shim_put *p = s->put;

	s->put = NULL;
	p->snapshot->bufs = bufs;
	p->snapshot->n_bufs = n;
	if (status != 0 || s->closing) {
		on_put(&p->req, RAFT_CANCELED);
	} else {
		IGNORE(put_begin(p)); /* a failure has ended the process */
	}
	if (s->close_cb != NULL) {
		s->inner.close(&s->io, s->close_cb);
	}
}

/*
 * libraft reads the whole snapshot for each message that it would send, and it would send one with every heartbeat and
 * entry as long as the peer has none. It gets an empty one; what is really sent is read then.
 */
static int op_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req,
			   raft_io_snapshot_get_cb cb)
{
	struct raft_shim *s = shim_of(io);
	struct shim_get *g = MEM_NEW(struct shim_get);

	g->req = req;
	g->cb = cb;
	list_push(&s->gets, &g->node);
	return 0;
}

static void get_answer(struct raft_shim *s, struct shim_get *g)
{
	struct raft_snapshot *snapshot = raft_calloc(1, sizeof(*snapshot));

	PRE(snapshot != NULL);
	snapshot->index = s->raft->trail.snapshot.index;
	snapshot->term = s->raft->trail.snapshot.term;
	raft_configuration_init(&snapshot->configuration);
	snapshot->bufs = raft_calloc(1, sizeof(*snapshot->bufs));
	PRE(snapshot->bufs != NULL);
	snapshot->n_bufs = 1;
	g->cb(g->req, snapshot, 0);
	mem_free(g);
}

/* ---- sending ---- */

static void answer_later(struct raft_shim *s, struct raft_io_send *req, raft_io_send_cb cb)
{
	struct shim_answer *a = MEM_NEW(struct shim_answer);

	a->req = req;
	a->cb = cb;
	list_push(&s->answered, &a->node);
}

static int to_network(struct raft_shim *s, struct raft_io *io, struct raft_io_send *req,
		      const struct raft_message *message, raft_io_send_cb cb)
{
	return s->net != NULL ? raft_net_send(s->net, req, message, cb)
			      : s->inner.send(io, req, message, cb);
}

static void send_free(struct shim_send *m)
{
	list_remove(&m->node);
	shim_message_done(&m->message);
	mem_free(m);
}

static void on_sent(struct raft_io_send *req, int status)
{
	struct shim_send *m = container_of(req, struct shim_send, req);
	struct raft_shim *s = m->shim;

	if (status != 0 && status != RAFT_CANCELED && !s->closing && !m->vote && ++m->tries < 3 &&
	    to_network(s, &s->io, &m->req, &m->message, on_sent) == 0) {
		return;
	}
	send_free(m);
}

/* Sends an own copy: libraft's request is answered apart from it. */
static int send_copy(struct raft_shim *s, const struct raft_message *message, bool vote)
{
	struct shim_send *m = MEM_NEW(struct shim_send);
	int rv;

	m->shim = s;
	m->vote = vote;
	shim_message_copy(&m->message, message);
	list_init(&m->node);
	rv = to_network(s, &s->io, &m->req, &m->message, on_sent);
	if (rv != 0) {
		send_free(m);
	}
	return rv;
}

struct send_window *raft_shim_window(struct raft_shim *s, raft_id id)
{
	struct send_window *w;
	bool member;

	LIST_FOREACH_SAFE(&s->windows, it, tmp)
	{
		w = LIST_ENTRY(it, struct send_window, node);
		if (w->id == id) {
			return w;
		}
		member = false;
		for (unsigned i = 0; i < s->raft->configuration.n; i++) {
			member |= s->raft->configuration.servers[i].id == w->id;
		}
		if (!member) {
			list_remove(it);
			mem_free(w);
		}
	}
	w = MEM_NEW(struct send_window);
	w->id = id;
	list_push(&s->windows, &w->node);
	return w;
}

int raft_shim_repeat(struct raft_shim *s, const struct raft_message *m)
{
	return send_copy(s, m, true);
}

static bool may_append(struct raft_shim *s, const struct raft_message *m)
{
	const struct raft_append_entries *a = &m->append_entries;

	return send_window_pass(raft_shim_window(s, m->server_id), a->term, a->prev_log_index,
				a->n_entries, clock_mono_ms(), s->heartbeat_ms);
}

static int op_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *message,
		   raft_io_send_cb cb)
{
	struct raft_shim *s = shim_of(io);
	int rv;

	switch (message->type) {
	case RAFT_APPEND_ENTRIES:
		if (!may_append(s, message)) {
			/* As if the network had lost it. */
			s->messages_held++;
			answer_later(s, req, cb);
			return 0;
		}
		return to_network(s, io, req, message, cb);
	case RAFT_APPEND_ENTRIES_RESULT:
		if (s->told.echoing) {
			answer_later(s, req, cb);
			return 0;
		}
		return to_network(s, io, req, message, cb);
	case RAFT_TIMEOUT_NOW: timing_keep(s, message); return to_network(s, io, req, message, cb);
	case RAFT_REQUEST_VOTE: shim_vote_keep(s, message); __attribute__((fallthrough));
	case RAFT_REQUEST_VOTE_RESULT:
		rv = send_copy(s, message, message->type == RAFT_REQUEST_VOTE);
		if (rv == 0) {
			answer_later(s, req, cb);
		}
		return rv;
	case RAFT_INSTALL_SNAPSHOT:
		shim_install_begin(s, message);
		answer_later(s, req, cb);
		return 0;
	default: return to_network(s, io, req, message, cb);
	}
}

/* ---- time ---- */

static void transfer_done(struct raft_transfer *req)
{
	(void)req; /* whether it worked or not: the watch below ends the process */
}

/* A disk that does not answer: the others go on without us. */
static void appends_watch(struct raft_shim *s)
{
	uint64_t now = clock_mono_ms();
	struct shim_append *a;

	if (list_empty(&s->appends)) {
		return;
	}
	a = LIST_ENTRY(s->appends.next, struct shim_append, node);
	if (now < a->since_ms + SHIM_APPEND_STUCK_MS) {
		return;
	}
	if (s->handover_ms == 0) {
		s->handover_ms = now;
		if (s->raft->state == RAFT_LEADER && s->raft->transfer == NULL) {
			IGNORE(raft_transfer(s->raft, &s->transfer, timing_successor(s),
					     transfer_done));
		}
	} else if (now >= s->handover_ms + SHIM_HANDOVER_MS) {
		cluster_fail(
			"raft log: a write has not ended for %d s; check disk, free space and file "
			"system of the state directory, then start again",
			SHIM_APPEND_STUCK_MS / 1000);
	}
}

static void on_tick(struct raft_io *io)
{
	struct raft_shim *s = shim_of(io);

	shim_votes_repeat(s);
	appends_watch(s);
	timing_tick(s);
	shim_installs_expire(s);
	shim_greet(s);
	s->tick(io);
}

/* ---- receiving ---- */

static void entries_free(struct raft_entry *entries, unsigned n)
{
	void *batch = NULL;

	for (unsigned i = 0; i < n; i++) {
		if (entries[i].batch != batch) {
			batch = entries[i].batch;
			raft_free(batch);
		}
	}
	raft_free(entries);
}

static bool entries_sane(const struct raft_append_entries *m)
{
	for (unsigned i = 0; i < m->n_entries; i++) {
		const struct raft_entry *e = &m->entries[i];

		if (e->type < RAFT_COMMAND || e->type > RAFT_CHANGE || e->buf.len % 8 != 0 ||
		    (e->buf.len > 0 && e->buf.base == NULL)) {
			return false;
		}
	}
	return true;
}

static void leader_heard(struct raft_shim *s, raft_id id, raft_term term)
{
	if (term >= s->raft->current_term) {
		s->lost_leader = 0;
		s->heard_ms = clock_mono_ms();
		s->timing.leader_term = term;
		s->timing.leader = id;
	}
}

/*
 * libraft notes a change of the configuration under the index of the first new entry of the message: when it stands
 * behind others, its commit is never noted, and this server refuses all changes once it leads. So it comes first in a message:
 * what stands behind is cut off, and sent again from there.
 */
static void change_comes_first(struct raft_append_entries *a)
{
	for (unsigned i = 1; i < a->n_entries; i++) {
		if (a->entries[i].type == RAFT_CHANGE) {
			a->n_entries = i;
		}
	}
}

static void on_recv(struct raft_io *io, struct raft_message *m)
{
	struct raft_shim *s = shim_of(io);
	struct raft *r = s->raft;
	bool asked = m->type == RAFT_REQUEST_VOTE && r->state == RAFT_LEADER;
	bool entries = m->type == RAFT_APPEND_ENTRIES;
	struct told_match match = {0};

	if (shim_greeting(m)) {
		return;
	}
	switch (m->type) {
	case RAFT_APPEND_ENTRIES:
		if (!entries_sane(&m->append_entries)) {
			s->messages_dropped++;
			entries_free(m->append_entries.entries, m->append_entries.n_entries);
			return;
		}
		change_comes_first(&m->append_entries);
		leader_heard(s, m->server_id, m->append_entries.term);
		match = told_before(s, &m->append_entries);
		break;
	case RAFT_INSTALL_SNAPSHOT:
		if (s->putting || s->receiving) {
			s->installs_dropped++;
			raft_free(m->install_snapshot.data.base);
			raft_configuration_close(&m->install_snapshot.conf);
			return;
		}
		leader_heard(s, m->server_id, m->install_snapshot.term);
		if (s->receive != NULL && s->receive(s->arg, m)) {
			s->receiving = true;
			return;
		}
		break;
	case RAFT_APPEND_ENTRIES_RESULT:
		send_window_answer(raft_shim_window(s, m->server_id), clock_mono_ms());
		shim_install_judge(s, m->server_id, &m->append_entries_result);
		break;
	case RAFT_REQUEST_VOTE:
		if (timing_disrupts(s)) {
			m->request_vote.disrupt_leader = true;
		} else if (r->state == RAFT_FOLLOWER && !m->request_vote.disrupt_leader) {
			shim_early_keep(s, m);
		}
		break;
	default: break;
	}
	s->recv(io, m);
	if (entries) {
		told_after(s, &match);
	}
	/* Ended by a candidate whose log lacks some of ours: it cannot win, we can. */
	s->timing.retake |= asked && r->state == RAFT_FOLLOWER && r->voted_for == 0;
}

static int op_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
	struct raft_shim *s = shim_of(io);

	s->tick = tick;
	s->recv = recv;
	s->heartbeat_ms = msecs;
	if (s->net != NULL) {
		raft_net_start(s->net, io, on_recv);
	}
	return s->inner.start(io, MIN(msecs, s->tick_ms), on_tick, on_recv);
}

static void op_close(struct raft_io *io, raft_io_close_cb cb)
{
	struct raft_shim *s = shim_of(io);

	s->closing = true;
	raft_shim_flush(s);
	shim_installs_cancel(s);
	if (s->net != NULL) {
		raft_net_close(s->net);
	}
	if (s->put != NULL) {
		s->close_cb = cb; /* raft_shim_prepared() goes on */
	} else {
		s->inner.close(io, cb);
	}
}

/* ---- for consensus.c ---- */

void raft_shim_install(struct raft_shim *s, struct raft *raft, unsigned tick_ms)
{
	s->inner = s->io;
	s->raft = raft;
	s->tick_ms = tick_ms;
	list_init(&s->appends);
	list_init(&s->votes);
	list_init(&s->installs);
	list_init(&s->gets);
	list_init(&s->answered);
	list_init(&s->windows);
	s->io.set_term = op_set_term;
	s->io.set_vote = op_set_vote;
	s->io.append = op_append;
	s->io.truncate = op_truncate;
	s->io.snapshot_put = op_snapshot_put;
	s->io.snapshot_get = op_snapshot_get;
	s->io.send = op_send;
	s->io.start = op_start;
	s->io.close = op_close;
}

void raft_shim_received(struct raft_shim *s, struct raft_message *m)
{
	s->receiving = false;
	if (m != NULL) {
		s->recv(&s->io, m);
	}
}

void raft_shim_flush(struct raft_shim *s)
{
	struct list due;

	list_init(&due);
	list_splice(&due, &s->gets);
	while (!list_empty(&due)) {
		get_answer(s, LIST_ENTRY(list_pop(&due), struct shim_get, node));
	}
	list_splice(&due, &s->answered);
	while (!list_empty(&due)) {
		struct shim_answer *a = LIST_ENTRY(list_pop(&due), struct shim_answer, node);
		struct raft_io_send *req = a->req;
		raft_io_send_cb cb = a->cb;

		mem_free(a);
		cb(req, 0);
	}
}

void raft_shim_leader_lost(struct raft_shim *s, raft_id id)
{
	if (s->raft->state == RAFT_FOLLOWER && s->raft->follower_state.current_leader.id == id) {
		s->lost_leader = id;
		shim_early_answer(s);
	}
}

void raft_shim_force_election(struct raft_shim *s)
{
	if ((s->raft->state == RAFT_FOLLOWER || s->raft->state == RAFT_CANDIDATE) &&
	    s->tick != NULL) {
		s->raft->election_timer_start = 0;
		timing_tick(s);
		s->tick(&s->io);
	}
}

void raft_shim_push(struct raft_shim *s)
{
	unsigned timeout = s->raft->heartbeat_timeout;

	if (s->raft->state != RAFT_LEADER || s->tick == NULL || s->closing) {
		return;
	}
	s->raft->heartbeat_timeout = 0; /* every peer is due */
	s->tick(&s->io);
	s->raft->heartbeat_timeout = timeout;
}

int raft_shim_propose(struct raft_shim *s, struct raft_apply *req, const struct raft_buffer *buf,
		      raft_apply_cb cb)
{
	unsigned timeout = s->raft->heartbeat_timeout;
	int rv;

	s->raft->heartbeat_timeout = 0; /* every peer is due, also one that libraft probes */
	rv = raft_apply(s->raft, req, buf, 1, cb);
	s->raft->heartbeat_timeout = timeout;
	return rv;
}

uint64_t raft_shim_append_open_ms(const struct raft_shim *s)
{
	return list_empty(&s->appends)
		       ? 0
		       : clock_mono_ms() -
				 LIST_ENTRY(s->appends.next, struct shim_append, node)->since_ms;
}

void raft_shim_done(struct raft_shim *s)
{
	raft_shim_flush(s);
	timing_done(s);
	shim_installs_free(s);
	while (!list_empty(&s->windows)) {
		mem_free(LIST_ENTRY(list_pop(&s->windows), struct send_window, node));
	}
	shim_votes_free(s);
}
