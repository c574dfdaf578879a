#include "net/tls.h"

#include <pthread.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "base/buf.h"
#include "base/crypto.h"
#include "base/mem.h"
#include "net/tls_int.h"
#include "net/x509_int.h"

/*
 * Contexts. A handshake's verification runs in one place, tls_on_verify(): first the chain (by the
 * trust mode), then the server name (clients), then the caller's callback. What it finds stays in
 * the tls_conn for the error message.
 */

static pthread_once_t conn_index_once = PTHREAD_ONCE_INIT;
static int conn_index;

static void conn_index_make(void)
{
	conn_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
}

struct tls_conn *tls_conn_of(const SSL *ssl)
{
	return SSL_get_ex_data(ssl, conn_index);
}

void tls_conn_attach(SSL *ssl, struct tls_conn *conn)
{
	SSL_set_ex_data(ssl, conn_index, conn);
}

void tls_error(struct err *err, int code, const char *what)
{
	struct buf text = BUF_INIT;
	unsigned long e;

	while ((e = ERR_get_error()) != 0) {
		const char *reason = ERR_reason_error_string(e);
		char unknown[32];

		if (reason == NULL) {
			snprintf(unknown, sizeof(unknown), "error %lx", e);
			reason = unknown;
		}
		buf_append_str(&text, text.len > 0 ? "; " : "");
		buf_append_str(&text, reason);
	}
	err_set(err, code, "%s: %s", what, text.len > 0 ? buf_str(&text) : "no details");
	buf_done(&text);
}

void tls_peer_free(struct tls_peer *peer)
{
	if (peer == NULL) {
		return;
	}
	mem_free((void *)peer->der);
	x509_facts_done(&peer->facts);
	mem_free(peer);
}

/* ---- Verification ---------------------------------------------------------------------------- */

/* Pin mode: the pinned CA is among the certificates that were sent; it alone is trusted for this
 * chain. */
static bool tls_verify_pin(const struct tls_ctx *ctx, X509_STORE_CTX *sent, struct err *err)
{
	STACK_OF(X509) *chain = X509_STORE_CTX_get0_untrusted(sent);
	X509 *leaf = X509_STORE_CTX_get0_cert(sent);
	X509 *anchor = NULL;

	for (int i = 0; i < sk_X509_num(chain); i++) {
		uint8_t hash[32];

		x509_spki_hash(sk_X509_value(chain, i), hash);
		if (crypto_equal(hash, ctx->pin, sizeof(hash)) ||
		    crypto_equal(hash, ctx->pin_too, sizeof(hash))) {
			anchor = sk_X509_value(chain, i);
		}
	}
	if (anchor == NULL || anchor == leaf) {
		err_reason(err, ERR_UNAUTHENTICATED, "PIN_MISMATCH",
			   "the server's certificate is not of the cluster that the key names (pin "
			   "not found in its chain)");
		return false;
	}
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *check = X509_STORE_CTX_new();
	X509_STORE_add_cert(store, anchor);
	X509_STORE_CTX_init(check, store, leaf, chain);
	X509_STORE_CTX_set_default(check, "ssl_server");
	int ok = X509_verify_cert(check);
	if (ok != 1) {
		err_set(err, ERR_UNAUTHENTICATED, "the server's certificate: %s",
			X509_verify_cert_error_string(X509_STORE_CTX_get_error(check)));
	}
	X509_STORE_CTX_free(check);
	X509_STORE_free(store);
	return ok == 1;
}

static bool tls_name_matches(X509 *cert, const char *name)
{
	struct ipaddr ip;

	if (ipaddr_parse(name, &ip, NULL) == 0) {
		return X509_check_ip(cert, ip.b, ipaddr_len(&ip), 0) == 1;
	}
	return X509_check_host(cert, name, 0, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, NULL) == 1;
}

static int tls_on_verify(X509_STORE_CTX *sent, void *arg)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(sent, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct tls_conn *conn = tls_conn_of(ssl);
	struct tls_ctx *ctx = conn->ctx;
	X509 *leaf = X509_STORE_CTX_get0_cert(sent);
	struct err chain_err = {0};
	unsigned char *der = NULL;

	(void)arg;
	struct tls_peer *peer = MEM_NEW(struct tls_peer);
	int len = i2d_X509(leaf, &der);
	if (len <= 0 || x509_facts_of(leaf, &peer->facts, &conn->err) != 0) {
		OPENSSL_free(der);
		mem_free(peer);
		if (conn->err.code == 0) {
			err_set(&conn->err, ERR_UNAUTHENTICATED,
				"the peer's certificate cannot be read");
		}
		X509_STORE_CTX_set_error(sent, X509_V_ERR_APPLICATION_VERIFICATION);
		return 0;
	}
	STACK_OF(X509) *chain = X509_STORE_CTX_get0_untrusted(sent);
	if (sk_X509_num(chain) > 1) {
		peer->has_ca = true;
		x509_spki_hash(sk_X509_value(chain, sk_X509_num(chain) - 1), peer->ca_spki_sha256);
	}
	peer->der = mem_memdup(der, (size_t)len);
	peer->der_len = (size_t)len;
	OPENSSL_free(der);

	if (!ctx->server && ctx->trust == TLS_TRUST_PIN) {
		peer->trusted = tls_verify_pin(ctx, sent, &chain_err);
	} else {
		peer->trusted = X509_verify_cert(sent) == 1;
		if (!peer->trusted) {
			err_set(&chain_err, ERR_UNAUTHENTICATED, "the peer's certificate (%s): %s",
				peer->facts.subject,
				X509_verify_cert_error_string(X509_STORE_CTX_get_error(sent)));
		}
	}
	bool judged_here = !ctx->server && ctx->trust != TLS_TRUST_CALLBACK;
	if (peer->trusted && judged_here && conn->server_name[0] != '\0' &&
	    !tls_name_matches(leaf, conn->server_name)) {
		peer->trusted = false;
		err_set(&chain_err, ERR_UNAUTHENTICATED,
			"the server's certificate is not for the name %s", conn->server_name);
	}
	/* The first finding counts: a callback is not asked to overrule a trust mode, only to add
	 * to it. */
	bool ok = peer->trusted || (!judged_here && ctx->verify != NULL);
	if (!ok) {
		conn->err = chain_err;
	} else if (ctx->verify != NULL && ctx->verify(ctx->verify_arg, peer, &conn->err) < 0) {
		ok = false;
		if (conn->err.code == 0) {
			err_set(&conn->err, ERR_UNAUTHENTICATED,
				"the peer's certificate was refused");
		}
	}
	if (!ok) {
		tls_peer_free(peer);
		X509_STORE_CTX_set_error(sent, X509_V_ERR_APPLICATION_VERIFICATION);
		return 0;
	}
	tls_peer_free(conn->peer);
	conn->peer = peer;
	X509_STORE_CTX_set_error(sent, X509_V_OK);
	return 1;
}

/* ---- Server: names and ALPN ------------------------------------------------------------------ */

static int tls_on_server_name(SSL *ssl, int *alert, void *arg)
{
	struct tls_ctx *ctx = arg;
	struct tls_conn *conn = tls_conn_of(ssl);
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

	(void)alert;
	struct tls_ctx *other = ctx->sni == NULL ? NULL
						 : ctx->sni(ctx->sni_arg, name != NULL ? name : "");
	if (other != NULL && other != ctx) {
		SSL_set_SSL_CTX(ssl, other->ssl);
		mem_free(conn->tag);
		conn->tag = mem_strdup(other->tag);
	}
	return SSL_TLSEXT_ERR_OK;
}

static int tls_on_alpn(SSL *ssl, const unsigned char **ret, unsigned char *ret_len,
		       const unsigned char *in, unsigned in_len, void *arg)
{
	struct tls_conn *conn = tls_conn_of(ssl);
	struct tls_ctx *ctx = conn->ctx; /* the listener's, whichever certificate answers */
	unsigned char *chosen;

	(void)arg;
	if (ctx->alpn == NULL) {
		return SSL_TLSEXT_ERR_NOACK;
	}
	if (SSL_select_next_proto(&chosen, ret_len, ctx->alpn, (unsigned)ctx->alpn_len, in,
				  in_len) != OPENSSL_NPN_NEGOTIATED) {
		err_set(&conn->err, ERR_UNIMPLEMENTED,
			"the client offers no protocol (ALPN) that is spoken here");
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	}
	*ret = chosen;
	return SSL_TLSEXT_ERR_OK;
}

/* A client that offers no ALPN never reaches tls_on_alpn: it is refused here where ALPN is
 * mandatory. */
static int tls_on_hello(SSL *ssl, int *alert, void *arg)
{
	struct tls_conn *conn = tls_conn_of(ssl);
	const unsigned char *ext;
	size_t len;

	(void)arg;
	if (conn->ctx->alpn == NULL || conn->ctx->alpn_optional ||
	    SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &ext,
				      &len) == 1) {
		return SSL_CLIENT_HELLO_SUCCESS;
	}
	err_set(&conn->err, ERR_UNIMPLEMENTED, "the client offers no protocol (ALPN)");
	*alert = SSL_AD_NO_APPLICATION_PROTOCOL;
	return SSL_CLIENT_HELLO_ERROR;
}

/* ---- Contexts -------------------------------------------------------------------------------- */

static int tls_set_alpn(struct tls_ctx *ctx, const char *const *alpn, struct err *err)
{
	struct buf wire = BUF_INIT;

	for (; alpn != NULL && *alpn != NULL; alpn++) {
		size_t len = strlen(*alpn);

		if (len == 0 || len > 255) {
			buf_done(&wire);
			return err_field(err, ERR_INVALID, "alpn",
					 "a protocol name has 1 to 255 bytes");
		}
		buf_u8(&wire, (uint8_t)len);
		buf_append(&wire, *alpn, len);
	}
	ctx->alpn_len = wire.len;
	ctx->alpn = wire.len > 0 ? buf_take(&wire, NULL) : NULL;
	return 0;
}

static int tls_set_cert(struct tls_ctx *ctx, const struct tls_cert *cert, struct err *err)
{
	BIO *bio = BIO_new_mem_buf(cert->chain_pem, -1);
	X509 *leaf = PEM_read_bio_X509(bio, NULL, x509_no_password, NULL);
	EVP_PKEY *key = NULL;
	X509 *next;
	int rc = 0;

	if (leaf == NULL) {
		tls_error(err, ERR_INVALID, "no certificate in the PEM text");
		rc = err_field(err, ERR_INVALID, "certificate",
			       "no certificate can be read from the PEM text");
		goto out;
	}
	if (cert->key_pem == NULL || (key = x509_read_key(cert->key_pem)) == NULL) {
		ERR_clear_error();
		rc = err_field(err, ERR_INVALID, "key",
			       "no unencrypted private key can be read from the PEM text");
		goto out;
	}
	if (SSL_CTX_use_certificate(ctx->ssl, leaf) != 1 ||
	    SSL_CTX_use_PrivateKey(ctx->ssl, key) != 1 ||
	    SSL_CTX_check_private_key(ctx->ssl) != 1) {
		tls_error(err, ERR_INVALID, "certificate");
		rc = err_field(err, ERR_INVALID, "key",
			       "the private key does not belong to the certificate");
		goto out;
	}
	while ((next = PEM_read_bio_X509(bio, NULL, x509_no_password, NULL)) != NULL) {
		if (SSL_CTX_add0_chain_cert(ctx->ssl, next) != 1) {
			X509_free(next);
			tls_error(err, ERR_INVALID, "certificate chain");
			rc = ERR_INVALID;
			goto out;
		}
	}
	ERR_clear_error(); /* the end of the PEM text is not an error */
	rc = x509_facts_of(leaf, &ctx->facts, err);
	ctx->has_facts = rc == 0;
	ctx->tag = mem_strdup(cert->tag != NULL ? cert->tag : "");
out:
	EVP_PKEY_free(key);
	X509_free(leaf);
	BIO_free(bio);
	return rc;
}

static int tls_set_ca(struct tls_ctx *ctx, const char *pem, bool list, struct err *err)
{
	X509_STORE *store = X509_STORE_new();
	BIO *bio = BIO_new_mem_buf(pem, -1);
	X509 *ca;
	int n = 0;

	while ((ca = PEM_read_bio_X509(bio, NULL, x509_no_password, NULL)) != NULL) {
		X509_STORE_add_cert(store, ca);
		if (list) {
			SSL_CTX_add_client_CA(ctx->ssl, ca);
		}
		X509_free(ca);
		n++;
	}
	ERR_clear_error();
	BIO_free(bio);
	SSL_CTX_set_cert_store(ctx->ssl, store);
	return n > 0 ? 0
		     : err_field(err, ERR_INVALID, "ca",
				 "no CA certificate can be read from the PEM text");
}

static struct tls_ctx *tls_ctx_new(const SSL_METHOD *method, bool tls13_only)
{
	pthread_once(&conn_index_once, conn_index_make);
	struct tls_ctx *ctx = MEM_NEW(struct tls_ctx);
	ctx->refs = 1;
	ctx->ssl = SSL_CTX_new(method);
	if (ctx->ssl == NULL) {
		IMPOSSIBLE("SSL_CTX_new failed");
	}
	SSL_CTX_set_min_proto_version(ctx->ssl, tls13_only ? TLS1_3_VERSION : TLS1_2_VERSION);
	SSL_CTX_set_options(ctx->ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
					      SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_mode(ctx->ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_session_cache_mode(ctx->ssl, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(ctx->ssl, 0);
	SSL_CTX_set_max_early_data(ctx->ssl, 0);
	SSL_CTX_set_cipher_list(ctx->ssl, "ECDHE+AESGCM:ECDHE+CHACHA20");
	SSL_CTX_set_cert_verify_callback(ctx->ssl, tls_on_verify, NULL);
	return ctx;
}

int tls_server_new(const struct tls_server_opts *opts, struct tls_ctx **ret_ctx, struct err *err)
{
	struct tls_ctx *ctx = tls_ctx_new(TLS_server_method(), opts->tls13_only);
	int rc = tls_set_alpn(ctx, opts->alpn, err);

	ctx->server = true;
	ctx->alpn_optional = opts->alpn_optional;
	ctx->client_auth = opts->client_auth;
	ctx->verify = opts->verify;
	ctx->verify_arg = opts->verify_arg;
	ctx->sni = opts->sni;
	ctx->sni_arg = opts->sni_arg;
	if (rc == 0) {
		rc = opts->cert.chain_pem == NULL
			     ? err_field(err, ERR_INVALID, "certificate", "a server needs one")
			     : tls_set_cert(ctx, &opts->cert, err);
	}
	if (rc == 0 && opts->client_ca_pem != NULL) {
		rc = tls_set_ca(ctx, opts->client_ca_pem, true, err);
	}
	if (rc != 0) {
		tls_unref(ctx);
		return rc;
	}
	int mode = SSL_VERIFY_NONE;
	if (opts->client_auth != TLS_CLIENT_AUTH_NONE) {
		mode = SSL_VERIFY_PEER | (opts->client_auth == TLS_CLIENT_AUTH_REQUIRED
						  ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT
						  : 0);
	}
	SSL_CTX_set_verify(ctx->ssl, mode, NULL);
	SSL_CTX_set_alpn_select_cb(ctx->ssl, tls_on_alpn, ctx);
	SSL_CTX_set_client_hello_cb(ctx->ssl, tls_on_hello, ctx);
	SSL_CTX_set_tlsext_servername_callback(ctx->ssl, tls_on_server_name);
	SSL_CTX_set_tlsext_servername_arg(ctx->ssl, ctx);
	*ret_ctx = ctx;
	return 0;
}

int tls_client_new(const struct tls_client_opts *opts, struct tls_ctx **ret_ctx, struct err *err)
{
	struct tls_ctx *ctx =
		tls_ctx_new(TLS_client_method(), opts->tls13_only || opts->trust == TLS_TRUST_PIN);
	int rc = tls_set_alpn(ctx, opts->alpn, err);

	ctx->trust = opts->trust;
	ctx->verify = opts->verify;
	ctx->verify_arg = opts->verify_arg;
	memcpy(ctx->pin, opts->pin, sizeof(ctx->pin));
	memcpy(ctx->pin_too, opts->pin_too != NULL ? opts->pin_too : opts->pin,
	       sizeof(ctx->pin_too));
	if (rc == 0 && opts->cert.chain_pem != NULL) {
		rc = tls_set_cert(ctx, &opts->cert, err);
	}
	if (rc == 0 && opts->trust == TLS_TRUST_SYSTEM) {
		SSL_CTX_set_default_verify_paths(ctx->ssl);
	} else if (rc == 0 && opts->ca_pem != NULL && opts->trust != TLS_TRUST_PIN) {
		rc = tls_set_ca(ctx, opts->ca_pem, false, err);
	} else if (rc == 0 && opts->trust == TLS_TRUST_CA) {
		rc = err_field(err, ERR_INVALID, "ca", "no CA certificate was given");
	}
	if (rc != 0) {
		tls_unref(ctx);
		return rc;
	}
	if (ctx->alpn != NULL) {
		SSL_CTX_set_alpn_protos(ctx->ssl, ctx->alpn, (unsigned)ctx->alpn_len);
	}
	SSL_CTX_set_verify(ctx->ssl, SSL_VERIFY_PEER, NULL);
	*ret_ctx = ctx;
	return 0;
}

struct tls_ctx *tls_ref(struct tls_ctx *ctx)
{
	__atomic_add_fetch(&ctx->refs, 1, __ATOMIC_RELAXED);
	return ctx;
}

void tls_unref(struct tls_ctx *ctx)
{
	if (ctx == NULL || __atomic_sub_fetch(&ctx->refs, 1, __ATOMIC_ACQ_REL) > 0) {
		return;
	}
	SSL_CTX_free(ctx->ssl);
	if (ctx->has_facts) {
		x509_facts_done(&ctx->facts);
	}
	mem_free(ctx->alpn);
	mem_free(ctx->tag);
	mem_free(ctx);
}

const struct x509_facts *tls_facts(const struct tls_ctx *ctx)
{
	return ctx->has_facts ? &ctx->facts : NULL;
}

/* ---- Slots ----------------------------------------------------------------------------------- */

struct tls_slot {
	pthread_mutex_t mutex;
	struct tls_ctx *ctx;
};

struct tls_slot *tls_slot_new(struct tls_ctx *ctx)
{
	struct tls_slot *slot = MEM_NEW(struct tls_slot);

	pthread_mutex_init(&slot->mutex, NULL);
	slot->ctx = tls_ref(ctx);
	return slot;
}

void tls_slot_set(struct tls_slot *slot, struct tls_ctx *ctx)
{
	tls_ref(ctx);
	pthread_mutex_lock(&slot->mutex);
	struct tls_ctx *old = slot->ctx;
	slot->ctx = ctx;
	pthread_mutex_unlock(&slot->mutex);
	tls_unref(old);
}

struct tls_ctx *tls_slot_get(struct tls_slot *slot)
{
	pthread_mutex_lock(&slot->mutex);
	struct tls_ctx *ctx = tls_ref(slot->ctx);
	pthread_mutex_unlock(&slot->mutex);
	return ctx;
}

void tls_slot_free(struct tls_slot *slot)
{
	if (slot == NULL) {
		return;
	}
	tls_unref(slot->ctx);
	pthread_mutex_destroy(&slot->mutex);
	mem_free(slot);
}
