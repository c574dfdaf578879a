/*
 * BackupService: the whole state as a stream.
 *
 *   call -> read level awaited -> worker: one read transaction, state into memory -> info, chunks as the client takes them
 *
 * One at a time: a state may be as large as LIM_STATE_BYTES. A client that takes nothing for a minute is given up.
 */
#include <string.h>

#include "api/admin.h"
#include "base/enc.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/clock.h"
#include "base/mem.h"
#include "cluster/backup.h"
#include "proto/pb_util.h"
#include "skerry/v1/backup.pb-c.h"

enum { READ_MS = 5000, CHUNK = 192 << 10, BACKLOG = 768 << 10, STALL_MS = 60000 };

struct backup_call {
	struct api_pending pending;
	struct api *api;
	struct rpc_call *call; /* NULL: it has ended */
	struct backup *backup;
	uint64_t at, size;
	bool waiting; /* a callback of the cluster will come */
	struct caller caller;
	uint64_t revision;
	struct loop_timer stall;
};

/* Frees what is left when the call has ended and nothing comes any more. */
static void let_go(struct backup_call *b)
{
	struct api *api;

	if (b->call || b->waiting)
		return;
	loop_timer_stop(&b->stall);
	api = b->pending.api;
	if (api) {
		api->backup_running = false;
		api_pending_end(&b->pending);
	}
	backup_free(b->backup);
	mem_free(b);
}

static void cancelled(void *arg, struct rpc_call *call, const struct err *why)
{
	struct backup_call *b = arg;

	(void)call;
	(void)why;
	b->call = NULL;
	let_go(b);
}

/* err NULL: the end of a good one. */
static void finish(struct backup_call *b, const struct err *err)
{
	struct rpc_call *call = b->call;

	if (call) {
		rpc_call_set_cancel_cb(call, NULL, NULL);
		rpc_call_set_writable_cb(call, NULL, NULL);
		b->call = NULL;
		rpc_call_finish(call, err);
	}
	let_go(b);
}

static void stalled(void *arg)
{
	struct err err = {0};

	err_set(&err, ERR_DEADLINE, "the client took nothing of the backup for a minute");
	finish(arg, &err);
}

static void on_noted(void *arg, const struct err *err, const Skerry__Internal__V1__CommandResult *r)
{
	const char *why = cluster_backup_unnoted(err, r);

	(void)arg;
	if (why)
		LOG_WARN("a backup that was taken is not in the audit log: %s", why);
}

/* Without a quorum the backup is good all the same. */
static void note(struct backup_call *b)
{
	Skerry__Internal__V1__Command c = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Skerry__Internal__V1__Actor actor;
	char name[64];
	struct err err = {0};

	caller_fill_command(&b->caller, &c, &actor, name);
	if (cluster_propose_backup(b->api->cluster, b->api->loop, &c, b->revision, b->size, NULL, 0,
				   on_noted, NULL, &err) < 0)
		LOG_WARN("a backup that was taken is not in the audit log: %s", err.msg);
}

static void pump(struct backup_call *b)
{
	Skerry__V1__BackupChunk m = SKERRY__V1__BACKUP_CHUNK__INIT;
	uint8_t *data = mem_alloc(CHUNK);
	int rc = 0;

	m.data.data = data;
	m.data.len = CHUNK;
	while (rc >= 0 && b->at < b->size && rpc_call_backlog(b->call) < BACKLOG) {
		m.data.len = backup_read(b->backup, b->at, data, CHUNK);
		if (m.data.len == 0)
			break;
		rc = rpc_call_send(b->call, &m.base);
		if (rc >= 0)
			b->at += m.data.len;
	}
	mem_free(data);
	if (m.data.len == 0 && b->at < b->size) {
		struct err err = {0};

		err_set(&err, ERR_INTERNAL, "the disk does not give the backup back: see its log");
		finish(b, &err);
	} else if (b->at == b->size) {
		cluster_note_backup(b->api->cluster, clock_wall_ms());
		note(b);
		finish(b, NULL);
	} else {
		loop_timer_start(&b->stall, b->api->loop, STALL_MS, stalled, b);
	}
}

static void writable(void *arg, struct rpc_call *call)
{
	struct backup_call *b = arg;

	(void)call;
	if (b->call && b->backup)
		pump(b);
}

static void send_info(struct backup_call *b)
{
	Skerry__V1__BackupChunk m = SKERRY__V1__BACKUP_CHUNK__INIT;
	Skerry__V1__BackupInfo info = SKERRY__V1__BACKUP_INFO__INIT;
	Google__Protobuf__Timestamp time;
	struct backup_facts f;
	char digest[65];

	backup_facts(b->backup, &f);
	info.cluster_id = f.cluster_id;
	info.lighthouse_id = f.lighthouse_id;
	info.epoch = f.epoch;
	info.revision = b->revision = f.revision;
	info.create_time = pb_timestamp_set(&time, (int64_t)f.time_ms);
	info.size = b->size = f.bytes;
	info.records = f.records;
	info.digest = hex_encode(digest, f.digest, sizeof(f.digest));
	m.info = &info;
	IGNORE(rpc_call_send(b->call, &m.base));
}

static void on_backup(void *arg, const struct err *err, struct backup *backup)
{
	struct backup_call *b = arg;

	b->waiting = false;
	b->backup = backup;
	if (!b->call || !b->pending.api) {
		let_go(b);
		return;
	}
	if (err->code) {
		finish(b, err);
		return;
	}
	send_info(b);
	pump(b);
}

static void on_level(void *arg, const struct err *why)
{
	struct backup_call *b = arg;
	struct err err = *why;

	b->waiting = false;
	if (!b->call || !b->pending.api) {
		let_go(b);
		return;
	}
	if (!err.code && cluster_backup(b->api->cluster, b->api->loop, on_backup, b, &err) >= 0) {
		b->waiting = true;
		return;
	}
	if (err_grpc(err.code) == 14 && strlen(err.msg) < 200)
		strcat(err.msg, "; a local one (skerry-read: local) can be taken");
	finish(b, &err);
}

static void on_call(void *arg, struct rpc_call *call, const ProtobufCMessage *req)
{
	struct api *api = arg;
	struct backup_call *b;
	struct read_want want;
	struct err err = {0};

	(void)req;
	if (api->backup_running) {
		err_reason(&err, ERR_LIMIT, "BACKUP_RUNNING",
			   "another backup is being taken from this lighthouse: wait for its end");
		rpc_call_finish(call, &err);
		return;
	}
	if (read_level_parse(rpc_call_metadata(call, "skerry-read"), &want, &err) < 0) {
		rpc_call_finish(call, &err);
		return;
	}
	b = MEM_NEW(struct backup_call);
	api_pending_begin(api, &b->pending);
	api->backup_running = true;
	b->api = api;
	b->call = call;
	b->caller = *caller_of(call);
	rpc_call_set_cancel_cb(call, cancelled, b);
	rpc_call_set_writable_cb(call, writable, b);
	want.deadline_ms = api_call_deadline(call, READ_MS);
	if (cluster_read_wait(api->cluster, api->loop, &want, on_level, b, &err) < 0)
		finish(b, &err);
	else
		b->waiting = true;
}

static const struct rpc_handler handler = {.on_call = on_call};

void backup_service_register(struct api *api, struct rpc_server *server)
{
	rpc_server_add(server, "/skerry.v1.BackupService/CreateBackup", &handler, api);
}
