/*
 * What an operator asks about members: hand-over of leadership, a standby made a voter. Any lighthouse takes it and
 * passes it to the leader, which judges.
 */
#include "cluster/peer_int.h"

#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/rpc_client.h"

#define PATH_CHANGE "/skerry.internal.v1.PeerService/ChangeMember"

enum {
	SEEN_POLL_MS = 20,
	SEEN_MS = 3000,
	FIT_POLL_MS = 50,
	FIT_MS = 1500, /* a leader of a moment ago does not know yet what the others hold */
};

typedef Skerry__Internal__V1__ChangeMemberRequest change_request;
typedef Skerry__Internal__V1__ChangeMemberResponse change_response;

/* ---- on the leader ---- */

struct here {
	struct list node; /* on peer.change_calls */
	struct peer *peer;
	enum peer_change kind;
	uint64_t id, since_ms;
	link_change_cb cb;
	void *arg;
	struct err err;
	bool begun; /* the raft side answers */
	struct loop_timer timer;
};

static void here_end(struct here *h, const struct err *err)
{
	list_remove(&h->node);
	loop_timer_stop(&h->timer);
	h->cb(h->arg, err);
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
	} else if (e.code == ERR_ABORTED && h->kind == PEER_CHANGE_TRANSFER) {
		err_reason(&e, ERR_ABORTED, "NOT_TAKEN_OVER",
			   "the other lighthouse did not take over in time: this one leads on");
	}
	here_end(h, &e);
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

static void here_try(void *arg)
{
	struct here *h = arg;
	struct peer *p = h->peer;
	struct link_state s;
	uint64_t to = h->id;
	int r;

	err_clear(&h->err);
	link_state(p->cluster, &s);
	s.changing |= p->changing; /* a step towards the table's members */
	r = h->kind == PEER_CHANGE_TRANSFER
		    ? member_may_lead(&p->table, &s, p->self, h->id, is_connected, p, &to, &h->err)
		    : member_may_vote(&p->table, &s, p->self, h->id, is_connected, p, &h->err);
	if (r < 0 && may_pass(h)) {
		loop_timer_start(&h->timer, p->loop, FIT_POLL_MS, here_try, h);
		return;
	}
	if (r < 0) {
		here_end(h, &h->err);
		return;
	}
	h->begun = true;
	if (h->kind == PEER_CHANGE_TRANSFER) {
		LOG_INFO("leadership goes to lighthouse %" PRIu64 ", as an operator asked", to);
		link_transfer(p->cluster, p->loop, to, on_changed, h);
	} else {
		LOG_INFO("lighthouse %" PRIu64 " becomes a voter, as an operator asked", to);
		link_promote(p->cluster, p->loop, to, on_changed, h);
	}
}

void peer_change_here(struct peer *p, enum peer_change kind, uint64_t id, link_change_cb cb,
		      void *arg)
{
	struct here *h = MEM_NEW(struct here);

	*h = (struct here){.peer = p,
			   .kind = kind,
			   .id = id,
			   .since_ms = clock_mono_ms(),
			   .cb = cb,
			   .arg = arg};
	list_push(&p->change_calls, &h->node);
	loop_timer_start(&h->timer, p->loop, 0, here_try, h);
}

/* ---- where it was asked ---- */

/* Made on the caller's thread, lives on the peer thread, its end is posted to the caller's loop. */
struct ask {
	struct list node;
	struct peer *peer;
	struct loop *loop;
	enum peer_change kind;
	uint64_t id, deadline_ms, before, leader;
	transfer_cb cb;
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

	a->cb(a->arg, &a->err, a->leader);
	mem_free(a);
}

static void end(struct ask *a)
{
	list_remove(&a->node);
	loop_timer_stop(&a->timer);
	loop_post_reply(a->loop, deliver, a);
}

/* Done; the answer names who leads now, as soon as it is known here. */
static void on_seen(void *arg)
{
	struct ask *a = arg;
	struct link_state s;

	link_state(a->peer->cluster, &s);
	a->leader = s.leader;
	if ((a->kind == PEER_CHANGE_TRANSFER && (s.leader == 0 || s.leader == a->before)) &&
	    clock_mono_ms() < a->seen_until_ms && !atomic_load(&a->peer->stopping)) {
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
	a->seen_until_ms = MIN(clock_mono_ms() + SEEN_MS, a->deadline_ms);
	on_seen(a);
}

static void on_here(void *arg, const struct err *err)
{
	struct ask *a = arg;
	struct err e = *err;

	a->here = false;
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
	}
	done(a, &e);
}

static void begin(void *arg)
{
	struct ask *a = arg;
	struct peer *p = a->peer;
	uint64_t now = clock_mono_ms();
	change_request q = SKERRY__INTERNAL__V1__CHANGE_MEMBER_REQUEST__INIT;
	struct rpc_opts o = {.deadline_ms = a->deadline_ms > now ? a->deadline_ms - now : 1};
	struct peer_link *l = p->leads ? NULL : peer_link_find(p, p->leader);

	list_push(&p->changes, &a->node);
	a->before = p->leader;
	if (atomic_load(&p->stopping)) {
		err_set(&a->err, ERR_CLOSED, "this lighthouse is stopping");
		end(a);
	} else if (p->leads) {
		a->here = true;
		peer_change_here(p, a->kind, a->id, on_here, a);
	} else if (l == NULL || !peer_link_connected(l)) {
		err_set(&a->err, ERR_NO_QUORUM,
			p->leader == 0 ? "there is no leader: a majority of the voters must run"
				       : "this lighthouse has no link to the leader");
		end(a);
	} else {
		q.change = a->kind == PEER_CHANGE_TRANSFER
				   ? SKERRY__INTERNAL__V1__MEMBER_CHANGE__MEMBER_CHANGE_TRANSFER
				   : SKERRY__INTERNAL__V1__MEMBER_CHANGE__MEMBER_CHANGE_PROMOTE;
		q.id = a->id;
		a->call = rpc_unary(l->channel, PATH_CHANGE, &q.base,
				    &skerry__internal__v1__change_member_response__descriptor, &o,
				    on_answer, a);
	}
}

int peer_change_member(struct peer *p, struct loop *loop, enum peer_change kind, uint64_t id,
		       uint64_t deadline_ms, transfer_cb cb, void *arg, struct err *err)
{
	struct ask *a = MEM_NEW(struct ask);
	int r;

	*a = (struct ask){.peer = p,
			  .loop = loop,
			  .kind = kind,
			  .id = id,
			  .deadline_ms = deadline_ms,
			  .cb = cb,
			  .arg = arg};
	r = loop_post(p->loop, begin, a);
	if (r < 0) {
		mem_free(a);
		return err_set(err, r, "too much is waiting for the peer thread");
	}
	return 0;
}

void peer_change_stop(struct peer *p)
{
	struct err closed = {0};

	err_set(&closed, ERR_CLOSED, "this lighthouse is stopping");
	LIST_FOREACH_SAFE(&p->change_calls, it, tmp)
	{
		struct here *h = LIST_ENTRY(it, struct here, node);

		if (!h->begun) {
			here_end(h, &closed);
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
