/* An entry of the log applied to the state, on any key-value store: what a replica does and nothing else. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/list.h"
#include "base/macros.h"
#include "cluster/snapshot.h"
#include "skerry/internal/v1/command.pb-c.h"
#include "tailnet/kv.h"
#include "tailnet/tailnet.h"

/* One command of an applied entry. */
struct applied_command {
	uint64_t lighthouse, incarnation, sequence; /* its origin */
	uint64_t marker;                            /* id of a DigestMarker, else 0 */
	const Skerry__Internal__V1__CommandResult *result;
};

/* What applying an entry gave. Owns its memory: applied_free(). */
struct applied {
	struct list node;
	uint64_t index;
	uint64_t epoch, revision, time_ms; /* of the state afterwards */
	uint32_t feature_level;
	uint64_t bytes; /* of the whole state */
	uint8_t digest[32];
	uint64_t marker_revision; /* with a marker in the entry: revision and digest there */
	uint8_t marker_digest[32];
	size_t n;
	struct applied_command *command;
	size_t n_changes;
	struct change *change; /* of all commands, in order */
	bool members_changed;
	/* For consensus_group.c: it is the entry that this leader waits for, with these read markers in it. */
	bool own;
	struct list markers;
	struct arena arena;
};

/* What the state says of itself; zeros without a state. */
struct state_view {
	uint64_t cluster_id, epoch, revision, time_ms, bytes;
	uint32_t feature_level;
	uint8_t digest[32];
};
MUST_CHECK int fsm_view(const struct kv *kv, struct state_view *ret, struct err *err);

/*
 * Applies entry `index` to kv. cluster_id 0: any (a new store). Negative: the entry is damaged, of another cluster or
 * epoch, or not understood (ERR_UNIMPLEMENTED), or the store failed: the process may not go on.
 */
MUST_CHECK int fsm_apply(const struct kv *kv, uint64_t cluster_id, const void *data, size_t len,
			 uint64_t index, struct applied **ret, struct err *err);
void applied_free(struct applied *a);

/* A command as the log demands it: known fields and values at every depth. For what another lighthouse forwards. */
MUST_CHECK int fsm_check_command(const void *data, size_t len, struct err *err);
/* Decodes into the arena, with the same check. */
MUST_CHECK int fsm_decode_command(const void *data, size_t len, struct arena *arena,
				  Skerry__Internal__V1__Command **ret, struct err *err);

/* The first step of one (snapshot_gather()); *ret_view is what the state says of itself. Then comes snapshot_seal(). */
MUST_CHECK int fsm_snapshot_gather(const struct kv *kv, uint64_t index, uint64_t term,
				   const struct snapshot_options *o, struct snapshot *ret,
				   struct state_view *ret_view, struct err *err);
/* A snapshot of the state in kv, as of raft index `index` of `term`; see snapshot_make(). */
MUST_CHECK int fsm_snapshot(const struct kv *kv, uint64_t index, uint64_t term,
			    const atomic_bool *cancel, struct snapshot *ret, struct err *err);
