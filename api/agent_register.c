/*
 * Register. The first call of a connection is answered with a challenge: a device proves its node key to a key of this
 * process, over the TLS exporter. Then:
 *
 *   key given ......... key known (else: leader-level read, then refused) -> secret compared -> NodeRegister
 *   code given ........ the pending login decided? -> its node; else the call is held until it is, at most 30 s
 *   neither ........... the node exists already and is live -> that; else PendingCreate: a person decides
 *
 * The command carries the key's id and the verdict on its secret, never the secret.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/agent_int.h"
#include "api/device_proof.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/enc.h"
#include "base/key.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/name.h"
#include "base/prefix.h"
#include "base/rand.h"
#include "net/stream.h"
#include "proto/pb_util.h"
#include "tailnet/netmap.h"
#include "tailnet/query.h"
#include "tailnet/resource.h"
#include "tailnet/tailnet.h"

enum { HOLD_MS = 30000, LOOK_UP_MS = 5000, CODE_BYTES = 5, PROOF_MAX = 128 };

/* A call that has not been answered yet. Freed when the call is over and nothing is under way for it. */
struct register_call {
	struct list link; /* in service->waiters while it waits for a person */
	struct agent_service *service;
	struct rpc_call *call;
	const Skerry__V1__RegisterRequest *req; /* lives as long as the call */
	struct loop_timer hold;
	uint8_t machine[AGENT_KEY];
	struct key key; /* of req->auth_key */
	uint64_t tailnet;
	unsigned pending;
	bool gone, looked_up, answered_pending;
	char code[16];
};

static void go_on(struct register_call *r);

static void maybe_free(struct register_call *r)
{
	if (!r->gone || r->pending)
		return;
	key_done(&r->key);
	mem_free(r);
}

static void register_gone(struct register_call *r)
{
	if (list_linked(&r->link)) {
		list_remove(&r->link);
		gauge_add(r->service->waiting, -1);
	}
	loop_timer_stop(&r->hold);
	r->gone = true;
	maybe_free(r);
}

static void cancelled(void *arg, struct rpc_call *call, const struct err *why)
{
	(void)call;
	(void)why;
	register_gone(arg);
}

static void fail(struct register_call *r, const struct err *err)
{
	struct rpc_call *call = r->call;

	counter_add(r->service->refused, 1);
	rpc_call_set_cancel_cb(call, NULL, NULL);
	register_gone(r);
	rpc_call_finish(call, err);
}

static void reply(struct register_call *r, const Skerry__V1__RegisterResponse *m)
{
	struct rpc_call *call = r->call;

	rpc_call_set_cancel_cb(call, NULL, NULL);
	register_gone(r);
	rpc_call_reply(call, &m->base);
}

/* ---- answers ---- */

static size_t lighthouses(const struct kv *kv, struct arena *arena,
			  Skerry__V1__LighthouseAddress **out, size_t max)
{
	MemberRecord *m;
	uint64_t after = 0;
	size_t n = 0;

	while (n < max && query_member_next(kv, after, arena, &m) >= 0) {
		after = m->id;
		if (m->kind == SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_REMOVED)
			continue;
		out[n] = arena_alloc(arena, sizeof(**out));
		if (!out[n])
			break;
		skerry__v1__lighthouse_address__init(out[n]);
		out[n]->id = m->id;
		out[n]->name = m->name;
		out[n]->url = m->api_url;
		n++;
	}
	return n;
}

static void answer_registered(struct register_call *r, const struct kv *kv, NodeRecord *n,
			      struct arena *arena)
{
	Skerry__V1__RegisterResponse m = SKERRY__V1__REGISTER_RESPONSE__INIT;
	Skerry__V1__Registered reg = SKERRY__V1__REGISTERED__INIT;
	Skerry__V1__LighthouseAddress *lh[LIM_MEMBERS];
	Google__Protobuf__Timestamp expire;
	TailnetRecord *t;
	UserRecord *u;
	char *name = mem_printf("tailnets/%llu/nodes/%llu", (unsigned long long)n->tailnet,
				(unsigned long long)n->id);

	reg.name = name;
	reg.tailnet_id = n->tailnet;
	reg.node_id = n->id;
	reg.stable_id = n->stable_id;
	reg.given_name = n->given_name;
	reg.n_addresses = n->n_addresses;
	reg.addresses = n->addresses;
	reg.cluster_id = cluster_id(r->service->cluster);
	if (query_tailnet(kv, n->tailnet, arena, &t) >= 0)
		reg.tailnet_name = t->name;
	if (n->user && query_user(kv, n->tailnet, n->user, arena, &u) >= 0)
		reg.user = u->login_name;
	if (n->expire_ms)
		reg.expire_time = pb_timestamp_set(&expire, (int64_t)n->expire_ms);
	reg.lighthouses = lh;
	reg.n_lighthouses = lighthouses(kv, arena, lh, ARRAY_LEN(lh));
	m.outcome_case = SKERRY__V1__REGISTER_RESPONSE__OUTCOME_REGISTERED;
	m.registered = &reg;
	counter_add(r->service->registered, 1);
	reply(r, &m);
	mem_free(name);
}

static void answer_pending(struct register_call *r, const PendingRecord *p)
{
	Skerry__V1__RegisterResponse m = SKERRY__V1__REGISTER_RESPONSE__INIT;
	Skerry__V1__PendingApproval a = SKERRY__V1__PENDING_APPROVAL__INIT;
	Google__Protobuf__Timestamp expire;
	char *url = mem_printf("%s/approve/%s", r->service->api->api_url, p->code);

	a.code = p->code;
	a.url = url;
	a.expire_time = pb_timestamp_set(&expire, (int64_t)p->expire_ms);
	m.outcome_case = SKERRY__V1__REGISTER_RESPONSE__OUTCOME_PENDING;
	m.pending = &a;
	reply(r, &m);
	mem_free(url);
}

/* Answers with the node of that id in the local state. */
static void answer_node(struct register_call *r, uint64_t tailnet, uint64_t id)
{
	struct cluster_read *read;
	struct arena arena;
	NodeRecord *n;
	struct err err = {0};
	int rc = cluster_read_begin(r->service->cluster, "registered", &read, &err);

	if (rc < 0) {
		fail(r, &err);
		return;
	}
	arena_init(&arena, AGENT_ARENA_BYTES);
	if (query_node(cluster_read_kv(read), tailnet, id, &arena, &n) < 0) {
		err_reason(&err, ERR_ABORTED, "NODE_DELETED",
			   "the device was removed again right after it registered");
		fail(r, &err);
	} else {
		answer_registered(r, cluster_read_kv(read), n, &arena);
	}
	arena_done(&arena);
	cluster_read_end(read);
}

/* ---- commands ---- */

static void fill_facts(const struct register_call *r, Skerry__Internal__V1__RegisterFacts *f,
		       MachineKey *machine)
{
	const Skerry__V1__RegisterRequest *req = r->req;

	skerry__internal__v1__machine_key__init(machine);
	machine->kind = SKERRY__INTERNAL__V1__MACHINE_KEY_KIND__MACHINE_KEY_KIND_ED25519;
	machine->key.data = (uint8_t *)(uintptr_t)r->machine;
	machine->key.len = AGENT_KEY;
	skerry__internal__v1__register_facts__init(f);
	f->machine_key = machine;
	f->node_key = req->node_key;
	f->disco_key = req->disco_key;
	f->hostname = *req->hostname || !req->host_info ? req->hostname : req->host_info->hostname;
	f->host_info = req->host_info;
	f->n_requested_tags = req->n_requested_tags;
	f->requested_tags = req->requested_tags;
	f->ephemeral = req->ephemeral;
	f->n_endpoints = req->n_endpoints;
	f->endpoints = req->endpoints;
}

/* Tells the code of a pending login: the one that was just made, or an earlier one of the same device. */
static void answer_code(struct register_call *r, uint64_t id)
{
	struct cluster_read *read;
	struct arena arena;
	PendingRecord *p;
	struct err err = {0};
	int rc = cluster_read_begin(r->service->cluster, "pending", &read, &err);

	if (rc < 0) {
		fail(r, &err);
		return;
	}
	arena_init(&arena, AGENT_ARENA_BYTES);
	if (query_pending(cluster_read_kv(read), r->tailnet, id, &arena, &p) < 0) {
		err_reason(&err, ERR_ABORTED, "PENDING_UNKNOWN",
			   "the request for approval is gone again; run `skerry up` once more");
		fail(r, &err);
	} else {
		answer_pending(r, p);
	}
	arena_done(&arena);
	cluster_read_end(read);
}

static void proposed(void *arg, const struct err *err, const CommandResult *result)
{
	struct register_call *r = arg;
	struct err e = {0};

	r->pending--;
	if (r->gone) {
		maybe_free(r);
		return;
	}
	if (!result) {
		e = *err;
		fail(r, &e);
	} else if (result->code) {
		err_reason(&e, err_from_grpc(result->code), result->reason, "%s", result->message);
		snprintf(e.field, sizeof(e.field), "%s", result->field);
		fail(r, &e);
	} else if (r->answered_pending) {
		answer_code(r, result->id);
	} else {
		answer_node(r, r->tailnet, result->id);
	}
}

/* Pre-check, then propose. The command's parts live on the caller's stack: the call packs it. */
static void propose(struct register_call *r, Command *cmd)
{
	struct propose_options o = {.class = PROPOSE_CLIENT,
				    .deadline_ms = rpc_call_deadline(r->call)};
	Skerry__Internal__V1__Actor actor;
	uint8_t random[32];
	uint8_t hash[CRYPTO_HASH];
	size_t len = 0;
	const uint8_t *bytes = rpc_call_request_bytes(r->call, &len);
	char name[64];
	struct arena arena;
	struct err err = {0};
	int rc;

	rand_bytes(random, sizeof(random));
	cmd->random.data = random;
	cmd->random.len = sizeof(random);
	cmd->tailnet = r->tailnet;
	agent_fill_command(r->call, 0, cmd, &actor, name);
	cmd->request_id = r->req->request_id;
	if (*r->req->request_id) {
		crypto_sha256(hash, bytes ? (const void *)bytes : "", bytes ? len : 0);
		cmd->request_hash.data = hash;
		cmd->request_hash.len = sizeof(hash);
	}
	arena_init(&arena, AGENT_ARENA_BYTES);
	rc = cluster_precheck(r->service->cluster, cmd, &arena, &err);
	arena_done(&arena);
	if (rc >= 0) {
		r->pending++;
		rc = cluster_propose(r->service->cluster, r->service->loop, cmd, &o, proposed, r,
				     &err);
		if (rc < 0)
			r->pending--;
	}
	if (rc < 0)
		fail(r, &err);
}

static void register_with_key(struct register_call *r, bool verified)
{
	Command cmd = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Skerry__Internal__V1__NodeRegister body = SKERRY__INTERNAL__V1__NODE_REGISTER__INIT;
	Skerry__Internal__V1__RegisterFacts facts;
	MachineKey machine;

	fill_facts(r, &facts, &machine);
	body.facts = &facts;
	body.auth_key_id = r->key.id;
	body.auth_key_verified = verified;
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_NODE_REGISTER;
	cmd.node_register = &body;
	propose(r, &cmd);
}

/* Eight characters in two groups: 40 random bits, typed by a person within minutes and rate limited. */
static void new_code(char out[16])
{
	uint8_t random[CODE_BYTES];
	struct buf text = BUF_INIT;

	rand_bytes(random, sizeof(random));
	base32_append(&text, random, sizeof(random));
	snprintf(out, 16, "%.4s-%.4s", buf_str(&text), buf_str(&text) + 4);
	buf_done(&text);
}

static void ask_person(struct register_call *r)
{
	Command cmd = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Skerry__Internal__V1__PendingCreate body = SKERRY__INTERNAL__V1__PENDING_CREATE__INIT;
	Skerry__Internal__V1__RegisterFacts facts;
	MachineKey machine;
	const struct ipaddr *from = &rpc_call_peer(r->call)->addr.addr;
	uint64_t now = clock_mono_ms();
	struct err err = {0};

	/* Whoever asks needs no credential, and each request takes one of the tailnet's places. */
	if (!sources_fail(&r->service->asking, from, now)) {
		METRICS_COUNT("skerry_registrations_limited_total",
			      "Requests for approval over the limit of their address.", 1);
		rpc_call_set_retry(r->call,
				   (uint32_t)sources_wait_ms(&r->service->asking, from, now));
		err_reason(&err, ERR_LIMIT, "TOO_MANY_REQUESTS",
			   "too many devices ask for approval from this address: wait a minute, or "
			   "use an auth key");
		fail(r, &err);
		return;
	}
	new_code(r->code);
	fill_facts(r, &facts, &machine);
	body.code = r->code;
	body.facts = &facts;
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_PENDING_CREATE;
	cmd.pending_create = &body;
	r->answered_pending = true;
	propose(r, &cmd);
}

/* ---- finding out what is wanted ---- */

static void leader_read(void *arg, const struct err *err)
{
	struct register_call *r = arg;
	struct err e;

	r->pending--;
	if (r->gone) {
		maybe_free(r);
	} else if (err->code) {
		e = *err;
		fail(r, &e);
	} else {
		go_on(r);
	}
}

/* An unknown credential is refused only after the leader was asked. True: it is being asked. */
static bool ask_leader(struct register_call *r)
{
	struct read_want want = {.level = READ_LEADER, .deadline_ms = clock_mono_ms() + LOOK_UP_MS};
	struct err err = {0};

	if (r->looked_up)
		return false;
	r->looked_up = true;
	r->pending++;
	if (cluster_read_wait(r->service->cluster, r->service->loop, &want, leader_read, r, &err) <
	    0) {
		r->pending--;
		fail(r, &err);
	}
	return true;
}

static void with_key(struct register_call *r, const struct kv *kv, struct arena *arena)
{
	static const uint8_t dummy[CRYPTO_HASH];
	uint8_t hash[CRYPTO_HASH];
	const uint8_t *want = dummy;
	AuthKeyRecord *k = NULL;
	struct err err = {0};
	bool good;

	key_hash(&r->key, hash);
	if (query_auth_key_any(kv, r->key.id, arena, &k) >= 0 && k->credential &&
	    k->credential->hash_kind == SKERRY__INTERNAL__V1__HASH_KIND__HASH_KIND_SHA256 &&
	    k->credential->hash.len == CRYPTO_HASH)
		want = k->credential->hash.data;
	good = crypto_equal(want, hash, CRYPTO_HASH) && want != dummy;
	if (good) {
		r->tailnet = k->tailnet;
		register_with_key(r, true);
		return;
	}
	if (ask_leader(r))
		return;
	err_reason(&err, ERR_UNAUTHENTICATED, "AUTH_KEY_UNKNOWN",
		   "the auth key is not known to this cluster, or its secret is wrong; make one "
		   "with `skerry auth-key create`");
	IGNORE(caller_bad_credential(r->service->api, r->call, &err));
	fail(r, &err);
}

static void hold_over(void *arg)
{
	struct register_call *r = arg;

	r->answered_pending = true;
	go_on(r);
}

static void with_code(struct register_call *r, const char *code, const struct kv *kv,
		      struct arena *arena)
{
	PendingRecord *p;
	struct err err = {0};

	if (query_pending_code(kv, code, 0, arena, &p) < 0 || p->node_key.len != AGENT_KEY ||
	    memcmp(p->node_key.data, r->req->node_key.data, AGENT_KEY) != 0) {
		if (ask_leader(r))
			return;
		err_reason(&err, ERR_NOT_FOUND, "PENDING_UNKNOWN",
			   "nothing waits for approval under this code (it has expired, or was "
			   "made by another device); run "
			   "`skerry up` again");
		fail(r, &err);
		return;
	}
	switch (p->verdict) {
	case SKERRY__INTERNAL__V1__PENDING_VERDICT__PENDING_VERDICT_APPROVED:
		answer_node(r, p->tailnet, p->node);
		return;
	case SKERRY__INTERNAL__V1__PENDING_VERDICT__PENDING_VERDICT_REFUSED:
		err_reason(&err, ERR_DENIED, "APPROVAL_REFUSED",
			   "an administrator refused this device");
		fail(r, &err);
		return;
	default: break;
	}
	if (r->answered_pending) {
		answer_pending(r, p);
		return;
	}
	if (!list_linked(&r->link)) {
		list_push(&r->service->waiters, &r->link);
		gauge_add(r->service->waiting, 1);
		snprintf(r->code, sizeof(r->code), "%s", p->code);
		loop_timer_start(&r->hold, r->service->loop,
				 MIN(rpc_call_remaining_ms(r->call), (uint64_t)HOLD_MS) * 9 / 10,
				 hold_over, r);
	}
}

static void without_key(struct register_call *r, const struct kv *kv, struct arena *arena)
{
	const char *name = *r->req->tailnet ? r->req->tailnet : "default";
	TailnetRecord *t;
	NodeRecord *n;
	struct err err = {0};

	if (query_node_by_key(kv, r->req->node_key.data, arena, &n) >= 0 && netmap_live(n) &&
	    n->machine_key && n->machine_key->key.len == AGENT_KEY &&
	    !memcmp(n->machine_key->key.data, r->machine, AGENT_KEY)) {
		answer_registered(r, kv, n, arena);
		return;
	}
	if (query_tailnet_named(kv, name, arena, &t) < 0) {
		if (ask_leader(r))
			return;
		err_reason(&err, ERR_NOT_FOUND, "TAILNET_UNKNOWN", "there is no tailnet \"%s\"",
			   name);
		snprintf(err.field, sizeof(err.field), "tailnet");
		fail(r, &err);
		return;
	}
	r->tailnet = t->id;
	ask_person(r);
}

/* Looks at the state and does the next thing. Called again after each wait. */
static void go_on(struct register_call *r)
{
	struct cluster_read *read;
	struct arena arena;
	struct err err = {0};
	int rc = cluster_read_begin(r->service->cluster, "register", &read, &err);

	if (rc < 0) {
		fail(r, &err);
		return;
	}
	arena_init(&arena, AGENT_ARENA_BYTES);
	if (*r->req->auth_key)
		with_key(r, cluster_read_kv(read), &arena);
	else if (r->code[0] || *r->req->pending_code)
		with_code(r, r->code[0] ? r->code : r->req->pending_code, cluster_read_kv(read),
			  &arena);
	else
		without_key(r, cluster_read_kv(read), &arena);
	arena_done(&arena);
	cluster_read_end(read);
}

void agent_register_changes(struct agent_service *s, const struct cluster_changes *changes)
{
	bool relevant = changes->reset;

	for (size_t i = 0; i < changes->n && !relevant; i++)
		relevant = changes->change[i].kind == CHANGE_PENDING;
	if (!relevant)
		return;
	LIST_FOREACH_SAFE(&s->waiters, l, next)
	go_on(container_of(l, struct register_call, link));
}

/* ---- the call ---- */

/* The box must hold the exporter, made by the node key's owner for this process. */
static int check_node_key(struct rpc_call *call, struct agent_service *s,
			  const Skerry__V1__RegisterRequest *req, const uint8_t machine[AGENT_KEY],
			  struct err *err)
{
	uint8_t exporter[DEVICE_EXPORTER];
	struct buf opened = BUF_INIT;
	int rc = device_exporter(call, machine, exporter, err);

	if (rc < 0)
		return rc;
	if (req->node_key_proof.len > PROOF_MAX ||
	    crypto_x25519_box_open(s->box_secret, req->node_key.data, req->node_key_proof.data,
				   req->node_key_proof.len, &opened) < 0 ||
	    opened.len != DEVICE_EXPORTER || !crypto_equal(opened.data, exporter, DEVICE_EXPORTER))
		rc = err_reason(err, ERR_UNAUTHENTICATED, "NODE_KEY_PROOF_INVALID",
				"the proof of the node key does not fit this connection; a proxy "
				"that ends TLS before the "
				"lighthouse causes this: pass the TCP stream through instead");
	buf_done(&opened);
	return rc;
}

static int check_request(const Skerry__V1__RegisterRequest *req, struct key *key, struct err *err)
{
	int rc = agent_check_key(&req->node_key, "node_key", false, err);

	if (rc >= 0)
		rc = agent_check_key(&req->disco_key, "disco_key", true, err);
	if (rc >= 0)
		rc = agent_check_endpoints(req->n_endpoints, req->endpoints, err);
	if (rc >= 0 && strlen(req->hostname) > NAME_DOMAIN_MAX)
		rc = err_field(err, ERR_INVALID, "hostname",
			       "a host name has at most %d characters", NAME_DOMAIN_MAX);
	if (rc >= 0 && strlen(req->request_id) > LIM_REQUEST_ID_BYTES)
		rc = err_field(err, ERR_INVALID, "request_id",
			       "a request id has at most %d characters", LIM_REQUEST_ID_BYTES);
	if (rc >= 0 && req->n_requested_tags > LIM_NODE_TAGS)
		rc = err_field(err, ERR_INVALID, "requested_tags", "at most %d tags",
			       LIM_NODE_TAGS);
	if (rc >= 0 && *req->auth_key) {
		rc = key_parse(req->auth_key, key, err);
		if (rc >= 0 && key->kind != KEY_AUTH) {
			rc = err_field(err, ERR_INVALID, "auth_key",
				       "this is %s key, not an auth key (sk-auth-…)",
				       key->kind == KEY_API ? "an API" : "a join");
			key_done(key);
		} else if (rc < 0) {
			snprintf(err->field, sizeof(err->field), "auth_key");
		}
	}
	return rc;
}

/*
 * A device whose key carries no pin came by a name that the system's roots vouch for, and cannot prove itself before it
 * knows the cluster. What it needs is public: it comes again with the pin.
 */
static void tell_cluster(struct agent_service *s, struct rpc_call *call)
{
	char cluster[24], pin[65];
	uint8_t hash[32];

	snprintf(cluster, sizeof(cluster), "%" PRIu64, cluster_id(s->cluster));
	cluster_ca_pin(s->cluster, hash);
	hex_encode(pin, hash, 32);
	rpc_call_add_trailer(call, "skerry-cluster", cluster, strlen(cluster));
	rpc_call_add_trailer(call, "skerry-ca-pin", pin, strlen(pin));
}

void agent_register(void *arg, struct rpc_call *call, const ProtobufCMessage *msg)
{
	const Skerry__V1__RegisterRequest *req = (const Skerry__V1__RegisterRequest *)msg;
	Skerry__V1__RegisterResponse m = SKERRY__V1__REGISTER_RESPONSE__INIT;
	Skerry__V1__Challenge challenge = SKERRY__V1__CHALLENGE__INIT;
	struct agent_service *s = arg;
	struct register_call *r;
	struct key key = {0};
	uint8_t machine[AGENT_KEY];
	struct err err = {0};
	int rc = agent_machine_key(call, machine, &err);

	/* Stored facts must be readable by every lighthouse, whatever the agent's version says more. */
	pb_strip_unknown((void *)(uintptr_t)msg);
	if (rc >= 0)
		rc = check_request(req, &key, &err);
	if (rc >= 0 && req->node_key_proof.len == 0) {
		challenge.box_key.data = s->box_public;
		challenge.box_key.len = sizeof(s->box_public);
		m.outcome_case = SKERRY__V1__REGISTER_RESPONSE__OUTCOME_CHALLENGE;
		m.challenge = &challenge;
		key_done(&key);
		rpc_call_reply(call, &m.base);
		return;
	}
	if (rc >= 0)
		rc = check_node_key(call, s, req, machine, &err);
	if (rc < 0) {
		key_done(&key);
		counter_add(s->refused, 1);
		tell_cluster(s, call);
		rpc_call_finish(call, &err);
		return;
	}
	r = mem_zalloc(sizeof(*r));
	r->service = s;
	r->call = call;
	r->req = req;
	r->key = key;
	memcpy(r->machine, machine, AGENT_KEY);
	key_done(&key);
	rpc_call_set_cancel_cb(call, cancelled, r);
	go_on(r);
}
