/* Changes of the members under a leader that is killed at each of its steps: whoever leads next goes on. */
#include "tests/lib/test.h"

#include <inttypes.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/crypto.h"
#include "node.h"

enum { N = 5, DONE = 1 };

struct fixture {
	char root[64];
	struct node n[N];
	uint64_t id[N];
	uint64_t last; /* the change that ended last */
};

static void dump(struct fixture *f)
{
	char line[NODE_LINE];

	for (size_t i = 0; i < N; i++) {
		if (f->n[i].pid != 0 && kill(f->n[i].pid, 0) == 0 &&
		    waitpid(f->n[i].pid, NULL, WNOHANG) == 0) {
			print_message("%s: %s\n", f->n[i].name, node_say(&f->n[i], line, "status"));
		}
	}
}

#define wait_for(condition, ms, what)                                   \
	do {                                                            \
		uint64_t end_ = clock_mono_ms() + MAX((ms), 30000);     \
		while (!(condition)) {                                  \
			if (clock_mono_ms() > end_) {                   \
				dump(f);                                \
				TEST_FAIL("timeout waiting for " what); \
			}                                               \
			usleep(5000);                                   \
		}                                                       \
	} while (0)

/* All that run agree on leader and voters, and nothing is under way. */
static bool settled(struct fixture *f, uint64_t voters)
{
	uint64_t leader = 0, ended = 0;

	for (size_t i = 0; i < N; i++) {
		char line[NODE_LINE];

		if (f->n[i].pid == 0) {
			continue;
		}
		node_say(&f->n[i], line, "status");
		if (node_number(line, "voters") != voters || node_number(line, "change") != 0 ||
		    node_number(line, "leader") == 0 ||
		    (leader != 0 && (node_number(line, "leader") != leader ||
				     node_number(line, "ended") != ended))) {
			return false;
		}
		leader = node_number(line, "leader");
		ended = node_number(line, "ended");
	}
	return true;
}

static int leader_of(struct fixture *f)
{
	for (size_t i = 0; i < N; i++) {
		uint64_t leader = f->n[i].pid != 0 ? node_status(&f->n[i], "leader") : 0;

		for (size_t j = 0; leader != 0 && j < N; j++) {
			if (f->id[j] == leader && f->n[j].pid != 0) {
				return (int)j;
			}
		}
	}
	return -1;
}

static int set_up(void **state)
{
	static const char *const names[N] = {"one", "two", "three", "four", "five"};
	struct fixture *f = calloc(1, sizeof(*f));
	char line[NODE_LINE];

	crypto_init();
	signal(SIGPIPE, SIG_IGN); /* a node may die while it is asked */
	snprintf(f->root, sizeof(f->root), "/tmp/skerry-members-XXXXXX");
	assert_non_null(mkdtemp(f->root));
	for (size_t i = 0; i < N; i++) {
		node_prepare(&f->n[i], f->root, names[i]);
		node_spawn(&f->n[i]);
	}
	*state = f;
	node_ok(&f->n[0], line, "init");
	node_ok(&f->n[0], line, "open");
	wait_for(node_status(&f->n[0], "leader") != 0, 10000, "a leader of one");
	for (size_t i = 1; i < N; i++) {
		char *token = strdup(node_ok(&f->n[0], line, "token"));

		node_ok(&f->n[i], line, "join %s", token);
		node_ok(&f->n[i], line, "open");
		free(token);
	}
	for (size_t i = 0; i < N; i++) {
		f->id[i] = node_status(&f->n[i], "id");
	}
	wait_for(settled(f, 5), 40000, "five voters");
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	char command[128];

	for (size_t i = 0; i < N; i++) {
		if (f->n[i].pid != 0) {
			node_kill(&f->n[i]);
		}
	}
	snprintf(command, sizeof(command), "rm -rf %s", f->root);
	assert_int_equal(system(command), 0);
	free(f);
	return 0;
}

/*
 * Begins the change by `asker`, while the leader dies at its n-th event. False: it ended before the leader came so far. The
 * dead one is started again afterwards.
 */
static bool change_and_kill(struct fixture *f, int n, const char *change, uint64_t voters_after)
{
	int leader = leader_of(f), asker = leader == 0 ? 1 : 0;
	uint64_t before = node_status(&f->n[asker], "ended"), end;
	char line[NODE_LINE];
	bool died;

	node_ok(&f->n[leader], line, "die %d", n);
	node_send(&f->n[asker], "change %s", change);
	node_answer(&f->n[asker], line); /* the leader may have died before it answered */
	if (strncmp(line, "ok", 2) != 0 && strstr(line, "UNAVAILABLE") == NULL &&
	    strstr(line, "UNKNOWN") == NULL && strstr(line, "leader changed") == NULL) {
		TEST_FAIL("event %d: %s", n, line);
	}
	/* Whoever leads now, it comes to its end, by those that are left. */
	end = clock_mono_ms() + 30000;
	while (node_status(&f->n[asker], "ended") == before ||
	       node_status(&f->n[asker], "change") != 0) {
		/* What had not begun when the leader died is asked for again. */
		if (node_status(&f->n[asker], "change") == 0 && strncmp(line, "ok", 2) != 0 &&
		    node_status(&f->n[asker], "ended") == before) {
			node_say(&f->n[asker], line, "change %s", change);
		}
		if (clock_mono_ms() > end) {
			dump(f);
			TEST_FAIL("event %d: %s does not end", n, change);
		}
		usleep(5000);
	}
	assert_int_equal(node_status(&f->n[asker], "outcome"), DONE);
	died = node_wait_exit(&f->n[leader], 0) == -1 && f->n[leader].pid == 0;
	if (died) {
		node_spawn(&f->n[leader]);
		node_ok(&f->n[leader], line, "open");
	} else {
		node_ok(&f->n[leader], line, "die 0");
	}
	wait_for(settled(f, voters_after), 30000, "all to agree");
	return died;
}

/* From five voters to three and back, with a kill at each event of the way; in the first round the leader's vote goes, too. */
static void test_killed_leaders(void **state)
{
	struct fixture *f = *state;
	char line[NODE_LINE], change[128];
	bool down = true, up = true;
	int n;

	for (n = getenv("FROM") ? atoi(getenv("FROM")) : 1; (down || up) && n < 30; n++) {
		uint64_t a, b;
		int first;

		wait_for(leader_of(f) >= 0, 10000, "a leader");
		first = leader_of(f) + (n > 3);
		a = f->id[first % N];
		b = f->id[(first + 1) % N];
		snprintf(change, sizeof(change), "demote %" PRIu64 ",%" PRIu64, a, b);
		down = change_and_kill(f, n, change, 3);
		snprintf(change, sizeof(change), "promote %" PRIu64 ",%" PRIu64, a, b);
		up = change_and_kill(f, n, change, 5);
	}
	print_message("the leader was killed at up to %d events of a change\n", n - 1);
	assert_in_range(n, 6, 29);
	/* All hold the same. */
	node_ok(&f->n[0], line, "digests");
	for (const char *first = strtok(line, " "), *d = first; d != NULL; d = strtok(NULL, " ")) {
		if (strncmp(d, "ok", 2) != 0) {
			assert_true(strlen(d) == 64);
		}
	}
}

/* The leader is removed at its own word; it ends, and says so by its status. */
static void test_leader_leaves(void **state)
{
	struct fixture *f = *state;
	int leader = leader_of(f);
	char line[NODE_LINE];

	node_ok(&f->n[leader], line, "change remove %" PRIu64, f->id[leader]);
	assert_int_equal(node_wait_exit(&f->n[leader], 20000), 76);
	wait_for(settled(f, 4), 30000, "four to go on");
	/* One more, and three are left: an odd number again. */
	leader = leader_of(f);
	for (int i = 0; i < N; i++) {
		if (f->n[i].pid != 0 && i != leader) {
			node_ok(&f->n[leader], line, "change remove %" PRIu64, f->id[i]);
			assert_int_equal(node_wait_exit(&f->n[i], 20000), 76);
			break;
		}
	}
	wait_for(settled(f, 3), 30000, "three to go on");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_killed_leaders),
		cmocka_unit_test(test_leader_leaves),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
