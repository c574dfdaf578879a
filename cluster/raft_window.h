/* How much is sent to one peer that does not answer: what libraft repeats is held back. Pure. */
#pragma once

#include <raft.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

/*
 * libraft sends entries to a peer that is not known to follow ("probe") with heartbeats only, always from the first one
 * that the peer has not acknowledged. A leader that waits for that loses up to a heartbeat per write, so we let it send
 * at once (raft_shim_push, raft_shim_propose); then a peer that is gone would be sent all of that again with each write,
 * gigabytes in the seconds until its connection breaks. So until the peer answers, what it was sent is not sent again
 * within a heartbeat, and no more than WINDOW_MESSAGES go out in any case. A peer that has just answered is there: it may
 * be sent the same again a few times, for in such a message it also learns of a commit that somebody waits for.
 */
enum { WINDOW_MESSAGES = 128, WINDOW_AGAIN = 4 };

struct send_window {
	struct list node;
	raft_id id;
	raft_term term;
	raft_index sent; /* the last entry that went out since the last answer, or before */
	unsigned unanswered;
	uint64_t passed_ms; /* when the last message went out */
	uint64_t heard_ms;  /* when the last answer came; 0: none in this term */
	uint64_t
		asked_ms; /* when it last asked whether we lead, as it does not hear us; 0: not in this term */
};

/* May an AppendEntries of `term` with `n` entries after `prev` go out? Counts it when so. */
bool send_window_pass(struct send_window *w, raft_term term, raft_index prev, unsigned n,
		      uint64_t now_ms, unsigned heartbeat_ms);
/* The peer answered an AppendEntries. */
void send_window_answer(struct send_window *w, uint64_t now_ms);
