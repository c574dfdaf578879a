/*
 * The disk below the state directory: how much room there is, and what is wrong when a write does not end. libraft tries a
 * write that failed again and tells nobody: the shim sees no more than an append that stays open, and gives it 5 s. Here
 * the disk itself is asked, after half a second, by a write like the log's: an error ends the process at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "cluster/cluster_int.h"
#include "cluster/raft_blocks.h"

enum {
	ASK_AFTER_MS = 500,
	ASK_AGAIN_MS = 500,
	HANDOVER_MS = 1000,
	SEGMENT = 8 << 20, /* what libraft allocates at a time */
	BLOCK = 4096,
};

/* ---- room ---- */

static void room_tell(struct cluster *c, uint64_t available)
{
	bool low = available < LIM_DISK_FREE_BYTES;

	if (atomic_exchange(&c->disk_low, low) == low) {
		return;
	}
	if (low) {
		LOG_WARN("the file system of %s has %" PRIu64
			 " MiB free, less than %llu: while this lighthouse leads, what would make "
			 "the "
			 "state grow is refused; free space there",
			 c->dir, available >> 20, LIM_DISK_FREE_BYTES >> 20);
	} else {
		LOG_INFO("the file system of %s has %" PRIu64 " MiB free: enough again", c->dir,
			 available >> 20);
	}
}

bool cluster_disk_low(const struct cluster *c)
{
	return atomic_load(&((struct cluster *)c)->disk_low);
}

void disk_judge(struct cluster *c)
{
	struct statvfs v;

	if (statvfs(c->dir, &v) == 0) {
		uint64_t available = (uint64_t)v.f_bavail * v.f_frsize;
		uint64_t size = (uint64_t)v.f_blocks * v.f_frsize;

		room_tell(c, available);
		gauge_set(c->metric.disk_free, (double)available);
		gauge_set(c->metric.disk_bytes, (double)size);
		pthread_mutex_lock(&c->seen_lock);
		c->health.disk_free = available;
		c->health.disk_bytes = size;
		pthread_mutex_unlock(&c->seen_lock);
	}
}

/* ---- a write that does not end ---- */

static void failed(struct disk *d, const char *what)
{
	d->error = errno;
	snprintf(d->what, sizeof(d->what), "%s", what);
}

/* A worker. The file has no name, so that nothing of it is ever left behind. */
static void ask(void *arg)
{
	struct cluster *c = arg;
	struct disk *d = &c->disk;
	char *dir = mem_printf("%s/raft", c->dir);
	static const char zero[BLOCK];
	int fd = open(dir, O_TMPFILE | O_WRONLY | O_DSYNC | O_CLOEXEC, 0600);

	d->error = 0;
	if (fd < 0 && errno != EOPNOTSUPP && errno != EISDIR) {
		failed(d, "open");
	} else if (fd >= 0) {
		int r = raft_blocks_reserve(fd, 0, SEGMENT);

		if (r != 0 && r != EOPNOTSUPP && r != EINVAL) {
			errno = r;
			failed(d, "allocate");
		} else if (pwrite(fd, zero, BLOCK, 0) != BLOCK) {
			failed(d, "write");
		}
	}
	if (fd >= 0) {
		close(fd);
	}
	mem_free(dir);
}

static void on_end(void *arg)
{
	struct cluster *c = arg;
	int e = c->disk.error;

	loop_timer_stop(&c->disk.timer);
	cluster_fail("the disk of %s takes no writes (%s: %s): %s, then start again", c->dir,
		     c->disk.what, strerror(e),
		     e == ENOSPC || e == EDQUOT ? "free space in the file system"
						: "check disk and file system");
}

static void on_transferred(void *arg, const struct err *err)
{
	(void)err;
	on_end(arg);
}

static void asked(void *arg)
{
	struct cluster *c = arg;
	struct disk *d = &c->disk;
	bool other = false;

	d->probing = false;
	/* The write may have ended meanwhile: a disk with little room may take it, and not a new segment. */
	if (c->stopping || d->failed || d->error == 0 || consensus_append_open_ms(c->cs) == 0) {
		return;
	}
	d->failed = true;
	LOG_ERROR("a write to the log in %s has not ended, and the disk says: %s", c->dir,
		  strerror(d->error));
	for (size_t i = 0; i < c->state.n; i++) {
		other |= c->state.server[i].id != c->id && c->state.server[i].role == LINK_VOTER;
	}
	if (!other || !consensus_leads(c->cs)) {
		on_end(c);
		return;
	}
	loop_timer_start(&d->timer, c->loop, HANDOVER_MS, on_end, c);
	consensus_change(c->cs, CONSENSUS_TRANSFER, 0, NULL, on_transferred, c);
}

void disk_watch(struct cluster *c)
{
	struct disk *d = &c->disk;
	uint64_t now = clock_mono_ms();

	if (d->probing || d->failed || now < d->asked_ms + ASK_AGAIN_MS ||
	    consensus_append_open_ms(c->cs) < ASK_AFTER_MS) {
		return;
	}
	d->asked_ms = now;
	d->probing = loop_work(c->loop, ask, asked, c) == 0;
}
