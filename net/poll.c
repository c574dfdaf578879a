#include "net/poll.h"

#include <uv.h>

#include "base/mem.h"
#include "net/loop.h"

struct loop_poll {
	uv_poll_t handle;
	void (*cb)(void *arg);
	void *arg;
};

struct loop_signal {
	uv_signal_t handle;
	void (*cb)(void *arg, int signum);
	void *arg;
};

static void poll_closed(uv_handle_t *h)
{
	mem_free(container_of((uv_poll_t *)h, struct loop_poll, handle));
}

static void poll_event(uv_poll_t *h, int status, int events)
{
	struct loop_poll *p = container_of(h, struct loop_poll, handle);

	/* A failure is read from the descriptor by its owner. */
	(void)status;
	(void)events;
	p->cb(p->arg);
}

struct loop_poll *loop_poll_new(struct loop *loop, int fd, void (*cb)(void *arg), void *arg)
{
	struct loop_poll *p = mem_zalloc(sizeof(*p));

	p->cb = cb;
	p->arg = arg;
	if (uv_poll_init(loop_uv(loop), &p->handle, fd)) {
		mem_free(p);
		return NULL;
	}
	if (uv_poll_start(&p->handle, UV_READABLE, poll_event)) {
		uv_close((uv_handle_t *)&p->handle, poll_closed);
		return NULL;
	}
	return p;
}

void loop_poll_free(struct loop_poll *poll)
{
	if (!poll)
		return;
	uv_poll_stop(&poll->handle);
	uv_close((uv_handle_t *)&poll->handle, poll_closed);
}

static void signal_closed(uv_handle_t *h)
{
	mem_free(container_of((uv_signal_t *)h, struct loop_signal, handle));
}

static void signal_event(uv_signal_t *h, int signum)
{
	struct loop_signal *s = container_of(h, struct loop_signal, handle);

	s->cb(s->arg, signum);
}

struct loop_signal *loop_signal_new(struct loop *loop, int signum,
				    void (*cb)(void *arg, int signum), void *arg)
{
	struct loop_signal *s = mem_zalloc(sizeof(*s));

	s->cb = cb;
	s->arg = arg;
	PRE(uv_signal_init(loop_uv(loop), &s->handle) == 0);
	PRE(uv_signal_start(&s->handle, signal_event, signum) == 0);
	return s;
}

void loop_signal_free(struct loop_signal *signal)
{
	if (!signal)
		return;
	uv_signal_stop(&signal->handle);
	uv_close((uv_handle_t *)&signal->handle, signal_closed);
}
