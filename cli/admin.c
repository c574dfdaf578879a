/* What all nouns of administration share: list, get, delete, and from what a person says to a resource name. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "cli/cli_int.h"
#include "proto/methods.h"
#include "proto/pb_util.h"
#include "skerry/v1/admin.pb-c.h"

/* ---- fields by name, so that seven nouns need one piece of code ---- */

static const ProtobufCFieldDescriptor *field_of(const ProtobufCMessage *msg, const char *name)
{
	const ProtobufCFieldDescriptor *f =
		protobuf_c_message_descriptor_get_field_by_name(msg->descriptor, name);

	POST(f != NULL);
	return f;
}

void *msg_new(struct cli *cx, const ProtobufCMessageDescriptor *desc)
{
	void *msg = cli_alloc(cx, desc->sizeof_message);

	protobuf_c_message_init(desc, msg);
	return msg;
}

void msg_set(void *msg, const char *field, const void *value)
{
	const ProtobufCFieldDescriptor *f = field_of(msg, field);

	POST(f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_MESSAGE);
	memcpy((uint8_t *)msg + f->offset, &value, sizeof(value));
}

const char *msg_str(const void *msg, const char *field)
{
	const ProtobufCFieldDescriptor *f = field_of(msg, field);

	POST(f->type == PROTOBUF_C_TYPE_STRING);
	return *(const char *const *)((const uint8_t *)msg + f->offset);
}

/* ---- nouns ---- */

static size_t names_tailnet(const void *msg, const char *out[4])
{
	out[0] = ((const Skerry__V1__Tailnet *)msg)->display_name;
	return 1;
}

static size_t names_user(const void *msg, const char *out[4])
{
	out[0] = ((const Skerry__V1__User *)msg)->login_name;
	return 1;
}

static size_t names_node(const void *msg, const char *out[4])
{
	const Skerry__V1__Node *n = msg;
	size_t k = 0;

	out[k++] = n->given_name;
	out[k++] = n->stable_id;
	for (size_t i = 0; i < n->n_addresses && k < 4; i++) {
		out[k++] = n->addresses[i];
	}
	return k;
}

static size_t names_member(const void *msg, const char *out[4])
{
	out[0] = ((const Skerry__V1__Member *)msg)->display_name;
	return 1;
}

/* The number at the end of a resource name. */
static const char *id_of(const char *name)
{
	const char *slash = strrchr(name, '/');

	return slash ? slash + 1 : name;
}

/* How a table names the user with this resource name. */
static const char *user_of(struct cli *cx, const char *name)
{
	for (size_t i = 0; i < cx->n_users; i++) {
		const Skerry__V1__User *u = cx->users[i];

		if (strcmp(u->name, name) == 0) {
			return u->login_name;
		}
	}
	return name[0] ? id_of(name) : "-";
}

static const char *joined(struct cli *cx, char *const *v, size_t n)
{
	char *out = cli_printf(cx, "%s", n > 0 ? v[0] : "");

	for (size_t i = 1; i < n; i++) {
		out = cli_printf(cx, "%s,%s", out, v[i]);
	}
	return out;
}

static void columns_tailnet(struct table *t)
{
	table_init(t, "NAME", "ID", "DOMAIN", "NODES", "CREATED", NULL);
}

static void row_tailnet(struct cli *cx, struct table *t, const void *msg, int64_t now)
{
	const Skerry__V1__Tailnet *n = msg;
	char ago[TIME_TEXT];

	(void)cx;
	table_cell(t, "%s", n->display_name);
	table_cell(t, "%s", id_of(n->name));
	table_cell(t, "%s", n->dns ? n->dns->base_domain : "");
	table_cell(t, "%" PRIu64, n->node_count);
	table_cell(t, "%s", print_ago(pb_timestamp_ms(n->create_time), now, ago));
}

static void columns_user(struct table *t)
{
	table_init(t, "NAME", "ID", "ROLE", "STATE", "CREATED", "DISPLAY NAME", NULL);
}

static void row_user(struct cli *cx, struct table *t, const void *msg, int64_t now)
{
	const Skerry__V1__User *u = msg;
	char ago[TIME_TEXT], role[64];

	(void)cx;
	table_cell(t, "%s", u->login_name);
	table_cell(t, "%s", id_of(u->name));
	table_cell(t, "%s",
		   u->role ? print_enum(&skerry__v1__role__descriptor, (int)u->role, role) : "-");
	table_cell(t, "%s", u->suspended ? "suspended" : "active");
	table_cell(t, "%s", print_ago(pb_timestamp_ms(u->create_time), now, ago));
	table_cell(t, "%s", u->display_name);
}

static void columns_node(struct table *t)
{
	table_init(t, "NAME", "ID", "ADDRESS", "STATE", "SEEN", "EXPIRES", "USER", "TAGS", NULL);
}

static void row_node(struct cli *cx, struct table *t, const void *msg, int64_t now)
{
	const Skerry__V1__Node *n = msg;
	char text[TIME_TEXT];

	table_cell(t, "%s", n->given_name);
	table_cell(t, "%s", id_of(n->name));
	table_cell(t, "%s", n->n_addresses > 0 ? n->addresses[0] : "-");
	table_cell(t, "%s",
		   !n->approved ? "unapproved"
		   : n->expired ? "expired"
		   : n->online  ? "online"
				: "offline");
	table_cell(t, "%s",
		   n->online ? "now" : print_ago(pb_timestamp_ms(n->last_seen_time), now, text));
	table_cell(t, "%s", print_left(n->expire_time, now, text));
	table_cell(t, "%s", user_of(cx, n->user));
	table_cell(t, "%s%s", joined(cx, n->tags, n->n_tags),
		   n->ephemeral ? (n->n_tags ? ",ephemeral" : "ephemeral") : "");
}

static void columns_auth_key(struct table *t)
{
	table_init(t, "ID", "KIND", "USED", "EXPIRES", "USER", "TAGS", "DESCRIPTION", NULL);
}

static void row_auth_key(struct cli *cx, struct table *t, const void *msg, int64_t now)
{
	const Skerry__V1__AuthKey *k = msg;
	char text[TIME_TEXT];

	table_cell(t, "%s", id_of(k->name));
	table_cell(t, "%s%s", k->reusable ? "reusable" : "one use",
		   k->ephemeral ? ", ephemeral" : "");
	table_cell(t, "%" PRIu64 "%s%s", k->use_count, k->use_count ? ", " : "",
		   k->use_count ? print_ago(pb_timestamp_ms(k->use_time), now, text) : "");
	table_cell(t, "%s", print_left(k->expire_time, now, text));
	table_cell(t, "%s", user_of(cx, k->user));
	table_cell(t, "%s", joined(cx, k->tags, k->n_tags));
	table_cell(t, "%s", k->description);
}

static void columns_api_key(struct table *t)
{
	table_init(t, "ID", "SCOPE", "ROLE", "EXPIRES", "CREATED", "DESCRIPTION", NULL);
}

static void row_api_key(struct cli *cx, struct table *t, const void *msg, int64_t now)
{
	const Skerry__V1__ApiKey *k = msg;
	char text[TIME_TEXT], role[64];
	bool system = strncmp(k->name, "tailnets/0/", 11) == 0;

	table_cell(t, "%s", id_of(k->name));
	table_cell(t, "%s",
		   system ? "system"
			  : cli_printf(cx, "%.*s", (int)strcspn(k->name + 9, "/") + 9, k->name));
	table_cell(t, "%s", print_enum(&skerry__v1__role__descriptor, (int)k->role, role));
	table_cell(t, "%s", print_left(k->expire_time, now, text));
	table_cell(t, "%s", print_ago(pb_timestamp_ms(k->create_time), now, text));
	table_cell(t, "%s", k->description);
}

static void columns_audit(struct table *t)
{
	table_init(t, "TIME", "WHO", "WHAT", "TARGET", "DETAIL", NULL);
}

static void row_audit(struct cli *cx, struct table *t, const void *msg, int64_t now)
{
	const Skerry__V1__AuditEntry *a = msg;
	char text[CLOCK_TEXT];

	(void)cx;
	(void)now;
	table_cell(t, "%s", clock_format(pb_timestamp_ms(a->time), text));
	table_cell(t, "%s", a->actor);
	table_cell(t, "%s", a->action);
	table_cell(t, "%s", a->target);
	table_cell(t, "%s%s%s", a->detail, a->detail[0] && a->reason[0] ? "; " : "", a->reason);
}

#define METHODS(service, one, many)                                           \
	"/skerry.v1." service "/Get" one, "/skerry.v1." service "/List" many, \
		"/skerry.v1." service "/Delete" one

const struct noun noun_tailnet = {"tailnet",
				  NULL,
				  METHODS("TailnetService", "Tailnet", "Tailnets"),
				  names_tailnet,
				  columns_tailnet,
				  row_tailnet};
const struct noun noun_user = {"user",     "users",      METHODS("UserService", "User", "Users"),
			       names_user, columns_user, row_user};
const struct noun noun_node = {"node",     "nodes",      METHODS("NodeService", "Node", "Nodes"),
			       names_node, columns_node, row_node};
const struct noun noun_auth_key = {
	"auth key", "authKeys",       METHODS("AuthKeyService", "AuthKey", "AuthKeys"),
	NULL,       columns_auth_key, row_auth_key};
const struct noun noun_api_key = {
	"API key", "apiKeys",       METHODS("ApiKeyService", "ApiKey", "ApiKeys"),
	NULL,      columns_api_key, row_api_key};
const struct noun noun_member = {"lighthouse", NULL, METHODS("ClusterService", "Member", "Members"),
				 names_member, NULL, NULL};
const struct noun noun_audit = {"audit entry",
				"auditEntries",
				"/skerry.v1.AuditService/GetAuditEntry",
				"/skerry.v1.AuditService/ListAuditEntries",
				NULL,
				NULL,
				columns_audit,
				row_audit};

static const struct noun *noun_of(const struct command *cmd)
{
	static const struct {
		const char *group;
		const struct noun *noun;
	} table[] = {{"tailnet", &noun_tailnet}, {"user", &noun_user},
		     {"node", &noun_node},       {"auth-key", &noun_auth_key},
		     {"api-key", &noun_api_key}, {"audit", &noun_audit}};

	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		if (strcmp(table[i].group, cmd->group) == 0) {
			return table[i].noun;
		}
	}
	IMPOSSIBLE("group without a noun");
}

/* ---- lists ---- */

/* The one repeated field of messages of a list's answer. */
static const ProtobufCFieldDescriptor *items_of(const ProtobufCMessageDescriptor *d)
{
	for (unsigned i = 0; i < d->n_fields; i++) {
		if (d->fields[i].label == PROTOBUF_C_LABEL_REPEATED &&
		    d->fields[i].type == PROTOBUF_C_TYPE_MESSAGE) {
			return &d->fields[i];
		}
	}
	IMPOSSIBLE("a list without elements");
}

int admin_list(struct cli *cx, const struct noun *noun, size_t limit, void **ret_response,
	       void ***ret_items, size_t *ret_n)
{
	const struct proto_method *m = proto_method_find(noun->list);
	const ProtobufCFieldDescriptor *f = items_of(m->output);
	void *req = msg_new(cx, m->input), **items = NULL;
	const char *token = "";
	size_t n = 0;
	uint8_t *reply;

	if (noun->collection) {
		msg_set(req, "parent", cx->parent);
	}
	do {
		const ProtobufCFieldDescriptor *size = field_of(req, "page_size");
		size_t more;
		void **all;
		int rc;

		*(int32_t *)((uint8_t *)req + size->offset) =
			limit ? (int32_t)MIN(limit - n, (size_t)LIM_PAGE_SIZE) : LIM_PAGE_SIZE;
		msg_set(req, "page_token", token);
		rc = client_call(cx, noun->list, req, &reply);
		if (rc != CLI_OK) {
			return rc;
		}
		more = *(size_t *)(reply + f->quantifier_offset);
		all = cli_alloc(cx, (n + more + 1) * sizeof(*all));
		if (n > 0) {
			memcpy(all, items, n * sizeof(*all));
		}
		if (more > 0) {
			memcpy(all + n, *(void ***)(reply + f->offset), more * sizeof(*all));
		}
		items = all;
		n += more;
		token = msg_str(reply, "next_page_token");
	} while (token[0] != '\0' && (limit == 0 || n < limit));
	if (limit == 0) {
		msg_set(reply, "next_page_token", "");
	}
	*(size_t *)(reply + f->quantifier_offset) = n;
	*(void ***)(reply + f->offset) = items;
	*ret_response = reply;
	*ret_items = items;
	*ret_n = n;
	return CLI_OK;
}

static bool all_digits(const char *text)
{
	return text[0] != '\0' && strspn(text, "0123456789") == strlen(text) && strlen(text) < 20;
}

/* Which element of a list a person means: exactly one must answer to the name. */
static int pick(struct cli *cx, const struct noun *noun, const char *text, char **ret_name)
{
	const char *names[4], *near[256];
	size_t n, n_near = 0, found = 0;
	void *response, **items;
	int rc = admin_list(cx, noun, 0, &response, &items, &n);

	if (rc != CLI_OK) {
		return rc;
	}
	for (size_t i = 0; i < n; i++) {
		size_t k = noun->names(items[i], names);

		for (size_t j = 0; j < k; j++) {
			if (names[j][0] && strcasecmp(names[j], text) == 0) {
				*ret_name = cli_printf(cx, "%s", msg_str(items[i], "name"));
				found++;
				break;
			}
		}
		if (n_near < ARRAY_LEN(near)) {
			near[n_near++] = names[0];
		}
	}
	if (found > 1) {
		return cli_fail(cx, CLI_CONFLICT,
				"%zu %ss are called %s: name it by its number, as `list` shows it",
				found, noun->word, print_safe(cx, text));
	}
	if (found == 0) {
		const char *mean = cli_nearest(text, near, n_near);

		return cli_fail(cx, CLI_NOT_FOUND, "there is no %s %s%s%s%s", noun->word,
				print_safe(cx, text), mean ? "; did you mean " : "",
				mean ? print_safe(cx, mean) : "", mean ? "?" : "");
	}
	return CLI_OK;
}

int admin_parent(struct cli *cx)
{
	const char *text = cli_given(cx, OPT_TAILNET) ? cx->opt[OPT_TAILNET].text
						      : getenv("SKERRY_TAILNET");

	if (cx->parent) {
		return CLI_OK;
	}
	if (cli_given(cx, OPT_SYSTEM)) {
		cx->parent = cli_printf(cx, "tailnets/0");
		return CLI_OK;
	}
	return admin_resolve(cx, &noun_tailnet, text && *text ? text : "default", &cx->parent);
}

int admin_resolve(struct cli *cx, const struct noun *noun, const char *text, char **ret_name)
{
	int rc;

	if (strchr(text, '/')) {
		*ret_name = cli_printf(cx, "%s", text);
		return CLI_OK;
	}
	if (noun->collection) {
		rc = admin_parent(cx);
		if (rc != CLI_OK) {
			return rc;
		}
	}
	if (all_digits(text)) {
		*ret_name = noun->collection
				    ? cli_printf(cx, "%s/%s/%s", cx->parent, noun->collection, text)
			    : noun == &noun_member ? cli_printf(cx, "members/%s", text)
						   : cli_printf(cx, "tailnets/%s", text);
		return CLI_OK;
	}
	if (!noun->names) {
		return cli_usage(cx, "%s: a number is needed, as `skerry %s list` shows it",
				 print_safe(cx, text), cx->cmd->group);
	}
	return pick(cx, noun, text, ret_name);
}

/* ---- commands ---- */

int cmd_list(struct cli *cx)
{
	const struct noun *noun = noun_of(cx->cmd);
	size_t limit = noun == &noun_audit
			       ? (cli_given(cx, OPT_LIMIT) ? (size_t)cx->opt[OPT_LIMIT].num : 100)
			       : 0,
	       n;
	void *response, **items;
	struct table t;
	int rc = client_to_lighthouse(cx);

	if (rc == CLI_OK && noun->collection) {
		rc = admin_parent(cx);
	}
	if (rc == CLI_OK) {
		rc = admin_list(cx, noun, limit, &response, &items, &n);
	}
	if (rc != CLI_OK) {
		return rc;
	}
	if (cli_json(cx)) {
		print_json(cx, response);
		return CLI_OK;
	}
	if (n == 0) {
		cli_note(cx, "there is none");
		return CLI_OK;
	}
	if (noun == &noun_node || noun == &noun_auth_key) {
		rc = admin_list(cx, &noun_user, 0, &response, &cx->users, &cx->n_users);
		if (rc != CLI_OK) {
			return rc;
		}
	}
	noun->columns(&t);
	for (size_t i = 0; i < n; i++) {
		noun->row(cx, &t, items[i], clock_wall_ms());
	}
	table_print(&t, "", cx->io->out);
	table_done(&t);
	return CLI_OK;
}

int cmd_get(struct cli *cx)
{
	const struct noun *noun = noun_of(cx->cmd);
	void *req = msg_new(cx, proto_method_find(noun->get)->input), *reply;
	char *name;
	int rc = client_to_lighthouse(cx);

	if (rc == CLI_OK) {
		rc = admin_resolve(cx, noun, cx->args[0], &name);
	}
	if (rc == CLI_OK) {
		msg_set(req, "name", name);
		rc = client_call(cx, noun->get, req, &reply);
	}
	if (rc == CLI_OK) {
		print_reply(cx, reply);
	}
	return rc;
}

int cmd_delete(struct cli *cx)
{
	const struct noun *noun = noun_of(cx->cmd);
	void *req = msg_new(cx, proto_method_find(noun->remove)->input), *reply;
	char *name;
	int rc = client_to_lighthouse(cx);

	if (rc == CLI_OK) {
		rc = admin_resolve(cx, noun, cx->args[0], &name);
	}
	if (rc != CLI_OK) {
		return rc;
	}
	msg_set(req, "name", name);
	msg_set(req, "request_id", client_request_id(cx));
	if (noun == &noun_tailnet) {
		((Skerry__V1__DeleteTailnetRequest *)req)->force = cli_given(cx, OPT_DELETE_ALL);
	}
	rc = client_call(cx, noun->remove, req, &reply);
	if (rc == CLI_OK && cli_json(cx)) {
		print_json(cx, reply);
	} else if (rc == CLI_OK) {
		fprintf(cx->io->out, "%s %s\n",
			strcmp(cx->cmd->name, "revoke") == 0 ? "revoked" : "deleted", name);
	}
	return rc;
}
