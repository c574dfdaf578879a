#include "base/buf.h"

#include "base/crypto.h"
#include "base/enc.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

#define BUF_MIN_CAP 64

void buf_init(struct buf *b)
{
	memset(b, 0, sizeof(*b));
}

void buf_done(struct buf *b)
{
	if (b != NULL) {
		mem_free(b->data);
		buf_init(b);
	}
}

void buf_wipe(struct buf *b)
{
	if (b != NULL) {
		if (b->data != NULL) {
			secret_wipe(b->data, b->cap);
		}
		buf_done(b);
	}
}

void buf_reset(struct buf *b)
{
	b->len = 0;
}

uint8_t *buf_reserve(struct buf *b, size_t n)
{
	size_t want;
	size_t cap = b->cap > 0 ? b->cap : BUF_MIN_CAP;

	if (__builtin_add_overflow(b->len, n, &want) || want > SIZE_MAX / 2) {
		IMPOSSIBLE("buffer beyond the address space");
	}
	if (want > b->cap || b->data == NULL) {
		while (cap < want) {
			cap *= 2;
		}
		b->data = mem_realloc(b->data, cap);
		b->cap = cap;
	}
	return b->data + b->len;
}

void buf_append(struct buf *b, const void *data, size_t len)
{
	if (len > 0) {
		memcpy(buf_reserve(b, len), data, len);
		b->len += len;
	}
}

void buf_append_str(struct buf *b, const char *s)
{
	buf_append(b, s, strlen(s));
}

void buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
	va_list again;
	int len;

	va_copy(again, ap);
	len = vsnprintf(NULL, 0, fmt, ap);
	PRE(len >= 0);
	/* One more for the NUL that vsnprintf writes. */
	buf_reserve(b, (size_t)len + 1);
	vsnprintf((char *)b->data + b->len, (size_t)len + 1, fmt, again);
	va_end(again);
	b->len += (size_t)len;
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	buf_vprintf(b, fmt, ap);
	va_end(ap);
}

void buf_u8(struct buf *b, uint8_t v)
{
	buf_append(b, &v, 1);
}

void buf_u16be(struct buf *b, uint16_t v)
{
	be_put16(buf_reserve(b, 2), v);
	b->len += 2;
}

void buf_u32be(struct buf *b, uint32_t v)
{
	be_put32(buf_reserve(b, 4), v);
	b->len += 4;
}

void buf_u64be(struct buf *b, uint64_t v)
{
	be_put64(buf_reserve(b, 8), v);
	b->len += 8;
}

void buf_consume(struct buf *b, size_t n)
{
	PRE(n <= b->len);
	if (n > 0 && n < b->len) {
		memmove(b->data, b->data + n, b->len - n);
	}
	b->len -= n;
}

void *buf_take(struct buf *b, size_t *ret_len)
{
	void *data;

	*buf_reserve(b, 1) = 0;
	data = b->data;
	if (ret_len != NULL) {
		*ret_len = b->len;
	}
	buf_init(b);
	return data;
}

const char *buf_str(struct buf *b)
{
	*buf_reserve(b, 1) = 0;
	return (const char *)b->data;
}
