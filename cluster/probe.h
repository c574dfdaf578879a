/* Is the leader's process gone? The verdict over one probe's observations; pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/*
 * A connection to the leader broke. Its port is dialled anew and asked WhoAreYou; each attempt gives one
 * observation, and the verdict says what to do. Only a process that is certainly gone starts an election: a false
 * alarm costs one, a missed loss costs the election timeout.
 */
enum probe_seen {
	PROBE_REFUSED, /* nobody listens, or the connection was reset before an answer */
	PROBE_ANSWER,  /* WhoAreYou was answered */
	PROBE_TIMEOUT, /* no answer in time: the host or the network may be gone */
	PROBE_ERROR, /* anything else: another certificate, no descriptors, a name that does not resolve */
};

enum probe_verdict {
	PROBE_AGAIN,       /* try once more, after PROBE_AGAIN_MS */
	PROBE_LOST,        /* the process that led is gone: race now */
	PROBE_FALSE_ALARM, /* it lives and leads: only a link broke */
	PROBE_UNKNOWN,     /* leave it to the election timer */
};

enum {
	PROBE_AGAIN_MS = 5,
	PROBE_TIMEOUT_MS = 500, /* for one attempt */
	PROBE_RACE_MS = 5000,   /* at most one forced race against the same process in this time */
	PROBE_ATTEMPTS = 4,
};

struct probe {
	uint64_t leader, incarnation; /* as known when the link broke; incarnation 0: not known */
	uint64_t term;
	unsigned attempts, refused;
	bool alive; /* answered as the same process, and leads, once */
};

/* What an answer said. */
struct probe_answer {
	uint64_t incarnation, term;
	bool leader;
};

void probe_start(struct probe *p, uint64_t leader, uint64_t incarnation, uint64_t term);
/* `a` only with PROBE_ANSWER. */
enum probe_verdict probe_observe(struct probe *p, enum probe_seen seen,
				 const struct probe_answer *a);

/* The last forced race, and against which process. */
struct probe_race {
	uint64_t ms, incarnation; /* clock_mono_ms(), 0: none was */
};

/*
 * May a race be forced now? Marks it when so. A process that was never raced against may be at any time, however soon
 * after the one before: leaders that die one after the other cost a race each. incarnation 0: not known.
 */
bool probe_may_race(struct probe_race *last, uint64_t incarnation, uint64_t now_ms);
