#include "proto/pb_decode.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/limits.h"
#include "base/metrics.h"

enum {
	BUDGET_PER_BYTE = 8,
	BUDGET_PER_ELEMENT =
		64, /* protobuf-c notes down each element it scanned, in tables that double */
	BUDGET_BASE = 64 << 10,
};

/* The allocator of one unpack. Freed memory is not given back to the budget: what counts is the work as well. */
struct budget {
	ProtobufCAllocator allocator;
	struct arena *arena; /* NULL: the heap */
	size_t left;
	bool exceeded;
};

static void *budget_alloc(void *arg, size_t size)
{
	struct budget *b = arg;
	void *ptr = NULL;

	if (size <= b->left) {
		b->left -= size;
		ptr = b->arena ? arena_alloc(b->arena, size) : malloc(size);
	}
	if (!ptr)
		b->exceeded = true;
	return ptr;
}

static void budget_free(void *arg, void *ptr)
{
	const struct budget *b = arg;

	if (!b->arena)
		free(ptr);
}

size_t pb_decode_budget(size_t len, uint32_t elements)
{
	return len * BUDGET_PER_BYTE + (size_t)elements * BUDGET_PER_ELEMENT + BUDGET_BASE;
}

size_t pb_arena_budget(size_t len)
{
	/* Each element takes two bytes at least (one in a packed list). */
	return 2 * pb_decode_budget(len, (uint32_t)MIN(len, (size_t)LIM_PB_FIELDS));
}

static int decode(const ProtobufCMessageDescriptor *desc, const void *data, size_t len,
		  const struct pb_opts *opts, struct arena *arena, ProtobufCMessage **ret_msg,
		  struct err *err)
{
	struct budget b = {.arena = arena};
	struct pb_stats stats;
	ProtobufCMessage *msg;
	int rv;

	rv = pb_check(desc, data, len, opts, &stats, err);
	if (rv < 0) {
		METRICS_COUNT("skerry_messages_refused_total",
			      "Messages refused before or while decoding.", 1);
		return rv;
	}
	b.allocator = (ProtobufCAllocator){budget_alloc, budget_free, &b};
	b.left = pb_decode_budget(len, stats.elements);
	msg = protobuf_c_message_unpack(desc, &b.allocator, len, data);
	if (!msg)
		METRICS_COUNT("skerry_messages_refused_total",
			      "Messages refused before or while decoding.", 1);
	if (!msg && b.exceeded)
		return err_set(err, ERR_LIMIT,
			       "%s: %zu bytes with %u fields would take too much memory",
			       desc->name, len, stats.elements);
	if (!msg)
		return err_set(err, ERR_INVALID, "%s: malformed", desc->name);
	*ret_msg = msg;
	return 0;
}

int pb_decode(const ProtobufCMessageDescriptor *desc, const void *data, size_t len,
	      const struct pb_opts *opts, struct arena *arena, ProtobufCMessage **ret_msg,
	      struct err *err)
{
	PRE(arena);
	return decode(desc, data, len, opts, arena, ret_msg, err);
}

int pb_decode_heap(const ProtobufCMessageDescriptor *desc, const void *data, size_t len,
		   const struct pb_opts *opts, ProtobufCMessage **ret_msg, struct err *err)
{
	return decode(desc, data, len, opts, NULL, ret_msg, err);
}

void pb_free(void *msg)
{
	protobuf_c_message_free_unpacked(msg, NULL);
}
