/* Names: the base domain, records, split routes, resolvers, and the lighthouses' own names. */
#include "agent/admit_int.h"

#include <string.h>

#include "base/mem.h"

enum {
	URL_MAX = 300,
};

bool admit_url_host(const char *url, char host[256])
{
	static const char scheme[] = "https://";
	uint16_t port;

	if (strncmp(url, scheme, sizeof(scheme) - 1) == 0) {
		url += sizeof(scheme) - 1;
	} else if (strstr(url, "://") != NULL) {
		return false;
	}
	if (strlen(url) > URL_MAX || strpbrk(url, "/?#@ ") != NULL) {
		return false;
	}
	return hostport_parse(url, 443, host, 256, &port, NULL) >= 0;
}

bool admit_host_within(const char *host, const char *domain)
{
	char name[NAME_DOMAIN_MAX + 1];
	struct ipaddr addr;

	if (ipaddr_parse(host, &addr, NULL) >= 0 || name_normalise(host, name, NULL) < 0) {
		return false;
	}
	return name_within(name, domain);
}

/* A lighthouse that this device uses has a name inside the domain: the tailnet could then make itself its lighthouse. */
static const char *lighthouse_within(const struct admit *a, const char *domain)
{
	for (size_t i = 0; i < a->consent->n_lighthouse_hosts; i++) {
		if (admit_host_within(a->consent->lighthouse_hosts[i], domain)) {
			return a->consent->lighthouse_hosts[i];
		}
	}
	return NULL;
}

static void lighthouse_add(struct admit *a, const char *url)
{
	struct admitted *out = a->out;

	out->lighthouses = mem_reallocarray(out->lighthouses, out->n_lighthouses + 1,
					    sizeof(*out->lighthouses));
	out->lighthouses[out->n_lighthouses++] = mem_strdup(url);
}

/* The admitted split route that the host name lies in, or NULL. */
static const char *split_route_of(const struct admit *a, const char *host)
{
	for (size_t i = 0; i < a->out->n_dns_routes; i++) {
		if (admit_host_within(host, a->out->dns_routes[i].domain)) {
			return a->out->dns_routes[i].domain;
		}
	}
	return NULL;
}

void admit_lighthouses(struct admit *a)
{
	const Skerry__V1__NetmapSelf *self = a->nm->self;

	for (size_t i = 0; i < self->n_lighthouses; i++) {
		const char *url = self->lighthouses[i]->url;
		char host[256];
		const char *route;
		struct ipaddr addr;
		bool is_addr;

		if (a->out->n_lighthouses == LIM_LIGHTHOUSE_URLS) {
			admit_refuse(a, REFUSE_LIMIT, 0, "%zu lighthouses, %d are taken",
				     self->n_lighthouses, LIM_LIGHTHOUSE_URLS);
			return;
		}
		if (strncmp(url, "https://", 8) != 0 || !admit_url_host(url, host)) {
			admit_refuse(a, REFUSE_LIGHTHOUSE_URL, 0,
				     "\"%.100s\" is no https://host:port", url);
			continue;
		}
		is_addr = ipaddr_parse(host, &addr, NULL) >= 0;
		if (is_addr && (admit_in_tailnet(a, &addr) || admit_is_service(&addr) ||
				ipaddr_is_unspecified(&addr) || ipaddr_is_multicast(&addr))) {
			admit_refuse(a, REFUSE_LIGHTHOUSE_URL, 0,
				     "lighthouse %.100s lies inside the tailnet or nowhere", url);
			continue;
		}
		if (!is_addr && a->out->base_domain[0] != '\0' &&
		    admit_host_within(host, a->out->base_domain)) {
			admit_refuse(a, REFUSE_LIGHTHOUSE_NAME, 0,
				     "lighthouse %.100s lies inside the base domain %.60s", url,
				     a->out->base_domain);
			continue;
		}
		route = is_addr ? NULL : split_route_of(a, host);
		if (route != NULL) {
			admit_refuse(a, REFUSE_LIGHTHOUSE_NAME, 0,
				     "lighthouse %.100s lies inside the split route %.60s", url,
				     route);
			continue;
		}
		lighthouse_add(a, url);
	}
}

/* ---- DNS ----------------------------------------------------------------------------------------------------------- */

static void base_domain(struct admit *a, const Skerry__V1__DnsConfig *dns)
{
	char domain[NAME_DOMAIN_MAX + 1];
	const char *lighthouse;
	struct err e = {0};

	if (dns->base_domain[0] == '\0') {
		return;
	}
	if (name_normalise(dns->base_domain, domain, &e) < 0 || name_valid_domain(domain, &e) < 0) {
		admit_refuse(a, REFUSE_DNS_DOMAIN, 0, "base domain: %s", e.msg);
		return;
	}
	if (name_labels(domain) < 2) {
		admit_refuse(a, REFUSE_DNS_DOMAIN, 0, "base domain %s has a single label", domain);
		return;
	}
	if (name_has_refused_label(domain)) {
		admit_refuse(a, REFUSE_DNS_LABEL, 0,
			     "base domain %.120s has a label that nobody may take over", domain);
		return;
	}
	lighthouse = lighthouse_within(a, domain);
	if (lighthouse != NULL) {
		admit_refuse(a, REFUSE_LIGHTHOUSE_NAME, 0,
			     "lighthouse %.80s, in use here, lies inside the base domain %.80s",
			     lighthouse, domain);
		return;
	}
	strcpy(a->out->base_domain, domain);
}

static void one_record(struct admit *a, const Skerry__V1__DnsRecord *in)
{
	struct admitted_record *r = &a->out->records[a->out->n_records];
	uint8_t family = strcmp(in->type, "A") == 0 ? 4 : strcmp(in->type, "AAAA") == 0 ? 6 : 0;
	struct ipaddr addr;
	struct err e = {0};

	*r = (struct admitted_record){0};
	if (name_normalise(in->name, r->name, &e) < 0 || family == 0 ||
	    ipaddr_parse(in->value, &addr, &e) < 0 || addr.family != family) {
		admit_refuse(a, REFUSE_DNS_RECORD, 0,
			     "record \"%.60s\" %.8s \"%.50s\" is none%s%.60s", in->name, in->type,
			     in->value, e.msg[0] != '\0' ? ": " : "", e.msg);
		return;
	}
	if (name_has_refused_label(r->name)) {
		admit_refuse(a, REFUSE_DNS_LABEL, 0,
			     "record %.120s: nobody may take over this name", r->name);
		return;
	}
	if (a->out->base_domain[0] == '\0' || !name_within(r->name, a->out->base_domain)) {
		admit_refuse(a, REFUSE_DNS_ZONE, 0, "record %.120s is outside the base domain",
			     r->name);
		return;
	}
	if (!ipaddr_is_unicast(&addr)) {
		admit_refuse(a, REFUSE_DNS_RECORD, 0,
			     "record %.100s points at %.50s, which is no host's address", r->name,
			     in->value);
		return;
	}
	r->addr = addr;
	a->out->n_records++;
}

static bool resolver_parse(struct admit *a, const char *text, struct ipport *ret)
{
	struct ipport p = {.port = 53};

	if (ipaddr_parse(text, &p.addr, NULL) < 0 && ipport_parse(text, &p, NULL) < 0) {
		admit_refuse(a, REFUSE_DNS_RESOLVER, 0, "resolver \"%.60s\" is no address", text);
		return false;
	}
	if (p.port == 0 || !ipaddr_is_unicast(&p.addr) || admit_is_service(&p.addr)) {
		admit_refuse(a, REFUSE_DNS_RESOLVER, 0, "resolver %.60s cannot be one", text);
		return false;
	}
	*ret = p;
	return true;
}

static void one_route(struct admit *a, const Skerry__V1__DnsRoute *in)
{
	struct admitted_dns_route *r = &a->out->dns_routes[a->out->n_dns_routes];
	const char *lighthouse;
	struct err e = {0};
	bool root = strcmp(in->domain, "") == 0 || strcmp(in->domain, ".") == 0;

	*r = (struct admitted_dns_route){0};
	if (!root && name_normalise(in->domain, r->domain, &e) < 0) {
		admit_refuse(a, REFUSE_DNS_ROUTE, 0, "split route: %s", e.msg);
		return;
	}
	if ((root || name_labels(r->domain) < 2) && a->consent->dns != ACCEPT_DNS_ALL) {
		admit_refuse(a, REFUSE_DNS_ROUTE_WIDE, 0,
			     "split route for \"%.60s\" is taken with --accept-dns=all alone",
			     root ? "." : r->domain);
		return;
	}
	if (!root && name_has_refused_label(r->domain)) {
		admit_refuse(a, REFUSE_DNS_LABEL, 0,
			     "split route %.120s: nobody may take over this name", r->domain);
		return;
	}
	lighthouse = lighthouse_within(a, r->domain);
	if (lighthouse != NULL) {
		admit_refuse(a, REFUSE_LIGHTHOUSE_NAME, 0,
			     "lighthouse %.80s, in use here, lies inside the split route \"%.80s\"",
			     lighthouse, r->domain);
		return;
	}
	if (in->n_resolvers > ADMIT_DNS_RESOLVERS) {
		admit_refuse(a, REFUSE_LIMIT, 0, "split route %.80s: more than %d resolvers",
			     r->domain, ADMIT_DNS_RESOLVERS);
		return;
	}
	r->resolvers = mem_calloc(in->n_resolvers + 1, sizeof(*r->resolvers));
	for (size_t i = 0; i < in->n_resolvers; i++) {
		r->n_resolvers +=
			resolver_parse(a, in->resolvers[i], &r->resolvers[r->n_resolvers]);
	}
	if (r->n_resolvers == 0) {
		admit_refuse(a, REFUSE_DNS_ROUTE, 0, "split route %.100s has no resolver",
			     root ? "." : r->domain);
		mem_free(r->resolvers);
		return;
	}
	a->out->n_dns_routes++;
}

void admit_dns(struct admit *a)
{
	const Skerry__V1__DnsConfig *dns = a->nm->self->dns;

	if (dns == NULL || dns->disabled || a->consent->dns == ACCEPT_DNS_OFF) {
		return;
	}
	base_domain(a, dns);
	a->out->records = mem_calloc(MIN(dns->n_records, (size_t)LIM_TAILNET_DNS_RECORDS) + 1,
				     sizeof(*a->out->records));
	for (size_t i = 0; i < dns->n_records; i++) {
		if (i == LIM_TAILNET_DNS_RECORDS) {
			admit_refuse(a, REFUSE_LIMIT, 0, "more than %d DNS records",
				     LIM_TAILNET_DNS_RECORDS);
			break;
		}
		one_record(a, dns->records[i]);
	}
	a->out->dns_routes = mem_calloc(MIN(dns->n_routes, (size_t)ADMIT_DNS_ROUTES) + 1,
					sizeof(*a->out->dns_routes));
	for (size_t i = 0; i < dns->n_routes; i++) {
		if (i == ADMIT_DNS_ROUTES) {
			admit_refuse(a, REFUSE_LIMIT, 0, "more than %d split routes",
				     ADMIT_DNS_ROUTES);
			break;
		}
		one_route(a, dns->routes[i]);
	}
	if (dns->n_resolvers > 0 && a->consent->dns < ACCEPT_DNS_HOST) {
		admit_refuse(a, REFUSE_DNS_TAKE_OVER, 0,
			     "the tailnet's resolvers for everything are taken with "
			     "--accept-dns=host alone");
		return;
	}
	for (size_t i = 0; i < dns->n_resolvers; i++) {
		if (a->out->n_resolvers == ADMIT_DNS_RESOLVERS) {
			admit_refuse(a, REFUSE_LIMIT, 0, "more than %d resolvers",
				     ADMIT_DNS_RESOLVERS);
			break;
		}
		a->out->n_resolvers += resolver_parse(a, dns->resolvers[i],
						      &a->out->resolvers[a->out->n_resolvers]);
	}
}
