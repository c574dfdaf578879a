#include "base/enc.h"

#include "base/buf.h"
#include "base/err.h"

#include <string.h>

static const char hex_digits[] = "0123456789abcdef";

char *hex_encode(char *out, const void *data, size_t len)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < len; i++) {
		out[2 * i] = hex_digits[p[i] >> 4];
		out[2 * i + 1] = hex_digits[p[i] & 15];
	}
	out[2 * len] = '\0';
	return out;
}

void hex_append(struct buf *b, const void *data, size_t len)
{
	hex_encode((char *)buf_reserve(b, 2 * len + 1), data, len);
	b->len += 2 * len;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9') {
		return c - '0';
	}
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int hex_decode(const char *text, size_t len, void *out, size_t cap)
{
	uint8_t *o = out;

	if (len % 2 != 0) {
		return ERR_INVALID;
	}
	if (len / 2 > cap) {
		return ERR_LIMIT;
	}
	for (size_t i = 0; i < len; i += 2) {
		int hi = hex_value(text[i]);
		int lo = hex_value(text[i + 1]);

		if (hi < 0 || lo < 0) {
			return ERR_INVALID;
		}
		o[i / 2] = (uint8_t)(hi << 4 | lo);
	}
	return (int)(len / 2);
}

static const char base64_std[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char base64_url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void base64_put(struct buf *b, const void *data, size_t len, const char *alphabet, bool pad)
{
	const uint8_t *p = data;
	uint8_t *o = buf_reserve(b, (len + 2) / 3 * 4);
	uint8_t *start = o;
	size_t i = 0;

	for (; i + 2 < len; i += 3) {
		uint32_t v = (uint32_t)p[i] << 16 | (uint32_t)p[i + 1] << 8 | p[i + 2];

		*o++ = (uint8_t)alphabet[v >> 18];
		*o++ = (uint8_t)alphabet[v >> 12 & 63];
		*o++ = (uint8_t)alphabet[v >> 6 & 63];
		*o++ = (uint8_t)alphabet[v & 63];
	}
	if (i < len) {
		bool two = i + 1 < len;
		uint32_t v = (uint32_t)p[i] << 16 | (two ? (uint32_t)p[i + 1] << 8 : 0);

		*o++ = (uint8_t)alphabet[v >> 18];
		*o++ = (uint8_t)alphabet[v >> 12 & 63];
		if (two) {
			*o++ = (uint8_t)alphabet[v >> 6 & 63];
		} else if (pad) {
			*o++ = '=';
		}
		if (pad) {
			*o++ = '=';
		}
	}
	b->len += (size_t)(o - start);
}

void base64_append(struct buf *b, const void *data, size_t len)
{
	base64_put(b, data, len, base64_std, true);
}

void base64url_append(struct buf *b, const void *data, size_t len)
{
	base64_put(b, data, len, base64_url, false);
}

static int base64_value(char c, bool url)
{
	if (c >= 'A' && c <= 'Z') {
		return c - 'A';
	}
	if (c >= 'a' && c <= 'z') {
		return c - 'a' + 26;
	}
	if (c >= '0' && c <= '9') {
		return c - '0' + 52;
	}
	if (c == (url ? '-' : '+')) {
		return 62;
	}
	return c == (url ? '_' : '/') ? 63 : -1;
}

/* Length without padding, or -1 if the padding is wrong. */
static ptrdiff_t base64_unpadded(const char *text, size_t len)
{
	size_t pad = 0;

	while (pad < 2 && pad < len && text[len - 1 - pad] == '=') {
		pad++;
	}
	if (pad > 0 && len % 4 != 0) {
		return -1;
	}
	return (len - pad) % 4 == 1 ? -1 : (ptrdiff_t)(len - pad);
}

static int base64_get(const char *text, size_t text_len, void *out, size_t cap, bool url)
{
	ptrdiff_t len = base64_unpadded(text, text_len);
	uint8_t *o = out;
	uint32_t acc = 0;
	unsigned bits = 0;
	size_t n = 0;

	if (len < 0) {
		return ERR_INVALID;
	}
	if ((size_t)len * 3 / 4 > cap || (size_t)len > INT32_MAX) {
		return ERR_LIMIT;
	}
	for (ptrdiff_t i = 0; i < len; i++) {
		int v = base64_value(text[i], url);

		if (v < 0) {
			return ERR_INVALID;
		}
		acc = (acc << 6 | (uint32_t)v) & 0xffff;
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			o[n++] = (uint8_t)(acc >> bits);
		}
	}
	if ((acc & ((1u << bits) - 1)) != 0) {
		return ERR_INVALID;
	}
	return (int)n;
}

int base64_decode(const char *text, size_t len, void *out, size_t cap)
{
	return base64_get(text, len, out, cap, false);
}

int base64url_decode(const char *text, size_t len, void *out, size_t cap)
{
	return base64_get(text, len, out, cap, true);
}

int base64_decode_buf(const char *text, size_t len, struct buf *b)
{
	size_t cap = len / 4 * 3 + 3;
	int n = base64_get(text, len, buf_reserve(b, cap), cap, false);

	if (n < 0) {
		return n;
	}
	b->len += (size_t)n;
	return 0;
}

static const char base32_digits[] = "0123456789abcdefghjkmnpqrstvwxyz";

void base32_append(struct buf *b, const void *data, size_t len)
{
	const uint8_t *p = data;
	uint8_t *o = buf_reserve(b, BASE32_LEN(len));
	uint32_t acc = 0;
	unsigned bits = 0;

	b->len += BASE32_LEN(len);
	for (size_t i = 0; i < len; i++) {
		acc = (acc << 8 | p[i]) & 0xffff;
		bits += 8;
		while (bits >= 5) {
			bits -= 5;
			*o++ = (uint8_t)base32_digits[acc >> bits & 31];
		}
	}
	if (bits > 0) {
		*o = (uint8_t)base32_digits[acc << (5 - bits) & 31];
	}
}

static int base32_value(char c)
{
	const char *at;

	if (c >= 'A' && c <= 'Z') {
		c |= 0x20;
	}
	if (c == 'o') {
		return 0;
	}
	if (c == 'i' || c == 'l') {
		return 1;
	}
	at = c != '\0' ? strchr(base32_digits, c) : NULL;
	return at != NULL ? (int)(at - base32_digits) : -1;
}

size_t base32_bad_char(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (base32_value(text[i]) < 0) {
			return i;
		}
	}
	return len;
}

int base32_decode(const char *text, size_t len, void *out, size_t cap)
{
	uint8_t *o = out;
	uint32_t acc = 0;
	unsigned bits = 0;
	size_t n = 0;

	/* Lengths that no number of bytes gives. */
	if (len % 8 == 1 || len % 8 == 3 || len % 8 == 6) {
		return ERR_INVALID;
	}
	if (len > INT32_MAX || len * 5 / 8 > cap) {
		return ERR_LIMIT;
	}
	for (size_t i = 0; i < len; i++) {
		int v = base32_value(text[i]);

		if (v < 0) {
			return ERR_INVALID;
		}
		acc = (acc << 5 | (uint32_t)v) & 0xffff;
		bits += 5;
		if (bits >= 8) {
			bits -= 8;
			o[n++] = (uint8_t)(acc >> bits);
		}
	}
	if ((acc & ((1u << bits) - 1)) != 0) {
		return ERR_INVALID;
	}
	return (int)n;
}

void percent_append(struct buf *b, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		uint8_t c = (uint8_t)text[i];

		if (c >= 0x20 && c <= 0x7e && c != '%') {
			buf_u8(b, c);
		} else {
			buf_printf(b, "%%%02X", c);
		}
	}
}

void percent_decode(struct buf *b, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (text[i] == '%' && len - i > 2 && hex_value(text[i + 1]) >= 0 &&
		    hex_value(text[i + 2]) >= 0) {
			buf_u8(b, (uint8_t)(hex_value(text[i + 1]) << 4 | hex_value(text[i + 2])));
			i += 2;
		} else {
			buf_u8(b, (uint8_t)text[i]);
		}
	}
}
