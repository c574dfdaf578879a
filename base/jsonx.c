#include "base/jsonx.h"

#include "base/buf.h"
#include "base/err.h"
#include "base/fileio.h"
#include "base/limits.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* struct jsonx is jansson's json_t under a name of our own, so that nobody else includes it. */
static const json_t *of(const struct jsonx *v)
{
	return (const json_t *)v;
}

static const struct jsonx *to(const json_t *v)
{
	return (const struct jsonx *)v;
}

/* jansson allows 2048 levels, on the stack. Brackets in strings do not count. Returns the byte
 * where the limit is passed, or len. */
static size_t too_deep_at(const char *text, size_t len)
{
	bool in_string = false;
	size_t depth = 0;

	for (size_t i = 0; i < len; i++) {
		char c = text[i];

		if (in_string) {
			if (c == '\\') {
				i++;
			} else if (c == '"') {
				in_string = false;
			}
		} else if (c == '"') {
			in_string = true;
		} else if (c == '[' || c == '{') {
			if (++depth > LIM_JSON_DEPTH) {
				return i;
			}
		} else if ((c == ']' || c == '}') && depth > 0) {
			depth--;
		}
	}
	return len;
}

int jsonx_parse(const char *text, size_t len, const char *name, struct jsonx **ret, struct err *e)
{
	char place[sizeof(e->field)];
	json_error_t error;
	json_t *v;

	if (too_deep_at(text, len) < len) {
		return err_field(e, ERR_INVALID, name, "%.80s: JSON nests deeper than %d levels",
				 name, LIM_JSON_DEPTH);
	}
	v = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
	if (v == NULL) {
		snprintf(place, sizeof(place), "%.60s:%d:%d", name, error.line, error.column);
		/* The library's text names a flag of its own here. */
		if (json_error_code(&error) == json_error_null_character) {
			return err_field(e, ERR_INVALID, place,
					 "%s: not valid JSON: no text may hold NUL (\\u0000)",
					 place);
		}
		return err_field(e, ERR_INVALID, place, "%s: not valid JSON: %s", place,
				 error.text);
	}
	*ret = (struct jsonx *)v;
	return 0;
}

int jsonx_read(const char *path, size_t max, int64_t format, struct jsonx **ret, struct err *e)
{
	struct jsonx *root = NULL;
	struct buf b = BUF_INIT;
	int r = 0;

	if (file_exists(path)) {
		r = file_read(path, max, &b, e);
		if (r >= 0) {
			r = jsonx_parse((const char *)b.data, b.len, path, &root, e);
		}
		if (r >= 0 && jsonx_int(jsonx_get(root, "format"), 0) != format) {
			jsonx_free(root);
			r = err_set(e, ERR_CORRUPT, "%s: unknown format", path);
		}
		buf_done(&b);
	}
	if (r < 0) {
		return r;
	}
	*ret = root;
	return 0;
}

void jsonx_free(struct jsonx *root)
{
	json_decref((json_t *)root);
}

enum jsonx_type jsonx_type(const struct jsonx *v)
{
	if (v == NULL) {
		return JSONX_NULL;
	}
	switch (json_typeof(of(v))) {
	case JSON_OBJECT: return JSONX_OBJECT;
	case JSON_ARRAY: return JSONX_ARRAY;
	case JSON_STRING: return JSONX_STRING;
	case JSON_INTEGER: return JSONX_INT;
	case JSON_REAL: return JSONX_REAL;
	case JSON_TRUE:
	case JSON_FALSE: return JSONX_BOOL;
	case JSON_NULL: return JSONX_NULL;
	}
	return JSONX_NULL;
}

const struct jsonx *jsonx_get(const struct jsonx *obj, const char *key)
{
	return to(json_object_get(of(obj), key));
}

size_t jsonx_len(const struct jsonx *v)
{
	return json_is_array(of(v)) ? json_array_size(of(v)) : json_object_size(of(v));
}

const struct jsonx *jsonx_at(const struct jsonx *arr, size_t i)
{
	return to(json_array_get(of(arr), i));
}

const char *jsonx_str(const struct jsonx *v, const char *def)
{
	return json_is_string(of(v)) ? json_string_value(of(v)) : def;
}

const char *jsonx_str_len(const struct jsonx *v, size_t *ret_len)
{
	if (!json_is_string(of(v))) {
		return NULL;
	}
	*ret_len = json_string_length(of(v));
	return json_string_value(of(v));
}

bool jsonx_bool(const struct jsonx *v, bool def)
{
	return json_is_boolean(of(v)) ? json_is_true(of(v)) : def;
}

int64_t jsonx_int(const struct jsonx *v, int64_t def)
{
	return json_is_integer(of(v)) ? json_integer_value(of(v)) : def;
}

double jsonx_real(const struct jsonx *v, double def)
{
	return json_is_number(of(v)) ? json_number_value(of(v)) : def;
}

/* Digits only, with a sign where allowed: strtoull takes blanks and signs, which JSON's decimal
 * strings must not have. */
static bool decimal(const char *s, bool sign)
{
	if (sign && *s == '-') {
		s++;
	}
	return *s != '\0' && strspn(s, "0123456789") == strlen(s);
}

int jsonx_get_i64(const struct jsonx *v, int64_t *ret)
{
	const char *s = jsonx_str(v, NULL);
	long long n;

	if (json_is_integer(of(v))) {
		*ret = json_integer_value(of(v));
		return 0;
	}
	if (s == NULL || !decimal(s, true)) {
		return ERR_INVALID;
	}
	errno = 0;
	n = strtoll(s, NULL, 10);
	if (errno != 0) {
		return ERR_INVALID;
	}
	*ret = n;
	return 0;
}

int jsonx_get_u64(const struct jsonx *v, uint64_t *ret)
{
	const char *s = jsonx_str(v, NULL);
	unsigned long long n;

	if (json_is_integer(of(v))) {
		if (json_integer_value(of(v)) < 0) {
			return ERR_INVALID;
		}
		*ret = (uint64_t)json_integer_value(of(v));
		return 0;
	}
	if (s == NULL || !decimal(s, false)) {
		return ERR_INVALID;
	}
	errno = 0;
	n = strtoull(s, NULL, 10);
	if (errno != 0) {
		return ERR_INVALID;
	}
	*ret = n;
	return 0;
}

bool jsonx_next(const struct jsonx *obj, struct jsonx_iter *it)
{
	/* The iteration does not change the object; jansson only lacks the const. */
	json_t *o = (json_t *)(uintptr_t)obj;

	it->pos_ = it->pos_ == NULL ? json_object_iter(o) : json_object_iter_next(o, it->pos_);
	if (it->pos_ == NULL) {
		return false;
	}
	it->key = json_object_iter_key(it->pos_);
	it->value = to(json_object_iter_value(it->pos_));
	return true;
}

static void dump(const struct jsonx *v, struct jsonw *w)
{
	struct jsonx_iter it = {0};
	size_t len = 0;
	const char *s;

	switch (jsonx_type(v)) {
	case JSONX_NULL: jsonw_null(w); break;
	case JSONX_BOOL: jsonw_bool(w, jsonx_bool(v, false)); break;
	case JSONX_INT: jsonw_i64(w, jsonx_int(v, 0)); break;
	case JSONX_REAL: jsonw_real(w, jsonx_real(v, 0)); break;
	case JSONX_STRING:
		s = jsonx_str_len(v, &len);
		jsonw_strn(w, s, len);
		break;
	case JSONX_ARRAY:
		jsonw_array(w);
		for (size_t i = 0; i < jsonx_len(v); i++) {
			dump(jsonx_at(v, i), w);
		}
		jsonw_end(w);
		break;
	case JSONX_OBJECT:
		jsonw_object(w);
		while (jsonx_next(v, &it)) {
			jsonw_key(w, it.key);
			dump(it.value, w);
		}
		jsonw_end(w);
		break;
	}
}

/* Recursion is bounded: the reader took no more than LIM_JSON_DEPTH levels. */
void jsonx_dump(const struct jsonx *v, bool pretty, struct buf *out)
{
	struct jsonw w;

	jsonw_init(&w, out, pretty);
	dump(v, &w);
}
