/* What an agent refuses: a good netmap passes whole, and each thing that is wrong with one is refused by its own kind while
 * the rest of the netmap stays. LIBS: agent_fake agent */
#include "tests/lib/test.h"

#include "agent/admit.h"
#include "base/crypto.h"
#include "base/mem.h"
#include "tests/component/agent/fake_lighthouse.h"
#include "tests/component/agent/lies.h"

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
		.cluster_id = FAKE_CLUSTER,
		.tailnet_id = 3,
		.node_id = 1,
		.dns = ACCEPT_DNS_SERVE,
		.accept_routes = true,
		.connected = w->connected,
		.n_connected = 1,
		.in_use = w->in_use,
		.n_in_use = 4,
		.lighthouse_hosts = w->hosts,
		.n_lighthouse_hosts = 1,
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

static char *resolvers[1];

static void each_lie_is_refused_and_named(void **state)
{
	(void)state;
	for (const struct lie *lie = lies; lie < lies + n_lies; lie++) {
		struct world w;
		bool ok;

		begin(&w);
		lie->tell(&w.map);
		ok = judge(&w);
		if (w.refusals.count[lie->kind] == 0 || w.refusals.n_lines == 0 ||
		    ok != (lie->kind > REFUSE_FATAL_LAST) || w.out.n_peers != lie->peers) {
			TEST_FAIL("%s: %d refusals of kind %s, ok %d, %zu peers, first line: %s",
				  lie->name, (int)w.refusals.count[lie->kind],
				  refuse_word(lie->kind), ok, w.out.n_peers,
				  w.refusals.n_lines > 0 ? w.refusals.lines[0].text : "none");
		}
		assert_true(w.refusals.lines[0].text[0] != '\0');
		/* Whatever is told: no address outside the tailnet at a peer but the one good route. */
		assert_false(allows(&w, "0.0.0.0/0"));
		assert_int_equal(w.out.n_routes, strcmp(lie->name, "route_twice") == 0 ? 1 : 0);
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
	for (size_t i = 0; i < 4; i++) {
		w.map.peer_addr[i][0][1] = 99;
	}
	assert_true(judge(&w));
	assert_true(w.refusals.count[REFUSE_PREFIX_CHANGED] > 0);
	assert_true(w.refusals.count[REFUSE_PEER_ADDRESS] > 0);
	assert_int_equal(w.out.n_prefixes, 1);
	assert_false(allows(&w, "100.99.0.2/32"));
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

static void what_this_device_decides(void **state)
{
	struct world w;

	(void)state;
	begin(&w);
	w.consent.accept_routes = false;
	fake_map_route(&w.map, 2, "10.1.0.0/16");
	assert_true(judge(&w));
	assert_int_equal(w.refusals.count[REFUSE_ROUTE_OFF], 1);
	assert_int_equal(w.out.n_routes, 0);
	end(&w);

	begin(&w);
	w.consent.epoch = FAKE_EPOCH;
	w.consent.revision = 101;
	assert_false(judge(&w));
	assert_int_equal(w.refusals.count[REFUSE_REVISION], 1);
	end(&w);
	/* Revisions of another epoch cannot be compared. */
	begin(&w);
	w.consent.epoch = FAKE_EPOCH + 1;
	w.consent.revision = 101;
	assert_true(judge(&w));
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

static const struct lie *find_lie(const char *name)
{
	for (size_t i = 0; i < n_lies; i++) {
		if (strcmp(lies[i].name, name) == 0) {
			return &lies[i];
		}
	}
	TEST_FAIL("no lie is called %s", name);
	return NULL;
}

static void local_settings_open_what_they_say(void **state)
{
	Skerry__V1__DnsRoute route, *routes = &route;
	Skerry__V1__DnsRecord record, *records = &record;
	struct world w;

	(void)state;
	begin(&w);
	w.consent.dns = ACCEPT_DNS_HOST;
	find_lie("take_over")->tell(&w.map);
	assert_true(judge(&w));
	assert_int_equal(w.out.n_resolvers, 1);
	end(&w);

	begin(&w);
	w.consent.dns = ACCEPT_DNS_ALL;
	find_lie("split_single")->tell(&w.map);
	assert_true(judge(&w));
	assert_int_equal(w.out.n_dns_routes, 1);
	end(&w);

	begin(&w);
	w.consent.dns = ACCEPT_DNS_OFF;
	find_lie("record_outside")->tell(&w.map);
	assert_true(judge(&w));
	assert_int_equal(w.out.n_records, 0);
	assert_int_equal(all(&w), 0);
	end(&w);

	begin(&w);
	w.consent.allow_loopback = true;
	find_lie("endpoint_loopback")->tell(&w.map);
	assert_true(judge(&w));
	assert_int_equal(w.out.peers[0].n_endpoints, 1);
	end(&w);

	begin(&w);
	skerry__v1__dns_route__init(&route);
	route.domain = (char *)"corp.example";
	resolvers[0] = (char *)"192.0.2.53:5353";
	route.resolvers = resolvers;
	route.n_resolvers = 1;
	w.map.dns.routes = &routes;
	w.map.dns.n_routes = 1;
	skerry__v1__dns_record__init(&record);
	record.name = (char *)"printer.home.internal";
	record.type = (char *)"A";
	record.value = (char *)"192.168.7.20";
	w.map.dns.records = &records;
	w.map.dns.n_records = 1;
	assert_true(judge(&w));
	assert_int_equal(w.out.n_dns_routes, 1);
	assert_int_equal(w.out.dns_routes[0].resolvers[0].port, 5353);
	assert_int_equal(w.out.n_records, 1);
	end(&w);
}

/* Nothing grows without bound, and the lines have their own limit. */
static void lines_are_bounded(void **state)
{
	Skerry__V1__Endpoint *endpoints[200];
	struct world w;

	(void)state;
	begin(&w);
	find_lie("endpoint_loopback")->tell(&w.map);
	for (int i = 0; i < 200; i++) {
		endpoints[i] = w.map.peer[0].endpoints[0];
	}
	for (int i = 0; i < 4; i++) {
		w.map.peer[i].endpoints = endpoints;
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
		cmocka_unit_test(a_good_netmap_passes_whole),
		cmocka_unit_test(each_lie_is_refused_and_named),
		cmocka_unit_test(prefixes_do_not_change),
		cmocka_unit_test(parts_of_a_default_route),
		cmocka_unit_test(chosen_exit_node),
		cmocka_unit_test(what_this_device_decides),
		cmocka_unit_test(local_settings_open_what_they_say),
		cmocka_unit_test(lines_are_bounded),
	};

	crypto_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
