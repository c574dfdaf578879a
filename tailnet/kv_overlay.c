#include "tailnet/kv.h"

#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "tailnet/keys.h"

/* Values of the upper store begin with one byte: is it there, or deleted? */
enum { GONE = 0, HERE = 1 };

struct kv_overlay {
	const struct kv *base;
	struct kv_mem *mem;
	struct kv upper;
};

static bool is_gone(struct slice v)
{
	return *(const uint8_t *)v.data == GONE;
}

static struct slice unwrap(struct slice v)
{
	return (struct slice){(const uint8_t *)v.data + 1, v.len - 1};
}

static int overlay_get(void *impl, struct slice key, struct slice *ret_value)
{
	struct kv_overlay *o = impl;
	struct slice v;
	int r = kv_get(&o->upper, key, &v);

	if (r == ERR_NOT_FOUND) {
		return kv_get(o->base, key, ret_value);
	}
	if (r < 0) {
		return r;
	}
	if (is_gone(v)) {
		return ERR_NOT_FOUND;
	}
	*ret_value = unwrap(v);
	return 0;
}

static int overlay_put(void *impl, struct slice key, struct slice value)
{
	struct kv_overlay *o = impl;
	uint8_t *copy = mem_alloc(value.len + 1);
	int r;

	copy[0] = HERE;
	if (value.len > 0) {
		memcpy(copy + 1, value.data, value.len);
	}
	r = kv_put(&o->upper, key, (struct slice){copy, value.len + 1});
	mem_free(copy);
	return r;
}

static int overlay_del(void *impl, struct slice key)
{
	struct kv_overlay *o = impl;
	struct slice old;
	uint8_t gone = GONE;
	int r = overlay_get(impl, key, &old);

	if (r < 0) {
		return r;
	}
	return kv_put(&o->upper, key, (struct slice){&gone, 1});
}

typedef int (*step_fn)(const struct kv *kv, struct slice key, struct slice *ret_key,
		       struct slice *ret_value);

static int step_seek(const struct kv *kv, struct slice key, struct slice *k, struct slice *v)
{
	return kv_seek(kv, key, k, v);
}

static int step_next(const struct kv *kv, struct slice key, struct slice *k, struct slice *v)
{
	return kv_next(kv, key, k, v);
}

static int step_prev(const struct kv *kv, struct slice key, struct slice *k, struct slice *v)
{
	return kv_prev(kv, key, k, v);
}

/* Walks both stores in one direction until the nearer key is one that is there. */
static int walk(struct kv_overlay *o, struct slice key, step_fn first, step_fn onward, int sign,
		struct slice *ret_key, struct slice *ret_value)
{
	step_fn step = first;

	for (;;) {
		struct slice uk, uv, bk, bv;
		int ru = step(&o->upper, key, &uk, &uv);
		int rb = step(o->base, key, &bk, &bv);
		int c;

		if ((ru < 0 && ru != ERR_NOT_FOUND) || (rb < 0 && rb != ERR_NOT_FOUND)) {
			return ru < 0 && ru != ERR_NOT_FOUND ? ru : rb;
		}
		if (ru < 0 && rb < 0) {
			return ERR_NOT_FOUND;
		}
		c = ru < 0 ? 1 : rb < 0 ? -1 : sign * slice_cmp(uk, bk);
		if (c > 0) {
			*ret_key = bk;
			*ret_value = bv;
			return 0;
		}
		if (!is_gone(uv)) {
			*ret_key = uk;
			*ret_value = unwrap(uv);
			return 0;
		}
		/* Deleted above: the walk goes on from there. The key belongs to the upper store, which
		 * does not change meanwhile. */
		key = uk;
		step = onward;
	}
}

static int overlay_seek(void *impl, struct slice key, struct slice *ret_key,
			struct slice *ret_value)
{
	return walk(impl, key, step_seek, step_next, 1, ret_key, ret_value);
}

static int overlay_next(void *impl, struct slice key, struct slice *ret_key,
			struct slice *ret_value)
{
	return walk(impl, key, step_next, step_next, 1, ret_key, ret_value);
}

static int overlay_prev(void *impl, struct slice key, struct slice *ret_key,
			struct slice *ret_value)
{
	return walk(impl, key, step_prev, step_prev, -1, ret_key, ret_value);
}

static const struct kv_ops overlay_ops = {
	.get = overlay_get,
	.put = overlay_put,
	.del = overlay_del,
	.seek = overlay_seek,
	.next = overlay_next,
	.prev = overlay_prev,
};

struct kv_overlay *kv_overlay_new(const struct kv *base)
{
	struct kv_overlay *o = MEM_NEW(struct kv_overlay);

	o->base = base;
	o->mem = kv_mem_new();
	o->upper = kv_mem_kv(o->mem);
	return o;
}

void kv_overlay_free(struct kv_overlay *o)
{
	if (o == NULL) {
		return;
	}
	kv_mem_free(o->mem);
	mem_free(o);
}

struct kv kv_overlay_kv(struct kv_overlay *o)
{
	return (struct kv){&overlay_ops, o};
}
