/* Snapshots as files that lie on the disk: which is the newest, and whether it is still what was written. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"

enum { SNAPSHOT_NAME_MAX = 80 };

struct snapshot_file {
	char name[SNAPSHOT_NAME_MAX];
	uint64_t index, bytes;
	int64_t wall_ms; /* when it was made */
};

/* The newest one in libraft's directory; false: there is none. */
bool snapshot_newest(const char *dir, struct snapshot_file *ret);

/* One that is read from beginning to end, in portions. One thread at a time. */
struct snapshot_look;

/* ERR_NOT_FOUND: there is no such file any more. */
MUST_CHECK int snapshot_look_new(const char *path, struct snapshot_look **ret, struct err *err);
/*
 * Goes on for at most max_bytes, from the disk and not from what the kernel remembers of it. *ret_done: it is right.
 * ERR_CORRUPT: it is not, or cannot be read. For a worker.
 */
MUST_CHECK int snapshot_look_step(struct snapshot_look *l, size_t max_bytes, bool *ret_done,
				  struct err *err);
void snapshot_look_free(struct snapshot_look *l); /* NULL ok */
