#include "cluster/snapshot_look.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/enc.h"
#include "base/mem.h"
#include "cluster/snapshot.h"

enum {
	AT_BODY = 64,
	AT_HASH = 72,
	PORTION = 256 << 10,
	HASH_ALIGN = _Alignof(struct crypto_blake2b)
};

struct snapshot_look {
	int fd;
	uint64_t at, size;
	bool begun;
	struct crypto_blake2b *hash; /* in `room`: aligned more than the heap is */
	uint8_t room[2 * sizeof(struct crypto_blake2b)];
	uint8_t want[CRYPTO_HASH];
	uint8_t portion[PORTION];
};

bool snapshot_newest(const char *path, struct snapshot_file *ret)
{
	DIR *dir = opendir(path);
	bool found = false;

	/* libraft names them snapshot-TERM-INDEX-UNIX_MS. */
	for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
		uint64_t term, index, ms;
		struct stat st;
		int end = 0;

		if (sscanf(e->d_name, "snapshot-%" SCNu64 "-%" SCNu64 "-%" SCNu64 "%n", &term,
			   &index, &ms, &end) == 3 &&
		    e->d_name[end] == '\0' && end < SNAPSHOT_NAME_MAX &&
		    (!found || index > ret->index ||
		     (index == ret->index && (int64_t)ms >= ret->wall_ms)) &&
		    fstatat(dirfd(dir), e->d_name, &st, 0) == 0) {
			found = true;
			memcpy(ret->name, e->d_name, (size_t)end + 1);
			ret->index = index;
			ret->bytes = (uint64_t)st.st_size;
			ret->wall_ms = (int64_t)ms;
		}
	}
	if (dir != NULL) {
		closedir(dir);
	}
	return found;
}

int snapshot_look_new(const char *path, struct snapshot_look **ret, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct snapshot_look *l;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0) {
		int code = errno == ENOENT ? ERR_NOT_FOUND : -errno;

		if (fd >= 0) {
			close(fd);
		}
		return err_set(err, code, "%s: %s", path, strerror(errno));
	}
	l = MEM_NEW(struct snapshot_look);
	l->fd = fd;
	l->hash = (struct crypto_blake2b *)(((uintptr_t)l->room + HASH_ALIGN - 1) &
					    ~(uintptr_t)(HASH_ALIGN - 1));
	l->size = (uint64_t)st.st_size;
	*ret = l;
	return 0;
}

void snapshot_look_free(struct snapshot_look *l)
{
	if (l != NULL) {
		close(l->fd);
		mem_free(l);
	}
}

/* All of `len`, into l->portion. */
static int fetch(struct snapshot_look *l, size_t len, struct err *err)
{
	size_t done = 0;

	/* What was written is not what was kept in memory of it. */
	(void)posix_fadvise(l->fd, (off_t)l->at, (off_t)len, POSIX_FADV_DONTNEED);
	while (done < len) {
		ssize_t n = pread(l->fd, l->portion + done, len - done, (off_t)(l->at + done));

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n <= 0) {
			return err_set(err, ERR_CORRUPT, "byte %" PRIu64 " cannot be read: %s",
				       l->at + done, n < 0 ? strerror(errno) : "it ends there");
		}
		done += (size_t)n;
	}
	(void)posix_fadvise(l->fd, (off_t)l->at, (off_t)len, POSIX_FADV_DONTNEED);
	l->at += len;
	return 0;
}

static int begin(struct snapshot_look *l, struct err *err)
{
	int r = l->size < SNAPSHOT_HEADER
			? err_set(err, ERR_CORRUPT, "it has %" PRIu64 " bytes", l->size)
			: fetch(l, SNAPSHOT_HEADER, err);

	if (r == 0 && (memcmp(l->portion, SNAPSHOT_MAGIC, 8) != 0 ||
		       be_get64(l->portion + AT_BODY) != l->size - SNAPSHOT_HEADER)) {
		r = err_set(err, ERR_CORRUPT, "its header makes no sense");
	}
	if (r == 0) {
		memcpy(l->want, l->portion + AT_HASH, CRYPTO_HASH);
		memset(l->portion + AT_HASH, 0, CRYPTO_HASH);
		crypto_blake2b_begin(l->hash);
		l->begun = true;
		crypto_blake2b_add(l->hash, l->portion, SNAPSHOT_HEADER);
	}
	return r;
}

int snapshot_look_step(struct snapshot_look *l, size_t max_bytes, bool *ret_done, struct err *err)
{
	uint64_t until;
	uint8_t hash[CRYPTO_HASH];
	int r = !l->begun ? begin(l, err) : 0;

	*ret_done = false;
	for (until = MIN(l->size, l->at + max_bytes); r == 0 && l->at < until;) {
		size_t n = MIN(until - l->at, (uint64_t)PORTION);

		r = fetch(l, n, err);
		if (r == 0) {
			crypto_blake2b_add(l->hash, l->portion, n);
		}
	}
	if (r != 0 || l->at < l->size) {
		return r;
	}
	crypto_blake2b_end(l->hash, hash);
	if (memcmp(hash, l->want, sizeof(hash)) != 0) {
		return err_set(err, ERR_CORRUPT, "its checksum is wrong");
	}
	*ret_done = true;
	return 0;
}
