/* Backups: the whole state at one revision in a file, made while the cluster runs. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"
#include "cluster/snapshot.h"

struct buf;
struct cluster;
struct loop;

/*
 * The file: a header, then a snapshot (cluster/snapshot.h) to the end. All integers big-endian; docs/formats.md has the
 * table.
 *   0 magic "SKRYBKUP"   8 format u32 (1)   12 zero u32   16 time of the lighthouse's clock, unix ms, u64
 *  24 lighthouse id u64   32 length of the snapshot u64   40 digest of the state (32)
 *  72 BLAKE2b-256 over the header up to here, and the hash in the snapshot's header, which covers the rest
 */
enum { BACKUP_HEADER = 104, BACKUP_FORMAT = 1 };

struct backup_header {
	uint64_t time_ms, lighthouse_id;
	uint64_t length; /* of the snapshot */
	uint8_t digest[32];
};

/* Writes the header that belongs before this snapshot, of which the first SNAPSHOT_HEADER bytes are given. */
void backup_header_put(const struct backup_header *h, const void *snapshot,
		       uint8_t out[BACKUP_HEADER]);

/*
 * Checks a whole file, contents included. ERR_CORRUPT: it is none, was cut or changed; ERR_UNIMPLEMENTED: of a newer
 * build. The snapshot stands at data + BACKUP_HEADER.
 */
MUST_CHECK int backup_open(const void *data, size_t len, struct backup_header *ret,
			   struct snapshot_header *ret_snapshot, struct err *err);

/* ---- making one ---- */

struct backup;

/* err->code 0: b is the callee's (backup_free). Fires exactly once on `loop`, also after the cluster was closed. */
typedef void (*backup_cb)(void *arg, const struct err *err, struct backup *b);

/*
 * Takes the state as this lighthouse has applied it, on a worker, in the one read transaction that may outlive a turn of
 * the loop ("backup" in the metrics). The result is in a file without a name below the state directory, or in memory when
 * that is nearly full: one at a time is the caller's business.
 */
MUST_CHECK int cluster_backup(struct cluster *c, struct loop *loop, backup_cb cb, void *arg,
			      struct err *err);
void backup_free(struct backup *b);

struct backup_facts {
	uint64_t time_ms, lighthouse_id;
	uint64_t cluster_id, epoch, revision;
	uint32_t feature_level;
	uint64_t records, bytes; /* bytes of the file */
	uint64_t members, tailnets, users, nodes;
	uint8_t digest[32];
};
void backup_facts(const struct backup *b, struct backup_facts *ret); /* without counts of objects */
/* Copies up to `len` bytes of the file from `at`; 0 at its end, or when the disk cannot read it. */
size_t backup_read(const struct backup *b, uint64_t at, void *out, size_t len);

/* ---- using one; blocking, with nothing else open ---- */

/*
 * Checks the file, restores it into a scratch directory below `tmp` (removed again), and compares digest and invariants.
 * cluster_key may be NULL; else it must open the sealed secrets (ERR_DENIED).
 */
MUST_CHECK int cluster_backup_verify(const char *file, const char *tmp, const uint8_t *cluster_key,
				     struct backup_facts *ret, struct err *err);

struct cluster_restore_options {
	const char *file;
	const char *dir;            /* missing, or without a lighthouse */
	const uint8_t *cluster_key; /* 32 bytes */
	const char *name, *peer_address, *api_url, *version;
};

struct cluster_restore_facts {
	struct backup_facts backup;
	uint64_t lighthouse_id, epoch;
};

/*
 * Makes `dir` a lighthouse that is alone in a new epoch of the backup's cluster: same cluster id, CA and tailnets, its
 * own new id and keys, revisions 2^32 past the backup's, every earlier lighthouse removed. Checks everything first;
 * ERR_EXISTS (the directory is in use), ERR_CORRUPT (the file), ERR_DENIED (the key): nothing was touched.
 */
MUST_CHECK int cluster_restore(const struct cluster_restore_options *o,
			       struct cluster_restore_facts *ret, struct err *err);

struct cluster_recover_facts {
	uint64_t lighthouse_id, epoch, revision, last_index;
	size_t removed; /* lighthouses */
	char *kept;     /* where the former log is; mem_free */
};

/*
 * The same for a stopped survivor whose majority is gone for good: its whole log counts, what may not have been
 * committed included. The former log stays beside. With dry nothing is changed and ret says what would be.
 * ERR_PRECONDITION: it is alone already, or was removed; ERR_EXISTS: the daemon runs.
 */
MUST_CHECK int cluster_recover(const char *dir, const char *version, bool dry,
			       struct cluster_recover_facts *ret, struct err *err);
