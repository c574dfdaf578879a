#include "tests/lib/certs.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/mem.h"

enum { HOUR_MS = 3600 * 1000 };

static void must(int rc, const struct err *err)
{
	if (rc != 0) {
		fprintf(stderr, "test certificates: %s\n", err->msg);
		abort();
	}
}

void test_ca_init(struct test_ca *ca, const char *name)
{
	struct err err = {0};
	struct buf pem = BUF_INIT;
	const struct x509_spec spec = {
		.subject = name,
		.not_before_ms = clock_wall_ms() - HOUR_MS,
		.not_after_ms = clock_wall_ms() + HOUR_MS,
	};

	crypto_init();
	must(x509_key_new(X509_KEY_P256, &ca->key, &err), &err);
	must(x509_make_ca(ca->key, &spec, &pem, &err), &err);
	x509_key_spki_sha256(ca->key, ca->pin);
	ca->pem = mem_strdup(buf_str(&pem));
	buf_done(&pem);
}

void test_ca_done(struct test_ca *ca)
{
	x509_key_free(ca->key);
	mem_free(ca->pem);
}

void test_cert_init(struct test_cert *cert, const struct test_ca *ca, enum x509_key_type type,
		    const char *dns, const char *uri)
{
	const char *dns_names[] = {dns, NULL};
	const char *uris[] = {uri, NULL};
	struct ipaddr local = {.family = 4, .b = {127, 0, 0, 1}};
	const struct x509_spec spec = {
		.subject = dns != NULL ? dns : uri,
		.dns = dns_names,
		.uris = uris,
		.ips = &local,
		.n_ips = 1,
		.not_before_ms = clock_wall_ms() - HOUR_MS,
		.not_after_ms = clock_wall_ms() + HOUR_MS,
		.server = true,
		.client = true,
	};
	uint8_t pub[X509_PUB_MAX];
	struct buf pem = BUF_INIT;
	struct err err = {0};

	must(x509_key_new(type, &cert->key, &err), &err);
	size_t len = x509_key_pub(cert->key, pub);
	must(x509_issue(ca->key, ca->pem, type, pub, len, &spec, &pem, &err), &err);
	cert->chain = mem_printf("%s%s", buf_str(&pem), ca->pem);
	buf_reset(&pem);
	must(x509_key_pem(cert->key, &pem), &err);
	cert->key_pem = mem_strdup(buf_str(&pem));
	buf_wipe(&pem);
}

void test_cert_done(struct test_cert *cert)
{
	x509_key_free(cert->key);
	mem_free(cert->chain);
	mem_free(cert->key_pem);
}
