/* Commands and read requests of this lighthouse on their way to the leader. */
#include "cluster/peer_int.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "net/rpc_client.h"
#include "proto/pb_decode.h"

/*
 * The raft side keeps the command and its sequence and decides what to do with a failure; here is one attempt. An
 * attempt that may have reached the leader ends as ERR_UNAVAILABLE with the reason FATE_UNKNOWN, one that certainly did
 * not as ERR_NOT_LEADER.
 */
#define PATH_PROPOSE "/skerry.internal.v1.PeerService/Propose"
#define PATH_READ    "/skerry.internal.v1.PeerService/ReadIndex"

/* Without a link to the leader the answer waits a little, so that trying again is no busy loop. */
enum { FORWARD_PAUSE_MS = 10 };

typedef Skerry__Internal__V1__ProposeRequest propose_request;
typedef Skerry__Internal__V1__ProposeResponse propose_response;
typedef Skerry__Internal__V1__ReadIndexRequest read_request;
typedef Skerry__Internal__V1__ReadIndexResponse read_response;
typedef Skerry__Internal__V1__CommandResult command_result;

struct forward {
	struct list node;
	struct peer *peer;
	uint64_t request;
	uint64_t leader; /* to whom */
	bool read;
	struct loop_timer timer;
	struct rpc_request *call;
};

static void answer(struct forward *f, const struct err *e, const command_result *r, uint64_t index)
{
	list_remove(&f->node);
	loop_timer_stop(&f->timer);
	if (f->read) {
		link_read_index(f->peer->cluster, f->request, e, index);
	} else {
		link_proposed(f->peer->cluster, f->request, e, r, index);
	}
	mem_free(f);
}

static void not_leader(struct forward *f)
{
	struct err e = {0};

	err_set(&e, ERR_NOT_LEADER, "no link to the leader");
	answer(f, &e, NULL, 0);
}

static void on_pause(void *arg)
{
	not_leader(arg);
}

static struct forward *forward_new(struct peer *p, uint64_t request, uint64_t leader, bool read)
{
	struct forward *f = MEM_NEW(struct forward);

	f->peer = p;
	f->request = request;
	f->leader = leader;
	f->read = read;
	counter_inc(metrics_counter("skerry_peer_forwarded_total",
				    "Calls that went to the leader from here, by kind.",
				    read ? "kind=\"read\"" : "kind=\"command\""));
	list_push(&p->forwards, &f->node);
	return f;
}

/* The link to go by; NULL: the answer is on its way. */
static struct peer_link *way(struct forward *f)
{
	struct peer_link *l = peer_link_find(f->peer, f->leader);

	if (l == NULL || l->channel == NULL) {
		loop_timer_start(&f->timer, f->peer->loop, FORWARD_PAUSE_MS, on_pause, f);
		return NULL;
	}
	return l;
}

static uint64_t remaining(uint64_t deadline_ms)
{
	uint64_t now = clock_mono_ms();

	return deadline_ms > now ? deadline_ms - now : 1;
}

/* The status of a call that did not bring an answer of the leader. */
static void failed(struct forward *f, const struct err *status)
{
	struct err e = {0};

	if (status->code == ERR_LIMIT) {
		err_reason(&e, ERR_LIMIT, status->reason, "%s", status->msg); /* before the log */
	} else if (f->read) {
		err_set(&e, ERR_UNAVAILABLE, "the leader did not answer: %s", status->msg);
	} else {
		err_reason(&e, ERR_UNAVAILABLE, "FATE_UNKNOWN", "the leader did not answer: %s",
			   status->msg);
	}
	answer(f, &e, NULL, 0);
}

static void on_proposed(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct forward *f = arg;
	const propose_response *a = (const propose_response *)reply;
	ProtobufCMessage *result = NULL;
	struct err e = {0};

	f->call = NULL;
	if (status->code != 0) {
		failed(f, status);
	} else if (a->not_leader) {
		/* Not too fast again: the other side learns of a new leader at the same time. */
		loop_timer_start(&f->timer, f->peer->loop, FORWARD_PAUSE_MS, on_pause, f);
	} else if (pb_decode_heap(&skerry__internal__v1__command_result__descriptor, a->result.data,
				  a->result.len, NULL, &result, &e) < 0) {
		failed(f, &e);
	} else {
		answer(f, &e, (const command_result *)result, a->raft_index);
		pb_free(result);
	}
}

void forward_propose(struct peer *p, uint64_t request, uint64_t leader, const void *command,
		     size_t len, uint64_t deadline_ms)
{
	propose_request q = SKERRY__INTERNAL__V1__PROPOSE_REQUEST__INIT;
	struct rpc_opts o = {.deadline_ms = remaining(deadline_ms)};
	struct forward *f = forward_new(p, request, leader, false);
	struct peer_link *l = way(f);

	if (l == NULL) {
		return;
	}
	q.command.data = (uint8_t *)command; /* packed at once, not changed */
	q.command.len = len;
	f->call = rpc_unary(l->channel, PATH_PROPOSE, &q.base,
			    &skerry__internal__v1__propose_response__descriptor, &o, on_proposed,
			    f);
}

static void on_index(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct forward *f = arg;
	const read_response *a = (const read_response *)reply;
	struct err e = {0};

	f->call = NULL;
	if (status->code != 0) {
		failed(f, status);
	} else if (a->not_leader) {
		loop_timer_start(&f->timer, f->peer->loop, FORWARD_PAUSE_MS, on_pause, f);
	} else {
		answer(f, &e, NULL, a->raft_index);
	}
}

void forward_read_index(struct peer *p, uint64_t request, uint64_t leader, uint64_t deadline_ms)
{
	read_request q = SKERRY__INTERNAL__V1__READ_INDEX_REQUEST__INIT;
	struct rpc_opts o = {.deadline_ms = remaining(deadline_ms)};
	struct forward *f = forward_new(p, request, leader, true);
	struct peer_link *l = way(f);

	if (l == NULL) {
		return;
	}
	f->call = rpc_unary(l->channel, PATH_READ, &q.base,
			    &skerry__internal__v1__read_index_response__descriptor, &o, on_index,
			    f);
}

void forward_leader(struct peer *p)
{
	LIST_FOREACH_SAFE(&p->forwards, it, tmp)
	{
		struct forward *f = LIST_ENTRY(it, struct forward, node);
		struct err e = {0};

		if (f->call != NULL && f->leader != p->leader) {
			rpc_cancel(f->call);
			f->call = NULL;
			err_set(&e, ERR_UNAVAILABLE, "there is another leader");
			failed(f, &e);
		}
	}
}

void forward_stop(struct peer *p)
{
	while (!list_empty(&p->forwards)) {
		struct forward *f = LIST_ENTRY(p->forwards.next, struct forward, node);
		struct err e = {0};

		rpc_cancel(f->call);
		err_set(&e, ERR_CLOSED, "this lighthouse is stopping");
		answer(f, &e, NULL, 0);
	}
}
