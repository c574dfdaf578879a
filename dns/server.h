/* The MagicDNS server: UDP and TCP sockets around dns_answer(), and forwarding of everything else. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"
#include "base/prefix.h"

struct dns_server;
struct dns_view;
struct loop;

struct dns_server_opts {
	const struct ipport
		*listen; /* UDP and TCP on each; copied. Port 0: any, the same for both */
	size_t n_listen;
	uint32_t mark; /* SO_MARK of the queries to resolvers; 0: none */
};

/*
 * Binds and serves `view` (a reference is taken). Errors name the address. Thread: the loop's.
 * Forwarding: the resolvers of the view's longest route are asked in parallel by UDP, the first good answer wins, after
 * 2 s by TCP too; SERVFAIL and REFUSED wait for the others; 5 s in all, then SERVFAIL. At most LIM_DNS_PENDING at a time
 * (more: SERVFAIL), LIM_DNS_TCP_CONNS TCP clients.
 */
MUST_CHECK int dns_server_new(struct loop *loop, const struct dns_server_opts *opts,
			      struct dns_view *view, struct dns_server **ret_server,
			      struct err *err);
/* Exchanges the view (a reference is taken); queries under way end with the old one. */
void dns_server_set_view(struct dns_server *server, struct dns_view *view);
/* The bound address number i. */
void dns_server_local(const struct dns_server *server, size_t i, struct ipport *ret);
/* Ends everything at once. NULL is allowed. */
void dns_server_free(struct dns_server *server);
