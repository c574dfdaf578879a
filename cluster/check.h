/* Looking at the state directory of a stopped lighthouse. */
#pragma once

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
