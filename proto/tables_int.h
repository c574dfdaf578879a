/* The generated arrays (generate.py) behind the look-ups of methods.h, descriptors.h and json_map.h. */
#pragma once

#include "proto/descriptors.h"
#include "proto/json_map.h"
#include "proto/methods.h"

struct proto_symbol {
	const char *name;
	const struct proto_file *file;
};

struct proto_extension {
	const char *type;
	int32_t number;
	const struct proto_file *file;
};

/* Each sorted: methods by path, files, symbols, services and messages by name, extensions by type and number. */
extern const struct proto_method proto_methods[];
extern const size_t proto_methods_len;
extern const struct proto_file proto_files[];
extern const size_t proto_files_len;
extern const struct proto_symbol proto_symbols[];
extern const size_t proto_symbols_len;
extern const struct proto_extension proto_extensions[];
extern const size_t proto_extensions_len;
extern const int32_t proto_extension_list[]; /* their numbers, in the same order */
extern const char *const proto_services[];
extern const size_t proto_services_len;
extern const struct proto_message_info proto_messages[];
extern const size_t proto_messages_len;
