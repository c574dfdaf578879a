/* Inside of base: SHA-256 by the instructions that the processor may have for it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"

/* Whether this processor has them. Any thread. */
bool sha256_fast(void);
/* Only where sha256_fast(). Any thread. */
void sha256_fast_v(uint8_t out[CRYPTO_HASH], const struct crypto_iov *iov, size_t n);
