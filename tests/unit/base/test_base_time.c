/* LIBS: base
 * base/clock.h, base/rand.h, base/backoff.h, base/bucket.h */
#include "tests/lib/test.h"

#include "base/backoff.h"
#include "base/bucket.h"
#include "base/crypto.h"

static void test_clocks(void **state)
{
	uint64_t before = clock_mono_ns();
	struct test_clock c;

	(void)state;
	assert_true(clock_mono_ns() >= before);
	assert_true(clock_wall_ms() > 1577836800000); /* 2020 */
	test_clock_start(&c, 1500, 42);
	assert_int_equal(clock_mono_ms(), 1500);
	assert_int_equal(clock_wall_ms(), 42);
	test_clock_advance(&c, 10);
	assert_int_equal(clock_mono_ms(), 1510);
	assert_int_equal(clock_wall_ms(), 52);
	test_clock_stop();
	assert_true(clock_wall_ms() > 1577836800000);
}

static void test_time_text(void **state)
{
	static const struct {
		const char *text;
		int64_t ms;
		const char *back; /* NULL: as text */
	} cases[] = {
		{"1970-01-01T00:00:00.000Z", 0, NULL},
		{"2026-11-22T13:30:00.123Z", 1795354200123, NULL},
		{"2000-02-29T23:59:59.999Z", 951868799999, NULL},
		{"1969-12-31T23:59:59.999Z", -1, NULL},
		{"0000-01-01T00:00:00.000Z", -62167219200000, NULL},
		{"9999-12-31T23:59:59.999Z", 253402300799999, NULL},
		{"2026-11-22t13:30:00z", 1795354200000, "2026-11-22T13:30:00.000Z"},
		{"2026-11-22 13:30:00Z", 1795354200000, "2026-11-22T13:30:00.000Z"},
		{"2026-11-22T15:00:00+01:30", 1795354200000, "2026-11-22T13:30:00.000Z"},
		{"2026-11-22T12:30:00.5-01:00", 1795354200500, "2026-11-22T13:30:00.500Z"},
		{"2026-11-22T13:30:00.123456789Z", 1795354200123, "2026-11-22T13:30:00.123Z"},
		{"2016-12-31T23:59:60Z", 1483228799000, "2016-12-31T23:59:59.000Z"},
	};
	static const char *const bad[] = {
		"",
		"2026-11-22",
		"2026-11-22T13:30:00",
		"2026-13-01T00:00:00Z",
		"2026-00-01T00:00:00Z",
		"2026-02-29T00:00:00Z",
		"1900-02-29T00:00:00Z",
		"2026-04-31T00:00:00Z",
		"2026-11-22T24:00:00Z",
		"2026-11-22T13:60:00Z",
		"2026-11-22T13:30:61Z",
		"2026-11-22T13:30:00.Z",
		"2026-11-22T13:30:00+1:00",
		"2026-11-22T13:30:00+24:00",
		"2026-11-22T13:30:00Zx",
		"26-11-22T13:30:00Z",
	};
	char out[CLOCK_TEXT];
	struct err e = {0};
	int64_t ms;

	(void)state;
	TEST_TABLE(c, cases)
	{
		assert_ok(clock_parse(c->text, &ms, &e));
		if (ms != c->ms) {
			TEST_FAIL("%s gives %lld", c->text, (long long)ms);
		}
		assert_string_equal(clock_format(ms, out), c->back != NULL ? c->back : c->text);
	}
	TEST_TABLE(t, bad)
	{
		ms = 77;
		assert_err(clock_parse(*t, &ms, &e), ERR_INVALID);
		assert_int_equal(ms, 77);
		assert_contains(e.msg, "is not a time");
	}
	assert_string_equal(clock_format(INT64_MAX, out), "9999-12-31T23:59:59.999Z");
	assert_string_equal(clock_format(INT64_MIN, out), "0000-01-01T00:00:00.000Z");
	/* Every day of a 400-year cycle, against its text. */
	for (int64_t day = 0; day < 146097; day++) {
		int64_t t = (day - 50000) * 86400000 + 3723004;

		assert_ok(clock_parse(clock_format(t, out), &ms, NULL));
		assert_true(ms == t);
	}
}

static void test_durations(void **state)
{
	static const struct {
		const char *text;
		int64_t ms;
		const char *back;
	} cases[] = {
		{"0", 0, "0s"},
		{"0s", 0, "0s"},
		{"5s", 5000, "5s"},
		{"250ms", 250, "250ms"},
		{"30m", 1800000, "30m"},
		{"24h", 86400000, "1d"},
		{"90d", 7776000000, "90d"},
		{"2w", 1209600000, "14d"},
		{"1h30m", 5400000, "1h30m"},
		{"1d2h3m4s5ms", 93784005, "1d2h3m4s5ms"},
		{"36500d", 3153600000000, "36500d"},
	};
	static const struct {
		const char *text;
		const char *why;
	} bad[] = {
		{"", "empty"},
		{"5", "unit is missing"},
		{"s", "number is missing"},
		{"-5s", "number"},
		{"5x", "unknown unit"},
		{"5m1h", "must fall"},
		{"5s5s", "fall"},
		{"1.5h", "unit"},
		{"36501d", "100 years"},
		{"5 s", "unit"},
		{"5s ", "number"},
		{"99999999999999999999d", "100 years"},
		{"36500d1ms", "100 years"},
	};
	char out[DURATION_TEXT];
	struct err e = {0};
	int64_t ms;

	(void)state;
	TEST_TABLE(c, cases)
	{
		assert_ok(duration_parse(c->text, &ms, &e));
		assert_true(ms == c->ms);
		assert_string_equal(duration_format(ms, out), c->back);
	}
	TEST_TABLE(c, bad)
	{
		assert_err(duration_parse(c->text, &ms, &e), ERR_INVALID);
		assert_contains(e.msg, c->why);
	}
	assert_string_equal(duration_format(-5, out), "0s");
	assert_ok(duration_parse(duration_format(INT64_MAX / 4000000, out), &ms, NULL));
}

static void test_rand(void **state)
{
	unsigned seen[7] = {0};
	struct test_rand r = {1};
	uint64_t a, b;

	(void)state;
	assert_true(rand_u64() != rand_u64());
	for (int i = 0; i < 1000; i++) {
		uint64_t id = rand_id63();
		uint32_t v = rand_below(7);

		assert_true(id >= 1 && id <= INT64_MAX);
		assert_true(v < 7);
		seen[v]++;
	}
	TEST_TABLE(s, seen)
	{
		assert_true(*s > 0);
	}
	assert_int_equal(rand_below(1), 0);
	test_rand_start(&r);
	a = rand_u64();
	r.state = 1;
	b = rand_u64();
	test_rand_stop();
	assert_true(a == b);
}

static void test_backoff(void **state)
{
	struct backoff b;
	uint32_t full = 100;

	(void)state;
	backoff_init(&b, 100, 5000);
	for (int i = 0; i < 100; i++) {
		uint32_t d = backoff_next(&b);

		assert_in_range(d, full / 2 > 100 ? full / 2 : 100, full);
		full = full * 2 > 5000 ? 5000 : full * 2;
	}
	assert_int_equal(b.attempts, 100);
	backoff_reset(&b);
	assert_int_equal(backoff_next(&b), 100);
	backoff_init(&b, 7, 7);
	assert_int_equal(backoff_next(&b), 7);
	assert_int_equal(backoff_next(&b), 7);
}

static void test_bucket(void **state)
{
	struct bucket b;

	(void)state;
	bucket_init(&b, 20, 1000, 5000); /* 20 a second */
	for (int i = 0; i < 20; i++) {
		assert_true(bucket_take(&b, 1, 5000));
	}
	assert_false(bucket_take(&b, 1, 5000));
	assert_int_equal(bucket_wait_ms(&b, 1, 5000), 50);
	assert_false(bucket_take(&b, 1, 5049));
	assert_true(bucket_take(&b, 1, 5050));
	/* Back in time stands still. */
	assert_false(bucket_take(&b, 1, 4000));
	assert_false(bucket_take(&b, 1, 5099));
	assert_true(bucket_take(&b, 1, 5100));
	/* A long rest fills it, and no more than that. */
	assert_true(bucket_take(&b, 20, 1u << 30));
	assert_false(bucket_take(&b, 1, 1u << 30));
	/* What can never be, and all or nothing. */
	assert_false(bucket_take(&b, 21, 1u << 31));
	assert_true(bucket_wait_ms(&b, 21, 1u << 31) == UINT64_MAX);
	assert_true(bucket_take(&b, 20, 1u << 31));

	bucket_init(&b, 10, 60000, 0); /* 10 a minute */
	assert_true(bucket_take(&b, 10, 0));
	assert_int_equal(bucket_wait_ms(&b, 1, 0), 6000);
	/* Small steps lose nothing to rounding. */
	for (uint64_t t = 1; t < 6000; t++) {
		assert_false(bucket_take(&b, 1, t));
	}
	assert_true(bucket_take(&b, 1, 6000));
}

static int setup(void **state)
{
	(void)state;
	crypto_init();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clocks),    cmocka_unit_test(test_time_text),
		cmocka_unit_test(test_durations), cmocka_unit_test(test_rand),
		cmocka_unit_test(test_backoff),   cmocka_unit_test(test_bucket),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
