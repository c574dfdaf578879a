/* The device proof: what it binds, and every way in which it is refused. LIBS: api */
#include "tests/lib/test.h"

#include "api/device_proof.h"
#include "base/crypto.h"

struct proof {
	uint8_t key[32], sig[64], exporter[32];
	uint64_t cluster, lighthouse;
};

static void make(struct proof *p)
{
	uint8_t seed[32], text[DEVICE_PROOF_TEXT];

	crypto_ed25519_keypair(p->key, seed);
	memset(p->exporter, 0x5a, sizeof(p->exporter));
	p->cluster = 0x1122334455667788;
	p->lighthouse = 42;
	device_proof_text(p->cluster, p->lighthouse, p->exporter, text);
	crypto_ed25519_sign(p->sig, seed, text, sizeof(text));
}

static int verify(const struct proof *p, struct err *err)
{
	return device_proof_verify(p->key, 32, p->sig, 64, p->cluster, p->lighthouse, p->exporter,
				   err);
}

static void text_is_as_written_down(void **state)
{
	uint8_t exporter[32], text[DEVICE_PROOF_TEXT];

	(void)state;
	memset(exporter, 7, sizeof(exporter));
	device_proof_text(1, 258, exporter, text);
	assert_memory_equal(text, "skerry device proof v1\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\1\2", 39);
	assert_memory_equal(text + 39, exporter, 32);
	assert_int_equal(sizeof(text), 71);
}

static void good(void **state)
{
	struct proof p;
	struct err err = {0};

	(void)state;
	make(&p);
	assert_ok(verify(&p, &err));
}

static void each_part_is_bound(void **state)
{
	struct proof good_one, p;
	struct err err = {0};

	(void)state;
	make(&good_one);
	p = good_one;
	p.cluster++;
	assert_err(verify(&p, &err), ERR_UNAUTHENTICATED);
	assert_string_equal(err.reason, "DEVICE_PROOF_INVALID");
	p = good_one;
	p.lighthouse++;
	assert_err(verify(&p, &err), ERR_UNAUTHENTICATED);
	for (size_t i = 0; i < 32; i++) {
		p = good_one;
		p.exporter[i] ^= 1;
		assert_err(verify(&p, &err), ERR_UNAUTHENTICATED);
		p = good_one;
		p.key[i] ^= 1;
		assert_err(verify(&p, &err), ERR_UNAUTHENTICATED);
	}
	for (size_t i = 0; i < 64; i++) {
		p = good_one;
		p.sig[i] ^= 0x80;
		assert_err(verify(&p, &err), ERR_UNAUTHENTICATED);
	}
}

static void lengths(void **state)
{
	static const uint8_t zero[32];
	struct proof p;
	struct err err = {0};

	(void)state;
	make(&p);
	for (size_t n = 0; n < 32; n++) {
		assert_err(device_proof_verify(p.key, n, p.sig, 64, p.cluster, p.lighthouse,
					       p.exporter, &err),
			   ERR_UNAUTHENTICATED);
		assert_string_equal(err.reason, "DEVICE_PROOF_MALFORMED");
	}
	for (size_t n = 0; n < 64; n++)
		assert_err(device_proof_verify(p.key, 32, p.sig, n, p.cluster, p.lighthouse,
					       p.exporter, &err),
			   ERR_UNAUTHENTICATED);
	assert_err(
		device_proof_verify(zero, 32, p.sig, 64, p.cluster, p.lighthouse, p.exporter, &err),
		ERR_UNAUTHENTICATED);
	assert_string_equal(err.reason, "DEVICE_PROOF_MALFORMED");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_is_as_written_down),
		cmocka_unit_test(good),
		cmocka_unit_test(each_part_is_bound),
		cmocka_unit_test(lengths),
	};

	crypto_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
