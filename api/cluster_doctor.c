/* ClusterService.Diagnose: the facts of every lighthouse, a comparison of the states, and the judgement of both. */
#include <inttypes.h>
#include <string.h>

#include "api/cluster_int.h"
#include "base/clock.h"
#include "cluster/doctor.h"
#include "tailnet/query.h"

enum { FACTS_MS = 4000, DIGESTS_MS = 4000 };

/* What has come; lives with the call. */
struct diagnosis {
	struct admin_call *c;
	size_t n;
	struct cluster_facts facts[CLUSTER_MEMBERS_MAX];
	struct doctor_result result;
};

static char *name_of(const struct diagnosis *d, uint64_t id)
{
	for (size_t i = 0; i < d->n; i++) {
		if (d->facts[i].id == id)
			return admin_strdup(d->c, d->facts[i].name);
	}
	return "";
}

static Google__Protobuf__Timestamp *time_of(struct admin_call *c, int64_t ms)
{
	return admin_time(c, ms > 0 ? (uint64_t)ms : 0);
}

static Skerry__V1__MemberFacts *to_facts(struct admin_call *c, const struct cluster_facts *f)
{
	Skerry__V1__MemberFacts *m = admin_alloc(c, sizeof(*m));

	skerry__v1__member_facts__init(m);
	m->id = f->id;
	m->display_name = admin_strdup(c, f->name);
	m->connected = f->connected || f->self;
	m->voter = f->voter;
	m->leader = f->leader;
	m->version = admin_strdup(c, f->version);
	m->feature_min = f->feature_min;
	m->feature_max = f->feature_max;
	m->clock_offset_ms = f->clock_offset_ms;
	m->round_trip_us = f->rtt_us;
	m->append_p99_us = f->append_p99_us;
	m->append_count = f->append_n;
	m->peer_certificate_expire_time = time_of(c, f->peer_cert_ms);
	m->api_certificate_expire_time = time_of(c, f->api_cert_ms);
	m->ca_certificate_expire_time = time_of(c, f->ca_cert_ms);
	m->disk_free_bytes = f->disk_free;
	m->disk_bytes = f->disk_bytes;
	m->store_used_permille = f->map_permille;
	m->state_bytes = f->state_bytes;
	m->commit_index = f->commit_index;
	m->applied_index = f->applied_index;
	m->backup_time = time_of(c, f->backup_ms);
	m->error = admin_strdup(c, f->error);
	return m;
}

static Skerry__V1__Finding *to_finding(const struct diagnosis *d, const struct doctor_finding *f)
{
	Skerry__V1__Finding *m = admin_alloc(d->c, sizeof(*m));

	skerry__v1__finding__init(m);
	m->severity = (Skerry__V1__Severity)f->severity;
	m->code = admin_strdup(d->c, f->code);
	m->member_id = f->id;
	m->member = name_of(d, f->id);
	m->message = admin_strdup(d->c, f->message);
	m->remedy = admin_strdup(d->c, f->remedy);
	return m;
}

static void judge(struct diagnosis *d, const struct err *why, size_t n_digests,
		  const struct cluster_digest *digests)
{
	Skerry__V1__Diagnosis m = SKERRY__V1__DIAGNOSIS__INIT;
	struct admin_call *c = d->c;
	struct cluster_read *read;
	MembershipChange *change;
	struct cluster_status s;
	struct doctor_input in = {
		.n = d->n,
		.facts = d->facts,
		.now_ms = clock_wall_ms(),
		.n_digests = n_digests,
		.digests = digests,
		.no_digests = why && why->code ? why->msg : NULL,
	};

	if (cluster_read_begin(c->api->cluster, c->method->path, &read, NULL) >= 0) {
		if (query_membership(cluster_read_kv(read), false, &c->records, &change) >= 0) {
			const Skerry__V1__MemberChange *now =
				cluster_change_message(c, cluster_read_kv(read), change);

			in.change = admin_printf(c, "%s: %s", now->kind, now->text);
			in.change_ms = in.now_ms - (int64_t)change->step_ms;
			in.change_waits = change->step ==
					  SKERRY__INTERNAL__V1__CHANGE_STEP__CHANGE_STEP_JOIN;
		}
		cluster_read_end(read);
	}
	cluster_status(c->api->cluster, &s);
	in.self = s.lighthouse_id;
	in.quorum = s.quorum;
	in.feature_level = s.feature_level;
	doctor_judge(&in, &d->result);
	m.severity = (Skerry__V1__Severity)d->result.severity;
	m.quorum_margin = d->result.quorum_margin;
	m.lighthouse_id = s.lighthouse_id;
	m.findings = admin_alloc(c, (d->result.n + 1) * sizeof(*m.findings));
	for (size_t i = 0; i < d->result.n; i++)
		m.findings[m.n_findings++] = to_finding(d, &d->result.finding[i]);
	m.members = admin_alloc(c, (d->n + 1) * sizeof(*m.members));
	for (size_t i = 0; i < d->n; i++)
		m.members[m.n_members++] = to_facts(c, &d->facts[i]);
	admin_reply(c, &m.base);
}

static void on_digests(void *arg, const struct err *why, uint64_t revision, size_t n,
		       const struct cluster_digest *digests)
{
	struct diagnosis *d = arg;

	(void)revision;
	if (admin_back(d->c))
		judge(d, why, why->code ? 0 : n, digests);
}

static void on_facts(void *arg, const struct err *why, size_t n, const struct cluster_facts *f)
{
	struct admin_call *c = arg;
	struct rpc_call *call = admin_back(c);
	struct cluster_status s;
	struct diagnosis *d;
	struct err err = {0};

	if (!call)
		return;
	if (why->code) {
		admin_fail(c, why);
		return;
	}
	d = admin_alloc(c, sizeof(*d));
	d->c = c;
	d->n = n;
	memcpy(d->facts, f, n * sizeof(*f));
	cluster_status(c->api->cluster, &s);
	if (!s.quorum)
		err_set(&err, ERR_NO_QUORUM, "there is no quorum");
	else if (cluster_compare_digests(c->api->cluster, c->api->loop,
					 api_call_deadline(call, DIGESTS_MS), on_digests, d,
					 &err) >= 0)
		return;
	judge(d, &err, 0, NULL);
}

void cluster_diagnose(struct admin_call *c)
{
	struct rpc_call *call = admin_back(c);
	struct err err = {0};

	if (call && cluster_ask_facts(c->api->cluster, c->api->loop,
				      api_call_deadline(call, FACTS_MS), on_facts, c, &err) < 0)
		admin_fail(c, &err);
}
