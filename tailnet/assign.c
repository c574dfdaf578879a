/*
 * Names and addresses of nodes. Both are chosen from the state and the random bytes of the command alone.
 *
 * IPv4: a random place in the tailnet's prefixes (100.64.0.0/10 if it has none), then upwards until one is free. Never
 * handed out: 100.100.0.0/24 and 100.100.100.0/24 (service addresses), 100.115.92.0/23 (ChromeOS uses it inside), and
 * every address that ends in .0 or .255, which some stacks take for a network or a broadcast.
 * IPv6: fd7a:115c:a1e0:: with the IPv4 address in the last four bytes: unique as that is, and outside of ...::53 and
 * ...:b1a::/64.
 */
#include "tailnet/commands_int.h"

#include <string.h>

#include "base/enc.h"
#include "base/limits.h"
#include "base/name.h"
#include "base/prefix.h"

/* ---- resting ---- */

/* `index` is the key under which the address or name was found while in use. */
static struct slice resting_key(struct skey *k, struct slice index)
{
	return skey_bytes(k, TABLE_RESTING, index.data, index.len);
}

static bool same_machine(const MachineKey *a, const MachineKey *b)
{
	return a != NULL && b != NULL && a->kind == b->kind && bytes_equal(a->key, b->key);
}

static bool rests(struct state *st, struct slice index, const MachineKey *holder)
{
	struct skey k;
	Resting *r = st_get(st, resting_key(&k, index), REC(resting));

	return r != NULL && r->until_ms > st->now && !same_machine(r->holder, holder);
}

static void rest(struct state *st, struct slice index, const MachineKey *holder)
{
	struct skey k, d;
	Resting r;

	skerry__internal__v1__resting__init(&r);
	r.until_ms = st->now + LIM_RELEASE_REST_MS;
	r.holder = (MachineKey *)holder;
	state_put(st, resting_key(&k, index), &r, NULL);
	st_raw_put(st, skey_deadline(&d, r.until_ms, DEADLINE_REST, 0, k.data, k.len), "", 0);
}

/* ---- names ---- */

bool name_taken(struct state *st, uint64_t tailnet, const char *name, const MachineKey *holder,
		uint64_t self)
{
	uint64_t t, id;
	struct skey k;

	skey_id_str(&k, TABLE_BY_NODE_NAME, tailnet, name);
	if (st_index(st, skey_slice(&k), &t, &id)) {
		return id != self;
	}
	return rests(st, skey_slice(&k), holder);
}

void name_take(struct state *st, uint64_t tailnet, const char *name, uint64_t node)
{
	struct skey k, rk;

	skey_id_str(&k, TABLE_BY_NODE_NAME, tailnet, name);
	st_index_put(st, skey_slice(&k), tailnet, node);
	resting_key(&rk, skey_slice(&k));
	/* Its deadline finds nothing then. */
	state_del(st, skey_slice(&rk), NULL, false);
}

void name_release(struct state *st, uint64_t tailnet, const char *name, const MachineKey *holder)
{
	struct skey k;

	skey_id_str(&k, TABLE_BY_NODE_NAME, tailnet, name);
	st_raw_del(st, skey_slice(&k));
	rest(st, skey_slice(&k), holder);
}

bool name_find(struct state *st, uint64_t tailnet, const char *hostname, const MachineKey *holder,
	       uint64_t self, char out[64])
{
	const ProtobufCBinaryData *random = &st->cmd->random;
	char base[NAME_LABEL_MAX + 1];
	uint32_t seed;

	name_sanitize(hostname, base);
	for (uint32_t n = 0; n < LIM_NAME_PROBES; n++) {
		name_numbered(base, n, out);
		if (!name_taken(st, tailnet, out, holder, self)) {
			return true;
		}
	}
	/* Many of one name: a number at random finds a place in few steps. */
	seed = random->len == 32 ? be_get32(random->data + 20) : (uint32_t)st->revision;
	for (uint32_t i = 0; i < LIM_NAME_PROBES; i++) {
		name_numbered(base, 100 + (seed + i * 7919u) % 900000u, out);
		if (!name_taken(st, tailnet, out, holder, self)) {
			return true;
		}
	}
	return false;
}

int name_choose(struct state *st, uint64_t tailnet, const char *hostname, const MachineKey *holder,
		uint64_t self, char out[64])
{
	if (name_find(st, tailnet, hostname, holder, self, out)) {
		return ACCEPT;
	}
	return refuse(st, CODE_EXHAUSTED, "NO_FREE_NAME", "hostname",
		      "no free name could be made of \"%.80s\": give the device another hostname",
		      hostname);
}

bool name_follows(const char *given, const char *hostname)
{
	char base[NAME_LABEL_MAX + 1], numbered[NAME_LABEL_MAX + 1];
	const char *dash;
	uint32_t n = 0;

	name_sanitize(hostname, base);
	if (strcmp(given, base) == 0) {
		return true;
	}
	dash = strrchr(given, '-');
	if (dash == NULL || dash[1] == '\0' || dash[1] == '0' || strlen(dash + 1) > 7) {
		return false;
	}
	for (const char *p = dash + 1; *p != '\0'; p++) {
		if (*p < '0' || *p > '9') {
			return false;
		}
		n = n * 10 + (uint32_t)(*p - '0');
	}
	return strcmp(given, name_numbered(base, n, numbered)) == 0;
}

/* ---- addresses ---- */

static bool address_reserved(const uint8_t a[4])
{
	if (a[3] == 0 || a[3] == 255) {
		return true;
	}
	if (a[1] == 100 && (a[2] == 0 || a[2] == 100)) {
		return true;
	}
	return a[1] == 115 && (a[2] & 0xfe) == 92;
}

struct range {
	uint32_t first;
	uint64_t size;
};

static size_t address_ranges(const TailnetRecord *t, struct range *ret, uint64_t *ret_total)
{
	size_t n = 0;

	*ret_total = 0;
	for (size_t i = 0; i < t->n_prefixes && i < LIM_TAILNET_PREFIXES; i++) {
		const Skerry__V1__Prefix *p = t->prefixes[i];

		if (p->address.len == 4 && p->length >= 10 && p->length <= 32) {
			ret[n++] =
				(struct range){be_get32(p->address.data), 1ull << (32 - p->length)};
		}
	}
	if (n == 0) {
		ret[n++] = (struct range){100u << 24 | 64u << 16, 1ull << 22};
	}
	for (size_t i = 0; i < n; i++) {
		*ret_total += ret[i].size;
	}
	return n;
}

int address_choose(struct state *st, const TailnetRecord *t, uint8_t out[4])
{
	struct range r[LIM_TAILNET_PREFIXES];
	uint64_t total, at, probes;
	struct skey k;

	IGNORE(address_ranges(t, r, &total) == 0);
	at = be_get64(st->cmd->random.data) % total;
	probes = MIN(total, (uint64_t)LIM_ADDRESS_PROBES);
	for (uint64_t i = 0; i < probes; i++, at = (at + 1) % total) {
		uint64_t in = at;
		size_t j = 0;

		while (in >= r[j].size) {
			in -= r[j++].size;
		}
		be_put32(out, r[j].first + (uint32_t)in);
		if (address_reserved(out)) {
			continue;
		}
		skey_bytes(&k, TABLE_BY_ADDRESS, out, 4);
		if (!st_has(st, skey_slice(&k)) && !rests(st, skey_slice(&k), NULL)) {
			return ACCEPT;
		}
	}
	return refuse(st, CODE_EXHAUSTED, "NO_FREE_ADDRESS", "",
		      "the tailnet's prefixes have no free address; released ones rest 24 h");
}

void address_v6_of(const uint8_t v4[4], uint8_t out[16])
{
	static const uint8_t ula[6] = {0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0};

	memset(out, 0, 16);
	memcpy(out, ula, sizeof(ula));
	memcpy(out + 12, v4, 4);
}

void address_release(struct state *st, ProtobufCBinaryData address, const MachineKey *holder)
{
	struct skey k;

	skey_bytes(&k, TABLE_BY_ADDRESS, address.data, address.len);
	st_raw_del(st, skey_slice(&k));
	rest(st, skey_slice(&k), holder);
}
