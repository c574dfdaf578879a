#include "agent/identity.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/crypto.h"
#include "base/enc.h"
#include "base/fileio.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rand.h"

enum {
	SESSIONS_AHEAD = 1000, /* numbers reserved by one write */
	CLUSTER_JSON_MAX = 256 << 10,
};

static char *path_of(const struct identity *id, const char *file)
{
	return mem_printf("%s/%s", id->dir, file);
}

static int write_file(const struct identity *id, const char *file, const void *data, size_t len,
		      struct err *e)
{
	char *path = path_of(id, file);
	int r = file_write_atomic(path, data, len, 0600, e);

	mem_free(path);
	return r;
}

static int read_file(const struct identity *id, const char *file, size_t cap, struct buf *out,
		     struct err *e)
{
	char *path = path_of(id, file);
	int r;

	buf_reserve(out, 1024); /* keys are short: no copies are left behind by growth */
	r = file_read(path, cap, out, e);
	mem_free(path);
	return r;
}

/* ---- Keys ---------------------------------------------------------------------------------------------------------- */

/* "ed25519 <hex seed>\nhost <hex>\n": the host is a hash, so that the file does not tell the machine-id. */
static void host_hash(const char *machine_id_file, uint8_t out[32])
{
	static const char label[] = "skerry host v1";
	struct buf text = BUF_INIT;

	/* A host without machine-id is known by an empty one. */
	if (file_read(machine_id_file, 4096, &text, NULL) < 0) {
		buf_reset(&text);
	}
	while (text.len > 0 && text.data[text.len - 1] <= ' ') {
		text.len--;
	}
	crypto_sha256v(out, (struct crypto_iov[]){{label, sizeof(label)}, {text.data, text.len}},
		       2);
	buf_done(&text);
}

/* Finds "<word> <64 hex>" in the text. */
static bool find_hex(struct buf *text, const char *word, uint8_t out[32])
{
	const char *pos = buf_str(text);
	size_t len = strlen(word);

	while (pos != NULL && *pos != '\0') {
		if (strncmp(pos, word, len) == 0 && pos[len] == ' ' &&
		    strlen(pos + len + 1) >= 64) {
			return hex_decode(pos + len + 1, 64, out, 32) == 32;
		}
		pos = strchr(pos, '\n');
		pos = pos == NULL ? NULL : pos + 1;
	}
	return false;
}

static int save_machine(struct identity *id, const uint8_t host[32], struct err *e)
{
	struct buf text = BUF_INIT;
	int r;

	buf_reserve(&text, 512);
	buf_append_str(&text, "ed25519 ");
	hex_append(&text, id->machine_seed, 32);
	buf_append_str(&text, "\nhost ");
	hex_append(&text, host, 32);
	buf_u8(&text, '\n');
	r = write_file(id, "machine.key", text.data, text.len, e);
	buf_wipe(&text);
	return r;
}

static int save_node(struct identity *id, struct err *e)
{
	struct buf text = BUF_INIT;
	int r;

	buf_reserve(&text, 512);
	buf_append_str(&text, "x25519 ");
	hex_append(&text, id->node_secret, 32);
	buf_u8(&text, '\n');
	r = write_file(id, "node.key", text.data, text.len, e);
	buf_wipe(&text);
	return r;
}

static int new_machine(struct identity *id, const uint8_t host[32], struct err *e)
{
	char *node = mem_printf("%s/node.key", id->dir);
	int r;

	/* A node key belongs to its machine key: without the one, or on another host, neither is of use. It goes first. */
	id->moved = file_exists(node);
	r = id->moved ? file_remove(node, e) : 0;
	mem_free(node);
	crypto_ed25519_keypair(id->machine_key, id->machine_seed);
	return r < 0 ? r : save_machine(id, host, e);
}

static int load_machine(struct identity *id, const char *machine_id_file, struct err *e)
{
	struct buf text = BUF_INIT;
	uint8_t host[32], made_on[32];
	int r = read_file(id, "machine.key", 4096, &text, e);

	host_hash(machine_id_file, host);
	if (r == -ENOENT) {
		r = new_machine(id, host, e);
	} else if (r >= 0) {
		if (!find_hex(&text, "ed25519", id->machine_seed) ||
		    !find_hex(&text, "host", made_on)) {
			r = err_set(e, ERR_CORRUPT,
				    "%s/machine.key is damaged: put it back from a backup, or move "
				    "it away "
				    "to register this device anew",
				    id->dir);
		} else if (memcmp(host, made_on, 32) != 0) {
			r = new_machine(id, host, e);
			id->moved = true;
		} else {
			crypto_ed25519_public(id->machine_key, id->machine_seed);
		}
	}
	buf_wipe(&text);
	return r;
}

static int new_node(struct identity *id, struct err *e)
{
	crypto_x25519_keypair(id->node_key, id->node_secret);
	return save_node(id, e);
}

static int load_node(struct identity *id, struct err *e)
{
	struct buf text = BUF_INIT;
	int r = read_file(id, "node.key", 4096, &text, e);

	if (r == -ENOENT || (r >= 0 && id->moved)) {
		r = new_node(id, e);
	} else if (r >= 0) {
		if (!find_hex(&text, "x25519", id->node_secret)) {
			r = err_set(e, ERR_CORRUPT,
				    "%s/node.key is damaged: put it back from a backup, or move it "
				    "away to "
				    "register this device anew",
				    id->dir);
		} else {
			crypto_x25519_public(id->node_key, id->node_secret);
		}
	}
	buf_wipe(&text);
	return r;
}

/* ---- Sessions ------------------------------------------------------------------------------------------------------ */

static int load_session(struct identity *id, struct err *e)
{
	struct buf text = BUF_INIT;
	char *end;
	int r = read_file(id, "session", 64, &text, e);

	if (r == -ENOENT) {
		r = 0;
	} else if (r >= 0) {
		id->session = strtoull(buf_str(&text), &end, 10);
		if (end == buf_str(&text)) {
			r = err_set(e, ERR_CORRUPT,
				    "%s/session is damaged: write a number into it that is larger "
				    "than the "
				    "last session shown by `skerry status`",
				    id->dir);
		}
	}
	/* What a crashed process had reserved may have been used. */
	id->session_reserved = id->session;
	buf_done(&text);
	return r;
}

int identity_next_session(struct identity *id, uint64_t *ret, struct err *e)
{
	if (id->session == id->session_reserved) {
		char text[32];
		int n = snprintf(text, sizeof(text), "%llu\n",
				 (unsigned long long)(id->session_reserved + SESSIONS_AHEAD));
		int r = write_file(id, "session", text, (size_t)n, e);

		if (r < 0) {
			return r;
		}
		id->session_reserved += SESSIONS_AHEAD;
	}
	*ret = ++id->session;
	return 0;
}

/* ---- Enrolment ----------------------------------------------------------------------------------------------------- */

void enrolment_done(struct enrolment *en)
{
	for (size_t i = 0; i < en->n_lighthouses; i++) {
		mem_free(en->lighthouses[i]);
	}
	mem_free(en->last_good);
	*en = (struct enrolment){0};
}

bool enrolment_set_lighthouses(struct enrolment *en, char *const *urls, size_t n)
{
	bool same;

	n = MIN(n, (size_t)LIM_LIGHTHOUSE_URLS);
	same = n == en->n_lighthouses;
	for (size_t i = 0; same && i < n; i++) {
		same = strcmp(urls[i], en->lighthouses[i]) == 0;
	}
	if (same) {
		return false;
	}
	for (size_t i = 0; i < en->n_lighthouses; i++) {
		mem_free(en->lighthouses[i]);
	}
	en->n_lighthouses = n;
	for (size_t i = 0; i < n; i++) {
		en->lighthouses[i] = mem_strdup(urls[i]);
	}
	return true;
}

void enrolment_set_last_good(struct enrolment *en, const char *url)
{
	if (en->last_good == NULL || strcmp(en->last_good, url) != 0) {
		mem_free(en->last_good);
		en->last_good = mem_strdup(url);
	}
}

bool enrolment_has_pin(const struct enrolment *en, const uint8_t pin[32])
{
	return (en->has_pin && memcmp(pin, en->pin, 32) == 0) ||
	       (en->has_old_pin && memcmp(pin, en->old_pin, 32) == 0);
}

bool enrolment_set_pins(struct enrolment *en, const ProtobufCBinaryData *pins, size_t n)
{
	bool two = n == 2;

	if (n < 1 || n > 2 || pins[0].len != 32 || (two && pins[1].len != 32) || !en->has_pin) {
		return false;
	}
	if (memcmp(pins[0].data, en->pin, 32) == 0 && two == en->has_old_pin &&
	    (!two || memcmp(pins[1].data, en->old_pin, 32) == 0)) {
		return false;
	}
	memcpy(en->pin, pins[0].data, 32);
	en->has_old_pin = two;
	if (two) {
		memcpy(en->old_pin, pins[1].data, 32);
	}
	return true;
}

static void copy_text(char out[IDENTITY_NAME], const char *text)
{
	size_t n = MIN(strlen(text), (size_t)IDENTITY_NAME - 1);

	memcpy(out, text, n);
	out[n] = '\0';
}

static int parse_enrolment(const struct jsonx *root, struct enrolment *en)
{
	const struct jsonx *list = jsonx_get(root, "prefixes");
	const char *pin = jsonx_str(jsonx_get(root, "pin"), NULL);

	if (jsonx_get_u64(jsonx_get(root, "clusterId"), &en->cluster_id) < 0) {
		return ERR_CORRUPT;
	}
	if (pin != NULL) {
		if (hex_decode(pin, strlen(pin), en->pin, 32) != 32) {
			return ERR_CORRUPT;
		}
		en->has_pin = true;
	}
	pin = jsonx_str(jsonx_get(root, "oldPin"), NULL);
	if (pin != NULL) {
		if (hex_decode(pin, strlen(pin), en->old_pin, 32) != 32) {
			return ERR_CORRUPT;
		}
		en->has_old_pin = en->has_pin;
	}
	en->registered = jsonx_bool(jsonx_get(root, "registered"), false);
	if (en->registered && (jsonx_get_u64(jsonx_get(root, "tailnetId"), &en->tailnet_id) < 0 ||
			       jsonx_get_u64(jsonx_get(root, "nodeId"), &en->node_id) < 0)) {
		return ERR_CORRUPT;
	}
	copy_text(en->stable_id, jsonx_str(jsonx_get(root, "stableId"), ""));
	copy_text(en->name, jsonx_str(jsonx_get(root, "name"), ""));
	copy_text(en->tailnet_name, jsonx_str(jsonx_get(root, "tailnetName"), ""));
	copy_text(en->user, jsonx_str(jsonx_get(root, "user"), ""));
	en->expire_ms = jsonx_int(jsonx_get(root, "expireMs"), 0);
	for (size_t i = 0; i < jsonx_len(list) && i < IDENTITY_PREFIXES; i++) {
		if (prefix_parse(jsonx_str(jsonx_at(list, i), ""), &en->prefixes[i], NULL) < 0) {
			return ERR_CORRUPT;
		}
		en->n_prefixes++;
	}
	list = jsonx_get(root, "lighthouses");
	for (size_t i = 0; i < jsonx_len(list) && i < LIM_LIGHTHOUSE_URLS; i++) {
		en->lighthouses[en->n_lighthouses++] = mem_strdup(jsonx_str(jsonx_at(list, i), ""));
	}
	en->last_good = mem_strdup(jsonx_str(jsonx_get(root, "lastGood"), NULL));
	snprintf(en->pending_code, sizeof(en->pending_code), "%s",
		 jsonx_str(jsonx_get(root, "pendingCode"), ""));
	en->pending_ephemeral = jsonx_bool(jsonx_get(root, "pendingEphemeral"), false);
	return 0;
}

static int load_enrolment(struct identity *id, struct err *e)
{
	struct buf text = BUF_INIT;
	struct jsonx *root = NULL;
	int r = read_file(id, "cluster.json", CLUSTER_JSON_MAX, &text, e);

	if (r == -ENOENT || (r >= 0 && id->moved)) {
		buf_done(&text);
		return 0;
	}
	if (r >= 0) {
		r = jsonx_parse((const char *)text.data, text.len, "cluster.json", &root, e);
	}
	if (r >= 0) {
		r = parse_enrolment(root, &id->enrolment);
	}
	if (r < 0) {
		enrolment_done(&id->enrolment);
		r = err_set(
			e, ERR_CORRUPT,
			"%s/cluster.json is damaged: put it back from a backup, or move it away to "
			"register this device anew",
			id->dir);
	}
	jsonx_free(root);
	buf_done(&text);
	return r;
}

int identity_save_enrolment(struct identity *id, struct err *e)
{
	const struct enrolment *en = &id->enrolment;
	struct buf out = BUF_INIT;
	char hex[65], prefix[PREFIX_TEXT];
	struct jsonw w;
	int r;

	jsonw_init(&w, &out, true);
	jsonw_object(&w);
	jsonw_ku64s(&w, "clusterId", en->cluster_id);
	if (en->has_pin) {
		jsonw_kstr(&w, "pin", hex_encode(hex, en->pin, 32));
	}
	if (en->has_pin && en->has_old_pin) {
		jsonw_kstr(&w, "oldPin", hex_encode(hex, en->old_pin, 32));
	}
	jsonw_kbool(&w, "registered", en->registered);
	jsonw_ku64s(&w, "tailnetId", en->tailnet_id);
	jsonw_ku64s(&w, "nodeId", en->node_id);
	jsonw_kstr(&w, "stableId", en->stable_id);
	jsonw_kstr(&w, "name", en->name);
	jsonw_kstr(&w, "tailnetName", en->tailnet_name);
	jsonw_kstr(&w, "user", en->user);
	jsonw_ki64(&w, "expireMs", en->expire_ms);
	jsonw_key(&w, "prefixes");
	jsonw_array(&w);
	for (size_t i = 0; i < en->n_prefixes; i++) {
		jsonw_str(&w, prefix_format(&en->prefixes[i], prefix));
	}
	jsonw_end(&w);
	jsonw_key(&w, "lighthouses");
	jsonw_array(&w);
	for (size_t i = 0; i < en->n_lighthouses; i++) {
		jsonw_str(&w, en->lighthouses[i]);
	}
	jsonw_end(&w);
	if (en->last_good != NULL) {
		jsonw_kstr(&w, "lastGood", en->last_good);
	}
	if (en->pending_code[0] != '\0') {
		jsonw_kstr(&w, "pendingCode", en->pending_code);
		jsonw_kbool(&w, "pendingEphemeral", en->pending_ephemeral);
	}
	jsonw_end(&w);
	buf_u8(&out, '\n');
	r = write_file(id, "cluster.json", out.data, out.len, e);
	buf_done(&out);
	return r;
}

void identity_set_pending(struct identity *id, const char *code, bool ephemeral)
{
	struct enrolment *en = &id->enrolment;
	struct err e = {0};

	if (strcmp(en->pending_code, code) == 0) {
		return;
	}
	snprintf(en->pending_code, sizeof(en->pending_code), "%s", code);
	en->pending_ephemeral = ephemeral;
	if (identity_save_enrolment(id, &e) < 0) {
		LOG_ERROR("%s", e.msg);
	}
}

/* ---- The whole ----------------------------------------------------------------------------------------------------- */

int identity_open(const char *dir, const char *machine_id_file, struct identity *ret, struct err *e)
{
	struct identity id = {.dir = mem_strdup(dir)};
	uint8_t random[16];
	int r = dir_ensure(dir, 0700, e);

	id.machine_seed = secret_alloc(32);
	id.node_secret = secret_alloc(32);
	id.disco_secret = secret_alloc(32);
	crypto_x25519_keypair(id.disco_key, id.disco_secret);
	rand_bytes(random, sizeof(random));
	hex_encode(id.instance_id, random, sizeof(random));
	if (r >= 0) {
		r = dir_check_private(dir, e);
	}
	if (r >= 0) {
		r = load_machine(&id, machine_id_file, e);
	}
	if (r >= 0) {
		r = load_node(&id, e);
	}
	if (r >= 0) {
		r = load_session(&id, e);
	}
	if (r >= 0) {
		r = load_enrolment(&id, e);
	}
	if (r >= 0 && id.moved) {
		r = identity_save_enrolment(&id, e);
	}
	if (r < 0) {
		identity_done(&id);
		return r;
	}
	*ret = id;
	return 0;
}

void identity_done(struct identity *id)
{
	mem_free(id->dir);
	secret_free(id->machine_seed);
	secret_free(id->node_secret);
	secret_free(id->disco_secret);
	enrolment_done(&id->enrolment);
	*id = (struct identity){0};
}

int identity_forget(struct identity *id, struct err *e)
{
	struct enrolment *en = &id->enrolment;
	int r = new_node(id, e);

	if (r < 0) {
		return r;
	}
	en->registered = false;
	en->tailnet_id = en->node_id = 0;
	en->expire_ms = 0;
	en->n_prefixes = 0;
	en->stable_id[0] = en->name[0] = en->tailnet_name[0] = en->user[0] = '\0';
	en->pending_code[0] = '\0';
	return identity_save_enrolment(id, e);
}
