/* The log is read by libraft's own loader, so that what is checked is what a start would read. */
#include "cluster/check.h"

#include <inttypes.h>
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/fileio.h"
#include "base/limits.h"
#include "base/mem.h"
#include "cluster/entry.h"
#include "cluster/fsm.h"
#include "cluster/keyfile.h"
#include "cluster/raft_log.h"
#include "cluster/snapshot.h"
#include "cluster/store.h"
#include "net/json_pb.h"
#include "proto/pb_decode.h"
#include "tailnet/tailnet.h"

/* Opens what both commands need; the lock keeps the daemon out. */
static int begin(const char *dir, struct keyfile *keys, int *ret_lock, struct raft_log **ret_log,
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
		rc = raft_log_load(dir, ret_log, err);
		if (rc < 0) {
			file_unlock(*ret_lock);
			keyfile_done(keys);
		}
	} else {
		keyfile_done(keys);
	}
	return rc;
}

static int check_log(const char *dir, const struct raft_log *log, struct err *err)
{
	struct raft_log_entry e;
	struct snapshot_header h;
	uint64_t index;
	const void *data;
	size_t len;
	int rc;

	if (raft_log_snapshot(log, &data, &len, &index)) {
		rc = snapshot_open(data, len, &h, err);
		if (rc < 0) {
			err_prefix(err, "%s/raft: snapshot at %" PRIu64, dir, index);
			return rc;
		}
	}
	for (index = raft_log_first(log); raft_log_get(log, index, &e); index++) {
		struct entry_reader r;

		if (e.type != RAFT_LOG_COMMAND)
			continue;
		rc = entry_open(&r, e.data, e.len, err);
		if (rc < 0) {
			err_prefix(err, "%s/raft: entry %" PRIu64, dir, index);
			return rc;
		}
	}
	return 0;
}

/* A store that is wrong, and not the disk or the call: says what to do. */
static int store_failed(const char *path, struct store *store, int rc, struct err *err)
{
	char what[sizeof(err->msg)];

	snprintf(what, sizeof(what), "%s", err_msg(err, rc));
	if (rc == ERR_CORRUPT || (store && store_damage(store)))
		return err_set(err, ERR_CORRUPT, "%s: %s; " STORE_REMEDY, path, what);
	err_prefix(err, "%s", path);
	return rc;
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
	char *data = mem_printf("%s/data.mdb", path);
	bool there = file_exists(data);
	int rc;

	mem_free(data);
	if (!there) { /* not filled yet, or removed to be built again from the log */
		mem_free(path);
		return 0;
	}
	rc = store_open(&store, &so, NULL, err);
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
		while (rc >= 0 && kv_next(kv, key, &key, &value) >= 0)
			ret->records++;
	}
	if (rc < 0)
		rc = store_failed(path, store, rc, err);
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
	struct raft_log *log;
	int lock;
	int rc = begin(dir, &keys, &lock, &log, err);

	if (rc < 0)
		return rc;
	f.cluster_id = keys.cluster_id;
	f.lighthouse_id = keys.lighthouse_id;
	f.first_index = raft_log_first(log) <= raft_log_last(log) ? raft_log_first(log) : 0;
	f.last_index = raft_log_last(log);
	rc = check_log(dir, log, err);
	if (rc >= 0)
		rc = check_store(dir, &f, err);
	if (rc >= 0 && f.applied_index > f.last_index)
		rc = err_set(err, ERR_CORRUPT,
			     "%s: the store has applied entry %" PRIu64 ", the log ends at %" PRIu64
			     "; " RAFT_LOG_REMEDY,
			     dir, f.applied_index, f.last_index);
	raft_log_free(log);
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
	struct raft_log_entry e;
	char time[CLOCK_TEXT];
	struct raft_log *log;
	int lock;
	int rc = begin(dir, &keys, &lock, &log, err);

	if (rc < 0)
		return rc;
	if (!raft_log_get(log, index, &e)) {
		rc = err_set(err, ERR_NOT_FOUND,
			     "the log holds the entries %" PRIu64 " to %" PRIu64,
			     raft_log_first(log), raft_log_last(log));
	} else {
		fprintf(out, "entry %" PRIu64 ", term %" PRIu64 ", %s, %zu bytes\n", index, e.term,
			types[e.type < ARRAY_LEN(types) ? e.type : 0], e.len);
		if (e.type == RAFT_LOG_COMMAND) {
			rc = entry_open(&r, e.data, e.len, err);
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
	raft_log_free(log);
	file_unlock(lock);
	keyfile_done(&keys);
	return rc;
}

/* ---- replay ---- */

static int store_facts(const char *dir, struct cluster_replay_facts *ret, struct err *err)
{
	char *path = mem_printf("%s/store", dir);
	struct store_options so = {.dir = path, .read_only = true};
	struct store_read *read = NULL;
	struct store *store = NULL;
	char *data = mem_printf("%s/data.mdb", path);
	struct state_view view;
	int rc = 0;

	/* Removed to be built again from the log: nothing to compare with. */
	if (file_exists(data)) {
		rc = store_open(&store, &so, NULL, err);
		if (rc >= 0)
			rc = store_read_begin(store, "replay", &read, err);
	}
	mem_free(data);
	if (rc >= 0 && read) {
		ret->store_index = store_read_applied(read);
		rc = fsm_view(store_read_kv(read), &view, err);
		memcpy(ret->store_digest, view.digest, sizeof(ret->store_digest));
		store_read_end(read);
	}
	if (rc < 0)
		rc = store_failed(path, store, rc, err);
	store_close(store);
	mem_free(path);
	return rc;
}

int cluster_replay(const char *dir, struct cluster_replay_facts *ret, struct err *err)
{
	struct cluster_replay_facts f = {0};
	struct kv_mem *mem = kv_mem_new();
	struct kv kv = kv_mem_kv(mem);
	struct keyfile keys = {0};
	struct state_view view = {0};
	struct raft_log *log;
	uint64_t snapshot = 0;
	const void *data;
	size_t len;
	int lock;
	int rc = begin(dir, &keys, &lock, &log, err);

	if (rc < 0) {
		kv_mem_free(mem);
		return rc;
	}
	rc = store_facts(dir, &f, err);
	f.has_snapshot = raft_log_snapshot(log, &data, &len, &snapshot);
	f.snapshot_index = snapshot;
	/* The log may end behind what is known to be committed. A store before the snapshot was dropped. */
	f.comparable = rc >= 0 && f.store_index > 0 && f.store_index >= snapshot;
	if (rc >= 0)
		rc = raft_log_replay(log, keys.cluster_id,
				     f.comparable ? f.store_index : UINT64_MAX, &kv, &f.last_index,
				     err);
	if (rc >= 0 && f.last_index)
		rc = tailnet_check(&kv, err);
	if (rc >= 0)
		rc = fsm_view(&kv, &view, err);
	f.epoch = view.epoch;
	f.revision = view.revision;
	memcpy(f.digest, view.digest, sizeof(f.digest));
	if (rc >= 0 && f.comparable &&
	    (f.last_index != f.store_index || memcmp(f.digest, f.store_digest, 32) != 0))
		rc = err_set(err, ERR_CORRUPT,
			     "the log up to entry %" PRIu64
			     " makes another state than the store in %s/store holds: remove its "
			     "data.mdb, and it is rebuilt from the log at the next start",
			     f.last_index, dir);
	raft_log_free(log);
	kv_mem_free(mem);
	file_unlock(lock);
	keyfile_done(&keys);
	if (rc >= 0)
		*ret = f;
	return rc;
}
