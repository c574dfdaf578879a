/* The fail-stop shim: each fault of the storage ends the process; what it does to snapshots and entries. */
/* LIBS: cluster */
#include "tests/unit/cluster/shim_back.h"

#include "cluster/raft_net.h"
#include "net/loop.h"
#include "net/stream.h"

static struct raft_io_append areq;
static struct raft_io_snapshot_put preq;

/* ---- disk ---- */

static void on_append(struct raft_io_append *req, int status)
{
	(void)req;
	seen.answered++;
	seen.status = status;
}

static void on_put(struct raft_io_snapshot_put *req, int status)
{
	(void)req;
	seen.answered++;
	seen.status = status;
}

static int do_set_term(void)
{
	return shim.io.set_term(&shim.io, 6);
}

static int do_set_vote(void)
{
	return shim.io.set_vote(&shim.io, 1);
}

static int do_truncate(void)
{
	return shim.io.truncate(&shim.io, 10);
}

static int do_append(void)
{
	return shim.io.append(&shim.io, &areq, NULL, 0, on_append);
}

static int do_put(void)
{
	return shim.io.snapshot_put(&shim.io, 0, &preq, NULL, on_put);
}

static void faults_at_once(void **state)
{
	static const struct {
		int (*call)(void);
		const char *text;
	} cases[] = {
		{do_set_term, "storing the term"}, {do_set_vote, "storing the vote"},
		{do_truncate, "truncating"},       {do_append, "appending"},
		{do_put, "storing a snapshot"},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		seen.failed = 0;
		be.rv = RAFT_IOERR;
		assert_int_equal(c->call(), RAFT_IOERR);
		assert_int_equal(seen.failed, 1);
		assert_contains(seen.text, c->text);
	}
	assert_true(list_empty(&shim.appends));
	assert_false(shim.putting);
}

static void faults_later(void **state)
{
	static const struct {
		int status, failed;
	} cases[] = {{0, 0}, {RAFT_IOERR, 1}, {RAFT_NOSPACE, 1}, {RAFT_CANCELED, 0}};

	(void)state;
	TEST_TABLE(c, cases)
	{
		seen.failed = seen.answered = 0;
		assert_int_equal(do_append(), 0);
		be.append_cb(be.append, c->status);
		assert_int_equal(seen.failed, c->failed);
		assert_int_equal(seen.answered, 1);
		assert_int_equal(seen.status, c->status);
		assert_true(list_empty(&shim.appends));

		seen.failed = seen.answered = 0;
		assert_int_equal(do_put(), 0);
		assert_true(shim.putting);
		be.put_cb(be.put, c->status);
		assert_false(shim.putting);
		assert_int_equal(seen.failed, c->failed);
		assert_int_equal(seen.answered, 1);
	}
}

static void a_stuck_append(void **state)
{
	(void)state;
	assert_int_equal(do_append(), 0);
	test_clock_advance(&tc, SHIM_APPEND_STUCK_MS - 1);
	be.tick(&shim.io);
	assert_int_equal(shim.handover_ms, 0);
	test_clock_advance(&tc, 1);
	be.tick(&shim.io);
	assert_int_not_equal(shim.handover_ms, 0);
	assert_int_equal(seen.failed, 0);
	test_clock_advance(&tc, SHIM_HANDOVER_MS);
	be.tick(&shim.io);
	assert_int_equal(seen.failed, 1);
	assert_contains(seen.text, "has not ended");
	assert_int_equal(seen.ticks, 3);
	be.append_cb(be.append, 0);
}

/* ---- snapshots and entries ---- */

static void be_connect(void *arg, uint64_t request, uint64_t id, const char *address)
{
	(void)arg;
	(void)id;
	(void)address;
	be.connect = request;
}

static struct raft_net net;

static struct loop *net_begin(void)
{
	struct loop *loop = loop_new("shim");

	net = (struct raft_net){.loop = loop, .connect = be_connect};
	raft_net_init(&net);
	shim.net = &net;
	return loop;
}

/* The back end has read its newest snapshot. */
static void be_read(raft_index index)
{
	struct raft_snapshot *s = raft_calloc(1, sizeof(*s));

	s->index = index;
	raft_configuration_init(&s->configuration);
	assert_int_equal(raft_configuration_add(&s->configuration, 1, "me:1", RAFT_VOTER), 0);
	s->bufs = raft_calloc(1, sizeof(*s->bufs));
	s->bufs[0] = (struct raft_buffer){raft_calloc(1, 64), 64};
	s->n_bufs = 1;
	be.connect = 0;
	be.get_cb(be.get, s, 0);
}

static struct raft_message snapshot_for(raft_id id)
{
	struct raft_message m = {
		.type = RAFT_INSTALL_SNAPSHOT, .server_id = id, .server_address = "peer:1"};

	m.install_snapshot.term = 5;
	m.install_snapshot.last_index = 100;
	return m;
}

static void one_snapshot_per_peer(void **state)
{
	struct raft_message two = snapshot_for(2), three = snapshot_for(3);
	struct loop *loop = net_begin();

	(void)state;
	raft.state = RAFT_LEADER;
	assert_int_equal(shim.io.send(&shim.io, &sreq[0], &two, on_sent), 0);
	assert_int_equal(shim.io.send(&shim.io, &sreq[1], &two, on_sent), 0);
	assert_int_equal(be.gets, 1);
	assert_int_equal(shim.installs_dropped, 1);
	assert_int_equal(shim.io.send(&shim.io, &sreq[2], &three, on_sent), 0);
	assert_int_equal(be.gets, 2);
	be_read(100);
	assert_int_not_equal(be.connect, 0);
	assert_int_equal(seen.answered, 0);
	raft_shim_flush(&shim);
	assert_int_equal(seen.answered, 3); /* what is sent is none of libraft's */
	assert_int_equal(be.n_sent, 0);
	raft_net_connected(&net, be.connect, 0, NULL);
	assert_int_equal(shim.io.send(&shim.io, &sreq[3], &three, on_sent), 0);
	assert_int_equal(be.gets, 3);
	/* Who leads no more sends none. */
	raft.state = RAFT_FOLLOWER;
	be_read(100);
	assert_int_equal(be.connect, 0);
	raft_shim_done(&shim);
	raft_net_close(&net);
	loop_free(loop);
}

static raft_index result_from(raft_id id, raft_term term, raft_index rejected, raft_index last)
{
	struct raft_message m = {.type = RAFT_APPEND_ENTRIES_RESULT, .server_id = id};

	m.append_entries_result.term = term;
	m.append_entries_result.rejected = rejected;
	m.append_entries_result.last_log_index = last;
	be.recv(&shim.io, &m);
	return seen.rejected;
}

static void on_get(struct raft_io_snapshot_get *req, struct raft_snapshot *snapshot, int status)
{
	(void)req;
	assert_int_equal(status, 0);
	assert_int_equal(snapshot->index, 100);
	assert_int_equal(snapshot->n_bufs, 1);
	assert_int_equal(snapshot->bufs[0].len, 0);
	raft_free(snapshot->bufs);
	raft_free(snapshot);
	seen.answered++;
}

/* The connection is made and takes what there is. */
static void be_connected(struct loop *loop)
{
	struct stream *stream;
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	assert_ok(stream_from_fd(loop, fd[0], &stream, NULL));
	raft_net_connected(&net, be.connect, 0, stream);
	while (!list_empty(&net.ways)) {
		loop_turn(loop, true);
	}
	close(fd[1]);
}

/* What a peer rejects while a snapshot is on its way to it, and a while longer, does not reach libraft. */
static void a_snapshot_takes_its_time(void **state)
{
	static struct raft_io_snapshot_get get;
	struct raft_message m = snapshot_for(2);
	struct loop *loop = net_begin();

	(void)state;
	raft.state = RAFT_LEADER;
	raft.current_term = 5;
	raft.trail.snapshot.index = 100;
	/* libraft itself gets an empty one, and nothing is read. */
	assert_int_equal(shim.io.snapshot_get(&shim.io, &get, on_get), 0);
	assert_int_equal(seen.answered, 0);
	raft_shim_flush(&shim);
	assert_int_equal(seen.answered, 1);
	assert_int_equal(be.gets, 0);
	assert_int_equal(result_from(2, 5, 100, 3), 100);

	assert_int_equal(shim.io.send(&shim.io, &sreq[0], &m, on_sent), 0);
	assert_true(result_from(2, 5, 100, 3) == UINT64_MAX);
	assert_int_equal(result_from(3, 5, 100, 3), 100);
	assert_int_equal(result_from(2, 6, 100, 3), 100); /* of a later term: it counts */
	assert_int_equal(result_from(2, 5, 0, 100), 0);   /* of before: it is not sent yet */
	be.get_cb(be.get, NULL, RAFT_IOERR);
	assert_int_equal(result_from(2, 5, 100, 3), 100);

	assert_int_equal(shim.io.send(&shim.io, &sreq[1], &m, on_sent), 0);
	be_read(100);
	be_connected(loop);
	assert_true(result_from(2, 5, 100, 3) == UINT64_MAX);
	/* Not again before the peer has it, or the time is over. */
	assert_int_equal(shim.io.send(&shim.io, &sreq[2], &m, on_sent), 0);
	assert_int_equal(be.gets, 2);
	test_clock_advance(&tc, SHIM_INSTALL_MS - 1);
	be.tick(&shim.io);
	assert_true(result_from(2, 5, 100, 3) == UINT64_MAX);
	test_clock_advance(&tc, 1);
	be.tick(&shim.io);
	assert_int_equal(result_from(2, 5, 100, 3), 100);
	assert_int_equal(shim.io.send(&shim.io, &sreq[3], &m, on_sent), 0);
	be_read(100);
	be_connected(loop);
	assert_int_equal(result_from(2, 5, 0, 100), 0);
	assert_int_equal(result_from(2, 5, 100, 3), 100);
	raft_shim_flush(&shim);
	raft_net_close(&net);
	loop_free(loop);
}

static int prepare(void *arg)
{
	(void)arg;
	seen.prepares++;
	return seen.prepare_rv;
}

static bool receive(void *arg, const struct raft_message *m)
{
	(void)arg;
	seen.receives++;
	seen.taken = *m;
	return seen.receive;
}

static void on_closed(struct raft_io *io)
{
	(void)io;
	seen.answered++;
}

/* An own snapshot is filled before the back end sees it. */
static void prepared(void **state)
{
	struct raft_buffer buf = {0};
	struct raft_snapshot s = {0};

	(void)state;
	shim.prepare = prepare;
	seen.prepare_rv = RAFT_BUSY;
	assert_int_equal(shim.io.snapshot_put(&shim.io, 64, &preq, &s, on_put), RAFT_BUSY);
	assert_false(shim.putting);
	assert_int_equal(seen.failed, 0);
	seen.prepare_rv = 0;
	assert_int_equal(shim.io.snapshot_put(&shim.io, 64, &preq, &s, on_put), 0);
	assert_true(shim.putting);
	assert_null(be.put);
	raft_shim_prepared(&shim, 0, &buf, 1);
	assert_non_null(be.put);
	assert_ptr_equal(s.bufs, &buf);
	assert_int_equal(s.n_bufs, 1);
	be.put_cb(be.put, 0);
	assert_false(shim.putting);
	assert_int_equal(seen.answered, 1);

	/* One that is installed is there already. */
	be.put = NULL;
	assert_int_equal(shim.io.snapshot_put(&shim.io, 0, &preq, &s, on_put), 0);
	assert_non_null(be.put);
	be.put_cb(be.put, 0);

	/* The end waits for the one who fills it. */
	assert_int_equal(shim.io.snapshot_put(&shim.io, 64, &preq, &s, on_put), 0);
	seen.answered = 0;
	shim.io.close(&shim.io, on_closed);
	assert_int_equal(be.closed, 0);
	raft_shim_prepared(&shim, RAFT_CANCELED, NULL, 0);
	assert_int_equal(be.closed, 1);
	assert_int_equal(seen.answered, 2);
	assert_int_equal(seen.failed, 0);
}

/* One that comes in may be taken and handed over later; none beside it. */
static void received_later(void **state)
{
	struct raft_message m = {.type = RAFT_INSTALL_SNAPSHOT};

	(void)state;
	shim.receive = receive;
	raft_configuration_init(&m.install_snapshot.conf);
	be.recv(&shim.io, &m);
	assert_int_equal(seen.received, 1); /* it had no use for it */
	seen.receive = true;
	be.recv(&shim.io, &m);
	assert_int_equal(seen.received, 1);
	m.install_snapshot.data.base = raft_malloc(16);
	be.recv(&shim.io, &m);
	assert_int_equal(seen.receives, 2);
	assert_int_equal(shim.installs_dropped, 1);
	raft_shim_received(&shim, &seen.taken);
	assert_int_equal(seen.received, 2);
	m.install_snapshot.data.base = NULL;
	be.recv(&shim.io, &m);
	raft_shim_received(&shim, NULL);
	assert_int_equal(seen.received, 2);
	assert_int_equal(seen.receives, 3);
}

static void no_install_while_putting(void **state)
{
	struct raft_message m = {.type = RAFT_INSTALL_SNAPSHOT};

	(void)state;
	assert_int_equal(do_put(), 0);
	raft_configuration_init(&m.install_snapshot.conf);
	m.install_snapshot.data.base = raft_malloc(16);
	be.recv(&shim.io, &m);
	assert_int_equal(seen.received, 0);
	be.put_cb(be.put, 0);
	m.install_snapshot.data.base = NULL;
	be.recv(&shim.io, &m);
	assert_int_equal(seen.received, 1);
}

static void crooked_entries(void **state)
{
	static const struct {
		size_t len;
		int type, received;
	} cases[] = {{16, RAFT_COMMAND, 1}, {13, RAFT_COMMAND, 0}, {16, 9, 0}, {16, 0, 0}};

	(void)state;
	TEST_TABLE(c, cases)
	{
		struct raft_message m = {.type = RAFT_APPEND_ENTRIES};
		struct raft_entry *e = raft_calloc(1, sizeof(*e));

		seen.received = 0;
		e->batch = raft_malloc(16);
		e->buf.base = e->batch;
		e->buf.len = c->len;
		e->type = (enum raft_entry_type)c->type;
		m.append_entries.entries = e;
		m.append_entries.n_entries = 1;
		be.recv(&shim.io, &m);
		assert_int_equal(seen.received, c->received);
		if (c->received) {
			raft_free(e->batch);
			raft_free(e);
		}
	}
}

/* libraft loses track of a change that comes behind others in one message. */
static void a_change_comes_first(void **state)
{
	static const struct {
		const char *entries;
		unsigned passed;
	} cases[] = {{"c", 1},   {"X", 1},   {"ccc", 3}, {"Xcc", 3},
		     {"cXc", 1}, {"ccX", 2}, {"XcX", 2}};

	(void)state;
	TEST_TABLE(c, cases)
	{
		struct raft_message m = {.type = RAFT_APPEND_ENTRIES};
		struct raft_entry e[3] = {0};
		uint8_t bytes[16] = {0};

		for (unsigned i = 0; c->entries[i] != '\0'; i++) {
			e[i].type = c->entries[i] == 'X' ? RAFT_CHANGE : RAFT_COMMAND;
			e[i].buf.base = e[i].batch = bytes;
			e[i].buf.len = sizeof(bytes);
			m.append_entries.n_entries++;
		}
		m.append_entries.entries = e;
		seen.entries = 0;
		be.recv(&shim.io, &m);
		assert_int_equal(seen.entries, c->passed);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(faults_at_once),
		T(faults_later),
		T(a_stuck_append),
		T(one_snapshot_per_peer),
		T(no_install_while_putting),
		T(a_snapshot_takes_its_time),
		T(prepared),
		T(received_later),
		T(crooked_entries),
		T(a_change_comes_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
