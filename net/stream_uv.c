#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/list.h"
#include "base/mem.h"
#include "net/loop_int.h"
#include "net/stream_int.h"

/*
 * Sockets on uv. Output is queued as segments and written once per loop turn (flush hook) with one
 * writev; what the kernel does not take goes on as a uv_write of the queue's head, one at a time.
 *
 * End: OPEN -> (stream_close) LINGER: the rest is sent, then shut down, then input is thrown away
 * until the other side closes or the linger timer fires (closing with unread input would send a
 * reset that can destroy our last bytes) -> CLOSING: uv_close -> destroyed.
 */

enum {
	SOCK_IOV = 64,
	SOCK_CHUNK_SMALL = 2048,
};

struct segment {
	struct list link;
	struct blob *blob; /* NULL: the bytes follow the struct */
	const uint8_t *data;
	size_t len, cap; /* cap: room of an own segment */
	bool block;      /* the loop's (loop_block_give) */
	size_t off;      /* sent */
};

struct sock {
	struct stream s;
	union {
		uv_handle_t handle;
		uv_stream_t stream;
		uv_tcp_t tcp;
		uv_pipe_t pipe;
	} uv;
	struct list out;
	size_t backlog;
	bool in_flight; /* `req` is running */
	size_t in_flight_bytes;
	bool lingering;
	bool shut; /* shutdown was asked */
	bool closing;
	uv_write_t req;
	uv_shutdown_t shut_req;
	struct flush_hook flush;
	struct loop_timer linger;
};

static struct sock *sock_of(const struct stream *s)
{
	return (struct sock *)container_of(s, struct sock, s);
}

/* loop NULL: it is kept by none. */
static void segment_free(struct loop *loop, struct segment *seg)
{
	if (seg->block && loop != NULL) {
		loop_block_give(loop, seg);
		return;
	}
	blob_unref(seg->blob);
	mem_free(seg);
}

static void sock_consume(struct sock *k, size_t n)
{
	k->backlog -= n;
	while (n > 0) {
		struct segment *seg = LIST_ENTRY(k->out.next, struct segment, link);
		size_t part = MIN(n, seg->len - seg->off);

		seg->off += part;
		n -= part;
		if (seg->off == seg->len) {
			list_remove(&seg->link);
			segment_free(k->s.loop, seg);
		}
	}
}

static void sock_on_closed(uv_handle_t *handle)
{
	struct sock *k = handle->data;

	stream_drop(&k->s);
}

static void sock_close_now(struct sock *k)
{
	if (k->closing) {
		return;
	}
	k->closing = true;
	loop_timer_stop(&k->linger);
	loop_flush_remove(&k->flush);
	uv_close(&k->uv.handle, sock_on_closed);
}

static void sock_fail(struct sock *k, int status, const char *what)
{
	struct err err = {0};

	if (k->s.closed) {
		sock_close_now(k);
		return;
	}
	if (status == UV_EOF || status == UV_ECONNRESET || status == UV_EPIPE) {
		err_set(&err, ERR_CLOSED, "%s",
			status == UV_EOF ? "the other side closed the connection"
					 : "the other side reset the connection");
	} else {
		err_set(&err, status, "%s: %s", what, uv_strerror(status));
	}
	stream_emit_end(&k->s, &err);
}

static void sock_on_linger(void *arg)
{
	sock_close_now(arg);
}

static void sock_alloc(uv_handle_t *handle, size_t want, uv_buf_t *ret)
{
	struct sock *k = handle->data;

	(void)want;
	ret->base = (char *)loop_scratch_read(k->s.loop);
	ret->len = LOOP_SCRATCH_READ;
}

static void sock_on_read(uv_stream_t *handle, ssize_t n, const uv_buf_t *data)
{
	struct sock *k = handle->data;

	if (n == 0) {
		return;
	}
	if (n < 0) {
		uv_read_stop(handle);
		sock_fail(k, (int)n, "read");
		return;
	}
	if (k->s.closed) {
		return; /* lingering: thrown away */
	}
	stream_hold(&k->s);
	stream_emit_data(&k->s, (const uint8_t *)data->base, (size_t)n);
	stream_drop(&k->s);
}

static void sock_on_shutdown(uv_shutdown_t *req, int status)
{
	struct sock *k = req->data;

	if (status != 0) {
		sock_close_now(k);
	}
}

static void sock_flush(void *arg);

static void sock_on_written(uv_write_t *req, int status)
{
	struct sock *k = req->data;

	k->in_flight = false;
	if (status != 0) {
		if (!k->closing) {
			sock_fail(k, status, "write");
		}
		return;
	}
	sock_consume(k, k->in_flight_bytes);
	stream_hold(&k->s);
	stream_emit_progress(&k->s);
	sock_flush(k);
	stream_drop(&k->s);
}

static unsigned sock_gather(struct sock *k, uv_buf_t *iov, size_t *ret_bytes)
{
	unsigned n = 0;
	size_t bytes = 0;

	LIST_FOREACH(&k->out, l)
	{
		struct segment *seg = LIST_ENTRY(l, struct segment, link);

		if (n == SOCK_IOV) {
			break;
		}
		iov[n++] =
			uv_buf_init((char *)seg->data + seg->off, (unsigned)(seg->len - seg->off));
		bytes += seg->len - seg->off;
	}
	*ret_bytes = bytes;
	return n;
}

static void sock_flush(void *arg)
{
	struct sock *k = arg;
	uv_buf_t iov[SOCK_IOV];
	size_t bytes;

	if (k->closing || k->in_flight) {
		return;
	}
	while (k->backlog > 0) {
		unsigned n = sock_gather(k, iov, &bytes);
		int rc = uv_try_write(&k->uv.stream, iov, n);

		if (rc > 0) {
			sock_consume(k, (size_t)rc);
			if ((size_t)rc == bytes) {
				continue;
			}
			n = sock_gather(k, iov, &bytes);
		} else if (rc != UV_EAGAIN && rc < 0) {
			sock_fail(k, rc, "write");
			return;
		}
		k->req.data = k;
		k->in_flight_bytes = bytes;
		k->in_flight = true;
		rc = uv_write(&k->req, &k->uv.stream, iov, n, sock_on_written);
		if (rc != 0) {
			k->in_flight = false;
			sock_fail(k, rc, "write");
			return;
		}
		break;
	}
	stream_emit_progress(&k->s);
	if (k->backlog == 0 && k->lingering && !k->shut) {
		k->shut = true;
		k->shut_req.data = k;
		if (uv_shutdown(&k->shut_req, &k->uv.stream, sock_on_shutdown) != 0) {
			sock_close_now(k);
		}
	}
}

static void sock_write(struct stream *s, const void *data, size_t len, struct blob *blob)
{
	struct sock *k = sock_of(s);
	struct segment *seg;

	k->backlog += len;
	loop_flush_add(s->loop, &k->flush);
	if (blob != NULL) {
		seg = MEM_NEW(struct segment);
		seg->blob = blob_ref(blob);
		seg->data = data;
		seg->len = len;
		list_push(&k->out, &seg->link);
		return;
	}
	if (!list_empty(&k->out)) {
		/* Appending is safe also while the segment is in flight: only bytes behind its
		 * gathered end change. */
		seg = LIST_ENTRY(k->out.prev, struct segment, link);
		if (seg->blob == NULL && seg->cap - seg->len > 0) {
			size_t part = MIN(len, seg->cap - seg->len);

			memcpy((uint8_t *)(seg + 1) + seg->len, data, part);
			seg->len += part;
			data = (const uint8_t *)data + part;
			len -= part;
		}
	}
	if (len == 0) {
		return;
	}
	size_t cap = list_empty(&k->out) && len <= SOCK_CHUNK_SMALL
			     ? SOCK_CHUNK_SMALL
			     : MAX(len, LOOP_BLOCK - sizeof(*seg));
	bool block = sizeof(*seg) + cap == LOOP_BLOCK;
	seg = block ? loop_block_take(s->loop) : mem_alloc(sizeof(*seg) + cap);
	memset(seg, 0, sizeof(*seg));
	seg->block = block;
	seg->data = (uint8_t *)(seg + 1);
	seg->len = len;
	seg->cap = cap;
	memcpy(seg + 1, data, len);
	list_push(&k->out, &seg->link);
}

static void sock_reading(struct stream *s, bool on)
{
	struct sock *k = sock_of(s);

	if (k->closing) {
		return;
	}
	if (on) {
		int rc = uv_read_start(&k->uv.stream, sock_alloc, sock_on_read);

		if (rc != 0 && rc != UV_EALREADY) {
			sock_fail(k, rc, "read");
		}
	} else {
		uv_read_stop(&k->uv.stream);
	}
}

static void sock_close(struct stream *s, bool linger)
{
	struct sock *k = sock_of(s);

	if (!linger) {
		sock_close_now(k);
		return;
	}
	k->lingering = true;
	loop_timer_start(&k->linger, s->loop, LIM_STREAM_LINGER_MS, sock_on_linger, k);
	loop_flush_add(s->loop, &k->flush);
	if (uv_read_start(&k->uv.stream, sock_alloc, sock_on_read) != 0) {
		sock_close_now(k);
	}
}

static size_t sock_backlog(const struct stream *s)
{
	return sock_of(s)->backlog;
}

static void sock_destroy(struct stream *s)
{
	struct sock *k = sock_of(s);
	struct list *l;

	while ((l = list_pop(&k->out)) != NULL) {
		segment_free(k->s.loop, LIST_ENTRY(l, struct segment, link));
	}
	mem_free(k);
}

/* ---- Moving to another loop ------------------------------------------------------------------ */

static struct stream_parcel *sock_pack(struct stream *s)
{
	struct sock *k = sock_of(s);
	struct stream_parcel *p;
	uv_os_fd_t fd;
	int copy;

	if (k->closing || k->in_flight || k->lingering || s->closed || s->ended ||
	    uv_fileno(&k->uv.handle, &fd) != 0 || (copy = fcntl(fd, F_DUPFD_CLOEXEC, 0)) < 0) {
		return NULL;
	}
	p = MEM_NEW(struct stream_parcel);
	p->fd = copy;
	list_init(&p->out);
	list_splice(&p->out, &k->out);
	p->backlog = k->backlog;
	k->backlog = 0;
	p->unread = s->unread;
	buf_init(&s->unread);
	p->peer = s->peer;
	p->local = s->local;
	memcpy(p->peer_text, s->peer_text, sizeof(p->peer_text));
	stream_abort(s); /* of this loop; the connection lives on by the copy */
	return p;
}

struct stream *stream_unpack_socket(struct loop *loop, struct stream_parcel *p)
{
	struct stream *s;
	struct sock *k;
	int fd = p->fd;

	p->fd = -1;
	if (stream_from_fd(loop, fd, &s, NULL) < 0) {
		return NULL;
	}
	k = sock_of(s);
	list_splice(&k->out, &p->out);
	k->backlog = p->backlog;
	if (k->backlog > 0) {
		loop_flush_add(loop, &k->flush);
	}
	s->unread = p->unread;
	buf_init(&p->unread);
	s->peer = p->peer;
	s->local = p->local;
	memcpy(s->peer_text, p->peer_text, sizeof(s->peer_text));
	return s;
}

void stream_parcel_done(struct stream_parcel *p)
{
	struct list *l;

	if (p->fd >= 0) {
		close(p->fd);
	}
	while ((l = list_pop(&p->out)) != NULL) {
		segment_free(NULL, LIST_ENTRY(l, struct segment, link));
	}
	buf_done(&p->unread);
	mem_free(p);
}

/* Bytes that TCP has not sent once. */
static int unsent(int fd)
{
	int n = 0;

	return ioctl(fd, SIOCOUTQNSD, &n) == 0 ? n : 0;
}

static bool sock_unanswered(const struct stream *s, unsigned ms, bool repeated)
{
	const struct sock *k = sock_of((struct stream *)s);
	struct tcp_info t;
	socklen_t len = sizeof(t);
	uv_os_fd_t fd;

	if (s->peer.is_unix || k->closing || uv_fileno(&k->uv.handle, &fd) != 0 ||
	    getsockopt(fd, IPPROTO_TCP, TCP_INFO, &t, &len) != 0) {
		return false;
	}
	if (repeated && (t.tcpi_retransmits == 0 || unsent(fd) > STALLED_BYTES)) {
		return false;
	}
	return t.tcpi_unacked > 0 && t.tcpi_last_data_sent > ms + 2 * t.tcpi_rtt / 1000;
}

static const struct stream_ops sock_ops = {
	.write = sock_write,
	.reading = sock_reading,
	.close = sock_close,
	.backlog = sock_backlog,
	.destroy = sock_destroy,
	.pack = sock_pack,
	.unanswered = sock_unanswered,
};

static void sock_read_addresses(struct sock *k, int fd, int family)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);

	if (family == AF_UNIX) {
		struct ucred cred;
		socklen_t cred_len = sizeof(cred);

		k->s.peer.is_unix = true;
		k->s.peer.uid = (uid_t)-1;
		k->s.peer.gid = (gid_t)-1;
		if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &cred_len) == 0) {
			k->s.peer.uid = cred.uid;
			k->s.peer.gid = cred.gid;
			k->s.peer.pid = cred.pid;
		}
	} else {
		if (getpeername(fd, (struct sockaddr *)&ss, &len) == 0) {
			(void)ipport_from_sockaddr((struct sockaddr *)&ss, &k->s.peer.addr);
		}
		len = sizeof(ss);
		if (getsockname(fd, (struct sockaddr *)&ss, &len) == 0) {
			(void)ipport_from_sockaddr((struct sockaddr *)&ss, &k->s.local);
		}
	}
	stream_describe(&k->s);
}

int stream_from_fd(struct loop *loop, int fd, struct stream **ret_stream, struct err *err)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	int one = 1;
	int rc;

	if (getsockname(fd, (struct sockaddr *)&ss, &len) != 0) {
		rc = -errno;
		close(fd);
		return err_set(err, rc, "not a socket: %s", strerror(-rc));
	}
	struct sock *k = MEM_NEW(struct sock);
	stream_init(&k->s, &sock_ops, loop);
	list_init(&k->out);
	k->flush.run = sock_flush;
	k->flush.arg = k;
	sock_read_addresses(k, fd, ss.ss_family);
	if (ss.ss_family == AF_UNIX) {
		rc = uv_pipe_init(loop_uv(loop), &k->uv.pipe, 0);
		k->uv.handle.data = k;
		rc = rc != 0 ? rc : uv_pipe_open(&k->uv.pipe, fd);
	} else {
		rc = uv_tcp_init(loop_uv(loop), &k->uv.tcp);
		k->uv.handle.data = k;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		rc = rc != 0 ? rc : uv_tcp_open(&k->uv.tcp, fd);
	}
	if (rc != 0) {
		close(fd);
		sock_close_now(k);
		return err_set(err, rc, "socket: %s", uv_strerror(rc));
	}
	*ret_stream = &k->s;
	return 0;
}
