/* The HTTP/1.1 server engine: what comes in. See net/http1_int.h for the states. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "base/metrics.h"
#include "net/http1_int.h"
#include "net/stream.h"

/* A stretch of input that is parsed at once. */
enum { SLICE = 64 << 10 };

static struct http1 *of(struct http_engine *engine)
{
	return container_of(engine, struct http1, engine);
}

/* ---- Callbacks of the parser: nothing but notes ------------------------------------------------------------------ */

static int refuse(struct http1 *h, int status, const char *text)
{
	h->refuse_status = status;
	h->refuse_text = text;
	return -1;
}

static struct http1 *parsed(llhttp_t *parser)
{
	return container_of(parser, struct http1, parser);
}

static int on_url(llhttp_t *parser, const char *at, size_t len)
{
	struct http1 *h = parsed(parser);

	buf_append(&h->head, at, len);
	if (h->head.len > LIM_HTTP_PATH_BYTES)
		return refuse(h, 414, "the path is too long");
	return 0;
}

static int on_url_complete(llhttp_t *parser)
{
	buf_u8(&parsed(parser)->head, 0);
	return 0;
}

static int on_header_field(llhttp_t *parser, const char *at, size_t len)
{
	struct http1 *h = parsed(parser);

	if (h->state != HTTP1_HEAD) /* trailers: not used */
		return 0;
	if (h->n_headers >= LIM_HTTP1_HEADERS)
		return refuse(h, 431, "too many headers");
	if (!h->offsets[h->n_headers][0])
		h->offsets[h->n_headers][0] = h->head.len;
	for (size_t i = 0; i < len; i++)
		buf_u8(&h->head,
		       at[i] >= 'A' && at[i] <= 'Z' ? (uint8_t)(at[i] | 0x20) : (uint8_t)at[i]);
	return 0;
}

static int on_header_field_complete(llhttp_t *parser)
{
	struct http1 *h = parsed(parser);

	if (h->state != HTTP1_HEAD)
		return 0;
	buf_u8(&h->head, 0);
	h->offsets[h->n_headers][1] = h->head.len;
	return 0;
}

static int on_header_value(llhttp_t *parser, const char *at, size_t len)
{
	struct http1 *h = parsed(parser);

	if (h->state != HTTP1_HEAD)
		return 0;
	for (size_t i = 0; i < len; i++) {
		if (((unsigned char)at[i] < 0x20 && at[i] != '\t') || at[i] == 0x7f)
			return refuse(h, 400, "control character in a header");
	}
	buf_append(&h->head, at, len);
	return 0;
}

static int on_header_value_complete(llhttp_t *parser)
{
	struct http1 *h = parsed(parser);
	size_t start;

	if (h->state != HTTP1_HEAD)
		return 0;
	start = h->offsets[h->n_headers][1];
	while (h->head.len > start &&
	       (h->head.data[h->head.len - 1] == ' ' || h->head.data[h->head.len - 1] == '\t'))
		h->head.len--;
	buf_u8(&h->head, 0);
	h->n_headers++;
	return 0;
}

static int on_headers_complete(llhttp_t *parser UNUSED)
{
	return HPE_PAUSED;
}

static int on_body(llhttp_t *parser, const char *at, size_t len)
{
	struct http1 *h = parsed(parser);

	h->body_bytes += len;
	if (h->body_bytes > LIM_HTTP1_BODY_BYTES)
		return refuse(h, 413, "the body is too large");
	if (!h->active || h->reset) {
		h->discarded += len;
		return 0;
	}
	h->unconsumed += len;
	h->req.handler->on_body(h->req.arg, &h->req, (const uint8_t *)at, len);
	return 0;
}

static int on_message_complete(llhttp_t *parser UNUSED)
{
	return HPE_PAUSED;
}

static const llhttp_settings_t *settings(void)
{
	static const llhttp_settings_t s = {
		.on_url = on_url,
		.on_url_complete = on_url_complete,
		.on_header_field = on_header_field,
		.on_header_field_complete = on_header_field_complete,
		.on_header_value = on_header_value,
		.on_header_value_complete = on_header_value_complete,
		.on_headers_complete = on_headers_complete,
		.on_body = on_body,
		.on_message_complete = on_message_complete,
	};

	return &s;
}

/* ---- Requests ---------------------------------------------------------------------------------------------------- */

/* A fresh parser per request: what a pause or an upgrade left in the old one does not matter. */
static void next_request(struct http1 *h)
{
	llhttp_init(&h->parser, HTTP_REQUEST, settings());
	buf_reset(&h->head);
	buf_u8(&h->head, 0); /* so that no offset is 0 */
	memset(h->offsets, 0, sizeof(h->offsets));
	memset(&h->req, 0, sizeof(h->req));
	h->head_bytes = 0;
	h->body_bytes = 0;
	h->raw_bytes = 0;
	h->discarded = 0;
	h->unconsumed = 0;
	h->n_headers = 0;
	h->has_body = false;
	h->expect_continue = false;
	h->above_mark = false;
	h->since_ms = 0;
	h->body_since_ms = 0;
	h->state = HTTP1_HEAD;
}

void http1_close_request(struct http1 *h, const struct err *err)
{
	if (!h->active)
		return;
	h->active = false;
	h->req.handler->on_close(h->req.arg, &h->req, err);
}

/* The connection cannot go on: an answer if none was begun, the handler's end, and no more input. */
static int fail(struct http1 *h, int status, const char *text, struct err *err)
{
	struct err why = {0};
	bool responded = h->active && h->req.responded;
	int rv = err_set(&why, ERR_PROTOCOL, "HTTP/1.1: %s", text);

	METRICS_COUNT("skerry_http1_refused_total",
		      "HTTP/1.1 connections ended for a fault or a limit.", 1);
	h->state = HTTP1_DEAD;
	http1_close_request(h, &why);
	if (responded)
		http1_drop_output(h);
	else
		http1_answer(h, status, text);
	if (err)
		*err = why;
	return rv;
}

static const char *one_header(const struct http1 *h, const char *name, unsigned *ret_count)
{
	const char *value = NULL;

	*ret_count = 0;
	for (size_t i = 0; i < h->n_headers; i++) {
		if (strcmp(h->headers[i].name, name))
			continue;
		if (!value)
			value = h->headers[i].value;
		++*ret_count;
	}
	return value;
}

/* Splits the target in place; returns a text about what is wrong with it, or NULL. */
static const char *split_target(struct http1 *h, const char *host)
{
	char *target = (char *)h->head.data + 1, *query, *slash;

	for (const char *p = target; *p; p++) {
		if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f || *p == '#')
			return "bad character in the path";
	}
	h->req.authority = host ? host : "";
	if (target[0] != '/' && strcmp(target, "*")) {
		/* absolute form, as to a proxy: its authority counts */
		char *rest = strstr(target, "://");

		if (!rest)
			return "the path does not begin with /";
		h->req.authority = rest + 3;
		slash = strchr(rest + 3, '/');
		if (!slash)
			return "the path is missing";
		memmove(rest + 2, rest + 3, (size_t)(slash - (rest + 3)));
		h->req.authority = rest + 2;
		slash[-1] = '\0';
		target = slash;
	}
	query = strchr(target, '?');
	if (query)
		*query++ = '\0';
	h->req.path = target;
	h->req.query = query ? query : "";
	return NULL;
}

/* The head is complete: fills h->req. Returns 0 or the status to refuse with. */
static int take_head(struct http1 *h, const char **ret_text)
{
	static const uint8_t methods[] = {HTTP_GET,    HTTP_HEAD,    HTTP_POST, HTTP_PUT,
					  HTTP_DELETE, HTTP_OPTIONS, HTTP_PATCH};
	const char *host, *coding, *expect;
	bool chunked = h->parser.flags & F_CHUNKED;
	unsigned n;

	for (size_t i = 0; i < h->n_headers; i++) {
		h->headers[i].name = (const char *)h->head.data + h->offsets[i][0];
		h->headers[i].value = (const char *)h->head.data + h->offsets[i][1];
	}
	h->keep_alive = llhttp_should_keep_alive(&h->parser);
	h->req = (struct http_request){
		.ops = &http1_request_ops,
		.conn = h->engine.conn,
		.version = 1,
		.scheme = h->engine.conn->is_tls ? "https" : "http",
		.headers = h->headers,
		.n_headers = h->n_headers,
	};
	*ret_text = "this version of HTTP is not spoken here";
	if (h->parser.http_major != 1 || h->parser.http_minor > 1)
		return 505;
	*ret_text = "this method is not known here";
	if (!memchr(methods, h->parser.method, sizeof(methods)))
		return 501;
	h->req.method = llhttp_method_name((llhttp_method_t)h->parser.method);
	*ret_text = "there must be one Host header";
	host = one_header(h, "host", &n);
	if (n > 1 || (!n && h->parser.http_minor))
		return 400;
	*ret_text = split_target(h, host);
	if (*ret_text)
		return 400;
	*ret_text = "Transfer-Encoding must be chunked";
	coding = one_header(h, "transfer-encoding", &n);
	if (coding && (n > 1 || strcasecmp(coding, "chunked") || !chunked || !h->parser.http_minor))
		return 501;
	*ret_text = "the body is too large";
	h->has_body = chunked || h->parser.content_length;
	if (!chunked && h->parser.content_length > LIM_HTTP1_BODY_BYTES)
		return 413;
	*ret_text = "only 100-continue can be expected";
	expect = one_header(h, "expect", &n);
	if (expect && (n > 1 || strcasecmp(expect, "100-continue")))
		return 417;
	h->expect_continue = expect && h->parser.http_minor && h->has_body;
	return 0;
}

static void end_of_body(struct http1 *h)
{
	if (h->state != HTTP1_DEAD)
		h->state = HTTP1_DONE;
	if (h->active && !h->reset && !h->req.ended)
		h->req.handler->on_end(h->req.arg, &h->req);
}

static int begin_request(struct http1 *h, struct err *err)
{
	const char *text;
	int status = take_head(h, &text);

	if (status)
		return fail(h, status, text, err);
	h->state = HTTP1_BODY;
	h->active = true;
	h->req.handler = &http_ignore_handler; /* for a route that answers at once and sets none */
	http_route(h->engine.conn->router, &h->req);
	if (h->detached || h->reset)
		return 0;
	if (h->active && h->req.handler == &http_ignore_handler && !h->req.responded)
		http_reply_text(&h->req, 500, "no handler");
	if (!h->has_body) {
		end_of_body(h);
		return 0;
	}
	if (h->expect_continue && !h->req.responded && h->state == HTTP1_BODY) {
		http1_continue(h);
		h->expect_continue = false;
	}
	llhttp_resume(&h->parser);
	return 0;
}

/* ---- Input ------------------------------------------------------------------------------------------------------- */

static bool may_parse(const struct http1 *h)
{
	if (h->in_pos >= h->in.len)
		return false;
	return h->state == HTTP1_HEAD ||
	       (h->state == HTTP1_BODY && h->unconsumed < LIM_HTTP1_WINDOW_BYTES);
}

static int parse_failed(struct http1 *h, struct err *err)
{
	char text[160];

	if (h->refuse_status)
		return fail(h, h->refuse_status, h->refuse_text, err);
	snprintf(text, sizeof(text), "%s", llhttp_get_error_reason(&h->parser));
	return fail(h, 400, text[0] ? text : "malformed request", err);
}

/* Parses one stretch: to the end of the input, of the head or of the message. */
static int parse_once(struct http1 *h, struct err *err)
{
	const char *start = (const char *)h->in.data + h->in_pos;
	size_t len = MIN(h->in.len - h->in_pos, (size_t)SLICE), used;
	bool head = h->state == HTTP1_HEAD;
	llhttp_errno_t rv;

	if (head) {
		len = MIN(len, LIM_HTTP1_HEAD_BYTES - h->head_bytes);
		if (!len)
			return fail(h, 431, "the head of the request is too large", err);
	}
	rv = llhttp_execute(&h->parser, start, len);
	used = rv == HPE_OK ? len : (size_t)(llhttp_get_error_pos(&h->parser) - start);
	if (rv != HPE_OK && rv != HPE_PAUSED)
		return parse_failed(h, err);
	h->in_pos += used;
	if (head)
		h->head_bytes += used;
	else
		h->raw_bytes += used;
	if (h->raw_bytes > LIM_HTTP1_CHUNK_BYTES + 9 * h->body_bytes)
		return fail(h, 400, "more chunk framing than body", err);
	if (h->discarded > LIM_HTTP1_DISCARD_BYTES)
		h->state = HTTP1_DEAD;
	if (rv == HPE_PAUSED && head)
		return begin_request(h, err);
	if (rv == HPE_PAUSED)
		end_of_body(h);
	return 0;
}

/* The response has left: the end for the handler; and when the body was read, room for the next request. */
static void complete(struct http1 *h)
{
	http1_close_request(h, NULL);
	h->unconsumed = 0;      /* the rest of the body is dropped */
	if (h->expect_continue) /* the body that was asked about will not be looked for */
		h->state = HTTP1_DEAD;
	if (h->state != HTTP1_DONE)
		return;
	if (h->keep_alive && !h->shutdown)
		next_request(h);
	else
		h->state = HTTP1_DEAD;
}

static void pause_or_resume(struct http1 *h)
{
	bool wait = h->in.len - h->in_pos > LIM_HTTP1_AHEAD_BYTES ||
		    h->unconsumed >= LIM_HTTP1_WINDOW_BYTES;
	struct stream *stream = h->engine.conn->stream;

	if (h->detached || !stream || wait == h->paused)
		return;
	h->paused = wait;
	if (wait)
		stream_pause_read(stream);
	else
		stream_resume_read(stream);
}

/* Goes on as far as input, handlers and output allow. */
static int run(struct http1 *h, struct err *err)
{
	int rv = 0;

	if (h->in_run)
		return 0;
	h->in_run = true;
	for (;;) {
		while (!rv && may_parse(h))
			rv = parse_once(h, err);
		if (h->detached)
			break;
		http1_flush(h);
		if (h->reset && h->active) {
			struct err why = {0};

			err_set(&why, ERR_CANCELLED, "cut by the server");
			http1_close_request(h, &why);
		}
		if (rv || !list_empty(&h->out) ||
		    (h->active ? !h->req.ended : h->state != HTTP1_DONE))
			break;
		complete(h);
	}
	h->in_run = false;
	if (h->in_pos) {
		buf_consume(&h->in, h->in_pos);
		h->in_pos = 0;
	}
	if (!rv && h->in.len > LIM_HTTP1_AHEAD_HARD_BYTES && h->state != HTTP1_DEAD)
		rv = fail(h, 429, "too many requests sent ahead", err);
	if (h->state == HTTP1_DEAD)
		buf_reset(&h->in);
	pause_or_resume(h);
	return rv < 0 ? rv : 0;
}

static int feed(struct http_engine *engine, const uint8_t *data, size_t len, struct err *err)
{
	struct http1 *h = of(engine);

	if (h->state == HTTP1_DEAD)
		return 0; /* what still comes in is nobody's */
	buf_append(&h->in, data, len);
	return run(h, err);
}

static void drain(struct http_engine *engine)
{
	/* An error was answered and the state is dead: finished() tells the connection. */
	IGNORE(run(of(engine), NULL));
}

static void shutdown_engine(struct http_engine *engine)
{
	struct http1 *h = of(engine);

	h->shutdown = true;
	if (h->state == HTTP1_HEAD) {
		h->state = HTTP1_DEAD;
		http_conn_want_flush(engine->conn); /* there finished() is asked */
	}
}

static bool finished(const struct http_engine *engine)
{
	const struct http1 *h = container_of(engine, const struct http1, engine);

	return h->detached || (h->state == HTTP1_DEAD && !h->active && list_empty(&h->out));
}

static size_t active(const struct http_engine *engine)
{
	return container_of(engine, const struct http1, engine)->active;
}

/* Slow heads and slow bodies; a waiting connection without a request is its owner's business. */
static int tick(struct http_engine *engine, uint64_t now_ms, struct err *err)
{
	struct http1 *h = of(engine);

	if (h->state == HTTP1_HEAD) {
		if (!h->head_bytes)
			return 0;
		if (!h->since_ms)
			h->since_ms = now_ms;
		return now_ms - h->since_ms < LIM_HTTP1_HEAD_MS
			       ? 0
			       : fail(h, 408, "the head of the request took too long", err);
	}
	if (h->state != HTTP1_BODY) {
		h->since_ms = 0;
		return 0;
	}
	if (!h->body_since_ms) {
		h->body_since_ms = now_ms;
		h->since_ms = 0;
	}
	if (now_ms - h->body_since_ms >= LIM_HTTP_BODY_MS)
		return fail(h, 408, "the body of the request took too long", err);
	if (!h->since_ms || h->raw_bytes - h->since_bytes >= LIM_HTTP1_PROGRESS_BYTES ||
	    h->unconsumed >= LIM_HTTP1_WINDOW_BYTES) {
		h->since_ms = now_ms;
		h->since_bytes = h->raw_bytes;
	}
	return now_ms - h->since_ms < LIM_HTTP1_PROGRESS_MS
		       ? 0
		       : fail(h, 408, "the body of the request came too slowly", err);
}

static void destroy(struct http_engine *engine, const struct err *err)
{
	struct http1 *h = of(engine);
	struct err why = {0};

	if (!err)
		err_set(&why, ERR_CLOSED, "connection closed");
	http1_close_request(h, err ? err : &why);
	http1_drop_output(h);
	buf_done(&h->in);
	buf_done(&h->head);
	mem_free(h);
}

struct http_engine *http1_server_new(struct http_conn *conn)
{
	static const struct http_engine_ops ops = {
		.feed = feed,
		.drain = drain,
		.shutdown = shutdown_engine,
		.finished = finished,
		.active = active,
		.tick = tick,
		.destroy = destroy,
	};
	struct http1 *h = mem_zalloc(sizeof(*h));

	h->engine.ops = &ops;
	h->engine.conn = conn;
	list_init(&h->out);
	next_request(h);
	return &h->engine;
}
