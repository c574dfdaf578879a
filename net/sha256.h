/* SHA-256 by OpenSSL for base/crypto.h, which may not know it. */
#pragma once

/*
 * From now on crypto_sha256() and crypto_sha256v() compute by OpenSSL, in the whole process. For a daemon that hashes for each
 * call: OpenSSL uses the processor's instructions, a quarter of what libsodium needs. At the start, after
 * crypto_init(); may be repeated.
 */
void sha256_by_openssl(void);
