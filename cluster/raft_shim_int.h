/* Inside of the shim: messages that it keeps, those of elections, and snapshots on their way to peers. */
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

/* ---- raft_shim_votes.c ---- */

/* A RequestVote that libraft sends, to be repeated while it counts. */
void shim_vote_keep(struct raft_shim *s, const struct raft_message *message);
void shim_votes_repeat(struct raft_shim *s);
/* A follower's greetings to the other voters, when they are due. */
void shim_greet(struct raft_shim *s);
/* A message that came in is a greeting, of no interest beyond its coming. */
bool shim_greeting(const struct raft_message *m);
/* A RequestVote that libraft refuses for its leader's sake; then that leader is found to be lost. */
void shim_early_keep(struct raft_shim *s, const struct raft_message *m);
void shim_early_answer(struct raft_shim *s);
void shim_votes_free(struct raft_shim *s);
