/* Typed reads of the state for cluster/ and api/, over any kv. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/macros.h"
#include "tailnet/kv.h"
#include "tailnet/records.h"

/*
 * All of them decode into the caller's arena: a record lives as long as that does, whatever happens to the store.
 * Results: 0; ERR_NOT_FOUND (also: past the last one); ERR_LIMIT when the arena's budget is used up; ERR_CORRUPT
 * for a record that cannot be read; another negative code of the store. *ret is untouched unless 0.
 * A `_next` gives the first record with an id above `after` (0: the first).
 *
 * Records of a tailnet that was deleted are not found, though they go in portions.
 */

/* A count of rotations begins at 1; what was written before there were any says 0. */
static inline uint32_t rotation_number(uint32_t n)
{
	return MAX(n, 1u);
}

MUST_CHECK int query_meta(const struct kv *kv, struct arena *a, Meta **ret);
/* Only what a heartbeat needs, without an arena. */
MUST_CHECK int query_revision(const struct kv *kv, uint64_t *ret_epoch, uint64_t *ret_revision,
			      uint64_t *ret_time_ms);

/* Members; removed ones (kind REMOVED) are among them. */
MUST_CHECK int query_member(const struct kv *kv, uint64_t id, struct arena *a, MemberRecord **ret);
MUST_CHECK int query_member_next(const struct kv *kv, uint64_t after, struct arena *a,
				 MemberRecord **ret);
/* Neither expired at `now_ms` nor used nor revoked, if now_ms is not 0; any with 0. */
MUST_CHECK int query_join_token(const struct kv *kv, uint64_t id, uint64_t now_ms, struct arena *a,
				JoinTokenRecord **ret);
/* The change of the members that runs, or else (`last`) the one that ended last. ERR_NOT_FOUND. */
MUST_CHECK int query_membership(const struct kv *kv, bool last, struct arena *a,
				MembershipChange **ret);
/* The certificate authority with the highest generation; then those below `generation`. */
MUST_CHECK int query_ca(const struct kv *kv, struct arena *a, CaRecord **ret);
MUST_CHECK int query_ca_before(const struct kv *kv, uint32_t generation, struct arena *a,
			       CaRecord **ret);
MUST_CHECK int query_secret(const struct kv *kv, const char *name, struct arena *a,
			    SealedSecret **ret);

/* What a call with a request id was answered, if that counts still: now_ms is the state's time. */
MUST_CHECK int query_request(const struct kv *kv, uint64_t tailnet, const char *caller,
			     const char *request_id, uint64_t now_ms, struct arena *a,
			     DedupeRecord **ret);

/* node_count is filled in. */
MUST_CHECK int query_tailnet(const struct kv *kv, uint64_t id, struct arena *a,
			     TailnetRecord **ret);
MUST_CHECK int query_tailnet_named(const struct kv *kv, const char *name, struct arena *a,
				   TailnetRecord **ret);
MUST_CHECK int query_tailnet_next(const struct kv *kv, uint64_t after, struct arena *a,
				  TailnetRecord **ret);
bool query_tailnet_exists(const struct kv *kv, uint64_t id);
/* Counters and floors of a tailnet, or of the system (0). Zeros if there is none yet. */
MUST_CHECK int query_head(const struct kv *kv, uint64_t tailnet, struct arena *a,
			  TailnetHead **ret);

MUST_CHECK int query_user(const struct kv *kv, uint64_t tailnet, uint64_t id, struct arena *a,
			  UserRecord **ret);
MUST_CHECK int query_user_login(const struct kv *kv, uint64_t tailnet, const char *login,
				struct arena *a, UserRecord **ret);
MUST_CHECK int query_user_next(const struct kv *kv, uint64_t tailnet, uint64_t after,
			       struct arena *a, UserRecord **ret);

MUST_CHECK int query_node(const struct kv *kv, uint64_t tailnet, uint64_t id, struct arena *a,
			  NodeRecord **ret);
MUST_CHECK int query_node_next(const struct kv *kv, uint64_t tailnet, uint64_t after,
			       struct arena *a, NodeRecord **ret);
/* Node keys are unique in the cluster. */
MUST_CHECK int query_node_by_key(const struct kv *kv, const uint8_t key[32], struct arena *a,
				 NodeRecord **ret);
MUST_CHECK int query_node_named(const struct kv *kv, uint64_t tailnet, const char *given_name,
				struct arena *a, NodeRecord **ret);
/* By an address of 4 or 16 bytes. */
MUST_CHECK int query_node_by_address(const struct kv *kv, const void *address, size_t len,
				     struct arena *a, NodeRecord **ret);
/*
 * The nodes of a machine key, in all tailnets: start with a zeroed cursor, until ERR_NOT_FOUND. `kind` is enum
 * MachineKeyKind.
 */
struct query_cursor {
	uint64_t tailnet, user;
	bool started;
};
MUST_CHECK int query_node_of_machine(const struct kv *kv, int kind, const uint8_t key[32],
				     struct query_cursor *c, struct arena *a, NodeRecord **ret);
/* Endpoints, home relay and disco key; a node that never said any has an empty record. */
MUST_CHECK int query_endpoints(const struct kv *kv, uint64_t tailnet, uint64_t node,
			       struct arena *a, NodeEndpoints **ret);
MUST_CHECK int query_presence(const struct kv *kv, uint64_t tailnet, uint64_t node, struct arena *a,
			      Presence **ret);

MUST_CHECK int query_presence_next(const struct kv *kv, uint64_t tailnet, uint64_t after,
				   struct arena *a, Presence **ret);

/* Neither revoked nor expired at `now_ms`. A spent one-use key is found: it may register its node again. */
bool query_auth_key_valid(const AuthKeyRecord *k, uint64_t now_ms);
MUST_CHECK int query_auth_key(const struct kv *kv, uint64_t tailnet, uint64_t id, struct arena *a,
			      AuthKeyRecord **ret);
MUST_CHECK int query_auth_key_next(const struct kv *kv, uint64_t tailnet, uint64_t after,
				   struct arena *a, AuthKeyRecord **ret);
/* By the id in the text of the key, which names no tailnet: the record says it. */
MUST_CHECK int query_auth_key_any(const struct kv *kv, uint64_t id, struct arena *a,
				  AuthKeyRecord **ret);

/*
 * Neither revoked nor expired at `now_ms`, and its user exists and is not suspended; *ret_role is the lower one
 * of the key's role and its user's. ERR_DENIED says no.
 */
MUST_CHECK int query_api_key_valid(const struct kv *kv, const ApiKeyRecord *k, uint64_t now_ms,
				   uint32_t *ret_role);
MUST_CHECK int query_api_key(const struct kv *kv, uint64_t tailnet, uint64_t id, struct arena *a,
			     ApiKeyRecord **ret);
MUST_CHECK int query_api_key_next(const struct kv *kv, uint64_t tailnet, uint64_t after,
				  struct arena *a, ApiKeyRecord **ret);
MUST_CHECK int query_api_key_any(const struct kv *kv, uint64_t id, struct arena *a,
				 ApiKeyRecord **ret);

/* By code; expiry is judged against `now_ms` unless it is 0. A decided one is found until it expires. */
MUST_CHECK int query_pending_code(const struct kv *kv, const char *code, uint64_t now_ms,
				  struct arena *a, PendingRecord **ret);
MUST_CHECK int query_pending(const struct kv *kv, uint64_t tailnet, uint64_t id, struct arena *a,
			     PendingRecord **ret);
MUST_CHECK int query_pending_next(const struct kv *kv, uint64_t tailnet, uint64_t after,
				  struct arena *a, PendingRecord **ret);

/* The audit chain of a tailnet (0: the system). `_next` goes up; `_before` goes down (UINT64_MAX: the newest). */
MUST_CHECK int query_audit(const struct kv *kv, uint64_t tailnet, uint64_t sequence,
			   struct arena *a, AuditRecord **ret);
MUST_CHECK int query_audit_next(const struct kv *kv, uint64_t tailnet, uint64_t after,
				struct arena *a, AuditRecord **ret);
MUST_CHECK int query_audit_before(const struct kv *kv, uint64_t tailnet, uint64_t before,
				  struct arena *a, AuditRecord **ret);

/*
 * The change index of a tailnet: a watcher that holds revision R starts with a cursor of {.revision = R} and gets
 * each object that changed after R once, at its last change, until ERR_NOT_FOUND. kind is enum change_kind. No
 * arena: fixed size. If R is below the floor (query_floor) a full netmap is needed instead.
 */
struct query_change {
	uint64_t revision, object, time_ms;
	uint32_t kind;
	bool deleted, visibility;
};
MUST_CHECK int query_change_next(const struct kv *kv, uint64_t tailnet, struct query_change *c);
/* *ret_visibility is the revision of the last change that can alter who sees whom. */
MUST_CHECK int query_floor(const struct kv *kv, uint64_t tailnet, uint64_t *ret_floor,
			   uint64_t *ret_visibility);

/*
 * The value that the record under `key` had at `revision` (a packed message, copied into the arena). ERR_RANGE if
 * that is older than what is kept: *ret_oldest then names the oldest revision (also set on success).
 */
MUST_CHECK int query_history(const struct kv *kv, uint64_t tailnet, struct slice key,
			     uint64_t revision, struct arena *a, struct slice *ret,
			     uint64_t *ret_oldest);
