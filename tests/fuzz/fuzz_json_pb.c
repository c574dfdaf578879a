/* JSON to messages: what is read is written again, and the second reading gives the same message. The first byte chooses
 * the type.
 * LIBS: net */
#include <stdlib.h>
#include <string.h>

#include "net/json_pb.h"
#include "proto/json_map.h"
#include "proto/pb_util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const ProtobufCMessageDescriptor *desc;
	ProtobufCMessage *msg = NULL, *again = NULL;
	struct buf text = BUF_INIT;
	struct err err = {0};
	struct arena arena;

	if (!size)
		return 0;
	desc = proto_message_at((size_t)data[0] * proto_message_count() / 256)->desc;
	data++;
	size--;
	arena_init(&arena, json_pb_budget(size));
	if (json_pb_read(desc, (const char *)data, size, size % 2 ? JSON_PB_IGNORE_UNKNOWN : 0,
			 &arena, &msg, &err) == 0) {
		struct arena second;

		json_pb_write(
			msg, size % 3 ? 0 : JSON_PB_DEFAULTS | JSON_PB_PROTO_NAMES | JSON_PB_PRETTY,
			&text);
		arena_init(&second, SIZE_MAX / 2);
		if (json_pb_read(desc, buf_str(&text), text.len, 0, &second, &again, &err) < 0 ||
		    !pb_equal(msg, again))
			abort();
		arena_done(&second);
		buf_done(&text);
	} else if (!err.msg[0]) {
		abort();
	}
	arena_done(&arena);
	return 0;
}
