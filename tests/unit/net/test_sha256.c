/* SHA-256 by OpenSSL is what libsodium computes, at every length and cut, in every thread.
 * LIBS: net */
#include "tests/lib/test.h"

#include <pthread.h>

#include "base/crypto.h"
#include "net/sha256.h"

enum { LEN = 400 };

static uint8_t data[LEN], want[LEN + 1][CRYPTO_HASH];

static void *all_lengths(void *arg)
{
	uint8_t got[CRYPTO_HASH];
	size_t *wrong = arg;

	for (size_t len = 0; len <= LEN; len++) {
		crypto_sha256(got, data, len);
		*wrong += memcmp(got, want[len], CRYPTO_HASH) != 0;
		/* In three pieces, wherever they meet a block. */
		for (size_t cut = 0; cut <= len; cut += 7) {
			size_t second = (len - cut) / 2;
			struct crypto_iov pieces[] = {{data, cut},
						      {data + cut, second},
						      {data + cut + second, len - cut - second}};

			crypto_sha256v(got, pieces, ARRAY_LEN(pieces));
			*wrong += memcmp(got, want[len], CRYPTO_HASH) != 0;
		}
	}
	return NULL;
}

static void test_equal(void **state UNUSED)
{
	pthread_t thread[4];
	size_t wrong[4] = {0}, own = 0;

	for (size_t i = 0; i < LEN; i++) {
		data[i] = (uint8_t)(i * 37 + 11);
	}
	crypto_sha256_use(NULL);
	for (size_t len = 0; len <= LEN; len++) {
		crypto_sha256(want[len], data, len);
	}
	sha256_by_openssl();
	sha256_by_openssl();
	for (size_t i = 0; i < ARRAY_LEN(thread); i++) {
		assert_int_equal(pthread_create(&thread[i], NULL, all_lengths, &wrong[i]), 0);
	}
	all_lengths(&own);
	assert_int_equal(own, 0);
	for (size_t i = 0; i < ARRAY_LEN(thread); i++) {
		pthread_join(thread[i], NULL);
		assert_int_equal(wrong[i], 0);
	}
	crypto_sha256_use(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_equal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
