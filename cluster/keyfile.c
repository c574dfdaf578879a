/* The identity of a lighthouse on disk: who it is, its keys and certificates, cluster.key. */
#include "cluster/keyfile.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/crypto.h"
#include "base/enc.h"
#include "base/fileio.h"
#include "base/jsonx.h"
#include "base/mem.h"
#include "base/rand.h"

enum { FORMAT = 1, FILE_MAX = 64 << 10, RECOVERY_CHECK = 4, RECOVERY_GROUP = 5 };

#define RECOVERY_PREFIX "skr1-"

void keyfile_done(struct keyfile *k)
{
	if (k == NULL) {
		return;
	}
	mem_free(k->name);
	mem_free(k->peer_address);
	mem_free(k->api_url);
	secret_free(k->cluster_key);
	x509_key_free(k->node_key);
	x509_key_free(k->api_key);
	mem_free(k->node_cert_pem);
	mem_free(k->api_cert_pem);
	mem_free(k->ca_cert_pem);
	mem_free(k->ca_old_pem);
	mem_free(k->ca_cross_pem);
	secret_free(k->next_keys);
	secret_free(k->old_key);
	memset(k, 0, sizeof(*k));
}

int keyfile_issue(const struct pki_ca *ca, const uint8_t cluster_key[PKI_KEY], const char *name,
		  const char *peer_address, const char *api_url, int64_t now_ms,
		  struct keyfile *ret, struct err *err)
{
	struct keyfile k = {.cluster_id = ca->cluster, .lighthouse_id = rand_id63()};
	struct buf node = BUF_INIT, api = BUF_INIT;
	uint8_t spki[PKI_SPKI_MAX];
	size_t n;
	int r = x509_key_new(X509_KEY_P256, &k.node_key, err);

	if (r >= 0) {
		r = x509_key_new(X509_KEY_P256, &k.api_key, err);
	}
	if (r >= 0) {
		n = pki_spki(k.node_key, spki);
		r = pki_issue_peer(ca, k.lighthouse_id, spki, n, now_ms, &node, err);
	}
	if (r >= 0) {
		n = pki_spki(k.api_key, spki);
		r = pki_issue_api(ca, k.lighthouse_id, spki, n, api_url, now_ms, &api, err);
	}
	if (r >= 0) {
		r = pki_pin(ca->cert_pem, k.ca_pin, err);
	}
	if (r < 0) {
		buf_done(&node);
		buf_done(&api);
		keyfile_done(&k);
		return r;
	}
	k.name = mem_strdup(name);
	k.peer_address = mem_strdup(peer_address);
	k.api_url = mem_strdup(api_url);
	k.node_cert_pem = buf_take(&node, NULL);
	k.api_cert_pem = buf_take(&api, NULL);
	k.ca_cert_pem = mem_strdup(ca->cert_pem);
	k.cluster_key = secret_alloc(PKI_KEY);
	memcpy(k.cluster_key, cluster_key, PKI_KEY);
	*ret = k;
	return 0;
}

int keyfile_new(const char *name, const char *peer_address, const char *api_url, int64_t now_ms,
		struct keyfile *ret, struct pki_ca *ret_ca, struct err *err)
{
	struct pki_ca ca = {0};
	uint8_t *key;
	int r = pki_ca_new(rand_id63(), now_ms, &ca, err);

	if (r < 0) {
		return r;
	}
	key = secret_alloc(PKI_KEY);
	rand_bytes(key, PKI_KEY);
	r = keyfile_issue(&ca, key, name, peer_address, api_url, now_ms, ret, err);
	secret_free(key);
	if (r < 0) {
		pki_ca_done(&ca);
		return r;
	}
	*ret_ca = ca;
	return 0;
}

/* ---- files ---- */

static char *path_of(const char *dir, const char *file)
{
	return mem_printf("%s/%s", dir, file);
}

bool keyfile_exists(const char *dir)
{
	char *path = path_of(dir, KEYFILE_IDENTITY);
	bool there = file_exists(path);

	mem_free(path);
	return there;
}

static int write_file(const char *dir, const char *file, const void *data, size_t len,
		      struct err *err)
{
	char *path = path_of(dir, file);
	int r = file_write_atomic(path, data, len, 0600, err);

	mem_free(path);
	return r;
}

static int write_key(const char *dir, const char *file, const struct x509_key *key, struct err *err)
{
	struct buf pem = BUF_INIT;
	int r;

	buf_reserve(&pem, 4096);
	r = x509_key_pem(key, &pem);
	if (r < 0) {
		IGNORE(err_set(err, r, "the key for %s/%s cannot be written", dir, file));
	} else {
		r = write_file(dir, file, pem.data, pem.len, err);
	}
	buf_wipe(&pem);
	return r;
}

static int write_identity(const char *dir, const struct keyfile *k, struct err *err)
{
	struct buf b = BUF_INIT;
	struct jsonw w;
	int r;

	jsonw_init(&w, &b, true);
	jsonw_object(&w);
	jsonw_ki64(&w, "format", FORMAT);
	jsonw_ku64s(&w, "cluster_id", k->cluster_id);
	jsonw_ku64s(&w, "lighthouse_id", k->lighthouse_id);
	jsonw_kstr(&w, "name", k->name);
	jsonw_kstr(&w, "peer_address", k->peer_address);
	jsonw_kstr(&w, "api_url", k->api_url);
	jsonw_end(&w);
	buf_u8(&b, '\n');
	r = write_file(dir, KEYFILE_IDENTITY, b.data, b.len, err);
	buf_done(&b);
	return r;
}

static int read_text(const char *dir, const char *file, struct buf *out, struct err *err)
{
	char *path = path_of(dir, file);
	int r = file_check_private(path, err);

	if (r >= 0) {
		buf_reserve(out, FILE_MAX + 1); /* secrets: no outgrown copies */
		r = file_read(path, FILE_MAX, out, err);
	}
	mem_free(path);
	return r;
}

/* Fills the plain part. */
static int read_identity(const char *dir, struct keyfile *k, struct err *err)
{
	struct buf b = BUF_INIT;
	struct jsonx *root = NULL;
	int r = read_text(dir, KEYFILE_IDENTITY, &b, err);

	if (r >= 0) {
		r = jsonx_parse((const char *)b.data, b.len, KEYFILE_IDENTITY, &root, err);
	}
	buf_done(&b);
	if (r < 0) {
		return r;
	}
	if (jsonx_int(jsonx_get(root, "format"), 0) != FORMAT) {
		r = err_set(err, ERR_PRECONDITION,
			    "%s/%s has format %" PRId64 ", this build reads %d", dir,
			    KEYFILE_IDENTITY, jsonx_int(jsonx_get(root, "format"), 0), FORMAT);
	} else if (jsonx_get_u64(jsonx_get(root, "cluster_id"), &k->cluster_id) < 0 ||
		   jsonx_get_u64(jsonx_get(root, "lighthouse_id"), &k->lighthouse_id) < 0 ||
		   k->cluster_id == 0 || k->lighthouse_id == 0) {
		r = err_set(err, ERR_CORRUPT, "%s/%s names no cluster and lighthouse", dir,
			    KEYFILE_IDENTITY);
	} else {
		k->name = mem_strdup(jsonx_str(jsonx_get(root, "name"), ""));
		k->peer_address = mem_strdup(jsonx_str(jsonx_get(root, "peer_address"), ""));
		k->api_url = mem_strdup(jsonx_str(jsonx_get(root, "api_url"), ""));
	}
	jsonx_free(root);
	return r;
}

int keyfile_write(const char *dir, const struct keyfile *k, struct err *err)
{
	char hex[2 * PKI_KEY + 2];
	int r;

	if (keyfile_exists(dir)) {
		struct keyfile there = {0};

		r = read_identity(dir, &there, err);
		if (r >= 0 && (there.cluster_id != k->cluster_id ||
			       there.lighthouse_id != k->lighthouse_id)) {
			r = err_reason(err, ERR_EXISTS, "ALREADY_INITIALISED",
				       "%s already holds lighthouse %" PRIu64 " of cluster %" PRIu64
				       ": start it with `skerryd run`, or "
				       "use an empty directory",
				       dir, there.lighthouse_id, there.cluster_id);
		}
		keyfile_done(&there);
		if (r < 0) {
			return r;
		}
	}
	r = write_file(dir, "ca.crt", k->ca_cert_pem, strlen(k->ca_cert_pem), err);
	if (r >= 0 && k->ca_old_pem != NULL) {
		r = write_file(dir, "ca-old.crt", k->ca_old_pem, strlen(k->ca_old_pem), err);
	}
	if (r >= 0 && k->ca_cross_pem != NULL) {
		r = write_file(dir, "ca-cross.crt", k->ca_cross_pem, strlen(k->ca_cross_pem), err);
	}
	if (r >= 0) {
		r = write_key(dir, "node.key", k->node_key, err);
	}
	if (r >= 0) {
		r = write_file(dir, "node.crt", k->node_cert_pem, strlen(k->node_cert_pem), err);
	}
	if (r >= 0) {
		r = write_key(dir, "api.key", k->api_key, err);
	}
	if (r >= 0) {
		r = write_file(dir, "api.crt", k->api_cert_pem, strlen(k->api_cert_pem), err);
	}
	if (r >= 0) {
		hex_encode(hex, k->cluster_key, PKI_KEY);
		memcpy(hex + (size_t)2 * PKI_KEY, "\n", 2);
		r = write_file(dir, "cluster.key", hex, (size_t)2 * PKI_KEY + 1, err);
		secret_wipe(hex, sizeof(hex));
	}
	return r < 0 ? r : write_identity(dir, k, err);
}

int keyfile_renew(const char *dir, struct keyfile *k, const char *node_cert_pem,
		  const char *api_cert_pem, struct err *err)
{
	int r = 0;

	if (node_cert_pem != NULL) {
		r = write_file(dir, "node.crt", node_cert_pem, strlen(node_cert_pem), err);
		if (r < 0) {
			return r;
		}
		mem_free(k->node_cert_pem);
		k->node_cert_pem = mem_strdup(node_cert_pem);
	}
	if (api_cert_pem != NULL) {
		r = write_file(dir, "api.crt", api_cert_pem, strlen(api_cert_pem), err);
		if (r < 0) {
			return r;
		}
		mem_free(k->api_cert_pem);
		k->api_cert_pem = mem_strdup(api_cert_pem);
	}
	return r;
}

/* ---- rotation of the CA ---- */

static int remove_file(const char *dir, const char *file, struct err *err)
{
	char *path = path_of(dir, file);
	int r = 0;

	if (unlink(path) < 0 && errno != ENOENT) {
		r = err_set(err, -errno, "%s cannot be removed: %s", path, strerror(errno));
	}
	mem_free(path);
	return r;
}

static int write_or_remove(const char *dir, const char *file, const char *text, struct err *err)
{
	return text != NULL ? write_file(dir, file, text, strlen(text), err)
			    : remove_file(dir, file, err);
}

int keyfile_set_ca(const char *dir, struct keyfile *k, const char *ca_pem, const char *old_pem,
		   const char *cross_pem, struct err *err)
{
	uint8_t pin[32], old_pin[32] = {0};
	int r = pki_pin(ca_pem, pin, err);

	if (r >= 0 && ((old_pem == NULL) != (cross_pem == NULL) ||
		       (old_pem != NULL && !pki_crosses(cross_pem, ca_pem, old_pem)))) {
		r = err_set(err, ERR_INVALID, "the new CA is not certified by the one before");
	}
	if (r >= 0 && old_pem != NULL) {
		r = pki_pin(old_pem, old_pin, err);
	}
	/* The old one first: with the new ca.crt alone peers of the old CA would be strangers. */
	if (r >= 0) {
		r = write_or_remove(dir, "ca-old.crt", old_pem, err);
	}
	if (r >= 0) {
		r = write_or_remove(dir, "ca-cross.crt", cross_pem, err);
	}
	if (r >= 0) {
		r = write_file(dir, "ca.crt", ca_pem, strlen(ca_pem), err);
	}
	if (r < 0) {
		return r;
	}
	mem_free(k->ca_cert_pem);
	mem_free(k->ca_old_pem);
	mem_free(k->ca_cross_pem);
	k->ca_cert_pem = mem_strdup(ca_pem);
	k->ca_old_pem = mem_strdup(old_pem);
	k->ca_cross_pem = mem_strdup(cross_pem);
	memcpy(k->ca_pin, pin, sizeof(pin));
	memcpy(k->ca_old_pin, old_pin, sizeof(old_pin));
	return 0;
}

/* ---- rotation of cluster.key ---- */

static int write_keys(const char *dir, const char *file, const uint8_t *keys, size_t n,
		      struct err *err)
{
	char hex[KEYFILE_NEXT_MAX * (2 * PKI_KEY + 1) + 1];
	size_t len = 0;
	int r;

	for (size_t i = 0; i < n; i++) {
		hex_encode(hex + len, keys + i * PKI_KEY, PKI_KEY);
		len += (size_t)2 * PKI_KEY;
		hex[len++] = '\n';
	}
	r = write_file(dir, file, hex, len, err);
	secret_wipe(hex, sizeof(hex));
	return r;
}

int keyfile_add_next(const char *dir, struct keyfile *k, const uint8_t key[PKI_KEY],
		     struct err *err)
{
	uint8_t *all;
	int r;

	if (crypto_equal(key, k->cluster_key, PKI_KEY)) {
		return 0;
	}
	for (size_t i = 0; i < k->n_next; i++) {
		if (crypto_equal(key, k->next_keys + i * PKI_KEY, PKI_KEY)) {
			return 0;
		}
	}
	if (k->n_next == KEYFILE_NEXT_MAX) {
		return err_set(err, ERR_LIMIT,
			       "%s/cluster.key.next holds %d keys, which is the limit: one of them "
			       "must come into force first",
			       dir, KEYFILE_NEXT_MAX);
	}
	all = secret_alloc((size_t)KEYFILE_NEXT_MAX * PKI_KEY);
	if (k->n_next > 0) {
		memcpy(all, k->next_keys, k->n_next * PKI_KEY);
	}
	memcpy(all + k->n_next * PKI_KEY, key, PKI_KEY);
	r = write_keys(dir, "cluster.key.next", all, k->n_next + 1, err);
	if (r < 0) {
		secret_free(all);
		return r;
	}
	secret_free(k->next_keys);
	k->next_keys = all;
	k->n_next++;
	return 0;
}

int keyfile_promote(const char *dir, struct keyfile *k, size_t i, struct err *err)
{
	const uint8_t *key = k->next_keys + i * PKI_KEY;
	int r;

	PRE(i < k->n_next);
	r = write_keys(dir, "cluster.key.old", k->cluster_key, 1, err);
	if (r >= 0) {
		r = write_keys(dir, "cluster.key", key, 1, err);
	}
	if (r >= 0) {
		r = remove_file(dir, "cluster.key.next", err);
	}
	if (r < 0) {
		return r;
	}
	if (k->old_key == NULL) {
		k->old_key = secret_alloc(PKI_KEY);
	}
	memcpy(k->old_key, k->cluster_key, PKI_KEY);
	memcpy(k->cluster_key, key, PKI_KEY);
	secret_free(k->next_keys);
	k->next_keys = NULL;
	k->n_next = 0;
	return 0;
}

int keyfile_drop_old(const char *dir, struct keyfile *k, struct err *err)
{
	int r = remove_file(dir, "cluster.key.old", err);

	if (r >= 0) {
		secret_free(k->old_key);
		k->old_key = NULL;
	}
	return r;
}

int keyfile_set_addresses(const char *dir, struct keyfile *k, const char *peer_address,
			  const char *api_url, struct err *err)
{
	struct keyfile next = *k;
	int r;

	if (strcmp(k->peer_address, peer_address) == 0 && strcmp(k->api_url, api_url) == 0) {
		return 0;
	}
	next.peer_address = mem_strdup(peer_address);
	next.api_url = mem_strdup(api_url);
	r = write_identity(dir, &next, err);
	if (r < 0) {
		mem_free(next.peer_address);
		mem_free(next.api_url);
		return r;
	}
	mem_free(k->peer_address);
	mem_free(k->api_url);
	*k = next;
	return 0;
}

static int read_key(const char *dir, const char *file, struct x509_key **ret, struct err *err)
{
	struct buf b = BUF_INIT;
	int r = read_text(dir, file, &b, err);

	if (r >= 0 && x509_key_parse(buf_str(&b), ret, NULL) < 0) {
		r = err_set(err, ERR_CORRUPT, "%s/%s is not a private key", dir, file);
	}
	buf_wipe(&b);
	return r;
}

/* A certificate with the URI and (key != NULL) the public key that it must have. */
static int read_cert(const char *dir, const char *file, const struct x509_key *key, const char *uri,
		     char **ret, struct err *err)
{
	struct buf b = BUF_INIT;
	struct x509_facts f = {0};
	uint8_t hash[32];
	int r = read_text(dir, file, &b, err);

	if (r < 0) {
		buf_done(&b);
		return r;
	}
	if (x509_parse_pem(buf_str(&b), &f, NULL) < 0) {
		buf_done(&b);
		return err_set(err, ERR_CORRUPT, "%s/%s is not a certificate", dir, file);
	}
	if (key != NULL) {
		x509_key_spki_sha256(key, hash);
		if (memcmp(hash, f.spki_sha256, sizeof(hash)) != 0) {
			r = err_set(err, ERR_CORRUPT, "%s/%s does not belong to its key", dir,
				    file);
		} else if (!x509_facts_has_uri(&f, uri)) {
			r = err_set(err, ERR_CORRUPT, "%s/%s does not carry the name %s", dir, file,
				    uri);
		}
	}
	x509_facts_done(&f);
	if (r < 0) {
		buf_done(&b);
		return r;
	}
	*ret = buf_take(&b, NULL);
	return 0;
}

int keyfile_cluster_key_parse(const char *text, size_t len, uint8_t ret_key[PKI_KEY],
			      struct err *err)
{
	while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == ' ')) {
		len--;
	}
	if (hex_decode(text, len, ret_key, PKI_KEY) != PKI_KEY) {
		return err_set(err, ERR_INVALID, "a cluster.key holds %d bytes in hex", PKI_KEY);
	}
	return 0;
}

static int read_cluster_key(const char *dir, uint8_t **ret, struct err *err)
{
	struct buf b = BUF_INIT;
	uint8_t *key;
	int r = read_text(dir, "cluster.key", &b, err);

	if (r < 0) {
		buf_wipe(&b);
		return r;
	}
	key = secret_alloc(PKI_KEY);
	if (keyfile_cluster_key_parse((const char *)b.data, b.len, key, NULL) < 0) {
		secret_free(key);
		r = err_set(err, ERR_CORRUPT, "%s/cluster.key does not hold %d bytes in hex", dir,
			    PKI_KEY);
	} else {
		*ret = key;
	}
	buf_wipe(&b);
	return r;
}

static bool file_in(const char *dir, const char *file)
{
	char *path = path_of(dir, file);
	bool there = file_exists(path);

	mem_free(path);
	return there;
}

/* The keys of cluster.key.next or .old, if the file is there: at most `max` lines. */
static int read_keys(const char *dir, const char *file, size_t max, uint8_t **ret, size_t *ret_n,
		     struct err *err)
{
	struct buf b = BUF_INIT;
	uint8_t *keys;
	size_t n = 0;
	int r;

	if (!file_in(dir, file)) {
		return 0;
	}
	r = read_text(dir, file, &b, err);
	if (r < 0) {
		buf_wipe(&b);
		return r;
	}
	keys = secret_alloc(max * PKI_KEY);
	for (size_t at = 0; at < b.len && n <= max; n++) {
		const uint8_t *end = memchr(b.data + at, '\n', b.len - at);
		size_t len = end != NULL ? (size_t)(end - b.data) - at : b.len - at;

		if (n == max || keyfile_cluster_key_parse((const char *)b.data + at, len,
							  keys + n * PKI_KEY, NULL) < 0) {
			r = err_set(err, ERR_CORRUPT, "%s/%s does not hold keys of %d bytes in hex",
				    dir, file, PKI_KEY);
			break;
		}
		at += len + 1;
	}
	buf_wipe(&b);
	if (r < 0 || n == 0) {
		secret_free(keys);
		return r;
	}
	*ret = keys;
	*ret_n = n;
	return 0;
}

/* What is there only while something is rotated. The state is what counts: it is looked at again after the start. */
static int read_rotation(const char *dir, struct keyfile *k, struct err *err)
{
	size_t n = 0;
	int r = read_keys(dir, "cluster.key.next", KEYFILE_NEXT_MAX, &k->next_keys, &k->n_next,
			  err);

	if (r >= 0) {
		r = read_keys(dir, "cluster.key.old", 1, &k->old_key, &n, err);
	}
	if (r >= 0 && file_in(dir, "ca-old.crt") && file_in(dir, "ca-cross.crt")) {
		r = read_cert(dir, "ca-old.crt", NULL, NULL, &k->ca_old_pem, err);
		if (r >= 0) {
			r = read_cert(dir, "ca-cross.crt", NULL, NULL, &k->ca_cross_pem, err);
		}
		if (r >= 0) {
			r = pki_pin(k->ca_old_pem, k->ca_old_pin, err);
		}
		/* The files are written one after the other: an end between them leaves two that do not fit yet. */
		if (r >= 0 && !pki_crosses(k->ca_cross_pem, k->ca_cert_pem, k->ca_old_pem)) {
			mem_free(k->ca_old_pem);
			mem_free(k->ca_cross_pem);
			k->ca_old_pem = k->ca_cross_pem = NULL;
		}
	}
	return r;
}

int keyfile_read(const char *dir, struct keyfile *ret, struct err *err)
{
	struct keyfile k = {0};
	char uri[PKI_URI_MAX];
	int r;

	if (!keyfile_exists(dir)) {
		return err_reason(err, ERR_PRECONDITION, "NOT_INITIALISED",
				  "%s holds no lighthouse: run `skerryd init` for a new cluster or "
				  "`skerryd join TOKEN` to join one",
				  dir);
	}
	r = file_check_private(dir, err);
	if (r >= 0) {
		r = read_identity(dir, &k, err);
	}
	if (r >= 0) {
		r = read_cluster_key(dir, &k.cluster_key, err);
	}
	if (r >= 0) {
		r = read_key(dir, "node.key", &k.node_key, err);
	}
	if (r >= 0) {
		r = read_key(dir, "api.key", &k.api_key, err);
	}
	if (r >= 0) {
		r = read_cert(dir, "node.crt", k.node_key,
			      pki_uri_peer(k.cluster_id, k.lighthouse_id, uri), &k.node_cert_pem,
			      err);
	}
	if (r >= 0) {
		r = read_cert(dir, "api.crt", k.api_key,
			      pki_uri_api(k.cluster_id, k.lighthouse_id, uri), &k.api_cert_pem,
			      err);
	}
	if (r >= 0) {
		r = read_cert(dir, "ca.crt", NULL, NULL, &k.ca_cert_pem, err);
	}
	if (r >= 0) {
		r = pki_pin(k.ca_cert_pem, k.ca_pin, err);
	}
	if (r >= 0) {
		r = read_rotation(dir, &k, err);
	}
	if (r < 0) {
		keyfile_done(&k);
		return r;
	}
	*ret = k;
	return 0;
}

/* ---- recovery string ---- */

static void recovery_check(const uint8_t key[PKI_KEY], uint8_t out[RECOVERY_CHECK])
{
	static const char purpose[] = "skerry recovery v1";
	uint8_t hash[CRYPTO_HASH];
	struct crypto_iov iov[] = {{purpose, sizeof(purpose)}, {key, PKI_KEY}};

	crypto_sha256v(hash, iov, ARRAY_LEN(iov));
	memcpy(out, hash, RECOVERY_CHECK);
	secret_wipe(hash, sizeof(hash));
}

char *keyfile_recovery(const uint8_t cluster_key[PKI_KEY])
{
	uint8_t raw[PKI_KEY + RECOVERY_CHECK];
	struct buf flat = BUF_INIT, out = BUF_INIT;

	memcpy(raw, cluster_key, PKI_KEY);
	recovery_check(cluster_key, raw + PKI_KEY);
	buf_reserve(&flat, 256);
	buf_reserve(&out, 256);
	base32_append(&flat, raw, sizeof(raw));
	secret_wipe(raw, sizeof(raw));
	buf_append_str(&out, RECOVERY_PREFIX);
	for (size_t i = 0; i < flat.len; i++) {
		if (i > 0 && i % RECOVERY_GROUP == 0) {
			buf_u8(&out, '-');
		}
		buf_u8(&out, flat.data[i]);
	}
	buf_wipe(&flat);
	return buf_take(&out, NULL);
}

int keyfile_recovery_parse(const char *text, uint8_t ret_key[PKI_KEY], struct err *err)
{
	char flat[BASE32_LEN(PKI_KEY + RECOVERY_CHECK)];
	uint8_t raw[PKI_KEY + RECOVERY_CHECK], check[RECOVERY_CHECK];
	const char *prefix = "skr1";
	size_t n = 0;
	int r = 0;

	for (; *text != '\0'; text++) {
		char c = *text;

		if (c == '-' || c == ' ' || c == '\n' || c == '\r' || c == '\t') {
			continue;
		}
		if (c >= 'A' && c <= 'Z') {
			c = (char)(c - 'A' + 'a');
		}
		if (*prefix != '\0') {
			if (c != *prefix++) {
				r = err_set(err, ERR_INVALID,
					    "not a recovery string: it begins with skr1-");
				goto out;
			}
			continue;
		}
		if (n == sizeof(flat)) {
			r = err_set(err, ERR_INVALID, "the recovery string is too long");
			goto out;
		}
		flat[n++] = c;
	}
	if (n < sizeof(flat)) {
		r = err_set(err, ERR_INVALID,
			    "the recovery string is cut: %zu of %zu characters are there", n,
			    sizeof(flat));
		goto out;
	}
	if (base32_decode(flat, n, raw, sizeof(raw)) != (int)sizeof(raw)) {
		r = err_set(err, ERR_INVALID,
			    "the recovery string has a wrong character (group %zu)",
			    base32_bad_char(flat, n) / RECOVERY_GROUP + 1);
		goto out;
	}
	recovery_check(raw, check);
	if (memcmp(check, raw + PKI_KEY, sizeof(check)) != 0) {
		r = err_set(err, ERR_INVALID,
			    "the recovery string is mistyped: its checksum is wrong");
		goto out;
	}
	memcpy(ret_key, raw, PKI_KEY);
out:
	secret_wipe(flat, sizeof(flat));
	secret_wipe(raw, sizeof(raw));
	return r;
}
