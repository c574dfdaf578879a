/* The writer half of base/jsonx.h. */
#include "base/buf.h"
#include "base/jsonx.h"
#include "base/limits.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(JSONW_DEPTH >= LIM_JSON_DEPTH, "what was read can be written");

void jsonw_init(struct jsonw *w, struct buf *out, bool pretty)
{
	memset(w, 0, sizeof(*w));
	w->out = out;
	w->pretty = pretty;
}

static void line_break(struct jsonw *w)
{
	if (w->pretty) {
		buf_printf(w->out, "\n%*s", 2 * w->depth, "");
	}
}

/* What comes before an element: nothing after a key, else a comma where due and a new line. */
static void element(struct jsonw *w)
{
	if (w->after_key) {
		w->after_key = false;
		return;
	}
	if (w->depth == 0) {
		return;
	}
	if (w->level[w->depth - 1].any) {
		buf_u8(w->out, ',');
	}
	w->level[w->depth - 1].any = true;
	line_break(w);
}

static void value(struct jsonw *w)
{
	PRE(w->depth == 0 || w->after_key || w->level[w->depth - 1].close == ']');
	element(w);
}

static void open_level(struct jsonw *w, char open, char close)
{
	value(w);
	PRE(w->depth < JSONW_DEPTH);
	buf_u8(w->out, (uint8_t)open);
	w->level[w->depth].close = close;
	w->level[w->depth].any = false;
	w->depth++;
}

void jsonw_object(struct jsonw *w)
{
	open_level(w, '{', '}');
}

void jsonw_array(struct jsonw *w)
{
	open_level(w, '[', ']');
}

void jsonw_end(struct jsonw *w)
{
	PRE(w->depth > 0 && !w->after_key);
	w->depth--;
	if (w->level[w->depth].any) {
		line_break(w);
	}
	buf_u8(w->out, (uint8_t)w->level[w->depth].close);
}

static void quoted(struct buf *b, const char *s, size_t len)
{
	buf_u8(b, '"');
	while (len > 0) {
		size_t good = utf8_valid_prefix(s, len, false);

		for (size_t i = 0; i < good; i++) {
			unsigned char c = (unsigned char)s[i];

			if (c == '"' || c == '\\') {
				buf_u8(b, '\\');
				buf_u8(b, c);
			} else if (c == '\n') {
				buf_append_str(b, "\\n");
			} else if (c == '\t') {
				buf_append_str(b, "\\t");
			} else if (c == '\r') {
				buf_append_str(b, "\\r");
			} else if (c < 0x20 || c == 0x7f) {
				buf_printf(b, "\\u%04x", c);
			} else {
				buf_u8(b, c);
			}
		}
		s += good;
		len -= good;
		if (len > 0) {
			buf_append_str(b, "\xef\xbf\xbd");
			s++;
			len--;
		}
	}
	buf_u8(b, '"');
}

void jsonw_key(struct jsonw *w, const char *key)
{
	PRE(w->depth > 0 && w->level[w->depth - 1].close == '}' && !w->after_key);
	element(w);
	quoted(w->out, key, strlen(key));
	buf_append_str(w->out, w->pretty ? ": " : ":");
	w->after_key = true;
}

void jsonw_strn(struct jsonw *w, const char *s, size_t len)
{
	value(w);
	quoted(w->out, s, len);
}

void jsonw_str(struct jsonw *w, const char *s)
{
	if (s == NULL) {
		jsonw_null(w);
	} else {
		jsonw_strn(w, s, strlen(s));
	}
}

void jsonw_raw(struct jsonw *w, const char *json, size_t len)
{
	value(w);
	buf_append(w->out, json, len);
}

void jsonw_bool(struct jsonw *w, bool v)
{
	value(w);
	buf_append_str(w->out, v ? "true" : "false");
}

void jsonw_null(struct jsonw *w)
{
	value(w);
	buf_append_str(w->out, "null");
}

void jsonw_i64(struct jsonw *w, int64_t v)
{
	value(w);
	buf_printf(w->out, "%" PRId64, v);
}

void jsonw_u64(struct jsonw *w, uint64_t v)
{
	value(w);
	buf_printf(w->out, "%" PRIu64, v);
}

void jsonw_i64s(struct jsonw *w, int64_t v)
{
	value(w);
	buf_printf(w->out, "\"%" PRId64 "\"", v);
}

void jsonw_u64s(struct jsonw *w, uint64_t v)
{
	value(w);
	buf_printf(w->out, "\"%" PRIu64 "\"", v);
}

void jsonw_real(struct jsonw *w, double v)
{
	char text[40];

	if (isnan(v) || isinf(v)) {
		jsonw_str(w, isnan(v) ? "NaN" : v > 0 ? "Infinity" : "-Infinity");
		return;
	}
	value(w);
	/* The shortest form that reads back as the same number. */
	for (int digits = 15; digits <= 17; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, v);
		if (strtod(text, NULL) == v) {
			break;
		}
	}
	buf_append_str(w->out, text);
	/* A real stays one when it is read again. */
	if (strpbrk(text, ".e") == NULL) {
		buf_append_str(w->out, ".0");
	}
}

void jsonw_kstr(struct jsonw *w, const char *key, const char *s)
{
	jsonw_key(w, key);
	jsonw_str(w, s);
}

void jsonw_kbool(struct jsonw *w, const char *key, bool v)
{
	jsonw_key(w, key);
	jsonw_bool(w, v);
}

void jsonw_ki64(struct jsonw *w, const char *key, int64_t v)
{
	jsonw_key(w, key);
	jsonw_i64(w, v);
}

void jsonw_ku64s(struct jsonw *w, const char *key, uint64_t v)
{
	jsonw_key(w, key);
	jsonw_u64s(w, v);
}
