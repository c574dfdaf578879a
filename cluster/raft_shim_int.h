/* Inside of the shim: messages that it keeps, and snapshots on their way to peers. */
#pragma once

#include "base/mem.h"
#include "cluster/raft_shim.h"

/* A message with its address, which is ours; flat kinds only. */
static inline void shim_message_copy(struct raft_message *to, const struct raft_message *from)
{
	*to = *from;
	to->server_address = mem_strdup(from->server_address);
}

static inline void shim_message_done(struct raft_message *m)
{
	mem_free((char *)m->server_address);
}

/* ---- raft_shim_install.c ---- */

/* libraft wants to send this; it is lost when there is one on its way to that peer. */
void shim_install_begin(struct raft_shim *s, const struct raft_message *message);
/* What the peer says of its log: that it has the snapshot, or a rejection that libraft shall not take for its loss. */
void shim_install_judge(struct raft_shim *s, raft_id id, struct raft_append_entries_result *a);
void shim_installs_expire(struct raft_shim *s);
/* What is being read ends with the back end. */
void shim_installs_cancel(struct raft_shim *s);
void shim_installs_free(struct raft_shim *s);
