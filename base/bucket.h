/* Token bucket. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Embedded, no cleanup; not thread-safe. Time comes from the caller (clock_mono_ms). */
struct bucket {
	uint64_t burst;   /* most tokens */
	uint64_t per_ms;  /* burst tokens grow back in so many ms */
	uint64_t credit;  /* tokens * per_ms */
	uint64_t last_ms; /* when credit was brought up to date */
};

/* burst tokens at once, refilled evenly over per_ms: (20, 1000) is 20 a second, (10, 60000) is 10 a
 * minute. Starts full. Both > 0, burst * per_ms < 2^63. */
void bucket_init(struct bucket *b, uint64_t burst, uint64_t per_ms, uint64_t now_ms);
/* Takes n tokens, or none and says false. A clock that goes back is taken as standing still. */
bool bucket_take(struct bucket *b, uint64_t n, uint64_t now_ms);
/* ms until n tokens are there; 0 if they are, UINT64_MAX if n > burst. */
uint64_t bucket_wait_ms(struct bucket *b, uint64_t n, uint64_t now_ms);
