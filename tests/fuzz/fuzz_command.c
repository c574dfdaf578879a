/*
 * A committed entry is bytes from the log: whatever decodes strictly and is applied must leave a state that holds its
 * invariants. The input is a sequence of commands, each with a big-endian length of two bytes before it. LIBS: tailnet
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/limits.h"
#include "base/rd.h"
#include "proto/pb_decode.h"
#include "tailnet/query.h"
#include "tailnet/tailnet.h"

static void apply_one(const struct kv *kv, const void *data, size_t len, uint64_t *now)
{
	const struct pb_opts opts = {.flags = PB_STRICT_KNOWN};
	struct apply_context ctx;
	struct apply_result r;
	struct arena a;
	ProtobufCMessage *msg;

	arena_init(&a, TAILNET_ARENA_BYTES);
	if (pb_decode(&skerry__internal__v1__command__descriptor, data, len, &opts, &a, &msg,
		      NULL) == 0) {
		/* The clock runs: hours when the command is short, so that deadlines come up. */
		*now += len < 40 ? 3600000 : 50;
		ctx = (struct apply_context){.time_ms = *now, .raft_index = 1};
		if (tailnet_apply(kv, (const Command *)msg, &ctx, &a, &r, NULL) < 0 &&
		    ((const Command *)msg)->body_case != 0) {
			abort();
		}
	}
	arena_done(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kv_mem *mem = kv_mem_new();
	struct kv kv = kv_mem_kv(mem);
	uint64_t now = 1700000000000ull;
	struct err e = {0};
	struct rd rd;

	rd_init(&rd, data, size);
	while (rd_left(&rd) >= 2) {
		size_t len = rd_u16be(&rd);
		const uint8_t *p;

		if (len > rd_left(&rd)) {
			len = rd_left(&rd);
		}
		p = rd_bytes(&rd, len);
		apply_one(&kv, p, len, &now);
	}
	if (tailnet_check(&kv, &e) < 0) {
		abort();
	}
	kv_mem_free(mem);
	return 0;
}
