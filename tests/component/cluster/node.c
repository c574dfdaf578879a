/* Lighthouses in child processes: the side of the test. */
#include "node.h"

#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/test.h"

void node_prepare(struct node *n, const char *root, const char *name)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*n = (struct node){.fd = -1};
	snprintf(n->dir, sizeof(n->dir), "%s/%s", root, name);
	snprintf(n->name, sizeof(n->name), "%s", name);
	assert_int_equal(mkdir(n->dir, 0700), 0);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	n->port = ntohs(a.sin_port);
	close(fd);
}

void node_spawn(struct node *n)
{
	int fd[2];

	assert_int_equal(n->pid, 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	fflush(NULL);
	n->pid = fork();
	assert_true(n->pid >= 0);
	if (n->pid == 0) {
		/* The others' control sockets are the parent's: with one open here they would never end. */
		for (int other = 3; other < 256; other++) {
			if (other != fd[1]) {
				close(other);
			}
		}
		node_child(n, fd[1]);
	}
	close(fd[1]);
	n->fd = fd[0];
}

static void vsend(struct node *n, const char *fmt, va_list ap)
{
	char line[NODE_LINE];
	int len = vsnprintf(line, sizeof(line) - 1, fmt, ap);

	line[len++] = '\n';
	assert_int_equal(write(n->fd, line, (size_t)len), len);
}

void node_send(struct node *n, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsend(n, fmt, ap);
	va_end(ap);
}

const char *node_answer(struct node *n, char out[NODE_LINE])
{
	size_t len = 0;

	for (;;) {
		ssize_t r = read(n->fd, out + len, 1);

		if (r <= 0) {
			TEST_FAIL("%s ended unexpectedly", n->name);
		}
		if (out[len] == '\n') {
			out[len] = '\0';
			return out;
		}
		assert_true(++len < NODE_LINE);
	}
}

const char *node_say(struct node *n, char out[NODE_LINE], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsend(n, fmt, ap);
	va_end(ap);
	return node_answer(n, out);
}

const char *node_ok(struct node *n, char out[NODE_LINE], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsend(n, fmt, ap);
	va_end(ap);
	node_answer(n, out);
	if (strncmp(out, "ok", 2) != 0) {
		TEST_FAIL("%s: %s: %s", n->name, fmt, out);
	}
	return out[2] == ' ' ? out + 3 : out + 2;
}

uint64_t node_number(const char *line, const char *key)
{
	char pattern[32];
	const char *at;

	snprintf(pattern, sizeof(pattern), " %s=", key);
	at = strstr(line, pattern);
	if (at == NULL) {
		TEST_FAIL("no %s in %s", key, line);
	}
	return strtoull(at + strlen(pattern), NULL, 10);
}

uint64_t node_status(struct node *n, const char *key)
{
	char line[NODE_LINE];

	return node_number(node_say(n, line, "status"), key);
}

static void reap(struct node *n)
{
	assert_int_equal(waitpid(n->pid, &n->exit_status, 0), n->pid);
	n->pid = 0;
	close(n->fd);
	n->fd = -1;
}

void node_kill(struct node *n)
{
	kill(n->pid, SIGKILL);
	reap(n);
}

void node_quit(struct node *n)
{
	node_send(n, "quit");
	reap(n);
	if (!WIFEXITED(n->exit_status) || WEXITSTATUS(n->exit_status) != 0) {
		TEST_FAIL("%s ended with status %#x", n->name, (unsigned)n->exit_status);
	}
}

int node_wait_exit(struct node *n, unsigned ms)
{
	uint64_t end = clock_mono_ms() + ms;

	while (waitpid(n->pid, &n->exit_status, WNOHANG) != n->pid) {
		if (clock_mono_ms() > end) {
			return -1;
		}
		usleep(2000);
	}
	n->pid = 0;
	close(n->fd);
	n->fd = -1;
	return WIFEXITED(n->exit_status) ? WEXITSTATUS(n->exit_status) : -1;
}
