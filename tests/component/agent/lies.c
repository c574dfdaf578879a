#include "tests/component/agent/lies.h"

#include <string.h>

#include "base/prefix.h"

static void must_addr(const char *text, struct ipaddr *ret)
{
	if (ipaddr_parse(text, ret, NULL) < 0) {
		IMPOSSIBLE("an address of the table of lies is none");
	}
}

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
	struct ipaddr a;

	must_addr(text, &a);
	memcpy(bytes[i], a.b, 16);
	datas[i] = (ProtobufCBinaryData){ipaddr_len(&a), bytes[i]};
	return &datas[i];
}

static void peer_address(struct fake_map *m, const char *text)
{
	m->peer[0].addresses = put(0, text);
	m->peer[0].n_addresses = 1;
}

static void endpoint(struct fake_map *m, const char *text, uint32_t port)
{
	skerry__v1__endpoint__init(&lie_endpoint);
	lie_endpoint.address = *put(1, text);
	lie_endpoint.port = port;
	lie_endpoints[0] = &lie_endpoint;
	m->peer[0].endpoints = lie_endpoints;
	m->peer[0].n_endpoints = 1;
}

static void dns_record(struct fake_map *m, const char *name, const char *type, const char *value)
{
	skerry__v1__dns_record__init(&record);
	record.name = (char *)name;
	record.type = (char *)type;
	record.value = (char *)value;
	records[0] = &record;
	m->dns.records = records;
	m->dns.n_records = 1;
}

static void split(struct fake_map *m, const char *domain, const char *resolver)
{
	skerry__v1__dns_route__init(&dns_route);
	dns_route.domain = (char *)domain;
	resolvers[0] = (char *)resolver;
	dns_route.resolvers = resolvers;
	dns_route.n_resolvers = resolver != NULL;
	dns_routes[0] = &dns_route;
	m->dns.routes = dns_routes;
	m->dns.n_routes = 1;
}

static void lighthouse(struct fake_map *m, const char *url)
{
	m->lighthouse[0].url = (char *)url;
	m->self.n_lighthouses = 1;
}

#define LIE(name, body)                      \
	static void name(struct fake_map *m) \
	{                                    \
		body;                        \
	}

LIE(other_cluster, m->self.cluster_id++)
LIE(no_cluster, m->self.cluster_id = 0)
LIE(other_tailnet, m->self.tailnet_id++)
LIE(other_node, m->self.node_id = 77)
LIE(other_self_key, m->node_key[0] ^= 1)
LIE(tailnet_prefix_private, put(2, "10.0.0.0"); m->prefix[0].address = datas[2];
    m->prefix[0].length = 8)
LIE(tailnet_prefix_wider, put(2, "100.0.0.0"); m->prefix[0].address = datas[2];
    m->prefix[0].length = 8)
LIE(tailnet_prefix_all, put(2, "0.0.0.0"); m->prefix[0].address = datas[2]; m->prefix[0].length = 0)
LIE(tailnet_prefix_bits, m->prefix[0].length = 4000)
LIE(own_public_address, m->self.addresses = put(2, "8.8.8.8"); m->self.n_addresses = 1)
LIE(own_service_address, m->self.addresses = put(2, "100.100.100.100"); m->self.n_addresses = 1)
LIE(peer_id_zero_big, m->peer[0].node_id = 1ull << 60)
LIE(peer_is_me, m->peer[0].node_id = 1)
LIE(peer_key_short, m->peer[0].node_key.len = 31)
LIE(peer_key_zero, memset(m->peer_key[0], 0, 32))
LIE(own_key_as_peer, memcpy(m->peer_key[0], m->node_key, 32))
LIE(key_twice, memcpy(m->peer_key[1], m->peer_key[0], 32))
LIE(peer_address_public, peer_address(m, "8.8.8.8"))
LIE(peer_address_private, peer_address(m, "192.168.7.1"))
LIE(peer_address_service, peer_address(m, "100.100.100.100"))
LIE(peer_address_service6, peer_address(m, "fd7a:115c:a1e0::53"))
LIE(peer_address_other_ula, peer_address(m, "fd00::1"))
LIE(peer_address_mine, peer_address(m, "100.64.0.1"))
LIE(peer_address_others, peer_address(m, "100.64.0.3"))
LIE(peer_name_bad, m->peer[0].given_name = (char *)"UPPER case")
LIE(peer_name_wpad, m->peer[0].given_name = (char *)"wpad")
LIE(peer_name_localhost, m->peer[0].given_name = (char *)"localhost")
LIE(peer_name_mine, m->peer[0].given_name = (char *)"device")
LIE(peer_name_others, m->peer[1].given_name = m->peer[0].given_name)
LIE(endpoint_no_port, endpoint(m, "192.0.2.1", 0))
LIE(endpoint_big_port, endpoint(m, "192.0.2.1", 70000))
LIE(endpoint_loopback, endpoint(m, "127.0.0.1", 53))
LIE(endpoint_any, endpoint(m, "0.0.0.0", 53))
LIE(endpoint_multicast, endpoint(m, "224.0.0.1", 53))
LIE(endpoint_broadcast, endpoint(m, "255.255.255.255", 53))
LIE(endpoint_inside, endpoint(m, "100.64.0.9", 41641))
LIE(endpoint_mapped_loopback, endpoint(m, "::ffff:127.0.0.1", 53))
LIE(endpoint_odd, endpoint(m, "192.0.2.1", 1); lie_endpoint.address.len = 3)
LIE(endpoints_many, for (int i = 0; i < 200; i++) lie_endpoints[i] = &m->endpoint[0];
    m->peer[0].endpoints = lie_endpoints; m->peer[0].n_endpoints = 200)
LIE(route_nobody, fake_map_route(m, 99, "10.1.0.0/16"))
LIE(route_bits, fake_map_route(m, 2, "10.1.0.0/16"); m->route_prefix[0].length = 8;)
LIE(route_length, fake_map_route(m, 2, "10.1.0.0/16"); m->route_prefix[0].length = 333)
LIE(route_default, fake_map_route(m, 2, "0.0.0.0/0"))
LIE(route_default6, fake_map_route(m, 2, "::/0"))
LIE(route_half, fake_map_route(m, 2, "0.0.0.0/1"))
LIE(route_global6, fake_map_route(m, 2, "2000::/3"))
LIE(route_loopback, fake_map_route(m, 2, "127.0.0.0/8"))
LIE(route_link_local, fake_map_route(m, 2, "169.254.0.0/16"))
LIE(route_multicast, fake_map_route(m, 2, "224.0.0.0/8"))
LIE(route_link_local6, fake_map_route(m, 2, "fe80::/64"))
LIE(route_tailnet, fake_map_route(m, 2, "100.64.0.0/16"))
LIE(route_service, fake_map_route(m, 2, "100.100.100.100/32"))
LIE(route_connected, fake_map_route(m, 2, "192.168.0.0/16"))
LIE(route_connected_part, fake_map_route(m, 2, "192.168.7.128/25"))
LIE(route_gateway, fake_map_route(m, 2, "10.9.9.0/24"))
LIE(route_lighthouse, fake_map_route(m, 2, "10.8.8.8/32"))
LIE(route_resolver, fake_map_route(m, 2, "10.7.0.0/16"))
LIE(route_relay, fake_map_route(m, 2, "10.6.0.0/16"))
LIE(route_twice, fake_map_route(m, 2, "10.1.0.0/16"); fake_map_route(m, 3, "10.1.0.0/16"))
LIE(url_plain, lighthouse(m, "http://192.0.2.1:80"))
LIE(url_path, lighthouse(m, "https://192.0.2.1:8443/x"))
LIE(url_inside, lighthouse(m, "https://100.64.0.7:8443"))
LIE(url_in_domain, lighthouse(m, "https://evil.home.internal:8443"))
LIE(domain_single, m->dns.base_domain = (char *)"internal")
LIE(domain_bad, m->dns.base_domain = (char *)"a..b")
LIE(domain_wpad, m->dns.base_domain = (char *)"wpad.example")
LIE(domain_of_lighthouse, m->dns.base_domain = (char *)"example.org")
LIE(record_outside, dns_record(m, "www.bank.example", "A", "192.0.2.1"))
LIE(record_wpad, dns_record(m, "wpad.home.internal", "A", "192.0.2.1"))
LIE(record_service, dns_record(m, "_x._tcp.home.internal", "A", "192.0.2.1"))
LIE(record_family, dns_record(m, "a.home.internal", "AAAA", "192.0.2.1"))
LIE(record_type, dns_record(m, "a.home.internal", "MX", "192.0.2.1"))
LIE(record_loopback, dns_record(m, "a.home.internal", "A", "127.0.0.1"))
LIE(split_root, split(m, ".", "192.0.2.53"))
LIE(split_empty, split(m, "", "192.0.2.53"))
LIE(split_single, split(m, "com", "192.0.2.53"))
LIE(split_lighthouse, split(m, "example.org", "192.0.2.53"))
LIE(split_no_resolver, split(m, "corp.example", NULL))
LIE(split_wpad, split(m, "wpad.corp.example", "192.0.2.53"))
LIE(resolver_loopback, split(m, "corp.example", "127.0.0.1"))
LIE(resolver_text, split(m, "corp.example", "resolver"))
LIE(take_over, resolvers[0] = (char *)"192.0.2.53"; m->dns.resolvers = resolvers;
    m->dns.n_resolvers = 1)

const struct lie lies[] = {
#define L(name, kind, peers)             \
	{                                \
#name, name, kind, peers \
	}
	L(other_cluster, REFUSE_CLUSTER, 0),
	L(no_cluster, REFUSE_CLUSTER, 0),
	L(other_tailnet, REFUSE_TAILNET, 0),
	L(other_node, REFUSE_NODE, 0),
	L(other_self_key, REFUSE_SELF_KEY, 0),
	L(tailnet_prefix_private, REFUSE_PREFIX, 4),
	L(tailnet_prefix_wider, REFUSE_PREFIX, 4),
	L(tailnet_prefix_all, REFUSE_PREFIX, 4),
	L(tailnet_prefix_bits, REFUSE_PREFIX, 4),
	L(own_public_address, REFUSE_OWN_ADDRESS, 4),
	L(own_service_address, REFUSE_OWN_ADDRESS, 4),
	L(peer_id_zero_big, REFUSE_PEER_ID, 3),
	L(peer_is_me, REFUSE_PEER_ID, 3),
	L(peer_key_short, REFUSE_PEER_KEY, 3),
	L(peer_key_zero, REFUSE_PEER_KEY, 3),
	L(own_key_as_peer, REFUSE_OWN_KEY, 3),
	L(key_twice, REFUSE_KEY_TWICE, 3),
	L(peer_address_public, REFUSE_PEER_ADDRESS, 4),
	L(peer_address_private, REFUSE_PEER_ADDRESS, 4),
	L(peer_address_service, REFUSE_PEER_ADDRESS, 4),
	L(peer_address_service6, REFUSE_PEER_ADDRESS, 4),
	L(peer_address_other_ula, REFUSE_PEER_ADDRESS, 4),
	L(peer_address_mine, REFUSE_ADDRESS_TWICE, 4),
	L(peer_address_others, REFUSE_ADDRESS_TWICE, 4),
	L(peer_name_bad, REFUSE_PEER_NAME, 4),
	L(peer_name_wpad, REFUSE_PEER_NAME, 4),
	L(peer_name_localhost, REFUSE_PEER_NAME, 4),
	L(peer_name_mine, REFUSE_NAME_TWICE, 4),
	L(peer_name_others, REFUSE_NAME_TWICE, 4),
	L(endpoint_no_port, REFUSE_ENDPOINT, 4),
	L(endpoint_big_port, REFUSE_ENDPOINT, 4),
	L(endpoint_loopback, REFUSE_ENDPOINT, 4),
	L(endpoint_any, REFUSE_ENDPOINT, 4),
	L(endpoint_multicast, REFUSE_ENDPOINT, 4),
	L(endpoint_broadcast, REFUSE_ENDPOINT, 4),
	L(endpoint_inside, REFUSE_ENDPOINT, 4),
	L(endpoint_mapped_loopback, REFUSE_ENDPOINT, 4),
	L(endpoint_odd, REFUSE_ENDPOINT, 4),
	L(endpoints_many, REFUSE_LIMIT, 4),
	L(route_nobody, REFUSE_ROUTE_PEER, 4),
	L(route_bits, REFUSE_ROUTE_FORM, 4),
	L(route_length, REFUSE_ROUTE_FORM, 4),
	L(route_default, REFUSE_DEFAULT_ROUTE, 4),
	L(route_default6, REFUSE_DEFAULT_ROUTE, 4),
	L(route_half, REFUSE_DEFAULT_ROUTE, 4),
	L(route_global6, REFUSE_DEFAULT_ROUTE, 4),
	L(route_loopback, REFUSE_ROUTE_SPECIAL, 4),
	L(route_link_local, REFUSE_ROUTE_SPECIAL, 4),
	L(route_multicast, REFUSE_ROUTE_SPECIAL, 4),
	L(route_link_local6, REFUSE_ROUTE_SPECIAL, 4),
	L(route_tailnet, REFUSE_ROUTE_TAILNET, 4),
	L(route_service, REFUSE_ROUTE_TAILNET, 4),
	L(route_connected, REFUSE_ROUTE_CONNECTED, 4),
	L(route_connected_part, REFUSE_ROUTE_CONNECTED, 4),
	L(route_gateway, REFUSE_ROUTE_GATEWAY, 4),
	L(route_lighthouse, REFUSE_ROUTE_IN_USE, 4),
	L(route_resolver, REFUSE_ROUTE_IN_USE, 4),
	L(route_relay, REFUSE_ROUTE_IN_USE, 4),
	L(route_twice, REFUSE_ROUTE_TWICE, 4),
	L(url_plain, REFUSE_LIGHTHOUSE_URL, 4),
	L(url_path, REFUSE_LIGHTHOUSE_URL, 4),
	L(url_inside, REFUSE_LIGHTHOUSE_URL, 4),
	L(url_in_domain, REFUSE_LIGHTHOUSE_NAME, 4),
	L(domain_single, REFUSE_DNS_DOMAIN, 4),
	L(domain_bad, REFUSE_DNS_DOMAIN, 4),
	L(domain_wpad, REFUSE_DNS_LABEL, 4),
	L(domain_of_lighthouse, REFUSE_LIGHTHOUSE_NAME, 4),
	L(record_outside, REFUSE_DNS_ZONE, 4),
	L(record_wpad, REFUSE_DNS_LABEL, 4),
	L(record_service, REFUSE_DNS_LABEL, 4),
	L(record_family, REFUSE_DNS_RECORD, 4),
	L(record_type, REFUSE_DNS_RECORD, 4),
	L(record_loopback, REFUSE_DNS_RECORD, 4),
	L(split_root, REFUSE_DNS_ROUTE_WIDE, 4),
	L(split_empty, REFUSE_DNS_ROUTE_WIDE, 4),
	L(split_single, REFUSE_DNS_ROUTE_WIDE, 4),
	L(split_lighthouse, REFUSE_LIGHTHOUSE_NAME, 4),
	L(split_no_resolver, REFUSE_DNS_ROUTE, 4),
	L(split_wpad, REFUSE_DNS_LABEL, 4),
	L(resolver_loopback, REFUSE_DNS_RESOLVER, 4),
	L(resolver_text, REFUSE_DNS_RESOLVER, 4),
	L(take_over, REFUSE_DNS_TAKE_OVER, 4),
};
const size_t n_lies = ARRAY_LEN(lies);
