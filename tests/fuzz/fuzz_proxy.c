/* The PROXY header, whole and cut: a prefix must ask for more or agree with the whole. */
/* LIBS: net */
#include <stdlib.h>

#include "base/macros.h"
#include "net/listen_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ipport from = {.port = 0}, again;
	bool local, local_again;
	int n = proxy_parse(data, size, &from, &local);

	POST(n <= 0 || (size_t)n <= size);
	for (size_t i = 0; i < size; i++) {
		int part = proxy_parse(data, i, &again, &local_again);

		POST(part <= 0 || part == n); /* complete only where the whole ends too */
		POST(n <= 0 || part >= 0);    /* no part of a good header is bad */
	}
	return 0;
}
