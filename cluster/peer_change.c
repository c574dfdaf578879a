/*
 * What an operator asks about members: hand-over of leadership, votes, removal, replacement. Any lighthouse takes it and
 * passes it to the leader, which judges and begins; what was begun goes on by its record in the state (member_run.c).
 */
#include "cluster/peer_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rand.h"
#include "net/rpc_client.h"
#include "proto/pb_decode.h"
#include "proto/pb_util.h"
#include "tailnet/query.h"
#include "tailnet/tailnet.h"

#define PATH_CHANGE "/skerry.internal.v1.PeerService/ChangeMember"
#define CHANGE(x)   SKERRY__INTERNAL__V1__MEMBER_CHANGE__MEMBER_CHANGE_##x
#define KIND(x)     SKERRY__INTERNAL__V1__CHANGE_KIND__CHANGE_KIND_##x
#define STEP(x)     SKERRY__INTERNAL__V1__CHANGE_STEP__CHANGE_STEP_##x

enum {
	SEEN_POLL_MS = 20,
	SEEN_MS = 3000,
	FIT_POLL_MS = 50,
	FIT_MS = 1500, /* a leader of a moment ago does not know yet what the others hold */
	ARENA = 64 << 10,
};

typedef Skerry__Internal__V1__ChangeMemberRequest change_request;
typedef Skerry__Internal__V1__ChangeMemberResponse change_response;
typedef Skerry__Internal__V1__Command command;
typedef Skerry__Internal__V1__CommandResult command_result;

static change_request *request_copy(const change_request *q)
{
	return pb_copy(q);
}

/* ---- on the leader ---- */

struct here {
	struct list node; /* on peer.change_calls */
	struct peer *peer;
	change_request *q;
	uint64_t since_ms;
	members_cb cb;
	void *arg;
	struct err err;
	bool begun; /* the raft side answers, or the log */
	struct loop_timer timer;
};

static void here_end(struct here *h, const struct err *err, uint64_t change)
{
	list_remove(&h->node);
	loop_timer_stop(&h->timer);
	h->cb(h->arg, err, change);
	pb_free(h->q);
	mem_free(h);
}

static void on_changed(void *arg, const struct err *err)
{
	struct here *h = arg;
	struct err e = *err;

	if (e.code == ERR_AGAIN) {
		err_reason(&e, ERR_PRECONDITION, "CHANGE_IN_FLIGHT",
			   "another change of the members, or a hand-over, is under way: try again "
			   "when it has ended");
	} else if (e.code == ERR_ABORTED && h->q->change == CHANGE(TRANSFER)) {
		err_reason(&e, ERR_ABORTED, "NOT_TAKEN_OVER",
			   "the other lighthouse did not take over in time: this one leads on");
	}
	here_end(h, &e, 0);
}

static void on_begun(void *arg, const struct err *err, const command_result *r)
{
	struct here *h = arg;
	struct err e = *err;

	if (e.code == 0 && r->code != 0) {
		err_reason(&e, err_from_grpc(r->code), r->reason, "%s", r->message);
	}
	here_end(h, &e, e.code == 0 ? r->id : 0);
}

static bool is_connected(void *arg, uint64_t id)
{
	struct peer_link *l = peer_link_find(arg, id);

	return l != NULL && peer_link_connected(l);
}

static bool may_pass(const struct here *h)
{
	return clock_mono_ms() < h->since_ms + FIT_MS &&
	       (strcmp(h->err.reason, "MEMBER_BEHIND") == 0 ||
		strcmp(h->err.reason, "NO_OTHER_VOTER") == 0);
}

/* A state of level 1, or a hand-over: raft does it, and there is no record. */
static int try_raft(struct here *h, struct link_state *s)
{
	struct peer *p = h->peer;
	uint64_t to = h->q->id;
	int r;

	s->changing |= p->changing; /* a step towards the table's members */
	r = h->q->change == CHANGE(TRANSFER)
		    ? member_may_lead(&p->table, s, p->self, to, is_connected, p, &to, &h->err)
		    : member_may_vote(&p->table, s, p->self, to, is_connected, p, &h->err);
	if (r < 0) {
		return r;
	}
	h->begun = true;
	if (h->q->change == CHANGE(TRANSFER)) {
		LOG_INFO("leadership goes to lighthouse %" PRIu64 ", as an operator asked", to);
		link_transfer(p->cluster, p->loop, to, on_changed, h);
	} else {
		LOG_INFO("lighthouse %" PRIu64 " becomes a voter, as an operator asked", to);
		link_promote(p->cluster, p->loop, to, on_changed, h);
	}
	return 0;
}

/* Apply's own refusals first: they are about what was asked, not about the moment. */
static int propose(struct here *h, command *c, const struct membership_view *v,
		   const struct membership *plan)
{
	Skerry__Internal__V1__Actor nobody = SKERRY__INTERNAL__V1__ACTOR__INIT;
	struct propose_options o = {.class = PROPOSE_INTERNAL};
	struct peer *p = h->peer;
	uint8_t random[32];
	struct arena a;
	int r;

	rand_bytes(random, sizeof(random));
	c->actor = h->q->actor != NULL ? h->q->actor : &nobody;
	c->reason = h->q->reason;
	c->random.data = random;
	c->random.len = sizeof(random);
	arena_init(&a, TAILNET_ARENA_BYTES);
	r = cluster_precheck(p->cluster, c, &a, &h->err);
	arena_done(&a);
	if (r != 0) {
		return h->err.code != 0 ? h->err.code : ERR_PRECONDITION;
	}
	if (plan != NULL) {
		r = membership_may(v, plan, &h->err);
	}
	if (r >= 0) {
		r = cluster_propose(p->cluster, p->loop, c, &o, on_begun, h, &h->err);
	}
	h->begun = r >= 0;
	return r;
}

static int wish_of(const change_request *q, struct membership_wish *w, struct err *err)
{
	static const int kinds[] = {
		[CHANGE(PROMOTE)] = KIND(PROMOTE),
		[CHANGE(DEMOTE)] = KIND(DEMOTE),
		[CHANGE(REMOVE)] = KIND(REMOVE),
		[CHANGE(REPLACE)] = KIND(REPLACE),
	};

	if (q->n_more >= LIM_VOTERS) {
		return err_field(err, ERR_INVALID, "name", "at most %d lighthouses at once",
				 LIM_VOTERS);
	}
	*w = (struct membership_wish){
		.kind = kinds[q->change], .n = 1, .no_fill = q->no_fill, .with = q->with};
	w->id[0] = q->id;
	for (size_t i = 0; i < q->n_more; i++) {
		w->id[w->n++] = q->more[i];
	}
	return 0;
}

static int try_begin(struct here *h, const struct link_state *s)
{
	Skerry__Internal__V1__ChangeBegin body = SKERRY__INTERNAL__V1__CHANGE_BEGIN__INIT;
	command c = SKERRY__INTERNAL__V1__COMMAND__INIT;
	struct membership_view v;
	struct membership_wish w;
	struct membership plan;
	int r = wish_of(h->q, &w, &h->err);

	if (r < 0) {
		return r;
	}
	peer_membership_view(h->peer, s, &v);
	membership_plan(&v, &w, &plan);
	body.kind = (Skerry__Internal__V1__ChangeKind)plan.kind;
	body.n_enter = plan.n_enter;
	body.enter = plan.enter;
	body.n_leave = plan.n_leave;
	body.leave = plan.leave;
	if (w.kind == KIND(REPLACE) && w.with == 0) {
		body.credential = h->q->credential;
		body.lifetime_ms = h->q->lifetime_ms;
	}
	c.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_CHANGE_BEGIN;
	c.change_begin = &body;
	return propose(h, &c, &v, &plan);
}

static int try_cancel(struct here *h)
{
	Skerry__Internal__V1__ChangeProgress body = SKERRY__INTERNAL__V1__CHANGE_PROGRESS__INIT;
	command c = SKERRY__INTERNAL__V1__COMMAND__INIT;

	if (h->peer->change.id == 0) {
		return err_reason(&h->err, ERR_PRECONDITION, "NO_CHANGE",
				  "no change of the members is under way");
	}
	body.id = h->peer->change.id;
	body.cancel = true;
	c.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_CHANGE_PROGRESS;
	c.change_progress = &body;
	return propose(h, &c, NULL, NULL);
}

static void here_try(void *arg)
{
	struct here *h = arg;
	struct peer *p = h->peer;
	struct link_state s;
	int r;

	err_clear(&h->err);
	link_state(p->cluster, &s);
	peer_table_refresh(p);
	if (!s.self_leads) {
		r = err_set(&h->err, ERR_NOT_LEADER, "this lighthouse does not lead");
	} else {
		switch (h->q->change) {
		case CHANGE(TRANSFER): r = try_raft(h, &s); break;
		case CHANGE(PROMOTE): r = p->level < 2 ? try_raft(h, &s) : try_begin(h, &s); break;
		case CHANGE(DEMOTE):
		case CHANGE(REMOVE):
		case CHANGE(REPLACE): r = try_begin(h, &s); break;
		case CHANGE(CANCEL): r = try_cancel(h); break;
		default:
			r = err_set(&h->err, ERR_UNIMPLEMENTED,
				    "this build does not know this change");
			break;
		}
	}
	if (r < 0 && may_pass(h)) {
		loop_timer_start(&h->timer, p->loop, FIT_POLL_MS, here_try, h);
	} else if (r < 0) {
		h->err.code = r;
		here_end(h, &h->err, 0);
	}
}

void peer_change_here(struct peer *p, const change_request *q, members_cb cb, void *arg)
{
	struct here *h = MEM_NEW(struct here);

	*h = (struct here){
		.peer = p, .q = request_copy(q), .since_ms = clock_mono_ms(), .cb = cb, .arg = arg};
	list_push(&p->change_calls, &h->node);
	loop_timer_start(&h->timer, p->loop, 0, here_try, h);
}

/* ---- where it was asked ---- */

/* Made on the caller's thread, lives on the peer thread, its end is posted to the caller's loop. */
struct ask {
	struct list node;
	struct peer *peer;
	struct loop *loop;
	change_request *q;
	uint64_t deadline_ms, before, leader, change;
	transfer_cb cb; /* one of the two */
	members_cb members_cb;
	void *arg;
	struct rpc_request *call;
	bool here;
	struct loop_timer timer;
	uint64_t seen_until_ms;
	struct err err;
};

static void deliver(void *arg)
{
	struct ask *a = arg;

	if (a->cb != NULL) {
		a->cb(a->arg, &a->err, a->leader);
	} else {
		a->members_cb(a->arg, &a->err, a->change);
	}
	pb_free(a->q);
	mem_free(a);
}

static void end(struct ask *a)
{
	list_remove(&a->node);
	loop_timer_stop(&a->timer);
	loop_post_reply(a->loop, deliver, a);
}

static bool concerns_us(const struct ask *a)
{
	for (size_t i = 0; i < a->q->n_more; i++) {
		if (a->q->more[i] == a->peer->self) {
			return true;
		}
	}
	return a->q->id == a->peer->self;
}

/* Has the change come as far, in our own state, as its caller waits for? */
static bool change_seen(const struct ask *a)
{
	struct cluster_read *read;
	MembershipChange *c;
	struct arena arena;
	bool seen = false;

	if (cluster_read_begin(a->peer->cluster, "change", &read, NULL) < 0) {
		return false;
	}
	arena_init(&arena, ARENA);
	if (query_membership(cluster_read_kv(read), true, &arena, &c) >= 0 && c->id >= a->change) {
		seen = true; /* it has ended */
	} else if (query_membership(cluster_read_kv(read), false, &arena, &c) >= 0 &&
		   c->id == a->change) {
		/* Who is to leave may not be there to see the end. */
		seen = c->step == STEP(JOIN) ||
		       (a->q->change == CHANGE(REMOVE) && concerns_us(a)) ||
		       (a->q->change == CHANGE(REPLACE) && concerns_us(a));
	}
	arena_done(&arena);
	cluster_read_end(read);
	return seen;
}

/* Done; the answer names who leads now, or how the change has ended, as soon as it is known here. */
static void on_seen(void *arg)
{
	struct ask *a = arg;
	struct link_state s;
	bool wait;

	link_state(a->peer->cluster, &s);
	a->leader = s.leader;
	if (a->q->change == CHANGE(TRANSFER)) {
		wait = s.leader == 0 || s.leader == a->before;
	} else {
		wait = a->change != 0 && !change_seen(a);
	}
	if (wait && clock_mono_ms() < a->seen_until_ms && !atomic_load(&a->peer->stopping)) {
		loop_timer_start(&a->timer, a->peer->loop, SEEN_POLL_MS, on_seen, a);
		return;
	}
	end(a);
}

static void done(struct ask *a, const struct err *err)
{
	a->err = *err;
	if (err->code != 0) {
		end(a);
		return;
	}
	a->seen_until_ms = a->deadline_ms;
	if (a->q->change == CHANGE(TRANSFER)) {
		a->seen_until_ms = MIN(clock_mono_ms() + SEEN_MS, a->deadline_ms);
	} else {
		/* The answer must be on its way before the call's own deadline. */
		a->seen_until_ms -= MIN((uint64_t)(10 * SEEN_POLL_MS), a->seen_until_ms);
	}
	on_seen(a);
}

static void on_here(void *arg, const struct err *err, uint64_t change)
{
	struct ask *a = arg;
	struct err e = *err;

	a->here = false;
	a->change = change;
	if (e.code == ERR_NOT_LEADER) {
		err_set(&e, ERR_UNAVAILABLE, "the leader changed meanwhile: try again");
	}
	done(a, &e);
}

static void on_answer(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	const change_response *r = (const change_response *)reply;
	struct ask *a = arg;
	struct err e = *status;

	a->call = NULL;
	if (e.code == 0 && r->not_leader) {
		err_set(&e, ERR_UNAVAILABLE, "the leader changed meanwhile: try again");
	} else if (e.code == 0) {
		a->change = r->change_id;
	}
	done(a, &e);
}

/* ---- removal in a state of level 1: the table alone, raft follows ---- */

static void on_removed(void *arg, const struct err *err, const command_result *r)
{
	struct ask *a = arg;

	a->here = false;
	a->err = *err;
	if (err->code == 0 && r->code != 0) {
		err_reason(&a->err, err_from_grpc(r->code), r->reason, "%s", r->message);
	}
	end(a);
}

static void remove_by_table(struct ask *a)
{
	Skerry__Internal__V1__MemberSetKind body = SKERRY__INTERNAL__V1__MEMBER_SET_KIND__INIT;
	command c = SKERRY__INTERNAL__V1__COMMAND__INIT;
	struct propose_options o = {.class = PROPOSE_INTERNAL};
	uint8_t random[32];
	int r = 0;

	rand_bytes(random, sizeof(random));
	body.id = a->q->id;
	body.kind = SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_REMOVED;
	c.actor = a->q->actor;
	c.random.data = random;
	c.random.len = sizeof(random);
	c.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_MEMBER_SET_KIND;
	c.member_set_kind = &body;
	if (concerns_us(a)) {
		r = err_reason(&a->err, ERR_PRECONDITION, "MEMBER_SELF",
			       "a lighthouse does not remove itself: call another one");
	} else if (a->q->n_more > 0) {
		r = err_reason(&a->err, ERR_PRECONDITION, "FEATURE_LEVEL",
			       "several at once need feature level 2: `skerry cluster "
			       "finalize-upgrade`");
	}
	if (r >= 0) {
		r = cluster_propose(a->peer->cluster, a->peer->loop, &c, &o, on_removed, a,
				    &a->err);
	}
	a->here = r >= 0;
	if (r < 0) {
		end(a);
	}
}

static void begin(void *arg)
{
	struct ask *a = arg;
	struct peer *p = a->peer;
	uint64_t now = clock_mono_ms();
	struct rpc_opts o = {.deadline_ms = a->deadline_ms > now ? a->deadline_ms - now : 1};
	struct peer_link *l = p->leads ? NULL : peer_link_find(p, p->leader);

	list_push(&p->changes, &a->node);
	a->before = p->leader;
	if (atomic_load(&p->stopping)) {
		err_set(&a->err, ERR_CLOSED, "this lighthouse is stopping");
		end(a);
	} else if (a->q->change == CHANGE(REMOVE) && p->level == 1 && p->leader != 0) {
		remove_by_table(a);
	} else if (p->leads) {
		a->here = true;
		peer_change_here(p, a->q, on_here, a);
	} else if (l == NULL || !peer_link_connected(l)) {
		err_reason(&a->err, ERR_NO_QUORUM, "NO_QUORUM", "%s",
			   p->leader == 0 ? "there is no leader: a majority of the voters must run"
					  : "this lighthouse has no link to the leader");
		end(a);
	} else {
		a->call = rpc_unary(l->channel, PATH_CHANGE, &a->q->base,
				    &skerry__internal__v1__change_member_response__descriptor, &o,
				    on_answer, a);
	}
}

static int ask_new(struct ask *a, const change_request *q, struct err *err)
{
	int r;

	a->q = request_copy(q);
	r = loop_post(a->peer->loop, begin, a);
	if (r < 0) {
		pb_free(a->q);
		mem_free(a);
		return err_set(err, r, "too much is waiting for the peer thread");
	}
	return 0;
}

int peer_transfer(struct peer *p, struct loop *loop, uint64_t id, uint64_t deadline_ms,
		  transfer_cb cb, void *arg, struct err *err)
{
	change_request q = SKERRY__INTERNAL__V1__CHANGE_MEMBER_REQUEST__INIT;
	struct ask *a = MEM_NEW(struct ask);

	*a = (struct ask){
		.peer = p, .loop = loop, .deadline_ms = deadline_ms, .cb = cb, .arg = arg};
	q.change = CHANGE(TRANSFER);
	q.id = id;
	return ask_new(a, &q, err);
}

int peer_change_members(struct peer *p, struct loop *loop, const struct cluster_wish *w,
			uint64_t deadline_ms, members_cb cb, void *arg, struct err *err)
{
	static const int kinds[] = {
		[CLUSTER_PROMOTE] = CHANGE(PROMOTE), [CLUSTER_DEMOTE] = CHANGE(DEMOTE),
		[CLUSTER_REMOVE] = CHANGE(REMOVE),   [CLUSTER_REPLACE] = CHANGE(REPLACE),
		[CLUSTER_CANCEL] = CHANGE(CANCEL),
	};
	change_request q = SKERRY__INTERNAL__V1__CHANGE_MEMBER_REQUEST__INIT;
	struct ask *a = MEM_NEW(struct ask);

	PRE(w->n <= CLUSTER_WISH_MAX);
	*a = (struct ask){
		.peer = p, .loop = loop, .deadline_ms = deadline_ms, .members_cb = cb, .arg = arg};
	q.change = (Skerry__Internal__V1__MemberChange)kinds[w->kind];
	q.id = w->n > 0 ? w->id[0] : 0;
	q.n_more = w->n > 1 ? w->n - 1 : 0;
	q.more = (uint64_t *)w->id + 1;
	q.no_fill = w->no_fill;
	q.with = w->with;
	q.credential = (Skerry__Internal__V1__Credential *)w->credential;
	q.lifetime_ms = w->lifetime_ms;
	q.actor = (Skerry__Internal__V1__Actor *)w->actor;
	q.reason = w->reason != NULL ? (char *)w->reason : q.reason;
	return ask_new(a, &q, err);
}

void peer_change_stop(struct peer *p)
{
	struct err closed = {0};

	err_set(&closed, ERR_CLOSED, "this lighthouse is stopping");
	LIST_FOREACH_SAFE(&p->change_calls, it, tmp)
	{
		struct here *h = LIST_ENTRY(it, struct here, node);

		if (!h->begun) {
			here_end(h, &closed, 0);
		}
	}
	/* What the raft side was asked it has answered before: it ends first. */
	LIST_FOREACH_SAFE(&p->changes, it, tmp)
	{
		struct ask *a = LIST_ENTRY(it, struct ask, node);

		if (!a->here) {
			rpc_cancel(a->call);
			a->err = closed;
			end(a);
		}
	}
}
