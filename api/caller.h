/* Who calls: the credential of each call, judged by the gate before the request is decoded, from the method table. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"
#include "proto/methods.h"
#include "skerry/internal/v1/command.pb-c.h"

struct api;
struct cluster_changes;
struct rpc_call;
struct rpc_server;

enum caller_kind {
	CALLER_NONE,    /* no credential: methods of CREDENTIAL_NONE, health */
	CALLER_UNIX,    /* the Unix socket: system administrator; id is the uid */
	CALLER_API_KEY, /* id is the key's */
	CALLER_DEVICE, /* proved its machine key on this connection; which of its nodes is for the service to say */
	CALLER_SESSION, /* of the web console */
	CALLER_LIGHTHOUSE,
	CALLER_RELAY,
};

/* Plain value; lives as long as its call. */
struct caller {
	enum caller_kind kind;
	uint64_t id;             /* uid, API key id; 0 for a device (the service knows its node) */
	uint64_t tailnet;        /* the scope: 0 is the system, which includes every tailnet */
	int role;                /* Skerry__V1__Role; 0 for devices and without credential */
	uint64_t user;           /* whose API key it is; 0: nobody's */
	uint8_t machine_key[32]; /* CALLER_DEVICE: Ed25519 public key */
	char source[64];         /* where the call came from, as text */
	char text[40];           /* "unix:0", "api-key:9", "device", "anonymous" */
};

/* The caller of a call that passed the gate. Never NULL there. Borrowed until the call ends. */
const struct caller *caller_of(struct rpc_call *call);

/*
 * Whether the caller may act in that tailnet (0: the system). ERR_DENIED (reason OUT_OF_SCOPE) says nothing of
 * whether the tailnet exists.
 */
MUST_CHECK int caller_in_scope(const struct caller *c, uint64_t tailnet, struct err *err);

/* Whether the caller's kind, role and scope suffice for the method: the table's part of the gate. Pure. */
MUST_CHECK int caller_may(const struct caller *c, const struct proto_method *m, struct err *err);

/*
 * Fills the command's actor and `caller` (for request ids). `actor` and `name` hold what it points to: both must
 * live as long as the command.
 */
void caller_fill_command(const struct caller *c, Skerry__Internal__V1__Command *cmd,
			 Skerry__Internal__V1__Actor *actor, char name[64]);

/* "Bearer sk-api-…": the token after the scheme (case does not matter), or NULL. */
const char *caller_bearer(const char *authorization);

/*
 * A credential inside a request was wrong: counts it against the call's source. Returns the code to answer with: that of
 * *err, or ERR_LIMIT (and *err says so) when the source has had too many.
 */
int caller_bad_credential(struct api *api, struct rpc_call *call, struct err *err);

/* ---- the gate; one per api ---- */

struct caller_gate;
struct caller_gate *caller_gate_new(struct api *api);
void caller_gate_free(struct caller_gate *gate);
/* Sets the gate of a server. */
void caller_gate_guard(struct caller_gate *gate, struct rpc_server *server);
/* Calls that are open ends when the key behind them went: hears of each commit. */
void caller_gate_changes(struct caller_gate *gate, const struct cluster_changes *changes);
