/* Inside of consensus: one struct, three files (life, groups, changes). */
#pragma once

#include <raft.h>
#include <raft/uv.h>

#include "cluster/consensus.h"
#include "cluster/fsm.h"
#include "cluster/group_wait.h"
#include "cluster/raft_net.h"
#include "cluster/raft_shim.h"
#include "cluster/raft_transport.h"
#include "cluster/store.h"
#include "net/loop.h"

enum {
	GROUP_COMMANDS = 1024,
	RACE_RANK_MS = 50,
	RACE_AGAIN_MS =
		TIMING_RACE_MS, /* a vote that was split is repeated, not left to the timers */
	RACE_TRIES = 4,
	RACE_PAUSE_MS = 5000,
	STAMP_STEP_MS = 10000,
	SNAPSHOT_TRAILING = 2048,
	TICK_MS = 20,
	/* How long a commit, and what was applied, may wait where nobody waits for it. */
	LAZY_MS = 4,
	LAZY_ENTRIES = 64,
};
#define SNAPSHOT_BYTES (16ull << 20)

/* The entry of ours that is on its way; one at a time. */
struct group {
	struct raft_apply req;
	bool flying;
	uint64_t since_ns; /* when it was proposed */
	uint64_t index;
	size_t count;         /* of commands */
	uint8_t checksum[16]; /* tells it from another leader's entry of the same index */
	struct list commands, markers;
};

struct change_request {
	struct list node;
	struct consensus *cs;
	enum consensus_change kind;
	uint64_t id;
	char *address;
	link_change_cb cb;
	void *arg;
	struct err err;
	struct raft_change change;
	struct raft_transfer transfer;
	bool assigning; /* second step of ADD */
};

struct consensus {
	struct loop *loop;
	char *dir; /* of the log */
	struct store *store;
	uint64_t cluster_id, id;
	uint64_t snapshot_bytes;
	const struct consensus_events *events;
	void *arg;

	struct raft raft;
	struct raft_fsm fsm;
	struct raft_shim shim;
	struct raft_net net;
	struct raft_transport transport;
	uv_check_t commit; /* started after raft_start: runs before libraft's own */
	uv_check_t pump;   /* started before it: runs after */
	uv_prepare_t before_poll;
	unsigned open_handles;
	int open_code; /* why the snapshot is refused at the start, where libraft's code would say too little */
	bool started, closing, raft_closed;
	void (*close_cb)(void *arg);
	void *close_arg;
	struct flush_hook
		wake; /* makes the loop turn when something was queued outside of its callbacks */

	/* groups */
	struct list queue;   /* commands that wait */
	struct list markers; /* read markers that wait */
	struct list refused; /* to be told ERR_NOT_LEADER in the next turn */
	struct group group;
	size_t queued; /* in queue and markers */
	struct group_wait wait;
	bool ended; /* a group has: whether the next one waits is to be judged */
	struct loop_timer wait_timer;
	struct list backlog;    /* committed entries that wait to be applied, see group_apply() */
	uint64_t apply_ns;      /* spent on applying in this turn */
	uint64_t apply_turn_ns; /* what a turn may spend */
	uv_idle_t drain;        /* runs while there is a backlog */
	struct list applied;    /* struct applied, not yet in a committed transaction */
	struct list done_commands; /* commands of applied entries of ours, in the same order */
	struct state_view view;    /* of the last applied entry */
	uint64_t view_index;       /* committed to the store */
	uint64_t stamp_mono_ms;    /* when the last entry was applied */
	uint64_t ready_index;      /* leader: proposes nothing before this is applied */
	uint64_t pushed_commit, pushed_index; /* what followers were told of, see group_push() */
	struct loop_timer push;               /* leader: the commit goes to all by itself */
	struct loop_timer settle; /* follower: what was applied is committed to the store */
	unsigned unsettled;       /* entries of the open transaction */
	bool settle_due;
	bool first_group;                    /* leader: the next group carries the gap flag */
	uint64_t pace_time_ms, pace_mono_ms; /* leader: where state time runs on from; 0: not yet */
	bool clocks_agree;
	int64_t agreed_skew_ms; /* clock_skew_ms() that was judged so */
	bool restored;

	/* snapshots */
	uint64_t log_bytes;          /* since the last one */
	struct making *making;       /* an own one, from `take` to `finalize` */
	struct receiving *receiving; /* one that came in, while a worker has it */
	struct store *fresh;         /* what the worker made of it, until it is restored */
	bool wanted;         /* one is to be made at the next entry, however short the log is */
	uint64_t made_bytes; /* of the newest snapshot, made here or installed; 0: none */
	int64_t made_wall_ms;
	uint64_t no_room_ms; /* when the disk was found too full for one */

	/* turns of the loop */
	uint64_t turn_ns, turn_idle_ns, turn_cpu_ns, turn_max_ns, turn_max_cpu_ns;
	uint64_t turn_asked_ns, turn_short_ns; /* when turn_cpu_ns was, and the short turns since */

	/* state as last told */
	bool stepped;
	unsigned short told_state;
	unsigned short seen_state;
	uint64_t told_term, told_leader, told_conf, told_uncommitted;
	uint64_t leader_since_ms;
	struct loop_timer race;
	uint64_t race_ms;
	unsigned race_rank, race_tries;
	uint64_t raced_term; /* in which race_ms was */

	struct change_request *change; /* the one that runs */
	struct consensus_stats stats;
};

/* consensus_group.c */
int group_apply(struct consensus *cs, const void *data, size_t len, uint64_t index);
bool group_held(const struct consensus *cs);
bool group_lazy(struct consensus *cs);
void group_drain(struct consensus *cs);        /* a turn's share of what waits to be applied */
void group_drop_waiting(struct consensus *cs); /* the log, or a snapshot, gives it again */
void group_commit(struct consensus *cs);
/* The last commit before the end: without what group_held() holds, which the log gives again. */
void group_end(struct consensus *cs);
void group_pump(struct consensus *cs);
void group_push(struct consensus *cs);
void group_leadership(struct consensus *cs, bool leads);
void group_fail_all(struct consensus *cs, int code, const char *text);
void group_checksum(const void *entry, uint8_t out[16]);

/* consensus_snapshot.c: operations of the state machine and of the shim; see there */
int snapshot_op_take(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs);
int snapshot_op_finalize(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs);
int snapshot_op_restore(struct raft_fsm *fsm, struct raft_buffer *buf);
int snapshot_prepare(void *arg);
bool snapshot_receive(void *arg, const struct raft_message *m);
void snapshot_judge(struct consensus *cs);  /* is it time for one? */
void snapshot_cancel(struct consensus *cs); /* the one that is being made is not wanted */
void snapshot_forget(struct consensus *cs); /* what was made of one that came in */

/* consensus.c */
void snapshot_closed(
	struct consensus *cs); /* goes on with the end, unless a worker is at something */
int consensus_error(struct err *err, int rv, const char *what, const char *detail);
