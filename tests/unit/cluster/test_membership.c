/* Changes of the members, step by step, under whichever leader: always a quorum, always the end. LIBS: cluster tailnet */
#include "tests/lib/test.h"

#include "base/crypto.h"
#include "cluster/membership.h"

#define KIND(x) SKERRY__INTERNAL__V1__CHANGE_KIND__CHANGE_KIND_##x
#define STEP(x) SKERRY__INTERNAL__V1__CHANGE_STEP__CHANGE_STEP_##x

enum { MAX = 12 };

/* Lighthouses 1, 2, ...: the table, raft's configuration, who runs. */
struct world {
	struct member_table table;
	struct link_state s;
	struct membership change;
	uint64_t leader;
	bool up[MAX + 1];
	uint64_t seed;
	int outcome; /* 0: it runs; enum member_action of its end */
};

static bool connected(void *arg, uint64_t id)
{
	struct world *w = arg;

	return id <= MAX && w->up[id];
}

/* 'V' voter, 'S' standby, 'K' standby that is kept one, 's' one that lags, 'v' and 'd' a voter and a standby that are down.
 * The first one leads. */
static void make(struct world *w, const char *who)
{
	*w = (struct world){.leader = 1, .seed = 1};
	w->s = (struct link_state){.self_leads = true, .commit_index = 1000, .leader = 1};
	for (uint64_t id = 1; who[id - 1] != '\0'; id++) {
		char c = who[id - 1];
		char name[8] = {'a', (char)('0' + id), '\0'};

		assert_ok(member_table_add(&w->table, id, false, c == 'V' || c == 'v', 1, name,
					   "h:1", "https://h", &id, sizeof(id), NULL));
		w->table.m[id - 1].keep_standby = c == 'K';
		w->s.server[w->s.n++] = (struct link_server){
			.id = id,
			.role = c == 'V' || c == 'v' ? LINK_VOTER : LINK_STANDBY,
			.match_index = c == 's' ? 10 : 1000,
		};
		w->up[id] = c != 'v' && c != 'd';
	}
}

static struct membership_view view(struct world *w)
{
	return (struct membership_view){
		.table = &w->table,
		.change = &w->change,
		.s = &w->s,
		.self = w->leader,
		.now_ms = 5000,
		.connected = connected,
		.arg = w,
	};
}

static struct link_server *server(struct world *w, uint64_t id)
{
	return (struct link_server *)(uintptr_t)member_server(&w->s, id);
}

static struct member *row(struct world *w, uint64_t id)
{
	return (struct member *)(uintptr_t)member_find(&w->table, id);
}

static struct membership_wish wish(int kind, const char *ids, uint64_t with, bool no_fill)
{
	struct membership_wish w = {.kind = kind, .with = with, .no_fill = no_fill};

	for (; ids[w.n] != '\0'; w.n++) {
		w.id[w.n] = (uint64_t)(ids[w.n] - '0');
	}
	return w;
}

/* A majority of the voters is reached, and none of them is refused by the table: else the cluster stands. */
static void check_quorum(struct world *w, const char *when)
{
	size_t voters = 0, up = 0;

	for (size_t i = 0; i < w->s.n; i++) {
		if (w->s.server[i].role == LINK_VOTER) {
			const struct member *m = row(w, w->s.server[i].id);

			voters++;
			up += w->up[m->id];
			if (m->removed) {
				TEST_FAIL("%s: lighthouse %d votes and is removed", when,
					  (int)m->id);
			}
		}
	}
	if (voters == 0 || up <= voters / 2) {
		TEST_FAIL("%s: %zu of %zu voters are reached", when, up, voters);
	}
}

/* What the step does, as raft and the log would. */
static void act(struct world *w, const struct member_todo *t)
{
	struct link_server *s = server(w, t->id);

	switch (t->action) {
	case MEMBER_NOTHING: break;
	case MEMBER_REMOVE:
		assert_true(s->role != LINK_VOTER);
		*s = w->s.server[--w->s.n];
		break;
	case MEMBER_HAND_OVER:
		assert_true(s != NULL && s->role == LINK_VOTER && w->up[t->id]);
		assert_true(t->id != w->leader);
		w->leader = t->id;
		break;
	case MEMBER_ADD:
		w->s.server[w->s.n++] = (struct link_server){
			.id = t->id, .role = LINK_STANDBY, .match_index = 1000};
		break;
	case MEMBER_PROMOTE:
		assert_true(s->role == LINK_STANDBY && w->up[t->id]);
		s->role = LINK_VOTER;
		break;
	case MEMBER_DEMOTE:
		assert_true(s->role == LINK_VOTER && t->id != w->leader);
		s->role = LINK_STANDBY;
		break;
	case MEMBER_SET_VOTER: row(w, t->id)->voter = true; break;
	case MEMBER_SET_STANDBY: row(w, t->id)->voter = false; break;
	case MEMBER_SET_REMOVED:
		row(w, t->id)->removed = true;
		row(w, t->id)->voter = false;
		w->up[t->id] = false;
		break;
	case MEMBER_GROW:
		w->change = (struct membership){.id = 9, .kind = KIND(GROW), .n_enter = t->n_grow};
		memcpy(w->change.enter, t->grow, sizeof(t->grow));
		break;
	case MEMBER_END:
	case MEMBER_END_CANCELLED:
	case MEMBER_END_EXPIRED:
		w->change.id = 0;
		w->outcome = (int)t->action;
		break;
	}
	check_quorum(w, "after a step");
}

static uint64_t draw(struct world *w, uint64_t n)
{
	w->seed = w->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (w->seed >> 33) % n;
}

/* Another voter that runs leads, sometimes: the step of the one before was done or it was not. */
static void new_leader(struct world *w)
{
	uint64_t id = 1 + draw(w, MAX);
	const struct link_server *s = server(w, id);

	if (s != NULL && s->role == LINK_VOTER && w->up[id]) {
		w->leader = id;
	}
}

/* Runs to where nothing is to be done; with a seed, under changing leaders. Returns the last todo. */
static struct member_todo run(struct world *w, uint64_t seed)
{
	struct member_todo t;

	w->seed = seed;
	for (int i = 0; i < 200; i++) {
		struct membership_view v = view(w);

		membership_next(&v, &t);
		if (t.action == MEMBER_NOTHING) {
			return t;
		}
		if (seed != 0 && draw(w, 3) == 0) {
			new_leader(w); /* who died before the step */
			continue;
		}
		act(w, &t);
		if (seed != 0 && draw(w, 3) == 0) {
			new_leader(w);
		}
	}
	TEST_FAIL("the steps do not end");
	return t;
}

/* The roles in raft, by id: '.' is not in it. */
static const char *roles(struct world *w, char out[MAX + 1])
{
	size_t n = 0;

	for (uint64_t id = 1; id <= w->table.n; id++) {
		const struct link_server *s = server(w, id);

		out[n++] = s == NULL ? '.' : s->role == LINK_VOTER ? 'V' : 'S';
		if (s != NULL && !row(w, id)->removed) {
			assert_int_equal(row(w, id)->voter, s->role == LINK_VOTER);
		}
	}
	out[n] = '\0';
	return out;
}

/* Each change, under one leader and under a hundred sequences of them: the same end. */
static void test_changes(void **state UNUSED)
{
	static const struct {
		const char *who;
		int kind;
		const char *ids;
		uint64_t with;
		bool no_fill;
		const char *end;
	} cases[] = {
		/* a place is filled; without standbys an even number stays after a removal */
		{"VVVS", KIND(DEMOTE), "2", 0, false, "VSVV"},
		{"VVVS", KIND(DEMOTE), "1", 0, false, "SVVV"}, /* the leader */
		{"VVVS", KIND(REMOVE), "2", 0, false, "V.VV"},
		{"VVVS", KIND(REMOVE), "1", 0, false, ".VVV"},
		{"VvVS", KIND(REMOVE), "2", 0, false, "V.VV"},
		{"VVV", KIND(REMOVE), "3", 0, false, "VV."},
		{"VVV", KIND(REMOVE), "1", 0, false, ".VV"},
		{"VVv", KIND(REMOVE), "3", 0, false, "VV."},
		{"VVVK", KIND(REMOVE), "3", 0, false, "VV.S"},
		{"VVVK", KIND(REMOVE), "4", 0, false, "VVV."},
		{"VVVd", KIND(REMOVE), "4", 0, false, "VVV."},
		/* to one, and to one of two */
		{"VV", KIND(DEMOTE), "2", 0, false, "VS"},
		{"VV", KIND(DEMOTE), "1", 0, false, "SV"},
		{"VV", KIND(REMOVE), "1", 0, false, ".V"},
		{"VVV", KIND(DEMOTE), "23", 0, false, "VSS"},
		{"VVV", KIND(DEMOTE), "12", 0, false, "SSV"},
		{"VVV", KIND(REMOVE), "12", 0, false, "..V"},
		/* five to three, three to five */
		{"VVVVV", KIND(DEMOTE), "45", 0, false, "VVVSS"},
		{"VVVVV", KIND(DEMOTE), "15", 0, false, "SVVVS"},
		{"VVVVV", KIND(REMOVE), "12", 0, false, "..VVV"},
		{"VVVvv", KIND(REMOVE), "45", 0, false, "VVV.."},
		{"VVVKK", KIND(PROMOTE), "45", 0, false, "VVVVV"},
		{"VKK", KIND(PROMOTE), "23", 0, false, "VVV"},
		/* the last standing majority of five: what is away leaves first */
		{"VVVvvSS", KIND(REMOVE), "45", 0, false, "VVV..VV"},
		/* one for another */
		{"VVVS", KIND(REPLACE), "3", 4, false, "VV.V"},
		{"VVvS", KIND(REPLACE), "3", 4, false, "VV.V"},
		{"VVVS", KIND(REPLACE), "1", 4, false, ".VVV"},
		{"VK", KIND(REPLACE), "1", 2, false, ".V"},
		{"VVVVvS", KIND(REPLACE), "5", 6, false, "VVVV.V"},
	};

	TEST_TABLE(c, cases)
	{
		for (uint64_t seed = 0; seed < 100; seed++) {
			struct membership_wish wanted = wish(c->kind, c->ids, c->with, c->no_fill);
			struct membership_view v;
			struct err e = {0};
			struct world w;
			char out[MAX + 1];

			make(&w, c->who);
			v = view(&w);
			membership_plan(&v, &wanted, &w.change);
			if (membership_may(&v, &w.change, &e) < 0) {
				TEST_FAIL("%s %d %s: %s", c->who, c->kind, c->ids, e.msg);
			}
			w.change.id = 9;
			if (c->kind == KIND(DEMOTE)) {
				for (size_t i = 0; i < wanted.n; i++) {
					row(&w, wanted.id[i])->keep_standby = true;
				}
			}
			run(&w, seed);
			if (w.outcome != MEMBER_END || w.change.id != 0 ||
			    strcmp(roles(&w, out), c->end) != 0) {
				TEST_FAIL("%s %d %s, seed %d: %s instead of %s, outcome %d", c->who,
					  c->kind, c->ids, (int)seed, out, c->end, w.outcome);
			}
			member_table_done(&w.table);
		}
	}
}

/* By themselves: to the next odd number, with those that are there. */
static void test_growth(void **state UNUSED)
{
	static const struct {
		const char *who, *end;
	} cases[] = {
		{"V", "V"},         {"VS", "VS"}, /* two voters are worse than one */
		{"VSS", "VVV"},     {"VSd", "VSS"},     {"VSs", "VSS"},
		{"VSK", "VSS"}, /* an operator said so */
		{"VSSS", "VVVS"},   {"VSSSS", "VVVVV"}, {"VSSSSSS", "VVVVVSS"},
		{"VVS", "VVV"},     {"VVvS", "VVVS"},   {"VVVS", "VVVS"},
		{"VVVSS", "VVVVV"}, {"VVvSS", "VVVVV"}, {"VVVVS", "VVVVV"},
		{"VVVV", "VVVV"},
	};

	TEST_TABLE(c, cases)
	{
		for (uint64_t seed = 0; seed < 50; seed++) {
			struct world w;
			char out[MAX + 1];

			make(&w, c->who);
			run(&w, seed);
			if (strcmp(roles(&w, out), c->end) != 0) {
				TEST_FAIL("%s, seed %d: %s instead of %s", c->who, (int)seed, out,
					  c->end);
			}
			member_table_done(&w.table);
		}
	}
}

static void test_refusals(void **state UNUSED)
{
	static const struct {
		const char *who;
		int kind;
		const char *ids;
		uint64_t with;
		const char *reason, *says;
	} cases[] = {
		{"VVv", KIND(REMOVE), "2", 0, "WOULD_LOSE_QUORUM",
		 "of then 2 voters 1 would be reached, 2 are needed"},
		{"VVvK", KIND(DEMOTE), "2", 0, "WOULD_LOSE_QUORUM", "are needed"},
		{"VVVvv", KIND(REMOVE), "2", 0, "WOULD_LOSE_QUORUM", "of then 4 voters 2"},
		{"Vvv", KIND(REMOVE), "3", 0, "WOULD_LOSE_QUORUM",
		 "only 1 of 3 voters are reached, 2 are needed"},
		{"Vv", KIND(PROMOTE), "", 0, "WOULD_LOSE_QUORUM", "only 1 of 2"},
		{"VVVd", KIND(REPLACE), "3", 4, "MEMBER_NOT_CONNECTED", "a4"},
		{"VVVs", KIND(REPLACE), "3", 4, "MEMBER_BEHIND", "entry 10 of 1000"},
		{"VVVdK", KIND(PROMOTE), "45", 0, "MEMBER_NOT_CONNECTED", "a4"},
	};

	TEST_TABLE(c, cases)
	{
		struct membership_wish wanted = wish(c->kind, c->ids, c->with, false);
		struct membership_view v;
		struct err e = {0};
		struct world w;
		int r;

		make(&w, c->who);
		v = view(&w);
		membership_plan(&v, &wanted, &w.change);
		r = membership_may(&v, &w.change, &e);
		if (r != ERR_PRECONDITION || strcmp(e.reason, c->reason) != 0 ||
		    strstr(e.msg, c->says) == NULL) {
			TEST_FAIL("%s %d %s: %d %s (%s)", c->who, c->kind, c->ids, r, e.reason,
				  e.msg);
		}
		member_table_done(&w.table);
	}
}

/* What happens while it waits: it says for what, goes on when that has come, and can be given up. */
static void test_waits(void **state UNUSED)
{
	struct membership_view v;
	struct member_todo t;
	struct world w;
	char out[MAX + 1];

	/* A new host that has not joined; that has, and is not there yet; and is. */
	make(&w, "VVv");
	w.change = (struct membership){.id = 9,
				       .kind = KIND(REPLACE),
				       .leave = {3},
				       .n_leave = 1,
				       .token_id = 5,
				       .expire_ms = 6000};
	assert_int_equal(run(&w, 0).step, STEP(JOIN));
	assert_string_equal(roles(&w, out), "VVV");
	assert_ok(member_table_add(&w.table, 4, false, false, 1, "a4", "h:1", "https://h", "4", 1,
				   NULL));
	w.change.enter[0] = 4;
	w.change.n_enter = 1;
	t = run(&w, 0);
	assert_int_equal(t.step, STEP(CATCH_UP));
	assert_int_equal(t.about, 4);
	assert_string_equal(roles(&w, out), "VVVS"); /* the old one is there until then */
	w.up[4] = true;
	run(&w, 0);
	assert_int_equal(w.outcome, MEMBER_END);
	assert_string_equal(roles(&w, out), "VV.V");
	member_table_done(&w.table);

	/* Nobody came. */
	make(&w, "VVv");
	w.change = (struct membership){
		.id = 9, .kind = KIND(REPLACE), .leave = {3}, .n_leave = 1, .expire_ms = 4000};
	run(&w, 0);
	assert_int_equal(w.outcome, MEMBER_END_EXPIRED);
	assert_string_equal(roles(&w, out), "VVV");
	member_table_done(&w.table);

	/* A voter goes down in the middle: no step that would lose the quorum. */
	make(&w, "VVVV");
	w.change =
		(struct membership){.id = 9, .kind = KIND(REMOVE), .leave = {3, 4}, .n_leave = 2};
	v = view(&w);
	membership_next(&v, &t);
	assert_int_equal(t.action, MEMBER_DEMOTE);
	act(&w, &t);
	w.up[2] = false;
	t = run(&w, 0);
	assert_int_equal(t.step, STEP(QUORUM));
	w.up[2] = true;
	run(&w, 0);
	assert_int_equal(w.outcome, MEMBER_END);
	assert_string_equal(roles(&w, out), "VV..");
	member_table_done(&w.table);

	/* Given up between two promotions: no even number of voters is left. */
	make(&w, "VSS");
	v = view(&w);
	membership_next(&v, &t);
	assert_int_equal(t.action, MEMBER_GROW);
	act(&w, &t);
	membership_next(&v, &t);
	assert_int_equal(t.action, MEMBER_PROMOTE);
	act(&w, &t);
	w.up[3] = false;
	assert_int_equal(run(&w, 0).step, STEP(CATCH_UP));
	w.change.cancelled = true;
	run(&w, 0);
	assert_int_equal(w.outcome, MEMBER_END_CANCELLED);
	assert_string_equal(roles(&w, out), "VSS");
	w.up[3] = true;
	run(&w, 0);
	assert_string_equal(roles(&w, out), "VVV");
	member_table_done(&w.table);

	/* Given up when the one that goes has lost its vote: it is a standby, and a voter again by itself. */
	make(&w, "VVV");
	w.change = (struct membership){.id = 9, .kind = KIND(REMOVE), .leave = {3}, .n_leave = 1};
	v = view(&w);
	membership_next(&v, &t);
	act(&w, &t);
	assert_int_equal(server(&w, 3)->role, LINK_STANDBY);
	w.change.cancelled = true;
	run(&w, 0);
	assert_int_equal(w.outcome, MEMBER_END); /* of the growth that followed */
	assert_string_equal(roles(&w, out), "VVV");
	member_table_done(&w.table);

	/* What a leader left between the two steps of an addition is taken up. */
	make(&w, "VS");
	w.s.server[1].role = LINK_SPARE;
	v = view(&w);
	membership_next(&v, &t);
	assert_int_equal(t.action, MEMBER_ADD);
	assert_int_equal(t.id, 2);
	/* Only a leader does anything. */
	w.s.self_leads = false;
	membership_next(&v, &t);
	assert_int_equal(t.action, MEMBER_NOTHING);
	member_table_done(&w.table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_growth),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_waits),
	};

	crypto_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
