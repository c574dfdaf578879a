/* Rotation of the CA and of cluster.key, confirmations of members, notes of backups; all of feature level 2. */
#include "tests/unit/tailnet/world.h"

static Command *level_command(struct world *w, uint32_t level)
{
	Command *c = world_command(w, 0);

	WBODY(w, c, RAISE_FEATURE_LEVEL, raise_feature_level, RaiseFeatureLevel)->level = level;
	return c;
}

/* One member, feature level 2. */
static void open_second(struct world *w, uint64_t seed)
{
	Command *c;

	world_open(w, seed);
	c = world_bootstrap(w);
	c->bootstrap->feature_level = 2;
	c->bootstrap->member->feature_max = 2;
	world_do(w, c);
	c = world_start(w, 1, 101);
	c->lighthouse_start->feature_max = 2;
	world_do(w, c);
}

static Command *ca_command(struct world *w, uint32_t generation)
{
	Command *c = world_command(w, 0);
	Skerry__Internal__V1__CaRotate *b = WBODY(w, c, CA_ROTATE, ca_rotate, CaRotate);

	b->ca = WNEW(w, CaRecord, ca_record);
	b->ca->generation = generation;
	b->ca->certificate_der = world_fill(w, 300, 40 + generation);
	b->ca->cross_der = world_fill(w, 310, 50 + generation);
	b->key = WNEW(w, SealedSecret, sealed_secret);
	b->key->name = "ca";
	b->key->box = world_fill(w, 120, 60 + generation);
	b->key->generation = generation;
	return c;
}

static Command *retire_command(struct world *w, uint32_t generation)
{
	Command *c = world_command(w, 0);

	WBODY(w, c, CA_RETIRE, ca_retire, CaRetire)->generation = generation;
	return c;
}

static Command *confirm_command(struct world *w, uint64_t id, uint32_t ca, uint32_t seal)
{
	Command *c = world_command(w, 0);
	Skerry__Internal__V1__MemberConfirm *b =
		WBODY(w, c, MEMBER_CONFIRM, member_confirm, MemberConfirm);

	b->id = id;
	b->ca_generation = ca;
	b->seal = seal;
	return c;
}

static Command *seal_command(struct world *w, uint32_t seal, uint32_t generation)
{
	Command *c = world_command(w, 0);
	Skerry__Internal__V1__SealRotate *b = WBODY(w, c, SEAL_ROTATE, seal_rotate, SealRotate);

	b->seal = seal;
	b->n_secrets = 1;
	b->secrets = world_alloc(w, sizeof(*b->secrets));
	b->secrets[0] = WNEW(w, SealedSecret, sealed_secret);
	b->secrets[0]->name = "ca";
	b->secrets[0]->box = world_fill(w, 120, 80 + seal);
	b->secrets[0]->generation = generation;
	b->secrets[0]->seal = seal;
	return c;
}

static void test_level(void **state UNUSED)
{
	struct world w;
	Command *c;

	world_open_two(&w, 1);
	world_refuse(&w, ca_command(&w, 2), 9, "FEATURE_LEVEL");
	assert_contains(w.r.reply.message, "finalize-upgrade");
	world_refuse(&w, retire_command(&w, 1), 9, "FEATURE_LEVEL");
	world_refuse(&w, seal_command(&w, 2, 0), 9, "FEATURE_LEVEL");
	world_refuse(&w, confirm_command(&w, 1, 1, 1), 9, "FEATURE_LEVEL");
	c = world_command(&w, 0);
	WBODY(&w, c, BACKUP_NOTE, backup_note, BackupNote)->lighthouse = 1;
	world_refuse(&w, c, 9, "FEATURE_LEVEL");
	/* Raised, they are judged. */
	c = world_start(&w, 1, 102);
	c->lighthouse_start->feature_max = 2;
	world_do(&w, c);
	world_do(&w, level_command(&w, 2));
	world_refuse(&w, retire_command(&w, 1), 9, "NOTHING_TO_RETIRE");
	world_close(&w);
}

static void test_ca(void **state UNUSED)
{
	struct world w;
	SealedSecret *s;
	MemberRecord *m;
	CaRecord *ca;
	Command *c;

	open_second(&w, 2);
	world_refuse(&w, ca_command(&w, 3), 10, "CA_CHANGED");
	world_refuse(&w, ca_command(&w, 1), 10, "CA_CHANGED");
	c = ca_command(&w, 2);
	c->ca_rotate->ca->cross_der.len = 0;
	world_refuse(&w, c, 3, "");
	c = ca_command(&w, 2);
	c->ca_rotate->key->seal = 2;
	world_refuse(&w, c, 10, "SEAL_CHANGED");
	world_do(&w, ca_command(&w, 2));
	assert_ok(query_ca(&w.kv[0], &w.arena, &ca));
	assert_int_equal(ca->generation, 2);
	assert_int_equal(ca->cross_der.len, 310);
	assert_ok(query_secret(&w.kv[0], "ca", &w.arena, &s));
	assert_int_equal(s->generation, 2);

	/* One at a time, and not retired before every member has it. */
	world_refuse(&w, ca_command(&w, 3), 9, "CA_NOT_RETIRED");
	world_refuse(&w, retire_command(&w, 1), 10, "CA_CHANGED");
	world_refuse(&w, retire_command(&w, 2), 9, "MEMBER_NOT_CONFIRMED");
	assert_contains(w.r.reply.message, "lh1");
	world_refuse(&w, confirm_command(&w, 1, 3, 1), 3, "");
	world_refuse(&w, confirm_command(&w, 9, 2, 1), 5, "MEMBER_NOT_FOUND");
	world_do(&w, confirm_command(&w, 1, 2, 1));
	/* It holds through a start, and never falls. */
	c = world_start(&w, 1, 105);
	c->lighthouse_start->feature_max = 2;
	world_do(&w, c);
	world_do(&w, confirm_command(&w, 1, 1, 1));
	assert_ok(query_member(&w.kv[0], 1, &w.arena, &m));
	assert_int_equal(m->ca_generation, 2);
	world_pass(&w, HOUR);
	world_do(&w, retire_command(&w, 2));
	assert_ok(query_ca_before(&w.kv[0], 2, &w.arena, &ca));
	assert_int_equal(ca->retire_ms, w.now);
	world_refuse(&w, retire_command(&w, 2), 9, "NOTHING_TO_RETIRE");
	world_do(&w, ca_command(&w, 3));
	world_close(&w);
}

static void test_seal(void **state UNUSED)
{
	Skerry__Internal__V1__SecretPut *p;
	struct world w;
	SealedSecret *s;
	Command *c;

	open_second(&w, 3);
	world_refuse(&w, seal_command(&w, 3, 0), 10, "SEAL_CHANGED");
	world_refuse(&w, seal_command(&w, 1, 0), 10, "SEAL_CHANGED");
	world_refuse(&w, seal_command(&w, 2, 7), 10, "SECRETS_CHANGED");
	c = seal_command(&w, 2, 0);
	c->seal_rotate->secrets[0]->seal = 1;
	world_refuse(&w, c, 3, "");
	c = seal_command(&w, 2, 0);
	c->seal_rotate->n_secrets = 0;
	world_refuse(&w, c, 10, "SECRETS_CHANGED");
	world_do(&w, seal_command(&w, 2, 0));
	assert_ok(query_secret(&w.kv[0], "ca", &w.arena, &s));
	assert_int_equal(s->seal, 2);
	/* What was sealed under the old key comes too late; so does the next rotation before all have this one. */
	c = world_command(&w, 0);
	p = WBODY(&w, c, SECRET_PUT, secret_put, SecretPut);
	p->secret = WNEW(&w, SealedSecret, sealed_secret);
	p->secret->name = "ca";
	p->secret->box = world_fill(&w, 90, 6);
	world_refuse(&w, c, 10, "SEAL_CHANGED");
	world_refuse(&w, ca_command(&w, 2), 10, "SEAL_CHANGED");
	world_refuse(&w, seal_command(&w, 3, 0), 9, "MEMBER_NOT_CONFIRMED");
	world_do(&w, confirm_command(&w, 1, 0, 2));
	world_do(&w, seal_command(&w, 3, 0));
	world_close(&w);
}

static void test_backup_note(void **state UNUSED)
{
	Skerry__Internal__V1__BackupNote *b;
	struct world w;
	MemberRecord *m;
	AuditRecord *a;
	Command *c;

	open_second(&w, 4);
	c = world_command(&w, 0);
	b = WBODY(&w, c, BACKUP_NOTE, backup_note, BackupNote);
	b->lighthouse = 9;
	b->revision = 1;
	world_refuse(&w, c, 5, "MEMBER_NOT_FOUND");
	b->lighthouse = 1;
	b->revision = 1000;
	world_refuse(&w, c, 3, "");
	b->revision = 2;
	b->bytes = 4711;
	b->file = "skerry-1.backup";
	world_do(&w, c);
	assert_ok(query_member(&w.kv[0], 1, &w.arena, &m));
	assert_int_equal(m->backup_revision, 2);
	assert_int_equal(m->backup_ms, w.now);
	assert_ok(query_audit_before(&w.kv[0], 0, UINT64_MAX, &w.arena, &a));
	assert_string_equal(a->action, "backup.create");
	assert_string_equal(a->detail, "revision 2, 4711 bytes, skerry-1.backup");
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_level),
		cmocka_unit_test(test_ca),
		cmocka_unit_test(test_seal),
		cmocka_unit_test(test_backup_note),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
