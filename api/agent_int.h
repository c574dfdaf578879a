/* Inside of AgentService: what its files share. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "api/api_int.h"
#include "api/caller.h"
#include "api/sources.h"
#include "base/arena.h"
#include "base/bucket.h"
#include "base/err.h"
#include "base/list.h"
#include "base/map.h"
#include "base/macros.h"
#include "base/metrics.h"
#include "cluster/cluster.h"
#include "cluster/watch.h"
#include "net/loop.h"
#include "net/rpc.h"
#include "skerry/v1/agent.pb-c.h"
#include "tailnet/records.h"

enum { AGENT_KEY = 32, AGENT_ARENA_BYTES = 1 << 20 };

struct agent_service {
	struct api *api;
	struct cluster *cluster; /* the api's */
	struct loop *loop;       /* the api's */
	struct watch_source source;
	struct watch_hub *hub;
	/* X25519 pair of this process: devices prove their node keys to it. The secret is guarded memory. */
	uint8_t box_public[AGENT_KEY];
	uint8_t *box_secret;
	struct list waiters;   /* struct register_call that wait for a person */
	struct list reports;   /* struct report_call of this turn */
	struct sources asking; /* for approval, which takes no credential */
	struct map devices;    /* machine key and session -> struct agent_device */
	struct flush_hook report_hook;
	struct metric *registered, *refused, *waiting, *report_limited, *report_unchanged;
};

/* A device that watches here: what its reports are judged by. One per watch call. */
struct agent_device {
	uint8_t machine[AGENT_KEY];
	uint64_t tailnet, node, session;
	struct bucket reports;
};

/* The machine key that the call proved: 0, or ERR_UNAUTHENTICATED with what is missing. */
MUST_CHECK int agent_machine_key(struct rpc_call *call, uint8_t ret[AGENT_KEY], struct err *err);

/*
 * The node of a machine key with that node key (NULL: the only live node of the machine). 0, ERR_NOT_FOUND, or a failure
 * of the store.
 */
MUST_CHECK int agent_node(struct agent_service *s, const uint8_t machine[AGENT_KEY],
			  const void *node_key, size_t len, struct arena *arena, NodeRecord **ret,
			  struct err *err);

/* The device that watches here under that session; session 0: any of the machine. NULL: none. */
struct agent_device *agent_device_find(struct agent_service *s, const uint8_t machine[AGENT_KEY],
				       uint64_t session);
struct agent_device *agent_device_add(struct agent_service *s, const uint8_t machine[AGENT_KEY],
				      uint64_t session);
void agent_device_remove(struct agent_service *s, struct agent_device *d);

/* A call that is answered by what a command became. */
struct agent_answer {
	struct api_pending pending;
	struct rpc_server *server;
	struct rpc_ref ref;
};
struct agent_answer *agent_answer_new(struct agent_service *s, struct rpc_call *call);
/* Nothing will come. */
void agent_answer_free(struct agent_answer *a);
/*
 * Frees the answer. The call to go on with when the command was accepted; NULL: it is over, or was answered with the
 * failure or refusal.
 */
struct rpc_call *agent_answer_take(struct agent_answer *a, const struct err *err,
				   const CommandResult *r);

/* Actor and caller of a command that a device causes; `actor` and `name` must live as long as it. node 0: not known. */
void agent_fill_command(struct rpc_call *call, uint64_t node, Command *cmd,
			Skerry__Internal__V1__Actor *actor, char name[64]);

/* Checks what devices may send at all: lengths and counts. The field names the place. */
MUST_CHECK int agent_check_endpoints(size_t n, Skerry__V1__Endpoint *const *e, struct err *err);
MUST_CHECK int agent_check_key(const ProtobufCBinaryData *key, const char *field, bool may_be_empty,
			       struct err *err);

void agent_register(void *arg, struct rpc_call *call, const ProtobufCMessage *req);
void agent_register_changes(struct agent_service *s, const struct cluster_changes *changes);
void agent_watch(void *arg, struct rpc_call *call, const ProtobufCMessage *req);
void agent_report(void *arg, struct rpc_call *call, const ProtobufCMessage *req);
void agent_report_flush(void *arg);
void agent_logout(void *arg, struct rpc_call *call, const ProtobufCMessage *req);

/* What a device says of itself. Everything is borrowed for the call. */
struct agent_facts {
	uint64_t tailnet, node, session;
	size_t n_endpoints;
	Skerry__V1__Endpoint **endpoints;
	ProtobufCBinaryData disco_key;
	Skerry__V1__HostInfo *host_info;
	uint32_t home_relay;
	const char *hostname;
};
/* True: they go into the command of this turn, and `call` (may be NULL) is answered by what became of it. */
bool agent_facts_propose(struct agent_service *s, const struct agent_facts *f,
			 struct rpc_call *call);
