#include "base/config_int.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/map.h"
#include "base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

struct reader {
	yaml_parser_t parser;
	const char *name;
	struct arena *arena;
	struct err *e;
	size_t nodes;
	struct cnode *stack[LIM_CONFIG_DEPTH]; /* open lists and maps */
	size_t depth;
	const char *key; /* read, its value not yet */
	int key_line;
	struct cnode *root;
};

int config_err(struct err *e, int code, const char *name, int line, const char *fmt, ...)
{
	char place[sizeof(e->field)];
	char msg[sizeof(e->msg)];
	va_list ap;

	if (line > 0) {
		snprintf(place, sizeof(place), "%.80s:%d", name, line);
	} else {
		snprintf(place, sizeof(place), "%.80s", name);
	}
	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	return err_field(e, code, place, "%s: %s", place, msg);
}

bool cnode_null(const struct cnode *n)
{
	return n->kind == CNODE_SCALAR && n->plain &&
	       (n->text[0] == '\0' || strcmp(n->text, "~") == 0 || strcmp(n->text, "null") == 0);
}

static int no_memory(struct reader *r, int line)
{
	return config_err(r->e, ERR_LIMIT, r->name, line, "the file has too many entries");
}

/* A key with the same name must not come twice in a map. */
static int check_duplicates(struct reader *r, const struct cnode *m)
{
	struct map seen;
	int rv = 0;

	map_init(&seen);
	for (struct cnode *c = m->first; c != NULL && rv == 0; c = c->next) {
		struct cnode *before = map_put_str(&seen, c->key, c);

		if (before != NULL) {
			rv = config_err(r->e, ERR_INVALID, r->name, c->key_line,
					"key \"%.60s\" is given twice, first in line %d", c->key,
					before->key_line);
		}
	}
	map_done(&seen);
	return rv;
}

/* Hangs a new node into what is open. *ret is set on success. */
static int add_node(struct reader *r, enum cnode_kind kind, int line, struct cnode **ret)
{
	struct cnode *parent = r->depth > 0 ? r->stack[r->depth - 1] : NULL;
	struct cnode *n;

	if (parent != NULL && parent->kind == CNODE_MAP && r->key == NULL) {
		return config_err(r->e, ERR_INVALID, r->name, line, "a key must be simple text");
	}
	n = arena_zalloc(r->arena, sizeof(*n));
	if (n == NULL || ++r->nodes > LIM_CONFIG_NODES) {
		return no_memory(r, line);
	}
	n->kind = kind;
	n->line = line;
	n->key = r->key;
	n->key_line = r->key_line;
	r->key = NULL;
	if (parent == NULL) {
		if (r->root != NULL) {
			return config_err(r->e, ERR_INVALID, r->name, line,
					  "a second document begins; only one is read");
		}
		r->root = n;
	} else {
		if (parent->last != NULL) {
			parent->last->next = n;
		} else {
			parent->first = n;
		}
		parent->last = n;
		parent->n++;
	}
	*ret = n;
	return 0;
}

static int on_scalar(struct reader *r, const yaml_event_t *ev, int line)
{
	const char *text = (const char *)ev->data.scalar.value;
	size_t len = ev->data.scalar.length;
	struct cnode *n = NULL;
	char *copy;
	int rv;

	if (memchr(text, '\0', len) != NULL) {
		return config_err(r->e, ERR_INVALID, r->name, line, "a NUL character in the text");
	}
	copy = arena_strdup(r->arena, text);
	if (copy == NULL) {
		return no_memory(r, line);
	}
	if (r->depth > 0 && r->stack[r->depth - 1]->kind == CNODE_MAP && r->key == NULL) {
		r->key = copy;
		r->key_line = line;
		return 0;
	}
	rv = add_node(r, CNODE_SCALAR, line, &n);
	if (rv == 0) {
		n->text = copy;
		n->plain = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	}
	return rv;
}

static int on_open(struct reader *r, enum cnode_kind kind, int line)
{
	struct cnode *n = NULL;
	int rv;

	if (r->depth == LIM_CONFIG_DEPTH) {
		return config_err(r->e, ERR_LIMIT, r->name, line, "nested deeper than %d levels",
				  LIM_CONFIG_DEPTH);
	}
	rv = add_node(r, kind, line, &n);
	if (rv == 0) {
		r->stack[r->depth++] = n;
	}
	return rv;
}

static int refuse(struct reader *r, int line, const char *what)
{
	return config_err(r->e, ERR_INVALID, r->name, line, "%s may not be used here", what);
}

static int on_event(struct reader *r, const yaml_event_t *ev)
{
	int line = (int)ev->start_mark.line + 1;

	switch (ev->type) {
	case YAML_ALIAS_EVENT: return refuse(r, line, "an alias (*name)");
	case YAML_SCALAR_EVENT:
		if (ev->data.scalar.anchor != NULL) {
			return refuse(r, line, "an anchor (&name)");
		}
		if (ev->data.scalar.tag != NULL) {
			return refuse(r, line, "a tag (!name)");
		}
		return on_scalar(r, ev, line);
	case YAML_SEQUENCE_START_EVENT:
		if (ev->data.sequence_start.anchor != NULL) {
			return refuse(r, line, "an anchor (&name)");
		}
		if (ev->data.sequence_start.tag != NULL) {
			return refuse(r, line, "a tag (!name)");
		}
		return on_open(r, CNODE_LIST, line);
	case YAML_MAPPING_START_EVENT:
		if (ev->data.mapping_start.anchor != NULL) {
			return refuse(r, line, "an anchor (&name)");
		}
		if (ev->data.mapping_start.tag != NULL) {
			return refuse(r, line, "a tag (!name)");
		}
		return on_open(r, CNODE_MAP, line);
	case YAML_MAPPING_END_EVENT: return check_duplicates(r, r->stack[--r->depth]);
	case YAML_SEQUENCE_END_EVENT: r->depth--; return 0;
	default: return 0;
	}
}

static int read_all(struct reader *r)
{
	for (;;) {
		yaml_event_type_t type;
		yaml_event_t ev;
		int rv;

		if (!yaml_parser_parse(&r->parser, &ev)) {
			return config_err(
				r->e, ERR_INVALID, r->name, (int)r->parser.problem_mark.line + 1,
				"not valid YAML: %s",
				r->parser.problem != NULL ? r->parser.problem : "unreadable");
		}
		type = ev.type;
		rv = on_event(r, &ev);
		yaml_event_delete(&ev);
		if (rv < 0 || type == YAML_STREAM_END_EVENT) {
			return rv;
		}
	}
}

/* Line of a byte, from 1. */
static int line_of(const char *text, size_t at)
{
	int line = 1;

	for (size_t i = 0; i < at; i++) {
		line += text[i] == '\n';
	}
	return line;
}

int config_tree(const char *text, size_t len, const char *name, struct arena *a, struct cnode **ret,
		struct err *e)
{
	struct reader r = {.name = name, .arena = a, .e = e};
	size_t good = utf8_valid_prefix(text, len, true);
	int rv;

	if (len > LIM_CONFIG_BYTES) {
		return config_err(e, ERR_LIMIT, name, 0, "larger than %u bytes", LIM_CONFIG_BYTES);
	}
	if (good < len) {
		return config_err(e, ERR_INVALID, name, line_of(text, good), "not UTF-8 text");
	}
	if (!yaml_parser_initialize(&r.parser)) {
		return no_memory(&r, 0);
	}
	yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
	rv = read_all(&r);
	yaml_parser_delete(&r.parser);
	if (rv < 0) {
		return rv;
	}
	if (r.root == NULL || cnode_null(r.root)) {
		r.root = arena_zalloc(a, sizeof(*r.root));
		if (r.root == NULL) {
			return no_memory(&r, 0);
		}
		r.root->kind = CNODE_MAP;
		r.root->line = 1;
	}
	if (r.root->kind != CNODE_MAP) {
		return config_err(e, ERR_INVALID, name, r.root->line,
				  "expected keys with values (key: value)");
	}
	*ret = r.root;
	return 0;
}
