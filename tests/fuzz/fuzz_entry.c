/*
 * Log entries and snapshots as they come from the disk or another lighthouse: refused, or read to the end within bounds. The
 * checksum is put right first, so that what lies behind it is reached. LIBS: cluster
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"
#include "base/mem.h"
#include "cluster/entry.h"
#include "cluster/snapshot.h"
#include "tailnet/kv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ENTRY_SUM = 48, ENTRY_SUM_LEN = 16, SNAPSHOT_HASH = 72 };

static void entry(uint8_t *d, size_t size)
{
	uint8_t hash[CRYPTO_HASH];
	struct entry_reader r;
	const uint8_t *cmd;
	size_t len, sum = 0;
	uint32_t n = 0;

	if (size >= ENTRY_HEADER) {
		size_t body = (size_t)d[40] << 24 | (size_t)d[41] << 16 | (size_t)d[42] << 8 |
			      d[43];

		memset(d + ENTRY_SUM, 0, ENTRY_SUM_LEN);
		if (body <= size - ENTRY_HEADER) {
			crypto_blake2b(hash, d, ENTRY_HEADER + body);
			memcpy(d + ENTRY_SUM, hash, ENTRY_SUM_LEN);
		}
	}
	if (entry_open(&r, d, size, NULL) != 0) {
		return;
	}
	while (entry_next(&r, &cmd, &len)) {
		for (size_t i = 0; i < len; i++) {
			sum += cmd[i];
		}
		n++;
	}
	if (n != r.header.count || sum == SIZE_MAX) {
		abort();
	}
}

static void snapshot(uint8_t *d, size_t size)
{
	uint8_t hash[CRYPTO_HASH];
	struct snapshot_header h;

	if (size >= SNAPSHOT_HEADER) {
		memset(d + SNAPSHOT_HASH, 0, CRYPTO_HASH);
		crypto_blake2b(hash, d, size);
		memcpy(d + SNAPSHOT_HASH, hash, CRYPTO_HASH);
	}
	if (snapshot_open(d, size, &h, NULL) == 0) {
		struct kv_mem *mem = kv_mem_new();
		struct kv kv = kv_mem_kv(mem);
		struct snapshot again;
		uint8_t *bytes;
		size_t len;

		/* What is accepted is loaded, and written again byte for byte. */
		if (snapshot_load(d, size, &kv, NULL) != 0 ||
		    snapshot_make(&kv, &h, NULL, &again, NULL) != 0 || again.bytes != size) {
			abort();
		}
		bytes = snapshot_join(&again, &len);
		if (len != size || memcmp(bytes, d, size) != 0) {
			abort();
		}
		mem_free(bytes);
		snapshot_done(&again);
		kv_mem_free(mem);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy;

	if (size == 0) {
		return 0;
	}
	copy = mem_memdup(data, size);
	(copy[0] == 'S' && size > 3 && copy[3] == 'Y' ? snapshot : entry)(copy, size);
	mem_free(copy);
	return 0;
}
