/* Sessions and presence, deadlines and Tick. LIBS: tailnet */
#include "tests/unit/tailnet/world.h"

static void test_attach_detach(void **state UNUSED)
{
	struct world w;
	uint64_t n;

	world_open_two(&w, 1);
	n = world_add(&w, 1, 1, "a");
	assert_false(world_presence(&w, 1, n)->online);
	world_do(&w, world_session(&w, 1, n, 5, false, false));
	assert_int_equal(w.r.n_changes, 1);
	assert_true(world_presence(&w, 1, n)->online);
	/* A lower number, and the same again, do not count. */
	world_do(&w, world_session(&w, 1, n, 4, false, false));
	world_do(&w, world_session(&w, 1, n, 5, false, false));
	assert_int_equal(w.r.n_changes, 0);
	/* A detach of another number does not count. */
	world_do(&w, world_session(&w, 1, n, 4, true, false));
	world_pass(&w, 20000);
	assert_true(world_presence(&w, 1, n)->online);
	/* Its own does; offline is the Tick after the grace, not before. */
	world_do(&w, world_session(&w, 1, n, 5, true, false));
	world_pass(&w, LIM_PRESENCE_GRACE_MS - 1);
	assert_true(world_presence(&w, 1, n)->online);
	world_pass(&w, 1);
	assert_false(world_presence(&w, 1, n)->online);
	/* A repetition of the old attach does not bring it back. */
	world_do(&w, world_session(&w, 1, n, 5, false, false));
	assert_false(world_presence(&w, 1, n)->online);
	/* Within the grace it is never seen offline. */
	world_do(&w, world_session(&w, 1, n, 6, false, false));
	world_do(&w, world_session(&w, 1, n, 6, true, true));
	assert_int_equal(w.r.n_changes, 0);
	w.now += LIM_PRESENCE_CLEAN_MS - 1;
	world_do(&w, world_session(&w, 1, n, 7, false, false));
	assert_int_equal(w.r.n_changes, 0);
	world_pass(&w, HOUR);
	assert_true(world_presence(&w, 1, n)->online);
	/* A clean close waits less. */
	world_do(&w, world_session(&w, 1, n, 7, true, true));
	world_pass(&w, LIM_PRESENCE_CLEAN_MS);
	assert_false(world_presence(&w, 1, n)->online);
	world_close(&w);
}

static Command *lost(struct world *w, uint64_t id, uint64_t incarnation)
{
	Command *c = world_command(w, 0);
	Skerry__Internal__V1__LighthouseLost *l =
		WBODY(w, c, LIGHTHOUSE_LOST, lighthouse_lost, LighthouseLost);

	l->id = id;
	l->incarnation = incarnation;
	return c;
}

static void test_lighthouse_lost(void **state UNUSED)
{
	struct world w;
	uint64_t a, b;
	Command *c;

	world_open_two(&w, 2);
	a = world_add(&w, 1, 1, "a");
	b = world_add(&w, 3, 2, "b");
	world_do(&w, world_session(&w, 1, a, 5, false, false));
	world_do(&w, world_session(&w, 3, b, 5, false, false));
	world_refuse(&w, lost(&w, 1, 100), 9, "INCARNATION_ENDED");
	world_do(&w, lost(&w, 1, 101));
	world_refuse(&w, lost(&w, 1, 101), 9, "INCARNATION_ENDED");
	/* It was a false alarm: it learns so, announces itself and its sessions with the same numbers. */
	world_refuse(&w, world_session(&w, 1, a, 6, false, false), 9, "INCARNATION_ENDED");
	world_do(&w, world_start(&w, 1, 101));
	world_do(&w, world_session(&w, 1, a, 5, false, false));
	world_pass(&w, LIM_PRESENCE_GRACE_MS);
	assert_true(world_presence(&w, 1, a)->online);
	assert_false(world_presence(&w, 3, b)->online);
	/* A new start ends what an earlier incarnation held. */
	world_do(&w, world_start(&w, 1, 102));
	world_refuse(&w, world_session(&w, 1, a, 9, false, false), 9, "INCARNATION_ENDED");
	c = world_session(&w, 1, a, 6, false, false);
	c->session_batch->incarnation = 102;
	world_do(&w, c);
	world_pass(&w, LIM_PRESENCE_GRACE_MS);
	assert_true(world_presence(&w, 1, a)->online);
	c = world_session(&w, 1, a, 7, false, false);
	c->session_batch->lighthouse = 9;
	world_refuse(&w, c, 7, "NOT_A_MEMBER");
	world_close(&w);
}

/* state.md: after a gap without leader, presence and ephemeral deadlines start anew. */
static void test_leader_gap(void **state UNUSED)
{
	struct world w;
	uint64_t key, a, e;

	world_open_two(&w, 3);
	key = world_do(&w, world_key(&w, 1, &(struct key_form){.user = 2, .ephemeral = true}));
	e = world_do(&w, world_register(&w, 1, key, world_facts(&w, 2, "e")));
	a = world_add(&w, 1, 1, "a");
	world_do(&w, world_session(&w, 1, a, 5, false, false));
	world_do(&w, world_session(&w, 1, a, 5, true, false));
	w.now += LIM_EPHEMERAL_MS + HOUR;
	w.leader_gap = true;
	world_do(&w, world_tick_command(&w));
	assert_true(world_presence(&w, 1, a)->online);
	assert_non_null(world_node(&w, 1, e));
	world_pass(&w, LIM_PRESENCE_GRACE_MS - 1);
	assert_true(world_presence(&w, 1, a)->online);
	world_pass(&w, 1);
	assert_false(world_presence(&w, 1, a)->online);
	world_pass(&w, LIM_EPHEMERAL_MS - LIM_PRESENCE_GRACE_MS - 1);
	assert_non_null(world_node(&w, 1, e));
	world_pass(&w, 1);
	assert_null(world_node(&w, 1, e));
	world_close(&w);
}

static void test_ephemeral(void **state UNUSED)
{
	struct world w;
	uint64_t key, e;

	world_open_two(&w, 4);
	key = world_do(
		&w, world_key(&w, 1,
			      &(struct key_form){.user = 2, .ephemeral = true, .reusable = true}));
	e = world_do(&w, world_register(&w, 1, key, world_facts(&w, 2, "e")));
	world_pass(&w, LIM_EPHEMERAL_MS - 1);
	assert_non_null(world_node(&w, 1, e));
	world_do(&w, world_session(&w, 1, e, 1, false, false));
	world_pass(&w, DAY);
	assert_non_null(world_node(&w, 1, e));
	world_do(&w, world_session(&w, 1, e, 1, true, false));
	world_pass(&w, LIM_PRESENCE_GRACE_MS);
	assert_false(world_presence(&w, 1, e)->online);
	world_pass(&w, LIM_EPHEMERAL_MS - 1);
	assert_non_null(world_node(&w, 1, e));
	world_pass(&w, 1);
	assert_null(world_node(&w, 1, e));
	assert_null(world_presence(&w, 1, e));
	world_close(&w);
}

static void test_expiry(void **state UNUSED)
{
	struct world w;
	uint64_t n, due;

	world_open_two(&w, 5);
	n = world_add(&w, 1, 1, "a");
	world_pass(&w, 180 * DAY - 1);
	assert_false(world_node(&w, 1, n)->expired);
	assert_ok(tailnet_next_deadline(&w.kv[0], &due));
	assert_true(due > w.now);
	world_pass(&w, 1);
	assert_true(world_node(&w, 1, n)->expired);
	/* A clock that goes back does not take the state back. */
	w.now -= 100 * DAY;
	world_do(&w, world_tick_command(&w));
	assert_int_equal(world_meta(&w, 0)->time_ms, w.now + 100 * DAY);
	world_close(&w);
}

/* Many deadlines at once: each Tick does a portion, in the end all is done. */
static void test_portions(void **state UNUSED)
{
	struct world w;
	uint64_t key, id[600];
	size_t ticks;

	world_open_two(&w, 6);
	w.unchecked = true;
	key = world_do(&w, world_key(&w, 1, &(struct key_form){.user = 2, .reusable = true}));
	for (uint64_t i = 0; i < ARRAY_LEN(id); i++) {
		id[i] = world_do(
			&w, world_register(
				    &w, 1, key,
				    world_facts(&w, i,
						world_text(&w, "n%llu", (unsigned long long)i))));
	}
	world_pass(&w, 2 * DAY);
	ticks = world_pass(&w, 178 * DAY);
	assert_in_range(ticks, 3, 12);
	for (size_t i = 0; i < ARRAY_LEN(id); i++) {
		assert_true(world_node(&w, 1, id[i])->expired);
	}
	world_check(&w);
	world_close(&w);
}

static void test_facts(void **state UNUSED)
{
	struct world w;
	uint64_t a, b;
	NodeEndpoints *e;
	Command *c = NULL;
	Skerry__Internal__V1__NodeFacts *f;
	Skerry__V1__Endpoint ep, *epp = &ep;
	uint8_t address[4] = {192, 0, 2, 1};

	world_open_two(&w, 7);
	a = world_add(&w, 1, 1, "a");
	b = world_add(&w, 1, 2, "b");
	skerry__v1__endpoint__init(&ep);
	ep.address = (ProtobufCBinaryData){4, address};
	ep.port = 41641;
	ep.kind = SKERRY__V1__ENDPOINT_KIND__ENDPOINT_KIND_LOCAL;
	c = world_command(&w, 0);
	f = WBODY(&w, c, NODE_FACTS, node_facts, NodeFacts);
	f->n_facts = 1;
	f->facts = world_alloc(&w, 2 * sizeof(*f->facts));
	for (int i = 0; i < 2; i++) {
		f->facts[i] = WNEW(&w, Skerry__Internal__V1__NodeFact, node_fact);
		f->facts[i]->tailnet = 1;
		f->facts[i]->node = i == 0 ? a : b;
		f->facts[i]->set_endpoints = true;
		f->facts[i]->n_endpoints = 1;
		f->facts[i]->endpoints = &epp;
	}
	f->facts[0]->session = 5;
	world_refuse(&w, c, 10, "SESSION_ENDED");
	world_do(&w, world_session(&w, 1, a, 5, false, false));
	world_do(&w, c);
	assert_int_equal(w.r.n_changes, 1);
	assert_int_equal(w.r.changes[0].kind, CHANGE_ENDPOINTS);
	assert_ok(query_endpoints(&w.kv[0], 1, a, &w.arena, &e));
	assert_int_equal(e->endpoints[0]->port, 41641);
	/* The same again changes nothing. */
	world_do(&w, c);
	assert_int_equal(w.r.n_changes, 0);
	/* In a batch a wrong one does not hold up the others. */
	f->n_facts = 2;
	f->facts[0]->session = 99;
	world_do(&w, c);
	assert_ok(query_endpoints(&w.kv[0], 1, b, &w.arena, &e));
	assert_int_equal(e->n_endpoints, 1);
	ep.port = 0;
	f->n_facts = 1;
	world_refuse(&w, c, 3, "ENDPOINT_INVALID");
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_attach_detach), cmocka_unit_test(test_lighthouse_lost),
		cmocka_unit_test(test_leader_gap),    cmocka_unit_test(test_ephemeral),
		cmocka_unit_test(test_expiry),        cmocka_unit_test(test_portions),
		cmocka_unit_test(test_facts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
