/* Unary calls as JSON (and protobuf) over POST, through the HTTP/1.1 engine.
 * LIBS: net
 * EXTERNAL: zlib jansson */
#include "tests/lib/test.h"

#include "base/jsonx.h"
#include "base/limits.h"
#include "base/mem.h"
#include "net/connect.h"
#include "net/gzip.h"
#include "net/loop.h"
#include "proto/pb_decode.h"
#include "proto/pb_util.h"
#include "skerry/v1/admin.pb-c.h"

struct fix {
	struct loop *loop;
	struct rpc_server *server;
	struct http_conn conn;
	struct buf out;
	struct rpc_ref later;
	unsigned calls, cancels;
	int cancel_code;
	bool gate_waits;
	struct rpc_call *gated;
	char metadata[64];
	size_t raw_len;
};

static void cancelled(void *arg, struct rpc_call *call UNUSED, const struct err *why)
{
	struct fix *f = arg;

	f->cancels++;
	f->cancel_code = why->code;
}

static void get_node(void *arg, struct rpc_call *call, const ProtobufCMessage *msg)
{
	const Skerry__V1__GetNodeRequest *req = (const Skerry__V1__GetNodeRequest *)msg;
	Skerry__V1__Node node = SKERRY__V1__NODE__INIT;
	struct err err = {0};

	struct fix *f = arg;

	f->calls++;
	rpc_call_request_bytes(call, &f->raw_len);
	if (rpc_call_metadata(call, "x-test"))
		snprintf(f->metadata, sizeof(f->metadata), "%s", rpc_call_metadata(call, "x-test"));
	assert_string_equal(rpc_call_protocol(call), "connect");
	rpc_call_set_cancel_cb(call, cancelled, f);
	node.name = req->name;
	if (!strcmp(req->name, "missing")) {
		err_reason(&err, ERR_NOT_FOUND, "NO_NODE", "there is no such node");
		snprintf(err.field, sizeof(err.field), "name");
		rpc_call_finish(call, &err);
	} else if (!strcmp(req->name, "later")) {
		f->later = rpc_call_ref(call);
	} else if (!strcmp(req->name, "silent")) {
		rpc_call_finish(call, NULL);
	} else {
		rpc_call_add_header(call, "x-head", "h", 1);
		rpc_call_add_header(call, "x-raw-bin", "\x01\x02", 2);
		rpc_call_add_trailer(call, "x-tail", "t", 1);
		rpc_call_reply(call, &node.base);
	}
}

static void list_nodes(void *arg UNUSED, struct rpc_call *call, const ProtobufCMessage *msg UNUSED)
{
	Skerry__V1__ListNodesResponse none = SKERRY__V1__LIST_NODES_RESPONSE__INIT;
	struct blob *blob;

	none.next_page_token = (char[]){"p"};
	blob = pb_pack_blob(&none);
	assert_ok(rpc_call_send_blobs(call, &blob, 1));
	blob_unref(blob);
	rpc_call_finish(call, NULL);
}

static int gate(void *arg, struct rpc_call *call, const struct proto_method *method UNUSED,
		struct err *err)
{
	struct fix *f = arg;
	const char *auth = rpc_call_metadata(call, "authorization");

	if (auth && !strcmp(auth, "bad"))
		return err_set(err, ERR_UNAUTHENTICATED, "bad key");
	if (!f->gate_waits)
		return 0;
	f->gated = call;
	return RPC_GATE_WAIT;
}

static void open_conn(struct fix *f)
{
	f->conn.engine = http1_server_new(&f->conn);
}

static void close_conn(struct fix *f)
{
	f->conn.engine->ops->destroy(f->conn.engine, NULL);
	f->conn.engine = NULL;
}

static int begin(void **state)
{
	static const struct rpc_handler unary = {.on_call = get_node},
					list = {.on_call = list_nodes};
	struct fix *f = calloc(1, sizeof(*f));

	f->loop = loop_new("test");
	f->server = rpc_server_new(f->loop, "test");
	rpc_server_add(f->server, "/skerry.v1.NodeService/GetNode", &unary, f);
	rpc_server_add(f->server, "/skerry.v1.NodeService/ListNodes", &list, f);
	rpc_server_add(f->server, "/skerry.v1.AgentService/Watch", &unary, f);
	rpc_server_set_gate(f->server, gate, f);
	f->conn.test_out = &f->out;
	f->conn.router = http_router_new();
	connect_mount(f->server, f->conn.router);
	open_conn(f);
	*state = f;
	return 0;
}

static int end(void **state)
{
	struct fix *f = *state;

	if (f->conn.engine)
		close_conn(f);
	http_router_free(f->conn.router);
	assert_int_equal(rpc_server_calls(f->server), 0);
	rpc_server_free(f->server);
	loop_free(f->loop);
	buf_done(&f->out);
	free(f);
	return 0;
}

static void feed(struct fix *f, const void *data, size_t len)
{
	buf_reset(&f->out);
	IGNORE(f->conn.engine->ops->feed(f->conn.engine, data, len, NULL));
	f->conn.engine->ops->drain(f->conn.engine);
}

static void feed_str(struct fix *f, const char *text)
{
	feed(f, text, strlen(text));
}

/* One request; the answer is in f->out. */
static const char *post_bytes(struct fix *f, const char *method, const char *headers,
			      const void *body, size_t len)
{
	struct buf b = BUF_INIT;

	buf_printf(&b, "POST /skerry.v1.%s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n%s\r\n",
		   method, len, headers);
	buf_append(&b, body, len);
	feed(f, b.data, b.len);
	buf_done(&b);
	return buf_str(&f->out);
}

#define JSON  "Content-Type: application/json\r\n"
#define PROTO "Content-Type: application/proto\r\n"
#define GET   "NodeService/GetNode"

static const char *post(struct fix *f, const char *method, const char *headers, const char *body)
{
	return post_bytes(f, method, headers, body, strlen(body));
}

static const char *body_of(const char *answer)
{
	const char *body = strstr(answer, "\r\n\r\n");

	return body ? body + 4 : "";
}

static void test_json(void **state)
{
	struct fix *f = *state;
	const char *answer =
		post(f, GET, JSON "X-Test: v\r\n", "{\"name\":\"tailnets/1/nodes/2\"}");

	assert_contains(answer, "HTTP/1.1 200 OK\r\n");
	assert_contains(answer, "content-type: application/json\r\n");
	assert_contains(answer, "x-head: h\r\n");
	assert_contains(answer, "x-raw-bin: AQI\r\n");
	assert_contains(answer, "trailer-x-tail: t\r\n");
	assert_contains(answer, "cache-control: no-store\r\n");
	assert_string_equal(body_of(answer), "{\"name\":\"tailnets/1/nodes/2\"}");
	assert_string_equal(f->metadata, "v");
	assert_int_equal(f->raw_len, 0);
	/* parameters of the type, an empty body, and the same connection again */
	answer = post(
		f, GET,
		"Content-Type: Application/JSON; charset=utf-8\r\nConnect-Protocol-Version: 1\r\n",
		"");
	assert_string_equal(body_of(answer), "{}");
	/* an answer that the handler gave as encoded pieces */
	answer = post(f, "NodeService/ListNodes", JSON, "{}");
	assert_string_equal(body_of(answer), "{\"nextPageToken\":\"p\"}");
	assert_int_equal(f->calls, 2);
}

static void test_proto(void **state)
{
	struct fix *f = *state;
	const char *answer = post_bytes(f, GET, PROTO, "\x0a\x01n", 3);

	assert_contains(answer, "HTTP/1.1 200 OK\r\n");
	assert_contains(answer, "content-type: application/proto\r\n");
	assert_string_equal(body_of(answer), "\x0a\x01n");
	assert_int_equal(f->raw_len, 3);
	answer = post(f, "NodeService/ListNodes", PROTO, "");
	assert_string_equal(body_of(answer), "\x12\x01p");
	answer = post_bytes(f, GET, PROTO, "\x0a\x05n", 3);
	assert_contains(answer, "HTTP/1.1 400 ");
	assert_contains(answer, "\"code\":\"invalid_argument\"");
}

static void test_errors(void **state)
{
	struct fix *f = *state;
	const char *answer = post(f, GET, JSON, "{\"name\":\"missing\"}");
	const struct jsonx *details;
	struct jsonx *root;

	assert_contains(answer, "HTTP/1.1 404 Not Found\r\n");
	assert_contains(answer, "content-type: application/json\r\n");
	assert_ok(jsonx_parse(body_of(answer), strlen(body_of(answer)), "body", &root, NULL));
	assert_string_equal(jsonx_str(jsonx_get(root, "code"), ""), "not_found");
	assert_string_equal(jsonx_str(jsonx_get(root, "message"), ""), "there is no such node");
	details = jsonx_get(root, "details");
	assert_true(jsonx_len(details) >= 1);
	assert_string_equal(jsonx_str(jsonx_get(jsonx_at(details, 0), "type"), ""),
			    "google.rpc.ErrorInfo");
	assert_string_equal(
		jsonx_str(jsonx_get(jsonx_get(jsonx_at(details, 0), "debug"), "reason"), ""),
		"NO_NODE");
	assert_lacks(jsonx_str(jsonx_get(jsonx_at(details, 0), "value"), "="), "=");
	jsonx_free(root);

	/* the error of a request in protobuf is JSON, too */
	answer = post_bytes(f, GET, PROTO, "\x0a\x07missing", 9);
	assert_contains(answer, "content-type: application/json\r\n");
	answer = post(f, GET, JSON, "{\"name\":\"silent\"}");
	assert_contains(answer, "HTTP/1.1 500 ");
	answer = post(f, GET, JSON "Authorization: bad\r\n", "{\"name\":\"x\"}");
	assert_contains(answer, "HTTP/1.1 401 ");
	assert_contains(answer, "\"code\":\"unauthenticated\"");
	assert_contains(answer, "bad key");
}

static void test_refused(void **state)
{
	static const struct {
		const char *method;
		const char *headers;
		const char *body;
		const char *status;
		const char *text;
	} cases[] = {
		{GET, "", "{}", "415 ", "accept-post: application/json, application/proto"},
		{GET, "Content-Type: application/jsonx\r\n", "{}", "415 ", "content-type"},
		{GET, "Content-Type: text/plain\r\n", "{}", "415 ", "content-type"},
		{GET, JSON "Content-Encoding: br\r\n", "{}", "501 ", "unimplemented"},
		{GET, JSON "Connect-Protocol-Version: 2\r\n", "{}", "400 ",
		 "connect-protocol-version"},
		{GET, JSON "Connect-Timeout-Ms: 1s\r\n", "{}", "400 ", "connect-timeout-ms"},
		{GET, JSON "Connect-Timeout-Ms: 12345678901\r\n", "{}", "400 ",
		 "connect-timeout-ms"},
		{GET, JSON "Connect-Timeout-Ms: 0\r\n", "{}", "504 ", "deadline_exceeded"},
		{GET, JSON, "{\"nome\":1}", "400 ", "nome: no such field"},
		{GET, JSON, "{\"name\":1}", "400 ", "name: expected string"},
		{GET, JSON, "{", "400 ", "invalid_argument"},
		{GET, JSON "Content-Encoding: gzip\r\n", "{}", "400 ", "gzip"},
		{"NodeService/NoSuch", JSON, "{}", "404 ", "unimplemented"},
		{"NodeService/DeleteNode", JSON, "{}", "404 ", "unimplemented"},
		{"AgentService/Watch", JSON, "{}", "501 ", "streams"},
		{"UserService/GetUser", JSON, "{}", "404 ", ""},
	};
	struct fix *f = *state;

	TEST_TABLE(c, cases)
	{
		char status[32];
		const char *answer = post(f, c->method, c->headers, c->body);

		snprintf(status, sizeof(status), "HTTP/1.1 %s", c->status);
		if (strncmp(answer, status, strlen(status)))
			TEST_FAIL("%s %s %s: %s", c->method, c->headers, c->body, answer);
		assert_contains(answer, c->text);
	}
	assert_int_equal(f->calls, 0);
	buf_reset(&f->out);
	feed_str(f, "GET /skerry.v1.NodeService/GetNode HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_contains(buf_str(&f->out), "HTTP/1.1 405 ");
	assert_contains(buf_str(&f->out), "allow: POST\r\n");
}

static void test_sizes(void **state)
{
	size_t limit = proto_method_find("/skerry.v1." GET)->max_request_bytes;
	struct buf b = BUF_INIT, zipped = BUF_INIT;
	struct fix *f = *state;
	const char *answer;

	/* exactly the method's limit in the wire form; one byte more is too much */
	for (size_t extra = 0; extra < 2; extra++) {
		buf_reset(&b);
		buf_append(&b, "\x0a", 1);
		for (size_t n = limit - 4 + extra; n; n >>= 7) /* three bytes of length */
			buf_u8(&b, (uint8_t)(n >= 0x80 ? n | 0x80 : n));
		while (b.len < limit + extra)
			buf_u8(&b, 'x');
		answer = post_bytes(f, GET, PROTO, b.data, b.len);
		assert_contains(answer, extra ? "HTTP/1.1 429 " : "HTTP/1.1 200 OK");
		buf_reset(&zipped);
		gzip_deflate(b.data, b.len, &zipped);
		answer = post_bytes(f, GET, PROTO "Content-Encoding: gzip\r\n", zipped.data,
				    zipped.len);
		assert_contains(answer, extra ? "HTTP/1.1 429 " : "HTTP/1.1 200 OK");
	}
	/* a small stream that becomes large */
	buf_reset(&b);
	for (size_t i = 0; i < 8u << 20; i++)
		buf_u8(&b, ' ');
	buf_reset(&zipped);
	gzip_deflate(b.data, b.len, &zipped);
	assert_in_range(zipped.len, 1, limit);
	answer = post_bytes(f, GET, JSON "Content-Encoding: gzip\r\n", zipped.data, zipped.len);
	assert_contains(answer, "HTTP/1.1 429 ");
	assert_contains(answer, "resource_exhausted");
	buf_done(&b);
	buf_done(&zipped);
}

static void test_later(void **state)
{
	Skerry__V1__Node node = SKERRY__V1__NODE__INIT;
	struct fix *f = *state;
	struct rpc_call *call;

	post(f, GET, JSON, "{\"name\":\"later\"}");
	assert_int_equal(f->out.len, 0);
	call = rpc_call_find(f->server, f->later);
	assert_non_null(call);
	rpc_call_reply(call, &node.base);
	f->conn.engine->ops->drain(f->conn.engine);
	assert_string_equal(body_of(buf_str(&f->out)), "{}");
	assert_int_equal(f->cancels, 0);

	/* the client goes away first */
	post(f, GET, JSON, "{\"name\":\"later\"}");
	close_conn(f);
	assert_int_equal(f->cancels, 1);
	assert_null(rpc_call_find(f->server, f->later));
	open_conn(f);

	/* and in the middle of a body */
	feed_str(f, "POST /skerry.v1." GET " HTTP/1.1\r\nHost: x\r\n" JSON
		    "Content-Length: 10\r\n\r\n{\"na");
	assert_int_equal(rpc_server_calls(f->server), 1);
	close_conn(f);
	assert_int_equal(rpc_server_calls(f->server), 0);
	open_conn(f);
}

static void test_deadline(void **state)
{
	struct fix *f = *state;

	post(f, GET, JSON "Connect-Timeout-Ms: 5\r\n", "{\"name\":\"later\"}");
	assert_int_equal(f->out.len, 0);
	while (rpc_call_find(f->server, f->later))
		loop_turn(f->loop, true);
	f->conn.engine->ops->drain(f->conn.engine);
	assert_contains(buf_str(&f->out), "HTTP/1.1 504 ");
	assert_int_equal(f->cancels, 1);
	assert_int_equal(f->cancel_code, ERR_DEADLINE);
}

static void test_gate_waits(void **state)
{
	struct err err = {0};
	struct fix *f = *state;

	f->gate_waits = true;
	post(f, GET, JSON, "{\"name\":\"a\"}");
	assert_int_equal(f->calls, 0);
	rpc_gate_done(f->gated, NULL);
	f->conn.engine->ops->drain(f->conn.engine);
	assert_int_equal(f->calls, 1);
	assert_string_equal(body_of(buf_str(&f->out)), "{\"name\":\"a\"}");

	post(f, GET, JSON, "{\"name\":\"a\"}");
	err_set(&err, ERR_DENIED, "not you");
	rpc_gate_done(f->gated, &err);
	f->conn.engine->ops->drain(f->conn.engine);
	assert_int_equal(f->calls, 1);
	assert_contains(buf_str(&f->out), "HTTP/1.1 403 ");

	/* the client goes away while the gate thinks */
	post(f, GET, JSON, "{\"name\":\"a\"}");
	close_conn(f);
	assert_int_equal(rpc_server_calls(f->server), 0);
	open_conn(f);
	/* the gate's answer comes before the body */
	feed_str(f, "POST /skerry.v1." GET " HTTP/1.1\r\nHost: x\r\n" JSON
		    "Content-Length: 2\r\n\r\n");
	rpc_gate_done(f->gated, NULL);
	assert_int_equal(f->calls, 1);
	feed_str(f, "{}");
	assert_int_equal(f->calls, 2);
	assert_string_equal(body_of(buf_str(&f->out)), "{}");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_json, begin, end),
		cmocka_unit_test_setup_teardown(test_proto, begin, end),
		cmocka_unit_test_setup_teardown(test_errors, begin, end),
		cmocka_unit_test_setup_teardown(test_refused, begin, end),
		cmocka_unit_test_setup_teardown(test_sizes, begin, end),
		cmocka_unit_test_setup_teardown(test_later, begin, end),
		cmocka_unit_test_setup_teardown(test_deadline, begin, end),
		cmocka_unit_test_setup_teardown(test_gate_waits, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
