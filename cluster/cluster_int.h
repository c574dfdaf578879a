/* Inside of cluster/: the struct behind the façade and what its files share. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "base/map.h"
#include "cluster/cluster.h"
#include "cluster/consensus.h"
#include "cluster/fsm.h"
#include "cluster/keyfile.h"
#include "cluster/link_int.h"
#include "cluster/snapshot_look.h"
#include "cluster/store.h"
#include "net/loop.h"
#include "tailnet/records.h"
#include "tailnet/tailnet.h"

struct peer;

enum { DIGESTS_KEPT = 8 };

/* ---- propose.c, propose_remote.c ---- */

/* Where our own commands wait: until this lighthouse has applied them. */
struct proposer {
	pthread_mutex_t lock;
	struct list all;      /* struct proposal, by sequence */
	struct list incoming; /* struct proposal.in, not yet seen by the raft thread */
	bool posted;          /* a post to the raft thread is on its way */
	bool closed;
	uint64_t next_sequence;
	size_t items, bytes; /* of clients */
	size_t share[3];     /* items per class */
	struct map tailnets; /* tailnet -> struct tailnet_share */
	/* raft thread */
	struct map requests; /* forwarded: request -> struct proposal */
	bool stalled;        /* one that the raft thread has seen may wait for something */
	uint64_t next_request;
	size_t committed; /* of ours that wait for our own apply */
	struct loop_timer timer;
	/* commands of other lighthouses, on the leader */
	atomic_size_t remote_items;
	atomic_uint_fast64_t refused_full;
};

/* ---- read.c ---- */

struct reads {
	struct list revision; /* wait for a revision */
	struct list index;    /* wait for an applied index that is known */
	struct list asking;   /* go with the ReadIndex call that is on its way */
	struct list waiting;  /* for the next call, or for a leader */
	struct list marks;    /* struct mark: markers in our own log */
	uint64_t request;     /* that call; 0: none */
	struct loop_timer timer;
	atomic_size_t count;
};

/* ---- damage.c ---- */

/* The walk that looks at all records and indexes; raft thread, its work on a worker. */
struct scrub {
	struct cluster *c;
	struct loop_timer timer;
	uint64_t every_ms;
	struct store_read *read;     /* NULL: none is under way */
	struct tailnet_check *check; /* while one is */
	bool working, done;
	atomic_bool cancel; /* the end of the process */
	bool rebuilt;       /* the store was just made anew from the log */
	char odd[sizeof(
		((struct err *)0)
			->msg)]; /* what contradicts itself although it was; empty: nothing */
	int result;
	struct err err;
	bool passed;                   /* since the start */
	atomic_int_fast64_t passed_ms; /* unix time; 0: not yet */
};

/* ---- snapshot_scrub.c ---- */

/* The look at the newest snapshot on the disk; raft thread, its work on a worker. */
struct snapshot_scrub {
	struct cluster *c;
	struct loop_timer timer;
	uint64_t every_ms, took_ms;
	char *dir;
	struct snapshot_file file;
	struct snapshot_look *look; /* NULL: none is under way */
	bool working, done;
	int result;
	struct err err;
	char told[SNAPSHOT_NAME_MAX]; /* the last one that was damaged */
	struct metric *passes, *damages;
};

/* ---- watchdog.c ---- */

/* One thread that another one looks at. */
struct watchdog {
	struct loop_pulse last;
	uint64_t spent_ns; /* in this turn */
	atomic_uint_fast64_t looks;
	bool known; /* `last` holds something */
	bool asked; /* to end by itself */
};

/* A look; true: this turn has used more than limit_ms of processor time. */
bool watchdog_look(struct watchdog *w, const struct loop *loop, uint64_t limit_ms);
void watchdog_init(struct cluster *c, uint64_t turn_cpu_ms);
/* Of the peer thread: at raft's and the front's. */
void watchdog_peer(struct cluster *c);
/* Of raft's: at the peer thread's loop (NULL: there is none). */
void watchdog_raft(struct cluster *c, const struct loop *peer);

/* ---- disk.c ---- */

struct disk {
	bool probing, failed;
	uint64_t asked_ms;
	int error;     /* of the probe: errno, 0: none */
	char what[16]; /* which step of it */
	struct loop_timer timer;
};

struct cluster {
	/* Set at the start, constant from then on. */
	char *dir, *version, *peer_address, *api_url;
	struct keyfile keys;
	uint64_t id, cluster_id, incarnation;
	int lock_fd;
	const struct peer_ops *ops;
	void *ops_impl;
	struct list early; /* struct early_connect: until there are ops; raft thread */
	struct peer *peer; /* NULL in tests with another ops */
	struct loop *loop; /* of the raft thread */
	struct store *store;
	struct consensus *cs;

	struct proposer prop;
	struct reads reads;

	/* changes.c */
	pthread_mutex_t changes_lock;
	struct list subscribers;

	/* sessions.c */
	pthread_mutex_t sessions_lock;
	struct list gatherers;

	/* What other threads see; written by the raft thread. */
	pthread_mutex_t seen_lock;
	pthread_cond_t closed_cond;
	bool closed;      /* consensus has ended */
	unsigned backups; /* workers that read the store; closed_cond tells of each end */
	bool running;     /* the thread was started */
	struct link_state state;
	struct state_view view;
	uint64_t heard_ms;
	struct {
		uint64_t marker, revision;
		uint8_t digest[32];
	} digest[DIGESTS_KEPT];
	size_t next_digest;

	/* ticker.c, raft thread */
	struct loop_timer tick_timer, start_timer, publish_timer, handover_timer;
	bool tick_running;
	uint64_t tick_due; /* the deadline that the last Tick was for */
	unsigned tick_vain;
	bool announced; /* LighthouseStart was answered: commands of this incarnation count */
	bool stopping, handing_over;
	atomic_bool disk_low;   /* the file system of the directory is nearly full */
	bool syncing, sync_due; /* a worker looks at the store; it syncs, too */
	uint64_t looked_ms, synced_ms;
	uint64_t refused_told; /* of prop.refused_full */
	const char *role_told;
	/* What the doctor asks; guarded by seen_lock. */
	struct {
		uint64_t append_p99_us, append_n;
		uint64_t disk_free, disk_bytes;
		unsigned map_permille;
		char backup_error[128];
	} health;
	atomic_int_fast64_t backup_every_ms;
	atomic_int_fast64_t backup_ms;

	/* watchdog.c */
	uint64_t turn_cpu_ms;
	struct watchdog watch_raft, watch_front; /* the peer thread's */
	struct watchdog watch_peer;              /* the raft thread's */
	struct loop *_Atomic front;              /* NULL: not to be watched */

	struct disk disk; /* raft thread; the probe's result is a worker's while it runs */

	/* damage.c, raft thread */
	struct scrub scrub;
	uint64_t scrub_ms; /* as configured */
	struct snapshot_scrub snapshot_scrub;
	struct loop_timer damage_timer;
	char damage[300]; /* what is wrong with the state; empty: nothing is known */
	bool damage_told;
	bool digest_right, settled;
	atomic_int_fast64_t
		compared_ms; /* unix time of the last comparison that found us right; 0: none */
	struct {
		struct metric *term, *applied, *commit, *last, *leads, *revision, *bytes, *map,
			*oldest_read, *waiting, *disk_free, *disk_bytes, *queued, *reads, *refused,
			*log_bytes, *snapshot_bytes, *snapshot_age, *map_bytes, *map_used,
			*page_bytes, *free_pages;
	} metric;
};

/* What this lighthouse knows of itself, without certificates and names. Any thread. */
void cluster_facts_self(struct cluster *c, struct cluster_facts *ret);

/*
 * cluster_open with another peer side, for tests: ops->... is called with impl. NULL: the real one (cluster_open).
 */
MUST_CHECK int cluster_open_with(struct cluster **ret, const struct cluster_options *o,
				 const struct peer_ops *ops, void *impl, struct err *err);
/* The parts of cluster_open: everything but the peer side; then the raft thread starts. */
MUST_CHECK int cluster_prepare(struct cluster **ret, const struct cluster_options *o,
			       struct err *err);
MUST_CHECK int cluster_start(struct cluster *c, const struct peer_ops *ops, void *impl,
			     struct err *err);
/* Leadership handed over, raft thread ended; the peer side may be stopped then, and cluster_free'd. */
void cluster_stop(struct cluster *c);
/* As if the process were killed: nothing handed over, no mark of an orderly end. For tests. */
void cluster_kill(struct cluster *c);
void cluster_free(struct cluster *c);

/* Runs fn(arg) on the raft thread and waits. Not from the raft thread. */
void cluster_call(struct cluster *c, void (*fn)(void *arg), void *arg);

/* ---- raft thread: what happened ---- */
/* Does somebody wait for an apply? */
bool propose_awaits(const struct cluster *c);
bool read_awaits(const struct cluster *c);
void propose_applied(struct cluster *c, const struct applied *a);
void propose_state(struct cluster *c); /* leader or term changed: what waits is sent */
void propose_restored(
	struct cluster *c); /* also after applied entries: indexes that are waited for */
void propose_init(struct cluster *c);
void propose_close(struct cluster *c); /* raft thread: everything is answered ERR_CLOSED */
void propose_done(struct cluster *c);

void read_init(struct cluster *c);
void read_progress(struct cluster *c); /* applied index or revision moved */
void read_state(struct cluster *c);
void read_close(struct cluster *c);

void changes_init(struct cluster *c);
void changes_applied(struct cluster *c, const struct applied *a);
void changes_reset(struct cluster *c);
void changes_done(struct cluster *c);

void sessions_init(struct cluster *c);
void sessions_done(struct cluster *c);

void ticker_start(
	struct cluster *c); /* announces this incarnation; before it no other command goes out */
void ticker_run(struct cluster *c); /* looks whether a Tick is due */
void ticker_stop(struct cluster *c);

/*
 * The state of this lighthouse is wrong (any thread): its store is marked, leadership handed over, the process ends; the
 * next start rebuilds it.
 */
void cluster_damage(struct cluster *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* every_ms 0: 6 h. */
void scrub_start(struct cluster *c, uint64_t every_ms);
void scrub_stop(struct cluster *c);
/* As often, by scrub_start() and scrub_stop(). */
void snapshot_scrub_start(struct cluster *c, uint64_t every_ms);
void snapshot_scrub_stop(struct cluster *c);
void snapshot_scrub_done(struct cluster *c);

/* disk.c */
/* Once a second: how much room there is. */
void disk_judge(struct cluster *c);
/* When a write to the log does not end: asks the disk why. */
void disk_watch(struct cluster *c);
/* Any thread. */
bool cluster_disk_low(const struct cluster *c);

/* cluster_begin.c */
/* Checks the directory, locks it, makes what is in it. */
MUST_CHECK int begin_dirs(struct cluster *c, struct err *err);
/* Store and log; a store that is found wrong is made anew at once. */
MUST_CHECK int begin_state(struct cluster *c, const struct cluster_options *o,
			   const struct consensus_events *events, struct err *err);
/* Makes up for the connections that raft asked for before the peers were there; without ops it only forgets them. */
void cluster_early_connects(struct cluster *c);

/* cluster_gauges.c */
void cluster_gauges_make(struct cluster *c);
void cluster_gauges(struct cluster *c); /* raft thread */

/* cluster_status without what peers tell. Any thread. */
void cluster_status_self(struct cluster *c, struct cluster_status *ret);
/* Copies state and view for other threads. */
void cluster_publish(struct cluster *c);

/* Would the command make the state grow? Deletions, ticks and the like are accepted at any size. */
bool propose_grows(int body_case);
/* 0 or ERR_LIMIT: the state or the map is full. Raft thread. */
MUST_CHECK int propose_admit(struct cluster *c, bool grows, struct err *err);
/* 0, or what `skerry cluster finalize-upgrade` is for: the state's level does not have that command yet. Raft thread. */
MUST_CHECK int propose_level(struct cluster *c, uint32_t level, struct err *err);
