/* The gRPC server: methods, calls, streams, metadata, deadlines, errors with details. One server
 * per loop. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "base/blob.h"
#include "base/err.h"
#include "base/macros.h"
#include "proto/methods.h"

struct loop;
struct stream;
struct stream_peer;
struct stream_tls;
struct http_router;
struct rpc_server;
struct rpc_call;

/*
 * Life of a call. It is valid for its handler until one of these: rpc_call_finish(),
 * rpc_call_reply() (both end it), or the return of the cancel callback. Whoever answers later or
 * from elsewhere keeps an rpc_ref and asks rpc_call_find() first. Handlers run on the server's loop
 * and do not block.
 */
struct rpc_handler {
	/* Unary and server streaming: the complete request. `req` lives as long as the call. */
	void (*on_call)(void *arg, struct rpc_call *call, const ProtobufCMessage *req);
	/* Client streaming and bidi. on_open: the call began (metadata is there); may be NULL. */
	void (*on_open)(void *arg, struct rpc_call *call);
	/* `msg` is borrowed until return. The next one is delivered only after return (and not
	 * while paused). */
	void (*on_message)(void *arg, struct rpc_call *call, const ProtobufCMessage *msg);
	/* The client has sent everything. NULL: the call is finished with OK. */
	void (*on_half_close)(void *arg, struct rpc_call *call);
};

/* `name` is for metrics ("api", "peer"). */
struct rpc_server *rpc_server_new(struct loop *loop, const char *name);
/* Ends all calls with UNAVAILABLE. Unmount (free the router) first. NULL ok. */
void rpc_server_free(struct rpc_server *server);

/*
 * Serves a method of the generated table (proto/methods.h). The handler struct is borrowed for ever
 * (static), arg as long as the server. A path outside the table, or one served already, is a
 * programming error.
 */
void rpc_server_add(struct rpc_server *server, const char *path, const struct rpc_handler *handler,
		    void *arg);
/* The same for a method outside the generated table (tests); `method` is borrowed for ever. */
void rpc_server_add_method(struct rpc_server *server, const struct proto_method *method,
			   const struct rpc_handler *handler, void *arg);
/* The served method of a path, or NULL. */
const struct proto_method *rpc_server_method(const struct rpc_server *server, const char *path);

/* Answers application/grpc requests of that router (grpc-web is not among them), and 415 for all
 * that no one else takes when `rest` is set. */
void rpc_server_mount(struct rpc_server *server, struct http_router *router, bool rest);

/*
 * The gate: asked once per call when its metadata is there, before any message is decoded. Returns
 * 0: go on; negative: refuse with *err; RPC_GATE_WAIT: the answer comes by rpc_gate_done() (message
 * bytes wait meanwhile, bounded).
 */
enum { RPC_GATE_WAIT = 1 };
typedef int (*rpc_gate_fn)(void *arg, struct rpc_call *call, const struct proto_method *method,
			   struct err *err);
void rpc_server_set_gate(struct rpc_server *server, rpc_gate_fn gate, void *arg);
/* err NULL or err->code 0: go on. */
void rpc_gate_done(struct rpc_call *call, const struct err *err);

/* Heard at the end of each call, for audit and logs: status is the gRPC status that was sent. May
 * be NULL. */
typedef void (*rpc_observer_fn)(void *arg, struct rpc_call *call, int grpc_status, uint64_t micros);
void rpc_server_set_observer(struct rpc_server *server, rpc_observer_fn observer, void *arg);

/*
 * Graceful end: new calls are refused (UNAVAILABLE), streaming calls end with UNAVAILABLE and
 * grpc-retry-pushback-ms spread over [0, spread_ms]; unary calls go on. The connections are drained
 * by http_server_drain().
 */
void rpc_server_drain(struct rpc_server *server, uint32_t spread_ms);
size_t rpc_server_calls(const struct rpc_server *server);
struct loop *rpc_server_loop(const struct rpc_server *server);

/* ---- References ------------------------------------------------------------------------------ */

/* Names a call across threads and turns. Plain data; never dangling. */
struct rpc_ref {
	uint64_t id; /* 0 = none */
};
struct rpc_ref rpc_call_ref(const struct rpc_call *call);
/* The call, or NULL when it is over. On the server's loop. */
struct rpc_call *rpc_call_find(struct rpc_server *server, struct rpc_ref ref);

/* ---- What is known of a call ----------------------------------------------------------------- */

const struct proto_method *rpc_call_method(const struct rpc_call *call);
struct rpc_server *rpc_call_server(const struct rpc_call *call);

/* First value of a metadata name (lower case), NULL without. The result lives as long as the call.
 */
const char *rpc_call_metadata(const struct rpc_call *call, const char *name);
/* The decoded value of a "-bin" name; NULL without or when it is not base64. Lives as long as the
 * call. */
const uint8_t *rpc_call_metadata_bin(struct rpc_call *call, const char *name, size_t *ret_len);
/* All metadata in order: index 0.. until NULL. */
const char *rpc_call_metadata_at(const struct rpc_call *call, size_t i, const char **ret_value);

/* The other end; never NULL. tls NULL without TLS. */
const struct stream_peer *rpc_call_peer(const struct rpc_call *call);
const char *rpc_call_peer_text(const struct rpc_call *call);
const struct stream_tls *rpc_call_tls(const struct rpc_call *call);
/* The connection's stream (for stream_export); NULL in tests without one. */
struct stream *rpc_call_stream(const struct rpc_call *call);
/* "grpc" or "connect". */
const char *rpc_call_protocol(const struct rpc_call *call);

/* The request message's bytes as received (unary, server streaming); NULL when it did not come as
 * protobuf. */
const uint8_t *rpc_call_request_bytes(const struct rpc_call *call, size_t *ret_len);

/* Did the message that is being delivered come compressed? */
bool rpc_call_was_compressed(const struct rpc_call *call);

/* loop_now() time at which the call ends by itself; UINT64_MAX without. rpc_call_remaining_ms: from
 * now, for forwarding. */
uint64_t rpc_call_deadline(const struct rpc_call *call);
uint64_t rpc_call_remaining_ms(const struct rpc_call *call);

/* One pointer per connection (proof of a device): see http_conn_set_user(). `kind`: address of a
 * static. */
void rpc_call_set_conn_data(struct rpc_call *call, const void *kind, void *data,
			    void (*data_free)(void *data));
void *rpc_call_conn_data(const struct rpc_call *call, const void *kind);
/* A number that names the connection (never reused in this process). */
uint64_t rpc_call_conn_id(const struct rpc_call *call);

/* One pointer per call for the layers above (struct caller); freed at the call's end, after the
 * cancel callback. */
void rpc_call_set_data(struct rpc_call *call, const void *kind, void *data,
		       void (*data_free)(void *data));
void *rpc_call_data(const struct rpc_call *call, const void *kind);

/* Memory that is freed with the call. NULL over the call's budget. */
void *rpc_call_alloc(struct rpc_call *call, size_t len);

/*
 * Heard when the call ends without the handler's doing: cancelled by the client, deadline,
 * connection lost, drain. Exactly once, last; the call is gone when it returns. Without one the
 * call just disappears (and rpc_call_find() tells).
 */
void rpc_call_set_cancel_cb(struct rpc_call *call,
			    void (*cb)(void *arg, struct rpc_call *call, const struct err *why),
			    void *arg);

/* ---- Answering ------------------------------------------------------------------------------- */

/* Adds metadata to the response's head (until it is sent) or its trailers. "-bin" values are given
 * raw and encoded here. Reserved or malformed names are a programming error; values with control
 * bytes are dropped. */
void rpc_call_add_header(struct rpc_call *call, const char *name, const void *value, size_t len);
void rpc_call_add_trailer(struct rpc_call *call, const char *name, const void *value, size_t len);

/* Sends the response's head now (a watch does that first thing). Later and repeated calls do
 * nothing. */
void rpc_call_send_headers(struct rpc_call *call);

/*
 * Sends one message. Returns 0; ERR_LIMIT when the queue is full (LIM_GRPC_STREAM_QUEUE_BYTES:
 * nothing was queued; wait for the writable callback); ERR_CLOSED when the call is over. The
 * message is encoded at once.
 */
MUST_CHECK int rpc_call_send(struct rpc_call *call, const ProtobufCMessage *msg);

/*
 * Sends one message whose encoding is the concatenation of the blobs (references are taken, bytes
 * are not copied). Not for JSON callers: server streaming has none. Same results.
 */
MUST_CHECK int rpc_call_send_blobs(struct rpc_call *call, struct blob *const *blobs, size_t n);

/* Bytes queued and not sent. 0 = the client (or at least our kernel) has taken everything. */
size_t rpc_call_backlog(const struct rpc_call *call);
/* Called when the backlog went down to below half of the queue's limit after a send, and when it
 * became 0. */
void rpc_call_set_writable_cb(struct rpc_call *call, void (*cb)(void *arg, struct rpc_call *call),
			      void *arg);

/* Stops and resumes on_message (client streaming, bidi): the client's window closes. */
void rpc_call_pause(struct rpc_call *call);
void rpc_call_resume(struct rpc_call *call);

/* Compress the messages of this response with gzip if the client takes it. Before the head is sent.
 * Never with secrets. */
void rpc_call_set_compress(struct rpc_call *call, bool on);

/* Sends the message and OK. Ends the call. */
void rpc_call_reply(struct rpc_call *call, const ProtobufCMessage *msg);

/*
 * Ends the call: err NULL or code 0 is OK. Status, message, and as google.rpc details: ErrorInfo
 * (reason, domain "skerry", metadata of rpc_call_add_error_info), BadRequest (field), RetryInfo
 * (rpc_call_set_retry).
 */
void rpc_call_finish(struct rpc_call *call, const struct err *err);
/* Shorthand: err_set + finish. */
void rpc_call_fail(struct rpc_call *call, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Before finish: a key of ErrorInfo.metadata; the delay of RetryInfo. */
void rpc_call_add_error_info(struct rpc_call *call, const char *key, const char *value);
void rpc_call_set_retry(struct rpc_call *call, uint32_t delay_ms);
