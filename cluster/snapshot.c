/* Snapshots: see snapshot.h for the layout. */
#include "cluster/snapshot.h"

#include <string.h>

#include "base/buf.h"
#include "base/crypto.h"
#include "base/enc.h"
#include "base/mem.h"

static const uint8_t magic[8] = {'S', 'K', 'R', 'Y', 'S', 'N', 'A', 'P'};

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
	CHUNK = 8 << 20
};

static const uint8_t zero_hash[CRYPTO_HASH];

static void chunk_take(struct snapshot *s, struct buf *b)
{
	size_t len;

	if (b->len == 0) {
		return;
	}
	s->chunk = mem_reallocarray(s->chunk, s->n + 1, sizeof(*s->chunk));
	s->bytes += b->len;
	s->chunk[s->n].data = buf_take(b, &len);
	s->chunk[s->n].len = len;
	s->n++;
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

static void hash_pieces(const struct snapshot *s, uint8_t out[CRYPTO_HASH])
{
	struct crypto_iov *iov = mem_calloc(s->n, sizeof(*iov));

	for (size_t i = 0; i < s->n; i++) {
		iov[i] = (struct crypto_iov){s->chunk[i].data, s->chunk[i].len};
	}
	crypto_blake2bv(out, iov, s->n);
	mem_free(iov);
}

int snapshot_make(const struct kv *kv, const struct snapshot_header *h, struct snapshot *ret,
		  struct err *err)
{
	struct snapshot_header head = *h;
	struct snapshot s = {0};
	struct buf b = BUF_INIT;
	struct slice key = {"", 0}, value;
	int r;

	head.count = 0;
	head.body = 0;
	memset(buf_reserve(&b, SNAPSHOT_HEADER), 0, SNAPSHOT_HEADER);
	b.len += SNAPSHOT_HEADER;
	r = kv_seek(kv, key, &key, &value);
	while (r == 0) {
		buf_u32be(&b, (uint32_t)key.len);
		buf_u32be(&b, (uint32_t)value.len);
		buf_append(&b, key.data, key.len);
		buf_append(&b, value.data, value.len);
		head.count++;
		head.body += RECORD_HEADER + key.len + value.len;
		if (b.len >= CHUNK) {
			chunk_take(&s, &b);
		}
		r = kv_next(kv, key, &key, &value);
	}
	chunk_take(&s, &b);
	buf_done(&b);
	if (r != ERR_NOT_FOUND) {
		snapshot_done(&s);
		return err_set(err, r, "snapshot: the store cannot be read");
	}
	s.records = head.count;
	header_put(s.chunk[0].data, &head);
	{
		uint8_t hash[CRYPTO_HASH];

		hash_pieces(&s, hash);
		memcpy(s.chunk[0].data + AT_HASH, hash, sizeof(hash));
	}
	*ret = s;
	return 0;
}

void snapshot_done(struct snapshot *s)
{
	if (s == NULL) {
		return;
	}
	for (size_t i = 0; i < s->n; i++) {
		mem_free(s->chunk[i].data);
	}
	mem_free(s->chunk);
	*s = (struct snapshot){0};
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
