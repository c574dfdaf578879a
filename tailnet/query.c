#include "tailnet/query.h"

#include <string.h>

#include "base/crypto.h"
#include "base/enc.h"
#include "base/err.h"
#include "tailnet/keys.h"
#include "tailnet/rec_int.h"

/* The first record of `desc` with a key above `from` that begins with `prefix`. */
static int next_below(const struct kv *kv, const struct skey *prefix, const struct skey *from,
		      const ProtobufCMessageDescriptor *desc, struct arena *a, void *ret)
{
	struct slice k, v;
	int r = kv_next(kv, skey_slice(from), &k, &v);

	if (r < 0) {
		return r;
	}
	if (!skey_has_prefix(k, skey_slice(prefix))) {
		return ERR_NOT_FOUND;
	}
	return rec_unpack(desc, v, a, ret);
}

static int next_id(const struct kv *kv, enum table t, uint64_t after,
		   const ProtobufCMessageDescriptor *desc, struct arena *a, void *ret)
{
	struct skey prefix, from;

	skey_init(&prefix, t);
	skey_id(&from, t, after);
	return next_below(kv, &prefix, &from, desc, a, ret);
}

/* Ids begin at 1, so that the key with `after` 0 is below all of them. */
static int next_id2(const struct kv *kv, enum table t, uint64_t tailnet, uint64_t after,
		    const ProtobufCMessageDescriptor *desc, struct arena *a, void *ret)
{
	struct skey prefix, from;

	if (tailnet != 0 && !query_tailnet_exists(kv, tailnet)) {
		return ERR_NOT_FOUND;
	}
	skey_id(&prefix, t, tailnet);
	skey_id2(&from, t, tailnet, after);
	return next_below(kv, &prefix, &from, desc, a, ret);
}

static int get_id2(const struct kv *kv, enum table t, uint64_t tailnet, uint64_t id,
		   const ProtobufCMessageDescriptor *desc, struct arena *a, void *ret)
{
	struct skey k;

	if (tailnet != 0 && !query_tailnet_exists(kv, tailnet)) {
		return ERR_NOT_FOUND;
	}
	return rec_get(kv, skey_id2(&k, t, tailnet, id), desc, a, ret);
}

/* By an index entry that names tailnet and id. */
static int get_indexed(const struct kv *kv, struct slice index, enum table t,
		       const ProtobufCMessageDescriptor *desc, struct arena *a, void *ret)
{
	uint64_t tailnet, id;
	int r = rec_index(kv, index, &tailnet, &id);

	return r < 0 ? r : get_id2(kv, t, tailnet, id, desc, a, ret);
}

/* ---- system ---- */

int query_meta(const struct kv *kv, struct arena *a, Meta **ret)
{
	struct skey k;

	skey_init(&k, TABLE_META);
	return rec_get(kv, skey_slice(&k), REC(meta), a, ret);
}

int query_revision(const struct kv *kv, uint64_t *ret_epoch, uint64_t *ret_revision,
		   uint64_t *ret_time_ms)
{
	struct arena a;
	Meta *m;
	int r;

	arena_init(&a, 65536);
	r = query_meta(kv, &a, &m);
	if (r == 0) {
		*ret_epoch = m->epoch;
		*ret_revision = m->revision;
		*ret_time_ms = m->time_ms;
	}
	arena_done(&a);
	return r;
}

int query_member(const struct kv *kv, uint64_t id, struct arena *a, MemberRecord **ret)
{
	struct skey k;

	return rec_get(kv, skey_id(&k, TABLE_MEMBER, id), REC(member_record), a, ret);
}

int query_member_next(const struct kv *kv, uint64_t after, struct arena *a, MemberRecord **ret)
{
	return next_id(kv, TABLE_MEMBER, after, REC(member_record), a, ret);
}

int query_membership(const struct kv *kv, bool last, struct arena *a, MembershipChange **ret)
{
	struct skey k;

	return rec_get(kv, skey_id(&k, TABLE_MEMBERSHIP, last ? 2 : 1), REC(membership_change), a,
		       ret);
}

int query_join_token(const struct kv *kv, uint64_t id, uint64_t now_ms, struct arena *a,
		     JoinTokenRecord **ret)
{
	JoinTokenRecord *t;
	struct skey k;
	int r = rec_get(kv, skey_id(&k, TABLE_JOIN_TOKEN, id), REC(join_token_record), a, &t);

	if (r < 0) {
		return r;
	}
	if (now_ms != 0 && (t->used_by != 0 || t->revoked || t->expire_ms <= now_ms)) {
		return ERR_NOT_FOUND;
	}
	*ret = t;
	return 0;
}

int query_request(const struct kv *kv, uint64_t tailnet, const char *caller, const char *request_id,
		  uint64_t now_ms, struct arena *a, DedupeRecord **ret)
{
	struct skey k;
	int r = rec_get(kv, skey_request(&k, tailnet, caller, request_id), REC(dedupe_record), a,
			ret);

	return r >= 0 && (*ret)->expire_ms <= now_ms ? ERR_NOT_FOUND : r;
}

int query_ca(const struct kv *kv, struct arena *a, CaRecord **ret)
{
	return query_ca_before(kv, UINT32_MAX, a, ret);
}

int query_ca_before(const struct kv *kv, uint32_t generation, struct arena *a, CaRecord **ret)
{
	struct slice k, v;
	struct skey from;
	int r = kv_prev(kv, skey_id(&from, TABLE_CA, generation), &k, &v);

	if (r < 0) {
		return r;
	}
	return skey_table(k) != TABLE_CA ? ERR_NOT_FOUND : rec_unpack(REC(ca_record), v, a, ret);
}

int query_secret(const struct kv *kv, const char *name, struct arena *a, SealedSecret **ret)
{
	struct skey k;

	return rec_get(kv, skey_bytes(&k, TABLE_SECRET, name, strlen(name)), REC(sealed_secret), a,
		       ret);
}

/* ---- tailnets ---- */

bool query_tailnet_exists(const struct kv *kv, uint64_t id)
{
	struct slice v;
	struct skey k;

	return kv_get(kv, skey_id(&k, TABLE_TAILNET, id), &v) == 0;
}

static int with_count(const struct kv *kv, struct arena *a, TailnetRecord *t, TailnetRecord **ret)
{
	TailnetHead *h;
	int r = query_head(kv, t->id, a, &h);

	if (r == 0) {
		t->node_count = h->node_count;
		*ret = t;
	}
	return r;
}

int query_tailnet(const struct kv *kv, uint64_t id, struct arena *a, TailnetRecord **ret)
{
	TailnetRecord *t;
	struct skey k;
	int r = rec_get(kv, skey_id(&k, TABLE_TAILNET, id), REC(tailnet_record), a, &t);

	return r < 0 ? r : with_count(kv, a, t, ret);
}

int query_tailnet_named(const struct kv *kv, const char *name, struct arena *a, TailnetRecord **ret)
{
	uint64_t tailnet, id;
	struct skey k;
	size_t len = strlen(name);
	int r;

	if (len > SKEY_MAX - 1) {
		return ERR_NOT_FOUND;
	}
	r = rec_index(kv, skey_bytes(&k, TABLE_BY_TAILNET_NAME, name, len), &tailnet, &id);
	return r < 0 ? r : query_tailnet(kv, id, a, ret);
}

int query_tailnet_next(const struct kv *kv, uint64_t after, struct arena *a, TailnetRecord **ret)
{
	TailnetRecord *t;
	int r = next_id(kv, TABLE_TAILNET, after, REC(tailnet_record), a, &t);

	return r < 0 ? r : with_count(kv, a, t, ret);
}

int query_head(const struct kv *kv, uint64_t tailnet, struct arena *a, TailnetHead **ret)
{
	struct skey k;
	int r = rec_get(kv, skey_id(&k, TABLE_HEAD, tailnet), REC(tailnet_head), a, ret);

	if (r == ERR_NOT_FOUND) {
		TailnetHead *h = arena_alloc(a, sizeof(*h));

		if (h == NULL) {
			return ERR_LIMIT;
		}
		skerry__internal__v1__tailnet_head__init(h);
		h->tailnet = tailnet;
		*ret = h;
		return 0;
	}
	return r;
}

/* ---- users ---- */

int query_user(const struct kv *kv, uint64_t tailnet, uint64_t id, struct arena *a,
	       UserRecord **ret)
{
	return get_id2(kv, TABLE_USER, tailnet, id, REC(user_record), a, ret);
}

int query_user_login(const struct kv *kv, uint64_t tailnet, const char *login, struct arena *a,
		     UserRecord **ret)
{
	struct skey k;

	if (strlen(login) > SKEY_MAX - 9) {
		return ERR_NOT_FOUND;
	}
	return get_indexed(kv, skey_id_str(&k, TABLE_BY_LOGIN, tailnet, login), TABLE_USER,
			   REC(user_record), a, ret);
}

int query_user_next(const struct kv *kv, uint64_t tailnet, uint64_t after, struct arena *a,
		    UserRecord **ret)
{
	return next_id2(kv, TABLE_USER, tailnet, after, REC(user_record), a, ret);
}

/* ---- nodes ---- */

int query_node(const struct kv *kv, uint64_t tailnet, uint64_t id, struct arena *a,
	       NodeRecord **ret)
{
	return get_id2(kv, TABLE_NODE, tailnet, id, REC(node_record), a, ret);
}

int query_node_next(const struct kv *kv, uint64_t tailnet, uint64_t after, struct arena *a,
		    NodeRecord **ret)
{
	return next_id2(kv, TABLE_NODE, tailnet, after, REC(node_record), a, ret);
}

int query_node_by_key(const struct kv *kv, const uint8_t key[32], struct arena *a, NodeRecord **ret)
{
	struct skey k;

	return get_indexed(kv, skey_bytes(&k, TABLE_BY_NODE_KEY, key, 32), TABLE_NODE,
			   REC(node_record), a, ret);
}

int query_node_named(const struct kv *kv, uint64_t tailnet, const char *given_name, struct arena *a,
		     NodeRecord **ret)
{
	struct skey k;

	if (strlen(given_name) > SKEY_MAX - 9) {
		return ERR_NOT_FOUND;
	}
	return get_indexed(kv, skey_id_str(&k, TABLE_BY_NODE_NAME, tailnet, given_name), TABLE_NODE,
			   REC(node_record), a, ret);
}

int query_node_by_address(const struct kv *kv, const void *address, size_t len, struct arena *a,
			  NodeRecord **ret)
{
	struct skey k;

	if (len != 4 && len != 16) {
		return ERR_NOT_FOUND;
	}
	return get_indexed(kv, skey_bytes(&k, TABLE_BY_ADDRESS, address, len), TABLE_NODE,
			   REC(node_record), a, ret);
}

int query_node_of_machine(const struct kv *kv, int kind, const uint8_t key[32],
			  struct query_cursor *c, struct arena *a, NodeRecord **ret)
{
	struct skey prefix, from;
	struct slice k, v;
	uint64_t tailnet, id;
	int r;

	skey_machine(&from, (uint8_t)kind, key, c->tailnet, c->user);
	prefix = from;
	prefix.len = 34;
	for (;;) {
		r = c->started ? kv_next(kv, skey_slice(&from), &k, &v)
			       : kv_seek(kv, skey_slice(&from), &k, &v);
		if (r < 0) {
			return r;
		}
		if (!skey_has_prefix(k, skey_slice(&prefix))) {
			return ERR_NOT_FOUND;
		}
		if (!skey_get_u64(k, 34, &c->tailnet) || !skey_get_u64(k, 42, &c->user) ||
		    v.len != 16) {
			return ERR_CORRUPT;
		}
		c->started = true;
		tailnet = be_get64(v.data);
		id = be_get64((const uint8_t *)v.data + 8);
		r = query_node(kv, tailnet, id, a, ret);
		/* The node of a tailnet that is going is passed over. */
		if (r != ERR_NOT_FOUND) {
			return r;
		}
		skey_machine(&from, (uint8_t)kind, key, c->tailnet, c->user);
	}
}

int query_endpoints(const struct kv *kv, uint64_t tailnet, uint64_t node, struct arena *a,
		    NodeEndpoints **ret)
{
	return get_id2(kv, TABLE_ENDPOINTS, tailnet, node, REC(node_endpoints), a, ret);
}

int query_presence(const struct kv *kv, uint64_t tailnet, uint64_t node, struct arena *a,
		   Presence **ret)
{
	return get_id2(kv, TABLE_PRESENCE, tailnet, node, REC(presence), a, ret);
}

int query_presence_next(const struct kv *kv, uint64_t tailnet, uint64_t after, struct arena *a,
			Presence **ret)
{
	return next_id2(kv, TABLE_PRESENCE, tailnet, after, REC(presence), a, ret);
}

/* ---- keys ---- */

bool query_auth_key_valid(const AuthKeyRecord *k, uint64_t now_ms)
{
	return !k->revoked && !k->expired && k->expire_ms > now_ms;
}

int query_auth_key(const struct kv *kv, uint64_t tailnet, uint64_t id, struct arena *a,
		   AuthKeyRecord **ret)
{
	return get_id2(kv, TABLE_AUTH_KEY, tailnet, id, REC(auth_key_record), a, ret);
}

int query_auth_key_next(const struct kv *kv, uint64_t tailnet, uint64_t after, struct arena *a,
			AuthKeyRecord **ret)
{
	return next_id2(kv, TABLE_AUTH_KEY, tailnet, after, REC(auth_key_record), a, ret);
}

int query_auth_key_any(const struct kv *kv, uint64_t id, struct arena *a, AuthKeyRecord **ret)
{
	struct skey k;

	return get_indexed(kv, skey_id(&k, TABLE_BY_AUTH_KEY, id), TABLE_AUTH_KEY,
			   REC(auth_key_record), a, ret);
}

int query_api_key_valid(const struct kv *kv, const ApiKeyRecord *k, uint64_t now_ms,
			uint32_t *ret_role)
{
	struct arena a;
	UserRecord *u;
	int r;

	if (k->revoked || k->expired || k->expire_ms <= now_ms) {
		return ERR_DENIED;
	}
	if (k->user == 0) {
		*ret_role = k->role;
		return 0;
	}
	arena_init(&a, 65536);
	r = query_user(kv, k->tailnet, k->user, &a, &u);
	if (r == ERR_NOT_FOUND || (r == 0 && u->suspended)) {
		r = ERR_DENIED;
	} else if (r == 0) {
		*ret_role = MIN(k->role, u->role);
	}
	arena_done(&a);
	return r;
}

int query_api_key(const struct kv *kv, uint64_t tailnet, uint64_t id, struct arena *a,
		  ApiKeyRecord **ret)
{
	return get_id2(kv, TABLE_API_KEY, tailnet, id, REC(api_key_record), a, ret);
}

int query_api_key_next(const struct kv *kv, uint64_t tailnet, uint64_t after, struct arena *a,
		       ApiKeyRecord **ret)
{
	return next_id2(kv, TABLE_API_KEY, tailnet, after, REC(api_key_record), a, ret);
}

int query_api_key_any(const struct kv *kv, uint64_t id, struct arena *a, ApiKeyRecord **ret)
{
	struct skey k;

	return get_indexed(kv, skey_id(&k, TABLE_BY_API_KEY, id), TABLE_API_KEY,
			   REC(api_key_record), a, ret);
}

/* ---- pending ---- */

int query_pending_code(const struct kv *kv, const char *code, uint64_t now_ms, struct arena *a,
		       PendingRecord **ret)
{
	PendingRecord *p;
	uint8_t hash[32];
	struct skey k;
	int r;

	crypto_sha256(hash, code, strlen(code));
	r = get_indexed(kv, skey_bytes(&k, TABLE_BY_CODE, hash, sizeof(hash)), TABLE_PENDING,
			REC(pending_record), a, &p);
	if (r < 0) {
		return r;
	}
	if (now_ms != 0 && p->expire_ms <= now_ms) {
		return ERR_NOT_FOUND;
	}
	*ret = p;
	return 0;
}

int query_pending(const struct kv *kv, uint64_t tailnet, uint64_t id, struct arena *a,
		  PendingRecord **ret)
{
	return get_id2(kv, TABLE_PENDING, tailnet, id, REC(pending_record), a, ret);
}

int query_pending_next(const struct kv *kv, uint64_t tailnet, uint64_t after, struct arena *a,
		       PendingRecord **ret)
{
	return next_id2(kv, TABLE_PENDING, tailnet, after, REC(pending_record), a, ret);
}

/* ---- audit ---- */

int query_audit(const struct kv *kv, uint64_t tailnet, uint64_t sequence, struct arena *a,
		AuditRecord **ret)
{
	return get_id2(kv, TABLE_AUDIT, tailnet, sequence, REC(audit_record), a, ret);
}

int query_audit_next(const struct kv *kv, uint64_t tailnet, uint64_t after, struct arena *a,
		     AuditRecord **ret)
{
	return next_id2(kv, TABLE_AUDIT, tailnet, after, REC(audit_record), a, ret);
}

int query_audit_before(const struct kv *kv, uint64_t tailnet, uint64_t before, struct arena *a,
		       AuditRecord **ret)
{
	struct skey prefix, from;
	struct slice k, v;
	int r;

	if (tailnet != 0 && !query_tailnet_exists(kv, tailnet)) {
		return ERR_NOT_FOUND;
	}
	skey_id(&prefix, TABLE_AUDIT, tailnet);
	r = kv_prev(kv, skey_id2(&from, TABLE_AUDIT, tailnet, before), &k, &v);
	if (r < 0) {
		return r;
	}
	if (!skey_has_prefix(k, skey_slice(&prefix))) {
		return ERR_NOT_FOUND;
	}
	return rec_unpack(REC(audit_record), v, a, ret);
}

/* ---- changes and history ---- */

int query_change_next(const struct kv *kv, uint64_t tailnet, struct query_change *c)
{
	struct skey from, prefix;
	struct slice k, v;
	struct arena a;
	ChangeRecord *rec;
	int r;

	skey_id(&prefix, TABLE_CHANGE, tailnet);
	if (c->kind == 0) {
		/* The start: past everything of the revision that the watcher has. */
		skey_change(&from, TABLE_CHANGE, tailnet, c->revision, UINT8_MAX, UINT64_MAX);
	} else {
		skey_change(&from, TABLE_CHANGE, tailnet, c->revision, (uint8_t)c->kind, c->object);
	}
	r = kv_next(kv, skey_slice(&from), &k, &v);
	if (r < 0) {
		return r;
	}
	if (!skey_has_prefix(k, skey_slice(&prefix))) {
		return ERR_NOT_FOUND;
	}
	arena_init(&a, 65536);
	r = rec_unpack(REC(change_record), v, &a, &rec);
	if (r == 0) {
		*c = (struct query_change){
			.revision = rec->revision,
			.object = rec->object,
			.time_ms = rec->time_ms,
			.kind = rec->kind,
			.deleted = rec->deleted,
			.visibility = rec->visibility,
		};
	}
	arena_done(&a);
	return r;
}

int query_floor(const struct kv *kv, uint64_t tailnet, uint64_t *ret_floor,
		uint64_t *ret_visibility)
{
	struct arena a;
	TailnetHead *h;
	int r;

	arena_init(&a, 65536);
	r = query_head(kv, tailnet, &a, &h);
	if (r == 0) {
		*ret_floor = h->change_floor;
		*ret_visibility = h->last_visibility_revision;
	}
	arena_done(&a);
	return r;
}

int query_history(const struct kv *kv, uint64_t tailnet, struct slice key, uint64_t revision,
		  struct arena *a, struct slice *ret, uint64_t *ret_oldest)
{
	struct skey prefix, from;
	struct slice k, v;
	TailnetHead *h;
	void *copy;
	int r = query_head(kv, tailnet, a, &h);

	if (r < 0) {
		return r;
	}
	*ret_oldest = h->history_floor;
	if (revision < h->history_floor) {
		return ERR_RANGE;
	}
	/* The first old value that was replaced after `revision` held then; without one the present one does. */
	skey_id(&prefix, TABLE_HISTORY, tailnet);
	skey_add_u16(&prefix, (uint16_t)key.len);
	skey_add_bytes(&prefix, key.data, key.len);
	from = prefix;
	skey_add_u64(&from, revision);
	r = kv_next(kv, skey_slice(&from), &k, &v);
	if (r == 0 && skey_has_prefix(k, skey_slice(&prefix))) {
		HistoryRecord *rec;

		r = rec_unpack(REC(history_record), v, a, &rec);
		if (r < 0) {
			return r;
		}
		if (!rec->existed) {
			return ERR_NOT_FOUND;
		}
		*ret = (struct slice){rec->value.data, rec->value.len};
		return 0;
	}
	if (r < 0 && r != ERR_NOT_FOUND) {
		return r;
	}
	r = kv_get(kv, key, &v);
	if (r < 0) {
		return r;
	}
	copy = arena_memdup(a, v.data, v.len);
	if (copy == NULL) {
		return ERR_LIMIT;
	}
	*ret = (struct slice){copy, v.len};
	return 0;
}
