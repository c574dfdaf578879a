/* Hand-over of leadership under load: the one that was named takes over, and no write fails. */
/* LIBS: cluster */
/* TIMEOUT: 180 */
#include "tests/component/cluster/nodes.h"

enum { WRITERS = 12, ROUNDS = 30, BETWEEN = 60 /* writes */ };

static struct nodes t;

/* Writes at one node, one after the other, until it is stopped. */
struct writer {
	size_t node;
	unsigned n, failed;
	bool stop, idle;
	struct err err;
};

static struct writer writer[WRITERS];

static void write_next(struct writer *w);

static void on_written(void *arg, const struct err *err, const CommandResult *r)
{
	struct writer *w = arg;

	(void)r;
	if (err->code != 0) {
		w->failed++;
		w->err = *err;
	}
	write_next(w);
}

static void write_next(struct writer *w)
{
	Skerry__Internal__V1__DigestMarker body = SKERRY__INTERNAL__V1__DIGEST_MARKER__INIT;
	Command cmd = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Actor actor = SKERRY__INTERNAL__V1__ACTOR__INIT;

	w->idle = w->stop;
	if (w->stop) {
		return;
	}
	actor.kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_SYSTEM;
	cmd.actor = &actor;
	body.id = ++w->n;
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_DIGEST_MARKER;
	cmd.digest_marker = &body;
	assert_ok(cluster_propose(t.node[w->node].c, t.front, &cmd, NULL, on_written, w, NULL));
}

static unsigned written(void)
{
	unsigned n = 0;

	for (size_t i = 0; i < WRITERS; i++) {
		n += writer[i].n;
	}
	return n;
}

static void from_each_to_each(void **state)
{
	unsigned again = 0, wrong = 0, failed = 0;
	uint64_t slowest = 0;

	(void)state;
	nodes_setup(&t);
	nodes_start(&t, 0);
	NODES_WAIT(&t, nodes_leads(&t, 0));
	nodes_join(&t, 0);
	nodes_join(&t, 0);
	for (size_t i = 0; i < WRITERS; i++) {
		writer[i] = (struct writer){.node = i % 3};
		write_next(&writer[i]);
	}
	for (unsigned round = 0; round < ROUNDS; round++) {
		int from, to;
		struct nodes_result r = {0};
		unsigned before = written();
		uint64_t begin;

		NODES_WAIT(&t, written() >= before + BETWEEN);
		NODES_WAIT(&t, nodes_leader_of(&t) >= 0);
		from = nodes_leader_of(&t);
		to = (from + 1 + (int)round % 2) % 3;
		begin = clock_mono_ms();
		link_transfer(t.node[from].c, t.front, t.node[to].id, nodes_on_change, &r);
		NODES_WAIT(&t, r.done);
		if (r.err.code != 0) {
			print_message("round %u: %s\n", round, r.err.msg);
			again++;
			continue;
		}
		NODES_WAIT(&t, nodes_leader_of(&t) >= 0 && nodes_leader_of(&t) != from);
		wrong += nodes_leader_of(&t) != to;
		slowest = MAX(slowest, clock_mono_ms() - begin);
	}
	for (size_t i = 0; i < WRITERS; i++) {
		writer[i].stop = true;
		NODES_WAIT(&t, writer[i].idle);
		failed += writer[i].failed;
		if (writer[i].failed != 0) {
			print_message("a write failed: %s\n", writer[i].err.msg);
		}
	}
	print_message("%u hand-overs beside %u writes: %u not taken over, %u by another, slowest "
		      "%llu ms\n",
		      ROUNDS, written(), again, wrong, (unsigned long long)slowest);
	assert_int_equal(failed, 0);
	assert_int_equal(again, 0);
	assert_int_equal(wrong, 0);
	NODES_WAIT(&t, nodes_agree(&t));
	nodes_end(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(from_each_to_each)};

	crypto_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
