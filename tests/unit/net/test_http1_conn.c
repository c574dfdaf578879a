/* HTTP/1.1 over real connections (in-memory streams): detection, keep-alive, hand-over of the stream, a slow reader.
 * LIBS: net */
#include "tests/lib/test.h"

#include "base/limits.h"
#include "base/mem.h"
#include "net/http.h"
#include "net/loop.h"
#include "net/stream.h"

struct fix {
	struct loop *loop;
	struct http_router *router;
	struct http_server *server;
	struct stream *client;
	struct buf got; /* by the client */
	bool closed;
	struct stream *raw; /* handed over */
	struct buf raw_got;
	bool raw_closed;
	size_t big_left;
	unsigned closes;
};

static void client_data(void *arg, const uint8_t *data, size_t len)
{
	buf_append(&((struct fix *)arg)->got, data, len);
}

static void client_close(void *arg, const struct err *err UNUSED)
{
	struct fix *f = arg;

	f->closed = true;
	f->client = NULL;
}

static const struct stream_handler client_handler = {.on_data = client_data,
						     .on_close = client_close};

static void raw_data(void *arg, const uint8_t *data, size_t len)
{
	struct fix *f = arg;

	buf_append(&f->raw_got, data, len);
	assert_ok(stream_write(f->raw, data, len));
}

static void raw_close(void *arg, const struct err *err UNUSED)
{
	struct fix *f = arg;

	f->raw_closed = true;
	f->raw = NULL;
}

static const struct stream_handler raw_handler = {.on_data = raw_data, .on_close = raw_close};

static void upgrade(void *arg, struct http_request *req)
{
	static const struct http_header headers[] = {{"connection", "upgrade"}, {"upgrade", "raw"}};
	struct fix *f = arg;

	http_set_handler(req, &http_ignore_handler, NULL);
	assert_ok(http_upgrade(req, 101, headers, 2, &f->raw));
	assert_non_null(f->raw);
	stream_set_handler(f->raw, &raw_handler, f);
}

static void hello(void *arg UNUSED, struct http_request *req)
{
	http_reply_text(req, 200, "hello %s", req->query);
}

/* Writes as much as the queue takes, and goes on when it is writable. */
static void fill(struct fix *f, struct http_request *req)
{
	static uint8_t block[16384];

	while (f->big_left) {
		size_t len = MIN(f->big_left, sizeof(block));
		int rv = http_write_copy(req, block, len, len == f->big_left);

		if (rv == ERR_LIMIT)
			return;
		assert_ok(rv);
		f->big_left -= len;
	}
}

static void big_body(void *arg UNUSED, struct http_request *req, const uint8_t *data UNUSED,
		     size_t len)
{
	http_consume(req, len);
}

static void big_end(void *arg, struct http_request *req)
{
	assert_ok(http_respond(req, 200, NULL, 0, false));
	fill(arg, req);
}

static void big_close(void *arg, struct http_request *req UNUSED, const struct err *err UNUSED)
{
	((struct fix *)arg)->closes++;
}

static void big_writable(void *arg, struct http_request *req)
{
	fill(arg, req);
}

static void big(void *arg, struct http_request *req)
{
	static const struct http_request_handler handler = {big_body, big_end, big_close,
							    big_writable};

	http_set_handler(req, &handler, arg);
}

static int begin(void **state)
{
	struct fix *f = calloc(1, sizeof(*f));

	f->loop = loop_new("test");
	f->router = http_router_new();
	http_mount(f->router, HTTP_MATCH_EXACT, "/raw", upgrade, f);
	http_mount(f->router, HTTP_MATCH_EXACT, "/hello", hello, f);
	http_mount(f->router, HTTP_MATCH_EXACT, "/big", big, f);
	f->server = http_server_new(f->loop, f->router);
	*state = f;
	return 0;
}

static int end(void **state)
{
	struct fix *f = *state;

	stream_abort(f->client);
	stream_abort(f->raw);
	http_server_free(f->server);
	http_router_free(f->router);
	loop_free(f->loop);
	buf_done(&f->got);
	buf_done(&f->raw_got);
	free(f);
	return 0;
}

static void connect_client(struct fix *f, size_t chunk, const char *proto)
{
	struct stream *server;

	stream_pair_new(f->loop, &server, &f->client);
	stream_pair_set_chunk(server, chunk);
	stream_pair_set_chunk(f->client, chunk);
	stream_set_handler(f->client, &client_handler, f);
	http_server_accept(f->server, server, proto);
}

/* Turns the loop until the condition holds; a test that waits in vain is ended by its time limit. Without blocking: what
 * in-memory streams do happens at the end of a turn, and wakes nobody. */
#define TURN_UNTIL(f, condition)                     \
	do {                                         \
		while (!(condition))                 \
			loop_turn((f)->loop, false); \
	} while (0)

static void send_text(struct fix *f, const char *text)
{
	assert_ok(stream_write(f->client, text, strlen(text)));
}

static bool got(struct fix *f, const char *text)
{
	return strstr(buf_str(&f->got), text);
}

static void test_requests(void **state)
{
	struct fix *f = *state;

	for (size_t chunk = 0; chunk < 3; chunk++) {
		connect_client(f, chunk, chunk ? NULL : "http/1.1");
		send_text(f, "GET /hello?a HTTP/1.1\r\nHost: x\r\n\r\nGET /hello?b "
			     "HTTP/1.1\r\nHost: x\r\n\r\n");
		TURN_UNTIL(f, got(f, "hello a") && got(f, "hello b"));
		send_text(f, "GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
		TURN_UNTIL(f, f->closed);
		assert_true(got(f, "HTTP/1.1 404 "));
		assert_true(got(f, "connection: close\r\n"));
		f->closed = false;
		buf_reset(&f->got);
	}
	TURN_UNTIL(f, !http_server_conns(f->server));
}

static void test_bad_request_is_answered(void **state)
{
	struct fix *f = *state;

	connect_client(f, 0, NULL);
	send_text(f, "this is not HTTP at all\r\n\r\n");
	TURN_UNTIL(f, f->closed);
	assert_true(got(f, "HTTP/1.1 400 "));
	assert_int_equal(http_server_conns(f->server), 0);
}

/* The bytes behind the head reach the new owner first, whether they came with it or later. */
static void test_hand_over(void **state)
{
	struct fix *f = *state;

	for (size_t chunk = 0; chunk < 4; chunk++) {
		connect_client(f, chunk, NULL);
		send_text(f, "GET /raw HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: "
			     "raw\r\n\r\nearly \x01\x02");
		TURN_UNTIL(f, f->raw);
		send_text(f, " late");
		TURN_UNTIL(f, f->raw_got.len == 13);
		assert_memory_equal(f->raw_got.data, "early \x01\x02 late", 13);
		TURN_UNTIL(f, got(f, " late"));
		assert_int_equal(
			strncmp(buf_str(&f->got), "HTTP/1.1 101 Switching Protocols\r\n", 34), 0);
		assert_true(got(f, "\r\n\r\nearly \x01\x02 late"));
		/* the server has forgotten it, and lives on without harm to it */
		TURN_UNTIL(f, !http_server_conns(f->server));
		stream_close(f->client);
		f->client = NULL;
		TURN_UNTIL(f, f->raw_closed);
		f->raw_closed = false;
		buf_reset(&f->got);
		buf_reset(&f->raw_got);
	}
}

/* A reader that stops: what waits for it is bounded, and all of it arrives when it goes on. */
static void test_slow_reader(void **state)
{
	const size_t total = 20u << 20;
	struct fix *f = *state;

	f->big_left = total;
	connect_client(f, 0, NULL);
	stream_pause_read(f->client);
	send_text(f, "GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
	for (size_t before = 0; before != f->big_left;) {
		before = f->big_left;
		for (int i = 0; i < 10; i++)
			loop_turn(f->loop, false);
		if (before == total)
			before = 0; /* not begun */
	}
	assert_in_range(total - f->big_left, 1,
			LIM_GRPC_STREAM_QUEUE_BYTES + LIM_STREAM_HARD_BYTES / 4);
	assert_true(f->big_left > 0);
	stream_resume_read(f->client);
	TURN_UNTIL(f, f->closes == 1);
	TURN_UNTIL(f, f->got.len > total && !memcmp(f->got.data + f->got.len - 5, "0\r\n\r\n", 5));
	assert_int_equal(f->big_left, 0);
}

static void drained(void *arg)
{
	*(bool *)arg = true;
}

static void test_drain(void **state)
{
	struct fix *f = *state;
	bool done = false;

	connect_client(f, 0, NULL);
	send_text(f, "GET /hello?a HTTP/1.1\r\nHost: x\r\n\r\n");
	TURN_UNTIL(f, got(f, "hello a"));
	/* an idle connection does not wait for the grace to pass (the test's time limit would) */
	http_server_drain(f->server, 1000000, drained, &done);
	TURN_UNTIL(f, done && f->closed);
	assert_int_equal(http_server_conns(f->server), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_requests, begin, end),
		cmocka_unit_test_setup_teardown(test_bad_request_is_answered, begin, end),
		cmocka_unit_test_setup_teardown(test_hand_over, begin, end),
		cmocka_unit_test_setup_teardown(test_slow_reader, begin, end),
		cmocka_unit_test_setup_teardown(test_drain, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
