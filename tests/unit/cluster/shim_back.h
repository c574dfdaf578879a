/* A shim over a back end that notes what it is asked and answers when told, and a raft that is none. */
#pragma once

#include "tests/lib/test.h"

#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "cluster/link_int.h"
#include "cluster/raft_shim.h"

static struct {
	int rv;    /* what the back end returns */
	int calls; /* of it */
	struct raft_io_append *append;
	raft_io_append_cb append_cb;
	struct raft_io_snapshot_put *put;
	raft_io_snapshot_put_cb put_cb;
	struct raft_io_send *send[8];
	raft_io_send_cb send_cb[8];
	struct raft_message sent[8];
	size_t n_sent;
	raft_io_tick_cb tick;
	raft_io_recv_cb recv;
	struct raft_io_snapshot_get *get;
	raft_io_snapshot_get_cb get_cb;
	int gets, closed;
	uint64_t connect; /* a connection is asked for; 0: none is */
} be;

static struct {
	int failed;
	char text[512];
	int answered, status;
	int ticks, received;
	bool disrupt;
	raft_index rejected;
	int prepares, receives, prepare_rv;
	bool receive;
	struct raft_message taken;
	unsigned entries;
} seen;

static int be_set_term(struct raft_io *io, raft_term term)
{
	(void)io;
	(void)term;
	be.calls++;
	return be.rv;
}

static int be_set_vote(struct raft_io *io, raft_id id)
{
	(void)io;
	(void)id;
	be.calls++;
	return be.rv;
}

static int be_truncate(struct raft_io *io, raft_index index)
{
	(void)io;
	(void)index;
	be.calls++;
	return be.rv;
}

static int be_append(struct raft_io *io, struct raft_io_append *req,
		     const struct raft_entry entries[], unsigned n, raft_io_append_cb cb)
{
	(void)io;
	(void)entries;
	(void)n;
	be.calls++;
	be.append = req;
	be.append_cb = cb;
	return be.rv;
}

static int be_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
		  const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
	(void)io;
	(void)trailing;
	(void)snapshot;
	be.calls++;
	be.put = req;
	be.put_cb = cb;
	return be.rv;
}

static int be_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *message,
		   raft_io_send_cb cb)
{
	(void)io;
	be.calls++;
	if (be.rv == 0) {
		be.send[be.n_sent] = req;
		be.send_cb[be.n_sent] = cb;
		be.sent[be.n_sent++] = *message;
	}
	return be.rv;
}

static int be_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
	(void)io;
	assert_int_equal(msecs, 20);
	be.tick = tick;
	be.recv = recv;
	return 0;
}

static int be_get(struct raft_io *io, struct raft_io_snapshot_get *req, raft_io_snapshot_get_cb cb)
{
	(void)io;
	be.gets++;
	be.get = req;
	be.get_cb = cb;
	return be.rv;
}

static void be_close(struct raft_io *io, raft_io_close_cb cb)
{
	be.closed++;
	cb(io);
}

static raft_time be_time(struct raft_io *io)
{
	(void)io;
	return clock_mono_ms();
}

static void on_fail(void *arg, const char *message)
{
	(void)arg;
	seen.failed++;
	snprintf(seen.text, sizeof(seen.text), "%s", message);
}

static void on_tick(struct raft_io *io)
{
	(void)io;
	seen.ticks++;
}

static void on_recv(struct raft_io *io, struct raft_message *m)
{
	(void)io;
	seen.received++;
	if (m->type == RAFT_APPEND_ENTRIES) {
		seen.entries = m->append_entries.n_entries;
	}
	if (m->type == RAFT_REQUEST_VOTE) {
		seen.disrupt = m->request_vote.disrupt_leader;
	}
	if (m->type == RAFT_APPEND_ENTRIES_RESULT) {
		seen.rejected = m->append_entries_result.rejected;
	}
}

static inline void on_sent(struct raft_io_send *req, int status)
{
	(void)req;
	seen.answered++;
	seen.status = status;
}

static struct raft_shim shim;
static struct raft raft;
static struct test_clock tc;

static int setup(void **state)
{
	(void)state;
	memset(&be, 0, sizeof(be));
	memset(&seen, 0, sizeof(seen));
	memset(&shim, 0, sizeof(shim));
	memset(&raft, 0, sizeof(raft));
	shim.io.set_term = be_set_term;
	shim.io.set_vote = be_set_vote;
	shim.io.truncate = be_truncate;
	shim.io.append = be_append;
	shim.io.snapshot_put = be_put;
	shim.io.snapshot_get = be_get;
	shim.io.close = be_close;
	shim.io.send = be_send;
	shim.io.start = be_start;
	shim.io.time = be_time;
	raft.state = RAFT_FOLLOWER;
	raft.current_term = 5;
	raft.election_timeout = 1000;
	raft_shim_install(&shim, &raft, 20);
	assert_int_equal(shim.io.start(&shim.io, 100, on_tick, on_recv), 0);
	cluster_fail_hook(on_fail, NULL);
	test_clock_start(&tc, 10000, 1700000000000);
	raft.election_timer_start = 10000;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	raft_shim_done(&shim);
	cluster_fail_hook(NULL, NULL);
	test_clock_stop();
	return 0;
}

static struct raft_io_send sreq[4];
