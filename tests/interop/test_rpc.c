/* The gRPC server and client of this stack against each other: over TLS, plain TCP, Unix sockets
 * and in memory. */
#include "tests/lib/test.h"

#include <unistd.h>

#include "base/crypto.h"
#include "base/mem.h"
#include "net/health.h"
#include "net/http.h"
#include "net/listen.h"
#include "net/loop.h"
#include "net/rpc_client.h"
#include "net/stream.h"
#include "net/tls.h"
#include "tests/lib/certs.h"
#include "test_service.h"

static const char *const alpn_h2[] = {"h2", NULL};

struct world {
	struct loop *loop;
	struct http_router *router;
	struct http_server *http;
	struct rpc_server *rpc;
	struct health *health;
	struct test_ca ca;
	struct test_cert cert;
	struct tls_ctx *server_tls, *client_tls;
	struct tls_slot *slot;
	struct listener *listener;
	struct rpc_channel *channel;
	char target[128];
	char dir[64];
};

static void world_conn(void *arg, struct stream *stream)
{
	struct world *w = arg;

	http_server_accept(w->http, stream, NULL);
}

enum how { OVER_TLS, OVER_TCP, OVER_UNIX };

static void world_init(struct world *w, enum how how)
{
	struct err err = {0};
	char address[128] = "127.0.0.1:0";

	memset(w, 0, sizeof(*w));
	memset(&test_service_stats, 0, sizeof(test_service_stats));
	w->loop = loop_new("test");
	w->router = http_router_new();
	w->rpc = rpc_server_new(w->loop, "test");
	test_service_add(w->rpc);
	w->health = health_new(w->rpc);
	rpc_server_mount(w->rpc, w->router, true);
	w->http = http_server_new(w->loop, w->router);
	test_ca_init(&w->ca, "test CA");
	test_cert_init(&w->cert, &w->ca, X509_KEY_P256, "localhost", NULL);
	const struct tls_server_opts server = {
		.cert = {.chain_pem = w->cert.chain, .key_pem = w->cert.key_pem},
		.alpn = alpn_h2,
	};
	const struct tls_client_opts client = {
		.trust = TLS_TRUST_CA, .ca_pem = w->ca.pem, .alpn = alpn_h2};
	assert_ok(tls_server_new(&server, &w->server_tls, &err));
	assert_ok(tls_client_new(&client, &w->client_tls, &err));
	w->slot = tls_slot_new(w->server_tls);
	strcpy(w->dir, "/tmp/rpc-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	if (how == OVER_UNIX) {
		snprintf(address, sizeof(address), "unix:%s/s", w->dir);
	}
	const struct listener_opts opts = {.address = address,
					   .tls = how == OVER_TLS ? w->slot : NULL};
	assert_ok(listener_new(w->loop, &opts, world_conn, w, &w->listener, &err));
	if (how == OVER_UNIX) {
		strcpy(w->target, address);
	} else {
		snprintf(w->target, sizeof(w->target), "%s://localhost:%u",
			 how == OVER_TLS ? "https" : "http", (unsigned)listener_port(w->listener));
	}
	const char *targets[] = {w->target};
	const struct rpc_channel_opts channel = {
		.targets = targets,
		.n_targets = 1,
		.dial = {.tls = w->client_tls},
	};
	w->channel = rpc_channel_new(w->loop, &channel);
}

static void world_done(struct world *w)
{
	rpc_channel_free(w->channel);
	listener_free(w->listener);
	http_server_free(w->http);
	rpc_server_free(w->rpc);
	health_free(w->health);
	http_router_free(w->router);
	tls_slot_free(w->slot);
	tls_unref(w->server_tls);
	tls_unref(w->client_tls);
	test_cert_done(&w->cert);
	test_ca_done(&w->ca);
	loop_free(w->loop);
	rmdir(w->dir);
}

/* ---- A call's result ------------------------------------------------------------------------- */

struct result {
	struct loop *loop;
	int calls;
	bool done, opened;
	struct err status;
	size_t size; /* of the last payload */
	size_t sizes[64];
	size_t n;
	char username[64];
	int32_t aggregated;
	char initial[64];
};

static void on_reply(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct result *r = arg;

	r->calls++;
	r->done = true;
	r->status = *status;
	if (reply != NULL && reply->descriptor == &grpc__testing__simple_response__descriptor) {
		const Grpc__Testing__SimpleResponse *m =
			(const Grpc__Testing__SimpleResponse *)reply;

		r->size = m->payload != NULL ? m->payload->body.len : 0;
		snprintf(r->username, sizeof(r->username), "%s", m->username);
	}
}

static void run(struct result *r)
{
	while (!r->done) {
		loop_turn(r->loop, true);
	}
}

static struct err unary(struct world *w, Grpc__Testing__SimpleRequest *req,
			const struct rpc_opts *opts, struct result *ret)
{
	struct result r = {.loop = w->loop};

	rpc_unary(w->channel, TEST_SERVICE "UnaryCall", &req->base,
		  &grpc__testing__simple_response__descriptor, opts, on_reply, &r);
	assert_int_equal(r.calls, 0); /* never inside the call */
	run(&r);
	assert_int_equal(r.calls, 1);
	if (ret != NULL) {
		*ret = r;
	}
	return r.status;
}

/* ---- Tests ----------------------------------------------------------------------------------- */

static void unary_over(enum how how)
{
	struct world w;
	Grpc__Testing__SimpleRequest req = GRPC__TESTING__SIMPLE_REQUEST__INIT;
	Grpc__Testing__Payload payload = GRPC__TESTING__PAYLOAD__INIT;
	static uint8_t body[271828];
	struct result r;

	world_init(&w, how);
	payload.body.data = body;
	payload.body.len = sizeof(body);
	req.payload = &payload;
	req.response_size = 314159;
	struct err status = unary(&w, &req, NULL, &r);
	assert_string_equal(status.msg, "");
	assert_int_equal(status.code, 0);
	assert_int_equal(r.size, 314159);
	if (how == OVER_UNIX) {
		char expected[64];

		snprintf(expected, sizeof(expected), "unix:uid=%u", (unsigned)getuid());
		assert_string_equal(r.username, expected);
	} else {
		assert_contains(r.username, "127.0.0.1:");
	}
	assert_int_equal(http_server_conns(w.http), 1);
	world_done(&w);
}

static void test_unary_tls(void **state)
{
	(void)state;
	unary_over(OVER_TLS);
}

static void test_unary_tcp(void **state)
{
	(void)state;
	unary_over(OVER_TCP);
}

static void test_unary_unix(void **state)
{
	(void)state;
	unary_over(OVER_UNIX);
}

static void test_status_and_details(void **state)
{
	struct world w;
	Grpc__Testing__SimpleRequest req = GRPC__TESTING__SIMPLE_REQUEST__INIT;
	Grpc__Testing__EchoStatus echo = GRPC__TESTING__ECHO_STATUS__INIT;
	struct err status;

	(void)state;
	world_init(&w, OVER_TLS);
	echo.code = 7;
	echo.message = (char *)"\t\ntest with whitespace\r\nand Unicode BMP \xe2\x98\xba and "
			       "non-BMP \xf0\x9f\x98\x88\t\n";
	req.response_status = &echo;
	status = unary(&w, &req, NULL, NULL);
	assert_int_equal(status.code, ERR_DENIED);
	assert_string_equal(status.msg, echo.message);
	/* The field of a refused request comes back as such. */
	req.response_status = NULL;
	req.response_size = -1;
	status = unary(&w, &req, NULL, NULL);
	assert_int_equal(status.code, ERR_INVALID);
	assert_string_equal(status.field, "response_size");
	world_done(&w);
}

static void test_unimplemented(void **state)
{
	struct world w;
	Grpc__Testing__Empty req = GRPC__TESTING__EMPTY__INIT;
	struct result r = {0};

	(void)state;
	world_init(&w, OVER_TCP);
	r.loop = w.loop;
	rpc_unary(w.channel, "/grpc.testing.Nothing/Call", &req.base,
		  &grpc__testing__empty__descriptor, NULL, on_reply, &r);
	run(&r);
	assert_int_equal(r.status.code, ERR_UNIMPLEMENTED);
	assert_contains(r.status.msg, "/grpc.testing.Nothing/Call");
	world_done(&w);
}

static void test_deadline_and_refused(void **state)
{
	struct world w;
	Grpc__Testing__SimpleRequest req = GRPC__TESTING__SIMPLE_REQUEST__INIT;
	struct err status;

	(void)state;
	world_init(&w, OVER_TCP);
	listener_stop(w.listener);
	status = unary(&w, &req, NULL, NULL);
	assert_int_equal(status.code, ERR_UNAVAILABLE);
	const struct rpc_opts wait = {.deadline_ms = 50, .wait_for_ready = true};
	status = unary(&w, &req, &wait, NULL);
	assert_int_equal(status.code, ERR_DEADLINE);
	world_done(&w);
}

/* ---- Streams --------------------------------------------------------------------------------- */

static void stream_open(void *arg, struct rpc_request *req)
{
	struct result *r = arg;
	const char *initial = rpc_response_header(req, "x-grpc-test-echo-initial");

	r->opened = true;
	snprintf(r->initial, sizeof(r->initial), "%s", initial != NULL ? initial : "");
}

static void stream_message(void *arg, struct rpc_request *req, const ProtobufCMessage *msg)
{
	struct result *r = arg;
	size_t len;

	assert_non_null(rpc_response_bytes(req, &len));
	assert_int_equal(len, protobuf_c_message_get_packed_size(msg));
	if (msg->descriptor == &grpc__testing__streaming_output_call_response__descriptor) {
		r->sizes[r->n++ % 64] = ((const Grpc__Testing__StreamingOutputCallResponse *)msg)
						->payload->body.len;
	} else {
		r->aggregated = ((const Grpc__Testing__StreamingInputCallResponse *)msg)
					->aggregated_payload_size;
		r->n++;
	}
}

static void stream_end(void *arg, const struct err *status)
{
	struct result *r = arg;

	r->calls++;
	r->done = true;
	r->status = *status;
}

static const struct rpc_stream_handler stream_handler = {
	.on_open = stream_open,
	.on_message = stream_message,
	.on_end = stream_end,
};

static void outputs(Grpc__Testing__StreamingOutputCallRequest *req,
		    Grpc__Testing__ResponseParameters *params,
		    Grpc__Testing__ResponseParameters **list, const int32_t *sizes, size_t n)
{
	grpc__testing__streaming_output_call_request__init(req);
	for (size_t i = 0; i < n; i++) {
		grpc__testing__response_parameters__init(&params[i]);
		params[i].size = sizes[i];
		list[i] = &params[i];
	}
	req->n_response_parameters = n;
	req->response_parameters = list;
}

static void test_server_stream(void **state)
{
	static const int32_t sizes[] = {31415, 9, 2653, 58979};
	Grpc__Testing__StreamingOutputCallRequest req;
	Grpc__Testing__ResponseParameters params[4], *list[4];
	struct world w;
	struct result r = {0};

	(void)state;
	world_init(&w, OVER_TLS);
	r.loop = w.loop;
	outputs(&req, params, list, sizes, 4);
	const struct rpc_metadata metadata[] = {
		{.name = "x-grpc-test-echo-initial", .value = "there"}};
	const struct rpc_opts opts = {.metadata = metadata, .n_metadata = 1};
	rpc_open(w.channel, TEST_SERVICE "StreamingOutputCall", &req.base,
		 &grpc__testing__streaming_output_call_response__descriptor, &opts, &stream_handler,
		 &r);
	run(&r);
	assert_int_equal(r.status.code, 0);
	assert_string_equal(r.initial, "there");
	assert_int_equal(r.n, 4);
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(r.sizes[i], sizes[i]);
	}
	world_done(&w);
}

static void test_client_stream(void **state)
{
	static const size_t sizes[] = {27182, 8, 1828, 45904};
	static uint8_t body[45904];
	struct world w;
	struct result r = {0};

	(void)state;
	world_init(&w, OVER_TLS);
	r.loop = w.loop;
	struct rpc_request *req =
		rpc_open(w.channel, TEST_SERVICE "StreamingInputCall", NULL,
			 &grpc__testing__streaming_input_call_response__descriptor, NULL,
			 &stream_handler, &r);
	for (size_t i = 0; i < 4; i++) {
		Grpc__Testing__StreamingInputCallRequest msg =
			GRPC__TESTING__STREAMING_INPUT_CALL_REQUEST__INIT;
		Grpc__Testing__Payload payload = GRPC__TESTING__PAYLOAD__INIT;

		payload.body.data = body;
		payload.body.len = sizes[i];
		msg.payload = &payload;
		assert_ok(rpc_send(req, &msg.base));
	}
	rpc_half_close(req);
	run(&r);
	assert_int_equal(r.status.code, 0);
	assert_int_equal(r.aggregated, 74922);
	world_done(&w);
}

static void test_ping_pong_and_cancel(void **state)
{
	Grpc__Testing__StreamingOutputCallRequest msg;
	Grpc__Testing__ResponseParameters params[1], *list[1];
	struct world w;
	struct result r = {0};

	(void)state;
	world_init(&w, OVER_TLS);
	r.loop = w.loop;
	struct rpc_request *req =
		rpc_open(w.channel, TEST_SERVICE "FullDuplexCall", NULL,
			 &grpc__testing__streaming_output_call_response__descriptor, NULL,
			 &stream_handler, &r);
	for (int32_t i = 1; i <= 4; i++) {
		int32_t size = i * 1000;

		outputs(&msg, params, list, &size, 1);
		assert_ok(rpc_send(req, &msg.base));
		while (r.n < (size_t)i) {
			loop_turn(w.loop, true);
		}
		assert_int_equal(r.sizes[i - 1], size);
	}
	assert_int_equal(rpc_server_calls(w.rpc), 1);
	rpc_cancel(req);
	while (rpc_server_calls(w.rpc) > 0) {
		loop_turn(w.loop, true);
	}
	assert_int_equal(test_service_stats.cancelled, 1);
	assert_int_equal(test_service_stats.open_streams, 0);
	assert_false(r.done);
	/* The connection goes on. */
	Grpc__Testing__SimpleRequest again = GRPC__TESTING__SIMPLE_REQUEST__INIT;
	assert_int_equal(unary(&w, &again, NULL, NULL).code, 0);
	assert_int_equal(http_server_conns(w.http), 1);
	world_done(&w);
}

/* A reader that does not read: the server's memory is bounded, and nothing is lost when it reads
 * again. */
static void test_slow_reader(void **state)
{
	enum { N = 60 };
	Grpc__Testing__StreamingOutputCallRequest req;
	Grpc__Testing__ResponseParameters params[N], *list[N];
	int32_t sizes[N];
	struct world w;
	struct result r = {0};

	(void)state;
	world_init(&w, OVER_TLS);
	r.loop = w.loop;
	for (int i = 0; i < N; i++) {
		sizes[i] = 1 << 20;
	}
	outputs(&req, params, list, sizes, N);
	struct rpc_request *call =
		rpc_open(w.channel, TEST_SERVICE "StreamingOutputCall", &req.base,
			 &grpc__testing__streaming_output_call_response__descriptor, NULL,
			 &stream_handler, &r);
	while (!r.opened) {
		loop_turn(w.loop, true);
	}
	rpc_pause(call);
	/* Another call on the same connection is served meanwhile. */
	Grpc__Testing__SimpleRequest other = GRPC__TESTING__SIMPLE_REQUEST__INIT;
	for (int i = 0; i < 20; i++) {
		assert_int_equal(unary(&w, &other, NULL, NULL).code, 0);
	}
	assert_true(r.n < 3);
	rpc_resume(call);
	run(&r);
	assert_int_equal(r.status.code, 0);
	assert_int_equal(r.n, N);
	world_done(&w);
}

static void test_many_parallel(void **state)
{
	enum { N = 500 };
	static struct result results[N];
	struct world w;
	Grpc__Testing__SimpleRequest req = GRPC__TESTING__SIMPLE_REQUEST__INIT;

	(void)state;
	world_init(&w, OVER_TLS);
	memset(results, 0, sizeof(results));
	req.response_size = 10000;
	for (int i = 0; i < N; i++) {
		rpc_unary(w.channel, TEST_SERVICE "UnaryCall", &req.base,
			  &grpc__testing__simple_response__descriptor, NULL, on_reply, &results[i]);
	}
	for (int i = 0; i < N; i++) {
		results[i].loop = w.loop;
		run(&results[i]);
		assert_int_equal(results[i].status.code, 0);
		assert_int_equal(results[i].size, 10000);
	}
	assert_int_equal(http_server_conns(w.http), 1);
	world_done(&w);
}

static void on_drained(void *arg)
{
	*(bool *)arg = true;
}

static void test_drain(void **state)
{
	static const int32_t one = 100;
	Grpc__Testing__StreamingOutputCallRequest msg;
	Grpc__Testing__ResponseParameters params[1], *list[1];
	struct world w;
	struct result r = {0};
	bool drained = false;

	(void)state;
	world_init(&w, OVER_TLS);
	r.loop = w.loop;
	struct rpc_request *req =
		rpc_open(w.channel, TEST_SERVICE "FullDuplexCall", NULL,
			 &grpc__testing__streaming_output_call_response__descriptor, NULL,
			 &stream_handler, &r);
	outputs(&msg, params, list, &one, 1);
	assert_ok(rpc_send(req, &msg.base));
	while (r.n == 0) {
		loop_turn(w.loop, true);
	}
	rpc_server_drain(w.rpc, 100);
	http_server_drain(w.http, 5000, on_drained, &drained);
	run(&r);
	assert_int_equal(r.status.code, ERR_UNAVAILABLE);
	assert_string_equal(r.status.reason, "SHUTTING_DOWN");
	uint64_t start = loop_now(w.loop);
	while (!drained) {
		loop_turn(w.loop, true);
	}
	assert_true(loop_now(w.loop) - start <
		    2000); /* the client answered the ping: no waiting for the grace */
	world_done(&w);
}

static void test_freeing_the_channel_ends_requests(void **state)
{
	struct world w;
	Grpc__Testing__SimpleRequest req = GRPC__TESTING__SIMPLE_REQUEST__INIT;
	struct result a = {0}, b = {0};

	(void)state;
	world_init(&w, OVER_TLS);
	a.loop = w.loop;
	assert_int_equal(unary(&w, &req, NULL, NULL).code, 0);
	rpc_unary(w.channel, TEST_SERVICE "UnaryCall", &req.base,
		  &grpc__testing__simple_response__descriptor, NULL, on_reply, &a);
	rpc_open(w.channel, TEST_SERVICE "FullDuplexCall", NULL,
		 &grpc__testing__streaming_output_call_response__descriptor, NULL, &stream_handler,
		 &b);
	loop_turn(w.loop, false);
	rpc_channel_free(w.channel);
	w.channel = NULL;
	assert_int_equal(a.calls, 1);
	assert_int_equal(b.calls, 1);
	assert_int_equal(b.status.code, ERR_CANCELLED);
	world_done(&w);
}

/* In memory, a byte at a time. */
static void test_in_memory_split(void **state)
{
	struct world w;
	struct stream *a, *b;
	Grpc__Testing__SimpleRequest req = GRPC__TESTING__SIMPLE_REQUEST__INIT;
	struct result r;

	(void)state;
	for (size_t chunk = 1; chunk <= 4096; chunk *= 7) {
		world_init(&w, OVER_TCP);
		stream_pair_new(w.loop, &a, &b);
		stream_pair_set_chunk(a, chunk);
		stream_pair_set_chunk(b, chunk);
		http_server_accept(w.http, a, NULL);
		rpc_channel_free(w.channel);
		w.channel = rpc_channel_over(b, NULL);
		req.response_size = 5000;
		assert_int_equal(unary(&w, &req, NULL, &r).code, 0);
		assert_int_equal(r.size, 5000);
		world_done(&w);
	}
}

static int gate_answer;
static struct rpc_ref gate_ref;

static int gate(void *arg, struct rpc_call *call, const struct proto_method *method,
		struct err *err)
{
	(void)arg;
	(void)method;
	gate_ref = rpc_call_ref(call);
	if (gate_answer < 0) {
		return err_reason(err, gate_answer, "BAD_KEY", "no");
	}
	return gate_answer;
}

static void test_gate(void **state)
{
	struct world w;
	Grpc__Testing__SimpleRequest req = GRPC__TESTING__SIMPLE_REQUEST__INIT;
	struct result r = {0};

	(void)state;
	world_init(&w, OVER_TCP);
	rpc_server_set_gate(w.rpc, gate, NULL);
	gate_answer = ERR_UNAUTHENTICATED;
	struct err status = unary(&w, &req, NULL, NULL);
	assert_int_equal(status.code, ERR_UNAUTHENTICATED);
	assert_string_equal(status.reason, "BAD_KEY");
	gate_answer = 0;
	assert_int_equal(unary(&w, &req, NULL, NULL).code, 0);
	/* Asynchronous: the request waits whole, then goes on. */
	gate_answer = RPC_GATE_WAIT;
	gate_ref.id = 0;
	r.loop = w.loop;
	req.response_size = 77;
	rpc_unary(w.channel, TEST_SERVICE "UnaryCall", &req.base,
		  &grpc__testing__simple_response__descriptor, NULL, on_reply, &r);
	while (gate_ref.id == 0) {
		loop_turn(w.loop, true);
	}
	for (int i = 0; i < 5; i++) {
		loop_turn(w.loop, false);
	}
	assert_false(r.done);
	rpc_gate_done(rpc_call_find(w.rpc, gate_ref), NULL);
	run(&r);
	assert_int_equal(r.status.code, 0);
	assert_int_equal(r.size, 77);
	assert_null(rpc_call_find(w.rpc, gate_ref));
	world_done(&w);
}

int main(void)
{
	crypto_init();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unary_tls),
		cmocka_unit_test(test_unary_tcp),
		cmocka_unit_test(test_unary_unix),
		cmocka_unit_test(test_status_and_details),
		cmocka_unit_test(test_unimplemented),
		cmocka_unit_test(test_deadline_and_refused),
		cmocka_unit_test(test_server_stream),
		cmocka_unit_test(test_client_stream),
		cmocka_unit_test(test_ping_pong_and_cancel),
		cmocka_unit_test(test_slow_reader),
		cmocka_unit_test(test_many_parallel),
		cmocka_unit_test(test_drain),
		cmocka_unit_test(test_freeing_the_channel_ends_requests),
		cmocka_unit_test(test_in_memory_split),
		cmocka_unit_test(test_gate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
