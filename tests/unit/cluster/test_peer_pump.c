/* The byte pump: nothing lost or changed, bounded memory, ends passed on. LIBS: cluster */
#include "tests/lib/test.h"

#include <sys/socket.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/mem.h"
#include "cluster/peer_pump.h"
#include "net/loop.h"
#include "net/stream.h"

enum { TOTAL = 6 << 20 };

/* An end outside of the pump: sends TOTAL bytes of a pattern in random pieces, checks what comes. */
struct outer {
	struct stream *stream;
	uint8_t seed, expect;
	size_t sent, got;
	bool ended, slow;
	size_t paused_turns;
};

static uint8_t pattern(uint8_t seed, size_t i)
{
	return (uint8_t)(seed + i * 31 + (i >> 8) * 7);
}

static void outer_data(void *arg, const uint8_t *data, size_t len)
{
	struct outer *o = arg;

	for (size_t i = 0; i < len; i++) {
		if (data[i] != pattern(o->expect, o->got + i)) {
			TEST_FAIL("byte %zu differs", o->got + i);
		}
	}
	o->got += len;
	if (o->slow && rand_below(4) == 0) {
		stream_pause_read(o->stream);
		o->paused_turns = 1 + rand_below(20);
	}
}

static void outer_close(void *arg, const struct err *err)
{
	struct outer *o = arg;

	(void)err;
	o->ended = true;
	o->stream = NULL;
}

static const struct stream_handler outer_handler = {.on_data = outer_data, .on_close = outer_close};

static void outer_step(struct outer *o)
{
	uint8_t piece[70000];
	size_t n;

	if (o->stream == NULL) {
		return;
	}
	if (o->paused_turns > 0 && --o->paused_turns == 0) {
		stream_resume_read(o->stream);
	}
	if (o->sent == TOTAL || stream_is_full(o->stream)) {
		return;
	}
	n = rand_below(8) == 0 ? 1 + rand_below(7) : 1 + rand_below(sizeof(piece));
	n = MIN(n, TOTAL - o->sent);
	for (size_t i = 0; i < n; i++) {
		piece[i] = pattern(o->seed, o->sent + i);
	}
	assert_ok(stream_write(o->stream, piece, n));
	o->sent += n;
}

struct end {
	bool called, remote;
};

static void on_end(void *arg, bool remote, const struct err *why)
{
	struct end *e = arg;

	(void)why;
	e->called = true;
	e->remote = remote;
}

struct fixture {
	struct loop *loop;
	struct outer near, far;
	struct stream *far_inner;
	struct peer_pump *pump;
	struct end end;
};

/* near <-> socketpair <-> pump <-> memory pair <-> far */
static void open_all(struct fixture *f)
{
	struct stream *a, *b;
	int fd[2];

	*f = (struct fixture){.loop = loop_new("test")};
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
	assert_ok(stream_from_fd(f->loop, fd[0], &f->near.stream, NULL));
	assert_ok(stream_from_fd(f->loop, fd[1], &a, NULL));
	stream_pair_new(f->loop, &b, &f->far.stream);
	f->far_inner = b;
	f->near.seed = f->far.expect = 3;
	f->far.seed = f->near.expect = 200;
	stream_set_handler(f->near.stream, &outer_handler, &f->near);
	stream_set_handler(f->far.stream, &outer_handler, &f->far);
	f->pump = peer_pump_new(a, b, on_end, &f->end);
}

static void close_all(struct fixture *f)
{
	stream_abort(f->near.stream);
	stream_abort(f->far.stream);
	for (int i = 0; i < 20; i++) {
		loop_turn(f->loop, false);
	}
	loop_free(f->loop);
}

static void test_integrity(void **state)
{
	struct fixture f;

	(void)state;
	open_all(&f);
	f.far.slow = f.near.slow = true;
	stream_pair_set_chunk(f.far_inner, 1 + rand_below(5000));
	for (int turns = 0; f.near.got < TOTAL || f.far.got < TOTAL; turns++) {
		assert_true(turns < 2000000);
		outer_step(&f.near);
		outer_step(&f.far);
		loop_turn(f.loop, false);
	}
	assert_false(f.end.called);
	/* The end of one side reaches the other. */
	stream_close(f.near.stream);
	f.near.stream = NULL;
	for (int turns = 0; !f.end.called || !f.far.ended; turns++) {
		assert_true(turns < 2000000);
		if (f.far.paused_turns > 0 && --f.far.paused_turns == 0) {
			stream_resume_read(f.far.stream);
		}
		loop_turn(f.loop, false);
	}
	assert_false(f.end.remote);
	close_all(&f);
}

/* What one side sent right before its end is still delivered. */
static void test_last_words(void **state)
{
	struct fixture f;

	(void)state;
	open_all(&f);
	while (f.far.sent < 100000) {
		outer_step(&f.far);
	}
	stream_close(f.far.stream);
	f.far.stream = NULL;
	for (int turns = 0; !f.near.ended; turns++) {
		assert_true(turns < 2000000);
		loop_turn(f.loop, false);
	}
	assert_int_equal(f.near.got, f.far.sent);
	assert_true(f.end.called);
	assert_true(f.end.remote);
	close_all(&f);
}

/*
 * libraft writes to a link that it dialled, and reads nothing: when the remote side is gone its next write must fail, for it
 * dials anew only then. No wall clock: the loop's lingering would end with its timer, seconds later.
 */
static void test_writer_learns_of_the_end(void **state)
{
	struct stream *a, *b, *far;
	struct fixture f = {.loop = loop_new("test")};
	struct end e = {0};
	bool failed = false;
	int fd[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
	assert_ok(stream_from_fd(f.loop, fd[1], &a, NULL));
	stream_pair_new(f.loop, &b, &far);
	peer_pump_new(a, b, on_end, &e);
	assert_int_equal(send(fd[0], "entry", 5, MSG_NOSIGNAL), 5);
	for (int i = 0; i < 20; i++) {
		loop_turn(f.loop, false);
	}
	stream_abort(far);
	for (int i = 0; i < 20 && !failed; i++) {
		loop_turn(f.loop, false);
		failed = e.called && send(fd[0], "vote", 4, MSG_NOSIGNAL) < 0;
	}
	assert_true(e.remote);
	assert_true(failed);
	close(fd[0]);
	loop_free(f.loop);
}

/* A reader that reads nothing stops the sender; the pump keeps little. */
static void test_back_pressure(void **state)
{
	struct fixture f;
	size_t before;

	(void)state;
	open_all(&f);
	stream_pause_read(f.near.stream);
	for (int turns = 0; turns < 3000; turns++) {
		outer_step(&f.far);
		loop_turn(f.loop, false);
	}
	before = f.far.sent;
	assert_true(before < TOTAL);
	for (int turns = 0; turns < 300; turns++) {
		outer_step(&f.far);
		loop_turn(f.loop, false);
	}
	assert_int_equal(f.far.sent, before);
	/* What is on the way is bounded: marks of both streams, one piece, the kernel's buffers. */
	assert_true(before < 2 << 20);
	stream_resume_read(f.near.stream);
	for (int turns = 0; f.near.got < TOTAL; turns++) {
		assert_true(turns < 2000000);
		outer_step(&f.far);
		loop_turn(f.loop, false);
	}
	peer_pump_free(f.pump);
	close_all(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_integrity),
		cmocka_unit_test(test_last_words),
		cmocka_unit_test(test_writer_learns_of_the_end),
		cmocka_unit_test(test_back_pressure),
	};

	crypto_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
