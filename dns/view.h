/* What MagicDNS answers from: an immutable view of names, made anew when names change. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"
#include "base/map.h"
#include "base/prefix.h"

enum { DNS_RESOLVERS_MAX = 8 };

/* One host: "laptop" gives laptop and laptop.<base domain>, and the PTR records of its addresses. */
struct dns_host {
	const char *label;
	const struct ipaddr *addresses;
	size_t n_addresses;
};

/* A record beside the hosts: a full name. */
struct dns_record {
	const char *name;
	struct ipaddr address;
};

/* Names in and below `domain` ("" is everything) go to these resolvers; none: they are answered here (NXDOMAIN). */
struct dns_route {
	const char *domain;
	const struct ipport *resolvers;
	size_t n_resolvers;
};

/* Everything is copied. Names must be valid and lower case (name_normalise); invalid ones are refused. */
struct dns_zone {
	const char *base_domain; /* "" or NULL: single labels only */
	const struct dns_host *hosts;
	size_t n_hosts;
	const struct dns_record *records;
	size_t n_records;
	const struct dns_route *routes;
	size_t n_routes;
};

struct dns_view;

/* The first of two hosts with one label wins; the others are ignored. */
MUST_CHECK int dns_view_new(const struct dns_zone *zone, struct dns_view **ret_view,
			    struct err *err);
struct dns_view *dns_view_ref(struct dns_view *view);
/* NULL is allowed. */
void dns_view_unref(struct dns_view *view);

/* Looks a name up ("laptop", "laptop.home.internal", lower case): 0 or more addresses, false: the name is not ours. */
bool dns_view_find(const struct dns_view *view, const char *name,
		   const struct ipaddr **ret_addresses, size_t *ret_n);
/* The full name of an address, NULL when there is none. */
const char *dns_view_reverse(const struct dns_view *view, const struct ipaddr *address);
/* The view is the authority for the name: it lies in the base domain, or in a reverse zone of the tailnet's ranges. */
const char *dns_view_zone(const struct dns_view *view, const char *name);
/* The resolvers for a name, the longest domain first; NULL: no route. */
const struct dns_route *dns_view_route(const struct dns_view *view, const char *name);
