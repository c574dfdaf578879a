/* The whole agent against scripted lighthouses: registration, failover, what a restart keeps. WireGuard and the host are
 * fakes; TLS, HTTP/2, the state directory and the local socket are real. */
#include "tests/lib/test.h"

#include <unistd.h>

#include "agent/agent_int.h"
#include "base/arena.h"
#include "base/crypto.h"
#include "base/fileio.h"
#include "base/key.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "tests/component/agent/fake_lighthouse.h"
#include "tests/component/agent/lies.h"
#include "net/rpc_client.h"
#include "skerry/local/v1/agent_local.pb-c.h"

enum { LIGHTHOUSES = 3 };

struct world {
	char dir[TEST_DIR];
	struct loop *loop;
	struct fake_ca ca;
	struct fake lh[LIGHTHOUSES];
	struct fake_map map;
	struct wg_fake wg;
	struct host_fake host;
	struct agent_config config;
	struct agent *agent;
	struct rpc_channel *local;
	char key[512];
	/* of the last Up */
	bool up_done;
	struct err up_status;
	char up_text[4096];
};

/* ---- World --------------------------------------------------------------------------------------------------------- */

static void agent_begin(struct world *w)
{
	struct agent_opts opts = {.config = &w->config, .wg = &w->wg.wg, .host = &w->host.host, .no_dns = true};
	struct err e = {0};

	if (agent_new(w->loop, &opts, &w->agent, &e) < 0) {
		TEST_FAIL("agent_new: %s", e.msg);
	}
}

static void agent_end(struct world *w)
{
	rpc_channel_free(w->local);
	w->local = NULL;
	agent_free(w->agent);
	w->agent = NULL;
}

static void make_key(struct world *w, const uint8_t pin[32], uint64_t cluster)
{
	struct buf text = BUF_INIT;
	struct key key;

	key_generate(&key, KEY_AUTH, 5);
	key.has_pin = true;
	key.pin.cluster_id = cluster;
	memcpy(key.pin.spki_sha256, pin, 32);
	key_format(&key, &text);
	snprintf(w->key, sizeof(w->key), "%s", buf_str(&text));
	buf_done(&text);
}

static int setup(void **state)
{
	struct world *w = MEM_NEW(struct world);
	char yaml[1024];
	struct err e = {0};

	test_dir_make(w->dir);
	w->loop = loop_new("test");
	fake_ca_init(&w->ca);
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		fake_start(&w->lh[i], w->loop, &w->ca, 101 + i);
	}
	wg_fake_init(&w->wg);
	host_fake_init(&w->host);
	host_fake_addr(&w->host, "192.0.2.1/24", "eth0");
	w->host.mesh.mtu = 1420;
	snprintf(yaml, sizeof(yaml), "state_dir: %s/state\nsocket: %s/agent.sock\nuapi_dir: %s\nmachine_id: %s/machine-id\n"
				     "resolv_conf: %s/resolv.conf\n", w->dir, w->dir, w->dir, w->dir, w->dir);
	if (agent_config_parse(yaml, strlen(yaml), "agent.yaml", &w->config, &e) < 0) {
		TEST_FAIL("config: %s", e.msg);
	}
	make_key(w, w->ca.pin, FAKE_CLUSTER);
	agent_begin(w);
	fake_map_init(&w->map, w->agent->identity.node_key, 3);
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		w->lh[i].netmap = &w->map.chunk;
	}
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	agent_end(w);
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		fake_done(&w->lh[i]);
	}
	fake_ca_done(&w->ca);
	loop_free(w->loop);
	wg_fake_done(&w->wg);
	host_fake_done(&w->host);
	agent_config_done(&w->config);
	test_dir_remove(w->dir);
	mem_free(w);
	return 0;
}

static void tick(void *arg)
{
	(void)arg;
}

/* Runs the loop until the condition holds. */
#define RUN_UNTIL(w, ms, condition)                                                        \
	do {                                                                               \
		uint64_t end_ = clock_mono_ms() + (ms);                                    \
		struct loop_timer tick_ = {0};                                             \
		while (!(condition)) {                                                     \
			if (clock_mono_ms() > end_) {                                      \
				TEST_FAIL("not within %d ms: %s", (int)(ms), #condition);  \
			}                                                                  \
			loop_timer_start(&tick_, (w)->loop, 5, tick, NULL);                \
			loop_turn((w)->loop, true);                                        \
		}                                                                          \
		loop_timer_stop(&tick_);                                                   \
	} while (0)

static void run_for(struct world *w, uint64_t ms)
{
	uint64_t end = clock_mono_ms() + ms;

	RUN_UNTIL(w, ms + 5000, clock_mono_ms() >= end);
}

static struct control_info info(struct world *w)
{
	struct control_info i;

	control_info(w->agent->control, &i);
	return i;
}

static int attached_to(struct world *w)
{
	struct control_info i = info(w);

	for (int n = 0; n < LIGHTHOUSES; n++) {
		if (i.phase == CONTROL_ATTACHED && i.lighthouse_id == w->lh[n].id) {
			return n;
		}
	}
	return -1;
}

/* ---- The local socket ---------------------------------------------------------------------------------------------- */

static struct rpc_channel *local(struct world *w)
{
	if (w->local == NULL) {
		char *target = mem_printf("unix:%s", w->config.socket);
		struct rpc_channel_opts opts = {.targets = (const char *const *)&target, .n_targets = 1};

		w->local = rpc_channel_new(w->loop, &opts);
		mem_free(target);
	}
	return w->local;
}

static void on_up_message(void *arg, struct rpc_request *req, const ProtobufCMessage *msg)
{
	const Skerry__Local__V1__UpEvent *event = (const Skerry__Local__V1__UpEvent *)msg;
	struct world *w = arg;
	size_t len = strlen(w->up_text);

	(void)req;
	snprintf(w->up_text + len, sizeof(w->up_text) - len, "%d%s:%s\n", event->step, event->waiting ? "?" : "", event->text);
}

static void on_up_end(void *arg, const struct err *status)
{
	struct world *w = arg;

	w->up_done = true;
	w->up_status = *status;
}

static void up_start(struct world *w, const char *key, uint64_t deadline_ms)
{
	static const struct rpc_stream_handler handler = {.on_message = on_up_message, .on_end = on_up_end};
	Skerry__Local__V1__UpRequest msg = SKERRY__LOCAL__V1__UP_REQUEST__INIT;
	Skerry__Local__V1__Settings settings = SKERRY__LOCAL__V1__SETTINGS__INIT;
	Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
	struct rpc_opts opts = {.deadline_ms = deadline_ms};
	char *urls[LIGHTHOUSES], *paths[] = {"lighthouses"};

	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		urls[i] = w->lh[i].url;
	}
	settings.lighthouses = urls;
	settings.n_lighthouses = LIGHTHOUSES;
	mask.paths = paths;
	mask.n_paths = 1;
	msg.settings = &settings;
	msg.update_mask = &mask;
	msg.auth_key = (char *)key;
	w->up_done = false;
	w->up_text[0] = '\0';
	rpc_open(local(w), "/skerry.local.v1.LocalService/Up", &msg.base, &skerry__local__v1__up_event__descriptor, &opts,
		 &handler, w);
}

static void up(struct world *w)
{
	up_start(w, w->key, 10000);
	RUN_UNTIL(w, 11000, w->up_done);
	if (w->up_status.code != 0) {
		TEST_FAIL("up: %s\n%s", w->up_status.msg, w->up_text);
	}
}

static Skerry__Local__V1__Status *status(struct world *w, struct arena *arena)
{
	Skerry__Local__V1__GetStatusRequest msg = SKERRY__LOCAL__V1__GET_STATUS_REQUEST__INIT;
	ProtobufCMessage *reply;
	struct err e = {0};

	arena_init(arena, 16 << 20);
	if (rpc_unary_wait(w->loop, local(w), "/skerry.local.v1.LocalService/GetStatus", &msg.base,
			   &skerry__local__v1__status__descriptor, NULL, arena, &reply, &e) < 0) {
		TEST_FAIL("status: %s", e.msg);
	}
	return (Skerry__Local__V1__Status *)reply;
}

/* ---- Tests --------------------------------------------------------------------------------------------------------- */

static void registers_and_applies(void **state)
{
	struct world *w = *state;
	Skerry__Local__V1__Status *s;
	struct arena arena;
	int at;

	up(w);
	at = attached_to(w);
	assert_true(at >= 0);
	assert_string_equal(w->lh[at].last_key, w->key);
	assert_int_equal(w->lh[at].bad_proofs, 0);
	assert_int_equal(w->wg.mesh.n_peers, 3);
	assert_int_equal(w->wg.mesh.listen_port, 41641);
	assert_memory_equal(w->wg.mesh.private_key, w->agent->identity.node_secret, 32);
	assert_true(w->host.mesh.up);
	assert_int_equal(w->host.mesh.mtu, 1280);
	assert_int_equal(w->host.mesh.n_addrs, 4); /* own two, service two */
	assert_int_equal(w->host.mesh.n_routes, 2);
	assert_int_equal(w->wg.mesh.peers[0].endpoint.port, 41641);
	RUN_UNTIL(w, 3000, w->lh[at].last_endpoints == 1);
	for (const char *const *step = (const char *const[]){"1:", "2:", "3:", "4:", "6:", "7:", "8:", NULL}; *step; step++) {
		assert_contains(w->up_text, *step);
	}

	s = status(w, &arena);
	assert_int_equal(s->state, SKERRY__LOCAL__V1__STATE__STATE_RUNNING);
	assert_int_equal(s->n_peers, 3);
	assert_string_equal(s->self->dns_name, "device.home.internal");
	assert_string_equal(s->peers[0]->addresses[0], "100.64.0.2");
	assert_string_equal(s->filter, "none");
	assert_int_equal(s->n_refusals, 0);
	assert_int_equal(s->control->revision->revision, 100);
	arena_done(&arena);
}

static void refused_key_is_told(void **state)
{
	struct world *w = *state;

	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		w->lh[i].refuse_key = true;
	}
	up_start(w, w->key, 10000);
	RUN_UNTIL(w, 5000, w->up_done);
	assert_int_equal(w->up_status.code, ERR_UNAUTHENTICATED);
	assert_string_equal(w->up_status.reason, "KEY_UNKNOWN");
	assert_int_equal(w->wg.mesh.n_peers, 0);
	assert_false(w->host.mesh.up);
	assert_int_equal(info(w).phase, CONTROL_OFF);
}

/* A wrong pin: the handshake fails, Register is never called, so the key was never sent. */
static void wrong_pin_gets_no_key(void **state)
{
	struct world *w = *state;
	uint8_t pin[32] = {1};

	make_key(w, pin, FAKE_CLUSTER);
	up_start(w, w->key, 1500);
	RUN_UNTIL(w, 5000, w->up_done);
	assert_int_equal(w->up_status.code, ERR_UNAUTHENTICATED);
	assert_string_equal(w->up_status.reason, "WRONG_PIN");
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		assert_int_equal(w->lh[i].registers, 0);
		assert_int_equal(w->lh[i].connections, 0);
	}
}

static void cut_key_is_refused_before_traffic(void **state)
{
	struct world *w = *state;

	w->key[strlen(w->key) - 3] = '\0';
	up_start(w, w->key, 5000);
	RUN_UNTIL(w, 5000, w->up_done);
	assert_int_equal(w->up_status.code, ERR_INVALID);
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		assert_int_equal(w->lh[i].connections, 0);
	}
}

static void waits_for_approval(void **state)
{
	struct world *w = *state;
	Skerry__Local__V1__Status *s;
	struct arena arena;

	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		w->lh[i].want_approval = true;
	}
	up_start(w, "", 20000); /* no key, no pin: the first contact is taken on trust */
	RUN_UNTIL(w, 5000, strstr(w->up_text, "abcd-efgh") != NULL);
	assert_int_equal(info(w).phase, CONTROL_PENDING);
	s = status(w, &arena);
	assert_int_equal(s->state, SKERRY__LOCAL__V1__STATE__STATE_NEEDS_APPROVAL);
	assert_string_equal(s->approval->code, "abcd-efgh");
	arena_done(&arena);
	assert_int_equal(w->wg.mesh.n_peers, 0);
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		w->lh[i].approved = true;
	}
	RUN_UNTIL(w, 8000, w->up_done);
	assert_int_equal(w->up_status.code, 0);
	assert_int_equal(w->wg.mesh.n_peers, 3);
	assert_memory_equal(w->agent->identity.enrolment.pin, w->ca.pin, 32);
}

static void approval_timeout_names_the_code(void **state)
{
	struct world *w = *state;

	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		w->lh[i].want_approval = true;
	}
	up_start(w, "", 1500);
	RUN_UNTIL(w, 5000, w->up_done);
	assert_int_equal(w->up_status.code, ERR_DEADLINE);
	assert_string_equal(w->up_status.reason, "APPROVAL_TIMEOUT");
	assert_contains(w->up_status.msg, "abcd-efgh");
}

/* The killed lighthouse is replaced at once, with a higher session number, and nothing of the mesh is touched. */
static void killed_lighthouse_is_replaced(void **state)
{
	struct world *w = *state;
	uint64_t worst = 0;

	up(w);
	for (int round = 0; round < 3; round++) {
		int at = attached_to(w);
		size_t ops = w->wg.ops, before;
		uint64_t session = info(w).session, took;

		assert_true(at >= 0);
		before = clock_mono_ms();
		fake_kill(&w->lh[at]);
		RUN_UNTIL(w, 2000, attached_to(w) >= 0 && attached_to(w) != at);
		took = clock_mono_ms() - before;
		worst = MAX(worst, took);
		assert_true(info(w).session > session);
		assert_true(w->lh[attached_to(w)].last_had_have); /* resumes, does not ask for everything */
		assert_int_equal(w->lh[attached_to(w)].last_have_revision, 100);
		assert_int_equal(w->wg.ops, ops);
		fake_restart(&w->lh[at]);
	}
	print_message("reattach after a kill: at most %d ms\n", (int)worst);
	assert_true(worst < 500);
}

static void all_away_and_back(void **state)
{
	struct world *w = *state;
	Skerry__Local__V1__Status *s;
	struct arena arena;
	size_t ops;

	up(w);
	ops = w->wg.ops;
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		fake_kill(&w->lh[i]);
	}
	RUN_UNTIL(w, 2000, info(w).phase == CONTROL_WAITING);
	s = status(w, &arena);
	assert_int_equal(s->state, SKERRY__LOCAL__V1__STATE__STATE_DETACHED);
	assert_true(s->control->problem[0] != '\0');
	arena_done(&arena);
	run_for(w, 1000);
	assert_int_equal(w->wg.mesh.n_peers, 3);
	assert_int_equal(w->wg.ops, ops);
	fake_restart(&w->lh[1]);
	RUN_UNTIL(w, 6000, attached_to(w) == 1);
}

/* A lighthouse whose call ends each time is not hammered. */
static void failing_lighthouse_is_not_hammered(void **state)
{
	struct world *w = *state;

	up(w);
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		w->lh[i].fail_code = ERR_UNAVAILABLE;
	}
	fake_kill(&w->lh[attached_to(w)]);
	RUN_UNTIL(w, 2000, attached_to(w) < 0);
	run_for(w, 2000);
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		assert_true(w->lh[i].connections < 25);
		w->lh[i].fail_code = 0;
	}
	RUN_UNTIL(w, 6000, attached_to(w) >= 0);
}

static void mute_lighthouse_is_left(void **state)
{
	struct world *w = *state;

	w->lh[0].mute = w->lh[1].mute = true;
	fake_kill(&w->lh[2]);
	up_start(w, w->key, 20000);
	run_for(w, 1000);
	w->lh[0].mute = w->lh[1].mute = false;
	RUN_UNTIL(w, 8000, w->up_done);
	assert_int_equal(w->up_status.code, 0);
}

/* Pings are answered, heartbeats do not come: no, the other way: no quorum, and another one has it. */
static void moves_away_without_quorum(void **state)
{
	struct world *w = *state;
	int at;

	up(w);
	at = attached_to(w);
	w->lh[at].quorum_age_ms = 6000;
	RUN_UNTIL(w, 5000, attached_to(w) != at && attached_to(w) >= 0);
	/* Nobody has a quorum: it stays where it is. */
	at = attached_to(w);
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		w->lh[i].quorum_age_ms = 6000;
	}
	run_for(w, 1500);
	assert_int_equal(attached_to(w), at);
}

static void stale_lighthouse_is_refused(void **state)
{
	struct world *w = *state;
	struct fake_map old;
	int at;

	up(w);
	at = attached_to(w);
	fake_map_init(&old, w->agent->identity.node_key, 1);
	old.revision.revision = 50;
	for (int i = 0; i < LIGHTHOUSES; i++) {
		if (i != at && i != (at + 1) % LIGHTHOUSES) {
			w->lh[i].netmap = &old.chunk;
		}
	}
	fake_kill(&w->lh[at]);
	/* It may ask the stale one first; it ends at the other, with the map that it had. */
	RUN_UNTIL(w, 5000, attached_to(w) == (at + 1) % LIGHTHOUSES);
	run_for(w, 300);
	assert_int_equal(attached_to(w), (at + 1) % LIGHTHOUSES);
	assert_int_equal(w->agent->netmap.revision, 100);
	assert_int_equal(w->wg.mesh.n_peers, 3);
}

static void deltas_are_applied(void **state)
{
	struct world *w = *state;
	Skerry__V1__NetmapDelta delta = SKERRY__V1__NETMAP_DELTA__INIT;
	Skerry__V1__NetmapPeer *peers[1];
	uint64_t removed[] = {3}, visible[] = {4};
	struct fake_map more;
	int at;

	up(w);
	at = attached_to(w);
	fake_map_init(&more, w->agent->identity.node_key, 5);
	peers[0] = more.peers[4];
	delta.peers = peers;
	delta.n_peers = 1;
	delta.removed = removed;
	delta.n_removed = 1;
	assert_true(fake_send_delta(&w->lh[at], &delta, FAKE_EPOCH, 101));
	RUN_UNTIL(w, 2000, w->agent->netmap.revision == 101 && mesh_find_peer(&w->wg.mesh, more.peer_key[4]) != NULL);
	assert_null(mesh_find_peer(&w->wg.mesh, more.peer_key[1]));
	assert_int_equal(w->wg.mesh.n_peers, 3);

	skerry__v1__netmap_delta__init(&delta);
	delta.visible_complete = true;
	delta.visible = visible;
	delta.n_visible = 1;
	assert_true(fake_send_delta(&w->lh[at], &delta, FAKE_EPOCH, 102));
	RUN_UNTIL(w, 2000, w->wg.mesh.n_peers == 1);
	assert_non_null(mesh_find_peer(&w->wg.mesh, more.peer_key[2]));

	/* A delta of another epoch is no use: everything is asked for anew. */
	w->map.revision.epoch = FAKE_EPOCH + 1;
	w->map.revision.revision = 7;
	skerry__v1__netmap_delta__init(&delta);
	assert_true(fake_send_delta(&w->lh[at], &delta, FAKE_EPOCH + 1, 7));
	RUN_UNTIL(w, 5000, w->agent->netmap.epoch == FAKE_EPOCH + 1 && w->wg.mesh.n_peers == 3);
}

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
	RUN_UNTIL(w, 5000, attached_to(w) >= 0 && w->agent->netmap.revision == 100 && w->wg.mesh.n_peers == 3);
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
	struct agent_opts opts = {.config = &w->config, .wg = &w->wg.wg, .host = &w->host.host, .no_dns = true};
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
				 &skerry__local__v1__down_response__descriptor, NULL, &arena, &reply, &e));
	assert_false(((Skerry__Local__V1__DownResponse *)reply)->unchanged);
	arena_done(&arena);
	assert_int_equal(w->wg.mesh.n_peers, 0);
	assert_int_equal(w->host.mesh.n_addrs, 0);
	assert_int_equal(w->host.mesh.n_routes, 0);
	assert_false(w->host.mesh.up);
	assert_int_equal(info(w).phase, CONTROL_OFF);
	up_start(w, "", 10000); /* still registered: no key is needed */
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
	assert_ok(rpc_unary_wait(w->loop, local(w), "/skerry.local.v1.LocalService/Logout", &msg.base,
				 &skerry__local__v1__logout_response__descriptor, NULL, &arena, &reply, &e));
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

	static const struct rpc_stream_handler handler = {.on_message = on_up_message, .on_end = on_up_end};

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

/* Everything that reached WireGuard and the host lies inside the tailnet, whatever was told. */
static void assert_nothing_reached(struct world *w, const char *lie)
{
	static const struct prefix v4 = {{4, {100, 64}}, 10};
	static const struct prefix v6 = {{6, {0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0}}, 48};

	for (size_t i = 0; i < w->wg.mesh.n_peers; i++) {
		const struct mesh_peer *p = &w->wg.mesh.peers[i];

		for (size_t j = 0; j < p->n_allowed; j++) {
			if ((!prefix_covers(&v4, &p->allowed[j]) && !prefix_covers(&v6, &p->allowed[j])) ||
			    p->allowed[j].len != (p->allowed[j].addr.family == 4 ? 32 : 128)) {
				TEST_FAIL("%s reached WireGuard", lie);
			}
		}
		if (p->endpoint.addr.family != 0 && (p->endpoint.addr.b[0] != 192 || p->endpoint.port != 41641)) {
			TEST_FAIL("%s reached an endpoint", lie);
		}
	}
	for (size_t i = 0; i < w->host.mesh.n_routes; i++) {
		const struct prefix *p = &w->host.mesh.routes[i].prefix;

		if (!prefix_equal(p, &v4) && !prefix_equal(p, &v6)) {
			TEST_FAIL("%s reached the routes", lie);
		}
	}
	for (size_t i = 0; i < w->host.mesh.n_addrs; i++) {
		if (!prefix_covers(&v4, &w->host.mesh.addrs[i]) && !prefix_covers(&v6, &w->host.mesh.addrs[i])) {
			TEST_FAIL("%s reached the addresses", lie);
		}
	}
	if (w->agent->admitted.n_records + w->agent->admitted.n_dns_routes + w->agent->admitted.n_resolvers +
		    w->agent->admitted.n_lighthouses > 0) {
		TEST_FAIL("%s reached the resolver", lie);
	}
}

/* A lying lighthouse tells each thing that is refused, one after the other, over the wire. */
static void a_lying_lighthouse_reaches_nothing(void **state)
{
	struct world *w = *state;
	Skerry__Local__V1__Status *s;
	struct arena arena;
	struct fake_map map;
	uint64_t revision = 100;

	up(w);
	for (size_t i = 0; i < n_lies; i++) {
		bool fatal = lies[i].kind <= REFUSE_FATAL_LAST;
		int at = attached_to(w);

		if (lies[i].kind == REFUSE_LIGHTHOUSE_NAME && strstr(lies[i].name, "lighthouse") != NULL) {
			continue; /* needs a lighthouse with a name; the lighthouses of this test have addresses alone */
		}
		fake_map_init(&map, w->agent->identity.node_key, 4);
		map.revision.revision = ++revision;
		lies[i].tell(&map);
		w->map.revision.revision = revision; /* what the others have */
		assert_true(fake_send_chunk(&w->lh[at], &map.chunk));
		if (fatal) {
			RUN_UNTIL(w, 6000, attached_to(w) >= 0 && attached_to(w) != at);
			RUN_UNTIL(w, 6000, w->agent->netmap.revision == revision);
		} else {
			RUN_UNTIL(w, 2000, w->agent->netmap.revision == revision);
		}
		RUN_UNTIL(w, 2000, !loop_timer_active(&w->agent->apply_timer));
		assert_nothing_reached(w, lies[i].name);
		if (!fatal) {
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
	const struct log_options log = {.level = getenv("TEST_DEBUG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR};
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(registers_and_applies),
		T(refused_key_is_told),
		T(wrong_pin_gets_no_key),
		T(cut_key_is_refused_before_traffic),
		T(waits_for_approval),
		T(approval_timeout_names_the_code),
		T(killed_lighthouse_is_replaced),
		T(all_away_and_back),
		T(failing_lighthouse_is_not_hammered),
		T(mute_lighthouse_is_left),
		T(moves_away_without_quorum),
		T(stale_lighthouse_is_refused),
		T(deltas_are_applied),
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

	log_init(&log);
	crypto_init();
	cmocka_set_test_filter(getenv("TEST_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
