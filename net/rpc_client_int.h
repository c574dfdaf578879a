/* Inside of the RPC client: channels (net/rpc_channel.c) and requests (net/rpc_request.c). */
#pragma once

#include "base/arena.h"
#include "base/backoff.h"
#include "base/buf.h"
#include "base/limits.h"
#include "base/list.h"
#include "net/h2.h"
#include "net/loop.h"
#include "net/rpc_client.h"
#include "net/rpc_int.h"

/* One connection of a channel; a channel has one in use and possibly old ones whose last streams go
 * on. */
struct channel_conn {
	struct list link;
	struct rpc_channel *channel;
	struct h2_client *h2;
	bool going; /* GOAWAY came */
	uint64_t since;
};

struct rpc_channel {
	struct loop *loop;
	unsigned refs; /* the owner, and each request */
	bool freed;
	char **targets;
	size_t n_targets;
	size_t target;                /* last good one, or the one in use */
	size_t skip;                  /* not to be dialled first, SIZE_MAX = none */
	struct rpc_channel_opts opts; /* strings copied */
	char *server_name, *device, *user_agent;
	enum rpc_channel_state state;
	struct err last;           /* why the last attempt or connection failed */
	struct channel_conn *conn; /* in use */
	struct list conns;         /* all, the one in use included */
	struct dial *dial;
	size_t dialled[LIM_DIAL_TARGETS]; /* order of the running dial: index into targets */
	struct backoff backoff;
	struct loop_timer timer; /* next attempt */
	struct list requests;
	size_t n_requests;
	char authority[300];
	bool is_tls;
};

struct rpc_request {
	struct list link;
	struct rpc_channel *channel;
	char *path;
	const ProtobufCMessageDescriptor *out;
	rpc_unary_cb unary_cb; /* or */
	const struct rpc_stream_handler *handler;
	void *arg;
	struct rpc_metadata *metadata;
	size_t n_metadata;
	struct h2_stream *stream; /* NULL: waits for a connection */
	struct blob *first;       /* the framed request message, kept for a transparent retry */
	struct list waiting;      /* framed messages that wait for the connection */
	size_t waiting_bytes;
	bool half_closed;
	bool wait_for_ready;
	bool compress;
	bool retried;
	bool opened; /* the response head came */
	bool paused;
	bool delivering;
	bool stream_over; /* the HTTP/2 stream is gone; `end` waits for paused messages */
	bool have_status;
	bool message_kept; /* unary: `message` is valid */
	unsigned busy;
	bool over;         /* finished or cancelled: freed when nobody is in it */
	uint64_t deadline; /* loop time */
	struct loop_timer timer;
	struct loop_timer soon; /* a failure that is told in a later turn */
	struct err end;
	int http_status;
	struct arena meta; /* headers and trailers */
	struct rpc_pairs headers, trailers;
	bool gzip;
	struct buf in;
	size_t pos;
	size_t withheld; /* received and not acknowledged */
	struct buf inflated;
	struct arena arena; /* the decoded message */
	ProtobufCMessage *message;
	const uint8_t *raw;
	size_t raw_len;
};

/* Called by the channel when a connection is there, or when none could be made. */
void rpc_request_start(struct rpc_request *req);
void rpc_request_fail_soon(struct rpc_request *req, const struct err *err);
/* Ends it with this status, now. */
void rpc_request_finish(struct rpc_request *req, const struct err *status);

void rpc_channel_want(
	struct rpc_channel *channel); /* a request waits: dial if nothing is under way */
void rpc_channel_unref(struct rpc_channel *channel);
