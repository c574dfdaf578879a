/* The HTTP/2 engine alone, bytes in and bytes out. */
/* LIBS: net */
#include "tests/lib/test.h"

#include <nghttp2/nghttp2.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/mem.h"
#include "net/h2.h"

/* ---- A handler that echoes the body, and remembers ------------------------------------------- */

struct exchange {
	struct buf body;
};

static int opened, closed, cut;
static char last_path[64], last_query[64];
static bool hold_bodies;

static void echo_body(void *arg, struct http_request *req, const uint8_t *data, size_t len)
{
	struct exchange *x = arg;

	buf_append(&x->body, data, len);
	if (!hold_bodies) {
		http_consume(req, len);
	}
}

static void echo_end(void *arg, struct http_request *req)
{
	struct exchange *x = arg;

	http_reply(req, 200, "application/octet-stream", x->body.data, x->body.len);
}

static void echo_close(void *arg, struct http_request *req, const struct err *err)
{
	struct exchange *x = arg;

	(void)req;
	closed++;
	cut += err != NULL;
	buf_done(&x->body);
	mem_free(x);
}

static const struct http_request_handler echo_handler = {
	.on_body = echo_body,
	.on_end = echo_end,
	.on_close = echo_close,
};

static void echo(void *arg, struct http_request *req)
{
	(void)arg;
	opened++;
	snprintf(last_path, sizeof(last_path), "%s", req->path);
	snprintf(last_query, sizeof(last_query), "%s", req->query);
	http_set_handler(req, &echo_handler, MEM_NEW(struct exchange));
}

/* ---- The engine under test -------------------------------------------------------------------- */

struct rig {
	struct http_conn conn;
	struct buf out;
	struct http_router *router;
	struct err err;
};

static void rig_init(struct rig *r)
{
	memset(r, 0, sizeof(*r));
	opened = closed = cut = 0;
	hold_bodies = false;
	r->router = http_router_new();
	http_mount(r->router, HTTP_MATCH_PREFIX, "/echo", echo, NULL);
	r->conn.router = r->router;
	r->conn.test_out = &r->out;
	r->conn.engine = h2_server_new(&r->conn, NULL);
}

static int rig_feed(struct rig *r, const uint8_t *data, size_t len)
{
	return r->conn.engine->ops->feed(r->conn.engine, data, len, &r->err);
}

static void rig_drain(struct rig *r)
{
	r->conn.engine->ops->drain(r->conn.engine);
}

static void rig_done(struct rig *r)
{
	struct err err = {0};

	err_set(&err, ERR_CLOSED, "test over");
	r->conn.engine->ops->destroy(r->conn.engine, &err);
	assert_int_equal(opened, closed);
	http_router_free(r->router);
	buf_done(&r->out);
}

/* ---- A client to make bytes and to read answers ------------------------------------------------ */

struct answer {
	int status;
	struct buf body;
	bool over;
	uint32_t code;
};

struct client {
	nghttp2_session *session;
	struct answer answers[64]; /* by stream id / 2 */
	uint32_t goaway;
	bool got_goaway;
};

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
		     void *user)
{
	struct client *c = user;

	(void)session;
	(void)flags;
	(void)value_len;
	if (name_len == 7 && memcmp(name, ":status", 7) == 0) {
		c->answers[frame->hd.stream_id / 2].status = atoi((const char *)value);
	}
	return 0;
}

static int on_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
		    size_t len, void *user)
{
	struct client *c = user;

	(void)session;
	(void)flags;
	buf_append(&c->answers[id / 2].body, data, len);
	return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *user)
{
	struct client *c = user;

	(void)session;
	c->answers[id / 2].over = true;
	c->answers[id / 2].code = code;
	return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct client *c = user;

	(void)session;
	if (frame->hd.type == NGHTTP2_GOAWAY) {
		c->got_goaway = true;
		c->goaway = frame->goaway.error_code;
	}
	return 0;
}

static void client_init(struct client *c)
{
	nghttp2_session_callbacks *cb;

	memset(c, 0, sizeof(*c));
	nghttp2_session_callbacks_new(&cb);
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_chunk);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
	assert_int_equal(nghttp2_session_client_new(&c->session, cb, c), 0);
	nghttp2_session_callbacks_del(cb);
	nghttp2_submit_settings(c->session, 0, NULL, 0);
}

static void client_done(struct client *c)
{
	nghttp2_session_del(c->session);
	for (size_t i = 0; i < ARRAY_LEN(c->answers); i++) {
		buf_done(&c->answers[i].body);
	}
}

struct source {
	const uint8_t *data;
	size_t len;
};

static ssize_t on_read(nghttp2_session *session, int32_t id, uint8_t *buf, size_t len,
		       uint32_t *flags, nghttp2_data_source *src, void *user)
{
	struct source *s = src->ptr;
	size_t n = MIN(len, s->len);

	(void)session;
	(void)id;
	(void)user;
	memcpy(buf, s->data, n);
	s->data += n;
	s->len -= n;
	if (s->len == 0) {
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	}
	return (ssize_t)n;
}

#define NV(n, v)                                                                       \
	{                                                                              \
		.name = (uint8_t *)(n), .namelen = strlen(n), .value = (uint8_t *)(v), \
		.valuelen = strlen(v),                                                 \
	}

static int32_t client_post(struct client *c, const char *path, struct source *body,
			   const char *extra)
{
	const nghttp2_nv nva[] = {
		NV(":method", "POST"),
		NV(":scheme", "http"),
		NV(":authority", "here"),
		NV(":path", path),
		NV("x-extra", extra != NULL ? extra : ""),
	};
	nghttp2_data_provider provider = {.source.ptr = body, .read_callback = on_read};

	return nghttp2_submit_request(c->session, NULL, nva, extra != NULL ? 5 : 4,
				      body != NULL ? &provider : NULL, NULL);
}

static void client_take(struct client *c, struct buf *out)
{
	const uint8_t *data;
	ssize_t n;

	while ((n = nghttp2_session_mem_send(c->session, &data)) > 0) {
		buf_append(out, data, (size_t)n);
	}
}

/* Lets both talk until neither has anything to say. */
static void converse(struct rig *r, struct client *c)
{
	struct buf bytes = BUF_INIT;

	for (;;) {
		client_take(c, &bytes);
		if (bytes.len > 0 && rig_feed(r, bytes.data, bytes.len) < 0) {
			rig_drain(r);
			break;
		}
		rig_drain(r);
		if (r->out.len == 0 && bytes.len == 0) {
			break;
		}
		assert_int_equal(nghttp2_session_mem_recv(c->session, r->out.data, r->out.len),
				 r->out.len);
		buf_reset(&r->out);
		buf_reset(&bytes);
	}
	if (r->out.len > 0) {
		(void)nghttp2_session_mem_recv(c->session, r->out.data, r->out.len);
		buf_reset(&r->out);
	}
	buf_done(&bytes);
}

/* ---- Tests ------------------------------------------------------------------------------------- */

static void test_echo(void **state)
{
	static uint8_t big[300000];
	struct source body = {big, sizeof(big)};
	struct rig r;
	struct client c;

	(void)state;
	for (size_t i = 0; i < sizeof(big); i++) {
		big[i] = (uint8_t)(i >> 5);
	}
	rig_init(&r);
	client_init(&c);
	client_post(&c, "/echo/a?x=1&y", &body, NULL);
	client_post(&c, "/nothing", NULL, NULL);
	converse(&r, &c);
	assert_string_equal(last_path, "/echo/a");
	assert_string_equal(last_query, "x=1&y");
	assert_int_equal(c.answers[0].status, 200);
	assert_int_equal(c.answers[0].body.len, sizeof(big));
	assert_memory_equal(c.answers[0].body.data, big, sizeof(big));
	assert_int_equal(c.answers[1].status, 404);
	assert_int_equal(closed, 1);
	assert_int_equal(cut, 0);
	assert_int_equal(r.conn.queued, 0);
	client_done(&c);
	rig_done(&r);
}

/* The same session cut at every byte gives the same answer, byte for byte. */
static void test_split_at_every_byte(void **state)
{
	struct source one = {(const uint8_t *)"hello", 5}, two = {(const uint8_t *)"there", 5};
	struct client c;
	struct buf session = BUF_INIT, whole = BUF_INIT;

	(void)state;
	client_init(&c);
	client_post(&c, "/echo/1", &one, NULL);
	client_post(&c, "/echo/2?q", &two, "some header");
	client_post(&c, "/none", NULL, NULL);
	client_take(&c, &session);
	client_done(&c);
	for (size_t cut_at = 0; cut_at < session.len; cut_at++) {
		struct rig r;

		rig_init(&r);
		assert_ok(rig_feed(&r, session.data, cut_at));
		assert_ok(rig_feed(&r, session.data + cut_at, session.len - cut_at));
		rig_drain(&r);
		if (cut_at == 0) {
			buf_append(&whole, r.out.data, r.out.len);
		}
		assert_int_equal(r.out.len, whole.len);
		assert_memory_equal(r.out.data, whole.data, whole.len);
		assert_int_equal(opened, 2);
		rig_done(&r);
	}
	/* And a byte at a time. */
	struct rig r;
	rig_init(&r);
	for (size_t i = 0; i < session.len; i++) {
		assert_ok(rig_feed(&r, session.data + i, 1));
	}
	rig_drain(&r);
	assert_int_equal(r.out.len, whole.len);
	assert_memory_equal(r.out.data, whole.data, whole.len);
	rig_done(&r);
	buf_done(&session);
	buf_done(&whole);
}

static void test_header_limits(void **state)
{
	struct rig r;
	struct client c;
	char *value = mem_alloc(12001);

	(void)state;
	memset(value, 'v', 12000);
	/* Just inside: 8 KiB less what the other fields take. */
	value[7900] = '\0';
	rig_init(&r);
	client_init(&c);
	client_post(&c, "/echo", NULL, value);
	value[7900] = 'v';
	value[12000] = '\0';
	client_post(&c, "/echo", NULL, value);
	converse(&r, &c);
	assert_int_equal(c.answers[0].status, 200);
	assert_int_equal(c.answers[1].status, 431);
	assert_false(c.got_goaway);
	/* The connection goes on. */
	client_post(&c, "/echo", NULL, NULL);
	converse(&r, &c);
	assert_int_equal(c.answers[2].status, 200);
	client_done(&c);
	rig_done(&r);
	mem_free(value);
}

static void test_path_limits(void **state)
{
	struct rig r;
	struct client c;
	char path[LIM_HTTP_PATH_BYTES + 10];

	(void)state;
	memset(path, 'a', sizeof(path));
	memcpy(path, "/echo", 5);
	path[sizeof(path) - 1] = '\0';
	rig_init(&r);
	client_init(&c);
	client_post(&c, path, NULL, NULL);
	client_post(&c, "*", NULL, NULL);
	converse(&r, &c);
	assert_int_equal(c.answers[0].status, 414);
	assert_int_equal(opened, 0);
	client_done(&c);
	rig_done(&r);
}

/* Bytes that the handler does not acknowledge close the stream's window, not the connection's. */
static void test_receive_backpressure(void **state)
{
	static uint8_t big[300000];
	struct source body = {big, sizeof(big)}, small = {big, 10};
	struct rig r;
	struct client c;

	(void)state;
	rig_init(&r);
	client_init(&c);
	hold_bodies = true;
	client_post(&c, "/echo", &body, NULL);
	converse(&r, &c);
	assert_int_equal(sizeof(big) - body.len, LIM_H2_WINDOW_BYTES);
	client_post(&c, "/echo", &small, NULL);
	converse(&r, &c);
	assert_int_equal(c.answers[1].status, 200);
	assert_int_equal(c.answers[0].status, 0);
	client_done(&c);
	rig_done(&r);
	assert_int_equal(cut, 1);
}

static void test_many_requests_at_once(void **state)
{
	struct rig r;
	struct client c;
	struct buf bytes = BUF_INIT;

	(void)state;
	rig_init(&r);
	client_init(&c);
	/* The settings are not known to the client yet: it sends all at once. */
	for (int i = 0; i < 60; i++) {
		client_post(&c, "/nothing", NULL, NULL);
	}
	client_take(&c, &bytes);
	assert_ok(rig_feed(&r, bytes.data, bytes.len));
	rig_drain(&r);
	assert_int_equal(nghttp2_session_mem_recv(c.session, r.out.data, r.out.len), r.out.len);
	for (int i = 0; i < 60; i++) {
		assert_int_equal(c.answers[i].status, 404);
	}
	buf_done(&bytes);
	client_done(&c);
	rig_done(&r);
}

static void test_shutdown(void **state)
{
	static uint8_t big[300000];
	struct source body = {big, sizeof(big)};
	struct rig r;
	struct client c;

	(void)state;
	rig_init(&r);
	client_init(&c);
	hold_bodies = true;
	client_post(&c, "/echo", &body, NULL);
	converse(&r, &c);
	assert_int_equal(r.conn.engine->ops->active(r.conn.engine), 1);
	r.conn.engine->ops->shutdown(r.conn.engine);
	converse(&r, &c);
	assert_true(c.got_goaway);
	assert_int_equal(c.goaway, NGHTTP2_NO_ERROR);
	assert_false(r.conn.engine->ops->finished(r.conn.engine)); /* the request goes on */
	nghttp2_submit_rst_stream(c.session, 0, 1, NGHTTP2_CANCEL);
	converse(&r, &c);
	assert_int_equal(closed, 1);
	assert_true(r.conn.engine->ops->finished(r.conn.engine));
	client_done(&c);
	rig_done(&r);
}

/* A burst of cancelled requests ends a stranger's connection, not one of our own kind. */
static void test_bursts_of_resets(void **state)
{
	(void)state;
	for (int trusted = 0; trusted < 2; trusted++) {
		const struct h2_server_opts opts = {.trusted = trusted == 1, .max_streams = 1000};
		struct http_conn conn = {0};
		struct buf out = BUF_INIT, bytes = BUF_INIT;
		struct http_router *router = http_router_new();
		struct err err = {0};
		struct client c;

		opened = closed = cut = 0;
		http_mount(router, HTTP_MATCH_PREFIX, "/echo", echo, NULL);
		conn.router = router;
		conn.test_out = &out;
		conn.engine = h2_server_new(&conn, &opts);
		client_init(&c);
		client_take(&c, &bytes);
		for (uint32_t id = 1; id < 1001; id += 2) {
			static const uint8_t head[] = {0, 0, 12, NGHTTP2_HEADERS, 4};
			static const uint8_t block[] = {0x83, 0x86, 0x04, 5,    '/', 'e',
							'c',  'h',  'o',  0x01, 1,   'x'};
			static const uint8_t rst[] = {0, 0, 4, NGHTTP2_RST_STREAM, 0};

			buf_append(&bytes, head, sizeof(head));
			buf_u32be(&bytes, id);
			buf_append(&bytes, block, sizeof(block));
			buf_append(&bytes, rst, sizeof(rst));
			buf_u32be(&bytes, id);
			buf_u32be(&bytes, NGHTTP2_CANCEL);
		}
		IGNORE(conn.engine->ops->feed(conn.engine, bytes.data, bytes.len, &err));
		conn.engine->ops->drain(conn.engine);
		assert_int_equal(conn.engine->ops->finished(conn.engine), trusted == 0);
		assert_int_equal(opened, 500);
		conn.engine->ops->destroy(conn.engine, &err);
		assert_int_equal(opened, closed);
		http_router_free(router);
		buf_done(&out);
		buf_done(&bytes);
		client_done(&c);
	}
}

static uint64_t fake_ns;

static uint64_t fake_mono(void *arg)
{
	(void)arg;
	return fake_ns;
}

static int64_t fake_wall(void *arg)
{
	(void)arg;
	return 0;
}

static void test_timeouts(void **state)
{
	const struct clock_source clock = {.mono_ns = fake_mono, .wall_ms = fake_wall};
	struct rig r;
	struct client c;
	struct buf bytes = BUF_INIT;
	struct err err = {0};

	(void)state;
	clock_override(&clock);
	fake_ns = 1000ull * 1000 * 1000000;
	/* No preface. */
	rig_init(&r);
	assert_ok(r.conn.engine->ops->tick(r.conn.engine, 1000000 + LIM_H2_PREFACE_MS, &err));
	assert_err(r.conn.engine->ops->tick(r.conn.engine, 1000001 + LIM_H2_PREFACE_MS, &err),
		   ERR_DEADLINE);
	rig_done(&r);
	/* A silent client is pinged, then given up. */
	rig_init(&r);
	client_init(&c);
	client_take(&c, &bytes);
	assert_ok(rig_feed(&r, bytes.data, bytes.len));
	rig_drain(&r);
	buf_reset(&r.out);
	uint64_t now = 1000001 + LIM_H2_PING_MS;
	assert_ok(r.conn.engine->ops->tick(r.conn.engine, now, &err));
	rig_drain(&r);
	assert_int_equal(r.out.len, 9 + 8);
	assert_int_equal(r.out.data[3], NGHTTP2_PING);
	assert_ok(r.conn.engine->ops->tick(r.conn.engine, now + LIM_H2_PING_TIMEOUT_MS, &err));
	assert_err(r.conn.engine->ops->tick(r.conn.engine, now + LIM_H2_PING_TIMEOUT_MS + 1, &err),
		   ERR_CLOSED);
	client_done(&c);
	rig_done(&r);
	/* A header block that does not end. */
	rig_init(&r);
	static const uint8_t half[] = {0, 0, 1, NGHTTP2_HEADERS, 0, 0, 0, 0, 1, 0x83};
	assert_ok(rig_feed(&r, bytes.data, bytes.len));
	assert_ok(rig_feed(&r, half, sizeof(half)));
	assert_err(r.conn.engine->ops->tick(r.conn.engine, 1000001 + LIM_H2_HEADERS_MS, &err),
		   ERR_DEADLINE);
	rig_done(&r);
	buf_done(&bytes);
	clock_override(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_echo),
		cmocka_unit_test(test_split_at_every_byte),
		cmocka_unit_test(test_header_limits),
		cmocka_unit_test(test_path_limits),
		cmocka_unit_test(test_receive_backpressure),
		cmocka_unit_test(test_many_requests_at_once),
		cmocka_unit_test(test_shutdown),
		cmocka_unit_test(test_timeouts),
		cmocka_unit_test(test_bursts_of_resets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
