/* Is the leader's process gone? The verdict over one probe's observations; pure. */
#include "cluster/probe.h"

#include <stddef.h>

void probe_start(struct probe *p, uint64_t leader, uint64_t incarnation, uint64_t term)
{
	*p = (struct probe){.leader = leader, .incarnation = incarnation, .term = term};
}

enum probe_verdict probe_observe(struct probe *p, enum probe_seen seen,
				 const struct probe_answer *a)
{
	p->attempts++;
	switch (seen) {
	case PROBE_REFUSED:
		/* Twice: a listener that is just being closed or opened refuses once. */
		if (++p->refused >= 2) {
			return PROBE_LOST;
		}
		return p->attempts < PROBE_ATTEMPTS ? PROBE_AGAIN : PROBE_UNKNOWN;
	case PROBE_ANSWER:
		if (p->incarnation != 0 && a->incarnation != p->incarnation) {
			return PROBE_LOST;
		}
		if (a->term >= p->term && !a->leader) {
			return PROBE_LOST;
		}
		if (a->leader && a->term >= p->term) {
			/* Once more: a dying process has been seen to answer just before its sockets closed. */
			if (p->alive) {
				return PROBE_FALSE_ALARM;
			}
			p->alive = true;
			return p->attempts < PROBE_ATTEMPTS ? PROBE_AGAIN : PROBE_FALSE_ALARM;
		}
		/* Of an older term than ours: it will learn; the timer decides. */
		return PROBE_UNKNOWN;
	case PROBE_TIMEOUT:
	case PROBE_ERROR: break;
	}
	return PROBE_UNKNOWN;
}

bool probe_may_race(struct probe_race *last, uint64_t incarnation, uint64_t now_ms)
{
	bool other = incarnation != 0 && incarnation != last->incarnation;

	if (last->ms != 0 && !other && now_ms - last->ms < PROBE_RACE_MS) {
		return false;
	}
	last->ms = now_ms;
	last->incarnation = incarnation;
	return true;
}
