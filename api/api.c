/*
 * The api and its faces: which services a listener has, the plain pages beside them, and what they say of this
 * lighthouse's health.
 *
 *   api --- gate, agent service, methods of administration        one per front loop
 *    +-- face --- rpc server + mount table + HTTP server           one per listener
 *
 * Readiness: a quorum was known within the last 10 s, and the face is not draining.
 */
#include "api/api.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "api/api_int.h"
#include "api/caller.h"
#include "api/pages_int.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/connect.h"
#include "net/health.h"
#include "net/http.h"
#include "net/reflection.h"
#include "net/rpc.h"
#include "net/stream.h"

enum {
	STATUS_MS = 500,
	NOT_READY_MS = 10000, /* without quorum */
	ANSWER_MS = 200,
	SPREAD_MAX_MS = 3000, /* streams come back to other lighthouses over so long */
};

struct api_face {
	struct list link;
	struct api *api;
	unsigned serve;
	struct http_router *router;
	struct rpc_server *rpc;
	struct http_server *http;
	struct health *health;
	struct pages pages;
};

/* ---- callbacks that outlive ---- */

void api_pending_begin(struct api *api, struct api_pending *p)
{
	p->api = api;
	list_push(&api->pending, &p->link);
}

struct api *api_pending_end(struct api_pending *p)
{
	struct api *api = p->api;

	list_remove(&p->link);
	p->api = NULL;
	return api;
}

struct rpc_call *api_call_find(struct api *api, struct rpc_server *server, struct rpc_ref ref)
{
	if (!api)
		return NULL;
	LIST_FOREACH(&api->faces, it)
	{
		if (LIST_ENTRY(it, struct api_face, link)->rpc == server)
			return rpc_call_find(server, ref);
	}
	return NULL;
}

uint64_t api_call_deadline(struct rpc_call *call, uint64_t most_ms)
{
	uint64_t left = rpc_call_remaining_ms(call);

	/* A little earlier than the caller gives up, so that it hears why. */
	left -= MIN(left / 5, (uint64_t)ANSWER_MS);
	return clock_mono_ms() + MIN(left, most_ms);
}

/* ---- changes ---- */

/*
 * The subscription has no end, and its last deliveries may come when the api is gone: it names the api by a number,
 * which is looked up among the living.
 */
static pthread_mutex_t living_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list living;
static uintptr_t last_number;

static struct api *living_find(uintptr_t number)
{
	struct api *found = NULL;

	pthread_mutex_lock(&living_lock);
	LIST_FOREACH(&living, it)
	{
		struct api *api = LIST_ENTRY(it, struct api, living);

		if (api->number == number)
			found = api;
	}
	pthread_mutex_unlock(&living_lock);
	return found;
}

static void on_changes(void *arg, const struct cluster_changes *changes)
{
	struct api *api = living_find((uintptr_t)arg);

	if (!api)
		return;
	/* The gate first: calls without authority end before they are told anything. */
	caller_gate_changes(api->gate, changes);
	agent_service_changes(api->agent, changes);
}

/* ---- health ---- */

static void show_health(struct api_face *f)
{
	struct api *api = f->api;

	health_set(f->health, "", !f->pages.draining);
	health_set(f->health, "skerry.Coordinator", api->quorum && !f->pages.draining);
	health_set(f->health, "skerry.leader", api->leader && !f->pages.draining);
}

static void look_at_status(void *arg)
{
	struct api *api = arg;
	struct cluster_status s;

	cluster_status(api->cluster, &s);
	api->quorum = s.quorum;
	api->leader = s.quorum && s.leader_id == s.lighthouse_id;
	if (s.quorum)
		api->quorum_ms = loop_now(api->loop);
	api->ready = api->quorum_ms && loop_now(api->loop) - api->quorum_ms < NOT_READY_MS;
	LIST_FOREACH(&api->faces, it)
	show_health(LIST_ENTRY(it, struct api_face, link));
	loop_timer_start(&api->status_timer, api->loop, STATUS_MS, look_at_status, api);
}

/* ---- the api ---- */

struct api *api_new(const struct api_options *o)
{
	struct api *api = MEM_NEW(struct api);

	api->cluster = o->cluster;
	api->loop = o->loop;
	api->version = mem_strdup(o->version);
	api->api_url = mem_strdup(o->api_url);
	api->reflection_public = o->reflection_public;
	list_init(&api->faces);
	list_init(&api->pending);
	list_init(&api->bindings);
	view_init(&api->view, api->cluster, api->loop);
	api->gate = caller_gate_new(api);
	api->agent = agent_service_new(api);
	pthread_mutex_lock(&living_lock);
	if (!living.next)
		list_init(&living);
	api->number = ++last_number;
	list_push(&living, &api->living);
	pthread_mutex_unlock(&living_lock);
	cluster_subscribe(api->cluster, api->loop, on_changes, (void *)api->number);
	pages_metrics_init(api);
	look_at_status(api);
	return api;
}

void api_free(struct api *api)
{
	if (!api)
		return;
	PRE(list_empty(&api->faces));
	loop_timer_stop(&api->status_timer);
	pthread_mutex_lock(&living_lock);
	list_remove(&api->living);
	pthread_mutex_unlock(&living_lock);
	while (!list_empty(&api->pending))
		api_pending_end(LIST_ENTRY(list_pop(&api->pending), struct api_pending, link));
	agent_service_free(api->agent);
	caller_gate_free(api->gate);
	admin_done(api);
	view_done(&api->view);
	mem_free(api->version);
	mem_free(api->api_url);
	mem_free(api);
}

/* ---- faces ---- */

static void administer(struct api *api, struct rpc_server *server)
{
	tailnet_service_register(api, server);
	user_service_register(api, server);
	node_service_register(api, server);
	auth_key_service_register(api, server);
	api_key_service_register(api, server);
	cluster_service_register(api, server);
	audit_service_register(api, server);
	backup_service_register(api, server);
	reflection_add(server);
}

/* What people do on the lighthouse's own socket leaves a line: who, what, how it ended. */
static void observe(void *arg, struct rpc_call *call, int status, uint64_t micros)
{
	const struct stream_peer *peer = rpc_call_peer(call);

	(void)arg;
	if (peer->is_unix)
		LOG_INFO("socket: uid=%u pid=%d %s status=%d us=%llu", (unsigned)peer->uid,
			 (int)peer->pid, rpc_call_method(call)->path, status,
			 (unsigned long long)micros);
}

/* Strangers learn whether the server is up, not whether there is a quorum or who leads. */
static bool may_ask_health(void *arg, struct rpc_call *call, const char *name)
{
	(void)arg;
	return !*name || caller_of(call)->kind != CALLER_NONE;
}

struct api_face *api_face_new(struct api *api, const char *name, unsigned serve)
{
	struct api_face *f = MEM_NEW(struct api_face);

	f->api = api;
	f->serve = serve;
	f->router = http_router_new();
	f->rpc = rpc_server_new(api->loop, name);
	f->health = health_new(f->rpc);
	health_set_guard(f->health, may_ask_health, f);
	caller_gate_guard(api->gate, f->rpc);
	rpc_server_set_observer(f->rpc, observe, f);
	if (serve & API_SERVE_AGENT)
		agent_service_register(api->agent, f->rpc);
	if (serve & API_SERVE_ADMIN)
		administer(api, f->rpc);
	rpc_server_mount(f->rpc, f->router, false);
	if (serve & API_SERVE_WEB)
		connect_mount(f->rpc, f->router);
	f->pages.api = api;
	pages_mount(&f->pages, f->router, serve);
	f->http = http_server_new(api->loop, f->router);
	list_push(&api->faces, &f->link);
	show_health(f);
	return f;
}

struct http_router *api_face_router(struct api_face *face)
{
	return face->router;
}

void api_face_accept(struct api_face *face, struct stream *stream)
{
	http_server_accept(face->http, stream, NULL);
}

void api_face_drain(struct api_face *face, uint64_t grace_ms, void (*done)(void *arg), void *arg)
{
	face->pages.draining = true;
	show_health(face);
	rpc_server_drain(face->rpc, (uint32_t)MIN(grace_ms, (uint64_t)SPREAD_MAX_MS));
	http_server_drain(face->http, grace_ms, done, arg);
}

void api_face_free(struct api_face *face)
{
	if (!face)
		return;
	http_server_free(face->http);
	http_router_free(face->router);
	rpc_server_free(face->rpc);
	health_free(face->health);
	list_remove(&face->link);
	mem_free(face);
}
