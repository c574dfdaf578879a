#include "base/clock.h"

#include "base/err.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const struct clock_source *_Atomic clock_src; /* tests set it while threads run */

void clock_override(const struct clock_source *src)
{
	atomic_store_explicit(&clock_src, src, memory_order_release);
}

uint64_t clock_mono_ns(void)
{
	const struct clock_source *src = atomic_load_explicit(&clock_src, memory_order_acquire);
	struct timespec ts;

	if (src != NULL && src->mono_ns != NULL) {
		return src->mono_ns(src->arg);
	}
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t clock_mono_ms(void)
{
	return clock_mono_ns() / 1000000u;
}

int64_t clock_wall_ms(void)
{
	const struct clock_source *src = atomic_load_explicit(&clock_src, memory_order_acquire);
	struct timespec ts;

	if (src != NULL && src->wall_ms != NULL) {
		return src->wall_ms(src->arg);
	}
	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t clock_skew_ms(void)
{
	return clock_wall_ms() - (int64_t)clock_mono_ms();
}

/* Proleptic Gregorian calendar by eras of 400 years that begin in March, so that the leap day is
 * the last of its year. */
static int64_t days_from_civil(int64_t y, unsigned m, unsigned d)
{
	int64_t era;
	unsigned yoe, doy, doe;

	y -= m <= 2;
	era = (y >= 0 ? y : y - 399) / 400;
	yoe = (unsigned)(y - era * 400);
	doy = (153 * (m > 2 ? m - 3 : m + 9) + 2) / 5 + d - 1;
	doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
	return era * 146097 + (int64_t)doe - 719468;
}

static void civil_from_days(int64_t z, int64_t *ret_y, unsigned *ret_m, unsigned *ret_d)
{
	int64_t era;
	unsigned doe, yoe, doy, mp;

	z += 719468;
	era = (z >= 0 ? z : z - 146096) / 146097;
	doe = (unsigned)(z - era * 146097);
	yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	mp = (5 * doy + 2) / 153;
	*ret_d = doy - (153 * mp + 2) / 5 + 1;
	*ret_m = mp < 10 ? mp + 3 : mp - 9;
	*ret_y = (int64_t)yoe + era * 400 + (*ret_m <= 2);
}

#define DAY_MS 86400000ll
/* 0000-01-01T00:00:00.000Z and 9999-12-31T23:59:59.999Z */
#define TIME_MIN (-62167219200000ll)
#define TIME_MAX 253402300799999ll

const char *clock_format(int64_t unix_ms, char out[CLOCK_TEXT])
{
	int64_t ms, days, year;
	unsigned month, day, rest;

	ms = unix_ms < TIME_MIN ? TIME_MIN : unix_ms > TIME_MAX ? TIME_MAX : unix_ms;
	days = ms / DAY_MS;
	if (ms % DAY_MS < 0) {
		days--;
	}
	rest = (unsigned)(ms - days * DAY_MS);
	civil_from_days(days, &year, &month, &day);
	snprintf(out, CLOCK_TEXT, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ", (unsigned)year % 10000,
		 month, day, rest / 3600000 % 24, rest / 60000 % 60, rest / 1000 % 60, rest % 1000);
	return out;
}

/* n digits at *p as a number, or -1. Moves *p. */
static int digits(const char **p, unsigned n)
{
	int v = 0;

	for (unsigned i = 0; i < n; i++) {
		char c = **p;

		if (c < '0' || c > '9') {
			return -1;
		}
		v = v * 10 + (c - '0');
		(*p)++;
	}
	return v;
}

static bool expect(const char **p, char c)
{
	if (**p != c && !(c == 'T' && (**p == 't' || **p == ' '))) {
		return false;
	}
	(*p)++;
	return true;
}

static int days_in_month(int y, int m)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

	return m == 2 && (y % 4 == 0 && (y % 100 != 0 || y % 400 == 0)) ? 29 : days[m - 1];
}

static int bad_time(struct err *e, const char *text, const char *why)
{
	return err_set(e, ERR_INVALID,
		       "\"%.40s\" is not a time: %s; expected RFC 3339 such as "
		       "2026-11-22T13:30:00Z",
		       text, why);
}

int clock_parse(const char *text, int64_t *ret_unix_ms, struct err *e)
{
	const char *p = text;
	int year, month, day, hour, minute, second, milli = 0, offset = 0;
	int64_t ms;

	if ((year = digits(&p, 4)) < 0 || !expect(&p, '-') || (month = digits(&p, 2)) < 0 ||
	    !expect(&p, '-') || (day = digits(&p, 2)) < 0 || !expect(&p, 'T') ||
	    (hour = digits(&p, 2)) < 0 || !expect(&p, ':') || (minute = digits(&p, 2)) < 0 ||
	    !expect(&p, ':') || (second = digits(&p, 2)) < 0) {
		return bad_time(e, text, "wrong form");
	}
	if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, month)) {
		return bad_time(e, text, "no such day");
	}
	if (hour > 23 || minute > 59 || second > 60) {
		return bad_time(e, text, "no such time of day");
	}
	second = second == 60 ? 59 : second;
	if (*p == '.') {
		int scale = 100;

		p++;
		if (*p < '0' || *p > '9') {
			return bad_time(e, text, "no digit after the point");
		}
		for (; *p >= '0' && *p <= '9'; p++) {
			milli += (*p - '0') * scale;
			scale /= 10;
		}
	}
	if (*p == 'Z' || *p == 'z') {
		p++;
	} else if (*p == '+' || *p == '-') {
		int sign = *p++ == '-' ? -1 : 1;
		int oh = digits(&p, 2);
		int om = oh >= 0 && expect(&p, ':') ? digits(&p, 2) : -1;

		if (oh < 0 || om < 0 || oh > 23 || om > 59) {
			return bad_time(e, text, "wrong offset");
		}
		offset = sign * (oh * 60 + om);
	} else {
		return bad_time(e, text, "no Z or offset at the end");
	}
	if (*p != '\0') {
		return bad_time(e, text, "more after the end");
	}
	ms = days_from_civil(year, (unsigned)month, (unsigned)day) * DAY_MS;
	ms += ((int64_t)hour * 3600 + minute * 60 + second - offset * 60) * 1000 + milli;
	*ret_unix_ms = ms;
	return 0;
}

static const struct {
	const char *text;
	int64_t ms;
} units[] = {
	{"w", 7 * DAY_MS}, {"d", DAY_MS}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1},
};

#define DURATION_MAX (36500 * DAY_MS)

static int bad_duration(struct err *e, const char *text, const char *why)
{
	return err_set(e, ERR_INVALID,
		       "\"%.40s\" is not a duration: %s; expected a number and a unit out of w, d, "
		       "h, m, s, ms, such as 90d or 1h30m",
		       text, why);
}

/* Index of the unit of length len at p, or -1. */
static int unit_find(const char *p, size_t len)
{
	for (size_t i = 0; i < ARRAY_LEN(units); i++) {
		if (strlen(units[i].text) == len && memcmp(units[i].text, p, len) == 0) {
			return (int)i;
		}
	}
	return -1;
}

int duration_parse(const char *text, int64_t *ret_ms, struct err *e)
{
	const char *p = text;
	int64_t total = 0;
	int last = -1;

	if (strcmp(text, "0") == 0) {
		*ret_ms = 0;
		return 0;
	}
	if (*p == '\0') {
		return bad_duration(e, text, "it is empty");
	}
	while (*p != '\0') {
		int64_t n = 0;
		size_t len;
		int unit;

		if (*p < '0' || *p > '9') {
			return bad_duration(e, text, "a number is missing");
		}
		for (; *p >= '0' && *p <= '9'; p++) {
			n = n * 10 + (*p - '0');
			if (n > DURATION_MAX) {
				return bad_duration(e, text, "it is longer than 100 years");
			}
		}
		len = strspn(p, "abcdefghijklmnopqrstuvwxyz");
		unit = unit_find(p, len);
		if (unit < 0) {
			return bad_duration(e, text,
					    len == 0 ? "the unit is missing" : "unknown unit");
		}
		if (unit <= last) {
			return bad_duration(e, text, "units must fall");
		}
		last = unit;
		p += len;
		if (n > (DURATION_MAX - total) / units[unit].ms) {
			return bad_duration(e, text, "it is longer than 100 years");
		}
		total += n * units[unit].ms;
	}
	*ret_ms = total;
	return 0;
}

const char *duration_format(int64_t ms, char out[DURATION_TEXT])
{
	size_t len = 0;

	if (ms <= 0) {
		snprintf(out, DURATION_TEXT, "0s");
		return out;
	}
	/* Days are the largest unit that people compare, so weeks are only read. */
	for (size_t i = 1; i < ARRAY_LEN(units) && len < DURATION_TEXT; i++) {
		if (ms >= units[i].ms) {
			len += (size_t)snprintf(out + len, DURATION_TEXT - len, "%" PRId64 "%s",
						ms / units[i].ms, units[i].text);
			ms %= units[i].ms;
		}
	}
	return out;
}
