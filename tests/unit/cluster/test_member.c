/* What the leader does about members, and what clocks say. LIBS: cluster */
#include "tests/lib/test.h"

#include <unistd.h>

#include "base/crypto.h"
#include "cluster/member.h"

/* Members and servers by letter: 'V' voter, 'S' standby caught up, 's' standby behind, 'd' standby without a link,
 * 'R' removed, '.' absent. The leader is the first one. */
struct world {
	struct member_table table;
	struct link_state state;
	bool connected[8];
};

static bool connected(void *arg, uint64_t id)
{
	return ((struct world *)arg)->connected[id];
}

static void make(struct world *w, const char *table, const char *raft)
{
	*w = (struct world){.state = {.self_leads = true, .commit_index = 1000, .leader = 1}};
	for (size_t i = 0; table[i] != '\0'; i++) {
		uint64_t id = i + 1;

		if (table[i] != '.') {
			assert_ok(member_table_add(&w->table, id, table[i] == 'R', table[i] == 'V',
						   1, "n", "h:1", "https://h", &id, sizeof(id),
						   NULL));
		}
	}
	for (size_t i = 0; raft[i] != '\0'; i++) {
		struct link_server *s = &w->state.server[w->state.n];

		if (raft[i] == '.') {
			continue;
		}
		s->id = i + 1;
		s->role = raft[i] == 'V' ? LINK_VOTER : LINK_STANDBY;
		s->match_index = raft[i] == 's' ? 10 : 1000;
		w->connected[s->id] = raft[i] != 'd';
		w->state.n++;
	}
}

static void test_next(void **state)
{
	static const struct {
		const char *table, *raft;
		enum member_action action;
		uint64_t id;
	} cases[] = {
		{"V", "V", MEMBER_NOTHING, 0},
		{"VS", "V", MEMBER_ADD, 2},
		{"VS", "VS", MEMBER_NOTHING, 0}, /* two voters are worse than one */
		{"VSS", "VS", MEMBER_ADD, 3},
		{"VSS", "VSs", MEMBER_NOTHING, 0},
		{"VSS", "VSd", MEMBER_NOTHING, 0},
		{"VSS", "VSS", MEMBER_PROMOTE, 2},
		{"VSS", "VVS", MEMBER_PROMOTE, 3}, /* on the way; the table is told later */
		{"VSS", "VVs", MEMBER_SET_VOTER, 2},
		{"VVS", "VVs", MEMBER_NOTHING, 0},
		{"VSS", "VVV", MEMBER_SET_VOTER, 2},
		{"VVS", "VVV", MEMBER_SET_VOTER, 3},
		{"VVV", "VVV", MEMBER_NOTHING, 0},
		{"VVVS", "VVVS", MEMBER_NOTHING, 0},
		{"VVVSS", "VVVSS", MEMBER_PROMOTE, 4},
		{"VVVSSS", "VVVVVS", MEMBER_SET_VOTER, 4},
		{"VVVVVS", "VVVVVS", MEMBER_NOTHING, 0}, /* five are enough */
		{"VVR", "VVV", MEMBER_REMOVE, 3},
		{"VRV", "VVV", MEMBER_REMOVE, 2},
		{"VR", "VV", MEMBER_REMOVE, 2},
		{"VRVS", "VVV", MEMBER_REMOVE, 2}, /* leave first, then enter */
		{"RVV", "VVV", MEMBER_HAND_OVER, 0},
		{"RVR", "VVV", MEMBER_REMOVE, 3},
		{"VV", "VVV", MEMBER_REMOVE, 3}, /* unknown to the table */
		{"VV", "VV", MEMBER_NOTHING, 0}, /* left by a removal */
		{"VVS", "VVS", MEMBER_PROMOTE, 3},
		{"V.S", "V.S", MEMBER_NOTHING, 0},
		{"VV", "VS", MEMBER_SET_STANDBY, 2},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		struct world w;
		struct member_todo todo;

		make(&w, c->table, c->raft);
		member_next(&w.table, &w.state, 1, connected, &w, &todo);
		if (todo.action != c->action || todo.id != c->id) {
			TEST_FAIL("%s %s: %d of %d, expected %d of %d", c->table, c->raft,
				  todo.action, (int)todo.id, c->action, (int)c->id);
		}
		w.state.changing = true;
		member_next(&w.table, &w.state, 1, connected, &w, &todo);
		assert_int_equal(todo.action, MEMBER_NOTHING);
		w.state.changing = false;
		w.state.self_leads = false;
		member_next(&w.table, &w.state, 1, connected, &w, &todo);
		assert_int_equal(todo.action, MEMBER_NOTHING);
		member_table_done(&w.table);
	}
}

/* From one lighthouse to five, step by step, whoever leads: the steps end, and with five voters. */
static void test_next_converges(void **state)
{
	struct world w;
	struct member_todo todo;
	int steps = 0;

	(void)state;
	make(&w, "VSSSS", "V");
	for (;; steps++) {
		struct link_server *s = NULL;
		struct member *m = NULL;

		member_next(&w.table, &w.state, 1 + (uint64_t)steps % 5, connected, &w, &todo);
		if (todo.action == MEMBER_NOTHING) {
			break;
		}
		assert_true(steps < 20);
		for (size_t i = 0; i < w.state.n; i++) {
			s = w.state.server[i].id == todo.id ? &w.state.server[i] : s;
		}
		for (size_t i = 0; i < w.table.n; i++) {
			m = w.table.m[i].id == todo.id ? &w.table.m[i] : m;
		}
		switch (todo.action) {
		case MEMBER_ADD:
			w.state.server[w.state.n++] = (struct link_server){
				.id = todo.id, .role = LINK_STANDBY, .match_index = 1000};
			w.connected[todo.id] = true;
			break;
		case MEMBER_PROMOTE: s->role = LINK_VOTER; break;
		case MEMBER_SET_VOTER: m->voter = true; break;
		default: fail();
		}
	}
	for (size_t i = 0; i < w.table.n; i++) {
		assert_true(w.table.m[i].voter);
	}
	member_table_done(&w.table);
}

static void test_table_file(void **state)
{
	char dir[] = "/tmp/skerry-member-XXXXXX", path[64];
	struct member_table a = {0}, b = {0};
	uint8_t key[91];

	(void)state;
	assert_non_null(mkdtemp(dir));
	assert_ok(member_table_load(dir, &b, NULL));
	assert_int_equal(b.n, 0);
	memset(key, 7, sizeof(key));
	assert_ok(member_table_add(&a, 9, false, true, 5, "nine", "h:9", "https://h:9", key,
				   sizeof(key), NULL));
	assert_ok(member_table_add(&a, 3, true, false, 0, "three", "[::1]:3", "https://h:3", key,
				   60, NULL));
	assert_int_equal(a.m[0].id, 3);
	assert_ok(member_table_save(dir, &a, NULL));
	assert_ok(member_table_load(dir, &b, NULL));
	assert_int_equal(b.n, 2);
	assert_true(member_find(&b, 3)->removed);
	assert_true(member_find(&b, 9)->voter);
	assert_string_equal(member_find(&b, 9)->address, "h:9");
	assert_memory_equal(member_find(&b, 9)->spki_sha256, member_find(&a, 9)->spki_sha256, 32);
	assert_null(member_find(&b, 4));
	/* Another incarnation is no reason to write the file. */
	b.m[1].incarnation = 5;
	assert_true(member_table_equal(&a, &b));
	b.m[1].voter = false;
	assert_false(member_table_equal(&a, &b));
	assert_err(
		member_table_add(&a, 1, false, false, 0, "n", "h:1", "https://h", key, 200, NULL),
		ERR_LIMIT);
	snprintf(path, sizeof(path), "%s/members.json", dir);
	unlink(path);
	rmdir(dir);
	member_table_done(&a);
	member_table_done(&b);
}

static void test_clocks(void **state)
{
	static const struct {
		size_t n;
		struct member_clock c[4];
		bool agree, off;
	} cases[] = {
		{0, {{0}}, true, false}, /* alone */
		{1, {{true, 0}}, true, false},
		{1, {{true, 60000}}, false, false}, /* two that differ */
		{2, {{true, 0}, {true, 0}}, true, false},
		{2, {{true, 0}, {true, 60000}}, true, false},
		{2, {{true, 60000}, {true, 60000}}, false, true},
		{2, {{true, -60000}, {true, -59000}}, false, true},
		{2, {{true, 60000}, {true, -60000}}, false, false}, /* we are the median */
		{2, {{true, 10000}, {true, 10000}}, true, false},
		{2, {{true, 10001}, {true, 10001}}, false, true},
		{2, {{true, 60000}, {false, 0}}, false, false},
		{2, {{false, 0}, {false, 0}}, false, false},
		{4, {{true, 20000}, {true, 20000}, {true, 20000}, {true, 0}}, false, true},
		{4, {{true, 0}, {true, 0}, {true, 20000}, {true, 20000}}, true, false},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		if (member_clocks_agree(c->c, c->n) != c->agree ||
		    member_clock_is_off(c->c, c->n) != c->off) {
			TEST_FAIL("case %d: agree %d, off %d", (int)(c - cases),
				  member_clocks_agree(c->c, c->n), member_clock_is_off(c->c, c->n));
		}
	}
}

/* Who hands over because of its clock hands over to somebody whose clock is right. */
static void test_best_clock(void **state)
{
	static const struct {
		struct member_clock c[4];
		size_t n, best;
	} cases[] = {
		{{{0}, {0}}, 2, 2},
		{{{true, -86400000}, {true, 86400000}}, 2, 0}, /* ours is the middle: either */
		{{{true, -86400000}, {true, -172800000}}, 2, 0},
		{{{true, -172800000}, {true, -86400000}}, 2, 1},
		{{{true, 5}, {false, -86400000}, {true, -86400000}, {true, -86400010}}, 4, 0},
		{{{true, -9}, {true, -86400000}, {true, -86400005}, {true, -86400010}}, 4, 1},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		size_t best = member_clock_best(c->c, c->n);

		if (best != c->best) {
			TEST_FAIL("case %d: %zu", (int)(c - cases), best);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_next),       cmocka_unit_test(test_next_converges),
		cmocka_unit_test(test_table_file), cmocka_unit_test(test_clocks),
		cmocka_unit_test(test_best_clock),
	};

	crypto_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
