/* A state that is wrong on one of three lighthouses: noticed without being asked, repaired at the next start. */
#include "tests/lib/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster/snapshot_look.h"

#include "node.h"

enum { EXIT_DATA = 65, EXIT_FAIL_STOP = 70, WAIT_MS = 30000, COMPARE_MS = 300 };

struct fixture {
	char root[64];
	struct node n[3];
	int users; /* name0 ... */
};

#define wait_for(condition, what)                                       \
	do {                                                            \
		uint64_t end_ = clock_mono_ms() + WAIT_MS;              \
		while (!(condition)) {                                  \
			if (clock_mono_ms() > end_) {                   \
				TEST_FAIL("timeout waiting for " what); \
			}                                               \
			usleep(5000);                                   \
		}                                                       \
	} while (0)

static bool voters(struct fixture *f, uint64_t n)
{
	for (size_t i = 0; i < 3; i++) {
		char line[NODE_LINE];

		if (f->n[i].pid == 0) {
			continue;
		}
		node_say(&f->n[i], line, "status");
		if (node_number(line, "voters") != n || node_number(line, "leader") == 0) {
			return false;
		}
	}
	return true;
}

static void start(struct node *n)
{
	char line[NODE_LINE];

	node_spawn(n);
	node_ok(n, line, "open");
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char line[NODE_LINE];

	snprintf(f->root, sizeof(f->root), "/tmp/skerry-damage-XXXXXX");
	assert_non_null(mkdtemp(f->root));
	for (size_t i = 0; i < 3; i++) {
		char name[8];

		snprintf(name, sizeof(name), "n%zu", i);
		node_prepare(&f->n[i], f->root, name);
		*state = f;
		node_spawn(&f->n[i]);
		if (i == 0) {
			node_ok(&f->n[i], line, "init");
		} else {
			char *token = strdup(node_ok(&f->n[0], line, "token"));

			node_ok(&f->n[i], line, "join %s", token);
			free(token);
		}
		node_ok(&f->n[i], line, "open");
		wait_for(voters(f, i == 1 ? 1 : i + 1), "the voters");
	}
	for (; f->users < 20; f->users++) {
		node_ok(&f->n[f->users % 3], line, "user name%d", f->users);
	}
	return 0;
}

/* So that nothing but the comparison can notice it. */
static int set_up_without_scrub(void **state)
{
	uint64_t every = node_scrub_ms;
	int r;

	node_scrub_ms = 3600 * 1000;
	r = set_up(state);
	node_scrub_ms = every;
	return r;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	char command[128];

	for (size_t i = 0; i < 3; i++) {
		if (f->n[i].pid != 0) {
			node_kill(&f->n[i]);
		}
	}
	snprintf(command, sizeof(command), "rm -rf %s", f->root);
	assert_int_equal(system(command), 0);
	free(f);
	return 0;
}

static struct node *one_that(struct fixture *f, bool leads)
{
	for (;;) {
		for (size_t i = 0; i < 3; i++) {
			char line[NODE_LINE];
			uint64_t leader;

			if (f->n[i].pid == 0) {
				continue;
			}
			node_say(&f->n[i], line, "status");
			leader = node_number(line, "leader");
			if (leader != 0 && (leader == node_number(line, "id")) == leads) {
				return &f->n[i];
			}
		}
		usleep(5000);
	}
}

static bool mark(const struct node *n, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/store/%s", n->dir, name);
	return access(path, F_OK) == 0;
}

static bool equal(struct fixture *f)
{
	char line[NODE_LINE], first[80], second[80], third[80];

	return strncmp(node_say(one_that(f, true), line, "digests"), "ok", 2) == 0 &&
	       sscanf(line, "ok %79s %79s %79s", first, second, third) == 3 &&
	       strlen(first) == 64 && strcmp(first, second) == 0 && strcmp(first, third) == 0;
}

/* It ends for the supervisor with the order, the others go on, and its next start makes it equal again. */
static void repaired(struct fixture *f, struct node *n)
{
	static int round;
	char line[NODE_LINE], has[48];

	round++;
	assert_int_equal(node_wait_exit(n, WAIT_MS), EXIT_FAIL_STOP);
	assert_true(mark(n, "rebuild"));
	node_ok(one_that(f, true), line, "user while-away%d", round);
	start(n);
	assert_false(mark(n, "rebuild"));
	wait_for(voters(f, 3), "the repaired one");
	snprintf(has, sizeof(has), "has while-away%d", round);
	wait_for(strcmp(node_say(n, line, "%s", has), "ok 1") == 0, "its state");
	wait_for(equal(f), "equal digests");
	/* Found right by a scrub and a comparison: the rebuild is history. */
	wait_for(!mark(n, "rebuilt"), "the end of the repair");
	node_ok(n, line, "user afterwards%d", round);
}

static void by_comparison(void **state)
{
	struct fixture *f = *state;
	struct node *n;

	for (int leads = 0; leads < 2; leads++) {
		n = one_that(f, leads != 0);
		print_message("%s is altered\n", leads != 0 ? "the leader" : "a follower");
		node_send(n, "corrupt digest"); /* it may end before it answers */
		repaired(f, n);
	}
}

static void by_scrub(void **state)
{
	struct fixture *f = *state;
	struct node *n;

	for (int leads = 0; leads < 2; leads++) {
		n = one_that(f, leads != 0);
		node_send(n, "corrupt record");
		repaired(f, n);
	}
	/* What the digest does not cover, and no comparison shows. */
	n = one_that(f, false);
	node_send(n, "corrupt index");
	repaired(f, n);
	n = one_that(f, true);
	node_send(n, "corrupt forged");
	repaired(f, n);
}

static int set_up_without_comparison(void **state)
{
	node_compare_ms = 3600 * 1000;
	return set_up(state);
}

static int tear_down_comparing(void **state)
{
	node_compare_ms = COMPARE_MS;
	return tear_down(state);
}

/*
 * What a rebuild does not change is no damage, and not worth a lighthouse: all of them would be alike in it. Without a
 * comparison nobody finds the rebuilt store right: it stays one that was just made anew.
 */
static void by_contradiction(void **state)
{
	struct fixture *f = *state;
	struct node *n = one_that(f, false);
	char line[NODE_LINE];

	node_send(n, "corrupt index");
	assert_int_equal(node_wait_exit(n, WAIT_MS), EXIT_FAIL_STOP);
	start(n);
	wait_for(voters(f, 3), "three voters");
	wait_for(equal(f), "equal digests");
	assert_true(mark(n, "rebuilt"));
	node_ok(n, line, "corrupt index");
	wait_for(node_number(node_say(n, line, "status"), "odd") > 0, "the scrub");
	assert_int_equal(node_number(line, "damaged"), 0);
	node_ok(n, line, "user afterwards");
	/* What the digest does not allow is damage nevertheless, and a person's. */
	node_send(n, "corrupt record");
	assert_int_equal(node_wait_exit(n, WAIT_MS), EXIT_DATA);
}

/* With nobody else to notice: it does not become a snapshot, which would take the log with it. */
static void by_snapshot(void **state)
{
	struct fixture *f = *state;
	char line[NODE_LINE];
	struct node *n = one_that(f, false);

	node_send(n, "corrupt record");
	node_ok(one_that(f, true), line, "load s 8");
	if (node_wait_exit(n, WAIT_MS) != EXIT_FAIL_STOP) {
		TEST_FAIL("it ended with %#x", (unsigned)n->exit_status);
	}
	assert_true(mark(n, "rebuild"));
	node_ok(one_that(f, true), line, "stop");
	start(n);
	wait_for(voters(f, 3), "the repaired one");
	wait_for(equal(f), "equal digests");
}

static int set_up_with_snapshots(void **state)
{
	int r;

	node_compare_ms = node_scrub_ms = 3600 * 1000;
	node_snapshot_bytes = 4 << 10; /* a larger state asks for up to 16 times as much */
	r = set_up(state);
	node_compare_ms = node_scrub_ms = 300;
	node_snapshot_bytes = 0;
	return r;
}

/* Wrong once more before anybody found it right: not a loop, but a person. */
static void wrong_again(void **state)
{
	struct fixture *f = *state;
	struct node *n = one_that(f, false);
	char line[NODE_LINE], path[256];
	int fd;

	node_quit(n);
	snprintf(path, sizeof(path), "%s/store/rebuilt", n->dir);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	assert_int_equal(write(fd, "before\n", 7), 7);
	close(fd);
	node_spawn(n);
	node_ok(n, line, "open");
	node_send(n, "corrupt record");
	assert_int_equal(node_wait_exit(n, WAIT_MS), EXIT_DATA);
	assert_true(mark(n, "damaged"));
	node_spawn(n);
	node_say(n, line, "open");
	assert_int_equal(strncmp(line, "error", 5), 0);
	assert_non_null(strstr(line, "skerry cluster remove"));
	node_ok(one_that(f, true), line, "user goes-on");
}

/* The answer, "" when it ended instead, as it may at any line. */
static const char *ask(struct node *n, char out[NODE_LINE], const char *what)
{
	size_t len = 0;

	out[0] = '\0';
	if (n->pid == 0) {
		return out;
	}
	/* It may end between two lines. */
	snprintf(out, NODE_LINE, "%s\n", what);
	IGNORE(send(n->fd, out, strlen(out), MSG_NOSIGNAL) < 0);
	while (len < NODE_LINE - 1 && read(n->fd, out + len, 1) == 1 && out[len] != '\n') {
		len++;
	}
	out[len] = '\0';
	if (len == 0) {
		node_wait_exit(n, WAIT_MS);
	}
	return out;
}

/* Starts it and has all of its state read and some written: the lighthouse is there, or it has ended. */
static bool is_there(struct node *n, const char *page, int users)
{
	static int round;
	char line[NODE_LINE], text[32];
	uint64_t end = clock_mono_ms() + WAIT_MS;

	node_spawn(n);
	if (strncmp(ask(n, line, "open"), "error", 5) == 0) {
		TEST_FAIL("%s: %s", page, line);
	}
	while (strncmp(ask(n, line, "status"), "ok", 2) == 0 &&
	       (node_number(line, "leader") == 0 ||
		(node_number(line, "scrubbed") == 0 && !mark(n, "rebuilt")))) {
		if (clock_mono_ms() > end) {
			TEST_FAIL("%s: neither found right nor wrong", page);
		}
		usleep(2000);
	}
	for (int i = 0; n->pid != 0 && i < users; i++) {
		snprintf(text, sizeof(text), "has name%d", i);
		while (strcmp(ask(n, line, text), "ok 1") != 0 && n->pid != 0) {
			if (clock_mono_ms() > end) {
				TEST_FAIL("%s: name%d: %s", page, i, line);
			}
			usleep(2000);
		}
	}
	/* A write that meets the page is not answered, or in the turn that ends it. */
	snprintf(text, sizeof(text), "user afterwards%d", ++round);
	if (strncmp(ask(n, line, text), "ok", 2) != 0 && n->pid != 0) {
		node_wait_exit(n, WAIT_MS);
	}
	return n->pid != 0;
}

/* Bits of the file, while it is closed: the lighthouse comes up, or says what to do and comes up the next time. */
static void flipped_in_the_file(void **state)
{
	struct fixture *f = *state;
	struct node *n = one_that(f, false);
	char line[NODE_LINE], path[256];
	struct test_rand rng = {10};
	struct stat st;
	uint8_t page[4096];
	int fd, flips = 0;

	node_quit(n);
	snprintf(path, sizeof(path), "%s/store/data.mdb", n->dir);
	fd = open(path, O_RDWR);
	assert_int_equal(fstat(fd, &st), 0);
	/* In each page but the first two, which LMDB checks by itself. */
	for (off_t at = 2 * 4096; at + 4096 <= st.st_size; at += 4096) {
		size_t bit = (size_t)(test_rand_next(&rng) % (64 * 8));

		assert_int_equal(pread(fd, page, sizeof(page), at), sizeof(page));
		page[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(pwrite(fd, page, sizeof(page), at), sizeof(page));
		flips++;
	}
	close(fd);
	assert_true(flips > 3);
	for (int tries = 0; !is_there(n, "the flips", f->users); tries++) {
		print_message("ended with status %#x\n", (unsigned)n->exit_status);
		assert_true(tries < 2 && mark(n, "rebuild"));
	}
	wait_for(equal(f), "equal digests");
	node_ok(n, line, "user after-the-flips");
}

/* ---- each page of a closed store in turn ---- */

enum { PAGE = 4096 };

static int set_up_alone(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char line[NODE_LINE];

	node_scrub_ms = 20;
	*state = f;
	snprintf(f->root, sizeof(f->root), "/tmp/skerry-damage-XXXXXX");
	assert_non_null(mkdtemp(f->root));
	node_prepare(&f->n[0], f->root, "n0");
	node_spawn(&f->n[0]);
	node_ok(&f->n[0], line, "init");
	node_ok(&f->n[0], line, "open");
	for (; f->users < 40; f->users++) {
		node_ok(&f->n[0], line, "user name%d", f->users);
	}
	node_quit(&f->n[0]);
	return 0;
}

static void damage(const char *path, off_t at, const void *bytes, size_t len)
{
	int fd = open(path, O_RDWR);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, len, at), (ssize_t)len);
	close(fd);
}

/* What `skerryd check` makes of it: nothing is changed by it, and what is wrong is said with its remedy. */
static bool checked(struct node *n, const char *page)
{
	char line[NODE_LINE];
	bool right;

	node_spawn(n);
	right = strcmp(ask(n, line, "check"), "ok") == 0;
	if (n->pid == 0) {
		assert_int_equal(WEXITSTATUS(n->exit_status), EXIT_DATA);
	} else if (!right && strstr(line, "data.mdb, and it is rebuilt") == NULL) {
		TEST_FAIL("%s: check: %s", page, line);
	}
	if (n->pid != 0) {
		node_quit(n);
	}
	assert_false(mark(n, "rebuild"));
	return right;
}

enum outcome { UNUSED_PAGE, AT_ONCE, AFTER_AN_END };

/* One page made nonsense: the lighthouse is there with all of its state, if need be after an end for its supervisor. */
static enum outcome one_page(struct fixture *f, off_t at, const void *bytes, size_t len,
			     const char *what)
{
	struct node *n = &f->n[0];
	char text[512];
	bool right, there;

	/* The log stays: what is written meanwhile is applied anew. */
	snprintf(text, sizeof(text), "rm -rf %s/store && cp -a %s/good %s/store", n->dir, f->root,
		 n->dir);
	assert_int_equal(system(text), 0);
	snprintf(text, sizeof(text), "%s/store/data.mdb", n->dir);
	damage(text, at, bytes, len);
	right = checked(n, what);
	there = is_there(n, what, f->users);
	if (!there) {
		if (!WIFEXITED(n->exit_status) || WEXITSTATUS(n->exit_status) != EXIT_FAIL_STOP) {
			TEST_FAIL("%s: status %#x", what, (unsigned)n->exit_status);
		}
		assert_true(mark(n, "rebuild"));
		if (!is_there(n, what, f->users)) {
			TEST_FAIL("%s: ended again", what);
		}
	}
	node_kill(n);
	return !there ? AFTER_AN_END : right ? UNUSED_PAGE : AT_ONCE;
}

/* Never the same error at each start. */
static void pages(struct fixture *f, size_t n_kinds)
{
	static const struct {
		const char *name;
		off_t at;
		uint8_t bytes[4];
		size_t len;
	} kinds[] = {
		{"no flags", 10, {0, 0}, 2},
		{"flags", 10, {0xff, 0xff}, 2},
		{"bounds", 12, {0xff, 0xff, 0xff, 0xff}, 4},
		{"no entries", 12, {16, 0, 0, 16}, 4},
	};
	int seen[3] = {0};
	char text[512];
	struct stat st;

	snprintf(text, sizeof(text), "cp -a %s/store %s/good", f->n[0].dir, f->root);
	assert_int_equal(system(text), 0);
	snprintf(text, sizeof(text), "%s/good/data.mdb", f->root);
	assert_int_equal(stat(text, &st), 0);
	assert_true(st.st_size / PAGE > 8);
	for (off_t page = 2; page < st.st_size / PAGE; page++) {
		for (size_t k = 0; k < n_kinds; k++) {
			enum outcome o;

			snprintf(text, sizeof(text), "page %ld, %s", (long)page, kinds[k].name);
			o = one_page(f, page * PAGE + kinds[k].at, kinds[k].bytes, kinds[k].len,
				     text);
			seen[o]++;
			if (o == UNUSED_PAGE) {
				break; /* free: one time is enough */
			}
		}
	}
	print_message("%ld pages: %d free, %d times rebuilt at once, %d times after an end\n",
		      (long)(st.st_size / PAGE), seen[UNUSED_PAGE], seen[AT_ONCE],
		      seen[AFTER_AN_END]);
	assert_true(seen[AT_ONCE] > 0);
	assert_true(node_look_bytes == 0 || seen[AFTER_AN_END] > 0);
}

static void each_page(void **state)
{
	pages(*state, 4);
}

/* As if it came after the look: LMDB meets the page, at the start or when it is needed. Others may lead it in circles. */
static void each_page_unseen(void **state)
{
	node_look_bytes = 1;
	pages(*state, 1);
	node_look_bytes = 0;
}

/* A snapshot that nothing needs now: a new one takes its place, without a write of a client's and without an end. */
static void snapshot_on_the_disk(void **state)
{
	struct fixture *f = *state;
	struct node *n = &f->n[0];
	struct snapshot_file one, two;
	char line[NODE_LINE], path[512];

	snprintf(path, sizeof(path), "%s/raft", n->dir);
	node_scrub_ms = 300;
	node_snapshot_bytes = 4 << 10;
	start(n);
	node_ok(n, line, "load s 8");
	wait_for(snapshot_newest(path, &one), "a snapshot");
	node_ok(n, line, "stop");
	node_quit(n);
	node_snapshot_bytes = 0;
	assert_true(snapshot_newest(path, &one));
	start(n);
	snprintf(path, sizeof(path), "%s/raft/%s", n->dir, one.name);
	damage(path, (off_t)one.bytes / 2, "damage", 6);
	snprintf(path, sizeof(path), "%s/raft", n->dir);
	wait_for(snapshot_newest(path, &two) && strcmp(one.name, two.name) != 0, "a new one");
	assert_int_equal(node_status(n, "damaged"), 1);
	node_quit(n);
	node_scrub_ms = 20;
}

/* Ends with the status, when the thread at work comes to no end. */
static void without_end(struct node *n, const char *how)
{
	char line[NODE_LINE];

	start(n);
	node_ok(n, line, "%s", how);
	assert_int_equal(node_wait_exit(n, WAIT_MS), EXIT_FAIL_STOP);
}

/* What comes to no end by the processor's work ends the process; waiting does not, nor does much to do. */
static void in_circles(void **state)
{
	struct fixture *f = *state;
	struct node *n = &f->n[0];
	char line[NODE_LINE];

	node_turn_ms = 500;
	without_end(n, "busy spin");
	without_end(n, "busy spin peer");
	assert_false(mark(n, "rebuild"));
	without_end(n, "busy spin store");
	assert_true(mark(n, "rebuild")); /* whatever the look at the pages finds */
	start(n);
	node_ok(n, line, "busy stand");
	node_ok(n, line, "busy work");
	node_ok(n, line, "user more");
	node_quit(n);
	node_turn_ms = 0;
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(by_comparison, set_up_without_scrub, tear_down),
		T(by_scrub),
		cmocka_unit_test_setup_teardown(by_contradiction, set_up_without_comparison,
						tear_down_comparing),
		cmocka_unit_test_setup_teardown(by_snapshot, set_up_with_snapshots, tear_down),
		T(wrong_again),
		T(flipped_in_the_file),
		cmocka_unit_test_setup_teardown(each_page, set_up_alone, tear_down),
		cmocka_unit_test_setup_teardown(snapshot_on_the_disk, set_up_alone, tear_down),
		cmocka_unit_test_setup_teardown(in_circles, set_up_alone, tear_down),
		cmocka_unit_test_setup_teardown(each_page_unseen, set_up_alone, tear_down),
	};

	node_compare_ms = COMPARE_MS;
	node_scrub_ms = 300;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
