/* What the JSON form of messages needs and protobuf-c's descriptors lack: JSON names, map entries, type names. */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

/* Types whose JSON form is not an object of their fields. */
enum proto_json_kind {
	PROTO_JSON_PLAIN,
	PROTO_JSON_TIMESTAMP,  /* "2026-01-02T03:04:05.678Z" */
	PROTO_JSON_DURATION,   /* "1.5s" */
	PROTO_JSON_FIELD_MASK, /* "displayName,dns.baseDomain" */
	PROTO_JSON_ANY,        /* {"@type": "type.googleapis.com/x.Y", …} */
	PROTO_JSON_EMPTY,      /* {} */
};

/* One message type. Static, shared by all threads. */
struct proto_message_info {
	const char *name; /* full name, equal to desc->name */
	const ProtobufCMessageDescriptor *desc;
	const char *const *json_names; /* one per field, in the order of desc->fields */
	bool map_entry; /* the entry of a map<>: field 1 is the key, field 2 the value */
	enum proto_json_kind kind;
};

/* The facts of a message type, or NULL if it is not made from this tree's .proto files. */
const struct proto_message_info *proto_message_info(const ProtobufCMessageDescriptor *desc);

/* The message type of this full name ("skerry.v1.Node"), or NULL. */
const struct proto_message_info *proto_message_find(const char *name);

/* All message types, sorted by name; NULL past the end. */
const struct proto_message_info *proto_message_at(size_t i);
size_t proto_message_count(void);
