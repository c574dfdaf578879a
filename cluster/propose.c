/*
 * Our own commands on their way into the log.
 *
 *   NEW ----------> WAITING (no leader) <------------------------------+
 *                      | we lead            | another leads            | not leader, fate unknown
 *                      v                    v                          |
 *                    LOCAL (consensus)    FORWARDED (peer side) -------+
 *                      |                    | committed as index i
 *                      |                    v
 *                      |                  COMMITTED (own apply of i is awaited)
 *                      v                    v
 *                    answered on the caller's loop
 *
 * A command keeps its sequence number through all of this; apply answers the second copy of a sequence like the first.
 * In every state the answer may also come from our own apply of an entry that holds the sequence.
 */
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "cluster/cluster_int.h"
#include "proto/pb_decode.h"
#include "proto/pb_util.h"

enum {
	DEADLINE_MS = 30000,
	RETRY_MS = 20, /* after "not leader" without a newer leader in sight */
	WATCH_MS = 20, /* how often deadlines are looked at */
	MAP_FULL_PERMILLE = 800,
};

enum proposal_state { NEW, WAITING, LOCAL, FORWARDED, COMMITTED };

struct tailnet_share {
	size_t items, bytes;
};

struct proposal {
	struct list node; /* proposer.all */
	struct list in;   /* proposer.incoming */
	struct consensus_command cmd;
	struct cluster *c;
	enum proposal_state state;
	enum propose_class class;
	uint64_t tailnet, sequence, deadline_ms;
	uint32_t level; /* the feature level that it needs */
	bool grows;
	bool first; /* LighthouseStart: before it commands of this incarnation are refused */
	bool sent;  /* a copy may be in some log */
	uint8_t *data;
	size_t len, room; /* packed; what it takes in the queue */
	uint64_t request; /* FORWARDED */
	uint64_t index;   /* COMMITTED */
	struct buf early; /* COMMITTED: what the leader answered, packed */
	uint64_t retry_ms;
	struct loop *loop;
	propose_cb cb;
	void *arg;
	/* answered */
	struct loop_post post;
	struct err *failure; /* NULL: success */
	CommandResult *result;
};

static const struct err no_error;

/* On the caller's loop, from where it came. */
static void reply_fire(void *arg)
{
	struct proposal *p = arg;

	p->cb(p->arg, p->failure != NULL ? p->failure : &no_error, p->result);
	pb_free(p->result);
	mem_free(p->failure);
	mem_free(p->data);
	mem_free(p);
}

/* ---- places in the queue ---- */

static int place_take(struct proposer *q, enum propose_class class, uint64_t tailnet, size_t len,
		      struct err *err)
{
	struct tailnet_share *t;

	if (class != PROPOSE_CLIENT) {
		if (q->share[class] >= LIM_CMD_QUEUE_SYSTEM_ITEMS) {
			return err_reason(
				err, ERR_LIMIT, "QUEUE_FULL",
				"%u commands of this lighthouse wait for the log: try later",
				LIM_CMD_QUEUE_SYSTEM_ITEMS);
		}
		q->share[class]++;
		return 0;
	}
	if (q->items >= LIM_CMD_QUEUE_ITEMS || q->bytes + len > LIM_CMD_QUEUE_BYTES) {
		return err_reason(err, ERR_LIMIT, "QUEUE_FULL",
				  "%zu commands with %zu bytes wait for the log on this "
				  "lighthouse: try later",
				  q->items, q->bytes);
	}
	t = map_get_u64(&q->tailnets, tailnet);
	if (t != NULL && (t->items >= LIM_CMD_QUEUE_ITEMS / LIM_CMD_QUEUE_TAILNET_SHARE ||
			  t->bytes + len > LIM_CMD_QUEUE_BYTES / LIM_CMD_QUEUE_TAILNET_SHARE)) {
		return err_reason(
			err, ERR_LIMIT, "QUEUE_FULL",
			"%zu commands of tailnet %llu wait for the log on this lighthouse: try "
			"later",
			t->items, (unsigned long long)tailnet);
	}
	if (t == NULL) {
		t = MEM_NEW(struct tailnet_share);
		map_put_u64(&q->tailnets, tailnet, t);
	}
	t->items++;
	t->bytes += len;
	q->items++;
	q->bytes += len;
	q->share[class]++;
	return 0;
}

static void place_give(struct proposer *q, const struct proposal *p)
{
	struct tailnet_share *t;

	q->share[p->class]--;
	if (p->class != PROPOSE_CLIENT) {
		return;
	}
	q->items--;
	q->bytes -= p->room;
	t = map_get_u64(&q->tailnets, p->tailnet);
	t->items--;
	t->bytes -= p->room;
	if (t->items == 0) {
		map_del_u64(&q->tailnets, p->tailnet);
		mem_free(t);
	}
}

/* ---- answers ---- */

/* Takes result (may be NULL). p is gone. */
static void finish(struct proposal *p, const struct err *err, CommandResult *result)
{
	struct proposer *q = &p->c->prop;

	q->committed -= p->state == COMMITTED;
	pthread_mutex_lock(&q->lock);
	list_remove(&p->node);
	list_remove(&p->in);
	place_give(q, p);
	pthread_mutex_unlock(&q->lock);
	if (p->request != 0) {
		map_del_u64(&q->requests, p->request);
	}
	buf_done(&p->early);
	p->failure = err->code != 0 ? mem_memdup(err, sizeof(*err)) : NULL;
	p->result = result;
	loop_post_own(p->loop, &p->post, reply_fire, p);
}

static void finish_ok(struct proposal *p, const CommandResult *result)
{
	struct err ok = {0};

	finish(p, &ok, pb_copy(result));
}

static void finish_late(struct proposal *p)
{
	struct err err = {0};

	if (p->sent) {
		err_reason(&err, ERR_UNAVAILABLE, "FATE_UNKNOWN",
			   "the answer did not come in time: the command may have been carried out "
			   "or not");
	} else if (consensus_leader(p->c->cs) == 0) {
		err_reason(
			&err, ERR_NO_QUORUM, "NO_QUORUM",
			"there is no leader: most of the lighthouses are not reachable from here");
	} else {
		err_set(&err, ERR_DEADLINE,
			"the deadline passed while the command waited for the log");
	}
	finish(p, &err, NULL);
}

/* ---- the way ---- */

static void advance(struct proposal *p);

static void retry(struct proposal *p, uint64_t pause_ms)
{
	p->c->prop.committed -= p->state == COMMITTED;
	p->state = WAITING;
	p->c->prop.stalled = true;
	p->retry_ms = clock_mono_ms() + pause_ms;
	if (clock_mono_ms() >= p->deadline_ms) {
		finish_late(p);
	}
}

/* A committed one whose entry came to us in a snapshot: the leader's answer is the answer. */
static void finish_early(struct proposal *p)
{
	ProtobufCMessage *result;
	struct err ok = {0};

	if (pb_decode_heap(&skerry__internal__v1__command_result__descriptor, p->early.data,
			   p->early.len, NULL, &result, NULL) < 0) {
		retry(p, RETRY_MS); /* answered by the row of its sequence */
		return;
	}
	finish(p, &ok, (CommandResult *)result);
}

static void on_local_done(struct consensus_command *cmd, const struct err *err, uint64_t index,
			  const CommandResult *r)
{
	struct proposal *p = container_of(cmd, struct proposal, cmd);

	(void)index;
	switch (err->code) {
	case 0: finish_ok(p, r); break;
	case ERR_UNAVAILABLE: p->sent = true; __attribute__((fallthrough));
	case ERR_NOT_LEADER: retry(p, 0); break;
	case ERR_DEADLINE: finish_late(p); break;
	default: finish(p, err, NULL); break;
	}
}

bool propose_grows(int body_case)
{
	switch (body_case) {
	case SKERRY__INTERNAL__V1__COMMAND__BODY_LIGHTHOUSE_START:
	case SKERRY__INTERNAL__V1__COMMAND__BODY_LIGHTHOUSE_LOST:
	case SKERRY__INTERNAL__V1__COMMAND__BODY_MEMBER_SET_KIND:
	case SKERRY__INTERNAL__V1__COMMAND__BODY_TICK:
	case SKERRY__INTERNAL__V1__COMMAND__BODY_DIGEST_MARKER:
	case SKERRY__INTERNAL__V1__COMMAND__BODY_CA_RETIRE:
	case SKERRY__INTERNAL__V1__COMMAND__BODY_MEMBER_CONFIRM:
	case SKERRY__INTERNAL__V1__COMMAND__BODY_BACKUP_NOTE:
	case SKERRY__INTERNAL__V1__COMMAND__BODY_TAILNET_DELETE:
	case SKERRY__INTERNAL__V1__COMMAND__BODY_USER_DELETE:
	case SKERRY__INTERNAL__V1__COMMAND__BODY_AUTH_KEY_DELETE:
	case SKERRY__INTERNAL__V1__COMMAND__BODY_API_KEY_DELETE:
	case SKERRY__INTERNAL__V1__COMMAND__BODY_NODE_DELETE:
	case SKERRY__INTERNAL__V1__COMMAND__BODY_NODE_LOGOUT:
	case SKERRY__INTERNAL__V1__COMMAND__BODY_SESSION_BATCH: return false;
	default: return true;
	}
}

int propose_admit(struct cluster *c, bool grows, struct err *err)
{
	if (!grows) {
		return 0;
	}
	if (consensus_state_bytes(c->cs) > LIM_STATE_BYTES) {
		return err_reason(
			err, ERR_LIMIT, "STATE_FULL",
			"the state holds %llu bytes, its limit is %llu: delete nodes, keys or "
			"tailnets",
			(unsigned long long)consensus_state_bytes(c->cs), LIM_STATE_BYTES);
	}
	if (atomic_load(&c->disk_low)) {
		return err_reason(
			err, ERR_LIMIT, "DISK_FULL",
			"the file system of %s on the leader has less than %llu MiB free: free "
			"space there",
			c->dir, LIM_DISK_FREE_BYTES >> 20);
	}
	if (consensus_map_permille(c->cs) > MAP_FULL_PERMILLE) {
		return err_reason(err, ERR_LIMIT, "STORE_FULL",
				  "the store of the leader is %u ‰ full: raise the size of its map",
				  consensus_map_permille(c->cs));
	}
	return 0;
}

/*
 * What the state's level does not have must not get into the log: an older build that reads it would end. Our own view may
 * lag behind a level that was just raised; who asks then asks again.
 */
int propose_level(struct cluster *c, uint32_t level, struct err *err)
{
	uint32_t now = consensus_feature_level(c->cs);

	if (now == 0 || level <= now) {
		return 0;
	}
	return feature_level_needed(level, now, err);
}

/* Sends a waiting one where the leader is, if there is one. May free p. */
static void advance(struct proposal *p)
{
	struct cluster *c = p->c;
	struct proposer *q = &c->prop;
	uint64_t leader = consensus_leader(c->cs);
	struct err err = {0};

	if (p->state != WAITING) {
		return;
	}
	if ((p->retry_ms != 0 && clock_mono_ms() < p->retry_ms) || (!c->announced && !p->first)) {
		q->stalled = true;
		return;
	}
	if (!p->sent && propose_level(c, p->level, &err) != 0) {
		finish(p, &err, NULL);
		return;
	}
	if (consensus_leads(c->cs)) {
		if (!p->sent && propose_admit(c, p->grows, &err) != 0) {
			finish(p, &err, NULL);
			return;
		}
		p->state = LOCAL;
		p->cmd = (struct consensus_command){
			.data = p->data,
			.len = p->len,
			.deadline_ms = p->deadline_ms,
			.done = on_local_done,
		};
		consensus_submit(c->cs, &p->cmd);
	} else if (leader != 0 && leader != c->id) {
		p->state = FORWARDED;
		p->request = ++q->next_request;
		map_put_u64(&q->requests, p->request, p);
		c->ops->propose(c->ops_impl, p->request, leader, p->data, p->len, p->deadline_ms);
	} else {
		q->stalled = true;
	}
}

static void on_watch(void *arg);

/* Everything that waits, in the order of its sequence. */
static void advance_all(struct cluster *c)
{
	struct proposer *q = &c->prop;

	pthread_mutex_lock(&q->lock);
	while (!list_empty(&q->incoming)) {
		struct proposal *p = LIST_ENTRY(list_pop(&q->incoming), struct proposal, in);

		p->state = WAITING;
	}
	q->posted = false;
	q->stalled = false;
	/* finish() takes the lock; only this thread removes, others append. */
	for (struct list *it = q->all.next; it != &q->all;) {
		struct proposal *p = LIST_ENTRY(it, struct proposal, node);
		struct list *next = it->next;

		if (p->state == NEW) {
			break;
		}
		pthread_mutex_unlock(&q->lock);
		advance(p);
		pthread_mutex_lock(&q->lock);
		it = next;
	}
	if (!list_empty(&q->all) && !loop_timer_active(&q->timer)) {
		loop_timer_start(&q->timer, c->loop, WATCH_MS, on_watch, c);
	}
	pthread_mutex_unlock(&q->lock);
}

/* Those that came since; nothing else waits, so that all that are under way need no look. */
static void advance_new(struct cluster *c)
{
	struct proposer *q = &c->prop;
	struct list batch, *it;

	list_init(&batch);
	pthread_mutex_lock(&q->lock);
	list_splice(&batch, &q->incoming);
	q->posted = false;
	pthread_mutex_unlock(&q->lock);
	if (!list_empty(&batch) && !loop_timer_active(&q->timer)) {
		loop_timer_start(&q->timer, c->loop, WATCH_MS, on_watch, c);
	}
	while ((it = list_pop(&batch)) != NULL) {
		struct proposal *p = LIST_ENTRY(it, struct proposal, in);

		p->state = WAITING;
		advance(p);
	}
}

static void on_watch(void *arg)
{
	struct cluster *c = arg;
	struct proposer *q = &c->prop;
	uint64_t now = clock_mono_ms();

	pthread_mutex_lock(&q->lock);
	for (struct list *it = q->all.next; it != &q->all;) {
		struct proposal *p = LIST_ENTRY(it, struct proposal, node);
		struct list *next = it->next;

		if (now >= p->deadline_ms && (p->state == WAITING || p->state == COMMITTED)) {
			p->sent |= p->state == COMMITTED;
			pthread_mutex_unlock(&q->lock);
			finish_late(p);
			pthread_mutex_lock(&q->lock);
		}
		it = next;
	}
	pthread_mutex_unlock(&q->lock);
	advance_all(c);
}

static void on_post(void *arg)
{
	struct cluster *c = arg;

	if (c->stopping) {
		return;
	}
	if (c->prop.stalled) {
		advance_all(c);
	} else {
		advance_new(c);
	}
}

int cluster_propose(struct cluster *c, struct loop *loop, const Command *cmd,
		    const struct propose_options *o, propose_cb cb, void *arg, struct err *err)
{
	struct proposer *q = &c->prop;
	Command stamped = *cmd;
	uint8_t random[32];
	struct proposal *p;
	size_t len;
	int r;

	/* In the log it would end every lighthouse: no way in may let it pass. */
	r = tailnet_command_known(cmd, err);
	if (r != 0) {
		return err_set(
			err, ERR_INVALID,
			"the command holds a field or value that this version does not know");
	}
	if (cmd->random.len == 0) {
		rand_bytes(random, sizeof(random));
		stamped.random = (ProtobufCBinaryData){.data = random, .len = sizeof(random)};
	}
	stamped.lighthouse = c->id;
	stamped.incarnation = c->incarnation;
	/* The widest numbers, for the size: what is packed below is never longer. */
	stamped.sequence = stamped.lowest_unanswered = UINT64_MAX;
	len = skerry__internal__v1__command__get_packed_size(&stamped);
	if (len > LIM_COMMAND_BYTES) {
		return err_set(err, ERR_LIMIT, "the command has %zu bytes, the limit is %u", len,
			       LIM_COMMAND_BYTES);
	}
	p = MEM_NEW(struct proposal);
	p->c = c;
	p->state = NEW;
	p->class = o != NULL ? o->class : PROPOSE_CLIENT;
	p->deadline_ms = o != NULL && o->deadline_ms != 0 ? o->deadline_ms
							  : clock_mono_ms() + DEADLINE_MS;
	p->tailnet = cmd->tailnet;
	p->grows = propose_grows((int)cmd->body_case);
	p->level = tailnet_command_level(cmd);
	p->first = cmd->body_case == SKERRY__INTERNAL__V1__COMMAND__BODY_LIGHTHOUSE_START;
	p->data = mem_alloc(len);
	p->room = len;
	p->loop = loop;
	p->cb = cb;
	p->arg = arg;

	pthread_mutex_lock(&q->lock);
	r = q->closed ? err_set(err, ERR_CLOSED, "this lighthouse stops")
		      : place_take(q, p->class, p->tailnet, len, err);
	if (r != 0) {
		pthread_mutex_unlock(&q->lock);
		if (r == ERR_LIMIT) {
			atomic_fetch_add(&q->refused_full, 1);
			METRICS_COUNT("skerry_commands_refused_total",
				      "Commands refused because the queue was full.", 1);
		}
		mem_free(p->data);
		mem_free(p);
		return r;
	}
	p->sequence = ++q->next_sequence;
	stamped.sequence = p->sequence;
	stamped.lowest_unanswered =
		list_empty(&q->all) ? p->sequence
				    : LIST_ENTRY(q->all.next, struct proposal, node)->sequence;
	p->len = skerry__internal__v1__command__pack(&stamped, p->data);
	POST(p->len <= len);
	list_push(&q->all, &p->node);
	list_push(&q->incoming, &p->in);
	if (!q->posted) {
		q->posted = true;
		loop_post_reply(c->loop, on_post, c);
	}
	pthread_mutex_unlock(&q->lock);
	return 0;
}

/* ---- what happens ---- */

bool propose_awaits(const struct cluster *c)
{
	return c->prop.committed > 0;
}

void propose_applied(struct cluster *c, const struct applied *a)
{
	struct proposer *q = &c->prop;

	/* In an entry of ours what is our own is LOCAL, and answered by its done(). */
	for (size_t i = 0; i < a->n && !a->own; i++) {
		const struct applied_command *ac = &a->command[i];
		struct proposal *p = NULL;

		if (ac->lighthouse != c->id || ac->incarnation != c->incarnation) {
			continue;
		}
		pthread_mutex_lock(&q->lock);
		LIST_FOREACH(&q->all, it)
		{
			struct proposal *x = LIST_ENTRY(it, struct proposal, node);

			if (x->sequence >= ac->sequence) {
				p = x->sequence == ac->sequence ? x : NULL;
				break;
			}
		}
		pthread_mutex_unlock(&q->lock);
		/* A LOCAL one is answered by its own done(), which comes for certain. */
		if (p != NULL && p->state != LOCAL) {
			finish_ok(p, ac->result);
		}
	}
}

void propose_state(struct cluster *c)
{
	struct proposer *q = &c->prop;

	/* Another leader: nobody waits for his pause any more. */
	pthread_mutex_lock(&q->lock);
	LIST_FOREACH(&q->all, it)
	{
		LIST_ENTRY(it, struct proposal, node)->retry_ms = 0;
	}
	pthread_mutex_unlock(&q->lock);
	advance_all(c);
}

void propose_restored(struct cluster *c)
{
	struct proposer *q = &c->prop;
	uint64_t applied = consensus_applied(c->cs);

	pthread_mutex_lock(&q->lock);
	for (struct list *it = q->all.next; it != &q->all;) {
		struct proposal *p = LIST_ENTRY(it, struct proposal, node);
		struct list *next = it->next;

		if (p->state == COMMITTED && p->index <= applied) {
			pthread_mutex_unlock(&q->lock);
			finish_early(p);
			pthread_mutex_lock(&q->lock);
		}
		it = next;
	}
	pthread_mutex_unlock(&q->lock);
}

struct forwarded {
	struct cluster *c;
	uint64_t request;
	struct loop_post post;
	struct link_place at;
	struct err *failure; /* NULL: success */
	struct buf result;   /* packed; empty: none */
};

static void on_forwarded(void *arg)
{
	struct forwarded *f = arg;
	const struct err *err = f->failure != NULL ? f->failure : &no_error;
	struct cluster *c = f->c;
	struct proposal *p = map_del_u64(&c->prop.requests, f->request);

	if (p == NULL || c->stopping) {
		goto out;
	}
	p->request = 0;
	if (err->code == 0) {
		p->sent = true;
		p->state = COMMITTED;
		c->prop.committed++;
		p->index = f->at.index;
		p->early = f->result;
		buf_init(&f->result);
		/* Applied here already, but not by us (a snapshot): otherwise the own apply answers. */
		if (p->index <= consensus_applied(c->cs)) {
			finish_early(p);
		} else {
			consensus_committed(c->cs, f->at.term, f->at.index);
		}
	} else if (err->code == ERR_NOT_LEADER) {
		retry(p, RETRY_MS);
		advance_all(c);
	} else if (err->code == ERR_UNAVAILABLE || err->code == ERR_CLOSED || p->sent) {
		p->sent |= strcmp(err->reason, "NOT_SENT") != 0;
		retry(p, RETRY_MS);
		advance_all(c);
	} else if (err->code == ERR_DEADLINE) {
		p->sent = true;
		finish_late(p);
	} else {
		finish(p, err, NULL);
	}
out:
	buf_done(&f->result);
	mem_free(f->failure);
	mem_free(f);
}

void link_proposed(struct cluster *c, uint64_t request, const struct err *err,
		   ProtobufCBinaryData result, struct link_place at)
{
	struct forwarded *f = MEM_NEW(struct forwarded);

	f->c = c;
	f->request = request;
	f->at = at;
	if (err != NULL && err->code != 0) {
		f->failure = mem_memdup(err, sizeof(*err));
	}
	buf_append(&f->result, result.data, result.len);
	loop_post_own(c->loop, &f->post, on_forwarded, f);
}

/* ---- life ---- */

void propose_init(struct cluster *c)
{
	pthread_mutex_init(&c->prop.lock, NULL);
	list_init(&c->prop.all);
	list_init(&c->prop.incoming);
}

void propose_close(struct cluster *c)
{
	struct proposer *q = &c->prop;

	pthread_mutex_lock(&q->lock);
	q->closed = true;
	while (!list_empty(&q->all)) {
		struct proposal *p = LIST_ENTRY(q->all.next, struct proposal, node);
		struct err err = {0};

		if (p->sent || p->state == FORWARDED) {
			err_reason(&err, ERR_UNAVAILABLE, "FATE_UNKNOWN", "this lighthouse stops");
		} else {
			err_set(&err, ERR_CLOSED, "this lighthouse stops");
		}
		pthread_mutex_unlock(&q->lock);
		finish(p, &err, NULL);
		pthread_mutex_lock(&q->lock);
	}
	pthread_mutex_unlock(&q->lock);
	loop_timer_stop(&q->timer);
}

void propose_done(struct cluster *c)
{
	pthread_mutex_destroy(&c->prop.lock);
	map_done(&c->prop.requests);
	map_done(&c->prop.tailnets);
}
