/* JSON: a strict reader (over jansson, hidden) and a writer that appends to a buffer. */
#pragma once

#include "base/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct err;

/* A value; the root owns the whole tree, everything reached from it is borrowed. Immutable. */
struct jsonx;

enum jsonx_type {
	JSONX_NULL,
	JSONX_BOOL,
	JSONX_INT,
	JSONX_REAL,
	JSONX_STRING,
	JSONX_ARRAY,
	JSONX_OBJECT,
};

/* Strict RFC 8259, UTF-8, no duplicate keys, no \u0000, nothing after the value, depth at most
 * LIM_JSON_DEPTH. Errors are
 * ERR_INVALID with field "name:line:column". On success the caller owns *ret (jsonx_free). */
int jsonx_parse(const char *text, size_t len, const char *name, struct jsonx **ret,
		struct err *e) MUST_CHECK;
/*
 * A file of ours: an object whose "format" is that number. A file that is not there is none: *ret NULL, 0. ERR_CORRUPT with
 * the path: another format; else the errors of file_read and jsonx_parse.
 */
int jsonx_read(const char *path, size_t max, int64_t format, struct jsonx **ret,
	       struct err *e) MUST_CHECK;
/* NULL is fine. */
void jsonx_free(struct jsonx *root);

/* The readers accept NULL as value and give the "absent" answer. */
/* JSONX_NULL for NULL. */
enum jsonx_type jsonx_type(const struct jsonx *v);
/* Member of an object, or NULL. */
const struct jsonx *jsonx_get(const struct jsonx *obj, const char *key);
/* Elements of an array, members of an object, else 0. */
size_t jsonx_len(const struct jsonx *v);
const struct jsonx *jsonx_at(const struct jsonx *arr, size_t i);
/* Text of a string, else def. */
const char *jsonx_str(const struct jsonx *v, const char *def);
/* As jsonx_str, with the length; NULL if it is no string. */
const char *jsonx_str_len(const struct jsonx *v, size_t *ret_len);
bool jsonx_bool(const struct jsonx *v, bool def);
int64_t jsonx_int(const struct jsonx *v, int64_t def);
double jsonx_real(const struct jsonx *v, double def);
/* An integer as number or as decimal string (protobuf's JSON form of 64 bits). ERR_INVALID. */
int jsonx_get_i64(const struct jsonx *v, int64_t *ret) MUST_CHECK;
int jsonx_get_u64(const struct jsonx *v, uint64_t *ret) MUST_CHECK;

/* Members of an object in the order of insertion:
 *   struct jsonx_iter it = {0};
 *   while (jsonx_next(obj, &it)) use(it.key, it.value); */
struct jsonx_iter {
	const char *key;
	const struct jsonx *value;
	void *pos_;
};
bool jsonx_next(const struct jsonx *obj, struct jsonx_iter *it);
/* Appends the value as text, compact or indented by two spaces. */
void jsonx_dump(const struct jsonx *v, bool pretty, struct buf *out);

/* The writer: commas, quotes and indentation by itself. Wrong nesting is a programming error.
 *   struct jsonw w; jsonw_init(&w, out, false);
 *   jsonw_object(&w); jsonw_key(&w, "id"); jsonw_u64s(&w, 7); jsonw_end(&w); */
#define JSONW_DEPTH 64
struct jsonw {
	struct buf *out; /* borrowed */
	bool pretty;
	uint8_t depth;
	bool after_key;
	struct {
		char close; /* ']' or '}' */
		bool any;   /* has an element already */
	} level[JSONW_DEPTH];
};
void jsonw_init(struct jsonw *w, struct buf *out, bool pretty);
void jsonw_object(struct jsonw *w);
void jsonw_array(struct jsonw *w);
/* Closes the innermost object or array. */
void jsonw_end(struct jsonw *w);
void jsonw_key(struct jsonw *w, const char *key);
/* Bytes that are not UTF-8 become U+FFFD. NULL writes null. */
void jsonw_str(struct jsonw *w, const char *s);
void jsonw_strn(struct jsonw *w, const char *s, size_t len);
void jsonw_bool(struct jsonw *w, bool v);
void jsonw_null(struct jsonw *w);
void jsonw_i64(struct jsonw *w, int64_t v);
void jsonw_u64(struct jsonw *w, uint64_t v);
/* As decimal strings: protobuf's JSON form of 64-bit integers. */
void jsonw_i64s(struct jsonw *w, int64_t v);
void jsonw_u64s(struct jsonw *w, uint64_t v);
/* NaN and infinities become the strings of protobuf's JSON form. */
void jsonw_real(struct jsonw *w, double v);
/* Key and value at once. */
void jsonw_kstr(struct jsonw *w, const char *key, const char *s);
void jsonw_kbool(struct jsonw *w, const char *key, bool v);
void jsonw_ki64(struct jsonw *w, const char *key, int64_t v);
void jsonw_ku64s(struct jsonw *w, const char *key, uint64_t v);
/* A value that is JSON already. */
void jsonw_raw(struct jsonw *w, const char *json, size_t len);
