/* Page tokens, read levels, update masks, lifetimes: what the methods of administration parse. LIBS: api */
#include "tests/lib/test.h"

#include "api/admin.h"
#include "base/crypto.h"
#include "cluster/cluster.h"

#define PATH "/skerry.v1.UserService/ListUsers"

static void token_round_trip(void **state)
{
	static const uint64_t positions[] = {1, 2, 255, 256, 1ull << 53, UINT64_MAX};
	char text[PAGE_TOKEN_TEXT];
	struct err err = {0};
	uint64_t pos;

	(void)state;
	TEST_TABLE(p, positions)
	{
		page_token_format(PATH, 77, 3, *p, text);
		assert_ok(page_token_parse(text, PATH, 77, 3, &pos, &err));
		assert_true(pos == *p);
	}
}

static void token_of_something_else(void **state)
{
	char text[PAGE_TOKEN_TEXT], bad[PAGE_TOKEN_TEXT];
	struct err err = {0};
	uint64_t pos = 5;

	(void)state;
	page_token_format(PATH, 77, 3, 1000, text);
	assert_err(page_token_parse(text, "/skerry.v1.NodeService/ListNodes", 77, 3, &pos, &err),
		   ERR_INVALID);
	assert_err(page_token_parse(text, PATH, 78, 3, &pos, &err), ERR_INVALID);
	assert_err(page_token_parse(text, PATH, 77, 4, &pos, &err), ERR_INVALID);
	assert_string_equal(err.reason, "PAGE_TOKEN_INVALID");
	for (size_t i = 0; i < strlen(text); i++) {
		strcpy(bad, text);
		bad[i] = bad[i] == 'A' ? 'B' : 'A';
		assert_err(page_token_parse(bad, PATH, 77, 3, &pos, &err), ERR_INVALID);
		strcpy(bad, text);
		bad[i] = '\0';
		assert_err(page_token_parse(bad, PATH, 77, 3, &pos, &err), ERR_INVALID);
	}
	strcpy(bad, text);
	strcat(bad, "A");
	assert_err(page_token_parse(bad, PATH, 77, 3, &pos, &err), ERR_INVALID);
	assert_err(page_token_parse("zzz", PATH, 77, 3, &pos, &err), ERR_INVALID);
	assert_err(page_token_parse("ä ö", PATH, 77, 3, &pos, &err), ERR_INVALID);
	assert_int_equal(pos, 5);
}

static void read_levels(void **state)
{
	static const struct {
		const char *text;
		int rc;
		enum read_level level;
		uint64_t epoch, revision;
	} rows[] = {
		{NULL, 0, READ_LEADER, 0, 0},
		{"leader", 0, READ_LEADER, 0, 0},
		{"local", 0, READ_LOCAL, 0, 0},
		{"revision=12.34", 0, READ_REVISION, 12, 34},
		{"revision=18446744073709551615.1", 0, READ_REVISION, UINT64_MAX, 1},
		{"revision=12", ERR_INVALID, 0, 0, 0},
		{"revision=12.", ERR_INVALID, 0, 0, 0},
		{"revision=.3", ERR_INVALID, 0, 0, 0},
		{"revision=-1.3", ERR_INVALID, 0, 0, 0},
		{"revision=1.3.4", ERR_INVALID, 0, 0, 0},
		{"Local", ERR_INVALID, 0, 0, 0},
		{"", ERR_INVALID, 0, 0, 0},
		{"stale", ERR_INVALID, 0, 0, 0},
	};

	(void)state;
	TEST_TABLE(r, rows)
	{
		struct read_want w = {0};
		struct err err = {0};

		assert_err(read_level_parse(r->text, &w, &err), r->rc);
		if (r->rc < 0) {
			assert_string_equal(err.field, "skerry-read");
			continue;
		}
		assert_int_equal(w.level, r->level);
		assert_true(w.epoch == r->epoch && w.revision == r->revision);
	}
}

static void masks(void **state)
{
	static const char *const may[] = {"display_name", "role", NULL};
	Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
	const ProtobufCMessageDescriptor *d = &skerry__v1__user__descriptor;
	char *paths[2] = {"role", NULL};
	struct err err = {0};

	(void)state;
	assert_ok(admin_mask(NULL, d, may, &err));
	assert_true(admin_sets(NULL, "role", true));
	assert_false(admin_sets(NULL, "role", false));
	assert_true(admin_sets(&mask, "role", true)); /* empty: as none */
	mask.paths = paths;
	mask.n_paths = 1;
	assert_ok(admin_mask(&mask, d, may, &err));
	assert_true(admin_sets(&mask, "role", false));
	assert_false(admin_sets(&mask, "display_name", true));
	paths[0] = "*";
	assert_ok(admin_mask(&mask, d, may, &err));
	assert_true(admin_sets(&mask, "display_name", false));
	paths[0] = "login_name"; /* a field, but not one that changes */
	assert_err(admin_mask(&mask, d, may, &err), ERR_INVALID);
	assert_string_equal(err.field, "update_mask");
	paths[0] = "nonsense";
	assert_err(admin_mask(&mask, d, may, &err), ERR_INVALID);
}

static void lifetimes(void **state)
{
	static const struct {
		int64_t seconds;
		int32_t nanos;
		int rc;
		uint64_t ms;
	} rows[] = {
		{0, 0, 0, 0},
		{1, 0, 0, 1000},
		{86400, 500000000, 0, 86400500},
		{0, 1, ERR_INVALID, 0},
		{0, 999000000, ERR_INVALID, 0},
		{-1, 0, ERR_INVALID, 0},
		{1, -1, ERR_INVALID, 0},
		{INT64_MAX, 0, ERR_INVALID, 0},
	};

	(void)state;
	TEST_TABLE(r, rows)
	{
		Google__Protobuf__Duration d = GOOGLE__PROTOBUF__DURATION__INIT;
		struct err err = {0};
		uint64_t ms = 9;

		d.seconds = r->seconds;
		d.nanos = r->nanos;
		assert_err(admin_lifetime(&d, &ms, &err), r->rc);
		assert_true(ms == (r->rc < 0 ? 9 : r->ms));
	}
}

static void users_of_the_tailnet(void **state)
{
	struct err err = {0};
	uint64_t id;

	(void)state;
	assert_ok(admin_user("tailnets/7/users/3", 7, "auth_key.user", &id, &err));
	assert_int_equal(id, 3);
	assert_err(admin_user("tailnets/8/users/3", 7, "auth_key.user", &id, &err), ERR_INVALID);
	assert_string_equal(err.field, "auth_key.user");
	assert_err(admin_user("tailnets/7/nodes/3", 7, "user", &id, &err), ERR_INVALID);
	assert_err(admin_user("3", 7, "user", &id, &err), ERR_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(token_round_trip), cmocka_unit_test(token_of_something_else),
		cmocka_unit_test(read_levels),      cmocka_unit_test(masks),
		cmocka_unit_test(lifetimes),        cmocka_unit_test(users_of_the_tailnet),
	};

	crypto_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
