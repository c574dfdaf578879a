/* What the leader does about members: raft's configuration, lost lighthouses, clocks. */
#include "cluster/peer_int.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rand.h"

/* After a step that failed, and between two attempts to hand over for the clock's sake. */
enum {
	TRANSFER_AGAIN_MS = 3000,
	HOLD_MS = 1000,
	REFUSED_HOLD_MS = 5000,
	TRANSFER_MS = 30000,
	CLOCKS_MS = 1000,
	GROWTH_STALL_MS = 15000
};

typedef Skerry__Internal__V1__Command command;
typedef Skerry__Internal__V1__CommandResult command_result;

static void own_command(struct peer *p, command *c, Skerry__Internal__V1__Actor *actor,
			uint8_t random[32])
{
	actor->kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_LIGHTHOUSE;
	actor->id = p->self;
	c->actor = actor;
	rand_bytes(random, 32);
	c->random.data = random;
	c->random.len = 32;
}

/* ---- tests ---- */

static _Atomic(member_step_fn) step_hook; /* set while threads run */
static void *_Atomic step_hook_arg;

void member_step_hook(member_step_fn fn, void *arg)
{
	atomic_store(&step_hook_arg, arg);
	atomic_store(&step_hook, fn);
}

static void say_step(const struct member_todo *todo, bool begun)
{
	member_step_fn fn = atomic_load(&step_hook);

	if (fn != NULL) {
		fn(atomic_load(&step_hook_arg), (int)todo->action, begun);
	}
}

/* ---- raft's configuration, and the change of the members that runs ---- */

static void changed(struct peer *p, const struct err *err, uint64_t hold_ms)
{
	p->changing = false;
	if (err->code != 0) {
		LOG_DEBUG("peer: membership: %s", err->msg);
		p->change_hold_ms = clock_mono_ms() + hold_ms;
		return;
	}
	/* What was applied just now is to be seen before the next step is chosen. */
	peer_table_refresh(p);
	member_run(p);
}

static void on_change(void *arg, const struct err *err)
{
	changed(arg, err, HOLD_MS);
}

static void on_command(void *arg, const struct err *err, const command_result *r)
{
	struct err e = *err;

	if (e.code == 0 && r->code != 0) {
		err_set(&e, ERR_PRECONDITION, "refused: %s", r->message);
	}
	changed(arg, &e, e.code == ERR_PRECONDITION ? REFUSED_HOLD_MS : HOLD_MS);
}

static void propose(struct peer *p, command *c)
{
	Skerry__Internal__V1__Actor actor = SKERRY__INTERNAL__V1__ACTOR__INIT;
	struct propose_options o = {.class = PROPOSE_INTERNAL};
	struct err e = {0};
	uint8_t random[32];

	own_command(p, c, &actor, random);
	if (cluster_propose(p->cluster, p->loop, c, &o, on_command, p, &e) < 0) {
		changed(p, &e, HOLD_MS);
	}
}

static void set_kind(struct peer *p, uint64_t id, Skerry__Internal__V1__MemberKind kind)
{
	command c = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Skerry__Internal__V1__MemberSetKind body = SKERRY__INTERNAL__V1__MEMBER_SET_KIND__INIT;

	body.id = id;
	body.kind = kind;
	c.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_MEMBER_SET_KIND;
	c.member_set_kind = &body;
	propose(p, &c);
}

static void say_progress(struct peer *p, int step, uint64_t about, bool cancel)
{
	command c = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Skerry__Internal__V1__ChangeProgress body = SKERRY__INTERNAL__V1__CHANGE_PROGRESS__INIT;

	body.id = p->change.id;
	body.step = (Skerry__Internal__V1__ChangeStep)step;
	body.about = about;
	body.cancel = cancel;
	c.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_CHANGE_PROGRESS;
	c.change_progress = &body;
	propose(p, &c);
}

static void end_change(struct peer *p, Skerry__Internal__V1__ChangeOutcome outcome)
{
	command c = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Skerry__Internal__V1__ChangeEnd body = SKERRY__INTERNAL__V1__CHANGE_END__INIT;

	body.id = p->change.id;
	body.outcome = outcome;
	c.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_CHANGE_END;
	c.change_end = &body;
	propose(p, &c);
}

static void begin_growth(struct peer *p, struct member_todo *todo)
{
	command c = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Skerry__Internal__V1__ChangeBegin body = SKERRY__INTERNAL__V1__CHANGE_BEGIN__INIT;

	body.kind = SKERRY__INTERNAL__V1__CHANGE_KIND__CHANGE_KIND_GROW;
	body.n_enter = todo->n_grow;
	body.enter = todo->grow;
	c.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_CHANGE_BEGIN;
	c.change_begin = &body;
	propose(p, &c);
}

static bool is_connected(void *arg, uint64_t id)
{
	struct peer_link *l = peer_link_find(arg, id);

	return l != NULL && peer_link_connected(l);
}

void peer_membership_view(struct peer *p, const struct link_state *s, struct membership_view *ret)
{
	*ret = (struct membership_view){
		.table = &p->table,
		.change = &p->change,
		.s = s,
		.self = p->self,
		.now_ms = MAX(p->state_ms, (uint64_t)MAX(clock_wall_ms(), 0)),
		.connected = is_connected,
		.arg = p,
	};
}

static void choose(struct peer *p, const struct link_state *s, struct member_todo *todo)
{
	struct membership_view v;

	if (p->level < 2) {
		member_next(&p->table, s, p->self, is_connected, p, todo);
		return;
	}
	peer_membership_view(p, s, &v);
	membership_next(&v, todo);
}

static void act(struct peer *p, struct member_todo *todo)
{
	char raft_address[24];

	switch (todo->action) {
	case MEMBER_NOTHING: break;
	case MEMBER_REMOVE: link_remove(p->cluster, p->loop, todo->id, on_change, p); break;
	case MEMBER_HAND_OVER: link_transfer(p->cluster, p->loop, todo->id, on_change, p); break;
	case MEMBER_ADD:
		/* Raft wants addresses that differ, and a host may come back at the address of the one it replaces. */
		snprintf(raft_address, sizeof(raft_address), "%" PRIu64, todo->id);
		link_add(p->cluster, p->loop, todo->id, raft_address, on_change, p);
		break;
	case MEMBER_PROMOTE: link_promote(p->cluster, p->loop, todo->id, on_change, p); break;
	case MEMBER_DEMOTE: link_demote(p->cluster, p->loop, todo->id, on_change, p); break;
	case MEMBER_SET_VOTER:
		set_kind(p, todo->id, SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_VOTER);
		break;
	case MEMBER_SET_STANDBY:
		set_kind(p, todo->id, SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_STANDBY);
		break;
	case MEMBER_SET_REMOVED:
		set_kind(p, todo->id, SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_REMOVED);
		break;
	case MEMBER_GROW: begin_growth(p, todo); break;
	case MEMBER_END:
		end_change(p, SKERRY__INTERNAL__V1__CHANGE_OUTCOME__CHANGE_OUTCOME_DONE);
		break;
	case MEMBER_END_CANCELLED:
		end_change(p, SKERRY__INTERNAL__V1__CHANGE_OUTCOME__CHANGE_OUTCOME_CANCELLED);
		break;
	case MEMBER_END_EXPIRED:
		end_change(p, SKERRY__INTERNAL__V1__CHANGE_OUTCOME__CHANGE_OUTCOME_EXPIRED);
		break;
	}
}

/* Growth is nobody's wish: when one that was to vote goes away, it is given up, so that it bars nothing else. */
static bool growth_stalls(struct peer *p, const struct member_todo *todo, uint64_t now)
{
	if (p->change.kind != SKERRY__INTERNAL__V1__CHANGE_KIND__CHANGE_KIND_GROW ||
	    p->change.cancelled || todo->action != MEMBER_NOTHING) {
		p->stall_ms = 0;
		return false;
	}
	if (p->stall_ms == 0) {
		p->stall_ms = now;
	}
	return now - p->stall_ms >= GROWTH_STALL_MS;
}

static void follow_table(struct peer *p, const struct link_state *s, uint64_t now)
{
	struct member_todo todo;

	if (p->changing || now < p->change_hold_ms) {
		return;
	}
	choose(p, s, &todo);
	if (p->change.id != 0 && !s->changing && growth_stalls(p, &todo, now)) {
		p->stall_ms = 0;
		p->changing = true;
		say_progress(p, 0, 0, true);
		return;
	}
	if (p->change.id != 0 && todo.step != 0 &&
	    (todo.step != p->change.step || todo.about != p->change.about)) {
		p->changing = true;
		say_progress(p, todo.step, todo.about, false);
		return;
	}
	if (todo.action == MEMBER_NOTHING) {
		return;
	}
	LOG_DEBUG("peer: membership step %d of %" PRIu64, (int)todo.action, todo.id);
	p->changing = true;
	say_step(&todo, false);
	act(p, &todo);
	say_step(&todo, true);
}

/* ---- lost lighthouses ---- */

struct lost {
	struct peer *peer;
	uint64_t id, incarnation;
};

static void on_lost(void *arg, const struct err *err, const command_result *r)
{
	struct lost *lost = arg;
	struct peer_link *l = peer_link_find(lost->peer, lost->id);

	(void)r; /* a refusal means that it has started anew meanwhile */
	if (err->code != 0 && l != NULL && l->lost_incarnation == lost->incarnation) {
		l->lost_incarnation = 0; /* to be said again */
	}
	mem_free(lost);
}

static void say_lost(struct peer *p, struct peer_link *l, uint64_t incarnation)
{
	command c = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Skerry__Internal__V1__Actor actor = SKERRY__INTERNAL__V1__ACTOR__INIT;
	Skerry__Internal__V1__LighthouseLost body = SKERRY__INTERNAL__V1__LIGHTHOUSE_LOST__INIT;
	struct propose_options o = {.class = PROPOSE_INTERNAL};
	struct lost *lost = MEM_NEW(struct lost);
	struct err e = {0};
	uint8_t random[32];

	*lost = (struct lost){.peer = p, .id = l->id, .incarnation = incarnation};
	own_command(p, &c, &actor, random);
	body.id = l->id;
	body.incarnation = incarnation;
	c.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_LIGHTHOUSE_LOST;
	c.lighthouse_lost = &body;
	l->lost_incarnation = incarnation;
	LOG_DEBUG("peer: lighthouse %" PRIu64 " is lost", l->id);
	if (cluster_propose(p->cluster, p->loop, &c, &o, on_lost, lost, &e) < 0) {
		l->lost_incarnation = 0;
		mem_free(lost);
	}
}

static void find_lost(struct peer *p, const struct link_state *s, uint64_t now)
{
	if (now - s->leader_since_ms < PEER_LOST_MS) {
		return; /* the others may just be connecting to the new leader */
	}
	LIST_FOREACH(&p->links, it)
	{
		struct peer_link *l = LIST_ENTRY(it, struct peer_link, node);
		const struct member *m = member_find(&p->table, l->id);

		if (m != NULL && m->incarnation != 0 && l->down_ms != 0 &&
		    now - l->down_ms >= PEER_LOST_MS && l->lost_incarnation != m->incarnation) {
			say_lost(p, l, m->incarnation);
		}
	}
}

/* ---- clocks ---- */

static void on_transfer(void *arg, const struct err *err)
{
	struct peer *p = arg;

	if (err->code != 0) {
		p->transfer_ms = MIN(p->transfer_ms, clock_mono_ms() + TRANSFER_AGAIN_MS);
		LOG_DEBUG("peer: hand over: %s", err->msg);
	}
}

static void judge_clocks(struct peer *p, const struct link_state *s, uint64_t now)
{
	struct member_clock c[LIM_MEMBERS];
	uint64_t ids[LIM_MEMBERS];
	int64_t skew = clock_skew_ms();
	size_t n = 0;

	for (size_t i = 0; i < s->n; i++) {
		struct peer_link *l;

		if (s->server[i].role != LINK_VOTER || s->server[i].id == p->self) {
			continue;
		}
		l = peer_link_find(p, s->server[i].id);
		ids[n] = s->server[i].id;
		c[n] = (struct member_clock){0};
		if (l != NULL && peer_link_connected(l)) {
			c[n].known = true;
			c[n].offset_ms = l->skew_ms - skew;
		}
		n++;
	}
	link_clocks_agree(p->cluster, member_clocks_agree(c, n), skew);
	if (s->self_leads && member_clock_is_off(c, n) && now >= p->transfer_ms) {
		p->transfer_ms = now + TRANSFER_MS;
		LOG_WARN("the clock of this lighthouse is more than 10 s off the others': it hands "
			 "leadership over; set the clock");
		link_transfer(p->cluster, p->loop, ids[member_clock_best(c, n)], on_transfer, p);
	}
}

void member_run(struct peer *p)
{
	struct link_state s;
	uint64_t now = clock_mono_ms();

	if (atomic_load(&p->stopping)) {
		return;
	}
	link_state(p->cluster, &s);
	if (now >= p->clocks_ms) {
		p->clocks_ms = now + CLOCKS_MS;
		judge_clocks(p, &s, now);
	}
	if (!s.self_leads) {
		return;
	}
	follow_table(p, &s, now);
	find_lost(p, &s, now);
	peer_notice_run(p, &s, now);
}
