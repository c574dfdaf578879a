/* ClusterService: hand-over of leadership, and standbys made voters. */
#include <inttypes.h>

#include "api/cluster_int.h"
#include "base/log.h"
#include "tailnet/query.h"

/* Longer than an election timeout. */
enum { CHANGE_MS = 10000 };

static void said(struct admin_call *c, const char *what, uint64_t id, const struct err *err)
{
	if (err->code)
		LOG_INFO("%s (lighthouse %" PRIu64 "), asked by %s: %s", what, id, c->caller_name,
			 err->msg);
	else
		LOG_INFO("%s (lighthouse %" PRIu64 "), asked by %s: done", what, id,
			 c->caller_name);
}

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
				      api_call_deadline(call, CHANGE_MS), on_transferred, c, &err);
	if (rc < 0)
		admin_fail(c, &err);
}

static void on_promoted(void *arg, const struct err *why, uint64_t leader_id)
{
	Skerry__V1__PromoteMemberResponse m = SKERRY__V1__PROMOTE_MEMBER_RESPONSE__INIT;
	struct admin_call *c = arg;
	struct cluster_status s;

	(void)leader_id;
	said(c, "promotion to voter", c->target.id, why);
	if (!admin_back(c))
		return;
	if (why->code) {
		admin_fail(c, why);
		return;
	}
	cluster_status(c->api->cluster, &s);
	for (size_t i = 0; i < s.n_members; i++)
		/* What this lighthouse has heard of it may be a moment old. */
		m.voters += s.member[i].voter || s.member[i].id == c->target.id;
	admin_reply(c, &m.base);
}

void cluster_promote_member(struct admin_call *c)
{
	struct rpc_call *call = admin_back(c);
	struct err err = {0};

	if (!call)
		return;
	caller_fill_command(&c->caller, &c->cmd, &c->actor, c->caller_name);
	if (cluster_promote(c->api->cluster, c->api->loop, c->target.id,
			    api_call_deadline(call, CHANGE_MS), on_promoted, c, &err) < 0)
		admin_fail(c, &err);
}
