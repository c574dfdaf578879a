#include "base/blob.h"

#include "base/buf.h"
#include "base/mem.h"

#include <string.h>

static struct blob *blob_make(const uint8_t *data, size_t len)
{
	struct blob *b = MEM_NEW(struct blob);

	b->data = data;
	b->len = len;
	atomic_init(&b->refs, 1);
	return b;
}

/* The bytes follow the struct. */
struct blob *blob_room(size_t len, uint8_t **ret_data)
{
	struct blob *b = mem_alloc(sizeof(*b) + len);

	b->data = *ret_data = (uint8_t *)(b + 1);
	b->len = len;
	atomic_init(&b->refs, 1);
	return b;
}

struct blob *blob_new(const void *data, size_t len)
{
	uint8_t *room;
	struct blob *b = blob_room(len, &room);

	if (len > 0) {
		memcpy(room, data, len);
	}
	return b;
}

struct blob *blob_take(struct buf *b)
{
	uint8_t *data = b->data;
	size_t len = b->len, cap = b->cap;

	buf_init(b);
	/* A blob may live long in a queue: what the buffer had grown beyond its content is given back. */
	if (data == NULL || cap - len > len / 8 + 64) {
		data = mem_realloc(data, len);
	}
	return blob_make(data, len);
}

struct blob *blob_ref(struct blob *b)
{
	unsigned before = atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);

	PRE(before > 0);
	return b;
}

void blob_unref(struct blob *b)
{
	unsigned before;

	if (b == NULL) {
		return;
	}
	before = atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel);
	PRE(before > 0);
	if (before == 1) {
		if (b->data != (const uint8_t *)(b + 1)) {
			mem_free((void *)b->data);
		}
		mem_free(b);
	}
}
