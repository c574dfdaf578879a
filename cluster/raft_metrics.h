/* The series of the replicated log: made once for the process, counted on the raft thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct metric;

enum election_cause {
	ELECTION_TIMEOUT,     /* nobody led for the election timeout */
	ELECTION_LEADER_LOST, /* the leader's process is known to be gone */
	ELECTION_TRANSFER,    /* the leader handed over to us */
	ELECTION_ALONE,       /* the only voter */
	ELECTION_CAUSES
};

struct raft_metrics {
	struct metric *append, *apply, *commit, *group, *turn, *snapshot_time; /* histograms */
	struct metric *turn_max, *turn_max_cpu;
	struct metric *elections[ELECTION_CAUSES], *leaderships;
	struct metric *snapshots, *restores;
};

/* Any thread. */
const struct raft_metrics *raft_metrics(void);

/*
 * The last times of appends to the log, for the judgement of the disk: histograms know all since the start, a slow disk
 * shows in the last minutes. One thread.
 */
enum { APPEND_TIMES = 1024, APPEND_WINDOW_MS = 10 * 60 * 1000 };

struct append_times {
	struct {
		uint64_t at_ms;
		uint32_t us;
	} at[APPEND_TIMES];
	size_t next;
};

void append_times_add(struct append_times *t, uint64_t now_ms, uint64_t us);
/* The 99th percentile in microseconds of the window, 0 without any; *ret_n: of how many. */
uint64_t append_times_p99(const struct append_times *t, uint64_t now_ms, size_t *ret_n);
