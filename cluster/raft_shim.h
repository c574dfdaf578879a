/* Between libraft and its I/O: every failed write ends the process, lost votes are repeated, one snapshot per peer. */
#pragma once

#include <raft.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "cluster/raft_metrics.h"
#include "cluster/raft_timing.h"
#include "cluster/raft_told.h"
#include "cluster/raft_window.h"

#if !defined RAFT_VERSION_NUMBER || RAFT_VERSION_NUMBER < 2201
#error "libraft 0.22.1 or newer is needed: from Debian bookworm-backports or Debian 13"
#endif

/*
 * libraft 0.22.1 as packaged swallows errors of its storage (assertions are compiled out). The shim replaces the
 * functions of a raft_io by its own, which call the original ones:
 *   - set_term, set_vote, append, truncate, snapshot_put that fail: cluster_fail(), at once or from the callback
 *   - an append that stays open for 5 s: leadership is handed over, one second later cluster_fail()
 *   - RequestVote is repeated every 20 ms while we are candidate in the same term and phase; its result up to three times
 *     when it could not be sent
 *   - messages go and come by raft_net.h
 *   - one InstallSnapshot per peer at a time, over a connection of its own (raft_install.h); until the peer has it, or a
 *     deadline, what it rejects is no reason for another one
 *   - an InstallSnapshot that comes in is prepared by `receive` before libraft sees it; none is taken in while another one
 *     or an own snapshot is being written
 *   - an own snapshot is filled by `prepare` before it is written
 *   - an entry whose length is no multiple of 8 is dropped with its message
 *   - a RequestVote is marked as disrupting when our leader is marked lost, led an earlier term than ours, or was silent
 *     for the election timeout; election timeouts and hand-overs go by raft_timing.h
 *   - a RequestVote that came a moment before the leader is marked lost is looked at once more then
 *   - a follower sends every other voter a greeting twice a second, so that the links which an election needs are there
 *   - AppendEntries to a peer that does not answer are held back as raft_window.h says
 *   - a follower that an answer told of a commit takes it for known, see raft_told.h
 * It uses container_of from the raft_io that libraft hands to each function: `io` must be the one of the shim.
 */
struct raft_shim {
	struct raft_io io;    /* given to raft_init; filled by the back end (raft_uv_init) first */
	struct raft_io inner; /* the functions of the back end */
	struct raft *raft;
	unsigned tick_ms, heartbeat_ms;
	raft_io_tick_cb tick;
	raft_io_recv_cb recv;
	struct list appends;  /* struct shim_append, oldest first */
	struct list votes;    /* struct shim_send kept for repetition */
	struct list installs; /* struct shim_install: a snapshot on its way, or being taken in */
	struct shim_put *put; /* waits for raft_shim_prepared() */
	struct list gets;     /* struct shim_get: to be answered */
	raft_io_close_cb close_cb; /* of a close that waits for raft_shim_prepared() */
	/* Set by the user after raft_shim_install(). `prepare` and `receive` may be NULL. */
	struct raft_net *net; /* sends and receives in place of the back end; NULL: that does */
	/* An own snapshot without content is to be stored: fill it and call raft_shim_prepared(). 0 or a code of libraft. */
	int (*prepare)(void *arg);
	/* True: the message is taken, and raft_shim_received() gets it later, or it is freed. */
	bool (*receive)(void *arg, const struct raft_message *m);
	void *arg;            /* of both */
	struct list answered; /* struct shim_answer: callbacks that are due */
	struct list windows;  /* struct send_window, one per peer */
	struct raft_timing timing;
	struct raft_told told;
	uint64_t last_repeat_ms, last_greeting_ms;
	uint64_t handover_ms; /* when leadership was given away because of a stuck append */
	bool putting;         /* a snapshot is being written */
	bool receiving;       /* `receive` has one */
	bool closing;
	raft_id lost_leader; /* its process is known to be gone */
	struct raft_message
		early; /* the last RequestVote that was refused for the leader's sake; its address is owned */
	uint64_t early_ms; /* when it came; 0: there is none */
	uint64_t heard_ms; /* last AppendEntries or InstallSnapshot of the leader; clock_mono_ms */
	struct raft_transfer transfer;
	struct append_times append_times;
	/* counters */
	uint64_t votes_repeated, installs_dropped, messages_dropped, messages_held;
};

enum {
	SHIM_APPEND_STUCK_MS = 5000,
	SHIM_HANDOVER_MS = 1000,
	SHIM_VOTE_REPEAT_MS = 20,
	SHIM_GREETING_MS = 500,
	SHIM_EARLY_MS = 200, /* a candidate that is older has asked again, or given up */
	/* How long a peer may take with a snapshot that it has received: this, and a second per so many bytes. */
	SHIM_INSTALL_MS = 5000,
	SHIM_INSTALL_BYTES = 20 << 20
};

/* After the back end's init, before raft_init. The fields are zero but for `io`. */
void raft_shim_install(struct raft_shim *s, struct raft *raft, unsigned tick_ms);
/* Calls what is due (completed sends). From the loop's prepare and check. */
void raft_shim_flush(struct raft_shim *s);
/* The leader's process is gone: RequestVotes disrupt it, that of a moment ago too, until a leader is heard. */
void raft_shim_leader_lost(struct raft_shim *s, raft_id id);
/* Starts an election now, if we are follower or a candidate that has not won. */
void raft_shim_force_election(struct raft_shim *s);
/*
 * Sends AppendEntries to every peer now, if we lead: libraft tells followers of a commit, and sends the first entries
 * of a term, only with the next heartbeat otherwise. Not from within libraft's calls.
 */
void raft_shim_push(struct raft_shim *s);
/* raft_apply() of one entry that goes out to every peer at once, also to those that libraft would let wait. */
int raft_shim_propose(struct raft_shim *s, struct raft_apply *req, const struct raft_buffer *buf,
		      raft_apply_cb cb);
/* The window of a peer, made when there is none yet. */
struct send_window *raft_shim_window(struct raft_shim *s, raft_id id);
/* Sends a message without entries, now and once; lost when there is no connection. 0 or a code of libraft. */
int raft_shim_repeat(struct raft_shim *s, const struct raft_message *m);
/* The content of the snapshot that `prepare` was asked for; 0 or RAFT_CANCELED. The bufs are `finalize`d by libraft. */
void raft_shim_prepared(struct raft_shim *s, int status, struct raft_buffer *bufs, unsigned n);
/* Hands libraft a message that `receive` had taken, contents included; NULL: it was of no use and is freed. */
void raft_shim_received(struct raft_shim *s, struct raft_message *m);
/* How long the oldest append has been under way; 0: there is none. */
uint64_t raft_shim_append_open_ms(const struct raft_shim *s);
/* After raft's close callback: frees what is left. */
void raft_shim_done(struct raft_shim *s);
