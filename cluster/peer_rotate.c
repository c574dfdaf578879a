/*
 * The CA and cluster.key of this lighthouse follow the state: certificates of a new CA, the key that opens the sealed
 * secrets, the confirmation of both.
 *
 *   the box in the state opens with cluster.key?  -> yes, or one of cluster.key.next is promoted, or a peer is asked
 *   the CAs in the state are those of the files?  -> else ca.crt and its companions are written, certificates renewed
 *   both held and not yet said?                   -> MemberConfirm
 *   every member has this cluster.key?            -> the one before is forgotten
 *
 * Nothing of it is done from a state that lags behind: while the log is applied again, it would turn the clock back.
 */
#include "cluster/rotate_int.h"

#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/log.h"
#include "base/mem.h"
#include "cluster/cluster_int.h"
#include "net/rpc_client.h"
#include "proto/pb_decode.h"
#include "proto/pb_util.h"
#include "tailnet/query.h"

#define PATH_FETCH "/skerry.internal.v1.PeerService/FetchSeal"

enum { ARENA = 1 << 20, AGAIN_MS = 500, RENEW_MS = 60000, FETCH_MS = 3000, MISSING_MS = 10000 };

typedef Skerry__Internal__V1__FetchSealRequest fetch_request;
typedef Skerry__Internal__V1__FetchSealResponse fetch_response;
typedef Skerry__Internal__V1__SealKeys seal_keys;

/* ---- what the state says ---- */

static int members_look(const struct kv *kv, uint64_t self, struct arena *a, struct rotate_view *v)
{
	uint64_t after = 0;
	MemberRecord *m;
	int r;

	v->lowest_ca = v->lowest_seal = UINT32_MAX;
	while ((r = query_member_next(kv, after, a, &m)) >= 0) {
		after = m->id;
		if (m->kind == SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_REMOVED) {
			continue;
		}
		v->lowest_ca = MIN(v->lowest_ca, m->ca_generation);
		v->lowest_seal = MIN(v->lowest_seal, m->seal);
		v->members++;
		v->holders += rotation_number(m->seal) >= v->seal;
		if (m->id == self) {
			v->member = true;
			v->own_ca = m->ca_generation;
			v->own_seal = m->seal;
		}
	}
	return r == ERR_NOT_FOUND ? 0 : r;
}

int rotate_look(struct peer *p, struct arena *a, struct rotate_view *ret, struct err *err)
{
	struct cluster_read *read = NULL;
	struct rotate_view v = {0};
	const struct kv *kv;
	Meta *meta;
	int r = cluster_read_begin(p->cluster, "rotate", &read, err);

	if (r < 0) {
		return r;
	}
	kv = cluster_read_kv(read);
	r = query_meta(kv, a, &meta);
	if (r >= 0) {
		v.level = meta->feature_level;
		r = query_ca(kv, a, &v.ca);
	}
	if (r >= 0) {
		r = query_secret(kv, PKI_CA_KEY_NAME, a, &v.key);
	}
	if (r >= 0) {
		v.seal = rotation_number(v.key->seal);
		r = query_ca_before(kv, v.ca->generation, a, &v.old);
		if (r == ERR_NOT_FOUND || (r >= 0 && v.old->retire_ms != 0)) {
			v.old = NULL;
			r = 0;
		}
	}
	if (r >= 0) {
		r = members_look(kv, p->self, a, &v);
	}
	cluster_read_end(read);
	if (r < 0) {
		return err_set(err, r, "the state cannot be read: %s", err_text(r));
	}
	*ret = v;
	return 0;
}

/* ---- cluster.key ---- */

static bool opens(struct peer *p, const struct rotate_view *v, const uint8_t *key)
{
	struct pki_ca ca = {0};
	bool ok = pki_ca_open(p->cluster_id, v->ca->certificate_der.data,
			      v->ca->certificate_der.len, v->key->box.data, v->key->box.len,
			      v->key->generation, key, &ca, NULL) >= 0;

	pki_ca_done(&ca);
	return ok;
}

/* Keys that a peer has said; all may be the one. */
static void take_keys(struct peer *p, const ProtobufCBinaryData *sealed, struct err *err)
{
	struct rotate *t = p->rotate;
	struct buf plain = BUF_INIT;
	ProtobufCMessage *msg = NULL;
	seal_keys *k;
	int r = 0;

	buf_reserve(&plain, sealed->len + 1);
	if (crypto_x25519_seal_open(t->box_pub, t->box_sec, sealed->data, sealed->len, &plain) <
	    0) {
		r = err_set(err, ERR_PROTOCOL, "the sealed keys do not open");
	} else {
		r = pb_decode_heap(&skerry__internal__v1__seal_keys__descriptor, plain.data,
				   plain.len, NULL, &msg, err);
	}
	buf_wipe(&plain);
	if (r < 0) {
		return;
	}
	k = (seal_keys *)msg;
	for (size_t i = 0; i < k->n_keys; i++) {
		bool old = p->keys->old_key != NULL && k->keys[i].len == PKI_KEY &&
			   crypto_equal(k->keys[i].data, p->keys->old_key, PKI_KEY);

		if (r >= 0 && k->keys[i].len == PKI_KEY && !old) {
			r = keyfile_add_next(p->dir, p->keys, k->keys[i].data, err);
		}
		secret_wipe(k->keys[i].data, k->keys[i].len);
	}
	pb_free(msg);
	rotate_soon(p);
}

struct fetch {
	struct list node;
	struct peer *peer;
	struct rpc_request *call;
	rotate_fetched_cb cb;
	void *arg;
};

static void fetch_end(struct fetch *f, const struct err *err)
{
	list_remove(&f->node);
	f->cb(f->arg, err);
	mem_free(f);
}

static void on_fetched(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct fetch *f = arg;
	struct err e = *status;

	f->call = NULL;
	if (e.code == 0) {
		take_keys(f->peer, &((const fetch_response *)reply)->sealed, &e);
	}
	fetch_end(f, &e);
}

void rotate_fetch(struct peer *p, struct peer_link *l, rotate_fetched_cb cb, void *arg)
{
	fetch_request q = SKERRY__INTERNAL__V1__FETCH_SEAL_REQUEST__INIT;
	struct rpc_opts o = {.deadline_ms = FETCH_MS};
	struct fetch *f = MEM_NEW(struct fetch);

	f->peer = p;
	f->cb = cb;
	f->arg = arg;
	list_push(&p->rotate->fetches, &f->node);
	q.box_key.data = p->rotate->box_pub;
	q.box_key.len = CRYPTO_KEY;
	f->call = rpc_unary(l->channel, PATH_FETCH, &q.base,
			    &skerry__internal__v1__fetch_seal_response__descriptor, &o, on_fetched,
			    f);
}

static void on_missing_fetched(void *arg, const struct err *err)
{
	struct peer *p = arg;

	p->rotate->fetching = false;
	if (err->code != 0) {
		LOG_DEBUG("rotate: cluster.key was not fetched: %s", err->msg);
	}
}

/* The key in force is with the others: one of them is asked, each time the next. */
static void fetch_missing(struct peer *p)
{
	struct rotate *t = p->rotate;
	uint64_t now = clock_mono_ms();
	size_t n = 0, i = 0;

	if (t->missing_ms == 0) {
		t->missing_ms = now;
	} else if (now - t->missing_ms >= MISSING_MS && !t->missing_told) {
		t->missing_told = true;
		LOG_WARN("cluster.key of this lighthouse does not open the secrets of the state: "
			 "it was "
			 "rotated, and no other lighthouse has handed over the new one yet");
	}
	if (t->fetching) {
		return;
	}
	LIST_FOREACH(&p->links, it)
	{
		n += peer_link_connected(LIST_ENTRY(it, struct peer_link, node));
	}
	LIST_FOREACH(&p->links, it)
	{
		struct peer_link *l = LIST_ENTRY(it, struct peer_link, node);

		if (peer_link_connected(l) && i++ == t->turn % n) {
			t->turn++;
			t->fetching = true;
			rotate_fetch(p, l, on_missing_fetched, p);
			return;
		}
	}
}

/* True: the key in force is ours. */
static bool seal_follow(struct peer *p, const struct rotate_view *v)
{
	struct rotate *t = p->rotate;
	struct err e = {0};

	if (t->held_generation == v->key->generation && t->held_seal == v->seal) {
		return true;
	}
	if (!opens(p, v, p->keys->cluster_key)) {
		size_t i = 0;

		while (i < p->keys->n_next && !opens(p, v, p->keys->next_keys + i * PKI_KEY)) {
			i++;
		}
		if (i == p->keys->n_next) {
			fetch_missing(p);
			return false;
		}
		if (keyfile_promote(p->dir, p->keys, i, &e) < 0) {
			LOG_WARN("the new cluster.key is not in use yet: %s", e.msg);
			return false;
		}
		LOG_INFO("cluster.key number %u is in use; the one before is kept until every "
			 "lighthouse has it",
			 v->seal);
	}
	t->missing_ms = 0;
	t->missing_told = false;
	t->held_generation = v->key->generation;
	t->held_seal = v->seal;
	return true;
}

/* ---- the CA ---- */

static bool same_pem(const char *a, const char *b)
{
	return (a == NULL) == (b == NULL) && (a == NULL || strcmp(a, b) == 0);
}

static char *pem_of(const ProtobufCBinaryData *der)
{
	struct buf b = BUF_INIT;

	pki_cert_pem(der->data, der->len, &b);
	return buf_take(&b, NULL);
}

/* True: files and certificates are those of the state. */
static bool ca_follow(struct peer *p, const struct rotate_view *v)
{
	char *ca = pem_of(&v->ca->certificate_der);
	char *old = v->old != NULL ? pem_of(&v->old->certificate_der) : NULL;
	char *cross = v->old != NULL ? pem_of(&v->ca->cross_der) : NULL;
	bool done = same_pem(ca, p->keys->ca_cert_pem) && same_pem(old, p->keys->ca_old_pem);
	struct err e = {0};

	if (!done) {
		pthread_mutex_lock(&p->lock);
		done = keyfile_set_ca(p->dir, p->keys, ca, old, cross, &e) >= 0;
		pthread_mutex_unlock(&p->lock);
		if (done) {
			done = peer_tls_reload(p, &e) >= 0;
		}
		if (!done) {
			LOG_WARN("the certificate authority of the state is not in use yet: %s",
				 e.msg);
		} else if (old != NULL) {
			LOG_INFO("certificate authority %u is in use beside the one before",
				 v->ca->generation);
		} else {
			LOG_INFO("certificate authority %u alone counts from now on",
				 v->ca->generation);
		}
	}
	mem_free(ca);
	mem_free(old);
	mem_free(cross);
	return done;
}

static bool certificates_follow(struct peer *p)
{
	const struct keyfile *k = p->keys;

	if (peer_tls_renew(p) < 0) {
		return false;
	}
	return pki_signed_by(k->node_cert_pem, k->ca_cert_pem) &&
	       pki_signed_by(k->api_cert_pem, k->ca_cert_pem);
}

/* ---- said to the others ---- */

static void on_confirmed(void *arg, const struct err *err,
			 const Skerry__Internal__V1__CommandResult *r)
{
	struct peer *p = arg;

	p->rotate->confirming = false;
	if (err->code != 0 || r->code != 0) {
		LOG_DEBUG("rotate: not confirmed: %s", err->code != 0 ? err->msg : r->message);
	}
	rotate_soon(p);
}

static void confirm(struct peer *p, const struct rotate_view *v)
{
	Skerry__Internal__V1__Command c = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Skerry__Internal__V1__Actor actor = SKERRY__INTERNAL__V1__ACTOR__INIT;
	Skerry__Internal__V1__MemberConfirm body = SKERRY__INTERNAL__V1__MEMBER_CONFIRM__INIT;
	struct propose_options o = {.class = PROPOSE_INTERNAL};

	if (p->rotate->confirming) {
		return;
	}
	actor.kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_LIGHTHOUSE;
	actor.id = p->self;
	c.actor = &actor;
	body.id = p->self;
	body.ca_generation = v->ca->generation;
	body.seal = v->seal;
	c.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_MEMBER_CONFIRM;
	c.member_confirm = &body;
	p->rotate->confirming =
		cluster_propose(p->cluster, p->loop, &c, &o, on_confirmed, p, NULL) >= 0;
}

/* ---- once in a while ---- */

static bool up_to_date(struct peer *p)
{
	struct link_state s;

	link_state(p->cluster, &s);
	return s.leader != 0 && s.applied_index >= s.commit_index;
}

/* True: there is nothing more to do for this state. */
static bool follow(struct peer *p, const struct rotate_view *v)
{
	bool held = seal_follow(p, v), ca = ca_follow(p, v);
	bool certified = held && ca && certificates_follow(p);
	struct err e = {0};

	if (v->level < 2) {
		return certified;
	}
	if (certified && v->member && (v->own_ca < v->ca->generation || v->own_seal < v->seal)) {
		confirm(p, v);
		return false;
	}
	if (held && p->keys->old_key != NULL && v->lowest_seal >= v->seal) {
		if (keyfile_drop_old(p->dir, p->keys, &e) < 0) {
			LOG_WARN("%s", e.msg);
			return false;
		}
		LOG_INFO("every lighthouse has the present cluster.key: the one before is "
			 "forgotten");
	}
	return certified;
}

/* Was this followed already? Each write moves the revision; what is followed here hardly ever changes with it. */
static bool followed(struct rotate *t, const struct rotate_view *v, uint64_t now,
		     struct rotate_mark *ret)
{
	*ret = (struct rotate_mark){
		.until_ms = now + RENEW_MS,
		.member = v->member,
		.level = v->level,
		.seal = v->seal,
		.ca = v->ca->generation,
		.old_ca = v->old != NULL ? v->old->generation : 0,
		.key = v->key->generation,
		.own_ca = v->own_ca,
		.own_seal = v->own_seal,
		.lowest_seal = v->lowest_seal,
		.lowest_ca = v->lowest_ca,
	};
	if (now >= t->followed.until_ms) {
		return false;
	}
	ret->until_ms = t->followed.until_ms;
	return memcmp(ret, &t->followed, sizeof(*ret)) == 0;
}

void rotate_soon(struct peer *p)
{
	p->rotate->again_ms = 0;
	p->rotate->followed.until_ms = 0;
}

void rotate_run(struct peer *p)
{
	struct rotate *t = p->rotate;
	uint64_t now = clock_mono_ms();
	struct cluster_status s;
	struct rotate_mark mark;
	struct rotate_view v;
	struct arena a;

	cluster_status_self(p->cluster, &s);
	if (s.epoch == 0 ||
	    (s.epoch == t->epoch && s.revision == t->revision && now < t->again_ms) ||
	    !up_to_date(p)) {
		return;
	}
	arena_init(&a, ARENA);
	if (rotate_look(p, &a, &v, NULL) >= 0) {
		t->epoch = s.epoch;
		t->revision = s.revision;
		t->again_ms = now + AGAIN_MS;
		if (followed(t, &v, now, &mark)) {
			t->again_ms = UINT64_MAX;
		} else if (follow(p, &v)) {
			t->again_ms = UINT64_MAX;
			mark.until_ms = now + RENEW_MS;
			t->followed = mark;
		}
	}
	arena_done(&a);
}

/* ---- what other lighthouses ask ---- */

static void on_fetch(void *arg, struct rpc_call *call, const ProtobufCMessage *req)
{
	const fetch_request *q = (const fetch_request *)req;
	fetch_response out = SKERRY__INTERNAL__V1__FETCH_SEAL_RESPONSE__INIT;
	seal_keys keys = SKERRY__INTERNAL__V1__SEAL_KEYS__INIT;
	ProtobufCBinaryData list[KEYFILE_NEXT_MAX + 1];
	struct buf packed = BUF_INIT, sealed = BUF_INIT;
	struct peer *p = arg;
	int r = q->box_key.len == CRYPTO_KEY ? 0 : ERR_INVALID;

	list[keys.n_keys++] = (ProtobufCBinaryData){PKI_KEY, p->keys->cluster_key};
	for (size_t i = 0; i < p->keys->n_next; i++) {
		list[keys.n_keys++] =
			(ProtobufCBinaryData){PKI_KEY, p->keys->next_keys + i * PKI_KEY};
	}
	keys.keys = list;
	buf_reserve(&packed, 4096); /* no outgrown copies of keys */
	pb_pack(&keys, &packed);
	if (r >= 0) {
		r = crypto_x25519_seal(q->box_key.data, packed.data, packed.len, &sealed);
	}
	if (r < 0) {
		rpc_call_fail(call, ERR_INVALID, "box_key is no key that can be sealed to");
	} else {
		out.sealed.data = sealed.data;
		out.sealed.len = sealed.len;
		rpc_call_reply(call, &out.base);
	}
	buf_wipe(&packed);
	buf_done(&sealed);
}

/* A SealReady that is answered when the keys are here. */
struct ready {
	struct peer *peer;
	struct rpc_ref ref;
};

static void on_ready_fetched(void *arg, const struct err *err)
{
	Skerry__Internal__V1__SealReadyResponse out =
		SKERRY__INTERNAL__V1__SEAL_READY_RESPONSE__INIT;
	struct ready *w = arg;
	struct rpc_call *call = peer_call_find(w->peer->peer_rpc, w->ref);

	if (call != NULL && err->code == 0) {
		rpc_call_reply(call, &out.base);
	} else if (call != NULL) {
		rpc_call_finish(call, err);
	}
	mem_free(w);
}

static void on_ready(void *arg, struct rpc_call *call, const ProtobufCMessage *req)
{
	struct peer *p = arg;
	struct peer_link *l = NULL;
	struct ready *w;
	uint64_t from;

	(void)req;
	if (peer_tls_who(p, rpc_call_stream(call), &from, NULL) >= 0) {
		l = peer_link_find(p, from);
	}
	if (l == NULL || !peer_link_connected(l)) {
		rpc_call_fail(call, ERR_UNAVAILABLE, "there is no link back to who asks");
		return;
	}
	w = MEM_NEW(struct ready);
	w->peer = p;
	w->ref = rpc_call_ref(call);
	rotate_fetch(p, l, on_ready_fetched, w);
}

/* ---- life ---- */

void rotate_init(struct peer *p)
{
	static const struct rpc_handler fetch = {.on_call = on_fetch};
	static const struct rpc_handler ready = {.on_call = on_ready};
	struct rotate *t = secret_alloc(sizeof(*t));

	list_init(&t->fetches);
	list_init(&t->asks);
	crypto_x25519_keypair(t->box_pub, t->box_sec);
	p->rotate = t;
	rpc_server_add(p->peer_rpc, PATH_FETCH, &fetch, p);
	rpc_server_add(p->peer_rpc, "/skerry.internal.v1.PeerService/SealReady", &ready, p);
}

void rotate_stop(struct peer *p)
{
	struct err closed = {0};

	err_set(&closed, ERR_CLOSED, "this lighthouse is stopping");
	LIST_FOREACH_SAFE(&p->rotate->fetches, it, tmp)
	{
		struct fetch *f = LIST_ENTRY(it, struct fetch, node);

		rpc_cancel(f->call);
		fetch_end(f, &closed);
	}
	rotate_ask_stop(p);
}

void rotate_free(struct peer *p)
{
	secret_free(p->rotate);
	p->rotate = NULL;
}
