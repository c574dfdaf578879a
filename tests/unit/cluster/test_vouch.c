/* A leader that is not heard: when it says that it leads, and what that is good for. */
/* LIBS: cluster */
#include "tests/unit/cluster/shim_back.h"

#include "cluster/vouch.h"

enum { ET = 1000 };

/* ---- whether it holds its quorum ---- */

static void the_quorum(void **state)
{
	static const struct {
		size_t n; /* of other voters */
		/* How long ago; 0: never. */
		unsigned acked[4], asked[4];
		bool holds;
	} cases[] = {
		{0, {0}, {0}, true},                    /* alone */
		{2, {999, 0}, {0}, true},               /* one of two answers */
		{2, {ET, 0}, {0}, false},               /* not any more */
		{2, {ET, ET}, {0}, false},              /* neither does */
		{2, {1999, 0}, {50, 0}, true},          /* but asks */
		{2, {1999, 0}, {ET, 0}, false},         /* it did */
		{2, {2 * ET, 2 * ET}, {50, 50}, false}, /* for too long without a word of raft */
		{2, {0, 1500}, {50, 0}, true},          /* who asks, and who answered */
		{2, {0, 0}, {50, 50}, false},           /* nobody ever answered in this term */
		{4, {10, 0, 0, 0}, {0}, false},         /* two of five */
		{4, {10, 0, 10, 0}, {0}, true},         /* three */
		{4, {10, 1500, 0, 0}, {0, 0, 50, 0}, true}, /* three with who asks */
		{1, {0}, {50}, false},                      /* two voters need both */
		{1, {1500}, {50}, true},
		{3, {10, 0, 0}, {0}, false}, /* two of four are no majority */
		{3, {10, 10, 0}, {0}, true},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		struct vouch_voter v[4] = {0};

		for (size_t i = 0; i < c->n; i++) {
			v[i].acked_ms = c->acked[i] != 0 ? 100000 - c->acked[i] : 0;
			v[i].asked_ms = c->asked[i] != 0 ? 100000 - c->asked[i] : 0;
		}
		if (vouch_holds(v, c->n, 100000, ET) != c->holds) {
			TEST_FAIL("case %zu", (size_t)(c - cases));
		}
	}
}

/* ---- a follower ---- */

static struct raft_server servers[] = {
	{1, "one:1", RAFT_VOTER},
	{2, "two:1", RAFT_VOTER},
	{3, "three:1", RAFT_VOTER},
};

/* The leader 3 was heard just now. */
static int follows(void **state)
{
	struct raft_message m = {.type = RAFT_APPEND_ENTRIES, .server_id = 3};

	setup(state);
	servers[0].role = RAFT_VOTER;
	raft.id = 1;
	raft.configuration.servers = servers;
	raft.configuration.n = ARRAY_LEN(servers);
	raft.follower_state.current_leader.id = 3;
	m.append_entries.term = 5;
	be.recv(&shim.io, &m);
	raft.election_timer_start = clock_mono_ms();
	return 0;
}

static int follows_no_more(void **state)
{
	for (size_t i = 0; i < be.n_sent; i++) {
		be.send_cb[i](be.send[i], RAFT_CANCELED); /* greetings, mostly */
	}
	be.n_sent = 0;
	raft.configuration.n = 0;
	return teardown(state);
}

static bool silent_after(uint64_t ms)
{
	test_clock_advance(&tc, ms);
	be.tick(&shim.io);
	return timing_silent(&shim);
}

static void it_is_asked(void **state)
{
	(void)state;
	assert_false(silent_after(0));
	assert_false(silent_after(ET * TIMING_SILENT_PERCENT / 100 - 1));
	assert_true(silent_after(1));
	assert_false(timing_silent(&shim)); /* once */
	assert_false(silent_after(VOUCH_EVERY_MS - 1));
	assert_true(silent_after(1));
	assert_true(silent_after(VOUCH_EVERY_MS));
}

static void who_is_not_asked(void **state)
{
	(void)state;
	shim.lost_leader = 3; /* its process is gone */
	assert_false(silent_after(ET));
	shim.lost_leader = 0;
	raft.follower_state.current_leader.id = 0; /* nobody leads */
	assert_false(silent_after(ET));
	raft.follower_state.current_leader.id = 3;
	raft.state = RAFT_CANDIDATE; /* we stand already */
	assert_false(silent_after(ET));
	raft.state = RAFT_FOLLOWER;
	servers[0].role = RAFT_STANDBY; /* we never do */
	assert_false(silent_after(ET));
	servers[0].role = RAFT_VOTER;
	assert_true(silent_after(ET));
}

/* When this lighthouse stands, as of the last word of the leader. */
static uint64_t stands(uint64_t heard_ms)
{
	return raft.election_timer_start + ET - heard_ms;
}

static void it_stands_later(void **state)
{
	static const struct {
		uint64_t asked, answered, stands;
	} cases[] = {
		{310, 320, 1310}, /* as if it had been heard */
		{600, 950, 1600}, /* when it was asked, not when it answered */
		{990, 999, 1990},   {1000, 1005, 2000}, /* the longest time without raft */
		{1400, 1410, 2000}, {1990, 1999, 2000},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		uint64_t heard = shim.heard_ms = clock_mono_ms();

		raft.election_timer_start = heard;
		test_clock_advance(&tc, c->answered);
		timing_vouched(&shim, 3, 5, heard + c->asked);
		assert_int_equal(stands(heard), c->stands);
		/* An answer to an older question takes nothing back. */
		timing_vouched(&shim, 3, 5, heard + c->asked - 100);
		assert_int_equal(stands(heard), c->stands);
	}
}

static void an_answer_that_says_nothing(void **state)
{
	uint64_t heard = shim.heard_ms;

	(void)state;
	test_clock_advance(&tc, 900);
	timing_vouched(&shim, 2, 5, heard + 890); /* another one */
	timing_vouched(&shim, 3, 4, heard + 890); /* of another term */
	timing_vouched(&shim, 3, 6, heard + 890);
	timing_vouched(&shim, 3, 5, heard - 10); /* older than what was heard */
	shim.lost_leader = 3;
	timing_vouched(&shim, 3, 5, heard + 890); /* the process that said it is gone */
	shim.lost_leader = 0;
	raft.state = RAFT_CANDIDATE;
	timing_vouched(&shim, 3, 5, heard + 890); /* too late */
	raft.state = RAFT_FOLLOWER;
	assert_int_equal(stands(heard), ET);
	test_clock_advance(&tc, 1100 + 1);
	timing_vouched(&shim, 3, 5, clock_mono_ms()); /* for twice the timeout without a word */
	assert_int_equal(stands(heard), ET);
}

/* While it stands later it refuses others, too. */
static void others_are_refused_meanwhile(void **state)
{
	struct raft_message m = {.type = RAFT_REQUEST_VOTE, .server_id = 2};

	(void)state;
	m.request_vote.term = 6;
	m.request_vote.pre_vote = true;
	m.server_address = "two:1";
	test_clock_advance(&tc, 1050);
	timing_vouched(&shim, 3, 5, clock_mono_ms() - 10);
	be.recv(&shim.io, &m);
	assert_false(seen.disrupt);
	test_clock_advance(&tc, 950); /* it ended by the longest time without raft */
	m.request_vote.disrupt_leader = false;
	be.recv(&shim.io, &m);
	assert_true(seen.disrupt);
}

/* ---- a leader ---- */

static int leads(void **state)
{
	follows(state);
	raft.state = RAFT_LEADER;
	raft.id = 3;
	for (raft_id id = 1; id <= 2; id++) {
		struct raft_message m = {.type = RAFT_APPEND_ENTRIES, .server_id = id};

		m.append_entries.term = 5;
		assert_int_equal(shim.io.send(&shim.io, &sreq[id], &m, on_sent), 0);
	}
	return 0;
}

static void answer(raft_id id)
{
	struct raft_message m = {.type = RAFT_APPEND_ENTRIES_RESULT, .server_id = id};

	m.append_entries_result.term = 5;
	be.recv(&shim.io, &m);
}

/* Whether libraft, which looks after an election timeout, looks with this tick. */
static bool looks(void)
{
	be.tick(&shim.io);
	return clock_mono_ms() - raft.election_timer_start >= ET;
}

static void a_leader_goes_on(void **state)
{
	(void)state;
	answer(1);
	assert_int_equal(timing_acked(&shim, 1), clock_mono_ms());
	assert_int_equal(timing_acked(&shim, 2), 0);
	assert_int_equal(timing_acked(&shim, 3), 0); /* itself */
	raft.election_timer_start = clock_mono_ms() + 1;
	test_clock_advance(&tc, 1001);
	/* Nobody answered since it looked last, and nobody asks. */
	assert_true(looks());
	/* One of the two is with it. */
	timing_asked(&shim, 1, 4); /* in another term */
	assert_true(looks());
	timing_asked(&shim, 1, 5);
	assert_false(looks());
	test_clock_advance(&tc, 900);
	assert_false(looks());
	/* For twice the timeout without an answer: it ends as it would have. */
	timing_asked(&shim, 1, 5);
	timing_asked(&shim, 2, 5);
	test_clock_advance(&tc, 99);
	assert_true(looks());
}

/* Who is answered is looked at by libraft. */
static void a_leader_that_is_heard(void **state)
{
	(void)state;
	answer(1);
	timing_asked(&shim, 1, 5);
	raft.election_timer_start = clock_mono_ms();
	test_clock_advance(&tc, ET);
	assert_true(looks());
}

int main(void)
{
#define F(f) cmocka_unit_test_setup_teardown(f, follows, follows_no_more)
#define L(f) cmocka_unit_test_setup_teardown(f, leads, follows_no_more)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_quorum),
		F(it_is_asked),
		F(who_is_not_asked),
		F(it_stands_later),
		F(an_answer_that_says_nothing),
		F(others_are_refused_meanwhile),
		L(a_leader_goes_on),
		L(a_leader_that_is_heard),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
