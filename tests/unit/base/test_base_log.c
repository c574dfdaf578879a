/* LIBS: base
 * base/log.h */
#include "tests/lib/test.h"

#include "base/crypto.h"
#include "base/key.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

static char last[8192];
static enum log_level last_level;
static unsigned lines;

static void sink(void *arg, enum log_level level, const char *line)
{
	(void)arg;
	snprintf(last, sizeof(last), "%s", line);
	last_level = level;
	lines++;
}

static struct test_clock tclock;

static int setup(void **state)
{
	struct log_options opts = {.level = LOG_LEVEL_INFO, .format = LOG_FORMAT_TEXT};

	(void)state;
	crypto_init();
	log_init(&opts);
	log_set_sink(sink, NULL);
	test_clock_start(&tclock, 1000, 1795354200123);
	last[0] = '\0';
	lines = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	log_set_sink(NULL, NULL);
	test_clock_stop();
	return 0;
}

static void test_text(void **state)
{
	(void)state;
	errno = 77;
	LOG_INFO("member joined id=%d", 5);
	assert_int_equal(errno, 77);
	assert_int_equal(last_level, LOG_LEVEL_INFO);
	assert_contains(last, "time=2026-11-22T13:30:00.123Z level=info src=");
	assert_contains(last, "base/test_base_log.c:");
	assert_contains(last, " msg=\"member joined id=5\"");
	LOG_ERROR("a \"b\"\n<3>forged\x1b[31m\\");
	assert_contains(last, "msg=\"a \\\"b\\\"\\n<3>forged\\x1b[31m\\\\\"");
	assert_contains(last, "level=error");
}

static void test_journal(void **state)
{
	struct log_options opts = {.level = LOG_LEVEL_DEBUG, .format = LOG_FORMAT_JOURNAL};

	(void)state;
	log_init(&opts);
	LOG_ERROR("x");
	assert_int_equal(strncmp(last, "<3>", 3), 0);
	LOG_WARN("x");
	assert_int_equal(strncmp(last, "<4>", 3), 0);
	LOG_INFO("x");
	assert_int_equal(strncmp(last, "<6>", 3), 0);
	LOG_DEBUG("quoted \"y\"\n<0>z");
	assert_int_equal(strncmp(last, "<7>", 3), 0);
	assert_contains(last, ": quoted \"y\"\\n<0>z");
}

static int evaluated;

static int evaluate(void)
{
	return ++evaluated;
}

static void test_levels(void **state)
{
	enum log_level level = LOG_LEVEL_ERROR;
	struct err e = {0};

	(void)state;
	evaluated = 0;
	LOG_DEBUG("%d", evaluate());
	assert_int_equal(evaluated, 0);
	assert_int_equal(lines, 0);
	log_set_level(LOG_LEVEL_DEBUG);
	LOG_DEBUG("%d", evaluate());
	assert_int_equal(evaluated, 1);
	assert_int_equal(lines, 1);
	log_set_level(LOG_LEVEL_ERROR);
	LOG_WARN("x");
	assert_int_equal(lines, 1);
	LOG_ERROR("x");
	assert_int_equal(lines, 2);
	assert_ok(log_level_parse("debug", &level, &e));
	assert_int_equal(level, LOG_LEVEL_DEBUG);
	assert_err(log_level_parse("loud", &level, &e), ERR_INVALID);
	assert_contains(e.msg, "error, warn, info or debug");
}

static void one_site(void)
{
	LOG_WARN("again");
}

static void test_rate(void **state)
{
	(void)state;
	for (int i = 0; i < LOG_SITE_BURST + 30; i++) {
		one_site();
	}
	assert_int_equal(lines, LOG_SITE_BURST);
	/* Another site is not hushed by this one. */
	LOG_WARN("other");
	assert_int_equal(lines, LOG_SITE_BURST + 1);
	test_clock_advance(&tclock, LOG_SITE_WINDOW_MS - 1);
	one_site();
	assert_int_equal(lines, LOG_SITE_BURST + 1);
	test_clock_advance(&tclock, 1);
	one_site();
	assert_int_equal(lines, LOG_SITE_BURST + 2);
	assert_contains(last, "dropped=31");
	one_site();
	assert_lacks(last, "dropped=");
}

static void test_redaction(void **state)
{
	static const struct {
		const char *in;
		const char *out;
	} cases[] = {
		{"key sk-auth-42-abcDEF-9z end", "msg=\"key sk-auth-42-[redacted] end\""},
		{"sk-api-1-a,sk-join-2-b", "msg=\"sk-api-1-[redacted],sk-join-2-[redacted]\""},
		{"sk-auth-x", "msg=\"sk-auth-x\""},
		{"sk-auth-42", "msg=\"sk-auth-42\""},
		{"ask-auth-42-abc", "msg=\"ask-auth-42-[redacted]\""},
		{"s", "msg=\"s\""},
	};
	struct buf b = BUF_INIT;
	struct key k;

	(void)state;
	TEST_TABLE(c, cases)
	{
		LOG_INFO("%s", c->in);
		assert_contains(last, c->out);
	}
	key_generate(&k, KEY_AUTH, 7);
	key_format(&k, &b);
	LOG_INFO("got '%s'", buf_str(&b));
	assert_contains(last, "'sk-auth-7-[redacted]'");
	assert_lacks(last, (char *)b.data + strlen("sk-auth-7-"));
	buf_wipe(&b);
}

static void test_long(void **state)
{
	char text[6000];

	(void)state;
	memset(text, 'a', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	LOG_INFO("%s", text);
	assert_in_range(strlen(last), 4000, 4300);
}

static void test_stderr(void **state)
{
	char out[1024];
	int fds[2];
	int saved = dup(STDERR_FILENO);
	ssize_t n;

	(void)state;
	log_set_sink(NULL, NULL);
	assert_int_equal(pipe(fds), 0);
	dup2(fds[1], STDERR_FILENO);
	LOG_INFO("to stderr");
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(fds[1]);
	n = read(fds[0], out, sizeof(out) - 1);
	close(fds[0]);
	assert_true(n > 0);
	out[n] = '\0';
	assert_contains(out, "msg=\"to stderr\"\n");
}

static void *log_some(void *arg)
{
	(void)arg;
	for (int i = 0; i < 10; i++) {
		LOG_INFO("thread %d", i);
	}
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t threads[4];

	(void)state;
	TEST_TABLE(t, threads)
	{
		assert_int_equal(pthread_create(t, NULL, log_some, NULL), 0);
	}
	TEST_TABLE(t, threads)
	{
		pthread_join(*t, NULL);
	}
	assert_int_equal(lines, 40);
}

static void test_secret_str(void **state)
{
	struct secret_str s = {0};

	(void)state;
	assert_false(secret_str_set(&s));
	assert_string_equal(secret_str_reveal(&s), "");
	s = secret_str_take(mem_strdup("hush"));
	assert_true(secret_str_set(&s));
	assert_string_equal(secret_str_reveal(&s), "hush");
	secret_str_done(&s);
	assert_false(secret_str_set(&s));
	secret_str_done(&s);
	secret_str_done(NULL);
}

int main(void)
{
#define LOG_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		LOG_TEST(test_text),   LOG_TEST(test_journal),   LOG_TEST(test_levels),
		LOG_TEST(test_rate),   LOG_TEST(test_redaction), LOG_TEST(test_long),
		LOG_TEST(test_stderr), LOG_TEST(test_threads),   LOG_TEST(test_secret_str),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
