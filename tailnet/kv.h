/* The ordered key-value interface under the state: memory (tests, simulation), LMDB (cluster/), overlay. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"

/* Bytes that somebody else owns. */
struct slice {
	const void *data;
	size_t len;
};

/*
 * Results: 0 ok, ERR_NOT_FOUND, or another negative code, which is a failure of the store: tailnet_apply's
 * caller ends the process on it. Slices returned by get and by a cursor stay valid until the next put or del
 * on the same store or the end of its transaction. Keys are 1 to 400 bytes, values at most 1 MiB.
 */
struct kv_ops {
	int (*get)(void *impl, struct slice key, struct slice *ret_value);
	int (*put)(void *impl, struct slice key, struct slice value);
	int (*del)(void *impl, struct slice key);
	/* The first record with a key >= `key`. */
	int (*seek)(void *impl, struct slice key, struct slice *ret_key, struct slice *ret_value);
	/* The first record with a key > `key`, which need not exist. */
	int (*next)(void *impl, struct slice key, struct slice *ret_key, struct slice *ret_value);
	/* The last record with a key < `key`. */
	int (*prev)(void *impl, struct slice key, struct slice *ret_key, struct slice *ret_value);
};

struct kv {
	const struct kv_ops *ops;
	void *impl;
};

MUST_CHECK static inline int kv_get(const struct kv *kv, struct slice key, struct slice *ret)
{
	return kv->ops->get(kv->impl, key, ret);
}

MUST_CHECK static inline int kv_put(const struct kv *kv, struct slice key, struct slice value)
{
	return kv->ops->put(kv->impl, key, value);
}

MUST_CHECK static inline int kv_del(const struct kv *kv, struct slice key)
{
	return kv->ops->del(kv->impl, key);
}

MUST_CHECK static inline int kv_seek(const struct kv *kv, struct slice key, struct slice *ret_key,
				     struct slice *ret_value)
{
	return kv->ops->seek(kv->impl, key, ret_key, ret_value);
}

MUST_CHECK static inline int kv_next(const struct kv *kv, struct slice key, struct slice *ret_key,
				     struct slice *ret_value)
{
	return kv->ops->next(kv->impl, key, ret_key, ret_value);
}

MUST_CHECK static inline int kv_prev(const struct kv *kv, struct slice key, struct slice *ret_key,
				     struct slice *ret_value)
{
	return kv->ops->prev(kv->impl, key, ret_key, ret_value);
}

/* A store in memory (a sorted tree), for tests and the simulation. */
struct kv_mem;
struct kv_mem *kv_mem_new(void);
void kv_mem_free(struct kv_mem *m);
/* The interface onto it; borrows m. */
struct kv kv_mem_kv(struct kv_mem *m);

/*
 * Writes stay in memory above `base`, which is only read: the pre-check runs an apply on it and throws it
 * away. Borrows base.
 */
struct kv_overlay;
struct kv_overlay *kv_overlay_new(const struct kv *base);
void kv_overlay_free(struct kv_overlay *o);
struct kv kv_overlay_kv(struct kv_overlay *o);
