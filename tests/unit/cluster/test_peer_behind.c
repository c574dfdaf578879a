/* Whether our own log lacks what others saw us acknowledge, by figures that may be old.
 * LIBS: cluster */
#include "tests/lib/test.h"

#include "cluster/peer_int.h"

static void test_an_older_log(void **state)
{
	struct peer_behind b = {0};

	(void)state;
	assert_false(peer_behind_judge(&b, 10000, 500, 400, 10000));
	assert_true(peer_behind_judge(&b, 11000, 500, 400, 11000));
	/* also when it has grown by a little */
	assert_true(peer_behind_judge(&b, 12000, 510, 420, 12000));
}

static void test_a_log_that_is_whole(void **state)
{
	struct peer_behind b = {0};

	(void)state;
	assert_false(peer_behind_judge(&b, 10000, 500, 500, 10000));
	assert_false(peer_behind_judge(&b, 11000, 600, 700, 11000));
}

/* Acknowledged in a turn that goes on: what is published is from before it. */
static void test_a_busy_thread(void **state)
{
	struct peer_behind b = {0};

	(void)state;
	assert_false(peer_behind_judge(&b, 10000, 6340, 6339, 9900));
	assert_false(peer_behind_judge(&b, 11000, 6349, 6339, 9900));
	assert_false(peer_behind_judge(&b, 12000, 6349, 6339, 10400));
	assert_false(peer_behind_judge(&b, 13000, 6349, 6349, 12900));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_older_log),
		cmocka_unit_test(test_a_log_that_is_whole),
		cmocka_unit_test(test_a_busy_thread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
