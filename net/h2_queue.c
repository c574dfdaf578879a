#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "net/h2_int.h"

enum { H2_HEADERS_TEXT = 512 };

void h2_queue_init(struct h2_queue *q)
{
	memset(q, 0, sizeof(*q));
	list_init(&q->pieces);
}

static void piece_free(struct h2_queue *q, struct h2_piece *piece)
{
	list_remove(&piece->link);
	blob_unref(piece->blob);
	piece->blob = NULL;
	if (piece != &q->first) {
		mem_free(piece);
	}
}

void h2_queue_done(struct h2_queue *q)
{
	while (!list_empty(&q->pieces)) {
		piece_free(q, LIST_ENTRY(q->pieces.next, struct h2_piece, link));
	}
	q->bytes = 0;
	q->cost = 0;
}

int h2_queue_push(struct h2_queue *q, struct blob *blob, size_t off, size_t len)
{
	PRE(off <= blob->len && len <= blob->len - off);
	if (q->cost >= LIM_GRPC_STREAM_QUEUE_BYTES) {
		return ERR_LIMIT;
	}
	if (len == 0) {
		return 0;
	}
	struct h2_piece *piece = q->first.blob == NULL ? &q->first : MEM_NEW(struct h2_piece);

	piece->blob = blob_ref(blob);
	piece->off = off;
	piece->len = len;
	list_push(&q->pieces, &piece->link);
	q->bytes += len;
	q->cost += len + H2_PIECE_COST;
	return 0;
}

int h2_queue_pull(struct h2_queue *q, size_t len,
		  int (*send)(void *arg, struct blob *blob, size_t off, size_t len), void *arg)
{
	PRE(len <= q->bytes);
	q->bytes -= len;
	q->cost -= len;
	while (len > 0) {
		struct h2_piece *piece = LIST_ENTRY(q->pieces.next, struct h2_piece, link);
		size_t part = MIN(len, piece->len);
		int rc = send(arg, piece->blob, piece->off, part);

		if (rc != 0) {
			return rc;
		}
		piece->off += part;
		piece->len -= part;
		len -= part;
		if (piece->len == 0) {
			q->cost -= H2_PIECE_COST;
			piece_free(q, piece);
		}
	}
	return 0;
}

bool h2_headers_add(struct h2_headers *h, const uint8_t *name, size_t name_len,
		    const uint8_t *value, size_t value_len, size_t max_bytes)
{
	h->bytes += name_len + value_len + 32;
	if (h->bytes > max_bytes || h->n >= LIM_H2_HEADERS) {
		return false;
	}
	uint32_t *offsets = h->offsets != NULL ? h->offsets : h->few;
	if (h->n == H2_HEADERS_FEW) {
		offsets = h->offsets = mem_calloc(2 * LIM_H2_HEADERS, sizeof(*offsets));
		memcpy(offsets, h->few, sizeof(h->few));
	}
	if (h->n == 0) {
		(void)buf_reserve(&h->text, H2_HEADERS_TEXT);
	}
	uint8_t *at = buf_reserve(&h->text, name_len + value_len + 2);
	offsets[2 * h->n] = (uint32_t)h->text.len;
	offsets[2 * h->n + 1] = (uint32_t)(h->text.len + name_len + 1);
	memcpy(at, name, name_len);
	at[name_len] = 0;
	memcpy(at + name_len + 1, value, value_len);
	at[name_len + 1 + value_len] = 0;
	h->text.len += name_len + value_len + 2;
	h->n++;
	return true;
}

const struct http_header *h2_headers_list(struct h2_headers *h)
{
	const uint32_t *offsets = h->offsets != NULL ? h->offsets : h->few;

	if (h->list == NULL) {
		h->list = mem_alloc((h->n + 1) * sizeof(*h->list));
		for (size_t i = 0; i < h->n; i++) {
			h->list[i].name = (char *)h->text.data + offsets[2 * i];
			h->list[i].value = (char *)h->text.data + offsets[2 * i + 1];
		}
		h->list[h->n] = (struct http_header){0};
		mem_free(h->offsets); /* complete */
		h->offsets = NULL;
	}
	return h->list;
}

void h2_headers_done(struct h2_headers *h)
{
	buf_done(&h->text);
	mem_free(h->offsets);
	mem_free(h->list);
	h->offsets = NULL;
	h->list = NULL;
	h->n = 0;
	h->bytes = 0;
}

nghttp2_nv h2_nv(const char *name, const char *value)
{
	bool secret = strcmp(name, "authorization") == 0 || strcmp(name, "cookie") == 0;

	return (nghttp2_nv){
		.name = (uint8_t *)name,
		.namelen = strlen(name),
		.value = (uint8_t *)value,
		.valuelen = strlen(value),
		.flags = secret ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE,
	};
}
