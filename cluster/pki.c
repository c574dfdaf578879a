/* The cluster's own certificate authority: names, certificates of lighthouses, and who is a peer. */
#include "cluster/pki.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"
#include "base/enc.h"
#include "base/mem.h"
#include "net/dial.h"

#define PEM_BEGIN "-----BEGIN CERTIFICATE-----"
#define PEM_END   "-----END CERTIFICATE-----"
#define PEM_LINE  64

const char *pki_uri_peer(uint64_t cluster, uint64_t id, char out[PKI_URI_MAX])
{
	snprintf(out, PKI_URI_MAX, "skerry://%" PRIu64 "/lighthouse/%" PRIu64, cluster, id);
	return out;
}

const char *pki_uri_api(uint64_t cluster, uint64_t id, char out[PKI_URI_MAX])
{
	snprintf(out, PKI_URI_MAX, "skerry://%" PRIu64 "/api/%" PRIu64, cluster, id);
	return out;
}

const char *pki_server_name(uint64_t cluster, char out[PKI_URI_MAX])
{
	snprintf(out, PKI_URI_MAX, "%" PRIu64 ".skerry.invalid", cluster);
	return out;
}

/* The number at *text, in the one form that we write: no sign, no leading zero. 0 when it is none. */
static uint64_t read_id(const char **text)
{
	const char *s = *text;
	uint64_t v = 0;

	if (*s < '1' || *s > '9') {
		return 0;
	}
	for (; *s >= '0' && *s <= '9'; s++) {
		if (v > (UINT64_MAX - 9) / 10) {
			return 0;
		}
		v = v * 10 + (uint64_t)(*s - '0');
	}
	*text = s;
	return v;
}

int pki_peer_id(const struct x509_facts *facts, uint64_t cluster, uint64_t *ret_id, struct err *err)
{
	static const char scheme[] = "skerry://", middle[] = "/lighthouse/";
	const char *s;
	uint64_t id;

	if (facts->n_uris != 1) {
		return err_reason(err, ERR_DENIED, "WRONG_NAME",
				  "the certificate has %zu URI names, a lighthouse's has one",
				  facts->n_uris);
	}
	s = facts->uris[0];
	if (strncmp(s, scheme, sizeof(scheme) - 1) != 0) {
		goto wrong;
	}
	s += sizeof(scheme) - 1;
	if (read_id(&s) != cluster || strncmp(s, middle, sizeof(middle) - 1) != 0) {
		goto wrong;
	}
	s += sizeof(middle) - 1;
	id = read_id(&s);
	if (id == 0 || *s != '\0') {
		goto wrong;
	}
	*ret_id = id;
	return 0;
wrong:
	return err_reason(
		err, ERR_DENIED, "WRONG_NAME",
		"the certificate's name %.100s is not that of a lighthouse of this cluster",
		facts->uris[0]);
}

/* DER up to the key itself: SEQUENCE { SEQUENCE { algorithm }, BIT STRING without spare bits. RFC 5480, 8410. */
static const uint8_t spki_p256[] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48,
				    0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
				    0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00};
static const uint8_t spki_ed25519[] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03,
				       0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};

size_t pki_spki(const struct x509_key *key, uint8_t out[PKI_SPKI_MAX])
{
	bool p256 = x509_key_type(key) == X509_KEY_P256;
	const uint8_t *head = p256 ? spki_p256 : spki_ed25519;
	size_t n = p256 ? sizeof(spki_p256) : sizeof(spki_ed25519);

	PRE(p256 || x509_key_type(key) == X509_KEY_ED25519);
	memcpy(out, head, n);
	return n + x509_key_pub(key, out + n);
}

int pki_spki_parse(const void *der, size_t len, enum x509_key_type *ret_type,
		   uint8_t ret_pub[X509_PUB_MAX], size_t *ret_pub_len, struct err *err)
{
	const uint8_t *p = der;

	if (len == sizeof(spki_p256) + 65 && memcmp(p, spki_p256, sizeof(spki_p256)) == 0 &&
	    p[sizeof(spki_p256)] == 4) {
		*ret_type = X509_KEY_P256;
		*ret_pub_len = 65;
		memcpy(ret_pub, p + sizeof(spki_p256), 65);
		return 0;
	}
	if (len == sizeof(spki_ed25519) + 32 &&
	    memcmp(p, spki_ed25519, sizeof(spki_ed25519)) == 0) {
		*ret_type = X509_KEY_ED25519;
		*ret_pub_len = 32;
		memcpy(ret_pub, p + sizeof(spki_ed25519), 32);
		return 0;
	}
	return err_field(err, ERR_INVALID, "public_key",
			 "the public key is neither P-256 (uncompressed) nor Ed25519 (%zu bytes)",
			 len);
}

void pki_cert_pem(const void *der, size_t len, struct buf *out)
{
	struct buf text = BUF_INIT;

	base64_append(&text, der, len);
	buf_append_str(out, PEM_BEGIN "\n");
	for (size_t i = 0; i < text.len; i += PEM_LINE) {
		buf_append(out, text.data + i, MIN((size_t)PEM_LINE, text.len - i));
		buf_u8(out, '\n');
	}
	buf_append_str(out, PEM_END "\n");
	buf_done(&text);
}

int pki_cert_der(const char *pem, struct buf *out, struct err *err)
{
	const char *begin = strstr(pem, PEM_BEGIN), *end;
	struct buf text = BUF_INIT;
	int r;

	end = begin == NULL ? NULL : strstr(begin, PEM_END);
	if (end == NULL || strstr(end, PEM_BEGIN) != NULL) {
		return err_set(err, ERR_INVALID, "not one certificate in PEM form");
	}
	for (const char *s = begin + strlen(PEM_BEGIN); s < end; s++) {
		if (*s != '\n' && *s != '\r' && *s != ' ') {
			buf_u8(&text, (uint8_t)*s);
		}
	}
	r = text.len == 0 ? ERR_INVALID : base64_decode_buf((const char *)text.data, text.len, out);
	buf_done(&text);
	return r < 0 ? err_set(err, ERR_INVALID, "the certificate is not base64") : 0;
}

void pki_ca_done(struct pki_ca *ca)
{
	if (ca == NULL) {
		return;
	}
	mem_free(ca->cert_pem);
	x509_key_free(ca->key);
	memset(ca, 0, sizeof(*ca));
}

int pki_ca_new(uint64_t cluster, int64_t now_ms, struct pki_ca *ret, struct err *err)
{
	struct pki_ca ca = {.cluster = cluster};
	struct buf pem = BUF_INIT;
	char subject[64];
	struct x509_spec spec = {
		.subject = subject,
		.not_before_ms = now_ms - PKI_BACKDATE_MS,
		.not_after_ms = now_ms + PKI_CA_LIFETIME_MS,
		.ca = true,
	};
	int r;

	snprintf(subject, sizeof(subject), "Skerry cluster %" PRIu64, cluster);
	r = x509_key_new(X509_KEY_P256, &ca.key, err);
	if (r >= 0) {
		r = x509_make_ca(ca.key, &spec, &pem, err);
	}
	if (r < 0) {
		buf_done(&pem);
		pki_ca_done(&ca);
		return r;
	}
	ca.cert_pem = buf_take(&pem, NULL);
	*ret = ca;
	return 0;
}

int pki_ca_next(const struct pki_ca *old, int64_t now_ms, struct pki_ca *ret,
		struct buf *out_cross_pem, struct err *err)
{
	struct pki_ca ca = {0};
	struct buf cross = BUF_INIT;
	uint8_t pub[X509_PUB_MAX];
	char subject[64];
	struct x509_spec spec = {
		.subject = subject,
		.not_before_ms = now_ms - PKI_BACKDATE_MS,
		.not_after_ms = now_ms + PKI_CA_LIFETIME_MS,
		.ca = true,
	};
	size_t n;
	int r = pki_ca_new(old->cluster, now_ms, &ca, err);

	if (r < 0) {
		return r;
	}
	snprintf(subject, sizeof(subject), "Skerry cluster %" PRIu64, old->cluster);
	n = x509_key_pub(ca.key, pub);
	r = x509_issue(old->key, old->cert_pem, X509_KEY_P256, pub, n, &spec, &cross, err);
	if (r < 0) {
		buf_done(&cross);
		pki_ca_done(&ca);
		return r;
	}
	buf_append(out_cross_pem, cross.data, cross.len);
	buf_done(&cross);
	*ret = ca;
	return 0;
}

bool pki_signed_by(const char *cert_pem, const char *ca_pem)
{
	struct x509_facts cert = {0}, ca = {0};
	bool ok = x509_parse_pem(cert_pem, &cert, NULL) >= 0 &&
		  x509_parse_pem(ca_pem, &ca, NULL) >= 0 &&
		  x509_signed_by(cert_pem, ca_pem, MAX(cert.not_before_ms, ca.not_before_ms));

	x509_facts_done(&cert);
	x509_facts_done(&ca);
	return ok;
}

bool pki_crosses(const char *cross_pem, const char *ca_pem, const char *old_pem)
{
	uint8_t a[32], b[32];

	return pki_pin(cross_pem, a, NULL) >= 0 && pki_pin(ca_pem, b, NULL) >= 0 &&
	       memcmp(a, b, sizeof(a)) == 0 && pki_signed_by(cross_pem, old_pem);
}

/* What the seal is bound to: purpose, cluster and generation. */
static size_t seal_ad(uint64_t cluster, uint32_t generation, char out[64])
{
	return (size_t)snprintf(out, 64, "skerry ca key v1 %" PRIu64 " %" PRIu32, cluster,
				generation);
}

int pki_ca_seal(const struct pki_ca *ca, const uint8_t cluster_key[PKI_KEY], uint32_t generation,
		struct buf *out, struct err *err)
{
	struct buf pem = BUF_INIT;
	char ad[64];
	size_t ad_len = seal_ad(ca->cluster, generation, ad);
	int r;

	/* Reserved, so that no outgrown copy of the key stays in freed memory. */
	buf_reserve(&pem, 4096);
	r = x509_key_pem(ca->key, &pem);
	if (r < 0) {
		buf_wipe(&pem);
		return err_set(err, r, "the CA's key cannot be written");
	}
	crypto_seal(cluster_key, ad, ad_len, pem.data, pem.len, out);
	buf_wipe(&pem);
	return 0;
}

int pki_ca_open(uint64_t cluster, const void *cert_der, size_t cert_len, const void *box,
		size_t box_len, uint32_t generation, const uint8_t cluster_key[PKI_KEY],
		struct pki_ca *ret, struct err *err)
{
	struct pki_ca ca = {.cluster = cluster};
	struct buf key = BUF_INIT, pem = BUF_INIT;
	struct x509_facts facts = {0};
	uint8_t hash[32];
	char ad[64];
	size_t ad_len = seal_ad(cluster, generation, ad);
	int r;

	buf_reserve(&key, box_len + 1);
	if (crypto_open(cluster_key, ad, ad_len, box, box_len, &key) < 0) {
		buf_wipe(&key);
		return err_set(err, ERR_CORRUPT,
			       "the CA's key does not open: cluster.key is not this cluster's");
	}
	r = x509_key_parse(buf_str(&key), &ca.key, err);
	buf_wipe(&key);
	if (r >= 0) {
		r = x509_parse_der(cert_der, cert_len, &facts, err);
	}
	if (r >= 0) {
		x509_key_spki_sha256(ca.key, hash);
		if (memcmp(hash, facts.spki_sha256, sizeof(hash)) != 0) {
			r = err_set(err, ERR_CORRUPT,
				    "the CA's key and certificate do not belong together");
		}
		x509_facts_done(&facts);
	}
	if (r < 0) {
		pki_ca_done(&ca);
		return r;
	}
	pki_cert_pem(cert_der, cert_len, &pem);
	ca.cert_pem = buf_take(&pem, NULL);
	*ret = ca;
	return 0;
}

int pki_pin(const char *cert_pem, uint8_t ret_pin[32], struct err *err)
{
	struct x509_facts facts = {0};
	int r = x509_parse_pem(cert_pem, &facts, err);

	if (r < 0) {
		return r;
	}
	memcpy(ret_pin, facts.spki_sha256, 32);
	x509_facts_done(&facts);
	return 0;
}

static int issue(const struct pki_ca *ca, const void *spki, size_t spki_len,
		 const struct x509_spec *spec, struct buf *out_pem, struct err *err)
{
	enum x509_key_type type;
	uint8_t pub[X509_PUB_MAX];
	size_t pub_len;
	int r = pki_spki_parse(spki, spki_len, &type, pub, &pub_len, err);

	if (r < 0) {
		return r;
	}
	return x509_issue(ca->key, ca->cert_pem, type, pub, pub_len, spec, out_pem, err);
}

int pki_issue_peer(const struct pki_ca *ca, uint64_t id, const void *spki, size_t spki_len,
		   int64_t now_ms, struct buf *out_pem, struct err *err)
{
	char uri[PKI_URI_MAX], name[PKI_URI_MAX], subject[64];
	const char *uris[] = {pki_uri_peer(ca->cluster, id, uri), NULL};
	const char *dns[] = {pki_server_name(ca->cluster, name), NULL}; /* what a joiner asks for */
	struct x509_spec spec = {
		.subject = subject,
		.uris = uris,
		.dns = dns,
		.not_before_ms = now_ms - PKI_BACKDATE_MS,
		.not_after_ms = now_ms + PKI_PEER_LIFETIME_MS,
		.server = true,
		.client = true,
	};

	snprintf(subject, sizeof(subject), "lighthouse %" PRIu64, id);
	return issue(ca, spki, spki_len, &spec, out_pem, err);
}

bool pki_api_names(const char *cert_pem, const char *api_url)
{
	struct x509_facts f;
	struct ipaddr ip;
	char host[256];
	uint16_t port;
	bool tls, found = false;

	if (dial_parse(api_url, host, &port, &tls, NULL) < 0 ||
	    x509_parse_pem(cert_pem, &f, NULL) < 0) {
		return true; /* nothing that another one would mend */
	}
	if (ipaddr_parse(host, &ip, NULL) >= 0) {
		for (size_t i = 0; i < f.n_ips; i++) {
			found |= memcmp(&f.ips[i], &ip, sizeof(ip)) == 0;
		}
	} else {
		for (size_t i = 0; i < f.n_dns; i++) {
			found |= strcasecmp(f.dns[i], host) == 0;
		}
	}
	x509_facts_done(&f);
	return found;
}

int pki_issue_api(const struct pki_ca *ca, uint64_t id, const void *spki, size_t spki_len,
		  const char *api_url, int64_t now_ms, struct buf *out_pem, struct err *err)
{
	char uri[PKI_URI_MAX], name[PKI_URI_MAX], subject[64], host[256];
	const char *uris[] = {pki_uri_api(ca->cluster, id, uri), NULL};
	const char *dns[] = {pki_server_name(ca->cluster, name), host, NULL};
	struct ipaddr ip;
	struct x509_spec spec = {
		.subject = subject,
		.uris = uris,
		.dns = dns,
		.not_before_ms = now_ms - PKI_BACKDATE_MS,
		.not_after_ms = now_ms + PKI_API_LIFETIME_MS,
		.server = true,
	};
	uint16_t port;
	bool tls;

	if (dial_parse(api_url, host, &port, &tls, NULL) < 0 || !tls ||
	    strncmp(api_url, "https://", 8) != 0) {
		return err_field(err, ERR_INVALID, "api_url",
				 "%.200s is not of the form https://host[:port]", api_url);
	}
	if (ipaddr_parse(host, &ip, NULL) >= 0) {
		dns[1] = NULL;
		spec.ips = &ip;
		spec.n_ips = 1;
	}
	snprintf(subject, sizeof(subject), "Skerry API of lighthouse %" PRIu64, id);
	return issue(ca, spki, spki_len, &spec, out_pem, err);
}

bool pki_needs_renewal(const char *cert_pem, int64_t now_ms)
{
	struct x509_facts facts = {0};
	bool due;

	if (cert_pem == NULL || x509_parse_pem(cert_pem, &facts, NULL) < 0) {
		return true;
	}
	due = now_ms >= facts.not_before_ms + (facts.not_after_ms - facts.not_before_ms) / 2;
	x509_facts_done(&facts);
	return due;
}

int pki_verify_member(const struct x509_facts *facts, uint64_t cluster, uint64_t self,
		      uint64_t expect, pki_lookup_fn lookup, void *arg, uint64_t *ret_id,
		      struct err *err)
{
	struct pki_member m = {0};
	uint64_t id;
	int r = pki_peer_id(facts, cluster, &id, err);

	if (r < 0) {
		return r;
	}
	if (id == self) {
		return err_reason(err, ERR_DENIED, "WRONG_NAME",
				  "lighthouse %" PRIu64 " is this lighthouse itself", id);
	}
	if (expect != 0 && id != expect) {
		return err_reason(err, ERR_DENIED, "WRONG_NAME",
				  "lighthouse %" PRIu64 " answered for another one", id);
	}
	lookup(arg, id, &m);
	if (m.removed) {
		return err_reason(err, ERR_DENIED, "MEMBER_REMOVED",
				  "lighthouse %" PRIu64 " was removed from the cluster", id);
	}
	if (!m.known) {
		return err_reason(err, ERR_DENIED, "MEMBER_UNKNOWN",
				  "lighthouse %" PRIu64 " is not a member of the cluster", id);
	}
	if (!crypto_equal(m.spki_sha256, facts->spki_sha256, 32)) {
		return err_reason(err, ERR_DENIED, "WRONG_KEY",
				  "lighthouse %" PRIu64 " is registered with another key", id);
	}
	*ret_id = id;
	return 0;
}

int pki_verify_peer(const void *cert_der, size_t cert_len, const char *ca_pem, uint64_t cluster,
		    uint64_t self, uint64_t expect, pki_lookup_fn lookup, void *arg,
		    uint64_t *ret_id, struct err *err)
{
	struct x509_facts facts = {0}, ca = {0};
	struct buf pem = BUF_INIT;
	int r = x509_parse_der(cert_der, cert_len, &facts, err);

	if (r >= 0) {
		r = x509_parse_pem(ca_pem, &ca, err);
	}
	if (r >= 0) {
		/* Judged at the moment it was made: the dates decide nothing here (see the header). */
		pki_cert_pem(cert_der, cert_len, &pem);
		if (!x509_signed_by(buf_str(&pem), ca_pem,
				    MAX(facts.not_before_ms, ca.not_before_ms))) {
			r = err_reason(err, ERR_DENIED, "FOREIGN_CA",
				       "the certificate (%.100s) is not of this cluster's CA",
				       facts.subject);
		}
	}
	if (r >= 0) {
		r = pki_verify_member(&facts, cluster, self, expect, lookup, arg, ret_id, err);
	}
	buf_done(&pem);
	x509_facts_done(&facts);
	x509_facts_done(&ca);
	return r;
}
