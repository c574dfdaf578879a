/* What lies between a watcher's cursor and now, encoded: change sets, shared deltas, chunks of full netmaps. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "cluster/watch_int.h"
#include "proto/pb_util.h"
#include "skerry/v1/agent.pb-c.h"
#include "tailnet/netmap.h"
#include "tailnet/query.h"
#include "tailnet/tailnet.h"

enum {
	FIELD_CHUNK = 2, /* of WatchResponse */
	FIELD_DELTA = 3,
	FIELD_CHUNK_PEERS = 5,
	FIELD_DELTA_PEERS = 3,
	SET_MAX = 4096, /* changed objects past which a full netmap is sent */
	SETS_KEPT = 64, /* change sets that outlive a slice of a flush */
	CHUNK_BACKLOG = LIM_NETMAP_CHUNK_BYTES,
};

/* ---- the peers' bodies ---- */

static void peer_free(struct watch_peer *p)
{
	blob_unref(p->blob);
	mem_free(p);
}

void watch_peer_forget(struct watch_tailnet *t, uint64_t node)
{
	struct watch_peer *p = map_del_u64(&t->peers, node);

	if (p)
		peer_free(p);
}

void watch_peers_forget(struct watch_tailnet *t)
{
	struct map_iter it = {0};

	while (map_next(&t->peers, &it))
		peer_free(it.value);
	map_clear(&t->peers);
}

/*
 * The packed NetmapPeer of a node, from the cache if that is not older than `at`, the revision of its last change.
 * Borrowed until the next change. NULL: it cannot be read.
 */
static const struct blob *peer_body(struct watcher *w, const NodeRecord *node, uint64_t at)
{
	struct watch_hub *hub = w->hub;
	struct watch_peer *p = map_get_u64(&w->tailnet->peers, node->id);
	Skerry__V1__NetmapPeer *m;
	struct buf b = BUF_INIT;

	if (p && p->built >= at)
		return p->blob;
	if (netmap_peer(hub->kv, node, &hub->arena, &m) < 0)
		return NULL;
	pb_pack(m, &b);
	if (p) {
		blob_unref(p->blob);
	} else {
		p = mem_zalloc(sizeof(*p));
		map_put_u64(&w->tailnet->peers, node->id, p);
	}
	p->blob = blob_take(&b);
	p->built = hub->now_revision;
	return p->blob;
}

/* ---- live nodes, once per flush ---- */

static struct watch_live *live_nodes(struct watcher *w)
{
	struct watch_hub *hub = w->hub;
	struct watch_live *live = map_get_u64(&hub->live, w->tailnet->id);
	uint64_t after = 0;
	size_t cap = 0;
	NodeRecord *n;

	if (live)
		return live;
	live = mem_zalloc(sizeof(*live));
	while (query_node_next(hub->kv, w->tailnet->id, after, &hub->arena, &n) >= 0) {
		after = n->id;
		if (!netmap_live(n))
			continue;
		if (live->n == cap) {
			cap = cap ? cap * 2 : 64;
			live->node = mem_realloc(live->node, cap * sizeof(*live->node));
		}
		live->node[live->n++] = n;
	}
	map_put_u64(&hub->live, w->tailnet->id, live);
	return live;
}

static NodeRecord *live_find(const struct watch_live *live, uint64_t id)
{
	size_t lo = 0;
	size_t hi = live->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (live->node[mid]->id == id)
			return live->node[mid];
		if (live->node[mid]->id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

/* One live node. The whole list is made only by who needs it: a delta of a few changes costs a few reads, whatever
 * the size of the tailnet. NULL: not live. */
static NodeRecord *live_node(struct watcher *w, uint64_t id)
{
	struct watch_hub *hub = w->hub;
	struct watch_live *live = map_get_u64(&hub->live, w->tailnet->id);
	NodeRecord *n;

	if (live)
		return live_find(live, id);
	if (query_node(hub->kv, w->tailnet->id, id, &hub->arena, &n) < 0 || !netmap_live(n))
		return NULL;
	return n;
}

/* ---- change sets ---- */

static bool has(const uint64_t *ids, size_t n, uint64_t id)
{
	for (size_t i = 0; i < n; i++) {
		if (ids[i] == id)
			return true;
	}
	return false;
}

static void push(uint64_t **ids, size_t *n, uint64_t id)
{
	if ((*n & (*n - 1)) == 0)
		*ids = mem_realloc(*ids, (*n ? *n * 2 : 1) * sizeof(**ids));
	(*ids)[(*n)++] = id;
}

static void push_body(struct watch_set *s, uint64_t id, uint64_t at)
{
	size_t n = s->n_body;

	for (size_t i = 0; i < s->n_body; i++) {
		if (s->body[i] == id) {
			s->body_at[i] = MAX(s->body_at[i], at);
			return;
		}
	}
	push(&s->body_at, &n, at);
	push(&s->body, &s->n_body, id);
}

/* A node that may have become visible anew: whoever dropped it needs its presence again, too. */
static void push_moved(struct watch_set *s, uint64_t id, uint64_t at)
{
	push_body(s, id, at);
	if (!has(s->moved, s->n_moved, id))
		push(&s->moved, &s->n_moved, id);
	if (!has(s->presence, s->n_presence, id))
		push(&s->presence, &s->n_presence, id);
}

static void set_free(struct watch_set *s)
{
	list_remove(&s->link);
	mem_free(s->body);
	mem_free(s->body_at);
	mem_free(s->removed);
	mem_free(s->presence);
	mem_free(s->moved);
	blob_unref(s->shared);
	mem_free(s);
}

static void set_add(struct watch_set *s, struct watcher *w, const struct query_change *c)
{
	switch (c->kind) {
	case CHANGE_NODE:
		if (c->deleted) {
			push(&s->removed, &s->n_removed, c->object);
			break;
		}
		push_moved(s, c->object, c->revision);
		break;
	case CHANGE_ENDPOINTS:
		if (!c->deleted)
			push_body(s, c->object, c->revision);
		break;
	case CHANGE_PRESENCE:
		if (!c->deleted && !has(s->presence, s->n_presence, c->object))
			push(&s->presence, &s->n_presence, c->object);
		break;
	case CHANGE_USER: {
		/* The login name stands in the bodies of the user's nodes, and in their own parts. */
		struct watch_live *live = live_nodes(w);

		for (size_t i = 0; i < live->n; i++) {
			if (live->node[i]->user == c->object)
				push_moved(s, live->node[i]->id, c->revision);
		}
		s->self = true;
		break;
	}
	case CHANGE_TAILNET: s->self = true; break;
	default: break;
	}
}

/* The changes of the watcher's tailnet after its revision; shared by all watchers with the same cursor. */
static struct watch_set *change_set(struct watcher *w)
{
	struct watch_hub *hub = w->hub;
	struct query_change c = {.revision = w->revision};
	struct query_change sys = {.revision = w->revision};
	struct watch_set *s;
	uint64_t floor;
	uint64_t visibility;
	size_t n = 0;

	LIST_FOREACH(&hub->sets, l)
	{
		s = container_of(l, struct watch_set, link);
		if (s->tailnet == w->tailnet->id && s->from == w->revision)
			return s;
	}
	s = mem_zalloc(sizeof(*s));
	s->tailnet = w->tailnet->id;
	s->from = w->revision;
	list_push(&hub->sets, &s->link);
	if (query_floor(hub->kv, 0, &floor, &visibility) < 0 || w->revision < floor ||
	    query_floor(hub->kv, s->tailnet, &floor, &visibility) < 0 || w->revision < floor) {
		s->too_much = true;
		return s;
	}
	/* Not from the entries: a later change of the same object may have replaced the one that altered visibility. */
	s->visibility = visibility > w->revision;
	while (!s->too_much && query_change_next(hub->kv, s->tailnet, &c) >= 0) {
		set_add(s, w, &c);
		s->too_much = ++n > SET_MAX;
	}
	while (!s->self && query_change_next(hub->kv, 0, &sys) >= 0)
		s->self = sys.kind == CHANGE_MEMBER;
	return s;
}

void watch_sets_free(struct watch_hub *hub)
{
	while (!list_empty(&hub->sets))
		set_free(container_of(hub->sets.next, struct watch_set, link));
}

void watch_flush_done(struct watch_hub *hub)
{
	struct map_iter it = {0};
	size_t n = 0;

	LIST_FOREACH(&hub->sets, l)
	n++;
	/* Else the next slice of time needs the same again. Watchers far apart share nothing. */
	if (list_empty(&hub->ready) || n > SETS_KEPT)
		watch_sets_free(hub);
	while (map_next(&hub->live, &it)) {
		struct watch_live *live = it.value;

		mem_free(live->node);
		mem_free(live);
	}
	map_clear(&hub->live);
	arena_reset(&hub->arena);
}

/* ---- messages ---- */

/* Wraps a chunk or delta into a WatchResponse. */
static struct blob *wrap(uint32_t field, struct buf *inner)
{
	struct buf out = BUF_INIT;

	buf_reserve(&out, inner->len + 16);
	pb_pack_prefix(field, inner->len, &out);
	buf_append(&out, inner->data, inner->len);
	buf_done(inner);
	return blob_take(&out);
}

static bool deliver(struct watcher *w, struct blob *blob)
{
	if (w->sink->send(w->arg, &blob, 1) < 0)
		return false;
	counter_add(w->hub->sent, 1);
	counter_add(w->hub->bytes, blob->len);
	return true;
}

static void append_peer(struct buf *out, uint32_t field, const struct blob *body)
{
	pb_pack_prefix(field, body->len, out);
	buf_append(out, body->data, body->len);
}

/*
 * The delta of a set for `self` (NULL: for everybody who is not concerned itself). Everything small first, then the
 * bodies that are already encoded. Returns false when the store cannot be read.
 */
static bool encode_delta(struct watcher *w, const struct watch_set *s, const NodeRecord *self,
			 struct buf *out, bool *ret_empty)
{
	struct watch_hub *hub = w->hub;
	Skerry__V1__NetmapDelta d = SKERRY__V1__NETMAP_DELTA__INIT;
	Skerry__V1__Revision r = SKERRY__V1__REVISION__INIT;
	Skerry__V1__PeerPresence **presence;
	size_t bodies = 0;

	r.epoch = hub->now_epoch;
	r.revision = hub->now_revision;
	d.revision = &r;
	if (self && (s->self || has(s->moved, s->n_moved, self->id)) &&
	    netmap_self(hub->kv, w->tailnet->id, self->id, &hub->arena, &d.self) < 0)
		return false;
	presence = arena_alloc(&hub->arena, (s->n_presence + 1) * sizeof(*presence));
	if (!presence)
		return false;
	d.presence = presence;
	for (size_t i = 0; i < s->n_presence; i++) {
		if ((self && s->presence[i] == self->id) || !live_node(w, s->presence[i]))
			continue;
		if (netmap_presence(hub->kv, w->tailnet->id, s->presence[i], &hub->arena,
				    &presence[d.n_presence]) < 0)
			return false;
		d.n_presence++;
	}
	d.removed = s->removed;
	d.n_removed = s->n_removed;
	if (s->visibility) {
		struct watch_live *live = live_nodes(w);

		d.visible_complete = true;
		d.visible = arena_alloc(&hub->arena, (live->n + 1) * sizeof(*d.visible));
		if (!d.visible)
			return false;
		for (size_t i = 0; i < live->n; i++) {
			if (self && netmap_visible(hub->kv, w->tailnet->id, self, live->node[i]))
				d.visible[d.n_visible++] = live->node[i]->id;
		}
	}
	pb_pack(&d, out);
	for (size_t i = 0; i < s->n_body; i++) {
		NodeRecord *peer = live_node(w, s->body[i]);
		const struct blob *body;

		if (!peer || (self && !netmap_visible(hub->kv, w->tailnet->id, self, peer)))
			continue;
		body = peer_body(w, peer, s->body_at[i]);
		if (!body)
			return false;
		append_peer(out, FIELD_DELTA_PEERS, body);
		bodies++;
	}
	*ret_empty = !bodies && !d.self && !d.n_presence && !d.n_removed && !d.visible_complete;
	return true;
}

static enum watch_result unreadable(struct watcher *w)
{
	struct err err = {0};

	err_reason(&err, ERR_UNAVAILABLE, "STORE_UNREADABLE",
		   "the netmap cannot be read here; try another lighthouse");
	return watch_end(w, &err);
}

/* May this device still watch? */
static bool allowed(struct watcher *w, NodeRecord **ret_self, struct err *why)
{
	struct watch_hub *hub = w->hub;
	Presence *p;

	if (query_node(hub->kv, w->tailnet->id, w->node, &hub->arena, ret_self) < 0) {
		err_reason(why, ERR_NOT_FOUND, "NODE_DELETED",
			   "this device was removed from the tailnet; `skerry up` "
			   "registers it again");
		return false;
	}
	if ((*ret_self)->expired) {
		err_reason(why, ERR_PRECONDITION, "NODE_EXPIRED",
			   "this device's key has expired; `skerry up` renews it");
		return false;
	}
	if (w->session && query_presence(hub->kv, w->tailnet->id, w->node, &hub->arena, &p) >= 0 &&
	    p->session > w->session) {
		err_reason(why, ERR_ABORTED, "SESSION_REPLACED",
			   "a newer session of this device took over");
		return false;
	}
	return true;
}

static void build_end(struct watcher *w)
{
	if (w->building) {
		w->building = false;
		w->hub->n_building--;
	}
}

/*
 * The next chunk of a full netmap. Chunks are read in different turns, perhaps at different revisions; all carry the
 * revision that was known complete at the first, and the delta that follows from there repeats what changed meanwhile.
 */
static enum watch_result full_chunk(struct watcher *w, const NodeRecord *self)
{
	struct watch_hub *hub = w->hub;
	Skerry__V1__NetmapChunk c = SKERRY__V1__NETMAP_CHUNK__INIT;
	Skerry__V1__Revision r = SKERRY__V1__REVISION__INIT;
	struct watch_live *live;
	struct buf peers = BUF_INIT;
	struct buf out = BUF_INIT;
	struct blob *blob;
	uint64_t after;

	if (!w->building) {
		if (hub->n_building >= LIM_NETMAP_FULL_BUILDS) {
			counter_add(hub->waiting_full, 1);
			return WATCH_MORE;
		}
		w->building = true;
		hub->n_building++;
		/* Cached bodies are right as of the last batch that was heard of. */
		w->build_revision = hub->epoch == hub->now_epoch ? MIN(hub->seen, hub->now_revision)
								 : hub->now_revision;
		w->build_after = 0;
		w->build_index = 0;
		counter_add(hub->full, 1);
	}
	live = live_nodes(w);
	r.epoch = hub->now_epoch;
	r.revision = w->build_revision;
	c.revision = &r;
	c.index = w->build_index;
	if (w->build_index == 0 &&
	    netmap_self(hub->kv, w->tailnet->id, w->node, &hub->arena, &c.self) < 0)
		return unreadable(w);
	after = w->build_after;
	c.presence = arena_alloc(&hub->arena, (live->n + 1) * sizeof(*c.presence));
	if (!c.presence)
		return unreadable(w);
	c.last = true;
	for (size_t i = 0; i < live->n; i++) {
		const NodeRecord *peer = live->node[i];
		const struct blob *body;

		if (peer->id <= after || !netmap_visible(hub->kv, w->tailnet->id, self, peer))
			continue;
		body = peer_body(w, peer, 0);
		if (!body || netmap_presence(hub->kv, w->tailnet->id, peer->id, &hub->arena,
					     &c.presence[c.n_presence]) < 0) {
			buf_done(&peers);
			return unreadable(w);
		}
		/* Half of the limit: the presences of the same peers and the head need room, too. */
		if (peers.len && peers.len + body->len > LIM_NETMAP_CHUNK_BYTES / 2) {
			c.last = false;
			break;
		}
		c.n_presence++;
		append_peer(&peers, FIELD_CHUNK_PEERS, body);
		after = peer->id;
	}
	pb_pack(&c, &out);
	buf_append(&out, peers.data, peers.len);
	buf_done(&peers);
	blob = wrap(FIELD_CHUNK, &out);
	counter_add(hub->encoded, 1);
	if (!deliver(w, blob)) {
		blob_unref(blob);
		return WATCH_BLOCKED;
	}
	blob_unref(blob);
	w->build_after = after;
	w->build_index++;
	if (!c.last)
		return w->sink->backlog(w->arg) >= CHUNK_BACKLOG ? WATCH_BLOCKED : WATCH_MORE;
	build_end(w);
	w->epoch = hub->now_epoch;
	w->revision = w->build_revision;
	return w->revision < hub->now_revision ? WATCH_MORE : WATCH_DONE;
}

enum watch_result watch_build(struct watcher *w)
{
	struct watch_hub *hub = w->hub;
	NodeRecord *self = NULL;
	struct watch_set *s;
	struct buf out = BUF_INIT;
	struct blob *blob;
	struct err why = {0};
	bool concerned;
	bool empty;

	if (w->check || w->building || w->epoch != hub->now_epoch) {
		if (!allowed(w, &self, &why))
			return watch_end(w, &why);
		w->check = false;
	}
	if (w->building) {
		if (w->sink->backlog(w->arg) >= CHUNK_BACKLOG)
			return WATCH_BLOCKED;
		return full_chunk(w, self);
	}
	if (w->sink->backlog(w->arg) > 0)
		return WATCH_BLOCKED;
	if (w->epoch != hub->now_epoch)
		return full_chunk(w, self);
	if (w->revision >= hub->now_revision)
		return WATCH_DONE; /* ahead of this lighthouse: a later commit marks it again */
	s = change_set(w);
	concerned = s->self || s->visibility || has(s->body, s->n_body, w->node) ||
		    has(s->presence, s->n_presence, w->node);
	if ((concerned || s->too_much) && !self && !allowed(w, &self, &why))
		return watch_end(w, &why);
	/* Whoever becomes visible by its own change is in the bodies; by the viewer's change, all may be new. */
	if (s->too_much || (s->visibility && has(s->moved, s->n_moved, w->node)))
		return full_chunk(w, self);
	if (!s->n_body && !s->n_removed && !s->self && !s->visibility && s->n_presence &&
	    loop_now(hub->loop) < w->presence_ms + hub->presence_ms && w->presence_ms)
		return WATCH_LATER;
	if (!concerned && s->shared) {
		if (!deliver(w, s->shared))
			return WATCH_BLOCKED;
	} else {
		if (!encode_delta(w, s, concerned ? self : NULL, &out, &empty)) {
			buf_done(&out);
			return unreadable(w);
		}
		if (empty) { /* keys, logins: nothing that a netmap shows */
			buf_done(&out);
			w->revision = hub->now_revision;
			return WATCH_DONE;
		}
		blob = wrap(FIELD_DELTA, &out);
		counter_add(hub->encoded, 1);
		if (!concerned)
			s->shared = blob_ref(blob);
		if (!deliver(w, blob)) {
			blob_unref(blob);
			return WATCH_BLOCKED;
		}
		blob_unref(blob);
	}
	if (s->n_presence)
		w->presence_ms = loop_now(hub->loop);
	w->revision = hub->now_revision;
	return WATCH_DONE;
}
