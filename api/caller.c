/*
 * The gate in front of each call.
 *
 *   Unix socket ------------------------------------> system administrator with the uid of the process
 *   method of AgentService --> device proof ---------> device, or nobody (Register says what is missing)
 *   authorization: Bearer sk-api-… --> look-up here -> API key
 *                                        | not valid here: perhaps we lag behind
 *                                        v
 *                                      leader-confirmed read --> look-up again --> API key, or UNAUTHENTICATED
 *   then the method table decides: kind of credential, role, system scope. The tailnet's scope is judged when
 *   the request is decoded (api/admin.c).
 *
 * A source with too many bad credentials costs no more reads: what is not valid here is refused at once.
 */
#include "api/caller.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "api/api_int.h"
#include "api/device_proof.h"
#include "api/sources.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/key.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "net/rpc.h"
#include "net/stream.h"
#include "skerry/v1/options.pb-c.h"
#include "tailnet/query.h"
#include "tailnet/tailnet.h"

enum {
	ARENA_BYTES = 256 << 10,
	CONFIRM_MS = 5000, /* the longest that a call waits for the confirmation of a refusal */
};

static const char data_kind; /* its address names our pointer at a call */

/* What the text of an API key stands for, so that it is not decoded for each call of its holder. */
struct parsed {
	bool set;
	uint8_t text[32]; /* SHA-256 of the text */
	uint64_t id;
	uint8_t hash[32]; /* key_hash() */
};

/* The last look-up that succeeded, good as long as the view is the same. */
struct looked_up {
	uint64_t view; /* its number; 0: none */
	uint64_t id;
	uint8_t hash[32];
	uint64_t tailnet, user;
	uint32_t role;
	char text[40]; /* caller.text */
};

enum { PARSED = 64 };

struct caller_gate {
	struct api *api;
	struct sources sources;
	struct list open; /* struct call_caller.link: streams under an API key */
	struct parsed parsed[PARSED];
	struct looked_up last;
};

/* The caller, kept with its call. */
struct call_caller {
	struct caller c;
	struct list link; /* in gate.open, for streams under an API key */
	struct rpc_server *server;
	struct rpc_ref ref;
};

/* ---- what is known of the caller ---- */

const struct caller *caller_of(struct rpc_call *call)
{
	struct call_caller *cc = rpc_call_data(call, &data_kind);

	PRE(cc);
	return &cc->c;
}

int caller_in_scope(const struct caller *c, uint64_t tailnet, struct err *err)
{
	if (c->tailnet == 0 || c->tailnet == tailnet)
		return 0;
	return err_reason(err, ERR_DENIED, "OUT_OF_SCOPE",
			  "the credential is for tailnets/%" PRIu64 " alone", c->tailnet);
}

static const char *role_name(int role)
{
	switch (role) {
	case SKERRY__V1__ROLE__ROLE_VIEWER: return "viewer";
	case SKERRY__V1__ROLE__ROLE_OPERATOR: return "operator";
	case SKERRY__V1__ROLE__ROLE_ADMIN: return "admin";
	default: return "none";
	}
}

static bool is_health(const struct proto_method *m)
{
	return !strncmp(m->service, "grpc.health.", 12);
}

static bool is_reflection(const struct proto_method *m)
{
	return !strncmp(m->service, "grpc.reflection.", 16);
}

static bool is_agent(const struct proto_method *m)
{
	return !strcmp(m->service, "skerry.v1.AgentService");
}

static bool administers(const struct caller *c)
{
	return c->kind == CALLER_UNIX || c->kind == CALLER_API_KEY || c->kind == CALLER_SESSION;
}

static int ask_credential(struct err *err)
{
	return err_reason(
		err, ERR_UNAUTHENTICATED, "CREDENTIAL_REQUIRED",
		"this method asks for a credential: send \"authorization: Bearer sk-api-…\", "
		"or call on the lighthouse's Unix socket");
}

int caller_may(const struct caller *c, const struct proto_method *m, struct err *err)
{
	switch (m->credential) {
	case SKERRY__V1__CREDENTIAL__CREDENTIAL_NONE: return 0;
	case SKERRY__V1__CREDENTIAL__CREDENTIAL_DEVICE:
		if (c->kind == CALLER_DEVICE)
			return 0;
		return err_reason(err, ERR_UNAUTHENTICATED, "DEVICE_PROOF_MISSING",
				  "this method is for devices: send skerry-machine-key-bin and "
				  "skerry-device-proof-bin");
	case SKERRY__V1__CREDENTIAL__CREDENTIAL_CALLER: break;
	default: /* without the option `access`: health, reflection */
		if (is_health(m) || (is_reflection(m) && c->kind != CALLER_NONE))
			return 0;
		return is_reflection(m)
			       ? ask_credential(err)
			       : err_set(err, ERR_DENIED, "%s is not for callers", m->path);
	}
	if (!administers(c))
		return ask_credential(err);
	if (c->role < m->role)
		return err_reason(err, ERR_DENIED, "ROLE_TOO_LOW",
				  "%s asks for the role %s; this credential has %s", m->method,
				  role_name(m->role), role_name(c->role));
	if (m->scope == SKERRY__V1__SCOPE__SCOPE_SYSTEM && c->tailnet != 0)
		return err_reason(
			err, ERR_DENIED, "OUT_OF_SCOPE",
			"%s asks for a credential of the system (tailnets/0); this one is for "
			"tailnets/%" PRIu64,
			m->method, c->tailnet);
	return 0;
}

void caller_fill_command(const struct caller *c, Skerry__Internal__V1__Command *cmd,
			 Skerry__Internal__V1__Actor *actor, char name[64])
{
	skerry__internal__v1__actor__init(actor);
	switch (c->kind) {
	case CALLER_UNIX: actor->kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_UNIX; break;
	case CALLER_API_KEY:
	case CALLER_SESSION:
		actor->kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_API_KEY;
		break;
	case CALLER_DEVICE:
		actor->kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_DEVICE;
		break;
	case CALLER_LIGHTHOUSE:
	case CALLER_RELAY:
		actor->kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_LIGHTHOUSE;
		break;
	case CALLER_NONE:
		actor->kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_ANONYMOUS;
		break;
	}
	actor->id = c->id;
	actor->source = (char *)c->source;
	cmd->actor = actor;
	snprintf(name, 64, "%s", c->text);
	cmd->caller = name;
}

const char *caller_bearer(const char *authorization)
{
	static const char scheme[] = "Bearer";

	if (strncasecmp(authorization, scheme, sizeof(scheme) - 1) ||
	    authorization[sizeof(scheme) - 1] != ' ')
		return NULL;
	authorization += sizeof(scheme) - 1;
	while (*authorization == ' ')
		authorization++;
	return *authorization ? authorization : NULL;
}

/* ---- sources ---- */

/* A bad credential: counted, and the answer of one that is over the limit is another. */
static int failed(struct caller_gate *gate, struct rpc_call *call, struct err *err)
{
	const struct ipaddr *addr = &rpc_call_peer(call)->addr.addr;
	uint64_t now = clock_mono_ms();

	METRICS_COUNT("skerry_api_bad_credentials_total",
		      "Calls with a credential that was refused.", 1);
	if (sources_fail(&gate->sources, addr, now))
		return err->code;
	METRICS_COUNT("skerry_api_bad_credentials_limited_total",
		      "Calls refused because of too many bad credentials from their address.", 1);
	rpc_call_set_retry(call, (uint32_t)sources_wait_ms(&gate->sources, addr, now));
	return err_reason(err, ERR_LIMIT, "TOO_MANY_BAD_CREDENTIALS",
			  "more than %d bad credentials a minute came from this address: wait",
			  LIM_BAD_CREDENTIALS_PER_MIN);
}

int caller_bad_credential(struct api *api, struct rpc_call *call, struct err *err)
{
	return failed(api->gate, call, err);
}

/* ---- API keys ---- */

static void become_key(struct caller *c, const struct looked_up *l)
{
	c->kind = CALLER_API_KEY;
	c->id = l->id;
	c->tailnet = l->tailnet;
	c->role = (int)l->role;
	c->user = l->user;
	memcpy(c->text, l->text, sizeof(c->text));
}

/* In a view that is held. */
static int look_into(struct view *view, const struct kv *kv, struct looked_up *l,
		     const uint8_t hash[32], struct err *err)
{
	static const uint8_t nobody[32];
	const uint8_t *stored = nobody;
	uint64_t epoch, revision, now;
	ApiKeyRecord *r = NULL;
	struct arena arena;
	bool equal;
	int rc = view_revision(view, &epoch, &revision, &now);

	arena_init(&arena, ARENA_BYTES);
	if (rc >= 0)
		rc = query_api_key_any(kv, l->id, &arena, &r);
	if (rc >= 0 && r->credential && r->credential->hash.len == 32)
		stored = r->credential->hash.data;
	/* Compared in any case, so that an unknown id takes the same time. */
	equal = crypto_equal(stored, hash, 32) && stored != nobody;
	if (rc < 0 && rc != ERR_NOT_FOUND) {
		rc = err_set(err, rc, "the credential cannot be looked up: %s", err_text(rc));
	} else if (rc < 0 || !equal) {
		rc = err_reason(
			err, ERR_UNAUTHENTICATED, "API_KEY_UNKNOWN",
			"the API key is not known to this cluster: it was deleted, or belongs "
			"to another one");
	} else if (query_api_key_valid(kv, r, now, &l->role) < 0) {
		rc = err_reason(err, ERR_UNAUTHENTICATED, "API_KEY_EXPIRED",
				"the API key %" PRIu64 " has expired, was revoked, or its user is "
				"suspended: make a new one",
				l->id);
	} else {
		l->tailnet = r->tailnet;
		l->user = r->user;
	}
	arena_done(&arena);
	return rc;
}

/* Looks the key up in what this lighthouse has applied. ERR_UNAUTHENTICATED: it is not valid here. */
static int look_up(struct api *api, uint64_t id, const uint8_t hash[32], struct caller *c,
		   struct err *err)
{
	struct looked_up *last = &api->gate->last;
	struct view *view = &api->view;
	struct cluster_read *read;
	int rc = view_take(view, &read, err);

	if (rc < 0)
		return rc;
	if (last->view != view->number || last->id != id || !crypto_equal(last->hash, hash, 32)) {
		struct looked_up l = {.view = view->number, .id = id};

		rc = look_into(view, cluster_read_kv(read), &l, hash, err);
		if (rc >= 0) {
			memcpy(l.hash, hash, 32);
			snprintf(l.text, sizeof(l.text), "api-key:%" PRIu64, id);
			*last = l;
		}
	}
	if (rc >= 0)
		become_key(c, last);
	view_give(view);
	return rc;
}

/* ---- a refusal that waits for the leader's word ---- */

struct confirm {
	struct api_pending pending;
	struct rpc_server *server;
	struct rpc_ref ref;
	uint64_t id;
	uint8_t hash[32];
};

static int judge(struct caller_gate *gate, struct rpc_call *call, struct call_caller *cc,
		 struct err *err)
{
	const struct proto_method *m = rpc_call_method(call);
	int rc = caller_may(&cc->c, m, err);

	if (rc < 0) {
		LOG_DEBUG("%s from %s refused to %s: %s", m->path, cc->c.source, cc->c.text,
			  err->msg);
		return rc;
	}
	if (cc->c.kind == CALLER_API_KEY && (m->server_streaming || m->client_streaming))
		list_push(&gate->open, &cc->link);
	return 0;
}

static void on_confirmed(void *arg, const struct err *why)
{
	struct confirm *w = arg;
	struct api *api = api_pending_end(&w->pending);
	struct rpc_call *call = api_call_find(api, w->server, w->ref);
	struct call_caller *cc;
	struct err err = {0};

	if (call) {
		cc = rpc_call_data(call, &data_kind);
		if (why->code) {
			err_reason(&err, ERR_UNAVAILABLE, "NO_QUORUM",
				   "the credential is not known here, and without quorum this "
				   "lighthouse cannot tell whether it is valid: %s",
				   why->msg);
		} else if (look_up(api, w->id, w->hash, &cc->c, &err) >= 0) {
			(void)!judge(api->gate, call, cc, &err);
		} else if (err.code == ERR_UNAUTHENTICATED) {
			failed(api->gate, call, &err);
		}
		rpc_gate_done(call, &err);
	}
	secret_wipe(w->hash, sizeof(w->hash));
	mem_free(w);
}

static int confirm(struct caller_gate *gate, struct rpc_call *call, uint64_t id,
		   const uint8_t hash[32], struct err *err)
{
	struct read_want want = {.level = READ_LEADER,
				 .deadline_ms = api_call_deadline(call, CONFIRM_MS)};
	struct confirm *w = MEM_NEW(struct confirm);
	int rc;

	api_pending_begin(gate->api, &w->pending);
	w->server = rpc_call_server(call);
	w->ref = rpc_call_ref(call);
	w->id = id;
	memcpy(w->hash, hash, sizeof(w->hash));
	rc = cluster_read_wait(gate->api->cluster, gate->api->loop, &want, on_confirmed, w, err);
	if (rc < 0) {
		api_pending_end(&w->pending);
		mem_free(w);
		return rc;
	}
	return RPC_GATE_WAIT;
}

/* The metadata is there more than once: which one counts would be a guess. */
static bool repeated(const struct rpc_call *call, const char *name)
{
	const char *at, *value;
	size_t n = 0;

	for (size_t i = 0; (at = rpc_call_metadata_at(call, i, &value)) != NULL; i++)
		n += strcmp(at, name) == 0;
	return n > 1;
}

/* Id and hash of the API key that the text is, or ERR_UNAUTHENTICATED. */
static int parse_bearer(struct caller_gate *gate, const char *text, uint64_t *ret_id,
			uint8_t hash[32], struct err *err)
{
	uint8_t sum[32];
	struct parsed *p;
	struct key key;

	crypto_sha256(sum, text, strlen(text));
	p = &gate->parsed[sum[0] % PARSED];
	if (!p->set || !crypto_equal(p->text, sum, 32)) {
		if (key_parse(text, &key, err) < 0) {
			err->code = ERR_UNAUTHENTICATED;
			err_prefix(err, "authorization");
			return ERR_UNAUTHENTICATED;
		}
		if (key.kind != KEY_API) {
			err_reason(err, ERR_UNAUTHENTICATED, "CREDENTIAL_KIND",
				   "authorization: this is an %s key, not an API key (sk-api-…)",
				   key_kind_text(key.kind));
			key_done(&key);
			return ERR_UNAUTHENTICATED;
		}
		p->set = true;
		memcpy(p->text, sum, 32);
		p->id = key.id;
		key_hash(&key, p->hash);
		key_done(&key);
	}
	*ret_id = p->id;
	memcpy(hash, p->hash, 32);
	return 0;
}

/* 0, RPC_GATE_WAIT or a refusal. */
static int by_bearer(struct caller_gate *gate, struct rpc_call *call, struct call_caller *cc,
		     const char *authorization, struct err *err)
{
	const char *text = caller_bearer(authorization);
	uint8_t hash[32];
	uint64_t id;
	int rc;

	if (!text || repeated(call, "authorization")) {
		err_reason(err, ERR_UNAUTHENTICATED, "CREDENTIAL_MALFORMED",
			   text ? "there are two authorizations: send one"
				: "the authorization is not of the form \"Bearer sk-api-…\"");
		return failed(gate, call, err);
	}
	if (parse_bearer(gate, text, &id, hash, err) < 0)
		return failed(gate, call, err);
	rc = look_up(gate->api, id, hash, &cc->c, err);
	if (rc == ERR_UNAUTHENTICATED) {
		if (sources_wait_ms(&gate->sources, &rpc_call_peer(call)->addr.addr,
				    clock_mono_ms()))
			rc = failed(gate, call, err);
		else
			rc = confirm(gate, call, id, hash, err);
	}
	secret_wipe(hash, sizeof(hash));
	return rc;
}

static int by_proof(struct caller_gate *gate, struct rpc_call *call, struct call_caller *cc,
		    struct err *err)
{
	struct cluster *c = gate->api->cluster;
	int rc = device_proof_call(call, cluster_id(c), cluster_lighthouse_id(c), cc->c.machine_key,
				   err);

	if (rc == 0) {
		cc->c.kind = CALLER_DEVICE;
		snprintf(cc->c.text, sizeof(cc->c.text), "device");
	} else if (rc == ERR_UNAUTHENTICATED) {
		rc = failed(gate, call, err);
	}
	return rc < 0 ? rc : 0;
}

/* ---- the gate ---- */

static void call_caller_free(void *data)
{
	struct call_caller *cc = data;

	list_remove(&cc->link);
	mem_free(cc);
}

static int gate_call(void *arg, struct rpc_call *call, const struct proto_method *m,
		     struct err *err)
{
	struct call_caller *cc = MEM_NEW(struct call_caller);
	const struct stream_peer *peer = rpc_call_peer(call);
	const char *authorization = rpc_call_metadata(call, "authorization");
	struct caller_gate *gate = arg;
	int rc = 0;

	list_init(&cc->link);
	cc->server = rpc_call_server(call);
	cc->ref = rpc_call_ref(call);
	stpncpy(cc->c.source, rpc_call_peer_text(call), sizeof(cc->c.source) - 1);
	strcpy(cc->c.text, "anonymous");
	rpc_call_set_data(call, &data_kind, cc, call_caller_free);

	if (peer->is_unix) {
		cc->c.kind = CALLER_UNIX;
		cc->c.id = peer->uid;
		cc->c.role = SKERRY__V1__ROLE__ROLE_ADMIN;
		snprintf(cc->c.text, sizeof(cc->c.text), "unix:%u", (unsigned)peer->uid);
	} else if (is_reflection(m) && gate->api->reflection_public) {
		return 0;
	} else if (is_agent(m) || ((is_reflection(m) || is_health(m)) && !authorization)) {
		rc = by_proof(gate, call, cc, err);
	} else if (authorization) {
		rc = by_bearer(gate, call, cc, authorization, err);
	}
	return rc != 0 ? rc : judge(gate, call, cc, err);
}

void caller_gate_guard(struct caller_gate *gate, struct rpc_server *server)
{
	rpc_server_set_gate(server, gate_call, gate);
}

/* ---- open calls end with their authority ---- */

static bool still_valid(struct caller_gate *gate, const struct caller *c, struct cluster_read *read)
{
	const struct kv *kv = cluster_read_kv(read);
	uint64_t epoch, revision, now;
	struct arena arena;
	ApiKeyRecord *r;
	uint32_t role;
	bool valid;

	(void)gate;
	arena_init(&arena, ARENA_BYTES);
	valid = query_revision(kv, &epoch, &revision, &now) >= 0 &&
		query_api_key_any(kv, c->id, &arena, &r) >= 0 &&
		query_api_key_valid(kv, r, now, &role) >= 0 && (int)role >= c->role;
	arena_done(&arena);
	return valid;
}

void caller_gate_changes(struct caller_gate *gate, const struct cluster_changes *changes)
{
	bool look = changes->reset;
	struct cluster_read *read;
	struct list gone;

	for (size_t i = 0; i < changes->n && !look; i++) {
		uint32_t kind = changes->change[i].kind;

		look = kind == CHANGE_API_KEY || kind == CHANGE_USER || kind == CHANGE_TAILNET;
	}
	if (!look || list_empty(&gate->open) ||
	    cluster_read_begin(gate->api->cluster, "authority", &read, NULL) < 0)
		return;
	list_init(&gone);
	LIST_FOREACH_SAFE(&gate->open, it, tmp)
	{
		struct call_caller *cc = LIST_ENTRY(it, struct call_caller, link);

		if (!still_valid(gate, &cc->c, read)) {
			list_remove(it);
			list_push(&gone, it);
		}
	}
	cluster_read_end(read);
	while (!list_empty(&gone)) {
		struct call_caller *cc = LIST_ENTRY(list_pop(&gone), struct call_caller, link);
		struct rpc_call *call = rpc_call_find(cc->server, cc->ref);
		struct err err = {0};

		err_reason(&err, ERR_UNAUTHENTICATED, "API_KEY_EXPIRED",
			   "the API key under which the call was opened is not valid any more");
		if (call)
			rpc_call_finish(call, &err);
	}
}

struct caller_gate *caller_gate_new(struct api *api)
{
	struct caller_gate *gate = MEM_NEW(struct caller_gate);

	gate->api = api;
	sources_init(&gate->sources, LIM_SOURCES, LIM_BAD_CREDENTIALS_PER_MIN, 60000);
	list_init(&gate->open);
	return gate;
}

void caller_gate_free(struct caller_gate *gate)
{
	if (!gate)
		return;
	sources_done(&gate->sources);
	secret_wipe(gate->parsed, sizeof(gate->parsed));
	mem_free(gate);
}
