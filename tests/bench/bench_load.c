/*
 * Makes a big state through the gRPC API of a running cluster: tailnets, and nodes spread evenly over them. The calls go
 * round the lighthouses that are named, a number of them at a time; a call whose fate is unknown is made again: a
 * node's machine key is its identity, so that nothing is made twice. scripts/load runs it.
 *
 * bench_load --url URL[,URL...] --key FILE [--tailnets 50] [--nodes 100000] [--outstanding 128] [--prefix load]
 *            [--quiet]
 *
 * Prints a line of progress every five seconds and at the end how long it took. A second run with the same prefix
 * makes no second set: tailnets that are there are used, and nodes get other keys, so that it adds to them.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/rand.h"
#include "net/loop.h"
#include "proto/pb_util.h"
#include "skerry/v1/admin.pb-c.h"
#include "tests/bench/client.h"

enum {
	MAX_TARGETS = 9,
	MAX_TAILNETS = 1000,
	MAX_OUTSTANDING = 2048,
	PROGRESS_MS = 5000,
	RETRY_MS = 100,
	TRIES = 300, /* half a minute without an answer */
	CALL_MS = 5000,
};

struct slot {
	struct load *load;
	unsigned number; /* which lighthouse is next */
	unsigned tries;
	size_t item; /* of the tailnet or node under way */
	uint64_t begun;
	char machine_key[80], node_key[80];
	struct loop_timer again;
};

struct load {
	struct loop *loop;
	struct rpc_channel *channel[MAX_TARGETS];
	unsigned channels;
	struct client_key key;
	const char *prefix;
	size_t tailnets, nodes, outstanding;
	bool quiet;
	char (*tailnet)[64]; /* resource names */
	bool making_nodes;
	size_t next, total, done, running;
	uint64_t begun, failures;
	uint32_t *latency; /* microseconds */
	struct loop_timer progress;
};

static void run(struct slot *s);

static void give_up(const char *what, const struct err *status)
{
	fprintf(stderr, "%s: %s (%s)\n", what, status->msg, err_text(status->code));
	exit(1);
}

static void next(struct slot *s)
{
	struct load *l = s->load;

	s->tries = 0;
	if (l->next == l->total) {
		if (--l->running == 0)
			loop_stop(l->loop);
		return;
	}
	s->item = l->next++;
	if (l->making_nodes) {
		uint8_t key[32];
		char hex[65];

		for (int i = 0; i < 2; i++) {
			rand_bytes(key, sizeof(key));
			for (size_t j = 0; j < sizeof(key); j++)
				snprintf(hex + 2 * j, 3, "%02x", key[j]);
			if (i == 0)
				snprintf(s->machine_key, sizeof(s->machine_key), "mkey:%s", hex);
			else
				snprintf(s->node_key, sizeof(s->node_key), "nodekey:%s", hex);
		}
	}
	s->begun = uv_hrtime();
	run(s);
}

static void on_again(void *arg)
{
	run(arg);
}

/* True: the call is made again, at the next lighthouse. */
static bool again(struct slot *s, const struct err *status, const char *what)
{
	switch (status->code) {
	case ERR_UNAVAILABLE:
	case ERR_DEADLINE:
	case ERR_LIMIT:
	case ERR_ABORTED:
	case ERR_CLOSED:
	case ERR_UNKNOWN: break;
	default: return false;
	}
	if (++s->tries > TRIES)
		give_up(what, status);
	s->load->failures++;
	s->number++;
	loop_timer_start(&s->again, s->load->loop, RETRY_MS, on_again, s);
	return true;
}

static void finished(struct slot *s)
{
	struct load *l = s->load;

	if (l->making_nodes)
		l->latency[s->item] = (uint32_t)MIN((uv_hrtime() - s->begun) / 1000, UINT32_MAX);
	l->done++;
	next(s);
}

static void on_node(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct slot *s = arg;

	(void)reply;
	/* The answer to a call that had succeeded unseen. */
	if (status->code == 0 || (status->code == ERR_EXISTS && s->tries > 0)) {
		finished(s);
	} else if (!again(s, status, "CreateNode")) {
		give_up("CreateNode", status);
	}
}

static void on_list(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct slot *s = arg;
	const Skerry__V1__ListTailnetsResponse *list = (const void *)reply;
	char name[128];

	if (status->code != 0) {
		if (!again(s, status, "ListTailnets"))
			give_up("ListTailnets", status);
		return;
	}
	snprintf(name, sizeof(name), "%s-%zu", s->load->prefix, s->item);
	for (size_t i = 0; i < list->n_tailnets; i++) {
		if (strcmp(list->tailnets[i]->display_name, name) == 0) {
			snprintf(s->load->tailnet[s->item], sizeof(s->load->tailnet[0]), "%s",
				 list->tailnets[i]->name);
			finished(s);
			return;
		}
	}
	fprintf(stderr, "the tailnet %s is there, but not in the list\n", name);
	exit(1);
}

static void on_tailnet(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct slot *s = arg;
	struct load *l = s->load;

	if (status->code == 0) {
		snprintf(l->tailnet[s->item], sizeof(l->tailnet[0]), "%s",
			 ((const Skerry__V1__Tailnet *)reply)->name);
		finished(s);
	} else if (status->code == ERR_EXISTS) {
		Skerry__V1__ListTailnetsRequest q = SKERRY__V1__LIST_TAILNETS_REQUEST__INIT;

		q.page_size = 1000;
		(void)rpc_unary(l->channel[s->number % l->channels],
				"/skerry.v1.TailnetService/ListTailnets", &q.base,
				&skerry__v1__list_tailnets_response__descriptor, NULL, on_list, s);
	} else if (!again(s, status, "CreateTailnet")) {
		give_up("CreateTailnet", status);
	}
}

static void run(struct slot *s)
{
	struct load *l = s->load;
	struct rpc_channel *channel = l->channel[s->number % l->channels];
	struct rpc_opts o = {.deadline_ms = CALL_MS};
	char name[128];

	if (!l->making_nodes) {
		Skerry__V1__CreateTailnetRequest q = SKERRY__V1__CREATE_TAILNET_REQUEST__INIT;
		Skerry__V1__Tailnet t = SKERRY__V1__TAILNET__INIT;

		snprintf(name, sizeof(name), "%s-%zu", l->prefix, s->item);
		t.display_name = name;
		q.tailnet = &t;
		(void)rpc_unary(channel, "/skerry.v1.TailnetService/CreateTailnet", &q.base,
				&skerry__v1__tailnet__descriptor, &o, on_tailnet, s);
	} else {
		Skerry__V1__CreateNodeRequest q = SKERRY__V1__CREATE_NODE_REQUEST__INIT;
		Skerry__V1__Node n = SKERRY__V1__NODE__INIT;

		snprintf(name, sizeof(name), "host-%zu", s->item / l->tailnets);
		n.hostname = name;
		n.machine_key = s->machine_key;
		n.node_key = s->node_key;
		q.parent = l->tailnet[s->item % l->tailnets];
		q.node = &n;
		(void)rpc_unary(channel, "/skerry.v1.NodeService/CreateNode", &q.base,
				&skerry__v1__node__descriptor, &o, on_node, s);
	}
}

static void on_progress(void *arg)
{
	struct load *l = arg;

	if (l->making_nodes && !l->quiet) {
		printf("%zu of %zu nodes after %.0f s, %" PRIu64 " calls repeated\n", l->done,
		       l->total, (double)(uv_hrtime() - l->begun) / 1e9, l->failures);
		fflush(stdout);
	}
	loop_timer_start(&l->progress, l->loop, PROGRESS_MS, on_progress, l);
}

static void all(struct load *l, struct slot *slots, size_t total, bool nodes)
{
	l->making_nodes = nodes;
	l->total = total;
	l->next = l->done = 0;
	l->running = MIN(l->outstanding, total);
	l->begun = uv_hrtime();
	for (size_t i = 0; i < MIN(l->outstanding, total); i++) {
		slots[i].load = l;
		slots[i].number = (unsigned)i;
		next(&slots[i]);
	}
	loop_run(l->loop);
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void report(struct load *l)
{
	double seconds = (double)(uv_hrtime() - l->begun) / 1e9;

	qsort(l->latency, l->nodes, sizeof(*l->latency), by_value);
	printf("load: %zu nodes in %zu tailnets in %.1f s, %.0f a second, p50 %.1f ms, p99 %.1f "
	       "ms, max %.1f ms, %" PRIu64 " calls repeated\n",
	       l->nodes, l->tailnets, seconds, (double)l->nodes / seconds,
	       l->latency[l->nodes / 2] / 1e3, l->latency[l->nodes * 99 / 100] / 1e3,
	       l->latency[l->nodes - 1] / 1e3, l->failures);
}

static int usage(void)
{
	fprintf(stderr,
		"usage: bench_load --url URL[,URL...] --key FILE [--tailnets 50] [--nodes 100000] "
		"[--outstanding 128] [--prefix load] [--quiet]\n");
	return 2;
}

static int parse(struct load *l, int argc, char **argv, char **ret_urls)
{
	struct err err = {0};
	static const struct option options[] = {
		{"url", required_argument, NULL, 'u'},
		{"key", required_argument, NULL, 'k'},
		{"tailnets", required_argument, NULL, 't'},
		{"nodes", required_argument, NULL, 'n'},
		{"outstanding", required_argument, NULL, 'o'},
		{"prefix", required_argument, NULL, 'p'},
		{"quiet", no_argument, NULL, 'q'},
		{0},
	};
	const char *key = NULL;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'u': *ret_urls = optarg; break;
		case 'k': key = optarg; break;
		case 't': l->tailnets = strtoul(optarg, NULL, 10); break;
		case 'n': l->nodes = strtoul(optarg, NULL, 10); break;
		case 'o': l->outstanding = strtoul(optarg, NULL, 10); break;
		case 'p': l->prefix = optarg; break;
		case 'q': l->quiet = true; break;
		default: return -1;
		}
	}
	if (!key || !*ret_urls || optind != argc || l->tailnets == 0 ||
	    l->tailnets > MAX_TAILNETS || l->nodes == 0 || l->nodes > 10000000 ||
	    l->outstanding == 0 || l->outstanding > MAX_OUTSTANDING || strlen(l->prefix) > 40)
		return -1;
	if (client_key_read(&l->key, key, &err) >= 0)
		return 0;
	fprintf(stderr, "%s\n", err.msg);
	return -1;
}

int main(int argc, char **argv)
{
	struct load l = {.tailnets = 50, .nodes = 100000, .outstanding = 128, .prefix = "load"};
	struct slot *slots;
	struct tls_ctx *tls;
	struct err err = {0};
	char *urls = NULL, *save;

	if (parse(&l, argc, argv, &urls) < 0)
		return usage();
	crypto_init();
	if (client_tls(&tls, &err) < 0) {
		fprintf(stderr, "%s\n", err.msg);
		return 1;
	}
	l.loop = loop_new("load");
	for (char *url = strtok_r(urls, ",", &save); url && l.channels < MAX_TARGETS;
	     url = strtok_r(NULL, ",", &save)) {
		const char *targets[] = {url};
		struct rpc_channel_opts opts = {
			.targets = targets,
			.n_targets = 1,
			.dial.tls = tls,
			.reconnect = true,
			.metadata = client_metadata,
			.arg = &l.key,
		};

		l.channel[l.channels++] = rpc_channel_new(l.loop, &opts);
	}
	l.latency = mem_alloc(l.nodes * sizeof(*l.latency));
	l.tailnet = mem_zalloc(l.tailnets * sizeof(*l.tailnet));
	slots = mem_zalloc(l.outstanding * sizeof(*slots));
	loop_timer_start(&l.progress, l.loop, PROGRESS_MS, on_progress, &l);
	all(&l, slots, l.tailnets, false);
	all(&l, slots, l.nodes, true);
	report(&l);

	loop_timer_stop(&l.progress);
	for (unsigned i = 0; i < l.channels; i++)
		rpc_channel_free(l.channel[i]);
	loop_free(l.loop);
	tls_unref(tls);
	mem_free(l.latency);
	mem_free(l.tailnet);
	mem_free(slots);
	return 0;
}
