/* Commands and read requests of this lighthouse on their way to the leader. */
#include "cluster/peer_int.h"

#include <stdatomic.h>
#include <string.h>

#include "base/clock.h"
#include "base/limits.h"
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
#define PATH_MANY    "/skerry.internal.v1.PeerService/ProposeMany"
#define PATH_READ    "/skerry.internal.v1.PeerService/ReadIndex"

enum {
	/* Without a link to the leader the answer waits a little, so that trying again is no busy loop. */
	FORWARD_PAUSE_MS = 10,
	/* What goes in one call: so many bytes, and deadlines no further apart. */
	MANY_BYTES = 48 << 10,
	MANY_APART_MS = 1000,
};

typedef Skerry__Internal__V1__ProposeRequest propose_request;
typedef Skerry__Internal__V1__ProposeResponse propose_response;
typedef Skerry__Internal__V1__ProposeManyRequest many_request;
typedef Skerry__Internal__V1__ProposeManyResponse many_response;
typedef Skerry__Internal__V1__ProposeResult propose_result;
typedef Skerry__Internal__V1__Proposal proposal;
typedef Skerry__Internal__V1__ReadIndexRequest read_request;
typedef Skerry__Internal__V1__ReadIndexResponse read_response;

struct batch;

struct forward {
	struct list node;
	struct list gathered; /* peer.gathered: goes with the others of this turn */
	struct peer *peer;
	uint64_t request;
	uint64_t leader; /* to whom */
	bool read;
	struct loop_post post; /* from the raft thread */
	struct loop_timer timer;
	struct rpc_request *call;
	struct batch *batch; /* the call that it shares */
	size_t at;           /* its place in it */
	uint64_t deadline_ms;
	size_t len;
	uint8_t data[]; /* the command */
};

/* One call with the commands of a turn. */
struct batch {
	struct peer *peer;
	uint64_t leader;
	struct rpc_request *call;
	size_t n, left;
	struct forward *item[LIM_FORWARD_COMMANDS]; /* NULL: answered otherwise */
};

/* The command needs its call no more; a call that nobody needs ends. */
static void batch_leave(struct forward *f)
{
	struct batch *b = f->batch;

	f->batch = NULL;
	if (b == NULL) {
		return;
	}
	b->item[f->at] = NULL;
	if (--b->left == 0 && b->call != NULL) {
		rpc_cancel(b->call);
		mem_free(b);
	}
}

static void answer(struct forward *f, const struct err *e, ProtobufCBinaryData result,
		   struct link_place at)
{
	list_remove(&f->node);
	list_remove(&f->gathered);
	loop_timer_stop(&f->timer);
	batch_leave(f);
	if (f->read) {
		link_read_index(f->peer->cluster, f->request, e, at);
	} else {
		link_proposed(f->peer->cluster, f->request, e, result, at);
	}
	mem_free(f);
}

static void not_leader(struct forward *f)
{
	struct err e = {0};

	err_set(&e, ERR_NOT_LEADER, "no link to the leader");
	answer(f, &e, (ProtobufCBinaryData){0}, (struct link_place){0});
}

static void on_pause(void *arg)
{
	not_leader(arg);
}

/* Of any thread. */
static struct forward *forward_new(struct peer *p, uint64_t request, uint64_t leader, bool read,
				   size_t len)
{
	struct forward *f = mem_alloc(sizeof(*f) + len);

	memset(f, 0, sizeof(*f));
	list_init(&f->gathered);
	f->len = len;
	f->peer = p;
	f->request = request;
	f->leader = leader;
	f->read = read;
	return f;
}

static void forward_begin(struct forward *f)
{
	static struct metric *_Atomic commands, *_Atomic reads;
	struct metric *_Atomic *site = f->read ? &reads : &commands;

	if (*site == NULL) {
		*site = metrics_counter("skerry_peer_forwarded_total",
					"Calls that went to the leader from here, by kind.",
					f->read ? "kind=\"read\"" : "kind=\"command\"");
	}
	counter_inc(*site);
	list_push(&f->peer->forwards, &f->node);
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
	answer(f, &e, (ProtobufCBinaryData){0}, (struct link_place){0});
}

/* Not too fast again: the other side learns of a new leader at the same time. */
static void retry_later(struct forward *f)
{
	loop_timer_start(&f->timer, f->peer->loop, FORWARD_PAUSE_MS, on_pause, f);
}

static void committed(struct forward *f, ProtobufCBinaryData packed, struct link_place at)
{
	struct err e = {0};

	answer(f, &e, packed, at);
}

static void on_proposed(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct forward *f = arg;
	const propose_response *a = (const propose_response *)reply;

	f->call = NULL;
	if (status->code != 0) {
		failed(f, status);
	} else if (a->not_leader) {
		retry_later(f);
	} else {
		committed(f, a->result, (struct link_place){a->raft_index, a->term});
	}
}

static void send_one(struct forward *f, struct peer_link *l)
{
	propose_request q = SKERRY__INTERNAL__V1__PROPOSE_REQUEST__INIT;
	struct rpc_opts o = {.deadline_ms = remaining(f->deadline_ms)};

	q.command.data = f->data;
	q.command.len = f->len;
	f->call = rpc_unary(l->channel, PATH_PROPOSE, &q.base,
			    &skerry__internal__v1__propose_response__descriptor, &o, on_proposed,
			    f);
}

/* ---- the commands of a turn, in one call ---- */

static void result_take(struct forward *f, const propose_result *r)
{
	struct err e = {0};

	if (r->not_leader) {
		retry_later(f);
	} else if (r->code != 0) {
		err_reason(&e, err_from_grpc((int)r->code), r->reason, "%s", r->message);
		failed(f, &e);
	} else {
		committed(f, r->result, (struct link_place){r->raft_index, r->term});
	}
}

static void on_many(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct batch *b = arg;
	const many_response *a = (const many_response *)reply;
	struct peer_link *l = peer_link_find(b->peer, b->leader);
	bool unknown = status->code == ERR_UNIMPLEMENTED;
	struct err odd = {0};

	if (unknown && l != NULL) {
		l->one_by_one = true;
	}
	if (status->code == 0 && a->n_results != b->n) {
		err_set(&odd, ERR_PROTOCOL, "%zu results for %zu commands", a->n_results, b->n);
		status = &odd;
	}
	b->call = NULL;
	for (size_t i = 0; i < b->n; i++) {
		struct forward *f = b->item[i];

		if (f == NULL) {
			continue;
		}
		f->batch = NULL;
		if (unknown) {
			not_leader(f); /* tried again, by itself */
		} else if (status->code != 0) {
			failed(f, status);
		} else {
			result_take(f, a->results[i]);
		}
	}
	mem_free(b);
}

static void send_many(struct batch *b, struct peer_link *l)
{
	many_request q = SKERRY__INTERNAL__V1__PROPOSE_MANY_REQUEST__INIT;
	proposal item[LIM_FORWARD_COMMANDS], *items[LIM_FORWARD_COMMANDS];
	struct rpc_opts o = {0};

	for (size_t i = 0; i < b->n; i++) {
		struct forward *f = b->item[i];

		skerry__internal__v1__proposal__init(&item[i]);
		item[i].command.data = f->data;
		item[i].command.len = f->len;
		item[i].timeout_ms = remaining(f->deadline_ms);
		o.deadline_ms = MAX(o.deadline_ms, item[i].timeout_ms);
		items[i] = &item[i];
	}
	q.n_proposals = b->n;
	q.proposals = items;
	b->call = rpc_unary(l->channel, PATH_MANY, &q.base,
			    &skerry__internal__v1__propose_many_response__descriptor, &o, on_many,
			    b);
}

/* Whether it goes in the call that begins with the command `first`. */
static bool fits(const struct batch *b, size_t bytes, const struct forward *first,
		 const struct forward *f)
{
	uint64_t apart = f->deadline_ms > first->deadline_ms ? f->deadline_ms - first->deadline_ms
							     : first->deadline_ms - f->deadline_ms;

	return b->n < LIM_FORWARD_COMMANDS && bytes + f->len <= MANY_BYTES &&
	       f->leader == first->leader && apart <= MANY_APART_MS;
}

/* The end of a turn. */
static void on_flush(void *arg)
{
	struct peer *p = arg;

	while (!list_empty(&p->gathered)) {
		struct forward *first =
			LIST_ENTRY(list_pop(&p->gathered), struct forward, gathered);
		struct peer_link *l = way(first);
		struct batch *b;
		size_t bytes = first->len;

		if (l == NULL) {
			continue;
		}
		if (l->one_by_one || list_empty(&p->gathered)) {
			send_one(first, l);
			continue;
		}
		b = MEM_NEW(struct batch);
		b->peer = p;
		b->leader = first->leader;
		b->item[b->n++] = first;
		while (!list_empty(&p->gathered)) {
			struct forward *f = LIST_ENTRY(p->gathered.next, struct forward, gathered);

			if (!fits(b, bytes, first, f)) {
				break;
			}
			list_remove(&f->gathered);
			bytes += f->len;
			b->item[b->n++] = f;
		}
		for (size_t i = 0; i < b->n; i++) {
			b->item[i]->batch = b;
			b->item[i]->at = i;
		}
		b->left = b->n;
		send_many(b, l);
	}
}

void forward_init(struct peer *p)
{
	list_init(&p->forwards);
	list_init(&p->gathered);
	p->forward_flush = (struct flush_hook){.run = on_flush, .arg = p};
}

static void on_command(void *arg)
{
	struct forward *f = arg;
	struct peer *p = f->peer;

	if (atomic_load(&p->stopping)) {
		struct err e = {0};

		err_set(&e, ERR_CLOSED, "this lighthouse is stopping");
		link_proposed(p->cluster, f->request, &e, (ProtobufCBinaryData){0},
			      (struct link_place){0});
		mem_free(f);
		return;
	}
	forward_begin(f);
	list_push(&p->gathered, &f->gathered);
	loop_flush_add(p->loop, &p->forward_flush);
}

void forward_propose(struct peer *p, uint64_t request, uint64_t leader, const void *command,
		     size_t len, uint64_t deadline_ms)
{
	struct forward *f = forward_new(p, request, leader, false, len);

	memcpy(f->data, command, len);
	f->deadline_ms = deadline_ms;
	loop_post_own(p->loop, &f->post, on_command, f);
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
		retry_later(f);
	} else {
		answer(f, &e, (ProtobufCBinaryData){0},
		       (struct link_place){a->raft_index, a->term});
	}
}

void forward_read_index(struct peer *p, uint64_t request, uint64_t leader, uint64_t deadline_ms)
{
	read_request q = SKERRY__INTERNAL__V1__READ_INDEX_REQUEST__INIT;
	struct rpc_opts o = {.deadline_ms = remaining(deadline_ms)};
	struct forward *f = forward_new(p, request, leader, true, 0);
	struct peer_link *l;

	forward_begin(f);
	l = way(f);
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

		if ((f->call != NULL || f->batch != NULL) && f->leader != p->leader) {
			rpc_cancel(f->call);
			f->call = NULL;
			err_set(&e, ERR_UNAVAILABLE, "there is another leader");
			failed(f, &e);
		}
	}
}

void forward_stop(struct peer *p)
{
	loop_flush_remove(&p->forward_flush);
	while (!list_empty(&p->forwards)) {
		struct forward *f = LIST_ENTRY(p->forwards.next, struct forward, node);
		struct err e = {0};

		rpc_cancel(f->call);
		err_set(&e, ERR_CLOSED, "this lighthouse is stopping");
		answer(f, &e, (ProtobufCBinaryData){0}, (struct link_place){0});
	}
}
