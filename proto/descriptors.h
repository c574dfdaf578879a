/* The descriptors of all .proto files as bytes, and an index of their symbols: what reflection answers from. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* One .proto file. Static, shared by all threads. */
struct proto_file {
	const char *name; /* "skerry/v1/agent.proto" */
	const uint8_t
		*data; /* serialised FileDescriptorProto, options included, comments left out */
	size_t len;
	const struct proto_file *const
		*deps; /* all files it needs, direct and transitive, itself excluded */
	size_t n_deps; /* each of them once, imports before importers */
};

/* The file of this name, or NULL. */
const struct proto_file *proto_file_find(const char *name);

/*
 * The file that declares a symbol, or NULL. Symbols are full names without a leading dot: services,
 * service.method, messages (nested ones too), message.field, message.oneof, enums, enum values (in the scope that
 * encloses the enum) and extensions.
 */
const struct proto_file *proto_file_of_symbol(const char *symbol);

/* The file that declares extension `number` of message `type` (full name), or NULL. */
const struct proto_file *proto_file_of_extension(const char *type, int32_t number);

/*
 * The numbers of all extensions of message `type`, ascending, into *ret (static); returns how many.
 * -1 if there is no such message.
 */
int proto_extension_numbers(const char *type, const int32_t **ret);

/* All files, sorted by name; NULL past the end. */
const struct proto_file *proto_file_at(size_t i);
size_t proto_file_count(void);

/* The full names of all services, sorted; NULL past the end. */
const char *proto_service_at(size_t i);
size_t proto_service_count(void);
