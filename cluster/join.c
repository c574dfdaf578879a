/* The joiner: asks a lighthouse that the token names, checks the answer, writes the identity. */
#include "cluster/cluster.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/enc.h"
#include "base/fileio.h"
#include "base/jsonx.h"
#include "base/key.h"
#include "base/mem.h"
#include "cluster/keyfile.h"
#include "cluster/member.h"
#include "net/loop.h"
#include "net/rpc_client.h"
#include "net/tls.h"
#include "proto/pb_decode.h"
#include "skerry/internal/v1/peer.pb-c.h"
#include "tailnet/tailnet.h"

#define PATH_JOIN "/skerry.internal.v1.JoinService/Join"
#define ALPN_JOIN "skerry-join/1"
#define JOIN_FILE "join.json"

enum { FORMAT = 1, FILE_MAX = 64 << 10, TIMEOUT_MS = 30000, TRY_MS = 15000, PAUSE_MS = 500 };

typedef Skerry__Internal__V1__JoinRequest join_request;
typedef Skerry__Internal__V1__JoinResponse join_response;
typedef Skerry__Internal__V1__JoinSecrets join_secrets;

/*
 * The keys that a request is made with. They are on disk before the first request, so that a join whose answer was
 * lost asks again with the same ones and is answered alike.
 */
struct ticket {
	uint64_t token_id;
	struct x509_key *node_key, *api_key;
	uint8_t box_sec[CRYPTO_KEY], box_pub[CRYPTO_KEY];
};

static void ticket_done(struct ticket *t)
{
	x509_key_free(t->node_key);
	x509_key_free(t->api_key);
	secret_wipe(t, sizeof(*t));
}

static int ticket_new(struct ticket *t, uint64_t token_id, struct err *err)
{
	int r;

	t->token_id = token_id;
	crypto_x25519_keypair(t->box_pub, t->box_sec);
	r = x509_key_new(X509_KEY_P256, &t->node_key, err);
	return r < 0 ? r : x509_key_new(X509_KEY_P256, &t->api_key, err);
}

static int put_key(struct jsonw *w, const char *name, const struct x509_key *key)
{
	struct buf pem = BUF_INIT;
	int r;

	buf_reserve(&pem, 4096);
	r = x509_key_pem(key, &pem);
	if (r >= 0) {
		jsonw_kstr(w, name, buf_str(&pem));
	}
	buf_wipe(&pem);
	return r;
}

static int ticket_write(const char *path, const struct ticket *t, struct err *err)
{
	struct buf b = BUF_INIT;
	char hex[2 * CRYPTO_KEY + 1];
	struct jsonw w;
	int r;

	buf_reserve(&b, 8192);
	jsonw_init(&w, &b, true);
	jsonw_object(&w);
	jsonw_ki64(&w, "format", FORMAT);
	jsonw_ku64s(&w, "token_id", t->token_id);
	jsonw_kstr(&w, "box_key", hex_encode(hex, t->box_sec, CRYPTO_KEY));
	r = put_key(&w, "node_key", t->node_key);
	if (r >= 0) {
		r = put_key(&w, "api_key", t->api_key);
	}
	jsonw_end(&w);
	buf_u8(&b, '\n');
	if (r < 0) {
		IGNORE(err_set(err, r, "the new keys cannot be written"));
	} else {
		r = file_write_atomic(path, b.data, b.len, 0600, err);
	}
	secret_wipe(hex, sizeof(hex));
	buf_wipe(&b);
	return r;
}

static int ticket_parse(const char *path, struct buf *b, struct ticket *t, struct err *err)
{
	struct jsonx *root;
	const char *hex;
	int r = jsonx_parse((const char *)b->data, b->len, path, &root, err);

	if (r < 0) {
		return r;
	}
	hex = jsonx_str(jsonx_get(root, "box_key"), "");
	if (jsonx_int(jsonx_get(root, "format"), 0) != FORMAT ||
	    jsonx_get_u64(jsonx_get(root, "token_id"), &t->token_id) < 0 ||
	    hex_decode(hex, strlen(hex), t->box_sec, CRYPTO_KEY) != CRYPTO_KEY ||
	    x509_key_parse(jsonx_str(jsonx_get(root, "node_key"), ""), &t->node_key, NULL) < 0 ||
	    x509_key_parse(jsonx_str(jsonx_get(root, "api_key"), ""), &t->api_key, NULL) < 0) {
		r = err_set(err, ERR_CORRUPT,
			    "%s cannot be read: remove it and join with a new token", path);
	} else {
		crypto_x25519_public(t->box_pub, t->box_sec);
	}
	jsonx_free(root);
	return r;
}

/* That of an earlier try with the same token, or a new one. */
static int ticket_get(const char *path, uint64_t token_id, struct ticket *ret, struct err *err)
{
	struct ticket t = {0};
	struct buf b = BUF_INIT;
	int r = 0;

	if (file_exists(path)) {
		buf_reserve(&b, FILE_MAX + 1);
		r = file_check_private(path, err);
		if (r >= 0) {
			r = file_read(path, FILE_MAX, &b, err);
		}
		if (r >= 0) {
			r = ticket_parse(path, &b, &t, err);
		}
		buf_wipe(&b);
		if (r < 0) {
			ticket_done(&t);
			return r;
		}
		if (t.token_id == token_id) {
			*ret = t;
			return 0;
		}
		ticket_done(&t);
		t = (struct ticket){0};
	}
	r = ticket_new(&t, token_id, err);
	if (r >= 0) {
		r = ticket_write(path, &t, err);
	}
	if (r < 0) {
		ticket_done(&t);
		return r;
	}
	*ret = t;
	return 0;
}

/* ---- the call ---- */

static int ask(const struct cluster_join_options *o, const struct key *key, const struct ticket *t,
	       struct arena *a, join_response **ret, struct err *err)
{
	static const char *const alpn[] = {ALPN_JOIN, NULL};
	join_request q = SKERRY__INTERNAL__V1__JOIN_REQUEST__INIT;
	uint8_t node[PKI_SPKI_MAX], api[PKI_SPKI_MAX];
	const char *targets[LIM_KEY_ADDRS];
	char name[PKI_URI_MAX];
	struct tls_client_opts to = {.trust = TLS_TRUST_PIN, .alpn = alpn, .tls13_only = true};
	struct rpc_channel_opts co = {.targets = targets, .n_targets = key->naddrs};
	uint64_t end = clock_mono_ms() + (o->timeout_ms != 0 ? o->timeout_ms : TIMEOUT_MS);
	struct loop *loop = loop_new("join");
	struct tls_ctx *tls = NULL;
	ProtobufCMessage *reply = NULL;
	int r;

	memcpy(to.pin, key->pin.spki_sha256, sizeof(to.pin));
	r = tls_client_new(&to, &tls, err);
	if (r < 0) {
		loop_free(loop);
		return r;
	}
	for (size_t i = 0; i < key->naddrs; i++) {
		targets[i] = key->addrs[i];
	}
	co.dial.tls = tls;
	co.dial.server_name = pki_server_name(key->pin.cluster_id, name);
	q.token_id = key->id;
	q.token_secret.data = (uint8_t *)key->secret;
	q.token_secret.len = sizeof(key->secret);
	q.name = (char *)o->name;
	q.public_key.data = node;
	q.public_key.len = pki_spki(t->node_key, node);
	q.api_public_key.data = api;
	q.api_public_key.len = pki_spki(t->api_key, api);
	q.box_key.data = (uint8_t *)t->box_pub;
	q.box_key.len = CRYPTO_KEY;
	q.peer_address = (char *)o->peer_address;
	q.api_url = (char *)o->api_url;
	q.feature_min = FEATURE_LEVEL_MIN;
	q.feature_max = FEATURE_LEVEL_MAX;
	q.version = (char *)(o->version != NULL ? o->version : "");
	for (;;) {
		uint64_t now = clock_mono_ms();
		struct rpc_opts ro = {.deadline_ms =
					      MIN(end > now ? end - now : 1, (uint64_t)TRY_MS)};
		/* A connection takes one request: each try has its own. */
		struct rpc_channel *ch = rpc_channel_new(loop, &co);

		err_clear(err);
		r = rpc_unary_wait(loop, ch, PATH_JOIN, &q.base,
				   &skerry__internal__v1__join_response__descriptor, &ro, a, &reply,
				   err);
		rpc_channel_free(ch);
		if ((r != ERR_UNAVAILABLE && r != ERR_DEADLINE && r != ERR_NO_QUORUM) ||
		    clock_mono_ms() + PAUSE_MS >= end) {
			break;
		}
		uv_sleep(PAUSE_MS);
	}
	tls_unref(tls);
	loop_free(loop);
	if (r >= 0) {
		*ret = (join_response *)reply;
	}
	return r;
}

/* ---- the answer ---- */

static int check_secrets(const join_secrets *s, const struct key *key, const struct ticket *t,
			 uint64_t id, struct keyfile *k, struct err *err)
{
	struct buf ca = BUF_INIT, node = BUF_INIT, api = BUF_INIT;
	struct x509_facts f = {0};
	char uri[PKI_URI_MAX];
	uint8_t spki[32];
	int r;

	if (s->cluster_key.len != PKI_KEY) {
		return err_set(err, ERR_PROTOCOL, "the answer holds no cluster key");
	}
	pki_cert_pem(s->ca_certificate_der.data, s->ca_certificate_der.len, &ca);
	pki_cert_pem(s->peer_certificate_der.data, s->peer_certificate_der.len, &node);
	pki_cert_pem(s->api_certificate_der.data, s->api_certificate_der.len, &api);
	k->ca_cert_pem = buf_take(&ca, NULL);
	k->node_cert_pem = buf_take(&node, NULL);
	k->api_cert_pem = buf_take(&api, NULL);
	if (s->ca_old_der.len > 0 && s->ca_cross_der.len > 0) {
		struct buf old = BUF_INIT, cross = BUF_INIT;

		pki_cert_pem(s->ca_old_der.data, s->ca_old_der.len, &old);
		pki_cert_pem(s->ca_cross_der.data, s->ca_cross_der.len, &cross);
		k->ca_old_pem = buf_take(&old, NULL);
		k->ca_cross_pem = buf_take(&cross, NULL);
	}
	r = pki_pin(k->ca_cert_pem, k->ca_pin, err);
	if (r >= 0 && k->ca_old_pem != NULL) {
		r = pki_pin(k->ca_old_pem, k->ca_old_pin, err);
	}
	/* A token from before a rotation names the old CA, which vouches for the new one. */
	if (r >= 0 && !crypto_equal(k->ca_pin, key->pin.spki_sha256, sizeof(k->ca_pin)) &&
	    !(k->ca_old_pem != NULL &&
	      crypto_equal(k->ca_old_pin, key->pin.spki_sha256, sizeof(k->ca_old_pin)) &&
	      pki_crosses(k->ca_cross_pem, k->ca_cert_pem, k->ca_old_pem))) {
		r = err_set(err, ERR_DENIED, "the answer names another CA than the token");
	}
	if (r >= 0) {
		r = x509_parse_pem(k->node_cert_pem, &f, err);
	}
	if (r >= 0) {
		x509_key_spki_sha256(t->node_key, spki);
		if (memcmp(spki, f.spki_sha256, sizeof(spki)) != 0 ||
		    !x509_facts_has_uri(&f, pki_uri_peer(key->pin.cluster_id, id, uri))) {
			r = err_set(err, ERR_PROTOCOL, "the certificate in the answer is not ours");
		}
		x509_facts_done(&f);
	}
	return r;
}

static int save_members(const char *dir, const join_response *a, struct err *err)
{
	struct member_table t = {0};
	int r = 0;

	for (size_t i = 0; r >= 0 && i < a->n_members && i < LIM_MEMBERS; i++) {
		const Skerry__Internal__V1__JoinMember *m = a->members[i];

		r = member_table_add(&t, m->id, false, false, 0, "", m->peer_address, m->api_url,
				     m->public_key.data, m->public_key.len, err);
	}
	if (r >= 0) {
		r = member_table_save(dir, &t, err);
	}
	member_table_done(&t);
	return r;
}

static int take_answer(const struct cluster_join_options *o, const struct key *key,
		       struct ticket *t, const join_response *a, struct err *err)
{
	struct keyfile k = {.cluster_id = key->pin.cluster_id, .lighthouse_id = a->lighthouse_id};
	struct buf plain = BUF_INIT;
	ProtobufCMessage *msg = NULL;
	join_secrets *s;
	int r = 0;

	buf_reserve(&plain, a->sealed.len + 1);
	if (a->cluster_id != key->pin.cluster_id || a->lighthouse_id == 0) {
		r = err_set(err, ERR_PROTOCOL, "the answer is of another cluster");
	} else if (crypto_x25519_seal_open(t->box_pub, t->box_sec, a->sealed.data, a->sealed.len,
					   &plain) < 0) {
		r = err_set(err, ERR_PROTOCOL, "the sealed part of the answer does not open");
	}
	if (r >= 0) {
		r = pb_decode_heap(&skerry__internal__v1__join_secrets__descriptor, plain.data,
				   plain.len, NULL, &msg, err);
	}
	buf_wipe(&plain);
	if (r < 0) {
		return r;
	}
	s = (join_secrets *)msg;
	r = check_secrets(s, key, t, a->lighthouse_id, &k, err);
	if (r >= 0) {
		k.cluster_key = secret_alloc(PKI_KEY);
		memcpy(k.cluster_key, s->cluster_key.data, PKI_KEY);
		k.name = mem_strdup(o->name);
		k.peer_address = mem_strdup(o->peer_address);
		k.api_url = mem_strdup(o->api_url);
		k.node_key = t->node_key;
		k.api_key = t->api_key;
		t->node_key = NULL;
		t->api_key = NULL;
		/* The identity last: with it the directory is ready. */
		r = save_members(o->dir, a, err);
	}
	if (r >= 0) {
		r = keyfile_write(o->dir, &k, err);
	}
	secret_wipe(s->cluster_key.data, s->cluster_key.len);
	pb_free(msg);
	keyfile_done(&k);
	return r;
}

static int join_dir(const struct cluster_join_options *o, const struct key *key, struct err *err)
{
	char *path = mem_printf("%s/%s", o->dir, JOIN_FILE);
	struct ticket t = {0};
	join_response *a = NULL;
	struct arena arena;
	int r;

	arena_init(&arena, 1 << 20);
	r = ticket_get(path, key->id, &t, err);
	if (r >= 0) {
		r = ask(o, key, &t, &arena, &a, err);
	}
	if (r >= 0) {
		r = take_answer(o, key, &t, a, err);
	}
	if (r >= 0) {
		r = file_remove(path, err);
	}
	ticket_done(&t);
	arena_done(&arena);
	mem_free(path);
	return r;
}

int cluster_join(const struct cluster_join_options *o, struct err *err)
{
	struct key key = {0};
	int r = key_parse(o->token, &key, err);

	if (r < 0) {
		return r;
	}
	if (key.kind != KEY_JOIN || key.role != KEY_ROLE_LIGHTHOUSE) {
		r = err_field(
			err, ERR_INVALID, "token",
			"this key is not a join token for a lighthouse: make one with `skerry "
			"cluster token` on a lighthouse of the cluster");
	} else {
		r = dir_ensure(o->dir, 0700, err);
	}
	if (r >= 0) {
		r = file_check_private(o->dir, err);
	}
	if (r >= 0 && keyfile_exists(o->dir)) {
		r = err_reason(
			err, ERR_EXISTS, "ALREADY_INITIALISED",
			"%s already holds a lighthouse: start it with `skerryd run`, or join "
			"with an empty directory",
			o->dir);
	}
	if (r >= 0) {
		r = join_dir(o, &key, err);
	}
	key_done(&key);
	return r;
}
