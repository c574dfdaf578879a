/* The marks beside the store's data: whether it may be used; store_int.h has the picture. */
#include <inttypes.h>
#include <string.h>

#include "base/buf.h"
#include "base/fileio.h"
#include "base/mem.h"
#include "cluster/raft_log.h"
#include "cluster/store_int.h"

enum { BOOT_ID_LEN = 36, MARK_MAX = 4096 };

static char *mark_path(const char *dir, const char *name)
{
	return mem_printf("%s/%s", dir, name);
}

static bool mark_there(const char *dir, const char *name)
{
	char *path = mark_path(dir, name);
	bool there = file_exists(path);

	mem_free(path);
	return there;
}

static int mark_remove(const char *dir, const char *name, struct err *err)
{
	char *path = mark_path(dir, name);
	int r = file_remove(path, err);

	mem_free(path);
	return r;
}

static int mark_write(const char *dir, const char *name, const char *text, struct err *err)
{
	char *path = mark_path(dir, name);
	int r = file_write_atomic(path, text, strlen(text), 0600, err);

	mem_free(path);
	return r;
}

/* The first line; NULL: there is no such mark, or nothing in it is text. */
static char *mark_read(const char *dir, const char *name)
{
	char *path = mark_path(dir, name);
	struct buf b = BUF_INIT;
	char *text = NULL;

	if (file_exists(path) && file_read(path, MARK_MAX, &b, NULL) == 0) {
		text = mem_strdup(buf_str(&b));
		text[strcspn(text, "\n")] = '\0';
	}
	buf_done(&b);
	mem_free(path);
	return text;
}

static int boot_id_read(const char *given, char out[BOOT_ID_LEN + 1], struct err *err)
{
	struct buf b = BUF_INIT;
	int r;

	memset(out, 0, BOOT_ID_LEN + 1);
	if (given != NULL) {
		strncpy(out, given, BOOT_ID_LEN);
		return 0;
	}
	r = file_read("/proc/sys/kernel/random/boot_id", 256, &b, err);
	if (r == 0) {
		memcpy(out, b.data, MIN(b.len, (size_t)BOOT_ID_LEN));
	}
	buf_done(&b);
	return r;
}

/* Written under this very boot of the kernel? */
static bool same_boot(const char *dir, const char *boot_id)
{
	char *text = mark_read(dir, "boot");
	bool same = text != NULL && strncmp(text, boot_id, strlen(boot_id)) == 0;

	mem_free(text);
	return same;
}

static int drop(const char *dir, struct err *err)
{
	int r = mark_remove(dir, "data.mdb", err);

	return r == 0 ? mark_remove(dir, "lock.mdb", err) : r;
}

/* The data goes before the order does: a crash between the two repeats it. */
static int rebuild(const char *dir, char **ret_why, struct err *err)
{
	char *why = mark_read(dir, "rebuild");
	int r = drop(dir, err);

	if (r == 0) {
		r = mark_write(dir, "rebuilt", why != NULL ? why : "", err);
	}
	if (r == 0) {
		r = mark_remove(dir, "rebuild", err);
	}
	if (r != 0) {
		mem_free(why);
		return r;
	}
	*ret_why = why != NULL ? why : mem_strdup("");
	return 0;
}

int store_marks_open(const char *dir, const char *boot_given, struct store_found *ret,
		     struct err *err)
{
	struct store_found f = {0};
	char id[BOOT_ID_LEN + 1];
	bool there = mark_there(dir, "data.mdb");
	char *why;
	int r = boot_id_read(boot_given, id, err);

	if (r != 0) {
		return r;
	}
	if (mark_there(dir, "damaged")) {
		why = mark_read(dir, "damaged");
		r = err_set(err, ERR_CORRUPT,
			    "the store in %s was rebuilt and found wrong again (%s); keep a copy "
			    "of the "
			    "directory, test memory and disk; " RAFT_LOG_REMEDY,
			    dir, why != NULL ? why : "");
		mem_free(why);
		return r;
	}
	if (mark_there(dir, "rebuild")) {
		f.dropped = true;
		r = rebuild(dir, &f.why, err);
	} else {
		f.why = mark_read(dir, "rebuilt");
		if (there && !mark_there(dir, "clean")) {
			f.dropped = !same_boot(dir, id);
			f.unclean = !f.dropped;
		}
		if (f.dropped) {
			r = drop(dir, err);
		}
	}
	/* The new boot id first: between the two steps neither mark vouches for the data wrongly. */
	if (r == 0) {
		r = mark_write(dir, "boot", id, err);
	}
	if (r == 0) {
		r = mark_remove(dir, "clean", err);
	}
	if (r != 0) {
		mem_free(f.why);
		return r;
	}
	*ret = f;
	return 0;
}

int store_marks_order(const char *dir, const char *why, struct err *err)
{
	bool again = mark_there(dir, "rebuilt") || mark_there(dir, "damaged");
	char *line = mem_printf("%s\n", why);
	int r = mark_write(dir, again ? "damaged" : "rebuild", line, err);

	mem_free(line);
	if (r == 0 && again) {
		r = err_set(
			err, ERR_CORRUPT,
			"the store in %s was rebuilt before; keep a copy of the directory, test "
			"memory and disk; " RAFT_LOG_REMEDY,
			dir);
	}
	return r;
}

int store_marks_settle(const char *dir, struct err *err)
{
	return mark_remove(dir, "rebuilt", err);
}

int store_marks_clean(const char *dir, struct err *err)
{
	return mark_write(dir, "clean", "clean\n", err);
}
