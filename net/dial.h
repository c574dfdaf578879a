/* Connecting: names resolved on each dial, addresses and whole lists of targets raced with a
 * stagger, TLS included. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"
#include "base/prefix.h"

struct loop;
struct stream;
struct tls_ctx;
struct dial;

/*
 * A target is one of
 *   https://host[:port]   TLS (default port 443)      host:port   TLS when opts.tls is set, else
 * plain http://host[:port]    plain TCP (default 80)      unix:/path  Unix socket, plain IPv6
 * addresses stand in brackets. A path after an authority is refused.
 */
struct dial_opts {
	struct tls_ctx *tls;     /* a reference is taken; needed for https targets */
	const char *server_name; /* copied; NULL = the target's host */
	uint64_t timeout_ms;     /* for everything; 0 = LIM_DIAL_MS */
	uint64_t stagger_ms;     /* between attempts; 0 = 250 */
	uint32_t mark; /* SO_MARK (needs CAP_NET_ADMIN; failure is ignored without it), 0 = none */
	const char *device;       /* SO_BINDTODEVICE, NULL = none */
	uint32_t user_timeout_ms; /* TCP_USER_TIMEOUT, 0 = 15,000 */
	bool no_keepalive;        /* TCP keepalive (15 s, 5 s x 3) is on by default */
};

/*
 * Exactly once, in a later turn. `stream`: the caller owns it, NULL on failure; `which`: index of
 * the winning target. On failure err tells the last cause of each target, joined.
 */
typedef void (*dial_cb)(void *arg, struct stream *stream, size_t which, const struct err *err);

/* Never NULL: bad targets are reported by the callback (ERR_INVALID). */
struct dial *dial_start(struct loop *loop, const char *target, const struct dial_opts *opts,
			dial_cb cb, void *arg);

/* Races up to LIM_DIAL_TARGETS targets: each next one starts after the stagger or at once when the
 * one before failed. */
struct dial *dial_race(struct loop *loop, const char *const *targets, size_t n,
		       const struct dial_opts *opts, dial_cb cb, void *arg);

/* No callback comes any more. NULL ok; not after the callback. */
void dial_cancel(struct dial *dial);

/* Checks a target's form without dialling; host and port may be NULL. ret_host is a buffer of 256
 * bytes. */
MUST_CHECK int dial_parse(const char *target, char *ret_host, uint16_t *ret_port, bool *ret_tls,
			  struct err *err);
