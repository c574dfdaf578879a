/* LIBS: base
 * Key texts: what is accepted comes back as the same key when it is formatted. */
#include "base/buf.h"
#include "base/err.h"
#include "base/key.h"
#include "base/mem.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = mem_strndup((const char *)data, size);
	struct buf again = BUF_INIT;
	struct err e = {0};
	uint8_t raw[32];
	struct key k, k2;

	if (key_parse(text, &k, &e) == 0) {
		key_format(&k, &again);
		POST(key_parse(buf_str(&again), &k2, &e) == 0);
		POST(memcmp(&k, &k2, sizeof(k)) == 0);
	} else {
		POST(e.code == ERR_INVALID && e.reason[0] != '\0' && e.msg[0] != '\0');
	}
	if (key_public_parse(KEY_NODE_PREFIX, text, raw, &e) == 0) {
		char out[KEY_PUBLIC_TEXT];

		POST(strlen(key_public_format(KEY_NODE_PREFIX, raw, out)) == strlen(text));
	}
	buf_done(&again);
	mem_free(text);
	return 0;
}
