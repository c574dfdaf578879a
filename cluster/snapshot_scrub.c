/*
 * The newest snapshot on the disk is read once in a while: nothing needs it as long as all goes well, and a store that is made
 * anew, or a lighthouse far behind, needs all of it. One that was damaged meanwhile costs nothing now, as the state is in the
 * store: a new one is made at once.
 */
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "cluster/cluster_int.h"

enum {
	PORTION = 4 << 20,
	PAUSE = 4, /* times as long as the portion took */
	PAUSE_MIN_MS = 2,
	SOON_MS = 500,
	FIRST_MS = 600 * 1000,
};

static void scrub_begin(void *arg);
static void scrub_next(void *arg);

static void work(void *arg)
{
	struct snapshot_scrub *s = arg;
	uint64_t begin = clock_mono_ns();

	s->result = snapshot_look_step(s->look, PORTION, &s->done, &s->err);
	s->took_ms = (clock_mono_ns() - begin) / 1000000;
}

static void look_end(struct snapshot_scrub *s)
{
	snapshot_look_free(s->look);
	s->look = NULL;
}

static void on_marked(void *arg, const struct err *err,
		      const Skerry__Internal__V1__CommandResult *r)
{
	(void)arg;
	(void)err; /* the next entry does it, whoever writes it */
	(void)r;
}

/* libraft makes one behind an entry: here is one, however quiet the cluster is. */
static void entry_make(struct cluster *c)
{
	Skerry__Internal__V1__Command cmd = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Skerry__Internal__V1__Actor actor = SKERRY__INTERNAL__V1__ACTOR__INIT;
	Skerry__Internal__V1__DigestMarker body = SKERRY__INTERNAL__V1__DIGEST_MARKER__INIT;
	struct propose_options o = {.class = PROPOSE_INTERNAL};

	actor.kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_LIGHTHOUSE;
	actor.id = c->id;
	cmd.actor = &actor;
	body.id = rand_id63();
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_DIGEST_MARKER;
	cmd.digest_marker = &body;
	IGNORE(cluster_propose(c, c->loop, &cmd, &o, on_marked, NULL, NULL));
}

static void damaged(struct snapshot_scrub *s)
{
	struct snapshot_file now;

	/* Meanwhile there may be another one, and this one gone. */
	if (!snapshot_newest(s->dir, &now) || strcmp(now.name, s->file.name) != 0) {
		return;
	}
	if (strcmp(s->told, s->file.name) != 0) {
		memcpy(s->told, s->file.name, sizeof(s->told));
		counter_inc(s->damages);
		LOG_ERROR("the snapshot %s/%s is damaged: %s; a new one is made at once; test "
			  "memory and disk",
			  s->dir, s->file.name, s->err.msg);
	}
	consensus_snapshot_now(s->c->cs);
	entry_make(s->c);
}

static void work_done(void *arg)
{
	struct snapshot_scrub *s = arg;

	s->working = false;
	if (s->c->stopping) {
		look_end(s);
		return;
	}
	if (s->result == 0 && !s->done) {
		loop_timer_start(&s->timer, s->c->loop,
				 MAX(s->took_ms * PAUSE, (uint64_t)PAUSE_MIN_MS), scrub_next, s);
		return;
	}
	if (s->result == 0) {
		counter_inc(s->passes);
	} else {
		damaged(s);
	}
	look_end(s);
	loop_timer_start(&s->timer, s->c->loop, s->every_ms, scrub_begin, s);
}

static void scrub_next(void *arg)
{
	struct snapshot_scrub *s = arg;

	s->working = loop_work(s->c->loop, work, work_done, s) == 0;
	if (!s->working) {
		loop_timer_start(&s->timer, s->c->loop, SOON_MS, scrub_next, s);
	}
}

static void scrub_begin(void *arg)
{
	struct snapshot_scrub *s = arg;
	bool there = snapshot_newest(s->dir, &s->file);
	char *path = mem_printf("%s/%s", s->dir, s->file.name);

	memset(&s->err, 0, sizeof(s->err));
	if (there && snapshot_look_new(path, &s->look, &s->err) == 0) {
		scrub_next(s);
	} else {
		if (there) {
			LOG_DEBUG("snapshot: %s", s->err.msg);
		}
		loop_timer_start(&s->timer, s->c->loop, s->every_ms, scrub_begin, s);
	}
	mem_free(path);
}

void snapshot_scrub_start(struct cluster *c, uint64_t every_ms)
{
	struct snapshot_scrub *s = &c->snapshot_scrub;

	s->c = c;
	s->every_ms = every_ms;
	s->dir = mem_printf("%s/raft", c->dir);
	s->passes = metrics_counter(
		"skerry_snapshot_scrubs_total",
		"Times that the newest snapshot on the disk was read and was right.", NULL);
	s->damages = metrics_counter("skerry_snapshot_damage_total",
				     "Snapshots on the disk that were found damaged.", NULL);
	loop_timer_start(&s->timer, c->loop, MIN(every_ms, (uint64_t)FIRST_MS), scrub_begin, s);
}

void snapshot_scrub_stop(struct cluster *c)
{
	loop_timer_stop(&c->snapshot_scrub.timer);
	if (c->snapshot_scrub.look != NULL && !c->snapshot_scrub.working) {
		look_end(&c->snapshot_scrub);
	}
}

void snapshot_scrub_done(struct cluster *c)
{
	mem_free(c->snapshot_scrub.dir);
}
