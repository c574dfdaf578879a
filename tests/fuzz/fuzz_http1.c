/* The HTTP/1.1 engine. The first byte says how the input is cut and what the handler does; the output of the whole and of
 * the cut input must be the same.
 * LIBS: net */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "net/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct run {
	struct http_conn conn;
	struct buf out;
	unsigned mode;
	unsigned open;
};

static void on_body(void *arg, struct http_request *req, const uint8_t *data, size_t len)
{
	(void)arg;
	(void)data;
	http_consume(req, len);
}

static void on_end(void *arg, struct http_request *req)
{
	struct run *r = arg;
	struct stream *stream;

	if (r->mode == 1)
		http_reset(req, 0);
	else if (r->mode == 2 && http_upgrade(req, 101, NULL, 0, &stream) == 0)
		return;
	else if (!req->responded)
		http_reply_text(req, 200, "%s?%s", req->path, req->query);
}

static void on_close(void *arg, struct http_request *req, const struct err *err)
{
	(void)req;
	(void)err;
	((struct run *)arg)->open--;
}

static void route(void *arg, struct http_request *req)
{
	static const struct http_request_handler handler = {on_body, on_end, on_close, NULL};
	struct run *r = arg;

	r->open++;
	http_set_handler(req, &handler, arg);
	if (r->mode == 3)
		http_reply_text(req, 404, "not here");
}

static void run(struct run *r, const uint8_t *data, size_t size, size_t step, unsigned mode)
{
	uint64_t now = 1;

	memset(r, 0, sizeof(*r));
	r->mode = mode;
	r->conn.test_out = &r->out;
	r->conn.router = http_router_new();
	http_mount(r->conn.router, HTTP_MATCH_REST, NULL, route, r);
	r->conn.engine = http1_server_new(&r->conn);
	while (size && !r->conn.engine->ops->finished(r->conn.engine)) {
		size_t len = size < step ? size : step;
		/* a copy of its own, so that a sanitizer sees a read past the end */
		uint8_t *copy = malloc(len);

		memcpy(copy, data, len);
		if (r->conn.engine->ops->feed(r->conn.engine, copy, len, NULL) < 0)
			size = len;
		free(copy);
		r->conn.engine->ops->drain(r->conn.engine);
		if (r->conn.engine->ops->tick(r->conn.engine, now++, NULL) < 0)
			abort();
		data += len;
		size -= len;
		if (r->out.len > 1 << 20)
			buf_reset(&r->out);
	}
	r->conn.engine->ops->destroy(r->conn.engine, NULL);
	if (r->open)
		abort();
	http_router_free(r->conn.router);
}

/* Up to the refusal that ended it: of two faults in one head, the cut decides which is seen first. */
static size_t answers(struct buf *out)
{
	const char *text = buf_str(out), *next = text, *last = NULL;

	while ((next = strstr(next, "HTTP/1.1 ")))
		last = next++;
	return last && last[9] != '1' && last[9] != '2' ? (size_t)(last - text) : out->len;
}

/* Dates may differ, and nothing else. */
static bool same(struct buf *a, struct buf *b)
{
	return answers(a) == answers(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct run whole, cut;
	unsigned mode, step;

	if (!size)
		return 0;
	mode = data[0] & 3;
	step = (data[0] >> 2) + 1u;
	run(&whole, data + 1, size - 1, SIZE_MAX, mode);
	run(&cut, data + 1, size - 1, step, mode);
	/* a reset drops what was queued, an early answer makes the rest of the body unwanted: there the cut may show */
	if (mode != 1 && mode != 3 && !same(&whole.out, &cut.out))
		abort();
	buf_done(&whole.out);
	buf_done(&cut.out);
	return 0;
}
