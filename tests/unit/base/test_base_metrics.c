/* LIBS: base
 * base/metrics.h */
#include "tests/lib/test.h"

#include "base/buf.h"
#include "base/limits.h"
#include "base/metrics.h"

#include <math.h>
#include <pthread.h>

static double seven(void *arg)
{
	return *(int *)arg;
}

/* First, while the registry is empty: the whole text. */
static void test_text(void **state)
{
	static const double bounds[] = {0.1, 1};
	struct buf b = BUF_INIT;
	struct buf labels = BUF_INIT;
	struct metric *h, *m;
	int value = 7;

	(void)state;
	metrics_label(&labels, "name", "a\"b\\c\nd");
	metrics_label(&labels, "z", "1");
	assert_string_equal(buf_str(&labels), "name=\"a\\\"b\\\\c\\nd\",z=\"1\"");
	counter_add(metrics_counter("skerry_b_total", "Help with \\ and\nbreak.", NULL), 3);
	counter_inc(metrics_counter("skerry_b_total", "", buf_str(&labels)));
	gauge_set(metrics_gauge("skerry_a", "A gauge.", "x=\"2\""), 0.5);
	gauge_add(metrics_gauge("skerry_a", "A gauge.", "x=\"1\""), -2);
	m = metrics_gauge_fn("skerry_d", "Asked.", NULL, seven, &value);
	h = metrics_histogram("skerry_c_seconds", "Time.", "m=\"x\"", bounds, 2);
	histogram_observe(h, 0.1);
	histogram_observe(h, 0.5);
	histogram_observe(h, 5);
	metrics_write(&b);
	assert_string_equal(buf_str(&b), "# HELP skerry_a A gauge.\n"
					 "# TYPE skerry_a gauge\n"
					 "skerry_a{x=\"1\"} -2\n"
					 "skerry_a{x=\"2\"} 0.5\n"
					 "# HELP skerry_b_total Help with \\\\ and\\nbreak.\n"
					 "# TYPE skerry_b_total counter\n"
					 "skerry_b_total 3\n"
					 "skerry_b_total{name=\"a\\\"b\\\\c\\nd\",z=\"1\"} 1\n"
					 "# HELP skerry_c_seconds Time.\n"
					 "# TYPE skerry_c_seconds histogram\n"
					 "skerry_c_seconds_bucket{m=\"x\",le=\"0.1\"} 1\n"
					 "skerry_c_seconds_bucket{m=\"x\",le=\"1\"} 2\n"
					 "skerry_c_seconds_bucket{m=\"x\",le=\"+Inf\"} 3\n"
					 "skerry_c_seconds_sum{m=\"x\"} 5.6\n"
					 "skerry_c_seconds_count{m=\"x\"} 3\n"
					 "# HELP skerry_d Asked.\n"
					 "# TYPE skerry_d gauge\n"
					 "skerry_d 7\n");
	assert_true(metrics_value("skerry_d", NULL) == 7);
	assert_true(metrics_value("skerry_c_seconds", "m=\"x\"") == 3);
	assert_true(metrics_value("skerry_b_total", NULL) == 3);
	assert_true(isnan(metrics_value("skerry_b_total", "x=\"y\"")));
	assert_true(isnan(metrics_value("skerry_none", NULL)));
	metrics_gauge_fn_clear(m);
	assert_true(isnan(metrics_value("skerry_d", NULL)));
	buf_reset(&b);
	metrics_write(&b);
	assert_lacks(buf_str(&b), "skerry_d 7");
	metrics_gauge_fn_clear(NULL);
	metrics_zero();
	assert_true(metrics_value("skerry_b_total", NULL) == 0);
	buf_done(&b);
	buf_done(&labels);
}

static void test_same_series(void **state)
{
	(void)state;
	assert_ptr_equal(metrics_counter("skerry_s_total", "h", NULL),
			 metrics_counter("skerry_s_total", "h", ""));
	assert_ptr_not_equal(metrics_counter("skerry_s_total", "h", NULL),
			     metrics_counter("skerry_s_total", "h", "a=\"1\""));
	/* A kind's calls on another kind, and on nothing, do no harm. */
	gauge_set(metrics_counter("skerry_s_total", "h", NULL), 5);
	counter_inc(metrics_gauge("skerry_g", "h", NULL));
	counter_inc(NULL);
	gauge_add(NULL, 1);
	histogram_observe(NULL, 1);
	assert_true(metrics_value("skerry_s_total", NULL) == 0);
	for (int i = 0; i < 3; i++) {
		METRICS_COUNT("skerry_macro_total", "h", 2);
	}
	assert_true(metrics_value("skerry_macro_total", NULL) == 6);
}

static void *hammer(void *arg)
{
	struct metric **m = arg;

	for (int i = 0; i < 10000; i++) {
		counter_inc(m[0]);
		gauge_add(m[1], 1);
		histogram_observe(m[2], 0.003);
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct metric *m[] = {
		metrics_counter("skerry_t_total", "h", NULL),
		metrics_gauge("skerry_t", "h", NULL),
		metrics_histogram("skerry_t_seconds", "h", NULL, METRICS_SECONDS,
				  METRICS_SECONDS_LEN),
	};
	struct buf b = BUF_INIT;
	pthread_t threads[4];

	(void)state;
	TEST_TABLE(t, threads)
	{
		assert_int_equal(pthread_create(t, NULL, hammer, m), 0);
	}
	metrics_write(&b);
	TEST_TABLE(t, threads)
	{
		pthread_join(*t, NULL);
	}
	assert_true(metrics_value("skerry_t_total", NULL) == 40000);
	assert_true(metrics_value("skerry_t", NULL) == 40000);
	assert_true(metrics_value("skerry_t_seconds", NULL) == 40000);
	buf_reset(&b);
	metrics_write(&b);
	assert_contains(buf_str(&b), "skerry_t_seconds_bucket{le=\"0.005\"} 40000\n");
	assert_contains(buf_str(&b), "skerry_t_seconds_bucket{le=\"0.0025\"} 0\n");
	buf_done(&b);
}

/* Last: it fills the registry. */
static void test_limit(void **state)
{
	char labels[32];

	(void)state;
	for (int i = 0; i <= LIM_METRIC_SERIES; i++) {
		snprintf(labels, sizeof(labels), "i=\"%06d\"", LIM_METRIC_SERIES - i);
		counter_inc(metrics_counter("skerry_many_total", "h", labels));
	}
	counter_inc(metrics_counter("skerry_another_total", "h", NULL));
	gauge_set(metrics_gauge("skerry_another", "h", NULL), 3);
	assert_true(metrics_value("skerry_metrics_overflow_total", NULL) >= 2);
	assert_true(isnan(metrics_value("skerry_another_total", NULL)));
	/* What was there goes on. */
	counter_inc(metrics_counter("skerry_many_total", "h", "i=\"010000\""));
	assert_true(metrics_value("skerry_many_total", "i=\"010000\"") == 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_same_series),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
