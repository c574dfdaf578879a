/* When a backup by schedule is due, and which files are its own. LIBS: lighthouse */
#include "tests/lib/test.h"

#include "lighthouse/schedule.h"

static void due(void **state)
{
	static const struct {
		int64_t last, every, now, not_before;
		bool due;
	} cases[] = {
		{0, 1000, 5000, 0, true},     /* never made */
		{0, 1000, 5000, 6000, false}, /* but failed just now */
		{4000, 1000, 5000, 0, true},
		{4001, 1000, 5000, 0, false},
		{4000, 1000, 5000, 5001, false},
		{9000, 1000, 5000, 0, false}, /* the clock was set back */
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		assert_int_equal(schedule_due(c->last, c->every, c->now, c->not_before), c->due);
	}
}

static void names(void **state)
{
	static const char *const others[] = {
		"",
		"skerry-8-20260102T030405Z-r9.backup",
		"skerry-7-20260102T030405Z-r9.backup.tmp",
		".skerry-7-20260102T030405Z-r9.backup",
		"skerry-7-20260102T030405Z-r.backup",
		"skerry-7-2026012T030405Z-r9.backup",
		"skerry-7-20260102T030405Z-r9",
		"skerry-7.backup",
		"notes.txt",
	};
	char early[SCHEDULE_NAME], late[SCHEDULE_NAME];

	(void)state;
	schedule_name(7, 1767322445000, 9, early);
	assert_string_equal(early, "skerry-7-20260102T025405Z-r9.backup");
	schedule_name(7, 1767322446000, 10, late);
	assert_true(strcmp(early, late) < 0); /* in the order of time */
	assert_true(schedule_ours(early, 7));
	assert_true(schedule_ours(late, 7));
	TEST_TABLE(name, others)
	{
		if (schedule_ours(*name, 7)) {
			TEST_FAIL("taken for ours: %s", *name);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(due),
		cmocka_unit_test(names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
