#include "base/map.h"

#include "base/mem.h"
#include "base/rand.h"

#include <pthread.h>
#include <sodium.h>
#include <string.h>

#define MAP_MIN_BUCKETS 16

/* Chained, so that the current entry of an iteration can go without moving the others. */
struct map_entry {
	struct map_entry *next;
	uint64_t hash;
	void *value;
	size_t key_len;
	uint8_t key[]; /* with a NUL after it */
};

_Static_assert(crypto_shorthash_BYTES == 8, "the hash is one uint64");

static unsigned char map_seed[crypto_shorthash_KEYBYTES];
static pthread_once_t map_seed_once = PTHREAD_ONCE_INIT;

/* Straight from libsodium: rand_override may give every process the same numbers. */
static void map_seed_init(void)
{
	randombytes_buf(map_seed, sizeof(map_seed));
}

static uint64_t map_hash(const void *key, size_t len)
{
	unsigned char out[crypto_shorthash_BYTES];
	uint64_t h;

	pthread_once(&map_seed_once, map_seed_init);
	crypto_shorthash(out, len > 0 ? key : (const void *)"", len, map_seed);
	memcpy(&h, out, sizeof(h));
	return h;
}

void map_init(struct map *m)
{
	memset(m, 0, sizeof(*m));
}

void map_clear(struct map *m)
{
	for (size_t i = 0; i < m->nbuckets; i++) {
		struct map_entry *e = m->buckets[i];

		while (e != NULL) {
			struct map_entry *next = e->next;

			mem_free(e);
			e = next;
		}
	}
	mem_free(m->buckets);
	map_init(m);
}

void map_done(struct map *m)
{
	if (m != NULL) {
		map_clear(m);
	}
}

/* Where the pointer to the entry stands, or where it would be hung. */
static struct map_entry **map_slot(const struct map *m, uint64_t h, const void *key, size_t len)
{
	struct map_entry **at = &m->buckets[h & (m->nbuckets - 1)];

	while (*at != NULL) {
		struct map_entry *e = *at;

		if (e->hash == h && e->key_len == len &&
		    (len == 0 || memcmp(e->key, key, len) == 0)) {
			break;
		}
		at = &e->next;
	}
	return at;
}

static void map_grow(struct map *m)
{
	size_t n = m->nbuckets > 0 ? m->nbuckets * 2 : MAP_MIN_BUCKETS;
	struct map_entry **buckets = mem_calloc(n, sizeof(*buckets));

	for (size_t i = 0; i < m->nbuckets; i++) {
		struct map_entry *e = m->buckets[i];

		while (e != NULL) {
			struct map_entry *next = e->next;
			struct map_entry **at = &buckets[e->hash & (n - 1)];

			e->next = *at;
			*at = e;
			e = next;
		}
	}
	mem_free(m->buckets);
	m->buckets = buckets;
	m->nbuckets = n;
}

void *map_get(const struct map *m, const void *key, size_t len)
{
	struct map_entry *e;

	if (m->nbuckets == 0) {
		return NULL;
	}
	e = *map_slot(m, map_hash(key, len), key, len);
	return e != NULL ? e->value : NULL;
}

void *map_put(struct map *m, const void *key, size_t len, void *value)
{
	uint64_t h = map_hash(key, len);
	struct map_entry **at;
	struct map_entry *e;
	void *old = NULL;

	PRE(value != NULL);
	if (m->len >= m->nbuckets) {
		map_grow(m);
	}
	at = map_slot(m, h, key, len);
	e = *at;
	if (e != NULL) {
		old = e->value;
	} else {
		e = mem_alloc(sizeof(*e) + len + 1);
		e->next = NULL;
		e->hash = h;
		e->key_len = len;
		if (len > 0) {
			memcpy(e->key, key, len);
		}
		e->key[len] = 0;
		*at = e;
		m->len++;
	}
	e->value = value;
	return old;
}

void *map_del(struct map *m, const void *key, size_t len)
{
	struct map_entry **at;
	struct map_entry *e;
	void *value;

	if (m->nbuckets == 0) {
		return NULL;
	}
	at = map_slot(m, map_hash(key, len), key, len);
	e = *at;
	if (e == NULL) {
		return NULL;
	}
	value = e->value;
	*at = e->next;
	mem_free(e);
	m->len--;
	return value;
}

void *map_get_u64(const struct map *m, uint64_t key)
{
	return map_get(m, &key, sizeof(key));
}

void *map_put_u64(struct map *m, uint64_t key, void *value)
{
	return map_put(m, &key, sizeof(key), value);
}

void *map_del_u64(struct map *m, uint64_t key)
{
	return map_del(m, &key, sizeof(key));
}

void *map_get_str(const struct map *m, const char *key)
{
	return map_get(m, key, strlen(key));
}

void *map_put_str(struct map *m, const char *key, void *value)
{
	return map_put(m, key, strlen(key), value);
}

void *map_del_str(struct map *m, const char *key)
{
	return map_del(m, key, strlen(key));
}

bool map_next(const struct map *m, struct map_iter *it)
{
	struct map_entry *e = it->next_;

	/* bucket_ is the next bucket to look into. */
	while (e == NULL && it->bucket_ < m->nbuckets) {
		e = m->buckets[it->bucket_++];
	}
	if (e == NULL) {
		return false;
	}
	it->key = e->key;
	it->key_len = e->key_len;
	it->value = e->value;
	it->next_ = e->next;
	return true;
}

uint64_t map_iter_u64(const struct map_iter *it)
{
	uint64_t key;

	PRE(it->key_len == sizeof(key));
	memcpy(&key, it->key, sizeof(key));
	return key;
}
