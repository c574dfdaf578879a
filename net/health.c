#include "net/health.h"

#include <string.h>

#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "grpc/health/v1/health.pb-c.h"
#include "net/rpc.h"

struct name {
	Grpc__Health__V1__HealthCheckResponse__ServingStatus status;
};

struct watcher {
	struct list link;
	struct health *health;
	struct rpc_ref ref;
	char *name;
	bool dirty; /* the queue was full: the state is sent when there is room */
};

struct health {
	struct rpc_server *server;
	struct map names;
	struct list watchers;
	health_may_fn may;
	void *may_arg;
};

static const char kind;

static Grpc__Health__V1__HealthCheckResponse__ServingStatus status_of(const struct health *h,
								      const char *name)
{
	const struct name *n = map_get_str(&h->names, name);

	return n != NULL ? n->status
			 : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN;
}

void health_set_guard(struct health *h, health_may_fn may, void *arg)
{
	h->may = may;
	h->may_arg = arg;
}

/* False: the call is answered. */
static bool admitted(const struct health *h, struct rpc_call *call, const char *name)
{
	if (h->may == NULL || h->may(h->may_arg, call, name)) {
		return true;
	}
	rpc_call_fail(call, ERR_UNAUTHENTICATED,
		      "without a credential only the health of the whole server is told");
	return false;
}

static void check(void *arg, struct rpc_call *call, const ProtobufCMessage *msg)
{
	const Grpc__Health__V1__HealthCheckRequest *req =
		(const Grpc__Health__V1__HealthCheckRequest *)msg;
	Grpc__Health__V1__HealthCheckResponse reply = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
	struct health *h = arg;

	if (!admitted(h, call, req->service)) {
		return;
	}
	if (map_get_str(&h->names, req->service) == NULL) {
		rpc_call_fail(call, ERR_NOT_FOUND, "no service of the name %.100s", req->service);
		return;
	}
	reply.status = status_of(h, req->service);
	rpc_call_reply(call, &reply.base);
}

static void watcher_send(struct watcher *w, struct rpc_call *call)
{
	Grpc__Health__V1__HealthCheckResponse reply = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

	reply.status = status_of(w->health, w->name);
	w->dirty = rpc_call_send(call, &reply.base) != 0;
}

static void on_writable(void *arg, struct rpc_call *call)
{
	struct watcher *w = arg;

	if (w->dirty) {
		watcher_send(w, call);
	}
}

static void watcher_free(void *arg)
{
	struct watcher *w = arg;

	list_remove(&w->link);
	mem_free(w->name);
	mem_free(w);
}

static void watch(void *arg, struct rpc_call *call, const ProtobufCMessage *msg)
{
	const Grpc__Health__V1__HealthCheckRequest *req =
		(const Grpc__Health__V1__HealthCheckRequest *)msg;
	struct watcher *w;

	if (!admitted(arg, call, req->service)) {
		return;
	}
	w = MEM_NEW(struct watcher);
	w->health = arg;
	w->ref = rpc_call_ref(call);
	w->name = mem_strdup(req->service);
	list_push(&w->health->watchers, &w->link);
	rpc_call_set_data(call, &kind, w, watcher_free);
	rpc_call_set_writable_cb(call, on_writable, w);
	watcher_send(w, call);
}

static const struct rpc_handler check_handler = {.on_call = check};
static const struct rpc_handler watch_handler = {.on_call = watch};

struct health *health_new(struct rpc_server *server)
{
	struct health *h = MEM_NEW(struct health);

	h->server = server;
	map_init(&h->names);
	list_init(&h->watchers);
	health_set(h, "", true);
	rpc_server_add(server, "/grpc.health.v1.Health/Check", &check_handler, h);
	rpc_server_add(server, "/grpc.health.v1.Health/Watch", &watch_handler, h);
	return h;
}

void health_free(struct health *h)
{
	struct map_iter it = {0};

	if (h == NULL) {
		return;
	}
	PRE(list_empty(&h->watchers));
	while (map_next(&h->names, &it)) {
		mem_free(it.value);
	}
	map_done(&h->names);
	mem_free(h);
}

void health_set(struct health *h, const char *name, bool serving)
{
	struct name *n = map_get_str(&h->names, name);
	Grpc__Health__V1__HealthCheckResponse__ServingStatus status =
		serving ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
			: GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;

	if (n == NULL) {
		n = MEM_NEW(struct name);
		map_put_str(&h->names, name, n);
	} else if (n->status == status) {
		return;
	}
	n->status = status;
	LIST_FOREACH_SAFE(&h->watchers, l, next)
	{
		struct watcher *w = LIST_ENTRY(l, struct watcher, link);
		struct rpc_call *call = rpc_call_find(h->server, w->ref);

		if (call != NULL && strcmp(w->name, name) == 0) {
			watcher_send(w, call);
		}
	}
}
