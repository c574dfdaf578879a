/* The audit chain of a tailnet: each entry carries the hash of the one before, trimming leaves an anchor. */
#include "tailnet/state_int.h"

#include <stdarg.h>
#include <string.h>

#include "base/crypto.h"
#include "base/limits.h"

enum {
	HASH_TAG = 11 << 3 | 2, /* AuditRecord.hash */
	HASH_FIELD = 2 + 32,
};

char *st_actor(struct state *st)
{
	const Actor *a = st->cmd->actor;

	if (a == NULL) {
		return st_printf(st, "system");
	}
	switch (a->kind) {
	case SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_UNIX:
		return st_printf(st, "unix:%llu", (unsigned long long)a->id);
	case SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_API_KEY:
		return st_printf(st, "api-key:%llu", (unsigned long long)a->id);
	case SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_DEVICE:
		return st_printf(st, "device:%llu", (unsigned long long)a->id);
	case SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_LIGHTHOUSE:
		return st_printf(st, "lighthouse:%llu", (unsigned long long)a->id);
	case SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_ANONYMOUS:
		return st_printf(st, "anonymous");
	default: return st_printf(st, "system");
	}
}

/* Drops the oldest lines while the chain is too long; the hash before the first kept one is the anchor. */
static void audit_trim(struct state *st, TailnetHead *h)
{
	struct skey k;

	for (int i = 0;
	     i < 4 && h->audit_bytes > LIM_TAILNET_AUDIT_BYTES && h->audit_first < h->audit_last;
	     i++) {
		struct slice v;
		AuditRecord *r;

		skey_id2(&k, TABLE_AUDIT, h->tailnet, h->audit_first);
		if (!st_raw_get(st, skey_slice(&k), &v)) {
			return;
		}
		h->audit_bytes -= MIN(h->audit_bytes, k.len + v.len);
		r = st_get(st, skey_slice(&k), REC(audit_record));
		if (r == NULL) {
			return;
		}
		if (r->hash.len != 32) {
			st_fail(st, ERR_CORRUPT, "an audit entry has a hash of %zu bytes",
				r->hash.len);
			return;
		}
		st_head_hash(st, &h->audit_anchor, r->hash.data);
		h->audit_first++;
		state_del(st, skey_slice(&k), NULL, false);
	}
}

void st_audit(struct state *st, uint64_t tailnet, const char *action, const char *target,
	      const char *detail_fmt, ...)
{
	static const uint8_t zero[32];
	TailnetHead *h = st_head(st, tailnet);
	struct crypto_iov iov[2];
	uint8_t *packed, *hash;
	AuditRecord r;
	struct slice v;
	struct skey k;
	va_list ap;
	size_t len;

	st_write_begin(st);
	skerry__internal__v1__audit_record__init(&r);
	va_start(ap, detail_fmt);
	r.detail = st_vprintf(st, detail_fmt, ap);
	va_end(ap);
	r.tailnet = tailnet;
	r.sequence = h->audit_last + 1;
	r.time_ms = st->now;
	r.actor = st_actor(st);
	r.action = (char *)action;
	r.target = (char *)target;
	r.reason = st->cmd->reason;
	r.revision = st->revision;
	r.lighthouse = st->cmd->lighthouse;

	if (h->audit_last == 0) {
		h->audit_first = 1;
		st_head_hash(st, &h->audit_anchor, zero);
		st_head_hash(st, &h->audit_hash, zero);
	}
	/* The hash is the field with the highest number: what is hashed is what stands before it. */
	v = st_encode(st, &r);
	len = v.len;
	packed = st_alloc(st, len + HASH_FIELD);
	memcpy(packed, v.data, len);
	packed[len] = HASH_TAG;
	packed[len + 1] = 32;
	hash = packed + len + 2;
	iov[0] = (struct crypto_iov){h->audit_hash.data, h->audit_hash.len};
	iov[1] = (struct crypto_iov){packed, len};
	crypto_blake2bv(hash, iov, 2);
	len += HASH_FIELD;
	skey_id2(&k, TABLE_AUDIT, tailnet, r.sequence);
	state_put_new(st, skey_slice(&k), (struct slice){packed, len});
	st_head_hash(st, &h->audit_hash, hash);
	h->audit_last = r.sequence;
	h->audit_bytes += k.len + len;
	st_head_dirty(st, tailnet);
	audit_trim(st, h);
}
