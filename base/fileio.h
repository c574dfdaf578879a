/* Files: whole reads with a cap, atomic writes, private modes, locks, and where secrets come from. */
#pragma once

#include "base/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct buf;
struct err;
struct secret_str;

/* All block; messages name the path and the remedy. */

/* Appends the whole file; ERR_LIMIT if it is larger than cap, -errno (-ENOENT) otherwise. */
int file_read(const char *path, size_t cap, struct buf *out, struct err *e) MUST_CHECK;
/* Reads fd to its end, same rules; name is for messages. */
int file_read_fd(int fd, const char *name, size_t cap, struct buf *out, struct err *e) MUST_CHECK;
/* Writes a temporary file beside it, fsync, rename, fsync of the directory: afterwards the path
 * holds the old or the new content, never a part, also after a power cut. */
int file_write_atomic(const char *path, const void *data, size_t len, mode_t mode,
		      struct err *e) MUST_CHECK;
/* As file_write_atomic, but ERR_EXISTS if the path is there already. */
int file_write_new(const char *path, const void *data, size_t len, mode_t mode,
		   struct err *e) MUST_CHECK;
/* Removes; a missing file is fine. Directory synced. */
int file_remove(const char *path, struct err *e) MUST_CHECK;
bool file_exists(const char *path);

/* Makes the directory and its parents (parents 0755, itself mode). One that is there is left as
 * it is. */
int dir_ensure(const char *path, mode_t mode, struct err *e) MUST_CHECK;
/* Removes the files in a directory, not its subdirectories, and the directory itself if it is empty then. What cannot be
 * removed stays: for what is cleaned up after a failure. */
void dir_remove(const char *path);
/* fsync of the directory. */
int dir_sync(const char *path, struct err *e) MUST_CHECK;
/* File or directory must belong to us (or root) and give nothing to group and others; else
 * ERR_PRECONDITION with the chmod or chown that repairs it. Symbolic links are refused. */
int file_check_private(const char *path, struct err *e) MUST_CHECK;
/* file_check_private for the directory and every entry in it, subdirectories included. */
int dir_check_private(const char *path, struct err *e) MUST_CHECK;

/* Takes an exclusive lock on path (made 0600) and writes the pid into it. Returns the fd (>= 0), to
 * be given to file_unlock, or ERR_EXISTS naming the process that holds it. */
int file_lock(const char *path, struct err *e) MUST_CHECK;
void file_unlock(int fd);

/* A secret as given on a command line or in a config: "file:PATH", "-" (stdin), "env:NAME", or
 * itself. Newlines at the end are cut; empty is ERR_INVALID, more than LIM_SECRET_BYTES ERR_LIMIT.
 * *ret_literal (may be NULL): it was itself, so an argument list shows it: warn. *ret is the
 * caller's (secret_str_done). */
int secret_read(const char *spec, struct secret_str *ret, bool *ret_literal,
		struct err *e) MUST_CHECK;
