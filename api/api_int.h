/* What the services of api/ share: the api's parts, and how a service is registered. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "api/api.h"
#include "api/view_int.h"
#include "base/list.h"
#include "base/map.h"
#include "cluster/cluster.h"
#include "net/loop.h"
#include "net/rpc.h"

struct agent_service;
struct caller_gate;

/* Random bytes of a command, and of how many commands they are fetched at once. */
enum { ADMIN_RANDOM = 32, ADMIN_RANDOMS = 32 };
/* Calls whose memory is kept for the next one: 512 KiB. */
enum { API_SPARE_CALLS = SANITIZED ? 1 : 256 };

struct api {
	struct cluster *cluster; /* borrowed */
	struct loop *loop;       /* borrowed */
	char *version;
	char *api_url;
	bool reflection_public;
	struct caller_gate *gate;
	struct agent_service *agent;
	struct list faces;    /* api_face.link */
	struct list pending;  /* api_pending.link */
	struct list bindings; /* of methods of administration (api/admin.c) */
	struct view view;     /* of the calls of this turn */
	uint8_t random[ADMIN_RANDOMS][ADMIN_RANDOM]; /* for commands to come (api/admin.c) */
	size_t random_left;
	void *spare_call[API_SPARE_CALLS]; /* struct admin_call that were answered (api/admin.c) */
	size_t spare_calls;
	struct map refusals; /* tailnet -> struct bucket of refused commands (api/admin.c) */
	struct loop_timer status_timer;
	uint64_t quorum_ms; /* loop time at which there was a quorum; 0: never */
	struct list living;
	uintptr_t number; /* never reused in this process */
	bool ready, leader, quorum;
	bool backup_running;
};

/*
 * For callbacks of the cluster, which may come when the api is gone (the loop's last turns): embedded in their argument.
 * api_pending_end gives the api, or NULL when it was freed meanwhile.
 */
struct api_pending {
	struct list link;
	struct api *api;
};
void api_pending_begin(struct api *api, struct api_pending *p);
struct api *api_pending_end(struct api_pending *p);

/* rpc_call_find, but NULL also when the api or the server's face is gone. */
struct rpc_call *api_call_find(struct api *api, struct rpc_server *server, struct rpc_ref ref);

/* Now for cluster/ (clock_mono_ms): when the call has to be answered, at most `most_ms` from now. */
uint64_t api_call_deadline(struct rpc_call *call, uint64_t most_ms);

/* ---- AgentService (api/agent_service.c): one per api, served on every face of API_SERVE_AGENT ---- */

struct agent_service *agent_service_new(struct api *api);
/* rpc_server_add for Register, Watch, Report and Logout. May be called for several servers. */
void agent_service_register(struct agent_service *s, struct rpc_server *server);
/* Each commit, in order, on the api's loop (the api subscribes once and tells the gate first). */
void agent_service_changes(struct agent_service *s, const struct cluster_changes *changes);
/* All servers are gone by then: no call is open. NULL is allowed. */
void agent_service_free(struct agent_service *s);

/* ---- the services of administration, on every face of API_SERVE_ADMIN ---- */

/* What api/admin.c keeps in the api. */
void admin_done(struct api *api);
void tailnet_service_register(struct api *api, struct rpc_server *server);
void user_service_register(struct api *api, struct rpc_server *server);
void node_service_register(struct api *api, struct rpc_server *server);
void auth_key_service_register(struct api *api, struct rpc_server *server);
void api_key_service_register(struct api *api, struct rpc_server *server);
void cluster_service_register(struct api *api, struct rpc_server *server);
void audit_service_register(struct api *api, struct rpc_server *server);
void backup_service_register(struct api *api, struct rpc_server *server);
