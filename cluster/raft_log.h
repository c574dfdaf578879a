/* The log of a stopped lighthouse: read as a whole, and begun anew from a snapshot. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"
#include "cluster/snapshot.h"
#include "tailnet/kv.h"

#define RAFT_LOG_REMEDY                                                                         \
	"if the other lighthouses are well, remove this one from the cluster (`skerry cluster " \
	"remove`) and join it "                                                                 \
	"anew with an empty directory"

struct raft_log;

enum raft_log_type { RAFT_LOG_COMMAND = 1, RAFT_LOG_BARRIER, RAFT_LOG_CONFIGURATION };

struct raft_log_entry {
	uint64_t term;
	unsigned type; /* enum raft_log_type */
	const void *data;
	size_t len;
};

/*
 * Reads <dir>/raft by libraft's own loader, from a copy beside it, so that nothing is changed. The caller holds the
 * directory's lock. ERR_CORRUPT names the remedy. Blocks.
 */
MUST_CHECK int raft_log_load(const char *dir, struct raft_log **ret, struct err *err);
void raft_log_free(struct raft_log *log);

/* Entries that are there; none: last < first, and last is the snapshot's index. */
uint64_t raft_log_first(const struct raft_log *log);
uint64_t raft_log_last(const struct raft_log *log);
/* The current term, which no entry exceeds. */
uint64_t raft_log_term(const struct raft_log *log);
/* False: there is no such entry. Borrowed from the log. */
bool raft_log_get(const struct raft_log *log, uint64_t index, struct raft_log_entry *ret);
/* False: there is none. Borrowed from the log. */
bool raft_log_snapshot(const struct raft_log *log, const void **ret, size_t *ret_len,
		       uint64_t *ret_index);

/*
 * What the log makes of an empty store: its snapshot and each entry up to `until`. *ret_index is the last one that is in
 * it. ERR_CORRUPT, ERR_UNIMPLEMENTED as a start would say.
 */
MUST_CHECK int raft_log_replay(const struct raft_log *log, uint64_t cluster_id, uint64_t until,
			       const struct kv *kv, uint64_t *ret_index, struct err *err);

/*
 * Begins a log in `raft_dir` (exists, empty): a snapshot as of entry `index` in `term`, and a configuration in which this
 * server is alone. ERR_EXISTS when there is a log. Blocks.
 */
MUST_CHECK int raft_log_begin(const char *raft_dir, uint64_t id, const char *address,
			      uint64_t index, uint64_t term, const struct snapshot *snapshot,
			      struct err *err);
