/* Connections of the HTTP server over real sockets: idle, stalled, too old, upgraded, drained. */
/* LIBS: net */
#include "tests/lib/test.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/mem.h"
#include "net/http.h"
#include "net/listen.h"
#include "net/loop.h"
#include "net/stream.h"

struct rig {
	struct loop *loop;
	struct http_router *router;
	struct http_server *http;
	struct listener *listener;
	struct blob *megabyte;
	int closed, cut;
	bool drained;
};

static void big_close(void *arg, struct http_request *req, const struct err *err)
{
	struct rig *r = arg;

	(void)req;
	r->closed++;
	r->cut += err != NULL;
}

static void big_body(void *arg, struct http_request *req, const uint8_t *data, size_t len)
{
	(void)arg;
	(void)data;
	http_consume(req, len);
}

static void big_end(void *arg, struct http_request *req)
{
	(void)arg;
	(void)req;
}

static const struct http_request_handler big_handler = {
	.on_body = big_body,
	.on_end = big_end,
	.on_close = big_close,
};

/* Answers with as much as the queue takes. */
static void big(void *arg, struct http_request *req)
{
	struct rig *r = arg;
	int n = 0;

	http_set_handler(req, &big_handler, r);
	assert_ok(http_respond(req, 200, NULL, 0, false));
	while (http_write(req, r->megabyte, 0, r->megabyte->len, false) == 0) {
		n++;
	}
	assert_true(n >= 4 && n <= 8); /* bounded */
}

static void small(void *arg, struct http_request *req)
{
	(void)arg;
	http_set_handler(req, &http_ignore_handler, NULL);
	http_reply_text(req, 200, "small\n");
}

static void on_conn(void *arg, struct stream *stream)
{
	http_server_accept(((struct rig *)arg)->http, stream, NULL);
}

static void rig_init(struct rig *r, const struct http_server_opts *opts)
{
	const struct listener_opts listen = {.address = "127.0.0.1:0"};
	uint8_t *zeros = mem_zalloc(1 << 20);

	memset(r, 0, sizeof(*r));
	r->loop = loop_new("http");
	r->router = http_router_new();
	r->http = http_server_new(r->loop, r->router);
	r->megabyte = blob_new(zeros, 1 << 20);
	mem_free(zeros);
	http_mount(r->router, HTTP_MATCH_EXACT, "/big", big, r);
	http_mount(r->router, HTTP_MATCH_PREFIX, "/small", small, r);
	if (opts != NULL) {
		http_server_set_opts(r->http, opts);
	}
	assert_ok(listener_new(r->loop, &listen, on_conn, r, &r->listener, NULL));
}

static void rig_done(struct rig *r)
{
	listener_free(r->listener);
	http_server_free(r->http);
	http_router_free(r->router);
	blob_unref(r->megabyte);
	loop_free(r->loop);
}

static int connect_to(struct rig *r)
{
	struct sockaddr_in sin = {
		.sin_family = AF_INET,
		.sin_port = htons(listener_port(r->listener)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	return fd;
}

static void say(int fd, const void *data, size_t len)
{
	assert_int_equal(send(fd, data, len, MSG_NOSIGNAL), len);
}

#define H2_START "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"

/* :method GET, :scheme http, :path /big, :authority x; on stream 1. */
static const char get_big[] = "\0\0\x0b\1\5\0\0\0\1\x82\x86\x04\4/big\x01\1x";

static void test_idle_and_silent(void **state)
{
	const struct http_server_opts opts = {.idle_ms = 1};
	struct rig r;

	(void)state;
	rig_init(&r, &opts);
	int idle = connect_to(&r), kept = connect_to(&r);
	say(idle, H2_START, sizeof(H2_START) - 1);
	say(kept, "GET /small HTTP/1.1\r\nHost: x\r\n\r\n", 32);
	while (http_server_conns(r.http) < 2) {
		loop_turn(r.loop, true);
	}
	/* Both are idle: GOAWAY, and the end of the HTTP/1.1 connection. */
	while (http_server_conns(r.http) > 0) {
		loop_turn(r.loop, true);
	}
	char got[4096];
	ssize_t n = recv(kept, got, sizeof(got) - 1, 0);
	assert_true(n > 0);
	got[n] = '\0';
	assert_contains(got, "small");
	close(idle);
	close(kept);
	rig_done(&r);
}

/* A client that asks for much and reads nothing is cut after a while, and only then. */
static void test_stalled(void **state)
{
	const struct http_server_opts opts = {.stall_ms = 1};
	struct rig r;

	(void)state;
	rig_init(&r, &opts);
	int fd = connect_to(&r);
	/* A window that is large enough for the server to fill the kernel's buffers. */
	static const char start[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
				    "\0\0\6\4\0\0\0\0\0\0\4\x7f\xff\xff\xff"
				    "\0\0\4\x08\0\0\0\0\0\x7f\0\0\0";
	say(fd, start, sizeof(start) - 1);
	say(fd, get_big, sizeof(get_big) - 1);
	while (http_server_conns(r.http) == 0) {
		loop_turn(r.loop, true);
	}
	while (http_server_conns(r.http) > 0) {
		loop_turn(r.loop, true);
	}
	assert_int_equal(r.closed, 1);
	assert_int_equal(r.cut, 1);
	close(fd);
	rig_done(&r);
}

static void on_drained(void *arg)
{
	((struct rig *)arg)->drained = true;
}

static void test_drain_with_grace(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, NULL);
	int fd = connect_to(&r);
	say(fd, H2_START, sizeof(H2_START) - 1);
	say(fd, get_big, sizeof(get_big) - 1);
	int undecided = connect_to(&r); /* has not said which protocol */
	say(undecided, "PR", 2);
	while (http_server_conns(r.http) < 2) {
		loop_turn(r.loop, true);
	}
	for (int i = 0; i < 10; i++) {
		loop_turn(r.loop, false);
	}
	/* The request never ends: the grace does. */
	http_server_drain(r.http, 50, on_drained, &r);
	assert_false(r.drained);
	while (!r.drained) {
		loop_turn(r.loop, true);
	}
	assert_int_equal(http_server_conns(r.http), 0);
	close(fd);
	close(undecided);
	rig_done(&r);
	/* Nothing to drain: done at once, but in a later turn. */
	rig_init(&r, NULL);
	http_server_drain(r.http, 60000, on_drained, &r);
	assert_false(r.drained);
	while (!r.drained) {
		loop_turn(r.loop, true);
	}
	rig_done(&r);
}

/* ---- Upgrades -------------------------------------------------------------------------------- */

static struct http_request *waiting;
static struct buf raw_in;
static bool raw_closed;

static void upgrade_close(void *arg, struct http_request *req, const struct err *err)
{
	(void)arg;
	(void)req;
	assert_null(err);
	waiting = NULL;
}

static const struct http_request_handler upgrade_handler = {
	.on_body = big_body,
	.on_end = big_end,
	.on_close = upgrade_close,
};

static void upgrade(void *arg, struct http_request *req)
{
	(void)arg;
	waiting = req;
	http_set_handler(req, &upgrade_handler, NULL);
}

static void raw_data(void *arg, const uint8_t *data, size_t len)
{
	(void)arg;
	buf_append(&raw_in, data, len);
}

static void raw_close(void *arg, const struct err *err)
{
	(void)arg;
	(void)err;
	raw_closed = true;
}

static const struct stream_handler raw_handler = {.on_data = raw_data, .on_close = raw_close};

/* A handler may think before it takes the connection; bytes sent meanwhile are not lost. */
static void test_upgrade_later(void **state)
{
	static const char head[] = "GET /up HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
				   "Upgrade: DERP\r\n\r\nearly ";
	const struct http_header answer[] = {{"connection", "Upgrade"}, {"upgrade", "DERP"}};
	struct rig r;
	struct stream *stream;
	char got[256] = "";
	size_t n = 0;

	(void)state;
	rig_init(&r, NULL);
	http_mount(r.router, HTTP_MATCH_EXACT, "/up", upgrade, NULL);
	int fd = connect_to(&r);
	say(fd, head, sizeof(head) - 1);
	while (waiting == NULL) {
		loop_turn(r.loop, true);
	}
	for (int i = 0; i < 3; i++) {
		loop_turn(r.loop, false);
	}
	assert_int_equal(http_server_conns(r.http), 1);
	assert_ok(http_upgrade(waiting, 101, answer, 2, &stream));
	assert_null(waiting);
	say(fd, "late", 4);
	for (int i = 0; i < 3; i++) {
		loop_turn(r.loop, false); /* no handler yet */
	}
	assert_int_equal(http_server_conns(r.http), 0);
	stream_set_handler(stream, &raw_handler, NULL);
	while (raw_in.len < 10) {
		loop_turn(r.loop, true);
	}
	assert_memory_equal(raw_in.data, "early late", 10);
	assert_ok(stream_write(stream, "hi", 2));
	while (n < 4 || memcmp(got + n - 2, "hi", 2) != 0) {
		loop_turn(r.loop, false);
		ssize_t k = recv(fd, got + n, sizeof(got) - n - 1, MSG_DONTWAIT);
		n += k > 0 ? (size_t)k : 0;
	}
	assert_contains(got, "HTTP/1.1 101 ");
	close(fd);
	while (!raw_closed) {
		loop_turn(r.loop, true);
	}
	buf_done(&raw_in);
	rig_done(&r);
}

/* ---- Routes and per-connection data, without sockets ------------------------------------------ */

static const char *routed;

static void to_exact(void *arg, struct http_request *req)
{
	routed = arg;
	http_set_handler(req, &http_ignore_handler, NULL);
}

static void test_routes(void **state)
{
	struct http_router *router = http_router_new();
	struct http_header grpc = {"content-type", "application/grpc+proto"};
	const struct {
		const char *path;
		bool grpc;
		const char *to;
	} cases[] = {
		{"/a", false, "exact"}, {"/a/b", false, "prefix"}, {"/a/b/c", false, "longer"},
		{"/x", false, "rest"},  {"/a", true, "content"},   {"/a/", false, "prefix"},
		{"/A", false, "rest"},
	};

	(void)state;
	http_mount(router, HTTP_MATCH_EXACT, "/a", to_exact, (void *)"exact");
	http_mount(router, HTTP_MATCH_PREFIX, "/a/", to_exact, (void *)"prefix");
	http_mount(router, HTTP_MATCH_PREFIX, "/a/b/", to_exact, (void *)"longer");
	http_mount(router, HTTP_MATCH_CONTENT, "application/grpc", to_exact, (void *)"content");
	http_mount(router, HTTP_MATCH_REST, NULL, to_exact, (void *)"rest");
	TEST_TABLE(c, cases)
	{
		struct http_request req = {
			.path = c->path,
			.headers = &grpc,
			.n_headers = c->grpc ? 1 : 0,
		};

		http_route(router, &req);
		assert_string_equal(routed, c->to);
	}
	http_router_free(router);
}

static int freed;

static void count_free(void *user)
{
	(void)user;
	freed++;
}

static void test_connection_data(void **state)
{
	static const char kind_a, kind_b;
	struct http_conn conn = {0};
	int one, two;

	(void)state;
	http_conn_set_user(&conn, &kind_a, &one, count_free);
	assert_ptr_equal(http_conn_user(&conn, &kind_a), &one);
	assert_null(http_conn_user(&conn, &kind_b));
	http_conn_set_user(&conn, &kind_b, &two, count_free);
	assert_int_equal(freed, 1);
	assert_null(http_conn_user(&conn, &kind_a));
	http_conn_set_user(&conn, NULL, NULL, NULL);
	assert_int_equal(freed, 2);
}

int main(void)
{
	crypto_init();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_idle_and_silent),  cmocka_unit_test(test_stalled),
		cmocka_unit_test(test_drain_with_grace), cmocka_unit_test(test_routes),
		cmocka_unit_test(test_upgrade_later),    cmocka_unit_test(test_connection_data),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
