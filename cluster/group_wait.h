/* Whether the next group waits a moment for those whom the last one has answered. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Callers who wait for one answer before they ask again fall into two halves: one is in the entry that is on its way, the
 * other waits for the next, and each waits for two rounds. When a group has ended while others wait, those whom it
 * answered are about to be back: the next one waits for them, about as long as the round has taken, and one round then
 * carries all. When they do not come, it rests for ever more groups. Many commands are not worth it: their groups are full.
 */
enum {
	GROUP_WAIT_MS = 1,
	GROUP_WAIT_MAX_MS = 6,
	GROUP_WAIT_COMMANDS = 64,
	GROUP_WAIT_MISSES = 4, /* after so many in a row, or more, it rests for 15 groups */
};

struct group_wait {
	bool on;
	size_t enough; /* so many commands end it */
	unsigned misses, rest;
};

/* A group of `answered` commands has ended after round_ms, `queued` wait. Returns for how long the next one waits, 0: not. */
uint64_t group_wait_begin(struct group_wait *w, size_t answered, size_t queued, uint64_t round_ms);
/* Does it wait, with so many commands there? */
bool group_wait_on(struct group_wait *w, size_t queued);
/* The time is over. */
void group_wait_miss(struct group_wait *w);
