/* The table of all RPC methods with who may call them, generated from the .proto files. */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * One method. All of it is static: pointers stay valid, compare equal per method, and are shared by all threads.
 *
 * credential, role and scope are values of Skerry__V1__Credential, Skerry__V1__Role and Skerry__V1__Scope
 * (skerry/v1/options.pb-c.h); 0 (UNSPECIFIED) for methods outside skerry.v1 without the option `access`
 * (health, reflection, between lighthouses). Each method of skerry.v1 has a credential: the build fails else.
 */
struct proto_method {
	const char *path;    /* "/skerry.v1.NodeService/GetNode", as :path carries it */
	const char *service; /* "skerry.v1.NodeService" */
	const char *method;  /* "GetNode" */
	const ProtobufCMessageDescriptor *input;
	const ProtobufCMessageDescriptor *output;
	bool client_streaming;
	bool server_streaming;
	int credential;
	int role;
	int scope;
	bool write; /* changes state: refused without quorum, audited */
	uint32_t
		max_request_bytes; /* never 0: the default (64 KiB; 4 MiB for skerry.internal) is filled in */
	unsigned index;            /* in the table, for arrays kept beside it (metrics) */
};

/* The method with this path (borrowed, not changed), or NULL. */
const struct proto_method *proto_method_find(const char *path);

/* The same for a path that is not NUL-terminated. */
const struct proto_method *proto_method_find_n(const char *path, size_t len);

/* All methods, sorted by path: for (i = 0; i < proto_method_count(); i++) proto_method_at(i). */
size_t proto_method_count(void);

/* The i-th method; NULL past the end. */
const struct proto_method *proto_method_at(size_t i);
