/*
 * Brings the host in line with what was admitted: looks at what is, takes the difference, does it. Nothing is ever torn
 * down because a lighthouse is away or because the agent ends.
 */
#include <stdio.h>
#include <string.h>

#include "agent/agent_int.h"
#include "agent/filter.h"
#include "base/clock.h"
#include "base/enc.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"

static const struct prefix service_addrs[] = {
	{{4, {100, 100, 100, 100}}, 32},
	{{6, {0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53}}, 128},
};

/* ---- WireGuard's presence ------------------------------------------------------------------------------------------ */

bool agent_wg_ensure(struct agent *a)
{
	struct wg_uapi_opts opts = {
		.ifname = a->config->interface,
		.program = a->config->wireguard_go,
		.uapi_dir = a->config->uapi_dir,
	};
	struct err e = {0};
	bool adopted;

	if (a->wg != NULL) {
		return true;
	}
	if (wg_uapi_new(&opts, &a->wg, &adopted, &e) < 0) {
		if (strcmp(a->wg_problem, e.msg) != 0) {
			LOG_ERROR("%s", e.msg);
		}
		snprintf(a->wg_problem, sizeof(a->wg_problem), "%s", e.msg);
		return false;
	}
	a->wg_problem[0] = '\0';
	a->adopted = adopted;
	LOG_INFO("%s %s",
		 adopted ? "took over the running wireguard-go of" : "started wireguard-go for",
		 opts.ifname);
	return true;
}

/* WireGuard does not answer: it is looked for (or started) again. */
static void wg_lost(struct agent *a, const struct err *e)
{
	LOG_WARN("%s", e->msg);
	snprintf(a->wg_problem, sizeof(a->wg_problem), "%s", e->msg);
	METRICS_COUNT("skerry_agent_wireguard_lost_total", "times WireGuard did not answer", 1);
	if (!a->use_fakes) {
		wg_free(a->wg);
		a->wg = NULL;
	}
}

/* ---- Wanted -------------------------------------------------------------------------------------------------------- */

static void want_peer(struct agent *a, const struct admitted_peer *in, int64_t wall_ms,
		      struct mesh *wanted)
{
	struct mesh_peer *p;

	if (in->expire_ms != 0 && in->expire_ms <= wall_ms) {
		return; /* whatever a lighthouse says: an expired node is no peer */
	}
	p = mesh_add_peer(wanted, in->key);
	for (size_t i = 0; i < in->n_allowed; i++) {
		mesh_peer_allow(p, &in->allowed[i]);
	}
	paths_choose(a->paths, in, mesh_find_peer(&a->actual, in->key), clock_mono_ms(), wall_ms,
		     p);
}

static struct ipaddr own_address(const struct admitted *ad, uint8_t family)
{
	for (size_t i = 0; i < ad->n_addresses; i++) {
		if (ad->addresses[i].family == family) {
			return ad->addresses[i];
		}
	}
	return (struct ipaddr){0};
}

static void want_routes(const struct admitted *ad, struct mesh *wanted)
{
	for (size_t i = 0; i < ad->n_prefixes + ad->n_routes; i++) {
		const struct prefix *p = i < ad->n_prefixes ? &ad->prefixes[i]
							    : &ad->routes[i - ad->n_prefixes];
		struct ipaddr src = own_address(ad, p->addr.family);

		/* Without an own address of the family nothing could answer. */
		if (src.family != 0) {
			mesh_add_route(wanted, p, &src);
		}
	}
}

static void make_wanted(struct agent *a, struct mesh *wanted)
{
	const struct admitted *ad = &a->admitted;
	int64_t now = clock_wall_ms();

	/* The port is taken before the registration, which tells it. */
	*wanted = (struct mesh){.listen_port = a->settings.up ? a->listen_port : 0};
	if (!agent_is_up(a) || !a->has_admitted || ad->refused || agent_is_expired(a)) {
		return; /* no peers, no addresses, link down */
	}
	wanted->up = true;
	wanted->mtu = (uint32_t)a->config->mtu;
	memcpy(wanted->private_key, a->identity.node_secret, 32);
	for (size_t i = 0; i < ad->n_peers; i++) {
		want_peer(a, &ad->peers[i], now, wanted);
	}
	paths_sweep(a->paths);
	for (size_t i = 0; i < ad->n_addresses; i++) {
		struct prefix p = prefix_of(&ad->addresses[i]);

		mesh_add_addr(wanted, &p);
	}
	if (a->settings.accept_dns != ACCEPT_DNS_OFF) {
		for (size_t i = 0; i < ARRAY_LEN(service_addrs); i++) {
			mesh_add_addr(wanted, &service_addrs[i]);
		}
	}
	want_routes(ad, wanted);
	mesh_sort(wanted);
}

/* ---- Actual -------------------------------------------------------------------------------------------------------- */

static int look(struct agent *a)
{
	struct err e = {0};
	int r = a->wg->ops->get(a->wg, &a->actual, &e);

	if (r >= 0) {
		r = a->host->ops->get(a->host, &a->actual, &e);
	}
	if (r < 0) {
		wg_lost(a, &e);
	}
	return r;
}

/*
 * The port: what an adopted WireGuard has already (if it is one that we would have taken), else the configured one, or the
 * next that is free.
 */
static void choose_port(struct agent *a)
{
	uint16_t first = (uint16_t)a->config->listen_port;

	if (a->listen_port != 0) {
		return;
	}
	if (a->adopted && a->actual.listen_port >= first &&
	    a->actual.listen_port - first < AGENT_PORTS) {
		a->listen_port = a->actual.listen_port;
	} else {
		a->listen_port = first;
	}
}

static int do_wg(struct agent *a, struct mesh *wanted, struct mesh_ops *ops, struct err *e)
{
	int r;

	for (int i = 0; i < AGENT_PORTS; i++) {
		r = a->wg->ops->set(a->wg, wanted, ops, e);
		if (r != ERR_EXISTS || wanted->listen_port == UINT16_MAX) {
			break;
		}
		wanted->listen_port++;
	}
	/* Without a port wanted (down, or not set up yet) the chosen one stays chosen. */
	if (r >= 0 && wanted->listen_port != 0 && wanted->listen_port != a->listen_port) {
		LOG_WARN("UDP port %u is taken, WireGuard listens on %u", a->listen_port,
			 wanted->listen_port);
		a->listen_port = wanted->listen_port;
	}
	return r;
}

/* ---- Apply --------------------------------------------------------------------------------------------------------- */

static void log_ops(const struct mesh_ops *ops)
{
	if (log_get_level() < LOG_LEVEL_DEBUG) {
		return;
	}
	for (size_t i = 0; i < ops->n; i++) {
		char prefix[PREFIX_TEXT] = "", key[65] = "";

		if (ops->v[i].prefix.addr.family != 0) {
			prefix_format(&ops->v[i].prefix, prefix);
		}
		if (ops->v[i].peer != NULL) {
			hex_encode(key, ops->v[i].peer->key, 32);
			key[8] = '\0';
		}
		LOG_DEBUG("%s %s%s", mesh_op_text(ops->v[i].kind), key, prefix);
	}
}

static void do_ops(struct agent *a, struct mesh *wanted, struct mesh_ops *ops)
{
	struct err e = {0};
	size_t failed = 0;

	log_ops(ops);
	a->operations += ops->n;
	METRICS_COUNT("skerry_agent_operations_total",
		      "changes made to WireGuard and the host's network", ops->n);
	if (do_wg(a, wanted, ops, &e) < 0) {
		a->failed_operations++;
		a->applied = false;
		if (e.code == ERR_UNAVAILABLE) {
			wg_lost(a, &e);
			return;
		}
		LOG_ERROR("%s", e.msg);
		snprintf(a->wg_problem, sizeof(a->wg_problem), "%s", e.msg);
	} else {
		a->wg_problem[0] = '\0';
	}
	if (a->host->ops->set(a->host, ops, &failed, &e) < 0) {
		if (strcmp(a->host_problem, e.msg) != 0) {
			LOG_ERROR("%s", e.msg);
		}
		snprintf(a->host_problem, sizeof(a->host_problem), "%s", e.msg);
		a->failed_operations += failed;
		a->applied = false;
	} else {
		a->host_problem[0] = '\0';
	}
	METRICS_COUNT("skerry_agent_failed_operations_total", "changes that failed", failed);
}

void agent_apply_now(struct agent *a)
{
	struct mesh wanted;
	struct mesh_ops ops = {0};
	uint16_t old_port = a->listen_port;
	struct err e = {0};

	loop_timer_stop(&a->apply_timer);
	a->applied = true;
	/* Down and nothing there: nothing to do, and no reason to start anything. */
	if (a->wg == NULL && !a->settings.up &&
	    !wg_uapi_alive(a->config->uapi_dir, a->config->interface)) {
		dns_glue_update(a->dns);
		return;
	}
	if (!agent_wg_ensure(a) || look(a) < 0) {
		a->applied = false;
		return;
	}
	if (a->settings.up) {
		choose_port(a);
	}
	make_wanted(a, &wanted);
	mesh_reconcile(&wanted, &a->actual, &ops);
	if (ops.n > 0) {
		do_ops(a, &wanted, &ops);
		if (a->wg != NULL) {
			IGNORE(look(a));
		}
	}
	mesh_ops_done(&ops);
	mesh_done(&wanted);
	if (filter_apply(&a->admitted, &e) < 0) {
		LOG_ERROR("%s", e.msg);
		a->applied = false;
	}
	if (a->listen_port != old_port) {
		agent_endpoints_update(a);
	}
	dns_glue_update(a->dns);
	local_progress(a->local);
}

static void on_apply(void *arg)
{
	agent_apply_now(arg);
}

void agent_apply_soon(struct agent *a)
{
	if (!loop_timer_active(&a->apply_timer)) {
		loop_timer_start(&a->apply_timer, a->loop, AGENT_APPLY_MS, on_apply, a);
	}
}

/* Looks how the peers do: paths may have to change, somebody may have expired, WireGuard may be gone. */
static void on_poll(void *arg)
{
	struct agent *a = arg;
	bool many = a->admitted.n_peers > AGENT_MANY;

	loop_timer_start(&a->poll_timer, a->loop, many ? AGENT_POLL_MANY_MS : AGENT_POLL_MS,
			 on_poll, a);
	if (agent_is_up(a) && a->has_admitted) {
		agent_apply_now(a);
	}
}

void agent_poll_start(struct agent *a)
{
	loop_timer_start(&a->poll_timer, a->loop, AGENT_POLL_MS, on_poll, a);
}
