/* ClusterService: the feature level raised, and what the cluster trusts renewed: its certificate authority, cluster.key. */
#include <inttypes.h>
#include <string.h>

#include "api/cluster_int.h"
#include "base/clock.h"
#include "base/enc.h"
#include "base/log.h"
#include "cluster/pki.h"
#include "tailnet/query.h"

#define REMOVED SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_REMOVED

enum {
	CALL_MS = 15000,
	/* An attached device learns the new CA with a heartbeat, each 5 s. */
	LEARN_MS = 15000,
};

/* Waits for everything acknowledged before the call, then runs fn in its own transaction. */
static void at_leader_level(struct admin_call *c, read_cb fn)
{
	struct rpc_call *call = admin_back(c);
	struct read_want want = {.level = READ_LEADER};
	struct err err = {0};

	if (!call)
		return;
	skerry__internal__v1__command__init(&c->cmd);
	want.deadline_ms = api_call_deadline(call, CALL_MS);
	if (cluster_read_wait(c->api->cluster, c->api->loop, &want, fn, c, &err) < 0)
		admin_fail(c, &err);
}

/* The answer of a command: true when it was carried out; else the call has ended. */
static bool carried_out(struct admin_call *c, const struct err *why,
			const Skerry__Internal__V1__CommandResult *r)
{
	struct err err = *why;

	if (!admin_back(c))
		return false;
	if (!err.code)
		c->repeated = r->repeated_request;
	if (!err.code && r->code)
		err_reason(&err, err_from_grpc(r->code), r->reason, "%s", r->message);
	if (err.code)
		admin_fail(c, &err);
	return !err.code;
}

static void propose(struct admin_call *c, propose_cb cb)
{
	struct rpc_call *call = admin_back(c);
	struct propose_options o = {.class = PROPOSE_CLIENT};
	struct err err = {0};

	if (!call)
		return;
	o.deadline_ms = api_call_deadline(call, CALL_MS);
	caller_fill_command(&c->caller, &c->cmd, &c->actor, c->caller_name);
	if (admin_request_id(c, &err) < 0 ||
	    cluster_propose(c->api->cluster, c->api->loop, &c->cmd, &o, cb, c, &err) < 0)
		admin_fail(c, &err);
}

/* ---- the feature level ---- */

struct levels {
	uint32_t now, common, newest;
	char lacking[200]; /* who supports nothing above `now` */
};

static int levels_read(struct admin_call *c, struct levels *ret, struct err *err)
{
	struct cluster_read *read;
	MemberRecord *m;
	Meta *meta;
	uint64_t pos = 0;
	int rc = cluster_read_begin(c->api->cluster, c->method->path, &read, err);

	if (rc < 0)
		return rc;
	*ret = (struct levels){.common = UINT32_MAX};
	rc = query_meta(cluster_read_kv(read), &c->records, &meta);
	if (rc >= 0)
		ret->now = meta->feature_level;
	while (rc >= 0 &&
	       (rc = query_member_next(cluster_read_kv(read), pos, &c->records, &m)) >= 0) {
		size_t n = strlen(ret->lacking);

		pos = m->id;
		if (m->kind == REMOVED)
			continue;
		ret->common = MIN(ret->common, m->feature_max);
		ret->newest = MAX(ret->newest, m->feature_max);
		if (m->feature_max <= ret->now)
			snprintf(ret->lacking + n, sizeof(ret->lacking) - n, "%s%s (up to %u)",
				 n ? ", " : "", m->name, m->feature_max);
	}
	cluster_read_end(read);
	return rc == ERR_NOT_FOUND
		       ? 0
		       : err_set(err, rc, "the members cannot be read: %s", err_text(rc));
}

static void finalize_reply(struct admin_call *c, uint32_t level, uint32_t before)
{
	Skerry__V1__FinalizeUpgradeResponse m = SKERRY__V1__FINALIZE_UPGRADE_RESPONSE__INIT;

	m.feature_level = level;
	m.previous_level = before;
	admin_reply(c, &m.base);
}

static void on_raised(void *arg, const struct err *why,
		      const Skerry__Internal__V1__CommandResult *r)
{
	struct admin_call *c = arg;
	uint32_t level = c->cmd.raise_feature_level->level;

	if (!carried_out(c, why, r))
		return;
	LOG_INFO("feature level %u, asked by %s", level, c->caller_name);
	/* Levels have no gaps: it was one less, or the levels between had nothing to say. */
	finalize_reply(c, level, (uint32_t)c->target.id);
}

static void on_finalize(void *arg, const struct err *why)
{
	struct admin_call *c = arg;
	Skerry__Internal__V1__RaiseFeatureLevel *b;
	struct err err = *why;
	struct levels l;

	if (!admin_back(c))
		return;
	if (!err.code)
		IGNORE(levels_read(c, &l, &err) < 0);
	if (!err.code && l.common <= l.now && l.newest > l.now)
		err_reason(
			&err, ERR_PRECONDITION, "FEATURE_LEVEL",
			"the feature level stays at %u: %s must run the newer version first, or be "
			"removed",
			l.now, l.lacking);
	if (err.code) {
		admin_fail(c, &err);
		return;
	}
	if (l.common <= l.now) {
		finalize_reply(c, l.now, l.now);
		return;
	}
	b = admin_alloc(c, sizeof(*b));
	skerry__internal__v1__raise_feature_level__init(b);
	b->level = l.common;
	c->target.id = l.now; /* for the answer */
	c->cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_RAISE_FEATURE_LEVEL;
	c->cmd.raise_feature_level = b;
	propose(c, on_raised);
}

void cluster_finalize_upgrade(struct admin_call *c)
{
	at_leader_level(c, on_finalize);
}

/* ---- what is trusted ---- */

struct trust {
	uint32_t level;
	CaRecord *ca, *old; /* old: NULL, only one counts */
	uint32_t seal;
	uint64_t devices, unseen;
};

/* Devices that may not know the CA that was made at since_ms. */
static int count_devices(const struct kv *kv, struct arena *scratch, uint64_t since_ms,
			 struct trust *t)
{
	TailnetRecord *tailnet;
	uint64_t id = 0;
	int rc;

	while ((rc = query_tailnet_next(kv, id, scratch, &tailnet)) >= 0) {
		uint64_t node = 0;
		Presence *p;

		id = tailnet->id;
		while ((rc = query_presence_next(kv, id, node, scratch, &p)) >= 0) {
			node = p->node;
			t->devices++;
			t->unseen += !p->online && p->last_seen_ms < since_ms + LEARN_MS;
			arena_reset(scratch);
		}
		if (rc != ERR_NOT_FOUND)
			return rc;
	}
	return rc == ERR_NOT_FOUND ? 0 : rc;
}

static int trust_read(struct admin_call *c, const struct kv *kv, struct trust *ret, struct err *err)
{
	struct arena scratch;
	SealedSecret *key;
	Meta *meta;
	int rc = query_meta(kv, &c->records, &meta);

	memset(ret, 0, sizeof(*ret));
	arena_init(&scratch, 1 << 20);
	if (rc >= 0) {
		ret->level = meta->feature_level;
		rc = query_ca(kv, &c->records, &ret->ca);
	}
	if (rc >= 0)
		rc = query_secret(kv, PKI_CA_KEY_NAME, &c->records, &key);
	if (rc >= 0) {
		ret->seal = rotation_number(key->seal);
		rc = query_ca_before(kv, ret->ca->generation, &c->records, &ret->old);
		if (rc == ERR_NOT_FOUND || (rc >= 0 && ret->old->retire_ms)) {
			ret->old = NULL;
			rc = 0;
		}
	}
	/* The first CA is known to all. */
	if (rc >= 0)
		rc = count_devices(kv, &scratch, ret->old ? ret->ca->create_ms : 0, ret);
	if (rc >= 0 && !ret->old)
		ret->unseen = 0;
	arena_done(&scratch);
	return rc < 0 ? err_set(err, rc, "the state cannot be read: %s", err_text(rc)) : 0;
}

static char *pin_of(struct admin_call *c, const CaRecord *ca)
{
	struct buf pem = BUF_INIT;
	char hex[65] = "";
	uint8_t pin[32];

	pki_cert_pem(ca->certificate_der.data, ca->certificate_der.len, &pem);
	if (pki_pin(buf_str(&pem), pin, NULL) >= 0)
		hex_encode(hex, pin, sizeof(pin));
	buf_done(&pem);
	return admin_printf(c, "%" PRIu64 ":%s", cluster_id(c->api->cluster), hex);
}

static int to_trust(struct admin_call *c, const struct kv *kv, Skerry__V1__Trust *m,
		    struct err *err)
{
	struct trust t;
	MemberRecord *r;
	uint64_t pos = 0;
	int rc = trust_read(c, kv, &t, err);

	if (rc < 0)
		return rc;
	skerry__v1__trust__init(m);
	m->ca_generation = t.ca->generation;
	m->ca_pin = pin_of(c, t.ca);
	m->old_ca_pin = t.old ? pin_of(c, t.old) : "";
	m->ca_create_time = admin_time(c, t.ca->create_ms);
	m->seal_generation = t.seal;
	m->devices = t.devices;
	m->devices_unseen = t.unseen;
	m->members = admin_alloc(c, LIM_MEMBERS * sizeof(*m->members));
	while (m->n_members < LIM_MEMBERS &&
	       (rc = query_member_next(kv, pos, &c->records, &r)) >= 0) {
		Skerry__V1__MemberTrust *e;

		pos = r->id;
		if (r->kind == REMOVED)
			continue;
		e = admin_alloc(c, sizeof(*e));
		skerry__v1__member_trust__init(e);
		e->id = r->id;
		e->display_name = r->name;
		e->ca_generation = r->ca_generation;
		e->seal_generation = r->seal;
		m->members[m->n_members++] = e;
	}
	return rc < 0 && rc != ERR_NOT_FOUND ? rc : 0;
}

static int get_trust(struct admin_call *c, ProtobufCMessage **ret, struct err *err)
{
	Skerry__V1__Trust *m = admin_alloc(c, sizeof(*m));
	int rc = to_trust(c, c->kv, m, err);

	*ret = &m->base;
	return rc;
}

void cluster_get_trust(struct admin_call *c)
{
	admin_read(c, get_trust);
}

/* Answers with how it is now, here. */
static void trust_reply(struct admin_call *c)
{
	Skerry__V1__Trust m;
	struct cluster_read *read;
	struct err err = {0};
	int rc = cluster_read_begin(c->api->cluster, c->method->path, &read, &err);

	if (rc >= 0) {
		rc = to_trust(c, cluster_read_kv(read), &m, &err);
		cluster_read_end(read);
	}
	if (rc < 0)
		admin_fail(c, &err);
	else
		admin_reply(c, &m.base);
}

/* ---- the CA ---- */

static void on_retired(void *arg, const struct err *why,
		       const Skerry__Internal__V1__CommandResult *r)
{
	struct admin_call *c = arg;

	if (!carried_out(c, why, r))
		return;
	LOG_INFO("the certificate authority before %u is retired, asked by %s",
		 c->cmd.ca_retire->generation, c->caller_name);
	trust_reply(c);
}

static int may_retire(const struct trust *t, bool force, struct err *err)
{
	uint64_t age = (uint64_t)MAX(clock_wall_ms(), 0);

	if (t->level < 2 || !t->old || force)
		return 0; /* what is wrong then, the command says */
	age = age > t->ca->create_ms ? age - t->ca->create_ms : 0;
	if (age < LEARN_MS)
		return err_reason(err, ERR_PRECONDITION, "TOO_EARLY",
				  "the new certificate authority is %" PRIu64
				  " s old, and devices learn of it within %d s: wait a little, or "
				  "--force",
				  age / 1000, LEARN_MS / 1000);
	if (t->unseen)
		return err_reason(
			err, ERR_PRECONDITION, "DEVICES_UNSEEN",
			"%" PRIu64 " of %" PRIu64
			" devices have not been seen since the rotation and know only the "
			"old certificate authority: wait for them or delete them; with "
			"--force they have to be registered again",
			t->unseen, t->devices);
	return 0;
}

/* Was the request answered before? Then that is the answer, however things are now. */
static bool answered(struct admin_call *c, const struct kv *kv)
{
	uint64_t epoch, revision, now_ms;
	DedupeRecord *row;

	return *c->cmd.request_id && query_revision(kv, &epoch, &revision, &now_ms) >= 0 &&
	       query_request(kv, 0, c->cmd.caller, c->cmd.request_id, now_ms, &c->records, &row) >=
		       0;
}

static void on_retire(void *arg, const struct err *why)
{
	struct admin_call *c = arg;
	const Skerry__V1__RotateCaRequest *req = (const void *)c->req;
	Skerry__Internal__V1__CaRetire *b;
	struct cluster_read *read;
	struct err err = *why;
	struct trust t;

	if (!admin_back(c))
		return;
	caller_fill_command(&c->caller, &c->cmd, &c->actor, c->caller_name);
	if (!err.code && admin_request_id(c, &err) >= 0 &&
	    cluster_read_begin(c->api->cluster, c->method->path, &read, &err) >= 0) {
		if (trust_read(c, cluster_read_kv(read), &t, &err) >= 0 &&
		    !answered(c, cluster_read_kv(read)))
			IGNORE(may_retire(&t, req->force, &err) < 0);
		cluster_read_end(read);
	}
	if (err.code) {
		admin_fail(c, &err);
		return;
	}
	b = admin_alloc(c, sizeof(*b));
	skerry__internal__v1__ca_retire__init(b);
	b->generation = t.ca->generation;
	b->unseen = t.unseen;
	c->cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_CA_RETIRE;
	c->cmd.ca_retire = b;
	propose(c, on_retired);
}

/* True when it was carried out; else the call has ended. */
static bool rotated(struct admin_call *c, const struct err *why, const struct cluster_rotated *r)
{
	struct err err = *why;

	if (!admin_back(c))
		return false;
	/* Repeated without a request id it might be another rotation, and stock clients repeat what is UNAVAILABLE. */
	if (!strcmp(err.reason, "FATE_UNKNOWN") && !*c->cmd.request_id)
		err.code = ERR_FATE_UNKNOWN;
	if (err.code)
		admin_fail(c, &err);
	else
		c->repeated = r->repeated;
	return !err.code;
}

/* What cluster_ca_rotate and cluster_seal_rotate have in common. */
typedef int (*rotate_fn)(struct cluster *c, struct loop *loop,
			 const Skerry__Internal__V1__Command *as, uint64_t deadline_ms,
			 rotated_cb cb, void *arg, struct err *err);

static void rotate(struct admin_call *c, const struct err *why, rotate_fn fn, rotated_cb cb)
{
	struct rpc_call *call = admin_back(c);
	struct err err = *why;

	if (!call)
		return;
	caller_fill_command(&c->caller, &c->cmd, &c->actor, c->caller_name);
	if (err.code || admin_request_id(c, &err) < 0 ||
	    fn(c->api->cluster, c->api->loop, &c->cmd, api_call_deadline(call, CALL_MS), cb, c,
	       &err) < 0)
		admin_fail(c, &err);
}

static void on_ca_rotated(void *arg, const struct err *why, const struct cluster_rotated *r)
{
	struct admin_call *c = arg;

	if (!rotated(c, why, r))
		return;
	LOG_INFO("certificate authority %u, asked by %s", r->ca_generation, c->caller_name);
	trust_reply(c);
}

static void on_rotate_ca(void *arg, const struct err *why)
{
	rotate(arg, why, cluster_ca_rotate, on_ca_rotated);
}

void cluster_rotate_ca(struct admin_call *c)
{
	const Skerry__V1__RotateCaRequest *req = (const void *)c->req;

	at_leader_level(c, req->retire ? on_retire : on_rotate_ca);
}

/* ---- cluster.key ---- */

static void on_seal_rotated(void *arg, const struct err *why, const struct cluster_rotated *r)
{
	Skerry__V1__RotateSealResponse m = SKERRY__V1__ROTATE_SEAL_RESPONSE__INIT;
	struct admin_call *c = arg;

	if (!rotated(c, why, r))
		return;
	LOG_INFO("cluster.key number %u, asked by %s", r->seal, c->caller_name);
	m.seal_generation = r->seal;
	m.recovery_string = r->recovery;
	m.holders = r->holders;
	m.lighthouses = r->members;
	admin_reply(c, &m.base);
}

static void on_rotate_seal(void *arg, const struct err *why)
{
	rotate(arg, why, cluster_seal_rotate, on_seal_rotated);
}

void cluster_rotate_seal(struct admin_call *c)
{
	at_leader_level(c, on_rotate_seal);
}
