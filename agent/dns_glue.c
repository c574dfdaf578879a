/*
 * The tailnet's names on this device: the zone that dns/ answers from, its sockets on the service addresses, where other
 * names are asked, and (only if the owner chose it) the host's /etc/resolv.conf.
 *
 * resolv.conf: "host" and "all" replace it by one of ours, which begins with a marker line. What was there is kept beside
 * the state and put back when the setting goes or the agent is switched off; a file that is not ours any more is left alone.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/agent_int.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/mem.h"
#include "dns/server.h"
#include "dns/view.h"

enum {
	RESOLV_MAX = 64 << 10,
	RETRY_MS = 1000,
};

static const char marker[] = "# Written by skerry-agent; the original is kept at ";

static const struct ipport service_ports[] = {
	{{4, {100, 100, 100, 100}}, 53},
	{{6, {0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53}}, 53},
};

struct dns_glue {
	struct agent *a;
	struct dns_server *server; /* NULL: not serving */
	struct dns_view *view;
	struct buf fingerprint; /* what the view was made of */
	struct ipport upstreams[AGENT_RESOLVERS];
	size_t n_upstreams;
	struct loop_timer retry;
	char problem[600];
	char text[700];
	bool host_taken;
};

/* ---- Where other names are asked ----------------------------------------------------------------------------------- */

static bool is_service(const struct ipaddr *addr)
{
	return ipaddr_equal(addr, &service_ports[0].addr) ||
	       ipaddr_equal(addr, &service_ports[1].addr);
}

static void upstream_add(struct dns_glue *d, const struct ipport *p)
{
	if (d->n_upstreams < AGENT_RESOLVERS && !is_service(&p->addr)) {
		d->upstreams[d->n_upstreams++] = *p;
	}
}

/* "nameserver ADDRESS" lines; a zone ("%eth0") is not understood and left out. */
static void read_resolv_conf(struct dns_glue *d, struct buf *text)
{
	char *pos = (char *)buf_str(text), *line;

	while ((line = strsep(&pos, "\n")) != NULL) {
		struct ipport p = {.port = 53};
		char addr[64];

		if (sscanf(line, " nameserver %63s", addr) == 1 &&
		    ipaddr_parse(addr, &p.addr, NULL) >= 0) {
			upstream_add(d, &p);
		}
	}
}

static bool is_ours(struct buf *text)
{
	return strncmp(buf_str(text), marker, sizeof(marker) - 1) == 0;
}

static void upstreams_read(struct dns_glue *d)
{
	const struct agent_config *config = d->a->config;
	const struct admitted *ad = &d->a->admitted;
	char *backup = agent_path(d->a, "resolv.conf.backup");
	struct buf text = BUF_INIT;

	d->n_upstreams = 0;
	for (size_t i = 0; i < config->resolvers.n; i++) {
		struct ipport p = {.port = 53};

		if (ipaddr_parse(config->resolvers.v[i], &p.addr, NULL) >= 0 ||
		    ipport_parse(config->resolvers.v[i], &p, NULL) >= 0) {
			upstream_add(d, &p);
		}
	}
	/* Those of the tailnet were admitted only if this device lets it. */
	for (size_t i = 0; d->n_upstreams == 0 && i < ad->n_resolvers; i++) {
		upstream_add(d, &ad->resolvers[i]);
	}
	if (d->n_upstreams == 0 && file_read(config->resolv_conf, RESOLV_MAX, &text, NULL) >= 0) {
		if (is_ours(&text)) {
			buf_reset(&text);
			IGNORE(file_read(backup, RESOLV_MAX, &text, NULL));
		}
		read_resolv_conf(d, &text);
	}
	buf_done(&text);
	mem_free(backup);
}

size_t dns_glue_upstreams(const struct dns_glue *d, struct ipport *ret, size_t max)
{
	size_t n = d == NULL ? 0 : MIN(d->n_upstreams, max);

	if (n > 0) {
		memcpy(ret, d->upstreams, n * sizeof(*ret));
	}
	return n;
}

/* ---- The zone ------------------------------------------------------------------------------------------------------ */

struct zone {
	struct dns_zone zone;
	struct dns_host *hosts;
	struct ipaddr *addresses;
	struct dns_record *records;
	struct dns_route *routes;
};

static void zone_done(struct zone *z)
{
	mem_free(z->hosts);
	mem_free(z->addresses);
	mem_free(z->records);
	mem_free(z->routes);
}

static void zone_make(struct dns_glue *d, struct zone *z)
{
	const struct admitted *ad = &d->a->admitted;
	size_t n = 0, n_addresses = 0;

	*z = (struct zone){
		.hosts = mem_calloc(ad->n_peers + 1, sizeof(*z->hosts)),
		.addresses =
			mem_calloc((ad->n_peers + 1) * ADMIT_PEER_ADDRESSES, sizeof(*z->addresses)),
		.records = mem_calloc(ad->n_records + 1, sizeof(*z->records)),
		.routes = mem_calloc(ad->n_dns_routes + 1, sizeof(*z->routes)),
	};
	if (ad->name[0] != '\0') {
		z->hosts[n++] = (struct dns_host){ad->name, ad->addresses, ad->n_addresses};
	}
	for (size_t i = 0; i < ad->n_peers; i++) {
		const struct admitted_peer *p = &ad->peers[i];
		struct ipaddr *first = &z->addresses[n_addresses];

		if (p->name[0] == '\0') {
			continue;
		}
		for (size_t j = 0; j < p->n_addresses; j++) {
			z->addresses[n_addresses++] = p->allowed[j].addr;
		}
		z->hosts[n++] = (struct dns_host){p->name, first, p->n_addresses};
	}
	for (size_t i = 0; i < ad->n_records; i++) {
		z->records[i] = (struct dns_record){ad->records[i].name, ad->records[i].addr};
	}
	z->zone.base_domain = ad->base_domain;
	z->zone.hosts = z->hosts;
	z->zone.n_hosts = n;
	z->zone.records = z->records;
	z->zone.n_records = ad->n_records;
	z->zone.routes = z->routes;
	for (size_t i = 0; i < ad->n_dns_routes; i++) {
		const struct admitted_dns_route *r = &ad->dns_routes[i];

		z->routes[z->zone.n_routes++] = (struct dns_route){
			r->domain, r->resolvers, MIN(r->n_resolvers, (size_t)DNS_RESOLVERS_MAX)};
	}
	if (d->n_upstreams > 0) {
		z->routes[z->zone.n_routes++] =
			(struct dns_route){"", d->upstreams, d->n_upstreams};
	}
}

/* Equal zones give equal bytes: an unchanged one is not built again. */
static void zone_fingerprint(const struct dns_zone *z, struct buf *out)
{
	buf_printf(out, "%s\n", z->base_domain);
	for (size_t i = 0; i < z->n_hosts; i++) {
		buf_printf(out, "%s\n", z->hosts[i].label);
		buf_append(out, z->hosts[i].addresses,
			   z->hosts[i].n_addresses * sizeof(struct ipaddr));
	}
	for (size_t i = 0; i < z->n_records; i++) {
		buf_printf(out, "%s\n", z->records[i].name);
		buf_append(out, &z->records[i].address, sizeof(z->records[i].address));
	}
	for (size_t i = 0; i < z->n_routes; i++) {
		buf_printf(out, "%s\n", z->routes[i].domain);
		for (size_t j = 0; j < z->routes[i].n_resolvers; j++) {
			char text[IPPORT_TEXT];

			buf_printf(out, "%s\n", ipport_format(&z->routes[i].resolvers[j], text));
		}
	}
}

static bool view_update(struct dns_glue *d)
{
	struct buf fingerprint = BUF_INIT;
	struct dns_view *view;
	struct err e = {0};
	struct zone z;

	zone_make(d, &z);
	zone_fingerprint(&z.zone, &fingerprint);
	if (d->view != NULL && fingerprint.len == d->fingerprint.len &&
	    memcmp(fingerprint.data, d->fingerprint.data, fingerprint.len) == 0) {
		buf_done(&fingerprint);
		zone_done(&z);
		return true;
	}
	if (dns_view_new(&z.zone, &view, &e) < 0) {
		snprintf(d->problem, sizeof(d->problem), "%s", e.msg);
		LOG_ERROR("names: %s", e.msg);
		buf_done(&fingerprint);
		zone_done(&z);
		return d->view != NULL;
	}
	dns_view_unref(d->view);
	d->view = view;
	buf_done(&d->fingerprint);
	d->fingerprint = fingerprint;
	if (d->server != NULL) {
		dns_server_set_view(d->server, view);
	}
	zone_done(&z);
	return true;
}

/* ---- The host's resolver ------------------------------------------------------------------------------------------- */

static void host_give_back(struct dns_glue *d)
{
	const char *path = d->a->config->resolv_conf;
	char *backup = agent_path(d->a, "resolv.conf.backup");
	struct buf now = BUF_INIT, before = BUF_INIT;
	struct err e = {0};

	if (file_exists(backup)) {
		if (file_read(path, RESOLV_MAX, &now, NULL) >= 0 && is_ours(&now) &&
		    file_read(backup, RESOLV_MAX, &before, &e) >= 0 &&
		    file_write_atomic(path, before.data, before.len, 0644, &e) < 0) {
			LOG_ERROR("cannot put %s back: %s", path, e.msg);
		} else {
			IGNORE(file_remove(backup, NULL));
		}
	}
	d->host_taken = false;
	buf_done(&now);
	buf_done(&before);
	mem_free(backup);
}

static void host_take(struct dns_glue *d)
{
	const char *path = d->a->config->resolv_conf, *domain = d->a->admitted.base_domain;
	char *backup = agent_path(d->a, "resolv.conf.backup");
	struct buf now = BUF_INIT, ours = BUF_INIT;
	struct err e = {0};
	int r = file_read(path, RESOLV_MAX, &now, &e);

	buf_printf(&ours, "%s%s\nnameserver 100.100.100.100\n", marker, backup);
	if (domain[0] != '\0') {
		buf_printf(&ours, "search %s\n", domain);
	}
	if (r == -ENOENT) {
		r = 0; /* nothing to keep: an empty backup */
	}
	if (r >= 0 && !is_ours(&now)) {
		r = file_write_atomic(backup, now.data, now.len, 0600, &e);
	}
	if (r >= 0 && (now.len != ours.len || memcmp(now.data, ours.data, ours.len) != 0)) {
		r = file_write_atomic(path, ours.data, ours.len, 0644, &e);
	}
	d->host_taken = r >= 0;
	if (r < 0) {
		snprintf(d->problem, sizeof(d->problem), "%s cannot be changed: %s", path, e.msg);
		LOG_ERROR("%s", d->problem);
	}
	buf_done(&now);
	buf_done(&ours);
	mem_free(backup);
}

/* ---- Serving ------------------------------------------------------------------------------------------------------- */

static void on_retry(void *arg)
{
	dns_glue_update(arg);
}

static void server_start(struct dns_glue *d)
{
	const struct mesh *actual = &d->a->actual;
	struct ipport listen[ARRAY_LEN(service_ports)];
	struct dns_server_opts opts = {.listen = listen};
	struct err e = {0};

	/* A host without IPv6 has only the first. */
	for (size_t i = 0; i < ARRAY_LEN(service_ports); i++) {
		for (size_t j = 0; j < actual->n_addrs; j++) {
			if (ipaddr_equal(&actual->addrs[j].addr, &service_ports[i].addr)) {
				listen[opts.n_listen++] = service_ports[i];
			}
		}
	}
	if (opts.n_listen == 0) {
		snprintf(d->problem, sizeof(d->problem), "the interface has no service address");
		return;
	}
	if (dns_server_new(d->a->loop, &opts, d->view, &d->server, &e) >= 0) {
		d->problem[0] = '\0';
		return;
	}
	d->server = NULL;
	if (strcmp(d->problem, e.msg) != 0) {
		LOG_WARN("names are not served: %s", e.msg);
	}
	snprintf(d->problem, sizeof(d->problem), "%s", e.msg);
	if (!loop_timer_active(&d->retry)) {
		loop_timer_start(&d->retry, d->a->loop, RETRY_MS, on_retry, d);
	}
}

/* The interface has the addresses (the mesh is up), the owner wants names, and the tailnet has them. */
static bool should_serve(const struct dns_glue *d)
{
	const struct agent *a = d->a;

	return agent_is_up(a) && a->has_admitted && !agent_is_expired(a) &&
	       a->settings.accept_dns != ACCEPT_DNS_OFF && a->actual.up && a->actual.n_addrs > 0;
}

void dns_glue_update(struct dns_glue *d)
{
	if (d == NULL) {
		return;
	}
	loop_timer_stop(&d->retry);
	upstreams_read(d);
	if (!should_serve(d)) {
		dns_server_free(d->server);
		d->server = NULL;
		host_give_back(d);
		return;
	}
	if (view_update(d) && d->server == NULL) {
		server_start(d);
	}
	if (d->server != NULL && d->a->settings.accept_dns >= ACCEPT_DNS_HOST) {
		host_take(d);
	} else {
		host_give_back(d);
	}
}

struct dns_glue *dns_glue_new(struct agent *a)
{
	struct dns_glue *d = MEM_NEW(struct dns_glue);

	d->a = a;
	upstreams_read(d);
	return d;
}

/* The agent ends, the mesh stays; so does resolv.conf, for the next start (names pause meanwhile). */
void dns_glue_free(struct dns_glue *d)
{
	if (d == NULL) {
		return;
	}
	loop_timer_stop(&d->retry);
	dns_server_free(d->server);
	dns_view_unref(d->view);
	buf_done(&d->fingerprint);
	mem_free(d);
}

bool dns_glue_serving(const struct dns_glue *d)
{
	return d != NULL && d->server != NULL;
}

const char *dns_glue_text(struct dns_glue *d)
{
	if (d == NULL) {
		return "not served";
	}
	if (d->a->settings.accept_dns == ACCEPT_DNS_OFF) {
		return "switched off here (skerry set --accept-dns=serve)";
	}
	if (d->server == NULL) {
		snprintf(d->text, sizeof(d->text), "not served%s%s",
			 d->problem[0] != '\0' ? ": " : "", d->problem);
	} else {
		snprintf(d->text, sizeof(d->text), "serving at 100.100.100.100, host resolver %s",
			 d->host_taken ? "points here" : "unchanged");
	}
	return d->text;
}
