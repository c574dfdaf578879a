#include "tailnet/kv.h"

#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "tailnet/keys.h"

/*
 * A treap: a binary tree by key that is a heap by priority. The priority is a hash of the key, so that the shape
 * depends on the content alone and no randomness is needed.
 */
struct kv_node {
	struct kv_node *left, *right;
	uint64_t priority;
	size_t key_len, value_len;
	uint8_t *value;
	uint8_t key[];
};

struct kv_mem {
	struct kv_node *root;
};

static uint64_t key_priority(struct slice key)
{
	const uint8_t *p = key.data;
	uint64_t h = 0xcbf29ce484222325ull;

	for (size_t i = 0; i < key.len; i++) {
		h = (h ^ p[i]) * 0x100000001b3ull;
	}
	h ^= h >> 33;
	h *= 0xff51afd7ed558ccdull;
	h ^= h >> 29;
	h *= 0xc4ceb9fe1a85ec53ull;
	return h ^ (h >> 32);
}

static struct slice node_key(const struct kv_node *n)
{
	return (struct slice){n->key, n->key_len};
}

static void node_free(struct kv_node *n)
{
	mem_free(n->value);
	mem_free(n);
}

static void tree_free(struct kv_node *n)
{
	/* Rotates left children up, so that the depth of the stack does not grow with the tree. */
	while (n != NULL) {
		if (n->left != NULL) {
			struct kv_node *l = n->left;

			n->left = l->right;
			l->right = n;
			n = l;
		} else {
			struct kv_node *r = n->right;

			node_free(n);
			n = r;
		}
	}
}

/* Splits into keys below `key` and keys above it; `key` itself is not in the tree. */
static void tree_split(struct kv_node *n, struct slice key, struct kv_node **ret_low,
		       struct kv_node **ret_high)
{
	while (n != NULL) {
		if (slice_cmp(node_key(n), key) < 0) {
			*ret_low = n;
			ret_low = &n->right;
			n = n->right;
		} else {
			*ret_high = n;
			ret_high = &n->left;
			n = n->left;
		}
	}
	*ret_low = NULL;
	*ret_high = NULL;
}

static struct kv_node *tree_merge(struct kv_node *low, struct kv_node *high)
{
	struct kv_node *root = NULL;
	struct kv_node **at = &root;

	while (low != NULL && high != NULL) {
		if (low->priority >= high->priority) {
			*at = low;
			at = &low->right;
			low = low->right;
		} else {
			*at = high;
			at = &high->left;
			high = high->left;
		}
	}
	*at = low != NULL ? low : high;
	return root;
}

static struct kv_node *tree_find(struct kv_node *n, struct slice key)
{
	while (n != NULL) {
		int c = slice_cmp(key, node_key(n));

		if (c == 0) {
			return n;
		}
		n = c < 0 ? n->left : n->right;
	}
	return NULL;
}

static int answer(const struct kv_node *n, struct slice *ret_key, struct slice *ret_value)
{
	if (n == NULL) {
		return ERR_NOT_FOUND;
	}
	if (ret_key != NULL) {
		*ret_key = node_key(n);
	}
	if (ret_value != NULL) {
		*ret_value = (struct slice){n->value, n->value_len};
	}
	return 0;
}

static int mem_get(void *impl, struct slice key, struct slice *ret_value)
{
	struct kv_mem *m = impl;

	return answer(tree_find(m->root, key), NULL, ret_value);
}

static int mem_put(void *impl, struct slice key, struct slice value)
{
	struct kv_mem *m = impl;
	struct kv_node *n = tree_find(m->root, key);
	uint8_t *copy = mem_memdup(value.data, value.len);

	PRE(key.len > 0 && key.len <= SKEY_MAX);
	if (n == NULL) {
		struct kv_node **at = &m->root;

		n = mem_zalloc(sizeof(*n) + key.len);
		memcpy(n->key, key.data, key.len);
		n->key_len = key.len;
		n->priority = key_priority(key);
		while (*at != NULL && (*at)->priority >= n->priority) {
			at = slice_cmp(key, node_key(*at)) < 0 ? &(*at)->left : &(*at)->right;
		}
		tree_split(*at, key, &n->left, &n->right);
		*at = n;
	}
	mem_free(n->value);
	n->value = copy;
	n->value_len = value.len;
	return 0;
}

static int mem_del(void *impl, struct slice key)
{
	struct kv_mem *m = impl;
	struct kv_node **at = &m->root;

	while (*at != NULL) {
		int c = slice_cmp(key, node_key(*at));

		if (c == 0) {
			struct kv_node *n = *at;

			*at = tree_merge(n->left, n->right);
			node_free(n);
			return 0;
		}
		at = c < 0 ? &(*at)->left : &(*at)->right;
	}
	return ERR_NOT_FOUND;
}

/* The lowest node above `key`, or at it if `equal`. */
static struct kv_node *tree_above(struct kv_node *n, struct slice key, bool equal)
{
	struct kv_node *best = NULL;

	while (n != NULL) {
		int c = slice_cmp(node_key(n), key);

		if (c > 0 || (c == 0 && equal)) {
			best = n;
			n = n->left;
		} else {
			n = n->right;
		}
	}
	return best;
}

static int mem_seek(void *impl, struct slice key, struct slice *ret_key, struct slice *ret_value)
{
	struct kv_mem *m = impl;

	return answer(tree_above(m->root, key, true), ret_key, ret_value);
}

static int mem_next(void *impl, struct slice key, struct slice *ret_key, struct slice *ret_value)
{
	struct kv_mem *m = impl;

	return answer(tree_above(m->root, key, false), ret_key, ret_value);
}

static int mem_prev(void *impl, struct slice key, struct slice *ret_key, struct slice *ret_value)
{
	struct kv_mem *m = impl;
	struct kv_node *best = NULL;

	for (struct kv_node *n = m->root; n != NULL;) {
		if (slice_cmp(node_key(n), key) < 0) {
			best = n;
			n = n->right;
		} else {
			n = n->left;
		}
	}
	return answer(best, ret_key, ret_value);
}

static const struct kv_ops mem_ops = {
	.get = mem_get,
	.put = mem_put,
	.del = mem_del,
	.seek = mem_seek,
	.next = mem_next,
	.prev = mem_prev,
};

struct kv_mem *kv_mem_new(void)
{
	return MEM_NEW(struct kv_mem);
}

void kv_mem_free(struct kv_mem *m)
{
	if (m == NULL) {
		return;
	}
	tree_free(m->root);
	mem_free(m);
}

struct kv kv_mem_kv(struct kv_mem *m)
{
	return (struct kv){&mem_ops, m};
}
