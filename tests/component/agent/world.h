/* An agent with fakes below it and scripted lighthouses above it; TLS, HTTP/2, state directory and local socket are real. */
#pragma once

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
	bool real; /* wireguard-go, rtnetlink and names instead of the fakes */
	struct rpc_channel *local;
	char key[512];
	/* of the last Up */
	bool up_done;
	struct err up_status;
	char up_text[4096];
	bool force; /* up registers anew */
};

/* ---- World --------------------------------------------------------------------------------------------------------- */

static UNUSED void agent_begin(struct world *w)
{
	struct agent_opts opts = {.config = &w->config};
	struct err e = {0};

	if (!w->real) {
		opts.wg = &w->wg.wg;
		opts.host = &w->host.host;
		opts.no_dns = true;
	}
	if (agent_new(w->loop, &opts, &w->agent, &e) < 0) {
		TEST_FAIL("agent_new: %s", e.msg);
	}
}

static UNUSED void agent_end(struct world *w)
{
	rpc_channel_free(w->local);
	w->local = NULL;
	agent_free(w->agent);
	w->agent = NULL;
}

static UNUSED void make_key(struct world *w, const uint8_t pin[32], uint64_t cluster)
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

static UNUSED int setup_world(void **state, bool real)
{
	struct world *w = MEM_NEW(struct world);
	char yaml[1024];
	struct err e = {0};

	w->real = real;
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
	snprintf(yaml, sizeof(yaml),
		 "state_dir: %s/state\nsocket: %s/agent.sock\nuapi_dir: %s\n"
		 "machine_id: %s/machine-id\nresolv_conf: %s/resolv.conf\ninterface: skt1\n",
		 w->dir, w->dir, real ? "/var/run/wireguard" : w->dir, w->dir, w->dir);
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

static UNUSED int setup(void **state)
{
	return setup_world(state, false);
}

static UNUSED int setup_real(void **state)
{
	return setup_world(state, true);
}

static UNUSED int teardown(void **state)
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

static UNUSED void tick(void *arg)
{
	(void)arg;
}

/* Runs the loop until the condition holds: within ms, on a machine that has the time for it. */
#define RUN_UNTIL(w, ms, condition)                                                       \
	do {                                                                              \
		uint64_t end_ = clock_mono_ms() + MAX((ms), 20000);                       \
		struct loop_timer tick_ = {0};                                            \
		while (!(condition)) {                                                    \
			if (clock_mono_ms() > end_) {                                     \
				TEST_FAIL("not within %d ms: %s", (int)(ms), #condition); \
			}                                                                 \
			loop_timer_start(&tick_, (w)->loop, 5, tick, NULL);               \
			loop_turn((w)->loop, true);                                       \
		}                                                                         \
		loop_timer_stop(&tick_);                                                  \
	} while (0)

static UNUSED void run_for(struct world *w, uint64_t ms)
{
	uint64_t end = clock_mono_ms() + ms;

	RUN_UNTIL(w, ms + 5000, clock_mono_ms() >= end);
}

static UNUSED struct control_info info(struct world *w)
{
	struct control_info i;

	control_info(w->agent->control, &i);
	return i;
}

static UNUSED int attached_to(struct world *w)
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

static UNUSED struct rpc_channel *local(struct world *w)
{
	if (w->local == NULL) {
		char *target = mem_printf("unix:%s", w->config.socket);
		struct rpc_channel_opts opts = {.targets = (const char *const *)&target,
						.n_targets = 1};

		w->local = rpc_channel_new(w->loop, &opts);
		mem_free(target);
	}
	return w->local;
}

static UNUSED void on_up_message(void *arg, struct rpc_request *req, const ProtobufCMessage *msg)
{
	const Skerry__Local__V1__UpEvent *event = (const Skerry__Local__V1__UpEvent *)msg;
	struct world *w = arg;
	size_t len = strlen(w->up_text);

	(void)req;
	snprintf(w->up_text + len, sizeof(w->up_text) - len, "%d%s:%s\n", event->step,
		 event->waiting ? "?" : "", event->text);
}

static UNUSED void on_up_end(void *arg, const struct err *status)
{
	struct world *w = arg;

	w->up_done = true;
	w->up_status = *status;
}

static UNUSED void up_start(struct world *w, const char *key, uint64_t deadline_ms)
{
	static const struct rpc_stream_handler handler = {.on_message = on_up_message,
							  .on_end = on_up_end};
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
	msg.force_register = w->force;
	w->up_done = false;
	w->up_text[0] = '\0';
	rpc_open(local(w), "/skerry.local.v1.LocalService/Up", &msg.base,
		 &skerry__local__v1__up_event__descriptor, &opts, &handler, w);
}

static UNUSED void up(struct world *w)
{
	up_start(w, w->key, 10000);
	RUN_UNTIL(w, 11000, w->up_done);
	if (w->up_status.code != 0) {
		TEST_FAIL("up: %s\n%s", w->up_status.msg, w->up_text);
	}
}

static UNUSED Skerry__Local__V1__Status *status(struct world *w, struct arena *arena)
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

/* ---- Lies ---------------------------------------------------------------------------------------------------------- */

/*
 * The lighthouse that the agent is attached to tells lie number i; returns when the agent has judged and applied it. false:
 * it cannot be told here, since the lighthouses of this world have addresses alone.
 */
static UNUSED bool tell_lie(struct world *w, size_t i)
{
	bool fatal = lies[i].kind <= REFUSE_FATAL_LAST;
	uint64_t revision = w->map.revision.revision + 1;
	struct fake_map map;
	int at = attached_to(w);

	if (lies[i].kind == REFUSE_LIGHTHOUSE_NAME && strstr(lies[i].name, "lighthouse") != NULL) {
		return false;
	}
	fake_map_init(&map, w->agent->identity.node_key, 4);
	map.revision.revision = revision;
	lies[i].tell(&map);
	w->map.revision.revision = revision; /* what the others have */
	assert_true(fake_send_chunk(&w->lh[at], &map.chunk));
	if (fatal) {
		RUN_UNTIL(w, 6000, attached_to(w) >= 0 && attached_to(w) != at);
	}
	RUN_UNTIL(w, 6000, w->agent->netmap.revision == revision);
	RUN_UNTIL(w, 2000, !loop_timer_active(&w->agent->apply_timer));
	return true;
}

/* Everything that reached WireGuard and the host lies inside the tailnet, whatever was told. */
static UNUSED void assert_nothing_reached(struct world *w, const char *lie, const struct mesh *wg,
					  const struct mesh *host)
{
	static const struct prefix v4 = {{4, {100, 64}}, 10};
	static const struct prefix v6 = {{6, {0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0}}, 48};

	for (size_t i = 0; i < wg->n_peers; i++) {
		const struct mesh_peer *p = &wg->peers[i];

		for (size_t j = 0; j < p->n_allowed; j++) {
			if ((!prefix_covers(&v4, &p->allowed[j]) &&
			     !prefix_covers(&v6, &p->allowed[j])) ||
			    p->allowed[j].len != (p->allowed[j].addr.family == 4 ? 32 : 128)) {
				TEST_FAIL("%s reached WireGuard", lie);
			}
		}
		if (p->endpoint.addr.family != 0 &&
		    (p->endpoint.addr.b[0] != 192 || p->endpoint.port != 41641)) {
			char text[IPPORT_TEXT];

			TEST_FAIL("%s reached an endpoint: %s", lie,
				  ipport_format(&p->endpoint, text));
		}
	}
	for (size_t i = 0; i < host->n_routes; i++) {
		const struct prefix *p = &host->routes[i].prefix;

		if (!prefix_equal(p, &v4) && !prefix_equal(p, &v6)) {
			TEST_FAIL("%s reached the routes", lie);
		}
	}
	for (size_t i = 0; i < host->n_addrs; i++) {
		if (!prefix_covers(&v4, &host->addrs[i]) && !prefix_covers(&v6, &host->addrs[i])) {
			TEST_FAIL("%s reached the addresses", lie);
		}
	}
	if (w->agent->admitted.n_records + w->agent->admitted.n_dns_routes +
		    w->agent->admitted.n_resolvers + w->agent->admitted.n_lighthouses >
	    0) {
		TEST_FAIL("%s reached the resolver", lie);
	}
}

/* TEST_DEBUG=1 shows the agent's log, TEST_ONLY=pattern runs some tests. */
static UNUSED void world_begin(void)
{
	const struct log_options log = {.level = getenv("TEST_DEBUG") ? LOG_LEVEL_DEBUG
								      : LOG_LEVEL_ERROR};

	log_init(&log);
	crypto_init();
	cmocka_set_test_filter(getenv("TEST_ONLY"));
}
