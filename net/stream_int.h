/* Inside of streams: what an implementation (socket, TLS, memory pair) provides, and the part they
 * share. */
#pragma once

#include "base/buf.h"
#include "net/loop.h"
#include "net/stream.h"

/* A stream that is stuck behind more than this is not given up. */
enum { STALLED_BYTES = 32 << 10 };

struct stream_ops {
	/* Queue bytes: blob NULL: copy data; else reference it (data points into it). Never fails
	 * for want of room. */
	void (*write)(struct stream *stream, const void *data, size_t len, struct blob *blob);
	/* Reading on or off; called only on changes. */
	void (*reading)(struct stream *stream, bool on);
	/*
	 * The owner (or the stream's own end) is done with it; called exactly once. linger: send
	 * what is queued first. The implementation drops its reference (stream_drop) when its
	 * handles are closed.
	 */
	void (*close)(struct stream *stream, bool linger);
	size_t (*backlog)(const struct stream *stream);
	int (*export)(const struct stream *stream, const char *label, const void *context,
		      size_t context_len, uint8_t *ret_key, size_t key_len);
	void (*destroy)(struct stream *stream);               /* free the whole object */
	struct stream_parcel *(*pack)(struct stream *stream); /* NULL: never */
	/* Of TCP, see stream_unanswered(); repeated: only after a repetition. NULL: never. */
	bool (*unanswered)(const struct stream *stream, unsigned ms, bool repeated);
};

/* A socket between two loops, below a stream that lost its own (`over`: TLS) or by itself. */
struct stream_parcel {
	int fd;
	struct list out; /* of the socket's: not yet sent */
	size_t backlog;
	struct buf unread;
	struct stream_peer peer;
	struct ipport local;
	char peer_text[64];
	struct stream *over;
	struct stream *(*unpack)(struct loop *loop, struct stream_parcel *parcel); /* of `over` */
};

struct stream {
	const struct stream_ops *ops;
	struct loop *loop;
	const struct stream_handler *handler;
	void *arg;
	unsigned refs; /* one of the implementation, more during callbacks */
	bool closed;   /* the owner is gone, or on_close was called */
	bool paused;   /* by the owner */
	bool reading;  /* what the implementation was told */
	bool above;    /* the backlog was at or above the high-water mark */
	bool ended;    /* `end` waits for being delivered */
	bool writable_due;
	struct err *end;
	size_t high, hard;
	struct buf unread;
	struct flush_hook deliver;
	struct stream_peer peer;
	struct ipport local;
	char peer_text[64];
	struct stream_tls *tls; /* points into the implementation; NULL without */
	uint64_t bytes_in, bytes_out;
	void (*on_free)(void *arg); /* the last thing, for whoever counts streams */
	void *free_arg;
};

void stream_init(struct stream *stream, const struct stream_ops *ops, struct loop *loop);
void stream_hold(struct stream *stream);
void stream_drop(struct stream *stream);

/* Implementation -> owner. Each may end the stream; the caller holds a reference around it. */
void stream_emit_data(struct stream *stream, const uint8_t *data, size_t len);
void stream_emit_end(struct stream *stream, const struct err *err);
/* The backlog shrank. */
void stream_emit_progress(struct stream *stream);

/* The socket alone. NULL on failure. */
struct stream *stream_unpack_socket(struct loop *loop, struct stream_parcel *parcel);
/* Frees the parcel without what was in it. */
void stream_parcel_done(struct stream_parcel *parcel);

/* Fills peer_text from peer. */
void stream_describe(struct stream *stream);
