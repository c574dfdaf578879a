/* The digest computed anew, in portions; see tailnet.h. */
#include <string.h>

#include "base/macros.h"
#include "tailnet/keys.h"
#include "tailnet/query.h"
#include "tailnet/state_int.h"

_Static_assert(sizeof(((struct tailnet_scrub *)0)->at) >= SKEY_MAX, "a key fits");

int tailnet_scrub_compare(const struct tailnet_scrub *s, const uint8_t digest[32], struct err *err)
{
	return memcmp(digest, s->sum, 32) == 0
		       ? 0
		       : err_set(err, ERR_CORRUPT, "the digest is not the sum of the %llu records",
				 (unsigned long long)s->records);
}

int tailnet_scrub_record(struct tailnet_scrub *s, struct slice key, struct slice value,
			 struct err *err)
{
	uint8_t table = skey_table(key);

	if (key.len > SKEY_MAX || !table_known(table)) {
		return err_set(err, ERR_CORRUPT, "a key of %zu bytes in the table 0x%02x", key.len,
			       table);
	}
	/* Also what keeps damaged pages from leading round in circles. */
	if (slice_cmp((struct slice){s->at, s->at_len}, key) >= 0) {
		return err_set(err, ERR_CORRUPT, "the keys of the table %s do not rise",
			       table_name(table));
	}
	memcpy(s->at, key.data, key.len);
	s->at_len = key.len;
	if (table_primary(table)) {
		digest_add(s->sum, key, value);
		s->records++;
	}
	return 0;
}

static int finish(const struct kv *kv, const struct tailnet_scrub *s, struct err *err)
{
	struct arena arena;
	Meta *meta;
	int r;

	arena_init(&arena, 64 << 10);
	r = query_meta(kv, &arena, &meta);
	if (r == ERR_NOT_FOUND && s->records == 0) {
		r = 0; /* no state yet */
	} else if (r < 0) {
		r = err_set(err, ERR_CORRUPT, "the record of the state itself cannot be read: %s",
			    err_text(r));
	} else {
		static const uint8_t none[32];

		r = tailnet_scrub_compare(s, meta->digest.len == 32 ? meta->digest.data : none,
					  err);
	}
	arena_done(&arena);
	return r;
}

int tailnet_scrub_step(const struct kv *kv, struct tailnet_scrub *s, size_t max_records,
		       bool *ret_done, struct err *err)
{
	struct slice key = {s->at, s->at_len}, value;
	int r = kv_next(kv, key, &key, &value);

	for (size_t i = 0; r == 0; i++) {
		r = tailnet_scrub_record(s, key, value, err);
		if (r != 0) {
			return r;
		}
		if (i + 1 >= max_records) {
			*ret_done = false;
			return 0;
		}
		r = kv_next(kv, key, &key, &value);
	}
	if (r != ERR_NOT_FOUND) {
		return err_set(err, r, "the store cannot be read: %s", err_text(r));
	}
	*ret_done = true;
	return finish(kv, s, err);
}
