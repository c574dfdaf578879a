/* See digest_judge.h. */
#include "cluster/digest_judge.h"

#include <string.h>

static bool same(const struct digest_vote *a, const struct digest_vote *b)
{
	return a->digest != NULL && b->digest != NULL && memcmp(a->digest, b->digest, 32) == 0;
}

enum digest_outcome digest_judge(const struct digest_vote *v, size_t n, size_t *ret_right)
{
	const struct digest_vote *first = NULL;
	size_t voters = 0, right = n;
	bool differ = false;

	for (size_t i = 0; i < n; i++) {
		voters += v[i].voter;
		if (v[i].digest != NULL) {
			first = first != NULL ? first : &v[i];
			differ |= !same(first, &v[i]);
		}
	}
	for (size_t i = 0; i < n && right == n; i++) {
		size_t votes = 0;

		for (size_t k = 0; k < n; k++) {
			votes += v[k].voter && same(&v[i], &v[k]);
		}
		if (votes > voters / 2) {
			right = i;
		}
	}
	*ret_right = right;
	return !differ ? DIGEST_EQUAL : right < n ? DIGEST_MINORITY : DIGEST_NO_MAJORITY;
}
