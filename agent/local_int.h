/* Inside of the local socket. */
#pragma once

#include "agent/agent_int.h"
#include "net/rpc.h"
#include "skerry/local/v1/agent_local.pb-c.h"

struct listener;
struct http_server;
struct http_router;

/* A call of Up that is open. */
struct up_wait {
	struct list node;
	struct local *local;
	struct rpc_ref ref;
	uint64_t started; /* loop time */
	uint64_t told;    /* bits of UpStep */
	bool key_unused;  /* a key was given to a device that is registered already */
	struct loop_timer deadline;
	char waiting[512]; /* last thing told */
};

struct local {
	struct agent *a;
	struct listener *listener;
	struct http_router *router;
	struct http_server *http;
	struct rpc_server *rpc;
	struct list ups;
	struct list pings;
	struct rpc_ref logout; /* the one call that waits for the lighthouse */
	bool logout_busy;
};

/* local_up.c */
extern const struct rpc_handler local_up_handler;
void local_up_done(struct up_wait *u);

/* local_status.c */
extern const struct rpc_handler local_status_handler;

/* ping.c */
extern const struct rpc_handler local_ping_handler;
struct ping;
void ping_free(struct ping *p);
void pings_free(struct local *local);
