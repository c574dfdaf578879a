/* The start: the directory is ours, its store is one to be trusted, the log stands on top of it. */
#include <inttypes.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/log.h"
#include "base/mem.h"
#include "cluster/cluster_int.h"

enum { LOCK_TRIES = 150, LOCK_PAUSE_US = 20000 };

int begin_dirs(struct cluster *c, struct err *err)
{
	char *lock = mem_printf("%s/lock", c->dir);
	char *raft = mem_printf("%s/raft", c->dir);
	int r = dir_check_private(c->dir, err);

	/* A predecessor that was killed holds it until the kernel has taken its memory apart. */
	for (int tries = 0; r == 0 && c->lock_fd < 0; tries++) {
		c->lock_fd = file_lock(lock, err);
		if (c->lock_fd == ERR_EXISTS && tries < LOCK_TRIES) {
			usleep(LOCK_PAUSE_US);
		} else if (c->lock_fd < 0) {
			r = c->lock_fd;
		}
	}
	if (r == 0) {
		r = dir_ensure(raft, 0700, err);
	}
	mem_free(lock);
	mem_free(raft);
	return r;
}

static int view_read(struct cluster *c, struct err *err)
{
	struct store_read *read;
	int r = store_read_begin(c->store, "open", &read, err);

	if (r == 0) {
		r = fsm_view(store_read_kv(read), &c->view, err);
		store_read_end(read);
	}
	return r;
}

static void dropped_tell(const struct cluster *c)
{
	if (store_rebuilt(c->store) == NULL) {
		LOG_WARN("the store was not closed before the system went down: it is rebuilt from "
			 "the log");
	} else {
		LOG_WARN("the store was wrong (%s): it is rebuilt from the log; test memory and "
			 "disk",
			 store_rebuilt(c->store));
	}
}

static int raft_begin(struct cluster *c, const struct cluster_options *o,
		      const struct consensus_events *events, struct err *err)
{
	char *raft = mem_printf("%s/raft", c->dir);
	struct consensus_options co = {
		.loop = c->loop,
		.dir = raft,
		.id = c->id,
		.address = c->peer_address,
		.store = c->store,
		.cluster_id = c->cluster_id,
		.election_ms = o->election_ms,
		.heartbeat_ms = o->heartbeat_ms,
		.snapshot_bytes = o->snapshot_bytes,
		.apply_turn_ns = o->apply_turn_ns,
		.events = events,
		.arg = c,
	};
	int r = consensus_open(&c->cs, &co, err);

	mem_free(raft);
	return r;
}

/* Store and log. *ret_wrong: not even what the state says of itself can be read; the store may be open. */
static int state_try(struct cluster *c, const struct cluster_options *o,
		     const struct consensus_events *events, bool *ret_wrong, struct err *err)
{
	char *dir = mem_printf("%s/store", c->dir);
	struct store_options so = {
		.dir = dir, .map_bytes = o->map_bytes, .look_bytes = o->look_bytes};
	bool dropped;
	int r = store_open(&c->store, &so, &dropped, err);

	mem_free(dir);
	*ret_wrong = false;
	if (r != 0) {
		return r;
	}
	r = view_read(c, err);
	if (r == 0 && c->view.epoch == 0 && store_applied(c->store) > 0) {
		r = err_set(err, ERR_CORRUPT, "the state is empty after %" PRIu64 " entries",
			    store_applied(c->store));
	}
	*ret_wrong = r == ERR_CORRUPT;
	if (r == 0 && c->view.feature_level != 0) {
		char *what = mem_printf("the state in %s is at", c->dir);

		r = feature_level_known(c->view.feature_level, what, err);
		mem_free(what);
	}
	if (r == 0 && dropped) {
		dropped_tell(c);
	}
	if (r == 0) {
		r = raft_begin(c, o, events, err);
	}
	*ret_wrong |= r != 0 && store_damage(c->store) != NULL;
	return r;
}

/* A store that is found wrong here is made anew at once. */
int begin_state(struct cluster *c, const struct cluster_options *o,
		const struct consensus_events *events, struct err *err)
{
	struct err why = {0};
	bool wrong;
	int r = state_try(c, o, events, &wrong, &why);

	if (r != 0 && wrong) {
		r = store_order_rebuild(c->store, why.msg, err);
		store_abandon(c->store);
		c->store = NULL;
		cluster_early_connects(c); /* raft had asked for them: forgotten */
		return r == 0 ? state_try(c, o, events, &wrong, err) : r;
	}
	if (r != 0 && err != NULL) {
		*err = why;
	}
	return r;
}
