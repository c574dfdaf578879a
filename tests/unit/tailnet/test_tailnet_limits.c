/*
 * Quotas and retention. Where filling up would take long, the counter is moved near its limit by hand, and back before
 * the invariants are checked. LIBS: tailnet
 */
#include "tests/unit/tailnet/world.h"

/* Adds to one counter of the tailnet's head, on both replicas. */
static void shift(struct world *w, uint64_t tailnet, size_t offset, int64_t by)
{
	world_settle(w);
	for (int i = 0; i < 2; i++) {
		struct skey k;
		TailnetHead *h;
		uint8_t data[1000];
		size_t len;

		assert_ok(query_head(&w->kv[i], tailnet, &w->arena, &h));
		*(uint64_t *)((char *)h + offset) += (uint64_t)by;
		len = skerry__internal__v1__tailnet_head__pack(h, data);
		assert_true(len <= sizeof(data));
		assert_ok(kv_put(&w->kv[i], skey_id(&k, TABLE_HEAD, tailnet),
				 (struct slice){data, len}));
	}
}

#define SHIFT(w, tailnet, field, by) shift(w, tailnet, offsetof(TailnetHead, field), by)

static Command *user_command(struct world *w, uint64_t tailnet, const char *login)
{
	Command *c = world_command(w, tailnet);

	WBODY(w, c, USER_CREATE, user_create, UserCreate)->login_name = (char *)login;
	return c;
}

static Command *api_command(struct world *w, uint64_t tailnet, uint64_t id)
{
	Command *c = world_command(w, tailnet);
	Skerry__Internal__V1__ApiKeyCreate *k =
		WBODY(w, c, API_KEY_CREATE, api_key_create, ApiKeyCreate);

	k->credential = WNEW(w, Skerry__Internal__V1__Credential, credential);
	k->credential->id = id;
	k->credential->hash_kind = SKERRY__INTERNAL__V1__HASH_KIND__HASH_KIND_SHA256;
	k->credential->hash = world_fill(w, 32, id);
	k->role = 1;
	return c;
}

static Command *pending_command(struct world *w, uint64_t tailnet, uint64_t device)
{
	Command *c = world_command(w, tailnet);
	Skerry__Internal__V1__PendingCreate *p =
		WBODY(w, c, PENDING_CREATE, pending_create, PendingCreate);

	p->code = world_text(w, "CODE%06llu", (unsigned long long)device);
	p->facts = world_facts(w, device, "x");
	return c;
}

/* One below the limit one more is taken, at the limit none; the other tailnet does not notice. */
#define QUOTA(w, field, limit, command_a, command_b, command_other, reason) \
	do {                                                                \
		TailnetHead *h_;                                            \
		int64_t by_;                                                \
		assert_ok(query_head(&(w)->kv[0], 1, &(w)->arena, &h_));    \
		by_ = (int64_t)(limit)-1 - (int64_t)h_->field;              \
		SHIFT(w, 1, field, by_);                                    \
		(w)->unchecked = true;                                      \
		world_do(w, command_a);                                     \
		world_refuse(w, command_b, 8, reason);                      \
		world_do(w, command_other);                                 \
		SHIFT(w, 1, field, -by_);                                   \
		(w)->unchecked = false;                                     \
		world_check(w);                                             \
	} while (0)

static void test_quotas(void **state UNUSED)
{
	struct key_form one = {.user = 2, .reusable = true}, other = {.user = 4, .reusable = true};
	uint64_t key, key3;
	struct world w;

	world_open_two(&w, 1);
	QUOTA(&w, user_count, LIM_TAILNET_USERS, user_command(&w, 1, "a"), user_command(&w, 1, "b"),
	      user_command(&w, 3, "b"), "TOO_MANY_USERS");
	QUOTA(&w, auth_key_count, LIM_TAILNET_AUTH_KEYS, world_key(&w, 1, &one),
	      world_key(&w, 1, &one), world_key(&w, 3, &other), "TOO_MANY_AUTH_KEYS");
	QUOTA(&w, api_key_count, LIM_TAILNET_API_KEYS, api_command(&w, 1, 1), api_command(&w, 1, 2),
	      api_command(&w, 3, 2), "TOO_MANY_API_KEYS");
	QUOTA(&w, pending_count, LIM_TAILNET_PENDING, pending_command(&w, 1, 1),
	      pending_command(&w, 1, 2), pending_command(&w, 3, 2), "TOO_MANY_PENDING");
	key = world_do(&w, world_key(&w, 1, &one));
	key3 = world_do(&w, world_key(&w, 3, &other));
	QUOTA(&w, node_count, LIM_TAILNET_NODES,
	      world_register(&w, 1, key, world_facts(&w, 11, "a")),
	      world_register(&w, 1, key, world_facts(&w, 12, "a")),
	      world_register(&w, 3, key3, world_facts(&w, 12, "a")), "TOO_MANY_NODES");
	world_refuse(&w, api_command(&w, 3, 1), 6, "KEY_ID_TAKEN");
	world_close(&w);
}

static void test_sizes_of_a_node(void **state UNUSED)
{
	struct world w;
	uint64_t key;

	world_open_two(&w, 2);
	key = world_do(&w, world_key(&w, 1, &(struct key_form){.user = 2, .reusable = true}));
	for (int i = 0; i < 4; i++) {
		RegisterFacts *f = world_facts(&w, 1, "x");
		Skerry__V1__HostInfo *h = world_alloc(&w, sizeof(*h));

		skerry__v1__host_info__init(h);
		switch (i) {
		case 0:
			f->n_endpoints = LIM_NODE_ENDPOINTS + 1;
			f->endpoints = world_alloc(&w, f->n_endpoints * sizeof(void *));
			for (size_t j = 0; j < f->n_endpoints; j++) {
				f->endpoints[j] = world_alloc(&w, sizeof(Skerry__V1__Endpoint));
				skerry__v1__endpoint__init(f->endpoints[j]);
			}
			break;
		case 1:
			f->n_requested_tags = LIM_NODE_TAGS + 1;
			f->requested_tags = world_alloc(&w, f->n_requested_tags * sizeof(char *));
			for (size_t j = 0; j < f->n_requested_tags; j++) {
				f->requested_tags[j] = world_text(&w, "tag:t%zu", j);
			}
			break;
		case 2:
			h->os = world_alloc(&w, LIM_NODE_HOSTINFO_BYTES + 1);
			memset(h->os, 'x', LIM_NODE_HOSTINFO_BYTES);
			f->host_info = h;
			break;
		case 3:
			f->hostname = world_alloc(&w, LIM_DOMAIN + 2);
			memset(f->hostname, 'x', LIM_DOMAIN + 1);
			break;
		}
		assert_int_equal(world_apply(&w, world_register(&w, 1, key, f)), 3);
	}
	world_close(&w);
}

/* The size of the whole state: what grows is refused, deletes and ticks are not. */
static void test_state_full(void **state UNUSED)
{
	struct world w;
	uint64_t key;
	Command *c;

	world_open_two(&w, 3);
	key = world_do(&w, world_key(&w, 1, &(struct key_form){.user = 2}));
	w.unchecked = true;
	world_settle(&w);
	for (int i = 0; i < 2; i++) {
		Meta *m = world_meta(&w, i);
		uint8_t data[1000];
		struct skey k;
		size_t len;

		m->bytes += LIM_STATE_BYTES;
		len = skerry__internal__v1__meta__pack(m, data);
		skey_init(&k, TABLE_META);
		assert_ok(kv_put(&w.kv[i], skey_slice(&k), (struct slice){data, len}));
	}
	world_refuse(&w, world_register(&w, 1, key, world_facts(&w, 1, "a")), 8, "STATE_FULL");
	world_do(&w, world_tick_command(&w));
	c = world_command(&w, 1);
	WBODY(&w, c, AUTH_KEY_DELETE, auth_key_delete, AuthKeyDelete)->id = key;
	world_do(&w, c);
	world_close(&w);
}

static void test_audit_trimmed(void **state UNUSED)
{
	struct world w;
	AuditRecord *a;

	world_open_two(&w, 4);
	for (int i = 0; i < 6; i++) {
		world_do(&w, user_command(&w, 1, world_text(&w, "u%d", i)));
	}
	SHIFT(&w, 1, audit_bytes, LIM_TAILNET_AUDIT_BYTES);
	w.unchecked = true;
	world_do(&w, user_command(&w, 1, "more"));
	SHIFT(&w, 1, audit_bytes, -(int64_t)LIM_TAILNET_AUDIT_BYTES);
	/* The chain still fits, from its anchor on. */
	w.unchecked = false;
	world_check(&w);
	assert_err(query_audit(&w.kv[0], 1, 4, &w.arena, &a), ERR_NOT_FOUND);
	assert_ok(query_audit_next(&w.kv[0], 1, 0, &w.arena, &a));
	assert_int_equal(a->sequence, 5);
	world_do(&w, user_command(&w, 1, "again"));
	assert_ok(query_audit(&w.kv[0], 1, 9, &w.arena, &a));
	world_close(&w);
}

static uint64_t add_and_delete(struct world *w, uint64_t key, uint64_t device)
{
	Command *c = world_command(w, 1);
	uint64_t node = world_do(w, world_register(w, 1, key, world_facts(w, device, "x")));

	WBODY(w, c, NODE_DELETE, node_delete, NodeDelete)->id = node;
	world_do(w, c);
	return w->r.reply.revision;
}

static void test_tombstones(void **state UNUSED)
{
	uint64_t key, first, floor, visibility;
	struct query_change c = {0};
	struct world w;
	size_t deleted = 0;

	world_open_two(&w, 5);
	key = world_do(&w, world_key(&w, 1, &(struct key_form){.user = 2, .reusable = true}));
	first = add_and_delete(&w, key, 1);
	assert_ok(query_floor(&w.kv[0], 1, &floor, &visibility));
	assert_int_equal(floor, 0);
	/* Past the cap the oldest go at once, and the floor rises to what is known in full. */
	SHIFT(&w, 1, tombstone_count, LIM_TOMBSTONES - 1);
	w.unchecked = true;
	add_and_delete(&w, key, 2);
	SHIFT(&w, 1, tombstone_count, -(LIM_TOMBSTONES - 1));
	w.unchecked = false;
	world_check(&w);
	assert_ok(query_floor(&w.kv[0], 1, &floor, &visibility));
	assert_int_equal(floor, first);
	/* By age. */
	world_pass(&w, LIM_TOMBSTONE_MS - 1);
	assert_ok(query_floor(&w.kv[0], 1, &floor, &visibility));
	assert_int_equal(floor, first);
	world_pass(&w, 1);
	assert_ok(query_floor(&w.kv[0], 1, &floor, &visibility));
	assert_true(floor > first);
	while (query_change_next(&w.kv[0], 1, &c) == 0) {
		deleted += c.deleted;
	}
	assert_int_equal(deleted, 0);
	world_close(&w);
}

static void test_history_cap(void **state UNUSED)
{
	struct world w;
	TailnetHead *h;
	uint64_t had;

	world_open_two(&w, 6);
	world_add(&w, 1, 1, "a");
	assert_ok(query_head(&w.kv[0], 1, &w.arena, &h));
	had = h->history_bytes;
	assert_true(had > 0);
	SHIFT(&w, 1, history_bytes, (int64_t)(LIM_HISTORY_BYTES - had));
	w.unchecked = true;
	world_add(&w, 1, 2, "b");
	/* The next Tick brings it below the cap. */
	world_pass(&w, 0);
	SHIFT(&w, 1, history_bytes, -(int64_t)(LIM_HISTORY_BYTES - had));
	w.unchecked = false;
	world_check(&w);
	assert_ok(query_head(&w.kv[0], 1, &w.arena, &h));
	assert_true(h->history_bytes <= had);
	assert_true(h->history_floor > 0);
	world_close(&w);
}

/* A tailnet with many nodes goes in several portions, while the other one works on. */
static void test_large_purge(void **state UNUSED)
{
	Skerry__Internal__V1__TailnetDelete *d;
	struct world w;
	uint64_t key, due;
	size_t ticks = 0;
	Command *c;

	world_open_two(&w, 7);
	w.unchecked = true;
	key = world_do(&w, world_key(&w, 3, &(struct key_form){.user = 4, .reusable = true}));
	for (uint64_t i = 0; i < 300; i++) {
		world_do(&w, world_register(
				     &w, 3, key,
				     world_facts(&w, i,
						 world_text(&w, "n%llu", (unsigned long long)i))));
	}
	w.unchecked = false;
	c = world_command(&w, 0);
	d = WBODY(&w, c, TAILNET_DELETE, tailnet_delete, TailnetDelete);
	d->id = 3;
	d->force = true;
	world_do(&w, c);
	do {
		world_do(&w, world_tick_command(&w));
		world_add(&w, 1, 1000 + ticks, "w");
		assert_ok(tailnet_next_deadline(&w.kv[0], &due));
		ticks++;
	} while (due <= w.now);
	assert_in_range(ticks, 5, 40);
	/* The machines are free for the other tailnet. */
	key = world_do(&w, world_key(&w, 1, &(struct key_form){.user = 2}));
	world_do(&w, world_register(&w, 1, key, world_facts(&w, 5, "n5")));
	world_close(&w);
}

/* A store that fails: the apply says so and makes no answer of it. */
struct failing {
	struct kv below;
	int countdown;
};

static int failing_get(void *impl, struct slice key, struct slice *ret)
{
	struct failing *f = impl;

	return --f->countdown < 0 ? ERR_STORE : kv_get(&f->below, key, ret);
}

static int failing_put(void *impl, struct slice key, struct slice value)
{
	struct failing *f = impl;

	return --f->countdown < 0 ? ERR_STORE : kv_put(&f->below, key, value);
}

static int failing_del(void *impl, struct slice key)
{
	struct failing *f = impl;

	return --f->countdown < 0 ? ERR_STORE : kv_del(&f->below, key);
}

static int failing_seek(void *impl, struct slice key, struct slice *k, struct slice *v)
{
	struct failing *f = impl;

	return --f->countdown < 0 ? ERR_STORE : kv_seek(&f->below, key, k, v);
}

static int failing_next(void *impl, struct slice key, struct slice *k, struct slice *v)
{
	struct failing *f = impl;

	return --f->countdown < 0 ? ERR_STORE : kv_next(&f->below, key, k, v);
}

static int failing_prev(void *impl, struct slice key, struct slice *k, struct slice *v)
{
	struct failing *f = impl;

	return --f->countdown < 0 ? ERR_STORE : kv_prev(&f->below, key, k, v);
}

static void test_store_fails(void **state UNUSED)
{
	static const struct kv_ops ops = {
		.get = failing_get,
		.put = failing_put,
		.del = failing_del,
		.seek = failing_seek,
		.next = failing_next,
		.prev = failing_prev,
	};
	struct world w;
	uint64_t key;
	int done = 0;

	world_open_two(&w, 8);
	key = world_do(&w, world_key(&w, 1, &(struct key_form){.user = 2}));
	for (int n = 0; done == 0; n++) {
		struct kv_overlay *o = kv_overlay_new(&w.kv[0]);
		struct failing f = {.below = kv_overlay_kv(o), .countdown = n};
		struct kv kv = {&ops, &f};
		struct apply_context ctx = {.time_ms = w.now, .raft_index = 99};
		struct apply_result r;
		struct err e = {0};
		int rv = tailnet_apply(&kv, world_register(&w, 1, key, world_facts(&w, 1, "a")),
				       &ctx, &w.query, &r, &e);

		if (rv == 0) {
			assert_int_equal(r.reply.code, 0);
			done = n;
		} else {
			assert_int_equal(rv, ERR_STORE);
			assert_true(e.msg[0] != '\0');
		}
		kv_overlay_free(o);
	}
	assert_true(done > 40);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_quotas),      cmocka_unit_test(test_sizes_of_a_node),
		cmocka_unit_test(test_state_full),  cmocka_unit_test(test_audit_trimmed),
		cmocka_unit_test(test_tombstones),  cmocka_unit_test(test_history_cap),
		cmocka_unit_test(test_large_purge), cmocka_unit_test(test_store_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
