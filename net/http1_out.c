#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/http1_int.h"
#include "net/stream.h"

enum { OUT_MARK = LIM_STREAM_HIGH_BYTES };

static struct http1 *of(const struct http_request *req)
{
	return container_of(req, struct http1, req);
}

static const char *reason_phrase(int status)
{
	static const struct {
		int status;
		const char *phrase;
	} table[] = {
		{101, "Switching Protocols"},
		{200, "OK"},
		{201, "Created"},
		{202, "Accepted"},
		{204, "No Content"},
		{301, "Moved Permanently"},
		{302, "Found"},
		{303, "See Other"},
		{304, "Not Modified"},
		{307, "Temporary Redirect"},
		{308, "Permanent Redirect"},
		{400, "Bad Request"},
		{401, "Unauthorized"},
		{403, "Forbidden"},
		{404, "Not Found"},
		{405, "Method Not Allowed"},
		{408, "Request Timeout"},
		{409, "Conflict"},
		{412, "Precondition Failed"},
		{413, "Content Too Large"},
		{414, "URI Too Long"},
		{415, "Unsupported Media Type"},
		{417, "Expectation Failed"},
		{426, "Upgrade Required"},
		{429, "Too Many Requests"},
		{431, "Request Header Fields Too Large"},
		{499, "Client Closed Request"},
		{500, "Internal Server Error"},
		{501, "Not Implemented"},
		{503, "Service Unavailable"},
		{504, "Gateway Timeout"},
		{505, "HTTP Version Not Supported"},
	};

	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		if (table[i].status == status)
			return table[i].phrase;
	}
	return "";
}

/* Takes the reference. */
static void queue_blob(struct http1 *h, struct blob *blob, size_t off, size_t len)
{
	struct http1_piece *piece;

	if (!len) {
		blob_unref(blob);
		return;
	}
	piece = mem_zalloc(sizeof(*piece));
	piece->blob = blob;
	piece->off = off;
	piece->len = len;
	list_push(&h->out, &piece->link);
	h->out_bytes += len;
}

static void queue_buf(struct http1 *h, struct buf *b)
{
	struct blob *blob = blob_take(b);

	queue_blob(h, blob, 0, blob->len);
}

static void free_piece(struct http1 *h, struct http1_piece *piece)
{
	list_remove(&piece->link);
	h->out_bytes -= piece->len;
	blob_unref(piece->blob);
	mem_free(piece);
}

void http1_drop_output(struct http1 *h)
{
	while (!list_empty(&h->out))
		free_piece(h, container_of(h->out.next, struct http1_piece, link));
}

void http1_flush(struct http1 *h)
{
	while (!list_empty(&h->out) && !http_conn_is_full(h->engine.conn)) {
		struct http1_piece *piece = container_of(h->out.next, struct http1_piece, link);

		if (http_conn_send_blob(h->engine.conn, piece->blob, piece->off, piece->len) < 0) {
			h->state = HTTP1_DEAD;
			http1_drop_output(h);
			return;
		}
		free_piece(h, piece);
	}
	if (h->above_mark && h->out_bytes <= OUT_MARK / 2) {
		h->above_mark = false;
		if (h->active && !h->req.ended && h->req.handler->on_writable)
			h->req.handler->on_writable(h->req.arg, &h->req);
	}
}

static void append_date(struct buf *out)
{
	static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
	static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
					   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	time_t now = (time_t)(clock_wall_ms() / 1000);
	struct tm tm;

	if (!gmtime_r(&now, &tm))
		return;
	buf_printf(out, "date: %s, %02d %s %d %02d:%02d:%02d GMT\r\n", days[tm.tm_wday], tm.tm_mday,
		   months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

static bool valid_value(const char *s)
{
	for (; *s; s++) {
		if (((unsigned char)*s < 0x20 && *s != '\t') || *s == 0x7f)
			return false;
	}
	return true;
}

/* Names that the engine alone decides about. */
static bool is_own_header(const char *name)
{
	return !strcmp(name, "connection") || !strcmp(name, "transfer-encoding") ||
	       !strcmp(name, "keep-alive") || !strcmp(name, "date");
}

static void append_headers(struct buf *out, const struct http_header *headers, size_t n,
			   bool upgrade)
{
	for (size_t i = 0; i < n; i++) {
		if ((is_own_header(headers[i].name) &&
		     !(upgrade && !strcmp(headers[i].name, "connection"))) ||
		    !strcmp(headers[i].name, "content-length"))
			continue;
		if (!valid_value(headers[i].name) || !valid_value(headers[i].value))
			continue;
		buf_printf(out, "%s: %s\r\n", headers[i].name, headers[i].value);
	}
}

static bool find_length(const struct http_header *headers, size_t n, uint64_t *ret)
{
	char *end;

	for (size_t i = 0; i < n; i++) {
		if (!strcmp(headers[i].name, "content-length")) {
			*ret = strtoull(headers[i].value, &end, 10);
			return end != headers[i].value && !*end;
		}
	}
	return false;
}

static int respond(struct http_request *req, int status, const struct http_header *headers,
		   size_t n, bool end)
{
	struct http1 *h = of(req);
	struct buf out = BUF_INIT;
	uint64_t length = 0;
	bool has_length;

	PRE(status >= 200 && status <= 599);
	if (!h->active || h->reset || h->state == HTTP1_DEAD)
		return ERR_CLOSED;
	if (req->responded)
		return ERR_PRECONDITION;
	has_length = find_length(headers, n, &length);
	/* A client that still waits for 100 Continue may send the body or not: the next request could not be found. */
	if (h->expect_continue || h->shutdown)
		h->keep_alive = false;

	buf_printf(&out, "HTTP/1.1 %d %s\r\n", status, reason_phrase(status));
	append_date(&out);
	append_headers(&out, headers, n, false);
	if (!strcmp(req->method, "HEAD") || status == 204 || status == 304) {
		h->framing = HTTP1_NO_BODY;
		if (has_length && status != 204)
			buf_printf(&out, "content-length: %llu\r\n", (unsigned long long)length);
	} else if (end || has_length) {
		h->framing = HTTP1_LENGTH;
		h->length_left = end ? 0 : length;
		buf_printf(&out, "content-length: %llu\r\n", (unsigned long long)h->length_left);
	} else if (h->parser.http_minor >= 1) {
		h->framing = HTTP1_CHUNKED;
		buf_append_str(&out, "transfer-encoding: chunked\r\n");
	} else {
		h->framing = HTTP1_UNTIL_CLOSE;
		h->keep_alive = false;
	}
	if (!h->keep_alive)
		buf_append_str(&out, "connection: close\r\n");
	else if (h->parser.http_minor == 0)
		buf_append_str(&out, "connection: keep-alive\r\n");
	buf_append_str(&out, "\r\n");
	queue_buf(h, &out);
	req->responded = true;
	req->ended = end;
	http_conn_want_flush(h->engine.conn);
	return 0;
}

static int write_body(struct http_request *req, struct blob *blob, size_t off, size_t len, bool end)
{
	struct http1 *h = of(req);
	struct buf b = BUF_INIT;

	PRE(off <= blob->len && len <= blob->len - off);
	if (!h->active || h->reset || h->state == HTTP1_DEAD)
		return ERR_CLOSED;
	if (!req->responded || req->ended)
		return ERR_PRECONDITION;
	if (len && h->out_bytes && h->out_bytes + len > LIM_GRPC_STREAM_QUEUE_BYTES) {
		h->above_mark = true;
		return ERR_LIMIT;
	}
	if (h->framing == HTTP1_LENGTH && (len > h->length_left || (end && len < h->length_left))) {
		/* The length that was announced is a promise: the client must not take the rest for an answer. */
		http_reset(req, 0);
		return ERR_PRECONDITION;
	}
	if (h->framing == HTTP1_CHUNKED && len) {
		buf_printf(&b, "%zx\r\n", len);
		queue_buf(h, &b);
	}
	if (h->framing != HTTP1_NO_BODY)
		queue_blob(h, blob_ref(blob), off, len);
	if (h->framing == HTTP1_LENGTH)
		h->length_left -= len;
	if (h->framing == HTTP1_CHUNKED && len)
		buf_append_str(&b, "\r\n");
	if (h->framing == HTTP1_CHUNKED && end)
		buf_append_str(&b, "0\r\n\r\n");
	if (b.len)
		queue_buf(h, &b);
	if (h->out_bytes > OUT_MARK)
		h->above_mark = true;
	req->ended = end;
	http_conn_want_flush(h->engine.conn);
	return 0;
}

static int trailers(struct http_request *req UNUSED, const struct http_header *headers UNUSED,
		    size_t n UNUSED)
{
	return ERR_UNIMPLEMENTED;
}

static void reset(struct http_request *req, uint32_t h2_code UNUSED)
{
	struct http1 *h = of(req);

	if (!h->active || h->reset)
		return;
	h->reset = true;
	h->state = HTTP1_DEAD;
	http1_drop_output(h);
	http_conn_want_flush(h->engine.conn);
}

static void consume(struct http_request *req, size_t len)
{
	struct http1 *h = of(req);

	h->unconsumed -= MIN(len, h->unconsumed);
	if (h->paused || h->in_pos < h->in.len)
		http_conn_want_flush(h->engine.conn);
}

static size_t backlog(const struct http_request *req)
{
	return of(req)->out_bytes;
}

static int upgrade(struct http_request *req, int status, const struct http_header *headers,
		   size_t n, struct stream **ret_stream)
{
	struct http1 *h = of(req);
	struct http_conn *conn = h->engine.conn;
	struct buf out = BUF_INIT;
	struct stream *stream;
	int rv = 0;

	if (!h->active || h->reset || h->state == HTTP1_DEAD)
		return ERR_CLOSED;
	if (h->has_body && h->state != HTTP1_DONE)
		return ERR_UNIMPLEMENTED;
	if (req->responded)
		return ERR_PRECONDITION;
	http1_flush(h);
	if (!list_empty(&h->out))
		return ERR_AGAIN;
	if (status) {
		buf_printf(&out, "HTTP/1.1 %d %s\r\n", status, reason_phrase(status));
		append_headers(&out, headers, n, true);
		buf_append_str(&out, "\r\n");
		rv = http_conn_send(conn, out.data, out.len);
		buf_done(&out);
	}
	if (rv < 0)
		return rv;
	stream = http_conn_take_stream(conn);
	if (stream && h->paused)
		stream_resume_read(stream);
	if (stream && h->in_pos < h->in.len)
		stream_unread(stream, h->in.data + h->in_pos, h->in.len - h->in_pos);
	buf_done(&h->in);
	h->in_pos = 0;
	h->detached = true;
	h->state = HTTP1_DEAD;
	req->responded = true;
	req->ended = true;
	http1_close_request(h, NULL);
	*ret_stream = stream;
	return 0;
}

const struct http_request_ops http1_request_ops = {
	.respond = respond,
	.write = write_body,
	.trailers = trailers,
	.reset = reset,
	.consume = consume,
	.backlog = backlog,
	.upgrade = upgrade,
};

void http1_answer(struct http1 *h, int status, const char *text)
{
	struct buf out = BUF_INIT;

	buf_printf(&out, "HTTP/1.1 %d %s\r\n", status, reason_phrase(status));
	append_date(&out);
	buf_printf(&out,
		   "content-type: text/plain; charset=utf-8\r\ncontent-length: %zu\r\nconnection: "
		   "close\r\n\r\n%s\n",
		   strlen(text) + 1, text);
	queue_buf(h, &out);
	http_conn_want_flush(h->engine.conn);
}

void http1_continue(struct http1 *h)
{
	struct buf out = BUF_INIT;

	buf_append_str(&out, "HTTP/1.1 100 Continue\r\n\r\n");
	queue_buf(h, &out);
	http_conn_want_flush(h->engine.conn);
}
