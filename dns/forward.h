/* Asks the resolvers of a route on behalf of a client. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"
#include "dns/view.h"

struct dns_forwarder;
struct loop;

/*
 * The answer with the client's id (SERVFAIL when none came in time), borrowed until return. Exactly once, never inside the
 * call.
 */
typedef void (*dns_forward_cb)(void *arg, uint8_t *msg, size_t len);

struct dns_forwarder *dns_forwarder_new(struct loop *loop, uint32_t mark);
/* Drops all queries without a callback. NULL is allowed. */
void dns_forwarder_free(struct dns_forwarder *f);

/*
 * Sends the query (copied) to the route's resolvers (copied). `tcp`: the client came by TCP, a truncated answer is of no
 * use to it. Returns 0, or ERR_LIMIT when LIM_DNS_PENDING queries wait.
 */
MUST_CHECK int dns_forward(struct dns_forwarder *f, const uint8_t *msg, size_t len,
			   const struct dns_route *route, bool tcp, dns_forward_cb cb, void *arg);
size_t dns_forwarder_pending(const struct dns_forwarder *f);
