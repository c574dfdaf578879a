/* The domain: (state, command) -> changes. Pure: no I/O, no clock, no randomness, equal on every replica. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/macros.h"
#include "skerry/internal/v1/command.pb-c.h"
#include "skerry/internal/v1/state.pb-c.h"
#include "tailnet/kv.h"

/*
 * The feature levels that this build reads; it writes the one in the state. SKERRY_TEST_LEVEL_MAX makes a build that stands
 * for an older one: it does not know what came with the levels above (tests of upgrades alone).
 *
 *   1  the first
 *   2  rotation of the CA and of cluster.key, changes of members that are resumed, backups in the audit chain
 */
#ifndef SKERRY_TEST_LEVEL_MAX
#define SKERRY_TEST_LEVEL_MAX 2
#endif
enum { FEATURE_LEVEL_MIN = 1, FEATURE_LEVEL_MAX = SKERRY_TEST_LEVEL_MAX };

/* The refusal of what needs `level` in a cluster that is at `now`, with the remedy: ERR_FEATURE_LEVEL. */
int feature_level_needed(uint32_t level, uint32_t now, struct err *err);
/* 0 when this build knows `level`; else ERR_FEATURE_LEVEL, with the remedy. `what`: "the snapshot has". */
MUST_CHECK int feature_level_known(uint32_t level, const char *what, struct err *err);

/*
 * A budget for the arena of an apply that always suffices: the reply and the list of changes go there. With less
 * an apply may fail like a store that fails.
 */
enum { TAILNET_ARENA_BYTES = 64 << 20 };

/* What an entry of the change index is about. Part of the stored format: never renumbered. */
enum change_kind {
	CHANGE_NODE = 1,      /* the body of a node that peers see */
	CHANGE_ENDPOINTS = 2, /* endpoints, home relay, disco key */
	CHANGE_PRESENCE = 3,
	CHANGE_USER = 4,
	CHANGE_TAILNET = 5, /* DNS, prefixes, settings */
	CHANGE_AUTH_KEY = 6,
	CHANGE_API_KEY = 7,
	CHANGE_PENDING = 8,
	CHANGE_MEMBER = 9, /* tailnet 0 */
	CHANGE_SYSTEM = 10,
};

struct change {
	uint64_t tailnet, object, revision;
	uint32_t kind;
	bool deleted;
	bool visibility;
};

struct apply_context {
	uint64_t time_ms;    /* the leader's stamp of the group */
	uint64_t raft_index; /* of the entry */
	bool offline;        /* not from a log: EpochBegin is taken from here alone */
	/*
	 * Only the verdict is wanted: nothing is written, the reply has code, reason, field and message, and no changes.
	 * All is checked before the first put, so that the rest need not be done.
	 */
	bool judge_only;
	bool known; /* decoded with PB_STRICT_KNOWN: no field or value in it is unknown */
	bool leader_gap; /* there was no leader before this group: presence and ephemeral deadlines start anew */
};

/* What apply says. Strings and changes live in the arena of the call. */
struct apply_result {
	Skerry__Internal__V1__CommandResult reply;
	struct change *changes;
	size_t n_changes;
};

/*
 * Applies one command: checks everything before its first put. Returns 0 with a deterministic reply (a refusal
 * is one: reply.code != 0, nothing changed but what deduplication keeps), or a negative code when the store
 * failed or the command is not understood (ERR_UNIMPLEMENTED: unknown command, field or enum value): the
 * caller ends the process then. The one writer of the state.
 */
MUST_CHECK int tailnet_apply(const struct kv *kv, const Skerry__Internal__V1__Command *cmd,
			     const struct apply_context *ctx, struct arena *arena,
			     struct apply_result *ret, struct err *err);

/*
 * Commands that are applied one after the other to the same state, those of a log entry: what most of them touch (Meta, counters
 * of tailnets, what the lighthouses have the answers of) is read once, and written once, by the flush. Between two flushes
 * nobody else may write to `kv`, which is borrowed, and who reads it does not see all. The commands must stay in memory
 * until then. Of one thread.
 */
struct tailnet_batch;
struct tailnet_batch *tailnet_batch_new(const struct kv *kv);
/* What was not flushed is lost. */
void tailnet_batch_free(struct tailnet_batch *b);
/* As tailnet_apply(). After a failure the batch is only good for freeing; with judge_only it is for this one command. */
MUST_CHECK int tailnet_batch_apply(struct tailnet_batch *b,
				   const Skerry__Internal__V1__Command *cmd,
				   const struct apply_context *ctx, struct arena *arena,
				   struct apply_result *ret, struct err *err);
/* Writes what is outstanding; the batch may go on. Negative: the store failed. */
MUST_CHECK int tailnet_batch_flush(struct tailnet_batch *b, struct err *err);
/* What the last flush wrote, or found; NULL: the state has none, or no command came yet. Until the next command. */
const Skerry__Internal__V1__Meta *tailnet_batch_meta(const struct tailnet_batch *b);

/*
 * Whether this version understands all of a command: ERR_UNIMPLEMENTED for an unknown body, or an unknown field or
 * enum value at any depth, with the place in `err`. tailnet_apply() ends the process of every lighthouse on such a
 * command: ask before proposing, and strip unknown fields from what came from a device.
 */
MUST_CHECK int tailnet_command_known(const Skerry__Internal__V1__Command *cmd, struct err *err);

/*
 * The feature level that a command needs: of its kind, and of the fields that are set in it. In a state below it apply
 * refuses it (CODE_PRECONDITION, FEATURE_LEVEL); it must not get into a log that builds of a lower level read at all.
 */
uint32_t tailnet_command_level(const Skerry__Internal__V1__Command *cmd);

/*
 * State time of the first deadline that a Tick would act on; 0: none. One Tick does a bounded portion: propose the
 * next one at once while this is not in the future.
 */
MUST_CHECK int tailnet_next_deadline(const struct kv *kv, uint64_t *ret_ms);

/* Verifies the global invariants (addresses unique, every node's user exists, counters, digest, indexes). */
MUST_CHECK int tailnet_check(const struct kv *kv, struct err *err);

/*
 * The same in portions: at most max_records records (or tailnets, at the end) a step, of one view of the state, which `kv`
 * (borrowed until tailnet_check_free) keeps. *ret_done: all is right. ERR_CORRUPT: it is not; any other error: of the store.
 */
struct tailnet_check *tailnet_check_new(const struct kv *kv);
MUST_CHECK int tailnet_check_step(struct tailnet_check *c, size_t max_records, bool *ret_done,
				  struct err *err);
/* Of those that count in the digest, so far. */
uint64_t tailnet_check_records(const struct tailnet_check *c);
void tailnet_check_free(struct tailnet_check *c); /* NULL ok */

/* A walk over the records that computes the digest anew, in portions. Begins as zeros. */
struct tailnet_scrub {
	uint8_t sum[32];
	uint8_t at[400]; /* the last key */
	size_t at_len;
	uint64_t records; /* of what counts in the digest */
};

/*
 * Goes on for at most max_records records (at least one) of the same view of the state; at the end (*ret_done) compares with
 * what the state says of itself. ERR_CORRUPT: they differ, or the keys make no sense. Any other error: of the store.
 */
MUST_CHECK int tailnet_scrub_step(const struct kv *kv, struct tailnet_scrub *s, size_t max_records,
				  bool *ret_done, struct err *err);
/*
 * The same for who walks himself: each record, in order; then what the state says of itself is compared. ERR_CORRUPT.
 * Any thread, no view is needed.
 */
MUST_CHECK int tailnet_scrub_record(struct tailnet_scrub *s, struct slice key, struct slice value,
				    struct err *err);
MUST_CHECK int tailnet_scrub_compare(const struct tailnet_scrub *s, const uint8_t digest[32],
				     struct err *err);
