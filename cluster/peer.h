/* The peer thread: port 8444, links to the other lighthouses, forwarding, joins, the watch over the leader. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"
#include "cluster/cluster.h"
#include "cluster/keyfile.h"
#include "skerry/internal/v1/peer.pb-c.h"

struct kv;
struct loop;
struct peer;

/* What the peer thread is told of consensus: a copy, sent whenever something in it changed. */
struct peer_view {
	uint64_t term;
	uint64_t leader; /* 0: none */
	bool is_leader;
	uint64_t commit_index, applied_index, last_index;
	uint64_t revision;
	size_t n_raft; /* raft's configuration: only on the leader */
	struct {
		uint64_t id;
		bool voter;	      /* else standby */
		uint64_t match_index; /* what it has acknowledged; 0: unknown */
	} raft[CLUSTER_MEMBERS_MAX];
};

enum peer_membership {
	PEER_RAFT_ADD,	    /* as a standby */
	PEER_RAFT_PROMOTE,  /* to voter, after it has caught up */
	PEER_RAFT_REMOVE,
	PEER_RAFT_TRANSFER, /* leadership to id; 0: to whoever is best */
};

typedef void (*peer_status_cb)(void *arg, const struct err *err);
typedef void (*peer_index_cb)(void *arg, const struct err *err, uint64_t raft_index);
/* `result` (packed CommandResult) is borrowed for the call; err->code ERR_NOT_LEADER: try elsewhere. */
typedef void (*peer_result_cb)(void *arg, const struct err *err, const void *result, size_t len,
			       uint64_t raft_index);
typedef void (*peer_digest_cb)(void *arg, const struct err *err, const uint8_t digest[32],
			       uint64_t revision);

/*
 * What the peer thread asks of the rest of cluster/. Called on the peer thread; must not block, except for the
 * read transaction. Callbacks fire exactly once, on the peer thread, never inside the call.
 */
struct peer_host {
	void *arg;

	/* A read transaction; ERR_AGAIN while there is no state yet (a joiner before its first snapshot). */
	int (*read_begin)(void *arg, const struct kv **ret, void **ret_txn, struct err *err);
	void (*read_end)(void *arg, void *txn);

	/*
	 * Leader only: proposes a packed command that a member sent, with the origin it carries. ERR_NOT_LEADER
	 * by the callback otherwise.
	 */
	void (*propose_local)(void *arg, const void *cmd, size_t len, peer_result_cb cb,
			      void *cb_arg);
	/* Leader only: an index that holds all that was acknowledged before the call. */
	void (*read_local_index)(void *arg, peer_index_cb cb, void *cb_arg);
	/* This lighthouse's own command (as cluster_propose, class internal); cmd is copied. */
	int (*propose)(void *arg, const Skerry__Internal__V1__Command *cmd, propose_cb cb,
		       void *cb_arg, struct err *err);
	/* The digest at a marker that was applied at raft_index; waits for its apply a little. */
	void (*digest)(void *arg, uint64_t marker, uint64_t raft_index, peer_digest_cb cb,
		       void *cb_arg);

	/* Membership on the raft thread; one at a time, more fail with ERR_AGAIN. `address`: PEER_RAFT_ADD. */
	void (*membership)(void *arg, enum peer_membership what, uint64_t id, const char *address,
			   peer_status_cb cb, void *cb_arg);

	/* An inbound raft link of member id: takes fd (one end of a socketpair, non-blocking). */
	void (*raft_accepted)(void *arg, uint64_t id, const char *address, int fd);
	/* The leader's process is gone (probe): force the race for this term, if id still leads it. */
	void (*leader_process_lost)(void *arg, uint64_t id, uint64_t term);

	/*
	 * This lighthouse may not go on: removed, or refused as a restored copy. `code` is the exit code for the
	 * supervisor, err the message with the remedy. Called at most once.
	 */
	void (*fatal)(void *arg, int code, const struct err *err);
};

enum {
	PEER_EXIT_REMOVED = 78,	 /* EX_CONFIG: not worth a restart */
	PEER_EXIT_STALE_DIR = 78,
};

struct peer_options {
	const char *dir;
	const char *listen;  /* address:port; port 0 for tests */
	const char *version; /* of this build */
	uint64_t incarnation;
	const struct keyfile *keys; /* borrowed for the peer's life; read only until renewal */
	const struct peer_host *host; /* copied */
	uint64_t boot_last_index; /* last index in the log at start: what peers compare */
};

/*
 * Binds the port and prepares the thread; nothing is served before peer_start. Strings are copied. Errors:
 * listener_new's, ERR_CORRUPT for own files.
 */
MUST_CHECK int peer_new(const struct peer_options *o, struct peer **ret, struct err *err);
/* Starts the thread. */
MUST_CHECK int peer_start(struct peer *p, struct err *err);
/* Cuts all links, ends the thread. Callbacks that wait get ERR_CANCELLED before it returns. */
void peer_stop(struct peer *p);
/* NULL is fine. */
void peer_free(struct peer *p);

struct loop *peer_loop(const struct peer *p);
/* The bound port. Any thread. */
uint16_t peer_port(const struct peer *p);

/* ---- from the raft thread; any thread, posted ---- */

/* Something in the view changed (copied). */
void peer_set_view(struct peer *p, const struct peer_view *v);
/* The member table changed: read it again. */
void peer_members_changed(struct peer *p);
/* libraft's own link to the leader ended (EOF or reset on the socketpair). */
void peer_leader_link_lost(struct peer *p, uint64_t id);

/*
 * A raft link to member id: dials, and answers on the peer thread by cb with one end of a socketpair
 * (non-blocking; the caller's) or -1. The owner's closing of that end ends the link.
 */
typedef void (*peer_raft_connect_cb)(void *arg, int fd, const struct err *err);
void peer_raft_connect(struct peer *p, uint64_t id, const char *address, peer_raft_connect_cb cb,
		       void *arg);

/*
 * Hands a packed command to the leader of the view. Fires once on the peer thread: the packed result and the
 * index, or ERR_NOT_LEADER / ERR_UNAVAILABLE (err.reason FATE_UNKNOWN when it may have been appended): the caller
 * tries again under the same sequence. deadline_ms: clock_mono_ms().
 */
void peer_forward_propose(struct peer *p, const void *cmd, size_t len, uint64_t deadline_ms,
			  peer_result_cb cb, void *arg);
/* The same for a leader-level read. */
void peer_forward_read_index(struct peer *p, uint64_t deadline_ms, peer_index_cb cb, void *arg);

/* ---- for the façade; any thread ---- */

/* Fills the rows that come from peers (connected, applied, revision, devices, clock offset, rtt). */
void peer_fill_status(struct peer *p, struct cluster_status *s);
void peer_set_devices(struct peer *p, uint64_t devices);
/* Certificate chain and key of the API listener (malloc'd PEM; the caller wipes the key). */
MUST_CHECK int peer_api_certificate(struct peer *p, char **ret_chain_pem, char **ret_key_pem,
				    struct err *err);
/* Bodies of the façade's calls of the same names; fire on `loop`. */
MUST_CHECK int peer_token_create(struct peer *p, struct loop *loop,
				 const Skerry__Internal__V1__Actor *actor, uint64_t lifetime_ms,
				 token_cb cb, void *arg, struct err *err);
MUST_CHECK int peer_member_remove(struct peer *p, struct loop *loop,
				  const Skerry__Internal__V1__Actor *actor, uint64_t id,
				  propose_cb cb, void *arg, struct err *err);
MUST_CHECK int peer_compare_digests(struct peer *p, struct loop *loop, uint64_t deadline_ms,
				    digest_cb cb, void *arg, struct err *err);
