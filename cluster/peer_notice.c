/*
 * A newer epoch of the cluster: restored from a backup, or taken over by a survivor. Lighthouses of before it that still run
 * know nothing of it, serve devices, and with a majority among themselves even take writes. So who leads the newer epoch
 * tells each member that was removed, where it was dialled last; it stops for good. What is told counts with a certificate
 * of the cluster's CA, another epoch and a higher revision: a restore goes 2^32 beyond what was.
 */
#include "cluster/peer_int.h"

#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/dial.h"
#include "net/rpc_client.h"
#include "net/tls.h"

#define PATH_NOTICE "/skerry.internal.v1.PeerService/EpochNotice"

enum {
	ROUND_MS = 5000,
	LATER_ROUND_MS = 60000, /* who did not hear it by then is away for longer */
	SOON_MS = 600000,
	NOTICE_MS = 3000,
	NOTICES_MAX = 16,
};

typedef Skerry__Internal__V1__EpochNoticeRequest notice_request;
typedef Skerry__Internal__V1__EpochNoticeResponse notice_response;

/* ---- telling ---- */

/* Never inside a callback of its channel or call. */
static void notice_free(void *arg)
{
	struct peer_notice *n = arg;

	list_remove(&n->node);
	loop_timer_stop(&n->timer);
	dial_cancel(n->dial);
	if (n->call != NULL) {
		rpc_cancel(n->call);
	}
	rpc_channel_free(n->channel);
	mem_free(n);
}

static void end_soon(struct peer_notice *n)
{
	loop_timer_start(&n->timer, n->peer->loop, 0, notice_free, n);
}

static void on_answer(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct peer_notice *n = arg;

	(void)reply;
	n->call = NULL;
	if (status->code == 0) {
		LOG_INFO("lighthouse %" PRIu64 " of an earlier epoch was told to stop", n->id);
	}
	end_soon(n);
}

static void on_dialled(void *arg, struct stream *stream, size_t which, const struct err *err)
{
	notice_request q = SKERRY__INTERNAL__V1__EPOCH_NOTICE_REQUEST__INIT;
	struct rpc_opts o = {.deadline_ms = NOTICE_MS};
	struct rpc_channel_opts co = {0};
	struct peer_notice *n = arg;

	(void)which;
	(void)err;
	n->dial = NULL;
	if (stream == NULL) {
		end_soon(n);
		return;
	}
	n->channel = rpc_channel_over(stream, &co);
	q.cluster_id = n->peer->cluster_id;
	q.epoch = n->peer->epoch;
	q.revision = n->peer->revision;
	n->call = rpc_unary(n->channel, PATH_NOTICE, &q.base,
			    &skerry__internal__v1__epoch_notice_response__descriptor, &o, on_answer,
			    n);
}

static bool address_in_use(const struct peer *p, const char *address)
{
	for (size_t i = 0; i < p->table.n; i++) {
		if (!p->table.m[i].removed && strcmp(p->table.m[i].address, address) == 0) {
			return true;
		}
	}
	return false;
}

static void tell(struct peer *p, const struct member *m)
{
	struct dial_opts o = {.timeout_ms = PEER_DIAL_MS, .user_timeout_ms = NOTICE_MS};
	struct peer_notice *n = MEM_NEW(struct peer_notice);
	struct tls_ctx *tls;

	n->peer = p;
	n->id = m->id;
	list_push(&p->notices, &n->node);
	if (peer_tls_client_removed(n, &tls, NULL) < 0) {
		end_soon(n);
		return;
	}
	o.tls = tls;
	n->dial = dial_start(p->loop, m->address, &o, on_dialled, n);
	tls_unref(tls);
}

void peer_notice_run(struct peer *p, const struct link_state *s, uint64_t now_ms)
{
	size_t told = 0;

	if (!s->self_leads || p->epoch == 0 || now_ms < p->notice_ms) {
		return;
	}
	p->notice_ms = now_ms + (now_ms - s->leader_since_ms < SOON_MS ? ROUND_MS : LATER_ROUND_MS);
	if (!list_empty(&p->notices)) {
		return; /* those of the last round */
	}
	for (size_t i = 0; i < p->table.n && told < NOTICES_MAX; i++) {
		const struct member *m = &p->table.m[i];

		if (m->removed && m->address[0] != '\0' && !address_in_use(p, m->address)) {
			tell(p, m);
			told++;
		}
	}
}

void peer_notice_stop(struct peer *p)
{
	LIST_FOREACH_SAFE(&p->notices, it, tmp)
	{
		notice_free(LIST_ENTRY(it, struct peer_notice, node));
	}
}

/* ---- being told ---- */

bool peer_notice_passes(const char *path, const struct err *who)
{
	return strcmp(path, PATH_NOTICE) == 0 && strcmp(who->reason, "MEMBER_UNKNOWN") == 0;
}

static void on_notice(void *arg, struct rpc_call *call, const ProtobufCMessage *req)
{
	const notice_request *q = (const notice_request *)req;
	notice_response out = SKERRY__INTERNAL__V1__EPOCH_NOTICE_RESPONSE__INIT;
	struct peer *p = arg;
	uint64_t epoch = q->epoch, revision = q->revision;
	bool newer;

	peer_table_refresh(p);
	newer = q->cluster_id == p->cluster_id && p->epoch != 0 && epoch != p->epoch &&
		revision > p->revision;
	out.epoch = p->epoch;
	rpc_call_reply(call, &out.base);
	if (newer) {
		peer_refuse(p, PEER_EXIT_REMOVED,
			    "the cluster goes on in a newer epoch (%" PRIu64
			    ", from a restored backup or one survivor) without this lighthouse "
			    "(%" PRIu64
			    "), whose state is of before: keep a copy of %s if you need it, "
			    "then empty it and join anew with a new token",
			    epoch, p->self, p->dir);
	}
}

void peer_notice_add(struct peer *p)
{
	static const struct rpc_handler notice = {.on_call = on_notice};

	rpc_server_add(p->peer_rpc, PATH_NOTICE, &notice, p);
}
