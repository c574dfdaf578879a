#include "base/utf8.h"

#include <stdint.h>
#include <string.h>

/* One bit of each of eight bytes that are looked at together. */
#define EACH(byte) (0x0101010101010101u * (uint64_t)(byte))

static uint64_t load8(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* Not 0: one of the bytes is below n (at most 0x80); exact as a whole, not for which one. */
static uint64_t any_below(uint64_t v, unsigned n)
{
	return (v - EACH(n)) & ~v & EACH(0x80);
}

/* Bytes of the character at p, or 0 if it is malformed. RFC 3629, table of section 4. */
static size_t utf8_char(const uint8_t *p, size_t left)
{
	uint8_t low = 0x80;
	uint8_t high = 0xbf;
	size_t n;

	if (p[0] < 0x80) {
		return 1;
	}
	if (p[0] >= 0xc2 && p[0] <= 0xdf) {
		n = 2;
	} else if (p[0] >= 0xe0 && p[0] <= 0xef) {
		n = 3;
		low = p[0] == 0xe0 ? 0xa0 : low;
		high = p[0] == 0xed ? 0x9f : high;
	} else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
		n = 4;
		low = p[0] == 0xf0 ? 0x90 : low;
		high = p[0] == 0xf4 ? 0x8f : high;
	} else {
		return 0;
	}
	if (left < n || p[1] < low || p[1] > high) {
		return 0;
	}
	for (size_t i = 2; i < n; i++) {
		if (p[i] < 0x80 || p[i] > 0xbf) {
			return 0;
		}
	}
	return n;
}

size_t utf8_valid_prefix(const void *data, size_t len, bool refuse_nul)
{
	const uint8_t *p = data;
	size_t i = 0;

	while (i < len) {
		size_t n;

		if (len - i >= 8) {
			uint64_t v = load8(p + i);

			if ((v & EACH(0x80)) == 0 && !(refuse_nul && any_below(v, 1))) {
				i += 8;
				continue;
			}
		}
		n = utf8_char(p + i, len - i);
		if (n == 0 || (refuse_nul && p[i] == 0)) {
			break;
		}
		i += n;
	}
	return i;
}

bool utf8_valid(const void *data, size_t len, bool refuse_nul)
{
	return utf8_valid_prefix(data, len, refuse_nul) == len;
}

size_t utf8_cut(const char *text, size_t len, size_t max)
{
	if (len <= max) {
		return len;
	}
	while (max > 0 && ((uint8_t)text[max] & 0xc0) == 0x80) {
		max--;
	}
	return max;
}

size_t utf8_find_control(const void *data, size_t len)
{
	const uint8_t *p = data;
	size_t i = 0;

	for (; len - i >= 8; i += 8) {
		uint64_t v = load8(p + i);

		if (any_below(v, 0x20) | any_below(v ^ EACH(0x7f), 1)) {
			break;
		}
	}
	while (i < len && p[i] >= 0x20 && p[i] != 0x7f) {
		i++;
	}
	return i;
}
