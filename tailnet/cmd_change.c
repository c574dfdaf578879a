/*
 * Changes of who votes and who is a member. A record from beginning to end says what is wanted; the leader does the steps
 * and the next one goes on from it. What the network decides (who is reached, who has caught up) was judged before.
 */
#include "tailnet/commands_int.h"

#include <string.h>

#include "base/limits.h"

#define MEMBER_KIND(x) SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_##x
#define KIND(x)        SKERRY__INTERNAL__V1__CHANGE_KIND__CHANGE_KIND_##x
#define STEP(x)        SKERRY__INTERNAL__V1__CHANGE_STEP__CHANGE_STEP_##x
#define OUTCOME(x)     SKERRY__INTERNAL__V1__CHANGE_OUTCOME__CHANGE_OUTCOME_##x

enum { RUNNING = 1, ENDED = 2 };

static const char *const kind_names[] = {"", "grow", "promote", "demote", "remove", "replace"};
static const char *const outcome_names[] = {"", "done", "cancelled", "expired"};

/* ---- shared ---- */

MembershipChange *membership_running(struct state *st)
{
	struct skey k;

	return st_get(st, skey_id(&k, TABLE_MEMBERSHIP, RUNNING), REC(membership_change));
}

void membership_put(struct state *st, MembershipChange *c)
{
	struct skey k;

	state_put(st, skey_id(&k, TABLE_MEMBERSHIP, RUNNING), c, NULL);
}

void membership_step(struct state *st, MembershipChange *c, int step, uint64_t about)
{
	if ((int)c->step != step || c->about != about) {
		c->step = step;
		c->about = about;
		c->step_ms = st->now;
	}
	membership_put(st, c);
}

static void token_revoke(struct state *st, uint64_t id)
{
	struct skey k;
	JoinTokenRecord *t;

	if (id == 0) {
		return;
	}
	t = st_get(st, skey_id(&k, TABLE_JOIN_TOKEN, id), REC(join_token_record));
	if (t != NULL && t->used_by == 0 && !t->revoked) {
		t->revoked = true;
		state_put(st, skey_slice(&k), t, NULL);
	}
}

void membership_close(struct state *st, MembershipChange *c, int outcome)
{
	struct skey k;

	token_revoke(st, c->token_id);
	/* Given up: who has lost the vote already may have it again. */
	for (size_t i = 0; outcome == OUTCOME(CANCELLED) && i < c->n_leave; i++) {
		MemberRecord *m = st_member(st, c->leave[i]);

		if (m != NULL && m->kind != MEMBER_KIND(REMOVED) && m->keep_standby) {
			m->keep_standby = false;
			st_put_member(st, m);
		}
	}
	c->outcome = outcome;
	c->end_ms = st->now;
	state_del(st, skey_id(&k, TABLE_MEMBERSHIP, RUNNING), NULL, false);
	state_put(st, skey_id(&k, TABLE_MEMBERSHIP, ENDED), c, NULL);
	st_audit(st, 0, "membership.end", "", "%s: %s", kind_names[c->kind],
		 outcome_names[outcome]);
}

/* ---- begin ---- */

static bool listed(const uint64_t *list, size_t n, uint64_t id)
{
	for (size_t i = 0; i < n; i++) {
		if (list[i] == id) {
			return true;
		}
	}
	return false;
}

/* Who is what now. */
static void count(struct state *st, size_t *ret_voters, size_t *ret_standbys)
{
	struct skey k = {0};
	MemberRecord *m;

	*ret_voters = *ret_standbys = 0;
	while ((m = record_next(st, TABLE_MEMBER, &k, REC(member_record))) != NULL) {
		*ret_voters += m->kind == MEMBER_KIND(VOTER);
		*ret_standbys += m->kind == MEMBER_KIND(STANDBY);
	}
}

/* Names what runs, so that one knows what to wait for or to give up. */
static int refuse_running(struct state *st, const MembershipChange *c)
{
	uint64_t id = c->n_leave > 0 ? c->leave[0] : c->n_enter > 0 ? c->enter[0] : 0;
	const MemberRecord *m = id != 0 ? st_member(st, id) : NULL;

	return refuse(
		st, CODE_PRECONDITION, "CHANGE_IN_FLIGHT", "",
		"another change of the members is under way (%s %s): wait for its end (`skerry "
		"cluster status` shows its step), or give it up by `skerry cluster cancel`",
		kind_names[c->kind], m != NULL ? m->name : "");
}

static int valid_enter(struct state *st, const Skerry__Internal__V1__ChangeBegin *c)
{
	for (size_t i = 0; i < c->n_enter; i++) {
		MemberRecord *m = member_alive(st, c->enter[i]);

		if (m == NULL) {
			return REFUSE;
		}
		if (m->kind != MEMBER_KIND(STANDBY)) {
			return refuse(st, CODE_PRECONDITION, "ALREADY_VOTER", "name",
				      "%s is a voter already", m->name);
		}
		if (listed(c->enter, i, m->id) || listed(c->leave, c->n_leave, m->id)) {
			return refuse(st, CODE_INVALID, "NAMED_TWICE", "name", "%s is named twice",
				      m->name);
		}
	}
	return ACCEPT;
}

/* *ret_votes: how many of them vote now. */
static int valid_leave(struct state *st, const Skerry__Internal__V1__ChangeBegin *c,
		       size_t *ret_votes)
{
	*ret_votes = 0;
	for (size_t i = 0; i < c->n_leave; i++) {
		MemberRecord *m = member_alive(st, c->leave[i]);

		if (m == NULL) {
			return REFUSE;
		}
		*ret_votes += m->kind == MEMBER_KIND(VOTER);
		if (c->kind == KIND(DEMOTE) && m->kind != MEMBER_KIND(VOTER)) {
			return refuse(st, CODE_PRECONDITION, "ALREADY_STANDBY", "name",
				      "%s is a standby already", m->name);
		}
		if (listed(c->leave, i, m->id)) {
			return refuse(st, CODE_INVALID, "NAMED_TWICE", "name", "%s is named twice",
				      m->name);
		}
		if (c->kind == KIND(REPLACE) && c->n_enter > 0 && m->kind != MEMBER_KIND(VOTER)) {
			return refuse(st, CODE_PRECONDITION, "NOT_A_VOTER", "name",
				      "%s is a standby, and so is the other one: remove it by "
				      "`skerry cluster remove`",
				      m->name);
		}
	}
	return ACCEPT;
}

static int valid_form(struct state *st, const Skerry__Internal__V1__ChangeBegin *c)
{
	bool enters = c->kind == KIND(GROW) || c->kind == KIND(PROMOTE);
	bool one = c->kind == KIND(REPLACE);

	if (c->kind == KIND(UNSPECIFIED) || c->n_enter > LIM_VOTERS || c->n_leave > LIM_VOTERS ||
	    (enters && (c->n_enter == 0 || c->n_leave != 0)) || (!enters && c->n_leave == 0) ||
	    (one && (c->n_leave != 1 || c->n_enter > 1)) ||
	    ((one && c->n_enter == 0) != (c->credential != NULL))) {
		return refuse(st, CODE_INVALID, "", "name",
			      "the change names nobody, or too many lighthouses");
	}
	return ACCEPT;
}

static int valid_counts(struct state *st, const Skerry__Internal__V1__ChangeBegin *c,
			size_t leaving)
{
	bool drops = c->kind == KIND(DEMOTE) || c->kind == KIND(REMOVE);
	size_t voters, standbys, after;

	count(st, &voters, &standbys);
	after = voters - leaving + (c->credential != NULL ? leaving : c->n_enter);
	if (after == 0) {
		return refuse(st, CODE_PRECONDITION, "LAST_VOTER", "name",
			      "it is the last voter, and a cluster needs one: join another "
			      "lighthouse first");
	}
	if (after > LIM_VOTERS) {
		return refuse(st, CODE_PRECONDITION, "VOTERS_FULL", "name",
			      "there are %zu voters, %d are the limit: demote or remove one first",
			      voters, LIM_VOTERS);
	}
	if (after % 2 == 0 && !drops && c->kind != KIND(REPLACE)) {
		return refuse(st, CODE_PRECONDITION, "EVEN_VOTERS", "name",
			      "%zu voters survive no more losses than %zu, and need one more of "
			      "them: name one more standby, or join another lighthouse",
			      after, after - 1);
	}
	if (after % 2 == 0 && c->kind == KIND(DEMOTE)) {
		return refuse(st, CODE_PRECONDITION, "EVEN_VOTERS", "name",
			      "%zu voters would be left, which survive no more losses than %zu: "
			      "name one more, or join another lighthouse",
			      after, after - 1);
	}
	if (c->kind == KIND(DEMOTE) && standbys + leaving > LIM_STANDBYS + c->n_enter) {
		return refuse(st, CODE_EXHAUSTED, "TOO_MANY_STANDBYS", "name",
			      "the cluster has %zu standbys, %d are the limit: remove one first",
			      standbys, LIM_STANDBYS);
	}
	return ACCEPT;
}

static void keep_standby(struct state *st, const uint64_t *list, size_t n, bool keep)
{
	for (size_t i = 0; i < n; i++) {
		MemberRecord *m = st_member(st, list[i]);

		if (m != NULL && m->keep_standby != keep) {
			m->keep_standby = keep;
			st_put_member(st, m);
		}
	}
}

static char *names(struct state *st, const uint64_t *list, size_t n)
{
	char *text = st_printf(st, "%s", "");

	for (size_t i = 0; i < n; i++) {
		const MemberRecord *m = st_member(st, list[i]);

		text = st_printf(st, "%s%s%s", text, i == 0 ? "" : ", ", m != NULL ? m->name : "?");
	}
	return text;
}

int cmd_change_begin(struct state *st)
{
	const Skerry__Internal__V1__ChangeBegin *c = st->cmd->change_begin;
	MembershipChange r, *running;
	size_t leaving;

	running = membership_running(st);
	if (running != NULL) {
		return refuse_running(st, running);
	}
	if (valid_form(st, c) == REFUSE || valid_leave(st, c, &leaving) == REFUSE ||
	    valid_enter(st, c) == REFUSE || valid_counts(st, c, leaving) == REFUSE) {
		return REFUSE;
	}
	if (c->credential != NULL &&
	    valid_join_token(st, c->credential, c->lifetime_ms) == REFUSE) {
		return REFUSE;
	}

	skerry__internal__v1__membership_change__init(&r);
	r.id = st_next_id(st);
	r.kind = c->kind;
	r.n_enter = c->n_enter;
	r.enter = c->enter;
	r.n_leave = c->n_leave;
	r.leave = c->leave;
	r.start_ms = r.step_ms = st->now;
	r.actor = st_actor(st);
	r.reason = st->cmd->reason;
	r.step = c->credential != NULL ? STEP(JOIN) : STEP(CATCH_UP);
	r.no_vote = c->kind == KIND(REPLACE) && leaving == 0;
	if (c->credential != NULL) {
		r.token_id = c->credential->id;
		r.expire_ms = st->now + (c->lifetime_ms != 0 ? c->lifetime_ms : LIM_JOIN_TOKEN_MS);
		join_token_put(st, c->credential, c->lifetime_ms, r.id);
	}
	if (c->kind == KIND(DEMOTE)) {
		keep_standby(st, c->leave, c->n_leave, true);
	}
	keep_standby(st, c->enter, c->n_enter, false);
	membership_put(st, &r);
	st_audit(st, 0, "membership.begin",
		 c->n_leave > 0   ? st_name(st, RESOURCE_MEMBER, 0, c->leave[0])
		 : c->n_enter > 0 ? st_name(st, RESOURCE_MEMBER, 0, c->enter[0])
				  : "",
		 "%s: in %s, out %s", kind_names[c->kind], names(st, c->enter, c->n_enter),
		 names(st, c->leave, c->n_leave));
	st->reply->id = r.id;
	return ACCEPT;
}

/* ---- on its way, and the end ---- */

static MembershipChange *running_is(struct state *st, uint64_t id)
{
	MembershipChange *c = membership_running(st);

	if (c == NULL || c->id != id) {
		IGNORE(refuse(st, CODE_PRECONDITION, "NO_CHANGE", "",
			      "no such change of the members is under way"));
		return NULL;
	}
	return c;
}

int cmd_change_progress(struct state *st)
{
	const Skerry__Internal__V1__ChangeProgress *p = st->cmd->change_progress;
	MembershipChange *c;

	c = running_is(st, p->id);
	if (c == NULL) {
		return REFUSE;
	}
	st->reply->id = c->id;
	if (!p->cancel) {
		membership_step(st, c, p->step, p->about);
		return ACCEPT;
	}
	if (c->cancelled) {
		return refuse(st, CODE_PRECONDITION, "CHANGE_CANCELLED", "",
			      "the change was given up already");
	}
	c->cancelled = true;
	token_revoke(st, c->token_id);
	membership_step(st, c, STEP(UNDO), 0);
	st_audit(st, 0, "membership.cancel", "", "%s", kind_names[c->kind]);
	return ACCEPT;
}

/* Is everything as it was wanted? */
static bool reached(struct state *st, const MembershipChange *c)
{
	bool goes = c->kind == KIND(REMOVE) || c->kind == KIND(REPLACE);

	for (size_t i = 0; i < c->n_enter; i++) {
		const MemberRecord *m = st_member(st, c->enter[i]);

		if (m == NULL || (m->kind != MEMBER_KIND(VOTER) && !c->no_vote)) {
			return false;
		}
	}
	for (size_t i = 0; i < c->n_leave; i++) {
		const MemberRecord *m = st_member(st, c->leave[i]);

		if (m == NULL || m->kind == MEMBER_KIND(VOTER) ||
		    (goes && m->kind != MEMBER_KIND(REMOVED))) {
			return false;
		}
	}
	return c->kind != KIND(REPLACE) || c->n_enter > 0;
}

int cmd_change_end(struct state *st)
{
	const Skerry__Internal__V1__ChangeEnd *e = st->cmd->change_end;
	MembershipChange *c;
	bool fits;

	c = running_is(st, e->id);
	if (c == NULL) {
		return REFUSE;
	}
	switch (e->outcome) {
	case OUTCOME(DONE): fits = reached(st, c); break;
	case OUTCOME(CANCELLED): fits = c->cancelled; break;
	case OUTCOME(EXPIRED):
		fits = c->token_id != 0 && c->n_enter == 0 && c->expire_ms <= st->now;
		break;
	default: fits = false; break;
	}
	if (!fits) {
		return refuse(st, CODE_PRECONDITION, "CHANGE_RUNS", "",
			      "the change of the members is not at its end");
	}
	st->reply->id = c->id;
	membership_close(st, c, e->outcome);
	return ACCEPT;
}
