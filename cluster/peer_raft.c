/* libraft's own links: dialled and accepted, vetted, then handed to the raft thread (raft_net.h). */
#include "cluster/peer_int.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "cluster/peer_pump.h"
#include "net/dial.h"
#include "net/stream.h"
#include "net/tls.h"

/*
 * A connection goes to libraft only after the member has answered a WhoAreYou that was asked when the connection was
 * there already: so it is the running process, a member, and its log holds what it had acknowledged.
 */
struct raft_link {
	struct list node;
	struct peer_link *link;
	bool outbound;
	uint64_t request; /* outbound: whose answer is due; 0: answered */
	bool failed;      /* outbound: the answer waits for the timer, or the member is back */
	struct dial *dial;
	struct stream *stream; /* waits to be vetted */
	uint64_t need_seq;     /* the question that vets it */
	uint64_t vet_until_ms;
	uint64_t way;           /* its name on the raft thread; 0: it is not there */
	struct peer_pump *pump; /* of one that could not go there */
	struct loop_timer timer;
};

static void answer(struct raft_link *rl, int fd)
{
	if (rl->request != 0) {
		link_connected(rl->link->peer->cluster, rl->request, fd);
		rl->request = 0;
	} else if (fd >= 0) {
		close(fd);
	}
}

/* Cuts whatever it is and answers what waits. */
static void drop(struct raft_link *rl)
{
	list_remove(&rl->node);
	rl->link->n_raft--;
	loop_timer_stop(&rl->timer);
	dial_cancel(rl->dial);
	stream_abort(rl->stream);
	peer_pump_free(rl->pump);
	if (rl->way != 0) {
		link_cut(rl->link->peer->cluster, rl->way);
	}
	answer(rl, ERR_UNAVAILABLE);
	mem_free(rl);
}

static void on_fail_timer(void *arg)
{
	drop(arg);
}

/* Failures of dialling are answered late, so that libraft's immediate retry is no storm. */
static void fail(struct raft_link *rl, const char *why)
{
	struct peer_link *l = rl->link;
	unsigned shift = MIN(l->raft_failures, 4u);

	LOG_DEBUG("peer: raft link %s %" PRIu64 ": %s", rl->outbound ? "to" : "from", l->id, why);
	stream_abort(rl->stream);
	rl->stream = NULL;
	if (!rl->outbound) {
		drop(rl);
		return;
	}
	l->raft_failures++;
	rl->failed = true;
	loop_timer_start(&rl->timer, l->peer->loop, 20u << shift, on_fail_timer, rl);
}

static struct raft_link *raft_link_new(struct peer_link *l, bool outbound)
{
	struct raft_link *rl = MEM_NEW(struct raft_link);

	rl->link = l;
	rl->outbound = outbound;
	list_push(&l->raft, &rl->node);
	l->n_raft++;
	return rl;
}

/* A snapshot travels on a connection of its own, whose end says nothing while others live. */
static bool another_lives(const struct peer_link *l, bool outbound)
{
	LIST_FOREACH(&l->raft, it)
	{
		const struct raft_link *rl = LIST_ENTRY(it, struct raft_link, node);

		if ((rl->pump != NULL || rl->way != 0) && rl->outbound == outbound) {
			return true;
		}
	}
	return false;
}

static void ended(struct raft_link *rl, bool remote, const char *why)
{
	struct peer_link *l = rl->link;
	bool outbound = rl->outbound;

	LOG_DEBUG("peer: raft link %s %" PRIu64 " ended by %s: %s", rl->outbound ? "to" : "from",
		  l->id, remote ? "the member" : "libraft", why);
	drop(rl);
	if (remote && l->id == l->peer->leader && !another_lives(l, outbound)) {
		probe_leader(l->peer);
	}
}

static void on_pump_end(void *arg, bool remote, const struct err *why)
{
	struct raft_link *rl = arg;

	rl->pump = NULL;
	ended(rl, remote, why != NULL ? why->msg : "");
}

void peer_raft_ended(struct peer *p, uint64_t way, bool remote)
{
	LIST_FOREACH(&p->links, it)
	{
		struct peer_link *l = LIST_ENTRY(it, struct peer_link, node);

		LIST_FOREACH(&l->raft, r)
		{
			struct raft_link *rl = LIST_ENTRY(r, struct raft_link, node);

			if (rl->way == way) {
				rl->way = 0;
				ended(rl, remote, "");
				return;
			}
		}
	}
}

static void established(struct raft_link *rl)
{
	loop_timer_stop(&rl->timer);
	rl->link->raft_failures = 0;
	METRICS_COUNT("skerry_peer_raft_links_total", "Raft links established, both directions", 1);
}

static bool go_there(struct raft_link *rl)
{
	struct peer_link *l = rl->link;
	struct stream_parcel *parcel = stream_pack(rl->stream);

	if (parcel == NULL) {
		return false;
	}
	rl->stream = NULL;
	rl->way = ++l->peer->next_way;
	if (rl->outbound) {
		link_connected_by(l->peer->cluster, rl->request, rl->way, parcel);
		rl->request = 0;
	} else {
		link_accepted_by(l->peer->cluster, l->id, l->address, rl->way, parcel);
	}
	return true;
}

/* Vetted: to libraft with it. What cannot move now, with bytes on their way, is pumped from here. */
static void hand_over(struct raft_link *rl)
{
	struct peer_link *l = rl->link;
	struct stream *local;
	struct err e = {0};
	int fd[2];

	if (go_there(rl)) {
		established(rl);
		return;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd) < 0) {
		fail(rl, "socketpair");
		return;
	}
	if (stream_from_fd(l->peer->loop, fd[1], &local, &e) < 0) {
		close(fd[0]);
		fail(rl, e.msg);
		return;
	}
	established(rl);
	rl->pump = peer_pump_new(local, rl->stream, on_pump_end, rl);
	rl->stream = NULL;
	if (rl->outbound) {
		answer(rl, fd[0]);
	} else {
		link_accepted(l->peer->cluster, l->id, l->address, fd[0]);
	}
}

static void dial(struct raft_link *rl);

/* A link on which nothing comes through vets nobody. */
static void on_vet_timer(void *arg)
{
	struct raft_link *rl = arg;
	struct peer_link *l = rl->link;

	if (clock_mono_ms() >= rl->vet_until_ms) {
		fail(rl, "the member was not vetted in time");
		return;
	}
	loop_timer_start(&rl->timer, l->peer->loop, PEER_SILENT_MS, on_vet_timer, rl);
	peer_link_renew(l, true);
}

static void wait_for_vet(struct raft_link *rl)
{
	struct peer_link *l = rl->link;

	rl->vet_until_ms = clock_mono_ms() + PEER_VET_MS;
	loop_timer_start(&rl->timer, l->peer->loop, PEER_SILENT_MS, on_vet_timer, rl);
	peer_link_renew(l, true);
	rl->need_seq = l->ask_seq + 1;
	/* Without a connection now: the first question of the next one vets. */
	IGNORE(peer_link_ask(l));
}

void peer_raft_vetted(struct peer_link *l)
{
	LIST_FOREACH_SAFE(&l->raft, it, tmp)
	{
		struct raft_link *rl = LIST_ENTRY(it, struct raft_link, node);

		if (rl->failed && l->vetted) {
			/* The member is back. */
			rl->failed = false;
			loop_timer_stop(&rl->timer);
			dial(rl);
			continue;
		}
		if (rl->stream == NULL || rl->need_seq > l->answer_seq) {
			continue;
		}
		if (l->vetted) {
			hand_over(rl);
		} else {
			fail(rl, l->stale ? "its log lacks what it had acknowledged"
					  : "the member was not vetted");
		}
	}
}

static void on_dialled(void *arg, struct stream *stream, size_t which, const struct err *err)
{
	struct raft_link *rl = arg;

	(void)which;
	rl->dial = NULL;
	if (stream == NULL) {
		fail(rl, err->msg);
		return;
	}
	rl->stream = stream;
	wait_for_vet(rl);
}

static void dial(struct raft_link *rl)
{
	struct peer_link *l = rl->link;
	struct dial_opts o = {.timeout_ms = PEER_DIAL_MS, .user_timeout_ms = 5000};
	struct tls_ctx *tls;
	struct err e = {0};

	if (peer_tls_client(l, PEER_ALPN_RAFT, &tls, &e) < 0) {
		fail(rl, e.msg);
		return;
	}
	o.tls = tls;
	rl->dial = peer_dial(l, &o, on_dialled, rl);
	tls_unref(tls);
}

/*
 * libraft never forgets whom it spoke to, and asks again at once for a link to a member that was removed when the last link
 * was gone already, for ever: the answer waits. A member that is just being added may be in raft's configuration before it is
 * in the table.
 */
struct unknown {
	struct list node;
	struct peer *peer;
	uint64_t request, id;
	struct loop_timer timer;
};

static void unknown_end(void *arg)
{
	struct unknown *u = arg;

	list_remove(&u->node);
	loop_timer_stop(&u->timer);
	link_connected(u->peer->cluster, u->request, ERR_NOT_FOUND);
	mem_free(u);
}

static void unknown_new(struct peer *p, uint64_t request, uint64_t id)
{
	struct unknown *u = MEM_NEW(struct unknown);

	u->peer = p;
	u->request = request;
	u->id = id;
	list_push(&p->unknown, &u->node);
	loop_timer_start(&u->timer, p->loop, PEER_UNKNOWN_MS, unknown_end, u);
}

static void begin(struct peer_link *l, uint64_t request)
{
	struct raft_link *rl;

	if (l->n_raft >= PEER_WAITING_MAX) {
		link_connected(l->peer->cluster, request, ERR_LIMIT);
		return;
	}
	rl = raft_link_new(l, true);
	rl->request = request;
	dial(rl);
}

void peer_raft_dial(struct peer *p, uint64_t request, uint64_t id)
{
	struct peer_link *l = peer_link_find(p, id);

	METRICS_COUNT("skerry_peer_raft_wishes_total", "Raft links that libraft asked for", 1);
	if (l == NULL) {
		unknown_new(p, request, id);
	} else {
		begin(l, request);
	}
}

void peer_raft_known(struct peer_link *l)
{
	LIST_FOREACH_SAFE(&l->peer->unknown, it, tmp)
	{
		struct unknown *u = LIST_ENTRY(it, struct unknown, node);
		uint64_t request = u->request;

		if (u->id != l->id) {
			continue;
		}
		list_remove(&u->node);
		loop_timer_stop(&u->timer);
		mem_free(u);
		begin(l, request);
	}
}

void peer_raft_stop(struct peer *p)
{
	while (!list_empty(&p->unknown)) {
		unknown_end(LIST_ENTRY(p->unknown.next, struct unknown, node));
	}
}

void peer_raft_accept(struct peer_link *l, struct stream *s)
{
	struct raft_link *rl;

	if (l->n_raft >= PEER_WAITING_MAX) {
		stream_abort(s);
		return;
	}
	rl = raft_link_new(l, false);
	rl->stream = s;
	wait_for_vet(rl);
}

void peer_raft_cut(struct peer_link *l)
{
	LIST_FOREACH_SAFE(&l->raft, it, tmp)
	{
		drop(LIST_ENTRY(it, struct raft_link, node));
	}
}
