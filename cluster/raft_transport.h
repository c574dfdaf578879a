/* libraft's connections as ends of socketpairs: the peer side dials and pumps, libraft sees a stream. */
#pragma once

#include <raft.h>
#include <raft/uv.h>
#include <stdint.h>

#include "base/list.h"

/* Embedded in its user; one loop, the raft thread. */
struct raft_transport {
	struct raft_uv_transport t;
	uv_loop_t *loop;
	raft_uv_accept_cb accept;
	struct list pending; /* connect attempts on their way */
	uint64_t next_request;
	uv_idle_t closer; /* never runs: its close callback makes ours asynchronous */
	raft_uv_transport_close_cb close_cb;
	bool closing;
	/* Asks for a link; the answer is raft_transport_connected. */
	void (*connect)(void *arg, uint64_t request, uint64_t id, const char *address);
	void *arg;
};

void raft_transport_init(struct raft_transport *t, uv_loop_t *loop,
			 void (*connect)(void *arg, uint64_t request, uint64_t id,
					 const char *address),
			 void *arg);
/* fd (taken) or negative. Unknown requests: the fd is closed. */
void raft_transport_connected(struct raft_transport *t, uint64_t request, int fd);
/* A member came in: fd is taken. */
void raft_transport_accepted(struct raft_transport *t, uint64_t id, const char *address, int fd);
