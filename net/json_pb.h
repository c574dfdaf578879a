/* Messages as JSON and back, after protobuf's canonical JSON form, driven by the descriptors. */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/macros.h"

enum json_pb_flags {
	/* Write fields that have their default value, too (messages and oneofs that are not set stay out). */
	JSON_PB_DEFAULTS = 1 << 0,
	/* Names as in the .proto file instead of lowerCamelCase. */
	JSON_PB_PROTO_NAMES = 1 << 1,
	/* Indent by two spaces. */
	JSON_PB_PRETTY = 1 << 2,
	/* Reading: pass over unknown fields and enum names instead of refusing them. */
	JSON_PB_IGNORE_UNKNOWN = 1 << 3,
};

/*
 * Appends a message (any generated struct) as JSON. lowerCamelCase names, 64-bit integers as strings, bytes as base64,
 * enums by name (by number if unknown), Timestamp, Duration, FieldMask, Any and map<> in their own forms; unknown
 * fields are left out. An Any of a type that is not in this tree gets {"@type": …, "value": base64}. Cannot fail;
 * times outside their range are clamped. No newline at the end.
 */
void json_pb_write(const void *msg, unsigned flags, struct buf *out);

/*
 * Reads a message of type `desc` from JSON text into `arena` (see proto/pb_decode.h: it lives until the arena is reset; its
 * strings are copied). Accepts lowerCamelCase and .proto names, numbers as strings and back, enums by name and number,
 * null as "not set". Refuses unknown fields (unless JSON_PB_IGNORE_UNKNOWN), duplicate ones (two names of one field,
 * two members of one oneof), NUL in text, more than LIM_JSON_DEPTH levels, over LIM_PB_FIELDS elements.
 *
 * 0; ERR_INVALID with the place in err->field: "nodes[3].tags[0]" where a value is wrong, "json:LINE:COLUMN" where
 * the text is no JSON; ERR_LIMIT over a limit or the arena's budget. *ret_msg is then untouched.
 */
int MUST_CHECK json_pb_read(const ProtobufCMessageDescriptor *desc, const char *text, size_t len,
			    unsigned flags, struct arena *arena, ProtobufCMessage **ret_msg,
			    struct err *err);

/* An arena budget that is enough for any acceptable JSON text of `len` bytes. */
size_t json_pb_budget(size_t len);
