/* Does a leader that is not heard still lead? What it says of itself when a voter asks over a new connection. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A follower that has not heard its leader for a third of the election timeout asks it over new connections (WhoAreYou with the
 * term it follows in), several beside each other: those of raft may wait for a retransmission of TCP that falls into each gap
 * of a link that flaps, or is lost again and again, for seconds. A leader that answers that it leads this term, and holds
 * its quorum, vouches for itself: the follower stands later (timing_vouched()). The question counts, too: who asks still
 * follows, so a leader does not give up for want of acknowledgements while a majority asks (timing_asked()).
 *
 * Neither lasts: without a word of raft itself for twice the election timeout everything goes as it would without.
 */
enum {
	VOUCH_EVERY_MS = 80,    /* between two questions */
	VOUCH_TIMEOUT_MS = 400, /* for one */
	VOUCH_AT_ONCE = 6,      /* under way */
	VOUCH_ELECTION_TIMEOUTS = 2,
};

/* One voter but the leader itself, as the leader knows it; clock_mono_ms(), 0: never in this term. */
struct vouch_voter {
	uint64_t acked_ms; /* its last answer to what raft sent */
	uint64_t asked_ms; /* its last question */
};

/*
 * Does the leader hold its quorum? A majority of the voters acknowledged or asked within the election timeout, and a
 * majority acknowledged within twice that. `v` are the others.
 */
bool vouch_holds(const struct vouch_voter *v, size_t n, uint64_t now_ms, unsigned election_ms);
