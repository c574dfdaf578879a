/* LIBS: base
 * JSON: what is read can be written, and reads back to the same text. */
#include "base/buf.h"
#include "base/err.h"
#include "base/jsonx.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf one = BUF_INIT;
	struct buf two = BUF_INIT;
	struct jsonx *v = NULL;
	struct err e = {0};

	if (jsonx_parse((const char *)data, size, "f", &v, &e) < 0) {
		POST(e.field[0] == 'f' && e.msg[0] != '\0');
		return 0;
	}
	jsonx_dump(v, true, &one);
	jsonx_free(v);
	POST(jsonx_parse((char *)one.data, one.len, "f", &v, &e) == 0);
	jsonx_dump(v, true, &two);
	jsonx_free(v);
	POST(one.len == two.len && memcmp(one.data, two.data, one.len) == 0);
	buf_done(&one);
	buf_done(&two);
	return 0;
}
