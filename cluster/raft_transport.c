/* A raft_uv_transport without connections. */
#include "cluster/raft_transport.h"

static int op_init(struct raft_uv_transport *ut, raft_id id, const char *address)
{
	(void)ut;
	(void)id;
	(void)address;
	return 0;
}

static int op_listen(struct raft_uv_transport *ut, raft_uv_accept_cb cb)
{
	(void)ut;
	(void)cb;
	return 0;
}

static int op_connect(struct raft_uv_transport *ut, struct raft_uv_connect *req, raft_id id,
		      const char *address, raft_uv_connect_cb cb)
{
	(void)ut;
	(void)req;
	(void)id;
	(void)address;
	(void)cb;
	return RAFT_NOCONNECTION;
}

static void on_closed(uv_handle_t *h)
{
	struct raft_transport *t = h->data;

	t->close_cb(&t->t);
}

static void op_close(struct raft_uv_transport *ut, raft_uv_transport_close_cb cb)
{
	struct raft_transport *t = ut->impl;

	t->close_cb = cb;
	uv_close((uv_handle_t *)&t->closer, on_closed);
}

void raft_transport_init(struct raft_transport *t, uv_loop_t *loop)
{
	*t = (struct raft_transport){.t = {.version = 1,
					   .impl = t,
					   .init = op_init,
					   .listen = op_listen,
					   .connect = op_connect,
					   .close = op_close}};
	uv_idle_init(loop, &t->closer);
	t->closer.data = t;
}
