/* The messages of an election: repeated when lost, looked at again when early, over links that are there before. */
#include "base/clock.h"
#include "cluster/raft_shim_int.h"

/* A vote to repeat. */
struct shim_vote {
	struct list node;
	struct raft_message message;
};

static void vote_forget(struct shim_vote *v)
{
	list_remove(&v->node);
	shim_message_done(&v->message);
	mem_free(v);
}

void shim_vote_keep(struct raft_shim *s, const struct raft_message *message)
{
	struct shim_vote *v;

	LIST_FOREACH_SAFE(&s->votes, it, tmp)
	{
		v = LIST_ENTRY(it, struct shim_vote, node);
		if (v->message.server_id == message->server_id) {
			vote_forget(v);
		}
	}
	v = MEM_NEW(struct shim_vote);
	shim_message_copy(&v->message, message);
	list_push(&s->votes, &v->node);
	s->last_repeat_ms = clock_mono_ms();
}

static bool vote_current(const struct raft_shim *s, const struct raft_request_vote *v)
{
	const struct raft *r = s->raft;

	if (r->state != RAFT_CANDIDATE || r->candidate_state.in_pre_vote != v->pre_vote) {
		return false;
	}
	return v->term == (v->pre_vote ? r->current_term + 1 : r->current_term);
}

void shim_votes_repeat(struct raft_shim *s)
{
	uint64_t now = clock_mono_ms();

	if (list_empty(&s->votes) || now < s->last_repeat_ms + SHIM_VOTE_REPEAT_MS) {
		return;
	}
	s->last_repeat_ms = now;
	LIST_FOREACH_SAFE(&s->votes, it, tmp)
	{
		struct shim_vote *v = LIST_ENTRY(it, struct shim_vote, node);

		if (!vote_current(s, &v->message.request_vote)) {
			vote_forget(v);
		} else if (raft_shim_repeat(s, &v->message) == 0) {
			s->votes_repeated++;
		}
	}
}

/*
 * Followers have nothing to say to each other, and libraft dials when it has: each election would begin with connections,
 * both ways, on machines that are busy with what ended the leader. The greeting is a vote of no term that is refused, of
 * which libraft, of an older build too, takes no notice. It also finds out that a link is gone: libraft dials anew.
 */
void shim_greet(struct raft_shim *s)
{
	struct raft *r = s->raft;
	uint64_t now = clock_mono_ms();
	bool voter = false;

	if (r->state != RAFT_FOLLOWER || s->closing ||
	    (s->last_greeting_ms != 0 && now < s->last_greeting_ms + SHIM_GREETING_MS)) {
		return;
	}
	s->last_greeting_ms = now;
	for (unsigned i = 0; i < r->configuration.n; i++) {
		voter |= r->configuration.servers[i].id == r->id &&
			 r->configuration.servers[i].role == RAFT_VOTER;
	}
	for (unsigned i = 0; voter && i < r->configuration.n; i++) {
		const struct raft_server *v = &r->configuration.servers[i];
		struct raft_message m = {.type = RAFT_REQUEST_VOTE_RESULT,
					 .server_id = v->id,
					 .server_address = v->address};

		/* What the leader sends is answered. */
		if (v->role == RAFT_VOTER && v->id != r->id &&
		    v->id != r->follower_state.current_leader.id) {
			m.request_vote_result.version = 2;
			IGNORE(raft_shim_repeat(s, &m));
		}
	}
}

/*
 * The survivors find out one after the other that the leader is gone, and who does first asks at once: it would be refused,
 * and ask again only with its next tick but one.
 */
static void early_forget(struct raft_shim *s)
{
	if (s->early_ms != 0) {
		shim_message_done(&s->early);
		s->early_ms = 0;
	}
}

void shim_early_keep(struct raft_shim *s, const struct raft_message *m)
{
	early_forget(s);
	shim_message_copy(&s->early, m);
	s->early_ms = clock_mono_ms();
}

void shim_early_answer(struct raft_shim *s)
{
	struct raft_message m = s->early;
	bool due = s->early_ms != 0 && clock_mono_ms() < s->early_ms + SHIM_EARLY_MS;

	if (!due || s->closing) {
		early_forget(s);
		return;
	}
	s->early_ms = 0;
	m.request_vote.disrupt_leader = true;
	s->recv(&s->io, &m);
	shim_message_done(&m);
}

bool shim_greeting(const struct raft_message *m)
{
	return m->type == RAFT_REQUEST_VOTE_RESULT && m->request_vote_result.term == 0;
}

void shim_votes_free(struct raft_shim *s)
{
	early_forget(s);
	while (!list_empty(&s->votes)) {
		vote_forget(LIST_ENTRY(s->votes.next, struct shim_vote, node));
	}
}
