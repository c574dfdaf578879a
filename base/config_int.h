/* The tree between the YAML reader (config_tree.c) and the schema layer (config.c). */
#pragma once

#include "base/arena.h"
#include "base/macros.h"

#include <stdbool.h>
#include <stddef.h>

struct err;

enum cnode_kind { CNODE_SCALAR, CNODE_LIST, CNODE_MAP };

/* All memory is the arena's. */
struct cnode {
	enum cnode_kind kind;
	int line;            /* from 1 */
	bool plain;          /* scalar without quotes */
	const char *key;     /* child of a map */
	int key_line;        /* child of a map */
	const char *text;    /* scalar */
	struct cnode *first; /* list, map */
	struct cnode *last;
	struct cnode *next; /* sibling */
	size_t n;           /* children */
};

/* Error at a line: field and beginning of the message are "name:line". */
int config_err(struct err *e, int code, const char *name, int line, const char *fmt, ...)
	PRINTF_LIKE(5, 6);
/* Reads text into a tree; an empty document is an empty map. */
int config_tree(const char *text, size_t len, const char *name, struct arena *a, struct cnode **ret,
		struct err *e) MUST_CHECK;
/* Scalar that stands for "no value": nothing, ~ or null without quotes. */
bool cnode_null(const struct cnode *n);
