/* The HTTP/1.1 engine, bytes in and bytes out.
 * LIBS: net */
#include "tests/lib/test.h"

#include "base/buf.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "net/http.h"

/* What the handler saw of one request, and what it shall do. */
struct seen {
	unsigned requests;
	unsigned ends;
	unsigned closes;
	unsigned writables;
	int close_code;
	char method[16];
	char path[LIM_HTTP_PATH_BYTES + 1];
	char query[256];
	char authority[256];
	char header[64]; /* of x-test */
	struct buf body;
	struct http_request *req; /* under way */
	struct stream *stream;
	/* orders */
	enum {
		ECHO,
		ECHO_CHUNKED,
		AT_HEAD,
		LATER,
		UPGRADE,
		UPGRADE_AT_END,
		RESET,
		NO_HANDLER,
		EMPTY
	} mode;
	bool hold; /* do not consume */
	int rv;
};

struct fix {
	struct http_conn conn;
	struct buf out;
	struct seen seen;
};

static void handle_body(void *arg, struct http_request *req, const uint8_t *data, size_t len)
{
	struct seen *s = arg;

	buf_append(&s->body, data, len);
	if (!s->hold)
		http_consume(req, len);
}

static void echo(struct seen *s, struct http_request *req, bool chunked)
{
	char length[24];
	struct http_header headers[] = {{"content-length", length}, {"x-answer", "yes"}};
	size_t half = s->body.len / 2;

	snprintf(length, sizeof(length), "%zu", s->body.len);
	assert_ok(http_respond(req, 200, headers + chunked, 2u - chunked, false));
	assert_ok(http_write_copy(req, s->body.data, half, false));
	assert_ok(http_write_copy(req, buf_str(&s->body) + half, s->body.len - half, true));
	buf_reset(&s->body);
}

static void handle_end(void *arg, struct http_request *req)
{
	static const struct http_header upgrade[] = {{"connection", "upgrade"},
						     {"upgrade", "test"}};
	struct seen *s = arg;

	s->ends++;
	if (s->mode == ECHO || s->mode == ECHO_CHUNKED)
		echo(s, req, s->mode == ECHO_CHUNKED);
	else if (s->mode == RESET)
		http_reset(req, 0);
	else if (s->mode == EMPTY)
		assert_ok(http_respond(req, 204, NULL, 0, true));
	else if (s->mode == UPGRADE_AT_END)
		assert_ok(http_upgrade(req, 101, upgrade, 2, &s->stream));
}

static void handle_close(void *arg, struct http_request *req, const struct err *err)
{
	struct seen *s = arg;

	assert_ptr_equal(s->req, req);
	s->req = NULL;
	s->closes++;
	s->close_code = err ? err->code : 0;
}

static void handle_writable(void *arg, struct http_request *req UNUSED)
{
	((struct seen *)arg)->writables++;
}

static const struct http_request_handler handler = {handle_body, handle_end, handle_close,
						    handle_writable};

static void route(void *arg, struct http_request *req)
{
	static const struct http_header upgrade[] = {{"connection", "upgrade"},
						     {"upgrade", "test"}};
	struct seen *s = arg;

	s->requests++;
	snprintf(s->method, sizeof(s->method), "%s", req->method);
	snprintf(s->path, sizeof(s->path), "%s", req->path);
	snprintf(s->query, sizeof(s->query), "%s", req->query);
	snprintf(s->authority, sizeof(s->authority), "%s", req->authority);
	snprintf(s->header, sizeof(s->header), "%s",
		 http_header(req, "x-test") ? http_header(req, "x-test") : "-");
	assert_int_equal(req->version, 1);
	if (s->mode == NO_HANDLER)
		return;
	http_set_handler(req, &handler, s);
	s->req = req;
	if (s->mode == AT_HEAD)
		http_reply_text(req, 403, "no");
	else if (s->mode == UPGRADE)
		s->rv = http_upgrade(req, 101, upgrade, 2, &s->stream);
}

static void begin(struct fix *f)
{
	memset(f, 0, sizeof(*f));
	f->conn.test_out = &f->out;
	f->conn.router = http_router_new();
	http_mount(f->conn.router, HTTP_MATCH_REST, NULL, route, &f->seen);
	f->conn.engine = http1_server_new(&f->conn);
}

static void end(struct fix *f)
{
	f->conn.engine->ops->destroy(f->conn.engine, NULL);
	assert_null(f->seen.req);
	http_router_free(f->conn.router);
	buf_done(&f->out);
	buf_done(&f->seen.body);
}

static int feed(struct fix *f, const void *data, size_t len)
{
	int rv = f->conn.engine->ops->feed(f->conn.engine, data, len, NULL);

	f->conn.engine->ops->drain(f->conn.engine);
	return rv;
}

static int feed_str(struct fix *f, const char *text)
{
	return feed(f, text, strlen(text));
}

static bool finished(struct fix *f)
{
	return f->conn.engine->ops->finished(f->conn.engine);
}

#define GET "GET /p/x?q=1 HTTP/1.1\r\nHost: a.example:8443\r\nX-Test:  v w \t\r\n\r\n"

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

/* Removes the date, which differs from run to run. */
static void drop_dates(struct buf *b)
{
	char *date;

	while ((date = strstr((char *)(uintptr_t)buf_str(b), "date: "))) {
		char *next = strstr(date, "\r\n") + 2;

		memmove(date, next, (size_t)((char *)b->data + b->len - next));
		b->len -= (size_t)(next - date);
	}
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

static void test_backpressure(void **state UNUSED)
{
	struct http_request *req;
	struct buf block = BUF_INIT;
	struct fix f;
	size_t before;

	for (int i = 0; i < 65536; i++)
		buf_u8(&block, 'x');
	begin(&f);
	f.seen.mode = LATER;
	f.seen.hold = true;
	assert_ok(feed_str(&f, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n"));
	for (int i = 0; i < 8; i++)
		assert_ok(feed(&f, block.data, block.len));
	/* 512 KiB came, the handler acknowledged nothing: it got the window and no more */
	assert_int_equal(f.seen.body.len, 256 << 10);
	req = f.seen.req;
	http_consume(req, 100000);
	f.conn.engine->ops->drain(f.conn.engine);
	before = f.seen.body.len;
	assert_in_range(before, 300000, 430000);
	http_consume(req, before - 100000);
	f.conn.engine->ops->drain(f.conn.engine);
	assert_int_equal(f.seen.body.len, 512 << 10);
	end(&f);

	/* output: the connection takes LIM_CONN_PENDING_BYTES, the rest waits in the request up to its limit */
	begin(&f);
	f.seen.mode = LATER;
	assert_ok(feed_str(&f, GET));
	req = f.seen.req;
	assert_ok(http_respond(req, 200, NULL, 0, false));
	for (unsigned sent = 0; sent + 65536 <= LIM_GRPC_STREAM_QUEUE_BYTES - 65536; sent += 65536)
		assert_ok(http_write_copy(req, block.data, block.len, false));
	assert_ok(http_write_copy(req, block.data, 60000, false));
	assert_err(http_write_copy(req, block.data, block.len, false), ERR_LIMIT);
	assert_int_equal(f.seen.writables, 0);
	for (int i = 0; i < 100 && http_backlog(req); i++) {
		f.conn.engine->ops->drain(f.conn.engine);
		assert_in_range(f.out.len, 1, LIM_CONN_PENDING_BYTES + 65536);
		buf_reset(&f.out);
	}
	assert_int_equal(http_backlog(req), 0);
	assert_int_equal(f.seen.writables, 1);
	assert_ok(http_write_copy(req, "x", 1, true));
	f.conn.engine->ops->drain(f.conn.engine);
	assert_string_equal(buf_str(&f.out), "1\r\nx\r\n0\r\n\r\n");
	assert_int_equal(f.seen.closes, 1);
	end(&f);
	buf_done(&block);
}

static void test_pipelining_is_bounded(void **state UNUSED)
{
	struct fix f;
	int rv = 0, n;

	begin(&f);
	f.seen.mode = LATER;
	assert_ok(feed_str(&f, GET GET GET));
	/* one at a time */
	assert_int_equal(f.seen.requests, 1);
	for (n = 0; n < 100000 && !rv; n++)
		rv = feed_str(&f, GET);
	assert_err(rv, ERR_PROTOCOL);
	assert_in_range(n * strlen(GET), 500 << 10, 2 << 20);
	assert_int_equal(f.seen.requests, 1);
	end(&f);
}

static void test_expect(void **state UNUSED)
{
	struct fix f;

	begin(&f);
	assert_ok(feed_str(
		&f,
		"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n"));
	assert_string_equal(buf_str(&f.out), "HTTP/1.1 100 Continue\r\n\r\n");
	assert_ok(feed_str(&f, "ok"));
	assert_contains(buf_str(&f.out), "\r\n\r\nok");
	assert_false(finished(&f));
	end(&f);

	/* refused at once: the body may never come, so the connection ends */
	begin(&f);
	f.seen.mode = AT_HEAD;
	assert_ok(feed_str(
		&f,
		"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"));
	assert_contains(buf_str(&f.out), "HTTP/1.1 403 Forbidden\r\n");
	assert_contains(buf_str(&f.out), "connection: close\r\n");
	assert_lacks(buf_str(&f.out), "100 Continue");
	assert_true(finished(&f));
	end(&f);
}

/* Answered before the body has come: the rest of it is passed over, a small one at least. */
static void test_early_answer(void **state UNUSED)
{
	struct fix f;

	begin(&f);
	f.seen.mode = AT_HEAD;
	assert_ok(feed_str(&f, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"));
	assert_int_equal(f.seen.closes, 1);
	assert_ok(feed_str(&f, "01234"));
	assert_ok(feed_str(&f, "56789" GET));
	assert_int_equal(f.seen.body.len, 0);
	assert_int_equal(f.seen.ends, 0);
	assert_int_equal(f.seen.requests, 2);
	end(&f);

	begin(&f);
	f.seen.mode = AT_HEAD;
	assert_ok(feed_str(&f, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n"));
	for (int i = 0; i < 300 && !finished(&f); i++) {
		char block[1024] = {0};

		assert_ok(feed(&f, block, sizeof(block)));
	}
	assert_true(finished(&f));
	end(&f);
}

static void test_upgrade(void **state UNUSED)
{
	struct fix f;

	for (int at_end = 0; at_end < 2; at_end++) {
		begin(&f);
		f.seen.mode = at_end ? UPGRADE_AT_END : UPGRADE;
		assert_ok(feed_str(&f, "GET /ts HTTP/1.1\r\nHost: x\r\nUpgrade: "
				       "test\r\nConnection: upgrade\r\n\r\nRAW"));
		assert_ok(f.seen.rv);
		assert_string_equal(buf_str(&f.out),
				    "HTTP/1.1 101 Switching Protocols\r\n"
				    "connection: upgrade\r\nupgrade: test\r\n\r\n");
		assert_int_equal(f.seen.closes, 1);
		assert_int_equal(f.seen.close_code, 0);
		assert_true(finished(&f));
		end(&f);
	}
	/* with a body: only when it is complete */
	begin(&f);
	f.seen.mode = UPGRADE;
	assert_ok(feed_str(&f, "POST /ts HTTP/1.1\r\nHost: x\r\nUpgrade: t\r\nConnection: "
			       "upgrade\r\nContent-Length: 2\r\n\r\n"));
	assert_err(f.seen.rv, ERR_UNIMPLEMENTED);
	assert_false(finished(&f));
	end(&f);
	begin(&f);
	f.seen.mode = UPGRADE_AT_END;
	assert_ok(feed_str(&f, "POST /ts HTTP/1.1\r\nHost: x\r\nUpgrade: t\r\nConnection: "
			       "upgrade\r\nContent-Length: 2\r\n\r\nab"));
	assert_contains(buf_str(&f.out), "HTTP/1.1 101 ");
	assert_true(finished(&f));
	end(&f);
}

static void test_reset_and_misuse(void **state UNUSED)
{
	static const struct http_header two = {"content-length", "2"};
	struct http_request *req;
	struct fix f;

	begin(&f);
	f.seen.mode = RESET;
	assert_ok(feed_str(&f, GET GET));
	assert_int_equal(f.seen.requests, 1);
	assert_int_equal(f.seen.closes, 1);
	assert_int_equal(f.seen.close_code, ERR_CANCELLED);
	assert_int_equal(f.out.len, 0);
	assert_true(finished(&f));
	end(&f);

	begin(&f);
	f.seen.mode = NO_HANDLER;
	assert_ok(feed_str(&f, GET));
	assert_contains(buf_str(&f.out), "HTTP/1.1 500 ");
	end(&f);

	/* a body that is not as long as announced cuts the connection */
	for (int i = 0; i < 2; i++) {
		begin(&f);
		f.seen.mode = LATER;
		assert_ok(feed_str(&f, GET));
		req = f.seen.req;
		assert_err(http_write_copy(req, "x", 1, false), ERR_PRECONDITION);
		assert_ok(http_respond(req, 200, &two, 1, false));
		assert_err(http_respond(req, 200, &two, 1, false), ERR_PRECONDITION);
		assert_err(http_trailers(req, NULL, 0), ERR_UNIMPLEMENTED);
		assert_true(http_write_copy(req, "abc", i ? 1 : 3, true) < 0);
		f.conn.engine->ops->drain(f.conn.engine);
		assert_true(finished(&f));
		assert_int_equal(f.seen.closes, 1);
		end(&f);
	}
	/* the connection ends while the handler thinks */
	begin(&f);
	f.seen.mode = LATER;
	assert_ok(feed_str(&f, GET));
	end(&f);
	assert_int_equal(f.seen.closes, 1);
	assert_int_equal(f.seen.close_code, ERR_CLOSED);
}

/* No header of a handler can split the answer or contradict the engine. */
static void test_response_headers(void **state UNUSED)
{
	static const struct http_header headers[] = {
		{"x-ok", "1"},
		{"x-split", "a\r\nset-cookie: b"},
		{"connection", "x"},
		{"transfer-encoding", "gzip"},
	};
	struct fix f;

	begin(&f);
	f.seen.mode = LATER;
	assert_ok(feed_str(&f, GET));
	assert_ok(http_respond(f.seen.req, 200, headers, ARRAY_LEN(headers), true));
	f.conn.engine->ops->drain(f.conn.engine);
	drop_dates(&f.out);
	assert_string_equal(buf_str(&f.out),
			    "HTTP/1.1 200 OK\r\nx-ok: 1\r\ncontent-length: 0\r\n\r\n");
	end(&f);
}

static void test_shutdown(void **state UNUSED)
{
	struct fix f;

	begin(&f);
	f.conn.engine->ops->shutdown(f.conn.engine);
	assert_true(finished(&f));
	end(&f);

	begin(&f);
	f.seen.mode = LATER;
	assert_ok(feed_str(&f, GET GET));
	f.conn.engine->ops->shutdown(f.conn.engine);
	assert_false(finished(&f));
	assert_int_equal(f.conn.engine->ops->active(f.conn.engine), 1);
	assert_ok(http_respond(f.seen.req, 204, NULL, 0, true));
	f.conn.engine->ops->drain(f.conn.engine);
	assert_contains(buf_str(&f.out), "connection: close\r\n");
	assert_true(finished(&f));
	assert_int_equal(f.seen.requests, 1);
	assert_int_equal(f.conn.engine->ops->active(f.conn.engine), 0);
	end(&f);
}

static int tick(struct fix *f, uint64_t ms)
{
	int rv = f->conn.engine->ops->tick(f->conn.engine, ms, NULL);

	f->conn.engine->ops->drain(f->conn.engine);
	return rv;
}

static void test_slow_clients(void **state UNUSED)
{
	uint64_t now = 1000;
	struct fix f;
	int rv = 0;

	/* a byte of the head every second */
	begin(&f);
	assert_ok(tick(&f, now));
	for (; now < 60000 && !rv; now += 1000) {
		assert_ok(feed(&f, &GET[now / 1000 - 1], 1));
		rv = tick(&f, now);
	}
	assert_err(rv, ERR_PROTOCOL);
	assert_in_range(now, 10000, 13000);
	assert_contains(buf_str(&f.out), "HTTP/1.1 408 ");
	end(&f);

	/* a waiting connection is not slow */
	begin(&f);
	f.seen.mode = EMPTY;
	assert_ok(tick(&f, 1000));
	assert_ok(tick(&f, 1000000));
	assert_ok(feed_str(&f, GET));
	assert_ok(tick(&f, 2000000));
	end(&f);

	/* 100 bytes of body a second are too few; a handler that holds the window is not the client's fault */
	for (int hold = 0; hold < 2; hold++) {
		char block[256 << 10] = {0};

		begin(&f);
		f.seen.mode = LATER;
		f.seen.hold = hold;
		now = 1000;
		rv = 0;
		assert_ok(feed_str(
			&f, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"));
		if (hold)
			assert_ok(feed(&f, block, sizeof(block)));
		for (; now < 40000 && !rv; now += 1000) {
			if (!hold)
				assert_ok(feed(&f, block, 100));
			rv = tick(&f, now);
		}
		if (hold) {
			assert_ok(rv);
			assert_err(tick(&f, 1000 + LIM_HTTP_BODY_MS), ERR_PROTOCOL);
		} else {
			assert_err(rv, ERR_PROTOCOL);
			assert_in_range(now, 20000, 24000);
		}
		assert_contains(buf_str(&f.out), "HTTP/1.1 408 ");
		assert_int_equal(f.seen.closes, 1);
		end(&f);
	}
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
		cmocka_unit_test(test_backpressure),
		cmocka_unit_test(test_pipelining_is_bounded),
		cmocka_unit_test(test_expect),
		cmocka_unit_test(test_early_answer),
		cmocka_unit_test(test_upgrade),
		cmocka_unit_test(test_reset_and_misuse),
		cmocka_unit_test(test_response_headers),
		cmocka_unit_test(test_shutdown),
		cmocka_unit_test(test_slow_clients),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
