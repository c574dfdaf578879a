/*
 * Devices that register with auth keys, by the agent's own code: for the history of one-use keys (tests/chaos/load.py).
 *
 * Each line of standard input, "ID URL AUTH-KEY MILLISECONDS", is a new device that registers at that lighthouse. Each
 * gets one line of output: "ID ok NODE", "ID refused REASON MESSAGE" or, when the time is over, "ID open". Ends when the
 * input has ended and all are answered.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/control.h"
#include "agent/netmap.h"
#include "base/buf.h"
#include "base/crypto.h"
#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/loop.h"
#include "net/poll.h"

enum { LOOK_MS = 10 };

struct contest {
	struct loop *loop;
	struct loop_poll *input;
	struct loop_timer look;
	struct list devices;
	struct buf line;
	char dir[64];
	unsigned made;
	bool ended;
};

struct device {
	struct list node;
	struct identity identity;
	struct netmap netmap;
	struct control *control;
	struct err why;
	bool refused;
	uint64_t deadline_ms;
	char *id, *key, *url;
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
	(void)arg;
	(void)changes;
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
	struct device *d = arg;

	d->refused = true;
	d->why = *why;
}

static const struct control_handler handler = {.admit = admit_all,
					       .on_netmap = on_netmap,
					       .on_change = on_change,
					       .on_step = on_step,
					       .on_refused = on_refused};

static void device_free(struct device *d)
{
	list_remove(&d->node);
	control_free(d->control);
	netmap_done(&d->netmap);
	identity_done(&d->identity);
	mem_free(d->id);
	mem_free(d->key);
	mem_free(d->url);
	mem_free(d);
}

static void begin(struct contest *c, char *line)
{
	char *save = NULL, *id = strtok_r(line, " ", &save), *url = strtok_r(NULL, " ", &save);
	char *key = strtok_r(NULL, " ", &save), *ms = strtok_r(NULL, " ", &save);
	struct control_login login = {0};
	struct control_opts opts = {.loop = c->loop, .handler = &handler};
	struct device *d;
	struct err err = {0};
	char *dir;

	if (ms == NULL) {
		fprintf(stderr, "a line is ID URL AUTH-KEY MILLISECONDS\n");
		exit(2);
	}
	d = MEM_NEW(struct device);
	list_push(&c->devices, &d->node);
	d->id = mem_strdup(id);
	d->key = mem_strdup(key);
	d->url = mem_strdup(url);
	d->deadline_ms = loop_now(c->loop) + strtoul(ms, NULL, 10);
	dir = mem_printf("%s/%u", c->dir, c->made++);
	if (identity_open(dir, "/etc/machine-id", &d->identity, &err) < 0) {
		fprintf(stderr, "%s\n", err.msg);
		exit(1);
	}
	mem_free(dir);
	opts.identity = &d->identity;
	opts.netmap = &d->netmap;
	opts.arg = d;
	d->control = control_new(&opts);
	control_set_urls(d->control, (const char *const *)&d->url, 1);
	control_set_hostname(d->control, d->id);
	login.auth_key = d->key;
	if (control_login(d->control, &login, &err) < 0) {
		on_refused(d, &err);
	}
}

static void look(void *arg)
{
	struct contest *c = arg;

	LIST_FOREACH_SAFE(&c->devices, it, tmp)
	{
		struct device *d = LIST_ENTRY(it, struct device, node);

		if (d->identity.enrolment.registered) {
			printf("%s ok %s\n", d->id, d->identity.enrolment.name);
		} else if (d->refused) {
			printf("%s refused %s %s\n", d->id,
			       d->why.reason[0] != '\0' ? d->why.reason : "-", d->why.msg);
		} else if (loop_now(c->loop) >= d->deadline_ms) {
			printf("%s open\n", d->id);
		} else {
			continue;
		}
		fflush(stdout);
		device_free(d);
	}
	if (c->ended && list_empty(&c->devices)) {
		loop_stop(c->loop);
		return;
	}
	loop_timer_start(&c->look, c->loop, LOOK_MS, look, c);
}

static void on_input(void *arg)
{
	struct contest *c = arg;
	char part[4096];
	ssize_t n = read(STDIN_FILENO, part, sizeof(part));

	if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
		return;
	}
	if (n <= 0) {
		c->ended = true;
		loop_poll_free(c->input);
		c->input = NULL;
		return;
	}
	for (ssize_t i = 0; i < n; i++) {
		if (part[i] != '\n') {
			buf_append(&c->line, &part[i], 1);
			continue;
		}
		begin(c, (char *)(uintptr_t)buf_str(&c->line));
		buf_reset(&c->line);
	}
}

int main(void)
{
	struct log_options log = {.level = LOG_LEVEL_ERROR};
	struct contest c = {.line = BUF_INIT};

	snprintf(c.dir, sizeof(c.dir), "%s", "/tmp/skerry-devices.XXXXXX");
	if (mkdtemp(c.dir) == NULL) {
		perror(c.dir);
		return 1;
	}
	log_init(&log);
	crypto_init();
	list_init(&c.devices);
	c.loop = loop_new("devices");
	c.input = loop_poll_new(c.loop, STDIN_FILENO, on_input, &c);
	if (c.input == NULL) {
		fprintf(stderr, "standard input has to be a pipe\n");
		return 2;
	}
	look(&c);
	loop_run(c.loop);
	loop_timer_stop(&c.look);
	loop_poll_free(c.input);
	loop_free(c.loop);
	buf_done(&c.line);
	return execlp("rm", "rm", "-rf", c.dir, NULL);
}
