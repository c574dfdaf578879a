/* The tables of the store and the keys of their records. Part of the stored format: never renumbered. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"
#include "tailnet/kv.h"

/*
 * The first byte of a key is its table; integers are big-endian, so that keys sort by number.
 *
 * TABLE_META is one record. The primary tables (PRIMARY) are what people and devices gave us: they are in the
 * digest. The rest can be computed from them (indexes), or serves retries, resumption and retention
 * (bookkeeping): outside of the digest. A snapshot carries every table.
 */
enum table {
	TABLE_META = 0x01, /* - -> Meta */

	/* primary */
	TABLE_MEMBER = 0x10,     /* id -> MemberRecord */
	TABLE_JOIN_TOKEN = 0x11, /* id -> JoinTokenRecord */
	TABLE_CA = 0x12,         /* generation -> CaRecord */
	TABLE_SECRET = 0x13,     /* name -> SealedSecret */
	TABLE_TAILNET = 0x14,    /* id -> TailnetRecord */
	TABLE_ACCOUNT = 0x15,    /* id -> AccountRecord */
	TABLE_USER = 0x16,       /* tailnet, id -> UserRecord */
	TABLE_NODE = 0x17,       /* tailnet, id -> NodeRecord */
	TABLE_ENDPOINTS = 0x18,  /* tailnet, node -> NodeEndpoints */
	TABLE_PRESENCE = 0x19,   /* tailnet, node -> Presence */
	TABLE_AUTH_KEY = 0x1a,   /* tailnet, id -> AuthKeyRecord */
	TABLE_API_KEY = 0x1b,    /* tailnet, id -> ApiKeyRecord */
	TABLE_PENDING = 0x1c,    /* tailnet, id -> PendingRecord */
	TABLE_AUDIT = 0x1d,      /* tailnet, sequence -> AuditRecord */
	TABLE_RESTING = 0x1e,    /* key of an index entry (address or name) -> Resting */
	TABLE_PURGE = 0x1f,      /* tailnet -> PurgeRecord */
	TABLE_MEMBERSHIP = 0x20, /* 1: runs, 2: ended last -> MembershipChange */

	/* indexes: tailnet and id of the object as two u64, unless said otherwise */
	TABLE_BY_TAILNET_NAME = 0x40, /* name -> tailnet, tailnet */
	TABLE_BY_LOGIN = 0x41,        /* tailnet, login name -> user */
	TABLE_BY_NODE_KEY = 0x42,     /* 32 bytes -> node */
	TABLE_BY_MACHINE = 0x43,      /* u8 kind, 32 bytes, tailnet, user -> node */
	TABLE_BY_ADDRESS = 0x44,      /* 4 or 16 bytes -> node */
	TABLE_BY_NODE_NAME = 0x45,    /* tailnet, given name -> node */
	TABLE_BY_DISCO_KEY = 0x46,    /* 32 bytes, tailnet, node -> node */
	TABLE_BY_AUTH_KEY = 0x47,     /* id -> auth key */
	TABLE_BY_API_KEY = 0x48,      /* id -> API key */
	TABLE_BY_CODE = 0x49,         /* SHA-256 of the code -> pending */
	TABLE_BY_PENDING_KEY = 0x4a,  /* tailnet, 32 bytes of node key -> pending without verdict */
	TABLE_NODE_OF_USER = 0x4b,    /* tailnet, user, node -> empty */
	TABLE_KEY_OF_USER = 0x4c,     /* tailnet, user, u8 change kind, key id -> empty */
	TABLE_SESSION = 0x4d,         /* lighthouse, tailnet, node -> empty: attached there */
	TABLE_DEADLINE = 0x4e,        /* ms, u8 enum deadline, tailnet, rest -> empty */

	/* bookkeeping */
	TABLE_HEAD = 0x60,   /* tailnet -> TailnetHead */
	TABLE_CHANGE = 0x61, /* tailnet, revision, u8 kind, object -> ChangeRecord */
	TABLE_TOMBSTONE =
		0x62, /* tailnet, revision, u8 kind, object -> u64 ms: deleted entries of CHANGE */
	TABLE_HISTORY = 0x63,       /* tailnet, u16 length of key, key, revision -> HistoryRecord */
	TABLE_HISTORY_QUEUE = 0x64, /* tailnet, revision, key -> u64 ms, u64 bytes */
	TABLE_REQUEST = 0x65, /* tailnet, BLAKE2b-256(caller, 0, request id) -> DedupeRecord */
	TABLE_ORIGIN = 0x66,  /* lighthouse, incarnation -> OriginRecord */
	TABLE_ORIGIN_ANSWER = 0x67, /* lighthouse, incarnation, sequence -> OriginAnswer */
};

/* What a deadline is about; the rest of its key in brackets. */
enum deadline {
	DEADLINE_PRESENCE = 1,    /* a lost session becomes offline [node] */
	DEADLINE_EPHEMERAL = 2,   /* an ephemeral node is removed [node] */
	DEADLINE_NODE = 3,        /* a node key expires [node] */
	DEADLINE_AUTH_KEY = 4,    /* [key id] */
	DEADLINE_API_KEY = 5,     /* [key id] */
	DEADLINE_JOIN_TOKEN = 6,  /* [token id] */
	DEADLINE_PENDING = 7,     /* [pending id] */
	DEADLINE_REST = 8,        /* an address or name is free again [key of the resting record] */
	DEADLINE_REQUEST = 9,     /* a request id is forgotten [key of the row] */
	DEADLINE_TOMBSTONES = 10, /* the oldest tombstone of the tailnet goes [] */
	DEADLINE_HISTORY = 11,    /* the oldest history of the tailnet goes [] */
	DEADLINE_PURGE = 12,      /* a portion of a deleted tailnet goes [] */
};

/* Longest key of any store. */
enum { SKEY_MAX = 400 };

/* A key under construction. Embedded, no cleanup. Past SKEY_MAX is a programming error. */
struct skey {
	uint16_t len;
	uint8_t data[SKEY_MAX];
};

static inline struct slice skey_slice(const struct skey *k)
{
	return (struct slice){k->data, k->len};
}

void skey_init(struct skey *k, enum table t);
void skey_add_u8(struct skey *k, uint8_t v);
void skey_add_u16(struct skey *k, uint16_t v);
void skey_add_u64(struct skey *k, uint64_t v);
void skey_add_bytes(struct skey *k, const void *data, size_t len);
/* Without the NUL. */
void skey_add_str(struct skey *k, const char *s);

/* The usual forms at once; they return the slice of k. */
struct slice skey_id(struct skey *k, enum table t, uint64_t id);
struct slice skey_id2(struct skey *k, enum table t, uint64_t a, uint64_t b);
struct slice skey_id3(struct skey *k, enum table t, uint64_t a, uint64_t b, uint64_t c);
struct slice skey_bytes(struct skey *k, enum table t, const void *data, size_t len);
struct slice skey_id_str(struct skey *k, enum table t, uint64_t id, const char *s);
struct slice skey_machine(struct skey *k, uint8_t kind, const void *key32, uint64_t tailnet,
			  uint64_t user);
struct slice skey_change(struct skey *k, enum table t, uint64_t tailnet, uint64_t revision,
			 uint8_t kind, uint64_t object);
struct slice skey_request(struct skey *k, uint64_t tailnet, const char *caller,
			  const char *request_id);
struct slice skey_deadline(struct skey *k, uint64_t ms, enum deadline kind, uint64_t tailnet,
			   const void *rest, size_t len);
struct slice skey_deadline_id(struct skey *k, uint64_t ms, enum deadline kind, uint64_t tailnet,
			      uint64_t id);

/* 0 for the empty key. */
static inline uint8_t skey_table(struct slice key)
{
	return key.len > 0 ? *(const uint8_t *)key.data : 0;
}

/* The u64 at byte `at`; false if the key is too short. */
bool skey_get_u64(struct slice key, size_t at, uint64_t *ret);
bool skey_has_prefix(struct slice key, struct slice prefix);
int slice_cmp(struct slice a, struct slice b);

/* Primary tables count in the digest. */
bool table_primary(uint8_t table);
/* Keeps old values. */
bool table_history(uint8_t table);
/* Is it one of enum table? */
bool table_known(uint8_t table);
/* "node", "by_address"; "unknown". */
const char *table_name(uint8_t table);
