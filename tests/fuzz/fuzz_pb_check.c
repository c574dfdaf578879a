/* The check before decoding, and the decoder behind it: what passes the check must unpack within the budget or be
 * refused, and come out again with the same meaning. The first byte chooses the type among those that come from outside.
 * LIBS: proto */
#include <stdlib.h>
#include <string.h>

#include "proto/json_map.h"
#include "proto/methods.h"
#include "proto/pb_decode.h"
#include "proto/pb_util.h"
#include "skerry/internal/v1/command.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const ProtobufCMessageDescriptor *choose(uint8_t n)
{
	size_t methods = proto_method_count();

	if (n == 0xff)
		return &skerry__internal__v1__command__descriptor;
	if (n >= 0x80) /* any type, recursive ones included */
		return proto_message_at((size_t)(n - 0x80) * proto_message_count() / 0x7f)->desc;
	return n % 2 ? proto_method_at(n / 2 % methods)->input : proto_method_at(n / 2 % methods)->output;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pb_opts strict = {.flags = PB_STRICT_KNOWN};
	const ProtobufCMessageDescriptor *desc;
	ProtobufCMessage *msg = NULL, *again = NULL;
	struct buf packed = BUF_INIT;
	struct pb_stats stats;
	struct err err = {0};
	struct arena arena;
	int checked, rv;

	if (!size)
		return 0;
	desc = choose(data[0]);
	data++;
	size--;
	checked = pb_check(desc, data, size, NULL, &stats, &err);
	if (checked < 0 && !err.msg[0])
		abort();
	if (pb_check(desc, data, size, &strict, NULL, NULL) == 0 && checked < 0)
		abort();
	arena_init(&arena, pb_arena_budget(size));
	rv = pb_decode(desc, data, size, NULL, &arena, &msg, &err);
	/* what the check lets through is well-formed for protobuf-c; only descriptors have required fields */
	if (checked < 0 ? rv != checked : rv && rv != ERR_LIMIT && strncmp(desc->name, "google.protobuf.", 16))
		abort();
	if (!rv) {
		pb_pack(msg, &packed);
		if (pb_decode_heap(desc, packed.data, packed.len, NULL, &again, &err) == 0 && !pb_equal(msg, again))
			abort();
		pb_free(again);
	}
	buf_done(&packed);
	arena_done(&arena);
	return 0;
}
