/* LIBS: base
 * base/fileio.h */
#include "tests/lib/test.h"

#include "base/buf.h"
#include "base/crypto.h"
#include "base/fileio.h"
#include "base/limits.h"
#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[TEST_DIR];
static char path_buf[512];

/* Path below the test's directory; one at a time. */
static const char *at(const char *name)
{
	snprintf(path_buf, sizeof(path_buf), "%s/%s", dir, name);
	return path_buf;
}

static int entries(void)
{
	struct dirent *e;
	DIR *d = opendir(dir);
	int n = 0;

	assert_non_null(d);
	while ((e = readdir(d)) != NULL) {
		n += e->d_name[0] != '.';
	}
	closedir(d);
	return n;
}

static unsigned mode_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_mode & 07777;
}

static int setup(void **state)
{
	(void)state;
	crypto_init();
	umask(022);
	test_dir_make(dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	test_dir_remove(dir);
	return 0;
}

static void test_read(void **state)
{
	struct buf b = BUF_INIT;
	struct err e = {0};

	(void)state;
	assert_err(file_read(at("none"), 10, &b, &e), -ENOENT);
	assert_contains(e.msg, "/none: No such file");
	assert_ok(file_write_atomic(at("f"), "0123456789", 10, 0600, &e));
	buf_append_str(&b, "x");
	assert_ok(file_read(at("f"), 10, &b, &e));
	assert_string_equal(buf_str(&b), "x0123456789");
	assert_err(file_read(at("f"), 9, &b, &e), ERR_LIMIT);
	assert_contains(e.msg, "larger than 9 bytes");
	assert_int_equal(b.len, 11);
	assert_err(file_read(dir, 10, &b, &e), -EISDIR);
	/* Larger than one read. */
	{
		static char big[200000];

		memset(big, 'b', sizeof(big));
		assert_ok(file_write_atomic(at("big"), big, sizeof(big), 0600, &e));
		buf_reset(&b);
		assert_ok(file_read(at("big"), sizeof(big), &b, &e));
		assert_int_equal(b.len, sizeof(big));
		assert_memory_equal(b.data, big, sizeof(big));
		assert_err(file_read(at("big"), sizeof(big) - 1, &b, &e), ERR_LIMIT);
	}
	buf_done(&b);
}

static void test_write(void **state)
{
	struct buf b = BUF_INIT;
	struct err e = {0};

	(void)state;
	assert_ok(file_write_atomic(at("w"), "one", 3, 0600, &e));
	assert_int_equal(mode_of(at("w")), 0600);
	assert_ok(file_write_atomic(at("w"), "two!", 4, 0666, &e));
	assert_int_equal(mode_of(at("w")), 0666);
	assert_ok(file_read(at("w"), 100, &b, &e));
	assert_string_equal(buf_str(&b), "two!");
	assert_err(file_write_new(at("w"), "x", 1, 0600, &e), ERR_EXISTS);
	assert_contains(e.msg, "there already");
	assert_ok(file_write_new(at("n"), "x", 1, 0400, &e));
	assert_int_equal(mode_of(at("n")), 0400);
	assert_err(file_write_atomic(at("none/w"), "x", 1, 0600, &e), -ENOENT);
	/* Nothing is left beside them. */
	assert_ok(file_write_atomic(at("empty"), NULL, 0, 0600, &e));
	assert_int_equal(entries(), 3);
	assert_true(file_exists(at("empty")));
	assert_ok(file_remove(at("empty"), &e));
	assert_false(file_exists(at("empty")));
	assert_ok(file_remove(at("empty"), &e));
	/* A failed rename leaves neither a temporary file nor a change. */
	assert_int_equal(mkdir(at("d"), 0700), 0);
	assert_true(file_write_atomic(at("d"), "x", 1, 0600, &e) < 0);
	assert_int_equal(entries(), 3);
	buf_done(&b);
}

static void test_dirs(void **state)
{
	struct err e = {0};

	(void)state;
	assert_ok(dir_ensure(at("a/b/c"), 0700, &e));
	assert_int_equal(mode_of(at("a/b/c")), 0700);
	assert_int_equal(mode_of(at("a/b")), 0755);
	assert_ok(dir_ensure(at("a/b/c/"), 0755, &e));
	assert_int_equal(mode_of(at("a/b/c")), 0700);
	assert_ok(file_write_atomic(at("a/f"), "", 0, 0600, &e));
	assert_err(dir_ensure(at("a/f"), 0700, &e), -ENOTDIR);
	assert_err(dir_ensure(at("a/f/g"), 0700, &e), -ENOTDIR);
	assert_err(dir_ensure("", 0700, &e), ERR_INVALID);
	assert_ok(dir_sync(at("a"), &e));
	assert_err(dir_sync(at("none"), &e), -ENOENT);
}

static void test_private(void **state)
{
	struct err e = {0};

	(void)state;
	assert_ok(dir_ensure(at("p/sub"), 0700, &e));
	assert_int_equal(chmod(at("p"), 0700), 0);
	assert_ok(file_write_atomic(at("p/sub/key"), "k", 1, 0600, &e));
	assert_ok(file_check_private(at("p/sub/key"), &e));
	assert_ok(dir_check_private(at("p"), &e));

	assert_int_equal(chmod(at("p/sub/key"), 0640), 0);
	assert_err(file_check_private(at("p/sub/key"), &e), ERR_PRECONDITION);
	assert_contains(e.msg, "mode 0640");
	assert_contains(e.msg, "chmod 0600 ");
	assert_err(dir_check_private(at("p"), &e), ERR_PRECONDITION);
	assert_contains(e.msg, "p/sub/key");
	assert_int_equal(chmod(at("p/sub/key"), 0600), 0);
	assert_int_equal(chmod(at("p/sub"), 0701), 0);
	assert_err(dir_check_private(at("p"), &e), ERR_PRECONDITION);
	assert_contains(e.msg, "chmod 0700 ");
	assert_int_equal(chmod(at("p/sub"), 0700), 0);
	assert_int_equal(symlink("/etc/passwd", at("p/link")), 0);
	assert_err(dir_check_private(at("p"), &e), ERR_PRECONDITION);
	assert_contains(e.msg, "symbolic link");
	assert_err(file_check_private(at("none"), &e), -ENOENT);
	if (geteuid() == 0) {
		assert_int_equal(chown(at("p/sub/key"), 12345, 0), 0);
		assert_err(file_check_private(at("p/sub/key"), &e), ERR_PRECONDITION);
		assert_contains(e.msg, "belongs to user 12345");
		assert_contains(e.msg, "chown 0 ");
	}
}

static void test_lock(void **state)
{
	char pid[32];
	struct buf b = BUF_INIT;
	struct err e = {0};
	int fd = file_lock(at("lock"), &e);

	(void)state;
	assert_true(fd >= 0);
	snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
	assert_ok(file_read(at("lock"), 100, &b, &e));
	assert_string_equal(buf_str(&b), pid);
	assert_err(file_lock(at("lock"), &e), ERR_EXISTS);
	pid[strlen(pid) - 1] = '\0';
	assert_contains(e.msg, pid);
	file_unlock(fd);
	fd = file_lock(at("lock"), &e);
	assert_true(fd >= 0);
	file_unlock(fd);
	file_unlock(-1);
	buf_done(&b);
}

static void test_secret_sources(void **state)
{
	char long_text[LIM_SECRET_BYTES + 2];
	char spec[600];
	struct secret_str s = {0};
	struct err e = {0};
	bool literal;

	(void)state;
	assert_ok(secret_read("sk-auth-1-x", &s, &literal, &e));
	assert_true(literal);
	assert_string_equal(secret_str_reveal(&s), "sk-auth-1-x");
	secret_str_done(&s);

	assert_ok(file_write_atomic(at("s"), "from file\n\r\n", 12, 0600, &e));
	snprintf(spec, sizeof(spec), "file:%s", at("s"));
	assert_ok(secret_read(spec, &s, &literal, &e));
	assert_false(literal);
	assert_string_equal(secret_str_reveal(&s), "from file");
	secret_str_done(&s);
	assert_err(secret_read("file:/does/not/exist", &s, &literal, &e), -ENOENT);
	assert_contains(e.msg, "/does/not/exist");

	setenv("SKERRY_TEST_SECRET", "from env", 1);
	assert_ok(secret_read("env:SKERRY_TEST_SECRET", &s, NULL, &e));
	assert_string_equal(secret_str_reveal(&s), "from env");
	secret_str_done(&s);
	unsetenv("SKERRY_TEST_SECRET");
	assert_err(secret_read("env:SKERRY_TEST_SECRET", &s, NULL, &e), ERR_NOT_FOUND);
	assert_contains(e.msg, "SKERRY_TEST_SECRET is not set");

	assert_err(secret_read("", &s, NULL, &e), ERR_INVALID);
	assert_ok(file_write_atomic(at("s"), "\n", 1, 0600, &e));
	assert_err(secret_read(spec, &s, NULL, &e), ERR_INVALID);
	assert_ok(file_write_atomic(at("s"), "a\0b", 3, 0600, &e));
	assert_err(secret_read(spec, &s, NULL, &e), ERR_INVALID);
	memset(long_text, 'x', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	assert_err(secret_read(long_text, &s, NULL, &e), ERR_LIMIT);
	assert_ok(file_write_atomic(at("s"), long_text, LIM_SECRET_BYTES + 1, 0600, &e));
	assert_err(secret_read(spec, &s, NULL, &e), ERR_LIMIT);
	assert_ok(file_write_atomic(at("s"), long_text, LIM_SECRET_BYTES, 0600, &e));
	assert_ok(secret_read(spec, &s, NULL, &e));
	secret_str_done(&s);
}

static void test_secret_stdin(void **state)
{
	struct secret_str s = {0};
	int saved = dup(STDIN_FILENO);
	struct err e = {0};
	bool literal = true;
	int fds[2];

	(void)state;
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(write(fds[1], "piped\n", 6), 6);
	close(fds[1]);
	dup2(fds[0], STDIN_FILENO);
	close(fds[0]);
	assert_ok(secret_read("-", &s, &literal, &e));
	assert_false(literal);
	assert_string_equal(secret_str_reveal(&s), "piped");
	secret_str_done(&s);
	assert_err(secret_read("-", &s, &literal, &e), ERR_INVALID);
	assert_contains(e.msg, "standard input");
	dup2(saved, STDIN_FILENO);
	close(saved);
}

int main(void)
{
#define FILE_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		FILE_TEST(test_read),         FILE_TEST(test_write), FILE_TEST(test_dirs),
		FILE_TEST(test_private),      FILE_TEST(test_lock),  FILE_TEST(test_secret_sources),
		FILE_TEST(test_secret_stdin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
