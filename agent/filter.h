/* The packet filter's place. In this version there is none: every peer may send everything. */
#pragma once

#include "base/err.h"
#include "base/macros.h"

struct admitted;

/* Brings the host's filter in line with what was admitted. Today: nothing to do, 0. */
MUST_CHECK int filter_apply(const struct admitted *admitted, struct err *e);
/* For status: "none". */
const char *filter_text(void);
