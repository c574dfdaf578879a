/* Comparing the states: a marker in the log, and what each member's state was there. */
#include "cluster/peer_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "cluster/digest_judge.h"
#include "net/rpc_client.h"

#define PATH_DIGEST  "/skerry.internal.v1.PeerService/GetDigest"
#define PATH_VERDICT "/skerry.internal.v1.PeerService/DigestVerdict"

enum { OWN_POLL_MS = 10, ROUND_MS = 10000, VERDICT_MS = 2000 };

typedef Skerry__Internal__V1__GetDigestRequest digest_request;
typedef Skerry__Internal__V1__GetDigestResponse digest_response;

struct compare;

struct row {
	struct compare *compare;
	struct rpc_request *call;
	struct cluster_digest d;
	bool voter;
};

/* Made on the caller's thread, lives on the peer thread, its end is posted to the caller's loop. */
struct compare {
	struct list node;
	struct peer *peer;
	struct loop *
		loop; /* the caller's; NULL: of our own accord, and every member is told the outcome */
	uint64_t deadline_ms, marker, revision;
	digest_cb cb;
	void *arg;
	bool proposing;
	struct loop_timer timer; /* for our own digest */
	struct row row[CLUSTER_MEMBERS_MAX];
	size_t n, missing;
	struct err err;
};

static void deliver(void *arg)
{
	struct compare *c = arg;
	struct cluster_digest d[CLUSTER_MEMBERS_MAX];

	for (size_t i = 0; i < c->n; i++) {
		d[i] = c->row[i].d;
	}
	c->cb(c->arg, &c->err, c->revision, c->n, d);
	mem_free(c);
}

static void judge(struct compare *c, enum digest_outcome *ret_outcome, size_t *ret_right)
{
	struct digest_vote vote[CLUSTER_MEMBERS_MAX];
	bool differ;

	METRICS_COUNT("skerry_digest_comparisons_total",
		      "Comparisons of the lighthouses' states that were made from here.", 1);
	for (size_t i = 0; i < c->n; i++) {
		const struct row *row = &c->row[i];

		vote[i].digest = row->d.error[0] == '\0' ? row->d.digest : NULL;
		vote[i].voter = row->voter;
	}
	*ret_outcome = digest_judge(vote, c->n, ret_right);
	differ = *ret_outcome != DIGEST_EQUAL;
	METRICS_COUNT("skerry_digest_mismatches_total",
		      "Comparisons in which the states of lighthouses differed.", differ);
	c->peer->digest_mismatches += differ;
}

static void end(struct compare *c)
{
	list_remove(&c->node);
	loop_timer_stop(&c->timer);
	if (c->loop != NULL) {
		loop_post_reply(c->loop, deliver, c);
		return;
	}
	if (c->err.code != 0) {
		LOG_DEBUG("peer: comparison of the states: %s", c->err.msg);
	}
	c->peer->comparing = false;
	mem_free(c);
}

static void told(struct compare *c)
{
	if (--c->missing == 0) {
		end(c);
	}
}

static void on_told(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct row *row = arg;

	(void)reply;
	row->call = NULL;
	if (status->code != 0) {
		LOG_DEBUG("peer: lighthouse %" PRIu64 " was not told of the comparison: %s",
			  row->d.id, status->msg);
	}
	told(row->compare);
}

/* Each member, also the ones that are right: a rebuilt store waits for that. Ourselves last, since it may be our end. */
static void tell(struct compare *c, const uint8_t right[32])
{
	Skerry__Internal__V1__DigestVerdictRequest q =
		SKERRY__INTERNAL__V1__DIGEST_VERDICT_REQUEST__INIT;
	struct rpc_opts o = {.deadline_ms = VERDICT_MS};

	q.marker = c->marker;
	q.digest.data = (uint8_t *)right;
	q.digest.len = 32;
	c->missing = c->n + 1;
	for (size_t i = 0; i < c->n; i++) {
		struct row *row = &c->row[i];
		struct peer_link *l = peer_link_find(c->peer, row->d.id);

		if (row->d.id == c->peer->self || l == NULL || !peer_link_connected(l)) {
			c->missing--;
			continue;
		}
		row->call = rpc_unary(l->channel, PATH_VERDICT, &q.base,
				      &skerry__internal__v1__digest_verdict_response__descriptor,
				      &o, on_told, row);
	}
	link_digest_verdict(c->peer->cluster, c->marker, right);
	told(c);
}

static void judged(struct compare *c)
{
	enum digest_outcome outcome;
	size_t right;

	judge(c, &outcome, &right);
	if (c->loop != NULL) {
		end(c);
		return;
	}
	for (size_t i = 0; i < c->n && outcome == DIGEST_MINORITY; i++) {
		const struct row *row = &c->row[i];

		if (row->d.error[0] == '\0' &&
		    memcmp(row->d.digest, c->row[right].d.digest, 32) != 0) {
			LOG_ERROR("at revision %" PRIu64 " lighthouse %" PRIu64
				  " holds another state than a majority: it is told to rebuild its "
				  "store",
				  c->revision, row->d.id);
		}
	}
	if (outcome == DIGEST_NO_MAJORITY) {
		LOG_ERROR(
			"at revision %" PRIu64 " the states of the lighthouses differ, and no "
			"majority says which is right: "
			"change nothing and keep copies of all state directories (`skerry cluster "
			"doctor`)",
			c->revision);
	}
	if (right < c->n) {
		tell(c, c->row[right].d.digest);
	} else {
		end(c);
	}
}

static void row_done(struct compare *c)
{
	if (--c->missing == 0) {
		judged(c);
	}
}

static void row_set(struct row *row, const uint8_t *digest, size_t len, uint64_t revision,
		    const char *error)
{
	if (digest != NULL && len == sizeof(row->d.digest)) {
		memcpy(row->d.digest, digest, len);
		row->compare->revision = revision;
	} else {
		snprintf(row->d.error, sizeof(row->d.error), "%s", error);
	}
}

static void on_digest(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct row *row = arg;
	const digest_response *a = (const digest_response *)reply;

	row->call = NULL;
	if (status->code == 0) {
		row_set(row, a->digest.data, a->digest.len, a->revision, "no digest in the answer");
	} else {
		row_set(row, NULL, 0, 0, status->msg);
	}
	row_done(row->compare);
}

/* Ours is the row without a call. */
static void own_digest(void *arg)
{
	struct row *row = arg;
	struct compare *c = row->compare;
	uint8_t digest[32];
	uint64_t revision = 0;
	int r = link_digest(c->peer->cluster, c->marker, digest, &revision);

	if (r == ERR_NOT_FOUND && clock_mono_ms() < c->deadline_ms) {
		loop_timer_start(&c->timer, c->peer->loop, OWN_POLL_MS, own_digest, row);
		return;
	}
	row_set(row, r < 0 ? NULL : digest, sizeof(digest), revision, err_text(r));
	row_done(c);
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

static void ask_all(struct compare *c)
{
	struct peer *p = c->peer;
	struct row *own = NULL;
	struct link_state s;

	link_state(p->cluster, &s);
	for (size_t i = 0; i < p->table.n && c->n < CLUSTER_MEMBERS_MAX; i++) {
		uint64_t id = p->table.m[i].id;

		if (!p->table.m[i].removed) {
			c->row[c->n++] =
				(struct row){.compare = c, .d = {.id = id}, .voter = votes(&s, id)};
		}
	}
	c->missing = c->n + 1; /* one more: nothing ends inside of this loop */
	for (size_t i = 0; i < c->n; i++) {
		struct row *row = &c->row[i];
		struct peer_link *l = peer_link_find(p, row->d.id);
		digest_request q = SKERRY__INTERNAL__V1__GET_DIGEST_REQUEST__INIT;
		uint64_t now = clock_mono_ms();
		struct rpc_opts o = {.deadline_ms = c->deadline_ms > now ? c->deadline_ms - now
									 : 1};

		if (row->d.id == p->self) {
			own = row;
		} else if (l == NULL || !peer_link_connected(l)) {
			row_set(row, NULL, 0, 0, "no link to this lighthouse");
			c->missing--;
		} else {
			q.marker = c->marker;
			row->call =
				rpc_unary(l->channel, PATH_DIGEST, &q.base,
					  &skerry__internal__v1__get_digest_response__descriptor,
					  &o, on_digest, row);
		}
	}
	if (own != NULL) {
		own_digest(own);
	}
	row_done(c);
}

static void on_marker(void *arg, const struct err *err,
		      const Skerry__Internal__V1__CommandResult *r)
{
	struct compare *c = arg;

	c->proposing = false;
	c->err = *err;
	if (err->code == 0 && r->code != 0) {
		err_set(&c->err, err_from_grpc(r->code), "%s", r->message);
	}
	if (c->err.code == 0 && atomic_load(&c->peer->stopping)) {
		err_set(&c->err, ERR_CLOSED, "this lighthouse is stopping");
	}
	if (c->err.code != 0) {
		end(c);
	} else {
		c->revision = r->revision;
		ask_all(c);
	}
}

static void begin(void *arg)
{
	struct compare *c = arg;
	struct peer *p = c->peer;
	Skerry__Internal__V1__Command cmd = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Skerry__Internal__V1__Actor actor = SKERRY__INTERNAL__V1__ACTOR__INIT;
	Skerry__Internal__V1__DigestMarker body = SKERRY__INTERNAL__V1__DIGEST_MARKER__INIT;
	struct propose_options o = {.class = PROPOSE_INTERNAL, .deadline_ms = c->deadline_ms};
	uint8_t random[32];
	int r;

	list_push(&p->digests, &c->node);
	if (atomic_load(&p->stopping)) {
		err_set(&c->err, ERR_CLOSED, "this lighthouse is stopping");
		end(c);
		return;
	}
	actor.kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_LIGHTHOUSE;
	actor.id = p->self;
	rand_bytes(random, sizeof(random));
	cmd.actor = &actor;
	cmd.random.data = random;
	cmd.random.len = sizeof(random);
	body.id = c->marker;
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_DIGEST_MARKER;
	cmd.digest_marker = &body;
	c->proposing = true;
	r = cluster_propose(p->cluster, p->loop, &cmd, &o, on_marker, c, &c->err);
	if (r < 0) {
		c->proposing = false;
		c->err.code = r;
		end(c);
	}
}

static struct compare *compare_new(struct peer *p, struct loop *loop, uint64_t deadline_ms)
{
	struct compare *c = MEM_NEW(struct compare);

	c->peer = p;
	c->loop = loop;
	c->deadline_ms = deadline_ms;
	c->marker = rand_id63();
	return c;
}

int peer_compare_digests(struct peer *p, struct loop *loop, uint64_t deadline_ms, digest_cb cb,
			 void *arg, struct err *err)
{
	struct compare *c = compare_new(p, loop, deadline_ms);
	int r;

	c->cb = cb;
	c->arg = arg;
	r = loop_post(p->loop, begin, c);
	if (r < 0) {
		mem_free(c);
		return err_set(err, r, "too much is waiting for the peer thread");
	}
	return 0;
}

void peer_digest_run(struct peer *p, uint64_t now_ms)
{
	struct link_state s;

	link_state(p->cluster, &s);
	if (!s.self_leads || p->compare_due_ms == 0) {
		/* The next one counts from here. */
		p->compare_due_ms = now_ms + p->compare_ms;
		p->compare_due_index = s.commit_index + PEER_COMPARE_ENTRIES;
		return;
	}
	if (p->comparing || (now_ms < p->compare_due_ms && s.commit_index < p->compare_due_index)) {
		return;
	}
	p->compare_due_ms = now_ms + p->compare_ms;
	p->compare_due_index = s.commit_index + PEER_COMPARE_ENTRIES;
	p->comparing = true;
	begin(compare_new(p, NULL, now_ms + ROUND_MS));
}

void peer_digest_stop(struct peer *p)
{
	LIST_FOREACH_SAFE(&p->digests, it, tmp)
	{
		struct compare *c = LIST_ENTRY(it, struct compare, node);

		if (c->proposing) {
			continue; /* the command is answered first, by the raft side */
		}
		for (size_t i = 0; i < c->n; i++) {
			rpc_cancel(c->row[i].call);
		}
		c->n = 0;
		err_set(&c->err, ERR_CLOSED, "this lighthouse is stopping");
		end(c);
	}
}
