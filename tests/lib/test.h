/* What every unit test begins with: cmocka with its prologue, and helpers that it lacks. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/macros.h"
#include "base/rand.h"

/* Tables of cases:
 *   TEST_TABLE(c, cases) { assert_int_equal(f(c->in), c->out); } */
#define TEST_TABLE(it, table) \
	for (__typeof__(&(table)[0]) it = (table); it < (table) + ARRAY_LEN(table); it++)

/* Fails with a text of its own. */
#define TEST_FAIL(...)                              \
	do {                                        \
		print_error("ERROR: " __VA_ARGS__); \
		print_error("\n");                  \
		fail();                             \
	} while (0)

#define assert_ok(call)                                                                         \
	do {                                                                                    \
		int rv_ = (call);                                                               \
		if (rv_ < 0) {                                                                  \
			TEST_FAIL("%s = %d %s (%s)", #call, rv_, err_name(rv_), err_text(rv_)); \
		}                                                                               \
	} while (0)

/* The call gives exactly this code; shows the names. */
#define assert_err(call, code_)                                                         \
	do {                                                                            \
		int rv_ = (call);                                                       \
		if (rv_ != (code_)) {                                                   \
			TEST_FAIL("%s = %d %s, expected %s", #call, rv_, err_name(rv_), \
				  err_name(code_));                                     \
		}                                                                       \
	} while (0)

#define assert_contains(text, part)                                          \
	do {                                                                 \
		const char *t_ = (text);                                     \
		const char *p_ = (part);                                     \
		if (strstr(t_, p_) == NULL) {                                \
			TEST_FAIL("\"%s\" does not contain \"%s\"", t_, p_); \
		}                                                            \
	} while (0)

#define assert_lacks(text, part)                                     \
	do {                                                         \
		const char *t_ = (text);                             \
		const char *p_ = (part);                             \
		if (strstr(t_, p_) != NULL) {                        \
			TEST_FAIL("\"%s\" contains \"%s\"", t_, p_); \
		}                                                    \
	} while (0)

/* A clock that stands until it is moved:
 *   struct test_clock c; test_clock_start(&c, 1000, 1700000000000); ... test_clock_stop(); */
struct test_clock {
	struct clock_source source;
	uint64_t mono_ns;
	int64_t wall_ms;
};

static inline uint64_t test_clock_mono_(void *arg)
{
	return ((struct test_clock *)arg)->mono_ns;
}

static inline int64_t test_clock_wall_(void *arg)
{
	return ((struct test_clock *)arg)->wall_ms;
}

static inline void test_clock_start(struct test_clock *c, uint64_t mono_ms, int64_t wall_ms)
{
	c->source = (struct clock_source){test_clock_mono_, test_clock_wall_, c};
	c->mono_ns = mono_ms * 1000000u;
	c->wall_ms = wall_ms;
	clock_override(&c->source);
}

static inline void test_clock_advance(struct test_clock *c, uint64_t ms)
{
	c->mono_ns += ms * 1000000u;
	c->wall_ms += (int64_t)ms;
}

static inline void test_clock_stop(void)
{
	clock_override(NULL);
}

/* Reproducible random numbers (splitmix64):
 *   struct test_rand r = {seed}; test_rand_start(&r); ... test_rand_stop(); */
struct test_rand {
	uint64_t state;
};

static inline uint64_t test_rand_next(struct test_rand *r)
{
	uint64_t z = (r->state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static inline void test_rand_fill_(void *arg, void *out, size_t len)
{
	uint8_t *o = out;

	for (size_t i = 0; i < len; i++) {
		o[i] = (uint8_t)test_rand_next(arg);
	}
}

static inline void test_rand_start(struct test_rand *r)
{
	rand_override(test_rand_fill_, r);
}

static inline void test_rand_stop(void)
{
	rand_override(NULL, NULL);
}

/* A directory of this test's own, below TMPDIR or /tmp; removed by test_dir_remove with all that is
 * in it. Returns out. */
#define TEST_DIR 128
static inline const char *test_dir_make(char out[TEST_DIR])
{
	const char *base = getenv("TMPDIR");

	snprintf(out, TEST_DIR, "%s/skerry-test-XXXXXX", base != NULL ? base : "/tmp");
	if (mkdtemp(out) == NULL) {
		TEST_FAIL("mkdtemp %s failed", out);
	}
	return out;
}

static inline void test_dir_remove(const char *dir)
{
	char command[TEST_DIR + 32];

	snprintf(command, sizeof(command), "rm -rf -- '%s'", dir);
	assert_int_equal(system(command), 0);
}
