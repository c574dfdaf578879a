/* What the methods of administration share: texts, times, masks, keys. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "api/admin.h"
#include "base/limits.h"
#include "base/rand.h"
#include "proto/pb_util.h"
#include "tailnet/query.h"

void *admin_alloc(struct admin_call *c, size_t size)
{
	void *p = arena_zalloc(&c->arena, size);

	POST(p); /* its budget is the address space */
	return p;
}

char *admin_strdup(struct admin_call *c, const char *s)
{
	size_t len = strlen(s) + 1;

	return memcpy(admin_alloc(c, len), s, len);
}

char *admin_printf(struct admin_call *c, const char *fmt, ...)
{
	va_list ap;
	char *out;

	va_start(ap, fmt);
	out = arena_vprintf(&c->arena, fmt, ap);
	va_end(ap);
	POST(out); /* its budget is the address space */
	return out;
}

Google__Protobuf__Timestamp *admin_time(struct admin_call *c, uint64_t ms)
{
	if (ms == 0)
		return NULL;
	return pb_timestamp_set(admin_alloc(c, sizeof(Google__Protobuf__Timestamp)), (int64_t)ms);
}

char *admin_name(struct admin_call *c, enum resource_kind kind, uint64_t tailnet, uint64_t id)
{
	char *out = admin_alloc(c, RESOURCE_TEXT);

	resource_format(kind, tailnet, id, out);
	return out;
}

char *admin_etag(struct admin_call *c, uint64_t revision)
{
	char *out = admin_alloc(c, ETAG_TEXT);

	etag_format(revision, out);
	return out;
}

Skerry__V1__Revision *admin_revision(struct admin_call *c, uint64_t revision)
{
	Skerry__V1__Revision *r = admin_alloc(c, sizeof(*r));

	skerry__v1__revision__init(r);
	r->epoch = c->epoch;
	r->revision = revision;
	return r;
}

int admin_mask(const Google__Protobuf__FieldMask *mask, const ProtobufCMessageDescriptor *desc,
	       const char *const *mutable_paths, struct err *err)
{
	int rc = pb_mask_check(mask, desc, err);

	for (size_t i = 0; rc >= 0 && mask && i < mask->n_paths; i++) {
		const char *path = mask->paths[i];
		bool found = !strcmp(path, "*");

		for (const char *const *m = mutable_paths; *m && !found; m++)
			found = !strcmp(path, *m);
		if (!found)
			rc = err_field(err, ERR_INVALID, "update_mask",
				       "the field %s cannot be set by an update", path);
	}
	return rc;
}

bool admin_sets(const Google__Protobuf__FieldMask *mask, const char *path, bool filled)
{
	return mask && mask->n_paths ? pb_mask_contains(mask, path) : filled;
}

int admin_lifetime(const Google__Protobuf__Duration *d, uint64_t *ret_ms, struct err *err)
{
	int rc = pb_duration_check(d, "lifetime", err);
	int64_t ms;

	if (rc < 0)
		return rc;
	ms = d ? pb_duration_ms(d) : 0;
	if (d && (d->seconds || d->nanos) && ms < 1000)
		return err_field(err, ERR_INVALID, "lifetime", "a lifetime is at least one second");
	*ret_ms = (uint64_t)ms;
	return 0;
}

int admin_user(const char *name, uint64_t tailnet, const char *field, uint64_t *ret,
	       struct err *err)
{
	struct resource r;
	int rc = resource_parse(name, RESOURCE_USER, field, &r, err);

	if (rc < 0)
		return rc;
	if (r.tailnet != tailnet)
		return err_field(err, ERR_INVALID, field,
				 "%s is a user of another tailnet than tailnets/%" PRIu64, name,
				 tailnet);
	*ret = r.id;
	return 0;
}

int admin_default_user(struct admin_call *c, uint64_t tailnet, const char *field, uint64_t *ret,
		       struct err *err)
{
	UserRecord *u;
	int rc;

	if (c->caller.user && c->caller.tailnet == tailnet) {
		*ret = c->caller.user;
		return 0;
	}
	rc = query_user_login(c->kv, tailnet, "admin", &c->records, &u);
	if (rc == ERR_NOT_FOUND)
		return err_field(err, ERR_NOT_FOUND, field,
				 "name a user: the tailnet has none called \"admin\"");
	if (rc >= 0)
		*ret = u->id;
	return rc;
}

Skerry__Internal__V1__Credential *admin_new_key(struct admin_call *c, enum key_kind kind)
{
	Skerry__Internal__V1__Credential *cred = admin_alloc(c, sizeof(*cred));

	/* 53 bits: the id is part of the key's text and of JSON; apply refuses one that is taken. */
	key_generate(&c->key, kind, rand_u64() % LIM_ID_MAX + 1);
	skerry__internal__v1__credential__init(cred);
	cred->id = c->key.id;
	cred->hash_kind = SKERRY__INTERNAL__V1__HASH_KIND__HASH_KIND_SHA256;
	cred->hash.len = 32;
	cred->hash.data = admin_alloc(c, 32);
	key_hash(&c->key, cred->hash.data);
	return cred;
}
