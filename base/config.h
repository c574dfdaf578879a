/* YAML configuration: a small strict tree with line numbers, and a schema that fills a struct. */
#pragma once

#include "base/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

/* Types of values and what lies at the key's offset in the target. */
enum config_type {
	CONFIG_STRING,   /* char *, owned by the target; NULL if absent */
	CONFIG_INT,      /* int64_t, within min..max if those differ */
	CONFIG_BOOL,     /* bool; true or false only */
	CONFIG_DURATION, /* int64_t ms ("90d", "5s"), within min..max (ms) if those differ */
	CONFIG_SIZE,     /* int64_t bytes ("64MiB", "10KiB", "4096") */
	CONFIG_ENUM,     /* int, index into choices */
	CONFIG_ADDRESS,  /* struct config_address, "host:port" */
	CONFIG_STRINGS,  /* struct config_strings; a list, or one string */
	CONFIG_LIST,     /* struct config_list of maps, each read by sub */
	CONFIG_MAP,      /* struct config_map, free keys with string values */
};

struct config_address {
	char *host; /* NULL if absent; without brackets */
	uint16_t port;
};

struct config_strings {
	char **v;
	size_t n;
};

struct config_list {
	void *v; /* n structs of sub->size bytes */
	size_t n;
};

struct config_map {
	char **keys;
	char **values;
	size_t n;
};

struct config_schema;

struct config_key {
	const char *path; /* "state_dir", or "wireguard.port" for a key of a nested map */
	enum config_type type;
	size_t offset; /* offsetof in the target */
	bool required;
	const char *def;                 /* text of the default, or NULL: zero; parsed like input */
	int64_t min, max;                /* ignored if both are 0 */
	uint16_t port;                   /* ADDRESS: the port if none is given; 0: must be given */
	const char *const *choices;      /* ENUM and, if set, STRING and STRINGS: NULL-terminated */
	const struct config_schema *sub; /* LIST */
	/* Further check of the value at the offset; the message gets file:line and key. A list of texts is
	 * checked entry by entry, each as a list of one, and then as a whole. */
	int (*check)(const void *value, struct err *e);
};

struct config_schema {
	const struct config_key *keys;
	size_t nkeys;
	size_t size; /* of the target struct */
};

/* Reads text (UTF-8, YAML 1.1 plain scalars as text; no anchors, aliases, tags or second document)
 * into target, which is overwritten (zeroed first, defaults set). name is for messages. Errors are
 * ERR_INVALID (or ERR_LIMIT: 1 MiB, depth 32) with field "name:line" and the nearest known key as
 * suggestion; target is empty then. On success the owner calls config_done. */
int config_parse(const char *text, size_t len, const char *name, const struct config_schema *schema,
		 void *target, struct err *e) MUST_CHECK;
/* The file at path; -errno if it cannot be read. */
int config_load(const char *path, const struct config_schema *schema, void *target,
		struct err *e) MUST_CHECK;
/* Only the defaults, as an empty file would give; required keys stay unset. */
int config_defaults(const struct config_schema *schema, void *target, struct err *e) MUST_CHECK;
/* Frees what lies in the target and zeroes it. */
void config_done(const struct config_schema *schema, void *target);
/* "64MiB", "10k", "4096": bytes; K/M/G/T with or without iB are powers of 1024. */
int size_parse(const char *text, int64_t *ret_bytes, struct err *e) MUST_CHECK;
