/*
 * One load client for two clusters: updates of a value of 256 bytes among 10,000 objects, with so many calls outstanding,
 * at Skerry (UpdateUser with a request id) and at etcd (Put), in turn, round by round.
 *
 * bench_cluster --skerry URLS --key-file FILE [--skerry-pids PIDS] [--etcd URLS [--etcd-pids PIDS]]
 *	[--outstanding 1,16,256,1024] [--rounds N] [--warm-ms N] [--measure-ms N] [--leader-only] [--dir DIR]
 *
 * URLs and pids are lists with commas, in the same order. Without --etcd Skerry alone is measured. --leader-only: all
 * calls go to the leader; otherwise every slot has its member, the slots spread evenly, and with fewer slots than members
 * each call goes to the next member. --dir: where the time of an fdatasync of 4 KiB is measured.
 *
 * Prints one line per round and side, the medians of the rounds, and for each comparison
 * "bench NAME ours=X peer=Y ratio=R", where a ratio above 1 means that ours is better.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "base/log.h"
#include "base/mem.h"
#include "net/loop.h"
#include "side.h"

enum {
	MAX_LATENCIES = 2000000,
	MAX_ROUNDS = 50,
	MAX_LEVELS = 8,
	CALLS_PER_CONNECTION = 96, /* a lighthouse takes 100 */
	SYNCS = 40,
};

enum figure { WRITES, P50, P99, CPU, MAXIMUM, FIGURES };

struct sample {
	double figure[FIGURES];
};

struct bench {
	struct loop *loop;
	struct side side[2];
	unsigned sides;
	unsigned level[MAX_LEVELS], levels, rounds;
	uint64_t warm_ms, measure_ms;
	bool leader_only;
	const char *dir;
	struct sample sample[2][MAX_LEVELS][MAX_ROUNDS];
	double sync_ms[MAX_LEVELS * MAX_ROUNDS];
	unsigned syncs;
	uint32_t *latencies; /* microseconds */
};

/* ---- one round of one side ---- */

struct run {
	struct bench *bench;
	struct side *side;
	unsigned outstanding, open;
	int leader; /* all calls go there; negative: spread */
	uint64_t from, until;
	size_t n;
	uint64_t failed, seed;
	double cpu_from, cpu_until, own_from, own_until;
	char first_error[300];
	struct loop_timer timer;
};

struct slot {
	struct run *run;
	unsigned number;
	uint64_t calls, begun;
};

static uint64_t next_random(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
	return *seed >> 33;
}

static void slot_call(struct slot *slot);

static void slot_done(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct slot *slot = arg;
	struct run *run = slot->run;
	uint64_t now = uv_hrtime();

	(void)reply;
	run->open--;
	if (status->code) {
		if (!run->failed++)
			snprintf(run->first_error, sizeof(run->first_error), "%s", status->msg);
	} else if (now >= run->from && now <= run->until && run->n < MAX_LATENCIES) {
		run->bench->latencies[run->n++] = (uint32_t)((now - slot->begun) / 1000);
	}
	slot_call(slot);
}

static void slot_call(struct slot *slot)
{
	struct run *run = slot->run;
	unsigned at, member, connection;

	slot->begun = uv_hrtime();
	if (slot->begun >= run->until || run->failed > 1000) {
		if (run->open == 0)
			loop_stop(run->bench->loop);
		return;
	}
	at = slot->number + (run->outstanding < run->side->members ? (unsigned)slot->calls : 0);
	if (run->leader >= 0) {
		member = (unsigned)run->leader;
		connection = slot->number / CALLS_PER_CONNECTION;
	} else {
		member = at % run->side->members;
		connection = slot->number / run->side->members / CALLS_PER_CONNECTION;
	}
	run->open++;
	slot->calls++;
	side_write(run->side, member, connection, next_random(&run->seed), 0, slot_done, slot);
}

static void cpu_begin(void *arg)
{
	struct run *run = arg;

	run->cpu_from = side_cpu(run->side);
	run->own_from = process_cpu(getpid());
}

static void cpu_end(void *arg)
{
	struct run *run = arg;

	run->cpu_until = side_cpu(run->side);
	run->own_until = process_cpu(getpid());
}

static void at_begin(void *arg)
{
	struct run *run = arg;

	cpu_begin(run);
	loop_timer_start(&run->timer, run->bench->loop, run->bench->measure_ms, cpu_end, run);
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static int by_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(const double *v, unsigned n)
{
	double copy[MAX_LEVELS * MAX_ROUNDS];

	if (n == 0)
		return 0;
	memcpy(copy, v, n * sizeof(*v));
	qsort(copy, n, sizeof(*copy), by_double);
	return n % 2 ? copy[n / 2] : (copy[n / 2 - 1] + copy[n / 2]) / 2;
}

static int run_side(struct bench *b, struct side *side, unsigned outstanding, unsigned round,
		    struct sample *ret, struct err *err)
{
	struct run run = {.bench = b, .side = side, .outstanding = outstanding, .leader = -1};
	struct slot *slots = mem_zalloc(outstanding * sizeof(*slots));
	double seconds = (double)b->measure_ms / 1000;
	uint64_t start;

	if (b->leader_only) {
		run.leader = side_leader(side, err);
		if (run.leader < 0) {
			mem_free(slots);
			return run.leader;
		}
	}
	run.seed = uv_hrtime();
	start = uv_hrtime();
	run.from = start + b->warm_ms * 1000000;
	run.until = run.from + b->measure_ms * 1000000;
	loop_timer_start(&run.timer, b->loop, b->warm_ms, at_begin, &run);
	for (unsigned i = 0; i < outstanding; i++) {
		slots[i].run = &run;
		slots[i].number = i;
		slot_call(&slots[i]);
	}
	loop_run(b->loop);
	if (loop_timer_active(&run.timer)) {
		loop_timer_stop(&run.timer);
		cpu_end(&run);
	}
	mem_free(slots);
	if (run.n == 0)
		return err_set(err, ERR_UNAVAILABLE, "no write of %s was answered: %s", side->name,
			       run.first_error);
	qsort(b->latencies, run.n, sizeof(*b->latencies), by_value);
	ret->figure[WRITES] = (double)run.n / seconds;
	ret->figure[P50] = b->latencies[run.n / 2] / 1e3;
	ret->figure[P99] = b->latencies[run.n * 99 / 100] / 1e3;
	ret->figure[MAXIMUM] = b->latencies[run.n - 1] / 1e3;
	ret->figure[CPU] = run.cpu_from < 0 || run.cpu_until < 0
				   ? 0
				   : (run.cpu_until - run.cpu_from) / (double)run.n * 1000;
	printf("%-6s %4u outstanding, round %u: %6.0f writes/s, p50 %.2f, p99 %.2f, max %.1f ms, "
	       "CPU s per 1,000 writes: servers %.3f, client %.3f; %llu failed%s%s\n",
	       side->name, outstanding, round + 1, ret->figure[WRITES], ret->figure[P50],
	       ret->figure[P99], ret->figure[MAXIMUM], ret->figure[CPU],
	       (run.own_until - run.own_from) / (double)run.n * 1000,
	       (unsigned long long)run.failed, run.failed ? ": " : "", run.first_error);
	fflush(stdout);
	return 0;
}

/* ---- the disk ---- */

static void sync_measure(struct bench *b)
{
	char path[4096], page[4096];
	double ms[SYNCS];
	unsigned n = 0;
	int fd;

	if (!b->dir)
		return;
	snprintf(path, sizeof(path), "%s/fsync", b->dir);
	fd = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	memset(page, 1, sizeof(page));
	while (n < SYNCS) {
		uint64_t start = uv_hrtime();

		if (write(fd, page, sizeof(page)) != (ssize_t)sizeof(page) || fdatasync(fd) < 0)
			break;
		ms[n++] = (double)(uv_hrtime() - start) / 1e6;
	}
	close(fd);
	unlink(path);
	if (n > 0 && b->syncs < ARRAY_LEN(b->sync_ms))
		b->sync_ms[b->syncs++] = median(ms, n);
}

/* ---- all of it ---- */

static double over_rounds(const struct bench *b, unsigned side, unsigned level, enum figure figure)
{
	double v[MAX_ROUNDS];

	for (unsigned i = 0; i < b->rounds; i++)
		v[i] = b->sample[side][level][i].figure[figure];
	return median(v, b->rounds);
}

static void report(const struct bench *b)
{
	printf("\nmedians of %u rounds of %.1f s; fdatasync of 4 KiB on this disk: %.2f ms\n",
	       b->rounds, (double)b->measure_ms / 1000, median(b->sync_ms, b->syncs));
	printf("%-8s %11s %10s %9s %9s %9s %12s\n", "side", "outstanding", "writes/s", "p50 ms",
	       "p99 ms", "max ms", "CPU s/1,000");
	for (unsigned l = 0; l < b->levels; l++) {
		for (unsigned s = 0; s < b->sides; s++)
			printf("%-8s %11u %10.0f %9.2f %9.2f %9.1f %12.3f\n", b->side[s].name,
			       b->level[l], over_rounds(b, s, l, WRITES), over_rounds(b, s, l, P50),
			       over_rounds(b, s, l, P99), over_rounds(b, s, l, MAXIMUM),
			       over_rounds(b, s, l, CPU));
	}
	if (b->sides < 2)
		return;
	printf("\n");
	for (unsigned l = 0; l < b->levels; l++) {
		static const struct {
			const char *name;
			enum figure figure;
			bool more;
		} lines[] = {{"writes", WRITES, true},
			     {"cpu", CPU, false},
			     {"p50", P50, false},
			     {"p99", P99, false}};

		for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
			double ours = over_rounds(b, 0, l, lines[i].figure);
			double peer = over_rounds(b, 1, l, lines[i].figure);
			double ratio = lines[i].more ? ours / peer : peer / ours;

			printf("bench %s_%u ours=%.4g peer=%.4g ratio=%.2f\n", lines[i].name,
			       b->level[l], ours, peer, ratio);
		}
	}
}

static int run_all(struct bench *b, struct err *err)
{
	for (unsigned s = 0; s < b->sides; s++) {
		int r = side_fill(&b->side[s], SIDE_OBJECTS, err);

		if (r >= 0)
			r = side_warm(&b->side[s], err);
		if (r < 0)
			return r;
	}
	for (unsigned l = 0; l < b->levels; l++) {
		for (unsigned round = 0; round < b->rounds; round++) {
			sync_measure(b);
			/* Who is first changes, so that neither always follows the other. */
			for (unsigned i = 0; i < b->sides; i++) {
				unsigned s = (i + round) % b->sides;
				int r = run_side(b, &b->side[s], b->level[l], round,
						 &b->sample[s][l][round], err);

				if (r < 0)
					return r;
			}
		}
	}
	return 0;
}

static int usage(void)
{
	fprintf(stderr,
		"usage: bench_cluster --skerry URLS --key-file FILE [--skerry-pids PIDS] [--etcd "
		"URLS [--etcd-pids PIDS]]\n"
		"       [--outstanding N,...] [--rounds N] [--warm-ms N] [--measure-ms N] "
		"[--leader-only] [--dir DIR]\n");
	return 2;
}

static bool levels_parse(struct bench *b, char *text)
{
	b->levels = 0;
	for (char *save, *one = strtok_r(text, ",", &save); one; one = strtok_r(NULL, ",", &save)) {
		unsigned long n = strtoul(one, NULL, 10);

		if (n == 0 || n > 2048 || b->levels == MAX_LEVELS)
			return false;
		b->level[b->levels++] = (unsigned)n;
	}
	return b->levels > 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"skerry", required_argument, NULL, 's'},
		{"skerry-pids", required_argument, NULL, 'S'},
		{"etcd", required_argument, NULL, 'e'},
		{"etcd-pids", required_argument, NULL, 'E'},
		{"key-file", required_argument, NULL, 'k'},
		{"outstanding", required_argument, NULL, 'o'},
		{"rounds", required_argument, NULL, 'r'},
		{"warm-ms", required_argument, NULL, 'w'},
		{"measure-ms", required_argument, NULL, 'm'},
		{"leader-only", no_argument, NULL, 'l'},
		{"dir", required_argument, NULL, 'd'},
		{0},
	};
	struct bench *b = mem_zalloc(sizeof(*b));
	const char *urls[2] = {0}, *pids[2] = {0}, *key = NULL;
	struct log_options log = {.level = LOG_LEVEL_WARN};
	char levels[] = "1,16,256,1024";
	struct err err = {0};
	unsigned most = 0, connections;
	int c, r = 0;

	*b = (struct bench){.rounds = 5, .warm_ms = 1000, .measure_ms = 4000};
	(void)levels_parse(b, levels);
	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (c) {
		case 's': urls[0] = optarg; break;
		case 'S': pids[0] = optarg; break;
		case 'e': urls[1] = optarg; break;
		case 'E': pids[1] = optarg; break;
		case 'k': key = optarg; break;
		case 'o':
			if (!levels_parse(b, optarg))
				return usage();
			break;
		case 'r': b->rounds = (unsigned)strtoul(optarg, NULL, 10); break;
		case 'w': b->warm_ms = strtoul(optarg, NULL, 10); break;
		case 'm': b->measure_ms = strtoul(optarg, NULL, 10); break;
		case 'l': b->leader_only = true; break;
		case 'd': b->dir = optarg; break;
		default: return usage();
		}
	}
	if (!urls[0] || !key || b->rounds == 0 || b->rounds > MAX_ROUNDS || b->measure_ms == 0)
		return usage();
	/* The heap is not given back and fetched again between two turns. */
	mallopt(M_TRIM_THRESHOLD, 64 << 20);
	mallopt(M_TOP_PAD, 1 << 20);
	log_init(&log);
	b->loop = loop_new("bench");
	b->latencies = mem_alloc(MAX_LATENCIES * sizeof(*b->latencies));
	for (unsigned l = 0; l < b->levels; l++)
		most = MAX(most, b->level[l]);
	connections = (b->leader_only ? most : (most + 2) / 3) / CALLS_PER_CONNECTION + 1;
	for (unsigned s = 0; r >= 0 && s < 2 && urls[s]; s++) {
		b->sides = s + 1;
		r = side_open(&b->side[s], b->loop, s == 0 ? "skerry" : "etcd", urls[s], pids[s],
			      s == 0 ? key : NULL, connections, &err);
	}
	if (r >= 0)
		r = run_all(b, &err);
	if (r >= 0)
		report(b);
	else
		fprintf(stderr, "bench_cluster: %s\n", err_msg(&err, r));
	for (unsigned s = 0; s < b->sides; s++)
		side_close(&b->side[s]);
	loop_free(b->loop);
	mem_free(b->latencies);
	mem_free(b);
	return r < 0;
}
