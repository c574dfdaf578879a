/* A WireGuard that is a struct: for tests of what is above it. */
#include "agent/wg.h"

#include <string.h>

#include "base/mem.h"

static struct mesh_peer *copy_peer(struct mesh *to, const struct mesh_peer *from)
{
	struct mesh_peer *p = mesh_add_peer(to, from->key);

	*p = *from;
	p->allowed = mem_memdup(from->allowed, from->n_allowed * sizeof(*from->allowed));
	p->move_endpoint = false;
	return p;
}

static int fake_get(struct wg *wg, struct mesh *ret, struct err *e)
{
	struct wg_fake *fake = container_of(wg, struct wg_fake, wg);

	(void)e;
	for (size_t i = 0; i < ret->n_peers; i++) {
		mem_free(ret->peers[i].allowed);
	}
	ret->n_peers = 0;
	memcpy(ret->private_key, fake->mesh.private_key, 32);
	ret->listen_port = fake->mesh.listen_port;
	for (size_t i = 0; i < fake->mesh.n_peers; i++) {
		copy_peer(ret, &fake->mesh.peers[i]);
	}
	return 0;
}

static void remove_peer(struct mesh *m, const uint8_t key[32])
{
	struct mesh_peer *p = mesh_find_peer(m, key);

	if (p != NULL) {
		mem_free(p->allowed);
		memmove(p, p + 1, (size_t)(m->peers + m->n_peers - (p + 1)) * sizeof(*p));
		m->n_peers--;
	}
}

/* An allowed prefix belongs to one peer: the last that got it, as in WireGuard. */
static void take_prefix(struct mesh *m, const struct mesh_peer *owner, const struct prefix *prefix)
{
	for (size_t i = 0; i < m->n_peers; i++) {
		struct mesh_peer *p = &m->peers[i];
		size_t kept = 0;

		if (p == owner) {
			continue;
		}
		for (size_t j = 0; j < p->n_allowed; j++) {
			if (!prefix_equal(&p->allowed[j], prefix)) {
				p->allowed[kept++] = p->allowed[j];
			}
		}
		p->n_allowed = kept;
	}
}

static void update_peer(struct mesh *m, const struct mesh_op *op)
{
	struct mesh_peer *p = mesh_find_peer(m, op->peer->key);

	if (p == NULL) {
		return;
	}
	if (op->touch & MESH_TOUCH_ENDPOINT) {
		p->endpoint = op->peer->endpoint;
	}
	if (op->touch & MESH_TOUCH_KEEPALIVE) {
		p->keepalive_s = op->peer->keepalive_s;
	}
	if (op->touch & MESH_TOUCH_ALLOW_REPLACE) {
		p->n_allowed = 0;
	}
	if (op->touch & (MESH_TOUCH_ALLOW_REPLACE | MESH_TOUCH_ALLOW_MORE)) {
		for (size_t i = 0; i < op->peer->n_allowed; i++) {
			mesh_peer_allow(p, &op->peer->allowed[i]);
			take_prefix(m, p, &op->peer->allowed[i]);
		}
	}
}

static void add_peer(struct mesh *m, const struct mesh_op *op)
{
	struct mesh_peer *p;

	remove_peer(m, op->peer->key);
	p = copy_peer(m, op->peer);
	for (size_t i = 0; i < p->n_allowed; i++) {
		take_prefix(m, p, &p->allowed[i]);
	}
}

static int fake_set(struct wg *wg, const struct mesh *wanted, const struct mesh_ops *ops,
		    struct err *e)
{
	struct wg_fake *fake = container_of(wg, struct wg_fake, wg);

	fake->sets++;
	if (fake->fail != 0) {
		int code = fake->fail;

		fake->fail = 0;
		return err_set(e, code, "the fake was told to fail");
	}
	for (size_t i = 0; i < ops->n && ops->v[i].kind <= MESH_PEER_ADD; i++) {
		const struct mesh_op *op = &ops->v[i];

		switch (op->kind) {
		case MESH_SET_KEY: memcpy(fake->mesh.private_key, wanted->private_key, 32); break;
		case MESH_SET_PORT:
			if (wanted->listen_port == fake->taken_port) {
				return err_set(e, ERR_EXISTS, "UDP port %u is taken",
					       wanted->listen_port);
			}
			fake->mesh.listen_port = wanted->listen_port;
			break;
		case MESH_PEER_REMOVE: remove_peer(&fake->mesh, op->peer->key); break;
		case MESH_PEER_UPDATE: update_peer(&fake->mesh, op); break;
		default: add_peer(&fake->mesh, op); break;
		}
		mesh_sort(&fake->mesh);
		fake->ops++;
	}
	return 0;
}

static void fake_free(struct wg *wg)
{
	(void)wg; /* the test owns it */
}

static const struct wg_ops fake_ops = {
	.name = "fake",
	.get = fake_get,
	.set = fake_set,
	.free = fake_free,
};

void wg_fake_init(struct wg_fake *fake)
{
	*fake = (struct wg_fake){.wg.ops = &fake_ops};
}

void wg_fake_done(struct wg_fake *fake)
{
	mesh_done(&fake->mesh);
}
