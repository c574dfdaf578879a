/* What each other lighthouse is known to have acknowledged: kept on disk, so that a copy put back is noticed. */
#include "cluster/peer_int.h"

#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/fileio.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/mem.h"

/*
 * Two sources. The leader knows how far each member's log matches its own; what of it is committed can never leave
 * that member's disk again. And each member says how far it has applied; since a leader may apply an entry a moment
 * before its own disk has it, that counts only when it is PEER_ACK_AGE_MS old.
 */
#define ACK_FILE "acknowledged.json"

enum { FORMAT = 1, FILE_MAX = 1 << 20 };

struct peer_ack {
	uint64_t id, index;
};

static char *ack_path(const struct peer *p)
{
	return mem_printf("%s/%s", p->dir, ACK_FILE);
}

int peer_ack_load(struct peer *p, struct err *err)
{
	char *path = ack_path(p);
	struct jsonx *root = NULL;
	const struct jsonx *list;
	int r = jsonx_read(path, FILE_MAX, FORMAT, &root, err);

	list = jsonx_get(root, "members");
	for (size_t i = 0; r >= 0 && i < jsonx_len(list); i++) {
		const struct jsonx *v = jsonx_at(list, i);
		struct peer_ack a;

		if (jsonx_get_u64(jsonx_get(v, "id"), &a.id) < 0 ||
		    jsonx_get_u64(jsonx_get(v, "index"), &a.index) < 0) {
			r = err_set(err, ERR_CORRUPT, "%s: a member has no id or index", path);
			break;
		}
		p->acks = mem_reallocarray(p->acks, p->n_acks + 1, sizeof(*p->acks));
		p->acks[p->n_acks++] = a;
	}
	jsonx_free(root);
	mem_free(path);
	return r;
}

uint64_t peer_ack_of(struct peer *p, uint64_t id)
{
	for (size_t i = 0; i < p->n_acks; i++) {
		if (p->acks[i].id == id) {
			return p->acks[i].index;
		}
	}
	return 0;
}

bool peer_behind_judge(struct peer_behind *b, uint64_t now_ms, uint64_t acknowledged, uint64_t last,
		       uint64_t published_ms)
{
	if (acknowledged <= last) {
		return false;
	}
	if (b->since_ms == 0 || acknowledged < b->ack) {
		b->since_ms = now_ms;
		b->ack = acknowledged;
		return false;
	}
	return published_ms >= b->since_ms + PEER_ASK_MS / 2 && last < b->ack;
}

/* ---- writing, on a worker ---- */

struct save {
	struct peer *peer;
	char *path;
	struct buf text;
	int result;
	struct err err;
};

static void save_work(void *arg)
{
	struct save *s = arg;

	s->result = file_write_atomic(s->path, s->text.data, s->text.len, 0600, &s->err);
}

static void save_done(void *arg)
{
	struct save *s = arg;

	s->peer->acks_saving = false;
	if (s->result < 0) {
		s->peer->acks_dirty = true;
		LOG_WARN("%s: %s", s->path, s->err.msg);
	}
	mem_free(s->path);
	buf_done(&s->text);
	mem_free(s);
}

static void save(struct peer *p)
{
	struct save *s = MEM_NEW(struct save);
	struct jsonw w;

	s->peer = p;
	s->path = ack_path(p);
	jsonw_init(&w, &s->text, true);
	jsonw_object(&w);
	jsonw_ki64(&w, "format", FORMAT);
	jsonw_key(&w, "members");
	jsonw_array(&w);
	LIST_FOREACH(&p->links, it)
	{
		const struct peer_link *l = LIST_ENTRY(it, struct peer_link, node);

		jsonw_object(&w);
		jsonw_ku64s(&w, "id", l->id);
		jsonw_ku64s(&w, "index", l->ack);
		jsonw_end(&w);
	}
	jsonw_end(&w);
	jsonw_end(&w);
	buf_u8(&s->text, '\n');
	if (loop_work(p->loop, save_work, save_done, s) < 0) {
		mem_free(s->path);
		buf_done(&s->text);
		mem_free(s);
		return;
	}
	p->acks_saving = true;
	p->acks_dirty = false;
}

static void note(struct peer_link *l, uint64_t index)
{
	if (index > l->ack) {
		l->ack = index;
		l->peer->acks_dirty = true;
	}
}

void peer_ack_leader(struct peer *p)
{
	struct link_state s;

	link_state(p->cluster, &s);
	for (size_t i = 0; s.self_leads && i < s.n; i++) {
		struct peer_link *l = peer_link_find(p, s.server[i].id);

		if (l != NULL) {
			note(l, MIN(s.server[i].match_index, s.commit_index));
		}
	}
}

void peer_ack_tick(struct peer *p, uint64_t now_ms)
{
	peer_ack_leader(p);
	LIST_FOREACH(&p->links, it)
	{
		struct peer_link *l = LIST_ENTRY(it, struct peer_link, node);

		if (!peer_link_connected(l)) {
			l->ack_next_ms = 0;
		} else if (l->ack_next_ms == 0) {
			l->ack_next = l->applied_index;
			l->ack_next_ms = now_ms;
		} else if (now_ms - l->ack_next_ms >= PEER_ACK_AGE_MS) {
			note(l, l->ack_next);
			l->ack_next = l->applied_index;
			l->ack_next_ms = now_ms;
		}
	}
	if (p->acks_dirty && !p->acks_saving && now_ms - p->acks_saved_ms >= PEER_SAVE_MS) {
		p->acks_saved_ms = now_ms;
		save(p);
	}
}
