/* ClusterService: hand-over of leadership, and changes of who votes and who is a member. */
#include <inttypes.h>
#include <string.h>

#include "api/cluster_int.h"
#include "base/buf.h"
#include "base/limits.h"
#include "base/log.h"
#include "google/protobuf/empty.pb-c.h"
#include "tailnet/query.h"

/* Longer than an election timeout. */
enum { TRANSFER_MS = 10000, CHANGE_MS = 30000 };

#define STEP(x) SKERRY__INTERNAL__V1__CHANGE_STEP__CHANGE_STEP_##x

static void said(struct admin_call *c, const char *what, uint64_t id, const struct err *err)
{
	if (err->code)
		LOG_INFO("%s (lighthouse %" PRIu64 "), asked by %s: %s", what, id, c->caller_name,
			 err->msg);
	else
		LOG_INFO("%s (lighthouse %" PRIu64 "), asked by %s: done", what, id,
			 c->caller_name);
}

/* ---- hand-over ---- */

static char *leader_name(struct admin_call *c, uint64_t id)
{
	struct cluster_read *read;
	MemberRecord *r;
	char *name = "";

	if (cluster_read_begin(c->api->cluster, c->method->path, &read, NULL) < 0)
		return name;
	if (query_member(cluster_read_kv(read), id, &c->records, &r) >= 0)
		name = r->name;
	cluster_read_end(read);
	return name;
}

static void on_transferred(void *arg, const struct err *why, uint64_t leader_id)
{
	Skerry__V1__TransferLeadershipResponse m = SKERRY__V1__TRANSFER_LEADERSHIP_RESPONSE__INIT;
	struct admin_call *c = arg;

	said(c, "hand-over of leadership", leader_id, why);
	if (!admin_back(c))
		return;
	if (why->code) {
		admin_fail(c, why);
		return;
	}
	m.leader_id = leader_id;
	m.leader = leader_name(c, leader_id);
	admin_reply(c, &m.base);
}

void cluster_transfer_leadership(struct admin_call *c)
{
	const Skerry__V1__TransferLeadershipRequest *req = (const void *)c->req;
	struct rpc_call *call = admin_back(c);
	struct resource to = {0};
	struct err err = {0};
	int rc = 0;

	if (!call)
		return;
	caller_fill_command(&c->caller, &c->cmd, &c->actor, c->caller_name);
	if (*req->name)
		rc = resource_parse(req->name, RESOURCE_MEMBER, "name", &to, &err);
	if (rc >= 0)
		rc = cluster_transfer(c->api->cluster, c->api->loop, to.id,
				      api_call_deadline(call, TRANSFER_MS), on_transferred, c,
				      &err);
	if (rc < 0)
		admin_fail(c, &err);
}

/* ---- the record of a change ---- */

static char *member_name(struct admin_call *c, const struct kv *kv, uint64_t id)
{
	MemberRecord *m;

	return id && query_member(kv, id, &c->records, &m) >= 0 ? m->name : "?";
}

static char *step_text(struct admin_call *c, const MembershipChange *r, const char *about)
{
	switch (r->step) {
	case STEP(JOIN): return "waits for the new host to join (skerryd join TOKEN)";
	case STEP(CATCH_UP):
		return r->about ? admin_printf(c, "waits until %s is connected and has caught up",
					       about)
				: "begins";
	case STEP(HAND_OVER): return admin_printf(c, "%s hands leadership over", about);
	case STEP(PROMOTE): return admin_printf(c, "%s becomes a voter", about);
	case STEP(DEMOTE): return admin_printf(c, "%s loses its vote", about);
	case STEP(REMOVE): return admin_printf(c, "%s is removed", about);
	case STEP(QUORUM):
		return "waits for voters that are away: the next step would lose the quorum";
	case STEP(UNDO): return "was given up and is undone";
	default: return "";
	}
}

Skerry__V1__MemberChange *cluster_change_message(struct admin_call *c, const struct kv *kv,
						 const MembershipChange *r)
{
	static char *const kinds[] = {"", "grow", "promote", "demote", "remove", "replace"};
	static char *const steps[] = {"",       "join",   "catch-up", "hand-over", "promote",
				      "demote", "remove", "quorum",   "undo"};
	static char *const outcomes[] = {"", "done", "cancelled", "expired"};
	Skerry__V1__MemberChange *m = admin_alloc(c, sizeof(*m));

	skerry__v1__member_change__init(m);
	m->id = r->id;
	if ((size_t)r->kind < ARRAY_LEN(kinds))
		m->kind = kinds[r->kind];
	m->enter = admin_alloc(c, (r->n_enter + 1) * sizeof(*m->enter));
	for (size_t i = 0; i < r->n_enter; i++)
		m->enter[m->n_enter++] = member_name(c, kv, r->enter[i]);
	m->leave = admin_alloc(c, (r->n_leave + 1) * sizeof(*m->leave));
	for (size_t i = 0; i < r->n_leave; i++)
		m->leave[m->n_leave++] = member_name(c, kv, r->leave[i]);
	if ((size_t)r->outcome < ARRAY_LEN(outcomes))
		m->outcome = outcomes[r->outcome];
	if (!r->outcome && (size_t)r->step < ARRAY_LEN(steps)) {
		m->step = steps[r->step];
		m->text = step_text(c, r, member_name(c, kv, r->about));
	}
	m->start_time = admin_time(c, r->start_ms);
	m->step_time = admin_time(c, r->step_ms);
	m->end_time = admin_time(c, r->end_ms);
	m->expire_time = admin_time(c, r->expire_ms);
	m->actor = r->actor;
	return m;
}

/* ---- why a member is what it is ---- */

struct counts {
	size_t voters, standbys; /* standbys that may become voters by themselves */
};

static struct counts count(struct admin_call *c)
{
	struct counts n = {0};
	MemberRecord *m;
	uint64_t at = 0;

	while (query_member_next(c->kv, at, &c->records, &m) >= 0) {
		at = m->id;
		n.voters += m->kind == SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_VOTER;
		n.standbys += m->kind == SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_STANDBY &&
			      !m->keep_standby;
	}
	return n;
}

static char *standby_note(struct admin_call *c, const MemberRecord *r)
{
	struct counts n = count(c);

	if (r->keep_standby)
		return admin_printf(c,
				    "its vote was taken: `skerry cluster promote %s` gives it back",
				    r->name);
	if (n.voters >= LIM_VOTERS)
		return "five voters are the most: it takes the place of one that goes";
	if (n.voters % 2 == 1 && n.standbys == 1)
		return n.voters == 1
			       ? "two lighthouses: one vote; a third makes three voters"
			       : "three voters and a standby; a fifth lighthouse makes five voters";
	return "becomes a voter when it is connected and has caught up";
}

static char *voter_note(struct admin_call *c)
{
	size_t voters = count(c).voters;

	if (voters == 2)
		return "two voters, of which both must run: join a third, or demote one";
	if (voters % 2 == 0)
		return admin_printf(c, "%zu voters survive no more losses than %zu: join one more",
				    voters, voters - 1);
	return "";
}

static bool enters(const MembershipChange *r, uint64_t id)
{
	for (size_t i = 0; i < r->n_enter; i++) {
		if (r->enter[i] == id)
			return true;
	}
	return false;
}

char *cluster_member_note(struct admin_call *c, const MemberRecord *r)
{
	MembershipChange *change;

	if (query_membership(c->kv, false, &c->records, &change) >= 0 && enters(change, r->id) &&
	    !change->cancelled)
		return step_text(c, change, member_name(c, c->kv, change->about));
	return r->kind == SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_STANDBY
		       ? standby_note(c, r)
		       : voter_note(c);
}

/* ---- changes ---- */

/* The members that a request names, in one change. */
static int wish_ids(struct admin_call *c, struct cluster_wish *w, char *const *more, size_t n_more,
		    struct err *err)
{
	int rc = 0;

	w->id[w->n++] = c->target.id;
	for (size_t i = 0; i < n_more && rc >= 0; i++) {
		struct resource r = {0};

		if (w->n >= CLUSTER_WISH_MAX)
			return err_field(err, ERR_INVALID, "more", "at most %d lighthouses at once",
					 CLUSTER_WISH_MAX);
		rc = resource_parse(more[i], RESOURCE_MEMBER, "more", &r, err);
		w->id[w->n++] = r.id;
	}
	return rc;
}

/* The record as it is here now; NULL: there is none (a state of level 1). */
static Skerry__V1__MemberChange *change_now(struct admin_call *c, uint64_t id)
{
	Skerry__V1__MemberChange *m = NULL;
	struct cluster_read *read;
	MembershipChange *r;

	if (!id || cluster_read_begin(c->api->cluster, c->method->path, &read, NULL) < 0)
		return NULL;
	for (int last = 0; last < 2 && !m; last++) {
		if (query_membership(cluster_read_kv(read), last, &c->records, &r) >= 0 &&
		    r->id == id)
			m = cluster_change_message(c, cluster_read_kv(read), r);
	}
	cluster_read_end(read);
	return m;
}

/* What ended otherwise than it was wished is no success. */
static bool failed(struct admin_call *c, const Skerry__V1__MemberChange *m)
{
	struct err err = {0};

	if (!m || !*m->outcome || !strcmp(m->outcome, "done"))
		return false;
	err_reason(&err, ERR_ABORTED, "CHANGE_CANCELLED",
		   "the change was given up by an operator before its end");
	admin_fail(c, &err);
	return true;
}

/* For all that answer with a change; NULL: it failed, c is gone. */
static bool begun(struct admin_call *c, const struct err *why, uint64_t change,
		  Skerry__V1__MemberChange **ret)
{
	said(c, c->method->path, c->target.id, why);
	if (!admin_back(c))
		return false;
	if (why->code) {
		admin_fail(c, why);
		return false;
	}
	*ret = change_now(c, change);
	return !failed(c, *ret);
}

static void run(struct admin_call *c, struct cluster_wish *w, members_cb cb, int rc,
		struct err *err)
{
	struct rpc_call *call = admin_back(c);

	if (!call)
		return;
	caller_fill_command(&c->caller, &c->cmd, &c->actor, c->caller_name);
	w->actor = &c->actor;
	w->reason = c->cmd.reason;
	if (rc >= 0)
		rc = cluster_change_members(c->api->cluster, c->api->loop, w,
					    api_call_deadline(call, CHANGE_MS), cb, c, err);
	if (rc < 0)
		admin_fail(c, err);
}

static void on_promoted(void *arg, const struct err *why, uint64_t change)
{
	Skerry__V1__PromoteMemberResponse m = SKERRY__V1__PROMOTE_MEMBER_RESPONSE__INIT;
	struct admin_call *c = arg;
	struct cluster_status s;

	if (!begun(c, why, change, &m.change))
		return;
	cluster_status(c->api->cluster, &s);
	for (size_t i = 0; i < s.n_members; i++)
		/* What this lighthouse has heard of it may be a moment old. */
		m.voters += s.member[i].voter || s.member[i].id == c->target.id;
	admin_reply(c, &m.base);
}

void cluster_promote_member(struct admin_call *c)
{
	const Skerry__V1__PromoteMemberRequest *req = (const void *)c->req;
	struct cluster_wish w = {.kind = CLUSTER_PROMOTE};
	struct err err = {0};
	int rc = wish_ids(c, &w, req->more, req->n_more, &err);

	run(c, &w, on_promoted, rc, &err);
}

static void on_changed(void *arg, const struct err *why, uint64_t change)
{
	Skerry__V1__MemberChange none = SKERRY__V1__MEMBER_CHANGE__INIT, *m;
	struct admin_call *c = arg;

	if (begun(c, why, change, &m))
		admin_reply(c, m ? &m->base : &none.base);
}

void cluster_demote_member(struct admin_call *c)
{
	const Skerry__V1__DemoteMemberRequest *req = (const void *)c->req;
	struct cluster_wish w = {.kind = CLUSTER_DEMOTE, .no_fill = req->no_fill};
	struct err err = {0};
	int rc = wish_ids(c, &w, req->more, req->n_more, &err);

	run(c, &w, on_changed, rc, &err);
}

static void on_removed(void *arg, const struct err *why, uint64_t change)
{
	Google__Protobuf__Empty empty = GOOGLE__PROTOBUF__EMPTY__INIT;
	struct admin_call *c = arg;
	Skerry__V1__MemberChange *m;

	if (begun(c, why, change, &m))
		admin_reply(c, &empty.base);
}

void cluster_delete_member(struct admin_call *c)
{
	const Skerry__V1__DeleteMemberRequest *req = (const void *)c->req;
	struct cluster_wish w = {.kind = CLUSTER_REMOVE, .no_fill = req->no_fill};
	struct err err = {0};
	int rc = wish_ids(c, &w, req->more, req->n_more, &err);

	run(c, &w, on_removed, rc, &err);
}

static void on_cancelled(void *arg, const struct err *why, uint64_t change)
{
	Skerry__V1__MemberChange none = SKERRY__V1__MEMBER_CHANGE__INIT, *m;
	struct admin_call *c = arg;

	said(c, c->method->path, 0, why);
	if (!admin_back(c))
		return;
	if (why->code) {
		admin_fail(c, why);
		return;
	}
	m = change_now(c, change);
	admin_reply(c, m ? &m->base : &none.base);
}

void cluster_cancel_change(struct admin_call *c)
{
	struct cluster_wish w = {.kind = CLUSTER_CANCEL};
	struct err err = {0};

	run(c, &w, on_cancelled, 0, &err);
}

static void on_replaced(void *arg, const struct err *why, uint64_t change)
{
	Skerry__V1__ReplaceMemberResponse m = SKERRY__V1__REPLACE_MEMBER_RESPONSE__INIT;
	Skerry__V1__JoinToken token = SKERRY__V1__JOIN_TOKEN__INIT;
	struct admin_call *c = arg;

	if (!begun(c, why, change, &m.change))
		return;
	if (c->key.kind) {
		struct buf text = BUF_INIT;

		buf_reserve(&text, LIM_KEY_TEXT + 1); /* no outgrown copies of the secret */
		key_format(&c->key, &text);
		c->secret_text = admin_strdup(c, buf_str(&text)); /* wiped at the end */
		buf_wipe(&text);
		token.id = c->key.id;
		token.secret = c->secret_text;
		token.expire_time = m.change ? m.change->expire_time : NULL;
		m.token = &token;
	}
	admin_reply(c, &m.base);
}

void cluster_replace_member(struct admin_call *c)
{
	const Skerry__V1__ReplaceMemberRequest *req = (const void *)c->req;
	struct cluster_wish w = {.kind = CLUSTER_REPLACE};
	struct err err = {0};
	int rc = wish_ids(c, &w, NULL, 0, &err);

	if (rc >= 0 && *req->with) {
		struct resource r = {0};

		rc = resource_parse(req->with, RESOURCE_MEMBER, "with", &r, &err);
		w.with = r.id;
	} else if (rc >= 0) {
		struct cluster_read *read = NULL;

		w.credential = admin_new_key(c, KEY_JOIN);
		rc = cluster_read_begin(c->api->cluster, c->method->path, &read, &err);
		if (rc >= 0) {
			c->kv = cluster_read_kv(read);
			rc = cluster_token_fill(c, &err);
			c->kv = NULL;
			cluster_read_end(read);
		}
		if (rc >= 0)
			rc = admin_lifetime(req->lifetime, &w.lifetime_ms, &err);
	}
	run(c, &w, on_replaced, rc, &err);
}
