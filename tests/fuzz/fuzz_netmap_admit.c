/* netmap_admit: whatever bytes a lighthouse sends, what is admitted keeps the promises of agent/admit.h. LIBS: agent */
#include <stdint.h>
#include <string.h>

#include "agent/admit.h"
#include "base/arena.h"
#include "base/crypto.h"
#include "proto/pb_decode.h"
#include "proto/pb_util.h"

static const struct prefix v4 = {{4, {100, 64}}, 10};
static const struct prefix v6 = {{6, {0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0}}, 48};

static bool in_tailnet(const struct prefix *p)
{
	return prefix_covers(&v4, p) || prefix_covers(&v6, p);
}

static void check(const struct admitted *a, const struct consent *c)
{
	for (size_t i = 0; i < a->n_prefixes; i++) {
		PRE(in_tailnet(&a->prefixes[i]));
	}
	for (size_t i = 0; i < a->n_addresses; i++) {
		struct prefix p = prefix_of(&a->addresses[i]);

		PRE(in_tailnet(&p));
	}
	for (size_t i = 0; i < a->n_peers; i++) {
		const struct admitted_peer *p = &a->peers[i];

		PRE(i == 0 || a->peers[i - 1].id < p->id);
		PRE(memcmp(p->key, c->node_key, 32) != 0);
		PRE(p->n_addresses <= p->n_allowed && p->n_addresses <= ADMIT_PEER_ADDRESSES);
		PRE(p->n_endpoints <= LIM_PEER_ENDPOINTS);
		for (size_t j = 0; j < p->n_allowed; j++) {
			const struct prefix *allowed = &p->allowed[j];

			PRE(prefix_valid(allowed));
			PRE(j >= p->n_addresses || in_tailnet(allowed));
			PRE(j < p->n_addresses || c->accept_routes);
			PRE(!prefix_is_default(allowed));
		}
		for (size_t j = 0; j < p->n_endpoints; j++) {
			PRE(p->endpoints[j].port != 0 && ipaddr_is_unicast(&p->endpoints[j].addr));
			PRE(!prefix_contains(&v4, &p->endpoints[j].addr) || a->n_prefixes == 0 ||
			    !prefix_contains(&a->prefixes[0], &p->endpoints[j].addr));
		}
	}
	for (size_t i = 0; i < a->n_routes; i++) {
		PRE(!prefix_overlaps(&a->routes[i], &c->connected[0]));
		PRE(!prefix_contains(&a->routes[i], &c->in_use[0].addr));
	}
	for (size_t i = 0; i < a->n_records; i++) {
		PRE(a->base_domain[0] != '\0' && name_within(a->records[i].name, a->base_domain));
	}
	PRE(a->n_dns_routes <= ADMIT_DNS_ROUTES && a->n_resolvers <= ADMIT_DNS_RESOLVERS);
	PRE(a->n_lighthouses <= LIM_LIGHTHOUSE_URLS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct prefix connected = {{4, {192, 168, 7}}, 24};
	static const struct in_use in_use = {{4, {10, 9, 9, 1}}, IN_USE_GATEWAY};
	static const char *const host = "lh.example.org";
	struct consent consent = {
		.connected = &connected,
		.n_connected = 1,
		.in_use = &in_use,
		.n_in_use = 1,
		.lighthouse_hosts = &host,
		.n_lighthouse_hosts = 1,
	};
	struct netmap nm = {0};
	struct admitted admitted;
	struct refusals refusals;
	uint8_t mode;

	if (size < 1) {
		return 0;
	}
	crypto_init();
	/* The first byte is the consent, the rest the netmap. */
	mode = data[0];
	consent.accept_routes = (mode & 1) != 0;
	consent.allow_loopback = false;
	consent.dns = (enum accept_dns)(1 + (mode >> 1) % 4);
	if (netmap_decode(data + 1, size - 1, &nm, NULL) >= 0) {
		struct buf one = BUF_INIT, two = BUF_INIT;
		struct netmap again = {0};

		if (nm.self->node_key.len == 32) {
			memcpy(consent.node_key, nm.self->node_key.data, 32);
		}
		if (netmap_admit(&nm, &consent, &admitted, &refusals)) {
			check(&admitted, &consent);
		} else {
			PRE(admitted.refused && admitted.n_peers == 0);
		}
		PRE(refusals.n_lines <= ADMIT_LINES);
		admitted_done(&admitted);
		refusals_done(&refusals);
		/* The canonical form is one: reading it back and writing it again changes nothing. */
		netmap_encode(&nm, true, &one);
		PRE(netmap_decode(one.data, one.len, &again, NULL) >= 0);
		netmap_encode(&again, true, &two);
		PRE(one.len == two.len && memcmp(one.data, two.data, one.len) == 0);
		buf_done(&one);
		buf_done(&two);
		netmap_done(&again);
	}
	netmap_done(&nm);
	return 0;
}
