/* Join tokens: commands that any thread proposes for the façade. */
#include "cluster/peer_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/key.h"
#include "base/mem.h"
#include "base/rand.h"
#include "tailnet/query.h"

typedef Skerry__Internal__V1__Command command;
typedef Skerry__Internal__V1__CommandResult command_result;

enum { ARENA = 1 << 20 };

struct token {
	struct key key;
	uint64_t lifetime_ms;
	token_cb cb;
	void *arg;
};

static void token_free(struct token *t)
{
	key_done(&t->key);
	secret_free(t);
}

static void on_token(void *arg, const struct err *err, const command_result *r)
{
	struct token *t = arg;
	struct buf text = BUF_INIT;
	struct err e = *err;

	if (e.code == 0 && r->code != 0) {
		err_reason(&e, err_from_grpc(r->code), r->reason, "%s", r->message);
	}
	if (e.code != 0) {
		t->cb(t->arg, &e, NULL, 0, 0);
	} else {
		buf_reserve(&text, LIM_KEY_TEXT + 1); /* no outgrown copies of the secret */
		key_format(&t->key, &text);
		t->cb(t->arg, &e, buf_str(&text), t->key.id,
		      (uint64_t)clock_wall_ms() + t->lifetime_ms);
		buf_wipe(&text);
	}
	token_free(t);
}

/* Addresses for the token: our own first, which is the one that surely answers now. */
static int fill_addresses(struct peer *p, struct key *k, struct err *err)
{
	struct cluster_read *read = NULL;
	struct member_table t = {0};
	int r = cluster_read_begin(p->cluster, "token", &read, err);

	if (r < 0) {
		return r;
	}
	r = member_table_read(cluster_read_kv(read), &t, err);
	cluster_read_end(read);
	if (r < 0) {
		return err_set(err, ERR_UNAVAILABLE, "this lighthouse has no state yet");
	}
	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < t.n && k->naddrs < LIM_KEY_ADDRS; i++) {
			if (!t.m[i].removed && (t.m[i].id == p->self) == (pass == 0)) {
				memcpy(k->addrs[k->naddrs++], t.m[i].address, sizeof(k->addrs[0]));
			}
		}
	}
	member_table_done(&t);
	return 0;
}

int peer_token_create(struct peer *p, struct loop *loop, const Skerry__Internal__V1__Actor *actor,
		      uint64_t lifetime_ms, token_cb cb, void *arg, struct err *err)
{
	command c = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Skerry__Internal__V1__JoinTokenCreate body = SKERRY__INTERNAL__V1__JOIN_TOKEN_CREATE__INIT;
	Skerry__Internal__V1__Credential cred = SKERRY__INTERNAL__V1__CREDENTIAL__INIT;
	struct propose_options o = {.class = PROPOSE_INTERNAL};
	struct token *t = secret_alloc(sizeof(*t));
	uint8_t hash[CRYPTO_HASH], random[32];
	int r;

	t->cb = cb;
	t->arg = arg;
	t->lifetime_ms = lifetime_ms != 0 ? lifetime_ms : (uint64_t)LIM_JOIN_TOKEN_MS;
	key_generate(&t->key, KEY_JOIN, rand_u64() % LIM_ID_MAX + 1);
	t->key.has_pin = true;
	t->key.pin.cluster_id = p->cluster_id;
	memcpy(t->key.pin.spki_sha256, p->keys->ca_pin, 32);
	t->key.role = KEY_ROLE_LIGHTHOUSE;
	r = fill_addresses(p, &t->key, err);
	if (r < 0) {
		token_free(t);
		return r;
	}
	key_hash(&t->key, hash);
	rand_bytes(random, sizeof(random));
	cred.id = t->key.id;
	cred.hash_kind = SKERRY__INTERNAL__V1__HASH_KIND__HASH_KIND_SHA256;
	cred.hash.data = hash;
	cred.hash.len = sizeof(hash);
	body.credential = &cred;
	body.lifetime_ms = t->lifetime_ms;
	c.actor = (Skerry__Internal__V1__Actor *)actor; /* copied by the proposal */
	c.random.data = random;
	c.random.len = sizeof(random);
	c.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_JOIN_TOKEN_CREATE;
	c.join_token_create = &body;
	r = cluster_propose(p->cluster, loop, &c, &o, on_token, t, err);
	if (r < 0) {
		token_free(t);
	}
	return r;
}
