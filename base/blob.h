/* Immutable reference-counted bytes, shared between many senders and threads. */
#pragma once

#include "base/macros.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct buf;

/* The content never changes after it was made; the count is atomic, so a blob may be referenced
 * and released by any thread. */
struct blob {
	const uint8_t *data; /* owned by the blob */
	size_t len;
	atomic_uint refs; /* private */
};

/* Room for `len` bytes at *ret_data, which the caller fills before he hands the blob on; one reference, his. */
struct blob *blob_room(size_t len, uint8_t **ret_data) MUST_CHECK;
/* Copies data; one reference, the caller's. */
struct blob *blob_new(const void *data, size_t len) MUST_CHECK;
/* Takes the buffer's memory; the buffer is empty afterwards. */
struct blob *blob_take(struct buf *b) MUST_CHECK;
/* One more reference; returns b. */
struct blob *blob_ref(struct blob *b);
/* One reference less, the last one frees. NULL is fine. */
void blob_unref(struct blob *b);
