/* grpc.reflection v1 and v1alpha over the embedded descriptors; lists only what the server serves.
 */
#pragma once

struct rpc_server;

/* Registers both services. The gate of the server decides who may ask. Add all other services first
 * or later: either works. */
void reflection_add(struct rpc_server *server);
