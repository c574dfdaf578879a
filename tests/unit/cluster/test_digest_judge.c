/* Whose state is the wrong one. LIBS: cluster */
#include "tests/lib/test.h"

#include "cluster/digest_judge.h"

/* Each character is a lighthouse: its digest, '-' did not report; lower case: a standby. */
static void judged(void **state)
{
	static const struct {
		const char *votes;
		enum digest_outcome outcome;
		char right; /* 0: none */
	} cases[] = {
		{"", DIGEST_EQUAL, 0},
		{"A", DIGEST_EQUAL, 'A'},
		{"-", DIGEST_EQUAL, 0},
		{"AAA", DIGEST_EQUAL, 'A'},
		{"AA-", DIGEST_EQUAL, 'A'},
		{"A--", DIGEST_EQUAL, 0},
		{"AAB", DIGEST_MINORITY, 'A'},
		{"BAA", DIGEST_MINORITY, 'A'},
		{"AB-", DIGEST_NO_MAJORITY, 0},
		{"AB", DIGEST_NO_MAJORITY, 0},
		{"ABC", DIGEST_NO_MAJORITY, 0},
		{"AAABC", DIGEST_MINORITY, 'A'},
		{"AABB-", DIGEST_NO_MAJORITY, 0},
		{"AAB--", DIGEST_NO_MAJORITY, 0}, /* two of five are no majority */
		{"AAAb", DIGEST_MINORITY, 'A'},
		{"ABbb", DIGEST_NO_MAJORITY, 0}, /* standbys have no say */
		{"Ab", DIGEST_MINORITY, 'A'},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		struct digest_vote v[8];
		uint8_t digest[8][32];
		size_t n = strlen(c->votes), right;

		for (size_t i = 0; i < n; i++) {
			char who = c->votes[i];
			bool voter = who == '-' || (who >= 'A' && who <= 'Z');

			memset(digest[i], voter ? who : who - 'a' + 'A', 32);
			v[i] = (struct digest_vote){who == '-' ? NULL : digest[i], voter};
		}
		if (digest_judge(v, n, &right) != c->outcome) {
			TEST_FAIL("%s is judged otherwise", c->votes);
		}
		if (c->right == 0) {
			assert_int_equal(right, n);
		} else {
			assert_true(right < n);
			assert_int_equal(v[right].digest[0], c->right);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(judged)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
