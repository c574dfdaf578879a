#include "net/sha256.h"

#include <openssl/evp.h>
#include <pthread.h>

#include "base/crypto.h"
#include "base/macros.h"

/*
 * A call of a client costs a dozen blocks: its credential, and the hash of its request. Looking the algorithm up and making a
 * context would cost as much again, so each thread keeps one.
 */
static EVP_MD *md;
static pthread_key_t key; /* the context of a thread, to be freed with it */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Thread_local EVP_MD_CTX *kept;

static void context_free(void *ctx)
{
	EVP_MD_CTX_free(ctx);
}

static void prepare(void)
{
	md = EVP_MD_fetch(NULL, "SHA256", NULL);
	if (md == NULL || pthread_key_create(&key, context_free) != 0) {
		IMPOSSIBLE("OpenSSL without SHA-256");
	}
}

static void compute(uint8_t out[CRYPTO_HASH], const struct crypto_iov *iov, size_t n)
{
	bool ok;

	if (kept == NULL) {
		kept = EVP_MD_CTX_new();
		pthread_setspecific(key, kept);
	}
	ok = kept != NULL && EVP_DigestInit_ex2(kept, md, NULL) == 1;
	for (size_t i = 0; ok && i < n; i++) {
		ok = iov[i].len == 0 || EVP_DigestUpdate(kept, iov[i].data, iov[i].len) == 1;
	}
	if (!ok || EVP_DigestFinal_ex(kept, out, NULL) != 1) {
		IMPOSSIBLE("a hash that fails");
	}
}

void sha256_by_openssl(void)
{
	pthread_once(&once, prepare);
	crypto_sha256_use(compute);
}
