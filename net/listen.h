/* Listeners: sockets, the checks before any work for a stranger (allow list, limits, PROXY
 * protocol), TLS handshakes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/macros.h"
#include "base/prefix.h"

struct loop;
struct stream;
struct tls_slot;
struct listener;

/*
 * A connection is ready: takes the stream (TLS handshake done, PROXY header read, no handler set
 * yet). Its ALPN stands in stream_tls(stream)->alpn; without TLS the protocol is to be told from
 * the first bytes.
 */
typedef void (*listener_cb)(void *arg, struct stream *stream);

struct listener_opts {
	const char *address;             /* "0.0.0.0:8443", "[::]:8443", ":8443" (both families),
					    "unix:/run/skerry/skerryd.sock" */
	struct tls_slot *tls;            /* borrowed for the listener's life; NULL = no TLS */
	const struct prefix *allow_from; /* copied; empty = everybody */
	size_t n_allow_from;
	const struct prefix *proxy_from; /* copied; from these addresses a PROXY header (v1 or v2)
					    must come first */
	size_t n_proxy_from;
	uint32_t per_address;      /* open connections per source (IPv6: per /64); 0 =
				      LIM_CONNS_PER_SOURCE */
	uint32_t handshakes_per_s; /* per source; 0 = LIM_HANDSHAKES_PER_SEC; loopback is exempt */
	uint32_t max_conns;        /* of this listener; 0 = LIM_CONNS */
	uint64_t handshake_ms;     /* PROXY header and TLS together; 0 = LIM_HANDSHAKE_MS */
	mode_t unix_mode;          /* of a Unix socket; 0 = 0660 */
	const char *unix_group;    /* NULL = leave; an unknown group is an error */
	bool exempt_limits;        /* no per-address limits (tests, peers) */
};

/*
 * Binds and listens. Errors name the address and the remedy (ERR_EXISTS in use, ERR_DENIED
 * privilege or path, ERR_INVALID not an address). A stale Unix socket nobody listens on is
 * replaced; a live one is ERR_EXISTS.
 */
MUST_CHECK int listener_new(struct loop *loop, const struct listener_opts *opts, listener_cb cb,
			    void *arg, struct listener **ret_listener, struct err *err);

/* Stops accepting (the socket is closed) but leaves handed-over connections alone; then
 * listener_free(). */
void listener_stop(struct listener *listener);

/* Stops and ends handshakes in progress. Streams that were handed over live on. NULL ok. */
void listener_free(struct listener *listener);

/* The bound port (address with port 0), 0 for Unix sockets; and the address as text
 * ("127.0.0.1:40123"). */
uint16_t listener_port(const struct listener *listener);
const char *listener_text(const struct listener *listener);
