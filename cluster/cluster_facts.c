/* What a lighthouse knows of itself: any thread. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/limits.h"
#include "cluster/cluster_int.h"

enum { QUORUM_MS = 5000 };

void link_state(struct cluster *c, struct link_state *ret)
{
	pthread_mutex_lock(&c->seen_lock);
	*ret = c->state;
	pthread_mutex_unlock(&c->seen_lock);
}

int link_digest(struct cluster *c, uint64_t marker, uint8_t ret_digest[32], uint64_t *ret_revision)
{
	int r = ERR_NOT_FOUND;

	pthread_mutex_lock(&c->seen_lock);
	for (size_t i = 0; i < DIGESTS_KEPT; i++) {
		if (marker != 0 && c->digest[i].marker == marker) {
			memcpy(ret_digest, c->digest[i].digest, 32);
			*ret_revision = c->digest[i].revision;
			r = 0;
		}
	}
	pthread_mutex_unlock(&c->seen_lock);
	return r;
}

void cluster_status_self(struct cluster *c, struct cluster_status *ret)
{
	uint64_t now = clock_mono_ms(), heard;

	*ret = (struct cluster_status){
		.cluster_id = c->cluster_id,
		.lighthouse_id = c->id,
		.incarnation = c->incarnation,
	};
	pthread_mutex_lock(&c->seen_lock);
	ret->leader_id = c->state.leader;
	ret->term = c->state.term;
	ret->commit_index = c->state.commit_index;
	ret->applied_index = c->state.applied_index;
	ret->last_index = c->state.last_index;
	ret->epoch = c->view.epoch;
	ret->revision = c->view.revision;
	ret->feature_level = c->view.feature_level;
	memcpy(ret->digest, c->view.digest, sizeof(ret->digest));
	heard = c->state.self_leads ? now : c->heard_ms;
	pthread_mutex_unlock(&c->seen_lock);
	ret->quorum_age_ms = heard == 0 ? now : now - MIN(heard, now);
	ret->quorum = ret->leader_id != 0 && ret->quorum_age_ms < QUORUM_MS;
}

void cluster_facts_self(struct cluster *c, struct cluster_facts *ret)
{
	*ret = (struct cluster_facts){
		.id = c->id,
		.self = true,
		.connected = true,
		.feature_min = FEATURE_LEVEL_MIN,
		.feature_max = FEATURE_LEVEL_MAX,
		.state_limit = LIM_STATE_BYTES,
		.backup_ms = atomic_load(&c->backup_ms),
	};
	ret->compared_ms = atomic_load(&c->compared_ms);
	ret->scrubbed_ms = atomic_load(&c->scrub.passed_ms);
	if (store_rebuilt(c->store) != NULL) {
		snprintf(ret->store_rebuilt, sizeof(ret->store_rebuilt), "%s",
			 store_rebuilt(c->store)[0] != '\0' ? store_rebuilt(c->store) : "?");
	}
	snprintf(ret->version, sizeof(ret->version), "%s", c->version);
	pthread_mutex_lock(&c->seen_lock);
	ret->append_p99_us = c->health.append_p99_us;
	ret->append_n = c->health.append_n;
	ret->disk_free = c->health.disk_free;
	ret->disk_bytes = c->health.disk_bytes;
	ret->map_permille = c->health.map_permille;
	ret->state_bytes = c->view.bytes;
	ret->commit_index = c->state.commit_index;
	ret->applied_index = c->state.applied_index;
	ret->term = c->state.term;
	ret->leader_id = c->state.leader;
	memcpy(ret->backup_error, c->health.backup_error, sizeof(ret->backup_error));
	pthread_mutex_unlock(&c->seen_lock);
	ret->backup_every_ms = atomic_load(&c->backup_every_ms);
}

void cluster_note_backup(struct cluster *c, int64_t wall_ms)
{
	atomic_store(&c->backup_ms, wall_ms);
	pthread_mutex_lock(&c->seen_lock);
	c->health.backup_error[0] = '\0';
	pthread_mutex_unlock(&c->seen_lock);
}

void cluster_note_backup_schedule(struct cluster *c, int64_t every_ms)
{
	atomic_store(&c->backup_every_ms, every_ms);
}

void cluster_note_backup_failed(struct cluster *c, const char *why)
{
	pthread_mutex_lock(&c->seen_lock);
	snprintf(c->health.backup_error, sizeof(c->health.backup_error), "%s", why);
	pthread_mutex_unlock(&c->seen_lock);
}
