/*
 * The state of this lighthouse is wrong: how it is noticed, and the repair.
 *
 *   scrub (here, on a worker)     the digest is not the sum of the records, or an index is not what the records say
 *   comparison (peer_digest.c)    a majority of the voters holds another state at the same point of the log
 *   LMDB, apply (store.c, fsm.c)  a page or a record makes no sense
 *      -> the store is marked, leadership handed over, the process ends (70): the next start drops the data and makes it
 *         anew from raft's snapshot and log. Wrong once more before anybody found it right: 65, a person is needed,
 *         unless its records have the digest.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "cluster/cluster_int.h"
#include "cluster/raft_log.h"
#include "tailnet/tailnet.h"

enum {
	HANDOVER_MS = 2000,
	SCRUB_RECORDS = 4000, /* between two looks at whether it is wanted */
	SCRUB_YIELD = 10,     /* steps of nice(2) */
	SCRUB_SOON_MS = 500,  /* after a start that may have brought something wrong */
	SCRUB_FIRST_MS = 600 * 1000,
	SCRUB_EVERY_MS = 6 * 3600 * 1000,
};

/* ---- the end ---- */

static const char again[] =
	"the store of this lighthouse is wrong (%s), again after it was rebuilt: it is "
	"not opened any more; test memory and disk; " RAFT_LOG_REMEDY;

void damage_fail(struct store *s, int code, const struct err *err)
{
	char what[sizeof(err->msg)];
	int r;

	snprintf(what, sizeof(what), "%s", err_msg(err, code));
	if (code != ERR_CORRUPT && store_damage(s) == NULL) {
		cluster_fail_as(code == ERR_FEATURE_LEVEL || code == ERR_UNIMPLEMENTED
					? CLUSTER_EXIT_OLD_BUILD
					: CLUSTER_EXIT_FAIL_STOP,
				"this lighthouse cannot go on: %s", what);
		return;
	}
	r = store_order_rebuild(s, what, NULL);
	if (r == ERR_CORRUPT) {
		cluster_fail_as(CLUSTER_EXIT_DATA, again, what);
	} else {
		cluster_fail(
			"this lighthouse cannot go on: %s; %s", what,
			r == 0 ? "its store is rebuilt from the log at the next start"
			       : "remove the directory `store` in its state directory, and it is "
				 "rebuilt from the log at the next start");
	}
}

static void on_end(void *arg)
{
	struct cluster *c = arg;
	struct err err = {0};

	loop_timer_stop(&c->damage_timer);
	if (c->damage_told) {
		return;
	}
	c->damage_told = true;
	err_set(&err, ERR_CORRUPT, "its state is wrong: %s", c->damage);
	damage_fail(c->store, ERR_CORRUPT, &err);
}

static void on_transferred(void *arg, const struct err *err)
{
	(void)err;
	on_end(arg);
}

struct damage {
	struct cluster *c;
	char why[sizeof(((struct cluster *)0)->damage)];
};

static void on_damage(void *arg)
{
	struct damage *d = arg;
	struct cluster *c = d->c;
	bool other = false;

	if (c->damage[0] != '\0' || c->stopping) {
		mem_free(d);
		return;
	}
	memcpy(c->damage, d->why, sizeof(c->damage));
	mem_free(d);
	METRICS_COUNT("skerry_store_damage_total",
		      "Times that this lighthouse's state was found wrong.", 1);
	LOG_ERROR("the state of this lighthouse is wrong: %s", c->damage);
	for (size_t i = 0; i < c->state.n; i++) {
		other |= c->state.server[i].id != c->id && c->state.server[i].role == LINK_VOTER;
	}
	if (!other || !consensus_leads(c->cs)) {
		on_end(c);
		return;
	}
	loop_timer_start(&c->damage_timer, c->loop, HANDOVER_MS, on_end, c);
	consensus_change(c->cs, CONSENSUS_TRANSFER, 0, NULL, on_transferred, c);
}

void cluster_damage(struct cluster *c, const char *fmt, ...)
{
	struct damage *d = MEM_NEW(struct damage);
	va_list ap;

	d->c = c;
	va_start(ap, fmt);
	vsnprintf(d->why, sizeof(d->why), fmt, ap);
	va_end(ap);
	loop_post_reply(c->loop, on_damage, d);
}

/* ---- nothing wrong ---- */

/* A rebuilt store is trusted when its records were summed up and the others hold the same. */
static void settle(struct cluster *c)
{
	size_t voters = 0;
	struct err err = {0};

	for (size_t i = 0; i < c->state.n; i++) {
		voters += c->state.server[i].role == LINK_VOTER;
	}
	if (c->settled || store_rebuilt(c->store) == NULL || !c->scrub.passed ||
	    (voters > 1 && !c->digest_right)) {
		return;
	}
	if (store_settle(c->store, &err) != 0) {
		LOG_WARN("%s", err.msg);
		return;
	}
	c->settled = true;
	LOG_INFO("the rebuilt store was found right");
}

static void on_right(void *arg)
{
	struct cluster *c = arg;

	c->digest_right = true;
	atomic_store(&c->compared_ms, clock_wall_ms());
	settle(c);
}

void link_digest_verdict(struct cluster *c, uint64_t marker, const uint8_t right[32])
{
	uint8_t own[32];
	uint64_t revision;

	if (link_digest(c, marker, own, &revision) != 0) {
		return; /* long ago, or not here yet */
	}
	if (memcmp(own, right, sizeof(own)) == 0) {
		loop_post_reply(c->loop, on_right, c);
	} else {
		cluster_damage(c,
			       "at revision %" PRIu64
			       " a majority of the voters holds another state than this lighthouse",
			       revision);
	}
}

/* ---- scrub ---- */

static void scrub_begin(void *arg);
static void scrub_next(void *arg);

/* Whether the records are those of the digest, whatever else is wrong. */
static int scrub_sum(struct scrub *s)
{
	struct tailnet_scrub sum = {0};
	bool done = false;
	int r = 0;

	while (r == 0 && !done && !atomic_load(&s->cancel)) {
		r = tailnet_scrub_step(store_read_kv(s->read), &sum, SCRUB_RECORDS, &done, &s->err);
	}
	return r;
}

/*
 * On a thread of its own that comes after all others, at one go: as long as the view lasts, the store can use no page again.
 */
static void scrub_work(void *arg)
{
	struct scrub *s = arg;

	loop_work_yield(SCRUB_YIELD);
	while (s->result == 0 && !s->done && !atomic_load(&s->cancel)) {
		s->result = tailnet_check_step(s->check, SCRUB_RECORDS, &s->done, &s->err);
	}
	if (s->result == ERR_CORRUPT && s->rebuilt) {
		snprintf(s->odd, sizeof(s->odd), "%s", s->err.msg);
		memset(&s->err, 0, sizeof(s->err));
		s->result = scrub_sum(s);
	}
}

static void scrub_end(struct scrub *s)
{
	tailnet_check_free(s->check);
	s->check = NULL;
	store_read_end(s->read);
	s->read = NULL;
}

static void scrub_passed(struct cluster *c)
{
	struct scrub *s = &c->scrub;

	METRICS_COUNT("skerry_scrubs_total",
		      "Times that all records and indexes were looked at and were right.", 1);
	LOG_DEBUG("scrub: %" PRIu64 " records are right", tailnet_check_records(s->check));
	atomic_store(&s->passed_ms, clock_wall_ms());
	s->passed = true;
	settle(c);
}

/*
 * A store that was just made anew from the log, and whose records have the digest, breaks a rule: another rebuild does not help,
 * and all lighthouses are alike in it. That is a fault of this software, not of the host, and no reason to serve nobody.
 */
static void scrub_odd(struct scrub *s)
{
	METRICS_COUNT("skerry_scrub_contradictions_total",
		      "Times that a rebuilt store, whose digest is right, contradicted itself.", 1);
	LOG_ERROR("%s; the store was made anew from the log and its digest is right, so this is a "
		  "fault of skerryd: it goes on; please report it",
		  s->odd);
}

static void scrub_done(void *arg)
{
	struct scrub *s = arg;
	struct cluster *c = s->c;

	s->working = false;
	if (c->stopping) {
		scrub_end(s);
		return;
	}
	if (s->result == 0 && s->odd[0] != '\0') {
		scrub_odd(s);
	} else if (s->result == 0) {
		scrub_passed(c);
	} else if (s->result == ERR_CORRUPT) {
		cluster_damage(c, "%s", s->err.msg);
	} else {
		LOG_WARN("scrub: %s", err_msg(&s->err, s->result));
	}
	scrub_end(s);
	loop_timer_start(&s->timer, c->loop, s->every_ms, scrub_begin, s);
}

static void scrub_next(void *arg)
{
	struct scrub *s = arg;

	s->working = loop_work_alone(s->c->loop, scrub_work, scrub_done, s) == 0;
	if (!s->working) {
		loop_timer_start(&s->timer, s->c->loop, SCRUB_SOON_MS, scrub_next, s);
	}
}

static void scrub_begin(void *arg)
{
	struct scrub *s = arg;
	struct cluster *c = s->c;

	if (c->view.epoch == 0 || store_read_begin(c->store, "scrub", &s->read, NULL) != 0) {
		loop_timer_start(&s->timer, c->loop, SCRUB_SOON_MS, scrub_begin, s);
		return;
	}
	s->check = tailnet_check_new(store_read_kv(s->read));
	s->rebuilt = store_rebuilt(c->store) != NULL && !c->settled;
	s->odd[0] = '\0';
	memset(&s->err, 0, sizeof(s->err));
	s->result = 0;
	s->done = false;
	scrub_next(s);
}

void scrub_start(struct cluster *c, uint64_t every_ms)
{
	struct scrub *s = &c->scrub;
	bool soon = store_unclean(c->store) || store_rebuilt(c->store) != NULL;

	s->c = c;
	s->every_ms = every_ms != 0 ? every_ms : SCRUB_EVERY_MS;
	loop_timer_start(&s->timer, c->loop,
			 soon ? SCRUB_SOON_MS : MIN(s->every_ms, (uint64_t)SCRUB_FIRST_MS),
			 scrub_begin, s);
	snapshot_scrub_start(c, s->every_ms);
}

void scrub_stop(struct cluster *c)
{
	loop_timer_stop(&c->damage_timer);
	loop_timer_stop(&c->scrub.timer);
	snapshot_scrub_stop(c);
	atomic_store(&c->scrub.cancel, true);
	if (c->scrub.read != NULL && !c->scrub.working) {
		scrub_end(&c->scrub);
	}
}
