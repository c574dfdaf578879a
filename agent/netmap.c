#include "agent/netmap.h"

#include <errno.h>
#include <string.h>

#include "base/crypto.h"
#include "base/fileio.h"
#include "base/limits.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/rd.h"
#include "proto/pb_decode.h"
#include "proto/pb_util.h"

#define FILE_MAGIC     "sknetm01"
#define FILE_MAGIC_LEN 8

static void peer_done(struct netmap_peer *p)
{
	pb_free(p->body);
	p->body = NULL;
}

void netmap_done(struct netmap *nm)
{
	if (nm == NULL) {
		return;
	}
	for (size_t i = 0; i < nm->n_peers; i++) {
		peer_done(&nm->peers[i]);
	}
	mem_free(nm->peers);
	pb_free(nm->self);
	pb_free(nm->view);
	*nm = (struct netmap){0};
}

void netmap_move(struct netmap *to, struct netmap *from)
{
	netmap_done(to);
	*to = *from;
	*from = (struct netmap){0};
}

bool netmap_held(const struct netmap *nm)
{
	return nm->self != NULL;
}

/* The place of the id, or where it would be inserted. */
static size_t peer_place(const struct netmap *nm, uint64_t id)
{
	size_t lo = 0, hi = nm->n_peers;

	/* Maps arrive in rising order. */
	if (hi > 0 && nm->peers[hi - 1].id < id) {
		return hi;
	}
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (nm->peers[mid].id < id) {
			lo = mid + 1;
		} else {
			hi = mid;
		}
	}
	return lo;
}

struct netmap_peer *netmap_find(const struct netmap *nm, uint64_t id)
{
	size_t i = peer_place(nm, id);

	return i < nm->n_peers && nm->peers[i].id == id ? &nm->peers[i] : NULL;
}

/* Copies the body in; a peer that is there keeps its presence. */
static void peer_put(struct netmap *nm, const Skerry__V1__NetmapPeer *body)
{
	size_t at = peer_place(nm, body->node_id);
	size_t bytes = protobuf_c_message_get_packed_size(&body->base);
	struct netmap_peer *p;

	if (at < nm->n_peers && nm->peers[at].id == body->node_id) {
		p = &nm->peers[at];
		nm->bytes -= p->bytes;
		peer_done(p);
	} else {
		if (nm->n_peers == nm->cap_peers) {
			nm->cap_peers = nm->cap_peers == 0 ? 16 : nm->cap_peers * 2;
			nm->peers = mem_reallocarray(nm->peers, nm->cap_peers, sizeof(*nm->peers));
		}
		memmove(&nm->peers[at + 1], &nm->peers[at],
			(nm->n_peers - at) * sizeof(*nm->peers));
		nm->n_peers++;
		p = &nm->peers[at];
		*p = (struct netmap_peer){.id = body->node_id};
	}
	p->body = pb_copy(body);
	p->bytes = bytes;
	nm->bytes += bytes;
}

static void peer_del(struct netmap *nm, size_t at)
{
	nm->bytes -= nm->peers[at].bytes;
	peer_done(&nm->peers[at]);
	memmove(&nm->peers[at], &nm->peers[at + 1], (nm->n_peers - at - 1) * sizeof(*nm->peers));
	nm->n_peers--;
}

static void presence_put(struct netmap *nm, const Skerry__V1__PeerPresence *presence)
{
	struct netmap_peer *p = netmap_find(nm, presence->node_id);

	if (p != NULL) {
		p->has_presence = true;
		p->online = presence->online;
		p->last_seen_ms = pb_timestamp_ms(presence->last_seen_time);
	}
}

static void self_put(struct netmap *nm, const Skerry__V1__NetmapSelf *self)
{
	pb_free(nm->self);
	nm->self = pb_copy(self);
}

static void view_put(struct netmap *nm, const Skerry__V1__NetmapView *view)
{
	pb_free(nm->view);
	nm->view = pb_copy(view);
}

/* ---- Full maps --------------------------------------------------------------------------------------------------- */

void netmap_assembly_done(struct netmap_assembly *a)
{
	netmap_done(&a->map);
	a->next = 0;
}

static int chunk_put(struct netmap_assembly *a, const Skerry__V1__NetmapChunk *chunk, struct err *e)
{
	struct netmap *nm = &a->map;

	if (chunk->revision == NULL || chunk->revision->epoch == 0) {
		return err_set(e, ERR_PROTOCOL, "netmap chunk without revision");
	}
	if (chunk->index == 0) {
		netmap_assembly_done(a);
		if (chunk->self == NULL) {
			return err_set(e, ERR_PROTOCOL, "first netmap chunk without self");
		}
		nm->epoch = chunk->revision->epoch;
		nm->revision = chunk->revision->revision;
	} else if (chunk->index != a->next) {
		return err_set(e, ERR_PROTOCOL, "netmap chunk %u where %u was expected",
			       chunk->index, a->next);
	} else if (chunk->revision->epoch != nm->epoch ||
		   chunk->revision->revision != nm->revision) {
		return err_set(e, ERR_PROTOCOL, "netmap chunk %u of another revision",
			       chunk->index);
	}
	if (chunk->index >= LIM_NETMAP_CHUNKS) {
		return err_set(e, ERR_LIMIT, "netmap of more than %d chunks", LIM_NETMAP_CHUNKS);
	}
	if (nm->n_peers + chunk->n_peers > LIM_NETMAP_PEERS) {
		return err_set(e, ERR_LIMIT, "netmap of more than %d peers", LIM_NETMAP_PEERS);
	}
	a->next = chunk->index + 1;
	if (chunk->self != NULL) {
		self_put(nm, chunk->self);
	}
	if (chunk->view != NULL) {
		view_put(nm, chunk->view);
	}
	for (size_t i = 0; i < chunk->n_peers; i++) {
		const Skerry__V1__NetmapPeer *p = chunk->peers[i];

		if (p->node_id == 0) {
			return err_set(e, ERR_PROTOCOL, "netmap peer without id");
		}
		if (netmap_find(nm, p->node_id) != NULL) {
			return err_set(e, ERR_PROTOCOL, "netmap peer %llu twice",
				       (unsigned long long)p->node_id);
		}
		peer_put(nm, p);
		if (nm->bytes > LIM_NETMAP_BYTES) {
			return err_set(e, ERR_LIMIT, "netmap of more than %u bytes",
				       LIM_NETMAP_BYTES);
		}
	}
	for (size_t i = 0; i < chunk->n_presence; i++) {
		presence_put(nm, chunk->presence[i]);
	}
	return chunk->last ? 1 : 0;
}

int netmap_take_chunk(struct netmap_assembly *a, const Skerry__V1__NetmapChunk *chunk,
		      struct err *e)
{
	int ret = chunk_put(a, chunk, e);

	if (ret < 0) {
		netmap_assembly_done(a);
	} else if (ret == 1) {
		a->next = 0;
	}
	return ret;
}

/* ---- Deltas ------------------------------------------------------------------------------------------------------ */

/* Everything that could go wrong, before anything is changed. */
static int delta_check(const struct netmap *nm, const Skerry__V1__NetmapDelta *delta, struct err *e)
{
	size_t bytes = nm->bytes, fresh = 0;

	if (!netmap_held(nm)) {
		return err_set(e, ERR_PROTOCOL, "delta before any netmap");
	}
	if (delta->revision == NULL) {
		return err_set(e, ERR_PROTOCOL, "delta without revision");
	}
	if (delta->revision->epoch != nm->epoch) {
		return err_set(e, ERR_STALE, "delta of another epoch");
	}
	if (delta->revision->revision < nm->revision) {
		return err_set(e, ERR_STALE, "delta to revision %llu below the held %llu",
			       (unsigned long long)delta->revision->revision,
			       (unsigned long long)nm->revision);
	}
	for (size_t i = 0; i < delta->n_peers; i++) {
		if (delta->peers[i]->node_id == 0) {
			return err_set(e, ERR_PROTOCOL, "delta with a peer without id");
		}
		fresh += netmap_find(nm, delta->peers[i]->node_id) == NULL;
		bytes += protobuf_c_message_get_packed_size(&delta->peers[i]->base);
	}
	if (nm->n_peers + fresh > LIM_NETMAP_PEERS) {
		return err_set(e, ERR_LIMIT, "netmap of more than %d peers", LIM_NETMAP_PEERS);
	}
	if (bytes > LIM_NETMAP_BYTES) {
		return err_set(e, ERR_LIMIT, "netmap of more than %u bytes", LIM_NETMAP_BYTES);
	}
	return 0;
}

/* Drops all peers that the complete list does not name. */
static bool keep_visible(struct netmap *nm, const uint64_t *visible, size_t n)
{
	struct map set = {0};
	size_t kept = 0;
	bool dropped;

	for (size_t i = 0; i < n; i++) {
		map_put_u64(&set, visible[i], (void *)visible);
	}
	for (size_t i = 0; i < nm->n_peers; i++) {
		if (map_get_u64(&set, nm->peers[i].id) != NULL) {
			nm->peers[kept++] = nm->peers[i];
		} else {
			nm->bytes -= nm->peers[i].bytes;
			peer_done(&nm->peers[i]);
		}
	}
	map_done(&set);
	dropped = kept != nm->n_peers;
	nm->n_peers = kept;
	return dropped;
}

int netmap_apply_delta(struct netmap *nm, const Skerry__V1__NetmapDelta *delta,
		       unsigned *ret_changes, struct err *e)
{
	unsigned changes = 0;
	int ret = delta_check(nm, delta, e);

	if (ret < 0) {
		return ret;
	}
	if (delta->self != NULL) {
		self_put(nm, delta->self);
		changes |= NETMAP_CHANGE_SELF;
	}
	if (delta->view != NULL) {
		view_put(nm, delta->view);
		changes |= NETMAP_CHANGE_VIEW;
	}
	for (size_t i = 0; i < delta->n_peers; i++) {
		peer_put(nm, delta->peers[i]);
		changes |= NETMAP_CHANGE_PEERS;
	}
	for (size_t i = 0; i < delta->n_removed; i++) {
		size_t at = peer_place(nm, delta->removed[i]);

		if (at < nm->n_peers && nm->peers[at].id == delta->removed[i]) {
			peer_del(nm, at);
			changes |= NETMAP_CHANGE_PEERS;
		}
	}
	if (delta->visible_complete && keep_visible(nm, delta->visible, delta->n_visible)) {
		changes |= NETMAP_CHANGE_PEERS;
	}
	for (size_t i = 0; i < delta->n_presence; i++) {
		presence_put(nm, delta->presence[i]);
		changes |= NETMAP_CHANGE_PRESENCE;
	}
	if (delta->revision->revision != nm->revision) {
		nm->revision = delta->revision->revision;
		changes |= NETMAP_CHANGE_REVISION;
	}
	*ret_changes = changes;
	return 0;
}

/* ---- Canonical form and file ------------------------------------------------------------------------------------- */

void netmap_encode(const struct netmap *nm, bool with_presence, struct buf *out)
{
	Skerry__V1__NetmapChunk chunk = SKERRY__V1__NETMAP_CHUNK__INIT;
	Skerry__V1__Revision revision = SKERRY__V1__REVISION__INIT;
	Skerry__V1__NetmapPeer **peers = mem_calloc(nm->n_peers + 1, sizeof(*peers));
	Skerry__V1__PeerPresence *presence = mem_calloc(nm->n_peers + 1, sizeof(*presence));
	Skerry__V1__PeerPresence **presence_at = mem_calloc(nm->n_peers + 1, sizeof(*presence_at));
	Google__Protobuf__Timestamp *seen = mem_calloc(nm->n_peers + 1, sizeof(*seen));

	revision.epoch = nm->epoch;
	revision.revision = nm->revision;
	chunk.revision = &revision;
	chunk.last = true;
	chunk.self = nm->self;
	chunk.view = nm->view;
	chunk.peers = peers;
	chunk.presence = presence_at;
	for (size_t i = 0; i < nm->n_peers; i++) {
		const struct netmap_peer *p = &nm->peers[i];

		peers[chunk.n_peers++] = p->body;
		if (with_presence && p->has_presence) {
			Skerry__V1__PeerPresence *to = &presence[chunk.n_presence];

			skerry__v1__peer_presence__init(to);
			to->node_id = p->id;
			to->online = p->online;
			if (p->last_seen_ms != 0) {
				to->last_seen_time =
					pb_timestamp_set(&seen[chunk.n_presence], p->last_seen_ms);
			}
			presence_at[chunk.n_presence++] = to;
		}
	}
	pb_pack(&chunk, out);
	mem_free(peers);
	mem_free(presence);
	mem_free(presence_at);
	mem_free(seen);
}

int netmap_decode(const void *data, size_t len, struct netmap *ret, struct err *e)
{
	/* The whole map in one message: more elements than one message from outside may have. */
	static const struct pb_opts opts = {.max_elements = 64u * LIM_NETMAP_PEERS};
	struct netmap_assembly a = {0};
	ProtobufCMessage *msg;
	int r;

	if (len > LIM_NETMAP_BYTES + LIM_NETMAP_CHUNK_BYTES) {
		return err_set(e, ERR_LIMIT, "netmap of more than %u bytes", LIM_NETMAP_BYTES);
	}
	r = pb_decode_heap(&skerry__v1__netmap_chunk__descriptor, data, len, &opts, &msg, e);
	if (r < 0) {
		return r;
	}
	if (((Skerry__V1__NetmapChunk *)msg)->index != 0 ||
	    !((Skerry__V1__NetmapChunk *)msg)->last) {
		pb_free(msg);
		return err_set(e, ERR_PROTOCOL, "not a whole netmap");
	}
	r = netmap_take_chunk(&a, (Skerry__V1__NetmapChunk *)msg, e);
	pb_free(msg);
	if (r < 0) {
		return r;
	}
	netmap_move(ret, &a.map);
	return 0;
}

void netmap_file_encode(const struct netmap *nm, struct buf *out)
{
	struct buf body = BUF_INIT;
	uint8_t sum[CRYPTO_HASH];

	netmap_encode(nm, true, &body);
	crypto_sha256(sum, body.data, body.len);
	buf_append(out, FILE_MAGIC, FILE_MAGIC_LEN);
	buf_u64be(out, body.len);
	buf_append(out, sum, sizeof(sum));
	buf_append(out, body.data, body.len);
	buf_done(&body);
}

int netmap_file_decode(const void *data, size_t len, struct netmap *ret, struct err *e)
{
	struct rd r;
	const uint8_t *magic, *sum, *body;
	uint8_t real[CRYPTO_HASH];
	uint64_t body_len;

	rd_init(&r, data, len);
	magic = rd_bytes(&r, FILE_MAGIC_LEN);
	body_len = rd_u64be(&r);
	sum = rd_bytes(&r, CRYPTO_HASH);
	if (!rd_ok(&r) || memcmp(magic, FILE_MAGIC, FILE_MAGIC_LEN) != 0 ||
	    rd_left(&r) != body_len) {
		return err_set(e, ERR_CORRUPT, "not a whole netmap file");
	}
	body = rd_bytes(&r, body_len);
	crypto_sha256(real, body, body_len);
	if (memcmp(real, sum, sizeof(real)) != 0) {
		return err_set(e, ERR_CORRUPT, "the netmap file's checksum is wrong");
	}
	return netmap_decode(body, body_len, ret, e);
}

int netmap_load(const char *path, struct netmap *ret, struct err *e)
{
	struct buf file = BUF_INIT;
	int r = file_read(path, LIM_NETMAP_BYTES + LIM_NETMAP_CHUNK_BYTES + 64, &file, e);

	if (r >= 0) {
		r = netmap_file_decode(file.data, file.len, ret, e);
		err_prefix(e, "%s", path);
	}
	buf_done(&file);
	return r;
}
