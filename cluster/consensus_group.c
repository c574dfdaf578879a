/*
 * Groups: all commands that arrived while an entry was on its way go into the next one.
 *
 *   submit -> queue -> (pump) one entry -> raft_apply -> ... committed -> group_apply on every replica
 *          -> end of the turn: group_commit: one LMDB commit for all entries of the turn -> events, done()
 *
 * Read markers ride in the same entry and are done with its index; without commands the entry is empty.
 */
#include <string.h>

#include "base/clock.h"
#include "base/enc.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "cluster/consensus_int.h"
#include "cluster/entry.h"
#include "cluster/raft_metrics.h"

enum { CHECKSUM_AT = 48 };

void group_checksum(const void *entry, uint8_t out[16])
{
	memcpy(out, (const uint8_t *)entry + CHECKSUM_AT, 16);
}

static struct consensus_command *command_pop(struct list *l)
{
	struct list *n = list_pop(l);

	return n != NULL ? LIST_ENTRY(n, struct consensus_command, node) : NULL;
}

static void done_error(struct list *l, int code, const char *reason, const char *text)
{
	struct consensus_command *c;

	while ((c = command_pop(l)) != NULL) {
		struct err err = {0};

		err_reason(&err, code, reason, "%s", text);
		c->done(c, &err, 0, NULL);
	}
}

/* ---- proposing ---- */

/*
 * The leader's stamp. State time never falls. While a majority's clocks do not agree with ours, it runs on at the pace of the
 * monotonic clock from where it stood when they last did (or when we took the lead), and is at most 10 s ahead of that
 * however many entries there are.
 */
static uint64_t stamp(struct consensus *cs)
{
	uint64_t wall = (uint64_t)MAX(clock_wall_ms(), 0);
	uint64_t before = cs->view.time_ms;
	uint64_t now = clock_mono_ms();
	unsigned voters = 0;
	int64_t moved = clock_skew_ms() - cs->agreed_skew_ms;
	/* The others are compared with once a second; a clock that was set since then was not. */
	bool agreed = cs->clocks_agree && moved <= STAMP_STEP_MS && moved >= -STAMP_STEP_MS;

	for (unsigned i = 0; i < cs->raft.configuration.n; i++) {
		voters += cs->raft.configuration.servers[i].role == RAFT_VOTER;
	}
	if (before == 0 || voters < 2 || agreed) {
		cs->pace_time_ms = MAX(wall, before);
		cs->pace_mono_ms = now;
		return cs->pace_time_ms;
	}
	if (cs->pace_mono_ms == 0) {
		cs->pace_time_ms = before;
		cs->pace_mono_ms = cs->stamp_mono_ms;
	}
	wall = MIN(wall, cs->pace_time_ms + (now - cs->pace_mono_ms) + STAMP_STEP_MS);
	return MAX(wall, before);
}

/* Moves what fits from the queue to the group; what waited too long is answered. Returns the bytes. */
static size_t group_gather(struct consensus *cs, size_t *ret_count)
{
	struct group *g = &cs->group;
	uint64_t now = clock_mono_ms();
	struct list late;
	size_t bytes = 0, count = 0;

	list_init(&late);
	while (!list_empty(&cs->queue) && count < GROUP_COMMANDS) {
		struct consensus_command *c =
			LIST_ENTRY(cs->queue.next, struct consensus_command, node);

		if (c->deadline_ms != 0 && now >= c->deadline_ms) {
			list_remove(&c->node);
			list_push(&late, &c->node);
			cs->queued--;
			continue;
		}
		/* Before there is a state its epoch is unknown: the bootstrap travels alone. */
		if (count > 0 && (bytes + c->len > LIM_ENTRY_GROUP_BYTES || cs->view.epoch == 0)) {
			break;
		}
		list_remove(&c->node);
		list_push(&g->commands, &c->node);
		cs->queued--;
		bytes += c->len;
		count++;
	}
	cs->queued -= list_len(&cs->markers);
	list_splice(&g->markers, &cs->markers);
	done_error(&late, ERR_DEADLINE, "",
		   "the deadline passed while the command waited for the log");
	*ret_count = count;
	return bytes;
}

static void on_applied(struct raft_apply *req, int status, void *result)
{
	struct consensus *cs = req->data;
	struct group *g = &cs->group;

	(void)result;
	g->flying = false;
	cs->ended = true;
	if (status == 0) {
		histogram_observe(raft_metrics()->commit,
				  (double)(clock_mono_ns() - g->since_ns) / 1e9);
	}
	if (status == 0 || (list_empty(&g->commands) && list_empty(&g->markers))) {
		POST(list_empty(&g->commands) && list_empty(&g->markers));
		return;
	}
	done_error(&g->commands, ERR_UNAVAILABLE, "FATE_UNKNOWN",
		   "leadership was lost while the command was in the log");
	done_error(&g->markers, ERR_NOT_LEADER, "", "leadership was lost");
}

#ifdef SKERRY_BREAK_DURABLE_ACK
/*
 * Only in builds that are broken on purpose: answers a command as soon as it is here, before it is in any log, by what the
 * state as it is makes of it; a copy goes its way. The history checker has to see it (tests/chaos/catches.sh). Of users
 * alone: whoever makes a key or a token would find it missing at once.
 */
struct early {
	struct consensus_command command;
	uint8_t data[];
};

static void early_done(struct consensus_command *c, const struct err *err, uint64_t index,
		       const Skerry__Internal__V1__CommandResult *r)
{
	(void)err;
	(void)index;
	(void)r;
	mem_free(c);
}

static struct applied *early_judge(struct consensus *cs, const struct consensus_command *c)
{
	struct entry_header h = {.feature_level = cs->view.feature_level,
				 .cluster_id = cs->cluster_id,
				 .epoch = cs->view.epoch,
				 .time_ms = stamp(cs)};
	size_t len = entry_size(1, c->len);
	uint8_t *entry = mem_alloc(len);
	struct applied *a = NULL;
	struct kv_overlay *over;
	struct store_read *read;
	struct entry_writer w;
	struct kv kv;

	entry_begin(&w, entry, len);
	entry_add(&w, c->data, c->len);
	entry_seal(&w, &h);
	if (store_read_begin(cs->store, "broken", &read, NULL) == 0) {
		over = kv_overlay_new(store_read_kv(read));
		kv = kv_overlay_kv(over);
		if (fsm_apply(&kv, cs->cluster_id, entry, len, cs->raft.last_applied + 1, &a,
			      NULL) != 0) {
			a = NULL;
		}
		kv_overlay_free(over);
		store_read_end(read);
	}
	mem_free(entry);
	return a;
}

static void acknowledge_early(struct consensus *cs)
{
	struct err ok = {0};

	if (store_writing(cs->store) || cs->view.epoch == 0) {
		return;
	}
	LIST_FOREACH_SAFE(&cs->queue, it, tmp)
	{
		struct consensus_command *c = LIST_ENTRY(it, struct consensus_command, node);
		struct applied *a = c->done != early_done ? early_judge(cs, c) : NULL;

		if (a != NULL && strstr(a->command[0].result->object, "/users/") != NULL) {
			struct early *copy = mem_alloc(sizeof(*copy) + c->len);

			copy->command = *c;
			memcpy(copy->data, c->data, c->len);
			copy->command.data = copy->data;
			copy->command.deadline_ms = 0;
			copy->command.done = early_done;
			list_remove(it);
			list_push(&cs->queue, &copy->command.node);
			c->done(c, &ok, a->index, a->command[0].result);
		}
		applied_free(a);
	}
}
#endif

static void on_wait(void *arg)
{
	struct consensus *cs = arg;

	group_wait_miss(&cs->wait);
	group_pump(cs);
}

static void wait_judge(struct consensus *cs)
{
	struct group *g = &cs->group;
	uint64_t ms;

	if (!cs->ended || g->flying) {
		return;
	}
	cs->ended = false;
	ms = group_wait_begin(&cs->wait, g->count, cs->queued,
			      (clock_mono_ns() - g->since_ns) / 1000000);
	if (ms > 0) {
		loop_timer_start(&cs->wait_timer, cs->loop, ms, on_wait, cs);
	}
}

static bool may_propose(struct consensus *cs)
{
	return !cs->closing && !cs->group.flying && cs->raft.state == RAFT_LEADER &&
	       cs->told_state == RAFT_LEADER && cs->raft.transfer == NULL &&
	       raft_last_applied(&cs->raft) >= cs->ready_index && list_empty(&cs->backlog) &&
	       (!list_empty(&cs->queue) || !list_empty(&cs->markers)) &&
	       !group_wait_on(&cs->wait, cs->queued);
}

void group_pump(struct consensus *cs)
{
	struct group *g = &cs->group;
	struct entry_writer w;
	struct entry_header h;
	struct raft_buffer buf;
	size_t bytes, count;
	raft_index commit;
	int rv;

	done_error(&cs->refused, ERR_NOT_LEADER, "", "this lighthouse does not lead");
#ifdef SKERRY_BREAK_DURABLE_ACK
	acknowledge_early(cs);
#endif
	wait_judge(cs);
	if (!may_propose(cs)) {
		return;
	}
	bytes = group_gather(cs, &count);
	if (count == 0 && list_empty(&g->markers)) {
		return;
	}
	buf.len = entry_size(count, bytes);
	buf.base = raft_malloc(buf.len);
	PRE(buf.base != NULL);
	entry_begin(&w, buf.base, buf.len);
	LIST_FOREACH(&g->commands, it)
	{
		struct consensus_command *c = LIST_ENTRY(it, struct consensus_command, node);

		entry_add(&w, c->data, c->len);
	}
	h = (struct entry_header){
		.flags = cs->first_group && count > 0 ? ENTRY_LEADER_GAP : 0,
		.feature_level = cs->view.feature_level != 0 ? cs->view.feature_level
							     : FEATURE_LEVEL_MAX,
		.cluster_id = cs->cluster_id,
		.epoch = cs->view.epoch,
		.time_ms = stamp(cs),
	};
	entry_seal(&w, &h);
	group_checksum(buf.base, g->checksum);
	g->req.data = cs;
	commit = cs->raft.commit_index;
	rv = raft_shim_propose(&cs->shim, &g->req, &buf, on_applied);
	if (rv == 0) {
		cs->pushed_commit = commit; /* it told everybody of that much, and no more */
		g->flying = true;
		loop_timer_stop(&cs->push);
		loop_timer_stop(&cs->wait_timer);
		g->index = g->req.index;
		g->count = count;
		cs->first_group = cs->first_group && count == 0;
		g->since_ns = clock_mono_ns();
		if (count > 0) {
			histogram_observe(raft_metrics()->group, (double)count);
		}
		cs->stats.groups++;
		cs->stats.commands += count;
		cs->stats.markers += list_len(&g->markers);
		return;
	}
	if (rv == RAFT_NOTLEADER || rv == RAFT_CANTCHANGE) {
		raft_free(buf.base);
		done_error(&g->commands, ERR_NOT_LEADER, "", "this lighthouse does not lead");
		done_error(&g->markers, ERR_NOT_LEADER, "", "this lighthouse does not lead");
		return;
	}
	if (rv == RAFT_NOSPACE) {
		raft_free(buf.base);
		done_error(&g->commands, ERR_LIMIT, "DISK_FULL",
			   "the disks of most lighthouses are full: free space in their state "
			   "directories");
		done_error(&g->markers, ERR_NO_QUORUM, "",
			   "the disks of most lighthouses are full");
		return;
	}
	/* The core has counted the entry; the buffer is no longer ours. */
	cluster_fail("raft log: proposing %zu bytes failed: %s", buf.len, raft_strerror(rv));
	done_error(&g->commands, ERR_INTERNAL, "", "raft failed");
	done_error(&g->markers, ERR_INTERNAL, "", "raft failed");
}

/* Whether most voters are known to hold what we hold up to some index: libraft then sends entries at once. */
static bool majority_matched(struct consensus *cs)
{
	unsigned voters = 0, matched = 0;

	for (unsigned i = 0; i < cs->raft.configuration.n; i++) {
		const struct raft_server *s = &cs->raft.configuration.servers[i];
		raft_index match = 0;

		if (s->role != RAFT_VOTER) {
			continue;
		}
		voters++;
		matched += s->id == cs->id ||
			   (raft_match_index(&cs->raft, s->id, &match) == 0 && match > 0);
	}
	return matched > voters / 2;
}

static void on_push(void *arg)
{
	struct consensus *cs = arg;

	if (!cs->closing && cs->raft.state == RAFT_LEADER &&
	    cs->raft.commit_index != cs->pushed_commit) {
		raft_shim_push(&cs->shim);
		cs->pushed_commit = cs->raft.commit_index;
	}
}

/*
 * Followers apply an entry when they are told that it is committed, which rides in the next entry or, up to some 40 ms
 * later, in a heartbeat. Who waits on a follower learns of it by the answer to his call (consensus_committed()); the others
 * are told a little later, unless an entry that went after the commit has told them: a message to each follower, and its
 * answer, for every group, would be as many as the entries themselves. The first entries of a term, which libraft sends
 * with heartbeats alone, go at once.
 */
void group_push(struct consensus *cs)
{
	struct raft *r = &cs->raft;
	uint64_t last;

	if (cs->closing || r->state != RAFT_LEADER || cs->told_state != RAFT_LEADER ||
	    r->configuration.n < 2) {
		return;
	}
	last = raft_last_index(r);
	if (last == cs->pushed_index && r->commit_index == cs->pushed_commit) {
		return;
	}
	cs->pushed_index = last;
	if (!majority_matched(cs)) {
		raft_shim_push(&cs->shim);
		cs->pushed_commit = r->commit_index;
	} else if (r->commit_index != cs->pushed_commit && !loop_timer_active(&cs->push)) {
		loop_timer_start(&cs->push, cs->loop, LAZY_MS, on_push, cs);
	}
}

/* ---- applying ---- */

static int apply(struct consensus *cs, const void *data, size_t len, uint64_t index)
{
	struct group *g = &cs->group;
	struct applied *a;
	struct err err = {0};
	uint8_t sum[16];
	const struct kv *kv;
	uint64_t start_ns = clock_mono_ns(), ns;
	int r;

	r = store_write(cs->store, &kv, &err);
	if (r == 0) {
		r = fsm_apply(kv, cs->cluster_id, data, len, index, &a, &err);
	}
	if (r == 0) {
		r = store_set_applied(cs->store, index, &err);
		if (r != 0) {
			applied_free(a);
		}
	}
	if (r != 0) {
		damage_fail(cs->store, r, &err);
		return RAFT_INVALID;
	}
	group_checksum(data, sum);
	if (g->flying && g->index == index && memcmp(g->checksum, sum, sizeof(sum)) == 0) {
		a->own = true;
		POST(list_len(&g->commands) == a->n);
		list_splice(&cs->done_commands, &g->commands);
		list_splice(&a->markers, &g->markers);
	}
	cs->view = (struct state_view){
		.cluster_id = cs->cluster_id,
		.epoch = a->epoch,
		.revision = a->revision,
		.time_ms = a->time_ms,
		.bytes = a->bytes,
		.feature_level = a->feature_level,
	};
	memcpy(cs->view.digest, a->digest, sizeof(a->digest));
	cs->stamp_mono_ms = clock_mono_ms();
	list_push(&cs->applied, &a->node);
	cs->unsettled++;
	ns = clock_mono_ns() - start_ns;
	cs->apply_ns += ns;
	histogram_observe(raft_metrics()->apply, (double)ns / 1e9);
	return 0;
}

/*
 * libraft hands out everything up to the commit index at once: to one that catches up that may be seconds of work. What is
 * more than one turn's share waits here, as committed as ever, and is applied in the turns that follow. A leader has
 * one entry in flight and proposes none while something waits, so that its own are never among them.
 */
struct waiting {
	struct list node;
	uint64_t index;
	size_t len;
	uint8_t data[];
};

static void on_drain(uv_idle_t *h)
{
	(void)h; /* that it runs keeps the loop from sleeping */
}

static int apply_waiting(struct consensus *cs)
{
	struct waiting *w = LIST_ENTRY(list_pop(&cs->backlog), struct waiting, node);
	int r = w->index > store_applied(cs->store) ? apply(cs, w->data, w->len, w->index) : 0;

	mem_free(w);
	if (list_empty(&cs->backlog)) {
		uv_idle_stop(&cs->drain);
	}
	return r;
}

int group_apply(struct consensus *cs, const void *data, size_t len, uint64_t index)
{
	bool own = cs->group.flying && cs->group.index == index;
	struct waiting *w;
	int r = 0;

	cs->log_bytes += len;
	if (index <= store_applied(cs->store)) {
		return 0; /* after a restart: the store has it */
	}
	while (own && r == 0 && !list_empty(&cs->backlog)) {
		r = apply_waiting(cs);
	}
	if (r != 0) {
		return r;
	}
	if (own || (list_empty(&cs->backlog) && cs->apply_ns < cs->apply_turn_ns)) {
		return apply(cs, data, len, index);
	}
	w = mem_alloc(sizeof(*w) + len);
	w->index = index;
	w->len = len;
	memcpy(w->data, data, len);
	list_push(&cs->backlog, &w->node);
	uv_idle_start(&cs->drain, on_drain);
	return 0;
}

void group_drain(struct consensus *cs)
{
	cs->apply_ns = 0;
	while (!list_empty(&cs->backlog) && cs->apply_ns < cs->apply_turn_ns &&
	       apply_waiting(cs) == 0) {
	}
}

void group_drop_waiting(struct consensus *cs)
{
	while (!list_empty(&cs->backlog)) {
		mem_free(LIST_ENTRY(list_pop(&cs->backlog), struct waiting, node));
	}
	uv_idle_stop(&cs->drain);
}

static void answer(struct consensus *cs, struct applied *a)
{
	uint64_t term = cs->raft.state == RAFT_LEADER ? cs->raft.current_term : 0;
	struct err ok = {0};
	struct consensus_command *c;

	for (size_t i = 0; a->own && i < a->n; i++) {
		c = command_pop(&cs->done_commands);
		c->term = term;
		c->done(c, &ok, a->index, a->command[i].result);
	}
	while ((c = command_pop(&a->markers)) != NULL) {
		c->term = term;
		c->done(c, &ok, a->index, NULL);
	}
}

/*
 * libraft hands out what a majority has committed, perhaps before our own disk has it. The store waits for our log: were it
 * ahead after a crash, it could not be told from one beside which an older copy of the log was put. The end of the append
 * is a turn of its own.
 */
bool group_held(const struct consensus *cs)
{
	return store_writing(cs->store) && store_applied(cs->store) > cs->raft.last_stored;
}

static void on_settle(void *arg)
{
	struct consensus *cs = arg;

	cs->settle_due = true; /* the turn does it */
}

/*
 * A transaction of the store costs more than an entry of one command: the pages on the way to its records are copied
 * once in each. Where we follow and nobody here waits, the entries of a few milliseconds share one.
 */
bool group_lazy(struct consensus *cs)
{
	if (!store_writing(cs->store) || cs->closing || cs->raft.state != RAFT_FOLLOWER ||
	    cs->settle_due || cs->restored || cs->unsettled >= LAZY_ENTRIES ||
	    cs->events->awaited == NULL || cs->events->awaited(cs->arg)) {
		return false;
	}
	if (!loop_timer_active(&cs->settle)) {
		loop_timer_start(&cs->settle, cs->loop, LAZY_MS, on_settle, cs);
	}
	return true;
}

void group_commit(struct consensus *cs)
{
	struct err err = {0};
	struct list batch;

	cs->settle_due = false;
	cs->unsettled = 0;
	if (store_writing(cs->store)) {
		int r = store_commit(cs->store, &err);

		if (r != 0) {
			damage_fail(cs->store, r, &err);
		}
	}
	/* A restore may follow on entries of the same turn that it holds, too: they are told of first. */
	list_init(&batch);
	list_splice(&batch, &cs->applied);
	while (!list_empty(&batch)) {
		struct applied *a = LIST_ENTRY(list_pop(&batch), struct applied, node);

		cs->view_index = a->index;
		cs->events->applied(cs->arg, a);
		answer(cs, a);
		applied_free(a);
	}
	if (cs->restored) {
		cs->restored = false;
		cs->view_index = store_applied(cs->store);
		cs->events->restored(cs->arg);
	}
}

void group_end(struct consensus *cs)
{
	group_drop_waiting(cs);
	if (!group_held(cs)) {
		group_commit(cs);
		return;
	}
	/* The end of libraft may cancel the append that the store waits for. */
	store_abort(cs->store);
	while (!list_empty(&cs->applied)) {
		struct applied *a = LIST_ENTRY(list_pop(&cs->applied), struct applied, node);

		done_error(&a->markers, ERR_CLOSED, "", "this lighthouse stops");
		applied_free(a);
	}
	done_error(&cs->done_commands, ERR_UNAVAILABLE, "FATE_UNKNOWN", "this lighthouse stops");
}

/* ---- leadership ---- */

void group_leadership(struct consensus *cs, bool leads)
{
	if (leads) {
		cs->ready_index = raft_last_index(&cs->raft);
		cs->first_group = true;
		cs->pace_mono_ms = 0;
		cs->leader_since_ms = clock_mono_ms();
		return;
	}
	cs->leader_since_ms = 0;
	cs->queued = 0;
	done_error(&cs->queue, ERR_NOT_LEADER, "", "this lighthouse does not lead any more");
	done_error(&cs->markers, ERR_NOT_LEADER, "", "this lighthouse does not lead any more");
}

void group_fail_all(struct consensus *cs, int code, const char *text)
{
	cs->queued = 0;
	done_error(&cs->refused, code, "", text);
	done_error(&cs->queue, code, "", text);
	done_error(&cs->markers, code, "", text);
	done_error(&cs->group.commands, ERR_UNAVAILABLE, "FATE_UNKNOWN", text);
	done_error(&cs->group.markers, code, "", text);
}

void consensus_submit(struct consensus *cs, struct consensus_command *cmd)
{
	if (cs->closing || cs->told_state != RAFT_LEADER) {
		list_push(&cs->refused, &cmd->node);
	} else {
		list_push(cmd->data != NULL ? &cs->queue : &cs->markers, &cmd->node);
		cs->queued++;
	}
	loop_flush_add(cs->loop, &cs->wake);
}
