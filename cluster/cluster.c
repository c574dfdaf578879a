/* The façade: opens a directory, runs the raft thread, and what any thread asks of it. */
#include "cluster/cluster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "cluster/cluster_int.h"
#include "cluster/peer.h"
#include "tailnet/query.h"

enum {
	PUBLISH_MS = 100,
	LOOK_MS = 1000, /* at disk and store */
	SYNC_MS =
		30000, /* the store: what the end has to write stays small, nothing else depends on it */
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

void cluster_early_connects(struct cluster *c)
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

static void on_link_ended(void *arg, uint64_t way, bool remote)
{
	struct cluster *c = arg;

	if (!c->stopping) {
		c->ops->ended(c->ops_impl, way, remote);
	}
}

static bool on_awaited(void *arg)
{
	const struct cluster *c = arg;

	return propose_awaits(c) || read_awaits(c);
}

static void on_silent(void *arg)
{
	struct cluster *c = arg;

	if (c->ops != NULL && c->ops->silent != NULL && !c->stopping) {
		c->ops->silent(c->ops_impl);
	}
}

static const struct consensus_events events = {
	.state = on_state,
	.applied = on_applied,
	.restored = on_restored,
	.awaited = on_awaited,
	.connect = on_connect,
	.silent = on_silent,
	.ended = on_link_ended,
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
	cluster_gauges(c);
	damage = store_damage(c->store);
	if (damage != NULL) {
		cluster_damage(c, "%s", damage);
	}
	disk_watch(c);
	watchdog_raft(c, c->peer != NULL ? peer_loop(c->peer) : NULL);
	consensus_links_renew(c->cs);
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
	cluster_gauges_make(c);
	list_init(&c->early);
	c->scrub_ms = o->scrub_ms;
	watchdog_init(c, o->turn_cpu_ms);
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
	r = begin_dirs(c, err);
	if (r == 0) {
		r = begin_state(c, o, &events, err);
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
	cluster_early_connects(c);
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
	cluster_early_connects(c);
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
	snapshot_scrub_done(c);
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
