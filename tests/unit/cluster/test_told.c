/* What a follower is told of commits by answers: when it counts, and when it must not. */
/* LIBS: cluster */
#include "tests/lib/test.h"

#include "cluster/raft_shim.h"

static struct {
	int n;
	struct raft_append_entries last;
	raft_id from;
	int sent, answered;
} seen;

static struct raft_shim shim;
static struct raft raft;
static raft_io_recv_cb back_end;
static bool refuse;

static int be_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *message,
		   raft_io_send_cb cb)
{
	(void)io;
	(void)req;
	(void)message;
	(void)cb;
	seen.sent++;
	return 0;
}

static void on_sent(struct raft_io_send *req, int status)
{
	(void)req;
	(void)status;
	seen.answered++;
}

static int be_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
	(void)io;
	(void)msecs;
	(void)tick;
	back_end = recv;
	return 0;
}

static raft_time be_time(struct raft_io *io)
{
	(void)io;
	return 0;
}

/* libraft: takes entries unless told otherwise, commits what the leader says and it has, and answers. */
static void on_recv(struct raft_io *io, struct raft_message *m)
{
	static struct raft_io_send req;
	struct raft_message answer = {.type = RAFT_APPEND_ENTRIES_RESULT, .server_address = "l:1"};
	const struct raft_append_entries *a = &m->append_entries;
	raft_index last = a->prev_log_index + a->n_entries;

	seen.n++;
	seen.last = *a;
	seen.from = m->server_id;
	raft.election_timer_start = 7777;
	if (!refuse) {
		raft.follower_state.match = MAX(raft.follower_state.match, last);
		if (a->leader_commit > raft.commit_index) {
			raft.commit_index = MIN(a->leader_commit, last);
		}
	}
	assert_int_equal(io->send(io, &req, &answer, on_sent), 0);
}

static void on_tick(struct raft_io *io)
{
	(void)io;
}

static int setup(void **state)
{
	(void)state;
	memset(&seen, 0, sizeof(seen));
	memset(&shim, 0, sizeof(shim));
	memset(&raft, 0, sizeof(raft));
	refuse = false;
	shim.io.send = be_send;
	shim.io.start = be_start;
	shim.io.time = be_time;
	raft.state = RAFT_FOLLOWER;
	raft.current_term = 5;
	raft.commit_index = 10;
	raft.election_timer_start = 1234;
	raft.follower_state.current_leader.id = 9;
	raft.follower_state.current_leader.address = (char *)"l:1";
	raft_shim_install(&shim, &raft, 20);
	assert_int_equal(shim.io.start(&shim.io, 100, on_tick, on_recv), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	raft_shim_done(&shim);
	return 0;
}

/* The leader sends `n` entries of its term after `prev`. */
static void append(raft_term term, raft_index prev, unsigned n, raft_index commit)
{
	struct raft_entry e[4] = {0};
	struct raft_message m = {
		.type = RAFT_APPEND_ENTRIES, .server_id = 9, .server_address = "l:1"};

	for (unsigned i = 0; i < n; i++) {
		e[i].type = RAFT_COMMAND;
		e[i].term = term;
	}
	m.append_entries = (struct raft_append_entries){.term = term,
							.prev_log_index = prev,
							.prev_log_term = 4,
							.leader_commit = commit,
							.entries = e,
							.n_entries = n};
	back_end(&shim.io, &m);
}

static void an_answer_commits(void **state)
{
	(void)state;
	append(5, 10, 2, 10);
	assert_int_equal(raft.commit_index, 10);
	assert_int_equal(seen.sent, 1);
	raft.election_timer_start = 1234;

	told_commit(&shim, 5, 11);
	assert_int_equal(raft.commit_index, 11);
	assert_int_equal(seen.n, 2);
	assert_int_equal(seen.from, 9);
	assert_int_equal(seen.last.prev_log_index, 12);
	assert_int_equal(seen.last.prev_log_term, 5);
	assert_int_equal(seen.last.n_entries, 0);
	/* Nobody asked for the answer, and it is no sign of life of the leader. */
	assert_int_equal(seen.sent, 1);
	raft_shim_flush(&shim);
	assert_int_equal(seen.answered, 1);
	assert_int_equal(raft.election_timer_start, 1234);
	/* Known already. */
	told_commit(&shim, 5, 11);
	told_commit(&shim, 5, 3);
	assert_int_equal(seen.n, 2);
}

/* The answer overtakes the entry: the message that brings it is read as if it said so itself. */
static void before_the_entry(void **state)
{
	(void)state;
	append(5, 10, 0, 10);
	told_commit(&shim, 5, 11);
	assert_int_equal(seen.n, 1);
	assert_int_equal(raft.commit_index, 10);
	append(5, 10, 1, 10);
	assert_int_equal(seen.last.leader_commit, 11);
	assert_int_equal(raft.commit_index, 11);
}

/* Entries that were sent again arrive when more is committed, here or at the leader. */
static void an_old_message(void **state)
{
	(void)state;
	append(5, 10, 4, 10);
	told_commit(&shim, 5, 13);
	assert_int_equal(raft.commit_index, 13);
	append(5, 10, 1, 10);
	assert_int_equal(raft.commit_index, 13);
	append(5, 11, 1, 14);
	assert_int_equal(raft.commit_index, 13);
	append(5, 11, 3, 14);
	assert_int_equal(raft.commit_index, 14);
}

static void not_of_this_term(void **state)
{
	(void)state;
	append(5, 10, 2, 10);
	told_commit(
		&shim, 6,
		12); /* committed by a leader that we have not heard of: our 12 may be another */
	told_commit(&shim, 4, 12);
	assert_int_equal(seen.n, 1);

	/* What is known of the log of one leader says nothing of the next one's. */
	raft.current_term = 6;
	raft.follower_state.match = 0;
	told_commit(&shim, 6, 12);
	assert_int_equal(seen.n, 1);
	append(5, 12, 0, 10); /* an old message */
	told_commit(&shim, 6, 12);
	assert_int_equal(raft.commit_index, 10);
	append(6, 10, 0, 10);
	assert_int_equal(seen.last.leader_commit, 12);
	assert_int_equal(raft.commit_index, 10);
}

static void refused_entries(void **state)
{
	(void)state;
	refuse = true;
	append(5, 20, 1, 10);
	told_commit(&shim, 5, 21);
	assert_int_equal(seen.n, 1);
	assert_int_equal(raft.commit_index, 10);
}

static void no_follower(void **state)
{
	(void)state;
	append(5, 10, 2, 10);
	raft.state = RAFT_CANDIDATE;
	told_commit(&shim, 5, 12);
	raft.state = RAFT_LEADER;
	told_commit(&shim, 5, 12);
	raft.state = RAFT_FOLLOWER;
	raft.snapshot.installing = true;
	told_commit(&shim, 5, 12);
	raft.snapshot.installing = false;
	raft.follower_state.current_leader.id = 0;
	told_commit(&shim, 5, 12);
	assert_int_equal(seen.n, 1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(an_answer_commits), T(before_the_entry), T(an_old_message),
		T(not_of_this_term),  T(refused_entries),  T(no_follower),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
