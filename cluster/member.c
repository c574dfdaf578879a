/* The member table as the peer thread keeps it, and what the leader does to raft's configuration because of it. */
#include "cluster/member.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/crypto.h"
#include "base/enc.h"
#include "base/fileio.h"
#include "base/jsonx.h"
#include "base/mem.h"
#include "tailnet/query.h"

enum { FORMAT = 1, FILE_MAX = 1 << 20, ARENA = 1 << 20 };

#define MEMBERS_FILE "members.json"

void member_table_done(struct member_table *t)
{
	mem_free(t->m);
	t->m = NULL;
	t->n = 0;
}

/* Where id is or belongs. */
static size_t place(const struct member_table *t, uint64_t id)
{
	size_t i = 0;

	while (i < t->n && t->m[i].id < id) {
		i++;
	}
	return i;
}

const struct member *member_find(const struct member_table *t, uint64_t id)
{
	size_t i = place(t, id);

	return i < t->n && t->m[i].id == id ? &t->m[i] : NULL;
}

static int copy_text(char *to, size_t cap, const char *from, uint64_t id, const char *what,
		     struct err *err)
{
	size_t n = strlen(from);

	if (n >= cap) {
		return err_field(err, ERR_LIMIT, what,
				 "lighthouse %" PRIu64 ": %s is longer than %zu bytes", id, what,
				 cap - 1);
	}
	memcpy(to, from, n + 1);
	return 0;
}

int member_table_add(struct member_table *t, uint64_t id, bool removed, bool voter,
		     uint64_t incarnation, const char *name, const char *address,
		     const char *api_url, const void *public_key, size_t len, struct err *err)
{
	struct member m = {.id = id,
			   .removed = removed,
			   .voter = voter,
			   .incarnation = incarnation,
			   .public_key_len = len};
	size_t i = place(t, id);
	int r = copy_text(m.name, sizeof(m.name), name, id, "name", err);

	if (r >= 0) {
		r = copy_text(m.address, sizeof(m.address), address, id, "peer_address", err);
	}
	if (r >= 0) {
		r = copy_text(m.api_url, sizeof(m.api_url), api_url, id, "api_url", err);
	}
	if (r >= 0 && len > sizeof(m.public_key)) {
		r = err_field(err, ERR_LIMIT, "public_key",
			      "lighthouse %" PRIu64 ": the public key has %zu bytes", id, len);
	}
	if (r < 0) {
		return r;
	}
	memcpy(m.public_key, public_key, len);
	crypto_sha256(m.spki_sha256, public_key, len);
	if (i == t->n || t->m[i].id != id) {
		t->m = mem_reallocarray(t->m, t->n + 1, sizeof(*t->m));
		memmove(&t->m[i + 1], &t->m[i], (t->n - i) * sizeof(*t->m));
		t->n++;
	}
	t->m[i] = m;
	return 0;
}

int member_table_read(const struct kv *kv, struct member_table *ret, struct err *err)
{
	struct member_table t = {0};
	struct arena a;
	uint64_t after = 0;
	int r;

	arena_init(&a, ARENA);
	for (;;) {
		MemberRecord *m;

		r = query_member_next(kv, after, &a, &m);
		if (r < 0) {
			break;
		}
		after = m->id;
		r = member_table_add(
			&t, m->id,
			m->kind == SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_REMOVED,
			m->kind == SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_VOTER,
			m->incarnation, m->name, m->peer_address, m->api_url, m->public_key.data,
			m->public_key.len, err);
		if (r < 0) {
			break;
		}
		t.m[place(&t, after)].keep_standby = m->keep_standby;
		arena_reset(&a);
	}
	arena_done(&a);
	if (r != ERR_NOT_FOUND || t.n == 0) {
		member_table_done(&t);
		return r == ERR_NOT_FOUND ? ERR_NOT_FOUND
					  : err_set(err, r, "the member table cannot be read: %s",
						    err_text(r));
	}
	*ret = t;
	return 0;
}

bool member_table_equal(const struct member_table *a, const struct member_table *b)
{
	if (a->n != b->n) {
		return false;
	}
	for (size_t i = 0; i < a->n; i++) {
		const struct member *x = &a->m[i], *y = &b->m[i];

		if (x->id != y->id || x->removed != y->removed || x->voter != y->voter ||
		    x->incarnation != y->incarnation || strcmp(x->name, y->name) != 0 ||
		    strcmp(x->address, y->address) != 0 || strcmp(x->api_url, y->api_url) != 0 ||
		    memcmp(x->spki_sha256, y->spki_sha256, 32) != 0) {
			return false;
		}
	}
	return true;
}

int member_table_save(const char *dir, const struct member_table *t, struct err *err)
{
	struct buf b = BUF_INIT, hex = BUF_INIT;
	char *path = mem_printf("%s/%s", dir, MEMBERS_FILE);
	struct jsonw w;
	int r;

	jsonw_init(&w, &b, true);
	jsonw_object(&w);
	jsonw_ki64(&w, "format", FORMAT);
	jsonw_key(&w, "members");
	jsonw_array(&w);
	for (size_t i = 0; i < t->n; i++) {
		const struct member *m = &t->m[i];

		buf_reset(&hex);
		hex_append(&hex, m->public_key, m->public_key_len);
		jsonw_object(&w);
		jsonw_ku64s(&w, "id", m->id);
		jsonw_kstr(&w, "name", m->name);
		jsonw_kbool(&w, "removed", m->removed);
		jsonw_kbool(&w, "voter", m->voter);
		jsonw_kstr(&w, "peer_address", m->address);
		jsonw_kstr(&w, "api_url", m->api_url);
		jsonw_kstr(&w, "public_key", buf_str(&hex));
		jsonw_end(&w);
	}
	jsonw_end(&w);
	jsonw_end(&w);
	buf_u8(&b, '\n');
	r = file_write_atomic(path, b.data, b.len, 0600, err);
	mem_free(path);
	buf_done(&b);
	buf_done(&hex);
	return r;
}

static int load_one(const struct jsonx *v, struct member_table *t, struct err *err)
{
	const char *hex = jsonx_str(jsonx_get(v, "public_key"), "");
	uint8_t key[PKI_SPKI_MAX];
	uint64_t id;
	int n = hex_decode(hex, strlen(hex), key, sizeof(key));

	if (n <= 0 || jsonx_get_u64(jsonx_get(v, "id"), &id) < 0) {
		return err_set(err, ERR_CORRUPT, "a member has no id or public key");
	}
	return member_table_add(t, id, jsonx_bool(jsonx_get(v, "removed"), false),
				jsonx_bool(jsonx_get(v, "voter"), false), 0,
				jsonx_str(jsonx_get(v, "name"), ""),
				jsonx_str(jsonx_get(v, "peer_address"), ""),
				jsonx_str(jsonx_get(v, "api_url"), ""), key, (size_t)n, err);
}

int member_table_load(const char *dir, struct member_table *ret, struct err *err)
{
	char *path = mem_printf("%s/%s", dir, MEMBERS_FILE);
	struct member_table t = {0};
	struct jsonx *root = NULL;
	const struct jsonx *list;
	int r = jsonx_read(path, FILE_MAX, FORMAT, &root, err);

	list = jsonx_get(root, "members");
	for (size_t i = 0; r >= 0 && i < jsonx_len(list); i++) {
		r = load_one(jsonx_at(list, i), &t, err);
		if (r < 0) {
			err_prefix(err, "%s", path);
		}
	}
	if (r < 0) {
		member_table_done(&t);
	} else {
		*ret = t;
	}
	jsonx_free(root);
	mem_free(path);
	return r;
}

/* ---- raft's configuration ---- */

const struct link_server *member_server(const struct link_state *s, uint64_t id)
{
	for (size_t i = 0; i < s->n; i++) {
		if (s->server[i].id == id) {
			return &s->server[i];
		}
	}
	return NULL;
}

bool member_caught_up(const struct link_server *server, const struct link_state *s)
{
	return server->match_index > 0 && server->match_index + MEMBER_LAG >= s->commit_index;
}

static void todo(struct member_todo *ret, enum member_action action, uint64_t id)
{
	*ret = (struct member_todo){.action = action, .id = id};
}

bool member_next_place(const struct member_table *t, const struct link_state *s, uint64_t self,
		       struct member_todo *ret)
{
	bool us = false;

	for (size_t i = 0; i < s->n; i++) {
		const struct member *m = member_find(t, s->server[i].id);

		if (m != NULL && !m->removed) {
			continue;
		}
		if (s->server[i].id != self) {
			todo(ret, MEMBER_REMOVE, s->server[i].id);
			return true;
		}
		us = true;
	}
	if (us) {
		todo(ret, MEMBER_HAND_OVER, 0);
		return true;
	}
	for (size_t i = 0; i < t->n; i++) {
		const struct link_server *server = member_server(s, t->m[i].id);

		/* A spare is what a leader that ended between the two steps of an addition has left. */
		if (!t->m[i].removed && (server == NULL || server->role == LINK_SPARE)) {
			todo(ret, MEMBER_ADD, t->m[i].id);
			return true;
		}
	}
	return false;
}

void member_next(const struct member_table *t, const struct link_state *s, uint64_t self,
		 bool (*connected)(void *arg, uint64_t id), void *arg, struct member_todo *ret)
{
	size_t voters = 0, ready = 0, target;
	uint64_t first = 0;

	todo(ret, MEMBER_NOTHING, 0);
	if (!s->self_leads || s->changing || t->n == 0 || member_next_place(t, s, self, ret)) {
		return;
	}
	for (size_t i = 0; i < t->n; i++) {
		const struct member *m = &t->m[i];
		const struct link_server *server = member_server(s, m->id);

		if (m->removed) {
			continue;
		}
		if (server->role == LINK_VOTER) {
			voters++;
		} else if (member_caught_up(server, s) && connected(arg, m->id)) {
			first = ready++ == 0 ? m->id : first;
		}
	}
	target = MIN(voters + ready, (size_t)5);
	target -= target % 2 == 0;
	if (voters < target) {
		todo(ret, MEMBER_PROMOTE, first);
		return;
	}
	for (size_t i = 0; i < t->n; i++) {
		const struct member *m = &t->m[i];
		const struct link_server *server = member_server(s, m->id);

		if (!m->removed && (server->role == LINK_VOTER) != m->voter) {
			todo(ret, m->voter ? MEMBER_SET_STANDBY : MEMBER_SET_VOTER, m->id);
			return;
		}
	}
}

/* ---- clocks ---- */

static bool within(int64_t a, int64_t b)
{
	return (a > b ? a - b : b - a) <= MEMBER_CLOCK_MS;
}

bool member_clocks_agree(const struct member_clock *c, size_t n)
{
	size_t agree = 1;

	for (size_t i = 0; i < n; i++) {
		agree += c[i].known && within(c[i].offset_ms, 0);
	}
	return agree > (n + 1) / 2;
}

static int cmp_offset(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

/* The median of the known offsets and our own, which is 0. Returns how many there are. */
static size_t median(const struct member_clock *c, size_t n, int64_t *ret)
{
	int64_t known[LIM_MEMBERS + 1];
	size_t k = 0;

	known[k++] = 0;
	for (size_t i = 0; i < n && k < ARRAY_LEN(known); i++) {
		if (c[i].known) {
			known[k++] = c[i].offset_ms;
		}
	}
	qsort(known, k, sizeof(known[0]), cmp_offset);
	*ret = known[k / 2];
	return k;
}

bool member_clock_is_off(const struct member_clock *c, size_t n)
{
	int64_t middle;
	size_t k = median(c, n, &middle);

	/* Two clocks that differ do not say which one is wrong. */
	return k > (n + 1) / 2 && k >= 3 && !within(middle, 0);
}

size_t member_clock_best(const struct member_clock *c, size_t n)
{
	int64_t middle;
	size_t best = n;

	median(c, n, &middle);
	for (size_t i = 0; i < n; i++) {
		if (c[i].known && (best == n || llabs(c[i].offset_ms - middle) <
							llabs(c[best].offset_ms - middle))) {
			best = i;
		}
	}
	return best;
}
