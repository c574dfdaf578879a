/* The one record format of whole states: raft's snapshots, backups, the rebuild. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"
#include "tailnet/kv.h"

struct store;
struct tailnet_scrub;

/*
 * All integers big-endian; docs/formats.md has the table.
 *   0 magic "SKRYSNAP"   8 format u32 (1)   12 feature level u32   16 cluster id u64   24 epoch u64
 *  32 revision u64   40 applied index u64   48 term u64   56 count u64   64 body length u64
 *  72 BLAKE2b-256 over the header with a zero hash, and the body
 * 104 body: count times {key length u32, value length u32, key, value}, keys rising
 */
#define SNAPSHOT_MAGIC "SKRYSNAP"
enum { SNAPSHOT_HEADER = 104, SNAPSHOT_FORMAT = 1 };

struct snapshot_header {
	uint32_t feature_level;
	uint64_t cluster_id, epoch, revision;
	uint64_t applied_index, term;
	uint64_t count, body;
};

/*
 * A snapshot in pieces, which one after the other are its bytes. Pieces point into the memory of the store that it is made
 * of, so that a state of any size costs little more than the list: it holds as long as the read transaction does, and
 * for a store in memory as long as nothing is written.
 */
struct snapshot_piece {
	const void *data;
	size_t len;
};
struct snapshot {
	struct snapshot_piece *piece;
	size_t n;
	uint64_t bytes, records;
	uint8_t *header; /* the first SNAPSHOT_HEADER bytes */
	struct snapshot_block *blocks;
	bool copied; /* nothing points into the store */
};

/*
 * In two steps, for a state that is written to meanwhile. gather walks over all records. With `copy` it takes them along:
 * the view of the state may end at once, and memory of that size is held until snapshot_done. seal computes the hash, which is
 * the larger part of the work, and needs the view only without `copy`.
 *
 * `walk` (may be NULL; begins as zeros; the same in both steps) is filled on the way: whether the digest is the sum of the records is
 * known after seal. `cancel` (may be NULL) becomes true when it is not wanted any more: ERR_CANCELLED. After an error nothing
 * is left of ret, and snapshot_done is harmless. ERR_CORRUPT: keys that make no sense (with `walk`).
 */
struct snapshot_options {
	bool copy;
	const atomic_bool *cancel;
	struct tailnet_scrub *walk;
};
MUST_CHECK int snapshot_gather(const struct kv *kv, const struct snapshot_header *h,
			       const struct snapshot_options *o, struct snapshot *ret,
			       struct err *err);
MUST_CHECK int snapshot_seal(struct snapshot *s, const struct snapshot_options *o, struct err *err);

/*
 * Both at once, without a copy, of every record of kv; h->count and h->body are set here. Reads all of it, for the hash: for a worker. The caller ends
 * ret by snapshot_done. `cancel` (may be NULL) becomes true when it is not wanted any more: ERR_CANCELLED.
 */
MUST_CHECK int snapshot_make(const struct kv *kv, const struct snapshot_header *h,
			     const atomic_bool *cancel, struct snapshot *ret, struct err *err);
void snapshot_done(struct snapshot *s);
/* Writes it to a file, from its position on. */
MUST_CHECK int snapshot_write(const struct snapshot *s, int fd, struct err *err);
/* All in one piece, for tests; mem_free(). */
uint8_t *snapshot_join(const struct snapshot *s, size_t *ret_len);

/* Checks everything, contents included. ERR_CORRUPT; ERR_UNIMPLEMENTED: the format of a newer build. */
MUST_CHECK int snapshot_open(const void *data, size_t len, struct snapshot_header *ret,
			     struct err *err);
/* Only the header's form, without the hash. */
MUST_CHECK int snapshot_peek(const void *data, size_t len, struct snapshot_header *ret,
			     struct err *err);
/* Puts every record of a snapshot that snapshot_open accepted into kv, which is empty. */
MUST_CHECK int snapshot_load(const void *data, size_t len, const struct kv *kv, struct err *err);
/*
 * The same into a store of its own that nobody uses yet, with the index that it is of, in portions. Then the state is
 * checked (tailnet_check). After an error the store is of no use. For a worker.
 */
MUST_CHECK int snapshot_fill(const void *data, size_t len, struct store *store, struct err *err);
