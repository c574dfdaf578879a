#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/enc.h"
#include "base/jsonx.h"
#include "base/limits.h"
#include "google/protobuf/any.pb-c.h"
#include "net/json_pb.h"
#include "proto/json_map.h"
#include "proto/pb_util.h"

/* Where the reader is, for error messages; they live on the stack. */
struct place {
	const struct place *up;
	const char *name; /* NULL: an element */
	size_t index;
};

struct reader {
	unsigned flags;
	uint32_t elements;
	struct arena *arena;
	struct err *err;
};

static int read_object(struct reader *r, const struct place *p, const struct jsonx *v,
		       const struct proto_message_info *info, const char *skip,
		       ProtobufCMessage **ret);

static void write_place(const struct place *p, char *out, size_t size)
{
	size_t len;

	if (!p->up) {
		out[0] = '\0';
		return;
	}
	write_place(p->up, out, size);
	len = strlen(out);
	if (p->name)
		snprintf(out + len, size - len, "%s%s", len ? "." : "", p->name);
	else
		snprintf(out + len, size - len, "[%zu]", p->index);
}

static int fail(const struct reader *r, const struct place *p, int code, const char *what)
{
	char path[sizeof(((struct err *)0)->field)];

	write_place(p, path, sizeof(path));
	return err_field(r->err, code, path, "%s%s%s", path, path[0] ? ": " : "", what);
}

static void *alloc(const struct reader *r, const struct place *p, size_t size)
{
	void *ptr = arena_zalloc(r->arena, size);

	if (!ptr)
		IGNORE(fail(r, p, ERR_LIMIT, "the message would take too much memory"));
	return ptr;
}

static int count(struct reader *r, const struct place *p)
{
	if (++r->elements > LIM_PB_FIELDS)
		return fail(r, p, ERR_LIMIT, "too many fields in one message");
	return 0;
}

/* ---- Numbers ----------------------------------------------------------------------------------------------------- */

static int read_double(const struct reader *r, const struct place *p, const struct jsonx *v,
		       double *ret)
{
	const char *s = jsonx_str(v, NULL);
	char *end;

	if (jsonx_type(v) == JSONX_INT || jsonx_type(v) == JSONX_REAL) {
		*ret = jsonx_type(v) == JSONX_INT ? (double)jsonx_int(v, 0) : jsonx_real(v, 0);
		return 0;
	}
	if (s && !strcmp(s, "NaN")) {
		*ret = NAN;
		return 0;
	}
	if (s && (!strcmp(s, "Infinity") || !strcmp(s, "-Infinity"))) {
		*ret = s[0] == '-' ? -INFINITY : INFINITY;
		return 0;
	}
	if (!s || !*s || !strchr("-0123456789", *s) || strpbrk(s, "xXnNpP"))
		return fail(r, p, ERR_INVALID, "expected a number");
	*ret = strtod(s, &end);
	if (*end || isinf(*ret))
		return fail(r, p, ERR_INVALID, "expected a number");
	return 0;
}

/* An integer as number, as decimal string, or as a real without fraction. */
static int read_integer(const struct reader *r, const struct place *p, const struct jsonx *v,
			bool is_signed, int bits, uint64_t *ret)
{
	int64_t i = 0;
	uint64_t u = 0;
	double d;

	if (jsonx_type(v) == JSONX_REAL) {
		d = jsonx_real(v, 0);
		if (d != trunc(d) || d < -9223372036854775808.0 || d >= 18446744073709551616.0 ||
		    (d < 0 && !is_signed) || (is_signed && d >= 9223372036854775808.0))
			return fail(r, p, ERR_INVALID, "expected an integer");
		i = is_signed ? (int64_t)d : 0;
		u = is_signed ? (uint64_t)i : (uint64_t)d;
	} else if (is_signed) {
		if (jsonx_get_i64(v, &i) < 0)
			return fail(r, p, ERR_INVALID, "expected an integer");
		u = (uint64_t)i;
	} else if (jsonx_get_u64(v, &u) < 0) {
		return fail(r, p, ERR_INVALID, "expected an integer that is not negative");
	}
	if (bits == 32 && (is_signed ? i < INT32_MIN || i > INT32_MAX : u > UINT32_MAX))
		return fail(r, p, ERR_INVALID, "the number is out of range");
	*ret = u;
	return 0;
}

static int read_enum(const struct reader *r, const struct place *p, const struct jsonx *v,
		     const ProtobufCEnumDescriptor *desc, int *ret)
{
	const ProtobufCEnumValue *value;
	char text[160];
	uint64_t u;
	int rv;

	if (jsonx_type(v) != JSONX_STRING) {
		rv = read_integer(r, p, v, true, 32, &u);
		if (rv < 0)
			return fail(r, p, ERR_INVALID, "expected the name of an enum value");
		*ret = (int)(uint32_t)u;
		return 0;
	}
	value = protobuf_c_enum_descriptor_get_value_by_name(desc, jsonx_str(v, ""));
	if (value) {
		*ret = value->value;
		return 0;
	}
	if (r->flags & JSON_PB_IGNORE_UNKNOWN)
		return 0;
	snprintf(text, sizeof(text), "%s has no value \"%.60s\"", desc->short_name,
		 jsonx_str(v, ""));
	return fail(r, p, ERR_INVALID, text);
}

/* ---- Text and bytes ---------------------------------------------------------------------------------------------- */

static int read_string(const struct reader *r, const struct place *p, const struct jsonx *v,
		       char **ret)
{
	size_t len;
	const char *s = jsonx_str_len(v, &len);
	char *copy;

	if (!s)
		return fail(r, p, ERR_INVALID, "expected string");
	if (memchr(s, '\0', len))
		return fail(r, p, ERR_INVALID, "text holds a NUL");
	copy = alloc(r, p, len + 1);
	if (!copy)
		return ERR_LIMIT;
	memcpy(copy, s, len);
	*ret = copy;
	return 0;
}

static int read_bytes(const struct reader *r, const struct place *p, const struct jsonx *v,
		      ProtobufCBinaryData *ret)
{
	size_t len;
	const char *s = jsonx_str_len(v, &len);
	uint8_t *data;
	int n;

	if (!s)
		return fail(r, p, ERR_INVALID, "expected a string in base64");
	data = alloc(r, p, len / 4 * 3 + 3);
	if (!data)
		return ERR_LIMIT;
	n = base64_decode(s, len, data, len / 4 * 3 + 3);
	if (n < 0)
		n = base64url_decode(s, len, data, len / 4 * 3 + 3);
	if (n < 0)
		return fail(r, p, ERR_INVALID, "not base64");
	ret->data = n ? data : NULL;
	ret->len = (size_t)n;
	return 0;
}

/* ---- Types with a form of their own ------------------------------------------------------------------------------ */

/* Reads ".123456789" at *p; false if there is a point without digits or with more than nine. */
static bool read_nanos(const char **p, int32_t *ret)
{
	int32_t nanos = 0, unit = 100000000;

	*ret = 0;
	if (**p != '.')
		return true;
	++*p;
	if (**p < '0' || **p > '9')
		return false;
	for (; **p >= '0' && **p <= '9'; ++*p, unit /= 10) {
		if (!unit)
			return false;
		nanos += (**p - '0') * unit;
	}
	*ret = nanos;
	return true;
}

static int read_timestamp(const struct reader *r, const struct place *p, const struct jsonx *v,
			  Google__Protobuf__Timestamp *ret)
{
	const char *s = jsonx_str(v, NULL), *point, *rest;
	char whole[64];
	int64_t ms;

	if (!s)
		return fail(r, p, ERR_INVALID, "expected a time as string");
	point = strchr(s, '.');
	rest = point;
	if (strlen(s) >= sizeof(whole) || (point && !read_nanos(&rest, &ret->nanos)))
		return fail(r, p, ERR_INVALID, "expected a time such as \"2026-01-02T03:04:05Z\"");
	if (point)
		snprintf(whole, sizeof(whole), "%.*s%s", (int)(point - s), s, rest);
	else
		snprintf(whole, sizeof(whole), "%s", s);
	if (clock_parse(whole, &ms, NULL) < 0)
		return fail(r, p, ERR_INVALID, "expected a time such as \"2026-01-02T03:04:05Z\"");
	ret->seconds = ms / 1000;
	if (pb_timestamp_check(ret, "", NULL) < 0)
		return fail(r, p, ERR_INVALID, "the time is not between the years 1 and 9999");
	return 0;
}

static int read_duration(const struct reader *r, const struct place *p, const struct jsonx *v,
			 Google__Protobuf__Duration *ret)
{
	const char *s = jsonx_str(v, NULL);
	bool negative = s && *s == '-';
	char *end;

	if (negative)
		s++;
	if (!s || *s < '0' || *s > '9')
		return fail(r, p, ERR_INVALID, "expected a duration such as \"1.5s\"");
	errno = 0;
	ret->seconds = strtoll(s, &end, 10);
	s = end;
	if (errno || !read_nanos(&s, &ret->nanos) || strcmp(s, "s"))
		return fail(r, p, ERR_INVALID, "expected a duration such as \"1.5s\"");
	if (negative) {
		ret->seconds = -ret->seconds;
		ret->nanos = -ret->nanos;
	}
	if (pb_duration_check(ret, "", NULL) < 0)
		return fail(r, p, ERR_INVALID, "the duration is longer than 10,000 years");
	return 0;
}

static int read_field_mask(struct reader *r, const struct place *p, const struct jsonx *v,
			   Google__Protobuf__FieldMask *ret)
{
	const char *s = jsonx_str(v, NULL);
	size_t n = 1, len;
	char *out;
	int rv;

	if (!s)
		return fail(r, p, ERR_INVALID,
			    "expected names of fields as one string, with commas between");
	if (!*s)
		return 0;
	for (const char *c = s; *c; c++)
		n += *c == ',';
	ret->paths = alloc(r, p, n * sizeof(*ret->paths));
	if (!ret->paths)
		return ERR_LIMIT;
	for (; ret->n_paths < n; s += len + 1) {
		rv = count(r, p);
		if (rv < 0)
			return rv;
		len = strcspn(s, ",");
		out = alloc(r, p, 2 * len + 1);
		if (!len || !out)
			return out ? fail(r, p, ERR_INVALID, "an empty name between the commas")
				   : ERR_LIMIT;
		ret->paths[ret->n_paths++] = out;
		for (size_t i = 0; i < len; i++) {
			if (s[i] >= 'A' && s[i] <= 'Z')
				*out++ = '_';
			*out++ = s[i] >= 'A' && s[i] <= 'Z' ? (char)(s[i] | 0x20) : s[i];
		}
	}
	return 0;
}

static int read_message(struct reader *r, const struct place *p, const struct jsonx *v,
			const ProtobufCMessageDescriptor *desc, ProtobufCMessage **ret);

static int read_any(struct reader *r, const struct place *p, const struct jsonx *v,
		    Google__Protobuf__Any *ret)
{
	const char *url = jsonx_str(jsonx_get(v, "@type"), NULL), *slash;
	struct place at = {.up = p, .name = "value"};
	const struct proto_message_info *info;
	ProtobufCMessage *msg;
	int rv;

	if (jsonx_type(v) != JSONX_OBJECT || (jsonx_len(v) && !url))
		return fail(r, p, ERR_INVALID, "expected an object with \"@type\"");
	if (!url)
		return 0;
	slash = strrchr(url, '/');
	info = slash ? proto_message_find(slash + 1) : NULL;
	if (!info)
		return fail(r, p, ERR_INVALID, "the \"@type\" is not known here");
	if (info->kind == PROTO_JSON_PLAIN || info->kind == PROTO_JSON_EMPTY)
		rv = read_object(r, p, v, info, "@type", &msg);
	else if (jsonx_len(v) != 2 || !jsonx_get(v, "value"))
		rv = fail(r, p, ERR_INVALID, "expected \"@type\" and \"value\"");
	else
		rv = read_message(r, &at, jsonx_get(v, "value"), info->desc, &msg);
	if (rv < 0)
		return rv;
	rv = read_string(r, p, jsonx_get(v, "@type"), &ret->type_url);
	if (rv < 0)
		return rv;
	ret->value.len = protobuf_c_message_get_packed_size(msg);
	ret->value.data = alloc(r, p, ret->value.len);
	if (!ret->value.data)
		return ERR_LIMIT;
	protobuf_c_message_pack(msg, ret->value.data);
	return 0;
}

/* ---- Fields ------------------------------------------------------------------------------------------------------ */

static int read_value(struct reader *r, const struct place *p, const struct jsonx *v,
		      const ProtobufCFieldDescriptor *field, void *at)
{
	uint64_t u = 0;
	double d = 0;
	int rv = count(r, p);

	if (rv < 0)
		return rv;
	switch (field->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
		rv = read_integer(r, p, v, true, 32, &u);
		*(int32_t *)at = (int32_t)(uint32_t)u;
		return rv;
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		rv = read_integer(r, p, v, false, 32, &u);
		*(uint32_t *)at = (uint32_t)u;
		return rv;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64: return read_integer(r, p, v, true, 64, at);
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64: return read_integer(r, p, v, false, 64, at);
	case PROTOBUF_C_TYPE_DOUBLE: return read_double(r, p, v, at);
	case PROTOBUF_C_TYPE_FLOAT:
		rv = read_double(r, p, v, &d);
		if (!rv && isfinite(d) && fabs(d) > 3.4028235677973366e+38)
			return fail(r, p, ERR_INVALID, "the number is out of range");
		*(float *)at = (float)d;
		return rv;
	case PROTOBUF_C_TYPE_BOOL:
		if (jsonx_type(v) != JSONX_BOOL)
			return fail(r, p, ERR_INVALID, "expected true or false");
		*(protobuf_c_boolean *)at = jsonx_bool(v, false);
		return 0;
	case PROTOBUF_C_TYPE_ENUM: return read_enum(r, p, v, field->descriptor, at);
	case PROTOBUF_C_TYPE_STRING: return read_string(r, p, v, at);
	case PROTOBUF_C_TYPE_BYTES: return read_bytes(r, p, v, at);
	case PROTOBUF_C_TYPE_MESSAGE: return read_message(r, p, v, field->descriptor, at);
	}
	return fail(r, p, ERR_INTERNAL, "a type of field that is not known");
}

static void init_strings(const ProtobufCFieldDescriptor *field, void *list, size_t n)
{
	for (size_t i = 0; field->type == PROTOBUF_C_TYPE_STRING && i < n; i++)
		((const char **)list)[i] = protobuf_c_empty_string;
}

static int read_list(struct reader *r, const struct place *p, const struct jsonx *v,
		     const ProtobufCFieldDescriptor *field, void **ret_list, size_t *ret_n)
{
	size_t n = jsonx_len(v), size = pb_element_size(field->type);
	char *list;
	int rv;

	if (jsonx_type(v) != JSONX_ARRAY)
		return fail(r, p, ERR_INVALID, "expected a list");
	if (!n)
		return 0;
	list = alloc(r, p, n * size);
	if (!list)
		return ERR_LIMIT;
	init_strings(field, list, n);
	for (size_t i = 0; i < n; i++) {
		struct place at = {.up = p, .index = i};

		rv = jsonx_type(jsonx_at(v, i)) == JSONX_NULL
			     ? fail(r, &at, ERR_INVALID, "null is no element of a list")
			     : read_value(r, &at, jsonx_at(v, i), field, list + i * size);
		if (rv < 0)
			return rv;
	}
	*ret_list = list;
	*ret_n = n;
	return 0;
}

static int read_map_key(struct reader *r, const struct place *p, const char *key,
			const ProtobufCFieldDescriptor *field, void *at)
{
	char *end;
	uint64_t u;
	int64_t i;
	bool is64 = pb_element_size(field->type) == 8;

	errno = 0;
	switch (field->type) {
	case PROTOBUF_C_TYPE_STRING:
		*(char **)at = arena_strdup(r->arena, key);
		return *(char **)at
			       ? 0
			       : fail(r, p, ERR_LIMIT, "the message would take too much memory");
	case PROTOBUF_C_TYPE_BOOL:
		if (strcmp(key, "true") && strcmp(key, "false"))
			return fail(r, p, ERR_INVALID, "expected true or false as key");
		*(protobuf_c_boolean *)at = !strcmp(key, "true");
		return 0;
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		u = strtoull(key, &end, 10);
		if (errno || *end || *key < '0' || *key > '9' || (!is64 && u > UINT32_MAX))
			return fail(r, p, ERR_INVALID, "expected a number as key");
		if (is64)
			*(uint64_t *)at = u;
		else
			*(uint32_t *)at = (uint32_t)u;
		return 0;
	default:
		i = strtoll(key, &end, 10);
		if (errno || *end || (*key != '-' && (*key < '0' || *key > '9')) ||
		    (!is64 && (i < INT32_MIN || i > INT32_MAX)))
			return fail(r, p, ERR_INVALID, "expected a number as key");
		if (is64)
			*(int64_t *)at = i;
		else
			*(int32_t *)at = (int32_t)i;
		return 0;
	}
}

static int read_map(struct reader *r, const struct place *p, const struct jsonx *v,
		    const ProtobufCMessageDescriptor *desc, void **ret_list, size_t *ret_n)
{
	struct jsonx_iter it = {0};
	ProtobufCMessage **list;
	size_t n = 0;
	int rv;

	if (jsonx_type(v) != JSONX_OBJECT)
		return fail(r, p, ERR_INVALID, "expected an object");
	if (!jsonx_len(v))
		return 0;
	list = alloc(r, p, jsonx_len(v) * sizeof(*list));
	if (!list)
		return ERR_LIMIT;
	while (jsonx_next(v, &it)) {
		struct place at = {.up = p, .name = it.key};
		char *entry = alloc(r, &at, desc->sizeof_message);

		if (!entry)
			return ERR_LIMIT;
		desc->message_init((ProtobufCMessage *)entry);
		rv = read_map_key(r, &at, it.key, &desc->fields[0], entry + desc->fields[0].offset);
		if (rv < 0)
			return rv;
		rv = read_value(r, &at, it.value, &desc->fields[1], entry + desc->fields[1].offset);
		if (rv < 0)
			return rv;
		list[n++] = (ProtobufCMessage *)entry;
	}
	*ret_list = list;
	*ret_n = n;
	return 0;
}

static int find_field(const struct proto_message_info *info, const char *key)
{
	for (unsigned i = 0; i < info->desc->n_fields; i++) {
		if (!strcmp(info->json_names[i], key) || !strcmp(info->desc->fields[i].name, key))
			return (int)i;
	}
	return -1;
}

static int read_field(struct reader *r, const struct place *p, const struct jsonx *v,
		      const ProtobufCFieldDescriptor *field, ProtobufCMessage *msg)
{
	const struct proto_message_info *info;
	char *at = (char *)msg + field->offset,
	     *quantifier = (char *)msg + field->quantifier_offset;

	if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
		if (*(uint32_t *)quantifier)
			return fail(r, p, ERR_INVALID, "only one of these alternatives can be set");
		*(uint32_t *)quantifier = field->id;
		if (field->type == PROTOBUF_C_TYPE_STRING)
			*(const char **)at = protobuf_c_empty_string;
	} else if (field->label == PROTOBUF_C_LABEL_OPTIONAL &&
		   field->type != PROTOBUF_C_TYPE_STRING &&
		   field->type != PROTOBUF_C_TYPE_MESSAGE) {
		*(protobuf_c_boolean *)quantifier = true;
	}
	if (field->label != PROTOBUF_C_LABEL_REPEATED)
		return read_value(r, p, v, field, at);
	if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
		info = proto_message_info(field->descriptor);
		if (info && info->map_entry)
			return read_map(r, p, v, info->desc, (void **)at, (size_t *)quantifier);
	}
	return read_list(r, p, v, field, (void **)at, (size_t *)quantifier);
}

static int read_object(struct reader *r, const struct place *p, const struct jsonx *v,
		       const struct proto_message_info *info, const char *skip,
		       ProtobufCMessage **ret)
{
	struct jsonx_iter it = {0};
	uint64_t seen[4] = {0};
	ProtobufCMessage *msg;
	int i, rv;

	if (jsonx_type(v) != JSONX_OBJECT)
		return fail(r, p, ERR_INVALID, "expected an object");
	msg = alloc(r, p, info->desc->sizeof_message);
	if (!msg)
		return ERR_LIMIT;
	info->desc->message_init(msg);
	while (jsonx_next(v, &it)) {
		struct place at = {.up = p, .name = it.key};

		if (skip && !strcmp(it.key, skip))
			continue;
		i = find_field(info, it.key);
		if (i < 0 && r->flags & JSON_PB_IGNORE_UNKNOWN)
			continue;
		if (i < 0)
			return fail(r, &at, ERR_INVALID, "no such field");
		if (i < 256 && seen[i / 64] >> (i % 64) & 1)
			return fail(r, &at, ERR_INVALID, "given twice");
		if (i < 256)
			seen[i / 64] |= (uint64_t)1 << (i % 64);
		if (jsonx_type(it.value) == JSONX_NULL)
			continue;
		rv = read_field(r, &at, it.value, &info->desc->fields[i], msg);
		if (rv < 0)
			return rv;
	}
	*ret = msg;
	return 0;
}

static int read_message(struct reader *r, const struct place *p, const struct jsonx *v,
			const ProtobufCMessageDescriptor *desc, ProtobufCMessage **ret)
{
	const struct proto_message_info *info = proto_message_info(desc);
	ProtobufCMessage *msg;
	int rv;

	if (!info)
		return fail(r, p, ERR_INTERNAL, "a message type without names");
	if (info->kind == PROTO_JSON_PLAIN || info->kind == PROTO_JSON_EMPTY)
		return read_object(r, p, v, info, NULL, ret);
	msg = alloc(r, p, desc->sizeof_message);
	if (!msg)
		return ERR_LIMIT;
	desc->message_init(msg);
	if (info->kind == PROTO_JSON_TIMESTAMP)
		rv = read_timestamp(r, p, v, (Google__Protobuf__Timestamp *)msg);
	else if (info->kind == PROTO_JSON_DURATION)
		rv = read_duration(r, p, v, (Google__Protobuf__Duration *)msg);
	else if (info->kind == PROTO_JSON_FIELD_MASK)
		rv = read_field_mask(r, p, v, (Google__Protobuf__FieldMask *)msg);
	else
		rv = read_any(r, p, v, (Google__Protobuf__Any *)msg);
	if (rv < 0)
		return rv;
	*ret = msg;
	return 0;
}

size_t json_pb_budget(size_t len)
{
	return 32 * len + (64 << 10);
}

int json_pb_read(const ProtobufCMessageDescriptor *desc, const char *text, size_t len,
		 unsigned flags, struct arena *arena, ProtobufCMessage **ret_msg, struct err *err)
{
	struct reader r = {.flags = flags, .arena = arena, .err = err};
	struct place top = {0};
	struct jsonx *root;
	int rv;

	if (len > LIM_JSON_BYTES)
		return err_set(err, ERR_LIMIT, "JSON of %zu bytes: at most %u are read", len,
			       LIM_JSON_BYTES);
	rv = jsonx_parse(text, len, "json", &root, err);
	if (rv < 0)
		return rv;
	rv = read_message(&r, &top, root, desc, ret_msg);
	jsonx_free(root);
	return rv;
}
