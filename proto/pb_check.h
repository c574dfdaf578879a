/* Judges the wire form of a message before anything is allocated for it: depth, counts, UTF-8, wire types. */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"

enum pb_check_flags {
	/* Refuse an unknown field at any depth and an unknown enum value: for committed log entries, where every
	 * lighthouse must understand the same. */
	PB_STRICT_KNOWN = 1 << 0,
};

/* What is allowed; a zero means the default in brackets (base/limits.h). NULL in place of it: all defaults. */
struct pb_opts {
	unsigned flags;     /* enum pb_check_flags */
	uint32_t max_depth; /* messages within messages, the outermost is 1 [LIM_PB_DEPTH] */
	uint32_t
		max_elements; /* fields and elements of repeated fields, all levels together [LIM_PB_FIELDS] */
	uint32_t max_unknown; /* unknown fields per message [LIM_PB_UNKNOWN] */
};

/* What was counted. */
struct pb_stats {
	uint32_t elements;
	uint32_t depth;
};

/*
 * Checks `len` bytes as a message of type `desc`, without allocating and with a bounded stack. Strings must be UTF-8
 * without NUL, wire types must match, lengths must stay inside, a singular message field occurs once, groups are
 * refused. Any enum value passes (unless PB_STRICT_KNOWN).
 *
 * 0; ERR_INVALID when malformed; ERR_LIMIT when over a limit. `err` then holds the field path
 * ("peers[3].endpoints[0].address") and a text with the message type. `ret_stats` may be NULL.
 */
int MUST_CHECK pb_check(const ProtobufCMessageDescriptor *desc, const void *data, size_t len,
			const struct pb_opts *opts, struct pb_stats *ret_stats, struct err *err);
