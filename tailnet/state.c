#include "tailnet/state_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/crypto.h"
#include "base/enc.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/mem.h"

/* ---- memory and texts ---- */

void *st_alloc(struct state *st, size_t size)
{
	void *p = arena_zalloc(st->scratch, size);

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
	char usual[256], *text;
	va_list again;
	int n;

	va_copy(again, ap);
	n = vsnprintf(usual, sizeof(usual), fmt, ap);
	PRE(n >= 0);
	text = alloc(st, (size_t)n + 1);
	if ((size_t)n < sizeof(usual)) {
		memcpy(text, usual, (size_t)n + 1);
	} else {
		vsnprintf(text, (size_t)n + 1, fmt, again);
	}
	va_end(again);
	return text;
}

static char *alloc_scratch(struct state *st, size_t n)
{
	return st_alloc(st, n);
}

char *st_vprintf(struct state *st, const char *fmt, va_list ap)
{
	return vprint(alloc_scratch, st, fmt, ap);
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

char *st_out_text(struct state *st, const char *text)
{
	size_t size = strlen(text) + 1;

	return memcpy(out_alloc(st, size), text, size);
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

	char *name = arena_strdup(st->scratch, resource_format(kind, tailnet, id, text));

	POST(name != NULL);
	return name;
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
	st->reply->reason = st_out_text(st, reason);
	st->reply->field = st_out_text(st, field);
	return REFUSE;
}

void st_answer(struct state *st, enum resource_kind kind, uint64_t tailnet, uint64_t id)
{
	char text[RESOURCE_TEXT];

	st->reply->object = st_out_text(st, resource_format(kind, tailnet, id, text));
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

bool st_raw_seek(struct state *st, struct slice key, struct slice *ret_key, struct slice *ret_value)
{
	return st->fail == 0 && read_ok(st, kv_seek(st->kv, key, ret_key, ret_value), key);
}

bool st_raw_next(struct state *st, struct slice key, struct slice *ret_key, struct slice *ret_value)
{
	return st->fail == 0 && read_ok(st, kv_next(st->kv, key, ret_key, ret_value), key);
}

bool st_raw_prev(struct state *st, struct slice key, struct slice *ret_key, struct slice *ret_value)
{
	return st->fail == 0 && read_ok(st, kv_prev(st->kv, key, ret_key, ret_value), key);
}

void *st_get(struct state *st, struct slice key, const ProtobufCMessageDescriptor *desc)
{
	void *msg = NULL;
	struct slice v;

	if (!st_raw_get(st, key, &v) || !read_ok(st, rec_unpack(desc, v, st->scratch, &msg), key)) {
		return NULL;
	}
	if (table_history(skey_table(key))) {
		skey_bytes(&st->read_key, skey_table(key), (const uint8_t *)key.data + 1,
			   key.len - 1);
		st->read_value = v;
	}
	return msg;
}

/* What the record holds so far. */
static bool old_value(struct state *st, struct slice key, struct slice *ret)
{
	if (st->read_value.data != NULL && key.len == st->read_key.len &&
	    memcmp(key.data, st->read_key.data, key.len) == 0) {
		*ret = st->read_value;
		return true;
	}
	return st_raw_get(st, key, ret);
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
	uint64_t carry = 0;

	record_hash(h, key, value);
	for (int i = 0; i < 32; i += 8) {
		uint64_t a = le_get64(digest + i), sum = a + le_get64(h + i);
		uint64_t over = sum < a;

		sum += carry;
		carry = over | (sum < carry);
		le_put64(digest + i, sum);
	}
}

void digest_sub(uint8_t digest[32], struct slice key, struct slice value)
{
	uint8_t h[32];
	uint64_t borrow = 0;

	record_hash(h, key, value);
	for (int i = 0; i < 32; i += 8) {
		uint64_t a = le_get64(digest + i), b = le_get64(h + i), v = a - b;
		uint64_t under = (a < b) | (v < borrow);

		le_put64(digest + i, v - borrow);
		borrow = under;
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

/*
 * Before the first write all is decided: who only wants to be judged leaves here, with the reply as it is. All memory of a
 * command is in arenas, so nothing is left behind.
 */
void st_write_begin(struct state *st)
{
	if (st->ctx->judge_only && st->fail == 0) {
		longjmp(st->judged, 1);
	}
	st->writing = true;
}

void st_raw_put(struct state *st, struct slice key, const void *data, size_t len)
{
	st_write_begin(st);
	st->read_value.data = NULL;
	if (st->fail == 0) {
		write_ok(st, kv_put(st->kv, key, (struct slice){data, len}), key);
	}
}

void st_raw_del(struct state *st, struct slice key)
{
	st_write_begin(st);
	st->read_value.data = NULL;
	if (st->fail == 0) {
		int r = kv_del(st->kv, key);

		write_ok(st, r == ERR_NOT_FOUND ? 0 : r, key);
	}
}

struct slice st_pack(struct state *st, const void *msg)
{
	struct slice v = st_encode(st, msg);

	v.data = arena_memdup(st->scratch, v.data, v.len);
	POST(v.data != NULL);
	return v;
}

void st_msg_put(struct state *st, struct slice key, const void *msg)
{
	struct slice v = st_encode(st, msg);

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
			   skey_change(&k, TABLE_CHANGE, c->tailnet, st->revision, (uint8_t)c->kind,
				       c->object),
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

/* ---- records ---- */

void state_put(struct state *st, struct slice key, const void *msg, const struct change_of *c)
{
	struct slice old = {NULL, 0};
	struct slice v;
	bool existed;

	PRE(table_primary(skey_table(key)));
	st_write_begin(st);
	v = st_pack(st, msg);
	st->members_put |= skey_table(key) == TABLE_MEMBER;
	existed = old_value(st, key, &old);
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
		st_history_put(st, c->tailnet, key, existed, old);
	}
	st_raw_put(st, key, v.data, v.len);
	change_put(st, c, false, true);
}

void state_put_new(struct state *st, struct slice key, struct slice v)
{
	PRE(table_primary(skey_table(key)));
	st_write_begin(st);
	if (st->fail == 0) {
		digest_add(st->digest, key, v);
		st->meta->bytes += key.len + v.len;
		st_raw_put(st, key, v.data, v.len);
	}
}

void state_del(struct state *st, struct slice key, const struct change_of *c, bool tombstone)
{
	struct slice old;

	PRE(table_primary(skey_table(key)));
	st_write_begin(st);
	if (!old_value(st, key, &old)) {
		return;
	}
	digest_sub(st->digest, key, old);
	st->meta->bytes -= key.len + old.len;
	if (c != NULL && c->kind != 0 && tombstone && table_history(skey_table(key))) {
		st_history_put(st, c->tailnet, key, true, old);
	}
	if (skey_table(key) == TABLE_TAILNET) {
		st_tailnet_gone(st, key);
	}
	st->members_put |= skey_table(key) == TABLE_MEMBER;
	st_raw_del(st, key);
	change_put(st, c, true, tombstone);
}
