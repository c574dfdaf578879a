/*
 * Commands of other lighthouses: forwarded to us because we lead, judged once more before they get into the log, answered on
 * the loop they came from.
 */
#include "base/buf.h"
#include "base/limits.h"
#include "base/mem.h"
#include "cluster/cluster_int.h"
#include "proto/pb_decode.h"
#include "proto/pb_util.h"

static const struct err none;

struct remote {
	struct consensus_command cmd;
	struct cluster *c;
	uint8_t *data;
	size_t len;
	struct loop *loop;
	propose_local_cb cb;
	void *arg;
	struct loop_post post; /* to the raft thread, then back */
	struct err *failure;   /* NULL: success */
	struct link_place at;
	struct buf result; /* packed */
};

static void remote_fire(void *arg)
{
	struct remote *m = arg;

	m->cb(m->arg, m->failure != NULL ? m->failure : &none,
	      (ProtobufCBinaryData){m->result.len, m->result.data}, m->at);
	buf_done(&m->result);
	mem_free(m->failure);
	mem_free(m->data);
	mem_free(m);
}

static void on_remote_done(struct consensus_command *cmd, const struct err *err, uint64_t index,
			   const CommandResult *r)
{
	struct remote *m = container_of(cmd, struct remote, cmd);

	m->failure = err->code != 0 ? mem_memdup(err, sizeof(*err)) : NULL;
	m->at = (struct link_place){.index = index, .term = cmd->term};
	if (r != NULL) {
		pb_pack(r, &m->result);
	}
	atomic_fetch_sub(&m->c->prop.remote_items, 1);
	loop_post_own(m->loop, &m->post, remote_fire, m);
}

static int remote_admit(struct remote *m, struct err *err)
{
	ProtobufCMessage *msg;
	int r = propose_admit(m->c, true, err);

	if (r == 0 && consensus_feature_level(m->c->cs) >= FEATURE_LEVEL_MAX) {
		return 0;
	}
	if (pb_decode_heap(&skerry__internal__v1__command__descriptor, m->data, m->len, NULL, &msg,
			   NULL) == 0) {
		const Command *cmd = (const Command *)msg;

		if (r == 0 || !propose_grows((int)cmd->body_case)) {
			r = propose_level(m->c, tailnet_command_level(cmd), err);
		}
		pb_free(msg);
	}
	return r;
}

static void on_remote(void *arg)
{
	struct remote *m = arg;
	struct err err = {0};

	if (m->c->stopping) {
		err_set(&err, ERR_NOT_LEADER, "this lighthouse stops");
		on_remote_done(&m->cmd, &err, 0, NULL);
	} else if (consensus_leads(m->c->cs) && remote_admit(m, &err) != 0) {
		on_remote_done(&m->cmd, &err, 0, NULL);
	} else {
		consensus_submit(m->c->cs, &m->cmd);
	}
}

int propose_local(struct cluster *c, struct loop *loop, const void *command, size_t len,
		  uint64_t deadline_ms, propose_local_cb cb, void *arg, struct err *err)
{
	struct remote *m;
	int r;

	if (len > LIM_COMMAND_BYTES) {
		return err_set(err, ERR_LIMIT, "the command has %zu bytes, the limit is %u", len,
			       LIM_COMMAND_BYTES);
	}
	/* What the log holds must be understood by all: judged before it gets there. */
	r = fsm_check_command(command, len, err);
	if (r != 0) {
		return r;
	}
	if (atomic_fetch_add(&c->prop.remote_items, 1) >= LIM_CMD_QUEUE_ITEMS * LIM_MEMBERS) {
		atomic_fetch_sub(&c->prop.remote_items, 1);
		return err_reason(err, ERR_LIMIT, "QUEUE_FULL",
				  "too many commands of other lighthouses wait at the leader");
	}
	m = MEM_NEW(struct remote);
	m->c = c;
	m->data = mem_memdup(command, len);
	m->len = len;
	m->loop = loop;
	m->cb = cb;
	m->arg = arg;
	m->cmd.data = m->data;
	m->cmd.len = len;
	m->cmd.deadline_ms = deadline_ms;
	m->cmd.done = on_remote_done;
	loop_post_own(c->loop, &m->post, on_remote, m);
	return 0;
}
