/* Commands of the system: bootstrap, lighthouses, the feature level, secrets. */
#include "tailnet/commands_int.h"
#include "tailnet/query.h"

#include <string.h>

#include "base/limits.h"
#include "base/name.h"

#define MEMBER_KIND(x) SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_##x
#define STEP(x)        SKERRY__INTERNAL__V1__CHANGE_STEP__CHANGE_STEP_##x

int cmd_digest_marker(struct state *st)
{
	st->reply->id = st->cmd->digest_marker->id;
	return ACCEPT;
}

static int valid_member(struct state *st, const MemberRecord *m)
{
	if (m == NULL || m->id == 0 || m->id >> 63 != 0) {
		return refuse(st, CODE_INVALID, "", "member.id",
			      "a lighthouse id is a number from 1 to 2^63-1");
	}
	if (m->public_key.len == 0 || m->public_key.len > 512 || m->box_key.len > 32 ||
	    m->join_request_hash.len > 32) {
		return refuse(st, CODE_INVALID, "", "member.public_key",
			      "the public key of the lighthouse is missing or too long");
	}
	if (m->name[0] == '\0') {
		return refuse(st, CODE_INVALID, "", "member.name", "the lighthouse has no name");
	}
	if (valid_text(st, m->name, LIM_LABEL, "member.name") == REFUSE ||
	    valid_text(st, m->version, LIM_TEXT_BYTES, "member.version") == REFUSE ||
	    valid_text(st, m->peer_address, LIM_HOST_PORT, "member.peer_address") == REFUSE) {
		return REFUSE;
	}
	return valid_text(st, m->api_url, LIM_HOST_PORT + 16, "member.api_url");
}

static int valid_features(struct state *st, uint32_t min, uint32_t max)
{
	if (min > st->meta->feature_level || max < st->meta->feature_level) {
		return refuse(
			st, CODE_PRECONDITION, "FEATURE_LEVEL", "feature_max",
			"the lighthouse supports the feature levels %u to %u, the cluster is at "
			"%u: install a version that supports it",
			min, max, st->meta->feature_level);
	}
	return ACCEPT;
}

int valid_ca(struct state *st, const CaRecord *ca)
{
	if (ca->generation == 0 || ca->certificate_der.len == 0 ||
	    ca->certificate_der.len > LIM_CERTIFICATE_BYTES) {
		return refuse(
			st, CODE_INVALID, "", "ca",
			"a certificate authority has a generation and a certificate of at most "
			"%d bytes",
			LIM_CERTIFICATE_BYTES);
	}
	return ACCEPT;
}

int valid_secret(struct state *st, const SealedSecret *s)
{
	if (s->name[0] == '\0' || s->box.len == 0 || s->box.len > LIM_SEALED_BYTES) {
		return refuse(st, CODE_INVALID, "", "secret",
			      "a sealed secret has a name and a box of at most %d bytes",
			      LIM_SEALED_BYTES);
	}
	return valid_text(st, s->name, LIM_LABEL, "secret.name");
}

void ca_put(struct state *st, const CaRecord *ca)
{
	struct change_of c = {.object = ca->generation, .kind = CHANGE_SYSTEM};
	CaRecord r = *ca;
	struct skey k;

	r.create_ms = st->now;
	state_put(st, skey_id(&k, TABLE_CA, r.generation), &r, &c);
}

void secret_put(struct state *st, const SealedSecret *s)
{
	struct skey k;

	state_put(st, skey_bytes(&k, TABLE_SECRET, s->name, strlen(s->name)), s, NULL);
}

int cmd_bootstrap(struct state *st)
{
	const Skerry__Internal__V1__Bootstrap *b = st->cmd->bootstrap;
	const char *user = b->user_name[0] != '\0' ? b->user_name : "admin";
	const char *name = b->tailnet_name[0] != '\0' ? b->tailnet_name : "default";
	struct err e = {0};
	MemberRecord m;
	uint64_t tailnet;

	if (!st->meta_missing) {
		return refuse(st, CODE_PRECONDITION, "INITIALISED", "",
			      "the cluster is initialised already");
	}
	if (b->cluster_id == 0 || b->cluster_id >> 63 != 0 || b->epoch == 0 ||
	    b->feature_level == 0) {
		return refuse(st, CODE_INVALID, "", "cluster_id",
			      "a cluster has an id of 63 bits, an epoch and a feature level");
	}
	if (name_valid_label(name, strlen(name), &e) < 0) {
		return refuse(st, CODE_INVALID, "", "tailnet_name", "the tailnet's name: %s",
			      e.msg);
	}
	if (b->base_domain[0] != '\0' &&
	    valid_base_domain(st, b->base_domain, "base_domain") == REFUSE) {
		return REFUSE;
	}
	if (valid_text(st, b->cluster_name, LIM_LABEL, "cluster_name") == REFUSE ||
	    valid_text(st, user, LIM_LABEL, "user_name") == REFUSE ||
	    valid_member(st, b->member) == REFUSE) {
		return REFUSE;
	}
	if (b->ca == NULL || b->ca_key == NULL) {
		return refuse(st, CODE_INVALID, "", "ca", "the certificate authority is missing");
	}
	if (valid_ca(st, b->ca) == REFUSE || valid_secret(st, b->ca_key) == REFUSE) {
		return REFUSE;
	}
	st->meta->feature_level = b->feature_level;
	if (valid_features(st, b->member->feature_min, b->member->feature_max) == REFUSE) {
		return REFUSE;
	}

	st->meta->cluster_id = b->cluster_id;
	st->meta->cluster_name = b->cluster_name;
	st->meta->epoch = b->epoch;
	st->meta->leader_since_ms = st->now;
	m = *b->member;
	m.kind = MEMBER_KIND(VOTER);
	m.create_ms = st->now;
	m.incarnation = 0;
	m.last_incarnation = 0;
	m.revision = 0;
	st_put_member(st, &m);
	ca_put(st, b->ca);
	secret_put(st, b->ca_key);
	tailnet_make(st, name, NULL, b->base_domain, 0, user, NULL, 0, &tailnet);
	st_audit(st, 0, "cluster.init", st_name(st, RESOURCE_MEMBER, 0, m.id), "cluster %s",
		 b->cluster_name);
	st_answer(st, RESOURCE_TAILNET, tailnet, tailnet);
	return ACCEPT;
}

/* ---- lighthouses ---- */

MemberRecord *member_alive(struct state *st, uint64_t id)
{
	MemberRecord *m = st_member(st, id);

	if (m == NULL || m->kind == MEMBER_KIND(REMOVED)) {
		IGNORE(refuse(st, CODE_NOT_FOUND, "MEMBER_NOT_FOUND", "id",
			      "lighthouse %llu is not a member of this cluster",
			      (unsigned long long)id));
		return NULL;
	}
	return m;
}

/* What an earlier incarnation proposed is not asked for again. */
static void origin_forget(struct state *st, uint64_t lighthouse)
{
	static const enum table both[] = {TABLE_ORIGIN, TABLE_ORIGIN_ANSWER};

	st_origins_settle(st);
	for (size_t i = 0; i < ARRAY_LEN(both); i++) {
		struct skey prefix, key;

		skey_id(&prefix, both[i], lighthouse);
		for (;;) {
			struct slice k, v;

			if (!st_raw_seek(st, skey_slice(&prefix), &k, &v) ||
			    !skey_has_prefix(k, skey_slice(&prefix))) {
				break;
			}
			skey_bytes(&key, both[i], (const uint8_t *)k.data + 1, k.len - 1);
			st_raw_del(st, skey_slice(&key));
		}
	}
}

int cmd_lighthouse_start(struct state *st)
{
	const Skerry__Internal__V1__LighthouseStart *s = st->cmd->lighthouse_start;
	MemberRecord *m = member_alive(st, s->id);
	bool again;

	if (m == NULL) {
		return REFUSE;
	}
	if (s->incarnation == 0) {
		return refuse(st, CODE_INVALID, "", "incarnation", "an incarnation is not 0");
	}
	if (valid_features(st, s->feature_min, s->feature_max) == REFUSE ||
	    valid_text(st, s->version, LIM_TEXT_BYTES, "version") == REFUSE ||
	    valid_text(st, s->peer_address, LIM_HOST_PORT, "peer_address") == REFUSE ||
	    valid_text(st, s->api_url, LIM_HOST_PORT + 16, "api_url") == REFUSE) {
		return REFUSE;
	}
	again = m->last_incarnation == s->incarnation;
	if (!again) {
		origin_forget(st, m->id);
	}
	if (m->incarnation != s->incarnation) {
		sessions_end(st, m->id);
		m->start_ms = st->now;
	}
	m->incarnation = s->incarnation;
	m->last_incarnation = s->incarnation;
	m->feature_min = s->feature_min;
	m->feature_max = s->feature_max;
	m->version = s->version;
	if (s->peer_address[0] != '\0') {
		m->peer_address = s->peer_address;
	}
	if (s->api_url[0] != '\0') {
		m->api_url = s->api_url;
	}
	st_put_member(st, m);
	if (!again) {
		st_audit(st, 0, "lighthouse.start", st_name(st, RESOURCE_MEMBER, 0, m->id),
			 "version %s", m->version);
	}
	st_answer(st, RESOURCE_MEMBER, 0, m->id);
	return ACCEPT;
}

int cmd_lighthouse_lost(struct state *st)
{
	const Skerry__Internal__V1__LighthouseLost *l = st->cmd->lighthouse_lost;
	MemberRecord *m = member_alive(st, l->id);

	if (m == NULL) {
		return REFUSE;
	}
	if (l->incarnation == 0 || m->incarnation != l->incarnation) {
		return refuse(st, CODE_PRECONDITION, "INCARNATION_ENDED", "incarnation",
			      "lighthouse %llu has started anew or was declared lost before",
			      (unsigned long long)l->id);
	}
	m->incarnation = 0;
	st_put_member(st, m);
	sessions_end(st, m->id);
	st_audit(st, 0, "lighthouse.lost", st_name(st, RESOURCE_MEMBER, 0, m->id), "%s", m->name);
	st_answer(st, RESOURCE_MEMBER, 0, m->id);
	return ACCEPT;
}

int valid_join_token(struct state *st, const Skerry__Internal__V1__Credential *c,
		     uint64_t lifetime_ms)
{
	struct skey k;

	if (valid_credential(st, c) == REFUSE) {
		return REFUSE;
	}
	if (lifetime_ms > 24 * LIM_JOIN_TOKEN_MS) {
		return refuse(st, CODE_INVALID, "", "lifetime", "a join token lives at most 24 h");
	}
	if (st_has(st, skey_id(&k, TABLE_JOIN_TOKEN, c->id))) {
		return refuse(st, CODE_EXISTS, "KEY_ID_TAKEN", "credential",
			      "the id %llu is taken: draw another one", (unsigned long long)c->id);
	}
	return ACCEPT;
}

void join_token_put(struct state *st, const Skerry__Internal__V1__Credential *c,
		    uint64_t lifetime_ms, uint64_t change)
{
	JoinTokenRecord r;
	struct skey k;

	skerry__internal__v1__join_token_record__init(&r);
	r.id = c->id;
	r.credential = (Skerry__Internal__V1__Credential *)c;
	r.create_ms = st->now;
	r.expire_ms = st->now + (lifetime_ms != 0 ? lifetime_ms : LIM_JOIN_TOKEN_MS);
	r.change_id = change;
	state_put(st, skey_id(&k, TABLE_JOIN_TOKEN, r.id), &r, NULL);
	/* Kept a day longer, so that a join whose answer was lost is still answered alike. */
	st_deadline_put(st, r.expire_ms + 24 * LIM_JOIN_TOKEN_MS, DEADLINE_JOIN_TOKEN, 0, r.id);
	st_audit(st, 0, "join_token.create", st_name(st, RESOURCE_JOIN_TOKEN, 0, r.id), "%s", "");
}

int cmd_join_token_create(struct state *st)
{
	const Skerry__Internal__V1__JoinTokenCreate *c = st->cmd->join_token_create;

	if (valid_join_token(st, c->credential, c->lifetime_ms) == REFUSE) {
		return REFUSE;
	}
	join_token_put(st, c->credential, c->lifetime_ms, 0);
	st_answer(st, RESOURCE_JOIN_TOKEN, 0, c->credential->id);
	return ACCEPT;
}

void *record_next(struct state *st, enum table table, struct skey *k,
		  const ProtobufCMessageDescriptor *desc)
{
	struct slice key, v;
	struct skey prefix;
	bool more;

	if (k->len == 0) {
		skey_init(&prefix, table);
		more = st_raw_seek(st, skey_slice(&prefix), &key, &v);
	} else {
		more = st_raw_next(st, skey_slice(k), &key, &v);
	}
	if (!more || skey_table(key) != table) {
		return NULL;
	}
	skey_bytes(k, table, (const uint8_t *)key.data + 1, key.len - 1);
	return st_get(st, skey_slice(k), desc);
}

/* `replaced`: whose place it takes; it may have that one's name, as a host that was set up anew does. */
static int join_conflicts(struct state *st, const MemberRecord *m, uint64_t replaced)
{
	struct skey k = {0};
	MemberRecord *other;
	size_t n = 0, standbys = 0;

	while ((other = record_next(st, TABLE_MEMBER, &k, REC(member_record))) != NULL) {
		if (other->id == m->id || bytes_equal(other->public_key, m->public_key)) {
			return refuse(
				st, CODE_EXISTS, "MEMBER_EXISTS", "member",
				"the id or the key of the lighthouse was used before: start with "
				"an empty directory");
		}
		if (other->kind == MEMBER_KIND(REMOVED)) {
			continue;
		}
		if (strcmp(other->name, m->name) == 0 && other->id != replaced) {
			return refuse(
				st, CODE_EXISTS, "MEMBER_NAME_TAKEN", "member.name",
				"another lighthouse is called \"%s\": give this one another name",
				m->name);
		}
		n++;
		standbys += other->kind == MEMBER_KIND(STANDBY);
	}
	if (st->meta->feature_level >= 2 && standbys >= LIM_STANDBYS && replaced == 0) {
		return refuse(st, CODE_EXHAUSTED, "TOO_MANY_STANDBYS", "",
			      "the cluster has %d standbys, which is the limit: remove one first",
			      LIM_STANDBYS);
	}
	if (n >= LIM_MEMBERS) {
		return refuse(st, CODE_EXHAUSTED, "TOO_MANY_MEMBERS", "",
			      "the cluster has %d lighthouses, which is the limit", LIM_MEMBERS);
	}
	return ACCEPT;
}

int cmd_member_join(struct state *st)
{
	const Skerry__Internal__V1__MemberJoin *j = st->cmd->member_join;
	MembershipChange *change = NULL;
	JoinTokenRecord *t;
	MemberRecord m;
	struct skey k;

	t = st_get(st, skey_id(&k, TABLE_JOIN_TOKEN, j->token_id), REC(join_token_record));
	if (t == NULL || !j->token_verified || t->revoked) {
		return refuse(st, CODE_UNAUTHENTICATED, "TOKEN_UNKNOWN", "token",
			      "the join token is not known here: make a new one on a lighthouse of "
			      "the cluster");
	}
	if (valid_member(st, j->member) == REFUSE) {
		return REFUSE;
	}
	if (j->member->join_request_hash.len != 32) {
		return refuse(st, CODE_INVALID, "", "member.join_request_hash",
			      "the hash of the request has 32 bytes");
	}
	if (t->used_by != 0) {
		if (bytes_equal(t->used_request_hash, j->member->join_request_hash)) {
			st_answer(st, RESOURCE_MEMBER, 0, t->used_by);
			st->reply->repeated_request = true;
			return ACCEPT;
		}
		return refuse(st, CODE_DENIED, "TOKEN_USED", "token",
			      "the join token was used by another host: make a new one");
	}
	if (t->expire_ms <= st->now) {
		return refuse(st, CODE_DENIED, "TOKEN_EXPIRED", "token",
			      "the join token has expired: make a new one");
	}
	if (t->change_id != 0) {
		change = membership_running(st);
		if (change == NULL || change->id != t->change_id || change->cancelled ||
		    change->n_leave != 1) {
			return refuse(st, CODE_DENIED, "TOKEN_REVOKED", "token",
				      "the replacement that the join token was made for has ended: "
				      "begin another one, or make a plain token");
		}
	}
	if (valid_features(st, j->member->feature_min, j->member->feature_max) == REFUSE ||
	    join_conflicts(st, j->member, change != NULL ? change->leave[0] : 0) == REFUSE) {
		return REFUSE;
	}

	m = *j->member;
	m.kind = MEMBER_KIND(STANDBY);
	m.create_ms = st->now;
	m.incarnation = 0;
	m.last_incarnation = 0;
	m.revision = 0;
	m.join_token_id = t->id;
	t->used_by = m.id;
	t->used_request_hash = m.join_request_hash;
	state_put(st, skey_id(&k, TABLE_JOIN_TOKEN, t->id), t, NULL);
	st_put_member(st, &m);
	if (change != NULL) {
		change->n_enter = 1;
		change->enter = &m.id;
		membership_step(st, change, STEP(CATCH_UP), m.id);
	}
	st_audit(st, 0, "member.join", st_name(st, RESOURCE_MEMBER, 0, m.id), "%s at %s", m.name,
		 m.peer_address);
	st_answer(st, RESOURCE_MEMBER, 0, m.id);
	return ACCEPT;
}

static size_t other_voters(struct state *st, uint64_t id)
{
	struct skey k = {0};
	MemberRecord *m;
	size_t n = 0;

	while ((m = record_next(st, TABLE_MEMBER, &k, REC(member_record))) != NULL) {
		if (m->id != id && m->kind == MEMBER_KIND(VOTER)) {
			n++;
		}
	}
	return n;
}

int cmd_member_set_kind(struct state *st)
{
	const Skerry__Internal__V1__MemberSetKind *c = st->cmd->member_set_kind;
	static const char *const names[] = {"", "voter", "standby", "removed"};
	MemberRecord *m = member_alive(st, c->id);

	if (m == NULL) {
		return REFUSE;
	}
	if (c->kind == MEMBER_KIND(UNSPECIFIED)) {
		return refuse(st, CODE_INVALID, "", "kind", "the kind of the member is missing");
	}
	if (m->kind == MEMBER_KIND(VOTER) && c->kind != MEMBER_KIND(VOTER) &&
	    other_voters(st, m->id) == 0) {
		return refuse(st, CODE_PRECONDITION, "LAST_VOTER", "id",
			      "lighthouse %llu is the last voter; a cluster needs one",
			      (unsigned long long)c->id);
	}
	m->kind = c->kind;
	if (c->kind == MEMBER_KIND(VOTER)) {
		m->keep_standby = false;
	}
	if (c->kind == MEMBER_KIND(REMOVED)) {
		m->incarnation = 0;
		sessions_end(st, m->id);
		origin_forget(st, m->id);
	}
	st_put_member(st, m);
	st_audit(st, 0, "member.set_kind", st_name(st, RESOURCE_MEMBER, 0, m->id), "%s",
		 names[c->kind]);
	st_answer(st, RESOURCE_MEMBER, 0, m->id);
	return ACCEPT;
}

int cmd_raise_feature_level(struct state *st)
{
	uint32_t level = st->cmd->raise_feature_level->level;
	struct skey k = {0};
	MemberRecord *m;

	if (level <= st->meta->feature_level) {
		return refuse(st, CODE_PRECONDITION, "FEATURE_LEVEL", "level",
			      "the cluster is at feature level %u; it is only raised",
			      st->meta->feature_level);
	}
	while ((m = record_next(st, TABLE_MEMBER, &k, REC(member_record))) != NULL) {
		if (m->kind != MEMBER_KIND(REMOVED) &&
		    (level < m->feature_min || level > m->feature_max)) {
			return refuse(
				st, CODE_PRECONDITION, "FEATURE_LEVEL", "level",
				"lighthouse %s supports the levels %u to %u only: update it first",
				m->name, m->feature_min, m->feature_max);
		}
	}
	st->meta->feature_level = level;
	st_audit(st, 0, "cluster.feature_level", "", "%u", level);
	return ACCEPT;
}

int cmd_secret_put(struct state *st)
{
	const Skerry__Internal__V1__SecretPut *p = st->cmd->secret_put;
	struct skey k;

	if (p->secret == NULL && p->ca == NULL) {
		return refuse(st, CODE_INVALID, "", "secret", "there is nothing to put");
	}
	if ((p->secret != NULL && valid_secret(st, p->secret) == REFUSE) ||
	    (p->ca != NULL && valid_ca(st, p->ca) == REFUSE)) {
		return REFUSE;
	}
	if (p->secret != NULL && st->meta->feature_level >= 2 &&
	    rotation_number(p->secret->seal) != seal_now(st)) {
		return refuse(st, CODE_ABORTED, "SEAL_CHANGED", "secret.seal",
			      "cluster.key was rotated meanwhile: try again");
	}
	if (p->ca != NULL && st_has(st, skey_id(&k, TABLE_CA, p->ca->generation))) {
		return refuse(st, CODE_EXISTS, "GENERATION_TAKEN", "ca.generation",
			      "there is a certificate authority of generation %u",
			      p->ca->generation);
	}
	if (p->secret != NULL) {
		secret_put(st, p->secret);
		st_audit(st, 0, "secret.put", "", "%s, generation %u", p->secret->name,
			 p->secret->generation);
	}
	if (p->ca != NULL) {
		ca_put(st, p->ca);
		st_audit(st, 0, "ca.put", "", "generation %u", p->ca->generation);
	}
	return ACCEPT;
}

/* ---- a new epoch ---- */

/* Unused tokens may have been used in the epoch that is lost. */
static void join_tokens_revoke(struct state *st)
{
	struct skey k = {0};
	JoinTokenRecord *t;

	while ((t = record_next(st, TABLE_JOIN_TOKEN, &k, REC(join_token_record))) != NULL) {
		if (t->used_by == 0 && !t->revoked) {
			t->revoked = true;
			state_put(st, skey_slice(&k), t, NULL);
		}
	}
}

/* Every lighthouse but `id` is removed; nobody is attached anywhere. */
static void members_bar(struct state *st, uint64_t id)
{
	struct skey k = {0};
	MemberRecord *m;

	while ((m = record_next(st, TABLE_MEMBER, &k, REC(member_record))) != NULL) {
		sessions_end(st, m->id);
		origin_forget(st, m->id);
		if (m->id != id && m->kind != MEMBER_KIND(REMOVED)) {
			m->kind = MEMBER_KIND(REMOVED);
			m->incarnation = 0;
			st_put_member(st, m);
		}
	}
}

int cmd_epoch_begin(struct state *st)
{
	const Skerry__Internal__V1__EpochBegin *c = st->cmd->epoch_begin;
	MembershipChange *change;
	const MemberRecord *old;
	MemberRecord m;

	if (!st->ctx->offline) {
		return refuse(
			st, CODE_DENIED, "EPOCH", "",
			"a new epoch is begun by a lighthouse that is alone and does not run");
	}
	if (c->epoch == 0 || c->epoch >> 63 != 0 || c->epoch == st->meta->epoch) {
		return refuse(st, CODE_INVALID, "", "epoch",
			      "an epoch is a number from 1 to 2^63-1 that was not used before");
	}
	if (c->revision_step >> 40 != 0) {
		return refuse(st, CODE_INVALID, "", "revision_step",
			      "the revision goes on by less than 2^40");
	}
	if (valid_member(st, c->member) == REFUSE ||
	    valid_features(st, c->member->feature_min, c->member->feature_max) == REFUSE) {
		return REFUSE;
	}
	old = st_member(st, c->member->id);
	if (old != NULL && (old->kind == MEMBER_KIND(REMOVED) ||
			    !bytes_equal(old->public_key, c->member->public_key))) {
		return refuse(st, CODE_DENIED, "NOT_A_MEMBER", "member",
			      "lighthouse %llu was removed from this cluster or had another key",
			      (unsigned long long)c->member->id);
	}

	st->revision += c->revision_step;
	st->meta->epoch = c->epoch;
	st->meta->leader_since_ms = st->now;
	join_tokens_revoke(st);
	members_bar(st, c->member->id);
	change = membership_running(st);
	if (change != NULL) {
		membership_close(st, change,
				 SKERRY__INTERNAL__V1__CHANGE_OUTCOME__CHANGE_OUTCOME_CANCELLED);
	}
	m = *c->member;
	m.kind = MEMBER_KIND(VOTER);
	m.create_ms = old != NULL ? old->create_ms : st->now;
	m.incarnation = 0;
	m.last_incarnation = 0;
	m.revision = old != NULL ? old->revision : 0;
	m.backup_ms = old != NULL ? old->backup_ms : 0;
	m.backup_revision = old != NULL ? old->backup_revision : 0;
	st_put_member(st, &m);
	st_audit(st, 0, c->restored ? "cluster.restore" : "cluster.recover",
		 st_name(st, RESOURCE_MEMBER, 0, m.id), "new epoch, %s alone", m.name);
	st_answer(st, RESOURCE_MEMBER, 0, m.id);
	return ACCEPT;
}
