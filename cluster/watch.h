/* The watch hub: brings what changed to every device that watches its netmap, encoded once. One per front loop. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/blob.h"
#include "base/err.h"
#include "base/macros.h"

struct cluster;
struct cluster_changes;
struct kv;
struct loop;
struct watch_hub;
struct watcher;

enum { WATCH_PINS = 2 };

/* Where a hub reads. Two implementations: watch_source_cluster(), and the tests' store in memory. */
struct watch_source_ops {
	/* A consistent view until end(); within one loop turn. */
	int (*begin)(void *impl, const struct kv **ret_kv, struct err *err);
	void (*end)(void *impl);
	/* Milliseconds since a quorum was known; 0: it is now. */
	uint64_t (*quorum_age_ms)(void *impl);
	/* The pins of the CAs that count; returns how many. NULL: none are told. */
	size_t (*ca_pins)(void *impl, uint8_t ret[WATCH_PINS][32]);
};

struct watch_source {
	const struct watch_source_ops *ops;
	void *impl;
};

/* The replicated state of this lighthouse. The impl lives until watch_source_free. */
struct watch_source watch_source_cluster(struct cluster *c);
void watch_source_free(struct watch_source *s);

/* Where a watcher's messages go: a gRPC stream, or a test. */
struct watch_sink_ops {
	/* One packed WatchResponse made of pieces (references are taken). Negative: full, the watcher stays dirty. */
	int (*send)(void *arg, struct blob *const *pieces, size_t n);
	/* Bytes that wait unsent. While there are any only the mark "dirty" is kept for the watcher. */
	size_t (*backlog)(void *arg);
	/* The right to watch is gone, or a newer session took over: end the call with *why. The watcher is gone. */
	void (*end)(void *arg, const struct err *why);
};

struct watch_params {
	uint64_t tailnet, node;
	uint64_t session; /* attached by the caller; a higher one elsewhere ends this watcher */
	uint64_t epoch, revision; /* what the device holds; 0, 0: nothing */
};

/* The source is borrowed. Reads the present revision: the cluster must be open. Never NULL. */
struct watch_hub *watch_hub_new(struct loop *loop, const struct watch_source *source);
/* All watchers must be removed. NULL is allowed. */
void watch_hub_free(struct watch_hub *hub);

/* Hear of a commit (cluster_subscribe's callback calls it). */
void watch_hub_changes(struct watch_hub *hub, const struct cluster_changes *changes);

/*
 * Begins to watch: what the device lacks is sent from the next loop turn on. A revision ahead of this lighthouse's
 * waits until it has caught up. Never NULL.
 */
struct watcher *watch_add(struct watch_hub *hub, const struct watch_params *p,
			  const struct watch_sink_ops *sink, void *arg);
/* No call into the sink any more. Not after its end(). NULL is allowed. */
void watch_remove(struct watcher *w);
/* The sink's backlog became 0. */
void watch_writable(struct watcher *w);

size_t watch_count(const struct watch_hub *hub);
/* The revision up to which everything was sent. */
uint64_t watch_revision(const struct watcher *w);

/* At most one message with nothing but presence in so many ms (LIM_PRESENCE_FANOUT_MS at first). */
void watch_hub_set_presence_ms(struct watch_hub *hub, uint64_t ms);

/* For tests: what is due now is built now; heartbeats are not. */
void watch_hub_flush(struct watch_hub *hub);
