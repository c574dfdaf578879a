/*
 * LMDB trusts its pages: one that is damaged while the store is open may lead it round in circles, which no error ends. So
 * the threads look at each other: the peer thread at raft's and the front's, raft's at the peer thread. A turn of a loop
 * takes milliseconds; one that has used processor time for half a minute comes to no end. Who waits, for a disk or
 * because the machine was stopped, uses none.
 */
#include <inttypes.h>
#include <signal.h>

#include "base/log.h"
#include "base/macros.h"
#include "cluster/cluster_int.h"
#include "cluster/raft_log.h"

enum {
	TURN_MS = 30000,
	/* The most that one look counts: the clock of a machine that was stopped may leap. */
	LOOK_MS = 1000,
};

bool watchdog_look(struct watchdog *w, const struct loop *loop, uint64_t limit_ms)
{
	struct loop_pulse now;

	if (loop == NULL || !loop_pulse(loop, &now)) {
		w->spent_ns = 0;
		w->known = false;
		return false;
	}
	if (w->known && now.turns == w->last.turns && now.cpu_ns >= w->last.cpu_ns) {
		w->spent_ns += MIN(now.cpu_ns - w->last.cpu_ns, (uint64_t)LOOK_MS * 1000000);
	} else {
		w->spent_ns = 0;
	}
	w->last = now;
	w->known = true;
	w->looks++;
	return w->spent_ns > limit_ms * 1000000;
}

static void look(struct cluster *c, struct watchdog *w, const struct loop *loop)
{
	if (!watchdog_look(w, loop, c->turn_cpu_ms)) {
		return;
	}
	if (!w->asked) {
		/* Within the store (store_guard.c) it takes this as an end of its own, with the order to rebuild it. */
		w->asked = true;
		LOG_ERROR("the thread `%s` comes to no end", loop_name(loop));
		loop_signal_thread(loop, SIGABRT);
	} else {
		cluster_fail(
			"the thread `%s` has used %" PRIu64
			" s of processor time in one step and comes to no end, as a damaged page "
			"of the store in %s/store may do; the store is checked at the next "
			"start, and rebuilt from the log if it is wrong; if this comes "
			"again: " RAFT_LOG_REMEDY,
			loop_name(loop), w->spent_ns / 1000000000, c->dir);
	}
}

void watchdog_init(struct cluster *c, uint64_t turn_cpu_ms)
{
	c->turn_cpu_ms = turn_cpu_ms != 0 ? turn_cpu_ms : TURN_MS;
}

void watchdog_peer(struct cluster *c)
{
	look(c, &c->watch_raft, c->loop);
	look(c, &c->watch_front, atomic_load(&c->front));
}

void watchdog_raft(struct cluster *c, const struct loop *peer)
{
	look(c, &c->watch_peer, peer);
}

void cluster_watch_front(struct cluster *c, struct loop *loop)
{
	atomic_store(&c->front, loop);
}
