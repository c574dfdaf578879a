/* The real back ends: wireguard-go by its UAPI socket and the host's network by rtnetlink, in a network namespace of this
 * process. Skips without root, /dev/net/tun or wireguard-go. */
#include "tests/lib/test.h"

#include <net/if.h>
#include <unistd.h>

#include "agent/host.h"
#include "agent/path.h"
#include "agent/wg.h"
#include "base/crypto.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/loop.h"
#include "tests/component/agent/lab.h"

#define IFNAME "skt0"

static char dir[TEST_DIR];

static void shell(const char *command)
{
	if (system(command) != 0) {
		TEST_FAIL("failed: %s", command);
	}
}

static struct wg_uapi_opts wg_opts(void)
{
	return (struct wg_uapi_opts){
		.ifname = IFNAME, .program = "wireguard-go", .uapi_dir = "/var/run/wireguard"};
}

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

/* Brings everything in line once; returns the number of operations. */
static size_t apply(struct wg *wg, struct host *host, struct mesh *wanted)
{
	struct mesh actual = {0};
	struct mesh_ops ops = {0};
	struct err e = {0};
	size_t failed, n;

	if (wg->ops->get(wg, &actual, &e) < 0 || host->ops->get(host, &actual, &e) < 0) {
		TEST_FAIL("get: %s", e.msg);
	}
	mesh_sort(wanted);
	mesh_reconcile(wanted, &actual, &ops);
	n = ops.n;
	if (wg->ops->set(wg, wanted, &ops, &e) < 0 || host->ops->set(host, &ops, &failed, &e) < 0) {
		TEST_FAIL("set: %s", e.msg);
	}
	mesh_ops_done(&ops);
	mesh_done(&actual);
	return n;
}

static void want_all(struct mesh *wanted, size_t n_peers, uint16_t port)
{
	struct ipaddr own4 = addr("100.64.0.1"), own6 = addr("fd7a:115c:a1e0::1");
	struct prefix p;

	*wanted = (struct mesh){.listen_port = port, .up = true, .mtu = 1280};
	memset(wanted->private_key, 7, 32);
	wanted->private_key[0] &= 248; /* clamped, as every X25519 secret of ours */
	wanted->private_key[31] = (wanted->private_key[31] & 127) | 64;
	for (size_t i = 0; i < n_peers; i++) {
		uint8_t key[32] = {(uint8_t)i, (uint8_t)(i >> 8), 9};
		struct mesh_peer *peer = mesh_add_peer(wanted, key);

		p = (struct prefix){{4, {100, 65, (uint8_t)(i >> 8), (uint8_t)i}}, 32};
		mesh_peer_allow(peer, &p);
		peer->endpoint = (struct ipport){{4, {192, 0, 2, (uint8_t)i}}, 1000};
	}
	p = prefix("100.64.0.1/32");
	mesh_add_addr(wanted, &p);
	p = prefix("fd7a:115c:a1e0::1/128");
	mesh_add_addr(wanted, &p);
	p = prefix("100.100.100.100/32");
	mesh_add_addr(wanted, &p);
	p = prefix("100.64.0.0/10");
	mesh_add_route(wanted, &p, &own4);
	p = prefix("fd7a:115c:a1e0::/48");
	mesh_add_route(wanted, &p, &own6);
}

static void everything_by_difference(void **state)
{
	struct wg_uapi_opts opts = wg_opts();
	struct mesh wanted, actual = {0};
	struct host_route route;
	struct ipaddr to;
	struct host *host;
	struct wg *wg;
	bool adopted;
	struct err e = {0};

	(void)state;
	if (wg_uapi_new(&opts, &wg, &adopted, &e) < 0) {
		TEST_FAIL("%s", e.msg);
	}
	assert_false(adopted);
	assert_ok(host_netlink_new(IFNAME, &host, &e));
	want_all(&wanted, 600, 51900);
	assert_int_equal(apply(wg, host, &wanted), 2 + 600 + 1 + 3 + 1 + 2);
	assert_int_equal(apply(wg, host, &wanted), 0); /* what is there is recognised */
	assert_ok(wg->ops->get(wg, &actual, &e));
	assert_int_equal(actual.n_peers, 600);
	assert_int_equal(actual.listen_port, 51900);
	shell("ip -4 -o addr show dev " IFNAME " | grep -q 'inet 100.64.0.1/32'");
	shell("ip link show dev " IFNAME " | grep -q 'mtu 1280'");
	shell("ip -4 route show dev " IFNAME " | grep -q '100.64.0.0/10.*src 100.64.0.1'");
	to = addr("100.64.0.9");
	assert_ok(host->ops->route(host, &to, &route));
	assert_true(route.reachable && route.tunnel);

	/* One peer goes, one moves its address, one gets another endpoint. */
	mesh_done(&wanted);
	want_all(&wanted, 599, 51900);
	wanted.peers[0].allowed[0] = prefix("100.65.77.77/32");
	wanted.peers[1].endpoint.port = 2000;
	wanted.peers[1].move_endpoint = true;
	assert_int_equal(apply(wg, host, &wanted), 3);
	assert_int_equal(apply(wg, host, &wanted), 0);

	/* A foreign route on the interface and the kernel's own are left alone. */
	shell("ip route add 203.0.113.0/24 dev " IFNAME);
	assert_int_equal(apply(wg, host, &wanted), 0);
	shell("ip route show 203.0.113.0/24 | grep -q " IFNAME);

	/* A new agent takes the running one over: nothing changes. */
	wg_free(wg);
	host_free(host);
	assert_ok(wg_uapi_new(&opts, &wg, &adopted, &e));
	assert_true(adopted);
	assert_ok(host_netlink_new(IFNAME, &host, &e));
	assert_int_equal(apply(wg, host, &wanted), 0);

	/* Down: all of ours goes. */
	mesh_done(&wanted);
	wanted = (struct mesh){0};
	apply(wg, host, &wanted);
	assert_ok(wg->ops->get(wg, &actual, &e));
	assert_int_equal(actual.n_peers, 0);
	shell("! ip -o addr show dev " IFNAME " | grep -q 100.64");
	mesh_done(&actual);
	wg_free(wg);
	host_free(host);
}

static void taken_port_is_told(void **state)
{
	struct wg_uapi_opts opts = wg_opts();
	struct mesh wanted = {.listen_port = 51901};
	struct mesh_op op = {.kind = MESH_SET_PORT};
	struct mesh_ops ops = {&op, 1, 1};
	struct sockaddr_storage ss;
	struct ipport any = {{4, {0}}, 51901};
	struct wg *wg;
	bool adopted;
	struct err e = {0};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	(void)state;
	assert_int_equal(bind(fd, (struct sockaddr *)&ss, ipport_to_sockaddr(&any, &ss)), 0);
	assert_ok(wg_uapi_new(&opts, &wg, &adopted, &e));
	/* The listener is bound when the interface comes up. */
	shell("ip link set " IFNAME " up");
	assert_err(wg->ops->set(wg, &wanted, &ops, &e), ERR_EXISTS);
	close(fd);
	assert_ok(wg->ops->set(wg, &wanted, &ops, &e));
	wg_free(wg);
}

/* wireguard-go knows one directory alone: another one is called wrong, and nothing is left running. */
static void other_directory_is_called_wrong(void **state)
{
	struct wg_uapi_opts opts = wg_opts();
	struct err e = {0};
	struct wg *wg;
	bool adopted;

	(void)state;
	opts.uapi_dir = dir;
	opts.ifname = "skt1";
	assert_err(wg_uapi_new(&opts, &wg, &adopted, &e), ERR_PRECONDITION);
	assert_contains(e.msg, "uapi_dir");
	for (int i = 0; i < 400 && if_nametoindex(opts.ifname) != 0; i++) {
		usleep(5000);
	}
	assert_int_equal(if_nametoindex(opts.ifname), 0);
}

/* The daemon dies: that is noticed as an error, and a new one takes its stale socket's place. */
static void dead_daemon_is_replaced(void **state)
{
	struct wg_uapi_opts opts = wg_opts();
	struct mesh actual = {0};
	struct wg *wg;
	bool adopted;
	struct err e = {0};

	(void)state;
	assert_ok(wg_uapi_new(&opts, &wg, &adopted, &e));
	assert_true(adopted);
	assert_int_equal(lab_kill_wireguard(IFNAME), 0);
	for (int i = 0; i < 400 && wg_uapi_alive(opts.uapi_dir, opts.ifname); i++) {
		usleep(5000);
	}
	assert_err(wg->ops->get(wg, &actual, &e), ERR_UNAVAILABLE);
	wg_free(wg);
	assert_true(access("/var/run/wireguard/" IFNAME ".sock", F_OK) == 0);
	if (wg_uapi_new(&opts, &wg, &adopted, &e) < 0) {
		TEST_FAIL("%s", e.msg);
	}
	assert_false(adopted);
	assert_ok(wg->ops->get(wg, &actual, &e));
	mesh_done(&actual);
	wg_free(wg);
}

static void missing_program_is_named(void **state)
{
	struct wg_uapi_opts opts = wg_opts();
	struct wg *wg;
	bool adopted;
	struct err e = {0};

	(void)state;
	opts.ifname = "skt9";
	opts.program = "/nonexistent/wireguard-go";
	assert_err(wg_uapi_new(&opts, &wg, &adopted, &e), ERR_NOT_FOUND);
	assert_contains(e.msg, "/nonexistent/wireguard-go");
}

static bool changed;

static void on_change(void *arg)
{
	(void)arg;
	changed = true;
}

static void host_facts_and_changes(void **state)
{
	struct host_net net = {0};
	struct host_route route;
	struct loop *loop = loop_new("test");
	struct loop_timer timer = {0};
	struct ipaddr to;
	struct host *host;
	struct err e = {0};
	bool found = false;

	(void)state;
	shell("ip link add vt0 type veth peer name vt1 && ip addr add 198.51.100.5/24 dev vt0 && "
	      "ip link set vt0 up && "
	      "ip link set vt1 up && ip route add default via 198.51.100.1");
	assert_ok(host_netlink_new(IFNAME, &host, &e));
	assert_ok(host->ops->watch(host, loop, on_change, NULL, &e));
	assert_ok(host->ops->net(host, &net, &e));
	for (size_t i = 0; i < net.n_addrs; i++) {
		char text[PREFIX_TEXT];

		found |= strcmp(prefix_format(&net.addrs[i].prefix, text), "198.51.100.5/24") == 0;
		assert_string_not_equal(net.addrs[i].ifname, IFNAME);
	}
	assert_true(found);
	assert_int_equal(net.n_gateways, 1);
	host_net_done(&net);
	to = addr("198.51.100.77");
	assert_ok(host->ops->route(host, &to, &route));
	assert_true(route.reachable && route.direct && !route.tunnel);
	to = addr("203.0.114.1");
	assert_ok(host->ops->route(host, &to, &route));
	assert_true(route.reachable && !route.direct);
	to = addr("2001:db8::1");
	assert_ok(host->ops->route(host, &to, &route));
	assert_false(route.reachable);

	shell("ip addr add 198.51.100.6/24 dev vt0");
	for (int i = 0; i < 100 && !changed; i++) {
		loop_timer_start(&timer, loop, 20, on_change, NULL);
		loop_timer_stop(&timer);
		loop_timer_start(&timer, loop, 20, (void (*)(void *))loop_update_time, loop);
		loop_turn(loop, true);
	}
	loop_timer_stop(&timer);
	assert_true(changed);
	host_free(host);
	loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything_by_difference),
		cmocka_unit_test(taken_port_is_told),
		cmocka_unit_test(other_directory_is_called_wrong),
		cmocka_unit_test(dead_daemon_is_replaced),
		cmocka_unit_test(missing_program_is_named),
		cmocka_unit_test(host_facts_and_changes),
	};
	const char *skip = lab_enter();
	int failed;

	if (skip != NULL) {
		printf("skipped: %s\n", skip);
		return 77;
	}
	crypto_init();
	test_dir_make(dir);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	IGNORE(system("ip link del " IFNAME " 2>/dev/null"));
	test_dir_remove(dir);
	return failed;
}
