/* Where this device can be reached: the host's own addresses with WireGuard's port. */
#include <stdlib.h>
#include <string.h>

#include "agent/agent_int.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"

static bool in_prefixes(const struct prefix *list, size_t n, const struct ipaddr *addr)
{
	for (size_t i = 0; i < n; i++) {
		if (prefix_contains(&list[i], addr)) {
			return true;
		}
	}
	return false;
}

static int endpoint_order(const void *a, const void *b)
{
	return ipport_cmp(a, b);
}

size_t endpoints_gather(const struct host_net *net, const struct prefix *tailnet, size_t n_tailnet,
			uint16_t port, struct ipport *ret, size_t max)
{
	size_t n = 0, kept = 0;

	/* Loopback only when there is nothing else: all nodes of the tailnet then live on this host. */
	for (int loopback = 0; loopback < 2 && n == 0; loopback++) {
		for (size_t i = 0; i < net->n_addrs && n < max; i++) {
			const struct ipaddr *addr = &net->addrs[i].prefix.addr;

			if (ipaddr_is_loopback(addr) != (loopback == 1) ||
			    in_prefixes(tailnet, n_tailnet, addr) ||
			    (loopback == 0 && !ipaddr_is_unicast(addr))) {
				continue;
			}
			ret[n++] = (struct ipport){*addr, port};
		}
	}
	if (n == 0) {
		return 0;
	}
	/* The kernel's order may change without any address changing. */
	qsort(ret, n, sizeof(*ret), endpoint_order);
	for (size_t i = 0; i < n; i++) {
		if (kept == 0 || !ipport_equal(&ret[kept - 1], &ret[i])) {
			ret[kept++] = ret[i];
		}
	}
	return kept;
}

bool endpoints_equal(const struct ipport *a, size_t na, const struct ipport *b, size_t nb)
{
	for (size_t i = 0; na == nb && i < na; i++) {
		if (!ipport_equal(&a[i], &b[i])) {
			return false;
		}
	}
	return na == nb;
}

void agent_endpoints_update(struct agent *a)
{
	static const struct prefix own[] = {
		{{4, {100, 100, 100, 100}}, 32},
		{{6, {0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0}}, 48},
	};
	struct prefix tailnet[ADMIT_PREFIXES + ARRAY_LEN(own)];
	struct ipport found[LIM_NODE_ENDPOINTS];
	struct host_net net = {0};
	struct err e = {0};
	size_t n_tailnet = 0, n;

	if (a->host->ops->net(a->host, &net, &e) < 0) {
		LOG_WARN("%s", e.msg);
		return;
	}
	host_net_done(&a->net);
	a->net = net;
	for (size_t i = 0; i < ARRAY_LEN(own); i++) {
		tailnet[n_tailnet++] = own[i];
	}
	for (size_t i = 0; i < a->admitted.n_prefixes; i++) {
		tailnet[n_tailnet++] = a->admitted.prefixes[i];
	}
	n = a->listen_port == 0 ? 0
				: endpoints_gather(&a->net, tailnet, n_tailnet, a->listen_port,
						   found, ARRAY_LEN(found));
	if (endpoints_equal(found, n, a->endpoints, a->n_endpoints)) {
		return;
	}
	mem_free(a->endpoints);
	a->endpoints = mem_memdup(found, n * sizeof(*found));
	a->n_endpoints = n;
	control_set_endpoints(a->control, found, n);
}
