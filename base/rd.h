/* A read cursor over bytes with a sticky error: read many times, check rd_ok once. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Embedded, no cleanup. Borrows the bytes. After the first read past the end every read gives 0
 * (or NULL) and rd_ok is false. */
struct rd {
	const uint8_t *pos;
	const uint8_t *end;
	bool failed;
};

void rd_init(struct rd *r, const void *data, size_t len);
uint8_t rd_u8(struct rd *r);
uint16_t rd_u16be(struct rd *r);
uint32_t rd_u32be(struct rd *r);
uint64_t rd_u64be(struct rd *r);
/* n bytes in place (borrowed), or NULL; NULL never for n = 0 unless the cursor has failed. */
const uint8_t *rd_bytes(struct rd *r, size_t n);
/* Copies n bytes to out; zeroes out on failure. */
void rd_copy(struct rd *r, void *out, size_t n);
void rd_skip(struct rd *r, size_t n);
/* Marks the cursor as failed, for a value that was read but cannot be. */
void rd_fail(struct rd *r);
size_t rd_left(const struct rd *r);
bool rd_ok(const struct rd *r);
/* No read failed and nothing is left. */
bool rd_ok_end(const struct rd *r);
