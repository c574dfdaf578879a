/* Commands of administration that make and change: tailnets, users, nodes, keys. */
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/name.h"
#include "cli/cli_int.h"
#include "google/protobuf/field_mask.pb-c.h"
#include "proto/pb_util.h"
#include "skerry/v1/admin.pb-c.h"

static Google__Protobuf__Duration *lifetime(struct cli *cx, enum opt_id id)
{
	if (!cli_given(cx, id)) {
		return NULL;
	}
	return pb_duration_set(cli_alloc(cx, sizeof(Google__Protobuf__Duration)), cx->opt[id].num);
}

static char *text_of(struct cli *cx, enum opt_id id)
{
	return cli_printf(cx, "%s", cli_given(cx, id) ? cx->opt[id].text : "");
}

static Google__Protobuf__FieldMask *mask_of(struct cli *cx, const char *path)
{
	Google__Protobuf__FieldMask *mask = msg_new(cx, &google__protobuf__field_mask__descriptor);

	mask->paths = cli_alloc(cx, sizeof(*mask->paths));
	mask->paths[mask->n_paths++] = cli_printf(cx, "%s", path);
	return mask;
}

/* "server" is meant as "tag:server". */
static char **tags_of(struct cli *cx, char *const *v, size_t n)
{
	char **out = cli_alloc(cx, (n + 1) * sizeof(*out));

	for (size_t i = 0; i < n; i++) {
		out[i] = cli_printf(cx, "%s%s", strncmp(v[i], "tag:", 4) == 0 ? "" : "tag:", v[i]);
	}
	return out;
}

static int open_parent(struct cli *cx)
{
	int rc = client_to_lighthouse(cx);

	return rc == CLI_OK ? admin_parent(cx) : rc;
}

/* ---- tailnets and users ---- */

int cmd_tailnet_create(struct cli *cx)
{
	Skerry__V1__CreateTailnetRequest req = SKERRY__V1__CREATE_TAILNET_REQUEST__INIT;
	Skerry__V1__Tailnet tailnet = SKERRY__V1__TAILNET__INIT;
	Skerry__V1__DnsConfig dns = SKERRY__V1__DNS_CONFIG__INIT;
	void *reply;
	int rc = client_to_lighthouse(cx);

	if (rc != CLI_OK) {
		return rc;
	}
	tailnet.display_name = cx->args[0];
	tailnet.node_expiry = lifetime(cx, OPT_NODE_EXPIRY);
	dns.base_domain = cli_given(cx, OPT_DOMAIN) ? text_of(cx, OPT_DOMAIN)
						    : cli_printf(cx, "%s.internal", cx->args[0]);
	tailnet.dns = &dns;
	req.tailnet = &tailnet;
	req.request_id = client_request_id(cx);
	rc = client_call(cx, "/skerry.v1.TailnetService/CreateTailnet", &req, &reply);
	if (rc == CLI_OK) {
		print_reply(cx, reply);
	}
	return rc;
}

int cmd_user_create(struct cli *cx)
{
	Skerry__V1__CreateUserRequest req = SKERRY__V1__CREATE_USER_REQUEST__INIT;
	Skerry__V1__User user = SKERRY__V1__USER__INIT;
	void *reply;
	int rc = open_parent(cx);

	if (rc != CLI_OK) {
		return rc;
	}
	user.login_name = cx->args[0];
	user.display_name = text_of(cx, OPT_DISPLAY_NAME);
	user.role = cli_given(cx, OPT_USER_ROLE)
			    ? (Skerry__V1__Role)(cx->opt[OPT_USER_ROLE].num + 1)
			    : 0;
	req.parent = cx->parent;
	req.user = &user;
	req.request_id = client_request_id(cx);
	rc = client_call(cx, "/skerry.v1.UserService/CreateUser", &req, &reply);
	if (rc == CLI_OK) {
		print_reply(cx, reply);
	}
	return rc;
}

/* ---- nodes ---- */

/* Sends what `change` of the node, named by the first word, has to become. */
static int update_node(struct cli *cx, Skerry__V1__Node *change, const char *path)
{
	Skerry__V1__UpdateNodeRequest req = SKERRY__V1__UPDATE_NODE_REQUEST__INIT;
	void *reply;
	int rc = client_to_lighthouse(cx);

	if (rc == CLI_OK) {
		rc = admin_resolve(cx, &noun_node, cx->args[0], &change->name);
	}
	if (rc != CLI_OK) {
		return rc;
	}
	req.node = change;
	req.update_mask = mask_of(cx, path);
	req.request_id = client_request_id(cx);
	rc = client_call(cx, "/skerry.v1.NodeService/UpdateNode", &req, &reply);
	if (rc == CLI_OK) {
		print_reply(cx, reply);
	}
	return rc;
}

int cmd_node_rename(struct cli *cx)
{
	Skerry__V1__Node node = SKERRY__V1__NODE__INIT;
	struct err e = {0};

	if (name_valid_label(cx->args[1], strlen(cx->args[1]), &e) < 0) {
		return cli_usage(cx, "the name %s: %s", print_safe(cx, cx->args[1]), e.msg);
	}
	node.given_name = cx->args[1];
	return update_node(cx, &node, "given_name");
}

int cmd_node_tag(struct cli *cx)
{
	Skerry__V1__Node node = SKERRY__V1__NODE__INIT;
	size_t n = (size_t)cx->n_args - 1;

	if ((n == 0) != cli_given(cx, OPT_CLEAR)) {
		return cli_usage(cx, n == 0 ? "name tags, or --clear to take all away"
					    : "tags and --clear exclude each other");
	}
	node.tags = tags_of(cx, cx->args + 1, n);
	node.n_tags = n;
	return update_node(cx, &node, "tags");
}

int cmd_node_expire(struct cli *cx)
{
	Skerry__V1__Node node = SKERRY__V1__NODE__INIT;
	Google__Protobuf__Timestamp when;

	if (cli_given(cx, OPT_IN) && cli_given(cx, OPT_NEVER)) {
		return cli_usage(cx, "--in and --never exclude each other");
	}
	if (!cli_given(cx, OPT_NEVER)) {
		node.expire_time = pb_timestamp_set(
			&when, clock_wall_ms() + (cli_given(cx, OPT_IN) ? cx->opt[OPT_IN].num : 0));
	}
	return update_node(cx, &node, "expire_time");
}

int cmd_node_approve(struct cli *cx)
{
	Skerry__V1__ApproveNodeRequest req = SKERRY__V1__APPROVE_NODE_REQUEST__INIT;
	const Skerry__V1__Node *node;
	void *reply;
	int rc = open_parent(cx);

	if (rc == CLI_OK && cli_given(cx, OPT_USER)) {
		rc = admin_resolve(cx, &noun_user, cx->opt[OPT_USER].text, &req.user);
	}
	if (rc != CLI_OK) {
		return rc;
	}
	req.parent = cx->parent;
	req.code = cx->args[0];
	req.request_id = client_request_id(cx);
	rc = client_call(cx, "/skerry.v1.NodeService/ApproveNode", &req, &reply);
	if (rc != CLI_OK) {
		return rc;
	}
	if (cli_json(cx)) {
		print_json(cx, reply);
		return CLI_OK;
	}
	node = reply;
	fprintf(cx->io->out, "%s is approved%s%s\n", print_safe(cx, node->given_name),
		node->n_addresses ? ": " : "", node->n_addresses ? node->addresses[0] : "");
	return CLI_OK;
}

/* ---- keys: the secret alone on stdout, the rest beside it ---- */

static int print_secret(struct cli *cx, const void *msg, const char *secret)
{
	if (cli_json(cx)) {
		print_json(cx, msg);
	} else if (secret[0] != '\0') {
		fprintf(cx->io->out, "%s\n", secret);
	}
	if (secret[0] == '\0') {
		return cli_fail(cx, CLI_FAILED,
				"it was made, but its secret was lost on the way: revoke it and "
				"make another");
	}
	return CLI_OK;
}

int cmd_auth_key_create(struct cli *cx)
{
	Skerry__V1__CreateAuthKeyRequest req = SKERRY__V1__CREATE_AUTH_KEY_REQUEST__INIT;
	Skerry__V1__AuthKey key = SKERRY__V1__AUTH_KEY__INIT, *made;
	struct opt_value *tags = &cx->opt[OPT_TAGS];
	char left[TIME_TEXT];
	int rc = open_parent(cx);

	if (rc == CLI_OK && cli_given(cx, OPT_USER)) {
		rc = admin_resolve(cx, &noun_user, cx->opt[OPT_USER].text, &key.user);
	}
	if (rc != CLI_OK) {
		return rc;
	}
	key.reusable = cli_given(cx, OPT_REUSABLE);
	key.ephemeral = cli_given(cx, OPT_EPHEMERAL);
	key.needs_approval = cli_given(cx, OPT_NEEDS_APPROVAL);
	key.tags = tags_of(cx, tags->list, tags->n);
	key.n_tags = tags->n;
	key.description = text_of(cx, OPT_DESCRIPTION);
	req.parent = cx->parent;
	req.auth_key = &key;
	req.lifetime = lifetime(cx, OPT_EXPIRY);
	req.no_pin = cli_given(cx, OPT_NO_PIN);
	req.request_id = client_request_id(cx);
	rc = client_call(cx, "/skerry.v1.AuthKeyService/CreateAuthKey", &req, &made);
	if (rc != CLI_OK) {
		return rc;
	}
	rc = print_secret(cx, made, made->secret);
	if (rc == CLI_OK && !cli_json(cx)) {
		cli_note(cx,
			 "%s: %s, expires %s. On a device: SKERRY_AUTH_KEY=... skerry up "
			 "--lighthouse URL",
			 print_safe(cx, made->name),
			 made->reusable ? "reusable" : "good for one node",
			 print_left(made->expire_time, clock_wall_ms(), left));
	}
	return rc;
}

int cmd_api_key_create(struct cli *cx)
{
	Skerry__V1__CreateApiKeyRequest req = SKERRY__V1__CREATE_API_KEY_REQUEST__INIT;
	Skerry__V1__ApiKey key = SKERRY__V1__API_KEY__INIT, *made;
	char left[TIME_TEXT], role[64];
	int rc = open_parent(cx);

	if (rc != CLI_OK) {
		return rc;
	}
	key.role = cli_given(cx, OPT_KEY_ROLE) ? (Skerry__V1__Role)(cx->opt[OPT_KEY_ROLE].num + 1)
					       : SKERRY__V1__ROLE__ROLE_VIEWER;
	key.description = text_of(cx, OPT_DESCRIPTION);
	req.parent = cx->parent;
	req.api_key = &key;
	req.lifetime = lifetime(cx, OPT_EXPIRY);
	req.request_id = client_request_id(cx);
	rc = client_call(cx, "/skerry.v1.ApiKeyService/CreateApiKey", &req, &made);
	if (rc != CLI_OK) {
		return rc;
	}
	rc = print_secret(cx, made, made->secret);
	if (rc == CLI_OK && !cli_json(cx)) {
		bool system = strcmp(cx->parent, "tailnets/0") == 0;

		cli_note(cx,
			 "%s: %s, expires %s. Elsewhere: SKERRY_API_KEY=... skerry node list "
			 "--lighthouse URL --pin PIN%s%s (skerry cluster status shows the pin)",
			 print_safe(cx, made->name),
			 print_enum(&skerry__v1__role__descriptor, (int)made->role, role),
			 print_left(made->expire_time, clock_wall_ms(), left),
			 system ? "" : " --tailnet ",
			 system ? "" : cx->parent + strlen("tailnets/"));
	}
	return rc;
}
