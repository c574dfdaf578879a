/* HTTP as handlers see it: one request interface over HTTP/2 and HTTP/1.1, the mount table,
 * connections. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/blob.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/macros.h"

struct loop;
struct stream;
struct http_request;
struct http_router;

struct http_header {
	const char *name; /* lower case */
	const char *value;
};

/* ---- Requests -------------------------------------------------------------------------------- */

/*
 * What a handler wants to hear of its request. All on the connection's loop. After on_close the
 * request is gone; on_close comes exactly once for each request that a handler was given, also
 * after a complete response.
 */
struct http_request_handler {
	/* A piece of the body, borrowed until return. The handler acknowledges it with
	 * http_consume(), at once or later. */
	void (*on_body)(void *arg, struct http_request *req, const uint8_t *data, size_t len);
	/* The body is complete (also called for requests without one). */
	void (*on_end)(void *arg, struct http_request *req);
	/* The exchange is over: complete (err NULL) or cut: by the client, by our reset, by the
	 * connection's end. */
	void (*on_close)(void *arg, struct http_request *req, const struct err *err);
	/* Bytes of the response left the request's queue, whose rest is below half of the
	 * high-water mark. May be NULL. */
	void (*on_writable)(void *arg, struct http_request *req);
};

/* Implemented by the HTTP/2 engine (net/h2.c) and the HTTP/1.1 engine (net/http1.c). Use the
 * functions below. */
struct http_request_ops {
	int (*respond)(struct http_request *req, int status, const struct http_header *headers,
		       size_t n, bool end);
	int (*write)(struct http_request *req, struct blob *blob, size_t off, size_t len, bool end);
	int (*trailers)(struct http_request *req, const struct http_header *headers, size_t n);
	void (*reset)(struct http_request *req, uint32_t h2_code);
	void (*consume)(struct http_request *req, size_t len);
	size_t (*backlog)(const struct http_request *req);
	/* HTTP/1.1 only, else NULL: see http_upgrade(). */
	int (*upgrade)(struct http_request *req, int status, const struct http_header *headers,
		       size_t n, struct stream **ret_stream);
};

struct http_conn;

struct http_request {
	const struct http_request_ops *ops;
	struct http_conn *conn;
	int version;        /* 1 or 2 */
	const char *method; /* "POST" */
	const char *path;   /* without the query, not percent-decoded; at most LIM_HTTP_PATH_BYTES
			       bytes */
	const char *query;  /* "" without */
	const char *authority; /* :authority or Host, "" without */
	const char *scheme;    /* "https" or "http" */
	const struct http_header
		*headers; /* without pseudo headers; several of one name stay several */
	size_t n_headers;
	/* The handler's, set by http_set_handler(). */
	const struct http_request_handler *handler;
	void *arg;
	/* State, maintained by the engine. */
	bool responded; /* response headers are queued */
	bool ended;     /* the response is complete (queued) */
};

/* The first header of that (lower-case) name, or NULL. */
const char *http_header(const struct http_request *req, const char *name);

/* Called by the mounted handler before it returns; without it the request is answered 500 and
 * dropped. */
void http_set_handler(struct http_request *req, const struct http_request_handler *handler,
		      void *arg);

/*
 * Sends the response's head; `end`: it has no body. Copies everything. A second call is
 * ERR_PRECONDITION; ERR_CLOSED when the exchange is over already. HTTP/1.1 chooses chunked coding
 * unless content-length is among the headers.
 */
MUST_CHECK int http_respond(struct http_request *req, int status, const struct http_header *headers,
			    size_t n, bool end);

/*
 * Queues a piece of the body: holds a reference on the blob. ERR_LIMIT when
 * LIM_GRPC_STREAM_QUEUE_BYTES wait already (nothing is queued then; below that one more piece of
 * any size is taken).
 */
MUST_CHECK int http_write(struct http_request *req, struct blob *blob, size_t off, size_t len,
			  bool end);
MUST_CHECK int http_write_copy(struct http_request *req, const void *data, size_t len, bool end);

/* Ends an HTTP/2 response with trailers (headers first if they were not sent). ERR_UNIMPLEMENTED on
 * HTTP/1.1. */
MUST_CHECK int http_trailers(struct http_request *req, const struct http_header *headers, size_t n);

/* Cuts the exchange: RST_STREAM with that code (RFC 9113 §7), or the connection's end on HTTP/1.1.
 * on_close follows. */
void http_reset(struct http_request *req, uint32_t h2_code);

/* Body bytes were dealt with: the sender may send as many more. */
void http_consume(struct http_request *req, size_t len);

/* Bytes of the response that are queued and not sent, with some bookkeeping per piece; 0 when there
 * are none. */
size_t http_backlog(const struct http_request *req);

/*
 * Takes the connection away from HTTP: the head of the answer (usually 101) is sent, then the raw
 * stream is the caller's, with bytes already read put back in front (stream_unread). on_close of
 * the request is called during this call with err NULL; the request is gone. `status` 0: send
 * nothing, the caller writes its own greeting. ERR_UNIMPLEMENTED on HTTP/2 or when the body is not
 * complete.
 */
MUST_CHECK int http_upgrade(struct http_request *req, int status, const struct http_header *headers,
			    size_t n, struct stream **ret_stream);

/* One call for small answers: status, content type, body (copied), end. Errors are swallowed: the
 * exchange is cut. */
void http_reply(struct http_request *req, int status, const char *content_type, const void *body,
		size_t len);
void http_reply_text(struct http_request *req, int status, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Request handler that ignores the body and everything else: for answers given at once. */
extern const struct http_request_handler http_ignore_handler;

/* ---- Routes ---------------------------------------------------------------------------------- */

/* Answers or keeps the request (http_set_handler). Called when the request's head is complete. */
typedef void (*http_route_fn)(void *arg, struct http_request *req);

enum http_match {
	HTTP_MATCH_EXACT,   /* path == key */
	HTTP_MATCH_PREFIX,  /* path begins with key; the longest wins */
	HTTP_MATCH_CONTENT, /* content-type begins with key: looked at first */
	HTTP_MATCH_REST,    /* what nothing else took; key NULL */
};

struct http_router *http_router_new(void);
void http_router_free(struct http_router *router);
/* `key` is copied. Mounting a taken place is a programming error. */
void http_mount(struct http_router *router, enum http_match match, const char *key,
		http_route_fn fn, void *arg);
/* Finds the route and calls it; 404 without one. For engines. */
void http_route(struct http_router *router, struct http_request *req);

/* ---- Connections ----------------------------------------------------------------------------- */

/* A protocol engine, bytes in and bytes out; implemented by net/h2.c and net/http1.c, driven by
 * net/http_conn.c. */
struct http_engine;
struct http_engine_ops {
	/* Bytes came in. Negative: the connection is beyond repair; what drain() still gives is
	 * sent, then it is closed. */
	int (*feed)(struct http_engine *engine, const uint8_t *data, size_t len, struct err *err);
	/*
	 * Moves output to the sink (http_conn_send*) until nothing is left or http_conn_is_full().
	 * Called at the end of each loop turn in which the engine asked (http_conn_want_flush) or
	 * was fed, and when the stream is writable again.
	 */
	void (*drain)(struct http_engine *engine);
	/* Graceful end: no new requests; those under way finish. */
	void (*shutdown)(struct http_engine *engine);
	/* True when nothing is under way and (after shutdown or an error) the connection should be
	 * closed. */
	bool (*finished)(const struct http_engine *engine);
	/* Requests under way. */
	size_t (*active)(const struct http_engine *engine);
	/* About once a second: timeouts inside the engine (header, body progress, pings). Negative:
	 * close. */
	int (*tick)(struct http_engine *engine, uint64_t now_ms, struct err *err);
	/* The connection ended: on_close for all requests, then free. `err` is the reason. */
	void (*destroy)(struct http_engine *engine, const struct err *err);
};

struct http_engine {
	const struct http_engine_ops *ops;
	struct http_conn *conn;
};

/* What the engine's owner gives it; in tests of an engine the sink is a buffer instead of a stream.
 */
struct http_conn {
	struct loop *loop;          /* NULL in sans-I/O tests */
	struct stream *stream;      /* NULL in sans-I/O tests and after a hand-over */
	struct http_router *router; /* borrowed */
	struct http_engine *engine;
	/* One pointer per connection for the layers above (proof of a device, credential cache). */
	void *user;
	void (*user_free)(void *user);
	const void *user_kind; /* address of a static that tells whose it is */
	uint64_t id;           /* names the connection, never used again */
	size_t queued;         /* bytes in the queues of all responses, maintained by the engine */
	/* Output of sans-I/O tests. */
	struct buf *test_out;
	bool is_tls;
	bool drain_asked;
	void *priv; /* net/http_conn.c's own */
};

/* Engine side: queue output bytes; negative when the connection is closing or over its hard limit.
 */
MUST_CHECK int http_conn_send(struct http_conn *conn, const void *data, size_t len);
MUST_CHECK int http_conn_send_blob(struct http_conn *conn, struct blob *blob, size_t off,
				   size_t len);
/* No more should be moved now (LIM_CONN_PENDING_BYTES); drain() comes again when it should. */
bool http_conn_is_full(const struct http_conn *conn);
/* Ask for drain() at the end of this loop turn. */
void http_conn_want_flush(struct http_conn *conn);
/* For upgrades: detach the stream from the connection (which ends itself after the engine's call
 * returns). */
struct stream *http_conn_take_stream(struct http_conn *conn);

/* Sets the connection's user pointer; the one before is released with its own function. */
void http_conn_set_user(struct http_conn *conn, const void *kind, void *user,
			void (*user_free)(void *user));
/* NULL when it is not of that kind. */
void *http_conn_user(const struct http_conn *conn, const void *kind);

/* A server of HTTP connections: the set of them, for limits and draining. */
struct http_server;
struct http_server *http_server_new(struct loop *loop, struct http_router *router /* borrowed */);

/*
 * Takes a stream. ALPN "h2" (or, without TLS, the HTTP/2 client preface) is HTTP/2; "http/1.1" or
 * none is HTTP/1.1; `proto` overrides: "h2", "http/1.1" or NULL to tell by itself.
 */
void http_server_accept(struct http_server *server, struct stream *stream, const char *proto);
size_t http_server_conns(const struct http_server *server);

/* Starts the graceful end of all connections; done(arg) when the last is gone or after grace_ms
 * (rest is cut). */
void http_server_drain(struct http_server *server, uint64_t grace_ms, void (*done)(void *arg),
		       void *arg);
/* Cuts all connections. NULL ok. */
void http_server_free(struct http_server *server);

/* Settings for connections accepted afterwards. 0 = the default of base/limits.h. */
struct http_server_opts {
	uint32_t max_streams; /* concurrent requests per HTTP/2 connection */
	uint64_t idle_ms;     /* connection without requests */
	uint64_t ping_ms;     /* server side keepalive ping when silent */
	uint64_t ping_timeout_ms;
	uint64_t stall_ms;   /* output waits and not a byte leaves */
	uint64_t max_age_ms; /* then a graceful end (+-10 %); 0 = never */
	/* The other ends are our own kind (lighthouses): resets, pings and cheap frames are not
	 * rated, since a stalled leader rightly brings a burst of cancelled calls. */
	bool trusted;
};
void http_server_set_opts(struct http_server *server, const struct http_server_opts *opts);

/* Makes the engine for a connection (net/http1.c by whoever writes it; net/h2.h has the other). */
struct http_engine *http1_server_new(struct http_conn *conn);
