#include "net/udp.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <uv.h>

#include "base/mem.h"
#include "net/loop.h"

enum { UDP_MAX = 65535 };

struct udp {
	uv_udp_t handle;
	udp_cb cb;
	void *arg;
	struct ipport local;
};

/* Callbacks borrow it until they return, and a thread receives one datagram at a time. */
static _Thread_local uint8_t udp_rx[UDP_MAX];

static void udp_closed(uv_handle_t *h)
{
	mem_free(container_of((uv_udp_t *)h, struct udp, handle));
}

static void udp_alloc(uv_handle_t *h, size_t hint, uv_buf_t *buf)
{
	(void)h;
	(void)hint;
	*buf = uv_buf_init((char *)udp_rx, sizeof(udp_rx));
}

static void udp_read(uv_udp_t *h, ssize_t n, const uv_buf_t *buf, const struct sockaddr *addr,
		     unsigned flags)
{
	struct udp *u = container_of(h, struct udp, handle);
	struct ipport from;

	/* n < 0 is an ICMP error of an earlier datagram: the sender's timeouts deal with it. */
	if (n < 0 || !addr || (flags & UV_UDP_PARTIAL) || !ipport_from_sockaddr(addr, &from))
		return;
	u->cb(u->arg, &from, (const uint8_t *)buf->base, (size_t)n);
}

int udp_open(struct loop *loop, const struct ipport *local, udp_cb cb, void *arg,
	     struct udp **ret_udp, struct err *err)
{
	struct sockaddr_storage ss;
	struct sockaddr_storage bound;
	char text[IPPORT_TEXT];
	struct udp *u;
	int len = sizeof(bound);
	int rc;

	if (!ipport_to_sockaddr(local, &ss))
		return err_set(err, ERR_INVALID, "UDP socket without an address");
	u = mem_zalloc(sizeof(*u));
	u->cb = cb;
	u->arg = arg;
	rc = uv_udp_init(loop_uv(loop), &u->handle);
	if (rc) {
		mem_free(u);
		return err_set(err, rc, "UDP socket: %s", uv_strerror(rc));
	}
	rc = uv_udp_bind(&u->handle, (struct sockaddr *)&ss,
			 local->addr.family == 6 ? UV_UDP_IPV6ONLY : 0);
	if (!rc)
		rc = uv_udp_getsockname(&u->handle, (struct sockaddr *)&bound, &len);
	if (!rc)
		rc = uv_udp_recv_start(&u->handle, udp_alloc, udp_read);
	if (rc) {
		uv_close((uv_handle_t *)&u->handle, udp_closed);
		return err_set(err, rc, "UDP %s: %s", ipport_format(local, text), uv_strerror(rc));
	}
	if (!ipport_from_sockaddr((struct sockaddr *)&bound, &u->local))
		IMPOSSIBLE("address family of a bound UDP socket");
	*ret_udp = u;
	return 0;
}

int udp_send(struct udp *udp, const struct ipport *to, const void *data, size_t len)
{
	struct sockaddr_storage ss;
	uv_buf_t b = uv_buf_init((char *)(uintptr_t)data, (unsigned)len);
	int rc;

	PRE(len <= UDP_MAX);
	if (!ipport_to_sockaddr(to, &ss))
		return -EINVAL;
	rc = uv_udp_try_send(&udp->handle, &b, 1, (struct sockaddr *)&ss);
	return rc < 0 ? rc : 0;
}

void udp_local(const struct udp *udp, struct ipport *ret)
{
	*ret = udp->local;
}

int udp_set_mark(struct udp *udp, uint32_t mark)
{
	uv_os_fd_t fd;
	int rc = uv_fileno((uv_handle_t *)&udp->handle, &fd);

	if (rc)
		return rc;
	return setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) ? -errno : 0;
}

void udp_close(struct udp *udp)
{
	if (!udp)
		return;
	uv_close((uv_handle_t *)&udp->handle, udp_closed);
}
