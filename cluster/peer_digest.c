/* Comparing the states: a marker in the log, and what each member's state was there. */
#include "cluster/peer_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "net/rpc_client.h"

#define PATH_DIGEST "/skerry.internal.v1.PeerService/GetDigest"

enum { OWN_POLL_MS = 10 };

typedef Skerry__Internal__V1__GetDigestRequest digest_request;
typedef Skerry__Internal__V1__GetDigestResponse digest_response;

struct compare;

struct row {
	struct compare *compare;
	struct rpc_request *call;
	struct cluster_digest d;
};

/* Made on the caller's thread, lives on the peer thread, its end is posted to the caller's loop. */
struct compare {
	struct list node;
	struct peer *peer;
	struct loop *loop; /* the caller's */
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

static void judge(struct compare *c)
{
	const struct row *first = NULL;
	bool differ = false;

	METRICS_COUNT("skerry_digest_comparisons_total",
		      "Comparisons of the lighthouses' states that were made from here.", 1);
	for (size_t i = 0; i < c->n; i++) {
		const struct row *row = &c->row[i];

		if (row->d.error[0] != '\0') {
			continue;
		}
		first = first != NULL ? first : row;
		differ |= memcmp(first->d.digest, row->d.digest, sizeof(row->d.digest)) != 0;
	}
	METRICS_COUNT("skerry_digest_mismatches_total",
		      "Comparisons in which the states of lighthouses differed.", differ);
	c->peer->digest_mismatches += differ;
}

static void end(struct compare *c)
{
	if (c->err.code == 0) {
		judge(c);
	}
	list_remove(&c->node);
	loop_timer_stop(&c->timer);
	loop_post_reply(c->loop, deliver, c);
}

static void row_done(struct compare *c)
{
	if (--c->missing == 0) {
		end(c);
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

static void ask_all(struct compare *c)
{
	struct peer *p = c->peer;
	struct row *own = NULL;

	for (size_t i = 0; i < p->table.n && c->n < CLUSTER_MEMBERS_MAX; i++) {
		if (!p->table.m[i].removed) {
			c->row[c->n++] = (struct row){.compare = c, .d = {.id = p->table.m[i].id}};
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

int peer_compare_digests(struct peer *p, struct loop *loop, uint64_t deadline_ms, digest_cb cb,
			 void *arg, struct err *err)
{
	struct compare *c = MEM_NEW(struct compare);
	int r;

	c->peer = p;
	c->loop = loop;
	c->deadline_ms = deadline_ms;
	c->marker = rand_id63();
	c->cb = cb;
	c->arg = arg;
	r = loop_post(p->loop, begin, c);
	if (r < 0) {
		mem_free(c);
		return err_set(err, r, "too much is waiting for the peer thread");
	}
	return 0;
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
