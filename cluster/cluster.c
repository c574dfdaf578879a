/* The façade: opens a directory, runs the raft thread, and what any thread asks of it. */
#include "cluster/cluster.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fileio.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "cluster/cluster_int.h"
#include "tailnet/query.h"

enum {
	LOCK_TRIES = 150,
	LOCK_PAUSE_US = 20000,
	PUBLISH_MS = 100,
	LOOK_MS = 1000, /* at disk and store */
	SYNC_MS =
		30000, /* the store: what the end has to write stays small, nothing else depends on it */
	QUORUM_MS = 5000,
	HANDOVER_MS = 2000,
	META_BUDGET = 64 << 10,
};

/* ---- what consensus tells; raft thread ---- */

void cluster_publish(struct cluster *c)
{
	struct link_state state;

	consensus_state(c->cs, &state);
	state.published_ms = clock_mono_ms();
	pthread_mutex_lock(&c->seen_lock);
	c->state = state;
	c->heard_ms = consensus_heard_ms(c->cs);
	pthread_mutex_unlock(&c->seen_lock);
}

static void on_handed_over(void *arg);

static void on_state(void *arg)
{
	struct cluster *c = arg;
	uint64_t leader = consensus_leader(c->cs);

	cluster_publish(c);
	c->ops->leader(c->ops_impl, leader, consensus_term(c->cs), consensus_leads(c->cs));
	c->ops->members(c->ops_impl);
	if (c->handing_over && !consensus_leads(c->cs)) {
		/* Done, or there is nobody to take it: not from within consensus, which it ends. */
		loop_timer_start(&c->handover_timer, c->loop, 0, on_handed_over, c);
	}
	if (!c->stopping) {
		propose_state(c);
		read_state(c);
		ticker_run(c);
	}
}

static void view_set(struct cluster *c, const struct state_view *v)
{
	pthread_mutex_lock(&c->seen_lock);
	c->view = *v;
	pthread_mutex_unlock(&c->seen_lock);
}

static void markers_keep(struct cluster *c, const struct applied *a)
{
	for (size_t i = 0; i < a->n; i++) {
		if (a->command[i].marker == 0) {
			continue;
		}
		pthread_mutex_lock(&c->seen_lock);
		c->digest[c->next_digest].marker = a->command[i].marker;
		c->digest[c->next_digest].revision = a->marker_revision;
		memcpy(c->digest[c->next_digest].digest, a->marker_digest, 32);
		c->next_digest = (c->next_digest + 1) % DIGESTS_KEPT;
		pthread_mutex_unlock(&c->seen_lock);
	}
}

/* Members that were removed lose their links at once. */
static void members_changed(struct cluster *c, const struct applied *a)
{
	struct store_read *read = NULL;
	struct arena arena;

	arena_init(&arena, META_BUDGET);
	for (size_t i = 0; i < a->n_changes; i++) {
		const struct change *x = &a->change[i];
		MemberRecord *m;

		if (x->kind != CHANGE_MEMBER) {
			continue;
		}
		if (read == NULL && store_read_begin(c->store, "members", &read, NULL) != 0) {
			break;
		}
		arena_reset(&arena);
		if (x->deleted ||
		    (query_member(store_read_kv(read), x->object, &arena, &m) == 0 &&
		     m->kind == SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_REMOVED)) {
			c->ops->cut(c->ops_impl, x->object);
		}
	}
	store_read_end(read);
	arena_done(&arena);
	c->ops->members(c->ops_impl);
}

static void on_applied(void *arg, const struct applied *a)
{
	struct cluster *c = arg;

	if (a->n > 0) {
		struct state_view v = {
			.cluster_id = c->cluster_id,
			.epoch = a->epoch,
			.revision = a->revision,
			.time_ms = a->time_ms,
			.bytes = a->bytes,
			.feature_level = a->feature_level,
		};

		memcpy(v.digest, a->digest, sizeof(v.digest));
		view_set(c, &v);
		markers_keep(c, a);
	}
	cluster_publish(c);
	changes_applied(c, a);
	if (a->members_changed) {
		members_changed(c, a);
	}
	if (!c->stopping) {
		propose_applied(c, a);
		propose_restored(c);
		read_progress(c);
		ticker_run(c);
	}
}

static void on_restored(void *arg)
{
	struct cluster *c = arg;
	struct store_read *read;
	struct state_view v;

	if (store_read_begin(c->store, "restored", &read, NULL) == 0) {
		if (fsm_view(store_read_kv(read), &v, NULL) == 0) {
			view_set(c, &v);
		}
		store_read_end(read);
	}
	cluster_publish(c);
	changes_reset(c);
	c->ops->members(c->ops_impl);
	if (!c->stopping) {
		propose_restored(c);
		read_progress(c);
		ticker_run(c);
	}
}

/* A connection that raft asked for before the peers were there. */
struct early_connect {
	struct list node;
	uint64_t request, id;
	char *address;
};

static void on_connect(void *arg, uint64_t request, uint64_t id, const char *address)
{
	struct cluster *c = arg;

	if (c->ops == NULL) {
		/* The only voter leads, and wants its standbys, as soon as raft starts: before the peers are there. */
		struct early_connect *e = MEM_NEW(struct early_connect);

		e->request = request;
		e->id = id;
		e->address = mem_strdup(address);
		list_push(&c->early, &e->node);
		return;
	}
	c->ops->connect(c->ops_impl, request, id, address);
}

/* Makes up for the connections that were asked for too early; without ops it only forgets them. */
static void early_connects(struct cluster *c)
{
	while (!list_empty(&c->early)) {
		struct early_connect *e =
			LIST_ENTRY(list_pop(&c->early), struct early_connect, node);

		if (c->ops != NULL && !c->stopping) {
			c->ops->connect(c->ops_impl, e->request, e->id, e->address);
		}
		mem_free(e->address);
		mem_free(e);
	}
}

static bool on_awaited(void *arg)
{
	const struct cluster *c = arg;

	return propose_awaits(c) || read_awaits(c);
}

static const struct consensus_events events = {
	.state = on_state,
	.applied = on_applied,
	.restored = on_restored,
	.awaited = on_awaited,
	.connect = on_connect,
};

/* ---- once in a while; raft thread ---- */

static void sync_work(void *arg)
{
	struct cluster *c = arg;
	struct store_usage u;
	struct err err = {0};

	if (c->sync_due && store_sync(c->store, &err) != 0) {
		cluster_fail("the store in %s cannot be written to the disk: %s", c->dir, err.msg);
	}
	if (store_usage(c->store, &u, NULL) == 0) {
		gauge_set(c->metric.map_bytes, (double)u.map_bytes);
		gauge_set(c->metric.map_used, (double)u.used_bytes);
		gauge_set(c->metric.page_bytes, (double)u.page_bytes);
		gauge_set(c->metric.free_pages, (double)u.free_pages);
	}
}

static void sync_done(void *arg)
{
	struct cluster *c = arg;

	c->syncing = false;
}

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

static void gauges(struct cluster *c)
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

static void gauges_make(struct cluster *c)
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

/* Once a second: sorting a thousand times is not for every turn. */
static void health_judge(struct cluster *c)
{
	size_t n;
	uint64_t p99 = consensus_append_p99_us(c->cs, &n);

	disk_judge(c);
	pthread_mutex_lock(&c->seen_lock);
	c->health.append_p99_us = p99;
	c->health.append_n = n;
	c->health.map_permille = store_used_permille(c->store);
	pthread_mutex_unlock(&c->seen_lock);
}

static void on_publish(void *arg)
{
	struct cluster *c = arg;
	uint64_t now = clock_mono_ms();
	const char *damage;

	cluster_publish(c);
	gauges(c);
	damage = store_damage(c->store);
	if (damage != NULL) {
		cluster_damage(c, "%s", damage);
	}
	disk_watch(c);
	if (!c->syncing && now >= c->looked_ms + LOOK_MS) {
		health_judge(c);
		c->sync_due = now >= c->synced_ms + SYNC_MS;
		c->syncing = loop_work(c->loop, sync_work, sync_done, c) == 0;
		c->looked_ms = now;
		if (c->sync_due && c->syncing) {
			c->synced_ms = now;
		}
	}
	loop_timer_start(&c->publish_timer, c->loop, PUBLISH_MS, on_publish, c);
}

/* ---- life ---- */

static int dirs_open(struct cluster *c, struct err *err)
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

static int raft_begin(struct cluster *c, const struct cluster_options *o, struct err *err)
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
		.events = &events,
		.arg = c,
	};
	int r = consensus_open(&c->cs, &co, err);

	mem_free(raft);
	return r;
}

/* Store and log. *ret_wrong: not even what the state says of itself can be read; the store may be open. */
static int state_try(struct cluster *c, const struct cluster_options *o, bool *ret_wrong,
		     struct err *err)
{
	char *dir = mem_printf("%s/store", c->dir);
	struct store_options so = {.dir = dir, .map_bytes = o->map_bytes};
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
		r = raft_begin(c, o, err);
	}
	*ret_wrong |= r != 0 && store_damage(c->store) != NULL;
	return r;
}

/* A store that is found wrong here is made anew at once. */
static int state_begin(struct cluster *c, const struct cluster_options *o, struct err *err)
{
	struct err why = {0};
	bool wrong;
	int r = state_try(c, o, &wrong, &why);

	if (r != 0 && wrong) {
		r = store_order_rebuild(c->store, why.msg, err);
		store_abandon(c->store);
		c->store = NULL;
		early_connects(c); /* raft had asked for them: forgotten */
		return r == 0 ? state_try(c, o, &wrong, err) : r;
	}
	if (r != 0 && err != NULL) {
		*err = why;
	}
	return r;
}

int cluster_prepare(struct cluster **ret, const struct cluster_options *o, struct err *err)
{
	struct cluster *c = MEM_NEW(struct cluster);
	int r;

	/* libraft writes through uv's pool, which look-ups of names and our own jobs share: four are too few. */
	setenv("UV_THREADPOOL_SIZE", "8", 0);
	c->lock_fd = -1;
	c->dir = mem_strdup(o->dir);
	c->version = mem_strdup(o->version != NULL ? o->version : "");
	c->incarnation = rand_id63();
	pthread_mutex_init(&c->seen_lock, NULL);
	pthread_cond_init(&c->closed_cond, NULL);
	propose_init(c);
	read_init(c);
	changes_init(c);
	sessions_init(c);
	gauges_make(c);
	list_init(&c->early);
	c->scrub_ms = o->scrub_ms;
	c->loop = loop_new("raft");
	r = keyfile_read(o->dir, &c->keys, err);
	if (r != 0) {
		goto fail;
	}
	c->id = c->keys.lighthouse_id;
	c->cluster_id = c->keys.cluster_id;
	c->peer_address =
		mem_strdup(o->peer_address != NULL ? o->peer_address : c->keys.peer_address);
	c->api_url = mem_strdup(o->api_url != NULL ? o->api_url : c->keys.api_url);
	r = dirs_open(c, err);
	if (r == 0) {
		r = state_begin(c, o, err);
	}
	if (r != 0) {
		goto fail;
	}
	cluster_publish(c);
	*ret = c;
	return 0;
fail:
	cluster_free(c);
	return r;
}

static void on_start(void *arg)
{
	struct cluster *c = arg;

	on_publish(c);
	scrub_start(c, c->scrub_ms);
	ticker_start(c);
	early_connects(c);
	on_state(c);
}

int cluster_start(struct cluster *c, const struct peer_ops *ops, void *impl, struct err *err)
{
	int r;

	c->ops = ops;
	c->ops_impl = impl;
	loop_post_reply(c->loop, on_start, c);
	r = loop_thread_start(c->loop);
	c->running = r == 0;
	return r == 0 ? 0 : err_set(err, r, "raft thread: %s", err_text(r));
}

int cluster_open_with(struct cluster **ret, const struct cluster_options *o,
		      const struct peer_ops *ops, void *impl, struct err *err)
{
	struct cluster *c;
	int r = cluster_prepare(&c, o, err);

	if (r != 0) {
		return r;
	}
	r = cluster_start(c, ops, impl, err);
	if (r != 0) {
		cluster_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

/* A call of the raft thread from another one. */
struct call {
	void (*fn)(void *arg);
	void *arg;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
};

static void on_call(void *arg)
{
	struct call *k = arg;

	k->fn(k->arg);
	pthread_mutex_lock(&k->lock);
	k->done = true;
	pthread_cond_signal(&k->cond);
	pthread_mutex_unlock(&k->lock);
}

void cluster_call(struct cluster *c, void (*fn)(void *arg), void *arg)
{
	struct call k = {.fn = fn, .arg = arg};

	pthread_mutex_init(&k.lock, NULL);
	pthread_cond_init(&k.cond, NULL);
	loop_post_reply(c->loop, on_call, &k);
	pthread_mutex_lock(&k.lock);
	while (!k.done) {
		pthread_cond_wait(&k.cond, &k.lock);
	}
	pthread_mutex_unlock(&k.lock);
	pthread_cond_destroy(&k.cond);
	pthread_mutex_destroy(&k.lock);
}

static void on_closed(void *arg)
{
	struct cluster *c = arg;

	c->cs = NULL;
	pthread_mutex_lock(&c->seen_lock);
	/* Who asks now, because our links broke, is told that nobody leads here any more. */
	c->state.self_leads = false;
	c->state.leader = 0;
	c->closed = true;
	pthread_cond_signal(&c->closed_cond);
	pthread_mutex_unlock(&c->seen_lock);
}

static void shut(struct cluster *c)
{
	c->stopping = true;
	scrub_stop(c);
	loop_timer_stop(&c->disk.timer);
	ticker_stop(c);
	loop_timer_stop(&c->publish_timer);
	loop_timer_stop(&c->handover_timer);
	consensus_close(c->cs, on_closed, c);
	propose_close(c);
	read_close(c);
}

static void on_handed_over(void *arg)
{
	struct cluster *c = arg;

	if (!c->stopping) {
		shut(c);
	}
}

static void on_transferred(void *arg, const struct err *err)
{
	(void)err;
	on_handed_over(arg);
}

/* Another voter takes over before we go, so that nobody waits for an election. */
static void on_stop(void *arg)
{
	struct cluster *c = arg;
	bool other = false;

	if (c->cs == NULL || c->stopping) {
		return;
	}
	for (size_t i = 0; i < c->state.n; i++) {
		other |= c->state.server[i].id != c->id && c->state.server[i].role == LINK_VOTER;
	}
	if (!other || !consensus_leads(c->cs)) {
		shut(c);
		return;
	}
	c->handing_over = true;
	loop_timer_start(&c->handover_timer, c->loop, HANDOVER_MS, on_handed_over, c);
	consensus_change(c->cs, CONSENSUS_TRANSFER, 0, NULL, on_transferred, c);
}

/* The thread stays and answers what others still ask of it, until cluster_free. */
static void stop_by(struct cluster *c, void (*fn)(void *arg))
{
	loop_post_reply(c->loop, fn, c);
	pthread_mutex_lock(&c->seen_lock);
	while (!c->closed) {
		pthread_cond_wait(&c->closed_cond, &c->seen_lock);
	}
	pthread_mutex_unlock(&c->seen_lock);
}

void cluster_stop(struct cluster *c)
{
	stop_by(c, on_stop);
}

static void on_kill(void *arg)
{
	shut(arg);
}

void cluster_kill(struct cluster *c)
{
	stop_by(c, on_kill);
	loop_stop(c->loop);
	loop_thread_join(c->loop);
	loop_free(c->loop);
	c->loop = NULL;
	store_abandon(c->store);
	c->store = NULL;
	cluster_free(c);
}

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

void cluster_free(struct cluster *c)
{
	if (c == NULL) {
		return;
	}
	if (c->running && c->loop != NULL) {
		loop_stop(c->loop);
		loop_thread_join(c->loop);
	}
	if (c->cs != NULL) { /* never started */
		bool closed = false;

		consensus_close(c->cs, set_flag, &closed);
		while (!closed) {
			loop_turn(c->loop, true);
		}
	}
	c->ops = NULL;
	early_connects(c);
	loop_free(c->loop);
	pthread_mutex_lock(&c->seen_lock);
	while (c->backups > 0) {
		pthread_cond_wait(&c->closed_cond, &c->seen_lock);
	}
	pthread_mutex_unlock(&c->seen_lock);
	store_close(c->store);
	propose_done(c);
	changes_done(c);
	sessions_done(c);
	if (c->lock_fd >= 0) {
		file_unlock(c->lock_fd);
	}
	keyfile_done(&c->keys);
	pthread_cond_destroy(&c->closed_cond);
	pthread_mutex_destroy(&c->seen_lock);
	mem_free(c->dir);
	mem_free(c->version);
	mem_free(c->peer_address);
	mem_free(c->api_url);
	mem_free(c);
}

/* ---- any thread ---- */

uint64_t cluster_id(const struct cluster *c)
{
	return c->cluster_id;
}

uint64_t cluster_lighthouse_id(const struct cluster *c)
{
	return c->id;
}

uint64_t cluster_incarnation(const struct cluster *c)
{
	return c->incarnation;
}

const char *cluster_api_url(const struct cluster *c)
{
	return c->api_url;
}

void cluster_ca_pin(struct cluster *c, uint8_t ret[32])
{
	uint8_t pins[CLUSTER_CA_PINS][32];

	IGNORE(cluster_ca_pins(c, pins) == 0);
	memcpy(ret, pins[0], 32);
}

/* A struct cluster_read is a struct store_read under another name. */
int cluster_read_begin(struct cluster *c, const char *name, struct cluster_read **ret,
		       struct err *err)
{
	struct store_read *read;
	int r = store_read_begin(c->store, name, &read, err);

	if (r == 0) {
		*ret = (struct cluster_read *)read;
	}
	return r;
}

const struct kv *cluster_read_kv(const struct cluster_read *r)
{
	return store_read_kv((const struct store_read *)r);
}

bool cluster_read_current(const struct cluster_read *r)
{
	return store_read_current((const struct store_read *)r);
}

void cluster_read_end(struct cluster_read *r)
{
	store_read_end((struct store_read *)r);
}

int cluster_precheck(struct cluster *c, const Command *cmd, struct arena *arena, struct err *err)
{
	struct cluster_read *read;
	int r = cluster_read_begin(c, "precheck", &read, err);

	if (r == 0) {
		r = cluster_precheck_in(read, cmd, arena, err);
		cluster_read_end(read);
	}
	return r;
}

int cluster_precheck_in(const struct cluster_read *read, const Command *cmd, struct arena *arena,
			struct err *err)
{
	static const uint8_t random[32];
	/*
	 * The state's time, not our clock: by a clock that is ahead a request id would be forgotten, and its repeat refused
	 * without the log. What has expired since the last entry is for the log to say.
	 */
	struct apply_context ctx = {.judge_only = true};
	struct apply_result result;
	Command copy = *cmd;
	int r;

	/* Without an origin: nothing of it is to be remembered. */
	copy.lighthouse = copy.incarnation = copy.sequence = copy.lowest_unanswered = 0;
	if (copy.random.len == 0) {
		copy.random =
			(ProtobufCBinaryData){.data = (uint8_t *)random, .len = sizeof(random)};
	}
	r = tailnet_apply(cluster_read_kv(read), &copy, &ctx, arena, &result, err);
	if (r != 0) {
		return r;
	}
	if (result.reply.code != 0) {
		err_reason(err, err_from_grpc(result.reply.code), result.reply.reason, "%s",
			   result.reply.message);
		if (err != NULL) {
			strncpy(err->field, result.reply.field, sizeof(err->field) - 1);
		}
	}
	return result.reply.code;
}

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
