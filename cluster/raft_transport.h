/* What raft_uv_init asks for and never uses: connections are raft_net.h's. */
#pragma once

#include <raft.h>
#include <raft/uv.h>

/* Embedded in its user; one loop. */
struct raft_transport {
	struct raft_uv_transport t;
	uv_idle_t closer; /* never runs: its close callback makes ours asynchronous */
	raft_uv_transport_close_cb close_cb;
};

void raft_transport_init(struct raft_transport *t, uv_loop_t *loop);
