/* An InstallSnapshot on its way to one peer, on a connection of its own. */
#pragma once

#include <raft.h>

#include "base/macros.h"

struct raft_install;
struct raft_net;

/*
 * libraft would put the whole state between two heartbeats of one connection. Here it goes over a second one, in libraft's own
 * form, which the receiver takes as it takes any other connection of a member: heartbeats pass it.
 *
 * cb fires exactly once, on the loop, never inside this call: 0 when all was handed to the kernel, RAFT_NOCONNECTION,
 * RAFT_IOERR. Borrows the data of the message until then; copies the rest. Returns 0 or a code of libraft.
 */
MUST_CHECK int raft_install_start(struct raft_install **ret, struct raft_net *net,
				  const struct raft_message *m, void (*cb)(void *arg, int status),
				  void *arg);
/* Cuts it; cb does not fire any more, and the data is free at once. NULL is fine. */
void raft_install_cancel(struct raft_install *i);
