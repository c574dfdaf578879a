/*
 * Takes the leader of a cluster away and says how long it took until a write was acknowledged again.
 *
 * bench_next skerry|etcd URLS KEY-FILE|- (kill PIDS | cut INTERFACES)
 *
 * kill: SIGKILL of the leader's process. cut: the interface to the leader's host is set down, so that the host vanishes
 * without closing a connection. PIDs and interfaces are lists with commas in the order of the URLs. Every 10 ms a write
 * begins, at the two that stay in turn, whatever became of the ones before; the time is from the loss to the first answer
 * to a write that began after it.
 *
 * Prints "INDEX MS": which member it was, and the time.
 */
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/rand.h"
#include "net/loop.h"
#include "side.h"

enum {
	POLL_MS = 10,
	BEFORE = 40,     /* writes before the loss, at least */
	SPREAD_MS = 200, /* the loss comes at a random time: heartbeats have no phase to it */
	LIMIT_MS = 30000,
	OBJECTS = 20,
};

struct next {
	struct side side;
	struct loop *loop;
	struct loop_timer poll, loss;
	int leader;
	const char *interface; /* NULL: kill */
	pid_t pid;
	uint64_t writes, answered;
	uint64_t lost;  /* uv_hrtime; 0: not yet */
	uint64_t found; /* when the first one was answered */
	char last_error[300];
};

struct call {
	struct next *next;
	uint64_t begun;
};

static int interface_down(const char *name)
{
	struct ifreq request = {0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int r;

	if (fd < 0)
		return -1;
	strncpy(request.ifr_name, name, sizeof(request.ifr_name) - 1);
	r = ioctl(fd, SIOCGIFFLAGS, &request);
	request.ifr_flags &= (short)~IFF_UP;
	if (r == 0)
		r = ioctl(fd, SIOCSIFFLAGS, &request);
	close(fd);
	return r;
}

static void lose(void *arg)
{
	struct next *n = arg;

	n->lost = uv_hrtime();
	if ((n->interface ? interface_down(n->interface) : kill(n->pid, SIGKILL)) < 0) {
		perror("bench_next: the leader cannot be taken away");
		exit(1);
	}
}

static void answered(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct call *call = arg;
	struct next *n = call->next;

	(void)reply;
	if (status->code) {
		snprintf(n->last_error, sizeof(n->last_error), "%s", status->msg);
	} else {
		n->answered++;
		if (n->lost && call->begun > n->lost && !n->found) {
			n->found = uv_hrtime();
			loop_stop(n->loop);
		}
		if (n->answered == BEFORE) {
			uint16_t random;

			rand_bytes(&random, sizeof(random));
			loop_timer_start(&n->loss, n->loop, 1 + random % SPREAD_MS, lose, n);
		}
	}
	mem_free(call);
}

static void poll_once(void *arg)
{
	struct next *n = arg;
	struct call *call = MEM_NEW(struct call);
	unsigned member = (unsigned)(n->writes++ % (n->side.members - 1));

	loop_timer_start(&n->poll, n->loop, POLL_MS, poll_once, n);
	if ((int)member >= n->leader)
		member++;
	call->next = n;
	call->begun = uv_hrtime();
	side_write(&n->side, member, 0, n->writes, LIMIT_MS, answered, call);
	if (n->lost && call->begun - n->lost > LIMIT_MS * 1000000ull) {
		fprintf(stderr, "bench_next: no write was answered within %d s: %s\n",
			LIMIT_MS / 1000, n->last_error);
		exit(1);
	}
}

/* The part of a list with commas. */
static char *part(char *list, int index)
{
	char *save, *one = strtok_r(list, ",", &save);

	while (one && index-- > 0)
		one = strtok_r(NULL, ",", &save);
	return one;
}

int main(int argc, char **argv)
{
	struct log_options log = {.level = LOG_LEVEL_ERROR};
	struct next *n = mem_zalloc(sizeof(*n));
	struct err err = {0};
	char *which;
	int r;

	if (argc != 6 || (strcmp(argv[4], "kill") != 0 && strcmp(argv[4], "cut") != 0)) {
		fprintf(stderr, "usage: bench_next skerry|etcd URLS KEY-FILE|- (kill PIDS | cut "
				"INTERFACES)\n");
		return 2;
	}
	log_init(&log);
	n->loop = loop_new("bench");
	r = side_open(&n->side, n->loop, argv[1], argv[2], NULL,
		      strcmp(argv[3], "-") != 0 ? argv[3] : NULL, 1, &err);
	if (r >= 0)
		r = side_fill(&n->side, OBJECTS, &err);
	if (r >= 0)
		r = n->leader = side_leader(&n->side, &err);
	if (r < 0) {
		fprintf(stderr, "bench_next: %s\n", err_msg(&err, r));
		return 1;
	}
	which = part(argv[5], n->leader);
	if (!which || n->side.members < 2)
		return 2;
	if (argv[4][0] == 'k')
		n->pid = (pid_t)strtol(which, NULL, 10);
	else
		n->interface = which;
	poll_once(n);
	loop_run(n->loop);
	printf("%d %.1f\n", n->leader, (double)(n->found - n->lost) / 1e6);
	/* What is still on its way is of no interest: the process ends. */
	fflush(stdout);
	_exit(0);
}
