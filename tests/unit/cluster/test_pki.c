/* Certificates of the cluster: names, seals, and who is let in as a peer. LIBS: cluster */
#include "tests/lib/test.h"

#include "base/crypto.h"
#include "base/mem.h"
#include "cluster/pki.h"

enum { CLUSTER = 4711, ID = 42, SELF = 7 };
#define NOW 1800000000000ll

struct fixture {
	struct pki_ca ca, foreign;
	struct x509_key *key, *other;
	uint8_t spki[PKI_SPKI_MAX], other_spki[PKI_SPKI_MAX];
	size_t spki_len, other_len;
};

static int set_up(void **state)
{
	struct fixture *f = MEM_NEW(struct fixture);

	crypto_init();
	assert_ok(pki_ca_new(CLUSTER, NOW, &f->ca, NULL));
	assert_ok(pki_ca_new(CLUSTER, NOW, &f->foreign, NULL));
	assert_ok(x509_key_new(X509_KEY_P256, &f->key, NULL));
	assert_ok(x509_key_new(X509_KEY_ED25519, &f->other, NULL));
	f->spki_len = pki_spki(f->key, f->spki);
	f->other_len = pki_spki(f->other, f->other_spki);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	pki_ca_done(&f->ca);
	pki_ca_done(&f->foreign);
	x509_key_free(f->key);
	x509_key_free(f->other);
	mem_free(f);
	return 0;
}

static void test_names(void **state)
{
	char out[PKI_URI_MAX];

	(void)state;
	assert_string_equal(pki_uri_peer(1, 2, out), "skerry://1/lighthouse/2");
	assert_string_equal(pki_uri_api(1, 2, out), "skerry://1/api/2");
	assert_string_equal(pki_server_name(99, out), "99.skerry.invalid");
}

static void test_peer_id(void **state)
{
	static const struct {
		const char *uri;
		int result;
		uint64_t id;
	} cases[] = {
		{"skerry://4711/lighthouse/42", 0, 42},
		{"skerry://4711/lighthouse/9223372036854775807", 0, 9223372036854775807u},
		{"skerry://4712/lighthouse/42", ERR_DENIED, 0},
		{"skerry://4711/api/42", ERR_DENIED, 0},
		{"skerry://4711/lighthouse/042", ERR_DENIED, 0},
		{"skerry://4711/lighthouse/0", ERR_DENIED, 0},
		{"skerry://4711/lighthouse/", ERR_DENIED, 0},
		{"skerry://4711/lighthouse/42/", ERR_DENIED, 0},
		{"skerry://4711/lighthouse/-1", ERR_DENIED, 0},
		{"skerry://4711/lighthouse/99999999999999999999999", ERR_DENIED, 0},
		{"skerry:///lighthouse/42", ERR_DENIED, 0},
		{"https://4711/lighthouse/42", ERR_DENIED, 0},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		struct x509_facts f = {.n_uris = 1};
		uint64_t id = 0;

		f.uris[0] = (char *)c->uri;
		assert_err(pki_peer_id(&f, CLUSTER, &id, NULL), c->result);
		assert_int_equal(id, c->id);
	}
}

static void test_two_names_are_refused(void **state)
{
	struct x509_facts f = {.n_uris = 2};
	uint64_t id;

	(void)state;
	f.uris[0] = (char *)"skerry://4711/lighthouse/42";
	f.uris[1] = (char *)"skerry://4711/lighthouse/43";
	assert_err(pki_peer_id(&f, CLUSTER, &id, NULL), ERR_DENIED);
}

static void test_spki(void **state)
{
	struct fixture *f = *state;
	uint8_t hash[32], want[32], pub[X509_PUB_MAX];
	enum x509_key_type type;
	size_t n;

	assert_ok(pki_spki_parse(f->spki, f->spki_len, &type, pub, &n, NULL));
	assert_int_equal(type, X509_KEY_P256);
	assert_int_equal(n, 65);
	/* Ours is what the library hashes. */
	crypto_sha256(hash, f->spki, f->spki_len);
	x509_key_spki_sha256(f->key, want);
	assert_memory_equal(hash, want, 32);
	assert_ok(pki_spki_parse(f->other_spki, f->other_len, &type, pub, &n, NULL));
	assert_int_equal(type, X509_KEY_ED25519);
	crypto_sha256(hash, f->other_spki, f->other_len);
	x509_key_spki_sha256(f->other, want);
	assert_memory_equal(hash, want, 32);
	for (size_t cut = 0; cut < f->spki_len; cut++) {
		assert_err(pki_spki_parse(f->spki, cut, &type, pub, &n, NULL), ERR_INVALID);
	}
	f->spki[3] ^= 1;
	assert_err(pki_spki_parse(f->spki, f->spki_len, &type, pub, &n, NULL), ERR_INVALID);
}

static void test_pem_der(void **state)
{
	struct fixture *f = *state;
	struct buf der = BUF_INIT, pem = BUF_INIT;
	uint8_t a[32], b[32];

	assert_ok(pki_cert_der(f->ca.cert_pem, &der, NULL));
	pki_cert_pem(der.data, der.len, &pem);
	assert_ok(pki_pin(f->ca.cert_pem, a, NULL));
	assert_ok(pki_pin(buf_str(&pem), b, NULL));
	assert_memory_equal(a, b, 32);
	buf_append_str(&pem, f->ca.cert_pem);
	assert_err(pki_cert_der(buf_str(&pem), &der, NULL), ERR_INVALID);
	assert_err(pki_cert_der("nothing", &der, NULL), ERR_INVALID);
	buf_done(&der);
	buf_done(&pem);
}

static void test_ca_seal(void **state)
{
	struct fixture *f = *state;
	uint8_t key[PKI_KEY] = {1, 2, 3}, wrong[PKI_KEY] = {1, 2, 4};
	struct buf box = BUF_INIT, der = BUF_INIT;
	struct pki_ca ca = {0};
	struct err e = {0};

	assert_ok(pki_ca_seal(&f->ca, key, 1, &box, NULL));
	assert_ok(pki_cert_der(f->ca.cert_pem, &der, NULL));
	assert_ok(pki_ca_open(CLUSTER, der.data, der.len, box.data, box.len, 1, key, &ca, NULL));
	pki_ca_done(&ca);
	assert_err(pki_ca_open(CLUSTER, der.data, der.len, box.data, box.len, 1, wrong, &ca, &e),
		   ERR_CORRUPT);
	assert_contains(e.msg, "cluster.key");
	/* Bound to cluster and generation. */
	assert_err(pki_ca_open(CLUSTER, der.data, der.len, box.data, box.len, 2, key, &ca, NULL),
		   ERR_CORRUPT);
	assert_err(
		pki_ca_open(CLUSTER + 1, der.data, der.len, box.data, box.len, 1, key, &ca, NULL),
		ERR_CORRUPT);
	/* Another CA's certificate beside the key. */
	buf_reset(&der);
	assert_ok(pki_cert_der(f->foreign.cert_pem, &der, NULL));
	assert_err(pki_ca_open(CLUSTER, der.data, der.len, box.data, box.len, 1, key, &ca, NULL),
		   ERR_CORRUPT);
	buf_done(&box);
	buf_done(&der);
}

static void test_api_certificate(void **state)
{
	struct fixture *f = *state;
	struct x509_facts facts = {0};
	struct buf pem = BUF_INIT;
	struct err e = {0};

	assert_ok(pki_issue_api(&f->ca, ID, f->spki, f->spki_len, "https://one.example:8443", NOW,
				&pem, NULL));
	assert_ok(x509_parse_pem(buf_str(&pem), &facts, NULL));
	assert_true(x509_facts_has_uri(&facts, "skerry://4711/api/42"));
	assert_int_equal(facts.n_dns, 2);
	assert_string_equal(facts.dns[0], "4711.skerry.invalid");
	assert_string_equal(facts.dns[1], "one.example");
	assert_int_equal(facts.n_ips, 0);
	assert_true(x509_signed_by(buf_str(&pem), f->ca.cert_pem, NOW));
	assert_false(x509_signed_by(buf_str(&pem), f->foreign.cert_pem, NOW));
	x509_facts_done(&facts);
	buf_reset(&pem);
	assert_ok(pki_issue_api(&f->ca, ID, f->spki, f->spki_len, "https://10.1.2.3", NOW, &pem,
				NULL));
	assert_ok(x509_parse_pem(buf_str(&pem), &facts, NULL));
	assert_int_equal(facts.n_dns, 1);
	assert_int_equal(facts.n_ips, 1);
	x509_facts_done(&facts);
	buf_reset(&pem);
	assert_ok(pki_issue_api(&f->ca, ID, f->spki, f->spki_len, "https://[2001:db8::1]:1", NOW,
				&pem, NULL));
	assert_ok(x509_parse_pem(buf_str(&pem), &facts, NULL));
	assert_int_equal(facts.n_ips, 1);
	assert_int_equal(facts.ips[0].family, 6);
	x509_facts_done(&facts);
	assert_err(pki_issue_api(&f->ca, ID, f->spki, f->spki_len, "one.example", NOW, &pem, &e),
		   ERR_INVALID);
	assert_string_equal(e.field, "api_url");
	buf_done(&pem);
}

static void test_renewal(void **state)
{
	struct fixture *f = *state;
	struct buf pem = BUF_INIT;

	assert_ok(pki_issue_peer(&f->ca, ID, f->spki, f->spki_len, NOW, &pem, NULL));
	assert_false(pki_needs_renewal(buf_str(&pem), NOW));
	assert_false(pki_needs_renewal(buf_str(&pem), NOW + PKI_PEER_LIFETIME_MS * 49 / 100));
	assert_true(pki_needs_renewal(buf_str(&pem), NOW + PKI_PEER_LIFETIME_MS * 51 / 100));
	assert_true(pki_needs_renewal("junk", NOW));
	assert_true(pki_needs_renewal(NULL, NOW));
	buf_done(&pem);
}

/* ---- who is a peer ---- */

struct table {
	struct pki_member m;
	uint64_t asked;
};

static void lookup(void *arg, uint64_t id, struct pki_member *ret)
{
	struct table *t = arg;

	t->asked = id;
	*ret = t->m;
}

static int verify(struct fixture *f, const struct pki_ca *issuer, uint64_t id, uint64_t expect,
		  struct pki_member m, struct err *e)
{
	struct buf pem = BUF_INIT, der = BUF_INIT;
	struct table t = {.m = m};
	uint64_t got = 0;
	int r;

	assert_ok(pki_issue_peer(issuer, id, f->spki, f->spki_len, NOW, &pem, NULL));
	assert_ok(pki_cert_der(buf_str(&pem), &der, NULL));
	r = pki_verify_peer(der.data, der.len, f->ca.cert_pem, CLUSTER, SELF, expect, lookup, &t,
			    &got, e);
	if (r >= 0) {
		assert_int_equal(got, id);
	}
	buf_done(&pem);
	buf_done(&der);
	return r;
}

static void test_verify(void **state)
{
	struct fixture *f = *state;
	struct pki_member good = {.known = true}, other = {.known = true}, removed = {0},
			  unknown = {0};
	struct err e = {0};

	crypto_sha256(good.spki_sha256, f->spki, f->spki_len);
	crypto_sha256(other.spki_sha256, f->other_spki, f->other_len);
	removed = good;
	removed.removed = true;
	assert_ok(verify(f, &f->ca, ID, 0, good, &e));
	assert_ok(verify(f, &f->ca, ID, ID, good, &e));
	assert_err(verify(f, &f->foreign, ID, 0, good, &e), ERR_DENIED);
	assert_string_equal(e.reason, "FOREIGN_CA");
	assert_err(verify(f, &f->ca, ID, 0, other, &e), ERR_DENIED);
	assert_string_equal(e.reason, "WRONG_KEY");
	assert_err(verify(f, &f->ca, ID, 0, removed, &e), ERR_DENIED);
	assert_string_equal(e.reason, "MEMBER_REMOVED");
	assert_err(verify(f, &f->ca, ID, 0, unknown, &e), ERR_DENIED);
	assert_string_equal(e.reason, "MEMBER_UNKNOWN");
	assert_err(verify(f, &f->ca, ID, ID + 1, good, &e), ERR_DENIED);
	assert_string_equal(e.reason, "WRONG_NAME");
	assert_err(verify(f, &f->ca, SELF, 0, good, &e), ERR_DENIED);
	assert_string_equal(e.reason, "WRONG_NAME");
}

/* An API certificate of the same CA and key is no peer certificate. */
static void test_verify_api_certificate(void **state)
{
	struct fixture *f = *state;
	struct buf pem = BUF_INIT, der = BUF_INIT;
	struct table t = {.m = {.known = true}};
	struct err e = {0};
	uint64_t id;

	crypto_sha256(t.m.spki_sha256, f->spki, f->spki_len);
	assert_ok(pki_issue_api(&f->ca, ID, f->spki, f->spki_len, "https://a.example", NOW, &pem,
				NULL));
	assert_ok(pki_cert_der(buf_str(&pem), &der, NULL));
	assert_err(pki_verify_peer(der.data, der.len, f->ca.cert_pem, CLUSTER, SELF, 0, lookup, &t,
				   &id, &e),
		   ERR_DENIED);
	assert_string_equal(e.reason, "WRONG_NAME");
	buf_done(&pem);
	buf_done(&der);
}

/* Dates decide nothing: a certificate from long ago is still a member's. */
static void test_verify_expired(void **state)
{
	struct fixture *f = *state;
	struct buf pem = BUF_INIT, der = BUF_INIT;
	struct table t = {.m = {.known = true}};
	struct pki_ca old = {0};
	uint64_t id = 0;

	assert_ok(pki_ca_new(CLUSTER, 1000000000000ll, &old, NULL));
	crypto_sha256(t.m.spki_sha256, f->spki, f->spki_len);
	assert_ok(pki_issue_peer(&old, ID, f->spki, f->spki_len, 1000000000000ll, &pem, NULL));
	assert_ok(pki_cert_der(buf_str(&pem), &der, NULL));
	assert_false(x509_signed_by(buf_str(&pem), old.cert_pem, NOW));
	assert_ok(pki_verify_peer(der.data, der.len, old.cert_pem, CLUSTER, SELF, 0, lookup, &t,
				  &id, NULL));
	assert_int_equal(id, ID);
	pki_ca_done(&old);
	buf_done(&pem);
	buf_done(&der);
}

/* A new CA certified by the old one: who knows only the old one finds the new. */
static void test_next(void **state)
{
	struct fixture *f = *state;
	struct buf cross = BUF_INIT, leaf = BUF_INIT;
	struct pki_ca next = {0};
	struct x509_facts a = {0}, b = {0};

	assert_ok(pki_ca_next(&f->ca, NOW, &next, &cross, NULL));
	assert_true(pki_crosses(buf_str(&cross), next.cert_pem, f->ca.cert_pem));
	assert_false(pki_crosses(buf_str(&cross), f->ca.cert_pem, f->ca.cert_pem));
	assert_false(pki_crosses(buf_str(&cross), next.cert_pem, f->foreign.cert_pem));
	assert_false(pki_crosses(next.cert_pem, next.cert_pem, f->ca.cert_pem));
	assert_ok(pki_issue_peer(&next, ID, f->spki, f->spki_len, NOW, &leaf, NULL));
	assert_true(pki_signed_by(buf_str(&leaf), next.cert_pem));
	assert_true(pki_signed_by(buf_str(&leaf), buf_str(&cross)));
	assert_false(pki_signed_by(buf_str(&leaf), f->ca.cert_pem));
	/* One name for all: so the path over the cross certificate is not too long for a CA that allows none below it. */
	assert_ok(x509_parse_pem(buf_str(&cross), &a, NULL));
	assert_ok(x509_parse_pem(f->ca.cert_pem, &b, NULL));
	assert_string_equal(a.subject, b.subject);
	assert_string_equal(a.issuer, b.subject);
	assert_true(a.is_ca);
	x509_facts_done(&a);
	x509_facts_done(&b);
	pki_ca_done(&next);
	buf_done(&cross);
	buf_done(&leaf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_peer_id),
		cmocka_unit_test(test_two_names_are_refused),
		cmocka_unit_test_setup_teardown(test_spki, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_pem_der, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_ca_seal, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_api_certificate, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_renewal, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_verify, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_verify_api_certificate, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_verify_expired, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_next, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
