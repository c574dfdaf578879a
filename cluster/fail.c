/* The end of a process that may not go on: one line, one exit code; tests take its place. */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "base/log.h"
#include "cluster/link_int.h"

static pthread_mutex_t hook_lock = PTHREAD_MUTEX_INITIALIZER;
static cluster_fail_fn hook_fn;
static void *hook_arg;

void cluster_fail_hook(cluster_fail_fn fn, void *arg)
{
	pthread_mutex_lock(&hook_lock);
	hook_fn = fn;
	hook_arg = arg;
	pthread_mutex_unlock(&hook_lock);
}

static void fail(int code, const char *fmt, va_list ap) PRINTF_LIKE(2, 0);
static void fail(int code, const char *fmt, va_list ap)
{
	char text[512];
	cluster_fail_fn fn;
	void *arg;

	vsnprintf(text, sizeof(text), fmt, ap);

	pthread_mutex_lock(&hook_lock);
	fn = hook_fn;
	arg = hook_arg;
	pthread_mutex_unlock(&hook_lock);
	if (fn != NULL) {
		fn(arg, text);
		return;
	}
	/* The one place of this folder that logs above debug: nobody is left to decide. */
	LOG_ERROR("%s", text);
	_exit(code);
}

void cluster_fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fail(CLUSTER_EXIT_FAIL_STOP, fmt, ap);
	va_end(ap);
}

void cluster_fail_as(int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fail(code, fmt, ap);
	va_end(ap);
}
