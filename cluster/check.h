/* Looking at the state directory of a stopped lighthouse. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "base/macros.h"

struct cluster_check_facts {
	uint64_t cluster_id, lighthouse_id;
	uint64_t first_index, last_index; /* of the log */
	uint64_t applied_index, revision, records;
	uint8_t digest[32];
};

/*
 * Reads the whole log and the store, verifies checksums, invariants and the digest; changes nothing. ERR_EXISTS when
 * the daemon runs; ERR_CORRUPT names the file and the remedy; ERR_PRECONDITION: not initialised.
 */
MUST_CHECK int cluster_check_dir(const char *dir, struct cluster_check_facts *ret, struct err *err);

/* Prints an entry of the log as text: header and each command. ERR_NOT_FOUND names the entries that exist. */
MUST_CHECK int cluster_dump_entry(const char *dir, uint64_t index, FILE *out, struct err *err);

struct cluster_replay_facts {
	bool has_snapshot;
	uint64_t snapshot_index; /* where it began; 0: at the first entry */
	uint64_t last_index;     /* the last entry that is in it */
	uint64_t epoch, revision;
	uint8_t digest[32];
	bool comparable; /* the store holds the state as of last_index; its digest is equal */
	uint64_t store_index;
	uint8_t store_digest[32];
};

/*
 * Turns snapshot and log into a state in memory, up to the entry that the store has, and compares the digests; changes
 * nothing. ERR_CORRUPT when they differ; else as cluster_check_dir.
 */
MUST_CHECK int cluster_replay(const char *dir, struct cluster_replay_facts *ret, struct err *err);
