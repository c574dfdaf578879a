/* The gRPC client: channels (one connection, optionally remade) and calls on them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "base/blob.h"
#include "base/err.h"
#include "base/macros.h"
#include "net/dial.h"

struct loop;
struct stream;
struct rpc_channel;
struct rpc_request; /* a call of the client side */

struct rpc_metadata {
	const char *name; /* lower case; "-bin" values are given raw and encoded here */
	const void *value;
	size_t len; /* 0 = strlen(value) */
};

enum rpc_channel_state {
	RPC_CHANNEL_IDLE, /* no connection, none wanted yet */
	RPC_CHANNEL_CONNECTING,
	RPC_CHANNEL_READY,
	RPC_CHANNEL_FAILED, /* waits before the next attempt (with reconnect), or for good */
	RPC_CHANNEL_SHUTDOWN,
};

struct rpc_channel_opts {
	const char *const *targets; /* copied; raced by dial_race(), the last good one first */
	size_t n_targets;
	struct dial_opts
		dial;   /* copied, a reference to dial.tls taken. ALPN: give the tls context "h2" */
	bool reconnect; /* stay connected: remake a lost connection with backoff; else dial at the
			   first call only */
	uint32_t backoff_min_ms;  /* 0 = 200 */
	uint32_t backoff_max_ms;  /* 0 = 30,000 */
	uint64_t ping_ms;         /* keepalive; 0 = 20,000 */
	uint64_t ping_timeout_ms; /* 0 = 10,000 */
	const char *user_agent;   /* NULL = "skerry/VERSION" */
	uint32_t max_message;     /* largest message received; 0 = LIM_GRPC_MESSAGE_BYTES */
	/* Appends metadata to each call (credentials); returns how many of `out` were set. May be
	 * NULL. */
	size_t (*metadata)(void *arg, const char *path, struct rpc_metadata *out, size_t max);
	void (*on_state)(void *arg, enum rpc_channel_state state, const struct err *err);
	void *arg; /* of both */
};

/* Dials when first used (opts.reconnect: at once). */
struct rpc_channel *rpc_channel_new(struct loop *loop, const struct rpc_channel_opts *opts);
/* Over a connection that exists (takes it; handshake done, "h2" or plain). No reconnect; opts may
 * be NULL. */
struct rpc_channel *rpc_channel_over(struct stream *stream, const struct rpc_channel_opts *opts);
/* Ends all requests with CANCELLED, in this call. NULL ok. */
void rpc_channel_free(struct rpc_channel *channel);

enum rpc_channel_state rpc_channel_state(const struct rpc_channel *channel);
/* The connection's stream, NULL when not READY: for stream_export() and the peer certificate. */
struct stream *rpc_channel_stream(const struct rpc_channel *channel);
/* Index of the target that the connection (or the last one) went to. */
size_t rpc_channel_target(const struct rpc_channel *channel);
/* Exchanges the targets for later dials. */
void rpc_channel_set_targets(struct rpc_channel *channel, const char *const *targets, size_t n);
/* Gives the connection up (requests end UNAVAILABLE) and, with reconnect, makes a new one at once;
 * skip: not to that target unless it is the only one; SIZE_MAX = none. */
void rpc_channel_redial(struct rpc_channel *channel, size_t skip);
size_t rpc_channel_requests(const struct rpc_channel *channel);

struct rpc_opts {
	uint64_t deadline_ms; /* from now; 0 = 10,000 for unary, none for streams; sent as
				 grpc-timeout */
	const struct rpc_metadata *metadata; /* copied */
	size_t n_metadata;
	bool wait_for_ready; /* wait for a connection until the deadline; else a failed dial fails
				the call */
	bool compress;       /* gzip the request */
};

/*
 * What comes back. err->code 0 is OK; err->reason and err->field hold the details of
 * google.rpc.Status. reply is decoded, NULL on error; borrowed until return.
 */
typedef void (*rpc_unary_cb)(void *arg, const struct err *status, const ProtobufCMessage *reply);

/*
 * A unary call. `msg` is encoded at once. cb exactly once, never inside this call; the request is
 * gone when cb returns. Never NULL. After rpc_cancel() no callback comes.
 */
struct rpc_request *rpc_unary(struct rpc_channel *channel, const char *path,
			      const ProtobufCMessage *msg, const ProtobufCMessageDescriptor *out,
			      const struct rpc_opts *opts, rpc_unary_cb cb, void *arg);

struct rpc_stream_handler {
	/* The response's head arrived (a watch is subscribed). May be NULL. */
	void (*on_open)(void *arg, struct rpc_request *req);
	/* One message, borrowed until return. */
	void (*on_message)(void *arg, struct rpc_request *req, const ProtobufCMessage *msg);
	/* The end; exactly once, last; the request is gone when it returns. */
	void (*on_end)(void *arg, const struct err *status);
	void (*on_writable)(void *arg, struct rpc_request *req); /* may be NULL */
};

/* Server streaming: sends msg and half-closes. Client streaming and bidi: msg NULL, then
 * rpc_send(), rpc_half_close(). */
struct rpc_request *rpc_open(struct rpc_channel *channel, const char *path,
			     const ProtobufCMessage *msg, const ProtobufCMessageDescriptor *out,
			     const struct rpc_opts *opts, const struct rpc_stream_handler *handler,
			     void *arg);
/* 0, ERR_LIMIT when LIM_GRPC_STREAM_QUEUE_BYTES bytes wait, ERR_CLOSED after half-close. */
MUST_CHECK int rpc_send(struct rpc_request *req, const ProtobufCMessage *msg);
void rpc_half_close(struct rpc_request *req);
/* No callback comes any more; the pointer is dead. NULL ok. */
void rpc_cancel(struct rpc_request *req);
/* Receive backpressure. */
void rpc_pause(struct rpc_request *req);
void rpc_resume(struct rpc_request *req);

/* Inside callbacks: the response's headers or trailers. NULL without; "-bin" names decoded by
 * rpc_response_bin(). */
const char *rpc_response_header(const struct rpc_request *req, const char *name);
const char *rpc_response_trailer(const struct rpc_request *req, const char *name);
/* The bytes of the message that is being delivered (raw protobuf): inside on_message and
 * rpc_unary_cb. */
const uint8_t *rpc_response_bytes(const struct rpc_request *req, size_t *ret_len);

/*
 * For programs without a loop of their own (the CLI): a unary call that runs the channel's loop
 * until it is answered. ret_reply: decoded into `arena` (or NULL: not wanted). Returns 0 or the
 * status as an error code with *err.
 */
struct arena;
MUST_CHECK int rpc_unary_wait(struct loop *loop, struct rpc_channel *channel, const char *path,
			      const ProtobufCMessage *msg, const ProtobufCMessageDescriptor *out,
			      const struct rpc_opts *opts, struct arena *arena,
			      ProtobufCMessage **ret_reply, struct err *err);
