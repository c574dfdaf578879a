/*
 * LMDB trusts its pages: one that the disk does not give is a SIGBUS, one that was altered may lead anywhere. Where the address
 * lies in the map of a store the reason is known, and so is the remedy. What the handler needs is made beforehand: it
 * opens, writes and ends, nothing else.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/mem.h"
#include "cluster/store.h"
#include "cluster/store_int.h"

enum { GUARDS_MAX = 16, EXIT_DAMAGED = 65, EXIT_REBUILD = 70 };

struct store_guard {
	atomic_uintptr_t begin, end; /* end 0: unused */
	atomic_bool rebuilt;
	bool taken;
	char *rebuild, *damaged; /* paths; `damaged` NULL: no mark is written */
	char *say_rebuild, *say_damaged;
};

static struct store_guard guards[GUARDS_MAX];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const int signals[] = {SIGBUS, SIGSEGV, SIGABRT};
static struct sigaction old[ARRAY_LEN(signals)];
_Thread_local struct store_guard *store_guard_inside;
_Thread_local bool store_guard_hears;

static const char why[] = "a page of the store could not be read, or led outside of it\n";

NORETURN void store_guard_end(struct store_guard *g)
{
	bool again = atomic_load(&g->rebuilt);
	const char *say = again ? g->say_damaged : g->say_rebuild;
	const char *mark = again ? g->damaged : g->rebuild;
	int fd = mark != NULL ? open(mark, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;

	if (fd >= 0) {
		(void)!write(fd, why, sizeof(why) - 1);
		(void)fsync(fd);
	}
	(void)!write(STDERR_FILENO, say, strlen(say));
	_exit(again ? EXIT_DAMAGED : EXIT_REBUILD);
}

static void on_fault(int sig, siginfo_t *si, void *context)
{
	uintptr_t at = (uintptr_t)si->si_addr;

	(void)context;
	for (size_t i = 0; sig != SIGABRT && i < GUARDS_MAX; i++) {
		if (at >= atomic_load(&guards[i].begin) && at < atomic_load(&guards[i].end)) {
			store_guard_end(&guards[i]);
		}
	}
	if (store_guard_inside != NULL) {
		store_guard_end(store_guard_inside);
	}
	/* Not ours: the instruction is repeated under the handler that was there before; abort() raises anew. */
	for (size_t i = 0; i < ARRAY_LEN(signals); i++) {
		if (signals[i] == sig) {
			sigaction(sig, &old[i], NULL);
		}
	}
}

static void install(void)
{
	struct sigaction a = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	struct sigaction now;

	sigemptyset(&a.sa_mask);
	for (size_t i = 0; i < ARRAY_LEN(signals); i++) {
		if (sigaction(signals[i], NULL, &now) == 0 &&
		    !((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_fault)) {
			old[i] = now;
			sigaction(signals[i], &a, NULL);
		}
	}
}

void store_guard_hear(void)
{
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_LEN(signals); i++) {
		sigaddset(&set, signals[i]);
	}
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	store_guard_hears = true;
}

/* LMDB does not say where it has mapped the file; the kernel does. */
static bool find_map(const char *path, uintptr_t *ret_begin, uintptr_t *ret_end)
{
	FILE *f = fopen("/proc/self/maps", "re");
	struct stat st;
	char line[1024];
	bool found = false;

	while (f != NULL && stat(path, &st) == 0 && !found &&
	       fgets(line, sizeof(line), f) != NULL) {
		uintptr_t begin, end;
		unsigned major_, minor_;
		uint64_t inode;

		found = sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*s %*x %x:%x %" SCNu64, &begin,
			       &end, &major_, &minor_, &inode) == 5 &&
			inode == st.st_ino && major_ == major(st.st_dev) &&
			minor_ == minor(st.st_dev);
		if (found) {
			*ret_begin = begin;
			*ret_end = end;
		}
	}
	if (f != NULL) {
		fclose(f);
	}
	return found;
}

/* One that has its place and no texts yet. */
static struct store_guard *guard_take(const char *dir, uintptr_t *ret_begin, uintptr_t *ret_end)
{
	char *data = mem_printf("%s/data.mdb", dir);
	struct store_guard *g = NULL;

	if (find_map(data, ret_begin, ret_end)) {
		pthread_mutex_lock(&lock);
		for (size_t i = 0; i < GUARDS_MAX && g == NULL; i++) {
			g = guards[i].taken ? NULL : &guards[i];
		}
		if (g != NULL) {
			install();
			g->taken = true;
		}
		pthread_mutex_unlock(&lock);
	}
	mem_free(data);
	return g;
}

static void guard_begin(struct store_guard *g, uintptr_t begin, uintptr_t end, bool rebuilt)
{
	atomic_store(&g->rebuilt, rebuilt);
	atomic_store(&g->begin, begin);
	atomic_store(&g->end, end);
}

struct store_guard *store_guard_look(const char *dir)
{
	uintptr_t begin, end;
	struct store_guard *g = guard_take(dir, &begin, &end);

	if (g != NULL) {
		g->rebuild = g->damaged = g->say_rebuild = NULL;
		g->say_damaged = mem_printf("skerryd: %s: a page of the store cannot be read, or "
					    "led outside of it; " STORE_REMEDY "\n",
					    dir);
		guard_begin(g, begin, end, true);
	}
	return g;
}

struct store_guard *store_guard_new(const char *dir, bool rebuilt)
{
	uintptr_t begin, end;
	struct store_guard *g = guard_take(dir, &begin, &end);

	if (g == NULL) {
		return NULL;
	}
	g->rebuild = mem_printf("%s/rebuild", dir);
	g->damaged = mem_printf("%s/damaged", dir);
	g->say_rebuild =
		mem_printf("skerryd: a page of the store in %s cannot be read: it is rebuilt from "
			   "the log at the next start\n",
			   dir);
	g->say_damaged =
		mem_printf("skerryd: a page of the store in %s cannot be read, again after it was "
			   "rebuilt: test memory and disk; remove this lighthouse from the "
			   "cluster and join it anew with an empty directory\n",
			   dir);
	guard_begin(g, begin, end, rebuilt);
	return g;
}

void store_guard_settled(struct store_guard *g)
{
	if (g != NULL) {
		atomic_store(&g->rebuilt, false);
	}
}

void store_guard_free(struct store_guard *g)
{
	if (g == NULL) {
		return;
	}
	atomic_store(&g->end, 0);
	atomic_store(&g->begin, 0);
	mem_free(g->rebuild);
	mem_free(g->damaged);
	mem_free(g->say_rebuild);
	mem_free(g->say_damaged);
	pthread_mutex_lock(&lock);
	g->taken = false;
	pthread_mutex_unlock(&lock);
}
