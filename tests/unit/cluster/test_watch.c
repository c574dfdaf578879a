/*
 * The watch hub on stores in memory: one encoding for many, bounded memory for who does not read, and the resume
 * property: whatever a watcher missed, it ends with the map of a fresh one. LIBS: cluster tailnet net proto base
 * TIMEOUT: 120
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/crypto.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "cluster/cluster.h"
#include "cluster/watch.h"
#include "cluster/watch_int.h"
#include "net/loop.h"
#include "proto/pb_decode.h"
#include "proto/pb_util.h"
#include "skerry/v1/agent.pb-c.h"
#include "tailnet/query.h"
#include "tailnet/tailnet.h"
#include "tests/unit/cluster/watch_log.h"

enum { REPLICAS = 3, STEPS = 60, SEEDS = 200 };

/* ---- a device ---- */

struct entry {
	uint64_t id;
	struct buf body, presence;
};

struct device {
	uint64_t epoch, revision;
	struct buf self;
	struct entry *peer;
	size_t n;
	bool in_full;
	struct watcher *watcher;
	bool blocked; /* does not read */
	size_t messages, bytes, largest, fulls;
	bool ended;
	struct err why;
};

static struct entry *device_peer(struct device *d, uint64_t id, bool make)
{
	size_t i = 0;

	while (i < d->n && d->peer[i].id < id)
		i++;
	if (i < d->n && d->peer[i].id == id)
		return &d->peer[i];
	if (!make)
		return NULL;
	d->peer = mem_realloc(d->peer, (d->n + 1) * sizeof(*d->peer));
	memmove(&d->peer[i + 1], &d->peer[i], (d->n - i) * sizeof(*d->peer));
	d->n++;
	memset(&d->peer[i], 0, sizeof(d->peer[i]));
	d->peer[i].id = id;
	return &d->peer[i];
}

static void device_drop(struct device *d, size_t i)
{
	buf_done(&d->peer[i].body);
	buf_done(&d->peer[i].presence);
	memmove(&d->peer[i], &d->peer[i + 1], (d->n - i - 1) * sizeof(*d->peer));
	d->n--;
}

static void device_clear(struct device *d)
{
	while (d->n)
		device_drop(d, d->n - 1);
	mem_free(d->peer);
	d->peer = NULL;
	buf_done(&d->self);
}

static void set(struct buf *b, const void *msg)
{
	buf_reset(b);
	pb_pack(msg, b);
}

static void device_merge(struct device *d, const Skerry__V1__NetmapSelf *self, size_t n_peers,
			 Skerry__V1__NetmapPeer **peers, size_t n_presence,
			 Skerry__V1__PeerPresence **presence)
{
	if (self)
		set(&d->self, self);
	for (size_t i = 0; i < n_peers; i++)
		set(&device_peer(d, peers[i]->node_id, true)->body, peers[i]);
	for (size_t i = 0; i < n_presence; i++) {
		struct entry *e = device_peer(d, presence[i]->node_id, false);

		if (e)
			set(&e->presence, presence[i]);
	}
}

static int device_send(void *arg, struct blob *const *pieces, size_t n)
{
	struct device *d = arg;
	struct buf b = BUF_INIT;
	struct pb_opts opts = {0};
	ProtobufCMessage *base;
	Skerry__V1__WatchResponse *m;
	struct err err = {0};
	struct arena arena;

	assert_false(d->blocked);
	for (size_t i = 0; i < n; i++)
		buf_append(&b, pieces[i]->data, pieces[i]->len);
	arena_init(&arena, 64 << 20);
	if (pb_decode(&skerry__v1__watch_response__descriptor, b.data, b.len, &opts, &arena, &base,
		      &err) < 0)
		fail_msg("a message cannot be decoded: %s", err.msg);
	m = (Skerry__V1__WatchResponse *)base;
	d->messages++;
	d->bytes += b.len;
	d->largest = MAX(d->largest, b.len);
	assert_true(b.len <= LIM_NETMAP_CHUNK_BYTES);
	if (m->event_case == SKERRY__V1__WATCH_RESPONSE__EVENT_CHUNK) {
		Skerry__V1__NetmapChunk *c = m->chunk;

		if (c->index == 0) {
			device_clear(d);
			d->fulls++;
			assert_non_null(c->self);
		}
		device_merge(d, c->self, c->n_peers, c->peers, c->n_presence, c->presence);
		d->in_full = !c->last;
		if (c->last) {
			d->epoch = c->revision->epoch;
			d->revision = c->revision->revision;
		}
	} else if (m->event_case == SKERRY__V1__WATCH_RESPONSE__EVENT_DELTA) {
		Skerry__V1__NetmapDelta *c = m->delta;

		assert_false(d->in_full);
		assert_int_equal(c->revision->epoch, d->epoch);
		assert_true(c->revision->revision > d->revision);
		device_merge(d, c->self, c->n_peers, c->peers, 0, NULL);
		for (size_t i = 0; i < c->n_removed; i++) {
			for (size_t k = 0; k < d->n; k++) {
				if (d->peer[k].id == c->removed[i])
					device_drop(d, k--);
			}
		}
		for (size_t k = 0; c->visible_complete && k < d->n; k++) {
			bool listed = false;

			for (size_t i = 0; i < c->n_visible; i++)
				listed = listed || c->visible[i] == d->peer[k].id;
			if (!listed)
				device_drop(d, k--);
		}
		device_merge(d, NULL, 0, NULL, c->n_presence, c->presence);
		d->revision = c->revision->revision;
	}
	arena_done(&arena);
	buf_done(&b);
	return 0;
}

static size_t device_backlog(void *arg)
{
	struct device *d = arg;

	return d->blocked ? 1 : 0;
}

static void device_end(void *arg, const struct err *why)
{
	struct device *d = arg;

	d->watcher = NULL;
	d->ended = true;
	d->why = *why;
}

static const struct watch_sink_ops device_ops = {device_send, device_backlog, device_end};

static void device_watch(struct device *d, struct replica *r, uint64_t tailnet, uint64_t node)
{
	struct watch_params p = {
		.tailnet = tailnet, .node = node, .epoch = d->epoch, .revision = d->revision};

	d->ended = false;
	d->in_full = false;
	d->watcher = watch_add(r->hub, &p, &device_ops, d);
}

/* A flush ends with its slice of time: on a slow machine many are needed. */
static void flush(struct replica *r)
{
	for (int i = 0; !list_empty(&r->hub->ready); i++) {
		assert_true(i < 100000);
		watch_hub_flush(r->hub);
	}
}

static bool same(const struct device *a, const struct device *b)
{
	if (a->n != b->n || a->self.len != b->self.len ||
	    memcmp(a->self.data, b->self.data, a->self.len) != 0)
		return false;
	for (size_t i = 0; i < a->n; i++) {
		const struct entry *x = &a->peer[i];
		const struct entry *y = &b->peer[i];

		if (x->id != y->id || x->body.len != y->body.len ||
		    memcmp(x->body.data, y->body.data, x->body.len) ||
		    x->presence.len != y->presence.len ||
		    (x->presence.len &&
		     memcmp(x->presence.data, y->presence.data, x->presence.len)))
			return false;
	}
	return true;
}

/* ---- set-up of a cluster with two tailnets ---- */

struct world {
	struct log log;
	struct replica first; /* always applied at once: tells ids */
	uint64_t tailnet, user;
	uint64_t node[600];
	size_t n_nodes;
	uint64_t time;
};

static uint64_t world_apply(struct world *w)
{
	uint64_t id = 0;

	replica_step(&w->first, &w->log, &id);
	return id;
}

static void world_init(struct world *w, uint64_t seed, size_t nodes)
{
	struct arena arena;
	TailnetRecord *t;
	UserRecord *u;

	memset(w, 0, sizeof(*w));
	rng = seed * 0x9e3779b97f4a7c15ull + 1;
	w->time = T0;
	append_bootstrap(&w->log);
	replica_init(&w->first, &w->log);
	append_start(&w->log, ++w->time);
	world_apply(w);
	arena_init(&arena, 1 << 20);
	assert_int_equal(query_tailnet_named(&w->first.kv, "default", &arena, &t), 0);
	assert_int_equal(query_user_login(&w->first.kv, t->id, "admin", &arena, &u), 0);
	w->tailnet = t->id;
	w->user = u->id;
	arena_done(&arena);
	while (w->n_nodes < nodes) {
		char name[32];

		snprintf(name, sizeof(name), "node%zu", w->n_nodes);
		append_node(&w->log, w->tailnet, w->user, name, ++w->time);
		w->node[w->n_nodes++] = world_apply(w);
		assert_true(w->node[w->n_nodes - 1] != 0);
	}
}

static void world_done(struct world *w)
{
	replica_done(&w->first);
	log_done(&w->log);
}

static void random_command(struct world *w)
{
	uint64_t node = w->node[rnd((uint32_t)w->n_nodes)];
	uint64_t id;
	char name[32];

	w->time += rnd(40);
	switch (rnd(10)) {
	case 0:
	case 1: append_endpoints(&w->log, w->tailnet, node, (uint8_t)rnd(250), w->time); break;
	case 2:
	case 3: append_session(&w->log, w->tailnet, node, w->time, rnd(2), w->time); break;
	case 4: append_dns(&w->log, w->tailnet, w->time); break;
	case 5:
		if (w->n_nodes < 30) {
			snprintf(name, sizeof(name), "more%u", rnd(20));
			append_node(&w->log, w->tailnet, w->user, name, w->time);
			id = world_apply(w);
			if (id)
				w->node[w->n_nodes++] = id;
			return;
		}
		/* fall through */
		__attribute__((fallthrough));
	default:
		/* Node 0 is the watcher: it is never removed. */
		append_update(&w->log, w->tailnet, w->node[1 + rnd((uint32_t)w->n_nodes - 1)],
			      (int)rnd(6), w->time);
		break;
	}
	world_apply(w);
}

/* ---- tests ---- */

static void resume_once(uint64_t seed)
{
	struct replica replica[REPLICAS];
	struct device d = {0};
	struct device fresh = {0};
	struct world w;
	size_t at = 0;

	world_init(&w, seed, 8);
	for (size_t i = 0; i < REPLICAS; i++)
		replica_init(&replica[i], &w.log);
	device_watch(&d, &replica[0], w.tailnet, w.node[0]);
	for (int step = 0; step < STEPS; step++) {
		random_command(&w);
		for (size_t i = 0; i < REPLICAS; i++) {
			while (replica[i].applied < w.log.n && rnd(3))
				replica_step(&replica[i], &w.log, NULL);
			watch_hub_flush(replica[i].hub);
		}
		switch (rnd(8)) {
		case 0: /* to another lighthouse, in the middle of anything */
			watch_remove(d.watcher);
			at = rnd(REPLICAS);
			device_watch(&d, &replica[at], w.tailnet, w.node[0]);
			break;
		case 1:
			d.blocked = !d.blocked;
			if (!d.blocked && d.watcher)
				watch_writable(d.watcher);
			break;
		case 2: /* the agent was restarted without its stored netmap */
			watch_remove(d.watcher);
			device_clear(&d);
			d.epoch = d.revision = 0;
			device_watch(&d, &replica[at], w.tailnet, w.node[0]);
			break;
		default: break;
		}
		if (d.ended)
			fail_msg("seed %" PRIu64 ": ended: %s", seed, d.why.msg);
	}
	d.blocked = false;
	for (size_t i = 0; i < REPLICAS; i++) {
		while (replica[i].applied < w.log.n)
			replica_step(&replica[i], &w.log, NULL);
	}
	watch_writable(d.watcher);
	flush(&replica[at]);
	device_watch(&fresh, &replica[(at + 1) % REPLICAS], w.tailnet, w.node[0]);
	flush(&replica[(at + 1) % REPLICAS]);
	if (!same(&d, &fresh))
		fail_msg("seed %" PRIu64 ": %zu peers at revision %" PRIu64
			 " differ from a fresh map with %zu at %" PRIu64,
			 seed, d.n, d.revision, fresh.n, fresh.revision);
	watch_remove(d.watcher);
	watch_remove(fresh.watcher);
	device_clear(&d);
	device_clear(&fresh);
	for (size_t i = 0; i < REPLICAS; i++)
		replica_done(&replica[i]);
	world_done(&w);
}

static void test_resume(void **state)
{
	const char *one = getenv("WATCH_SEED");
	uint64_t first = one ? strtoull(one, NULL, 10) : 1;
	uint64_t n = one ? 1 : SEEDS;

	(void)state;
	for (uint64_t seed = first; seed < first + n; seed++)
		resume_once(seed);
	print_message("resume: %" PRIu64 " seeds from %" PRIu64 ", equal maps\n", n, first);
}

static void test_encoded_once(void **state)
{
	enum { N = 500 };
	struct device *d = mem_calloc(N, sizeof(*d));
	double encoded;
	size_t largest = 0;
	struct world w;

	(void)state;
	world_init(&w, 7, N);
	for (size_t i = 0; i < N; i++)
		device_watch(&d[i], &w.first, w.tailnet, w.node[i]);
	flush(&w.first);
	for (size_t i = 0; i < N; i++) {
		assert_int_equal(d[i].n, N - 1);
		assert_int_equal(d[i].fulls, 1);
		d[i].messages = d[i].bytes = 0;
	}
	encoded = metrics_value("skerry_watch_encoded_total", NULL);
	append_endpoints(&w.log, w.tailnet, w.node[3], 99, ++w.time);
	world_apply(&w);
	flush(&w.first);
	assert_int_equal((int)(metrics_value("skerry_watch_encoded_total", NULL) - encoded), 1);
	for (size_t i = 0; i < N; i++) {
		assert_int_equal(d[i].messages, i == 3 ? 0 : 1);
		assert_true(d[i].bytes < 300);
		largest = MAX(largest, d[i].bytes);
	}
	print_message("500 watchers, one endpoint change: encoded once, %zu bytes each\n", largest);
	for (size_t i = 0; i < N; i++) {
		watch_remove(d[i].watcher);
		device_clear(&d[i]);
	}
	mem_free(d);
	world_done(&w);
}

static void test_slow_reader(void **state)
{
	struct device d = {0};
	struct world w;

	(void)state;
	world_init(&w, 9, 20);
	device_watch(&d, &w.first, w.tailnet, w.node[0]);
	flush(&w.first);
	d.messages = 0;
	d.blocked = true;
	/* A minute of changes, twenty a second. device_send fails the test if it is called. */
	for (int i = 0; i < 1200; i++) {
		append_endpoints(&w.log, w.tailnet, w.node[1 + i % 10], (uint8_t)i, w.time += 50);
		world_apply(&w);
		watch_hub_flush(w.first.hub);
	}
	d.blocked = false;
	watch_writable(d.watcher);
	flush(&w.first);
	assert_int_equal(d.messages, 1);
	assert_true(d.largest < 4096);
	watch_remove(d.watcher);
	device_clear(&d);
	world_done(&w);
}

static void test_ends(void **state)
{
	struct device d = {0};
	struct world w;

	(void)state;
	world_init(&w, 11, 4);
	device_watch(&d, &w.first, w.tailnet, w.node[2]);
	flush(&w.first);
	assert_false(d.ended);
	append_update(&w.log, w.tailnet, w.node[2], 3, ++w.time);
	world_apply(&w);
	flush(&w.first);
	assert_true(d.ended);
	assert_string_equal(d.why.reason, "NODE_DELETED");
	device_clear(&d);
	world_done(&w);
}

static int setup(void **state)
{
	(void)state;
	crypto_init();
	loop = loop_new("test");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	loop_free(loop);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_encoded_once),
		cmocka_unit_test(test_slow_reader),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_resume),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
