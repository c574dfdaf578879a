#include "agent/admit_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "proto/pb_util.h"

static const struct {
	const char *word;
	const char *meaning;
} kinds[] = {
#define ADMIT_ROW_(name, word, text) [name] = {word, text},
	ADMIT_MAP(ADMIT_ROW_)
#undef ADMIT_ROW_
};

const char *refuse_word(enum refuse_kind kind)
{
	return (unsigned)kind < REFUSE_KIND_NR ? kinds[kind].word : "UNKNOWN";
}

const char *refuse_meaning(enum refuse_kind kind)
{
	return (unsigned)kind < REFUSE_KIND_NR ? kinds[kind].meaning : "unknown";
}

void admit_refuse(struct admit *a, enum refuse_kind kind, uint64_t node_id, const char *fmt, ...)
{
	struct refusals *r = a->refusals;
	struct refusal *line;
	va_list ap;

	r->count[kind]++;
	if (r->n_lines == ADMIT_LINES) {
		return;
	}
	if (r->lines == NULL) {
		r->lines = mem_calloc(ADMIT_LINES, sizeof(*r->lines));
	}
	line = &r->lines[r->n_lines++];
	line->kind = kind;
	line->node_id = node_id;
	va_start(ap, fmt);
	vsnprintf(line->text, sizeof(line->text), fmt, ap);
	va_end(ap);
}

bool admit_is_service(const struct ipaddr *addr)
{
	static const struct ipaddr v4 = {4, {100, 100, 100, 100}};
	static const struct ipaddr v6 = {
		6, {0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53}};

	return ipaddr_equal(addr, &v4) || ipaddr_equal(addr, &v6);
}

bool admit_in_tailnet(const struct admit *a, const struct ipaddr *addr)
{
	for (size_t i = 0; i < a->out->n_prefixes; i++) {
		if (prefix_contains(&a->out->prefixes[i], addr)) {
			return true;
		}
	}
	return false;
}

/* ---- The netmap as a whole ---------------------------------------------------------------------------------------- */

static bool check_identity(struct admit *a)
{
	const struct consent *c = a->consent;
	const Skerry__V1__NetmapSelf *self = a->nm->self;

	if (self == NULL) {
		admit_refuse(a, REFUSE_NO_SELF, 0, "the netmap does not say who this device is");
		return false;
	}
	if (self->cluster_id == 0 || (c->cluster_id != 0 && self->cluster_id != c->cluster_id)) {
		admit_refuse(a, REFUSE_CLUSTER, 0,
			     "the netmap is of cluster %llu, this device is of %llu",
			     (unsigned long long)self->cluster_id,
			     (unsigned long long)c->cluster_id);
		return false;
	}
	if (self->tailnet_id == 0 || (c->tailnet_id != 0 && self->tailnet_id != c->tailnet_id)) {
		admit_refuse(a, REFUSE_TAILNET, 0,
			     "the netmap is of tailnet %llu, this device is of %llu",
			     (unsigned long long)self->tailnet_id,
			     (unsigned long long)c->tailnet_id);
		return false;
	}
	if (self->node_id == 0 || (c->node_id != 0 && self->node_id != c->node_id)) {
		admit_refuse(a, REFUSE_NODE, 0, "the netmap is for node %llu, this device is %llu",
			     (unsigned long long)self->node_id, (unsigned long long)c->node_id);
		return false;
	}
	if (self->node_key.len != 32 || memcmp(self->node_key.data, c->node_key, 32) != 0) {
		admit_refuse(a, REFUSE_SELF_KEY, 0,
			     "the netmap is for another node key than this device's");
		return false;
	}
	if (c->epoch != 0 && a->nm->epoch == c->epoch && a->nm->revision < c->revision) {
		admit_refuse(a, REFUSE_REVISION, 0,
			     "the netmap is of revision %llu, below the held %llu",
			     (unsigned long long)a->nm->revision, (unsigned long long)c->revision);
		return false;
	}
	return true;
}

static bool prefix_allowed_for_tailnet(const struct prefix *p)
{
	static const struct prefix cgnat = {{4, {100, 64}}, 10};
	static const struct prefix ula = {{6, {0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0}}, 48};

	return prefix_valid(p) && (prefix_covers(&cgnat, p) || prefix_covers(&ula, p));
}

static bool prefix_enrolled(const struct consent *c, const struct prefix *p)
{
	for (size_t i = 0; i < c->n_prefixes; i++) {
		if (prefix_equal(&c->prefixes[i], p)) {
			return true;
		}
	}
	return false;
}

/* After the first netmap the prefixes are those of the enrolment, whatever a lighthouse says. */
static void admit_prefixes(struct admit *a)
{
	const Skerry__V1__NetmapSelf *self = a->nm->self;
	const struct consent *c = a->consent;

	for (size_t i = 0; i < c->n_prefixes && i < ADMIT_PREFIXES; i++) {
		a->out->prefixes[a->out->n_prefixes++] = c->prefixes[i];
	}
	for (size_t i = 0; i < self->n_prefixes; i++) {
		const Skerry__V1__Prefix *in = self->prefixes[i];
		struct prefix p = {.len = (uint8_t)MIN(in->length, 255u)};
		char text[PREFIX_TEXT];

		if (!ipaddr_from_bytes(in->address.data, in->address.len, &p.addr) ||
		    !prefix_allowed_for_tailnet(&p)) {
			admit_refuse(a, REFUSE_PREFIX, 0,
				     "tailnet prefix %s is outside 100.64.0.0/10 and "
				     "fd7a:115c:a1e0::/48",
				     p.addr.family != 0 ? prefix_format(&p, text) : "(malformed)");
		} else if (c->n_prefixes > 0) {
			if (!prefix_enrolled(c, &p)) {
				admit_refuse(a, REFUSE_PREFIX_CHANGED, 0,
					     "tailnet prefix %s was not there when this device was "
					     "enrolled",
					     prefix_format(&p, text));
			}
		} else if (a->out->n_prefixes == ADMIT_PREFIXES) {
			admit_refuse(a, REFUSE_LIMIT, 0, "more than %d tailnet prefixes",
				     ADMIT_PREFIXES);
			return;
		} else {
			a->out->prefixes[a->out->n_prefixes++] = p;
		}
	}
}

static void admit_self(struct admit *a)
{
	const Skerry__V1__NetmapSelf *self = a->nm->self;

	a->out->cluster_id = self->cluster_id;
	a->out->tailnet_id = self->tailnet_id;
	a->out->node_id = self->node_id;
	a->out->expire_ms = pb_timestamp_ms(self->expire_time);
	map_put(&a->keys, a->consent->node_key, 32, a);
	if (name_valid_label(self->given_name, strlen(self->given_name), NULL) >= 0 &&
	    !name_refused_label(self->given_name)) {
		strcpy(a->out->name, self->given_name);
		map_put_str(&a->names, self->given_name, a);
	} else {
		admit_refuse(a, REFUSE_PEER_NAME, self->node_id,
			     "own name is none that a node may have");
	}
	for (size_t i = 0; i < self->n_addresses; i++) {
		struct ipaddr addr = {0};
		char text[IPADDR_TEXT];

		if (a->out->n_addresses == ADMIT_PEER_ADDRESSES) {
			admit_refuse(a, REFUSE_LIMIT, self->node_id, "more than %d own addresses",
				     ADMIT_PEER_ADDRESSES);
			break;
		}
		if (!ipaddr_from_bytes(self->addresses[i].data, self->addresses[i].len, &addr) ||
		    !admit_in_tailnet(a, &addr) || admit_is_service(&addr)) {
			admit_refuse(a, REFUSE_OWN_ADDRESS, self->node_id,
				     "own address %s is outside the tailnet's prefixes or reserved",
				     ipaddr_format(&addr, text));
			continue;
		}
		if (map_put(&a->addrs, &addr, sizeof(addr), a) == NULL) {
			a->out->addresses[a->out->n_addresses++] = addr;
		}
	}
}

bool netmap_admit(const struct netmap *nm, const struct consent *consent,
		  struct admitted *ret_admitted, struct refusals *ret_refusals)
{
	struct admit a = {
		.nm = nm, .consent = consent, .out = ret_admitted, .refusals = ret_refusals};

	*ret_admitted = (struct admitted){0};
	*ret_refusals = (struct refusals){0};
	if (!check_identity(&a)) {
		ret_admitted->refused = true;
		return false;
	}
	admit_prefixes(&a);
	admit_self(&a);
	admit_peers(&a);
	admit_routes(&a);
	admit_dns(&a);
	admit_lighthouses(&a);
	map_done(&a.keys);
	map_done(&a.addrs);
	map_done(&a.names);
	return true;
}

void admitted_done(struct admitted *a)
{
	for (size_t i = 0; i < a->n_peers; i++) {
		mem_free(a->peers[i].allowed);
		mem_free(a->peers[i].endpoints);
	}
	for (size_t i = 0; i < a->n_dns_routes; i++) {
		mem_free(a->dns_routes[i].resolvers);
	}
	for (size_t i = 0; i < a->n_lighthouses; i++) {
		mem_free(a->lighthouses[i]);
	}
	mem_free(a->peers);
	mem_free(a->routes);
	mem_free(a->records);
	mem_free(a->dns_routes);
	mem_free(a->lighthouses);
	*a = (struct admitted){0};
}

void refusals_done(struct refusals *r)
{
	mem_free(r->lines);
	*r = (struct refusals){0};
}
