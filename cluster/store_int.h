/* Inside of the store: the marks beside the data, and the guard over its map. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"

/*
 * The marks, files beside data.mdb:
 *   boot     the kernel's boot id of the last use
 *   clean    closed and synced; gone while in use
 *   rebuild  what was found wrong: the next start drops the data, and raft's snapshot and log give it again
 *   rebuilt  the same line after that; gone when a scrub and a comparison have found nothing wrong
 *   damaged  wrong once more although it was rebuilt: not opened any more, a person is needed
 *
 *            order                  next start                 order
 *   (none) ---------> rebuild ------------------> rebuilt ------------> damaged
 *      ^                                             |
 *      +---------------------------------------------+  settle
 */
struct store_found {
	bool dropped; /* the data was there and is gone */
	bool unclean; /* it stayed, but was not closed in order */
	char *why;    /* content of `rebuilt`; NULL: there is none. The caller frees. */
};

/* Judges the marks and prepares them for use. ERR_CORRUPT: `damaged`, with the remedy. boot_id NULL: the kernel's. */
MUST_CHECK int store_marks_open(const char *dir, const char *boot_id, struct store_found *ret,
				struct err *err);
/* Any thread. 0: the next start rebuilds. ERR_CORRUPT: it was rebuilt before and not settled: `damaged` was written. */
MUST_CHECK int store_marks_order(const char *dir, const char *why, struct err *err);
MUST_CHECK int store_marks_settle(const char *dir, struct err *err);
/* Closed in order. */
MUST_CHECK int store_marks_clean(const char *dir, struct err *err);

/*
 * Whether LMDB may be let at data.mdb: every page of every tree makes sense (ERR_CORRUPT, where the first does not). Reads
 * all of it; 0 without a look when there is none or it holds more than max_bytes (0: any).
 */
MUST_CHECK int store_pages_check(const char *dir, uint64_t max_bytes, struct err *err);

/*
 * A fault of memory in the map of data.mdb (a page that the disk does not give), or inside of a call of LMDB (a page that leads
 * elsewhere), ends the process as an order to rebuild does: with `rebuild` and exit code 70, or `damaged` and 65. Other
 * faults are passed on.
 */
struct store_guard;
/* NULL: too many stores are open, or the map was not found: without guard. `rebuilt`: that mark is there. */
struct store_guard *store_guard_new(const char *dir, bool rebuilt);
/* As that, for a store that is only looked at: says what is wrong and ends with 65; no mark is written. */
struct store_guard *store_guard_look(const char *dir);
void store_guard_settled(struct store_guard *g);
void store_guard_free(struct store_guard *g);
/* For LMDB's own assertions. Does not return. */
NORETURN void store_guard_end(struct store_guard *g);

/* The guard of the store whose LMDB this thread is in. */
extern _Thread_local struct store_guard *store_guard_inside;
/* Once per thread: those of a pool begin with every signal blocked, and a blocked fault kills without a word. */
extern _Thread_local bool store_guard_hears;
void store_guard_hear(void);
/* The value of a call of LMDB, guarded. */
#define GUARDED(s, call)                          \
	({                                        \
		store_guard_inside = (s)->guard;  \
		if (!store_guard_hears) {         \
			store_guard_hear();       \
		}                                 \
		__auto_type guarded_rc_ = (call); \
		store_guard_inside = NULL;        \
		guarded_rc_;                      \
	})
