/* What an operator may ask of the leader about members, and why not. */
#include <inttypes.h>

#include "cluster/member.h"

enum { VOTERS_MAX = 5 };

struct count {
	size_t voters, connected; /* ourselves included */
};

static const struct link_server *server_of(const struct link_state *s, uint64_t id)
{
	for (size_t i = 0; i < s->n; i++) {
		if (s->server[i].id == id) {
			return &s->server[i];
		}
	}
	return NULL;
}

static struct count count_voters(const struct link_state *s, uint64_t self,
				 bool (*connected)(void *arg, uint64_t id), void *arg)
{
	struct count c = {0};

	for (size_t i = 0; i < s->n; i++) {
		if (s->server[i].role == LINK_VOTER) {
			c.voters++;
			c.connected += s->server[i].id == self || connected(arg, s->server[i].id);
		}
	}
	return c;
}

/* What holds for every change. */
static int may_change(const struct link_state *s, struct count *c, struct err *err)
{
	if (!s->self_leads) {
		return err_set(err, ERR_NOT_LEADER, "this lighthouse does not lead");
	}
	if (s->changing) {
		return err_reason(
			err, ERR_PRECONDITION, "CHANGE_IN_FLIGHT",
			"another change of the members, or a hand-over, is under way: try "
			"again when it has ended");
	}
	if (c->connected <= c->voters / 2) {
		return err_reason(
			err, ERR_PRECONDITION, "WOULD_LOSE_QUORUM",
			"only %zu of %zu voters are connected: bring the others back first",
			c->connected, c->voters);
	}
	return 0;
}

static int find(const struct member_table *t, const struct link_state *s, uint64_t id,
		const struct member **ret, const struct link_server **ret_server, struct err *err)
{
	const struct member *m = member_find(t, id);
	const struct link_server *server = server_of(s, id);

	if (m == NULL || m->removed || server == NULL) {
		return err_reason(err, ERR_NOT_FOUND, "MEMBER_NOT_FOUND",
				  "lighthouse %" PRIu64 " is not a member of this cluster", id);
	}
	*ret = m;
	*ret_server = server;
	return 0;
}

/* The other one must be there, and have nearly everything. */
static int is_fit(const struct member *m, const struct link_server *server,
		  const struct link_state *s, bool (*connected)(void *arg, uint64_t id), void *arg,
		  struct err *err)
{
	if (!connected(arg, m->id)) {
		return err_reason(err, ERR_PRECONDITION, "MEMBER_NOT_CONNECTED",
				  "the leader has no link to %s: see that it runs and is reached",
				  m->name);
	}
	if (server->match_index == 0 || server->match_index + MEMBER_LAG < s->commit_index) {
		return err_reason(err, ERR_PRECONDITION, "MEMBER_BEHIND",
				  "%s is at entry %" PRIu64 " of %" PRIu64
				  ": try again when it has caught up",
				  m->name, server->match_index, s->commit_index);
	}
	return 0;
}

static int best(const struct member_table *t, const struct link_state *s, uint64_t self,
		bool (*connected)(void *arg, uint64_t id), void *arg, uint64_t *ret_id,
		struct err *err)
{
	const struct link_server *found = NULL;

	for (size_t i = 0; i < s->n; i++) {
		const struct link_server *v = &s->server[i];
		const struct member *m = member_find(t, v->id);

		if (v->id != self && v->role == LINK_VOTER && m != NULL && !m->removed &&
		    is_fit(m, v, s, connected, arg, NULL) >= 0 &&
		    (found == NULL || v->match_index > found->match_index)) {
			found = v;
		}
	}
	if (found == NULL) {
		return err_reason(err, ERR_PRECONDITION, "NO_OTHER_VOTER",
				  "there is no other voter that is connected and has caught up");
	}
	*ret_id = found->id;
	return 0;
}

int member_may_lead(const struct member_table *t, const struct link_state *s, uint64_t self,
		    uint64_t id, bool (*connected)(void *arg, uint64_t id), void *arg,
		    uint64_t *ret_id, struct err *err)
{
	struct count c = count_voters(s, self, connected, arg);
	const struct link_server *server;
	const struct member *m;
	int r = may_change(s, &c, err);

	if (r < 0 || id == 0) {
		return r < 0 ? r : best(t, s, self, connected, arg, ret_id, err);
	}
	r = find(t, s, id, &m, &server, err);
	if (r < 0) {
		return r;
	}
	if (id == self) {
		return err_reason(err, ERR_PRECONDITION, "LEADS_ALREADY", "%s leads already",
				  m->name);
	}
	if (server->role != LINK_VOTER) {
		return err_reason(err, ERR_PRECONDITION, "NOT_A_VOTER",
				  "%s is a standby: only a voter can lead", m->name);
	}
	r = is_fit(m, server, s, connected, arg, err);
	if (r >= 0) {
		*ret_id = id;
	}
	return r;
}

int member_may_vote(const struct member_table *t, const struct link_state *s, uint64_t self,
		    uint64_t id, bool (*connected)(void *arg, uint64_t id), void *arg,
		    struct err *err)
{
	struct count c = count_voters(s, self, connected, arg);
	const struct link_server *server;
	const struct member *m;
	int r = may_change(s, &c, err);

	if (r >= 0) {
		r = find(t, s, id, &m, &server, err);
	}
	if (r < 0) {
		return r;
	}
	if (server->role == LINK_VOTER) {
		return err_reason(err, ERR_PRECONDITION, "ALREADY_VOTER", "%s is a voter already",
				  m->name);
	}
	if (c.voters >= VOTERS_MAX) {
		return err_reason(err, ERR_PRECONDITION, "VOTERS_FULL",
				  "there are %zu voters: %s stays a standby until one is removed",
				  c.voters, m->name);
	}
	r = is_fit(m, server, s, connected, arg, err);
	if (r < 0) {
		return r;
	}
	if (c.connected + 1 <= (c.voters + 1) / 2) {
		return err_reason(
			err, ERR_PRECONDITION, "WOULD_LOSE_QUORUM",
			"of then %zu voters only %zu would be connected: bring the others "
			"back first",
			c.voters + 1, c.connected + 1);
	}
	if (c.voters % 2 == 1) {
		return err_reason(
			err, ERR_PRECONDITION, "EVEN_VOTERS",
			"%zu voters survive no more losses than %zu, and need one more of "
			"them: join another lighthouse, then both become voters by "
			"themselves",
			c.voters + 1, c.voters);
	}
	return 0;
}
