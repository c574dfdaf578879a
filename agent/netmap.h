/* The netmap as the lighthouse sent it: assembled from chunks, brought on by deltas, kept on disk. Nothing is judged here. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/macros.h"
#include "skerry/v1/agent.pb-c.h"

/* One peer. The presence is kept beside the body, because it changes much more often. */
struct netmap_peer {
	uint64_t id;
	Skerry__V1__NetmapPeer *body; /* owned */
	size_t bytes;                 /* of the packed body */
	bool has_presence;
	bool online;
	int64_t last_seen_ms; /* unix ms, 0 = unknown */
};

/* Embedded; all zero is "nothing held". Single-threaded. */
struct netmap {
	uint64_t epoch; /* 0: nothing held */
	uint64_t revision;
	Skerry__V1__NetmapSelf *self; /* owned, NULL if nothing is held */
	Skerry__V1__NetmapView *view; /* owned, may be NULL */
	struct netmap_peer *peers;    /* owned, rising id */
	size_t n_peers;
	size_t cap_peers;
	size_t bytes; /* packed size of all bodies, at most LIM_NETMAP_BYTES */
};

/* What a delta touched, so that the caller does no more than it must. */
enum netmap_change {
	NETMAP_CHANGE_SELF = 1,
	NETMAP_CHANGE_PEERS = 2,
	NETMAP_CHANGE_PRESENCE = 4,
	NETMAP_CHANGE_VIEW = 8,
	NETMAP_CHANGE_REVISION = 16,
};

/* Frees the content; nothing is held afterwards. NULL is fine. */
void netmap_done(struct netmap *nm);
/* Moves `from` into `to`, whose content is freed; `from` is empty afterwards. */
void netmap_move(struct netmap *to, struct netmap *from);
/* True when a full netmap is held. */
bool netmap_held(const struct netmap *nm);
/* The peer with this id, or NULL; borrowed until the next change. */
struct netmap_peer *netmap_find(const struct netmap *nm, uint64_t id);

/* A full netmap on its way. Embedded; all zero is "none begun". */
struct netmap_assembly {
	struct netmap map; /* what has come so far */
	uint32_t next;     /* index of the chunk that must come */
};

/*
 * Takes one chunk (copies what it needs). Returns 1 when it was the last one: `a->map` is complete and the caller's to
 * move away; 0 when more must come. ERR_PROTOCOL when it does not fit (index, revision, no self, id 0 or twice),
 * ERR_LIMIT over LIM_NETMAP_CHUNKS, _PEERS or _BYTES; the assembly is empty then. A chunk with index 0 starts anew.
 */
MUST_CHECK int netmap_take_chunk(struct netmap_assembly *a, const Skerry__V1__NetmapChunk *chunk,
				 struct err *e);
void netmap_assembly_done(struct netmap_assembly *a);

/*
 * Brings the netmap on by a delta: bodies, removals, and with visible_complete everything that is not listed goes.
 * Presence of a peer that is not held is ignored. Returns 0 and what changed in *ret_changes (enum netmap_change).
 * ERR_STALE: the delta is of another epoch or below the held revision; ERR_PROTOCOL, ERR_LIMIT as above. On an error
 * nothing has changed: the caller asks for a full netmap.
 */
MUST_CHECK int netmap_apply_delta(struct netmap *nm, const Skerry__V1__NetmapDelta *delta,
				  unsigned *ret_changes, struct err *e);

/* Appends the canonical form (one NetmapChunk, peers by rising id): equal maps give equal bytes. */
void netmap_encode(const struct netmap *nm, bool with_presence, struct buf *out);
/* Reads it back. ERR_INVALID, ERR_LIMIT, ERR_PROTOCOL. */
MUST_CHECK int netmap_decode(const void *data, size_t len, struct netmap *ret, struct err *e);

/* The file form: magic, length, SHA-256, canonical form. ERR_CORRUPT when damaged. */
void netmap_file_encode(const struct netmap *nm, struct buf *out);
MUST_CHECK int netmap_file_decode(const void *data, size_t len, struct netmap *ret, struct err *e);
/* Reads the file; -ENOENT without one. Blocks. */
MUST_CHECK int netmap_load(const char *path, struct netmap *ret, struct err *e);
