/* The clocks, replaceable for tests, and the text forms of time. */
#pragma once

#include "base/macros.h"

#include <stddef.h>
#include <stdint.h>

struct buf;
struct err;

/* Monotonic time since some start (CLOCK_MONOTONIC: it stands still in suspend). Any thread. */
uint64_t clock_mono_ns(void);
uint64_t clock_mono_ms(void);
/* Milliseconds since 1970 UTC. May jump. Any thread. */
int64_t clock_wall_ms(void);
/* The wall clock less the monotonic one: stands still until the wall clock is set. Any thread. */
int64_t clock_skew_ms(void);

/* For tests: replaces the sources until called with NULL. The struct is borrowed. */
struct clock_source {
	uint64_t (*mono_ns)(void *arg);
	int64_t (*wall_ms)(void *arg);
	void *arg;
};
void clock_override(const struct clock_source *src);

/* RFC 3339 in UTC with milliseconds: 2026-11-22T13:30:00.123Z. Years 0000 to 9999, others are
 * clamped. Returns out. */
#define CLOCK_TEXT 32
const char *clock_format(int64_t unix_ms, char out[CLOCK_TEXT]);
/* Any RFC 3339 form (offset, fraction of any length, t and z); a leap second counts as :59. */
int clock_parse(const char *text, int64_t *ret_unix_ms, struct err *e) MUST_CHECK;

/* "90d", "24h", "30m", "5s", "250ms" or a sequence of falling units ("1h30m"); "0" is allowed,
 * negative is not. Result in ms, at most 100 years. w is a week. */
int duration_parse(const char *text, int64_t *ret_ms, struct err *e) MUST_CHECK;
/* The shortest exact form: "90d", "1h30m", "250ms", "0s". Returns out. */
#define DURATION_TEXT 48
const char *duration_format(int64_t ms, char out[DURATION_TEXT]);
