#include "tailnet/resource.h"

#include <stdio.h>
#include <string.h>

#include "base/limits.h"

static const struct {
	enum resource_kind kind;
	const char *collection;
	bool in_tailnet;
	const char *form;
} kinds[] = {
	{RESOURCE_TAILNET, "tailnets", false, "tailnets/<id>"},
	{RESOURCE_USER, "users", true, "tailnets/<id>/users/<id>"},
	{RESOURCE_NODE, "nodes", true, "tailnets/<id>/nodes/<id>"},
	{RESOURCE_AUTH_KEY, "authKeys", true, "tailnets/<id>/authKeys/<id>"},
	{RESOURCE_API_KEY, "apiKeys", true, "tailnets/<id>/apiKeys/<id>"},
	{RESOURCE_AUDIT, "auditEntries", true, "tailnets/<id>/auditEntries/<number>"},
	{RESOURCE_PENDING, "pending", true, "tailnets/<id>/pending/<id>"},
	{RESOURCE_MEMBER, "members", false, "members/<id>"},
	{RESOURCE_JOIN_TOKEN, "joinTokens", false, "joinTokens/<id>"},
};

static char *put_text(char *at, const char *text)
{
	size_t len = strlen(text);

	memcpy(at, text, len);
	return at + len;
}

static char *put_number(char *at, uint64_t v)
{
	char digits[20];
	size_t n = 0;

	do {
		digits[n++] = (char)('0' + v % 10);
	} while ((v /= 10) > 0);
	while (n > 0) {
		*at++ = digits[--n];
	}
	return at;
}

/* Names stand in each answer and each line of an audit chain: not a matter for snprintf(). */
const char *resource_format(enum resource_kind kind, uint64_t tailnet, uint64_t id,
			    char out[RESOURCE_TEXT])
{
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (kinds[i].kind == kind) {
			char *at = out;

			if (kinds[i].in_tailnet) {
				at = put_text(at, "tailnets/");
				at = put_number(at, tailnet);
				*at++ = '/';
			}
			at = put_text(at, kinds[i].collection);
			*at++ = '/';
			at = put_number(at, id);
			*at = '\0';
			return out;
		}
	}
	IMPOSSIBLE("kind of resource");
}

/* "<collection>/<number>" up to a slash or the end; false if it does not read so. */
static bool take(const char **at, const char *collection, uint64_t *ret)
{
	size_t len = strlen(collection);
	const char *p = *at;
	uint64_t v = 0;
	int digits = 0;

	if (strncmp(p, collection, len) != 0 || p[len] != '/') {
		return false;
	}
	p += len + 1;
	if (p[0] == '0' && p[1] >= '0' && p[1] <= '9') {
		return false;
	}
	for (; *p >= '0' && *p <= '9'; p++) {
		if (v > (UINT64_MAX >> 1) / 10 - 1) {
			return false;
		}
		v = v * 10 + (uint64_t)(*p - '0');
		digits++;
	}
	if (digits == 0) {
		return false;
	}
	*ret = v;
	*at = p;
	return true;
}

static bool parse(const char *name, struct resource *ret)
{
	const char *p = name;
	uint64_t tailnet, id;

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		p = name;
		if (kinds[i].in_tailnet) {
			if (take(&p, "tailnets", &tailnet) && *p == '/') {
				p++;
				if (take(&p, kinds[i].collection, &id) && *p == '\0') {
					*ret = (struct resource){kinds[i].kind, tailnet, id};
					return true;
				}
			}
		} else if (take(&p, kinds[i].collection, &id) && *p == '\0') {
			*ret = (struct resource){kinds[i].kind,
						 kinds[i].kind == RESOURCE_TAILNET ? id : 0, id};
			return true;
		}
	}
	return false;
}

int resource_parse(const char *name, enum resource_kind kind, const char *field,
		   struct resource *ret, struct err *err)
{
	const char *form = "tailnets/<id>/nodes/<id>";
	struct resource r;

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (kinds[i].kind == kind) {
			form = kinds[i].form;
		}
	}
	if (name[0] == '\0') {
		return err_field(err, ERR_INVALID, field, "%s is empty; its form is %s", field,
				 form);
	}
	if (!parse(name, &r) || (kind != 0 && r.kind != kind)) {
		return err_field(err, ERR_INVALID, field,
				 "\"%.80s\" is not the name of such a resource; its form is %s",
				 name, form);
	}
	*ret = r;
	return 0;
}

const char *etag_format(uint64_t revision, char out[ETAG_TEXT])
{
	*put_number(out, revision) = '\0';
	return out;
}

bool etag_matches(const char *etag, uint64_t revision)
{
	char text[ETAG_TEXT];

	return etag == NULL || etag[0] == '\0' || strcmp(etag, etag_format(revision, text)) == 0;
}
