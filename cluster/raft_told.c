/* Commits that a follower is told of by an answer; raft_told.h says how. */
#include "cluster/raft_told.h"

#include "base/macros.h"
#include "base/mem.h"
#include "cluster/raft_shim.h"

static void term_is(struct raft_told *t, raft_term term)
{
	if (t->term != term) {
		*t = (struct raft_told){.term = term, .echoing = t->echoing};
	}
}

struct told_match told_before(struct raft_shim *s, struct raft_append_entries *a)
{
	struct raft_told *t = &s->told;
	raft_index last = a->prev_log_index + a->n_entries;

	if (a->term == t->term) {
		a->leader_commit = MAX(a->leader_commit, t->commit);
	}
	/* libraft goes back to the end of a message that tells of a later commit: of one sent again, below its own. */
	if (last < s->raft->commit_index) {
		a->leader_commit = MIN(a->leader_commit, s->raft->commit_index);
	}
	return (struct told_match){
		.term = a->term,
		.match = a->prev_log_index + a->n_entries,
		.match_term = a->n_entries > 0 ? a->entries[a->n_entries - 1].term
					       : a->prev_log_term,
	};
}

void told_after(struct raft_shim *s, const struct told_match *m)
{
	const struct raft *r = s->raft;
	struct raft_told *t = &s->told;

	/* What libraft refused does not raise its match. */
	if (r->state != RAFT_FOLLOWER || r->current_term != m->term ||
	    r->follower_state.match < m->match) {
		return;
	}
	term_is(t, m->term);
	if (m->match >= t->match) {
		t->match = m->match;
		t->match_term = m->match_term;
	}
}

void told_commit(struct raft_shim *s, raft_term term, raft_index index)
{
	struct raft *r = s->raft;
	struct raft_told *t = &s->told;
	raft_time timer = r->election_timer_start;
	struct raft_message m = {.type = RAFT_APPEND_ENTRIES};
	char *address;

	if (s->closing || s->recv == NULL || r->state != RAFT_FOLLOWER || r->current_term != term ||
	    r->follower_state.current_leader.id == 0 || r->snapshot.installing) {
		return;
	}
	term_is(t, term);
	t->commit = MAX(t->commit, index);
	if (MIN(t->commit, t->match) <= r->commit_index || t->match > r->follower_state.match) {
		return;
	}
	address = mem_strdup(r->follower_state.current_leader.address);
	m.server_id = r->follower_state.current_leader.id;
	m.server_address = address;
	m.append_entries.term = term;
	m.append_entries.prev_log_index = t->match;
	m.append_entries.prev_log_term = t->match_term;
	m.append_entries.leader_commit = t->commit;
	t->echoing = true;
	s->recv(&s->io, &m);
	t->echoing = false;
	/* Only what the leader itself sends keeps us from standing for election. */
	r->election_timer_start = timer;
	mem_free(address);
}
