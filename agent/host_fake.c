/* A host network that is a struct: for tests of what is above it. */
#include "agent/host.h"

#include <string.h>

#include "base/mem.h"

static int fake_get(struct host *host, struct mesh *ret, struct err *e)
{
	struct host_fake *fake = container_of(host, struct host_fake, host);

	(void)e;
	ret->up = fake->mesh.up;
	ret->mtu = fake->mesh.mtu;
	ret->n_addrs = ret->n_routes = 0;
	for (size_t i = 0; i < fake->mesh.n_addrs; i++) {
		mesh_add_addr(ret, &fake->mesh.addrs[i]);
	}
	for (size_t i = 0; i < fake->mesh.n_routes; i++) {
		mesh_add_route(ret, &fake->mesh.routes[i].prefix, &fake->mesh.routes[i].src);
	}
	return 0;
}

static void del_addr(struct mesh *m, const struct prefix *p)
{
	size_t kept = 0;

	for (size_t i = 0; i < m->n_addrs; i++) {
		if (!prefix_equal(&m->addrs[i], p)) {
			m->addrs[kept++] = m->addrs[i];
		}
	}
	m->n_addrs = kept;
}

static void del_route(struct mesh *m, const struct prefix *p)
{
	size_t kept = 0;

	for (size_t i = 0; i < m->n_routes; i++) {
		if (!prefix_equal(&m->routes[i].prefix, p)) {
			m->routes[kept++] = m->routes[i];
		}
	}
	m->n_routes = kept;
}

static int fake_set(struct host *host, const struct mesh_ops *ops, size_t *ret_failed,
		    struct err *e)
{
	struct host_fake *fake = container_of(host, struct host_fake, host);
	struct mesh *m = &fake->mesh;

	*ret_failed = 0;
	if (fake->fail != 0) {
		int code = fake->fail;

		fake->fail = 0;
		*ret_failed = 1;
		return err_set(e, code, "the fake was told to fail");
	}
	for (size_t i = 0; i < ops->n; i++) {
		const struct mesh_op *op = &ops->v[i];

		switch (op->kind) {
		case MESH_SET_MTU: m->mtu = op->mtu; break;
		case MESH_LINK_UP:
		case MESH_LINK_DOWN: m->up = op->kind == MESH_LINK_UP; break;
		case MESH_ADDR_ADD: mesh_add_addr(m, &op->prefix); break;
		case MESH_ADDR_DEL: del_addr(m, &op->prefix); break;
		case MESH_ROUTE_ADD:
			del_route(m, &op->prefix);
			mesh_add_route(m, &op->prefix, &op->src);
			break;
		case MESH_ROUTE_DEL: del_route(m, &op->prefix); break;
		default: break;
		}
	}
	mesh_sort(m);
	return 0;
}

static int fake_net(struct host *host, struct host_net *ret, struct err *e)
{
	struct host_fake *fake = container_of(host, struct host_fake, host);

	(void)e;
	ret->addrs = mem_memdup(fake->net.addrs, fake->net.n_addrs * sizeof(*ret->addrs));
	ret->n_addrs = fake->net.n_addrs;
	ret->gateways =
		mem_memdup(fake->net.gateways, fake->net.n_gateways * sizeof(*ret->gateways));
	ret->n_gateways = fake->net.n_gateways;
	return 0;
}

/* Reachable: directly if in a network of the host, else by a gateway if there is one of the family. */
static int fake_route(struct host *host, const struct ipaddr *to, struct host_route *ret)
{
	struct host_fake *fake = container_of(host, struct host_fake, host);

	*ret = (struct host_route){0};
	for (size_t i = 0; i < fake->net.n_addrs; i++) {
		struct prefix net = prefix_masked(&fake->net.addrs[i].prefix);

		if (prefix_contains(&net, to)) {
			*ret = (struct host_route){.reachable = true,
						   .direct = true,
						   .source = fake->net.addrs[i].prefix.addr};
			return 0;
		}
	}
	for (size_t i = 0; i < fake->net.n_gateways; i++) {
		if (fake->net.gateways[i].family == to->family) {
			*ret = (struct host_route){.reachable = true,
						   .gateway = fake->net.gateways[i]};
		}
	}
	return 0;
}

static int fake_watch(struct host *host, struct loop *loop, void (*cb)(void *arg), void *arg,
		      struct err *e)
{
	struct host_fake *fake = container_of(host, struct host_fake, host);

	(void)loop;
	(void)e;
	fake->cb = cb;
	fake->arg = arg;
	return 0;
}

static void fake_free(struct host *host)
{
	(void)host; /* the test owns it */
}

static const struct host_ops fake_ops = {
	.name = "fake",
	.get = fake_get,
	.set = fake_set,
	.net = fake_net,
	.route = fake_route,
	.watch = fake_watch,
	.free = fake_free,
};

void host_fake_init(struct host_fake *fake)
{
	*fake = (struct host_fake){.host.ops = &fake_ops};
}

void host_fake_addr(struct host_fake *fake, const char *prefix, const char *ifname)
{
	struct host_net *net = &fake->net;
	struct host_addr *a;

	net->addrs = mem_reallocarray(net->addrs, net->n_addrs + 1, sizeof(*net->addrs));
	a = &net->addrs[net->n_addrs++];
	*a = (struct host_addr){.loopback = strcmp(ifname, "lo") == 0};
	if (prefix_parse_host(prefix, &a->prefix, NULL) < 0) {
		IMPOSSIBLE("the test's prefix is none");
	}
	strncpy(a->ifname, ifname, sizeof(a->ifname) - 1);
}

void host_fake_done(struct host_fake *fake)
{
	mesh_done(&fake->mesh);
	host_net_done(&fake->net);
}
