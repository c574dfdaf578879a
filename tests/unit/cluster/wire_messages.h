/* Messages of libraft of every type, by a number, and whether two are the same. */
#pragma once

#include "tests/lib/test.h"

#include <raft.h>

#include "base/buf.h"
#include "cluster/raft_wire.h"

enum { WIRE_MESSAGES = 14 };

/* The n-th message; wire_message_free() frees it. */
static inline struct raft_message wire_message(unsigned n)
{
	static const size_t lengths[] = {8, 264, 0, 5000, 65536, 16, 24, 8};
	struct raft_message m = {.server_id = 7, .server_address = "peer:1"};
	uint64_t a = 0x0102030405060700ull + n;
	uint8_t *at = NULL;
	size_t total = 0;
	unsigned count;

	switch (n) {
	case 0:
	case 1:
		m.type = RAFT_REQUEST_VOTE;
		m.request_vote = (struct raft_request_vote){
			.version = 2,
			.term = a,
			.candidate_id = a + 1,
			.last_log_index = a + 2,
			.last_log_term = a + 3,
			.disrupt_leader = n == 1,
			.pre_vote = n == 0,
		};
		break;
	case 2:
	case 3:
		m.type = RAFT_REQUEST_VOTE_RESULT;
		m.request_vote_result = (struct raft_request_vote_result){
			.version = 2,
			.term = n == 3 ? 0 : a,
			.vote_granted = n == 2,
			.pre_vote = n == 3,
			.features = 0x1234,
			.capacity = 0xfedc,
		};
		break;
	case 4:
	case 5:
		m.type = RAFT_APPEND_ENTRIES_RESULT;
		m.append_entries_result = (struct raft_append_entries_result){
			.version = 2,
			.term = a,
			.rejected = n == 5 ? UINT64_MAX : 0,
			.last_log_index = a + 2,
			.features = 0x8001,
			.capacity = 0x7f,
		};
		break;
	case 6:
		m.type = RAFT_TIMEOUT_NOW;
		m.timeout_now = (struct raft_timeout_now){
			.term = a, .last_log_index = a + 1, .last_log_term = a + 2};
		break;
	case 7:
	case 8:
		m.type = RAFT_INSTALL_SNAPSHOT;
		m.install_snapshot = (struct raft_install_snapshot){
			.term = a, .last_index = a + 1, .last_term = a + 2, .conf_index = a + 3};
		raft_configuration_init(&m.install_snapshot.conf);
		for (uint64_t i = 1; i <= 3; i++) {
			char address[32];

			snprintf(address, sizeof(address), "host%lu.test:%lu", (unsigned long)i,
				 (unsigned long)(i * i * 1000));
			assert_int_equal(raft_configuration_add(&m.install_snapshot.conf, i,
								address, (int)(i - 1)),
					 0);
		}
		total = n == 7 ? 100000 : 8;
		m.install_snapshot.data = (struct raft_buffer){raft_malloc(total), total};
		at = m.install_snapshot.data.base;
		break;
	default: /* 0, 1, 2, 8 and 1 entries */
		count = n == 9 ? 0 : n == 10 ? 1 : n == 11 ? 2 : n == 12 ? 8 : 1;
		m.type = RAFT_APPEND_ENTRIES;
		m.append_entries = (struct raft_append_entries){
			.term = a,
			.prev_log_index = a + 1,
			.prev_log_term = a + 2,
			.leader_commit = a + 3,
			.n_entries = count,
		};
		if (count == 0) {
			return m;
		}
		m.append_entries.entries = raft_calloc(count, sizeof(struct raft_entry));
		if (n == 13) {
			/* A change: the configuration of message 7. */
			struct raft_message s = wire_message(7);
			struct raft_buffer conf;

			assert_int_equal(raft_configuration_encode(&s.install_snapshot.conf, &conf),
					 0);
			wire_message_free(&s);
			m.append_entries.entries[0] =
				(struct raft_entry){a, RAFT_CHANGE, conf, conf.base};
			return m;
		}
		for (unsigned i = 0; i < count; i++) {
			total += lengths[i];
		}
		at = raft_malloc(total);
		for (unsigned i = 0, off = 0; i < count; i++) {
			m.append_entries.entries[i] = (struct raft_entry){
				.term = a + i,
				.type = lengths[i] == 8 ? RAFT_BARRIER : RAFT_COMMAND,
				.buf = {lengths[i] > 0 ? at + off : NULL, lengths[i]},
				.batch = at,
			};
			off += (unsigned)lengths[i];
		}
		break;
	}
	for (size_t i = 0; i < total; i++) {
		at[i] = (uint8_t)(i * 31 + i / 256 * 7 + n);
	}
	return m;
}

/* As it stands on a link, payload and all. */
static inline void wire_bytes(struct buf *out, const struct raft_message *m)
{
	assert_int_equal(wire_put(out, m), 0);
	if (m->type == RAFT_APPEND_ENTRIES) {
		for (unsigned i = 0; i < m->append_entries.n_entries; i++) {
			buf_append(out, m->append_entries.entries[i].buf.base,
				   m->append_entries.entries[i].buf.len);
		}
	} else if (m->type == RAFT_INSTALL_SNAPSHOT) {
		buf_append(out, m->install_snapshot.data.base, m->install_snapshot.data.len);
	}
}

static inline void wire_same_bytes(struct raft_buffer a, struct raft_buffer b)
{
	assert_int_equal(a.len, b.len);
	if (a.len > 0) {
		assert_memory_equal(a.base, b.base, a.len);
	}
}

static inline void wire_same(const struct raft_message *a, const struct raft_message *b)
{
	assert_int_equal(a->type, b->type);
	switch (a->type) {
	case RAFT_REQUEST_VOTE:
		assert_int_equal(a->request_vote.version, b->request_vote.version);
		assert_true(a->request_vote.term == b->request_vote.term);
		assert_true(a->request_vote.candidate_id == b->request_vote.candidate_id);
		assert_true(a->request_vote.last_log_index == b->request_vote.last_log_index);
		assert_true(a->request_vote.last_log_term == b->request_vote.last_log_term);
		assert_int_equal(a->request_vote.disrupt_leader, b->request_vote.disrupt_leader);
		assert_int_equal(a->request_vote.pre_vote, b->request_vote.pre_vote);
		break;
	case RAFT_REQUEST_VOTE_RESULT:
		assert_int_equal(a->request_vote_result.version, b->request_vote_result.version);
		assert_true(a->request_vote_result.term == b->request_vote_result.term);
		assert_int_equal(a->request_vote_result.vote_granted,
				 b->request_vote_result.vote_granted);
		assert_int_equal(a->request_vote_result.pre_vote, b->request_vote_result.pre_vote);
		assert_int_equal(a->request_vote_result.features, b->request_vote_result.features);
		assert_int_equal(a->request_vote_result.capacity, b->request_vote_result.capacity);
		break;
	case RAFT_APPEND_ENTRIES_RESULT:
		assert_int_equal(a->append_entries_result.version,
				 b->append_entries_result.version);
		assert_true(a->append_entries_result.term == b->append_entries_result.term);
		assert_true(a->append_entries_result.rejected == b->append_entries_result.rejected);
		assert_true(a->append_entries_result.last_log_index ==
			    b->append_entries_result.last_log_index);
		assert_int_equal(a->append_entries_result.features,
				 b->append_entries_result.features);
		assert_int_equal(a->append_entries_result.capacity,
				 b->append_entries_result.capacity);
		break;
	case RAFT_TIMEOUT_NOW:
		assert_true(a->timeout_now.term == b->timeout_now.term);
		assert_true(a->timeout_now.last_log_index == b->timeout_now.last_log_index);
		assert_true(a->timeout_now.last_log_term == b->timeout_now.last_log_term);
		break;
	case RAFT_INSTALL_SNAPSHOT:
		assert_int_equal(a->install_snapshot.version, b->install_snapshot.version);
		assert_true(a->install_snapshot.term == b->install_snapshot.term);
		assert_true(a->install_snapshot.last_index == b->install_snapshot.last_index);
		assert_true(a->install_snapshot.last_term == b->install_snapshot.last_term);
		assert_true(a->install_snapshot.conf_index == b->install_snapshot.conf_index);
		assert_int_equal(a->install_snapshot.conf.n, b->install_snapshot.conf.n);
		for (unsigned i = 0; i < a->install_snapshot.conf.n; i++) {
			const struct raft_server *s = &a->install_snapshot.conf.servers[i],
						 *t = &b->install_snapshot.conf.servers[i];

			assert_true(s->id == t->id);
			assert_int_equal(s->role, t->role);
			assert_string_equal(s->address, t->address);
		}
		wire_same_bytes(a->install_snapshot.data, b->install_snapshot.data);
		break;
	case RAFT_APPEND_ENTRIES:
		assert_int_equal(a->append_entries.version, b->append_entries.version);
		assert_true(a->append_entries.term == b->append_entries.term);
		assert_true(a->append_entries.prev_log_index == b->append_entries.prev_log_index);
		assert_true(a->append_entries.prev_log_term == b->append_entries.prev_log_term);
		assert_true(a->append_entries.leader_commit == b->append_entries.leader_commit);
		assert_int_equal(a->append_entries.n_entries, b->append_entries.n_entries);
		for (unsigned i = 0; i < a->append_entries.n_entries; i++) {
			const struct raft_entry *e = &a->append_entries.entries[i],
						*f = &b->append_entries.entries[i];

			assert_true(e->term == f->term);
			assert_int_equal(e->type, f->type);
			wire_same_bytes(e->buf, f->buf);
			assert_ptr_equal(f->batch, b->append_entries.entries[0].batch);
		}
		break;
	}
}
