/* PeerService: what other lighthouses may ask. A forwarded call is never forwarded again. */
#include "cluster/peer_int.h"

#include <inttypes.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/prefix.h"
#include "cluster/cluster_int.h"
#include "net/stream.h"
#include "proto/pb_util.h"
#include "tailnet/query.h"

typedef Skerry__Internal__V1__ProposeRequest propose_request;
typedef Skerry__Internal__V1__ProposeResponse propose_response;
typedef Skerry__Internal__V1__ProposeManyRequest many_request;
typedef Skerry__Internal__V1__ProposeManyResponse many_response;
typedef Skerry__Internal__V1__ProposeResult propose_result;
typedef Skerry__Internal__V1__ReadIndexResponse read_response;
typedef Skerry__Internal__V1__WhoAreYouRequest who_request;
typedef Skerry__Internal__V1__WhoAreYouResponse who_response;
typedef Skerry__Internal__V1__GetDigestRequest digest_request;
typedef Skerry__Internal__V1__GetDigestResponse digest_response;
typedef Skerry__Internal__V1__DigestVerdictRequest verdict_request;
typedef Skerry__Internal__V1__DigestVerdictResponse verdict_response;
typedef Skerry__Internal__V1__ChangeMemberRequest change_request;
typedef Skerry__Internal__V1__ChangeMemberResponse change_response;

/* A call whose answer comes from the raft side. */
struct waiting {
	struct peer *peer;
	struct rpc_ref ref;
	/* GetDigest: on peer.digest_waits while the timer runs */
	struct list node;
	uint64_t marker;
	struct loop_timer timer;
};

enum { DIGEST_POLL_MS = 20 };

static struct waiting *waiting_new(struct peer *p, struct rpc_call *call)
{
	struct waiting *w = MEM_NEW(struct waiting);

	w->peer = p;
	w->ref = rpc_call_ref(call);
	return w;
}

/* Who calls, judged for each call: a member that was removed meanwhile is refused at once. */
static int gate(void *arg, struct rpc_call *call, const struct proto_method *method,
		struct err *err)
{
	struct peer *p = arg;
	struct err e = {0};
	uint64_t id;
	int r = peer_tls_who(p, rpc_call_stream(call), &id, &e);

	if (r < 0 && peer_notice_passes(method->path, &e)) {
		return 0;
	}
	if (r < 0) {
		*err = e;
	}
	return r;
}

static uint64_t deadline_of(struct rpc_call *call)
{
	return clock_mono_ms() + MIN(rpc_call_remaining_ms(call), (uint64_t)LIM_GRPC_UNARY_MS);
}

static void on_proposed(void *arg, const struct err *err, ProtobufCBinaryData result,
			struct link_place at)
{
	struct waiting *w = arg;
	struct rpc_call *call = peer_call_find(w->peer->peer_rpc, w->ref);
	propose_response out = SKERRY__INTERNAL__V1__PROPOSE_RESPONSE__INIT;

	if (call == NULL) {
		mem_free(w);
		return;
	}
	if (err->code == 0) {
		out.result = result;
		out.raft_index = at.index;
		out.term = at.term;
		rpc_call_reply(call, &out.base);
	} else if (err->code == ERR_NOT_LEADER) {
		out.not_leader = true;
		out.leader_hint = w->peer->leader;
		rpc_call_reply(call, &out.base);
	} else {
		rpc_call_finish(call, err);
	}
	mem_free(w);
}

static void on_propose(void *arg, struct rpc_call *call, const ProtobufCMessage *req)
{
	struct peer *p = arg;
	const propose_request *q = (const propose_request *)req;
	struct waiting *w = waiting_new(p, call);
	struct err e = {0};
	int r = propose_local(p->cluster, p->loop, q->command.data, q->command.len,
			      deadline_of(call), on_proposed, w, &e);

	if (r < 0) {
		e.code = r;
		on_proposed(w, &e, (ProtobufCBinaryData){0}, (struct link_place){0});
	}
}

/* ---- many commands in one call ---- */

struct many_item {
	struct many *many;
	struct buf packed;
	struct link_place at;
	int code; /* 0: committed */
	char *reason, *message;
};

struct many {
	struct peer *peer;
	struct rpc_ref ref;
	size_t n, left;
	struct many_item item[];
};

static void many_reply(struct many *m, struct rpc_call *call)
{
	many_response out = SKERRY__INTERNAL__V1__PROPOSE_MANY_RESPONSE__INIT;
	propose_result *results = mem_calloc(m->n, sizeof(*results));

	out.n_results = m->n;
	out.results = mem_calloc(m->n, sizeof(propose_result *));
	for (size_t i = 0; i < m->n; i++) {
		const struct many_item *item = &m->item[i];
		propose_result *r = out.results[i] = &results[i];

		skerry__internal__v1__propose_result__init(r);
		if (item->code == 0) {
			r->result = (ProtobufCBinaryData){item->packed.len, item->packed.data};
			r->raft_index = item->at.index;
			r->term = item->at.term;
		} else if (item->code == ERR_NOT_LEADER) {
			r->not_leader = true;
		} else {
			r->code = (uint32_t)err_grpc(item->code);
			r->reason = item->reason;
			r->message = item->message;
		}
	}
	rpc_call_reply(call, &out.base);
	mem_free(out.results);
	mem_free(results);
}

static void many_end(struct many *m)
{
	struct rpc_call *call = peer_call_find(m->peer->peer_rpc, m->ref);

	if (call != NULL) {
		many_reply(m, call);
	}
	for (size_t i = 0; i < m->n; i++) {
		buf_done(&m->item[i].packed);
		mem_free(m->item[i].reason);
		mem_free(m->item[i].message);
	}
	mem_free(m);
}

static void on_item(void *arg, const struct err *err, ProtobufCBinaryData result,
		    struct link_place at)
{
	struct many_item *item = arg;
	struct many *m = item->many;

	item->code = err->code;
	if (err->code == 0) {
		buf_append(&item->packed, result.data, result.len);
		item->at = at;
	} else {
		item->reason = mem_strdup(err->reason);
		item->message = mem_strdup(err->msg);
	}
	if (--m->left == 0) {
		many_end(m);
	}
}

static void on_propose_many(void *arg, struct rpc_call *call, const ProtobufCMessage *req)
{
	struct peer *p = arg;
	const many_request *q = (const many_request *)req;
	uint64_t now = clock_mono_ms();
	struct many *m;

	if (q->n_proposals == 0 || q->n_proposals > LIM_FORWARD_COMMANDS) {
		struct err e = {0};

		err_set(&e, ERR_INVALID, "a call holds 1 to %d commands, not %zu",
			LIM_FORWARD_COMMANDS, q->n_proposals);
		rpc_call_finish(call, &e);
		return;
	}
	m = mem_zalloc(sizeof(*m) + q->n_proposals * sizeof(m->item[0]));
	m->peer = p;
	m->ref = rpc_call_ref(call);
	m->n = q->n_proposals;
	m->left = m->n + 1; /* one of our own: no end before the last is on its way */
	for (size_t i = 0; i < m->n; i++) {
		const Skerry__Internal__V1__Proposal *one = q->proposals[i];
		struct err e = {0};
		int r;

		m->item[i].many = m;
		r = propose_local(p->cluster, p->loop, one->command.data, one->command.len,
				  now + MIN(one->timeout_ms, (uint64_t)LIM_GRPC_UNARY_MS), on_item,
				  &m->item[i], &e);
		if (r < 0) {
			e.code = r;
			on_item(&m->item[i], &e, (ProtobufCBinaryData){0}, (struct link_place){0});
		}
	}
	if (--m->left == 0) {
		many_end(m);
	}
}

static void on_index(void *arg, const struct err *err, struct link_place at)
{
	struct waiting *w = arg;
	struct rpc_call *call = peer_call_find(w->peer->peer_rpc, w->ref);
	read_response out = SKERRY__INTERNAL__V1__READ_INDEX_RESPONSE__INIT;

	if (call != NULL && (err->code == 0 || err->code == ERR_NOT_LEADER)) {
		out.raft_index = at.index;
		out.term = at.term;
		out.not_leader = err->code != 0;
		out.leader_hint = w->peer->leader;
		rpc_call_reply(call, &out.base);
	} else if (call != NULL) {
		rpc_call_finish(call, err);
	}
	mem_free(w);
}

static void on_read_index(void *arg, struct rpc_call *call, const ProtobufCMessage *req)
{
	struct peer *p = arg;
	struct waiting *w = waiting_new(p, call);
	struct err e = {0};
	int r;

	(void)req;
	r = read_local_index(p->cluster, p->loop, deadline_of(call), on_index, w, &e);
	if (r < 0) {
		e.code = r;
		on_index(w, &e, (struct link_place){0});
	}
}

void peer_service_who(struct peer *p, who_response *r)
{
	uint64_t epoch, revision = 0, time_ms;
	struct cluster_read *read = NULL;
	struct link_state s;

	link_state(p->cluster, &s);
	if (cluster_read_begin(p->cluster, "who", &read, NULL) >= 0) {
		if (query_revision(cluster_read_kv(read), &epoch, &revision, &time_ms) < 0) {
			revision = 0;
		}
		cluster_read_end(read);
	}
	r->lighthouse_id = p->self;
	r->incarnation = p->incarnation;
	r->term = s.term;
	r->leader = s.self_leads;
	r->leader_id = s.leader;
	r->last_index = s.last_index;
	r->applied_index = s.applied_index;
	r->wall_ms = (uint64_t)clock_wall_ms();
	r->mono_ms = clock_mono_ms();
	r->revision = revision;
	r->devices = atomic_load(&p->devices);
	r->disk_low = cluster_disk_low(p->cluster);
	r->version = p->version;
}

/* A member that has moved says so itself: the table learns of it only when the others reach it. */
static void note_address(struct peer *p, uint64_t from, const char *address)
{
	struct peer_link *l = peer_link_find(p, from);
	char host[256];
	uint16_t port;

	if (l != NULL && strlen(address) <= LIM_HOST_PORT &&
	    hostport_parse(address, 0, host, sizeof(host), &port, NULL) >= 0 && port != 0) {
		peer_link_set_address(l, address, true);
	}
}

/* A peer knows that we had acknowledged more than our log holds: the directory is an old copy, or was emptied. */
static void check_own_log(struct peer *p, uint64_t from, uint64_t acknowledged)
{
	struct link_state s;

	link_state(p->cluster, &s);
	if (peer_behind_judge(&p->behind, clock_mono_ms(), acknowledged, s.last_index,
			      s.published_ms)) {
		peer_refuse(p, PEER_EXIT_REFUSED,
			    "the log in %s ends at %" PRIu64 ", but lighthouse %" PRIu64
			    " has seen this lighthouse acknowledge %" PRIu64
			    ": the directory was put back from a copy or wiped. Remove this member "
			    "(`skerry "
			    "cluster remove %" PRIu64
			    "` on another lighthouse), empty the directory and join anew",
			    p->dir, s.last_index, from, acknowledged, p->self);
	}
}

static void on_who(void *arg, struct rpc_call *call, const ProtobufCMessage *req)
{
	struct peer *p = arg;
	const who_request *q = (const who_request *)req;
	who_response out = SKERRY__INTERNAL__V1__WHO_ARE_YOU_RESPONSE__INIT;
	uint64_t from = 0, acknowledged = q->acknowledged_index;

	if (peer_tls_who(p, rpc_call_stream(call), &from, NULL) >= 0) {
		note_address(p, from, q->peer_address);
	}
	peer_service_who(p, &out);
	out.holds = vouch_answer(p, from, q->silent_term);
	rpc_call_reply(call, &out.base); /* the call and its request are gone */
	check_own_log(p, from, acknowledged);
}

/* The marker may not have been applied here yet: asked again until the call's deadline. */
static void digest_poll(void *arg)
{
	struct waiting *w = arg;
	struct rpc_call *call = peer_call_find(w->peer->peer_rpc, w->ref);
	digest_response out = SKERRY__INTERNAL__V1__GET_DIGEST_RESPONSE__INIT;
	uint8_t digest[32];
	int r;

	list_remove(&w->node);
	if (call == NULL) {
		mem_free(w);
		return;
	}
	r = link_digest(w->peer->cluster, w->marker, digest, &out.revision);
	if (r == ERR_NOT_FOUND) {
		list_push(&w->peer->digest_waits, &w->node);
		loop_timer_start(&w->timer, w->peer->loop, DIGEST_POLL_MS, digest_poll, w);
		return;
	}
	if (r < 0) {
		rpc_call_fail(call, r, "no digest at marker %" PRIu64, w->marker);
	} else {
		out.digest.data = digest;
		out.digest.len = sizeof(digest);
		rpc_call_reply(call, &out.base);
	}
	mem_free(w);
}

static void on_digest(void *arg, struct rpc_call *call, const ProtobufCMessage *req)
{
	const digest_request *q = (const digest_request *)req;
	struct waiting *w = waiting_new(arg, call);

	w->marker = q->marker;
	digest_poll(w);
}

static void on_verdict(void *arg, struct rpc_call *call, const ProtobufCMessage *req)
{
	const verdict_request *q = (const verdict_request *)req;
	verdict_response out = SKERRY__INTERNAL__V1__DIGEST_VERDICT_RESPONSE__INIT;
	struct peer *p = arg;

	if (q->digest.len == 32) {
		link_digest_verdict(p->cluster, q->marker, q->digest.data);
	}
	rpc_call_reply(call, &out.base);
}

static void on_facts(void *arg, struct rpc_call *call, const ProtobufCMessage *req)
{
	Skerry__Internal__V1__GetFactsResponse out = SKERRY__INTERNAL__V1__GET_FACTS_RESPONSE__INIT;
	char backup_error[128];

	(void)req;
	peer_facts_fill(arg, &out, backup_error);
	rpc_call_reply(call, &out.base);
}

static void on_changed(void *arg, const struct err *err, uint64_t change)
{
	struct waiting *w = arg;
	struct rpc_call *call = peer_call_find(w->peer->peer_rpc, w->ref);
	change_response out = SKERRY__INTERNAL__V1__CHANGE_MEMBER_RESPONSE__INIT;

	if (call != NULL && (err->code == 0 || err->code == ERR_NOT_LEADER)) {
		out.not_leader = err->code != 0;
		out.leader_hint = w->peer->leader;
		out.change_id = change;
		rpc_call_reply(call, &out.base);
	} else if (call != NULL) {
		rpc_call_finish(call, err);
	}
	mem_free(w);
}

static void on_change(void *arg, struct rpc_call *call, const ProtobufCMessage *req)
{
	peer_change_here(arg, (const change_request *)req, on_changed, waiting_new(arg, call));
}

void peer_service_stop(struct peer *p)
{
	struct list *it;

	while ((it = list_pop(&p->digest_waits)) != NULL) {
		struct waiting *w = LIST_ENTRY(it, struct waiting, node);

		loop_timer_stop(&w->timer);
		mem_free(w);
	}
}

void peer_service_add(struct peer *p)
{
	static const struct rpc_handler propose = {.on_call = on_propose};
	static const struct rpc_handler many = {.on_call = on_propose_many};
	static const struct rpc_handler read_index = {.on_call = on_read_index};
	static const struct rpc_handler who = {.on_call = on_who};
	static const struct rpc_handler digest = {.on_call = on_digest};
	static const struct rpc_handler verdict = {.on_call = on_verdict};
	static const struct rpc_handler facts = {.on_call = on_facts};
	static const struct rpc_handler change = {.on_call = on_change};

	rpc_server_add(p->peer_rpc, "/skerry.internal.v1.PeerService/Propose", &propose, p);
	rpc_server_add(p->peer_rpc, "/skerry.internal.v1.PeerService/ProposeMany", &many, p);
	rpc_server_add(p->peer_rpc, "/skerry.internal.v1.PeerService/ReadIndex", &read_index, p);
	rpc_server_add(p->peer_rpc, "/skerry.internal.v1.PeerService/WhoAreYou", &who, p);
	rpc_server_add(p->peer_rpc, "/skerry.internal.v1.PeerService/GetDigest", &digest, p);
	rpc_server_add(p->peer_rpc, "/skerry.internal.v1.PeerService/DigestVerdict", &verdict, p);
	rpc_server_add(p->peer_rpc, "/skerry.internal.v1.PeerService/GetFacts", &facts, p);
	rpc_server_add(p->peer_rpc, "/skerry.internal.v1.PeerService/ChangeMember", &change, p);
	peer_notice_add(p);
	rpc_server_set_gate(p->peer_rpc, gate, p);
}
