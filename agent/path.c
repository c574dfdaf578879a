#include "agent/path.h"

#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"

struct candidate {
	struct ipport endpoint;
	int rank;     /* 0 best */
	size_t order; /* as reported */
};

struct path {
	uint8_t key[32];
	unsigned sweep;          /* run in which it was last chosen for */
	struct ipport *reported; /* what the candidates were made of */
	size_t n_reported;
	struct candidate *candidates;
	size_t n_candidates;
	size_t current;
	bool stale; /* look the routes up again */
	/* Traffic as seen at the last look. */
	uint64_t rx_bytes, tx_bytes;
	uint64_t rx_mono_ms; /* when something last came in, or since when nothing was asked for */
	bool asked;          /* something went out since then */
};

struct paths {
	struct host *host;
	struct map map; /* key -> struct path */
	unsigned sweep;
};

struct paths *paths_new(struct host *host)
{
	struct paths *ps = MEM_NEW(struct paths);

	ps->host = host;
	return ps;
}

static void path_free(struct path *p)
{
	mem_free(p->reported);
	mem_free(p->candidates);
	mem_free(p);
}

void paths_free(struct paths *ps)
{
	struct map_iter it = {0};

	if (ps == NULL) {
		return;
	}
	while (map_next(&ps->map, &it)) {
		path_free(it.value);
	}
	map_done(&ps->map);
	mem_free(ps);
}

void paths_network_changed(struct paths *ps)
{
	struct map_iter it = {0};

	while (map_next(&ps->map, &it)) {
		((struct path *)it.value)->stale = true;
	}
}

static int candidate_order(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if (x->rank != y->rank) {
		return x->rank - y->rank;
	}
	return x->order < y->order ? -1 : x->order > y->order;
}

/* Looks up how the host would reach each endpoint; what it cannot reach is no candidate. */
static void path_rank(struct paths *ps, struct path *p)
{
	p->candidates = mem_reallocarray(p->candidates, p->n_reported + 1, sizeof(*p->candidates));
	p->n_candidates = 0;
	for (size_t i = 0; i < p->n_reported; i++) {
		struct candidate *c = &p->candidates[p->n_candidates];
		struct host_route route = {0};

		if (ps->host->ops->route(ps->host, &p->reported[i].addr, &route) < 0 ||
		    !route.reachable || route.tunnel) {
			continue;
		}
		*c = (struct candidate){p->reported[i], route.direct ? 0 : 1, i};
		p->n_candidates++;
	}
	qsort(p->candidates, p->n_candidates, sizeof(*p->candidates), candidate_order);
	p->stale = false;
}

static bool reported_equal(const struct path *p, const struct admitted_peer *peer)
{
	if (p->n_reported != peer->n_endpoints) {
		return false;
	}
	for (size_t i = 0; i < p->n_reported; i++) {
		if (!ipport_equal(&p->reported[i], &peer->endpoints[i])) {
			return false;
		}
	}
	return true;
}

static bool has_endpoint(const struct ipport *list, size_t n, const struct ipport *ep)
{
	for (size_t i = 0; i < n; i++) {
		if (ipport_equal(&list[i], ep)) {
			return true;
		}
	}
	return false;
}

/* Aligns `current` with what WireGuard uses, if that is a candidate. */
static void path_follow(struct path *p, const struct ipport *in_use)
{
	for (size_t i = 0; i < p->n_candidates; i++) {
		if (ipport_equal(&p->candidates[i].endpoint, in_use)) {
			p->current = i;
			return;
		}
	}
}

/* Has the peer been asked and stayed silent for too long? */
static bool path_stuck(struct path *p, const struct mesh_peer *actual, uint64_t mono_ms,
		       int64_t wall_ms)
{
	bool session = actual->handshake_ms != 0 &&
		       wall_ms - actual->handshake_ms < PATH_SESSION_MS;

	if (actual->rx_bytes != p->rx_bytes || actual->tx_bytes < p->tx_bytes) {
		p->rx_bytes = actual->rx_bytes;
		p->tx_bytes = actual->tx_bytes;
		p->rx_mono_ms = mono_ms;
		p->asked = false;
		return false;
	}
	if (actual->tx_bytes != p->tx_bytes) {
		p->tx_bytes = actual->tx_bytes;
		if (!p->asked) {
			p->asked = true;
			p->rx_mono_ms = mono_ms;
		}
	}
	return p->asked && mono_ms - p->rx_mono_ms >= (session ? PATH_STALL_MS : PATH_TRY_MS);
}

static struct path *path_get(struct paths *ps, const uint8_t key[32], uint64_t mono_ms)
{
	struct path *p = map_get(&ps->map, key, 32);

	if (p == NULL) {
		p = MEM_NEW(struct path);
		memcpy(p->key, key, 32);
		p->rx_mono_ms = mono_ms;
		p->stale = true;
		map_put(&ps->map, key, 32, p);
	}
	p->sweep = ps->sweep;
	return p;
}

static void path_set(struct mesh_peer *wanted, const struct path *p)
{
	wanted->endpoint = p->candidates[p->current].endpoint;
	wanted->move_endpoint = true;
}

void paths_choose(struct paths *ps, const struct admitted_peer *peer,
		  const struct mesh_peer *actual, uint64_t mono_ms, int64_t wall_ms,
		  struct mesh_peer *wanted)
{
	struct path *p = path_get(ps, peer->key, mono_ms);
	const struct ipport *in_use =
		actual != NULL && actual->endpoint.addr.family != 0 ? &actual->endpoint : NULL;
	bool changed = !reported_equal(p, peer), left = false, was_stale = p->stale;

	if (changed) {
		left = in_use != NULL && has_endpoint(p->reported, p->n_reported, in_use) &&
		       !has_endpoint(peer->endpoints, peer->n_endpoints, in_use);
		mem_free(p->reported);
		p->reported =
			mem_memdup(peer->endpoints, peer->n_endpoints * sizeof(*peer->endpoints));
		p->n_reported = peer->n_endpoints;
	}
	if (changed || p->stale) {
		path_rank(ps, p);
		p->current = 0;
		if (in_use != NULL) {
			path_follow(p, in_use);
		}
	}
	if (p->n_candidates == 0) {
		return; /* WireGuard keeps what it has, the peer may still come to us */
	}
	if (in_use == NULL || left) {
		p->current = 0;
		p->asked = false;
		path_set(wanted, p);
		return;
	}
	if (was_stale && !has_endpoint(p->reported, p->n_reported, in_use) &&
	    actual->handshake_ms == 0) {
		/* An adopted peer at a place that it no longer reports, and never heard of since. */
		path_set(wanted, p);
		return;
	}
	if (path_stuck(p, actual, mono_ms, wall_ms)) {
		p->asked = false;
		path_follow(p, in_use);
		p->current = ipport_equal(&p->candidates[p->current].endpoint, in_use)
				     ? (p->current + 1) % p->n_candidates
				     : p->current;
		path_set(wanted, p);
	}
}

void paths_sweep(struct paths *ps)
{
	struct map_iter it = {0};

	while (map_next(&ps->map, &it)) {
		struct path *p = it.value;

		if (p->sweep != ps->sweep) {
			map_del(&ps->map, it.key, it.key_len);
			path_free(p);
		}
	}
	ps->sweep++;
}
