/* (wanted, actual) -> operations, applied to the fakes: random meshes always end as wanted, in few steps. LIBS: agent */
#include "tests/lib/test.h"

#include "agent/host.h"
#include "agent/wg.h"
#include "base/crypto.h"
#include "base/mem.h"

static void random_mesh(struct test_rand *r, struct mesh *m)
{
	size_t n = test_rand_next(r) % 12;

	*m = (struct mesh){.up = test_rand_next(r) % 4 != 0, .mtu = 1280, .listen_port = 1000};
	m->private_key[0] = 1 + (uint8_t)(test_rand_next(r) % 2);
	for (size_t i = 0; i < n; i++) {
		uint8_t key[32] = {(uint8_t)(test_rand_next(r) % 12), 1};
		struct mesh_peer *p = mesh_add_peer(m, key);

		for (size_t j = test_rand_next(r) % 4; j > 0; j--) {
			struct prefix prefix = {{4, {100, 64, 0, 0}}, 32};

			/* A prefix belongs to one peer: its owner is in it. */
			prefix.addr.b[2] = (uint8_t)(test_rand_next(r) % 3);
			prefix.addr.b[3] = key[0];
			mesh_peer_allow(p, &prefix);
		}
		p->endpoint =
			(struct ipport){{4, {192, 0, 2, 1}}, (uint16_t)(1 + test_rand_next(r) % 3)};
		p->move_endpoint = true;
	}
	for (size_t i = test_rand_next(r) % 4; i > 0; i--) {
		struct prefix p = {{4, {100, 64, 1, (uint8_t)(test_rand_next(r) % 4)}}, 32};
		struct ipaddr src = {4, {100, 64, 1, (uint8_t)(test_rand_next(r) % 2)}};

		mesh_add_addr(m, &p);
		p.addr.b[2] = 9;
		mesh_add_route(m, &p, &src);
	}
	mesh_sort(m);
}

static void apply(struct wg_fake *wg, struct host_fake *host, const struct mesh *wanted,
		  size_t *ret_ops)
{
	struct mesh actual = {0};
	struct mesh_ops ops = {0};
	size_t failed;

	assert_ok(wg->wg.ops->get(&wg->wg, &actual, NULL));
	assert_ok(host->host.ops->get(&host->host, &actual, NULL));
	mesh_sort(&actual);
	mesh_reconcile(wanted, &actual, &ops);
	*ret_ops = ops.n;
	assert_ok(wg->wg.ops->set(&wg->wg, wanted, &ops, NULL));
	assert_ok(host->host.ops->set(&host->host, &ops, &failed, NULL));
	mesh_ops_done(&ops);
	mesh_done(&actual);
}

static void random_meshes_converge(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 500; seed++) {
		struct test_rand r = {seed};
		struct wg_fake wg;
		struct host_fake host;

		wg_fake_init(&wg);
		host_fake_init(&host);
		for (int step = 0; step < 10; step++) {
			struct mesh wanted;
			size_t n;

			random_mesh(&r, &wanted);
			apply(&wg, &host, &wanted, &n);
			apply(&wg, &host, &wanted, &n);
			if (n != 0 || wg.mesh.n_peers != wanted.n_peers ||
			    host.mesh.n_addrs != wanted.n_addrs ||
			    host.mesh.n_routes != wanted.n_routes || host.mesh.up != wanted.up) {
				TEST_FAIL("seed %d step %d: %d operations are left", (int)seed,
					  step, (int)n);
			}
			mesh_done(&wanted);
		}
		wg_fake_done(&wg);
		host_fake_done(&host);
	}
}

/* WireGuard follows a peer that roams: its endpoint is not set back, but one that has none gets one. */
static void endpoints_are_left_alone(void **state)
{
	struct mesh wanted = {0}, actual = {0};
	struct mesh_ops ops = {0};
	uint8_t key[32] = {1};

	(void)state;
	mesh_add_peer(&wanted, key)->endpoint = (struct ipport){{4, {192, 0, 2, 1}}, 1};
	mesh_add_peer(&actual, key)->endpoint = (struct ipport){{4, {192, 0, 2, 9}}, 9};
	mesh_reconcile(&wanted, &actual, &ops);
	assert_int_equal(ops.n, 0);
	wanted.peers[0].move_endpoint = true;
	mesh_reconcile(&wanted, &actual, &ops);
	assert_int_equal(ops.n, 1);
	assert_int_equal(ops.v[0].touch, MESH_TOUCH_ENDPOINT);
	mesh_ops_done(&ops);
	wanted.peers[0].move_endpoint = false;
	actual.peers[0].endpoint = (struct ipport){0};
	mesh_reconcile(&wanted, &actual, &ops);
	assert_int_equal(ops.n, 1);
	mesh_ops_done(&ops);
	mesh_done(&wanted);
	mesh_done(&actual);
}

/* A peer that was cut off goes before anything is given to another. */
static void removals_come_first(void **state)
{
	struct mesh wanted = {0}, actual = {0};
	struct mesh_ops ops = {0};
	struct prefix p = {{4, {100, 64, 0, 1}}, 32};

	(void)state;
	mesh_peer_allow(mesh_add_peer(&actual, (uint8_t[32]){9}), &p);
	mesh_peer_allow(mesh_add_peer(&wanted, (uint8_t[32]){1}), &p);
	mesh_reconcile(&wanted, &actual, &ops);
	assert_int_equal(ops.n, 2);
	assert_int_equal(ops.v[0].kind, MESH_PEER_REMOVE);
	assert_int_equal(ops.v[1].kind, MESH_PEER_ADD);
	mesh_ops_done(&ops);
	mesh_done(&wanted);
	mesh_done(&actual);
}

/* ---- The text of UAPI ---------------------------------------------------------------------------------------------- */

static void uapi_text(void **state)
{
	struct mesh wanted = {.listen_port = 7};
	struct mesh_peer *p = mesh_add_peer(&wanted, (uint8_t[32]){0xab});
	struct prefix prefix = {{4, {100, 64, 0, 1}}, 32};
	struct mesh_op ops[] = {{.kind = MESH_SET_PORT},
				{.kind = MESH_PEER_ADD, .peer = p},
				{.kind = MESH_PEER_UPDATE, .peer = p, .touch = MESH_TOUCH_ENDPOINT},
				{.kind = MESH_PEER_REMOVE, .peer = p}};
	struct buf out = BUF_INIT;

	(void)state;
	mesh_peer_allow(p, &prefix);
	p->endpoint = (struct ipport){{6, {0x20, 1, 0xd, 0xb8}}, 99};
	wg_uapi_format(&wanted, ops, ARRAY_LEN(ops), &out);
#define KEY "public_key=ab00000000000000000000000000000000000000000000000000000000000000\n"
	assert_string_equal(buf_str(&out),
			    "set=1\nlisten_port=7\n" KEY
			    "endpoint=[2001:db8::]:99\npersistent_keepalive_interval=0\n"
			    "replace_allowed_ips=true\nallowed_ip=100.64.0.1/32\n" KEY
			    "update_only=true\nendpoint=[2001:db8::]:99\n" KEY "remove=true\n\n");
	assert_null(strstr(buf_str(&out), "replace_peers"));
	buf_done(&out);
	mesh_done(&wanted);
}

static void uapi_answers(void **state)
{
	static const struct {
		const char *text;
		int result;
		size_t peers;
	} cases[] = {
		{"errno=0\n\n", 0, 0},
		{"listen_port=5\n" KEY "endpoint=1.2.3.4:5\nlast_handshake_time_sec=2\nlast_"
		 "handshake_time_nsec=500000000\n"
		 "tx_bytes=1\nrx_bytes=2\npersistent_keepalive_interval=25\nallowed_ip=10.0.0.0/"
		 "8\nprotocol_version=1\n"
		 "new_thing=x\nerrno=0\n\n",
		 0, 1},
		{KEY "endpoint=[fe80::1%eth0]:5\nerrno=0\n\n", 0, 1},
		{"", ERR_UNAVAILABLE, 0},
		{KEY, ERR_UNAVAILABLE, 0},
		{"errno=-22\n\n", ERR_UNKNOWN, 0},
		{"errno=1x\n\n", ERR_PROTOCOL, 0},
		{"public_key=abc\nerrno=0\n\n", ERR_PROTOCOL, 0},
		{"listen_port=70000\nerrno=0\n\n", ERR_PROTOCOL, 0},
		{KEY "allowed_ip=10.0.0.1/8\nerrno=0\n\n", ERR_PROTOCOL, 0},
		{KEY "tx_bytes=-1\nerrno=0\n\n", ERR_PROTOCOL, 0},
		{KEY "rx_bytes=99999999999999999999999\nerrno=0\n\n", ERR_PROTOCOL, 0},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		struct mesh m = {0};
		int r = wg_uapi_parse(c->text, strlen(c->text), &m, NULL);

		if (r != c->result || m.n_peers != c->peers) {
			TEST_FAIL("\"%s\" gave %d and %zu peers", c->text, r, m.n_peers);
		}
		if (r == 0 && m.listen_port == 5) {
			assert_int_equal(m.peers[0].handshake_ms, 2500);
			assert_int_equal(m.peers[0].keepalive_s, 25);
			assert_int_equal(m.peers[0].allowed[0].len, 8);
		}
		mesh_done(&m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_meshes_converge),
		cmocka_unit_test(endpoints_are_left_alone),
		cmocka_unit_test(removals_come_first),
		cmocka_unit_test(uapi_text),
		cmocka_unit_test(uapi_answers),
	};

	crypto_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
