/* grpc.health.v1.Health: Check and Watch over a small table of names. */
#pragma once

#include <stdbool.h>

struct rpc_call;
struct rpc_server;
struct health;

/* Registers the service; "" (the whole server) starts as SERVING. One per rpc_server. */
struct health *health_new(struct rpc_server *server);
/* After rpc_server_free(). NULL ok. */
void health_free(struct health *health);
/* Sets a name's state (making the name); watchers are told. Same loop. */
void health_set(struct health *health, const char *name, bool serving);

/*
 * Who may ask for a name: `may` is asked at each call; false answers UNAUTHENTICATED, whether the name exists or not. NULL:
 * everybody. Before the first call.
 */
typedef bool (*health_may_fn)(void *arg, struct rpc_call *call, const char *name);
void health_set_guard(struct health *health, health_may_fn may, void *arg);
