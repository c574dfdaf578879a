#include <string.h>

#include "base/limits.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "net/gather.h"
#include "net/h2.h"
#include "net/http.h"
#include "net/loop.h"
#include "net/stream.h"

/*
 * A connection: a stream, an engine, and the rules when it ends.
 *
 *   DETECT (plain streams only: which protocol?) -> RUN -> (shutdown) DRAIN -> end
 *
 * Input is fed at once; output is drained by a flush hook at the end of the turn. `busy` counts
 * calls that are on the stack of this connection: the object is freed when it is over and nobody is
 * in it.
 */

static _Atomic uint64_t next_conn_id;

static const char h2_preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
enum { H2_PREFACE = 24, DETECT = 4 };

struct conn {
	struct http_conn pub;
	struct http_server *server;
	struct list link;
	struct flush_hook flush;
	struct gather out;
	uint8_t detect[DETECT];
	size_t detect_len;
	unsigned busy;
	bool over;
	bool draining;
	uint64_t started;
	uint64_t idle_since; /* 0 while requests are under way */
	uint64_t moved;      /* last time output left, or there was none */
	uint64_t out_left;   /* backlog seen then */
	uint64_t max_age;    /* loop time, UINT64_MAX = never */
};

struct http_server {
	struct loop *loop;
	struct http_router *router;
	struct list conns;
	size_t n_conns;
	struct http_server_opts opts;
	struct loop_timer tick;
	struct loop_timer grace;
	bool draining;
	void (*done)(void *arg);
	void *done_arg;
};

static struct conn *conn_of(const struct http_conn *pub)
{
	return (struct conn *)container_of(pub, struct conn, pub);
}

static void server_check_done(struct http_server *server)
{
	if (server->draining && server->n_conns == 0 && server->done != NULL) {
		void (*done)(void *) = server->done;

		server->done = NULL;
		loop_timer_stop(&server->grace);
		done(server->done_arg);
	}
}

static void conn_leave(struct conn *c)
{
	struct http_server *server;

	if (--c->busy > 0 || !c->over) {
		return;
	}
	server = c->server;
	list_remove(&c->link);
	server->n_conns--;
	loop_flush_remove(&c->flush);
	http_conn_set_user(&c->pub, NULL, NULL, NULL);
	gather_done(&c->out);
	mem_free(c);
	if (server->n_conns == 0) {
		loop_timer_stop(&server->tick);
		server_check_done(server);
	}
}

/* Ends the connection; the caller is inside (busy > 0). */
static void conn_end(struct conn *c, const struct err *err, bool linger)
{
	struct stream *stream = c->pub.stream;

	if (c->over) {
		return;
	}
	c->over = true;
	if (c->pub.engine != NULL) {
		struct http_engine *engine = c->pub.engine;

		if (stream != NULL && linger) {
			engine->ops->drain(engine); /* the last words: GOAWAY, an error page */
			IGNORE(gather_flush(&c->out, stream));
		}
		engine->ops->destroy(engine, err);
		c->pub.engine = NULL;
	}
	/* destroy() told the requests; one of them may have been the hand-over of the stream. */
	stream = c->pub.stream;
	c->pub.stream = NULL;
	if (stream != NULL) {
		if (linger) {
			stream_close(stream);
		} else {
			stream_abort(stream);
		}
	}
}

static void conn_flush(void *arg)
{
	struct conn *c = arg;
	struct err err = {0};

	if (c->over || c->pub.engine == NULL) {
		return;
	}
	c->busy++;
	if (c->pub.stream == NULL) {
		conn_end(c, &err, false); /* handed over */
		conn_leave(c);
		return;
	}
	c->pub.drain_asked = false;
	c->pub.engine->ops->drain(c->pub.engine);
	if (!c->over && c->pub.stream != NULL && gather_flush(&c->out, c->pub.stream) != 0) {
		err_set(&err, ERR_LIMIT, "too much output waits for a client that does not read");
		conn_end(c, &err, false);
	}
	if (!c->over && c->pub.engine->ops->finished(c->pub.engine)) {
		err_set(&err, ERR_CLOSED, "the connection is complete");
		conn_end(c, &err, true);
	}
	conn_leave(c);
}

static void conn_start_engine(struct conn *c, bool h2)
{
	const struct http_server_opts *o = &c->server->opts;
	const struct h2_server_opts opts = {
		.max_streams = o->max_streams,
		.ping_ms = o->ping_ms,
		.ping_timeout_ms = o->ping_timeout_ms,
		.trusted = o->trusted,
	};

	c->pub.engine = h2 ? h2_server_new(&c->pub, &opts) : http1_server_new(&c->pub);
	if (c->draining) {
		c->pub.engine->ops->shutdown(c->pub.engine);
	}
	http_conn_want_flush(&c->pub);
}

static void conn_feed(struct conn *c, const uint8_t *data, size_t len)
{
	struct err err = {0};

	if (c->over || len == 0) {
		return;
	}
	int rc = c->pub.engine->ops->feed(c->pub.engine, data, len, &err);
	if (c->pub.stream == NULL && !c->over) {
		/* Upgraded: the stream is someone else's now. */
		conn_end(c, &err, false);
	} else if (rc < 0) {
		if (err.code == 0) {
			err_set(&err, rc, "protocol error");
		}
		conn_end(c, &err, true);
	} else {
		http_conn_want_flush(&c->pub);
	}
}

static void conn_on_data(void *arg, const uint8_t *data, size_t len)
{
	struct conn *c = arg;

	c->busy++;
	if (c->pub.engine == NULL) {
		size_t part = MIN(len, DETECT - c->detect_len);
		uint8_t head[DETECT];

		memcpy(c->detect + c->detect_len, data, part);
		c->detect_len += part;
		data += part;
		len -= part;
		bool maybe_h2 = memcmp(c->detect, h2_preface, c->detect_len) == 0;
		if (!maybe_h2 || c->detect_len == DETECT) {
			size_t n = c->detect_len;

			memcpy(head, c->detect, n);
			conn_start_engine(c, maybe_h2);
			conn_feed(c, head, n);
		} else {
			len = 0;
		}
	}
	conn_feed(c, data, len);
	conn_leave(c);
}

static void conn_on_close(void *arg, const struct err *err)
{
	struct conn *c = arg;

	c->busy++;
	c->pub.stream = NULL;
	conn_end(c, err, false);
	conn_leave(c);
}

static void conn_on_writable(void *arg)
{
	struct conn *c = arg;

	http_conn_want_flush(&c->pub);
}

static const struct stream_handler conn_handler = {
	.on_data = conn_on_data,
	.on_close = conn_on_close,
	.on_writable = conn_on_writable,
};

/* ---- For engines ----------------------------------------------------------------------------- */

int http_conn_send(struct http_conn *conn, const void *data, size_t len)
{
	if (conn->test_out != NULL) {
		buf_append(conn->test_out, data, len);
		return 0;
	}
	if (conn->stream == NULL) {
		return ERR_CLOSED;
	}
	http_conn_want_flush(conn);
	return gather_put(&conn_of(conn)->out, conn->stream, data, len);
}

int http_conn_send_blob(struct http_conn *conn, struct blob *blob, size_t off, size_t len)
{
	if (conn->test_out != NULL) {
		buf_append(conn->test_out, blob->data + off, len);
		return 0;
	}
	if (conn->stream == NULL) {
		return ERR_CLOSED;
	}
	http_conn_want_flush(conn);
	return gather_blob(&conn_of(conn)->out, conn->stream, blob, off, len);
}

bool http_conn_is_full(const struct http_conn *conn)
{
	if (conn->test_out != NULL) {
		return conn->test_out->len >= LIM_CONN_PENDING_BYTES;
	}
	return conn->stream == NULL ||
	       stream_backlog(conn->stream) + conn_of(conn)->out.len >= LIM_CONN_PENDING_BYTES;
}

void http_conn_want_flush(struct http_conn *conn)
{
	if (conn->loop != NULL && conn->test_out == NULL) {
		loop_flush_add(conn->loop, &conn_of(conn)->flush);
	}
	conn->drain_asked = true;
}

struct stream *http_conn_take_stream(struct http_conn *conn)
{
	struct stream *stream = conn->stream;

	if (conn->test_out == NULL && stream != NULL) {
		IGNORE(gather_flush(&conn_of(conn)->out, stream));
		stream_set_handler(stream, NULL, NULL);
		/* The connection ends at the latest in its next flush: a handler may upgrade later. */
		loop_flush_add(conn->loop, &conn_of(conn)->flush);
	}
	conn->stream = NULL;
	return stream;
}

void http_conn_set_user(struct http_conn *conn, const void *kind, void *user,
			void (*user_free)(void *user))
{
	void *old = conn->user;
	void (*old_free)(void *) = conn->user_free;

	conn->user = user;
	conn->user_free = user_free;
	conn->user_kind = kind;
	if (old != NULL && old_free != NULL) {
		old_free(old);
	}
}

void *http_conn_user(const struct http_conn *conn, const void *kind)
{
	return conn->user_kind == kind ? conn->user : NULL;
}

/* ---- Server ---------------------------------------------------------------------------------- */

static void conn_tick(struct conn *c, uint64_t now)
{
	const struct http_server_opts *o = &c->server->opts;
	struct err err = {0};

	if (c->over || c->pub.stream == NULL) {
		return;
	}
	if (c->pub.engine == NULL) {
		if (now - c->started > LIM_H2_PREFACE_MS) {
			err_set(&err, ERR_DEADLINE, "the client says nothing");
			conn_end(c, &err, false);
		}
		return;
	}
	if (c->pub.engine->ops->tick(c->pub.engine, now, &err) < 0) {
		conn_end(c, &err, true);
		return;
	}
	uint64_t left = stream_bytes_out(c->pub.stream) - stream_backlog(c->pub.stream);
	if (stream_backlog(c->pub.stream) == 0 || left != c->out_left) {
		c->moved = now;
		c->out_left = left;
	} else if (now - c->moved > (o->stall_ms != 0 ? o->stall_ms : LIM_CONN_STALL_MS)) {
		METRICS_COUNT("skerry_http_stalled_total",
			      "Connections ended because the client took no output.", 1);
		err_set(&err, ERR_DEADLINE, "the client takes no output");
		conn_end(c, &err, false);
		return;
	}
	if (c->pub.engine->ops->active(c->pub.engine) > 0) {
		c->idle_since = 0;
	} else if (c->idle_since == 0) {
		c->idle_since = now;
	}
	bool idle = c->idle_since != 0 &&
		    now - c->idle_since > (o->idle_ms != 0 ? o->idle_ms : LIM_IDLE_MS);
	if (!c->draining && (idle || now >= c->max_age)) {
		c->draining = true;
		c->pub.engine->ops->shutdown(c->pub.engine);
	}
	if (c->draining) {
		http_conn_want_flush(&c->pub);
	}
}

/* Connections may come and go meanwhile: each is taken from the batch to the list before it is
 * looked at. */
static void server_each(struct http_server *server, void (*fn)(struct conn *c, void *arg),
			void *arg)
{
	struct list batch;
	struct list *l;

	list_init(&batch);
	list_splice(&batch, &server->conns);
	while ((l = list_pop(&batch)) != NULL) {
		struct conn *c = LIST_ENTRY(l, struct conn, link);

		list_push(&server->conns, &c->link);
		c->busy++;
		fn(c, arg);
		conn_leave(c);
	}
}

static void server_tick_one(struct conn *c, void *arg)
{
	conn_tick(c, *(uint64_t *)arg);
}

static void server_tick(void *arg)
{
	struct http_server *server = arg;
	uint64_t now = loop_now(server->loop);

	loop_timer_start(&server->tick, server->loop, 1000, server_tick, server);
	server_each(server, server_tick_one, &now);
}

struct http_server *http_server_new(struct loop *loop, struct http_router *router)
{
	struct http_server *server = MEM_NEW(struct http_server);

	server->loop = loop;
	server->router = router;
	list_init(&server->conns);
	return server;
}

void http_server_set_opts(struct http_server *server, const struct http_server_opts *opts)
{
	server->opts = *opts;
}

void http_server_accept(struct http_server *server, struct stream *stream, const char *proto)
{
	const struct stream_tls *tls = stream_tls(stream);
	struct conn *c = MEM_NEW(struct conn);
	uint64_t age = server->opts.max_age_ms;

	c->pub.loop = server->loop;
	c->pub.stream = stream;
	c->pub.router = server->router;
	c->pub.id = ++next_conn_id;
	c->pub.is_tls = tls != NULL;
	c->server = server;
	c->flush.run = conn_flush;
	c->flush.arg = c;
	c->draining = server->draining;
	c->started = loop_now(server->loop);
	c->moved = c->started;
	c->max_age = age == 0 ? UINT64_MAX
			      : c->started + age - age / 10 + rand_below((uint32_t)(age / 5 + 1));
	list_push(&server->conns, &c->link);
	if (server->n_conns++ == 0) {
		loop_timer_start(&server->tick, server->loop, 1000, server_tick, server);
	}
	stream_set_limits(stream, LIM_CONN_PENDING_BYTES, LIM_GRPC_CONN_QUEUE_BYTES);
	c->busy++;
	if (proto == NULL && tls != NULL) {
		proto = tls->alpn[0] != '\0' ? tls->alpn : "http/1.1";
	}
	if (proto != NULL) {
		conn_start_engine(c, strncmp(proto, "http/1", 6) != 0);
	}
	stream_set_handler(stream, &conn_handler, c);
	conn_leave(c);
}

size_t http_server_conns(const struct http_server *server)
{
	return server->n_conns;
}

static void server_drain_one(struct conn *c, void *arg)
{
	(void)arg;
	if (c->over) {
		return;
	}
	c->draining = true;
	if (c->pub.engine == NULL) {
		struct err err = {0};

		err_set(&err, ERR_UNAVAILABLE, "the server is shutting down");
		conn_end(c, &err, true);
		return;
	}
	c->pub.engine->ops->shutdown(c->pub.engine);
	http_conn_want_flush(&c->pub);
}

static void server_cut_one(struct conn *c, void *arg)
{
	struct err err = {0};

	(void)arg;
	err_set(&err, ERR_UNAVAILABLE, "the server is shutting down");
	conn_end(c, &err, true);
}

static void server_on_grace(void *arg)
{
	struct http_server *server = arg;

	server_each(server, server_cut_one, NULL);
	server_check_done(server);
}

void http_server_drain(struct http_server *server, uint64_t grace_ms, void (*done)(void *arg),
		       void *arg)
{
	server->draining = true;
	server->done = done;
	server->done_arg = arg;
	loop_timer_start(&server->grace, server->loop, server->n_conns == 0 ? 0 : grace_ms,
			 server_on_grace, server);
	server_each(server, server_drain_one, NULL);
}

void http_server_free(struct http_server *server)
{
	if (server == NULL) {
		return;
	}
	server->done = NULL;
	server_each(server, server_cut_one, NULL);
	PRE(server->n_conns == 0);
	loop_timer_stop(&server->tick);
	loop_timer_stop(&server->grace);
	mem_free(server);
}
