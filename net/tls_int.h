/* Inside of TLS: contexts as the streams use them. */
#pragma once

#include <openssl/ssl.h>

#include "net/stream_int.h"
#include "net/tls.h"

struct tls_ctx {
	SSL_CTX *ssl;
	unsigned refs; /* atomic */
	bool server;
	char *tag;
	uint8_t *alpn; /* wire form, NULL = none */
	size_t alpn_len;
	bool alpn_optional;
	enum tls_client_auth client_auth;
	enum tls_trust trust;
	uint8_t pin[32];
	uint8_t pin_too[32]; /* or this one; the same when there is one alone */
	tls_verify_fn verify;
	void *verify_arg;
	tls_sni_fn sni;
	void *sni_arg;
	bool has_facts;
	struct x509_facts facts;
};

/* What the callbacks of a handshake leave behind; hangs on the SSL object. */
struct tls_conn {
	struct tls_ctx *ctx; /* the one the connection began with */
	char *server_name;   /* client: what to check, "" = nothing */
	struct err err;      /* why verification failed */
	struct tls_peer *peer;
	char *tag; /* of the context that answered */
};

struct tls_conn *tls_conn_of(const SSL *ssl);
void tls_conn_attach(SSL *ssl, struct tls_conn *conn);
void tls_peer_free(struct tls_peer *peer);

/* The OpenSSL error queue as one text, oldest first; empties it. */
void tls_error(struct err *err, int code, const char *what);
