/* Auth keys and API keys. */
#include "tailnet/commands_int.h"

#include "base/limits.h"
#include "skerry/v1/options.pb-c.h"

static int valid_lifetime(struct state *st, uint64_t ms)
{
	if (ms > LIM_LIFETIME_MS) {
		return refuse(st, CODE_INVALID, "", "lifetime", "a key lives at most ten years");
	}
	return ACCEPT;
}

static struct slice of_user(struct skey *k, uint64_t tailnet, uint64_t user, uint8_t kind,
			    uint64_t id)
{
	skey_id2(k, TABLE_KEY_OF_USER, tailnet, user);
	skey_add_u8(k, kind);
	skey_add_u64(k, id);
	return skey_slice(k);
}

/* ---- auth keys ---- */

int cmd_auth_key_create(struct state *st)
{
	const Skerry__Internal__V1__AuthKeyCreate *c = st->cmd->auth_key_create;
	uint64_t tailnet = st->cmd->tailnet;
	TailnetHead *h = st_head(st, tailnet);
	AuthKeyRecord r;
	UserRecord *u;
	struct skey k;

	if (valid_credential(st, c->credential) == REFUSE ||
	    valid_tags(st, c->tags, c->n_tags, "tags") == REFUSE ||
	    valid_text(st, c->description, LIM_TEXT_BYTES, "description") == REFUSE ||
	    valid_lifetime(st, c->lifetime_ms) == REFUSE) {
		return REFUSE;
	}
	if (c->user == 0 && c->n_tags == 0) {
		return refuse(st, CODE_INVALID, "", "user",
			      "an auth key belongs to a user, unless it carries tags");
	}
	if (c->user != 0) {
		u = st_user(st, tailnet, c->user);
		if (u == NULL) {
			return refuse(st, CODE_NOT_FOUND, "USER_NOT_FOUND", "user",
				      "there is no user %llu in the tailnet",
				      (unsigned long long)c->user);
		}
		if (u->suspended) {
			return refuse(st, CODE_PRECONDITION, "USER_SUSPENDED", "user",
				      "the user %s is suspended", u->login_name);
		}
	}
	if (h->auth_key_count >= LIM_TAILNET_AUTH_KEYS) {
		return refuse(st, CODE_EXHAUSTED, "TOO_MANY_AUTH_KEYS", "",
			      "the tailnet has %d auth keys, which is the limit: delete some",
			      LIM_TAILNET_AUTH_KEYS);
	}
	if (st_has(st, skey_id(&k, TABLE_BY_AUTH_KEY, c->credential->id))) {
		return refuse(st, CODE_EXISTS, "KEY_ID_TAKEN", "credential",
			      "the id %llu is taken: draw another one",
			      (unsigned long long)c->credential->id);
	}
	st_index_put(st, skey_slice(&k), tailnet, c->credential->id);
	if (c->user != 0) {
		st_raw_put(st, of_user(&k, tailnet, c->user, CHANGE_AUTH_KEY, c->credential->id),
			   "", 0);
	}
	skerry__internal__v1__auth_key_record__init(&r);
	r.id = c->credential->id;
	r.tailnet = tailnet;
	r.credential = c->credential;
	r.user = c->user;
	r.reusable = c->reusable;
	r.ephemeral = c->ephemeral;
	r.preapproved = c->preapproved;
	r.tags = c->tags;
	r.n_tags = c->n_tags;
	r.description = c->description;
	r.create_ms = st->now;
	r.expire_ms = st->now + (c->lifetime_ms != 0 ? c->lifetime_ms : LIM_AUTH_KEY_MS);
	st_put_auth_key(st, &r);
	st_deadline_put(st, r.expire_ms, DEADLINE_AUTH_KEY, tailnet, r.id);
	h->auth_key_count++;
	st_head_dirty(st, tailnet);
	st_audit(st, tailnet, "auth_key.create", st_name(st, RESOURCE_AUTH_KEY, tailnet, r.id),
		 "%s%s%s%s", r.reusable ? "reusable " : "one use ", r.ephemeral ? "ephemeral " : "",
		 r.preapproved ? "preapproved " : "", r.description);
	st_answer(st, RESOURCE_AUTH_KEY, tailnet, r.id);
	return ACCEPT;
}

void auth_key_remove(struct state *st, const AuthKeyRecord *key)
{
	struct change_of ch = {.tailnet = key->tailnet,
			       .object = key->id,
			       .old_revision = key->revision,
			       .kind = CHANGE_AUTH_KEY};
	struct skey k;

	state_del(st, skey_id2(&k, TABLE_AUTH_KEY, key->tailnet, key->id), &ch, true);
	st_raw_del(st, skey_id(&k, TABLE_BY_AUTH_KEY, key->id));
	if (key->user != 0) {
		st_raw_del(st, of_user(&k, key->tailnet, key->user, CHANGE_AUTH_KEY, key->id));
	}
	/* Due at its expiry, or, once expired, when it leaves the lists. */
	st_deadline_del(st, key->expired ? key->expire_ms + LIM_KEY_KEEP_MS : key->expire_ms,
			DEADLINE_AUTH_KEY, key->tailnet, key->id);
	st_head(st, key->tailnet)->auth_key_count--;
	st_head_dirty(st, key->tailnet);
}

int cmd_auth_key_delete(struct state *st)
{
	const Skerry__Internal__V1__AuthKeyDelete *c = st->cmd->auth_key_delete;
	AuthKeyRecord *k = st_auth_key(st, st->cmd->tailnet, c->id);

	if (k == NULL) {
		return refuse(st, CODE_NOT_FOUND, "AUTH_KEY_NOT_FOUND", "name",
			      "there is no auth key %llu in the tailnet",
			      (unsigned long long)c->id);
	}
	if (valid_etag(st, c->etag, k->revision) == REFUSE) {
		return REFUSE;
	}
	auth_key_remove(st, k);
	st_audit(st, k->tailnet, "auth_key.delete",
		 st_name(st, RESOURCE_AUTH_KEY, k->tailnet, k->id), "%s", k->description);
	st_answer(st, RESOURCE_AUTH_KEY, k->tailnet, k->id);
	return ACCEPT;
}

/* ---- API keys; tailnet 0: of the system ---- */

int cmd_api_key_create(struct state *st)
{
	const Skerry__Internal__V1__ApiKeyCreate *c = st->cmd->api_key_create;
	uint64_t tailnet = st->cmd->tailnet;
	TailnetHead *h = st_head(st, tailnet);
	ApiKeyRecord r;
	struct skey k;

	if (valid_credential(st, c->credential) == REFUSE ||
	    valid_text(st, c->description, LIM_TEXT_BYTES, "description") == REFUSE ||
	    valid_lifetime(st, c->lifetime_ms) == REFUSE) {
		return REFUSE;
	}
	if (c->role < SKERRY__V1__ROLE__ROLE_VIEWER || c->role > SKERRY__V1__ROLE__ROLE_ADMIN) {
		return refuse(st, CODE_INVALID, "", "role",
			      "an API key needs a role: viewer, operator or admin");
	}
	if (c->user != 0) {
		UserRecord *u = tailnet != 0 ? st_user(st, tailnet, c->user) : NULL;

		if (u == NULL) {
			return refuse(st, CODE_NOT_FOUND, "USER_NOT_FOUND", "user",
				      "there is no user %llu in the tailnet",
				      (unsigned long long)c->user);
		}
		if (u->suspended) {
			return refuse(st, CODE_PRECONDITION, "USER_SUSPENDED", "user",
				      "the user %s is suspended", u->login_name);
		}
		if (c->role > u->role) {
			return refuse(st, CODE_DENIED, "ROLE_TOO_HIGH", "role",
				      "the user %s has a lower role than the key would have",
				      u->login_name);
		}
	}
	if (h->api_key_count >= LIM_TAILNET_API_KEYS) {
		return refuse(st, CODE_EXHAUSTED, "TOO_MANY_API_KEYS", "",
			      "there are %d API keys, which is the limit: delete some",
			      LIM_TAILNET_API_KEYS);
	}
	if (st_has(st, skey_id(&k, TABLE_BY_API_KEY, c->credential->id))) {
		return refuse(st, CODE_EXISTS, "KEY_ID_TAKEN", "credential",
			      "the id %llu is taken: draw another one",
			      (unsigned long long)c->credential->id);
	}
	st_index_put(st, skey_slice(&k), tailnet, c->credential->id);
	if (c->user != 0) {
		st_raw_put(st, of_user(&k, tailnet, c->user, CHANGE_API_KEY, c->credential->id), "",
			   0);
	}
	skerry__internal__v1__api_key_record__init(&r);
	r.id = c->credential->id;
	r.tailnet = tailnet;
	r.credential = c->credential;
	r.role = c->role;
	r.user = c->user;
	r.description = c->description;
	r.create_ms = st->now;
	r.expire_ms = st->now + (c->lifetime_ms != 0 ? c->lifetime_ms : LIM_API_KEY_MS);
	st_put_api_key(st, &r);
	st_deadline_put(st, r.expire_ms, DEADLINE_API_KEY, tailnet, r.id);
	h->api_key_count++;
	st_head_dirty(st, tailnet);
	st_audit(st, tailnet, "api_key.create", st_name(st, RESOURCE_API_KEY, tailnet, r.id),
		 "role %u %s", r.role, r.description);
	st_answer(st, RESOURCE_API_KEY, tailnet, r.id);
	return ACCEPT;
}

void api_key_remove(struct state *st, const ApiKeyRecord *key)
{
	struct change_of ch = {.tailnet = key->tailnet,
			       .object = key->id,
			       .old_revision = key->revision,
			       .kind = CHANGE_API_KEY};
	struct skey k;

	state_del(st, skey_id2(&k, TABLE_API_KEY, key->tailnet, key->id), &ch, true);
	st_raw_del(st, skey_id(&k, TABLE_BY_API_KEY, key->id));
	if (key->user != 0) {
		st_raw_del(st, of_user(&k, key->tailnet, key->user, CHANGE_API_KEY, key->id));
	}
	st_deadline_del(st, key->expired ? key->expire_ms + LIM_KEY_KEEP_MS : key->expire_ms,
			DEADLINE_API_KEY, key->tailnet, key->id);
	st_head(st, key->tailnet)->api_key_count--;
	st_head_dirty(st, key->tailnet);
}

int cmd_api_key_delete(struct state *st)
{
	const Skerry__Internal__V1__ApiKeyDelete *c = st->cmd->api_key_delete;
	ApiKeyRecord *k = st_api_key(st, st->cmd->tailnet, c->id);

	if (k == NULL) {
		return refuse(st, CODE_NOT_FOUND, "API_KEY_NOT_FOUND", "name",
			      "there is no API key %llu here", (unsigned long long)c->id);
	}
	if (valid_etag(st, c->etag, k->revision) == REFUSE) {
		return REFUSE;
	}
	api_key_remove(st, k);
	st_audit(st, k->tailnet, "api_key.delete", st_name(st, RESOURCE_API_KEY, k->tailnet, k->id),
		 "%s", k->description);
	st_answer(st, RESOURCE_API_KEY, k->tailnet, k->id);
	return ACCEPT;
}
