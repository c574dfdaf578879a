/* Snapshots for peers: one at a time to each, read when it is sent, over a connection of its own. */
#include <inttypes.h>

#include "base/clock.h"
#include "base/log.h"
#include "cluster/raft_install.h"
#include "cluster/raft_shim_int.h"

/* A snapshot for one peer: read, sent, and then some time for the peer. */
struct shim_install {
	struct raft_io_snapshot_get get;
	struct raft_shim *shim;
	struct list node;
	struct raft_message
		message; /* what libraft wanted to send; then with content, which is ours */
	bool reading, full;
	struct raft_install *way;
	uint64_t until_ms; /* all was sent: the peer has it by then; 0: not yet */
};

static struct shim_install *install_find(struct raft_shim *s, raft_id id)
{
	LIST_FOREACH(&s->installs, it)
	{
		struct shim_install *i = LIST_ENTRY(it, struct shim_install, node);

		if (i->message.server_id == id) {
			return i;
		}
	}
	return NULL;
}

static void content_free(struct shim_install *i)
{
	if (i->full) {
		raft_free(i->message.install_snapshot.data.base);
		raft_configuration_close(&i->message.install_snapshot.conf);
		i->full = false;
	}
}

static void install_free(struct shim_install *i)
{
	content_free(i);
	list_remove(&i->node);
	shim_message_done(&i->message);
	mem_free(i);
}

static void install_sent(void *arg, int status)
{
	struct shim_install *i = arg;

	LOG_DEBUG("raft: snapshot to %" PRIu64 ": sent with status %d",
		  (uint64_t)i->message.server_id, status);
	i->way = NULL;
	if (status != 0) {
		install_free(i);
		return;
	}
	i->until_ms = clock_mono_ms() + SHIM_INSTALL_MS +
		      i->message.install_snapshot.data.len * 1000ull / SHIM_INSTALL_BYTES;
	content_free(i);
}

static void install_read(struct raft_io_snapshot_get *req, struct raft_snapshot *snapshot,
			 int status)
{
	struct shim_install *i = container_of(req, struct shim_install, get);
	struct raft_install_snapshot *m = &i->message.install_snapshot;
	struct raft_shim *s = i->shim;

	i->reading = false;
	if (status == 0) {
		PRE(snapshot->n_bufs == 1);
		m->last_index = snapshot->index;
		m->last_term = snapshot->term;
		m->conf = snapshot->configuration;
		m->conf_index = snapshot->configuration_index;
		m->data = snapshot->bufs[0];
		i->full = true;
		raft_free(snapshot->bufs);
		raft_free(snapshot);
	}
	if (status != 0 || s->closing || s->raft->state != RAFT_LEADER ||
	    s->raft->current_term != m->term) {
		install_free(i);
		return;
	}
	LOG_DEBUG("raft: snapshot %" PRIu64 " of %zu bytes goes to %" PRIu64,
		  (uint64_t)m->last_index, m->data.len, (uint64_t)i->message.server_id);
	if (raft_install_start(&i->way, s->net, &i->message, install_sent, i) != 0) {
		install_free(i);
	}
}

void shim_install_begin(struct raft_shim *s, const struct raft_message *message)
{
	struct shim_install *i;

	if (s->closing || install_find(s, message->server_id) != NULL) {
		/* As if the network had lost it: the first one is still on its way. */
		s->installs_dropped++;
		return;
	}
	i = MEM_NEW(struct shim_install);
	i->shim = s;
	shim_message_copy(&i->message, message);
	list_push(&s->installs, &i->node);
	i->reading = true;
	if (s->inner.snapshot_get(&s->io, &i->get, install_read) != 0) {
		install_free(i);
	}
}

/*
 * libraft takes it for lost when the peer rejects what follows a snapshot, and sends another one. But a peer that has
 * not got it yet must reject the heartbeats that pass it.
 */
void shim_install_judge(struct raft_shim *s, raft_id id, struct raft_append_entries_result *a)
{
	struct shim_install *i = install_find(s, id);

	if (i == NULL) {
		return;
	}
	if (a->rejected == 0 && i->until_ms != 0 &&
	    a->last_log_index >= i->message.install_snapshot.last_index) {
		LOG_DEBUG("raft: snapshot to %" PRIu64 ": is there", (uint64_t)id);
		install_free(i);
	} else if (a->rejected != 0 && a->term == s->raft->current_term) {
		a->rejected =
			UINT64_MAX; /* an index that it never sent: counts as a sign of life */
	}
}

void shim_installs_expire(struct raft_shim *s)
{
	uint64_t now = clock_mono_ms();

	LIST_FOREACH_SAFE(&s->installs, it, tmp)
	{
		struct shim_install *i = LIST_ENTRY(it, struct shim_install, node);

		if (i->until_ms != 0 && (now >= i->until_ms || s->raft->state != RAFT_LEADER)) {
			LOG_DEBUG("raft: snapshot to %" PRIu64 ": no word of it",
				  (uint64_t)i->message.server_id);
			install_free(i);
		}
	}
}

/* What is being read ends with the back end. */
void shim_installs_cancel(struct raft_shim *s)
{
	LIST_FOREACH_SAFE(&s->installs, it, tmp)
	{
		struct shim_install *i = LIST_ENTRY(it, struct shim_install, node);

		if (!i->reading) {
			raft_install_cancel(i->way);
			install_free(i);
		}
	}
}

void shim_installs_free(struct raft_shim *s)
{
	while (!list_empty(&s->installs)) {
		install_free(LIST_ENTRY(s->installs.next, struct shim_install, node));
	}
}
