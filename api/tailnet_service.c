/* TailnetService. */
#include <string.h>

#include "api/admin.h"
#include "base/name.h"
#include "proto/pb_util.h"
#include "tailnet/query.h"

static Skerry__V1__Tailnet *to_message(struct admin_call *c, const TailnetRecord *r)
{
	Skerry__V1__Tailnet *t = admin_alloc(c, sizeof(*t));

	skerry__v1__tailnet__init(t);
	t->name = admin_name(c, RESOURCE_TAILNET, r->id, r->id);
	t->display_name = r->name;
	t->dns = r->dns;
	t->create_time = admin_time(c, r->create_ms);
	t->etag = admin_etag(c, r->revision);
	t->node_count = r->node_count;
	if (r->node_expiry_ms)
		t->node_expiry = pb_duration_set(admin_alloc(c, sizeof(*t->node_expiry)),
						 (int64_t)r->node_expiry_ms);
	t->revision = admin_revision(c, r->revision);
	return t;
}

static int get(struct admin_call *c, uint64_t tailnet, uint64_t id, void **ret, struct err *err)
{
	TailnetRecord *r;
	int rc = query_tailnet(c->kv, id, &c->records, &r);

	(void)tailnet;
	(void)err;
	if (rc >= 0)
		*ret = to_message(c, r);
	return rc;
}

static int next(struct admin_call *c, uint64_t tailnet, uint64_t *pos, void **ret)
{
	TailnetRecord *r;
	int rc = query_tailnet_next(c->kv, *pos, &c->records, &r);

	(void)tailnet;
	if (rc >= 0) {
		*pos = r->id;
		*ret = to_message(c, r);
	}
	return rc;
}

/* Queries for the root or a single label are everybody's: only the system's administrators send them elsewhere. */
static int check_routes(struct admin_call *c, const Skerry__V1__DnsConfig *dns, struct err *err)
{
	for (size_t i = 0; dns && c->caller.tailnet != 0 && i < dns->n_routes; i++) {
		if (name_labels(dns->routes[i]->domain) < 2)
			return err_reason(
				err, ERR_DENIED, "SYSTEM_ROLE_REQUIRED",
				"a route for the domain \"%.80s\" needs a credential of the "
				"system",
				dns->routes[i]->domain);
	}
	return 0;
}

static int expiry_ms(const Google__Protobuf__Duration *d, uint64_t *ret, struct err *err)
{
	int rc = pb_duration_check(d, "tailnet.node_expiry", err);

	if (rc >= 0 && d && pb_duration_ms(d) < 0)
		rc = err_field(err, ERR_INVALID, "tailnet.node_expiry", "the expiry is negative");
	if (rc >= 0)
		*ret = d ? (uint64_t)pb_duration_ms(d) : 0;
	return rc;
}

static int create(struct admin_call *c, struct err *err)
{
	const Skerry__V1__CreateTailnetRequest *req = (const void *)c->req;
	const Skerry__V1__Tailnet *t = req->tailnet;
	Skerry__Internal__V1__TailnetCreate *b = admin_alloc(c, sizeof(*b));
	int rc;

	if (!t)
		return err_field(err, ERR_INVALID, "tailnet", "tailnet is missing");
	skerry__internal__v1__tailnet_create__init(b);
	b->name = t->display_name;
	b->dns = t->dns;
	rc = expiry_ms(t->node_expiry, &b->node_expiry_ms, err);
	c->cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_TAILNET_CREATE;
	c->cmd.tailnet_create = b;
	return rc;
}

static const char *const mutable_paths[] = {"display_name",  "dns",         "dns.base_domain",
					    "dns.resolvers", "dns.routes",  "dns.records",
					    "dns.disabled",  "node_expiry", NULL};

/* The present settings with the parts that the mask names. *ret_old: the revision that they were read at. */
static int merge_dns(struct admin_call *c, const Google__Protobuf__FieldMask *mask,
		     const Skerry__V1__DnsConfig *in, Skerry__V1__DnsConfig **ret, char **ret_etag)
{
	static Skerry__V1__DnsConfig empty = SKERRY__V1__DNS_CONFIG__INIT;
	Skerry__V1__DnsConfig *d = admin_alloc(c, sizeof(*d));
	TailnetRecord *r;
	int rc = query_tailnet(c->kv, c->target.id, &c->records, &r);

	if (rc < 0)
		return rc;
	*d = r->dns ? *r->dns : empty;
	in = in ? in : &empty;
	if (pb_mask_contains(mask, "dns.base_domain"))
		d->base_domain = in->base_domain;
	if (pb_mask_contains(mask, "dns.resolvers")) {
		d->n_resolvers = in->n_resolvers;
		d->resolvers = in->resolvers;
	}
	if (pb_mask_contains(mask, "dns.routes")) {
		d->n_routes = in->n_routes;
		d->routes = in->routes;
	}
	if (pb_mask_contains(mask, "dns.records")) {
		d->n_records = in->n_records;
		d->records = in->records;
	}
	if (pb_mask_contains(mask, "dns.disabled"))
		d->disabled = in->disabled;
	*ret = d;
	*ret_etag = admin_etag(c, r->revision);
	return 0;
}

static bool names_part_of_dns(const Google__Protobuf__FieldMask *mask)
{
	for (size_t i = 0; mask && i < mask->n_paths; i++) {
		if (!strncmp(mask->paths[i], "dns.", 4))
			return true;
	}
	return false;
}

static int update(struct admin_call *c, struct err *err)
{
	const Skerry__V1__UpdateTailnetRequest *req = (const void *)c->req;
	const Skerry__V1__Tailnet *t = req->tailnet;
	Skerry__Internal__V1__TailnetUpdate *b = admin_alloc(c, sizeof(*b));
	char *read_etag = NULL;
	int rc = admin_mask(req->update_mask, t->base.descriptor, mutable_paths, err);

	if (rc < 0)
		return rc;
	skerry__internal__v1__tailnet_update__init(b);
	b->id = c->target.id;
	b->etag = t->etag;
	b->set_name = admin_sets(req->update_mask, "display_name", *t->display_name);
	b->name = t->display_name;
	b->set_dns = admin_sets(req->update_mask, "dns", t->dns);
	b->dns = t->dns;
	b->set_node_expiry = admin_sets(req->update_mask, "node_expiry", t->node_expiry);
	rc = expiry_ms(t->node_expiry, &b->node_expiry_ms, err);
	if (rc >= 0 && !b->set_dns && names_part_of_dns(req->update_mask)) {
		rc = merge_dns(c, req->update_mask, t->dns, &b->dns, &read_etag);
		b->set_dns = true;
		if (rc >= 0 && !*b->etag)
			b->etag = read_etag; /* what was merged must still be so */
	}
	if (rc >= 0 && b->set_dns)
		rc = check_routes(c, b->dns, err);
	c->cmd.tailnet = 0;
	c->cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_TAILNET_UPDATE;
	c->cmd.tailnet_update = b;
	return rc;
}

static int delete (struct admin_call *c, struct err *err)
{
	const Skerry__V1__DeleteTailnetRequest *req = (const void *)c->req;
	Skerry__Internal__V1__TailnetDelete *b = admin_alloc(c, sizeof(*b));

	(void)err;
	skerry__internal__v1__tailnet_delete__init(b);
	b->id = c->target.id;
	b->etag = req->etag;
	b->force = req->force;
	c->cmd.tailnet = 0;
	c->cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_TAILNET_DELETE;
	c->cmd.tailnet_delete = b;
	return 0;
}

#define PATH(m) "/skerry.v1.TailnetService/" m

static const struct admin_method methods[] = {
	{.path = PATH("CreateTailnet"), .kind = RESOURCE_TAILNET, .command = create, .get = get},
	{.path = PATH("GetTailnet"), .kind = RESOURCE_TAILNET, .target = "name", .get = get},
	{.path = PATH("ListTailnets"), .kind = RESOURCE_TAILNET, .next = next},
	{.path = PATH("UpdateTailnet"),
	 .kind = RESOURCE_TAILNET,
	 .target = "tailnet.name",
	 .command = update,
	 .get = get},
	{.path = PATH("DeleteTailnet"),
	 .kind = RESOURCE_TAILNET,
	 .target = "name",
	 .command = delete},
};

void tailnet_service_register(struct api *api, struct rpc_server *server)
{
	admin_register(api, server, methods, ARRAY_LEN(methods));
}
