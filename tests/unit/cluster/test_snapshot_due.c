/* How much log lies between two snapshots of a member. LIBS: cluster */
#include "tests/lib/test.h"

#include "cluster/snapshot_due.h"

enum { MIB = 1 << 20, AFTER = 16 << 20 };

static void within_its_bounds(void **state)
{
	(void)state;
	for (unsigned voters = 0; voters <= 7; voters++) {
		for (unsigned place = 0; place <= voters; place++) {
			for (uint64_t bytes = 0; bytes <= 2048ull * MIB; bytes += 7 * MIB) {
				uint64_t due = snapshot_due_bytes(AFTER, bytes, place, voters);

				assert_true(due >= AFTER);
				assert_true(due <= (uint64_t)AFTER * SNAPSHOT_STRETCH);
			}
		}
	}
	/* Also with the least and the most that can be configured, or a test has. */
	assert_in_range(snapshot_due_bytes(1, 1 << 30, 2, 3), 1, SNAPSHOT_STRETCH);
	assert_int_equal(snapshot_due_bytes(4096, 0, 0, 3), 4096);
	assert_int_equal(snapshot_due_bytes(1 << 30, UINT64_MAX, 0, 1), 16ull << 30);
	assert_int_equal(snapshot_due_bytes(1 << 30, UINT64_MAX, 2, 3), 16ull << 30);
}

static void as_much_as_the_state(void **state)
{
	(void)state;
	/* One that is alone, or does not vote. */
	assert_int_equal(snapshot_due_bytes(AFTER, 5 * MIB, 0, 1), AFTER);
	assert_int_equal(snapshot_due_bytes(AFTER, 100 * MIB, 0, 1), 100 * MIB);
	assert_int_equal(snapshot_due_bytes(AFTER, 100 * MIB, 0, 3), 100 * MIB);
	assert_int_equal(snapshot_due_bytes(AFTER, 1000 * MIB, 0, 1), 256 * MIB);
	assert_int_equal(snapshot_due_bytes(AFTER, 1000 * MIB, 0, 3), 160 * MIB);
}

static void each_at_its_own_time(void **state)
{
	(void)state;
	assert_int_equal(snapshot_due_bytes(AFTER, 100 * MIB, 1, 3), 130 * MIB);
	assert_int_equal(snapshot_due_bytes(AFTER, 100 * MIB, 2, 3), 160 * MIB);
	for (unsigned voters = 2; voters <= 7; voters++) {
		for (uint64_t bytes = 0; bytes <= 2048ull * MIB; bytes += 64 * MIB) {
			for (unsigned place = 1; place < voters; place++) {
				uint64_t one = snapshot_due_bytes(AFTER, bytes, place - 1, voters);

				/* A tenth of it is some seconds, at any rate of writes that one would notice. */
				assert_true(snapshot_due_bytes(AFTER, bytes, place, voters) >=
					    one + one / 10);
			}
		}
	}
	/* Three members from the same start: how many of their snapshots, of a state that stays, fall together. */
	{
		unsigned n = 0, together = 0;

		for (uint64_t at = 1; at <= 20000; at++) {
			unsigned now = 0;

			for (unsigned place = 0; place < 3; place++) {
				now += at % (snapshot_due_bytes(AFTER, 100 * MIB, place, 3) /
					     MIB) ==
				       0;
			}
			n += now;
			together += now > 1 ? now : 0;
		}
		assert_true(together * 4 < n);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(within_its_bounds),
		cmocka_unit_test(as_much_as_the_state),
		cmocka_unit_test(each_at_its_own_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
