/* The text forms of keys: sk-auth, sk-api, sk-join, and node, machine and disco keys. */
#pragma once

#include "base/limits.h"
#include "base/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct err;

/* sk-<kind>-<id>-<secret>[-<pin>]
 *   id      decimal, 1 .. 2^53-1
 *   secret  32 bytes; without a pin the checksum follows in the same part
 *   pin     cluster id (8), SPKI SHA-256 of the cluster's CA (32); join: role (1), number of
 *           addresses (1), each length (1) and text; then the checksum
 * Parts are Crockford base32 in lower case. The checksum is 4 bytes of SHA-256 over all that is
 * before it, kind included, so that a cut at any place, a part left out or two keys mixed are
 * refused before any network traffic. */
enum key_kind { KEY_AUTH = 1, KEY_API = 2, KEY_JOIN = 3 };

/* What a join token lets its holder become. */
enum key_role { KEY_ROLE_NONE = 0, KEY_ROLE_LIGHTHOUSE = 1, KEY_ROLE_RELAY = 2 };

/* Plain value; holds a secret: key_done after use. */
struct key {
	enum key_kind kind;
	uint64_t id;
	uint8_t secret[32];
	bool has_pin; /* always for join */
	struct {
		uint64_t cluster_id;
		uint8_t spki_sha256[32];
	} pin;
	/* join only */
	enum key_role role;
	size_t naddrs;
	char addrs[LIM_KEY_ADDRS][LIM_HOST_PORT + 1]; /* host:port of the peer port */
};

/* A key with a fresh secret and no pin. */
void key_generate(struct key *k, enum key_kind kind, uint64_t id);
/* Overwrites it. NULL is fine. */
void key_done(struct key *k);
/* Spaces and newlines at both ends are ignored. ERR_INVALID with a reason (KEY_UNKNOWN_KIND,
 * KEY_CUT, KEY_CHECKSUM, KEY_BAD_CHARACTER, KEY_MALFORMED) and a message that names part and
 * position, never the secret. *ret is untouched then. */
int key_parse(const char *text, struct key *ret, struct err *e) MUST_CHECK;
/* Appends the text. A key that key_parse would refuse is a programming error. */
void key_format(const struct key *k, struct buf *out);
/* "sk-auth-42-..." : kind and id only, for logs. Returns out. */
#define KEY_REDACTED 48
const char *key_redacted(const struct key *k, char out[KEY_REDACTED]);
/* What the state holds: SHA-256("skerry key v1", 0, kind, secret). */
void key_hash(const struct key *k, uint8_t out[32]);
const char *key_kind_text(enum key_kind kind);

/* Public keys as text: "nodekey:<64 hex>", "mkey:<64 hex>", "discokey:<64 hex>". */
#define KEY_NODE_PREFIX    "nodekey:"
#define KEY_MACHINE_PREFIX "mkey:"
#define KEY_DISCO_PREFIX   "discokey:"
#define KEY_PUBLIC_TEXT    80
/* prefix is one of the three. Returns out. */
const char *key_public_format(const char *prefix, const uint8_t key[32], char out[KEY_PUBLIC_TEXT]);
/* ERR_INVALID names what is wrong; an all-zero key is refused. */
int key_public_parse(const char *prefix, const char *text, uint8_t ret[32],
		     struct err *e) MUST_CHECK;
