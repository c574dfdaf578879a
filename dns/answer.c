#include "dns/answer.h"

#include <string.h>

#include "base/name.h"

/* Types that a zone without records of its own cannot sensibly answer. */
static bool unsupported(uint16_t type)
{
	return type == DNS_NS || type == DNS_SOA || type == DNS_AXFR || type == DNS_HINFO;
}

static bool is_service_probe(const char *name)
{
	static const char *const probes[] = {"b._dns-sd._udp", "db._dns-sd._udp", "r._dns-sd._udp",
					     "dr._dns-sd._udp", "lb._dns-sd._udp"};

	for (size_t i = 0; i < ARRAY_LEN(probes); i++) {
		if (!strncmp(name, probes[i], strlen(probes[i])))
			return true;
	}
	return false;
}

static enum dns_verdict finish(struct dns_answer *a, const struct dns_query *q,
			       enum dns_rcode rcode, size_t *ret_len)
{
	*ret_len = wire_finish(a, q, rcode);
	return DNS_ANSWERED;
}

/* An authoritative "no", with the SOA that lets it be cached. */
static enum dns_verdict negative(struct dns_answer *a, const struct dns_query *q,
				 enum dns_rcode rcode, const char *zone, size_t *ret_len)
{
	wire_soa(a, zone ? zone : q->name, DNS_NEGATIVE_TTL);
	return finish(a, q, rcode, ret_len);
}

enum dns_verdict dns_answer(const struct dns_view *view, const uint8_t *msg, size_t len,
			    size_t limit, uint8_t *out, size_t *ret_len,
			    struct dns_query *ret_query, const struct dns_route **ret_route)
{
	const struct dns_route *route;
	const struct ipaddr *addresses;
	struct dns_query q;
	struct ipaddr rev;
	const char *target;
	const char *zone;
	struct dns_answer a;
	size_t n;
	int rc = wire_parse(msg, len, &q);

	if (rc == ERR_PROTOCOL)
		return DNS_DROP;
	if (rc < 0) {
		*ret_len = wire_error(msg, len, rc == ERR_UNIMPLEMENTED ? DNS_NOTIMP : DNS_FORMERR,
				      out);
		return DNS_ANSWERED;
	}
	wire_begin(&a, out, limit ? limit : q.edns_size, msg, &q, true);
	if (q.class != DNS_CLASS_IN && q.class != DNS_CLASS_ANY)
		return finish(&a, &q, DNS_NOTIMP, ret_len);
	zone = dns_view_zone(view, q.name);
	if (dns_view_find(view, q.name, &addresses, &n)) {
		if (unsupported(q.type))
			return finish(&a, &q, DNS_NOTIMP, ret_len);
		for (size_t i = 0; i < n; i++) {
			bool v4 = addresses[i].family == 4;

			if (q.type == DNS_ANY || q.type == (v4 ? DNS_A : DNS_AAAA))
				wire_address(&a, &addresses[i], DNS_TTL);
		}
		if (a.answers == 0 && !a.truncated)
			return negative(&a, &q, DNS_NOERROR, zone, ret_len);
		return finish(&a, &q, DNS_NOERROR, ret_len);
	}
	if (wire_reverse(q.name, &rev) && (target = dns_view_reverse(view, &rev))) {
		if (q.type != DNS_PTR && q.type != DNS_ANY)
			return negative(&a, &q, DNS_NOERROR, zone, ret_len);
		wire_ptr(&a, target, DNS_TTL);
		return finish(&a, &q, DNS_NOERROR, ret_len);
	}
	if (zone) /* ours, and unknown; the zone's own name exists */
		return negative(&a, &q, strcmp(q.name, zone) ? DNS_NXDOMAIN : DNS_NOERROR, zone,
				ret_len);
	if (is_service_probe(q.name) || name_within(q.name, "onion"))
		return negative(&a, &q, DNS_NXDOMAIN, NULL, ret_len);
	route = dns_view_route(view, q.name);
	if (route && route->n_resolvers == 0)
		return negative(&a, &q, DNS_NXDOMAIN, route->domain, ret_len);
	if (!route) {
		wire_begin(&a, out, limit ? limit : q.edns_size, msg, &q, false);
		return finish(&a, &q, DNS_SERVFAIL, ret_len);
	}
	*ret_query = q;
	*ret_route = route;
	return DNS_FORWARD;
}
