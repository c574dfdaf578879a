/* Registration, names, addresses, changes and removal of nodes. LIBS: tailnet */
#include "tests/unit/tailnet/world.h"

static void test_bootstrap(void **state UNUSED)
{
	struct world w;
	TailnetRecord *t;
	UserRecord *u;
	CaRecord *ca;

	world_open(&w, 1);
	world_refuse(&w, world_tick_command(&w), 9, "NOT_INITIALISED");
	world_do(&w, world_bootstrap(&w));
	world_refuse(&w, world_bootstrap(&w), 9, "INITIALISED");
	assert_ok(query_tailnet_named(&w.kv[0], "default", &w.arena, &t));
	assert_int_equal(t->id, 1);
	assert_string_equal(t->dns->base_domain, "default.internal");
	assert_ok(query_user_login(&w.kv[0], 1, "admin", &w.arena, &u));
	assert_int_equal(u->id, 2);
	assert_ok(query_ca(&w.kv[0], &w.arena, &ca));
	assert_int_equal(ca->generation, 1);
	assert_int_equal(world_meta(&w, 0)->cluster_id, 77);
	assert_int_equal(world_meta(&w, 0)->revision, 1);
	world_close(&w);
}

static void test_register(void **state UNUSED)
{
	struct world w;
	uint64_t key, a, b;
	NodeRecord *n;
	RegisterFacts *f;

	world_open_two(&w, 2);
	key = world_do(&w, world_key(&w, 1, &(struct key_form){.user = 2, .reusable = true}));
	f = world_facts(&w, 1, "Laptop.local");
	a = world_do(&w, world_register(&w, 1, key, f));
	assert_string_equal(w.r.reply.object,
			    world_text(&w, "tailnets/1/nodes/%llu", (unsigned long long)a));
	n = world_node(&w, 1, a);
	assert_non_null(n);
	assert_string_equal(n->given_name, "laptop");
	assert_true(n->approved);
	assert_int_equal(n->addresses[0].len, 4);
	assert_int_equal(n->addresses[0].data[0], 100);
	assert_int_equal(n->addresses[1].len, 16);
	assert_memory_equal(n->addresses[0].data, n->addresses[1].data + 12, 4);
	assert_int_equal(n->expire_ms, w.now + 180 * DAY);

	/* The same device again: the same node, its expiry anew. */
	w.now += HOUR;
	assert_int_equal(world_do(&w, world_register(&w, 1, key, f)), a);
	assert_int_equal(world_node(&w, 1, a)->expire_ms, w.now + 180 * DAY);
	/* With a new node key: the same node, the old key is unknown. */
	{
		RegisterFacts *g = world_facts(&w, 1, "Laptop.local");
		NodeRecord *x;

		g->node_key = world_fill(&w, 32, 999);
		assert_int_equal(world_do(&w, world_register(&w, 1, key, g)), a);
		assert_err(query_node_by_key(&w.kv[0], f->node_key.data, &w.arena, &x),
			   ERR_NOT_FOUND);
		assert_ok(query_node_by_key(&w.kv[0], g->node_key.data, &w.arena, &x));
		assert_int_equal(x->id, a);
	}
	/* Another device of the same name. */
	b = world_do(&w, world_register(&w, 1, key, world_facts(&w, 2, "laptop")));
	assert_string_equal(world_node(&w, 1, b)->given_name, "laptop-1");
	/* Its node key cannot be had by a third one, in no tailnet. */
	f = world_facts(&w, 3, "thief");
	f->node_key = world_node(&w, 1, b)->node_key;
	world_refuse(&w, world_register(&w, 1, key, f), 6, "NODE_KEY_IN_USE");
	assert_null(strstr(w.r.reply.message, "laptop"));
	f = world_facts(&w, 3, "thief");
	f->disco_key = world_facts(&w, 2, "")->disco_key;
	world_refuse(&w, world_register(&w, 1, key, f), 6, "DISCO_KEY_IN_USE");
	/* The key is not one of the other tailnet. */
	world_refuse(&w, world_register(&w, 3, key, world_facts(&w, 4, "x")), 16,
		     "AUTH_KEY_UNKNOWN");
	{
		Command *c = world_register(&w, 1, key, world_facts(&w, 4, "x"));

		c->node_register->auth_key_verified = false;
		world_refuse(&w, c, 16, "AUTH_KEY_UNKNOWN");
	}
	/* The same machine in the other tailnet is another node. */
	key = world_do(&w, world_key(&w, 3, &(struct key_form){.user = 4}));
	f = world_facts(&w, 1, "laptop");
	f->node_key = world_fill(&w, 32, 12345);
	b = world_do(&w, world_register(&w, 3, key, f));
	assert_int_not_equal(a, b);
	assert_string_equal(world_node(&w, 3, b)->given_name, "laptop");
	{
		struct query_cursor cur = {0};
		NodeRecord *x;

		assert_ok(query_node_of_machine(&w.kv[0], 1, f->machine_key->key.data, &cur,
						&w.arena, &x));
		assert_int_equal(x->id, a);
		assert_ok(query_node_of_machine(&w.kv[0], 1, f->machine_key->key.data, &cur,
						&w.arena, &x));
		assert_int_equal(x->id, b);
		assert_err(query_node_of_machine(&w.kv[0], 1, f->machine_key->key.data, &cur,
						 &w.arena, &x),
			   ERR_NOT_FOUND);
	}
	world_close(&w);
}

static void test_wrong_facts(void **state UNUSED)
{
	struct world w;
	uint64_t key;

	world_open_two(&w, 3);
	key = world_do(&w, world_key(&w, 1, &(struct key_form){.user = 2, .reusable = true}));
	for (int i = 0; i < 9; i++) {
		RegisterFacts *f = world_facts(&w, 1, "x");
		Skerry__V1__Endpoint *e = world_alloc(&w, sizeof(*e));
		Command *c = world_register(&w, 1, key, f);
		char *tag = "nope";

		skerry__v1__endpoint__init(e);
		switch (i) {
		case 0: f->node_key.len = 31; break;
		case 1: f->machine_key->key.len = 0; break;
		case 2: f->disco_key.len = 5; break;
		case 3: memset(f->node_key.data, 0, 32); break;
		case 4: f->hostname = "a\nb"; break;
		case 5:
			f->n_requested_tags = 1;
			f->requested_tags = &tag;
			break;
		case 6:
			f->n_endpoints = 1;
			f->endpoints = &e;
			break;
		case 7: c->random.len = 16; break;
		case 8: c->node_register->facts = NULL; break;
		}
		assert_int_equal(world_apply(&w, c), 3);
		assert_true(w.r.reply.field[0] != '\0');
	}
	world_close(&w);
}

/* trust.md: a spent key registers again only the node that exists, unchanged; it refreshes nothing. */
static void test_spent_key(void **state UNUSED)
{
	struct world w;
	RegisterFacts *f, *g;
	uint64_t key, node, expire;

	world_open_two(&w, 4);
	key = world_do(&w, world_key(&w, 1, &(struct key_form){.user = 2}));
	f = world_facts(&w, 1, "a");
	node = world_do(&w, world_register(&w, 1, key, f));
	expire = world_node(&w, 1, node)->expire_ms;
	w.now += HOUR;
	assert_int_equal(world_do(&w, world_register(&w, 1, key, f)), node);
	assert_int_equal(world_node(&w, 1, node)->expire_ms, expire);
	assert_int_equal(w.r.n_changes, 0);
	/* Another device; the same with another node key. */
	world_refuse(&w, world_register(&w, 1, key, world_facts(&w, 2, "b")), 7, "AUTH_KEY_SPENT");
	g = world_facts(&w, 1, "a");
	g->node_key = world_fill(&w, 32, 4711);
	world_refuse(&w, world_register(&w, 1, key, g), 7, "AUTH_KEY_SPENT");
	/* Expired since: the same rule. */
	world_pass(&w, 2 * DAY);
	assert_int_equal(world_do(&w, world_register(&w, 1, key, f)), node);
	world_refuse(&w, world_register(&w, 1, key, world_facts(&w, 2, "b")), 7,
		     "AUTH_KEY_EXPIRED");
	/* A month later too, as long as the node lives. */
	world_pass(&w, 40 * DAY);
	assert_int_equal(world_do(&w, world_register(&w, 1, key, f)), node);
	/* Not once the node's own key has expired. */
	world_pass(&w, 180 * DAY);
	assert_true(world_node(&w, 1, node)->expired);
	world_refuse(&w, world_register(&w, 1, key, f), 7, "AUTH_KEY_EXPIRED");
	/* Revoked: unknown. */
	key = world_do(&w, world_key(&w, 1, &(struct key_form){.user = 2}));
	world_do(&w, world_register(&w, 1, key, world_facts(&w, 5, "c")));
	{
		Command *c = world_command(&w, 1);

		WBODY(&w, c, AUTH_KEY_DELETE, auth_key_delete, AuthKeyDelete)->id = key;
		world_do(&w, c);
	}
	world_refuse(&w, world_register(&w, 1, key, world_facts(&w, 5, "c")), 16,
		     "AUTH_KEY_UNKNOWN");
	world_close(&w);
}

static void test_unapproved_and_tags(void **state UNUSED)
{
	struct world w;
	uint64_t key, a, b, c1;
	RegisterFacts *f;
	NodeRecord *na, *nb;
	Command *c;
	char *tag = "tag:web", *other = "tag:db";

	world_open_two(&w, 5);
	key = world_do(&w, world_key(&w, 1, &(struct key_form){.user = 2, .unapproved = true}));
	a = world_do(&w, world_register(&w, 1, key, world_facts(&w, 1, "a")));
	b = world_add(&w, 1, 2, "b");
	na = world_node(&w, 1, a);
	nb = world_node(&w, 1, b);
	assert_false(netmap_visible(&w.kv[0], 1, na, nb));
	assert_false(netmap_visible(&w.kv[0], 1, nb, na));
	c = world_command(&w, 1);
	{
		Skerry__Internal__V1__NodeUpdate *u =
			WBODY(&w, c, NODE_UPDATE, node_update, NodeUpdate);

		u->id = a;
		u->set_approved = true;
		u->approved = true;
		u->etag = "1";
	}
	world_refuse(&w, c, 10, "ETAG_MISMATCH");
	c->node_update->etag = world_text(&w, "%llu", (unsigned long long)na->revision);
	world_do(&w, c);
	assert_int_equal(w.r.n_changes, 1);
	assert_true(w.r.changes[0].visibility);
	assert_true(netmap_visible(&w.kv[0], 1, world_node(&w, 1, a), nb));

	/* A tagged key: its tags, no expiry; others are refused. */
	key = world_do(&w,
		       world_key(&w, 1, &(struct key_form){.tag = "tag:web", .reusable = true}));
	f = world_facts(&w, 3, "web");
	f->n_requested_tags = 1;
	f->requested_tags = &other;
	world_refuse(&w, world_register(&w, 1, key, f), 7, "TAG_NOT_PERMITTED");
	f->requested_tags = &tag;
	c1 = world_do(&w, world_register(&w, 1, key, f));
	assert_int_equal(world_node(&w, 1, c1)->expire_ms, 0);
	assert_string_equal(world_node(&w, 1, c1)->tags[0], "tag:web");
	world_pass(&w, 400 * DAY);
	assert_false(world_node(&w, 1, c1)->expired);
	assert_true(world_node(&w, 1, b)->expired);
	assert_false(netmap_visible(&w.kv[0], 1, world_node(&w, 1, c1), world_node(&w, 1, b)));
	/* A tagged node without user cannot lose its tags. */
	c = world_command(&w, 1);
	{
		Skerry__Internal__V1__NodeUpdate *u =
			WBODY(&w, c, NODE_UPDATE, node_update, NodeUpdate);

		u->id = c1;
		u->set_tags = true;
	}
	world_refuse(&w, c, 9, "NODE_HAS_NO_USER");
	c->node_update->set_user = true;
	c->node_update->user = 2;
	world_do(&w, c);
	/* What was set by hand outlives a registration: no expiry, tags. */
	{
		uint64_t plain = world_do(
			&w, world_key(&w, 1, &(struct key_form){.user = 2, .reusable = true}));
		Command *h = world_command(&w, 1);
		Skerry__Internal__V1__NodeUpdate *u =
			WBODY(&w, h, NODE_UPDATE, node_update, NodeUpdate);

		u->id = world_do(&w, world_register(&w, 1, plain, world_facts(&w, 8, "d")));
		u->set_expire = true;
		world_do(&w, h);
		assert_int_equal(
			world_do(&w, world_register(&w, 1, plain, world_facts(&w, 8, "d"))), u->id);
		assert_int_equal(world_node(&w, 1, u->id)->expire_ms, 0);
		u->set_expire = false;
		u->set_tags = true;
		u->n_tags = 1;
		u->tags = &tag;
		world_do(&w, h);
		world_do(&w, world_register(&w, 1, plain, world_facts(&w, 8, "d")));
		assert_int_equal(world_node(&w, 1, u->id)->n_tags, 1);
		assert_int_equal(world_node(&w, 1, u->id)->expire_ms, 0);
	}
	assert_int_equal(world_node(&w, 1, c1)->expire_ms, w.now + 180 * DAY);
	assert_int_equal(world_node(&w, 1, c1)->user, 2);
	/* A user of the other tailnet is none here. */
	c->node_update->user = 4;
	world_refuse(&w, c, 5, "USER_NOT_FOUND");
	world_close(&w);
}

static Command *rename_command(struct world *w, uint64_t node, const char *name)
{
	Command *c = world_command(w, 1);
	Skerry__Internal__V1__NodeUpdate *u = WBODY(w, c, NODE_UPDATE, node_update, NodeUpdate);

	u->id = node;
	u->set_given_name = true;
	u->given_name = (char *)name;
	return c;
}

static Command *delete_command(struct world *w, uint64_t tailnet, uint64_t node)
{
	Command *c = world_command(w, tailnet);

	WBODY(w, c, NODE_DELETE, node_delete, NodeDelete)->id = node;
	return c;
}

static Command *facts_command(struct world *w, uint64_t node, const char *hostname)
{
	Command *c = world_command(w, 0);
	Skerry__Internal__V1__NodeFacts *f = WBODY(w, c, NODE_FACTS, node_facts, NodeFacts);

	f->n_facts = 1;
	f->facts = world_alloc(w, sizeof(*f->facts));
	f->facts[0] = WNEW(w, Skerry__Internal__V1__NodeFact, node_fact);
	f->facts[0]->tailnet = 1;
	f->facts[0]->node = node;
	f->facts[0]->hostname = (char *)hostname;
	return c;
}

static void test_names_rest(void **state UNUSED)
{
	struct world w;
	uint64_t a, b;

	world_open_two(&w, 6);
	a = world_add(&w, 1, 1, "box");
	b = world_add(&w, 1, 2, "crate");
	world_refuse(&w, rename_command(&w, b, "box"), 6, "NAME_TAKEN");
	world_refuse(&w, rename_command(&w, b, "wpad"), 3, "NAME_REFUSED");
	world_refuse(&w, rename_command(&w, b, "Not A Label"), 3, "NAME_INVALID");
	world_do(&w, rename_command(&w, a, "chest"));
	assert_true(world_node(&w, 1, a)->name_fixed);
	/* The name rests for others, not for the one that had it. */
	world_refuse(&w, rename_command(&w, b, "box"), 6, "NAME_TAKEN");
	world_do(&w, rename_command(&w, a, ""));
	assert_string_equal(world_node(&w, 1, a)->given_name, "box");
	assert_false(world_node(&w, 1, a)->name_fixed);
	/* It follows the hostname as long as nobody fixed it. */
	world_do(&w, facts_command(&w, a, "trunk"));
	assert_string_equal(world_node(&w, 1, a)->given_name, "trunk");
	world_do(&w, facts_command(&w, b, "trunk"));
	assert_string_equal(world_node(&w, 1, b)->given_name, "trunk-1");
	world_do(&w, rename_command(&w, a, "fixed"));
	world_do(&w, facts_command(&w, a, "other"));
	assert_string_equal(world_node(&w, 1, a)->given_name, "fixed");
	/* A deleted node's name is free after a day. */
	world_do(&w, delete_command(&w, 1, a));
	world_refuse(&w, rename_command(&w, b, "fixed"), 6, "NAME_TAKEN");
	world_pass(&w, DAY - 1);
	world_refuse(&w, rename_command(&w, b, "fixed"), 6, "NAME_TAKEN");
	world_pass(&w, 1);
	world_do(&w, rename_command(&w, b, "fixed"));
	world_refuse(&w, delete_command(&w, 1, a), 5, "NODE_NOT_FOUND");
	world_close(&w);
}

static void test_many_of_one_name(void **state UNUSED)
{
	struct world w;
	uint64_t key, id = 0;

	world_open_two(&w, 7);
	w.unchecked = true;
	key = world_do(
		&w, world_key(&w, 1,
			      &(struct key_form){.user = 2, .reusable = true, .ephemeral = true}));
	for (uint64_t i = 0; i < 200; i++) {
		id = world_do(&w, world_register(&w, 1, key, world_facts(&w, 100 + i, "runner")));
	}
	assert_non_null(strstr(world_node(&w, 1, id)->given_name, "runner-"));
	world_check(&w);
	world_close(&w);
}

/* A /29 has seven usable addresses (.0 is never given); released ones rest a day. */
static void test_addresses_run_out(void **state UNUSED)
{
	struct world w;
	Command *c;
	Skerry__V1__Prefix p, *pp = &p;
	uint8_t address[4] = {100, 64, 9, 0};
	uint64_t t, key, node[7];

	world_open_two(&w, 8);
	skerry__v1__prefix__init(&p);
	p.address = (ProtobufCBinaryData){4, address};
	p.length = 29;
	c = world_tailnet(&w, "small");
	c->tailnet_create->n_prefixes = 1;
	c->tailnet_create->prefixes = &pp;
	t = world_do(&w, c);
	key = world_do(&w, world_key(&w, t, &(struct key_form){.user = t + 1, .reusable = true}));
	for (uint64_t i = 0; i < 7; i++) {
		NodeRecord *n;

		node[i] = world_do(&w, world_register(&w, t, key, world_facts(&w, 50 + i, "n")));
		n = world_node(&w, t, node[i]);
		assert_int_equal(n->addresses[0].data[2], 9);
		assert_in_range(n->addresses[0].data[3], 1, 7);
	}
	world_refuse(&w, world_register(&w, t, key, world_facts(&w, 60, "n")), 8,
		     "NO_FREE_ADDRESS");
	world_do(&w, delete_command(&w, t, node[3]));
	world_refuse(&w, world_register(&w, t, key, world_facts(&w, 60, "n")), 8,
		     "NO_FREE_ADDRESS");
	world_pass(&w, DAY + 1);
	key = world_do(&w, world_key(&w, t, &(struct key_form){.user = t + 1, .reusable = true}));
	world_do(&w, world_register(&w, t, key, world_facts(&w, 60, "n")));
	/* Outside of the range nothing can be asked for. */
	address[1] = 1;
	c = world_tailnet(&w, "wrong");
	c->tailnet_create->n_prefixes = 1;
	c->tailnet_create->prefixes = &pp;
	assert_int_equal(world_apply(&w, c), 3);
	world_close(&w);
}

static Command *pending_command(struct world *w, uint64_t tailnet, const char *code,
				RegisterFacts *f)
{
	Command *c = world_command(w, tailnet);
	Skerry__Internal__V1__PendingCreate *p =
		WBODY(w, c, PENDING_CREATE, pending_create, PendingCreate);

	p->code = (char *)code;
	p->facts = f;
	return c;
}

static Command *decide_command(struct world *w, uint64_t tailnet, const char *code, bool approve)
{
	Command *c = world_command(w, tailnet);
	Skerry__Internal__V1__PendingDecide *p =
		WBODY(w, c, PENDING_DECIDE, pending_decide, PendingDecide);

	p->code = (char *)code;
	p->approve = approve;
	p->user = approve ? tailnet + 1 : 0;
	return c;
}

static void test_pending(void **state UNUSED)
{
	struct world w;
	RegisterFacts *f;
	PendingRecord *p;
	uint64_t id, node;

	world_open_two(&w, 9);
	f = world_facts(&w, 1, "phone");
	id = world_do(&w, pending_command(&w, 1, "ABCDEFGH", f));
	/* Asked again: the same one. */
	assert_int_equal(world_do(&w, pending_command(&w, 1, "OTHEROTHER", f)), id);
	world_refuse(&w, pending_command(&w, 3, "ABCDEFGH", world_facts(&w, 2, "x")), 6,
		     "CODE_TAKEN");
	world_refuse(&w, decide_command(&w, 3, "ABCDEFGH", true), 5, "CODE_UNKNOWN");
	node = world_do(&w, decide_command(&w, 1, "ABCDEFGH", true));
	assert_string_equal(world_node(&w, 1, node)->given_name, "phone");
	assert_true(world_node(&w, 1, node)->approved);
	assert_ok(query_pending_code(&w.kv[0], "ABCDEFGH", w.now, &w.arena, &p));
	assert_int_equal(p->node, node);
	assert_int_equal(world_do(&w, decide_command(&w, 1, "ABCDEFGH", true)), node);
	world_refuse(&w, decide_command(&w, 1, "ABCDEFGH", false), 9, "ALREADY_DECIDED");
	/* Refused; expired. */
	world_do(&w, pending_command(&w, 1, "REFUSEME", world_facts(&w, 3, "y")));
	world_do(&w, decide_command(&w, 1, "REFUSEME", false));
	assert_ok(query_pending_code(&w.kv[0], "REFUSEME", w.now, &w.arena, &p));
	assert_int_equal(p->node, 0);
	world_do(&w, pending_command(&w, 3, "EXPIREME", world_facts(&w, 4, "z")));
	w.now += LIM_PENDING_MS;
	world_refuse(&w, decide_command(&w, 3, "EXPIREME", true), 5, "CODE_UNKNOWN");
	/* The device asks anew before the Tick has come. */
	world_do(&w, pending_command(&w, 3, "AGAINAGAIN", world_facts(&w, 4, "z")));
	world_pass(&w, 0);
	assert_err(query_pending_code(&w.kv[0], "EXPIREME", 0, &w.arena, &p), ERR_NOT_FOUND);
	world_do(&w, decide_command(&w, 3, "AGAINAGAIN", true));
	/* A key in use by another machine does not even wait. */
	f = world_facts(&w, 9, "thief");
	f->node_key = world_node(&w, 1, node)->node_key;
	world_refuse(&w, pending_command(&w, 3, "THIEFTHIEF", f), 6, "NODE_KEY_IN_USE");
	world_close(&w);
}

static void test_logout_and_create(void **state UNUSED)
{
	struct world w;
	uint64_t a, b;
	Command *c;
	Skerry__Internal__V1__NodeLogout *l;
	Skerry__Internal__V1__NodeCreate *n;

	world_open_two(&w, 10);
	a = world_add(&w, 1, 1, "a");
	c = world_command(&w, 1);
	l = WBODY(&w, c, NODE_LOGOUT, node_logout, NodeLogout);
	l->id = a;
	l->machine_key = world_facts(&w, 2, "")->machine_key->key;
	world_refuse(&w, c, 7, "MACHINE_KEY");
	l->machine_key = world_facts(&w, 1, "")->machine_key->key;
	world_do(&w, c);
	assert_true(world_node(&w, 1, a)->expired);

	c = world_command(&w, 3);
	n = WBODY(&w, c, NODE_CREATE, node_create, NodeCreate);
	n->facts = world_facts(&w, 7, "router");
	n->user = 4;
	b = world_do(&w, c);
	assert_true(world_node(&w, 3, b)->approved);
	world_refuse(&w, c, 6, "NODE_EXISTS");
	world_close(&w);
}

static void test_netmap(void **state UNUSED)
{
	struct world w;
	uint64_t a, b, c, after = 0;
	Skerry__V1__NetmapSelf *self;
	Skerry__V1__NetmapPeer *peer;
	NodeRecord *n;
	size_t seen = 0;

	world_open_two(&w, 11);
	a = world_add(&w, 1, 1, "a");
	b = world_add(&w, 1, 2, "b");
	c = world_add(&w, 3, 3, "c");
	assert_ok(netmap_self(&w.kv[0], 1, a, &w.arena, &self));
	assert_string_equal(self->user, "admin");
	assert_int_equal(self->n_lighthouses, 1);
	assert_int_equal(self->n_prefixes, 2);
	assert_int_equal(self->cluster_id, 77);
	assert_ok(netmap_peer_id(&w.kv[0], 1, b, &w.arena, &peer));
	assert_string_equal(peer->given_name, "b");
	assert_int_equal(peer->disco_key.len, 32);
	assert_err(netmap_peer_id(&w.kv[0], 1, c, &w.arena, &peer), ERR_NOT_FOUND);
	while (netmap_visible_next(&w.kv[0], 1, world_node(&w, 1, a), after, &w.arena, &n) == 0) {
		assert_int_equal(n->id, b);
		after = n->id;
		seen++;
	}
	assert_int_equal(seen, 1);
	assert_false(netmap_visible_id(&w.kv[0], 1, a, c, &w.arena));
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bootstrap),
		cmocka_unit_test(test_register),
		cmocka_unit_test(test_wrong_facts),
		cmocka_unit_test(test_spent_key),
		cmocka_unit_test(test_unapproved_and_tags),
		cmocka_unit_test(test_names_rest),
		cmocka_unit_test(test_many_of_one_name),
		cmocka_unit_test(test_addresses_run_out),
		cmocka_unit_test(test_pending),
		cmocka_unit_test(test_logout_and_create),
		cmocka_unit_test(test_netmap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
