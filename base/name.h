/* The rules for host names and domains that tailnet and dns share. */
#pragma once

#include "base/limits.h"
#include "base/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

#define NAME_LABEL_MAX  LIM_LABEL
#define NAME_DOMAIN_MAX LIM_DOMAIN

/* RFC 1123 label in lower case: 1..63 of a-z 0-9 -, no hyphen at either end. ERR_INVALID says what
 * is wrong and where. */
int name_valid_label(const char *label, size_t len, struct err *e) MUST_CHECK;
/* Labels joined by dots, at most 253 characters, no dot at either end. A domain whose last label
 * is all digits is refused (it would look like an address). */
int name_valid_domain(const char *domain, struct err *e) MUST_CHECK;
/* As name_valid_domain, but labels may begin with '_' (service records). */
int name_valid_record(const char *domain, struct err *e) MUST_CHECK;
/* Names that clients look up by themselves and that nobody may take over: wpad, isatap, localhost,
 * autodiscover, autoconfig, and everything that begins with '_'. Case does not matter. */
bool name_refused_label(const char *label);
/* True if any label of the domain is refused. */
bool name_has_refused_label(const char *domain);

/* Makes a label of whatever a host calls itself: up to the first dot, lower case, everything else
 * '-', runs of them one, trimmed, at most 63; "node" if nothing is left or if it is refused.
 * Returns out. */
const char *name_sanitize(const char *hostname, char out[NAME_LABEL_MAX + 1]);
/* base, or for n >= 1 "base-n", base cut so that it fits. Returns out. */
const char *name_numbered(const char *base, uint32_t n, char out[NAME_LABEL_MAX + 1]);
/* Lower case and without the final dot; ERR_INVALID if longer than 253 or not a record name. */
int name_normalise(const char *domain, char out[NAME_DOMAIN_MAX + 1], struct err *e) MUST_CHECK;
/* domain is zone or lies below it; both normalised. The empty zone contains everything. */
bool name_within(const char *domain, const char *zone);
/* Number of labels. */
size_t name_labels(const char *domain);
