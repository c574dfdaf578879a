#include "net/rpc.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "net/rpc_int.h"
#include "proto/pb_decode.h"

/*
 * The server side of calls, apart from any transport.
 *
 *   NEW -start-> GATE -passed-> OPEN -half-close-> HALF_CLOSED -reply/finish/cancel/deadline-> DONE
 * (freed)
 *
 * A handler may end its call inside any callback. Code here therefore touches the call after a
 * callback only when it has looked it up again by its id.
 */

static _Atomic uint64_t next_id = 1;

static const char *const code_names[17] = {
	"OK",
	"CANCELLED",
	"UNKNOWN",
	"INVALID_ARGUMENT",
	"DEADLINE_EXCEEDED",
	"NOT_FOUND",
	"ALREADY_EXISTS",
	"PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED",
	"FAILED_PRECONDITION",
	"ABORTED",
	"OUT_OF_RANGE",
	"UNIMPLEMENTED",
	"INTERNAL",
	"UNAVAILABLE",
	"DATA_LOSS",
	"UNAUTHENTICATED",
};

/* ---- Server ---------------------------------------------------------------------------------- */

struct rpc_server *rpc_server_new(struct loop *loop, const char *name)
{
	struct rpc_server *server = MEM_NEW(struct rpc_server);

	server->loop = loop;
	server->name = mem_strdup(name);
	map_init(&server->methods);
	list_init(&server->calls);
	return server;
}

static void call_end(struct rpc_call *call, const struct err *err, bool tell_transport);

void rpc_server_free(struct rpc_server *server)
{
	struct map_iter it = {0};
	struct err err = {0};

	if (server == NULL) {
		return;
	}
	server->draining = true;
	err_reason(&err, ERR_UNAVAILABLE, "SHUTTING_DOWN", "the server is shutting down");
	while (!list_empty(&server->calls)) {
		struct rpc_call *call = LIST_ENTRY(server->calls.next, struct rpc_call, link);

		call_end(call, &err, true);
	}
	while (map_next(&server->methods, &it)) {
		struct rpc_method_entry *entry = it.value;

		mem_free(entry->labels);
		mem_free(entry);
	}
	map_done(&server->methods);
	mem_free(server->slots);
	mem_free(server->name);
	mem_free(server);
}

void rpc_server_add_method(struct rpc_server *server, const struct proto_method *method,
			   const struct rpc_handler *handler, void *arg)
{
	struct rpc_method_entry *entry = MEM_NEW(struct rpc_method_entry);
	struct buf labels = BUF_INIT;

	PRE(map_get_str(&server->methods, method->path) == NULL);
	PRE(method->client_streaming ? handler->on_message != NULL : handler->on_call != NULL);
	metrics_label(&labels, "server", server->name);
	metrics_label(&labels, "method", method->path + 1);
	entry->labels = mem_strdup(buf_str(&labels));
	buf_done(&labels);
	entry->method = method;
	entry->handler = handler;
	entry->arg = arg;
	map_put_str(&server->methods, method->path, entry);
}

void rpc_server_add(struct rpc_server *server, const char *path, const struct rpc_handler *handler,
		    void *arg)
{
	const struct proto_method *method = proto_method_find(path);

	PRE(method != NULL);
	rpc_server_add_method(server, method, handler, arg);
}

const struct proto_method *rpc_server_method(const struct rpc_server *server, const char *path)
{
	const struct rpc_method_entry *entry = map_get_str(&server->methods, path);

	return entry != NULL ? entry->method : NULL;
}

void rpc_server_set_gate(struct rpc_server *server, rpc_gate_fn gate, void *arg)
{
	server->gate = gate;
	server->gate_arg = arg;
}

void rpc_server_set_observer(struct rpc_server *server, rpc_observer_fn observer, void *arg)
{
	server->observer = observer;
	server->observer_arg = arg;
}

size_t rpc_server_calls(const struct rpc_server *server)
{
	return server->n_calls;
}

struct loop *rpc_server_loop(const struct rpc_server *server)
{
	return server->loop;
}

/* ---- Ids ------------------------------------------------------------------------------------- */

enum { SLOT_BITS = 17 };
_Static_assert(LIM_RPC_CALLS <= 1 << SLOT_BITS, "a slot for each call");

/* The number above the slot is never used again, not by another server either. */
static void slot_take(struct rpc_server *server, struct rpc_call *call)
{
	if (server->free_slot == server->n_slots) {
		uint32_t n = MAX(2 * server->n_slots, 64u);

		server->slots = mem_reallocarray(server->slots, n, sizeof(*server->slots));
		for (uint32_t i = server->n_slots; i < n; i++) {
			server->slots[i] = (struct rpc_slot){.next_free = i + 1};
		}
		server->n_slots = n;
	}
	uint32_t slot = server->free_slot;
	server->free_slot = server->slots[slot].next_free;
	server->slots[slot].call = call;
	call->id = next_id++ << SLOT_BITS | slot;
}

static void slot_give(struct rpc_server *server, const struct rpc_call *call)
{
	uint32_t slot = (uint32_t)(call->id & ((1u << SLOT_BITS) - 1));

	server->slots[slot] = (struct rpc_slot){.next_free = server->free_slot};
	server->free_slot = slot;
}

struct rpc_call *rpc_call_by_id(const struct rpc_server *server, uint64_t id)
{
	uint32_t slot = (uint32_t)(id & ((1u << SLOT_BITS) - 1));
	struct rpc_call *call = slot < server->n_slots ? server->slots[slot].call : NULL;

	return call != NULL && call->id == id ? call : NULL;
}

/* ---- Life of a call, for transports ---------------------------------------------------------- */

struct rpc_call *rpc_call_begin(struct rpc_server *server, const struct proto_method *method,
				const struct rpc_call_ops *ops, void *transport,
				struct http_conn *conn, struct err *err)
{
	struct rpc_method_entry *entry = map_get_str(&server->methods, method->path);

	PRE(entry != NULL);
	if (server->draining) {
		err_reason(err, ERR_UNAVAILABLE, "SHUTTING_DOWN", "the server is shutting down");
		return NULL;
	}
	if (server->n_calls >= LIM_RPC_CALLS) {
		METRICS_COUNT("skerry_grpc_calls_refused_total",
			      "Calls refused because too many were open.", 1);
		err_reason(err, ERR_LIMIT, "TOO_MANY_CALLS", "the server has too many open calls");
		return NULL;
	}
	struct rpc_call *call = MEM_NEW(struct rpc_call);
	call->server = server;
	call->entry = entry;
	call->ops = ops;
	call->transport = transport;
	call->conn = conn;
	call->timeout_ms = UINT64_MAX;
	call->deadline = UINT64_MAX;
	call->pushback_ms = -1;
	call->start_ns = clock_mono_ns();
	arena_init(&call->arena,
		   4 * LIM_RPC_METADATA_BYTES + pb_arena_budget(method->max_request_bytes));
	slot_take(server, call);
	list_push(&server->calls, &call->link);
	server->n_calls++;
	if (entry->open == NULL) {
		entry->open =
			metrics_gauge("skerry_grpc_open_calls", "Calls under way.", entry->labels);
	}
	gauge_add(entry->open, 1);
	return call;
}

static void call_free(struct rpc_call *call)
{
	if (call->data != NULL && call->data_free != NULL) {
		call->data_free(call->data);
	}
	arena_done(&call->arena);
	mem_free(call);
}

static void call_count(struct rpc_call *call, int status, uint64_t micros)
{
	struct rpc_method_entry *entry = call->entry;

	if (entry->by_code[status] == NULL) {
		struct buf labels = BUF_INIT;

		buf_append_str(&labels, entry->labels);
		metrics_label(&labels, "code", code_names[status]);
		entry->by_code[status] = metrics_counter(
			"skerry_grpc_calls_total", "Calls answered, by status.", buf_str(&labels));
		buf_done(&labels);
	}
	counter_inc(entry->by_code[status]);
	gauge_add(entry->open, -1);
	if (!entry->method->server_streaming && !entry->method->client_streaming) {
		if (entry->latency == NULL) {
			entry->latency = metrics_histogram(
				"skerry_grpc_call_seconds", "Time to answer unary calls.",
				entry->labels, METRICS_SECONDS, METRICS_SECONDS_LEN);
		}
		histogram_observe(entry->latency, (double)micros / 1e6);
	}
}

/* Takes the call out of everything, tells the transport (unless it told us), frees it. */
static void call_end(struct rpc_call *call, const struct err *err, bool tell_transport)
{
	struct rpc_server *server = call->server;
	int status = err != NULL && err->code != 0 ? err_grpc(err->code) : 0;
	uint64_t micros = (clock_mono_ns() - call->start_ns) / 1000;
	static const struct err ok;

	call->state = RPC_CALL_DONE;
	loop_timer_stop(&call->timer);
	list_remove(&call->link);
	slot_give(server, call);
	server->n_calls--;
	if (server->observer != NULL) {
		server->observer(server->observer_arg, call, status, micros);
	}
	call_count(call, status, micros);
	if (tell_transport) {
		call->ops->finish(call, err != NULL ? err : &ok);
	}
	call_free(call);
}

static struct rpc_call *call_again(struct rpc_server *server, uint64_t id)
{
	return rpc_call_by_id(server, id);
}

/* The call ends without the handler's doing: it is told first. */
static void call_break(struct rpc_call *call, const struct err *why, bool tell_transport)
{
	if (call->state == RPC_CALL_DONE) {
		return;
	}
	bool started = call->state != RPC_CALL_NEW;
	call->state = RPC_CALL_DONE; /* answers of the callback go nowhere */
	if (started && call->cancel_cb != NULL) {
		void (*cb)(void *, struct rpc_call *, const struct err *) = call->cancel_cb;

		call->cancel_cb = NULL;
		cb(call->cancel_arg, call, why);
	}
	call_end(call, why, tell_transport);
}

void rpc_call_cancelled(struct rpc_call *call, const struct err *why)
{
	call_break(call, why, false);
}

void rpc_call_refuse(struct rpc_call *call, const struct err *err)
{
	call_break(call, err, true);
}

static void on_deadline(void *arg)
{
	struct rpc_call *call = arg;
	struct err err = {0};

	err_set(&err, ERR_DEADLINE, "the deadline passed");
	call_break(call, &err, true);
}

int rpc_call_add_metadata(struct rpc_call *call, const char *name, const char *value)
{
	return rpc_pairs_add(&call->arena, &call->metadata, name, value, strlen(value)) ? 0
											: ERR_LIMIT;
}

void rpc_call_set_timeout(struct rpc_call *call, uint64_t ms)
{
	call->timeout_ms = ms;
}

static bool is_unary(const struct rpc_call *call)
{
	return !call->entry->method->client_streaming && !call->entry->method->server_streaming;
}

/* Returns false when the call is gone. */
static bool gate_passed(struct rpc_call *call)
{
	struct rpc_server *server = call->server;
	const struct rpc_handler *handler = call->entry->handler;
	uint64_t id = call->id;

	call->state = RPC_CALL_OPEN;
	if (call->entry->method->client_streaming && handler->on_open != NULL) {
		handler->on_open(call->entry->arg, call);
		return call_again(server, id) != NULL;
	}
	return true;
}

void rpc_call_start(struct rpc_call *call)
{
	struct rpc_server *server = call->server;
	struct err err = {0};
	uint64_t ms = call->timeout_ms;
	uint64_t id = call->id;
	int rc = 0;

	PRE(call->state == RPC_CALL_NEW);
	call->state = RPC_CALL_GATE;
	if (is_unary(call) && ms > LIM_GRPC_UNARY_MS) {
		ms = LIM_GRPC_UNARY_MS;
	}
	if (ms == 0) {
		on_deadline(call);
		return;
	}
	if (ms != UINT64_MAX) {
		loop_timer_start(&call->timer, server->loop, ms, on_deadline, call);
		call->deadline = call->timer.due;
	}
	if (server->gate != NULL) {
		rc = server->gate(server->gate_arg, call, call->entry->method, &err);
		if (call_again(server, id) == NULL || call->state != RPC_CALL_GATE) {
			return; /* the gate answered by itself */
		}
	}
	if (rc < 0) {
		if (err.code == 0) {
			err_set(&err, rc, "%s", err_text(rc));
		}
		call_break(call, &err, true);
	} else if (rc == 0) {
		(void)gate_passed(call);
	}
}

void rpc_gate_done(struct rpc_call *call, const struct err *err)
{
	struct rpc_server *server = call->server;
	uint64_t id = call->id;

	if (call->state != RPC_CALL_GATE) {
		return;
	}
	if (err != NULL && err->code != 0) {
		call_break(call, err, true);
		return;
	}
	if (!gate_passed(call)) {
		return;
	}
	if (call->ops->ready != NULL) {
		call->ops->ready(call);
	}
	call = call_again(server, id);
	if (call != NULL && call->half_close_pending && rpc_call_ready(call)) {
		rpc_call_half_close(call);
	}
}

bool rpc_call_ready(const struct rpc_call *call)
{
	return call->state == RPC_CALL_OPEN && !call->paused;
}

struct arena *rpc_call_arena(struct rpc_call *call)
{
	return &call->arena;
}

void rpc_call_message(struct rpc_call *call, const ProtobufCMessage *msg, const uint8_t *raw,
		      size_t raw_len)
{
	PRE(call->state == RPC_CALL_OPEN);
	call->messages++;
	if (call->entry->method->client_streaming) {
		call->entry->handler->on_message(call->entry->arg, call, msg);
		return;
	}
	call->request = msg;
	call->raw = raw;
	call->raw_len = raw_len;
}

void rpc_call_half_close(struct rpc_call *call)
{
	const struct rpc_handler *handler = call->entry->handler;

	if (!rpc_call_ready(call)) {
		call->half_close_pending = true;
		return;
	}
	call->half_close_pending = false;
	if (!call->entry->method->client_streaming && call->messages != 1) {
		struct err err = {0};

		err_set(&err, ERR_UNIMPLEMENTED,
			"the method takes exactly one request message, %u came", call->messages);
		call_break(call, &err, true);
		return;
	}
	call->state = RPC_CALL_HALF_CLOSED;
	if (!call->entry->method->client_streaming) {
		handler->on_call(call->entry->arg, call, call->request);
	} else if (handler->on_half_close != NULL) {
		handler->on_half_close(call->entry->arg, call);
	} else {
		rpc_call_finish(call, NULL);
	}
}

void rpc_call_drained(struct rpc_call *call)
{
	if (call->state != RPC_CALL_DONE && call->writable_cb != NULL) {
		call->writable_cb(call->writable_arg, call);
	}
}

/* ---- Answers --------------------------------------------------------------------------------- */

void rpc_call_send_headers(struct rpc_call *call)
{
	if (call->state == RPC_CALL_DONE || call->head_sent || call->ops->head == NULL) {
		return;
	}
	call->head_sent = true;
	call->ops->head(call);
}

int rpc_call_send(struct rpc_call *call, const ProtobufCMessage *msg)
{
	if (call->state == RPC_CALL_DONE) {
		return ERR_CLOSED;
	}
	rpc_call_send_headers(call);
	return call->ops->message(call, msg, NULL, 0);
}

int rpc_call_send_blobs(struct rpc_call *call, struct blob *const *blobs, size_t n)
{
	if (call->state == RPC_CALL_DONE) {
		return ERR_CLOSED;
	}
	rpc_call_send_headers(call);
	return call->ops->message(call, NULL, blobs, n);
}

size_t rpc_call_backlog(const struct rpc_call *call)
{
	return call->state == RPC_CALL_DONE ? 0 : call->ops->backlog(call);
}

void rpc_call_set_writable_cb(struct rpc_call *call, void (*cb)(void *arg, struct rpc_call *call),
			      void *arg)
{
	call->writable_cb = cb;
	call->writable_arg = arg;
}

void rpc_call_pause(struct rpc_call *call)
{
	call->paused = true;
}

void rpc_call_resume(struct rpc_call *call)
{
	struct rpc_server *server = call->server;
	uint64_t id = call->id;

	if (!call->paused || call->state == RPC_CALL_DONE) {
		return;
	}
	call->paused = false;
	if (!rpc_call_ready(call)) {
		return;
	}
	if (call->ops->ready != NULL) {
		call->ops->ready(call);
	}
	call = call_again(server, id);
	if (call != NULL && call->half_close_pending && rpc_call_ready(call)) {
		rpc_call_half_close(call);
	}
}

void rpc_call_reply(struct rpc_call *call, const ProtobufCMessage *msg)
{
	int rc = rpc_call_send(call, msg);

	if (rc == ERR_CLOSED && call->state == RPC_CALL_DONE) {
		return;
	}
	if (rc != 0) {
		rpc_call_fail(call, rc, "the reply cannot be sent: %s", err_text(rc));
		return;
	}
	rpc_call_finish(call, NULL);
}

void rpc_call_finish(struct rpc_call *call, const struct err *err)
{
	struct err copy;

	if (call->state == RPC_CALL_DONE) {
		return; /* from inside the cancel callback */
	}
	if (err != NULL) {
		copy = *err;
		if (copy.code != 0 && copy.msg[0] == '\0') {
			snprintf(copy.msg, sizeof(copy.msg), "%s", err_text(copy.code));
		}
	}
	call_end(call, err != NULL ? &copy : NULL, true);
}

void rpc_call_fail(struct rpc_call *call, int code, const char *fmt, ...)
{
	char text[sizeof(((struct err *)NULL)->msg)];
	struct err err = {0};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	err_set(&err, code, "%s", text);
	rpc_call_finish(call, &err);
}

/* ---- Draining -------------------------------------------------------------------------------- */

void rpc_server_drain(struct rpc_server *server, uint32_t spread_ms)
{
	struct list streams;
	struct err err = {0};
	struct list *l;

	server->draining = true;
	err_reason(&err, ERR_UNAVAILABLE, "SHUTTING_DOWN", "the server is shutting down");
	list_init(&streams);
	LIST_FOREACH_SAFE(&server->calls, it, next)
	{
		if (!is_unary(LIST_ENTRY(it, struct rpc_call, link))) {
			list_remove(it);
			list_push(&streams, it);
		}
	}
	while ((l = list_pop(&streams)) != NULL) {
		struct rpc_call *call = LIST_ENTRY(l, struct rpc_call, link);

		list_push(&server->calls, l);
		call->pushback_ms = spread_ms > 0 ? rand_below(spread_ms) : 0;
		call_break(call, &err, true);
	}
}
