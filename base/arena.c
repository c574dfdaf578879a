#include "base/arena.h"

#include "base/mem.h"

#include <stdint.h>
#include <string.h>

#define ARENA_ALIGN 16
#define ARENA_CHUNK 4096

struct arena_chunk {
	struct arena_chunk *next;
	size_t size; /* of data */
	size_t used;
	_Alignas(ARENA_ALIGN) uint8_t data[];
};

void arena_init(struct arena *a, size_t budget)
{
	a->chunks = NULL;
	a->budget = budget;
	a->used = 0;
}

/* Chunks double, so that a large request costs few mallocs, but never beyond the budget. */
static struct arena_chunk *chunk_add(struct arena *a, size_t want)
{
	size_t size = a->chunks != NULL ? a->chunks->size * 2 : ARENA_CHUNK;
	size_t left = a->budget - a->used;
	struct arena_chunk *c;

	if (size > left) {
		size = left;
	}
	if (size < want) {
		size = want;
	}
	c = mem_alloc(sizeof(*c) + size);
	c->next = a->chunks;
	c->size = size;
	c->used = 0;
	a->chunks = c;
	return c;
}

void *arena_alloc(struct arena *a, size_t size)
{
	struct arena_chunk *c = a->chunks;
	size_t want;
	void *p;

	if (size == 0) {
		size = 1;
	}
	if (__builtin_add_overflow(size, (size_t)ARENA_ALIGN - 1, &want)) {
		return NULL;
	}
	want &= ~((size_t)ARENA_ALIGN - 1);
	if (want > a->budget - a->used) {
		return NULL;
	}
	if (c == NULL || c->size - c->used < want) {
		c = chunk_add(a, want);
	}
	p = c->data + c->used;
	c->used += want;
	a->used += want;
	return p;
}

void *arena_zalloc(struct arena *a, size_t size)
{
	void *p = arena_alloc(a, size);

	if (p != NULL) {
		memset(p, 0, size);
	}
	return p;
}

void *arena_memdup(struct arena *a, const void *data, size_t len)
{
	void *p = arena_alloc(a, len);

	if (p != NULL && len > 0) {
		memcpy(p, data, len);
	}
	return p;
}

char *arena_strdup(struct arena *a, const char *s)
{
	return arena_memdup(a, s, strlen(s) + 1);
}

static void chunks_free(struct arena_chunk *c)
{
	while (c != NULL) {
		struct arena_chunk *next = c->next;

		mem_free(c);
		c = next;
	}
}

void arena_reset(struct arena *a)
{
	if (a->chunks != NULL) {
		/* The newest is the largest, or nearly: it serves the next request best. */
		chunks_free(a->chunks->next);
		a->chunks->next = NULL;
		a->chunks->used = 0;
	}
	a->used = 0;
}

void arena_done(struct arena *a)
{
	if (a != NULL) {
		chunks_free(a->chunks);
		arena_init(a, a->budget);
	}
}
