#include "proto/tables_int.h"

#include <stdlib.h>
#include <string.h>

/* All tables are sorted by a name that is their first member, by byte value. */
struct named {
	const char *name;
};

static int compare_name(const void *key, const void *row)
{
	return strcmp(key, ((const struct named *)row)->name);
}

static const void *find(const char *name, const void *table, size_t len, size_t row)
{
	return name ? bsearch(name, table, len, row, compare_name) : NULL;
}

const struct proto_method *proto_method_find(const char *path)
{
	return find(path, proto_methods, proto_methods_len, sizeof(*proto_methods));
}

const struct proto_method *proto_method_find_n(const char *path, size_t len)
{
	size_t low = 0, high = proto_methods_len;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		const char *have = proto_methods[mid].path;
		int order = strncmp(path, have, len);

		if (!order && have[len])
			order = -1;
		if (!order)
			return strlen(have) == len ? &proto_methods[mid] : NULL;
		if (order < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return NULL;
}

size_t proto_method_count(void)
{
	return proto_methods_len;
}

const struct proto_method *proto_method_at(size_t i)
{
	return i < proto_methods_len ? &proto_methods[i] : NULL;
}

const struct proto_file *proto_file_find(const char *name)
{
	return find(name, proto_files, proto_files_len, sizeof(*proto_files));
}

const struct proto_file *proto_file_of_symbol(const char *symbol)
{
	const struct proto_symbol *row =
		find(symbol, proto_symbols, proto_symbols_len, sizeof(*proto_symbols));

	return row ? row->file : NULL;
}

const struct proto_file *proto_file_of_extension(const char *type, int32_t number)
{
	for (size_t i = 0; i < proto_extensions_len; i++) {
		if (proto_extensions[i].number == number && !strcmp(proto_extensions[i].type, type))
			return proto_extensions[i].file;
	}
	return NULL;
}

int proto_extension_numbers(const char *type, const int32_t **ret)
{
	size_t first = 0, n = 0;

	if (!proto_message_find(type))
		return -1;
	while (first < proto_extensions_len && strcmp(proto_extensions[first].type, type))
		first++;
	while (first + n < proto_extensions_len && !strcmp(proto_extensions[first + n].type, type))
		n++;
	*ret = proto_extension_list + first;
	return (int)n;
}

const struct proto_file *proto_file_at(size_t i)
{
	return i < proto_files_len ? &proto_files[i] : NULL;
}

size_t proto_file_count(void)
{
	return proto_files_len;
}

const char *proto_service_at(size_t i)
{
	return i < proto_services_len ? proto_services[i] : NULL;
}

size_t proto_service_count(void)
{
	return proto_services_len;
}

const struct proto_message_info *proto_message_find(const char *name)
{
	return find(name, proto_messages, proto_messages_len, sizeof(*proto_messages));
}

const struct proto_message_info *proto_message_info(const ProtobufCMessageDescriptor *desc)
{
	const struct proto_message_info *info = proto_message_find(desc->name);

	return info && info->desc == desc ? info : NULL;
}

const struct proto_message_info *proto_message_at(size_t i)
{
	return i < proto_messages_len ? &proto_messages[i] : NULL;
}

size_t proto_message_count(void)
{
	return proto_messages_len;
}
