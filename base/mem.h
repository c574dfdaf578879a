/* Heap allocation that never fails: without memory the process ends (fail-stop). */
#pragma once

#include "base/macros.h"

#include <stddef.h>

/* Exit code of a process that ran out of memory (EX_OSERR of sysexits). */
#define MEM_EXIT_CODE 71

/* All of them return memory that the caller owns and releases by mem_free (or free). They never
 * return NULL: out of memory prints one line to stderr and ends the process by _exit(71).
 * A size of 0 gives a unique pointer. Any thread. */
void *mem_alloc(size_t size) __attribute__((malloc)) MUST_CHECK;
void *mem_zalloc(size_t size) __attribute__((malloc)) MUST_CHECK;
/* Zeroed array; n * size is checked for overflow (treated as out of memory). */
void *mem_calloc(size_t n, size_t size) __attribute__((malloc)) MUST_CHECK;
void *mem_realloc(void *ptr, size_t size) MUST_CHECK;
/* Resizes an array; n * size is checked for overflow. */
void *mem_reallocarray(void *ptr, size_t n, size_t size) MUST_CHECK;
/* Copies; NULL gives NULL. */
char *mem_strdup(const char *s) MUST_CHECK;
/* Copies at most n bytes of s and adds the NUL. */
char *mem_strndup(const char *s, size_t n) MUST_CHECK;
/* Copies len bytes; data may be NULL if len is 0. */
void *mem_memdup(const void *data, size_t len) MUST_CHECK;
/* A formatted string. */
char *mem_printf(const char *fmt, ...) PRINTF_LIKE(1, 2) MUST_CHECK;
/* NULL is fine. */
void mem_free(void *ptr);

#define MEM_NEW(type) ((type *)mem_zalloc(sizeof(type)))
