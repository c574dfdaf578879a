/*
 * Measures writes through the gRPC API: keeps a number of calls outstanding for some seconds and prints writes a second
 * and the latencies. Each slot creates a user and deletes it again; both are writes. They carry no request ids, of which
 * a tailnet has a limited number in five minutes.
 *
 * bench_writes TARGET[,TARGET...] API-KEY-FILE PARENT OUTSTANDING SECONDS
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "net/loop.h"
#include "proto/pb_util.h"
#include "google/protobuf/empty.pb-c.h"
#include "skerry/v1/admin.pb-c.h"
#include "tests/bench/client.h"

enum { MAX_TARGETS = 8, MAX_LATENCIES = 4000000 };

struct slot {
	struct bench *bench;
	unsigned number;
	unsigned count;
	uint64_t begun; /* uv_hrtime of the call in flight */
	char user[128]; /* resource name to delete next; "" = create */
};

struct bench {
	struct loop *loop;
	struct rpc_channel *channel[MAX_TARGETS];
	unsigned channels;
	struct client_key key;
	const char *parent;
	uint64_t measure_from, end;
	uint32_t *latencies; /* microseconds */
	size_t n_latencies;
	uint64_t failed;
	char first_error[500];
	unsigned in_flight;
};

static void next_call(struct slot *slot);

static void answered(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct slot *slot = arg;
	struct bench *bench = slot->bench;
	uint64_t now = uv_hrtime();

	bench->in_flight--;
	if (status->code) {
		if (!bench->failed++)
			snprintf(bench->first_error, sizeof(bench->first_error), "%s", status->msg);
		slot->user[0] = '\0';
	} else {
		if (slot->begun >= bench->measure_from && now <= bench->end &&
		    bench->n_latencies < MAX_LATENCIES)
			bench->latencies[bench->n_latencies++] =
				(uint32_t)((now - slot->begun) / 1000);
		if (slot->user[0])
			slot->user[0] = '\0';
		else
			snprintf(slot->user, sizeof(slot->user), "%s",
				 ((const Skerry__V1__User *)reply)->name);
	}
	next_call(slot);
}

static void next_call(struct slot *slot)
{
	struct bench *bench = slot->bench;
	struct rpc_channel *channel = bench->channel[slot->number % bench->channels];
	char login[64];

	slot->begun = uv_hrtime();
	if (slot->begun >= bench->end || bench->failed > 1000) {
		if (bench->in_flight == 0)
			loop_stop(bench->loop);
		return;
	}
	bench->in_flight++;
	slot->count++;
	if (slot->user[0]) {
		Skerry__V1__DeleteUserRequest request = SKERRY__V1__DELETE_USER_REQUEST__INIT;

		request.name = slot->user;
		(void)rpc_unary(channel, "/skerry.v1.UserService/DeleteUser", &request.base,
				&google__protobuf__empty__descriptor, NULL, answered, slot);
	} else {
		Skerry__V1__CreateUserRequest request = SKERRY__V1__CREATE_USER_REQUEST__INIT;
		Skerry__V1__User user = SKERRY__V1__USER__INIT;

		snprintf(login, sizeof(login), "bench-%d-%u-%u", (int)getpid(), slot->number,
			 slot->count);
		user.login_name = login;
		request.parent = (char *)bench->parent;
		request.user = &user;
		(void)rpc_unary(channel, "/skerry.v1.UserService/CreateUser", &request.base,
				&skerry__v1__user__descriptor, NULL, answered, slot);
	}
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	struct bench bench = {0};
	struct tls_ctx *tls;
	struct slot *slots;
	struct err err = {0};
	unsigned outstanding;
	uint64_t start;
	double seconds;

	if (argc != 6) {
		fprintf(stderr, "usage: bench_writes TARGET[,TARGET...] API-KEY-FILE PARENT "
				"OUTSTANDING SECONDS\n");
		return 2;
	}
	outstanding = (unsigned)strtoul(argv[4], NULL, 10);
	seconds = strtod(argv[5], NULL);
	bench.parent = argv[3];
	if (outstanding == 0 || outstanding > 4096 || seconds <= 0)
		return 2;
	if (client_key_read(&bench.key, argv[2], &err) < 0 || client_tls(&tls, &err) < 0) {
		fprintf(stderr, "%s\n", err.msg);
		return 1;
	}
	bench.loop = loop_new("bench");
	for (char *save, *target = strtok_r(argv[1], ",", &save);
	     target && bench.channels < MAX_TARGETS; target = strtok_r(NULL, ",", &save)) {
		const char *targets[] = {target};
		struct rpc_channel_opts opts = {
			.targets = targets,
			.n_targets = 1,
			.dial.tls = tls,
			.metadata = client_metadata,
			.arg = &bench.key,
		};

		bench.channel[bench.channels++] = rpc_channel_new(bench.loop, &opts);
	}
	bench.latencies = mem_alloc(MAX_LATENCIES * sizeof(*bench.latencies));
	slots = mem_zalloc(outstanding * sizeof(*slots));
	start = uv_hrtime();
	bench.measure_from = start + 1000000000ull; /* the first second warms up */
	bench.end = bench.measure_from + (uint64_t)(seconds * 1e9);
	for (unsigned i = 0; i < outstanding; i++) {
		slots[i].bench = &bench;
		slots[i].number = i;
		next_call(&slots[i]);
	}
	loop_run(bench.loop);

	qsort(bench.latencies, bench.n_latencies, sizeof(*bench.latencies), by_value);
	if (bench.n_latencies > 0)
		printf("outstanding %u: %.0f writes/s, p50 %.2f ms, p99 %.2f ms, max %.2f ms, %zu "
		       "writes, %llu failed\n",
		       outstanding, (double)bench.n_latencies / seconds,
		       bench.latencies[bench.n_latencies / 2] / 1e3,
		       bench.latencies[bench.n_latencies * 99 / 100] / 1e3,
		       bench.latencies[bench.n_latencies - 1] / 1e3, bench.n_latencies,
		       (unsigned long long)bench.failed);
	if (bench.failed)
		printf("first failure: %s\n", bench.first_error);
	for (unsigned i = 0; i < bench.channels; i++)
		rpc_channel_free(bench.channel[i]);
	loop_free(bench.loop);
	tls_unref(tls);
	mem_free(bench.latencies);
	mem_free(slots);
	return bench.n_latencies > 0 ? 0 : 1;
}
