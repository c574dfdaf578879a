/*
 * The invariants of a whole store: one walk over all records, in portions. Each record looks up what must point to it;
 * tallies show that nothing else does. Deadlines: each that must be there is; one that is left over does nothing, unless it
 * is of a kind whose work asks nothing: then it must fit.
 */
#include "tailnet/tailnet.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/crypto.h"
#include "base/enc.h"
#include "base/limits.h"
#include "base/map.h"
#include "base/mem.h"
#include "tailnet/netmap.h"
#include "tailnet/query.h"
#include "tailnet/state_int.h"

/* Tables of indexes: what points to objects. */
enum { INDEX_FIRST = TABLE_BY_TAILNET_NAME, INDEX_LAST = TABLE_SESSION };
enum { INDEXES = INDEX_LAST - INDEX_FIRST + 1 };

/* What was counted in one tailnet (0: the system). */
struct tally {
	bool purging;
	uint64_t nodes, users, auth_keys, api_keys, pending, requests;
	uint64_t tombstones, deleted_changes, live_changes, objects;
	uint64_t history_bytes, audit_bytes, audit_first, audit_last;
	uint8_t audit_hash[32];
	/* entries of indexes, and how many there should be */
	uint64_t by[INDEXES], want[INDEXES];
};

struct tailnet_check {
	const struct kv *kv;
	struct err *err;
	struct arena arena, meta_arena; /* the first one is reset per record */
	struct map tallies;
	struct map_iter it; /* the end: tallies that were looked at */
	struct skey at;     /* the last key */
	bool walked;        /* past the last one */
	uint8_t digest[32];
	uint64_t bytes, records;
	Meta *meta; /* NULL: not yet read */
	int r;
};

static int wrong(struct tailnet_check *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
static int wrong(struct tailnet_check *c, const char *fmt, ...)
{
	char text[300];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	c->r = err_set(c->err, ERR_CORRUPT, "the state contradicts itself: %s", text);
	return c->r;
}

static struct tally *tally(struct tailnet_check *c, uint64_t tailnet)
{
	struct tally *t = map_get_u64(&c->tallies, tailnet);

	if (t == NULL) {
		struct slice v;
		struct skey k;

		t = MEM_NEW(struct tally);
		t->purging = tailnet != 0 && !query_tailnet_exists(c->kv, tailnet);
		if (t->purging && kv_get(c->kv, skey_id(&k, TABLE_PURGE, tailnet), &v) < 0) {
			wrong(c, "records of the tailnet %llu, which does not exist",
			      (unsigned long long)tailnet);
		}
		map_put_u64(&c->tallies, tailnet, t);
	}
	return t;
}

/* An entry of an index that there must be; of deadlines more may be left. */
static void want(struct tailnet_check *c, uint8_t table, uint64_t tailnet)
{
	struct tally *t = tally(c, tailnet);

	if (table <= INDEX_LAST) {
		t->want[table - INDEX_FIRST]++;
	}
}

static void points_to(struct tailnet_check *c, struct slice key, uint64_t tailnet, uint64_t id)
{
	uint64_t t = 0, i = 0;
	int r = rec_index(c->kv, key, &t, &i);

	want(c, skey_table(key), tailnet);
	if (r < 0 || t != tailnet || i != id) {
		wrong(c, "the index %s does not lead to %llu/%llu", table_name(skey_table(key)),
		      (unsigned long long)tailnet, (unsigned long long)id);
	}
}

static void present(struct tailnet_check *c, struct slice key, uint64_t tailnet, uint64_t id)
{
	struct slice v;

	want(c, skey_table(key), tailnet);
	if (kv_get(c->kv, key, &v) < 0) {
		wrong(c, "%llu/%llu has no entry in %s", (unsigned long long)tailnet,
		      (unsigned long long)id, table_name(skey_table(key)));
	}
}

static void deadline(struct tailnet_check *c, uint64_t ms, enum deadline kind, uint64_t tailnet,
		     uint64_t id)
{
	struct skey k;

	if (ms != 0) {
		present(c, skey_deadline_id(&k, ms, kind, tailnet, id), tailnet, id);
	}
}

/* The object's one entry in the change index. */
static void changed(struct tailnet_check *c, uint32_t kind, uint64_t tailnet, uint64_t id,
		    uint64_t revision)
{
	struct slice v;
	struct skey k;

	tally(c, tailnet)->objects++;
	if (revision == 0 || revision > c->meta->revision ||
	    kv_get(c->kv, skey_change(&k, TABLE_CHANGE, tailnet, revision, (uint8_t)kind, id), &v) <
		    0) {
		wrong(c, "%llu/%llu (kind %u, revision %llu) has no entry in the change index",
		      (unsigned long long)tailnet, (unsigned long long)id, kind,
		      (unsigned long long)revision);
	}
}

static void check_id(struct tailnet_check *c, uint64_t id)
{
	if (id == 0 || id > c->meta->last_id) {
		wrong(c, "the id %llu was never given", (unsigned long long)id);
	}
}

static void check_node(struct tailnet_check *c, struct slice key, const NodeRecord *n)
{
	uint64_t tailnet = 0, id = 0;
	UserRecord *u;
	NodeEndpoints *e;
	Presence *p;
	struct skey k;

	IGNORE(skey_get_u64(key, 1, &tailnet));
	IGNORE(skey_get_u64(key, 9, &id));
	if (n->tailnet != tailnet || n->id != id || n->machine_key == NULL ||
	    n->machine_key->key.len != 32 || n->node_key.len != 32 || n->n_addresses == 0) {
		wrong(c, "the node %llu/%llu is not whole", (unsigned long long)tailnet,
		      (unsigned long long)id);
		return;
	}
	if (tally(c, tailnet)->purging) {
		return;
	}
	check_id(c, id);
	tally(c, tailnet)->nodes++;
	changed(c, CHANGE_NODE, tailnet, id, n->revision);
	points_to(c, skey_bytes(&k, TABLE_BY_NODE_KEY, n->node_key.data, 32), tailnet, id);
	points_to(c,
		  skey_machine(&k, (uint8_t)n->machine_key->kind, n->machine_key->key.data, tailnet,
			       n->user),
		  tailnet, id);
	points_to(c, skey_id_str(&k, TABLE_BY_NODE_NAME, tailnet, n->given_name), tailnet, id);
	for (size_t i = 0; i < n->n_addresses; i++) {
		points_to(
			c,
			skey_bytes(&k, TABLE_BY_ADDRESS, n->addresses[i].data, n->addresses[i].len),
			tailnet, id);
	}
	if (n->user != 0) {
		if (query_user(c->kv, tailnet, n->user, &c->arena, &u) < 0) {
			wrong(c, "the node %llu/%llu has the user %llu, who does not exist",
			      (unsigned long long)tailnet, (unsigned long long)id,
			      (unsigned long long)n->user);
		} else if (u->suspended != n->suspended) {
			wrong(c, "the node %llu/%llu is not suspended as its user is",
			      (unsigned long long)tailnet, (unsigned long long)id);
		}
		present(c, skey_id3(&k, TABLE_NODE_OF_USER, tailnet, n->user, id), tailnet, id);
	} else if (n->n_tags == 0) {
		wrong(c, "the node %llu/%llu has neither user nor tags",
		      (unsigned long long)tailnet, (unsigned long long)id);
	}
	if (n->n_tags > 0 && (n->expire_ms != 0 || n->expired)) {
		/* A tagged node may have been logged out by its device. */
		if (!n->expired) {
			wrong(c, "the tagged node %llu/%llu expires", (unsigned long long)tailnet,
			      (unsigned long long)id);
		}
	}
	if (!n->expired) {
		deadline(c, n->expire_ms, DEADLINE_NODE, tailnet, id);
	}
	if (query_endpoints(c->kv, tailnet, id, &c->arena, &e) < 0 ||
	    query_presence(c->kv, tailnet, id, &c->arena, &p) < 0) {
		wrong(c, "the node %llu/%llu lacks its endpoints or presence",
		      (unsigned long long)tailnet, (unsigned long long)id);
	}
}

static void check_presence(struct tailnet_check *c, const Presence *p)
{
	struct slice v;
	struct skey k;

	if (tally(c, p->tailnet)->purging) {
		return;
	}
	changed(c, CHANGE_PRESENCE, p->tailnet, p->node, p->revision);
	if (p->session != 0 && p->lost_ms == 0) {
		if (!p->online) {
			wrong(c, "the node %llu/%llu is attached and not online",
			      (unsigned long long)p->tailnet, (unsigned long long)p->node);
		}
		present(c, skey_id3(&k, TABLE_SESSION, p->lighthouse, p->tailnet, p->node),
			p->tailnet, p->node);
	} else if (p->online && p->offline_ms == 0) {
		wrong(c, "the node %llu/%llu is online for ever", (unsigned long long)p->tailnet,
		      (unsigned long long)p->node);
	}
	if (kv_get(c->kv, skey_id2(&k, TABLE_NODE, p->tailnet, p->node), &v) < 0) {
		wrong(c, "the presence %llu/%llu has no node", (unsigned long long)p->tailnet,
		      (unsigned long long)p->node);
	}
	deadline(c, p->offline_ms, DEADLINE_PRESENCE, p->tailnet, p->node);
	deadline(c, p->remove_ms, DEADLINE_EPHEMERAL, p->tailnet, p->node);
}

static void check_endpoints(struct tailnet_check *c, const NodeEndpoints *e)
{
	struct skey k;

	if (tally(c, e->tailnet)->purging) {
		return;
	}
	changed(c, CHANGE_ENDPOINTS, e->tailnet, e->node, e->revision);
	if (e->disco_key.len == 32) {
		skey_bytes(&k, TABLE_BY_DISCO_KEY, e->disco_key.data, 32);
		skey_add_u64(&k, e->tailnet);
		skey_add_u64(&k, e->node);
		points_to(c, skey_slice(&k), e->tailnet, e->node);
	}
}

static void key_of_user(struct tailnet_check *c, uint64_t tailnet, uint64_t user, uint8_t kind,
			uint64_t id)
{
	struct slice v;
	struct skey k;

	if (user == 0) {
		return;
	}
	if (kv_get(c->kv, skey_id2(&k, TABLE_USER, tailnet, user), &v) < 0) {
		wrong(c, "the key %llu/%llu belongs to no user", (unsigned long long)tailnet,
		      (unsigned long long)id);
	}
	skey_id2(&k, TABLE_KEY_OF_USER, tailnet, user);
	skey_add_u8(&k, kind);
	skey_add_u64(&k, id);
	present(c, skey_slice(&k), tailnet, id);
}

static uint64_t token_due(const JoinTokenRecord *t)
{
	return t->expire_ms + 24 * LIM_JOIN_TOKEN_MS;
}

static void check_request(struct tailnet_check *c, uint64_t tailnet, struct slice key,
			  struct slice value)
{
	DedupeRecord *row;
	struct skey k;

	tally(c, tailnet)->requests++;
	if (rec_unpack(REC(dedupe_record), value, &c->arena, &row) < 0) {
		wrong(c, "the row of a request id cannot be read");
		return;
	}
	present(c, skey_deadline(&k, row->expire_ms, DEADLINE_REQUEST, tailnet, key.data, key.len),
		tailnet, row->id);
}

/* An entry of the one ordered index of deadlines. */
static void check_deadline(struct tailnet_check *c, struct slice key)
{
	enum { REST = 1 + 8 + 1 + 8 };
	const uint8_t *at = key.data;
	struct slice rest = {at + MIN(key.len, (size_t)REST), key.len - MIN(key.len, (size_t)REST)};
	uint64_t ms = 0, id;
	JoinTokenRecord *token;
	DedupeRecord *row;
	struct slice v;
	struct skey k;

	if (key.len < REST || !skey_get_u64(key, 1, &ms) || at[9] < DEADLINE_PRESENCE ||
	    at[9] > DEADLINE_PURGE || (at[9] <= DEADLINE_PENDING && rest.len != sizeof(uint64_t))) {
		wrong(c, "an entry of the deadlines makes no sense");
		return;
	}
	if (at[9] == DEADLINE_JOIN_TOKEN) {
		id = be_get64(rest.data);
		if (kv_get(c->kv, skey_id(&k, TABLE_JOIN_TOKEN, id), &v) == 0 &&
		    (rec_unpack(REC(join_token_record), v, &c->arena, &token) < 0 ||
		     token_due(token) != ms)) {
			wrong(c, "the join token %llu has another deadline",
			      (unsigned long long)id);
		}
	} else if (at[9] == DEADLINE_REQUEST || at[9] == DEADLINE_REST) {
		uint8_t table = at[9] == DEADLINE_REQUEST ? TABLE_REQUEST : TABLE_RESTING;

		if (skey_table(rest) != table) {
			wrong(c, "a deadline leads to no record of %s", table_name(table));
		} else if (table == TABLE_REQUEST && kv_get(c->kv, rest, &v) == 0 &&
			   (rec_unpack(REC(dedupe_record), v, &c->arena, &row) < 0 ||
			    row->expire_ms != ms)) {
			wrong(c, "the row of a request id has another deadline");
		}
	}
}

static void check_primary(struct tailnet_check *c, struct slice key, struct slice value)
{
	union {
		void *any;
		MemberRecord *member;
		TailnetRecord *tailnet;
		UserRecord *user;
		NodeRecord *node;
		NodeEndpoints *endpoints;
		Presence *presence;
		AuthKeyRecord *auth;
		ApiKeyRecord *api;
		PendingRecord *pending;
		JoinTokenRecord *token;
		Resting *resting;
	} r;
	const ProtobufCMessageDescriptor *desc = NULL;
	uint8_t table = skey_table(key);
	struct tally *t;
	struct skey k;

	switch (table) {
	case TABLE_MEMBER: desc = REC(member_record); break;
	case TABLE_TAILNET: desc = REC(tailnet_record); break;
	case TABLE_USER: desc = REC(user_record); break;
	case TABLE_NODE: desc = REC(node_record); break;
	case TABLE_ENDPOINTS: desc = REC(node_endpoints); break;
	case TABLE_PRESENCE: desc = REC(presence); break;
	case TABLE_AUTH_KEY: desc = REC(auth_key_record); break;
	case TABLE_API_KEY: desc = REC(api_key_record); break;
	case TABLE_PENDING: desc = REC(pending_record); break;
	case TABLE_JOIN_TOKEN: desc = REC(join_token_record); break;
	case TABLE_RESTING: desc = REC(resting); break;
	case TABLE_CA: tally(c, 0)->objects++; return;
	default: return;
	}
	if (rec_unpack(desc, value, &c->arena, &r.any) < 0) {
		wrong(c, "a record of the table %s cannot be read", table_name(table));
		return;
	}
	switch (table) {
	case TABLE_MEMBER: changed(c, CHANGE_MEMBER, 0, r.member->id, r.member->revision); break;
	case TABLE_TAILNET:
		check_id(c, r.tailnet->id);
		changed(c, CHANGE_TAILNET, r.tailnet->id, r.tailnet->id, r.tailnet->revision);
		points_to(c,
			  skey_bytes(&k, TABLE_BY_TAILNET_NAME, r.tailnet->name,
				     strlen(r.tailnet->name)),
			  r.tailnet->id, r.tailnet->id);
		break;
	case TABLE_USER:
		t = tally(c, r.user->tailnet);
		if (t->purging) {
			break;
		}
		t->users++;
		check_id(c, r.user->id);
		changed(c, CHANGE_USER, r.user->tailnet, r.user->id, r.user->revision);
		points_to(c, skey_id_str(&k, TABLE_BY_LOGIN, r.user->tailnet, r.user->login_name),
			  r.user->tailnet, r.user->id);
		break;
	case TABLE_NODE: check_node(c, key, r.node); break;
	case TABLE_ENDPOINTS: check_endpoints(c, r.endpoints); break;
	case TABLE_PRESENCE: check_presence(c, r.presence); break;
	case TABLE_AUTH_KEY:
		t = tally(c, r.auth->tailnet);
		if (t->purging) {
			break;
		}
		t->auth_keys++;
		changed(c, CHANGE_AUTH_KEY, r.auth->tailnet, r.auth->id, r.auth->revision);
		points_to(c, skey_id(&k, TABLE_BY_AUTH_KEY, r.auth->id), r.auth->tailnet,
			  r.auth->id);
		key_of_user(c, r.auth->tailnet, r.auth->user, CHANGE_AUTH_KEY, r.auth->id);
		/* Once expired and used, it stays as long as its node: the deadline moves, the record does not. */
		if (!r.auth->expired) {
			deadline(c, r.auth->expire_ms, DEADLINE_AUTH_KEY, r.auth->tailnet,
				 r.auth->id);
		}
		break;
	case TABLE_API_KEY:
		t = tally(c, r.api->tailnet);
		if (t->purging) {
			break;
		}
		t->api_keys++;
		changed(c, CHANGE_API_KEY, r.api->tailnet, r.api->id, r.api->revision);
		points_to(c, skey_id(&k, TABLE_BY_API_KEY, r.api->id), r.api->tailnet, r.api->id);
		key_of_user(c, r.api->tailnet, r.api->user, CHANGE_API_KEY, r.api->id);
		if (r.api->expire_ms != 0) {
			deadline(c, r.api->expire_ms + (r.api->expired ? LIM_KEY_KEEP_MS : 0),
				 DEADLINE_API_KEY, r.api->tailnet, r.api->id);
		}
		break;
	case TABLE_JOIN_TOKEN:
		deadline(c, token_due(r.token), DEADLINE_JOIN_TOKEN, 0, r.token->id);
		break;
	case TABLE_RESTING:
		present(c,
			skey_deadline(&k, r.resting->until_ms, DEADLINE_REST, 0, key.data, key.len),
			0, 0);
		break;
	case TABLE_PENDING: {
		uint8_t hash[32];

		t = tally(c, r.pending->tailnet);
		if (t->purging) {
			break;
		}
		changed(c, CHANGE_PENDING, r.pending->tailnet, r.pending->id, r.pending->revision);
		crypto_sha256(hash, r.pending->code, strlen(r.pending->code));
		points_to(c, skey_bytes(&k, TABLE_BY_CODE, hash, 32), r.pending->tailnet,
			  r.pending->id);
		deadline(c, r.pending->expire_ms, DEADLINE_PENDING, r.pending->tailnet,
			 r.pending->id);
		if (r.pending->verdict == 0) {
			t->pending++;
			skey_id(&k, TABLE_BY_PENDING_KEY, r.pending->tailnet);
			skey_add_bytes(&k, r.pending->node_key.data, r.pending->node_key.len);
			points_to(c, skey_slice(&k), r.pending->tailnet, r.pending->id);
		}
		break;
	}
	default: break;
	}
}

static void check_audit(struct tailnet_check *c, struct slice key, struct slice value)
{
	uint64_t tailnet = 0, sequence = 0;
	struct crypto_iov iov[2];
	uint8_t hash[32], *packed;
	ProtobufCBinaryData had;
	AuditRecord *a;
	TailnetHead *h;
	struct tally *t;

	IGNORE(skey_get_u64(key, 1, &tailnet));
	IGNORE(skey_get_u64(key, 9, &sequence));
	t = tally(c, tailnet);
	if (t->purging) {
		return;
	}
	if (rec_unpack(REC(audit_record), value, &c->arena, &a) < 0 ||
	    query_head(c->kv, tailnet, &c->arena, &h) < 0) {
		wrong(c, "an audit entry cannot be read");
		return;
	}
	if (t->audit_last == 0) {
		t->audit_first = sequence;
		if (h->audit_anchor.len == 32) {
			memcpy(t->audit_hash, h->audit_anchor.data, 32);
		}
	} else if (sequence != t->audit_last + 1) {
		wrong(c, "the audit chain of %llu lacks an entry before %llu",
		      (unsigned long long)tailnet, (unsigned long long)sequence);
	}
	t->audit_last = sequence;
	t->audit_bytes += key.len + value.len;
	had = a->hash;
	a->hash = (ProtobufCBinaryData){0, NULL};
	iov[1].len = protobuf_c_message_get_packed_size(&a->base);
	packed = mem_alloc(iov[1].len);
	protobuf_c_message_pack(&a->base, packed);
	iov[0] = (struct crypto_iov){t->audit_hash, 32};
	iov[1].data = packed;
	crypto_blake2bv(hash, iov, 2);
	mem_free(packed);
	if (had.len != 32 || memcmp(had.data, hash, 32) != 0) {
		wrong(c, "the audit entry %llu of tailnet %llu does not fit its chain",
		      (unsigned long long)sequence, (unsigned long long)tailnet);
	}
	memcpy(t->audit_hash, hash, 32);
}

static void check_other(struct tailnet_check *c, struct slice key, struct slice value)
{
	uint8_t table = skey_table(key);
	uint64_t tailnet = 0;
	struct tally *t;

	if (table >= TABLE_BY_TAILNET_NAME && table <= TABLE_BY_PENDING_KEY) {
		if (value.len != 16) {
			wrong(c, "an entry of %s has %zu bytes", table_name(table), value.len);
			return;
		}
		tally(c, be_get64(value.data))->by[table - INDEX_FIRST]++;
		return;
	}
	if (table == TABLE_DEADLINE) {
		check_deadline(c, key);
		return;
	}
	/* Sessions have the lighthouse first. */
	if (!skey_get_u64(key, table == TABLE_SESSION ? 9 : 1, &tailnet)) {
		return;
	}
	switch (table) {
	case TABLE_NODE_OF_USER:
	case TABLE_KEY_OF_USER:
	case TABLE_SESSION: tally(c, tailnet)->by[table - INDEX_FIRST]++; break;
	case TABLE_REQUEST: check_request(c, tailnet, key, value); break;
	case TABLE_TOMBSTONE: tally(c, tailnet)->tombstones++; break;
	case TABLE_HISTORY: {
		t = tally(c, tailnet);
		t->history_bytes += key.len + value.len;
		c->bytes += key.len + value.len;
		break;
	}
	case TABLE_CHANGE: {
		ChangeRecord *r;

		t = tally(c, tailnet);
		if (rec_unpack(REC(change_record), value, &c->arena, &r) < 0) {
			wrong(c, "an entry of the change index cannot be read");
		} else if (r->deleted) {
			t->deleted_changes++;
		} else {
			t->live_changes++;
		}
		break;
	}
	default: break;
	}
}

static void check_tally(struct tailnet_check *c, uint64_t tailnet, const struct tally *t)
{
	TailnetHead *h;

	if (t->purging) {
		return;
	}
	if (query_head(c->kv, tailnet, &c->arena, &h) < 0) {
		wrong(c, "the head of tailnet %llu cannot be read", (unsigned long long)tailnet);
		return;
	}
#define SAME(have, want, what)                                                               \
	do {                                                                                 \
		if ((have) != (want)) {                                                      \
			wrong(c, "tailnet %llu: %s: %llu instead of %llu",                   \
			      (unsigned long long)tailnet, what, (unsigned long long)(have), \
			      (unsigned long long)(want));                                   \
		}                                                                            \
	} while (0)
	SAME(h->node_count, t->nodes, "count of nodes");
	SAME(h->user_count, t->users, "count of users");
	SAME(h->auth_key_count, t->auth_keys, "count of auth keys");
	SAME(h->api_key_count, t->api_keys, "count of API keys");
	SAME(h->pending_count, t->pending, "count of those who wait");
	SAME(h->request_id_count, t->requests, "count of request ids");
	SAME(h->tombstone_count, t->tombstones, "count of tombstones");
	SAME(t->deleted_changes, t->tombstones, "deletions in the change index");
	SAME(t->live_changes, t->objects, "objects in the change index");
	SAME(h->history_bytes, t->history_bytes, "bytes of history");
	SAME(h->audit_last, t->audit_last, "end of the audit chain");
	if (t->audit_last != 0) {
		SAME(h->audit_first, t->audit_first, "start of the audit chain");
		SAME(h->audit_bytes, t->audit_bytes, "bytes of the audit chain");
		if (h->audit_hash.len != 32 || memcmp(h->audit_hash.data, t->audit_hash, 32) != 0) {
			wrong(c, "tailnet %llu: the audit chain has another end",
			      (unsigned long long)tailnet);
		}
	}
	for (int i = 0; i < INDEXES; i++) {
		SAME(t->by[i], t->want[i], table_name((uint8_t)(INDEX_FIRST + i)));
	}
#undef SAME
}

/* The tallies; true: all of them. */
static bool tallies_check(struct tailnet_check *c, size_t max)
{
	for (; max > 0 && c->r == 0; max--) {
		if (!map_next(&c->tallies, &c->it)) {
			return true;
		}
		check_tally(c, map_iter_u64(&c->it), c->it.value);
		arena_reset(&c->arena);
	}
	return false;
}

static void sums_check(struct tailnet_check *c)
{
	if (c->meta->digest.len != 32 || memcmp(c->meta->digest.data, c->digest, 32) != 0) {
		wrong(c, "the digest is not the sum of the %llu records",
		      (unsigned long long)c->records);
	} else if (c->meta->bytes != c->bytes) {
		wrong(c, "the size is %llu instead of %llu", (unsigned long long)c->meta->bytes,
		      (unsigned long long)c->bytes);
	}
}

static void record_check(struct tailnet_check *c, struct slice k, struct slice v)
{
	uint8_t table = skey_table(k);

	if (k.len > SKEY_MAX || !table_known(table)) {
		wrong(c, "a key of %zu bytes in the table 0x%02x", k.len, table);
		return;
	}
	/* Also what keeps damaged pages from leading round in circles. */
	if (c->at.len > 0 && slice_cmp(skey_slice(&c->at), k) >= 0) {
		wrong(c, "the keys of the table %s do not rise", table_name(table));
		return;
	}
	skey_bytes(&c->at, (enum table)table, (const uint8_t *)k.data + 1, k.len - 1);
	if (table_primary(table)) {
		digest_add(c->digest, k, v);
		c->bytes += k.len + v.len;
		c->records++;
	}
	if (table == TABLE_AUDIT) {
		check_audit(c, k, v);
	} else if (table_primary(table)) {
		check_primary(c, k, v);
	} else {
		check_other(c, k, v);
	}
	arena_reset(&c->arena);
}

/* Returns 0 or an error of the store; what is wrong is in c->r. */
static int walk(struct tailnet_check *c, size_t max)
{
	struct slice k, v;

	for (; max > 0 && c->r == 0; max--) {
		int r = kv_next(c->kv, skey_slice(&c->at), &k, &v);

		if (r == ERR_NOT_FOUND) {
			c->walked = true;
			return 0;
		}
		if (r < 0) {
			return r;
		}
		record_check(c, k, v);
	}
	return 0;
}

struct tailnet_check *tailnet_check_new(const struct kv *kv)
{
	struct tailnet_check *c = MEM_NEW(struct tailnet_check);

	c->kv = kv;
	arena_init(&c->meta_arena, 1 << 20);
	arena_init(&c->arena, TAILNET_ARENA_BYTES);
	map_init(&c->tallies);
	return c;
}

uint64_t tailnet_check_records(const struct tailnet_check *c)
{
	return c->records;
}

void tailnet_check_free(struct tailnet_check *c)
{
	struct map_iter it = {0};

	if (c == NULL) {
		return;
	}
	while (map_next(&c->tallies, &it)) {
		mem_free(it.value);
	}
	map_done(&c->tallies);
	arena_done(&c->arena);
	arena_done(&c->meta_arena);
	mem_free(c);
}

int tailnet_check_step(struct tailnet_check *c, size_t max_records, bool *ret_done, struct err *err)
{
	struct slice k, v;
	int r = 0;

	c->err = err;
	*ret_done = false;
	if (c->meta == NULL) {
		r = kv_next(c->kv, skey_slice(&c->at), &k, &v);
		if (r == ERR_NOT_FOUND) {
			*ret_done = true; /* no state yet */
			return 0;
		}
		if (r == 0 && query_meta(c->kv, &c->meta_arena, &c->meta) < 0) {
			c->meta = NULL;
			return wrong(c, "its own record cannot be read");
		}
	}
	if (r == 0 && !c->walked) {
		r = walk(c, max_records);
	} else if (r == 0 && tallies_check(c, max_records)) {
		sums_check(c);
		*ret_done = c->r == 0;
	}
	return r < 0 ? err_set(err, r, "the store cannot be read: %s", err_text(r)) : c->r;
}

int tailnet_check(const struct kv *kv, struct err *err)
{
	struct tailnet_check *c = tailnet_check_new(kv);
	bool done = false;
	int r = 0;

	while (r == 0 && !done) {
		r = tailnet_check_step(c, SIZE_MAX, &done, err);
	}
	tailnet_check_free(c);
	return r;
}
