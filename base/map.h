/* Hash table from bytes (or a uint64) to pointers, keyed by SipHash against chosen keys. */
#pragma once

#include "base/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map_entry;

/* Embedded; all zero is a valid empty map. Copies keys, borrows values. Not thread-safe.
 * A map is filled either by byte keys or by u64 keys; a u64 key is the 8 bytes of it in host
 * order, so the two could meet. */
struct map {
	struct map_entry **buckets;
	size_t nbuckets; /* power of two or 0 */
	size_t len;      /* entries */
};

void map_init(struct map *m);
/* Frees the table and the keys, not the values. NULL is fine. */
void map_done(struct map *m);
/* Removes all entries. */
void map_clear(struct map *m);
static inline size_t map_len(const struct map *m)
{
	return m->len;
}

/* The value, or NULL. Values may not be NULL. */
void *map_get(const struct map *m, const void *key, size_t len);
/* Sets; returns the value that was there before, or NULL. */
void *map_put(struct map *m, const void *key, size_t len, void *value);
/* Removes; returns the value that was there, or NULL. */
void *map_del(struct map *m, const void *key, size_t len);

void *map_get_u64(const struct map *m, uint64_t key);
void *map_put_u64(struct map *m, uint64_t key, void *value);
void *map_del_u64(struct map *m, uint64_t key);

/* NUL-terminated keys (the NUL is not part of the key). */
void *map_get_str(const struct map *m, const char *key);
void *map_put_str(struct map *m, const char *key, void *value);
void *map_del_str(struct map *m, const char *key);

/* Iteration in no particular order:
 *   struct map_iter it = {0};
 *   while (map_next(&m, &it)) use(it.key, it.key_len, it.value);
 * The current entry may be removed; anything else added or removed ends the promise that each
 * entry comes once. */
struct map_iter {
	const void *key; /* borrowed from the entry, NUL after it */
	size_t key_len;
	void *value;
	size_t bucket_;
	struct map_entry *next_;
};
bool map_next(const struct map *m, struct map_iter *it);
/* The current key of a u64 map. */
uint64_t map_iter_u64(const struct map_iter *it);
