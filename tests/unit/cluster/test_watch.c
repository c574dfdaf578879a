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
#include "net/loop.h"
#include "proto/pb_decode.h"
#include "proto/pb_util.h"
#include "skerry/v1/agent.pb-c.h"
#include "tailnet/query.h"
#include "tailnet/tailnet.h"

enum { REPLICAS = 3, STEPS = 60, SEEDS = 200, T0 = 1000000 };

/* ---- a log of commands and replicas that apply it ---- */

struct log {
	struct buf *entry;
	uint64_t *time;
	size_t n;
};

struct replica {
	struct kv_mem *mem;
	struct kv kv;
	size_t applied;
	struct watch_source source;
	struct watch_hub *hub;
};

static struct loop *loop;

static int mem_begin(void *impl, const struct kv **ret_kv, struct err *err)
{
	struct replica *r = impl;

	(void)err;
	*ret_kv = &r->kv;
	return 0;
}

static void mem_end(void *impl)
{
	(void)impl;
}

static uint64_t mem_quorum_age(void *impl)
{
	(void)impl;
	return 0;
}

static const struct watch_source_ops mem_ops = {mem_begin, mem_end, mem_quorum_age};

static void log_append(struct log *l, const Command *cmd, uint64_t time)
{
	l->entry = mem_realloc(l->entry, (l->n + 1) * sizeof(*l->entry));
	l->time = mem_realloc(l->time, (l->n + 1) * sizeof(*l->time));
	memset(&l->entry[l->n], 0, sizeof(*l->entry));
	pb_pack(cmd, &l->entry[l->n]);
	l->time[l->n++] = time;
}

static void log_done(struct log *l)
{
	for (size_t i = 0; i < l->n; i++)
		buf_done(&l->entry[i]);
	mem_free(l->entry);
	mem_free(l->time);
	memset(l, 0, sizeof(*l));
}

/* Applies the next entry and tells the hub; returns the reply's code. */
static int replica_step(struct replica *r, const struct log *l, uint64_t *ret_id)
{
	struct apply_context ctx = {.time_ms = l->time[r->applied], .raft_index = r->applied + 1};
	struct pb_opts opts = {0};
	struct cluster_changes *changes;
	struct apply_result res;
	struct arena arena;
	ProtobufCMessage *cmd;
	struct err err = {0};
	uint64_t time;
	int code;

	arena_init(&arena, 16 << 20);
	assert_int_equal(pb_decode(&skerry__internal__v1__command__descriptor,
				   l->entry[r->applied].data, l->entry[r->applied].len, &opts,
				   &arena, &cmd, &err),
			 0);
	if (tailnet_apply(&r->kv, (Command *)cmd, &ctx, &arena, &res, &err) < 0)
		fail_msg("apply: %s", err.msg);
	r->applied++;
	code = res.reply.code;
	if (ret_id)
		*ret_id = res.reply.id;
	if (r->hub && res.n_changes) {
		changes = mem_zalloc(sizeof(*changes) + res.n_changes * sizeof(changes->change[0]));
		assert_int_equal(query_revision(&r->kv, &changes->epoch, &changes->revision, &time),
				 0);
		changes->n = res.n_changes;
		for (size_t i = 0; i < res.n_changes; i++) {
			changes->change[i] =
				(struct cluster_change){.tailnet = res.changes[i].tailnet,
							.object = res.changes[i].object,
							.revision = res.changes[i].revision,
							.kind = res.changes[i].kind,
							.deleted = res.changes[i].deleted,
							.visibility = res.changes[i].visibility};
		}
		watch_hub_changes(r->hub, changes);
		mem_free(changes);
	}
	arena_done(&arena);
	return code;
}

static void replica_init(struct replica *r, const struct log *l)
{
	memset(r, 0, sizeof(*r));
	r->mem = kv_mem_new();
	r->kv = kv_mem_kv(r->mem);
	while (r->applied < l->n)
		replica_step(r, l, NULL);
	r->source = (struct watch_source){&mem_ops, r};
	r->hub = watch_hub_new(loop, &r->source);
	watch_hub_set_presence_ms(r->hub, 0);
}

static void replica_done(struct replica *r)
{
	watch_hub_free(r->hub);
	kv_mem_free(r->mem);
}

/* ---- commands ---- */

static uint64_t rng;

static uint32_t rnd(uint32_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)(rng >> 33) % n;
}

static void command_init(Command *cmd, Skerry__Internal__V1__Actor *actor, uint8_t random[32],
			 uint64_t tailnet)
{
	skerry__internal__v1__command__init(cmd);
	skerry__internal__v1__actor__init(actor);
	actor->kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_SYSTEM;
	cmd->actor = actor;
	for (int i = 0; i < 32; i++)
		random[i] = (uint8_t)rnd(256);
	cmd->random.data = random;
	cmd->random.len = 32;
	cmd->tailnet = tailnet;
}

static void append_bootstrap(struct log *l)
{
	Skerry__Internal__V1__Bootstrap b = SKERRY__INTERNAL__V1__BOOTSTRAP__INIT;
	Skerry__Internal__V1__Actor actor;
	MemberRecord m = SKERRY__INTERNAL__V1__MEMBER_RECORD__INIT;
	CaRecord ca = SKERRY__INTERNAL__V1__CA_RECORD__INIT;
	SealedSecret key = SKERRY__INTERNAL__V1__SEALED_SECRET__INIT;
	uint8_t bytes[32] = {1, 2, 3};
	uint8_t random[32];
	Command cmd;

	command_init(&cmd, &actor, random, 0);
	m.id = 77;
	m.name = (char *)"lh1";
	m.kind = SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_VOTER;
	m.public_key.data = bytes;
	m.public_key.len = 32;
	m.peer_address = (char *)"10.0.0.1:8444";
	m.api_url = (char *)"https://10.0.0.1:8443";
	m.feature_min = m.feature_max = FEATURE_LEVEL_MAX;
	ca.generation = 1;
	ca.certificate_der.data = bytes;
	ca.certificate_der.len = 32;
	key.name = (char *)"ca-key";
	key.generation = 1;
	key.box.data = bytes;
	key.box.len = 32;
	b.cluster_id = 42;
	b.cluster_name = (char *)"test";
	b.epoch = 4711;
	b.feature_level = FEATURE_LEVEL_MAX;
	b.ca = &ca;
	b.ca_key = &key;
	b.member = &m;
	b.tailnet_name = (char *)"default";
	b.base_domain = (char *)"test.internal";
	b.user_name = (char *)"admin";
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_BOOTSTRAP;
	cmd.bootstrap = &b;
	log_append(l, &cmd, T0);
}

static void append_node(struct log *l, uint64_t tailnet, uint64_t user, const char *hostname,
			uint64_t time)
{
	Skerry__Internal__V1__NodeCreate b = SKERRY__INTERNAL__V1__NODE_CREATE__INIT;
	Skerry__Internal__V1__RegisterFacts f = SKERRY__INTERNAL__V1__REGISTER_FACTS__INIT;
	MachineKey mk = SKERRY__INTERNAL__V1__MACHINE_KEY__INIT;
	Skerry__Internal__V1__Actor actor;
	uint8_t random[32];
	uint8_t machine[32];
	uint8_t node[32];
	Command cmd;

	command_init(&cmd, &actor, random, tailnet);
	for (int i = 0; i < 32; i++) {
		machine[i] = (uint8_t)rnd(256);
		node[i] = (uint8_t)rnd(256);
	}
	mk.kind = SKERRY__INTERNAL__V1__MACHINE_KEY_KIND__MACHINE_KEY_KIND_ED25519;
	mk.key.data = machine;
	mk.key.len = 32;
	f.machine_key = &mk;
	f.node_key.data = node;
	f.node_key.len = 32;
	f.hostname = (char *)(uintptr_t)hostname;
	b.facts = &f;
	b.user = user;
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_NODE_CREATE;
	cmd.node_create = &b;
	log_append(l, &cmd, time);
}

static void append_endpoints(struct log *l, uint64_t tailnet, uint64_t node, uint8_t last,
			     uint64_t time)
{
	Skerry__Internal__V1__NodeFacts b = SKERRY__INTERNAL__V1__NODE_FACTS__INIT;
	Skerry__Internal__V1__NodeFact f = SKERRY__INTERNAL__V1__NODE_FACT__INIT;
	Skerry__Internal__V1__NodeFact *facts[] = {&f};
	Skerry__V1__Endpoint e = SKERRY__V1__ENDPOINT__INIT;
	Skerry__V1__Endpoint *endpoints[] = {&e};
	Skerry__Internal__V1__Actor actor;
	uint8_t address[4] = {192, 0, 2, last};
	uint8_t random[32];
	Command cmd;

	command_init(&cmd, &actor, random, 0);
	e.address.data = address;
	e.address.len = 4;
	e.port = 41641;
	e.kind = SKERRY__V1__ENDPOINT_KIND__ENDPOINT_KIND_LOCAL;
	f.node = node;
	f.tailnet = tailnet;
	f.set_endpoints = true;
	f.endpoints = endpoints;
	f.n_endpoints = 1;
	b.facts = facts;
	b.n_facts = 1;
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_NODE_FACTS;
	cmd.node_facts = &b;
	log_append(l, &cmd, time);
}

static void append_session(struct log *l, uint64_t tailnet, uint64_t node, uint64_t session,
			   bool detach, uint64_t time)
{
	Skerry__Internal__V1__SessionBatch b = SKERRY__INTERNAL__V1__SESSION_BATCH__INIT;
	Skerry__Internal__V1__SessionEvent e = SKERRY__INTERNAL__V1__SESSION_EVENT__INIT;
	Skerry__Internal__V1__SessionEvent *events[] = {&e};
	Skerry__Internal__V1__Actor actor;
	uint8_t random[32];
	Command cmd;

	command_init(&cmd, &actor, random, 0);
	b.lighthouse = 77;
	b.incarnation = 5;
	e.node = node;
	e.tailnet = tailnet;
	e.session = session;
	e.instance_id = (char *)"one";
	e.detach = detach;
	b.events = events;
	b.n_events = 1;
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_SESSION_BATCH;
	cmd.session_batch = &b;
	log_append(l, &cmd, time);
}

static void append_start(struct log *l, uint64_t time)
{
	Skerry__Internal__V1__LighthouseStart b = SKERRY__INTERNAL__V1__LIGHTHOUSE_START__INIT;
	Skerry__Internal__V1__Actor actor;
	uint8_t random[32];
	Command cmd;

	command_init(&cmd, &actor, random, 0);
	b.id = 77;
	b.incarnation = 5;
	b.feature_min = b.feature_max = FEATURE_LEVEL_MAX;
	b.version = (char *)"test";
	b.peer_address = (char *)"10.0.0.1:8444";
	b.api_url = (char *)"https://10.0.0.1:8443";
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_LIGHTHOUSE_START;
	cmd.lighthouse_start = &b;
	log_append(l, &cmd, time);
}

static void append_update(struct log *l, uint64_t tailnet, uint64_t node, int what, uint64_t time)
{
	Skerry__Internal__V1__NodeUpdate b = SKERRY__INTERNAL__V1__NODE_UPDATE__INIT;
	Skerry__Internal__V1__NodeDelete d = SKERRY__INTERNAL__V1__NODE_DELETE__INIT;
	Skerry__Internal__V1__Tick tick = SKERRY__INTERNAL__V1__TICK__INIT;
	Skerry__Internal__V1__Actor actor;
	char name[32];
	uint8_t random[32];
	Command cmd;

	command_init(&cmd, &actor, random, tailnet);
	b.id = node;
	d.id = node;
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_NODE_UPDATE;
	cmd.node_update = &b;
	switch (what) {
	case 0:
		snprintf(name, sizeof(name), "name%u", rnd(100000));
		b.set_given_name = true;
		b.given_name = name;
		break;
	case 1:
		b.set_approved = true;
		b.approved = rnd(2);
		break;
	case 2:
		b.set_expire = true;
		b.expire_ms = time + 1 + rnd(200);
		break;
	case 3:
		cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_NODE_DELETE;
		cmd.node_delete = &d;
		break;
	default:
		cmd.tailnet = 0;
		cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_TICK;
		cmd.tick = &tick;
		break;
	}
	log_append(l, &cmd, time);
}

static void append_dns(struct log *l, uint64_t tailnet, uint64_t time)
{
	Skerry__Internal__V1__TailnetUpdate b = SKERRY__INTERNAL__V1__TAILNET_UPDATE__INIT;
	Skerry__V1__DnsConfig dns = SKERRY__V1__DNS_CONFIG__INIT;
	Skerry__Internal__V1__Actor actor;
	char resolver[32];
	char *resolvers[] = {resolver};
	uint8_t random[32];
	Command cmd;

	command_init(&cmd, &actor, random, tailnet);
	snprintf(resolver, sizeof(resolver), "192.0.2.%u", 1 + rnd(200));
	dns.base_domain = (char *)"test.internal";
	dns.resolvers = resolvers;
	dns.n_resolvers = 1;
	b.id = tailnet;
	b.set_dns = true;
	b.dns = &dns;
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_TAILNET_UPDATE;
	cmd.tailnet_update = &b;
	log_append(l, &cmd, time);
}

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

static void flush(struct replica *r)
{
	for (int i = 0; i < 1000; i++)
		watch_hub_flush(r->hub);
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
