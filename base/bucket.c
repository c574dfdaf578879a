#include "base/bucket.h"

#include "base/macros.h"

void bucket_init(struct bucket *b, uint64_t burst, uint64_t per_ms, uint64_t now_ms)
{
	uint64_t full;

	PRE(burst > 0 && per_ms > 0);
	PRE(!__builtin_mul_overflow(burst, per_ms, &full) && full < UINT64_MAX / 2);
	b->burst = burst;
	b->per_ms = per_ms;
	b->credit = full;
	b->last_ms = now_ms;
}

/* In one ms burst/per_ms tokens grow, that is burst units of credit. */
static void bucket_refill(struct bucket *b, uint64_t now_ms)
{
	uint64_t full = b->burst * b->per_ms;
	uint64_t passed;

	if (now_ms <= b->last_ms) {
		return;
	}
	passed = now_ms - b->last_ms;
	b->last_ms = now_ms;
	if (passed >= b->per_ms) {
		b->credit = full;
	} else {
		b->credit = MIN(b->credit + passed * b->burst, full);
	}
}

bool bucket_take(struct bucket *b, uint64_t n, uint64_t now_ms)
{
	bucket_refill(b, now_ms);
	if (n > b->burst || b->credit < n * b->per_ms) {
		return false;
	}
	b->credit -= n * b->per_ms;
	return true;
}

uint64_t bucket_wait_ms(struct bucket *b, uint64_t n, uint64_t now_ms)
{
	uint64_t missing;

	bucket_refill(b, now_ms);
	if (n > b->burst) {
		return UINT64_MAX;
	}
	if (b->credit >= n * b->per_ms) {
		return 0;
	}
	missing = n * b->per_ms - b->credit;
	return (missing + b->burst - 1) / b->burst;
}
