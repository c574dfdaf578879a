/* The process-wide registry of metrics and its Prometheus text form (0.0.4). */
#pragma once

#include "base/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;

/* One series: a name and a constant set of labels. Lives until the process ends, so
 * that holders need not count references. */
struct metric;

/* The four makers return the series of (name, labels), made at the first call; the same pair again
 * gives the same series. name is skerry_<area>_<what>[_total|_seconds|_bytes]; labels is NULL or
 * Prometheus text without braces, `method="Register",code="OK"`, values escaped by
 * metrics_label where they may hold anything. All strings are copied. A name keeps the kind and
 * help of its first use; another kind is a programming error. Past LIM_METRIC_SERIES the series
 * is one that is shared and shown as skerry_metrics_overflow_total. Any thread. */
struct metric *metrics_counter(const char *name, const char *help, const char *labels);
struct metric *metrics_gauge(const char *name, const char *help, const char *labels);
/* fn is asked at each scrape, on the scraping thread, with the registry locked: it may not call
 * into this header. A repeat replaces fn and arg; metrics_gauge_fn_clear takes them back. */
typedef double (*metrics_gauge_cb)(void *arg);
struct metric *metrics_gauge_fn(const char *name, const char *help, const char *labels,
				metrics_gauge_cb fn, void *arg);
/* After it returns fn runs no more; the series is no longer shown. NULL is fine. */
void metrics_gauge_fn_clear(struct metric *m);
/* bounds: rising upper bounds without +Inf, copied. */
struct metric *metrics_histogram(const char *name, const char *help, const char *labels,
				 const double *bounds, size_t nbounds);
/* Bounds for latencies in seconds: 1 ms to 10 s. */
extern const double METRICS_SECONDS[13];
#define METRICS_SECONDS_LEN 13

/* Atomic; any thread. m may be NULL (nothing happens). */
void counter_add(struct metric *m, uint64_t n);
static inline void counter_inc(struct metric *m)
{
	counter_add(m, 1);
}
void gauge_set(struct metric *m, double v);
void gauge_add(struct metric *m, double v);
void histogram_observe(struct metric *m, double v);

/* A counter by its name at the place where it is counted, looked up once per call site. */
#define METRICS_COUNT(name, help, n)                                    \
	do {                                                            \
		static struct metric *_Atomic metrics_site_;            \
		struct metric *metrics_m_ = metrics_site_;              \
		if (metrics_m_ == NULL) {                               \
			metrics_m_ = metrics_counter(name, help, NULL); \
			metrics_site_ = metrics_m_;                     \
		}                                                       \
		counter_add(metrics_m_, n);                             \
	} while (0)

/* Appends `name="value"` with value escaped, after a comma if b is not empty. */
void metrics_label(struct buf *b, const char *name, const char *value);
/* Appends the whole registry, names sorted. */
void metrics_write(struct buf *b);
/* Value of a series for tests and status pages (histogram: number of observations); NAN if there
 * is none. */
double metrics_value(const char *name, const char *labels);
/* Sets all values to 0; series stay. For tests. */
void metrics_zero(void);
