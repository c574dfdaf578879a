/* Nodes: registration by key or by a person, changes, removal. */
#include "tailnet/commands_int.h"

#include <string.h>

#include "base/crypto.h"
#include "base/limits.h"
#include "base/name.h"

#define METHOD(x) SKERRY__INTERNAL__V1__REGISTER_METHOD__REGISTER_METHOD_##x

static struct slice code_key(struct skey *k, const char *code)
{
	uint8_t hash[32];

	crypto_sha256(hash, code, strlen(code));
	return skey_bytes(k, TABLE_BY_CODE, hash, sizeof(hash));
}

static UserRecord *user_for_node(struct state *st, uint64_t id)
{
	UserRecord *u = st_user(st, st->cmd->tailnet, id);

	if (u == NULL) {
		IGNORE(refuse(st, CODE_NOT_FOUND, "USER_NOT_FOUND", "user",
			      "there is no user %llu in the tailnet", (unsigned long long)id));
		return NULL;
	}
	if (u->suspended) {
		IGNORE(refuse(st, CODE_DENIED, "USER_SUSPENDED", "user", "the user %s is suspended",
			      u->login_name));
		return NULL;
	}
	return u;
}

static void audit_registration(struct state *st, const NodeRecord *n, bool is_new, const char *how)
{
	st_audit(st, n->tailnet, is_new ? "node.register" : "node.register_again",
		 st_name(st, RESOURCE_NODE, n->tailnet, n->id), "%s by %s", n->given_name, how);
	st_answer(st, RESOURCE_NODE, n->tailnet, n->id);
}

/* ---- by auth key ---- */

/* The node that a spent or expired key made, unchanged in everything that counts. */
static NodeRecord *same_node(struct state *st, const RegisterFacts *f, const AuthKeyRecord *key)
{
	NodeRecord *n;
	uint64_t t, id;
	struct skey k;

	if (!st_index(st,
		      skey_machine(&k, (uint8_t)f->machine_key->kind, f->machine_key->key.data,
				   key->tailnet, key->user),
		      &t, &id)) {
		return NULL;
	}
	n = st_node(st, t, id);
	if (n == NULL || n->auth_key != key->id || !bytes_equal(n->node_key, f->node_key) ||
	    n->expired || (n->expire_ms != 0 && n->expire_ms <= st->now) || n->suspended ||
	    !n->approved) {
		return NULL;
	}
	return n;
}

static int auth_key_check(struct state *st, const RegisterFacts *f, AuthKeyRecord *key,
			  NodeRecord **ret_same)
{
	bool spent = !key->reusable && key->use_count > 0;
	bool expired = key->expired || key->expire_ms <= st->now;

	*ret_same = NULL;
	if (key->user != 0 && user_for_node(st, key->user) == NULL) {
		return REFUSE;
	}
	for (size_t i = 0; i < f->n_requested_tags; i++) {
		if (!has_tag(key->tags, key->n_tags, f->requested_tags[i])) {
			return refuse(st, CODE_DENIED, "TAG_NOT_PERMITTED", "requested_tags",
				      "the auth key does not carry %s", f->requested_tags[i]);
		}
	}
	if (!spent && !expired) {
		return ACCEPT;
	}
	*ret_same = same_node(st, f, key);
	if (*ret_same != NULL) {
		return ACCEPT;
	}
	if (expired) {
		return refuse(st, CODE_DENIED, "AUTH_KEY_EXPIRED", "auth_key",
			      "the auth key has expired: make a new one");
	}
	return refuse(st, CODE_DENIED, "AUTH_KEY_SPENT", "auth_key",
		      "the auth key is for one use and was used: make a new one");
}

int cmd_node_register(struct state *st)
{
	const Skerry__Internal__V1__NodeRegister *c = st->cmd->node_register;
	AuthKeyRecord *key;
	NodeRecord *n;
	struct registration r = {.facts = c->facts, .method = METHOD(AUTH_KEY)};

	if (valid_facts(st, c->facts) == REFUSE) {
		return REFUSE;
	}
	key = st_auth_key(st, st->cmd->tailnet, c->auth_key_id);
	if (key == NULL || !c->auth_key_verified || key->revoked) {
		return refuse(st, CODE_UNAUTHENTICATED, "AUTH_KEY_UNKNOWN", "auth_key",
			      "the auth key is not known here, or was revoked");
	}
	if (auth_key_check(st, c->facts, key, &n) == REFUSE) {
		return REFUSE;
	}
	if (n != NULL) {
		st_answer(st, RESOURCE_NODE, n->tailnet, n->id);
		return ACCEPT;
	}
	r.key = key;
	r.user = key->user;
	r.tags = key->tags;
	r.n_tags = key->n_tags;
	r.approved = key->preapproved;
	r.ephemeral = key->ephemeral || c->facts->ephemeral;
	if (registration_check(st, &r) == REFUSE) {
		return REFUSE;
	}

	n = registration_make(st, &r);
	key->use_count++;
	key->use_ms = st->now;
	if (!key->reusable) {
		key->used_by = n->id;
	}
	st_put_auth_key(st, key);
	audit_registration(st, n, r.existing == NULL,
			   st_name(st, RESOURCE_AUTH_KEY, key->tailnet, key->id));
	return ACCEPT;
}

/* ---- by an administrator ---- */

int cmd_node_create(struct state *st)
{
	const Skerry__Internal__V1__NodeCreate *c = st->cmd->node_create;
	struct registration r = {
		.facts = c->facts, .method = METHOD(API), .user = c->user, .approved = true};

	if (valid_facts(st, c->facts) == REFUSE) {
		return REFUSE;
	}
	r.tags = c->facts->requested_tags;
	r.n_tags = c->facts->n_requested_tags;
	r.ephemeral = c->facts->ephemeral;
	if ((c->user != 0 || r.n_tags == 0) && user_for_node(st, c->user) == NULL) {
		return REFUSE;
	}
	if (registration_check(st, &r) == REFUSE) {
		return REFUSE;
	}
	if (r.existing != NULL) {
		return refuse(st, CODE_EXISTS, "NODE_EXISTS", "machine_key",
			      "the machine key has a node of this user: %s",
			      st_name(st, RESOURCE_NODE, r.existing->tailnet, r.existing->id));
	}
	audit_registration(st, registration_make(st, &r), true, "api");
	return ACCEPT;
}

/* ---- by a person's approval ---- */

static struct slice pending_key(struct skey *k, uint64_t tailnet, ProtobufCBinaryData node_key)
{
	skey_id(k, TABLE_BY_PENDING_KEY, tailnet);
	skey_add_bytes(k, node_key.data, node_key.len);
	return skey_slice(k);
}

static void pending_closed(struct state *st, const PendingRecord *p)
{
	struct skey k;

	st_raw_del(st, pending_key(&k, p->tailnet, p->node_key));
	st_head(st, p->tailnet)->pending_count--;
	st_head_dirty(st, p->tailnet);
}

void pending_remove(struct state *st, const PendingRecord *p)
{
	struct change_of c = {.tailnet = p->tailnet,
			      .object = p->id,
			      .old_revision = p->revision,
			      .kind = CHANGE_PENDING};
	struct skey k;

	if (p->verdict == SKERRY__INTERNAL__V1__PENDING_VERDICT__PENDING_VERDICT_UNSPECIFIED) {
		pending_closed(st, p);
	}
	state_del(st, skey_id2(&k, TABLE_PENDING, p->tailnet, p->id), &c, true);
	st_raw_del(st, code_key(&k, p->code));
	st_deadline_del(st, p->expire_ms, DEADLINE_PENDING, p->tailnet, p->id);
}

int cmd_pending_create(struct state *st)
{
	const Skerry__Internal__V1__PendingCreate *c = st->cmd->pending_create;
	uint64_t tailnet = st->cmd->tailnet;
	const RegisterFacts *f = c->facts;
	PendingRecord p, *old = NULL;
	NodeRecord *n;
	uint64_t t, id;
	struct skey k;

	if (valid_facts(st, f) == REFUSE) {
		return REFUSE;
	}
	if (strlen(c->code) < 8 || valid_text(st, c->code, LIM_LABEL, "code") == REFUSE) {
		return refuse(st, CODE_INVALID, "", "code", "a code has 8 to %d characters",
			      LIM_LABEL);
	}
	if (st_index(st, skey_bytes(&k, TABLE_BY_NODE_KEY, f->node_key.data, 32), &t, &id)) {
		n = st_node(st, t, id);
		if (n == NULL || n->machine_key->kind != f->machine_key->kind ||
		    !bytes_equal(n->machine_key->key, f->machine_key->key)) {
			return refuse(st, CODE_EXISTS, "NODE_KEY_IN_USE", "node_key",
				      "the node key is in use: make a new one on this device");
		}
	}
	if (disco_taken(st, f->disco_key, f->machine_key)) {
		return refuse(st, CODE_EXISTS, "DISCO_KEY_IN_USE", "disco_key",
			      "the disco key is in use: make a new one on this device");
	}
	if (st_index(st, pending_key(&k, tailnet, f->node_key), &t, &id)) {
		old = st_pending(st, t, id);
	}
	if (old != NULL && old->expire_ms > st->now) {
		if (old->machine_key->kind != f->machine_key->kind ||
		    !bytes_equal(old->machine_key->key, f->machine_key->key)) {
			return refuse(st, CODE_EXISTS, "NODE_KEY_IN_USE", "node_key",
				      "the node key is in use: make a new one on this device");
		}
		/* It waits already: the same code goes on. */
		st_answer(st, RESOURCE_PENDING, tailnet, old->id);
		return ACCEPT;
	}
	if (st_has(st, code_key(&k, c->code))) {
		return refuse(st, CODE_EXISTS, "CODE_TAKEN", "code",
			      "the code is taken: draw another one");
	}
	if (st_head(st, tailnet)->pending_count >= LIM_TAILNET_PENDING) {
		return refuse(st, CODE_EXHAUSTED, "TOO_MANY_PENDING", "",
			      "%d devices wait to be let in, which is the limit: try later",
			      LIM_TAILNET_PENDING);
	}

	if (old != NULL) {
		pending_remove(st, old); /* expired; its Tick is late */
	}
	skerry__internal__v1__pending_record__init(&p);
	p.id = st_next_id(st);
	p.kind = SKERRY__INTERNAL__V1__PENDING_KIND__PENDING_KIND_REGISTER;
	p.tailnet = tailnet;
	p.code = c->code;
	p.machine_key = f->machine_key;
	p.node_key = f->node_key;
	p.create_ms = st->now;
	p.expire_ms = st->now + LIM_PENDING_MS;
	p.facts = (RegisterFacts *)f;
	st_put_pending(st, &p);
	st_index_put(st, code_key(&k, c->code), tailnet, p.id);
	st_index_put(st, pending_key(&k, tailnet, f->node_key), tailnet, p.id);
	st_deadline_put(st, p.expire_ms, DEADLINE_PENDING, tailnet, p.id);
	st_head(st, tailnet)->pending_count++;
	st_head_dirty(st, tailnet);
	st_audit(st, tailnet, "pending.create", st_name(st, RESOURCE_PENDING, tailnet, p.id), "%s",
		 f->hostname);
	st_answer(st, RESOURCE_PENDING, tailnet, p.id);
	return ACCEPT;
}

int cmd_pending_decide(struct state *st)
{
	const Skerry__Internal__V1__PendingDecide *c = st->cmd->pending_decide;
	int verdict = c->approve ? SKERRY__INTERNAL__V1__PENDING_VERDICT__PENDING_VERDICT_APPROVED
				 : SKERRY__INTERNAL__V1__PENDING_VERDICT__PENDING_VERDICT_REFUSED;
	struct registration r = {.method = METHOD(APPROVAL), .approved = true};
	PendingRecord *p = NULL;
	NodeRecord *n = NULL;
	uint64_t t, id;
	struct skey k;

	if (st_index(st, code_key(&k, c->code), &t, &id) && t == st->cmd->tailnet) {
		p = st_pending(st, t, id);
	}
	if (p == NULL || p->expire_ms <= st->now) {
		return refuse(
			st, CODE_NOT_FOUND, "CODE_UNKNOWN", "code",
			"nothing waits under this code in the tailnet, or it has expired: see the "
			"code that the device shows now");
	}
	if (p->verdict != SKERRY__INTERNAL__V1__PENDING_VERDICT__PENDING_VERDICT_UNSPECIFIED) {
		if ((int)p->verdict != verdict || (c->approve && p->user != c->user)) {
			n = p->node != 0 ? st_node(st, t, p->node) : NULL;
			if (n != NULL) {
				return refuse(st, CODE_PRECONDITION, "ALREADY_DECIDED", "code",
					      "this request was decided before: it is the node "
					      "\"%s\" now",
					      n->given_name);
			}
			return refuse(st, CODE_PRECONDITION, "ALREADY_DECIDED", "code",
				      "this request was decided before");
		}
		st_answer(st, c->approve ? RESOURCE_NODE : RESOURCE_PENDING, p->tailnet,
			  c->approve ? p->node : p->id);
		return ACCEPT;
	}
	if (c->approve) {
		if (user_for_node(st, c->user) == NULL) {
			return REFUSE;
		}
		r.facts = p->facts;
		r.user = c->user;
		r.ephemeral = p->facts->ephemeral;
		if (registration_check(st, &r) == REFUSE) {
			return REFUSE;
		}
		n = registration_make(st, &r);
		p->node = n->id;
	}
	pending_closed(st, p);
	p->verdict = verdict;
	p->user = c->user;
	p->facts = NULL;
	st_put_pending(st, p);
	if (n != NULL) {
		audit_registration(st, n, r.existing == NULL, "approval");
	} else {
		st_audit(st, p->tailnet, "pending.refuse",
			 st_name(st, RESOURCE_PENDING, p->tailnet, p->id), "%s", "");
		st_answer(st, RESOURCE_PENDING, p->tailnet, p->id);
	}
	return ACCEPT;
}

/* ---- changes ---- */

static NodeRecord *node_asked(struct state *st, uint64_t id)
{
	NodeRecord *n = st_node(st, st->cmd->tailnet, id);

	if (n == NULL) {
		IGNORE(refuse(st, CODE_NOT_FOUND, "NODE_NOT_FOUND", "name",
			      "there is no node %llu in the tailnet", (unsigned long long)id));
	}
	return n;
}

static int check_name(struct state *st, const NodeRecord *n, const char *name, char out[64])
{
	struct err e = {0};
	size_t len = strlen(name);

	if (len == 0) {
		return name_choose(st, n->tailnet, n->hostname, n->machine_key, n->id, out);
	}
	if (name_valid_label(name, len, &e) < 0) {
		return refuse(st, CODE_INVALID, "NAME_INVALID", "given_name", "the name: %s",
			      e.msg);
	}
	if (name_refused_label(name)) {
		return refuse(st, CODE_INVALID, "NAME_REFUSED", "given_name",
			      "the name \"%s\" is one that clients look up by themselves", name);
	}
	if (name_taken(st, n->tailnet, name, n->machine_key, n->id)) {
		return refuse(st, CODE_EXISTS, "NAME_TAKEN", "given_name",
			      "the name \"%s\" is taken, or was until less than 24 h ago", name);
	}
	memcpy(out, name, len + 1);
	return ACCEPT;
}

static int check_user(struct state *st, const NodeRecord *n, uint64_t user)
{
	uint64_t t, id;
	struct skey k;

	if (user_for_node(st, user) == NULL) {
		return REFUSE;
	}
	if (user != n->user && st_index(st,
					skey_machine(&k, (uint8_t)n->machine_key->kind,
						     n->machine_key->key.data, n->tailnet, user),
					&t, &id)) {
		return refuse(st, CODE_EXISTS, "NODE_EXISTS", "user",
			      "the same machine has a node of this user: %s",
			      st_name(st, RESOURCE_NODE, t, id));
	}
	return ACCEPT;
}

static void move_to_user(struct state *st, NodeRecord *n, uint64_t user)
{
	uint8_t kind = (uint8_t)n->machine_key->kind;
	const void *key = n->machine_key->key.data;
	struct skey k;

	st_raw_del(st, skey_machine(&k, kind, key, n->tailnet, n->user));
	if (n->user != 0) {
		st_raw_del(st, skey_id3(&k, TABLE_NODE_OF_USER, n->tailnet, n->user, n->id));
	}
	n->user = user;
	n->suspended = false; /* a suspended user was refused */
	st_index_put(st, skey_machine(&k, kind, key, n->tailnet, user), n->tailnet, n->id);
	st_raw_put(st, skey_id3(&k, TABLE_NODE_OF_USER, n->tailnet, user, n->id), "", 0);
}

int cmd_node_update(struct state *st)
{
	const Skerry__Internal__V1__NodeUpdate *c = st->cmd->node_update;
	NodeRecord *n = node_asked(st, c->id);
	size_t n_tags;
	bool rename;
	char name[64];

	if (n == NULL || valid_etag(st, c->etag, n->revision) == REFUSE) {
		return REFUSE;
	}
	n_tags = c->set_tags ? c->n_tags : n->n_tags;
	if ((c->set_given_name && check_name(st, n, c->given_name, name) == REFUSE) ||
	    (c->set_tags && valid_tags(st, c->tags, c->n_tags, "tags") == REFUSE) ||
	    (c->set_user && check_user(st, n, c->user) == REFUSE)) {
		return REFUSE;
	}
	if (c->set_tags && c->n_tags == 0 && (c->set_user ? c->user : n->user) == 0) {
		return refuse(st, CODE_PRECONDITION, "NODE_HAS_NO_USER", "tags",
			      "a node without tags belongs to a user: give it one");
	}
	if (c->set_expire && c->expire_ms != 0 && n_tags > 0) {
		return refuse(st, CODE_PRECONDITION, "TAGGED", "expire_time",
			      "a tagged node never expires");
	}
	if (c->set_expire && c->expire_ms > st->now + LIM_LIFETIME_MS) {
		return refuse(st, CODE_INVALID, "", "expire_time",
			      "the expiry is more than ten years away");
	}

	rename = c->set_given_name && strcmp(name, n->given_name) != 0;
	if (rename) {
		name_release(st, n->tailnet, n->given_name, n->machine_key);
		n->given_name = name;
		name_take(st, n->tailnet, name, n->id);
	}
	if (c->set_given_name) {
		n->name_fixed = c->given_name[0] != '\0';
	}
	if (c->set_tags) {
		bool was_tagged = n->n_tags > 0;

		n->tags = c->tags;
		n->n_tags = c->n_tags;
		if (n->n_tags > 0) {
			node_set_expiry(st, n, 0);
		} else if (was_tagged && !c->set_expire) {
			node_set_expiry(st, n, node_default_expiry(st, st_tailnet(st, n->tailnet)));
		}
	}
	if (c->set_approved) {
		n->approved = c->approved;
	}
	if (c->set_expire) {
		node_set_expiry(st, n, c->expire_ms);
	}
	if (c->set_user && c->user != n->user) {
		move_to_user(st, n, c->user);
	}
	st_put_node(st, n, c->set_tags || c->set_approved || c->set_expire || c->set_user);
	st_audit(st, n->tailnet, "node.update", st_name(st, RESOURCE_NODE, n->tailnet, n->id),
		 "%s%s%s%s%s", rename ? "name " : "", c->set_tags ? "tags " : "",
		 !c->set_approved ? ""
		 : c->approved    ? "approved "
				  : "not approved ",
		 c->set_expire ? "expiry " : "", c->set_user ? "user" : "");
	st_answer(st, RESOURCE_NODE, n->tailnet, n->id);
	return ACCEPT;
}

int cmd_node_delete(struct state *st)
{
	const Skerry__Internal__V1__NodeDelete *c = st->cmd->node_delete;
	NodeRecord *n = node_asked(st, c->id);

	if (n == NULL || valid_etag(st, c->etag, n->revision) == REFUSE) {
		return REFUSE;
	}
	node_remove(st, n);
	st_audit(st, n->tailnet, "node.delete", st_name(st, RESOURCE_NODE, n->tailnet, n->id), "%s",
		 n->given_name);
	st_answer(st, RESOURCE_NODE, n->tailnet, n->id);
	return ACCEPT;
}

int cmd_node_logout(struct state *st)
{
	const Skerry__Internal__V1__NodeLogout *c = st->cmd->node_logout;
	NodeRecord *n = node_asked(st, c->id);

	if (n == NULL) {
		return REFUSE;
	}
	if (!bytes_equal(n->machine_key->key, c->machine_key)) {
		return refuse(st, CODE_DENIED, "MACHINE_KEY", "name",
			      "the node belongs to another machine");
	}
	if (n->ephemeral) {
		node_remove(st, n);
	} else if (!n->expired) {
		node_set_expiry(st, n, st->now);
		st_put_node(st, n, true);
	}
	st_audit(st, n->tailnet, "node.logout", st_name(st, RESOURCE_NODE, n->tailnet, n->id), "%s",
		 n->given_name);
	st_answer(st, RESOURCE_NODE, n->tailnet, n->id);
	return ACCEPT;
}
