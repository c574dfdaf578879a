/* Text encodings: hex, base64, base32, percent; and big-endian integers in place. */
#pragma once

#include "base/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;

/* All decoders are strict: they return the number of bytes written (>= 0), ERR_INVALID for a bad
 * character, length or non-zero spare bits, or ERR_LIMIT if it does not fit into cap bytes. What
 * out holds after an error is undefined. */

/* Lower case. */
void hex_append(struct buf *b, const void *data, size_t len);
/* Writes 2 * len characters and a NUL; returns out. */
char *hex_encode(char *out, const void *data, size_t len);
/* Either case. */
int hex_decode(const char *text, size_t len, void *out, size_t cap) MUST_CHECK;

/* RFC 4648 base64. */
void base64_append(struct buf *b, const void *data, size_t len);
/* The URL alphabet, unpadded. */
void base64url_append(struct buf *b, const void *data, size_t len);
/* Padded or not; standard alphabet. */
int base64_decode(const char *text, size_t len, void *out, size_t cap) MUST_CHECK;
/* Padded or not; URL alphabet. */
int base64url_decode(const char *text, size_t len, void *out, size_t cap) MUST_CHECK;
/* As base64_decode, appending to b. Returns 0 or ERR_INVALID (b unchanged then). */
int base64_decode_buf(const char *text, size_t len, struct buf *b) MUST_CHECK;

/* Crockford's base32, lower case, most significant bit first, unpadded: no i, l, o, u. For keys
 * and codes that people read aloud. */
#define BASE32_LEN(bytes) (((bytes)*8 + 4) / 5)
void base32_append(struct buf *b, const void *data, size_t len);
/* Accepts upper case, and o for 0, i and l for 1. */
int base32_decode(const char *text, size_t len, void *out, size_t cap) MUST_CHECK;
/* Position of the first character that is not in the alphabet, or len. */
size_t base32_bad_char(const char *text, size_t len);

/* grpc-message: bytes outside 0x20..0x7e and '%' become %XX. */
void percent_append(struct buf *b, const char *text, size_t len);
/* Lenient as the gRPC specification asks: a broken escape stays as it is. */
void percent_decode(struct buf *b, const char *text, size_t len);

static inline uint16_t be_get16(const void *p)
{
	const uint8_t *b = p;

	return (uint16_t)((b[0] << 8) | b[1]);
}

static inline uint32_t be_get32(const void *p)
{
	const uint8_t *b = p;

	return ((uint32_t)b[0] << 24) | ((uint32_t)b[1] << 16) | ((uint32_t)b[2] << 8) | b[3];
}

static inline uint64_t be_get64(const void *p)
{
	const uint8_t *b = p;

	return ((uint64_t)be_get32(b) << 32) | be_get32(b + 4);
}

static inline void be_put16(void *p, uint16_t v)
{
	uint8_t *b = p;

	b[0] = (uint8_t)(v >> 8);
	b[1] = (uint8_t)v;
}

static inline void be_put32(void *p, uint32_t v)
{
	uint8_t *b = p;

	be_put16(b, (uint16_t)(v >> 16));
	be_put16(b + 2, (uint16_t)v);
}

static inline void be_put64(void *p, uint64_t v)
{
	uint8_t *b = p;

	be_put32(b, (uint32_t)(v >> 32));
	be_put32(b + 4, (uint32_t)v);
}

static inline uint64_t le_get64(const void *p)
{
	return __builtin_bswap64(be_get64(p));
}

static inline void le_put64(void *p, uint64_t v)
{
	be_put64(p, __builtin_bswap64(v));
}
