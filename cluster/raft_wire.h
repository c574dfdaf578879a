/* libraft's messages as bytes, in the form that its own connections have: bytes in, messages out. No I/O. */
#pragma once

#include <raft.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/macros.h"

/*
 * Any lighthouse of an earlier build has libraft's own code at its end of a link, so this is the form of libraft 0.22, word by
 * word. All numbers are little-endian, and everything is a multiple of 8 bytes:
 *
 *   u8 type, u8 0, u8 version, 5 bytes 0;  u64 length of the head that follows
 *   head, by type (u64 each unless said otherwise):
 *     AppendEntries        term, previous index, previous term, commit, n, n times {term; u8 type, 3 bytes 0, u32 length}, 0
 *     AppendEntriesResult  term, rejected, last index; u16 features, u16 capacity, u32 0
 *     RequestVote          term, candidate, last index, last term, flags (1: disrupt the leader, 2: pre-vote)
 *     RequestVoteResult    term, granted; u8 flags (1: pre-vote), u8 0, u16 features, u16 capacity, u16 0
 *     InstallSnapshot      term, last index, last term, index of the configuration, its length; itself; length of the data, 0
 *     TimeoutNow           term, last index, last term
 *   payload: the entries' bytes one after the other, or the data of the snapshot
 *
 * A configuration is u8 1, u64 n, n times {u64 id, address with its NUL, u8 role}, zeros up to the next multiple of 8.
 * Older lines of libraft leave out the last word of some heads, and the version; what is longer is read as far as it is known.
 */
enum { WIRE_PREAMBLE = 16 };

/* Appends the message up to its payload. 0, or a code of libraft: nothing was appended. */
MUST_CHECK int wire_put(struct buf *out, const struct raft_message *m);

/* A message on its way in. All zero is the beginning of one. */
struct wire_reader {
	uint8_t preamble[WIRE_PREAMBLE];
	size_t have; /* of the preamble */
	struct buf head;
	size_t head_len;
	enum { WIRE_PREAMBLE_DUE, WIRE_HEAD_DUE, WIRE_PAYLOAD_DUE } due;
	struct raft_message message; /* while the payload is due */
	uint8_t *payload;            /* raft_malloc'd; owned until the message is given out */
	size_t payload_len, payload_have;
};

/*
 * Takes bytes up to the end of one message; *ret_used says how many. 1: *ret is a message, without server_id and
 * server_address, whose memory is the caller's as libraft's is: one raft_malloc'd batch for all entries and their array, the
 * data and the configuration of a snapshot (wire_message_free() frees all of it). 0: all was taken, more is needed.
 * ERR_PROTOCOL or ERR_LIMIT: the connection is of no use any more. What `ret` holds is untouched unless 1 is returned.
 */
MUST_CHECK int wire_read(struct wire_reader *r, const uint8_t *data, size_t len, size_t *ret_used,
			 struct raft_message *ret, struct err *err);
/* Frees what has come in of a message that does not come to its end. */
void wire_reader_done(struct wire_reader *r);
void wire_message_free(struct raft_message *m);
