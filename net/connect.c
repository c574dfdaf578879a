/*
 * The Connect protocol, unary calls only. One exchange has two ends that go in either order: the HTTP request (until
 * on_close) and the call (until ops->finish, or our rpc_call_cancelled). The struct goes with the second of them.
 */
#include "net/connect.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/enc.h"
#include "base/jsonx.h"
#include "base/limits.h"
#include "base/mem.h"
#include "google/rpc/status.pb-c.h"
#include "net/gzip.h"
#include "net/json_pb.h"
#include "net/rpc_int.h"
#include "proto/json_map.h"
#include "proto/pb_decode.h"
#include "proto/pb_util.h"

enum {
	TIMEOUT_DIGITS = 10,
	CANCEL = 8, /* of HTTP/2 */
};

struct exchange {
	struct http_request *req; /* NULL after on_close */
	struct rpc_call *call;    /* NULL before the start and after the end */
	const struct proto_method *method;
	bool json;
	bool gzip;
	bool body_complete;
	bool delivered;
	bool has_reply;
	struct buf body; /* as received, then the message's bytes until the call's end */
	struct buf reply;
};

static void exchange_unref(struct exchange *x)
{
	if (x->req || x->call)
		return;
	buf_done(&x->body);
	buf_done(&x->reply);
	mem_free(x);
}

/* ---- Errors ------------------------------------------------------------------------------------------------------ */

static const struct {
	const char *name;
	int http;
} codes[17] = {
	[0] = {"ok", 200},
	[1] = {"canceled", 499},
	[2] = {"unknown", 500},
	[3] = {"invalid_argument", 400},
	[4] = {"deadline_exceeded", 504},
	[5] = {"not_found", 404},
	[6] = {"already_exists", 409},
	[7] = {"permission_denied", 403},
	[8] = {"resource_exhausted", 429},
	[9] = {"failed_precondition", 400},
	[10] = {"aborted", 409},
	[11] = {"out_of_range", 400},
	[12] = {"unimplemented", 501},
	[13] = {"internal", 500},
	[14] = {"unavailable", 503},
	[15] = {"data_loss", 500},
	[16] = {"unauthenticated", 401},
};

static void append_unpadded(struct buf *out, const void *data, size_t len)
{
	base64_append(out, data, len);
	while (out->len && out->data[out->len - 1] == '=')
		out->len--;
}

static void write_details(struct jsonw *w, const struct buf *encoded)
{
	ProtobufCMessage *msg;
	const Google__Rpc__Status *status;

	if (pb_decode_heap(&google__rpc__status__descriptor, encoded->data, encoded->len, NULL,
			   &msg, NULL) < 0)
		return;
	status = (const Google__Rpc__Status *)msg;
	if (status->n_details) {
		jsonw_key(w, "details");
		jsonw_array(w);
	}
	for (size_t i = 0; i < status->n_details; i++) {
		const Google__Protobuf__Any *any = status->details[i];
		const char *slash = strrchr(any->type_url, '/'),
			   *type = slash ? slash + 1 : any->type_url;
		const struct proto_message_info *info = proto_message_find(type);
		struct buf text = BUF_INIT;
		ProtobufCMessage *detail = NULL;

		jsonw_object(w);
		jsonw_kstr(w, "type", type);
		append_unpadded(&text, any->value.data, any->value.len);
		jsonw_kstr(w, "value", buf_str(&text));
		if (info)
			IGNORE(pb_decode_heap(info->desc, any->value.data, any->value.len, NULL,
					      &detail, NULL));
		if (detail) {
			buf_reset(&text);
			json_pb_write(detail, 0, &text);
			jsonw_key(w, "debug");
			jsonw_raw(w, buf_str(&text), text.len);
		}
		jsonw_end(w);
		pb_free(detail);
		buf_done(&text);
	}
	if (status->n_details)
		jsonw_end(w);
	pb_free(msg);
}

enum { HEADERS_MAX = 64 };

/* The headers of an answer; values of "-bin" names are encoded into `text`, which owns them until the answer is sent. */
struct head {
	struct http_header headers[HEADERS_MAX];
	size_t n;
	char *owned[2 * HEADERS_MAX];
	size_t n_owned;
};

static void head_add(struct head *h, const char *name, const char *value)
{
	if (h->n < HEADERS_MAX)
		h->headers[h->n++] = (struct http_header){name, value};
}

static void head_pairs(struct head *h, const struct rpc_pairs *pairs, const char *prefix)
{
	for (const struct rpc_pair *p = pairs->first; p && h->n < HEADERS_MAX; p = p->next) {
		size_t len = strlen(p->name);
		const char *name = p->name, *value = p->value;
		struct buf text = BUF_INIT;

		if (*prefix) {
			h->owned[h->n_owned++] = mem_printf("%s%s", prefix, p->name);
			name = h->owned[h->n_owned - 1];
		}
		if (len > 4 && !strcmp(p->name + len - 4, "-bin")) {
			append_unpadded(&text, p->value, p->len);
			h->owned[h->n_owned++] = buf_take(&text, NULL);
			value = h->owned[h->n_owned - 1];
		}
		head_add(h, name, value);
	}
}

/* Sends head and body; what the client no longer takes is dropped with the exchange. */
static void answer(struct http_request *req, int status, struct head *h, const struct buf *body)
{
	char length[24];

	snprintf(length, sizeof(length), "%zu", body->len);
	head_add(h, "content-length", length);
	head_add(h, "cache-control", "no-store");
	if (http_respond(req, status, h->headers, h->n, !body->len) < 0 ||
	    (body->len && http_write_copy(req, body->data, body->len, true) < 0))
		http_reset(req, CANCEL);
	for (size_t i = 0; i < h->n_owned; i++)
		mem_free(h->owned[i]);
}

/* `status` 0: the one that belongs to the code. */
static void answer_error(struct http_request *req, const struct rpc_call *call,
			 const struct err *err, int status, const char *accept_post)
{
	int code = err_grpc(err->code);
	struct buf body = BUF_INIT, encoded = BUF_INIT;
	struct head h = {.n = 0};
	struct jsonw w;

	head_add(&h, "content-type", "application/json");
	if (accept_post)
		head_add(&h, "accept-post", accept_post);
	jsonw_init(&w, &body, false);
	jsonw_object(&w);
	jsonw_kstr(&w, "code", codes[code].name);
	jsonw_kstr(&w, "message", err_msg(err, err->code));
	if (call) {
		rpc_status_encode(call, err, &encoded);
		if (encoded.len)
			write_details(&w, &encoded);
		head_pairs(&h, &call->headers, "");
		head_pairs(&h, &call->trailers, "trailer-");
	}
	jsonw_end(&w);
	answer(req, status ? status : codes[code].http, &h, &body);
	buf_done(&body);
	buf_done(&encoded);
}

/* ---- The call's side --------------------------------------------------------------------------------------------- */

static int send_message(struct rpc_call *call, const ProtobufCMessage *msg,
			struct blob *const *blobs, size_t n)
{
	struct exchange *x = call->transport;
	struct buf joined = BUF_INIT;
	ProtobufCMessage *decoded = NULL;
	int rv = 0;

	if (!x->req)
		return ERR_CLOSED;
	buf_reset(&x->reply);
	for (size_t i = 0; i < n; i++)
		buf_append(x->json ? &joined : &x->reply, blobs[i]->data, blobs[i]->len);
	if (x->json && !msg) {
		rv = pb_decode_heap(x->method->output, joined.data, joined.len, NULL, &decoded,
				    NULL);
		msg = decoded;
	}
	if (!rv && x->json)
		json_pb_write(msg, 0, &x->reply);
	else if (!rv && msg)
		pb_pack(msg, &x->reply);
	x->has_reply = !rv;
	pb_free(decoded);
	buf_done(&joined);
	return rv;
}

static void finish(struct rpc_call *call, const struct err *err)
{
	struct exchange *x = call->transport;
	struct head h = {.n = 0};
	struct err why = {0};

	if (x->req && (!err || !err->code) && x->has_reply) {
		head_add(&h, "content-type", x->json ? "application/json" : "application/proto");
		head_pairs(&h, &call->headers, "");
		head_pairs(&h, &call->trailers, "trailer-");
		answer(x->req, 200, &h, &x->reply);
	} else if (x->req) {
		if (!err || !err->code)
			err_set(&why, ERR_INTERNAL, "the call ended without an answer");
		answer_error(x->req, call, err && err->code ? err : &why, 0, NULL);
	}
	x->call = NULL;
	exchange_unref(x);
}

static size_t call_backlog(const struct rpc_call *call)
{
	const struct exchange *x = call->transport;

	return x->req ? http_backlog(x->req) : 0;
}

/* ---- The request's side ------------------------------------------------------------------------------------------ */

static size_t body_limit(const struct exchange *x)
{
	size_t limit = x->method->max_request_bytes;

	return x->json ? MIN(limit * LIM_JSON_FACTOR, (size_t)LIM_JSON_BYTES) : limit;
}

static int inflate_body(struct exchange *x, struct err *err)
{
	struct buf out = BUF_INIT;
	int rv = gzip_inflate(x->body.data, x->body.len, body_limit(x), &out, err);

	if (rv < 0) {
		buf_done(&out);
		return rv;
	}
	buf_done(&x->body);
	x->body = out;
	return 0;
}

static void deliver(struct exchange *x)
{
	ProtobufCMessage *msg = NULL;
	struct err err = {0};
	int rv = 0;

	if (!x->call || !x->body_complete || x->delivered || !rpc_call_ready(x->call))
		return;
	x->delivered = true;
	if (x->gzip)
		rv = inflate_body(x, &err);
	if (!rv && x->json)
		/* An empty body is an empty message: what curl -X POST sends. */
		rv = json_pb_read(x->method->input, x->body.len ? (const char *)x->body.data : "{}",
				  x->body.len ? x->body.len : 2, 0, rpc_call_arena(x->call), &msg,
				  &err);
	else if (!rv)
		rv = pb_decode(x->method->input, x->body.data, x->body.len, NULL,
			       rpc_call_arena(x->call), &msg, &err);
	if (rv < 0) {
		rpc_call_refuse(x->call, &err);
		return;
	}
	rpc_call_message(x->call, msg, x->json ? NULL : x->body.data, x->json ? 0 : x->body.len);
	if (x->call)
		rpc_call_half_close(x->call);
}

static void on_ready(struct rpc_call *call)
{
	deliver(call->transport);
}

static void on_body(void *arg, struct http_request *req, const uint8_t *data, size_t len)
{
	struct exchange *x = arg;
	struct err err = {0};

	http_consume(req, len);
	if (!x->call)
		return;
	if (len > body_limit(x) - MIN(x->body.len, body_limit(x))) {
		buf_reset(&x->body);
		err_set(&err, ERR_LIMIT, "the request is larger than %zu bytes", body_limit(x));
		rpc_call_refuse(x->call, &err);
		return;
	}
	buf_append(&x->body, data, len);
}

static void on_end(void *arg, struct http_request *req UNUSED)
{
	struct exchange *x = arg;

	x->body_complete = true;
	deliver(x);
}

static void on_close(void *arg, struct http_request *req UNUSED, const struct err *err)
{
	struct exchange *x = arg;
	struct rpc_call *call = x->call;
	struct err why = {0};

	x->req = NULL;
	if (call) {
		if (!err)
			err_set(&why, ERR_CANCELLED, "the client went away");
		x->call = NULL;
		rpc_call_cancelled(call, err ? err : &why);
	}
	exchange_unref(x);
}

static const struct rpc_call_ops call_ops = {
	.protocol = "connect",
	.message = send_message,
	.finish = finish,
	.backlog = call_backlog,
	.ready = on_ready,
	.streaming = false,
};

static const struct http_request_handler request_handler = {
	.on_body = on_body,
	.on_end = on_end,
	.on_close = on_close,
};

/* ---- The beginning ----------------------------------------------------------------------------------------------- */

static bool media_type_is(const char *value, const char *type)
{
	size_t len = strlen(type);

	return value && !strncasecmp(value, type, len) && strchr(" ;\t", value[len]);
}

/* Headers that belong to HTTP or to the protocol, not to the call. */
static bool is_metadata(const char *name)
{
	static const char *const own[] = {
		"accept",         "accept-encoding",
		"connection",     "content-encoding",
		"content-length", "content-type",
		"expect",         "host",
		"keep-alive",     "te",
		"trailer",        "transfer-encoding",
		"upgrade",
	};

	for (size_t i = 0; i < ARRAY_LEN(own); i++) {
		if (!strcmp(name, own[i]))
			return false;
	}
	return strncmp(name, "connect-", strlen("connect-")) &&
	       strncmp(name, "grpc-", strlen("grpc-"));
}

static int parse_timeout(const char *text, uint64_t *ret_ms, struct err *err)
{
	size_t len = strlen(text);

	if (!len || len > TIMEOUT_DIGITS || strspn(text, "0123456789") != len)
		return err_set(err, ERR_INVALID, "connect-timeout-ms: expected up to %d digits",
			       TIMEOUT_DIGITS);
	*ret_ms = 0;
	for (; *text; text++)
		*ret_ms = *ret_ms * 10 + (uint64_t)(*text - '0');
	return 0;
}

/* The body's type; false if it is none of ours. */
static bool read_type(struct exchange *x)
{
	const char *type = http_header(x->req, "content-type");

	x->json = media_type_is(type, "application/json");
	return x->json || media_type_is(type, "application/proto");
}

/* What else the headers say about the exchange. */
static int read_head(struct exchange *x, struct err *err)
{
	const char *coding = http_header(x->req, "content-encoding");
	const char *version = http_header(x->req, "connect-protocol-version");

	x->gzip = coding && !strcasecmp(coding, "gzip");
	if (coding && !x->gzip && strcasecmp(coding, "identity"))
		return err_set(err, ERR_UNIMPLEMENTED, "content-encoding must be identity or gzip");
	if (version && strcmp(version, "1"))
		return err_set(err, ERR_INVALID, "connect-protocol-version must be 1");
	if (x->method->client_streaming || x->method->server_streaming)
		return err_set(err, ERR_UNIMPLEMENTED, "%s streams: call it by gRPC",
			       x->method->method);
	return 0;
}

static int begin_call(struct rpc_server *server, struct exchange *x, struct err *err)
{
	const char *timeout = http_header(x->req, "connect-timeout-ms");
	uint64_t ms = 0;
	int rv = 0;

	if (timeout)
		rv = parse_timeout(timeout, &ms, err);
	if (rv < 0)
		return rv;
	x->call = rpc_call_begin(server, x->method, &call_ops, x, x->req->conn, err);
	if (!x->call)
		return err && err->code ? err->code : ERR_UNAVAILABLE;
	for (size_t i = 0; i < x->req->n_headers && !rv; i++) {
		if (is_metadata(x->req->headers[i].name))
			rv = rpc_call_add_metadata(x->call, x->req->headers[i].name,
						   x->req->headers[i].value);
	}
	if (rv < 0) {
		struct err why = {0};

		err_set(&why, ERR_LIMIT, "too much metadata");
		rpc_call_refuse(x->call, &why);
		return 0;
	}
	if (timeout)
		rpc_call_set_timeout(x->call, ms);
	rpc_call_start(x->call);
	return 0;
}

/* Refuses what is not this protocol; false then. */
static bool is_connect(const struct rpc_server *server, struct exchange *x)
{
	static const struct http_header allow = {"allow", "POST"};
	struct err err = {0};

	x->method = rpc_server_method(server, x->req->path);
	if (!x->method) {
		err_set(&err, ERR_UNIMPLEMENTED, "no method %.200s here", x->req->path);
		answer_error(x->req, NULL, &err, 404, NULL);
		return false;
	}
	if (strcmp(x->req->method, "POST")) {
		if (http_respond(x->req, 405, &allow, 1, true) < 0)
			http_reset(x->req, CANCEL);
		return false;
	}
	if (!read_type(x)) {
		err_set(&err, ERR_INVALID,
			"content-type must be application/json or application/proto");
		answer_error(x->req, NULL, &err, 415, "application/json, application/proto");
		return false;
	}
	return true;
}

static void on_request(void *arg, struct http_request *req)
{
	struct exchange *x = mem_zalloc(sizeof(*x));
	struct err err = {0};

	x->req = req;
	http_set_handler(req, &request_handler, x);
	if (!is_connect(arg, x))
		return;
	if (read_head(x, &err) < 0 || begin_call(arg, x, &err) < 0)
		answer_error(req, NULL, &err, 0, NULL);
}

void connect_mount(struct rpc_server *server, struct http_router *router)
{
	const char *mounted = "";
	const struct proto_method *m;

	/* The table is sorted by path: the methods of one service stand together. */
	for (size_t i = 0; (m = proto_method_at(i)); i++) {
		char *prefix;

		if (!rpc_server_method(server, m->path) || !strcmp(m->service, mounted))
			continue;
		prefix = mem_printf("/%s/", m->service);
		http_mount(router, HTTP_MATCH_PREFIX, prefix, on_request, server);
		mem_free(prefix);
		mounted = m->service;
	}
}
