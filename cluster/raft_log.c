/*
 * Reading works on a copy of the log's files beside them: a loader closes open segments and trims what was torn, and who
 * only looks changes nothing. The same goes for writing: libraft puts its files itself.
 */
#include "cluster/raft_log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <raft.h>
#include <raft/uv.h>

#include "base/fileio.h"
#include "base/mem.h"
#include "cluster/fsm.h"
#include "cluster/raft_transport.h"
#include "cluster/snapshot.h"
#include "net/loop.h"

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

struct raft_log {
	uint64_t term;
	struct raft_snapshot *snapshot;
	struct raft_entry *entry;
	size_t n;
	uint64_t first; /* index of entry[0] */
};

static void done(struct raft_log *l)
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

static int load(const char *dir, struct raft_log *ret, struct err *err)
{
	struct loop *loop = loop_new("check");
	struct raft_transport t;
	struct raft_io io = {0};
	bool closed = false;
	raft_index first = 0;
	raft_term term = 0;
	raft_id vote = 0;
	char *copy = NULL;
	int rc = copy_log(dir, &copy, err);
	int rv;

	memset(ret, 0, sizeof(*ret));
	if (rc < 0) {
		loop_free(loop);
		return rc;
	}
	raft_transport_init(&t, loop_uv(loop));
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
		ret->term = term;
		if (rv)
			rc = err_set(err, ERR_CORRUPT, "%s/raft: %s; " RAFT_LOG_REMEDY, dir,
				     io.errmsg);
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

int raft_log_load(const char *dir, struct raft_log **ret, struct err *err)
{
	struct raft_log *log = MEM_NEW(struct raft_log);
	int rc = load(dir, log, err);

	if (rc < 0) {
		raft_log_free(log);
		return rc;
	}
	*ret = log;
	return 0;
}

void raft_log_free(struct raft_log *log)
{
	if (log) {
		done(log);
		mem_free(log);
	}
}

uint64_t raft_log_first(const struct raft_log *log)
{
	return log->first;
}

uint64_t raft_log_last(const struct raft_log *log)
{
	if (log->n)
		return log->first + log->n - 1;
	return log->snapshot ? log->snapshot->index : 0;
}

uint64_t raft_log_term(const struct raft_log *log)
{
	return log->term;
}

bool raft_log_get(const struct raft_log *log, uint64_t index, struct raft_log_entry *ret)
{
	const struct raft_entry *e;

	if (!log->n || index < log->first || index - log->first >= log->n)
		return false;
	e = &log->entry[index - log->first];
	*ret = (struct raft_log_entry){e->term, e->type, e->buf.base, e->buf.len};
	return true;
}

bool raft_log_snapshot(const struct raft_log *log, const void **ret, size_t *ret_len,
		       uint64_t *ret_index)
{
	if (!log->snapshot || log->snapshot->n_bufs != 1)
		return false;
	*ret = log->snapshot->bufs[0].base;
	*ret_len = log->snapshot->bufs[0].len;
	*ret_index = log->snapshot->index;
	return true;
}

/* ---- replay ---- */

int raft_log_replay(const struct raft_log *log, uint64_t cluster_id, uint64_t until,
		    const struct kv *kv, uint64_t *ret_index, struct err *err)
{
	uint64_t last = MIN(until, raft_log_last(log));
	struct raft_log_entry e;
	struct snapshot_header h;
	uint64_t at = 0;
	const void *data;
	size_t len;
	int rc = 0;

	if (raft_log_snapshot(log, &data, &len, &at)) {
		rc = snapshot_open(data, len, &h, err);
		if (rc >= 0)
			rc = snapshot_load(data, len, kv, err);
		if (rc < 0) {
			err_prefix(err, "snapshot at %" PRIu64, at);
			return rc;
		}
	}
	while (at < last) {
		struct applied *a;

		if (!raft_log_get(log, at + 1, &e))
			return err_set(err, ERR_CORRUPT,
				       "the log has no entry %" PRIu64 "; " RAFT_LOG_REMEDY,
				       at + 1);
		at++;
		if (e.type != RAFT_LOG_COMMAND)
			continue;
		rc = fsm_apply(kv, cluster_id, e.data, e.len, at, &a, err);
		if (rc < 0)
			return rc;
		applied_free(a);
	}
	*ret_index = at;
	return 0;
}

/* ---- a new one ---- */

struct put {
	struct raft_io_snapshot_put req;
	bool done;
	int status;
};

static void on_put(struct raft_io_snapshot_put *req, int status)
{
	struct put *p = req->data;

	p->done = true;
	p->status = status;
}

static int put_snapshot(struct raft_io *io, struct loop *loop, uint64_t index, uint64_t term,
			const struct raft_configuration *conf, const struct snapshot *snapshot)
{
	struct raft_snapshot s = {.index = index,
				  .term = term,
				  .configuration = *conf,
				  .configuration_index = index,
				  .bufs = mem_calloc(snapshot->n, sizeof(struct raft_buffer)),
				  .n_bufs = (unsigned)snapshot->n};
	struct put put = {0};
	int rv;

	for (size_t i = 0; i < snapshot->n; i++) {
		s.bufs[i].base = (void *)(uintptr_t)snapshot->piece[i].data;
		s.bufs[i].len = snapshot->piece[i].len;
	}
	put.req.data = &put;
	rv = io->snapshot_put(io, 1, &put.req, &s, on_put);
	while (!rv && !put.done)
		loop_turn(loop, true);
	mem_free(s.bufs);
	return rv ? rv : put.status;
}

int raft_log_begin(const char *raft_dir, uint64_t id, const char *address, uint64_t index,
		   uint64_t term, const struct snapshot *snapshot, struct err *err)
{
	struct loop *loop = loop_new("log");
	struct raft_configuration conf;
	struct raft_transport t;
	struct raft_io io = {0};
	struct raft_log there = {0};
	raft_index first = 0;
	raft_term now = 0;
	raft_id vote = 0;
	bool closed = false;
	int rv, rc = 0;

	raft_configuration_init(&conf);
	raft_transport_init(&t, loop_uv(loop));
	rv = raft_uv_init(&io, loop_uv(loop), raft_dir, &t.t);
	if (rv) {
		rc = err_set(err, ERR_INTERNAL, "libraft: %s", io.errmsg);
		t.t.close(&t.t, transport_closed);
		while (uv_loop_alive(loop_uv(loop)))
			loop_turn(loop, true);
		goto out;
	}
	io.data = &closed;
	raft_uv_set_tracer(&io, NULL);
	rv = io.init(&io, id, address);
	if (!rv)
		rv = io.load(&io, &now, &vote, &there.snapshot, &first, &there.entry, &there.n);
	if (!rv && (now || there.n || there.snapshot))
		rc = err_set(err, ERR_EXISTS, "%s already holds a log", raft_dir);
	done(&there);
	if (!rv && rc >= 0)
		rv = raft_configuration_add(&conf, id, address, RAFT_VOTER);
	if (!rv && rc >= 0)
		rv = io.set_term(&io, term);
	if (!rv && rc >= 0)
		rv = put_snapshot(&io, loop, index, term, &conf, snapshot);
	if (rv)
		rc = err_set(err, ERR_STORE, "%s: %s", raft_dir,
			     io.errmsg[0] ? io.errmsg : raft_strerror(rv));
	io.close(&io, on_closed);
	while (!closed)
		loop_turn(loop, true);
	raft_uv_close(&io);
	while (uv_loop_alive(loop_uv(loop)))
		loop_turn(loop, true);
out:
	raft_configuration_close(&conf);
	loop_free(loop);
	return rc;
}
