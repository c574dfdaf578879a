/* A server's HTTP/1.1 engine without a socket, and a handler that notes what it sees. */
#pragma once

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
