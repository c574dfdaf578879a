/*
 * A small world for tests of the domain: two replicas, a clock by hand, and short forms of the commands. Each command
 * runs three times: on an overlay (as a pre-check), on replica a and on replica b; the three answers, the digests of
 * the replicas and the invariants are compared every time.
 */
#pragma once

#include "tests/lib/test.h"

#include "base/arena.h"
#include "base/crypto.h"
#include "base/enc.h"
#include "base/limits.h"
#include "tailnet/keys.h"
#include "tailnet/netmap.h"
#include "tailnet/query.h"
#include "tailnet/resource.h"
#include "tailnet/tailnet.h"

#define HOUR (3600ull * 1000)
#define DAY  (24 * HOUR)

struct world {
	struct kv_mem *mem[2];
	struct kv kv[2];
	struct tailnet_batch *batch; /* of replica 1, which is flushed now and then */
	struct arena arena;          /* answers and what tests build; freed at the end */
	struct arena query;          /* reset per command */
	struct apply_result r;
	uint64_t now;
	uint64_t index;
	uint64_t seed;
	bool leader_gap, offline;
	bool unchecked; /* skips the invariants: for long runs that check now and then */
	uint64_t key_id;
};

static inline uint64_t world_random(struct world *w)
{
	uint64_t z = (w->seed += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static inline void *world_alloc(struct world *w, size_t size)
{
	void *p = arena_zalloc(&w->arena, size);

	assert_non_null(p);
	return p;
}

static inline char *world_text(struct world *w, const char *fmt, ...) PRINTF_LIKE(2, 3);
static inline char *world_text(struct world *w, const char *fmt, ...)
{
	char *p = world_alloc(w, 300);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p, 300, fmt, ap);
	va_end(ap);
	return p;
}

static inline ProtobufCBinaryData world_fill(struct world *w, size_t len, uint64_t seed)
{
	ProtobufCBinaryData b = {len, world_alloc(w, len)};

	for (size_t i = 0; i < len; i++) {
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		b.data[i] = (uint8_t)(seed >> 56);
	}
	b.data[0] |= 1; /* never all zero */
	return b;
}

/* A generated message in the world's arena. */
#define WNEW(w, type, name)                               \
	({                                                \
		type *m_ = world_alloc(w, sizeof(type));  \
		skerry__internal__v1__##name##__init(m_); \
		m_;                                       \
	})

static inline Command *world_command(struct world *w, uint64_t tailnet)
{
	Command *c = WNEW(w, Command, command);

	c->tailnet = tailnet;
	c->random = world_fill(w, 32, world_random(w));
	return c;
}

#define WBODY(w, c, upper, lower, Type)                                                          \
	({                                                                                       \
		Skerry__Internal__V1__##Type *b_ = WNEW(w, Skerry__Internal__V1__##Type, lower); \
		(c)->body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_##upper;                    \
		(c)->lower = b_;                                                                 \
		b_;                                                                              \
	})

static inline Meta *world_meta(struct world *w, int replica)
{
	Meta *m;

	assert_ok(query_meta(&w->kv[replica], &w->query, &m));
	return m;
}

static inline void world_flush(struct world *w)
{
	struct err e = {0};

	if (tailnet_batch_flush(w->batch, &e) < 0) {
		TEST_FAIL("flush failed: %s", e.msg);
	}
}

/* Before somebody writes to the replicas by hand. */
static inline void world_settle(struct world *w)
{
	world_flush(w);
	tailnet_batch_free(w->batch);
	w->batch = tailnet_batch_new(&w->kv[1]);
}

/* All records, those outside of the digest, too. */
static inline void world_equal(struct world *w)
{
	struct slice at[2] = {{"", 0}, {"", 0}}, v[2];
	int r[2];

	do {
		for (int i = 0; i < 2; i++) {
			r[i] = kv_next(&w->kv[i], at[i], &at[i], &v[i]);
		}
		assert_int_equal(r[0], r[1]);
		if (r[0] == 0) {
			assert_int_equal(at[0].len, at[1].len);
			assert_memory_equal(at[0].data, at[1].data, at[0].len);
			if (v[0].len != v[1].len || memcmp(v[0].data, v[1].data, v[0].len) != 0) {
				TEST_FAIL("a record of table %s differs between the replicas",
					  table_name(skey_table(at[0])));
			}
		}
	} while (r[0] == 0);
}

static inline void world_check(struct world *w)
{
	/* One replica is as after each command, the other one has many in its batch. */
	bool both = w->index % 4 == 0;

	if (both) {
		world_flush(w);
		world_equal(w);
	}
	for (int i = 0; i < 1 + both; i++) {
		struct err e = {0};

		if (tailnet_check(&w->kv[i], &e) < 0) {
			TEST_FAIL("replica %d, revision %llu: %s", i,
				  (unsigned long long)world_meta(w, i)->revision, e.msg);
		}
	}
	if (w->r.reply.epoch == 0) {
		return; /* before the bootstrap */
	}
	if (both) {
		assert_memory_equal(world_meta(w, 0)->digest.data, world_meta(w, 1)->digest.data,
				    32);
	}
}

/* Applies it everywhere; the answer is w->r. Returns its code. */
static inline int world_apply(struct world *w, Command *c)
{
	struct apply_context ctx = {.time_ms = w->now,
				    .raft_index = ++w->index,
				    .leader_gap = w->leader_gap,
				    .offline = w->offline};
	struct kv_overlay *o = kv_overlay_new(&w->kv[0]);
	struct kv okv = kv_overlay_kv(o);
	struct apply_context judge = ctx;
	struct apply_result pre, b, verdict;
	struct err e = {0};

	arena_reset(&w->query);
	memset(&w->r, 0, sizeof(w->r));
	judge.judge_only = true;
	memset(&verdict, 0, sizeof(verdict));
	if (tailnet_apply(&w->kv[0], c, &judge, &w->query, &verdict, &e) < 0 ||
	    tailnet_apply(&okv, c, &ctx, &w->query, &pre, &e) < 0 ||
	    tailnet_apply(&w->kv[0], c, &ctx, &w->arena, &w->r, &e) < 0 ||
	    tailnet_batch_apply(w->batch, c, &ctx, &w->query, &b, &e) < 0) {
		TEST_FAIL("apply failed: %s", e.msg);
	}
	kv_overlay_free(o);
	assert_int_equal(verdict.reply.code, w->r.reply.code);
	assert_int_equal(verdict.n_changes, 0);
	assert_string_equal(verdict.reply.reason, w->r.reply.reason);
	assert_string_equal(verdict.reply.message, w->r.reply.message);
	assert_int_equal(pre.reply.code, w->r.reply.code);
	assert_int_equal(b.reply.code, w->r.reply.code);
	assert_int_equal(b.n_changes, w->r.n_changes);
	assert_int_equal(pre.n_changes, w->r.n_changes);
	assert_string_equal(b.reply.object, w->r.reply.object);
	assert_string_equal(pre.reply.message, w->r.reply.message);
	w->leader_gap = false;
	if (!w->unchecked) {
		world_check(w);
	}
	return w->r.reply.code;
}

/* ... and it must be accepted. */
static inline uint64_t world_do(struct world *w, Command *c)
{
	if (world_apply(w, c) != 0) {
		TEST_FAIL("refused: %s (%s, %s)", w->r.reply.message, w->r.reply.reason,
			  w->r.reply.field);
	}
	return w->r.reply.id;
}

/* ... and it must be refused so. */
#define world_refuse(w, c, code_, reason_)                         \
	do {                                                       \
		assert_int_equal(world_apply(w, c), code_);        \
		assert_string_equal((w)->r.reply.reason, reason_); \
		assert_true((w)->r.reply.message[0] != '\0');      \
	} while (0)

static inline MemberRecord *world_member(struct world *w, uint64_t id)
{
	MemberRecord *m = WNEW(w, MemberRecord, member_record);

	m->id = id;
	m->name = world_text(w, "lh%llu", (unsigned long long)id);
	m->public_key = world_fill(w, 44, 1000 + id);
	m->peer_address = world_text(w, "10.0.0.%llu:8444", (unsigned long long)id);
	m->api_url = world_text(w, "https://lh%llu.example:8443", (unsigned long long)id);
	m->feature_min = 1;
	m->feature_max = 1;
	return m;
}

static inline Command *world_bootstrap(struct world *w)
{
	Command *c = world_command(w, 0);
	Skerry__Internal__V1__Bootstrap *b = WBODY(w, c, BOOTSTRAP, bootstrap, Bootstrap);

	b->cluster_id = 77;
	b->cluster_name = "home";
	b->epoch = 5;
	b->feature_level = 1;
	b->tailnet_name = "default";
	b->member = world_member(w, 1);
	b->ca = WNEW(w, CaRecord, ca_record);
	b->ca->generation = 1;
	b->ca->certificate_der = world_fill(w, 300, 3);
	b->ca_key = WNEW(w, SealedSecret, sealed_secret);
	b->ca_key->name = "ca";
	b->ca_key->box = world_fill(w, 100, 4);
	return c;
}

static inline Command *world_start(struct world *w, uint64_t lighthouse, uint64_t incarnation)
{
	Command *c = world_command(w, 0);
	Skerry__Internal__V1__LighthouseStart *s =
		WBODY(w, c, LIGHTHOUSE_START, lighthouse_start, LighthouseStart);

	s->id = lighthouse;
	s->incarnation = incarnation;
	s->feature_min = 1;
	s->feature_max = 1;
	return c;
}

/* Empty; before the bootstrap. */
static inline void world_open(struct world *w, uint64_t seed)
{
	memset(w, 0, sizeof(*w));
	for (int i = 0; i < 2; i++) {
		w->mem[i] = kv_mem_new();
		w->kv[i] = kv_mem_kv(w->mem[i]);
	}
	w->batch = tailnet_batch_new(&w->kv[1]);
	arena_init(&w->arena, 1u << 30);
	arena_init(&w->query, 1u << 28);
	w->now = 1700000000000ull;
	w->seed = seed;
	w->key_id = 1000;
}

static inline void world_close(struct world *w)
{
	tailnet_batch_free(w->batch);
	for (int i = 0; i < 2; i++) {
		kv_mem_free(w->mem[i]);
	}
	arena_done(&w->arena);
	arena_done(&w->query);
}

static inline Command *world_tailnet(struct world *w, const char *name)
{
	Command *c = world_command(w, 0);
	Skerry__Internal__V1__TailnetCreate *t =
		WBODY(w, c, TAILNET_CREATE, tailnet_create, TailnetCreate);

	t->name = (char *)name;
	return c;
}

/* Bootstrapped, lighthouse 1 started, two tailnets: 1 (admin is user 2) and 3 (admin is user 4). */
static inline void world_open_two(struct world *w, uint64_t seed)
{
	world_open(w, seed);
	world_do(w, world_bootstrap(w));
	world_do(w, world_start(w, 1, 101));
	assert_int_equal(world_do(w, world_tailnet(w, "second")), 3);
}

static inline RegisterFacts *world_facts(struct world *w, uint64_t device, const char *hostname)
{
	RegisterFacts *f = WNEW(w, RegisterFacts, register_facts);

	f->machine_key = WNEW(w, MachineKey, machine_key);
	f->machine_key->kind = SKERRY__INTERNAL__V1__MACHINE_KEY_KIND__MACHINE_KEY_KIND_ED25519;
	f->machine_key->key = world_fill(w, 32, 10000 + device);
	f->node_key = world_fill(w, 32, 20000 + device);
	f->disco_key = world_fill(w, 32, 30000 + device);
	f->hostname = (char *)hostname;
	return f;
}

struct key_form {
	uint64_t user;
	bool reusable, ephemeral, unapproved;
	const char *tag;
	uint64_t lifetime_ms;
};

static inline Command *world_key(struct world *w, uint64_t tailnet, const struct key_form *f)
{
	Command *c = world_command(w, tailnet);
	Skerry__Internal__V1__AuthKeyCreate *k =
		WBODY(w, c, AUTH_KEY_CREATE, auth_key_create, AuthKeyCreate);

	k->credential = WNEW(w, Skerry__Internal__V1__Credential, credential);
	k->credential->id = ++w->key_id;
	k->credential->hash_kind = SKERRY__INTERNAL__V1__HASH_KIND__HASH_KIND_SHA256;
	k->credential->hash = world_fill(w, 32, w->key_id);
	k->user = f->user;
	k->reusable = f->reusable;
	k->ephemeral = f->ephemeral;
	k->preapproved = !f->unapproved;
	k->lifetime_ms = f->lifetime_ms;
	if (f->tag != NULL) {
		k->n_tags = 1;
		k->tags = world_alloc(w, sizeof(char *));
		k->tags[0] = (char *)f->tag;
	}
	return c;
}

static inline Command *world_register(struct world *w, uint64_t tailnet, uint64_t key,
				      RegisterFacts *f)
{
	Command *c = world_command(w, tailnet);
	Skerry__Internal__V1__NodeRegister *r =
		WBODY(w, c, NODE_REGISTER, node_register, NodeRegister);

	r->facts = f;
	r->auth_key_id = key;
	r->auth_key_verified = true;
	return c;
}

static inline Command *world_session(struct world *w, uint64_t tailnet, uint64_t node,
				     uint64_t session, bool detach, bool clean)
{
	Command *c = world_command(w, 0);
	Skerry__Internal__V1__SessionBatch *b =
		WBODY(w, c, SESSION_BATCH, session_batch, SessionBatch);

	b->lighthouse = 1;
	b->incarnation = 101;
	b->n_events = 1;
	b->events = world_alloc(w, sizeof(*b->events));
	b->events[0] = WNEW(w, Skerry__Internal__V1__SessionEvent, session_event);
	b->events[0]->tailnet = tailnet;
	b->events[0]->node = node;
	b->events[0]->session = session;
	b->events[0]->detach = detach;
	b->events[0]->clean = clean;
	b->events[0]->instance_id = "i";
	return c;
}

static inline Command *world_tick_command(struct world *w)
{
	Command *c = world_command(w, 0);

	IGNORE(WBODY(w, c, TICK, tick, Tick) == NULL);
	return c;
}

/* Moves the clock and ticks until nothing is due. Returns how many ticks. */
static inline size_t world_pass(struct world *w, uint64_t ms)
{
	uint64_t due;
	size_t n = 0;

	w->now += ms;
	do {
		world_do(w, world_tick_command(w));
		assert_ok(tailnet_next_deadline(&w->kv[0], &due));
		n++;
		assert_true(n < 10000);
	} while (due != 0 && due <= w->now);
	return n;
}

static inline NodeRecord *world_node(struct world *w, uint64_t tailnet, uint64_t id)
{
	NodeRecord *n = NULL;

	IGNORE(query_node(&w->kv[0], tailnet, id, &w->arena, &n) == 0);
	return n;
}

static inline Presence *world_presence(struct world *w, uint64_t tailnet, uint64_t id)
{
	Presence *p = NULL;

	IGNORE(query_presence(&w->kv[0], tailnet, id, &w->arena, &p) == 0);
	return p;
}

/* A node of the tailnet's admin (its id is the tailnet's plus one) by a key of its own. */
static inline uint64_t world_add(struct world *w, uint64_t tailnet, uint64_t device,
				 const char *hostname)
{
	uint64_t key = world_do(w, world_key(w, tailnet, &(struct key_form){.user = tailnet + 1}));

	return world_do(w, world_register(w, tailnet, key, world_facts(w, device, hostname)));
}
