/* Tailnets and their users. */
#include "tailnet/commands_int.h"

#include <string.h>

#include "base/limits.h"
#include "skerry/v1/options.pb-c.h"
#include "base/name.h"

/* ---- tailnets ---- */

static struct slice name_key(struct skey *k, const char *name)
{
	return skey_bytes(k, TABLE_BY_TAILNET_NAME, name, strlen(name));
}

static void user_put_new(struct state *st, UserRecord *u)
{
	TailnetHead *h = st_head(st, u->tailnet);
	struct skey k;

	st_put_user(st, u, false);
	st_index_put(st, skey_id_str(&k, TABLE_BY_LOGIN, u->tailnet, u->login_name), u->tailnet,
		     u->id);
	h->user_count++;
	st_head_dirty(st, u->tailnet);
}

void tailnet_make(struct state *st, const char *name, const Skerry__V1__DnsConfig *dns,
		  const char *base_domain, uint64_t node_expiry_ms, const char *user_name,
		  Skerry__V1__Prefix **prefixes, size_t n_prefixes, uint64_t *ret_id)
{
	Skerry__V1__DnsConfig d = SKERRY__V1__DNS_CONFIG__INIT;
	TailnetRecord t;
	UserRecord u;
	struct skey k;

	if (dns != NULL) {
		d = *dns;
	}
	if (base_domain != NULL && base_domain[0] != '\0') {
		d.base_domain = (char *)base_domain;
	}
	if (d.base_domain[0] == '\0') {
		d.base_domain = st_printf(st, "%s.internal", name);
	}
	skerry__internal__v1__tailnet_record__init(&t);
	t.id = st_next_id(st);
	t.name = (char *)name;
	t.dns = &d;
	t.create_ms = st->now;
	t.node_expiry_ms = node_expiry_ms;
	t.prefixes = prefixes;
	t.n_prefixes = n_prefixes;
	st_put_tailnet(st, &t, false);
	st_index_put(st, name_key(&k, name), t.id, t.id);

	skerry__internal__v1__user_record__init(&u);
	u.id = st_next_id(st);
	u.tailnet = t.id;
	u.login_name = (char *)user_name;
	u.display_name = (char *)user_name;
	u.role = SKERRY__V1__ROLE__ROLE_ADMIN;
	u.create_ms = st->now;
	user_put_new(st, &u);
	st_audit(st, t.id, "tailnet.create", st_name(st, RESOURCE_TAILNET, t.id, t.id), "%s", name);
	*ret_id = t.id;
}

static int valid_name(struct state *st, const char *name)
{
	struct err e = {0};
	struct skey k;

	if (name_valid_label(name, strlen(name), &e) < 0) {
		return refuse(st, CODE_INVALID, "", "display_name", "the tailnet's name: %s",
			      e.msg);
	}
	/* It is a label of the default base domain. */
	if (name_refused_label(name)) {
		return refuse(st, CODE_INVALID, "NAME_REFUSED", "display_name",
			      "the name \"%s\" is one that clients look up by themselves", name);
	}
	if (st_has(st, name_key(&k, name))) {
		return refuse(st, CODE_EXISTS, "TAILNET_NAME_TAKEN", "display_name",
			      "another tailnet is called \"%s\"", name);
	}
	return ACCEPT;
}

static int valid_expiry(struct state *st, uint64_t ms)
{
	if (ms != 0 && (ms < 60000 || ms > LIM_LIFETIME_MS)) {
		return refuse(
			st, CODE_INVALID, "", "node_expiry",
			"a node key lasts from a minute to ten years; 0 is the default of 180 "
			"days");
	}
	return ACCEPT;
}

static int valid_login(struct state *st, const char *login)
{
	if (login[0] == '\0' || strchr(login, '/') != NULL || strchr(login, ' ') != NULL) {
		return refuse(st, CODE_INVALID, "", "login_name",
			      "a login name is not empty and has neither blanks nor slashes");
	}
	return valid_text(st, login, 128, "login_name");
}

/* Records lie below a base domain that may be the default one. */
static const Skerry__V1__DnsConfig *dns_with_base(struct state *st,
						  const Skerry__V1__DnsConfig *dns,
						  const char *name)
{
	Skerry__V1__DnsConfig *d;

	if (dns == NULL || dns->base_domain[0] != '\0') {
		return dns;
	}
	d = st_alloc(st, sizeof(*d));
	*d = *dns;
	d->base_domain = st_printf(st, "%s.internal", name);
	return d;
}

int cmd_tailnet_create(struct state *st)
{
	const Skerry__Internal__V1__TailnetCreate *c = st->cmd->tailnet_create;
	const char *user = c->user_name[0] != '\0' ? c->user_name : "admin";
	const Skerry__V1__DnsConfig *dns;
	struct skey k, prefix;
	struct slice key, v;
	uint64_t id;
	size_t n = 0;
	bool more;

	if (valid_name(st, c->name) == REFUSE) {
		return REFUSE;
	}
	dns = dns_with_base(st, c->dns, c->name);
	if (valid_dns(st, dns, "dns") == REFUSE || valid_expiry(st, c->node_expiry_ms) == REFUSE ||
	    valid_prefixes(st, c->prefixes, c->n_prefixes, "prefixes") == REFUSE ||
	    valid_login(st, user) == REFUSE) {
		return REFUSE;
	}
	skey_init(&prefix, TABLE_TAILNET);
	for (more = st_raw_seek(st, skey_slice(&prefix), &key, &v);
	     more && skey_table(key) == TABLE_TAILNET;
	     more = st_raw_next(st, skey_slice(&k), &key, &v)) {
		skey_bytes(&k, TABLE_TAILNET, (const uint8_t *)key.data + 1, key.len - 1);
		n++;
	}
	if (n >= LIM_TAILNETS) {
		return refuse(st, CODE_EXHAUSTED, "TOO_MANY_TAILNETS", "",
			      "the cluster has %d tailnets, which is the limit", LIM_TAILNETS);
	}
	tailnet_make(st, c->name, dns, NULL, c->node_expiry_ms, user, c->prefixes, c->n_prefixes,
		     &id);
	st_audit(st, 0, "tailnet.create", st_name(st, RESOURCE_TAILNET, id, id), "%s", c->name);
	st_answer(st, RESOURCE_TAILNET, id, id);
	return ACCEPT;
}

static TailnetRecord *tailnet_asked(struct state *st, uint64_t id, const char *etag)
{
	TailnetRecord *t;

	if (st->cmd->tailnet != 0 && st->cmd->tailnet != id) {
		IGNORE(refuse(st, CODE_INVALID, "", "name", "the command is for another tailnet"));
		return NULL;
	}
	t = st_tailnet(st, id);
	if (t == NULL) {
		IGNORE(refuse(st, CODE_NOT_FOUND, "TAILNET_NOT_FOUND", "name",
			      "there is no tailnet %llu", (unsigned long long)id));
		return NULL;
	}
	return valid_etag(st, etag, t->revision) == REFUSE ? NULL : t;
}

int cmd_tailnet_update(struct state *st)
{
	const Skerry__Internal__V1__TailnetUpdate *c = st->cmd->tailnet_update;
	TailnetRecord *t = tailnet_asked(st, c->id, c->etag);
	const Skerry__V1__DnsConfig *dns = c->dns;
	bool rename;
	struct skey k;

	if (t == NULL) {
		return REFUSE;
	}
	rename = c->set_name && strcmp(c->name, t->name) != 0;
	if (rename && valid_name(st, c->name) == REFUSE) {
		return REFUSE;
	}
	if (c->set_dns) {
		Skerry__V1__DnsConfig empty = SKERRY__V1__DNS_CONFIG__INIT;

		dns = dns_with_base(st, dns != NULL ? dns : &empty, rename ? c->name : t->name);
		if (valid_dns(st, dns, "dns") == REFUSE) {
			return REFUSE;
		}
	}
	if (c->set_node_expiry && valid_expiry(st, c->node_expiry_ms) == REFUSE) {
		return REFUSE;
	}

	if (rename) {
		st_raw_del(st, name_key(&k, t->name));
		t->name = c->name;
		st_index_put(st, name_key(&k, t->name), t->id, t->id);
	}
	if (c->set_dns) {
		t->dns = (Skerry__V1__DnsConfig *)dns;
	}
	if (c->set_node_expiry) {
		t->node_expiry_ms = c->node_expiry_ms;
	}
	st_put_tailnet(st, t, false);
	st_audit(st, t->id, "tailnet.update", st_name(st, RESOURCE_TAILNET, t->id, t->id), "%s%s%s",
		 rename ? "name " : "", c->set_dns ? "dns " : "",
		 c->set_node_expiry ? "node_expiry" : "");
	st_answer(st, RESOURCE_TAILNET, t->id, t->id);
	return ACCEPT;
}

/* The record goes now; what hangs on it follows in the portions of Tick. */
int cmd_tailnet_delete(struct state *st)
{
	const Skerry__Internal__V1__TailnetDelete *c = st->cmd->tailnet_delete;
	TailnetRecord *t = tailnet_asked(st, c->id, c->etag);
	struct change_of ch = {.kind = CHANGE_TAILNET};
	PurgeRecord p;
	struct skey k;

	if (t == NULL) {
		return REFUSE;
	}
	if (!c->force && st_head(st, t->id)->node_count > 0) {
		return refuse(st, CODE_PRECONDITION, "TAILNET_NOT_EMPTY", "force",
			      "the tailnet %s has %llu nodes: delete them first, or set force",
			      t->name, (unsigned long long)st_head(st, t->id)->node_count);
	}
	ch.tailnet = t->id;
	ch.object = t->id;
	ch.old_revision = t->revision;
	ch.visibility = true;
	state_del(st, skey_id(&k, TABLE_TAILNET, t->id), &ch, true);
	st_raw_del(st, name_key(&k, t->name));
	skerry__internal__v1__purge_record__init(&p);
	p.tailnet = t->id;
	p.since_ms = st->now;
	state_put(st, skey_id(&k, TABLE_PURGE, t->id), &p, NULL);
	st_raw_put(st, skey_deadline(&k, st->now, DEADLINE_PURGE, t->id, NULL, 0), "", 0);
	st_audit(st, 0, "tailnet.delete", st_name(st, RESOURCE_TAILNET, t->id, t->id), "%s",
		 t->name);
	st_answer(st, RESOURCE_TAILNET, t->id, t->id);
	return ACCEPT;
}

/* Removes up to `budget` records of one table of the tailnet; returns how many. */
static size_t purge_table(struct state *st, enum table table, uint64_t tailnet, size_t budget)
{
	struct skey prefix, key;
	size_t n = 0;

	skey_id(&prefix, table, tailnet);
	for (; n < budget; n++) {
		struct slice k, v;

		if (!st_raw_seek(st, skey_slice(&prefix), &k, &v) ||
		    !skey_has_prefix(k, skey_slice(&prefix))) {
			break;
		}
		if (table == TABLE_HISTORY) {
			st->meta->bytes -= MIN(st->meta->bytes, k.len + v.len);
		}
		skey_bytes(&key, table, (const uint8_t *)k.data + 1, k.len - 1);
		if (table_primary((uint8_t)table)) {
			state_del(st, skey_slice(&key), NULL, false);
		} else {
			st_raw_del(st, skey_slice(&key));
		}
	}
	return n;
}

/* The first record of a table of the tailnet. */
static void *purge_first(struct state *st, enum table table, uint64_t tailnet,
			 const ProtobufCMessageDescriptor *desc)
{
	struct skey prefix, key;
	struct slice k, v;

	skey_id(&prefix, table, tailnet);
	if (!st_raw_seek(st, skey_slice(&prefix), &k, &v) ||
	    !skey_has_prefix(k, skey_slice(&prefix))) {
		return NULL;
	}
	skey_bytes(&key, table, (const uint8_t *)k.data + 1, k.len - 1);
	return st_get(st, skey_slice(&key), desc);
}

bool tailnet_purge(struct state *st, uint64_t tailnet, size_t budget)
{
	/* What has entries elsewhere goes through its own removal; the rest table by table. */
	static const enum table rest[] = {
		TABLE_USER,        TABLE_AUDIT,        TABLE_BY_LOGIN, TABLE_BY_NODE_NAME,
		TABLE_CHANGE,      TABLE_TOMBSTONE,    TABLE_HISTORY,  TABLE_HISTORY_QUEUE,
		TABLE_KEY_OF_USER, TABLE_NODE_OF_USER,
	};
	size_t done = 0;
	NodeRecord *n;
	AuthKeyRecord *auth;
	ApiKeyRecord *api;
	PendingRecord *p;
	DedupeRecord *d;
	struct skey k;

	while (done < budget &&
	       (n = purge_first(st, TABLE_NODE, tailnet, REC(node_record))) != NULL) {
		node_remove(st, n);
		done += 4;
	}
	while (done < budget &&
	       (auth = purge_first(st, TABLE_AUTH_KEY, tailnet, REC(auth_key_record))) != NULL) {
		auth_key_remove(st, auth);
		done++;
	}
	while (done < budget &&
	       (api = purge_first(st, TABLE_API_KEY, tailnet, REC(api_key_record))) != NULL) {
		api_key_remove(st, api);
		done++;
	}
	while (done < budget &&
	       (p = purge_first(st, TABLE_PENDING, tailnet, REC(pending_record))) != NULL) {
		pending_remove(st, p);
		done++;
	}
	/* The rows of request ids go by their own deadlines, within 5 minutes. */
	d = purge_first(st, TABLE_REQUEST, tailnet, REC(dedupe_record));
	for (size_t i = 0; i < ARRAY_LEN(rest) && done < budget; i++) {
		done += purge_table(st, rest[i], tailnet, budget - done);
	}
	if (done >= budget || st->fail < 0) {
		return false;
	}
	if (d != NULL) {
		st_raw_put(st,
			   skey_deadline(&k, st->now + LIM_REQUEST_ID_MS, DEADLINE_PURGE, tailnet,
					 NULL, 0),
			   "", 0);
		return true;
	}
	state_del(st, skey_id(&k, TABLE_PURGE, tailnet), NULL, false);
	st_head_drop(st, tailnet);
	return true;
}

/* ---- users ---- */

int cmd_user_create(struct state *st)
{
	const Skerry__Internal__V1__UserCreate *c = st->cmd->user_create;
	uint64_t tailnet = st->cmd->tailnet;
	UserRecord u;
	struct skey k;

	if (valid_login(st, c->login_name) == REFUSE ||
	    valid_text(st, c->display_name, LIM_TEXT_BYTES, "display_name") == REFUSE) {
		return REFUSE;
	}
	if (c->role > SKERRY__V1__ROLE__ROLE_ADMIN) {
		return refuse(st, CODE_INVALID, "", "role", "there is no role %u", c->role);
	}
	if (st_has(st, skey_id_str(&k, TABLE_BY_LOGIN, tailnet, c->login_name))) {
		return refuse(st, CODE_EXISTS, "LOGIN_NAME_TAKEN", "login_name",
			      "there is a user \"%s\" in the tailnet", c->login_name);
	}
	if (st_head(st, tailnet)->user_count >= LIM_TAILNET_USERS) {
		return refuse(st, CODE_EXHAUSTED, "TOO_MANY_USERS", "",
			      "the tailnet has %d users, which is the limit", LIM_TAILNET_USERS);
	}
	skerry__internal__v1__user_record__init(&u);
	u.id = st_next_id(st);
	u.tailnet = tailnet;
	u.login_name = c->login_name;
	u.display_name = c->display_name;
	u.role = c->role;
	u.create_ms = st->now;
	user_put_new(st, &u);
	st_audit(st, tailnet, "user.create", st_name(st, RESOURCE_USER, tailnet, u.id), "%s",
		 u.login_name);
	st_answer(st, RESOURCE_USER, tailnet, u.id);
	return ACCEPT;
}

static UserRecord *user_asked(struct state *st, uint64_t id, const char *etag)
{
	UserRecord *u = st_user(st, st->cmd->tailnet, id);

	if (u == NULL) {
		IGNORE(refuse(st, CODE_NOT_FOUND, "USER_NOT_FOUND", "name",
			      "there is no user %llu in the tailnet", (unsigned long long)id));
		return NULL;
	}
	return valid_etag(st, etag, u->revision) == REFUSE ? NULL : u;
}

/* Calls fn with each id that stands last in the keys below `prefix`; fn may delete that entry. */
static void each_id(struct state *st, const struct skey *prefix,
		    void (*fn)(struct state *st, uint64_t tailnet, uint64_t id, void *arg),
		    void *arg)
{
	struct skey at = *prefix;
	struct slice k, v;
	bool more = st_raw_seek(st, skey_slice(prefix), &k, &v);

	while (more && skey_has_prefix(k, skey_slice(prefix))) {
		uint64_t tailnet, id;

		skey_bytes(&at, (enum table)prefix->data[0], (const uint8_t *)k.data + 1,
			   k.len - 1);
		if (skey_get_u64(k, 1, &tailnet) && skey_get_u64(k, k.len - 8, &id)) {
			fn(st, tailnet, id, arg);
		}
		more = st_raw_next(st, skey_slice(&at), &k, &v);
	}
}

static void node_suspend(struct state *st, uint64_t tailnet, uint64_t id, void *arg)
{
	const bool *suspended = arg;
	NodeRecord *n = st_node(st, tailnet, id);

	if (n != NULL && n->suspended != *suspended) {
		n->suspended = *suspended;
		st_put_node(st, n, true);
	}
}

int cmd_user_update(struct state *st)
{
	const Skerry__Internal__V1__UserUpdate *c = st->cmd->user_update;
	UserRecord *u = user_asked(st, c->id, c->etag);
	bool suspension;

	if (u == NULL) {
		return REFUSE;
	}
	if (c->set_display_name &&
	    valid_text(st, c->display_name, LIM_TEXT_BYTES, "display_name") == REFUSE) {
		return REFUSE;
	}
	if (c->set_role && c->role > SKERRY__V1__ROLE__ROLE_ADMIN) {
		return refuse(st, CODE_INVALID, "", "role", "there is no role %u", c->role);
	}
	suspension = c->set_suspended && u->suspended != c->suspended;
	if (c->set_display_name) {
		u->display_name = c->display_name;
	}
	if (c->set_role) {
		u->role = c->role;
	}
	if (c->set_suspended) {
		u->suspended = c->suspended;
	}
	st_put_user(st, u, suspension);
	if (suspension) {
		bool suspended = u->suspended;
		struct skey prefix;

		skey_id2(&prefix, TABLE_NODE_OF_USER, u->tailnet, u->id);
		each_id(st, &prefix, node_suspend, &suspended);
	}
	st_audit(st, u->tailnet, "user.update", st_name(st, RESOURCE_USER, u->tailnet, u->id),
		 "%s%s%s", c->set_display_name ? "display_name " : "", c->set_role ? "role " : "",
		 !suspension    ? ""
		 : u->suspended ? "suspended"
				: "resumed");
	st_answer(st, RESOURCE_USER, u->tailnet, u->id);
	return ACCEPT;
}

static void auth_key_go(struct state *st, uint64_t tailnet, uint64_t id, void *arg UNUSED)
{
	AuthKeyRecord *k = st_auth_key(st, tailnet, id);

	if (k != NULL) {
		auth_key_remove(st, k);
	}
}

static void api_key_go(struct state *st, uint64_t tailnet, uint64_t id, void *arg UNUSED)
{
	ApiKeyRecord *k = st_api_key(st, tailnet, id);

	if (k != NULL) {
		api_key_remove(st, k);
	}
}

int cmd_user_delete(struct state *st)
{
	const Skerry__Internal__V1__UserDelete *c = st->cmd->user_delete;
	UserRecord *u = user_asked(st, c->id, c->etag);
	struct change_of ch = {.kind = CHANGE_USER};
	struct skey prefix;
	struct slice k, v;

	if (u == NULL) {
		return REFUSE;
	}
	skey_id2(&prefix, TABLE_NODE_OF_USER, u->tailnet, u->id);
	if (st_raw_seek(st, skey_slice(&prefix), &k, &v) &&
	    skey_has_prefix(k, skey_slice(&prefix))) {
		return refuse(
			st, CODE_PRECONDITION, "USER_HAS_NODES", "name",
			"the user %s has nodes: delete them or give them to another user first",
			u->login_name);
	}
	skey_id2(&prefix, TABLE_KEY_OF_USER, u->tailnet, u->id);
	skey_add_u8(&prefix, CHANGE_AUTH_KEY);
	each_id(st, &prefix, auth_key_go, NULL);
	prefix.data[prefix.len - 1] = CHANGE_API_KEY;
	each_id(st, &prefix, api_key_go, NULL);

	ch.tailnet = u->tailnet;
	ch.object = u->id;
	ch.old_revision = u->revision;
	state_del(st, skey_id2(&prefix, TABLE_USER, u->tailnet, u->id), &ch, true);
	st_raw_del(st, skey_id_str(&prefix, TABLE_BY_LOGIN, u->tailnet, u->login_name));
	st_head(st, u->tailnet)->user_count--;
	st_head_dirty(st, u->tailnet);
	st_audit(st, u->tailnet, "user.delete", st_name(st, RESOURCE_USER, u->tailnet, u->id), "%s",
		 u->login_name);
	st_answer(st, RESOURCE_USER, u->tailnet, u->id);
	return ACCEPT;
}
