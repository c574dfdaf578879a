/* libraft's links on the raft thread; way_int.h says why. */
#include "cluster/way_int.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "cluster/cluster_int.h"
#include "cluster/peer_pump.h"
#include "net/stream.h"

struct way {
	struct list node; /* cluster.ways */
	struct cluster *c;
	uint64_t id;
	struct peer_pump *pump;
};

static void on_end(void *arg, bool remote, const struct err *why)
{
	struct way *w = arg;
	struct cluster *c = w->c;

	LOG_DEBUG("raft link %llu ended by %s: %s", (unsigned long long)w->id,
		  remote ? "the member" : "libraft", why != NULL ? why->msg : "");
	list_remove(&w->node);
	if (!c->stopping) {
		c->ops->ended(c->ops_impl, w->id, remote);
	}
	mem_free(w);
}

int way_open(struct cluster *c, uint64_t id, struct stream_parcel *parcel)
{
	struct stream *local, *remote;
	struct way *w;
	int fd[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd) < 0) {
		stream_parcel_free(parcel);
		return -errno;
	}
	remote = stream_unpack(c->loop, parcel);
	if (remote == NULL) {
		close(fd[0]);
		close(fd[1]);
		return ERR_CLOSED;
	}
	if (stream_from_fd(c->loop, fd[1], &local, NULL) < 0) {
		stream_abort(remote);
		close(fd[0]);
		return ERR_CLOSED;
	}
	w = MEM_NEW(struct way);
	w->c = c;
	w->id = id;
	w->pump = peer_pump_new(local, remote, on_end, w);
	list_push(&c->ways, &w->node);
	return fd[0];
}

static void way_free(struct way *w)
{
	list_remove(&w->node);
	peer_pump_free(w->pump);
	mem_free(w);
}

void way_cut(struct cluster *c, uint64_t id)
{
	LIST_FOREACH(&c->ways, it)
	{
		struct way *w = LIST_ENTRY(it, struct way, node);

		if (w->id == id) {
			way_free(w);
			return;
		}
	}
}

void ways_renew(struct cluster *c)
{
	LIST_FOREACH_SAFE(&c->ways, it, tmp)
	{
		struct way *w = LIST_ENTRY(it, struct way, node);

		if (peer_pump_stalled(w->pump)) {
			METRICS_COUNT("skerry_peer_raft_links_renewed_total",
				      "Raft links made anew as TCP was stuck on them", 1);
			LOG_DEBUG("raft link %llu is stuck", (unsigned long long)w->id);
			c->ops->ended(c->ops_impl, w->id, true);
			way_free(w);
		}
	}
}

void ways_free(struct cluster *c)
{
	while (!list_empty(&c->ways)) {
		way_free(LIST_ENTRY(c->ways.next, struct way, node));
	}
}
