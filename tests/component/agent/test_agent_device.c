/* The agent on its device: what a restart keeps, what the owner and the clock decide, what a lying lighthouse reaches. */
#include "tests/component/agent/world.h"

/* With all lighthouses away a new agent process finds everything in place and changes nothing. */
static void restart_from_the_stored_netmap(void **state)
{
	struct world *w = *state;
	size_t ops;
	uint64_t session;

	up(w);
	session = info(w).session;
	run_for(w, 50);
	ops = w->wg.ops;
	agent_end(w);
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		fake_kill(&w->lh[i]);
	}
	agent_begin(w);
	assert_int_equal(w->wg.ops, ops);
	assert_int_equal(w->agent->operations, 0);
	assert_int_equal(w->wg.mesh.n_peers, 3);
	assert_int_equal(w->agent->netmap.revision, 100);
	/* And on a host that lost everything the mesh is made from the store. */
	agent_end(w);
	wg_fake_done(&w->wg);
	wg_fake_init(&w->wg);
	host_fake_done(&w->host);
	host_fake_init(&w->host);
	host_fake_addr(&w->host, "192.0.2.1/24", "eth0");
	agent_begin(w);
	assert_int_equal(w->wg.mesh.n_peers, 3);
	assert_true(w->host.mesh.up);
	fake_restart(&w->lh[2]);
	RUN_UNTIL(w, 6000, attached_to(w) == 2);
	assert_true(w->lh[2].last_session > session);
}

static void damaged_store_is_no_obstacle(void **state)
{
	struct world *w = *state;
	char *path;

	up(w);
	agent_end(w);
	path = mem_printf("%s/netmap.pb", w->config.state_dir);
	assert_ok(file_write_atomic(path, "sknetm01 nonsense", 17, 0600, NULL));
	mem_free(path);
	agent_begin(w);
	RUN_UNTIL(w, 5000,
		  attached_to(w) >= 0 && w->agent->netmap.revision == 100 &&
			  w->wg.mesh.n_peers == 3);
}

/* The state directory on another host: new keys, no enrolment. */
static void moved_state_gets_new_keys(void **state)
{
	struct world *w = *state;
	uint8_t machine[32], node[32];

	up(w);
	memcpy(machine, w->agent->identity.machine_key, 32);
	memcpy(node, w->agent->identity.node_key, 32);
	agent_end(w);
	assert_ok(file_write_atomic(w->config.machine_id, "another\n", 8, 0644, NULL));
	agent_begin(w);
	assert_true(w->agent->identity.moved);
	assert_false(w->agent->identity.enrolment.registered);
	assert_memory_not_equal(machine, w->agent->identity.machine_key, 32);
	assert_memory_not_equal(node, w->agent->identity.node_key, 32);
	assert_int_equal(w->wg.mesh.n_peers, 0);
}

static void wide_modes_are_refused(void **state)
{
	struct world *w = *state;
	struct agent_opts opts = {
		.config = &w->config, .wg = &w->wg.wg, .host = &w->host.host, .no_dns = true};
	char *command = mem_printf("chmod 0644 %s/machine.key", w->config.state_dir);
	struct agent *agent;
	struct err e = {0};

	agent_end(w);
	assert_int_equal(system(command), 0);
	mem_free(command);
	assert_true(agent_new(w->loop, &opts, &agent, &e) < 0);
	assert_contains(e.msg, "chmod");
}

static void down_takes_the_mesh_away_and_up_brings_it_back(void **state)
{
	struct world *w = *state;
	Skerry__Local__V1__DownRequest msg = SKERRY__LOCAL__V1__DOWN_REQUEST__INIT;
	ProtobufCMessage *reply;
	struct arena arena;
	struct err e = {0};

	up(w);
	arena_init(&arena, 65536);
	assert_ok(rpc_unary_wait(w->loop, local(w), "/skerry.local.v1.LocalService/Down", &msg.base,
				 &skerry__local__v1__down_response__descriptor, NULL, &arena,
				 &reply, &e));
	assert_false(((Skerry__Local__V1__DownResponse *)reply)->unchanged);
	arena_done(&arena);
	assert_int_equal(w->wg.mesh.n_peers, 0);
	assert_int_equal(w->host.mesh.n_addrs, 0);
	assert_int_equal(w->host.mesh.n_routes, 0);
	assert_false(w->host.mesh.up);
	assert_int_equal(info(w).phase, CONTROL_OFF);
	assert_int_equal(w->agent->listen_port, 41641); /* it stays chosen: none was taken */
	up_start(w, "", 10000);                         /* still registered: no key is needed */
	RUN_UNTIL(w, 11000, w->up_done);
	assert_int_equal(w->up_status.code, 0);
	assert_int_equal(w->wg.mesh.n_peers, 3);
}

static void logout_tells_the_lighthouse_and_forgets(void **state)
{
	struct world *w = *state;
	Skerry__Local__V1__LogoutRequest msg = SKERRY__LOCAL__V1__LOGOUT_REQUEST__INIT;
	uint8_t node[32];
	ProtobufCMessage *reply;
	struct arena arena;
	struct err e = {0};
	int at;

	up(w);
	at = attached_to(w);
	memcpy(node, w->agent->identity.node_key, 32);
	arena_init(&arena, 65536);
	assert_ok(rpc_unary_wait(w->loop, local(w), "/skerry.local.v1.LocalService/Logout",
				 &msg.base, &skerry__local__v1__logout_response__descriptor, NULL,
				 &arena, &reply, &e));
	assert_true(((Skerry__Local__V1__LogoutResponse *)reply)->lighthouse_told);
	arena_done(&arena);
	assert_int_equal(w->lh[at].logouts, 1);
	assert_int_equal(w->wg.mesh.n_peers, 0);
	assert_memory_not_equal(node, w->agent->identity.node_key, 32);
	assert_false(w->agent->identity.enrolment.registered);
}

static void own_and_peer_expiry_hold_locally(void **state)
{
	struct world *w = *state;
	Google__Protobuf__Timestamp past = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
	Skerry__V1__NetmapDelta delta = SKERRY__V1__NETMAP_DELTA__INIT;
	Skerry__V1__NetmapPeer *peers[] = {w->map.peers[0]};
	int at;

	up(w);
	at = attached_to(w);
	past.seconds = 1000000000;
	w->map.peer[0].expire_time = &past;
	delta.peers = peers;
	delta.n_peers = 1;
	assert_true(fake_send_delta(&w->lh[at], &delta, FAKE_EPOCH, 101));
	RUN_UNTIL(w, 2000, w->wg.mesh.n_peers == 2);
	assert_null(mesh_find_peer(&w->wg.mesh, w->map.peer_key[0]));

	skerry__v1__netmap_delta__init(&delta);
	w->map.self.expire_time = &past;
	delta.self = &w->map.self;
	assert_true(fake_send_delta(&w->lh[at], &delta, FAKE_EPOCH, 102));
	RUN_UNTIL(w, 2000, w->wg.mesh.n_peers == 0);
	assert_false(w->host.mesh.up);
}

static void endpoints_are_reported_once(void **state)
{
	struct world *w = *state;
	uint64_t reports;
	int at;

	up(w);
	at = attached_to(w);
	RUN_UNTIL(w, 3000, w->lh[at].last_endpoints == 1);
	run_for(w, 100);
	reports = w->lh[at].reports;
	w->host.cb(w->host.arg); /* something changed, the addresses did not */
	run_for(w, 200);
	assert_int_equal(w->lh[at].reports, reports);
	host_fake_addr(&w->host, "198.51.100.7/24", "eth1");
	w->host.cb(w->host.arg);
	RUN_UNTIL(w, 2000, w->lh[at].reports == reports + 1);
	assert_int_equal(w->lh[at].last_endpoints, 2);
}

static void taken_port_moves_on(void **state)
{
	struct world *w = *state;
	Skerry__Local__V1__Status *s;
	struct arena arena;

	w->wg.taken_port = 41641;
	up(w);
	assert_int_equal(w->wg.mesh.listen_port, 41642);
	assert_int_equal(w->agent->endpoints[0].port, 41642);
	s = status(w, &arena);
	assert_contains(s->warnings[0], "41641");
	arena_done(&arena);
}

static void next_steps_are_named(void **state)
{
	struct world *w = *state;
	Skerry__Local__V1__PingRequest ping = SKERRY__LOCAL__V1__PING_REQUEST__INIT;
	Skerry__Local__V1__Status *s;
	struct arena arena;

	static const struct rpc_stream_handler handler = {.on_message = on_up_message,
							  .on_end = on_up_end};

	s = status(w, &arena);
	assert_int_equal(s->state, SKERRY__LOCAL__V1__STATE__STATE_NEEDS_LOGIN);
	arena_done(&arena);
	ping.target = (char *)"peer-2";
	rpc_open(local(w), "/skerry.local.v1.LocalService/Ping", &ping.base,
		 &skerry__local__v1__ping_reply__descriptor, NULL, &handler, w);
	RUN_UNTIL(w, 2000, w->up_done);
	assert_string_equal(w->up_status.reason, "NOT_REGISTERED");
	up(w);
	w->up_done = false;
	ping.target = (char *)"nobody";
	rpc_open(local(w), "/skerry.local.v1.LocalService/Ping", &ping.base,
		 &skerry__local__v1__ping_reply__descriptor, NULL, &handler, w);
	RUN_UNTIL(w, 2000, w->up_done);
	assert_string_equal(w->up_status.reason, "NO_SUCH_PEER");
}

/* A lying lighthouse tells each thing that is refused, one after the other, over the wire. */
static void a_lying_lighthouse_reaches_nothing(void **state)
{
	struct world *w = *state;
	Skerry__Local__V1__Status *s;
	struct arena arena;

	up(w);
	for (size_t i = 0; i < n_lies; i++) {
		if (!tell_lie(w, i)) {
			continue;
		}
		assert_nothing_reached(w, lies[i].name, &w->wg.mesh, &w->host.mesh);
		if (lies[i].kind > REFUSE_FATAL_LAST) {
			assert_int_equal(w->wg.mesh.n_peers, lies[i].peers);
		}
	}
	s = status(w, &arena);
	assert_true(s->n_refusals > 50);
	assert_true(s->n_refusals <= AGENT_REFUSALS);
	arena_done(&arena);
	assert_true(metrics_value("skerry_agent_refusals_total", "kind=\"DEFAULT_ROUTE\"") >= 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(restart_from_the_stored_netmap),
		T(damaged_store_is_no_obstacle),
		T(moved_state_gets_new_keys),
		T(wide_modes_are_refused),
		T(down_takes_the_mesh_away_and_up_brings_it_back),
		T(logout_tells_the_lighthouse_and_forgets),
		T(own_and_peer_expiry_hold_locally),
		T(endpoints_are_reported_once),
		T(taken_port_moves_on),
		T(next_steps_are_named),
		T(a_lying_lighthouse_reaches_nothing),
	};

	world_begin();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
