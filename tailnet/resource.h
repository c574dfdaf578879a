/* Resource names ("tailnets/7/nodes/42", "members/3") and etags. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"

enum resource_kind {
	RESOURCE_TAILNET = 1,    /* tailnets/7 */
	RESOURCE_USER = 2,       /* tailnets/7/users/3 */
	RESOURCE_NODE = 3,       /* tailnets/7/nodes/42 */
	RESOURCE_AUTH_KEY = 4,   /* tailnets/7/authKeys/5 */
	RESOURCE_API_KEY = 5,    /* tailnets/7/apiKeys/9; tailnets/0/apiKeys/9: the system */
	RESOURCE_AUDIT = 6,      /* tailnets/7/auditEntries/12; tailnets/0/...: the system */
	RESOURCE_PENDING = 7,    /* tailnets/7/pending/8 */
	RESOURCE_MEMBER = 8,     /* members/3 */
	RESOURCE_JOIN_TOKEN = 9, /* joinTokens/4 */
};

/* Plain value. For RESOURCE_TAILNET both ids are the tailnet's; for a member the tailnet is 0. */
struct resource {
	enum resource_kind kind;
	uint64_t tailnet, id;
};

enum { RESOURCE_TEXT = 72, ETAG_TEXT = 24 };

/* Returns out. */
const char *resource_format(enum resource_kind kind, uint64_t tailnet, uint64_t id,
			    char out[RESOURCE_TEXT]);
/*
 * Strict. ERR_INVALID with field `field` and a message that shows the expected form; `kind` says which kind is
 * wanted (0: any). A lone decimal number is refused.
 */
MUST_CHECK int resource_parse(const char *name, enum resource_kind kind, const char *field,
			      struct resource *ret, struct err *err);

/* An etag is the revision of the object's last change. Returns out. */
const char *etag_format(uint64_t revision, char out[ETAG_TEXT]);
/* An empty one matches always. */
bool etag_matches(const char *etag, uint64_t revision);
