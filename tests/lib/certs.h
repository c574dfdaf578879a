/* Certificates made at run time for tests: a CA and what it issues. */
#pragma once

#include "net/tls.h"
#include "net/x509.h"

struct test_ca {
	struct x509_key *key;
	char *pem;
	uint8_t pin[32];
};

struct test_cert {
	struct x509_key *key;
	char *chain; /* leaf and CA */
	char *key_pem;
};

void test_ca_init(struct test_ca *ca, const char *name);
void test_ca_done(struct test_ca *ca);
/* dns: the name of a server, NULL without; uri: NULL without. Valid for an hour around now. */
void test_cert_init(struct test_cert *cert, const struct test_ca *ca, enum x509_key_type type,
		    const char *dns, const char *uri);
void test_cert_done(struct test_cert *cert);
