/* The whole agent with everything real below it, in a network namespace of this process: names at 100.100.100.100, the
 * host's resolver, a restart, a dead wireguard-go. Skips without root, /dev/net/tun or wireguard-go. */
#include "tests/component/agent/world.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "tests/component/agent/lab.h"

static void shell(const char *command)
{
	if (system(command) != 0) {
		TEST_FAIL("failed: %s", command);
	}
}

/* ---- A resolver of four lines -------------------------------------------------------------------------------------- */

/* Asks for the A record; the answer's rcode, and the last four bytes of it in ret_addr. -1: no answer. */
static int ask(struct world *w, const char *name, uint8_t ret_addr[4])
{
	struct ipport server = {{4, {100, 100, 100, 100}}, 53};
	uint8_t query[300] = {0x12, 0x34, 1, 0, 0, 1}, answer[1500];
	struct sockaddr_storage ss;
	socklen_t ss_len = ipport_to_sockaddr(&server, &ss);
	size_t len = 12;
	ssize_t n = -1;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	for (const char *label = name; *label != '\0';) {
		size_t part = strcspn(label, ".");

		query[len++] = (uint8_t)part;
		memcpy(query + len, label, part);
		len += part;
		label += part + (label[part] == '.');
	}
	len++;
	query[len + 1] = 1;
	query[len + 3] = 1;
	len += 4;
	assert_true(sendto(fd, query, len, 0, (struct sockaddr *)&ss, ss_len) > 0);
	for (int i = 0; i < 100 && n < 0; i++) {
		run_for(w, 5);
		n = recv(fd, answer, sizeof(answer), 0);
	}
	close(fd);
	if (n < 12) {
		return -1;
	}
	memcpy(ret_addr, answer + n - 4, 4);
	return answer[3] & 15;
}

static void set_dns(struct world *w, Skerry__Local__V1__AcceptDns value)
{
	Skerry__Local__V1__SetRequest msg = SKERRY__LOCAL__V1__SET_REQUEST__INIT;
	Skerry__Local__V1__Settings settings = SKERRY__LOCAL__V1__SETTINGS__INIT;
	Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
	char *path = (char *)"accept_dns";
	struct arena arena;
	ProtobufCMessage *reply;
	struct err e = {0};

	settings.accept_dns = value;
	mask.paths = &path;
	mask.n_paths = 1;
	msg.settings = &settings;
	msg.update_mask = &mask;
	arena_init(&arena, 65536);
	if (rpc_unary_wait(w->loop, local(w), "/skerry.local.v1.LocalService/Set", &msg.base,
			   &skerry__local__v1__set_response__descriptor, NULL, &arena, &reply,
			   &e) < 0) {
		TEST_FAIL("set: %s", e.msg);
	}
	arena_done(&arena);
	RUN_UNTIL(w, 2000, !loop_timer_active(&w->agent->apply_timer));
}

static bool resolv_conf_has(struct world *w, const char *text)
{
	struct buf b = BUF_INIT;
	bool has;

	assert_ok(file_read(w->config.resolv_conf, 65536, &b, NULL));
	has = strstr(buf_str(&b), text) != NULL;
	buf_done(&b);
	return has;
}

/* ---- Tests --------------------------------------------------------------------------------------------------------- */

static void names_are_served(void **state)
{
	static const char original[] = "# mine\nnameserver 192.0.2.99\nsearch example.org\n";
	struct world *w = *state;
	uint8_t addr[4];

	assert_ok(file_write_atomic(w->config.resolv_conf, original, strlen(original), 0644, NULL));
	up(w);
	assert_contains(w->up_text, "7:serving at 100.100.100.100, host resolver unchanged");
	assert_int_equal(ask(w, "peer-2.home.internal", addr), 0);
	assert_memory_equal(addr, ((uint8_t[]){100, 64, 0, 2}), 4);
	assert_int_equal(ask(w, "peer-2", addr), 0);
	assert_memory_equal(addr, ((uint8_t[]){100, 64, 0, 2}), 4);
	assert_int_equal(ask(w, "device.home.internal", addr), 0);
	assert_memory_equal(addr, ((uint8_t[]){100, 64, 0, 1}), 4);
	assert_int_equal(ask(w, "nobody.home.internal", addr), 3);
	assert_int_equal(w->agent->admitted.n_resolvers, 0);

	/* Unasked, the host's file is not touched; asked, it is, and put back. */
	assert_true(resolv_conf_has(w, original));
	set_dns(w, SKERRY__LOCAL__V1__ACCEPT_DNS__ACCEPT_DNS_HOST);
	assert_true(resolv_conf_has(w, "nameserver 100.100.100.100"));
	assert_true(resolv_conf_has(w, "search home.internal"));
	assert_false(resolv_conf_has(w, "192.0.2.99"));
	assert_contains(dns_glue_text(w->agent->dns), "points here");
	/* The resolvers for other names are still those of the original. */
	{
		struct ipport upstream[AGENT_RESOLVERS];

		assert_int_equal(dns_glue_upstreams(w->agent->dns, upstream, AGENT_RESOLVERS), 1);
		assert_int_equal(upstream[0].addr.b[3], 99);
	}
	/* Somebody else writes the file: what they wrote is kept, and the file taken again. */
	assert_ok(file_write_atomic(w->config.resolv_conf, "nameserver 192.0.2.77\n", 22, 0644,
				    NULL));
	agent_apply_now(w->agent);
	assert_true(resolv_conf_has(w, "nameserver 100.100.100.100"));
	set_dns(w, SKERRY__LOCAL__V1__ACCEPT_DNS__ACCEPT_DNS_SERVE);
	assert_true(resolv_conf_has(w, "nameserver 192.0.2.77"));
	assert_false(resolv_conf_has(w, "100.100.100.100"));

	set_dns(w, SKERRY__LOCAL__V1__ACCEPT_DNS__ACCEPT_DNS_OFF);
	assert_false(dns_glue_serving(w->agent->dns));
	shell("! ip -o addr show dev skt1 | grep -q 100.100.100.100");
	set_dns(w, SKERRY__LOCAL__V1__ACCEPT_DNS__ACCEPT_DNS_SERVE);
	assert_int_equal(ask(w, "peer-3", addr), 0);
}

/* A new agent finds interface, addresses, routes and peers, and changes nothing. */
static void restart_changes_nothing(void **state)
{
	struct world *w = *state;
	char before[64], after[64];
	FILE *f;

	up(w);
	agent_end(w);
	f = popen("ip -o link show dev skt1 | cut -d: -f1; ip -o addr show dev skt1 | md5sum", "r");
	before[fread(before, 1, sizeof(before) - 1, f)] = '\0';
	pclose(f);
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		fake_kill(&w->lh[i]);
	}
	agent_begin(w);
	assert_true(w->agent->adopted);
	assert_int_equal(w->agent->operations, 0);
	assert_int_equal(w->agent->actual.n_peers, 3);
	f = popen("ip -o link show dev skt1 | cut -d: -f1; ip -o addr show dev skt1 | md5sum", "r");
	after[fread(after, 1, sizeof(after) - 1, f)] = '\0';
	pclose(f);
	assert_string_equal(before, after);
}

/* wireguard-go dies: the interface is gone with it. The agent makes all of it again. */
static void dead_wireguard_is_repaired(void **state)
{
	struct world *w = *state;
	uint8_t addr[4];

	up(w);
	assert_int_equal(lab_kill_wireguard("skt1"), 0);
	RUN_UNTIL(w, 3000, !wg_uapi_alive("/var/run/wireguard", "skt1"));
	RUN_UNTIL(w, 8000,
		  wg_uapi_alive("/var/run/wireguard", "skt1") && w->agent->applied &&
			  w->agent->actual.n_peers == 3 && w->agent->actual.n_addrs == 4);
	shell("ip -o addr show dev skt1 | grep -q 100.64.0.1");
	shell("ip -4 route show dev skt1 | grep -q 100.64.0.0/10");
	assert_int_equal(ask(w, "peer-2", addr), 0);
}

static unsigned answered, lost;

static void on_reply(void *arg, struct rpc_request *req, const ProtobufCMessage *msg)
{
	const Skerry__Local__V1__PingReply *reply = (const Skerry__Local__V1__PingReply *)msg;

	(void)arg;
	(void)req;
	assert_int_equal(reply->sequence, answered + lost);
	if (reply->lost) {
		lost++;
		assert_int_equal(reply->rtt_us, 0);
	} else {
		answered++;
		assert_true(reply->rtt_us > 0);
	}
}

/* Ping of this device itself: through the agent's own ICMP socket. */
static void ping_answers(void **state)
{
	static const struct rpc_stream_handler handler = {.on_message = on_reply,
							  .on_end = on_up_end};
	Skerry__Local__V1__PingRequest ping = SKERRY__LOCAL__V1__PING_REQUEST__INIT;
	struct world *w = *state;
	struct rpc_opts opts = {.deadline_ms = 5000};

	up(w);
	w->up_done = false;
	ping.target = (char *)"DEVICE.home.internal";
	ping.count = 3;
	ping.interval_ms = 10;
	rpc_open(local(w), "/skerry.local.v1.LocalService/Ping", &ping.base,
		 &skerry__local__v1__ping_reply__descriptor, &opts, &handler, w);
	RUN_UNTIL(w, 5000, w->up_done);
	assert_int_equal(w->up_status.code, 0);
	assert_int_equal(answered, 3);
	assert_int_equal(lost, 0);
	answered = 0;
	/* A peer that does not exist on the wire: each echo is told as lost, then the call ends well. */
	w->up_done = false;
	ping.target = (char *)"100.64.0.3";
	ping.timeout_ms = 100;
	rpc_open(local(w), "/skerry.local.v1.LocalService/Ping", &ping.base,
		 &skerry__local__v1__ping_reply__descriptor, &opts, &handler, w);
	RUN_UNTIL(w, 5000, w->up_done);
	assert_int_equal(w->up_status.code, 0);
	assert_int_equal(lost, 3);
}

/* What the commands of the host say of its routes, rules, addresses and resolver. */
static void host_facts(struct world *w, char *out, size_t cap)
{
	char command[600];
	FILE *f;

	/* The kernel gives a link its link-local address in its own time. */
	snprintf(command, sizeof(command),
		 "{ ip -4 route show table all; ip -6 route show table all; ip rule; ip -6 rule; "
		 "ip -o addr show | sed 's/ tentative//'; cat %s; } | grep -v 'fe80:\\|ff00:' | "
		 "sort",
		 w->config.resolv_conf);
	f = popen(command, "r");
	out[fread(out, 1, cap - 1, f)] = '\0';
	pclose(f);
}

/* Each lie against the real WireGuard, the real routes and the real resolver: they are as they were. */
static void a_lying_lighthouse_reaches_nothing_real(void **state)
{
	static char before[65536], after[65536];
	struct world *w = *state;
	uint8_t addr[4];

	assert_ok(file_write_atomic(w->config.resolv_conf, "nameserver 192.0.2.99\n", 22, 0644,
				    NULL));
	/* A device that has nothing but loopback would take endpoints there. */
	shell("ip link add skv0 type veth peer name skv1 && ip addr add 192.0.2.1/24 dev skv0 && "
	      "ip link set skv0 up && ip link set skv1 up");
	up(w);
	host_facts(w, before, sizeof(before));
	assert_contains(before, "100.64.0.0/10 dev skt1");
	for (size_t i = 0; i < n_lies; i++) {
		struct mesh actual = {0};
		struct err e = {0};

		/* One that changes what this device is told of itself takes the mesh away: not a lie that is believed. */
		if (!tell_lie(w, i)) {
			continue;
		}
		assert_ok(w->agent->wg->ops->get(w->agent->wg, &actual, &e));
		assert_ok(w->agent->host->ops->get(w->agent->host, &actual, &e));
		assert_nothing_reached(w, lies[i].name, &actual, &actual);
		if (lies[i].kind > REFUSE_FATAL_LAST) {
			assert_int_equal(actual.n_peers, lies[i].peers);
		}
		mesh_done(&actual);
		if (lies[i].kind != REFUSE_OWN_ADDRESS && lies[i].kind != REFUSE_PREFIX) {
			host_facts(w, after, sizeof(after));
			if (strcmp(before, after) != 0) {
				TEST_FAIL("%s reached the host:\n%s\nbefore:\n%s", lies[i].name,
					  after, before);
			}
		}
	}
	assert_int_not_equal(ask(w, "www.bank.example", addr), 0);
	shell("ip link del skv0");
}

static int teardown_real(void **state)
{
	int r = teardown(state);

	IGNORE(system("ip link del skt1 2>/dev/null"));
	return r;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup_real, teardown_real)
		T(names_are_served),
		T(restart_changes_nothing),
		T(dead_wireguard_is_repaired),
		T(ping_answers),
		T(a_lying_lighthouse_reaches_nothing_real),
	};
	const char *skip = lab_enter();

	if (skip != NULL) {
		printf("skipped: %s\n", skip);
		return 77;
	}
	world_begin();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
