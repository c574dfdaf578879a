/* What people and programs read: tables, fields, times, sizes, JSON. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/enc.h"
#include "base/mem.h"
#include "cli/cli_int.h"
#include "net/json_pb.h"
#include "proto/pb_util.h"

char *print_safe(struct cli *cx, const char *text)
{
	char *out = cli_printf(cx, "%s", text ? text : "");

	for (char *p = out; *p; p++) {
		if ((unsigned char)*p < 0x20 || *p == 0x7f) {
			*p = ' ';
		} else if ((unsigned char)p[0] == 0xc2 && (unsigned char)p[1] >= 0x80 &&
			   (unsigned char)p[1] < 0xa0) {
			p[0] = p[1] = ' '; /* C1 controls */
		}
	}
	return out;
}

/* ---- tables ---- */

void table_init(struct table *t, const char *first, ...)
{
	va_list ap;

	memset(t, 0, sizeof(*t));
	va_start(ap, first);
	for (const char *h = first; h; h = va_arg(ap, const char *)) {
		POST(t->columns < TABLE_COLUMNS);
		t->head[t->columns++] = h;
	}
	va_end(ap);
}

void table_cell(struct table *t, const char *fmt, ...)
{
	va_list ap;
	struct buf text = BUF_INIT;

	va_start(ap, fmt);
	buf_vprintf(&text, fmt, ap);
	va_end(ap);
	for (size_t i = 0; i < text.len; i++) {
		if (text.data[i] < 0x20 || text.data[i] == 0x7f ||
		    (i > 0 && text.data[i - 1] == 0xc2 && text.data[i] < 0xa0)) {
			text.data[i] = '?';
		}
	}
	if (t->n == t->cap) {
		t->cap = t->cap ? 2 * t->cap : 64;
		t->cells = mem_reallocarray(t->cells, t->cap, sizeof(*t->cells));
	}
	t->cells[t->n++] = buf_take(&text, NULL);
}

/* Code points: near enough to columns for names that are labels, addresses and times. */
static size_t width_of(const char *text)
{
	size_t n = 0;

	for (; *text; text++) {
		n += ((unsigned char)*text & 0xc0) != 0x80;
	}
	return n;
}

static void print_row(const char *const *cells, const struct table *t, const size_t *width,
		      const char *indent, FILE *out)
{
	size_t last = t->columns;

	while (last > 1 && cells[last - 1][0] == '\0') {
		last--;
	}
	fputs(indent, out);
	for (size_t c = 0; c < last; c++) {
		fputs(cells[c], out);
		for (size_t w = width_of(cells[c]); c + 1 < last && w < width[c] + 2; w++) {
			fputc(' ', out);
		}
	}
	fputc('\n', out);
}

void table_print(const struct table *t, const char *indent, FILE *out)
{
	size_t width[TABLE_COLUMNS];

	POST(t->n % t->columns == 0);
	for (size_t c = 0; c < t->columns; c++) {
		width[c] = width_of(t->head[c]);
		for (size_t i = c; i < t->n; i += t->columns) {
			width[c] = MAX(width[c], width_of(t->cells[i]));
		}
	}
	if (t->head[0][0] != '\0') {
		print_row(t->head, t, width, indent, out);
	}
	for (size_t i = 0; i < t->n; i += t->columns) {
		print_row((const char *const *)t->cells + i, t, width, indent, out);
	}
}

static int by_first_cell(const void *a, const void *b)
{
	const char *const *x = a, *const *y = b;

	return strverscmp(x[0], y[0]);
}

void table_sort(struct table *t)
{
	POST(t->n % t->columns == 0);
	if (t->n > 0) {
		qsort(t->cells, t->n / t->columns, t->columns * sizeof(*t->cells), by_first_cell);
	}
}

void table_done(struct table *t)
{
	for (size_t i = 0; i < t->n; i++) {
		mem_free(t->cells[i]);
	}
	mem_free(t->cells);
	memset(t, 0, sizeof(*t));
}

/* ---- times and sizes ---- */

/* Rounded down for what has passed, to the nearest for what is left: 23 h 59 min are 24 h then. */
static void rough(int64_t ms, bool nearest, char out[TIME_TEXT])
{
	static const struct {
		int64_t ms;
		const char *unit;
	} units[] = {{86400000, "d"}, {3600000, "h"}, {60000, "m"}, {1000, "s"}};

	for (size_t i = 0; i < ARRAY_LEN(units); i++) {
		/* "47h" says more than "1d". */
		int64_t n = (ms + (nearest ? units[i].ms / 2 : 0)) / units[i].ms;

		if (n >= (i < 2 ? 2 : 1) || i + 1 == ARRAY_LEN(units)) {
			snprintf(out, TIME_TEXT, "%" PRId64 "%s", n, units[i].unit);
			return;
		}
	}
}

const char *print_ago(int64_t then_ms, int64_t now_ms, char out[TIME_TEXT])
{
	char text[TIME_TEXT];

	if (then_ms == 0) {
		snprintf(out, TIME_TEXT, "never");
	} else if (now_ms - then_ms < 1000) {
		snprintf(out, TIME_TEXT, "now");
	} else {
		rough(now_ms - then_ms, false, text);
		snprintf(out, TIME_TEXT, "%.20s ago", text);
	}
	return out;
}

const char *print_left(const Google__Protobuf__Timestamp *ts, int64_t now_ms, char out[TIME_TEXT])
{
	char text[TIME_TEXT];
	int64_t then = pb_timestamp_ms(ts);

	if (!ts || then == 0) {
		snprintf(out, TIME_TEXT, "never");
	} else if (then <= now_ms && now_ms - then < 1000) {
		snprintf(out, TIME_TEXT, "now");
	} else if (then <= now_ms) {
		rough(now_ms - then, false, text);
		snprintf(out, TIME_TEXT, "%.20s ago", text);
	} else {
		rough(then - now_ms, true, text);
		snprintf(out, TIME_TEXT, "in %.20s", text);
	}
	return out;
}

const char *print_bytes(uint64_t n, char out[TIME_TEXT])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double v = (double)n;
	size_t u = 0;

	while (v >= 1024 && u + 1 < ARRAY_LEN(units)) {
		v /= 1024;
		u++;
	}
	snprintf(out, TIME_TEXT, u == 0 || v >= 100 ? "%.0f %s" : "%.1f %s", v, units[u]);
	return out;
}

const char *print_enum(const ProtobufCEnumDescriptor *desc, int value, char out[64])
{
	const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(desc, value);
	const char *name;
	size_t n = 0;

	if (!v) {
		snprintf(out, 64, "%d", value);
		return out;
	}
	/* The names of an enum begin with its own in upper snake case. */
	name = v->name;
	for (const char *p = desc->short_name; *p; p++) {
		if (p != desc->short_name && *p >= 'A' && *p <= 'Z' && name[n] == '_') {
			n++;
		}
		if ((*p & ~0x20) != (name[n] & ~0x20)) {
			n = 0;
			break;
		}
		n++;
	}
	if (n > 0 && name[n] == '_') {
		name += n + 1;
	}
	for (n = 0; name[n] && n < 63; n++) {
		out[n] = name[n] >= 'A' && name[n] <= 'Z' ? (char)(name[n] | 0x20)
			 : name[n] == '_'                 ? '-'
							  : name[n];
	}
	out[n] = '\0';
	return out;
}

/* ---- messages ---- */

void print_json(struct cli *cx, const void *msg)
{
	struct buf out = BUF_INIT;

	json_pb_write(msg, JSON_PB_DEFAULTS | JSON_PB_PRETTY, &out);
	buf_u8(&out, '\n');
	fwrite(out.data, 1, out.len, cx->io->out);
	buf_wipe(&out);
}

static void value_text(struct buf *out, const ProtobufCFieldDescriptor *f, const uint8_t *at)
{
	char text[64];

	switch (f->type) {
	case PROTOBUF_C_TYPE_STRING:
		buf_append_str(out, *(char *const *)at ? *(char *const *)at : "");
		break;
	case PROTOBUF_C_TYPE_BOOL:
		buf_append_str(out, *(const protobuf_c_boolean *)at ? "yes" : "");
		break;
	case PROTOBUF_C_TYPE_ENUM:
		if (*(const int *)at != 0) {
			buf_append_str(out, print_enum(f->descriptor, *(const int *)at, text));
		}
		break;
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_UINT32:
		if (*(const uint32_t *)at != 0) {
			buf_printf(out, "%" PRIu32, *(const uint32_t *)at);
		}
		break;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_UINT64:
		if (*(const uint64_t *)at != 0) {
			buf_printf(out, "%" PRIu64, *(const uint64_t *)at);
		}
		break;
	case PROTOBUF_C_TYPE_BYTES: {
		const ProtobufCBinaryData *b = (const ProtobufCBinaryData *)at;

		hex_append(out, b->data, b->len);
		break;
	}
	default: break;
	}
}

static void fields(struct cli *cx, struct table *t, const ProtobufCMessage *msg, const char *prefix)
{
	for (unsigned i = 0; i < msg->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &msg->descriptor->fields[i];
		const uint8_t *at = (const uint8_t *)msg + f->offset;
		struct buf text = BUF_INIT;
		bool many = f->label == PROTOBUF_C_LABEL_REPEATED;
		size_t n = many ? *(const size_t *)((const uint8_t *)msg + f->quantifier_offset)
				: 1;
		char *label = cli_printf(cx, "%s%s", prefix, f->name), left[TIME_TEXT],
		     when[CLOCK_TEXT];

		if (strcmp(f->name, "etag") == 0 || strcmp(f->name, "revision") == 0) {
			continue;
		}
		for (char *p = label; *p; p++) {
			*p = *p == '_' ? ' ' : *p;
		}
		if (many) {
			at = *(const uint8_t *const *)at;
		}
		for (size_t j = 0; j < n; j++, at += many ? pb_element_size(f->type) : 0) {
			const ProtobufCMessage *sub = f->type == PROTOBUF_C_TYPE_MESSAGE
							      ? *(ProtobufCMessage *const *)at
							      : NULL;

			if (sub && sub->descriptor == &google__protobuf__timestamp__descriptor) {
				const Google__Protobuf__Timestamp *ts =
					(const Google__Protobuf__Timestamp *)sub;
				int64_t now = clock_wall_ms();

				buf_printf(&text, "%s (%s)",
					   clock_format(pb_timestamp_ms(ts), when),
					   print_left(ts, now, left));
			} else if (sub &&
				   sub->descriptor == &google__protobuf__duration__descriptor) {
				char duration[DURATION_TEXT];

				buf_append_str(&text,
					       duration_format(pb_duration_ms((const void *)sub),
							       duration));
			} else if (sub) {
				fields(cx, t, sub, cli_printf(cx, "%s%s ", prefix, f->name));
			} else if (f->type != PROTOBUF_C_TYPE_MESSAGE) {
				if (text.len > 0) {
					buf_append_str(&text, ", ");
				}
				value_text(&text, f, at);
			}
		}
		if (text.len > 0) {
			table_cell(t, "%s", label);
			table_cell(t, "%s", buf_str(&text));
		}
		buf_wipe(&text);
	}
}

void print_fields(struct cli *cx, const void *msg)
{
	struct table t;

	table_init(&t, "", "", NULL);
	fields(cx, &t, msg, "");
	table_print(&t, "", cx->io->out);
	table_done(&t);
}

void print_reply(struct cli *cx, const void *msg)
{
	if (cli_json(cx)) {
		print_json(cx, msg);
	} else {
		print_fields(cx, msg);
	}
}
