/* TLS of the peer port: who is let in, who is dialled, and the renewal of certificates. */
#include "cluster/peer_int.h"

#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/stream.h"
#include "net/tls.h"
#include "tailnet/query.h"

static void lookup(void *arg, uint64_t id, struct pki_member *ret)
{
	const struct peer *p = arg;
	const struct member *m = member_find(&p->table, id);

	*ret = (struct pki_member){0};
	if (m != NULL) {
		ret->known = true;
		ret->removed = m->removed;
		memcpy(ret->spki_sha256, m->spki_sha256, sizeof(ret->spki_sha256));
	}
}

static int judge(struct peer *p, const struct tls_peer *peer, uint64_t expect, uint64_t *ret_id,
		 struct err *err)
{
	struct err e = {0};
	int r = pki_verify_peer(peer->der, peer->der_len, p->keys->ca_cert_pem, p->cluster_id,
				p->self, expect, lookup, p, ret_id, &e);

	/* While the CA is rotated the others may still have a certificate of the old one. */
	if (r < 0 && strcmp(e.reason, "FOREIGN_CA") == 0 && p->keys->ca_old_pem != NULL) {
		err_clear(&e);
		r = pki_verify_peer(peer->der, peer->der_len, p->keys->ca_old_pem, p->cluster_id,
				    p->self, expect, lookup, p, ret_id, &e);
	}
	/* Who slept through the rotation knows the new CA only by the chain that was sent: new with old. */
	if (r < 0 && strcmp(e.reason, "FOREIGN_CA") == 0 && peer->trusted) {
		err_clear(&e);
		r = pki_verify_member(&peer->facts, p->cluster_id, p->self, expect, lookup, p,
				      ret_id, &e);
	}
	if (r < 0 && err != NULL) {
		*err = e;
	}
	return r;
}

/*
 * Callers. A removed member gets through the handshake and no further: so it can be told why (peer_accept.c). So does one
 * that we do not know, with a certificate of the cluster: it may have to tell us of a newer epoch (peer_notice.c).
 */
static int verify_caller(void *arg, const struct tls_peer *peer, struct err *err)
{
	struct peer *p = arg;
	struct err e = {0};
	uint64_t id;
	int r = judge(p, peer, 0, &id, &e);

	if (r >= 0 || strcmp(e.reason, "MEMBER_REMOVED") == 0 ||
	    strcmp(e.reason, "MEMBER_UNKNOWN") == 0) {
		return 0;
	}
	LOG_DEBUG("peer: caller refused: %s", e.msg);
	return err_reason(err, r, e.reason, "%s", e.msg);
}

static int verify_dialled(void *arg, const struct tls_peer *peer, struct err *err)
{
	struct peer_link *l = arg;
	uint64_t id;

	return judge(l->peer, peer, l->id, &id, err);
}

void peer_tls_chain(const struct keyfile *k, const char *leaf_pem, struct buf *out)
{
	buf_append_str(out, leaf_pem);
	if (k->ca_old_pem != NULL) {
		buf_append_str(out, k->ca_cross_pem);
		buf_append_str(out, k->ca_old_pem);
	}
	buf_append_str(out, k->ca_cert_pem);
}

/* Every CA that counts. */
static char *accepted(const struct keyfile *k)
{
	return mem_printf("%s%s", k->ca_cert_pem, k->ca_old_pem != NULL ? k->ca_old_pem : "");
}

/* The chain, and the key, to be wiped. */
static int own_cert(struct peer *p, struct buf *chain, struct buf *key, struct err *err)
{
	int r;

	peer_tls_chain(p->keys, p->keys->node_cert_pem, chain);
	buf_reserve(key, 4096);
	r = x509_key_pem(p->keys->node_key, key);
	return r < 0 ? err_set(err, r, "the peer key cannot be used") : 0;
}

int peer_tls_server(struct peer *p, struct tls_ctx **ret, struct err *err)
{
	static const char *const alpn[] = {PEER_ALPN_RAFT, PEER_ALPN_PEER, PEER_ALPN_JOIN, NULL};
	struct buf chain = BUF_INIT, key = BUF_INIT;
	struct tls_server_opts o = {
		.alpn = alpn,
		.tls13_only = true,
		.client_auth =
			TLS_CLIENT_AUTH_OPTIONAL, /* joiners have none; the others are asked in on_stream */
		.verify = verify_caller,
		.verify_arg = p,
	};
	char *ca = accepted(p->keys);
	int r = own_cert(p, &chain, &key, err);

	if (r >= 0) {
		o.cert = (struct tls_cert){.chain_pem = buf_str(&chain), .key_pem = buf_str(&key)};
		o.client_ca_pem = ca;
		r = tls_server_new(&o, ret, err);
	}
	mem_free(ca);
	buf_done(&chain);
	buf_wipe(&key);
	return r;
}

/* Whom we do not count any more, at the other end of a notice. */
static int verify_removed(void *arg, const struct tls_peer *peer, struct err *err)
{
	struct peer_notice *n = arg;
	struct err e = {0};
	uint64_t id;

	if (judge(n->peer, peer, n->id, &id, &e) < 0 && strcmp(e.reason, "MEMBER_REMOVED") == 0) {
		return 0;
	}
	return err_set(err, ERR_DENIED, "another lighthouse answers there");
}

static int client_new(struct peer *p, const char *alpn,
		      int (*verify)(void *arg, const struct tls_peer *peer, struct err *err),
		      void *arg, struct tls_ctx **ret, struct err *err)
{
	const char *const list[] = {alpn, NULL};
	struct buf chain = BUF_INIT, key = BUF_INIT;
	struct tls_client_opts o = {
		.trust = TLS_TRUST_CALLBACK,
		.alpn = list,
		.tls13_only = true,
		.verify = verify,
		.verify_arg = arg,
	};
	char *ca = accepted(p->keys);
	int r = own_cert(p, &chain, &key, err);

	if (r >= 0) {
		o.cert = (struct tls_cert){.chain_pem = buf_str(&chain), .key_pem = buf_str(&key)};
		o.ca_pem = ca;
		r = tls_client_new(&o, ret, err);
	}
	mem_free(ca);
	buf_done(&chain);
	buf_wipe(&key);
	return r;
}

int peer_tls_client(struct peer_link *l, const char *alpn, struct tls_ctx **ret, struct err *err)
{
	return client_new(l->peer, alpn, verify_dialled, l, ret, err);
}

int peer_tls_client_removed(struct peer_notice *n, struct tls_ctx **ret, struct err *err)
{
	return client_new(n->peer, PEER_ALPN_PEER, verify_removed, n, ret, err);
}

int peer_tls_who(struct peer *p, const struct stream *s, uint64_t *ret_id, struct err *err)
{
	const struct stream_tls *tls = stream_tls(s);

	if (tls == NULL || tls->peer == NULL) {
		return err_reason(err, ERR_UNAUTHENTICATED, "NO_CERTIFICATE",
				  "a lighthouse shows its certificate");
	}
	return pki_verify_member(&tls->peer->facts, p->cluster_id, p->self, 0, lookup, p, ret_id,
				 err);
}

/* ---- renewal ---- */

int peer_tls_ca(struct peer *p, struct pki_ca *ret, struct err *err)
{
	struct cluster_read *read = NULL;
	const struct kv *kv;
	struct arena a;
	CaRecord *ca;
	SealedSecret *key;
	int r = cluster_read_begin(p->cluster, "renew", &read, err);

	if (r < 0) {
		return r;
	}
	arena_init(&a, 1 << 20);
	kv = cluster_read_kv(read);
	r = query_ca(kv, &a, &ca);
	if (r >= 0) {
		r = query_secret(kv, PKI_CA_KEY_NAME, &a, &key);
	}
	if (r < 0) {
		IGNORE(err_set(err, r, "the state holds no CA"));
	} else {
		r = pki_ca_open(p->cluster_id, ca->certificate_der.data, ca->certificate_der.len,
				key->box.data, key->box.len, key->generation, p->keys->cluster_key,
				ret, err);
	}
	cluster_read_end(read);
	arena_done(&a);
	return r;
}

int peer_tls_reload(struct peer *p, struct err *err)
{
	struct tls_ctx *ctx;
	int r = peer_tls_server(p, &ctx, err);

	if (r >= 0) {
		tls_slot_set(p->tls, ctx);
		tls_unref(ctx);
	}
	atomic_fetch_add(&p->certificates, 1);
	return r;
}

/* Half of its time is over, or it is of the CA before. One of a stranger is not ours to repair. */
static bool needs_renewal(const struct peer *p, const char *cert_pem, int64_t now)
{
	return pki_needs_renewal(cert_pem, now) ||
	       (p->keys->ca_old_pem != NULL && pki_signed_by(cert_pem, p->keys->ca_old_pem));
}

int peer_tls_renew(struct peer *p)
{
	int64_t now = clock_wall_ms();
	bool node = needs_renewal(p, p->keys->node_cert_pem, now);
	/* Browsers look for the host in it: an address that was changed in the configuration, too. */
	bool api = needs_renewal(p, p->keys->api_cert_pem, now) ||
		   !pki_api_names(p->keys->api_cert_pem, p->keys->api_url);
	struct buf node_pem = BUF_INIT, api_pem = BUF_INIT;
	uint8_t spki[PKI_SPKI_MAX];
	struct pki_ca ca = {0};
	struct err e = {0};
	int r;

	if (!node && !api) {
		return 0;
	}
	r = peer_tls_ca(p, &ca, &e);
	if (r >= 0 && node) {
		r = pki_issue_peer(&ca, p->self, spki, pki_spki(p->keys->node_key, spki), now,
				   &node_pem, &e);
	}
	if (r >= 0 && api) {
		r = pki_issue_api(&ca, p->self, spki, pki_spki(p->keys->api_key, spki),
				  p->keys->api_url, now, &api_pem, &e);
	}
	if (r >= 0) {
		pthread_mutex_lock(&p->lock);
		r = keyfile_renew(p->dir, p->keys, node ? buf_str(&node_pem) : NULL,
				  api ? buf_str(&api_pem) : NULL, &e);
		pthread_mutex_unlock(&p->lock);
	}
	if (r >= 0) {
		r = peer_tls_reload(p, &e);
	}
	if (r == ERR_NOT_FOUND) {
		LOG_DEBUG("certificates of this lighthouse wait for the state to be renewed");
	} else if (r < 0) {
		LOG_WARN("certificates of this lighthouse are not renewed yet: %s", err_msg(&e, r));
	} else {
		LOG_INFO("certificates of this lighthouse renewed: peer=%d api=%d", node, api);
	}
	pki_ca_done(&ca);
	buf_done(&node_pem);
	buf_done(&api_pem);
	return r;
}
