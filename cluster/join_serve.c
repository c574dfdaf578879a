/* JoinService: a host with a token becomes a member. No client certificate; one request a connection, rate limited. */
#include "cluster/peer_int.h"

#include <inttypes.h>
#include <string.h>

#include "base/arena.h"
#include "base/bucket.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/key.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/name.h"
#include "base/prefix.h"
#include "base/rand.h"
#include "net/dial.h"
#include "net/stream.h"
#include "proto/pb_util.h"
#include "tailnet/query.h"

#define PATH_JOIN "/skerry.internal.v1.JoinService/Join"

enum { JOIN_MS = 10000, SOURCES_MAX = 1024, MINUTE_MS = 60000, ARENA = 1 << 20 };

typedef Skerry__Internal__V1__JoinRequest join_request;
typedef Skerry__Internal__V1__JoinResponse join_response;
typedef Skerry__Internal__V1__JoinMember join_member;
typedef Skerry__Internal__V1__JoinSecrets join_secrets;

struct join_server {
	struct peer *peer;
	struct bucket all;
	struct map sources; /* address text -> struct bucket */
};

/* One request on its way through the log. */
struct join {
	struct peer *peer;
	struct rpc_ref ref;
	uint8_t hash[32]; /* of the request */
};

static const int one_request; /* its address names the connection data */

/* ---- who may ask ---- */

static bool source_allowed(struct join_server *j, const struct stream_peer *from, uint64_t now)
{
	struct bucket *b;

	/* By address alone: a port is cheap. */
	b = map_get(&j->sources, &from->addr.addr, sizeof(from->addr.addr));
	if (b == NULL) {
		if (map_len(&j->sources) >= SOURCES_MAX) {
			/* Forgetting all at once is bounded too: by the bucket for everybody. */
			struct map_iter it = {0};

			while (map_next(&j->sources, &it)) {
				mem_free(it.value);
			}
			map_clear(&j->sources);
		}
		b = MEM_NEW(struct bucket);
		bucket_init(b, LIM_JOIN_PER_SOURCE_PER_MIN, MINUTE_MS, now);
		IGNORE(map_put(&j->sources, &from->addr.addr, sizeof(from->addr.addr), b) != NULL);
	}
	return bucket_take(b, 1, now);
}

static int gate(void *arg, struct rpc_call *call, const struct proto_method *method,
		struct err *err)
{
	struct join_server *j = arg;
	uint64_t now = clock_mono_ms();

	(void)method;
	if (rpc_call_conn_data(call, &one_request) != NULL) {
		return err_set(err, ERR_LIMIT, "one request a connection");
	}
	rpc_call_set_conn_data(call, &one_request, j, NULL);
	METRICS_COUNT("skerry_join_requests_total", "Join requests received", 1);
	if (!source_allowed(j, rpc_call_peer(call), now) || !bucket_take(&j->all, 1, now)) {
		METRICS_COUNT("skerry_join_limited_total", "Join requests over the rate limit", 1);
		return err_reason(err, ERR_LIMIT, "JOIN_RATE",
				  "too many join requests: wait a minute");
	}
	return 0;
}

/* ---- the request ---- */

static int check_request(const join_request *q, struct err *err)
{
	char host[256];
	uint8_t pub[X509_PUB_MAX];
	enum x509_key_type type;
	size_t len;
	uint16_t port;
	bool tls;
	int r = name_valid_label(q->name, strlen(q->name), err);

	if (r < 0) {
		return err_field(err, r, "name", "the name of the lighthouse: %s", err_msg(err, r));
	}
	if (q->token_id == 0 || q->token_secret.len != 32 || q->box_key.len != CRYPTO_KEY) {
		return err_set(err, ERR_INVALID, "the join request is not complete");
	}
	r = pki_spki_parse(q->public_key.data, q->public_key.len, &type, pub, &len, err);
	if (r >= 0) {
		r = pki_spki_parse(q->api_public_key.data, q->api_public_key.len, &type, pub, &len,
				   err);
	}
	if (r < 0) {
		return r;
	}
	if (strlen(q->peer_address) > LIM_HOST_PORT ||
	    hostport_parse(q->peer_address, 0, host, sizeof(host), &port, NULL) < 0 || port == 0) {
		return err_field(err, ERR_INVALID, "peer_address",
				 "the peer address \"%.100s\" is not of the form host:port that "
				 "others can dial",
				 q->peer_address);
	}
	if (strlen(q->api_url) > LIM_HOST_PORT || strncmp(q->api_url, "https://", 8) != 0 ||
	    dial_parse(q->api_url, host, &port, &tls, NULL) < 0) {
		return err_field(err, ERR_INVALID, "api_url",
				 "the API URL \"%.100s\" is not of the form https://host[:port]",
				 q->api_url);
	}
	return 0;
}

/* Is the secret that of the token? An unknown id costs the same. */
static bool token_matches(const struct kv *kv, const join_request *q, struct arena *a)
{
	static const uint8_t nothing[CRYPTO_HASH];
	struct key k = {.kind = KEY_JOIN, .id = q->token_id};
	JoinTokenRecord *t = NULL;
	uint8_t hash[CRYPTO_HASH];
	bool known, equal;

	memcpy(k.secret, q->token_secret.data, sizeof(k.secret));
	key_hash(&k, hash);
	key_done(&k);
	known = query_join_token(kv, q->token_id, 0, a, &t) >= 0 && !t->revoked &&
		t->credential != NULL && t->credential->hash.len == CRYPTO_HASH;
	equal = crypto_equal(hash, known ? t->credential->hash.data : nothing, CRYPTO_HASH);
	return known && equal;
}

/* ---- the answer ---- */

/* Certificates and cluster.key, sealed to the joiner. */
static int seal_secrets(struct peer *p, const join_request *q, uint64_t id, struct buf *sealed,
			struct err *err)
{
	join_secrets s = SKERRY__INTERNAL__V1__JOIN_SECRETS__INIT;
	struct buf node = BUF_INIT, api = BUF_INIT, ca_der = BUF_INIT, node_der = BUF_INIT,
		   api_der = BUF_INIT, old_der = BUF_INIT, cross_der = BUF_INIT, packed = BUF_INIT;
	struct pki_ca ca = {0};
	int64_t now = clock_wall_ms();
	int r = peer_tls_ca(p, &ca, err);

	if (r >= 0) {
		r = pki_issue_peer(&ca, id, q->public_key.data, q->public_key.len, now, &node, err);
	}
	if (r >= 0) {
		r = pki_issue_api(&ca, id, q->api_public_key.data, q->api_public_key.len,
				  q->api_url, now, &api, err);
	}
	if (r >= 0) {
		r = pki_cert_der(ca.cert_pem, &ca_der, err);
	}
	if (r >= 0) {
		r = pki_cert_der(buf_str(&node), &node_der, err);
	}
	if (r >= 0) {
		r = pki_cert_der(buf_str(&api), &api_der, err);
	}
	if (r >= 0 && p->keys->ca_old_pem != NULL) {
		r = pki_cert_der(p->keys->ca_old_pem, &old_der, err);
		if (r >= 0) {
			r = pki_cert_der(p->keys->ca_cross_pem, &cross_der, err);
		}
	}
	if (r >= 0) {
		s.ca_old_der.data = old_der.data;
		s.ca_old_der.len = old_der.len;
		s.ca_cross_der.data = cross_der.data;
		s.ca_cross_der.len = cross_der.len;
		s.cluster_key.data = p->keys->cluster_key;
		s.cluster_key.len = PKI_KEY;
		s.ca_certificate_der.data = ca_der.data;
		s.ca_certificate_der.len = ca_der.len;
		s.peer_certificate_der.data = node_der.data;
		s.peer_certificate_der.len = node_der.len;
		s.api_certificate_der.data = api_der.data;
		s.api_certificate_der.len = api_der.len;
		buf_reserve(&packed, LIM_JOIN_REQUEST_BYTES); /* no outgrown copies of the key */
		pb_pack(&s, &packed);
		if (crypto_x25519_seal(q->box_key.data, packed.data, packed.len, sealed) < 0) {
			r = err_field(err, ERR_INVALID, "box_key", "the joiner's key is unusable");
		}
	}
	buf_wipe(&packed);
	buf_done(&node);
	buf_done(&api);
	buf_done(&ca_der);
	buf_done(&node_der);
	buf_done(&api_der);
	buf_done(&old_der);
	buf_done(&cross_der);
	pki_ca_done(&ca);
	return r;
}

static void reply(struct join *j, struct rpc_call *call, const join_request *q, uint64_t id)
{
	struct peer *p = j->peer;
	join_response out = SKERRY__INTERNAL__V1__JOIN_RESPONSE__INIT;
	join_member rows[LIM_MEMBERS], *list[LIM_MEMBERS];
	struct buf sealed = BUF_INIT;
	const struct member *m;
	struct err e = {0};
	int r;

	peer_table_refresh(p); /* it was applied here just now */
	m = member_find(&p->table, id);
	if (m == NULL || m->removed) {
		rpc_call_fail(call, ERR_DENIED,
			      m == NULL ? "the member is not in the table"
					: "the member was removed meanwhile");
		return;
	}
	r = seal_secrets(p, q, id, &sealed, &e);
	if (r < 0) {
		rpc_call_finish(call, &e);
		buf_done(&sealed);
		return;
	}
	for (size_t i = 0; i < p->table.n && out.n_members < LIM_MEMBERS; i++) {
		join_member *row = &rows[out.n_members];

		m = &p->table.m[i];
		if (m->removed) {
			continue;
		}
		skerry__internal__v1__join_member__init(row);
		row->id = m->id;
		row->peer_address = (char *)m->address;
		row->api_url = (char *)m->api_url;
		row->public_key.data = (uint8_t *)m->public_key;
		row->public_key.len = m->public_key_len;
		list[out.n_members++] = row;
	}
	out.members = list;
	out.cluster_id = p->cluster_id;
	out.lighthouse_id = id;
	out.sealed.data = sealed.data;
	out.sealed.len = sealed.len;
	rpc_call_reply(call, &out.base);
	LOG_DEBUG("peer: lighthouse %" PRIu64 " joined", id);
	buf_done(&sealed);
}

/* ---- through the log ---- */

/* The request again: it lives as long as the call. */
static const int request_data;

static void on_applied(void *arg, const struct err *err,
		       const Skerry__Internal__V1__CommandResult *r)
{
	struct join *j = arg;
	struct rpc_call *call = peer_call_find(j->peer->join_rpc, j->ref);
	struct err e = {0};

	if (call == NULL) {
		mem_free(j);
		return;
	}
	if (err->code != 0) {
		rpc_call_finish(call, err);
	} else if (r->code != 0) {
		err_reason(&e, err_from_grpc(r->code), r->reason, "%s", r->message);
		rpc_call_finish(call, &e);
	} else {
		reply(j, call, rpc_call_data(call, &request_data), r->id);
	}
	mem_free(j);
}

static int propose(struct join *j, const join_request *q, struct err *err)
{
	struct peer *p = j->peer;
	Skerry__Internal__V1__Command c = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Skerry__Internal__V1__Actor actor = SKERRY__INTERNAL__V1__ACTOR__INIT;
	Skerry__Internal__V1__MemberJoin body = SKERRY__INTERNAL__V1__MEMBER_JOIN__INIT;
	MemberRecord m = SKERRY__INTERNAL__V1__MEMBER_RECORD__INIT;
	struct propose_options o = {.class = PROPOSE_INTERNAL,
				    .deadline_ms = clock_mono_ms() + JOIN_MS};
	uint8_t random[32];

	rand_bytes(random, sizeof(random));
	actor.kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_ANONYMOUS;
	c.actor = &actor;
	c.random.data = random;
	c.random.len = sizeof(random);
	m.id = rand_id63();
	m.name = q->name;
	m.kind = SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_STANDBY;
	m.public_key = q->public_key;
	m.peer_address = q->peer_address;
	m.api_url = q->api_url;
	m.feature_min = q->feature_min;
	m.feature_max = q->feature_max;
	m.version = q->version;
	m.join_token_id = q->token_id;
	m.join_request_hash.data = j->hash;
	m.join_request_hash.len = sizeof(j->hash);
	m.box_key = q->box_key;
	body.token_id = q->token_id;
	body.token_verified = true;
	body.member = &m;
	c.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_MEMBER_JOIN;
	c.member_join = &body;
	return cluster_propose(p->cluster, p->loop, &c, &o, on_applied, j, err);
}

static int judge(struct join *j, const join_request *q, struct err *err)
{
	struct cluster_read *read = NULL;
	struct arena a;
	bool ok;
	int r = cluster_read_begin(j->peer->cluster, "join", &read, err);

	if (r < 0) {
		return r;
	}
	arena_init(&a, ARENA);
	ok = token_matches(cluster_read_kv(read), q, &a);
	arena_done(&a);
	cluster_read_end(read);
	if (!ok) {
		METRICS_COUNT("skerry_join_refused_total", "Join requests with a wrong token", 1);
		return err_reason(err, ERR_UNAUTHENTICATED, "TOKEN_UNKNOWN",
				  "the join token is not known here: make a new one with `skerry "
				  "cluster token` on a lighthouse of the cluster");
	}
	return propose(j, q, err);
}

/* All that was acknowledged is here: a token that is unknown now is unknown. */
static void on_read(void *arg, const struct err *err)
{
	struct join *j = arg;
	struct rpc_call *call = peer_call_find(j->peer->join_rpc, j->ref);
	struct err e = *err;

	if (call == NULL) {
		mem_free(j);
		return;
	}
	if (e.code == 0) {
		int r = judge(j, rpc_call_data(call, &request_data), &e);

		if (r >= 0) {
			return; /* on_applied goes on */
		}
		e.code = r;
	}
	rpc_call_finish(call, &e);
	mem_free(j);
}

static void on_join(void *arg, struct rpc_call *call, const ProtobufCMessage *req)
{
	struct join_server *server = arg;
	struct peer *p = server->peer;
	const join_request *q = (const join_request *)req;
	struct read_want want = {.level = READ_LEADER, .deadline_ms = clock_mono_ms() + JOIN_MS};
	struct buf packed = BUF_INIT;
	struct err e = {0};
	struct join *j;
	int r = check_request(q, &e);

	if (r < 0) {
		rpc_call_finish(call, &e);
		return;
	}
	j = MEM_NEW(struct join);
	j->peer = p;
	j->ref = rpc_call_ref(call);
	buf_reserve(&packed, LIM_JOIN_REQUEST_BYTES);
	pb_pack(q, &packed);
	crypto_sha256(j->hash, packed.data, packed.len);
	buf_wipe(&packed);
	rpc_call_set_data(call, &request_data, (void *)q, NULL);
	r = cluster_read_wait(p->cluster, p->loop, &want, on_read, j, &e);
	if (r < 0) {
		e.code = r;
		rpc_call_finish(call, &e);
		mem_free(j);
	}
}

struct join_server *join_server_new(struct peer *p)
{
	static const struct rpc_handler handler = {.on_call = on_join};
	struct join_server *j = MEM_NEW(struct join_server);

	j->peer = p;
	bucket_init(&j->all, LIM_JOIN_PER_MIN, MINUTE_MS, clock_mono_ms());
	rpc_server_add(p->join_rpc, PATH_JOIN, &handler, j);
	rpc_server_set_gate(p->join_rpc, gate, j);
	return j;
}

void join_server_free(struct join_server *j)
{
	struct map_iter it = {0};

	if (j == NULL) {
		return;
	}
	while (map_next(&j->sources, &it)) {
		mem_free(it.value);
	}
	map_done(&j->sources);
	mem_free(j);
}
