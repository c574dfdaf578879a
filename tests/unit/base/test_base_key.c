/* LIBS: base
 * base/key.h */
#include "tests/lib/test.h"

#include "base/buf.h"
#include "base/crypto.h"
#include "base/key.h"
#include "base/mem.h"

/* One of each form, with secrets from a fixed seed. */
static void make(struct key *k, enum key_kind kind, bool pin, size_t naddrs)
{
	struct test_rand r = {(uint64_t)kind * 10 + pin};

	test_rand_start(&r);
	key_generate(k, kind, 42);
	if (pin) {
		k->has_pin = true;
		k->pin.cluster_id = 0x1122334455667788;
		rand_bytes(k->pin.spki_sha256, 32);
	}
	if (kind == KEY_JOIN) {
		k->role = KEY_ROLE_LIGHTHOUSE;
		k->naddrs = naddrs;
		for (size_t i = 0; i < naddrs; i++) {
			snprintf(k->addrs[i], sizeof(k->addrs[i]), "lh%zu.example.net:8444", i);
		}
	}
	test_rand_stop();
}

static char *text_of(const struct key *k)
{
	struct buf b = BUF_INIT;

	key_format(k, &b);
	return buf_take(&b, NULL);
}

static const struct form {
	enum key_kind kind;
	bool pin;
	size_t naddrs;
	const char *head;
	size_t len;
} forms[] = {
	{KEY_AUTH, false, 0, "sk-auth-42-", 11 + 58},
	{KEY_AUTH, true, 0, "sk-auth-42-", 11 + 52 + 1 + 71},
	{KEY_API, false, 0, "sk-api-42-", 10 + 58},
	{KEY_API, true, 0, "sk-api-42-", 10 + 52 + 1 + 71},
	{KEY_JOIN, true, 0, "sk-join-42-", 11 + 52 + 1 + 74},
	{KEY_JOIN, true, 3, "sk-join-42-", 0},
	{KEY_JOIN, true, LIM_KEY_ADDRS, "sk-join-42-", 0},
};

static void test_round_trip(void **state)
{
	(void)state;
	TEST_TABLE(f, forms)
	{
		struct err e = {0};
		struct key k, back;
		char padded[LIM_KEY_TEXT + 8];
		char *text;

		make(&k, f->kind, f->pin, f->naddrs);
		text = text_of(&k);
		assert_int_equal(strncmp(text, f->head, strlen(f->head)), 0);
		if (f->len > 0) {
			assert_int_equal(strlen(text), f->len);
		}
		assert_true(strlen(text) <= LIM_KEY_TEXT);
		assert_ok(key_parse(text, &back, &e));
		assert_memory_equal(&k, &back, sizeof(k));
		/* As it comes out of a terminal or a file. */
		snprintf(padded, sizeof(padded), " \t%s\r\n", text);
		assert_ok(key_parse(padded, &back, &e));
		assert_memory_equal(&k, &back, sizeof(k));
		mem_free(text);
		key_done(&k);
		assert_int_equal(k.id, 0);
		key_done(&back);
	}
	key_done(NULL);
}

/* The longest token there can be fits into the limit. */
static void test_longest(void **state)
{
	struct key k, back;
	char *text;

	(void)state;
	make(&k, KEY_JOIN, true, LIM_KEY_ADDRS);
	k.id = LIM_ID_MAX;
	for (size_t i = 0; i < k.naddrs; i++) {
		memset(k.addrs[i], 'a', LIM_HOST_PORT);
		k.addrs[i][LIM_HOST_PORT] = '\0';
	}
	text = text_of(&k);
	assert_true(strlen(text) <= LIM_KEY_TEXT);
	assert_ok(key_parse(text, &back, NULL));
	assert_memory_equal(&k, &back, sizeof(k));
	mem_free(text);
}

/* Cut at any place, including the one that leaves the form of a key without pin. */
static void test_every_cut(void **state)
{
	(void)state;
	TEST_TABLE(f, forms)
	{
		struct key k, back = {0}, zero = {0};
		char *text;

		make(&k, f->kind, f->pin, f->naddrs);
		text = text_of(&k);
		for (size_t len = strlen(text); len > 0; len--) {
			struct err e = {0};

			text[len - 1] = '\0';
			if (key_parse(text, &back, &e) != ERR_INVALID) {
				TEST_FAIL("a cut after %zu characters is accepted: %s", len - 1,
					  text);
			}
			assert_true(e.reason[0] != '\0' && e.msg[0] != '\0');
			assert_memory_equal(&back, &zero, sizeof(zero));
		}
		mem_free(text);
	}
}

/* Any other character at any place; and any two neighbours exchanged. */
static void test_every_change(void **state)
{
	(void)state;
	TEST_TABLE(f, forms)
	{
		struct key k, back;
		char *text;
		size_t len;

		make(&k, f->kind, f->pin, f->naddrs);
		text = text_of(&k);
		len = strlen(text);
		for (size_t i = 0; i < len; i++) {
			static const char others[] = "0z-7 u!";
			char was = text[i];

			for (const char *o = others; *o != '\0'; o++) {
				if (*o == was || (*o == ' ' && (i == 0 || i == len - 1))) {
					continue;
				}
				text[i] = *o;
				assert_err(key_parse(text, &back, NULL), ERR_INVALID);
			}
			text[i] = was;
			if (i > 0 && text[i - 1] != was) {
				text[i] = text[i - 1];
				text[i - 1] = was;
				assert_err(key_parse(text, &back, NULL), ERR_INVALID);
				text[i - 1] = text[i];
				text[i] = was;
			}
		}
		assert_ok(key_parse(text, &back, NULL));
		mem_free(text);
	}
}

static void test_messages(void **state)
{
	static const struct {
		const char *text;
		const char *reason;
		const char *msg;
	} cases[] = {
		{"", "KEY_CUT", "empty"},
		{"  \n", "KEY_CUT", "empty"},
		{"tskey-auth-abc", "KEY_UNKNOWN_KIND", "not a Skerry key"},
		{"sk", "KEY_UNKNOWN_KIND", "not a Skerry key"},
		{"sk-au", "KEY_CUT", "within its kind"},
		{"sk-auth", "KEY_CUT", "after its kind"},
		{"sk-ssh-1-x", "KEY_UNKNOWN_KIND", "expected sk-auth-"},
		{"sk-auth-4", "KEY_CUT", "within its id"},
		{"sk-auth--x", "KEY_MALFORMED", "id is empty"},
		{"sk-auth-07-x", "KEY_MALFORMED", "begins with 0"},
		{"sk-auth-4x-x", "KEY_BAD_CHARACTER", "position 10"},
		{"sk-auth-9007199254740992-x", "KEY_MALFORMED", "too large"},
		{"sk-auth-42-0000", "KEY_CUT", "4 characters instead of 58"},
		{"sk-api-1-0000-0000", "KEY_CUT", "4 characters instead of 52"},
		{"sk-auth-42-0000000000000000000000000000000000000000000000000000", "KEY_CUT",
		 "ends before its pin"},
		{"sk-auth-42-0000000000000000000000000000000000000000000000000000-000", "KEY_CUT",
		 "3 characters instead of 71"},
		{"sk-auth-42-0000000000000000000000000000000000000000000000000000000000",
		 "KEY_CHECKSUM", "checksum"},
		{"sk-auth-42-00000000000000000000000000000000000000000000000000000000000",
		 "KEY_MALFORMED", "too long"},
		{"sk-auth-42-000000000!000000000000000000000000000000000000000000000000",
		 "KEY_BAD_CHARACTER", "position 21"},
		{"sk-join-42-0000000000000000000000000000000000000000000000000000000000", "KEY_CUT",
		 "join token is not complete"},
		{"sk-join-42-0000000000000000000000000000000000000000000000000000-00", "KEY_CUT",
		 "join token is not complete"},
		{"sk-join-42-0000000000000000000000000000000000000000000000000000-00-00",
		 "KEY_MALFORMED", "too many parts"},
	};
	char long_text[LIM_KEY_TEXT + 2];
	struct key k;
	struct err e;

	(void)state;
	TEST_TABLE(c, cases)
	{
		err_clear(&e);
		assert_err(key_parse(c->text, &k, &e), ERR_INVALID);
		if (strcmp(e.reason, c->reason) != 0) {
			TEST_FAIL("%s: %s %s", c->text, e.reason, e.msg);
		}
		assert_contains(e.msg, c->msg);
	}
	memset(long_text, 'a', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	assert_err(key_parse(long_text, &k, &e), ERR_INVALID);
	assert_contains(e.msg, "too long");
}

/* A message never shows a part of the secret. */
static void test_message_keeps_secret(void **state)
{
	struct err e = {0};
	struct key k;
	char *text;

	(void)state;
	make(&k, KEY_AUTH, false, 0);
	text = text_of(&k);
	text[strlen(text) - 1] ^= 1;
	assert_err(key_parse(text, &k, &e), ERR_INVALID);
	for (size_t i = 11; i + 6 < strlen(text); i++) {
		char part[7] = {0};

		memcpy(part, text + i, 6);
		assert_lacks(e.msg, part);
	}
	mem_free(text);
}

static void test_tolerance(void **state)
{
	struct key k, back;
	char *text;

	(void)state;
	make(&k, KEY_AUTH, true, 0);
	text = text_of(&k);
	for (char *p = text + 11; *p != '\0'; p++) {
		*p = *p == '0' ? 'O' : *p == '1' ? 'l' : *p >= 'a' ? (char)(*p - 32) : *p;
	}
	assert_ok(key_parse(text, &back, NULL));
	assert_memory_equal(&k, &back, sizeof(k));
	mem_free(text);
}

static void test_hash(void **state)
{
	uint8_t a[32], b[32];
	char out[KEY_REDACTED];
	struct key k;

	(void)state;
	make(&k, KEY_AUTH, false, 0);
	key_hash(&k, a);
	key_hash(&k, b);
	assert_memory_equal(a, b, 32);
	/* The same secret as another kind is another credential; the pin changes nothing. */
	k.has_pin = true;
	key_hash(&k, b);
	assert_memory_equal(a, b, 32);
	k.kind = KEY_API;
	key_hash(&k, b);
	assert_memory_not_equal(a, b, 32);
	k.kind = KEY_AUTH;
	k.secret[31] ^= 1;
	key_hash(&k, b);
	assert_memory_not_equal(a, b, 32);
	assert_string_equal(key_redacted(&k, out), "sk-auth-42-...");
	assert_string_equal(key_kind_text(KEY_JOIN), "join");
	assert_string_equal(key_kind_text((enum key_kind)9), "unknown");
}

static void test_public(void **state)
{
	static const struct {
		const char *prefix;
		const char *text;
		const char *msg;
	} bad[] = {
		{KEY_NODE_PREFIX, "mkey:00", "nodekey:"},
		{KEY_NODE_PREFIX, "", "nodekey:"},
		{KEY_MACHINE_PREFIX, "mkey:00", "64 hexadecimal"},
		{KEY_MACHINE_PREFIX,
		 "mkey:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff0",
		 "64 hexadecimal"},
		{KEY_DISCO_PREFIX,
		 "discokey:g0112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
		 "something else"},
		{KEY_DISCO_PREFIX,
		 "discokey:0000000000000000000000000000000000000000000000000000000000000000",
		 "all zero"},
	};
	uint8_t key[32], back[32];
	char text[KEY_PUBLIC_TEXT];
	struct err e = {0};

	(void)state;
	rand_bytes(key, sizeof(key));
	key_public_format(KEY_NODE_PREFIX, key, text);
	assert_int_equal(strlen(text), 8 + 64);
	assert_ok(key_public_parse(KEY_NODE_PREFIX, text, back, &e));
	assert_memory_equal(key, back, 32);
	TEST_TABLE(c, bad)
	{
		assert_err(key_public_parse(c->prefix, c->text, back, &e), ERR_INVALID);
		assert_contains(e.msg, c->msg);
	}
}

static int setup(void **state)
{
	(void)state;
	crypto_init();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip), cmocka_unit_test(test_longest),
		cmocka_unit_test(test_every_cut),  cmocka_unit_test(test_every_change),
		cmocka_unit_test(test_messages),   cmocka_unit_test(test_message_keeps_secret),
		cmocka_unit_test(test_tolerance),  cmocka_unit_test(test_hash),
		cmocka_unit_test(test_public),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
