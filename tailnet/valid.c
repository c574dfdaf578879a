#include "tailnet/commands_int.h"

#include <string.h>

#include "base/limits.h"
#include "base/name.h"
#include "base/prefix.h"
#include "base/utf8.h"

bool bytes_equal(ProtobufCBinaryData a, ProtobufCBinaryData b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

bool bytes_zero(ProtobufCBinaryData b)
{
	for (size_t i = 0; i < b.len; i++) {
		if (b.data[i] != 0) {
			return false;
		}
	}
	return true;
}

bool has_tag(char *const *tags, size_t n, const char *tag)
{
	for (size_t i = 0; i < n; i++) {
		if (strcmp(tags[i], tag) == 0) {
			return true;
		}
	}
	return false;
}

int valid_text(struct state *st, const char *text, size_t max, const char *field)
{
	size_t len = strlen(text), control;

	if (len > max) {
		return refuse(st, CODE_INVALID, "", field,
			      "%s has %zu bytes, at most %zu are allowed", field, len, max);
	}
	if (!utf8_valid(text, len, true)) {
		return refuse(st, CODE_INVALID, "", field, "%s is not UTF-8", field);
	}
	control = utf8_find_control(text, len);
	if (control < len) {
		return refuse(st, CODE_INVALID, "", field,
			      "%s has a control character at position %zu", field, control + 1);
	}
	return ACCEPT;
}

int valid_tags(struct state *st, char **tags, size_t n, const char *field)
{
	if (n > LIM_NODE_TAGS) {
		return refuse(st, CODE_INVALID, "", field, "%zu tags, at most %d are allowed", n,
			      LIM_NODE_TAGS);
	}
	for (size_t i = 0; i < n; i++) {
		struct err e = {0};

		if (strncmp(tags[i], "tag:", 4) != 0) {
			return refuse(st, CODE_INVALID, "TAG_INVALID", field,
				      "the tag \"%.80s\" does not begin with \"tag:\"", tags[i]);
		}
		if (name_valid_label(tags[i] + 4, strlen(tags[i] + 4), &e) < 0) {
			return refuse(st, CODE_INVALID, "TAG_INVALID", field,
				      "the tag \"%.80s\": %s", tags[i], e.msg);
		}
		if (has_tag(tags, i, tags[i])) {
			return refuse(st, CODE_INVALID, "TAG_INVALID", field,
				      "the tag \"%.80s\" is there twice", tags[i]);
		}
	}
	return ACCEPT;
}

static bool valid_resolver(const char *text)
{
	struct ipaddr a;
	struct ipport p;

	return ipaddr_parse(text, &a, NULL) == 0 ||
	       (ipport_parse(text, &p, NULL) == 0 && p.port != 0);
}

static int valid_resolvers(struct state *st, char **r, size_t n, const char *field)
{
	if (n > LIM_DNS_RESOLVERS) {
		return refuse(st, CODE_INVALID, "", field, "%zu resolvers, at most %d are allowed",
			      n, LIM_DNS_RESOLVERS);
	}
	for (size_t i = 0; i < n; i++) {
		if (!valid_resolver(r[i])) {
			return refuse(st, CODE_INVALID, "", field,
				      "the resolver \"%.80s\" is neither an IP address nor "
				      "address:port",
				      r[i]);
		}
	}
	return ACCEPT;
}

static int valid_record(struct state *st, const Skerry__V1__DnsRecord *r, const char *base)
{
	const char *field = "dns.records";
	struct err e = {0};
	struct ipaddr a;
	int family;

	if (name_valid_record(r->name, &e) < 0) {
		return refuse(st, CODE_INVALID, "", field, "the record \"%.80s\": %s", r->name,
			      e.msg);
	}
	if (name_has_refused_label(r->name)) {
		return refuse(st, CODE_INVALID, "NAME_REFUSED", field,
			      "the name \"%.80s\" is one that clients look up by themselves",
			      r->name);
	}
	if (!name_within(r->name, base)) {
		return refuse(st, CODE_INVALID, "", field,
			      "the record \"%.80s\" does not lie in the base domain \"%s\"",
			      r->name, base);
	}
	family = strcmp(r->type, "A") == 0 ? 4 : strcmp(r->type, "AAAA") == 0 ? 6 : 0;
	if (family == 0) {
		return refuse(st, CODE_INVALID, "", field,
			      "the record \"%.80s\" has the type \"%.20s\"; A and AAAA are allowed",
			      r->name, r->type);
	}
	if (ipaddr_parse(r->value, &a, NULL) < 0 || a.family != family) {
		return refuse(st, CODE_INVALID, "", field,
			      "the record \"%.80s\": \"%.80s\" is not an IPv%d address", r->name,
			      r->value, family);
	}
	return ACCEPT;
}

int valid_base_domain(struct state *st, const char *domain, const char *field)
{
	struct err e = {0};

	if (name_valid_domain(domain, &e) < 0) {
		return refuse(st, CODE_INVALID, "", field, "the base domain: %s", e.msg);
	}
	if (name_labels(domain) < 2) {
		return refuse(st, CODE_INVALID, "", field,
			      "the base domain \"%s\" has one label: \"%s.internal\" would do",
			      domain, domain);
	}
	if (name_has_refused_label(domain)) {
		return refuse(st, CODE_INVALID, "", field,
			      "the base domain \"%s\" has a label that clients look up by "
			      "themselves",
			      domain);
	}
	return ACCEPT;
}

int valid_dns(struct state *st, const Skerry__V1__DnsConfig *dns, const char *field)
{
	struct err e = {0};

	if (dns == NULL) {
		return ACCEPT;
	}
	if (dns->base_domain[0] != '\0' &&
	    valid_base_domain(st, dns->base_domain, "dns.base_domain") == REFUSE) {
		return REFUSE;
	}
	if (valid_resolvers(st, dns->resolvers, dns->n_resolvers, "dns.resolvers") == REFUSE) {
		return REFUSE;
	}
	if (dns->n_routes > LIM_DNS_ROUTES || dns->n_records > LIM_TAILNET_DNS_RECORDS) {
		return refuse(st, CODE_INVALID, "", field,
			      "%zu routes and %zu records; at most %d and %d are allowed",
			      dns->n_routes, dns->n_records, LIM_DNS_ROUTES,
			      LIM_TAILNET_DNS_RECORDS);
	}
	for (size_t i = 0; i < dns->n_routes; i++) {
		const Skerry__V1__DnsRoute *r = dns->routes[i];

		if (name_valid_domain(r->domain, &e) < 0) {
			return refuse(st, CODE_INVALID, "", "dns.routes",
				      "the route for \"%.80s\": %s", r->domain, e.msg);
		}
		if (valid_resolvers(st, r->resolvers, r->n_resolvers, "dns.routes") == REFUSE) {
			return REFUSE;
		}
	}
	for (size_t i = 0; i < dns->n_records; i++) {
		if (valid_record(st, dns->records[i], dns->base_domain) == REFUSE) {
			return REFUSE;
		}
	}
	return ACCEPT;
}

int valid_prefixes(struct state *st, Skerry__V1__Prefix **prefixes, size_t n, const char *field)
{
	struct prefix all = {{4, {100, 64}}, 10};

	if (n > LIM_TAILNET_PREFIXES) {
		return refuse(st, CODE_INVALID, "", field, "%zu prefixes, at most %d are allowed",
			      n, LIM_TAILNET_PREFIXES);
	}
	for (size_t i = 0; i < n; i++) {
		struct prefix p = {.len = (uint8_t)prefixes[i]->length};

		if (prefixes[i]->address.len != 4 || prefixes[i]->length > 32 ||
		    !ipaddr_from_bytes(prefixes[i]->address.data, 4, &p.addr) ||
		    !prefix_valid(&p) || !prefix_covers(&all, &p)) {
			return refuse(st, CODE_INVALID, "", field,
				      "prefix %zu is not an IPv4 prefix inside 100.64.0.0/10",
				      i + 1);
		}
	}
	return ACCEPT;
}

int valid_endpoints(struct state *st, Skerry__V1__Endpoint **e, size_t n, const char *field)
{
	if (n > LIM_NODE_ENDPOINTS) {
		return refuse(st, CODE_INVALID, "", field, "%zu endpoints, at most %d are allowed",
			      n, LIM_NODE_ENDPOINTS);
	}
	for (size_t i = 0; i < n; i++) {
		struct ipaddr a;

		if (!ipaddr_from_bytes(e[i]->address.data, e[i]->address.len, &a) ||
		    ipaddr_is_unspecified(&a) || ipaddr_is_multicast(&a) || e[i]->port == 0 ||
		    e[i]->port > 65535) {
			return refuse(
				st, CODE_INVALID, "ENDPOINT_INVALID", field,
				"endpoint %zu is not a unicast address of 4 or 16 bytes with a "
				"port from 1 to 65535",
				i + 1);
		}
	}
	return ACCEPT;
}

int valid_host_info(struct state *st, const Skerry__V1__HostInfo *h, const char *field)
{
	size_t size;

	if (h == NULL) {
		return ACCEPT;
	}
	size = protobuf_c_message_get_packed_size(&h->base);
	if (size > LIM_NODE_HOSTINFO_BYTES || h->n_capabilities > LIM_NODE_CAPABILITIES) {
		return refuse(
			st, CODE_INVALID, "", field,
			"%s has %zu bytes and %zu capabilities; at most %u and %d are allowed",
			field, size, h->n_capabilities, LIM_NODE_HOSTINFO_BYTES,
			LIM_NODE_CAPABILITIES);
	}
	return ACCEPT;
}

int valid_facts(struct state *st, const RegisterFacts *f)
{
	if (f == NULL || f->machine_key == NULL || f->machine_key->key.len != 32 ||
	    f->machine_key->kind ==
		    SKERRY__INTERNAL__V1__MACHINE_KEY_KIND__MACHINE_KEY_KIND_UNSPECIFIED ||
	    bytes_zero(f->machine_key->key)) {
		return refuse(st, CODE_INVALID, "", "machine_key",
			      "a machine key has a kind and 32 bytes that are not all zero");
	}
	if (f->node_key.len != 32 || bytes_zero(f->node_key)) {
		return refuse(st, CODE_INVALID, "", "node_key",
			      "a node key has 32 bytes that are not all zero");
	}
	if (f->disco_key.len != 0 && (f->disco_key.len != 32 || bytes_zero(f->disco_key))) {
		return refuse(st, CODE_INVALID, "", "disco_key",
			      "a disco key has 32 bytes that are not all zero");
	}
	if (valid_text(st, f->hostname, LIM_DOMAIN, "hostname") == REFUSE ||
	    valid_host_info(st, f->host_info, "host_info") == REFUSE ||
	    valid_tags(st, f->requested_tags, f->n_requested_tags, "requested_tags") == REFUSE) {
		return REFUSE;
	}
	return valid_endpoints(st, f->endpoints, f->n_endpoints, "endpoints");
}

int valid_credential(struct state *st, const Skerry__Internal__V1__Credential *c)
{
	if (c == NULL || c->id == 0 || c->id > LIM_ID_MAX ||
	    c->hash_kind != SKERRY__INTERNAL__V1__HASH_KIND__HASH_KIND_SHA256 ||
	    c->hash.len != 32) {
		return refuse(st, CODE_INVALID, "", "credential",
			      "a credential has an id from 1 to 2^53-1 and a SHA-256");
	}
	return ACCEPT;
}

int valid_etag(struct state *st, const char *etag, uint64_t revision)
{
	char text[ETAG_TEXT];

	if (!etag_matches(etag, revision)) {
		return refuse(
			st, CODE_ABORTED, "ETAG_MISMATCH", "etag",
			"the object has changed since it was read (its etag is %s now): read it "
			"again and repeat",
			etag_format(revision, text));
	}
	return ACCEPT;
}
