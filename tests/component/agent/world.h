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

/* Runs the loop until the condition holds. */
#define RUN_UNTIL(w, ms, condition)                                                       \
	do {                                                                              \
		uint64_t end_ = clock_mono_ms() + (ms);                                   \
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

/* TEST_DEBUG=1 shows the agent's log, TEST_ONLY=pattern runs some tests. */
static UNUSED void world_begin(void)
{
	const struct log_options log = {.level = getenv("TEST_DEBUG") ? LOG_LEVEL_DEBUG
								      : LOG_LEVEL_ERROR};

	log_init(&log);
	crypto_init();
	cmocka_set_test_filter(getenv("TEST_ONLY"));
}
