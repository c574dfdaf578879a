/* Exponential backoff with jitter. */
#pragma once

#include <stdint.h>

/* Embedded, no cleanup. */
struct backoff {
	uint32_t min_ms;
	uint32_t max_ms;
	uint32_t attempts; /* failures since the last reset */
};

/* 0 < min_ms <= max_ms. */
void backoff_init(struct backoff *b, uint32_t min_ms, uint32_t max_ms);
/* Delay before the next try: doubles from min to max, of which a random half to whole is taken,
 * never below min. Counts the attempt. */
uint32_t backoff_next(struct backoff *b);
/* After a success. */
void backoff_reset(struct backoff *b);
