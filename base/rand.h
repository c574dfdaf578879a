/* Random numbers from the kernel, replaceable for tests. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* crypto_init() must have been called. Any thread. */
void rand_bytes(void *out, size_t len);
uint64_t rand_u64(void);
/* 1 .. 2^63-1: ids of clusters and lighthouses. */
uint64_t rand_id63(void);
/* 0 .. bound-1 without bias; bound > 0. */
uint32_t rand_below(uint32_t bound);

/* For tests: replaces the source until called with NULL. */
typedef void (*rand_fn)(void *arg, void *out, size_t len);
void rand_override(rand_fn fn, void *arg);
