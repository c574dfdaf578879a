/* Memory of one request with a budget: many small allocations, freed at once. */
#pragma once

#include "base/macros.h"

#include <stdarg.h>
#include <stddef.h>

struct arena_chunk;

/* Embedded. Not thread-safe. */
struct arena {
	struct arena_chunk *chunks; /* newest first */
	size_t budget;              /* bytes that may be handed out between resets */
	size_t used;                /* bytes handed out, rounding included */
};

/* Nothing is allocated before the first use. */
void arena_init(struct arena *a, size_t budget);
/* 16-byte aligned memory, not zeroed, owned by the arena until reset; NULL if the budget would be
 * passed (the arena stays usable). A size of 0 gives a valid pointer. */
void *arena_alloc(struct arena *a, size_t size) MUST_CHECK;
void *arena_zalloc(struct arena *a, size_t size) MUST_CHECK;
/* Copies; NULL over budget. */
char *arena_strdup(struct arena *a, const char *s) MUST_CHECK;
void *arena_memdup(struct arena *a, const void *data, size_t len) MUST_CHECK;
/* A formatted string; NULL over budget. */
char *arena_vprintf(struct arena *a, const char *fmt, va_list ap) PRINTF_LIKE(2, 0) MUST_CHECK;
/* Takes everything back and keeps one chunk for the next request. */
void arena_reset(struct arena *a);
/* Frees everything; the arena may be used again with the same budget. NULL is fine. */
void arena_done(struct arena *a);
