#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "base/crypto.h"
#include "base/macros.h"
#include "lighthouse/commands.h"
#include "net/sha256.h"

enum option_id {
	OPT_CONFIG = 'c',
	OPT_HELP = 'h',
	OPT_DIR = 256,
	OPT_NAME,
	OPT_CLUSTER_NAME,
	OPT_BASE_DOMAIN,
	OPT_API_ADDRESS,
	OPT_PEER_ADDRESS,
	OPT_DUMP_ENTRY,
	OPT_TIMEOUT,
	OPT_CLUSTER_KEY,
	OPT_RECOVERY_STRING,
	OPT_REPLAY,
	OPT_YES,
};

static const struct option options[] = {
	{"config", required_argument, NULL, OPT_CONFIG},
	{"dir", required_argument, NULL, OPT_DIR},
	{"name", required_argument, NULL, OPT_NAME},
	{"cluster-name", required_argument, NULL, OPT_CLUSTER_NAME},
	{"base-domain", required_argument, NULL, OPT_BASE_DOMAIN},
	{"api-address", required_argument, NULL, OPT_API_ADDRESS},
	{"peer-address", required_argument, NULL, OPT_PEER_ADDRESS},
	{"dump-entry", required_argument, NULL, OPT_DUMP_ENTRY},
	{"timeout", required_argument, NULL, OPT_TIMEOUT},
	{"cluster-key", required_argument, NULL, OPT_CLUSTER_KEY},
	{"recovery-string", required_argument, NULL, OPT_RECOVERY_STRING},
	{"replay", no_argument, NULL, OPT_REPLAY},
	{"yes", no_argument, NULL, OPT_YES},
	{"help", no_argument, NULL, OPT_HELP},
	{NULL, 0, NULL, 0},
};

struct command {
	const char *name;
	const char *argument; /* the one positional argument, NULL: none */
	const char *summary;
	const char *help;
	int (*run)(const struct lighthouse_args *a);
	const int *takes; /* option ids, 0 ends */
};

static const int init_takes[] = {
	OPT_CONFIG,      OPT_DIR,         OPT_NAME,         OPT_CLUSTER_NAME,
	OPT_BASE_DOMAIN, OPT_API_ADDRESS, OPT_PEER_ADDRESS, 0};
static const int join_takes[] = {OPT_CONFIG,       OPT_DIR,     OPT_NAME, OPT_API_ADDRESS,
				 OPT_PEER_ADDRESS, OPT_TIMEOUT, 0};
static const int run_takes[] = {OPT_CONFIG, OPT_DIR, 0};
static const int check_takes[] = {OPT_CONFIG, OPT_DIR, OPT_DUMP_ENTRY, OPT_REPLAY, 0};
static const int restore_takes[] = {
	OPT_CONFIG,          OPT_DIR, OPT_NAME, OPT_API_ADDRESS, OPT_PEER_ADDRESS, OPT_CLUSTER_KEY,
	OPT_RECOVERY_STRING, 0};
static const int recover_takes[] = {OPT_CONFIG, OPT_DIR, OPT_YES, 0};
static const int verify_takes[] = {OPT_CLUSTER_KEY, OPT_RECOVERY_STRING, 0};

static const char addresses_help[] = "  --api-address HOST:PORT   where devices reach this "
				     "lighthouse (default: this host's address, 8443)\n"
				     "  --peer-address HOST:PORT  where other lighthouses reach it "
				     "(default: this host's address, 8444)\n";

static const struct command commands[] = {
	{"init", NULL, "make a new cluster of one on this host",
	 "  --name NAME               of this lighthouse (default: the host's name)\n"
	 "  --cluster-name NAME       of the cluster (default: skerry)\n"
	 "  --base-domain DOMAIN      of MagicDNS names (default: <cluster-name>.internal)\n",
	 command_init, init_takes},
	{"join", "TOKEN", "join the cluster that a token names (`skerry cluster token` makes one)",
	 "  TOKEN                     the token, file:PATH, or - for standard input\n"
	 "  --name NAME               of this lighthouse (default: the host's name)\n"
	 "  --timeout TIME            give up after that long (default: 30s)\n",
	 command_join, join_takes},
	{"run", NULL, "serve, in the foreground", "", command_run, run_takes},
	{"check", NULL, "verify the state directory of a stopped lighthouse",
	 "  --dump-entry N            print entry N of the log instead\n"
	 "  --replay                  turn snapshot and log into a state, and compare its digest "
	 "with the store's\n",
	 command_check, check_takes},
	{"restore", "FILE", "make this host the one lighthouse of a cluster that a backup holds",
	 "  FILE                      made by `skerry backup create`\n"
	 "  --cluster-key FILE        the cluster's key: cluster.key of any lighthouse it had\n"
	 "  --recovery-string SOURCE  or the recovery string that init printed: file:PATH, "
	 "env:NAME, "
	 "- for standard input\n"
	 "  --name NAME               of this lighthouse (default: the host's name)\n",
	 command_restore, restore_takes},
	{"recover", NULL, "go on alone with this lighthouse when the majority is gone for good",
	 "  --yes                     do it; without, what would be done is printed\n",
	 command_recover, recover_takes},
	{"backup verify", "FILE", "restore a backup into a scratch directory and compare digests",
	 "  FILE                      made by `skerry backup create`\n"
	 "  --cluster-key FILE        also check that this key opens it\n"
	 "  --recovery-string SOURCE  also check that this string does: file:PATH, env:NAME, - for "
	 "standard input\n"
	 "The scratch directory is made below TMPDIR (default: /tmp) and removed again.\n",
	 command_backup_verify, verify_takes},
};

static const char common_help[] =
	"  --config FILE             (default: /etc/skerry/lighthouse.yaml; a missing default file "
	"means defaults)\n"
	"  --dir DIR                 the state directory, instead of the configured one\n";

static void usage(FILE *f)
{
	fputs("usage: skerryd COMMAND [OPTION...]\n\nThe Skerry lighthouse daemon.\n\ncommands:\n",
	      f);
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		fprintf(f, "  %-13s %-6s %s\n", commands[i].name,
			commands[i].argument ? commands[i].argument : "", commands[i].summary);
	fputs("  help [COMMAND]\n  version\n\n`skerryd help COMMAND` lists its options. See "
	      "skerryd(8).\n",
	      f);
}

static bool takes(const struct command *c, int id)
{
	for (const int *t = c->takes; *t; t++) {
		if (*t == id)
			return true;
	}
	return false;
}

static void command_usage(const struct command *c, FILE *f)
{
	bool addresses = takes(c, OPT_API_ADDRESS);

	fprintf(f, "usage: skerryd %s%s%s [OPTION...]\n\nTo %s.\n\n%s%s%s", c->name,
		c->argument ? " " : "", c->argument ? c->argument : "", c->summary, c->help,
		addresses ? addresses_help : "", takes(c, OPT_DIR) ? common_help : "");
}

/* The command that argv begins with, of one word or two; *ret_words says how many. */
static const struct command *command_find(int argc, char **argv, int *ret_words)
{
	char two[64];

	if (argc > 1 && snprintf(two, sizeof(two), "%s %s", argv[0], argv[1]) < (int)sizeof(two)) {
		for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
			if (!strcmp(commands[i].name, two)) {
				*ret_words = 2;
				return &commands[i];
			}
		}
	}
	*ret_words = 1;
	for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
		if (!strcmp(commands[i].name, argv[0]))
			return &commands[i];
	}
	return NULL;
}

/* Returns -1 to go on, else the exit code. */
static int parse(const struct command *c, int argc, char **argv, struct lighthouse_args *a)
{
	int index = 0;
	int id;

	opterr = 0;
	while ((id = getopt_long(argc, argv, "+c:h", options, &index)) != -1) {
		if (id == OPT_HELP) {
			command_usage(c, stdout);
			return EXIT_OK;
		}
		if (id == '?' || !takes(c, id)) {
			const char *shown = argv[optind - 1];

			/* Its value may have been a word of its own. */
			if (id != '?' && optarg == shown)
				shown = argv[optind - 2];
			fprintf(stderr,
				"skerryd %s: %s is not an option of it, or lacks its value; "
				"`skerryd help %s` lists "
				"them\n",
				c->name, shown, c->name);
			return EXIT_USAGE_ERROR;
		}
		switch (id) {
		case OPT_CONFIG: a->config = optarg; break;
		case OPT_DIR: a->dir = optarg; break;
		case OPT_NAME: a->name = optarg; break;
		case OPT_CLUSTER_NAME: a->cluster_name = optarg; break;
		case OPT_BASE_DOMAIN: a->base_domain = optarg; break;
		case OPT_API_ADDRESS: a->api_address = optarg; break;
		case OPT_PEER_ADDRESS: a->peer_address = optarg; break;
		case OPT_DUMP_ENTRY: a->dump_entry = optarg; break;
		case OPT_TIMEOUT: a->timeout = optarg; break;
		case OPT_CLUSTER_KEY: a->cluster_key = optarg; break;
		case OPT_RECOVERY_STRING: a->recovery_string = optarg; break;
		case OPT_REPLAY: a->replay = true; break;
		case OPT_YES: a->yes = true; break;
		default: IMPOSSIBLE("option without a case");
		}
	}
	return -1;
}

/* Keys and tokens live in this process: no core files, no reading of its memory by others of the user. */
static void harden(void)
{
	struct rlimit none = {0, 0};
	struct rlimit files;

	(void)setrlimit(RLIMIT_CORE, &none);
#ifndef __SANITIZE_ADDRESS__ /* the leak check of test builds traces its own process */
	(void)prctl(PR_SET_DUMPABLE, 0);
#endif
	/* Each device is a connection. */
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	signal(SIGPIPE, SIG_IGN);
}

int main(int argc, char **argv)
{
	struct lighthouse_args a = {0};
	const struct command *c;
	int words = 1;
	int rc;

	/* Whole states come and go in one piece: back to the system with them, whatever was freed before. */
	mallopt(M_MMAP_THRESHOLD, 1 << 20);
	if (argc < 2) {
		usage(stderr);
		return EXIT_USAGE_ERROR;
	}
	if (!strcmp(argv[1], "version") || !strcmp(argv[1], "--version")) {
		puts("skerryd " SKERRY_VERSION);
		return EXIT_OK;
	}
	if (!strcmp(argv[1], "help") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		c = argc > 2 ? command_find(argc - 2, argv + 2, &words) : NULL;
		if (c)
			command_usage(c, stdout);
		else
			usage(stdout);
		return EXIT_OK;
	}
	c = command_find(argc - 1, argv + 1, &words);
	if (!c) {
		fprintf(stderr, "skerryd: there is no command \"%s\"; `skerryd help` lists them\n",
			argv[1]);
		return EXIT_USAGE_ERROR;
	}
	argc -= words;
	argv += words;
	rc = parse(c, argc, argv, &a);
	if (rc >= 0)
		return rc;
	if (c->argument && optind < argc) {
		a.argument = argv[optind++];
		/* Options may follow the argument. */
		argc -= optind - 1;
		argv += optind - 1;
		optind = 1;
		rc = parse(c, argc, argv, &a);
		if (rc >= 0)
			return rc;
	}
	if (optind < argc) {
		fprintf(stderr,
			"skerryd %s: unexpected argument \"%s\"; `skerryd help %s` shows the "
			"usage\n",
			c->name, argv[optind], c->name);
		return EXIT_USAGE_ERROR;
	}
	if (c->argument && !a.argument) {
		fprintf(stderr, "skerryd %s: %s is missing; `skerryd help %s` shows the usage\n",
			c->name, c->argument, c->name);
		return EXIT_USAGE_ERROR;
	}
	harden();
	crypto_init();
	sha256_by_openssl();
	return c->run(&a);
}
