/* The HTTP/2 server engine with gRPC behind it: the first byte says how the rest is cut. LIBS: net */
#include <stdlib.h>

#include "base/buf.h"
#include "base/crypto.h"
#include "net/h2.h"
#include "net/health.h"
#include "net/http.h"
#include "net/loop.h"
#include "net/reflection.h"
#include "net/rpc.h"

static struct loop *loop;
static struct http_router *router;

static void set_up(void)
{
	struct rpc_server *rpc;

	crypto_init();
	loop = loop_new("fuzz");
	router = http_router_new();
	rpc = rpc_server_new(loop, "fuzz");
	(void)health_new(rpc);
	reflection_add(rpc);
	rpc_server_mount(rpc, router, true);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf out = BUF_INIT;
	struct http_conn conn = {0};
	struct err err = {0};
	size_t chunk;

	if (loop == NULL) {
		set_up();
	}
	if (size == 0) {
		return 0;
	}
	chunk = data[0] == 0 ? size : data[0];
	conn.router = router;
	conn.test_out = &out;
	conn.engine = h2_server_new(&conn, NULL);
	for (size_t pos = 1; pos < size; pos += chunk) {
		size_t n = size - pos < chunk ? size - pos : chunk;
		int rc = conn.engine->ops->feed(conn.engine, data + pos, n, &err);

		conn.engine->ops->drain(conn.engine);
		buf_reset(&out);
		loop_turn(loop, false);
		if (rc < 0 || conn.engine->ops->finished(conn.engine)) {
			break;
		}
	}
	if (data[0] & 1) {
		conn.engine->ops->shutdown(conn.engine);
		conn.engine->ops->drain(conn.engine);
	}
	err_set(&err, ERR_CLOSED, "end of input");
	conn.engine->ops->destroy(conn.engine, &err);
	buf_done(&out);
	return 0;
}
