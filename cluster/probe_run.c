/* The probe of a leader whose link broke: dials its port anew, asks WhoAreYou, acts on the verdict. */
#include "cluster/peer_int.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "net/dial.h"
#include "net/rpc_client.h"
#include "net/stream.h"
#include "net/tls.h"

static void attempt(struct peer *p);

void probe_stop(struct peer *p)
{
	p->probing = false;
	loop_timer_stop(&p->probe_timer);
	dial_cancel(p->probe_dial);
	p->probe_dial = NULL;
	rpc_channel_free(p->probe_channel);
	p->probe_channel = NULL;
}

static void on_again(void *arg)
{
	attempt(arg);
}

static void on_done(void *arg)
{
	struct peer *p = arg;

	rpc_channel_free(p->probe_channel);
	p->probe_channel = NULL;
}

/* A standby cannot be elected: its race would only use up the next one. */
static bool votes_here(struct peer *p)
{
	struct link_state s;

	link_state(p->cluster, &s);
	for (size_t i = 0; i < s.n; i++) {
		if (s.server[i].id == p->self) {
			return s.server[i].role == LINK_VOTER;
		}
	}
	return false;
}

static void finish(struct peer *p, enum probe_verdict v)
{
	uint64_t id = p->probe.leader;

	p->probing = false;
	loop_timer_start(&p->probe_timer, p->loop, 0, on_done, p);
	switch (v) {
	case PROBE_LOST:
		METRICS_COUNT("skerry_peer_probe_lost_total",
			      "Probes that found the leader's process gone", 1);
		if (p->leader == id && p->term == p->probe.term && votes_here(p) &&
		    probe_may_race(&p->last_race, p->probe.incarnation, clock_mono_ms())) {
			LOG_DEBUG("peer: the leader %" PRIu64 " is gone: election", id);
			link_leader_lost(p->cluster, id);
		}
		break;
	case PROBE_FALSE_ALARM:
		METRICS_COUNT("skerry_peer_probe_false_alarms_total",
			      "Probes that found the leader alive and leading", 1);
		break;
	default: break;
	}
}

/* Runs outside of the channel's callbacks: it may be freed here. */
static void observed(struct peer *p, enum probe_seen seen, const struct probe_answer *a)
{
	enum probe_verdict v;

	if (!p->probing) {
		return;
	}
	v = probe_observe(&p->probe, seen, a);
	LOG_DEBUG("peer: probe of %" PRIu64 ": seen=%d verdict=%d", p->probe.leader, seen, v);
	if (v == PROBE_AGAIN) {
		loop_timer_start(&p->probe_timer, p->loop, PROBE_AGAIN_MS, on_again, p);
	} else {
		finish(p, v);
	}
}

/* A connection that was refused, or reset before it answered: a process that ends shows either. */
static enum probe_seen seen_of(const struct err *e)
{
	if (strcmp(e->reason, "CONNECTION_REFUSED") == 0) {
		return PROBE_REFUSED;
	}
	switch (e->code) {
	case -ECONNREFUSED:
	case -ECONNRESET:
	case -EPIPE:
	case ERR_CLOSED: return PROBE_REFUSED;
	case ERR_DEADLINE:
	case -ETIMEDOUT: return PROBE_TIMEOUT;
	default: return PROBE_ERROR;
	}
}

static void on_answer(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct peer *p = arg;
	const Skerry__Internal__V1__WhoAreYouResponse *r =
		(const Skerry__Internal__V1__WhoAreYouResponse *)reply;
	struct probe_answer a = {0};

	if (status->code == 0) {
		a = (struct probe_answer){
			.incarnation = r->incarnation, .term = r->term, .leader = r->leader};
		observed(p, PROBE_ANSWER, &a);
	} else if (status->code == ERR_UNAVAILABLE) {
		/* The connection was there and broke. */
		observed(p, PROBE_REFUSED, NULL);
	} else {
		observed(p, seen_of(status), NULL);
	}
}

static void on_dialled(void *arg, struct stream *stream, size_t which, const struct err *err)
{
	Skerry__Internal__V1__WhoAreYouRequest q = SKERRY__INTERNAL__V1__WHO_ARE_YOU_REQUEST__INIT;
	struct rpc_opts o = {.deadline_ms = PROBE_TIMEOUT_MS};
	struct peer *p = arg;
	struct peer_link *l = peer_link_find(p, p->probe.leader);

	(void)which;
	p->probe_dial = NULL;
	if (stream == NULL) {
		LOG_DEBUG("peer: probe: %d %s", err->code, err->msg);
		observed(p, seen_of(err), NULL);
		return;
	}
	if (l == NULL) {
		stream_abort(stream);
		p->probing = false;
		return;
	}
	peer_link_fill_request(l, &q);
	p->probe_channel = rpc_channel_over(stream, NULL);
	IGNORE(rpc_unary(p->probe_channel, "/skerry.internal.v1.PeerService/WhoAreYou", &q.base,
			 &skerry__internal__v1__who_are_you_response__descriptor, &o, on_answer,
			 p));
}

static void attempt(struct peer *p)
{
	struct dial_opts o = {.timeout_ms = PROBE_TIMEOUT_MS};
	struct peer_link *l = peer_link_find(p, p->probe.leader);
	struct tls_ctx *tls;

	rpc_channel_free(p->probe_channel);
	p->probe_channel = NULL;
	if (l == NULL || peer_tls_client(l, PEER_ALPN_PEER, &tls, NULL) < 0) {
		p->probing = false;
		return;
	}
	o.tls = tls;
	p->probe_dial = dial_start(p->loop, l->address, &o, on_dialled, p);
	tls_unref(tls);
}

void probe_leader(struct peer *p)
{
	struct peer_link *l = peer_link_find(p, p->leader);

	if (l == NULL || p->probing || p->leads || atomic_load(&p->stopping)) {
		return;
	}
	METRICS_COUNT("skerry_peer_probes_total", "Probes of a leader whose link broke", 1);
	p->probing = true;
	probe_start(&p->probe, l->id, l->incarnation, p->term);
	attempt(p);
}
