/* LIBS: base
 * base/macros.h, base/mem.h, base/err.h */
#include "tests/lib/test.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs fn in a child with stderr in a pipe; returns the wait status and what it printed. */
static int in_child(void (*fn)(void), char *out, size_t cap)
{
	int fds[2];
	size_t len = 0;
	ssize_t n;
	int status;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		signal(SIGABRT, SIG_DFL);
		dup2(fds[1], STDERR_FILENO);
		close(fds[0]);
		close(fds[1]);
		fn();
		_exit(0);
	}
	close(fds[1]);
	while ((n = read(fds[0], out + len, cap - 1 - len)) > 0) {
		len += (size_t)n;
	}
	out[len] = '\0';
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void child_pre(void)
{
	volatile int one = 1;

	PRE(one == 2);
}

static void child_post(void)
{
	volatile int one = 1;

	POST(one > 1);
}

static void child_impossible(void)
{
	IMPOSSIBLE("sun at night");
}

static void test_assertions(void **state)
{
	static const struct {
		void (*fn)(void);
		const char *text;
	} cases[] = {
		{child_pre, "precondition: one == 2"},
		{child_post, "postcondition: one > 1"},
		{child_impossible, "impossible: sun at night"},
	};
	char out[2048];

	(void)state;
	TEST_TABLE(c, cases)
	{
		int status = in_child(c->fn, out, sizeof(out));

		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGABRT);
		assert_contains(out, "test_base_core.c:");
		assert_contains(out, c->text);
	}
	PRE(1);
	POST(1);
}

static int calls;

static int counted(int v)
{
	calls++;
	return v;
}

static void test_macros(void **state)
{
	struct pair {
		int a;
		int b;
	} p = {1, 2};
	int *b = &p.b;
	int three[3];

	(void)state;
	assert_int_equal(ARRAY_LEN(three), 3);
	assert_ptr_equal(container_of(b, struct pair, b), &p);
	assert_int_equal(MIN(counted(3), counted(4)), 3);
	assert_int_equal(MAX(counted(3), counted(4)), 4);
	assert_int_equal(calls, 4);
	assert_int_equal(MIN(MIN(3, 2), MAX(1, 5)), 2);
}

static volatile size_t huge = SIZE_MAX;

static void child_calloc(void)
{
	mem_free(mem_calloc(huge / 2, 3));
}

static void child_reallocarray(void)
{
	mem_free(mem_reallocarray(NULL, huge, 2));
}

static void test_mem_out_of_memory(void **state)
{
	static void (*const fns[])(void) = {child_calloc, child_reallocarray};
	char out[512];

	(void)state;
	TEST_TABLE(fn, fns)
	{
		int status = in_child(*fn, out, sizeof(out));

		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), MEM_EXIT_CODE);
		assert_contains(out, "out of memory");
	}
}

static void test_mem(void **state)
{
	static const uint8_t zero[32];
	char *s;
	void *p;

	(void)state;
	p = mem_alloc(0);
	assert_non_null(p);
	p = mem_realloc(p, 10);
	mem_free(p);
	p = mem_zalloc(32);
	assert_memory_equal(p, zero, 32);
	mem_free(p);
	p = mem_calloc(0, 8);
	assert_non_null(p);
	mem_free(p);
	assert_null(mem_strdup(NULL));
	s = mem_strdup("hello");
	assert_string_equal(s, "hello");
	mem_free(s);
	s = mem_strndup("hello", 3);
	assert_string_equal(s, "hel");
	mem_free(s);
	s = mem_strndup("hi", 10);
	assert_string_equal(s, "hi");
	mem_free(s);
	s = mem_memdup("a\0b", 3);
	assert_memory_equal(s, "a\0b", 3);
	mem_free(s);
	mem_free(mem_memdup(NULL, 0));
	s = mem_printf("%d-%s", 7, "x");
	assert_string_equal(s, "7-x");
	mem_free(s);
	mem_free(NULL);
}

static void test_err_table(void **state)
{
	static const struct {
		int code;
		int grpc;
		const char *name;
	} cases[] = {
		{ERR_CANCELLED, 1, "ERR_CANCELLED"},
		{ERR_INVALID, 3, "ERR_INVALID"},
		{ERR_UNAUTHENTICATED, 16, "ERR_UNAUTHENTICATED"},
		{ERR_NO_QUORUM, 14, "ERR_NO_QUORUM"},
		{ERR_NOT_LEADER, 14, "ERR_NOT_LEADER"},
		{ERR_STORE, 13, "ERR_STORE"},
		{ERR_CORRUPT, 15, "ERR_CORRUPT"},
		{0, 0, "OK"},
		{5, 0, "OK"},
		{-ENOENT, 5, "ERRNO"},
		{-EEXIST, 6, "ERRNO"},
		{-EACCES, 7, "ERRNO"},
		{-ENOSPC, 8, "ERRNO"},
		{-ECONNREFUSED, 14, "ERRNO"},
		{-EIO, 13, "ERRNO"},
		{-9999, 2, "ERR_UNKNOWN"},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		assert_int_equal(err_grpc(c->code), c->grpc);
		assert_string_equal(err_name(c->code), c->name);
		assert_true(err_text(c->code)[0] != '\0');
	}
	/* Codes and statuses correspond, and no code is taken twice (the enum would not compile as
	 * switch cases otherwise). */
	for (int status = 1; status <= 16; status++) {
		assert_int_equal(err_from_grpc(status), -2000 - status);
		assert_int_equal(err_grpc(err_from_grpc(status)), status);
	}
	assert_int_equal(err_from_grpc(0), 0);
	assert_int_equal(err_from_grpc(17), ERR_UNKNOWN);
	assert_int_equal(err_from_grpc(-1), ERR_UNKNOWN);
	assert_string_equal(err_text(ERR_NO_QUORUM), "no quorum");
	assert_string_equal(err_text(-ENOENT), "No such file or directory");
}

static void test_err_details(void **state)
{
	char long_text[1000];
	struct err e = {0};

	(void)state;
	assert_int_equal(err_set(NULL, ERR_INVALID, "x"), ERR_INVALID);
	err_prefix(NULL, "x");
	assert_int_equal(err_field(&e, ERR_INVALID, "name", "bad %d", 3), ERR_INVALID);
	assert_string_equal(e.msg, "bad 3");
	assert_string_equal(e.field, "name");
	assert_string_equal(e.reason, "");
	assert_int_equal(err_reason(&e, ERR_NO_QUORUM, "NO_QUORUM", "none"), ERR_NO_QUORUM);
	assert_string_equal(e.reason, "NO_QUORUM");
	assert_string_equal(e.field, "");
	err_prefix(&e, "call %d", 1);
	assert_string_equal(e.msg, "call 1: none");
	assert_int_equal(e.code, ERR_NO_QUORUM);
	/* The arguments may be the error itself. */
	assert_int_equal(err_set(&e, ERR_INTERNAL, "<%s>", e.msg), ERR_INTERNAL);
	assert_string_equal(e.msg, "<call 1: none>");
	errno = ENOENT;
	assert_int_equal(err_errno(&e, "open %s", "f"), -ENOENT);
	assert_string_equal(e.msg, "open f: No such file or directory");

	memset(long_text, 'a', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	err_reason(&e, ERR_INVALID, long_text, "%s", long_text);
	assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
	assert_int_equal(strlen(e.reason), sizeof(e.reason) - 1);
	err_prefix(&e, "%s", long_text);
	assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
	assert_string_equal(err_msg(&e, 0), e.msg);
	err_clear(&e);
	assert_string_equal(err_msg(&e, ERR_LIMIT), "limit reached");
	assert_string_equal(err_msg(NULL, ERR_LIMIT), "limit reached");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_assertions),        cmocka_unit_test(test_macros),
		cmocka_unit_test(test_mem_out_of_memory), cmocka_unit_test(test_mem),
		cmocka_unit_test(test_err_table),         cmocka_unit_test(test_err_details),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
