/* HTTP/2 engine over nghttp2, bytes in and bytes out: server (feeds http requests) and client
 * (opens streams). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/blob.h"
#include "base/err.h"
#include "base/macros.h"
#include "net/http.h"

/* Error codes of RFC 9113 §7. */
enum h2_code {
	H2_NO_ERROR = 0,
	H2_PROTOCOL_ERROR = 1,
	H2_INTERNAL_ERROR = 2,
	H2_FLOW_CONTROL_ERROR = 3,
	H2_SETTINGS_TIMEOUT = 4,
	H2_STREAM_CLOSED = 5,
	H2_FRAME_SIZE_ERROR = 6,
	H2_REFUSED_STREAM = 7,
	H2_CANCEL = 8,
	H2_COMPRESSION_ERROR = 9,
	H2_CONNECT_ERROR = 10,
	H2_ENHANCE_YOUR_CALM = 11,
	H2_INADEQUATE_SECURITY = 12,
};

/* Not on the wire: the code of on_close when the whole connection was lost. */
#define H2_CONNECTION_LOST UINT32_MAX

struct h2_server_opts {
	uint32_t max_streams;     /* 0 = LIM_H2_STREAMS */
	uint64_t ping_ms;         /* keepalive ping after that much silence; 0 = LIM_H2_PING_MS */
	uint64_t ping_timeout_ms; /* 0 = LIM_H2_PING_TIMEOUT_MS */
	bool trusted;             /* as http_server_opts.trusted */
};

/* The engine of one server connection; requests go to conn->router. Limits of base/limits.h
 * (LIM_H2_*) hold. */
struct http_engine *h2_server_new(struct http_conn *conn, const struct h2_server_opts *opts);

/* ---- Client ---------------------------------------------------------------------------------- */

struct h2_client;
struct h2_stream;

/* What the opener of a stream hears. */
struct h2_stream_handler {
	/* A complete header block: the final response head, or the trailers (`trailers`). Borrowed
	 * until return. */
	void (*on_headers)(void *arg, int status, const struct http_header *headers, size_t n,
			   bool trailers, bool end);
	void (*on_data)(void *arg, const uint8_t *data, size_t len, bool end);
	/* The stream is over; exactly once, last. `code` is the RST code, `local` that we reset it;
	 * err the cause in words. */
	void (*on_close)(void *arg, uint32_t code, bool local, const struct err *err);
	void (*on_writable)(void *arg); /* may be NULL */
};

struct h2_client_handler {
	/* The connection is usable no more: GOAWAY came (new streams are refused, old ones go on)
	 * or it ended (dead). */
	void (*on_goaway)(void *arg, uint32_t code, const char *debug);
	void (*on_dead)(void *arg, const struct err *err);
	void (*on_settings)(
		void *arg); /* the server's first SETTINGS arrived: the connection works */
};

/*
 * An HTTP/2 client connection over a stream (takes it). Window 1 MiB per stream and connection.
 * Keepalive: a PING after ping_ms of silence (0 = 20 s), dead after ping_timeout_ms without answer
 * (0 = 10 s).
 */
struct h2_client *h2_client_new(struct stream *stream, uint64_t ping_ms, uint64_t ping_timeout_ms,
				const struct h2_client_handler *handler, void *arg);
/* Ends all streams (on_close, local) and the connection, with GOAWAY. NULL ok. No on_dead. */
void h2_client_free(struct h2_client *client);

/* Graceful: no new streams; the connection ends (on_dead) with its last stream. */
void h2_client_shutdown(struct h2_client *client);
bool h2_client_usable(const struct h2_client *client);
size_t h2_client_streams(const struct h2_client *client);
struct stream *h2_client_stream(const struct h2_client *client);

/* Opens a stream: `headers` with the pseudo headers first (copied). ERR_CLOSED when not usable;
 * ERR_LIMIT over the server's MAX_CONCURRENT_STREAMS. `end`: no body follows. */
MUST_CHECK int h2_client_open(struct h2_client *client, const struct http_header *headers, size_t n,
			      bool end, const struct h2_stream_handler *handler, void *arg,
			      struct h2_stream **ret_stream);
/* Queues body bytes (reference held). ERR_LIMIT as http_write. len 0 with end is fine. */
MUST_CHECK int h2_stream_send(struct h2_stream *stream, struct blob *blob, size_t off, size_t len,
			      bool end);
/* Received bytes were dealt with. */
void h2_stream_consume(struct h2_stream *stream, size_t len);
size_t h2_stream_backlog(const struct h2_stream *stream);
/* RST_STREAM; on_close does not come any more, the pointer is dead. */
void h2_stream_cancel(struct h2_stream *stream, uint32_t code);
