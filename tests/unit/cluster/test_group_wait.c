/* When a group waits for those who were just answered. LIBS: cluster */
#include "tests/lib/test.h"

#include "cluster/group_wait.h"

/* Sixteen callers in two halves become one group, and stay one. */
static void halves_join(void **state)
{
	struct group_wait w = {0};

	(void)state;
	assert_int_equal(group_wait_begin(&w, 8, 8, 2), 2);
	assert_true(group_wait_on(&w, 8));
	assert_true(group_wait_on(&w, 13));
	assert_false(group_wait_on(&w, 14)); /* all but an eighth */
	assert_false(group_wait_on(&w, 8));
	assert_int_equal(group_wait_begin(&w, 16, 0, 2), 0);
	assert_false(group_wait_on(&w, 1));
}

static void nobody_to_wait_for(void **state)
{
	struct group_wait w = {0};

	(void)state;
	/* A single caller; a group of read markers alone; more than fit; nearly all there already. */
	assert_int_equal(group_wait_begin(&w, 1, 0, 2), 0);
	assert_int_equal(group_wait_begin(&w, 0, 5, 2), 0);
	assert_int_equal(group_wait_begin(&w, 128, 128, 2), 0);
	assert_int_equal(group_wait_begin(&w, 1, 16, 2), 0);
	assert_false(group_wait_on(&w, 1));
}

static void bounds(void **state)
{
	struct group_wait w = {0};

	(void)state;
	assert_int_equal(group_wait_begin(&w, 4, 4, 0), GROUP_WAIT_MS);
	assert_int_equal(group_wait_begin(&w, 4, 4, 1000), GROUP_WAIT_MAX_MS);
}

/* Callers who do not come back cost one wait in ever more groups; one that pays begins anew. */
static void misses(void **state)
{
	struct group_wait w = {0};

	(void)state;
	for (unsigned miss = 1; miss <= GROUP_WAIT_MISSES + 2; miss++) {
		unsigned rested = 0;

		while (group_wait_begin(&w, 4, 4, 2) == 0) {
			rested++;
		}
		assert_int_equal(rested, (1u << MIN(miss - 1, (unsigned)GROUP_WAIT_MISSES)) - 1);
		assert_true(group_wait_on(&w, 4));
		group_wait_miss(&w);
		group_wait_miss(&w);
		assert_false(group_wait_on(&w, 4));
	}
	while (group_wait_begin(&w, 4, 4, 2) == 0) {
	}
	assert_false(group_wait_on(&w, 7));
	assert_int_not_equal(group_wait_begin(&w, 4, 4, 2), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(halves_join),
		cmocka_unit_test(nobody_to_wait_for),
		cmocka_unit_test(bounds),
		cmocka_unit_test(misses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
