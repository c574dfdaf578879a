/*
 * Raft's messages as they come from another lighthouse: refused, or read within bounds; and what was read is written again as
 * what it was read as. The first byte says in which pieces they come. LIBS: cluster
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "cluster/raft_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void payload_put(struct buf *out, const struct raft_message *m)
{
	if (m->type == RAFT_APPEND_ENTRIES) {
		for (unsigned i = 0; i < m->append_entries.n_entries; i++) {
			buf_append(out, m->append_entries.entries[i].buf.base,
				   m->append_entries.entries[i].buf.len);
		}
	} else if (m->type == RAFT_INSTALL_SNAPSHOT) {
		buf_append(out, m->install_snapshot.data.base, m->install_snapshot.data.len);
	}
}

/* To bytes and back: the same from the second time on (the first one says the version where an older line does not). */
static void again(const struct raft_message *m)
{
	struct raft_message in = *m, out;
	struct buf b[3] = {BUF_INIT, BUF_INIT, BUF_INIT};
	struct wire_reader r = {0};
	size_t used;

	for (size_t i = 0; i < ARRAY_LEN(b); i++) {
		PRE(wire_put(&b[i], &in) == 0);
		payload_put(&b[i], &in);
		PRE(wire_read(&r, b[i].data, b[i].len, &used, &out, NULL) == 1);
		PRE(used == b[i].len);
		if (i > 0) {
			wire_message_free(&in);
		}
		in = out;
	}
	wire_message_free(&in);
	PRE(b[1].len == b[2].len && memcmp(b[1].data, b[2].data, b[1].len) == 0);
	for (size_t i = 0; i < ARRAY_LEN(b); i++) {
		buf_done(&b[i]);
	}
	wire_reader_done(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wire_reader r = {0};
	size_t piece, at = 1;

	if (size == 0) {
		return 0;
	}
	piece = data[0] == 0 ? size : data[0];
	while (at < size) {
		size_t len = MIN(piece, size - at), used;
		uint8_t *copy = mem_memdup(data + at, len);
		struct raft_message m;
		int rc = wire_read(&r, copy, len, &used, &m, NULL);

		mem_free(copy);
		if (rc < 0) {
			break;
		}
		PRE(used <= len && (rc == 1 || used == len));
		at += used;
		if (rc == 1) {
			again(&m);
			wire_message_free(&m);
		}
	}
	wire_reader_done(&r);
	return 0;
}
