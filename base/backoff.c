#include "base/backoff.h"

#include "base/macros.h"
#include "base/rand.h"

void backoff_init(struct backoff *b, uint32_t min_ms, uint32_t max_ms)
{
	PRE(min_ms > 0 && min_ms <= max_ms && max_ms < UINT32_MAX);
	b->min_ms = min_ms;
	b->max_ms = max_ms;
	b->attempts = 0;
}

uint32_t backoff_next(struct backoff *b)
{
	uint64_t full = b->max_ms;
	uint64_t low;

	if (b->attempts < 32 && ((uint64_t)b->min_ms << b->attempts) < full) {
		full = (uint64_t)b->min_ms << b->attempts;
	}
	if (b->attempts < UINT32_MAX) {
		b->attempts++;
	}
	low = MAX(full / 2, (uint64_t)b->min_ms);
	return (uint32_t)(low + rand_below((uint32_t)(full - low + 1)));
}

void backoff_reset(struct backoff *b)
{
	b->attempts = 0;
}
