/*
 * What an operator asks: a new CA, a new cluster.key. Both run where they were asked, and end in one command.
 *
 *   CA:   open the present one -> a new one, certified by it -> CaRotate
 *   seal: a new key into cluster.key.next -> every member that is linked fetches it -> a majority of the voters has it ->
 *         all sealed secrets anew -> SealRotate
 *
 * The key is with a majority before the command is in the log, so that no loss of a host makes the secrets unreadable. A try
 * that came to nothing, or whose end is not known, leaves the key in cluster.key.next, and the next try takes that one: so
 * it is not lost if the command was carried out after all.
 *
 * With a request id the command says so, and is carried out once. A repeat is looked for before all else, since it would
 * offer another key and be refused what was allowed before; it is answered with how things are now.
 */
#include "cluster/rotate_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rand.h"
#include "net/rpc_client.h"
#include "tailnet/query.h"
#include "tailnet/tailnet.h"

#define PATH_READY "/skerry.internal.v1.PeerService/SealReady"

enum { ARENA = 1 << 20, READY_MS = 5000 };

typedef Skerry__Internal__V1__SealReadyRequest ready_request;

struct ask;

struct holder {
	struct ask *ask;
	struct rpc_request *call;
	uint64_t id;
};

/* Made on the caller's thread, lives on the peer thread, its end is posted to the caller's loop. */
struct ask {
	struct list node;
	struct peer *peer;
	struct loop *loop;
	bool seal;
	Skerry__Internal__V1__Actor actor;
	char source[64];
	char caller[64], request_id[LIM_REQUEST_ID_BYTES + 1]; /* request_id "": none */
	uint8_t request_hash[32];
	uint64_t deadline_ms;
	rotated_cb cb;
	void *arg;
	struct holder holder[CLUSTER_MEMBERS_MAX];
	size_t n_holders, missing;
	unsigned held, voters; /* voters that hold the new key, of all */
	uint8_t *key;          /* the new cluster.key */
	bool proposed;
	struct cluster_rotated result;
	struct err err;
};

static void deliver(void *arg)
{
	struct ask *a = arg;

	a->cb(a->arg, &a->err, &a->result);
	if (a->result.recovery != NULL) {
		secret_wipe(a->result.recovery, strlen(a->result.recovery));
		mem_free(a->result.recovery);
	}
	secret_free(a->key);
	mem_free(a);
}

static void end(struct ask *a)
{
	list_remove(&a->node);
	loop_post_reply(a->loop, deliver, a);
}

/* It was carried out before: how it is now, and the key that counts. */
static int repeated(struct ask *a)
{
	struct peer *p = a->peer;
	struct rotate_view v;
	struct arena arena;
	int r;

	rotate_soon(p);
	rotate_run(p); /* the key may be here, and not be in use yet */
	arena_init(&arena, ARENA);
	r = rotate_look(p, &arena, &v, &a->err);
	if (r >= 0 && a->seal &&
	    (p->rotate->held_seal != v.seal || p->rotate->held_generation != v.key->generation)) {
		r = err_reason(&a->err, ERR_UNAVAILABLE, "NOT_HELD",
			       "cluster.key was rotated, and this lighthouse has not taken the new "
			       "one yet: ask again, or another lighthouse");
	}
	if (r >= 0) {
		a->result.repeated = true;
		a->result.ca_generation = v.ca->generation;
		a->result.seal = v.seal;
		a->result.members = v.members;
		a->result.holders = v.holders;
		if (a->seal) {
			a->result.recovery = keyfile_recovery(p->keys->cluster_key);
		}
	}
	arena_done(&arena);
	return r;
}

static void on_applied(void *arg, const struct err *err,
		       const Skerry__Internal__V1__CommandResult *r)
{
	struct ask *a = arg;

	a->proposed = false;
	a->err = *err;
	if (err->code == 0 && r->code != 0) {
		err_reason(&a->err, err_from_grpc(r->code), r->reason, "%s", r->message);
	} else if (err->code == 0 && r->repeated_request) {
		IGNORE(repeated(a)); /* the other try was faster; a->err says what is wrong */
	} else if (err->code == 0 && a->seal) {
		a->result.recovery = keyfile_recovery(a->key);
	} else if (strcmp(err->reason, "FATE_UNKNOWN") == 0) {
		err_prefix(
			&a->err, "%s",
			a->seal ? "whether cluster.key was rotated is not known; rotate again for "
				  "a recovery string that counts"
				: "whether the certificate authority was rotated is not known, "
				  "see `skerry cluster ca status`");
	}
	rotate_soon(a->peer);
	end(a);
}

static int propose(struct ask *a, Skerry__Internal__V1__Command *c)
{
	struct propose_options o = {.class = PROPOSE_INTERNAL, .deadline_ms = a->deadline_ms};
	int r;

	c->actor = &a->actor;
	if (a->request_id[0] != '\0') {
		c->caller = a->caller;
		c->request_id = a->request_id;
		c->request_hash = (ProtobufCBinaryData){sizeof(a->request_hash), a->request_hash};
	}
	r = cluster_propose(a->peer->cluster, a->peer->loop, c, &o, on_applied, a, &a->err);
	a->proposed = r >= 0;
	return r;
}

static int level_check(const struct rotate_view *v, struct err *err)
{
	return v->level >= 2 ? 0 : feature_level_needed(2, v->level, err);
}

/* ---- the CA ---- */

static int ca_rotate(struct ask *a)
{
	Skerry__Internal__V1__Command c = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Skerry__Internal__V1__CaRotate body = SKERRY__INTERNAL__V1__CA_ROTATE__INIT;
	CaRecord record = SKERRY__INTERNAL__V1__CA_RECORD__INIT;
	SealedSecret sealed = SKERRY__INTERNAL__V1__SEALED_SECRET__INIT;
	struct buf cross = BUF_INIT, der = BUF_INIT, cross_der = BUF_INIT, box = BUF_INIT;
	struct pki_ca old = {0}, ca = {0};
	struct peer *p = a->peer;
	struct rotate_view v;
	struct arena arena;
	int r;

	arena_init(&arena, ARENA);
	r = rotate_look(p, &arena, &v, &a->err);
	if (r >= 0) {
		r = level_check(&v, &a->err);
	}
	if (r >= 0) {
		r = peer_tls_ca(p, &old, &a->err);
	}
	if (r >= 0) {
		r = pki_ca_next(&old, clock_wall_ms(), &ca, &cross, &a->err);
	}
	if (r >= 0) {
		r = pki_cert_der(ca.cert_pem, &der, &a->err);
	}
	if (r >= 0) {
		r = pki_cert_der(buf_str(&cross), &cross_der, &a->err);
	}
	if (r >= 0) {
		r = pki_ca_seal(&ca, p->keys->cluster_key, v.ca->generation + 1, &box, &a->err);
	}
	if (r >= 0) {
		a->result.ca_generation = v.ca->generation + 1;
		a->result.has_old = true;
		r = pki_pin(ca.cert_pem, a->result.pin, &a->err);
	}
	if (r >= 0) {
		r = pki_pin(old.cert_pem, a->result.old_pin, &a->err);
	}
	if (r >= 0) {
		record.generation = v.ca->generation + 1;
		record.certificate_der = (ProtobufCBinaryData){der.len, der.data};
		record.cross_der = (ProtobufCBinaryData){cross_der.len, cross_der.data};
		sealed.name = (char *)PKI_CA_KEY_NAME;
		sealed.box = (ProtobufCBinaryData){box.len, box.data};
		sealed.generation = record.generation;
		sealed.seal = v.key->seal;
		body.ca = &record;
		body.key = &sealed;
		c.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_CA_ROTATE;
		c.ca_rotate = &body;
		r = propose(a, &c);
	}
	pki_ca_done(&old);
	pki_ca_done(&ca);
	buf_done(&cross);
	buf_done(&der);
	buf_done(&cross_der);
	buf_done(&box);
	arena_done(&arena);
	return r;
}

/* ---- cluster.key ---- */

/* Every secret is known by name: what it is sealed to is part of the seal. */
static int reseal(struct ask *a)
{
	Skerry__Internal__V1__Command c = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Skerry__Internal__V1__SealRotate body = SKERRY__INTERNAL__V1__SEAL_ROTATE__INIT;
	SealedSecret sealed = SKERRY__INTERNAL__V1__SEALED_SECRET__INIT, *list[1] = {&sealed};
	struct buf box = BUF_INIT;
	struct pki_ca ca = {0};
	struct rotate_view v;
	struct arena arena;
	int r;

	arena_init(&arena, ARENA);
	r = rotate_look(a->peer, &arena, &v, &a->err);
	if (r >= 0) {
		r = peer_tls_ca(a->peer, &ca, &a->err);
	}
	if (r >= 0) {
		r = pki_ca_seal(&ca, a->key, v.key->generation, &box, &a->err);
	}
	if (r >= 0) {
		sealed.name = (char *)PKI_CA_KEY_NAME;
		sealed.box = (ProtobufCBinaryData){box.len, box.data};
		sealed.generation = v.key->generation;
		sealed.seal = v.seal + 1;
		body.seal = v.seal + 1;
		body.n_secrets = 1;
		body.secrets = list;
		a->result.seal = body.seal;
		c.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_SEAL_ROTATE;
		c.seal_rotate = &body;
		r = propose(a, &c);
	}
	pki_ca_done(&ca);
	buf_done(&box);
	arena_done(&arena);
	return r;
}

static bool votes(const struct link_state *s, uint64_t id)
{
	for (size_t i = 0; i < s->n; i++) {
		if (s->server[i].id == id) {
			return s->server[i].role == LINK_VOTER;
		}
	}
	return false;
}

static void offered(struct ask *a)
{
	if (a->held <= a->voters / 2) {
		err_reason(
			&a->err, ERR_UNAVAILABLE, "NOT_HELD",
			"only %u of %u voters took the new key, a majority is needed: nothing was "
			"changed",
			a->held, a->voters);
	} else if (reseal(a) >= 0) {
		return;
	}
	end(a);
}

static void on_ready(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct holder *h = arg;
	struct ask *a = h->ask;
	struct link_state s;

	(void)reply;
	h->call = NULL;
	if (status->code == 0) {
		link_state(a->peer->cluster, &s);
		a->held += votes(&s, h->id);
		a->result.holders++;
	} else {
		LOG_DEBUG("rotate: lighthouse %" PRIu64 " did not take the key: %s", h->id,
			  status->msg);
	}
	if (--a->missing == 0) {
		offered(a);
	}
}

static int key_choose(struct ask *a)
{
	struct keyfile *k = a->peer->keys;

	a->key = secret_alloc(PKI_KEY);
	if (k->n_next > 0) { /* of a try before */
		memcpy(a->key, k->next_keys + (k->n_next - 1) * PKI_KEY, PKI_KEY);
		return 0;
	}
	rand_bytes(a->key, PKI_KEY);
	return keyfile_add_next(a->peer->dir, k, a->key, &a->err);
}

static int seal_check(struct ask *a)
{
	struct rotate_view v;
	struct arena arena;
	int r;

	arena_init(&arena, ARENA);
	r = rotate_look(a->peer, &arena, &v, &a->err);
	if (r >= 0) {
		r = level_check(&v, &a->err);
	}
	if (r >= 0 && rotation_number(v.lowest_seal) < v.seal) {
		r = err_reason(&a->err, ERR_PRECONDITION, "MEMBER_NOT_CONFIRMED",
			       "a lighthouse has not taken the present cluster.key yet: `skerry "
			       "cluster ca status` names it; start it, or remove it first");
	}
	arena_done(&arena);
	return r;
}

static int seal_rotate(struct ask *a)
{
	ready_request q = SKERRY__INTERNAL__V1__SEAL_READY_REQUEST__INIT;
	struct rpc_opts o = {.deadline_ms = READY_MS};
	struct peer *p = a->peer;
	struct link_state s;
	int r = seal_check(a);

	if (r >= 0) {
		r = key_choose(a);
	}
	if (r < 0) {
		return r;
	}
	link_state(p->cluster, &s);
	for (size_t i = 0; i < s.n; i++) {
		a->voters += s.server[i].role == LINK_VOTER;
	}
	a->held = votes(&s, p->self);
	a->result.holders = 1;
	a->missing = 1; /* nothing ends inside of this loop */
	LIST_FOREACH(&p->links, it)
	{
		struct peer_link *l = LIST_ENTRY(it, struct peer_link, node);
		struct holder *h = &a->holder[a->n_holders];

		a->result.members++;
		if (!peer_link_connected(l) || a->n_holders == CLUSTER_MEMBERS_MAX) {
			continue;
		}
		a->n_holders++;
		a->missing++;
		h->ask = a;
		h->id = l->id;
		h->call = rpc_unary(l->channel, PATH_READY, &q.base,
				    &skerry__internal__v1__seal_ready_response__descriptor, &o,
				    on_ready, h);
	}
	a->result.members++;
	if (--a->missing == 0) {
		offered(a);
	}
	return 0;
}

/* ---- where it begins ---- */

/* Is it the repeat of a request that was answered? Then this is its answer: 1, or negative. */
static int look_for_repeat(struct ask *a)
{
	struct cluster_read *read = NULL;
	uint64_t epoch, revision, now_ms;
	DedupeRecord *old = NULL;
	struct arena arena;
	int r;

	if (a->request_id[0] == '\0') {
		return 0;
	}
	r = cluster_read_begin(a->peer->cluster, "rotate", &read, &a->err);
	if (r < 0) {
		return r;
	}
	arena_init(&arena, ARENA);
	r = query_revision(cluster_read_kv(read), &epoch, &revision, &now_ms);
	if (r >= 0) {
		r = query_request(cluster_read_kv(read), 0, a->caller, a->request_id, now_ms,
				  &arena, &old);
	}
	cluster_read_end(read);
	if (r == ERR_NOT_FOUND) {
		r = 0;
	} else if (r < 0) {
		r = err_set(&a->err, r, "the state cannot be read: %s", err_text(r));
	} else if (old->request_hash.len != sizeof(a->request_hash) ||
		   memcmp(old->request_hash.data, a->request_hash, sizeof(a->request_hash)) != 0) {
		r = err_reason(&a->err, ERR_INVALID, "REQUEST_ID_REUSED",
			       "the request id was used for another request; take a new one for "
			       "each request");
	} else if (old->code != 0) {
		r = err_reason(&a->err, err_from_grpc(old->code), old->reason, "%s", old->message);
	} else {
		r = repeated(a);
		r = r < 0 ? r : 1;
	}
	arena_done(&arena);
	return r;
}

/* A client that lost the connection repeats while the first try is under way. */
static bool same_runs(const struct ask *a)
{
	const struct ask *first = LIST_ENTRY(a->peer->rotate->asks.next, struct ask, node);

	return a->request_id[0] != '\0' && strcmp(a->request_id, first->request_id) == 0 &&
	       strcmp(a->caller, first->caller) == 0;
}

static void begin(void *arg)
{
	struct ask *a = arg;
	struct peer *p = a->peer;
	int r;

	list_push(&p->rotate->asks, &a->node);
	if (atomic_load(&p->stopping)) {
		err_set(&a->err, ERR_CLOSED, "this lighthouse is stopping");
	} else if (p->rotate->asks.next != &a->node) {
		err_reason(&a->err, same_runs(a) ? ERR_UNAVAILABLE : ERR_PRECONDITION,
			   "CHANGE_IN_FLIGHT",
			   "%s rotation is under way on this lighthouse: wait for its end",
			   same_runs(a) ? "this" : "another");
	} else {
		r = look_for_repeat(a);
		if (r == 0 && (a->seal ? seal_rotate(a) : ca_rotate(a)) >= 0) {
			return;
		}
	}
	end(a);
}

int peer_rotate(struct peer *p, struct loop *loop, bool seal,
		const Skerry__Internal__V1__Command *as, uint64_t deadline_ms, rotated_cb cb,
		void *arg, struct err *err)
{
	struct ask *a = MEM_NEW(struct ask);
	int r;

	a->peer = p;
	a->loop = loop;
	a->seal = seal;
	a->actor = *as->actor;
	if (as->actor->source != NULL) {
		size_t n = MIN(strlen(as->actor->source), sizeof(a->source) - 1);

		memcpy(a->source, as->actor->source, n);
	}
	if (as->request_id[0] != '\0') {
		PRE(as->request_hash.len == sizeof(a->request_hash));
		snprintf(a->caller, sizeof(a->caller), "%s", as->caller);
		snprintf(a->request_id, sizeof(a->request_id), "%s", as->request_id);
		memcpy(a->request_hash, as->request_hash.data, sizeof(a->request_hash));
	}
	a->actor.source = a->source;
	a->deadline_ms = deadline_ms;
	a->cb = cb;
	a->arg = arg;
	r = loop_post(p->loop, begin, a);
	if (r < 0) {
		mem_free(a);
		return err_set(err, r, "too much is waiting for the peer thread");
	}
	return 0;
}

void rotate_ask_stop(struct peer *p)
{
	LIST_FOREACH_SAFE(&p->rotate->asks, it, tmp)
	{
		struct ask *a = LIST_ENTRY(it, struct ask, node);

		/* What was proposed the raft side has answered: it ends first, and its answer is on its way. */
		if (a->proposed) {
			continue;
		}
		for (size_t i = 0; i < a->n_holders; i++) {
			rpc_cancel(a->holder[i].call);
		}
		err_set(&a->err, ERR_CLOSED, "this lighthouse is stopping");
		end(a);
	}
}
