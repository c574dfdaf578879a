#include "base/macros.h"

#include <stdio.h>
#include <stdlib.h>

void macros_abort(const char *file, int line, const char *what, const char *text)
{
	fprintf(stderr, "%s:%d: %s: %s\n", file, line, what, text);
	fflush(stderr);
	abort();
}
