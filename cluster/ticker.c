/* What consensus proposes by itself: Tick when a deadline of the state is due, LighthouseStart after the start. */
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cluster/cluster_int.h"

enum {
	TICK_MAX_MS = 60000, /* the longest sleep: clocks may be set */
	TICK_VAIN_MS = 250,  /* after a Tick that left its deadline in place */
	START_RETRY_MS = 500,
	START_DEADLINE_MS = 10000,
};

static void on_timer(void *arg)
{
	ticker_run(arg);
}

static void internal_command(struct cluster *c, Command *cmd, Actor *actor)
{
	skerry__internal__v1__command__init(cmd);
	skerry__internal__v1__actor__init(actor);
	actor->kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_LIGHTHOUSE;
	actor->id = c->id;
	cmd->actor = actor;
}

/* ---- Tick ---- */

static void on_tick_done(void *arg, const struct err *err, const CommandResult *r)
{
	struct cluster *c = arg;

	(void)err;
	(void)r;
	c->tick_running = false;
	if (!c->stopping) {
		ticker_run(c);
	}
}

static int next_deadline(struct cluster *c, uint64_t *ret)
{
	struct store_read *read;
	int r = store_read_begin(c->store, "tick", &read, NULL);

	if (r != 0) {
		return r;
	}
	r = tailnet_next_deadline(store_read_kv(read), ret);
	store_read_end(read);
	return r;
}

static void tick(struct cluster *c)
{
	struct propose_options o = {.class = PROPOSE_INTERNAL};
	Skerry__Internal__V1__Tick body = SKERRY__INTERNAL__V1__TICK__INIT;
	uint64_t now = (uint64_t)MAX(clock_wall_ms(), 0), due, wait;
	Command cmd;
	Actor actor;

	loop_timer_stop(&c->tick_timer);
	if (!consensus_leads(c->cs) || c->tick_running || c->view.epoch == 0 ||
	    next_deadline(c, &due) != 0 || due == 0) {
		return;
	}
	now = MAX(now, c->view.time_ms); /* the stamp of the next group is no less */
	if (due > now) {
		wait = MIN(due - now, (uint64_t)TICK_MAX_MS);
		loop_timer_start(&c->tick_timer, c->loop, wait, on_timer, c);
		return;
	}
	if (due == c->tick_due && c->tick_vain++ > 0) {
		/* The stamp lags (clocks disagree), or the work goes in many portions. */
		if (c->tick_vain > 64) {
			c->tick_vain = 0;
			loop_timer_start(&c->tick_timer, c->loop, TICK_VAIN_MS, on_timer, c);
			return;
		}
	}
	if (due != c->tick_due) {
		c->tick_vain = 0;
	}
	c->tick_due = due;
	internal_command(c, &cmd, &actor);
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_TICK;
	cmd.tick = &body;
	c->tick_running = true;
	if (cluster_propose(c, c->loop, &cmd, &o, on_tick_done, c, NULL) != 0) {
		c->tick_running = false;
		loop_timer_start(&c->tick_timer, c->loop, TICK_VAIN_MS, on_timer, c);
	}
}

/* ---- LighthouseStart ---- */

static void start(void *arg);

static void on_start_done(void *arg, const struct err *err, const CommandResult *r)
{
	struct cluster *c = arg;

	if (c->stopping) {
		return;
	}
	if (err->code == 0 && r->code != 0 && strcmp(r->reason, "FEATURE_LEVEL") == 0) {
		cluster_fail_as(CLUSTER_EXIT_OLD_BUILD, "this lighthouse cannot go on: %s",
				r->message);
		return;
	}
	/* A refusal is final: an id that is unknown or removed finds out on its links. */
	if (err->code != 0) {
		loop_timer_start(&c->start_timer, c->loop, START_RETRY_MS, start, c);
		return;
	}
	c->announced = true;
	propose_state(c);
}

static void start(void *arg)
{
	struct cluster *c = arg;
	struct propose_options o = {.class = PROPOSE_INTERNAL,
				    .deadline_ms = clock_mono_ms() + START_DEADLINE_MS};
	Skerry__Internal__V1__LighthouseStart body = SKERRY__INTERNAL__V1__LIGHTHOUSE_START__INIT;
	Command cmd;
	Actor actor;

	internal_command(c, &cmd, &actor);
	body.id = c->id;
	body.incarnation = c->incarnation;
	body.feature_min = FEATURE_LEVEL_MIN;
	body.feature_max = FEATURE_LEVEL_MAX;
	body.version = c->version;
	body.peer_address = c->peer_address;
	body.api_url = c->api_url;
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_LIGHTHOUSE_START;
	cmd.lighthouse_start = &body;
	if (cluster_propose(c, c->loop, &cmd, &o, on_start_done, c, NULL) != 0) {
		loop_timer_start(&c->start_timer, c->loop, START_RETRY_MS, start, c);
	}
}

void ticker_run(struct cluster *c)
{
	if (!c->stopping) {
		tick(c);
	}
}

void ticker_start(struct cluster *c)
{
	start(c);
}

void ticker_stop(struct cluster *c)
{
	loop_timer_stop(&c->tick_timer);
	loop_timer_stop(&c->start_timer);
}
