#include "agent/mesh.h"

#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"
#include "base/mem.h"

void mesh_done(struct mesh *m)
{
	if (m == NULL) {
		return;
	}
	for (size_t i = 0; i < m->n_peers; i++) {
		mem_free(m->peers[i].allowed);
	}
	mem_free(m->peers);
	mem_free(m->addrs);
	mem_free(m->routes);
	secret_wipe(m->private_key, sizeof(m->private_key));
	*m = (struct mesh){0};
}

struct mesh_peer *mesh_add_peer(struct mesh *m, const uint8_t key[32])
{
	struct mesh_peer *p;

	if (m->n_peers == m->cap_peers) {
		m->cap_peers = m->cap_peers == 0 ? 16 : m->cap_peers * 2;
		m->peers = mem_reallocarray(m->peers, m->cap_peers, sizeof(*m->peers));
	}
	p = &m->peers[m->n_peers++];
	*p = (struct mesh_peer){0};
	memcpy(p->key, key, 32);
	return p;
}

static void prefixes_add(struct prefix **list, size_t *n, const struct prefix *prefix)
{
	*list = mem_reallocarray(*list, *n + 1, sizeof(**list));
	(*list)[(*n)++] = *prefix;
}

void mesh_peer_allow(struct mesh_peer *p, const struct prefix *prefix)
{
	prefixes_add(&p->allowed, &p->n_allowed, prefix);
}

void mesh_add_addr(struct mesh *m, const struct prefix *prefix)
{
	prefixes_add(&m->addrs, &m->n_addrs, prefix);
}

void mesh_add_route(struct mesh *m, const struct prefix *prefix, const struct ipaddr *src)
{
	m->routes = mem_reallocarray(m->routes, m->n_routes + 1, sizeof(*m->routes));
	m->routes[m->n_routes++] = (struct mesh_route){*prefix, *src};
}

static int prefix_order(const void *a, const void *b)
{
	return prefix_cmp(a, b);
}

static int peer_order(const void *a, const void *b)
{
	return memcmp(((const struct mesh_peer *)a)->key, ((const struct mesh_peer *)b)->key, 32);
}

static int route_order(const void *a, const void *b)
{
	return prefix_cmp(&((const struct mesh_route *)a)->prefix,
			  &((const struct mesh_route *)b)->prefix);
}

static void routes_sort(struct mesh *m)
{
	size_t kept = 0;

	if (m->n_routes == 0) {
		return;
	}
	qsort(m->routes, m->n_routes, sizeof(*m->routes), route_order);
	for (size_t i = 0; i < m->n_routes; i++) {
		if (kept == 0 || route_order(&m->routes[kept - 1], &m->routes[i]) != 0) {
			m->routes[kept++] = m->routes[i];
		}
	}
	m->n_routes = kept;
}

static void prefixes_sort(struct prefix *list, size_t *n)
{
	size_t kept = 0;

	if (*n == 0) {
		return;
	}
	qsort(list, *n, sizeof(*list), prefix_order);
	for (size_t i = 0; i < *n; i++) {
		if (kept == 0 || !prefix_equal(&list[kept - 1], &list[i])) {
			list[kept++] = list[i];
		}
	}
	*n = kept;
}

void mesh_sort(struct mesh *m)
{
	size_t kept = 0;

	if (m->n_peers > 0) {
		qsort(m->peers, m->n_peers, sizeof(*m->peers), peer_order);
	}
	for (size_t i = 0; i < m->n_peers; i++) {
		if (kept > 0 && memcmp(m->peers[kept - 1].key, m->peers[i].key, 32) == 0) {
			mem_free(m->peers[i].allowed);
			continue;
		}
		prefixes_sort(m->peers[i].allowed, &m->peers[i].n_allowed);
		m->peers[kept++] = m->peers[i];
	}
	m->n_peers = kept;
	prefixes_sort(m->addrs, &m->n_addrs);
	routes_sort(m);
}

struct mesh_peer *mesh_find_peer(const struct mesh *m, const uint8_t key[32])
{
	struct mesh_peer want;

	if (m->n_peers == 0) {
		return NULL;
	}
	memcpy(want.key, key, 32);
	return bsearch(&want, m->peers, m->n_peers, sizeof(*m->peers), peer_order);
}

/* ---- Reconcile --------------------------------------------------------------------------------------------------- */

static struct mesh_op *op_add(struct mesh_ops *ops, enum mesh_op_kind kind)
{
	if (ops->n == ops->cap) {
		ops->cap = ops->cap == 0 ? 32 : ops->cap * 2;
		ops->v = mem_reallocarray(ops->v, ops->cap, sizeof(*ops->v));
	}
	ops->v[ops->n] = (struct mesh_op){.kind = kind};
	return &ops->v[ops->n++];
}

/* Is everything of `a` in `b`? Both sorted. */
static bool prefixes_within(const struct prefix *a, size_t na, const struct prefix *b, size_t nb)
{
	size_t j = 0;

	for (size_t i = 0; i < na; i++) {
		while (j < nb && prefix_cmp(&b[j], &a[i]) < 0) {
			j++;
		}
		if (j == nb || !prefix_equal(&b[j], &a[i])) {
			return false;
		}
	}
	return true;
}

static unsigned peer_touch(const struct mesh_peer *want, const struct mesh_peer *have)
{
	unsigned touch = 0;

	if (want->endpoint.addr.family != 0 && !ipport_equal(&want->endpoint, &have->endpoint) &&
	    (want->move_endpoint || have->endpoint.addr.family == 0)) {
		touch |= MESH_TOUCH_ENDPOINT;
	}
	if (want->keepalive_s != have->keepalive_s) {
		touch |= MESH_TOUCH_KEEPALIVE;
	}
	if (!prefixes_within(have->allowed, have->n_allowed, want->allowed, want->n_allowed)) {
		touch |= MESH_TOUCH_ALLOW_REPLACE;
	} else if (want->n_allowed != have->n_allowed) {
		touch |= MESH_TOUCH_ALLOW_MORE;
	}
	return touch;
}

static bool key_is_zero(const uint8_t key[32])
{
	static const uint8_t zero[32];

	return crypto_equal(key, zero, 32);
}

static void reconcile_peers(const struct mesh *wanted, const struct mesh *actual,
			    struct mesh_ops *ops)
{
	/* Who goes or loses prefixes comes first: a peer that was cut off gets nothing more. */
	for (size_t i = 0; i < actual->n_peers; i++) {
		if (mesh_find_peer(wanted, actual->peers[i].key) == NULL) {
			op_add(ops, MESH_PEER_REMOVE)->peer = &actual->peers[i];
		}
	}
	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < wanted->n_peers; i++) {
			const struct mesh_peer *have = mesh_find_peer(actual, wanted->peers[i].key);
			unsigned touch = have == NULL ? 0 : peer_touch(&wanted->peers[i], have);
			bool loses = (touch & MESH_TOUCH_ALLOW_REPLACE) != 0;

			if (touch != 0 && loses == (pass == 0)) {
				struct mesh_op *op = op_add(ops, MESH_PEER_UPDATE);

				op->peer = &wanted->peers[i];
				op->touch = touch;
			}
		}
	}
	for (size_t i = 0; i < wanted->n_peers; i++) {
		if (mesh_find_peer(actual, wanted->peers[i].key) == NULL) {
			op_add(ops, MESH_PEER_ADD)->peer = &wanted->peers[i];
		}
	}
}

/* Both sorted: what is only in `a` gets an operation. */
static void prefixes_missing(const struct prefix *a, size_t na, const struct prefix *b, size_t nb,
			     enum mesh_op_kind kind, struct mesh_ops *ops)
{
	size_t j = 0;

	for (size_t i = 0; i < na; i++) {
		while (j < nb && prefix_cmp(&b[j], &a[i]) < 0) {
			j++;
		}
		if (j == nb || !prefix_equal(&b[j], &a[i])) {
			op_add(ops, kind)->prefix = a[i];
		}
	}
}

/* A route that is there with another source is replaced, not removed. */
static void reconcile_routes(const struct mesh *wanted, const struct mesh *actual,
			     struct mesh_ops *ops)
{
	for (size_t i = 0; i < wanted->n_routes; i++) {
		const struct mesh_route *want = &wanted->routes[i], *have;

		have = actual->n_routes == 0 ? NULL
					     : bsearch(want, actual->routes, actual->n_routes,
						       sizeof(*want), route_order);
		if (have == NULL || !ipaddr_equal(&have->src, &want->src)) {
			struct mesh_op *op = op_add(ops, MESH_ROUTE_ADD);

			op->prefix = want->prefix;
			op->src = want->src;
		}
	}
	for (size_t i = 0; i < actual->n_routes; i++) {
		const struct mesh_route *have = &actual->routes[i];

		if (wanted->n_routes == 0 || bsearch(have, wanted->routes, wanted->n_routes,
						     sizeof(*have), route_order) == NULL) {
			op_add(ops, MESH_ROUTE_DEL)->prefix = have->prefix;
		}
	}
}

void mesh_reconcile(const struct mesh *wanted, const struct mesh *actual, struct mesh_ops *ret_ops)
{
	if (!key_is_zero(wanted->private_key) &&
	    !crypto_equal(wanted->private_key, actual->private_key, 32)) {
		op_add(ret_ops, MESH_SET_KEY);
	}
	if (wanted->listen_port != 0 && wanted->listen_port != actual->listen_port) {
		op_add(ret_ops, MESH_SET_PORT);
	}
	reconcile_peers(wanted, actual, ret_ops);
	if (wanted->mtu != 0 && wanted->mtu != actual->mtu) {
		op_add(ret_ops, MESH_SET_MTU)->mtu = wanted->mtu;
	}
	prefixes_missing(wanted->addrs, wanted->n_addrs, actual->addrs, actual->n_addrs,
			 MESH_ADDR_ADD, ret_ops);
	if (wanted->up && !actual->up) {
		op_add(ret_ops, MESH_LINK_UP);
	}
	reconcile_routes(wanted, actual, ret_ops);
	prefixes_missing(actual->addrs, actual->n_addrs, wanted->addrs, wanted->n_addrs,
			 MESH_ADDR_DEL, ret_ops);
	if (!wanted->up && actual->up) {
		op_add(ret_ops, MESH_LINK_DOWN);
	}
}

void mesh_ops_done(struct mesh_ops *ops)
{
	mem_free(ops->v);
	*ops = (struct mesh_ops){0};
}

const char *mesh_op_text(enum mesh_op_kind kind)
{
	static const char *const text[] = {
		[MESH_SET_KEY] = "set-key",         [MESH_SET_PORT] = "set-port",
		[MESH_PEER_REMOVE] = "peer-remove", [MESH_PEER_UPDATE] = "peer-update",
		[MESH_PEER_ADD] = "peer-add",       [MESH_SET_MTU] = "set-mtu",
		[MESH_ADDR_ADD] = "addr-add",       [MESH_LINK_UP] = "link-up",
		[MESH_ROUTE_ADD] = "route-add",     [MESH_ROUTE_DEL] = "route-del",
		[MESH_ADDR_DEL] = "addr-del",       [MESH_LINK_DOWN] = "link-down",
	};

	return (unsigned)kind < ARRAY_LEN(text) ? text[kind] : "unknown";
}
