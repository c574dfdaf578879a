/* The check before decoding, and the decoder behind it: what passes the check must unpack within the budget or be
 * refused, and come out again with the same meaning. The first two bytes choose the type, among all there are.
 * LIBS: proto */
#include <stdlib.h>
#include <string.h>

#include "proto/json_map.h"
#include "proto/pb_decode.h"
#include "proto/pb_util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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

	if (size < 2)
		return 0;
	desc = proto_message_at((size_t)(data[0] << 8 | data[1]) % proto_message_count())->desc;
	data += 2;
	size -= 2;
	checked = pb_check(desc, data, size, NULL, &stats, &err);
	if (checked < 0 && !err.msg[0])
		abort();
	if (pb_check(desc, data, size, &strict, NULL, NULL) == 0 && checked < 0)
		abort();
	arena_init(&arena, pb_arena_budget(size));
	rv = pb_decode(desc, data, size, NULL, &arena, &msg, &err);
	/* what the check lets through is well-formed for protobuf-c; only descriptors have required fields */
	if (checked < 0 ? rv != checked
			: rv && rv != ERR_LIMIT && strncmp(desc->name, "google.protobuf.", 16))
		abort();
	if (!rv) {
		pb_pack(msg, &packed);
		if (pb_decode_heap(desc, packed.data, packed.len, NULL, &again, &err) == 0 &&
		    !pb_equal(msg, again))
			abort();
		pb_free(again);
	}
	buf_done(&packed);
	arena_done(&arena);
	return 0;
}
