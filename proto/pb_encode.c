#include "proto/pb_encode.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/limits.h"
#include "proto/pb_util.h"

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

/* What is written lies at `at` and above. */
struct out {
	uint8_t *begin, *at;
	bool full;
};

/* Room for n bytes before what is there; NULL: there is none. */
static inline uint8_t *room(struct out *o, size_t n)
{
	if (n > (size_t)(o->at - o->begin)) {
		o->full = true;
		return NULL;
	}
	return o->at -= n;
}

static void put_bytes(struct out *o, const void *data, size_t len)
{
	uint8_t *at = room(o, len);

	if (at != NULL && len > 0) {
		memcpy(at, data, len);
	}
}

static inline void put_varint(struct out *o, uint64_t v)
{
	uint8_t *at;
	size_t n;

	if (v < 0x80 && o->at > o->begin) {
		*--o->at = (uint8_t)v;
		return;
	}
	/* Seven bits to a byte, rounded up. */
	n = v == 0 ? 1 : (size_t)(70 - __builtin_clzll(v)) / 7;
	at = room(o, n);
	if (at == NULL) {
		return;
	}
	for (; v >= 0x80; v >>= 7) {
		*at++ = (uint8_t)(v | 0x80);
	}
	*at = (uint8_t)v;
}

static inline void put_tag(struct out *o, const ProtobufCFieldDescriptor *f, enum wire wire)
{
	put_varint(o, (uint64_t)f->id << 3 | wire);
}

static void put_message(struct out *o, const ProtobufCMessage *m, unsigned depth);

/* A value without its tag; returns its wire type. */
static enum wire put_value(struct out *o, const ProtobufCFieldDescriptor *f, const void *value,
			   unsigned depth)
{
	const uint8_t *end = o->at;

	switch (f->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_ENUM:
		put_varint(o, (uint64_t)(int64_t) * (const int32_t *)value);
		return WIRE_VARINT;
	case PROTOBUF_C_TYPE_UINT32: put_varint(o, *(const uint32_t *)value); return WIRE_VARINT;
	case PROTOBUF_C_TYPE_SINT32: {
		int32_t v = *(const int32_t *)value;

		put_varint(o, (uint32_t)v << 1 ^ (uint32_t)(v >> 31));
		return WIRE_VARINT;
	}
	case PROTOBUF_C_TYPE_SINT64: {
		int64_t v = *(const int64_t *)value;

		put_varint(o, (uint64_t)v << 1 ^ (uint64_t)(v >> 63));
		return WIRE_VARINT;
	}
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_UINT64: put_varint(o, *(const uint64_t *)value); return WIRE_VARINT;
	case PROTOBUF_C_TYPE_BOOL:
		put_varint(o, *(const protobuf_c_boolean *)value ? 1 : 0);
		return WIRE_VARINT;
	case PROTOBUF_C_TYPE_SFIXED32:
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_FLOAT: put_bytes(o, value, 4); return WIRE_32;
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_DOUBLE: put_bytes(o, value, 8); return WIRE_64;
	case PROTOBUF_C_TYPE_STRING: {
		const char *s = *(const char *const *)value;

		put_bytes(o, s, s != NULL ? strlen(s) : 0);
		break;
	}
	case PROTOBUF_C_TYPE_BYTES: {
		const ProtobufCBinaryData *b = value;

		put_bytes(o, b->data, b->len);
		break;
	}
	case PROTOBUF_C_TYPE_MESSAGE: {
		const ProtobufCMessage *m = *(const ProtobufCMessage *const *)value;

		if (m != NULL) {
			put_message(o, m, depth + 1);
		}
		break;
	}
	}
	put_varint(o, (uint64_t)(end - o->at));
	return WIRE_BYTES;
}

static void put_repeated(struct out *o, const ProtobufCFieldDescriptor *f, const uint8_t *base,
			 unsigned depth)
{
	size_t n = *(const size_t *)(base + f->quantifier_offset), size = pb_element_size(f->type);
	const uint8_t *elements = *(const uint8_t *const *)(base + f->offset);
	const uint8_t *end = o->at;

	if (n == 0) {
		return;
	}
	while (n-- > 0 && !o->full) {
		enum wire wire = put_value(o, f, elements + n * size, depth);

		if ((f->flags & PROTOBUF_C_FIELD_FLAG_PACKED) == 0) {
			put_tag(o, f, wire);
		}
	}
	if ((f->flags & PROTOBUF_C_FIELD_FLAG_PACKED) != 0) {
		put_varint(o, (uint64_t)(end - o->at));
		put_tag(o, f, WIRE_BYTES);
	}
}

/* Whether it stands on the wire. */
static bool is_set(const ProtobufCFieldDescriptor *f, const uint8_t *base)
{
	const void *value = base + f->offset;
	bool pointer = f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_MESSAGE;
	const char *at = pointer ? *(const char *const *)value : NULL;

	if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
		return *(const uint32_t *)(base + f->quantifier_offset) == f->id &&
		       (!pointer || (at != NULL && at != f->default_value));
	}
	if (f->label == PROTOBUF_C_LABEL_OPTIONAL) {
		return pointer ? at != NULL && at != f->default_value
			       : *(const protobuf_c_boolean *)(base + f->quantifier_offset) != 0;
	}
	if (f->label == PROTOBUF_C_LABEL_REQUIRED) {
		return true;
	}
	switch (f->type) {
	case PROTOBUF_C_TYPE_STRING: return at != NULL && *at != '\0';
	case PROTOBUF_C_TYPE_MESSAGE: return at != NULL;
	case PROTOBUF_C_TYPE_BYTES: return ((const ProtobufCBinaryData *)value)->len > 0;
	case PROTOBUF_C_TYPE_BOOL: return *(const protobuf_c_boolean *)value != 0;
	case PROTOBUF_C_TYPE_FLOAT: return *(const float *)value != 0;
	case PROTOBUF_C_TYPE_DOUBLE: return *(const double *)value != 0;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_FIXED64: return *(const uint64_t *)value != 0;
	default: return *(const uint32_t *)value != 0;
	}
}

/* The field as most are, singular and not there if it is 0 or empty; false: it is another. */
static inline bool put_plain(struct out *o, const ProtobufCFieldDescriptor *f, const void *value)
{
	uint64_t number;

	if (f->label != PROTOBUF_C_LABEL_NONE || (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
		return false;
	}
	switch (f->type) {
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_UINT64: number = *(const uint64_t *)value; break;
	case PROTOBUF_C_TYPE_UINT32: number = *(const uint32_t *)value; break;
	case PROTOBUF_C_TYPE_BOOL: number = *(const protobuf_c_boolean *)value != 0; break;
	case PROTOBUF_C_TYPE_STRING: {
		const char *s = *(const char *const *)value;
		size_t len = s != NULL ? strlen(s) : 0;

		if (len > 0) {
			put_bytes(o, s, len);
			put_varint(o, len);
			put_tag(o, f, WIRE_BYTES);
		}
		return true;
	}
	default: return false;
	}
	if (number != 0) {
		put_varint(o, number);
		put_tag(o, f, WIRE_VARINT);
	}
	return true;
}

static void put_message(struct out *o, const ProtobufCMessage *m, unsigned depth)
{
	const ProtobufCMessageDescriptor *desc = m->descriptor;
	const uint8_t *base = (const uint8_t *)m;

	PRE(depth <= LIM_PB_DEPTH);
	for (unsigned i = m->n_unknown_fields; i-- > 0;) {
		const ProtobufCMessageUnknownField *u = &m->unknown_fields[i];

		put_bytes(o, u->data, u->len);
		put_varint(o, (uint64_t)u->tag << 3 | u->wire_type);
	}
	for (unsigned i = desc->n_fields; i-- > 0 && !o->full;) {
		const ProtobufCFieldDescriptor *f = &desc->fields[i];

		if (put_plain(o, f, base + f->offset)) {
			continue;
		}
		if (f->label == PROTOBUF_C_LABEL_REPEATED) {
			put_repeated(o, f, base, depth);
		} else if (is_set(f, base)) {
			put_tag(o, f, put_value(o, f, base + f->offset, depth));
		}
	}
}

size_t pb_encode(const void *msg, void *buf, size_t size)
{
	struct out o = {.begin = buf, .at = (uint8_t *)buf + size};

	put_message(&o, msg, 1);
	return o.full ? PB_ENCODE_FULL : (size_t)((uint8_t *)buf + size - o.at);
}
