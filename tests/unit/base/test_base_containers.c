/* LIBS: base
 * base/arena.h, base/list.h, base/map.h, base/queue.h */
#include "tests/lib/test.h"

#include "base/arena.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/queue.h"

#include <pthread.h>

static void test_arena(void **state)
{
	struct arena a;
	char *s;
	void *p;

	(void)state;
	arena_init(&a, 1000);
	assert_null(a.chunks);
	p = arena_alloc(&a, 1);
	assert_non_null(p);
	assert_int_equal((uintptr_t)p % 16, 0);
	assert_int_equal(a.used, 16);
	s = arena_strdup(&a, "hello");
	assert_string_equal(s, "hello");
	assert_int_equal((uintptr_t)s % 16, 0);
	assert_non_null(arena_alloc(&a, 0));
	/* Up to the budget and not a byte more; a refusal leaves the arena usable. */
	assert_null(arena_alloc(&a, 1000));
	assert_null(arena_alloc(&a, SIZE_MAX));
	assert_null(arena_alloc(&a, SIZE_MAX - 7));
	p = arena_zalloc(&a, 1000 - a.used - 8);
	assert_non_null(p);
	assert_null(arena_alloc(&a, 16));
	assert_null(arena_strdup(&a, "x"));
	arena_reset(&a);
	assert_int_equal(a.used, 0);
	assert_non_null(arena_memdup(&a, "abc", 3));
	arena_done(&a);
	arena_done(NULL);

	/* Many chunks, all of it written, so that sanitizers see an overlap or overrun. */
	arena_init(&a, 1 << 20);
	for (size_t i = 0; i < 1000; i++) {
		p = arena_alloc(&a, i);
		assert_non_null(p);
		memset(p, 0xaa, i);
	}
	arena_reset(&a);
	assert_non_null(arena_alloc(&a, (1 << 20) - 16));
	arena_done(&a);
	assert_non_null(arena_alloc(&a, 10));
	arena_done(&a);

	/* Chunks are used again, by small budgets and large ones in turn, more of them than are kept. */
	{
		static struct arena many[600];

		for (size_t round = 0; round < 3; round++) {
			for (size_t i = 0; i < ARRAY_LEN(many); i++) {
				size_t len = i % 3 == 0 ? 100 : i % 3 == 1 ? 4000 : 9000;

				arena_init(&many[i], len + 16);
				p = arena_alloc(&many[i], len);
				assert_non_null(p);
				memset(p, (int)i, len);
				assert_null(arena_alloc(&many[i], 33));
			}
			for (size_t i = 0; i < ARRAY_LEN(many); i++) {
				arena_done(&many[i]);
			}
		}
	}
}

struct item {
	int v;
	struct list link;
};

static int list_sum(struct list *head)
{
	int digits = 0;

	LIST_FOREACH(head, it)
	{
		digits = digits * 10 + LIST_ENTRY(it, struct item, link)->v;
	}
	return digits;
}

static void test_list(void **state)
{
	struct item items[5] = {{1, {0}}, {2, {0}}, {3, {0}}, {4, {0}}, {5, {0}}};
	struct list head = {0};
	struct list other;

	(void)state;
	assert_true(list_empty(&head));
	assert_int_equal(list_len(&head), 0);
	list_init(&head);
	list_init(&other);
	assert_true(list_empty(&head));
	assert_null(list_pop(&head));
	assert_false(list_linked(&items[0].link));
	list_remove(&items[0].link);
	list_push(&head, &items[1].link);
	list_push(&head, &items[2].link);
	list_push_front(&head, &items[0].link);
	list_insert_before(&items[2].link, &items[4].link);
	assert_int_equal(list_sum(&head), 1253);
	assert_int_equal(list_len(&head), 4);
	assert_true(list_linked(&items[4].link));
	list_remove(&items[4].link);
	list_remove(&items[4].link);
	assert_int_equal(list_sum(&head), 123);
	list_push(&other, &items[3].link);
	list_push(&other, &items[4].link);
	list_splice(&head, &other);
	assert_true(list_empty(&other));
	list_splice(&head, &other);
	assert_int_equal(list_sum(&head), 12345);
	LIST_FOREACH_SAFE(&head, it, tmp)
	{
		if (LIST_ENTRY(it, struct item, link)->v % 2 == 0) {
			list_remove(it);
		}
	}
	assert_int_equal(list_sum(&head), 135);
	assert_ptr_equal(list_pop(&head), &items[0].link);
	assert_int_equal(list_sum(&head), 35);
}

static void test_map(void **state)
{
	struct map_iter it = {0};
	int a, b;
	struct map m = {0};

	(void)state;
	assert_null(map_get_str(&m, "x"));
	assert_null(map_del_str(&m, "x"));
	assert_false(map_next(&m, &it));
	assert_null(map_put_str(&m, "x", &a));
	assert_ptr_equal(map_put_str(&m, "x", &b), &a);
	assert_int_equal(map_len(&m), 1);
	assert_null(map_put(&m, "", 0, &a));
	assert_null(map_put(&m, "x\0", 2, &a));
	assert_ptr_equal(map_get(&m, "x\0", 2), &a);
	assert_ptr_equal(map_get(&m, "", 0), &a);
	assert_ptr_equal(map_get_str(&m, "x"), &b);
	assert_ptr_equal(map_del_str(&m, "x"), &b);
	assert_null(map_get_str(&m, "x"));
	assert_int_equal(map_len(&m), 2);
	map_clear(&m);
	assert_int_equal(map_len(&m), 0);
	assert_null(map_get(&m, "", 0));
	map_done(&m);
	map_done(NULL);
}

/* Random operations beside an array that says what should be there. */
static void test_map_random(void **state)
{
	enum { KEYS = 500 };
	static int values[KEYS];
	bool there[KEYS] = {false};
	struct test_rand r = {7};
	struct map_iter it = {0};
	size_t count = 0;
	struct map m;

	(void)state;
	map_init(&m);
	for (int step = 0; step < 20000; step++) {
		uint64_t key = test_rand_next(&r) % KEYS;
		void *old = there[key] ? &values[key] : NULL;

		assert_ptr_equal(map_get_u64(&m, key), old);
		if (test_rand_next(&r) % 3 == 0) {
			assert_ptr_equal(map_del_u64(&m, key), old);
			count -= there[key];
			there[key] = false;
		} else {
			assert_ptr_equal(map_put_u64(&m, key, &values[key]), old);
			count += !there[key];
			there[key] = true;
		}
		assert_int_equal(map_len(&m), count);
	}
	/* Each once, although the current one is removed. */
	while (map_next(&m, &it)) {
		uint64_t key = map_iter_u64(&it);

		assert_true(there[key]);
		assert_ptr_equal(it.value, &values[key]);
		there[key] = false;
		assert_non_null(map_del_u64(&m, key));
		count--;
	}
	assert_int_equal(count, 0);
	assert_int_equal(map_len(&m), 0);
	map_done(&m);
}

static void test_queue_limits(void **state)
{
	struct queue *q = queue_new(3, 100);
	int items[4];
	size_t bytes = 0;

	(void)state;
	assert_null(queue_pop(q, NULL));
	assert_int_equal(queue_push(q, &items[0], 60), 1);
	assert_err(queue_push(q, &items[1], 41), ERR_LIMIT);
	assert_int_equal(queue_push(q, &items[1], 40), 0);
	assert_int_equal(queue_push(q, &items[2], 0), 0);
	assert_err(queue_push(q, &items[3], 0), ERR_LIMIT);
	assert_int_equal(queue_len(q), 3);
	assert_int_equal(queue_bytes(q), 100);
	assert_int_equal(queue_refused(q), 2);
	assert_ptr_equal(queue_pop(q, &bytes), &items[0]);
	assert_int_equal(bytes, 60);
	assert_int_equal(queue_bytes(q), 40);
	assert_err(queue_push(q, &items[3], 101), ERR_LIMIT);
	queue_close(q);
	assert_err(queue_push(q, &items[3], 1), ERR_CLOSED);
	assert_ptr_equal(queue_pop(q, NULL), &items[1]);
	assert_ptr_equal(queue_pop_wait(q, 10000, NULL), &items[2]);
	assert_null(queue_pop_wait(q, 10000, NULL));
	queue_free(q);
	queue_free(NULL);
	q = queue_new(1, 1);
	assert_null(queue_pop_wait(q, 1, NULL));
	queue_free(q);
}

enum { PRODUCERS = 4, PER_PRODUCER = 5000 };

static void *producer(void *arg)
{
	struct queue *q = arg;

	for (uintptr_t i = 1; i <= PER_PRODUCER; i++) {
		int rv;

		while ((rv = queue_push(q, (void *)i, 1)) == ERR_LIMIT) {
			sched_yield();
		}
		if (rv < 0) {
			return (void *)1;
		}
	}
	return NULL;
}

static void test_queue_threads(void **state)
{
	struct queue *q = queue_new(64, 1000);
	pthread_t threads[PRODUCERS];
	uint64_t sum = 0;

	(void)state;
	TEST_TABLE(t, threads)
	{
		assert_int_equal(pthread_create(t, NULL, producer, q), 0);
	}
	for (int i = 0; i < PRODUCERS * PER_PRODUCER; i++) {
		void *item = queue_pop_wait(q, 30000, NULL);

		assert_non_null(item);
		sum += (uintptr_t)item;
	}
	assert_true(sum == (uint64_t)PRODUCERS * PER_PRODUCER * (PER_PRODUCER + 1) / 2);
	TEST_TABLE(t, threads)
	{
		void *rv;

		pthread_join(*t, &rv);
		assert_null(rv);
	}
	assert_int_equal(queue_len(q), 0);
	assert_int_equal(queue_bytes(q), 0);
	queue_free(q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_arena),        cmocka_unit_test(test_list),
		cmocka_unit_test(test_map),          cmocka_unit_test(test_map_random),
		cmocka_unit_test(test_queue_limits), cmocka_unit_test(test_queue_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
