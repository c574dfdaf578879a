/* Events of the peer side, posted to the raft thread. */
#include <unistd.h>

#include "base/mem.h"
#include "cluster/cluster_int.h"
#include "net/stream.h"

struct link_event {
	struct cluster *c;
	enum { CONNECTED, ACCEPTED, CUT, LOST, VOUCHED, ASKED, CLOCKS, CHANGE } kind;
	uint64_t request, id, way, term, asked_ms;
	int fd;
	struct stream_parcel *parcel; /* in place of fd */
	bool agree;
	int64_t skew_ms;
	char *address;
	enum consensus_change change;
	struct loop *loop;
	link_change_cb cb;
	void *arg;
	struct err err;
};

static void event_free(struct link_event *e)
{
	mem_free(e->address);
	mem_free(e);
}

static void change_fire(void *arg)
{
	struct link_event *e = arg;

	e->cb(e->arg, &e->err);
	event_free(e);
}

static void on_changed(void *arg, const struct err *err)
{
	struct link_event *e = arg;

	e->err = *err;
	loop_post_reply(e->loop, change_fire, e);
}

static void event_drop(struct link_event *e)
{
	if (e->kind == CONNECTED || e->kind == ACCEPTED) {
		if (e->fd >= 0) {
			close(e->fd);
		}
		stream_parcel_free(e->parcel);
	} else if (e->kind == CHANGE) {
		err_set(&e->err, ERR_NOT_LEADER, "this lighthouse stops");
		loop_post_reply(e->loop, change_fire, e);
		return;
	}
	event_free(e);
}

/* What came with it, on this loop from now on; NULL: nothing did, or it is gone. */
static struct stream *event_stream(struct cluster *c, struct link_event *e)
{
	struct stream *stream = NULL;

	if (e->parcel != NULL) {
		stream = stream_unpack(c->loop, e->parcel);
		if (stream == NULL) {
			c->ops->ended(c->ops_impl, e->way, true);
		}
	} else if (e->fd >= 0 && stream_from_fd(c->loop, e->fd, &stream, NULL) < 0) {
		return NULL;
	}
	return stream;
}

static void on_event(void *arg)
{
	struct link_event *e = arg;
	struct cluster *c = e->c;
	struct stream *stream;

	if (c->stopping || c->cs == NULL) {
		event_drop(e);
		return;
	}
	switch (e->kind) {
	case CONNECTED: consensus_connected(c->cs, e->request, e->way, event_stream(c, e)); break;
	case ACCEPTED:
		stream = event_stream(c, e);
		if (stream != NULL) {
			consensus_accepted(c->cs, e->id, e->address, e->way, stream);
		}
		break;
	case CUT: consensus_cut(c->cs, e->way); break;
	case LOST: consensus_leader_lost(c->cs, e->id); break;
	case VOUCHED: consensus_leader_vouched(c->cs, e->id, e->term, e->asked_ms); break;
	case ASKED: consensus_leader_asked(c->cs, e->id, e->term); break;
	case CLOCKS: consensus_clocks_agree(c->cs, e->agree, e->skew_ms); break;
	case CHANGE: consensus_change(c->cs, e->change, e->id, e->address, on_changed, e); return;
	}
	event_free(e);
}

static void event_post(struct cluster *c, struct link_event event)
{
	struct link_event *e = mem_memdup(&event, sizeof(event));

	e->c = c;
	e->address = mem_strdup(event.address);
	loop_post_reply(c->loop, on_event, e);
}

void link_connected(struct cluster *c, uint64_t request, int fd)
{
	event_post(c, (struct link_event){.kind = CONNECTED, .request = request, .fd = fd});
}

void link_accepted(struct cluster *c, uint64_t id, const char *address, int fd)
{
	event_post(c, (struct link_event){
			      .kind = ACCEPTED, .id = id, .address = (char *)address, .fd = fd});
}

void link_connected_by(struct cluster *c, uint64_t request, uint64_t way,
		       struct stream_parcel *parcel)
{
	event_post(c, (struct link_event){.kind = CONNECTED,
					  .request = request,
					  .way = way,
					  .fd = ERR_CLOSED,
					  .parcel = parcel});
}

void link_accepted_by(struct cluster *c, uint64_t id, const char *address, uint64_t way,
		      struct stream_parcel *parcel)
{
	event_post(c, (struct link_event){.kind = ACCEPTED,
					  .id = id,
					  .address = (char *)address,
					  .way = way,
					  .fd = ERR_CLOSED,
					  .parcel = parcel});
}

void link_cut(struct cluster *c, uint64_t way)
{
	event_post(c, (struct link_event){.kind = CUT, .way = way});
}

void link_leader_lost(struct cluster *c, uint64_t id)
{
	event_post(c, (struct link_event){.kind = LOST, .id = id});
}

void link_leader_vouched(struct cluster *c, uint64_t id, uint64_t term, uint64_t asked_ms)
{
	event_post(c, (struct link_event){
			      .kind = VOUCHED, .id = id, .term = term, .asked_ms = asked_ms});
}

void link_leader_asked(struct cluster *c, uint64_t id, uint64_t term)
{
	event_post(c, (struct link_event){.kind = ASKED, .id = id, .term = term});
}

void link_clocks_agree(struct cluster *c, bool agree, int64_t skew_ms)
{
	event_post(c, (struct link_event){.kind = CLOCKS, .agree = agree, .skew_ms = skew_ms});
}

static void change_post(struct cluster *c, enum consensus_change change, struct loop *loop,
			uint64_t id, const char *address, link_change_cb cb, void *arg)
{
	event_post(c, (struct link_event){.kind = CHANGE,
					  .change = change,
					  .id = id,
					  .address = (char *)address,
					  .loop = loop,
					  .cb = cb,
					  .arg = arg});
}

void link_add(struct cluster *c, struct loop *loop, uint64_t id, const char *address,
	      link_change_cb cb, void *arg)
{
	change_post(c, CONSENSUS_ADD, loop, id, address, cb, arg);
}

void link_demote(struct cluster *c, struct loop *loop, uint64_t id, link_change_cb cb, void *arg)
{
	change_post(c, CONSENSUS_DEMOTE, loop, id, NULL, cb, arg);
}

void link_promote(struct cluster *c, struct loop *loop, uint64_t id, link_change_cb cb, void *arg)
{
	change_post(c, CONSENSUS_PROMOTE, loop, id, NULL, cb, arg);
}

void link_remove(struct cluster *c, struct loop *loop, uint64_t id, link_change_cb cb, void *arg)
{
	change_post(c, CONSENSUS_REMOVE, loop, id, NULL, cb, arg);
}

void link_transfer(struct cluster *c, struct loop *loop, uint64_t id, link_change_cb cb, void *arg)
{
	change_post(c, CONSENSUS_TRANSFER, loop, id, NULL, cb, arg);
}
