/* io_destroy() on a thread of its own; raft_aio.h says why. */
#include "cluster/raft_aio.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/macros.h"

enum { ARGUMENTS = 6, STACK = 64 << 10 };

typedef long (*syscall_fn)(long number, ...);

/* NULL: not looked up yet. Several threads may find the same. */
static _Atomic(syscall_fn) real;
static atomic_uint handed, ended;

static syscall_fn find(void)
{
	syscall_fn fn = atomic_load_explicit(&real, memory_order_relaxed);

	if (fn == NULL) {
		*(void **)&fn = dlsym(RTLD_NEXT, "syscall");
		atomic_store(&real, fn);
	}
	return fn;
}

void raft_aio_init(void)
{
	IGNORE(find() == NULL);
}

unsigned raft_aio_handed(void)
{
	return atomic_load(&handed);
}

unsigned raft_aio_ended(void)
{
	return atomic_load(&ended);
}

static void *end_run(void *context)
{
	/* What is wrong with it is wrong for good, and the kernel's: libraft ignores it, too. */
	IGNORE(find()(SYS_io_destroy, context));
	atomic_fetch_add(&ended, 1);
	return NULL;
}

/* Signals are for other threads. False: there is no thread to be had. */
static bool end_later(void *context)
{
	pthread_attr_t attr;
	sigset_t all, before;
	pthread_t thread;
	int r;

	if (pthread_attr_init(&attr) != 0) {
		return false;
	}
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	IGNORE(pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED));
	IGNORE(pthread_attr_setstacksize(&attr, STACK));
	r = pthread_create(&thread, &attr, end_run, context);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	if (r == 0) {
		atomic_fetch_add(&handed, 1);
	}
	return r == 0;
}

/* As the C library's: all six registers go on, however many the call has. */
__attribute__((visibility("default"))) long syscall(long number, ...)
{
	syscall_fn fn = find();
	long a[ARGUMENTS];
	va_list ap;

	va_start(ap, number);
	for (size_t i = 0; i < ARRAY_LEN(a); i++) {
		a[i] = va_arg(ap, long);
	}
	va_end(ap);
	if (fn == NULL) {
		errno = ENOSYS;
		return -1;
	}
	if (number == SYS_io_destroy && end_later((void *)(uintptr_t)a[0])) {
		return 0;
	}
	return fn(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
