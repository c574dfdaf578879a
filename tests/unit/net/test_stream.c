/* Streams: sockets, the memory pair, backpressure, putting back; gzip of messages. */
/* LIBS: net */
#include "tests/lib/test.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/mem.h"
#include "net/gzip.h"
#include "net/loop.h"
#include "net/stream.h"

struct end {
	struct stream *stream;
	struct buf in;
	int closed, writable;
	struct err err;
	bool close_on_data;
};

static void on_data(void *arg, const uint8_t *data, size_t len)
{
	struct end *e = arg;

	assert_int_equal(e->closed, 0);
	buf_append(&e->in, data, len);
	if (e->close_on_data) {
		stream_close(e->stream);
		e->stream = NULL;
	}
}

static void on_close(void *arg, const struct err *err)
{
	struct end *e = arg;

	e->closed++;
	e->err = *err;
	stream_close(e->stream); /* harmless inside its own end */
	e->stream = NULL;
}

static void on_writable(void *arg)
{
	((struct end *)arg)->writable++;
}

static const struct stream_handler handler = {
	.on_data = on_data,
	.on_close = on_close,
	.on_writable = on_writable,
};

struct rig {
	struct loop *loop;
	struct end a, b;
};

/* kind 0: memory, 1: Unix sockets. */
static void rig_init(struct rig *r, int kind)
{
	memset(r, 0, sizeof(*r));
	r->loop = loop_new("stream");
	if (kind == 0) {
		stream_pair_new(r->loop, &r->a.stream, &r->b.stream);
	} else {
		int fds[2];

		assert_int_equal(
			socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
		assert_ok(stream_from_fd(r->loop, fds[0], &r->a.stream, NULL));
		assert_ok(stream_from_fd(r->loop, fds[1], &r->b.stream, NULL));
		assert_true(stream_peer(r->a.stream)->is_unix);
		assert_int_equal(stream_peer(r->a.stream)->uid, getuid());
		assert_int_equal(stream_peer(r->a.stream)->pid, getpid());
	}
	stream_set_handler(r->a.stream, &handler, &r->a);
	stream_set_handler(r->b.stream, &handler, &r->b);
}

static void rig_done(struct rig *r)
{
	stream_abort(r->a.stream);
	stream_abort(r->b.stream);
	buf_done(&r->a.in);
	buf_done(&r->b.in);
	loop_free(r->loop);
}

static void test_bytes_and_end(void **state)
{
	(void)state;
	for (int kind = 0; kind < 2; kind++) {
		struct rig r;
		struct blob *blob;
		static uint8_t big[3000000];

		for (size_t i = 0; i < sizeof(big); i++) {
			big[i] = (uint8_t)(i * 7 >> 4);
		}
		rig_init(&r, kind);
		blob = blob_new(big, sizeof(big));
		assert_ok(stream_write(r.a.stream, "ab", 2));
		assert_ok(stream_write_blob(r.a.stream, blob, 0, sizeof(big)));
		assert_ok(stream_write(r.a.stream, "yz", 2));
		assert_int_equal(r.b.in.len, 0); /* never inside the call */
		blob_unref(blob);                /* the stream holds its own reference */
		stream_close(r.a.stream);        /* what was written is still sent */
		r.a.stream = NULL;
		while (r.b.closed == 0) {
			loop_turn(r.loop, true);
		}
		assert_int_equal(r.b.err.code, ERR_CLOSED);
		assert_int_equal(r.b.in.len, sizeof(big) + 4);
		assert_memory_equal(r.b.in.data, "ab", 2);
		assert_memory_equal(r.b.in.data + 2, big, sizeof(big));
		assert_memory_equal(r.b.in.data + 2 + sizeof(big), "yz", 2);
		assert_int_equal(r.a.closed, 0);
		rig_done(&r);
	}
}

static void test_backpressure(void **state)
{
	(void)state;
	for (int kind = 0; kind < 2; kind++) {
		struct rig r;
		static uint8_t chunk[10000];
		size_t sent = 0;

		rig_init(&r, kind);
		stream_set_limits(r.a.stream, 50000, 1000000);
		stream_pause_read(r.b.stream);
		/* The hard limit: refused, and nothing of it was queued. */
		int rc;
		while ((rc = stream_write(r.a.stream, chunk, sizeof(chunk))) == 0) {
			sent += sizeof(chunk);
			loop_turn(r.loop, false);
		}
		assert_err(rc, ERR_LIMIT);
		assert_true(stream_is_full(r.a.stream));
		assert_true(stream_backlog(r.a.stream) <= 1000000);
		assert_int_equal(r.b.in.len, 0);
		assert_int_equal(r.a.writable, 0);
		stream_resume_read(r.b.stream);
		while (r.b.in.len < sent) {
			loop_turn(r.loop, true);
		}
		while (r.a.writable == 0) {
			loop_turn(r.loop, true);
		}
		assert_int_equal(r.a.writable, 1);
		assert_int_equal(r.b.in.len, sent);
		assert_int_equal(stream_bytes_out(r.a.stream), sent);
		assert_int_equal(stream_bytes_in(r.b.stream), sent);
		rig_done(&r);
	}
}

static void test_unread_and_hand_over(void **state)
{
	struct end second = {0};

	(void)state;
	for (int kind = 0; kind < 2; kind++) {
		struct rig r;

		rig_init(&r, kind);
		assert_ok(stream_write(r.a.stream, "world", 5));
		while (r.b.in.len < 5) {
			loop_turn(r.loop, true);
		}
		/* Without a handler bytes wait; what was put back comes before them. */
		stream_set_handler(r.b.stream, NULL, NULL);
		assert_ok(stream_write(r.a.stream, "!", 1));
		for (int i = 0; i < 5; i++) {
			loop_turn(r.loop, false);
		}
		stream_unread(r.b.stream, "world", 5);
		stream_unread(r.b.stream, "hello ", 6);
		stream_set_handler(r.b.stream, &handler, &second);
		assert_int_equal(second.in.len, 0); /* not inside the call */
		while (second.in.len < 12) {
			loop_turn(r.loop, true);
		}
		assert_memory_equal(second.in.data, "hello world!", 12);
		buf_done(&second.in);
		rig_done(&r);
	}
}

static void test_close_inside_callback(void **state)
{
	(void)state;
	for (int kind = 0; kind < 2; kind++) {
		struct rig r;

		rig_init(&r, kind);
		r.b.close_on_data = true;
		assert_ok(stream_write(r.a.stream, "x", 1));
		while (r.a.closed == 0) {
			loop_turn(r.loop, true);
		}
		assert_int_equal(r.b.closed, 0); /* one's own close is not told */
		assert_int_equal(r.b.in.len, 1);
		rig_done(&r);
	}
}

/* A reset connection is an end, not a signal. */
/* Who does not read is there: its TCP answers. */
static void test_not_stalled(void **state)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	static uint8_t big[3000000];
	struct rig r;
	int other;

	(void)state;
	assert_int_equal(bind(listening, (struct sockaddr *)&a, len), 0);
	assert_int_equal(listen(listening, 1), 0);
	assert_int_equal(getsockname(listening, (struct sockaddr *)&a, &len), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, len), 0);
	other = accept(listening, NULL, NULL);
	assert_true(other >= 0);
	for (int kind = 0; kind < 2; kind++) {
		rig_init(&r, kind);
		assert_false(stream_stalled(r.a.stream)); /* nothing to do with TCP */
		rig_done(&r);
	}
	memset(&r, 0, sizeof(r));
	r.loop = loop_new("stream");
	assert_ok(stream_from_fd(r.loop, fd, &r.a.stream, NULL));
	stream_set_handler(r.a.stream, &handler, &r.a);
	assert_false(stream_stalled(r.a.stream));
	assert_ok(stream_write(r.a.stream, big, sizeof(big)));
	for (int i = 0; i < 10; i++) {
		loop_turn(r.loop, false);
		assert_false(stream_stalled(r.a.stream));
	}
	rig_done(&r);
	close(other);
	close(listening);
}

static void test_write_to_reset(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	stream_abort(r.b.stream);
	r.b.stream = NULL;
	for (int i = 0; i < 100 && r.a.closed == 0; i++) {
		if (r.a.stream != NULL && stream_write(r.a.stream, "x", 1) != 0) {
			break;
		}
		loop_turn(r.loop, false);
	}
	while (r.a.closed == 0) {
		loop_turn(r.loop, true);
	}
	assert_int_equal(r.a.err.code, ERR_CLOSED);
	rig_done(&r);
}

static void test_gzip(void **state)
{
	struct buf packed = BUF_INIT, plain = BUF_INIT;
	static uint8_t zeros[100000];
	struct err err = {0};

	(void)state;
	gzip_deflate(zeros, sizeof(zeros), &packed);
	assert_true(packed.len < 1000);
	assert_ok(gzip_inflate(packed.data, packed.len, sizeof(zeros), &plain, &err));
	assert_int_equal(plain.len, sizeof(zeros));
	buf_reset(&plain);
	assert_err(gzip_inflate(packed.data, packed.len, sizeof(zeros) - 1, &plain, &err),
		   ERR_LIMIT);
	assert_true(plain.len <= sizeof(zeros));
	for (size_t cut = 0; cut < packed.len; cut++) {
		buf_reset(&plain);
		assert_err(gzip_inflate(packed.data, cut, sizeof(zeros), &plain, &err),
			   ERR_INVALID);
	}
	/* Bytes after the end, and a second stream behind the first, are not one whole message. */
	buf_u8(&packed, 0);
	buf_reset(&plain);
	assert_err(gzip_inflate(packed.data, packed.len, sizeof(zeros), &plain, &err), ERR_INVALID);
	buf_reset(&packed);
	buf_reset(&plain);
	gzip_deflate(NULL, 0, &packed);
	assert_ok(gzip_inflate(packed.data, packed.len, 0, &plain, &err));
	assert_int_equal(plain.len, 0);
	buf_done(&packed);
	buf_done(&plain);
}

int main(void)
{
	crypto_init();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes_and_end),
		cmocka_unit_test(test_backpressure),
		cmocka_unit_test(test_unread_and_hand_over),
		cmocka_unit_test(test_close_inside_callback),
		cmocka_unit_test(test_not_stalled),
		cmocka_unit_test(test_write_to_reset),
		cmocka_unit_test(test_gzip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
