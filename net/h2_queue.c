#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "net/h2_int.h"

struct piece {
	struct list link;
	struct blob *blob;
	size_t off, len;
};

void h2_queue_init(struct h2_queue *q)
{
	memset(q, 0, sizeof(*q));
	list_init(&q->pieces);
}

static void piece_free(struct piece *piece)
{
	list_remove(&piece->link);
	blob_unref(piece->blob);
	mem_free(piece);
}

void h2_queue_done(struct h2_queue *q)
{
	while (!list_empty(&q->pieces)) {
		piece_free(LIST_ENTRY(q->pieces.next, struct piece, link));
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
	struct piece *piece = MEM_NEW(struct piece);
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
		struct piece *piece = LIST_ENTRY(q->pieces.next, struct piece, link);
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
			piece_free(piece);
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
	if (h->offsets == NULL) {
		h->offsets = mem_calloc(2 * LIM_H2_HEADERS, sizeof(*h->offsets));
	}
	h->offsets[2 * h->n] = h->text.len;
	buf_append(&h->text, name, name_len);
	buf_u8(&h->text, 0);
	h->offsets[2 * h->n + 1] = h->text.len;
	buf_append(&h->text, value, value_len);
	buf_u8(&h->text, 0);
	h->n++;
	return true;
}

const struct http_header *h2_headers_list(struct h2_headers *h)
{
	if (h->list == NULL) {
		h->list = mem_calloc(h->n + 1, sizeof(*h->list));
		for (size_t i = 0; i < h->n; i++) {
			h->list[i].name = (char *)h->text.data + h->offsets[2 * i];
			h->list[i].value = (char *)h->text.data + h->offsets[2 * i + 1];
		}
		mem_free(h->offsets); /* complete: 1 KiB less per open request */
		h->offsets = NULL;
	}
	return h->list;
}

void h2_headers_done(struct h2_headers *h)
{
	buf_done(&h->text);
	mem_free(h->offsets);
	mem_free(h->list);
	memset(h, 0, sizeof(*h));
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
