#include "tailnet/state_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/crypto.h"
#include "base/enc.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/mem.h"

struct head_ref {
	struct head_ref *next;
	TailnetHead *head;
	bool dirty;
	bool gone;
};

/* ---- memory and texts ---- */

void *st_alloc(struct state *st, size_t size)
{
	void *p = arena_zalloc(&st->scratch, size);

	/* The budget is far above what the largest command takes: past it nothing sensible is left. */
	POST(p != NULL);
	return p;
}

static void *out_alloc(struct state *st, size_t size)
{
	void *p = arena_zalloc(st->out, size);

	if (p == NULL) {
		st_fail(st, ERR_LIMIT, "the arena of the apply is too small");
		p = st_alloc(st, size);
	}
	return p;
}

static char *vprint(char *(*alloc)(struct state *st, size_t n), struct state *st, const char *fmt,
		    va_list ap)
{
	va_list again;
	char *text;
	int n;

	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, ap);
	PRE(n >= 0);
	text = alloc(st, (size_t)n + 1);
	vsnprintf(text, (size_t)n + 1, fmt, again);
	va_end(again);
	return text;
}

static char *alloc_scratch(struct state *st, size_t n)
{
	return st_alloc(st, n);
}

static char *alloc_out(struct state *st, size_t n)
{
	return out_alloc(st, n);
}

char *st_printf(struct state *st, const char *fmt, ...)
{
	va_list ap;
	char *text;

	va_start(ap, fmt);
	text = vprint(alloc_scratch, st, fmt, ap);
	va_end(ap);
	return text;
}

char *st_out_printf(struct state *st, const char *fmt, ...)
{
	va_list ap;
	char *text;

	va_start(ap, fmt);
	text = vprint(alloc_out, st, fmt, ap);
	va_end(ap);
	return text;
}

ProtobufCBinaryData st_bytes(struct state *st, const void *data, size_t len)
{
	ProtobufCBinaryData b = {len, NULL};

	if (len > 0) {
		b.data = st_alloc(st, len);
		memcpy(b.data, data, len);
	}
	return b;
}

char *st_name(struct state *st, enum resource_kind kind, uint64_t tailnet, uint64_t id)
{
	char text[RESOURCE_TEXT];

	return st_printf(st, "%s", resource_format(kind, tailnet, id, text));
}

/* ---- verdicts ---- */

void st_fail(struct state *st, int code, const char *fmt, ...)
{
	char text[300];
	va_list ap;

	if (st->fail < 0) {
		return;
	}
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	st->fail = err_set(st->err, code, "%s", text);
}

int refuse(struct state *st, int code, const char *reason, const char *field, const char *fmt, ...)
{
	va_list ap;

	PRE(!st->writing || st->fail < 0);
	va_start(ap, fmt);
	st->reply->message = vprint(alloc_out, st, fmt, ap);
	va_end(ap);
	st->reply->code = code;
	st->reply->reason = st_out_printf(st, "%s", reason);
	st->reply->field = st_out_printf(st, "%s", field);
	return REFUSE;
}

void st_answer(struct state *st, enum resource_kind kind, uint64_t tailnet, uint64_t id)
{
	char text[RESOURCE_TEXT];

	st->reply->object = st_out_printf(st, "%s", resource_format(kind, tailnet, id, text));
	st->reply->id = id;
}

/* ---- reads ---- */

static bool read_ok(struct state *st, int r, struct slice key)
{
	if (r >= 0) {
		return true;
	}
	if (r != ERR_NOT_FOUND) {
		st_fail(st, r, "reading the table %s: %s", table_name(skey_table(key)),
			err_text(r));
	}
	return false;
}

bool st_raw_get(struct state *st, struct slice key, struct slice *ret_value)
{
	return st->fail == 0 && read_ok(st, kv_get(st->kv, key, ret_value), key);
}

bool st_raw_seek(struct state *st, struct slice key, struct slice *ret_key,
		 struct slice *ret_value)
{
	return st->fail == 0 && read_ok(st, kv_seek(st->kv, key, ret_key, ret_value), key);
}

bool st_raw_next(struct state *st, struct slice key, struct slice *ret_key,
		 struct slice *ret_value)
{
	return st->fail == 0 && read_ok(st, kv_next(st->kv, key, ret_key, ret_value), key);
}

void *st_get(struct state *st, struct slice key, const ProtobufCMessageDescriptor *desc)
{
	void *msg = NULL;

	if (st->fail == 0) {
		IGNORE(read_ok(st, rec_get(st->kv, key, desc, &st->scratch, &msg), key));
	}
	return msg;
}

bool st_has(struct state *st, struct slice key)
{
	struct slice v;

	return st_raw_get(st, key, &v);
}

bool st_index(struct state *st, struct slice key, uint64_t *ret_tailnet, uint64_t *ret_id)
{
	return st->fail == 0 && read_ok(st, rec_index(st->kv, key, ret_tailnet, ret_id), key);
}

MemberRecord *st_member(struct state *st, uint64_t id)
{
	struct skey k;

	return st_get(st, skey_id(&k, TABLE_MEMBER, id), REC(member_record));
}

TailnetRecord *st_tailnet(struct state *st, uint64_t id)
{
	struct skey k;

	return st_get(st, skey_id(&k, TABLE_TAILNET, id), REC(tailnet_record));
}

UserRecord *st_user(struct state *st, uint64_t tailnet, uint64_t id)
{
	struct skey k;

	return st_get(st, skey_id2(&k, TABLE_USER, tailnet, id), REC(user_record));
}

NodeRecord *st_node(struct state *st, uint64_t tailnet, uint64_t id)
{
	struct skey k;

	return st_get(st, skey_id2(&k, TABLE_NODE, tailnet, id), REC(node_record));
}

NodeEndpoints *st_endpoints(struct state *st, uint64_t tailnet, uint64_t node)
{
	struct skey k;

	return st_get(st, skey_id2(&k, TABLE_ENDPOINTS, tailnet, node), REC(node_endpoints));
}

Presence *st_presence(struct state *st, uint64_t tailnet, uint64_t node)
{
	struct skey k;

	return st_get(st, skey_id2(&k, TABLE_PRESENCE, tailnet, node), REC(presence));
}

AuthKeyRecord *st_auth_key(struct state *st, uint64_t tailnet, uint64_t id)
{
	struct skey k;

	return st_get(st, skey_id2(&k, TABLE_AUTH_KEY, tailnet, id), REC(auth_key_record));
}

ApiKeyRecord *st_api_key(struct state *st, uint64_t tailnet, uint64_t id)
{
	struct skey k;

	return st_get(st, skey_id2(&k, TABLE_API_KEY, tailnet, id), REC(api_key_record));
}

PendingRecord *st_pending(struct state *st, uint64_t tailnet, uint64_t id)
{
	struct skey k;

	return st_get(st, skey_id2(&k, TABLE_PENDING, tailnet, id), REC(pending_record));
}

static struct head_ref *head_ref(struct state *st, uint64_t tailnet)
{
	struct head_ref *h;
	struct skey k;

	for (h = st->heads; h != NULL; h = h->next) {
		if (h->head->tailnet == tailnet) {
			return h;
		}
	}
	h = st_alloc(st, sizeof(*h));
	h->head = st_get(st, skey_id(&k, TABLE_HEAD, tailnet), REC(tailnet_head));
	if (h->head == NULL) {
		h->head = st_alloc(st, sizeof(*h->head));
		skerry__internal__v1__tailnet_head__init(h->head);
		h->head->tailnet = tailnet;
	}
	h->next = st->heads;
	st->heads = h;
	return h;
}

TailnetHead *st_head(struct state *st, uint64_t tailnet)
{
	return head_ref(st, tailnet)->head;
}

void st_head_dirty(struct state *st, uint64_t tailnet)
{
	head_ref(st, tailnet)->dirty = true;
}

void st_head_drop(struct state *st, uint64_t tailnet)
{
	head_ref(st, tailnet)->gone = true;
}

/* ---- digest ---- */

static void record_hash(uint8_t out[32], struct slice key, struct slice value)
{
	uint8_t len[2];
	struct crypto_iov iov[3] = {{len, 2}, {key.data, key.len}, {value.data, value.len}};

	be_put16(len, (uint16_t)key.len);
	crypto_blake2bv(out, iov, 3);
}

void digest_add(uint8_t digest[32], struct slice key, struct slice value)
{
	uint8_t h[32];
	unsigned carry = 0;

	record_hash(h, key, value);
	for (int i = 0; i < 32; i++) {
		carry += (unsigned)digest[i] + h[i];
		digest[i] = (uint8_t)carry;
		carry >>= 8;
	}
}

void digest_sub(uint8_t digest[32], struct slice key, struct slice value)
{
	uint8_t h[32];
	int borrow = 0;

	record_hash(h, key, value);
	for (int i = 0; i < 32; i++) {
		int v = (int)digest[i] - h[i] - borrow;

		borrow = v < 0;
		digest[i] = (uint8_t)v;
	}
}

/* ---- raw writes ---- */

static void write_ok(struct state *st, int r, struct slice key)
{
	if (r < 0) {
		st_fail(st, r, "writing the table %s: %s", table_name(skey_table(key)),
			err_text(r));
	}
}

void st_raw_put(struct state *st, struct slice key, const void *data, size_t len)
{
	st->writing = true;
	if (st->fail == 0) {
		write_ok(st, kv_put(st->kv, key, (struct slice){data, len}), key);
	}
}

void st_raw_del(struct state *st, struct slice key)
{
	st->writing = true;
	if (st->fail == 0) {
		int r = kv_del(st->kv, key);

		write_ok(st, r == ERR_NOT_FOUND ? 0 : r, key);
	}
}

static struct slice pack(struct state *st, const void *msg)
{
	size_t len = protobuf_c_message_get_packed_size(msg);
	uint8_t *data = arena_alloc(&st->scratch, len);

	POST(data != NULL);
	protobuf_c_message_pack(msg, data);
	return (struct slice){data, len};
}

void st_msg_put(struct state *st, struct slice key, const void *msg)
{
	struct slice v = pack(st, msg);

	st_raw_put(st, key, v.data, v.len);
}

void st_index_put(struct state *st, struct slice key, uint64_t tailnet, uint64_t id)
{
	uint8_t b[16];

	be_put64(b, tailnet);
	be_put64(b + 8, id);
	st_raw_put(st, key, b, sizeof(b));
}

void st_deadline_put(struct state *st, uint64_t ms, enum deadline kind, uint64_t tailnet,
		     uint64_t id)
{
	struct skey k;

	if (ms != 0) {
		st_raw_put(st, skey_deadline_id(&k, ms, kind, tailnet, id), "", 0);
	}
}

void st_deadline_del(struct state *st, uint64_t ms, enum deadline kind, uint64_t tailnet,
		     uint64_t id)
{
	struct skey k;

	if (ms != 0) {
		st_raw_del(st, skey_deadline_id(&k, ms, kind, tailnet, id));
	}
}

/* ---- change index ---- */

static void change_report(struct state *st, const struct change_of *c, bool deleted)
{
	struct change *at = NULL;

	/* A command that touches one object twice says so once. */
	for (size_t i = st->n_changes; i > 0 && i + 4 > st->n_changes && at == NULL; i--) {
		struct change *e = &st->changes[i - 1];

		if (e->kind == c->kind && e->object == c->object && e->tailnet == c->tailnet) {
			at = e;
		}
	}
	if (at == NULL) {
		if (st->n_changes == st->cap_changes) {
			size_t cap = st->cap_changes > 0 ? 2 * st->cap_changes : 8;
			struct change *bigger = out_alloc(st, cap * sizeof(*bigger));

			if (st->n_changes > 0) {
				memcpy(bigger, st->changes, st->n_changes * sizeof(*bigger));
			}
			st->changes = bigger;
			st->cap_changes = cap;
		}
		at = &st->changes[st->n_changes++];
		*at = (struct change){.tailnet = c->tailnet, .object = c->object, .kind = c->kind};
	}
	at->revision = st->revision;
	at->deleted = deleted;
	at->visibility = at->visibility || c->visibility;
}

static void tombstone_put(struct state *st, const struct change_of *c)
{
	TailnetHead *h = st_head(st, c->tailnet);
	uint8_t b[8];
	struct skey k;

	be_put64(b, st->now);
	st_raw_put(st,
		   skey_change(&k, TABLE_TOMBSTONE, c->tailnet, st->revision, (uint8_t)c->kind,
			       c->object),
		   b, sizeof(b));
	if (h->tombstone_count++ == 0) {
		st_raw_put(st,
			   skey_deadline(&k, st->now + LIM_TOMBSTONE_MS, DEADLINE_TOMBSTONES,
					 c->tailnet, NULL, 0),
			   "", 0);
	}
	st_head_dirty(st, c->tailnet);
	if (h->tombstone_count > LIM_TOMBSTONES) {
		uint64_t next;

		/* The deadline that is there still comes, early, and finds the next one. */
		st_trim_tombstones(st, c->tailnet, 2, &next);
	}
}

static void change_put(struct state *st, const struct change_of *c, bool deleted, bool keep)
{
	struct skey k;

	if (c == NULL || c->kind == 0) {
		return;
	}
	if (c->old_revision != 0 && c->old_revision != st->revision) {
		st_raw_del(st, skey_change(&k, TABLE_CHANGE, c->tailnet, c->old_revision,
					   (uint8_t)c->kind, c->object));
	}
	if (keep) {
		ChangeRecord r;

		skerry__internal__v1__change_record__init(&r);
		r.tailnet = c->tailnet;
		r.revision = st->revision;
		r.kind = c->kind;
		r.object = c->object;
		r.deleted = deleted;
		r.visibility = c->visibility;
		r.time_ms = st->now;
		st_msg_put(st,
			   skey_change(&k, TABLE_CHANGE, c->tailnet, st->revision,
				       (uint8_t)c->kind, c->object),
			   &r);
	} else if (c->old_revision == st->revision) {
		st_raw_del(st, skey_change(&k, TABLE_CHANGE, c->tailnet, st->revision,
					   (uint8_t)c->kind, c->object));
	}
	if (keep && deleted) {
		tombstone_put(st, c);
	}
	if (c->visibility) {
		st_head(st, c->tailnet)->last_visibility_revision = st->revision;
		st_head_dirty(st, c->tailnet);
	}
	change_report(st, c, deleted);
}

size_t st_trim_tombstones(struct state *st, uint64_t tailnet, size_t budget, uint64_t *ret_next)
{
	TailnetHead *h = st_head(st, tailnet);
	struct skey prefix, key;
	size_t done = 0;
	uint64_t next = 0;

	skey_id(&prefix, TABLE_TOMBSTONE, tailnet);
	for (;;) {
		struct slice k, v;
		uint64_t at;

		if (!st_raw_seek(st, skey_slice(&prefix), &k, &v) ||
		    !skey_has_prefix(k, skey_slice(&prefix)) || k.len != 26 || v.len != 8) {
			break;
		}
		at = be_get64(v.data);
		if (h->tombstone_count <= LIM_TOMBSTONES && at + LIM_TOMBSTONE_MS > st->now) {
			next = at + LIM_TOMBSTONE_MS;
			break;
		}
		if (done == budget) {
			next = st->now;
			break;
		}
		h->change_floor = MAX(h->change_floor, be_get64((const uint8_t *)k.data + 9));
		skey_bytes(&key, TABLE_TOMBSTONE, (const uint8_t *)k.data + 1, k.len - 1);
		st_raw_del(st, skey_slice(&key));
		key.data[0] = TABLE_CHANGE;
		st_raw_del(st, skey_slice(&key));
		h->tombstone_count--;
		done++;
	}
	st_head_dirty(st, tailnet);
	*ret_next = next;
	return done;
}

/* ---- history ---- */

static struct slice history_key(struct skey *k, uint64_t tailnet, struct slice key,
				uint64_t revision)
{
	skey_id(k, TABLE_HISTORY, tailnet);
	skey_add_u16(k, (uint16_t)key.len);
	skey_add_bytes(k, key.data, key.len);
	skey_add_u64(k, revision);
	return skey_slice(k);
}

static void history_put(struct state *st, uint64_t tailnet, struct slice key, bool existed,
			struct slice old)
{
	struct skey hk, qk;
	HistoryRecord r;
	TailnetHead *h;
	uint8_t b[16];
	struct slice v;
	uint64_t bytes;

	history_key(&hk, tailnet, key, st->revision);
	if (st_has(st, skey_slice(&hk))) {
		return; /* a second write of one command: the value before the command stays */
	}
	skerry__internal__v1__history_record__init(&r);
	r.existed = existed;
	r.time_ms = st->now;
	if (existed) {
		r.value.data = (uint8_t *)old.data;
		r.value.len = old.len;
	}
	v = pack(st, &r);
	bytes = hk.len + v.len;
	st_raw_put(st, skey_slice(&hk), v.data, v.len);

	skey_id2(&qk, TABLE_HISTORY_QUEUE, tailnet, st->revision);
	skey_add_bytes(&qk, key.data, key.len);
	be_put64(b, st->now);
	be_put64(b + 8, bytes);
	st_raw_put(st, skey_slice(&qk), b, sizeof(b));

	h = st_head(st, tailnet);
	if (h->history_bytes == 0) {
		st_raw_put(st,
			   skey_deadline(&qk, st->now + LIM_HISTORY_MS, DEADLINE_HISTORY, tailnet,
					 NULL, 0),
			   "", 0);
	} else if (h->history_bytes <= LIM_HISTORY_BYTES &&
		   h->history_bytes + bytes > LIM_HISTORY_BYTES) {
		st_raw_put(st, skey_deadline(&qk, st->now, DEADLINE_HISTORY, tailnet, NULL, 0), "",
			   0);
	}
	h->history_bytes += bytes;
	st->meta->bytes += bytes;
	st_head_dirty(st, tailnet);
}

size_t st_trim_history(struct state *st, uint64_t tailnet, size_t budget, uint64_t *ret_next)
{
	TailnetHead *h = st_head(st, tailnet);
	struct skey prefix, qk, hk;
	size_t done = 0;
	uint64_t next = 0;

	skey_id(&prefix, TABLE_HISTORY_QUEUE, tailnet);
	for (;;) {
		struct slice k, v;
		uint64_t at, bytes, revision;

		if (!st_raw_seek(st, skey_slice(&prefix), &k, &v) ||
		    !skey_has_prefix(k, skey_slice(&prefix)) || k.len < 18 || v.len != 16) {
			break;
		}
		at = be_get64(v.data);
		bytes = be_get64((const uint8_t *)v.data + 8);
		if (h->history_bytes <= LIM_HISTORY_BYTES && at + LIM_HISTORY_MS > st->now) {
			next = at + LIM_HISTORY_MS;
			break;
		}
		if (done == budget) {
			next = st->now;
			break;
		}
		revision = be_get64((const uint8_t *)k.data + 9);
		skey_bytes(&qk, TABLE_HISTORY_QUEUE, (const uint8_t *)k.data + 1, k.len - 1);
		history_key(&hk, tailnet, (struct slice){qk.data + 17, qk.len - 17u}, revision);
		st_raw_del(st, skey_slice(&qk));
		st_raw_del(st, skey_slice(&hk));
		h->history_bytes -= MIN(h->history_bytes, bytes);
		st->meta->bytes -= MIN(st->meta->bytes, bytes);
		h->history_floor = revision;
		done++;
	}
	st_head_dirty(st, tailnet);
	*ret_next = next;
	return done;
}

/* ---- records ---- */

void state_put(struct state *st, struct slice key, const void *msg, const struct change_of *c)
{
	struct slice old = {NULL, 0};
	struct slice v;
	bool existed;

	PRE(table_primary(skey_table(key)));
	st->writing = true;
	v = pack(st, msg);
	existed = st_raw_get(st, key, &old);
	if (st->fail < 0) {
		return;
	}
	if (existed) {
		digest_sub(st->digest, key, old);
		st->meta->bytes -= key.len + old.len;
	}
	digest_add(st->digest, key, v);
	st->meta->bytes += key.len + v.len;
	if (c != NULL && c->kind != 0 && table_history(skey_table(key))) {
		history_put(st, c->tailnet, key, existed, old);
	}
	st_raw_put(st, key, v.data, v.len);
	change_put(st, c, false, true);
}

void state_del(struct state *st, struct slice key, const struct change_of *c, bool tombstone)
{
	struct slice old;

	PRE(table_primary(skey_table(key)));
	st->writing = true;
	if (!st_raw_get(st, key, &old)) {
		return;
	}
	digest_sub(st->digest, key, old);
	st->meta->bytes -= key.len + old.len;
	if (c != NULL && c->kind != 0 && tombstone && table_history(skey_table(key))) {
		history_put(st, c->tailnet, key, true, old);
	}
	st_raw_del(st, key);
	change_put(st, c, true, tombstone);
}

uint64_t st_next_id(struct state *st)
{
	/* 2^53 ids at a million a second last 285 years. */
	PRE(st->meta->last_id < LIM_ID_MAX);
	return ++st->meta->last_id;
}

/* The six kinds of records differ in table and kind only. */
#define PUT_RECORD(st, table, kind_, tailnet_, object_, rec, visible_)                        \
	do {                                                                                      \
		struct skey k_;                                                                   \
		struct change_of c_ = {                                                           \
			.tailnet = (tailnet_),                                                    \
			.object = (object_),                                                      \
			.old_revision = (rec)->revision,                                          \
			.kind = (kind_),                                                          \
			.visibility = (visible_),                                              \
		};                                                                                \
		(rec)->revision = (st)->revision;                                                 \
		state_put(st, skey_id2(&k_, table, tailnet_, object_), rec, &c_);                 \
	} while (0)

void st_put_member(struct state *st, MemberRecord *m)
{
	struct change_of c = {
		.object = m->id, .old_revision = m->revision, .kind = CHANGE_MEMBER};
	struct skey k;

	m->revision = st->revision;
	state_put(st, skey_id(&k, TABLE_MEMBER, m->id), m, &c);
}

void st_put_tailnet(struct state *st, TailnetRecord *t, bool visibility)
{
	struct change_of c = {
		.tailnet = t->id,
		.object = t->id,
		.old_revision = t->revision,
		.kind = CHANGE_TAILNET,
		.visibility = visibility,
	};
	struct skey k;

	t->revision = st->revision;
	state_put(st, skey_id(&k, TABLE_TAILNET, t->id), t, &c);
}

void st_put_user(struct state *st, UserRecord *u, bool visibility)
{
	PUT_RECORD(st, TABLE_USER, CHANGE_USER, u->tailnet, u->id, u, visibility);
}

void st_put_node(struct state *st, NodeRecord *n, bool visibility)
{
	PUT_RECORD(st, TABLE_NODE, CHANGE_NODE, n->tailnet, n->id, n, visibility);
}

void st_put_endpoints(struct state *st, NodeEndpoints *e)
{
	PUT_RECORD(st, TABLE_ENDPOINTS, CHANGE_ENDPOINTS, e->tailnet, e->node, e, false);
}

void st_put_presence(struct state *st, Presence *p, bool seen)
{
	struct skey k;

	if (seen) {
		PUT_RECORD(st, TABLE_PRESENCE, CHANGE_PRESENCE, p->tailnet, p->node, p, false);
	} else {
		state_put(st, skey_id2(&k, TABLE_PRESENCE, p->tailnet, p->node), p, NULL);
	}
}

void st_put_auth_key(struct state *st, AuthKeyRecord *key)
{
	PUT_RECORD(st, TABLE_AUTH_KEY, CHANGE_AUTH_KEY, key->tailnet, key->id, key, false);
}

void st_put_api_key(struct state *st, ApiKeyRecord *key)
{
	PUT_RECORD(st, TABLE_API_KEY, CHANGE_API_KEY, key->tailnet, key->id, key, false);
}

void st_put_pending(struct state *st, PendingRecord *p)
{
	PUT_RECORD(st, TABLE_PENDING, CHANGE_PENDING, p->tailnet, p->id, p, false);
}

/* ---- audit ---- */

static char *actor_text(struct state *st)
{
	const Actor *a = st->cmd->actor;

	if (a == NULL) {
		return st_printf(st, "system");
	}
	switch (a->kind) {
	case SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_UNIX:
		return st_printf(st, "unix:%llu", (unsigned long long)a->id);
	case SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_API_KEY:
		return st_printf(st, "api-key:%llu", (unsigned long long)a->id);
	case SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_DEVICE:
		return st_printf(st, "device:%llu", (unsigned long long)a->id);
	case SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_LIGHTHOUSE:
		return st_printf(st, "lighthouse:%llu", (unsigned long long)a->id);
	case SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_ANONYMOUS:
		return st_printf(st, "anonymous");
	default:
		return st_printf(st, "system");
	}
}

/* Drops the oldest lines while the chain is too long; the hash before the first kept one is the anchor. */
static void audit_trim(struct state *st, TailnetHead *h)
{
	struct skey k;

	for (int i = 0; i < 4 && h->audit_bytes > LIM_TAILNET_AUDIT_BYTES &&
			h->audit_first < h->audit_last;
	     i++) {
		struct slice v;
		AuditRecord *r;

		skey_id2(&k, TABLE_AUDIT, h->tailnet, h->audit_first);
		if (!st_raw_get(st, skey_slice(&k), &v)) {
			return;
		}
		h->audit_bytes -= MIN(h->audit_bytes, k.len + v.len);
		r = st_get(st, skey_slice(&k), REC(audit_record));
		if (r == NULL) {
			return;
		}
		h->audit_anchor = st_bytes(st, r->hash.data, r->hash.len);
		h->audit_first++;
		state_del(st, skey_slice(&k), NULL, false);
	}
}

void st_audit(struct state *st, uint64_t tailnet, const char *action, const char *target,
	      const char *detail_fmt, ...)
{
	static const uint8_t zero[32];
	TailnetHead *h = st_head(st, tailnet);
	struct crypto_iov iov[2];
	uint8_t hash[32];
	AuditRecord r;
	struct slice v;
	struct skey k;
	va_list ap;

	st->writing = true;
	skerry__internal__v1__audit_record__init(&r);
	va_start(ap, detail_fmt);
	r.detail = vprint(alloc_scratch, st, detail_fmt, ap);
	va_end(ap);
	r.tailnet = tailnet;
	r.sequence = h->audit_last + 1;
	r.time_ms = st->now;
	r.actor = actor_text(st);
	r.action = (char *)action;
	r.target = (char *)target;
	r.reason = st->cmd->reason;
	r.revision = st->revision;
	r.lighthouse = st->cmd->lighthouse;

	if (h->audit_last == 0) {
		h->audit_first = 1;
		h->audit_anchor = st_bytes(st, zero, sizeof(zero));
		h->audit_hash = h->audit_anchor;
	}
	v = pack(st, &r);
	iov[0] = (struct crypto_iov){h->audit_hash.data, h->audit_hash.len};
	iov[1] = (struct crypto_iov){v.data, v.len};
	crypto_blake2bv(hash, iov, 2);
	r.hash.data = hash;
	r.hash.len = sizeof(hash);
	skey_id2(&k, TABLE_AUDIT, tailnet, r.sequence);
	state_put(st, skey_slice(&k), &r, NULL);
	h->audit_hash = st_bytes(st, hash, sizeof(hash));
	h->audit_last = r.sequence;
	h->audit_bytes += k.len + protobuf_c_message_get_packed_size(&r.base);
	st_head_dirty(st, tailnet);
	audit_trim(st, h);
}

/* ---- start and end ---- */

void st_init(struct state *st, const struct kv *kv, const Command *cmd,
	     const struct apply_context *ctx, struct arena *out, struct err *err,
	     CommandResult *reply)
{
	struct skey k;

	*st = (struct state){
		.kv = kv, .cmd = cmd, .ctx = ctx, .out = out, .err = err, .reply = reply};
	arena_init(&st->scratch, STATE_SCRATCH_BYTES);
	skerry__internal__v1__command_result__init(reply);
	skey_init(&k, TABLE_META);
	st->meta = st_get(st, skey_slice(&k), REC(meta));
	if (st->meta == NULL) {
		st->meta_missing = true;
		st->meta = st_alloc(st, sizeof(*st->meta));
		skerry__internal__v1__meta__init(st->meta);
	}
	if (st->meta->digest.len == 32) {
		memcpy(st->digest, st->meta->digest.data, 32);
	}
	st->now = MAX(st->meta->time_ms, ctx->time_ms);
	st->revision = st->meta->revision + 1;
	if (ctx->leader_gap) {
		st->meta->leader_since_ms = st->now;
	}
}

void st_finish(struct state *st, bool accepted, bool repeated)
{
	struct skey k;

	for (struct head_ref *h = st->heads; h != NULL; h = h->next) {
		if (h->gone) {
			st_raw_del(st, skey_id(&k, TABLE_HEAD, h->head->tailnet));
		} else if (h->dirty) {
			st_msg_put(st, skey_id(&k, TABLE_HEAD, h->head->tailnet), h->head);
		}
	}
	if (accepted) {
		st->meta->revision = st->revision;
	}
	st->meta->time_ms = st->now;
	st->meta->raft_index = MAX(st->meta->raft_index, st->ctx->raft_index);
	st->meta->digest.data = st->digest;
	st->meta->digest.len = sizeof(st->digest);
	if (!repeated) {
		st->reply->epoch = st->meta->epoch;
		st->reply->revision = st->meta->revision;
	}
	skey_init(&k, TABLE_META);
	st_msg_put(st, skey_slice(&k), st->meta);
}

void st_done(struct state *st)
{
	arena_done(&st->scratch);
}
