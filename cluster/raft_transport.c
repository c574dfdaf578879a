/* A raft_uv_transport over file descriptors that somebody else connects. */
#include "cluster/raft_transport.h"

#include <unistd.h>

#include "base/mem.h"

/* libraft frees a stream by raft_free; uv_pipe_t is what holds one end of a socketpair. */
static uv_stream_t *stream_open(struct raft_transport *t, int fd)
{
	uv_pipe_t *pipe = raft_malloc(sizeof(*pipe));

	if (pipe == NULL) {
		close(fd);
		return NULL;
	}
	if (uv_pipe_init(t->loop, pipe, 0) != 0) {
		raft_free(pipe);
		close(fd);
		return NULL;
	}
	if (uv_pipe_open(pipe, fd) != 0) {
		close(fd);
		uv_close((uv_handle_t *)pipe, (uv_close_cb)raft_free);
		return NULL;
	}
	return (uv_stream_t *)pipe;
}

struct pending {
	struct list node;
	uint64_t request;
	struct raft_uv_connect *req;
};

static void pending_fire(struct pending *p, uv_stream_t *stream, int status)
{
	struct raft_uv_connect *req = p->req;

	list_remove(&p->node);
	mem_free(p);
	req->cb(req, stream, status);
}

static int op_init(struct raft_uv_transport *ut, raft_id id, const char *address)
{
	(void)ut;
	(void)id;
	(void)address;
	return 0;
}

static int op_listen(struct raft_uv_transport *ut, raft_uv_accept_cb cb)
{
	struct raft_transport *t = ut->impl;

	t->accept = cb;
	return 0;
}

static int op_connect(struct raft_uv_transport *ut, struct raft_uv_connect *req, raft_id id,
		      const char *address, raft_uv_connect_cb cb)
{
	struct raft_transport *t = ut->impl;
	struct pending *p;

	if (t->closing) {
		return RAFT_CANCELED;
	}
	p = MEM_NEW(struct pending);
	p->request = ++t->next_request;
	p->req = req;
	req->cb = cb;
	list_push(&t->pending, &p->node);
	t->connect(t->arg, p->request, id, address);
	return 0;
}

static void on_closed(uv_handle_t *h)
{
	struct raft_transport *t = h->data;

	t->close_cb(&t->t);
}

static void op_close(struct raft_uv_transport *ut, raft_uv_transport_close_cb cb)
{
	struct raft_transport *t = ut->impl;

	t->closing = true;
	t->close_cb = cb;
	while (!list_empty(&t->pending)) {
		pending_fire(LIST_ENTRY(t->pending.next, struct pending, node), NULL,
			     RAFT_CANCELED);
	}
	uv_close((uv_handle_t *)&t->closer, on_closed);
}

void raft_transport_init(struct raft_transport *t, uv_loop_t *loop,
			 void (*connect)(void *arg, uint64_t request, uint64_t id,
					 const char *address),
			 void *arg)
{
	*t = (struct raft_transport){.loop = loop, .connect = connect, .arg = arg};
	t->t.version = 1;
	t->t.impl = t;
	t->t.init = op_init;
	t->t.listen = op_listen;
	t->t.connect = op_connect;
	t->t.close = op_close;
	list_init(&t->pending);
	uv_idle_init(loop, &t->closer);
	t->closer.data = t;
}

void raft_transport_connected(struct raft_transport *t, uint64_t request, int fd)
{
	LIST_FOREACH(&t->pending, it)
	{
		struct pending *p = LIST_ENTRY(it, struct pending, node);
		uv_stream_t *stream;

		if (p->request != request) {
			continue;
		}
		stream = fd >= 0 ? stream_open(t, fd) : NULL;
		pending_fire(p, stream, stream != NULL ? 0 : RAFT_NOCONNECTION);
		return;
	}
	if (fd >= 0) {
		close(fd);
	}
}

void raft_transport_accepted(struct raft_transport *t, uint64_t id, const char *address, int fd)
{
	uv_stream_t *stream;

	if (t->closing || t->accept == NULL) {
		close(fd);
		return;
	}
	stream = stream_open(t, fd);
	if (stream != NULL) {
		t->accept(&t->t, id, address, stream);
	}
}
