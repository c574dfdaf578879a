/* Who does not get in: tokens, certificates, old directories; and that they disturb nothing. */
#include "tests/lib/test.h"

#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/crypto.h"
#include "base/key.h"
#include "base/limits.h"
#include "base/mem.h"
#include "cluster/keyfile.h"
#include "node.h"

struct fixture {
	char root[64];
	struct node n[3], guest;
	int guests;
	uint64_t term;
};

#define wait_for(condition, ms, what)                                   \
	do {                                                            \
		uint64_t end_ = clock_mono_ms() + MAX((ms), 30000);     \
		while (!(condition)) {                                  \
			if (clock_mono_ms() > end_) {                   \
				TEST_FAIL("timeout waiting for " what); \
			}                                               \
			usleep(5000);                                   \
		}                                                       \
	} while (0)

__attribute__((format(printf, 1, 2))) static void shell(const char *fmt, ...)
{
	char command[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	assert_int_equal(system(command), 0);
}

static bool settled(struct fixture *f, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (f->n[i].pid != 0 &&
		    (node_status(&f->n[i], "voters") != n || node_status(&f->n[i], "leader") == 0 ||
		     node_status(&f->n[i], "linked") != n - 1)) {
			return false;
		}
	}
	return true;
}

static char *new_token(struct fixture *f, uint64_t lifetime_ms)
{
	char line[NODE_LINE];

	return strdup(node_ok(&f->n[0], line, "token %" PRIu64, lifetime_ms));
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	static const char *const names[] = {"one", "two", "three"};
	char line[NODE_LINE], *token;

	crypto_init();
	node_election_ms = 4000; /* a new term shall be the intruder's work, not the machine's */
	snprintf(f->root, sizeof(f->root), "/tmp/skerry-refused-XXXXXX");
	assert_non_null(mkdtemp(f->root));
	for (size_t i = 0; i < 3; i++) {
		node_prepare(&f->n[i], f->root, names[i]);
		node_spawn(&f->n[i]);
	}
	*state = f;
	node_ok(&f->n[0], line, "init");
	node_ok(&f->n[0], line, "open");
	wait_for(node_status(&f->n[0], "leader") != 0, 5000, "a leader of one");
	for (size_t i = 1; i < 3; i++) {
		token = new_token(f, 0);
		node_ok(&f->n[i], line, "join %s", token);
		node_ok(&f->n[i], line, "open");
		free(token);
	}
	wait_for(settled(f, 3), 20000, "three voters");
	f->term = node_status(&f->n[0], "term");
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < 3; i++) {
		if (f->n[i].pid != 0) {
			node_kill(&f->n[i]);
		}
	}
	if (f->guest.pid != 0) {
		node_kill(&f->guest);
	}
	shell("rm -rf %s", f->root);
	free(f);
	return 0;
}

/* ---- tokens ---- */

static const char *guest_join(struct fixture *f, char out[NODE_LINE], const char *token)
{
	char name[16];

	snprintf(name, sizeof(name), "guest%d", f->guests++);
	node_prepare(&f->guest, f->root, name);
	node_spawn(&f->guest);
	node_say(&f->guest, out, "join %s", token);
	node_kill(&f->guest);
	return out;
}

/* A guest leaves nothing that looks like a lighthouse. */
static void not_joined(struct fixture *f)
{
	assert_false(keyfile_exists(f->guest.dir));
	assert_int_equal(node_status(&f->n[0], "members"), 3);
	assert_int_equal(node_status(&f->n[0], "term"), f->term);
}

static char *with_change(const char *token, void (*change)(struct key *k))
{
	struct buf text = BUF_INIT;
	struct key k;

	assert_ok(key_parse(token, &k, NULL));
	change(&k);
	key_format(&k, &text);
	return buf_take(&text, NULL);
}

static void other_secret(struct key *k)
{
	k->secret[0] ^= 1;
}

static void other_pin(struct key *k)
{
	k->pin.spki_sha256[0] ^= 1;
}

static void other_cluster(struct key *k)
{
	k->pin.cluster_id ^= 2;
}

static void test_tokens(void **state)
{
	struct fixture *f = *state;
	char out[NODE_LINE], *token = new_token(f, 0), *bad;
	uint64_t start;

	assert_contains(guest_join(f, out, "nonsense"), "error");
	not_joined(f);
	bad = strdup(token);
	bad[strlen(bad) - 5] = '\0';
	assert_contains(guest_join(f, out, bad), "KEY_");
	not_joined(f);
	free(bad);
	bad = with_change(token, other_secret);
	assert_contains(guest_join(f, out, bad), "error TOKEN_UNKNOWN");
	not_joined(f);
	mem_free(bad);
	/* The pin and the name are looked at before the token is sent: it still works afterwards. */
	bad = with_change(token, other_pin);
	start = clock_mono_ms();
	assert_contains(guest_join(f, out, bad), "pin");
	assert_true(clock_mono_ms() - start < 5000); /* said at once, not tried again and again */
	not_joined(f);
	mem_free(bad);
	bad = with_change(token, other_cluster);
	assert_contains(guest_join(f, out, bad), "error");
	not_joined(f);
	mem_free(bad);
	free(token);
	token = new_token(f, 1);
	usleep(20000);
	assert_contains(guest_join(f, out, token), "error TOKEN_EXPIRED");
	not_joined(f);
	free(token);
}

/* ---- certificates and directories: of member three, while it is away ---- */

/* Everybody else stays as they were while the intruder tries, and can write. */
static void undisturbed(struct fixture *f, unsigned ms)
{
	static int serial;
	uint64_t end = clock_mono_ms() + ms;
	char line[NODE_LINE];

	do {
		node_ok(&f->n[1], line, "user quiet%d", ++serial);
		assert_int_equal(node_status(&f->n[0], "term"), f->term);
		assert_int_equal(node_status(&f->n[1], "term"), f->term);
		assert_int_equal(node_status(&f->n[0], "linked"), 1);
		usleep(20000);
	} while (clock_mono_ms() < end);
}

/* Three stops; what leads then leads on. */
static void three_away(struct fixture *f)
{
	node_quit(&f->n[2]);
	wait_for(node_status(&f->n[0], "linked") == 1 && node_status(&f->n[0], "leader") != 0 &&
			 node_status(&f->n[1], "leader") != 0,
		 5000, "two to go on");
	f->term = node_status(&f->n[0], "term");
	wait_for(node_status(&f->n[1], "term") == f->term, 2000, "one term");
}

static void three_back(struct fixture *f)
{
	char line[NODE_LINE];

	node_spawn(&f->n[2]);
	node_ok(&f->n[2], line, "open");
	wait_for(settled(f, 3), 10000, "three to be back");
	f->term = node_status(&f->n[0], "term");
}

static void save(struct fixture *f)
{
	shell("cp -a %s %s.saved", f->n[2].dir, f->n[2].dir);
}

static void restore(struct fixture *f)
{
	shell("rm -rf %s && mv %s.saved %s", f->n[2].dir, f->n[2].dir, f->n[2].dir);
}

static void test_foreign_ca(void **state)
{
	struct fixture *f = *state;
	struct keyfile k = {0}, foreign = {0};
	struct pki_ca ca = {0};
	struct buf pem = BUF_INIT;
	uint8_t spki[PKI_SPKI_MAX];
	char line[NODE_LINE];

	three_away(f);
	save(f);
	assert_ok(keyfile_read(f->n[2].dir, &k, NULL));
	assert_ok(keyfile_new("x", "h:1", "https://h", clock_wall_ms(), &foreign, &ca, NULL));
	/* The right names, and even the registered key, by another CA. */
	ca.cluster = k.cluster_id;
	assert_ok(pki_issue_peer(&ca, k.lighthouse_id, spki, pki_spki(k.node_key, spki),
				 clock_wall_ms(), &pem, NULL));
	mem_free(k.node_cert_pem);
	k.node_cert_pem = buf_take(&pem, NULL);
	assert_ok(keyfile_write(f->n[2].dir, &k, NULL));
	node_spawn(&f->n[2]);
	node_ok(&f->n[2], line, "open");
	undisturbed(f, 3000);
	assert_int_equal(node_status(&f->n[2], "linked"), 0);
	assert_int_equal(node_status(&f->n[2], "leader"), 0);
	node_kill(&f->n[2]);
	keyfile_done(&k);
	keyfile_done(&foreign);
	pki_ca_done(&ca);
	restore(f);
	three_back(f);
}

static void test_other_key(void **state)
{
	struct fixture *f = *state;
	char line[NODE_LINE];

	three_away(f);
	save(f);
	node_ok(&f->n[0], line, "forge %s", f->n[2].dir);
	node_spawn(&f->n[2]);
	node_ok(&f->n[2], line, "open");
	undisturbed(f, 3000);
	assert_int_equal(node_status(&f->n[2], "leader"), 0);
	node_kill(&f->n[2]);
	restore(f);
	three_back(f);
}

/* Keys kept, log and store gone. */
static void test_wiped(void **state)
{
	struct fixture *f = *state;
	char line[NODE_LINE];

	three_away(f);
	save(f);
	shell("rm -rf %s/raft %s/store", f->n[2].dir, f->n[2].dir);
	node_spawn(&f->n[2]);
	node_say(&f->n[2], line, "open");
	if (strncmp(line, "ok", 2) == 0) {
		undisturbed(f, 2000);
		assert_int_equal(node_wait_exit(&f->n[2], 10000), 78);
	} else {
		undisturbed(f, 2000); /* refused by its own look at the directory */
		node_kill(&f->n[2]);
	}
	restore(f);
	three_back(f);
}

/* Three has just come back, so one of the others leads: it knows what three has acknowledged, once it has looked. */
static bool known(struct fixture *f, uint64_t index)
{
	for (size_t i = 0; i < 2; i++) {
		char line[NODE_LINE];

		if (node_status(&f->n[i], "leader") == node_status(&f->n[i], "id")) {
			node_say(&f->n[i], line, "acked %" PRIu64, node_status(&f->n[2], "id"));
			return node_number(line, "acked") >= index;
		}
	}
	return false;
}

/* A copy from before some writes. */
static void test_old_copy(void **state)
{
	struct fixture *f = *state;
	char line[NODE_LINE];
	uint64_t applied;

	three_away(f);
	save(f);
	three_back(f);
	for (int i = 0; i < 50; i++) {
		node_ok(&f->n[2], line, "user newer%d", i);
	}
	applied = node_status(&f->n[2], "applied");
	wait_for(known(f, applied), 5000, "the leader to see what three has acknowledged");
	three_away(f);
	shell("rm -rf %s.newer && mv %s %s.newer && cp -a %s.saved %s", f->n[2].dir, f->n[2].dir,
	      f->n[2].dir, f->n[2].dir, f->n[2].dir);
	node_spawn(&f->n[2]);
	node_ok(&f->n[2], line, "open");
	undisturbed(f, 1000);
	assert_int_equal(node_wait_exit(&f->n[2], 10000), 78);
	shell("rm -rf %s %s.saved && mv %s.newer %s", f->n[2].dir, f->n[2].dir, f->n[2].dir,
	      f->n[2].dir);
	three_back(f);
}

static bool renewed(const char *dir)
{
	struct keyfile k = {0};
	bool yes;

	assert_ok(keyfile_read(dir, &k, NULL));
	yes = !pki_needs_renewal(k.node_cert_pem, clock_wall_ms());
	keyfile_done(&k);
	return yes;
}

/* Certificates that have expired keep no member out; it renews them by itself. */
static void test_renewal(void **state)
{
	struct fixture *f = *state;
	struct keyfile k = {0};
	char line[NODE_LINE];
	int64_t now = clock_wall_ms();

	three_away(f);
	node_ok(&f->n[0], line, "forge %s expired", f->n[2].dir);
	assert_ok(keyfile_read(f->n[2].dir, &k, NULL));
	assert_false(x509_signed_by(k.node_cert_pem, k.ca_cert_pem, now));
	keyfile_done(&k);
	three_back(f);
	wait_for(renewed(f->n[2].dir), 10000, "the renewal");
	/* And with the state not there yet, as after a wiped store: by the old certificate. */
	three_away(f);
	node_ok(&f->n[0], line, "forge %s expired", f->n[2].dir);
	shell("rm -rf %s/store", f->n[2].dir);
	three_back(f);
	wait_for(renewed(f->n[2].dir), 10000, "the renewal once there is a state");
}

/* Last: three does not come back from this. */
static void test_removed(void **state)
{
	struct fixture *f = *state;
	uint64_t id = node_status(&f->n[2], "id");
	char line[NODE_LINE];

	assert_contains(node_say(&f->n[0], line, "remove 12345"), "MEMBER_NOT_FOUND");
	node_ok(&f->n[0], line, "remove %" PRIu64, id);
	/* Told, and gone by itself. */
	assert_int_equal(node_wait_exit(&f->n[2], 10000), 76);
	wait_for(node_status(&f->n[0], "members") == 2 && node_status(&f->n[1], "members") == 2 &&
			 node_status(&f->n[0], "leader") != 0 &&
			 node_status(&f->n[1], "leader") == node_status(&f->n[0], "leader"),
		 10000, "two members");
	wait_for(node_status(&f->n[0], "linked") == 1, 5000, "their link");
	f->term = node_status(&f->n[0], "term");
	wait_for(node_status(&f->n[1], "term") == f->term, 2000, "one term");
	node_spawn(&f->n[2]);
	node_say(&f->n[2], line, "open");
	undisturbed(f, 1500);
	assert_int_equal(node_wait_exit(&f->n[2], 10000), 76);
}

/* ---- after that: two voters, and guests that join ---- */

/* An answer that was lost: the same request again is the same member, even when the address has answered before. */
static void test_join_again(void **state)
{
	struct fixture *f = *state;
	char *token = new_token(f, 0), line[NODE_LINE];
	struct keyfile first = {0}, second = {0};

	node_prepare(&f->guest, f->root, "again");
	/* join.json is gone after an answer: keep a copy of what the request was made with. */
	node_spawn(&f->guest);
	shell("(while ! cp %s/join.json %s/kept 2>/dev/null; do :; done) & echo $! > %s/pid",
	      f->guest.dir, f->guest.dir, f->root);
	node_ok(&f->guest, line, "join %s", token);
	node_kill(&f->guest);
	assert_ok(keyfile_read(f->guest.dir, &first, NULL));
	shell("mv %s/kept %s/join.json && rm %s/identity.json", f->guest.dir, f->guest.dir,
	      f->guest.dir);
	assert_false(keyfile_exists(f->guest.dir));
	node_spawn(&f->guest);
	node_ok(&f->guest, line, "join %s", token);
	assert_ok(keyfile_read(f->guest.dir, &second, NULL));
	assert_int_equal(first.lighthouse_id, second.lighthouse_id);
	assert_memory_equal(first.cluster_key, second.cluster_key, PKI_KEY);
	assert_int_equal(node_status(&f->n[0], "members"), 3);
	/* Another host with the same token, and the same one in an initialised directory. */
	node_kill(&f->guest);
	node_prepare(&f->guest, f->root, "thief");
	node_spawn(&f->guest);
	assert_contains(node_say(&f->guest, line, "join %s", token), "error TOKEN_USED");
	node_kill(&f->guest);
	snprintf(f->guest.dir, sizeof(f->guest.dir), "%s/again", f->root);
	node_spawn(&f->guest);
	assert_contains(node_say(&f->guest, line, "join %s", token), "error ALREADY_INITIALISED");
	/* It takes the place of the one that was removed. */
	node_ok(&f->guest, line, "open");
	wait_for(node_status(&f->n[0], "voters") == 3 && node_status(&f->guest, "voters") == 3,
		 15000, "three voters again");
	node_kill(&f->guest);
	keyfile_done(&first);
	keyfile_done(&second);
	free(token);
}

/* A member that was dead when it was removed: nobody goes on dialling it, fifty times a second. */
static void test_dead_removed(void **state)
{
	enum { WATCH_MS = 2000, MOST = 20 };
	struct fixture *f = *state;
	uint64_t id, wishes[2];
	char line[NODE_LINE];

	node_spawn(&f->guest);
	node_ok(&f->guest, line, "open");
	wait_for(node_status(&f->n[0], "linked") == 2 && node_status(&f->n[1], "linked") == 2,
		 15000, "three");
	id = node_status(&f->guest, "id");
	for (size_t i = 0; i < 2; i++) {
		wishes[i] = node_status(&f->n[i], "wishes");
	}
	node_kill(&f->guest);
	for (size_t i = 0; i < 2; i++) {
		wait_for(node_status(&f->n[i], "wishes") > wishes[i], 10000, "it to be dialled");
	}
	wait_for(node_status(&f->n[0], "leader") != 0 && node_status(&f->n[0], "leader") != id,
		 15000, "a leader");
	node_ok(&f->n[0], line, "remove %" PRIu64, id);
	wait_for(node_status(&f->n[0], "members") == 2 && node_status(&f->n[1], "members") == 2,
		 10000, "two members");
	for (size_t i = 0; i < 2; i++) {
		wishes[i] = node_status(&f->n[i], "wishes");
	}
	usleep(WATCH_MS * 1000);
	for (size_t i = 0; i < 2; i++) {
		assert_in_range(node_status(&f->n[i], "wishes") - wishes[i], 0, MOST);
	}
}

static void test_join_rate(void **state)
{
	struct fixture *f = *state;
	char *token = new_token(f, 0), *bad = with_change(token, other_secret), line[NODE_LINE];
	int refused = 0;

	node_prepare(&f->guest, f->root, "flood");
	node_spawn(&f->guest);
	do {
		node_say(&f->guest, line, "join %s", bad);
		assert_true(++refused <= LIM_JOIN_PER_SOURCE_PER_MIN + 1);
	} while (strncmp(line, "error TOKEN_UNKNOWN", 19) == 0);
	assert_contains(line, "error JOIN_RATE");
	mem_free(bad);
	free(token);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tokens),       cmocka_unit_test(test_foreign_ca),
		cmocka_unit_test(test_other_key),    cmocka_unit_test(test_wiped),
		cmocka_unit_test(test_old_copy),     cmocka_unit_test(test_renewal),
		cmocka_unit_test(test_removed),      cmocka_unit_test(test_join_again),
		cmocka_unit_test(test_dead_removed), cmocka_unit_test(test_join_rate),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
