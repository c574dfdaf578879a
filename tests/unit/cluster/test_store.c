/* The LMDB store: equal to the one in memory under random operations; its marks; its transactions. */
/* LIBS: cluster */
#include "tests/lib/test.h"

#include <unistd.h>

#include "base/crypto.h"
#include "base/mem.h"
#include "cluster/store.h"

static char dir[TEST_DIR];

static int setup(void **state)
{
	(void)state;
	test_dir_make(dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	test_dir_remove(dir);
	return 0;
}

static struct store *open_store(const char *boot_id, bool *ret_dropped)
{
	char path[TEST_DIR + 8];
	struct store_options o = {.dir = path, .map_bytes = 64 << 20, .boot_id = boot_id};
	struct store *s;
	struct err err = {0};
	int r;

	snprintf(path, sizeof(path), "%s/s", dir);
	r = store_open(&s, &o, ret_dropped, &err);
	if (r != 0) {
		TEST_FAIL("store_open: %s", err.msg);
	}
	return s;
}

static struct slice text(const char *s)
{
	return (struct slice){s, strlen(s)};
}

/* ---- conformance ---- */

enum { KEY_BYTES = 32 };

/*
 * Short keys over a small alphabet, so that neighbours, prefixes and repeats are common; some after equal bytes, as many
 * as words of keys are compared at.
 */
static struct slice random_key(struct test_rand *rng, uint8_t out[KEY_BYTES])
{
	size_t same = test_rand_next(rng) % 2 * (test_rand_next(rng) % 20);
	size_t len = same + 1 + test_rand_next(rng) % 4;

	memset(out, 'a', same);
	for (size_t i = same; i < len; i++) {
		static const uint8_t alphabet[] = {0, 1, 'a', 'b', 0x7f, 0xff};

		out[i] = alphabet[test_rand_next(rng) % sizeof(alphabet)];
	}
	return (struct slice){out, len};
}

static void assert_slice(struct slice a, struct slice b)
{
	assert_int_equal(a.len, b.len);
	assert_memory_equal(a.data, b.data, a.len);
}

static void one_read(const struct kv *a, const struct kv *b, int op, struct slice key)
{
	struct slice ka, kb, va, vb;
	int ra, rb;

	switch (op) {
	case 0:
		ra = kv_get(a, key, &va);
		rb = kv_get(b, key, &vb);
		ka = kb = key;
		break;
	case 1:
		ra = kv_seek(a, key, &ka, &va);
		rb = kv_seek(b, key, &kb, &vb);
		break;
	case 2:
		ra = kv_next(a, key, &ka, &va);
		rb = kv_next(b, key, &kb, &vb);
		break;
	default:
		ra = kv_prev(a, key, &ka, &va);
		rb = kv_prev(b, key, &kb, &vb);
		break;
	}
	assert_int_equal(ra, rb);
	if (ra == 0) {
		assert_slice(ka, kb);
		assert_slice(va, vb);
	}
}

static void walk(const struct kv *a, const struct kv *b)
{
	struct slice ka = {"", 0}, kb = {"", 0}, va, vb;
	int r = kv_seek(a, (struct slice){"", 0}, &ka, &va);

	assert_int_equal(r, kv_seek(b, (struct slice){"", 0}, &kb, &vb));
	while (r == 0) {
		assert_slice(ka, kb);
		assert_slice(va, vb);
		r = kv_next(a, ka, &ka, &va);
		assert_int_equal(r, kv_next(b, kb, &kb, &vb));
	}
}

static void conformance(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct test_rand rng = {seed};
		struct store *s = open_store(NULL, NULL);
		struct kv_mem *m = kv_mem_new();
		struct kv b = kv_mem_kv(m);

		assert_ok(store_clear(s, NULL));
		assert_ok(store_commit(s, NULL));
		for (int i = 0; i < 2000; i++) {
			const struct kv *a;
			uint8_t kbuf[KEY_BYTES], vbuf[3000];
			struct slice key = random_key(&rng, kbuf);
			/* Some with few on a page, or a page of their own: pages divide and merge under cursors. */
			size_t longest = test_rand_next(&rng) % 3 == 0 ? sizeof(vbuf) : 64;
			struct slice value = {vbuf, test_rand_next(&rng) % longest};
			int op = (int)(test_rand_next(&rng) % 7);

			assert_ok(store_write(s, &a, NULL));
			memset(vbuf, i, sizeof(vbuf));
			if (op == 4 || op == 5) {
				assert_ok(kv_put(a, key, value));
				assert_ok(kv_put(&b, key, value));
			} else if (op == 6) {
				assert_int_equal(kv_del(a, key), kv_del(&b, key));
			} else {
				one_read(a, &b, op, key);
			}
			if (test_rand_next(&rng) % 50 == 0) {
				walk(a, &b);
				assert_ok(store_commit(s, NULL));
			}
		}
		assert_ok(store_commit(s, NULL));
		{
			struct store_read *r;

			assert_ok(store_read_begin(s, "test", &r, NULL));
			walk(store_read_kv(r), &b);
			store_read_end(r);
		}
		kv_mem_free(m);
		store_close(s);
	}
}

/* ---- transactions ---- */

static void readers_see_commits(void **state)
{
	struct store *s = open_store(NULL, NULL);
	struct store_read *before, *after;
	const struct kv *kv;
	struct slice v;

	(void)state;
	assert_ok(store_write(s, &kv, NULL));
	assert_ok(kv_put(kv, text("k"), text("v")));
	assert_ok(store_set_applied(s, 12, NULL));
	assert_true(store_writing(s));
	assert_ok(store_read_begin(s, "before", &before, NULL));
	assert_true(store_read_current(before)); /* whatever is being written */
	assert_ok(store_commit(s, NULL));
	assert_false(store_writing(s));
	assert_ok(store_read_begin(s, "after", &after, NULL));
	assert_false(store_read_current(before));
	assert_true(store_read_current(after));
	assert_err(kv_get(store_read_kv(before), text("k"), &v), ERR_NOT_FOUND);
	assert_int_equal(store_read_applied(before), 0);
	assert_ok(kv_get(store_read_kv(after), text("k"), &v));
	assert_int_equal(store_read_applied(after), 12);
	{
		const char *name = NULL;

		IGNORE(store_oldest_read_ms(s, &name) > 1000000);
		assert_string_equal(name, "before");
	}
	store_read_end(before);
	store_read_end(after);
	/* A write that is given up leaves nothing behind, in the memory either. */
	assert_ok(store_write(s, &kv, NULL));
	assert_ok(kv_put(kv, text("k"), text("w")));
	assert_ok(store_set_applied(s, 13, NULL));
	assert_int_equal(store_applied(s), 13);
	assert_ok(store_read_begin(s, "meanwhile", &before, NULL));
	store_abort(s);
	assert_true(store_read_current(before));
	store_read_end(before);
	assert_int_equal(store_applied(s), 12);
	assert_ok(store_read_begin(s, "given up", &after, NULL));
	assert_ok(kv_get(store_read_kv(after), text("k"), &v));
	assert_memory_equal(v.data, "v", 1);
	store_read_end(after);
	store_close(s);
}

static void map_full_is_an_error(void **state)
{
	char path[TEST_DIR + 8];
	struct store_options o = {.dir = path, .map_bytes = 1 << 20};
	uint8_t *big = mem_zalloc(100000);
	const struct kv *kv;
	struct store *s;
	int r = 0;

	(void)state;
	snprintf(path, sizeof(path), "%s/s", dir);
	assert_ok(store_open(&s, &o, NULL, NULL));
	for (int i = 0; i < 20 && r == 0; i++) {
		char key[16];

		snprintf(key, sizeof(key), "%d", i);
		assert_ok(store_write(s, &kv, NULL));
		r = kv_put(kv, text(key), (struct slice){big, 100000});
		if (r == 0) {
			assert_ok(store_commit(s, NULL));
		}
	}
	assert_int_equal(r, ERR_STORE);
	store_abort(s);
	assert_true(store_used_permille(s) > 700);
	store_close(s);
	mem_free(big);
}

/* ---- marks ---- */

static void fill(struct store *s)
{
	const struct kv *kv;

	assert_ok(store_write(s, &kv, NULL));
	assert_ok(kv_put(kv, text("k"), text("v")));
	assert_ok(store_set_applied(s, 7, NULL));
	assert_ok(store_commit(s, NULL));
}

static void marks(void **state)
{
	static const struct {
		bool clean, same_boot, kept;
	} cases[] = {
		{true, true, true},
		{true, false, true},
		{false, true, true}, /* the process died: the page cache is whole */
		{false, false, false},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		struct store *s = open_store("boot-one", NULL);
		bool dropped = true;

		fill(s);
		(c->clean ? store_close : store_abandon)(s);
		s = open_store(c->same_boot ? "boot-one" : "boot-two", &dropped);
		assert_int_equal(dropped, !c->kept);
		assert_int_equal(store_applied(s), c->kept ? 7 : 0);
		/* The clean mark counts once. */
		store_abandon(s);
		s = open_store("boot-three", &dropped);
		assert_true(dropped);
		store_close(s);
	}
}

/* ---- another state in its place ---- */

static void adopt(void **state)
{
	struct store *s = open_store("boot", NULL), *fresh;
	struct store_read *before, *after;
	const struct kv *kv;
	struct slice v;
	char path[TEST_DIR + 16];

	(void)state;
	assert_ok(store_write(s, &kv, NULL));
	assert_ok(kv_put(kv, text("key"), text("old")));
	assert_ok(store_set_applied(s, 7, NULL));
	assert_ok(store_commit(s, NULL));
	assert_ok(store_read_begin(s, "before", &before, NULL));

	/* One that is given up leaves nothing, and neither does one that a dead process left. */
	assert_ok(store_fresh(s, &fresh, NULL));
	store_discard(fresh);
	store_discard(NULL);
	assert_ok(store_fresh(s, &fresh, NULL));
	assert_ok(store_append(fresh, text("a"), text("1"), NULL));
	assert_ok(store_append(fresh, text("key"), text("new"), NULL));
	assert_true(store_append(fresh, text("b"), text("not rising"), NULL) < 0);
	store_abort(fresh);
	store_abandon(fresh);
	assert_ok(store_fresh(s, &fresh, NULL));
	assert_ok(store_append(fresh, text("key"), text("new"), NULL));
	assert_ok(store_set_applied(fresh, 9, NULL));
	assert_ok(store_commit(fresh, NULL));
	assert_int_equal(store_applied(s), 7);
	assert_ok(store_adopt(s, fresh, NULL));
	assert_int_equal(store_applied(s), 9);
	snprintf(path, sizeof(path), "%s/s/fresh", dir);
	assert_int_not_equal(access(path, F_OK), 0);

	/* Who was reading goes on in the former state. */
	assert_ok(store_read_begin(s, "after", &after, NULL));
	assert_ok(kv_get(store_read_kv(before), text("key"), &v));
	assert_slice(v, text("old"));
	assert_int_equal(store_read_applied(before), 7);
	assert_false(store_read_current(before));
	assert_true(store_read_current(after));
	assert_ok(kv_get(store_read_kv(after), text("key"), &v));
	assert_slice(v, text("new"));
	store_read_end(before);
	store_read_end(after);
	assert_ok(store_sync(s, NULL));
	assert_true(store_used_permille(s) < 1000);

	/* It is written as the former one was, and opens again under the same name. */
	assert_ok(store_write(s, &kv, NULL));
	assert_ok(kv_put(kv, text("more"), text("x")));
	assert_ok(store_set_applied(s, 10, NULL));
	assert_ok(store_commit(s, NULL));
	store_abandon(s);
	s = open_store("boot", NULL);
	assert_int_equal(store_applied(s), 10);
	assert_ok(store_read_begin(s, "again", &after, NULL));
	assert_ok(kv_get(store_read_kv(after), text("key"), &v));
	assert_slice(v, text("new"));
	store_read_end(after);
	store_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(conformance, setup, teardown),
		cmocka_unit_test_setup_teardown(readers_see_commits, setup, teardown),
		cmocka_unit_test_setup_teardown(map_full_is_an_error, setup, teardown),
		cmocka_unit_test_setup_teardown(marks, setup, teardown),
		cmocka_unit_test_setup_teardown(adopt, setup, teardown),
	};

	crypto_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
