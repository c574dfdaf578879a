/* When a group waits for more commands; group_wait.h says why. */
#include "cluster/group_wait.h"

#include "base/macros.h"

uint64_t group_wait_begin(struct group_wait *w, size_t answered, size_t queued, uint64_t round_ms)
{
	w->on = false;
	w->enough = answered + queued;
	w->enough -= w->enough / 8; /* the slowest is not waited for */
	if (answered == 0 || queued == 0 || w->enough <= queued ||
	    w->enough > GROUP_WAIT_COMMANDS) {
		return 0;
	}
	if (w->rest > 0) {
		w->rest--;
		return 0;
	}
	w->on = true;
	return MIN(MAX(round_ms, (uint64_t)GROUP_WAIT_MS), (uint64_t)GROUP_WAIT_MAX_MS);
}

bool group_wait_on(struct group_wait *w, size_t queued)
{
	if (w->on && queued >= w->enough) {
		w->on = false;
		w->misses = 0;
	}
	return w->on;
}

void group_wait_miss(struct group_wait *w)
{
	if (!w->on) {
		return;
	}
	w->on = false;
	w->misses = MIN(w->misses + 1, (unsigned)GROUP_WAIT_MISSES);
	w->rest = (1u << w->misses) - 1;
}
