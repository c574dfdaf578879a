/* Decodes messages from outside: checked first (proto/pb_check.h), then unpacked within a memory budget. */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/macros.h"
#include "proto/pb_check.h"

/*
 * The most memory that decoding `len` bytes with `elements` elements may take: 8 times the length, 64 KiB, and 64
 * bytes per element (protobuf-c's own table of what it scanned).
 */
size_t pb_decode_budget(size_t len, uint32_t elements);

/* An arena budget that is enough for any acceptable message of at most `len` bytes. */
size_t pb_arena_budget(size_t len);

/*
 * Checks and unpacks one message into `arena`: the message lives until arena_reset/arena_done and is never freed by
 * itself (no free_unpacked). `data` may go after the call: everything is copied. Any arena budget below the
 * message's own holds as well.
 *
 * 0; ERR_INVALID, ERR_LIMIT as pb_check, and ERR_LIMIT when over the budget. *ret_msg is then untouched.
 */
int MUST_CHECK pb_decode(const ProtobufCMessageDescriptor *desc, const void *data, size_t len,
			 const struct pb_opts *opts, struct arena *arena,
			 ProtobufCMessage **ret_msg, struct err *err);

/*
 * The same on the heap, for messages that outlive a request: the caller frees with pb_free() (or with
 * protobuf_c_message_free_unpacked(msg, NULL), which is the same).
 */
int MUST_CHECK pb_decode_heap(const ProtobufCMessageDescriptor *desc, const void *data, size_t len,
			      const struct pb_opts *opts, ProtobufCMessage **ret_msg,
			      struct err *err);

/* Frees a message of pb_decode_heap or pb_copy; NULL is fine. Takes a pointer to any generated struct. */
void pb_free(void *msg);
