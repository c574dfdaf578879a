/* Small compiler helpers and assertions that stay in release builds. */
#pragma once

/* 1 where a sanitizer shall see memory come and go, so that none is kept for its next use. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer) || \
	__has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#include <stddef.h>

/* A result that may not be ignored; a deliberate discard is IGNORE(call()). */
#define MUST_CHECK                        __attribute__((warn_unused_result))
#define UNUSED                            __attribute__((unused))
#define NORETURN                          __attribute__((noreturn))
#define PRINTF_LIKE(fmt_index, first_arg) __attribute__((format(printf, fmt_index, first_arg)))

/* gcc warns about (void) before a must-check call; this says the discard is meant. */
#define IGNORE(call)        \
	do {                \
		if (call) { \
		}           \
	} while (0)

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* <sys/param.h>, which <uv.h> brings in, has its own, which evaluate twice. */
#undef MIN
#undef MAX
/* Each argument is evaluated once; the names are unique so that calls nest without shadowing. */
#define MACROS_CAT2_(a, b) a##b
#define MACROS_CAT_(a, b)  MACROS_CAT2_(a, b)
#define MACROS_PICK_(a, op, b, x, y)   \
	({                             \
		__typeof__(a) x = (a); \
		__typeof__(b) y = (b); \
		x op y ? x : y;        \
	})
#define MIN(a, b) \
	MACROS_PICK_(a, <, b, MACROS_CAT_(min_a_, __COUNTER__), MACROS_CAT_(min_b_, __COUNTER__))
#define MAX(a, b) \
	MACROS_PICK_(a, >, b, MACROS_CAT_(max_a_, __COUNTER__), MACROS_CAT_(max_b_, __COUNTER__))

/* Prints "file:line: what: text" to stderr and aborts. Any thread. */
void macros_abort(const char *file, int line, const char *what, const char *text) NORETURN;

/* PRE: the caller broke the contract. POST: we did. IMPOSSIBLE: a place never to be reached.
 * Always compiled in, and for programming errors only: input from outside is refused, never
 * asserted. */
#define PRE(x)          ((x) ? (void)0 : macros_abort(__FILE__, __LINE__, "precondition", #x))
#define POST(x)         ((x) ? (void)0 : macros_abort(__FILE__, __LINE__, "postcondition", #x))
#define IMPOSSIBLE(msg) macros_abort(__FILE__, __LINE__, "impossible", msg)
