/*
 * The host's network by rtnetlink. Requests go over one socket and wait for their answer (the kernel answers at once);
 * changes come over a second one, on the loop. Our routes carry a protocol number of their own, so that nobody else's are
 * ever touched and a new start finds what an earlier one left.
 */
#include "agent/host.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "net/loop.h"
#include "net/poll.h"

enum {
	ROUTE_PROTOCOL = 83,
	QUIET_MS = 150, /* changes come in bursts */
};

struct host_netlink {
	struct host host;
	char ifname[IFNAMSIZ];
	struct mnl_socket *socket;
	unsigned seq;
	/* watch */
	struct mnl_socket *events;
	struct loop_poll *poll;
	struct loop *loop;
	struct loop_timer quiet;
	void (*cb)(void *arg);
	void *arg;
};

static struct host_netlink *of_host(struct host *host)
{
	return container_of(host, struct host_netlink, host);
}

/* Sends a request and feeds every answer to cb. Returns 0 or -errno of the kernel. */
static int talk(struct host_netlink *nl, struct nlmsghdr *msg, mnl_cb_t cb, void *arg)
{
	static const size_t room = 65536;
	unsigned port = mnl_socket_get_portid(nl->socket);
	void *answer;
	int r;

	msg->nlmsg_seq = ++nl->seq;
	if (mnl_socket_sendto(nl->socket, msg, msg->nlmsg_len) < 0) {
		return -errno;
	}
	answer = mem_alloc(room);
	do {
		ssize_t n = mnl_socket_recvfrom(nl->socket, answer, room);

		if (n < 0) {
			r = errno == EINTR ? 1 : -errno;
			continue;
		}
		errno = 0;
		r = mnl_cb_run(answer, (size_t)n, nl->seq, port, cb, arg);
		if (r < 0) {
			/* EPROTO: an answer to an earlier request that was given up. */
			r = errno == EPROTO ? 1 : -(errno != 0 ? errno : EIO);
		}
	} while (r > 0);
	mem_free(answer);
	return r;
}

static struct nlmsghdr *request(void *buf, uint16_t type, uint16_t flags)
{
	struct nlmsghdr *msg = mnl_nlmsg_put_header(buf);

	msg->nlmsg_type = type;
	msg->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	return msg;
}

static int attr_collect(const struct nlattr *attr, void *arg)
{
	const struct nlattr **table = arg;
	uint16_t type = mnl_attr_get_type(attr);

	if (type < 64) {
		table[type] = attr;
	}
	return MNL_CB_OK;
}

/* Attributes by number; at most 64 kinds are looked at. */
#define ATTRS 64

static bool attr_addr(const struct nlattr *attr, struct ipaddr *ret)
{
	return attr != NULL &&
	       ipaddr_from_bytes(mnl_attr_get_payload(attr), mnl_attr_get_payload_len(attr), ret);
}

/* ---- Links --------------------------------------------------------------------------------------------------------- */

struct link {
	unsigned index;
	unsigned flags;
	uint32_t mtu;
	char name[IFNAMSIZ];
};

struct links {
	struct link *v;
	size_t n;
};

static int on_link(const struct nlmsghdr *msg, void *arg)
{
	const struct ifinfomsg *info = mnl_nlmsg_get_payload(msg);
	const struct nlattr *attrs[ATTRS] = {0};
	struct links *links = arg;
	struct link *l;

	if (msg->nlmsg_type != RTM_NEWLINK) {
		return MNL_CB_OK;
	}
	mnl_attr_parse(msg, sizeof(*info), attr_collect, attrs);
	links->v = mem_reallocarray(links->v, links->n + 1, sizeof(*links->v));
	l = &links->v[links->n++];
	*l = (struct link){.index = (unsigned)info->ifi_index, .flags = info->ifi_flags};
	if (attrs[IFLA_MTU] != NULL) {
		l->mtu = mnl_attr_get_u32(attrs[IFLA_MTU]);
	}
	if (attrs[IFLA_IFNAME] != NULL) {
		strncpy(l->name, mnl_attr_get_str(attrs[IFLA_IFNAME]), sizeof(l->name) - 1);
	}
	return MNL_CB_OK;
}

static int links_get(struct host_netlink *nl, struct links *ret)
{
	char buf[256];
	struct nlmsghdr *msg = request(buf, RTM_GETLINK, NLM_F_DUMP);
	struct ifinfomsg *info = mnl_nlmsg_put_extra_header(msg, sizeof(*info));

	info->ifi_family = AF_UNSPEC;
	return talk(nl, msg, on_link, ret);
}

static const struct link *link_by_index(const struct links *links, unsigned index)
{
	for (size_t i = 0; i < links->n; i++) {
		if (links->v[i].index == index) {
			return &links->v[i];
		}
	}
	return NULL;
}

/* ---- Addresses ----------------------------------------------------------------------------------------------------- */

struct addr {
	struct prefix prefix;
	unsigned index;
	uint8_t scope;
	uint32_t flags;
};

struct addrs {
	struct addr *v;
	size_t n;
};

static int on_addr(const struct nlmsghdr *msg, void *arg)
{
	const struct ifaddrmsg *info = mnl_nlmsg_get_payload(msg);
	const struct nlattr *attrs[ATTRS] = {0};
	struct addrs *addrs = arg;
	struct addr a = {
		.index = info->ifa_index, .scope = info->ifa_scope, .flags = info->ifa_flags};

	if (msg->nlmsg_type != RTM_NEWADDR) {
		return MNL_CB_OK;
	}
	mnl_attr_parse(msg, sizeof(*info), attr_collect, attrs);
	if (attrs[IFA_FLAGS] != NULL) {
		a.flags = mnl_attr_get_u32(attrs[IFA_FLAGS]);
	}
	/* IFA_LOCAL is our end; IPv6 without a peer has only IFA_ADDRESS. */
	if (!attr_addr(attrs[IFA_LOCAL] != NULL ? attrs[IFA_LOCAL] : attrs[IFA_ADDRESS],
		       &a.prefix.addr)) {
		return MNL_CB_OK;
	}
	a.prefix.len = info->ifa_prefixlen;
	addrs->v = mem_reallocarray(addrs->v, addrs->n + 1, sizeof(*addrs->v));
	addrs->v[addrs->n++] = a;
	return MNL_CB_OK;
}

static int addrs_get(struct host_netlink *nl, struct addrs *ret)
{
	char buf[256];
	struct nlmsghdr *msg = request(buf, RTM_GETADDR, NLM_F_DUMP);
	struct ifaddrmsg *info = mnl_nlmsg_put_extra_header(msg, sizeof(*info));

	info->ifa_family = AF_UNSPEC;
	return talk(nl, msg, on_addr, ret);
}

/* ---- Routes -------------------------------------------------------------------------------------------------------- */

struct route {
	struct prefix dst;
	struct ipaddr gateway;
	struct ipaddr src;
	unsigned oif;
	uint32_t table;
	uint8_t protocol;
	uint8_t type;
};

struct routes {
	struct route *v;
	size_t n;
};

static bool route_read(const struct nlmsghdr *msg, struct route *ret)
{
	const struct rtmsg *info = mnl_nlmsg_get_payload(msg);
	const struct nlattr *attrs[ATTRS] = {0};
	struct route r = {
		.protocol = info->rtm_protocol, .type = info->rtm_type, .table = info->rtm_table};

	if (msg->nlmsg_type != RTM_NEWROUTE ||
	    (info->rtm_family != AF_INET && info->rtm_family != AF_INET6)) {
		return false;
	}
	mnl_attr_parse(msg, sizeof(*info), attr_collect, attrs);
	r.dst.len = info->rtm_dst_len;
	if (!attr_addr(attrs[RTA_DST], &r.dst.addr)) {
		r.dst.addr.family = info->rtm_family == AF_INET ? 4 : 6;
	}
	if (attrs[RTA_TABLE] != NULL) {
		r.table = mnl_attr_get_u32(attrs[RTA_TABLE]);
	}
	if (attrs[RTA_OIF] != NULL) {
		r.oif = mnl_attr_get_u32(attrs[RTA_OIF]);
	}
	attr_addr(attrs[RTA_GATEWAY], &r.gateway);
	attr_addr(attrs[RTA_PREFSRC], &r.src);
	*ret = r;
	return true;
}

static int on_route(const struct nlmsghdr *msg, void *arg)
{
	struct routes *routes = arg;
	struct route r;

	if (route_read(msg, &r) && r.table == RT_TABLE_MAIN && r.type == RTN_UNICAST &&
	    (r.protocol == ROUTE_PROTOCOL || r.dst.len == 0)) {
		routes->v = mem_reallocarray(routes->v, routes->n + 1, sizeof(*routes->v));
		routes->v[routes->n++] = r;
	}
	return MNL_CB_OK;
}

static int routes_get(struct host_netlink *nl, struct routes *ret)
{
	char buf[256];
	struct nlmsghdr *msg = request(buf, RTM_GETROUTE, NLM_F_DUMP);
	struct rtmsg *info = mnl_nlmsg_put_extra_header(msg, sizeof(*info));

	info->rtm_family = AF_UNSPEC;
	return talk(nl, msg, on_route, ret);
}

/* ---- What is ------------------------------------------------------------------------------------------------------- */

struct snapshot {
	struct links links;
	struct addrs addrs;
	struct routes routes;
};

static void snapshot_done(struct snapshot *s)
{
	mem_free(s->links.v);
	mem_free(s->addrs.v);
	mem_free(s->routes.v);
}

static int snapshot_get(struct host_netlink *nl, struct snapshot *ret, struct err *e)
{
	int r, tries = 0;

	do {
		*ret = (struct snapshot){0};
		r = links_get(nl, &ret->links);
		if (r >= 0) {
			r = addrs_get(nl, &ret->addrs);
		}
		if (r >= 0) {
			r = routes_get(nl, &ret->routes);
		}
		if (r < 0) {
			snapshot_done(ret);
		}
	} while (r == -EINTR && ++tries < 10); /* something changed while it was listed */
	if (r < 0) {
		return err_set(e, r, "cannot read the host's network: %s", strerror(-r));
	}
	return 0;
}

static const struct link *link_by_name(const struct links *links, const char *name)
{
	for (size_t i = 0; i < links->n; i++) {
		if (strcmp(links->v[i].name, name) == 0) {
			return &links->v[i];
		}
	}
	return NULL;
}

static int netlink_get(struct host *host, struct mesh *ret, struct err *e)
{
	struct host_netlink *nl = of_host(host);
	const struct link *link;
	struct snapshot s;
	int r = snapshot_get(nl, &s, e);

	if (r < 0) {
		return r;
	}
	link = link_by_name(&s.links, nl->ifname);
	if (link == NULL) {
		snapshot_done(&s);
		return err_set(e, ERR_NOT_FOUND, "there is no interface %s", nl->ifname);
	}
	ret->up = (link->flags & IFF_UP) != 0;
	ret->mtu = link->mtu;
	ret->n_addrs = ret->n_routes = 0;
	for (size_t i = 0; i < s.addrs.n; i++) {
		const struct addr *a = &s.addrs.v[i];

		/* The kernel's own link-local address is not our business. */
		if (a->index == link->index && !ipaddr_is_link_local(&a->prefix.addr)) {
			mesh_add_addr(ret, &a->prefix);
		}
	}
	for (size_t i = 0; i < s.routes.n; i++) {
		const struct route *route = &s.routes.v[i];

		if (route->oif == link->index && route->protocol == ROUTE_PROTOCOL) {
			mesh_add_route(ret, &route->dst, &route->src);
		}
	}
	mesh_sort(ret);
	snapshot_done(&s);
	return 0;
}

static int netlink_net(struct host *host, struct host_net *ret, struct err *e)
{
	struct host_netlink *nl = of_host(host);
	const struct link *own;
	struct snapshot s;
	int r = snapshot_get(nl, &s, e);

	if (r < 0) {
		return r;
	}
	*ret = (struct host_net){
		.addrs = mem_calloc(s.addrs.n + 1, sizeof(*ret->addrs)),
		.gateways = mem_calloc(s.routes.n + 1, sizeof(*ret->gateways)),
	};
	own = link_by_name(&s.links, nl->ifname);
	for (size_t i = 0; i < s.addrs.n; i++) {
		const struct addr *a = &s.addrs.v[i];
		const struct link *link = link_by_index(&s.links, a->index);

		if (link == NULL || link == own || (link->flags & IFF_UP) == 0 ||
		    ipaddr_is_link_local(&a->prefix.addr) ||
		    (a->flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED | IFA_F_DEPRECATED)) != 0) {
			continue;
		}
		ret->addrs[ret->n_addrs].prefix = a->prefix;
		ret->addrs[ret->n_addrs].loopback = (link->flags & IFF_LOOPBACK) != 0;
		memcpy(ret->addrs[ret->n_addrs].ifname, link->name, sizeof(link->name));
		ret->n_addrs++;
	}
	for (size_t i = 0; i < s.routes.n; i++) {
		const struct route *route = &s.routes.v[i];

		if (route->dst.len == 0 && route->gateway.family != 0 &&
		    (own == NULL || route->oif != own->index)) {
			ret->gateways[ret->n_gateways++] = route->gateway;
		}
	}
	snapshot_done(&s);
	return 0;
}

void host_net_done(struct host_net *net)
{
	mem_free(net->addrs);
	mem_free(net->gateways);
	*net = (struct host_net){0};
}

static int on_lookup(const struct nlmsghdr *msg, void *arg)
{
	struct route *r = arg;

	return route_read(msg, r) ? MNL_CB_STOP : MNL_CB_OK;
}

static int netlink_route(struct host *host, const struct ipaddr *to, struct host_route *ret)
{
	struct host_netlink *nl = of_host(host);
	char buf[256];
	struct nlmsghdr *msg = request(buf, RTM_GETROUTE, 0);
	struct rtmsg *info = mnl_nlmsg_put_extra_header(msg, sizeof(*info));
	struct route found = {0};
	int r;

	info->rtm_family = to->family == 4 ? AF_INET : AF_INET6;
	info->rtm_dst_len = to->family == 4 ? 32 : 128;
	mnl_attr_put(msg, RTA_DST, ipaddr_len(to), to->b);
	*ret = (struct host_route){0};
	r = talk(nl, msg, on_lookup, &found);
	if (r < 0) {
		/* No route is an answer, not a failure. */
		return r == -ENETUNREACH || r == -EHOSTUNREACH || r == -EACCES || r == -EINVAL ? 0
											       : r;
	}
	ret->reachable = found.type == RTN_UNICAST || found.type == RTN_LOCAL;
	ret->direct = found.gateway.family == 0;
	ret->tunnel = found.oif != 0 && found.oif == if_nametoindex(nl->ifname);
	ret->source = found.src;
	ret->gateway = found.gateway;
	return 0;
}

/* ---- Changes ------------------------------------------------------------------------------------------------------- */

static int set_link(struct host_netlink *nl, unsigned index, bool set_up, bool up, uint32_t mtu)
{
	char buf[256];
	struct nlmsghdr *msg = request(buf, RTM_NEWLINK, NLM_F_ACK);
	struct ifinfomsg *info = mnl_nlmsg_put_extra_header(msg, sizeof(*info));

	info->ifi_family = AF_UNSPEC;
	info->ifi_index = (int)index;
	if (set_up) {
		info->ifi_change = IFF_UP;
		info->ifi_flags = up ? IFF_UP : 0;
	}
	if (mtu != 0) {
		mnl_attr_put_u32(msg, IFLA_MTU, mtu);
	}
	return talk(nl, msg, NULL, NULL);
}

static int set_addr(struct host_netlink *nl, unsigned index, bool add, const struct prefix *p)
{
	char buf[256];
	struct nlmsghdr *msg = request(buf, add ? RTM_NEWADDR : RTM_DELADDR,
				       add ? NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE : NLM_F_ACK);
	struct ifaddrmsg *info = mnl_nlmsg_put_extra_header(msg, sizeof(*info));
	int r;

	info->ifa_family = p->addr.family == 4 ? AF_INET : AF_INET6;
	info->ifa_prefixlen = p->len;
	info->ifa_scope = RT_SCOPE_UNIVERSE;
	info->ifa_index = index;
	mnl_attr_put(msg, IFA_LOCAL, ipaddr_len(&p->addr), p->addr.b);
	mnl_attr_put(msg, IFA_ADDRESS, ipaddr_len(&p->addr), p->addr.b);
	if (add) {
		/* Nobody else can have it, and the route is ours to set. */
		mnl_attr_put_u32(msg, IFA_FLAGS,
				 IFA_F_NOPREFIXROUTE | (p->addr.family == 6 ? IFA_F_NODAD : 0));
	}
	r = talk(nl, msg, NULL, NULL);
	return !add && r == -EADDRNOTAVAIL ? 0 : r;
}

static int set_route(struct host_netlink *nl, unsigned index, bool add, const struct mesh_op *op)
{
	const struct prefix *p = &op->prefix;
	char buf[256];
	struct nlmsghdr *msg = request(buf, add ? RTM_NEWROUTE : RTM_DELROUTE,
				       add ? NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE : NLM_F_ACK);
	struct rtmsg *info = mnl_nlmsg_put_extra_header(msg, sizeof(*info));
	int r;

	info->rtm_family = p->addr.family == 4 ? AF_INET : AF_INET6;
	info->rtm_dst_len = p->len;
	info->rtm_table = RT_TABLE_MAIN;
	info->rtm_protocol = ROUTE_PROTOCOL;
	info->rtm_scope = p->addr.family == 4 ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
	info->rtm_type = RTN_UNICAST;
	mnl_attr_put(msg, RTA_DST, ipaddr_len(&p->addr), p->addr.b);
	mnl_attr_put_u32(msg, RTA_OIF, index);
	if (add && op->src.family != 0) {
		mnl_attr_put(msg, RTA_PREFSRC, ipaddr_len(&op->src), op->src.b);
	}
	r = talk(nl, msg, NULL, NULL);
	return !add && r == -ESRCH ? 0 : r;
}

static int do_op(struct host_netlink *nl, unsigned index, const struct mesh_op *op, uint32_t mtu)
{
	switch (op->kind) {
	case MESH_SET_MTU: return set_link(nl, index, false, false, mtu);
	case MESH_LINK_UP: return set_link(nl, index, true, true, 0);
	case MESH_LINK_DOWN: return set_link(nl, index, true, false, 0);
	case MESH_ADDR_ADD:
	case MESH_ADDR_DEL: return set_addr(nl, index, op->kind == MESH_ADDR_ADD, &op->prefix);
	case MESH_ROUTE_ADD:
	case MESH_ROUTE_DEL: return set_route(nl, index, op->kind == MESH_ROUTE_ADD, op);
	case MESH_SET_KEY:
	case MESH_SET_PORT:
	case MESH_PEER_REMOVE:
	case MESH_PEER_UPDATE:
	case MESH_PEER_ADD: break;
	}
	return 0;
}

static int netlink_set(struct host *host, const struct mesh_ops *ops, size_t *ret_failed,
		       struct err *e)
{
	struct host_netlink *nl = of_host(host);
	unsigned index = if_nametoindex(nl->ifname);
	size_t failed = 0;
	int ret = 0;

	if (index == 0) {
		return err_set(e, ERR_NOT_FOUND, "there is no interface %s", nl->ifname);
	}
	for (size_t i = 0; i < ops->n; i++) {
		const struct mesh_op *op = &ops->v[i];
		char text[PREFIX_TEXT] = "";
		int r = do_op(nl, index, op, op->mtu);

		if (r < 0) {
			failed++;
			if (ret == 0) {
				if (op->prefix.addr.family != 0) {
					prefix_format(&op->prefix, text);
				}
				ret = err_set(e, r, "%s %s on %s: %s", mesh_op_text(op->kind), text,
					      nl->ifname, strerror(-r));
			}
		}
	}
	*ret_failed = failed;
	return ret;
}

/* ---- Watching ------------------------------------------------------------------------------------------------------ */

static void on_quiet(void *arg)
{
	struct host_netlink *nl = arg;

	nl->cb(nl->arg);
}

static void on_events(void *arg)
{
	struct host_netlink *nl = arg;
	char buf[8192];

	/* What changed is not read out of the events: the reader looks at the whole. ENOBUFS is an event as well. */
	while (mnl_socket_recvfrom(nl->events, buf, sizeof(buf)) > 0 || errno == ENOBUFS) {
	}
	if (!loop_timer_active(&nl->quiet)) {
		loop_timer_start(&nl->quiet, nl->loop, QUIET_MS, on_quiet, nl);
	}
}

static int netlink_watch(struct host *host, struct loop *loop, void (*cb)(void *arg), void *arg,
			 struct err *e)
{
	struct host_netlink *nl = of_host(host);
	unsigned groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR |
			  RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE;

	nl->events = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (nl->events == NULL || mnl_socket_bind(nl->events, groups, MNL_SOCKET_AUTOPID) < 0) {
		return err_errno(e, "cannot watch the host's network");
	}
	nl->loop = loop;
	nl->cb = cb;
	nl->arg = arg;
	nl->poll = loop_poll_new(loop, mnl_socket_get_fd(nl->events), on_events, nl);
	if (nl->poll == NULL) {
		return err_set(e, ERR_INTERNAL, "cannot watch the host's network");
	}
	return 0;
}

static void netlink_free(struct host *host)
{
	struct host_netlink *nl = of_host(host);

	loop_timer_stop(&nl->quiet);
	loop_poll_free(nl->poll);
	if (nl->events != NULL) {
		mnl_socket_close(nl->events);
	}
	mnl_socket_close(nl->socket);
	mem_free(nl);
}

static const struct host_ops netlink_ops = {
	.name = "netlink",
	.get = netlink_get,
	.set = netlink_set,
	.net = netlink_net,
	.route = netlink_route,
	.watch = netlink_watch,
	.free = netlink_free,
};

int host_netlink_new(const char *ifname, struct host **ret_host, struct err *e)
{
	struct host_netlink *nl;

	if (strlen(ifname) >= IFNAMSIZ) {
		return err_set(e, ERR_INVALID, "interface name %s has more than 15 characters",
			       ifname);
	}
	nl = MEM_NEW(struct host_netlink);
	nl->host.ops = &netlink_ops;
	strcpy(nl->ifname, ifname);
	nl->socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (nl->socket == NULL || mnl_socket_bind(nl->socket, 0, MNL_SOCKET_AUTOPID) < 0) {
		int r = err_errno(e, "cannot open rtnetlink");

		if (nl->socket != NULL) {
			mnl_socket_close(nl->socket);
		}
		mem_free(nl);
		return r;
	}
	*ret_host = &nl->host;
	return 0;
}
