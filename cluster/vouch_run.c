/* The questions to a leader that is not heard; vouch.h says why. Peer thread. */
#include "cluster/vouch.h"

#include <inttypes.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "cluster/peer_int.h"
#include "net/dial.h"
#include "net/rpc_client.h"
#include "net/stream.h"
#include "net/tls.h"

struct question {
	struct list node; /* peer.questions */
	struct peer *peer;
	uint64_t leader, term, asked_ms;
	struct dial *dial;
	struct rpc_channel *channel;
	struct loop_timer timer; /* its end */
};

static void question_free(struct question *q)
{
	struct rpc_channel *ch = q->channel;

	list_remove(&q->node);
	q->peer->n_questions--;
	loop_timer_stop(&q->timer);
	dial_cancel(q->dial);
	q->channel = NULL;
	rpc_channel_free(ch); /* what is not answered ends by its callback */
	mem_free(q);
}

static void on_end(void *arg)
{
	question_free(arg);
}

/* Never inside a callback of its channel. */
static void end_later(struct question *q)
{
	loop_timer_start(&q->timer, q->peer->loop, 0, on_end, q);
}

static void on_answer(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	const Skerry__Internal__V1__WhoAreYouResponse *r =
		(const Skerry__Internal__V1__WhoAreYouResponse *)reply;
	struct question *q = arg;
	struct peer *p = q->peer;

	if (q->channel == NULL) {
		return;
	}
	end_later(q);
	if (status->code != 0 || !r->leader || !r->holds || r->term != q->term ||
	    r->lighthouse_id != q->leader || p->leader != q->leader || p->term != q->term) {
		return;
	}
	LOG_DEBUG("peer: the leader %" PRIu64 " is not heard, but leads", q->leader);
	link_leader_vouched(p->cluster, q->leader, q->term, q->asked_ms);
}

static void on_dialled(void *arg, struct stream *stream, size_t which, const struct err *err)
{
	Skerry__Internal__V1__WhoAreYouRequest m = SKERRY__INTERNAL__V1__WHO_ARE_YOU_REQUEST__INIT;
	struct rpc_opts o = {.deadline_ms = VOUCH_TIMEOUT_MS};
	struct question *q = arg;
	struct peer_link *l = peer_link_find(q->peer, q->leader);

	(void)which;
	(void)err;
	q->dial = NULL;
	if (stream == NULL || l == NULL) {
		stream_abort(stream);
		end_later(q);
		return;
	}
	peer_link_fill_request(l, &m);
	m.silent_term = q->term;
	q->asked_ms = clock_mono_ms();
	q->channel = rpc_channel_over(stream, NULL);
	IGNORE(rpc_unary(q->channel, "/skerry.internal.v1.PeerService/WhoAreYou", &m.base,
			 &skerry__internal__v1__who_are_you_response__descriptor, &o, on_answer,
			 q));
}

void vouch_ask(struct peer *p)
{
	struct dial_opts o = {.timeout_ms = VOUCH_TIMEOUT_MS};
	struct peer_link *l = peer_link_find(p, p->leader);
	struct question *q;
	struct tls_ctx *tls;

	if (l == NULL || p->leads || p->n_questions >= VOUCH_AT_ONCE || atomic_load(&p->stopping) ||
	    peer_tls_client(l, PEER_ALPN_PEER, &tls, NULL) < 0) {
		return;
	}
	METRICS_COUNT("skerry_peer_silence_questions_total",
		      "Connections tried to a leader that is not heard, to ask whether it leads",
		      1);
	q = MEM_NEW(struct question);
	q->peer = p;
	q->leader = p->leader;
	q->term = p->term;
	list_push(&p->questions, &q->node);
	p->n_questions++;
	loop_timer_start(&q->timer, p->loop, VOUCH_TIMEOUT_MS, on_end, q);
	o.tls = tls;
	q->dial = dial_start(p->loop, l->address, &o, on_dialled, q);
	tls_unref(tls);
}

void vouch_stop(struct peer *p)
{
	while (!list_empty(&p->questions)) {
		question_free(LIST_ENTRY(p->questions.next, struct question, node));
	}
}

/* Whether what the raft thread said last is young enough to speak for it. */
static bool fresh(const struct link_state *s, uint64_t now)
{
	return now < s->published_ms + s->election_ms / 2;
}

bool vouch_answer(struct peer *p, uint64_t from, uint64_t term)
{
	struct vouch_voter v[LIM_MEMBERS];
	struct link_state s;
	uint64_t now = clock_mono_ms();
	bool votes = false;
	size_t n = 0;

	link_state(p->cluster, &s);
	if (term == 0 || !s.self_leads || s.term != term || !fresh(&s, now)) {
		return false;
	}
	for (size_t i = 0; i < s.n; i++) {
		struct peer_link *l = peer_link_find(p, s.server[i].id);

		if (s.server[i].role != LINK_VOTER || s.server[i].id == p->self) {
			continue;
		}
		if (s.server[i].id == from && l != NULL) {
			votes = true;
			l->asked_term = term;
			l->asked_ms = now;
		}
		v[n++] = (struct vouch_voter){
			.acked_ms = s.server[i].acked_ms,
			.asked_ms = l != NULL && l->asked_term == term ? l->asked_ms : 0};
	}
	if (votes) {
		link_leader_asked(p->cluster, from, term);
	}
	return vouch_holds(v, n, now, s.election_ms);
}
