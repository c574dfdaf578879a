/* Changes of who votes and who is a member: their record from beginning to end. LIBS: tailnet */
#include "tests/unit/tailnet/world.h"

#define KIND(x)    SKERRY__INTERNAL__V1__CHANGE_KIND__CHANGE_KIND_##x
#define STEP(x)    SKERRY__INTERNAL__V1__CHANGE_STEP__CHANGE_STEP_##x
#define OUTCOME(x) SKERRY__INTERNAL__V1__CHANGE_OUTCOME__CHANGE_OUTCOME_##x
#define MEMBER(x)  SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_##x

typedef Skerry__Internal__V1__ChangeBegin ChangeBegin;
typedef Skerry__Internal__V1__Credential Credential;

static Credential *credential(struct world *w, uint64_t id)
{
	Credential *c = WNEW(w, Credential, credential);

	c->id = id;
	c->hash_kind = SKERRY__INTERNAL__V1__HASH_KIND__HASH_KIND_SHA256;
	c->hash = world_fill(w, 32, id);
	return c;
}

static uint64_t *ids(struct world *w, const char *letters, size_t *ret_n)
{
	uint64_t *list = world_alloc(w, (strlen(letters) + 1) * sizeof(*list));

	for (*ret_n = 0; letters[*ret_n] != '\0'; (*ret_n)++) {
		list[*ret_n] = (uint64_t)(letters[*ret_n] - '0');
	}
	return list;
}

/* Lighthouses by their digit. */
static Command *begin(struct world *w, int kind, const char *enter, const char *leave)
{
	Command *c = world_command(w, 0);
	ChangeBegin *b = WBODY(w, c, CHANGE_BEGIN, change_begin, ChangeBegin);

	b->kind = kind;
	b->enter = ids(w, enter, &b->n_enter);
	b->leave = ids(w, leave, &b->n_leave);
	return c;
}

static Command *progress(struct world *w, uint64_t id, int step, bool cancel)
{
	Command *c = world_command(w, 0);
	Skerry__Internal__V1__ChangeProgress *p =
		WBODY(w, c, CHANGE_PROGRESS, change_progress, ChangeProgress);

	p->id = id;
	p->step = step;
	p->cancel = cancel;
	return c;
}

static Command *end(struct world *w, uint64_t id, int outcome)
{
	Command *c = world_command(w, 0);
	Skerry__Internal__V1__ChangeEnd *e = WBODY(w, c, CHANGE_END, change_end, ChangeEnd);

	e->id = id;
	e->outcome = outcome;
	return c;
}

static Command *kind(struct world *w, uint64_t member, int to)
{
	Command *c = world_command(w, 0);
	Skerry__Internal__V1__MemberSetKind *k =
		WBODY(w, c, MEMBER_SET_KIND, member_set_kind, MemberSetKind);

	k->id = member;
	k->kind = to;
	return c;
}

static Command *join(struct world *w, uint64_t token, uint64_t member)
{
	Command *c = world_command(w, 0);
	Skerry__Internal__V1__MemberJoin *j = WBODY(w, c, MEMBER_JOIN, member_join, MemberJoin);

	j->token_id = token;
	j->token_verified = true;
	j->member = world_member(w, member);
	j->member->feature_max = 2;
	j->member->join_request_hash = world_fill(w, 32, member);
	return c;
}

static void add(struct world *w, uint64_t member, int to)
{
	Command *c = world_command(w, 0);

	WBODY(w, c, JOIN_TOKEN_CREATE, join_token_create, JoinTokenCreate)->credential =
		credential(w, 500 + member);
	world_do(w, c);
	world_do(w, join(w, 500 + member, member));
	if (to != MEMBER(STANDBY)) {
		world_do(w, kind(w, member, to));
	}
}

/* Level 2, lighthouse 1 alone; further ones as the letters say: V voter, S standby. */
static void open_with(struct world *w, uint64_t seed, const char *others)
{
	Command *c;

	world_open(w, seed);
	c = world_bootstrap(w);
	c->bootstrap->feature_level = 2;
	c->bootstrap->member->feature_max = 2;
	world_do(w, c);
	for (size_t i = 0; others[i] != '\0'; i++) {
		add(w, i + 2, others[i] == 'V' ? MEMBER(VOTER) : MEMBER(STANDBY));
	}
}

static MembershipChange *change(struct world *w, bool last)
{
	MembershipChange *c;

	return query_membership(&w->kv[0], last, &w->arena, &c) == 0 ? c : NULL;
}

static MemberRecord *member(struct world *w, uint64_t id)
{
	MemberRecord *m;

	assert_ok(query_member(&w->kv[0], id, &w->arena, &m));
	return m;
}

static void test_level(void **state UNUSED)
{
	struct world w;

	world_open_two(&w, 1);
	world_refuse(&w, begin(&w, KIND(REMOVE), "", "1"), 9, "FEATURE_LEVEL");
	assert_contains(w.r.reply.message, "finalize-upgrade");
	world_close(&w);
}

static void test_refusals(void **state UNUSED)
{
	static const struct {
		const char *others;
		int kind;
		const char *enter, *leave;
		int code;
		const char *reason;
	} cases[] = {
		{"", KIND(REMOVE), "", "1", 9, "LAST_VOTER"},
		{"S", KIND(REMOVE), "", "1", 9, "LAST_VOTER"},
		{"S", KIND(DEMOTE), "", "1", 9, "LAST_VOTER"},
		{"VV", KIND(REMOVE), "", "123", 9, "LAST_VOTER"},
		{"VV", KIND(REMOVE), "", "7", 5, "MEMBER_NOT_FOUND"},
		{"VV", KIND(PROMOTE), "7", "", 5, "MEMBER_NOT_FOUND"},
		{"VV", KIND(PROMOTE), "2", "", 9, "ALREADY_VOTER"},
		{"VVS", KIND(DEMOTE), "", "4", 9, "ALREADY_STANDBY"},
		{"VV", KIND(DEMOTE), "", "2", 9, "EVEN_VOTERS"},
		{"VVS", KIND(PROMOTE), "4", "", 9, "EVEN_VOTERS"},
		{"VVVVS", KIND(PROMOTE), "6", "", 9, "VOTERS_FULL"},
		{"VVVVSS", KIND(PROMOTE), "67", "", 9, "VOTERS_FULL"},
		{"VVSS", KIND(PROMOTE), "44", "", 3, "NAMED_TWICE"},
		{"VVV", KIND(REMOVE), "", "44", 3, "NAMED_TWICE"},
		{"VVSS", KIND(REPLACE), "4", "5", 9, "NOT_A_VOTER"},
		{"VV", KIND(REPLACE), "", "3", 3, ""}, /* neither standby nor token */
		{"VV", KIND(REPLACE), "", "23", 3, ""},
		{"VV", KIND(PROMOTE), "", "", 3, ""},
		{"VV", KIND(REMOVE), "", "", 3, ""},
		{"VV", KIND(UNSPECIFIED), "", "2", 3, ""},
		{"VVVVVVV", KIND(REMOVE), "", "234567", 3, ""}, /* too many at once */
	};

	TEST_TABLE(c, cases)
	{
		struct world w;
		int code;

		open_with(&w, 7, c->others);
		code = world_apply(&w, begin(&w, c->kind, c->enter, c->leave));
		if (code != c->code || strcmp(w.r.reply.reason, c->reason) != 0) {
			TEST_FAIL("%s kind %d in %s out %s: %d %s (%s)", c->others, c->kind,
				  c->enter, c->leave, code, w.r.reply.reason, w.r.reply.message);
		}
		assert_true(w.r.reply.message[0] != '\0');
		assert_null(change(&w, false));
		world_close(&w);
	}
}

static void test_demote(void **state UNUSED)
{
	MembershipChange *c;
	struct world w;
	uint64_t id;

	open_with(&w, 2, "VVS");
	id = world_do(&w, begin(&w, KIND(DEMOTE), "4", "2"));
	c = change(&w, false);
	assert_int_equal(c->id, id);
	assert_int_equal(c->step, STEP(CATCH_UP));
	assert_int_equal(c->enter[0], 4);
	assert_string_equal(c->actor, "system");
	assert_true(member(&w, 2)->keep_standby);
	/* One at a time, and the answer names it. */
	world_refuse(&w, begin(&w, KIND(REMOVE), "", "3"), 9, "CHANGE_IN_FLIGHT");
	assert_contains(w.r.reply.message, "demote lh2");
	/* The step is kept, with the time since when. */
	w.now += 5000;
	world_do(&w, progress(&w, id, STEP(PROMOTE), false));
	c = change(&w, false);
	assert_int_equal(c->step, STEP(PROMOTE));
	assert_int_equal(c->step_ms, w.now);
	assert_int_equal(c->start_ms, w.now - 5000);
	w.now += 5000;
	world_do(&w, progress(&w, id, STEP(PROMOTE), false));
	assert_int_equal(change(&w, false)->step_ms, w.now - 5000);
	world_refuse(&w, progress(&w, id + 1, STEP(DEMOTE), false), 9, "NO_CHANGE");
	/* It ends when all is as it was wanted, not before. */
	world_refuse(&w, end(&w, id, OUTCOME(DONE)), 9, "CHANGE_RUNS");
	world_refuse(&w, end(&w, id, OUTCOME(CANCELLED)), 9, "CHANGE_RUNS");
	world_refuse(&w, end(&w, id, OUTCOME(EXPIRED)), 9, "CHANGE_RUNS");
	world_do(&w, kind(&w, 4, MEMBER(VOTER)));
	world_refuse(&w, end(&w, id, OUTCOME(DONE)), 9, "CHANGE_RUNS");
	world_do(&w, kind(&w, 2, MEMBER(STANDBY)));
	world_do(&w, end(&w, id, OUTCOME(DONE)));
	assert_null(change(&w, false));
	assert_int_equal(change(&w, true)->outcome, OUTCOME(DONE));
	world_refuse(&w, end(&w, id, OUTCOME(DONE)), 9, "NO_CHANGE");
	/* It stays a standby until somebody says otherwise. */
	assert_true(member(&w, 2)->keep_standby);
	world_do(&w, begin(&w, KIND(REMOVE), "2", "3"));
	assert_false(member(&w, 2)->keep_standby);
	world_close(&w);
}

static void test_cancel(void **state UNUSED)
{
	struct world w;
	uint64_t id;

	open_with(&w, 3, "VVS");
	id = world_do(&w, begin(&w, KIND(DEMOTE), "4", "2"));
	world_do(&w, progress(&w, id, 0, true));
	assert_true(change(&w, false)->cancelled);
	assert_int_equal(change(&w, false)->step, STEP(UNDO));
	world_refuse(&w, progress(&w, id, 0, true), 9, "CHANGE_CANCELLED");
	world_do(&w, end(&w, id, OUTCOME(CANCELLED)));
	assert_int_equal(change(&w, true)->outcome, OUTCOME(CANCELLED));
	/* As before: a voter that is demoted some other day by a failure of raft may come back. */
	assert_false(member(&w, 2)->keep_standby);
	world_close(&w);
}

static void test_replace(void **state UNUSED)
{
	JoinTokenRecord *t;
	struct world w;
	Command *c;
	uint64_t id;

	open_with(&w, 4, "VV");
	c = begin(&w, KIND(REPLACE), "", "3");
	c->change_begin->credential = credential(&w, 90);
	id = world_do(&w, c);
	assert_int_equal(change(&w, false)->step, STEP(JOIN));
	assert_int_equal(change(&w, false)->expire_ms, w.now + LIM_JOIN_TOKEN_MS);
	assert_ok(query_join_token(&w.kv[0], 90, w.now, &w.arena, &t));
	assert_int_equal(t->change_id, id);
	world_refuse(&w, end(&w, id, OUTCOME(DONE)), 9, "CHANGE_RUNS");
	world_refuse(&w, end(&w, id, OUTCOME(EXPIRED)), 9, "CHANGE_RUNS");
	/* The host that was set up anew may have the name of the old one, nobody else's. */
	c = join(&w, 90, 8);
	c->member_join->member->name = "lh2";
	world_refuse(&w, c, 6, "MEMBER_NAME_TAKEN");
	c->member_join->member->name = "lh3";
	world_do(&w, c);
	assert_int_equal(change(&w, false)->step, STEP(CATCH_UP));
	assert_int_equal(change(&w, false)->n_enter, 1);
	assert_int_equal(change(&w, false)->enter[0], 8);
	world_do(&w, c); /* the repetition changes nothing */
	assert_int_equal(change(&w, false)->n_enter, 1);
	world_refuse(&w, end(&w, id, OUTCOME(DONE)), 9, "CHANGE_RUNS");
	world_do(&w, kind(&w, 3, MEMBER(STANDBY)));
	world_do(&w, kind(&w, 3, MEMBER(REMOVED)));
	world_refuse(&w, end(&w, id, OUTCOME(DONE)), 9, "CHANGE_RUNS");
	world_do(&w, kind(&w, 8, MEMBER(VOTER)));
	world_do(&w, end(&w, id, OUTCOME(DONE)));

	/* Nobody comes: it ends, and the token is worth nothing. */
	c = begin(&w, KIND(REPLACE), "", "2");
	c->change_begin->credential = credential(&w, 91);
	c->change_begin->lifetime_ms = 60000;
	id = world_do(&w, c);
	w.now += 60000;
	world_do(&w, end(&w, id, OUTCOME(EXPIRED)));
	world_refuse(&w, join(&w, 91, 9), 16, "TOKEN_UNKNOWN");
	/* Given up: the same before its time. */
	c = begin(&w, KIND(REPLACE), "", "2");
	c->change_begin->credential = credential(&w, 92);
	id = world_do(&w, c);
	world_do(&w, progress(&w, id, 0, true));
	world_refuse(&w, join(&w, 92, 9), 16, "TOKEN_UNKNOWN");
	world_do(&w, end(&w, id, OUTCOME(CANCELLED)));
	world_refuse(&w, join(&w, 92, 9), 16, "TOKEN_UNKNOWN");

	/* A standby is replaced by one without a vote. */
	add(&w, 6, MEMBER(STANDBY));
	c = begin(&w, KIND(REPLACE), "", "6");
	c->change_begin->credential = credential(&w, 93);
	id = world_do(&w, c);
	assert_true(change(&w, false)->no_vote);
	world_do(&w, join(&w, 93, 7));
	world_do(&w, kind(&w, 6, MEMBER(REMOVED)));
	world_do(&w, end(&w, id, OUTCOME(DONE)));
	world_close(&w);
}

static void test_standbys(void **state UNUSED)
{
	struct world w;
	Command *c;

	open_with(&w, 5, "VVVVSSSSSSSSS"); /* five, and nine standbys */
	c = world_command(&w, 0);
	WBODY(&w, c, JOIN_TOKEN_CREATE, join_token_create, JoinTokenCreate)->credential =
		credential(&w, 600);
	world_do(&w, c);
	world_refuse(&w, join(&w, 600, 20), 8, "TOO_MANY_STANDBYS");
	world_refuse(&w, begin(&w, KIND(DEMOTE), "", "45"), 8, "TOO_MANY_STANDBYS");
	world_do(&w, begin(&w, KIND(DEMOTE), "6", "5"));
	world_close(&w);
}

/* What runs when a new epoch begins ends with the old one. */
static void test_epoch(void **state UNUSED)
{
	Skerry__Internal__V1__EpochBegin *e;
	struct world w;
	Command *c;

	open_with(&w, 6, "VV");
	c = begin(&w, KIND(REPLACE), "", "3");
	c->change_begin->credential = credential(&w, 90);
	world_do(&w, c);
	w.offline = true;
	c = world_command(&w, 0);
	e = WBODY(&w, c, EPOCH_BEGIN, epoch_begin, EpochBegin);
	e->epoch = 99;
	e->revision_step = 1ull << 32;
	e->member = world_member(&w, 1);
	e->member->feature_max = 2;
	world_do(&w, c);
	assert_null(change(&w, false));
	assert_int_equal(change(&w, true)->outcome, OUTCOME(CANCELLED));
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_level),   cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_demote),  cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_replace), cmocka_unit_test(test_standbys),
		cmocka_unit_test(test_epoch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
