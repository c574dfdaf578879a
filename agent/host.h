/* The host's network behind a struct of functions: rtnetlink, and a fake for tests. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/mesh.h"
#include "base/err.h"

struct loop;

/* One address of an interface other than the tailnet's. */
struct host_addr {
	struct prefix prefix; /* with host bits */
	char ifname[16];
	bool loopback; /* the interface is */
};

/* How the host would reach an address. */
struct host_route {
	bool reachable;
	bool direct;           /* without a gateway: in a network of this host */
	bool tunnel;           /* through the tailnet's interface */
	struct ipaddr source;  /* address it would send from */
	struct ipaddr gateway; /* family 0 without */
};

/* A snapshot of the host's own network. */
struct host_net {
	struct host_addr *addrs; /* owned */
	size_t n_addrs;
	struct ipaddr *gateways; /* owned; of default routes */
	size_t n_gateways;
};

struct host {
	const struct host_ops *ops;
};

struct host_ops {
	const char *name; /* "netlink", "fake" */
	/* Fills the link part of *ret (up, mtu, addrs, routes through the interface). ERR_NOT_FOUND: no such interface. */
	int (*get)(struct host *host, struct mesh *ret, struct err *e);
	/* Does the operations from MESH_SET_MTU on; goes on after a failed one and returns the first error. */
	int (*set)(struct host *host, const struct mesh_ops *ops, size_t *ret_failed,
		   struct err *e);
	/* The rest of the host: its addresses (global or private scope) and gateways. */
	int (*net)(struct host *host, struct host_net *ret, struct err *e);
	int (*route)(struct host *host, const struct ipaddr *to, struct host_route *ret);
	/* cb(arg) on the loop, after changes of links, addresses or routes have been quiet for a moment. */
	int (*watch)(struct host *host, struct loop *loop, void (*cb)(void *arg), void *arg,
		     struct err *e);
	void (*free)(struct host *host);
};

/* rtnetlink for the interface. The interface need not exist yet. */
MUST_CHECK int host_netlink_new(const char *ifname, struct host **ret_host, struct err *e);

/* The fake: an interface that exists, and addresses that the test gives. */
struct host_fake {
	struct host host;
	struct mesh mesh;
	struct host_net net;
	int fail; /* the next set fails with this code */
	void (*cb)(void *arg);
	void *arg;
};
void host_fake_init(struct host_fake *fake);
void host_fake_addr(struct host_fake *fake, const char *prefix, const char *ifname);
void host_fake_done(struct host_fake *fake);

void host_net_done(struct host_net *net);
static inline void host_free(struct host *host)
{
	if (host != NULL) {
		host->ops->free(host);
	}
}
