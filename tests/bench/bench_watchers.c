/*
 * Many devices in one process, without a network of their own: each registers (or comes back), watches and keeps its
 * netmap, by the agent's own code.
 *
 * bench_watchers URL AUTH-KEY-FILE DIR COUNT
 *
 * Prints "attached N" once all hold a whole netmap. From SIGUSR2 on it waits for one change of a peer at every device and
 * then prints how many saw it; on SIGUSR1 its first device reports another endpoint, which the others of it are to see.
 * Ends on SIGTERM. A lighthouse takes 64 connections of an address: for more devices, several of these on several hosts.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <uv.h>

#include "agent/control.h"
#include "agent/netmap.h"
#include "base/buf.h"
#include "base/crypto.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/loop.h"
#include "net/poll.h"

enum { AT_ONCE = 16, LOOK_MS = 100 };

struct bench;

struct device {
	struct bench *bench;
	struct identity identity;
	struct netmap netmap;
	struct control *control;
	bool begun, whole, told;
};

struct bench {
	struct loop *loop;
	const char *url;
	char key[512];
	struct device *devices;
	size_t n, begun, whole, told, expected;
	uint64_t changed; /* uv_hrtime of the report, 0 = none under way */
	bool said;
	struct loop_timer look;
};

static bool admit_all(void *arg, const struct netmap *candidate, struct err *e)
{
	(void)arg;
	(void)candidate;
	(void)e;
	return true;
}

static void on_netmap(void *arg, unsigned changes)
{
	struct device *d = arg;
	struct bench *b = d->bench;

	if (!d->whole) {
		d->whole = true;
		b->whole++;
	}
	if (b->changed && !d->told && (changes & NETMAP_CHANGE_PEERS)) {
		d->told = true;
		if (++b->told == b->expected) {
			printf("change seen by %zu devices after %.1f ms\n", b->told,
			       (double)(uv_hrtime() - b->changed) / 1e6);
			fflush(stdout);
			b->changed = 0;
		}
	}
}

static void on_change(void *arg)
{
	(void)arg;
}

static void on_step(void *arg, enum control_step step, bool waiting, const char *text)
{
	(void)arg;
	(void)step;
	(void)waiting;
	(void)text;
}

static void on_refused(void *arg, const struct err *why)
{
	(void)arg;
	fprintf(stderr, "a device was refused: %s\n", why->msg);
	exit(1);
}

static const struct control_handler handler = {.admit = admit_all,
					       .on_netmap = on_netmap,
					       .on_change = on_change,
					       .on_step = on_step,
					       .on_refused = on_refused};

static void begin(struct bench *b, size_t i)
{
	struct control_opts opts = {.loop = b->loop, .handler = &handler};
	struct control_login login = {.auth_key = b->key};
	struct device *d = &b->devices[i];
	struct ipport endpoint;
	struct err err = {0};
	char name[32], at[64];

	snprintf(name, sizeof(name), "bench%zu", i);
	snprintf(at, sizeof(at), "10.200.%zu.%zu:41641", i / 250, i % 250 + 1);
	opts.identity = &d->identity;
	opts.netmap = &d->netmap;
	opts.arg = d;
	d->control = control_new(&opts);
	control_set_urls(d->control, &b->url, 1);
	control_set_hostname(d->control, name);
	if (ipport_parse(at, &endpoint, &err) >= 0)
		control_set_endpoints(d->control, &endpoint, 1);
	if (d->identity.enrolment.registered)
		control_start(d->control);
	else if (control_login(d->control, &login, &err) < 0)
		on_refused(d, &err);
}

/* A few come up at a time: the figure is what they cost, not how they storm. */
static void look(void *arg)
{
	struct bench *b = arg;

	while (b->begun < b->n && b->begun < b->whole + AT_ONCE)
		begin(b, b->begun++);
	if (b->whole == b->n && !b->said) {
		b->said = true;
		printf("attached %zu\n", b->n);
		fflush(stdout);
	}
	loop_timer_start(&b->look, b->loop, LOOK_MS, look, b);
}

static void report(void *arg, int number)
{
	struct bench *b = arg;
	struct ipport endpoint;

	b->told = 0;
	b->expected = number == SIGUSR1 ? b->n - 1 : b->n;
	for (size_t i = 0; i < b->n; i++)
		b->devices[i].told = false;
	if (ipport_parse("10.201.1.1:41642", &endpoint, NULL) < 0)
		abort();
	b->changed = uv_hrtime();
	if (number == SIGUSR2)
		return;
	control_set_endpoints(b->devices[0].control, &endpoint, 1);
}

static void end(void *arg, int number)
{
	struct bench *b = arg;

	(void)number;
	loop_stop(b->loop);
}

static int read_key(struct bench *b, const char *path)
{
	struct buf text = BUF_INIT;
	struct err err = {0};

	if (file_read(path, sizeof(b->key) - 1, &text, &err) < 0) {
		fprintf(stderr, "%s\n", err.msg);
		return -1;
	}
	snprintf(b->key, sizeof(b->key), "%s", buf_str(&text));
	b->key[strcspn(b->key, "\r\n")] = '\0';
	buf_wipe(&text);
	return 0;
}

int main(int argc, char **argv)
{
	struct log_options log = {.level = LOG_LEVEL_WARN};
	struct loop_signal *usr1, *usr2, *term;
	struct rlimit files;
	struct bench b = {0};
	struct err err = {0};

	if (argc != 5) {
		fprintf(stderr, "usage: bench_watchers URL AUTH-KEY-FILE DIR COUNT\n");
		return 2;
	}
	b.url = argv[1];
	b.n = strtoul(argv[4], NULL, 10);
	if (b.n < 2 || b.n > 5000 || read_key(&b, argv[2]) < 0)
		return 2;
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	log_init(&log);
	crypto_init();
	b.loop = loop_new("bench");
	b.devices = mem_zalloc(b.n * sizeof(*b.devices));
	for (size_t i = 0; i < b.n; i++) {
		char *dir = mem_printf("%s/%zu", argv[3], i);

		b.devices[i].bench = &b;
		if (identity_open(dir, "/etc/machine-id", &b.devices[i].identity, &err) < 0) {
			fprintf(stderr, "%s\n", err.msg);
			return 1;
		}
		mem_free(dir);
	}
	usr1 = loop_signal_new(b.loop, SIGUSR1, report, &b);
	usr2 = loop_signal_new(b.loop, SIGUSR2, report, &b);
	term = loop_signal_new(b.loop, SIGTERM, end, &b);
	look(&b);
	loop_run(b.loop);

	loop_timer_stop(&b.look);
	loop_signal_free(usr1);
	loop_signal_free(usr2);
	loop_signal_free(term);
	for (size_t i = 0; i < b.n; i++) {
		control_free(b.devices[i].control);
		netmap_done(&b.devices[i].netmap);
		identity_done(&b.devices[i].identity);
	}
	loop_free(b.loop);
	mem_free(b.devices);
	return 0;
}
