/* The connection to one other lighthouse: kept open, asked WhoAreYou every second, vetted. */
#include "cluster/peer_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "net/dial.h"
#include "net/http.h"
#include "net/rpc_client.h"
#include "net/stream.h"
#include "net/tls.h"

#define PATH_WHO "/skerry.internal.v1.PeerService/WhoAreYou"

typedef Skerry__Internal__V1__WhoAreYouRequest who_request;
typedef Skerry__Internal__V1__WhoAreYouResponse who_response;

static void on_timer(void *arg);

bool peer_link_connected(const struct peer_link *l)
{
	return l->channel != NULL && l->vetted;
}

static void set_vetted(struct peer_link *l, bool vetted)
{
	l->vetted = vetted;
	if (vetted) {
		l->down_ms = 0;
	} else if (l->down_ms == 0) {
		l->down_ms = clock_mono_ms();
	}
}

/* The connection is given up; the next one is dialled after a while. */
static void down(struct peer_link *l, const char *why)
{
	struct rpc_channel *ch = l->channel;
	bool was = ch != NULL;

	LOG_DEBUG("peer: link to %" PRIu64 " is down: %s", l->id, why);
	l->channel = NULL;
	if (l->ask != NULL) {
		rpc_cancel(l->ask);
		l->ask = NULL;
	}
	l->ask_again = false;
	set_vetted(l, false);
	peer_raft_vetted(l); /* what waits to be vetted fails now */
	loop_timer_start(&l->timer, l->peer->loop, backoff_next(&l->backoff), on_timer, l);
	peer_rows_update(l->peer);
	rpc_channel_free(ch);
	if (was && l->id == l->peer->leader) {
		probe_leader(l->peer);
	}
}

/* Never free a channel inside its own callback: it is done in the next turn. */
static void on_state(void *arg, enum rpc_channel_state state, const struct err *err)
{
	struct peer_link *l = arg;

	/* A connection that ended leaves the channel idle. */
	if (l->channel == NULL || state == RPC_CHANNEL_READY || state == RPC_CHANNEL_CONNECTING) {
		return;
	}
	LOG_DEBUG("peer: link to %" PRIu64 ": %s", l->id, err != NULL ? err->msg : "ended");
	loop_timer_start(&l->timer, l->peer->loop, 0, on_timer, l);
}

void peer_link_fill_request(struct peer_link *l, who_request *q)
{
	q->lighthouse_id = l->peer->self;
	q->incarnation = l->peer->incarnation;
	q->acknowledged_index = l->ack;
	q->peer_address = l->peer->keys->peer_address;
}

/*
 * A new process behind the link: does its log hold what it had acknowledged? Asked once per process: its own figures lag a
 * little behind what it acknowledges while it runs, but a log does not get shorter there.
 */
static void vet(struct peer_link *l, const who_response *a)
{
	/* What it acknowledged right before it went: a log that lacks it would be behind what raft counts on. */
	peer_ack_leader(l->peer);
	if (a->incarnation != l->vetted_incarnation && a->last_index < l->ack) {
		if (!l->stale) {
			LOG_WARN(
				"lighthouse %" PRIu64
				" lacks entries that it had acknowledged (has %" PRIu64
				", had %" PRIu64
				"): it is refused. Its directory was put back from a "
				"copy or wiped: remove it and join it anew with an empty directory",
				l->id, a->last_index, l->ack);
		}
		l->stale = true;
		set_vetted(l, false);
		return;
	}
	l->stale = false;
	l->vetted_incarnation = a->incarnation;
	set_vetted(l, true);
}

static void on_answer(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct peer_link *l = arg;
	struct peer *p = l->peer;
	const who_response *a = (const who_response *)reply;
	uint64_t now_ns = clock_mono_ns();

	l->ask = NULL;
	if (l->channel == NULL) {
		return;
	}
	l->answer_seq = l->ask_seq;
	if (status->code != 0) {
		LOG_DEBUG("peer: WhoAreYou to %" PRIu64 ": %s", l->id, status->msg);
		if (strcmp(status->reason, "MEMBER_REMOVED") == 0) {
			peer_refuse(
				p, PEER_EXIT_REMOVED,
				"lighthouse %" PRIu64 " says that this lighthouse (%" PRIu64
				") was removed from the "
				"cluster: empty %s and join anew with a new token to bring this "
				"host back",
				l->id, p->self, p->dir);
		}
		set_vetted(l, false);
		peer_raft_vetted(l);
		if (status->code == ERR_DEADLINE || status->code == ERR_UNAVAILABLE ||
		    status->code == ERR_CLOSED) {
			/* Silent or gone: a new connection tells. */
			loop_timer_start(&l->timer, p->loop, 0, on_timer, l);
			l->heard_ms = 0;
		} else {
			loop_timer_start(&l->timer, p->loop, PEER_ASK_MS, on_timer, l);
		}
		return;
	}
	if (a->lighthouse_id != l->id) {
		/* The certificate said who it is: a bug or a lie. */
		set_vetted(l, false);
		peer_raft_vetted(l);
		loop_timer_start(&l->timer, p->loop, PEER_ASK_MS, on_timer, l);
		return;
	}
	backoff_reset(&l->backoff);
	vet(l, a);
	l->incarnation = a->incarnation;
	l->term = a->term;
	l->leads = a->leader;
	l->last_index = a->last_index;
	l->applied_index = a->applied_index;
	l->revision = a->revision;
	l->devices = a->devices;
	l->disk_low = a->disk_low;
	l->rtt_us = (now_ns - l->asked_ns) / 1000;
	/* Its clock against the middle of the question: off by half of the round trip at most. */
	l->skew_ms = (int64_t)a->wall_ms - (int64_t)((l->asked_ns + now_ns) / 2 / 1000000);
	l->heard_ms = clock_mono_ms();
	if (l->ask_again) {
		l->ask_again = false;
		IGNORE(peer_link_ask(l));
	} else {
		loop_timer_start(&l->timer, p->loop, PEER_ASK_MS, on_timer, l);
	}
	peer_rows_update(p);
	peer_raft_vetted(l);
	member_run(p);
}

bool peer_link_ask(struct peer_link *l)
{
	who_request q = SKERRY__INTERNAL__V1__WHO_ARE_YOU_REQUEST__INIT;
	struct rpc_opts o = {.deadline_ms = PEER_ASK_DEADLINE_MS};

	if (l->channel == NULL) {
		return false;
	}
	if (l->ask != NULL) {
		l->ask_again = true;
		return true;
	}
	peer_link_fill_request(l, &q);
	l->ask_seq++;
	l->asked_ns = clock_mono_ns();
	l->ask = rpc_unary(l->channel, PATH_WHO, &q.base,
			   &skerry__internal__v1__who_are_you_response__descriptor, &o, on_answer,
			   l);
	return true;
}

/*
 * Calls that wait for an answer end with it: those for the leader are made again. What it was vetted for holds until the next
 * question, which the new connection begins with.
 */
void peer_link_renew(struct peer_link *l, bool awaited)
{
	struct rpc_channel *ch = l->channel;
	struct stream *s = ch != NULL ? rpc_channel_stream(ch) : NULL;

	if (s == NULL ||
	    (!stream_stalled(s) && !(awaited && stream_unanswered(s, PEER_SILENT_MS)))) {
		return;
	}
	METRICS_COUNT("skerry_peer_links_renewed_total",
		      "Links to lighthouses made anew as TCP was stuck on them", 1);
	LOG_DEBUG("peer: link to %" PRIu64 " is stuck", l->id);
	l->channel = NULL;
	if (l->ask != NULL) {
		rpc_cancel(l->ask);
		l->ask = NULL;
	}
	l->ask_again = false;
	loop_timer_start(&l->timer, l->peer->loop, 0, on_timer, l);
	rpc_channel_free(ch);
}

void peer_link_kick(struct peer_link *l)
{
	if (l->channel == NULL && l->dial == NULL) {
		backoff_reset(&l->backoff);
		loop_timer_start(&l->timer, l->peer->loop, 0, on_timer, l);
	}
}

static void on_dialled(void *arg, struct stream *stream, size_t which, const struct err *err)
{
	struct peer_link *l = arg;
	struct rpc_channel_opts o = {.on_state = on_state, .arg = l};

	(void)which;
	l->dial = NULL;
	if (stream == NULL) {
		METRICS_COUNT("skerry_peer_dial_failures_total",
			      "Failed connection attempts to other lighthouses", 1);
		LOG_DEBUG("peer: dial %" PRIu64 " at %s: %s", l->id, l->address, err->msg);
		set_vetted(l, false);
		loop_timer_start(&l->timer, l->peer->loop, backoff_next(&l->backoff), on_timer, l);
		return;
	}
	l->channel = rpc_channel_over(stream, &o);
	IGNORE(peer_link_ask(l));
}

/* Lost with the first packet a connection takes a second: others are begun beside it. */
struct dial *peer_dial(struct peer_link *l, struct dial_opts *o,
		       void (*cb)(void *arg, struct stream *stream, size_t which,
				  const struct err *err),
		       void *arg)
{
	const char *targets[PEER_DIALS];

	for (size_t i = 0; i < ARRAY_LEN(targets); i++) {
		targets[i] = l->address;
	}
	o->stagger_ms = PEER_DIAL_STAGGER_MS;
	return dial_race(l->peer->loop, targets, ARRAY_LEN(targets), o, cb, arg);
}

static void dial(struct peer_link *l)
{
	struct dial_opts o = {.timeout_ms = PEER_DIAL_MS, .user_timeout_ms = 5000};
	struct tls_ctx *tls;
	struct err e = {0};

	if (peer_tls_client(l, PEER_ALPN_PEER, &tls, &e) < 0) {
		LOG_DEBUG("peer: dial %" PRIu64 ": %s", l->id, e.msg);
		loop_timer_start(&l->timer, l->peer->loop, backoff_next(&l->backoff), on_timer, l);
		return;
	}
	o.tls = tls;
	l->dial = peer_dial(l, &o, on_dialled, l);
	tls_unref(tls);
}

static void on_timer(void *arg)
{
	struct peer_link *l = arg;

	if (l->channel == NULL) {
		if (l->dial == NULL) {
			dial(l);
		}
		return;
	}
	if (rpc_channel_state(l->channel) != RPC_CHANNEL_READY || l->heard_ms == 0) {
		down(l, "the connection ended");
		return;
	}
	if (l->ask == NULL) {
		IGNORE(peer_link_ask(l));
	}
}

struct peer_link *peer_link_new(struct peer *p, const struct member *m)
{
	struct peer_link *l = MEM_NEW(struct peer_link);

	l->peer = p;
	l->id = m->id;
	snprintf(l->address, sizeof(l->address), "%s", m->address);
	l->ack = peer_ack_of(p, m->id);
	l->down_ms = clock_mono_ms();
	list_init(&l->raft);
	backoff_init(&l->backoff, 50, 1000);
	l->http = http_server_new(p->loop, p->peer_router);
	http_server_set_opts(l->http,
			     &(struct http_server_opts){.max_streams = 4096, .trusted = true});
	loop_timer_start(&l->timer, p->loop, 0, on_timer, l);
	return l;
}

void peer_link_set_address(struct peer_link *l, const char *address, bool told)
{
	if (!told && l->told_address) {
		return;
	}
	l->told_address = told;
	if (strcmp(l->address, address) == 0) {
		return;
	}
	LOG_DEBUG("peer: lighthouse %" PRIu64 " is at %s", l->id, address);
	snprintf(l->address, sizeof(l->address), "%s", address);
	dial_cancel(l->dial);
	l->dial = NULL;
	if (l->channel == NULL) {
		loop_timer_start(&l->timer, l->peer->loop, 0, on_timer, l);
	}
}

void peer_link_free(struct peer_link *l)
{
	struct rpc_channel *ch = l->channel;

	if (l->peer->probing && l->peer->probe.leader == l->id) {
		probe_stop(l->peer);
	}
	list_remove(&l->node);
	loop_timer_stop(&l->timer);
	dial_cancel(l->dial);
	l->channel = NULL;
	rpc_cancel(l->ask);
	peer_raft_cut(l);
	rpc_channel_free(ch); /* forwarded calls end here, by their callbacks */
	http_server_free(l->http);
	mem_free(l);
}
