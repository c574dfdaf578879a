#include "proto/pb_check.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "base/utf8.h"

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

enum {
	TAG_MAX = 5,     /* protobuf-c reads no longer tags or lengths */
	VARINT_MAX = 10, /* 64 bits */
	PATH_MAX_LEN = sizeof(((struct err *)0)->field),
};

/* One message being looked at; they live on the stack, the innermost first. */
struct frame {
	const struct frame *up;
	const ProtobufCMessageDescriptor *desc;
	const ProtobufCFieldDescriptor *field; /* the field being looked at, NULL between fields */
	const uint8_t *start;                  /* of this message */
	const uint8_t *at;                     /* start of that field's tag */
	uint64_t seen[4];                      /* singular message fields that occurred, by index */
	uint32_t unknown;
};

struct check {
	struct pb_opts opts; /* defaults filled in */
	struct pb_stats stats;
	struct err *err;
};

/* Reads a varint of at most `max` bytes; false if it is cut or longer. */
static bool read_varint(const uint8_t **p, const uint8_t *end, int max, uint64_t *ret)
{
	uint64_t v = 0;

	for (int i = 0; i < max && *p + i < end; i++) {
		uint8_t byte = (*p)[i];

		v |= (uint64_t)(byte & 0x7f) << (7 * i);
		if (!(byte & 0x80)) {
			*p += i + 1;
			*ret = v;
			return true;
		}
	}
	return false;
}

/* Skips a value; false if it is cut. The caller knows that the wire type is one of the four. */
static bool skip_value(unsigned wire, const uint8_t **p, const uint8_t *end)
{
	uint64_t n;

	switch (wire) {
	case WIRE_VARINT: return read_varint(p, end, VARINT_MAX, &n);
	case WIRE_64: n = 8; break;
	case WIRE_32: n = 4; break;
	default:
		if (!read_varint(p, end, TAG_MAX, &n))
			return false;
	}
	if (n > (uint64_t)(end - *p))
		return false;
	*p += n;
	return true;
}

/* How often the frame's field occurred before the place it is at. Only for error messages: linear. */
static unsigned field_index(const struct frame *f)
{
	const uint8_t *p = f->start;
	unsigned n = 0;
	uint64_t tag;

	while (p < f->at && read_varint(&p, f->at, TAG_MAX, &tag)) {
		if (tag >> 3 == f->field->id)
			n++;
		if (!skip_value(tag & 7, &p, f->at))
			break;
	}
	return n;
}

static void write_path(const struct frame *f, char *out, size_t size)
{
	size_t len;

	if (f->up)
		write_path(f->up, out, size);
	else
		out[0] = '\0';
	if (!f->field)
		return;
	len = strlen(out);
	snprintf(out + len, size - len, "%s%s", len ? "." : "", f->field->name);
	len = strlen(out);
	if (f->field->label == PROTOBUF_C_LABEL_REPEATED)
		snprintf(out + len, size - len, "[%u]", field_index(f));
}

static int fail(const struct check *c, const struct frame *f, int code, const char *what)
{
	char path[PATH_MAX_LEN];

	if (!c->err)
		return code;
	write_path(f, path, sizeof(path));
	return err_field(c->err, code, path, "%s: %s%s%s", f->desc->name, path, path[0] ? ": " : "",
			 what);
}

static unsigned wire_of(ProtobufCType type)
{
	switch (type) {
	case PROTOBUF_C_TYPE_SFIXED32:
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_FLOAT: return WIRE_32;
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_DOUBLE: return WIRE_64;
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_BYTES:
	case PROTOBUF_C_TYPE_MESSAGE: return WIRE_BYTES;
	default: return WIRE_VARINT;
	}
}

static int count(struct check *c, const struct frame *f, uint64_t n)
{
	if (n > c->opts.max_elements - c->stats.elements)
		return fail(c, f, ERR_LIMIT, "too many fields in one message");
	c->stats.elements += (uint32_t)n;
	return 0;
}

static int check_enum(const struct check *c, const struct frame *f, uint64_t value)
{
	if (!(c->opts.flags & PB_STRICT_KNOWN) || f->field->type != PROTOBUF_C_TYPE_ENUM)
		return 0;
	if (!protobuf_c_enum_descriptor_get_value(f->field->descriptor, (int32_t)(uint32_t)value))
		return fail(c, f, ERR_INVALID,
			    "unknown enum value (this version does not know it)");
	return 0;
}

static int check_packed(struct check *c, const struct frame *f, const uint8_t *p,
			const uint8_t *end)
{
	unsigned wire = wire_of(f->field->type);
	size_t size = wire == WIRE_32 ? 4 : 8;
	uint64_t v;
	int rv;

	if (wire != WIRE_VARINT) {
		if ((size_t)(end - p) % size)
			return fail(c, f, ERR_INVALID,
				    "packed list of a length that does not fit its type");
		return count(c, f, (size_t)(end - p) / size);
	}
	while (p < end) {
		rv = count(c, f, 1);
		if (rv < 0)
			return rv;
		if (!read_varint(&p, end, VARINT_MAX, &v))
			return fail(c, f, ERR_INVALID, "number cut short");
		rv = check_enum(c, f, v);
		if (rv < 0)
			return rv;
		if (f->field->type == PROTOBUF_C_TYPE_BOOL && v > 1)
			return fail(c, f, ERR_INVALID, "neither true nor false");
	}
	return 0;
}

static int check_message(struct check *c, const struct frame *up,
			 const ProtobufCMessageDescriptor *desc, const uint8_t *p,
			 const uint8_t *end, uint32_t depth);

static int check_bytes(struct check *c, struct frame *f, const uint8_t *p, const uint8_t *end,
		       uint32_t depth)
{
	const ProtobufCFieldDescriptor *field = f->field;
	size_t index;

	if (field->type == PROTOBUF_C_TYPE_STRING && !utf8_valid(p, (size_t)(end - p), true))
		return fail(c, f, ERR_INVALID, "text is not valid UTF-8, or holds a NUL");
	if (field->type != PROTOBUF_C_TYPE_MESSAGE)
		return 0;
	if (field->label != PROTOBUF_C_LABEL_REPEATED) {
		/* Merging them is where small input makes much work; no encoder writes it. */
		index = (size_t)(field - f->desc->fields);
		if (index < 64 * 4) {
			if (f->seen[index / 64] >> (index % 64) & 1)
				return fail(c, f, ERR_INVALID, "occurs twice");
			f->seen[index / 64] |= (uint64_t)1 << (index % 64);
		}
	}
	if (depth >= c->opts.max_depth)
		return fail(c, f, ERR_LIMIT, "messages nested too deep");
	return check_message(c, f, field->descriptor, p, end, depth + 1);
}

/* One field whose tag is read: *p is behind the tag. */
static int check_field(struct check *c, struct frame *f, unsigned wire, const uint8_t **p,
		       const uint8_t *end, uint32_t depth)
{
	const uint8_t *value = *p;
	uint64_t v = 0;

	if (!skip_value(wire, p, end))
		return fail(c, f, ERR_INVALID, "cut short");
	if (!f->field) {
		if (c->opts.flags & PB_STRICT_KNOWN)
			return fail(c, f, ERR_INVALID,
				    "unknown field (this version does not know it)");
		if (++f->unknown > c->opts.max_unknown)
			return fail(c, f, ERR_LIMIT, "too many unknown fields");
		return 0;
	}
	if (wire == WIRE_BYTES || wire == WIRE_VARINT)
		IGNORE(read_varint(&value, end, VARINT_MAX, &v));
	if (wire != wire_of(f->field->type)) {
		if (wire == WIRE_BYTES && f->field->label == PROTOBUF_C_LABEL_REPEATED)
			return check_packed(c, f, value, *p);
		return fail(c, f, ERR_INVALID,
			    "has another type in the wire form than in the schema");
	}
	if (wire == WIRE_BYTES)
		return check_bytes(c, f, value, *p, depth);
	return check_enum(c, f, v);
}

static int check_message(struct check *c, const struct frame *up,
			 const ProtobufCMessageDescriptor *desc, const uint8_t *p,
			 const uint8_t *end, uint32_t depth)
{
	struct frame f = {.up = up, .desc = desc, .start = p};
	uint64_t tag;
	int rv;

	c->stats.depth = MAX(c->stats.depth, depth);
	while (p < end) {
		f.field = NULL;
		f.at = p;
		if (!read_varint(&p, end, TAG_MAX, &tag) || tag >> 32 || !(tag >> 3))
			return fail(c, &f, ERR_INVALID, "bad field number");
		if ((tag & 7) != WIRE_VARINT && (tag & 7) != WIRE_64 && (tag & 7) != WIRE_BYTES &&
		    (tag & 7) != WIRE_32)
			return fail(c, &f, ERR_INVALID, "bad wire type (groups are not supported)");
		f.field = protobuf_c_message_descriptor_get_field(desc, (unsigned)(tag >> 3));
		rv = count(c, &f, 1);
		if (rv < 0)
			return rv;
		rv = check_field(c, &f, tag & 7, &p, end, depth);
		if (rv < 0)
			return rv;
	}
	return 0;
}

int pb_check(const ProtobufCMessageDescriptor *desc, const void *data, size_t len,
	     const struct pb_opts *opts, struct pb_stats *ret_stats, struct err *err)
{
	struct check c = {.err = err};
	int rv;

	if (opts)
		c.opts = *opts;
	if (!c.opts.max_depth || c.opts.max_depth > LIM_PB_DEPTH)
		c.opts.max_depth = LIM_PB_DEPTH;
	if (!c.opts.max_elements)
		c.opts.max_elements = LIM_PB_FIELDS;
	if (!c.opts.max_unknown)
		c.opts.max_unknown = LIM_PB_UNKNOWN;
	rv = check_message(&c, NULL, desc, data, (const uint8_t *)data + len, 1);
	if (rv < 0)
		return rv;
	if (ret_stats)
		*ret_stats = c.stats;
	return 0;
}
