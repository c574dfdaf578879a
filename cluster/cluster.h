/* The replicated state as a lighthouse uses it: propose commands, read at a level, learn of changes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"
#include "skerry/internal/v1/command.pb-c.h"
#include "skerry/internal/v1/state.pb-c.h"

struct arena;
struct cluster;
struct kv;
struct loop;

/* How a lighthouse is set up. Strings are borrowed until the call returns. */
struct cluster_options {
	const char *dir;         /* state directory, 0700 */
	const char *peer_listen; /* address:port to bind for peer links */
	const char
		*peer_address; /* host:port that other lighthouses dial; NULL: as at init or join */
	const char *api_url;   /* https://host:port that devices dial; NULL: as at init or join */
	const char *version;   /* of this build */
	unsigned election_ms;  /* 0: 1000 */
	unsigned heartbeat_ms; /* 0: 100 */
	uint64_t map_bytes;    /* LMDB map; 0: LIMIT_STORE_MAP */
	uint64_t snapshot_bytes; /* log bytes between snapshots; 0: 16 MiB */
	uint64_t look_bytes;    /* for tests: up to which the store's pages are looked at; 0: any */
	uint64_t apply_turn_ns; /* for tests: what one turn of the loop may apply; 0: 20 ms */
	uint64_t compare_ms; /* between two comparisons of the states, by the leader; 0: 10 min */
	uint64_t scrub_ms;   /* between two computations of the digest anew; 0: 6 h */
	uint64_t
		turn_cpu_ms; /* for tests: processor time of one step of a thread that ends the process; 0: 30 s */
};

struct cluster_init_options {
	const char *dir;
	const char *name;         /* of this lighthouse */
	const char *cluster_name; /* a DNS label */
	const char *base_domain;  /* NULL: <cluster_name>.internal */
	const char *peer_address;
	const char *api_url;
};

/*
 * Makes a new cluster of one in an empty directory: CA, cluster.key, this lighthouse's keys, the bootstrap
 * command as the log's first entry. ret_recovery (malloc'd, caller frees with secret care) is the recovery
 * string of cluster.key, to be shown once. Refuses a directory that already holds a lighthouse.
 */
MUST_CHECK int cluster_init(const struct cluster_init_options *o, char **ret_recovery,
			    struct err *err);

struct cluster_join_options {
	const char *dir;
	const char *token; /* sk-join-… */
	const char *name;
	const char *peer_address;
	const char *api_url;
	const char *version;
	unsigned timeout_ms;
};

/*
 * Joins the cluster that the token names: blocks (runs a loop of its own) until this directory is ready for
 * cluster_open. A call after a lost answer with the same token and directory is answered alike.
 */
MUST_CHECK int cluster_join(const struct cluster_join_options *o, struct err *err);

/*
 * Opens the directory and starts the raft and the peer thread. Errors name the next step (ERR_PRECONDITION:
 * not initialised; ERR_CORRUPT: log or store, with the file). Thread: main.
 */
MUST_CHECK int cluster_open(struct cluster **ret, const struct cluster_options *o, struct err *err);

/* Hands leadership over if it is held, ends both threads, syncs the store. Blocks. NULL is allowed. */
void cluster_close(struct cluster *c);

/* The loop that serves clients, to be looked after like our own (watchdog.c); it lives until cluster_close() is done. */
void cluster_watch_front(struct cluster *c, struct loop *loop);

/* ---- who we are ---- */
uint64_t cluster_id(const struct cluster *c);
uint64_t cluster_lighthouse_id(const struct cluster *c);
uint64_t cluster_incarnation(const struct cluster *c);
/* https://host:port of this lighthouse for devices. Lives as long as c. */
const char *cluster_api_url(const struct cluster *c);
/* SHA-256 of the SubjectPublicKeyInfo of the cluster CA that signs now. Any thread. */
void cluster_ca_pin(struct cluster *c, uint8_t ret[32]);
/* All that count: the one that signs now, then while it is rotated the one before. Returns how many. Any thread. */
enum { CLUSTER_CA_PINS = 2 };
size_t cluster_ca_pins(struct cluster *c, uint8_t ret[CLUSTER_CA_PINS][32]);
/* Changes when cluster_api_certificate has another answer. Any thread. */
unsigned cluster_certificate_count(struct cluster *c);
/*
 * Certificate chain and key (PEM, malloc'd, key in guarded memory until copied) for an API listener: names
 * <cluster-id>.skerry.invalid and the host of api_url, URI skerry://<cluster>/api/<lighthouse id>.
 */
MUST_CHECK int cluster_api_certificate(struct cluster *c, char **ret_chain_pem, char **ret_key_pem,
				       struct err *err);

/* ---- propose ---- */

/* Who pays for a place in the queue. */
enum propose_class {
	PROPOSE_CLIENT,   /* counted per tailnet */
	PROPOSE_PRESENCE, /* sessions, facts */
	PROPOSE_INTERNAL, /* ticks, membership */
};

struct propose_options {
	enum propose_class class;
	uint64_t
		deadline_ms; /* clock_mono_ms(); dropped while it waits past it; 0: 30 s from now */
};

/*
 * Fires exactly once on the loop of the call, after this lighthouse's own apply. err->code is 0 when the
 * command was applied: `r` then holds the deterministic answer, which may be a refusal (r->code is a gRPC
 * status). Otherwise r is NULL and err says why: ERR_LIMIT (queue full), ERR_DEADLINE (never appended),
 * ERR_NO_QUORUM/ERR_UNAVAILABLE (fate unknown if reason is FATE_UNKNOWN). Borrows r for the call.
 */
typedef void (*propose_cb)(void *arg, const struct err *err,
			   const Skerry__Internal__V1__CommandResult *r);

/*
 * Proposes `cmd` (copied). Sets origin (lighthouse, incarnation, sequence) itself; forwards to the leader; on
 * a change of leader proposes again under the same sequence, which apply deduplicates. Any thread that runs
 * `loop`. A failure that is known at once is returned and the callback does not fire.
 */
MUST_CHECK int cluster_propose(struct cluster *c, struct loop *loop,
			       const Skerry__Internal__V1__Command *cmd,
			       const struct propose_options *o, propose_cb cb, void *arg,
			       struct err *err);

/*
 * What apply would answer now, on a read transaction (an overlay takes the puts): refusals found here never
 * reach the log. Returns the gRPC code as r does; the strings live in `arena`.
 */
MUST_CHECK int cluster_precheck(struct cluster *c, const Skerry__Internal__V1__Command *cmd,
				struct arena *arena, struct err *err);
/* The same in a read transaction that is open. */
struct cluster_read;
MUST_CHECK int cluster_precheck_in(const struct cluster_read *read,
				   const Skerry__Internal__V1__Command *cmd, struct arena *arena,
				   struct err *err);

/* ---- read ---- */

/* A read transaction: a consistent view. Must not outlive the loop turn (named and aged in the metrics). */
MUST_CHECK int cluster_read_begin(struct cluster *c, const char *name, struct cluster_read **ret,
				  struct err *err);
const struct kv *cluster_read_kv(const struct cluster_read *r);
/* Whether one that begins now would show the same. Any thread. */
bool cluster_read_current(const struct cluster_read *r);
void cluster_read_end(struct cluster_read *r);

enum read_level {
	READ_LOCAL,    /* what this lighthouse has applied */
	READ_REVISION, /* at least this revision of this epoch */
	READ_LEADER,   /* everything acknowledged before the call */
};

struct read_want {
	enum read_level level;
	uint64_t epoch, revision; /* READ_REVISION */
	uint64_t deadline_ms;     /* clock_mono_ms() */
};

/* `err->code` 0: begin a read transaction now, in this callback. Fires exactly once, on `loop`. */
typedef void (*read_cb)(void *arg, const struct err *err);

/*
 * Waits until this lighthouse may answer at the level. READ_REVISION of another epoch fails at once with
 * ERR_PRECONDITION (EPOCH_CHANGED); no quorum: ERR_NO_QUORUM at the deadline at the latest. Never calls cb
 * inside this call.
 */
MUST_CHECK int cluster_read_wait(struct cluster *c, struct loop *loop, const struct read_want *want,
				 read_cb cb, void *arg, struct err *err);

/* ---- changes ---- */

/* One object that a group of commands changed. Kinds are enum change_kind of tailnet/. */
struct cluster_change {
	uint64_t tailnet;
	uint64_t object;
	uint64_t revision;
	uint32_t kind;
	bool deleted;
	bool visibility; /* who sees whom may have changed in the tailnet */
};

/* The changes of one commit, in order; `reset` after a snapshot was installed: everything may differ. */
struct cluster_changes {
	uint64_t epoch;
	uint64_t revision; /* of the state after the commit */
	bool reset;
	size_t n;
	struct cluster_change change[];
};

typedef void (*changes_cb)(void *arg, const struct cluster_changes *changes);

/*
 * Calls cb on `loop` after each commit that changed something, in order, and coalesced when the loop is slow
 * (bounded: past LIMIT_CHANGES it becomes a `reset`). Subscribe once per front loop, before it runs.
 */
void cluster_subscribe(struct cluster *c, struct loop *loop, changes_cb cb, void *arg);

/* ---- sessions ---- */

/* Gathers attach and detach of the turn into one command. `done` (may be NULL) as propose_cb. */
struct session_event {
	uint64_t tailnet, node, session;
	const char *instance_id;
	bool detach, clean;
};
MUST_CHECK int cluster_session(struct cluster *c, struct loop *loop, const struct session_event *e,
			       propose_cb done, void *arg, struct err *err);

/* ---- status ---- */

enum { CLUSTER_MEMBERS_MAX = 16 };

struct cluster_member_status {
	uint64_t id;
	bool self, leader, connected, voter;
	bool disk_low; /* less than LIM_DISK_FREE_BYTES free below its state directory */
	uint64_t applied_index, revision, devices, incarnation;
	int64_t clock_offset_ms;
	uint64_t rtt_us;
};

struct cluster_status {
	uint64_t cluster_id, lighthouse_id, incarnation, leader_id;
	uint64_t term, commit_index, applied_index, last_index;
	uint64_t epoch, revision;
	bool quorum;            /* a leader is known and was heard within 5 s */
	uint64_t quorum_age_ms; /* since then; 0: now */
	uint32_t feature_level;
	uint8_t digest[32];
	size_t n_members;
	struct cluster_member_status member[CLUSTER_MEMBERS_MAX];
};

/* Any thread; a snapshot that is at most one turn of the raft loop old. */
void cluster_status(struct cluster *c, struct cluster_status *ret);

/* Tells the others how many devices are attached here. Any thread. */
void cluster_set_devices(struct cluster *c, uint64_t devices);

/* ---- members ---- */

/*
 * A join token: registers its hash by a command and answers with the text. Fires once on `loop`.
 */
typedef void (*token_cb)(void *arg, const struct err *err, const char *token, uint64_t id,
			 uint64_t expire_ms);
MUST_CHECK int cluster_token_create(struct cluster *c, struct loop *loop,
				    const Skerry__Internal__V1__Actor *actor, uint64_t lifetime_ms,
				    token_cb cb, void *arg, struct err *err);

enum cluster_members_kind {
	CLUSTER_PROMOTE, /* standbys become voters */
	CLUSTER_DEMOTE,  /* voters become standbys; standbys take their places */
	CLUSTER_REMOVE,  /* members leave for good; standbys take the places of voters */
	CLUSTER_REPLACE, /* one leaves, another takes its place */
	CLUSTER_CANCEL,  /* the change that runs is given up */
};

enum { CLUSTER_WISH_MAX = 5 };

struct cluster_wish {
	enum cluster_members_kind kind;
	size_t n;
	uint64_t id[CLUSTER_WISH_MAX];
	bool no_fill; /* DEMOTE, REMOVE: no standby takes the place */
	uint64_t
		with; /* REPLACE: this standby; 0: a host that joins with the token of `credential` */
	const Skerry__Internal__V1__Credential *credential;
	uint64_t lifetime_ms;
	const Skerry__Internal__V1__Actor *actor;
	const char *reason;
};

/* change: its id, of the record that runs or ended last (query_membership); 0: it was done without one. */
typedef void (*members_cb)(void *arg, const struct err *err, uint64_t change);
/*
 * Changes who votes and who is a member: the leader judges, and drives the change from a record in the state, so that it
 * outlives this call and any leader. `w` is copied. Fires once on `loop`: when the change has ended, waits for a new host, or
 * the deadline has passed and it goes on by itself. Refused with ERR_PRECONDITION and a reason: CHANGE_IN_FLIGHT,
 * WOULD_LOSE_QUORUM, LAST_VOTER, EVEN_VOTERS, VOTERS_FULL, ALREADY_VOTER, ALREADY_STANDBY, NOT_A_VOTER, NO_CHANGE,
 * MEMBER_NOT_CONNECTED, MEMBER_BEHIND, NO_OTHER_VOTER, FEATURE_LEVEL; ERR_LIMIT (TOO_MANY_STANDBYS), ERR_NOT_FOUND
 * (MEMBER_NOT_FOUND), ERR_NO_QUORUM (no leader). Nothing has changed then.
 */
MUST_CHECK int cluster_change_members(struct cluster *c, struct loop *loop,
				      const struct cluster_wish *w, uint64_t deadline_ms,
				      members_cb cb, void *arg, struct err *err);

/* Hands leadership over to a voter, or with 0 to the one that is best prepared; any lighthouse passes it to the leader. */
typedef void (*transfer_cb)(void *arg, const struct err *err, uint64_t leader_id);
/*
 * Fires once on `loop`. Refused with ERR_PRECONDITION and a reason: CHANGE_IN_FLIGHT, LEADS_ALREADY, NOT_A_VOTER,
 * MEMBER_NOT_CONNECTED, MEMBER_BEHIND, NO_OTHER_VOTER, WOULD_LOSE_QUORUM; ERR_NOT_FOUND (MEMBER_NOT_FOUND).
 */
MUST_CHECK int cluster_transfer(struct cluster *c, struct loop *loop, uint64_t id,
				uint64_t deadline_ms, transfer_cb cb, void *arg, struct err *err);
/* ---- rotation of what the cluster trusts ---- */

struct cluster_rotated {
	uint32_t ca_generation, seal;
	uint8_t pin[32], old_pin[32];
	bool has_old;
	char *recovery;            /* of the new cluster.key; wiped after the callback */
	unsigned holders, members; /* lighthouses that hold the new cluster.key, of all */
	bool repeated;             /* the same request had been carried out before: how it is now */
};
/* err->code 0: done. Borrows r. */
typedef void (*rotated_cb)(void *arg, const struct err *err, const struct cluster_rotated *r);
/*
 * A new CA, certified by the present one; both count until CaRetire. Fires once on `loop`. Refusals: FEATURE_LEVEL,
 * CA_NOT_RETIRED, CA_CHANGED, CHANGE_IN_FLIGHT. `as`: who asks, copied: actor, and caller, request id and hash, by which the
 * repeat of a request is known, and answered without another rotation.
 */
MUST_CHECK int cluster_ca_rotate(struct cluster *c, struct loop *loop,
				 const Skerry__Internal__V1__Command *as, uint64_t deadline_ms,
				 rotated_cb cb, void *arg, struct err *err);
/*
 * A new cluster.key, handed to every lighthouse that is linked, and all secrets sealed under it. A lighthouse that is away
 * gets it when it comes back. Refusals as above, MEMBER_NOT_CONFIRMED, NOT_HELD.
 */
MUST_CHECK int cluster_seal_rotate(struct cluster *c, struct loop *loop,
				   const Skerry__Internal__V1__Command *as, uint64_t deadline_ms,
				   rotated_cb cb, void *arg, struct err *err);

/* What a lighthouse says of its own health. Times are unix milliseconds of its clock. */
struct cluster_facts {
	uint64_t id;
	char name[64], version[64];
	uint32_t feature_min, feature_max;
	bool self, voter, leader;
	bool connected;          /* the asked lighthouse has a link to it */
	char error[128];         /* connected, but it did not say what follows; empty: it did */
	int64_t clock_offset_ms; /* its clock less that of the asked lighthouse */
	uint64_t rtt_us;
	uint64_t append_p99_us, append_n;              /* of the last 10 min */
	int64_t peer_cert_ms, api_cert_ms, ca_cert_ms; /* ends of validity; 0: unknown */
	uint64_t disk_free, disk_bytes;
	uint32_t map_permille;
	uint64_t state_bytes, state_limit;
	uint64_t commit_index, applied_index, term, leader_id;
	uint64_t digest_mismatches; /* comparisons that differed, since its start */
	char store_rebuilt[128];    /* why its store was rebuilt; empty: it was not */
	int64_t compared_ms,
		scrubbed_ms; /* last comparison and scrub that found it right; 0: none since its start */
	uint32_t ca_generation, seal; /* what it has confirmed to hold, as the state has it */
	int64_t backup_ms;            /* of the last backup that it made; 0: none */
	int64_t backup_every_ms;      /* of its schedule; 0: it has none */
	char backup_error[128]; /* why the last backup by schedule failed; empty: it did not */
};
typedef void (*facts_cb)(void *arg, const struct err *err, size_t n, const struct cluster_facts *f);
/* Asks every member for its facts; fires once on `loop`, borrows f. Needs no quorum. */
MUST_CHECK int cluster_ask_facts(struct cluster *c, struct loop *loop, uint64_t deadline_ms,
				 facts_cb cb, void *arg, struct err *err);
/* A backup of the state was completed at wall_ms; for the facts. Any thread. */
void cluster_note_backup(struct cluster *c, int64_t wall_ms);
/*
 * Into the audit chain: who has taken what of the state. `cmd` comes with its actor, the rest is filled in; file may be
 * NULL. Otherwise as cluster_propose().
 */
MUST_CHECK int cluster_propose_backup(struct cluster *c, struct loop *loop,
				      Skerry__Internal__V1__Command *cmd, uint64_t revision,
				      uint64_t bytes, const char *file, uint64_t deadline_ms,
				      propose_cb cb, void *arg, struct err *err);
/* Why it is not there, of what propose_cb is given. NULL: it is, or the cluster is at level 1, which knows no such note. */
const char *cluster_backup_unnoted(const struct err *err,
				   const Skerry__Internal__V1__CommandResult *r);
/* This lighthouse has a schedule; and its last backup failed (until the next one is noted). Any thread. */
void cluster_note_backup_schedule(struct cluster *c, int64_t every_ms);
void cluster_note_backup_failed(struct cluster *c, const char *why);

struct cluster_digest {
	uint64_t id;
	uint8_t digest[32];
	char error[128]; /* empty: digest is valid */
};
typedef void (*digest_cb)(void *arg, const struct err *err, uint64_t revision, size_t n,
			  const struct cluster_digest *d);
/* Puts a marker into the log and collects what each member's state was there. */
MUST_CHECK int cluster_compare_digests(struct cluster *c, struct loop *loop, uint64_t deadline_ms,
				       digest_cb cb, void *arg, struct err *err);
