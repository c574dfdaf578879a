/*
 * Sending a snapshot apart from everything else: connect, write, close.
 *
 *   DIALLING --way--> WRITING --all written--> DRAINING --with the kernel--> closed, freed
 *       \----- fails ----------- ends -------------/
 */
#include "cluster/raft_install.h"

#include "base/buf.h"
#include "base/mem.h"
#include "cluster/raft_net.h"
#include "cluster/raft_wire.h"
#include "net/stream.h"

enum { CHUNK = 64 << 10 };

struct raft_install {
	struct raft_net *net;
	uint64_t request;     /* DIALLING */
	struct raft_way *way; /* then */
	struct buf head;
	const uint8_t *data; /* borrowed */
	size_t len, at;
	bool starting, failed;
	void (*cb)(void *arg, int status);
	void *arg;
};

static void install_free(struct raft_install *i)
{
	buf_done(&i->head);
	mem_free(i);
}

static void end(struct raft_install *i, int status)
{
	void (*cb)(void *arg, int status) = i->cb;
	void *arg = i->arg;

	install_free(i);
	cb(arg, status);
}

/* As much as the connection takes; with the last piece it is to tell when nothing is left of it. */
static void go_on(struct raft_install *i)
{
	while (i->at < i->len && !stream_is_full(i->way->stream)) {
		size_t n = MIN(i->len - i->at, (size_t)CHUNK);

		if (i->at + n == i->len) {
			stream_set_limits(i->way->stream, 1, SIZE_MAX);
		}
		raft_way_write(i->way, i->data + i->at, n);
		i->at += n;
	}
}

static void on_writable(void *arg)
{
	struct raft_install *i = arg;

	if (i->at < i->len) {
		go_on(i);
		return;
	}
	raft_way_close(i->way, true);
	end(i, 0);
}

static void on_end(void *arg, const char *why)
{
	(void)why;
	end(arg, RAFT_IOERR);
}

static void on_data(void *arg, const uint8_t *data, size_t len)
{
	(void)arg; /* nothing is said here */
	(void)data;
	(void)len;
}

static const struct raft_way_user user = {
	.on_data = on_data,
	.on_writable = on_writable,
	.on_end = on_end,
};

static void on_dialled(void *arg, struct raft_way *way)
{
	struct raft_install *i = arg;

	i->request = 0;
	if (way == NULL) {
		if (i->starting) {
			i->failed = true;
		} else {
			end(i, RAFT_NOCONNECTION);
		}
		return;
	}
	i->way = way;
	raft_way_use(way, &user, i);
	if (i->len == 0) {
		stream_set_limits(way->stream, 1, SIZE_MAX);
	}
	raft_way_write(way, i->head.data, i->head.len);
	go_on(i);
}

int raft_install_start(struct raft_install **ret, struct raft_net *net,
		       const struct raft_message *m, void (*cb)(void *arg, int status), void *arg)
{
	struct raft_install *i = MEM_NEW(struct raft_install);
	int rv = wire_put(&i->head, m);

	if (rv == 0) {
		i->net = net;
		i->data = m->install_snapshot.data.base;
		i->len = m->install_snapshot.data.len;
		i->cb = cb;
		i->arg = arg;
		i->starting = true;
		raft_net_dial(net, m->server_id, m->server_address, on_dialled, i, &i->request);
		i->starting = false;
		rv = i->failed ? RAFT_NOCONNECTION : 0;
	}
	if (rv != 0) {
		install_free(i);
		return rv;
	}
	*ret = i;
	return 0;
}

void raft_install_cancel(struct raft_install *i)
{
	if (i == NULL) {
		return;
	}
	if (i->way != NULL) {
		raft_way_close(i->way, false);
	} else {
		raft_net_dial_cancel(i->net, i->request);
	}
	install_free(i);
}
