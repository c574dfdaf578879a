/* The peer port: three protocols by ALPN, each to its place; removed members are told that they are. */
#include "cluster/peer_int.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "net/http.h"
#include "net/listen.h"
#include "net/stream.h"
#include "net/tls.h"

static void refuse(struct peer *p, struct stream *s, const char *alpn, const struct err *e)
{
	METRICS_COUNT("skerry_peer_refused_total", "Callers of the peer port that were refused", 1);
	LOG_DEBUG("peer: %s from %s refused: %s", alpn, stream_peer_text(s), e->msg);
	if (strcmp(alpn, PEER_ALPN_PEER) == 0 && (strcmp(e->reason, "MEMBER_REMOVED") == 0 ||
						  strcmp(e->reason, "MEMBER_UNKNOWN") == 0)) {
		/* Its calls fail at the gate with the reason, so that it can say so and stop; all but EpochNotice. */
		http_server_accept(p->strangers, s, "h2");
	} else {
		stream_abort(s);
	}
}

static void on_stream(void *arg, struct stream *s)
{
	struct peer *p = arg;
	const struct stream_tls *tls = stream_tls(s);
	const char *alpn = tls != NULL ? tls->alpn : "";
	struct peer_link *l;
	struct err e = {0};
	uint64_t id;

	if (strcmp(alpn, PEER_ALPN_JOIN) == 0) {
		http_server_accept(p->join_http, s, "h2");
		return;
	}
	if (peer_tls_who(p, s, &id, &e) < 0) {
		refuse(p, s, alpn, &e);
		return;
	}
	l = peer_link_find(p, id);
	if (l == NULL) {
		stream_abort(s);
	} else if (strcmp(alpn, PEER_ALPN_RAFT) == 0) {
		peer_raft_accept(l, s);
	} else {
		peer_link_kick(l);
		http_server_accept(l->http, s, "h2");
	}
}

int peer_accept_new(struct peer *p, const char *address, struct err *err)
{
	struct listener_opts o = {.address = address,
				  .handshakes_per_s = LIM_PEER_HANDSHAKES_PER_SEC};
	struct tls_ctx *ctx;
	int r = peer_tls_server(p, &ctx, err);

	if (r < 0) {
		return r;
	}
	p->tls = tls_slot_new(ctx);
	tls_unref(ctx);
	p->peer_router = http_router_new();
	p->join_router = http_router_new();
	p->peer_rpc = rpc_server_new(p->loop, "peer");
	p->join_rpc = rpc_server_new(p->loop, "join");
	peer_service_add(p);
	p->join = join_server_new(p);
	rpc_server_mount(p->peer_rpc, p->peer_router, true);
	rpc_server_mount(p->join_rpc, p->join_router, true);
	p->strangers = http_server_new(p->loop, p->peer_router);
	p->join_http = http_server_new(p->loop, p->join_router);
	http_server_set_opts(p->strangers, &(struct http_server_opts){
						   .max_streams = 4,
						   .idle_ms = LIM_JOIN_MS,
						   .max_age_ms = LIM_JOIN_MS,
					   });
	http_server_set_opts(p->join_http, &(struct http_server_opts){
						   .max_streams = 1,
						   .idle_ms = LIM_JOIN_MS,
						   .max_age_ms = 2 * LIM_JOIN_MS,
					   });
	o.tls = p->tls;
	return listener_new(p->loop, &o, on_stream, p, &p->listener, err);
}

struct rpc_call *peer_call_find(struct rpc_server *server, struct rpc_ref ref)
{
	return server != NULL ? rpc_call_find(server, ref) : NULL;
}

void peer_accept_stop(struct peer *p)
{
	if (p->listener != NULL) {
		listener_stop(p->listener);
	}
	http_server_free(p->strangers);
	http_server_free(p->join_http);
	p->strangers = NULL;
	p->join_http = NULL;
	join_server_free(p->join);
	p->join = NULL;
	listener_free(p->listener);
	p->listener = NULL;
}

void peer_accept_free(struct peer *p)
{
	peer_accept_stop(p);
	http_router_free(p->peer_router);
	http_router_free(p->join_router);
	rpc_server_free(p->peer_rpc);
	rpc_server_free(p->join_rpc);
	p->peer_rpc = NULL;
	p->join_rpc = NULL;
	tls_slot_free(p->tls);
}
