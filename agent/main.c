/*
 * skerry-agent: reads its configuration, keeps the mesh, ends on SIGTERM or SIGINT and leaves the mesh in place.
 *
 * Exit codes: 0 ended by a signal; 1 could not start (state directory, socket, network); 2 wrong usage; 78 wrong
 * configuration; 71 out of memory.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/crypto.h"
#include "base/log.h"
#include "net/loop.h"
#include "net/poll.h"

enum { EXIT_START = 1, EXIT_USAGE = 2, EXIT_CONFIG = 78 };

static const char usage[] =
	"usage: skerry-agent [--config FILE] [--check]\n"
	"\n"
	"Keeps this device's place in its tailnet. `skerry up` switches it on, `skerry status` "
	"tells how it does.\n"
	"\n"
	"  --config FILE   configuration (default " AGENT_CONFIG_DEFAULT ", which may be missing)\n"
	"  --check         read the configuration, say what is wrong with it, and end\n"
	"  --version       print the version and end\n"
	"  --help          print this and end\n"
	"\n"
	"Exit codes: 0 ended by a signal, 1 could not start, 2 usage, 71 out of memory, 78 wrong "
	"configuration.\n";

/* Tells the supervisor (systemd's NOTIFY_SOCKET) that we are ready or about to end; nothing without one. */
static void notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	size_t len;
	int fd;

	if (path == NULL || (path[0] != '/' && path[0] != '@') ||
	    strlen(path) >= sizeof(addr.sun_path)) {
		return;
	}
	len = strlen(path);
	memcpy(addr.sun_path, path, len);
	if (path[0] == '@') {
		addr.sun_path[0] = '\0';
	}
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		return;
	}
	IGNORE(sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&addr,
		      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0);
	close(fd);
}

struct signals {
	struct loop_signal *term;
	struct loop_signal *interrupt;
	struct loop *loop;
};

static void on_signal(void *arg, int number)
{
	struct signals *s = arg;

	LOG_INFO("%s: the agent ends, the mesh stays", number == SIGTERM ? "SIGTERM" : "SIGINT");
	loop_stop(s->loop);
}

static void signals_start(struct signals *s, struct loop *loop)
{
	s->loop = loop;
	s->term = loop_signal_new(loop, SIGTERM, on_signal, s);
	s->interrupt = loop_signal_new(loop, SIGINT, on_signal, s);
}

static void signals_stop(struct signals *s)
{
	loop_signal_free(s->term);
	loop_signal_free(s->interrupt);
}

static int run(const struct agent_config *config)
{
	struct agent_opts opts = {.config = config};
	struct loop *loop = loop_new("agent");
	struct signals signals;
	struct agent *agent = NULL;
	struct err e = {0};
	int code = EXIT_SUCCESS;

	signals_start(&signals, loop);
	if (agent_new(loop, &opts, &agent, &e) < 0) {
		LOG_ERROR("%s", e.msg);
		code = EXIT_START;
	} else {
		notify("READY=1");
		LOG_INFO("skerry-agent %s, interface %s, socket %s", SKERRY_VERSION,
			 config->interface, config->socket);
		loop_run(loop);
		notify("STOPPING=1");
	}
	agent_free(agent);
	signals_stop(&signals);
	loop_free(loop);
	return code;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},
		{"check", no_argument, NULL, 'k'},
		{"version", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	struct log_options log = {.level = LOG_LEVEL_INFO, .format = LOG_FORMAT_AUTO};
	const char *path = NULL;
	struct agent_config config;
	struct err e = {0};
	bool check = false;
	int c, code;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (c) {
		case 'c': path = optarg; break;
		case 'k': check = true; break;
		case 'v': printf("skerry-agent %s\n", SKERRY_VERSION); return EXIT_SUCCESS;
		case 'h': fputs(usage, stdout); return EXIT_SUCCESS;
		default:
			fprintf(stderr, "skerry-agent: %s %s; see skerry-agent --help\n",
				argv[optind - 1],
				c == ':' ? "lacks its value" : "is not an option of it");
			return EXIT_USAGE;
		}
	}
	if (optind != argc) {
		fprintf(stderr,
			"skerry-agent: %s: it takes no arguments; see skerry-agent --help\n",
			argv[optind]);
		return EXIT_USAGE;
	}
	if (agent_config_load(path != NULL ? path : AGENT_CONFIG_DEFAULT, path != NULL, &config,
			      &e) < 0) {
		/* A mistake in the file has its place in both. */
		fprintf(stderr, "skerry-agent: %s%s%s\n",
			strstr(e.msg, e.field) == NULL ? e.field : "",
			strstr(e.msg, e.field) == NULL ? ": " : "", e.msg);
		return EXIT_CONFIG;
	}
	if (check) {
		printf("%s: the configuration is right\n",
		       path != NULL ? path : AGENT_CONFIG_DEFAULT);
		agent_config_done(&config);
		return EXIT_SUCCESS;
	}
	IGNORE(log_level_parse(config.log_level, &log.level, NULL));
	log_init(&log);
	crypto_harden_process();
	crypto_init();
	signal(SIGPIPE, SIG_IGN);
	code = run(&config);
	agent_config_done(&config);
	return code;
}
