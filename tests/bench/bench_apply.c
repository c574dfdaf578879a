/*
 * What applying costs one replica: entries of so many updates of a user, with request ids, on the store, without a log
 * and without a network; CPU time of this thread.
 *
 * bench_apply DIR COMMANDS-PER-ENTRY ENTRIES
 * valgrind --tool=callgrind --toggle-collect=measured bench_apply DIR 70 100
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tests/unit/tailnet/world.h"

#include "base/mem.h"
#include "base/rand.h"
#include "cluster/entry.h"
#include "cluster/fsm.h"
#include "cluster/store.h"

enum { USERS = 10000, TAILNETS = 20, ENTRY_MAX = 1000 };

static struct world w;
static struct store *store;
static uint64_t raft_index, sequence;

static double cpu_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint8_t *entry_of(Command *const *cmd, size_t n, uint64_t epoch, size_t *ret_len)
{
	struct entry_header h = {.feature_level = FEATURE_LEVEL_MAX,
				 .cluster_id = 77,
				 .epoch = epoch,
				 .time_ms = 1700000000000 + raft_index};
	struct entry_writer ew;
	size_t bytes = 0;
	uint8_t *d;

	for (size_t i = 0; i < n; i++)
		bytes += protobuf_c_message_get_packed_size(&cmd[i]->base);
	*ret_len = entry_size(n, bytes);
	d = mem_alloc(*ret_len);
	entry_begin(&ew, d, *ret_len);
	for (size_t i = 0; i < n; i++) {
		size_t len = protobuf_c_message_get_packed_size(&cmd[i]->base);
		uint8_t *one = mem_alloc(len);

		protobuf_c_message_pack(&cmd[i]->base, one);
		entry_add(&ew, one, len);
		mem_free(one);
	}
	entry_seal(&ew, &h);
	return d;
}

static int one_entry(const uint8_t *d, size_t len, struct applied **ret, struct err *err)
{
	const struct kv *kv;
	int r = store_write(store, &kv, err);

	if (r == 0)
		r = fsm_apply(kv, 77, d, len, raft_index, ret, err);
	if (r == 0)
		r = store_set_applied(store, raft_index, err);
	return r == 0 ? store_commit(store, err) : r;
}

/* Of its own, so that callgrind can be told to count nothing else. */
__attribute__((noinline)) static int measured(const uint8_t *d, size_t len, struct applied **ret,
					      struct err *err)
{
	int r = one_entry(d, len, ret, err);

	__asm__ volatile(""); /* no tail call */
	return r;
}

/* Returns the id of the object of the last command. */
static uint64_t apply(Command *const *cmd, size_t n, uint64_t epoch, double *cpu)
{
	struct err err = {0};
	struct applied *a = NULL;
	uint64_t id = 0;
	size_t len;
	uint8_t *d;
	double from;
	int r;

	raft_index++;
	d = entry_of(cmd, n, epoch, &len);
	from = cpu_now();
	r = cpu != NULL ? measured(d, len, &a, &err) : one_entry(d, len, &a, &err);
	if (r != 0) {
		fprintf(stderr, "bench_apply: %s\n", err.msg);
		exit(1);
	}
	for (size_t i = 0; i < n; i++) {
		if (a->command[i].result->code != 0) {
			fprintf(stderr, "bench_apply: %s\n", a->command[i].result->message);
			exit(1);
		}
		id = a->command[i].result->id;
	}
	applied_free(a);
	if (cpu != NULL)
		*cpu += cpu_now() - from;
	mem_free(d);
	return id;
}

static uint64_t apply_one(Command *c)
{
	uint64_t id = apply(&c, 1, raft_index == 0 ? 0 : 5, NULL);

	arena_reset(&w.arena);
	return id;
}

static Command *numbered(Command *c)
{
	c->lighthouse = 1;
	c->incarnation = 101;
	c->sequence = ++sequence;
	c->lowest_unanswered = sequence > 200 ? sequence - 200 : 1;
	return c;
}

int main(int argc, char **argv)
{
	static uint64_t user[USERS], tailnet[TAILNETS];
	static char value[257], id[32], caller[] = "api-key:7";
	Command *cmd[ENTRY_MAX], *bootstrap, *start;
	struct store_options o = {0};
	struct err err = {0};
	size_t group, entries;
	double cpu = 0, first = 0;

	if (argc != 4 || (group = strtoul(argv[2], NULL, 10)) == 0 || group > ENTRY_MAX ||
	    (entries = strtoul(argv[3], NULL, 10)) == 0)
		return 2;
	o.dir = argv[1];
	if (store_open(&store, &o, NULL, &err) < 0) {
		fprintf(stderr, "bench_apply: %s\n", err.msg);
		return 1;
	}
	world_open(&w, 1);
	memset(value, 'v', 256);
	bootstrap = world_bootstrap(&w);
	bootstrap->bootstrap->feature_level = FEATURE_LEVEL_MAX;
	bootstrap->bootstrap->member->feature_max = FEATURE_LEVEL_MAX;
	apply_one(bootstrap);
	start = world_start(&w, 1, 101);
	start->lighthouse_start->feature_max = FEATURE_LEVEL_MAX;
	apply_one(start);
	for (size_t i = 0; i < TAILNETS; i++) {
		snprintf(id, sizeof(id), "t%zu", i);
		tailnet[i] = apply_one(world_tailnet(&w, id));
	}
	for (size_t i = 0; i < USERS; i++) {
		Command *c = numbered(world_command(&w, tailnet[i % TAILNETS]));
		Skerry__Internal__V1__UserCreate *u =
			WBODY(&w, c, USER_CREATE, user_create, UserCreate);

		snprintf(id, sizeof(id), "user%zu", i);
		u->login_name = id;
		u->display_name = value;
		user[i] = apply_one(c);
	}
	for (size_t e = 0; e < entries; e++) {
		for (size_t i = 0; i < group; i++) {
			size_t which = (size_t)(rand_u64() % USERS);
			Command *c = numbered(world_command(&w, tailnet[which % TAILNETS]));
			Skerry__Internal__V1__UserUpdate *u =
				WBODY(&w, c, USER_UPDATE, user_update, UserUpdate);

			c->request_id = world_alloc(&w, 40);
			snprintf(c->request_id, 40, "0123456789abcdef-%llu",
				 (unsigned long long)sequence);
			c->request_hash = world_fill(&w, 32, sequence);
			c->caller = caller;
			u->id = user[which];
			u->set_display_name = true;
			u->display_name = value;
			cmd[i] = c;
		}
		apply(cmd, group, 5, &cpu);
		arena_reset(&w.arena);
		if (e == entries / 2)
			first = cpu;
	}
	printf("%zu per entry: %.1f us a command (second half %.1f)\n", group,
	       cpu / (double)(group * entries) * 1e6,
	       (cpu - first) / (double)(group * (entries - entries / 2 - 1)) * 1e6);
	store_abandon(store);
	world_close(&w);
	return 0;
}
