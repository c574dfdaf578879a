/* LIBS: base
 * base/buf.h, base/rd.h, base/blob.h, base/enc.h, base/utf8.h */
#include "tests/lib/test.h"

#include "base/blob.h"
#include "base/buf.h"
#include "base/enc.h"
#include "base/mem.h"
#include "base/rd.h"
#include "base/utf8.h"

#include <pthread.h>

static void test_buf(void **state)
{
	static const uint8_t ints[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
	struct buf b = BUF_INIT;
	char big[5000];
	size_t len;
	char *s;

	(void)state;
	buf_append(&b, NULL, 0);
	assert_null(b.data);
	assert_string_equal(buf_str(&b), "");
	buf_u8(&b, 1);
	buf_u16be(&b, 0x0203);
	buf_u32be(&b, 0x04050607);
	buf_u64be(&b, 0x08090a0b0c0d0e0full);
	assert_int_equal(b.len, sizeof(ints));
	assert_memory_equal(b.data, ints, sizeof(ints));
	buf_consume(&b, 3);
	assert_int_equal(b.len, 12);
	assert_int_equal(b.data[0], 4);
	buf_consume(&b, 0);
	buf_consume(&b, 12);
	assert_int_equal(b.len, 0);
	buf_printf(&b, "%d %s", 42, "x");
	buf_append_str(&b, "!");
	assert_string_equal(buf_str(&b), "42 x!");
	buf_reset(&b);
	memset(big, 'q', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	buf_printf(&b, "%s", big);
	assert_int_equal(b.len, sizeof(big) - 1);
	s = buf_take(&b, &len);
	assert_int_equal(len, sizeof(big) - 1);
	assert_string_equal(s, big);
	assert_null(b.data);
	mem_free(s);
	s = buf_take(&b, NULL);
	assert_string_equal(s, "");
	mem_free(s);
	buf_append_str(&b, "secret");
	buf_wipe(&b);
	assert_int_equal(b.cap, 0);
	buf_done(&b);
	buf_done(NULL);
}

static void test_rd(void **state)
{
	static const uint8_t data[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17};
	uint8_t out[4];
	struct rd r;

	(void)state;
	rd_init(&r, data, sizeof(data));
	assert_int_equal(rd_u8(&r), 1);
	assert_int_equal(rd_u16be(&r), 0x0203);
	assert_int_equal(rd_u32be(&r), 0x04050607);
	assert_true(rd_u64be(&r) == 0x08090a0b0c0d0e0full);
	assert_int_equal(rd_left(&r), 2);
	assert_false(rd_ok_end(&r));
	rd_skip(&r, 1);
	assert_ptr_equal(rd_bytes(&r, 1), data + 16);
	assert_non_null(rd_bytes(&r, 0));
	assert_true(rd_ok_end(&r));

	/* Sticky: a later read that would fit fails as well. */
	rd_init(&r, data, 3);
	assert_int_equal(rd_u32be(&r), 0);
	assert_int_equal(rd_u8(&r), 0);
	assert_false(rd_ok(&r));
	assert_int_equal(rd_left(&r), 0);
	memset(out, 0xff, sizeof(out));
	rd_copy(&r, out, sizeof(out));
	assert_int_equal(out[0] | out[3], 0);

	rd_init(&r, data, 4);
	rd_copy(&r, out, 4);
	assert_memory_equal(out, data, 4);
	rd_fail(&r);
	assert_false(rd_ok_end(&r));

	rd_init(&r, NULL, 0);
	assert_true(rd_ok_end(&r));
	assert_null(rd_bytes(&r, SIZE_MAX));
	assert_false(rd_ok(&r));
}

static void *blob_user(void *arg)
{
	for (int i = 0; i < 20000; i++) {
		blob_unref(blob_ref(arg));
	}
	blob_unref(arg);
	return NULL;
}

static void test_blob(void **state)
{
	struct buf b = BUF_INIT;
	pthread_t threads[4];
	struct blob *x;

	(void)state;
	x = blob_new("abc", 3);
	assert_int_equal(x->len, 3);
	assert_memory_equal(x->data, "abc", 3);
	assert_ptr_equal(blob_ref(x), x);
	blob_unref(x);
	TEST_TABLE(t, threads)
	{
		assert_int_equal(pthread_create(t, NULL, blob_user, blob_ref(x)), 0);
	}
	TEST_TABLE(t, threads)
	{
		pthread_join(*t, NULL);
	}
	assert_int_equal(atomic_load(&x->refs), 1);
	blob_unref(x);
	buf_append_str(&b, "taken");
	x = blob_take(&b);
	assert_int_equal(b.len, 0);
	assert_int_equal(x->len, 5);
	blob_unref(x);
	x = blob_new(NULL, 0);
	assert_int_equal(x->len, 0);
	blob_unref(x);
	blob_unref(NULL);
}

static void test_hex(void **state)
{
	struct buf b = BUF_INIT;
	uint8_t out[8];
	char text[17];

	(void)state;
	hex_append(&b, "\x00\xff\x1a", 3);
	assert_string_equal(buf_str(&b), "00ff1a");
	assert_string_equal(hex_encode(text, "\xab", 1), "ab");
	assert_int_equal(hex_decode("00FF1a", 6, out, 3), 3);
	assert_memory_equal(out, "\x00\xff\x1a", 3);
	assert_int_equal(hex_decode("", 0, out, 0), 0);
	assert_err(hex_decode("00f", 3, out, 8), ERR_INVALID);
	assert_err(hex_decode("0g", 2, out, 8), ERR_INVALID);
	assert_err(hex_decode("0001", 4, out, 1), ERR_LIMIT);
	buf_done(&b);
}

static void test_base64(void **state)
{
	/* RFC 4648, section 10. */
	static const struct {
		const char *plain;
		const char *padded;
	} cases[] = {
		{"", ""},
		{"f", "Zg=="},
		{"fo", "Zm8="},
		{"foo", "Zm9v"},
		{"foob", "Zm9vYg=="},
		{"fooba", "Zm9vYmE="},
		{"foobar", "Zm9vYmFy"},
		{"\xfb\xff\xbf", "+/+/"},
	};
	static const char *const bad[] = {
		"Z", "Zg=", "Z===", "Zh==", "Zm9=", "Zg==Zg", "Zm 9v", "Zg=a", "Zm8==", "\x80g=="};
	struct buf b = BUF_INIT;
	uint8_t out[16];

	(void)state;
	TEST_TABLE(c, cases)
	{
		size_t plen = strlen(c->plain);
		size_t unpadded = strcspn(c->padded, "=");

		buf_reset(&b);
		base64_append(&b, c->plain, plen);
		assert_string_equal(buf_str(&b), c->padded);
		assert_int_equal(base64_decode(c->padded, strlen(c->padded), out, 16), plen);
		assert_memory_equal(out, c->plain, plen);
		assert_int_equal(base64_decode(c->padded, unpadded, out, plen), plen);
		assert_memory_equal(out, c->plain, plen);
	}
	TEST_TABLE(t, bad)
	{
		assert_err(base64_decode(*t, strlen(*t), out, 16), ERR_INVALID);
	}
	assert_err(base64_decode("Zm9v", 4, out, 2), ERR_LIMIT);
	assert_err(base64_decode("-_-_", 4, out, 16), ERR_INVALID);
	assert_int_equal(base64url_decode("-_-_", 4, out, 16), 3);
	assert_memory_equal(out, "\xfb\xff\xbf", 3);
	assert_err(base64url_decode("+/+/", 4, out, 16), ERR_INVALID);
	assert_int_equal(base64url_decode("Zg==", 4, out, 1), 1);
	buf_reset(&b);
	base64url_append(&b, "\xfb\xff\xbf\x01", 4);
	assert_string_equal(buf_str(&b), "-_-_AQ");
	buf_reset(&b);
	assert_ok(base64_decode_buf("Zm9vYmE=", 8, &b));
	assert_string_equal(buf_str(&b), "fooba");
	assert_err(base64_decode_buf("Zm9v*", 5, &b), ERR_INVALID);
	assert_string_equal(buf_str(&b), "fooba");
	buf_done(&b);
}

static void test_base32(void **state)
{
	static const struct {
		const char *plain;
		size_t len;
		const char *text;
	} cases[] = {
		{"", 0, ""},
		{"\x00", 1, "00"},
		{"\xff", 1, "zw"},
		{"foobar", 6, "csqpyrk1e8"},
		{"\xff\xff\xff\xff\xff", 5, "zzzzzzzz"},
	};
	/* Impossible length, spare bits that are not zero, letters outside the alphabet. */
	static const char *const bad[] = {"0", "000", "000000", "zz", "u0", "0-", "0=", "\xc3\xa9"};
	struct buf b = BUF_INIT;
	uint8_t out[16];

	(void)state;
	TEST_TABLE(c, cases)
	{
		buf_reset(&b);
		base32_append(&b, c->plain, c->len);
		assert_string_equal(buf_str(&b), c->text);
		assert_int_equal(b.len, BASE32_LEN(c->len));
		assert_int_equal(base32_decode(c->text, strlen(c->text), out, c->len), c->len);
		assert_memory_equal(out, c->plain, c->len);
	}
	TEST_TABLE(t, bad)
	{
		assert_err(base32_decode(*t, strlen(*t), out, 16), ERR_INVALID);
	}
	assert_err(base32_decode("zzzzzzzz", 8, out, 4), ERR_LIMIT);
	/* What people write instead. */
	assert_int_equal(base32_decode("OoI0", 4, out, 2), 2);
	assert_memory_equal(out, "\x00\x02", 2);
	assert_int_equal(base32_decode("Lo", 2, out, 1), 1);
	assert_int_equal(out[0], 0x08);
	assert_int_equal(base32_decode("ZW", 2, out, 1), 1);
	assert_int_equal(out[0], 0xff);
	assert_int_equal(base32_bad_char("abc", 3), 3);
	assert_int_equal(base32_bad_char("ab!", 3), 2);
	assert_int_equal(base32_bad_char("a\0b", 3), 1);
	buf_done(&b);
}

/* Every encoding gives back what went in, for random bytes of every small length. */
static void test_round_trips(void **state)
{
	struct test_rand r = {20261122};
	struct buf b = BUF_INIT;

	(void)state;
	for (size_t len = 0; len < 70; len++) {
		uint8_t in[70];
		uint8_t out[70];

		test_rand_fill_(&r, in, len);
		buf_reset(&b);
		hex_append(&b, in, len);
		assert_int_equal(hex_decode((char *)b.data, b.len, out, 70), len);
		assert_memory_equal(in, out, len);
		buf_reset(&b);
		base64_append(&b, in, len);
		assert_int_equal(base64_decode((char *)b.data, b.len, out, len), len);
		assert_memory_equal(in, out, len);
		buf_reset(&b);
		base64url_append(&b, in, len);
		assert_int_equal(base64url_decode((char *)b.data, b.len, out, len), len);
		assert_memory_equal(in, out, len);
		buf_reset(&b);
		base32_append(&b, in, len);
		assert_int_equal(base32_decode((char *)b.data, b.len, out, len), len);
		assert_memory_equal(in, out, len);
		buf_reset(&b);
		percent_append(&b, (char *)in, len);
		{
			struct buf back = BUF_INIT;

			percent_decode(&back, (char *)b.data, b.len);
			assert_int_equal(back.len, len);
			if (len > 0) {
				assert_memory_equal(back.data, in, len);
			}
			buf_done(&back);
		}
	}
	buf_done(&b);
}

static void test_percent(void **state)
{
	static const struct {
		const char *in;
		const char *out;
	} decoded[] = {
		{"a%20b", "a b"}, {"%", "%"}, {"%4", "%4"}, {"%zz", "%zz"}, {"100%25", "100%"},
	};
	struct buf b = BUF_INIT;

	(void)state;
	percent_append(&b, "a b%\n\xc3\xa9~", 8);
	assert_string_equal(buf_str(&b), "a b%25%0A%C3%A9~");
	TEST_TABLE(c, decoded)
	{
		buf_reset(&b);
		percent_decode(&b, c->in, strlen(c->in));
		assert_string_equal(buf_str(&b), c->out);
	}
	buf_done(&b);
}

static void test_be(void **state)
{
	uint8_t b[8];

	(void)state;
	be_put64(b, 0x0102030405060708ull);
	assert_int_equal(b[0], 1);
	assert_true(be_get64(b) == 0x0102030405060708ull);
	assert_int_equal(be_get32(b), 0x01020304);
	assert_int_equal(be_get16(b + 6), 0x0708);
	be_put32(b, 0xfffefdfc);
	assert_true(be_get32(b) == 0xfffefdfcu);
	le_put64(b, 0x0102030405060708ull);
	assert_int_equal(b[0], 8);
	assert_true(le_get64(b) == 0x0102030405060708ull);
}

static void test_utf8(void **state)
{
	static const struct {
		const char *text;
		size_t len;
		size_t good; /* valid prefix */
	} cases[] = {
		{"", 0, 0},
		{"abc", 3, 3},
		{"\xc3\xa9", 2, 2},
		{"\xe2\x82\xac", 3, 3},
		{"\xf0\x9f\x98\x80", 4, 4},
		{"\xf4\x8f\xbf\xbf", 4, 4},
		{"a\x80", 2, 1},            /* lone continuation */
		{"\xc0\x80", 2, 0},         /* overlong NUL */
		{"\xc1\xbf", 2, 0},         /* overlong */
		{"\xe0\x9f\xbf", 3, 0},     /* overlong */
		{"\xf0\x8f\xbf\xbf", 4, 0}, /* overlong */
		{"\xed\xa0\x80", 3, 0},     /* surrogate */
		{"\xf4\x90\x80\x80", 4, 0}, /* above U+10FFFF */
		{"\xf5\x80\x80\x80", 4, 0},
		{"a\xe2\x82", 3, 1}, /* cut */
		{"\xe2\x82"
		 "a",
		 3, 0},
		{"\xff", 1, 0},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		assert_int_equal(utf8_valid_prefix(c->text, c->len, true), c->good);
		assert_int_equal(utf8_valid(c->text, c->len, true), c->good == c->len);
	}
	/* Each of them behind so many plain characters, and before so many: eight are looked at together. */
	TEST_TABLE(c, cases)
	{
		for (size_t before = 0; before < 18; before++) {
			char text[48];

			memset(text, 'x', sizeof(text));
			memcpy(text + before, c->text, c->len);
			assert_int_equal(utf8_valid_prefix(text, before + c->len, true),
					 before + c->good);
			if (c->good == c->len) {
				assert_true(utf8_valid(text, sizeof(text), true));
			}
		}
	}
	for (size_t at = 0; at < 20; at++) {
		char text[20];

		for (unsigned byte = 0; byte < 256; byte++) {
			bool control = byte < 0x20 || byte == 0x7f;

			memset(text, ' ', sizeof(text));
			text[at] = (char)byte;
			assert_int_equal(utf8_find_control(text, sizeof(text)),
					 control ? at : sizeof(text));
		}
		memset(text, 'x', sizeof(text));
		text[at] = '\0';
		assert_int_equal(utf8_valid_prefix(text, sizeof(text), true), at);
		assert_int_equal(utf8_valid_prefix(text, sizeof(text), false), sizeof(text));
	}
	assert_true(utf8_valid("a\0b", 3, false));
	assert_false(utf8_valid("a\0b", 3, true));
	assert_int_equal(utf8_valid_prefix("a\0b", 3, true), 1);
	assert_int_equal(utf8_cut("a\xe2\x82\xac", 4, 4), 4);
	assert_int_equal(utf8_cut("a\xe2\x82\xac", 4, 3), 1);
	assert_int_equal(utf8_cut("abc", 3, 2), 2);
	assert_int_equal(utf8_cut("abc", 3, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_buf),         cmocka_unit_test(test_rd),
		cmocka_unit_test(test_blob),        cmocka_unit_test(test_hex),
		cmocka_unit_test(test_base64),      cmocka_unit_test(test_base32),
		cmocka_unit_test(test_round_trips), cmocka_unit_test(test_percent),
		cmocka_unit_test(test_be),          cmocka_unit_test(test_utf8),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
