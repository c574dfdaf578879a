/* Inside of the watch hub: watch.c schedules, watch_build.c encodes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/list.h"
#include "base/map.h"
#include "base/metrics.h"
#include "cluster/watch.h"
#include "net/loop.h"
#include "tailnet/kv.h"
#include "tailnet/records.h"

struct watch_tailnet {
	uint64_t id;
	struct list watchers;
	size_t n_watchers;
	struct map peers; /* node id -> struct watch_peer: encoded bodies */
};

/* A peer's body as field `peers` of chunk or delta (they share the number), with its tag. */
struct watch_peer {
	struct blob *blob;
	uint64_t built; /* revision of the view that it was built from */
};

struct watcher {
	struct watch_hub *hub;
	struct watch_tailnet *tailnet;
	struct list of_tailnet; /* in tailnet->watchers */
	struct list ready;      /* in hub->ready while dirty and not blocked */
	struct list later;      /* in hub->later: only presence, due at the next tick */
	uint64_t node, session;
	uint64_t epoch, revision; /* what was sent; 0: nothing */
	bool check;               /* its own node changed: may it still watch? */
	bool building;            /* chunks of a full netmap are being sent */
	uint64_t build_revision, build_after;
	uint32_t build_index;
	uint64_t presence_ms; /* loop time of the last presence that was sent */
	const struct watch_sink_ops *sink;
	void *arg;
};

struct watch_hub {
	struct loop *loop;
	const struct watch_source *source;
	struct map tailnets; /* id -> struct watch_tailnet */
	struct map by_node;  /* node id -> struct watcher (the last added) */
	struct list ready, later;
	size_t n_watchers, n_building;
	uint64_t presence_ms; /* between messages of presence alone */
	uint64_t epoch, seen; /* revision of the last batch that was heard of */
	struct flush_hook hook;
	struct loop_timer heartbeat, presence;
	struct metric *encoded, *sent, *bytes, *full, *blocked, *waiting_full, *ended;
	/* Of one flush: */
	const struct kv *kv;
	uint64_t now_revision, now_epoch;
	struct arena arena;
	struct list sets; /* struct watch_set up to now_revision: once for all slices of a flush */
	struct map live;  /* tailnet id -> struct watch_live */
};

/* Live nodes of a tailnet, decoded once per flush. */
struct watch_live {
	NodeRecord **node;
	size_t n;
};

/* What changed in a tailnet after a revision. */
struct watch_set {
	struct list link;
	uint64_t tailnet, from;
	uint64_t *body; /* ids of nodes whose body changed, rising */
	uint64_t *body_at;
	size_t n_body;
	uint64_t *removed;
	size_t n_removed;
	uint64_t *presence;
	size_t n_presence;
	uint64_t *moved; /* ids whose record changed (CHANGE_NODE), a part of body */
	size_t n_moved;
	bool self; /* everybody's own part changed (DNS, lighthouses) */
	bool visibility;
	bool too_much; /* a full netmap is cheaper */
	struct blob
		*shared; /* the delta for whoever is not concerned itself; NULL: not built yet */
};

enum watch_result {
	WATCH_DONE,    /* nothing is left to send */
	WATCH_MORE,    /* another part is to be built in a later turn */
	WATCH_BLOCKED, /* the sink is full */
	WATCH_LATER,   /* only presence, and too soon */
	WATCH_ENDED,   /* the watcher is gone */
};

/* Sends the next part. Only inside a flush (hub->kv set). */
enum watch_result watch_build(struct watcher *w);
/* A store that cannot be read ends the watcher. */
enum watch_result watch_end(struct watcher *w, const struct err *why);
void watch_peer_forget(struct watch_tailnet *t, uint64_t node);
void watch_peers_forget(struct watch_tailnet *t);
/* Frees the change sets: nobody needs them any more, or the state has moved on. */
void watch_sets_free(struct watch_hub *hub);
/* Frees what a flush made; the change sets stay while watchers wait for the next slice of time. */
void watch_flush_done(struct watch_hub *hub);
