/* What is held back from a peer that does not answer. */
/* LIBS: cluster */
#include "tests/lib/test.h"

#include "cluster/raft_window.h"

enum { HB = 100 };

static bool pass(struct send_window *w, raft_index prev, unsigned n, uint64_t now)
{
	return send_window_pass(w, 3, prev, n, now, HB);
}

static void who_answers_gets_all(void **state)
{
	struct send_window w = {.id = 2};

	(void)state;
	for (raft_index i = 0; i < 1000; i++) {
		assert_true(pass(&w, i, 1, 1));
		send_window_answer(&w, 1);
	}
}

static void nothing_is_repeated_within_a_heartbeat(void **state)
{
	struct send_window w = {.id = 2};

	(void)state;
	assert_true(pass(&w, 10, 1, 1000));
	assert_true(pass(&w, 11, 1, 1001));  /* the next one */
	assert_true(pass(&w, 12, 0, 1002));  /* news of a commit */
	assert_false(pass(&w, 10, 2, 1003)); /* all again */
	assert_false(pass(&w, 10, 3, 1004)); /* all again, and one more */
	assert_false(pass(&w, 10, 3, 1101));
	assert_true(pass(&w, 10, 3, 1102));
	assert_false(pass(&w, 10, 4, 1103));
	/* It answered: what it lacks goes out at once. */
	send_window_answer(&w, 1104);
	assert_true(pass(&w, 10, 4, 1104));
	/* It is there: the same goes out again a few times, with news of a commit. */
	for (int i = 1; i < WINDOW_AGAIN; i++) {
		assert_true(pass(&w, 10, 4, 1105));
	}
	assert_false(pass(&w, 10, 4, 1105));
	/* So does anything of a new term. */
	assert_true(send_window_pass(&w, 4, 10, 4, 1106, HB));
}

/* Heard a heartbeat ago is not heard. */
static void who_fell_silent_is_not_there(void **state)
{
	struct send_window w = {.id = 2};

	(void)state;
	assert_true(pass(&w, 10, 1, 1000));
	send_window_answer(&w, 1000);
	assert_true(pass(&w, 10, 1, 1000 + HB - 1));
	assert_true(pass(&w, 10, 1, 1000 + HB - 1));
	assert_false(pass(&w, 10, 1, 1000 + HB));
}

static void no_more_than_the_window(void **state)
{
	struct send_window w = {.id = 2};
	unsigned passed = 0;

	(void)state;
	for (raft_index i = 0; i < 10 * WINDOW_MESSAGES; i++) {
		passed += pass(&w, i, 1, 1000);
	}
	assert_int_equal(passed, WINDOW_MESSAGES);
	assert_true(pass(&w, 5, 1, 1000 + HB)); /* it may be there again */
	assert_false(pass(&w, 5, 1, 1000 + HB));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_answers_gets_all),
		cmocka_unit_test(nothing_is_repeated_within_a_heartbeat),
		cmocka_unit_test(who_fell_silent_is_not_there),
		cmocka_unit_test(no_more_than_the_window),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
