#include "cluster/membership.h"

#include <inttypes.h>
#include <string.h>

#include "base/arena.h"
#include "tailnet/query.h"

#define KIND(x) SKERRY__INTERNAL__V1__CHANGE_KIND__CHANGE_KIND_##x
#define STEP(x) SKERRY__INTERNAL__V1__CHANGE_STEP__CHANGE_STEP_##x

enum { ARENA = 64 << 10 };

/* ---- the record ---- */

int membership_read(const struct kv *kv, struct membership *ret, struct err *err)
{
	struct membership m = {0};
	MembershipChange *c;
	struct arena a;
	int r;

	arena_init(&a, ARENA);
	r = query_membership(kv, false, &a, &c);
	if (r == 0 && (c->n_enter > LIM_VOTERS || c->n_leave > LIM_VOTERS)) {
		r = err_set(err, ERR_CORRUPT, "a change of the members names too many");
	} else if (r == 0) {
		m = (struct membership){
			.id = c->id,
			.kind = (int)c->kind,
			.step = (int)c->step,
			.about = c->about,
			.n_enter = c->n_enter,
			.n_leave = c->n_leave,
			.no_vote = c->no_vote,
			.cancelled = c->cancelled,
			.token_id = c->token_id,
			.expire_ms = c->expire_ms,
		};
		for (size_t i = 0; i < m.n_enter; i++) {
			m.enter[i] = c->enter[i];
		}
		for (size_t i = 0; i < m.n_leave; i++) {
			m.leave[i] = c->leave[i];
		}
	} else if (r != ERR_NOT_FOUND) {
		IGNORE(err_set(err, r, "the change of the members cannot be read: %s",
			       err_text(r)));
	}
	arena_done(&a);
	if (r == 0 || r == ERR_NOT_FOUND) {
		*ret = m;
		r = 0;
	}
	return r;
}

/* ---- who votes, in raft ---- */

static bool is_voter(const struct membership_view *v, uint64_t id)
{
	const struct link_server *server = member_server(v->s, id);

	return server != NULL && server->role == LINK_VOTER;
}

static bool is_reached(const struct membership_view *v, uint64_t id)
{
	return id == v->self || v->connected(v->arg, id);
}

static bool is_ready(const struct membership_view *v, uint64_t id)
{
	const struct link_server *server = member_server(v->s, id);

	return server != NULL && v->connected(v->arg, id) && member_caught_up(server, v->s);
}

static bool listed(const uint64_t *list, size_t n, uint64_t id)
{
	for (size_t i = 0; i < n; i++) {
		if (list[i] == id) {
			return true;
		}
	}
	return false;
}

/* Who votes at some point of a change, and who of them is reached. */
struct voters {
	size_t n, reached;
	uint64_t id[LIM_MEMBERS];
};

static struct voters voters_now(const struct membership_view *v)
{
	struct voters x = {0};

	for (size_t i = 0; i < v->s->n && x.n < LIM_MEMBERS; i++) {
		if (v->s->server[i].role == LINK_VOTER) {
			x.id[x.n++] = v->s->server[i].id;
			x.reached += is_reached(v, v->s->server[i].id);
		}
	}
	return x;
}

static struct voters with(struct voters x, const struct membership_view *v, uint64_t id)
{
	if (x.n < LIM_MEMBERS) {
		x.id[x.n++] = id;
		x.reached += is_reached(v, id);
	}
	return x;
}

static struct voters without(struct voters x, const struct membership_view *v, uint64_t id)
{
	for (size_t i = 0; i < x.n; i++) {
		if (x.id[i] == id) {
			x.id[i] = x.id[--x.n];
			x.reached -= is_reached(v, id);
			break;
		}
	}
	return x;
}

static bool holds(const struct voters *x)
{
	return x->reached > x->n / 2;
}

/* The next vote that is given or taken; 0: raft is as it is wanted. */
static uint64_t next_vote(const struct membership_view *v, const struct membership *c,
			  const struct voters *x, bool *ret_give)
{
	for (size_t i = 0; i < c->n_leave; i++) {
		if (listed(x->id, x->n, c->leave[i]) && !is_reached(v, c->leave[i])) {
			*ret_give = false;
			return c->leave[i];
		}
	}
	for (size_t i = 0; i < c->n_enter && !c->no_vote; i++) {
		if (!listed(x->id, x->n, c->enter[i])) {
			*ret_give = true;
			return c->enter[i];
		}
	}
	/* Ourselves last: we do the others first. */
	for (int own = 0; own < 2; own++) {
		for (size_t i = 0; i < c->n_leave; i++) {
			if (listed(x->id, x->n, c->leave[i]) && (c->leave[i] == v->self) == own) {
				*ret_give = false;
				return c->leave[i];
			}
		}
	}
	return 0;
}

/* ---- the next step ---- */

static void todo(struct member_todo *ret, enum member_action action, uint64_t id, int step)
{
	*ret = (struct member_todo){.action = action, .id = id, .step = step, .about = id};
}

/* Who takes over from us: a voter that stays, with the most of the log. 0: nobody can. */
static uint64_t successor(const struct membership_view *v, const struct membership *c)
{
	const struct link_server *best = NULL;

	for (size_t i = 0; i < v->s->n; i++) {
		const struct link_server *x = &v->s->server[i];
		const struct member *m = member_find(v->table, x->id);

		if (x->role == LINK_VOTER && x->id != v->self && m != NULL && !m->removed &&
		    !listed(c->leave, c->n_leave, x->id) && is_ready(v, x->id) &&
		    (best == NULL || x->match_index > best->match_index)) {
			best = x;
		}
	}
	return best != NULL ? best->id : 0;
}

static void take_vote(const struct membership_view *v, const struct membership *c, uint64_t id,
		      int step, struct member_todo *ret)
{
	struct voters x = voters_now(v);

	x = without(x, v, id);
	if (x.n == 0 || !holds(&x)) {
		todo(ret, MEMBER_NOTHING, id, STEP(QUORUM));
	} else if (id == v->self) {
		uint64_t to = successor(v, c);

		todo(ret, to != 0 ? MEMBER_HAND_OVER : MEMBER_NOTHING, to, STEP(HAND_OVER));
		ret->about = id;
	} else {
		todo(ret, MEMBER_DEMOTE, id, step);
	}
}

/* Given up: an even number of voters is not left behind if the one that made it even can go back. */
static bool undo(const struct membership_view *v, const struct membership *c,
		 struct member_todo *ret)
{
	struct voters x = voters_now(v);

	if (x.n % 2 != 0) {
		return false;
	}
	for (size_t i = c->n_enter; i-- > 0;) {
		if (is_voter(v, c->enter[i])) {
			take_vote(v, c, c->enter[i], STEP(UNDO), ret);
			return ret->action != MEMBER_NOTHING;
		}
	}
	return false;
}

/* What raft has to do for the change. True: that, or wait for it. */
static bool drive(const struct membership_view *v, struct member_todo *ret)
{
	const struct membership *c = v->change;
	struct voters x = voters_now(v), then;
	bool give = false;
	uint64_t id;

	if (c->cancelled) {
		return undo(v, c, ret);
	}
	if (c->kind == KIND(REPLACE) && c->n_enter == 0) {
		if (v->now_ms >= c->expire_ms) {
			todo(ret, MEMBER_END_EXPIRED, 0, 0);
		} else {
			todo(ret, MEMBER_NOTHING, 0, STEP(JOIN));
		}
		return true;
	}
	for (size_t i = 0; i < c->n_enter; i++) {
		if (!is_voter(v, c->enter[i]) && !is_ready(v, c->enter[i])) {
			todo(ret, MEMBER_NOTHING, c->enter[i], STEP(CATCH_UP));
			return true;
		}
	}
	id = next_vote(v, c, &x, &give);
	if (id == 0) {
		return false;
	}
	if (!give) {
		take_vote(v, c, id, STEP(DEMOTE), ret);
		return true;
	}
	then = with(x, v, id);
	todo(ret, holds(&then) ? MEMBER_PROMOTE : MEMBER_NOTHING, id,
	     holds(&then) ? STEP(PROMOTE) : STEP(QUORUM));
	return true;
}

/* The table says what raft has done: new voters first, since the table wants one at any time. */
static bool tell_table(const struct membership_view *v, struct member_todo *ret)
{
	for (int voter = 1; voter >= 0; voter--) {
		for (size_t i = 0; i < v->table->n; i++) {
			const struct member *m = &v->table->m[i];

			if (!m->removed && is_voter(v, m->id) == voter && m->voter != voter) {
				*ret = (struct member_todo){.action = voter ? MEMBER_SET_VOTER
									    : MEMBER_SET_STANDBY,
							    .id = m->id};
				return true;
			}
		}
	}
	return false;
}

/* Raft and table agree on the votes: removals, then the end. */
static void finish(const struct membership_view *v, struct member_todo *ret)
{
	const struct membership *c = v->change;

	if (c->cancelled) {
		todo(ret, MEMBER_END_CANCELLED, 0, 0);
		return;
	}
	for (size_t i = 0; i < c->n_leave; i++) {
		const struct member *m = member_find(v->table, c->leave[i]);

		if ((c->kind == KIND(REMOVE) || c->kind == KIND(REPLACE)) && m != NULL &&
		    !m->removed) {
			todo(ret, MEMBER_SET_REMOVED, m->id, STEP(REMOVE));
			return;
		}
	}
	todo(ret, MEMBER_END, 0, 0);
}

/* Standbys that may become voters by themselves, by id. */
static size_t ready_standbys(const struct membership_view *v, const struct membership *c,
			     uint64_t *ret, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; i < v->table->n && n < max; i++) {
		const struct member *m = &v->table->m[i];

		if (!m->removed && !m->keep_standby && !is_voter(v, m->id) && is_ready(v, m->id) &&
		    !listed(c->leave, c->n_leave, m->id)) {
			ret[n++] = m->id;
		}
	}
	return n;
}

static void grow(const struct membership_view *v, struct member_todo *ret)
{
	static const struct membership none;
	struct membership plan = {.kind = KIND(GROW)};
	struct voters x = voters_now(v);
	size_t ready, target;

	if (x.n >= LIM_VOTERS) {
		return;
	}
	ready = ready_standbys(v, &none, plan.enter, LIM_VOTERS);
	target = MIN(x.n + ready, (size_t)LIM_VOTERS);
	target -= target % 2 == 0;
	if (target <= x.n) {
		return;
	}
	plan.n_enter = target - x.n;
	if (membership_may(v, &plan, NULL) == 0) {
		*ret = (struct member_todo){.action = MEMBER_GROW, .n_grow = plan.n_enter};
		memcpy(ret->grow, plan.enter, sizeof(ret->grow));
	}
}

void membership_next(const struct membership_view *v, struct member_todo *ret)
{
	*ret = (struct member_todo){.action = MEMBER_NOTHING};
	if (!v->s->self_leads || v->s->changing || v->table->n == 0 ||
	    member_next_place(v->table, v->s, v->self, ret)) {
		return;
	}
	if (v->change->id != 0 && drive(v, ret)) {
		return;
	}
	if (tell_table(v, ret)) {
		return;
	}
	if (v->change->id != 0) {
		finish(v, ret);
	} else {
		grow(v, ret);
	}
}

/* ---- what an operator asks for ---- */

/* So many standbys that an odd number of voters comes of it, the most that are to be had; else none. */
static void fill(const struct membership_view *v, struct membership *c)
{
	struct voters x = voters_now(v);
	uint64_t ready[LIM_VOTERS];
	size_t go = 0, n;

	for (size_t i = 0; i < c->n_leave; i++) {
		go += is_voter(v, c->leave[i]);
	}
	n = MIN(ready_standbys(v, c, ready, LIM_VOTERS), go);
	while (n > 0 && (x.n - go + n) % 2 == 0) {
		n--;
	}
	memcpy(c->enter, ready, n * sizeof(ready[0]));
	c->n_enter = n;
}

void membership_plan(const struct membership_view *v, const struct membership_wish *w,
		     struct membership *ret)
{
	bool enters = w->kind == KIND(PROMOTE) || w->kind == KIND(GROW);

	*ret = (struct membership){.kind = w->kind};
	memcpy(enters ? ret->enter : ret->leave, w->id, w->n * sizeof(w->id[0]));
	*(enters ? &ret->n_enter : &ret->n_leave) = w->n;
	if (w->kind == KIND(REPLACE) && w->with != 0) {
		ret->enter[ret->n_enter++] = w->with;
	} else if ((w->kind == KIND(DEMOTE) || w->kind == KIND(REMOVE)) && !w->no_fill) {
		fill(v, ret);
	}
}

static const char *name_of(const struct membership_view *v, uint64_t id)
{
	const struct member *m = member_find(v->table, id);

	return m != NULL ? m->name : "?";
}

static int enter_is_ready(const struct membership_view *v, uint64_t id, struct err *err)
{
	const struct link_server *server = member_server(v->s, id);

	if (server == NULL || !v->connected(v->arg, id)) {
		return err_reason(err, ERR_PRECONDITION, "MEMBER_NOT_CONNECTED",
				  "the leader has no link to %s: see that it runs and is reached",
				  name_of(v, id));
	}
	if (!member_caught_up(server, v->s)) {
		return err_reason(err, ERR_PRECONDITION, "MEMBER_BEHIND",
				  "%s is at entry %" PRIu64 " of %" PRIu64
				  ": try again when it has caught up",
				  name_of(v, id), server->match_index, v->s->commit_index);
	}
	return 0;
}

int membership_may(const struct membership_view *v, const struct membership *c, struct err *err)
{
	struct voters x = voters_now(v);
	bool give = false;
	uint64_t id;

	if (!v->s->self_leads) {
		return err_set(err, ERR_NOT_LEADER, "this lighthouse does not lead");
	}
	if (!holds(&x)) {
		return err_reason(err, ERR_PRECONDITION, "WOULD_LOSE_QUORUM",
				  "only %zu of %zu voters are reached, %zu are needed: bring the "
				  "others back first",
				  x.reached, x.n, x.n / 2 + 1);
	}
	for (size_t i = 0; i < c->n_enter; i++) {
		int r = enter_is_ready(v, c->enter[i], err);

		if (r < 0) {
			return r;
		}
	}
	while ((id = next_vote(v, c, &x, &give)) != 0) {
		x = give ? with(x, v, id) : without(x, v, id);
		if (!holds(&x)) {
			return err_reason(
				err, ERR_PRECONDITION, "WOULD_LOSE_QUORUM",
				"that would lose the quorum: of then %zu voters %zu would be "
				"reached, %zu are needed: bring the others back first",
				x.n, x.reached, x.n / 2 + 1);
		}
	}
	return 0;
}
