/* What a follower knows of commits apart from AppendEntries: the answer to a call of its own told it. */
#pragma once

#include <raft.h>
#include <stdbool.h>

struct raft_shim;

/*
 * Who waits on a follower for an entry to be applied is answered by the leader, with the index and the leader's term. So
 * a leader need not send each commit to each follower at once, a message and its answer per follower and group: it rides
 * in the next entry or follows a little later. What the answer told is as good as a heartbeat of that leader with this
 * commit index, and libraft is given one: with the last entry that is known to be the leader's, too, and only while the
 * term is still that leader's. Before that entry is here, the commit waits for the message that brings it.
 */
struct raft_told {
	raft_term term;    /* of the three below */
	raft_index commit; /* an answer told of it; 0: none */
	raft_index match;  /* up to here our log is the leader's; 0: not known */
	raft_term match_term;
	bool echoing; /* the heartbeat is our own: its answer is sent to nobody */
};

/* Before and after libraft gets an AppendEntries; `told_match` is what the message proves if libraft takes it. */
struct told_match {
	raft_term term, match_term;
	raft_index match;
};
struct told_match told_before(struct raft_shim *s, struct raft_append_entries *a);
void told_after(struct raft_shim *s, const struct told_match *m);
/* The leader of `term` says that `index` is committed. Not from within libraft's calls. */
void told_commit(struct raft_shim *s, raft_term term, raft_index index);
