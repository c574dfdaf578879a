/* Inside of the peer thread: its state, and the parts it is made of. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/backoff.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/list.h"
#include "base/macros.h"
#include "cluster/link_int.h"
#include "cluster/member.h"
#include "cluster/membership.h"
#include "cluster/peer.h"
#include "cluster/probe.h"
#include "net/loop.h"
#include "net/rpc.h"
#include "skerry/internal/v1/peer.pb-c.h"

struct dial;
struct dial_opts;
struct http_router;
struct http_server;
struct join_server;
struct listener;
struct metric;
struct peer_pump;
struct rpc_channel;
struct rpc_request;
struct stream;
struct tls_ctx;
struct tls_slot;

#define PEER_ALPN_RAFT "skerry-raft/1"
#define PEER_ALPN_PEER "skerry-peer/1"
#define PEER_ALPN_JOIN "skerry-join/1"

enum {
	PEER_TICK_MS = 200,
	PEER_ASK_MS = 1000,          /* between two WhoAreYou on a link */
	PEER_ASK_DEADLINE_MS = 2000, /* for its answer; without one the connection is made anew */
	PEER_DIAL_MS = 2000,
	PEER_DIAL_STAGGER_MS = 100, /* between connections that are tried beside each other */
	PEER_DIALS = 8,
	PEER_LOST_MS = 5000, /* without a link: declared lost by the leader */
	PEER_SILENT_MS =
		80, /* on a connection whose answer is awaited, and how often it is looked at */
	PEER_VET_MS = 2000,      /* a raft link waits so long to be vetted */
	PEER_UNKNOWN_MS = 1000,  /* and for a member that is not in the table, yet or any more */
	PEER_ACK_AGE_MS = 10000, /* when what a peer said of itself counts as acknowledged */
	PEER_SAVE_MS = 5000,     /* between two writes of acknowledged.json */
	PEER_RENEW_MS = 3600 * 1000,
	PEER_RENEW_AGAIN_MS = 2000, /* after a failure, such as no state yet */
	PEER_COMPARE_MS = 600 * 1000,
	PEER_COMPARE_ENTRIES = 100000, /* or when the log has grown by that */
	PEER_WAITING_MAX = 64, /* raft links of one member that wait to be vetted, or live */
};

/* One other member. Lives on the peer thread, from its entry in the table to its removal or the end. */
struct peer_link {
	struct list node;
	struct peer *peer;
	uint64_t id;
	char address[LIM_HOST_PORT + 1];
	bool told_address; /* by the member itself, which may have moved since the table was written */

	/* our connection for skerry-peer/1 */
	struct dial *dial;
	struct rpc_channel *channel; /* NULL: none */
	bool one_by_one;             /* it does not know ProposeMany */
	struct rpc_request *ask;
	struct loop_timer timer; /* the next dial, or the next question */
	struct backoff backoff;
	uint64_t ask_seq, answer_seq; /* questions asked; the last one answered */
	bool ask_again;               /* another one as soon as this is answered */
	uint64_t asked_ns;

	/* what it said; valid while heard_ms != 0 */
	bool vetted; /* a member in its running incarnation whose log holds what it had acknowledged */
	bool stale; /* it is not: a directory put back or wiped */
	bool leads;
	uint64_t vetted_incarnation;
	uint64_t incarnation, term, last_index, applied_index, revision, devices;
	int64_t skew_ms; /* its wall clock less our monotonic one, which nobody sets */
	bool disk_low;
	uint64_t rtt_us;
	uint64_t heard_ms;
	uint64_t asked_term,
		asked_ms; /* its last question to us as a leader that it does not hear */
	uint64_t down_ms; /* clock_mono_ms() since when there is no vetted link; 0: there is */
	uint64_t lost_incarnation; /* for which LighthouseLost was proposed */

	/* what it is known to have acknowledged */
	uint64_t ack;
	uint64_t ack_next, ack_next_ms; /* said by itself; counts when old enough */

	/* its connections to us */
	struct http_server *http;
	struct list raft; /* struct raft_link of peer_raft.c */
	size_t n_raft;
	unsigned raft_failures;
};

/* That others have seen us acknowledge more than our log holds. */
struct peer_behind {
	uint64_t ack, since_ms;
};

struct peer {
	struct cluster *cluster;
	char *dir;
	char *version;
	uint64_t incarnation;
	struct keyfile *keys;
	void (*refused)(void *arg, int exit_code, const char *message);
	void *refused_arg;
	uint64_t cluster_id, self;

	struct loop *loop;
	bool started;
	atomic_bool stopping;
	bool refusing; /* `refused` was called */
	struct loop_timer removed;
	struct loop_timer tick;

	struct member_table table;
	struct membership change; /* that runs */
	uint32_t level;           /* feature level of the state; 0: no state yet */
	uint64_t state_ms;        /* its time, as of the last look at the table */
	uint64_t epoch, revision; /* of then */
	struct list links;
	uint64_t next_way; /* of peer_raft.c */

	/* listening */
	struct tls_slot *tls;
	struct listener *listener;
	struct http_router *peer_router, *join_router;
	struct http_server *strangers; /* removed members: they are told why */
	struct http_server *join_http;
	struct rpc_server *peer_rpc, *join_rpc;
	struct join_server *join;

	/* as the raft side said last */
	uint64_t leader, term;
	bool leads;

	/* probe.run */
	struct probe probe;
	bool probing;
	struct dial *probe_dial;
	struct rpc_channel *probe_channel;
	struct loop_timer probe_timer;
	struct probe_race last_race;

	/* vouch_run.c */
	struct list questions; /* to a leader that is not heard */
	size_t n_questions;

	/* member.run */
	bool changing;           /* a step of member_next runs */
	uint64_t change_hold_ms; /* not before this, after a failure */
	uint64_t stall_ms;       /* growth waits since then; 0: it does not */
	uint64_t clocks_ms, transfer_ms;

	/* acknowledged.json, as it was at the start; the links hold what is known since */
	struct peer_ack *acks;
	size_t n_acks;
	bool acks_dirty, acks_saving;
	uint64_t acks_saved_ms;
	uint64_t renew_ms;

	struct list forwards; /* requests of the raft side under way */
	struct list unknown;  /* its wishes for raft links to whom the table does not have */
	struct list gathered; /* those of them that go at the end of this turn */
	struct flush_hook forward_flush;

	/* what the directory lacks, as peers say (the second time it counts) */
	struct peer_behind behind;

	struct list notices; /* struct peer_notice */
	uint64_t notice_ms;  /* the next round */

	struct list digests;      /* comparisons under way */
	struct list facts;        /* rounds of questions for facts under way */
	struct list changes;      /* changes that an operator asked for, under way */
	struct list change_calls; /* the same of other lighthouses, on the leader */
	uint64_t digest_mismatches;
	bool comparing;      /* one of our own accord is under way */
	uint64_t compare_ms; /* how often; the next one: */
	uint64_t compare_due_ms, compare_due_index;
	uint64_t disk_hold_ms;    /* no hand-over for the disk's sake before this */
	struct list digest_waits; /* calls of others that wait for a marker */

	/* for other threads */
	pthread_mutex_t lock; /* guards rows and the PEM texts of keys */
	struct cluster_member_status rows[CLUSTER_MEMBERS_MAX];
	size_t n_rows;
	atomic_uint_fast64_t devices;
	atomic_uint certificates; /* counts their changes, for who serves with them */
	struct rotate *rotate;    /* peer_rotate.c */
	struct metric *metric_links;
};

/* peer.c */
struct peer_link *peer_link_find(struct peer *p, uint64_t id);
void peer_rows_update(struct peer *p);
/* Says `refused` once, with PEER_EXIT_REFUSED or PEER_EXIT_REMOVED. */
void peer_refuse(struct peer *p, int exit_code, const char *fmt, ...) PRINTF_LIKE(3, 4);
void peer_table_refresh(struct peer *p);

/* peer_tls.c */
/* Server side context of the port; client context for one member and ALPN (a new reference). */
MUST_CHECK int peer_tls_server(struct peer *p, struct tls_ctx **ret, struct err *err);
MUST_CHECK int peer_tls_client(struct peer_link *l, const char *alpn, struct tls_ctx **ret,
			       struct err *err);
/* The member at the other end of a TLS stream (whose handshake verified it), judged anew by the table. */
MUST_CHECK int peer_tls_who(struct peer *p, const struct stream *s, uint64_t *ret_id,
			    struct err *err);
/* The CA with its key, from the state. The caller ends it by pki_ca_done. */
MUST_CHECK int peer_tls_ca(struct peer *p, struct pki_ca *ret, struct err *err);
/*
 * The certificate with what others need to find the CA they know, their pin last of all: while the CA is rotated first
 * the new one certified by the old one, then the old one, then the new one. Appends.
 */
void peer_tls_chain(const struct keyfile *k, const char *leaf_pem, struct buf *out);
/* Certificates or CAs have changed: new connections see it; the API side is told by the counter. */
MUST_CHECK int peer_tls_reload(struct peer *p, struct err *err);
/* New certificates when half of their time is over. Negative: not yet, to be tried again. */
MUST_CHECK int peer_tls_renew(struct peer *p);

/* peer_link.c */
struct peer_link *peer_link_new(struct peer *p, const struct member *m);
void peer_link_free(struct peer_link *l);
/* From the table (ignored once the member itself has said where it is), or `told` by the member. */
void peer_link_set_address(struct peer_link *l, const char *address, bool told);
/* Asks WhoAreYou now, or right after the question under way. False: there is no connection. */
bool peer_link_ask(struct peer_link *l);
/* The member shows that it is there (it connected to us): a connection that we lack is dialled now. */
void peer_link_kick(struct peer_link *l);
bool peer_link_connected(const struct peer_link *l);
/*
 * The connection is made anew when TCP is stuck on it, or, if somebody waits, when the other host is silent. Never from a
 * callback of the connection.
 */
void peer_link_renew(struct peer_link *l, bool awaited);
/* Dials the member: several times, a little after each other, and the first connection counts. */
struct dial *peer_dial(struct peer_link *l, struct dial_opts *o,
		       void (*cb)(void *arg, struct stream *stream, size_t which,
				  const struct err *err),
		       void *arg);
void peer_link_fill_request(struct peer_link *l, Skerry__Internal__V1__WhoAreYouRequest *q);

/* peer_ack.c */
MUST_CHECK int peer_ack_load(struct peer *p, struct err *err);
uint64_t peer_ack_of(struct peer *p, uint64_t id);
/*
 * Another one has seen us acknowledge `acknowledged`; our log ends at `last`, as the raft thread said at published_ms. True:
 * it really ends before what was acknowledged. A thread that is busy says so late, and what it has acknowledged meanwhile
 * is in the log all the same: only figures count that are younger than the first such word.
 */
bool peer_behind_judge(struct peer_behind *b, uint64_t now_ms, uint64_t acknowledged, uint64_t last,
		       uint64_t published_ms);
void peer_ack_tick(struct peer *p, uint64_t now_ms);
/* While we lead: takes over what each member has acknowledged by now, also one that is away. */
void peer_ack_leader(struct peer *p);

/* peer_raft.c */
void peer_raft_dial(struct peer *p, uint64_t request, uint64_t id);
/* There is a link now: what waited for it goes on. */
void peer_raft_known(struct peer_link *l);
/* Answers what waits for members that are not in the table. */
void peer_raft_stop(struct peer *p);
/* Takes the stream. */
void peer_raft_accept(struct peer_link *l, struct stream *s);
/* The question l->answer_seq was answered (or refused): go on with what waits. */
void peer_raft_vetted(struct peer_link *l);
void peer_raft_cut(struct peer_link *l);
/* A link that the raft thread had is over. */
void peer_raft_ended(struct peer *p, uint64_t way, bool remote);

/* peer_notice.c */
/* To one removed member: that a newer epoch goes on without it. */
struct peer_notice {
	struct list node; /* on peer.notices */
	struct peer *peer;
	uint64_t id;
	struct dial *dial;
	struct rpc_channel *channel;
	struct rpc_request *call;
	struct loop_timer timer;
};
/* Leader only, now and then: tells those that it does not count any more. */
void peer_notice_run(struct peer *p, const struct link_state *s, uint64_t now_ms);
void peer_notice_stop(struct peer *p);
void peer_notice_add(struct peer *p);
/* For the gate: is it the call of a lighthouse that we may not know? */
bool peer_notice_passes(const char *path, const struct err *who);
MUST_CHECK int peer_tls_client_removed(struct peer_notice *n, struct tls_ctx **ret,
				       struct err *err);

/* peer_accept.c */
MUST_CHECK int peer_accept_new(struct peer *p, const char *address, struct err *err);
void peer_accept_stop(struct peer *p);
void peer_accept_free(struct peer *p);
/* As rpc_call_find; answers of the raft side that come after the end find none (NULL). */
struct rpc_call *peer_call_find(struct rpc_server *server, struct rpc_ref ref);

/* peer_service.c */
void peer_service_add(struct peer *p);
/* Forgets the calls that wait. */
void peer_service_stop(struct peer *p);
/* What we say of ourselves. */
void peer_service_who(struct peer *p, Skerry__Internal__V1__WhoAreYouResponse *r);

/* forward.c */
void forward_init(struct peer *p);
/* Copies the command, which goes at the end of a turn of the peer thread with the others of it. Any thread. */
void forward_propose(struct peer *p, uint64_t request, uint64_t leader, const void *command,
		     size_t len, uint64_t deadline_ms);
void forward_read_index(struct peer *p, uint64_t request, uint64_t leader, uint64_t deadline_ms);
/* Another leader is known: what waits for the one before, which may be silent, goes to the new one. */
void forward_leader(struct peer *p);
/* Answers what waits (ERR_CLOSED). */
void forward_stop(struct peer *p);

/* probe_run.c */
void probe_leader(struct peer *p);
void probe_stop(struct peer *p);

/* vouch_run.c */
/* The leader is not heard: asks it, unless enough questions are under way. */
void vouch_ask(struct peer *p);
void vouch_stop(struct peer *p);
/* A voter that follows us in this term (0: does not ask) does not hear us: do we hold our quorum? */
bool vouch_answer(struct peer *p, uint64_t from, uint64_t term);

/* member_run.c */
void member_run(struct peer *p);
/* Borrows s. */
void peer_membership_view(struct peer *p, const struct link_state *s, struct membership_view *ret);
/* For tests: before and after each step (enum member_action) that the leader takes. NULL: none. */
typedef void (*member_step_fn)(void *arg, int action, bool begun);
void member_step_hook(member_step_fn fn, void *arg);

/* peer_facts.c */
void peer_facts_stop(struct peer *p);
/* backup_error holds a text of the answer. */
void peer_facts_fill(struct peer *p, Skerry__Internal__V1__GetFactsResponse *r,
		     char backup_error[128]);

/* peer_change.c */
/*
 * Leader only: judges and begins what was asked (copied); cb fires once on the peer loop, later, with the change that was begun
 * (0: it is done already).
 */
void peer_change_here(struct peer *p, const Skerry__Internal__V1__ChangeMemberRequest *q,
		      members_cb cb, void *arg);
void peer_change_stop(struct peer *p);

/* peer_disk.c */
/* Leader: hands over when its disk is nearly full and another voter's is not. */
void peer_disk_run(struct peer *p, uint64_t now_ms);

/* peer_digest.c */
/* Leader: compares the states once in a while, and tells each member what was found. */
void peer_digest_run(struct peer *p, uint64_t now_ms);
void peer_digest_stop(struct peer *p);

/* peer_rotate.c */
void rotate_init(struct peer *p);
void rotate_run(struct peer *p);
void rotate_stop(struct peer *p);
void rotate_free(struct peer *p);

/* join_serve.c */
struct join_server *join_server_new(struct peer *p);
void join_server_free(struct join_server *j);
