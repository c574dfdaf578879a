/* Applying entries; see fsm.h. */
#include "cluster/fsm.h"

#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "cluster/entry.h"
#include "proto/pb_decode.h"
#include "tailnet/query.h"

enum {
	/* Memory of results and changes of one entry; reaching it is a failure, equal on every replica. */
	APPLY_BUDGET = 512 << 20,
	META_BUDGET = 64 << 10,
};

static const struct pb_opts strict = {.flags = PB_STRICT_KNOWN};

/* meta NULL: before the bootstrap. */
static struct state_view view_of(const Meta *meta)
{
	struct state_view v = {0};

	if (meta != NULL) {
		v = (struct state_view){
			.cluster_id = meta->cluster_id,
			.epoch = meta->epoch,
			.revision = meta->revision,
			.time_ms = meta->time_ms,
			.bytes = meta->bytes,
			.feature_level = meta->feature_level,
		};
		if (meta->digest.len == sizeof(v.digest)) {
			memcpy(v.digest, meta->digest.data, sizeof(v.digest));
		}
	}
	return v;
}

int fsm_view(const struct kv *kv, struct state_view *ret, struct err *err)
{
	struct arena a;
	Meta *meta;
	int r;

	arena_init(&a, META_BUDGET);
	r = query_meta(kv, &a, &meta);
	if (r == ERR_NOT_FOUND) {
		*ret = (struct state_view){0};
		r = 0;
	} else if (r != 0) {
		r = err_set(err, r, "the state's Meta record cannot be read: %s", err_text(r));
	} else {
		*ret = view_of(meta);
	}
	arena_done(&a);
	return r;
}

int fsm_decode_command(const void *data, size_t len, struct arena *arena, Command **ret,
		       struct err *err)
{
	ProtobufCMessage *msg;
	int r = pb_decode(&skerry__internal__v1__command__descriptor, data, len, &strict, arena,
			  &msg, err);

	if (r == 0) {
		*ret = (Command *)msg;
	}
	return r;
}

int fsm_check_command(const void *data, size_t len, struct err *err)
{
	return pb_check(&skerry__internal__v1__command__descriptor, data, len, &strict, NULL, err);
}

/* Is this entry one that may be applied to this state by this build? */
static int admit(const struct entry_header *h, uint64_t cluster_id, const struct state_view *v,
		 struct err *err)
{
	if (cluster_id != 0 && h->cluster_id != cluster_id) {
		return err_set(err, ERR_CORRUPT,
			       "log entry is of cluster %llu, this lighthouse belongs to %llu",
			       (unsigned long long)h->cluster_id, (unsigned long long)cluster_id);
	}
	if (h->epoch != v->epoch) {
		return err_set(err, ERR_CORRUPT,
			       "log entry is of epoch %llu, the state of %llu: log and state do "
			       "not belong "
			       "together; remove the lighthouse and join it anew",
			       (unsigned long long)h->epoch, (unsigned long long)v->epoch);
	}
	return feature_level_known(h->feature_level, "log entry has", err);
}

static int apply_one(struct tailnet_batch *b, const struct entry_header *h, uint64_t index,
		     const uint8_t *data, size_t len, struct applied *a, struct err *err)
{
	struct apply_context ctx = {
		.time_ms = h->time_ms,
		.raft_index = index,
		.known = true, /* fsm_decode_command() is strict */
		.leader_gap = (h->flags & ENTRY_LEADER_GAP) != 0,
	};
	struct applied_command *c = &a->command[a->n];
	struct apply_result result;
	CommandResult *reply;
	Command *cmd;
	int r = fsm_decode_command(data, len, &a->arena, &cmd, err);

	if (r != 0) {
		/* What the log holds must be understood: not a refusal but the end (see state.md). */
		return r == ERR_INVALID ? err_set(err, ERR_UNIMPLEMENTED,
						  "command in the log is not understood: %s at %s",
						  err_msg(err, r), err != NULL ? err->field : "")
					: r;
	}
	r = tailnet_batch_apply(b, cmd, &ctx, &a->arena, &result, err);
	if (r != 0) {
		return r;
	}
	reply = arena_memdup(&a->arena, &result.reply, sizeof(result.reply));
	if (reply == NULL) {
		return err_set(err, ERR_LIMIT, "memory of an entry's results is used up");
	}
	*c = (struct applied_command){
		.lighthouse = cmd->lighthouse,
		.incarnation = cmd->incarnation,
		.sequence = cmd->sequence,
		.result = reply,
	};
	/* A change of the members is the leader's to go on with at once. */
	a->members_changed |= cmd->body_case >= SKERRY__INTERNAL__V1__COMMAND__BODY_CHANGE_BEGIN &&
			      cmd->body_case <= SKERRY__INTERNAL__V1__COMMAND__BODY_CHANGE_END;
	if (cmd->body_case == SKERRY__INTERNAL__V1__COMMAND__BODY_DIGEST_MARKER) {
		struct state_view v;

		c->marker = cmd->digest_marker->id;
		r = tailnet_batch_flush(b, err);
		if (r != 0) {
			return r;
		}
		v = view_of(tailnet_batch_meta(b));
		a->marker_revision = v.revision;
		memcpy(a->marker_digest, v.digest, sizeof(v.digest));
	}
	if (result.n_changes > 0) {
		a->change = mem_reallocarray(a->change, a->n_changes + result.n_changes,
					     sizeof(*a->change));
		memcpy(a->change + a->n_changes, result.changes,
		       result.n_changes * sizeof(*a->change));
		for (size_t i = 0; i < result.n_changes; i++) {
			a->members_changed |= result.changes[i].kind == CHANGE_MEMBER;
		}
		a->n_changes += result.n_changes;
	}
	a->n++;
	return 0;
}

int fsm_apply(const struct kv *kv, uint64_t cluster_id, const void *data, size_t len,
	      uint64_t index, struct applied **ret, struct err *err)
{
	struct entry_reader er;
	struct state_view v;
	struct tailnet_batch *b;
	const uint8_t *cmd;
	size_t cmd_len;
	struct applied *a;
	int r = entry_open(&er, data, len, err);

	if (r == 0) {
		r = fsm_view(kv, &v, err);
	}
	if (r == 0) {
		r = admit(&er.header, cluster_id, &v, err);
	}
	if (r != 0) {
		err_prefix(err, "entry %llu", (unsigned long long)index);
		return r;
	}
	a = MEM_NEW(struct applied);
	a->index = index;
	list_init(&a->markers);
	a->command = mem_calloc(er.header.count, sizeof(*a->command));
	arena_init(&a->arena, APPLY_BUDGET);
	b = tailnet_batch_new(kv);
	while (r == 0 && entry_next(&er, &cmd, &cmd_len)) {
		r = apply_one(b, &er.header, index, cmd, cmd_len, a, err);
	}
	if (r == 0) {
		r = tailnet_batch_flush(b, err);
	}
	if (r == 0 && er.header.count > 0) {
		v = view_of(tailnet_batch_meta(b));
	}
	tailnet_batch_free(b);
	if (r != 0) {
		err_prefix(err, "entry %llu, command %zu", (unsigned long long)index, a->n);
		applied_free(a);
		return r;
	}
	a->epoch = v.epoch;
	a->revision = v.revision;
	a->time_ms = v.time_ms;
	a->bytes = v.bytes;
	a->feature_level = v.feature_level;
	memcpy(a->digest, v.digest, sizeof(v.digest));
	*ret = a;
	return 0;
}

void applied_free(struct applied *a)
{
	if (a == NULL) {
		return;
	}
	arena_done(&a->arena);
	mem_free(a->command);
	mem_free(a->change);
	mem_free(a);
}

static struct snapshot_header header_of(const struct state_view *v, uint64_t index, uint64_t term)
{
	return (struct snapshot_header){
		.feature_level = v->feature_level,
		.cluster_id = v->cluster_id,
		.epoch = v->epoch,
		.revision = v->revision,
		.applied_index = index,
		.term = term,
	};
}

int fsm_snapshot_gather(const struct kv *kv, uint64_t index, uint64_t term,
			const struct snapshot_options *o, struct snapshot *ret,
			struct state_view *ret_view, struct err *err)
{
	struct snapshot_header h;
	struct state_view v;
	int r = fsm_view(kv, &v, NULL);

	if (r != 0) {
		return err_set(err, ERR_CORRUPT,
			       "the record of the state itself cannot be read: %s", err_text(r));
	}
	h = header_of(&v, index, term);
	r = snapshot_gather(kv, &h, o, ret, err);
	if (r == 0) {
		*ret_view = v;
	}
	return r;
}

int fsm_snapshot(const struct kv *kv, uint64_t index, uint64_t term, const atomic_bool *cancel,
		 struct snapshot *ret, struct err *err)
{
	struct snapshot_header h;
	struct state_view v;
	int r = fsm_view(kv, &v, err);

	if (r != 0) {
		return r;
	}
	h = header_of(&v, index, term);
	return snapshot_make(kv, &h, cancel, ret, err);
}
