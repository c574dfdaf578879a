/* Hashes, signatures, boxes and guarded memory, over libsodium. */
#pragma once

#include "base/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct err;

#define CRYPTO_HASH    32 /* SHA-256, BLAKE2b-256, HMAC-SHA-256 */
#define CRYPTO_KEY     32 /* every key here, Ed25519 seeds included */
#define CRYPTO_SIG     64 /* Ed25519 signature */
#define CRYPTO_SEAL    40 /* bytes crypto_seal adds: nonce 24, tag 16 */
#define CRYPTO_BOX     40 /* bytes crypto_x25519_box adds */
#define CRYPTO_SEAL_TO 48 /* bytes crypto_x25519_seal adds: ephemeral key 32, tag 16 */

/* Once, before threads start; may be repeated. Ends the process if the kernel has no randomness. */
void crypto_init(void);
/* No core dumps, not traceable by others of the same user. For daemons, at start. */
void crypto_harden_process(void);

/* Hashes. Any thread. */
void crypto_sha256(uint8_t out[CRYPTO_HASH], const void *data, size_t len);
/* Over several pieces without copying them together. */
struct crypto_iov {
	const void *data;
	size_t len;
};
void crypto_sha256v(uint8_t out[CRYPTO_HASH], const struct crypto_iov *iov, size_t n);
/* Who computes both: libsodium's portable C, until net/sha256.h names another one. NULL: libsodium again. */
typedef void (*crypto_sha256_fn)(uint8_t out[CRYPTO_HASH], const struct crypto_iov *iov, size_t n);
void crypto_sha256_use(crypto_sha256_fn fn);
void crypto_blake2b(uint8_t out[CRYPTO_HASH], const void *data, size_t len);
void crypto_blake2bv(uint8_t out[CRYPTO_HASH], const struct crypto_iov *iov, size_t n);
/* The same in steps: begin, add as often as wanted, end. */
struct crypto_blake2b {
	_Alignas(64) uint8_t state[384];
};
void crypto_blake2b_begin(struct crypto_blake2b *h);
void crypto_blake2b_add(struct crypto_blake2b *h, const void *data, size_t len);
void crypto_blake2b_end(struct crypto_blake2b *h, uint8_t out[CRYPTO_HASH]);
void crypto_hmac_sha256(uint8_t out[CRYPTO_HASH], const void *key, size_t key_len, const void *data,
			size_t len);
/* Constant time. */
bool crypto_equal(const void *a, const void *b, size_t len);

/* XChaCha20-Poly1305 with a random nonce: appends nonce, ciphertext and tag to out. ad is
 * authenticated, not stored; it says what the box is for. */
void crypto_seal(const uint8_t key[CRYPTO_KEY], const void *ad, size_t ad_len, const void *msg,
		 size_t msg_len, struct buf *out);
/* Appends the message to out, or ERR_CORRUPT: wrong key, wrong ad or changed. Wipe out after. */
int crypto_open(const uint8_t key[CRYPTO_KEY], const void *ad, size_t ad_len, const void *sealed,
		size_t sealed_len, struct buf *out) MUST_CHECK;

/* Ed25519 (machine keys). The secret is the 32-byte seed. */
void crypto_ed25519_keypair(uint8_t pub[CRYPTO_KEY], uint8_t seed[CRYPTO_KEY]);
void crypto_ed25519_public(uint8_t pub[CRYPTO_KEY], const uint8_t seed[CRYPTO_KEY]);
void crypto_ed25519_sign(uint8_t sig[CRYPTO_SIG], const uint8_t seed[CRYPTO_KEY], const void *msg,
			 size_t len);
bool crypto_ed25519_verify(const uint8_t sig[CRYPTO_SIG], const uint8_t pub[CRYPTO_KEY],
			   const void *msg, size_t len);

/* X25519 (node keys = WireGuard keys, disco keys, join keys). Secrets are clamped when made. */
void crypto_x25519_keypair(uint8_t pub[CRYPTO_KEY], uint8_t sec[CRYPTO_KEY]);
void crypto_x25519_public(uint8_t pub[CRYPTO_KEY], const uint8_t sec[CRYPTO_KEY]);
/* Raw shared secret; false for a point of low order. */
bool crypto_x25519_shared(uint8_t out[CRYPTO_KEY], const uint8_t sec[CRYPTO_KEY],
			  const uint8_t peer_pub[CRYPTO_KEY]);
/* crypto_box (XSalsa20-Poly1305, NaCl): appends nonce 24, tag 16, ciphertext. This is the form
 * disco and DERP use. ERR_INVALID for a key of low order. */
int crypto_x25519_box(const uint8_t sec[CRYPTO_KEY], const uint8_t peer_pub[CRYPTO_KEY],
		      const void *msg, size_t len, struct buf *out) MUST_CHECK;
/* Appends the message, or ERR_CORRUPT. */
int crypto_x25519_box_open(const uint8_t sec[CRYPTO_KEY], const uint8_t peer_pub[CRYPTO_KEY],
			   const void *boxed, size_t len, struct buf *out) MUST_CHECK;
/* Anonymous box to a public key (crypto_box_seal): only the owner of the secret can open it. */
int crypto_x25519_seal(const uint8_t peer_pub[CRYPTO_KEY], const void *msg, size_t len,
		       struct buf *out) MUST_CHECK;
int crypto_x25519_seal_open(const uint8_t pub[CRYPTO_KEY], const uint8_t sec[CRYPTO_KEY],
			    const void *sealed, size_t len, struct buf *out) MUST_CHECK;

/* Guarded memory for long-lived keys: locked if the limit allows, fenced by guard pages, wiped at
 * release. Zeroed. Aligned as far as size is a multiple of the alignment, as every struct's is. Ends
 * the process without memory. */
void *secret_alloc(size_t size) MUST_CHECK;
/* NULL is fine. */
void secret_free(void *ptr);
/* Overwrites in a way the compiler keeps. */
void secret_wipe(void *ptr, size_t len);
