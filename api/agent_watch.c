/*
 * Watch: attaches the device's session and streams its netmap. The netmap starts at once, from what this lighthouse holds;
 * the attach is proposed beside it and repeated while there is no quorum, so that a device is served without one.
 *
 *   proof, node known here? --no--> leader-level read --still no--> NOT_FOUND
 *         |yes
 *   revision reached here? --no--> wait for it (2 s), else UNAVAILABLE: another lighthouse has it
 *         |yes
 *   stream + attach + facts ......... end of the call: detach
 */
#include <string.h>

#include "api/agent_int.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "proto/pb_util.h"
#include "tailnet/query.h"

enum { CATCH_UP_MS = 2000, LOOK_UP_MS = 5000, ATTACH_AGAIN_MS = 1000 };

struct watch_call {
	struct agent_service *service;
	struct rpc_call *call;               /* valid until `gone` */
	const Skerry__V1__WatchRequest *req; /* lives as long as the call */
	uint8_t machine[AGENT_KEY];
	struct agent_device *device;
	struct watcher *watcher;
	struct loop_timer again;
	char *instance;
	uint64_t tailnet, node, session;
	unsigned pending; /* callbacks that will still come */
	bool gone;        /* the call ended */
	bool looked_up;   /* the leader was asked whether the node exists */
};

static void attach(void *arg);

static void maybe_free(struct watch_call *w)
{
	if (!w->gone || w->pending)
		return;
	mem_free(w->instance);
	mem_free(w);
}

static void detach(struct watch_call *w, bool clean)
{
	struct session_event e = {.tailnet = w->tailnet,
				  .node = w->node,
				  .session = w->session,
				  .instance_id = w->instance,
				  .detach = true,
				  .clean = clean};

	/* Without a place in the queue the grace of a later incarnation or LighthouseLost does it. */
	IGNORE(cluster_session(w->service->cluster, w->service->loop, &e, NULL, NULL, NULL) < 0);
}

/* The call is over or about to be. */
static void watch_gone(struct watch_call *w, bool clean)
{
	w->gone = true;
	loop_timer_stop(&w->again);
	watch_remove(w->watcher);
	w->watcher = NULL;
	if (w->device) {
		agent_device_remove(w->service, w->device);
		w->device = NULL;
		detach(w, clean);
	}
	maybe_free(w);
}

static void fail(struct watch_call *w, const struct err *err)
{
	struct rpc_call *call = w->call;

	rpc_call_set_cancel_cb(call, NULL, NULL);
	watch_gone(w, false);
	rpc_call_finish(call, err);
}

static void cancelled(void *arg, struct rpc_call *call, const struct err *why)
{
	(void)call;
	watch_gone(arg, why->code == ERR_CANCELLED);
}

/* ---- the sink ---- */

static int sink_send(void *arg, struct blob *const *pieces, size_t n)
{
	struct watch_call *w = arg;

	return rpc_call_send_blobs(w->call, pieces, n);
}

static size_t sink_backlog(void *arg)
{
	struct watch_call *w = arg;

	return rpc_call_backlog(w->call);
}

static void sink_end(void *arg, const struct err *why)
{
	struct watch_call *w = arg;

	w->watcher = NULL;
	fail(w, why);
}

static const struct watch_sink_ops sink = {sink_send, sink_backlog, sink_end};

static void writable(void *arg, struct rpc_call *call)
{
	struct watch_call *w = arg;

	if (w->watcher && rpc_call_backlog(call) == 0)
		watch_writable(w->watcher);
}

/* ---- attach ---- */

static void attached(void *arg, const struct err *err, const CommandResult *r)
{
	struct watch_call *w = arg;
	struct err e = {0};

	w->pending--;
	if (w->gone) {
		maybe_free(w);
		return;
	}
	if (!r) { /* no quorum now: the device is served meanwhile */
		(void)err;
		loop_timer_start(&w->again, w->service->loop, ATTACH_AGAIN_MS, attach, w);
		return;
	}
	if (r->code) {
		err_reason(&e, err_from_grpc(r->code), r->reason, "%s", r->message);
		fail(w, &e);
	}
}

static void attach(void *arg)
{
	struct watch_call *w = arg;
	struct session_event e = {.tailnet = w->tailnet,
				  .node = w->node,
				  .session = w->session,
				  .instance_id = w->instance};

	w->pending++;
	if (cluster_session(w->service->cluster, w->service->loop, &e, attached, w, NULL) < 0) {
		w->pending--;
		loop_timer_start(&w->again, w->service->loop, ATTACH_AGAIN_MS, attach, w);
	}
}

/* ---- start ---- */

static void start(struct watch_call *w, const NodeRecord *n)
{
	struct agent_service *s = w->service;
	const Skerry__V1__WatchRequest *req = w->req;
	struct watch_params p = {.tailnet = n->tailnet,
				 .node = n->id,
				 .session = req->session,
				 .epoch = req->have ? req->have->epoch : 0,
				 .revision = req->have ? req->have->revision : 0};
	struct agent_facts f = {.tailnet = n->tailnet,
				.node = n->id,
				.session = req->session,
				.n_endpoints = req->n_endpoints,
				.endpoints = req->endpoints,
				.disco_key = req->disco_key,
				.host_info = req->host_info,
				.hostname = ""};

	w->tailnet = n->tailnet;
	w->node = n->id;
	w->session = req->session;
	w->device = agent_device_add(s, w->machine, req->session);
	w->device->tailnet = n->tailnet;
	w->device->node = n->id;
	rpc_call_set_writable_cb(w->call, writable, w);
	rpc_call_send_headers(w->call);
	w->watcher = watch_add(s->hub, &p, &sink, w);
	attach(w);
	/* After the attach, in the same order through the log: facts count only for an attached session. */
	if (req->n_endpoints || req->host_info)
		IGNORE(agent_facts_propose(s, &f, NULL));
}

/*
 * Another process with the same machine key: a clone of the disk, most likely. The attached one stays. A session whose
 * lighthouse is gone, or that is being waited for, gives way: it is this device, restarted.
 */
static int check_clone(struct watch_call *w, const struct kv *kv, const NodeRecord *n,
		       struct arena *arena, struct err *err)
{
	MemberRecord *m;
	Presence *p;

	if (query_presence(kv, n->tailnet, n->id, arena, &p) < 0 || !p->online || !p->session ||
	    p->lost_ms)
		return 0;
	if (!*p->instance_id || !strcmp(p->instance_id, w->instance))
		return 0;
	if (query_member(kv, p->lighthouse, arena, &m) < 0 || m->incarnation != p->incarnation)
		return 0;
	return err_reason(
		err, ERR_EXISTS, "MACHINE_CLONED",
		"another process with this machine's keys is attached (instance %s, this one is "
		"%s); if the disk was "
		"cloned, remove machine.key from one of the two, restart its agent and run `skerry "
		"up` there",
		p->instance_id, w->instance);
}

static void look_up(struct watch_call *w);

static void caught_up(void *arg, const struct err *err)
{
	struct watch_call *w = arg;
	struct err e;

	w->pending--;
	if (w->gone) {
		maybe_free(w);
		return;
	}
	if (err->code) {
		e = *err;
		fail(w, &e);
		return;
	}
	look_up(w);
}

static int wait_for(struct watch_call *w, const struct read_want *want, struct err *err)
{
	int rc;

	w->pending++;
	rc = cluster_read_wait(w->service->cluster, w->service->loop, want, caught_up, w, err);
	if (rc < 0)
		w->pending--;
	return rc;
}

/* Finds the node here; asks the leader once if it is not known, waits for the device's revision if it is ahead. */
static void look_up(struct watch_call *w)
{
	struct agent_service *s = w->service;
	const Skerry__V1__Revision *have = w->req->have;
	struct cluster_read *read = NULL;
	uint64_t epoch = 0;
	uint64_t revision = 0;
	uint64_t time;
	struct arena arena;
	NodeRecord *n = NULL;
	struct err err = {0};
	int rc;

	arena_init(&arena, AGENT_ARENA_BYTES);
	rc = agent_node(s, w->machine, w->req->node_key.data, w->req->node_key.len, &arena, &n,
			&err);
	if (rc == ERR_NOT_FOUND && !w->looked_up) {
		struct read_want want = {.level = READ_LEADER,
					 .deadline_ms = clock_mono_ms() + LOOK_UP_MS};

		w->looked_up = true;
		rc = wait_for(w, &want, &err);
		if (rc >= 0)
			goto out;
	}
	if (rc >= 0)
		rc = cluster_read_begin(s->cluster, "watch-start", &read, &err);
	if (rc >= 0)
		rc = query_revision(cluster_read_kv(read), &epoch, &revision, &time);
	if (rc >= 0 && have && have->epoch == epoch && have->revision > revision) {
		struct read_want want = {.level = READ_REVISION,
					 .epoch = epoch,
					 .revision = have->revision,
					 .deadline_ms = clock_mono_ms() + CATCH_UP_MS};

		cluster_read_end(read);
		rc = wait_for(w, &want, &err);
		if (rc >= 0)
			goto out;
		read = NULL;
	}
	if (rc >= 0)
		rc = check_clone(w, cluster_read_kv(read), n, &arena, &err);
	/* Here and not at the call's beginning: two with one session may have waited side by side. */
	if (rc >= 0 && agent_device_find(s, w->machine, w->req->session))
		rc = err_reason(&err, ERR_EXISTS, "SESSION_IN_USE",
				"session %llu of this device is attached here already",
				(unsigned long long)w->req->session);
	if (read)
		cluster_read_end(read);
	if (rc >= 0)
		start(w, n);
	else
		fail(w, &err);
out:
	arena_done(&arena);
}

void agent_watch(void *arg, struct rpc_call *call, const ProtobufCMessage *msg)
{
	const Skerry__V1__WatchRequest *req = (const Skerry__V1__WatchRequest *)msg;
	struct agent_service *s = arg;
	uint8_t machine[AGENT_KEY];
	struct watch_call *w;
	struct err err = {0};
	int rc = agent_machine_key(call, machine, &err);

	/* Stored facts must be readable by every lighthouse, whatever the agent's version says more. */
	pb_strip_unknown((void *)(uintptr_t)msg);
	if (rc >= 0)
		rc = agent_check_key(&req->node_key, "node_key", false, &err);
	if (rc >= 0)
		rc = agent_check_key(&req->disco_key, "disco_key", true, &err);
	if (rc >= 0)
		rc = agent_check_endpoints(req->n_endpoints, req->endpoints, &err);
	if (rc >= 0 && req->session == 0)
		rc = err_field(&err, ERR_INVALID, "session",
			       "a session has a number above 0 that rises with each attach");
	if (rc >= 0 && (!*req->instance_id || strlen(req->instance_id) > LIM_REQUEST_ID_BYTES))
		rc = err_field(&err, ERR_INVALID, "instance_id",
			       "an instance id has 1 to %d characters", LIM_REQUEST_ID_BYTES);
	if (rc < 0) {
		rpc_call_finish(call, &err);
		return;
	}
	w = mem_zalloc(sizeof(*w));
	w->service = s;
	w->call = call;
	w->req = req;
	w->instance = mem_strdup(req->instance_id);
	memcpy(w->machine, machine, AGENT_KEY);
	rpc_call_set_cancel_cb(call, cancelled, w);
	look_up(w);
}
