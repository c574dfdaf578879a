/* Keys and certificates. LIBS: net testcerts */
#include "tests/lib/test.h"

#include "base/crypto.h"
#include "base/mem.h"
#include "net/x509.h"
#include "tests/lib/certs.h"

static void test_keys_round_trip(void **state)
{
	static const enum x509_key_type types[] = {X509_KEY_ED25519, X509_KEY_P256};

	(void)state;
	TEST_TABLE(type, types)
	{
		struct x509_key *key, *again;
		struct buf pem = BUF_INIT;
		uint8_t a[X509_PUB_MAX], b[X509_PUB_MAX], h1[32], h2[32], h3[32];
		struct err err = {0};

		assert_ok(x509_key_new(*type, &key, &err));
		assert_ok(x509_key_pem(key, &pem));
		assert_ok(x509_key_parse(buf_str(&pem), &again, &err));
		assert_int_equal(x509_key_type(again), *type);
		size_t n = x509_key_pub(key, a);
		assert_int_equal(n, *type == X509_KEY_ED25519 ? 32 : 65);
		assert_int_equal(x509_key_pub(again, b), n);
		assert_memory_equal(a, b, n);
		x509_key_spki_sha256(key, h1);
		x509_key_spki_sha256(again, h2);
		assert_memory_equal(h1, h2, 32);
		assert_ok(x509_pub_spki_sha256(*type, a, n, h3, &err));
		assert_memory_equal(h1, h3, 32);
		assert_err(x509_pub_spki_sha256(*type, a, n - 1, h3, &err), ERR_INVALID);
		x509_key_free(key);
		x509_key_free(again);
		buf_wipe(&pem);
	}
}

static void test_seed(void **state)
{
	struct x509_key *key, *p256;
	uint8_t seed[32], out[32], pub[X509_PUB_MAX], want[32];
	struct err err = {0};

	(void)state;
	memset(seed, 7, sizeof(seed));
	assert_ok(x509_key_from_seed(seed, &key));
	assert_ok(x509_key_seed(key, out));
	assert_memory_equal(seed, out, 32);
	crypto_ed25519_public(want, seed);
	assert_int_equal(x509_key_pub(key, pub), 32);
	assert_memory_equal(pub, want, 32);
	assert_ok(x509_key_new(X509_KEY_P256, &p256, &err));
	assert_err(x509_key_seed(p256, out), ERR_INVALID);
	x509_key_free(key);
	x509_key_free(p256);
}

static void test_issue_and_facts(void **state)
{
	struct test_ca ca, other;
	struct x509_key *key;
	struct buf pem = BUF_INIT;
	struct x509_facts f;
	struct err err = {0};
	const char *uris[] = {"skerry://5/lighthouse/1", "skerry://5/api", NULL};
	const char *dns[] = {"a.example", "b.example,DNS:evil.example", NULL};
	struct ipaddr ips[2];
	uint8_t pub[X509_PUB_MAX];
	int64_t now = clock_wall_ms() / 1000 * 1000;

	(void)state;
	test_ca_init(&ca, "CA \xc3\xa9");
	test_ca_init(&other, "other");
	assert_ok(ipaddr_parse("10.1.2.3", &ips[0], NULL));
	assert_ok(ipaddr_parse("2001:db8::1", &ips[1], NULL));
	assert_ok(x509_key_new(X509_KEY_ED25519, &key, &err));
	size_t n = x509_key_pub(key, pub);
	const struct x509_spec spec = {
		.subject = "leaf",
		.uris = uris,
		.dns = dns,
		.ips = ips,
		.n_ips = 2,
		.not_before_ms = now - 60000,
		.not_after_ms = now + 60000,
		.client = true,
		.server = true,
	};
	assert_ok(x509_issue(ca.key, ca.pem, X509_KEY_ED25519, pub, n, &spec, &pem, &err));
	assert_ok(x509_parse_pem(buf_str(&pem), &f, &err));
	assert_string_equal(f.subject, "leaf");
	assert_string_equal(f.issuer, "CA \xc3\xa9");
	assert_int_equal(f.n_uris, 2);
	assert_true(x509_facts_has_uri(&f, "skerry://5/api"));
	assert_false(x509_facts_has_uri(&f, "skerry://5/ap"));
	/* A name with a comma is one name: nothing is smuggled in. */
	assert_int_equal(f.n_dns, 2);
	assert_string_equal(f.dns[1], "b.example,DNS:evil.example");
	assert_int_equal(f.n_ips, 2);
	assert_true(ipaddr_equal(&f.ips[1], &ips[1]));
	assert_int_equal(f.not_before_ms, now - 60000);
	assert_int_equal(f.not_after_ms, now + 60000);
	assert_memory_equal(f.pub, pub, n);
	assert_int_equal(f.serial_len, 16);
	assert_false(f.is_ca);
	assert_true(x509_signed_by(buf_str(&pem), ca.pem, now));
	assert_false(x509_signed_by(buf_str(&pem), ca.pem, now + 61000));
	assert_false(x509_signed_by(buf_str(&pem), ca.pem, now - 61000));
	assert_false(x509_signed_by(buf_str(&pem), other.pem, now));
	assert_false(x509_signed_by("x", ca.pem, now));
	x509_facts_done(&f);
	/* The CA certificate must belong to the CA key. */
	assert_err(x509_issue(ca.key, other.pem, X509_KEY_ED25519, pub, n, &spec, &pem, &err),
		   ERR_INVALID);
	assert_err(x509_issue(ca.key, ca.pem, X509_KEY_P256, pub, n, &spec, &pem, &err),
		   ERR_INVALID);
	assert_ok(x509_parse_pem(ca.pem, &f, &err));
	assert_true(f.is_ca);
	assert_memory_equal(f.spki_sha256, ca.pin, 32);
	x509_facts_done(&f);
	assert_err(x509_parse_pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
				  &f, &err),
		   ERR_INVALID);
	assert_err(x509_parse_der("\x30\x03\x02\x01", 4, &f, &err), ERR_INVALID);
	buf_done(&pem);
	x509_key_free(key);
	test_ca_done(&ca);
	test_ca_done(&other);
}

int main(void)
{
	crypto_init();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keys_round_trip),
		cmocka_unit_test(test_seed),
		cmocka_unit_test(test_issue_and_facts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
