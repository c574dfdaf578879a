#include "base/config.h"

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/config_int.h"
#include "base/err.h"
#include "base/fileio.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/prefix.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Tree of the largest file: entries and their text. */
#define CONFIG_ARENA_BYTES (32u << 20)
#define CONFIG_PATH        256

/* One pass over a tree: names for messages. */
struct loader {
	const char *name;
	struct err *e;
};

int size_parse(const char *text, int64_t *ret_bytes, struct err *e)
{
	static const char suffixes[] = "kmgt";
	size_t digits = strspn(text, "0123456789");
	const char *unit = text + digits;
	unsigned shift = 0;
	long long n;

	errno = 0;
	n = strtoll(text, NULL, 10);
	if (digits == 0 || errno != 0) {
		goto bad;
	}
	if (*unit != '\0' && strcmp(unit, "B") != 0) {
		const char *at = strchr(suffixes, *unit | 0x20);

		if (at == NULL || (unit[1] != '\0' && strcmp(unit + 1, "iB") != 0)) {
			goto bad;
		}
		shift = 10 * (unsigned)(at - suffixes + 1);
	}
	if (n > INT64_MAX >> shift) {
		goto bad;
	}
	*ret_bytes = (int64_t)n << shift;
	return 0;
bad:
	return err_set(e, ERR_INVALID,
		       "\"%.40s\" is not a size; expected bytes, or a number with KiB, MiB, GiB or "
		       "TiB",
		       text);
}

/* Edit distance, exchanged neighbours counting as one step, for suggestions. Long words are not
 * compared. */
#define WORD_MAX 48
static unsigned distance(const char *a, const char *b)
{
	unsigned d[WORD_MAX + 1][WORD_MAX + 1];
	size_t alen = strlen(a);
	size_t blen = strlen(b);

	if (alen > WORD_MAX || blen > WORD_MAX) {
		return UINT_MAX;
	}
	for (size_t j = 0; j <= blen; j++) {
		d[0][j] = (unsigned)j;
	}
	for (size_t i = 1; i <= alen; i++) {
		d[i][0] = (unsigned)i;
		for (size_t j = 1; j <= blen; j++) {
			unsigned best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);

			best = MIN(best, MIN(d[i - 1][j], d[i][j - 1]) + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
				best = MIN(best, d[i - 2][j - 2] + 1);
			}
			d[i][j] = best;
		}
	}
	return d[alen][blen];
}

/* Is path below prefix, or equal? */
static bool path_in(const char *path, const char *prefix)
{
	size_t len = strlen(prefix);

	return strncmp(path, prefix, len) == 0 && (path[len] == '.' || path[len] == '\0');
}

static int unknown_key(struct loader *l, const struct config_schema *s, const char *parent,
		       const char *full, const struct cnode *n)
{
	size_t skip = parent[0] != '\0' ? strlen(parent) + 1 : 0;
	char best[CONFIG_PATH] = "";
	unsigned least = UINT_MAX;

	for (size_t i = 0; i < s->nkeys; i++) {
		const char *path = s->keys[i].path;
		char part[CONFIG_PATH];
		unsigned d;

		if (skip > 0 && !path_in(path, parent)) {
			continue;
		}
		snprintf(part, sizeof(part), "%.*s", (int)strcspn(path + skip, "."), path + skip);
		d = distance(n->key, part);
		if (d < least) {
			least = d;
			memcpy(best, part, sizeof(best));
		}
	}
	/* Half of the letters may differ; more is no likeness. */
	if (least <= 1 || (least <= strlen(best) / 2)) {
		return config_err(l->e, ERR_INVALID, l->name, n->key_line,
				  "unknown key \"%.100s\"; meant is perhaps \"%s\"", full, best);
	}
	return config_err(l->e, ERR_INVALID, l->name, n->key_line, "unknown key \"%.100s\"", full);
}

static const char *type_text(enum config_type type)
{
	static const char *const texts[] = {
		[CONFIG_STRING] = "text",
		[CONFIG_INT] = "a whole number",
		[CONFIG_BOOL] = "true or false",
		[CONFIG_DURATION] = "a duration such as 30s, 10m or 90d",
		[CONFIG_SIZE] = "a size such as 64MiB",
		[CONFIG_ENUM] = "a word",
		[CONFIG_ADDRESS] = "host:port",
		[CONFIG_STRINGS] = "a list of texts",
		[CONFIG_LIST] = "a list of entries with keys",
		[CONFIG_MAP] = "keys with texts",
	};

	return texts[type];
}

static int wrong_type(struct loader *l, const struct config_key *k, const char *path, int line)
{
	return config_err(l->e, ERR_INVALID, l->name, line, "key \"%.100s\" must be %s", path,
			  type_text(k->type));
}

static int parse_int(const char *text, int64_t *ret)
{
	const char *digits = text[0] == '-' ? text + 1 : text;
	char *end;
	long long v;

	if (*digits < '0' || *digits > '9' || (digits[0] == '0' && digits[1] != '\0')) {
		return ERR_INVALID;
	}
	errno = 0;
	v = strtoll(text, &end, 10);
	if (errno != 0 || *end != '\0') {
		return ERR_INVALID;
	}
	*ret = v;
	return 0;
}

/* Index in choices, or an error that lists them. */
static int parse_choice(const struct config_key *k, const char *text, struct err *e)
{
	struct buf list = BUF_INIT;
	int rv;

	for (int i = 0; k->choices[i] != NULL; i++) {
		if (strcmp(k->choices[i], text) == 0) {
			buf_done(&list);
			return i;
		}
		buf_printf(&list, "%s%s", i > 0 ? ", " : "", k->choices[i]);
	}
	rv = err_set(e, ERR_INVALID, "\"%.40s\" is not one of %s", text, buf_str(&list));
	buf_done(&list);
	return rv;
}

static void limit_text(const struct config_key *k, int64_t v, char out[DURATION_TEXT])
{
	if (k->type == CONFIG_DURATION) {
		duration_format(v, out);
	} else {
		snprintf(out, DURATION_TEXT, "%" PRId64, v);
	}
}

static int check_range(const struct config_key *k, int64_t v, struct err *e)
{
	char min[DURATION_TEXT];
	char max[DURATION_TEXT];

	if ((k->min == 0 && k->max == 0) || (v >= k->min && v <= k->max)) {
		return 0;
	}
	limit_text(k, k->min, min);
	limit_text(k, k->max, max);
	return err_set(e, ERR_INVALID, "must be %s to %s", min, max);
}

static int parse_number(const struct config_key *k, const char *text, int64_t *out, struct err *e)
{
	int64_t v = 0;
	int rv;

	if (k->type == CONFIG_DURATION) {
		rv = duration_parse(text, &v, e);
	} else if (k->type == CONFIG_SIZE) {
		rv = size_parse(text, &v, e);
	} else {
		rv = parse_int(text, &v);
		if (rv < 0) {
			err_set(e, rv, "\"%.40s\" is not a whole number", text);
		}
	}
	if (rv == 0) {
		rv = check_range(k, v, e);
	}
	if (rv == 0) {
		*out = v;
	}
	return rv;
}

/* Text of one value to its place. */
static int scalar_set(const struct config_key *k, const char *text, void *out, struct err *e)
{
	struct config_address *address = out;
	char host[LIM_HOST_PORT + 1];
	int rv;

	switch (k->type) {
	case CONFIG_STRING:
		if (k->choices != NULL) {
			rv = parse_choice(k, text, e);
			if (rv < 0) {
				return rv;
			}
		}
		*(char **)out = mem_strdup(text);
		return 0;
	case CONFIG_INT:
	case CONFIG_DURATION:
	case CONFIG_SIZE: return parse_number(k, text, out, e);
	case CONFIG_BOOL:
		if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0) {
			return err_set(e, ERR_INVALID, "\"%.40s\" is neither true nor false", text);
		}
		*(bool *)out = text[0] == 't';
		return 0;
	case CONFIG_ENUM:
		rv = parse_choice(k, text, e);
		if (rv >= 0) {
			*(int *)out = rv;
		}
		return MIN(rv, 0);
	case CONFIG_ADDRESS:
		rv = hostport_parse(text, k->port, host, sizeof(host), &address->port, e);
		if (rv == 0) {
			address->host = mem_strdup(host);
		}
		return rv;
	default: IMPOSSIBLE("not a type of one value");
	}
}

static int strings_set(struct loader *l, const struct config_key *k, const char *path,
		       const struct cnode *n, struct config_strings *out)
{
	const struct cnode *item = n->kind == CNODE_LIST ? n->first : n;
	size_t count = n->kind == CNODE_LIST ? n->n : 1;

	out->v = mem_calloc(count, sizeof(*out->v));
	for (; out->n < count; item = item->next) {
		if (item->kind != CNODE_SCALAR || cnode_null(item)) {
			return wrong_type(l, k, path, item->line);
		}
		if (k->choices != NULL) {
			struct err e = {0};
			int rv = parse_choice(k, item->text, &e);

			if (rv < 0) {
				return config_err(l->e, rv, l->name, item->line,
						  "key \"%.100s\": %s", path, e.msg);
			}
		}
		out->v[out->n++] = mem_strdup(item->text);
	}
	return 0;
}

/* Each text alone, so that the message has its line; what counts for the list as a whole comes after. */
static int strings_check(struct loader *l, const struct config_key *k, const char *path,
			 const struct cnode *n, const struct config_strings *list)
{
	const struct cnode *item = n->first;

	for (size_t i = 0; i < list->n; i++, item = item->next) {
		struct config_strings one = {&list->v[i], 1};
		struct err e = {0};
		int rv = k->check(&one, &e);

		if (rv < 0) {
			return config_err(l->e, rv, l->name, item->line, "key \"%.100s\": %s", path,
					  err_msg(&e, rv));
		}
	}
	return 0;
}

static int map_set(struct loader *l, const struct config_key *k, const char *path,
		   const struct cnode *n, struct config_map *out)
{
	out->keys = mem_calloc(n->n, sizeof(*out->keys));
	out->values = mem_calloc(n->n, sizeof(*out->values));
	for (const struct cnode *c = n->first; c != NULL; c = c->next) {
		if (c->kind != CNODE_SCALAR) {
			return wrong_type(l, k, path, c->line);
		}
		out->keys[out->n] = mem_strdup(c->key);
		out->values[out->n++] = mem_strdup(c->text);
	}
	return 0;
}

static int schema_apply(struct loader *l, const struct config_schema *s, const char *where,
			const struct cnode *n, void *target);

static int list_set(struct loader *l, const struct config_key *k, const char *path,
		    const struct cnode *n, struct config_list *out)
{
	int rv = 0;

	out->v = mem_calloc(n->n, k->sub->size);
	for (const struct cnode *c = n->first; c != NULL && rv == 0; c = c->next) {
		char where[CONFIG_PATH];

		snprintf(where, sizeof(where), "%s[%zu]", path, out->n);
		if (c->kind != CNODE_MAP) {
			return wrong_type(l, k, path, c->line);
		}
		rv = schema_apply(l, k->sub, where, c, (char *)out->v + out->n * k->sub->size);
		out->n += rv == 0;
	}
	return rv;
}

static int value_set(struct loader *l, const struct config_key *k, const char *path,
		     const struct cnode *n, void *out)
{
	struct err e = {0};
	int rv;

	switch (k->type) {
	case CONFIG_STRINGS:
		rv = n->kind != CNODE_MAP ? strings_set(l, k, path, n, out)
					  : wrong_type(l, k, path, n->line);
		break;
	case CONFIG_MAP:
		rv = n->kind == CNODE_MAP ? map_set(l, k, path, n, out)
					  : wrong_type(l, k, path, n->line);
		break;
	case CONFIG_LIST:
		rv = n->kind == CNODE_LIST ? list_set(l, k, path, n, out)
					   : wrong_type(l, k, path, n->line);
		break;
	default:
		if (n->kind != CNODE_SCALAR ||
		    (!n->plain && (k->type == CONFIG_INT || k->type == CONFIG_BOOL))) {
			return wrong_type(l, k, path, n->line);
		}
		rv = scalar_set(k, n->text, out, &e);
		if (rv < 0) {
			return config_err(l->e, rv, l->name, n->line, "key \"%.100s\": %s", path,
					  e.msg);
		}
	}
	if (rv == 0 && k->check != NULL && k->type == CONFIG_STRINGS && n->kind == CNODE_LIST) {
		rv = strings_check(l, k, path, n, out);
	}
	if (rv == 0 && k->check != NULL) {
		rv = k->check(out, &e);
		if (rv < 0) {
			return config_err(l->e, rv, l->name, n->line, "key \"%.100s\": %s", path,
					  err_msg(&e, rv));
		}
	}
	return rv;
}

static const struct config_key *key_find(const struct config_schema *s, const char *path)
{
	for (size_t i = 0; i < s->nkeys; i++) {
		if (strcmp(s->keys[i].path, path) == 0) {
			return &s->keys[i];
		}
	}
	return NULL;
}

/* Does a known key lie below this path? */
static bool path_is_map(const struct config_schema *s, const char *path)
{
	for (size_t i = 0; i < s->nkeys; i++) {
		if (path_in(s->keys[i].path, path)) {
			return true;
		}
	}
	return false;
}

/* The keys of one map node; prefix is its path in the schema, where its path for people. */
static int map_apply(struct loader *l, const struct config_schema *s, const char *prefix,
		     const char *where, const struct cnode *n, bool *seen, void *target)
{
	for (const struct cnode *c = n->first; c != NULL; c = c->next) {
		const struct config_key *k;
		char path[CONFIG_PATH];
		char shown[CONFIG_PATH];
		int rv;

		snprintf(path, sizeof(path), "%s%s%s", prefix, prefix[0] != '\0' ? "." : "",
			 c->key);
		snprintf(shown, sizeof(shown), "%s%s%s", where, where[0] != '\0' ? "." : "",
			 c->key);
		/* "a.b" as one word is no key: the same value could be given twice. */
		k = strchr(c->key, '.') == NULL ? key_find(s, path) : NULL;
		if (k == NULL && (strchr(c->key, '.') != NULL || !path_is_map(s, path))) {
			return unknown_key(l, s, prefix, shown, c);
		}
		if (cnode_null(c)) {
			continue;
		}
		if (k != NULL) {
			seen[k - s->keys] = true;
			rv = value_set(l, k, shown, c, (char *)target + k->offset);
		} else if (c->kind == CNODE_MAP) {
			rv = map_apply(l, s, path, shown, c, seen, target);
		} else {
			rv = config_err(l->e, ERR_INVALID, l->name, c->line,
					"key \"%.100s\" must have keys below it", shown);
		}
		if (rv < 0) {
			return rv;
		}
	}
	return 0;
}

/* Defaults are written by programmers, so one that cannot be read is a bug. */
static void default_set(const struct config_key *k, void *out)
{
	struct cnode n = {.kind = CNODE_SCALAR, .plain = true, .text = k->def};
	struct loader l = {.name = "default"};
	int rv = value_set(&l, k, k->path, &n, out);

	PRE(rv == 0);
}

static int schema_apply(struct loader *l, const struct config_schema *s, const char *where,
			const struct cnode *n, void *target)
{
	bool *seen = mem_calloc(s->nkeys, sizeof(*seen));
	int rv = map_apply(l, s, "", where, n, seen, target);

	for (size_t i = 0; i < s->nkeys && rv == 0; i++) {
		const struct config_key *k = &s->keys[i];

		if (seen[i]) {
			continue;
		}
		if (k->required) {
			rv = config_err(l->e, ERR_INVALID, l->name, n->line,
					"key \"%s%s%s\" is missing; it must be %s", where,
					where[0] != '\0' ? "." : "", k->path, type_text(k->type));
		} else if (k->def != NULL) {
			default_set(k, (char *)target + k->offset);
		}
	}
	mem_free(seen);
	if (rv < 0) {
		config_done(s, target);
	}
	return rv;
}

int config_parse(const char *text, size_t len, const char *name, const struct config_schema *schema,
		 void *target, struct err *e)
{
	struct loader l = {name, e};
	struct cnode *root = NULL;
	struct arena arena;
	int rv;

	memset(target, 0, schema->size);
	arena_init(&arena, CONFIG_ARENA_BYTES);
	rv = config_tree(text, len, name, &arena, &root, e);
	if (rv == 0) {
		rv = schema_apply(&l, schema, "", root, target);
	}
	arena_done(&arena);
	return rv;
}

int config_load(const char *path, const struct config_schema *schema, void *target, struct err *e)
{
	struct buf text = BUF_INIT;
	int rv = file_read(path, LIM_CONFIG_BYTES, &text, e);

	memset(target, 0, schema->size);
	if (rv == 0) {
		rv = config_parse(buf_str(&text), text.len, path, schema, target, e);
	}
	buf_wipe(&text);
	return rv;
}

int config_defaults(const struct config_schema *schema, void *target, struct err *e)
{
	memset(target, 0, schema->size);
	for (size_t i = 0; i < schema->nkeys; i++) {
		const struct config_key *k = &schema->keys[i];

		if (k->def != NULL) {
			default_set(k, (char *)target + k->offset);
		}
	}
	err_clear(e);
	return 0;
}

static void value_done(const struct config_key *k, void *at)
{
	struct config_address *address = at;
	struct config_strings *strings = at;
	struct config_list *list = at;
	struct config_map *map = at;

	switch (k->type) {
	case CONFIG_STRING: mem_free(*(char **)at); break;
	case CONFIG_ADDRESS: mem_free(address->host); break;
	case CONFIG_STRINGS:
		for (size_t i = 0; i < strings->n; i++) {
			mem_free(strings->v[i]);
		}
		mem_free(strings->v);
		break;
	case CONFIG_MAP:
		for (size_t i = 0; i < map->n; i++) {
			mem_free(map->keys[i]);
			mem_free(map->values[i]);
		}
		mem_free(map->keys);
		mem_free(map->values);
		break;
	case CONFIG_LIST:
		for (size_t i = 0; i < list->n; i++) {
			config_done(k->sub, (char *)list->v + i * k->sub->size);
		}
		mem_free(list->v);
		break;
	default: break;
	}
}

void config_done(const struct config_schema *schema, void *target)
{
	for (size_t i = 0; i < schema->nkeys; i++) {
		value_done(&schema->keys[i], (char *)target + schema->keys[i].offset);
	}
	memset(target, 0, schema->size);
}
