/* The verdicts of a leader probe. LIBS: cluster */
#include "tests/lib/test.h"

#include "cluster/probe.h"

/* One observation a letter: r refused, t timeout, e error; answers: L leads as before, N another incarnation, F same
 * process but not leader, O leads in an older term, H leads in a higher term. */
static enum probe_verdict play(const char *seen)
{
	struct probe p;
	enum probe_verdict v = PROBE_AGAIN;

	probe_start(&p, 1, 77, 5);
	for (; *seen != '\0'; seen++) {
		struct probe_answer a = {.incarnation = 77, .term = 5, .leader = true};
		enum probe_seen s = PROBE_ANSWER;

		assert_int_equal(v, PROBE_AGAIN);
		switch (*seen) {
		case 'r': s = PROBE_REFUSED; break;
		case 't': s = PROBE_TIMEOUT; break;
		case 'e': s = PROBE_ERROR; break;
		case 'N': a.incarnation = 78; break;
		case 'F': a.leader = false; break;
		case 'O': a.term = 4; break;
		case 'H': a.term = 6; break;
		default: break;
		}
		v = probe_observe(&p, s, &a);
	}
	return v;
}

static void test_verdicts(void **state)
{
	static const struct {
		const char *seen;
		enum probe_verdict verdict;
	} cases[] = {
		{"r", PROBE_AGAIN},        {"rr", PROBE_LOST},         {"L", PROBE_AGAIN},
		{"LL", PROBE_FALSE_ALARM}, {"Lr", PROBE_AGAIN},        {"Lrr", PROBE_LOST},
		{"rL", PROBE_AGAIN},       {"rLL", PROBE_FALSE_ALARM}, {"rLr", PROBE_LOST},
		{"N", PROBE_LOST},         {"rN", PROBE_LOST},         {"LN", PROBE_LOST},
		{"F", PROBE_LOST},         {"t", PROBE_UNKNOWN},       {"rt", PROBE_UNKNOWN},
		{"e", PROBE_UNKNOWN},      {"Lt", PROBE_UNKNOWN},      {"O", PROBE_UNKNOWN},
		{"HH", PROBE_FALSE_ALARM},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		enum probe_verdict v = play(c->seen);

		if (v != c->verdict) {
			TEST_FAIL("%s: %d, expected %d", c->seen, v, c->verdict);
		}
	}
}

static void test_unknown_incarnation(void **state)
{
	struct probe_answer a = {.incarnation = 9, .term = 5, .leader = true};
	struct probe p;

	(void)state;
	probe_start(&p, 1, 0, 5);
	assert_int_equal(probe_observe(&p, PROBE_ANSWER, &a), PROBE_AGAIN);
}

static void test_one_race_in_five_seconds(void **state)
{
	struct probe_race last = {0};

	(void)state;
	assert_true(probe_may_race(&last, 7, 100000));
	assert_false(probe_may_race(&last, 7, 100001));
	assert_false(probe_may_race(&last, 7, 104999));
	assert_true(probe_may_race(&last, 7, 105000));
	assert_false(probe_may_race(&last, 7, 109999));
	/* The next leader dies as well: another process. */
	assert_true(probe_may_race(&last, 8, 106000));
	assert_false(probe_may_race(&last, 8, 106001));
	/* Nobody knows which process it was. */
	assert_false(probe_may_race(&last, 0, 106002));
	assert_true(probe_may_race(&last, 0, 111000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_verdicts),
		cmocka_unit_test(test_unknown_incarnation),
		cmocka_unit_test(test_one_race_in_five_seconds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
