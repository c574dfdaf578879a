#include "net/dial.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/list.h"
#include "base/mem.h"
#include "net/loop.h"
#include "net/stream.h"
#include "net/tls.h"

/*
 * A dial races targets, a target races its addresses; both with the same stagger, and both go on at
 * once when what was started has failed.
 *
 *   target:  WAITING -its turn-> RESOLVING -> CONNECTING (attempts) -> FAILED
 *   attempt: connect() -> TLS handshake -> the winner ends the dial
 */

enum target_state {
	TARGET_WAITING,
	TARGET_RESOLVING,
	TARGET_CONNECTING,
	TARGET_FAILED,
};

struct target {
	struct dial *dial;
	size_t index;
	char *text;
	char host[256];
	uint16_t port;
	bool tls;
	bool is_unix;
	enum target_state state;
	struct sockaddr_storage addrs[LIM_DIAL_ADDRESSES];
	socklen_t addr_lens[LIM_DIAL_ADDRESSES];
	size_t n_addrs, next_addr;
	size_t running; /* attempts under way */
	struct loop_timer stagger;
	struct resolve *resolve;
	struct err last;
};

struct attempt {
	struct list link;
	struct target *target; /* NULL when given up */
	uv_poll_t poll;
	int fd; /* -1 after it went to a stream */
	char text[64];
	struct tls_handshake *handshake;
	bool over; /* given up, or the winner */
	bool poll_closed;
};

struct resolve {
	uv_getaddrinfo_t req;
	struct target *target; /* NULL when given up */
};

struct dial {
	struct loop *loop;
	struct dial_opts opts;
	char *server_name, *device;
	struct target *targets;
	size_t n_targets, next_target;
	struct list attempts;
	struct loop_timer start, timeout, stagger;
	uint64_t deadline;
	dial_cb cb;
	void *arg;
};

/* ---- Targets --------------------------------------------------------------------------------- */

static int split_authority(const char *text, uint16_t default_port, char *ret_host,
			   uint16_t *ret_port, struct err *err)
{
	char copy[300];
	size_t len = strlen(text);

	if (len > 0 && text[len - 1] == '/') {
		len--; /* "https://host/" is what people paste */
	}
	if (len == 0 || len >= sizeof(copy)) {
		return err_set(err, ERR_INVALID, "no host");
	}
	memcpy(copy, text, len);
	copy[len] = '\0';
	if (strpbrk(copy, "/?#@ ") != NULL) {
		return err_set(err, ERR_INVALID, "a path, query or user is not allowed");
	}
	int rc = hostport_parse(copy, default_port, ret_host, 256, ret_port, err);
	if (rc == 0 && *ret_port == 0) {
		rc = err_set(err, ERR_INVALID, "port 0 cannot be dialled");
	}
	return rc;
}

int dial_parse(const char *text, char *ret_host, uint16_t *ret_port, bool *ret_tls, struct err *err)
{
	char host[256];
	uint16_t port = 0;
	bool tls = false;
	int rc = 0;

	if (strncmp(text, "unix:", 5) == 0) {
		struct sockaddr_un un;

		if (text[5] != '/' || strlen(text + 5) >= sizeof(un.sun_path)) {
			return err_set(err, ERR_INVALID,
				       "%s: a Unix socket is given as unix:/absolute/path (at most "
				       "%zu bytes)",
				       text, sizeof(un.sun_path) - 1);
		}
		snprintf(host, sizeof(host), "%s", text + 5);
	} else if (strncmp(text, "https://", 8) == 0) {
		tls = true;
		rc = split_authority(text + 8, 443, host, &port, err);
	} else if (strncmp(text, "http://", 7) == 0) {
		rc = split_authority(text + 7, 80, host, &port, err);
	} else if (strstr(text, "://") != NULL) {
		return err_set(err, ERR_INVALID,
			       "%s: only https://, http://, unix: and host:port can be dialled",
			       text);
	} else {
		rc = split_authority(text, 0, host, &port, err);
	}
	if (rc != 0) {
		err_prefix(err, "%.200s", text);
		return rc;
	}
	if (ret_host != NULL) {
		strcpy(ret_host, host);
	}
	if (ret_port != NULL) {
		*ret_port = port;
	}
	if (ret_tls != NULL) {
		*ret_tls = tls;
	}
	return 0;
}

/* ---- End ------------------------------------------------------------------------------------- */

/* Its memory goes when it is over and uv has let go of its handle. */
static void attempt_on_closed(uv_handle_t *handle)
{
	struct attempt *a = handle->data;

	a->poll_closed = true;
	if (a->over) {
		mem_free(a);
	}
}

/* Gives the attempt up (or ends the winner). */
static void attempt_end(struct attempt *a)
{
	a->over = true;
	if (a->target != NULL) {
		a->target->running--;
		a->target = NULL;
	}
	list_remove(&a->link);
	if (a->handshake != NULL) {
		tls_handshake_cancel(a->handshake);
		a->handshake = NULL;
	}
	if (!uv_is_closing((uv_handle_t *)&a->poll)) {
		uv_close((uv_handle_t *)&a->poll, attempt_on_closed);
	}
	if (a->fd >= 0) {
		close(a->fd);
		a->fd = -1;
	}
	if (a->poll_closed) {
		mem_free(a);
	}
}

static void dial_free(struct dial *d)
{
	while (!list_empty(&d->attempts)) {
		attempt_end(LIST_ENTRY(d->attempts.next, struct attempt, link));
	}
	for (size_t i = 0; i < d->n_targets; i++) {
		struct target *t = &d->targets[i];

		loop_timer_stop(&t->stagger);
		if (t->resolve != NULL) {
			t->resolve->target = NULL;
			uv_cancel((uv_req_t *)&t->resolve->req);
		}
		mem_free(t->text);
	}
	loop_timer_stop(&d->start);
	loop_timer_stop(&d->timeout);
	loop_timer_stop(&d->stagger);
	tls_unref(d->opts.tls);
	mem_free(d->server_name);
	mem_free(d->device);
	mem_free(d->targets);
	mem_free(d);
}

static void dial_finish(struct dial *d, struct stream *stream, size_t which, const struct err *err)
{
	dial_cb cb = d->cb;
	void *arg = d->arg;

	dial_free(d);
	cb(arg, stream, which, err);
}

static void dial_fail(struct dial *d, bool late)
{
	struct err err = {0};
	struct buf text = BUF_INIT;
	int code = 0;

	for (size_t i = 0; i < d->n_targets; i++) {
		const struct target *t = &d->targets[i];

		if (t->state == TARGET_WAITING) {
			continue;
		}
		if (t->last.code == 0) {
			buf_printf(&text, "%s%s: no answer", text.len > 0 ? "; " : "", t->text);
			continue;
		}
		code = t->last.code;
		buf_printf(&text, "%s%s: %s", text.len > 0 ? "; " : "", t->text, t->last.msg);
	}
	if (late || code == 0) {
		code = late ? ERR_DEADLINE : ERR_UNAVAILABLE;
	}
	err_set(&err, code, "%s", text.len > 0 ? buf_str(&text) : "nothing to dial");
	for (size_t i = 0; i < d->n_targets; i++) {
		if (d->targets[i].last.reason[0] != '\0') {
			memcpy(err.reason, d->targets[i].last.reason, sizeof(err.reason));
		}
	}
	buf_done(&text);
	dial_finish(d, NULL, 0, &err);
}

static void dial_on_timeout(void *arg)
{
	dial_fail(arg, true);
}

/* ---- Progress -------------------------------------------------------------------------------- */

static void dial_next_target(struct dial *d);
static void target_next_addr(struct target *t);

/* Something of the target failed: its next address, the next target, or the end. May free the dial.
 */
static void target_step(struct target *t)
{
	struct dial *d = t->dial;

	if (t->next_addr < t->n_addrs) {
		target_next_addr(t);
		return;
	}
	if (t->running > 0 || t->state == TARGET_RESOLVING) {
		return;
	}
	t->state = TARGET_FAILED;
	bool alive = false;
	for (size_t i = 0; i < d->n_targets; i++) {
		alive |= d->targets[i].state == TARGET_RESOLVING ||
			 d->targets[i].state == TARGET_CONNECTING;
	}
	if (d->next_target < d->n_targets) {
		if (!alive) {
			dial_next_target(d);
		}
	} else if (!alive) {
		dial_fail(d, false);
	}
}

static void attempt_fail(struct attempt *a, const struct err *err)
{
	struct target *t = a->target;

	t->last = *err;
	attempt_end(a);
	target_step(t);
}

static void attempt_on_tls(void *arg, struct stream *stream, const struct err *err)
{
	struct attempt *a = arg;
	struct target *t = a->target;

	a->handshake = NULL;
	if (stream == NULL) {
		attempt_fail(a, err);
		return;
	}
	dial_finish(t->dial, stream, t->index, NULL);
}

static void attempt_connected(struct attempt *a)
{
	struct target *t = a->target;
	struct dial *d = t->dial;
	struct stream *stream;
	struct err err = {0};
	int fd = a->fd;

	a->fd = -1;
	uv_close((uv_handle_t *)&a->poll, attempt_on_closed);
	if (stream_from_fd(d->loop, fd, &stream, &err) != 0) {
		attempt_fail(a, &err);
		return;
	}
	if (!t->tls) {
		dial_finish(d, stream, t->index, NULL);
		return;
	}
	uint64_t now = loop_now(d->loop);
	a->handshake = tls_connect(stream, d->opts.tls,
				   d->server_name != NULL ? d->server_name : t->host,
				   d->deadline > now ? d->deadline - now : 1, attempt_on_tls, a);
}

static void attempt_on_poll(uv_poll_t *poll, int status, int events)
{
	struct attempt *a = poll->data;
	struct err err = {0};
	int soerr = 0;
	socklen_t len = sizeof(soerr);

	(void)events;
	/* uv says EBADF for every error of the socket: the socket knows better. */
	if (getsockopt(a->fd, SOL_SOCKET, SO_ERROR, &soerr, &len) == 0 &&
	    (status == 0 || soerr != 0)) {
		status = -soerr;
	}
	if (status != 0) {
		err_reason(&err, ERR_UNAVAILABLE,
			   status == -ECONNREFUSED ? "CONNECTION_REFUSED" : "", "%s: %s", a->text,
			   strerror(-status));
		attempt_fail(a, &err);
		return;
	}
	uv_poll_stop(poll);
	attempt_connected(a);
}

static void set_options(const struct dial *d, int fd, int family)
{
	int one = 1, idle = 15, interval = 5, count = 3;
	unsigned user_timeout = d->opts.user_timeout_ms != 0 ? d->opts.user_timeout_ms : 15000;

	if (d->opts.mark != 0) {
		setsockopt(fd, SOL_SOCKET, SO_MARK, &d->opts.mark, sizeof(d->opts.mark));
	}
	if (d->device != NULL) {
		setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, d->device,
			   (socklen_t)strlen(d->device) + 1);
	}
	if (family == AF_UNIX) {
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof(user_timeout));
	if (!d->opts.no_keepalive) {
		setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
		setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
		setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
		setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	}
}

static void target_on_stagger(void *arg)
{
	struct target *t = arg;

	if (t->next_addr < t->n_addrs) {
		target_next_addr(t);
	}
}

static uint64_t stagger_ms(const struct dial *d)
{
	return d->opts.stagger_ms != 0 ? d->opts.stagger_ms : 250;
}

static void describe(const struct sockaddr_storage *ss, const char *host, char out[64])
{
	struct ipport ip;
	char text[IPPORT_TEXT];

	if (ipport_from_sockaddr((const struct sockaddr *)ss, &ip)) {
		snprintf(out, 64, "%s", ipport_format(&ip, text));
	} else {
		snprintf(out, 64, "%.60s", host);
	}
}

/* Starts to connect to the next address. May free the dial. */
static void target_next_addr(struct target *t)
{
	struct dial *d = t->dial;
	const struct sockaddr_storage *ss = &t->addrs[t->next_addr];
	socklen_t len = t->addr_lens[t->next_addr];
	struct attempt *a;
	char text[64];
	int fd, rc;

	t->next_addr++;
	loop_timer_stop(&t->stagger);
	if (t->next_addr < t->n_addrs) {
		loop_timer_start(&t->stagger, d->loop, stagger_ms(d), target_on_stagger, t);
	}
	describe(ss, t->host, text);
	fd = socket(ss->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		err_set(&t->last, -errno, "%s: %s", text, strerror(errno));
		target_step(t);
		return;
	}
	set_options(d, fd, ss->ss_family);
	rc = connect(fd, (const struct sockaddr *)ss, len);
	if (rc != 0 && errno != EINPROGRESS) {
		err_set(&t->last, ERR_UNAVAILABLE, "%s: %s", text, strerror(errno));
		close(fd);
		target_step(t);
		return;
	}
	a = MEM_NEW(struct attempt);
	a->target = t;
	a->fd = fd;
	strcpy(a->text, text);
	a->poll.data = a;
	t->running++;
	list_push(&d->attempts, &a->link);
	if (uv_poll_init(loop_uv(d->loop), &a->poll, fd) != 0) {
		IMPOSSIBLE("uv_poll_init on a socket");
	}
	uv_poll_start(&a->poll, UV_WRITABLE, attempt_on_poll);
}

/* ---- Names ----------------------------------------------------------------------------------- */

static void target_add_addr(struct target *t, const struct sockaddr *sa, socklen_t len)
{
	if (t->n_addrs < LIM_DIAL_ADDRESSES && len <= sizeof(t->addrs[0])) {
		memcpy(&t->addrs[t->n_addrs], sa, len);
		t->addr_lens[t->n_addrs++] = len;
	}
}

/* Families in turns (RFC 8305 §4), beginning with the resolver's first choice. */
static void target_add_interleaved(struct target *t, const struct addrinfo *all)
{
	const struct addrinfo *next[2] = {all, all};
	int family[2] = {all->ai_family, all->ai_family == AF_INET ? AF_INET6 : AF_INET};
	bool more = true;

	while (more) {
		more = false;
		for (int i = 0; i < 2; i++) {
			while (next[i] != NULL && next[i]->ai_family != family[i]) {
				next[i] = next[i]->ai_next;
			}
			if (next[i] != NULL) {
				target_add_addr(t, next[i]->ai_addr, next[i]->ai_addrlen);
				next[i] = next[i]->ai_next;
				more = true;
			}
		}
	}
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *all)
{
	struct resolve *r = req->data;
	struct target *t = r->target;

	mem_free(r);
	if (t == NULL) {
		uv_freeaddrinfo(all);
		return;
	}
	t->resolve = NULL;
	t->state = TARGET_CONNECTING;
	if (status == 0 && all != NULL) {
		target_add_interleaved(t, all);
	} else {
		err_set(&t->last, ERR_RESOLVE, "the name %s cannot be resolved: %s", t->host,
			uv_strerror(status));
	}
	uv_freeaddrinfo(all);
	target_step(t);
}

static void target_resolve(struct target *t)
{
	struct dial *d = t->dial;
	struct ipport ip = {.port = t->port};
	char service[8];
	const struct addrinfo hints = {
		.ai_socktype = SOCK_STREAM,
		.ai_family = AF_UNSPEC,
		.ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV,
	};

	if (t->is_unix) {
		struct sockaddr_un un = {.sun_family = AF_UNIX};

		memcpy(un.sun_path, t->host, strlen(t->host) + 1);
		target_add_addr(t, (struct sockaddr *)&un, sizeof(un));
		t->state = TARGET_CONNECTING;
		target_step(t);
		return;
	}
	if (ipaddr_parse(t->host, &ip.addr, NULL) == 0) {
		struct sockaddr_storage ss;
		socklen_t len = ipport_to_sockaddr(&ip, &ss);

		target_add_addr(t, (struct sockaddr *)&ss, len);
		t->state = TARGET_CONNECTING;
		target_step(t);
		return;
	}
	snprintf(service, sizeof(service), "%u", (unsigned)t->port);
	struct resolve *r = MEM_NEW(struct resolve);
	r->req.data = r;
	r->target = t;
	t->resolve = r;
	t->state = TARGET_RESOLVING;
	int rc = uv_getaddrinfo(loop_uv(d->loop), &r->req, on_resolved, t->host, service, &hints);
	if (rc != 0) {
		t->resolve = NULL;
		mem_free(r);
		err_set(&t->last, ERR_RESOLVE, "the name %s cannot be resolved: %s", t->host,
			uv_strerror(rc));
		t->state = TARGET_CONNECTING;
		target_step(t);
	}
}

static void dial_on_stagger(void *arg)
{
	dial_next_target(arg);
}

/* Starts the next target. May free the dial. */
static void dial_next_target(struct dial *d)
{
	struct target *t = &d->targets[d->next_target++];

	loop_timer_stop(&d->stagger);
	if (d->next_target < d->n_targets) {
		loop_timer_start(&d->stagger, d->loop, stagger_ms(d), dial_on_stagger, d);
	}
	t->state = TARGET_CONNECTING;
	if (dial_parse(t->text, t->host, &t->port, &t->tls, &t->last) != 0) {
		target_step(t);
		return;
	}
	t->is_unix = strncmp(t->text, "unix:", 5) == 0;
	if (strstr(t->text, "://") == NULL && !t->is_unix) {
		t->tls = d->opts.tls != NULL;
	}
	if (t->tls && d->opts.tls == NULL) {
		err_set(&t->last, ERR_INVALID, "TLS is not set up for this connection");
		target_step(t);
		return;
	}
	target_resolve(t);
}

/* ---- Public ---------------------------------------------------------------------------------- */

static void dial_on_start(void *arg)
{
	struct dial *d = arg;

	if (d->n_targets == 0) {
		dial_fail(d, false);
		return;
	}
	dial_next_target(d);
}

struct dial *dial_race(struct loop *loop, const char *const *targets, size_t n,
		       const struct dial_opts *opts, dial_cb cb, void *arg)
{
	struct dial *d = MEM_NEW(struct dial);

	d->loop = loop;
	if (opts != NULL) {
		d->opts = *opts;
	}
	if (d->opts.tls != NULL) {
		tls_ref(d->opts.tls);
	}
	d->server_name = mem_strdup(d->opts.server_name);
	d->device = mem_strdup(d->opts.device);
	d->n_targets = MIN(n, (size_t)LIM_DIAL_TARGETS);
	d->targets = mem_calloc(d->n_targets + 1, sizeof(*d->targets));
	for (size_t i = 0; i < d->n_targets; i++) {
		d->targets[i].dial = d;
		d->targets[i].index = i;
		d->targets[i].text = mem_strdup(targets[i]);
	}
	list_init(&d->attempts);
	d->cb = cb;
	d->arg = arg;
	uint64_t timeout = d->opts.timeout_ms != 0 ? d->opts.timeout_ms : LIM_DIAL_MS;
	loop_timer_start(&d->timeout, loop, timeout, dial_on_timeout, d);
	d->deadline = d->timeout.due;
	loop_timer_start(&d->start, loop, 0, dial_on_start, d);
	return d;
}

struct dial *dial_start(struct loop *loop, const char *target, const struct dial_opts *opts,
			dial_cb cb, void *arg)
{
	return dial_race(loop, &target, 1, opts, cb, arg);
}

void dial_cancel(struct dial *d)
{
	if (d != NULL) {
		dial_free(d);
	}
}
