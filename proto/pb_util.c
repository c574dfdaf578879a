#include "proto/pb_util.h"

#include <string.h>

#include "base/mem.h"

enum { WIRE_BYTES = 2, NANOS_PER_MS = 1000000 };

#define TIMESTAMP_MIN INT64_C(-62135596800) /* 0001-01-01 */
#define TIMESTAMP_MAX INT64_C(253402300799) /* 9999-12-31 23:59:59 */
#define DURATION_MAX  INT64_C(315576000000) /* 10,000 years of 365.25 days */

void pb_pack(const void *msg, struct buf *out)
{
	size_t len = protobuf_c_message_get_packed_size(msg);

	POST(protobuf_c_message_pack(msg, buf_reserve(out, len)) == len);
	out->len += len;
}

struct blob *pb_pack_blob(const void *msg)
{
	struct buf b = BUF_INIT;

	pb_pack(msg, &b);
	return blob_take(&b);
}

static void append_varint(uint64_t v, struct buf *out)
{
	for (; v >= 0x80; v >>= 7)
		buf_u8(out, (uint8_t)(v | 0x80));
	buf_u8(out, (uint8_t)v);
}

void pb_pack_prefix(uint32_t field, size_t len, struct buf *out)
{
	append_varint((uint64_t)field << 3 | WIRE_BYTES, out);
	append_varint(len, out);
}

void pb_pack_field(uint32_t field, const void *msg, struct buf *out)
{
	pb_pack_prefix(field, protobuf_c_message_get_packed_size(msg), out);
	pb_pack(msg, out);
}

/* Of numbers and strings alone: its copy needs no wire form between. */
static bool is_flat(const ProtobufCMessage *m)
{
	for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];

		if (f->label == PROTOBUF_C_LABEL_REPEATED || f->type == PROTOBUF_C_TYPE_MESSAGE ||
		    f->type == PROTOBUF_C_TYPE_BYTES || (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF))
			return false;
	}
	return m->n_unknown_fields == 0;
}

static void *copy_flat(const ProtobufCMessage *m)
{
	const ProtobufCMessageDescriptor *d = m->descriptor;
	uint8_t *copy = mem_memdup(m, d->sizeof_message);

	((ProtobufCMessage *)copy)->unknown_fields = NULL;
	for (unsigned i = 0; i < d->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &d->fields[i];
		char **text = (char **)(copy + f->offset);

		if (f->type != PROTOBUF_C_TYPE_STRING || !*text)
			continue;
		/* The default is not freed with the message. */
		*text = **text || !f->default_value ? mem_strdup(*text) : (char *)f->default_value;
	}
	return copy;
}

void *pb_copy(const void *msg)
{
	struct buf b = BUF_INIT;
	ProtobufCMessage *copy;

	if (is_flat(msg))
		return copy_flat(msg);
	pb_pack(msg, &b);
	copy = protobuf_c_message_unpack(((const ProtobufCMessage *)msg)->descriptor, NULL, b.len,
					 b.data);
	buf_done(&b);
	POST(copy);
	return copy;
}

bool pb_equal(const void *a, const void *b)
{
	struct buf x = BUF_INIT, y = BUF_INIT;
	bool equal;

	if (((const ProtobufCMessage *)a)->descriptor != ((const ProtobufCMessage *)b)->descriptor)
		return false;
	pb_pack(a, &x);
	pb_pack(b, &y);
	equal = x.len == y.len && (!x.len || !memcmp(x.data, y.data, x.len));
	buf_done(&x);
	buf_done(&y);
	return equal;
}

Google__Protobuf__Timestamp *pb_timestamp_set(Google__Protobuf__Timestamp *ret, int64_t ms)
{
	int64_t rest = ms % 1000;

	google__protobuf__timestamp__init(ret);
	/* nanos count forward in time, before 1970 as well */
	ret->seconds = ms / 1000 - (rest < 0);
	ret->nanos = (int32_t)(rest + (rest < 0 ? 1000 : 0)) * NANOS_PER_MS;
	if (ret->seconds < TIMESTAMP_MIN) {
		ret->seconds = TIMESTAMP_MIN;
		ret->nanos = 0;
	} else if (ret->seconds > TIMESTAMP_MAX) {
		ret->seconds = TIMESTAMP_MAX;
		ret->nanos = 999 * NANOS_PER_MS;
	}
	return ret;
}

int64_t pb_timestamp_ms(const Google__Protobuf__Timestamp *ts)
{
	if (!ts)
		return 0;
	if (ts->seconds < TIMESTAMP_MIN)
		return TIMESTAMP_MIN * 1000;
	if (ts->seconds > TIMESTAMP_MAX)
		return TIMESTAMP_MAX * 1000 + 999;
	return ts->seconds * 1000 + MAX(MIN(ts->nanos, 999999999), 0) / NANOS_PER_MS;
}

Google__Protobuf__Duration *pb_duration_set(Google__Protobuf__Duration *ret, int64_t ms)
{
	google__protobuf__duration__init(ret);
	ms = MAX(MIN(ms, DURATION_MAX * 1000), -DURATION_MAX * 1000);
	ret->seconds = ms / 1000;
	ret->nanos = (int32_t)(ms % 1000) * NANOS_PER_MS;
	return ret;
}

int64_t pb_duration_ms(const Google__Protobuf__Duration *d)
{
	if (!d)
		return 0;
	if (d->seconds >= DURATION_MAX)
		return DURATION_MAX * 1000;
	if (d->seconds <= -DURATION_MAX)
		return -DURATION_MAX * 1000;
	return d->seconds * 1000 + MAX(MIN(d->nanos, 999999999), -999999999) / NANOS_PER_MS;
}

int pb_timestamp_check(const Google__Protobuf__Timestamp *ts, const char *field, struct err *err)
{
	if (!ts || (ts->seconds >= TIMESTAMP_MIN && ts->seconds <= TIMESTAMP_MAX &&
		    ts->nanos >= 0 && ts->nanos <= 999999999))
		return 0;
	return err_field(err, ERR_INVALID, field, "%s: not a time between the years 1 and 9999",
			 field);
}

int pb_duration_check(const Google__Protobuf__Duration *d, const char *field, struct err *err)
{
	bool mixed;

	if (!d)
		return 0;
	mixed = (d->seconds > 0 && d->nanos < 0) || (d->seconds < 0 && d->nanos > 0);
	if (!mixed && d->seconds >= -DURATION_MAX && d->seconds <= DURATION_MAX &&
	    d->nanos >= -999999999 && d->nanos <= 999999999)
		return 0;
	return err_field(err, ERR_INVALID, field, "%s: not a duration within 10,000 years", field);
}

bool pb_mask_contains(const Google__Protobuf__FieldMask *mask, const char *path)
{
	for (size_t i = 0; mask && i < mask->n_paths; i++) {
		const char *have = mask->paths[i];
		size_t len = strlen(have);

		if (!strcmp(have, "*"))
			return true;
		if (len && !strncmp(have, path, len) && (!path[len] || path[len] == '.'))
			return true;
	}
	return false;
}

static bool path_leads(const char *path, const ProtobufCMessageDescriptor *desc)
{
	for (;;) {
		size_t len = strcspn(path, ".");
		const ProtobufCFieldDescriptor *field = NULL;

		for (unsigned i = 0; desc && i < desc->n_fields && !field; i++) {
			if (!strncmp(desc->fields[i].name, path, len) && !desc->fields[i].name[len])
				field = &desc->fields[i];
		}
		if (!len || !field)
			return false;
		if (!path[len])
			return true;
		desc = field->type == PROTOBUF_C_TYPE_MESSAGE &&
				       field->label != PROTOBUF_C_LABEL_REPEATED
			       ? field->descriptor
			       : NULL;
		path += len + 1;
	}
}

int pb_mask_check(const Google__Protobuf__FieldMask *mask, const ProtobufCMessageDescriptor *desc,
		  struct err *err)
{
	for (size_t i = 0; mask && i < mask->n_paths; i++) {
		if (strcmp(mask->paths[i], "*") && !path_leads(mask->paths[i], desc))
			return err_field(err, ERR_INVALID, "update_mask",
					 "update_mask: %s has no field \"%.100s\"",
					 desc->short_name, mask->paths[i]);
	}
	return 0;
}

size_t pb_element_size(ProtobufCType type)
{
	switch (type) {
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_DOUBLE: return 8;
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE: return sizeof(void *);
	case PROTOBUF_C_TYPE_BYTES: return sizeof(ProtobufCBinaryData);
	case PROTOBUF_C_TYPE_BOOL: return sizeof(protobuf_c_boolean);
	default: return 4;
	}
}

bool pb_is_default(const ProtobufCFieldDescriptor *field, const void *at)
{
	static const char zero[sizeof(double)];

	switch (field->type) {
	case PROTOBUF_C_TYPE_STRING: return !*(char *const *)at || !**(char *const *)at;
	case PROTOBUF_C_TYPE_BYTES: return !((const ProtobufCBinaryData *)at)->len;
	case PROTOBUF_C_TYPE_MESSAGE: return !*(ProtobufCMessage *const *)at;
	default: return !memcmp(at, zero, pb_element_size(field->type));
	}
}

static void strip_value(const ProtobufCFieldDescriptor *f, void *value)
{
	if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
		if (*(void **)value)
			pb_strip_unknown(*(void **)value);
	} else if (f->type == PROTOBUF_C_TYPE_ENUM &&
		   !protobuf_c_enum_descriptor_get_value(f->descriptor, *(int *)value)) {
		*(int *)value = 0;
	}
}

void pb_strip_unknown(void *msg)
{
	ProtobufCMessage *m = msg;

	m->n_unknown_fields = 0;
	m->unknown_fields = NULL;
	for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
		uint8_t *base = msg;

		if (f->type != PROTOBUF_C_TYPE_MESSAGE && f->type != PROTOBUF_C_TYPE_ENUM)
			continue;
		if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
			if (*(uint32_t *)(base + f->quantifier_offset) == f->id)
				strip_value(f, base + f->offset);
		} else if (f->label == PROTOBUF_C_LABEL_REPEATED) {
			size_t n = *(size_t *)(base + f->quantifier_offset);
			size_t size = pb_element_size(f->type);
			uint8_t *elements = *(uint8_t **)(base + f->offset);

			for (size_t j = 0; j < n; j++)
				strip_value(f, elements + j * size);
		} else {
			strip_value(f, base + f->offset);
		}
	}
}
