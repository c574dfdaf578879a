/* Byte streams: one interface over TCP, Unix sockets, TLS on top of either, and an in-memory pair
 * for tests. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/blob.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/macros.h"
#include "base/prefix.h"

struct loop;
struct stream;
struct stream_parcel;
struct tls_peer;

/*
 * Callbacks of the owner. They run on the stream's loop, never inside a call of the owner
 * (exception: on_writable may not be relied on inside stream_write). Any of them may close the
 * stream.
 */
struct stream_handler {
	/* Bytes came in; borrowed until return. */
	void (*on_data)(void *arg, const uint8_t *data, size_t len);
	/*
	 * The stream ended by itself: the other side closed it (err->code ERR_CLOSED) or it failed.
	 * Exactly once, last; the stream is gone when this returns. Not called after stream_close()
	 * or stream_abort().
	 */
	void (*on_close)(void *arg, const struct err *err);
	/* The backlog fell to half the high-water mark after having been above it. May be NULL. */
	void (*on_writable)(void *arg);
};

/* What is known of a TLS stream after its handshake. Lives as long as the stream. */
struct stream_tls {
	const char *alpn;    /* "" when none was selected */
	const char *sni;     /* the server name that the client asked for, "" without */
	const char *version; /* "TLSv1.3" */
	const char *cipher;
	const struct tls_peer *
		peer; /* the verified certificate of the other side (net/tls.h); NULL without one */
	const char
		*server_tag; /* tag of the certificate that answered (tls_cert.tag), "" without */
};

/* Who is at the other end. */
struct stream_peer {
	bool is_unix;
	uid_t uid; /* of the process that connected (SO_PEERCRED); only when is_unix */
	gid_t gid;
	pid_t pid;
	struct ipport
		addr; /* when !is_unix: the address, after the PROXY protocol if that was in use */
	bool proxied; /* addr was told by a trusted proxy */
};

/* Sets the handler. Reading starts with it; bytes that were put back (stream_unread) come first. */
void stream_set_handler(struct stream *stream, const struct stream_handler *handler, void *arg);

/* Puts bytes (copied) back in front of what will be read: for protocols that hand a stream over. */
void stream_unread(struct stream *stream, const void *data, size_t len);

/*
 * Queues bytes (copies). Returns 0; ERR_CLOSED when the stream is ended; ERR_LIMIT when the backlog
 * would pass the hard limit (nothing was queued: a caller that cannot wait closes the stream).
 */
MUST_CHECK int stream_write(struct stream *stream, const void *data, size_t len);

/* The same without a copy: holds a reference on the blob until the bytes are gone. */
MUST_CHECK int stream_write_blob(struct stream *stream, struct blob *blob, size_t off, size_t len);

/* Bytes accepted and not yet given to the kernel (TLS: as ciphertext). */
size_t stream_backlog(const struct stream *stream);

/* High-water mark for on_writable and hard limit, in bytes (defaults LIM_STREAM_HIGH_BYTES,
 * LIM_STREAM_HARD_BYTES). */
void stream_set_limits(struct stream *stream, size_t high, size_t hard);

/* True while the backlog is at or above the high-water mark: stop producing until on_writable. */
bool stream_is_full(const struct stream *stream);

/* Backpressure: no on_data until resumed (bytes stay with the kernel). Counted: no, a plain switch.
 */
void stream_pause_read(struct stream *stream);
void stream_resume_read(struct stream *stream);

/*
 * Ends the stream: what was written is still sent (at most LIM_STREAM_LINGER_MS), then it is
 * closed. No callback comes any more; the pointer is dead at once. NULL ok.
 */
void stream_close(struct stream *stream);

/* Ends it without sending what waits. NULL ok. */
void stream_abort(struct stream *stream);

struct loop *stream_loop(const struct stream *stream);
const struct stream_peer *stream_peer(const struct stream *stream);
/* The address of our end (IP streams); zeroed for others. */
const struct ipport *stream_local(const struct stream *stream);
/* "203.0.113.7:4711", "unix:uid=1000" or "memory": for messages. Lives as long as the stream. */
const char *stream_peer_text(const struct stream *stream);

/* TLS facts, NULL on a stream without TLS. */
const struct stream_tls *stream_tls(const struct stream *stream);

/*
 * Exported keying material (RFC 5705, RFC 8446 §7.5) with the given label and context. Returns 0;
 * ERR_PRECONDITION on a stream without TLS or below TLS 1.3.
 */
MUST_CHECK int stream_export(const struct stream *stream, const char *label, const void *context,
			     size_t context_len, uint8_t *ret_key, size_t key_len);

/*
 * TCP has repeated what the other side does not acknowledge after a time-out (200 ms on a LAN), in vain so far, and waits
 * twice as long before it does so again, and so on: a new connection may be through sooner. False while more than a little
 * waits behind it, which a new connection would have to repeat, and on other streams.
 */
bool stream_stalled(const struct stream *stream);
/* What TCP sent last, two round trips and so many ms ago or earlier, is not acknowledged by the host at the other end. */
bool stream_unanswered(const struct stream *stream, unsigned ms);

/* Bytes that went through, for metrics. */
uint64_t stream_bytes_in(const struct stream *stream);
uint64_t stream_bytes_out(const struct stream *stream);

/*
 * Takes a connected socket, with its TLS, off its loop, to go on on another one. The stream must have no handler; its
 * pointer is dead then. NULL: it cannot be moved now (bytes are under way, it has ended), and nothing has changed.
 */
struct stream_parcel *stream_pack(struct stream *stream);
/* On the loop's thread. What had come in is delivered first. NULL on failure, and the connection is gone. */
struct stream *stream_unpack(struct loop *loop, struct stream_parcel *parcel);
/* Ends what nobody unpacks. Any thread. NULL ok. */
void stream_parcel_free(struct stream_parcel *parcel);

/* Two connected in-memory streams on one loop. Data arrives in a later turn. Either end's close
 * ends the other. */
void stream_pair_new(struct loop *loop, struct stream **ret_a, struct stream **ret_b);

/* For stream_pair streams: at most `len` bytes per on_data (0 = no limit), to split input at every
 * byte. */
void stream_pair_set_chunk(struct stream *stream, size_t len);

/*
 * A stream over a connected socket (TCP or Unix). Takes the descriptor, also on failure. TCP gets
 * NODELAY; peer and local addresses and peer credentials are read from the socket.
 */
MUST_CHECK int stream_from_fd(struct loop *loop, int fd, struct stream **ret_stream,
			      struct err *err);
