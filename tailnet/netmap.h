/* What a device sees of its tailnet: pure builders of the parts of a netmap. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/macros.h"
#include "skerry/v1/agent.pb-c.h"
#include "tailnet/kv.h"
#include "tailnet/records.h"

/* Results as in tailnet/query.h. Everything made lives in the arena. Any thread that owns `kv`. */

/* The device's own part. ERR_NOT_FOUND: no such node. */
MUST_CHECK int netmap_self(const struct kv *kv, uint64_t tailnet, uint64_t node, struct arena *a,
			   Skerry__V1__NetmapSelf **ret);
/*
 * A peer as everybody sees it: depends on the peer alone, so that one encoding serves all viewers. Its bytes change
 * only with CHANGE_NODE and CHANGE_ENDPOINTS of the peer and CHANGE_USER of its user.
 */
MUST_CHECK int netmap_peer(const struct kv *kv, const NodeRecord *peer, struct arena *a,
			   Skerry__V1__NetmapPeer **ret);
MUST_CHECK int netmap_peer_id(const struct kv *kv, uint64_t tailnet, uint64_t node, struct arena *a,
			      Skerry__V1__NetmapPeer **ret);
MUST_CHECK int netmap_presence(const struct kv *kv, uint64_t tailnet, uint64_t node,
			       struct arena *a, Skerry__V1__PeerPresence **ret);

/* A node that takes part: approved, not expired, not suspended. */
bool netmap_live(const NodeRecord *n);
/*
 * Whether `viewer` sees `peer`: two different live nodes of one tailnet. All other rules (the policy) are to be
 * asked for here and nowhere else.
 */
bool netmap_visible(const struct kv *kv, uint64_t tailnet, const NodeRecord *viewer,
		    const NodeRecord *peer);
/* By ids; false also when one does not exist. Allocates in the arena. */
bool netmap_visible_id(const struct kv *kv, uint64_t tailnet, uint64_t viewer, uint64_t peer,
		       struct arena *a);
/* The visible peer with the lowest id above `after`; ERR_NOT_FOUND past the last one. */
MUST_CHECK int netmap_visible_next(const struct kv *kv, uint64_t tailnet, const NodeRecord *viewer,
				   uint64_t after, struct arena *a, NodeRecord **ret);
