/* What the metrics say of the log, the store and the queues. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "cluster/cluster_int.h"

/* One series per role, 1 for the one that is held. */
static void role_show(struct cluster *c, const char *role)
{
	static const char *const roles[] = {"leader",  "follower", "candidate",
					    "standby", "spare",    "none"};

	if (role == c->role_told) {
		return;
	}
	c->role_told = role;
	for (size_t i = 0; i < ARRAY_LEN(roles); i++) {
		char label[32];

		snprintf(label, sizeof(label), "role=\"%s\"", roles[i]);
		gauge_set(metrics_gauge("skerry_raft_role",
					"1 for the role that this lighthouse has in raft.", label),
			  strcmp(roles[i], role) == 0);
	}
}

static void raft_gauges(struct cluster *c)
{
	struct consensus_stats s;
	uint64_t refused = atomic_load(&c->prop.refused_full);

	consensus_stats(c->cs, &s);
	role_show(c, s.role);
	gauge_set(c->metric.last, (double)c->state.last_index);
	gauge_set(c->metric.queued, (double)s.queued);
	gauge_set(c->metric.reads, (double)atomic_load(&c->reads.count));
	counter_add(c->metric.refused, refused - c->refused_told);
	c->refused_told = refused;
	gauge_set(c->metric.log_bytes, (double)s.log_bytes);
	gauge_set(c->metric.snapshot_bytes, (double)s.snapshot_bytes);
	gauge_set(c->metric.snapshot_age,
		  s.snapshot_wall_ms == 0
			  ? NAN
			  : (double)MAX(clock_wall_ms() - s.snapshot_wall_ms, 0) / 1000);
}

void cluster_gauges(struct cluster *c)
{
	const char *name = "";
	uint64_t age = store_oldest_read_ms(c->store, &name);

	gauge_set(c->metric.term, (double)c->state.term);
	gauge_set(c->metric.applied, (double)c->state.applied_index);
	gauge_set(c->metric.commit, (double)c->state.commit_index);
	gauge_set(c->metric.leads, c->state.self_leads ? 1 : 0);
	gauge_set(c->metric.revision, (double)c->view.revision);
	gauge_set(c->metric.bytes, (double)c->view.bytes);
	gauge_set(c->metric.map, store_used_permille(c->store) / 1000.0);
	gauge_set(c->metric.oldest_read, (double)age / 1000.0);
	pthread_mutex_lock(&c->prop.lock);
	gauge_set(c->metric.waiting, (double)c->prop.items);
	pthread_mutex_unlock(&c->prop.lock);
	raft_gauges(c);
}

static void queue_gauges(struct cluster *c)
{
	static const char help[] =
		"What waits, by queue: commands of clients until their apply, commands "
		"for the next entry, reads for their level.";

	c->metric.waiting = metrics_gauge("skerry_queue_length", help, "queue=\"commands\"");
	c->metric.queued = metrics_gauge("skerry_queue_length", help, "queue=\"log\"");
	c->metric.reads = metrics_gauge("skerry_queue_length", help, "queue=\"reads\"");
	c->metric.refused = metrics_counter("skerry_commands_refused_total",
					    "Commands refused because a queue was full.", NULL);
}

void cluster_gauges_make(struct cluster *c)
{
	c->metric.term = metrics_gauge("skerry_raft_term", "Term of the replicated log.", NULL);
	c->metric.applied = metrics_gauge("skerry_raft_applied_index",
					  "Last entry of the log in this store.", NULL);
	c->metric.commit = metrics_gauge("skerry_raft_commit_index",
					 "Last entry known to be committed.", NULL);
	c->metric.leads =
		metrics_gauge("skerry_raft_leader", "1 while this lighthouse leads.", NULL);
	c->metric.revision = metrics_gauge("skerry_state_revision", "Revision of the state.", NULL);
	c->metric.bytes = metrics_gauge("skerry_state_bytes", "Bytes of the state.", NULL);
	c->metric.map =
		metrics_gauge("skerry_store_used_ratio", "Used part of the store's map.", NULL);
	c->metric.oldest_read = metrics_gauge("skerry_store_oldest_read_seconds",
					      "Age of the oldest read transaction.", NULL);
	c->metric.disk_free = metrics_gauge("skerry_disk_free_bytes",
					    "Free space below the state directory.", NULL);
	c->metric.disk_bytes = metrics_gauge(
		"skerry_disk_bytes", "Size of the file system of the state directory.", NULL);
	c->metric.last = metrics_gauge("skerry_raft_last_index",
				       "Last entry in the log of this lighthouse.", NULL);
	c->metric.log_bytes = metrics_gauge("skerry_raft_log_since_snapshot_bytes",
					    "Bytes of entries applied since the newest snapshot.",
					    NULL);
	c->metric.snapshot_bytes = metrics_gauge(
		"skerry_raft_snapshot_bytes", "Size of the newest snapshot; 0 without one.", NULL);
	c->metric.snapshot_age = metrics_gauge("skerry_raft_snapshot_age_seconds",
					       "Age of the newest snapshot; NaN without one.",
					       NULL);
	queue_gauges(c);
	c->metric.map_bytes = metrics_gauge("skerry_store_map_bytes",
					    "Size of the store's map: its limit.", NULL);
	c->metric.map_used = metrics_gauge("skerry_store_used_bytes",
					   "Part of the map in use, free pages included.", NULL);
	c->metric.page_bytes =
		metrics_gauge("skerry_store_page_bytes", "Size of a page of the store.", NULL);
	c->metric.free_pages = metrics_gauge("skerry_store_free_pages",
					     "Pages of the used part that are free again.", NULL);
}
