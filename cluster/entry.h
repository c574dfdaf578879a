/* One entry of the log: a header and the group of commands that were committed together. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"

/*
 * All integers big-endian; docs/formats.md has the table. The length is a multiple of 8 (libraft's rule), zero padded.
 *   0 magic "SKE1"   4 format u16 (1)   6 flags u16   8 feature level u32   12 count u32
 *  16 cluster id u64   24 epoch u64   32 time u64 (ms since 1970)   40 body length u32   44 zero u32
 *  48 checksum: first 16 bytes of BLAKE2b-256 over the header with a zero checksum, and the body
 *  64 body: count times {length u32, packed Command}
 */
enum {
	ENTRY_HEADER = 64,
	ENTRY_FORMAT = 1,
	ENTRY_COMMAND_HEADER = 4,
};

enum entry_flags {
	ENTRY_LEADER_GAP = 1, /* the first group of a new leader */
};
#define ENTRY_FLAGS_KNOWN 1u

struct entry_header {
	uint16_t flags;
	uint32_t feature_level;
	uint32_t count;
	uint64_t cluster_id;
	uint64_t epoch; /* 0: there is no state yet (bootstrap) */
	uint64_t time_ms;
};

/* Bytes of an entry with `count` commands of together `bytes`. */
size_t entry_size(size_t count, size_t bytes);

/* Writes into memory of entry_size(): header first, commands one by one, then the seal (padding and checksum). */
struct entry_writer {
	uint8_t *data;
	size_t size, pos;
	uint32_t count;
};
void entry_begin(struct entry_writer *w, void *data, size_t size);
void entry_add(struct entry_writer *w, const void *command, size_t len);
/* h->count is ignored: it is what was added. The size must be met exactly. */
void entry_seal(struct entry_writer *w, const struct entry_header *h);

/* Reads one; borrows data. ERR_CORRUPT: cut or changed; ERR_UNIMPLEMENTED: a format or flag of a newer build. */
struct entry_reader {
	struct entry_header header;
	const uint8_t *pos, *end;
	uint32_t left;
};
MUST_CHECK int entry_open(struct entry_reader *r, const void *data, size_t len, struct err *err);
/* The next command (borrowed), or false at the end. entry_open has checked all lengths. */
bool entry_next(struct entry_reader *r, const uint8_t **ret_command, size_t *ret_len);
