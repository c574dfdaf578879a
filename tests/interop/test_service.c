#include "test_service.h"

#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "net/loop.h"

/*
 * The streams answer a list of parameters (size, pause, compressed) each; a stream keeps the rest
 * of its list while it pauses or while its output queue is full, never more than that.
 */

struct test_service_stats test_service_stats;

enum { MAX_OUTPUTS = 65536 };

struct output {
	int32_t size;
	int32_t interval_us;
	bool compressed;
};

struct stream_state {
	struct rpc_server *server;
	struct rpc_ref ref;
	struct output *outputs;
	size_t n, next;
	struct loop_timer timer;
	bool waiting; /* for the queue */
	bool half_closed;
	bool hold_until_half_close; /* HalfDuplexCall */
	bool any_compressed;
	int32_t total;
};

static const char kind;

static void state_free(void *arg)
{
	struct stream_state *s = arg;

	loop_timer_stop(&s->timer);
	test_service_stats.open_streams--;
	mem_free(s->outputs);
	mem_free(s);
}

static void on_cancel(void *arg, struct rpc_call *call, const struct err *why)
{
	(void)arg;
	(void)call;
	(void)why;
	test_service_stats.cancelled++;
}

static struct stream_state *state_new(struct rpc_call *call)
{
	struct stream_state *s = MEM_NEW(struct stream_state);

	s->server = rpc_call_server(call);
	s->ref = rpc_call_ref(call);
	test_service_stats.open_streams++;
	rpc_call_set_data(call, &kind, s, state_free);
	rpc_call_set_cancel_cb(call, on_cancel, NULL);
	return s;
}

static void echo_metadata(struct rpc_call *call)
{
	const char *initial = rpc_call_metadata(call, "x-grpc-test-echo-initial");
	size_t len;
	const uint8_t *trailing =
		rpc_call_metadata_bin(call, "x-grpc-test-echo-trailing-bin", &len);

	if (initial != NULL) {
		rpc_call_add_header(call, "x-grpc-test-echo-initial", initial, strlen(initial));
	}
	if (trailing != NULL) {
		rpc_call_add_trailer(call, "x-grpc-test-echo-trailing-bin", trailing, len);
	}
}

static bool echo_status(struct rpc_call *call, const Grpc__Testing__EchoStatus *status)
{
	if (status == NULL || status->code == 0) {
		return false;
	}
	rpc_call_fail(call, err_from_grpc(status->code), "%s", status->message);
	return true;
}

/* An Empty and a Payload: the well-known zeros. */
static const uint8_t zeros[4 << 20];

static void fill(Grpc__Testing__Payload *payload, int32_t size)
{
	grpc__testing__payload__init(payload);
	payload->body.data = (uint8_t *)zeros;
	payload->body.len = (size_t)size;
}

static void empty_call(void *arg, struct rpc_call *call, const ProtobufCMessage *req)
{
	Grpc__Testing__Empty reply = GRPC__TESTING__EMPTY__INIT;

	(void)arg;
	(void)req;
	echo_metadata(call);
	rpc_call_reply(call, &reply.base);
}

static bool good_size(struct rpc_call *call, int32_t size)
{
	if (size < 0 || (size_t)size > sizeof(zeros) - 64) {
		struct err err = {0};

		err_field(&err, ERR_INVALID, "response_size", "a size of %d cannot be had", size);
		rpc_call_finish(call, &err);
		return false;
	}
	return true;
}

static bool expectation_met(struct rpc_call *call, const Grpc__Testing__BoolValue *expected)
{
	if (expected == NULL || expected->value == rpc_call_was_compressed(call)) {
		return true;
	}
	rpc_call_fail(call, ERR_INVALID, "the message should have come %s",
		      expected->value ? "compressed" : "uncompressed");
	return false;
}

static void unary_call(void *arg, struct rpc_call *call, const ProtobufCMessage *msg)
{
	const Grpc__Testing__SimpleRequest *req = (const Grpc__Testing__SimpleRequest *)msg;
	Grpc__Testing__SimpleResponse reply = GRPC__TESTING__SIMPLE_RESPONSE__INIT;
	Grpc__Testing__Payload payload;

	(void)arg;
	if (!expectation_met(call, req->expect_compressed) ||
	    !good_size(call, req->response_size)) {
		return;
	}
	echo_metadata(call);
	if (echo_status(call, req->response_status)) {
		return;
	}
	fill(&payload, req->response_size);
	reply.payload = &payload;
	reply.username = (char *)rpc_call_peer_text(call);
	rpc_call_set_compress(call,
			      req->response_compressed != NULL && req->response_compressed->value);
	rpc_call_reply(call, &reply.base);
}

/* ---- Outputs --------------------------------------------------------------------------------- */

static void pump_call(void *arg, struct rpc_call *call);

static void pump_again(void *arg)
{
	struct stream_state *s = arg;
	struct rpc_call *call = rpc_call_find(s->server, s->ref);

	if (call != NULL) {
		pump_call(s, call);
	}
}

static void pump_call(void *arg, struct rpc_call *call)
{
	struct stream_state *s = arg;

	if (s->hold_until_half_close && !s->half_closed) {
		return;
	}
	while (s->next < s->n && !loop_timer_active(&s->timer)) {
		struct output *o = &s->outputs[s->next];
		Grpc__Testing__StreamingOutputCallResponse reply =
			GRPC__TESTING__STREAMING_OUTPUT_CALL_RESPONSE__INIT;
		Grpc__Testing__Payload payload;

		if (o->interval_us > 0) {
			uint64_t ms = ((uint64_t)o->interval_us + 999) / 1000;

			o->interval_us = 0;
			loop_timer_start(&s->timer, rpc_server_loop(s->server), ms, pump_again, s);
			return;
		}
		fill(&payload, o->size);
		reply.payload = &payload;
		rpc_call_set_compress(call, s->any_compressed && o->compressed);
		int rc = rpc_call_send(call, &reply.base);
		if (rc != 0) {
			return; /* goes on when there is room, or the call is over */
		}
		s->next++;
	}
	if (s->next == s->n && s->half_closed) {
		rpc_call_finish(call, NULL);
	}
}

/* Returns false when the call is over. */
static bool add_outputs(struct stream_state *s, struct rpc_call *call,
			const Grpc__Testing__StreamingOutputCallRequest *req)
{
	if (echo_status(call, req->response_status)) {
		return false;
	}
	if (s->n + req->n_response_parameters > MAX_OUTPUTS) {
		rpc_call_fail(call, ERR_LIMIT, "too many outputs are asked for");
		return false;
	}
	s->outputs = mem_reallocarray(s->outputs, s->n + req->n_response_parameters + 1,
				      sizeof(*s->outputs));
	for (size_t i = 0; i < req->n_response_parameters; i++) {
		const Grpc__Testing__ResponseParameters *p = req->response_parameters[i];

		if (!good_size(call, p->size)) {
			return false;
		}
		s->outputs[s->n++] = (struct output){
			.size = p->size,
			.interval_us = p->interval_us,
			.compressed = p->compressed != NULL && p->compressed->value,
		};
		s->any_compressed |= p->compressed != NULL && p->compressed->value;
	}
	return true;
}

static void streaming_output(void *arg, struct rpc_call *call, const ProtobufCMessage *msg)
{
	struct stream_state *s = state_new(call);

	(void)arg;
	echo_metadata(call);
	s->half_closed = true;
	rpc_call_set_writable_cb(call, pump_call, s);
	if (add_outputs(s, call, (const Grpc__Testing__StreamingOutputCallRequest *)msg)) {
		rpc_call_set_compress(call, s->any_compressed);
		rpc_call_send_headers(call);
		pump_call(s, call);
	}
}

static void duplex_open(void *arg, struct rpc_call *call)
{
	struct stream_state *s = state_new(call);

	s->hold_until_half_close = arg != NULL;
	echo_metadata(call);
	rpc_call_set_writable_cb(call, pump_call, s);
}

static void duplex_message(void *arg, struct rpc_call *call, const ProtobufCMessage *msg)
{
	struct stream_state *s = rpc_call_data(call, &kind);

	(void)arg;
	if (add_outputs(s, call, (const Grpc__Testing__StreamingOutputCallRequest *)msg)) {
		pump_call(s, call);
	}
}

static void duplex_half_close(void *arg, struct rpc_call *call)
{
	struct stream_state *s = rpc_call_data(call, &kind);

	(void)arg;
	s->half_closed = true;
	pump_call(s, call);
}

static void input_open(void *arg, struct rpc_call *call)
{
	(void)arg;
	(void)state_new(call);
	echo_metadata(call);
}

static void input_message(void *arg, struct rpc_call *call, const ProtobufCMessage *msg)
{
	const Grpc__Testing__StreamingInputCallRequest *req =
		(const Grpc__Testing__StreamingInputCallRequest *)msg;
	struct stream_state *s = rpc_call_data(call, &kind);

	(void)arg;
	if (!expectation_met(call, req->expect_compressed)) {
		return;
	}
	if (req->payload != NULL) {
		s->total += (int32_t)req->payload->body.len;
	}
}

static void input_half_close(void *arg, struct rpc_call *call)
{
	struct stream_state *s = rpc_call_data(call, &kind);
	Grpc__Testing__StreamingInputCallResponse reply =
		GRPC__TESTING__STREAMING_INPUT_CALL_RESPONSE__INIT;

	(void)arg;
	reply.aggregated_payload_size = s->total;
	rpc_call_reply(call, &reply.base);
}

static const struct rpc_handler empty_handler = {.on_call = empty_call};
static const struct rpc_handler unary_handler = {.on_call = unary_call};
static const struct rpc_handler output_handler = {.on_call = streaming_output};
static const struct rpc_handler input_handler = {
	.on_open = input_open,
	.on_message = input_message,
	.on_half_close = input_half_close,
};
static const struct rpc_handler duplex_handler = {
	.on_open = duplex_open,
	.on_message = duplex_message,
	.on_half_close = duplex_half_close,
};

#define METHOD(name, in, out, client, server)                                                     \
	{                                                                                         \
		.path = TEST_SERVICE name, .service = "grpc.testing.TestService", .method = name, \
		.input = &grpc__testing__##in##__descriptor,                                      \
		.output = &grpc__testing__##out##__descriptor, .client_streaming = client,        \
		.server_streaming = server, .max_request_bytes = LIM_GRPC_MESSAGE_BYTES,          \
	}

static const struct proto_method methods[] = {
	METHOD("EmptyCall", empty, empty, false, false),
	METHOD("UnaryCall", simple_request, simple_response, false, false),
	METHOD("StreamingOutputCall", streaming_output_call_request, streaming_output_call_response,
	       false, true),
	METHOD("StreamingInputCall", streaming_input_call_request, streaming_input_call_response,
	       true, false),
	METHOD("FullDuplexCall", streaming_output_call_request, streaming_output_call_response,
	       true, true),
	METHOD("HalfDuplexCall", streaming_output_call_request, streaming_output_call_response,
	       true, true),
};

void test_service_add(struct rpc_server *server)
{
	static int half = 1;

	rpc_server_add_method(server, &methods[0], &empty_handler, NULL);
	rpc_server_add_method(server, &methods[1], &unary_handler, NULL);
	rpc_server_add_method(server, &methods[2], &output_handler, NULL);
	rpc_server_add_method(server, &methods[3], &input_handler, NULL);
	rpc_server_add_method(server, &methods[4], &duplex_handler, NULL);
	rpc_server_add_method(server, &methods[5], &duplex_handler, &half);
}
