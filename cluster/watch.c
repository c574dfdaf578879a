/*
 * A watcher is a cursor {epoch, revision} and a mark, never a queue. A commit marks the watchers of its tailnet; at the
 * end of the loop turn each marked one whose sink is empty gets what lies between its cursor and now, in one message. A
 * sink that is not empty keeps its watcher marked: however slow the reader, it costs this struct.
 */
#include "cluster/watch.h"

#include <string.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "cluster/cluster.h"
#include "cluster/watch_int.h"
#include "proto/pb_util.h"
#include "skerry/v1/agent.pb-c.h"
#include "tailnet/query.h"
#include "tailnet/tailnet.h"

enum { HEARTBEAT_MS = 5000, FLUSH_SLICE_NS = 10 * 1000 * 1000 };

static void hub_run(void *arg);
static void heartbeat(void *arg);

static void mark(struct watcher *w)
{
	struct watch_hub *hub = w->hub;

	list_remove(&w->later);
	if (!list_linked(&w->ready))
		list_push(&hub->ready, &w->ready);
	loop_flush_add(hub->loop, &hub->hook);
}

struct watch_hub *watch_hub_new(struct loop *loop, const struct watch_source *source)
{
	struct watch_hub *hub = mem_zalloc(sizeof(*hub));
	const struct kv *kv;
	uint64_t time;

	hub->loop = loop;
	hub->source = source;
	hub->presence_ms = LIM_PRESENCE_FANOUT_MS;
	list_init(&hub->ready);
	list_init(&hub->later);
	list_init(&hub->sets);
	arena_init(&hub->arena, LIM_WATCH_ARENA_BYTES);
	hub->hook.run = hub_run;
	hub->hook.arg = hub;
	hub->encoded = metrics_counter("skerry_watch_encoded_total",
				       "Messages encoded for watchers", NULL);
	hub->sent = metrics_counter("skerry_watch_sent_total", "Messages sent to watchers", NULL);
	hub->bytes = metrics_counter("skerry_watch_sent_bytes_total",
				     "Bytes of messages sent to watchers", NULL);
	hub->full = metrics_counter("skerry_watch_full_netmaps_total",
				    "Full netmaps that were begun", NULL);
	hub->blocked = metrics_counter("skerry_watch_blocked_total",
				       "Times a watcher that does not read was left with its mark",
				       NULL);
	hub->waiting_full =
		metrics_counter("skerry_watch_full_netmap_waits_total",
				"Times a full netmap waited because enough were being built", NULL);
	hub->ended = metrics_counter("skerry_watch_ended_total",
				     "Watchers that lost the right to watch", NULL);
	if (source->ops->begin(source->impl, &kv, NULL) >= 0) {
		if (query_revision(kv, &hub->epoch, &hub->seen, &time) < 0)
			hub->seen = 0;
		source->ops->end(source->impl);
	}
	loop_timer_start(&hub->heartbeat, loop, HEARTBEAT_MS, heartbeat, hub);
	return hub;
}

static void tailnet_free(struct watch_hub *hub, struct watch_tailnet *t)
{
	map_del_u64(&hub->tailnets, t->id);
	watch_peers_forget(t);
	map_done(&t->peers);
	mem_free(t);
}

void watch_hub_free(struct watch_hub *hub)
{
	if (!hub)
		return;
	PRE(hub->n_watchers == 0);
	loop_timer_stop(&hub->heartbeat);
	loop_timer_stop(&hub->presence);
	loop_flush_remove(&hub->hook);
	watch_sets_free(hub);
	map_done(&hub->tailnets);
	map_done(&hub->by_node);
	map_done(&hub->live);
	arena_done(&hub->arena);
	mem_free(hub);
}

struct watcher *watch_add(struct watch_hub *hub, const struct watch_params *p,
			  const struct watch_sink_ops *sink, void *arg)
{
	struct watcher *w = mem_zalloc(sizeof(*w));
	struct watch_tailnet *t = map_get_u64(&hub->tailnets, p->tailnet);

	if (!t) {
		t = mem_zalloc(sizeof(*t));
		t->id = p->tailnet;
		list_init(&t->watchers);
		map_put_u64(&hub->tailnets, t->id, t);
	}
	w->hub = hub;
	w->tailnet = t;
	w->node = p->node;
	w->session = p->session;
	w->epoch = p->epoch;
	w->revision = p->revision;
	w->check = true;
	w->sink = sink;
	w->arg = arg;
	list_push(&t->watchers, &w->of_tailnet);
	t->n_watchers++;
	hub->n_watchers++;
	map_put_u64(&hub->by_node, w->node, w);
	mark(w);
	return w;
}

void watch_remove(struct watcher *w)
{
	struct watch_hub *hub;
	struct watch_tailnet *t;

	if (!w)
		return;
	hub = w->hub;
	t = w->tailnet;
	list_remove(&w->of_tailnet);
	list_remove(&w->ready);
	list_remove(&w->later);
	if (map_get_u64(&hub->by_node, w->node) == w)
		map_del_u64(&hub->by_node, w->node);
	if (w->building)
		hub->n_building--;
	hub->n_watchers--;
	if (--t->n_watchers == 0)
		tailnet_free(hub, t);
	mem_free(w);
}

void watch_writable(struct watcher *w)
{
	/* Marked or not: a flush that finds nothing new costs a comparison. */
	mark(w);
}

size_t watch_count(const struct watch_hub *hub)
{
	return hub->n_watchers;
}

uint64_t watch_revision(const struct watcher *w)
{
	return w->revision;
}

enum watch_result watch_end(struct watcher *w, const struct err *why)
{
	const struct watch_sink_ops *sink = w->sink;
	void *arg = w->arg;

	counter_add(w->hub->ended, 1);
	watch_remove(w);
	sink->end(arg, why);
	return WATCH_ENDED;
}

/* Marks a tailnet's watchers; `check` all of them, too. */
static void mark_tailnet(struct watch_tailnet *t, bool check)
{
	LIST_FOREACH(&t->watchers, l)
	{
		struct watcher *w = container_of(l, struct watcher, of_tailnet);

		w->check = w->check || check;
		mark(w);
	}
}

static void mark_all(struct watch_hub *hub, bool forget)
{
	struct map_iter it = {0};

	while (map_next(&hub->tailnets, &it)) {
		if (forget)
			watch_peers_forget(it.value);
		mark_tailnet(it.value, true);
	}
}

void watch_hub_changes(struct watch_hub *hub, const struct cluster_changes *changes)
{
	struct watch_tailnet *last = NULL;

	if (changes->reset || changes->epoch != hub->epoch) {
		hub->epoch = changes->epoch;
		hub->seen = changes->revision;
		mark_all(hub, true);
		return;
	}
	hub->seen = changes->revision;
	for (size_t i = 0; i < changes->n; i++) {
		const struct cluster_change *c = &changes->change[i];
		struct watch_tailnet *t;
		struct watcher *own;

		if (c->tailnet == 0) {
			if (c->kind == CHANGE_MEMBER)
				mark_all(hub, false);
			continue;
		}
		t = last && last->id == c->tailnet ? last : map_get_u64(&hub->tailnets, c->tailnet);
		if (!t)
			continue;
		switch (c->kind) {
		case CHANGE_NODE:
		case CHANGE_ENDPOINTS:
		case CHANGE_PRESENCE:
			if (c->kind != CHANGE_PRESENCE)
				watch_peer_forget(t, c->object);
			own = map_get_u64(&hub->by_node, c->object);
			if (own)
				own->check = true;
			break;
		case CHANGE_USER:
			watch_peers_forget(t);
			mark_tailnet(t, true);
			break;
		case CHANGE_TAILNET: break;
		default: continue; /* keys, pending logins: not in a netmap */
		}
		if (t != last) {
			mark_tailnet(t, c->deleted && c->kind == CHANGE_TAILNET);
			last = t;
		}
	}
}

void watch_hub_set_presence_ms(struct watch_hub *hub, uint64_t ms)
{
	hub->presence_ms = ms;
}

static void presence_due(void *arg)
{
	struct watch_hub *hub = arg;

	while (!list_empty(&hub->later))
		mark(container_of(hub->later.next, struct watcher, later));
}

static bool flush_begin(struct watch_hub *hub)
{
	uint64_t epoch = hub->now_epoch, revision = hub->now_revision, time;

	if (hub->source->ops->begin(hub->source->impl, &hub->kv, NULL) < 0)
		return false;
	if (query_revision(hub->kv, &hub->now_epoch, &hub->now_revision, &time) >= 0) {
		if (hub->now_epoch != epoch || hub->now_revision != revision)
			watch_sets_free(hub);
		return true;
	}
	hub->source->ops->end(hub->source->impl);
	return false;
}

void watch_hub_flush(struct watch_hub *hub)
{
	uint64_t end = clock_mono_ns() + FLUSH_SLICE_NS;
	struct list again;
	struct list *l;

	if (list_empty(&hub->ready) || !flush_begin(hub))
		return; /* the next commit or heartbeat tries again: the marks stay */
	list_init(&again);
	while (clock_mono_ns() < end && (l = list_pop(&hub->ready))) {
		struct watcher *w = container_of(l, struct watcher, ready);

		switch (watch_build(w)) {
		case WATCH_MORE: list_push(&again, &w->ready); break;
		case WATCH_LATER:
			list_push(&hub->later, &w->later);
			if (!loop_timer_active(&hub->presence))
				loop_timer_start(&hub->presence, hub->loop, hub->presence_ms,
						 presence_due, hub);
			break;
		case WATCH_BLOCKED:
			counter_add(hub->blocked, 1);
			break; /* watch_writable() marks it again */
		case WATCH_DONE:
		case WATCH_ENDED: break;
		}
	}
	list_splice(&hub->ready, &again);
	watch_flush_done(hub);
	hub->source->ops->end(hub->source->impl);
	hub->kv = NULL;
	if (!list_empty(&hub->ready))
		loop_flush_add(hub->loop, &hub->hook);
}

static void hub_run(void *arg)
{
	watch_hub_flush(arg);
}

static void heartbeat(void *arg)
{
	struct watch_hub *hub = arg;
	Skerry__V1__WatchResponse m = SKERRY__V1__WATCH_RESPONSE__INIT;
	Skerry__V1__Heartbeat h = SKERRY__V1__HEARTBEAT__INIT;
	Skerry__V1__Revision r = SKERRY__V1__REVISION__INIT;
	ProtobufCBinaryData list[WATCH_PINS];
	uint8_t pins[WATCH_PINS][32];
	struct map_iter it = {0};
	struct blob *blob;

	r.epoch = hub->epoch;
	r.revision = hub->seen;
	h.revision = &r;
	h.quorum_age_ms = hub->source->ops->quorum_age_ms(hub->source->impl);
	if (hub->source->ops->ca_pins)
		h.n_ca_pins = hub->source->ops->ca_pins(hub->source->impl, pins);
	for (size_t i = 0; i < h.n_ca_pins; i++)
		list[i] = (ProtobufCBinaryData){sizeof(pins[i]), pins[i]};
	h.ca_pins = list;
	m.event_case = SKERRY__V1__WATCH_RESPONSE__EVENT_HEARTBEAT;
	m.heartbeat = &h;
	blob = pb_pack_blob(&m);
	while (map_next(&hub->tailnets, &it)) {
		struct watch_tailnet *t = it.value;

		LIST_FOREACH(&t->watchers, l)
		{
			struct watcher *w = container_of(l, struct watcher, of_tailnet);

			/* Who has not read the last message does not need to hear that we live. */
			if (w->sink->backlog(w->arg) == 0)
				IGNORE(w->sink->send(w->arg, &blob, 1) < 0);
		}
	}
	blob_unref(blob);
	if (!list_empty(&hub->ready)) /* a flush that could not read */
		loop_flush_add(hub->loop, &hub->hook);
	loop_timer_start(&hub->heartbeat, hub->loop, HEARTBEAT_MS, heartbeat, hub);
}
