/*
 * The client against servers that misbehave (scripted frames, after the negative HTTP/2 cases of the
 * gRPC interoperability tests), and its reconnecting.
 */
#include "tests/lib/test.h"

#include "base/crypto.h"
#include "base/mem.h"
#include "net/http.h"
#include "net/listen.h"
#include "net/loop.h"
#include "net/rpc_client.h"
#include "net/rpc_int.h"
#include "net/stream.h"
#include "test_service.h"

/* ---- A server of scripted frames ----------------------------------------------------------------- */

/* What the server does when it has seen the n-th request's HEADERS. */
enum act {
	ACT_END,
	ACT_REFUSE, /* RST_STREAM(REFUSED_STREAM) */
	ACT_CANCEL,
	ACT_CALM,
	ACT_INTERNAL,
	ACT_OK,        /* an empty message and status 0 */
	ACT_NO_STATUS, /* an empty message, then the end without trailers */
	ACT_HTTP_503,
	ACT_HTTP_404,
	ACT_HTML, /* 200 with text/html */
	ACT_HEAD_THEN_RESET,
	ACT_HALF_MESSAGE, /* headers, half a message, trailers with status 0 */
	ACT_GOAWAY_OLD,   /* GOAWAY that does not cover the request */
	ACT_CLOSE,        /* the connection is cut */
	ACT_NO_MESSAGE,   /* status 0 without a message */
	ACT_TWO_MESSAGES,
	ACT_BAD_FLAG,   /* compressed without having said so */
	ACT_TOO_LARGE,  /* a length prefix of 4 GiB - 1 */
	ACT_BAD_STATUS, /* grpc-status: potato */
	ACT_1XX,        /* 103 first, then OK */
	ACT_PING_FIRST, /* pings, then OK */
	ACT_SILENT,
};

struct script {
	struct loop *loop;
	struct stream *stream;
	struct buf in;
	bool preface;
	const enum act *acts;
	unsigned requests;
	struct buf out;
	unsigned conns;
	unsigned pings_answered;
};

static void frame(struct buf *b, uint8_t type, uint8_t flags, uint32_t id, const void *data,
		  size_t len)
{
	buf_u8(b, (uint8_t)(len >> 16));
	buf_u16be(b, (uint16_t)len);
	buf_u8(b, type);
	buf_u8(b, flags);
	buf_u32be(b, id);
	buf_append(b, data, len);
}

static void field(struct buf *b, const char *name, const char *value)
{
	buf_u8(b, 0);
	buf_u8(b, (uint8_t)strlen(name));
	buf_append_str(b, name);
	buf_u8(b, (uint8_t)strlen(value));
	buf_append_str(b, value);
}

static void head(struct script *s, uint32_t id, const char *status, const char *type, bool end)
{
	struct buf block = BUF_INIT;

	field(&block, ":status", status);
	if (type != NULL) {
		field(&block, "content-type", type);
	}
	frame(&s->out, 1, end ? 5 : 4, id, block.data, block.len);
	buf_done(&block);
}

static void trailers(struct script *s, uint32_t id, const char *status)
{
	struct buf block = BUF_INIT;

	field(&block, "grpc-status", status);
	frame(&s->out, 1, 5, id, block.data, block.len);
	buf_done(&block);
}

static void reset(struct script *s, uint32_t id, uint32_t code)
{
	uint8_t data[4] = {0, 0, 0, (uint8_t)code};

	frame(&s->out, 3, 0, id, data, 4);
}

static void act(struct script *s, uint32_t id, enum act what)
{
	static const uint8_t empty[5], two[10];
	static const uint8_t goaway[8];

	switch (what) {
	case ACT_REFUSE: reset(s, id, 7); break;
	case ACT_CANCEL: reset(s, id, 8); break;
	case ACT_CALM: reset(s, id, 11); break;
	case ACT_INTERNAL: reset(s, id, 2); break;
	case ACT_PING_FIRST:
		for (int i = 0; i < 5; i++) {
			frame(&s->out, 6, 0, 0, "12345678", 8);
		}
		__attribute__((fallthrough));
	case ACT_1XX:
		if (what == ACT_1XX) {
			head(s, id, "103", NULL, false);
		}
		__attribute__((fallthrough));
	case ACT_OK:
		head(s, id, "200", "application/grpc", false);
		frame(&s->out, 0, 0, id, empty, 5);
		trailers(s, id, "0");
		break;
	case ACT_NO_STATUS:
		head(s, id, "200", "application/grpc", false);
		frame(&s->out, 0, 1, id, empty, 5);
		break;
	case ACT_HTTP_503: head(s, id, "503", "text/html", true); break;
	case ACT_HTTP_404: head(s, id, "404", NULL, true); break;
	case ACT_HTML:
		head(s, id, "200", "text/html", false);
		frame(&s->out, 0, 1, id, "<html>", 6);
		break;
	case ACT_HEAD_THEN_RESET:
		head(s, id, "200", "application/grpc", false);
		reset(s, id, 7);
		break;
	case ACT_HALF_MESSAGE:
		head(s, id, "200", "application/grpc", false);
		frame(&s->out, 0, 0, id, "\0\0\0\0\x09half", 9);
		trailers(s, id, "0");
		break;
	case ACT_GOAWAY_OLD: frame(&s->out, 7, 0, 0, goaway, 8); break;
	case ACT_CLOSE:
		stream_abort(s->stream);
		s->stream = NULL;
		break;
	case ACT_NO_MESSAGE:
		head(s, id, "200", "application/grpc", false);
		trailers(s, id, "0");
		break;
	case ACT_TWO_MESSAGES:
		head(s, id, "200", "application/grpc", false);
		frame(&s->out, 0, 0, id, two, 10);
		trailers(s, id, "0");
		break;
	case ACT_BAD_FLAG:
		head(s, id, "200", "application/grpc", false);
		frame(&s->out, 0, 0, id, "\1\0\0\0\0", 5);
		break;
	case ACT_TOO_LARGE:
		head(s, id, "200", "application/grpc", false);
		frame(&s->out, 0, 0, id, "\0\xff\xff\xff\xff", 5);
		break;
	case ACT_BAD_STATUS:
		head(s, id, "200", "application/grpc", false);
		trailers(s, id, "potato");
		break;
	case ACT_SILENT:
	case ACT_END: break;
	}
}

static void script_data(void *arg, const uint8_t *data, size_t len)
{
	struct script *s = arg;

	buf_append(&s->in, data, len);
	if (!s->preface) {
		if (s->in.len < 24) {
			return;
		}
		buf_consume(&s->in, 24);
		s->preface = true;
		frame(&s->out, 4, 0, 0, NULL, 0);
	}
	while (s->stream != NULL && s->in.len >= 9) {
		size_t n = (size_t)s->in.data[0] << 16 | (size_t)s->in.data[1] << 8 | s->in.data[2];

		if (s->in.len < 9 + n) {
			break;
		}
		uint32_t id = (uint32_t)s->in.data[5] << 24 | (uint32_t)s->in.data[6] << 16 |
			      (uint32_t)s->in.data[7] << 8 | s->in.data[8];
		uint8_t type = s->in.data[3], flags = s->in.data[4];
		buf_consume(&s->in, 9 + n);
		if (type == 4 && (flags & 1) == 0) {
			frame(&s->out, 4, 1, 0, NULL, 0);
		} else if (type == 6 && (flags & 1) != 0) {
			s->pings_answered++;
		} else if (type == 1) {
			act(s, id, s->acts[s->requests++]);
		}
	}
	if (s->stream != NULL && s->out.len > 0) {
		assert_ok(stream_write(s->stream, s->out.data, s->out.len));
	}
	buf_reset(&s->out);
}

static void script_close(void *arg, const struct err *err)
{
	struct script *s = arg;

	(void)err;
	s->stream = NULL;
}

static const struct stream_handler script_handler = {.on_data = script_data,
						     .on_close = script_close};

static void script_accept(void *arg, struct stream *stream)
{
	struct script *s = arg;

	stream_abort(s->stream);
	s->conns++;
	s->preface = false;
	buf_reset(&s->in);
	buf_reset(&s->out);
	s->stream = stream;
	stream_set_handler(stream, &script_handler, s);
}

struct rig {
	struct script s;
	struct listener *l;
	struct rpc_channel *channel;
	int calls;
	bool done;
	struct err status;
};

static void on_reply(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct rig *r = arg;

	r->calls++;
	r->done = true;
	r->status = *status;
	assert_int_equal(reply != NULL, status->code == 0);
}

static void rig_init(struct rig *r, const enum act *acts, const struct rpc_channel_opts *more)
{
	const struct listener_opts opts = {.address = "127.0.0.1:0"};
	struct rpc_channel_opts copts = {0};
	char target[64];
	const char *targets[] = {target};

	memset(r, 0, sizeof(*r));
	r->s.loop = loop_new("client");
	r->s.acts = acts;
	assert_ok(listener_new(r->s.loop, &opts, script_accept, &r->s, &r->l, NULL));
	snprintf(target, sizeof(target), "http://127.0.0.1:%u", (unsigned)listener_port(r->l));
	if (more != NULL) {
		copts = *more;
	}
	copts.targets = targets;
	copts.n_targets = 1;
	r->channel = rpc_channel_new(r->s.loop, &copts);
}

static void rig_done(struct rig *r)
{
	rpc_channel_free(r->channel);
	stream_abort(r->s.stream);
	listener_free(r->l);
	buf_done(&r->s.in);
	buf_done(&r->s.out);
	loop_free(r->s.loop);
}

static struct err call(struct rig *r, const struct rpc_opts *opts)
{
	Grpc__Testing__Empty req = GRPC__TESTING__EMPTY__INIT;

	r->done = false;
	r->calls = 0;
	rpc_unary(r->channel, TEST_SERVICE "EmptyCall", &req.base,
		  &grpc__testing__empty__descriptor, opts, on_reply, r);
	while (!r->done) {
		loop_turn(r->s.loop, true);
	}
	assert_int_equal(r->calls, 1);
	return r->status;
}

static void test_bad_answers(void **state)
{
	const struct {
		const char *what;
		enum act acts[4];
		int code;
		unsigned requests; /* seen by the server */
	} cases[] = {
		{"ok", {ACT_OK}, 0, 1},
		{"refused once, then served", {ACT_REFUSE, ACT_OK}, 0, 2},
		{"refused twice", {ACT_REFUSE, ACT_REFUSE, ACT_OK}, ERR_UNAVAILABLE, 2},
		{"cancelled", {ACT_CANCEL}, ERR_CANCELLED, 1},
		{"calm", {ACT_CALM}, ERR_LIMIT, 1},
		{"internal", {ACT_INTERNAL}, ERR_INTERNAL, 1},
		{"no status", {ACT_NO_STATUS}, ERR_UNKNOWN, 1},
		{"503", {ACT_HTTP_503}, ERR_UNAVAILABLE, 1},
		{"404", {ACT_HTTP_404}, ERR_UNIMPLEMENTED, 1},
		{"not gRPC", {ACT_HTML}, ERR_UNKNOWN, 1},
		{"head, then refused: no second try",
		 {ACT_HEAD_THEN_RESET, ACT_OK},
		 ERR_UNAVAILABLE,
		 1},
		{"half a message", {ACT_HALF_MESSAGE}, ERR_INTERNAL, 1},
		{"GOAWAY, then served elsewhere", {ACT_GOAWAY_OLD, ACT_OK}, 0, 2},
		{"cut", {ACT_CLOSE, ACT_OK}, ERR_UNAVAILABLE, 1},
		{"no message", {ACT_NO_MESSAGE}, ERR_INTERNAL, 1},
		{"two messages", {ACT_TWO_MESSAGES}, ERR_INTERNAL, 1},
		{"bad flag", {ACT_BAD_FLAG}, ERR_INTERNAL, 1},
		{"too large", {ACT_TOO_LARGE}, ERR_LIMIT, 1},
		{"bad status", {ACT_BAD_STATUS}, ERR_UNKNOWN, 1},
		{"1xx", {ACT_1XX}, 0, 1},
		{"pings", {ACT_PING_FIRST}, 0, 1},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		struct rig r;

		rig_init(&r, c->acts, NULL);
		struct err status = call(&r, NULL);
		if (status.code != c->code || r.s.requests != c->requests) {
			TEST_FAIL("%s: %s %s, %u requests", c->what, err_name(status.code),
				  status.msg, r.s.requests);
		}
		rig_done(&r);
	}
}

static void test_deadline_and_silence(void **state)
{
	static const enum act acts[] = {ACT_SILENT, ACT_OK, ACT_SILENT};
	const struct rpc_channel_opts opts = {.ping_ms = 30, .ping_timeout_ms = 30};
	const struct rpc_opts hasty = {.deadline_ms = 20};
	struct rig r;

	(void)state;
	rig_init(&r, acts, &opts);
	assert_int_equal(call(&r, &hasty).code, ERR_DEADLINE);
	/* The connection is as good as before. */
	assert_int_equal(call(&r, NULL).code, 0);
	assert_int_equal(r.s.conns, 1);
	/* A server that answers no pings is found out long before the call's deadline. */
	struct err status = call(&r, NULL);
	assert_int_equal(status.code, ERR_UNAVAILABLE);
	assert_contains(status.msg, "does not answer");
	rig_done(&r);
}

static int ready, lost;

static void on_state(void *arg, enum rpc_channel_state state, const struct err *err)
{
	(void)arg;
	(void)err;
	ready += state == RPC_CHANNEL_READY;
	lost += state == RPC_CHANNEL_IDLE || state == RPC_CHANNEL_FAILED;
}

static void test_reconnect(void **state)
{
	static const enum act acts[] = {ACT_OK, ACT_CLOSE, ACT_OK};
	const struct rpc_channel_opts opts = {
		.reconnect = true,
		.backoff_min_ms = 5,
		.backoff_max_ms = 10,
		.on_state = on_state,
	};
	const struct rpc_opts wait = {.wait_for_ready = true};
	struct rig r;

	(void)state;
	ready = lost = 0;
	rig_init(&r, acts, &opts);
	while (ready == 0) {
		loop_turn(r.s.loop, true); /* dials by itself */
	}
	assert_int_equal(call(&r, NULL).code, 0);
	assert_int_equal(call(&r, NULL).code, ERR_UNAVAILABLE);
	assert_int_equal(call(&r, &wait).code, 0);
	assert_int_equal(ready, 2);
	assert_int_equal(r.s.conns, 2);
	rpc_channel_redial(r.channel, SIZE_MAX);
	while (ready < 3) {
		loop_turn(r.s.loop, true);
	}
	rig_done(&r);
}

/* ---- Status details and timeouts, without a network ----------------------------------------------- */

static void test_status_details(void **state)
{
	struct rpc_call call = {.retry_ms = 1500};
	struct err in = {0}, out = {0};
	struct buf wire = BUF_INIT;
	uint32_t retry = 0;

	(void)state;
	err_set(&in, ERR_INVALID, "a bad name");
	rpc_status_encode(NULL, &in, &wire);
	assert_int_equal(wire.len, 0); /* nothing to add */
	strcpy(in.reason, "BAD_NAME");
	strcpy(in.field, "node.name");
	rpc_status_encode(&call, &in, &wire);
	out = (struct err){.code = ERR_INVALID};
	rpc_status_decode(wire.data, wire.len, &out, &retry);
	assert_string_equal(out.reason, "BAD_NAME");
	assert_string_equal(out.field, "node.name");
	assert_int_equal(retry, 1500);
	/* Cut or changed anywhere: ignored, never harmful. */
	for (size_t i = 0; i < wire.len; i++) {
		rpc_status_decode(wire.data, i, &out, NULL);
		wire.data[i] ^= 0x55;
		rpc_status_decode(wire.data, wire.len, &out, NULL);
		wire.data[i] ^= 0x55;
	}
	buf_done(&wire);
}

static void test_timeouts(void **state)
{
	const struct {
		const char *text;
		int64_t ms; /* -1: refused */
	} cases[] = {
		{"1S", 1000},       {"150m", 150},
		{"1u", 1},          {"1n", 1},
		{"0n", 0},          {"2M", 120000},
		{"1H", 3600000},    {"99999999m", 99999999},
		{"123456789m", -1}, {"", -1},
		{"S", -1},          {"1", -1},
		{"1x", -1},         {"1SS", -1},
		{"-1S", -1},        {" 1S", -1},
		{"1.5S", -1},       {"99999999H", 99999999ll * 3600000},
	};
	uint64_t ms;
	char text[16];

	(void)state;
	TEST_TABLE(c, cases)
	{
		int rc = rpc_timeout_parse(c->text, &ms);

		if ((rc == 0) != (c->ms >= 0) || (rc == 0 && ms != (uint64_t)c->ms)) {
			TEST_FAIL("%s: %d %llu", c->text, rc, (unsigned long long)ms);
		}
	}
	static const uint64_t values[] = {
		1, 999, 99999999, 100000000, 99999999ull * 1000, UINT64_MAX - 1};
	TEST_TABLE(v, values)
	{
		rpc_timeout_format(*v, text);
		assert_ok(rpc_timeout_parse(text, &ms));
		assert_true(ms <= *v && (*v > 99999999ull * 1000 || ms >= *v - *v % 1000));
	}
}

int main(void)
{
	crypto_init();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bad_answers), cmocka_unit_test(test_deadline_and_silence),
		cmocka_unit_test(test_reconnect),   cmocka_unit_test(test_status_details),
		cmocka_unit_test(test_timeouts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
