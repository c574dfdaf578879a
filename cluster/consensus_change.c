/* Changes of raft's configuration: one at a time, on the leader. */
#include "base/mem.h"
#include "cluster/consensus_int.h"

static void request_free(struct change_request *q)
{
	mem_free(q->address);
	mem_free(q);
}

static void answer(void *arg)
{
	struct change_request *q = arg;

	q->cb(q->arg, &q->err);
	request_free(q);
}

static void finish(struct change_request *q, int rv)
{
	struct consensus *cs = q->cs;

	switch (rv) {
	case 0:
	case RAFT_BADROLE: /* it has the role already */ err_clear(&q->err); break;
	case RAFT_NOTLEADER:
		err_set(&q->err, ERR_NOT_LEADER, "this lighthouse does not lead");
		break;
	case RAFT_CANTCHANGE:
		err_set(&q->err, ERR_AGAIN, "another change of the members is running");
		break;
	case RAFT_BADID:
	case RAFT_DUPLICATEID:
	case RAFT_DUPLICATEADDRESS:
	case RAFT_NOTFOUND:
		err_set(&q->err, ERR_INVALID, "raft configuration: %s", raft_strerror(rv));
		break;
	default:
		err_set(&q->err, ERR_ABORTED, "change of the members: %s", raft_strerror(rv));
		break;
	}
	if (cs->change == q) {
		cs->change = NULL;
	}
	cs->stepped = true;
	loop_post_reply(cs->loop, answer, q);
}

static void on_change(struct raft_change *req, int status);

static void assign(struct change_request *q, int role)
{
	int rv = raft_assign(&q->cs->raft, &q->change, q->id, role, on_change);

	if (rv != 0) {
		finish(q, rv);
	}
}

static void on_change(struct raft_change *req, int status)
{
	struct change_request *q = req->data;

	if (status == 0 && q->kind == CONSENSUS_ADD && !q->assigning) {
		q->assigning = true;
		assign(q, RAFT_STANDBY);
		return;
	}
	finish(q, status);
}

static void on_transfer(struct raft_transfer *req)
{
	struct change_request *q = req->data;
	raft_id leader;
	const char *address;

	raft_leader(&q->cs->raft, &leader, &address);
	finish(q, q->cs->raft.state != RAFT_LEADER && (q->id == 0 || leader == q->id || leader == 0)
			  ? 0
			  : RAFT_CANCELED);
}

void consensus_change(struct consensus *cs, enum consensus_change kind, uint64_t id,
		      const char *address, link_change_cb cb, void *arg)
{
	struct change_request *q = MEM_NEW(struct change_request);
	int rv;

	q->cs = cs;
	q->kind = kind;
	q->id = id;
	q->address = mem_strdup(address);
	q->cb = cb;
	q->arg = arg;
	q->change.data = q;
	q->transfer.data = q;
	if (cs->closing || cs->raft.state != RAFT_LEADER) {
		finish(q, RAFT_NOTLEADER);
		return;
	}
	if (cs->change != NULL || cs->raft.transfer != NULL) {
		finish(q, RAFT_CANTCHANGE);
		return;
	}
	cs->change = q;
	switch (kind) {
	case CONSENSUS_ADD:
		rv = raft_add(&cs->raft, &q->change, id, address, on_change);
		if (rv == RAFT_DUPLICATEID) { /* an earlier leader got as far as this */
			q->assigning = true;
			assign(q, RAFT_STANDBY);
			return;
		}
		break;
	case CONSENSUS_PROMOTE:
		rv = raft_assign(&cs->raft, &q->change, id, RAFT_VOTER, on_change);
		break;
	case CONSENSUS_DEMOTE:
		rv = raft_assign(&cs->raft, &q->change, id, RAFT_STANDBY, on_change);
		break;
	case CONSENSUS_REMOVE: rv = raft_remove(&cs->raft, &q->change, id, on_change); break;
	case CONSENSUS_TRANSFER:
		/* libraft would take the last of the list, dead or not, while an entry is on its way. */
		rv = raft_transfer(&cs->raft, &q->transfer,
				   id != 0 ? id : timing_successor(&cs->shim), on_transfer);
		break;
	default: IMPOSSIBLE("kind of a change");
	}
	if (rv != 0) {
		finish(q, rv);
	}
}
