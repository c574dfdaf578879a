/* Consensus: a replicated log of groups of commands over libraft, which nobody but consensus.c and raft_*.c includes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "base/macros.h"
#include "cluster/link_int.h"
#include "skerry/internal/v1/command.pb-c.h"

struct applied;
struct consensus;
struct loop;
struct store;
struct stream;

/*
 * A command on its way through the leader's log. Embedded by the caller, who keeps it until `done`, which fires exactly
 * once, on the raft thread, never inside consensus_submit(): after commit and local apply with err->code 0, the entry's
 * index and the result (borrowed), or with an error: ERR_UNAVAILABLE with reason FATE_UNKNOWN when leadership was lost
 * after the append, ERR_NOT_LEADER when it was lost before, ERR_DEADLINE when deadline_ms passed before the append.
 */
struct consensus_command {
	struct list node;
	const void *data; /* packed Command, borrowed until done; NULL: a read marker */
	size_t len;
	uint64_t deadline_ms; /* clock_mono_ms(); 0: none */
	uint64_t term;        /* set before done: of which we lead, 0: we do not any more */
	void (*done)(struct consensus_command *cmd, const struct err *err, uint64_t index,
		     const Skerry__Internal__V1__CommandResult *r);
};

/* What consensus tells; all on the raft thread, outside of libraft's calls. */
struct consensus_events {
	/* Leader, term, role or configuration changed. */
	void (*state)(void *arg);
	/* An entry was applied and is in the store (committed); before the `done` of its commands. Borrows a. */
	void (*applied)(void *arg, const struct applied *a);
	/* A snapshot replaced the state. */
	void (*restored)(void *arg);
	/* Does somebody here wait for an entry or a revision that was not told of yet? */
	bool (*awaited)(void *arg);
	/* Messages need a link to this server: consensus_connected() answers. */
	void (*connect)(void *arg, uint64_t request, uint64_t id, const char *address);
	/* The leader is not heard: see peer_ops.silent. May be NULL. */
	void (*silent)(void *arg);
	/* A link of that name has ended, by the member or here; not one that was cut. */
	void (*ended)(void *arg, uint64_t way, bool remote);
};

struct consensus_options {
	struct loop *loop;
	const char *dir; /* libraft's own, exists */
	uint64_t id;
	const char *address;
	struct store *store; /* borrowed; written by consensus alone */
	uint64_t cluster_id;
	unsigned election_ms, heartbeat_ms; /* 0: 1000, 100 */
	uint64_t snapshot_bytes;            /* 0: 16 MiB */
	uint64_t apply_turn_ns;             /* 0: 20 ms */
	const struct consensus_events *events;
	void *arg;
};

/* Writes the first configuration (this server alone, a voter) into an empty dir. ERR_EXISTS when it holds a log. */
MUST_CHECK int consensus_bootstrap(const char *dir, uint64_t id, const char *address,
				   struct err *err);

/* Loads the log and starts. Raft thread, or before it runs. ERR_CORRUPT names file and remedy. */
MUST_CHECK int consensus_open(struct consensus **ret, const struct consensus_options *o,
			      struct err *err);

/* Ends: pending commands are done with ERR_CLOSED; cb fires on the loop when all is freed. */
void consensus_close(struct consensus *cs, void (*cb)(void *arg), void *arg);

/* Queues for the next group. Only while consensus_leads(); otherwise `done` says ERR_NOT_LEADER in a later turn. */
void consensus_submit(struct consensus *cs, struct consensus_command *cmd);

/*
 * The leader of `term` has committed the entry `index`, which somebody here waits for: not left to the next heartbeat, if
 * it still is our leader's term. From a callback of the loop, never inside one of consensus.
 */
void consensus_committed(struct consensus *cs, uint64_t term, uint64_t index);

bool consensus_leads(const struct consensus *cs);
uint64_t consensus_leader(const struct consensus *cs); /* 0: none known */
uint64_t consensus_term(const struct consensus *cs);
/* When a leader was last heard of (or led with quorum); clock_mono_ms(), 0: never. */
uint64_t consensus_heard_ms(const struct consensus *cs);
void consensus_state(const struct consensus *cs, struct link_state *ret);
/* Index of the last entry whose effect is committed to the store. */
uint64_t consensus_applied(const struct consensus *cs);
/* Bytes of the state and parts of a thousand of the store's map, as the leader judges proposals by. */
uint64_t consensus_state_bytes(const struct consensus *cs);
/* Feature level of the state as far as it was applied here; 0: there is no state yet. */
uint32_t consensus_feature_level(const struct consensus *cs);
unsigned consensus_map_permille(const struct consensus *cs);

struct consensus_stats {
	uint64_t groups, commands, markers; /* proposed here */
	uint64_t snapshots, restores;
	uint64_t races; /* forced elections */
	uint64_t votes_repeated, installs_dropped, messages_dropped;
	/* gauges */
	const char
		*role;   /* "leader", "follower", "candidate", "standby", "spare", "none"; static */
	uint64_t queued; /* commands that wait for the next group */
	uint64_t log_bytes;      /* since the newest snapshot */
	uint64_t snapshot_bytes; /* of the newest one; 0: none */
	int64_t snapshot_wall_ms;
};
void consensus_stats(const struct consensus *cs, struct consensus_stats *ret);
/* The 99th percentile in microseconds of the appends of the last minutes, *ret_n of them. */
uint64_t consensus_append_open_ms(const struct consensus *cs); /* of the oldest one; 0: none */
/* A snapshot is made at the next entry. */
void consensus_snapshot_now(struct consensus *cs);
uint64_t consensus_append_p99_us(const struct consensus *cs, size_t *ret_n);

/* The events of link_int.h, on the raft thread. */
void consensus_leader_lost(struct consensus *cs, uint64_t id);
void consensus_leader_vouched(struct consensus *cs, uint64_t id, uint64_t term, uint64_t asked_ms);
void consensus_leader_asked(struct consensus *cs, uint64_t id, uint64_t term);
void consensus_clocks_agree(struct consensus *cs, bool agree, int64_t skew_ms);
/* `way` is the peer side's name of the stream, which is taken; 0: none. NULL: there is no connection. */
void consensus_connected(struct consensus *cs, uint64_t request, uint64_t way,
			 struct stream *stream);
void consensus_accepted(struct consensus *cs, uint64_t id, const char *address, uint64_t way,
			struct stream *stream);
void consensus_cut(struct consensus *cs, uint64_t way);
/* Links that TCP is stuck on are ended and dialled anew. From the loop, now and then. */
void consensus_links_renew(struct consensus *cs);

enum consensus_change {
	CONSENSUS_ADD,
	CONSENSUS_PROMOTE,
	CONSENSUS_DEMOTE,
	CONSENSUS_REMOVE,
	CONSENSUS_TRANSFER
};
/* As link_add and the others; cb on the raft thread, never inside the call. */
void consensus_change(struct consensus *cs, enum consensus_change kind, uint64_t id,
		      const char *address, link_change_cb cb, void *arg);
