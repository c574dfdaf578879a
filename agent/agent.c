#include "agent/agent.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/agent_int.h"
#include "base/clock.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "net/dial.h"

char *agent_path(const struct agent *a, const char *file)
{
	return mem_printf("%s/%s", a->config->state_dir, file);
}

bool agent_is_up(const struct agent *a)
{
	return a->settings.up && a->identity.enrolment.registered;
}

bool agent_is_expired(const struct agent *a)
{
	return a->has_admitted && a->admitted.expire_ms != 0 &&
	       a->admitted.expire_ms <= clock_wall_ms();
}

/* ---- Admission ----------------------------------------------------------------------------------------------------- */

static void in_use_add(struct in_use *list, size_t *n, const struct ipaddr *addr,
		       enum in_use_kind kind)
{
	if (addr->family != 0) {
		list[(*n)++] = (struct in_use){*addr, kind};
	}
}

/* Host part of a URL that the dialler has accepted. */
static bool url_host(const char *url, char host[256])
{
	return dial_parse(url, host, NULL, NULL, NULL) >= 0;
}

void agent_consent(struct agent *a, struct consent *ret, struct in_use **ret_in_use,
		   const char ***ret_hosts, struct prefix **ret_connected)
{
	const struct enrolment *en = &a->identity.enrolment;
	struct ipport upstreams[AGENT_RESOLVERS];
	size_t n_upstreams = dns_glue_upstreams(a->dns, upstreams, AGENT_RESOLVERS), n = 0;
	struct control_info info;
	char host[256];
	struct ipaddr addr;

	control_info(a->control, &info);
	*ret_in_use =
		mem_calloc(a->net.n_gateways + info.n_urls + 1 + n_upstreams, sizeof(**ret_in_use));
	*ret_hosts = mem_calloc(2 * LIM_LIGHTHOUSE_URLS + a->config->lighthouses.n + 1,
				sizeof(**ret_hosts));
	*ret_connected = mem_calloc(a->net.n_addrs + 1, sizeof(**ret_connected));
	*ret = (struct consent){
		.cluster_id = en->cluster_id,
		.tailnet_id = en->tailnet_id,
		.node_id = en->node_id,
		.prefixes = en->prefixes,
		.n_prefixes = en->n_prefixes,
		.epoch = a->netmap.epoch,
		.revision = a->netmap.revision,
		.accept_routes = a->settings.accept_routes,
		.dns = a->settings.accept_dns,
		.allow_loopback = true,
		.connected = *ret_connected,
		.in_use = *ret_in_use,
		.lighthouse_hosts = *ret_hosts,
	};
	memcpy(ret->node_key, a->identity.node_key, 32);
	for (size_t i = 0; i < a->net.n_addrs; i++) {
		(*ret_connected)[ret->n_connected++] = prefix_masked(&a->net.addrs[i].prefix);
		if (!a->net.addrs[i].loopback) {
			ret->allow_loopback = false;
		}
	}
	for (size_t i = 0; i < a->net.n_gateways; i++) {
		in_use_add(*ret_in_use, &n, &a->net.gateways[i], IN_USE_GATEWAY);
	}
	in_use_add(*ret_in_use, &n, &info.peer_addr.addr, IN_USE_LIGHTHOUSE);
	for (size_t i = 0; i < info.n_urls; i++) {
		if (url_host(info.urls[i], host) && ipaddr_parse(host, &addr, NULL) >= 0) {
			in_use_add(*ret_in_use, &n, &addr, IN_USE_LIGHTHOUSE);
		}
	}
	for (size_t i = 0; i < n_upstreams; i++) {
		in_use_add(*ret_in_use, &n, &upstreams[i].addr, IN_USE_RESOLVER);
	}
	ret->n_in_use = n;
	/* Those that the owner named; the learnt ones are judged with the netmap. */
	for (size_t i = 0; i < a->settings.n_lighthouses; i++) {
		if (url_host(a->settings.lighthouses[i], host)) {
			(*ret_hosts)[ret->n_lighthouse_hosts++] = mem_strdup(host);
		}
	}
	for (size_t i = 0; i < a->config->lighthouses.n; i++) {
		if (url_host(a->config->lighthouses.v[i], host)) {
			(*ret_hosts)[ret->n_lighthouse_hosts++] = mem_strdup(host);
		}
	}
}

static void consent_done(struct consent *c, struct in_use *in_use, const char **hosts,
			 struct prefix *connected)
{
	for (size_t i = 0; i < c->n_lighthouse_hosts; i++) {
		mem_free((char *)hosts[i]);
	}
	mem_free(hosts);
	mem_free(in_use);
	mem_free(connected);
}

/* A refusal that stays is one line; it is counted when it comes (again). */
static void refusals_note(struct agent *a, const struct refusals *r)
{
	size_t kept = 0;

	for (size_t i = 0; i < a->n_refusals; i++) {
		a->refusals[i].was_current = a->refusals[i].current;
		a->refusals[i].current = false;
	}
	for (size_t i = 0; i < r->n_lines; i++) {
		const struct refusal *in = &r->lines[i];
		struct refusal_line *line = NULL;

		for (size_t j = 0; j < a->n_refusals && line == NULL; j++) {
			if (a->refusals[j].kind == in->kind &&
			    a->refusals[j].node_id == in->node_id &&
			    strcmp(a->refusals[j].text, in->text) == 0) {
				line = &a->refusals[j];
			}
		}
		if (line == NULL) {
			char label[64];

			LOG_WARN("refused from the lighthouse: %s", in->text);
			snprintf(label, sizeof(label), "kind=\"%s\"", refuse_word(in->kind));
			counter_inc(metrics_counter("skerry_agent_refusals_total",
						    "things of netmaps that were not taken",
						    label));
			if (a->n_refusals == AGENT_REFUSALS) {
				continue;
			}
			line = &a->refusals[a->n_refusals++];
			*line = (struct refusal_line){.kind = in->kind, .node_id = in->node_id};
			memcpy(line->text, in->text, sizeof(line->text));
		}
		line->count += !line->was_current;
		line->was_current = true;
		line->current = true;
	}
	/* Half of the room is for what was refused earlier. */
	for (size_t i = 0; i < a->n_refusals; i++) {
		if (a->refusals[i].current || a->n_refusals <= AGENT_REFUSALS / 2) {
			a->refusals[kept++] = a->refusals[i];
		}
	}
	a->n_refusals = kept;
}

static bool judge(struct agent *a, const struct netmap *nm, struct admitted *ret,
		  struct refusals *ret_refusals)
{
	const char **hosts;
	struct in_use *in_use;
	struct prefix *connected;
	struct consent consent;
	bool ok;

	agent_consent(a, &consent, &in_use, &hosts, &connected);
	ok = netmap_admit(nm, &consent, ret, ret_refusals);
	consent_done(&consent, in_use, hosts, connected);
	return ok;
}

/* What the first netmap and later ones teach about the cluster. */
static void learn_enrolment(struct agent *a)
{
	struct enrolment *en = &a->identity.enrolment;
	const struct admitted *ad = &a->admitted;
	bool changed = false;
	struct err e = {0};

	if (en->n_prefixes == 0 && ad->n_prefixes > 0) {
		en->n_prefixes = MIN(ad->n_prefixes, (size_t)IDENTITY_PREFIXES);
		memcpy(en->prefixes, ad->prefixes, en->n_prefixes * sizeof(*en->prefixes));
		changed = true;
	}
	if (ad->n_lighthouses > 0 &&
	    enrolment_set_lighthouses(en, ad->lighthouses, ad->n_lighthouses)) {
		changed = true;
	}
	if (ad->name[0] != '\0' && strcmp(en->name, ad->name) != 0) {
		snprintf(en->name, sizeof(en->name), "%s", ad->name);
		changed = true;
	}
	if (en->expire_ms != ad->expire_ms) {
		en->expire_ms = ad->expire_ms;
		changed = true;
	}
	if (changed && identity_save_enrolment(&a->identity, &e) < 0) {
		LOG_ERROR("%s", e.msg);
	}
}

void agent_readmit(struct agent *a)
{
	struct admitted fresh;
	struct refusals refusals;
	bool ok;

	if (!netmap_held(&a->netmap)) {
		agent_apply_soon(a);
		return;
	}
	ok = judge(a, &a->netmap, &fresh, &refusals);
	refusals_note(a, &refusals);
	refusals_done(&refusals);
	admitted_done(&a->admitted);
	a->admitted = fresh;
	a->has_admitted = ok;
	if (ok) {
		learn_enrolment(a);
	}
	agent_endpoints_update(a);
	agent_apply_soon(a);
}

/* ---- What control tells --------------------------------------------------------------------------------------------- */

static bool on_admit(void *arg, const struct netmap *candidate, struct err *e)
{
	struct agent *a = arg;
	struct admitted admitted;
	struct refusals refusals;
	bool ok = judge(a, candidate, &admitted, &refusals);

	if (!ok) {
		refusals_note(a, &refusals);
		err_set(e, ERR_DENIED, "the netmap was refused: %s",
			refusals.n_lines > 0 ? refusals.lines[0].text : "");
	}
	admitted_done(&admitted);
	refusals_done(&refusals);
	return ok;
}

static void on_netmap(void *arg, unsigned changes)
{
	struct agent *a = arg;

	if (changes & (NETMAP_CHANGE_SELF | NETMAP_CHANGE_PEERS | NETMAP_CHANGE_VIEW)) {
		agent_readmit(a);
		agent_save_soon(a);
	}
	local_progress(a->local);
}

static void on_change(void *arg)
{
	struct agent *a = arg;

	local_progress(a->local);
}

static void on_step(void *arg, enum control_step step, bool waiting, const char *text)
{
	struct agent *a = arg;

	if (step == CONTROL_STEP_REGISTERED) {
		agent_apply_soon(a);
	}
	local_step(a->local, step, waiting, text);
}

static void on_refused(void *arg, const struct err *why)
{
	struct agent *a = arg;

	local_refused(a->local, why);
}

static const struct control_handler control_handler = {
	.admit = on_admit,
	.on_netmap = on_netmap,
	.on_change = on_change,
	.on_step = on_step,
	.on_refused = on_refused,
};

static void on_network(void *arg)
{
	struct agent *a = arg;

	agent_endpoints_update(a);
	paths_network_changed(a->paths);
	control_network_changed(a->control);
	agent_readmit(a);
}

/* ---- Settings ------------------------------------------------------------------------------------------------------ */

static void set_urls(struct agent *a)
{
	const char *urls[LIM_LIGHTHOUSE_URLS];
	size_t n = 0;

	for (size_t i = 0; i < a->settings.n_lighthouses && n < LIM_LIGHTHOUSE_URLS; i++) {
		urls[n++] = a->settings.lighthouses[i];
	}
	for (size_t i = 0; i < a->config->lighthouses.n && n < LIM_LIGHTHOUSE_URLS; i++) {
		urls[n++] = a->config->lighthouses.v[i];
	}
	control_set_urls(a->control, urls, n);
}

int agent_settings_changed(struct agent *a, struct err *e)
{
	char *path = agent_path(a, "settings.json");
	int r = settings_save(path, &a->settings, e);

	mem_free(path);
	if (r < 0) {
		return r;
	}
	set_urls(a);
	control_set_hostname(a->control, a->settings.hostname);
	agent_readmit(a);
	return 0;
}

void agent_forget(struct agent *a)
{
	char *path = agent_path(a, "netmap.pb");
	struct err e = {0};

	control_stop(a->control);
	agent_save_flush(a);
	netmap_done(&a->netmap);
	admitted_done(&a->admitted);
	a->has_admitted = false;
	if (identity_forget(&a->identity, &e) < 0 || file_remove(path, &e) < 0) {
		LOG_ERROR("%s", e.msg);
	}
	mem_free(path);
	agent_apply_now(a);
}

/* ---- Start and end ------------------------------------------------------------------------------------------------- */

/* The netmap that an earlier run stored. A damaged one is no reason not to start: the lighthouse sends another. */
static void load_netmap(struct agent *a)
{
	char *path = agent_path(a, "netmap.pb");
	struct err e = {0};
	int r = netmap_load(path, &a->netmap, &e);

	if (r >= 0) {
		LOG_INFO("stored netmap: revision %llu, %zu peers",
			 (unsigned long long)a->netmap.revision, a->netmap.n_peers);
	} else if (r != -ENOENT) {
		LOG_WARN("the stored netmap is not used: %s", e.msg);
	}
	mem_free(path);
	if (a->identity.moved || !a->identity.enrolment.registered) {
		netmap_done(&a->netmap);
	}
}

static int open_state(struct agent *a, struct err *e)
{
	char *path;
	int r = identity_open(a->config->state_dir, a->config->machine_id, &a->identity, e);

	if (r < 0) {
		return r;
	}
	if (a->identity.moved) {
		LOG_WARN("the state directory was made on another host, or its machine.key is "
			 "gone: this device has new keys "
			 "and must register again");
	}
	path = agent_path(a, "settings.json");
	r = settings_load(path, a->config, &a->settings, e);
	mem_free(path);
	return r;
}

static int open_host(struct agent *a, const struct agent_opts *opts, struct err *e)
{
	int r = 0;

	a->use_fakes = opts->host != NULL;
	if (a->use_fakes) {
		a->wg = opts->wg;
		a->host = opts->host;
	} else {
		r = host_netlink_new(a->config->interface, &a->host, e);
	}
	if (r >= 0) {
		a->paths = paths_new(a->host);
		r = a->host->ops->watch(a->host, a->loop, on_network, a, e);
	}
	return r;
}

int agent_new(struct loop *loop, const struct agent_opts *opts, struct agent **ret_agent,
	      struct err *e)
{
	struct agent *a = MEM_NEW(struct agent);
	struct control_opts control = {.loop = loop,
				       .identity = &a->identity,
				       .netmap = &a->netmap,
				       .handler = &control_handler,
				       .arg = a};
	int r;

	a->loop = loop;
	a->config = opts->config;
	a->refusals = mem_calloc(AGENT_REFUSALS, sizeof(*a->refusals));
	r = open_state(a, e);
	if (r >= 0) {
		r = open_host(a, opts, e);
	}
	if (r >= 0) {
		/* The socket first: a second agent on the same state must not touch anything. */
		r = local_new(a, &a->local, e);
	}
	if (r < 0) {
		agent_free(a);
		return r;
	}
	a->control = control_new(&control);
	if (!opts->no_dns) {
		a->dns = dns_glue_new(a);
	}
	set_urls(a);
	control_set_hostname(a->control, a->settings.hostname);
	load_netmap(a);
	agent_endpoints_update(a);
	agent_readmit(a);
	agent_apply_now(a);
	agent_poll_start(a);
	if (a->settings.up) {
		control_start(a->control);
	}
	*ret_agent = a;
	return 0;
}

void agent_free(struct agent *a)
{
	if (a == NULL) {
		return;
	}
	local_free(a->local);
	a->local = NULL;
	control_free(a->control);
	loop_timer_stop(&a->apply_timer);
	loop_timer_stop(&a->poll_timer);
	agent_save_flush(a);
	dns_glue_free(a->dns);
	paths_free(a->paths);
	if (!a->use_fakes) {
		wg_free(a->wg);
		host_free(a->host);
	}
	host_net_done(&a->net);
	mesh_done(&a->actual);
	admitted_done(&a->admitted);
	netmap_done(&a->netmap);
	settings_done(&a->settings);
	identity_done(&a->identity);
	mem_free(a->refusals);
	mem_free(a->endpoints);
	mem_free(a);
}
