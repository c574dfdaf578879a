#include "tailnet/keys.h"

#include <string.h>

#include "base/crypto.h"
#include "base/enc.h"

void skey_init(struct skey *k, enum table t)
{
	k->len = 1;
	k->data[0] = (uint8_t)t;
}

void skey_add_bytes(struct skey *k, const void *data, size_t len)
{
	PRE(len <= SKEY_MAX - (size_t)k->len);
	if (len > 0) {
		memcpy(k->data + k->len, data, len);
	}
	k->len = (uint16_t)(k->len + len);
}

void skey_add_u8(struct skey *k, uint8_t v)
{
	skey_add_bytes(k, &v, 1);
}

void skey_add_u16(struct skey *k, uint16_t v)
{
	uint8_t b[2];

	be_put16(b, v);
	skey_add_bytes(k, b, sizeof(b));
}

void skey_add_u64(struct skey *k, uint64_t v)
{
	uint8_t b[8];

	be_put64(b, v);
	skey_add_bytes(k, b, sizeof(b));
}

void skey_add_str(struct skey *k, const char *s)
{
	skey_add_bytes(k, s, strlen(s));
}

struct slice skey_id(struct skey *k, enum table t, uint64_t id)
{
	skey_init(k, t);
	skey_add_u64(k, id);
	return skey_slice(k);
}

struct slice skey_id2(struct skey *k, enum table t, uint64_t a, uint64_t b)
{
	skey_id(k, t, a);
	skey_add_u64(k, b);
	return skey_slice(k);
}

struct slice skey_id3(struct skey *k, enum table t, uint64_t a, uint64_t b, uint64_t c)
{
	skey_id2(k, t, a, b);
	skey_add_u64(k, c);
	return skey_slice(k);
}

struct slice skey_bytes(struct skey *k, enum table t, const void *data, size_t len)
{
	skey_init(k, t);
	skey_add_bytes(k, data, len);
	return skey_slice(k);
}

struct slice skey_id_str(struct skey *k, enum table t, uint64_t id, const char *s)
{
	skey_id(k, t, id);
	skey_add_str(k, s);
	return skey_slice(k);
}

struct slice skey_machine(struct skey *k, uint8_t kind, const void *key32, uint64_t tailnet,
			  uint64_t user)
{
	skey_init(k, TABLE_BY_MACHINE);
	skey_add_u8(k, kind);
	skey_add_bytes(k, key32, 32);
	skey_add_u64(k, tailnet);
	skey_add_u64(k, user);
	return skey_slice(k);
}

struct slice skey_change(struct skey *k, enum table t, uint64_t tailnet, uint64_t revision,
			 uint8_t kind, uint64_t object)
{
	skey_id2(k, t, tailnet, revision);
	skey_add_u8(k, kind);
	skey_add_u64(k, object);
	return skey_slice(k);
}

struct slice skey_request(struct skey *k, uint64_t tailnet, const char *caller,
			  const char *request_id)
{
	struct crypto_iov iov[2] = {{caller, strlen(caller) + 1}, {request_id, strlen(request_id)}};
	uint8_t hash[32];

	crypto_blake2bv(hash, iov, 2);
	skey_id(k, TABLE_REQUEST, tailnet);
	skey_add_bytes(k, hash, sizeof(hash));
	return skey_slice(k);
}

struct slice skey_deadline(struct skey *k, uint64_t ms, enum deadline kind, uint64_t tailnet,
			   const void *rest, size_t len)
{
	skey_id(k, TABLE_DEADLINE, ms);
	skey_add_u8(k, (uint8_t)kind);
	skey_add_u64(k, tailnet);
	skey_add_bytes(k, rest, len);
	return skey_slice(k);
}

struct slice skey_deadline_id(struct skey *k, uint64_t ms, enum deadline kind, uint64_t tailnet,
			      uint64_t id)
{
	uint8_t b[8];

	be_put64(b, id);
	return skey_deadline(k, ms, kind, tailnet, b, sizeof(b));
}

bool skey_get_u64(struct slice key, size_t at, uint64_t *ret)
{
	if (key.len < 8 || at > key.len - 8) {
		return false;
	}
	*ret = be_get64((const uint8_t *)key.data + at);
	return true;
}

bool skey_has_prefix(struct slice key, struct slice prefix)
{
	return key.len >= prefix.len &&
	       (prefix.len == 0 || memcmp(key.data, prefix.data, prefix.len) == 0);
}

int slice_cmp(struct slice a, struct slice b)
{
	size_t n = MIN(a.len, b.len);
	int c = n > 0 ? memcmp(a.data, b.data, n) : 0;

	if (c != 0) {
		return c;
	}
	return (a.len > b.len) - (a.len < b.len);
}

static const struct {
	uint8_t table;
	bool history;
	const char *name;
} tables[] = {
	{TABLE_META, false, "meta"},
	{TABLE_MEMBER, true, "member"},
	{TABLE_JOIN_TOKEN, false, "join_token"},
	{TABLE_CA, true, "ca"},
	{TABLE_SECRET, false, "secret"},
	{TABLE_TAILNET, true, "tailnet"},
	{TABLE_ACCOUNT, true, "account"},
	{TABLE_USER, true, "user"},
	{TABLE_NODE, true, "node"},
	{TABLE_ENDPOINTS, false, "endpoints"},
	{TABLE_PRESENCE, false, "presence"},
	{TABLE_AUTH_KEY, true, "auth_key"},
	{TABLE_API_KEY, true, "api_key"},
	{TABLE_PENDING, false, "pending"},
	{TABLE_AUDIT, false, "audit"},
	{TABLE_RESTING, false, "resting"},
	{TABLE_PURGE, false, "purge"},
	{TABLE_MEMBERSHIP, false, "membership"},
	{TABLE_BY_TAILNET_NAME, false, "by_tailnet_name"},
	{TABLE_BY_LOGIN, false, "by_login"},
	{TABLE_BY_NODE_KEY, false, "by_node_key"},
	{TABLE_BY_MACHINE, false, "by_machine"},
	{TABLE_BY_ADDRESS, false, "by_address"},
	{TABLE_BY_NODE_NAME, false, "by_node_name"},
	{TABLE_BY_DISCO_KEY, false, "by_disco_key"},
	{TABLE_BY_AUTH_KEY, false, "by_auth_key"},
	{TABLE_BY_API_KEY, false, "by_api_key"},
	{TABLE_BY_CODE, false, "by_code"},
	{TABLE_BY_PENDING_KEY, false, "by_pending_key"},
	{TABLE_NODE_OF_USER, false, "node_of_user"},
	{TABLE_KEY_OF_USER, false, "key_of_user"},
	{TABLE_SESSION, false, "session"},
	{TABLE_DEADLINE, false, "deadline"},
	{TABLE_HEAD, false, "head"},
	{TABLE_CHANGE, false, "change"},
	{TABLE_TOMBSTONE, false, "tombstone"},
	{TABLE_HISTORY, false, "history"},
	{TABLE_HISTORY_QUEUE, false, "history_queue"},
	{TABLE_REQUEST, false, "request"},
	{TABLE_ORIGIN, false, "origin"},
	{TABLE_ORIGIN_ANSWER, false, "origin_answer"},
};

bool table_primary(uint8_t table)
{
	return table >= TABLE_MEMBER && table <= TABLE_MEMBERSHIP;
}

bool table_history(uint8_t table)
{
	for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
		if (tables[i].table == table) {
			return tables[i].history;
		}
	}
	return false;
}

const char *table_name(uint8_t table)
{
	for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
		if (tables[i].table == table) {
			return tables[i].name;
		}
	}
	return "unknown";
}

bool table_known(uint8_t table)
{
	for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
		if (tables[i].table == table) {
			return true;
		}
	}
	return false;
}
