/*
 * skerryd run: opens the cluster (its raft and peer threads), then serves devices and administrators on this thread's
 * loop until SIGTERM or SIGINT. The order of the end: not ready and streams moved (drain), leadership handed over
 * (cluster_close), exit. A second signal ends at once.
 */
#include <errno.h>
#include <signal.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/api.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/fileio.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/name.h"
#include "base/prefix.h"
#include "cluster/cluster.h"
#include "lighthouse/commands.h"
#include "lighthouse/config.h"
#include "lighthouse/schedule.h"
#include "net/listen.h"
#include "net/loop.h"
#include "net/poll.h"
#include "net/stream.h"
#include "net/tls.h"
#include "tailnet/query.h"

/* How often certificates are looked at: the cluster renews them at half of their life. */
enum { CERTIFICATE_CHECK_MS = 3600 * 1000, STATUS_MS = 1000, MEMBER_ARENA = 64 << 10 };

struct front {
	struct daemon *daemon;
	const struct lighthouse_listener *config; /* NULL: the Unix socket */
	struct listener *listener;
	struct api_face *face;
	struct tls_slot *slot;
};

struct daemon {
	struct lighthouse_config config;
	struct cluster *cluster;
	struct loop *loop;
	struct api *api;
	struct front *fronts;
	size_t n_fronts;
	struct tls_ctx *own; /* the cluster's certificate, for <cluster>.skerry.invalid */
	char *own_chain;
	char own_name[96];
	struct loop_timer certificates, status;
	struct loop_signal *term, *interrupt;
	size_t draining;
	bool stopping;
	uint64_t last_leader;
	unsigned certificate_count; /* of what is served */
	struct schedule *schedule;  /* NULL: none */
};

/* Tells systemd (sd_notify(3)): a datagram to the socket that it named. */
static void notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	size_t len;
	int fd;

	if (!path || (*path != '/' && *path != '@') || strlen(path) >= sizeof(addr.sun_path))
		return;
	len = strlen(path);
	memcpy(addr.sun_path, path, len);
	if (*path == '@')
		addr.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	(void)!sendto(fd, state, strlen(state), 0, (struct sockaddr *)&addr,
		      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
	close(fd);
}

static struct tls_ctx *choose_certificate(void *arg, const char *server_name)
{
	struct daemon *d = arg;

	return !strcmp(server_name, d->own_name) ? d->own : NULL;
}

static const char *const alpn[] = {"h2", "http/1.1", NULL};

static int server_context(struct daemon *d, const char *chain, const char *key, const char *tag,
			  bool with_sni, struct tls_ctx **ret, struct err *err)
{
	struct tls_server_opts o = {
		.cert = {.chain_pem = chain, .key_pem = key, .tag = tag},
		.alpn = alpn,
		.alpn_optional = true, /* HTTP/1.1 clients without ALPN */
	};

	if (with_sni) {
		o.sni = choose_certificate;
		o.sni_arg = d;
	}
	return tls_server_new(&o, ret, err);
}

/* (Re)reads the cluster's certificate; *ret_changed: it is another one. */
static int load_own(struct daemon *d, bool *ret_changed, struct err *err)
{
	struct tls_ctx *ctx = NULL;
	char *chain = NULL;
	char *key = NULL;
	int rc = cluster_api_certificate(d->cluster, &chain, &key, err);

	if (rc < 0)
		return rc;
	*ret_changed = !d->own_chain || strcmp(chain, d->own_chain) != 0;
	if (*ret_changed)
		rc = server_context(d, chain, key, "cluster", false, &ctx, err);
	explicit_bzero(key, strlen(key));
	mem_free(key);
	if (!*ret_changed || rc < 0) {
		mem_free(chain);
		return rc;
	}
	tls_unref(d->own);
	mem_free(d->own_chain);
	d->own = ctx;
	d->own_chain = chain;
	return 0;
}

static int file_context(struct daemon *d, const struct lighthouse_listener *l, struct tls_ctx **ret,
			struct err *err)
{
	struct buf chain = BUF_INIT;
	struct buf key = BUF_INIT;
	int rc = file_read(l->cert, LIM_CONFIG_BYTES, &chain, err);

	if (rc >= 0)
		rc = file_read(l->key, LIM_CONFIG_BYTES, &key, err);
	if (rc >= 0)
		rc = server_context(d, buf_str(&chain), buf_str(&key), "file", true, ret, err);
	if (rc < 0)
		err_prefix(err, "listener %s", l->address);
	buf_done(&chain);
	buf_wipe(&key);
	return rc;
}

static void renew(void *arg)
{
	struct daemon *d = arg;
	struct err err = {0};
	bool changed = false;

	if (load_own(d, &changed, &err) < 0)
		LOG_WARN("certificate renewal: %s", err.msg);
	for (size_t i = 0; changed && i < d->n_fronts; i++) {
		struct front *f = &d->fronts[i];

		if (f->config && f->config->tls == LIGHTHOUSE_TLS_CLUSTER)
			tls_slot_set(f->slot, d->own);
	}
	/* Files are read again each time: who renews them need not tell us. */
	for (size_t i = 0; i < d->n_fronts; i++) {
		struct front *f = &d->fronts[i];
		struct tls_ctx *ctx = NULL;

		if (!f->config || f->config->tls != LIGHTHOUSE_TLS_FILE)
			continue;
		if (file_context(d, f->config, &ctx, &err) < 0)
			LOG_WARN("the certificate in use stays: %s", err.msg);
		else
			tls_slot_set(f->slot, ctx);
		tls_unref(ctx);
	}
	if (changed)
		LOG_INFO("API certificate renewed");
	loop_timer_start(&d->certificates, d->loop, CERTIFICATE_CHECK_MS, renew, d);
}

/* What people call a lighthouse; its number if the store cannot tell. */
static const char *member_name(struct daemon *d, uint64_t id, char out[NAME_LABEL_MAX + 1])
{
	struct cluster_read *read;
	MemberRecord *m = NULL;
	struct err err = {0};
	struct arena a;

	snprintf(out, NAME_LABEL_MAX + 1, "%" PRIu64, id);
	if (cluster_read_begin(d->cluster, "name", &read, &err) < 0)
		return out;
	arena_init(&a, MEMBER_ARENA);
	if (query_member(cluster_read_kv(read), id, &a, &m) >= 0)
		snprintf(out, NAME_LABEL_MAX + 1, "%s", m->name);
	arena_done(&a);
	cluster_read_end(read);
	return out;
}

/* A line when the leader changes: what an operator looks for first. */
static void watch_status(void *arg)
{
	struct daemon *d = arg;
	char name[NAME_LABEL_MAX + 1];
	struct cluster_status s;

	if (cluster_certificate_count(d->cluster) != d->certificate_count) {
		d->certificate_count = cluster_certificate_count(d->cluster);
		renew(d);
	}
	cluster_status(d->cluster, &s);
	if (s.leader_id != d->last_leader) {
		d->last_leader = s.leader_id;
		if (s.leader_id == s.lighthouse_id)
			LOG_INFO("this lighthouse leads, term=%" PRIu64 " revision=%" PRIu64,
				 s.term, s.revision);
		else if (s.leader_id)
			LOG_INFO("%s leads, term=%" PRIu64 " revision=%" PRIu64,
				 member_name(d, s.leader_id, name), s.term, s.revision);
		else
			LOG_WARN("no leader known, term=%" PRIu64
				 ": reads are answered, writes wait",
				 s.term);
	}
	loop_timer_start(&d->status, d->loop, STATUS_MS, watch_status, d);
}

static void accepted(void *arg, struct stream *stream)
{
	struct front *f = arg;

	api_face_accept(f->face, stream);
}

static int parse_prefixes(const struct config_strings *s, struct prefix **ret, struct err *err)
{
	*ret = mem_calloc(s->n + 1, sizeof(**ret));
	for (size_t i = 0; i < s->n; i++) {
		int rc = prefix_parse(s->v[i], &(*ret)[i], err);

		if (rc < 0)
			return rc;
	}
	return 0;
}

static int open_listener(struct daemon *d, struct front *f, const struct lighthouse_listener *l,
			 struct err *err)
{
	struct listener_opts o = {.address = l->address};
	struct prefix *allow = NULL;
	struct prefix *proxy = NULL;
	struct tls_ctx *ctx = NULL;
	unsigned mask = 0;
	int rc = lighthouse_serve_mask(l, &mask, err);

	f->daemon = d;
	f->config = l;
	if (rc >= 0 && l->tls == LIGHTHOUSE_TLS_FILE)
		rc = file_context(d, l, &ctx, err);
	else if (rc >= 0 && l->tls == LIGHTHOUSE_TLS_CLUSTER)
		ctx = tls_ref(d->own);
	if (rc >= 0)
		rc = parse_prefixes(&l->allow_from, &allow, err);
	if (rc >= 0)
		rc = parse_prefixes(&l->proxy_protocol, &proxy, err);
	if (rc >= 0) {
		if (ctx)
			f->slot = tls_slot_new(ctx);
		o.tls = f->slot;
		o.allow_from = allow;
		o.n_allow_from = l->allow_from.n;
		o.proxy_from = proxy;
		o.n_proxy_from = l->proxy_protocol.n;
		f->face = api_face_new(d->api, l->address, mask);
		rc = listener_new(d->loop, &o, accepted, f, &f->listener, err);
	}
	if (rc >= 0)
		LOG_INFO("listening on %s", listener_text(f->listener));
	mem_free(allow);
	mem_free(proxy);
	tls_unref(ctx);
	return rc;
}

static int open_socket(struct daemon *d, struct front *f, struct err *err)
{
	struct listener_opts o = {
		.unix_mode = 0660, .unix_group = d->config.socket_group, .exempt_limits = true};
	char *address = mem_printf("unix:%s", d->config.socket);
	char *dir = mem_strdup(d->config.socket);
	char *slash = strrchr(dir, '/');
	int rc = 0;

	if (slash && slash != dir) {
		*slash = '\0';
		rc = dir_ensure(dir, 0755, err);
	}
	f->daemon = d;
	f->face = api_face_new(d->api, "socket", API_SERVE_ADMIN | API_SERVE_WEB);
	o.address = address;
	o.max_conns = LIM_UNIX_CONNS;
	if (rc >= 0)
		rc = listener_new(d->loop, &o, accepted, f, &f->listener, err);
	mem_free(address);
	mem_free(dir);
	return rc;
}

static void front_done(struct front *f)
{
	listener_free(f->listener);
	api_face_free(f->face);
	tls_slot_free(f->slot);
}

static void drained(void *arg)
{
	struct daemon *d = arg;

	if (--d->draining == 0)
		loop_stop(d->loop);
}

static void on_signal(void *arg, int signum)
{
	struct daemon *d = arg;

	if (d->stopping) {
		LOG_WARN("second signal %d: ending at once", signum);
		loop_stop(d->loop);
		return;
	}
	d->stopping = true;
	LOG_INFO("%s: devices move to other lighthouses, for at most %" PRId64 " s",
		 signum == SIGTERM ? "SIGTERM" : "SIGINT", (d->config.drain_ms + 999) / 1000);
	notify("STOPPING=1");
	d->draining = d->n_fronts;
	for (size_t i = 0; i < d->n_fronts; i++) {
		listener_stop(d->fronts[i].listener);
		api_face_drain(d->fronts[i].face, (uint64_t)d->config.drain_ms, drained, d);
	}
}

static int open_fronts(struct daemon *d, struct err *err)
{
	const struct lighthouse_listener *l = d->config.listeners.v;
	int rc;

	d->fronts = mem_calloc(d->config.listeners.n + 1, sizeof(*d->fronts));
	d->n_fronts = 1;
	rc = open_socket(d, &d->fronts[0], err);
	for (size_t i = 0; rc >= 0 && i < d->config.listeners.n; i++) {
		d->n_fronts++;
		rc = open_listener(d, &d->fronts[i + 1], &l[i], err);
	}
	return rc;
}

static void schedule_begin(struct daemon *d)
{
	struct schedule_options o = {
		.cluster = d->cluster,
		.loop = d->loop,
		.directory = d->config.backup.directory,
		.every_ms = d->config.backup.every_ms,
		.keep = d->config.backup.keep,
		.by = d->config.backup.by,
	};

	if (o.directory)
		d->schedule = schedule_new(&o);
}

static int serve(struct daemon *d, const char *dir, struct err *err)
{
	struct cluster_options o = {
		.dir = dir,
		.peer_listen = d->config.peer_listen,
		.peer_address = d->config.peer_address,
		.api_url = d->config.api_url,
		.version = SKERRY_VERSION,
		.snapshot_bytes = (uint64_t)d->config.snapshot_bytes,
		.map_bytes = (uint64_t)d->config.store_bytes,
		.compare_ms = (uint64_t)d->config.compare_ms,
		.scrub_ms = (uint64_t)d->config.scrub_ms,
	};
	struct api_options ao = {.version = SKERRY_VERSION,
				 .reflection_public = d->config.reflection_public};
	char name[NAME_LABEL_MAX + 1];
	bool changed;
	int rc = cluster_open(&d->cluster, &o, err);

	if (rc < 0)
		return rc;
	snprintf(d->own_name, sizeof(d->own_name), "%" PRIu64 ".skerry.invalid",
		 cluster_id(d->cluster));
	LOG_INFO("%s (lighthouse %" PRIu64 " of cluster %" PRIu64 "), version " SKERRY_VERSION,
		 member_name(d, cluster_lighthouse_id(d->cluster), name),
		 cluster_lighthouse_id(d->cluster), cluster_id(d->cluster));
#ifdef SKERRY_BROKEN
	LOG_WARN("this build is broken on purpose, for tests alone:" SKERRY_BROKEN);
#endif
	d->loop = loop_new("front");
	cluster_watch_front(d->cluster, d->loop);
	ao.cluster = d->cluster;
	ao.loop = d->loop;
	ao.api_url = cluster_api_url(d->cluster);
	d->api = api_new(&ao);
	rc = load_own(d, &changed, err);
	if (rc >= 0)
		rc = open_fronts(d, err);
	if (rc < 0)
		return rc;
	d->term = loop_signal_new(d->loop, SIGTERM, on_signal, d);
	d->interrupt = loop_signal_new(d->loop, SIGINT, on_signal, d);
	loop_timer_start(&d->certificates, d->loop, CERTIFICATE_CHECK_MS, renew, d);
	watch_status(d);
	schedule_begin(d);
	notify("READY=1");
	loop_run(d->loop);
	return 0;
}

static void daemon_done(struct daemon *d)
{
	schedule_free(d->schedule);
	loop_timer_stop(&d->certificates);
	loop_timer_stop(&d->status);
	loop_signal_free(d->term);
	loop_signal_free(d->interrupt);
	for (size_t i = 0; i < d->n_fronts; i++)
		front_done(&d->fronts[i]);
	mem_free(d->fronts);
	api_free(d->api);
	cluster_close(d->cluster);
	if (d->loop)
		loop_free(d->loop);
	tls_unref(d->own);
	mem_free(d->own_chain);
	lighthouse_config_done(&d->config);
}

int command_run(const struct lighthouse_args *a)
{
	struct log_options log = {.level = LOG_LEVEL_INFO};
	struct daemon d = {0};
	struct err err = {0};
	int rc = lighthouse_config_load(a->config, &d.config, &err);

	if (rc < 0)
		return command_fail(&err);
	rc = log_level_parse(d.config.log_level, &log.level, &err);
	if (rc >= 0) {
		log_init(&log);
		rc = serve(&d, a->dir ? a->dir : d.config.state_dir, &err);
	}
	daemon_done(&d);
	return rc < 0 ? command_fail(&err) : EXIT_OK;
}
