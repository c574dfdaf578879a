/* TLS contexts: certificates by server name, ALPN, client certificates, and the three ways to trust
 * a server. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"
#include "net/x509.h"

struct loop;
struct stream;
struct tls_ctx; /* reference counted; made and used on any thread, immutable after it was given to a
		   listener */

/* The certificate of the other side, as a verify callback and the handlers of a connection see it.
 */
struct tls_peer {
	const uint8_t *der; /* the certificate */
	size_t der_len;
	struct x509_facts facts; /* names, public key, SPKI hash, validity */
	bool trusted; /* the chain ends in one of the CAs of the context and is valid now */
	bool has_ca;  /* a CA was sent with it; that it signed is not judged here */
	uint8_t ca_spki_sha256[32]; /* of the last certificate sent: what a pin of this cluster
				       would be */
};

/*
 * Judges the other side's certificate; called in the handshake, after the chain was judged. Returns
 * 0 to go on; negative (with the reason in *err) ends the handshake with the alert bad_certificate.
 * Without a callback `trusted` decides. With one it decides alone: it must look at peer->trusted
 * itself.
 */
typedef int (*tls_verify_fn)(void *arg, const struct tls_peer *peer, struct err *err);

enum tls_client_auth {
	TLS_CLIENT_AUTH_NONE,     /* no certificate is asked for */
	TLS_CLIENT_AUTH_OPTIONAL, /* asked for; judged when sent */
	TLS_CLIENT_AUTH_REQUIRED, /* the handshake fails without one */
};

/* A certificate chain with its key, PEM text in memory (copied). */
struct tls_cert {
	const char *chain_pem; /* leaf first */
	const char *key_pem;
	const char *tag; /* stands in stream_tls.server_tag: says which certificate answered; NULL =
			    "" */
};

/*
 * Chooses the context for the server name that the client asked for ("" without one); borrows from
 * the arg's owner for the duration of the call. NULL = the listener's own context. Called on the
 * connection's loop.
 */
typedef struct tls_ctx *(*tls_sni_fn)(void *arg, const char *server_name);

struct tls_server_opts {
	struct tls_cert cert;
	const char *const *
		alpn; /* NULL-terminated, in order of preference; a client without a common one gets
			 the fatal alert no_application_protocol; NULL = ALPN is not looked at */
	bool alpn_optional; /* clients that offer no ALPN at all are served (alpn "") */
	bool tls13_only;
	enum tls_client_auth client_auth;
	const char *client_ca_pem; /* CAs that client certificates may end in; NULL = none
				      (peer->trusted false) */
	tls_verify_fn verify;
	void *verify_arg; /* must live as long as the context */
	tls_sni_fn sni;
	void *sni_arg;
};

enum tls_trust {
	TLS_TRUST_SYSTEM, /* the system's roots and the server name */
	TLS_TRUST_CA,     /* the CAs of ca_pem and the server name */
	TLS_TRUST_PIN,    /* a CA in the sent chain has the pinned SPKI and signed the leaf; and the
			     server name */
	TLS_TRUST_CALLBACK, /* ca_pem (may be NULL) only sets peer->trusted; the callback decides,
			       names included */
};

struct tls_client_opts {
	enum tls_trust trust;
	const char *ca_pem;
	uint8_t pin[32];         /* SHA-256 over the CA's SubjectPublicKeyInfo */
	const uint8_t *pin_too;  /* another one that is as good, 32 bytes, copied; NULL = none */
	const char *const *alpn; /* NULL-terminated; the server must choose one of them when set */
	struct tls_cert cert;    /* own certificate, chain_pem NULL = none */
	bool tls13_only;         /* always so for TLS_TRUST_PIN */
	tls_verify_fn verify; /* in addition to the trust mode: e.g. an expected URI name and key */
	void *verify_arg;
};

/* Errors: ERR_INVALID with what is wrong in which PEM (field = "certificate", "key", "ca"). */
MUST_CHECK int tls_server_new(const struct tls_server_opts *opts, struct tls_ctx **ret_ctx,
			      struct err *err);
MUST_CHECK int tls_client_new(const struct tls_client_opts *opts, struct tls_ctx **ret_ctx,
			      struct err *err);
struct tls_ctx *tls_ref(struct tls_ctx *ctx);
void tls_unref(struct tls_ctx *ctx);

/* Facts of the context's own certificate (expiry for the metrics); NULL for a client without one.
 */
const struct x509_facts *tls_facts(const struct tls_ctx *ctx);

/*
 * A context that can be exchanged while connections come in (certificate renewal): listeners hold a
 * slot. tls_slot_get returns a new reference. Any thread.
 */
struct tls_slot;
struct tls_slot *tls_slot_new(struct tls_ctx *ctx); /* takes a reference of its own */
void tls_slot_set(struct tls_slot *slot, struct tls_ctx *ctx);
struct tls_ctx *tls_slot_get(struct tls_slot *slot);
void tls_slot_free(struct tls_slot *slot);

/*
 * Handshakes over a stream. Takes `lower` in any case. cb(arg, stream, err) exactly once, in a
 * later turn: the TLS stream (the caller owns it, no handler set) or NULL and why. After
 * tls_handshake_cancel() no callback comes. server_name (client only, copied): sent as SNI unless
 * it is an address, and checked according to the trust mode.
 */
struct tls_handshake;
typedef void (*tls_handshake_cb)(void *arg, struct stream *stream, const struct err *err);
struct tls_handshake *tls_accept(struct stream *lower, struct tls_ctx *ctx, uint64_t timeout_ms,
				 tls_handshake_cb cb, void *arg);
struct tls_handshake *tls_connect(struct stream *lower, struct tls_ctx *ctx,
				  const char *server_name, uint64_t timeout_ms, tls_handshake_cb cb,
				  void *arg);
void tls_handshake_cancel(struct tls_handshake *handshake);
