/* After how many bytes of log a member makes its next snapshot. Pure. */
#pragma once

#include <stdint.h>

/*
 * Snapshots go by bytes of log. All of the log since the last one is in memory, and is read at a start; a snapshot writes all of
 * the state. So with a bigger state there is more log between two of them: as much as the state has, but never less
 * than `after`, and never more than SNAPSHOT_STRETCH times that.
 *
 * All members get the same log, and two that make a snapshot at the same time leave the others no majority that is
 * quick. So each has bounds of its own, by its place among the voters: of 3 the second has 1.3 times and the last 1.6
 * times the bytes of the first, and they meet seldom. The last place is the leader's.
 */
enum { SNAPSHOT_STRETCH = 16 };

/* place: below voters, 0 for one that does not vote. */
uint64_t snapshot_due_bytes(uint64_t after, uint64_t state_bytes, unsigned place, unsigned voters);
