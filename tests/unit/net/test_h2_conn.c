/* HTTP/2 over real connections (in-memory streams): a client that goes away in the middle of an answer.
 * LIBS: net */
#include "tests/lib/test.h"

#include "net/http.h"
#include "net/loop.h"
#include "net/stream_int.h"

struct fix {
	struct loop *loop;
	struct http_router *router;
	struct http_server *server;
	struct stream *client, *at_server;
	unsigned closes;
	bool leave; /* the connection breaks before the answer is sent */
};

static void client_data(void *arg UNUSED, const uint8_t *data UNUSED, size_t len UNUSED)
{
}

static void client_close(void *arg, const struct err *err UNUSED)
{
	((struct fix *)arg)->client = NULL;
}

static const struct stream_handler client_handler = {.on_data = client_data,
						     .on_close = client_close};

static void big_body(void *arg UNUSED, struct http_request *req UNUSED, const uint8_t *data UNUSED,
		     size_t len UNUSED)
{
}

static void big_end(void *arg, struct http_request *req)
{
	static uint8_t block[16384]; /* one frame, and one record of the output */
	struct fix *f = arg;

	assert_ok(http_respond(req, 200, NULL, 0, false));
	assert_ok(http_write_copy(req, block, sizeof(block), true));
	if (f->leave) {
		struct err err = {0};

		/* As a failed write has it: told to the owner later in the turn, after the output. */
		err_set(&err, ERR_CLOSED, "broken");
		stream_emit_end(f->at_server, &err);
	}
}

static void big_close(void *arg, struct http_request *req UNUSED, const struct err *err UNUSED)
{
	((struct fix *)arg)->closes++;
}

static void big(void *arg, struct http_request *req)
{
	static const struct http_request_handler handler = {big_body, big_end, big_close, NULL};

	http_set_handler(req, &handler, arg);
}

static int begin(void **state)
{
	struct fix *f = calloc(1, sizeof(*f));

	f->loop = loop_new("test");
	f->router = http_router_new();
	http_mount(f->router, HTTP_MATCH_EXACT, "/big", big, f);
	f->server = http_server_new(f->loop, f->router);
	stream_pair_new(f->loop, &f->at_server, &f->client);
	stream_set_handler(f->client, &client_handler, f);
	http_server_accept(f->server, f->at_server, "h2");
	*state = f;
	return 0;
}

static int end(void **state)
{
	struct fix *f = *state;

	stream_abort(f->client);
	http_server_free(f->server);
	http_router_free(f->router);
	loop_free(f->loop);
	free(f);
	return 0;
}

/* Preface, empty SETTINGS, HEADERS of GET http://x/big on stream 1. */
static void ask(struct fix *f)
{
	static const char request[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
				      "\0\0\0\4\0\0\0\0\0"
				      "\0\0\x0b\1\5\0\0\0\1"
				      "\x82\x86\4\4/big\1\1x";

	assert_ok(stream_write(f->client, request, sizeof(request) - 1));
}

static void test_whole_answer(void **state)
{
	struct fix *f = *state;

	ask(f);
	while (f->closes == 0)
		loop_turn(f->loop, false);
	assert_non_null(f->client);
}

/* What nghttp2 had begun to send when the output failed is not sent a second time for the last words. */
static void test_client_leaves(void **state)
{
	struct fix *f = *state;

	f->leave = true;
	ask(f);
	while (f->closes == 0 || http_server_conns(f->server) != 0)
		loop_turn(f->loop, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_whole_answer, begin, end),
		cmocka_unit_test_setup_teardown(test_client_leaves, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
