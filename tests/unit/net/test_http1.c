/* The HTTP/1.1 engine, bytes in and bytes out: messages and their limits.
 * LIBS: net */
#include "tests/unit/net/http1_fix.h"

static void test_get(void **state UNUSED)
{
	struct fix f;

	begin(&f);
	f.seen.mode = EMPTY;
	assert_ok(feed_str(&f, GET));
	assert_string_equal(f.seen.method, "GET");
	assert_string_equal(f.seen.path, "/p/x");
	assert_string_equal(f.seen.query, "q=1");
	assert_string_equal(f.seen.authority, "a.example:8443");
	assert_string_equal(f.seen.header, "v w");
	assert_contains(buf_str(&f.out), "HTTP/1.1 204 No Content\r\n");
	assert_contains(buf_str(&f.out), "\r\ndate: ");
	assert_lacks(buf_str(&f.out), "content-length");
	assert_lacks(buf_str(&f.out), "connection: close");
	assert_int_equal(f.seen.closes, 1);
	assert_int_equal(f.seen.close_code, 0);
	assert_false(finished(&f));
	/* the connection goes on */
	assert_ok(feed_str(&f, GET));
	assert_int_equal(f.seen.closes, 2);
	end(&f);
}

static const char session[] =
	"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
	"\r\nPOST /b?x=y HTTP/1.1\r\nhost: x\r\nContent-Length: 11\r\n\r\nhello world"
	"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
	"3\r\nabc\r\n5;ext=\"q\"\r\ndefgh\r\n0\r\nX-Trailer: t\r\n\r\n"
	"PUT /d HTTP/1.1\r\nHost: x\r\nUpgrade: nothing\r\nConnection: upgrade\r\nContent-Length: "
	"2\r\n\r\nok"
	"OPTIONS * HTTP/1.1\r\nHost: x\r\nUpgrade: nothing\r\nConnection: upgrade\r\n\r\n"
	"POST http://abs.example:1/e?f HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
	"HEAD /f HTTP/1.1\r\nHost: x\r\n\r\n"
	"GET /g HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/* The same session in one piece, byte by byte and cut in two at each place gives the same output. */
static void test_split_everywhere(void **state UNUSED)
{
	struct buf whole = BUF_INIT;
	const size_t len = sizeof(session) - 1;

	for (size_t cut = 0; cut <= len + 1; cut++) {
		struct fix f;

		begin(&f);
		f.seen.mode = cut % 2 ? ECHO_CHUNKED : ECHO;
		if (cut == len + 1) {
			f.seen.mode = ECHO;
			for (size_t i = 0; i < len; i++)
				assert_ok(feed(&f, session + i, 1));
		} else {
			assert_ok(feed(&f, session, cut));
			assert_ok(feed(&f, session + cut, len - cut));
		}
		assert_int_equal(f.seen.requests, 8);
		assert_int_equal(f.seen.ends, 8);
		assert_int_equal(f.seen.closes, 8);
		assert_string_equal(f.seen.path, "/g");
		assert_true(finished(&f));
		drop_dates(&f.out);
		if (!cut) {
			whole = f.out;
			f.out = (struct buf)BUF_INIT;
			assert_contains(buf_str(&whole), "x-answer: yes\r\ncontent-length: 11\r\n");
		} else if (f.seen.mode == ECHO) {
			assert_int_equal(f.out.len, whole.len);
			assert_memory_equal(f.out.data, whole.data, whole.len);
		} else {
			assert_contains(buf_str(&f.out),
					"\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
			assert_contains(buf_str(&f.out),
					"\r\n\r\n4\r\nabcd\r\n4\r\nefgh\r\n0\r\n\r\n");
		}
		end(&f);
	}
	buf_done(&whole);
}

static void test_echo(void **state UNUSED)
{
	struct fix f;

	begin(&f);
	assert_ok(feed_str(&f,
			   "POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello world"));
	drop_dates(&f.out);
	assert_string_equal(
		buf_str(&f.out),
		"HTTP/1.1 200 OK\r\nx-answer: yes\r\ncontent-length: 11\r\n\r\nhello world");
	buf_reset(&f.out);
	/* HTTP/1.0: no chunks, the end of the connection is the end of the body */
	f.seen.mode = ECHO_CHUNKED;
	assert_ok(feed_str(
		&f, "POST /b HTTP/1.0\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nhi"));
	drop_dates(&f.out);
	assert_string_equal(buf_str(&f.out),
			    "HTTP/1.1 200 OK\r\nx-answer: yes\r\nconnection: close\r\n\r\nhi");
	assert_true(finished(&f));
	end(&f);

	begin(&f);
	assert_ok(feed_str(
		&f, "POST /b HTTP/1.0\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nhi"));
	assert_contains(buf_str(&f.out), "connection: keep-alive\r\n\r\nhi");
	assert_false(finished(&f));
	buf_reset(&f.out);
	assert_ok(feed_str(&f, "HEAD /b HTTP/1.1\r\nHost: x\r\n\r\n"));
	assert_contains(buf_str(&f.out), "content-length: 0\r\n");
	end(&f);
}

static void test_refused(void **state UNUSED)
{
	static const struct {
		const char *what;
		const char *request;
		int status;
	} cases[] = {
		{"no request", "hello\r\n\r\n", 400},
		{"HTTP/2.0", "GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505},
		{"HTTP/0.9", "GET / HTTP/0.9\r\nHost: x\r\n\r\n", 505},
		{"no host", "GET / HTTP/1.1\r\n\r\n", 400},
		{"two hosts", "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400},
		{"CONNECT", "CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n", 501},
		{"TRACE", "TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", 501},
		{"not a method", "GETX / HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"two lengths",
		 "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
		 400},
		{"length and chunks",
		 "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: "
		 "chunked\r\n\r\n0\r\n\r\n",
		 400},
		{"chunks and length",
		 "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: "
		 "1\r\n\r\n0\r\n\r\n",
		 400},
		{"negative length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
		 400},
		{"length with sign", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n",
		 400},
		{"huge length",
		 "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
		 400},
		{"length over the limit",
		 "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4194305\r\n\r\n", 413},
		{"other coding", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
		 501},
		{"two codings",
		 "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		 501},
		{"coding twice",
		 "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: "
		 "chunked\r\n\r\n",
		 400},
		{"coding in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		 501},
		{"expects more",
		 "POST / HTTP/1.1\r\nHost: x\r\nExpect: wonders\r\nContent-Length: 1\r\n\r\n", 417},
		{"fragment", "GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"8-bit path", "GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"control in a value", "GET / HTTP/1.1\r\nHost: x\r\nA: b\x01\r\n\r\n", 400},
		{"NUL in a value", NULL, 400},
		{"folded header", "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 0},
		{"space before colon", "GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400},
		{"bare name", "GET / HTTP/1.1\r\nHost: x\r\nNonsense\r\n\r\n", 400},
		{"bad chunk",
		 "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
		{"bad end of chunk",
		 "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
		 400},
	};
	static const char nul[] = "GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n";

	TEST_TABLE(c, cases)
	{
		struct fix f;
		char want[32];
		int rv;

		double counted = metrics_value("skerry_http1_refused_total", NULL);

		begin(&f);
		rv = c->request ? feed_str(&f, c->request) : feed(&f, nul, sizeof(nul) - 1);
		if (!c->status) {
			/* a folded line is either refused or joined, never a header of its own */
			assert_true(rv < 0 || f.seen.requests == 1);
			end(&f);
			continue;
		}
		snprintf(want, sizeof(want), "HTTP/1.1 %d ", c->status);
		if (rv != ERR_PROTOCOL || strncmp(buf_str(&f.out), want, strlen(want)))
			TEST_FAIL("%s: %s, %.40s", c->what, err_name(rv), buf_str(&f.out));
		assert_contains(buf_str(&f.out), "connection: close\r\n");
		assert_true(metrics_value("skerry_http1_refused_total", NULL) ==
			    (counted > 0 ? counted : 0) + 1);
		assert_true(finished(&f));
		assert_int_equal(f.seen.closes, f.seen.requests);
		if (f.seen.closes)
			assert_int_equal(f.seen.close_code, ERR_PROTOCOL);
		/* deaf from now on */
		buf_reset(&f.out);
		assert_ok(feed_str(&f, GET));
		assert_int_equal(f.out.len, 0);
		end(&f);
	}
}

static void test_head_limits(void **state UNUSED)
{
	struct buf b = BUF_INIT;
	struct fix f;

	/* just so many headers */
	for (int extra = 0; extra < 2; extra++) {
		begin(&f);
		f.seen.mode = EMPTY;
		buf_printf(&b, "GET / HTTP/1.1\r\nHost: x\r\n");
		for (int i = 1; i < LIM_HTTP1_HEADERS + extra; i++)
			buf_printf(&b, "a%d: b\r\n", i);
		buf_printf(&b, "\r\n");
		if (extra) {
			assert_err(feed(&f, b.data, b.len), ERR_PROTOCOL);
			assert_contains(buf_str(&f.out), "HTTP/1.1 431 ");
		} else {
			assert_ok(feed(&f, b.data, b.len));
			assert_int_equal(f.seen.requests, 1);
		}
		buf_reset(&b);
		end(&f);
	}
	/* just so many bytes */
	for (int extra = 0; extra < 2; extra++) {
		begin(&f);
		f.seen.mode = EMPTY;
		buf_printf(&b, "GET / HTTP/1.1\r\nHost: x\r\na: ");
		while (b.len < LIM_HTTP1_HEAD_BYTES - 4 + (unsigned)extra)
			buf_u8(&b, 'x');
		buf_printf(&b, "\r\n\r\n");
		if (extra) {
			assert_err(feed(&f, b.data, b.len), ERR_PROTOCOL);
			assert_contains(buf_str(&f.out), "HTTP/1.1 431 ");
		} else {
			assert_ok(feed(&f, b.data, b.len));
			assert_int_equal(f.seen.requests, 1);
		}
		buf_reset(&b);
		end(&f);
	}
	for (int extra = 0; extra < 2; extra++) {
		begin(&f);
		f.seen.mode = EMPTY;
		buf_printf(&b, "GET /");
		while (b.len < 4 + LIM_HTTP_PATH_BYTES - 1 + (unsigned)extra)
			buf_u8(&b, 'x');
		buf_printf(&b, " HTTP/1.1\r\nHost: x\r\n\r\n");
		if (extra) {
			assert_err(feed(&f, b.data, b.len), ERR_PROTOCOL);
			assert_contains(buf_str(&f.out), "HTTP/1.1 414 ");
		} else {
			assert_ok(feed(&f, b.data, b.len));
			assert_int_equal(strlen(f.seen.path), LIM_HTTP_PATH_BYTES - 1);
		}
		buf_reset(&b);
		end(&f);
	}
	/* empty lines before a request are allowed, not for ever */
	begin(&f);
	for (unsigned i = 0; i < LIM_HTTP1_HEAD_BYTES / 2; i++)
		assert_ok(feed_str(&f, "\r\n"));
	assert_err(feed_str(&f, "\r\n"), ERR_PROTOCOL);
	end(&f);
	buf_done(&b);
}

static void test_body_limits(void **state UNUSED)
{
	struct buf block = BUF_INIT;
	struct fix f;
	int rv = 0;

	for (int i = 0; i < 65536; i++)
		buf_u8(&block, 'x');
	/* 4 MiB in chunks pass, one byte more does not */
	begin(&f);
	f.seen.mode = EMPTY;
	assert_ok(feed_str(&f, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"));
	for (unsigned i = 0; i < LIM_HTTP1_BODY_BYTES / 65536; i++) {
		assert_ok(feed_str(&f, "10000\r\n"));
		assert_ok(feed(&f, block.data, block.len));
		assert_ok(feed_str(&f, "\r\n"));
	}
	assert_int_equal(f.seen.body.len, LIM_HTTP1_BODY_BYTES);
	assert_err(feed_str(&f, "1\r\nx"), ERR_PROTOCOL);
	assert_contains(buf_str(&f.out), "HTTP/1.1 413 ");
	assert_int_equal(f.seen.closes, 1);
	end(&f);

	/* chunks that are all extension */
	begin(&f);
	assert_ok(
		feed_str(&f, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;"));
	for (int i = 0; i < 3 && !rv; i++)
		rv = feed(&f, block.data, block.len);
	assert_err(rv, ERR_PROTOCOL);
	end(&f);
	buf_done(&block);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_get),
		cmocka_unit_test(test_echo),
		cmocka_unit_test(test_split_everywhere),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_head_limits),
		cmocka_unit_test(test_body_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
