/* The answer of `skerry status`, made in one arena. */
#include <stdio.h>
#include <string.h>

#include "agent/filter.h"
#include "agent/local_int.h"
#include "base/arena.h"
#include "base/clock.h"
#include "base/key.h"
#include "base/mem.h"
#include "proto/pb_util.h"

/* What a status may take: a full tailnet of LIM_NETMAP_PEERS nodes with all their endpoints. */
#define STATUS_BYTES (128u << 20)

typedef Skerry__Local__V1__Status Status;

struct maker {
	struct agent *a;
	struct arena arena;
	Status *status;
	int64_t now_ms;
};

static void *make(struct maker *m, size_t size)
{
	void *p = arena_zalloc(&m->arena, size);

	if (p == NULL) {
		IMPOSSIBLE("a status larger than the limits of its parts");
	}
	return p;
}

static char *text_of(struct maker *m, const char *text)
{
	size_t len = strlen(text) + 1;

	return memcpy(make(m, len), text, len);
}

static Google__Protobuf__Timestamp *time_of(struct maker *m, int64_t ms)
{
	return ms == 0 ? NULL : pb_timestamp_set(make(m, sizeof(Google__Protobuf__Timestamp)), ms);
}

static char *key_of(struct maker *m, const char *prefix, const uint8_t key[32])
{
	char text[KEY_PUBLIC_TEXT];

	return text_of(m, key_public_format(prefix, key, text));
}

static char *dns_name(struct maker *m, const char *name)
{
	const char *domain = m->a->admitted.base_domain;
	char text[LIM_LABEL + LIM_DOMAIN + 2];

	if (name[0] == '\0' || domain[0] == '\0') {
		return text_of(m, name);
	}
	snprintf(text, sizeof(text), "%s.%s", name, domain);
	return text_of(m, text);
}

/* ---- Parts --------------------------------------------------------------------------------------------------------- */

static char **addresses_of(struct maker *m, const struct ipaddr *addrs, size_t stride, size_t n)
{
	char **list = make(m, (n + 1) * sizeof(*list));

	for (size_t i = 0; i < n; i++) {
		char text[IPADDR_TEXT];

		list[i] = text_of(
			m, ipaddr_format((const struct ipaddr *)((const char *)addrs + i * stride),
					 text));
	}
	return list;
}

static char **endpoints_of(struct maker *m, const struct ipport *endpoints, size_t n)
{
	char **list = make(m, (n + 1) * sizeof(*list));

	for (size_t i = 0; i < n; i++) {
		char text[IPPORT_TEXT];

		list[i] = text_of(m, ipport_format(&endpoints[i], text));
	}
	return list;
}

static char **copy_list(struct maker *m, char *const *from, size_t n)
{
	char **list = make(m, (n + 1) * sizeof(*list));

	for (size_t i = 0; i < n; i++) {
		list[i] = text_of(m, from[i]);
	}
	return list;
}

static void make_self(struct maker *m)
{
	Skerry__Local__V1__SelfStatus *self = make(m, sizeof(*self));
	const struct agent *a = m->a;
	const struct admitted *ad = &a->admitted;
	const struct enrolment *en = &a->identity.enrolment;
	const Skerry__V1__NetmapSelf *body = a->netmap.self;

	skerry__local__v1__self_status__init(self);
	self->name = text_of(m, en->name);
	self->dns_name = dns_name(m, en->name);
	self->n_addresses = ad->n_addresses;
	self->addresses = addresses_of(m, ad->addresses, sizeof(*ad->addresses), ad->n_addresses);
	self->node_id = en->node_id;
	self->stable_id = text_of(m, en->stable_id);
	self->tailnet_id = en->tailnet_id;
	self->tailnet_name = text_of(m, en->tailnet_name);
	self->user = text_of(m, en->user);
	if (body != NULL) {
		self->n_tags = body->n_tags;
		self->tags = copy_list(m, body->tags, body->n_tags);
	}
	self->node_key = key_of(m, KEY_NODE_PREFIX, a->identity.node_key);
	self->machine_key = key_of(m, KEY_MACHINE_PREFIX, a->identity.machine_key);
	self->expire_time = time_of(m, en->expire_ms);
	self->n_endpoints = a->n_endpoints;
	self->endpoints = endpoints_of(m, a->endpoints, a->n_endpoints);
	m->status->self = self;
}

static Skerry__Local__V1__PeerStatus *make_peer(struct maker *m, const struct admitted_peer *p)
{
	Skerry__Local__V1__PeerStatus *s = make(m, sizeof(*s));
	const struct netmap_peer *held = netmap_find(&m->a->netmap, p->id);
	const struct mesh_peer *wg = mesh_find_peer(&m->a->actual, p->key);

	skerry__local__v1__peer_status__init(s);
	s->name = text_of(m, p->name);
	s->dns_name = dns_name(m, p->name);
	s->n_addresses = p->n_addresses;
	s->addresses = addresses_of(m, &p->allowed->addr, sizeof(*p->allowed), p->n_addresses);
	s->node_id = p->id;
	s->node_key = key_of(m, KEY_NODE_PREFIX, p->key);
	s->expire_time = time_of(m, p->expire_ms);
	s->expired = p->expire_ms != 0 && p->expire_ms <= m->now_ms;
	s->n_endpoints = p->n_endpoints;
	s->endpoints = endpoints_of(m, p->endpoints, p->n_endpoints);
	s->n_routes = p->n_allowed - p->n_addresses;
	s->routes = make(m, (s->n_routes + 1) * sizeof(*s->routes));
	for (size_t i = 0; i < s->n_routes; i++) {
		char text[PREFIX_TEXT];

		s->routes[i] = text_of(m, prefix_format(&p->allowed[p->n_addresses + i], text));
	}
	if (held != NULL) {
		s->stable_id = text_of(m, held->body->stable_id);
		s->user = text_of(m, held->body->user);
		s->n_tags = held->body->n_tags;
		s->tags = copy_list(m, held->body->tags, held->body->n_tags);
		s->online = held->has_presence && held->online;
		s->last_seen_time = time_of(m, held->last_seen_ms);
	}
	if (wg != NULL) {
		char text[IPPORT_TEXT];

		s->endpoint = wg->endpoint.addr.family != 0
				      ? text_of(m, ipport_format(&wg->endpoint, text))
				      : s->endpoint;
		s->last_handshake_time = time_of(m, wg->handshake_ms);
		s->rx_bytes = wg->rx_bytes;
		s->tx_bytes = wg->tx_bytes;
	}
	return s;
}

static void make_peers(struct maker *m)
{
	const struct admitted *ad = &m->a->admitted;

	m->status->peers = make(m, (ad->n_peers + 1) * sizeof(*m->status->peers));
	for (size_t i = 0; i < ad->n_peers; i++) {
		m->status->peers[m->status->n_peers++] = make_peer(m, &ad->peers[i]);
	}
}

static void make_control(struct maker *m, const struct control_info *info)
{
	Skerry__Local__V1__ControlStatus *c = make(m, sizeof(*c));
	Skerry__V1__Revision *revision = make(m, sizeof(*revision));
	const struct agent *a = m->a;
	const Skerry__V1__NetmapSelf *body = a->netmap.self;

	skerry__local__v1__control_status__init(c);
	skerry__v1__revision__init(revision);
	c->attached = info->phase == CONTROL_ATTACHED;
	c->lighthouse_url = text_of(m, info->url);
	c->lighthouse_id = info->lighthouse_id;
	for (size_t i = 0; body != NULL && i < body->n_lighthouses; i++) {
		if (body->lighthouses[i]->id == info->lighthouse_id) {
			c->lighthouse_name = text_of(m, body->lighthouses[i]->name);
		}
	}
	c->cluster_id = a->identity.enrolment.cluster_id;
	c->session = info->session;
	revision->epoch = a->netmap.epoch;
	revision->revision = a->netmap.revision;
	c->revision = revision;
	c->attached_time = time_of(m, info->attached_ms);
	c->lost_time = time_of(m, info->lost_ms);
	c->reattach_ms = info->reattach_ms;
	c->quorum_age_ms = info->quorum_age_ms;
	c->heartbeat_age_ms = info->heartbeat_age_ms;
	c->problem = text_of(m, info->problem);
	c->n_lighthouse_urls = info->n_urls;
	c->lighthouse_urls = copy_list(m, (char *const *)info->urls, info->n_urls);
	c->attaches = info->attaches;
	m->status->control = c;
}

static void make_wireguard(struct maker *m)
{
	Skerry__Local__V1__WireguardStatus *w = make(m, sizeof(*w));
	const struct agent *a = m->a;

	skerry__local__v1__wireguard_status__init(w);
	w->interface = text_of(m, a->config->interface);
	w->listen_port = a->listen_port;
	w->backend = text_of(m, a->wg != NULL ? a->wg->ops->name : "");
	w->adopted = a->adopted;
	w->mtu = a->actual.mtu;
	w->operations = a->operations;
	w->failed_operations = a->failed_operations;
	w->problem = text_of(m, a->wg_problem[0] != '\0' ? a->wg_problem : a->host_problem);
	m->status->wireguard = w;
}

static void make_dns(struct maker *m)
{
	Skerry__Local__V1__DnsStatus *d = make(m, sizeof(*d));
	struct ipport upstreams[AGENT_RESOLVERS];
	struct agent *a = m->a;

	skerry__local__v1__dns_status__init(d);
	d->text = text_of(m, dns_glue_text(a->dns));
	d->serving = dns_glue_serving(a->dns);
	d->addresses = make(m, 2 * sizeof(*d->addresses));
	if (d->serving) {
		d->addresses[d->n_addresses++] = text_of(m, "100.100.100.100");
		d->addresses[d->n_addresses++] = text_of(m, "fd7a:115c:a1e0::53");
	}
	d->base_domain = text_of(m, a->admitted.base_domain);
	d->n_upstreams = dns_glue_upstreams(a->dns, upstreams, AGENT_RESOLVERS);
	d->upstreams = endpoints_of(m, upstreams, d->n_upstreams);
	m->status->dns = d;
}

static void make_refusals(struct maker *m)
{
	const struct agent *a = m->a;

	m->status->refusals = make(m, (a->n_refusals + 1) * sizeof(*m->status->refusals));
	for (size_t i = 0; i < a->n_refusals; i++) {
		Skerry__Local__V1__Refusal *r = make(m, sizeof(*r));

		skerry__local__v1__refusal__init(r);
		r->kind = text_of(m, refuse_word(a->refusals[i].kind));
		r->text = text_of(m, a->refusals[i].text);
		r->node_id = a->refusals[i].node_id;
		r->count = a->refusals[i].count;
		m->status->refusals[m->status->n_refusals++] = r;
	}
}

static Skerry__Local__V1__State state_of(const struct agent *a, const struct control_info *info)
{
	if (info->phase == CONTROL_PENDING || info->pending_code[0] != '\0') {
		return SKERRY__LOCAL__V1__STATE__STATE_NEEDS_APPROVAL;
	}
	if (!a->identity.enrolment.registered || info->unknown) {
		return SKERRY__LOCAL__V1__STATE__STATE_NEEDS_LOGIN;
	}
	if (!a->settings.up) {
		return SKERRY__LOCAL__V1__STATE__STATE_DOWN;
	}
	if (agent_is_expired(a)) {
		return SKERRY__LOCAL__V1__STATE__STATE_EXPIRED;
	}
	return info->phase == CONTROL_ATTACHED ? SKERRY__LOCAL__V1__STATE__STATE_RUNNING
					       : SKERRY__LOCAL__V1__STATE__STATE_DETACHED;
}

static void warn(struct maker *m, const char *text)
{
	m->status->warnings[m->status->n_warnings++] = text_of(m, text);
}

static void make_warnings(struct maker *m, const struct control_info *info)
{
	const struct agent *a = m->a;
	char text[256];

	m->status->warnings = make(m, 8 * sizeof(*m->status->warnings));
	if (a->listen_port != 0 && a->listen_port != a->config->listen_port) {
		snprintf(text, sizeof(text), "UDP port %d is taken, WireGuard listens on %u",
			 (int)a->config->listen_port, a->listen_port);
		warn(m, text);
	}
	if (info->quorum_age_ms >= 5000) {
		snprintf(text, sizeof(text),
			 "the lighthouse has had no quorum for %llu s: changes wait",
			 (unsigned long long)info->quorum_age_ms / 1000);
		warn(m, text);
	}
	if (agent_is_up(a) && a->n_endpoints == 0) {
		warn(m, "this host has no address at which peers could reach it");
	}
	if (a->identity.moved) {
		warn(m, "the state directory was made on another host, or its machine.key is gone: "
			"this "
			"device got new keys");
	}
}

static void on_status(void *arg, struct rpc_call *call, const ProtobufCMessage *req)
{
	const Skerry__Local__V1__GetStatusRequest *in =
		(const Skerry__Local__V1__GetStatusRequest *)req;
	struct local *local = arg;
	struct agent *a = local->a;
	struct maker m = {.a = a, .now_ms = clock_wall_ms()};
	Skerry__Local__V1__Settings settings;
	struct control_info info;
	struct err e = {0};

	/* What WireGuard says now, not at the last look. */
	if (!in->no_peers && a->wg != NULL) {
		IGNORE(a->wg->ops->get(a->wg, &a->actual, &e));
	}
	control_info(a->control, &info);
	arena_init(&m.arena, STATUS_BYTES);
	m.status = make(&m, sizeof(*m.status));
	skerry__local__v1__status__init(m.status);
	m.status->state = state_of(a, &info);
	m.status->version = (char *)SKERRY_VERSION;
	make_self(&m);
	if (!in->no_peers) {
		make_peers(&m);
	}
	make_control(&m, &info);
	make_wireguard(&m);
	make_dns(&m);
	m.status->filter = (char *)filter_text();
	make_refusals(&m);
	make_warnings(&m, &info);
	settings_message(&a->settings, &settings);
	m.status->settings = &settings;
	if (info.pending_code[0] != '\0') {
		Skerry__Local__V1__Approval *approval = make(&m, sizeof(*approval));

		skerry__local__v1__approval__init(approval);
		approval->code = text_of(&m, info.pending_code);
		approval->url = text_of(&m, info.pending_url);
		approval->expire_time = time_of(&m, info.pending_expire_ms);
		m.status->approval = approval;
	}
	rpc_call_reply(call, &m.status->base);
	arena_done(&m.arena);
}

const struct rpc_handler local_status_handler = {.on_call = on_status};
