#include "base/sha256_int.h"

#include "base/enc.h"
#include "base/macros.h"

#include <string.h>

/*
 * libsodium computes SHA-256 in portable C, some two thousand instructions a block; each write of a client costs a dozen
 * blocks (its credential and the hash of its request). The SHA extensions of x86 take a tenth of that.
 */

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>
#include <stdatomic.h>

enum { BLOCK = 64 };

static const _Alignas(16) uint32_t round_constants[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
	0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
	0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
	0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
	0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
	0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
	0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
	0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
	0xc67178f2,
};

bool sha256_fast(void)
{
	static atomic_int known; /* 0: not looked yet, 1: no, 2: yes */
	int state = atomic_load_explicit(&known, memory_order_relaxed);
	unsigned a, b, c, d;

	if (state == 0) {
		bool has = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_SSSE3) != 0 &&
			   (c & bit_SSE4_1) != 0;

		has = has && __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & bit_SHA) != 0;
		state = has ? 2 : 1;
		atomic_store_explicit(&known, state, memory_order_relaxed);
	}
	return state == 2;
}

/* The instructions want the eight words as ABEF and CDGH, highest lane first. */
__attribute__((target("sha,sse4.1,ssse3"))) static void compress(uint32_t state[8],
								 const uint8_t *data, size_t blocks)
{
	const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
	__m128i badc = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xb1);
	__m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1b);
	__m128i abef = _mm_alignr_epi8(badc, hgfe, 8);
	__m128i cdgh = _mm_blend_epi16(hgfe, badc, 0xf0);

	for (; blocks > 0; blocks--, data += BLOCK) {
		__m128i abef_before = abef, cdgh_before = cdgh, w[4];

#pragma GCC unroll 16
		for (unsigned i = 0; i < 16; i++) {
			__m128i *now = &w[i % 4], sum;

			if (i < 4) {
				*now = _mm_shuffle_epi8(
					_mm_loadu_si128((const __m128i *)(data + 16 * i)), swap);
			} else {
				__m128i last = w[(i + 3) % 4];

				sum = _mm_sha256msg1_epu32(*now, w[(i + 1) % 4]);
				sum = _mm_add_epi32(sum, _mm_alignr_epi8(last, w[(i + 2) % 4], 4));
				*now = _mm_sha256msg2_epu32(sum, last);
			}
			sum = _mm_add_epi32(
				*now, _mm_load_si128((const __m128i *)(round_constants + 4 * i)));
			cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
			abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
		}
		abef = _mm_add_epi32(abef, abef_before);
		cdgh = _mm_add_epi32(cdgh, cdgh_before);
	}
	__m128i feba = _mm_shuffle_epi32(abef, 0x1b);
	__m128i dchg = _mm_shuffle_epi32(cdgh, 0xb1);
	_mm_storeu_si128((__m128i *)state, _mm_blend_epi16(feba, dchg, 0xf0));
	_mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

void sha256_fast_v(uint8_t out[CRYPTO_HASH], const struct crypto_iov *iov, size_t n)
{
	uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
			     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
	uint8_t rest[2 * BLOCK]; /* the last block, and the one that its padding may need */
	size_t have = 0;
	uint64_t total = 0;

	for (size_t i = 0; i < n; i++) {
		const uint8_t *p = iov[i].data;
		size_t len = iov[i].len;

		total += len;
		if (have > 0) {
			size_t part = MIN(len, BLOCK - have);

			if (part > 0) {
				memcpy(rest + have, p, part);
			}
			have += part;
			len -= part;
			if (have < BLOCK) {
				continue;
			}
			p += part;
			compress(state, rest, 1);
			have = 0;
		}
		compress(state, p, len / BLOCK);
		have = len % BLOCK;
		if (have > 0) {
			memcpy(rest, p + len - have, have);
		}
	}
	size_t end = have + 9 <= BLOCK ? BLOCK : 2 * BLOCK;
	rest[have] = 0x80;
	memset(rest + have + 1, 0, end - have - 1);
	be_put64(rest + end - 8, total * 8);
	compress(state, rest, end / BLOCK);
	for (unsigned i = 0; i < 8; i++) {
		be_put32(out + 4 * i, state[i]);
	}
	/* What is hashed may be a key. */
	secret_wipe(rest, sizeof(rest));
}

#else

bool sha256_fast(void)
{
	return false;
}

void sha256_fast_v(uint8_t out[CRYPTO_HASH], const struct crypto_iov *iov, size_t n)
{
	(void)out;
	(void)iov;
	(void)n;
	IMPOSSIBLE("a SHA-256 that this processor does not have");
}

#endif
