/*
 * Reads at a level. LOCAL: at once. REVISION: when the local state has reached it. LEADER: the leader puts a marker
 * into its next entry (all that wait share it, and it rides with commands); the read is answered when the entry is
 * committed and applied here. On another lighthouse one ReadIndex call at a time asks the leader for all that wait.
 */
#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "cluster/cluster_int.h"

enum { WATCH_MS = 20 };

struct read {
	struct list node; /* one of the lists of struct reads or of a mark */
	struct cluster *c;
	struct read_want want;
	uint64_t index;
	struct loop *loop;
	read_cb cb;
	void *arg;
	struct err err;
};

/* A marker on its way through our own log, with the reads that share it. */
struct mark {
	struct list node;
	struct consensus_command cmd;
	struct cluster *c;
	struct list reads;
};

static void read_fire(void *arg)
{
	struct read *r = arg;

	r->cb(r->arg, &r->err);
	mem_free(r);
}

static void finish(struct read *r)
{
	list_remove(&r->node);
	atomic_fetch_sub(&r->c->reads.count, 1);
	loop_post_reply(r->loop, read_fire, r);
}

static void finish_late(struct read *r)
{
	if (r->want.level == READ_REVISION) {
		err_reason(&r->err, ERR_DEADLINE, "REVISION_NOT_REACHED",
			   "revision %llu has not arrived on this lighthouse in time",
			   (unsigned long long)r->want.revision);
	} else {
		err_reason(&r->err, ERR_NO_QUORUM, "NO_QUORUM",
			   "no leader with a majority confirmed the read in time");
	}
	finish(r);
}

static bool late(const struct read *r)
{
	return r->want.deadline_ms != 0 && clock_mono_ms() >= r->want.deadline_ms;
}

static void watch(struct cluster *c);
static void ask(struct cluster *c);

static void await_index(struct read *r, uint64_t index)
{
	r->index = index;
	if (index <= consensus_applied(r->c->cs)) {
		finish(r);
		return;
	}
	list_remove(&r->node);
	list_push(&r->c->reads.index, &r->node);
	watch(r->c);
}

static void again(struct read *r)
{
	struct cluster *c = r->c;

	if (late(r)) {
		finish_late(r);
		return;
	}
	list_remove(&r->node);
	list_push(&c->reads.waiting, &r->node);
	watch(c);
}

/* ---- asking the leader ---- */

static void settle(struct list *reads, const struct err *err, uint64_t index)
{
	struct list batch;

	list_init(&batch);
	list_splice(&batch, reads);
	while (!list_empty(&batch)) {
		struct read *r = LIST_ENTRY(list_pop(&batch), struct read, node);

		if (err->code == 0) {
			await_index(r, index);
		} else {
			again(r);
		}
	}
}

static void on_marker(struct consensus_command *cmd, const struct err *err, uint64_t index,
		      const Skerry__Internal__V1__CommandResult *result)
{
	struct mark *m = container_of(cmd, struct mark, cmd);

	(void)result;
	list_remove(&m->node);
	settle(&m->reads, err, index);
	mem_free(m);
}

static void ask(struct cluster *c)
{
	struct reads *q = &c->reads;
	uint64_t leader = consensus_leader(c->cs), deadline = 0;

	if (c->stopping || list_empty(&q->waiting)) {
		return;
	}
#ifdef SKERRY_BREAK_READ
	/* Only in builds that are broken on purpose: who takes itself for the leader asks nobody. */
	if (consensus_leads(c->cs)) {
		struct err ok = {0};

		settle(&q->waiting, &ok, consensus_applied(c->cs));
		return;
	}
#endif
	if (consensus_leads(c->cs)) {
		struct mark *m = MEM_NEW(struct mark);

		m->c = c;
		m->cmd.done = on_marker;
		list_init(&m->reads);
		list_splice(&m->reads, &q->waiting);
		list_push(&q->marks, &m->node);
		consensus_submit(c->cs, &m->cmd);
		return;
	}
	if (leader == 0 || leader == c->id || q->request != 0) {
		return;
	}
	list_splice(&q->asking, &q->waiting);
	LIST_FOREACH(&q->asking, it)
	{
		deadline = MAX(deadline, LIST_ENTRY(it, struct read, node)->want.deadline_ms);
	}
	q->request = ++c->prop.next_request;
	c->ops->read_index(c->ops_impl, q->request, leader, deadline);
}

struct read_answer {
	struct cluster *c;
	uint64_t request;
	struct link_place at;
	struct err err;
};

static void on_answer(void *arg)
{
	struct read_answer *a = arg;
	struct cluster *c = a->c;

	if (c->stopping || a->request != c->reads.request) {
		mem_free(a);
		return;
	}
	c->reads.request = 0;
	settle(&c->reads.asking, &a->err, a->at.index);
	if (a->err.code == 0 && a->at.index > consensus_applied(c->cs)) {
		consensus_committed(c->cs, a->at.term, a->at.index);
	}
	/* After an error the watch asks again, in a moment; what came meanwhile goes at once. */
	if (a->err.code == 0) {
		ask(c);
	}
	mem_free(a);
}

void link_read_index(struct cluster *c, uint64_t request, const struct err *err,
		     struct link_place at)
{
	struct read_answer *a = MEM_NEW(struct read_answer);

	a->c = c;
	a->request = request;
	a->at = at;
	if (err != NULL) {
		a->err = *err;
	}
	loop_post_reply(c->loop, on_answer, a);
}

/* ---- waiting ---- */

static void judge_late(struct list *l)
{
	LIST_FOREACH_SAFE(l, it, tmp)
	{
		struct read *r = LIST_ENTRY(it, struct read, node);

		if (late(r)) {
			finish_late(r);
		}
	}
}

static void on_watch(void *arg)
{
	struct cluster *c = arg;

	judge_late(&c->reads.revision);
	judge_late(&c->reads.index);
	judge_late(&c->reads.asking);
	judge_late(&c->reads.waiting);
	LIST_FOREACH(&c->reads.marks, it)
	{
		judge_late(&LIST_ENTRY(it, struct mark, node)->reads);
	}
	ask(c);
	watch(c);
}

static void watch(struct cluster *c)
{
	struct reads *q = &c->reads;

	if (loop_timer_active(&q->timer) ||
	    (list_empty(&q->revision) && list_empty(&q->index) && list_empty(&q->asking) &&
	     list_empty(&q->waiting) && list_empty(&q->marks))) {
		return;
	}
	loop_timer_start(&q->timer, c->loop, WATCH_MS, on_watch, c);
}

/* Whether a read of a revision is settled, in either way. */
static bool settled(struct cluster *c, struct read *r)
{
	struct state_view v;

	pthread_mutex_lock(&c->seen_lock);
	v = c->view;
	pthread_mutex_unlock(&c->seen_lock);
	if (v.epoch != r->want.epoch) {
		err_reason(&r->err, ERR_PRECONDITION, "EPOCH_CHANGED",
			   "the cluster's epoch is another one (a restore): start anew");
		return true;
	}
	return v.revision >= r->want.revision;
}

static void on_read(void *arg)
{
	struct read *r = arg;
	struct cluster *c = r->c;

	if (c->stopping) {
		err_set(&r->err, ERR_CLOSED, "this lighthouse stops");
		finish(r);
		return;
	}
	if (r->want.level == READ_REVISION) {
		if (settled(c, r)) {
			finish(r);
			return;
		}
		list_push(&c->reads.revision, &r->node);
	} else {
		list_push(&c->reads.waiting, &r->node);
		ask(c);
	}
	watch(c);
}

int cluster_read_wait(struct cluster *c, struct loop *loop, const struct read_want *want,
		      read_cb cb, void *arg, struct err *err)
{
	struct read *r;

	if (atomic_fetch_add(&c->reads.count, 1) >= LIM_WAITING_READS) {
		atomic_fetch_sub(&c->reads.count, 1);
		return err_reason(err, ERR_LIMIT, "TOO_MANY_READS",
				  "%d reads wait on this lighthouse: try later", LIM_WAITING_READS);
	}
	r = MEM_NEW(struct read);
	r->c = c;
	r->want = *want;
	r->loop = loop;
	r->cb = cb;
	r->arg = arg;
	list_init(&r->node);
	if (want->level == READ_LOCAL || (want->level == READ_REVISION && settled(c, r))) {
		atomic_fetch_sub(&c->reads.count, 1);
		loop_post_reply(loop, read_fire, r);
		return 0;
	}
	loop_post_reply(c->loop, on_read, r);
	return 0;
}

bool read_awaits(const struct cluster *c)
{
	return !list_empty(&c->reads.index) || !list_empty(&c->reads.revision);
}

void read_progress(struct cluster *c)
{
	uint64_t applied = consensus_applied(c->cs);

	LIST_FOREACH_SAFE(&c->reads.index, it, tmp)
	{
		struct read *r = LIST_ENTRY(it, struct read, node);

		if (r->index <= applied) {
			finish(r);
		}
	}
	LIST_FOREACH_SAFE(&c->reads.revision, it2, tmp2)
	{
		struct read *r = LIST_ENTRY(it2, struct read, node);

		if (settled(c, r)) {
			finish(r);
		}
	}
}

void read_state(struct cluster *c)
{
	ask(c);
}

void read_init(struct cluster *c)
{
	list_init(&c->reads.revision);
	list_init(&c->reads.index);
	list_init(&c->reads.asking);
	list_init(&c->reads.waiting);
	list_init(&c->reads.marks);
}

void read_close(struct cluster *c)
{
	struct list all;

	list_init(&all);
	list_splice(&all, &c->reads.revision);
	list_splice(&all, &c->reads.index);
	list_splice(&all, &c->reads.asking);
	list_splice(&all, &c->reads.waiting);
	while (!list_empty(&all)) {
		struct read *r = LIST_ENTRY(list_pop(&all), struct read, node);

		err_set(&r->err, ERR_CLOSED, "this lighthouse stops");
		finish(r);
	}
	loop_timer_stop(&c->reads.timer);
}

/* ---- for other lighthouses ---- */

struct local_index {
	struct consensus_command marker;
	struct cluster *c;
	struct loop *loop;
	read_local_cb cb;
	void *arg;
	struct err err;
	struct link_place at;
};

static void local_fire(void *arg)
{
	struct local_index *l = arg;

	l->cb(l->arg, &l->err, l->at);
	mem_free(l);
}

static void on_local_marker(struct consensus_command *cmd, const struct err *err, uint64_t index,
			    const Skerry__Internal__V1__CommandResult *result)
{
	struct local_index *l = container_of(cmd, struct local_index, marker);

	(void)result;
	l->err = *err;
	l->at = (struct link_place){.index = index, .term = cmd->term};
	atomic_fetch_sub(&l->c->reads.count, 1);
	loop_post_reply(l->loop, local_fire, l);
}

static void on_local_index(void *arg)
{
	struct local_index *l = arg;

	if (l->c->stopping) {
		struct err err = {0};

		err_set(&err, ERR_NOT_LEADER, "this lighthouse stops");
		on_local_marker(&l->marker, &err, 0, NULL);
		return;
	}
#ifdef SKERRY_BREAK_READ
	if (consensus_leads(l->c->cs)) {
		struct err ok = {0};

		on_local_marker(&l->marker, &ok, consensus_applied(l->c->cs), NULL);
		return;
	}
#endif
	consensus_submit(l->c->cs, &l->marker);
}

int read_local_index(struct cluster *c, struct loop *loop, uint64_t deadline_ms, read_local_cb cb,
		     void *arg, struct err *err)
{
	struct local_index *l;

	if (atomic_fetch_add(&c->reads.count, 1) >= LIM_WAITING_READS) {
		atomic_fetch_sub(&c->reads.count, 1);
		return err_reason(err, ERR_LIMIT, "TOO_MANY_READS", "%d reads wait at the leader",
				  LIM_WAITING_READS);
	}
	l = MEM_NEW(struct local_index);
	l->c = c;
	l->loop = loop;
	l->cb = cb;
	l->arg = arg;
	l->marker.done = on_local_marker;
	l->marker.deadline_ms = deadline_ms;
	loop_post_reply(c->loop, on_local_index, l);
	return 0;
}
