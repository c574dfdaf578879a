#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/rand.h"
#include "net/rpc_client_int.h"
#include "net/stream.h"
#include "net/tls.h"

/*
 * A channel's connection:
 *
 *   IDLE -want-> CONNECTING -ok-> READY -lost-> IDLE (reconnect: CONNECTING at once)
 *                   \-failed-> FAILED -backoff over (reconnect or someone waits)-> CONNECTING
 *
 * GOAWAY: the connection is set aside for its last streams, and the channel is as if it were lost.
 */

static void channel_dial(struct rpc_channel *ch);

static void channel_state(struct rpc_channel *ch, enum rpc_channel_state state,
			  const struct err *err)
{
	if (ch->state == state && state != RPC_CHANNEL_FAILED) {
		return;
	}
	ch->state = state;
	if (ch->opts.on_state != NULL && !ch->freed) {
		ch->opts.on_state(ch->opts.arg, state, err);
	}
}

void rpc_channel_unref(struct rpc_channel *ch)
{
	if (--ch->refs > 0) {
		return;
	}
	for (size_t i = 0; i < ch->n_targets; i++) {
		mem_free(ch->targets[i]);
	}
	mem_free(ch->targets);
	mem_free(ch->server_name);
	mem_free(ch->device);
	mem_free(ch->user_agent);
	tls_unref(ch->opts.dial.tls);
	mem_free(ch);
}

static bool someone_waits(const struct rpc_channel *ch)
{
	LIST_FOREACH(&ch->requests, l)
	{
		const struct rpc_request *req = LIST_ENTRY(l, struct rpc_request, link);

		if (req->stream == NULL && !req->stream_over && !req->over &&
		    !loop_timer_active(&req->soon)) {
			return true;
		}
	}
	return false;
}

static void channel_on_timer(void *arg)
{
	struct rpc_channel *ch = arg;

	if (ch->conn == NULL && ch->dial == NULL && (ch->opts.reconnect || someone_waits(ch))) {
		channel_dial(ch);
	}
}

/* Requests that wait are started, or fail when none of them may wait longer. Each step may change
 * the list. */
static void channel_serve(struct rpc_channel *ch, const struct err *failure)
{
	struct list batch;
	struct list *l;

	list_init(&batch);
	list_splice(&batch, &ch->requests);
	while ((l = list_pop(&batch)) != NULL) {
		struct rpc_request *req = LIST_ENTRY(l, struct rpc_request, link);

		list_push(&ch->requests, l);
		if (req->stream != NULL || req->stream_over || req->over ||
		    loop_timer_active(&req->soon)) {
			continue;
		}
		if (failure == NULL) {
			rpc_request_start(req);
		} else if (!req->wait_for_ready) {
			rpc_request_fail_soon(req, failure);
		}
	}
}

/* ---- Connection ------------------------------------------------------------------------------ */

static void channel_lost(struct rpc_channel *ch, const struct err *err, bool quick)
{
	ch->last = *err;
	if (ch->freed) {
		return;
	}
	channel_state(ch, RPC_CHANNEL_IDLE, err);
	if (ch->conn != NULL || ch->dial != NULL || ch->freed || ch->n_targets == 0) {
		return; /* the callback dialled already */
	}
	if (ch->opts.reconnect || someone_waits(ch)) {
		/* At once, unless connections keep dying young. */
		loop_timer_start(&ch->timer, ch->loop, quick ? backoff_next(&ch->backoff) : 0,
				 channel_on_timer, ch);
	}
}

static void conn_on_goaway(void *arg, uint32_t code, const char *debug)
{
	struct channel_conn *conn = arg;
	struct rpc_channel *ch = conn->channel;
	struct err err = {0};

	conn->going = true;
	if (ch->conn == conn) {
		ch->conn = NULL;
		err_set(&err, ERR_UNAVAILABLE, "the server ends the connection%s%s",
			code != 0 ? ": " : "", code != 0 ? debug : "");
		ch->refs++;
		channel_lost(ch, &err, false);
		rpc_channel_unref(ch);
	}
}

static void conn_on_dead(void *arg, const struct err *why)
{
	struct channel_conn *conn = arg;
	struct rpc_channel *ch = conn->channel;
	bool in_use = ch->conn == conn;
	bool quick = loop_now(ch->loop) - conn->since < 1000;
	struct err err = *why;

	list_remove(&conn->link);
	h2_client_free(conn->h2);
	mem_free(conn);
	if (in_use) {
		ch->conn = NULL;
		ch->refs++;
		channel_lost(ch, &err, quick);
		rpc_channel_unref(ch);
	}
}

static void conn_on_settings(void *arg)
{
	struct channel_conn *conn = arg;

	backoff_reset(&conn->channel->backoff);
}

static const struct h2_client_handler conn_handler = {
	.on_goaway = conn_on_goaway,
	.on_dead = conn_on_dead,
	.on_settings = conn_on_settings,
};

static void channel_connected(struct rpc_channel *ch, struct stream *stream)
{
	struct channel_conn *conn = MEM_NEW(struct channel_conn);

	ch->is_tls = stream_tls(stream) != NULL;
	conn->channel = ch;
	conn->since = loop_now(ch->loop);
	conn->h2 = h2_client_new(stream, ch->opts.ping_ms, ch->opts.ping_timeout_ms, &conn_handler,
				 conn);
	list_push(&ch->conns, &conn->link);
	ch->conn = conn;
	ch->skip = SIZE_MAX;
	ch->refs++;
	channel_state(ch, RPC_CHANNEL_READY, NULL);
	if (!ch->freed && ch->conn == conn) {
		channel_serve(ch, NULL);
	}
	rpc_channel_unref(ch);
}

static void channel_on_dial(void *arg, struct stream *stream, size_t which, const struct err *err)
{
	struct rpc_channel *ch = arg;

	ch->dial = NULL;
	if (stream != NULL) {
		char host[256];
		uint16_t port;
		bool tls;

		ch->target = ch->dialled[which];
		const char *target = ch->targets[ch->target];
		if (dial_parse(target, host, &port, &tls, NULL) != 0 ||
		    strncmp(target, "unix:", 5) == 0) {
			snprintf(ch->authority, sizeof(ch->authority), "localhost");
		} else {
			snprintf(ch->authority, sizeof(ch->authority),
				 strchr(host, ':') != NULL ? "[%s]:%u" : "%s:%u",
				 ch->server_name != NULL ? ch->server_name : host, (unsigned)port);
		}
		channel_connected(ch, stream);
		return;
	}
	ch->last = *err;
	ch->skip = SIZE_MAX;
	ch->refs++;
	channel_state(ch, RPC_CHANNEL_FAILED, err);
	if (!ch->freed) {
		struct err failure = *err;

		if (err_grpc(failure.code) != 16) {
			failure.code = ERR_UNAVAILABLE;
		}
		channel_serve(ch, &failure);
		if (!ch->freed && ch->conn == NULL && ch->dial == NULL &&
		    (ch->opts.reconnect || someone_waits(ch))) {
			loop_timer_start(&ch->timer, ch->loop, backoff_next(&ch->backoff),
					 channel_on_timer, ch);
		}
	}
	rpc_channel_unref(ch);
}

static void channel_dial(struct rpc_channel *ch)
{
	const char *order[LIM_DIAL_TARGETS];
	size_t n = 0;

	loop_timer_stop(&ch->timer);
	/* The last good one first; one that shall be avoided last. */
	for (size_t i = 0; i < ch->n_targets; i++) {
		size_t at = (ch->target + i) % ch->n_targets;

		if (at != ch->skip || ch->n_targets == 1) {
			ch->dialled[n] = at;
			order[n++] = ch->targets[at];
		}
	}
	channel_state(ch, RPC_CHANNEL_CONNECTING, NULL);
	if (!ch->freed && ch->dial == NULL && ch->conn == NULL) {
		ch->dial = dial_race(ch->loop, order, n, &ch->opts.dial, channel_on_dial, ch);
	}
}

void rpc_channel_want(struct rpc_channel *ch)
{
	if (ch->freed || ch->conn != NULL || ch->dial != NULL || ch->n_targets == 0) {
		return;
	}
	if (ch->state == RPC_CHANNEL_FAILED && loop_timer_active(&ch->timer)) {
		return; /* backing off */
	}
	channel_dial(ch);
}

/* ---- Life ------------------------------------------------------------------------------------ */

static struct rpc_channel *channel_new(struct loop *loop, const struct rpc_channel_opts *opts)
{
	struct rpc_channel *ch = MEM_NEW(struct rpc_channel);

	ch->loop = loop;
	ch->refs = 1;
	ch->skip = SIZE_MAX;
	list_init(&ch->conns);
	list_init(&ch->requests);
	if (opts != NULL) {
		ch->opts = *opts;
	}
	ch->opts.targets = NULL;
	ch->server_name = mem_strdup(ch->opts.dial.server_name);
	ch->device = mem_strdup(ch->opts.dial.device);
	ch->user_agent = mem_strdup(ch->opts.user_agent != NULL ? ch->opts.user_agent
								: "skerry/" SKERRY_VERSION);
	ch->opts.dial.server_name = ch->server_name;
	ch->opts.dial.device = ch->device;
	if (ch->opts.dial.tls != NULL) {
		tls_ref(ch->opts.dial.tls);
	}
	if (ch->opts.max_message == 0) {
		ch->opts.max_message = LIM_GRPC_MESSAGE_BYTES;
	}
	snprintf(ch->authority, sizeof(ch->authority), "localhost");
	backoff_init(&ch->backoff, ch->opts.backoff_min_ms != 0 ? ch->opts.backoff_min_ms : 200,
		     ch->opts.backoff_max_ms != 0 ? ch->opts.backoff_max_ms : 30000);
	return ch;
}

void rpc_channel_set_targets(struct rpc_channel *ch, const char *const *targets, size_t n)
{
	char *current = ch->n_targets > 0 ? mem_strdup(ch->targets[ch->target]) : NULL;

	n = MIN(n, (size_t)LIM_DIAL_TARGETS);
	for (size_t i = 0; i < ch->n_targets; i++) {
		mem_free(ch->targets[i]);
	}
	mem_free(ch->targets);
	ch->targets = mem_calloc(n + 1, sizeof(*ch->targets));
	ch->n_targets = n;
	ch->target = 0;
	ch->skip = SIZE_MAX;
	for (size_t i = 0; i < n; i++) {
		ch->targets[i] = mem_strdup(targets[i]);
		if (current != NULL && strcmp(current, targets[i]) == 0) {
			ch->target = i;
		}
	}
	mem_free(current);
	if (ch->dial != NULL) { /* its indices mean the old list */
		dial_cancel(ch->dial);
		ch->dial = NULL;
		loop_timer_start(&ch->timer, ch->loop, 0, channel_on_timer, ch);
	}
}

struct rpc_channel *rpc_channel_new(struct loop *loop, const struct rpc_channel_opts *opts)
{
	struct rpc_channel *ch = channel_new(loop, opts);

	rpc_channel_set_targets(ch, opts->targets, opts->n_targets);
	if (ch->opts.reconnect) {
		loop_timer_start(&ch->timer, loop, 0, channel_on_timer, ch);
	}
	return ch;
}

struct rpc_channel *rpc_channel_over(struct stream *stream, const struct rpc_channel_opts *opts)
{
	struct rpc_channel *ch = channel_new(stream_loop(stream), opts);

	ch->opts.reconnect = false;
	channel_connected(ch, stream);
	return ch;
}

static void channel_close_conns(struct rpc_channel *ch)
{
	ch->conn = NULL;
	while (!list_empty(&ch->conns)) {
		struct channel_conn *conn = LIST_ENTRY(ch->conns.next, struct channel_conn, link);

		list_remove(&conn->link);
		h2_client_free(conn->h2);
		mem_free(conn);
	}
}

/* Ends all requests that have a stream (or all) with this status. */
static void channel_end_requests(struct rpc_channel *ch, const struct err *err, bool all)
{
	struct list batch;
	struct list *l;

	list_init(&batch);
	list_splice(&batch, &ch->requests);
	while ((l = list_pop(&batch)) != NULL) {
		struct rpc_request *req = LIST_ENTRY(l, struct rpc_request, link);

		list_push(&ch->requests, l);
		if (all || req->stream != NULL) {
			rpc_request_finish(req, err);
		}
	}
}

void rpc_channel_free(struct rpc_channel *ch)
{
	struct err err = {0};

	if (ch == NULL) {
		return;
	}
	ch->freed = true;
	ch->state = RPC_CHANNEL_SHUTDOWN;
	loop_timer_stop(&ch->timer);
	dial_cancel(ch->dial);
	ch->dial = NULL;
	err_set(&err, ERR_CANCELLED, "the channel was closed");
	channel_end_requests(ch, &err, true);
	channel_close_conns(ch);
	rpc_channel_unref(ch);
}

void rpc_channel_redial(struct rpc_channel *ch, size_t skip)
{
	struct err err = {0};

	ch->skip = skip;
	dial_cancel(ch->dial);
	ch->dial = NULL;
	err_set(&err, ERR_UNAVAILABLE, "the connection was given up for another");
	ch->refs++;
	channel_end_requests(ch, &err, false);
	channel_close_conns(ch);
	if (!ch->freed) {
		channel_state(ch, RPC_CHANNEL_IDLE, &err);
		loop_timer_start(&ch->timer, ch->loop, 0, channel_on_timer, ch);
	}
	rpc_channel_unref(ch);
}

enum rpc_channel_state rpc_channel_state(const struct rpc_channel *ch)
{
	return ch->state;
}

struct stream *rpc_channel_stream(const struct rpc_channel *ch)
{
	return ch->conn != NULL ? h2_client_stream(ch->conn->h2) : NULL;
}

size_t rpc_channel_target(const struct rpc_channel *ch)
{
	return ch->target;
}

size_t rpc_channel_requests(const struct rpc_channel *ch)
{
	return ch->n_requests;
}
