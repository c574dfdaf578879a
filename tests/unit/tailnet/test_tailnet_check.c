/* The check of a whole state notices one record that is missing, altered or too many. LIBS: tailnet */
#include "base/enc.h"
#include "tests/unit/tailnet/world.h"

/* Something in every table that is checked. */
static void fill(struct world *w)
{
	Skerry__Internal__V1__JoinTokenCreate *token;
	Skerry__Internal__V1__PendingCreate *pending;
	Skerry__Internal__V1__ApiKeyCreate *api;
	uint64_t node;
	Command *c;

	world_open_two(w, 11);
	node = world_add(w, 1, 1, "a");
	world_do(w, world_session(w, 1, node, 5, false, false));
	world_do(w, world_key(w, 1, &(struct key_form){.user = 2}));
	node = world_add(w, 1, 2, "b");
	c = world_command(w, 1);
	WBODY(w, c, NODE_DELETE, node_delete, NodeDelete)->id = node;
	c->caller = (char *)"somebody";
	c->request_id = (char *)"once";
	c->request_hash = world_fill(w, 32, 1);
	world_do(w, c);
	c = world_command(w, 0);
	token = WBODY(w, c, JOIN_TOKEN_CREATE, join_token_create, JoinTokenCreate);
	token->credential = WNEW(w, Skerry__Internal__V1__Credential, credential);
	token->credential->id = 77;
	token->credential->hash_kind = SKERRY__INTERNAL__V1__HASH_KIND__HASH_KIND_SHA256;
	token->credential->hash = world_fill(w, 32, 77);
	world_do(w, c);
	c = world_command(w, 1);
	api = WBODY(w, c, API_KEY_CREATE, api_key_create, ApiKeyCreate);
	api->credential = token->credential;
	api->role = 1;
	world_do(w, c);
	c = world_command(w, 1);
	pending = WBODY(w, c, PENDING_CREATE, pending_create, PendingCreate);
	pending->code = (char *)"CODE000001";
	pending->facts = world_facts(w, 9, "x");
	world_do(w, c);
	assert_ok(tailnet_check(&w->kv[0], NULL));
}

/* In portions of a few records, as the scrub does it: the same verdict. */
static int in_portions(const struct kv *kv, struct err *err)
{
	struct tailnet_check *c = tailnet_check_new(kv);
	unsigned steps = 0;
	bool done = false;
	int r = 0;

	while (r == 0 && !done) {
		r = tailnet_check_step(c, 3, &done, err);
		assert_true(++steps < 10000);
	}
	assert_true(r != 0 || steps > 10);
	tailnet_check_free(c);
	return r;
}

static void noticed(struct world *w, enum table table, const char *what)
{
	struct err a = {0}, b = {0};

	if (tailnet_check(&w->kv[0], &a) != ERR_CORRUPT) {
		TEST_FAIL("%s record of %s is not noticed", what, table_name(table));
	}
	assert_err(in_portions(&w->kv[0], &b), ERR_CORRUPT);
	assert_string_equal(a.msg, b.msg);
}

/* The first record of the table. */
static void first(struct world *w, enum table table, struct skey *ret, struct slice *ret_value)
{
	struct slice k;

	skey_init(ret, table);
	assert_ok(kv_seek(&w->kv[0], skey_slice(ret), &k, ret_value));
	if (skey_table(k) != table) {
		TEST_FAIL("no record of %s", table_name(table));
	}
	skey_bytes(ret, table, (const uint8_t *)k.data + 1, k.len - 1);
}

static void test_right(void **state UNUSED)
{
	struct world w;

	fill(&w);
	assert_ok(in_portions(&w.kv[0], NULL));
	world_close(&w);
}

static void test_missing(void **state UNUSED)
{
	static const enum table tables[] = {
		TABLE_NODE,           TABLE_USER,         TABLE_PRESENCE,
		TABLE_ENDPOINTS,      TABLE_AUTH_KEY,     TABLE_API_KEY,
		TABLE_PENDING,        TABLE_JOIN_TOKEN,   TABLE_BY_NODE_KEY,
		TABLE_BY_MACHINE,     TABLE_BY_ADDRESS,   TABLE_BY_NODE_NAME,
		TABLE_BY_LOGIN,       TABLE_BY_DISCO_KEY, TABLE_BY_TAILNET_NAME,
		TABLE_BY_AUTH_KEY,    TABLE_BY_API_KEY,   TABLE_BY_CODE,
		TABLE_BY_PENDING_KEY, TABLE_NODE_OF_USER, TABLE_KEY_OF_USER,
		TABLE_SESSION,        TABLE_CHANGE,       TABLE_TOMBSTONE,
		TABLE_HISTORY,        TABLE_AUDIT,        TABLE_HEAD,
		TABLE_RESTING,        TABLE_REQUEST,
	};

	TEST_TABLE(t, tables)
	{
		struct slice v;
		struct world w;
		struct skey k;

		fill(&w);
		first(&w, *t, &k, &v);
		assert_ok(kv_del(&w.kv[0], skey_slice(&k)));
		noticed(&w, *t, "a missing");
		world_close(&w);
	}
}

/* An index that leads to what is not there, or where a record does not lead back. */
static void test_forged(void **state UNUSED)
{
	for (enum table t = TABLE_BY_TAILNET_NAME; t <= TABLE_SESSION; t++) {
		struct slice v;
		struct world w;
		struct skey k;

		fill(&w);
		first(&w, t, &k, &v);
		k.data[k.len - 1] ^= 0x80;
		assert_ok(kv_put(&w.kv[0], skey_slice(&k), v));
		noticed(&w, t, "a forged");
		world_close(&w);
	}
}

static void test_altered(void **state UNUSED)
{
	for (enum table t = TABLE_BY_TAILNET_NAME; t <= TABLE_BY_PENDING_KEY; t++) {
		uint8_t altered[16];
		struct slice v;
		struct world w;
		struct skey k;

		fill(&w);
		first(&w, t, &k, &v);
		assert_int_equal(v.len, sizeof(altered));
		memcpy(altered, v.data, v.len);
		altered[15] ^= 1;
		assert_ok(kv_put(&w.kv[0], skey_slice(&k), (struct slice){altered, 16}));
		noticed(&w, t, "an altered");
		world_close(&w);
	}
}

/* The first deadline of the kind. */
static void first_deadline(struct world *w, enum deadline kind, struct skey *ret)
{
	struct slice k, v;

	skey_init(ret, TABLE_DEADLINE);
	while (kv_next(&w->kv[0], skey_slice(ret), &k, &v) == 0 &&
	       skey_table(k) == TABLE_DEADLINE) {
		skey_bytes(ret, TABLE_DEADLINE, (const uint8_t *)k.data + 1, k.len - 1);
		if (ret->data[9] == kind) {
			return;
		}
	}
	TEST_FAIL("no deadline of kind %d", (int)kind);
}

/* One that is missing never comes; one that is left over does nothing, unless its work asks nothing. */
static void test_deadlines(void **state UNUSED)
{
	static const struct {
		enum deadline kind;
		bool early;
	} cases[] = {
		{DEADLINE_AUTH_KEY, false},  {DEADLINE_API_KEY, false}, {DEADLINE_NODE, false},
		{DEADLINE_PENDING, false},   {DEADLINE_REST, false},    {DEADLINE_REQUEST, true},
		{DEADLINE_JOIN_TOKEN, true},
	};

	TEST_TABLE(t, cases)
	{
		struct world w;
		struct skey k;

		fill(&w);
		first_deadline(&w, t->kind, &k);
		assert_ok(kv_del(&w.kv[0], skey_slice(&k)));
		noticed(&w, TABLE_DEADLINE, "a missing");
		world_close(&w);
		if (t->early) {
			fill(&w);
			first_deadline(&w, t->kind, &k);
			k.data[8] ^= 1;
			assert_ok(kv_put(&w.kv[0], skey_slice(&k), (struct slice){"", 0}));
			noticed(&w, TABLE_DEADLINE, "a forged");
			world_close(&w);
		}
	}
	for (int kind = 0; kind < 14; kind += 13) {
		struct world w;
		struct skey k;

		fill(&w);
		first_deadline(&w, DEADLINE_NODE, &k);
		k.data[9] = (uint8_t)kind;
		assert_ok(kv_put(&w.kv[0], skey_slice(&k), (struct slice){"", 0}));
		noticed(&w, TABLE_DEADLINE, "a senseless");
		world_close(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_right),     cmocka_unit_test(test_missing),
		cmocka_unit_test(test_forged),    cmocka_unit_test(test_altered),
		cmocka_unit_test(test_deadlines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
