/* The JSON face: unary methods of an RPC server answered over plain POST, by the rules of the Connect protocol. */
#pragma once

#include "net/http.h"
#include "net/rpc.h"

/*
 * Mounts POST /<package.Service>/<Method> for every method that `server` serves now (call it after the last
 * rpc_server_add), on HTTP/1.1 and HTTP/2. Borrows both for the router's life.
 *
 *   Content-Type: application/json or application/proto (another: 415), Content-Encoding: identity or gzip.
 *   Connect-Timeout-Ms: up to 10 digits. Connect-Protocol-Version: 1 or absent. Metadata as headers, "-bin" in base64.
 *   Any method but POST: 405 with Allow. Streaming methods: 501 with code "unimplemented".
 *   An answer: 200 and the message in the request's content type; trailers as headers "trailer-…".
 *   An error: the HTTP status of its code, and {"code": "not_found", "message": "…", "details":
 *   [{"type": "google.rpc.ErrorInfo", "value": base64, "debug": {…}}]}.
 *
 * Requests of content type application/grpc* are not taken: rpc_server_mount() looks at those first.
 */
void connect_mount(struct rpc_server *server, struct http_router *router);
