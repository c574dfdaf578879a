/* The store in memory and the overlay against a plain array. LIBS: tailnet */
#include "tests/unit/tailnet/world.h"

enum { KEYS = 60 };

/* The plain form: 60 possible keys of two bytes; NULL is "not there". */
struct plain {
	char *value[KEYS];
};

static struct slice key_of(size_t i, uint8_t out[2])
{
	out[0] = (uint8_t)(i / 8 + 1);
	out[1] = (uint8_t)(i % 8);
	/* Some keys are the beginning of others. */
	return (struct slice){out, i % 8 == 0 ? 1 : 2};
}

static int plain_find(const struct plain *p, size_t from, int step, bool equal)
{
	for (int i = (int)from + (equal ? 0 : step); i >= 0 && i < KEYS; i += step) {
		if (p->value[i] != NULL) {
			return i;
		}
	}
	return -1;
}

static void compare(const struct kv *kv, const struct plain *p)
{
	for (size_t i = 0; i < KEYS; i++) {
		uint8_t buf[2], found_buf[2];
		struct slice key = key_of(i, buf), k, v;
		int at;

		if (p->value[i] == NULL) {
			assert_err(kv_get(kv, key, &v), ERR_NOT_FOUND);
		} else {
			assert_ok(kv_get(kv, key, &v));
			assert_int_equal(v.len, strlen(p->value[i]));
			assert_memory_equal(v.data, p->value[i], v.len);
		}
#define ONE(call, found)                                                                  \
	do {                                                                              \
		at = (found);                                                             \
		if (at < 0) {                                                             \
			assert_err(call, ERR_NOT_FOUND);                                  \
		} else {                                                                  \
			assert_ok(call);                                                  \
			assert_int_equal(slice_cmp(k, key_of((size_t)at, found_buf)), 0); \
			assert_memory_equal(v.data, p->value[at], v.len);                 \
		}                                                                         \
	} while (0)
		ONE(kv_seek(kv, key, &k, &v), plain_find(p, i, 1, true));
		ONE(kv_next(kv, key, &k, &v), plain_find(p, i, 1, false));
		ONE(kv_prev(kv, key, &k, &v), plain_find(p, i, -1, false));
#undef ONE
	}
}

static void change(struct world *w, const struct kv *kv, struct plain *p)
{
	size_t i = world_random(w) % KEYS;
	uint8_t buf[2];
	struct slice key = key_of(i, buf);

	if (world_random(w) % 3 == 0) {
		assert_int_equal(kv_del(kv, key), p->value[i] != NULL ? 0 : ERR_NOT_FOUND);
		p->value[i] = NULL;
	} else {
		p->value[i] = world_text(w, "v%llu", (unsigned long long)world_random(w) % 1000);
		if (world_random(w) % 10 == 0) {
			p->value[i] = "";
		}
		assert_ok(kv_put(kv, key, (struct slice){p->value[i], strlen(p->value[i])}));
	}
}

static void test_against_array(void **state UNUSED)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct plain below = {0}, above;
		struct kv_overlay *o;
		struct world w;
		struct kv okv;

		world_open(&w, seed);
		for (int i = 0; i < 120; i++) {
			change(&w, &w.kv[0], &below);
			compare(&w.kv[0], &below);
		}
		/* The overlay sees its own changes, the store below none of them. */
		above = below;
		o = kv_overlay_new(&w.kv[0]);
		okv = kv_overlay_kv(o);
		for (int i = 0; i < 120; i++) {
			change(&w, &okv, &above);
			compare(&okv, &above);
		}
		compare(&w.kv[0], &below);
		kv_overlay_free(o);
		world_close(&w);
	}
}

static void test_many(void **state UNUSED)
{
	struct world w;
	struct slice k, v;
	uint8_t key[4], last[4] = {0};
	size_t n = 0;
	int r;

	world_open(&w, 1);
	for (uint32_t i = 0; i < 50000; i++) {
		uint32_t x = i * 2654435761u;

		memcpy(key, &x, 4);
		assert_ok(kv_put(&w.kv[0], (struct slice){key, 4}, (struct slice){&i, 4}));
	}
	for (r = kv_seek(&w.kv[0], (struct slice){last, 1}, &k, &v); r == 0;
	     r = kv_next(&w.kv[0], (struct slice){last, 4}, &k, &v)) {
		assert_true(n == 0 || memcmp(last, k.data, 4) < 0);
		memcpy(last, k.data, 4);
		n++;
	}
	assert_int_equal(n, 50000);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_against_array),
		cmocka_unit_test(test_many),
	};

	kv_mem_free(NULL);
	kv_overlay_free(NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
