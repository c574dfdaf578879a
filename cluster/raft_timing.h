/* When elections are held and how leadership is handed over: our rules in the place of libraft's. */
#pragma once

#include <raft.h>
#include <stdbool.h>
#include <stdint.h>

struct raft_shim;

/*
 * libraft draws one election timeout between one and two times the configured one and keeps it, so a lighthouse can be
 * slow for its whole life. Here a follower waits the configured time and TIMING_RANK_MS for each voter of a lower id
 * that might stand first; a candidate that neither won nor lost tries again after TIMING_RETRY_MS, then twice that, up
 * to the configured time, each with its rank, and begins with a pre-vote again.
 */
enum {
	TIMING_RANK_MS = 100,
	TIMING_RETRY_MS = 250,
	TIMING_RACE_MS =
		100, /* for an election that is under way when another one would be forced */
	TIMING_SILENT_PERCENT =
		30,                /* of the election timeout without a word: the leader is asked */
	TIMING_HANDOVER_MS = 3000, /* the longest hand-over; nothing is proposed meanwhile */
};

struct raft_timing {
	raft_time candidate_since; /* election_timer_start of the candidacy that was counted last */
	unsigned candidacies;      /* in a row */
	raft_term leader_term;     /* of the last leader that was heard */
	raft_id leader;            /* that one */
	bool silent;               /* to be told by timing_silent() */
	uint64_t silent_ms;        /* when it was told last */
	bool retake;               /* we led, and gave way to a candidate that cannot win */
	/* hand-over, on the leader */
	uint64_t handover_ms;    /* when it began; 0: none */
	bool now_sent;           /* `now` is what libraft sent */
	struct raft_message now; /* the TimeoutNow, to be repeated; its address is owned */
};

/* Before libraft's own tick. */
void timing_tick(struct raft_shim *s);
/* A TimeoutNow that libraft sends. */
void timing_keep(struct raft_shim *s, const struct raft_message *m);
void timing_done(struct raft_shim *s);
/* Whether a RequestVote that came in shall be looked at although libraft thinks it has a leader. */
bool timing_disrupts(struct raft_shim *s);
/*
 * How long an election that the loss of the leader of `lost_term` forces has to wait: 0, or what is left to one that is under
 * way, our own or one that has our vote. On a slow machine its answers are still coming, and a new term would void them.
 */
unsigned timing_race_wait(struct raft_shim *s, raft_term lost_term);
/*
 * Is the leader to be asked now, as nothing was heard of it for a part of the election timeout? Once per VOUCH_EVERY_MS. Any
 * time; vouch.h.
 */
bool timing_silent(struct raft_shim *s);
/*
 * The leader was asked at asked_ms and says that it leads: as good as a word of raft, but we stand no later than two election
 * timeouts after the last of those.
 */
void timing_vouched(struct raft_shim *s, raft_id id, raft_term term, uint64_t asked_ms);
/* A voter that follows us in `term` asked. */
void timing_asked(struct raft_shim *s, raft_id id, raft_term term);
/* When a peer last answered in this term; clock_mono_ms(), 0: it has not. */
uint64_t timing_acked(struct raft_shim *s, raft_id id);
/* The rank of this lighthouse among the voters but one. */
unsigned timing_rank(const struct raft *r, raft_id but);
/* The voter that would take over soonest: it answers, and holds the most; 0: none answers. */
raft_id timing_successor(struct raft_shim *s);
