/* libraft's links: what waits, what is lost and told, what ends them, and that nothing is called too late. LIBS: cluster */
#include "tests/unit/cluster/wire_messages.h"

#include <sys/socket.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/mem.h"
#include "cluster/raft_net.h"
#include "net/loop.h"
#include "net/stream.h"

static struct loop *loop;
static struct raft_net net;
static uint64_t request; /* the last one */
static int asked, told_ok, told_lost, told_cancelled, ended_remote, ended_here;
static int received;
static struct raft_message *expect;
static bool close_inside;

static void on_connect(void *arg, uint64_t r, uint64_t id, const char *address)
{
	(void)arg;
	(void)address;
	assert_int_equal(id, 7);
	request = r;
	asked++;
}

static void on_ended(void *arg, uint64_t name, bool remote)
{
	(void)arg;
	assert_int_equal(name, 11);
	ended_remote += remote;
	ended_here += !remote;
}

static void on_recv(struct raft_io *io, struct raft_message *m)
{
	assert_null(io);
	assert_int_equal(m->server_id, 7);
	assert_string_equal(m->server_address, "peer:1");
	wire_same(expect, m);
	wire_message_free(m);
	received++;
	if (close_inside) {
		raft_net_close(&net);
	}
}

static void on_sent(struct raft_io_send *req, int status)
{
	int *n = req->data;

	(*n)++;
	told_ok += status == 0;
	told_lost += status == RAFT_NOCONNECTION;
	told_cancelled += status == RAFT_CANCELED;
}

static int setup(void **state)
{
	(void)state;
	loop = loop_new("net");
	net = (struct raft_net){.loop = loop, .connect = on_connect, .ended = on_ended};
	raft_net_init(&net);
	raft_net_start(&net, NULL, on_recv);
	request = 0;
	asked = told_ok = told_lost = told_cancelled = ended_remote = ended_here = received = 0;
	close_inside = false;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	raft_net_close(&net);
	loop_free(loop);
	return 0;
}

/* One end on the loop, the other one returned. */
static int pair(struct stream **ret)
{
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	assert_ok(stream_from_fd(loop, fd[0], ret, NULL));
	return fd[1];
}

static int connected(void)
{
	struct stream *stream;
	int fd = pair(&stream);

	raft_net_connected(&net, request, 11, stream);
	return fd;
}

static int accepted(void)
{
	struct stream *stream;
	int fd = pair(&stream);

	raft_net_accepted(&net, 7, "peer:1", 11, stream);
	return fd;
}

static void turn(void)
{
	loop_turn(loop, false);
	raft_net_flush(&net);
	loop_turn(loop, false);
}

struct sending {
	struct raft_io_send req;
	int told;
};

static void say(struct sending *s, const struct raft_message *m)
{
	*s = (struct sending){.req = {.data = &s->told}};
	assert_int_equal(raft_net_send(&net, &s->req, m, on_sent), 0);
	assert_int_equal(s->told, 0); /* never in the call */
}

/* Reads messages and compares them with those of the numbers from `first` on. */
static unsigned read_all(int fd, struct wire_reader *r, unsigned first)
{
	static uint8_t bytes[1 << 16];
	unsigned n = 0;
	ssize_t len;

	while ((len = read(fd, bytes, sizeof(bytes))) > 0) {
		for (size_t at = 0, used; at < (size_t)len; at += used) {
			struct raft_message got, m;

			if (wire_read(r, bytes + at, (size_t)len - at, &used, &got, NULL) == 1) {
				m = wire_message(first + n++);
				wire_same(&m, &got);
				wire_message_free(&m);
				wire_message_free(&got);
			}
		}
	}
	return n;
}

/* What waits for the link goes first, all of a turn goes together, and each is told once. */
static void in_order(void **state)
{
	static const unsigned number[] = {0, 1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13};
	struct raft_message m[ARRAY_LEN(number)];
	struct sending s[ARRAY_LEN(number)];
	struct wire_reader r = {0};
	int fd = -1;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(number); i++) {
		m[i] = wire_message(number[i]);
		m[i].server_address = i % 2 == 0 ? "here:1"
						 : "there:2"; /* no other link for that */
		if (i == 4) {
			assert_int_equal(asked, 1);
			turn();
			assert_int_equal(told_ok, 0);
			fd = connected();
			turn();
			assert_int_equal(told_ok, 4);
			assert_int_equal(read_all(fd, &r, 0), 4);
		}
		say(&s[i], &m[i]);
	}
	assert_int_equal(read_all(fd, &r, 4), 0); /* not before the turn ends */
	turn();
	for (int tries = 0; tries < 3; tries++) {
		turn();
	}
	assert_int_equal(told_ok, ARRAY_LEN(number));
	{
		struct raft_message got, want;
		uint8_t bytes[1 << 16];
		size_t i = 4, used;

		while (i < ARRAY_LEN(number)) {
			ssize_t len = read(fd, bytes, sizeof(bytes));

			turn();
			for (size_t at = 0; len > 0 && at < (size_t)len; at += used) {
				if (wire_read(&r, bytes + at, (size_t)len - at, &used, &got,
					      NULL) == 1) {
					want = wire_message(number[i++]);
					wire_same(&want, &got);
					wire_message_free(&want);
					wire_message_free(&got);
				}
			}
		}
	}
	for (size_t i = 0; i < ARRAY_LEN(number); i++) {
		assert_int_equal(s[i].told, 1);
		wire_message_free(&m[i]);
	}
	assert_int_equal(asked, 1);
	wire_reader_done(&r);
	close(fd);
}

/* The oldest are told when too many wait, and most of them when the dialling fails; it is tried again. */
static void no_link(void **state)
{
	static struct sending s[LIM_RAFT_WAITING + 5];
	struct raft_message m = wire_message(0);
	uint64_t first;
	int fd;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(s); i++) {
		say(&s[i], &m);
	}
	turn();
	assert_int_equal(told_lost, 5);
	assert_int_equal(s[4].told, 1);
	assert_int_equal(s[5].told, 0);
	first = request;
	raft_net_connected(&net, request, 0, NULL);
	turn();
	assert_int_equal(told_lost, ARRAY_LEN(s) - LIM_RAFT_KEPT);
	assert_int_equal(asked, 1);
	while (asked == 1) {
		loop_turn(loop, true);
	}
	assert_true(request != first);
	/* An answer to the one before is nobody's. */
	{
		struct stream *stream;
		int other = pair(&stream);

		raft_net_connected(&net, first, 11, stream);
		assert_int_equal(ended_here, 1);
		close(other);
	}
	fd = connected();
	turn();
	assert_int_equal(told_ok, LIM_RAFT_KEPT);
	close(fd);
}

/* A peer that reads nothing: what it does not take waits as it is, and comes in order later. */
static void full(void **state)
{
	static struct sending s[64];
	struct raft_message m = wire_message(12);
	struct wire_reader r = {0};
	size_t n = 0, got = 0;
	int fd;

	(void)state;
	say(&s[n++], &m);
	fd = connected();
	while (n < ARRAY_LEN(s)) {
		say(&s[n++], &m);
		turn();
	}
	assert_in_range(told_ok, 1, 20); /* some 70 KB each */
	assert_true(list_len(&net.ways) == 1);
	while (got < n) {
		uint8_t bytes[1 << 16];
		ssize_t len = read(fd, bytes, sizeof(bytes));

		for (size_t at = 0, used; len > 0 && at < (size_t)len; at += used) {
			struct raft_message one;

			if (wire_read(&r, bytes + at, (size_t)len - at, &used, &one, NULL) == 1) {
				wire_same(&m, &one);
				wire_message_free(&one);
				got++;
			}
		}
		turn();
	}
	turn();
	assert_int_equal(told_ok, n);
	wire_message_free(&m);
	wire_reader_done(&r);
	close(fd);
}

/* However it ends, it is dialled anew; the peer side hears of it unless it did it itself. */
static void ends(void **state)
{
	struct raft_message m = wire_message(0);
	struct sending s;
	int fd;

	(void)state;
	say(&s, &m);
	fd = connected();
	turn();
	close(fd);
	while (asked == 1) {
		loop_turn(loop, true);
	}
	assert_int_equal(ended_remote, 1);
	fd = connected();
	raft_net_cut(&net, 12); /* none */
	assert_int_equal(asked, 2);
	raft_net_cut(&net, 11);
	assert_int_equal(asked, 3);
	close(fd);
	fd = connected();
	assert_int_equal(write(fd, "?", 1), 1); /* nothing is said in this direction */
	while (asked == 3) {
		loop_turn(loop, true);
	}
	assert_int_equal(ended_remote, 1);
	assert_int_equal(ended_here, 1);
	close(fd);
}

/* What libraft had not been told of is told at the end, before it is over. */
static void closed(void **state)
{
	struct raft_message m = wire_message(0), snapshot = wire_message(8);
	struct sending s[3];
	struct stream *stream;
	int fd;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(s); i++) {
		say(&s[i], &m);
	}
	assert_int_equal(raft_net_send(&net, &s[0].req, &snapshot, on_sent), RAFT_INVALID);
	wire_message_free(&snapshot);
	raft_net_close(&net);
	assert_int_equal(told_cancelled, 3);
	raft_net_close(&net);
	assert_int_equal(raft_net_send(&net, &s[0].req, &m, on_sent), RAFT_CANCELED);
	assert_int_equal(told_cancelled, 3);
	fd = pair(&stream);
	raft_net_connected(&net, request, 11, stream);
	close(fd);
	fd = accepted();
	close(fd);
	assert_int_equal(asked, 1);
}

static void read_in(void **state)
{
	int fd = accepted();

	(void)state;
	for (unsigned n = 0; n < WIRE_MESSAGES; n++) {
		struct raft_message m = wire_message(n);
		struct buf b = BUF_INIT;

		expect = &m;
		wire_bytes(&b, &m);
		for (size_t at = 0; received <= (int)n;) {
			ssize_t len = write(fd, b.data + at, b.len - at);

			at += len > 0 ? (size_t)len : 0;
			loop_turn(loop, false);
		}
		wire_message_free(&m);
		buf_done(&b);
	}
	close(fd);
	while (ended_remote == 0) {
		loop_turn(loop, true);
	}
	assert_true(list_empty(&net.ways));
}

/* Its messages before count, and only this link ends. */
static void nonsense(void **state)
{
	struct raft_message m = wire_message(0);
	struct buf b = BUF_INIT;
	uint8_t byte;
	int fd = accepted(), other = accepted();

	(void)state;
	expect = &m;
	wire_bytes(&b, &m);
	buf_append(&b, "GET / HTTP/1.1\r\n\r\n", 18);
	assert_int_equal(write(fd, b.data, b.len), b.len);
	while (ended_here == 0) {
		loop_turn(loop, true);
	}
	assert_int_equal(received, 1);
	turn();
	assert_int_equal(read(fd, &byte, 1), 0);
	assert_int_equal(read(other, &byte, 1), -1);
	close(fd);
	close(other);
	buf_done(&b);
}

static void closed_while_reading(void **state)
{
	struct raft_message m = wire_message(0);
	struct buf b = BUF_INIT;
	int fd = accepted();

	(void)state;
	expect = &m;
	close_inside = true;
	wire_bytes(&b, &m);
	wire_bytes(&b, &m);
	assert_int_equal(write(fd, b.data, b.len), b.len);
	while (received == 0) {
		loop_turn(loop, true);
	}
	turn();
	assert_int_equal(received, 1);
	close(fd);
	buf_done(&b);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(in_order), T(no_link), T(full),     T(ends),
		T(closed),   T(read_in), T(nonsense), T(closed_while_reading),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
