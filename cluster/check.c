/*
 * The log is read by libraft's own loader, so that what is checked is what a start would read. It works on a copy of the
 * log's files beside them: a loader closes open segments and trims what was torn, and a check changes nothing.
 */
#include "cluster/check.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <raft.h>
#include <raft/uv.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/fileio.h"
#include "base/limits.h"
#include "base/mem.h"
#include "cluster/entry.h"
#include "cluster/fsm.h"
#include "cluster/keyfile.h"
#include "cluster/raft_transport.h"
#include "cluster/snapshot.h"
#include "cluster/store.h"
#include "net/json_pb.h"
#include "net/loop.h"
#include "proto/pb_decode.h"
#include "tailnet/tailnet.h"

#define LOG_REMEDY                                                                              \
	"if the other lighthouses are well, remove this one from the cluster (`skerry cluster " \
	"remove`) and join it "                                                                 \
	"anew with an empty directory"

/* ---- a copy of the log ---- */

static int copy_file(const char *from, const char *to, struct err *err)
{
	int in = open(from, O_RDONLY | O_CLOEXEC);
	int out = in < 0 ? -1 : open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	ssize_t n = 0;
	int rc = 0;

	if (out >= 0) {
		while ((n = copy_file_range(in, NULL, out, NULL, 1 << 30, 0)) > 0) {
		}
	}
	if (in < 0 || out < 0 || n < 0)
		rc = err_errno(err, "copying %s for the check", from);
	if (in >= 0)
		close(in);
	if (out >= 0)
		close(out);
	return rc;
}

static int copy_log(const char *dir, char **ret, struct err *err)
{
	char *raft = mem_printf("%s/raft", dir);
	char *copy = mem_printf("%s/check.XXXXXX", dir);
	DIR *d = opendir(raft);
	struct dirent *e;
	int rc = 0;

	if (!d || !mkdtemp(copy)) {
		rc = err_errno(err, "%s", d ? copy : raft);
		mem_free(copy);
		copy = NULL;
	}
	while (rc >= 0 && (e = readdir(d))) {
		char *from = mem_printf("%s/%s", raft, e->d_name);
		char *to = mem_printf("%s/%s", copy, e->d_name);

		if (e->d_name[0] != '.')
			rc = copy_file(from, to, err);
		mem_free(from);
		mem_free(to);
	}
	if (d)
		closedir(d);
	mem_free(raft);
	if (rc < 0 && copy) {
		dir_remove(copy);
		mem_free(copy);
		return rc;
	}
	*ret = copy;
	return rc;
}

/* ---- reading it ---- */

struct log {
	struct raft_snapshot *snapshot;
	struct raft_entry *entry;
	size_t n;
	uint64_t first; /* index of entry[0] */
};

static void log_done(struct log *l)
{
	void *batch = NULL;

	for (size_t i = 0; i < l->n; i++) {
		if (!l->entry[i].batch) {
			raft_free(l->entry[i].buf.base);
		} else if (l->entry[i].batch != batch) {
			batch = l->entry[i].batch;
			raft_free(batch);
		}
	}
	raft_free(l->entry);
	if (l->snapshot) {
		for (unsigned i = 0; i < l->snapshot->n_bufs; i++)
			raft_free(l->snapshot->bufs[i].base);
		raft_free(l->snapshot->bufs);
		raft_configuration_close(&l->snapshot->configuration);
		raft_free(l->snapshot);
	}
}

static void on_closed(struct raft_io *io)
{
	*(bool *)io->data = true;
}

static void transport_closed(struct raft_uv_transport *t)
{
	(void)t;
}

static int log_load(const char *dir, struct log *ret, struct err *err)
{
	struct loop *loop = loop_new("check");
	struct raft_transport t;
	struct raft_io io = {0};
	bool closed = false;
	raft_index first = 0;
	raft_term term;
	raft_id vote;
	char *copy = NULL;
	int rc = copy_log(dir, &copy, err);
	int rv;

	memset(ret, 0, sizeof(*ret));
	if (rc < 0) {
		loop_free(loop);
		return rc;
	}
	raft_transport_init(&t, loop_uv(loop), NULL, NULL);
	rv = raft_uv_init(&io, loop_uv(loop), copy, &t.t);
	if (rv) {
		rc = err_set(err, ERR_INTERNAL, "libraft: %s", io.errmsg);
		t.t.close(&t.t, transport_closed);
		while (uv_loop_alive(loop_uv(loop)))
			loop_turn(loop, true);
	} else {
		io.data = &closed;
		raft_uv_set_tracer(&io, NULL);
		raft_uv_set_auto_recovery(&io, false);
		rv = io.init(&io, 1, "check");
		if (!rv)
			rv = io.load(&io, &term, &vote, &ret->snapshot, &first, &ret->entry,
				     &ret->n);
		ret->first = first;
		if (rv)
			rc = err_set(err, ERR_CORRUPT, "%s/raft: %s; " LOG_REMEDY, dir, io.errmsg);
		io.close(&io, on_closed);
		while (!closed)
			loop_turn(loop, true);
		raft_uv_close(&io);
		while (uv_loop_alive(loop_uv(loop)))
			loop_turn(loop, true);
	}
	loop_free(loop);
	dir_remove(copy);
	mem_free(copy);
	return rc;
}

/* Opens what both commands need; the lock keeps the daemon out. */
static int begin(const char *dir, struct keyfile *keys, int *ret_lock, struct log *log,
		 struct err *err)
{
	char *lock = mem_printf("%s/lock", dir);
	int rc = keyfile_read(dir, keys, err);

	if (rc >= 0) {
		rc = file_lock(lock, err);
		*ret_lock = rc;
		if (rc == ERR_EXISTS)
			err_prefix(err, "stop the daemon first");
	}
	mem_free(lock);
	if (rc >= 0) {
		rc = log_load(dir, log, err);
		if (rc < 0) {
			file_unlock(*ret_lock);
			keyfile_done(keys);
		}
	} else {
		keyfile_done(keys);
	}
	return rc;
}

static int check_log(const char *dir, const struct log *log, struct err *err)
{
	if (log->snapshot && log->snapshot->n_bufs == 1) {
		struct snapshot_header h;
		int rc = snapshot_open(log->snapshot->bufs[0].base, log->snapshot->bufs[0].len, &h,
				       err);

		if (rc < 0) {
			err_prefix(err, "%s/raft: snapshot at %llu", dir, log->snapshot->index);
			return rc;
		}
	}
	for (size_t i = 0; i < log->n; i++) {
		struct entry_reader r;
		int rc;

		if (log->entry[i].type != RAFT_COMMAND)
			continue;
		rc = entry_open(&r, log->entry[i].buf.base, log->entry[i].buf.len, err);
		if (rc < 0) {
			err_prefix(err, "%s/raft: entry %" PRIu64, dir, log->first + i);
			return rc;
		}
	}
	return 0;
}

static int check_store(const char *dir, struct cluster_check_facts *ret, struct err *err)
{
	char *path = mem_printf("%s/store", dir);
	struct store_options so = {.dir = path, .read_only = true};
	struct slice key = {"", 0};
	struct slice value;
	struct state_view view;
	struct store_read *read = NULL;
	struct store *store = NULL;
	int rc = store_open(&store, &so, NULL, err);

	if (rc >= 0)
		rc = store_read_begin(store, "check", &read, err);
	if (rc >= 0) {
		const struct kv *kv = store_read_kv(read);

		ret->applied_index = store_read_applied(read);
		rc = fsm_view(kv, &view, err);
		ret->revision = view.revision;
		memcpy(ret->digest, view.digest, sizeof(ret->digest));
		if (rc >= 0 && ret->applied_index)
			rc = tailnet_check(kv, err);
		if (rc < 0)
			err_prefix(err, "%s", path);
		while (rc >= 0 && kv_next(kv, key, &key, &value) >= 0)
			ret->records++;
	}
	if (read)
		store_read_end(read);
	store_close(store);
	mem_free(path);
	return rc;
}

int cluster_check_dir(const char *dir, struct cluster_check_facts *ret, struct err *err)
{
	struct cluster_check_facts f = {0};
	struct keyfile keys = {0};
	struct log log;
	int lock;
	int rc = begin(dir, &keys, &lock, &log, err);

	if (rc < 0)
		return rc;
	f.cluster_id = keys.cluster_id;
	f.lighthouse_id = keys.lighthouse_id;
	f.first_index = log.n ? log.first : 0;
	f.last_index = log.n ? log.first + log.n - 1 : log.snapshot ? log.snapshot->index : 0;
	rc = check_log(dir, &log, err);
	if (rc >= 0)
		rc = check_store(dir, &f, err);
	if (rc >= 0 && f.applied_index > f.last_index)
		rc = err_set(err, ERR_CORRUPT,
			     "%s: the store has applied entry %" PRIu64 ", the log ends at %" PRIu64
			     "; " LOG_REMEDY,
			     dir, f.applied_index, f.last_index);
	log_done(&log);
	file_unlock(lock);
	keyfile_done(&keys);
	if (rc >= 0)
		*ret = f;
	return rc;
}

static int dump_commands(struct entry_reader *r, FILE *out, struct err *err)
{
	const struct pb_opts opts = {0};
	const uint8_t *data;
	struct arena arena;
	size_t len;
	int rc = 0;

	arena_init(&arena, pb_arena_budget(LIM_COMMAND_BYTES));
	while (rc >= 0 && entry_next(r, &data, &len)) {
		struct buf json = BUF_INIT;
		ProtobufCMessage *m;

		rc = pb_decode(&skerry__internal__v1__command__descriptor, data, len, &opts, &arena,
			       &m, err);
		if (rc >= 0)
			json_pb_write(m, 0, &json);
		if (rc >= 0)
			fprintf(out, "%s\n", buf_str(&json));
		buf_done(&json);
		arena_reset(&arena);
	}
	arena_done(&arena);
	return rc;
}

int cluster_dump_entry(const char *dir, uint64_t index, FILE *out, struct err *err)
{
	static const char *const types[] = {"?", "command", "barrier", "configuration"};
	struct keyfile keys = {0};
	struct entry_reader r;
	struct raft_entry *e;
	char time[CLOCK_TEXT];
	struct log log;
	int lock;
	int rc = begin(dir, &keys, &lock, &log, err);

	if (rc < 0)
		return rc;
	if (!log.n || index < log.first || index >= log.first + log.n) {
		rc = err_set(err, ERR_NOT_FOUND,
			     "the log holds the entries %" PRIu64 " to %" PRIu64, log.first,
			     log.first + log.n - (log.n ? 1 : 0));
	} else {
		e = &log.entry[index - log.first];
		fprintf(out, "entry %" PRIu64 ", term %llu, %s, %zu bytes\n", index, e->term,
			types[(size_t)e->type < ARRAY_LEN(types) ? (size_t)e->type : 0],
			e->buf.len);
		if (e->type == RAFT_COMMAND) {
			rc = entry_open(&r, e->buf.base, e->buf.len, err);
			if (rc >= 0) {
				fprintf(out,
					"time %s, epoch %" PRIu64
					", feature level %u, flags %u, %u commands\n",
					clock_format((int64_t)r.header.time_ms, time),
					r.header.epoch, r.header.feature_level, r.header.flags,
					r.header.count);
				rc = dump_commands(&r, out, err);
			}
		}
	}
	log_done(&log);
	file_unlock(lock);
	keyfile_done(&keys);
	return rc;
}
