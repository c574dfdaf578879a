/* What an agent refuses: a good netmap passes whole, and each thing that is wrong with one is refused by its own kind while
 * the rest of the netmap stays. LIBS: agent_fake agent */
#include "tests/lib/test.h"

#include "agent/admit.h"
#include "base/crypto.h"
#include "base/mem.h"
#include "tests/component/agent/fake_lighthouse.h"

static const uint8_t own_key[32] = {0xaa, 1, 2, 3};

struct world {
	struct fake_map map;
	struct netmap nm;
	struct consent consent;
	struct admitted out;
	struct refusals refusals;
	struct prefix connected[2];
	struct in_use in_use[4];
	const char *hosts[2];
};

static struct prefix prefix(const char *text)
{
	struct prefix p;

	assert_ok(prefix_parse_host(text, &p, NULL));
	return p;
}

static struct ipaddr addr(const char *text)
{
	struct ipaddr a;

	assert_ok(ipaddr_parse(text, &a, NULL));
	return a;
}

static void begin(struct world *w)
{
	memset(w, 0, sizeof(*w));
	fake_map_init(&w->map, own_key, 4);
	w->connected[0] = prefix("192.168.7.0/24");
	w->in_use[0] = (struct in_use){addr("10.9.9.1"), IN_USE_GATEWAY};
	w->in_use[1] = (struct in_use){addr("10.8.8.8"), IN_USE_LIGHTHOUSE};
	w->in_use[2] = (struct in_use){addr("10.7.7.7"), IN_USE_RESOLVER};
	w->in_use[3] = (struct in_use){addr("10.6.6.6"), IN_USE_RELAY};
	w->hosts[0] = "lh.example.org";
	w->consent = (struct consent){
		.cluster_id = FAKE_CLUSTER, .tailnet_id = 3, .node_id = 1, .dns = ACCEPT_DNS_SERVE, .accept_routes = true,
		.connected = w->connected, .n_connected = 1, .in_use = w->in_use, .n_in_use = 4,
		.lighthouse_hosts = w->hosts, .n_lighthouse_hosts = 1,
	};
	memcpy(w->consent.node_key, own_key, 32);
}

static bool judge(struct world *w)
{
	struct netmap_assembly a = {0};

	assert_int_equal(netmap_take_chunk(&a, &w->map.chunk, NULL), 1);
	netmap_move(&w->nm, &a.map);
	netmap_assembly_done(&a);
	return netmap_admit(&w->nm, &w->consent, &w->out, &w->refusals);
}

static void end(struct world *w)
{
	netmap_done(&w->nm);
	admitted_done(&w->out);
	refusals_done(&w->refusals);
}

static uint64_t all(const struct world *w)
{
	uint64_t n = 0;

	for (size_t i = 0; i < REFUSE_KIND_NR; i++) {
		n += w->refusals.count[i];
	}
	return n;
}

static bool knows_peer(const struct world *w, uint64_t id)
{
	for (size_t i = 0; i < w->out.n_peers; i++) {
		if (w->out.peers[i].id == id) {
			return true;
		}
	}
	return false;
}

static bool allows(const struct world *w, const char *text)
{
	struct prefix p = prefix(text);

	for (size_t i = 0; i < w->out.n_peers; i++) {
		for (size_t j = 0; j < w->out.peers[i].n_allowed; j++) {
			if (prefix_equal(&w->out.peers[i].allowed[j], &p)) {
				return true;
			}
		}
	}
	return false;
}

static void a_good_netmap_passes_whole(void **state)
{
	struct world w;

	(void)state;
	begin(&w);
	fake_map_route(&w.map, 2, "10.1.0.0/16");
	w.map.lighthouse[0].url = (char *)"https://192.0.2.9:8443";
	w.map.self.n_lighthouses = 1;
	assert_true(judge(&w));
	assert_int_equal(all(&w), 0);
	assert_int_equal(w.out.n_peers, 4);
	assert_int_equal(w.out.n_addresses, 2);
	assert_int_equal(w.out.n_prefixes, 2);
	assert_int_equal(w.out.n_routes, 1);
	assert_true(allows(&w, "10.1.0.0/16"));
	assert_int_equal(w.out.peers[0].n_addresses, 2);
	assert_int_equal(w.out.peers[0].n_endpoints, 1);
	assert_string_equal(w.out.base_domain, "home.internal");
	assert_int_equal(w.out.n_lighthouses, 1);
	assert_string_equal(w.out.name, "device");
	end(&w);
}

/* ---- One lie each -------------------------------------------------------------------------------------------------- */

static uint8_t bytes[8][16];
static ProtobufCBinaryData datas[8];
static Skerry__V1__Endpoint lie_endpoint;
static Skerry__V1__Endpoint *lie_endpoints[200];
static Skerry__V1__DnsRecord record;
static Skerry__V1__DnsRecord *records[1];
static Skerry__V1__DnsRoute dns_route;
static Skerry__V1__DnsRoute *dns_routes[1];
static char *resolvers[1];

static ProtobufCBinaryData *put(size_t i, const char *text)
{
	struct ipaddr a = addr(text);

	memcpy(bytes[i], a.b, 16);
	datas[i] = (ProtobufCBinaryData){ipaddr_len(&a), bytes[i]};
	return &datas[i];
}

static void peer_address(struct world *w, const char *text)
{
	w->map.peer[0].addresses = put(0, text);
	w->map.peer[0].n_addresses = 1;
}

static void endpoint(struct world *w, const char *text, uint32_t port)
{
	skerry__v1__endpoint__init(&lie_endpoint);
	lie_endpoint.address = *put(1, text);
	lie_endpoint.port = port;
	lie_endpoints[0] = &lie_endpoint;
	w->map.peer[0].endpoints = lie_endpoints;
	w->map.peer[0].n_endpoints = 1;
}

static void dns_record(struct world *w, const char *name, const char *type, const char *value)
{
	skerry__v1__dns_record__init(&record);
	record.name = (char *)name;
	record.type = (char *)type;
	record.value = (char *)value;
	records[0] = &record;
	w->map.dns.records = records;
	w->map.dns.n_records = 1;
}

static void split(struct world *w, const char *domain, const char *resolver)
{
	skerry__v1__dns_route__init(&dns_route);
	dns_route.domain = (char *)domain;
	resolvers[0] = (char *)resolver;
	dns_route.resolvers = resolvers;
	dns_route.n_resolvers = resolver != NULL;
	dns_routes[0] = &dns_route;
	w->map.dns.routes = dns_routes;
	w->map.dns.n_routes = 1;
}

static void lighthouse(struct world *w, const char *url)
{
	w->map.lighthouse[0].url = (char *)url;
	w->map.self.n_lighthouses = 1;
}

#define LIE(name, body)                 \
	static void name(struct world *w) \
	{                                 \
		body;                     \
	}

LIE(other_cluster, w->map.self.cluster_id++)
LIE(no_cluster, w->map.self.cluster_id = 0)
LIE(other_tailnet, w->map.self.tailnet_id++)
LIE(other_node, w->map.self.node_id = 77)
LIE(other_self_key, w->map.node_key[0] ^= 1)
LIE(lower_revision, (w->consent.epoch = FAKE_EPOCH, w->consent.revision = 101))
LIE(tailnet_prefix_private, put(2, "10.0.0.0"); w->map.prefix[0].address = datas[2]; w->map.prefix[0].length = 8)
LIE(tailnet_prefix_wider, put(2, "100.0.0.0"); w->map.prefix[0].address = datas[2]; w->map.prefix[0].length = 8)
LIE(tailnet_prefix_all, put(2, "0.0.0.0"); w->map.prefix[0].address = datas[2]; w->map.prefix[0].length = 0)
LIE(tailnet_prefix_bits, w->map.prefix[0].length = 4000)
LIE(own_public_address, w->map.self.addresses = put(2, "8.8.8.8"); w->map.self.n_addresses = 1)
LIE(own_service_address, w->map.self.addresses = put(2, "100.100.100.100"); w->map.self.n_addresses = 1)
LIE(peer_id_zero_big, w->map.peer[0].node_id = 1ull << 60)
LIE(peer_is_me, w->map.peer[0].node_id = 1)
LIE(peer_key_short, w->map.peer[0].node_key.len = 31)
LIE(peer_key_zero, memset(w->map.peer_key[0], 0, 32))
LIE(own_key_as_peer, memcpy(w->map.peer_key[0], own_key, 32))
LIE(key_twice, memcpy(w->map.peer_key[1], w->map.peer_key[0], 32))
LIE(peer_address_public, peer_address(w, "8.8.8.8"))
LIE(peer_address_private, peer_address(w, "192.168.7.1"))
LIE(peer_address_service, peer_address(w, "100.100.100.100"))
LIE(peer_address_service6, peer_address(w, "fd7a:115c:a1e0::53"))
LIE(peer_address_other_ula, peer_address(w, "fd00::1"))
LIE(peer_address_mine, peer_address(w, "100.64.0.1"))
LIE(peer_address_others, peer_address(w, "100.64.0.3"))
LIE(peer_name_bad, w->map.peer[0].given_name = (char *)"UPPER case")
LIE(peer_name_wpad, w->map.peer[0].given_name = (char *)"wpad")
LIE(peer_name_localhost, w->map.peer[0].given_name = (char *)"localhost")
LIE(peer_name_mine, w->map.peer[0].given_name = (char *)"device")
LIE(peer_name_others, w->map.peer[1].given_name = w->map.peer[0].given_name)
LIE(endpoint_no_port, endpoint(w, "192.0.2.1", 0))
LIE(endpoint_big_port, endpoint(w, "192.0.2.1", 70000))
LIE(endpoint_loopback, endpoint(w, "127.0.0.1", 53))
LIE(endpoint_any, endpoint(w, "0.0.0.0", 53))
LIE(endpoint_multicast, endpoint(w, "224.0.0.1", 53))
LIE(endpoint_broadcast, endpoint(w, "255.255.255.255", 53))
LIE(endpoint_inside, endpoint(w, "100.64.0.9", 41641))
LIE(endpoint_mapped_loopback, endpoint(w, "::ffff:127.0.0.1", 53))
LIE(endpoint_odd, endpoint(w, "192.0.2.1", 1); lie_endpoint.address.len = 3)
LIE(endpoints_many, for (int i = 0; i < 200; i++) lie_endpoints[i] = &w->map.endpoint[0];
    w->map.peer[0].endpoints = lie_endpoints; w->map.peer[0].n_endpoints = 200)
LIE(route_off, w->consent.accept_routes = false; fake_map_route(&w->map, 2, "10.1.0.0/16"))
LIE(route_nobody, fake_map_route(&w->map, 99, "10.1.0.0/16"))
LIE(route_bits, fake_map_route(&w->map, 2, "10.1.0.0/16"); w->map.route_prefix[0].length = 8;)
LIE(route_length, fake_map_route(&w->map, 2, "10.1.0.0/16"); w->map.route_prefix[0].length = 333)
LIE(route_default, fake_map_route(&w->map, 2, "0.0.0.0/0"))
LIE(route_default6, fake_map_route(&w->map, 2, "::/0"))
LIE(route_half, fake_map_route(&w->map, 2, "0.0.0.0/1"))
LIE(route_global6, fake_map_route(&w->map, 2, "2000::/3"))
LIE(route_loopback, fake_map_route(&w->map, 2, "127.0.0.0/8"))
LIE(route_link_local, fake_map_route(&w->map, 2, "169.254.0.0/16"))
LIE(route_multicast, fake_map_route(&w->map, 2, "224.0.0.0/8"))
LIE(route_link_local6, fake_map_route(&w->map, 2, "fe80::/64"))
LIE(route_tailnet, fake_map_route(&w->map, 2, "100.64.0.0/16"))
LIE(route_service, fake_map_route(&w->map, 2, "100.100.100.100/32"))
LIE(route_connected, fake_map_route(&w->map, 2, "192.168.0.0/16"))
LIE(route_connected_part, fake_map_route(&w->map, 2, "192.168.7.128/25"))
LIE(route_gateway, fake_map_route(&w->map, 2, "10.9.9.0/24"))
LIE(route_lighthouse, fake_map_route(&w->map, 2, "10.8.8.8/32"))
LIE(route_resolver, fake_map_route(&w->map, 2, "10.7.0.0/16"))
LIE(route_relay, fake_map_route(&w->map, 2, "10.6.0.0/16"))
LIE(route_twice, fake_map_route(&w->map, 2, "10.1.0.0/16"); fake_map_route(&w->map, 3, "10.1.0.0/16"))
LIE(url_plain, lighthouse(w, "http://192.0.2.1:80"))
LIE(url_path, lighthouse(w, "https://192.0.2.1:8443/x"))
LIE(url_inside, lighthouse(w, "https://100.64.0.7:8443"))
LIE(url_in_domain, lighthouse(w, "https://evil.home.internal:8443"))
LIE(domain_single, w->map.dns.base_domain = (char *)"internal")
LIE(domain_bad, w->map.dns.base_domain = (char *)"a..b")
LIE(domain_wpad, w->map.dns.base_domain = (char *)"wpad.example")
LIE(domain_of_lighthouse, w->map.dns.base_domain = (char *)"example.org")
LIE(record_outside, dns_record(w, "www.bank.example", "A", "192.0.2.1"))
LIE(record_wpad, dns_record(w, "wpad.home.internal", "A", "192.0.2.1"))
LIE(record_service, dns_record(w, "_x._tcp.home.internal", "A", "192.0.2.1"))
LIE(record_family, dns_record(w, "a.home.internal", "AAAA", "192.0.2.1"))
LIE(record_type, dns_record(w, "a.home.internal", "MX", "192.0.2.1"))
LIE(record_loopback, dns_record(w, "a.home.internal", "A", "127.0.0.1"))
LIE(split_root, split(w, ".", "192.0.2.53"))
LIE(split_empty, split(w, "", "192.0.2.53"))
LIE(split_single, split(w, "com", "192.0.2.53"))
LIE(split_lighthouse, split(w, "example.org", "192.0.2.53"))
LIE(split_no_resolver, split(w, "corp.example", NULL))
LIE(split_wpad, split(w, "wpad.corp.example", "192.0.2.53"))
LIE(resolver_loopback, split(w, "corp.example", "127.0.0.1"))
LIE(resolver_text, split(w, "corp.example", "resolver"))
LIE(take_over, resolvers[0] = (char *)"192.0.2.53"; w->map.dns.resolvers = resolvers; w->map.dns.n_resolvers = 1)

static const struct lie {
	const char *name;
	void (*tell)(struct world *w);
	enum refuse_kind kind;
	size_t peers; /* that are left */
} lies[] = {
#define L(name, kind, peers) {#name, name, kind, peers}
	L(other_cluster, REFUSE_CLUSTER, 0), L(no_cluster, REFUSE_CLUSTER, 0), L(other_tailnet, REFUSE_TAILNET, 0),
	L(other_node, REFUSE_NODE, 0), L(other_self_key, REFUSE_SELF_KEY, 0), L(lower_revision, REFUSE_REVISION, 0),
	L(tailnet_prefix_private, REFUSE_PREFIX, 4), L(tailnet_prefix_wider, REFUSE_PREFIX, 4),
	L(tailnet_prefix_all, REFUSE_PREFIX, 4), L(tailnet_prefix_bits, REFUSE_PREFIX, 4),
	L(own_public_address, REFUSE_OWN_ADDRESS, 4), L(own_service_address, REFUSE_OWN_ADDRESS, 4),
	L(peer_id_zero_big, REFUSE_PEER_ID, 3), L(peer_is_me, REFUSE_PEER_ID, 3), L(peer_key_short, REFUSE_PEER_KEY, 3),
	L(peer_key_zero, REFUSE_PEER_KEY, 3), L(own_key_as_peer, REFUSE_OWN_KEY, 3), L(key_twice, REFUSE_KEY_TWICE, 3),
	L(peer_address_public, REFUSE_PEER_ADDRESS, 4), L(peer_address_private, REFUSE_PEER_ADDRESS, 4),
	L(peer_address_service, REFUSE_PEER_ADDRESS, 4), L(peer_address_service6, REFUSE_PEER_ADDRESS, 4),
	L(peer_address_other_ula, REFUSE_PEER_ADDRESS, 4), L(peer_address_mine, REFUSE_ADDRESS_TWICE, 4),
	L(peer_address_others, REFUSE_ADDRESS_TWICE, 4), L(peer_name_bad, REFUSE_PEER_NAME, 4),
	L(peer_name_wpad, REFUSE_PEER_NAME, 4), L(peer_name_localhost, REFUSE_PEER_NAME, 4),
	L(peer_name_mine, REFUSE_NAME_TWICE, 4), L(peer_name_others, REFUSE_NAME_TWICE, 4),
	L(endpoint_no_port, REFUSE_ENDPOINT, 4), L(endpoint_big_port, REFUSE_ENDPOINT, 4),
	L(endpoint_loopback, REFUSE_ENDPOINT, 4), L(endpoint_any, REFUSE_ENDPOINT, 4),
	L(endpoint_multicast, REFUSE_ENDPOINT, 4), L(endpoint_broadcast, REFUSE_ENDPOINT, 4),
	L(endpoint_inside, REFUSE_ENDPOINT, 4), L(endpoint_mapped_loopback, REFUSE_ENDPOINT, 4),
	L(endpoint_odd, REFUSE_ENDPOINT, 4), L(endpoints_many, REFUSE_LIMIT, 4), L(route_off, REFUSE_ROUTE_OFF, 4),
	L(route_nobody, REFUSE_ROUTE_PEER, 4), L(route_bits, REFUSE_ROUTE_FORM, 4), L(route_length, REFUSE_ROUTE_FORM, 4),
	L(route_default, REFUSE_DEFAULT_ROUTE, 4), L(route_default6, REFUSE_DEFAULT_ROUTE, 4),
	L(route_half, REFUSE_DEFAULT_ROUTE, 4), L(route_global6, REFUSE_DEFAULT_ROUTE, 4),
	L(route_loopback, REFUSE_ROUTE_SPECIAL, 4), L(route_link_local, REFUSE_ROUTE_SPECIAL, 4),
	L(route_multicast, REFUSE_ROUTE_SPECIAL, 4), L(route_link_local6, REFUSE_ROUTE_SPECIAL, 4),
	L(route_tailnet, REFUSE_ROUTE_TAILNET, 4), L(route_service, REFUSE_ROUTE_TAILNET, 4),
	L(route_connected, REFUSE_ROUTE_CONNECTED, 4), L(route_connected_part, REFUSE_ROUTE_CONNECTED, 4),
	L(route_gateway, REFUSE_ROUTE_GATEWAY, 4), L(route_lighthouse, REFUSE_ROUTE_IN_USE, 4),
	L(route_resolver, REFUSE_ROUTE_IN_USE, 4), L(route_relay, REFUSE_ROUTE_IN_USE, 4),
	L(route_twice, REFUSE_ROUTE_TWICE, 4), L(url_plain, REFUSE_LIGHTHOUSE_URL, 4), L(url_path, REFUSE_LIGHTHOUSE_URL, 4),
	L(url_inside, REFUSE_LIGHTHOUSE_URL, 4), L(url_in_domain, REFUSE_LIGHTHOUSE_NAME, 4),
	L(domain_single, REFUSE_DNS_DOMAIN, 4), L(domain_bad, REFUSE_DNS_DOMAIN, 4), L(domain_wpad, REFUSE_DNS_LABEL, 4),
	L(domain_of_lighthouse, REFUSE_LIGHTHOUSE_NAME, 4), L(record_outside, REFUSE_DNS_ZONE, 4),
	L(record_wpad, REFUSE_DNS_LABEL, 4), L(record_service, REFUSE_DNS_LABEL, 4), L(record_family, REFUSE_DNS_RECORD, 4),
	L(record_type, REFUSE_DNS_RECORD, 4), L(record_loopback, REFUSE_DNS_RECORD, 4),
	L(split_root, REFUSE_DNS_ROUTE_WIDE, 4), L(split_empty, REFUSE_DNS_ROUTE_WIDE, 4),
	L(split_single, REFUSE_DNS_ROUTE_WIDE, 4), L(split_lighthouse, REFUSE_LIGHTHOUSE_NAME, 4),
	L(split_no_resolver, REFUSE_DNS_ROUTE, 4), L(split_wpad, REFUSE_DNS_LABEL, 4),
	L(resolver_loopback, REFUSE_DNS_RESOLVER, 4), L(resolver_text, REFUSE_DNS_RESOLVER, 4),
	L(take_over, REFUSE_DNS_TAKE_OVER, 4),
};

static void each_lie_is_refused_and_named(void **state)
{
	(void)state;
	TEST_TABLE(lie, lies)
	{
		struct world w;
		bool ok;

		begin(&w);
		lie->tell(&w);
		ok = judge(&w);
		if (w.refusals.count[lie->kind] == 0 || w.refusals.n_lines == 0 || ok != (lie->kind > REFUSE_FATAL_LAST) ||
		    w.out.n_peers != lie->peers) {
			TEST_FAIL("%s: %d refusals of kind %s, ok %d, %zu peers, first line: %s", lie->name,
				  (int)w.refusals.count[lie->kind], refuse_word(lie->kind), ok, w.out.n_peers,
				  w.refusals.n_lines > 0 ? w.refusals.lines[0].text : "none");
		}
		assert_true(w.refusals.lines[0].text[0] != '\0');
		/* Whatever is told: no address outside the tailnet at a peer but the one good route. */
		assert_false(allows(&w, "0.0.0.0/0"));
		assert_int_equal(w.out.n_routes, lie->tell == route_twice ? 1 : 0);
		assert_int_equal(w.out.n_records, 0);
		assert_int_equal(w.out.n_dns_routes, 0);
		assert_int_equal(w.out.n_resolvers, 0);
		assert_int_equal(w.out.n_lighthouses, 0);
		end(&w);
	}
}

/* The prefixes are those of the enrolment, whatever comes later. */
static void prefixes_do_not_change(void **state)
{
	struct prefix enrolled[] = {prefix("100.64.0.0/16")};
	struct world w;

	(void)state;
	begin(&w);
	w.consent.prefixes = enrolled;
	w.consent.n_prefixes = 1;
	peer_address(&w, "100.99.0.1");
	assert_true(judge(&w));
	assert_true(w.refusals.count[REFUSE_PREFIX_CHANGED] > 0);
	assert_true(w.refusals.count[REFUSE_PEER_ADDRESS] > 0);
	assert_int_equal(w.out.n_prefixes, 1);
	assert_false(allows(&w, "100.99.0.1/32"));
	end(&w);
}

/* Many routes that are each small enough are refused together. */
static void parts_of_a_default_route(void **state)
{
	static Skerry__V1__PeerRoute route[256];
	static Skerry__V1__PeerRoute *routes[256];
	static Skerry__V1__Prefix prefixes[256];
	static uint8_t addresses[256][4];
	struct world w;
	size_t n = 0;

	(void)state;
	begin(&w);
	for (unsigned i = 11; i < 200; i++) {
		if (i == 100 || i == 127 || i == 169 || i == 192) {
			continue;
		}
		skerry__v1__peer_route__init(&route[n]);
		skerry__v1__prefix__init(&prefixes[n]);
		addresses[n][0] = (uint8_t)i;
		prefixes[n].address = (ProtobufCBinaryData){4, addresses[n]};
		prefixes[n].length = 8;
		route[n].node_id = 2 + n % 4;
		route[n].prefix = &prefixes[n];
		routes[n] = &route[n];
		n++;
	}
	w.map.view.routes = routes;
	w.map.view.n_routes = n;
	assert_true(judge(&w));
	assert_int_equal(w.out.n_routes, 0);
	assert_int_equal(w.refusals.count[REFUSE_DEFAULT_ROUTE], n);
	end(&w);

	/* A few of them are a company's networks. */
	begin(&w);
	w.map.view.routes = routes;
	w.map.view.n_routes = 3;
	assert_true(judge(&w));
	assert_int_equal(w.out.n_routes, 3);
	end(&w);
}

static void chosen_exit_node(void **state)
{
	struct world w;

	(void)state;
	begin(&w);
	w.consent.exit_node = 3;
	fake_map_route(&w.map, 3, "0.0.0.0/0");
	fake_map_route(&w.map, 2, "::/0");
	assert_true(judge(&w));
	assert_true(allows(&w, "0.0.0.0/0"));
	assert_false(allows(&w, "::/0"));
	end(&w);
}

static void local_settings_open_what_they_say(void **state)
{
	struct world w;

	(void)state;
	begin(&w);
	w.consent.dns = ACCEPT_DNS_HOST;
	take_over(&w);
	assert_true(judge(&w));
	assert_int_equal(w.out.n_resolvers, 1);
	end(&w);

	begin(&w);
	w.consent.dns = ACCEPT_DNS_ALL;
	split(&w, "com", "192.0.2.53");
	assert_true(judge(&w));
	assert_int_equal(w.out.n_dns_routes, 1);
	end(&w);

	begin(&w);
	w.consent.dns = ACCEPT_DNS_OFF;
	dns_record(&w, "a.home.internal", "A", "192.0.2.1");
	assert_true(judge(&w));
	assert_int_equal(w.out.n_records, 0);
	assert_int_equal(all(&w), 0);
	end(&w);

	begin(&w);
	w.consent.allow_loopback = true;
	endpoint(&w, "127.0.0.1", 41641);
	assert_true(judge(&w));
	assert_int_equal(w.out.peers[0].n_endpoints, 1);
	end(&w);

	begin(&w);
	split(&w, "corp.example", "192.0.2.53:5353");
	dns_record(&w, "printer.home.internal", "A", "192.168.7.20");
	assert_true(judge(&w));
	assert_int_equal(w.out.n_dns_routes, 1);
	assert_int_equal(w.out.dns_routes[0].resolvers[0].port, 5353);
	assert_int_equal(w.out.n_records, 1);
	end(&w);
}

/* Nothing grows without bound, and the lines have their own limit. */
static void lines_are_bounded(void **state)
{
	struct world w;

	(void)state;
	begin(&w);
	for (int i = 0; i < 200; i++) {
		lie_endpoints[i] = &lie_endpoint;
	}
	skerry__v1__endpoint__init(&lie_endpoint);
	lie_endpoint.address = *put(1, "127.0.0.1");
	lie_endpoint.port = 1;
	for (int i = 0; i < 4; i++) {
		w.map.peer[i].endpoints = lie_endpoints;
		w.map.peer[i].n_endpoints = 200;
	}
	assert_true(judge(&w));
	assert_int_equal(w.refusals.count[REFUSE_ENDPOINT], 4 * LIM_PEER_ENDPOINTS);
	assert_true(w.refusals.n_lines <= ADMIT_LINES);
	assert_int_equal(w.out.n_peers, 4);
	assert_true(knows_peer(&w, 5));
	end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_good_netmap_passes_whole),	   cmocka_unit_test(each_lie_is_refused_and_named),
		cmocka_unit_test(prefixes_do_not_change),	   cmocka_unit_test(parts_of_a_default_route),
		cmocka_unit_test(chosen_exit_node),		   cmocka_unit_test(local_settings_open_what_they_say),
		cmocka_unit_test(lines_are_bounded),
	};

	crypto_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
