/* Small helpers over generated messages: pack, copy, times, field masks. */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/blob.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/macros.h"
#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/field_mask.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"

/* Appends the wire form of a message to `out`. `msg` is any generated struct. */
void pb_pack(const void *msg, struct buf *out);

/* The wire form as a new blob; the caller holds the one reference. */
struct blob *pb_pack_blob(const void *msg);

/*
 * Appends one field of wire type 2 (tag, length, the packed message): records joined in this way form a message
 * with a repeated field, without unpacking them.
 */
void pb_pack_field(uint32_t field, const void *msg, struct buf *out);

/* Appends tag and length of a field of wire type 2 whose `len` bytes follow. */
void pb_pack_prefix(uint32_t field, size_t len, struct buf *out);

/* A deep copy on the heap, unknown fields included; the caller frees with pb_free() of proto/pb_decode.h. */
void *pb_copy(const void *msg);

/* Whether two messages of one type have the same wire form. */
bool pb_equal(const void *a, const void *b);

/*
 * Unix milliseconds <-> Timestamp. pb_timestamp_set initialises *ret and returns it. pb_timestamp_ms of NULL is 0;
 * parts of a millisecond are cut; values outside years 1 to 9999 are clamped to them.
 */
Google__Protobuf__Timestamp *pb_timestamp_set(Google__Protobuf__Timestamp *ret, int64_t ms);
int64_t pb_timestamp_ms(const Google__Protobuf__Timestamp *ts);

/* Milliseconds <-> Duration, in the same way; clamped to ±10,000 years. */
Google__Protobuf__Duration *pb_duration_set(Google__Protobuf__Duration *ret, int64_t ms);
int64_t pb_duration_ms(const Google__Protobuf__Duration *d);

/* ERR_INVALID unless the value is in the range and form of its type (nanos, signs). NULL is valid. `field` names it. */
int MUST_CHECK pb_timestamp_check(const Google__Protobuf__Timestamp *ts, const char *field,
				  struct err *err);
int MUST_CHECK pb_duration_check(const Google__Protobuf__Duration *d, const char *field,
				 struct err *err);

/*
 * Whether a field mask names `path` ("display_name", "dns.base_domain"): itself, one of its parents, or "*".
 * NULL and the empty mask contain nothing: the caller decides what leaving it out means.
 */
bool pb_mask_contains(const Google__Protobuf__FieldMask *mask, const char *path);

/*
 * ERR_INVALID (field "update_mask") unless each path of the mask is "*" or leads to a field of `desc`.
 * NULL is valid.
 */
int MUST_CHECK pb_mask_check(const Google__Protobuf__FieldMask *mask,
			     const ProtobufCMessageDescriptor *desc, struct err *err);

/*
 * Takes out of a message what this build does not know, at any depth: unknown fields are forgotten, unknown values of
 * enums become 0. For facts that strangers tell and that are stored: an older build must be able to read them. The
 * message lives in an arena (what is forgotten is not freed).
 */
void pb_strip_unknown(void *msg);

/* Bytes that one value of this type takes in a generated struct, or in the list of a repeated field. */
size_t pb_element_size(ProtobufCType type);

/* Whether the value at `at`, of a field that is not repeated, is what proto3 leaves out: 0, empty, no message. */
bool pb_is_default(const ProtobufCFieldDescriptor *field, const void *at);
