/* Peers and their routes. */
#include "agent/admit_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "proto/pb_util.h"

static bool key_is_zero(const uint8_t *key)
{
	static const uint8_t zero[32];

	return memcmp(key, zero, 32) == 0;
}

static bool peer_key(struct admit *a, const Skerry__V1__NetmapPeer *in, struct admitted_peer *p)
{
	if (in->node_key.len != 32 || key_is_zero(in->node_key.data)) {
		admit_refuse(a, REFUSE_PEER_KEY, p->id, "node %llu has no node key",
			     (unsigned long long)p->id);
		return false;
	}
	if (memcmp(in->node_key.data, a->consent->node_key, 32) == 0) {
		admit_refuse(a, REFUSE_OWN_KEY, p->id, "node %llu has this device's own key",
			     (unsigned long long)p->id);
		return false;
	}
	if (map_put(&a->keys, in->node_key.data, 32, a) != NULL) {
		admit_refuse(a, REFUSE_KEY_TWICE, p->id, "node %llu has the key of another peer",
			     (unsigned long long)p->id);
		return false;
	}
	memcpy(p->key, in->node_key.data, 32);
	return true;
}

/* A peer without an acceptable name stays reachable by its address. */
static void peer_name(struct admit *a, const Skerry__V1__NetmapPeer *in, struct admitted_peer *p)
{
	struct err e = {0};

	if (name_valid_label(in->given_name, strlen(in->given_name), &e) < 0) {
		admit_refuse(a, REFUSE_PEER_NAME, p->id, "node %llu: %s", (unsigned long long)p->id,
			     e.msg);
	} else if (name_refused_label(in->given_name)) {
		admit_refuse(a, REFUSE_PEER_NAME, p->id,
			     "node %llu wants the name \"%s\", which nobody may have",
			     (unsigned long long)p->id, in->given_name);
	} else if (map_put_str(&a->names, in->given_name, a) != NULL) {
		admit_refuse(a, REFUSE_NAME_TWICE, p->id,
			     "node %llu has the name \"%s\" of another node",
			     (unsigned long long)p->id, in->given_name);
	} else {
		strcpy(p->name, in->given_name);
	}
}

static void peer_addresses(struct admit *a, const Skerry__V1__NetmapPeer *in,
			   struct admitted_peer *p)
{
	for (size_t i = 0; i < in->n_addresses; i++) {
		struct ipaddr addr = {0};
		char text[IPADDR_TEXT];

		if (p->n_addresses == ADMIT_PEER_ADDRESSES) {
			admit_refuse(a, REFUSE_LIMIT, p->id, "node %llu has more than %d addresses",
				     (unsigned long long)p->id, ADMIT_PEER_ADDRESSES);
			return;
		}
		if (!ipaddr_from_bytes(in->addresses[i].data, in->addresses[i].len, &addr) ||
		    !admit_in_tailnet(a, &addr) || admit_is_service(&addr)) {
			admit_refuse(a, REFUSE_PEER_ADDRESS, p->id,
				     "node %llu: address %s is outside the tailnet's prefixes or "
				     "reserved",
				     (unsigned long long)p->id, ipaddr_format(&addr, text));
			continue;
		}
		if (map_put(&a->addrs, &addr, sizeof(addr), a) != NULL) {
			admit_refuse(a, REFUSE_ADDRESS_TWICE, p->id,
				     "node %llu: address %s is another node's",
				     (unsigned long long)p->id, ipaddr_format(&addr, text));
			continue;
		}
		p->allowed = mem_reallocarray(p->allowed, p->n_allowed + 1, sizeof(*p->allowed));
		p->allowed[p->n_allowed++] = prefix_of(&addr);
		p->n_addresses++;
	}
}

/* Why an endpoint cannot be right, or NULL. */
static const char *endpoint_wrong(const struct admit *a, const struct ipport *ep)
{
	if (ep->port == 0) {
		return "has no port";
	}
	if (ipaddr_is_loopback(&ep->addr)) {
		return a->consent->allow_loopback ? NULL : "is loopback";
	}
	if (!ipaddr_is_unicast(&ep->addr)) {
		return "is no host's address";
	}
	if (admit_in_tailnet(a, &ep->addr) || admit_is_service(&ep->addr)) {
		return "lies inside the tailnet";
	}
	return NULL;
}

static void peer_endpoints(struct admit *a, const Skerry__V1__NetmapPeer *in,
			   struct admitted_peer *p)
{
	size_t n = in->n_endpoints;

	if (n > LIM_PEER_ENDPOINTS) {
		admit_refuse(a, REFUSE_LIMIT, p->id, "node %llu has %zu endpoints, %d are taken",
			     (unsigned long long)p->id, n, LIM_PEER_ENDPOINTS);
		n = LIM_PEER_ENDPOINTS;
	}
	if (n == 0) {
		return;
	}
	p->endpoints = mem_calloc(n, sizeof(*p->endpoints));
	for (size_t i = 0; i < n; i++) {
		const Skerry__V1__Endpoint *from = in->endpoints[i];
		struct ipport ep = {0};
		char text[IPPORT_TEXT];
		const char *wrong;

		if (!ipaddr_from_bytes(from->address.data, from->address.len, &ep.addr) ||
		    from->port > UINT16_MAX) {
			admit_refuse(a, REFUSE_ENDPOINT, p->id,
				     "node %llu: an endpoint is malformed",
				     (unsigned long long)p->id);
			continue;
		}
		ep.addr = ipaddr_unmap(&ep.addr);
		ep.port = (uint16_t)from->port;
		wrong = endpoint_wrong(a, &ep);
		if (wrong != NULL) {
			admit_refuse(a, REFUSE_ENDPOINT, p->id, "node %llu: endpoint %s %s",
				     (unsigned long long)p->id, ipport_format(&ep, text), wrong);
			continue;
		}
		p->endpoints[p->n_endpoints++] = ep;
	}
}

void admit_peers(struct admit *a)
{
	size_t n = a->nm->n_peers;

	if (n > LIM_NETMAP_PEERS) {
		admit_refuse(a, REFUSE_LIMIT, 0, "%zu peers, %d are taken", n, LIM_NETMAP_PEERS);
		n = LIM_NETMAP_PEERS;
	}
	a->out->peers = mem_calloc(n + 1, sizeof(*a->out->peers));
	for (size_t i = 0; i < n; i++) {
		const Skerry__V1__NetmapPeer *in = a->nm->peers[i].body;
		struct admitted_peer *p = &a->out->peers[a->out->n_peers];

		*p = (struct admitted_peer){.id = in->node_id};
		if (in->node_id == 0 || in->node_id > LIM_ID_MAX ||
		    in->node_id == a->out->node_id) {
			admit_refuse(a, REFUSE_PEER_ID, in->node_id,
				     "a peer has the id %llu, which %s",
				     (unsigned long long)in->node_id,
				     in->node_id == a->out->node_id ? "is this device's"
								    : "no node can have");
			continue;
		}
		if (!peer_key(a, in, p)) {
			continue;
		}
		peer_name(a, in, p);
		peer_addresses(a, in, p);
		peer_endpoints(a, in, p);
		p->expire_ms = pb_timestamp_ms(in->expire_time);
		a->out->n_peers++;
	}
}

/* ---- Routes -------------------------------------------------------------------------------------------------------- */

static struct admitted_peer *find_peer(const struct admitted *out, uint64_t id)
{
	for (size_t lo = 0, hi = out->n_peers; lo < hi;) {
		size_t mid = lo + (hi - lo) / 2;

		if (out->peers[mid].id == id) {
			return &out->peers[mid];
		}
		if (out->peers[mid].id < id) {
			lo = mid + 1;
		} else {
			hi = mid;
		}
	}
	return NULL;
}

/* Shorter ones are the default route or a good part of it. */
static bool route_is_wide(const struct prefix *p)
{
	return p->len < (p->addr.family == 4 ? 8 : 16);
}

static bool route_special(const struct prefix *p)
{
	static const struct prefix special[] = {
		{{4, {0}}, 8},  {{4, {127}}, 8},         {{4, {169, 254}}, 16}, {{4, {224}}, 3},
		{{6, {0}}, 96}, {{6, {0xfe, 0x80}}, 10}, {{6, {0xff}}, 8},
	};

	for (size_t i = 0; i < ARRAY_LEN(special); i++) {
		if (prefix_overlaps(&special[i], p)) {
			return true;
		}
	}
	return false;
}

static bool route_over_tailnet(const struct admit *a, const struct prefix *p)
{
	static const struct prefix service = {{4, {100, 100, 100, 100}}, 32};

	for (size_t i = 0; i < a->out->n_prefixes; i++) {
		if (prefix_overlaps(&a->out->prefixes[i], p)) {
			return true;
		}
	}
	return prefix_overlaps(&service, p);
}

/* One route of one peer. True: taken. */
static bool route_judge(struct admit *a, const struct admitted_peer *peer, const struct prefix *p)
{
	static const char *const in_use_text[] = {"the gateway", "a lighthouse", "a relay",
						  "a resolver"};
	const struct consent *c = a->consent;
	bool is_exit = c->exit_node != 0 && c->exit_node == peer->id;
	char text[PREFIX_TEXT], addr[IPADDR_TEXT];
	unsigned long long id = peer->id;

	prefix_format(p, text);
	if (is_exit && prefix_is_default(p)) {
		return true; /* chosen here: everything goes there but what is more specific */
	}
	if (route_is_wide(p)) {
		admit_refuse(a, REFUSE_DEFAULT_ROUTE, id,
			     "node %llu offers %s: the default route or a part of it", id, text);
		return false;
	}
	if (!c->accept_routes) {
		admit_refuse(a, REFUSE_ROUTE_OFF, id,
			     "node %llu offers %s: routes are not accepted here (skerry set "
			     "--accept-routes)",
			     id, text);
		return false;
	}
	if (route_over_tailnet(a, p)) {
		admit_refuse(a, REFUSE_ROUTE_TAILNET, id,
			     "node %llu offers %s: over the tailnet's own addresses", id, text);
		return false;
	}
	if (route_special(p)) {
		admit_refuse(a, REFUSE_ROUTE_SPECIAL, id,
			     "node %llu offers %s: over addresses that are never routed", id, text);
		return false;
	}
	for (size_t i = 0; i < c->n_connected; i++) {
		if (prefix_overlaps(&c->connected[i], p)) {
			admit_refuse(a, REFUSE_ROUTE_CONNECTED, id,
				     "node %llu offers %s: this device is in that network", id,
				     text);
			return false;
		}
	}
	for (size_t i = 0; i < c->n_in_use; i++) {
		if (prefix_contains(p, &c->in_use[i].addr)) {
			admit_refuse(a,
				     c->in_use[i].kind == IN_USE_GATEWAY ? REFUSE_ROUTE_GATEWAY
									 : REFUSE_ROUTE_IN_USE,
				     id, "node %llu offers %s: over %s %s", id, text,
				     in_use_text[c->in_use[i].kind],
				     ipaddr_format(&c->in_use[i].addr, addr));
			return false;
		}
	}
	return true;
}

struct offer {
	struct prefix prefix;
	struct admitted_peer *peer;
};

/* By prefix, then by id, so that the choice among two does not depend on the order of sending. */
static int offer_order(const void *a, const void *b)
{
	const struct offer *x = a, *y = b;
	int c = prefix_cmp(&x->prefix, &y->prefix);

	if (c != 0) {
		return c;
	}
	return x->peer->id < y->peer->id ? -1 : x->peer->id > y->peer->id;
}

/*
 * Many small prefixes can make up a default route. `part` is the share of the family's addresses, in units of 2^-32;
 * offers are sorted, so one that lies inside the one before is seen at once.
 */
static bool offers_are_default(const struct offer *offers, size_t n, uint8_t family,
			       const struct consent *c)
{
	uint64_t part = 0;
	const struct prefix *last = NULL;

	for (size_t i = 0; i < n; i++) {
		const struct prefix *p = &offers[i].prefix;

		if (p->addr.family != family || p->len > 32 ||
		    (c->exit_node != 0 && prefix_is_default(p)) ||
		    (last != NULL && prefix_covers(last, p))) {
			continue;
		}
		part += 1ull << (32 - p->len);
		last = p;
	}
	/* A quarter of IPv4; of IPv6 a thirty-second: all that is in use there is an eighth. */
	return part >= (family == 4 ? 1ull << 30 : 1ull << 27);
}

static bool is_default_for_exit(const struct consent *c, const struct offer *o)
{
	return c->exit_node != 0 && c->exit_node == o->peer->id && prefix_is_default(&o->prefix);
}

void admit_routes(struct admit *a)
{
	const Skerry__V1__NetmapView *view = a->nm->view;
	struct offer *offers;
	size_t n = 0, kept = 0;
	bool whole4, whole6;

	if (view == NULL || view->n_routes == 0) {
		return;
	}
	offers = mem_calloc(view->n_routes, sizeof(*offers));
	for (size_t i = 0; i < view->n_routes; i++) {
		const Skerry__V1__PeerRoute *in = view->routes[i];
		struct offer *o = &offers[n];

		if (n == LIM_NETMAP_PEERS) {
			admit_refuse(a, REFUSE_LIMIT, 0, "%zu routes, %d are taken", view->n_routes,
				     LIM_NETMAP_PEERS);
			break;
		}
		*o = (struct offer){.peer = find_peer(a->out, in->node_id)};
		if (o->peer == NULL) {
			admit_refuse(a, REFUSE_ROUTE_PEER, in->node_id,
				     "a route goes to node %llu, which is no peer",
				     (unsigned long long)in->node_id);
			continue;
		}
		if (in->prefix == NULL ||
		    !ipaddr_from_bytes(in->prefix->address.data, in->prefix->address.len,
				       &o->prefix.addr) ||
		    in->prefix->length > 128) {
			admit_refuse(a, REFUSE_ROUTE_FORM, in->node_id,
				     "node %llu: a route is malformed",
				     (unsigned long long)in->node_id);
			continue;
		}
		o->prefix.len = (uint8_t)in->prefix->length;
		if (!prefix_valid(&o->prefix)) {
			admit_refuse(a, REFUSE_ROUTE_FORM, in->node_id,
				     "node %llu: a route is no prefix",
				     (unsigned long long)in->node_id);
			continue;
		}
		if (route_judge(a, o->peer, &o->prefix)) {
			n++;
		}
	}
	qsort(offers, n, sizeof(*offers), offer_order);
	whole4 = offers_are_default(offers, n, 4, a->consent);
	whole6 = offers_are_default(offers, n, 6, a->consent);
	a->out->routes = mem_calloc(n + 1, sizeof(*a->out->routes));
	for (size_t i = 0; i < n; i++) {
		struct offer *o = &offers[i];
		struct admitted_peer *p = o->peer;
		unsigned long long id = p->id;
		char text[PREFIX_TEXT];

		if ((o->prefix.addr.family == 4 ? whole4 : whole6) &&
		    !is_default_for_exit(a->consent, o)) {
			admit_refuse(a, REFUSE_DEFAULT_ROUTE, id,
				     "node %llu offers %s: together the routes are a good part of "
				     "a default route",
				     id, prefix_format(&o->prefix, text));
			continue;
		}
		if (kept > 0 && prefix_equal(&a->out->routes[kept - 1], &o->prefix)) {
			admit_refuse(a, REFUSE_ROUTE_TWICE, id,
				     "node %llu offers %s, which another peer offers too", id,
				     prefix_format(&o->prefix, text));
			continue;
		}
		a->out->routes[kept++] = o->prefix;
		p->allowed = mem_reallocarray(p->allowed, p->n_allowed + 1, sizeof(*p->allowed));
		p->allowed[p->n_allowed++] = o->prefix;
	}
	a->out->n_routes = kept;
	mem_free(offers);
}
