#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/enc.h"
#include "base/limits.h"
#include "base/mem.h"
#include "net/gzip.h"
#include "net/rpc_client_int.h"
#include "net/stream.h"
#include "proto/pb_decode.h"
#include "proto/pb_util.h"

/*
 * One call of the client.
 *
 *   waiting (no stream) -> running -> (stream over: the rest is delivered) -> finished: the
 * callback, then freed
 *
 * `busy` counts callbacks of this request on the stack; a request that ends inside one is freed
 * behind it.
 */

enum { PREFIX = 5, HEADERS_MAX = 48, METADATA_MAX = 24 };

struct message {
	struct list link;
	struct blob *blob;
};

static void request_leave(struct rpc_request *req)
{
	struct list *l;

	if (--req->busy > 0 || !req->over) {
		return;
	}
	while ((l = list_pop(&req->waiting)) != NULL) {
		struct message *m = LIST_ENTRY(l, struct message, link);

		blob_unref(m->blob);
		mem_free(m);
	}
	for (size_t i = 0; i < req->n_metadata; i++) {
		mem_free((void *)req->metadata[i].name);
		mem_free((void *)req->metadata[i].value);
	}
	mem_free(req->metadata);
	blob_unref(req->first);
	buf_done(&req->in);
	buf_done(&req->inflated);
	arena_done(&req->arena);
	arena_done(&req->meta);
	mem_free(req->path);
	struct rpc_channel *ch = req->channel;
	mem_free(req);
	rpc_channel_unref(ch);
}

/* Takes the request out of everything; it is freed by the request_leave() of the caller. */
static void request_detach(struct rpc_request *req)
{
	req->over = true;
	list_remove(&req->link);
	req->channel->n_requests--;
	loop_timer_stop(&req->timer);
	loop_timer_stop(&req->soon);
	if (req->stream != NULL) {
		struct h2_stream *stream = req->stream;

		req->stream = NULL;
		h2_stream_cancel(stream, H2_CANCEL);
	}
}

void rpc_request_finish(struct rpc_request *req, const struct err *status)
{
	struct err end = *status;

	if (req->over) {
		return;
	}
	req->busy++;
	request_detach(req);
	if (req->unary_cb != NULL) {
		bool ok = end.code == 0;

		req->delivering = ok;
		req->unary_cb(req->arg, &end, ok ? req->message : NULL);
		req->delivering = false;
	} else {
		req->handler->on_end(req->arg, &end);
	}
	request_leave(req);
}

/* ---- Status ---------------------------------------------------------------------------------- */

static int code_of_http(int status)
{
	switch (status) {
	case 400: return ERR_INTERNAL;
	case 401: return ERR_UNAUTHENTICATED;
	case 403: return ERR_DENIED;
	case 404: return ERR_UNIMPLEMENTED;
	case 429:
	case 502:
	case 503:
	case 504: return ERR_UNAVAILABLE;
	default: return ERR_UNKNOWN;
	}
}

static int code_of_reset(uint32_t code)
{
	switch (code) {
	case H2_REFUSED_STREAM: return ERR_UNAVAILABLE;
	case H2_CANCEL: return ERR_CANCELLED;
	case H2_ENHANCE_YOUR_CALM: return ERR_LIMIT;
	case H2_INADEQUATE_SECURITY: return ERR_DENIED;
	case H2_CONNECTION_LOST: return ERR_UNAVAILABLE;
	default: return ERR_INTERNAL;
	}
}

static void save_pairs(struct rpc_request *req, struct rpc_pairs *pairs,
		       const struct http_header *headers, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		(void)rpc_pairs_add(&req->meta, pairs, headers[i].name, headers[i].value,
				    strlen(headers[i].value));
	}
}

/* Reads grpc-status and its companions. */
static void read_status(struct rpc_request *req)
{
	const struct rpc_pair *status = rpc_pairs_find(&req->trailers, "grpc-status");
	const struct rpc_pair *message = rpc_pairs_find(&req->trailers, "grpc-message");
	const struct rpc_pair *details = rpc_pairs_find(&req->trailers, "grpc-status-details-bin");
	struct buf text = BUF_INIT;
	char *end;

	if (status == NULL) {
		return;
	}
	req->have_status = true;
	long code = strtol(status->value, &end, 10);
	if (end == status->value || *end != '\0' || code < 0 || code > 16) {
		code = 2;
	}
	if (code == 0) {
		err_clear(&req->end);
		return;
	}
	if (message != NULL) {
		percent_decode(&text, message->value, message->len);
	}
	err_set(&req->end, err_from_grpc((int)code), "%s",
		text.len > 0 ? buf_str(&text) : err_text(err_from_grpc((int)code)));
	buf_reset(&text);
	if (details != NULL && base64_decode_buf(details->value, details->len, &text) == 0) {
		rpc_status_decode(text.data, text.len, &req->end, NULL);
	}
	buf_done(&text);
}

/* ---- In -------------------------------------------------------------------------------------- */

static void request_process(struct rpc_request *req);

/* The stream is over and everything was delivered. */
static void request_conclude(struct rpc_request *req)
{
	struct err end = req->end;

	if (req->in.len > req->pos && end.code == 0) {
		err_set(&end, ERR_INTERNAL, "the response ends inside a message");
	}
	if (end.code == 0 && req->unary_cb != NULL && !req->message_kept) {
		err_set(&end, ERR_INTERNAL, "the response has no message");
	}
	rpc_request_finish(req, &end);
}

static void abort_with(struct rpc_request *req, int code, const char *text)
{
	struct err err = {0};

	err_set(&err, code, "%s", text);
	rpc_request_finish(req, &err);
}

/* Returns false when nothing more can be delivered now. */
static bool process_one(struct rpc_request *req)
{
	size_t have = req->in.len - req->pos;
	const uint8_t *p;
	struct err err = {0};

	if (have < PREFIX) {
		return false;
	}
	p = req->in.data + req->pos;
	size_t len = be_get32(p + 1);
	if (p[0] > 1 || (p[0] == 1 && !req->gzip)) {
		abort_with(req, ERR_INTERNAL,
			   "the response is compressed in a way that was not announced");
		return false;
	}
	if (len > req->channel->opts.max_message) {
		abort_with(req, ERR_LIMIT, "the response message is larger than allowed here");
		return false;
	}
	if (have - PREFIX < len) {
		return false;
	}
	req->pos += PREFIX + len;
	const uint8_t *data = p + PREFIX;
	if (p[0] == 1) {
		buf_reset(&req->inflated);
		if (gzip_inflate(data, len, req->channel->opts.max_message, &req->inflated, &err) !=
		    0) {
			err.code = err.code == ERR_INVALID ? ERR_INTERNAL : err.code;
			rpc_request_finish(req, &err);
			return false;
		}
		data = req->inflated.data;
		len = req->inflated.len;
	}
	if (req->unary_cb != NULL && req->message_kept) {
		abort_with(req, ERR_INTERNAL, "the response has more than one message");
		return false;
	}
	arena_reset(&req->arena);
	if (pb_decode(req->out, data, len, NULL, &req->arena, &req->message, &err) != 0) {
		err_prefix(&err, "the response cannot be decoded");
		err.code = ERR_INTERNAL;
		rpc_request_finish(req, &err);
		return false;
	}
	req->raw = data;
	req->raw_len = len;
	req->message_kept = true;
	if (req->handler != NULL) {
		req->delivering = true;
		req->handler->on_message(req->arg, req, req->message);
		req->delivering = false;
		req->message_kept = false;
	}
	return !req->over;
}

static void request_process(struct rpc_request *req)
{
	if (req->delivering || req->over) {
		return;
	}
	req->busy++;
	while (!req->paused && !req->over && process_one(req)) {
	}
	if (!req->over && req->handler != NULL && req->pos > 0) {
		if (req->pos == req->in.len) {
			buf_done(&req->in);
		} else {
			buf_consume(&req->in, req->pos);
		}
		req->pos = 0;
	}
	if (!req->over && req->stream_over && !req->paused) {
		request_conclude(req);
	}
	request_leave(req);
}

/* Opens the server's window again, unless the caller holds it shut. */
static void request_consume(struct rpc_request *req)
{
	size_t n = req->withheld;

	if (n > 0 && !req->over && !req->paused && req->stream != NULL) {
		req->withheld = 0;
		h2_stream_consume(req->stream, n);
	}
}

static void on_headers(void *arg, int status, const struct http_header *headers, size_t n,
		       bool trailers, bool end)
{
	struct rpc_request *req = arg;

	if (trailers) {
		save_pairs(req, &req->trailers, headers, n);
		read_status(req);
		return;
	}
	save_pairs(req, end ? &req->trailers : &req->headers, headers, n);
	req->http_status = status;
	const struct rpc_pair *type =
		rpc_pairs_find(end ? &req->trailers : &req->headers, "content-type");
	const struct rpc_pair *encoding = rpc_pairs_find(&req->headers, "grpc-encoding");
	if (end) {
		read_status(req);
	}
	if (!req->have_status &&
	    (status != 200 || type == NULL || strncmp(type->value, "application/grpc", 16) != 0)) {
		err_set(&req->end, status == 200 ? ERR_UNKNOWN : code_of_http(status),
			"not a gRPC answer: HTTP status %d, content type %.60s", status,
			type != NULL ? type->value : "none");
		req->have_status = true;
	}
	req->gzip = encoding != NULL && strcmp(encoding->value, "gzip") == 0;
	req->opened = true;
	if (req->handler != NULL && req->handler->on_open != NULL && req->end.code == 0) {
		req->busy++;
		req->handler->on_open(req->arg, req);
		request_leave(req);
	}
}

static void on_data(void *arg, const uint8_t *data, size_t len, bool end)
{
	struct rpc_request *req = arg;

	(void)end;
	if (req->end.code != 0) { /* an error page's body */
		h2_stream_consume(req->stream, len);
		return;
	}
	buf_append(&req->in, data, len);
	req->withheld += len;
	req->busy++;
	request_process(req);
	request_consume(req);
	request_leave(req);
}

static void on_close(void *arg, uint32_t code, bool local, const struct err *err)
{
	struct rpc_request *req = arg;

	(void)local;
	req->stream = NULL;
	if (code == H2_REFUSED_STREAM && !req->opened && !req->retried &&
	    (req->first != NULL || req->unary_cb != NULL)) {
		/* The server has not looked at it: again, once, on this or the next connection. */
		req->retried = true;
		req->half_closed = true;
		struct rpc_channel *ch = req->channel;
		if (ch->conn != NULL && h2_client_usable(ch->conn->h2)) {
			rpc_request_start(req);
		} else {
			rpc_channel_want(ch);
		}
		return;
	}
	req->stream_over = true;
	if (!req->have_status) {
		if (code == H2_NO_ERROR) {
			err_set(&req->end, ERR_UNKNOWN,
				"the server ended the call without a status");
		} else {
			err_set(&req->end, code_of_reset(code), "%s", err->msg);
		}
	}
	request_process(req);
}

static void on_writable(void *arg)
{
	struct rpc_request *req = arg;

	if (req->handler != NULL && req->handler->on_writable != NULL && !req->over) {
		req->busy++;
		req->handler->on_writable(req->arg, req);
		request_leave(req);
	}
}

static const struct h2_stream_handler stream_handler = {
	.on_headers = on_headers,
	.on_data = on_data,
	.on_close = on_close,
	.on_writable = on_writable,
};

/* ---- Out ------------------------------------------------------------------------------------- */

static struct blob *frame(const ProtobufCMessage *msg, bool compress)
{
	struct buf plain = BUF_INIT;
	struct buf out = BUF_INIT;

	if (!compress) {
		size_t len = protobuf_c_message_get_packed_size(msg);
		uint8_t *room;
		struct blob *blob = blob_room(PREFIX + len, &room);

		room[0] = 0;
		be_put32(room + 1, (uint32_t)len);
		POST(protobuf_c_message_pack(msg, room + PREFIX) == len);
		return blob;
	}
	memset(buf_reserve(&out, PREFIX), 0, PREFIX);
	out.len = PREFIX;
	pb_pack(msg, &plain);
	gzip_deflate(plain.data, plain.len, &out);
	buf_done(&plain);
	out.data[0] = 1;
	be_put32(out.data + 1, (uint32_t)(out.len - PREFIX));
	return blob_take(&out);
}

static size_t add_metadata(struct http_header *headers, size_t n, char **owned, size_t *n_owned,
			   const struct rpc_metadata *list, size_t count)
{
	for (size_t i = 0; i < count && n < HEADERS_MAX; i++) {
		size_t len = list[i].len != 0 ? list[i].len : strlen(list[i].value);
		char *value;

		if (rpc_name_is_bin(list[i].name)) {
			struct buf text = BUF_INIT;

			base64_append(&text, list[i].value, len);
			while (text.len > 0 && text.data[text.len - 1] == '=') {
				text.len--;
			}
			value = buf_take(&text, NULL);
		} else if (!rpc_value_valid(list[i].value, len)) {
			continue;
		} else if (list[i].len == 0) {
			headers[n++] = (struct http_header){list[i].name, list[i].value};
			continue;
		} else {
			value = mem_strndup(list[i].value, len);
		}
		owned[(*n_owned)++] = value;
		headers[n++] = (struct http_header){list[i].name, value};
	}
	return n;
}

void rpc_request_start(struct rpc_request *req)
{
	struct rpc_channel *ch = req->channel;
	struct http_header headers[HEADERS_MAX];
	char *owned[HEADERS_MAX];
	struct rpc_metadata extra[METADATA_MAX];
	size_t n = 0, n_owned = 0;
	char timeout[16];
	uint64_t now = loop_now(ch->loop);

	headers[n++] = (struct http_header){":method", "POST"};
	headers[n++] = (struct http_header){":scheme", ch->is_tls ? "https" : "http"};
	headers[n++] = (struct http_header){":path", req->path};
	headers[n++] = (struct http_header){":authority", ch->authority};
	headers[n++] = (struct http_header){"te", "trailers"};
	headers[n++] = (struct http_header){"content-type", "application/grpc"};
	headers[n++] = (struct http_header){"user-agent", ch->user_agent};
	headers[n++] = (struct http_header){"grpc-accept-encoding", "identity,gzip"};
	if (req->compress) {
		headers[n++] = (struct http_header){"grpc-encoding", "gzip"};
	}
	if (req->deadline != UINT64_MAX) {
		rpc_timeout_format(req->deadline > now ? req->deadline - now : 1, timeout);
		headers[n++] = (struct http_header){"grpc-timeout", timeout};
	}
	if (ch->opts.metadata != NULL) {
		size_t count = ch->opts.metadata(ch->opts.arg, req->path, extra, METADATA_MAX);

		n = add_metadata(headers, n, owned, &n_owned, extra,
				 MIN(count, (size_t)METADATA_MAX));
	}
	n = add_metadata(headers, n, owned, &n_owned, req->metadata, req->n_metadata);
	bool empty = req->first == NULL && list_empty(&req->waiting) && req->half_closed;
	int rc =
		h2_client_open(ch->conn->h2, headers, n, empty, &stream_handler, req, &req->stream);
	for (size_t i = 0; i < n_owned; i++) {
		mem_free(owned[i]);
	}
	if (rc == 0 && req->first != NULL) {
		rc = h2_stream_send(req->stream, req->first, 0, req->first->len, req->half_closed);
	}
	struct list *l;
	while (rc == 0 && (l = list_pop(&req->waiting)) != NULL) {
		struct message *m = LIST_ENTRY(l, struct message, link);

		rc = h2_stream_send(req->stream, m->blob, 0, m->blob->len,
				    req->half_closed && list_empty(&req->waiting));
		blob_unref(m->blob);
		mem_free(m);
	}
	req->waiting_bytes = 0;
	if (rc != 0) {
		struct err err = {0};

		err_set(&err, rc == ERR_LIMIT ? ERR_LIMIT : ERR_UNAVAILABLE,
			"the request cannot be sent: %s", err_text(rc));
		rpc_request_fail_soon(req, &err);
	}
}

/* ---- Ends ------------------------------------------------------------------------------------ */

static void on_deadline(void *arg)
{
	struct rpc_request *req = arg;
	struct err err = {0};

	err_set(&err, ERR_DEADLINE, "no answer in time%s%s",
		req->stream == NULL ? ": no connection: " : "",
		req->stream == NULL ? err_msg(&req->channel->last, ERR_UNAVAILABLE) : "");
	rpc_request_finish(req, &err);
}

static void on_soon(void *arg)
{
	struct rpc_request *req = arg;
	struct err end = req->end;

	rpc_request_finish(req, &end);
}

void rpc_request_fail_soon(struct rpc_request *req, const struct err *err)
{
	req->end = *err;
	loop_timer_start(&req->soon, req->channel->loop, 0, on_soon, req);
}

static struct rpc_request *request_new(struct rpc_channel *ch, const char *path,
				       const ProtobufCMessage *msg,
				       const ProtobufCMessageDescriptor *out,
				       const struct rpc_opts *opts, uint64_t deadline_ms)
{
	struct rpc_request *req = MEM_NEW(struct rpc_request);

	req->channel = ch;
	ch->refs++;
	ch->n_requests++;
	req->path = mem_strdup(path);
	req->out = out;
	list_init(&req->waiting);
	req->deadline = UINT64_MAX;
	arena_init(&req->meta, 4 * LIM_RPC_METADATA_BYTES);
	arena_init(&req->arena, pb_arena_budget(ch->opts.max_message));
	if (opts != NULL) {
		req->wait_for_ready = opts->wait_for_ready;
		req->compress = opts->compress;
		req->n_metadata = MIN(opts->n_metadata, (size_t)METADATA_MAX);
		req->metadata = req->n_metadata > 0
					? mem_calloc(req->n_metadata, sizeof(*req->metadata))
					: NULL;
		for (size_t i = 0; i < req->n_metadata; i++) {
			const struct rpc_metadata *m = &opts->metadata[i];

			req->metadata[i].len = m->len != 0 ? m->len : strlen(m->value);
			req->metadata[i].name = mem_strdup(m->name);
			char *value = mem_alloc(req->metadata[i].len + 1);
			memcpy(value, m->value, req->metadata[i].len);
			value[req->metadata[i].len] = '\0';
			req->metadata[i].value = value;
		}
	}
	if (msg != NULL) {
		req->first = frame(msg, req->compress);
		req->half_closed = true;
	}
	if (deadline_ms != 0) {
		loop_timer_start(&req->timer, ch->loop, deadline_ms, on_deadline, req);
		req->deadline = req->timer.due;
	}
	list_push(&ch->requests, &req->link);
	return req;
}

static void request_launch(struct rpc_request *req)
{
	struct rpc_channel *ch = req->channel;
	struct err err = {0};

	if (ch->freed) {
		err_set(&err, ERR_CANCELLED, "the channel is closed");
		rpc_request_fail_soon(req, &err);
	} else if (ch->n_requests > LIM_RPC_REQUESTS) {
		err_set(&err, ERR_LIMIT, "too many requests wait for %s", ch->authority);
		rpc_request_fail_soon(req, &err);
	} else if (ch->conn != NULL && h2_client_usable(ch->conn->h2)) {
		rpc_request_start(req);
	} else if (ch->n_targets == 0 || (!req->wait_for_ready && ch->state == RPC_CHANNEL_FAILED &&
					  loop_timer_active(&ch->timer))) {
		err_set(&err, ERR_UNAVAILABLE, "no connection: %s",
			err_msg(&ch->last, ERR_UNAVAILABLE));
		rpc_request_fail_soon(req, &err);
	} else {
		rpc_channel_want(ch);
	}
}

/* ---- Public ---------------------------------------------------------------------------------- */

struct rpc_request *rpc_unary(struct rpc_channel *ch, const char *path, const ProtobufCMessage *msg,
			      const ProtobufCMessageDescriptor *out, const struct rpc_opts *opts,
			      rpc_unary_cb cb, void *arg)
{
	uint64_t deadline = opts != NULL && opts->deadline_ms != 0 ? opts->deadline_ms : 10000;
	struct rpc_request *req = request_new(ch, path, msg, out, opts, deadline);

	req->unary_cb = cb;
	req->arg = arg;
	request_launch(req);
	return req;
}

struct rpc_request *rpc_open(struct rpc_channel *ch, const char *path, const ProtobufCMessage *msg,
			     const ProtobufCMessageDescriptor *out, const struct rpc_opts *opts,
			     const struct rpc_stream_handler *handler, void *arg)
{
	struct rpc_request *req =
		request_new(ch, path, msg, out, opts, opts != NULL ? opts->deadline_ms : 0);

	req->handler = handler;
	req->arg = arg;
	request_launch(req);
	return req;
}

static int send_framed(struct rpc_request *req, struct blob *blob)
{
	if (req->stream != NULL) {
		return h2_stream_send(req->stream, blob, 0, blob->len, false);
	}
	if (req->waiting_bytes + blob->len > LIM_GRPC_STREAM_QUEUE_BYTES) {
		return ERR_LIMIT;
	}
	struct message *m = MEM_NEW(struct message);
	m->blob = blob_ref(blob);
	list_push(&req->waiting, &m->link);
	req->waiting_bytes += blob->len;
	return 0;
}

int rpc_send(struct rpc_request *req, const ProtobufCMessage *msg)
{
	if (req->half_closed || req->over || req->stream_over || loop_timer_active(&req->soon)) {
		return ERR_CLOSED;
	}
	struct blob *blob = frame(msg, req->compress);
	int rc = send_framed(req, blob);
	blob_unref(blob);
	return rc;
}

void rpc_half_close(struct rpc_request *req)
{
	if (req->half_closed) {
		return;
	}
	req->half_closed = true;
	if (req->stream != NULL) {
		IGNORE(h2_stream_send(req->stream, NULL, 0, 0, true));
	}
}

void rpc_cancel(struct rpc_request *req)
{
	if (req == NULL || req->over) {
		return;
	}
	req->busy++;
	request_detach(req);
	request_leave(req);
}

void rpc_pause(struct rpc_request *req)
{
	req->paused = true;
}

static void on_resume(void *arg)
{
	request_process(arg);
}

void rpc_resume(struct rpc_request *req)
{
	if (!req->paused || req->over) {
		return;
	}
	req->paused = false;
	request_consume(req);
	/* Delivered in a later turn: never inside this call. */
	loop_timer_start(&req->soon, req->channel->loop, 0, on_resume, req);
}

const char *rpc_response_header(const struct rpc_request *req, const char *name)
{
	const struct rpc_pair *p = rpc_pairs_find(&req->headers, name);

	return p != NULL ? p->value : NULL;
}

const char *rpc_response_trailer(const struct rpc_request *req, const char *name)
{
	const struct rpc_pair *p = rpc_pairs_find(&req->trailers, name);

	return p != NULL ? p->value : NULL;
}

const uint8_t *rpc_response_bytes(const struct rpc_request *req, size_t *ret_len)
{
	*ret_len = req->delivering ? req->raw_len : 0;
	return req->delivering ? req->raw : NULL;
}

struct wait {
	bool done;
	struct err status;
	const ProtobufCMessageDescriptor *out;
	struct arena *arena;
	ProtobufCMessage *reply;
};

static void wait_cb(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct wait *w = arg;

	w->done = true;
	w->status = *status;
	if (reply != NULL && w->arena != NULL) {
		struct buf packed = BUF_INIT;

		pb_pack(reply, &packed);
		if (pb_decode(w->out, packed.data, packed.len, NULL, w->arena, &w->reply,
			      &w->status) != 0) {
			w->reply = NULL;
		}
		buf_done(&packed);
	}
}

int rpc_unary_wait(struct loop *loop, struct rpc_channel *ch, const char *path,
		   const ProtobufCMessage *msg, const ProtobufCMessageDescriptor *out,
		   const struct rpc_opts *opts, struct arena *arena, ProtobufCMessage **ret_reply,
		   struct err *err)
{
	struct wait w = {.out = out, .arena = arena};

	rpc_unary(ch, path, msg, out, opts, wait_cb, &w);
	while (!w.done) {
		loop_turn(loop, true);
	}
	if (w.status.code != 0) {
		if (err != NULL) {
			*err = w.status;
		}
		return w.status.code;
	}
	if (ret_reply != NULL) {
		*ret_reply = w.reply;
	}
	return 0;
}
