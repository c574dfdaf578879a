/* The identity of a lighthouse on disk: who it is, its keys and certificates, cluster.key. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"
#include "cluster/pki.h"

/*
 * Files in the state directory (0700), each 0600 and written atomically:
 *   identity.json  format, cluster id, lighthouse id, name, peer address, API URL; written last: without it the
 *                  directory is not initialised
 *   cluster.key    hex of the 32 bytes
 *   cluster.key.next  while it is rotated: keys that may come into force, a line each
 *   cluster.key.old   the one before, until every lighthouse has the present one
 *   node.key       peer key, PKCS#8 PEM       node.crt  its certificate
 *   api.key        API key, PKCS#8 PEM        api.crt   its certificate
 *   ca.crt         the cluster's CA certificate
 *   ca-old.crt     while it is rotated: the one before    ca-cross.crt  the present one certified by that
 *   join.json      only while a join has not been answered: the keys the request was made with
 */
#define KEYFILE_IDENTITY "identity.json"

/*
 * All of it in memory. Strings belong to the struct; secrets are in guarded memory or x509_key.
 * Used by one thread at a time.
 */
struct keyfile {
	uint64_t cluster_id;
	uint64_t lighthouse_id;
	char *name;
	char *peer_address; /* host:port */
	char *api_url;
	uint8_t *cluster_key; /* PKI_KEY bytes (secret_alloc) */
	struct x509_key *node_key;
	char *node_cert_pem;
	struct x509_key *api_key;
	char *api_cert_pem;
	char *ca_cert_pem;
	uint8_t ca_pin[32]; /* of ca_cert_pem */
	/* While the CA is rotated; both or none. */
	char *ca_old_pem, *ca_cross_pem;
	uint8_t ca_old_pin[32];
	/* While cluster.key is rotated: secret_alloc, n_next keys of PKI_KEY bytes; and the one before, or NULL. */
	uint8_t *next_keys;
	size_t n_next;
	uint8_t *old_key;
};

enum { KEYFILE_NEXT_MAX = 4 };

/* Frees and wipes. NULL and zeroed memory are fine. */
void keyfile_done(struct keyfile *k);

/*
 * The identity of the first lighthouse of a new cluster: draws cluster id, lighthouse id, cluster.key, all
 * keys, the CA and the certificates. ret_ca holds the CA with its key: for CaRecord and SealedSecret of the
 * bootstrap command (pki_ca_seal, generation 1); the caller ends it by pki_ca_done. Writes nothing.
 */
MUST_CHECK int keyfile_new(const char *name, const char *peer_address, const char *api_url,
			   int64_t now_ms, struct keyfile *ret, struct pki_ca *ret_ca,
			   struct err *err);

/*
 * The identity of a new lighthouse of a cluster whose CA and cluster.key are at hand: draws its id and keys, issues its
 * certificates. Writes nothing.
 */
MUST_CHECK int keyfile_issue(const struct pki_ca *ca, const uint8_t cluster_key[PKI_KEY],
			     const char *name, const char *peer_address, const char *api_url,
			     int64_t now_ms, struct keyfile *ret, struct err *err);

/* True when the directory holds an identity (whether it can be read or not). */
bool keyfile_exists(const char *dir);

/*
 * Writes all files, identity.json last. The directory must exist and be private. ERR_EXISTS when there is an
 * identity of another lighthouse; one of the same id is replaced.
 */
MUST_CHECK int keyfile_write(const char *dir, const struct keyfile *k, struct err *err);

/* Replaces certificates (each may be NULL: left) after a renewal, in memory and on disk. */
MUST_CHECK int keyfile_renew(const char *dir, struct keyfile *k, const char *node_cert_pem,
			     const char *api_cert_pem, struct err *err);

/*
 * Replaces the CA's certificate, in memory and on disk; old_pem and cross_pem are those of a rotation, or NULL when only
 * one CA counts. ERR_INVALID when they do not belong together.
 */
MUST_CHECK int keyfile_set_ca(const char *dir, struct keyfile *k, const char *ca_pem,
			      const char *old_pem, const char *cross_pem, struct err *err);

/*
 * Rotation of cluster.key. A key that may come into force is kept beside the present one until one of them is promoted;
 * no step loses a key, whenever the process ends. Adding one that is known does nothing; ERR_LIMIT past KEYFILE_NEXT_MAX.
 */
MUST_CHECK int keyfile_add_next(const char *dir, struct keyfile *k, const uint8_t key[PKI_KEY],
				struct err *err);
/* next_keys[i] becomes cluster_key, that becomes old_key, the other candidates go. */
MUST_CHECK int keyfile_promote(const char *dir, struct keyfile *k, size_t i, struct err *err);
/* Forgets old_key. */
MUST_CHECK int keyfile_drop_old(const char *dir, struct keyfile *k, struct err *err);

/* Replaces the addresses in identity.json (the config names them anew at each start). */
MUST_CHECK int keyfile_set_addresses(const char *dir, struct keyfile *k, const char *peer_address,
				     const char *api_url, struct err *err);

/*
 * Reads and checks everything: modes (ERR_PRECONDITION with the chmod that repairs them), that keys and
 * certificates belong together and carry the ids. ERR_PRECONDITION (NOT_INITIALISED) with the next step when there
 * is no identity; ERR_CORRUPT names the file. Blocks.
 */
MUST_CHECK int keyfile_read(const char *dir, struct keyfile *ret, struct err *err);

/*
 * The recovery string of cluster.key: "skr1-" and groups of base32 with a checksum. Returns malloc'd text; the
 * caller wipes it (secret_wipe) and frees it (mem_free).
 */
char *keyfile_recovery(const uint8_t cluster_key[PKI_KEY]) MUST_CHECK;
/* The content of a file cluster.key: hex, blanks at the end do not matter. ERR_INVALID. */
MUST_CHECK int keyfile_cluster_key_parse(const char *text, size_t len, uint8_t ret_key[PKI_KEY],
					 struct err *err);
/* Reads it back; case, spaces and hyphens do not matter. ERR_INVALID when cut or mistyped. */
MUST_CHECK int keyfile_recovery_parse(const char *text, uint8_t ret_key[PKI_KEY], struct err *err);
