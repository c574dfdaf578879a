/* How the lighthouses are: what this one says of itself, and the round of questions to all. */
#include "cluster/peer_int.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/mem.h"
#include "cluster/cluster_int.h"
#include "net/rpc_client.h"
#include "tailnet/query.h"

#define PATH_FACTS "/skerry.internal.v1.PeerService/GetFacts"

typedef Skerry__Internal__V1__GetFactsRequest facts_request;
typedef Skerry__Internal__V1__GetFactsResponse facts_response;

struct round;

struct row {
	struct round *round;
	struct rpc_request *call;
	struct cluster_facts f;
};

/* Made on the caller's thread, lives on the peer thread, its end is posted to the caller's loop. */
struct round {
	struct list node;
	struct peer *peer;
	struct loop *loop;
	uint64_t deadline_ms;
	facts_cb cb;
	void *arg;
	struct row row[CLUSTER_MEMBERS_MAX];
	size_t n, missing;
	struct err err;
};

static int64_t end_of(const char *pem)
{
	struct x509_facts facts;
	int64_t ms;

	if (pem == NULL || x509_parse_pem(pem, &facts, NULL) < 0) {
		return 0;
	}
	ms = facts.not_after_ms;
	x509_facts_done(&facts);
	return ms;
}

/* What the state has noted of a member: it outlives a start, and is known while it is away. */
static void noted(struct peer *p, uint64_t id, struct cluster_facts *f)
{
	struct cluster_read *read;
	MemberRecord *m;
	struct arena a;

	if (cluster_read_begin(p->cluster, "facts", &read, NULL) < 0) {
		return;
	}
	arena_init(&a, 64 << 10);
	if (query_member(cluster_read_kv(read), id, &a, &m) >= 0) {
		f->backup_ms = MAX(f->backup_ms, (int64_t)m->backup_ms);
		f->ca_generation = m->ca_generation;
		f->seal = m->seal;
	}
	arena_done(&a);
	cluster_read_end(read);
}

static void own_facts(struct peer *p, struct cluster_facts *f)
{
	cluster_facts_self(p->cluster, f);
	pthread_mutex_lock(&p->lock);
	f->peer_cert_ms = end_of(p->keys->node_cert_pem);
	f->api_cert_ms = end_of(p->keys->api_cert_pem);
	f->ca_cert_ms = end_of(p->keys->ca_cert_pem);
	pthread_mutex_unlock(&p->lock);
	f->digest_mismatches = p->digest_mismatches;
	noted(p, p->self, f);
}

void peer_facts_fill(struct peer *p, facts_response *r, char backup_error[128])
{
	struct cluster_facts f;

	own_facts(p, &f);
	r->version = p->version;
	r->feature_min = f.feature_min;
	r->feature_max = f.feature_max;
	r->append_p99_us = f.append_p99_us;
	r->append_count = f.append_n;
	r->peer_certificate_ms = f.peer_cert_ms;
	r->api_certificate_ms = f.api_cert_ms;
	r->ca_certificate_ms = f.ca_cert_ms;
	r->disk_free = f.disk_free;
	r->disk_bytes = f.disk_bytes;
	r->map_permille = f.map_permille;
	r->state_bytes = f.state_bytes;
	r->state_limit = f.state_limit;
	r->commit_index = f.commit_index;
	r->applied_index = f.applied_index;
	r->term = f.term;
	r->leader_id = f.leader_id;
	r->digest_mismatches = f.digest_mismatches;
	if (f.store_rebuilt[0] != '\0') { /* lives as long as the store */
		r->store_rebuilt = (char *)(uintptr_t)store_rebuilt(p->cluster->store);
	}
	r->compared_ms = f.compared_ms;
	r->scrubbed_ms = f.scrubbed_ms;
	r->backup_ms = f.backup_ms;
	r->backup_every_ms = f.backup_every_ms;
	snprintf(backup_error, sizeof(f.backup_error), "%s", f.backup_error);
	r->backup_error = backup_error;
}

static void take(struct cluster_facts *f, const facts_response *r)
{
	snprintf(f->version, sizeof(f->version), "%s", r->version);
	f->feature_min = r->feature_min;
	f->feature_max = r->feature_max;
	f->append_p99_us = r->append_p99_us;
	f->append_n = r->append_count;
	f->peer_cert_ms = r->peer_certificate_ms;
	f->api_cert_ms = r->api_certificate_ms;
	f->ca_cert_ms = r->ca_certificate_ms;
	f->disk_free = r->disk_free;
	f->disk_bytes = r->disk_bytes;
	f->map_permille = r->map_permille;
	f->state_bytes = r->state_bytes;
	f->state_limit = r->state_limit;
	f->commit_index = r->commit_index;
	f->applied_index = r->applied_index;
	f->term = r->term;
	f->leader_id = r->leader_id;
	f->digest_mismatches = r->digest_mismatches;
	snprintf(f->store_rebuilt, sizeof(f->store_rebuilt), "%s", r->store_rebuilt);
	f->compared_ms = r->compared_ms;
	f->scrubbed_ms = r->scrubbed_ms;
	f->backup_ms = MAX(f->backup_ms, r->backup_ms);
	f->backup_every_ms = r->backup_every_ms;
	snprintf(f->backup_error, sizeof(f->backup_error), "%s", r->backup_error);
}

static void deliver(void *arg)
{
	struct round *c = arg;
	struct cluster_facts f[CLUSTER_MEMBERS_MAX];

	for (size_t i = 0; i < c->n; i++) {
		f[i] = c->row[i].f;
	}
	c->cb(c->arg, &c->err, c->n, f);
	mem_free(c);
}

static void end(struct round *c)
{
	list_remove(&c->node);
	loop_post_reply(c->loop, deliver, c);
}

static void row_done(struct round *c)
{
	if (--c->missing == 0) {
		end(c);
	}
}

static void on_facts(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct row *row = arg;

	row->call = NULL;
	if (status->code == 0) {
		take(&row->f, (const facts_response *)reply);
	} else {
		snprintf(row->f.error, sizeof(row->f.error), "%s",
			 status->msg[0] != '\0' ? status->msg : err_text(status->code));
	}
	row_done(row->round);
}

static bool votes(const struct link_state *s, uint64_t id)
{
	for (size_t i = 0; i < s->n; i++) {
		if (s->server[i].id == id) {
			return s->server[i].role == LINK_VOTER;
		}
	}
	return false;
}

/* What is known of it here, without asking. */
static void row_init(struct row *row, struct round *c, const struct member *m,
		     const struct link_state *s)
{
	struct peer *p = c->peer;
	const struct peer_link *l = peer_link_find(p, m->id);

	row->round = c;
	if (m->id == p->self) {
		own_facts(p, &row->f);
	}
	row->f.id = m->id;
	snprintf(row->f.name, sizeof(row->f.name), "%s", m->name);
	row->f.voter = votes(s, m->id);
	row->f.leader = m->id == s->leader;
	noted(p, m->id, &row->f);
	if (l != NULL && peer_link_connected(l)) {
		row->f.connected = true;
		row->f.clock_offset_ms = l->skew_ms - clock_skew_ms();
		row->f.rtt_us = l->rtt_us;
	}
}

static void ask_all(void *arg)
{
	struct round *c = arg;
	struct peer *p = c->peer;
	uint64_t now = clock_mono_ms();
	facts_request q = SKERRY__INTERNAL__V1__GET_FACTS_REQUEST__INIT;
	struct rpc_opts o = {.deadline_ms = c->deadline_ms > now ? c->deadline_ms - now : 1};
	struct link_state s;

	list_push(&p->facts, &c->node);
	if (atomic_load(&p->stopping)) {
		err_set(&c->err, ERR_CLOSED, "this lighthouse is stopping");
		end(c);
		return;
	}
	link_state(p->cluster, &s);
	for (size_t i = 0; i < p->table.n && c->n < CLUSTER_MEMBERS_MAX; i++) {
		if (!p->table.m[i].removed) {
			row_init(&c->row[c->n++], c, &p->table.m[i], &s);
		}
	}
	c->missing = c->n + 1; /* one more: nothing ends inside of this loop */
	for (size_t i = 0; i < c->n; i++) {
		struct row *row = &c->row[i];

		if (row->f.self || !row->f.connected) {
			c->missing--;
			continue;
		}
		row->call = rpc_unary(peer_link_find(p, row->f.id)->channel, PATH_FACTS, &q.base,
				      &skerry__internal__v1__get_facts_response__descriptor, &o,
				      on_facts, row);
	}
	row_done(c);
}

int peer_ask_facts(struct peer *p, struct loop *loop, uint64_t deadline_ms, facts_cb cb, void *arg,
		   struct err *err)
{
	struct round *c = MEM_NEW(struct round);
	int r;

	c->peer = p;
	c->loop = loop;
	c->deadline_ms = deadline_ms;
	c->cb = cb;
	c->arg = arg;
	r = loop_post(p->loop, ask_all, c);
	if (r < 0) {
		mem_free(c);
		return err_set(err, r, "too much is waiting for the peer thread");
	}
	return 0;
}

void peer_facts_stop(struct peer *p)
{
	LIST_FOREACH_SAFE(&p->facts, it, tmp)
	{
		struct round *c = LIST_ENTRY(it, struct round, node);

		for (size_t i = 0; i < c->n; i++) {
			rpc_cancel(c->row[i].call);
		}
		c->n = 0;
		err_set(&c->err, ERR_CLOSED, "this lighthouse is stopping");
		end(c);
	}
}
