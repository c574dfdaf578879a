/*
 * The one entrance: what every command goes through, around its handler.
 *
 *   known at all? -> bootstrapped? -> seen before from this lighthouse (origin)? -> seen before from this client
 *   (request id)? -> tailnet there, size left? -> handler: checks, then writes -> answers kept, heads, Meta
 *
 * A refusal writes what deduplication keeps, state time and log position; nothing else.
 */
#include "proto/pb_util.h"
#include "tailnet/commands_int.h"

#include <string.h>

#include "base/crypto.h"
#include "base/enc.h"
#include "base/limits.h"

enum command_flags {
	IN_TAILNET = 1 << 0, /* cmd.tailnet names a tailnet */
	IN_ANY = 1 << 1,     /* or the system (0) */
	GROWS = 1 << 2,      /* refused when the state is full */
	ORIGIN = 1 << 3,     /* answered once per (lighthouse, incarnation, sequence) */
	HAS_SECRET = 1 << 4, /* its answer to the client holds a secret */
};

struct command_row {
	int (*handler)(struct state *st);
	unsigned flags;
	uint32_t level; /* the feature level that brought it; 0: the first */
};

#define BODY(x) SKERRY__INTERNAL__V1__COMMAND__BODY_##x

static const struct command_row rows[] = {
	[BODY(BOOTSTRAP)] = {cmd_bootstrap, 0},
	[BODY(LIGHTHOUSE_START)] = {cmd_lighthouse_start, 0},
	[BODY(LIGHTHOUSE_LOST)] = {cmd_lighthouse_lost, 0},
	[BODY(JOIN_TOKEN_CREATE)] = {cmd_join_token_create, GROWS | ORIGIN | HAS_SECRET},
	/* Found again by the hash of its request, so that it needs no origin. */
	[BODY(MEMBER_JOIN)] = {cmd_member_join, 0},
	[BODY(MEMBER_SET_KIND)] = {cmd_member_set_kind, ORIGIN},
	[BODY(TICK)] = {cmd_tick, 0},
	[BODY(DIGEST_MARKER)] = {cmd_digest_marker, 0},
	[BODY(RAISE_FEATURE_LEVEL)] = {cmd_raise_feature_level, ORIGIN},
	[BODY(SECRET_PUT)] = {cmd_secret_put, ORIGIN},
	[BODY(EPOCH_BEGIN)] = {cmd_epoch_begin, 0},
	[BODY(CA_ROTATE)] = {cmd_ca_rotate, ORIGIN, 2},
	[BODY(CA_RETIRE)] = {cmd_ca_retire, ORIGIN, 2},
	[BODY(SEAL_ROTATE)] = {cmd_seal_rotate, ORIGIN | HAS_SECRET, 2},
	[BODY(MEMBER_CONFIRM)] = {cmd_member_confirm, 0, 2},
	[BODY(BACKUP_NOTE)] = {cmd_backup_note, ORIGIN, 2},
	[BODY(CHANGE_BEGIN)] = {cmd_change_begin, ORIGIN | HAS_SECRET, 2},
	[BODY(CHANGE_PROGRESS)] = {cmd_change_progress, ORIGIN, 2},
	[BODY(CHANGE_END)] = {cmd_change_end, ORIGIN, 2},
	[BODY(TAILNET_CREATE)] = {cmd_tailnet_create, GROWS | ORIGIN},
	[BODY(TAILNET_UPDATE)] = {cmd_tailnet_update, GROWS | ORIGIN},
	[BODY(TAILNET_DELETE)] = {cmd_tailnet_delete, ORIGIN},
	[BODY(USER_CREATE)] = {cmd_user_create, IN_TAILNET | GROWS | ORIGIN},
	[BODY(USER_UPDATE)] = {cmd_user_update, IN_TAILNET | GROWS | ORIGIN},
	[BODY(USER_DELETE)] = {cmd_user_delete, IN_TAILNET | ORIGIN},
	[BODY(AUTH_KEY_CREATE)] = {cmd_auth_key_create, IN_TAILNET | GROWS | ORIGIN | HAS_SECRET},
	[BODY(AUTH_KEY_DELETE)] = {cmd_auth_key_delete, IN_TAILNET | ORIGIN},
	[BODY(API_KEY_CREATE)] = {cmd_api_key_create, IN_ANY | GROWS | ORIGIN | HAS_SECRET},
	[BODY(API_KEY_DELETE)] = {cmd_api_key_delete, IN_ANY | ORIGIN},
	[BODY(NODE_REGISTER)] = {cmd_node_register, IN_TAILNET | GROWS | ORIGIN},
	[BODY(NODE_CREATE)] = {cmd_node_create, IN_TAILNET | GROWS | ORIGIN},
	[BODY(NODE_UPDATE)] = {cmd_node_update, IN_TAILNET | GROWS | ORIGIN},
	[BODY(NODE_DELETE)] = {cmd_node_delete, IN_TAILNET | ORIGIN},
	[BODY(NODE_LOGOUT)] = {cmd_node_logout, IN_TAILNET | ORIGIN},
	[BODY(PENDING_CREATE)] = {cmd_pending_create, IN_TAILNET | GROWS | ORIGIN},
	[BODY(PENDING_DECIDE)] = {cmd_pending_decide, IN_TAILNET | GROWS | ORIGIN},
	/* Both can be applied twice without harm; they come often and are worth no row. */
	[BODY(NODE_FACTS)] = {cmd_node_facts, 0},
	[BODY(SESSION_BATCH)] = {cmd_session_batch, 0},
};

static const struct command_row *find_row(const Command *cmd)
{
	size_t i = (size_t)cmd->body_case;

	return i < ARRAY_LEN(rows) && rows[i].handler != NULL && rows[i].level <= FEATURE_LEVEL_MAX
		       ? &rows[i]
		       : NULL;
}

uint32_t tailnet_command_level(const Command *cmd)
{
	const struct command_row *row = find_row(cmd);
	uint32_t fields = level_of_fields(&cmd->base);

	return MAX(row != NULL ? MAX(row->level, 1u) : 1u, fields);
}

/* ---- understood? ---- */

static int message_known(const ProtobufCMessage *m, unsigned depth, struct err *err);

static int value_known(const ProtobufCFieldDescriptor *f, const void *value, unsigned depth,
		       struct err *err)
{
	if (f->type == PROTOBUF_C_TYPE_ENUM) {
		int v = *(const int *)value;

		if (protobuf_c_enum_descriptor_get_value(f->descriptor, v) == NULL) {
			return err_field(err, ERR_UNIMPLEMENTED, f->name,
					 "%s has the value %d, which this version does not know",
					 f->name, v);
		}
	} else if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
		const ProtobufCMessage *sub = *(ProtobufCMessage *const *)value;

		return sub == NULL ? 0 : message_known(sub, depth + 1, err);
	}
	return 0;
}

static int message_known(const ProtobufCMessage *m, unsigned depth, struct err *err)
{
	const uint8_t *base = (const uint8_t *)m;

	if (m->n_unknown_fields > 0) {
		return err_field(err, ERR_UNIMPLEMENTED, m->descriptor->short_name,
				 "%s has the field %u, which this version does not know",
				 m->descriptor->name, m->unknown_fields[0].tag);
	}
	if (depth > LIM_PB_DEPTH) {
		return err_set(err, ERR_UNIMPLEMENTED, "the command is nested too deeply");
	}
	for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
		const void *value = base + f->offset;
		int r = 0;

		if (f->type != PROTOBUF_C_TYPE_ENUM && f->type != PROTOBUF_C_TYPE_MESSAGE) {
			continue;
		}
		if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 &&
		    *(const uint32_t *)(base + f->quantifier_offset) != f->id) {
			continue;
		}
		if (f->label == PROTOBUF_C_LABEL_REPEATED) {
			size_t n = *(const size_t *)(base + f->quantifier_offset);
			size_t size = pb_element_size(f->type);
			const uint8_t *elements = *(const uint8_t *const *)value;

			for (size_t j = 0; j < n && r == 0; j++) {
				r = value_known(f, elements + j * size, depth, err);
			}
		} else {
			r = value_known(f, value, depth, err);
		}
		if (r < 0) {
			return r;
		}
	}
	return 0;
}

static int command_known(const Command *cmd, bool looked_at, struct err *err)
{
	if (find_row(cmd) == NULL) {
		return err_set(
			err, ERR_UNIMPLEMENTED,
			"the command %d is not known to this version: update this lighthouse",
			(int)cmd->body_case);
	}
	if (level_fields_above(FEATURE_LEVEL_MAX) &&
	    level_of_fields(&cmd->base) > FEATURE_LEVEL_MAX) {
		return err_set(err, ERR_UNIMPLEMENTED,
			       "the command has a field of feature level %u, this version knows "
			       "levels up to %d: update this lighthouse",
			       level_of_fields(&cmd->base), FEATURE_LEVEL_MAX);
	}
	return looked_at ? 0 : message_known(&cmd->base, 1, err);
}

int tailnet_command_known(const Command *cmd, struct err *err)
{
	return command_known(cmd, false, err);
}

/* ---- exactly once, between lighthouses ---- */

struct sender {
	bool counts; /* has a sequence and a row */
	bool repeat; /* the reply was filled from the row */
	struct origin *origin;
};

static int origin_check(struct state *st, struct sender *o)
{
	const Command *c = st->cmd;
	struct origin *from;
	OriginAnswer *answer = NULL;
	struct skey k;

	if (c->lighthouse == 0 || c->sequence == 0) {
		return ACCEPT;
	}
	from = st_origin(st, c->lighthouse, c->incarnation);
	if (from == NULL || !from->member) {
		return refuse(st, CODE_DENIED, "NOT_A_MEMBER", "",
			      "lighthouse %llu is not a member of this cluster",
			      (unsigned long long)c->lighthouse);
	}
	if (from->last_incarnation != 0 && from->last_incarnation != c->incarnation) {
		return refuse(st, CODE_ABORTED, "INCARNATION_ENDED", "",
			      "lighthouse %llu has another incarnation now; it announces itself "
			      "before anything else",
			      (unsigned long long)c->lighthouse);
	}
	o->counts = true;
	if (c->sequence <= from->highest_kept) {
		answer = st_get(st,
				skey_id3(&k, TABLE_ORIGIN_ANSWER, c->lighthouse, c->incarnation,
					 c->sequence),
				REC(origin_answer));
	}
	if (answer != NULL) {
		CommandResult *r;
		int e = rec_unpack(REC(command_result),
				   (struct slice){answer->result.data, answer->result.len}, st->out,
				   &r);

		if (e < 0) {
			st_fail(st, e, "a kept answer cannot be read");
			return REFUSE;
		}
		*st->reply = *r;
		o->repeat = true;
		return REFUSE;
	}
	o->origin = from;
	if (c->sequence < from->lowest_unanswered) {
		o->counts = false;
		return refuse(st, CODE_ABORTED, "ALREADY_ANSWERED", "",
			      "the command %llu of lighthouse %llu was answered before",
			      (unsigned long long)c->sequence, (unsigned long long)c->lighthouse);
	}
	if (c->sequence - MAX(from->lowest_unanswered, c->lowest_unanswered) >= LIM_ORIGIN_WINDOW) {
		o->counts = false;
		return refuse(st, CODE_EXHAUSTED, "TOO_MANY_UNANSWERED", "",
			      "lighthouse %llu has more than %d unanswered commands",
			      (unsigned long long)c->lighthouse, LIM_ORIGIN_WINDOW);
	}
	return ACCEPT;
}

static void origin_keep(struct state *st, const struct sender *o)
{
	const Command *c = st->cmd;
	uint64_t lowest = MIN(c->lowest_unanswered, c->sequence);
	struct skey k;
	OriginAnswer a;
	struct slice v;

	if (!o->counts || o->repeat) {
		return;
	}
	skerry__internal__v1__origin_answer__init(&a);
	a.lighthouse = c->lighthouse;
	a.incarnation = c->incarnation;
	a.sequence = c->sequence;
	st->reply->epoch = st->meta->epoch;
	v = st_pack(st, st->reply);
	a.result = (ProtobufCBinaryData){v.len, (uint8_t *)v.data};
	st_msg_put(st,
		   skey_id3(&k, TABLE_ORIGIN_ANSWER, c->lighthouse, c->incarnation, c->sequence),
		   &a);
	o->origin->answers++;
	o->origin->highest_kept = MAX(o->origin->highest_kept, c->sequence);
	if (lowest > o->origin->lowest_unanswered) {
		o->origin->lowest_unanswered = lowest;
		o->origin->dirty = true;
	}
}

/* ---- exactly once, for clients ---- */

struct request {
	bool counts; /* a row is to be kept */
	struct skey key;
	DedupeRecord *old;
};

static int request_check(struct state *st, struct request *rq)
{
	const Command *c = st->cmd;
	DedupeRecord *old;

	if (c->request_id[0] == '\0') {
		return ACCEPT;
	}
#ifdef SKERRY_BREAK_REQUEST_ID
	return ACCEPT; /* only in builds that are broken on purpose */
#endif
	if (strlen(c->request_id) > LIM_REQUEST_ID_BYTES || strlen(c->caller) > LIM_TEXT_BYTES) {
		return refuse(st, CODE_INVALID, "REQUEST_ID", "request_id",
			      "a request id has at most %d bytes", LIM_REQUEST_ID_BYTES);
	}
	if (c->request_hash.len != 32) {
		return refuse(st, CODE_INVALID, "REQUEST_ID", "request_id",
			      "a request id comes with a hash of 32 bytes, not %zu",
			      c->request_hash.len);
	}
	old = st_get(st, skey_request(&rq->key, c->tailnet, c->caller, c->request_id),
		     REC(dedupe_record));
	rq->old = old;
	if (old != NULL && old->expire_ms > st->now) {
		if (!bytes_equal(old->request_hash, c->request_hash)) {
			return refuse(st, CODE_INVALID, "REQUEST_ID_REUSED", "request_id",
				      "the request id was used for another request; take a new one "
				      "for each request");
		}
		st->reply->code = old->code;
		st->reply->reason =
			st_out_text(st, old->had_secret ? "SECRET_NOT_RETAINED" : old->reason);
		st->reply->message = st_out_text(st, old->message);
		st->reply->object = st_out_text(st, old->object);
		st->reply->id = old->id;
		st->reply->repeated_request = true;
		st->reply->secret_not_retained = old->had_secret;
		return REFUSE;
	}
	if (old == NULL && st_head(st, c->tailnet)->request_id_count >= LIM_REQUEST_IDS) {
		return refuse(
			st, CODE_EXHAUSTED, "TOO_MANY_REQUEST_IDS", "request_id",
			"the tailnet used %d request ids within 5 minutes; call without one, or "
			"later",
			LIM_REQUEST_IDS);
	}
	/* No rows for tailnets that nobody made; one that is just being deleted still has a record. */
	rq->counts = c->tailnet == 0 || st_tailnet_there(st, c->tailnet);
	return ACCEPT;
}

static void request_keep(struct state *st, const struct request *rq, bool accepted, bool secret)
{
	const Command *c = st->cmd;
	const struct skey *k = &rq->key;
	struct skey d;
	DedupeRecord r;

	if (!rq->counts) {
		return;
	}
	/* A Tick may have taken the old row meanwhile. */
	if (rq->old != NULL && st_has(st, skey_slice(k))) {
		st_raw_del(st, skey_deadline(&d, rq->old->expire_ms, DEADLINE_REQUEST, c->tailnet,
					     k->data, k->len));
	} else {
		st_head(st, c->tailnet)->request_id_count++;
		st_head_dirty(st, c->tailnet);
	}
	skerry__internal__v1__dedupe_record__init(&r);
	r.tailnet = c->tailnet;
	r.caller = c->caller;
	r.request_id = c->request_id;
	r.request_hash = c->request_hash;
	r.code = st->reply->code;
	r.reason = st->reply->reason;
	r.message = st->reply->message;
	r.object = st->reply->object;
	r.revision = accepted ? st->revision : st->meta->revision;
	r.expire_ms = st->now + LIM_REQUEST_ID_MS;
	r.had_secret = accepted && secret;
	r.id = st->reply->id;
	st_msg_put(st, skey_slice(k), &r);
	st_raw_put(st,
		   skey_deadline(&d, r.expire_ms, DEADLINE_REQUEST, c->tailnet, k->data, k->len),
		   "", 0);
}

/* ---- the way of a command ---- */

static int place_check(struct state *st, const struct command_row *row)
{
	const Command *c = st->cmd;

	/* The bootstrap brings the level; at the highest one nothing needs a look. */
	if (!st->meta_missing && st->meta->feature_level < FEATURE_LEVEL_MAX &&
	    level_needs(st, tailnet_command_level(c)) == REFUSE) {
		return REFUSE;
	}
	if (c->random.len != 32 && (row->flags & ORIGIN) != 0) {
		return refuse(st, CODE_INVALID, "", "random",
			      "a command carries 32 random bytes, not %zu", c->random.len);
	}
	if (strlen(c->reason) > LIM_TEXT_BYTES) {
		return refuse(st, CODE_INVALID, "", "reason", "the reason has more than %d bytes",
			      LIM_TEXT_BYTES);
	}
	if ((row->flags & IN_TAILNET) != 0 && c->tailnet == 0) {
		return refuse(st, CODE_INVALID, "", "parent",
			      "the request names no tailnet (tailnets/<id>)");
	}
	if ((row->flags & (IN_TAILNET | IN_ANY)) != 0 && c->tailnet != 0 &&
	    !st_tailnet_there(st, c->tailnet)) {
		return refuse(st, CODE_NOT_FOUND, "TAILNET_NOT_FOUND", "parent",
			      "there is no tailnet %llu", (unsigned long long)c->tailnet);
	}
	if ((row->flags & GROWS) != 0 && st->meta->bytes > LIM_STATE_BYTES) {
		return refuse(
			st, CODE_EXHAUSTED, "STATE_FULL", "",
			"the state has reached its limit of %llu MiB; delete what is not needed",
			LIM_STATE_BYTES >> 20);
	}
	if (c->policy_revision != 0) {
		return refuse(st, CODE_ABORTED, "POLICY_CHANGED", "",
			      "the policy has changed since the request was judged; try again");
	}
	return ACCEPT;
}

static int run(struct state *st, const struct command_row *row)
{
	bool bootstrap = st->cmd->body_case == BODY(BOOTSTRAP);
	struct sender sender = {0};
	struct request request = {0};
	int verdict;

	if (st->meta_missing && !bootstrap) {
		return refuse(st, CODE_PRECONDITION, "NOT_INITIALISED", "",
			      "the cluster is not initialised");
	}
	verdict = (row->flags & ORIGIN) != 0 ? origin_check(st, &sender) : ACCEPT;
	if (verdict == ACCEPT) {
		verdict = request_check(st, &request);
	}
	if (verdict == ACCEPT) {
		verdict = place_check(st, row);
	}
	if (verdict == ACCEPT) {
		verdict = row->handler(st);
	}
	if (st->fail < 0 || (bootstrap && verdict == REFUSE && st->meta_missing)) {
		return verdict;
	}
	if (!sender.repeat) {
		st->reply->revision = verdict == ACCEPT ? st->revision : st->meta->revision;
	}
	request_keep(st, &request, verdict == ACCEPT, (row->flags & HAS_SECRET) != 0);
	origin_keep(st, &sender);
	st_finish(st, verdict == ACCEPT, sender.repeat);
	return verdict;
}

/* Of its own, so that no local of the caller changes between setjmp() and its second return. */
static void run_or_judge(struct state *st, const struct command_row *row)
{
	if (!st->ctx->judge_only) {
		IGNORE(run(st, row));
	} else if (setjmp(st->judged) == 0) {
		IGNORE(run(st, row));
	} else {
		st->n_changes = 0;
	}
}

int tailnet_batch_apply(struct tailnet_batch *b, const Command *cmd,
			const struct apply_context *ctx, struct arena *arena,
			struct apply_result *ret, struct err *err)
{
	struct state st;
	int r = command_known(cmd, ctx->known, err);

	if (r < 0) {
		return r;
	}
	st_init(&st, b, cmd, ctx, arena, err, &ret->reply);
	if (st.fail == 0) {
		run_or_judge(&st, find_row(cmd));
	}
	ret->changes = st.changes;
	ret->n_changes = st.n_changes;
	return st.fail;
}

int tailnet_apply(const struct kv *kv, const Command *cmd, const struct apply_context *ctx,
		  struct arena *arena, struct apply_result *ret, struct err *err)
{
	struct tailnet_batch *b = tailnet_batch_new(kv);
	int r = tailnet_batch_apply(b, cmd, ctx, arena, ret, err);

	if (r == 0 && !ctx->judge_only) {
		r = tailnet_batch_flush(b, err);
	}
	tailnet_batch_free(b);
	return r;
}

int tailnet_next_deadline(const struct kv *kv, uint64_t *ret_ms)
{
	struct slice k, v;
	struct skey first;
	int r;

	skey_init(&first, TABLE_DEADLINE);
	r = kv_seek(kv, skey_slice(&first), &k, &v);
	if (r < 0 && r != ERR_NOT_FOUND) {
		return r;
	}
	*ret_ms = 0;
	if (r == 0 && skey_table(k) == TABLE_DEADLINE && !skey_get_u64(k, 1, ret_ms)) {
		return ERR_CORRUPT;
	}
	return 0;
}
