/* The peer thread: its life, what the raft side asks of it, the member table, the rows of the status. */
#include "cluster/peer_int.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "cluster/cluster_int.h"
#include "net/http.h"
#include "net/listen.h"
#include "net/tls.h"
#include "tailnet/query.h"

enum { META_BUDGET = 64 << 10, REMOVED_MS = 300 };

/* ---- what the raft side asks: copied and posted ---- */

enum op { OP_CONNECT, OP_CUT, OP_LEADER, OP_MEMBERS, OP_READ_INDEX, OP_SILENT, OP_ENDED };

struct op_msg {
	struct peer *peer;
	enum op op;
	uint64_t request, id, term, deadline_ms;
	bool self;
};

static void refresh_and_run(struct peer *p)
{
	peer_table_refresh(p);
	member_run(p);
}

/* After the end each request is still answered: the raft side counts on it. */
static void answer_closed(const struct op_msg *m)
{
	struct err e = {0};

	err_set(&e, ERR_CLOSED, "this lighthouse is stopping");
	if (m->op == OP_CONNECT) {
		link_connected(m->peer->cluster, m->request, ERR_CLOSED);
	} else if (m->op == OP_READ_INDEX) {
		link_read_index(m->peer->cluster, m->request, &e, (struct link_place){0});
	}
}

static void on_op(void *arg)
{
	struct op_msg *m = arg;
	struct peer *p = m->peer;
	struct peer_link *l;

	if (atomic_load(&p->stopping)) {
		answer_closed(m);
		mem_free(m);
		return;
	}
	switch (m->op) {
	case OP_CONNECT: peer_raft_dial(p, m->request, m->id); break;
	case OP_CUT:
		l = peer_link_find(p, m->id);
		if (l != NULL) {
			peer_raft_cut(l);
		}
		refresh_and_run(p);
		break;
	case OP_LEADER:
		p->leader = m->id;
		p->term = m->term;
		p->leads = m->self;
		if (p->leader != 0) {
			forward_leader(p);
		}
		member_run(p);
		break;
	case OP_MEMBERS: refresh_and_run(p); break;
	case OP_READ_INDEX: forward_read_index(p, m->request, m->id, m->deadline_ms); break;
	case OP_SILENT: vouch_ask(p); break;
	case OP_ENDED: peer_raft_ended(p, m->id, m->self); break;
	}
	mem_free(m);
}

static struct op_msg *op_new(void *impl, enum op op)
{
	struct op_msg *m = MEM_NEW(struct op_msg);

	m->peer = impl;
	m->op = op;
	return m;
}

/* What must not be lost; the raft side bounds it: one per event, or answered. */
static void op_post(struct op_msg *m)
{
	loop_post_reply(m->peer->loop, on_op, m);
}

static void op_connect(void *impl, uint64_t request, uint64_t id, const char *address)
{
	struct op_msg *m = op_new(impl, OP_CONNECT);

	(void)address; /* the member table says where it is */
	m->request = request;
	m->id = id;
	op_post(m);
}

static void op_cut(void *impl, uint64_t id)
{
	struct op_msg *m = op_new(impl, OP_CUT);

	m->id = id;
	op_post(m);
}

static void op_leader(void *impl, uint64_t leader, uint64_t term, bool self)
{
	struct op_msg *m = op_new(impl, OP_LEADER);

	m->id = leader;
	m->term = term;
	m->self = self;
	op_post(m);
}

static void op_members(void *impl)
{
	op_post(op_new(impl, OP_MEMBERS));
}

static void op_propose(void *impl, uint64_t request, uint64_t leader, const void *command,
		       size_t len, uint64_t deadline_ms)
{
	forward_propose(impl, request, leader, command, len, deadline_ms);
}

static void op_read_index(void *impl, uint64_t request, uint64_t leader, uint64_t deadline_ms)
{
	struct op_msg *m = op_new(impl, OP_READ_INDEX);

	m->request = request;
	m->id = leader;
	m->deadline_ms = deadline_ms;
	op_post(m);
}

static void op_ended(void *impl, uint64_t way, bool remote)
{
	struct op_msg *m = op_new(impl, OP_ENDED);

	m->id = way;
	m->self = remote;
	op_post(m);
}

static void op_silent(void *impl)
{
	op_post(op_new(impl, OP_SILENT));
}

static const struct peer_ops operations = {
	.connect = op_connect,
	.cut = op_cut,
	.leader = op_leader,
	.members = op_members,
	.propose = op_propose,
	.read_index = op_read_index,
	.ended = op_ended,
	.silent = op_silent,
};

const struct peer_ops *peer_operations(void)
{
	return &operations;
}

/* ---- metrics ---- */

/* Series that count what is rare are there from the start, at 0. */
static void metrics_make(struct peer *p)
{
	static const char forwarded[] = "Calls that went to the leader from here, by kind.";

	p->metric_links = metrics_gauge("skerry_peer_links",
					"Other lighthouses with a link that works.", NULL);
	metrics_counter("skerry_peer_forwarded_total", forwarded, "kind=\"command\"");
	metrics_counter("skerry_peer_forwarded_total", forwarded, "kind=\"read\"");
	metrics_counter("skerry_peer_probes_total", "Probes of a leader whose link broke.", NULL);
	metrics_counter("skerry_peer_probe_lost_total",
			"Probes that found the leader's process gone.", NULL);
	metrics_counter("skerry_peer_probe_false_alarms_total",
			"Probes that found the leader alive and leading.", NULL);
	metrics_counter("skerry_peer_dial_failures_total",
			"Failed connection attempts to other lighthouses.", NULL);
	metrics_counter("skerry_digest_comparisons_total",
			"Comparisons of the lighthouses' states that were made from here.", NULL);
	metrics_counter("skerry_digest_mismatches_total",
			"Comparisons in which the states of lighthouses differed.", NULL);
}

static void link_gauge(const char *name, const char *help, uint64_t id, double v)
{
	char label[48];

	snprintf(label, sizeof(label), "lighthouse=\"%" PRIu64 "\"", id);
	gauge_set(metrics_gauge(name, help, label), v);
}

/* A link that is down has no round trip: NaN. So has the link of a member that was removed (up -1). */
static void row_show(uint64_t id, int up, uint64_t rtt_us, int64_t offset_ms)
{
	link_gauge("skerry_peer_link_up",
		   "1 while the link to the lighthouse works, 0 while not, -1 when it was removed.",
		   id, up);
	link_gauge("skerry_peer_round_trip_seconds",
		   "Last round trip to the lighthouse; NaN without a link.", id,
		   up > 0 ? (double)rtt_us / 1e6 : NAN);
	link_gauge("skerry_peer_clock_offset_seconds",
		   "Clock of the lighthouse less our own; NaN without a link.", id,
		   up > 0 ? (double)offset_ms / 1e3 : NAN);
}

/* ---- members ---- */

struct peer_link *peer_link_find(struct peer *p, uint64_t id)
{
	LIST_FOREACH(&p->links, it)
	{
		struct peer_link *l = LIST_ENTRY(it, struct peer_link, node);

		if (l->id == id) {
			return l;
		}
	}
	return NULL;
}

static void on_removed_end(void *arg)
{
	(void)arg;
	_exit(PEER_EXIT_REMOVED);
}

void peer_refuse(struct peer *p, int exit_code, const char *fmt, ...)
{
	char message[512];
	va_list ap;

	if (p->refusing) {
		return;
	}
	p->refusing = true;
	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	if (p->refused != NULL) {
		p->refused(p->refused_arg, exit_code, message);
		return;
	}
	LOG_ERROR("%s", message);
	if (exit_code != PEER_EXIT_REMOVED) {
		_exit(exit_code);
	}
	/* Answers that are on their way still leave: one of them may be that to the removal. */
	loop_timer_start(&p->removed, p->loop, REMOVED_MS, on_removed_end, p);
}

/* Links follow the table: removed members lose theirs at once. */
static void links_follow(struct peer *p)
{
	LIST_FOREACH_SAFE(&p->links, it, tmp)
	{
		struct peer_link *l = LIST_ENTRY(it, struct peer_link, node);
		const struct member *m = member_find(&p->table, l->id);

		if (m == NULL || m->removed) {
			row_show(l->id, -1, 0, 0);
			peer_link_free(l);
		}
	}
	for (size_t i = 0; i < p->table.n; i++) {
		const struct member *m = &p->table.m[i];
		struct peer_link *l = peer_link_find(p, m->id);

		if (m->id == p->self || m->removed) {
			continue;
		}
		if (l == NULL) {
			l = peer_link_new(p, m);
			list_push(&p->links, &l->node);
			peer_raft_known(l);
		} else {
			peer_link_set_address(l, m->address, false);
		}
	}
}

/*
 * Members that were removed stay in the table: one that lacks somebody we know is of a state that is being rebuilt or is
 * damaged, and would leave us without the very links that mend it.
 */
static bool lacks_somebody(const struct member_table *t, const struct member_table *known)
{
	for (size_t i = 0; i < known->n; i++) {
		if (member_find(t, known->m[i].id) == NULL) {
			return true;
		}
	}
	return false;
}

/* What the peer side keeps of the state beside the table. */
static int state_facts(struct peer *p, const struct kv *kv, struct err *err)
{
	struct arena a;
	Meta *m;
	int r = membership_read(kv, &p->change, err);

	arena_init(&a, META_BUDGET);
	if (r >= 0) {
		r = query_meta(kv, &a, &m);
	}
	if (r >= 0) {
		p->level = m->feature_level;
		p->state_ms = m->time_ms;
		p->revision = m->revision;
		p->epoch = m->epoch;
	}
	arena_done(&a);
	return r;
}

void peer_table_refresh(struct peer *p)
{
	struct member_table t = {0};
	struct cluster_read *read = NULL;
	const struct member *us;
	struct err e = {0};
	int r = cluster_read_begin(p->cluster, "members", &read, &e);

	if (r >= 0) {
		const struct kv *kv = cluster_read_kv(read);

		r = member_table_read(kv, &t, &e);
		if (r >= 0) {
			r = state_facts(p, kv, &e);
		}
		cluster_read_end(read);
	}
	if (r < 0) {
		member_table_done(&t);
		/* No state yet: members.json holds until there is one. */
		if (r != ERR_NOT_FOUND) {
			LOG_DEBUG("peer: members: %s", err_msg(&e, r));
		}
		return;
	}
	if (lacks_somebody(&t, &p->table)) {
		LOG_DEBUG("peer: the state lacks a member that is known: its table is not taken");
		member_table_done(&t);
		return;
	}
	if (!member_table_equal(&t, &p->table) && member_table_save(p->dir, &t, &e) < 0) {
		LOG_WARN("members.json: %s", e.msg);
	}
	member_table_done(&p->table);
	p->table = t;
	links_follow(p);
	us = member_find(&p->table, p->self);
	if (us != NULL && us->removed) {
		peer_refuse(p, PEER_EXIT_REMOVED,
			    "this lighthouse (%" PRIu64
			    ") was removed from the cluster: empty %s and join "
			    "anew with a new token to bring this host back",
			    p->self, p->dir);
	}
	peer_rows_update(p);
}

/* ---- status ---- */

void peer_rows_update(struct peer *p)
{
	struct cluster_member_status rows[CLUSTER_MEMBERS_MAX];
	size_t n = 0, connected = 0;

	for (size_t i = 0; i < p->table.n && n < CLUSTER_MEMBERS_MAX; i++) {
		const struct member *m = &p->table.m[i];
		const struct peer_link *l = peer_link_find(p, m->id);
		struct cluster_member_status *row = &rows[n];

		if (m->removed) {
			continue;
		}
		n++;
		*row = (struct cluster_member_status){
			.id = m->id,
			.self = m->id == p->self,
			.leader = m->id == p->leader,
			.voter = m->voter,
			.incarnation = m->incarnation,
			.disk_low = m->id == p->self && cluster_disk_low(p->cluster),
		};
		if (l == NULL) {
			continue;
		}
		row->connected = peer_link_connected(l);
		connected += row->connected;
		row->applied_index = l->applied_index;
		row->revision = l->revision;
		row->devices = l->devices;
		row->disk_low = l->disk_low;
		row->clock_offset_ms = l->skew_ms - clock_skew_ms();
		row->rtt_us = l->rtt_us;
	}
	gauge_set(p->metric_links, (double)connected);
	for (size_t i = 0; i < n; i++) {
		if (!rows[i].self) {
			row_show(rows[i].id, rows[i].connected, rows[i].rtt_us,
				 rows[i].clock_offset_ms);
		}
	}
	pthread_mutex_lock(&p->lock);
	memcpy(p->rows, rows, n * sizeof(rows[0]));
	p->n_rows = n;
	pthread_mutex_unlock(&p->lock);
}

void peer_fill_status(struct peer *p, struct cluster_status *s)
{
	pthread_mutex_lock(&p->lock);
	memcpy(s->member, p->rows, p->n_rows * sizeof(p->rows[0]));
	s->n_members = p->n_rows;
	pthread_mutex_unlock(&p->lock);
	for (size_t i = 0; i < s->n_members; i++) {
		if (s->member[i].self) {
			s->member[i].devices = atomic_load(&p->devices);
		}
	}
}

void peer_set_devices(struct peer *p, uint64_t devices)
{
	atomic_store(&p->devices, devices);
}

int peer_api_certificate(struct peer *p, char **ret_chain_pem, char **ret_key_pem, struct err *err)
{
	struct buf chain = BUF_INIT, key = BUF_INIT;
	int r;

	buf_reserve(&key, 4096);
	pthread_mutex_lock(&p->lock);
	peer_tls_chain(p->keys, p->keys->api_cert_pem, &chain);
	r = x509_key_pem(p->keys->api_key, &key);
	pthread_mutex_unlock(&p->lock);
	if (r < 0) {
		buf_done(&chain);
		buf_wipe(&key);
		return err_set(err, r, "the key of the API listener cannot be written");
	}
	*ret_chain_pem = buf_take(&chain, NULL);
	*ret_key_pem = buf_take(&key, NULL);
	return 0;
}

size_t peer_ca_pins(struct peer *p, uint8_t ret[CLUSTER_CA_PINS][32])
{
	size_t n = 1;

	pthread_mutex_lock(&p->lock);
	memcpy(ret[0], p->keys->ca_pin, 32);
	if (p->keys->ca_old_pem != NULL) {
		memcpy(ret[n++], p->keys->ca_old_pin, 32);
	}
	pthread_mutex_unlock(&p->lock);
	return n;
}

unsigned peer_certificate_count(struct peer *p)
{
	return atomic_load(&p->certificates);
}

/* ---- life ---- */

static void on_tick(void *arg)
{
	struct peer *p = arg;
	uint64_t now = clock_mono_ms();

	loop_timer_start(&p->tick, p->loop, PEER_TICK_MS, on_tick, p);
	/* First: what follows may wait for what a thread that does not end holds. */
	watchdog_peer(p->cluster);
	LIST_FOREACH(&p->links, it)
	{
		peer_link_renew(LIST_ENTRY(it, struct peer_link, node), false);
	}
	member_run(p);
	rotate_run(p);
	peer_ack_tick(p, now);
	peer_digest_run(p, now);
	peer_disk_run(p, now);
	peer_rows_update(p);
	if (now >= p->renew_ms) {
		p->renew_ms = now + (peer_tls_renew(p) < 0 ? PEER_RENEW_AGAIN_MS : PEER_RENEW_MS);
	}
}

static void on_start(void *arg)
{
	struct peer *p = arg;

	/* The certificates first, so that an expired one is replaced before it is used, if the state is there. */
	peer_table_refresh(p);
	links_follow(p);
	peer_rows_update(p);
	on_tick(p);
}

int peer_new(const struct peer_options *o, struct peer **ret, struct err *err)
{
	struct peer *p = MEM_NEW(struct peer);
	int r;

	p->cluster = o->cluster;
	p->dir = mem_strdup(o->dir);
	p->version = mem_strdup(o->version != NULL ? o->version : "");
	p->incarnation = o->incarnation;
	p->keys = o->keys;
	p->refused = o->refused;
	p->refused_arg = o->refused_arg;
	p->cluster_id = o->keys->cluster_id;
	p->self = o->keys->lighthouse_id;
	p->compare_ms = o->compare_ms != 0 ? o->compare_ms : PEER_COMPARE_MS;
	list_init(&p->links);
	list_init(&p->unknown);
	list_init(&p->questions);
	forward_init(p);
	list_init(&p->digests);
	list_init(&p->notices);
	list_init(&p->facts);
	list_init(&p->changes);
	list_init(&p->change_calls);
	list_init(&p->digest_waits);
	pthread_mutex_init(&p->lock, NULL);
	p->loop = loop_new("peer");
	metrics_make(p);
	r = member_table_load(p->dir, &p->table, err);
	if (r >= 0) {
		r = peer_ack_load(p, err);
	}
	if (r >= 0) {
		r = peer_accept_new(p, o->listen, err);
	}
	if (r < 0) {
		peer_free(p);
		return r;
	}
	rotate_init(p);
	*ret = p;
	return 0;
}

int peer_start(struct peer *p, struct err *err)
{
	int r;

	loop_post_reply(p->loop, on_start, p);
	r = loop_thread_start(p->loop);
	if (r < 0) {
		return err_set(err, r, "the peer thread cannot start: %s", err_text(r));
	}
	p->started = true;
	return 0;
}

static void on_end(void *arg)
{
	struct peer *p = arg;

	loop_stop(p->loop);
}

static void on_stop(void *arg)
{
	struct peer *p = arg;

	loop_timer_stop(&p->tick);
	loop_timer_stop(&p->removed);
	probe_stop(p);
	vouch_stop(p);
	forward_stop(p);
	peer_digest_stop(p);
	peer_facts_stop(p);
	peer_change_stop(p);
	peer_notice_stop(p);
	rotate_stop(p);
	peer_raft_stop(p);
	peer_service_stop(p);
	LIST_FOREACH_SAFE(&p->links, it, tmp)
	{
		peer_link_free(LIST_ENTRY(it, struct peer_link, node));
	}
	peer_accept_stop(p);
	/* Behind everything that is queued: it is answered first. */
	loop_post_reply(p->loop, on_end, p);
}

void peer_stop(struct peer *p)
{
	if (!p->started) {
		return;
	}
	atomic_store(&p->stopping, true);
	loop_post_reply(p->loop, on_stop, p);
	loop_thread_join(p->loop);
	p->started = false;
}

void peer_free(struct peer *p)
{
	if (p == NULL) {
		return;
	}
	PRE(!p->started);
	LIST_FOREACH_SAFE(&p->links, it, tmp)
	{
		peer_link_free(LIST_ENTRY(it, struct peer_link, node));
	}
	peer_accept_free(p);
	loop_free(p->loop);
	rotate_free(p);
	member_table_done(&p->table);
	pthread_mutex_destroy(&p->lock);
	mem_free(p->acks);
	mem_free(p->dir);
	mem_free(p->version);
	mem_free(p);
}

struct loop *peer_loop(const struct peer *p)
{
	return p->loop;
}

uint16_t peer_port(const struct peer *p)
{
	return listener_port(p->listener);
}
