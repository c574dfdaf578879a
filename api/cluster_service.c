/* ClusterService: members, join tokens, digests. Reads show what this lighthouse has, so that they work without quorum. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/admin.h"
#include "api/cluster_int.h"
#include "base/limits.h"
#include "base/enc.h"
#include "tailnet/query.h"

#define REMOVED SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_REMOVED

enum { COMPARE_MS = 10000 };

static const struct cluster_member_status *status_of(const struct cluster_status *s, uint64_t id)
{
	for (size_t i = 0; i < s->n_members; i++) {
		if (s->member[i].id == id)
			return &s->member[i];
	}
	return NULL;
}

static char *digest_text(struct admin_call *c, const uint8_t digest[32])
{
	return hex_encode(admin_alloc(c, 65), digest, 32);
}

static char *pin_text(struct admin_call *c)
{
	char *out = admin_alloc(c, 24 + 65);
	int n = snprintf(out, 24, "%" PRIu64 ":", cluster_id(c->api->cluster));
	uint8_t pin[32];

	cluster_ca_pin(c->api->cluster, pin);
	hex_encode(out + n, pin, 32);
	return out;
}

static Skerry__V1__Member *to_message(struct admin_call *c, const MemberRecord *r,
				      const struct cluster_status *s)
{
	const struct cluster_member_status *live = status_of(s, r->id);
	Skerry__V1__Member *m = admin_alloc(c, sizeof(*m));
	bool self = r->id == s->lighthouse_id;

	skerry__v1__member__init(m);
	m->name = admin_name(c, RESOURCE_MEMBER, 0, r->id);
	m->id = r->id;
	m->display_name = r->name;
	m->role = r->kind == SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_VOTER
			  ? SKERRY__V1__MEMBER_ROLE__MEMBER_ROLE_VOTER
			  : SKERRY__V1__MEMBER_ROLE__MEMBER_ROLE_STANDBY;
	m->leader = s->leader_id == r->id;
	m->connected = self || (live && live->connected);
	m->peer_address = r->peer_address;
	m->api_url = r->api_url;
	m->version = r->version;
	m->feature_min = r->feature_min;
	m->feature_max = r->feature_max;
	m->start_time = admin_time(c, r->start_ms);
	m->devices = live ? live->devices : 0;
	m->disk_low = live && live->disk_low;
	m->note = cluster_member_note(c, r);
	if (self) {
		m->digest = digest_text(c, s->digest);
		m->digest_revision = s->revision;
	} else if (live) {
		m->digest_revision = live->revision;
	}
	return m;
}

static int get(struct admin_call *c, uint64_t tailnet, uint64_t id, void **ret, struct err *err)
{
	struct cluster_status s;
	MemberRecord *r;
	int rc = query_member(c->kv, id, &c->records, &r);

	(void)tailnet;
	(void)err;
	if (rc < 0)
		return rc;
	if (r->kind == REMOVED)
		return ERR_NOT_FOUND;
	cluster_status(c->api->cluster, &s);
	*ret = to_message(c, r, &s);
	return 0;
}

static int next_member(struct admin_call *c, uint64_t *pos, MemberRecord **ret)
{
	int rc;

	do {
		rc = query_member_next(c->kv, *pos, &c->records, ret);
		if (rc >= 0)
			*pos = (*ret)->id;
	} while (rc >= 0 && (*ret)->kind == REMOVED);
	return rc;
}

static int next(struct admin_call *c, uint64_t tailnet, uint64_t *pos, void **ret)
{
	struct cluster_status s;
	MemberRecord *r;
	int rc = next_member(c, pos, &r);

	(void)tailnet;
	if (rc < 0)
		return rc;
	cluster_status(c->api->cluster, &s);
	*ret = to_message(c, r, &s);
	return 0;
}

static int get_cluster(struct admin_call *c, ProtobufCMessage **ret, struct err *err)
{
	Skerry__V1__Cluster *m = admin_alloc(c, sizeof(*m));
	struct cluster_status s;
	MembershipChange *change;
	MemberRecord *r;
	uint64_t pos = 0;
	Meta *meta;
	int rc = query_meta(c->kv, &c->records, &meta);

	if (rc < 0)
		return err_set(err, rc, "the state cannot be read: %s", err_text(rc));
	cluster_status(c->api->cluster, &s);
	skerry__v1__cluster__init(m);
	m->id = s.cluster_id;
	m->display_name = meta->cluster_name;
	m->epoch = meta->epoch;
	m->revision = meta->revision;
	m->lighthouse_id = s.lighthouse_id;
	m->leader_id = s.leader_id;
	m->term = s.term;
	m->quorum = s.quorum;
	m->feature_level = meta->feature_level;
	m->version = c->api->version;
	/* Of the same view as `revision`. */
	if (meta->digest.len == 32)
		m->digest = digest_text(c, meta->digest.data);
	m->ca_pin = pin_text(c);
	m->members = admin_alloc(c, LIM_MEMBERS * sizeof(*m->members));
	while (m->n_members < LIM_MEMBERS && (rc = next_member(c, &pos, &r)) >= 0)
		m->members[m->n_members++] = to_message(c, r, &s);
	if (rc < 0 && rc != ERR_NOT_FOUND)
		return err_set(err, rc, "the members cannot be read: %s", err_text(rc));
	if (query_membership(c->kv, false, &c->records, &change) >= 0)
		m->change = cluster_change_message(c, c->kv, change);
	if (query_membership(c->kv, true, &c->records, &change) >= 0)
		m->last_change = cluster_change_message(c, c->kv, change);
	*ret = &m->base;
	return 0;
}

static void run_get_cluster(struct admin_call *c)
{
	admin_read(c, get_cluster);
}

/* ---- join tokens ---- */

static int get_token(struct admin_call *c, uint64_t tailnet, uint64_t id, void **ret,
		     struct err *err)
{
	Skerry__V1__JoinToken *t = admin_alloc(c, sizeof(*t));
	JoinTokenRecord *r;
	int rc = query_join_token(c->kv, id, 0, &c->records, &r);

	(void)tailnet;
	(void)err;
	if (rc < 0)
		return rc;
	skerry__v1__join_token__init(t);
	t->id = r->id;
	t->expire_time = admin_time(c, r->expire_ms);
	*ret = t;
	return 0;
}

/* This lighthouse first: it is up now. */
static int add_addresses(struct admin_call *c, struct err *err)
{
	uint64_t self = cluster_lighthouse_id(c->api->cluster);
	struct key *k = &c->key;
	int rc = 0;

	for (int pass = 0; pass < 2; pass++) {
		MemberRecord *r;
		uint64_t pos = 0;

		while (k->naddrs < LIM_KEY_ADDRS && (rc = next_member(c, &pos, &r)) >= 0) {
			if ((r->id == self) != (pass == 0) || !*r->peer_address ||
			    strlen(r->peer_address) > LIM_HOST_PORT)
				continue;
			strcpy(k->addrs[k->naddrs++], r->peer_address);
		}
	}
	if (rc < 0 && rc != ERR_NOT_FOUND)
		return rc;
	if (!k->naddrs)
		return err_set(err, ERR_PRECONDITION, "no lighthouse has a peer address");
	return 0;
}

int cluster_token_fill(struct admin_call *c, struct err *err)
{
	c->key.has_pin = true;
	c->key.pin.cluster_id = cluster_id(c->api->cluster);
	cluster_ca_pin(c->api->cluster, c->key.pin.spki_sha256);
	c->key.role = KEY_ROLE_LIGHTHOUSE;
	return add_addresses(c, err);
}

static int create_token(struct admin_call *c, struct err *err)
{
	const Skerry__V1__CreateJoinTokenRequest *req = (const void *)c->req;
	Skerry__Internal__V1__JoinTokenCreate *b = admin_alloc(c, sizeof(*b));
	int rc;

	skerry__internal__v1__join_token_create__init(b);
	b->credential = admin_new_key(c, KEY_JOIN);
	rc = cluster_token_fill(c, err);
	if (rc >= 0)
		rc = admin_lifetime(req->lifetime, &b->lifetime_ms, err);
	c->cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_JOIN_TOKEN_CREATE;
	c->cmd.join_token_create = b;
	return rc;
}

static void token_secret(struct admin_call *c, void *msg, char *text)
{
	(void)c;
	((Skerry__V1__JoinToken *)msg)->secret = text;
}

/* ---- digests ---- */

static char *member_name(struct admin_call *c, struct cluster_read *read, uint64_t id)
{
	MemberRecord *r;

	if (!read || query_member(cluster_read_kv(read), id, &c->records, &r) < 0)
		return "";
	return r->name;
}

static void on_digests(void *arg, const struct err *why, uint64_t revision, size_t n,
		       const struct cluster_digest *d)
{
	Skerry__V1__CompareDigestsResponse m = SKERRY__V1__COMPARE_DIGESTS_RESPONSE__INIT;
	struct cluster_read *read = NULL;
	struct admin_call *c = arg;

	if (!admin_back(c))
		return;
	if (why->code) {
		admin_fail(c, why);
		return;
	}
	if (cluster_read_begin(c->api->cluster, c->method->path, &read, NULL) < 0)
		read = NULL;
	m.revision = revision;
	m.digests = admin_alloc(c, (n + 1) * sizeof(*m.digests));
	m.equal = n > 0;
	for (size_t i = 0; i < n; i++) {
		Skerry__V1__MemberDigest *e = admin_alloc(c, sizeof(*e));

		skerry__v1__member_digest__init(e);
		e->id = d[i].id;
		e->display_name = member_name(c, read, d[i].id);
		if (d[i].error[0])
			e->error = admin_strdup(c, d[i].error);
		else
			e->digest = digest_text(c, d[i].digest);
		m.equal = m.equal && !d[i].error[0] && !memcmp(d[i].digest, d[0].digest, 32);
		m.digests[m.n_digests++] = e;
	}
	if (read)
		cluster_read_end(read);
	admin_reply(c, &m.base);
}

static void compare_digests(struct admin_call *c)
{
	struct rpc_call *call = admin_back(c);
	struct err err = {0};

	if (call &&
	    cluster_compare_digests(c->api->cluster, c->api->loop,
				    api_call_deadline(call, COMPARE_MS), on_digests, c, &err) < 0)
		admin_fail(c, &err);
}

#define PATH(m) "/skerry.v1.ClusterService/" m

static const struct admin_method methods[] = {
	{.path = PATH("GetCluster"), .read_local = true, .run = run_get_cluster},
	{.path = PATH("GetMember"),
	 .kind = RESOURCE_MEMBER,
	 .target = "name",
	 .read_local = true,
	 .get = get},
	{.path = PATH("ListMembers"), .kind = RESOURCE_MEMBER, .read_local = true, .next = next},
	{.path = PATH("DeleteMember"),
	 .kind = RESOURCE_MEMBER,
	 .target = "name",
	 .run = cluster_delete_member},
	{.path = PATH("CreateJoinToken"),
	 .kind = RESOURCE_JOIN_TOKEN,
	 .command = create_token,
	 .get = get_token,
	 .secret = token_secret},
	{.path = PATH("CompareDigests"), .run = compare_digests},
	{.path = PATH("Diagnose"), .run = cluster_diagnose},
	{.path = PATH("TransferLeadership"), .run = cluster_transfer_leadership},
	{.path = PATH("FinalizeUpgrade"), .run = cluster_finalize_upgrade},
	{.path = PATH("GetTrust"), .read_local = true, .run = cluster_get_trust},
	{.path = PATH("RotateCa"), .run = cluster_rotate_ca},
	{.path = PATH("RotateSeal"), .run = cluster_rotate_seal},
	{.path = PATH("PromoteMember"),
	 .kind = RESOURCE_MEMBER,
	 .target = "name",
	 .run = cluster_promote_member},
	{.path = PATH("DemoteMember"),
	 .kind = RESOURCE_MEMBER,
	 .target = "name",
	 .run = cluster_demote_member},
	{.path = PATH("ReplaceMember"),
	 .kind = RESOURCE_MEMBER,
	 .target = "name",
	 .run = cluster_replace_member},
	{.path = PATH("CancelChange"), .run = cluster_cancel_change},
};

void cluster_service_register(struct api *api, struct rpc_server *server)
{
	admin_register(api, server, methods, ARRAY_LEN(methods));
}
