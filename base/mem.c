#include "base/mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Nothing here may allocate, so the line is put together on the stack and written at once. */
static void mem_die(size_t n, size_t size) NORETURN;
static void mem_die(size_t n, size_t size)
{
	char line[128];
	int len = snprintf(line, sizeof(line),
			   "<2>out of memory: %zu x %zu bytes wanted; the process ends\n", n, size);

	if (len > 0) {
		IGNORE(write(STDERR_FILENO, line, (size_t)len) < 0);
	}
	_exit(MEM_EXIT_CODE);
}

void *mem_alloc(size_t size)
{
	void *p = malloc(size > 0 ? size : 1);

	if (p == NULL) {
		mem_die(1, size);
	}
	return p;
}

void *mem_zalloc(size_t size)
{
	return mem_calloc(1, size);
}

void *mem_calloc(size_t n, size_t size)
{
	size_t total;
	void *p = NULL;

	if (!__builtin_mul_overflow(n, size, &total)) {
		p = calloc(1, total > 0 ? total : 1);
	}
	if (p == NULL) {
		mem_die(n, size);
	}
	return p;
}

void *mem_realloc(void *ptr, size_t size)
{
	void *p = realloc(ptr, size > 0 ? size : 1);

	if (p == NULL) {
		mem_die(1, size);
	}
	return p;
}

void *mem_reallocarray(void *ptr, size_t n, size_t size)
{
	size_t total;

	if (__builtin_mul_overflow(n, size, &total)) {
		mem_die(n, size);
	}
	return mem_realloc(ptr, total);
}

char *mem_strdup(const char *s)
{
	return s == NULL ? NULL : mem_memdup(s, strlen(s) + 1);
}

char *mem_strndup(const char *s, size_t n)
{
	size_t len = strnlen(s, n);
	char *p = mem_alloc(len + 1);

	memcpy(p, s, len);
	p[len] = '\0';
	return p;
}

void *mem_memdup(const void *data, size_t len)
{
	void *p = mem_alloc(len);

	if (len > 0) {
		memcpy(p, data, len);
	}
	return p;
}

char *mem_printf(const char *fmt, ...)
{
	char *p = NULL;
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vasprintf(&p, fmt, ap);
	va_end(ap);
	if (len < 0) {
		mem_die(1, 0);
	}
	return p;
}

void mem_free(void *ptr)
{
	free(ptr);
}
