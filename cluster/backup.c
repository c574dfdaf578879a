/* Backups: the file's header, and how one is made beside a running cluster. */
#include "cluster/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/enc.h"
#include "base/limits.h"
#include "base/mem.h"
#include "cluster/cluster_int.h"

static const uint8_t magic[8] = {'S', 'K', 'R', 'Y', 'B', 'K', 'U', 'P'};

enum {
	AT_FORMAT = 8,
	AT_TIME = 16,
	AT_LIGHTHOUSE = 24,
	AT_LENGTH = 32,
	AT_DIGEST = 40,
	AT_HASH = 72,
	SNAPSHOT_HASH_AT = 72, /* snapshot.h */
};

/* ---- format ---- */

static void header_hash(const uint8_t *header, const uint8_t *snapshot, uint8_t out[CRYPTO_HASH])
{
	struct crypto_iov iov[2] = {{header, AT_HASH}, {snapshot + SNAPSHOT_HASH_AT, CRYPTO_HASH}};

	crypto_blake2bv(out, iov, ARRAY_LEN(iov));
}

void backup_header_put(const struct backup_header *h, const void *snapshot,
		       uint8_t out[BACKUP_HEADER])
{
	memset(out, 0, BACKUP_HEADER);
	memcpy(out, magic, sizeof(magic));
	be_put32(out + AT_FORMAT, BACKUP_FORMAT);
	be_put64(out + AT_TIME, h->time_ms);
	be_put64(out + AT_LIGHTHOUSE, h->lighthouse_id);
	be_put64(out + AT_LENGTH, h->length);
	memcpy(out + AT_DIGEST, h->digest, sizeof(h->digest));
	header_hash(out, snapshot, out + AT_HASH);
}

int backup_open(const void *data, size_t len, struct backup_header *ret,
		struct snapshot_header *ret_snapshot, struct err *err)
{
	const uint8_t *d = data;
	struct backup_header h;
	struct snapshot_header s;
	uint8_t hash[CRYPTO_HASH];
	int r;

	if (len < sizeof(magic) || memcmp(d, magic, sizeof(magic)) != 0) {
		return err_set(err, ERR_CORRUPT,
			       "it is no backup: it does not begin with SKRYBKUP");
	}
	if (len < BACKUP_HEADER + SNAPSHOT_HEADER) {
		return err_set(err, ERR_CORRUPT, "the backup is cut: it has only %zu bytes", len);
	}
	if (be_get32(d + AT_FORMAT) != BACKUP_FORMAT) {
		return err_set(
			err, ERR_UNIMPLEMENTED,
			"the backup has format %u, this build reads %d: use the build that made it",
			be_get32(d + AT_FORMAT), BACKUP_FORMAT);
	}
	h = (struct backup_header){
		.time_ms = be_get64(d + AT_TIME),
		.lighthouse_id = be_get64(d + AT_LIGHTHOUSE),
		.length = be_get64(d + AT_LENGTH),
	};
	memcpy(h.digest, d + AT_DIGEST, sizeof(h.digest));
	if (h.length != len - BACKUP_HEADER) {
		return err_set(err, ERR_CORRUPT,
			       "the backup is cut or was changed: it has %zu bytes, its header "
			       "speaks of %llu",
			       len, (unsigned long long)h.length + BACKUP_HEADER);
	}
	header_hash(d, d + BACKUP_HEADER, hash);
	if (memcmp(hash, d + AT_HASH, sizeof(hash)) != 0) {
		return err_set(err, ERR_CORRUPT,
			       "the header of the backup was changed: its hash is wrong");
	}
	r = snapshot_open(d + BACKUP_HEADER, len - BACKUP_HEADER, &s, err);
	if (r != 0) {
		return r;
	}
	*ret = h;
	*ret_snapshot = s;
	return 0;
}

/* ---- making one ---- */

struct backup {
	uint8_t header[BACKUP_HEADER];
	int fd; /* the snapshot, in a file without a name */
	struct backup_facts facts;
	/* of the job */
	struct cluster *cluster;
	uint64_t term;
	backup_cb cb;
	void *arg;
	struct err err;
};

/*
 * A client may take its time over a backup: it reads from a file that has no name and goes with its descriptor. Where
 * the log would lack the room it is in memory instead: a full disk is no time to refuse a backup.
 */
static int spool_open(const char *dir, uint64_t bytes, struct err *err)
{
	struct statvfs v;
	char *path;
	int fd;

	if (statvfs(dir, &v) == 0 &&
	    (uint64_t)v.f_bavail * v.f_frsize < bytes + 2 * LIM_DISK_FREE_BYTES) {
		fd = memfd_create("backup", MFD_CLOEXEC);
		return fd >= 0 ? fd : err_errno(err, "memory for the backup");
	}
	fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)) {
		return fd >= 0 ? fd : err_errno(err, "a file for the backup below %s", dir);
	}
	path = mem_printf("%s/backup.XXXXXX", dir);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0) {
		fd = err_errno(err, "a file for the backup below %s", dir);
	} else {
		unlink(path);
	}
	mem_free(path);
	return fd;
}

static int take(struct backup *b)
{
	struct snapshot s = {0};
	struct backup_header h = {.time_ms = (uint64_t)MAX(clock_wall_ms(), 0),
				  .lighthouse_id = b->cluster->id};
	struct store_read *read;
	struct state_view v;
	int r = store_read_begin(b->cluster->store, "backup", &read, &b->err);

	if (r != 0) {
		return r;
	}
	r = fsm_view(store_read_kv(read), &v, &b->err);
	if (r == 0 && v.epoch == 0) {
		r = err_set(&b->err, ERR_UNAVAILABLE, "this lighthouse has no state yet");
	}
	if (r == 0) {
		r = fsm_snapshot(store_read_kv(read), store_read_applied(read), b->term, NULL, &s,
				 &b->err);
	}
	if (r == 0) {
		b->fd = spool_open(b->cluster->dir, s.bytes, &b->err);
		r = MIN(b->fd, 0);
	}
	if (r == 0) {
		r = snapshot_write(&s, b->fd, &b->err);
	}
	if (r == 0) {
		h.length = s.bytes;
		memcpy(h.digest, v.digest, sizeof(h.digest));
		backup_header_put(&h, s.header, b->header);
		b->facts = (struct backup_facts){
			.time_ms = h.time_ms,
			.lighthouse_id = h.lighthouse_id,
			.cluster_id = v.cluster_id,
			.epoch = v.epoch,
			.revision = v.revision,
			.feature_level = v.feature_level,
			.records = s.records,
			.bytes = BACKUP_HEADER + s.bytes,
		};
		memcpy(b->facts.digest, v.digest, sizeof(v.digest));
	}
	snapshot_done(&s);
	store_read_end(read);
	return r;
}

static void take_work(void *arg)
{
	struct backup *b = arg;
	struct cluster *c = b->cluster;
	int r = take(b);

	if (r != 0 && b->err.code == 0) {
		IGNORE(err_set(&b->err, r, "the backup failed: %s", err_text(r)));
	}
	/* From here on the cluster may be gone. */
	b->cluster = NULL;
	pthread_mutex_lock(&c->seen_lock);
	c->backups--;
	pthread_cond_broadcast(&c->closed_cond);
	pthread_mutex_unlock(&c->seen_lock);
}

static void take_done(void *arg)
{
	struct backup *b = arg;
	struct err err = b->err;
	backup_cb cb = b->cb;
	void *cb_arg = b->arg;

	if (err.code != 0) {
		backup_free(b);
		b = NULL;
	}
	cb(cb_arg, &err, b);
}

int cluster_backup(struct cluster *c, struct loop *loop, backup_cb cb, void *arg, struct err *err)
{
	struct backup *b = MEM_NEW(struct backup);

	b->fd = -1;
	b->cluster = c;
	b->cb = cb;
	b->arg = arg;
	pthread_mutex_lock(&c->seen_lock);
	b->term = c->state.term;
	c->backups++;
	pthread_mutex_unlock(&c->seen_lock);
	if (loop_work(loop, take_work, take_done, b) < 0) {
		pthread_mutex_lock(&c->seen_lock);
		c->backups--;
		pthread_mutex_unlock(&c->seen_lock);
		mem_free(b);
		return err_reason(err, ERR_LIMIT, "BUSY",
				  "too many jobs wait on this lighthouse: try again");
	}
	return 0;
}

void backup_free(struct backup *b)
{
	if (b != NULL) {
		if (b->fd >= 0) {
			close(b->fd);
		}
		mem_free(b);
	}
}

void backup_facts(const struct backup *b, struct backup_facts *ret)
{
	*ret = b->facts;
}

size_t backup_read(const struct backup *b, uint64_t at, void *out, size_t len)
{
	uint8_t *o = out;
	size_t done = 0;

	if (at < BACKUP_HEADER) {
		done = MIN(len, (size_t)(BACKUP_HEADER - at));
		memcpy(o, b->header + at, done);
	}
	while (done < len) {
		ssize_t n = pread(b->fd, o + done, len - done, (off_t)(at + done - BACKUP_HEADER));

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n <= 0) {
			break;
		}
		done += (size_t)n;
	}
	return done;
}

/* ---- the audit chain ---- */

int cluster_propose_backup(struct cluster *c, struct loop *loop, Command *cmd, uint64_t revision,
			   uint64_t bytes, const char *file, uint64_t deadline_ms, propose_cb cb,
			   void *arg, struct err *err)
{
	Skerry__Internal__V1__BackupNote body = SKERRY__INTERNAL__V1__BACKUP_NOTE__INIT;
	struct propose_options o = {.class = PROPOSE_INTERNAL, .deadline_ms = deadline_ms};

	body.lighthouse = c->id;
	body.revision = revision;
	body.bytes = bytes;
	if (file != NULL) {
		body.file = (char *)(uintptr_t)file;
	}
	cmd->body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_BACKUP_NOTE;
	cmd->backup_note = &body;
	return cluster_propose(c, loop, cmd, &o, cb, arg, err);
}

const char *cluster_backup_unnoted(const struct err *err, const CommandResult *r)
{
	if (err->code != 0) {
		return strcmp(err->reason, "FEATURE_LEVEL") != 0 ? err->msg : NULL;
	}
	return r->code != 0 ? r->message : NULL;
}
