/* The device daemon: wires identity, netmap, control, WireGuard, the host's network, names and the local socket together. */
#pragma once

#include "agent/config.h"
#include "base/err.h"
#include "base/macros.h"

struct agent;
struct host;
struct loop;
struct wg;

struct agent_opts {
	const struct agent_config *config; /* borrowed for the agent's life */
	/* For tests: back ends instead of wireguard-go and rtnetlink (borrowed); NULL = the real ones. */
	struct wg *wg;
	struct host *host;
	bool no_dns; /* for tests without the addresses */
};

/*
 * Opens the state, applies the stored netmap, then starts to dial; serves the local socket. Errors: what the operator must
 * repair (state directory, socket, another agent).
 */
MUST_CHECK int agent_new(struct loop *loop, const struct agent_opts *opts, struct agent **ret_agent,
			 struct err *e);
/* Ends the agent and leaves the mesh as it is: interface, peers, addresses, routes. NULL is fine. */
void agent_free(struct agent *agent);
