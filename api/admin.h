/*
 * The one way of all methods of administration: name and scope, read level, page, command, answer. A service is a table
 * of struct admin_method and what its methods differ in.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/api_int.h"
#include "api/caller.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/key.h"
#include "base/macros.h"
#include "google/protobuf/field_mask.pb-c.h"
#include "net/rpc.h"
#include "skerry/v1/admin.pb-c.h"
#include "tailnet/kv.h"
#include "tailnet/records.h"
#include "tailnet/resource.h"

struct admin_call;

/* A record below a tailnet's collection, found by get or next. */
typedef int (*admin_get_fn)(struct admin_call *c, uint64_t tailnet, uint64_t id, void **ret_msg,
			    struct err *err);

/*
 * One method. What is NULL does not apply. All functions run in a read transaction (c->kv), read into c->records
 * and make in c->arena; `err` is theirs to fill in when they return a negative code (a bare ERR_NOT_FOUND gets the common text).
 */
struct admin_method {
	const char *path;
	enum resource_kind kind; /* of what is named */
	/* Where the name stands: "name", "parent" (of a tailnet), "user.name"; NULL: the method is the system's. */
	const char *target;
	bool system_too; /* tailnets/0 is a good parent */
	bool read_local; /* without skerry-read: what this lighthouse has, not the leader's level */

	/* Get, and the answer of a write: the object as its message. */
	admin_get_fn get;
	/* List: the first object after `*pos` (0 at the start) as its message; *pos becomes its position. */
	int (*next)(struct admin_call *c, uint64_t tailnet, uint64_t *pos, void **ret_msg);
	/* A write: fills c->cmd from c->req. */
	int (*command)(struct admin_call *c, struct err *err);
	/* A write: puts the secret of c->key into the answer; not called for the repeat of a request. */
	void (*secret)(struct admin_call *c, void *msg, char *text);
	/* Everything else: answers by itself. Runs outside of a transaction, after name and scope. */
	void (*run)(struct admin_call *c);
};

/* A call under way. Made by the machine; freed when the callback of what it waits for has come. */
struct admin_call {
	struct api_pending pending;
	struct api *api;
	const struct admin_method *method;
	struct rpc_server *server;
	struct rpc_ref ref;
	struct caller caller;
	const ProtobufCMessage *req; /* lives as long as the call */
	struct resource target;      /* what `method->target` names; tailnet 0: the system */
	const struct kv *kv;         /* inside of a transaction */
	uint64_t epoch, revision;    /* of the state that is read */
	uint64_t now_ms;             /* state time */
	struct arena records;        /* for query_*: bounded */
	struct arena arena;          /* for what is made of them: bounded by the page */
	/* writes */
	Skerry__Internal__V1__Command cmd;
	Skerry__Internal__V1__Actor actor;
	char caller_name[64];
	uint8_t random[ADMIN_RANDOM], request_hash[32];
	/* A check that a command which is accepted passes for certain: made when one is refused, as its reason then. */
	int (*if_refused)(struct admin_call *c, struct err *err);
	bool confirmed; /* the refusal comes from a state that the leader confirmed */
	bool repeated, secret_lost;
	char *secret_text; /* wiped at the end */
	int (*read_fn)(struct admin_call *c, ProtobufCMessage **ret_msg, struct err *err);
	struct key
		key; /* has a kind when a secret was made; without one its content is undefined */
};

/* Registers the methods at a server; their handler is the common one. */
void admin_register(struct api *api, struct rpc_server *server, const struct admin_method *methods,
		    size_t n);

/* ---- for the functions of methods ---- */

/* Zeroed memory of the call; never NULL. */
void *admin_alloc(struct admin_call *c, size_t size);
char *admin_strdup(struct admin_call *c, const char *s);
char *admin_printf(struct admin_call *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* NULL for 0. */
Google__Protobuf__Timestamp *admin_time(struct admin_call *c, uint64_t ms);
char *admin_name(struct admin_call *c, enum resource_kind kind, uint64_t tailnet, uint64_t id);
char *admin_etag(struct admin_call *c, uint64_t revision);
Skerry__V1__Revision *admin_revision(struct admin_call *c, uint64_t revision);

/*
 * Whether an update sets this field: the mask names it or, without a mask, the field is not empty. Paths of the mask
 * that `mutable` (NULL-terminated) does not hold are refused by admin_mask.
 */
MUST_CHECK int admin_mask(const Google__Protobuf__FieldMask *mask,
			  const ProtobufCMessageDescriptor *desc, const char *const *mutable_paths,
			  struct err *err);
bool admin_sets(const Google__Protobuf__FieldMask *mask, const char *path, bool filled);

/* A lifetime: NULL is 0, else from 1 s. ERR_INVALID with field "lifetime". */
MUST_CHECK int admin_lifetime(const Google__Protobuf__Duration *d, uint64_t *ret_ms,
			      struct err *err);

/* The id in the name of a user of that tailnet. ERR_INVALID with `field`. */
MUST_CHECK int admin_user(const char *name, uint64_t tailnet, const char *field, uint64_t *ret,
			  struct err *err);
/* The id of the user `admin` of the tailnet. */
MUST_CHECK int admin_default_user(struct admin_call *c, uint64_t tailnet, const char *field,
				  uint64_t *ret, struct err *err);

/* Makes c->key with a fresh secret and its credential for the command. */
Skerry__Internal__V1__Credential *admin_new_key(struct admin_call *c, enum key_kind kind);

/* Answers and frees: msg NULL is an error. For method->run. */
void admin_reply(struct admin_call *c, const ProtobufCMessage *msg);
void admin_fail(struct admin_call *c, const struct err *err);
/* Waits for the read level that the call asks for, then runs fn in a transaction; it returns 0 and a message, or <0. */
typedef int (*admin_read_fn)(struct admin_call *c, ProtobufCMessage **ret_msg, struct err *err);
void admin_read(struct admin_call *c, admin_read_fn fn);
/* The request's id into c->cmd, by which its repeat is known, if it has one. For methods that make their own command. */
MUST_CHECK int admin_request_id(struct admin_call *c, struct err *err);
/* The call if it is still there; frees c otherwise. For callbacks of the cluster that run() asked. */
struct rpc_call *admin_back(struct admin_call *c);

/* ---- page tokens (pure) ---- */

enum { PAGE_TOKEN_TEXT = 64 };
/* Position and place, unreadable and checked: a token of another list, tailnet or cluster is refused. */
void page_token_format(const char *path, uint64_t cluster, uint64_t tailnet, uint64_t pos,
		       char out[PAGE_TOKEN_TEXT]);
MUST_CHECK int page_token_parse(const char *text, const char *path, uint64_t cluster,
				uint64_t tailnet, uint64_t *ret_pos, struct err *err);

/* ---- skerry-read (pure) ---- */

struct read_want;
/* "local", "revision=EPOCH.REVISION", "leader"; NULL is leader. ERR_INVALID shows the forms. */
MUST_CHECK int read_level_parse(const char *text, struct read_want *ret, struct err *err);
