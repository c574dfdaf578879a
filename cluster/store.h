/* The state on disk: LMDB under the ordered key-value interface, with the index of the last entry applied to it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"
#include "tailnet/kv.h"

/*
 * Raft's log is the write-ahead log: LMDB is opened with NOTLS|NOSYNC|WRITEMAP, needs atomicity alone and is synced from
 * a worker each half minute and at the end. WRITEMAP saves a third of what applying costs: a page is copied once, not
 * three times. Its file is as long as the map, with holes; blocks are there before they are written to. A crash of the process loses nothing (page cache). A crash of the system may tear it:
 * beside the data stand `boot` (the kernel's boot id of the last use) and `clean` (it was closed and synced). With another boot
 * id and no `clean` the data is dropped and rebuilt from snapshot and log. The same happens when LMDB refuses its file, and
 * when a rebuild was ordered. A memory fault in the map ends the process with such an order (70).
 *
 * One writer (the raft thread), any number of readers on any thread.
 */
struct store;
struct store_read;

/* For a person, while the daemon is stopped. */
#define STORE_REMEDY "remove its data.mdb, and it is rebuilt from the log at the next start"

struct store_options {
	const char *dir;     /* made 0700 when missing */
	uint64_t map_bytes;  /* 0: 16 GiB */
	const char *boot_id; /* NULL: the kernel's */
	uint64_t
		look_bytes; /* for tests: up to which the pages are looked at after an end in order; 0: any */
	bool read_only; /* for the offline check: no mark is changed, no write accepted */
};

/* *ret_dropped (may be NULL): the data was not trusted and is empty now. ERR_CORRUPT, -errno, ERR_STORE. */
MUST_CHECK int store_open(struct store **ret, const struct store_options *o, bool *ret_dropped,
			  struct err *err);
/* Aborts an open write, syncs, sets the clean mark, frees. No reader may be left. NULL is fine. */
void store_close(struct store *s);
/* As store_close without sync and mark, as if the process had been killed. For tests. */
void store_abandon(struct store *s);

/* ---- damage ---- */

/* The data was kept although it was not closed in order: the process had been killed. */
bool store_unclean(const struct store *s);
/* Why the data was rebuilt, at this start or one before, as long as it is not settled; NULL: it was not. */
const char *store_rebuilt(const struct store *s);
/* What LMDB said of a damaged page, to any thread; NULL: nothing. The process should order a rebuild and end. */
const char *store_damage(struct store *s);
/*
 * The next store_open drops the data, for `why` (one line). Any thread. ERR_CORRUPT: it was rebuilt before and is wrong
 * again; the next store_open refuses it, with the remedy.
 */
MUST_CHECK int store_order_rebuild(struct store *s, const char *why, struct err *err);
/*
 * Ends the process (link_int.h) for an error of apply or commit; when it is one of the data, the next start rebuilds it.
 * In damage.c.
 */
void damage_fail(struct store *s, int code, const struct err *err);
/* Nothing is wrong with it: the rebuild is history. Any thread. */
MUST_CHECK int store_settle(struct store *s, struct err *err);

/* ---- writer ---- */

/* The write transaction, begun when there is none. Lives until store_commit. */
MUST_CHECK int store_write(struct store *s, const struct kv **ret, struct err *err);
/* Index of the last applied entry, an open write included. */
uint64_t store_applied(const struct store *s);
MUST_CHECK int store_set_applied(struct store *s, uint64_t index, struct err *err);
/* Removes every record, in the write transaction. */
MUST_CHECK int store_clear(struct store *s, struct err *err);
/* Puts a record whose key is above all others, without a search. For stores that are being filled. */
MUST_CHECK int store_append(struct store *s, struct slice key, struct slice value, struct err *err);
bool store_writing(const struct store *s);
/* Commits the write; nothing to do without one. After an error the process may not go on. */
MUST_CHECK int store_commit(struct store *s, struct err *err);
void store_abort(struct store *s);

/*
 * A store in a directory below that of s, for a state that is to take its place; s may be in use meanwhile. What an
 * earlier one left there is removed. Any thread, and another one may go on with it.
 */
MUST_CHECK int store_fresh(struct store *s, struct store **ret, struct err *err);
/* Closes a fresh one and removes its files. NULL is fine. */
void store_discard(struct store *fresh);
/*
 * s holds from now on what `fresh` (of store_fresh(s), taken) holds, without a record being copied. Reads that are open
 * go on in the former state. No write is open in either. After an error the process may not go on.
 */
MUST_CHECK int store_adopt(struct store *s, struct store *fresh, struct err *err);

/* Waits for the disk. Any thread; for a worker. */
MUST_CHECK int store_sync(struct store *s, struct err *err);
/* Parts of a thousand of the map that are in use, without the free pages of the last store_usage. Any thread. */
unsigned store_used_permille(struct store *s);

struct store_usage {
	uint64_t map_bytes, used_bytes;  /* of the map; up to the last page that was ever used */
	uint64_t page_bytes, free_pages; /* free ones below it, to be used again */
};
/* Walks the list of free pages: any thread, for a worker. */
MUST_CHECK int store_usage(struct store *s, struct store_usage *ret, struct err *err);

/* ---- readers; any thread ---- */

/* `name` (static) is shown beside the age of the oldest reader in the metrics. */
MUST_CHECK int store_read_begin(struct store *s, const char *name, struct store_read **ret,
				struct err *err);
const struct kv *store_read_kv(const struct store_read *r);
/* Index of the last entry in this view. */
uint64_t store_read_applied(const struct store_read *r);
/* Whether one that begins now would see the same. */
bool store_read_current(const struct store_read *r);
void store_read_end(struct store_read *r);
/* Milliseconds since the oldest open reader began, its name in *ret_name (may be NULL); 0: none. */
uint64_t store_oldest_read_ms(struct store *s, const char **ret_name);
