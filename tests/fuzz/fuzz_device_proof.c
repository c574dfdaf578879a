/*
 * The device proof and the other texts of a request's head that are parsed before anybody is known. LIBS: api
 *
 * Input: machine key (32) and proof (64) of lengths that the first two bytes choose, ids and exporter, then text.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/admin.h"
#include "api/caller.h"
#include "api/device_proof.h"
#include "base/crypto.h"
#include "cluster/cluster.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void text(const uint8_t *data, size_t size)
{
	char *s = malloc(size + 1);
	struct read_want want;
	struct err err = {0};
	uint64_t pos;

	memcpy(s, data, size);
	s[size] = '\0';
	(void)caller_bearer(s);
	IGNORE(read_level_parse(s, &want, &err));
	if (page_token_parse(s, "/x", 1, 2, &pos, &err) == 0) {
		char again[PAGE_TOKEN_TEXT];

		page_token_format("/x", 1, 2, pos, again);
		if (strcmp(again, s) != 0)
			abort(); /* two texts for one position */
	}
	free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t exporter[DEVICE_EXPORTER] = {0};
	struct err err = {0};
	size_t key_len, proof_len;

	crypto_init();
	text(data, size);
	if (size < 2)
		return 0;
	key_len = data[0];
	proof_len = data[1];
	data += 2;
	size -= 2;
	if (key_len + proof_len > size)
		return 0;
	if (size - key_len - proof_len >= sizeof(exporter))
		memcpy(exporter, data + key_len + proof_len, sizeof(exporter));
	if (device_proof_verify(data, key_len, data + key_len, proof_len, 1, 2, exporter, &err) ==
		    0 &&
	    (key_len != 32 || proof_len != DEVICE_PROOF))
		abort();
	return 0;
}
