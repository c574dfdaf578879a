/* AuditService: the chains, the newest entry first. */
#include "api/admin.h"
#include "tailnet/query.h"

static Skerry__V1__AuditEntry *to_message(struct admin_call *c, const AuditRecord *r)
{
	Skerry__V1__AuditEntry *e = admin_alloc(c, sizeof(*e));

	skerry__v1__audit_entry__init(e);
	e->name = admin_name(c, RESOURCE_AUDIT, r->tailnet, r->sequence);
	e->time = admin_time(c, r->time_ms);
	e->actor = r->actor;
	e->action = r->action;
	e->target = r->target;
	e->detail = r->detail;
	e->reason = r->reason;
	e->revision = admin_revision(c, r->revision);
	e->lighthouse_id = r->lighthouse;
	e->hash = r->hash;
	return e;
}

static int get(struct admin_call *c, uint64_t tailnet, uint64_t id, void **ret, struct err *err)
{
	AuditRecord *r;
	int rc = query_audit(c->kv, tailnet, id, &c->records, &r);

	(void)err;
	if (rc >= 0)
		*ret = to_message(c, r);
	return rc;
}

static int next(struct admin_call *c, uint64_t tailnet, uint64_t *pos, void **ret)
{
	AuditRecord *r;
	int rc = query_audit_before(c->kv, tailnet, *pos ? *pos : UINT64_MAX, &c->records, &r);

	if (rc >= 0) {
		*pos = r->sequence;
		*ret = to_message(c, r);
	}
	return rc;
}

#define PATH(m) "/skerry.v1.AuditService/" m

static const struct admin_method methods[] = {
	{.path = PATH("ListAuditEntries"),
	 .kind = RESOURCE_AUDIT,
	 .target = "parent",
	 .system_too = true,
	 .next = next},
	{.path = PATH("GetAuditEntry"),
	 .kind = RESOURCE_AUDIT,
	 .target = "name",
	 .system_too = true,
	 .get = get},
};

void audit_service_register(struct api *api, struct rpc_server *server)
{
	admin_register(api, server, methods, ARRAY_LEN(methods));
}
