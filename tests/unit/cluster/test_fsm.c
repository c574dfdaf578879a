/* Entries that a replica must not apply: it says why, and nothing has changed. LIBS: cluster */
#include "tests/unit/tailnet/world.h"

#include "base/mem.h"
#include "cluster/entry.h"
#include "cluster/fsm.h"
#include "tailnet/keys.h"

enum { CLUSTER = 77, EPOCH = 5 }; /* of world_bootstrap() */

static struct world w;
static struct kv_mem *mem;
static struct kv kv;

static uint8_t *entry_of(const struct entry_header *h, const void *data, size_t len,
			 size_t *ret_len)
{
	struct entry_writer ew;
	uint8_t *d;

	*ret_len = entry_size(1, len);
	d = mem_alloc(*ret_len);
	entry_begin(&ew, d, *ret_len);
	entry_add(&ew, data, len);
	entry_seal(&ew, h);
	return d;
}

static int apply_bytes(const struct entry_header *h, const void *data, size_t len, uint64_t index,
		       struct applied **ret, struct err *err)
{
	size_t entry_len;
	uint8_t *d = entry_of(h, data, len, &entry_len);
	int r = fsm_apply(&kv, CLUSTER, d, entry_len, index, ret, err);

	mem_free(d);
	return r;
}

static int apply(const struct entry_header *h, const Command *c, uint64_t index,
		 struct applied **ret, struct err *err)
{
	size_t len = skerry__internal__v1__command__get_packed_size(c);
	uint8_t *d = mem_alloc(len);
	int r;

	skerry__internal__v1__command__pack(c, d);
	r = apply_bytes(h, d, len, index, ret, err);
	mem_free(d);
	return r;
}

static const struct entry_header good = {
	.feature_level = 1, .cluster_id = CLUSTER, .epoch = EPOCH, .time_ms = 1700000000000};

static int setup(void **state)
{
	struct entry_header h = good;
	struct applied *a;

	(void)state;
	h.epoch = 0;
	world_open(&w, 1);
	mem = kv_mem_new();
	kv = kv_mem_kv(mem);
	assert_ok(apply(&h, world_bootstrap(&w), 2, &a, NULL));
	assert_int_equal(a->n, 1);
	assert_int_equal(a->command[0].result->code, 0);
	assert_int_equal(a->epoch, EPOCH);
	applied_free(a);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	kv_mem_free(mem);
	world_close(&w);
	return 0;
}

static void refused(void **state)
{
	static const struct {
		struct entry_header h;
		int code;
		const char *text;
	} cases[] = {
		{{.feature_level = 1, .cluster_id = 78, .epoch = EPOCH},
		 ERR_CORRUPT,
		 "of cluster 78"},
		{{.feature_level = 1, .cluster_id = CLUSTER, .epoch = 6}, ERR_CORRUPT, "epoch 6"},
		{{.feature_level = 1, .cluster_id = CLUSTER, .epoch = 0}, ERR_CORRUPT, "epoch 0"},
		{{.feature_level = FEATURE_LEVEL_MAX + 1, .cluster_id = CLUSTER, .epoch = EPOCH},
		 ERR_FEATURE_LEVEL,
		 "feature level 3"},
		{{.feature_level = 0, .cluster_id = CLUSTER, .epoch = EPOCH},
		 ERR_FEATURE_LEVEL,
		 "feature level 0"},
	};
	struct state_view before, after;
	struct applied *a;

	(void)state;
	assert_ok(fsm_view(&kv, &before, NULL));
	TEST_TABLE(c, cases)
	{
		struct err err = {0};

		assert_err(apply(&c->h, world_tailnet(&w, "more"), 3, &a, &err), c->code);
		assert_contains(err.msg, c->text);
		assert_contains(err.msg, "entry 3");
	}
	assert_ok(fsm_view(&kv, &after, NULL));
	assert_memory_equal(&before, &after, sizeof(before));
}

static void not_understood(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
	} cases[] = {
		{"\xf2\x3f\x00", 3},         /* a body that this build does not know: field 1022 */
		{"\xa2\x02\x02\x80\x01", 5}, /* malformed */
		{"", 0},                     /* no body */
		{"\x0a\x02\x08\x63", 4},     /* actor of the unknown kind 99, no body */
	};
	struct applied *a;

	(void)state;
	TEST_TABLE(c, cases)
	{
		struct err err = {0};

		assert_err(apply_bytes(&good, c->bytes, c->len, 3, &a, &err), ERR_UNIMPLEMENTED);
		assert_contains(err.msg, "entry 3, command 0");
		if (c->len > 0) {
			assert_true(fsm_check_command(c->bytes, c->len, NULL) < 0);
		}
	}
}

static void an_entry(void **state)
{
	struct entry_header h = good;
	struct applied *a;

	(void)state;
	h.time_ms += 5000;
	assert_ok(apply(&h, world_tailnet(&w, "second"), 3, &a, NULL));
	assert_int_equal(a->index, 3);
	assert_int_equal(a->command[0].result->code, 0);
	assert_int_equal(a->time_ms, h.time_ms);
	assert_true(a->n_changes > 0);
	applied_free(a);
	/* Refusals are results like others. */
	assert_ok(apply(&h, world_tailnet(&w, "second"), 4, &a, NULL));
	assert_int_equal(a->command[0].result->code, 6);
	applied_free(a);
	/* Time does not fall. */
	h.time_ms -= 100000;
	assert_ok(apply(&h, world_tailnet(&w, "third"), 5, &a, NULL));
	assert_int_equal(a->time_ms, good.time_ms + 5000);
	assert_int_equal(a->command[0].result->code, 0);
	applied_free(a);
}

static void a_snapshot_is_the_state(void **state)
{
	struct kv_mem *other = kv_mem_new();
	struct kv okv = kv_mem_kv(other);
	struct state_view x, y;
	struct snapshot_header h;
	struct snapshot s;
	struct err err = {0};
	uint8_t *d;
	size_t len;

	(void)state;
	assert_ok(fsm_snapshot(&kv, 9, 4, NULL, &s, NULL));
	d = snapshot_join(&s, &len);
	assert_ok(snapshot_open(d, len, &h, NULL));
	assert_int_equal(h.cluster_id, CLUSTER);
	assert_int_equal(h.epoch, EPOCH);
	assert_int_equal(h.applied_index, 9);
	assert_int_equal(h.term, 4);
	assert_ok(snapshot_load(d, len, &okv, NULL));
	assert_ok(tailnet_check(&okv, &err));
	assert_ok(fsm_view(&kv, &x, NULL));
	assert_ok(fsm_view(&okv, &y, NULL));
	assert_memory_equal(&x, &y, sizeof(x));
	assert_int_equal(h.revision, x.revision);
	snapshot_done(&s);
	mem_free(d);
	kv_mem_free(other);
}

/* Gathered and sealed apart: the same bytes, and the digest on the way. A copy does not mind what is written between. */
static void a_snapshot_in_two_steps(void **state)
{
	struct snapshot whole;
	uint8_t *all;
	size_t all_len;

	(void)state;
	assert_ok(fsm_snapshot(&kv, 9, 4, NULL, &whole, NULL));
	all = snapshot_join(&whole, &all_len);
	for (int copy = 1; copy >= 0; copy--) {
		struct tailnet_scrub walk = {0};
		struct snapshot_options o = {.copy = copy, .walk = &walk};
		struct slice key = {"\x01zzz", 4};
		struct state_view v;
		struct snapshot s;
		uint8_t *d;
		size_t len;

		assert_ok(fsm_snapshot_gather(&kv, 9, 4, &o, &s, &v, NULL));
		if (copy) {
			assert_ok(kv_put(&kv, key, (struct slice){"between", 7}));
		}
		assert_ok(snapshot_seal(&s, &o, NULL));
		if (copy) {
			assert_ok(kv_del(&kv, key));
		}
		assert_ok(tailnet_scrub_compare(&walk, v.digest, NULL));
		assert_true(walk.records > 0 && walk.records <= s.records);
		d = snapshot_join(&s, &len);
		assert_int_equal(len, all_len);
		assert_memory_equal(d, all, len);
		mem_free(d);
		snapshot_done(&s);
	}
	mem_free(all);
	snapshot_done(&whole);
}

/* What is wrong with the records, or not wanted any more, is found in either way, and nothing is left behind. */
static void no_snapshot_of_what_is_wrong(void **state)
{
	(void)state;
	for (int copy = 1; copy >= 0; copy--) {
		struct slice extra = {"\xfe!", 2}; /* of no table */
		struct tailnet_scrub walk = {0};
		atomic_bool cancel = false;
		struct snapshot_options o = {.copy = copy, .walk = &walk, .cancel = &cancel};
		struct snapshot s = {0};
		struct err err = {0};
		struct state_view v;
		int r;

		/* Not the sum. */
		assert_ok(fsm_snapshot_gather(&kv, 9, 4, &o, &s, &v, NULL));
		assert_ok(snapshot_seal(&s, &o, NULL));
		v.digest[7] ^= 1;
		assert_err(tailnet_scrub_compare(&walk, v.digest, &err), ERR_CORRUPT);
		assert_contains(err.msg, "not the sum");
		snapshot_done(&s);
		/* A key that cannot be. */
		memset(&walk, 0, sizeof(walk));
		assert_ok(kv_put(&kv, extra, (struct slice){"x", 1}));
		r = fsm_snapshot_gather(&kv, 9, 4, &o, &s, &v, &err);
		if (copy) {
			assert_ok(r);
			r = snapshot_seal(&s, &o, &err);
		}
		assert_err(r, ERR_CORRUPT);
		assert_contains(err.msg, "0xfe");
		assert_ok(kv_del(&kv, extra));
		/* Not wanted any more. */
		memset(&walk, 0, sizeof(walk));
		atomic_store(&cancel, true);
		assert_err(fsm_snapshot_gather(&kv, 9, 4, &o, &s, &v, &err), ERR_CANCELLED);
		snapshot_done(&s);
	}
	/* The record of the state itself. */
	{
		struct snapshot_options o = {.copy = true};
		struct slice key, value;
		struct snapshot s = {0};
		struct state_view v;
		struct err err = {0};

		assert_ok(kv_seek(&kv, (struct slice){"", 0}, &key, &value));
		while (skey_table(key) != TABLE_META) {
			assert_ok(kv_next(&kv, key, &key, &value));
		}
		assert_ok(kv_put(&kv, key, (struct slice){"\xff", 1}));
		assert_err(fsm_snapshot_gather(&kv, 9, 4, &o, &s, &v, &err), ERR_CORRUPT);
		snapshot_done(&s);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(refused),
		T(not_understood),
		T(an_entry),
		T(a_snapshot_is_the_state),
		T(a_snapshot_in_two_steps),
		T(no_snapshot_of_what_is_wrong),
	};

	crypto_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
