/* From facts to findings; what may be asked of members; the times of appends.
 * LIBS: cluster */
#include "tests/lib/test.h"

#include "base/limits.h"
#include "cluster/doctor.h"
#include "cluster/member.h"
#include "cluster/raft_metrics.h"

#define NOW     (INT64_C(1800000000) * 1000)
#define DAYS(n) (NOW + (n)*INT64_C(86400) * 1000)

/* ---- findings ---- */

struct set {
	struct cluster_facts f[5];
	struct cluster_digest d[5];
	struct doctor_input in;
};

/* Three voters, all well. */
static void healthy(struct set *s, size_t n)
{
	*s = (struct set){0};
	for (size_t i = 0; i < n; i++) {
		s->f[i] = (struct cluster_facts){
			.id = i + 1,
			.voter = true,
			.self = i == 0,
			.leader = i == 1,
			.connected = true,
			.feature_min = 1,
			.feature_max = 1,
			.append_p99_us = 900,
			.append_n = 500,
			.peer_cert_ms = DAYS(300),
			.api_cert_ms = DAYS(60),
			.ca_cert_ms = DAYS(9000),
			.disk_free = 50ull << 30,
			.disk_bytes = 100ull << 30,
			.map_permille = 100,
			.state_bytes = 1 << 20,
			.state_limit = LIM_STATE_BYTES,
			.commit_index = 5000,
			.applied_index = 5000,
			.backup_ms = i == 2 ? DAYS(-1) : 0,
		};
		snprintf(s->f[i].name, sizeof(s->f[i].name), "lh%zu", i + 1);
		strcpy(s->f[i].version, "1.0");
		s->d[i] = (struct cluster_digest){.id = i + 1, .digest = {7}};
	}
	s->in = (struct doctor_input){
		.n = n,
		.facts = s->f,
		.self = 1,
		.quorum = true,
		.feature_level = 1,
		.now_ms = NOW,
		.n_digests = n,
		.digests = s->d,
	};
}

static void down(struct set *s, size_t i)
{
	s->f[i] = (struct cluster_facts){.id = i + 1, .voter = true};
	strcpy(s->d[i].error, "no link");
}

static void one_down(struct set *s)
{
	down(s, 2);
	s->f[0].backup_ms = DAYS(-1);
}
static void two_down(struct set *s)
{
	one_down(s);
	down(s, 1);
	s->in.quorum = false;
	s->in.n_digests = 0;
	s->in.no_digests = "there is no quorum";
}
static void no_leader(struct set *s)
{
	s->in.quorum = false;
	s->in.n_digests = 0;
}
static void alone(struct set *s)
{
	s->in.n = s->in.n_digests = 1;
	s->f[0].backup_ms = NOW;
}
static void even(struct set *s)
{
	s->in.n = s->in.n_digests = 4;
}
static void standby_down(struct set *s)
{
	down(s, 2);
	s->in.n = s->in.n_digests = 4;
	s->f[2].voter = false;
	s->f[0].backup_ms = NOW;
}
static void silent(struct set *s)
{
	strcpy(s->f[1].error, "unimplemented");
}
static void skew_small(struct set *s)
{
	s->f[1].clock_offset_ms = 999;
}
static void skew(struct set *s)
{
	s->f[1].clock_offset_ms = -1500;
}
static void skew_large(struct set *s)
{
	s->f[1].clock_offset_ms = 86400 * 1000;
}
/* Who was asked is the one whose clock is wrong. */
static void skew_self(struct set *s)
{
	s->f[1].clock_offset_ms = 20000;
	s->f[2].clock_offset_ms = 20003;
}
static void skew_of_two(struct set *s)
{
	alone(s);
	s->in.n = s->in.n_digests = 2;
	s->f[1].clock_offset_ms = 20000;
}
static void slow(struct set *s)
{
	s->f[2].append_p99_us = 150000;
}
static void slow_few(struct set *s)
{
	s->f[2].append_p99_us = 5000000;
	s->f[2].append_n = DOCTOR_APPENDS - 1;
}
static void slow_much(struct set *s)
{
	s->f[0].append_p99_us = 1000000;
}
static void disk(struct set *s)
{
	s->f[1].disk_free = 500ull << 20;
}
static void disk_out(struct set *s)
{
	s->f[1].disk_free = LIM_DISK_FREE_BYTES - 1;
}
static void rebuilt(struct set *s)
{
	strcpy(s->f[1].store_rebuilt, "the digest is not the sum of the 58 records");
}
static void map(struct set *s)
{
	s->f[1].map_permille = 800;
}
static void map_out(struct set *s)
{
	s->f[1].map_permille = 990;
}
static void state_full(struct set *s)
{
	s->f[0].state_bytes = s->f[1].state_bytes = LIM_STATE_BYTES / 10 * 9;
}
static void cert_soon(struct set *s)
{
	s->f[1].api_cert_ms = DAYS(20);
}
static void cert_over(struct set *s)
{
	s->f[1].api_cert_ms = DAYS(-1);
}
/* Lighthouses do not judge the dates of each other. */
static void peer_cert_over(struct set *s)
{
	s->f[1].peer_cert_ms = DAYS(-1);
}
static void ca_over(struct set *s)
{
	s->f[0].ca_cert_ms = s->f[1].ca_cert_ms = DAYS(-1);
}
static void version(struct set *s)
{
	strcpy(s->f[2].version, "1.1");
}
static void feature(struct set *s)
{
	s->in.feature_level = 2;
	s->f[0].feature_max = s->f[1].feature_max = 2;
}
static void behind(struct set *s)
{
	s->f[2].applied_index = 4000;
}
static void behind_much(struct set *s)
{
	s->f[1].commit_index = s->f[1].applied_index = 205000;
	s->f[0].applied_index = 205000;
}
static void level_behind(struct set *s)
{
	for (int i = 0; i < 3; i++) {
		s->f[i].feature_max = 2;
	}
}
static void level_of_some(struct set *s)
{
	s->f[0].feature_max = s->f[2].feature_max = 2;
}
static void rotated(struct set *s)
{
	for (int i = 0; i < 3; i++) {
		s->f[i].ca_generation = i == 1 ? 1 : 2; /* linked: it takes it at once */
		s->f[i].seal = 3;
	}
}
static void rotated_away(struct set *s)
{
	one_down(s);
	for (int i = 0; i < 3; i++) {
		s->f[i].ca_generation = 2;
		s->f[i].seal = s->f[i].connected ? 3 : 2;
	}
}
static void backup_failed(struct set *s)
{
	s->f[1].backup_every_ms = DAYS(1) - NOW;
	strcpy(s->f[1].backup_error, "/backup: No space left on device");
}
/* A schedule is judged by its own period. */
static void backup_late(struct set *s)
{
	s->f[0].backup_ms = NOW - 5 * 3600 * 1000;
	s->f[1].backup_ms = s->f[2].backup_ms = 0;
	s->f[1].backup_every_ms = 3600 * 1000;
}
static void backup_due(struct set *s)
{
	s->f[0].backup_ms = NOW - 2 * 3600 * 1000;
	s->f[1].backup_ms = s->f[2].backup_ms = 0;
	s->f[1].backup_every_ms = 3600 * 1000;
}
static void backup_first(struct set *s)
{
	s->f[0].backup_ms = s->f[1].backup_ms = s->f[2].backup_ms = 0;
	s->f[1].backup_every_ms = 3600 * 1000;
}
static void backup_none(struct set *s)
{
	s->f[2].backup_ms = 0;
}
static void change_stuck(struct set *s)
{
	s->in.change = "replace: waits until lh4 is connected and has caught up";
	s->in.change_ms = DOCTOR_CHANGE_MS;
}
static void change_runs(struct set *s)
{
	change_stuck(s);
	s->in.change_ms--;
}
/* For a person who sets a host up, which takes as long as it takes. */
static void change_waits(struct set *s)
{
	change_stuck(s);
	s->in.change_ms *= 30;
	s->in.change_waits = true;
}
static void backup_old(struct set *s)
{
	s->f[2].backup_ms = DAYS(-9);
}
static void digest(struct set *s)
{
	s->d[2].digest[31] = 1;
}
static void digest_unclear(struct set *s)
{
	s->d[2].digest[31] = 1;
	s->d[1].digest[31] = 2;
}
static void digest_missing(struct set *s)
{
	strcpy(s->d[1].error, "late");
}

static const struct {
	const char *name;
	void (*change)(struct set *s);
	enum doctor_severity severity;
	int margin;
	const char *codes; /* "CODE:id ", in the order of the answer */
} cases[] = {
	{"healthy", NULL, DOCTOR_NOTE, 1, ""},
	{"one down", one_down, DOCTOR_ERROR, 0, "NOT_CONNECTED:3 QUORUM_MARGIN:0 "},
	{"two down", two_down, DOCTOR_ERROR, -1,
	 "NOT_CONNECTED:2 NOT_CONNECTED:3 QUORUM_LOST:0 DIGEST_UNKNOWN:0 "},
	{"no leader", no_leader, DOCTOR_ERROR, -1, "NO_LEADER:0 DIGEST_UNKNOWN:0 "},
	{"alone", alone, DOCTOR_WARNING, 0, "SINGLE_VOTER:0 "},
	{"even", even, DOCTOR_NOTE, 1, "EVEN_VOTERS:0 "},
	{"standby down", standby_down, DOCTOR_ERROR, 1, "NOT_CONNECTED:3 "},
	{"silent", silent, DOCTOR_WARNING, 1, "NO_ANSWER:2 "},
	{"small skew", skew_small, DOCTOR_NOTE, 1, ""},
	{"skew", skew, DOCTOR_WARNING, 1, "CLOCK_SKEW:2 "},
	{"large skew", skew_large, DOCTOR_ERROR, 1, "CLOCK_SKEW:2 "},
	{"own clock", skew_self, DOCTOR_ERROR, 1, "CLOCK_SKEW:1 "},
	{"two clocks", skew_of_two, DOCTOR_ERROR, 0, "CLOCK_SKEW:2 QUORUM_MARGIN:0 "},
	{"slow disk", slow, DOCTOR_WARNING, 1, "SLOW_DISK:3 "},
	{"few writes", slow_few, DOCTOR_NOTE, 1, ""},
	{"very slow disk", slow_much, DOCTOR_ERROR, 1, "SLOW_DISK:1 "},
	{"little space", disk, DOCTOR_WARNING, 1, "DISK_SPACE:2 "},
	{"no space", disk_out, DOCTOR_ERROR, 1, "DISK_SPACE:2 "},
	{"rebuilt", rebuilt, DOCTOR_WARNING, 1, "STORE_REBUILT:2 "},
	{"map", map, DOCTOR_WARNING, 1, "MAP_SPACE:2 "},
	{"map full", map_out, DOCTOR_ERROR, 1, "MAP_SPACE:2 "},
	{"state", state_full, DOCTOR_WARNING, 1, "STATE_SPACE:0 "},
	{"certificate", cert_soon, DOCTOR_WARNING, 1, "CERTIFICATE:2 "},
	{"certificate over", cert_over, DOCTOR_ERROR, 1, "CERTIFICATE:2 "},
	{"peer certificate over", peer_cert_over, DOCTOR_WARNING, 1, "CERTIFICATE:2 "},
	{"CA over", ca_over, DOCTOR_ERROR, 1, "CERTIFICATE:1 "},
	{"version", version, DOCTOR_WARNING, 1, "VERSION_SKEW:3 "},
	{"feature level", feature, DOCTOR_ERROR, 1, "FEATURE_SKEW:3 "},
	{"behind", behind, DOCTOR_WARNING, 1, "MEMBER_BEHIND:3 "},
	{"far behind", behind_much, DOCTOR_ERROR, 1, "MEMBER_BEHIND:3 "},
	{"a higher level is known", level_behind, DOCTOR_NOTE, 1, "FEATURE_LEVEL:0 "},
	{"not by all", level_of_some, DOCTOR_NOTE, 1, ""},
	{"rotated, all linked", rotated, DOCTOR_NOTE, 1, ""},
	{"rotated, one away", rotated_away, DOCTOR_ERROR, 0,
	 "NOT_CONNECTED:3 QUORUM_MARGIN:0 ROTATION_OPEN:3 "},
	{"a backup failed", backup_failed, DOCTOR_ERROR, 1, "BACKUP_FAILED:2 "},
	{"a schedule is late", backup_late, DOCTOR_WARNING, 1, "BACKUP_AGE:0 "},
	{"a schedule is about due", backup_due, DOCTOR_NOTE, 1, ""},
	{"a schedule begins", backup_first, DOCTOR_NOTE, 1, ""},
	{"no backup", backup_none, DOCTOR_NOTE, 1, "NO_BACKUP:0 "},
	{"old backup", backup_old, DOCTOR_WARNING, 1, "BACKUP_AGE:0 "},
	{"a change that does not go on", change_stuck, DOCTOR_WARNING, 1, "CHANGE_STUCK:0 "},
	{"a change that goes on", change_runs, DOCTOR_NOTE, 1, "CHANGE_RUNS:0 "},
	{"a change that waits for a host", change_waits, DOCTOR_NOTE, 1, "CHANGE_RUNS:0 "},
	{"one digest", digest, DOCTOR_ERROR, 1, "DIGEST_DIFFERS:3 "},
	{"no majority of digests", digest_unclear, DOCTOR_ERROR, 1, "DIGEST_DIFFERS:0 "},
	{"a digest is missing", digest_missing, DOCTOR_NOTE, 1, ""},
};

static void findings(void **state)
{
	(void)state;
	TEST_TABLE(c, cases)
	{
		struct doctor_result r;
		char codes[512] = "";
		struct set s;

		healthy(&s, c->change == even || c->change == standby_down ? 4 : 3);
		if (c->change != NULL) {
			c->change(&s);
		}
		doctor_judge(&s.in, &r);
		for (size_t i = 0; i < r.n; i++) {
			char one[64];

			snprintf(one, sizeof(one), "%s:%d ", r.finding[i].code,
				 (int)r.finding[i].id);
			strcat(codes, one);
			assert_true(r.finding[i].message[0] != '\0');
			assert_true(r.finding[i].remedy[0] != '\0');
			assert_true(i == 0 || r.finding[i - 1].severity >= r.finding[i].severity);
		}
		if (strcmp(codes, c->codes) != 0 || r.severity != c->severity ||
		    r.quorum_margin != c->margin) {
			TEST_FAIL("%s: severity %d margin %d \"%s\" instead of %d %d \"%s\"",
				  c->name, r.severity, r.quorum_margin, codes, c->severity,
				  c->margin, c->codes);
		}
	}
}

/* ---- what may be asked ---- */

struct lab {
	struct member_table t;
	struct link_state s;
	uint64_t away; /* bits */
};

static bool connected(void *arg, uint64_t id)
{
	return !(((struct lab *)arg)->away >> id & 1);
}

/* Members 1 (leads) to n, voters the first of them. */
static void lab_make(struct lab *l, size_t n, size_t voters)
{
	*l = (struct lab){0};
	l->s.self_leads = true;
	l->s.leader = 1;
	l->s.commit_index = 1000;
	for (uint64_t id = 1; id <= n; id++) {
		struct link_server *s = &l->s.server[l->s.n++];
		char name[16];

		snprintf(name, sizeof(name), "lh%d", (int)id);
		assert_int_equal(member_table_add(&l->t, id, false, id <= voters, 1, name, "a:1",
						  "https://a", "k", 1, NULL),
				 0);
		s->id = id;
		s->role = id <= voters ? LINK_VOTER : LINK_STANDBY;
		s->match_index = 990 + id;
	}
}

static const char *lead(struct lab *l, uint64_t id, uint64_t *ret)
{
	static struct err err;

	err_clear(&err);
	return member_may_lead(&l->t, &l->s, 1, id, connected, l, ret, &err) < 0 ? err.reason : "";
}

static const char *vote(struct lab *l, uint64_t id)
{
	static struct err err;

	err_clear(&err);
	return member_may_vote(&l->t, &l->s, 1, id, connected, l, &err) < 0 ? err.reason : "";
}

static void transfer(void **state)
{
	struct lab l;
	uint64_t to = 0;

	(void)state;
	lab_make(&l, 4, 3);
	assert_string_equal(lead(&l, 2, &to), "");
	assert_int_equal(to, 2);
	assert_string_equal(lead(&l, 0, &to), "");
	assert_int_equal(to, 3); /* has most */
	assert_string_equal(lead(&l, 1, &to), "LEADS_ALREADY");
	assert_string_equal(lead(&l, 4, &to), "NOT_A_VOTER");
	assert_string_equal(lead(&l, 9, &to), "MEMBER_NOT_FOUND");
	l.s.changing = true;
	assert_string_equal(lead(&l, 2, &to), "CHANGE_IN_FLIGHT");
	l.s.changing = false;
	l.away = 1 << 3;
	assert_string_equal(lead(&l, 3, &to), "MEMBER_NOT_CONNECTED");
	assert_string_equal(lead(&l, 0, &to), "");
	assert_int_equal(to, 2);
	l.s.server[1].match_index = 1;
	assert_string_equal(lead(&l, 2, &to), "MEMBER_BEHIND");
	assert_string_equal(lead(&l, 0, &to), "NO_OTHER_VOTER");
	l.away = 1 << 2 | 1 << 3;
	assert_string_equal(lead(&l, 2, &to), "WOULD_LOSE_QUORUM");
	l.s.self_leads = false;
	assert_int_equal(member_may_lead(&l.t, &l.s, 1, 2, connected, &l, &to, NULL),
			 ERR_NOT_LEADER);
	member_table_done(&l.t);
	lab_make(&l, 1, 1);
	assert_string_equal(lead(&l, 0, &to), "NO_OTHER_VOTER");
	member_table_done(&l.t);
}

static void promote(void **state)
{
	struct lab l;

	(void)state;
	lab_make(&l, 3, 2);
	assert_string_equal(vote(&l, 3), "");
	assert_string_equal(vote(&l, 2), "ALREADY_VOTER");
	assert_string_equal(vote(&l, 9), "MEMBER_NOT_FOUND");
	l.s.changing = true;
	assert_string_equal(vote(&l, 3), "CHANGE_IN_FLIGHT");
	l.s.changing = false;
	l.away = 1 << 3;
	assert_string_equal(vote(&l, 3), "MEMBER_NOT_CONNECTED");
	l.away = 1 << 2;
	assert_string_equal(vote(&l, 3), "WOULD_LOSE_QUORUM");
	l.away = 0;
	l.s.server[2].match_index = 3;
	assert_string_equal(vote(&l, 3), "MEMBER_BEHIND");
	member_table_done(&l.t);
	lab_make(&l, 4, 3);
	assert_string_equal(vote(&l, 4), "EVEN_VOTERS");
	member_table_done(&l.t);
	lab_make(&l, 7, 5);
	assert_string_equal(vote(&l, 6), "VOTERS_FULL");
	member_table_done(&l.t);
}

/* ---- times of appends ---- */

static void percentile(void **state)
{
	static struct append_times t;
	size_t n;

	(void)state;
	assert_int_equal(append_times_p99(&t, 1000, &n), 0);
	assert_int_equal(n, 0);
	for (uint64_t i = 1; i <= 100; i++) {
		append_times_add(&t, 1000, i);
	}
	assert_int_equal(append_times_p99(&t, 1000, &n), 99);
	assert_int_equal(n, 100);
	/* A window later only what is new counts; a full ring keeps the newest. */
	append_times_add(&t, 1001 + APPEND_WINDOW_MS, 7);
	assert_int_equal(append_times_p99(&t, 1001 + APPEND_WINDOW_MS, &n), 7);
	assert_int_equal(n, 1);
	for (uint64_t i = 0; i < 3 * APPEND_TIMES; i++) {
		append_times_add(&t, 5000 + APPEND_WINDOW_MS, i < 2 * APPEND_TIMES ? 1u << 20 : 5);
	}
	assert_int_equal(append_times_p99(&t, 5000 + APPEND_WINDOW_MS, &n), 5);
	assert_int_equal(n, APPEND_TIMES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(findings),
		cmocka_unit_test(transfer),
		cmocka_unit_test(promote),
		cmocka_unit_test(percentile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
