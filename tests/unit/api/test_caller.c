/* Who may call what: the method table against each kind of caller; the forms of credentials. LIBS: api */
#include "tests/lib/test.h"

#include "api/caller.h"
#include "skerry/v1/options.pb-c.h"

#define ROLE(x)  SKERRY__V1__ROLE__ROLE_##x
#define CRED(x)  SKERRY__V1__CREDENTIAL__CREDENTIAL_##x
#define SCOPE(x) SKERRY__V1__SCOPE__SCOPE_##x

static struct caller make(enum caller_kind kind, uint64_t tailnet, int role)
{
	return (struct caller){.kind = kind, .tailnet = tailnet, .role = role, .text = "test"};
}

/* What the table says, written down a second time. */
static int expected(const struct caller *c, const struct proto_method *m)
{
	bool admin = c->kind == CALLER_UNIX || c->kind == CALLER_API_KEY;

	if (m->credential == CRED(NONE))
		return 0;
	if (m->credential == CRED(DEVICE))
		return c->kind == CALLER_DEVICE ? 0 : ERR_UNAUTHENTICATED;
	if (m->credential == CRED(CALLER)) {
		if (!admin)
			return ERR_UNAUTHENTICATED;
		if (c->role < m->role)
			return ERR_DENIED;
		return m->scope == SCOPE(SYSTEM) && c->tailnet ? ERR_DENIED : 0;
	}
	if (!strcmp(m->service, "grpc.health.v1.Health"))
		return 0;
	if (!strncmp(m->service, "grpc.reflection.", 16))
		return c->kind == CALLER_NONE ? ERR_UNAUTHENTICATED : 0;
	return ERR_DENIED;
}

static void every_method_and_caller(void **state)
{
	const struct caller callers[] = {
		make(CALLER_NONE, 0, 0),
		make(CALLER_UNIX, 0, ROLE(ADMIN)),
		make(CALLER_DEVICE, 0, 0),
		make(CALLER_API_KEY, 0, ROLE(VIEWER)),
		make(CALLER_API_KEY, 0, ROLE(OPERATOR)),
		make(CALLER_API_KEY, 0, ROLE(ADMIN)),
		make(CALLER_API_KEY, 7, ROLE(VIEWER)),
		make(CALLER_API_KEY, 7, ROLE(OPERATOR)),
		make(CALLER_API_KEY, 7, ROLE(ADMIN)),
		make(CALLER_LIGHTHOUSE, 0, 0),
		make(CALLER_RELAY, 0, 0),
	};
	unsigned refused = 0, allowed = 0;

	(void)state;
	for (size_t i = 0; i < proto_method_count(); i++) {
		const struct proto_method *m = proto_method_at(i);

		TEST_TABLE(c, callers)
		{
			struct err err = {0};
			int rc = caller_may(c, m, &err);

			if (rc != expected(c, m))
				TEST_FAIL("%s, kind %d, tailnet %d, role %d: %s", m->path, c->kind,
					  (int)c->tailnet, c->role, err_name(rc));
			if (rc < 0) {
				refused++;
				assert_int_equal(err.code, rc);
				assert_true(err.msg[0]);
			} else {
				allowed++;
			}
		}
	}
	assert_true(refused > 100 && allowed > 100);
}

/* Guards the table itself: a slip in a .proto file would make every test above agree with it. */
static void what_the_table_must_say(void **state)
{
	static const struct {
		const char *path;
		int credential, role, scope;
		bool write;
	} rows[] = {
		{"/skerry.v1.AgentService/Register", CRED(NONE), 0, 0, true},
		{"/skerry.v1.AgentService/Watch", CRED(DEVICE), 0, 0, false},
		{"/skerry.v1.ApiKeyService/CreateApiKey", CRED(CALLER), ROLE(ADMIN), SCOPE(TAILNET),
		 true},
		{"/skerry.v1.AuthKeyService/CreateAuthKey", CRED(CALLER), ROLE(ADMIN),
		 SCOPE(TAILNET), true},
		{"/skerry.v1.NodeService/ApproveNode", CRED(CALLER), ROLE(OPERATOR), SCOPE(TAILNET),
		 true},
		{"/skerry.v1.ClusterService/CreateJoinToken", CRED(CALLER), ROLE(ADMIN),
		 SCOPE(SYSTEM), true},
		{"/skerry.v1.ClusterService/DeleteMember", CRED(CALLER), ROLE(ADMIN), SCOPE(SYSTEM),
		 true},
		{"/skerry.v1.TailnetService/ListTailnets", CRED(CALLER), ROLE(VIEWER),
		 SCOPE(SYSTEM), false},
	};

	(void)state;
	TEST_TABLE(r, rows)
	{
		const struct proto_method *m = proto_method_find(r->path);

		assert_non_null(m);
		assert_int_equal(m->credential, r->credential);
		assert_int_equal(m->role, r->role);
		assert_int_equal(m->scope, r->scope);
		assert_int_equal(m->write, r->write);
	}
	for (size_t i = 0; i < proto_method_count(); i++) {
		const struct proto_method *m = proto_method_at(i);

		if (m->credential == CRED(CALLER) && m->write)
			assert_true(m->role >= ROLE(OPERATOR));
		if (m->credential == CRED(NONE))
			assert_string_equal(m->path, "/skerry.v1.AgentService/Register");
	}
}

static void scope(void **state)
{
	struct caller system = make(CALLER_API_KEY, 0, ROLE(VIEWER));
	struct caller seven = make(CALLER_API_KEY, 7, ROLE(ADMIN));
	struct err err = {0};

	(void)state;
	assert_ok(caller_in_scope(&system, 0, &err));
	assert_ok(caller_in_scope(&system, 7, &err));
	assert_ok(caller_in_scope(&seven, 7, &err));
	assert_err(caller_in_scope(&seven, 8, &err), ERR_DENIED);
	assert_string_equal(err.reason, "OUT_OF_SCOPE");
	assert_err(caller_in_scope(&seven, 0, &err), ERR_DENIED);
}

static void bearer(void **state)
{
	static const struct {
		const char *in, *out;
	} rows[] = {
		{"Bearer sk-api-1", "sk-api-1"},
		{"bearer   sk-api-1", "sk-api-1"},
		{"BEARER x y", "x y"},
		{"Bearer", NULL},
		{"Bearer ", NULL},
		{"Bearersk", NULL},
		{"Basic abc", NULL},
		{"", NULL},
	};

	(void)state;
	TEST_TABLE(r, rows)
	{
		const char *got = caller_bearer(r->in);

		if (r->out)
			assert_string_equal(got, r->out);
		else
			assert_null(got);
	}
}

static void command_of_each_kind(void **state)
{
	Skerry__Internal__V1__Command cmd = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Skerry__Internal__V1__Actor actor;
	struct caller c = make(CALLER_API_KEY, 7, ROLE(ADMIN));
	char name[64];

	(void)state;
	c.id = 9;
	strcpy(c.text, "api-key:9");
	strcpy(c.source, "192.0.2.1:4");
	caller_fill_command(&c, &cmd, &actor, name);
	assert_int_equal(actor.kind, SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_API_KEY);
	assert_int_equal(actor.id, 9);
	assert_string_equal(actor.source, "192.0.2.1:4");
	assert_string_equal(cmd.caller, "api-key:9");
	c.kind = CALLER_UNIX;
	caller_fill_command(&c, &cmd, &actor, name);
	assert_int_equal(actor.kind, SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_UNIX);
	c.kind = CALLER_NONE;
	caller_fill_command(&c, &cmd, &actor, name);
	assert_int_equal(actor.kind, SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_ANONYMOUS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_method_and_caller),
		cmocka_unit_test(what_the_table_must_say),
		cmocka_unit_test(scope),
		cmocka_unit_test(bearer),
		cmocka_unit_test(command_of_each_kind),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
