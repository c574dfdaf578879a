#include "base/rd.h"

#include "base/enc.h"

#include <string.h>

void rd_init(struct rd *r, const void *data, size_t len)
{
	/* An address that is never read stands for "no bytes". */
	static const uint8_t none;

	r->pos = data != NULL ? data : &none;
	r->end = r->pos + len;
	r->failed = false;
}

const uint8_t *rd_bytes(struct rd *r, size_t n)
{
	const uint8_t *p = r->pos;

	if (r->failed || n > (size_t)(r->end - r->pos)) {
		r->failed = true;
		return NULL;
	}
	r->pos += n;
	return p;
}

uint8_t rd_u8(struct rd *r)
{
	const uint8_t *p = rd_bytes(r, 1);

	return p != NULL ? *p : 0;
}

uint16_t rd_u16be(struct rd *r)
{
	const uint8_t *p = rd_bytes(r, 2);

	return p != NULL ? be_get16(p) : 0;
}

uint32_t rd_u32be(struct rd *r)
{
	const uint8_t *p = rd_bytes(r, 4);

	return p != NULL ? be_get32(p) : 0;
}

uint64_t rd_u64be(struct rd *r)
{
	const uint8_t *p = rd_bytes(r, 8);

	return p != NULL ? be_get64(p) : 0;
}

void rd_copy(struct rd *r, void *out, size_t n)
{
	const uint8_t *p = rd_bytes(r, n);

	if (n == 0) {
		return;
	}
	if (p != NULL) {
		memcpy(out, p, n);
	} else {
		memset(out, 0, n);
	}
}

void rd_skip(struct rd *r, size_t n)
{
	rd_bytes(r, n);
}

void rd_fail(struct rd *r)
{
	r->failed = true;
}

size_t rd_left(const struct rd *r)
{
	return r->failed ? 0 : (size_t)(r->end - r->pos);
}

bool rd_ok(const struct rd *r)
{
	return !r->failed;
}

bool rd_ok_end(const struct rd *r)
{
	return !r->failed && r->pos == r->end;
}
