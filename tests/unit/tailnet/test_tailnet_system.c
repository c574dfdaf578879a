/* Lighthouses, tailnets, users, keys; exactly once; history, audit, limits. LIBS: tailnet */
#include "tests/unit/tailnet/world.h"

/* ---- lighthouses ---- */

static Command *token_command(struct world *w, uint64_t id)
{
	Command *c = world_command(w, 0);
	Skerry__Internal__V1__JoinTokenCreate *t =
		WBODY(w, c, JOIN_TOKEN_CREATE, join_token_create, JoinTokenCreate);

	t->credential = WNEW(w, Skerry__Internal__V1__Credential, credential);
	t->credential->id = id;
	t->credential->hash_kind = SKERRY__INTERNAL__V1__HASH_KIND__HASH_KIND_SHA256;
	t->credential->hash = world_fill(w, 32, id);
	return c;
}

static Command *join_command(struct world *w, uint64_t token, uint64_t member)
{
	Command *c = world_command(w, 0);
	Skerry__Internal__V1__MemberJoin *j = WBODY(w, c, MEMBER_JOIN, member_join, MemberJoin);

	j->token_id = token;
	j->token_verified = true;
	j->member = world_member(w, member);
	j->member->join_request_hash = world_fill(w, 32, member);
	return c;
}

static Command *kind_command(struct world *w, uint64_t member, int kind)
{
	Command *c = world_command(w, 0);
	Skerry__Internal__V1__MemberSetKind *k =
		WBODY(w, c, MEMBER_SET_KIND, member_set_kind, MemberSetKind);

	k->id = member;
	k->kind = kind;
	return c;
}

static void test_join(void **state UNUSED)
{
	struct world w;
	JoinTokenRecord *t;
	MemberRecord *m;
	Command *c;

	world_open_two(&w, 1);
	world_do(&w, token_command(&w, 50));
	world_refuse(&w, token_command(&w, 50), 6, "KEY_ID_TAKEN");
	world_refuse(&w, join_command(&w, 51, 2), 16, "TOKEN_UNKNOWN");
	c = join_command(&w, 50, 2);
	c->member_join->token_verified = false;
	world_refuse(&w, c, 16, "TOKEN_UNKNOWN");
	world_refuse(&w, join_command(&w, 50, 1), 6, "MEMBER_EXISTS");
	c = join_command(&w, 50, 2);
	c->member_join->member->name = "lh1";
	world_refuse(&w, c, 6, "MEMBER_NAME_TAKEN");
	c = join_command(&w, 50, 2);
	c->member_join->member->feature_min = 2;
	c->member_join->member->feature_max = 3;
	world_refuse(&w, c, 9, "FEATURE_LEVEL");
	assert_ok(query_join_token(&w.kv[0], 50, w.now, &w.arena, &t));
	assert_int_equal(world_do(&w, join_command(&w, 50, 2)), 2);
	assert_err(query_join_token(&w.kv[0], 50, w.now, &w.arena, &t), ERR_NOT_FOUND);
	/* The repetition of the same request is answered alike; another host is refused. */
	assert_int_equal(world_do(&w, join_command(&w, 50, 2)), 2);
	world_refuse(&w, join_command(&w, 50, 3), 7, "TOKEN_USED");
	assert_ok(query_member(&w.kv[0], 2, &w.arena, &m));
	assert_int_equal(m->kind, SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_STANDBY);
	/* Expiry. */
	world_do(&w, token_command(&w, 60));
	w.now += LIM_JOIN_TOKEN_MS;
	world_refuse(&w, join_command(&w, 60, 3), 7, "TOKEN_EXPIRED");
	world_pass(&w, 3 * DAY);
	assert_err(query_join_token(&w.kv[0], 60, 0, &w.arena, &t), ERR_NOT_FOUND);
	/* Kinds: the last voter stays; a removed one never comes back. */
	world_refuse(&w, kind_command(&w, 1, 3), 9, "LAST_VOTER");
	world_do(&w, kind_command(&w, 2, 1));
	world_do(&w, kind_command(&w, 1, 3));
	world_refuse(&w, kind_command(&w, 1, 1), 5, "MEMBER_NOT_FOUND");
	world_refuse(&w, world_start(&w, 1, 7), 5, "MEMBER_NOT_FOUND");
	world_do(&w, token_command(&w, 61));
	world_refuse(&w, join_command(&w, 61, 1), 6, "MEMBER_EXISTS");
	world_close(&w);
}

static void test_feature_level_and_secrets(void **state UNUSED)
{
	struct world w;
	SealedSecret *s;
	CaRecord *ca;
	Command *c;
	Skerry__Internal__V1__SecretPut *p;

	world_open_two(&w, 2);
	c = world_command(&w, 0);
	WBODY(&w, c, RAISE_FEATURE_LEVEL, raise_feature_level, RaiseFeatureLevel)->level = 1;
	world_refuse(&w, c, 9, "FEATURE_LEVEL");
	c->raise_feature_level->level = 2;
	world_refuse(&w, c, 9, "FEATURE_LEVEL");
	assert_non_null(strstr(w.r.reply.message, "lh1"));
	/* A field of a later level is refused before it, in a record that a command carries, too. */
	{
		Command *early = world_command(&w, 0);
		SealedSecret *sealed = WNEW(&w, SealedSecret, sealed_secret);

		p = WBODY(&w, early, SECRET_PUT, secret_put, SecretPut);
		p->secret = sealed;
		sealed->name = "ca";
		sealed->box = world_fill(&w, 90, 6);
		sealed->generation = 2;
		assert_int_equal(tailnet_command_level(early), 1);
		sealed->seal = 1;
		assert_int_equal(tailnet_command_level(early), 2);
		world_refuse(&w, early, 9, "FEATURE_LEVEL");
		assert_contains(w.r.reply.message, "finalize-upgrade");
	}
	/* Once every member supports it. */
	{
		Command *s2 = world_start(&w, 1, 102);

		s2->lighthouse_start->feature_max = 2;
		world_do(&w, s2);
	}
	world_do(&w, c);
	assert_int_equal(world_meta(&w, 0)->feature_level, 2);
	world_refuse(&w, world_start(&w, 1, 103), 9, "FEATURE_LEVEL");

	c = world_command(&w, 0);
	p = WBODY(&w, c, SECRET_PUT, secret_put, SecretPut);
	assert_int_equal(world_apply(&w, c), 3);
	p->secret = WNEW(&w, SealedSecret, sealed_secret);
	p->secret->name = "ca";
	p->secret->box = world_fill(&w, 90, 6);
	p->secret->generation = 2;
	p->ca = WNEW(&w, CaRecord, ca_record);
	p->ca->generation = 1;
	p->ca->certificate_der = world_fill(&w, 200, 7);
	world_refuse(&w, c, 6, "GENERATION_TAKEN");
	p->ca->generation = 2;
	world_do(&w, c);
	assert_ok(query_secret(&w.kv[0], "ca", &w.arena, &s));
	assert_int_equal(s->generation, 2);
	assert_ok(query_ca(&w.kv[0], &w.arena, &ca));
	assert_int_equal(ca->generation, 2);
	assert_ok(query_ca_before(&w.kv[0], 2, &w.arena, &ca));
	assert_int_equal(ca->generation, 1);
	assert_err(query_ca_before(&w.kv[0], 1, &w.arena, &ca), ERR_NOT_FOUND);
	world_close(&w);
}

/* ---- a new epoch ---- */

static Command *epoch_command(struct world *w, uint64_t number, uint64_t member, uint64_t key)
{
	Command *c = world_command(w, 0);
	Skerry__Internal__V1__EpochBegin *e = WBODY(w, c, EPOCH_BEGIN, epoch_begin, EpochBegin);

	e->epoch = number;
	e->revision_step = 1ull << 32;
	e->restored = true;
	e->member = world_member(w, member);
	e->member->public_key = world_fill(w, 44, 1000 + key);
	return c;
}

static void test_epoch(void **state UNUSED)
{
	struct world w;
	JoinTokenRecord *t;
	MemberRecord *m;
	Presence *p;
	uint64_t node, revision;
	Command *c;

	world_open_two(&w, 2);
	node = world_add(&w, 1, 1, "a");
	world_do(&w, world_session(&w, 1, node, 1, false, false));
	world_do(&w, token_command(&w, 50));

	w.offline = true;
	world_refuse(&w, epoch_command(&w, world_meta(&w, 0)->epoch, 900, 9), 3, "");
	world_refuse(&w, epoch_command(&w, 0, 900, 9), 3, "");
	c = epoch_command(&w, 1234, 900, 9);
	c->epoch_begin->revision_step = 1ull << 40;
	world_refuse(&w, c, 3, "");
	/* Nobody proposes it while the cluster runs, and no other key speaks for a member. */
	w.offline = false;
	world_refuse(&w, epoch_command(&w, 1234, 900, 9), 7, "EPOCH");
	w.offline = true;
	world_refuse(&w, epoch_command(&w, 1234, 1, 99), 7, "NOT_A_MEMBER");

	revision = world_meta(&w, 0)->revision;
	world_do(&w, epoch_command(&w, 1234, 900, 9));
	assert_int_equal(world_meta(&w, 0)->epoch, 1234);
	assert_int_equal(world_meta(&w, 0)->revision, revision + 1 + (1ull << 32));
	assert_ok(query_member(&w.kv[0], 1, &w.arena, &m));
	assert_int_equal(m->kind, SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_REMOVED);
	assert_int_equal(m->incarnation, 0);
	assert_ok(query_member(&w.kv[0], 900, &w.arena, &m));
	assert_int_equal(m->kind, SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_VOTER);
	assert_ok(query_presence(&w.kv[0], 1, node, &w.arena, &p));
	assert_true(p->lost_ms != 0);
	assert_ok(query_join_token(&w.kv[0], 50, 0, &w.arena, &t));
	assert_true(t->revoked);
	assert_ok(tailnet_check(&w.kv[0], NULL));
	/* A removed one does not come back by this door either. */
	world_refuse(&w, epoch_command(&w, 1235, 1, 1), 7, "NOT_A_MEMBER");
	world_close(&w);
}

/* ---- tailnets, users, keys ---- */

static void test_tailnets(void **state UNUSED)
{
	struct world w;
	TailnetRecord *t;
	Command *c;
	Skerry__Internal__V1__TailnetUpdate *u;
	Skerry__Internal__V1__TailnetDelete *d;
	Skerry__V1__DnsConfig dns;
	Skerry__V1__DnsRecord rec, *recp = &rec;
	uint64_t node;

	world_open_two(&w, 3);
	world_refuse(&w, world_tailnet(&w, "second"), 6, "TAILNET_NAME_TAKEN");
	assert_int_equal(world_apply(&w, world_tailnet(&w, "Not a label")), 3);
	c = world_command(&w, 3);
	u = WBODY(&w, c, TAILNET_UPDATE, tailnet_update, TailnetUpdate);
	u->id = 3;
	u->set_name = true;
	u->name = "default";
	world_refuse(&w, c, 6, "TAILNET_NAME_TAKEN");
	u->name = "renamed";
	u->set_dns = true;
	u->dns = &dns;
	skerry__v1__dns_config__init(&dns);
	skerry__v1__dns_record__init(&rec);
	dns.base_domain = "corp.internal";
	dns.n_records = 1;
	dns.records = &recp;
	rec.name = "www.corp.internal";
	rec.type = "A";
	rec.value = "10.0.0.999";
	assert_int_equal(world_apply(&w, c), 3);
	rec.value = "10.0.0.9";
	rec.name = "www.elsewhere.internal";
	assert_int_equal(world_apply(&w, c), 3);
	assert_string_equal(w.r.reply.field, "dns.records");
	rec.name = "wpad.corp.internal";
	world_refuse(&w, c, 3, "NAME_REFUSED");
	rec.name = "www.corp.internal";
	world_do(&w, c);
	assert_err(query_tailnet_named(&w.kv[0], "second", &w.arena, &t), ERR_NOT_FOUND);
	assert_ok(query_tailnet_named(&w.kv[0], "renamed", &w.arena, &t));
	assert_string_equal(t->dns->base_domain, "corp.internal");
	c->tailnet = 1;
	assert_int_equal(world_apply(&w, c), 3);

	/* Deletion: refused with nodes, by force; the records go in portions; names and keys are free then. */
	node = world_add(&w, 3, 1, "a");
	world_add(&w, 1, 2, "b");
	assert_ok(query_tailnet(&w.kv[0], 3, &w.arena, &t));
	assert_int_equal(t->node_count, 1);
	c = world_command(&w, 0);
	d = WBODY(&w, c, TAILNET_DELETE, tailnet_delete, TailnetDelete);
	d->id = 3;
	world_refuse(&w, c, 9, "TAILNET_NOT_EMPTY");
	d->force = true;
	c->caller = "x";
	c->request_id = "y";
	c->request_hash = world_fill(&w, 32, 1);
	world_do(&w, c);
	assert_err(query_tailnet(&w.kv[0], 3, &w.arena, &t), ERR_NOT_FOUND);
	assert_null(world_node(&w, 3, node));
	world_refuse(&w, world_register(&w, 3, 1, world_facts(&w, 1, "a")), 5, "TAILNET_NOT_FOUND");
	world_do(&w, c);
	assert_true(w.r.reply.repeated_request);
	world_pass(&w, 0);
	world_pass(&w, HOUR);
	{
		/* Nothing is left of it but addresses and names that rest. */
		struct slice k, v;
		struct skey at;
		uint64_t id;
		int r;

		skey_init(&at, 0);
		for (r = kv_seek(&w.kv[0], skey_slice(&at), &k, &v); r == 0;
		     r = kv_next(&w.kv[0], skey_slice(&at), &k, &v)) {
			uint8_t table = skey_table(k);

			skey_bytes(&at, table, (const uint8_t *)k.data + 1, k.len - 1);
			if (((table >= TABLE_USER && table <= TABLE_AUDIT) ||
			     (table >= TABLE_HEAD && table <= TABLE_REQUEST)) &&
			    skey_get_u64(k, 1, &id) && id == 3) {
				TEST_FAIL("a record of %s is left", table_name(table));
			}
		}
	}
	world_do(&w, world_tailnet(&w, "renamed"));
	world_close(&w);
}

static void test_users_and_keys(void **state UNUSED)
{
	struct world w;
	UserRecord *u;
	ApiKeyRecord *ak;
	uint64_t user, key, node;
	uint32_t role;
	Command *c, *api;
	Skerry__Internal__V1__UserUpdate *up;
	Skerry__Internal__V1__ApiKeyCreate *k;

	world_open_two(&w, 4);
	c = world_command(&w, 1);
	{
		Skerry__Internal__V1__UserCreate *n =
			WBODY(&w, c, USER_CREATE, user_create, UserCreate);

		n->login_name = "ann@example.com";
		n->role = 2;
	}
	user = world_do(&w, c);
	world_refuse(&w, c, 6, "LOGIN_NAME_TAKEN");
	assert_ok(query_user_login(&w.kv[0], 1, "ann@example.com", &w.arena, &u));
	assert_err(query_user_login(&w.kv[0], 3, "ann@example.com", &w.arena, &u), ERR_NOT_FOUND);
	key = world_do(&w, world_key(&w, 1, &(struct key_form){.user = user, .reusable = true}));
	node = world_do(&w, world_register(&w, 1, key, world_facts(&w, 1, "a")));

	api = world_command(&w, 1);
	k = WBODY(&w, api, API_KEY_CREATE, api_key_create, ApiKeyCreate);
	k->credential = WNEW(&w, Skerry__Internal__V1__Credential, credential);
	k->credential->id = 70;
	k->credential->hash_kind = SKERRY__INTERNAL__V1__HASH_KIND__HASH_KIND_SHA256;
	k->credential->hash = world_fill(&w, 32, 70);
	k->user = user;
	k->role = 3;
	world_refuse(&w, api, 7, "ROLE_TOO_HIGH");
	k->role = 2;
	world_do(&w, api);
	assert_ok(query_api_key_any(&w.kv[0], 70, &w.arena, &ak));
	assert_int_equal(ak->tailnet, 1);
	assert_ok(query_api_key_valid(&w.kv[0], ak, w.now, &role));
	assert_int_equal(role, 2);

	/* Suspension: keys stop, nodes are cut off, registration is refused; all comes back. */
	c = world_command(&w, 1);
	up = WBODY(&w, c, USER_UPDATE, user_update, UserUpdate);
	up->id = user;
	up->set_suspended = true;
	up->suspended = true;
	world_do(&w, c);
	assert_err(query_api_key_valid(&w.kv[0], ak, w.now, &role), ERR_DENIED);
	assert_true(world_node(&w, 1, node)->suspended);
	assert_false(netmap_live(world_node(&w, 1, node)));
	world_refuse(&w, world_register(&w, 1, key, world_facts(&w, 1, "a")), 7, "USER_SUSPENDED");
	up->suspended = false;
	up->set_role = true;
	up->role = 1;
	world_do(&w, c);
	assert_true(netmap_live(world_node(&w, 1, node)));
	/* A key is never more than its user. */
	assert_ok(query_api_key_valid(&w.kv[0], ak, w.now, &role));
	assert_int_equal(role, 1);

	/* Deletion takes the keys along, but not with nodes. */
	c = world_command(&w, 1);
	WBODY(&w, c, USER_DELETE, user_delete, UserDelete)->id = user;
	world_refuse(&w, c, 9, "USER_HAS_NODES");
	{
		Command *nd = world_command(&w, 1);

		WBODY(&w, nd, NODE_DELETE, node_delete, NodeDelete)->id = node;
		world_do(&w, nd);
	}
	world_do(&w, c);
	assert_err(query_api_key_any(&w.kv[0], 70, &w.arena, &ak), ERR_NOT_FOUND);
	world_refuse(&w, world_register(&w, 1, key, world_facts(&w, 1, "a")), 16,
		     "AUTH_KEY_UNKNOWN");
	/* A system key has no user; it expires in its time, and leaves the list a month later. */
	api = world_command(&w, 0);
	k->user = 0;
	k->credential->id = 71;
	k->lifetime_ms = HOUR;
	api->body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_API_KEY_CREATE;
	api->api_key_create = k;
	world_do(&w, api);
	assert_ok(query_api_key(&w.kv[0], 0, 71, &w.arena, &ak));
	assert_ok(query_api_key_valid(&w.kv[0], ak, w.now, &role));
	assert_err(query_api_key_valid(&w.kv[0], ak, w.now + HOUR, &role), ERR_DENIED);
	world_pass(&w, HOUR);
	assert_ok(query_api_key(&w.kv[0], 0, 71, &w.arena, &ak));
	assert_true(ak->expired);
	world_pass(&w, LIM_KEY_KEEP_MS);
	assert_err(query_api_key(&w.kv[0], 0, 71, &w.arena, &ak), ERR_NOT_FOUND);
	world_close(&w);
}

/* ---- exactly once ---- */

static Command *with_origin(Command *c, uint64_t sequence, uint64_t lowest)
{
	c->lighthouse = 1;
	c->incarnation = 101;
	c->sequence = sequence;
	c->lowest_unanswered = lowest;
	return c;
}

static size_t count_table(struct world *w, enum table table)
{
	struct slice k, v;
	struct skey at;
	size_t n = 0;
	int r;

	skey_init(&at, table);
	for (r = kv_seek(&w->kv[0], skey_slice(&at), &k, &v); r == 0 && skey_table(k) == table;
	     r = kv_next(&w->kv[0], skey_slice(&at), &k, &v)) {
		skey_bytes(&at, table, (const uint8_t *)k.data + 1, k.len - 1);
		n++;
	}
	return n;
}

static void test_origin(void **state UNUSED)
{
	struct world w;
	uint64_t id, revision;
	Command *c;

	world_open_two(&w, 5);
	c = with_origin(world_tailnet(&w, "once"), 1, 1);
	id = world_do(&w, c);
	revision = w.r.reply.revision;
	assert_int_equal(world_do(&w, c), id);
	assert_int_equal(w.r.reply.revision, revision);
	assert_int_equal(world_meta(&w, 0)->revision, revision);
	/* A refusal is kept as well, though it would succeed now. */
	c = with_origin(world_key(&w, id, &(struct key_form){.user = 999}), 2, 1);
	world_refuse(&w, c, 5, "USER_NOT_FOUND");
	c->auth_key_create->user = id + 1;
	world_refuse(&w, c, 5, "USER_NOT_FOUND");
	/* What the lighthouse has answers of is forgotten, and not done again. */
	world_do(&w, with_origin(world_tailnet(&w, "three"), 3, 3));
	assert_int_equal(count_table(&w, TABLE_ORIGIN_ANSWER), 1);
	world_refuse(&w, with_origin(world_tailnet(&w, "late"), 2, 1), 10, "ALREADY_ANSWERED");
	world_refuse(&w, with_origin(world_tailnet(&w, "far"), 3 + LIM_ORIGIN_WINDOW, 3), 8,
		     "TOO_MANY_UNANSWERED");
	/* Another incarnation: what the earlier one proposed comes too late. */
	world_do(&w, world_start(&w, 1, 102));
	assert_int_equal(count_table(&w, TABLE_ORIGIN_ANSWER), 0);
	world_refuse(&w, with_origin(world_tailnet(&w, "old"), 4, 4), 10, "INCARNATION_ENDED");
	c = with_origin(world_tailnet(&w, "stranger"), 1, 1);
	c->lighthouse = 5;
	world_refuse(&w, c, 7, "NOT_A_MEMBER");
	world_close(&w);
}

static Command *with_request(struct world *w, Command *c, const char *id, uint64_t hash)
{
	c->caller = "api-key:9";
	c->request_id = (char *)id;
	c->request_hash = world_fill(w, 32, hash);
	return c;
}

static void test_request_ids(void **state UNUSED)
{
	struct world w;
	DedupeRecord *old;
	uint64_t id;
	Command *c;

	world_open_two(&w, 6);
	c = with_request(&w, world_tailnet(&w, "once"), "r1", 1);
	id = world_do(&w, c);
	assert_int_equal(world_do(&w, c), id);
	assert_true(w.r.reply.repeated_request);
	assert_false(w.r.reply.secret_not_retained);
	world_refuse(&w, with_request(&w, world_tailnet(&w, "other"), "r1", 2), 3,
		     "REQUEST_ID_REUSED");
	/* What was answered can be looked up, as long as it counts. */
	assert_ok(query_request(&w.kv[0], 0, c->caller, "r1", w.now, &w.arena, &old));
	assert_true(old->id == id && old->code == 0 &&
		    old->request_hash.data[0] == c->request_hash.data[0]);
	assert_int_equal(
		query_request(&w.kv[0], 0, c->caller, "r1", old->expire_ms, &w.arena, &old),
		ERR_NOT_FOUND);
	assert_int_equal(query_request(&w.kv[0], 0, "unix:0", "r1", w.now, &w.arena, &old),
			 ERR_NOT_FOUND);
	/* Of another caller it is another request. */
	c = with_request(&w, world_tailnet(&w, "other"), "r1", 2);
	c->caller = "unix:0";
	world_do(&w, c);
	/* An answer with a secret is given without it. */
	c = with_request(&w, world_key(&w, 1, &(struct key_form){.user = 2}), "r2", 3);
	id = world_do(&w, c);
	assert_int_equal(world_do(&w, c), id);
	assert_string_equal(w.r.reply.reason, "SECRET_NOT_RETAINED");
	assert_true(w.r.reply.secret_not_retained);
	/* Kept five minutes, to the millisecond. */
	c = with_request(&w, world_tailnet(&w, "once"), "r3", 1);
	world_refuse(&w, c, 6, "TAILNET_NAME_TAKEN");
	w.now += LIM_REQUEST_ID_MS - 1;
	world_refuse(&w, c, 6, "TAILNET_NAME_TAKEN");
	assert_true(w.r.reply.repeated_request);
	w.now += 1;
	world_refuse(&w, c, 6, "TAILNET_NAME_TAKEN");
	assert_false(w.r.reply.repeated_request);
	world_pass(&w, LIM_REQUEST_ID_MS);
	assert_int_equal(count_table(&w, TABLE_REQUEST), 0);
	/* Malformed ones. */
	c = with_request(&w, world_tailnet(&w, "x"), "r4", 1);
	c->request_hash.len = 16;
	world_refuse(&w, c, 3, "REQUEST_ID");
	/* For a tailnet that does not exist nothing is kept. */
	world_refuse(&w,
		     with_request(&w, world_register(&w, 99, 1, world_facts(&w, 1, "a")), "r5", 1),
		     5, "TAILNET_NOT_FOUND");
	assert_int_equal(count_table(&w, TABLE_REQUEST), 0);
	world_close(&w);
}

static void test_request_id_cap(void **state UNUSED)
{
	struct world w;

	world_open_two(&w, 7);
	w.unchecked = true;
	world_settle(&w);
	for (int i = 0; i < LIM_REQUEST_IDS; i++) {
		/* A wrong command is the quickest one. */
		struct apply_context ctx = {.time_ms = w.now, .raft_index = 1};
		Command *c = world_command(&w, 1);
		char text[32];

		WBODY(&w, c, NODE_DELETE, node_delete, NodeDelete)->id = 999;
		snprintf(text, sizeof(text), "r%d", i);
		with_request(&w, c, text, 1);
		for (int j = 0; j < 2; j++) {
			assert_ok(tailnet_apply(&w.kv[j], c, &ctx, &w.query, &w.r, NULL));
		}
		arena_reset(&w.arena);
		arena_reset(&w.query);
	}
	world_refuse(&w,
		     with_request(&w, world_key(&w, 1, &(struct key_form){.user = 2}), "more", 1),
		     8, "TOO_MANY_REQUEST_IDS");
	/* Without an id, and in the other tailnet, it goes on. */
	world_do(&w, world_key(&w, 1, &(struct key_form){.user = 2}));
	world_do(&w, with_request(&w, world_key(&w, 3, &(struct key_form){.user = 4}), "more", 1));
	world_check(&w);
	world_close(&w);
}

/* ---- understood? ---- */

static void test_unknown(void **state UNUSED)
{
	struct apply_context ctx = {.time_ms = 1};
	ProtobufCMessageUnknownField unknown = {.tag = 99};
	struct apply_result r;
	struct err e = {0};
	struct world w;
	Command *c;

	world_open_two(&w, 8);
	c = world_command(&w, 1);
	assert_err(tailnet_apply(&w.kv[0], c, &ctx, &w.arena, &r, &e), ERR_UNIMPLEMENTED);
	c = world_register(&w, 1, 1, world_facts(&w, 1, "a"));
	c->node_register->facts->machine_key->kind = 77;
	assert_err(tailnet_command_known(c, &e), ERR_UNIMPLEMENTED);
	assert_string_equal(e.field, "kind");
	c->node_register->facts->machine_key->kind = 1;
	assert_ok(tailnet_command_known(c, &e));
	c->node_register->facts->base.n_unknown_fields = 1;
	c->node_register->facts->base.unknown_fields = &unknown;
	assert_err(tailnet_apply(&w.kv[0], c, &ctx, &w.arena, &r, &e), ERR_UNIMPLEMENTED);
	assert_non_null(strstr(e.msg, "99"));
	world_check(&w);
	world_close(&w);
}

/* ---- history and audit ---- */

static void test_history(void **state UNUSED)
{
	struct world w;
	uint64_t node, r1, r2, oldest;
	struct skey key;
	struct slice v;
	NodeRecord *n;
	Command *c;
	Skerry__Internal__V1__NodeUpdate *u;

	world_open_two(&w, 9);
	node = world_add(&w, 1, 1, "first");
	r1 = world_meta(&w, 0)->revision;
	c = world_command(&w, 1);
	u = WBODY(&w, c, NODE_UPDATE, node_update, NodeUpdate);
	u->id = node;
	u->set_given_name = true;
	u->given_name = "second";
	world_do(&w, c);
	r2 = world_meta(&w, 0)->revision;
	u->given_name = "third";
	world_do(&w, c);
	skey_id2(&key, TABLE_NODE, 1, node);
	assert_err(query_history(&w.kv[0], 1, skey_slice(&key), r1 - 1, &w.arena, &v, &oldest),
		   ERR_NOT_FOUND);
	assert_ok(query_history(&w.kv[0], 1, skey_slice(&key), r1, &w.arena, &v, &oldest));
	n = (NodeRecord *)skerry__internal__v1__node_record__unpack(NULL, v.len, v.data);
	assert_string_equal(n->given_name, "first");
	skerry__internal__v1__node_record__free_unpacked(n, NULL);
	assert_ok(query_history(&w.kv[0], 1, skey_slice(&key), r2, &w.arena, &v, &oldest));
	n = (NodeRecord *)skerry__internal__v1__node_record__unpack(NULL, v.len, v.data);
	assert_string_equal(n->given_name, "second");
	skerry__internal__v1__node_record__free_unpacked(n, NULL);
	assert_ok(query_history(&w.kv[0], 1, skey_slice(&key), r2 + 1, &w.arena, &v, &oldest));
	/* Kept 30 days of log time. */
	world_pass(&w, LIM_HISTORY_MS - 1);
	assert_ok(query_history(&w.kv[0], 1, skey_slice(&key), r1, &w.arena, &v, &oldest));
	world_pass(&w, 1);
	assert_err(query_history(&w.kv[0], 1, skey_slice(&key), r1, &w.arena, &v, &oldest),
		   ERR_RANGE);
	assert_true(oldest > r1);
	world_close(&w);
}

static void test_audit(void **state UNUSED)
{
	struct world w;
	AuditRecord *a;
	Command *c;

	world_open_two(&w, 10);
	c = world_key(&w, 3, &(struct key_form){.user = 4});
	c->actor = WNEW(&w, Actor, actor);
	c->actor->kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_UNIX;
	c->actor->id = 1000;
	c->reason = "a new laptop";
	world_do(&w, c);
	assert_ok(query_audit_before(&w.kv[0], 3, UINT64_MAX, &w.arena, &a));
	assert_string_equal(a->action, "auth_key.create");
	assert_string_equal(a->actor, "unix:1000");
	assert_string_equal(a->reason, "a new laptop");
	assert_int_equal(a->revision, w.r.reply.revision);
	assert_ok(query_audit_before(&w.kv[0], 3, a->sequence, &w.arena, &a));
	assert_string_equal(a->action, "tailnet.create");
	assert_ok(query_audit_next(&w.kv[0], 0, 0, &w.arena, &a));
	assert_string_equal(a->action, "cluster.init");
	/* One changed letter is found. */
	{
		struct err e = {0};
		struct skey k;
		struct slice v;
		uint8_t copy[1000];

		skey_id2(&k, TABLE_AUDIT, 3, 2);
		assert_ok(kv_get(&w.kv[0], skey_slice(&k), &v));
		memcpy(copy, v.data, v.len);
		copy[v.len / 2] ^= 1;
		assert_ok(kv_put(&w.kv[0], skey_slice(&k), (struct slice){copy, v.len}));
		assert_err(tailnet_check(&w.kv[0], &e), ERR_CORRUPT);
	}
	world_close(&w);
}

static void test_resource_names(void **state UNUSED)
{
	static const char *const bad[] = {"",
					  "7",
					  "tailnets/",
					  "tailnets/x",
					  "tailnets/07",
					  "tailnets/7/",
					  "tailnets/7/nodes",
					  "tailnets/7/nodes/-1",
					  "tailnets/7/nodes/42/",
					  "nodes/42",
					  "tailnets/99999999999999999999"};
	char text[RESOURCE_TEXT];
	struct resource r;
	struct err e = {0};

	for (int kind = RESOURCE_TAILNET; kind <= RESOURCE_JOIN_TOKEN; kind++) {
		resource_format(kind, 7, kind == RESOURCE_TAILNET ? 7 : 42, text);
		assert_ok(resource_parse(text, kind, "name", &r, &e));
		assert_int_equal(r.kind, kind);
		assert_int_equal(r.id, kind == RESOURCE_TAILNET ? 7 : 42);
		assert_ok(resource_parse(text, 0, "name", &r, &e));
		assert_err(resource_parse(text,
					  kind == RESOURCE_NODE ? RESOURCE_USER : RESOURCE_NODE,
					  "name", &r, &e),
			   ERR_INVALID);
	}
	assert_ok(resource_parse("tailnets/0/apiKeys/9", RESOURCE_API_KEY, "name", &r, &e));
	assert_int_equal(r.tailnet, 0);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		assert_err(resource_parse(bad[i], 0, "name", &r, &e), ERR_INVALID);
		assert_string_equal(e.field, "name");
	}
	assert_true(etag_matches("", 5));
	assert_true(etag_matches("5", 5));
	assert_false(etag_matches("4", 5));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_join),
		cmocka_unit_test(test_feature_level_and_secrets),
		cmocka_unit_test(test_epoch),
		cmocka_unit_test(test_tailnets),
		cmocka_unit_test(test_users_and_keys),
		cmocka_unit_test(test_origin),
		cmocka_unit_test(test_request_ids),
		cmocka_unit_test(test_request_id_cap),
		cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_history),
		cmocka_unit_test(test_audit),
		cmocka_unit_test(test_resource_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
