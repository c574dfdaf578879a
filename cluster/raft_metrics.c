#include "cluster/raft_metrics.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/macros.h"
#include "base/metrics.h"

static struct raft_metrics made;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* From a fast NVMe disk to one that lets a leader be doubted. */
static const double seconds[] = {
	0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5,
};
static const double commands[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};

static struct metric *latency(const char *name, const char *help)
{
	return metrics_histogram(name, help, NULL, seconds, ARRAY_LEN(seconds));
}

static void make(void)
{
	static const char *const causes[ELECTION_CAUSES] = {
		[ELECTION_TIMEOUT] = "cause=\"timeout\"",
		[ELECTION_LEADER_LOST] = "cause=\"leader_lost\"",
		[ELECTION_TRANSFER] = "cause=\"transfer\"",
		[ELECTION_ALONE] = "cause=\"alone\"",
	};

	made.append = latency("skerry_raft_append_seconds",
			      "Time until entries were durable in this lighthouse's log.");
	made.apply = latency("skerry_raft_apply_seconds", "Time to apply one entry to the state.");
	made.commit =
		latency("skerry_raft_commit_seconds",
			"Leader: from proposing an entry until it was committed and applied here.");
	made.turn = latency("skerry_raft_loop_turn_seconds",
			    "Time that one turn of the consensus loop took, sleep not counted.");
	made.turn_max = metrics_gauge("skerry_raft_loop_turn_max_seconds",
				      "Longest turn of the consensus loop since the start.", NULL);
	made.turn_max_cpu = metrics_gauge(
		"skerry_raft_loop_turn_max_cpu_seconds",
		"Most processor time of one turn of the consensus loop since the start.", NULL);
	made.snapshot_time = latency("skerry_raft_snapshot_seconds",
				     "Time to make and store a snapshot, off the consensus loop.");
	made.group = metrics_histogram("skerry_raft_group_commands",
				       "Leader: commands that went into one entry.", NULL, commands,
				       ARRAY_LEN(commands));
	for (size_t i = 0; i < ELECTION_CAUSES; i++) {
		made.elections[i] = metrics_counter(
			"skerry_raft_elections_total",
			"Elections that this lighthouse began, by cause.", causes[i]);
	}
	made.leaderships = metrics_counter("skerry_raft_leaderships_total",
					   "Elections that this lighthouse won.", NULL);
	made.snapshots = metrics_counter("skerry_raft_snapshots_total",
					 "Snapshots of the state that were made here.", NULL);
	made.restores = metrics_counter("skerry_raft_restores_total",
					"Snapshots that replaced the state of this lighthouse.",
					NULL);
}

const struct raft_metrics *raft_metrics(void)
{
	pthread_once(&once, make);
	return &made;
}

void append_times_add(struct append_times *t, uint64_t now_ms, uint64_t us)
{
	t->at[t->next].at_ms = MAX(now_ms, 1u);
	t->at[t->next].us = (uint32_t)MIN(us, (uint64_t)UINT32_MAX);
	t->next = (t->next + 1) % APPEND_TIMES;
}

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

uint64_t append_times_p99(const struct append_times *t, uint64_t now_ms, size_t *ret_n)
{
	uint32_t us[APPEND_TIMES];
	size_t n = 0;

	for (size_t i = 0; i < APPEND_TIMES; i++) {
		if (t->at[i].at_ms != 0 && t->at[i].at_ms + APPEND_WINDOW_MS >= now_ms) {
			us[n++] = t->at[i].us;
		}
	}
	*ret_n = n;
	if (n == 0) {
		return 0;
	}
	qsort(us, n, sizeof(us[0]), by_size);
	return us[(n * 99 + 99) / 100 - 1];
}
