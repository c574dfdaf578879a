/* The shim in elections: votes that are repeated, who disrupts whom, and when. */
/* LIBS: cluster */
#include "tests/unit/cluster/shim_back.h"

/* ---- votes ---- */

static struct raft_message vote(raft_id to, raft_term term, bool pre)
{
	struct raft_message m = {
		.type = RAFT_REQUEST_VOTE, .server_id = to, .server_address = "peer:1"};

	m.request_vote.version = 2;
	m.request_vote.term = term;
	m.request_vote.candidate_id = 1;
	m.request_vote.pre_vote = pre;
	return m;
}

static void fire_sent(int status)
{
	for (size_t i = 0; i < be.n_sent; i++) {
		struct raft_io_send *req = be.send[i];

		if (req != NULL) {
			be.send[i] = NULL;
			be.send_cb[i](req, status);
		}
	}
	be.n_sent = 0;
}

static void votes_are_repeated(void **state)
{
	struct raft_message m = vote(2, 6, true);

	(void)state;
	raft.state = RAFT_CANDIDATE;
	raft.candidate_state.in_pre_vote = true;
	assert_int_equal(shim.io.send(&shim.io, &sreq[0], &m, on_sent), 0);
	assert_int_equal(seen.answered, 0); /* never inside the call */
	raft_shim_flush(&shim);
	assert_int_equal(seen.answered, 1);
	assert_int_equal(seen.status, 0);
	fire_sent(RAFT_NOCONNECTION); /* the link was dead: the message is lost */
	assert_int_equal(seen.answered, 1);

	be.tick(&shim.io);
	assert_int_equal(be.n_sent, 0);
	test_clock_advance(&tc, SHIM_VOTE_REPEAT_MS);
	be.tick(&shim.io);
	assert_int_equal(be.n_sent, 1);
	assert_int_equal(be.sent[0].request_vote.term, 6);
	assert_int_equal(be.sent[0].server_id, 2);
	fire_sent(0);

	/* Another phase: the old one is forgotten. */
	raft.candidate_state.in_pre_vote = false;
	test_clock_advance(&tc, SHIM_VOTE_REPEAT_MS);
	be.tick(&shim.io);
	assert_int_equal(be.n_sent, 0);
	assert_true(list_empty(&shim.votes));
}

static void results_are_repeated_thrice(void **state)
{
	struct raft_message m = {
		.type = RAFT_REQUEST_VOTE_RESULT, .server_id = 2, .server_address = "peer:1"};

	(void)state;
	assert_int_equal(shim.io.send(&shim.io, &sreq[0], &m, on_sent), 0);
	raft_shim_flush(&shim);
	for (int i = 0; i < 3; i++) {
		struct raft_io_send *req;

		assert_int_equal(be.n_sent, 1);
		req = be.send[0];
		be.n_sent = 0;
		be.send_cb[0](req, RAFT_NOCONNECTION);
	}
	assert_int_equal(be.n_sent, 0);
	assert_int_equal(seen.answered, 1);
}

/* Whom the greetings of one tick went to, as a set of bits. */
static unsigned greeted(void)
{
	unsigned who = 0;

	be.tick(&shim.io);
	for (size_t i = 0; i < be.n_sent; i++) {
		assert_int_equal(be.sent[i].type, RAFT_REQUEST_VOTE_RESULT);
		assert_int_equal(be.sent[i].request_vote_result.term, 0);
		assert_false(be.sent[i].request_vote_result.vote_granted);
		who |= 1u << be.sent[i].server_id;
	}
	fire_sent(RAFT_NOCONNECTION); /* lost: the next one comes soon enough */
	assert_int_equal(be.n_sent, 0);
	return who;
}

/* Links to whom an election will need are there before it. */
static void followers_greet(void **state)
{
	struct raft_server server[] = {
		{1, "one:1", RAFT_VOTER},    {2, "two:1", RAFT_VOTER},  {3, "three:1", RAFT_VOTER},
		{4, "four:1", RAFT_STANDBY}, {5, "five:1", RAFT_SPARE},
	};
	struct raft_message m = {.type = RAFT_REQUEST_VOTE_RESULT, .server_id = 2};

	(void)state;
	raft.id = 1;
	raft.configuration.servers = server;
	raft.configuration.n = ARRAY_LEN(server);
	assert_int_equal(greeted(), 1u << 2 | 1u << 3); /* at the start, whoever leads */
	assert_int_equal(greeted(), 0);
	raft.follower_state.current_leader.id = 3;
	test_clock_advance(&tc, SHIM_GREETING_MS);
	assert_int_equal(greeted(), 1u << 2);
	test_clock_advance(&tc, SHIM_GREETING_MS - 1);
	assert_int_equal(greeted(), 0);
	test_clock_advance(&tc, 1);
	assert_int_equal(greeted(), 1u << 2);
	/* Who has no vote takes no part in elections; who leads sends enough. */
	server[0].role = RAFT_STANDBY;
	test_clock_advance(&tc, SHIM_GREETING_MS);
	assert_int_equal(greeted(), 0);
	server[0].role = RAFT_VOTER;
	raft.state = RAFT_LEADER;
	test_clock_advance(&tc, SHIM_GREETING_MS);
	assert_int_equal(greeted(), 0);

	/* libraft does not see it. */
	be.recv(&shim.io, &m);
	assert_int_equal(seen.received, 0);
	m.request_vote_result.term = 5;
	be.recv(&shim.io, &m);
	assert_int_equal(seen.received, 1);
	raft.configuration.n = 0;
}

static void disrupting(void **state)
{
	static const struct {
		raft_id leader, lost;
		uint64_t silent_ms;
		bool disrupt;
	} cases[] = {
		{3, 0, 10, false},  /* a leader that is heard */
		{3, 3, 10, true},   /* its process is gone */
		{3, 0, 1000, true}, /* silent for the election timeout */
		{3, 0, 999, false},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		struct raft_message m = vote(1, 6, true);

		shim.lost_leader = 0;
		raft.follower_state.current_leader.id = c->leader;
		raft.election_timer_start = clock_mono_ms() - c->silent_ms;
		if (c->lost != 0) {
			raft_shim_leader_lost(&shim, c->lost);
		}
		seen.disrupt = false;
		be.recv(&shim.io, &m);
		assert_int_equal(seen.disrupt, c->disrupt);
	}
	/* Somebody who does not lead cannot be lost as the leader. */
	shim.lost_leader = 0;
	raft_shim_leader_lost(&shim, 2);
	assert_int_equal(shim.lost_leader, 0);
	/* A leader that is heard again ends it; an old one does not. */
	raft_shim_leader_lost(&shim, 3);
	{
		struct raft_message m = {.type = RAFT_APPEND_ENTRIES};

		m.append_entries.term = 4;
		be.recv(&shim.io, &m);
		assert_int_equal(shim.lost_leader, 3);
		m.append_entries.term = 5;
		be.recv(&shim.io, &m);
		assert_int_equal(shim.lost_leader, 0);
	}
}

/* Who asks before we know that the leader is gone is answered when we do. */
static void an_early_vote(void **state)
{
	static const struct {
		raft_id lost;
		uint64_t after_ms;
		int received;
	} cases[] = {
		{3, 5, 2},             /* refused, and looked at again */
		{2, 5, 1},             /* somebody else is gone */
		{3, SHIM_EARLY_MS, 1}, /* long ago */
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		struct raft_message m = vote(2, 6, true);

		shim.lost_leader = 0;
		seen.received = 0;
		raft.follower_state.current_leader.id = 3;
		raft.election_timer_start = clock_mono_ms();
		be.recv(&shim.io, &m);
		assert_int_equal(seen.received, 1);
		assert_false(seen.disrupt);
		test_clock_advance(&tc, c->after_ms);
		raft_shim_leader_lost(&shim, c->lost);
		assert_int_equal(seen.received, c->received);
		assert_int_equal(seen.disrupt, c->received == 2);
		seen.disrupt = false;
		/* Once. */
		raft_shim_leader_lost(&shim, 3);
		assert_true(seen.received == c->received || c->lost != 3);
	}
	/* One that stays unanswered is freed with the rest. */
	{
		struct raft_message m = vote(2, 7, true);

		shim.lost_leader = 0;
		be.recv(&shim.io, &m);
		assert_int_not_equal(shim.early_ms, 0);
	}
}

/* Another election is not forced while one is under way that may be won: ours, or one that has our vote. */
static void a_race_waits(void **state)
{
	static const struct {
		unsigned short role;
		raft_term term;
		raft_id voted;
		unsigned since_ms, wait;
	} cases[] = {
		{RAFT_FOLLOWER, 5, 2, 10, 0}, /* the vote is of the lost leader's own term */
		{RAFT_FOLLOWER, 6, 0, 10, 0}, /* a newer term, and nobody has our vote */
		{RAFT_FOLLOWER, 6, 2, 10, TIMING_RACE_MS - 10},
		{RAFT_FOLLOWER, 6, 2, TIMING_RACE_MS, 0},
		{RAFT_CANDIDATE, 5, 0, 3, TIMING_RACE_MS - 3},
		{RAFT_CANDIDATE, 6, 1, 3, TIMING_RACE_MS - 3},
		{RAFT_CANDIDATE, 6, 1, TIMING_RACE_MS + 1, 0},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		raft.state = c->role;
		raft.current_term = c->term;
		raft.voted_for = c->voted;
		raft.election_timer_start = clock_mono_ms() - c->since_ms;
		assert_int_equal(timing_race_wait(&shim, 5), c->wait);
	}
}

static void a_forced_election(void **state)
{
	(void)state;
	raft_shim_force_election(&shim);
	assert_int_equal(seen.ticks, 1);
	assert_int_equal(raft.election_timer_start, 0);
	raft.state = RAFT_LEADER;
	raft_shim_force_election(&shim);
	assert_int_equal(seen.ticks, 1);
}

/* ---- time ---- */

static struct raft_server voters[] = {
	{.id = 1, .role = RAFT_VOTER}, {.id = 2, .role = RAFT_VOTER},
	{.id = 3, .role = RAFT_VOTER}, {.id = 4, .role = RAFT_STANDBY},
	{.id = 5, .role = RAFT_VOTER},
};

static void ranks(void **state)
{
	static const struct {
		raft_id self, leader;
		unsigned ms;
	} cases[] = {
		{2, 1, 1000}, {3, 1, 1100}, {5, 1, 1200}, {1, 5, 1000},
		{3, 5, 1200}, {5, 0, 1300}, /* no leader is known: any of the voters might be there */
	};

	(void)state;
	raft.configuration.servers = voters;
	raft.configuration.n = ARRAY_LEN(voters);
	TEST_TABLE(c, cases)
	{
		raft.id = c->self;
		raft.follower_state.current_leader.id = c->leader;
		raft.follower_state.randomized_election_timeout = 1999; /* drawn by libraft */
		be.tick(&shim.io);
		assert_int_equal(raft.follower_state.randomized_election_timeout, c->ms);
		fire_sent(0); /* greetings */
	}
	/* The leader that was heard last does not stand either. */
	{
		struct raft_message m = {.type = RAFT_APPEND_ENTRIES, .server_id = 1};

		m.append_entries.term = 5;
		raft.id = 2;
		be.recv(&shim.io, &m);
		raft.state = RAFT_CANDIDATE;
		be.tick(&shim.io);
		assert_int_equal(raft.candidate_state.randomized_election_timeout, TIMING_RETRY_MS);
	}
}

static void candidates_try_again(void **state)
{
	static const unsigned waits[] = {250, 500, 1000, 1000, 1000};

	(void)state;
	raft.state = RAFT_CANDIDATE;
	raft.pre_vote = true;
	for (size_t i = 0; i < ARRAY_LEN(waits); i++) {
		raft.election_timer_start = clock_mono_ms();
		raft.candidate_state.in_pre_vote = false;
		be.tick(&shim.io);
		be.tick(&shim.io);
		assert_int_equal(raft.candidate_state.randomized_election_timeout, waits[i]);
		assert_false(raft.candidate_state.in_pre_vote);
		/* Nobody won this term: the next one is asked for first. */
		test_clock_advance(&tc, waits[i]);
		be.tick(&shim.io);
		assert_true(raft.candidate_state.in_pre_vote);
	}
	/* A leader was found: the count begins anew. */
	raft.state = RAFT_FOLLOWER;
	be.tick(&shim.io);
	raft.state = RAFT_CANDIDATE;
	raft.election_timer_start = clock_mono_ms();
	be.tick(&shim.io);
	assert_int_equal(raft.candidate_state.randomized_election_timeout, waits[0]);
}

/* Somebody stood for term 6 and failed; libraft still takes the leader of term 5 for ours. */
static void a_leader_of_an_earlier_term(void **state)
{
	struct raft_message a = {.type = RAFT_APPEND_ENTRIES, .server_id = 3};
	struct raft_message v = vote(1, 7, true);

	(void)state;
	a.append_entries.term = 5;
	be.recv(&shim.io, &a);
	raft.follower_state.current_leader.id = 3;
	be.recv(&shim.io, &v);
	assert_false(seen.disrupt);
	raft.current_term = 6;
	v.request_vote.disrupt_leader = false;
	be.recv(&shim.io, &v);
	assert_true(seen.disrupt);
}

static raft_id granted;

static void on_recv_stepping_down(struct raft_io *io, struct raft_message *m)
{
	(void)io;
	(void)m;
	raft.state = RAFT_FOLLOWER;
	raft.voted_for = granted;
}

/* A leader that gives way to a candidate it cannot vote for stands itself. */
static void taking_back(void **state)
{
	struct raft_message v = vote(1, 6, false);

	(void)state;
	shim.recv = on_recv_stepping_down;
	for (granted = 0; granted < 2; granted++) {
		raft.state = RAFT_LEADER;
		raft.election_timer_start = clock_mono_ms();
		be.recv(&shim.io, &v);
		be.tick(&shim.io);
		assert_int_equal(raft.election_timer_start, granted == 0 ? 0 : clock_mono_ms());
	}
	/* A follower does not. */
	granted = 0;
	raft.election_timer_start = clock_mono_ms();
	be.recv(&shim.io, &v);
	be.tick(&shim.io);
	assert_int_equal(raft.election_timer_start, clock_mono_ms());
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(votes_are_repeated),   T(results_are_repeated_thrice),
		T(followers_greet),      T(disrupting),
		T(an_early_vote),        T(a_race_waits),
		T(a_forced_election),    T(ranks),
		T(candidates_try_again), T(a_leader_of_an_earlier_term),
		T(taking_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
