/* A cluster of one: init, open, write, read at each level, restart, limits, rebuild. */
/* LIBS: cluster */
#include "base/clock.h"
#include "base/fileio.h"
#include "tests/component/cluster/nodes.h"

#include "cluster/consensus_int.h"

static struct nodes t;

#define shell(...)                                    \
	do {                                          \
		char *cmd_ = mem_printf(__VA_ARGS__); \
		assert_int_equal(system(cmd_), 0);    \
		mem_free(cmd_);                       \
	} while (0)

static int setup(void **state)
{
	(void)state;
	nodes_setup(&t);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	nodes_end(&t);
	return 0;
}

static void init_open_write_restart(void **state)
{
	struct state_view before, after;
	struct nodes_result r;

	(void)state;
	nodes_start(&t, 0);
	r = nodes_tailnet(&t, 0, "first");
	assert_true(r.revision > 0);
	assert_true(nodes_has_tailnet(&t, 0, "first"));
	NODES_WAIT(&t, nodes_view(&t, 0).revision >= r.revision + 0);
	nodes_stop(&t, 0);
	nodes_start(&t, 0);
	NODES_WAIT(&t, nodes_leads(&t, 0));
	assert_true(nodes_has_tailnet(&t, 0, "first"));
	nodes_tailnet(&t, 0, "second");
	before = nodes_view(&t, 0);
	/* Killed: the log has it, whatever the store has. */
	nodes_kill(&t, 0);
	nodes_start(&t, 0);
	NODES_WAIT(&t, nodes_has_tailnet(&t, 0, "second"));
	after = nodes_view(&t, 0);
	assert_int_equal(before.epoch, after.epoch);
	assert_true(after.revision >= before.revision);
}

static void a_directory_is_used_once(void **state)
{
	struct cluster_init_options io = {.dir = t.node[0].dir,
					  .name = "one",
					  .cluster_name = "test",
					  .peer_address = "a:1",
					  .api_url = "https://a:2"};
	struct cluster_options o = {.dir = t.node[0].dir};
	struct cluster *c;
	struct err err = {0};
	char *recovery;
	char empty[TEST_DIR + 8];

	(void)state;
	assert_err(cluster_init(&io, &recovery, &err), ERR_EXISTS);
	assert_contains(err.msg, "already holds a lighthouse");
	nodes_start(&t, 0);
	assert_true(cluster_prepare(&c, &o, &err) < 0); /* locked */
	snprintf(empty, sizeof(empty), "%s/none", t.dir);
	assert_int_equal(mkdir(empty, 0700), 0);
	o.dir = empty;
	assert_err(cluster_prepare(&c, &o, &err), ERR_PRECONDITION);
}

static void a_refused_init_leaves_nothing(void **state)
{
	char dir[TEST_DIR + 8];
	struct cluster_init_options io = {.dir = dir,
					  .name = "one",
					  .cluster_name = "test",
					  .base_domain = "a..b",
					  .peer_address = "a:1",
					  .api_url = "https://a:2"};
	struct err err = {0};
	char *recovery;

	(void)state;
	snprintf(dir, sizeof(dir), "%s/new", t.dir);
	assert_err(cluster_init(&io, &recovery, &err), ERR_INVALID);
	assert_contains(err.msg, "base domain");
	assert_false(file_exists(dir));
	/* One that was there stays, empty. */
	assert_int_equal(mkdir(dir, 0700), 0);
	assert_err(cluster_init(&io, &recovery, &err), ERR_INVALID);
	assert_int_equal(rmdir(dir), 0);
	io.base_domain = NULL;
	assert_ok(cluster_init(&io, &recovery, &err));
	mem_free(recovery);
}

static void a_wide_directory_is_refused(void **state)
{
	struct cluster_options o = {.dir = t.node[0].dir};
	struct cluster *c;
	struct err err = {0};

	(void)state;
	assert_int_equal(chmod(t.node[0].dir, 0750), 0);
	assert_err(cluster_prepare(&c, &o, &err), ERR_PRECONDITION);
	assert_contains(err.msg, "chmod");
	assert_int_equal(chmod(t.node[0].dir, 0700), 0);
}

static void reads(void **state)
{
	struct nodes_result r;
	struct state_view v;

	(void)state;
	nodes_start(&t, 0);
	r = nodes_tailnet(&t, 0, "first");
	v = nodes_view(&t, 0);
	assert_int_equal(nodes_read(&t, 0, (struct read_want){.level = READ_LOCAL}).err.code, 0);
	assert_int_equal(nodes_read(&t, 0, (struct read_want){.level = READ_LEADER}).err.code, 0);
	assert_int_equal(nodes_read(&t, 0,
				    (struct read_want){.level = READ_REVISION,
						       .epoch = v.epoch,
						       .revision = r.revision})
				 .err.code,
			 0);
	r = nodes_read(&t, 0, (struct read_want){.level = READ_REVISION, .epoch = v.epoch + 1});
	assert_int_equal(r.err.code, ERR_PRECONDITION);
	assert_string_equal(r.err.reason, "EPOCH_CHANGED");
	r = nodes_read(&t, 0,
		       (struct read_want){.level = READ_REVISION,
					  .epoch = v.epoch,
					  .revision = v.revision + 1000,
					  .deadline_ms = clock_mono_ms() + 60});
	assert_int_equal(r.err.code, ERR_DEADLINE);
}

static void groups(void **state)
{
	enum { N = 1000 };
	static struct nodes_result r[N];
	struct {
		struct cluster *c;
		struct consensus_stats s;
	} before, after;
	size_t done = 0;

	(void)state;
	memset(r, 0, sizeof(r));
	nodes_start(&t, 0);
	nodes_tailnet(&t, 0, "warm");
	before.c = after.c = t.node[0].c;
	cluster_call(t.node[0].c, nodes_stats_of, &before);
	for (int i = 0; i < N; i++) {
		char name[32];

		snprintf(name, sizeof(name), "net-%d", i);
		assert_ok(nodes_tailnet_create(&t, 0, name, &r[i], NULL));
	}
	for (int i = 0; i < N; i++) {
		NODES_WAIT(&t, r[i].done);
		assert_int_equal(r[i].err.code, 0);
		assert_int_equal(r[i].code, 0);
		assert_int_equal(r[i].times, 1);
		done++;
	}
	cluster_call(t.node[0].c, nodes_stats_of, &after);
	assert_int_equal(after.s.commands - before.s.commands >= N, 1);
	print_message("%zu commands in %llu groups\n", done,
		      (unsigned long long)(after.s.groups - before.s.groups));
	assert_true(after.s.groups - before.s.groups < N / 4);
	/* All that wait share an entry: many reads, few groups. */
	before = after;
	memset(r, 0, sizeof(r));
	for (int i = 0; i < N; i++) {
		struct read_want w = {.level = READ_LEADER,
				      .deadline_ms = clock_mono_ms() + NODES_WAIT_MS};

		assert_ok(cluster_read_wait(t.node[0].c, t.front, &w, nodes_on_read_done, &r[i],
					    NULL));
	}
	for (int i = 0; i < N; i++) {
		NODES_WAIT(&t, r[i].done);
		assert_int_equal(r[i].err.code, 0);
	}
	cluster_call(t.node[0].c, nodes_stats_of, &after);
	assert_true(after.s.groups - before.s.groups < N / 4);
}

static void queue_limits(void **state)
{
	enum { SHARE = LIM_CMD_QUEUE_ITEMS / LIM_CMD_QUEUE_TAILNET_SHARE };
	static struct nodes_result r[SHARE + 1];
	struct err err = {0};
	int refused = 0;

	(void)state;
	memset(r, 0, sizeof(r));
	nodes_start(&t, 0);
	nodes_tailnet(&t, 0, "warm");
	/* The raft thread is held up, so that everything waits. */
	pthread_mutex_lock(&t.node[0].c->seen_lock);
	for (int i = 0; i <= SHARE; i++) {
		int rc = nodes_marker(&t, 0, 1 + (uint64_t)i, &r[i], &err);

		if (rc != 0) {
			assert_int_equal(rc, ERR_LIMIT);
			assert_string_equal(err.reason, "QUEUE_FULL");
			r[i].done = true;
			refused++;
		}
	}
	pthread_mutex_unlock(&t.node[0].c->seen_lock);
	for (int i = 0; i <= SHARE; i++) {
		NODES_WAIT(&t, r[i].done);
	}
	assert_int_equal(refused, 1);
	nodes_tailnet(&t, 0, "room-again");
}

static void too_long(void **state)
{
	Skerry__Internal__V1__SecretPut body = SKERRY__INTERNAL__V1__SECRET_PUT__INIT;
	SealedSecret secret = SKERRY__INTERNAL__V1__SEALED_SECRET__INIT;
	Command cmd = SKERRY__INTERNAL__V1__COMMAND__INIT;
	struct nodes_result r = {0};
	struct err err = {0};

	(void)state;
	nodes_start(&t, 0);
	secret.name = (char *)"big";
	secret.box.len = LIM_COMMAND_BYTES;
	secret.box.data = mem_zalloc(secret.box.len);
	body.secret = &secret;
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_SECRET_PUT;
	cmd.secret_put = &body;
	assert_err(cluster_propose(t.node[0].c, t.front, &cmd, NULL, nodes_on_result, &r, &err),
		   ERR_LIMIT);
	mem_free(secret.box.data);
}

static void precheck(void **state)
{
	Skerry__Internal__V1__TailnetCreate body = SKERRY__INTERNAL__V1__TAILNET_CREATE__INIT;
	Command cmd = SKERRY__INTERNAL__V1__COMMAND__INIT;
	struct state_view before;
	struct arena arena;
	struct err err = {0};

	(void)state;
	nodes_start(&t, 0);
	nodes_tailnet(&t, 0, "taken");
	before = nodes_view(&t, 0);
	arena_init(&arena, 16 << 20);
	body.name = (char *)"taken";
	body.user_name = (char *)"admin";
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_TAILNET_CREATE;
	cmd.tailnet_create = &body;
	assert_int_equal(cluster_precheck(t.node[0].c, &cmd, &arena, &err), 6);
	assert_int_equal(err.code, ERR_EXISTS);
	body.name = (char *)"free";
	assert_int_equal(cluster_precheck(t.node[0].c, &cmd, &arena, &err), 0);
	arena_done(&arena);
	assert_false(nodes_has_tailnet(&t, 0, "free"));
	assert_memory_equal(before.digest, nodes_view(&t, 0).digest, 32);
}

static pthread_t ahead;

static uint64_t real_mono_ns(void *arg)
{
	struct timespec ts;

	(void)arg;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* A day ahead on the thread that asks, so that the log's time stays what it is. */
static int64_t wall_ahead(void *arg)
{
	struct timespec ts;

	(void)arg;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 +
	       (pthread_equal(pthread_self(), ahead) ? 24ll * 3600 * 1000 : 0);
}

/* By a lighthouse whose clock is ahead, a request that is repeated is not taken for a new one. */
static void precheck_clock(void **state)
{
	static const struct clock_source source = {real_mono_ns, wall_ahead, NULL};
	Skerry__Internal__V1__TailnetCreate body = SKERRY__INTERNAL__V1__TAILNET_CREATE__INIT;
	Command cmd = SKERRY__INTERNAL__V1__COMMAND__INIT;
	uint8_t hash[32] = {1};
	struct nodes_result r = {0};
	struct arena arena;
	struct err err = {0};

	(void)state;
	nodes_start(&t, 0);
	body.name = (char *)"once";
	body.user_name = (char *)"admin";
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_TAILNET_CREATE;
	cmd.tailnet_create = &body;
	cmd.caller = (char *)"api-key:1";
	cmd.request_id = (char *)"r1";
	cmd.request_hash = (ProtobufCBinaryData){.data = hash, .len = sizeof(hash)};
	assert_ok(cluster_propose(t.node[0].c, t.front, &cmd, NULL, nodes_on_result, &r, &err));
	NODES_WAIT(&t, r.done);
	assert_true(nodes_has_tailnet(&t, 0, "once"));
	arena_init(&arena, 16 << 20);
	ahead = pthread_self();
	clock_override(&source);
	assert_int_equal(cluster_precheck(t.node[0].c, &cmd, &arena, &err), 0);
	clock_override(NULL);
	arena_done(&arena);
}

static int seen_changes;
static uint64_t seen_revision;

static void on_changes(void *arg, const struct cluster_changes *ch)
{
	(void)arg;
	assert_true(ch->reset || ch->revision > seen_revision);
	seen_revision = ch->revision;
	for (size_t i = 0; i < ch->n; i++) {
		seen_changes++;
		assert_true(ch->change[i].revision <= ch->revision);
	}
}

static void changes(void **state)
{
	struct nodes_result r;

	(void)state;
	seen_changes = 0;
	seen_revision = 0;
	nodes_start(&t, 0);
	cluster_subscribe(t.node[0].c, t.front, on_changes, NULL);
	r = nodes_tailnet(&t, 0, "one");
	NODES_WAIT(&t, seen_revision >= r.revision);
	assert_true(seen_changes > 0);
}

/* ---- fullness ---- */

static void fill_state(void *arg)
{
	struct cluster *c = arg;

	c->cs->view.bytes = LIM_STATE_BYTES + 1;
}

static void fill_disk(void *arg)
{
	struct cluster *c = arg;

	c->disk_low = true;
}

static void full(void **state)
{
	static const struct {
		void (*fill)(void *arg);
		const char *reason;
	} cases[] = {{fill_state, "STATE_FULL"}, {fill_disk, "DISK_FULL"}};

	(void)state;
	nodes_start(&t, 0);
	nodes_tailnet(&t, 0, "there");
	TEST_TABLE(c, cases)
	{
		struct nodes_result r = {0};

		cluster_call(t.node[0].c, c->fill, t.node[0].c);
		assert_ok(nodes_tailnet_create(&t, 0, "more", &r, NULL));
		NODES_WAIT(&t, r.done);
		assert_int_equal(r.err.code, ERR_LIMIT);
		assert_string_equal(r.err.reason, c->reason);
		/* What does not make it grow is taken. */
		cluster_call(t.node[0].c, c->fill, t.node[0].c);
		memset(&r, 0, sizeof(r));
		assert_ok(nodes_marker(&t, 0, 1, &r, NULL));
		NODES_WAIT(&t, r.done);
		assert_int_equal(r.err.code, 0);
	}
}

/* ---- sessions ---- */

static void sessions(void **state)
{
	static const struct session_event events[] = {
		{.tailnet = 1, .node = 50, .session = 5, .instance_id = "a"},
		{.tailnet = 1, .node = 51, .session = 9, .instance_id = "b"},
		{.tailnet = 1, .node = 50, .session = 4, .detach = true}, /* of an older session */
		{.tailnet = 1, .node = 51, .session = 9, .detach = true, .clean = true},
	};
	struct nodes_result r[ARRAY_LEN(events)] = {0};
	struct {
		struct cluster *c;
		struct consensus_stats s;
	} before, after;

	(void)state;
	nodes_start(&t, 0);
	nodes_tailnet(&t, 0, "warm");
	before.c = after.c = t.node[0].c;
	cluster_call(before.c, nodes_stats_of, &before);
	for (size_t i = 0; i < ARRAY_LEN(events); i++) {
		assert_ok(cluster_session(t.node[0].c, t.front, &events[i], nodes_on_result, &r[i],
					  NULL));
	}
	for (size_t i = 0; i < ARRAY_LEN(events); i++) {
		NODES_WAIT(&t, r[i].done);
		assert_int_equal(r[i].err.code, 0);
		assert_int_equal(r[i].times, 1);
	}
	/* One command for all of the turn. */
	cluster_call(after.c, nodes_stats_of, &after);
	assert_int_equal(after.s.commands - before.s.commands, 1);
}

/* The store is lost: it comes back from snapshot and log, the same. */
static void rebuild(void **state)
{
	enum { N = 10000, BURST = 500 };
	static struct nodes_result r[BURST];
	struct state_view before;

	(void)state;
	t.snapshot_bytes = 64 << 10;
	nodes_start(&t, 0);
	for (int i = 0; i < 20; i++) {
		char name[32];

		snprintf(name, sizeof(name), "net-%d", i);
		nodes_tailnet(&t, 0, name);
	}
	/* Much log, little state. */
	for (int i = 0; i < N; i += BURST) {
		memset(r, 0, sizeof(r));
		for (int j = 0; j < BURST; j++) {
			assert_ok(nodes_marker(&t, 0, 1 + (uint64_t)j, &r[j], NULL));
		}
		for (int j = 0; j < BURST; j++) {
			NODES_WAIT(&t, r[j].done);
			assert_int_equal(r[j].err.code, 0);
		}
	}
	{
		struct {
			struct cluster *c;
			struct consensus_stats s;
		} a = {.c = t.node[0].c};

		/* They are made beside the writes, at their own pace. */
		NODES_WAIT(&t, (cluster_call(t.node[0].c, nodes_stats_of, &a), a.s.snapshots > 0));
	}
	before = nodes_view(&t, 0);
	nodes_stop(&t, 0);
	shell("rm -rf %s/store", t.node[0].dir);
	nodes_start(&t, 0);
	NODES_WAIT(&t, nodes_view(&t, 0).revision >= before.revision);
	assert_true(nodes_has_tailnet(&t, 0, "net-0"));
	assert_true(nodes_has_tailnet(&t, 0, "net-19"));
	{
		struct cluster_read *read;
		struct err err = {0};

		assert_ok(cluster_read_begin(t.node[0].c, "test", &read, NULL));
		if (tailnet_check(cluster_read_kv(read), &err) != 0) {
			TEST_FAIL("%s", err.msg);
		}
		cluster_read_end(read);
	}
}

/* A log that is older than the store: a copy put back in parts. */
static void an_older_log(void **state)
{
	struct cluster_options o = {.dir = t.node[0].dir};
	struct cluster *c;
	struct err err = {0};

	(void)state;
	shell("cp -a %s/raft %s/raft.old", t.node[0].dir, t.node[0].dir);
	nodes_start(&t, 0);
	nodes_tailnet(&t, 0, "late");
	nodes_stop(&t, 0);
	shell("rm -rf %s/raft && mv %s/raft.old %s/raft", t.node[0].dir, t.node[0].dir,
	      t.node[0].dir);
	assert_err(cluster_prepare(&c, &o, &err), ERR_CORRUPT);
	assert_contains(err.msg, "older copy");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(init_open_write_restart),
		T(a_directory_is_used_once),
		T(a_refused_init_leaves_nothing),
		T(a_wide_directory_is_refused),
		T(reads),
		T(groups),
		T(queue_limits),
		T(too_long),
		T(precheck),
		T(precheck_clock),
		T(changes),
		T(full),
		T(sessions),
		T(rebuild),
		T(an_older_log),
	};

	crypto_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
