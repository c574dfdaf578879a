/* A store that is wrong: ordered rebuilds, refused files, flipped bits, pages that the disk does not give. */
/* LIBS: cluster */
#include "tests/lib/test.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/mem.h"
#include "cluster/store.h"
#include "cluster/store_int.h"

enum {
	RECORDS = 600,
	FLIPS = 240,
	ERROR_SEEN = 10,
	REBUILT = 11,
	EXIT_REBUILD = 70,
	EXIT_DAMAGED = 65
};

static char dir[TEST_DIR], path[TEST_DIR + 8], data[TEST_DIR + 24];

static int setup(void **state)
{
	(void)state;
	test_dir_make(dir);
	snprintf(path, sizeof(path), "%s/s", dir);
	snprintf(data, sizeof(data), "%s/data.mdb", path);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	test_dir_remove(dir);
	return 0;
}

static uint64_t look_bytes;

static int open_at(struct store **ret, bool *ret_dropped, struct err *err)
{
	struct store_options o = {
		.dir = path, .map_bytes = 64 << 20, .boot_id = "boot", .look_bytes = look_bytes};

	return store_open(ret, &o, ret_dropped, err);
}

static struct slice text(const char *s)
{
	return (struct slice){s, strlen(s)};
}

static void fill(struct store *s, int n)
{
	char value[200];
	const struct kv *kv;

	memset(value, 'v', sizeof(value));
	assert_ok(store_write(s, &kv, NULL));
	for (int i = 0; i < n; i++) {
		char key[16];

		snprintf(key, sizeof(key), "key%06d", i);
		assert_ok(kv_put(kv, text(key), (struct slice){value, sizeof(value)}));
	}
	assert_ok(store_set_applied(s, 7, NULL));
	assert_ok(store_commit(s, NULL));
}

static bool there(const char *name)
{
	char p[TEST_DIR + 32];

	snprintf(p, sizeof(p), "%s/%s", path, name);
	return access(p, F_OK) == 0;
}

/* ---- orders ---- */

static void a_rebuild_is_ordered(void **state)
{
	struct err err = {0};
	struct store *s;
	bool dropped;

	(void)state;
	assert_ok(open_at(&s, &dropped, NULL));
	assert_null(store_rebuilt(s));
	assert_null(store_damage(s));
	fill(s, 10);
	assert_ok(store_order_rebuild(s, "the digest is wrong", NULL));
	store_close(s); /* a clean end does not undo it */

	assert_ok(open_at(&s, &dropped, NULL));
	assert_true(dropped);
	assert_int_equal(store_applied(s), 0);
	assert_string_equal(store_rebuilt(s), "the digest is wrong");
	fill(s, 10);
	store_abandon(s);

	/* It is remembered until it is settled. */
	assert_ok(open_at(&s, &dropped, NULL));
	assert_false(dropped);
	assert_true(store_unclean(s));
	assert_string_equal(store_rebuilt(s), "the digest is wrong");
	assert_ok(store_settle(s, NULL));
	store_close(s);
	assert_ok(open_at(&s, &dropped, NULL));
	assert_null(store_rebuilt(s));
	assert_false(store_unclean(s));

	/* Wrong again before that: a person is needed. */
	assert_ok(store_order_rebuild(s, "first", NULL));
	store_close(s);
	assert_ok(open_at(&s, &dropped, NULL));
	assert_err(store_order_rebuild(s, "second", &err), ERR_CORRUPT);
	assert_non_null(strstr(err.msg, "join it anew"));
	store_close(s);
	assert_err(open_at(&s, &dropped, &err), ERR_CORRUPT);
	assert_non_null(strstr(err.msg, "second"));
	assert_non_null(strstr(err.msg, "skerry cluster remove"));
}

static void a_file_that_lmdb_refuses(void **state)
{
	struct store *s;
	bool dropped;
	int fd;

	(void)state;
	assert_ok(open_at(&s, NULL, NULL));
	fill(s, 100);
	store_close(s);
	fd = open(data, O_WRONLY);
	for (int page = 0; page < 2; page++) {
		assert_int_equal(
			pwrite(fd, "garbage garbage garbage garbage", 31, page * 4096 + 10), 31);
	}
	close(fd);
	assert_ok(open_at(&s, &dropped, NULL));
	assert_true(dropped);
	assert_int_equal(store_applied(s), 0);
	assert_non_null(store_rebuilt(s));
	store_close(s);
}

/* ---- flips ---- */

/* Everything a lighthouse does with a store. The exit code says how it went. */
static void use(void)
{
	struct slice key = {"", 0}, value;
	struct store_read *read;
	const struct kv *kv;
	struct store *s;
	int r, n = 0;

	for (int sig = 1; sig < 32; sig++) {
		signal(sig, SIG_DFL);
	}
	alarm(30);
	if (open_at(&s, NULL, NULL) != 0) {
		_exit(ERROR_SEEN);
	}
	r = store_read_begin(s, "walk", &read, NULL);
	if (r == 0) {
		kv = store_read_kv(read);
		while ((r = kv_next(kv, key, &key, &value)) == 0 && n++ < 10 * RECORDS) {
			volatile uint8_t sink = 0;

			for (size_t i = 0; i < value.len; i++) {
				sink ^= ((const uint8_t *)value.data)[i];
			}
		}
		store_read_end(read);
		r = r == ERR_NOT_FOUND || r == 0 ? 0 : r;
	}
	for (int i = 0; r == 0 && i < RECORDS; i += 3) {
		char k[16];

		snprintf(k, sizeof(k), "key%06d", i);
		r = store_write(s, &kv, NULL);
		r = r != 0 ? r : kv_put(kv, text(k), text("other"));
		r = r != 0 ? r : store_commit(s, NULL);
	}
	_exit(r != 0 ? ERROR_SEEN : store_rebuilt(s) != NULL ? REBUILT : 0);
}

static int in_child(void (*fn)(void))
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY);

		dup2(null, STDERR_FILENO);
		fn();
		_exit(99);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFEXITED(status)) {
		TEST_FAIL("the child ended by signal %d", WTERMSIG(status));
	}
	return WEXITSTATUS(status);
}

/*
 * Whatever bit is flipped: an answer, an error, an end that orders the rebuild, or a rebuild at once; no crash, no endless
 * loop. seen: counts of these.
 */
static void flip(int seen[4])
{
	struct test_rand rng = {4711};
	struct store *s;
	struct stat st;
	uint8_t *good, byte;
	int fd;

	assert_ok(open_at(&s, NULL, NULL));
	for (int i = 0; i < 5; i++) {
		fill(s, RECORDS);
	}
	store_close(s); /* no longer than what it holds */
	fd = open(data, O_RDWR);
	assert_int_equal(fstat(fd, &st), 0);
	good = mem_alloc((size_t)st.st_size);
	assert_int_equal(pread(fd, good, (size_t)st.st_size, 0), st.st_size);
	close(fd);
	for (int i = 0; i < FLIPS; i++) {
		/* Mostly in the headers and tables of pages, where it leads astray. */
		off_t page = (off_t)(test_rand_next(&rng) % (uint64_t)(st.st_size / 4096));
		off_t at = page * 4096 + (off_t)(test_rand_next(&rng) % (i % 4 == 0 ? 4096 : 64));
		char command[3 * TEST_DIR];
		int code;

		/* The child may have rebuilt it: the file is put back whole. */
		snprintf(command, sizeof(command),
			 "cd %s && rm -f rebuild rebuilt damaged lock.mdb && touch clean", path);
		assert_int_equal(system(command), 0);
		fd = open(data, O_RDWR | O_CREAT | O_TRUNC, 0600);
		assert_int_equal(pwrite(fd, good, (size_t)st.st_size, 0), st.st_size);
		byte = good[at] ^ (uint8_t)(1 << (test_rand_next(&rng) % 8));
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
		close(fd);
		code = in_child(use);
		if (code == EXIT_REBUILD) {
			assert_true(there("rebuild"));
			seen[2]++;
		} else if (code == 0 || code == ERROR_SEEN) {
			seen[code != 0]++;
		} else if (code == REBUILT) {
			seen[3]++;
		} else {
			TEST_FAIL("flip %d of byte %ld ended with %d", i, (long)at, code);
		}
	}
	mem_free(good);
	print_message("flips: %d unnoticed, %d errors, %d faults, %d rebuilt\n", seen[0], seen[1],
		      seen[2], seen[3]);
}

/* As it is when a bit flips while the store is in use: without the look. */
static void flipped_bits(void **state)
{
	int seen[4] = {0};

	(void)state;
	look_bytes = 1;
	flip(seen);
	look_bytes = 0;
	assert_true(seen[1] + seen[2] > 0);
}

/* What leads LMDB astray is seen before it does. */
static void flipped_bits_are_seen(void **state)
{
	int seen[4] = {0};

	(void)state;
	flip(seen);
	assert_int_equal(seen[1] + seen[2], 0);
	assert_true(seen[3] > 0);
}

/* ---- the look at the pages ---- */

/* One write of some sort; few keys, so that values are replaced by longer and shorter ones in one transaction, too. */
static void write_some(const struct kv *kv, struct test_rand *rng, unsigned keys)
{
	static uint8_t value[40000];
	uint64_t x = test_rand_next(rng);
	unsigned number = (unsigned)(x >> 40) % keys;
	size_t size = test_rand_next(rng) % (x % 5 == 0 ? sizeof(value) : x % 5 == 1 ? 3000 : 300);
	char key[400];
	int len = snprintf(key, sizeof(key), "%0*u", 4 + (int)(number * 7 % 300), number);

	if (x % 3 == 0) {
		int r = kv_del(kv, (struct slice){key, (size_t)len});

		assert_true(r == 0 || r == ERR_NOT_FOUND);
	} else {
		assert_ok(
			kv_put(kv, (struct slice){key, (size_t)len}, (struct slice){value, size}));
	}
}

/* Nothing is wrong with what LMDB makes of many writes and deletes: long values, many free pages, kills, aborts, readers. */
static void right_pages_are_right(void **state)
{
	static const unsigned keys[] = {8, 60, 600, 6000};
	struct test_rand rng = {99};
	const struct kv *kv;
	struct store *s;

	(void)state;
	for (int round = 0; round < 120; round++) {
		struct store_read *read = NULL;
		struct err err = {0};

		assert_ok(open_at(&s, NULL, NULL));
		assert_null(store_rebuilt(s));
		for (uint64_t turn = test_rand_next(&rng) % 12; turn > 0; turn--) {
			assert_ok(store_write(s, &kv, NULL));
			for (uint64_t i = test_rand_next(&rng) % 120; i > 0; i--) {
				write_some(kv, &rng, keys[round / 30]);
			}
			if (turn % 5 == 0) {
				store_abort(s);
			} else if (turn % 7 == 0) {
				assert_ok(store_clear(s, NULL));
			}
			assert_ok(store_commit(s, NULL));
			if (turn % 4 == 0) { /* keeps pages from being used again for a while */
				store_read_end(read);
				assert_ok(store_read_begin(s, "look", &read, NULL));
			}
		}
		store_read_end(read);
		if (round % 3 == 0) {
			assert_ok(store_write(s, &kv, NULL));
			write_some(kv, &rng, keys[round / 30]);
		}
		if (round % 2 == 0) {
			store_close(s);
		} else {
			store_abandon(s);
		}
		if (store_pages_check(path, 0, &err) != 0) {
			TEST_FAIL("round %d: %s", round, err.msg);
		}
	}
}

/* A store that was filled in order, and goes on from there. */
static void right_pages_of_a_fill(void **state)
{
	struct test_rand rng = {98};
	uint8_t value[5000] = {0};
	struct store *s, *fresh;
	struct err err = {0};
	const struct kv *kv;

	(void)state;
	assert_ok(open_at(&s, NULL, NULL));
	fill(s, RECORDS);
	assert_ok(store_fresh(s, &fresh, NULL));
	for (unsigned i = 0; i < 3000; i++) {
		char key[16];

		snprintf(key, sizeof(key), "key%06u", i);
		assert_ok(store_append(
			fresh, text(key),
			(struct slice){value, test_rand_next(&rng) % (i % 50 == 0 ? 5000 : 400)},
			NULL));
		if (i % 700 == 0) {
			assert_ok(store_commit(fresh, NULL));
		}
	}
	assert_ok(store_set_applied(fresh, 8, NULL));
	assert_ok(store_commit(fresh, NULL));
	assert_ok(store_adopt(s, fresh, NULL));
	if (store_pages_check(path, 0, &err) != 0) {
		TEST_FAIL("filled: %s", err.msg);
	}
	for (int turn = 0; turn < 30; turn++) {
		assert_ok(store_write(s, &kv, NULL));
		for (int i = 0; i < 100; i++) {
			char key[16];

			snprintf(key, sizeof(key), "key%06u",
				 (unsigned)(test_rand_next(&rng) % 3000));
			(void)!kv_del(kv, text(key));
		}
		assert_ok(store_commit(s, NULL));
		if (store_pages_check(path, 0, &err) != 0) {
			TEST_FAIL("turn %d: %s", turn, err.msg);
		}
	}
	store_close(s);
}

/* Whatever is in the file, the look itself comes to an end: right, or wrong. */
static void a_look_bears_anything(void **state)
{
	struct test_rand rng = {17};
	static uint8_t value[9000];
	const struct kv *kv;
	struct store *s;
	struct stat st;
	uint8_t *good;
	int fd, wrong = 0;

	(void)state;
	assert_ok(open_at(&s, NULL, NULL));
	fill(s, RECORDS);
	assert_ok(store_write(s, &kv, NULL));
	for (size_t i = 0; i < 20; i++) {
		char key[16];

		snprintf(key, sizeof(key), "long%zu", i % 7);
		assert_ok(kv_put(kv, text(key), (struct slice){value, sizeof(value) - i * 300}));
	}
	assert_ok(store_commit(s, NULL));
	store_close(s);
	fd = open(data, O_RDWR);
	assert_int_equal(fstat(fd, &st), 0);
	good = mem_alloc((size_t)st.st_size);
	assert_int_equal(pread(fd, good, (size_t)st.st_size, 0), st.st_size);
	assert_ok(store_pages_check(path, 0, NULL));
	for (int i = 0; i < 3000; i++) {
		off_t at[4];
		size_t n = 1 + test_rand_next(&rng) % 4;
		struct err err = {0};
		int r;

		for (size_t k = 0; k < n; k++) {
			uint64_t x = test_rand_next(&rng);
			uint8_t byte = (uint8_t)(x >> 48);

			/* Where a number stands: in headers, tables and roots, mostly. */
			at[k] = (off_t)(x % (uint64_t)(st.st_size / 4096) * 4096 +
					(x >> 32) % (x % 5 == 0 ? 4096 : 192));
			assert_int_equal(pwrite(fd, &byte, 1, at[k]), 1);
		}
		r = store_pages_check(path, 0, &err);
		if (r != 0 && (r != ERR_CORRUPT || err.msg[0] == '\0')) {
			TEST_FAIL("round %d: %d %s", i, r, err.msg);
		}
		wrong += r != 0;
		for (size_t k = 0; k < n; k++) {
			assert_int_equal(pwrite(fd, good + at[k], 1, at[k]), 1);
		}
	}
	assert_ok(store_pages_check(path, 0, NULL));
	close(fd);
	mem_free(good);
	print_message("%d of 3000 were wrong\n", wrong);
	assert_true(wrong > 300);
}

static void a_look_has_its_limit(void **state)
{
	uint8_t page[4096] = {0};
	struct store *s;
	struct stat st;
	int fd;

	(void)state;
	assert_ok(store_pages_check(path, 0, NULL)); /* nothing there */
	assert_ok(open_at(&s, NULL, NULL));
	fill(s, RECORDS);
	store_close(s);
	fd = open(data, O_RDWR);
	assert_int_equal(fstat(fd, &st), 0);
	for (off_t at = 2 * 4096; at < st.st_size; at += 4096) {
		assert_int_equal(pwrite(fd, page, sizeof(page), at), sizeof(page));
	}
	close(fd);
	assert_err(store_pages_check(path, 0, NULL), ERR_CORRUPT);
	assert_err(store_pages_check(path, (uint64_t)st.st_size, NULL), ERR_CORRUPT);
	assert_ok(store_pages_check(path, (uint64_t)st.st_size - 1, NULL));
	assert_int_equal(truncate(data, st.st_size - 4096), 0);
	assert_err(store_pages_check(path, 1, NULL), ERR_CORRUPT);
}

/* ---- the disk does not give a page ---- */

static void read_a_lost_page(void)
{
	struct slice key = {"", 0}, value;
	struct store_read *read;
	struct store *s;

	for (int sig = 1; sig < 32; sig++) {
		signal(sig, SIG_DFL);
	}
	alarm(30);
	if (open_at(&s, NULL, NULL) != 0 || store_read_begin(s, "walk", &read, NULL) != 0 ||
	    truncate(data, 3 * 4096) != 0) {
		_exit(98);
	}
	while (kv_next(store_read_kv(read), key, &key, &value) == 0) {
	}
}

static void a_lost_page(void **state)
{
	struct store *s;
	bool dropped;

	(void)state;
	assert_ok(open_at(&s, NULL, NULL));
	fill(s, RECORDS);
	store_close(s);
	assert_int_equal(in_child(read_a_lost_page), EXIT_REBUILD);
	assert_true(there("rebuild"));
	assert_ok(open_at(&s, &dropped, NULL));
	assert_true(dropped);
	assert_non_null(strstr(store_rebuilt(s), "page"));
	fill(s, RECORDS);
	store_close(s);
	/* Again, before anybody has found it right. */
	assert_int_equal(in_child(read_a_lost_page), EXIT_DAMAGED);
	assert_err(open_at(&s, &dropped, NULL), ERR_CORRUPT);
}

static void null_deref(void)
{
	struct store *s;

	for (int sig = 1; sig < 32; sig++) {
		signal(sig, SIG_DFL);
	}
	if (open_at(&s, NULL, NULL) != 0) {
		_exit(98);
	}
	{
		volatile uintptr_t nowhere = 8;

		*(volatile int *)nowhere = 1;
	}
}

/* A fault elsewhere ends as it would without a store. */
static void other_faults_are_not_ours(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		close(STDERR_FILENO);
		null_deref();
		_exit(99);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) ||
		    (WIFEXITED(status) && WEXITSTATUS(status) != EXIT_REBUILD));
	assert_false(there("rebuild"));
}

/* ---- room ---- */

/* What was deleted is room again, although the file does not shrink. */
static void deletes_make_room(void **state)
{
	struct store_usage u;
	const struct kv *kv;
	struct store *s;
	unsigned full;

	(void)state;
	assert_ok(open_at(&s, NULL, NULL));
	fill(s, 40000);
	assert_ok(store_usage(s, &u, NULL));
	full = store_used_permille(s);
	assert_true(full > 100);
	for (int i = 0; i < 40000; i++) {
		char key[16];

		snprintf(key, sizeof(key), "key%06d", i);
		assert_ok(store_write(s, &kv, NULL));
		assert_ok(kv_del(kv, text(key)));
	}
	assert_ok(store_commit(s, NULL));
	assert_ok(store_usage(s, &u, NULL));
	assert_true(u.free_pages > 1000);
	assert_true(store_used_permille(s) < full / 4);
	store_close(s);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_rebuild_is_ordered),      T(a_file_that_lmdb_refuses), T(flipped_bits),
		T(flipped_bits_are_seen),     T(right_pages_are_right),    T(right_pages_of_a_fill),
		T(a_look_has_its_limit),      T(a_look_bears_anything),    T(a_lost_page),
		T(other_faults_are_not_ours), T(deletes_make_room),
	};

	crypto_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
