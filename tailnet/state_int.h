/* One command at work on the state: reads, the only writes, refusals, and what every write keeps up to date. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tailnet/keys.h"
#include "tailnet/rec_int.h"
#include "tailnet/records.h"
#include "tailnet/resource.h"
#include "tailnet/tailnet.h"

/*
 * Failures of the store are sticky: the first one stays in `fail`, reads find nothing from then on, writes do nothing,
 * and the apply ends with it. So no caller has to look at each step.
 *
 * A handler checks everything, with refuse() for what is wrong, and only then writes: refuse() after the first write
 * is a programming error.
 */
struct state {
	struct tailnet_batch *batch;
	const struct kv *kv;
	const Command *cmd;
	const struct apply_context *ctx;
	struct arena *out;     /* reply and changes */
	struct arena *scratch; /* records of this command */
	struct err *err;
	int fail;
	bool writing;          /* a record was put */
	jmp_buf judged;        /* ctx.judge_only: where the first write leads to */
	bool meta_missing;     /* before the bootstrap */
	Meta *meta;            /* of the batch */
	uint64_t now;          /* state time in ms */
	uint64_t revision;     /* of this command, if it is accepted */
	uint8_t *digest;       /* of the batch: 32 bytes */
	unsigned history_puts; /* of this command */
	/* The record that was read last, as long as nothing was written: mostly the one that is written first. */
	struct skey read_key;
	struct slice read_value; /* data NULL: none */
	bool members_put;        /* a record of a member was written */
	struct change *changes;
	size_t n_changes, cap_changes;
	CommandResult *reply;
};

/* Budget of the scratch arena: many times what the largest command needs. */
#define STATE_SCRATCH_BYTES (1ull << 30)

/* ---- memory and texts, until the end of the command ---- */
void *st_alloc(struct state *st, size_t size);
char *st_printf(struct state *st, const char *fmt, ...) PRINTF_LIKE(2, 3);
char *st_vprintf(struct state *st, const char *fmt, va_list ap) PRINTF_LIKE(2, 0);
/* In the reply's arena. */
char *st_out_printf(struct state *st, const char *fmt, ...) PRINTF_LIKE(2, 3);
char *st_out_text(struct state *st, const char *text);
ProtobufCBinaryData st_bytes(struct state *st, const void *data, size_t len);
/* "tailnets/7/nodes/42" */
char *st_name(struct state *st, enum resource_kind kind, uint64_t tailnet, uint64_t id);

/* ---- verdicts ---- */
/* gRPC status codes that refusals use. */
enum {
	CODE_INVALID = 3,
	CODE_NOT_FOUND = 5,
	CODE_EXISTS = 6,
	CODE_DENIED = 7,
	CODE_EXHAUSTED = 8,
	CODE_PRECONDITION = 9,
	CODE_ABORTED = 10,
	CODE_UNIMPLEMENTED = 12,
	CODE_UNAUTHENTICATED = 16,
};

/* What every write does first. */
void st_write_begin(struct state *st);

/* What handlers return. */
enum { ACCEPT = 0, REFUSE = 1 };

/* Fills the reply; returns REFUSE. `field` and `reason` may be "". */
int refuse(struct state *st, int code, const char *reason, const char *field, const char *fmt, ...)
	PRINTF_LIKE(5, 6);
/*
 * ACCEPT when the state is at this feature level; else refuses, and says how to raise it. Commands of a level are refused
 * by their row and their fields (apply.c, level.c): this is for what a handler computes anew.
 */
int level_needs(struct state *st, uint32_t level);
/* Names the object of the answer. */
void st_answer(struct state *st, enum resource_kind kind, uint64_t tailnet, uint64_t id);
/* A failure of the store, or a command that is not understood: ends the apply. */
void st_fail(struct state *st, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* ---- reads ---- */
/* NULL: not found, or failed. */
void *st_get(struct state *st, struct slice key, const ProtobufCMessageDescriptor *desc);
bool st_has(struct state *st, struct slice key);
bool st_index(struct state *st, struct slice key, uint64_t *ret_tailnet, uint64_t *ret_id);
/* Slices are valid until the next write. */
bool st_raw_get(struct state *st, struct slice key, struct slice *ret_value);
bool st_raw_seek(struct state *st, struct slice key, struct slice *ret_key,
		 struct slice *ret_value);
bool st_raw_next(struct state *st, struct slice key, struct slice *ret_key,
		 struct slice *ret_value);

/* The last one before the key. */
bool st_raw_prev(struct state *st, struct slice key, struct slice *ret_key,
		 struct slice *ret_value);

MemberRecord *st_member(struct state *st, uint64_t id);
TailnetRecord *st_tailnet(struct state *st, uint64_t id);
UserRecord *st_user(struct state *st, uint64_t tailnet, uint64_t id);
NodeRecord *st_node(struct state *st, uint64_t tailnet, uint64_t id);
NodeEndpoints *st_endpoints(struct state *st, uint64_t tailnet, uint64_t node);
Presence *st_presence(struct state *st, uint64_t tailnet, uint64_t node);
AuthKeyRecord *st_auth_key(struct state *st, uint64_t tailnet, uint64_t id);
ApiKeyRecord *st_api_key(struct state *st, uint64_t tailnet, uint64_t id);
PendingRecord *st_pending(struct state *st, uint64_t tailnet, uint64_t id);
/* Counters and floors; made if there are none. Change it and call st_head_dirty. Of the batch, as is what it points to. */
TailnetHead *st_head(struct state *st, uint64_t tailnet);
void st_head_dirty(struct state *st, uint64_t tailnet);
/* The tailnet is gone for good: its head goes at the end of the command. */
void st_head_drop(struct state *st, uint64_t tailnet);
/* Sets a hash of the head. */
void st_head_hash(struct state *st, ProtobufCBinaryData *field, const uint8_t hash[32]);
/* Is there this tailnet? */
bool st_tailnet_there(struct state *st, uint64_t id);
/* Its record under this key is deleted. */
void st_tailnet_gone(struct state *st, struct slice key);

/* What deduplication needs to know of a lighthouse's incarnation. */
struct origin {
	struct origin *next;
	uint64_t lighthouse, incarnation;
	bool member;               /* of the cluster, and not removed */
	uint64_t last_incarnation; /* of that member; 0: none */
	uint64_t lowest_unanswered;
	uint64_t highest_kept; /* no sequence above has an answer */
	size_t answers;        /* kept since they were last tidied up */
	bool dirty;            /* lowest_unanswered has moved */
};

/* Valid until the end of the command or st_origins_settle. NULL: failed. */
struct origin *st_origin(struct state *st, uint64_t lighthouse, uint64_t incarnation);
/* Writes what changed in them and forgets them; before anything else writes their tables. */
void st_origins_settle(struct state *st);

/* ---- writes ---- */
/* What a write means to the change index; kind 0: nothing. */
struct change_of {
	uint64_t tailnet, object;
	uint64_t old_revision; /* of the object's entry so far; 0: none */
	uint32_t kind;         /* enum change_kind */
	bool visibility;
};

/*
 * The one way to write a record of a primary table: keeps digest, size, history and change index. The record
 * carries st->revision already if `c` has a kind.
 */
void state_put(struct state *st, struct slice key, const void *msg, const struct change_of *c);
/* As that, for a packed record without a change whose key is known to be new: nothing is looked up. */
void state_put_new(struct state *st, struct slice key, struct slice v);
/* The one way to delete one. `tombstone`: watchers learn of it; else the entry just goes. */
void state_del(struct state *st, struct slice key, const struct change_of *c, bool tombstone);

/* The packed message, until the next one is packed. */
struct slice st_encode(struct state *st, const void *msg);
/* The packed message, in the scratch arena. */
struct slice st_pack(struct state *st, const void *msg);
/* Keeps what the record held before this command; a second call of one command does nothing. */
void st_history_put(struct state *st, uint64_t tailnet, struct slice key, bool existed,
		    struct slice old);

/* Indexes and bookkeeping. */
void st_raw_put(struct state *st, struct slice key, const void *data, size_t len);
/* It need not be there. */
void st_raw_del(struct state *st, struct slice key);
void st_msg_put(struct state *st, struct slice key, const void *msg);
void st_index_put(struct state *st, struct slice key, uint64_t tailnet, uint64_t id);
/* ms 0: nothing. */
void st_deadline_put(struct state *st, uint64_t ms, enum deadline kind, uint64_t tailnet,
		     uint64_t id);
void st_deadline_del(struct state *st, uint64_t ms, enum deadline kind, uint64_t tailnet,
		     uint64_t id);

/* Records with their revision set and their change noted. */
void st_put_member(struct state *st, MemberRecord *m);
void st_put_tailnet(struct state *st, TailnetRecord *t, bool visibility);
void st_put_user(struct state *st, UserRecord *u, bool visibility);
void st_put_node(struct state *st, NodeRecord *n, bool visibility);
void st_put_endpoints(struct state *st, NodeEndpoints *e);
/* `seen`: peers see a difference. */
void st_put_presence(struct state *st, Presence *p, bool seen);
void st_put_auth_key(struct state *st, AuthKeyRecord *k);
void st_put_api_key(struct state *st, ApiKeyRecord *k);
void st_put_pending(struct state *st, PendingRecord *p);

/* The next id of the one counter. */
uint64_t st_next_id(struct state *st);

/* Whose command it is, as the audit chain has it: "api-key:9". */
char *st_actor(struct state *st);
/* One line of the tailnet's audit chain. */
void st_audit(struct state *st, uint64_t tailnet, const char *action, const char *target,
	      const char *detail_fmt, ...) PRINTF_LIKE(5, 6);

/*
 * A portion of the retention work of a tailnet; at most `budget` records. Return how many they did; *ret_next is when
 * there is more to do (0: never).
 */
size_t st_trim_tombstones(struct state *st, uint64_t tailnet, size_t budget, uint64_t *ret_next);
size_t st_trim_history(struct state *st, uint64_t tailnet, size_t budget, uint64_t *ret_next);

/* Start and end of a command. */
void st_init(struct state *st, struct tailnet_batch *batch, const Command *cmd,
	     const struct apply_context *ctx, struct arena *out, struct err *err,
	     CommandResult *reply);
/* Heads and Meta are as this command leaves them. `repeated`: the reply is one that was kept. */
void st_finish(struct state *st, bool accepted, bool repeated);
/* The first part of the two: nothing of the state is read yet. */
void st_begin(struct state *st, struct tailnet_batch *batch, const struct apply_context *ctx,
	      struct err *err);

/* Digest arithmetic: adds or subtracts the hash of one record, modulo 2^256. */
void digest_add(uint8_t digest[32], struct slice key, struct slice value);
void digest_sub(uint8_t digest[32], struct slice key, struct slice value);
