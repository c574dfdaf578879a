/* NodeService. */
#include <ctype.h>
#include <string.h>

#include "api/admin.h"
#include "base/key.h"
#include "base/prefix.h"
#include "proto/pb_util.h"
#include "tailnet/query.h"

static char *key_text(struct admin_call *c, const char *prefix, const ProtobufCBinaryData *key)
{
	char *out = admin_alloc(c, KEY_PUBLIC_TEXT);

	if (key->len == 32)
		key_public_format(prefix, key->data, out);
	return out;
}

static void show_endpoints(struct admin_call *c, const NodeEndpoints *e, Skerry__V1__Node *n)
{
	n->endpoints = admin_alloc(c, (e->n_endpoints + 1) * sizeof(char *));
	for (size_t i = 0; i < e->n_endpoints; i++) {
		const Skerry__V1__Endpoint *in = e->endpoints[i];
		struct ipport p = {.port = (uint16_t)in->port};
		char text[IPPORT_TEXT];

		if (ipaddr_from_bytes(in->address.data, in->address.len, &p.addr))
			n->endpoints[n->n_endpoints++] = admin_strdup(c, ipport_format(&p, text));
	}
	n->disco_key = key_text(c, KEY_DISCO_PREFIX, &e->disco_key);
}

static void show_addresses(struct admin_call *c, const NodeRecord *r, Skerry__V1__Node *n)
{
	n->addresses = admin_alloc(c, (r->n_addresses + 1) * sizeof(char *));
	for (size_t i = 0; i < r->n_addresses; i++) {
		char text[IPADDR_TEXT];
		struct ipaddr a;

		if (ipaddr_from_bytes(r->addresses[i].data, r->addresses[i].len, &a))
			n->addresses[n->n_addresses++] = admin_strdup(c, ipaddr_format(&a, text));
	}
}

static char *registered_by(int method)
{
	switch (method) {
	case SKERRY__INTERNAL__V1__REGISTER_METHOD__REGISTER_METHOD_AUTH_KEY: return "auth-key";
	case SKERRY__INTERNAL__V1__REGISTER_METHOD__REGISTER_METHOD_APPROVAL: return "approval";
	case SKERRY__INTERNAL__V1__REGISTER_METHOD__REGISTER_METHOD_API: return "api";
	default: return "";
	}
}

static int to_message(struct admin_call *c, const NodeRecord *r, void **ret)
{
	Skerry__V1__Node *n = admin_alloc(c, sizeof(*n));
	NodeEndpoints *e = NULL;
	Presence *p = NULL;
	int rc = query_endpoints(c->kv, r->tailnet, r->id, &c->records, &e);

	if (rc >= 0)
		rc = query_presence(c->kv, r->tailnet, r->id, &c->records, &p);
	if (rc < 0 && rc != ERR_NOT_FOUND)
		return rc;
	skerry__v1__node__init(n);
	n->name = admin_name(c, RESOURCE_NODE, r->tailnet, r->id);
	n->stable_id = r->stable_id;
	n->given_name = r->given_name;
	n->hostname = r->hostname;
	if (r->user)
		n->user = admin_name(c, RESOURCE_USER, r->tailnet, r->user);
	n->n_tags = r->n_tags;
	n->tags = r->tags;
	show_addresses(c, r, n);
	n->node_key = key_text(c, KEY_NODE_PREFIX, &r->node_key);
	if (r->machine_key)
		n->machine_key = key_text(c, KEY_MACHINE_PREFIX, &r->machine_key->key);
	if (e)
		show_endpoints(c, e, n);
	if (p) {
		n->online = p->online;
		n->last_seen_time = admin_time(c, p->last_seen_ms);
		if (c->caller.role >= SKERRY__V1__ROLE__ROLE_ADMIN && p->session && !p->lost_ms)
			n->lighthouse_id = p->lighthouse;
	}
	n->create_time = admin_time(c, r->create_ms);
	n->expire_time = admin_time(c, r->expire_ms);
	n->expired = r->expired;
	n->ephemeral = r->ephemeral;
	n->approved = r->approved;
	n->host_info = r->host_info;
	n->etag = admin_etag(c, r->revision);
	n->registered_by = registered_by((int)r->register_method);
	if (r->auth_key)
		n->auth_key = admin_name(c, RESOURCE_AUTH_KEY, r->tailnet, r->auth_key);
	n->revision = admin_revision(c, r->revision);
	*ret = n;
	return 0;
}

static int get(struct admin_call *c, uint64_t tailnet, uint64_t id, void **ret, struct err *err)
{
	NodeRecord *r;
	int rc = query_node(c->kv, tailnet, id, &c->records, &r);

	(void)err;
	return rc < 0 ? rc : to_message(c, r, ret);
}

static int next(struct admin_call *c, uint64_t tailnet, uint64_t *pos, void **ret)
{
	NodeRecord *r;
	int rc = query_node_next(c->kv, tailnet, *pos, &c->records, &r);

	if (rc >= 0)
		rc = to_message(c, r, ret);
	if (rc >= 0)
		*pos = r->id;
	return rc;
}

/* The owner that a request names; none: of tagged nodes nobody, else the caller's user or `admin`. */
static int owner(struct admin_call *c, const char *name, bool tagged, const char *field,
		 uint64_t *ret, struct err *err)
{
	if (*name)
		return admin_user(name, c->target.tailnet, field, ret, err);
	*ret = 0;
	return tagged ? 0 : admin_default_user(c, c->target.tailnet, field, ret, err);
}

static int parse_key(struct admin_call *c, const char *prefix, const char *text, const char *field,
		     ProtobufCBinaryData *ret, struct err *err)
{
	uint8_t *key = admin_alloc(c, 32);
	int rc = key_public_parse(prefix, text, key, err);

	if (rc < 0) {
		strncpy(err->field, field, sizeof(err->field) - 1);
		return rc;
	}
	*ret = (ProtobufCBinaryData){.data = key, .len = 32};
	return 0;
}

static int create(struct admin_call *c, struct err *err)
{
	const Skerry__V1__CreateNodeRequest *req = (const void *)c->req;
	Skerry__Internal__V1__NodeCreate *b = admin_alloc(c, sizeof(*b));
	RegisterFacts *f = admin_alloc(c, sizeof(*f));
	MachineKey *m = admin_alloc(c, sizeof(*m));
	const Skerry__V1__Node *n = req->node;
	int rc;

	if (!n)
		return err_field(err, ERR_INVALID, "node", "node is missing");
	skerry__internal__v1__node_create__init(b);
	skerry__internal__v1__register_facts__init(f);
	skerry__internal__v1__machine_key__init(m);
	b->facts = f;
	f->machine_key = m;
	f->hostname = n->hostname;
	f->n_requested_tags = n->n_tags;
	f->requested_tags = n->tags;
	f->ephemeral = n->ephemeral;
	m->kind = SKERRY__INTERNAL__V1__MACHINE_KEY_KIND__MACHINE_KEY_KIND_ED25519;
	rc = parse_key(c, KEY_MACHINE_PREFIX, n->machine_key, "node.machine_key", &m->key, err);
	if (rc >= 0)
		rc = parse_key(c, KEY_NODE_PREFIX, n->node_key, "node.node_key", &f->node_key, err);
	if (rc >= 0 && *n->disco_key)
		rc = parse_key(c, KEY_DISCO_PREFIX, n->disco_key, "node.disco_key", &f->disco_key,
			       err);
	if (rc >= 0)
		rc = owner(c, n->user, n->n_tags > 0, "node.user", &b->user, err);
	c->cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_NODE_CREATE;
	c->cmd.node_create = b;
	return rc;
}

static const char *const mutable_paths[] = {"given_name",  "tags", "approved",
					    "expire_time", "user", NULL};

static int update(struct admin_call *c, struct err *err)
{
	const Skerry__V1__UpdateNodeRequest *req = (const void *)c->req;
	Skerry__Internal__V1__NodeUpdate *b = admin_alloc(c, sizeof(*b));
	const Google__Protobuf__FieldMask *mask = req->update_mask;
	const Skerry__V1__Node *n = req->node;
	int rc = admin_mask(mask, n->base.descriptor, mutable_paths, err);

	if (rc >= 0)
		rc = pb_timestamp_check(n->expire_time, "node.expire_time", err);
	if (rc < 0)
		return rc;
	skerry__internal__v1__node_update__init(b);
	b->id = c->target.id;
	b->etag = n->etag;
	b->set_given_name = admin_sets(mask, "given_name", *n->given_name);
	b->given_name = n->given_name;
	b->set_tags = admin_sets(mask, "tags", n->n_tags > 0);
	b->n_tags = n->n_tags;
	b->tags = n->tags;
	b->set_approved = admin_sets(mask, "approved", n->approved);
	b->approved = n->approved;
	b->set_expire = admin_sets(mask, "expire_time", n->expire_time);
	if (n->expire_time) {
		int64_t ms = pb_timestamp_ms(n->expire_time);

		if (ms <= 0)
			return err_field(err, ERR_INVALID, "node.expire_time",
					 "the time lies before 1970; leave it out for \"never\"");
		b->expire_ms = (uint64_t)ms;
	}
	b->set_user = admin_sets(mask, "user", *n->user);
	if (b->set_user && *n->user)
		rc = admin_user(n->user, c->target.tailnet, "node.user", &b->user, err);
	c->cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_NODE_UPDATE;
	c->cmd.node_update = b;
	return rc;
}

static int delete (struct admin_call *c, struct err *err)
{
	const Skerry__V1__DeleteNodeRequest *req = (const void *)c->req;
	Skerry__Internal__V1__NodeDelete *b = admin_alloc(c, sizeof(*b));

	(void)err;
	skerry__internal__v1__node_delete__init(b);
	b->id = c->target.id;
	b->etag = req->etag;
	c->cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_NODE_DELETE;
	c->cmd.node_delete = b;
	return 0;
}

/* As the device shows it, xxxx-xxxx, whatever a person makes of case, hyphen and blanks. */
static char *code_of(struct admin_call *c, const char *text)
{
	char *out = admin_alloc(c, strlen(text) + 3);
	size_t n = 0;

	for (; *text; text++) {
		char ch = (char)tolower((unsigned char)*text);

		if (ch == '-' || ch == ' ')
			continue;
		/* What Crockford's alphabet reads them as. */
		ch = ch == 'o' ? '0' : ch == 'i' || ch == 'l' ? '1' : ch;
		if (n == 4)
			out[n++] = '-';
		out[n++] = ch;
	}
	return out;
}

static int approve(struct admin_call *c, struct err *err)
{
	const Skerry__V1__ApproveNodeRequest *req = (const void *)c->req;
	Skerry__Internal__V1__PendingDecide *b = admin_alloc(c, sizeof(*b));

	if (!*req->code || strlen(req->code) > 32)
		return err_field(err, ERR_INVALID, "code",
				 "a code has the form xxxx-xxxx, as the device shows it");
	skerry__internal__v1__pending_decide__init(b);
	b->code = code_of(c, req->code);
	b->approve = true;
	c->cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_PENDING_DECIDE;
	c->cmd.pending_decide = b;
	return owner(c, req->user, false, "user", &b->user, err);
}

#define PATH(m) "/skerry.v1.NodeService/" m

static const struct admin_method methods[] = {
	{.path = PATH("GetNode"), .kind = RESOURCE_NODE, .target = "name", .get = get},
	{.path = PATH("ListNodes"), .kind = RESOURCE_NODE, .target = "parent", .next = next},
	{.path = PATH("CreateNode"),
	 .kind = RESOURCE_NODE,
	 .target = "parent",
	 .command = create,
	 .get = get},
	{.path = PATH("UpdateNode"),
	 .kind = RESOURCE_NODE,
	 .target = "node.name",
	 .command = update,
	 .get = get},
	{.path = PATH("DeleteNode"), .kind = RESOURCE_NODE, .target = "name", .command = delete},
	{.path = PATH("ApproveNode"),
	 .kind = RESOURCE_NODE,
	 .target = "parent",
	 .command = approve,
	 .get = get},
};

void node_service_register(struct api *api, struct rpc_server *server)
{
	admin_register(api, server, methods, ARRAY_LEN(methods));
}
