/* Keys and certificates: making a CA, issuing from public keys, reading facts. No I/O, any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/macros.h"
#include "base/prefix.h"

enum x509_key_type {
	X509_KEY_OTHER, /* RSA and the rest: only read, never made */
	X509_KEY_ED25519,
	X509_KEY_P256, /* what stock clients of the API listener need */
};

enum {
	X509_NAMES_MAX =
		32, /* alternative names looked at in a certificate; one with more is refused */
	X509_PUB_MAX = 65, /* raw public key: Ed25519 32 bytes, P-256 uncompressed point 65 bytes */
};

/* What is read from a certificate. Owns its strings: x509_facts_done(). */
struct x509_facts {
	char *subject; /* common name, "" without */
	char *issuer;
	char *uris[X509_NAMES_MAX];
	size_t n_uris;
	char *dns[X509_NAMES_MAX];
	size_t n_dns;
	struct ipaddr ips[X509_NAMES_MAX];
	size_t n_ips;
	enum x509_key_type key_type;
	uint8_t pub[X509_PUB_MAX]; /* raw public key; pub_len 0 for X509_KEY_OTHER */
	size_t pub_len;
	uint8_t spki_sha256[32]; /* over the DER SubjectPublicKeyInfo: what pins name */
	uint8_t sha256[32];      /* over the DER certificate */
	uint8_t serial[20];
	size_t serial_len;
	int64_t not_before_ms; /* unix ms */
	int64_t not_after_ms;
	bool is_ca;
};

void x509_facts_done(struct x509_facts *facts);
/* True when one of the URI names equals `uri`. */
bool x509_facts_has_uri(const struct x509_facts *facts, const char *uri);

/* Reads the first certificate of a PEM text, or a DER certificate. ERR_INVALID says what cannot be
 * read. */
MUST_CHECK int x509_parse_pem(const char *pem, struct x509_facts *ret_facts, struct err *err);
MUST_CHECK int x509_parse_der(const void *der, size_t len, struct x509_facts *ret_facts,
			      struct err *err);

/* A private key. */
struct x509_key;
MUST_CHECK int x509_key_new(enum x509_key_type type, struct x509_key **ret_key, struct err *err);
/* From PKCS#8 PEM. */
MUST_CHECK int x509_key_parse(const char *pem, struct x509_key **ret_key, struct err *err);
void x509_key_free(struct x509_key *key); /* wipes it */
/* Appends PKCS#8 PEM (a secret: the caller wipes the buffer). */
MUST_CHECK int x509_key_pem(const struct x509_key *key, struct buf *out);
enum x509_key_type x509_key_type(const struct x509_key *key);
/* Raw public key into ret_pub[X509_PUB_MAX]; returns its length. */
size_t x509_key_pub(const struct x509_key *key, uint8_t *ret_pub);
void x509_key_spki_sha256(const struct x509_key *key, uint8_t ret_hash[32]);
/* Ed25519 keys only: the 32-byte seed, and a key from a seed. */
MUST_CHECK int x509_key_seed(const struct x509_key *key, uint8_t ret_seed[32]);
MUST_CHECK int x509_key_from_seed(const uint8_t seed[32], struct x509_key **ret_key);

/* SPKI hash of a raw public key. ERR_INVALID when it is none of that type. */
MUST_CHECK int x509_pub_spki_sha256(enum x509_key_type type, const uint8_t *pub, size_t pub_len,
				    uint8_t ret_hash[32], struct err *err);

/* What a certificate shall say. */
struct x509_spec {
	const char *subject;     /* common name */
	const char *const *uris; /* NULL or NULL-terminated lists */
	const char *const *dns;
	const struct ipaddr *ips;
	size_t n_ips;
	int64_t not_before_ms; /* unix ms; callers subtract some minutes for slow clocks */
	int64_t not_after_ms;
	bool server; /* extended key usage serverAuth */
	bool client; /* clientAuth */
	bool ca;     /* basicConstraints CA, pathlen 0 */
};

/* A self-signed CA certificate; appends PEM. */
MUST_CHECK int x509_make_ca(const struct x509_key *key, const struct x509_spec *spec,
			    struct buf *out_pem, struct err *err);

/* Issues for a raw public key, signed by the CA; the serial is 16 random bytes. Appends PEM. */
MUST_CHECK int x509_issue(const struct x509_key *ca_key, const char *ca_pem,
			  enum x509_key_type pub_type, const uint8_t *pub, size_t pub_len,
			  const struct x509_spec *spec, struct buf *out_pem, struct err *err);

/* True when the first certificate of leaf_pem is signed by the CA and both are within their
 * validity at now_ms. */
bool x509_signed_by(const char *leaf_pem, const char *ca_pem, int64_t now_ms);
