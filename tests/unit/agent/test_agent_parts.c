/* Small parts: paths, endpoints, configuration, settings, identity. LIBS: agent */
#include "tests/lib/test.h"

#include <sys/stat.h>

#include "agent/agent_int.h"
#include "base/crypto.h"
#include "base/fileio.h"
#include "base/mem.h"

/* ---- Paths --------------------------------------------------------------------------------------------------------- */

struct paths_world {
	struct host_fake host;
	struct paths *paths;
	struct admitted_peer peer;
	struct ipport endpoints[4];
	struct mesh_peer actual;
	uint64_t now;
};

static struct ipport ipport(const char *text)
{
	struct ipport p;

	assert_ok(ipport_parse(text, &p, NULL));
	return p;
}

static void paths_begin(struct paths_world *w)
{
	memset(w, 0, sizeof(*w));
	host_fake_init(&w->host);
	host_fake_addr(&w->host, "10.0.1.5/24", "eth0");
	w->host.net.gateways = mem_calloc(1, sizeof(struct ipaddr));
	w->host.net.gateways[0] = (struct ipaddr){4, {10, 0, 1, 1}};
	w->host.net.n_gateways = 1;
	w->paths = paths_new(&w->host.host);
	w->peer.endpoints = w->endpoints;
	w->peer.key[0] = 1;
	w->now = 1000000;
}

static void paths_end(struct paths_world *w)
{
	paths_free(w->paths);
	host_fake_done(&w->host);
}

/* One look; what was chosen is then what WireGuard has. */
static const char *look(struct paths_world *w, uint64_t later_ms)
{
	static char text[IPPORT_TEXT];
	struct mesh_peer wanted = {0};
	bool known = w->actual.endpoint.addr.family != 0;

	w->now += later_ms;
	paths_choose(w->paths, &w->peer, known ? &w->actual : NULL, w->now, (int64_t)w->now,
		     &wanted);
	paths_sweep(w->paths);
	if (wanted.endpoint.addr.family == 0) {
		return "kept";
	}
	w->actual.endpoint = wanted.endpoint;
	return ipport_format(&wanted.endpoint, text);
}

static void path_prefers_what_is_near(void **state)
{
	struct paths_world w;

	(void)state;
	paths_begin(&w);
	w.endpoints[0] = ipport("203.0.113.9:1");
	w.endpoints[1] = ipport("[2001:db8::9]:1"); /* this host has no IPv6 */
	w.endpoints[2] = ipport("10.0.1.9:1");
	w.peer.n_endpoints = 3;
	assert_string_equal(look(&w, 0), "10.0.1.9:1");
	assert_string_equal(look(&w, 2000), "kept");
	paths_end(&w);
}

static void path_goes_on_when_nobody_answers(void **state)
{
	struct paths_world w;

	(void)state;
	paths_begin(&w);
	w.endpoints[0] = ipport("10.0.1.9:1");
	w.endpoints[1] = ipport("203.0.113.9:1");
	w.peer.n_endpoints = 2;
	assert_string_equal(look(&w, 0), "10.0.1.9:1");
	for (int i = 0; i < 10; i++) {
		assert_string_equal(look(&w, 2000),
				    "kept"); /* nothing was sent: no reason to move */
	}
	w.actual.tx_bytes += 148;
	assert_string_equal(look(&w, 2000), "kept");
	w.actual.tx_bytes += 148;
	assert_string_equal(look(&w, 2000), "kept");
	assert_string_equal(look(&w, 2000), "203.0.113.9:1");
	w.actual.tx_bytes += 148;
	look(&w, 2000);
	assert_string_equal(look(&w, 4000), "10.0.1.9:1"); /* and round */
	/* It answers: it stays, whatever was before. */
	w.actual.rx_bytes += 92;
	w.actual.handshake_ms = (int64_t)w.now;
	for (int i = 0; i < 20; i++) {
		w.actual.tx_bytes += 100;
		w.actual.rx_bytes += 100;
		assert_string_equal(look(&w, 2000), "kept");
	}
	/* With a session the patience is longer than WireGuard's own keepalive of 10 s. */
	w.actual.handshake_ms = (int64_t)w.now;
	for (int i = 0; i < 6; i++) {
		w.actual.tx_bytes += 100;
		assert_string_equal(look(&w, 2000), "kept");
	}
	w.actual.tx_bytes += 100;
	assert_string_equal(look(&w, 2000), "203.0.113.9:1");
	paths_end(&w);
}

static void path_follows_the_peer(void **state)
{
	struct paths_world w;

	(void)state;
	paths_begin(&w);
	w.endpoints[0] = ipport("10.0.1.9:1");
	w.peer.n_endpoints = 1;
	look(&w, 0);
	w.actual.handshake_ms = (int64_t)w.now;
	/* It roamed to a place that it does not report (a NAT): WireGuard is right. */
	w.actual.endpoint = ipport("198.51.100.1:777");
	w.actual.rx_bytes = 1;
	assert_string_equal(look(&w, 2000), "kept");
	/* The endpoint in use leaves the list: the new one at once. */
	w.actual.endpoint = ipport("10.0.1.9:1");
	look(&w, 2000);
	w.endpoints[0] = ipport("10.0.1.10:1");
	assert_string_equal(look(&w, 10), "10.0.1.10:1");
	/* Nothing is reported any more: nothing is taken away. */
	w.peer.n_endpoints = 0;
	assert_string_equal(look(&w, 10), "kept");
	paths_end(&w);
}

/* ---- Endpoints ----------------------------------------------------------------------------------------------------- */

static void endpoints_of_this_host(void **state)
{
	struct host_fake host;
	struct prefix tailnet[] = {{{4, {100, 64}}, 10}};
	struct ipport out[8];
	size_t n;

	(void)state;
	host_fake_init(&host);
	host_fake_addr(&host, "127.0.0.1/8", "lo");
	host_fake_addr(&host, "::1/128", "lo");
	n = endpoints_gather(&host.net, tailnet, 1, 7, out, 8);
	assert_int_equal(n, 2); /* nothing else: loopback */
	host_fake_addr(&host, "192.0.2.9/24", "eth0");
	host_fake_addr(&host, "100.70.0.1/32", "other0");
	host_fake_addr(&host, "2001:db8::5/64", "eth0");
	host_fake_addr(&host, "192.0.2.1/24", "eth1");
	host_fake_addr(&host, "192.0.2.9/32", "eth2");
	n = endpoints_gather(&host.net, tailnet, 1, 7, out, 8);
	assert_int_equal(n, 3);
	assert_int_equal(out[0].addr.b[3], 1); /* sorted, each once */
	assert_int_equal(out[1].addr.b[3], 9);
	assert_int_equal(out[2].addr.family, 6);
	assert_int_equal(out[2].port, 7);
	assert_int_equal(endpoints_gather(&host.net, tailnet, 1, 7, out, 2), 2);
	host_fake_done(&host);
}

/* ---- Configuration ------------------------------------------------------------------------------------------------- */

static void config_defaults_and_errors(void **state)
{
	static const struct {
		const char *text, *field, *msg;
	} bad[] = {
		{"interface: a-name-that-is-too-long\n", "a.yaml:1", "interface"},
		{"\ninterface: --help\n", "a.yaml:2", "interface"},
		{"interface: a/b\n", "a.yaml:1", "interface"},
		{"listen_port: 0\n", "a.yaml:1", "listen_port"},
		{"listen_port: 70000\n", "a.yaml:1", "listen_port"},
		{"mtu: 1000\n", "a.yaml:1", "mtu"},
		{"state_dir: here\n", "a.yaml:1", "absolute"},
		{"accept_dns: maybe\n", "a.yaml:1", "maybe"},
		{"lighthouses: [\"https://a:1\", \"http://b\"]\n", "a.yaml:1", "http://b"},
		{"resolvers: [one]\n", "a.yaml:1", "one"},
		{"log_level: loud\n", "a.yaml:1", "loud"},
		{"listen_prot: 1\n", "a.yaml:1", "listen_port"},
		{"mtu: 1280\nmtu: 1281\n", "a.yaml:2", "mtu"},
	};
	struct agent_config c;

	(void)state;
	assert_ok(agent_config_parse("", 0, "a.yaml", &c, NULL));
	assert_string_equal(c.interface, "skerry0");
	assert_int_equal(c.listen_port, 41641);
	assert_int_equal(c.accept_dns + 1, ACCEPT_DNS_SERVE);
	assert_string_equal(c.socket, "/run/skerry/agent.sock");
	agent_config_done(&c);
	TEST_TABLE(b, bad)
	{
		struct err e = {0};

		if (agent_config_parse(b->text, strlen(b->text), "a.yaml", &c, &e) >= 0) {
			TEST_FAIL("accepted: %s", b->text);
		}
		assert_string_equal(e.field, b->field);
		assert_contains(e.msg, b->msg);
	}
}

/* ---- Settings ------------------------------------------------------------------------------------------------------ */

static int update(struct settings *s, const char *path, Skerry__Local__V1__Settings *from,
		  bool root, struct err *e)
{
	Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
	char *paths[] = {(char *)path};

	mask.paths = paths;
	mask.n_paths = 1;
	return settings_update(s, from, &mask, root, e);
}

static void settings_change_what_is_named(void **state)
{
	Skerry__Local__V1__Settings from = SKERRY__LOCAL__V1__SETTINGS__INIT;
	char dir[TEST_DIR], path[TEST_DIR + 32];
	char *urls[] = {(char *)"https://192.0.2.1:8443"}, *bad[] = {(char *)"192.0.2.1"},
	     *tags[] = {(char *)"server"};
	struct agent_config config;
	struct settings s, back;
	struct err e = {0};

	(void)state;
	snprintf(path, sizeof(path), "%s/settings.json", test_dir_make(dir));
	assert_ok(agent_config_parse("accept_routes: true\n", 20, "a.yaml", &config, NULL));
	assert_ok(settings_load(path, &config, &s, NULL));
	assert_true(s.accept_routes);
	from.lighthouses = urls;
	from.n_lighthouses = 1;
	from.hostname = (char *)"new-name";
	assert_ok(update(&s, "lighthouses", &from, false, &e));
	assert_int_equal(s.n_lighthouses, 1);
	assert_string_equal(s.hostname, ""); /* not named: as it was */
	assert_true(s.accept_routes);
	assert_ok(update(&s, "hostname", &from, false, &e));
	assert_string_equal(s.hostname, "new-name");

	from.hostname = (char *)"Not A Label";
	assert_err(update(&s, "hostname", &from, false, &e), ERR_INVALID);
	assert_string_equal(e.field, "settings.hostname");
	from.hostname = (char *)"localhost";
	assert_err(update(&s, "hostname", &from, false, &e), ERR_INVALID);
	from.lighthouses = bad;
	assert_err(update(&s, "lighthouses", &from, false, &e), ERR_INVALID);
	assert_contains(e.msg, "192.0.2.1");
	from.tags = tags;
	from.n_tags = 1;
	assert_err(update(&s, "tags", &from, false, &e), ERR_INVALID);
	assert_err(update(&s, "no_such_field", &from, false, &e), ERR_INVALID);
	from.operator_ = (char *)"0";
	assert_err(update(&s, "operator", &from, false, &e), ERR_DENIED);
	from.operator_ = (char *)"nobody-of-this-name";
	assert_err(update(&s, "operator", &from, true, &e), ERR_INVALID);
	from.operator_ = (char *)"1234";
	assert_ok(update(&s, "operator", &from, true, &e));
	assert_int_equal(s.operator_uid, 1234);
	assert_string_equal(s.lighthouses[0], urls[0]);

	s.up = true;
	assert_ok(settings_save(path, &s, &e));
	assert_ok(settings_load(path, &config, &back, &e));
	assert_true(back.up && back.has_operator && back.accept_routes);
	assert_int_equal(back.operator_uid, 1234);
	assert_string_equal(back.hostname, "new-name");
	assert_string_equal(back.lighthouses[0], urls[0]);
	settings_done(&back);
	assert_ok(file_write_atomic(path, "{", 1, 0600, NULL));
	assert_err(settings_load(path, &config, &back, &e), ERR_CORRUPT);
	settings_done(&s);
	agent_config_done(&config);
	test_dir_remove(dir);
}

/* ---- Identity ------------------------------------------------------------------------------------------------------ */

static void identity_lasts(void **state)
{
	char dir[TEST_DIR], host[TEST_DIR + 32], path[TEST_DIR + 32];
	struct identity one, two;
	struct err e = {0};
	struct stat st;
	uint64_t session = 0, last = 0;

	(void)state;
	snprintf(host, sizeof(host), "%s/host", test_dir_make(dir));
	snprintf(path, sizeof(path), "%s/state", dir);
	assert_ok(identity_open(path, host, &one, &e));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	for (int i = 0; i < 2500; i++) {
		assert_ok(identity_next_session(&one, &session, &e));
		assert_true(session > last);
		last = session;
	}
	one.enrolment.cluster_id = 9;
	one.enrolment.registered = true;
	one.enrolment.tailnet_id = 3;
	one.enrolment.node_id = 4;
	one.enrolment.has_pin = true;
	one.enrolment.pin[5] = 7;
	one.enrolment.prefixes[0] = (struct prefix){{4, {100, 64}}, 10};
	one.enrolment.n_prefixes = 1;
	assert_true(
		enrolment_set_lighthouses(&one.enrolment, (char *[]){(char *)"https://a:1"}, 1));
	assert_false(
		enrolment_set_lighthouses(&one.enrolment, (char *[]){(char *)"https://a:1"}, 1));
	enrolment_set_last_good(&one.enrolment, "https://a:1");
	assert_ok(identity_save_enrolment(&one, &e));

	/* As after a crash: nothing was said to the directory. */
	assert_ok(identity_open(path, host, &two, &e));
	assert_memory_equal(one.machine_key, two.machine_key, 32);
	assert_memory_equal(one.node_key, two.node_key, 32);
	assert_memory_not_equal(one.disco_key, two.disco_key, 32);
	assert_string_not_equal(one.instance_id, two.instance_id);
	assert_true(two.enrolment.registered && two.enrolment.has_pin);
	assert_int_equal(two.enrolment.pin[5], 7);
	assert_int_equal(two.enrolment.n_prefixes, 1);
	assert_string_equal(two.enrolment.last_good, "https://a:1");
	assert_ok(identity_next_session(&two, &session, &e));
	assert_true(session > last);
	assert_ok(identity_forget(&two, &e));
	assert_memory_not_equal(one.node_key, two.node_key, 32);
	assert_false(two.enrolment.registered);
	assert_true(two.enrolment.has_pin);
	identity_done(&one);
	identity_done(&two);

	static const char *const files[] = {"machine.key", "node.key", "cluster.json", "session"};

	TEST_TABLE(file, files)
	{
		struct buf before = BUF_INIT;

		snprintf(host, sizeof(host), "%s/state/%s", dir, *file);
		assert_ok(file_read(host, 4096, &before, NULL));
		assert_ok(file_write_atomic(host, "xx", 2, 0600, NULL));
		snprintf(path, sizeof(path), "%s/state", dir);
		snprintf(host, sizeof(host), "%s/host", dir);
		assert_err(identity_open(path, host, &two, &e), ERR_CORRUPT);
		assert_contains(e.msg, *file);
		snprintf(host, sizeof(host), "%s/state/%s", dir, *file);
		assert_ok(file_write_atomic(host, before.data, before.len, 0600, NULL));
		buf_done(&before);
	}

	/* Without its machine key the rest is of no use, and would be refused as another machine's. */
	snprintf(host, sizeof(host), "%s/host", dir);
	assert_ok(identity_open(path, host, &one, &e));
	assert_false(one.moved);
	one.enrolment.registered = true;
	assert_ok(identity_save_enrolment(&one, &e));
	snprintf(host, sizeof(host), "%s/state/machine.key", dir);
	assert_ok(file_remove(host, &e));
	snprintf(host, sizeof(host), "%s/host", dir);
	assert_ok(identity_open(path, host, &two, &e));
	assert_true(two.moved);
	assert_memory_not_equal(one.machine_key, two.machine_key, 32);
	assert_memory_not_equal(one.node_key, two.node_key, 32);
	assert_false(two.enrolment.registered);
	identity_done(&one);
	identity_done(&two);
	test_dir_remove(dir);
}

/* The cluster rotates its CA: two pins for a while, then one; nothing else that a lighthouse may say is taken. */
static void pins_rotate(void **state)
{
	char dir[TEST_DIR], host[TEST_DIR + 32], path[TEST_DIR + 32];
	uint8_t first[32] = {1}, second[32] = {2}, third[32] = {3};
	ProtobufCBinaryData pins[3] = {{32, second}, {32, first}, {32, third}};
	struct identity one, two;
	struct enrolment *en = &one.enrolment;
	struct err e = {0};

	(void)state;
	snprintf(host, sizeof(host), "%s/host", test_dir_make(dir));
	snprintf(path, sizeof(path), "%s/state", dir);
	assert_ok(identity_open(path, host, &one, &e));
	assert_false(enrolment_set_pins(en, pins, 1)); /* no pin yet: it is learnt in another way */
	en->cluster_id = 9;
	en->has_pin = true;
	memcpy(en->pin, first, 32);
	assert_false(enrolment_set_pins(en, pins, 0));
	assert_false(enrolment_set_pins(en, pins, 3));
	pins[1].len = 31;
	assert_false(enrolment_set_pins(en, pins, 2));
	pins[1].len = 32;
	assert_false(enrolment_set_pins(en, &pins[1], 1)); /* what it has */
	assert_true(enrolment_set_pins(en, pins, 2));
	assert_false(enrolment_set_pins(en, pins, 2));
	assert_true(enrolment_has_pin(en, first) && enrolment_has_pin(en, second));
	assert_false(enrolment_has_pin(en, third));
	assert_ok(identity_save_enrolment(&one, &e));
	assert_ok(identity_open(path, host, &two, &e));
	assert_memory_equal(two.enrolment.pin, second, 32);
	assert_true(two.enrolment.has_old_pin);
	assert_memory_equal(two.enrolment.old_pin, first, 32);
	assert_true(enrolment_set_pins(&two.enrolment, pins, 1));
	assert_false(enrolment_has_pin(&two.enrolment, first));
	assert_ok(identity_save_enrolment(&two, &e));
	identity_done(&one);
	assert_ok(identity_open(path, host, &one, &e));
	assert_false(one.enrolment.has_old_pin);
	identity_done(&one);
	identity_done(&two);
	test_dir_remove(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(path_prefers_what_is_near),
		cmocka_unit_test(path_goes_on_when_nobody_answers),
		cmocka_unit_test(path_follows_the_peer),
		cmocka_unit_test(endpoints_of_this_host),
		cmocka_unit_test(config_defaults_and_errors),
		cmocka_unit_test(settings_change_what_is_named),
		cmocka_unit_test(identity_lasts),
		cmocka_unit_test(pins_rotate),
	};

	crypto_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
