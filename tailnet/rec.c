#include "tailnet/rec_int.h"

#include "base/enc.h"
#include "base/err.h"

static void *rec_alloc(void *arena, size_t size)
{
	return arena_alloc(arena, size);
}

static void rec_free(void *arena UNUSED, void *p UNUSED)
{
}

int rec_unpack(const ProtobufCMessageDescriptor *desc, struct slice value, struct arena *a,
	       void *ret_msg)
{
	ProtobufCAllocator alloc = {rec_alloc, rec_free, a};
	size_t before = a->used;
	ProtobufCMessage *m = protobuf_c_message_unpack(desc, &alloc, value.len, value.data);

	if (m == NULL) {
		/* Out of budget or malformed: the library does not say which. A record takes at most
		 * sixteen times its length, so with that much left it was malformed. */
		return a->budget - before > 16 * value.len + 65536 ? ERR_CORRUPT : ERR_LIMIT;
	}
	*(void **)ret_msg = m;
	return 0;
}

int rec_get(const struct kv *kv, struct slice key, const ProtobufCMessageDescriptor *desc,
	    struct arena *a, void *ret_msg)
{
	struct slice v;
	int r = kv_get(kv, key, &v);

	return r < 0 ? r : rec_unpack(desc, v, a, ret_msg);
}

int rec_index(const struct kv *kv, struct slice key, uint64_t *ret_tailnet, uint64_t *ret_id)
{
	struct slice v;
	int r = kv_get(kv, key, &v);

	if (r < 0) {
		return r;
	}
	if (v.len != 16) {
		return ERR_CORRUPT;
	}
	*ret_tailnet = be_get64(v.data);
	*ret_id = be_get64((const uint8_t *)v.data + 8);
	return 0;
}
