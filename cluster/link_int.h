/* The seam between the two threads of cluster/: what the raft side and the peer side ask of each other. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "base/err.h"
#include "base/limits.h"
#include "base/macros.h"

struct cluster;
struct loop;
struct stream_parcel;

/*
 * What the raft side wants of the peer side. There are two implementations: peer.c (TLS links) and the one of
 * the tests (socketpairs in one process). Every function is called on the raft thread, must return at once
 * (post to the own loop) and copies what it is given. After `stop` no other is called.
 */
struct peer_ops {
	/*
	 * Dial the raft link of a member; the answer is link_connected(c, request, ...), exactly once. Raft asks
	 * again after an error (100 ms later): the implementation limits the rate beyond that.
	 */
	void (*connect)(void *impl, uint64_t request, uint64_t id, const char *address);
	/* The member was removed from the member table: end all its links now and refuse it from here on. */
	void (*cut)(void *impl, uint64_t id);
	/* Leader (0: none known) or term changed; `self`: it is us. */
	void (*leader)(void *impl, uint64_t leader, uint64_t term, bool self);
	/* The member table or raft's configuration may have changed (also once after the start). */
	void (*members)(void *impl);
	/*
	 * Hand a packed Command to the leader; answer by link_proposed(c, request, ...) exactly once, at
	 * deadline_ms (clock_mono_ms()) at the latest.
	 */
	void (*propose)(void *impl, uint64_t request, uint64_t leader, const void *command,
			size_t len, uint64_t deadline_ms);
	/* Ask the leader for a read index; answer by link_read_index(c, request, ...), exactly once. */
	void (*read_index)(void *impl, uint64_t request, uint64_t leader, uint64_t deadline_ms);
	/* A way of link_connected_by or link_accepted_by has ended: by the member, or here. Not of one that was cut. */
	void (*ended)(void *impl, uint64_t way, bool remote);
	/*
	 * The leader has not been heard for a while, and still is not: ask it over another way than raft's (vouch.h);
	 * link_leader_vouched() when it leads. Again and again while it lasts. NULL: nobody is asked.
	 */
	void (*silent)(void *impl);
};

/* Where a command is in the log, and the term of the leader that says that it is committed (0: not known). */
struct link_place {
	uint64_t index, term;
};

/* ---- answers and events of the peer side; any thread, they post to the raft thread ---- */

/* fd: a connected socket (taken), or negative: an error code. A request that is unknown by now: fd is closed. */
void link_connected(struct cluster *c, uint64_t request, int fd);

/* A member dialled us: fd is a connected socket (taken); id and address as the member table has them. */
void link_accepted(struct cluster *c, uint64_t id, const char *address, int fd);

/* The same with a connection that goes on on the raft thread, named by `way` (not 0): see ops->ended and link_cut. */
void link_connected_by(struct cluster *c, uint64_t request, uint64_t way,
		       struct stream_parcel *parcel);
void link_accepted_by(struct cluster *c, uint64_t id, const char *address, uint64_t way,
		      struct stream_parcel *parcel);
void link_cut(struct cluster *c, uint64_t way);

/*
 * Answer of ops->propose. err->code 0: the leader committed it as entry at.index, `result` is its packed CommandResult
 * (copied), which is looked into only if our own apply does not answer.
 * Otherwise ERR_NOT_LEADER (leader_hint, 0: unknown), ERR_LIMIT (refused before the log), ERR_UNAVAILABLE (sent,
 * fate unknown: proposed again under the same sequence).
 */
void link_proposed(struct cluster *c, uint64_t request, const struct err *err,
		   ProtobufCBinaryData result, struct link_place at);

/* Answer of ops->read_index. */
void link_read_index(struct cluster *c, uint64_t request, const struct err *err,
		     struct link_place at);

/*
 * The process of the lighthouse that leads (as far as we know) is confirmed lost: a forced race, ranked by id among
 * the remaining voters, starts at once. Nothing happens if `id` does not lead any more. At most one in 5 s in a term.
 */
void link_leader_lost(struct cluster *c, uint64_t id);

/* The leader answered a question that was put at asked_ms (clock_mono_ms()): it leads `term` and holds its quorum. */
void link_leader_vouched(struct cluster *c, uint64_t id, uint64_t term, uint64_t asked_ms);
/* A voter that follows us in `term` asked that: it is with us, but does not hear us. */
void link_leader_asked(struct cluster *c, uint64_t id, uint64_t term);

/*
 * Do the clocks of a majority of voters agree with ours (10 s)? A cluster of one voter agrees with itself. skew_ms is the
 * clock_skew_ms() that was judged: when ours is set later, the word does not hold for it.
 */
void link_clocks_agree(struct cluster *c, bool agree, int64_t skew_ms);

/* ---- what the peer side serves for other lighthouses; any thread, the callback fires once on `loop` ---- */

/*
 * err->code 0: committed and applied here as at.index; borrows `result`, the packed CommandResult. ERR_NOT_LEADER, ERR_LIMIT,
 * ERR_UNAVAILABLE.
 */
typedef void (*propose_local_cb)(void *arg, const struct err *err, ProtobufCBinaryData result,
				 struct link_place at);
/* Leader only: a command of another lighthouse, packed (copied), origin set by that one. Never forwarded. */
MUST_CHECK int propose_local(struct cluster *c, struct loop *loop, const void *command, size_t len,
			     uint64_t deadline_ms, propose_local_cb cb, void *arg, struct err *err);

typedef void (*read_local_cb)(void *arg, const struct err *err, struct link_place at);
/* Leader only: an index that holds everything acknowledged before the call, committed. */
MUST_CHECK int read_local_index(struct cluster *c, struct loop *loop, uint64_t deadline_ms,
				read_local_cb cb, void *arg, struct err *err);

/* ---- raft's configuration ---- */

enum link_role { LINK_SPARE, LINK_STANDBY, LINK_VOTER };

struct link_server {
	uint64_t id;
	enum link_role role;
	char address[LIM_HOST_PORT + 1];
	uint64_t match_index; /* leader only: what it has stored, as far as we know */
	uint64_t
		acked_ms; /* leader only: clock_mono_ms() of its last answer in this term; 0: none */
};

struct link_state {
	uint64_t term, leader; /* leader 0: none known */
	bool self_leads;
	bool changing; /* a change of the configuration or a transfer is running */
	uint64_t commit_index, applied_index, last_index;
	uint64_t leader_since_ms; /* clock_mono_ms() when we became the leader; 0: we are not */
	uint64_t published_ms;    /* clock_mono_ms() of all this */
	unsigned election_ms;     /* the election timeout */
	size_t n;
	struct link_server server[LIM_MEMBERS];
};

/* As of the last turn of the raft thread. Any thread. */
void link_state(struct cluster *c, struct link_state *ret);

/* err->code 0 or why not: ERR_NOT_LEADER, ERR_AGAIN (another change runs), ERR_INVALID, ERR_ABORTED. */
typedef void (*link_change_cb)(void *arg, const struct err *err);

/*
 * Changes of raft's configuration: leader only, one at a time (further ones: ERR_AGAIN), the callback fires once on
 * `loop` when it is committed. Any thread.
 */
void link_add(struct cluster *c, struct loop *loop, uint64_t id, const char *address,
	      link_change_cb cb, void *arg); /* as standby */
void link_promote(struct cluster *c, struct loop *loop, uint64_t id, link_change_cb cb,
		  void *arg); /* standby to voter, once it has caught up */
void link_demote(struct cluster *c, struct loop *loop, uint64_t id, link_change_cb cb,
		 void *arg); /* voter to standby; not the leader itself */
void link_remove(struct cluster *c, struct loop *loop, uint64_t id, link_change_cb cb, void *arg);
/* To a voter, or 0: to any. Done when it leads or the election timeout has passed (ERR_ABORTED). */
void link_transfer(struct cluster *c, struct loop *loop, uint64_t id, link_change_cb cb, void *arg);

/* ---- digests ---- */

/* State digest and revision at the marker command with this id: 0, or ERR_NOT_FOUND. Any thread. */
MUST_CHECK int link_digest(struct cluster *c, uint64_t marker, uint8_t ret_digest[32],
			   uint64_t *ret_revision);

/*
 * A majority of the voters held `right` at this marker. Ours was another one: the state is repaired (leadership is handed
 * over, the process ends, see damage.c). Any thread.
 */
void link_digest_verdict(struct cluster *c, uint64_t marker, const uint8_t right[32]);

/* ---- for peer.c at the start ---- */

/*
 * Ends the process for the supervisor (70) with a message that says what and what to do; tests replace the end by a
 * hook. Any thread; returns only when a hook is set.
 */
void cluster_fail(const char *fmt, ...) PRINTF_LIKE(1, 2);
/* With another exit code, for an end that a new start does not heal. */
void cluster_fail_as(int code, const char *fmt, ...) PRINTF_LIKE(2, 3);
enum {
	CLUSTER_EXIT_DATA = 65, /* EX_DATAERR: what is on the disk is wrong, a person is needed */
	CLUSTER_EXIT_FAIL_STOP = 70, /* EX_SOFTWARE of sysexits: the supervisor starts us again */
	CLUSTER_EXIT_OLD_BUILD = 77, /* the state's feature level is above this build's */
};
typedef void (*cluster_fail_fn)(void *arg, const char *message);
void cluster_fail_hook(cluster_fail_fn fn, void *arg);
