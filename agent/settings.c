#include "agent/settings.h"

#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "agent/config.h"
#include "base/buf.h"
#include "base/fileio.h"
#include "base/jsonx.h"
#include "base/mem.h"
#include "net/dial.h"
#include "proto/pb_util.h"

static void list_free(char **list, size_t *n)
{
	for (size_t i = 0; i < *n; i++) {
		mem_free(list[i]);
	}
	*n = 0;
}

static void list_copy(char **to, size_t *ret_n, char *const *from, size_t n)
{
	list_free(to, ret_n);
	for (size_t i = 0; i < n; i++) {
		to[i] = mem_strdup(from[i]);
	}
	*ret_n = n;
}

static void text_set(char **to, const char *text)
{
	mem_free(*to);
	*to = mem_strdup(text);
}

void settings_done(struct settings *s)
{
	list_free(s->lighthouses, &s->n_lighthouses);
	list_free(s->tags, &s->n_tags);
	mem_free(s->hostname);
	mem_free(s->operator_name);
	mem_free(s->tailnet);
	*s = (struct settings){0};
}

void settings_copy(const struct settings *from, struct settings *ret)
{
	*ret = *from;
	ret->n_lighthouses = ret->n_tags = 0;
	list_copy(ret->lighthouses, &ret->n_lighthouses, from->lighthouses, from->n_lighthouses);
	list_copy(ret->tags, &ret->n_tags, from->tags, from->n_tags);
	ret->hostname = mem_strdup(from->hostname);
	ret->operator_name = mem_strdup(from->operator_name);
	ret->tailnet = mem_strdup(from->tailnet);
}

/* ---- Checks -------------------------------------------------------------------------------------------------------- */

static int operator_find(const char *name, uid_t *ret, struct err *e)
{
	struct passwd *user;
	char *end;
	unsigned long uid = strtoul(name, &end, 10);

	if (*end == '\0' && uid < (uid_t)-1) {
		*ret = (uid_t)uid;
		return 0;
	}
	user = getpwnam(name);
	if (user == NULL) {
		return err_field(e, ERR_INVALID, "settings.operator",
				 "there is no local user \"%s\"", name);
	}
	*ret = user->pw_uid;
	return 0;
}

static int check_lighthouses(const Skerry__Local__V1__Settings *from, struct err *e)
{
	if (from->n_lighthouses > LIM_LIGHTHOUSE_URLS) {
		return err_field(e, ERR_INVALID, "settings.lighthouses",
				 "at most %d lighthouses are taken", LIM_LIGHTHOUSE_URLS);
	}
	for (size_t i = 0; i < from->n_lighthouses; i++) {
		const char *url = from->lighthouses[i];

		if (strncmp(url, "https://", 8) != 0 ||
		    dial_parse(url, NULL, NULL, NULL, NULL) < 0) {
			return err_field(e, ERR_INVALID, "settings.lighthouses",
					 "\"%.200s\" is no https://host:port", url);
		}
	}
	return 0;
}

static int check_hostname(const char *hostname, struct err *e)
{
	struct err why = {0};

	if (hostname[0] == '\0') {
		return 0;
	}
	if (name_valid_label(hostname, strlen(hostname), &why) < 0) {
		return err_field(e, ERR_INVALID, "settings.hostname", "%s", why.msg);
	}
	if (name_refused_label(hostname)) {
		return err_field(e, ERR_INVALID, "settings.hostname",
				 "nobody may have the name \"%s\"", hostname);
	}
	return 0;
}

static int check_tags(const Skerry__Local__V1__Settings *from, struct err *e)
{
	if (from->n_tags > LIM_NODE_TAGS) {
		return err_field(e, ERR_INVALID, "settings.tags", "at most %d tags are taken",
				 LIM_NODE_TAGS);
	}
	for (size_t i = 0; i < from->n_tags; i++) {
		const char *tag = from->tags[i];

		if (strncmp(tag, "tag:", 4) != 0 ||
		    name_valid_label(tag + 4, strlen(tag + 4), NULL) < 0) {
			return err_field(e, ERR_INVALID, "settings.tags",
					 "\"%.80s\" is no tag: \"tag:server\"", tag);
		}
	}
	return 0;
}

int settings_update(struct settings *s, const Skerry__Local__V1__Settings *from,
		    const Google__Protobuf__FieldMask *mask, bool by_root, struct err *e)
{
	static const Skerry__Local__V1__Settings none = SKERRY__LOCAL__V1__SETTINGS__INIT;
	uid_t operator_uid = 0;
	int r = pb_mask_check(mask, &skerry__local__v1__settings__descriptor, e);

	if (from == NULL) {
		from = &none;
	}
	if (r >= 0 && pb_mask_contains(mask, "lighthouses")) {
		r = check_lighthouses(from, e);
	}
	if (r >= 0 && pb_mask_contains(mask, "hostname")) {
		r = check_hostname(from->hostname, e);
	}
	if (r >= 0 && pb_mask_contains(mask, "tags")) {
		r = check_tags(from, e);
	}
	if (r >= 0 && pb_mask_contains(mask, "accept_dns") &&
	    (unsigned)from->accept_dns > ACCEPT_DNS_ALL) {
		r = err_field(e, ERR_INVALID, "settings.accept_dns",
			      "%d is none of off, serve, host, all", from->accept_dns);
	}
	if (r >= 0 && pb_mask_contains(mask, "tailnet") && strlen(from->tailnet) > LIM_DOMAIN) {
		r = err_field(e, ERR_INVALID, "settings.tailnet",
			      "a tailnet's name has at most %d characters", LIM_DOMAIN);
	}
	if (r >= 0 && pb_mask_contains(mask, "operator")) {
		if (!by_root) {
			r = err_reason(
				e, ERR_DENIED, "NOT_OPERATOR",
				"only root may set the operator: sudo skerry set --operator");
		} else if (from->operator_[0] != '\0') {
			r = operator_find(from->operator_, &operator_uid, e);
		}
	}
	if (r < 0) {
		return r;
	}
	if (pb_mask_contains(mask, "lighthouses")) {
		list_copy(s->lighthouses, &s->n_lighthouses, from->lighthouses,
			  from->n_lighthouses);
	}
	if (pb_mask_contains(mask, "hostname")) {
		text_set(&s->hostname, from->hostname);
	}
	if (pb_mask_contains(mask, "accept_dns")) {
		s->accept_dns = from->accept_dns == 0 ? ACCEPT_DNS_SERVE
						      : (enum accept_dns)from->accept_dns;
	}
	if (pb_mask_contains(mask, "accept_routes")) {
		s->accept_routes = from->accept_routes;
	}
	if (pb_mask_contains(mask, "operator")) {
		text_set(&s->operator_name, from->operator_);
		s->has_operator = from->operator_[0] != '\0';
		s->operator_uid = operator_uid;
	}
	if (pb_mask_contains(mask, "tags")) {
		list_copy(s->tags, &s->n_tags, from->tags, from->n_tags);
	}
	if (pb_mask_contains(mask, "tailnet")) {
		text_set(&s->tailnet, from->tailnet);
	}
	return 0;
}

void settings_message(const struct settings *s, Skerry__Local__V1__Settings *ret)
{
	skerry__local__v1__settings__init(ret);
	ret->lighthouses = (char **)s->lighthouses;
	ret->n_lighthouses = s->n_lighthouses;
	ret->hostname = s->hostname;
	ret->accept_dns = (Skerry__Local__V1__AcceptDns)s->accept_dns;
	ret->accept_routes = s->accept_routes;
	ret->operator_ = s->operator_name;
	ret->tags = (char **)s->tags;
	ret->n_tags = s->n_tags;
	ret->tailnet = s->tailnet;
}

/* ---- The file ------------------------------------------------------------------------------------------------------ */

static void list_read(const struct jsonx *list, char **to, size_t *ret_n, size_t max)
{
	for (size_t i = 0; i < jsonx_len(list) && i < max; i++) {
		to[(*ret_n)++] = mem_strdup(jsonx_str(jsonx_at(list, i), ""));
	}
}

int settings_load(const char *path, const struct agent_config *config, struct settings *ret,
		  struct err *e)
{
	struct settings s = {.accept_dns = (enum accept_dns)(config->accept_dns + 1),
			     .accept_routes = config->accept_routes};
	struct buf text = BUF_INIT;
	struct jsonx *root = NULL;
	int r = file_read(path, 256 << 10, &text, e);

	if (r == -ENOENT) {
		r = 0;
	} else if (r >= 0) {
		r = jsonx_parse((const char *)text.data, text.len, path, &root, e);
	}
	if (r >= 0) {
		int64_t dns = jsonx_int(jsonx_get(root, "acceptDns"), s.accept_dns);
		int64_t uid = jsonx_int(jsonx_get(root, "operatorUid"), -1);

		s.up = jsonx_bool(jsonx_get(root, "up"), false);
		list_read(jsonx_get(root, "lighthouses"), s.lighthouses, &s.n_lighthouses,
			  LIM_LIGHTHOUSE_URLS);
		list_read(jsonx_get(root, "tags"), s.tags, &s.n_tags, LIM_NODE_TAGS);
		s.accept_dns = dns >= ACCEPT_DNS_OFF && dns <= ACCEPT_DNS_ALL ? (enum accept_dns)dns
									      : ACCEPT_DNS_SERVE;
		s.accept_routes = jsonx_bool(jsonx_get(root, "acceptRoutes"), s.accept_routes);
		s.hostname = mem_strdup(jsonx_str(jsonx_get(root, "hostname"), ""));
		s.operator_name = mem_strdup(jsonx_str(jsonx_get(root, "operator"), ""));
		s.has_operator = uid >= 0;
		s.operator_uid = (uid_t)uid;
		s.tailnet = mem_strdup(jsonx_str(jsonx_get(root, "tailnet"), ""));
		*ret = s;
	} else {
		r = err_set(e, ERR_CORRUPT,
			    "%s is damaged: put it back from a backup, or remove it (settings "
			    "start anew)",
			    path);
	}
	jsonx_free(root);
	buf_done(&text);
	return r;
}

static void list_write(struct jsonw *w, const char *key, char *const *list, size_t n)
{
	jsonw_key(w, key);
	jsonw_array(w);
	for (size_t i = 0; i < n; i++) {
		jsonw_str(w, list[i]);
	}
	jsonw_end(w);
}

int settings_save(const char *path, const struct settings *s, struct err *e)
{
	struct buf out = BUF_INIT;
	struct jsonw w;
	int r;

	jsonw_init(&w, &out, true);
	jsonw_object(&w);
	jsonw_kbool(&w, "up", s->up);
	list_write(&w, "lighthouses", s->lighthouses, s->n_lighthouses);
	jsonw_kstr(&w, "hostname", s->hostname);
	jsonw_ki64(&w, "acceptDns", s->accept_dns);
	jsonw_kbool(&w, "acceptRoutes", s->accept_routes);
	jsonw_kstr(&w, "operator", s->operator_name);
	if (s->has_operator) {
		jsonw_ki64(&w, "operatorUid", s->operator_uid);
	}
	list_write(&w, "tags", s->tags, s->n_tags);
	jsonw_kstr(&w, "tailnet", s->tailnet);
	jsonw_end(&w);
	buf_u8(&out, '\n');
	r = file_write_atomic(path, out.data, out.len, 0600, e);
	buf_done(&out);
	return r;
}
