/* Records between the store and memory: packed and unpacked within an arena. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "base/arena.h"
#include "base/macros.h"
#include "tailnet/kv.h"

/* The descriptor of a message of skerry.internal.v1, by its name in lower case. */
#define REC(name) (&skerry__internal__v1__##name##__descriptor)

/* Unpacks into the arena; *ret_msg is any generated struct. ERR_CORRUPT, ERR_LIMIT. */
MUST_CHECK int rec_unpack(const ProtobufCMessageDescriptor *desc, struct slice value,
			  struct arena *a, void *ret_msg);
/* The same of the record under `key`; ERR_NOT_FOUND. */
MUST_CHECK int rec_get(const struct kv *kv, struct slice key,
		       const ProtobufCMessageDescriptor *desc, struct arena *a, void *ret_msg);
/* Reads an index entry: tailnet and id. */
MUST_CHECK int rec_index(const struct kv *kv, struct slice key, uint64_t *ret_tailnet,
			 uint64_t *ret_id);
