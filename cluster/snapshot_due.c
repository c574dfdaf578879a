#include "cluster/snapshot_due.h"

#include "base/macros.h"

enum {
	WHOLE = 10,
	STEP = 3
}; /* of a place: parts of the whole, such that multiples of two bounds seldom meet */

uint64_t snapshot_due_bytes(uint64_t after, uint64_t state_bytes, unsigned place, unsigned voters)
{
	unsigned last = WHOLE + STEP * (MAX(voters, 1u) - 1);
	unsigned mine = WHOLE + STEP * (voters > 0 ? MIN(place, voters - 1) : 0);
	uint64_t most =
		after * SNAPSHOT_STRETCH * WHOLE / last; /* times the last place: all of it */

	return MAX(after, MIN(state_bytes, most)) * mine / WHOLE;
}
