/* Our form of raft's messages against libraft's own connections: byte for byte what it sends, and it reads what we send. LIBS: cluster */
#include "tests/unit/cluster/wire_messages.h"

#include <sys/socket.h>
#include <unistd.h>

#include <raft/uv.h>

static uv_loop_t loop;
static char dir[TEST_DIR];
static struct raft_io io;
static raft_uv_accept_cb accepted;
static int far_end = -1;         /* of the connection that libraft dialled */
static struct raft_message *due; /* what it is to receive next */
static int received, sent;
static bool closed;

static uv_stream_t *stream_of(int fd)
{
	uv_pipe_t *pipe = raft_malloc(sizeof(*pipe));

	assert_int_equal(uv_pipe_init(&loop, pipe, 0), 0);
	assert_int_equal(uv_pipe_open(pipe, fd), 0);
	return (uv_stream_t *)pipe;
}

static int t_init(struct raft_uv_transport *t, raft_id id, const char *address)
{
	(void)t;
	(void)id;
	(void)address;
	return 0;
}

static int t_listen(struct raft_uv_transport *t, raft_uv_accept_cb cb)
{
	(void)t;
	accepted = cb;
	return 0;
}

static uv_idle_t later;
static struct raft_uv_connect *asked;

static void on_later(uv_idle_t *h)
{
	int fd[2];

	uv_idle_stop(h);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	far_end = fd[1];
	asked->cb(asked, stream_of(fd[0]), 0);
}

static int t_connect(struct raft_uv_transport *t, struct raft_uv_connect *req, raft_id id,
		     const char *address, raft_uv_connect_cb cb)
{
	(void)t;
	(void)id;
	(void)address;
	req->cb = cb;
	asked = req;
	uv_idle_start(&later, on_later);
	return 0;
}

static struct raft_uv_transport transport = {
	.version = 1, .init = t_init, .listen = t_listen, .connect = t_connect};
static raft_uv_transport_close_cb transport_closed;

static void on_later_closed(uv_handle_t *h)
{
	(void)h;
	transport_closed(&transport);
}

static void t_close(struct raft_uv_transport *t, raft_uv_transport_close_cb cb)
{
	(void)t;
	transport_closed = cb;
	uv_close((uv_handle_t *)&later, on_later_closed);
}

static void on_tick(struct raft_io *i)
{
	(void)i;
}

static void on_recv(struct raft_io *i, struct raft_message *m)
{
	(void)i;
	assert_non_null(due);
	wire_same(due, m);
	wire_message_free(m);
	received++;
}

static void on_closed(struct raft_io *i)
{
	(void)i;
	closed = true;
}

static void on_sent(struct raft_io_send *req, int status)
{
	(void)req;
	assert_int_equal(status, 0);
	sent++;
}

static int setup(void **state)
{
	struct raft_snapshot *snapshot;
	struct raft_entry *entries;
	raft_term term;
	raft_id voted;
	raft_index start;
	size_t n;

	(void)state;
	test_dir_make(dir);
	assert_int_equal(uv_loop_init(&loop), 0);
	uv_idle_init(&loop, &later);
	transport.close = t_close;
	memset(&io, 0, sizeof(io));
	assert_int_equal(raft_uv_init(&io, &loop, dir, &transport), 0);
	raft_uv_set_tracer(&io, NULL);
	assert_int_equal(io.init(&io, 1, "me:1"), 0);
	assert_int_equal(io.load(&io, &term, &voted, &snapshot, &start, &entries, &n), 0);
	assert_int_equal(io.start(&io, 1000, on_tick, on_recv), 0);
	assert_non_null(accepted);
	received = sent = 0;
	closed = false;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	io.close(&io, on_closed);
	while (!closed) {
		uv_run(&loop, UV_RUN_ONCE);
	}
	raft_uv_close(&io);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	if (far_end >= 0) {
		close(far_end);
	}
	test_dir_remove(dir);
	return 0;
}

static void what_libraft_sends(void **state)
{
	struct wire_reader reader = {0};

	(void)state;
	for (unsigned n = 0; n < WIRE_MESSAGES; n++) {
		struct raft_message m = wire_message(n), got;
		struct raft_io_send req;
		struct buf ours = BUF_INIT, theirs = BUF_INIT;
		size_t used;

		wire_bytes(&ours, &m);
		sent = 0;
		assert_int_equal(io.send(&io, &req, &m, on_sent), 0);
		while (sent == 0 || theirs.len < ours.len) {
			ssize_t r;

			uv_run(&loop, UV_RUN_NOWAIT);
			r = far_end < 0 ? 0 : read(far_end, buf_reserve(&theirs, 1 << 20), 1 << 20);
			theirs.len += r > 0 ? (size_t)r : 0;
		}
		assert_int_equal(theirs.len, ours.len);
		/* What libraft leaves as it finds it: none of our bytes is other than zero there. */
		assert_memory_equal(theirs.data, ours.data, ours.len);
		assert_int_equal(wire_read(&reader, theirs.data, theirs.len, &used, &got, NULL), 1);
		assert_int_equal(used, theirs.len);
		wire_same(&m, &got);
		wire_message_free(&got);
		wire_message_free(&m);
		buf_done(&ours);
		buf_done(&theirs);
	}
	wire_reader_done(&reader);
}

static void what_libraft_reads(void **state)
{
	int fd[2], expect = 0;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	accepted(&transport, 7, "peer:1", stream_of(fd[0]));
	for (unsigned n = 0; n < WIRE_MESSAGES; n++) {
		struct raft_message m = wire_message(n);
		struct buf b = BUF_INIT;

		wire_bytes(&b, &m);
		due = &m;
		expect++;
		for (size_t at = 0; at < b.len || received < expect;) {
			ssize_t r = at < b.len ? write(fd[1], b.data + at, MIN(b.len - at, 1000))
					       : 0;

			at += r > 0 ? (size_t)r : 0;
			uv_run(&loop, UV_RUN_NOWAIT);
		}
		assert_int_equal(received, expect);
		due = NULL;
		wire_message_free(&m);
		buf_done(&b);
	}
	close(fd[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_libraft_sends, setup, teardown),
		cmocka_unit_test_setup_teardown(what_libraft_reads, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
