/* The member table as the peer thread keeps it, and what the leader does to raft's configuration because of it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/limits.h"
#include "base/macros.h"
#include "cluster/link_int.h"
#include "cluster/pki.h"

struct kv;

struct member {
	uint64_t id;
	bool removed;
	bool voter;           /* the table's kind */
	bool keep_standby;    /* an operator took its vote */
	uint64_t incarnation; /* 0: lost or never started */
	char name[LIM_LABEL + 1];
	char address[LIM_HOST_PORT + 1];
	char api_url[LIM_HOST_PORT + 16];
	uint8_t public_key[PKI_SPKI_MAX];
	size_t public_key_len;
	uint8_t spki_sha256[32]; /* of it */
};

/* Sorted by id. Embedded; zeroed memory is empty. Removed members stay in it: their ids are refused for ever. */
struct member_table {
	struct member *m;
	size_t n;
};

void member_table_done(struct member_table *t);
const struct member *member_find(const struct member_table *t, uint64_t id);
/* Adds a member; ERR_LIMIT when a text or the key is too long for it. Replaces one of the same id. */
MUST_CHECK int member_table_add(struct member_table *t, uint64_t id, bool removed, bool voter,
				uint64_t incarnation, const char *name, const char *address,
				const char *api_url, const void *public_key, size_t len,
				struct err *err);

/* From the state. ERR_NOT_FOUND when there is no state yet. */
MUST_CHECK int member_table_read(const struct kv *kv, struct member_table *ret, struct err *err);

/*
 * members.json in the state directory: who the peers are while there is no state to ask (a joiner before its first
 * snapshot, a store that is being rebuilt). A missing file is an empty table.
 */
MUST_CHECK int member_table_load(const char *dir, struct member_table *ret, struct err *err);
MUST_CHECK int member_table_save(const char *dir, const struct member_table *t, struct err *err);
bool member_table_equal(const struct member_table *a, const struct member_table *b);

/* ---- raft's configuration follows the table (leader) ---- */

enum member_action {
	MEMBER_NOTHING,
	MEMBER_REMOVE,    /* out of raft's configuration */
	MEMBER_HAND_OVER, /* leadership: this lighthouse itself is removed */
	MEMBER_ADD,       /* as a standby */
	MEMBER_PROMOTE,   /* to voter */
	MEMBER_SET_VOTER, /* say in the table what raft has done */
	MEMBER_SET_STANDBY,
	/* membership_next alone */
	MEMBER_DEMOTE,        /* to standby, in raft */
	MEMBER_SET_REMOVED,   /* out of the table; raft follows */
	MEMBER_GROW,          /* begin a change by which standbys become voters */
	MEMBER_END,           /* the change is done */
	MEMBER_END_CANCELLED, /* ... is given up and undone as far as that goes */
	MEMBER_END_EXPIRED,   /* ... waited for a host that did not come */
};

struct member_todo {
	enum member_action action;
	uint64_t id;
	int step; /* ChangeStep that is shown meanwhile, also with MEMBER_NOTHING; 0: as it is */
	uint64_t about; /* the member of the step */
	size_t n_grow;
	uint64_t grow[LIM_VOTERS];
};

/* A standby is caught up when it lacks fewer entries than this. */
enum { MEMBER_LAG = 256 };

/* NULL: not in raft's configuration. */
const struct link_server *member_server(const struct link_state *s, uint64_t id);
bool member_caught_up(const struct link_server *server, const struct link_state *s);
/* Removed members out of raft's configuration, new ones in as standbys. False: there is nothing to do. */
bool member_next_place(const struct member_table *t, const struct link_state *s, uint64_t self,
		       struct member_todo *ret);

/*
 * For a state of feature level 1: the next step, one at a time; pure, so that a new leader resumes where the last one stopped. `connected` says
 * whether the member has a link now.
 *
 * Removed members leave first. New ones enter as standbys, which costs no availability. Standbys that have caught
 * up become voters only when that leads to an odd number of voters: 1 -> 3 -> 5. Two voters would need both of two
 * lighthouses alive, where one voter and a standby need one; so the second waits for the third, and then both are
 * promoted one after the other. An even number that is left by a removal stays until a member joins.
 */
void member_next(const struct member_table *t, const struct link_state *s, uint64_t self,
		 bool (*connected)(void *arg, uint64_t id), void *arg, struct member_todo *ret);

/* ---- what an operator asks of the leader; pure ---- */

/*
 * May leadership go to `id` (0: to the voter that is best prepared)? Sets *ret_id. ERR_NOT_FOUND or ERR_PRECONDITION with
 * the reasons of cluster_transfer.
 */
MUST_CHECK int member_may_lead(const struct member_table *t, const struct link_state *s,
			       uint64_t self, uint64_t id,
			       bool (*connected)(void *arg, uint64_t id), void *arg,
			       uint64_t *ret_id, struct err *err);
/* May the standby `id` become a voter? As member_next, only to an odd number. The reasons of cluster_promote. */
MUST_CHECK int member_may_vote(const struct member_table *t, const struct link_state *s,
			       uint64_t self, uint64_t id,
			       bool (*connected)(void *arg, uint64_t id), void *arg,
			       struct err *err);

/* ---- clocks ---- */

/* Another voter's clock minus ours, in ms. */
struct member_clock {
	bool known;
	int64_t offset_ms;
};

enum { MEMBER_CLOCK_MS = 10000 };

/*
 * From the offsets of the other voters (n of them; ours is 0): does a majority of all voters, ourselves included,
 * agree with our clock to 10 s?
 */
bool member_clocks_agree(const struct member_clock *c, size_t n);
/* Is our clock more than 10 s off the median of the known ones? False when fewer than a majority are known. */
bool member_clock_is_off(const struct member_clock *c, size_t n);
/* The index of the other voter whose clock is nearest to that median; n when none is known. */
size_t member_clock_best(const struct member_clock *c, size_t n);
