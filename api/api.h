/* What clients talk to: the services over gRPC and JSON, health, metrics; one set per front loop. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"

struct api;
struct api_face;
struct cluster;
struct http_router;
struct loop;
struct stream;

struct api_options {
	struct cluster *cluster; /* borrowed */
	struct loop *loop;       /* borrowed; everything here runs on it */
	const char *version;     /* copied */
	const char *api_url;     /* of this lighthouse, for approval URLs; copied */
	bool reflection_public;  /* reflection without a credential */
};

/* Registers nothing yet; subscribes to changes. Never NULL. */
struct api *api_new(const struct api_options *o);
/* Ends every call and connection at once. After the faces. NULL is allowed. */
void api_free(struct api *api);

/* What a listener offers. */
enum api_serve {
	API_SERVE_AGENT = 1 << 0, /* AgentService */
	API_SERVE_ADMIN = 1 << 1, /* the services of administration, reflection */
	API_SERVE_WEB = 1 << 2,   /* JSON over POST */
	API_SERVE_RELAY = 1 << 3,
	API_SERVE_DNS = 1 << 4,
	API_SERVE_METRICS = 1 << 5, /* /metrics */
};

/*
 * The connections of one listener: a gRPC server and a mount table with what `serve` says; overall health, /healthz,
 * /readyz and /generate_204 are on every face. `name` (copied) is for metrics.
 */
struct api_face *api_face_new(struct api *api, const char *name, unsigned serve);
/* The mount table, for programs that add to it before the first connection. */
struct http_router *api_face_router(struct api_face *face);
/* Takes the stream. A Unix socket's peer is a system administrator, named by its uid. */
void api_face_accept(struct api_face *face, struct stream *stream);
/* Graceful end: readiness goes, streams are asked to move within grace_ms; done(arg) when the last is gone. */
void api_face_drain(struct api_face *face, uint64_t grace_ms, void (*done)(void *arg), void *arg);
void api_face_free(struct api_face *face);
