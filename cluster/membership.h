/* Changes of who votes and who is a member (feature level 2): what the leader does next, and what it refuses. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/limits.h"
#include "base/macros.h"
#include "cluster/link_int.h"
#include "cluster/member.h"
#include "tailnet/records.h"

struct kv;

/* The record of the state, as the peer thread keeps it. Zeroed: none runs. */
struct membership {
	uint64_t id; /* 0: none runs */
	int kind;    /* ChangeKind */
	int step;    /* ChangeStep */
	uint64_t about;
	uint64_t enter[LIM_VOTERS], leave[LIM_VOTERS];
	size_t n_enter, n_leave;
	bool no_vote, cancelled;
	uint64_t token_id, expire_ms;
};

/* From the state; without one: zeroed. Texts are left out. */
MUST_CHECK int membership_read(const struct kv *kv, struct membership *ret, struct err *err);

struct membership_view {
	const struct member_table *table;
	const struct membership *change;
	const struct link_state *s;
	uint64_t self;
	uint64_t now_ms; /* state time, for the new host that does not come */
	bool (*connected)(void *arg, uint64_t id);
	void *arg;
};

/*
 * The next step, one at a time, from nothing but the state and raft's configuration: so that a new leader goes on where the
 * last one stopped, at whatever point that was.
 *
 * Removed members leave first, new ones enter as standbys. A change that runs: wait for the new host, then until all that
 * enter are connected and caught up; take the vote of those that go and are not reached; give the new votes; take the vote
 * of those that go and are reached, ourselves after a hand-over; then remove. No step is done after which the voters that
 * are reached would be no majority. A vote is taken in raft before the member is removed from the table: so at no point is
 * anybody needed who is refused.
 *
 * Without a change: standbys become voters when that makes 3 or 5 (ret->grow lists them), unless an operator keeps them so.
 */
void membership_next(const struct membership_view *v, struct member_todo *ret);

/* What an operator asks for. */
struct membership_wish {
	int kind; /* ChangeKind */
	uint64_t id[LIM_VOTERS];
	size_t n;
	bool no_fill;  /* DEMOTE, REMOVE: no standby takes the place */
	uint64_t with; /* REPLACE: this standby; 0: a new host */
};

/*
 * Which members enter and leave: fills ret->{kind, n_enter, enter, n_leave, leave}. A standby that is ready takes the
 * place of each voter that goes, as far as an odd number of voters comes of it.
 */
void membership_plan(const struct membership_view *v, const struct membership_wish *w,
		     struct membership *ret);

/*
 * May it begin, as far as the network tells? The state's own refusals come from apply. ERR_NOT_LEADER, or ERR_PRECONDITION
 * with WOULD_LOSE_QUORUM, MEMBER_NOT_CONNECTED, MEMBER_BEHIND, NO_OTHER_VOTER (the leader goes and nobody can take over).
 */
MUST_CHECK int membership_may(const struct membership_view *v, const struct membership *change,
			      struct err *err);
