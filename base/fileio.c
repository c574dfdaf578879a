#include "base/fileio.h"

#include "base/buf.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rand.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_STEP 65536

int file_read_fd(int fd, const char *name, size_t cap, struct buf *out, struct err *e)
{
	size_t start = out->len;

	for (;;) {
		/* One byte more than allowed tells a file of cap bytes from a larger one. */
		size_t left = cap - (out->len - start);
		size_t want = MIN(left, (size_t)READ_STEP - 1) + 1;
		ssize_t n = read(fd, buf_reserve(out, want), want);

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n < 0) {
			out->len = start;
			return err_errno(e, "cannot read %s", name);
		}
		if (n == 0) {
			return 0;
		}
		if ((size_t)n > left) {
			out->len = start;
			return err_set(e, ERR_LIMIT, "%s is larger than %zu bytes", name, cap);
		}
		out->len += (size_t)n;
	}
}

int file_read(const char *path, size_t cap, struct buf *out, struct err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	int rv;

	if (fd < 0) {
		return err_errno(e, "cannot open %s", path);
	}
	rv = file_read_fd(fd, path, cap, out, e);
	close(fd);
	return rv;
}

static char *parent_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (slash == NULL) {
		return mem_strdup(".");
	}
	return slash == path ? mem_strdup("/") : mem_strndup(path, (size_t)(slash - path));
}

int dir_sync(const char *path, struct err *e)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rv = 0;

	if (fd < 0) {
		return err_errno(e, "cannot open directory %s", path);
	}
	if (fsync(fd) != 0) {
		rv = err_errno(e, "cannot sync directory %s", path);
	}
	close(fd);
	return rv;
}

static int parent_sync(const char *path, struct err *e)
{
	char *dir = parent_of(path);
	int rv = dir_sync(dir, e);

	mem_free(dir);
	return rv;
}

static int write_all(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len > 0) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n < 0) {
			return -1;
		}
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Content in a temporary file beside path, synced; *ret_tmp names it. */
static int tmp_write(const char *path, const void *data, size_t len, mode_t mode, char **ret_tmp,
		     struct err *e)
{
	char *tmp = mem_printf("%s.tmp-%016" PRIx64, path, rand_u64());
	int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	int rv = 0;

	if (fd < 0) {
		rv = err_errno(e, "cannot create %s", tmp);
		mem_free(tmp);
		return rv;
	}
	/* fchmod, since the umask would take bits from the mode of open. */
	if (write_all(fd, data, len) != 0 || fchmod(fd, mode) != 0 || fsync(fd) != 0) {
		rv = err_errno(e, "cannot write %s", tmp);
	}
	if (close(fd) != 0 && rv == 0) {
		rv = err_errno(e, "cannot write %s", tmp);
	}
	if (rv < 0) {
		unlink(tmp);
		mem_free(tmp);
		return rv;
	}
	*ret_tmp = tmp;
	return 0;
}

int file_write_atomic(const char *path, const void *data, size_t len, mode_t mode, struct err *e)
{
	char *tmp = NULL;
	int rv = tmp_write(path, data, len, mode, &tmp, e);

	if (rv < 0) {
		return rv;
	}
	if (rename(tmp, path) != 0) {
		rv = err_errno(e, "cannot rename to %s", path);
		unlink(tmp);
	} else {
		rv = parent_sync(path, e);
	}
	mem_free(tmp);
	return rv;
}

int file_write_new(const char *path, const void *data, size_t len, mode_t mode, struct err *e)
{
	char *tmp = NULL;
	int rv = tmp_write(path, data, len, mode, &tmp, e);

	if (rv < 0) {
		return rv;
	}
	/* link, unlike rename, does not replace. */
	if (link(tmp, path) != 0) {
		rv = errno == EEXIST ? err_set(e, ERR_EXISTS, "%s is there already", path)
				     : err_errno(e, "cannot create %s", path);
	}
	unlink(tmp);
	mem_free(tmp);
	return rv < 0 ? rv : parent_sync(path, e);
}

int file_remove(const char *path, struct err *e)
{
	if (unlink(path) != 0) {
		return errno == ENOENT ? 0 : err_errno(e, "cannot remove %s", path);
	}
	return parent_sync(path, e);
}

void dir_remove(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *entry;

	while (d != NULL && (entry = readdir(d)) != NULL) {
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
			IGNORE(unlinkat(dirfd(d), entry->d_name, 0) < 0);
		}
	}
	if (d != NULL) {
		closedir(d);
	}
	IGNORE(rmdir(path) < 0);
}

bool file_exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

int dir_ensure(const char *path, mode_t mode, struct err *e)
{
	char *copy = mem_strdup(path);
	size_t len = strlen(copy);
	struct stat st;
	int rv = 0;

	while (len > 1 && copy[len - 1] == '/') {
		copy[--len] = '\0';
	}
	for (char *p = copy + 1; *copy != '\0' && rv == 0; p++) {
		bool last = *p == '\0';

		if (*p != '/' && !last) {
			continue;
		}
		*p = '\0';
		if (mkdir(copy, last ? mode : 0755) == 0) {
			/* The umask may have taken bits; it may not add any. */
			if (last && chmod(copy, mode) != 0) {
				rv = err_errno(e, "cannot set the mode of %s", copy);
			}
		} else if (errno != EEXIST) {
			rv = err_errno(e, "cannot create directory %s", copy);
		} else if (stat(copy, &st) != 0) {
			rv = err_errno(e, "cannot look at %s", copy);
		} else if (!S_ISDIR(st.st_mode)) {
			rv = err_set(e, -ENOTDIR, "%s is not a directory", copy);
		}
		if (last) {
			break;
		}
		*p = '/';
	}
	if (*copy == '\0') {
		rv = err_set(e, ERR_INVALID, "the name of the directory is empty");
	}
	mem_free(copy);
	return rv;
}

int file_check_private(const char *path, struct err *e)
{
	struct stat st;

	if (lstat(path, &st) != 0) {
		return err_errno(e, "cannot look at %s", path);
	}
	if (S_ISLNK(st.st_mode)) {
		return err_set(e, ERR_PRECONDITION,
			       "%s is a symbolic link; put the real file or directory there", path);
	}
	if (st.st_uid != geteuid() && st.st_uid != 0) {
		return err_set(e, ERR_PRECONDITION, "%s belongs to user %u; to repair: chown %u %s",
			       path, (unsigned)st.st_uid, (unsigned)geteuid(), path);
	}
	if ((st.st_mode & 077) != 0) {
		return err_set(e, ERR_PRECONDITION,
			       "%s can be reached by others (mode %04o); to repair: chmod %04o %s",
			       path, (unsigned)st.st_mode & 07777, (unsigned)st.st_mode & 0700,
			       path);
	}
	return 0;
}

static int check_private_tree(const char *path, unsigned depth, struct err *e)
{
	struct dirent *entry;
	int rv = file_check_private(path, e);
	struct stat st;
	DIR *dir;

	if (rv < 0 || lstat(path, &st) != 0 || !S_ISDIR(st.st_mode)) {
		return rv;
	}
	if (depth == 0) {
		return err_set(e, ERR_LIMIT, "%s: directories nest too deep", path);
	}
	dir = opendir(path);
	if (dir == NULL) {
		return err_errno(e, "cannot read directory %s", path);
	}
	while (rv >= 0 && (entry = readdir(dir)) != NULL) {
		char *child;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
			continue;
		}
		child = mem_printf("%s/%s", path, entry->d_name);
		rv = check_private_tree(child, depth - 1, e);
		/* A file that went meanwhile harms nobody. */
		rv = rv == -ENOENT ? 0 : rv;
		mem_free(child);
	}
	closedir(dir);
	return rv;
}

int dir_check_private(const char *path, struct err *e)
{
	return check_private_tree(path, 16, e);
}

int file_lock(const char *path, struct err *e)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	char text[32] = "";
	int len;
	int rv;

	if (fd < 0) {
		return err_errno(e, "cannot open lock file %s", path);
	}
	if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		if (errno == EWOULDBLOCK) {
			ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

			text[n > 0 ? n : 0] = '\0';
			text[strcspn(text, "\n")] = '\0';
			rv = err_set(e, ERR_EXISTS,
				     "%s is locked by process %s; stop that one first, or use "
				     "another directory",
				     path, text[0] != '\0' ? text : "(unknown)");
		} else {
			rv = err_errno(e, "cannot lock %s", path);
		}
		close(fd);
		return rv;
	}
	len = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
	if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)len, 0) != len) {
		rv = err_errno(e, "cannot write lock file %s", path);
		close(fd);
		return rv;
	}
	return fd;
}

void file_unlock(int fd)
{
	if (fd >= 0) {
		close(fd);
	}
}

int secret_read(const char *spec, struct secret_str *ret, bool *ret_literal, struct err *e)
{
	struct buf b = BUF_INIT;
	const char *from = "the secret";
	bool literal = false;
	int rv = 0;

	/* Room at once, so that no copy is left behind by a growing buffer. */
	buf_reserve(&b, LIM_SECRET_BYTES + READ_STEP + 1);
	if (strcmp(spec, "-") == 0) {
		from = "standard input";
		rv = file_read_fd(STDIN_FILENO, from, LIM_SECRET_BYTES, &b, e);
	} else if (strncmp(spec, "file:", 5) == 0) {
		from = spec + 5;
		rv = file_read(from, LIM_SECRET_BYTES, &b, e);
	} else if (strncmp(spec, "env:", 4) == 0) {
		const char *value = getenv(spec + 4);

		from = spec + 4;
		if (value == NULL) {
			rv = err_set(e, ERR_NOT_FOUND, "environment variable %s is not set", from);
		} else if (strlen(value) > LIM_SECRET_BYTES) {
			rv = err_set(e, ERR_LIMIT, "environment variable %s is too long", from);
		} else {
			buf_append_str(&b, value);
		}
	} else if (strlen(spec) > LIM_SECRET_BYTES) {
		rv = err_set(e, ERR_LIMIT, "the secret is too long");
	} else {
		literal = true;
		buf_append_str(&b, spec);
	}
	while (rv == 0 && b.len > 0 && (b.data[b.len - 1] == '\n' || b.data[b.len - 1] == '\r')) {
		b.len--;
	}
	if (rv == 0 && (b.len == 0 || memchr(b.data, '\0', b.len) != NULL)) {
		rv = err_set(e, ERR_INVALID, "%s: the secret is empty or not text", from);
	}
	if (rv == 0) {
		*ret = secret_str_take(mem_strdup(buf_str(&b)));
		if (ret_literal != NULL) {
			*ret_literal = literal;
		}
	}
	buf_wipe(&b);
	return rv;
}
