/* A growable byte buffer. */
#pragma once

#include "base/macros.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

/* Embedded; all zero is a valid empty buffer. Not thread-safe. */
struct buf {
	uint8_t *data; /* owned; NULL while cap is 0 */
	size_t len;    /* bytes in use */
	size_t cap;    /* bytes allocated */
};

#define BUF_INIT  \
	{         \
		0 \
	}

void buf_init(struct buf *b);
/* Frees the memory; the buffer is empty and usable afterwards. NULL is fine. */
void buf_done(struct buf *b);
/* As buf_done, but overwrites the content first (for secrets). A buffer that grew while it held
 * the secret has wiped its older copies only if it was filled through buf_reserve beforehand. */
void buf_wipe(struct buf *b);
/* Length 0, memory kept. */
void buf_reset(struct buf *b);
/* Room for n more bytes; returns where they go. The caller adds what it wrote to len. */
uint8_t *buf_reserve(struct buf *b, size_t n);
/* Copies len bytes to the end; data may be NULL if len is 0, and may not lie inside b. */
void buf_append(struct buf *b, const void *data, size_t len);
void buf_append_str(struct buf *b, const char *s);
/* Appends without the NUL. */
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void buf_vprintf(struct buf *b, const char *fmt, va_list ap) PRINTF_LIKE(2, 0);
void buf_u8(struct buf *b, uint8_t v);
void buf_u16be(struct buf *b, uint16_t v);
void buf_u32be(struct buf *b, uint32_t v);
void buf_u64be(struct buf *b, uint64_t v);
/* Removes n bytes from the front (n <= len). Moves the rest: linear in it. */
void buf_consume(struct buf *b, size_t n);
/* Gives the memory to the caller (mem_free) with a NUL after the last byte, not counted in
 * *ret_len (may be NULL); the buffer is empty afterwards. Never NULL. */
void *buf_take(struct buf *b, size_t *ret_len);
/* The content with a NUL after it, valid until the next change; for text. Never NULL. */
const char *buf_str(struct buf *b);
