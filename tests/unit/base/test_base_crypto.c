/* LIBS: base
 * base/crypto.h, with published vectors where there are. */
#include "tests/lib/test.h"

#include "base/buf.h"
#include "base/crypto.h"
#include "base/enc.h"

#include <sodium.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *hex(const void *data, size_t len)
{
	static char out[257];

	return hex_encode(out, data, len);
}

static void unhex(const char *text, uint8_t *out, size_t len)
{
	assert_int_equal(hex_decode(text, strlen(text), out, len), len);
}

static void test_hashes(void **state)
{
	static const struct crypto_iov pieces[] = {{"a", 1}, {NULL, 0}, {"bc", 2}};
	uint8_t out[CRYPTO_HASH];

	(void)state;
	/* FIPS 180-2 */
	crypto_sha256(out, "abc", 3);
	assert_string_equal(hex(out, 32),
			    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	crypto_sha256(out, NULL, 0);
	assert_string_equal(hex(out, 32),
			    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	crypto_sha256v(out, pieces, ARRAY_LEN(pieces));
	assert_string_equal(hex(out, 32),
			    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	/* BLAKE2b with a digest of 32 bytes */
	crypto_blake2b(out, "abc", 3);
	assert_string_equal(hex(out, 32),
			    "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
	crypto_blake2bv(out, pieces, ARRAY_LEN(pieces));
	assert_string_equal(hex(out, 32),
			    "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
	/* RFC 4231, case 2: a key that is not 32 bytes long */
	crypto_hmac_sha256(out, "Jefe", 4, "what do ya want for nothing?", 28);
	assert_string_equal(hex(out, 32),
			    "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
	assert_true(crypto_equal("abc", "abc", 3));
	assert_false(crypto_equal("abc", "abd", 3));
	assert_true(crypto_equal(NULL, NULL, 0));
}

static void test_seal(void **state)
{
	uint8_t key[CRYPTO_KEY] = {1};
	struct buf box = BUF_INIT;
	struct buf again = BUF_INIT;
	struct buf out = BUF_INIT;

	(void)state;
	crypto_seal(key, "ca", 2, "private", 7, &box);
	assert_int_equal(box.len, 7 + CRYPTO_SEAL);
	crypto_seal(key, "ca", 2, "private", 7, &again);
	assert_memory_not_equal(box.data, again.data, box.len);
	assert_ok(crypto_open(key, "ca", 2, box.data, box.len, &out));
	assert_string_equal(buf_str(&out), "private");
	/* Appended, and nothing appended on failure. */
	assert_ok(crypto_open(key, "ca", 2, again.data, again.len, &out));
	assert_string_equal(buf_str(&out), "privateprivate");
	assert_err(crypto_open(key, "cb", 2, box.data, box.len, &out), ERR_CORRUPT);
	for (size_t len = 0; len < box.len; len++) {
		assert_err(crypto_open(key, "ca", 2, box.data, len, &out), ERR_CORRUPT);
	}
	for (size_t i = 0; i < box.len; i++) {
		box.data[i] ^= 1;
		assert_err(crypto_open(key, "ca", 2, box.data, box.len, &out), ERR_CORRUPT);
		box.data[i] ^= 1;
	}
	key[0] = 2;
	assert_err(crypto_open(key, "ca", 2, box.data, box.len, &out), ERR_CORRUPT);
	assert_int_equal(out.len, 14);
	buf_reset(&box);
	crypto_seal(key, NULL, 0, NULL, 0, &box);
	assert_ok(crypto_open(key, NULL, 0, box.data, box.len, &out));
	assert_int_equal(out.len, 14);
	buf_done(&box);
	buf_done(&again);
	buf_done(&out);
}

static void test_ed25519(void **state)
{
	uint8_t seed[32], pub[32], want[32], sig[64], want_sig[64];

	(void)state;
	/* RFC 8032, section 7.1, test 2 */
	unhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb", seed, 32);
	unhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", want, 32);
	unhex("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
	      "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
	      want_sig, 64);
	crypto_ed25519_public(pub, seed);
	assert_memory_equal(pub, want, 32);
	crypto_ed25519_sign(sig, seed, "\x72", 1);
	assert_memory_equal(sig, want_sig, 64);
	assert_true(crypto_ed25519_verify(sig, pub, "\x72", 1));
	assert_false(crypto_ed25519_verify(sig, pub, "\x73", 1));
	assert_false(crypto_ed25519_verify(sig, pub, "\x72", 0));
	sig[3] ^= 1;
	assert_false(crypto_ed25519_verify(sig, pub, "\x72", 1));
	crypto_ed25519_keypair(pub, seed);
	crypto_ed25519_public(want, seed);
	assert_memory_equal(pub, want, 32);
}

static void test_x25519(void **state)
{
	static const uint8_t low_order[32] = {0};
	uint8_t a_pub[32], a_sec[32], b_pub[32], b_sec[32], ab[32], ba[32];

	(void)state;
	crypto_x25519_keypair(a_pub, a_sec);
	assert_int_equal(a_sec[0] & 7, 0);
	assert_int_equal(a_sec[31] & 0xc0, 0x40);
	crypto_x25519_keypair(b_pub, b_sec);
	assert_true(crypto_x25519_shared(ab, a_sec, b_pub));
	assert_true(crypto_x25519_shared(ba, b_sec, a_pub));
	assert_memory_equal(ab, ba, 32);
	assert_false(crypto_x25519_shared(ab, a_sec, low_order));
}

static void test_x25519_vector(void **state)
{
	static const uint8_t nine[32] = {9};
	uint8_t sec[32], pub[32], out[32];

	(void)state;
	/* RFC 7748, section 5.2, the first iteration */
	assert_true(crypto_x25519_shared(out, nine, nine));
	assert_string_equal(hex(out, 32),
			    "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079");
	/* The bytes 0 to 31 and 1 to 32 as secrets, computed by another implementation */
	for (uint8_t i = 0; i < 32; i++) {
		sec[i] = i;
	}
	crypto_x25519_public(pub, sec);
	assert_string_equal(hex(pub, 32),
			    "8f40c5adb68f25624ae5b214ea767a6ec94d829d3d7b5e1ad1ba6f3e2138285f");
	unhex("07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c", pub, 32);
	assert_true(crypto_x25519_shared(out, sec, pub));
	assert_string_equal(hex(out, 32),
			    "4274a32e953acb8314d0f09bcbcb5193c5ef799ddcd0036f8c4682e5801dac73");
}

static void test_boxes(void **state)
{
	static const uint8_t low_order[32] = {0};
	uint8_t a_pub[32], a_sec[32], b_pub[32], b_sec[32];
	struct buf box = BUF_INIT;
	struct buf out = BUF_INIT;

	(void)state;
	crypto_x25519_keypair(a_pub, a_sec);
	crypto_x25519_keypair(b_pub, b_sec);
	assert_ok(crypto_x25519_box(a_sec, b_pub, "ping", 4, &box));
	assert_int_equal(box.len, 4 + CRYPTO_BOX);
	assert_ok(crypto_x25519_box_open(b_sec, a_pub, box.data, box.len, &out));
	assert_string_equal(buf_str(&out), "ping");
	assert_err(crypto_x25519_box_open(b_sec, b_pub, box.data, box.len, &out), ERR_CORRUPT);
	assert_err(crypto_x25519_box_open(b_sec, a_pub, box.data, CRYPTO_BOX - 1, &out),
		   ERR_CORRUPT);
	box.data[box.len - 1] ^= 1;
	assert_err(crypto_x25519_box_open(b_sec, a_pub, box.data, box.len, &out), ERR_CORRUPT);
	assert_int_equal(out.len, 4);
	assert_err(crypto_x25519_box(a_sec, low_order, "x", 1, &box), ERR_INVALID);

	buf_reset(&box);
	buf_reset(&out);
	assert_ok(crypto_x25519_seal(b_pub, "key", 3, &box));
	assert_int_equal(box.len, 3 + CRYPTO_SEAL_TO);
	assert_ok(crypto_x25519_seal_open(b_pub, b_sec, box.data, box.len, &out));
	assert_string_equal(buf_str(&out), "key");
	assert_err(crypto_x25519_seal_open(a_pub, a_sec, box.data, box.len, &out), ERR_CORRUPT);
	assert_err(crypto_x25519_seal_open(b_pub, b_sec, box.data, CRYPTO_SEAL_TO - 1, &out),
		   ERR_CORRUPT);
	assert_err(crypto_x25519_seal(low_order, "x", 1, &box), ERR_INVALID);
	buf_done(&box);
	buf_done(&out);
}

static void test_secret_memory(void **state)
{
	static const uint8_t zero[64];
	uint8_t *p = secret_alloc(64);
	uint8_t stack[8] = {1, 2, 3};

	(void)state;
	assert_memory_equal(p, zero, 64);
	memset(p, 7, 64);
	secret_free(p);
	secret_free(NULL);
	secret_wipe(stack, sizeof(stack));
	assert_memory_equal(stack, zero, sizeof(stack));
}

static void test_harden(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		struct rlimit lim = {1, 1};

		crypto_harden_process();
		_exit(getrlimit(RLIMIT_CORE, &lim) == 0 && lim.rlim_cur == 0 ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static int setup(void **state)
{
	(void)state;
	crypto_init();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hashes),        cmocka_unit_test(test_seal),
		cmocka_unit_test(test_ed25519),       cmocka_unit_test(test_x25519),
		cmocka_unit_test(test_x25519_vector), cmocka_unit_test(test_boxes),
		cmocka_unit_test(test_secret_memory), cmocka_unit_test(test_harden),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
