/* AuthKeyService and ApiKeyService. */
#include <string.h>

#include "api/admin.h"
#include "tailnet/query.h"

/* ---- auth keys ---- */

static Skerry__V1__AuthKey *auth_message(struct admin_call *c, const AuthKeyRecord *r)
{
	Skerry__V1__AuthKey *k = admin_alloc(c, sizeof(*k));

	skerry__v1__auth_key__init(k);
	k->name = admin_name(c, RESOURCE_AUTH_KEY, r->tailnet, r->id);
	if (r->user)
		k->user = admin_name(c, RESOURCE_USER, r->tailnet, r->user);
	k->reusable = r->reusable;
	k->ephemeral = r->ephemeral;
	k->needs_approval = !r->preapproved;
	k->n_tags = r->n_tags;
	k->tags = r->tags;
	k->description = r->description;
	k->create_time = admin_time(c, r->create_ms);
	k->expire_time = admin_time(c, r->expire_ms);
	k->use_time = admin_time(c, r->use_ms);
	k->use_count = r->use_count;
	k->etag = admin_etag(c, r->revision);
	k->revision = admin_revision(c, r->revision);
	return k;
}

static int auth_get(struct admin_call *c, uint64_t tailnet, uint64_t id, void **ret,
		    struct err *err)
{
	AuthKeyRecord *r;
	int rc = query_auth_key(c->kv, tailnet, id, &c->records, &r);

	(void)err;
	if (rc >= 0)
		*ret = auth_message(c, r);
	return rc;
}

static int auth_next(struct admin_call *c, uint64_t tailnet, uint64_t *pos, void **ret)
{
	AuthKeyRecord *r;
	int rc = query_auth_key_next(c->kv, tailnet, *pos, &c->records, &r);

	if (rc >= 0) {
		*pos = r->id;
		*ret = auth_message(c, r);
	}
	return rc;
}

static int auth_create(struct admin_call *c, struct err *err)
{
	static const Skerry__V1__AuthKey plain = SKERRY__V1__AUTH_KEY__INIT;
	const Skerry__V1__CreateAuthKeyRequest *req = (const void *)c->req;
	const Skerry__V1__AuthKey *k = req->auth_key ? req->auth_key : &plain;
	Skerry__Internal__V1__AuthKeyCreate *b = admin_alloc(c, sizeof(*b));
	int rc;

	skerry__internal__v1__auth_key_create__init(b);
	b->reusable = k->reusable;
	b->ephemeral = k->ephemeral;
	b->preapproved = !k->needs_approval;
	b->n_tags = k->n_tags;
	b->tags = k->tags;
	b->description = k->description;
	rc = admin_lifetime(req->lifetime, &b->lifetime_ms, err);
	if (rc >= 0 && *k->user)
		rc = admin_user(k->user, c->target.tailnet, "auth_key.user", &b->user, err);
	else if (rc >= 0 && !k->n_tags)
		rc = admin_default_user(c, c->target.tailnet, "auth_key.user", &b->user, err);
	b->credential = admin_new_key(c, KEY_AUTH);
	if (!req->no_pin) {
		c->key.has_pin = true;
		c->key.pin.cluster_id = cluster_id(c->api->cluster);
		cluster_ca_pin(c->api->cluster, c->key.pin.spki_sha256);
	}
	c->cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_AUTH_KEY_CREATE;
	c->cmd.auth_key_create = b;
	return rc;
}

static void auth_secret(struct admin_call *c, void *msg, char *text)
{
	(void)c;
	((Skerry__V1__AuthKey *)msg)->secret = text;
}

static int auth_delete(struct admin_call *c, struct err *err)
{
	const Skerry__V1__DeleteAuthKeyRequest *req = (const void *)c->req;
	Skerry__Internal__V1__AuthKeyDelete *b = admin_alloc(c, sizeof(*b));

	(void)err;
	skerry__internal__v1__auth_key_delete__init(b);
	b->id = c->target.id;
	b->etag = req->etag;
	c->cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_AUTH_KEY_DELETE;
	c->cmd.auth_key_delete = b;
	return 0;
}

#define AUTH(m) "/skerry.v1.AuthKeyService/" m

static const struct admin_method auth_methods[] = {
	{.path = AUTH("CreateAuthKey"),
	 .kind = RESOURCE_AUTH_KEY,
	 .target = "parent",
	 .command = auth_create,
	 .get = auth_get,
	 .secret = auth_secret},
	{.path = AUTH("GetAuthKey"), .kind = RESOURCE_AUTH_KEY, .target = "name", .get = auth_get},
	{.path = AUTH("ListAuthKeys"),
	 .kind = RESOURCE_AUTH_KEY,
	 .target = "parent",
	 .next = auth_next},
	{.path = AUTH("DeleteAuthKey"),
	 .kind = RESOURCE_AUTH_KEY,
	 .target = "name",
	 .command = auth_delete},
};

void auth_key_service_register(struct api *api, struct rpc_server *server)
{
	admin_register(api, server, auth_methods, ARRAY_LEN(auth_methods));
}

/* ---- API keys ---- */

static Skerry__V1__ApiKey *api_message(struct admin_call *c, const ApiKeyRecord *r)
{
	Skerry__V1__ApiKey *k = admin_alloc(c, sizeof(*k));

	skerry__v1__api_key__init(k);
	k->name = admin_name(c, RESOURCE_API_KEY, r->tailnet, r->id);
	k->role = (Skerry__V1__Role)r->role;
	k->description = r->description;
	k->create_time = admin_time(c, r->create_ms);
	k->expire_time = admin_time(c, r->expire_ms);
	k->etag = admin_etag(c, r->revision);
	if (r->user)
		k->user = admin_name(c, RESOURCE_USER, r->tailnet, r->user);
	k->revision = admin_revision(c, r->revision);
	return k;
}

static int api_get(struct admin_call *c, uint64_t tailnet, uint64_t id, void **ret, struct err *err)
{
	ApiKeyRecord *r;
	int rc = query_api_key(c->kv, tailnet, id, &c->records, &r);

	(void)err;
	if (rc >= 0)
		*ret = api_message(c, r);
	return rc;
}

static int api_next(struct admin_call *c, uint64_t tailnet, uint64_t *pos, void **ret)
{
	ApiKeyRecord *r;
	int rc = query_api_key_next(c->kv, tailnet, *pos, &c->records, &r);

	if (rc >= 0) {
		*pos = r->id;
		*ret = api_message(c, r);
	}
	return rc;
}

static int api_create(struct admin_call *c, struct err *err)
{
	const Skerry__V1__CreateApiKeyRequest *req = (const void *)c->req;
	Skerry__Internal__V1__ApiKeyCreate *b = admin_alloc(c, sizeof(*b));
	const Skerry__V1__ApiKey *k = req->api_key;
	int rc;

	if (!k)
		return err_field(err, ERR_INVALID, "api_key",
				 "api_key is missing: it says the role");
	rc = admin_lifetime(req->lifetime, &b->lifetime_ms, err);
	if (rc < 0)
		return rc;
	if ((int)k->role > c->caller.role) {
		err_reason(err, ERR_DENIED, "ROLE_TOO_HIGH",
			   "the role of the key would be above the one of this credential");
		strcpy(err->field, "api_key.role");
		return ERR_DENIED;
	}
	skerry__internal__v1__api_key_create__init(b);
	rc = admin_lifetime(req->lifetime, &b->lifetime_ms, err);
	b->role = (uint32_t)k->role;
	b->description = k->description;
	/* The key of a user makes keys of that user: they stop with it. */
	if (c->caller.user && c->caller.tailnet == c->target.tailnet)
		b->user = c->caller.user;
	if (rc >= 0 && *k->user)
		rc = admin_user(k->user, c->target.tailnet, "api_key.user", &b->user, err);
	b->credential = admin_new_key(c, KEY_API);
	c->cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_API_KEY_CREATE;
	c->cmd.api_key_create = b;
	return rc;
}

static void api_secret(struct admin_call *c, void *msg, char *text)
{
	(void)c;
	((Skerry__V1__ApiKey *)msg)->secret = text;
}

static int api_delete(struct admin_call *c, struct err *err)
{
	const Skerry__V1__DeleteApiKeyRequest *req = (const void *)c->req;
	Skerry__Internal__V1__ApiKeyDelete *b = admin_alloc(c, sizeof(*b));

	(void)err;
	skerry__internal__v1__api_key_delete__init(b);
	b->id = c->target.id;
	b->etag = req->etag;
	c->cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_API_KEY_DELETE;
	c->cmd.api_key_delete = b;
	return 0;
}

#define API(m) "/skerry.v1.ApiKeyService/" m

static const struct admin_method api_methods[] = {
	{.path = API("CreateApiKey"),
	 .kind = RESOURCE_API_KEY,
	 .target = "parent",
	 .system_too = true,
	 .command = api_create,
	 .get = api_get,
	 .secret = api_secret},
	{.path = API("GetApiKey"),
	 .kind = RESOURCE_API_KEY,
	 .target = "name",
	 .system_too = true,
	 .get = api_get},
	{.path = API("ListApiKeys"),
	 .kind = RESOURCE_API_KEY,
	 .target = "parent",
	 .system_too = true,
	 .next = api_next},
	{.path = API("DeleteApiKey"),
	 .kind = RESOURCE_API_KEY,
	 .target = "name",
	 .system_too = true,
	 .command = api_delete},
};

void api_key_service_register(struct api *api, struct rpc_server *server)
{
	admin_register(api, server, api_methods, ARRAY_LEN(api_methods));
}
