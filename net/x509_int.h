/* Inside of certificates: what TLS needs of OpenSSL's objects. */
#pragma once

#include <openssl/evp.h>
#include <openssl/x509.h>

#include "net/x509.h"

void x509_spki_hash(X509 *cert, uint8_t ret_hash[32]);
MUST_CHECK int x509_facts_of(X509 *cert, struct x509_facts *ret_facts, struct err *err);
/* PKCS#8 or traditional PEM without a password; NULL on failure. */
EVP_PKEY *x509_read_key(const char *pem);
/* Password callback that refuses, instead of asking at the terminal. */
int x509_no_password(char *out, int size, int rw, void *arg);
