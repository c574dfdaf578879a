#include "base/crypto.h"

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/rand.h"

#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

_Static_assert(crypto_hash_sha256_BYTES == CRYPTO_HASH, "SHA-256");
_Static_assert(crypto_aead_xchacha20poly1305_ietf_KEYBYTES == CRYPTO_KEY, "seal key");
_Static_assert(crypto_aead_xchacha20poly1305_ietf_NPUBBYTES +
			       crypto_aead_xchacha20poly1305_ietf_ABYTES ==
		       CRYPTO_SEAL,
	       "seal overhead");
_Static_assert(crypto_box_NONCEBYTES + crypto_box_MACBYTES == CRYPTO_BOX, "box overhead");
_Static_assert(crypto_box_SEALBYTES == CRYPTO_SEAL_TO, "anonymous box overhead");
_Static_assert(crypto_sign_SEEDBYTES == CRYPTO_KEY, "Ed25519 seed");
_Static_assert(crypto_sign_BYTES == CRYPTO_SIG, "Ed25519 signature");

void crypto_init(void)
{
	if (sodium_init() < 0) {
		fprintf(stderr, "the kernel gives no random numbers; the process ends\n");
		_exit(MEM_EXIT_CODE);
	}
}

void crypto_harden_process(void)
{
	struct rlimit none = {0, 0};

	/* Both may only fail in sandboxes that forbid the call; the process is usable then. */
	IGNORE(setrlimit(RLIMIT_CORE, &none) != 0);
	IGNORE(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0);
}

static _Atomic(crypto_sha256_fn) sha256_by; /* NULL: libsodium */

void crypto_sha256_use(crypto_sha256_fn fn)
{
	atomic_store(&sha256_by, fn);
}

void crypto_sha256v(uint8_t out[CRYPTO_HASH], const struct crypto_iov *iov, size_t n)
{
	crypto_sha256_fn by = atomic_load_explicit(&sha256_by, memory_order_acquire);
	crypto_hash_sha256_state st;

	if (by != NULL) {
		by(out, iov, n);
		return;
	}
	crypto_hash_sha256_init(&st);
	for (size_t i = 0; i < n; i++) {
		if (iov[i].len > 0) {
			crypto_hash_sha256_update(&st, iov[i].data, iov[i].len);
		}
	}
	crypto_hash_sha256_final(&st, out);
}

void crypto_sha256(uint8_t out[CRYPTO_HASH], const void *data, size_t len)
{
	crypto_sha256v(out, &(struct crypto_iov){data, len}, 1);
}

void crypto_blake2bv(uint8_t out[CRYPTO_HASH], const struct crypto_iov *iov, size_t n)
{
	crypto_generichash_state st;

	crypto_generichash_init(&st, NULL, 0, CRYPTO_HASH);
	for (size_t i = 0; i < n; i++) {
		if (iov[i].len > 0) {
			crypto_generichash_update(&st, iov[i].data, iov[i].len);
		}
	}
	crypto_generichash_final(&st, out, CRYPTO_HASH);
}

_Static_assert(sizeof(struct crypto_blake2b) >= sizeof(crypto_generichash_state) &&
		       _Alignof(struct crypto_blake2b) >= _Alignof(crypto_generichash_state),
	       "state of the hash");

static crypto_generichash_state *blake2b_state(struct crypto_blake2b *h)
{
	return (crypto_generichash_state *)(void *)h->state;
}

void crypto_blake2b_begin(struct crypto_blake2b *h)
{
	crypto_generichash_init(blake2b_state(h), NULL, 0, CRYPTO_HASH);
}

void crypto_blake2b_add(struct crypto_blake2b *h, const void *data, size_t len)
{
	if (len > 0) {
		crypto_generichash_update(blake2b_state(h), data, len);
	}
}

void crypto_blake2b_end(struct crypto_blake2b *h, uint8_t out[CRYPTO_HASH])
{
	crypto_generichash_final(blake2b_state(h), out, CRYPTO_HASH);
}

void crypto_blake2b(uint8_t out[CRYPTO_HASH], const void *data, size_t len)
{
	crypto_blake2bv(out, &(struct crypto_iov){data, len}, 1);
}

void crypto_hmac_sha256(uint8_t out[CRYPTO_HASH], const void *key, size_t key_len, const void *data,
			size_t len)
{
	crypto_auth_hmacsha256_state st;

	crypto_auth_hmacsha256_init(&st, key, key_len);
	if (len > 0) {
		crypto_auth_hmacsha256_update(&st, data, len);
	}
	crypto_auth_hmacsha256_final(&st, out);
}

bool crypto_equal(const void *a, const void *b, size_t len)
{
	return len == 0 || sodium_memcmp(a, b, len) == 0;
}

void crypto_seal(const uint8_t key[CRYPTO_KEY], const void *ad, size_t ad_len, const void *msg,
		 size_t msg_len, struct buf *out)
{
	uint8_t *nonce = buf_reserve(out, msg_len + CRYPTO_SEAL);
	unsigned long long n;

	rand_bytes(nonce, crypto_aead_xchacha20poly1305_ietf_NPUBBYTES);
	crypto_aead_xchacha20poly1305_ietf_encrypt(
		nonce + crypto_aead_xchacha20poly1305_ietf_NPUBBYTES, &n, msg, msg_len, ad, ad_len,
		NULL, nonce, key);
	out->len += msg_len + CRYPTO_SEAL;
}

int crypto_open(const uint8_t key[CRYPTO_KEY], const void *ad, size_t ad_len, const void *sealed,
		size_t sealed_len, struct buf *out)
{
	const uint8_t *nonce = sealed;
	unsigned long long n;

	if (sealed_len < CRYPTO_SEAL) {
		return ERR_CORRUPT;
	}
	if (crypto_aead_xchacha20poly1305_ietf_decrypt(
		    buf_reserve(out, sealed_len - CRYPTO_SEAL), &n, NULL,
		    nonce + crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
		    sealed_len - crypto_aead_xchacha20poly1305_ietf_NPUBBYTES, ad, ad_len, nonce,
		    key) != 0) {
		return ERR_CORRUPT;
	}
	out->len += (size_t)n;
	return 0;
}

void crypto_ed25519_public(uint8_t pub[CRYPTO_KEY], const uint8_t seed[CRYPTO_KEY])
{
	uint8_t sk[crypto_sign_SECRETKEYBYTES];

	crypto_sign_seed_keypair(pub, sk, seed);
	sodium_memzero(sk, sizeof(sk));
}

void crypto_ed25519_keypair(uint8_t pub[CRYPTO_KEY], uint8_t seed[CRYPTO_KEY])
{
	rand_bytes(seed, CRYPTO_KEY);
	crypto_ed25519_public(pub, seed);
}

void crypto_ed25519_sign(uint8_t sig[CRYPTO_SIG], const uint8_t seed[CRYPTO_KEY], const void *msg,
			 size_t len)
{
	uint8_t pub[CRYPTO_KEY];
	uint8_t sk[crypto_sign_SECRETKEYBYTES];

	crypto_sign_seed_keypair(pub, sk, seed);
	crypto_sign_detached(sig, NULL, msg, len, sk);
	sodium_memzero(sk, sizeof(sk));
}

bool crypto_ed25519_verify(const uint8_t sig[CRYPTO_SIG], const uint8_t pub[CRYPTO_KEY],
			   const void *msg, size_t len)
{
	return crypto_sign_verify_detached(sig, msg, len, pub) == 0;
}

void crypto_x25519_public(uint8_t pub[CRYPTO_KEY], const uint8_t sec[CRYPTO_KEY])
{
	IGNORE(crypto_scalarmult_base(pub, sec));
}

void crypto_x25519_keypair(uint8_t pub[CRYPTO_KEY], uint8_t sec[CRYPTO_KEY])
{
	rand_bytes(sec, CRYPTO_KEY);
	/* Clamped as WireGuard stores it; the scalar multiplication would do so anyway. */
	sec[0] &= 248;
	sec[31] = (uint8_t)((sec[31] & 127) | 64);
	crypto_x25519_public(pub, sec);
}

bool crypto_x25519_shared(uint8_t out[CRYPTO_KEY], const uint8_t sec[CRYPTO_KEY],
			  const uint8_t peer_pub[CRYPTO_KEY])
{
	return crypto_scalarmult(out, sec, peer_pub) == 0;
}

int crypto_x25519_box(const uint8_t sec[CRYPTO_KEY], const uint8_t peer_pub[CRYPTO_KEY],
		      const void *msg, size_t len, struct buf *out)
{
	uint8_t *nonce = buf_reserve(out, len + CRYPTO_BOX);

	rand_bytes(nonce, crypto_box_NONCEBYTES);
	if (crypto_box_easy(nonce + crypto_box_NONCEBYTES, msg, len, nonce, peer_pub, sec) != 0) {
		return ERR_INVALID;
	}
	out->len += len + CRYPTO_BOX;
	return 0;
}

int crypto_x25519_box_open(const uint8_t sec[CRYPTO_KEY], const uint8_t peer_pub[CRYPTO_KEY],
			   const void *boxed, size_t len, struct buf *out)
{
	const uint8_t *nonce = boxed;

	if (len < CRYPTO_BOX) {
		return ERR_CORRUPT;
	}
	if (crypto_box_open_easy(buf_reserve(out, len - CRYPTO_BOX), nonce + crypto_box_NONCEBYTES,
				 len - crypto_box_NONCEBYTES, nonce, peer_pub, sec) != 0) {
		return ERR_CORRUPT;
	}
	out->len += len - CRYPTO_BOX;
	return 0;
}

int crypto_x25519_seal(const uint8_t peer_pub[CRYPTO_KEY], const void *msg, size_t len,
		       struct buf *out)
{
	if (crypto_box_seal(buf_reserve(out, len + CRYPTO_SEAL_TO), msg, len, peer_pub) != 0) {
		return ERR_INVALID;
	}
	out->len += len + CRYPTO_SEAL_TO;
	return 0;
}

int crypto_x25519_seal_open(const uint8_t pub[CRYPTO_KEY], const uint8_t sec[CRYPTO_KEY],
			    const void *sealed, size_t len, struct buf *out)
{
	if (len < CRYPTO_SEAL_TO) {
		return ERR_CORRUPT;
	}
	if (crypto_box_seal_open(buf_reserve(out, len - CRYPTO_SEAL_TO), sealed, len, pub, sec) !=
	    0) {
		return ERR_CORRUPT;
	}
	out->len += len - CRYPTO_SEAL_TO;
	return 0;
}

void *secret_alloc(size_t size)
{
	void *p = sodium_malloc(size);

	if (p == NULL) {
		fprintf(stderr,
			"no guarded memory for %zu bytes (raise LimitMEMLOCK or vm.max_map_count);"
			" the process ends\n",
			size);
		_exit(MEM_EXIT_CODE);
	}
	sodium_memzero(p, size);
	return p;
}

void secret_free(void *ptr)
{
	sodium_free(ptr);
}

void secret_wipe(void *ptr, size_t len)
{
	sodium_memzero(ptr, len);
}
