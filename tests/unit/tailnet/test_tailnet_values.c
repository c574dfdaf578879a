/* Wrong values are refused with their field named; the rest of the reads. LIBS: tailnet */
#include "tests/unit/tailnet/world.h"

static Command *dns_command(struct world *w, Skerry__V1__DnsConfig *dns)
{
	Command *c = world_command(w, 1);
	Skerry__Internal__V1__TailnetUpdate *u =
		WBODY(w, c, TAILNET_UPDATE, tailnet_update, TailnetUpdate);

	u->id = 1;
	u->set_dns = true;
	u->dns = dns;
	return c;
}

static void test_dns(void **state UNUSED)
{
	static const struct {
		const char *base, *resolver, *route, *record, *type, *value, *field;
	} cases[] = {
		{"", NULL, NULL, NULL, NULL, NULL, NULL},
		{"a.example", "9.9.9.9", "corp.example", "x.a.example", "A", "10.0.0.1", NULL},
		{"a.example", "9.9.9.9:5353", NULL, "x.a.example", "AAAA", "fd00::1", NULL},
		{"a.example", "[2620:fe::fe]:53", NULL, NULL, NULL, NULL, NULL},
		{"", NULL, NULL, "x.default.internal", "A", "10.0.0.1", NULL},
		{"-a.example", NULL, NULL, NULL, NULL, NULL, "dns.base_domain"},
		{"internal", NULL, NULL, NULL, NULL, NULL, "dns.base_domain"},
		{"wpad.example", NULL, NULL, NULL, NULL, NULL, "dns.base_domain"},
		{"a.example", "dns.quad9.net", NULL, NULL, NULL, NULL, "dns.resolvers"},
		{"a.example", "9.9.9.9:0", NULL, NULL, NULL, NULL, "dns.resolvers"},
		{"a.example", "9.9.9.9", ".", NULL, NULL, NULL, "dns.routes"},
		{"a.example", NULL, NULL, "x.b.example", "A", "10.0.0.1", "dns.records"},
		{"a.example", NULL, NULL, "x..a.example", "A", "10.0.0.1", "dns.records"},
		{"a.example", NULL, NULL, "isatap.a.example", "A", "10.0.0.1", "dns.records"},
		{"a.example", NULL, NULL, "x.a.example", "MX", "10.0.0.1", "dns.records"},
		{"a.example", NULL, NULL, "x.a.example", "A", "fd00::1", "dns.records"},
	};
	struct world w;

	world_open_two(&w, 1);
	TEST_TABLE(t, cases)
	{
		Skerry__V1__DnsConfig d = SKERRY__V1__DNS_CONFIG__INIT;
		Skerry__V1__DnsRoute route = SKERRY__V1__DNS_ROUTE__INIT, *routep = &route;
		Skerry__V1__DnsRecord rec = SKERRY__V1__DNS_RECORD__INIT, *recp = &rec;
		char *resolver = (char *)t->resolver;

		d.base_domain = (char *)t->base;
		d.resolvers = &resolver;
		d.n_resolvers = t->resolver != NULL;
		route.domain = (char *)t->route;
		route.resolvers = &resolver;
		route.n_resolvers = t->resolver != NULL;
		d.routes = &routep;
		d.n_routes = t->route != NULL;
		rec.name = (char *)t->record;
		rec.type = (char *)t->type;
		rec.value = (char *)t->value;
		d.records = &recp;
		d.n_records = t->record != NULL;
		if (world_apply(&w, dns_command(&w, &d)) != (t->field != NULL ? 3 : 0)) {
			TEST_FAIL("case %td: %s", t - cases, w.r.reply.message);
		}
		assert_string_equal(w.r.reply.field, t->field != NULL ? t->field : "");
	}
	world_close(&w);
}

/* Each case changes one thing of a command that is right without it. */
static void test_commands(void **state UNUSED)
{
	struct world w;
	uint64_t a, b;
	NodeRecord *n;

	world_open_two(&w, 2);
	a = world_add(&w, 1, 1, "a");
	b = world_add(&w, 1, 2, "b");
	assert_int_not_equal(a, b);
	for (int i = 0; i < 9; i++) {
		Command *c = world_command(&w, 1);
		Skerry__Internal__V1__NodeUpdate *u =
			WBODY(&w, c, NODE_UPDATE, node_update, NodeUpdate);
		char *tags[2] = {"tag:a", "tag:b"};
		int want = 3;

		u->id = a;
		switch (i) {
		case 0:
			u->set_expire = true;
			u->expire_ms = w.now + LIM_LIFETIME_MS + 1;
			break;
		case 1:
			u->set_tags = true;
			u->tags = tags;
			u->n_tags = 2;
			u->set_expire = true;
			u->expire_ms = w.now + 1;
			want = 9;
			break;
		case 2:
			u->set_tags = true;
			u->tags = tags;
			u->n_tags = 2;
			tags[1] = "tag:A";
			break;
		case 3:
			u->set_tags = true;
			u->tags = tags;
			u->n_tags = 2;
			tags[1] = "tag:a";
			break;
		case 4:
			u->id = 999;
			want = 5;
			break;
		case 5:
			c->tailnet = 3;
			want = 5;
			break;
		case 6: c->tailnet = 0; break;
		case 7:
			c->policy_revision = 4;
			want = 10;
			break;
		case 8:
			c->reason = world_alloc(&w, LIM_TEXT_BYTES + 2);
			memset(c->reason, 'x', LIM_TEXT_BYTES + 1);
			break;
		}
		if (world_apply(&w, c) != want) {
			TEST_FAIL("case %d: code %d, %s", i, w.r.reply.code, w.r.reply.message);
		}
	}
	/* An expiry in the past is at once; a later one takes it back. */
	{
		Command *c = world_command(&w, 1);
		Skerry__Internal__V1__NodeUpdate *u =
			WBODY(&w, c, NODE_UPDATE, node_update, NodeUpdate);

		u->id = a;
		u->set_expire = true;
		u->expire_ms = w.now;
		world_do(&w, c);
		assert_true(world_node(&w, 1, a)->expired);
		u->expire_ms = w.now + HOUR;
		world_do(&w, c);
		assert_false(world_node(&w, 1, a)->expired);
		world_pass(&w, HOUR);
		assert_true(world_node(&w, 1, a)->expired);
		u->expire_ms = 0;
		world_do(&w, c);
		n = world_node(&w, 1, a);
		assert_false(n->expired);
		assert_int_equal(n->expire_ms, 0);
	}
	world_close(&w);
}

/* Moving a node to a user who has one of the same machine is refused. */
static void test_move_between_users(void **state UNUSED)
{
	struct world w;
	uint64_t user, key, a, b;
	RegisterFacts *f;
	Command *c;
	Skerry__Internal__V1__NodeUpdate *u;

	world_open_two(&w, 3);
	c = world_command(&w, 1);
	WBODY(&w, c, USER_CREATE, user_create, UserCreate)->login_name = "ann";
	user = world_do(&w, c);
	a = world_add(&w, 1, 1, "a");
	key = world_do(&w, world_key(&w, 1, &(struct key_form){.user = user}));
	f = world_facts(&w, 1, "a");
	f->node_key = world_fill(&w, 32, 777);
	b = world_do(&w, world_register(&w, 1, key, f));
	assert_int_not_equal(a, b);
	c = world_command(&w, 1);
	u = WBODY(&w, c, NODE_UPDATE, node_update, NodeUpdate);
	u->id = a;
	u->set_user = true;
	u->user = user;
	world_refuse(&w, c, 6, "NODE_EXISTS");
	/* Both share the disco key of their machine. It stays theirs when one goes. */
	{
		Command *d = world_command(&w, 1);

		WBODY(&w, d, NODE_DELETE, node_delete, NodeDelete)->id = b;
		world_do(&w, d);
	}
	world_do(&w, c);
	key = world_do(&w, world_key(&w, 3, &(struct key_form){.user = 4}));
	f = world_facts(&w, 9, "z");
	f->disco_key = world_facts(&w, 1, "")->disco_key;
	world_refuse(&w, world_register(&w, 3, key, f), 6, "DISCO_KEY_IN_USE");
	world_close(&w);
}

static void test_actors(void **state UNUSED)
{
	static const char *const texts[] = {"system",       "unix:7", "api-key:7", "device:7",
					    "lighthouse:7", "system", "anonymous"};
	struct world w;

	world_open_two(&w, 4);
	for (int kind = 0; kind < (int)ARRAY_LEN(texts); kind++) {
		Command *c = world_command(&w, 1);
		AuditRecord *a;

		c->actor = WNEW(&w, Actor, actor);
		c->actor->kind = kind;
		c->actor->id = 7;
		WBODY(&w, c, USER_CREATE, user_create, UserCreate)->login_name =
			world_text(&w, "u%d", kind);
		world_do(&w, c);
		assert_ok(query_audit_before(&w.kv[0], 1, UINT64_MAX, &w.arena, &a));
		assert_string_equal(a->actor, texts[kind]);
	}
	world_close(&w);
}

static void test_host_info(void **state UNUSED)
{
	Skerry__V1__HostInfo h = SKERRY__V1__HOST_INFO__INIT;
	Skerry__Internal__V1__NodeFacts *f;
	struct world w;
	uint64_t a;
	Command *c;

	world_open_two(&w, 5);
	a = world_add(&w, 1, 1, "a");
	h.os = "linux";
	h.client_version = "1.2";
	c = world_command(&w, 0);
	f = WBODY(&w, c, NODE_FACTS, node_facts, NodeFacts);
	f->n_facts = 1;
	f->facts = world_alloc(&w, sizeof(*f->facts));
	f->facts[0] = WNEW(&w, Skerry__Internal__V1__NodeFact, node_fact);
	f->facts[0]->tailnet = 1;
	f->facts[0]->node = a;
	f->facts[0]->host_info = &h;
	world_do(&w, c);
	assert_int_equal(w.r.n_changes, 1);
	assert_string_equal(world_node(&w, 1, a)->client_version, "1.2");
	world_do(&w, c);
	assert_int_equal(w.r.n_changes, 0);
	h.client_version = "1.3";
	world_do(&w, c);
	assert_string_equal(world_node(&w, 1, a)->client_version, "1.3");
	f->facts[0]->node = 999;
	world_refuse(&w, c, 5, "NODE_NOT_FOUND");
	f->facts[0]->node = a;
	f->facts[0]->disco_key = world_fill(&w, 5, 1);
	assert_int_equal(world_apply(&w, c), 3);
	world_close(&w);
}

static void test_reads(void **state UNUSED)
{
	uint64_t a, key, epoch, revision, now, after = 0;
	struct arena tiny;
	AuthKeyRecord *k;
	NodeRecord *n;
	struct world w;
	size_t count = 0;

	world_open_two(&w, 6);
	key = world_do(&w, world_key(&w, 1, &(struct key_form){.user = 2}));
	a = world_do(&w, world_register(&w, 1, key, world_facts(&w, 1, "a")));
	n = world_node(&w, 1, a);
	assert_ok(query_revision(&w.kv[0], &epoch, &revision, &now));
	assert_int_equal(epoch, 5);
	assert_int_equal(revision, w.r.reply.revision);
	assert_int_equal(now, w.now);
	assert_ok(query_node_by_address(&w.kv[0], n->addresses[1].data, 16, &w.arena, &n));
	assert_int_equal(n->id, a);
	assert_ok(query_node_named(&w.kv[0], 1, "a", &w.arena, &n));
	assert_err(query_node_named(&w.kv[0], 3, "a", &w.arena, &n), ERR_NOT_FOUND);
	assert_ok(query_auth_key_any(&w.kv[0], key, &w.arena, &k));
	assert_int_equal(k->tailnet, 1);
	assert_int_equal(k->used_by, a);
	assert_true(query_auth_key_valid(k, w.now));
	assert_false(query_auth_key_valid(k, w.now + DAY));
	assert_err(query_auth_key(&w.kv[0], 3, key, &w.arena, &k), ERR_NOT_FOUND);
	/* Pages: one after another, each record once. */
	for (uint64_t i = 2; i < 12; i++) {
		world_add(&w, 1, i, world_text(&w, "n%llu", (unsigned long long)i));
	}
	while (query_node_next(&w.kv[0], 1, after, &w.arena, &n) == 0) {
		assert_true(n->id > after);
		after = n->id;
		count++;
	}
	assert_int_equal(count, 11);
	/* Without room the answer is a limit, not a crash. */
	arena_init(&tiny, 64);
	assert_err(query_node(&w.kv[0], 1, a, &tiny, &n), ERR_LIMIT);
	arena_done(&tiny);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dns),
		cmocka_unit_test(test_commands),
		cmocka_unit_test(test_move_between_users),
		cmocka_unit_test(test_actors),
		cmocka_unit_test(test_host_info),
		cmocka_unit_test(test_reads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
