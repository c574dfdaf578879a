#include <stdio.h>
#include <string.h>

#include "base/bucket.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "net/h2_int.h"
#include "net/loop.h"

/*
 * The server engine. nghttp2 keeps the protocol; this file turns its callbacks into requests and
 * holds the limits that nghttp2 1.52 does not: header list size, floods of cheap frames, ping
 * strikes, slow header blocks.
 *
 * A request: BEGIN (header block arrives) -> routed (handler set) -> body -> response queued ->
 * on_stream_close. Handlers run inside h2_server feed or drain; a reset they ask for is only
 * queued, so a request never goes away under its handler.
 */

struct h2_server {
	struct http_engine engine;
	struct http_conn *conn;
	nghttp2_session *session;
	struct list requests;
	size_t n_requests;
	struct list progressed; /* requests whose output shrank in this drain */
	struct h2_server_opts opts;
	bool got_settings;
	bool failed;
	bool output_failed;  /* the sink took nothing more: no drain any more */
	bool abused;         /* GOAWAY ENHANCE_YOUR_CALM is on its way */
	bool shutting, shut; /* notice sent; final GOAWAY sent */
	uint64_t started, headers_since, last_in, ping_sent, shut_at;
	struct bucket glitches;
	unsigned strikes;
	uint64_t last_ping_in;
	bool progress; /* this drain moved something by reference */
};

/* How long an answered request may take to end by itself. */
enum { ANSWERED_GRACE_MS = 1000 };

struct h2_request {
	struct http_request req;
	struct list link;
	struct list progressed;
	struct h2_server *server;
	int32_t id;
	struct h2_headers headers;
	struct h2_queue out;
	nghttp2_nv *trailers;
	size_t n_trailers;
	bool too_large;
	bool remote_ended;
	bool submitted; /* response given to nghttp2 */
	bool was_high;  /* on_writable is owed */
	bool cut;       /* reset by us */
	uint64_t started;
	uint64_t answered; /* completely, before its own end; 0: not so */
};

static uint64_t h2_now(const struct h2_server *s)
{
	return s->conn->loop != NULL ? loop_now(s->conn->loop) : clock_mono_ms();
}

static struct h2_server *h2_of(const struct http_engine *engine)
{
	return (struct h2_server *)container_of(engine, struct h2_server, engine);
}

static struct h2_request *request_of(const struct http_request *req)
{
	return (struct h2_request *)container_of(req, struct h2_request, req);
}

static void h2_abuse(struct h2_server *s, const char *what)
{
	if (s->abused) {
		return;
	}
	s->abused = true;
	METRICS_COUNT("skerry_h2_abuse_total", "HTTP/2 connections ended with ENHANCE_YOUR_CALM.",
		      1);
	nghttp2_submit_goaway(s->session, NGHTTP2_FLAG_NONE,
			      nghttp2_session_get_last_proc_stream_id(s->session),
			      NGHTTP2_ENHANCE_YOUR_CALM, (const uint8_t *)what, strlen(what));
	nghttp2_session_terminate_session(s->session, NGHTTP2_ENHANCE_YOUR_CALM);
}

/* ---- Requests -------------------------------------------------------------------------------- */

static void request_free(struct h2_request *r)
{
	list_remove(&r->link);
	list_remove(&r->progressed);
	r->server->n_requests--;
	r->server->conn->queued -= r->out.cost;
	h2_headers_done(&r->headers);
	h2_queue_done(&r->out);
	mem_free(r->trailers);
	mem_free(r);
}

static void request_end(struct h2_request *r, const struct err *err)
{
	if (r->req.handler != NULL) {
		r->req.ended = true;
		r->req.handler->on_close(r->req.arg, &r->req, err);
	}
	request_free(r);
}

static ssize_t request_read(nghttp2_session *session, int32_t id, uint8_t *buf, size_t len,
			    uint32_t *flags, nghttp2_data_source *source, void *user)
{
	struct h2_request *r = source->ptr;

	(void)id;
	(void)buf;
	(void)user;
	if (r->out.bytes == 0 && !r->out.ended) {
		r->out.deferred = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	size_t n = MIN(len, r->out.bytes);
	*flags |= NGHTTP2_DATA_FLAG_NO_COPY;
	if (n == r->out.bytes && r->out.ended) {
		*flags |= NGHTTP2_DATA_FLAG_EOF;
		if (r->trailers != NULL) {
			*flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
			if (nghttp2_submit_trailer(session, r->id, r->trailers, r->n_trailers) !=
			    0) {
				return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
			}
		}
	}
	return (ssize_t)n;
}

static void request_resume(struct h2_request *r)
{
	if (r->out.deferred) {
		r->out.deferred = false;
		nghttp2_session_resume_data(r->server->session, r->id);
	}
	http_conn_want_flush(r->server->conn);
}

static int op_respond(struct http_request *req, int status, const struct http_header *headers,
		      size_t n, bool end)
{
	struct h2_request *r = request_of(req);
	nghttp2_nv few[8], *nva = n < ARRAY_LEN(few) ? few : mem_calloc(n + 1, sizeof(*nva));
	nghttp2_data_provider provider = {.source.ptr = r, .read_callback = request_read};
	char code[4];

	PRE(status >= 100 && status <= 999);
	code[0] = (char)('0' + status / 100);
	code[1] = (char)('0' + status / 10 % 10);
	code[2] = (char)('0' + status % 10);
	code[3] = '\0';
	nva[0] = h2_nv(":status", code);
	for (size_t i = 0; i < n; i++) {
		nva[i + 1] = h2_nv(headers[i].name, headers[i].value);
	}
	int rc = nghttp2_submit_response(r->server->session, r->id, nva, n + 1,
					 end ? NULL : &provider);
	if (nva != few) {
		mem_free(nva);
	}
	if (rc != 0) {
		return ERR_CLOSED;
	}
	r->submitted = true;
	r->out.ended = end;
	http_conn_want_flush(r->server->conn);
	return 0;
}

static int op_write(struct http_request *req, struct blob *blob, size_t off, size_t len, bool end)
{
	struct h2_request *r = request_of(req);

	if (r->cut) {
		return ERR_CLOSED;
	}
	size_t before = r->out.cost;
	int rc = h2_queue_push(&r->out, blob, off, len);
	if (rc != 0) {
		return rc;
	}
	r->server->conn->queued += r->out.cost - before;
	r->out.ended = end;
	r->was_high = true;
	request_resume(r);
	return 0;
}

static int op_trailers(struct http_request *req, const struct http_header *headers, size_t n)
{
	struct h2_request *r = request_of(req);
	size_t bytes = 0;

	if (r->cut) {
		return ERR_CLOSED;
	}
	for (size_t i = 0; i < n; i++) {
		bytes += strlen(headers[i].name) + strlen(headers[i].value) + 2;
	}
	/* Their text behind them. */
	r->trailers = mem_alloc((n + 1) * sizeof(*r->trailers) + bytes);
	r->n_trailers = n;
	char *p = (char *)(r->trailers + n + 1);
	for (size_t i = 0; i < n; i++) {
		char *name = p, *value = stpcpy(name, headers[i].name) + 1;

		p = stpcpy(value, headers[i].value) + 1;
		r->trailers[i] = h2_nv(name, value);
	}
	r->out.ended = true;
	request_resume(r);
	return 0;
}

static void op_reset(struct http_request *req, uint32_t code)
{
	struct h2_request *r = request_of(req);

	if (r->cut) {
		return;
	}
	r->cut = true;
	nghttp2_submit_rst_stream(r->server->session, NGHTTP2_FLAG_NONE, r->id, code);
	http_conn_want_flush(r->server->conn);
}

static void op_consume(struct http_request *req, size_t len)
{
	struct h2_request *r = request_of(req);

	nghttp2_session_consume_stream(r->server->session, r->id, len);
	http_conn_want_flush(r->server->conn);
}

static size_t op_backlog(const struct http_request *req)
{
	return request_of(req)->out.cost;
}

static const struct http_request_ops h2_request_ops = {
	.respond = op_respond,
	.write = op_write,
	.trailers = op_trailers,
	.reset = op_reset,
	.consume = op_consume,
	.backlog = op_backlog,
};

/* The header block is complete: pseudo headers become fields, the rest the list. */
static void request_route(struct h2_request *r)
{
	const struct http_header *all = h2_headers_list(&r->headers);
	size_t pseudo = 0;
	char *path = NULL;

	r->req.method = "";
	r->req.path = "";
	r->req.query = "";
	r->req.authority = "";
	r->req.scheme = "";
	for (; pseudo < r->headers.n && all[pseudo].name[0] == ':'; pseudo++) {
		const char *name = all[pseudo].name;

		if (strcmp(name, ":method") == 0) {
			r->req.method = all[pseudo].value;
		} else if (strcmp(name, ":scheme") == 0) {
			r->req.scheme = all[pseudo].value;
		} else if (strcmp(name, ":authority") == 0) {
			r->req.authority = all[pseudo].value;
		} else if (strcmp(name, ":path") == 0) {
			path = (char *)all[pseudo].value; /* in the text of our headers */
			r->req.path = path;
		}
	}
	r->req.headers = all + pseudo;
	r->req.n_headers = r->headers.n - pseudo;
	if (r->req.authority[0] == '\0') {
		const char *host = http_header(&r->req, "host");

		r->req.authority = host != NULL ? host : "";
	}
	char *question = path != NULL ? strchr(path, '?') : NULL;
	if (question != NULL) {
		*question = '\0';
		r->req.query = question + 1;
	}
	if (r->too_large || strlen(r->req.path) > LIM_HTTP_PATH_BYTES) {
		METRICS_COUNT("skerry_h2_headers_too_large_total",
			      "Requests refused for the size of their headers.", 1);
		http_set_handler(&r->req, &http_ignore_handler, NULL);
		http_reply_text(&r->req, r->too_large ? 431 : 414,
				"the request's headers are larger than %d bytes\n",
				r->too_large ? LIM_H2_HEADER_LIST_BYTES : LIM_HTTP_PATH_BYTES);
		return;
	}
	if (r->req.path[0] != '/') {
		http_set_handler(&r->req, &http_ignore_handler, NULL);
		http_reply_text(&r->req, strcmp(r->req.method, "CONNECT") == 0 ? 405 : 400,
				"not served here\n");
		return;
	}
	http_route(r->server->conn->router, &r->req);
}

/* ---- nghttp2 callbacks ----------------------------------------------------------------------- */

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct h2_server *s = user;

	s->headers_since = h2_now(s);
	if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
		return 0;
	}
	struct h2_request *r = MEM_NEW(struct h2_request);
	r->req.ops = &h2_request_ops;
	r->req.conn = s->conn;
	r->req.version = 2;
	r->server = s;
	r->id = frame->hd.stream_id;
	r->started = s->headers_since;
	h2_queue_init(&r->out);
	list_push(&s->requests, &r->link);
	s->n_requests++;
	nghttp2_session_set_stream_user_data(session, r->id, r);
	return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
		     void *user)
{
	struct h2_server *s = user;
	struct h2_request *r = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);

	(void)flags;
	if (r == NULL || frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
		return 0; /* request trailers: nobody wants them */
	}
	if (!h2_headers_add(&r->headers, name, name_len, value, value_len,
			    LIM_H2_HEADER_LIST_BYTES)) {
		r->too_large = true;
		if (r->headers.bytes > LIM_H2_HEADER_ABUSE_BYTES) {
			h2_abuse(s, "header_list_too_large");
			return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
		}
	}
	return 0;
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd, void *user)
{
	struct h2_server *s = user;
	bool cheap = false;

	(void)session;
	switch (hd->type) {
	case NGHTTP2_HEADERS:
	case NGHTTP2_CONTINUATION:
	case NGHTTP2_PING:
	case NGHTTP2_GOAWAY:
	case NGHTTP2_PUSH_PROMISE: break;
	case NGHTTP2_DATA:
		cheap = hd->length == 0 && (hd->flags & NGHTTP2_FLAG_END_STREAM) == 0;
		break;
	default: cheap = true; break; /* PRIORITY, WINDOW_UPDATE, SETTINGS, RST_STREAM, unknown */
	}
	if (cheap && !s->opts.trusted && !bucket_take(&s->glitches, 1, h2_now(s))) {
		h2_abuse(s, "too_many_frames");
	}
	return 0;
}

static void on_ping(struct h2_server *s)
{
	uint64_t now = h2_now(s);

	if (s->opts.trusted) {
		return;
	}
	if (s->last_ping_in != 0 && now - s->last_ping_in < LIM_H2_PING_MIN_MS) {
		if (++s->strikes > LIM_H2_PING_STRIKES) {
			h2_abuse(s, "too_many_pings");
		}
	}
	s->last_ping_in = now;
}

static void submit_final_goaway(struct h2_server *s)
{
	if (!s->shut) {
		s->shut = true;
		nghttp2_submit_goaway(s->session, NGHTTP2_FLAG_NONE,
				      nghttp2_session_get_last_proc_stream_id(s->session),
				      NGHTTP2_NO_ERROR, NULL, 0);
	}
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct h2_server *s = user;
	struct h2_request *r = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
	bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;

	switch (frame->hd.type) {
	case NGHTTP2_SETTINGS:
		if ((frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) {
			s->got_settings = true;
		}
		break;
	case NGHTTP2_PING:
		if ((frame->hd.flags & NGHTTP2_FLAG_ACK) != 0) {
			s->ping_sent = 0;
			if (s->shutting) {
				submit_final_goaway(s);
			}
		} else {
			on_ping(s);
		}
		break;
	case NGHTTP2_HEADERS:
		s->headers_since = 0;
		s->strikes = 0;
		s->last_ping_in = 0;
		if (r != NULL && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
			request_route(r);
		}
		break;
	case NGHTTP2_DATA:
		s->strikes = 0;
		s->last_ping_in = 0;
		break;
	default: break;
	}
	if (r != NULL && end &&
	    (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA)) {
		r->remote_ended = true;
		if (!r->cut && r->req.handler != NULL) {
			r->req.handler->on_end(r->req.arg, &r->req);
		}
	}
	return 0;
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
			 size_t len, void *user)
{
	struct h2_request *r = nghttp2_session_get_stream_user_data(session, id);

	(void)flags;
	(void)user;
	/* The connection's window is for all streams: one that is not read must not close it. */
	nghttp2_session_consume_connection(session, len);
	if (r == NULL || r->cut || r->req.handler == NULL) {
		nghttp2_session_consume_stream(session, id, len);
		return 0;
	}
	r->req.handler->on_body(r->req.arg, &r->req, data, len);
	return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *user)
{
	struct h2_request *r = nghttp2_session_get_stream_user_data(session, id);
	struct err err = {0};

	(void)user;
	if (r == NULL) {
		return 0;
	}
	nghttp2_session_set_stream_user_data(session, id, NULL);
	if (code != NGHTTP2_NO_ERROR || !r->req.ended) {
		err_set(&err, code == NGHTTP2_CANCEL ? ERR_CANCELLED : ERR_CLOSED,
			"stream reset: %s", nghttp2_http2_strerror(code));
		request_end(r, &err);
	} else {
		request_end(r, NULL);
	}
	return 0;
}

static bool request_is_grpc(const struct h2_request *r)
{
	const char *type = http_header(&r->req, "content-type");

	return type != NULL && strncmp(type, "application/grpc", 16) == 0;
}

/*
 * An answer that was complete before its request: the client shall not send the rest (RFC 9113
 * §8.1). gRPC clients are told at once; others a moment later (h2_tick), unless their request has
 * ended by then: curl 7.88, while it still sends its body, drops an answer that a reset follows.
 */
static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct h2_server *s = user;
	struct h2_request *r;

	if (frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS) {
		return 0;
	}
	s->strikes = 0;
	s->last_ping_in = 0;
	r = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
	if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0 || r == NULL || r->remote_ended ||
	    r->cut) {
		return 0;
	}
	r->answered = h2_now(s);
	if (request_is_grpc(r)) {
		nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
					  NGHTTP2_NO_ERROR);
	}
	return 0;
}

static int send_piece(void *arg, struct blob *blob, size_t off, size_t len)
{
	struct h2_server *s = arg;

	return http_conn_send_blob(s->conn, blob, off, len);
}

static int on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *hd,
			size_t len, nghttp2_data_source *source, void *user)
{
	struct h2_server *s = user;
	struct h2_request *r = source->ptr;

	(void)session;
	(void)frame;
	size_t before = r->out.cost;
	int rc = http_conn_send(s->conn, hd, 9);
	rc = rc != 0 ? rc : h2_queue_pull(&r->out, len, send_piece, s);
	s->conn->queued -= before - r->out.cost;
	if (rc != 0) {
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	}
	s->progress = true;
	if (r->was_high && !list_linked(&r->progressed)) {
		list_push(&s->progressed, &r->progressed);
	}
	return 0;
}

static nghttp2_session_callbacks *server_callbacks;
static nghttp2_option *server_option;
static nghttp2_option *trusted_option; /* without a rate of resets */

__attribute__((constructor)) static void h2_server_make(void)
{
	nghttp2_session_callbacks_new(&server_callbacks);
	nghttp2_session_callbacks_set_on_begin_headers_callback(server_callbacks, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(server_callbacks, on_header);
	nghttp2_session_callbacks_set_on_begin_frame_callback(server_callbacks, on_begin_frame);
	nghttp2_session_callbacks_set_on_frame_recv_callback(server_callbacks, on_frame_recv);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(server_callbacks, on_data_chunk);
	nghttp2_session_callbacks_set_on_stream_close_callback(server_callbacks, on_stream_close);
	nghttp2_session_callbacks_set_on_frame_send_callback(server_callbacks, on_frame_send);
	nghttp2_session_callbacks_set_send_data_callback(server_callbacks, on_send_data);
	nghttp2_option_new(&server_option);
	nghttp2_option_new(&trusted_option);
	nghttp2_option *const both[] = {server_option, trusted_option};
	for (size_t i = 0; i < ARRAY_LEN(both); i++) {
		nghttp2_option_set_no_auto_window_update(both[i], 1);
		nghttp2_option_set_no_closed_streams(both[i], 1);
		nghttp2_option_set_max_outbound_ack(both[i], LIM_H2_ACK_QUEUE);
		nghttp2_option_set_max_continuations(both[i], LIM_H2_CONTINUATIONS);
	}
	nghttp2_option_set_stream_reset_rate_limit(server_option, LIM_H2_RESET_BURST,
						   LIM_H2_RESET_PER_SEC);
	nghttp2_option_set_stream_reset_rate_limit(trusted_option, 1u << 20, 1u << 20);
}

/* ---- Engine ---------------------------------------------------------------------------------- */

static int h2_feed(struct http_engine *engine, const uint8_t *data, size_t len, struct err *err)
{
	struct h2_server *s = h2_of(engine);

	if (s->failed) {
		return ERR_PROTOCOL;
	}
	s->last_in = h2_now(s);
	ssize_t n = nghttp2_session_mem_recv(s->session, data, len);
	if (n < 0) {
		s->failed = true;
		METRICS_COUNT("skerry_h2_protocol_errors_total",
			      "HTTP/2 connections ended for what the client sent.", 1);
		return err_set(err, ERR_PROTOCOL, "HTTP/2: %s", nghttp2_strerror((int)n));
	}
	if (nghttp2_session_get_outbound_queue_size(s->session) > LIM_H2_OUTBOUND_FRAMES) {
		s->failed = true;
		return err_set(err, ERR_LIMIT,
			       "HTTP/2: the client makes us answer more than it reads");
	}
	return 0;
}

static void h2_writable(struct h2_server *s)
{
	struct list *l;

	while ((l = list_pop(&s->progressed)) != NULL) {
		struct h2_request *r = LIST_ENTRY(l, struct h2_request, progressed);

		if (r->out.cost > LIM_GRPC_STREAM_QUEUE_BYTES / 2 || r->cut ||
		    r->req.handler == NULL) {
			continue;
		}
		r->was_high = r->out.bytes > 0;
		if (r->req.handler->on_writable != NULL) {
			r->req.handler->on_writable(r->req.arg, &r->req);
		}
	}
}

static void h2_drain(struct http_engine *engine)
{
	struct h2_server *s = h2_of(engine);

	/* After a failed output nghttp2 would send the same data again, which is out of the queue. */
	while (!s->output_failed) {
		const uint8_t *data;

		if (http_conn_is_full(s->conn)) {
			break; /* drained again when the stream is writable */
		}
		s->progress = false;
		ssize_t n = nghttp2_session_mem_send(s->session, &data);
		if (n < 0) {
			s->failed = s->output_failed = true;
			break;
		}
		if (n == 0) {
			if (!s->progress) {
				break;
			}
			continue;
		}
		if (http_conn_send(s->conn, data, (size_t)n) != 0) {
			s->failed = s->output_failed = true;
			break;
		}
	}
	h2_writable(s);
}

static void h2_shutdown(struct http_engine *engine)
{
	struct h2_server *s = h2_of(engine);

	if (s->shutting) {
		return;
	}
	s->shutting = true;
	s->shut_at = h2_now(s);
	nghttp2_submit_shutdown_notice(s->session);
	nghttp2_submit_ping(s->session, NGHTTP2_FLAG_NONE, (const uint8_t *)"shutdown");
	http_conn_want_flush(s->conn);
}

static bool h2_finished(const struct http_engine *engine)
{
	const struct h2_server *s = h2_of(engine);

	if (s->failed) {
		return true;
	}
	if (s->shut && s->n_requests == 0 && nghttp2_session_want_write(s->session) == 0) {
		return true;
	}
	return nghttp2_session_want_read(s->session) == 0 &&
	       nghttp2_session_want_write(s->session) == 0;
}

static size_t h2_active(const struct http_engine *engine)
{
	return h2_of(engine)->n_requests;
}

static int h2_tick(struct http_engine *engine, uint64_t now, struct err *err)
{
	struct h2_server *s = h2_of(engine);
	uint64_t ping_ms = s->opts.ping_ms != 0 ? s->opts.ping_ms : LIM_H2_PING_MS;
	uint64_t ping_timeout = s->opts.ping_timeout_ms != 0 ? s->opts.ping_timeout_ms
							     : LIM_H2_PING_TIMEOUT_MS;

	if (!s->got_settings && now - s->started > LIM_H2_PREFACE_MS) {
		return err_set(err, ERR_DEADLINE, "HTTP/2: no client preface in time");
	}
	if (s->headers_since != 0 && now - s->headers_since > LIM_H2_HEADERS_MS) {
		return err_set(err, ERR_DEADLINE, "HTTP/2: a header block does not end");
	}
	if (s->ping_sent != 0 && now - s->ping_sent > ping_timeout) {
		return err_set(err, ERR_CLOSED, "HTTP/2: the client answers no ping");
	}
	if (s->ping_sent == 0 && !s->shutting && now - s->last_in > ping_ms) {
		s->ping_sent = now;
		nghttp2_submit_ping(s->session, NGHTTP2_FLAG_NONE, NULL);
		http_conn_want_flush(s->conn);
	}
	if (s->shutting && !s->shut && now - s->shut_at >= 1000) {
		submit_final_goaway(s); /* no answer to the ping: do not wait longer */
		http_conn_want_flush(s->conn);
	}
	LIST_FOREACH(&s->requests, l)
	{
		struct h2_request *r = LIST_ENTRY(l, struct h2_request, link);

		/* gRPC calls have deadlines of their own and streams that rightly last. */
		if (r->remote_ended || r->cut) {
			continue;
		}
		if (r->answered != 0 && now - r->answered >= ANSWERED_GRACE_MS) {
			op_reset(&r->req, NGHTTP2_NO_ERROR);
		} else if (now - r->started > LIM_HTTP_BODY_MS && !request_is_grpc(r)) {
			op_reset(&r->req, NGHTTP2_CANCEL);
		}
	}
	return 0;
}

static void h2_destroy(struct http_engine *engine, const struct err *err)
{
	struct h2_server *s = h2_of(engine);

	/* nghttp2_session_del() tells no stream of its end: done here. */
	while (!list_empty(&s->requests)) {
		struct h2_request *r = LIST_ENTRY(s->requests.next, struct h2_request, link);

		nghttp2_session_set_stream_user_data(s->session, r->id, NULL);
		request_end(r, err);
	}
	nghttp2_session_del(s->session);
	mem_free(s);
}

static const struct http_engine_ops h2_engine_ops = {
	.feed = h2_feed,
	.drain = h2_drain,
	.shutdown = h2_shutdown,
	.finished = h2_finished,
	.active = h2_active,
	.tick = h2_tick,
	.destroy = h2_destroy,
};

struct http_engine *h2_server_new(struct http_conn *conn, const struct h2_server_opts *opts)
{
	struct h2_server *s = MEM_NEW(struct h2_server);
	uint32_t max_streams = opts != NULL && opts->max_streams != 0 ? opts->max_streams
								      : LIM_H2_STREAMS;
	const nghttp2_settings_entry settings[] = {
		{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, max_streams},
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, LIM_H2_WINDOW_BYTES},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, LIM_H2_HEADER_LIST_BYTES},
		{NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
	};

	s->engine.ops = &h2_engine_ops;
	s->engine.conn = conn;
	s->conn = conn;
	if (opts != NULL) {
		s->opts = *opts;
	}
	list_init(&s->requests);
	list_init(&s->progressed);
	s->started = h2_now(s);
	s->last_in = s->started;
	bucket_init(&s->glitches, LIM_H2_GLITCH_BURST,
		    1000ull * LIM_H2_GLITCH_BURST / LIM_H2_GLITCH_PER_SEC, s->started);
	if (nghttp2_session_server_new2(&s->session, server_callbacks, s,
					s->opts.trusted ? trusted_option : server_option) != 0) {
		IMPOSSIBLE("nghttp2_session_server_new2 without memory");
	}
	nghttp2_submit_settings(s->session, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings));
	nghttp2_session_set_local_window_size(s->session, NGHTTP2_FLAG_NONE, 0,
					      LIM_H2_CONN_WINDOW_BYTES);
	return &s->engine;
}
