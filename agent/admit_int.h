/* Inside of the judgement: the shared state of one run, and its parts by subject. */
#pragma once

#include "agent/admit.h"
#include "base/map.h"

struct admit {
	const struct netmap *nm;
	const struct consent *consent;
	struct admitted *out;
	struct refusals *refusals;
	struct map keys;  /* node keys taken */
	struct map addrs; /* struct ipaddr bytes taken */
	struct map names; /* labels taken */
};

/* Counts and keeps a line. */
void admit_refuse(struct admit *a, enum refuse_kind kind, uint64_t node_id, const char *fmt, ...)
	PRINTF_LIKE(4, 5);

/* Service addresses of every device, which nobody else may have. */
bool admit_is_service(const struct ipaddr *addr);
/* Inside one of the tailnet's admitted prefixes. */
bool admit_in_tailnet(const struct admit *a, const struct ipaddr *addr);
/* The host part of a URL or of "host:port"; false if it is none. */
bool admit_url_host(const char *url, char host[256]);
/* The host is a name (not an address) inside the domain; the empty domain contains every name. */
bool admit_host_within(const char *host, const char *domain);

void admit_peers(struct admit *a);
void admit_routes(struct admit *a);
void admit_lighthouses(struct admit *a);
void admit_dns(struct admit *a);
