/* Whose state is the wrong one, from what the lighthouses said at one point of the log. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct digest_vote {
	const uint8_t *digest; /* 32 bytes; NULL: it did not report */
	bool voter;
};

enum digest_outcome {
	DIGEST_EQUAL,    /* all that reported; few may have */
	DIGEST_MINORITY, /* they differ, and a majority of all voters agrees: the others are wrong */
	DIGEST_NO_MAJORITY, /* they differ, and nobody can say who is right: an alarm, no repair */
};

/*
 * *ret_right: one that holds what a majority of all voters holds, whether reported or not; n when there is none. Standbys have
 * no say.
 */
enum digest_outcome digest_judge(const struct digest_vote *v, size_t n, size_t *ret_right);
