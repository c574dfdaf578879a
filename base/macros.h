/* Small compiler helpers and assertions that stay in release builds. */
#pragma once

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
#define MIN(a, b)                                  \
	({                                         \
		__typeof__(a) min_a_ = (a);        \
		__typeof__(b) min_b_ = (b);        \
		min_a_ < min_b_ ? min_a_ : min_b_; \
	})
#define MAX(a, b)                                  \
	({                                         \
		__typeof__(a) max_a_ = (a);        \
		__typeof__(b) max_b_ = (b);        \
		max_a_ > max_b_ ? max_a_ : max_b_; \
	})

/* Prints "file:line: what: text" to stderr and aborts. Any thread. */
void macros_abort(const char *file, int line, const char *what, const char *text) NORETURN;

/* PRE: the caller broke the contract. POST: we did. IMPOSSIBLE: a place never to be reached.
 * Always compiled in, and for programming errors only: input from outside is refused, never
 * asserted. */
#define PRE(x)          ((x) ? (void)0 : macros_abort(__FILE__, __LINE__, "precondition", #x))
#define POST(x)         ((x) ? (void)0 : macros_abort(__FILE__, __LINE__, "postcondition", #x))
#define IMPOSSIBLE(msg) macros_abort(__FILE__, __LINE__, "impossible", msg)
