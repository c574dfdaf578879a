/* Backups that a lighthouse makes by itself: when one is due, the file, its check, how many are kept. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct cluster;
struct loop;

enum schedule_by {
	SCHEDULE_LEADER, /* whoever leads makes it: one backup of the cluster per period */
	SCHEDULE_EACH,   /* every lighthouse with a schedule makes its own */
};

struct schedule_options {
	struct cluster *cluster;
	struct loop *loop;
	const char *directory; /* borrowed until schedule_free; absolute */
	int64_t every_ms;
	int64_t keep; /* so many files; the oldest go once a newer one was verified */
	int by;       /* enum schedule_by */
};

struct schedule;
/* Looks once a second whether one is due. Never fails: what is wrong is an alarm (doctor, metrics). Thread: the loop's. */
struct schedule *schedule_new(const struct schedule_options *o);
/* A backup under way is given up at its next step, and waited for. While the cluster is open. NULL is fine. */
void schedule_free(struct schedule *s);

/* ---- pure ---- */

/*
 * Is a backup due? Times in unix ms; last_ms 0: there was none; not_before_ms: no further try before it. A clock that was set
 * back makes none due.
 */
bool schedule_due(int64_t last_ms, int64_t every_ms, int64_t now_ms, int64_t not_before_ms);
/* "skerry-<cluster>-<UTC>-r<revision>.backup", in the order of time. */
enum { SCHEDULE_NAME = 128 };
const char *schedule_name(uint64_t cluster, int64_t wall_ms, uint64_t revision,
			  char out[SCHEDULE_NAME]);
/* Is it a file that a schedule of this cluster made? Others are never deleted. */
bool schedule_ours(const char *name, uint64_t cluster);
