/* Encoding of log entries; see entry.h for the layout. */
#include "cluster/entry.h"

#include <string.h>

#include "base/crypto.h"
#include "base/enc.h"
#include "base/limits.h"

static const uint8_t magic[4] = {'S', 'K', 'E', '1'};

enum {
	AT_FORMAT = 4,
	AT_FLAGS = 6,
	AT_LEVEL = 8,
	AT_COUNT = 12,
	AT_CLUSTER = 16,
	AT_EPOCH = 24,
	AT_TIME = 32,
	AT_BODY = 40,
	AT_ZERO = 44,
	AT_SUM = 48,
	SUM_LEN = 16
};

static size_t pad8(size_t n)
{
	return (n + 7) & ~(size_t)7;
}

size_t entry_size(size_t count, size_t bytes)
{
	return pad8(ENTRY_HEADER + count * ENTRY_COMMAND_HEADER + bytes);
}

static void checksum(const uint8_t *data, size_t body, uint8_t out[SUM_LEN])
{
	static const uint8_t zero[SUM_LEN];
	uint8_t hash[CRYPTO_HASH];
	struct crypto_iov iov[] = {
		{data, AT_SUM},
		{zero, SUM_LEN},
		{data + ENTRY_HEADER, body},
	};

	crypto_blake2bv(hash, iov, ARRAY_LEN(iov));
	memcpy(out, hash, SUM_LEN);
}

void entry_begin(struct entry_writer *w, void *data, size_t size)
{
	PRE(size >= ENTRY_HEADER && size % 8 == 0);
	w->data = data;
	w->size = size;
	w->pos = ENTRY_HEADER;
	w->count = 0;
}

void entry_add(struct entry_writer *w, const void *command, size_t len)
{
	PRE(w->pos + ENTRY_COMMAND_HEADER + len <= w->size && len <= UINT32_MAX);
	be_put32(w->data + w->pos, (uint32_t)len);
	memcpy(w->data + w->pos + ENTRY_COMMAND_HEADER, command, len);
	w->pos += ENTRY_COMMAND_HEADER + len;
	w->count++;
}

void entry_seal(struct entry_writer *w, const struct entry_header *h)
{
	size_t body = w->pos - ENTRY_HEADER;
	uint8_t *d = w->data;

	PRE(pad8(w->pos) == w->size);
	memset(d + w->pos, 0, w->size - w->pos);
	memcpy(d, magic, sizeof(magic));
	be_put16(d + AT_FORMAT, ENTRY_FORMAT);
	be_put16(d + AT_FLAGS, h->flags);
	be_put32(d + AT_LEVEL, h->feature_level);
	be_put32(d + AT_COUNT, w->count);
	be_put64(d + AT_CLUSTER, h->cluster_id);
	be_put64(d + AT_EPOCH, h->epoch);
	be_put64(d + AT_TIME, h->time_ms);
	be_put32(d + AT_BODY, (uint32_t)body);
	be_put32(d + AT_ZERO, 0);
	checksum(d, body, d + AT_SUM);
}

int entry_open(struct entry_reader *r, const void *data, size_t len, struct err *err)
{
	const uint8_t *d = data;
	uint8_t sum[SUM_LEN];
	size_t body, at;

	if (len < ENTRY_HEADER || len % 8 != 0) {
		return err_set(err, ERR_CORRUPT,
			       "log entry of %zu bytes is cut: its header alone has %d", len,
			       ENTRY_HEADER);
	}
	if (memcmp(d, magic, sizeof(magic)) != 0) {
		return err_set(err, ERR_CORRUPT, "log entry does not begin with SKE1");
	}
	if (be_get16(d + AT_FORMAT) != ENTRY_FORMAT) {
		return err_set(
			err, ERR_UNIMPLEMENTED,
			"log entry has format %u, this build reads %d: install the newer build",
			be_get16(d + AT_FORMAT), ENTRY_FORMAT);
	}
	body = be_get32(d + AT_BODY);
	if (pad8(ENTRY_HEADER + body) != len) {
		return err_set(err, ERR_CORRUPT, "log entry of %zu bytes says its body has %zu",
			       len, body);
	}
	checksum(d, body, sum);
	if (memcmp(sum, d + AT_SUM, SUM_LEN) != 0) {
		return err_set(err, ERR_CORRUPT, "checksum of the log entry is wrong");
	}
	for (size_t i = ENTRY_HEADER + body; i < len; i++) {
		if (d[i] != 0) {
			return err_set(err, ERR_CORRUPT, "padding of the log entry is not zero");
		}
	}
	if ((be_get16(d + AT_FLAGS) & ~ENTRY_FLAGS_KNOWN) != 0 || be_get32(d + AT_ZERO) != 0) {
		return err_set(
			err, ERR_UNIMPLEMENTED,
			"log entry has flags 0x%x that this build does not know: install the newer "
			"build",
			be_get16(d + AT_FLAGS));
	}
	r->header = (struct entry_header){
		.flags = be_get16(d + AT_FLAGS),
		.feature_level = be_get32(d + AT_LEVEL),
		.count = be_get32(d + AT_COUNT),
		.cluster_id = be_get64(d + AT_CLUSTER),
		.epoch = be_get64(d + AT_EPOCH),
		.time_ms = be_get64(d + AT_TIME),
	};
	at = 0;
	for (uint32_t i = 0; i < r->header.count; i++) {
		if (body - at < ENTRY_COMMAND_HEADER ||
		    be_get32(d + ENTRY_HEADER + at) > body - at - ENTRY_COMMAND_HEADER) {
			return err_set(err, ERR_CORRUPT, "command %u of the log entry is cut", i);
		}
		at += ENTRY_COMMAND_HEADER + be_get32(d + ENTRY_HEADER + at);
	}
	if (at != body) {
		return err_set(err, ERR_CORRUPT, "log entry has %zu bytes after its last command",
			       body - at);
	}
	r->pos = d + ENTRY_HEADER;
	r->end = r->pos + body;
	r->left = r->header.count;
	return 0;
}

bool entry_next(struct entry_reader *r, const uint8_t **ret_command, size_t *ret_len)
{
	size_t len;

	if (r->left == 0) {
		return false;
	}
	len = be_get32(r->pos);
	*ret_command = r->pos + ENTRY_COMMAND_HEADER;
	*ret_len = len;
	r->pos += ENTRY_COMMAND_HEADER + len;
	r->left--;
	return true;
}
