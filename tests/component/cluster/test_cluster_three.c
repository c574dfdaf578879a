/* Three lighthouses: membership, forwarding, reads on followers, loss of the leader, snapshots, restarts. */
/* LIBS: cluster */
/* TIMEOUT: 180 */
#include "tests/component/cluster/nodes.h"

static struct nodes t;

static int setup(void **state)
{
	(void)state;
	nodes_setup(&t);
	nodes_start(&t, 0);
	NODES_WAIT(&t, nodes_leads(&t, 0));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	nodes_end(&t);
	return 0;
}

static void three(void)
{
	nodes_join(&t, 0);
	nodes_join(&t, 0);
}

static void each_writes_all_read(void **state)
{
	struct nodes_result r;

	(void)state;
	three();
	nodes_tailnet(&t, 0, "by-leader");
	nodes_tailnet(&t, 1, "by-one");
	r = nodes_tailnet(&t, 2, "by-two");
	/* The answer comes after the own apply. */
	assert_true(nodes_has_tailnet(&t, 2, "by-two"));
	for (size_t i = 0; i < 3; i++) {
		struct nodes_result read =
			nodes_read(&t, i,
				   (struct read_want){.level = READ_REVISION,
						      .epoch = nodes_view(&t, 0).epoch,
						      .revision = r.revision});

		assert_int_equal(read.err.code, 0);
		assert_true(nodes_has_tailnet(&t, i, "by-leader"));
		assert_true(nodes_has_tailnet(&t, i, "by-one"));
		assert_true(nodes_has_tailnet(&t, i, "by-two"));
	}
	NODES_WAIT(&t, nodes_agree(&t));
}

/* What one lighthouse has acknowledged, a leader-level read on any other sees. */
static void leader_reads(void **state)
{
	(void)state;
	three();
	for (int i = 0; i < 60; i++) {
		size_t writer = (size_t)i % 3, reader = (size_t)(i + 1 + i / 3) % 3;
		char name[32];

		snprintf(name, sizeof(name), "net-%d", i);
		nodes_tailnet(&t, writer, name);
		assert_int_equal(
			nodes_read(&t, reader, (struct read_want){.level = READ_LEADER}).err.code,
			0);
		assert_true(nodes_has_tailnet(&t, reader, name));
	}
}

/* Commands on their way while the leader dies: each is carried out once, and each answer is true. */
static void the_leader_dies(void **state)
{
	enum { N = 300 };
	static struct nodes_result r[N];
	uint64_t killed, slowest = 0;
	int accepted = 0, exists = 0;

	(void)state;
	memset(r, 0, sizeof(r));
	three();
	killed = t.node[0].id;
	for (int i = 0; i < N; i++) {
		char name[32];

		snprintf(name, sizeof(name), "net-%d", i);
		assert_ok(nodes_tailnet_create(&t, 1 + (size_t)i % 2, name, &r[i], NULL));
		if (i == N / 2) {
			struct loop_timer timer = {0};
			bool fired = false;

			loop_timer_start(&timer, t.front, 1, nodes_no_more, &fired);
			loop_turn(t.front, true);
			loop_timer_stop(&timer);
			nodes_kill(&t, 0);
			slowest = clock_mono_ms();
			link_leader_lost(t.node[1].c, killed);
			link_leader_lost(t.node[2].c, killed);
		}
	}
	for (int i = 0; i < N; i++) {
		NODES_WAIT(&t, r[i].done);
		assert_int_equal(r[i].times, 1);
		if (r[i].err.code != 0) {
			TEST_FAIL("command %d: %s", i, r[i].err.msg);
		}
		accepted += r[i].code == 0;
		exists += r[i].code == 6;
	}
	print_message("all %d commands answered %llu ms after the kill\n", N,
		      (unsigned long long)(clock_mono_ms() - slowest));
	/* Carried out twice would answer "exists" the second time. */
	assert_int_equal(accepted, N);
	assert_int_equal(exists, 0);
	/* The dead one comes back with all of it. */
	nodes_start(&t, 0);
	NODES_WAIT(&t, nodes_has_tailnet(&t, 0, "net-299") && nodes_agree(&t));
}

static atomic_uint_fast64_t ahead_ns;
static atomic_int_fast64_t wall_off_ms;

static uint64_t clock_ahead(void *arg)
{
	struct timespec ts;

	(void)arg;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec + atomic_load(&ahead_ns);
}

static int64_t clock_wall(void *arg)
{
	struct timespec ts;

	(void)arg;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000 + atomic_load(&wall_off_ms);
}

static const struct clock_source moved = {.mono_ns = clock_ahead, .wall_ms = clock_wall};

static void failover_is_fast(void **state)
{
	uint64_t ms[8];
	char text[128] = "";

	(void)state;
	three();
	for (size_t round = 0; round < ARRAY_LEN(ms); round++) {
		int leader;
		uint64_t id, begin;
		char name[32];

		NODES_WAIT(&t, nodes_leader_of(&t) >= 0 && nodes_agree(&t));
		leader = nodes_leader_of(&t);
		id = t.node[leader].id;
		snprintf(name, sizeof(name), "before-%zu", round);
		nodes_tailnet(&t, ((size_t)leader + 1) % 3, name);
		/* At most one forced race in 5 s: the clock is moved, not waited for. */
		atomic_fetch_add(&ahead_ns, 6000000000ull);
		nodes_kill(&t, (size_t)leader);
		begin = clock_mono_ms();
		for (size_t i = 0; i < 3; i++) {
			if (t.node[i].c != NULL) {
				link_leader_lost(t.node[i].c, id);
			}
		}
		snprintf(name, sizeof(name), "after-%zu", round);
		nodes_tailnet(&t, ((size_t)leader + 1) % 3, name);
		ms[round] = clock_mono_ms() - begin;
		snprintf(text + strlen(text), sizeof(text) - strlen(text), " %llu",
			 (unsigned long long)ms[round]);
		nodes_start(&t, (size_t)leader);
	}
	print_message("kill to next write, ms:%s\n", text);
}

static void a_newcomer_takes_a_snapshot(void **state)
{
	enum { N = 6000, BURST = 500 };
	static struct nodes_result r[BURST];

	(void)state;
	/* Restart with small snapshots. */
	nodes_stop(&t, 0);
	t.snapshot_bytes = 16 << 10;
	nodes_start(&t, 0);
	NODES_WAIT(&t, nodes_leads(&t, 0));
	nodes_tailnet(&t, 0, "old");
	for (int i = 0; i < N; i += BURST) {
		memset(r, 0, sizeof(r));
		for (int j = 0; j < BURST; j++) {
			assert_ok(nodes_marker(&t, 0, 1 + (uint64_t)j, &r[j], NULL));
		}
		for (int j = 0; j < BURST; j++) {
			NODES_WAIT(&t, r[j].done);
		}
	}
	for (int i = 0; i < 400; i++) {
		struct nodes_result one = {0};

		assert_ok(nodes_marker(&t, 0, 7, &one, NULL));
		NODES_WAIT(&t, one.done);
	}
	nodes_join(&t, 0);
	nodes_join(&t, 0);
	NODES_WAIT(&t, nodes_has_tailnet(&t, 1, "old") && nodes_has_tailnet(&t, 2, "old"));
	for (size_t i = 1; i < 3; i++) {
		struct {
			struct cluster *c;
			struct consensus_stats s;
		} a = {.c = t.node[i].c};

		cluster_call(a.c, nodes_stats_of, &a);
		assert_true(a.s.restores > 0);
	}
	NODES_WAIT(&t, nodes_agree(&t));
	nodes_tailnet(&t, 2, "new");
	NODES_WAIT(&t, nodes_agree(&t));
}

/* What is committed at once is applied a little at a time: the same state, the same answers, over restarts and snapshots. */
static void small_turns(void **state)
{
	enum { N = 400 };
	static struct nodes_result r[N];
	char name[32];

	(void)state;
	nodes_stop(&t, 0);
	t.apply_turn_ns = 1;
	t.snapshot_bytes = 16 << 10;
	nodes_start(&t, 0);
	NODES_WAIT(&t, nodes_leads(&t, 0));
	three();
	nodes_tailnet(&t, 0, "first");
	NODES_WAIT(&t, nodes_has_tailnet(&t, 2, "first"));
	/* One is away, and has a backlog when it comes back; then everybody starts with one. */
	nodes_kill(&t, 2);
	for (int i = 0; i < N; i++) {
		memset(&r[i], 0, sizeof(r[i]));
		snprintf(name, sizeof(name), "t-%d", i);
		assert_ok(nodes_tailnet_create(&t, (size_t)i % 2, name, &r[i], NULL));
		if (i % 8 == 7) {
			NODES_WAIT(&t, r[i].done);
		}
	}
	for (int i = 0; i < N; i++) {
		NODES_WAIT(&t, r[i].done);
		assert_int_equal(r[i].err.code, 0);
		assert_int_equal(r[i].code, 0);
		assert_int_equal(r[i].times, 1);
	}
	nodes_start(&t, 2);
	nodes_tailnet(&t, 2, "by-the-late-one");
	assert_true(nodes_has_tailnet(&t, 2, "t-399"));
	NODES_WAIT(&t, nodes_agree(&t));
	for (size_t i = 0; i < 3; i++) {
		nodes_kill(&t, i);
	}
	for (size_t i = 0; i < 3; i++) {
		nodes_start(&t, i);
	}
	nodes_tailnet(&t, 1, "again");
	NODES_WAIT(&t, nodes_agree(&t));
}

/* Without a majority: writes and leader reads end with a clear word, local reads go on. */
static void no_quorum(void **state)
{
	struct nodes_result r = {0};
	struct propose_options o = {.deadline_ms = 0};
	struct read_want w = {.level = READ_LEADER};

	(void)state;
	three();
	nodes_tailnet(&t, 0, "kept");
	NODES_WAIT(&t, nodes_agree(&t));
	nodes_kill(&t, 0);
	nodes_kill(&t, 1);
	(void)o;
	w.deadline_ms = clock_mono_ms() + 300;
	r = nodes_read(&t, 2, w);
	assert_int_equal(r.err.code, ERR_NO_QUORUM);
	assert_true(nodes_has_tailnet(&t, 2, "kept"));
	assert_int_equal(nodes_read(&t, 2, (struct read_want){.level = READ_LOCAL}).err.code, 0);
	nodes_start(&t, 0);
	nodes_tailnet(&t, 2, "again");
	nodes_start(&t, 1);
	NODES_WAIT(&t, nodes_has_tailnet(&t, 1, "again"));
}

/* A leader that is cut off learns it, and what it had not committed is proposed again. */
static void a_leader_is_cut_off(void **state)
{
	struct nodes_result r = {0};

	(void)state;
	three();
	assert_ok(nodes_tailnet_create(&t, 0, "first", &r, NULL));
	NODES_WAIT(&t, r.done);
	t.node[0].cut_off = true;
	nodes_cut_links(&t, &t.node[0]);
	memset(&r, 0, sizeof(r));
	assert_ok(nodes_tailnet_create(&t, 0, "cut", &r, NULL));
	NODES_WAIT(&t, nodes_leads(&t, 1) || nodes_leads(&t, 2));
	nodes_tailnet(&t, 1, "meanwhile");
	NODES_WAIT(&t, !nodes_leads(&t, 0));
	t.node[0].cut_off = false;
	NODES_WAIT(&t, r.done);
	assert_int_equal(r.err.code, 0);
	assert_int_equal(r.code, 0);
	assert_int_equal(r.times, 1);
	NODES_WAIT(&t, nodes_agree(&t));
}

static void a_planned_stop(void **state)
{
	uint64_t begin;

	(void)state;
	three();
	nodes_tailnet(&t, 1, "one");
	NODES_WAIT(&t, nodes_agree(&t));
	nodes_stop(&t, 0);
	begin = clock_mono_ms();
	nodes_tailnet(&t, 1, "two");
	print_message("planned stop to next write: %llu ms\n",
		      (unsigned long long)(clock_mono_ms() - begin));
	assert_true(clock_mono_ms() - begin < 10000);
	nodes_start(&t, 0);
	NODES_WAIT(&t, nodes_has_tailnet(&t, 0, "two"));
}

static void a_member_leaves(void **state)
{
	struct nodes_result r = {0};
	struct link_state s;

	(void)state;
	three();
	link_remove(t.node[0].c, t.front, t.node[2].id, nodes_on_change, &r);
	NODES_WAIT(&t, r.done);
	assert_int_equal(r.err.code, 0);
	link_state(t.node[0].c, &s);
	assert_int_equal(s.n, 2);
	memset(&r, 0, sizeof(r));
	/* Not the leader: refused. */
	link_remove(t.node[1].c, t.front, t.node[2].id, nodes_on_change, &r);
	NODES_WAIT(&t, r.done);
	assert_int_equal(r.err.code, ERR_NOT_LEADER);
	nodes_tailnet(&t, 1, "two-left");
}

/* State time goes by the leader's clock, but no jump of it is believed before a majority's clocks agree. */
static void time_steps(void **state)
{
	enum { HOUR_MS = 3600 * 1000, STEP_MS = 10000, SLACK_MS = 5000 };
	struct nodes_result r = {0};
	uint64_t before, after;

	(void)state;
	three();
	before = nodes_view(&t, 0).time_ms;
	atomic_store(&wall_off_ms, HOUR_MS);
	assert_ok(nodes_marker(&t, 0, 1, &r, NULL));
	NODES_WAIT(&t, r.done);
	after = nodes_view(&t, 0).time_ms;
	assert_true(after - before >= STEP_MS && after - before < STEP_MS + SLACK_MS);
	/* Nor does it get there in small steps. */
	for (int i = 0; i < 20; i++) {
		memset(&r, 0, sizeof(r));
		assert_ok(nodes_marker(&t, 0, 1, &r, NULL));
		NODES_WAIT(&t, r.done);
	}
	after = nodes_view(&t, 0).time_ms;
	assert_true(after - before < STEP_MS + SLACK_MS);

	link_clocks_agree(t.node[0].c, true, clock_skew_ms());
	memset(&r, 0, sizeof(r));
	assert_ok(nodes_marker(&t, 0, 2, &r, NULL));
	NODES_WAIT(&t, r.done);
	after = nodes_view(&t, 0).time_ms;
	assert_true(after - before >= HOUR_MS);

	/* A clock that is set after it was compared with the others' is not believed either. */
	before = after;
	atomic_store(&wall_off_ms, 3 * HOUR_MS);
	memset(&r, 0, sizeof(r));
	assert_ok(nodes_marker(&t, 0, 3, &r, NULL));
	NODES_WAIT(&t, r.done);
	after = nodes_view(&t, 0).time_ms;
	assert_true(after - before < STEP_MS + SLACK_MS);

	/* It never falls. */
	atomic_store(&wall_off_ms, 0);
	memset(&r, 0, sizeof(r));
	assert_ok(nodes_marker(&t, 0, 4, &r, NULL));
	NODES_WAIT(&t, r.done);
	assert_int_equal(nodes_view(&t, 0).time_ms, after);
}

static void digests_at_a_marker(void **state)
{
	struct nodes_result r = {0};
	uint8_t d[3][32];
	uint64_t rev[3];

	(void)state;
	three();
	nodes_tailnet(&t, 1, "one");
	assert_ok(nodes_marker(&t, 1, 4711, &r, NULL));
	nodes_tailnet(&t, 2, "two");
	for (size_t i = 0; i < 3; i++) {
		NODES_WAIT(&t, link_digest(t.node[i].c, 4711, d[i], &rev[i]) == 0);
		assert_memory_equal(d[0], d[i], 32);
		assert_int_equal(rev[0], rev[i]);
	}
	assert_err(link_digest(t.node[0].c, 1, d[0], &rev[0]), ERR_NOT_FOUND);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(each_writes_all_read),
		T(leader_reads),
		T(the_leader_dies),
		T(failover_is_fast),
		T(a_newcomer_takes_a_snapshot),
		T(small_turns),
		T(no_quorum),
		T(a_leader_is_cut_off),
		T(a_planned_stop),
		T(a_member_leaves),
		T(time_steps),
		T(digests_at_a_marker),
	};

	crypto_init();
	clock_override(&moved);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
