/* The HTTP/1.1 engine: what comes one after the other, when it waits, and how it ends.
 * LIBS: net */
#include "tests/unit/net/http1_fix.h"

static void test_backpressure(void **state UNUSED)
{
	struct http_request *req;
	struct buf block = BUF_INIT;
	struct fix f;
	size_t before;

	for (int i = 0; i < 65536; i++)
		buf_u8(&block, 'x');
	begin(&f);
	f.seen.mode = LATER;
	f.seen.hold = true;
	assert_ok(feed_str(&f, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n"));
	for (int i = 0; i < 8; i++)
		assert_ok(feed(&f, block.data, block.len));
	/* 512 KiB came, the handler acknowledged nothing: it got the window and no more */
	assert_int_equal(f.seen.body.len, 256 << 10);
	req = f.seen.req;
	http_consume(req, 100000);
	f.conn.engine->ops->drain(f.conn.engine);
	before = f.seen.body.len;
	assert_in_range(before, 300000, 430000);
	http_consume(req, before - 100000);
	f.conn.engine->ops->drain(f.conn.engine);
	assert_int_equal(f.seen.body.len, 512 << 10);
	end(&f);

	/* output: the connection takes LIM_CONN_PENDING_BYTES, the rest waits in the request up to its limit */
	begin(&f);
	f.seen.mode = LATER;
	assert_ok(feed_str(&f, GET));
	req = f.seen.req;
	assert_ok(http_respond(req, 200, NULL, 0, false));
	for (unsigned sent = 0; sent + 65536 <= LIM_GRPC_STREAM_QUEUE_BYTES - 65536; sent += 65536)
		assert_ok(http_write_copy(req, block.data, block.len, false));
	assert_ok(http_write_copy(req, block.data, 60000, false));
	assert_err(http_write_copy(req, block.data, block.len, false), ERR_LIMIT);
	assert_int_equal(f.seen.writables, 0);
	for (int i = 0; i < 100 && http_backlog(req); i++) {
		f.conn.engine->ops->drain(f.conn.engine);
		assert_in_range(f.out.len, 1, LIM_CONN_PENDING_BYTES + 65536);
		buf_reset(&f.out);
	}
	assert_int_equal(http_backlog(req), 0);
	assert_int_equal(f.seen.writables, 1);
	assert_ok(http_write_copy(req, "x", 1, true));
	f.conn.engine->ops->drain(f.conn.engine);
	assert_string_equal(buf_str(&f.out), "1\r\nx\r\n0\r\n\r\n");
	assert_int_equal(f.seen.closes, 1);
	end(&f);
	buf_done(&block);
}

static void test_pipelining_is_bounded(void **state UNUSED)
{
	struct fix f;
	int rv = 0, n;

	begin(&f);
	f.seen.mode = LATER;
	assert_ok(feed_str(&f, GET GET GET));
	/* one at a time */
	assert_int_equal(f.seen.requests, 1);
	for (n = 0; n < 100000 && !rv; n++)
		rv = feed_str(&f, GET);
	assert_err(rv, ERR_PROTOCOL);
	assert_in_range(n * strlen(GET), 500 << 10, 2 << 20);
	assert_int_equal(f.seen.requests, 1);
	end(&f);
}

static void test_expect(void **state UNUSED)
{
	struct fix f;

	begin(&f);
	assert_ok(feed_str(
		&f,
		"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n"));
	assert_string_equal(buf_str(&f.out), "HTTP/1.1 100 Continue\r\n\r\n");
	assert_ok(feed_str(&f, "ok"));
	assert_contains(buf_str(&f.out), "\r\n\r\nok");
	assert_false(finished(&f));
	end(&f);

	/* refused at once: the body may never come, so the connection ends */
	begin(&f);
	f.seen.mode = AT_HEAD;
	assert_ok(feed_str(
		&f,
		"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"));
	assert_contains(buf_str(&f.out), "HTTP/1.1 403 Forbidden\r\n");
	assert_contains(buf_str(&f.out), "connection: close\r\n");
	assert_lacks(buf_str(&f.out), "100 Continue");
	assert_true(finished(&f));
	end(&f);
}

/* Answered before the body has come: the rest of it is passed over, a small one at least. */
static void test_early_answer(void **state UNUSED)
{
	struct fix f;

	begin(&f);
	f.seen.mode = AT_HEAD;
	assert_ok(feed_str(&f, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"));
	assert_int_equal(f.seen.closes, 1);
	assert_ok(feed_str(&f, "01234"));
	assert_ok(feed_str(&f, "56789" GET));
	assert_int_equal(f.seen.body.len, 0);
	assert_int_equal(f.seen.ends, 0);
	assert_int_equal(f.seen.requests, 2);
	end(&f);

	begin(&f);
	f.seen.mode = AT_HEAD;
	assert_ok(feed_str(&f, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n"));
	for (int i = 0; i < 300 && !finished(&f); i++) {
		char block[1024] = {0};

		assert_ok(feed(&f, block, sizeof(block)));
	}
	assert_true(finished(&f));
	end(&f);
}

static void test_upgrade(void **state UNUSED)
{
	struct fix f;

	for (int at_end = 0; at_end < 2; at_end++) {
		begin(&f);
		f.seen.mode = at_end ? UPGRADE_AT_END : UPGRADE;
		assert_ok(feed_str(&f, "GET /ts HTTP/1.1\r\nHost: x\r\nUpgrade: "
				       "test\r\nConnection: upgrade\r\n\r\nRAW"));
		assert_ok(f.seen.rv);
		assert_string_equal(buf_str(&f.out),
				    "HTTP/1.1 101 Switching Protocols\r\n"
				    "connection: upgrade\r\nupgrade: test\r\n\r\n");
		assert_int_equal(f.seen.closes, 1);
		assert_int_equal(f.seen.close_code, 0);
		assert_true(finished(&f));
		end(&f);
	}
	/* with a body: only when it is complete */
	begin(&f);
	f.seen.mode = UPGRADE;
	assert_ok(feed_str(&f, "POST /ts HTTP/1.1\r\nHost: x\r\nUpgrade: t\r\nConnection: "
			       "upgrade\r\nContent-Length: 2\r\n\r\n"));
	assert_err(f.seen.rv, ERR_UNIMPLEMENTED);
	assert_false(finished(&f));
	end(&f);
	begin(&f);
	f.seen.mode = UPGRADE_AT_END;
	assert_ok(feed_str(&f, "POST /ts HTTP/1.1\r\nHost: x\r\nUpgrade: t\r\nConnection: "
			       "upgrade\r\nContent-Length: 2\r\n\r\nab"));
	assert_contains(buf_str(&f.out), "HTTP/1.1 101 ");
	assert_true(finished(&f));
	end(&f);
}

static void test_reset_and_misuse(void **state UNUSED)
{
	static const struct http_header two = {"content-length", "2"};
	struct http_request *req;
	struct fix f;

	begin(&f);
	f.seen.mode = RESET;
	assert_ok(feed_str(&f, GET GET));
	assert_int_equal(f.seen.requests, 1);
	assert_int_equal(f.seen.closes, 1);
	assert_int_equal(f.seen.close_code, ERR_CANCELLED);
	assert_int_equal(f.out.len, 0);
	assert_true(finished(&f));
	end(&f);

	begin(&f);
	f.seen.mode = NO_HANDLER;
	assert_ok(feed_str(&f, GET));
	assert_contains(buf_str(&f.out), "HTTP/1.1 500 ");
	end(&f);

	/* a body that is not as long as announced cuts the connection */
	for (int i = 0; i < 2; i++) {
		begin(&f);
		f.seen.mode = LATER;
		assert_ok(feed_str(&f, GET));
		req = f.seen.req;
		assert_err(http_write_copy(req, "x", 1, false), ERR_PRECONDITION);
		assert_ok(http_respond(req, 200, &two, 1, false));
		assert_err(http_respond(req, 200, &two, 1, false), ERR_PRECONDITION);
		assert_err(http_trailers(req, NULL, 0), ERR_UNIMPLEMENTED);
		assert_true(http_write_copy(req, "abc", i ? 1 : 3, true) < 0);
		f.conn.engine->ops->drain(f.conn.engine);
		assert_true(finished(&f));
		assert_int_equal(f.seen.closes, 1);
		end(&f);
	}
	/* the connection ends while the handler thinks */
	begin(&f);
	f.seen.mode = LATER;
	assert_ok(feed_str(&f, GET));
	end(&f);
	assert_int_equal(f.seen.closes, 1);
	assert_int_equal(f.seen.close_code, ERR_CLOSED);
}

/* No header of a handler can split the answer or contradict the engine. */
static void test_response_headers(void **state UNUSED)
{
	static const struct http_header headers[] = {
		{"x-ok", "1"},
		{"x-split", "a\r\nset-cookie: b"},
		{"connection", "x"},
		{"transfer-encoding", "gzip"},
	};
	struct fix f;

	begin(&f);
	f.seen.mode = LATER;
	assert_ok(feed_str(&f, GET));
	assert_ok(http_respond(f.seen.req, 200, headers, ARRAY_LEN(headers), true));
	f.conn.engine->ops->drain(f.conn.engine);
	drop_dates(&f.out);
	assert_string_equal(buf_str(&f.out),
			    "HTTP/1.1 200 OK\r\nx-ok: 1\r\ncontent-length: 0\r\n\r\n");
	end(&f);
}

static void test_shutdown(void **state UNUSED)
{
	struct fix f;

	begin(&f);
	f.conn.engine->ops->shutdown(f.conn.engine);
	assert_true(finished(&f));
	end(&f);

	begin(&f);
	f.seen.mode = LATER;
	assert_ok(feed_str(&f, GET GET));
	f.conn.engine->ops->shutdown(f.conn.engine);
	assert_false(finished(&f));
	assert_int_equal(f.conn.engine->ops->active(f.conn.engine), 1);
	assert_ok(http_respond(f.seen.req, 204, NULL, 0, true));
	f.conn.engine->ops->drain(f.conn.engine);
	assert_contains(buf_str(&f.out), "connection: close\r\n");
	assert_true(finished(&f));
	assert_int_equal(f.seen.requests, 1);
	assert_int_equal(f.conn.engine->ops->active(f.conn.engine), 0);
	end(&f);
}

static int tick(struct fix *f, uint64_t ms)
{
	int rv = f->conn.engine->ops->tick(f->conn.engine, ms, NULL);

	f->conn.engine->ops->drain(f->conn.engine);
	return rv;
}

static void test_slow_clients(void **state UNUSED)
{
	uint64_t now = 1000;
	struct fix f;
	int rv = 0;

	/* a byte of the head every second */
	begin(&f);
	assert_ok(tick(&f, now));
	for (; now < 60000 && !rv; now += 1000) {
		assert_ok(feed(&f, &GET[now / 1000 - 1], 1));
		rv = tick(&f, now);
	}
	assert_err(rv, ERR_PROTOCOL);
	assert_in_range(now, 10000, 13000);
	assert_contains(buf_str(&f.out), "HTTP/1.1 408 ");
	end(&f);

	/* a waiting connection is not slow */
	begin(&f);
	f.seen.mode = EMPTY;
	assert_ok(tick(&f, 1000));
	assert_ok(tick(&f, 1000000));
	assert_ok(feed_str(&f, GET));
	assert_ok(tick(&f, 2000000));
	end(&f);

	/* 100 bytes of body a second are too few; a handler that holds the window is not the client's fault */
	for (int hold = 0; hold < 2; hold++) {
		char block[256 << 10] = {0};

		begin(&f);
		f.seen.mode = LATER;
		f.seen.hold = hold;
		now = 1000;
		rv = 0;
		assert_ok(feed_str(
			&f, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"));
		if (hold)
			assert_ok(feed(&f, block, sizeof(block)));
		for (; now < 40000 && !rv; now += 1000) {
			if (!hold)
				assert_ok(feed(&f, block, 100));
			rv = tick(&f, now);
		}
		if (hold) {
			assert_ok(rv);
			assert_err(tick(&f, 1000 + LIM_HTTP_BODY_MS), ERR_PROTOCOL);
		} else {
			assert_err(rv, ERR_PROTOCOL);
			assert_in_range(now, 20000, 24000);
		}
		assert_contains(buf_str(&f.out), "HTTP/1.1 408 ");
		assert_int_equal(f.seen.closes, 1);
		end(&f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_backpressure),
		cmocka_unit_test(test_pipelining_is_bounded),
		cmocka_unit_test(test_expect),
		cmocka_unit_test(test_early_answer),
		cmocka_unit_test(test_upgrade),
		cmocka_unit_test(test_reset_and_misuse),
		cmocka_unit_test(test_response_headers),
		cmocka_unit_test(test_shutdown),
		cmocka_unit_test(test_slow_clients),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
