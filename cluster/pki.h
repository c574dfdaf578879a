/* The cluster's own certificate authority: names, certificates of lighthouses, and who is a peer. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/macros.h"
#include "net/x509.h"

/*
 * Names in certificates (ids in decimal):
 *   peer certificate  URI skerry://<cluster>/lighthouse/<id>, DNS <cluster>.skerry.invalid (for joiners)
 *   API certificate   URI skerry://<cluster>/api/<id>, DNS <cluster>.skerry.invalid and the host of the API URL
 *                     (an IP name when that is an address)
 * Keys are P-256: stock clients of the API listener verify nothing newer for certain.
 *
 * What makes a peer is the public key that the replicated member table holds for its id; the certificate carries
 * the name. The dates of a peer certificate are therefore not judged: a clock that is wrong, or an
 * interruption that outlasts a certificate, keeps no member out, and an expiry cuts no live link. Removal from
 * the table ends the right at once. API certificates are judged by their dates, by the clients.
 */
enum {
	PKI_SPKI_MAX = 128, /* DER SubjectPublicKeyInfo of the keys that are made here */
	PKI_URI_MAX = 128,
	PKI_KEY = 32, /* cluster.key */
};

#define PKI_PEER_LIFETIME_MS (365ll * 86400 * 1000)
#define PKI_API_LIFETIME_MS  (90ll * 86400 * 1000)
#define PKI_CA_LIFETIME_MS   (30ll * 365 * 86400 * 1000)
/* Certificates are dated back by so much, for clocks that are behind. */
#define PKI_BACKDATE_MS (24ll * 3600 * 1000)
/* Name of the sealed CA key in the state (SealedSecret.name). */
#define PKI_CA_KEY_NAME "ca-key"

/* Write the name, return out. `out` holds PKI_URI_MAX bytes. */
const char *pki_uri_peer(uint64_t cluster, uint64_t id, char out[PKI_URI_MAX]);
const char *pki_uri_api(uint64_t cluster, uint64_t id, char out[PKI_URI_MAX]);
/* "<cluster>.skerry.invalid": the server name for callers that verify by pin. */
const char *pki_server_name(uint64_t cluster, char out[PKI_URI_MAX]);

/*
 * The id in a peer name of this cluster; ERR_DENIED for every other name, such as an API name or another
 * cluster's, with the name in the message.
 */
MUST_CHECK int pki_peer_id(const struct x509_facts *facts, uint64_t cluster, uint64_t *ret_id,
			   struct err *err);

/* DER SubjectPublicKeyInfo of a key, at most PKI_SPKI_MAX bytes. Returns its length. */
size_t pki_spki(const struct x509_key *key, uint8_t out[PKI_SPKI_MAX]);
/* Reads one: exactly the forms that pki_spki writes (P-256 uncompressed, Ed25519). ERR_INVALID else. */
MUST_CHECK int pki_spki_parse(const void *der, size_t len, enum x509_key_type *ret_type,
			      uint8_t ret_pub[X509_PUB_MAX], size_t *ret_pub_len, struct err *err);

/* PEM <-> DER of certificates; both append. ERR_INVALID when it is no single certificate. */
void pki_cert_pem(const void *der, size_t len, struct buf *out);
MUST_CHECK int pki_cert_der(const char *pem, struct buf *out, struct err *err);

/* The CA as the one who may sign holds it. Embedded; zeroed memory is empty. */
struct pki_ca {
	uint64_t cluster;
	char *cert_pem;
	struct x509_key *key;
};
/* Frees and wipes. NULL is fine. */
void pki_ca_done(struct pki_ca *ca);

/* A new CA for the cluster: key and self-signed certificate dated from now_ms (unix ms). */
MUST_CHECK int pki_ca_new(uint64_t cluster, int64_t now_ms, struct pki_ca *ret, struct err *err);

/*
 * The CA that follows `old`: a new key, its own certificate, and in *out_cross_pem the same name and key certified by
 * `old` (RFC 5280 calls it self-issued, "new with old"), by which whoever knows only the old one finds a way to the new.
 * Both carry one subject: so the cross certificate does not count in the length of a path.
 */
MUST_CHECK int pki_ca_next(const struct pki_ca *old, int64_t now_ms, struct pki_ca *ret,
			   struct buf *out_cross_pem, struct err *err);
/* Does `cross_pem` certify the key of `ca_pem` by `old_pem`? Dates apart. */
bool pki_crosses(const char *cross_pem, const char *ca_pem, const char *old_pem);
/* Was the certificate signed by this CA? Dates apart. */
bool pki_signed_by(const char *cert_pem, const char *ca_pem);

/* Seals the CA's key under cluster.key, for SealedSecret.box of `generation`; appends. */
MUST_CHECK int pki_ca_seal(const struct pki_ca *ca, const uint8_t cluster_key[PKI_KEY],
			   uint32_t generation, struct buf *out, struct err *err);

/*
 * Opens what the state holds: CaRecord.certificate_der and SealedSecret.box. ERR_CORRUPT when the box does not
 * open (another cluster.key) or key and certificate do not belong together.
 */
MUST_CHECK int pki_ca_open(uint64_t cluster, const void *cert_der, size_t cert_len, const void *box,
			   size_t box_len, uint32_t generation, const uint8_t cluster_key[PKI_KEY],
			   struct pki_ca *ret, struct err *err);

/* SHA-256 of the SubjectPublicKeyInfo of a certificate (PEM): what pins name. */
MUST_CHECK int pki_pin(const char *cert_pem, uint8_t ret_pin[32], struct err *err);

/* A peer certificate for lighthouse `id` with public key `spki`, valid from now_ms; appends PEM. */
MUST_CHECK int pki_issue_peer(const struct pki_ca *ca, uint64_t id, const void *spki,
			      size_t spki_len, int64_t now_ms, struct buf *out_pem,
			      struct err *err);

/* Does the certificate hold the host of the URL? */
bool pki_api_names(const char *cert_pem, const char *api_url);
/* An API certificate; api_url is https://host[:port], ERR_INVALID (field api_url) else. Appends PEM. */
MUST_CHECK int pki_issue_api(const struct pki_ca *ca, uint64_t id, const void *spki,
			     size_t spki_len, const char *api_url, int64_t now_ms,
			     struct buf *out_pem, struct err *err);

/* True when half of the validity of the certificate (PEM) is over at now_ms, or it cannot be read. */
bool pki_needs_renewal(const char *cert_pem, int64_t now_ms);

/* ---- who is a peer ---- */

/* What the member table says of an id. */
struct pki_member {
	bool known;
	bool removed;
	uint8_t spki_sha256[32]; /* of MemberRecord.public_key */
};
/* Looks an id up; called in TLS handshakes, on the peer thread. */
typedef void (*pki_lookup_fn)(void *arg, uint64_t id, struct pki_member *ret);

/*
 * The verdict on a certificate: signed by the CA (dates apart: `ca_pem`), a peer name of this cluster, the id not
 * our own, in the table, not removed, and its public key the one in the table. `expect` is the id that was
 * dialled, 0 for a caller. ERR_DENIED with the reason MEMBER_REMOVED, MEMBER_UNKNOWN, WRONG_KEY, WRONG_NAME or
 * FOREIGN_CA.
 */
MUST_CHECK int pki_verify_peer(const void *cert_der, size_t cert_len, const char *ca_pem,
			       uint64_t cluster, uint64_t self, uint64_t expect,
			       pki_lookup_fn lookup, void *arg, uint64_t *ret_id, struct err *err);

/*
 * The part of it that can change while a connection lives, for a certificate whose signature was verified in the
 * handshake: name, table and key. Cheap: it is asked for each call.
 */
MUST_CHECK int pki_verify_member(const struct x509_facts *facts, uint64_t cluster, uint64_t self,
				 uint64_t expect, pki_lookup_fn lookup, void *arg, uint64_t *ret_id,
				 struct err *err);
