/* Inside of the RPC server: the call, and what a transport of calls (gRPC over HTTP/2, Connect
 * JSON) implements. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/arena.h"
#include "base/list.h"
#include "base/map.h"
#include "net/http.h"
#include "net/loop.h"
#include "net/rpc.h"

/*
 * How a transport drives a call (net/rpc_grpc.c is the example to read):
 *
 *   1. A request arrives: call = rpc_call_begin(server, method, ops, transport, req). It counts the
 * call and starts nothing.
 *   2. rpc_call_add_metadata() for each header that is metadata; rpc_call_set_timeout() if the
 * client named one.
 *   3. rpc_call_start(call): deadline timer, gate, on_open. From here on any function may have
 * ended the call: the transport learns it by ops->finish, and must not use the call after that.
 *   4. Messages: rpc_call_message(call, msg, raw, raw_len) with a message that lives in
 * rpc_call_arena(call); for unary and server streaming exactly one, then rpc_call_half_close().
 * While the gate waits or the call is paused rpc_call_ready() is false: the transport keeps the
 * bytes, and goes on at ops->ready.
 *   5. The server answers by ops->head, ops->message, ops->finish. After ops->finish the call is
 * gone for the transport.
 *   6. The client went away: rpc_call_cancelled(call, why). The call is gone when it returns.
 */
struct rpc_call_ops {
	const char *protocol; /* "grpc" or "connect" */
	/* Send the response head with call->headers. Called at most once, never after finish. May
	 * be NULL (unary only). */
	void (*head)(struct rpc_call *call);
	/* One message: msg, or (msg NULL) the concatenated blobs. 0, ERR_LIMIT, ERR_CLOSED. */
	int (*message)(struct rpc_call *call, const ProtobufCMessage *msg,
		       struct blob *const *blobs, size_t n);
	/* The end: err->code 0 is OK; call->trailers, call->error_info, call->retry_ms are the
	 * details. Frees the transport's own state or lets it live on for itself; must not touch
	 * the call afterwards. */
	void (*finish)(struct rpc_call *call, const struct err *err);
	size_t (*backlog)(const struct rpc_call *call);
	/* rpc_call_ready() became true (gate done, resumed). May be NULL when it is never false
	 * before half-close. */
	void (*ready)(struct rpc_call *call);
	/* Streaming and gate-waiting calls are possible; false: the transport serves unary only. */
	bool streaming;
};

/* A name and value of metadata; in the call's arena. */
struct rpc_pair {
	struct rpc_pair *next;
	const char *name;
	const char *value; /* NUL after it; may hold NULs when binary */
	size_t len;
	const uint8_t *bin; /* decoded form, made on demand */
	size_t bin_len;
};

struct rpc_pairs {
	struct rpc_pair *first;
	struct rpc_pair *last;
	size_t bytes;
};

enum rpc_call_state {
	RPC_CALL_NEW,         /* begun, not started */
	RPC_CALL_GATE,        /* the gate has not answered */
	RPC_CALL_OPEN,        /* receiving */
	RPC_CALL_HALF_CLOSED, /* everything received */
	RPC_CALL_DONE,
};

struct rpc_method_entry {
	const struct proto_method *method;
	const struct rpc_handler *handler;
	void *arg;
	char *labels;
	struct metric *by_code[17];
	struct metric *latency;
	struct metric *open;
};

struct rpc_server {
	struct loop *loop;
	char *name;
	struct map methods;
	/* Calls by id: the lower bits of an id are its place here. */
	struct rpc_slot {
		struct rpc_call *call; /* NULL: free */
		uint32_t next_free;
	} * slots;
	uint32_t n_slots, free_slot; /* the latter n_slots: none */
	struct list calls;
	size_t n_calls;
	rpc_gate_fn gate;
	void *gate_arg;
	rpc_observer_fn observer;
	void *observer_arg;
	bool draining;
	uint32_t spread_ms;
};

struct rpc_call {
	struct list link; /* in rpc_server.calls */
	uint64_t id;
	struct rpc_server *server;
	struct rpc_method_entry *entry;
	const struct rpc_call_ops *ops;
	void *transport; /* the transport's own */
	struct http_conn *conn;
	enum rpc_call_state state;
	struct arena arena;        /* metadata, the unary request, rpc_call_alloc */
	struct rpc_pairs metadata; /* of the request */
	struct rpc_pairs
		headers; /* of the response; "-bin" values are raw, the transport encodes */
	struct rpc_pairs trailers;
	struct rpc_pairs error_info;
	uint32_t retry_ms;   /* RetryInfo; 0 = none */
	int64_t pushback_ms; /* trailer grpc-retry-pushback-ms; -1 = none */
	const uint8_t *raw;  /* the unary request's bytes; in the arena or owned by the transport
				until finish */
	size_t raw_len;
	unsigned messages;               /* received */
	const ProtobufCMessage *request; /* the unary one, kept until half-close */
	bool compressed; /* the message that is delivered came so; set by the transport */
	bool head_sent;
	bool paused;
	bool half_close_pending; /* came while the gate waited */
	bool compress;
	bool was_backlogged; /* a writable callback is owed */
	uint64_t start_ns;
	uint64_t deadline;   /* loop time, UINT64_MAX = none */
	uint64_t timeout_ms; /* named by the client; UINT64_MAX = none */
	struct loop_timer timer;
	void (*cancel_cb)(void *arg, struct rpc_call *call, const struct err *why);
	void *cancel_arg;
	void (*writable_cb)(void *arg, struct rpc_call *call);
	void *writable_arg;
	const void *data_kind;
	void *data;
	void (*data_free)(void *data);
};

/* NULL: it has ended. */
struct rpc_call *rpc_call_by_id(const struct rpc_server *server, uint64_t id);
/* NULL when the server drains or is full (LIM_RPC_CALLS): the transport answers *err itself. */
struct rpc_call *rpc_call_begin(struct rpc_server *server, const struct proto_method *method,
				const struct rpc_call_ops *ops, void *transport,
				struct http_conn *conn, struct err *err);
/* Copies. ERR_LIMIT over the arena's budget. */
MUST_CHECK int rpc_call_add_metadata(struct rpc_call *call, const char *name, const char *value);
void rpc_call_set_timeout(struct rpc_call *call, uint64_t ms);
void rpc_call_start(struct rpc_call *call);
/* May messages be delivered now? */
bool rpc_call_ready(const struct rpc_call *call);
struct arena *rpc_call_arena(struct rpc_call *call);
void rpc_call_message(struct rpc_call *call, const ProtobufCMessage *msg, const uint8_t *raw,
		      size_t raw_len);
void rpc_call_half_close(struct rpc_call *call);
/* The transport sent bytes: the writable callback is due if the backlog is low enough. */
void rpc_call_drained(struct rpc_call *call);
/* Ends the call with an error of the transport's finding (bad message, too large): ops->finish is
 * called. */
void rpc_call_refuse(struct rpc_call *call, const struct err *err);
/* The client is gone: no ops are called any more. */
void rpc_call_cancelled(struct rpc_call *call, const struct err *why);

/* Appends a copy; the value is binary-safe. False over the arena's budget. */
bool rpc_pairs_add(struct arena *arena, struct rpc_pairs *pairs, const char *name,
		   const void *value, size_t len);
const struct rpc_pair *rpc_pairs_find(const struct rpc_pairs *pairs, const char *name);
/* Metadata names are [0-9a-z_.-]+ and not reserved ("grpc-", pseudo headers). */
bool rpc_name_valid(const char *name);
/* A header value as metadata may carry it: printable ASCII. */
bool rpc_value_valid(const void *value, size_t len);
static inline bool rpc_name_is_bin(const char *name)
{
	size_t len = strlen(name);

	return len > 4 && memcmp(name + len - 4, "-bin", 4) == 0;
}

/* google.rpc.Status of an error with the call's details, encoded; appended to out. Nothing when
 * there are no details. */
void rpc_status_encode(const struct rpc_call *call, const struct err *err, struct buf *out);
/* The details of an encoded google.rpc.Status into err (reason, field). Wrong input is ignored. */
void rpc_status_decode(const void *data, size_t len, struct err *err, uint32_t *ret_retry_ms);

/* "150m" -> ms (rounded up). ERR_INVALID for anything that is not 1..8 digits and a unit. */
MUST_CHECK int rpc_timeout_parse(const char *text, uint64_t *ret_ms);
/* ms -> "150m", at most 8 digits. */
void rpc_timeout_format(uint64_t ms, char ret_text[16]);
