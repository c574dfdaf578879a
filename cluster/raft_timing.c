/* When elections are held and how leadership is handed over; raft_timing.h says what differs from libraft. */
#include "cluster/raft_timing.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/macros.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "cluster/raft_shim.h"
#include "cluster/vouch.h"

unsigned timing_rank(const struct raft *r, raft_id but)
{
	unsigned rank = 0;

	for (unsigned i = 0; i < r->configuration.n; i++) {
		const struct raft_server *v = &r->configuration.servers[i];

		rank += v->role == RAFT_VOTER && v->id != but && v->id < r->id;
	}
	return rank;
}

/* ---- elections ---- */

static void follower_timeout(struct raft_shim *s)
{
	struct raft *r = s->raft;
	raft_id leader = r->follower_state.current_leader.id;

	s->timing.candidacies = 0;
	s->timing.candidate_since = 0;
	r->follower_state.randomized_election_timeout =
		r->election_timeout + timing_rank(r, leader) * TIMING_RANK_MS;
}

static void candidate_timeout(struct raft_shim *s)
{
	struct raft *r = s->raft;
	struct raft_timing *t = &s->timing;
	unsigned rank = timing_rank(r, t->leader);
	unsigned wait;

	if (t->candidate_since != r->election_timer_start && r->election_timer_start != 0) {
		t->candidate_since = r->election_timer_start;
		t->candidacies++;
	}
	wait = (unsigned)TIMING_RETRY_MS << MIN(MAX(t->candidacies, 1u) - 1, 4u);
	wait = MIN(wait, r->election_timeout);
	r->candidate_state.randomized_election_timeout = wait + rank * TIMING_RANK_MS;
	/* Terms that nobody wins would rise as long as a candidate is cut off. */
	if (s->io.time(&s->io) >= r->election_timer_start + wait + rank * TIMING_RANK_MS) {
		r->candidate_state.in_pre_vote = r->pre_vote;
	}
}

bool timing_disrupts(struct raft_shim *s)
{
	const struct raft *r = s->raft;

	if (r->state != RAFT_FOLLOWER) {
		return false;
	}
	/*
	 * The leader's process is gone; or it led an earlier term than ours, of which libraft holds on to its leader when
	 * somebody stood for a newer one; or it was silent for the election timeout.
	 */
	return (s->lost_leader != 0 && s->lost_leader == r->follower_state.current_leader.id) ||
	       (s->timing.leader_term != 0 && s->timing.leader_term < r->current_term) ||
	       s->io.time(&s->io) >= r->election_timer_start + r->election_timeout;
}

unsigned timing_race_wait(struct raft_shim *s, raft_term lost_term)
{
	const struct raft *r = s->raft;
	bool voted = r->state == RAFT_FOLLOWER && r->current_term > lost_term && r->voted_for != 0;
	raft_time since = s->io.time(&s->io) - MIN(r->election_timer_start, s->io.time(&s->io));

	if ((r->state != RAFT_CANDIDATE && !voted) || since >= TIMING_RACE_MS) {
		return 0;
	}
	return TIMING_RACE_MS - (unsigned)since;
}

/* ---- a leader that is not heard ---- */

static bool votes(const struct raft *r)
{
	for (unsigned i = 0; i < r->configuration.n; i++) {
		if (r->configuration.servers[i].id == r->id) {
			return r->configuration.servers[i].role == RAFT_VOTER;
		}
	}
	return false;
}

static void silence_judge(struct raft_shim *s)
{
	const struct raft *r = s->raft;
	struct raft_timing *t = &s->timing;
	uint64_t now = clock_mono_ms();

	if (r->follower_state.current_leader.id != 0 && s->lost_leader == 0 && s->heard_ms != 0 &&
	    now >= s->heard_ms + r->election_timeout * TIMING_SILENT_PERCENT / 100 &&
	    now >= t->silent_ms + VOUCH_EVERY_MS && votes(r)) {
		t->silent = true;
		t->silent_ms = now;
	}
}

bool timing_silent(struct raft_shim *s)
{
	bool silent = s->timing.silent;

	s->timing.silent = false;
	return silent;
}

void timing_vouched(struct raft_shim *s, raft_id id, raft_term term, uint64_t asked_ms)
{
	struct raft *r = s->raft;
	uint64_t now = clock_mono_ms(), stand, age;

	if (r->state != RAFT_FOLLOWER || r->current_term != term ||
	    r->follower_state.current_leader.id != id || s->lost_leader != 0 || s->heard_ms == 0) {
		return;
	}
	stand = MIN(asked_ms + r->election_timeout,
		    s->heard_ms + (uint64_t)VOUCH_ELECTION_TIMEOUTS * r->election_timeout);
	if (stand <= now) {
		return;
	}
	/* libraft's clock is another one, so only the differences are compared. */
	age = r->election_timeout - MIN(stand - now, (uint64_t)r->election_timeout);
	if (s->io.time(&s->io) > r->election_timer_start + age) {
		r->election_timer_start = s->io.time(&s->io) - age;
		METRICS_COUNT("skerry_raft_elections_put_off_total",
			      "Times that an election was put off: the leader was not heard, but "
			      "said that it leads",
			      1);
	}
}

void timing_asked(struct raft_shim *s, raft_id id, raft_term term)
{
	const struct raft *r = s->raft;

	if (r->state == RAFT_LEADER && r->current_term == term) {
		struct send_window *w = raft_shim_window(s, id);

		if (w->term == term) {
			w->asked_ms = clock_mono_ms();
		}
	}
}

uint64_t timing_acked(struct raft_shim *s, raft_id id)
{
	struct send_window *w = id != s->raft->id ? raft_shim_window(s, id) : NULL;

	return w != NULL && w->term == s->raft->current_term ? w->heard_ms : 0;
}

/*
 * libraft looks once per election timeout whether a majority has answered since it looked last, and gives up when not. It
 * looks later while vouch_holds(). `heard`: how many have answered since.
 */
static void leader_keep(struct raft_shim *s)
{
	struct raft *r = s->raft;
	struct vouch_voter v[LIM_MEMBERS];
	uint64_t now = clock_mono_ms();
	raft_time time = s->io.time(&s->io), since = time - MIN(r->election_timer_start, time);
	size_t n = 0, heard = 1;

	if (since < r->election_timeout) {
		return;
	}
	for (unsigned i = 0; i < r->configuration.n && n < ARRAY_LEN(v); i++) {
		const struct raft_server *server = &r->configuration.servers[i];
		struct send_window *w;

		if (server->role != RAFT_VOTER || server->id == r->id) {
			continue;
		}
		w = raft_shim_window(s, server->id);
		if (w->term == r->current_term) {
			heard += w->heard_ms != 0 && now <= w->heard_ms + since;
			v[n++] = (struct vouch_voter){.acked_ms = w->heard_ms,
						      .asked_ms = w->asked_ms};
		} else {
			v[n++] = (struct vouch_voter){0};
		}
	}
	if (heard < (n + 1) / 2 + 1 && vouch_holds(v, n, now, r->election_timeout)) {
		r->election_timer_start = time - r->election_timeout + 1;
		METRICS_COUNT("skerry_raft_leader_kept_total",
			      "Times that a leader went on without answers, as a majority asked "
			      "for it",
			      1);
	}
}

/* ---- handing over ---- */

raft_id timing_successor(struct raft_shim *s)
{
	struct raft *r = s->raft;
	uint64_t now = clock_mono_ms();
	struct send_window *best = NULL;
	raft_index most = 0;

	for (unsigned i = 0; i < r->configuration.n; i++) {
		const struct raft_server *v = &r->configuration.servers[i];
		struct send_window *w;
		raft_index match = 0;

		if (v->role != RAFT_VOTER || v->id == r->id ||
		    raft_match_index(r, v->id, &match) != 0) {
			continue;
		}
		w = raft_shim_window(s, v->id);
		if (w->heard_ms == 0 || now >= w->heard_ms + r->election_timeout) {
			continue;
		}
		if (best == NULL || match > most ||
		    (match == most && w->heard_ms > best->heard_ms)) {
			best = w;
			most = match;
		}
	}
	return best != NULL ? best->id : 0;
}

static void now_forget(struct raft_timing *t)
{
	if (t->now_sent) {
		t->now_sent = false;
		mem_free((char *)t->now.server_address);
	}
}

void timing_keep(struct raft_shim *s, const struct raft_message *m)
{
	struct raft_timing *t = &s->timing;

	now_forget(t);
	t->now = *m;
	t->now.server_address = mem_strdup(m->server_address);
	t->now_sent = true;
}

void timing_done(struct raft_shim *s)
{
	now_forget(&s->timing);
}

/*
 * libraft sends TimeoutNow once, at the first acknowledgement after the request, and the other one ignores it while it
 * has entries that are not on its disk, or lacks some. So it is repeated while the other one holds all that we hold, and
 * what it lacks is sent at once. Who answers is given more time than libraft gives, since a successor that begins after
 * we went on proposing cannot win, and yet ends our term.
 */
static void handover(struct raft_shim *s)
{
	struct raft *r = s->raft;
	struct raft_timing *t = &s->timing;
	raft_id to = r->leader_state.transferee;
	uint64_t now = clock_mono_ms();
	struct send_window *w = raft_shim_window(s, to);
	raft_index match = 0, last = raft_last_index(r);

	if (t->handover_ms == 0) {
		t->handover_ms = now;
		return;
	}
	if (now < t->handover_ms + TIMING_HANDOVER_MS && w->heard_ms != 0 &&
	    now < w->heard_ms + r->election_timeout) {
		r->leader_state.transfer_start = s->io.time(&s->io);
	}
	if (raft_match_index(r, to, &match) != 0 || match < last) {
		raft_shim_push(s);
	} else if (t->now_sent && t->now.server_id == to) {
		if (t->now.timeout_now.last_log_index != last) {
			t->now.timeout_now.last_log_index = last;
			t->now.timeout_now.last_log_term = r->current_term;
		}
		t->now.timeout_now.term = r->current_term;
		IGNORE(raft_shim_repeat(s, &t->now));
	}
}

void timing_tick(struct raft_shim *s)
{
	struct raft *r = s->raft;
	struct raft_timing *t = &s->timing;

	if (r->state == RAFT_LEADER && r->leader_state.transferee != 0) {
		handover(s);
	} else {
		t->handover_ms = 0;
		now_forget(t);
	}
	switch (r->state) {
	case RAFT_FOLLOWER:
		if (t->retake && r->last_stored == raft_last_index(r)) {
			t->retake = false;
			r->election_timer_start = 0;
		}
		follower_timeout(s);
		silence_judge(s);
		break;
	case RAFT_CANDIDATE:
		t->retake = false;
		candidate_timeout(s);
		break;
	case RAFT_LEADER:
		t->retake = false;
		leader_keep(s);
		break;
	default: t->retake = false; break;
	}
}
