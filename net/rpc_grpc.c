#include <stdio.h>
#include <string.h>

#include "base/enc.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/utf8.h"
#include "net/gzip.h"
#include "net/h2.h"
#include "net/rpc_int.h"
#include "proto/pb_decode.h"
#include "proto/pb_util.h"

/*
 * gRPC over HTTP/2: the transport of calls for stock clients. One grpc_call per request; it lives
 * until the exchange is closed, the rpc_call may end before it (then `call` is NULL and what still
 * comes in is thrown away).
 *
 * In:  body bytes -> `in` -> 5-byte prefix and message -> decode -> rpc_call_message(). While the
 * gate waits or the handler has paused, bytes are kept and not acknowledged, so that the client's
 * window closes. Out: head (late: an error before the first message is a single header block),
 * messages, trailers.
 */

enum {
	PREFIX = 5,
	PAIRS_MAX = 48, /* headers of one response block */
	JOIN_OVER = LIM_GRPC_STREAM_QUEUE_BYTES /
		    2, /* a message with more bytes and pieces is joined to one piece */
};

struct grpc_call {
	struct rpc_call *call;
	struct rpc_server *server;
	const struct proto_method *method;
	struct http_request *req;
	struct buf in;
	size_t pos; /* consumed of `in` */
	struct buf inflated;
	struct arena arena; /* the message of a client stream that is being delivered */
	size_t withheld;    /* received and not acknowledged */
	bool gzip_in;       /* the client announced grpc-encoding: gzip */
	bool gzip_ok;       /* the client accepts gzip */
	bool gzip_out;      /* we announced it */
	bool head_sent;
	bool remote_ended;
	bool told_end;
	bool processing;
};

static struct grpc_call *grpc_of(const struct rpc_call *call)
{
	return call->transport;
}

/* ---- Out ------------------------------------------------------------------------------------- */

/* A header block under construction; texts made for it live in `text` blocks until block_done(). */
struct block {
	struct http_header list[PAIRS_MAX];
	char *owned[PAIRS_MAX];
	size_t n, n_owned;
};

static void block_add(struct block *b, const char *name, const char *value)
{
	if (b->n < PAIRS_MAX) {
		b->list[b->n++] = (struct http_header){name, value};
	}
}

static void block_add_owned(struct block *b, const char *name, char *value)
{
	if (b->n < PAIRS_MAX) {
		b->owned[b->n_owned++] = value;
		block_add(b, name, value);
	} else {
		mem_free(value);
	}
}

static void block_init(struct block *b)
{
	b->n = b->n_owned = 0; /* what follows is not looked at */
}

static void block_done(struct block *b)
{
	for (size_t i = 0; i < b->n_owned; i++) {
		mem_free(b->owned[i]);
	}
}

static char *base64_text(const void *data, size_t len)
{
	struct buf text = BUF_INIT;

	base64_append(&text, data, len);
	while (text.len > 0 && text.data[text.len - 1] == '=') {
		text.len--; /* emitted unpadded */
	}
	return buf_take(&text, NULL);
}

static void block_add_pairs(struct block *b, const struct rpc_pairs *pairs)
{
	for (const struct rpc_pair *p = pairs->first; p != NULL; p = p->next) {
		if (rpc_name_is_bin(p->name)) {
			block_add_owned(b, p->name, base64_text(p->value, p->len));
		} else {
			block_add(b, p->name, p->value);
		}
	}
}

static void block_add_status(struct block *b, const struct rpc_call *call, const struct err *err)
{
	int status = err->code != 0 ? err_grpc(err->code) : 0;

	if (status == 0) {
		block_add(b, "grpc-status", "0");
		return;
	}
	block_add_owned(b, "grpc-status", mem_printf("%d", status));
	struct buf text = BUF_INIT;
	percent_append(&text, err->msg,
		       utf8_cut(err->msg, strlen(err->msg), LIM_GRPC_STATUS_BYTES));
	block_add_owned(b, "grpc-message", buf_take(&text, NULL));
	struct buf details = BUF_INIT;
	rpc_status_encode(call, err, &details);
	if (details.len > 0) {
		block_add_owned(b, "grpc-status-details-bin",
				base64_text(details.data, details.len));
	}
	buf_done(&details);
	if (call != NULL && call->pushback_ms >= 0) {
		block_add_owned(b, "grpc-retry-pushback-ms",
				mem_printf("%lld", (long long)call->pushback_ms));
	}
}

/* Everything in one block: for errors before anything was sent. */
static void answer_only_trailers(struct http_request *req, const struct rpc_call *call,
				 const struct err *err)
{
	struct block b;

	block_init(&b);
	block_add(&b, "content-type", "application/grpc");
	if (err->code == ERR_UNIMPLEMENTED) {
		block_add(&b, "grpc-accept-encoding", "identity,gzip");
	}
	block_add_status(&b, call, err);
	if (call != NULL) {
		block_add_pairs(&b, &call->trailers);
	}
	if (http_respond(req, 200, b.list, b.n, true) != 0) {
		http_reset(req, H2_INTERNAL_ERROR);
	}
	block_done(&b);
}

static void grpc_head(struct rpc_call *call)
{
	struct grpc_call *g = grpc_of(call);
	struct block b;

	block_init(&b);
	g->gzip_out = call->compress && g->gzip_ok;
	block_add(&b, "content-type", "application/grpc");
	if (g->gzip_out) {
		block_add(&b, "grpc-encoding", "gzip");
	}
	block_add(&b, "grpc-accept-encoding", "identity,gzip");
	block_add_pairs(&b, &call->headers);
	g->head_sent = http_respond(g->req, 200, b.list, b.n, false) == 0;
	block_done(&b);
}

static void put_prefix(uint8_t *p, bool compressed, size_t len)
{
	p[0] = compressed;
	be_put32(p + 1, (uint32_t)len);
}

static int send_buf(struct grpc_call *g, struct buf *framed)
{
	struct blob *blob = blob_take(framed);
	int rc = http_write(g->req, blob, 0, blob->len, false);

	blob_unref(blob);
	return rc;
}

static int grpc_message(struct rpc_call *call, const ProtobufCMessage *msg,
			struct blob *const *blobs, size_t n)
{
	struct grpc_call *g = grpc_of(call);
	size_t backlog = http_backlog(g->req);
	size_t total = 0;
	bool compress = g->gzip_out && call->compress;

	for (size_t i = 0; i < n; i++) {
		total += blobs[i]->len;
	}
	if (msg != NULL) {
		total = protobuf_c_message_get_packed_size(msg);
	}
	/* An empty queue takes one message of any size: a unary reply never fails for what other
	 * calls have waiting. */
	if (backlog > 0 && (backlog + total > LIM_GRPC_STREAM_QUEUE_BYTES ||
			    g->req->conn->queued + total > LIM_GRPC_CONN_QUEUE_BYTES)) {
		METRICS_COUNT("skerry_grpc_queue_full_total",
			      "Messages refused because the reader is slow.", 1);
		return ERR_LIMIT;
	}
	if (msg == NULL && !compress && total + n * 64 <= JOIN_OVER) {
		struct buf prefix = BUF_INIT;
		int rc;

		put_prefix(buf_reserve(&prefix, PREFIX), false, total);
		prefix.len = PREFIX;
		rc = send_buf(g, &prefix);
		for (size_t i = 0; i < n && rc == 0; i++) {
			rc = http_write(g->req, blobs[i], 0, blobs[i]->len, false);
		}
		return rc;
	}
	if (!compress && msg != NULL) {
		uint8_t *room;
		struct blob *blob = blob_room(PREFIX + total, &room);

		put_prefix(room, false, total);
		POST(protobuf_c_message_pack(msg, room + PREFIX) == total);
		int rc = http_write(g->req, blob, 0, blob->len, false);
		blob_unref(blob);
		return rc;
	}
	struct buf framed = BUF_INIT;
	uint8_t *head = buf_reserve(&framed, PREFIX + total);
	memset(head, 0, PREFIX);
	framed.len = PREFIX;
	if (msg != NULL) {
		pb_pack(msg, &framed);
	}
	for (size_t i = 0; i < n; i++) {
		buf_append(&framed, blobs[i]->data, blobs[i]->len);
	}
	if (compress) {
		struct buf packed = BUF_INIT;

		memset(buf_reserve(&packed, PREFIX), 0, PREFIX);
		packed.len = PREFIX;
		gzip_deflate(framed.data + PREFIX, framed.len - PREFIX, &packed);
		buf_done(&framed);
		framed = packed;
	}
	put_prefix(framed.data, compress, framed.len - PREFIX);
	return send_buf(g, &framed);
}

static void grpc_finish(struct rpc_call *call, const struct err *err)
{
	struct grpc_call *g = grpc_of(call);
	struct block b;

	block_init(&b);
	g->call = NULL;
	if (!g->head_sent && call->headers.first == NULL) {
		answer_only_trailers(g->req, call, err);
		return;
	}
	bool broken = err->code == ERR_DEADLINE || err->code == ERR_CANCELLED;
	if (broken && http_backlog(g->req) > 0) {
		http_reset(
			g->req,
			H2_CANCEL); /* never trailers behind half a message that nobody waits for */
		return;
	}
	if (!g->head_sent) {
		grpc_head(call);
	}
	block_add_status(&b, call, err);
	block_add_pairs(&b, &call->trailers);
	if (http_trailers(g->req, b.list, b.n) != 0) {
		http_reset(g->req, H2_INTERNAL_ERROR);
	}
	block_done(&b);
}

static size_t grpc_backlog(const struct rpc_call *call)
{
	return http_backlog(grpc_of(call)->req);
}

/* ---- In -------------------------------------------------------------------------------------- */

static void refuse(struct grpc_call *g, int code, const char *text)
{
	struct err err = {0};

	err_set(&err, code, "%s", text);
	rpc_call_refuse(g->call, &err);
}

/* One whole message stands at `data`. The call may be gone afterwards. */
static void deliver(struct grpc_call *g, bool compressed, const uint8_t *data, size_t len)
{
	struct arena *arena = g->method->client_streaming ? &g->arena : rpc_call_arena(g->call);
	struct err err = {0};
	ProtobufCMessage *msg;
	int rc = 0;

	if (!g->method->client_streaming && g->call->messages > 0) {
		refuse(g, ERR_UNIMPLEMENTED, "the method takes exactly one request message");
		return;
	}
	if (compressed) {
		buf_reset(&g->inflated);
		rc = gzip_inflate(data, len, g->method->max_request_bytes, &g->inflated, &err);
		if (rc == ERR_INVALID) {
			err.code = ERR_INTERNAL;
		}
		data = g->inflated.data;
		len = g->inflated.len;
	}
	if (rc == 0) {
		rc = pb_decode(g->method->input, data, len, NULL, arena, &msg, &err);
	}
	if (rc != 0) {
		rpc_call_refuse(g->call, &err);
		return;
	}
	g->call->compressed = compressed;
	rpc_call_message(g->call, msg, data, len);
	if (g->method->client_streaming) {
		arena_reset(&g->arena);
	}
}

/* Delivers one message if it is complete. */
static bool process_one(struct grpc_call *g)
{
	size_t have = g->in.len - g->pos;
	const uint8_t *p;

	if (have < PREFIX) {
		return false;
	}
	p = g->in.data + g->pos;
	size_t len = be_get32(p + 1);
	if (p[0] > 1 || (p[0] == 1 && !g->gzip_in)) {
		refuse(g, ERR_INTERNAL,
		       "a compressed message without a grpc-encoding that was announced");
		return false;
	}
	if (len > g->method->max_request_bytes) {
		struct err err = {0};

		METRICS_COUNT("skerry_grpc_too_large_total",
			      "Request messages over their size limit.", 1);
		err_reason(&err, ERR_LIMIT, "MESSAGE_TOO_LARGE",
			   "the message has %zu bytes, at most %u are taken", len,
			   (unsigned)g->method->max_request_bytes);
		rpc_call_refuse(g->call, &err);
		return false;
	}
	if (have - PREFIX < len) {
		return false;
	}
	g->pos += PREFIX + len;
	deliver(g, p[0] == 1, p + PREFIX, len);
	return true;
}

static void process(struct grpc_call *g)
{
	if (g->processing) {
		return; /* a handler resumed inside its callback: the loop below goes on */
	}
	g->processing = true;
	while (g->call != NULL && rpc_call_ready(g->call) && process_one(g)) {
	}
	g->processing = false;
	if (g->call == NULL) {
		return;
	}
	/* A unary message stays where it is: its bytes are handed out by rpc_call_request_bytes().
	 */
	if (g->method->client_streaming && g->pos > 0) {
		if (g->pos == g->in.len) {
			buf_done(&g->in); /* idle streams hold no buffer */
		} else {
			buf_consume(&g->in, g->pos);
		}
		g->pos = 0;
	}
	if (rpc_call_ready(g->call)) {
		if (g->withheld > 0) {
			size_t n = g->withheld;

			g->withheld = 0;
			http_consume(g->req, n);
		}
		if (g->remote_ended && !g->told_end) {
			if (g->in.len > g->pos) {
				refuse(g, ERR_INTERNAL, "the request ends inside a message");
				return;
			}
			g->told_end = true;
			rpc_call_half_close(g->call);
		}
	}
}

static void grpc_ready(struct rpc_call *call)
{
	process(grpc_of(call));
}

static void grpc_on_body(void *arg, struct http_request *req, const uint8_t *data, size_t len)
{
	struct grpc_call *g = arg;

	if (g->call == NULL) {
		http_consume(req, len);
		return;
	}
	if (!g->method->client_streaming && g->call->messages > 0) {
		http_consume(req, len);
		refuse(g, ERR_UNIMPLEMENTED, "the method takes exactly one request message");
		return;
	}
	buf_append(&g->in, data, len);
	g->withheld += len;
	process(g);
}

static void grpc_on_end(void *arg, struct http_request *req)
{
	struct grpc_call *g = arg;

	(void)req;
	g->remote_ended = true;
	if (g->call != NULL) {
		process(g);
	}
}

static void grpc_on_close(void *arg, struct http_request *req, const struct err *err)
{
	struct grpc_call *g = arg;
	struct err why = {0};

	(void)req;
	if (g->call != NULL) {
		struct rpc_call *call = g->call;

		g->call = NULL;
		err_set(&why, ERR_CANCELLED, "%s", err != NULL ? err->msg : "the client went away");
		rpc_call_cancelled(call, &why);
	}
	buf_done(&g->in);
	buf_done(&g->inflated);
	arena_done(&g->arena);
	mem_free(g);
}

static void grpc_on_writable(void *arg, struct http_request *req)
{
	struct grpc_call *g = arg;

	(void)req;
	if (g->call != NULL) {
		rpc_call_drained(g->call);
	}
}

static const struct http_request_handler grpc_handler = {
	.on_body = grpc_on_body,
	.on_end = grpc_on_end,
	.on_close = grpc_on_close,
	.on_writable = grpc_on_writable,
};

static const struct rpc_call_ops grpc_ops = {
	.protocol = "grpc",
	.head = grpc_head,
	.message = grpc_message,
	.finish = grpc_finish,
	.backlog = grpc_backlog,
	.ready = grpc_ready,
	.streaming = true,
};

/* ---- Start ----------------------------------------------------------------------------------- */

static bool is_grpc_type(const char *type)
{
	size_t n = strlen("application/grpc");

	return type != NULL && strncmp(type, "application/grpc", n) == 0 &&
	       (type[n] == '\0' || type[n] == ';' || strncmp(type + n, "+proto", 6) == 0);
}

static bool lists_gzip(const char *accept)
{
	for (const char *p = accept; p != NULL && *p != '\0'; p += strcspn(p, ",")) {
		p += strspn(p, ", ");
		if (strncmp(p, "gzip", 4) == 0 && (p[4] == '\0' || p[4] == ',' || p[4] == ' ')) {
			return true;
		}
	}
	return false;
}

static bool is_metadata(const char *name)
{
	return strncmp(name, "grpc-", 5) != 0 && strcmp(name, "te") != 0 &&
	       strcmp(name, "content-type") != 0;
}

static int read_headers(struct grpc_call *g, struct err *err)
{
	const char *timeout = http_header(g->req, "grpc-timeout");
	const char *encoding = http_header(g->req, "grpc-encoding");
	uint64_t ms;

	if (timeout != NULL) {
		if (rpc_timeout_parse(timeout, &ms) != 0) {
			return err_set(err, ERR_INTERNAL, "malformed grpc-timeout");
		}
		rpc_call_set_timeout(g->call, ms);
	}
	if (encoding != NULL && strcmp(encoding, "identity") != 0) {
		if (strcmp(encoding, "gzip") != 0) {
			return err_set(err, ERR_UNIMPLEMENTED,
				       "grpc-encoding %.40s is not known here", encoding);
		}
		g->gzip_in = true;
	}
	g->gzip_ok = lists_gzip(http_header(g->req, "grpc-accept-encoding"));
	for (size_t i = 0; i < g->req->n_headers; i++) {
		const struct http_header *h = &g->req->headers[i];

		if (is_metadata(h->name) &&
		    rpc_call_add_metadata(g->call, h->name, h->value) != 0) {
			return err_set(err, ERR_LIMIT, "too much metadata");
		}
	}
	return 0;
}

static void grpc_request(void *arg, struct http_request *req)
{
	struct rpc_server *server = arg;
	const struct proto_method *method;
	struct err err = {0};

	http_set_handler(req, &http_ignore_handler, NULL);
	if (strcmp(req->method, "POST") != 0) {
		const struct http_header allow = {"allow", "POST"};

		IGNORE(http_respond(req, 405, &allow, 1, true));
		return;
	}
	if (!is_grpc_type(http_header(req, "content-type")) || req->version != 2) {
		http_reply_text(req, 415, "gRPC is served over HTTP/2 as application/grpc\n");
		return;
	}
	method = rpc_server_method(server, req->path);
	if (method == NULL) {
		METRICS_COUNT("skerry_grpc_unknown_method_total",
			      "Calls of methods that are not served.", 1);
		err_set(&err, ERR_UNIMPLEMENTED, "the method %.200s is not served here", req->path);
		answer_only_trailers(req, NULL, &err);
		return;
	}
	struct grpc_call *g = MEM_NEW(struct grpc_call);
	g->server = server;
	g->method = method;
	g->req = req;
	arena_init(&g->arena, pb_arena_budget(method->max_request_bytes));
	http_set_handler(req, &grpc_handler, g);
	g->call = rpc_call_begin(server, method, &grpc_ops, g, req->conn, &err);
	if (g->call == NULL) {
		answer_only_trailers(req, NULL, &err);
		return;
	}
	if (read_headers(g, &err) != 0) {
		rpc_call_refuse(g->call, &err);
		return;
	}
	rpc_call_start(g->call);
}

static void not_grpc(void *arg, struct http_request *req)
{
	(void)arg;
	http_set_handler(req, &http_ignore_handler, NULL);
	if (strcmp(req->method, "POST") != 0) {
		const struct http_header allow = {"allow", "POST"};

		IGNORE(http_respond(req, 405, &allow, 1, true));
		return;
	}
	http_reply_text(req, 415, "content-type application/grpc is expected\n");
}

void rpc_server_mount(struct rpc_server *server, struct http_router *router, bool rest)
{
	http_mount(router, HTTP_MATCH_CONTENT, "application/grpc", grpc_request, server);
	if (rest) {
		http_mount(router, HTTP_MATCH_REST, NULL, not_grpc, NULL);
	}
}
