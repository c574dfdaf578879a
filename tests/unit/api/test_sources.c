/* Failures by source address: the rate, the /64, and the bound on how many are remembered. LIBS: api */
#include "tests/lib/test.h"

#include "api/sources.h"
#include "base/limits.h"
#include "base/metrics.h"
#include "base/prefix.h"

static struct ipaddr addr(const char *text)
{
	struct ipaddr a = {0};

	assert_ok(ipaddr_parse(text, &a, NULL));
	return a;
}

static struct ipaddr numbered(uint32_t n)
{
	uint8_t b[4] = {10, (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n};
	struct ipaddr a;

	assert_true(ipaddr_from_bytes(b, 4, &a));
	return a;
}

static void rate(void **state)
{
	struct ipaddr a = addr("192.0.2.1"), b = addr("192.0.2.2");
	struct sources s;

	(void)state;
	sources_init(&s, 10, LIM_BAD_CREDENTIALS_PER_MIN, 60000);
	assert_int_equal(sources_wait_ms(&s, &a, 0), 0);
	for (int i = 0; i < LIM_BAD_CREDENTIALS_PER_MIN; i++)
		assert_true(sources_fail(&s, &a, 0));
	assert_false(sources_fail(&s, &a, 0));
	assert_int_equal(sources_wait_ms(&s, &a, 0), 6000);
	assert_true(sources_fail(&s, &b, 0));
	assert_false(sources_fail(&s, &a, 5999));
	assert_true(sources_fail(&s, &a, 6000));
	assert_false(sources_fail(&s, &a, 6000));
	sources_done(&s);
}

static void ipv6_by_network(void **state)
{
	struct ipaddr a = addr("2001:db8::1"), same = addr("2001:db8::ffff:1");
	struct ipaddr other = addr("2001:db8:0:1::1");
	struct sources s;

	(void)state;
	sources_init(&s, 10, 1, 60000);
	assert_true(sources_fail(&s, &a, 0));
	assert_false(sources_fail(&s, &same, 0));
	assert_true(sources_fail(&s, &other, 0));
	sources_done(&s);
}

static void bounded(void **state)
{
	struct ipaddr first = numbered(0), second = numbered(1);
	struct sources s;
	double forgotten;

	(void)state;
	metrics_zero();
	sources_init(&s, LIM_SOURCES, 1, 60000);
	for (uint32_t i = 0; i < LIM_SOURCES; i++) {
		struct ipaddr a = numbered(i);

		assert_true(sources_fail(&s, &a, 0));
	}
	assert_false(sources_fail(&s, &first, 0)); /* seen again: the second is the oldest now */
	for (uint32_t i = LIM_SOURCES; i < LIM_SOURCES + 100; i++) {
		struct ipaddr a = numbered(i);

		assert_true(sources_fail(&s, &a, 0));
		assert_int_equal(map_len(&s.map), LIM_SOURCES);
	}
	assert_false(sources_fail(&s, &first, 0));
	assert_int_equal(sources_wait_ms(&s, &second, 0), 0);
	forgotten = metrics_value("skerry_api_sources_forgotten_total", NULL);
	assert_true(forgotten == 100);
	sources_done(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rate),
		cmocka_unit_test(ipv6_by_network),
		cmocka_unit_test(bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
