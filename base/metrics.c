#include "base/metrics.h"

#include "base/buf.h"
#include "base/limits.h"
#include "base/mem.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_GAUGE_FN, METRIC_HISTOGRAM };

/* All series of one name. */
struct family {
	struct family *next; /* by name */
	char *name;
	char *help;
	enum metric_kind kind;
	struct metric *first; /* by labels */
};

struct metric {
	struct metric *next;
	struct family *family;
	char *labels; /* "" without */
	enum metric_kind kind;
	atomic_uint_fast64_t count; /* counter; histogram: observations */
	_Atomic double value;       /* gauge; histogram: sum */
	metrics_gauge_cb fn;        /* under the lock */
	void *arg;
	size_t nbounds;
	double *bounds;
	atomic_uint_fast64_t *buckets; /* not cumulative, nbounds of them */
};

const double METRICS_SECONDS[METRICS_SECONDS_LEN] = {
	0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
};

/* Guards the lists and callbacks; values are atomic. Series are never freed: call sites keep
 * pointers to them in static variables. */
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct family *families;
static size_t series;

static struct family *family_get(const char *name, const char *help, enum metric_kind kind)
{
	struct family **at = &families;
	struct family *f;

	while (*at != NULL && strcmp((*at)->name, name) < 0) {
		at = &(*at)->next;
	}
	f = *at;
	if (f != NULL && strcmp(f->name, name) == 0) {
		PRE(f->kind == kind);
		return f;
	}
	f = MEM_NEW(struct family);
	f->name = mem_strdup(name);
	f->help = mem_strdup(help);
	f->kind = kind;
	f->next = *at;
	*at = f;
	return f;
}

static struct metric **series_find(struct family *f, const char *labels)
{
	struct metric **at = &f->first;

	while (*at != NULL && strcmp((*at)->labels, labels) < 0) {
		at = &(*at)->next;
	}
	return at;
}

static bool series_is(const struct metric *m, const char *labels)
{
	return m != NULL && strcmp(m->labels, labels) == 0;
}

static struct metric *series_new(struct family *f, struct metric **at, const char *labels,
				 const double *bounds, size_t nbounds)
{
	struct metric *m = MEM_NEW(struct metric);

	m->family = f;
	m->kind = f->kind;
	m->labels = mem_strdup(labels);
	m->nbounds = nbounds;
	if (nbounds > 0) {
		m->bounds = mem_calloc(nbounds, sizeof(*bounds));
		memcpy(m->bounds, bounds, nbounds * sizeof(*bounds));
		m->buckets = mem_calloc(nbounds, sizeof(*m->buckets));
	}
	m->next = *at;
	*at = m;
	series++;
	return m;
}

/* Where series beyond the limit go: one counter for all kinds; gauges and histograms are lost. */
static struct metric *overflow_get(void)
{
	struct family *f = family_get("skerry_metrics_overflow_total",
				      "Events of series beyond the limit of series.",
				      METRIC_COUNTER);
	struct metric **at = series_find(f, "");

	return series_is(*at, "") ? *at : series_new(f, at, "", NULL, 0);
}

static struct metric *metric_get(const char *name, const char *help, const char *labels,
				 enum metric_kind kind, const double *bounds, size_t nbounds,
				 metrics_gauge_cb fn, void *arg)
{
	struct metric **at;
	struct family *f;
	struct metric *m;

	if (labels == NULL) {
		labels = "";
	}
	pthread_mutex_lock(&registry_lock);
	f = family_get(name, help, kind);
	at = series_find(f, labels);
	if (series_is(*at, labels)) {
		m = *at;
	} else if (series >= LIM_METRIC_SERIES) {
		m = overflow_get();
	} else {
		m = series_new(f, at, labels, bounds, nbounds);
	}
	if (m->kind == METRIC_GAUGE_FN) {
		m->fn = fn;
		m->arg = arg;
	}
	pthread_mutex_unlock(&registry_lock);
	return m;
}

struct metric *metrics_counter(const char *name, const char *help, const char *labels)
{
	return metric_get(name, help, labels, METRIC_COUNTER, NULL, 0, NULL, NULL);
}

struct metric *metrics_gauge(const char *name, const char *help, const char *labels)
{
	return metric_get(name, help, labels, METRIC_GAUGE, NULL, 0, NULL, NULL);
}

struct metric *metrics_gauge_fn(const char *name, const char *help, const char *labels,
				metrics_gauge_cb fn, void *arg)
{
	PRE(fn != NULL);
	return metric_get(name, help, labels, METRIC_GAUGE_FN, NULL, 0, fn, arg);
}

void metrics_gauge_fn_clear(struct metric *m)
{
	if (m == NULL || m->kind != METRIC_GAUGE_FN) {
		return;
	}
	pthread_mutex_lock(&registry_lock);
	m->fn = NULL;
	m->arg = NULL;
	pthread_mutex_unlock(&registry_lock);
}

struct metric *metrics_histogram(const char *name, const char *help, const char *labels,
				 const double *bounds, size_t nbounds)
{
	PRE(nbounds > 0);
	for (size_t i = 1; i < nbounds; i++) {
		PRE(bounds[i - 1] < bounds[i]);
	}
	return metric_get(name, help, labels, METRIC_HISTOGRAM, bounds, nbounds, NULL, NULL);
}

void counter_add(struct metric *m, uint64_t n)
{
	if (m != NULL && m->kind == METRIC_COUNTER) {
		atomic_fetch_add_explicit(&m->count, n, memory_order_relaxed);
	}
}

void gauge_set(struct metric *m, double v)
{
	if (m != NULL && m->kind == METRIC_GAUGE) {
		atomic_store_explicit(&m->value, v, memory_order_relaxed);
	}
}

static void value_add(struct metric *m, double v)
{
	double old = atomic_load_explicit(&m->value, memory_order_relaxed);

	while (!atomic_compare_exchange_weak_explicit(&m->value, &old, old + v,
						      memory_order_relaxed, memory_order_relaxed)) {
	}
}

void gauge_add(struct metric *m, double v)
{
	if (m != NULL && m->kind == METRIC_GAUGE) {
		value_add(m, v);
	}
}

void histogram_observe(struct metric *m, double v)
{
	if (m == NULL || m->kind != METRIC_HISTOGRAM) {
		return;
	}
	for (size_t i = 0; i < m->nbounds; i++) {
		if (v <= m->bounds[i]) {
			atomic_fetch_add_explicit(&m->buckets[i], 1, memory_order_relaxed);
			break;
		}
	}
	atomic_fetch_add_explicit(&m->count, 1, memory_order_relaxed);
	value_add(m, v);
}

void metrics_label(struct buf *b, const char *name, const char *value)
{
	if (b->len > 0) {
		buf_u8(b, ',');
	}
	buf_printf(b, "%s=\"", name);
	for (const char *p = value; *p != '\0'; p++) {
		if (*p == '\n') {
			buf_append_str(b, "\\n");
			continue;
		}
		if (*p == '"' || *p == '\\') {
			buf_u8(b, '\\');
		}
		buf_u8(b, (uint8_t)*p);
	}
	buf_u8(b, '"');
}

static void number_write(struct buf *b, double v)
{
	if (isnan(v)) {
		buf_append_str(b, "NaN");
	} else if (isinf(v)) {
		buf_append_str(b, v > 0 ? "+Inf" : "-Inf");
	} else {
		buf_printf(b, "%.15g", v);
	}
}

static void name_write(struct buf *b, const char *name, const char *suffix, const char *labels)
{
	buf_printf(b, "%s%s", name, suffix);
	if (labels[0] != '\0') {
		buf_printf(b, "{%s}", labels);
	}
	buf_u8(b, ' ');
}

static void histogram_write(struct buf *b, const struct metric *m)
{
	const char *name = m->family->name;
	const char *comma = m->labels[0] != '\0' ? "," : "";
	uint64_t total = 0;
	/* Read before the buckets: an observation in between can make a bucket larger than the
	 * count, so the +Inf bucket takes the larger of the two. */
	uint64_t count = atomic_load_explicit(&m->count, memory_order_relaxed);

	for (size_t i = 0; i < m->nbounds; i++) {
		total += atomic_load_explicit(&m->buckets[i], memory_order_relaxed);
		buf_printf(b, "%s_bucket{%s%sle=\"%.15g\"} %" PRIu64 "\n", name, m->labels, comma,
			   m->bounds[i], total);
	}
	count = MAX(count, total);
	buf_printf(b, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", name, m->labels, comma, count);
	name_write(b, name, "_sum", m->labels);
	number_write(b, atomic_load_explicit(&m->value, memory_order_relaxed));
	buf_u8(b, '\n');
	name_write(b, name, "_count", m->labels);
	buf_printf(b, "%" PRIu64 "\n", count);
}

static void metric_write(struct buf *b, const struct metric *m)
{
	switch (m->kind) {
	case METRIC_COUNTER:
		name_write(b, m->family->name, "", m->labels);
		buf_printf(b, "%" PRIu64 "\n",
			   (uint64_t)atomic_load_explicit(&m->count, memory_order_relaxed));
		break;
	case METRIC_GAUGE:
	case METRIC_GAUGE_FN:
		if (m->kind == METRIC_GAUGE_FN && m->fn == NULL) {
			break;
		}
		name_write(b, m->family->name, "", m->labels);
		number_write(b, m->kind == METRIC_GAUGE
					? atomic_load_explicit(&m->value, memory_order_relaxed)
					: m->fn(m->arg));
		buf_u8(b, '\n');
		break;
	case METRIC_HISTOGRAM: histogram_write(b, m); break;
	}
}

static void help_write(struct buf *b, const char *help)
{
	for (const char *p = help; *p != '\0'; p++) {
		if (*p == '\n') {
			buf_append_str(b, "\\n");
		} else if (*p == '\\') {
			buf_append_str(b, "\\\\");
		} else {
			buf_u8(b, (uint8_t)*p);
		}
	}
}

void metrics_write(struct buf *b)
{
	static const char *const types[] = {"counter", "gauge", "gauge", "histogram"};

	pthread_mutex_lock(&registry_lock);
	for (const struct family *f = families; f != NULL; f = f->next) {
		buf_printf(b, "# HELP %s ", f->name);
		help_write(b, f->help);
		buf_printf(b, "\n# TYPE %s %s\n", f->name, types[f->kind]);
		for (const struct metric *m = f->first; m != NULL; m = m->next) {
			metric_write(b, m);
		}
	}
	pthread_mutex_unlock(&registry_lock);
}

static double metric_value(const struct metric *m)
{
	switch (m->kind) {
	case METRIC_COUNTER:
	case METRIC_HISTOGRAM: return (double)atomic_load(&m->count);
	case METRIC_GAUGE: return atomic_load(&m->value);
	case METRIC_GAUGE_FN: return m->fn != NULL ? m->fn(m->arg) : NAN;
	}
	return NAN;
}

double metrics_value(const char *name, const char *labels)
{
	double v = NAN;

	if (labels == NULL) {
		labels = "";
	}
	pthread_mutex_lock(&registry_lock);
	for (struct family *f = families; f != NULL; f = f->next) {
		if (strcmp(f->name, name) == 0) {
			struct metric *m = *series_find(f, labels);

			if (series_is(m, labels)) {
				v = metric_value(m);
			}
			break;
		}
	}
	pthread_mutex_unlock(&registry_lock);
	return v;
}

void metrics_zero(void)
{
	pthread_mutex_lock(&registry_lock);
	for (struct family *f = families; f != NULL; f = f->next) {
		for (struct metric *m = f->first; m != NULL; m = m->next) {
			atomic_store(&m->count, 0);
			atomic_store(&m->value, 0);
			for (size_t i = 0; i < m->nbounds; i++) {
				atomic_store(&m->buckets[i], 0);
			}
		}
	}
	pthread_mutex_unlock(&registry_lock);
}
