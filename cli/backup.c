/* skerry backup: the state of the whole cluster into a file. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fileio.h"
#include "base/mem.h"
#include "cli/cli_int.h"
#include "skerry/v1/backup.pb-c.h"

enum { STALL_MS = 120000 };

struct writing {
	struct client_stream *stream;
	int fd;
	int error; /* errno of a failed write */
	uint64_t began_ms, bytes, size, revision;
	char digest[65];
};

static void on_message(void *arg, const ProtobufCMessage *msg)
{
	const Skerry__V1__BackupChunk *m = (const Skerry__V1__BackupChunk *)msg;
	struct writing *w = arg;

	/* The limit is for a lighthouse that falls silent, not for a large state. */
	w->stream->wait_ms = clock_mono_ms() - w->began_ms + STALL_MS;
	if (m->info) {
		w->size = m->info->size;
		w->revision = m->info->revision;
		snprintf(w->digest, sizeof(w->digest), "%s", m->info->digest);
	}
	for (size_t at = 0; at < m->data.len && !w->error;) {
		ssize_t n = write(w->fd, m->data.data + at, m->data.len - at);

		if (n < 0 && errno != EINTR) {
			w->error = errno;
		} else if (n > 0) {
			at += (size_t)n;
			w->bytes += (uint64_t)n;
		}
	}
	if (w->error) {
		w->stream->wait_ms = 1; /* nothing of the rest is of use */
	}
}

static char *directory_of(struct cli *cx, const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash == NULL   ? cli_printf(cx, ".")
	       : slash == path ? cli_printf(cx, "/")
			       : cli_printf(cx, "%.*s", (int)(slash - path), path);
}

/* What came is complete: on the disk under its name, or not at all. */
static int put_in_place(struct cli *cx, struct writing *w, const char *tmp, const char *file)
{
	struct err e = {0};

	if (w->size == 0 || w->bytes != w->size) {
		return cli_fail(cx, CLI_FAILED,
				"the backup ended after %" PRIu64 " of %" PRIu64
				" bytes; nothing was kept",
				w->bytes, w->size);
	}
	if (fsync(w->fd) != 0) {
		return cli_fail(cx, CLI_FAILED, "%s: %s; nothing was kept", tmp, strerror(errno));
	}
	if (cli_given(cx, OPT_OVERWRITE)
		    ? rename(tmp, file) != 0
		    : renameat2(AT_FDCWD, tmp, AT_FDCWD, file, RENAME_NOREPLACE) != 0) {
		return cli_fail(cx, errno == EEXIST ? CLI_CONFLICT : CLI_FAILED, "%s: %s", file,
				strerror(errno));
	}
	if (dir_sync(directory_of(cx, file), &e) < 0) {
		return cli_fail(cx, CLI_FAILED, "%s", e.msg);
	}
	return CLI_OK;
}

static int run_stream(struct cli *cx, struct writing *w, const char *file)
{
	Skerry__V1__CreateBackupRequest req = SKERRY__V1__CREATE_BACKUP_REQUEST__INIT;
	struct client_stream s = {.on_message = on_message,
				  .arg = w,
				  .wait_ms = MAX(client_remaining_ms(cx), (uint64_t)1)};
	bool interrupted = false;
	int rc;

	w->stream = &s;
	w->began_ms = clock_mono_ms();
	rc = client_stream(cx, "/skerry.v1.BackupService/CreateBackup", &req, &s, &interrupted);
	if (interrupted) {
		return CLI_INTERRUPTED;
	}
	if (w->error) {
		return cli_fail(cx, CLI_FAILED, "%s: %s; nothing was kept", file,
				strerror(w->error));
	}
	return rc < 0 ? client_explain(cx) : CLI_OK;
}

int cmd_backup_create(struct cli *cx)
{
	const char *file = cx->args[0];
	char *tmp = cli_printf(cx, "%s.tmp", file);
	struct writing w = {.fd = -1};
	char size[TIME_TEXT];
	uint64_t took;
	int rc;

	if (!cli_given(cx, OPT_OVERWRITE) && file_exists(file)) {
		return cli_fail(cx, CLI_CONFLICT, "%s is there already; --force replaces it",
				print_safe(cx, file));
	}
	rc = client_to_lighthouse(cx);
	if (rc != CLI_OK) {
		return rc;
	}
	/* One that was left by a run that was killed is of no use to anybody. */
	if (unlink(tmp) != 0 && errno != ENOENT) {
		return cli_fail(cx, CLI_FAILED, "%s: %s", print_safe(cx, tmp), strerror(errno));
	}
	w.fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (w.fd < 0) {
		return cli_fail(cx, CLI_FAILED, "%s: %s", print_safe(cx, tmp), strerror(errno));
	}
	rc = run_stream(cx, &w, file);
	if (rc == CLI_OK) {
		rc = put_in_place(cx, &w, tmp, file);
	}
	close(w.fd);
	if (rc != CLI_OK) {
		(void)unlink(tmp);
		return rc;
	}
	took = clock_mono_ms() - w.began_ms;
	if (cli_json(cx)) {
		fprintf(cx->io->out,
			"{\"revision\": \"%" PRIu64 "\", \"size\": \"%" PRIu64
			"\", \"digest\": \"%s\"}\n",
			w.revision, w.bytes, print_safe(cx, w.digest));
	} else {
		fprintf(cx->io->out,
			"%s: revision %" PRIu64 ", %s, digest %.16s, in %" PRIu64 ".%" PRIu64
			" s\n",
			print_safe(cx, file), w.revision, print_bytes(w.bytes, size),
			print_safe(cx, w.digest), took / 1000, took % 1000 / 100);
	}
	return CLI_OK;
}
