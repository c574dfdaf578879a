#include "api/agent_int.h"

#include <stdio.h>
#include <string.h>

#include "base/crypto.h"
#include "base/enc.h"
#include "base/limits.h"
#include "base/mem.h"
#include "proto/pb_util.h"
#include "tailnet/netmap.h"
#include "tailnet/query.h"

struct agent_service *agent_service_new(struct api *api)
{
	struct agent_service *s = mem_zalloc(sizeof(*s));

	s->api = api;
	s->cluster = api->cluster;
	s->loop = api->loop;
	s->box_secret = secret_alloc(AGENT_KEY);
	crypto_x25519_keypair(s->box_public, s->box_secret);
	s->source = watch_source_cluster(s->cluster);
	s->hub = watch_hub_new(s->loop, &s->source);
	list_init(&s->waiters);
	list_init(&s->reports);
	sources_init(&s->asking, LIM_SOURCES, LIM_PENDING_PER_SOURCE,
		     LIM_PENDING_PER_SOURCE * 60000ull);
	s->report_hook.run = agent_report_flush;
	s->report_hook.arg = s;
	s->registered = metrics_counter("skerry_registrations_total",
					"Registrations by what became of them",
					"result=\"registered\"");
	s->refused = metrics_counter("skerry_registrations_total",
				     "Registrations by what became of them", "result=\"refused\"");
	s->waiting = metrics_gauge("skerry_registrations_waiting",
				   "Devices that wait for a person here", NULL);
	s->report_limited = metrics_counter("skerry_reports_limited_total",
					    "Reports refused by the device's token bucket", NULL);
	s->report_unchanged = metrics_counter("skerry_reports_unchanged_total",
					      "Reports that said nothing new and were not proposed",
					      NULL);
	return s;
}

void agent_service_free(struct agent_service *s)
{
	if (!s)
		return;
	PRE(list_empty(&s->waiters) && list_empty(&s->reports));
	loop_flush_remove(&s->report_hook);
	watch_hub_free(s->hub);
	watch_source_free(&s->source);
	secret_free(s->box_secret);
	map_done(&s->devices);
	sources_done(&s->asking);
	mem_free(s);
}

void agent_service_register(struct agent_service *s, struct rpc_server *server)
{
	static const struct rpc_handler reg = {.on_call = agent_register};
	static const struct rpc_handler watch = {.on_call = agent_watch};
	static const struct rpc_handler report = {.on_call = agent_report};
	static const struct rpc_handler logout = {.on_call = agent_logout};

	rpc_server_add(server, "/skerry.v1.AgentService/Register", &reg, s);
	rpc_server_add(server, "/skerry.v1.AgentService/Watch", &watch, s);
	rpc_server_add(server, "/skerry.v1.AgentService/Report", &report, s);
	rpc_server_add(server, "/skerry.v1.AgentService/Logout", &logout, s);
}

void agent_service_changes(struct agent_service *s, const struct cluster_changes *changes)
{
	watch_hub_changes(s->hub, changes);
	agent_register_changes(s, changes);
}

/* ---- what the methods share ---- */

int agent_machine_key(struct rpc_call *call, uint8_t ret[AGENT_KEY], struct err *err)
{
	const struct caller *c = caller_of(call);

	if (c->kind != CALLER_DEVICE)
		return err_reason(err, ERR_UNAUTHENTICATED, "DEVICE_PROOF_MISSING",
				  "the call names no machine key (metadata skerry-machine-key-bin, "
				  "skerry-device-proof-bin)");
	memcpy(ret, c->machine_key, AGENT_KEY);
	return 0;
}

static void device_key(const uint8_t machine[AGENT_KEY], uint64_t session,
		       uint8_t key[AGENT_KEY + 8])
{
	memcpy(key, machine, AGENT_KEY);
	memcpy(key + AGENT_KEY, &session, 8);
}

struct agent_device *agent_device_find(struct agent_service *s, const uint8_t machine[AGENT_KEY],
				       uint64_t session)
{
	uint8_t key[AGENT_KEY + 8];
	struct map_iter it = {0};

	if (session) {
		device_key(machine, session, key);
		return map_get(&s->devices, key, sizeof(key));
	}
	while (map_next(&s->devices, &it)) {
		struct agent_device *d = it.value;

		if (!memcmp(d->machine, machine, AGENT_KEY))
			return d;
	}
	return NULL;
}

struct agent_device *agent_device_add(struct agent_service *s, const uint8_t machine[AGENT_KEY],
				      uint64_t session)
{
	struct agent_device *d = mem_zalloc(sizeof(*d));
	uint8_t key[AGENT_KEY + 8];

	memcpy(d->machine, machine, AGENT_KEY);
	d->session = session;
	bucket_init(&d->reports, LIM_REPORT_BURST, LIM_REPORT_BURST * 60000ull / LIM_REPORT_PER_MIN,
		    loop_now(s->loop));
	device_key(machine, session, key);
	map_put(&s->devices, key, sizeof(key), d);
	cluster_set_devices(s->cluster, map_len(&s->devices));
	return d;
}

void agent_device_remove(struct agent_service *s, struct agent_device *d)
{
	uint8_t key[AGENT_KEY + 8];

	device_key(d->machine, d->session, key);
	map_del(&s->devices, key, sizeof(key));
	mem_free(d);
	cluster_set_devices(s->cluster, map_len(&s->devices));
}

struct agent_answer *agent_answer_new(struct agent_service *s, struct rpc_call *call)
{
	struct agent_answer *a = mem_zalloc(sizeof(*a));

	api_pending_begin(s->api, &a->pending);
	a->server = rpc_call_server(call);
	a->ref = rpc_call_ref(call);
	return a;
}

void agent_answer_free(struct agent_answer *a)
{
	IGNORE(api_pending_end(&a->pending));
	mem_free(a);
}

struct rpc_call *agent_answer_take(struct agent_answer *a, const struct err *err,
				   const CommandResult *r)
{
	struct api *api = api_pending_end(&a->pending);
	struct rpc_call *call = api ? api_call_find(api, a->server, a->ref) : NULL;
	struct err e = {0};

	mem_free(a);
	if (!call)
		return NULL;
	if (r && !r->code)
		return call;
	if (r) {
		err_reason(&e, err_from_grpc(r->code), r->reason, "%s", r->message);
		snprintf(e.field, sizeof(e.field), "%s", r->field);
		err = &e;
	}
	rpc_call_finish(call, err);
	return NULL;
}

static bool same_machine(const NodeRecord *n, const uint8_t machine[AGENT_KEY])
{
	return n->machine_key &&
	       n->machine_key->kind ==
		       SKERRY__INTERNAL__V1__MACHINE_KEY_KIND__MACHINE_KEY_KIND_ED25519 &&
	       n->machine_key->key.len == AGENT_KEY &&
	       crypto_equal(n->machine_key->key.data, machine, AGENT_KEY);
}

int agent_node(struct agent_service *s, const uint8_t machine[AGENT_KEY], const void *node_key,
	       size_t len, struct arena *arena, NodeRecord **ret, struct err *err)
{
	struct query_cursor cursor = {0};
	struct cluster_read *read;
	NodeRecord *n = NULL;
	NodeRecord *found = NULL;
	int rc = cluster_read_begin(s->cluster, "agent-node", &read, err);

	if (rc < 0)
		return rc;
	if (len == AGENT_KEY) {
		rc = query_node_by_key(cluster_read_kv(read), node_key, arena, &n);
		if (rc >= 0 && same_machine(n, machine))
			found = n;
	} else {
		while ((rc = query_node_of_machine(
				cluster_read_kv(read),
				SKERRY__INTERNAL__V1__MACHINE_KEY_KIND__MACHINE_KEY_KIND_ED25519,
				machine, &cursor, arena, &n)) >= 0) {
			if (netmap_live(n))
				found = n;
		}
	}
	cluster_read_end(read);
	if (found) {
		*ret = found;
		return 0;
	}
	if (rc < 0 && rc != ERR_NOT_FOUND)
		return err_set(err, rc, "the device cannot be looked up");
	return err_reason(err, ERR_NOT_FOUND, "NODE_UNKNOWN",
			  "this device is not registered here; `skerry up` registers it");
}

void agent_fill_command(struct rpc_call *call, uint64_t node, Command *cmd,
			Skerry__Internal__V1__Actor *actor, char name[64])
{
	const struct caller *c = caller_of(call);

	caller_fill_command(c, cmd, actor, name);
	actor->id = node;
	if (!node)
		actor->kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_ANONYMOUS;
	/* Request ids are the machine's own, whatever node it is or becomes. */
	hex_encode(name + snprintf(name, 64, "mkey:"), c->machine_key, 16);
	cmd->caller = name;
}

int agent_check_endpoints(size_t n, Skerry__V1__Endpoint *const *e, struct err *err)
{
	char field[32];

	if (n > LIM_NODE_ENDPOINTS)
		return err_field(err, ERR_INVALID, "endpoints",
				 "%zu endpoints: at most %d are taken", n, LIM_NODE_ENDPOINTS);
	for (size_t i = 0; i < n; i++) {
		snprintf(field, sizeof(field), "endpoints[%zu]", i);
		if (e[i]->address.len != 4 && e[i]->address.len != 16)
			return err_field(err, ERR_INVALID, field,
					 "an address has 4 or 16 bytes, not %zu",
					 e[i]->address.len);
		if (e[i]->port < 1 || e[i]->port > 65535)
			return err_field(err, ERR_INVALID, field, "%u is not a UDP port",
					 e[i]->port);
	}
	return 0;
}

int agent_check_key(const ProtobufCBinaryData *key, const char *field, bool may_be_empty,
		    struct err *err)
{
	static const uint8_t zero[AGENT_KEY];

	if (key->len == 0 && may_be_empty)
		return 0;
	if (key->len != AGENT_KEY)
		return err_field(err, ERR_INVALID, field, "a key has 32 bytes, not %zu", key->len);
	if (!memcmp(key->data, zero, AGENT_KEY))
		return err_field(err, ERR_INVALID, field, "the key is all zeros");
	return 0;
}

/* ---- Logout ---- */

static void logout_done(void *arg, const struct err *err, const CommandResult *r)
{
	struct rpc_call *call = agent_answer_take(arg, err, r);
	Skerry__V1__LogoutResponse m = SKERRY__V1__LOGOUT_RESPONSE__INIT;

	if (call)
		rpc_call_reply(call, &m.base);
}

void agent_logout(void *arg, struct rpc_call *call, const ProtobufCMessage *msg)
{
	const Skerry__V1__LogoutRequest *req = (const Skerry__V1__LogoutRequest *)msg;
	struct agent_service *s = arg;
	Command cmd = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Skerry__Internal__V1__NodeLogout body = SKERRY__INTERNAL__V1__NODE_LOGOUT__INIT;
	struct propose_options o = {.class = PROPOSE_CLIENT,
				    .deadline_ms = rpc_call_deadline(call)};
	Skerry__Internal__V1__Actor actor;
	struct agent_device *device;
	struct agent_answer *answer;
	uint8_t machine[AGENT_KEY], hash[32];
	char name[64];
	struct arena arena;
	NodeRecord *n = NULL;
	struct err err = {0};
	int rc = agent_machine_key(call, machine, &err);

	arena_init(&arena, AGENT_ARENA_BYTES);
	device = rc < 0 ? NULL : agent_device_find(s, machine, 0);
	if (device)
		body.id = device->node;
	else if (rc >= 0 && (rc = agent_node(s, machine, NULL, 0, &arena, &n, &err)) >= 0)
		body.id = n->id;
	if (rc >= 0) {
		cmd.tailnet = device ? device->tailnet : n->tailnet;
		body.machine_key.data = machine;
		body.machine_key.len = sizeof(machine);
		cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_NODE_LOGOUT;
		cmd.node_logout = &body;
		agent_fill_command(call, body.id, &cmd, &actor, name);
		if (req->request_id[0]) {
			/* The request says nothing but who: the machine key is all that could differ. */
			crypto_sha256(hash, machine, sizeof(machine));
			cmd.request_id = req->request_id;
			cmd.request_hash = (ProtobufCBinaryData){.data = hash, .len = sizeof(hash)};
		}
		answer = agent_answer_new(s, call);
		rc = cluster_propose(s->cluster, s->loop, &cmd, &o, logout_done, answer, &err);
		if (rc < 0)
			agent_answer_free(answer);
	}
	arena_done(&arena);
	if (rc < 0)
		rpc_call_finish(call, &err);
}
