/* Inside of HTTP/2: the output queue of a stream, and header lists, shared by server and client. */
#pragma once

#include <nghttp2/nghttp2.h>

#include "base/blob.h"
#include "base/buf.h"
#include "base/list.h"
#include "net/h2.h"

/* Bytes that a piece costs beside its content, counted so that many small pieces are bounded too.
 */
enum { H2_PIECE_COST = 48 };

struct h2_piece {
	struct list link;
	struct blob *blob; /* NULL: not in use */
	size_t off, len;
};

struct h2_queue {
	struct list pieces;
	struct h2_piece first; /* most queues never hold more than one */
	size_t bytes;          /* content that waits */
	size_t cost;
	bool ended;    /* nothing follows (but trailers) */
	bool deferred; /* nghttp2 waits for more */
};

void h2_queue_init(struct h2_queue *q);
void h2_queue_done(struct h2_queue *q);
/* ERR_LIMIT when LIM_GRPC_STREAM_QUEUE_BYTES wait already: a queue below that takes one more piece
 * of any size. */
MUST_CHECK int h2_queue_push(struct h2_queue *q, struct blob *blob, size_t off, size_t len);
/* Takes `len` bytes from the front: send() for each part. Returns 0 or what send() said. */
MUST_CHECK int h2_queue_pull(struct h2_queue *q, size_t len,
			     int (*send)(void *arg, struct blob *blob, size_t off, size_t len),
			     void *arg);

enum { H2_HEADERS_FEW = 14 };

/* A header list that grows while a block is received; strings live in one buffer. */
struct h2_headers {
	struct buf text;
	uint32_t few[2 * H2_HEADERS_FEW]; /* offsets in the text: name, value, name, value */
	uint32_t *offsets;                /* of all of them, when there are more */
	size_t n;
	size_t bytes;             /* name + value + 32 each (RFC 9113 §10.5.1) */
	struct http_header *list; /* made by h2_headers_list() */
};

/* False when over `max_bytes` or LIM_H2_HEADERS fields: counted, not kept. */
bool h2_headers_add(struct h2_headers *h, const uint8_t *name, size_t name_len,
		    const uint8_t *value, size_t value_len, size_t max_bytes);
const struct http_header *h2_headers_list(struct h2_headers *h);
void h2_headers_done(struct h2_headers *h);

/* nv for a header; secrets (authorization, cookie) stay out of the compression tables. */
nghttp2_nv h2_nv(const char *name, const char *value);
