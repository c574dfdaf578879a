#include "base/rand.h"

#include "base/macros.h"

#include <sodium.h>

static rand_fn rand_source;
static void *rand_source_arg;

void rand_override(rand_fn fn, void *arg)
{
	rand_source = fn;
	rand_source_arg = arg;
}

void rand_bytes(void *out, size_t len)
{
	if (rand_source != NULL) {
		rand_source(rand_source_arg, out, len);
	} else {
		randombytes_buf(out, len);
	}
}

uint64_t rand_u64(void)
{
	uint64_t v;

	rand_bytes(&v, sizeof(v));
	return v;
}

uint64_t rand_id63(void)
{
	uint64_t v;

	do {
		v = rand_u64() >> 1;
	} while (v == 0);
	return v;
}

uint32_t rand_below(uint32_t bound)
{
	uint32_t v;
	uint32_t floor;

	PRE(bound > 0);
	/* 2^32 mod bound: the values below it would make the small results more likely. */
	floor = (uint32_t)-bound % bound;
	do {
		rand_bytes(&v, sizeof(v));
	} while (v < floor);
	return v % bound;
}
