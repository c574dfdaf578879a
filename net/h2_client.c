#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "net/gather.h"
#include "net/h2_int.h"
#include "net/loop.h"
#include "net/stream.h"

/*
 * The client side: one connection, streams opened by the caller. Callbacks to the caller come from
 * feeding or draining, never from inside its own calls; `busy` keeps the object while one of them
 * is on the stack.
 */

enum { CLIENT_WINDOW = 1 << 20 };

struct h2_client {
	struct stream *stream;
	struct loop *loop;
	nghttp2_session *session;
	const struct h2_client_handler *handler;
	void *arg;
	struct list streams;
	struct list progressed; /* streams whose output shrank in this drain */
	size_t n_streams;
	struct flush_hook flush;
	struct gather out;
	struct loop_timer timer; /* keepalive */
	uint64_t ping_ms, ping_timeout_ms, last_in;
	bool ping_out; /* a ping is unanswered */
	bool got_settings;
	bool going; /* GOAWAY came, or shutdown was asked */
	bool dead;
	bool freed;
	bool progress;
	unsigned busy;
};

struct h2_stream {
	struct list link;
	struct list progressed;
	struct h2_client *client;
	int32_t id;
	struct h2_headers headers;
	struct h2_queue out;
	const struct h2_stream_handler *handler; /* NULL when cancelled */
	void *arg;
	bool final; /* the final response head came */
	bool reset_by_us;
	bool was_high;
};

static void client_leave(struct h2_client *c)
{
	if (--c->busy > 0 || !c->freed) {
		return;
	}
	loop_flush_remove(&c->flush);
	loop_timer_stop(&c->timer);
	gather_done(&c->out);
	nghttp2_session_del(c->session);
	mem_free(c);
}

static void stream_free_h2(struct h2_stream *st)
{
	list_remove(&st->link);
	list_remove(&st->progressed);
	st->client->n_streams--;
	h2_headers_done(&st->headers);
	h2_queue_done(&st->out);
	mem_free(st);
}

static void stream_over(struct h2_stream *st, uint32_t code, const struct err *err)
{
	const struct h2_stream_handler *handler = st->handler;
	void *arg = st->arg;
	bool local = st->reset_by_us;

	stream_free_h2(st);
	if (handler != NULL) {
		handler->on_close(arg, code, local, err);
	}
}

/* The connection is over: streams first, then the owner. */
static void client_die(struct h2_client *c, const struct err *why, bool abort)
{
	struct stream *stream = c->stream;

	if (c->dead) {
		return;
	}
	c->dead = true;
	c->stream = NULL;
	loop_timer_stop(&c->timer);
	if (stream != NULL) {
		if (abort) {
			stream_abort(stream);
		} else {
			stream_close(stream);
		}
	}
	while (!list_empty(&c->streams)) {
		struct h2_stream *st = LIST_ENTRY(c->streams.next, struct h2_stream, link);

		nghttp2_session_set_stream_user_data(c->session, st->id, NULL);
		stream_over(st, H2_CONNECTION_LOST, why);
	}
	if (!c->freed && c->handler->on_dead != NULL) {
		c->handler->on_dead(c->arg, why);
	}
}

static int send_piece(void *arg, struct blob *blob, size_t off, size_t len)
{
	struct h2_client *c = arg;

	return gather_blob(&c->out, c->stream, blob, off, len);
}

static void client_drain(struct h2_client *c)
{
	while (!c->dead) {
		const uint8_t *data;

		if (stream_backlog(c->stream) + c->out.len >= LIM_CONN_PENDING_BYTES) {
			break;
		}
		c->progress = false;
		ssize_t n = nghttp2_session_mem_send(c->session, &data);
		if (n < 0 || (n > 0 && gather_put(&c->out, c->stream, data, (size_t)n) != 0)) {
			struct err err = {0};

			err_set(&err, ERR_PROTOCOL, "HTTP/2: %s",
				n < 0 ? nghttp2_strerror((int)n) : "output failed");
			client_die(c, &err, true);
			return;
		}
		if (n == 0 && !c->progress) {
			break;
		}
	}
	if (!c->dead) {
		IGNORE(gather_flush(&c->out, c->stream));
	}
}

static void client_want_flush(struct h2_client *c)
{
	if (!c->dead) {
		loop_flush_add(c->loop, &c->flush);
	}
}

static void client_flush(void *arg)
{
	struct h2_client *c = arg;
	struct err err = {0};

	c->busy++;
	client_drain(c);
	/* Writable again: told here, outside of nghttp2. */
	struct list *l;
	while (!c->dead && (l = list_pop(&c->progressed)) != NULL) {
		struct h2_stream *st = LIST_ENTRY(l, struct h2_stream, progressed);

		if (st->out.cost > LIM_GRPC_STREAM_QUEUE_BYTES / 2) {
			continue;
		}
		st->was_high = st->out.bytes > 0;
		if (st->handler != NULL && st->handler->on_writable != NULL) {
			st->handler->on_writable(st->arg);
		}
	}
	if (!c->dead &&
	    ((c->going && c->n_streams == 0 && nghttp2_session_want_write(c->session) == 0) ||
	     (nghttp2_session_want_read(c->session) == 0 &&
	      nghttp2_session_want_write(c->session) == 0))) {
		err_set(&err, ERR_CLOSED, "the connection is complete");
		client_die(c, &err, false);
	}
	client_leave(c);
}

/* ---- nghttp2 callbacks ----------------------------------------------------------------------- */

static struct h2_stream *stream_get(nghttp2_session *session, int32_t id)
{
	return nghttp2_session_get_stream_user_data(session, id);
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct h2_stream *st = stream_get(session, frame->hd.stream_id);

	(void)user;
	if (st != NULL) {
		h2_headers_done(&st->headers);
	}
	return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
		     void *user)
{
	struct h2_stream *st = stream_get(session, frame->hd.stream_id);

	(void)flags;
	(void)user;
	/* Twice the server's bound: rich errors travel in trailers. */
	if (st != NULL && !h2_headers_add(&st->headers, name, name_len, value, value_len,
					  2 * LIM_H2_HEADER_LIST_BYTES)) {
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	}
	return 0;
}

static void stream_headers(struct h2_stream *st, bool end)
{
	const struct http_header *list = h2_headers_list(&st->headers);
	size_t n = st->headers.n;
	int status = 0;

	if (!st->final) {
		if (n > 0 && strcmp(list[0].name, ":status") == 0) {
			status = (int)strtol(list[0].value, NULL, 10);
			list++;
			n--;
		}
		if (status >= 100 && status < 200) {
			return; /* informational */
		}
		st->final = true;
		st->handler->on_headers(st->arg, status, list, n, false, end);
		return;
	}
	st->handler->on_headers(st->arg, 0, list, n, true, end);
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct h2_client *c = user;
	struct h2_stream *st = stream_get(session, frame->hd.stream_id);
	bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;

	switch (frame->hd.type) {
	case NGHTTP2_SETTINGS:
		if ((frame->hd.flags & NGHTTP2_FLAG_ACK) == 0 && !c->got_settings) {
			c->got_settings = true;
			if (c->handler->on_settings != NULL && !c->freed) {
				c->handler->on_settings(c->arg);
			}
		}
		break;
	case NGHTTP2_PING:
		if ((frame->hd.flags & NGHTTP2_FLAG_ACK) != 0) {
			c->ping_out = false;
		}
		break;
	case NGHTTP2_GOAWAY: {
		bool first = !c->going;
		size_t len = frame->goaway.opaque_data_len;
		char *debug =
			mem_strndup(len > 0 ? (const char *)frame->goaway.opaque_data : "", len);

		c->going = true;
		if (first && !c->freed && c->handler->on_goaway != NULL) {
			c->handler->on_goaway(c->arg, frame->goaway.error_code, debug);
		}
		mem_free(debug);
		break;
	}
	case NGHTTP2_HEADERS:
		if (st != NULL && st->handler != NULL) {
			stream_headers(st, end);
		}
		break;
	case NGHTTP2_DATA:
		if (st != NULL && st->handler != NULL && end) {
			st->handler->on_data(st->arg, NULL, 0, true);
		}
		break;
	default: break;
	}
	return 0;
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
			 size_t len, void *user)
{
	struct h2_stream *st = stream_get(session, id);

	(void)flags;
	(void)user;
	nghttp2_session_consume_connection(session, len);
	if (st == NULL || st->handler == NULL) {
		nghttp2_session_consume_stream(session, id, len);
		return 0;
	}
	st->handler->on_data(st->arg, data, len, false);
	return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *user)
{
	static const struct err complete = {.code = ERR_CLOSED, .msg = "stream ended: NO_ERROR"};
	struct h2_stream *st = stream_get(session, id);

	(void)user;
	if (st == NULL) {
		return 0;
	}
	nghttp2_session_set_stream_user_data(session, id, NULL);
	if (code == NGHTTP2_NO_ERROR) {
		stream_over(st, code, &complete);
	} else {
		struct err err = {0};

		err_set(&err, ERR_CLOSED, "stream ended: %s", nghttp2_http2_strerror(code));
		stream_over(st, code, &err);
	}
	return 0;
}

/* A request that nghttp2 held back (too many streams) and can never send. */
static int on_frame_not_send(nghttp2_session *session, const nghttp2_frame *frame, int why,
			     void *user)
{
	struct h2_client *c = user;
	struct h2_stream *st = NULL;
	struct err err = {0};

	if (frame->hd.type != NGHTTP2_HEADERS) {
		return 0;
	}
	LIST_FOREACH(&c->streams, l)
	{ /* nghttp2 may know no stream yet, so that it has no user data */
		if (LIST_ENTRY(l, struct h2_stream, link)->id == frame->hd.stream_id) {
			st = LIST_ENTRY(l, struct h2_stream, link);
		}
	}
	if (st == NULL) {
		return 0;
	}
	/* If it knows the stream, it closes it right after this. */
	nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, NULL);
	err_set(&err, ERR_UNAVAILABLE, "the request was not sent: %s", nghttp2_strerror(why));
	stream_over(st, NGHTTP2_REFUSED_STREAM, &err);
	return 0;
}

static int on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *hd,
			size_t len, nghttp2_data_source *source, void *user)
{
	struct h2_client *c = user;
	struct h2_stream *st = source->ptr;

	(void)session;
	(void)frame;
	if (gather_put(&c->out, c->stream, hd, 9) != 0 ||
	    h2_queue_pull(&st->out, len, send_piece, c) != 0) {
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	}
	c->progress = true;
	if (st->was_high && !list_linked(&st->progressed)) {
		list_push(&c->progressed, &st->progressed);
	}
	return 0;
}

static ssize_t on_read(nghttp2_session *session, int32_t id, uint8_t *buf, size_t len,
		       uint32_t *flags, nghttp2_data_source *source, void *user)
{
	struct h2_stream *st = source->ptr;

	(void)session;
	(void)id;
	(void)buf;
	(void)user;
	if (st->out.bytes == 0 && !st->out.ended) {
		st->out.deferred = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	size_t n = MIN(len, st->out.bytes);
	*flags |= NGHTTP2_DATA_FLAG_NO_COPY;
	if (n == st->out.bytes && st->out.ended) {
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	}
	return (ssize_t)n;
}

static nghttp2_session_callbacks *client_callbacks;
static nghttp2_option *client_option;

__attribute__((constructor)) static void h2_client_make(void)
{
	nghttp2_session_callbacks_new(&client_callbacks);
	nghttp2_session_callbacks_set_on_begin_headers_callback(client_callbacks, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(client_callbacks, on_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(client_callbacks, on_frame_recv);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(client_callbacks, on_data_chunk);
	nghttp2_session_callbacks_set_on_stream_close_callback(client_callbacks, on_stream_close);
	nghttp2_session_callbacks_set_on_frame_not_send_callback(client_callbacks,
								 on_frame_not_send);
	nghttp2_session_callbacks_set_send_data_callback(client_callbacks, on_send_data);
	nghttp2_option_new(&client_option);
	nghttp2_option_set_no_auto_window_update(client_option, 1);
	nghttp2_option_set_no_closed_streams(client_option, 1);
	nghttp2_option_set_max_outbound_ack(client_option, LIM_H2_ACK_QUEUE);
	nghttp2_option_set_max_continuations(client_option, LIM_H2_CONTINUATIONS);
}

/* ---- Stream ---------------------------------------------------------------------------------- */

static void client_on_data(void *arg, const uint8_t *data, size_t len)
{
	struct h2_client *c = arg;
	struct err err = {0};

	if (c->dead) {
		return;
	}
	c->busy++;
	c->last_in = loop_now(c->loop);
	ssize_t n = nghttp2_session_mem_recv(c->session, data, len);
	if (!c->dead) {
		if (n < 0) {
			err_set(&err, ERR_PROTOCOL, "HTTP/2: %s", nghttp2_strerror((int)n));
			client_drain(c);
			client_die(c, &err, false);
		} else {
			client_want_flush(c);
		}
	}
	client_leave(c);
}

static void client_on_close(void *arg, const struct err *err)
{
	struct h2_client *c = arg;

	c->busy++;
	c->stream = NULL;
	client_die(c, err, true);
	client_leave(c);
}

static void client_on_writable(void *arg)
{
	client_want_flush(arg);
}

static const struct stream_handler client_stream_handler = {
	.on_data = client_on_data,
	.on_close = client_on_close,
	.on_writable = client_on_writable,
};

static void client_keepalive(void *arg)
{
	struct h2_client *c = arg;
	uint64_t now = loop_now(c->loop);
	struct err err = {0};

	if (c->ping_out) {
		c->busy++;
		err_set(&err, ERR_UNAVAILABLE, "%s does not answer (keepalive)",
			stream_peer_text(c->stream));
		client_die(c, &err, true);
		client_leave(c);
		return;
	}
	uint64_t silent = now - c->last_in;
	if (silent < c->ping_ms) {
		loop_timer_start(&c->timer, c->loop, c->ping_ms - silent, client_keepalive, c);
		return;
	}
	c->ping_out = true;
	nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, NULL);
	client_want_flush(c);
	loop_timer_start(&c->timer, c->loop, c->ping_timeout_ms, client_keepalive, c);
}

struct h2_client *h2_client_new(struct stream *stream, uint64_t ping_ms, uint64_t ping_timeout_ms,
				const struct h2_client_handler *handler, void *arg)
{
	struct h2_client *c = MEM_NEW(struct h2_client);
	const nghttp2_settings_entry settings[] = {
		{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, CLIENT_WINDOW},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, 2 * LIM_H2_HEADER_LIST_BYTES},
		{NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
	};

	c->stream = stream;
	c->loop = stream_loop(stream);
	c->handler = handler;
	c->arg = arg;
	list_init(&c->streams);
	list_init(&c->progressed);
	c->flush.run = client_flush;
	c->flush.arg = c;
	c->ping_ms = ping_ms != 0 ? ping_ms : 20000;
	c->ping_timeout_ms = ping_timeout_ms != 0 ? ping_timeout_ms : 10000;
	c->last_in = loop_now(c->loop);
	if (nghttp2_session_client_new2(&c->session, client_callbacks, c, client_option) != 0) {
		IMPOSSIBLE("nghttp2_session_client_new2 without memory");
	}
	nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings));
	nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, CLIENT_WINDOW);
	stream_set_limits(stream, LIM_CONN_PENDING_BYTES, LIM_GRPC_CONN_QUEUE_BYTES);
	stream_set_handler(stream, &client_stream_handler, c);
	loop_timer_start(&c->timer, c->loop, c->ping_ms, client_keepalive, c);
	client_want_flush(c);
	return c;
}

void h2_client_free(struct h2_client *c)
{
	struct err err = {0};

	if (c == NULL || c->freed) {
		return;
	}
	c->busy++;
	c->freed = true;
	if (!c->dead) {
		nghttp2_session_terminate_session(c->session, NGHTTP2_NO_ERROR);
		if (c->busy == 1) {
			client_drain(c); /* inside nghttp2's own calls nothing can be sent */
		}
		err_set(&err, ERR_CANCELLED, "the connection was given up");
		LIST_FOREACH(&c->streams, l)
		{
			LIST_ENTRY(l, struct h2_stream, link)->reset_by_us = true;
		}
		client_die(c, &err, false);
	}
	client_leave(c);
}

void h2_client_shutdown(struct h2_client *c)
{
	c->going = true;
	client_want_flush(c);
}

bool h2_client_usable(const struct h2_client *c)
{
	return !c->dead && !c->going && !c->freed &&
	       nghttp2_session_check_request_allowed(c->session) != 0;
}

size_t h2_client_streams(const struct h2_client *c)
{
	return c->n_streams;
}

struct stream *h2_client_stream(const struct h2_client *c)
{
	return c->stream;
}

int h2_client_open(struct h2_client *c, const struct http_header *headers, size_t n, bool end,
		   const struct h2_stream_handler *handler, void *arg,
		   struct h2_stream **ret_stream)
{
	if (!h2_client_usable(c)) {
		return ERR_CLOSED;
	}
	if (c->n_streams >= LIM_RPC_REQUESTS) {
		return ERR_LIMIT;
	}
	struct h2_stream *st = MEM_NEW(struct h2_stream);
	nghttp2_nv few[16], *nva = n <= ARRAY_LEN(few) ? few : mem_calloc(n, sizeof(*nva));
	nghttp2_data_provider provider = {.source.ptr = st, .read_callback = on_read};

	st->client = c;
	st->handler = handler;
	st->arg = arg;
	h2_queue_init(&st->out);
	for (size_t i = 0; i < n; i++) {
		nva[i] = h2_nv(headers[i].name, headers[i].value);
	}
	st->id = nghttp2_submit_request(c->session, NULL, nva, n, end ? NULL : &provider, st);
	if (nva != few) {
		mem_free(nva);
	}
	if (st->id < 0) {
		mem_free(st);
		return ERR_CLOSED;
	}
	list_push(&c->streams, &st->link);
	c->n_streams++;
	client_want_flush(c);
	*ret_stream = st;
	return 0;
}

int h2_stream_send(struct h2_stream *st, struct blob *blob, size_t off, size_t len, bool end)
{
	if (st->out.ended) {
		return ERR_CLOSED;
	}
	int rc = blob != NULL ? h2_queue_push(&st->out, blob, off, len) : 0;
	if (rc != 0) {
		return rc;
	}
	st->out.ended = end;
	st->was_high = true;
	if (st->out.deferred) {
		st->out.deferred = false;
		nghttp2_session_resume_data(st->client->session, st->id);
	}
	client_want_flush(st->client);
	return 0;
}

void h2_stream_consume(struct h2_stream *st, size_t len)
{
	nghttp2_session_consume_stream(st->client->session, st->id, len);
	client_want_flush(st->client);
}

size_t h2_stream_backlog(const struct h2_stream *st)
{
	return st->out.bytes;
}

void h2_stream_cancel(struct h2_stream *st, uint32_t code)
{
	st->handler = NULL;
	st->reset_by_us = true;
	if (!st->client->dead) {
		nghttp2_submit_rst_stream(st->client->session, NGHTTP2_FLAG_NONE, st->id, code);
		client_want_flush(st->client);
	}
}
