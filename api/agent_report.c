/*
 * Reports: what a device says of itself. Most say nothing new and end here; the rest of a loop turn goes into one command,
 * so that a thousand devices that come back at once cost a few entries.
 */
#include <string.h>

#include "api/agent_int.h"
#include "base/limits.h"
#include "base/mem.h"
#include "proto/pb_decode.h"
#include "proto/pb_util.h"
#include "tailnet/query.h"

/* A report has at most LIM_GRPC_REQUEST_BYTES: with the one that crosses FACTS_BYTES, and its framing, a command fits. */
enum { FACTS_PER_COMMAND = 512, FACTS_BYTES = LIM_COMMAND_BYTES / 2 };

struct report_call {
	struct list link;
	struct agent_answer *answer;          /* NULL: nobody waits (a watch's first facts) */
	Skerry__Internal__V1__NodeFact *fact; /* heap */
};

static bool same_endpoints(const Skerry__Internal__V1__NodeEndpoints *have,
			   const struct agent_facts *f)
{
	if (have->n_endpoints != f->n_endpoints)
		return false;
	for (size_t i = 0; i < f->n_endpoints; i++) {
		if (!pb_equal(have->endpoints[i], f->endpoints[i]))
			return false;
	}
	return true;
}

static bool same_bytes(const ProtobufCBinaryData *a, const ProtobufCBinaryData *b)
{
	return a->len == b->len && (!a->len || !memcmp(a->data, b->data, a->len));
}

/* True when the state holds all that is said; also when it cannot be read, then the next report says it again. */
static bool facts_known(struct agent_service *s, const struct agent_facts *f)
{
	struct cluster_read *read;
	NodeEndpoints *have;
	struct arena arena;
	NodeRecord *n;
	bool known = true;

	if (cluster_read_begin(s->cluster, "agent-facts", &read, NULL) < 0)
		return true;
	arena_init(&arena, AGENT_ARENA_BYTES);
	if (query_node(cluster_read_kv(read), f->tailnet, f->node, &arena, &n) >= 0 &&
	    query_endpoints(cluster_read_kv(read), f->tailnet, f->node, &arena, &have) >= 0)
		known = same_endpoints(have, f) && have->home_relay == f->home_relay &&
			(!f->disco_key.len || same_bytes(&f->disco_key, &have->disco_key)) &&
			(!f->host_info || (n->host_info && pb_equal(f->host_info, n->host_info))) &&
			(!*f->hostname || !strcmp(f->hostname, n->hostname));
	arena_done(&arena);
	cluster_read_end(read);
	return known;
}

static Skerry__Internal__V1__NodeFact *make_fact(const struct agent_facts *f)
{
	Skerry__Internal__V1__NodeFact m = SKERRY__INTERNAL__V1__NODE_FACT__INIT;

	m.node = f->node;
	m.tailnet = f->tailnet;
	m.session = f->session;
	m.set_endpoints = true;
	m.n_endpoints = f->n_endpoints;
	m.endpoints = f->endpoints;
	m.disco_key = f->disco_key;
	m.host_info = f->host_info;
	m.home_relay = f->home_relay;
	m.hostname = (char *)(uintptr_t)f->hostname;
	return pb_copy(&m);
}

bool agent_facts_propose(struct agent_service *s, const struct agent_facts *f,
			 struct rpc_call *call)
{
	struct report_call *r;

	if (facts_known(s, f))
		return false;
	r = mem_zalloc(sizeof(*r));
	r->answer = call ? agent_answer_new(s, call) : NULL;
	r->fact = make_fact(f);
	list_push(&s->reports, &r->link);
	loop_flush_add(s->loop, &s->report_hook);
	return true;
}

/* The calls of one command. */
struct report_batch {
	size_t n;
	struct agent_answer *answer[];
};

static void batch_done(void *arg, const struct err *err, const CommandResult *r)
{
	struct report_batch *b = arg;
	Skerry__V1__ReportResponse m = SKERRY__V1__REPORT_RESPONSE__INIT;
	Skerry__V1__Revision rev = SKERRY__V1__REVISION__INIT;

	m.revision = &rev;
	if (r) {
		rev.epoch = r->epoch;
		rev.revision = r->revision;
	}
	for (size_t i = 0; i < b->n; i++) {
		struct rpc_call *call = agent_answer_take(b->answer[i], err, r);

		if (call)
			rpc_call_reply(call, &m.base);
	}
	mem_free(b);
}

void agent_report_flush(void *arg)
{
	struct agent_service *s = arg;

	while (!list_empty(&s->reports)) {
		Command cmd = SKERRY__INTERNAL__V1__COMMAND__INIT;
		Skerry__Internal__V1__NodeFacts body = SKERRY__INTERNAL__V1__NODE_FACTS__INIT;
		Skerry__Internal__V1__Actor actor = SKERRY__INTERNAL__V1__ACTOR__INIT;
		Skerry__Internal__V1__NodeFact *facts[FACTS_PER_COMMAND];
		struct propose_options o = {.class = PROPOSE_PRESENCE};
		struct report_batch *b =
			mem_zalloc(sizeof(*b) + FACTS_PER_COMMAND * sizeof(b->answer[0]));
		struct err err = {0};
		size_t bytes = 0;
		struct list *l;

		/* One that says much must not make the command of all too large. */
		while (body.n_facts < FACTS_PER_COMMAND && bytes < FACTS_BYTES &&
		       (l = list_pop(&s->reports))) {
			struct report_call *r = container_of(l, struct report_call, link);

			facts[body.n_facts++] = r->fact;
			bytes += protobuf_c_message_get_packed_size(&r->fact->base);
			if (r->answer)
				b->answer[b->n++] = r->answer;
			mem_free(r);
		}
		body.facts = facts;
		actor.kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_LIGHTHOUSE;
		actor.id = cluster_lighthouse_id(s->cluster);
		cmd.actor = &actor;
		cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_NODE_FACTS;
		cmd.node_facts = &body;
		if (cluster_propose(s->cluster, s->loop, &cmd, &o, batch_done, b, &err) < 0)
			batch_done(b, &err, NULL);
		for (size_t i = 0; i < body.n_facts; i++)
			pb_free(facts[i]);
	}
}

void agent_report(void *arg, struct rpc_call *call, const ProtobufCMessage *msg)
{
	const Skerry__V1__ReportRequest *req = (const Skerry__V1__ReportRequest *)msg;
	struct agent_service *s = arg;
	Skerry__V1__ReportResponse m = SKERRY__V1__REPORT_RESPONSE__INIT;
	Skerry__V1__Revision rev = SKERRY__V1__REVISION__INIT;
	struct agent_device *d = NULL;
	struct cluster_status st;
	struct agent_facts f;
	uint8_t machine[AGENT_KEY];
	struct err err = {0};
	int rc = agent_machine_key(call, machine, &err);

	/* Stored facts must be readable by every lighthouse, whatever the agent's version says more. */
	pb_strip_unknown((void *)(uintptr_t)msg);
	if (rc >= 0)
		rc = agent_check_endpoints(req->n_endpoints, req->endpoints, &err);
	if (rc >= 0)
		rc = agent_check_key(&req->disco_key, "disco_key", true, &err);
	if (rc >= 0) {
		d = req->session ? agent_device_find(s, machine, req->session) : NULL;
		if (!d)
			rc = err_reason(&err, ERR_PRECONDITION, "NOT_ATTACHED",
					"session %llu of this device is not attached to this "
					"lighthouse; open a Watch first",
					(unsigned long long)req->session);
	}
	if (rc >= 0 && !bucket_take(&d->reports, 1, loop_now(s->loop))) {
		counter_add(s->report_limited, 1);
		rpc_call_set_retry(call,
				   (uint32_t)MIN(bucket_wait_ms(&d->reports, 1, loop_now(s->loop)),
						 (uint64_t)60000));
		rc = err_reason(&err, ERR_LIMIT, "TOO_MANY_REPORTS",
				"at most %d reports a minute; send the last state later",
				LIM_REPORT_PER_MIN);
	}
	if (rc < 0) {
		rpc_call_finish(call, &err);
		return;
	}
	f = (struct agent_facts){.tailnet = d->tailnet,
				 .node = d->node,
				 .session = d->session,
				 .n_endpoints = req->n_endpoints,
				 .endpoints = req->endpoints,
				 .disco_key = req->disco_key,
				 .host_info = req->host_info,
				 .home_relay = req->home_relay,
				 .hostname = req->hostname};
	if (agent_facts_propose(s, &f, call))
		return;
	counter_add(s->report_unchanged, 1);
	cluster_status(s->cluster, &st);
	rev.epoch = st.epoch;
	rev.revision = st.revision;
	m.revision = &rev;
	rpc_call_reply(call, &m.base);
}
