#include "base/arena.h"

#include "base/mem.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define ARENA_ALIGN 16
#define ARENA_CHUNK 4096

struct arena_chunk {
	struct arena_chunk *next;
	size_t size; /* of data */
	size_t used;
	_Alignas(ARENA_ALIGN) uint8_t data[];
};

/*
 * Chunks of the first size that a thread has no use for wait here for its next arena: they are too large for malloc's own
 * caches of small pieces, and a call of a client takes half a dozen of them. Sanitizers shall see each chunk come and go.
 */
#if SANITIZED
enum { SPARE_MAX = 0 };
#else
enum { SPARE_MAX = 256 };
#endif

static _Thread_local struct arena_chunk *spare;
static _Thread_local int n_spare;
static pthread_key_t spare_key; /* frees them when their thread ends */
static pthread_once_t spare_once = PTHREAD_ONCE_INIT;

static void spare_free(void *arg)
{
	(void)arg;
	while (spare != NULL) {
		struct arena_chunk *c = spare;

		spare = c->next;
		mem_free(c);
	}
	n_spare = 0;
}

static void spare_make_key(void)
{
	PRE(pthread_key_create(&spare_key, spare_free) == 0);
}

static struct arena_chunk *chunk_get(size_t size)
{
	struct arena_chunk *c = spare;

	if (size != ARENA_CHUNK || c == NULL) {
		c = mem_alloc(sizeof(*c) + size);
		c->size = size;
		return c;
	}
	spare = c->next;
	n_spare--;
	return c;
}

static void chunk_put(struct arena_chunk *c)
{
	if (c->size != ARENA_CHUNK || n_spare >= SPARE_MAX) {
		mem_free(c);
		return;
	}
	if (spare == NULL) {
		pthread_once(&spare_once, spare_make_key);
		pthread_setspecific(spare_key, c); /* any value but NULL */
	}
	c->next = spare;
	spare = c;
	n_spare++;
}

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
	c = chunk_get(size);
	c->next = a->chunks;
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

		chunk_put(c);
		c = next;
	}
}

char *arena_vprintf(struct arena *a, const char *fmt, va_list ap)
{
	va_list again;
	char *out;
	int len;

	va_copy(again, ap);
	len = vsnprintf(NULL, 0, fmt, ap);
	POST(len >= 0);
	out = arena_alloc(a, (size_t)len + 1);
	if (out != NULL) {
		vsnprintf(out, (size_t)len + 1, fmt, again);
	}
	va_end(again);
	return out;
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
