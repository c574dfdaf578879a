/* LIBS: base
 * Configuration: any bytes are read or refused with a place, and nothing stays behind. */
#include "base/config.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct item {
	struct config_address address;
	struct config_strings serve;
};

struct target {
	char *name;
	int64_t number;
	bool flag;
	int64_t duration;
	int64_t size;
	int choice;
	struct config_address address;
	struct config_strings strings;
	struct config_list items;
	struct config_map map;
	int64_t nested;
};

static const char *const choices[] = {"one", "two", NULL};

static const struct config_key item_keys[] = {
	{.path = "address",
	 .type = CONFIG_ADDRESS,
	 .offset = offsetof(struct item, address),
	 .required = true,
	 .port = 1},
	{.path = "serve", .type = CONFIG_STRINGS, .offset = offsetof(struct item, serve)},
};
static const struct config_schema item_schema = {item_keys, ARRAY_LEN(item_keys),
						 sizeof(struct item)};

#define KEY(name_, type_, field)                                                       \
	{                                                                              \
		.path = name_, .type = type_, .offset = offsetof(struct target, field) \
	}
static const struct config_key keys[] = {
	KEY("name", CONFIG_STRING, name),
	KEY("number", CONFIG_INT, number),
	KEY("flag", CONFIG_BOOL, flag),
	KEY("duration", CONFIG_DURATION, duration),
	KEY("size", CONFIG_SIZE, size),
	{.path = "choice",
	 .type = CONFIG_ENUM,
	 .offset = offsetof(struct target, choice),
	 .choices = choices},
	KEY("address", CONFIG_ADDRESS, address),
	KEY("strings", CONFIG_STRINGS, strings),
	{.path = "items",
	 .type = CONFIG_LIST,
	 .offset = offsetof(struct target, items),
	 .sub = &item_schema},
	KEY("map", CONFIG_MAP, map),
	KEY("a.b.c", CONFIG_INT, nested),
};
static const struct config_schema schema = {keys, ARRAY_LEN(keys), sizeof(struct target)};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct target zero;
	struct target t;
	struct err e = {0};

	if (config_parse((const char *)data, size, "f", &schema, &t, &e) < 0) {
		POST(e.field[0] == 'f' && e.msg[0] != '\0');
	} else {
		config_done(&schema, &t);
	}
	POST(memcmp(&t, &zero, sizeof(t)) == 0);
	return 0;
}
