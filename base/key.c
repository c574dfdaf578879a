#include "base/key.h"

#include "base/buf.h"
#include "base/crypto.h"
#include "base/enc.h"
#include "base/err.h"
#include "base/rand.h"
#include "base/rd.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_CHECK  4
#define KEY_SECRET 32
/* Characters of the secret part: with a pin after it, and with the checksum in it. */
#define SECRET_CHARS      BASE32_LEN(KEY_SECRET)
#define LAST_SECRET_CHARS BASE32_LEN(KEY_SECRET + KEY_CHECK)
/* Characters of an auth key's pin. */
#define PIN_BYTES (8 + 32)
#define PIN_CHARS BASE32_LEN(PIN_BYTES + KEY_CHECK)
/* Most bytes of a join token's pin. */
#define JOIN_MAX (PIN_BYTES + 2 + LIM_KEY_ADDRS * (1 + LIM_HOST_PORT) + KEY_CHECK)
#define JOIN_MIN (PIN_BYTES + 2 + KEY_CHECK)

_Static_assert(sizeof("sk-auth-") + 20 + 1 + SECRET_CHARS + 1 + BASE32_LEN(JOIN_MAX) < LIM_KEY_TEXT,
	       "the longest join token fits");

static const char *const kind_names[] = {NULL, "auth", "api", "join"};

const char *key_kind_text(enum key_kind kind)
{
	return (size_t)kind < ARRAY_LEN(kind_names) && kind > 0 ? kind_names[kind] : "unknown";
}

void key_generate(struct key *k, enum key_kind kind, uint64_t id)
{
	memset(k, 0, sizeof(*k));
	k->kind = kind;
	k->id = id;
	rand_bytes(k->secret, sizeof(k->secret));
}

void key_done(struct key *k)
{
	if (k != NULL) {
		secret_wipe(k, sizeof(*k));
	}
}

/* Over the meaning, not the characters, so that upper case and o for 0 do not matter. pin is what
 * comes before the checksum in the pin part. */
static void key_checksum(enum key_kind kind, uint64_t id, const uint8_t secret[KEY_SECRET],
			 const uint8_t *pin, size_t pin_len, uint8_t out[KEY_CHECK])
{
	static const char domain[] = "skerry key checksum v1";
	uint8_t head[9];
	uint8_t hash[CRYPTO_HASH];
	struct crypto_iov iov[] = {
		{domain, sizeof(domain)},
		{head, sizeof(head)},
		{secret, KEY_SECRET},
		{pin, pin_len},
	};

	head[0] = (uint8_t)kind;
	be_put64(head + 1, id);
	crypto_sha256v(hash, iov, ARRAY_LEN(iov));
	memcpy(out, hash, KEY_CHECK);
}

static void pin_encode(const struct key *k, struct buf *b)
{
	buf_u64be(b, k->pin.cluster_id);
	buf_append(b, k->pin.spki_sha256, sizeof(k->pin.spki_sha256));
	if (k->kind == KEY_JOIN) {
		buf_u8(b, (uint8_t)k->role);
		buf_u8(b, (uint8_t)k->naddrs);
		for (size_t i = 0; i < k->naddrs; i++) {
			size_t len = strlen(k->addrs[i]);

			PRE(len > 0 && len <= UINT8_MAX);
			buf_u8(b, (uint8_t)len);
			buf_append(b, k->addrs[i], len);
		}
	}
}

void key_format(const struct key *k, struct buf *out)
{
	uint8_t last[KEY_SECRET + KEY_CHECK];
	struct buf pin = BUF_INIT;

	PRE(k->kind >= KEY_AUTH && k->kind <= KEY_JOIN);
	PRE(k->id >= 1 && k->id <= LIM_ID_MAX);
	PRE(k->kind != KEY_JOIN || (k->has_pin && k->role != KEY_ROLE_NONE));
	PRE(k->naddrs <= LIM_KEY_ADDRS);

	/* Room for all of it at once, so that no copy of the secret stays behind in the heap. */
	buf_reserve(out, LIM_KEY_TEXT);
	buf_printf(out, "sk-%s-%" PRIu64 "-", key_kind_text(k->kind), k->id);
	memcpy(last, k->secret, KEY_SECRET);
	if (!k->has_pin) {
		key_checksum(k->kind, k->id, k->secret, NULL, 0, last + KEY_SECRET);
		base32_append(out, last, sizeof(last));
	} else {
		uint8_t check[KEY_CHECK];

		base32_append(out, last, KEY_SECRET);
		buf_u8(out, '-');
		pin_encode(k, &pin);
		key_checksum(k->kind, k->id, k->secret, pin.data, pin.len, check);
		buf_append(&pin, check, sizeof(check));
		base32_append(out, pin.data, pin.len);
		buf_done(&pin);
	}
	secret_wipe(last, sizeof(last));
}

static int key_bad(struct err *e, const char *reason, const char *msg)
{
	return err_reason(e, ERR_INVALID, reason, "%s", msg);
}

static int key_cut(struct err *e, const char *part, size_t have, size_t want)
{
	return err_reason(e, ERR_INVALID, "KEY_CUT",
			  "the key is not complete: its %s has %zu characters instead of %zu; copy "
			  "the whole of it",
			  part, have, want);
}

/* Where in the parse we are; offsets for messages count from the first character of the text. */
struct key_text {
	const char *start;
	const char *p;
	const char *end;
};

static int parse_kind(struct key_text *t, struct key *k, struct err *e)
{
	const char *dash;
	size_t len;

	if (t->end - t->p < 3 || memcmp(t->p, "sk-", 3) != 0) {
		return key_bad(e, "KEY_UNKNOWN_KIND",
			       "this is not a Skerry key: it does not begin with sk-auth-, sk-api- "
			       "or sk-join-");
	}
	t->p += 3;
	dash = memchr(t->p, '-', (size_t)(t->end - t->p));
	len = dash != NULL ? (size_t)(dash - t->p) : (size_t)(t->end - t->p);
	for (size_t i = 1; i < ARRAY_LEN(kind_names); i++) {
		if (strlen(kind_names[i]) == len && memcmp(kind_names[i], t->p, len) == 0) {
			if (dash == NULL) {
				return key_bad(e, "KEY_CUT",
					       "the key is not complete: it ends after its kind");
			}
			k->kind = (enum key_kind)i;
			t->p = dash + 1;
			return 0;
		}
	}
	return key_bad(e, dash != NULL ? "KEY_UNKNOWN_KIND" : "KEY_CUT",
		       dash != NULL ? "unknown kind of key: expected sk-auth-, sk-api- or sk-join-"
				    : "the key is not complete: it ends within its kind");
}

static int parse_id(struct key_text *t, struct key *k, struct err *e)
{
	const char *from = t->p;
	uint64_t id = 0;

	for (; t->p < t->end && *t->p != '-'; t->p++) {
		if (*t->p < '0' || *t->p > '9') {
			return err_reason(e, ERR_INVALID, "KEY_BAD_CHARACTER",
					  "the key's id has something else than a digit at "
					  "position %zu",
					  (size_t)(t->p - t->start) + 1);
		}
		id = id * 10 + (uint64_t)(*t->p - '0');
		if (id > LIM_ID_MAX) {
			return key_bad(e, "KEY_MALFORMED", "the key's id is too large");
		}
	}
	if (t->p == t->end) {
		return key_bad(e, "KEY_CUT", "the key is not complete: it ends within its id");
	}
	if (t->p == from || *from == '0') {
		return key_bad(e, "KEY_MALFORMED", "the key's id is empty or begins with 0");
	}
	k->id = id;
	t->p++;
	return 0;
}

/* Decodes len characters at p, all of one part. */
static int parse_part(struct key_text *t, size_t len, const char *part, uint8_t *out, size_t cap,
		      struct err *e)
{
	size_t bad = base32_bad_char(t->p, len);
	int n;

	if (bad < len) {
		return err_reason(e, ERR_INVALID, "KEY_BAD_CHARACTER",
				  "the key's %s has a character that no key contains at position "
				  "%zu",
				  part, (size_t)(t->p - t->start) + bad + 1);
	}
	n = base32_decode(t->p, len, out, cap);
	if (n < 0) {
		return err_reason(e, ERR_INVALID, "KEY_CHECKSUM",
				  "the key's %s is damaged (a character is missing, or wrong); "
				  "copy the whole key again",
				  part);
	}
	t->p += len;
	return n;
}

static int parse_join(struct rd *r, struct key *k, struct err *e)
{
	uint8_t role = rd_u8(r);
	uint8_t n = rd_u8(r);

	if (role != KEY_ROLE_LIGHTHOUSE && role != KEY_ROLE_RELAY) {
		return key_bad(e, "KEY_MALFORMED",
			       "the join token is for a role unknown here; "
			       "this program may be too old");
	}
	if (n > LIM_KEY_ADDRS) {
		return key_bad(e, "KEY_MALFORMED", "the join token names too many addresses");
	}
	k->role = (enum key_role)role;
	k->naddrs = n;
	for (size_t i = 0; i < n; i++) {
		uint8_t len = rd_u8(r);
		const uint8_t *text = rd_bytes(r, len);

		if (text == NULL || len == 0) {
			return key_bad(e, "KEY_MALFORMED", "the join token's addresses are broken");
		}
		for (size_t j = 0; j < len; j++) {
			if (text[j] <= 0x20 || text[j] >= 0x7f) {
				return key_bad(e, "KEY_MALFORMED",
					       "an address in the join token is not text");
			}
		}
		memcpy(k->addrs[i], text, len);
		k->addrs[i][len] = '\0';
	}
	return 0;
}

static int parse_pin(struct key_text *t, struct key *k, struct err *e)
{
	uint8_t raw[JOIN_MAX];
	uint8_t check[KEY_CHECK];
	size_t len = (size_t)(t->end - t->p);
	struct rd r;
	int n;
	int rv;

	if (memchr(t->p, '-', len) != NULL) {
		return key_bad(e, "KEY_MALFORMED",
			       "the key has too many parts; were two keys "
			       "pasted?");
	}
	if (k->kind != KEY_JOIN && len < PIN_CHARS) {
		return key_cut(e, "pin", len, PIN_CHARS);
	}
	if (k->kind == KEY_JOIN && len < BASE32_LEN(JOIN_MIN)) {
		return key_bad(e, "KEY_CUT",
			       "the join token is not complete; copy the whole of it");
	}
	if (len > (k->kind == KEY_JOIN ? BASE32_LEN(JOIN_MAX) : PIN_CHARS)) {
		return key_bad(e, "KEY_MALFORMED",
			       "the key is too long; was something pasted "
			       "behind it?");
	}
	n = parse_part(t, len, "pin", raw, sizeof(raw), e);
	if (n < 0) {
		return n;
	}
	n -= KEY_CHECK;
	key_checksum(k->kind, k->id, k->secret, raw, (size_t)n, check);
	if (!crypto_equal(check, raw + n, KEY_CHECK)) {
		return key_bad(e, "KEY_CHECKSUM",
			       "the key is damaged or cut (its checksum is wrong); copy the whole "
			       "of it again");
	}
	k->has_pin = true;
	rd_init(&r, raw, (size_t)n);
	k->pin.cluster_id = rd_u64be(&r);
	rd_copy(&r, k->pin.spki_sha256, sizeof(k->pin.spki_sha256));
	if (k->kind == KEY_JOIN) {
		rv = parse_join(&r, k, e);
		if (rv < 0) {
			return rv;
		}
	}
	if (!rd_ok_end(&r)) {
		return key_bad(e, "KEY_MALFORMED", "the key's pin has the wrong length");
	}
	return 0;
}

/* The secret part without a pin behind it: the checksum is in it. */
static int parse_last_secret(struct key_text *t, size_t len, struct key *k, struct err *e)
{
	uint8_t raw[KEY_SECRET + KEY_CHECK];
	uint8_t check[KEY_CHECK];
	int rv;

	if (k->kind == KEY_JOIN) {
		return key_bad(e, "KEY_CUT",
			       "the join token is not complete; copy the whole of it");
	}
	if (len == SECRET_CHARS) {
		return key_bad(e, "KEY_CUT",
			       "the key is not complete: it ends before its pin; "
			       "copy the whole of it");
	}
	if (len < LAST_SECRET_CHARS) {
		return key_cut(e, "secret", len, LAST_SECRET_CHARS);
	}
	if (len > LAST_SECRET_CHARS) {
		return key_bad(e, "KEY_MALFORMED",
			       "the key is too long; was something pasted "
			       "behind it?");
	}
	rv = parse_part(t, len, "secret", raw, sizeof(raw), e);
	if (rv >= 0) {
		rv = 0;
		memcpy(k->secret, raw, KEY_SECRET);
		key_checksum(k->kind, k->id, k->secret, NULL, 0, check);
		if (!crypto_equal(check, raw + KEY_SECRET, KEY_CHECK)) {
			rv = key_bad(e, "KEY_CHECKSUM",
				     "the key is damaged (its checksum is wrong); copy the whole "
				     "of it again");
		}
	}
	secret_wipe(raw, sizeof(raw));
	return rv;
}

static int parse_rest(struct key_text *t, struct key *k, struct err *e)
{
	size_t left = (size_t)(t->end - t->p);
	const char *dash = memchr(t->p, '-', left);
	size_t len;
	int rv;

	if (dash == NULL) {
		return parse_last_secret(t, left, k, e);
	}
	len = (size_t)(dash - t->p);
	if (len != SECRET_CHARS) {
		return key_cut(e, "secret", len, SECRET_CHARS);
	}
	rv = parse_part(t, len, "secret", k->secret, sizeof(k->secret), e);
	if (rv < 0) {
		return rv;
	}
	t->p = dash + 1;
	return parse_pin(t, k, e);
}

static bool blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

int key_parse(const char *text, struct key *ret, struct err *e)
{
	struct key_text t;
	struct key k;
	size_t len;
	int rv;

	while (blank(*text)) {
		text++;
	}
	len = strnlen(text, LIM_KEY_TEXT + 1);
	if (len > LIM_KEY_TEXT) {
		return key_bad(e, "KEY_MALFORMED", "this is too long to be a Skerry key");
	}
	while (len > 0 && blank(text[len - 1])) {
		len--;
	}
	if (len == 0) {
		return key_bad(e, "KEY_CUT", "the key is empty");
	}
	memset(&k, 0, sizeof(k));
	t.start = text;
	t.p = text;
	t.end = text + len;
	rv = parse_kind(&t, &k, e);
	if (rv == 0) {
		rv = parse_id(&t, &k, e);
	}
	if (rv == 0) {
		rv = parse_rest(&t, &k, e);
	}
	if (rv == 0) {
		*ret = k;
	}
	secret_wipe(&k, sizeof(k));
	return rv;
}

const char *key_redacted(const struct key *k, char out[KEY_REDACTED])
{
	snprintf(out, KEY_REDACTED, "sk-%s-%" PRIu64 "-...", key_kind_text(k->kind), k->id);
	return out;
}

void key_hash(const struct key *k, uint8_t out[32])
{
	static const char domain[] = "skerry key v1";
	uint8_t kind = (uint8_t)k->kind;
	struct crypto_iov iov[] = {
		{domain, sizeof(domain)},
		{&kind, 1},
		{k->secret, sizeof(k->secret)},
	};

	crypto_sha256v(out, iov, ARRAY_LEN(iov));
}

const char *key_public_format(const char *prefix, const uint8_t key[32], char out[KEY_PUBLIC_TEXT])
{
	size_t len = strlen(prefix);

	PRE(len + 64 < KEY_PUBLIC_TEXT);
	memcpy(out, prefix, len);
	hex_encode(out + len, key, 32);
	return out;
}

int key_public_parse(const char *prefix, const char *text, uint8_t ret[32], struct err *e)
{
	static const uint8_t zero[32];
	size_t len = strlen(prefix);
	uint8_t key[32];

	if (strncmp(text, prefix, len) != 0) {
		return err_set(e, ERR_INVALID, "\"%.24s\": expected a key that begins with %s",
			       text, prefix);
	}
	text += len;
	if (strnlen(text, 65) != 64) {
		return err_set(e, ERR_INVALID,
			       "%s must be followed by exactly 64 hexadecimal digits", prefix);
	}
	if (hex_decode(text, 64, key, sizeof(key)) != 32) {
		return err_set(e, ERR_INVALID,
			       "%s is followed by something else than hexadecimal "
			       "digits",
			       prefix);
	}
	if (memcmp(key, zero, sizeof(key)) == 0) {
		return err_set(e, ERR_INVALID, "%s: the key is all zero", prefix);
	}
	memcpy(ret, key, sizeof(key));
	return 0;
}
