#include "base/name.h"

#include "base/err.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Locale-free, one byte at a time. */
static bool is_lower_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

static int bad_char(struct err *e, const char *label, size_t len, size_t at)
{
	char c = label[at];

	if (c >= 'A' && c <= 'Z') {
		return err_set(e, ERR_INVALID, "label \"%.*s\": capital letter at position %zu",
			       (int)len, label, at + 1);
	}
	if (c <= 0x20 || c >= 0x7f) {
		return err_set(e, ERR_INVALID,
			       "label: byte 0x%02x at position %zu; only a-z, 0-9 and - may occur",
			       (unsigned char)c, at + 1);
	}
	return err_set(e, ERR_INVALID,
		       "label \"%.*s\": '%c' at position %zu; only a-z, 0-9 and - may occur",
		       (int)(at + 1), label, c, at + 1);
}

static int check_label(const char *label, size_t len, bool underscore, struct err *e)
{
	size_t i = 0;

	if (len == 0) {
		return err_set(e, ERR_INVALID, "a label is empty");
	}
	if (len > NAME_LABEL_MAX) {
		return err_set(e, ERR_INVALID, "a label has %zu characters, at most %d may be", len,
			       NAME_LABEL_MAX);
	}
	if (underscore && label[0] == '_' && len > 1) {
		i = 1;
	}
	for (size_t at = i; at < len; at++) {
		if (!is_lower_alnum(label[at]) && label[at] != '-') {
			return bad_char(e, label, len, at);
		}
	}
	if (label[i] == '-' || label[len - 1] == '-') {
		return err_set(e, ERR_INVALID, "label \"%.*s\": a hyphen may not begin or end it",
			       (int)len, label);
	}
	return 0;
}

int name_valid_label(const char *label, size_t len, struct err *e)
{
	return check_label(label, len, false, e);
}

static int check_domain(const char *domain, bool record, struct err *e)
{
	size_t len = strnlen(domain, NAME_DOMAIN_MAX + 1);
	const char *p = domain;
	const char *dot;
	int rv;

	if (len == 0) {
		return err_set(e, ERR_INVALID, "the domain is empty");
	}
	if (len > NAME_DOMAIN_MAX) {
		return err_set(e, ERR_INVALID, "the domain is longer than %d characters",
			       NAME_DOMAIN_MAX);
	}
	do {
		dot = strchr(p, '.');
		rv = check_label(p, dot != NULL ? (size_t)(dot - p) : strlen(p), record, e);
		if (rv < 0) {
			err_prefix(e, "domain \"%.100s\"", domain);
			return rv;
		}
		if (dot != NULL) {
			p = dot + 1;
		}
	} while (dot != NULL);
	if (strspn(p, "0123456789") == strlen(p)) {
		return err_set(e, ERR_INVALID,
			       "domain \"%.100s\": the last label is a number, as in an address",
			       domain);
	}
	return 0;
}

int name_valid_domain(const char *domain, struct err *e)
{
	return check_domain(domain, false, e);
}

int name_valid_record(const char *domain, struct err *e)
{
	return check_domain(domain, true, e);
}

static bool refused(const char *label, size_t len)
{
	static const char *const names[] = {"wpad", "isatap", "localhost", "autodiscover",
					    "autoconfig"};

	if (len > 0 && label[0] == '_') {
		return true;
	}
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		if (strlen(names[i]) == len && strncasecmp(names[i], label, len) == 0) {
			return true;
		}
	}
	return false;
}

bool name_refused_label(const char *label)
{
	return refused(label, strlen(label));
}

bool name_has_refused_label(const char *domain)
{
	for (;;) {
		size_t len = strcspn(domain, ".");

		if (refused(domain, len)) {
			return true;
		}
		if (domain[len] == '\0') {
			return false;
		}
		domain += len + 1;
	}
}

const char *name_sanitize(const char *hostname, char out[NAME_LABEL_MAX + 1])
{
	size_t n = 0;

	for (const char *p = hostname; *p != '\0' && *p != '.' && n < NAME_LABEL_MAX; p++) {
		char c = lower(*p);

		if (is_lower_alnum(c)) {
			out[n++] = c;
		} else if (n > 0 && out[n - 1] != '-') {
			out[n++] = '-';
		}
	}
	while (n > 0 && out[n - 1] == '-') {
		n--;
	}
	out[n] = '\0';
	if (n == 0 || refused(out, n)) {
		memcpy(out, "node", sizeof("node"));
	}
	return out;
}

const char *name_numbered(const char *base, uint32_t n, char out[NAME_LABEL_MAX + 1])
{
	char suffix[16] = "";
	size_t room = NAME_LABEL_MAX;
	size_t len;

	if (n > 0) {
		room -= (size_t)snprintf(suffix, sizeof(suffix), "-%" PRIu32, n);
	}
	len = strnlen(base, room);
	/* A cut may leave a hyphen before the suffix's own. */
	while (len > 0 && base[len - 1] == '-') {
		len--;
	}
	memmove(out, base, len);
	memcpy(out + len, suffix, strlen(suffix) + 1);
	return out;
}

int name_normalise(const char *domain, char out[NAME_DOMAIN_MAX + 1], struct err *e)
{
	size_t len = strnlen(domain, NAME_DOMAIN_MAX + 2);
	char tmp[NAME_DOMAIN_MAX + 1];
	int rv;

	if (len > 0 && domain[len - 1] == '.') {
		len--;
	}
	if (len > NAME_DOMAIN_MAX) {
		return err_set(e, ERR_INVALID, "the domain is longer than %d characters",
			       NAME_DOMAIN_MAX);
	}
	for (size_t i = 0; i < len; i++) {
		tmp[i] = lower(domain[i]);
	}
	tmp[len] = '\0';
	rv = name_valid_record(tmp, e);
	if (rv == 0) {
		memcpy(out, tmp, len + 1);
	}
	return rv;
}

bool name_within(const char *domain, const char *zone)
{
	size_t dlen = strlen(domain);
	size_t zlen = strlen(zone);

	if (zlen == 0) {
		return true;
	}
	if (zlen > dlen || strcmp(domain + dlen - zlen, zone) != 0) {
		return false;
	}
	return dlen == zlen || domain[dlen - zlen - 1] == '.';
}

size_t name_labels(const char *domain)
{
	size_t n = domain[0] != '\0';

	for (const char *p = domain; *p != '\0'; p++) {
		n += *p == '.';
	}
	return n;
}
