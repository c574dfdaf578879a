#include "net/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "net/listen_int.h"
#include "net/loop.h"
#include "net/stream_int.h"
#include "net/tls.h"

/*
 * A connection on its way in:
 *
 *   accept -> allow list, limits -> [PROXY header -> allow list, limits] -> [TLS handshake] ->
 * handed over
 *
 * All that a stranger can make us do before he is known stands in this order: cheap things first.
 */

enum { ACCEPT_BATCH = 64, PROXY_HEAD_MAX = 536, BACKLOG = 511 };

struct incoming {
	struct list link;
	struct listener *listener;
	struct stream *stream; /* before TLS */
	struct tls_handshake *handshake;
	struct loop_timer timer;
	struct buf head; /* of the PROXY header */
	uint64_t deadline;
};

struct listener {
	struct loop *loop;
	struct listener_opts opts;
	struct prefix *allow_from, *proxy_from;
	listener_cb cb;
	void *arg;
	uv_poll_t poll;
	bool polling; /* the handle is open */
	bool freed;
	int fd;
	int spare; /* given up for a moment when descriptors run out */
	uint16_t port;
	char text[128];
	char unix_path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	struct list incoming;
	struct sources *sources;
	struct loop_timer resume;
};

/* ---- Per source ------------------------------------------------------------------------------ */

static bool in_any(const struct prefix *list, size_t n, const struct ipaddr *addr)
{
	for (size_t i = 0; i < n; i++) {
		if (prefix_contains(&list[i], addr)) {
			return true;
		}
	}
	return false;
}

/* Judges a source address and, if it may come in, ties the stream to its count. */
static bool admit(struct listener *l, struct stream *stream)
{
	const struct ipaddr *addr = &stream->peer.addr.addr;
	bool by_default = l->opts.per_address == 0 && l->opts.handshakes_per_s == 0;

	if (l->opts.n_allow_from > 0 && !stream->peer.is_unix &&
	    !in_any(l->allow_from, l->opts.n_allow_from, addr)) {
		METRICS_COUNT("skerry_listen_not_allowed_total",
			      "Connections from addresses outside allow_from.", 1);
		return false;
	}
	bool limited = !l->opts.exempt_limits && !stream->peer.is_unix &&
		       !(by_default && ipaddr_is_loopback(addr));
	return sources_enter(
		l->sources, stream, limited,
		l->opts.per_address != 0 ? l->opts.per_address : LIM_CONNS_PER_SOURCE,
		l->opts.handshakes_per_s != 0 ? l->opts.handshakes_per_s : LIM_HANDSHAKES_PER_SEC,
		l->opts.max_conns != 0 ? l->opts.max_conns : LIM_CONNS, loop_now(l->loop));
}

/* ---- On the way in --------------------------------------------------------------------------- */

static void incoming_free(struct incoming *in)
{
	loop_timer_stop(&in->timer);
	list_remove(&in->link);
	if (in->handshake != NULL) {
		tls_handshake_cancel(in->handshake);
	}
	stream_abort(in->stream);
	buf_done(&in->head);
	mem_free(in);
}

static void incoming_hand_over(struct incoming *in, struct stream *stream)
{
	struct listener *l = in->listener;

	in->stream = NULL;
	incoming_free(in);
	METRICS_COUNT("skerry_listen_accepted_total", "Connections accepted, handshake included.",
		      1);
	l->cb(l->arg, stream);
}

static void incoming_on_tls(void *arg, struct stream *stream, const struct err *err)
{
	struct incoming *in = arg;

	(void)err;
	in->handshake = NULL;
	if (stream == NULL) {
		METRICS_COUNT("skerry_listen_handshakes_failed_total",
			      "TLS handshakes that failed.", 1);
		incoming_free(in);
		return;
	}
	incoming_hand_over(in, stream);
}

static void incoming_admitted(struct incoming *in)
{
	struct listener *l = in->listener;
	struct stream *stream = in->stream;

	loop_timer_stop(&in->timer);
	if (l->opts.tls == NULL) {
		incoming_hand_over(in, stream);
		return;
	}
	struct tls_ctx *ctx = tls_slot_get(l->opts.tls);
	uint64_t now = loop_now(l->loop);
	in->stream = NULL;
	in->handshake = tls_accept(stream, ctx, in->deadline > now ? in->deadline - now : 1,
				   incoming_on_tls, in);
	tls_unref(ctx);
}

static void incoming_on_timeout(void *arg)
{
	METRICS_COUNT("skerry_listen_timeouts_total",
		      "Connections that sent no PROXY header in time.", 1);
	incoming_free(arg);
}

static void incoming_on_proxy_data(void *arg, const uint8_t *data, size_t len)
{
	struct incoming *in = arg;
	struct stream *stream = in->stream;
	struct ipport from = {.port = 0};
	bool local = false;
	size_t before = in->head.len; /* bytes of earlier pieces */

	buf_append(&in->head, data, MIN(len, PROXY_HEAD_MAX + 1 - before));
	int n = proxy_parse(in->head.data, in->head.len, &from, &local);
	if (n == 0 && in->head.len <= PROXY_HEAD_MAX) {
		return; /* not complete */
	}
	if (n <= 0) {
		METRICS_COUNT("skerry_listen_bad_proxy_total",
			      "Connections with a wrong PROXY header.", 1);
		incoming_free(in);
		return;
	}
	/* What follows the header is in this piece: the earlier ones were not enough. */
	size_t used_now = (size_t)n - before;
	stream_set_handler(stream, NULL, NULL);
	stream_unread(stream, data + used_now, len - used_now);
	if (!local) {
		stream->peer.addr = from;
		stream->peer.proxied = true;
		stream_describe(stream);
	}
	if (!admit(in->listener, stream)) {
		incoming_free(in);
		return;
	}
	incoming_admitted(in);
}

static void incoming_on_proxy_close(void *arg, const struct err *err)
{
	struct incoming *in = arg;

	(void)err;
	in->stream = NULL;
	incoming_free(in);
}

static const struct stream_handler proxy_handler = {
	.on_data = incoming_on_proxy_data,
	.on_close = incoming_on_proxy_close,
};

static void take(struct listener *l, int fd)
{
	struct stream *stream;

	if (stream_from_fd(l->loop, fd, &stream, NULL) != 0) {
		return;
	}
	bool proxied = l->opts.n_proxy_from > 0 && !stream->peer.is_unix &&
		       in_any(l->proxy_from, l->opts.n_proxy_from, &stream->peer.addr.addr);
	if (!proxied && !admit(l, stream)) {
		stream_abort(stream);
		return;
	}
	struct incoming *in = MEM_NEW(struct incoming);
	uint64_t ms = l->opts.handshake_ms != 0 ? l->opts.handshake_ms : LIM_HANDSHAKE_MS;
	in->listener = l;
	in->stream = stream;
	list_push(&l->incoming, &in->link);
	loop_timer_start(&in->timer, l->loop, ms, incoming_on_timeout, in);
	in->deadline = in->timer.due;
	if (proxied) {
		stream_set_handler(stream, &proxy_handler, in);
	} else {
		incoming_admitted(in);
	}
}

/* ---- Accepting ------------------------------------------------------------------------------- */

static void on_acceptable(uv_poll_t *poll, int status, int events);

static void on_resume(void *arg)
{
	struct listener *l = arg;

	if (l->polling) {
		uv_poll_start(&l->poll, UV_READABLE, on_acceptable);
	}
}

/* Without descriptors: one waiting connection is taken and dropped by the spare, then accepting
 * pauses for a moment. */
static void out_of_descriptors(struct listener *l)
{
	METRICS_COUNT("skerry_listen_no_descriptors_total",
		      "Times that accepting paused for want of file descriptors.", 1);
	if (l->spare >= 0) {
		close(l->spare);
		int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0) {
			close(fd);
		}
		l->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
	}
	uv_poll_stop(&l->poll);
	loop_timer_start(&l->resume, l->loop, 100, on_resume, l);
}

static void on_acceptable(uv_poll_t *poll, int status, int events)
{
	struct listener *l = poll->data;

	(void)status;
	(void)events;
	for (int i = 0; i < ACCEPT_BATCH && l->polling; i++) {
		int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0) {
			if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
			    errno == ENOMEM) {
				out_of_descriptors(l);
			}
			if (errno != EINTR && errno != ECONNABORTED) {
				return;
			}
			continue;
		}
		take(l, fd);
	}
}

/* ---- Binding --------------------------------------------------------------------------------- */

static int bind_error(struct err *err, const char *address)
{
	int e = errno;

	switch (e) {
	case EADDRINUSE:
		return err_set(err, ERR_EXISTS,
			       "%s: the address is in use; is another program, or another Skerry, "
			       "listening there?",
			       address);
	case EACCES:
	case EPERM:
		return err_set(err, ERR_DENIED,
			       "%s: not permitted: ports below 1024 need CAP_NET_BIND_SERVICE",
			       address);
	case EADDRNOTAVAIL:
		return err_set(err, ERR_INVALID, "%s: this machine has no such address", address);
	default: return err_set(err, -e, "%s: %s", address, strerror(e));
	}
}

static int bind_unix(struct listener *l, const char *path, struct err *err)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	mode_t mode = l->opts.unix_mode != 0 ? l->opts.unix_mode : 0660;

	if (path[0] != '/' || strlen(path) >= sizeof(un.sun_path)) {
		return err_set(err, ERR_INVALID,
			       "unix:%s: an absolute path of at most %zu bytes is needed", path,
			       sizeof(un.sun_path) - 1);
	}
	strcpy(un.sun_path, path);
	l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (l->fd < 0) {
		return bind_error(err, path);
	}
	/* A socket file that nobody listens on is left over from a crash. */
	struct stat st;
	if (lstat(path, &st) == 0) {
		if (!S_ISSOCK(st.st_mode)) {
			return err_set(err, ERR_EXISTS, "%s exists and is not a socket: remove it",
				       path);
		}
		int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		int rc = connect(probe, (struct sockaddr *)&un, sizeof(un));
		int e = errno;
		close(probe);
		if (rc == 0 || e == EAGAIN) {
			return err_set(err, ERR_EXISTS,
				       "%s: another process is listening on this socket", path);
		}
		unlink(path);
	}
	mode_t old = umask(0177);
	int rc = bind(l->fd, (struct sockaddr *)&un, sizeof(un));
	int e = errno;
	umask(old);
	if (rc != 0) {
		return e == ENOENT ? err_set(err, ERR_NOT_FOUND, "%s: the directory does not exist",
					     path)
				   : err_set(err, e == EACCES ? ERR_DENIED : -e, "%s: %s", path,
					     strerror(e));
	}
	snprintf(l->unix_path, sizeof(l->unix_path), "%s", path);
	if (l->opts.unix_group != NULL) {
		struct group *gr = getgrnam(l->opts.unix_group);

		if (gr == NULL) {
			return err_set(err, ERR_NOT_FOUND,
				       "%s: there is no group %s; create it: groupadd --system %s",
				       path, l->opts.unix_group, l->opts.unix_group);
		}
		if (chown(path, (uid_t)-1, gr->gr_gid) != 0) {
			return err_set(err, -errno, "%s: group %s: %s", path, l->opts.unix_group,
				       strerror(errno));
		}
	}
	if (chmod(path, mode) != 0) {
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	}
	return 0;
}

static int bind_ip(struct listener *l, const char *address, struct err *err)
{
	struct ipport ip = {.port = 0};
	struct sockaddr_storage ss;
	bool both = address[0] == ':' && address[1] != ':';
	char text[96];
	int one = 1, zero = 0;

	if (both) {
		snprintf(text, sizeof(text), "[::]%s", address);
	}
	if (ipport_parse(both ? text : address, &ip, err) != 0) {
		err_prefix(err, "listen address %.100s", address);
		return ERR_INVALID;
	}
	socklen_t len = ipport_to_sockaddr(&ip, &ss);
	l->fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (l->fd < 0 && both && errno == EAFNOSUPPORT) {
		snprintf(text, sizeof(text), "0.0.0.0%s", address);
		if (ipport_parse(text, &ip, err) != 0) {
			return ERR_INVALID;
		}
		len = ipport_to_sockaddr(&ip, &ss);
		l->fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		both = false;
	}
	if (l->fd < 0) {
		return bind_error(err, address);
	}
	setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (ss.ss_family == AF_INET6) {
		setsockopt(l->fd, IPPROTO_IPV6, IPV6_V6ONLY, both ? &zero : &one, sizeof(one));
	}
	if (bind(l->fd, (struct sockaddr *)&ss, len) != 0) {
		return bind_error(err, address);
	}
	return 0;
}

static void note_port(struct listener *l, const char *address)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	struct ipport ip;
	char text[IPPORT_TEXT];

	snprintf(l->text, sizeof(l->text), "%s", address);
	if (getsockname(l->fd, (struct sockaddr *)&ss, &len) == 0 &&
	    ipport_from_sockaddr((struct sockaddr *)&ss, &ip)) {
		l->port = ip.port;
		snprintf(l->text, sizeof(l->text), "%s", ipport_format(&ip, text));
	}
}

/* ---- Life ------------------------------------------------------------------------------------ */

static void listener_release(struct listener *l)
{
	sources_unref(l->sources);
	mem_free(l->allow_from);
	mem_free(l->proxy_from);
	mem_free((void *)l->opts.unix_group);
	mem_free(l);
}

static void on_poll_closed(uv_handle_t *handle)
{
	struct listener *l = handle->data;

	handle->data = NULL;
	if (l->freed) {
		listener_release(l);
	}
}

int listener_new(struct loop *loop, const struct listener_opts *opts, listener_cb cb, void *arg,
		 struct listener **ret_listener, struct err *err)
{
	struct listener *l = MEM_NEW(struct listener);
	int rc;

	l->loop = loop;
	l->opts = *opts;
	l->opts.unix_group = mem_strdup(opts->unix_group);
	l->allow_from =
		mem_memdup(opts->allow_from, opts->n_allow_from * sizeof(*opts->allow_from));
	l->proxy_from =
		mem_memdup(opts->proxy_from, opts->n_proxy_from * sizeof(*opts->proxy_from));
	l->cb = cb;
	l->arg = arg;
	l->fd = -1;
	l->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
	l->sources = sources_new();
	list_init(&l->incoming);
	if (strncmp(opts->address, "unix:", 5) == 0) {
		rc = bind_unix(l, opts->address + 5, err);
	} else {
		rc = bind_ip(l, opts->address, err);
	}
	if (rc == 0 && listen(l->fd, BACKLOG) != 0) {
		rc = bind_error(err, opts->address);
	}
	if (rc == 0) {
		rc = uv_poll_init(loop_uv(loop), &l->poll, l->fd);
	}
	if (rc != 0) {
		if (l->fd >= 0) {
			close(l->fd);
		}
		if (l->spare >= 0) {
			close(l->spare);
		}
		listener_release(l);
		return rc;
	}
	note_port(l, opts->address);
	l->opts.address = NULL;
	l->poll.data = l;
	l->polling = true;
	uv_poll_start(&l->poll, UV_READABLE, on_acceptable);
	*ret_listener = l;
	return 0;
}

void listener_stop(struct listener *l)
{
	if (!l->polling) {
		return;
	}
	l->polling = false;
	loop_timer_stop(&l->resume);
	uv_close((uv_handle_t *)&l->poll, on_poll_closed);
	close(l->fd);
	if (l->spare >= 0) {
		close(l->spare);
	}
	if (l->unix_path[0] != '\0') {
		unlink(l->unix_path);
	}
}

void listener_free(struct listener *l)
{
	if (l == NULL) {
		return;
	}
	listener_stop(l);
	while (!list_empty(&l->incoming)) {
		incoming_free(LIST_ENTRY(l->incoming.next, struct incoming, link));
	}
	l->freed = true;
	if (l->poll.data == NULL) {
		listener_release(l);
	}
}

uint16_t listener_port(const struct listener *l)
{
	return l->port;
}

const char *listener_text(const struct listener *l)
{
	return l->text;
}
