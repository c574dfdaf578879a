/*
 * The UAPI protocol of wireguard-go: "get=1\n\n" and "set=1\nkey=value\n...\n\n" over a Unix socket, answered by lines and
 * "errno=N\n\n". What the daemon does not understand it answers by closing the connection, so an end without errno is an
 * error. Peers are brought on by difference only: replace_peers would drop every session.
 */
#include "agent/wg.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/enc.h"
#include "base/limits.h"
#include "base/mem.h"

enum {
	ANSWER_MAX = 64 << 20, /* 16,384 peers with all their prefixes are about 8 MiB */
	OPS_PER_SET = 256,
	START_MS = 3000, /* for wireguard-go to come up; it takes 20 to 40 ms */
};

/* Where wireguard-go puts its sockets, unless it was built otherwise: no option of it changes that. */
#define BUILT_IN_DIR "/var/run/wireguard"

struct wg_uapi {
	struct wg wg;
	char *path;
	unsigned timeout_ms;
};

/* ---- Text ---------------------------------------------------------------------------------------------------------- */

static void key_line(struct buf *out, const char *name, const uint8_t key[32])
{
	buf_printf(out, "%s=", name);
	hex_append(out, key, 32);
	buf_u8(out, '\n');
}

static void format_peer(const struct mesh_op *op, struct buf *out)
{
	const struct mesh_peer *p = op->peer;
	unsigned touch = op->kind == MESH_PEER_ADD ? ~0u : op->touch;
	char text[IPPORT_TEXT];

	key_line(out, "public_key", p->key);
	if (op->kind == MESH_PEER_REMOVE) {
		buf_append_str(out, "remove=true\n");
		return;
	}
	if (op->kind == MESH_PEER_UPDATE) {
		/* A peer that went away meanwhile stays away. */
		buf_append_str(out, "update_only=true\n");
	}
	if ((touch & MESH_TOUCH_ENDPOINT) && p->endpoint.addr.family != 0) {
		buf_printf(out, "endpoint=%s\n", ipport_format(&p->endpoint, text));
	}
	if (touch & MESH_TOUCH_KEEPALIVE) {
		buf_printf(out, "persistent_keepalive_interval=%u\n", p->keepalive_s);
	}
	if (op->kind == MESH_PEER_ADD || (touch & MESH_TOUCH_ALLOW_REPLACE)) {
		buf_append_str(out, "replace_allowed_ips=true\n");
	}
	if (touch & (MESH_TOUCH_ALLOW_MORE | MESH_TOUCH_ALLOW_REPLACE)) {
		for (size_t i = 0; i < p->n_allowed; i++) {
			char prefix[PREFIX_TEXT];

			buf_printf(out, "allowed_ip=%s\n", prefix_format(&p->allowed[i], prefix));
		}
	}
}

void wg_uapi_format(const struct mesh *wanted, const struct mesh_op *ops, size_t n, struct buf *out)
{
	buf_append_str(out, "set=1\n");
	for (size_t i = 0; i < n; i++) {
		switch (ops[i].kind) {
		case MESH_SET_KEY: key_line(out, "private_key", wanted->private_key); break;
		case MESH_SET_PORT: buf_printf(out, "listen_port=%u\n", wanted->listen_port); break;
		case MESH_PEER_REMOVE:
		case MESH_PEER_UPDATE:
		case MESH_PEER_ADD: format_peer(&ops[i], out); break;
		case MESH_SET_MTU:
		case MESH_ADDR_ADD:
		case MESH_LINK_UP:
		case MESH_ROUTE_ADD:
		case MESH_ROUTE_DEL:
		case MESH_ADDR_DEL:
		case MESH_LINK_DOWN: break;
		}
	}
	buf_u8(out, '\n');
}

/* One line of an answer, split at '='. */
struct line {
	const char *key;
	size_t key_len;
	const char *value;
	size_t value_len;
};

static bool next_line(const char **pos, const char *end, struct line *ret)
{
	const char *nl, *eq;

	if (*pos >= end) {
		return false;
	}
	nl = memchr(*pos, '\n', (size_t)(end - *pos));
	if (nl == NULL || nl == *pos) {
		return false;
	}
	eq = memchr(*pos, '=', (size_t)(nl - *pos));
	if (eq == NULL) {
		return false;
	}
	*ret = (struct line){*pos, (size_t)(eq - *pos), eq + 1, (size_t)(nl - eq - 1)};
	*pos = nl + 1;
	return true;
}

static bool key_is(const struct line *l, const char *key)
{
	return l->key_len == strlen(key) && memcmp(l->key, key, l->key_len) == 0;
}

static bool value_number(const struct line *l, uint64_t max, uint64_t *ret)
{
	uint64_t v = 0;

	if (l->value_len == 0 || l->value_len > 20) {
		return false;
	}
	for (size_t i = 0; i < l->value_len; i++) {
		unsigned digit = (unsigned)(l->value[i] - '0');

		if (digit > 9 || v > (UINT64_MAX - digit) / 10) {
			return false;
		}
		v = v * 10 + digit;
	}
	*ret = v;
	return v <= max;
}

static bool value_key(const struct line *l, uint8_t ret[32])
{
	return l->value_len == 64 && hex_decode(l->value, 64, ret, 32) == 32;
}

static const char *value_text(const struct line *l, char *out, size_t cap)
{
	if (l->value_len >= cap) {
		return NULL;
	}
	memcpy(out, l->value, l->value_len);
	out[l->value_len] = '\0';
	return out;
}

static bool peer_line(const struct line *l, struct mesh_peer *p)
{
	char text[64];
	uint64_t number;
	struct prefix prefix;

	if (key_is(l, "endpoint")) {
		/* A zone ("%eth0") in a link-local endpoint is nothing we ever set: taken as none. */
		if (memchr(l->value, '%', l->value_len) != NULL) {
			return true;
		}
		return value_text(l, text, sizeof(text)) != NULL &&
		       ipport_parse(text, &p->endpoint, NULL) >= 0;
	}
	if (key_is(l, "allowed_ip")) {
		if (value_text(l, text, sizeof(text)) == NULL ||
		    prefix_parse(text, &prefix, NULL) < 0) {
			return false;
		}
		mesh_peer_allow(p, &prefix);
		return true;
	}
	if (key_is(l, "last_handshake_time_sec")) {
		if (!value_number(l, INT64_MAX / 2000, &number)) {
			return false;
		}
		p->handshake_ms += (int64_t)number * 1000;
		return true;
	}
	if (key_is(l, "last_handshake_time_nsec")) {
		if (!value_number(l, 999999999, &number)) {
			return false;
		}
		p->handshake_ms += (int64_t)number / 1000000;
		return true;
	}
	if (key_is(l, "tx_bytes")) {
		return value_number(l, UINT64_MAX, &p->tx_bytes);
	}
	if (key_is(l, "rx_bytes")) {
		return value_number(l, UINT64_MAX, &p->rx_bytes);
	}
	if (key_is(l, "persistent_keepalive_interval")) {
		if (!value_number(l, UINT16_MAX, &number)) {
			return false;
		}
		p->keepalive_s = (uint16_t)number;
	}
	return true; /* preshared_key, protocol_version and what newer daemons say */
}

static int parse_errno(const struct line *l, int *ret)
{
	bool minus = l->value_len > 0 && l->value[0] == '-';
	struct line number = *l;
	uint64_t v;

	number.value += minus;
	number.value_len -= minus;
	if (!value_number(&number, 4095, &v)) {
		return ERR_PROTOCOL;
	}
	*ret = (int)v;
	return 0;
}

int wg_uapi_parse(const char *text, size_t len, struct mesh *ret, struct err *e)
{
	const char *pos = text, *end = text + len;
	struct mesh_peer *peer = NULL;
	struct mesh m = {0};
	struct line l;
	uint64_t number;
	int answer = -1;

	while (next_line(&pos, end, &l)) {
		bool good = true;

		if (key_is(&l, "errno")) {
			good = parse_errno(&l, &answer) >= 0;
		} else if (key_is(&l, "public_key")) {
			uint8_t key[32];

			good = value_key(&l, key);
			if (good) {
				peer = mesh_add_peer(&m, key);
			}
		} else if (peer != NULL) {
			good = peer_line(&l, peer);
		} else if (key_is(&l, "private_key")) {
			good = value_key(&l, m.private_key);
		} else if (key_is(&l, "listen_port")) {
			good = value_number(&l, UINT16_MAX, &number);
			m.listen_port = (uint16_t)number;
		}
		if (!good) {
			mesh_done(&m);
			return err_set(e, ERR_PROTOCOL,
				       "wireguard-go says \"%.*s\", which cannot be",
				       (int)MIN(l.key_len, (size_t)40), l.key);
		}
	}
	if (answer != 0) {
		mesh_done(&m);
		return answer < 0
			       ? err_set(e, ERR_UNAVAILABLE, "wireguard-go ended its answer early")
			       : err_set(e, ERR_UNKNOWN,
					 "wireguard-go refused to tell its state (errno %d)",
					 answer);
	}
	mesh_sort(&m);
	secret_wipe(ret->private_key, sizeof(ret->private_key));
	memcpy(ret->private_key, m.private_key, sizeof(ret->private_key));
	ret->listen_port = m.listen_port;
	for (size_t i = 0; i < ret->n_peers; i++) {
		mem_free(ret->peers[i].allowed);
	}
	mem_free(ret->peers);
	ret->peers = m.peers;
	ret->n_peers = m.n_peers;
	ret->cap_peers = m.cap_peers;
	secret_wipe(m.private_key, sizeof(m.private_key));
	return 0;
}

/* ---- The socket ---------------------------------------------------------------------------------------------------- */

static int uapi_connect(const char *path, struct err *e)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		return err_set(e, ERR_INVALID,
			       "%s: the path of a socket has at most %zu bytes (uapi_dir)", path,
			       sizeof(addr.sun_path) - 1);
	}
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		return err_errno(e, "socket");
	}
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		int saved = errno;

		close(fd);
		return err_set(e, ERR_UNAVAILABLE, "wireguard-go does not answer at %s: %s", path,
			       strerror(saved));
	}
	return fd;
}

/* Waits for events on fd until the deadline. */
static int uapi_wait(int fd, short events, uint64_t deadline_ms, struct err *e)
{
	for (;;) {
		struct pollfd p = {.fd = fd, .events = events};
		uint64_t now = clock_mono_ms();
		int r = poll(&p, 1, now >= deadline_ms ? 0 : (int)(deadline_ms - now));

		if (r > 0) {
			return 0;
		}
		if (r == 0) {
			return err_set(e, ERR_UNAVAILABLE, "wireguard-go did not answer in time");
		}
		if (errno != EINTR) {
			return err_errno(e, "poll");
		}
	}
}

static bool answer_complete(const struct buf *in)
{
	return in->len >= 2 && in->data[in->len - 1] == '\n' && in->data[in->len - 2] == '\n';
}

/* Sends the request and reads up to the empty line that ends the answer. */
static int uapi_talk(const struct wg_uapi *u, const struct buf *request, struct buf *answer,
		     struct err *e)
{
	uint64_t deadline = clock_mono_ms() + u->timeout_ms;
	size_t sent = 0;
	int ret, fd = uapi_connect(u->path, e);

	if (fd < 0) {
		return fd;
	}
	while (sent < request->len) {
		ssize_t n = send(fd, request->data + sent, request->len - sent, MSG_NOSIGNAL);

		if (n > 0) {
			sent += (size_t)n;
		} else if (errno == EAGAIN) {
			ret = uapi_wait(fd, POLLOUT, deadline, e);
			if (ret < 0) {
				goto out;
			}
		} else if (errno != EINTR) {
			ret = err_set(e, ERR_UNAVAILABLE, "wireguard-go: %s", strerror(errno));
			goto out;
		}
	}
	while (!answer_complete(answer)) {
		uint8_t *room = buf_reserve(answer, 65536);
		ssize_t n = recv(fd, room, 65536, 0);

		if (n > 0) {
			answer->len += (size_t)n;
			if (answer->len > ANSWER_MAX) {
				ret = err_set(e, ERR_LIMIT, "wireguard-go's answer is endless");
				goto out;
			}
		} else if (n == 0) {
			ret = err_set(e, ERR_UNAVAILABLE,
				      "wireguard-go closed the connection without an answer");
			goto out;
		} else if (errno == EAGAIN) {
			ret = uapi_wait(fd, POLLIN, deadline, e);
			if (ret < 0) {
				goto out;
			}
		} else if (errno != EINTR) {
			ret = err_set(e, ERR_UNAVAILABLE, "wireguard-go: %s", strerror(errno));
			goto out;
		}
	}
	ret = 0;
out:
	close(fd);
	return ret;
}

static int uapi_get(struct wg *wg, struct mesh *ret, struct err *e)
{
	struct wg_uapi *u = container_of(wg, struct wg_uapi, wg);
	struct buf request = BUF_INIT, answer = BUF_INIT;
	int r;

	buf_append_str(&request, "get=1\n\n");
	buf_reserve(&answer,
		    1u << 20); /* it holds the private key: no copies left behind by growth */
	r = uapi_talk(u, &request, &answer, e);
	if (r >= 0) {
		r = wg_uapi_parse((const char *)answer.data, answer.len, ret, e);
	}
	buf_done(&request);
	buf_wipe(&answer);
	return r;
}

static int uapi_set_some(const struct wg_uapi *u, const struct mesh *wanted,
			 const struct mesh_op *ops, size_t n, struct err *e)
{
	struct buf request = BUF_INIT, answer = BUF_INIT;
	const char *pos;
	struct line l;
	int r, code;

	buf_reserve(&request, 4096); /* the private key stands at its beginning */
	wg_uapi_format(wanted, ops, n, &request);
	r = uapi_talk(u, &request, &answer, e);
	buf_wipe(&request);
	if (r >= 0) {
		pos = (const char *)answer.data;
		if (!next_line(&pos, (const char *)answer.data + answer.len, &l) ||
		    !key_is(&l, "errno") || parse_errno(&l, &code) < 0) {
			r = err_set(e, ERR_PROTOCOL, "wireguard-go's answer is none");
		} else if (code == EADDRINUSE) {
			r = err_set(e, ERR_EXISTS, "UDP port %u is taken", wanted->listen_port);
		} else if (code != 0) {
			r = err_set(e, ERR_UNKNOWN, "wireguard-go refused a change: %s",
				    strerror(code));
		}
	}
	buf_done(&answer);
	return r;
}

static int uapi_set(struct wg *wg, const struct mesh *wanted, const struct mesh_ops *ops,
		    struct err *e)
{
	struct wg_uapi *u = container_of(wg, struct wg_uapi, wg);
	size_t i = 0, mine = 0;

	while (mine < ops->n && ops->v[mine].kind <= MESH_PEER_ADD) {
		mine++;
	}
	while (i < mine) {
		/* The port goes alone, so that its refusal can be told from others. */
		size_t n = ops->v[i].kind <= MESH_SET_PORT ? 1 : MIN(mine - i, (size_t)OPS_PER_SET);
		int r = uapi_set_some(u, wanted, ops->v + i, n, e);

		if (r < 0) {
			return r;
		}
		i += n;
	}
	return 0;
}

static void uapi_free(struct wg *wg)
{
	struct wg_uapi *u = container_of(wg, struct wg_uapi, wg);

	mem_free(u->path);
	mem_free(u);
}

static const struct wg_ops uapi_ops = {
	.name = "uapi",
	.get = uapi_get,
	.set = uapi_set,
	.free = uapi_free,
};

/* ---- The daemon ---------------------------------------------------------------------------------------------------- */

bool wg_uapi_alive(const char *uapi_dir, const char *ifname)
{
	char *path = mem_printf("%s/%s.sock", uapi_dir, ifname);
	int fd = uapi_connect(path, NULL);

	mem_free(path);
	if (fd >= 0) {
		close(fd);
	}
	return fd >= 0;
}

/*
 * wireguard-go puts itself into the background. It gets a session of its own, the root directory and no descriptor of
 * ours, so that nothing that ends the agent ends it.
 */
static int daemon_spawn(const struct wg_uapi_opts *opts, struct err *e)
{
	char *const argv[] = {(char *)opts->program, (char *)opts->ifname, NULL};
	/* It prints a box about kernels with WireGuard to stderr; its own log stays silent but for errors. */
	char *const env[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LOG_LEVEL=error", NULL};
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t signals;
	pid_t pid;
	int r, status;

	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addclosefrom_np(&files, 3);
	posix_spawnattr_init(&attr);
	sigemptyset(&signals);
	posix_spawnattr_setsigmask(&attr, &signals);
	sigfillset(&signals);
	posix_spawnattr_setsigdefault(&attr, &signals);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK |
						POSIX_SPAWN_SETSIGDEF);
	r = posix_spawnp(&pid, opts->program, &files, &attr, argv, env);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	if (r != 0) {
		return err_set(e, r == ENOENT ? ERR_NOT_FOUND : -r,
			       "cannot run %s: %s (package wireguard-go, or set wireguard_go in "
			       "the configuration)",
			       opts->program, strerror(r));
	}
	do {
		r = waitpid(pid, &status, 0);
	} while (r < 0 && errno == EINTR);
	if (r == pid && WIFEXITED(status) && WEXITSTATUS(status) != 0) {
		return err_set(e, ERR_UNAVAILABLE,
			       "%s %s ended with status %d: is there /dev/net/tun, is this root, "
			       "and is the interface free?",
			       opts->program, opts->ifname, WEXITSTATUS(status));
	}
	return 0;
}

/* The program serves the interface, but in its own directory instead of the one that we look in. */
static bool serves_elsewhere(const struct wg_uapi_opts *opts)
{
	return strcmp(opts->uapi_dir, BUILT_IN_DIR) != 0 &&
	       wg_uapi_alive(BUILT_IN_DIR, opts->ifname);
}

static int tell_elsewhere(const struct wg_uapi_opts *opts, struct err *e)
{
	return err_set(e, ERR_PRECONDITION,
		       "%s serves %s at " BUILT_IN_DIR
		       ", which is built into it, not in %s: set uapi_dir to that",
		       opts->program, opts->ifname, opts->uapi_dir);
}

static int daemon_start(const struct wg_uapi_opts *opts, struct err *e)
{
	uint64_t deadline = clock_mono_ms() + START_MS;
	int r;

	if (serves_elsewhere(opts)) {
		return tell_elsewhere(opts, e);
	}

	if (strlen(opts->ifname) > 15) {
		return err_set(e, ERR_INVALID, "interface name %s has more than 15 characters",
			       opts->ifname);
	}
	r = daemon_spawn(opts, e);
	if (r < 0) {
		return r;
	}
	while (!wg_uapi_alive(opts->uapi_dir, opts->ifname)) {
		if (serves_elsewhere(opts)) {
			/* We started it, so we end it: it goes with its socket. */
			char *path = mem_printf(BUILT_IN_DIR "/%s.sock", opts->ifname);

			IGNORE(unlink(path) < 0);
			mem_free(path);
			return tell_elsewhere(opts, e);
		}
		if (clock_mono_ms() >= deadline) {
			return err_set(
				e, ERR_UNAVAILABLE,
				"%s was started, but nothing answers at %s/%s.sock (uapi_dir)",
				opts->program, opts->uapi_dir, opts->ifname);
		}
		poll(NULL, 0, 5);
	}
	return 0;
}

int wg_uapi_new(const struct wg_uapi_opts *opts, struct wg **ret_wg, bool *ret_adopted,
		struct err *e)
{
	bool adopted = wg_uapi_alive(opts->uapi_dir, opts->ifname);
	struct wg_uapi *u;

	if (!adopted) {
		int r = daemon_start(opts, e);

		if (r < 0) {
			return r;
		}
	}
	u = MEM_NEW(struct wg_uapi);
	u->wg.ops = &uapi_ops;
	u->path = mem_printf("%s/%s.sock", opts->uapi_dir, opts->ifname);
	u->timeout_ms = opts->timeout_ms != 0 ? opts->timeout_ms : 2000;
	*ret_wg = &u->wg;
	*ret_adopted = adopted;
	return 0;
}
