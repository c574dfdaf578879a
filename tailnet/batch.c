/*
 * What most commands touch, kept in memory over the commands of an entry: Meta, the heads of tailnets, the origins of
 * commands. They are records without history and outside of the digest, so that only the last value counts.
 */
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "tailnet/state_int.h"

enum {
	ANSWERS_TIDIED = 64, /* per answer that was kept: suffices to keep up */
	ENCODED_FIRST = 4096,
};

struct head_ref {
	struct head_ref *next;
	TailnetHead *head;
	bool there; /* the tailnet has a record */
	bool dirty;
	bool gone;
};

struct tailnet_batch {
	const struct kv *kv;
	struct arena kept;    /* until the end */
	struct arena scratch; /* of one command */
	Meta *meta;           /* NULL: not read yet */
	bool meta_missing, meta_dirty;
	uint8_t digest[32];
	struct head_ref *heads;
	struct origin *origins, *spare;
	uint8_t *encoded; /* what st_encode() gave last */
	size_t encoded_size;
};

struct tailnet_batch *tailnet_batch_new(const struct kv *kv)
{
	struct tailnet_batch *b = MEM_NEW(struct tailnet_batch);

	b->kv = kv;
	arena_init(&b->kept, STATE_SCRATCH_BYTES);
	arena_init(&b->scratch, STATE_SCRATCH_BYTES);
	return b;
}

void tailnet_batch_free(struct tailnet_batch *b)
{
	if (b != NULL) {
		arena_done(&b->kept);
		arena_done(&b->scratch);
		mem_free(b->encoded);
		mem_free(b);
	}
}

static void *kept_alloc(struct state *st, size_t size)
{
	void *p = arena_zalloc(&st->batch->kept, size);

	POST(p != NULL);
	return p;
}

struct slice st_encode(struct state *st, const void *msg)
{
	struct tailnet_batch *b = st->batch;
	size_t len = protobuf_c_message_get_packed_size(msg);

	if (b->encoded == NULL || len > b->encoded_size) {
		mem_free(b->encoded);
		b->encoded_size = MAX(2 * len, (size_t)ENCODED_FIRST);
		b->encoded = mem_alloc(b->encoded_size);
	}
	protobuf_c_message_pack(msg, b->encoded);
	return (struct slice){b->encoded, len};
}

/* As st_get(), for the time of the batch. */
static void *kept_get(struct state *st, struct slice key, const ProtobufCMessageDescriptor *desc)
{
	struct arena *scratch = st->scratch;
	void *msg;

	st->scratch = &st->batch->kept;
	msg = st_get(st, key, desc);
	st->scratch = scratch;
	return msg;
}

/* ---- heads ---- */

static struct head_ref *head_find(const struct state *st, uint64_t tailnet)
{
	struct head_ref *h = st->batch->heads;

	while (h != NULL && h->head->tailnet != tailnet) {
		h = h->next;
	}
	return h;
}

static struct head_ref *head_ref(struct state *st, uint64_t tailnet)
{
	struct head_ref *h = head_find(st, tailnet);
	struct skey k;

	if (h != NULL) {
		return h;
	}
	h = kept_alloc(st, sizeof(*h));
	h->head = kept_get(st, skey_id(&k, TABLE_HEAD, tailnet), REC(tailnet_head));
	if (h->head == NULL) {
		h->head = kept_alloc(st, sizeof(*h->head));
		skerry__internal__v1__tailnet_head__init(h->head);
		h->head->tailnet = tailnet;
	}
	h->next = st->batch->heads;
	st->batch->heads = h;
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

void st_head_hash(struct state *st, ProtobufCBinaryData *field, const uint8_t hash[32])
{
	if (field->len != 32) {
		field->data = kept_alloc(st, 32);
		field->len = 32;
	}
	memcpy(field->data, hash, 32);
}

bool st_tailnet_there(struct state *st, uint64_t id)
{
	struct head_ref *h = head_find(st, id);
	struct skey k;

	if (h == NULL || !h->there) {
		bool there = st_has(st, skey_id(&k, TABLE_TAILNET, id));

		if (h == NULL) {
			return there;
		}
		h->there = there;
	}
	return h->there;
}

void st_tailnet_gone(struct state *st, struct slice key)
{
	struct head_ref *h;
	uint64_t id;

	if (skey_get_u64(key, 1, &id) && (h = head_find(st, id)) != NULL) {
		h->there = false;
	}
}

/* ---- origins ---- */

/* The highest sequence that has an answer here: none above it needs a search. */
static uint64_t answers_last(struct state *st, const struct origin *o)
{
	struct skey prefix, end;
	struct slice key, v;
	uint64_t last = 0;

	skey_id2(&prefix, TABLE_ORIGIN_ANSWER, o->lighthouse, o->incarnation);
	skey_id3(&end, TABLE_ORIGIN_ANSWER, o->lighthouse, o->incarnation, UINT64_MAX);
	skey_add_u8(&end, 0); /* above the last one there can be */
	if (st_raw_prev(st, skey_slice(&end), &key, &v) &&
	    skey_has_prefix(key, skey_slice(&prefix))) {
		IGNORE(skey_get_u64(key, 17, &last));
	}
	return last;
}

struct origin *st_origin(struct state *st, uint64_t lighthouse, uint64_t incarnation)
{
	struct tailnet_batch *b = st->batch;
	struct origin *o;
	OriginRecord *r;
	MemberRecord *m;
	struct skey k;

	for (o = b->origins; o != NULL; o = o->next) {
		if (o->lighthouse == lighthouse && o->incarnation == incarnation) {
			return o;
		}
	}
	m = st_member(st, lighthouse);
	r = st_get(st, skey_id2(&k, TABLE_ORIGIN, lighthouse, incarnation), REC(origin_record));
	o = b->spare;
	if (o != NULL) {
		b->spare = o->next;
	} else {
		o = kept_alloc(st, sizeof(*o));
	}
	*o = (struct origin){
		.next = b->origins, .lighthouse = lighthouse, .incarnation = incarnation};
	if (m != NULL) {
		o->member = m->kind != SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_REMOVED;
		o->last_incarnation = m->last_incarnation;
	}
	if (r != NULL) {
		o->lowest_unanswered = r->lowest_unanswered;
	}
	o->highest_kept = answers_last(st, o);
	b->origins = o;
	return o;
}

/* The first sequences up to n that the lighthouse has the answers of: a walk is cheaper than as many searches. */
static size_t answers_before(struct state *st, const struct origin *o, const struct skey *prefix,
			     uint64_t *ret, size_t n)
{
	struct slice key, v;
	bool more = st_raw_seek(st, skey_slice(prefix), &key, &v);
	size_t i = 0;

	while (more && i < n && skey_has_prefix(key, skey_slice(prefix)) &&
	       skey_get_u64(key, 17, &ret[i]) && ret[i] < o->lowest_unanswered) {
		i++;
		more = st_raw_next(st, key, &key, &v);
	}
	return i;
}

static void origin_settle(struct state *st, const struct origin *o)
{
	size_t left = ANSWERS_TIDIED * o->answers, n;
	struct skey k, prefix;
	uint64_t past[256];
	OriginRecord r;

	if (!o->dirty) {
		return;
	}
	/* Forgets what the lighthouse has the answers of. */
	skey_id2(&prefix, TABLE_ORIGIN_ANSWER, o->lighthouse, o->incarnation);
	while (left > 0 && (n = answers_before(st, o, &prefix, past, MIN(left, ARRAY_LEN(past))))) {
		for (size_t i = 0; i < n; i++) {
			st_raw_del(st, skey_id3(&k, TABLE_ORIGIN_ANSWER, o->lighthouse,
						o->incarnation, past[i]));
		}
		left -= n;
	}
	skerry__internal__v1__origin_record__init(&r);
	r.lighthouse = o->lighthouse;
	r.incarnation = o->incarnation;
	r.lowest_unanswered = o->lowest_unanswered;
	st_msg_put(st, skey_id2(&k, TABLE_ORIGIN, o->lighthouse, o->incarnation), &r);
}

void st_origins_settle(struct state *st)
{
	struct tailnet_batch *b = st->batch;

	while (b->origins != NULL) {
		struct origin *o = b->origins;

		b->origins = o->next;
		origin_settle(st, o);
		o->next = b->spare;
		b->spare = o;
	}
}

/* ---- start and end ---- */

void st_begin(struct state *st, struct tailnet_batch *b, const struct apply_context *ctx,
	      struct err *err)
{
	arena_reset(&b->scratch);
	*st = (struct state){.batch = b,
			     .kv = b->kv,
			     .ctx = ctx,
			     .scratch = &b->scratch,
			     .err = err,
			     .meta = b->meta,
			     .digest = b->digest};
}

static void meta_read(struct state *st)
{
	struct tailnet_batch *b = st->batch;
	struct skey k;

	skey_init(&k, TABLE_META);
	b->meta = kept_get(st, skey_slice(&k), REC(meta));
	b->meta_missing = b->meta == NULL;
	if (b->meta_missing) {
		b->meta = kept_alloc(st, sizeof(*b->meta));
		skerry__internal__v1__meta__init(b->meta);
	}
	if (b->meta->digest.len == sizeof(b->digest)) {
		memcpy(b->digest, b->meta->digest.data, sizeof(b->digest));
	}
	st->meta = b->meta;
}

void st_init(struct state *st, struct tailnet_batch *b, const Command *cmd,
	     const struct apply_context *ctx, struct arena *out, struct err *err,
	     CommandResult *reply)
{
	st_begin(st, b, ctx, err);
	st->cmd = cmd;
	st->out = out;
	st->reply = reply;
	skerry__internal__v1__command_result__init(reply);
	if (b->meta == NULL || b->meta_missing) { /* a refused bootstrap leaves nothing */
		meta_read(st);
	}
	st->meta_missing = b->meta_missing;
	st->now = MAX(st->meta->time_ms, ctx->time_ms);
	st->revision = st->meta->revision + 1;
	if (ctx->leader_gap) {
		st->meta->leader_since_ms = st->now;
	}
}

static void heads_drop(struct state *st)
{
	struct head_ref **at = &st->batch->heads;
	struct skey k;

	while (*at != NULL) {
		if ((*at)->gone) {
			st_raw_del(st, skey_id(&k, TABLE_HEAD, (*at)->head->tailnet));
			*at = (*at)->next;
		} else {
			at = &(*at)->next;
		}
	}
}

void st_finish(struct state *st, bool accepted, bool repeated)
{
	heads_drop(st);
	if (st->members_put) {
		st_origins_settle(st);
	}
	if (accepted) {
		st->meta->revision = st->revision;
	}
	st->meta->time_ms = st->now;
	st->meta->raft_index = MAX(st->meta->raft_index, st->ctx->raft_index);
	if (!repeated) {
		st->reply->epoch = st->meta->epoch;
		st->reply->revision = st->meta->revision;
	}
	st->batch->meta_missing = false;
	st->batch->meta_dirty = true;
}

int tailnet_batch_flush(struct tailnet_batch *b, struct err *err)
{
	static const struct apply_context none;
	struct state st;
	struct skey k;

	st_begin(&st, b, &none, err);
	st_origins_settle(&st);
	for (struct head_ref *h = b->heads; h != NULL; h = h->next) {
		if (h->dirty) {
			st_msg_put(&st, skey_id(&k, TABLE_HEAD, h->head->tailnet), h->head);
			h->dirty = false;
		}
	}
	if (b->meta_dirty) {
		b->meta->digest.data = b->digest;
		b->meta->digest.len = sizeof(b->digest);
		skey_init(&k, TABLE_META);
		st_msg_put(&st, skey_slice(&k), b->meta);
		b->meta_dirty = false;
	}
	return st.fail;
}

const Meta *tailnet_batch_meta(const struct tailnet_batch *b)
{
	return b->meta_missing ? NULL : b->meta;
}
