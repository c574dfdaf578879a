#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/enc.h"
#include "base/jsonx.h"
#include "google/protobuf/any.pb-c.h"
#include "net/json_pb.h"
#include "proto/json_map.h"
#include "proto/pb_decode.h"
#include "proto/pb_util.h"

/* A message may open two levels (its list and itself); the rest is for Any. */
enum { DEPTH_MAX = JSONW_DEPTH - 4 };

struct writer {
	struct jsonw w;
	unsigned flags;
};

static void write_message(struct writer *j, const ProtobufCMessage *msg);

static void write_text(struct writer *j, const struct buf *b)
{
	jsonw_strn(&j->w, b->len ? (const char *)b->data : "", b->len);
}

static void write_bytes(struct writer *j, const ProtobufCBinaryData *bytes)
{
	struct buf b = BUF_INIT;

	base64_append(&b, bytes->data, bytes->len);
	write_text(j, &b);
	buf_done(&b);
}

/* ".5", ".000001": 3, 6 or 9 digits, nothing for 0. */
static void append_nanos(struct buf *b, int32_t nanos)
{
	if (!nanos)
		return;
	if (nanos % 1000000 == 0)
		buf_printf(b, ".%03d", nanos / 1000000);
	else if (nanos % 1000 == 0)
		buf_printf(b, ".%06d", nanos / 1000);
	else
		buf_printf(b, ".%09d", nanos);
}

static void write_timestamp(struct writer *j, const Google__Protobuf__Timestamp *ts)
{
	struct buf b = BUF_INIT;
	char text[CLOCK_TEXT];
	bool valid = !pb_timestamp_check(ts, "", NULL);
	int64_t ms = pb_timestamp_ms(ts);

	clock_format(ms, text);
	text[strlen("2026-01-02T03:04:05")] = '\0';
	buf_append_str(&b, text);
	append_nanos(&b, valid ? ts->nanos : 0);
	buf_u8(&b, 'Z');
	write_text(j, &b);
	buf_done(&b);
}

static void write_duration(struct writer *j, const Google__Protobuf__Duration *d)
{
	Google__Protobuf__Duration clamped;
	struct buf b = BUF_INIT;
	bool negative;

	if (pb_duration_check(d, "", NULL) < 0)
		d = pb_duration_set(&clamped, pb_duration_ms(d));
	negative = d->seconds < 0 || d->nanos < 0;
	buf_printf(&b, "%s%lld", negative ? "-" : "",
		   (long long)(negative ? -d->seconds : d->seconds));
	append_nanos(&b, negative ? -d->nanos : d->nanos);
	buf_u8(&b, 's');
	write_text(j, &b);
	buf_done(&b);
}

static void write_field_mask(struct writer *j, const Google__Protobuf__FieldMask *mask)
{
	struct buf b = BUF_INIT;

	for (size_t i = 0; i < mask->n_paths; i++) {
		if (i)
			buf_u8(&b, ',');
		for (const char *p = mask->paths[i]; *p; p++) {
			if (p[0] == '_' && p[1] >= 'a' && p[1] <= 'z')
				buf_u8(&b, (uint8_t)(*++p - 'a' + 'A'));
			else
				buf_u8(&b, (uint8_t)*p);
		}
	}
	write_text(j, &b);
	buf_done(&b);
}

/* The members of a message inside an object that is open already. */
static void write_members(struct writer *j, const ProtobufCMessage *msg,
			  const struct proto_message_info *info);

static void write_any(struct writer *j, const Google__Protobuf__Any *any)
{
	const char *slash = strrchr(any->type_url, '/');
	const struct proto_message_info *info =
		proto_message_find(slash ? slash + 1 : any->type_url);
	ProtobufCMessage *msg = NULL;

	if (info && j->w.depth < DEPTH_MAX)
		IGNORE(pb_decode_heap(info->desc, any->value.data, any->value.len, NULL, &msg,
				      NULL));
	jsonw_object(&j->w);
	if (any->type_url[0])
		jsonw_kstr(&j->w, "@type", any->type_url);
	if (!msg && any->value.len) {
		jsonw_key(&j->w, "value");
		write_bytes(j, &any->value);
	} else if (!msg) {
		; /* not set at all, or a type of another tree without content */
	} else if (info->kind == PROTO_JSON_PLAIN || info->kind == PROTO_JSON_EMPTY) {
		write_members(j, msg, info);
	} else {
		jsonw_key(&j->w, "value");
		write_message(j, msg);
	}
	jsonw_end(&j->w);
	pb_free(msg);
}

static void write_enum(struct writer *j, const ProtobufCEnumDescriptor *desc, int value)
{
	const ProtobufCEnumValue *known = protobuf_c_enum_descriptor_get_value(desc, value);

	if (known)
		jsonw_str(&j->w, known->name);
	else
		jsonw_i64(&j->w, value);
}

/* One value in memory: a singular field, or an element of a repeated one. */
static void write_value(struct writer *j, const ProtobufCFieldDescriptor *field, const void *at)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32: jsonw_i64(&j->w, *(const int32_t *)at); break;
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32: jsonw_u64(&j->w, *(const uint32_t *)at); break;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64: jsonw_i64s(&j->w, *(const int64_t *)at); break;
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64: jsonw_u64s(&j->w, *(const uint64_t *)at); break;
	case PROTOBUF_C_TYPE_FLOAT: jsonw_real(&j->w, (double)*(const float *)at); break;
	case PROTOBUF_C_TYPE_DOUBLE: jsonw_real(&j->w, *(const double *)at); break;
	case PROTOBUF_C_TYPE_BOOL: jsonw_bool(&j->w, *(const protobuf_c_boolean *)at); break;
	case PROTOBUF_C_TYPE_ENUM: write_enum(j, field->descriptor, *(const int *)at); break;
	case PROTOBUF_C_TYPE_STRING:
		jsonw_str(&j->w, *(char *const *)at ? *(char *const *)at : "");
		break;
	case PROTOBUF_C_TYPE_BYTES: write_bytes(j, at); break;
	case PROTOBUF_C_TYPE_MESSAGE:
		if (*(ProtobufCMessage *const *)at && j->w.depth < DEPTH_MAX)
			write_message(j, *(ProtobufCMessage *const *)at);
		else
			jsonw_null(&j->w);
		break;
	}
}

static const void *member(const ProtobufCMessage *msg, unsigned offset)
{
	return (const char *)msg + offset;
}

static void append_map_key(struct buf *b, const ProtobufCMessage *entry)
{
	const ProtobufCFieldDescriptor *key = &entry->descriptor->fields[0];
	const void *at = member(entry, key->offset);

	switch (key->type) {
	case PROTOBUF_C_TYPE_STRING:
		buf_append_str(b, *(char *const *)at ? *(char *const *)at : "");
		break;
	case PROTOBUF_C_TYPE_BOOL:
		buf_append_str(b, *(const protobuf_c_boolean *)at ? "true" : "false");
		break;
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32: buf_printf(b, "%u", *(const uint32_t *)at); break;
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		buf_printf(b, "%llu", (unsigned long long)*(const uint64_t *)at);
		break;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
		buf_printf(b, "%lld", (long long)*(const int64_t *)at);
		break;
	default: buf_printf(b, "%d", *(const int32_t *)at);
	}
}

/* Of several entries with one key the last counts, as everywhere with protobuf. */
static bool key_comes_again(ProtobufCMessage *const *entries, size_t i, size_t n,
			    const struct buf *key)
{
	struct buf other = BUF_INIT;
	bool again = false;

	for (i++; i < n && !again; i++) {
		buf_reset(&other);
		append_map_key(&other, entries[i]);
		again = other.len == key->len && !memcmp(buf_str(&other), key->data, key->len);
	}
	buf_done(&other);
	return again;
}

static void write_map(struct writer *j, ProtobufCMessage *const *entries, size_t n)
{
	struct buf key = BUF_INIT;

	jsonw_object(&j->w);
	for (size_t i = 0; i < n; i++) {
		const ProtobufCFieldDescriptor *value = &entries[i]->descriptor->fields[1];

		buf_reset(&key);
		append_map_key(&key, entries[i]);
		buf_str(&key);
		if (key_comes_again(entries, i, n, &key))
			continue;
		jsonw_key(&j->w, buf_str(&key));
		write_value(j, value, member(entries[i], value->offset));
	}
	jsonw_end(&j->w);
	buf_done(&key);
}

static void write_repeated(struct writer *j, const ProtobufCFieldDescriptor *field,
			   const void *list, size_t n)
{
	const struct proto_message_info *info = NULL;
	size_t size = pb_element_size(field->type);

	if (field->type == PROTOBUF_C_TYPE_MESSAGE)
		info = proto_message_info(field->descriptor);
	if (info && info->map_entry) {
		write_map(j, list, n);
		return;
	}
	jsonw_array(&j->w);
	for (size_t i = 0; i < n; i++)
		write_value(j, field, (const char *)list + i * size);
	jsonw_end(&j->w);
}

static bool is_written(const struct writer *j, const ProtobufCMessage *msg,
		       const ProtobufCFieldDescriptor *field)
{
	const void *at = member(msg, field->offset);
	const void *quantifier = member(msg, field->quantifier_offset);

	if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
		return *(const uint32_t *)quantifier == field->id;
	if (field->label == PROTOBUF_C_LABEL_REPEATED)
		return *(const size_t *)quantifier || j->flags & JSON_PB_DEFAULTS;
	if (field->type == PROTOBUF_C_TYPE_MESSAGE)
		return *(ProtobufCMessage *const *)at;
	if (field->label == PROTOBUF_C_LABEL_OPTIONAL && field->type == PROTOBUF_C_TYPE_STRING)
		return *(const char *const *)at && *(const char *const *)at != field->default_value;
	if (field->label == PROTOBUF_C_LABEL_OPTIONAL)
		return *(const protobuf_c_boolean *)quantifier;
	return !pb_is_default(field, at) || j->flags & JSON_PB_DEFAULTS;
}

static void write_members(struct writer *j, const ProtobufCMessage *msg,
			  const struct proto_message_info *info)
{
	const ProtobufCMessageDescriptor *desc = msg->descriptor;

	for (unsigned i = 0; i < desc->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &desc->fields[i];
		const void *at = member(msg, field->offset);

		if (!is_written(j, msg, field))
			continue;
		jsonw_key(&j->w, info && !(j->flags & JSON_PB_PROTO_NAMES) ? info->json_names[i]
									   : field->name);
		if (field->label == PROTOBUF_C_LABEL_REPEATED)
			write_repeated(j, field, *(void *const *)at,
				       *(const size_t *)member(msg, field->quantifier_offset));
		else
			write_value(j, field, at);
	}
}

static void write_message(struct writer *j, const ProtobufCMessage *msg)
{
	const struct proto_message_info *info = proto_message_info(msg->descriptor);

	switch (info ? info->kind : PROTO_JSON_PLAIN) {
	case PROTO_JSON_TIMESTAMP:
		write_timestamp(j, (const Google__Protobuf__Timestamp *)msg);
		break;
	case PROTO_JSON_DURATION: write_duration(j, (const Google__Protobuf__Duration *)msg); break;
	case PROTO_JSON_FIELD_MASK:
		write_field_mask(j, (const Google__Protobuf__FieldMask *)msg);
		break;
	case PROTO_JSON_ANY: write_any(j, (const Google__Protobuf__Any *)msg); break;
	default:
		jsonw_object(&j->w);
		write_members(j, msg, info);
		jsonw_end(&j->w);
	}
}

void json_pb_write(const void *msg, unsigned flags, struct buf *out)
{
	struct writer j = {.flags = flags};

	jsonw_init(&j.w, out, flags & JSON_PB_PRETTY);
	write_message(&j, msg);
}
