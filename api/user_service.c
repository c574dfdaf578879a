/* UserService. */
#include <inttypes.h>
#include <string.h>

#include "api/admin.h"
#include "tailnet/query.h"

static Skerry__V1__User *to_message(struct admin_call *c, const UserRecord *r)
{
	Skerry__V1__User *u = admin_alloc(c, sizeof(*u));

	skerry__v1__user__init(u);
	u->name = admin_name(c, RESOURCE_USER, r->tailnet, r->id);
	u->login_name = r->login_name;
	u->display_name = r->display_name;
	u->role = (Skerry__V1__Role)r->role;
	u->suspended = r->suspended;
	u->create_time = admin_time(c, r->create_ms);
	u->etag = admin_etag(c, r->revision);
	u->revision = admin_revision(c, r->revision);
	return u;
}

static int get(struct admin_call *c, uint64_t tailnet, uint64_t id, void **ret, struct err *err)
{
	UserRecord *r;
	int rc = query_user(c->kv, tailnet, id, &c->records, &r);

	(void)err;
	if (rc >= 0)
		*ret = to_message(c, r);
	return rc;
}

static int next(struct admin_call *c, uint64_t tailnet, uint64_t *pos, void **ret)
{
	UserRecord *r;
	int rc = query_user_next(c->kv, tailnet, *pos, &c->records, &r);

	if (rc >= 0) {
		*pos = r->id;
		*ret = to_message(c, r);
	}
	return rc;
}

/* Nobody gives a role that is above the own one, nor touches who has one. */
static int check_role(struct admin_call *c, int role, const char *field, struct err *err)
{
	if (role <= c->caller.role)
		return 0;
	err_reason(err, ERR_DENIED, "ROLE_TOO_HIGH",
		   "the role of the user is above the one of this credential");
	if (err)
		strncpy(err->field, field, sizeof(err->field) - 1);
	return ERR_DENIED;
}

static int check_present(struct admin_call *c, struct err *err)
{
	UserRecord *r;
	int rc = query_user(c->kv, c->target.tailnet, c->target.id, &c->records, &r);

	return rc < 0 ? rc : check_role(c, (int)r->role, "name", err);
}

/* No role is above an administrator's, and that the user is there is seen by the pre-check. */
static int check_target(struct admin_call *c, struct err *err)
{
	if (c->caller.role < SKERRY__V1__ROLE__ROLE_ADMIN)
		return check_present(c, err);
	c->if_refused = check_present;
	return 0;
}

static int create(struct admin_call *c, struct err *err)
{
	const Skerry__V1__CreateUserRequest *req = (const void *)c->req;
	Skerry__Internal__V1__UserCreate *b = admin_alloc(c, sizeof(*b));
	const Skerry__V1__User *u = req->user;

	if (!u)
		return err_field(err, ERR_INVALID, "user", "user is missing");
	skerry__internal__v1__user_create__init(b);
	b->login_name = u->login_name;
	b->display_name = u->display_name;
	b->role = (uint32_t)u->role;
	c->cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_USER_CREATE;
	c->cmd.user_create = b;
	return check_role(c, u->role, "user.role", err);
}

static const char *const mutable_paths[] = {"display_name", "role", "suspended", NULL};

static int update(struct admin_call *c, struct err *err)
{
	const Skerry__V1__UpdateUserRequest *req = (const void *)c->req;
	Skerry__Internal__V1__UserUpdate *b = admin_alloc(c, sizeof(*b));
	const Skerry__V1__User *u = req->user;
	int rc = admin_mask(req->update_mask, u->base.descriptor, mutable_paths, err);

	if (rc >= 0)
		rc = check_target(c, err);
	if (rc < 0)
		return rc;
	skerry__internal__v1__user_update__init(b);
	b->id = c->target.id;
	b->etag = u->etag;
	b->set_display_name = admin_sets(req->update_mask, "display_name", *u->display_name);
	b->display_name = u->display_name;
	b->set_role = admin_sets(req->update_mask, "role", u->role != 0);
	b->role = (uint32_t)u->role;
	b->set_suspended = admin_sets(req->update_mask, "suspended", u->suspended);
	b->suspended = u->suspended;
	c->cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_USER_UPDATE;
	c->cmd.user_update = b;
	return b->set_role ? check_role(c, u->role, "user.role", err) : 0;
}

static int delete (struct admin_call *c, struct err *err)
{
	const Skerry__V1__DeleteUserRequest *req = (const void *)c->req;
	Skerry__Internal__V1__UserDelete *b = admin_alloc(c, sizeof(*b));

	skerry__internal__v1__user_delete__init(b);
	b->id = c->target.id;
	b->etag = req->etag;
	c->cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_USER_DELETE;
	c->cmd.user_delete = b;
	return check_present(c, err);
}

#define PATH(m) "/skerry.v1.UserService/" m

static const struct admin_method methods[] = {
	{.path = PATH("CreateUser"),
	 .kind = RESOURCE_USER,
	 .target = "parent",
	 .command = create,
	 .get = get},
	{.path = PATH("GetUser"), .kind = RESOURCE_USER, .target = "name", .get = get},
	{.path = PATH("ListUsers"), .kind = RESOURCE_USER, .target = "parent", .next = next},
	{.path = PATH("UpdateUser"),
	 .kind = RESOURCE_USER,
	 .target = "user.name",
	 .command = update,
	 .get = get},
	{.path = PATH("DeleteUser"), .kind = RESOURCE_USER, .target = "name", .command = delete},
};

void user_service_register(struct api *api, struct rpc_server *server)
{
	admin_register(api, server, methods, ARRAY_LEN(methods));
}
