/* Zeros into what libraft reserves; raft_blocks.h says why. */
#include "cluster/raft_blocks.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/macros.h"

enum { CHUNK = 256 << 10, LEAST = 1 << 20, ALIGN = 4096 };

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

static int (*real)(int fd, off_t offset, off_t len);

static void find(void)
{
	*(void **)&real = dlsym(RTLD_NEXT, "posix_fallocate");
}

void raft_blocks_init(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, find);
}

int raft_blocks_reserve(int fd, off_t offset, off_t len)
{
	raft_blocks_init();
	return real != NULL ? real(fd, offset, len) : ENOSYS;
}

/* A segment's file is new, and written only; the file system is one that knows of written and unwritten. */
static bool worth_it(int fd, int flags, off_t offset, off_t len)
{
	struct statfs f;

	return flags >= 0 && (flags & O_ACCMODE) == O_WRONLY && offset == 0 && len >= LEAST &&
	       len % CHUNK == 0 && fstatfs(fd, &f) == 0 &&
	       (f.f_type == EXT4_SUPER_MAGIC || f.f_type == XFS_SUPER_MAGIC);
}

/* Past the page cache, as libraft writes it. What fails here is not needed, and fails again where it matters. */
static void fill(int fd, int flags, off_t len)
{
	uint64_t end_ms = clock_mono_ms() + RAFT_BLOCKS_MS;
	void *zeros = aligned_alloc(ALIGN, CHUNK);

	if (zeros == NULL || fcntl(fd, F_SETFL, flags | O_DIRECT) != 0) {
		free(zeros);
		return;
	}
	memset(zeros, 0, CHUNK);
	for (off_t at = 0; at < len && clock_mono_ms() < end_ms; at += CHUNK) {
		if (pwrite(fd, zeros, CHUNK, at) != CHUNK) {
			break;
		}
	}
	/* Or the first append waits for all of the journal's part. */
	IGNORE(fdatasync(fd));
	IGNORE(fcntl(fd, F_SETFL, flags));
	free(zeros);
}

__attribute__((visibility("default"))) int posix_fallocate(int fd, off_t offset, off_t len)
{
	int flags = fcntl(fd, F_GETFL);
	int r = raft_blocks_reserve(fd, offset, len);

	if (r == 0 && worth_it(fd, flags, offset, len)) {
		fill(fd, flags, len);
	}
	return r;
}
