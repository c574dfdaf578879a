/* LIBS: base
 * Names: whatever a host calls itself becomes a valid label; a normalised domain stays as it is. */
#include "base/err.h"
#include "base/mem.h"
#include "base/name.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = mem_strndup((const char *)data, size);
	char label[NAME_LABEL_MAX + 1];
	char numbered[NAME_LABEL_MAX + 1];
	char domain[NAME_DOMAIN_MAX + 1];
	char again[NAME_DOMAIN_MAX + 1];
	struct err e = {0};

	name_sanitize(text, label);
	POST(name_valid_label(label, strlen(label), &e) == 0 && !name_refused_label(label));
	for (uint32_t n = 0; n < 2000000; n += 777777) {
		name_numbered(label, n, numbered);
		POST(name_valid_label(numbered, strlen(numbered), &e) == 0);
	}
	IGNORE(name_valid_label((const char *)data, size, &e) < 0);
	if (name_normalise(text, domain, &e) == 0) {
		POST(name_normalise(domain, again, &e) == 0 && strcmp(domain, again) == 0);
		POST(name_valid_record(domain, &e) == 0 && name_within(domain, domain));
		POST(name_labels(domain) >= 1);
		IGNORE(name_has_refused_label(domain));
	}
	mem_free(text);
	return 0;
}
