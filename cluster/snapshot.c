/* Snapshots: see snapshot.h for the layout. */
#include "cluster/snapshot.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/uio.h>

#include "base/buf.h"
#include "base/crypto.h"
#include "base/enc.h"
#include "base/mem.h"
#include "cluster/store.h"
#include "tailnet/tailnet.h"

static const uint8_t magic[8] = SNAPSHOT_MAGIC;

enum {
	AT_FORMAT = 8,
	AT_LEVEL = 12,
	AT_CLUSTER = 16,
	AT_EPOCH = 24,
	AT_REVISION = 32,
	AT_INDEX = 40,
	AT_TERM = 48,
	AT_COUNT = 56,
	AT_BODY = 64,
	AT_HASH = 72,
	RECORD_HEADER = 8,
	KEY_MAX = 400,
	VALUE_MAX = 1 << 20,
	BLOCK = 1 << 20,
	SMALL = 64, /* a record up to this length is copied: cheaper than a piece of its own */
	LOOK_EVERY = 1024,       /* records, between looks whether it is still wanted */
	WRITE_PIECES = 1024,     /* IOV_MAX of Linux */
	FILL_PORTION = 16 << 20, /* of a transaction that fills a store */
};

static const uint8_t zero_hash[CRYPTO_HASH];

/* What is not in the store: lengths, and records that are copied. A record is in one block. */
struct snapshot_block {
	struct snapshot_block *next;
	size_t len, size;
	uint8_t data[];
};

struct maker {
	struct snapshot s;
	size_t capacity;
};

static void piece_add(struct maker *m, const void *data, size_t len)
{
	struct snapshot *s = &m->s;

	s->bytes += len;
	if (s->n > 0 && (const uint8_t *)s->piece[s->n - 1].data + s->piece[s->n - 1].len == data) {
		s->piece[s->n - 1].len += len;
		return;
	}
	if (s->n == m->capacity) {
		m->capacity = MAX(2 * m->capacity, 1024u);
		s->piece = mem_reallocarray(s->piece, m->capacity, sizeof(*s->piece));
	}
	s->piece[s->n++] = (struct snapshot_piece){data, len};
}

/* Room in the newest block; what is copied one after the other is one piece. */
static uint8_t *room(struct maker *m, size_t len)
{
	struct snapshot_block *b = m->s.blocks;

	if (b == NULL || b->size - b->len < len) {
		size_t size = MAX(len, (size_t)BLOCK);

		b = mem_alloc(sizeof(*b) + size);
		b->next = m->s.blocks;
		b->len = 0;
		b->size = size;
		m->s.blocks = b;
	}
	b->len += len;
	return b->data + b->len - len;
}

static void record_add(struct maker *m, struct slice key, struct slice value)
{
	bool small = m->s.copied || key.len + value.len <= SMALL;
	size_t copied = RECORD_HEADER + (small ? key.len + value.len : 0);
	uint8_t *d = room(m, copied);

	be_put32(d, (uint32_t)key.len);
	be_put32(d + 4, (uint32_t)value.len);
	if (small) {
		memcpy(d + RECORD_HEADER, key.data, key.len);
		memcpy(d + RECORD_HEADER + key.len, value.data, value.len);
	}
	piece_add(m, d, copied);
	if (!small) {
		piece_add(m, key.data, key.len);
		piece_add(m, value.data, value.len);
	}
}

static void header_put(uint8_t *d, const struct snapshot_header *h)
{
	memcpy(d, magic, sizeof(magic));
	be_put32(d + AT_FORMAT, SNAPSHOT_FORMAT);
	be_put32(d + AT_LEVEL, h->feature_level);
	be_put64(d + AT_CLUSTER, h->cluster_id);
	be_put64(d + AT_EPOCH, h->epoch);
	be_put64(d + AT_REVISION, h->revision);
	be_put64(d + AT_INDEX, h->applied_index);
	be_put64(d + AT_TERM, h->term);
	be_put64(d + AT_COUNT, h->count);
	be_put64(d + AT_BODY, h->body);
	memcpy(d + AT_HASH, zero_hash, sizeof(zero_hash));
}

static bool cancelled(const struct snapshot_options *o)
{
	return o->cancel != NULL && atomic_load(o->cancel);
}

static int not_wanted(struct err *err)
{
	return err_set(err, ERR_CANCELLED, "snapshot: not wanted any more");
}

int snapshot_gather(const struct kv *kv, const struct snapshot_header *h,
		    const struct snapshot_options *o, struct snapshot *ret, struct err *err)
{
	struct snapshot_header head = *h;
	struct maker m = {.s.copied = o->copy};
	struct slice key = {"", 0}, value;
	int r;

	head.count = 0;
	head.body = 0;
	m.s.header = mem_zalloc(SNAPSHOT_HEADER);
	piece_add(&m, m.s.header, SNAPSHOT_HEADER);
	r = kv_seek(kv, key, &key, &value);
	while (r == 0) {
		if (head.count % LOOK_EVERY == 0 && cancelled(o)) {
			snapshot_done(&m.s);
			return not_wanted(err);
		}
		if (o->walk != NULL && !o->copy) {
			r = tailnet_scrub_record(o->walk, key, value, err);
			if (r != 0) {
				snapshot_done(&m.s);
				return r;
			}
		}
		record_add(&m, key, value);
		head.count++;
		head.body += RECORD_HEADER + key.len + value.len;
		r = kv_next(kv, key, &key, &value);
	}
	if (r != ERR_NOT_FOUND) {
		snapshot_done(&m.s);
		return err_set(err, r, "snapshot: the store cannot be read");
	}
	m.s.records = head.count;
	header_put(m.s.header, &head);
	*ret = m.s;
	return 0;
}

/* The records of a piece that holds whole ones, as the copies do. */
static int piece_walk(const struct snapshot_piece *p, struct tailnet_scrub *walk, struct err *err)
{
	const uint8_t *d = p->data, *end = d + p->len;
	int r = 0;

	while (r == 0 && d < end) {
		struct slice key = {d + RECORD_HEADER, be_get32(d)};
		struct slice value = {d + RECORD_HEADER + key.len, be_get32(d + 4)};

		r = tailnet_scrub_record(walk, key, value, err);
		d += RECORD_HEADER + key.len + value.len;
	}
	return r;
}

int snapshot_seal(struct snapshot *s, const struct snapshot_options *o, struct err *err)
{
	struct crypto_blake2b hash;
	size_t since = 0;
	int r = 0;

	crypto_blake2b_begin(&hash);
	for (size_t i = 0; r == 0 && i < s->n; i++) {
		/* The first piece is the header, with a zero hash. */
		if (i > 0 && s->copied && o->walk != NULL) {
			r = piece_walk(&s->piece[i], o->walk, err);
		}
		crypto_blake2b_add(&hash, s->piece[i].data, s->piece[i].len);
		since += s->piece[i].len;
		if (r == 0 && since >= BLOCK) {
			since = 0;
			r = cancelled(o) ? not_wanted(err) : 0;
		}
	}
	if (r != 0) {
		snapshot_done(s);
		return r;
	}
	crypto_blake2b_end(&hash, s->header + AT_HASH);
	return 0;
}

int snapshot_make(const struct kv *kv, const struct snapshot_header *h, const atomic_bool *cancel,
		  struct snapshot *ret, struct err *err)
{
	struct snapshot_options o = {.cancel = cancel};
	struct snapshot s;
	int r = snapshot_gather(kv, h, &o, &s, err);

	if (r == 0) {
		r = snapshot_seal(&s, &o, err);
	}
	if (r == 0) {
		*ret = s;
	}
	return r;
}

void snapshot_done(struct snapshot *s)
{
	if (s == NULL) {
		return;
	}
	while (s->blocks != NULL) {
		struct snapshot_block *next = s->blocks->next;

		mem_free(s->blocks);
		s->blocks = next;
	}
	mem_free(s->piece);
	mem_free(s->header);
	*s = (struct snapshot){0};
}

int snapshot_write(const struct snapshot *s, int fd, struct err *err)
{
	size_t i = 0, skip = 0; /* of piece i */

	while (i < s->n) {
		struct iovec iov[WRITE_PIECES];
		size_t n = MIN(s->n - i, (size_t)WRITE_PIECES);
		ssize_t w;

		for (size_t j = 0; j < n; j++) {
			const struct snapshot_piece *p = &s->piece[i + j];

			iov[j].iov_base = (uint8_t *)(uintptr_t)p->data + (j == 0 ? skip : 0);
			iov[j].iov_len = p->len - (j == 0 ? skip : 0);
		}
		do {
			w = writev(fd, iov, (int)n);
		} while (w < 0 && errno == EINTR);
		if (w < 0) {
			return err_errno(err, "writing the snapshot");
		}
		for (size_t j = 0; j < n && (size_t)w >= iov[j].iov_len; j++) {
			w -= (ssize_t)iov[j].iov_len;
			i++;
			skip = 0;
		}
		skip += (size_t)w;
	}
	return 0;
}

uint8_t *snapshot_join(const struct snapshot *s, size_t *ret_len)
{
	uint8_t *d = mem_alloc(s->bytes);
	size_t at = 0;

	for (size_t i = 0; i < s->n; i++) {
		memcpy(d + at, s->piece[i].data, s->piece[i].len);
		at += s->piece[i].len;
	}
	*ret_len = at;
	return d;
}

int snapshot_peek(const void *data, size_t len, struct snapshot_header *ret, struct err *err)
{
	const uint8_t *d = data;

	if (len < SNAPSHOT_HEADER || memcmp(d, magic, sizeof(magic)) != 0) {
		return err_set(err, ERR_CORRUPT,
			       "snapshot of %zu bytes does not begin with SKRYSNAP", len);
	}
	if (be_get32(d + AT_FORMAT) != SNAPSHOT_FORMAT) {
		return err_set(
			err, ERR_UNIMPLEMENTED,
			"snapshot has format %u, this build reads %d: install the newer build",
			be_get32(d + AT_FORMAT), SNAPSHOT_FORMAT);
	}
	if (be_get64(d + AT_BODY) != len - SNAPSHOT_HEADER) {
		return err_set(err, ERR_CORRUPT, "snapshot of %zu bytes is cut", len);
	}
	*ret = (struct snapshot_header){
		.feature_level = be_get32(d + AT_LEVEL),
		.cluster_id = be_get64(d + AT_CLUSTER),
		.epoch = be_get64(d + AT_EPOCH),
		.revision = be_get64(d + AT_REVISION),
		.applied_index = be_get64(d + AT_INDEX),
		.term = be_get64(d + AT_TERM),
		.count = be_get64(d + AT_COUNT),
		.body = be_get64(d + AT_BODY),
	};
	return 0;
}

/* The next record at *pos; false when it is cut, too long or not above the one before. */
static bool record(const uint8_t **pos, const uint8_t *end, struct slice *key, struct slice *value)
{
	struct slice before = *key;
	size_t klen, vlen;
	int c;

	if (end - *pos < RECORD_HEADER) {
		return false;
	}
	klen = be_get32(*pos);
	vlen = be_get32(*pos + 4);
	if (klen == 0 || klen > KEY_MAX || vlen > VALUE_MAX ||
	    klen + vlen > (size_t)(end - *pos) - RECORD_HEADER) {
		return false;
	}
	*key = (struct slice){*pos + RECORD_HEADER, klen};
	*value = (struct slice){*pos + RECORD_HEADER + klen, vlen};
	*pos += RECORD_HEADER + klen + vlen;
	c = memcmp(before.data, key->data, MIN(before.len, key->len));
	return c < 0 || (c == 0 && before.len < key->len);
}

int snapshot_open(const void *data, size_t len, struct snapshot_header *ret, struct err *err)
{
	const uint8_t *d = data, *pos, *end;
	struct slice key = {"", 0}, value;
	uint8_t hash[CRYPTO_HASH];
	struct crypto_iov iov[3];
	int r = snapshot_peek(data, len, ret, err);

	if (r != 0) {
		return r;
	}
	iov[0] = (struct crypto_iov){d, AT_HASH};
	iov[1] = (struct crypto_iov){zero_hash, sizeof(zero_hash)};
	iov[2] = (struct crypto_iov){d + SNAPSHOT_HEADER, len - SNAPSHOT_HEADER};
	crypto_blake2bv(hash, iov, ARRAY_LEN(iov));
	if (memcmp(hash, d + AT_HASH, sizeof(hash)) != 0) {
		return err_set(err, ERR_CORRUPT, "hash of the snapshot is wrong: it was changed");
	}
	pos = d + SNAPSHOT_HEADER;
	end = d + len;
	for (uint64_t i = 0; i < ret->count; i++) {
		if (!record(&pos, end, &key, &value)) {
			return err_set(err, ERR_CORRUPT, "record %llu of the snapshot is malformed",
				       (unsigned long long)i);
		}
	}
	if (pos != end) {
		return err_set(err, ERR_CORRUPT, "snapshot has bytes after its last record");
	}
	return 0;
}

int snapshot_load(const void *data, size_t len, const struct kv *kv, struct err *err)
{
	const uint8_t *pos = (const uint8_t *)data + SNAPSHOT_HEADER;
	const uint8_t *end = (const uint8_t *)data + len;
	struct slice key = {"", 0}, value;

	while (pos < end) {
		int r;

		if (!record(&pos, end, &key, &value)) {
			return err_set(err, ERR_CORRUPT, "snapshot is malformed");
		}
		r = kv_put(kv, key, value);
		if (r != 0) {
			return err_set(err, r, "snapshot: the store took no record");
		}
	}
	return 0;
}

int snapshot_fill(const void *data, size_t len, struct store *store, struct err *err)
{
	const uint8_t *pos = (const uint8_t *)data + SNAPSHOT_HEADER;
	const uint8_t *end = (const uint8_t *)data + len, *portion = pos;
	struct slice key = {"", 0}, value;
	struct store_read *read;
	struct snapshot_header h;
	int r = snapshot_peek(data, len, &h, err);

	while (r == 0 && pos < end) {
		if (!record(&pos, end, &key, &value)) {
			r = err_set(err, ERR_CORRUPT, "snapshot is malformed");
		} else {
			r = store_append(store, key, value, err);
		}
		if (r == 0 && pos - portion >= FILL_PORTION) {
			portion = pos;
			r = store_commit(store, err);
		}
	}
	if (r == 0) {
		r = store_set_applied(store, h.applied_index, err);
	}
	if (r == 0) {
		r = store_commit(store, err);
	}
	if (r != 0) {
		store_abort(store);
		return r;
	}
	r = store_read_begin(store, "fill", &read, err);
	if (r == 0) {
		r = h.epoch != 0 ? tailnet_check(store_read_kv(read), err) : 0;
		store_read_end(read);
	}
	return r;
}
