/* LIBS: base
 * base/jsonx.h */
#include "tests/lib/test.h"

#include <unistd.h>

#include "base/buf.h"
#include "base/jsonx.h"
#include "base/limits.h"

#include <math.h>

static struct jsonx *parse(const char *text)
{
	struct jsonx *v = NULL;
	struct err e = {0};

	if (jsonx_parse(text, strlen(text), "t", &v, &e) < 0) {
		TEST_FAIL("%s: %s", text, e.msg);
	}
	return v;
}

static void test_read(void **state)
{
	struct jsonx *v = parse("{\"s\":\"a\\u00e9\\n\",\"i\":-5,\"b\":true,\"r\":1.5,\"n\":null,"
				"\"a\":[1,2,3],\"o\":{\"x\":1}}");
	struct jsonx_iter it = {0};
	char keys[16] = "";
	size_t len = 0;

	(void)state;
	assert_int_equal(jsonx_type(v), JSONX_OBJECT);
	assert_int_equal(jsonx_len(v), 7);
	assert_string_equal(jsonx_str(jsonx_get(v, "s"), "def"), "a\xc3\xa9\n");
	assert_non_null(jsonx_str_len(jsonx_get(v, "s"), &len));
	assert_int_equal(len, 4);
	assert_null(jsonx_str_len(jsonx_get(v, "i"), &len));
	assert_int_equal(jsonx_int(jsonx_get(v, "i"), 9), -5);
	assert_true(jsonx_bool(jsonx_get(v, "b"), false));
	assert_true(jsonx_real(jsonx_get(v, "r"), 0) == 1.5);
	assert_true(jsonx_real(jsonx_get(v, "i"), 0) == -5);
	assert_int_equal(jsonx_type(jsonx_get(v, "n")), JSONX_NULL);
	assert_int_equal(jsonx_len(jsonx_get(v, "a")), 3);
	assert_int_equal(jsonx_int(jsonx_at(jsonx_get(v, "a"), 2), 0), 3);
	assert_null(jsonx_at(jsonx_get(v, "a"), 3));
	while (jsonx_next(v, &it)) {
		strncat(keys, it.key, sizeof(keys) - strlen(keys) - 1);
		assert_ptr_equal(it.value, jsonx_get(v, it.key));
	}
	assert_string_equal(keys, "sibrnao");
	/* Absent, and of another type. */
	assert_null(jsonx_get(v, "none"));
	assert_null(jsonx_get(NULL, "x"));
	assert_string_equal(jsonx_str(NULL, "def"), "def");
	assert_string_equal(jsonx_str(jsonx_get(v, "i"), "def"), "def");
	assert_int_equal(jsonx_int(NULL, 7), 7);
	assert_int_equal(jsonx_int(jsonx_get(v, "s"), 7), 7);
	assert_true(jsonx_bool(jsonx_get(v, "i"), true));
	assert_int_equal(jsonx_len(NULL), 0);
	assert_int_equal(jsonx_type(NULL), JSONX_NULL);
	jsonx_free(v);
	jsonx_free(NULL);
}

static void test_refusals(void **state)
{
	static const struct {
		const char *text;
		const char *field;
	} cases[] = {
		{"", "t:1:"},
		{"{", "t:1:"},
		{"{\"a\":1,}", "t:1:"},
		{"{\"a\":1,\n\"a\":2}", "t:2:"},
		{"[1] 2", "t:1:"},
		{"'a'", "t:1:"},
		{"{a:1}", "t:1:"},
		{"[01]", "t:1:"},
		{"[NaN]", "t:1:"},
		{"\"\xff\"", "t:1:"},
		{"\"\\ud800\"", "t:1:"},
		{"\"\\u0000\"", "t:1:"},
		{"9223372036854775808", "t:1:"},
		{"// c\n1", "t:1:"},
	};
	struct jsonx *v = NULL;
	struct err e = {0};

	(void)state;
	TEST_TABLE(c, cases)
	{
		if (jsonx_parse(c->text, strlen(c->text), "t", &v, &e) != ERR_INVALID) {
			TEST_FAIL("accepted: %s", c->text);
		}
		assert_contains(e.field, c->field);
		assert_contains(e.msg, "not valid JSON");
		assert_null(v);
	}
}

static void test_depth(void **state)
{
	char text[2 * (LIM_JSON_DEPTH + 1) + 1];
	struct jsonx *v = NULL;
	struct err e = {0};
	struct buf b = BUF_INIT;

	(void)state;
	for (int depth = LIM_JSON_DEPTH; depth <= LIM_JSON_DEPTH + 1; depth++) {
		memset(text, '[', (size_t)depth);
		memset(text + depth, ']', (size_t)depth);
		if (depth == LIM_JSON_DEPTH) {
			assert_ok(jsonx_parse(text, 2 * (size_t)depth, "t", &v, &e));
			jsonx_dump(v, false, &b);
			assert_memory_equal(b.data, text, 2 * (size_t)depth);
			jsonx_free(v);
		} else {
			assert_err(jsonx_parse(text, 2 * (size_t)depth, "t", &v, &e), ERR_INVALID);
			assert_contains(e.msg, "nests deeper");
		}
	}
	/* Brackets in strings do not count, nor do escaped quotes end them. */
	buf_reset(&b);
	buf_append_str(&b, "\"\\\"");
	for (int i = 0; i < 200; i++) {
		buf_append_str(&b, "[{");
	}
	buf_append_str(&b, "\"");
	assert_ok(jsonx_parse(buf_str(&b), b.len, "t", &v, &e));
	jsonx_free(v);
	buf_done(&b);
}

static void test_integers(void **state)
{
	static const struct {
		const char *text;
		bool i64;
		bool u64;
		uint64_t value;
	} cases[] = {
		{"5", true, true, 5},
		{"-5", true, false, (uint64_t)-5},
		{"\"5\"", true, true, 5},
		{"\"-5\"", true, false, (uint64_t)-5},
		{"9223372036854775807", true, true, INT64_MAX},
		{"\"18446744073709551615\"", false, true, UINT64_MAX},
		{"\"18446744073709551616\"", false, false, 0},
		{"\"\"", false, false, 0},
		{"\" 5\"", false, false, 0},
		{"\"+5\"", false, false, 0},
		{"\"5x\"", false, false, 0},
		{"\"-\"", false, false, 0},
		{"5.0", false, false, 0},
		{"true", false, false, 0},
		{"null", false, false, 0},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		struct jsonx *v = parse(c->text);
		int64_t i = 0;
		uint64_t u = 0;

		assert_int_equal(jsonx_get_i64(v, &i) == 0, c->i64);
		assert_int_equal(jsonx_get_u64(v, &u) == 0, c->u64);
		if (c->i64) {
			assert_true((uint64_t)i == c->value);
		}
		if (c->u64) {
			assert_true(u == c->value);
		}
		jsonx_free(v);
	}
}

static void write_sample(struct jsonw *w)
{
	jsonw_object(w);
	jsonw_kstr(w, "s", "a\"\\\n\t\r\x01\x7f\xc3\xa9\xff");
	jsonw_kstr(w, "nul", NULL);
	jsonw_ku64s(w, "id", UINT64_MAX);
	jsonw_ki64(w, "i", INT64_MIN);
	jsonw_kbool(w, "b", false);
	jsonw_key(w, "a");
	jsonw_array(w);
	jsonw_u64(w, 1);
	jsonw_i64s(w, -2);
	jsonw_real(w, 0.1);
	jsonw_real(w, 3);
	jsonw_real(w, INFINITY);
	jsonw_array(w);
	jsonw_end(w);
	jsonw_raw(w, "{}", 2);
	jsonw_end(w);
	jsonw_key(w, "e");
	jsonw_object(w);
	jsonw_end(w);
	jsonw_end(w);
}

static void test_write(void **state)
{
	static const char compact[] =
		"{\"s\":\"a\\\"\\\\\\n\\t\\r\\u0001\\u007f\xc3\xa9\xef\xbf\xbd\",\"nul\":null,"
		"\"id\":\"18446744073709551615\",\"i\":-9223372036854775808,\"b\":false,"
		"\"a\":[1,\"-2\",0.1,3.0,\"Infinity\",[],{}],\"e\":{}}";
	static const char pretty[] = "{\n  \"a\": [\n    1,\n    {\n      \"b\": []\n    }\n  ]\n}";
	struct buf b = BUF_INIT;
	struct jsonx *v;
	struct jsonw w;

	(void)state;
	jsonw_init(&w, &b, false);
	write_sample(&w);
	assert_string_equal(buf_str(&b), compact);
	v = parse(buf_str(&b));
	buf_reset(&b);
	jsonx_dump(v, false, &b);
	assert_string_equal(buf_str(&b), compact);
	jsonx_free(v);
	v = parse("{\"a\":[1,{\"b\":[]}]}");
	buf_reset(&b);
	jsonx_dump(v, true, &b);
	assert_string_equal(buf_str(&b), pretty);
	jsonx_free(v);
	buf_done(&b);
}

static void put_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void test_file(void **state)
{
	char path[] = "/tmp/skerry-jsonx-XXXXXX";
	int fd = mkstemp(path);
	struct jsonx *v = NULL;
	struct err e = {0};

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	put_file(path, "{\"format\": 2, \"a\": 7}");
	assert_ok(jsonx_read(path, 100, 2, &v, &e));
	assert_int_equal(jsonx_int(jsonx_get(v, "a"), 0), 7);
	jsonx_free(v);
	assert_err(jsonx_read(path, 100, 3, &v, &e), ERR_CORRUPT);
	assert_contains(e.msg, path);
	assert_err(jsonx_read(path, 5, 2, &v, &e), ERR_LIMIT);
	put_file(path, "{");
	assert_err(jsonx_read(path, 100, 2, &v, &e), ERR_INVALID);
	unlink(path);
	assert_ok(jsonx_read(path, 100, 2, &v, &e));
	assert_null(v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read),  cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_depth), cmocka_unit_test(test_integers),
		cmocka_unit_test(test_write), cmocka_unit_test(test_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
