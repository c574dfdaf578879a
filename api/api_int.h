/* What the services of api/ share: the api's parts, and how a service is registered. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "api/api.h"
#include "base/list.h"
#include "cluster/cluster.h"
#include "net/loop.h"

struct agent_service;
struct caller_gate;
struct rpc_server;

struct api {
	struct cluster *cluster; /* borrowed */
	struct loop *loop;	 /* borrowed */
	char *version;
	char *api_url;
	bool reflection_public;
	struct caller_gate *gate;
	struct agent_service *agent;
	struct list faces; /* api_face.link */
	struct loop_timer status_timer;
	uint64_t no_quorum_since; /* loop time; 0: there is one */
	bool ready, leader, quorum;
};

/* ---- AgentService (api/agent_service.c): one per api, served on every face of API_SERVE_AGENT ---- */

struct agent_service *agent_service_new(struct api *api);
/* rpc_server_add for Register, Watch, Report and Logout. May be called for several servers. */
void agent_service_register(struct agent_service *s, struct rpc_server *server);
/* Each commit, in order, on the api's loop (the api subscribes once and tells the gate first). */
void agent_service_changes(struct agent_service *s, const struct cluster_changes *changes);
/* All servers are gone by then: no call is open. NULL is allowed. */
void agent_service_free(struct agent_service *s);

/* ---- the services of administration, on every face of API_SERVE_ADMIN ---- */

void tailnet_service_register(struct api *api, struct rpc_server *server);
void user_service_register(struct api *api, struct rpc_server *server);
void node_service_register(struct api *api, struct rpc_server *server);
void auth_key_service_register(struct api *api, struct rpc_server *server);
void api_key_service_register(struct api *api, struct rpc_server *server);
void cluster_service_register(struct api *api, struct rpc_server *server);
void audit_service_register(struct api *api, struct rpc_server *server);
