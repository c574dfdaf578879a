/*
 * Backups that a lighthouse makes by itself.
 *
 *   due -> the state into memory (cluster_backup) -> worker: file.tmp, fsync, verified, file, the oldest deleted -> noted
 *
 * The file gets its name when it was verified, and only then older ones go: whatever fails, what was there stays. That one
 * was made is a command (who, revision, file), so that the next one is due by the state, whoever leads then and however
 * often it was started anew. At feature level 1 only this process knows it.
 */
#include "lighthouse/schedule.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "cluster/backup.h"
#include "cluster/cluster.h"
#include "net/loop.h"
#include "tailnet/query.h"

enum {
	LOOK_MS = 1000,
	RETRY_MS = 60000, /* after a failure, unless the period is shorter */
	NOTE_MS = 10000,
	CHUNK = 1 << 20,
	FILES_MAX = 10000,
};

struct schedule {
	struct schedule_options o;
	struct loop_timer timer;
	bool running;
	atomic_bool stopping;
	int64_t not_before_ms, last_ms; /* last: of this process */
	/* of the one under way */
	struct backup *backup;
	struct backup_facts facts;
	char name[SCHEDULE_NAME];
	int64_t began_ms;
	size_t deleted;
	struct err err;
	struct metric *looks, *failures, *failing, *made, *seconds, *bytes, *stamp;
};

/* ---- pure ---- */

bool schedule_due(int64_t last_ms, int64_t every_ms, int64_t now_ms, int64_t not_before_ms)
{
	return now_ms >= not_before_ms && (last_ms == 0 || now_ms - last_ms >= every_ms);
}

const char *schedule_name(uint64_t cluster, int64_t wall_ms, uint64_t revision,
			  char out[SCHEDULE_NAME])
{
	time_t seconds = (time_t)(wall_ms / 1000);
	struct tm tm;

	gmtime_r(&seconds, &tm);
	snprintf(out, SCHEDULE_NAME,
		 "skerry-%" PRIu64 "-%04d%02d%02dT%02d%02d%02dZ-r%" PRIu64 ".backup", cluster,
		 tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
		 revision);
	return out;
}

bool schedule_ours(const char *name, uint64_t cluster)
{
	uint64_t id, revision;
	char date[9], hour[7];
	int end = 0;

	return sscanf(name, "skerry-%" SCNu64 "-%8[0-9]T%6[0-9]Z-r%" SCNu64 ".backup%n", &id, date,
		      hour, &revision, &end) == 4 &&
	       end > 0 && name[end] == '\0' && id == cluster && strlen(date) == 8 &&
	       strlen(hour) == 6;
}

/* ---- on a worker ---- */

/* The names begin alike, then comes the time: their order is its. */
static int cmp_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The oldest of ours beyond `keep` go. */
static int retain(struct schedule *s, struct err *err)
{
	uint64_t cluster = s->facts.cluster_id;
	DIR *dir = opendir(s->o.directory);
	char **names = NULL;
	struct dirent *e;
	size_t n = 0;
	int rc = 0;

	if (!dir)
		return err_set(err, -errno, "%s: %s", s->o.directory, strerror(errno));
	while ((e = readdir(dir)) && n < FILES_MAX) {
		if (!schedule_ours(e->d_name, cluster))
			continue;
		names = mem_reallocarray(names, n + 1, sizeof(*names));
		names[n++] = mem_strdup(e->d_name);
	}
	closedir(dir);
	if (n)
		qsort(names, n, sizeof(*names), cmp_name);
	for (size_t i = 0; rc >= 0 && i + (size_t)s->o.keep < n; i++) {
		char *path = mem_printf("%s/%s", s->o.directory, names[i]);

		rc = file_remove(path, err);
		s->deleted += rc >= 0;
		mem_free(path);
	}
	for (size_t i = 0; i < n; i++)
		mem_free(names[i]);
	mem_free(names);
	return rc;
}

static int write_all(struct schedule *s, int fd, const char *path, struct err *err)
{
	uint8_t *chunk = mem_alloc(CHUNK);
	uint64_t at = 0;
	size_t len;
	int rc = 0;

	while (rc >= 0 && (len = backup_read(s->backup, at, chunk, CHUNK)) > 0) {
		for (size_t done = 0; rc >= 0 && done < len;) {
			ssize_t n = write(fd, chunk + done, len - done);

			if (n < 0 && errno != EINTR)
				rc = err_set(err, -errno, "%s: %s", path, strerror(errno));
			done += n > 0 ? (size_t)n : 0;
		}
		at += len;
		if (atomic_load(&s->stopping))
			rc = err_set(err, ERR_CLOSED, "this lighthouse stops");
	}
	mem_free(chunk);
	if (rc >= 0 && fsync(fd) < 0)
		rc = err_set(err, -errno, "%s: %s", path, strerror(errno));
	return rc;
}

static void work(void *arg)
{
	struct schedule *s = arg;
	char *path = mem_printf("%s/%s", s->o.directory, s->name);
	char *tmp = mem_printf("%s/.%s.tmp", s->o.directory, s->name);
	struct backup_facts f;
	struct err *err = &s->err;
	int rc = dir_ensure(s->o.directory, 0700, err);
	int fd;

	if (rc >= 0) {
		fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
		rc = fd < 0 ? err_set(err, -errno, "%s: %s", tmp, strerror(errno))
			    : write_all(s, fd, tmp, err);
		if (fd >= 0)
			close(fd);
		/* Freed first: its check takes the same memory again. */
		backup_free(s->backup);
		s->backup = NULL;
		if (rc >= 0)
			rc = cluster_backup_verify(tmp, s->o.directory, NULL, &f, err);
		if (rc >= 0 && memcmp(f.digest, s->facts.digest, sizeof(f.digest)) != 0)
			rc = err_set(err, ERR_CORRUPT, "%s holds another state than was written",
				     tmp);
		if (rc >= 0 && rename(tmp, path) < 0)
			rc = err_set(err, -errno, "%s: %s", path, strerror(errno));
		if (rc >= 0)
			rc = dir_sync(s->o.directory, err);
		if (rc < 0)
			unlink(tmp);
	}
	if (rc >= 0)
		rc = retain(s, err);
	if (rc < 0 && !err->code)
		err_set(err, rc, "%s", err_text(rc));
	mem_free(path);
	mem_free(tmp);
}

/* ---- on the loop ---- */

static void look(void *arg);

static void end(struct schedule *s)
{
	backup_free(s->backup);
	s->backup = NULL;
	s->running = false;
	if (!atomic_load(&s->stopping))
		loop_timer_start(&s->timer, s->o.loop, LOOK_MS, look, s);
}

static void fail(struct schedule *s)
{
	int64_t now = clock_wall_ms();

	s->not_before_ms = now + MIN(s->o.every_ms, (int64_t)RETRY_MS);
	if (!atomic_load(&s->stopping)) {
		LOG_ERROR("the backup by schedule failed: %s; it is tried again", s->err.msg);
		counter_inc(s->failures);
		gauge_set(s->failing, 1);
		cluster_note_backup_failed(s->o.cluster, s->err.msg);
	}
	end(s);
}

static void on_noted(void *arg, const struct err *err, const Skerry__Internal__V1__CommandResult *r)
{
	struct schedule *s = arg;
	const char *why = cluster_backup_unnoted(err, r);

	/* The file is there: that it is not in the audit log is said, and no more. */
	if (why)
		LOG_WARN("the backup %s is not in the audit log: %s", s->name, why);
	end(s);
}

static void note(struct schedule *s)
{
	Skerry__Internal__V1__Command c = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Skerry__Internal__V1__Actor actor = SKERRY__INTERNAL__V1__ACTOR__INIT;
	struct err err = {0};

	actor.kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_LIGHTHOUSE;
	actor.id = cluster_lighthouse_id(s->o.cluster);
	c.actor = &actor;
	if (cluster_propose_backup(s->o.cluster, s->o.loop, &c, s->facts.revision, s->facts.bytes,
				   s->name, clock_mono_ms() + NOTE_MS, on_noted, s, &err) < 0) {
		LOG_WARN("the backup %s is not in the audit log: %s", s->name, err.msg);
		end(s);
	}
}

static void worked(void *arg)
{
	struct schedule *s = arg;
	int64_t now = clock_wall_ms();

	if (s->err.code) {
		fail(s);
		return;
	}
	s->last_ms = now;
	s->not_before_ms = 0;
	LOG_INFO("backup %s/%s: revision %" PRIu64 ", %" PRIu64
		 " bytes, verified; %zu older deleted",
		 s->o.directory, s->name, s->facts.revision, s->facts.bytes, s->deleted);
	cluster_note_backup(s->o.cluster, now);
	counter_inc(s->made);
	gauge_set(s->failing, 0);
	gauge_set(s->seconds, (double)(clock_mono_ms() - (uint64_t)s->began_ms) / 1000);
	gauge_set(s->bytes, (double)s->facts.bytes);
	gauge_set(s->stamp, (double)now / 1000);
	note(s);
}

static void on_backup(void *arg, const struct err *err, struct backup *backup)
{
	struct schedule *s = arg;

	s->backup = backup;
	s->err = *err;
	if (atomic_load(&s->stopping) && !s->err.code)
		err_set(&s->err, ERR_CLOSED, "this lighthouse stops");
	if (!s->err.code) {
		backup_facts(backup, &s->facts);
		schedule_name(s->facts.cluster_id, clock_wall_ms(), s->facts.revision, s->name);
		s->deleted = 0;
		if (loop_work(s->o.loop, work, worked, s) >= 0)
			return;
		err_set(&s->err, ERR_LIMIT, "too many jobs wait on this lighthouse");
	}
	fail(s);
}

/* When the last one was made, by the state: by anybody for the leader's schedule, else by this lighthouse. */
static int64_t last_made(struct schedule *s)
{
	uint64_t self = cluster_lighthouse_id(s->o.cluster), pos = 0;
	struct cluster_read *read;
	int64_t last = s->last_ms;
	struct arena a;
	MemberRecord *m;

	if (cluster_read_begin(s->o.cluster, "schedule", &read, NULL) < 0)
		return last;
	arena_init(&a, 1 << 20);
	while (query_member_next(cluster_read_kv(read), pos, &a, &m) >= 0) {
		pos = m->id;
		if (s->o.by == SCHEDULE_LEADER || m->id == self)
			last = MAX(last, (int64_t)m->backup_ms);
	}
	arena_done(&a);
	cluster_read_end(read);
	return last;
}

static void look(void *arg)
{
	struct schedule *s = arg;
	struct cluster_status st;

	loop_timer_start(&s->timer, s->o.loop, LOOK_MS, look, s);
	counter_inc(s->looks);
	cluster_status(s->o.cluster, &st);
	if (st.epoch == 0 || !st.quorum ||
	    (s->o.by == SCHEDULE_LEADER && st.leader_id != st.lighthouse_id) ||
	    !schedule_due(last_made(s), s->o.every_ms, clock_wall_ms(), s->not_before_ms))
		return;
	loop_timer_stop(&s->timer);
	err_clear(&s->err);
	s->running = true;
	s->began_ms = (int64_t)clock_mono_ms();
	if (cluster_backup(s->o.cluster, s->o.loop, on_backup, s, &s->err) < 0)
		fail(s);
}

struct schedule *schedule_new(const struct schedule_options *o)
{
	struct schedule *s = MEM_NEW(struct schedule);

	s->o = *o;
	s->looks = metrics_counter("skerry_backup_looks_total",
				   "Looks whether a backup by schedule is due.", NULL);
	s->failures = metrics_counter("skerry_backup_failures_total",
				      "Backups by schedule that failed.", NULL);
	s->made = metrics_counter("skerry_backups_total",
				  "Backups by schedule that were made and verified.", NULL);
	s->failing = metrics_gauge("skerry_backup_failing",
				   "1 while the last backup by schedule failed.", NULL);
	s->seconds = metrics_gauge("skerry_backup_duration_seconds",
				   "How long the last backup by schedule took, its check included.",
				   NULL);
	s->bytes = metrics_gauge("skerry_backup_size_bytes", "Size of the last backup by schedule.",
				 NULL);
	s->stamp = metrics_gauge("skerry_backup_last_timestamp_seconds",
				 "When this lighthouse last made a backup by schedule; unix time.",
				 NULL);
	cluster_note_backup_schedule(o->cluster, o->every_ms);
	loop_timer_start(&s->timer, o->loop, LOOK_MS, look, s);
	return s;
}

void schedule_free(struct schedule *s)
{
	if (!s)
		return;
	atomic_store(&s->stopping, true);
	loop_timer_stop(&s->timer);
	while (s->running)
		loop_turn(s->o.loop, true);
	mem_free(s);
}
