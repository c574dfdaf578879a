#include "net/x509.h"

#include <string.h>
#include <time.h>

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "base/crypto.h"
#include "base/mem.h"
#include "base/rand.h"
#include "net/x509_int.h"

struct x509_key {
	EVP_PKEY *pkey;
	enum x509_key_type type;
};

int x509_no_password(char *out, int size, int rw, void *arg)
{
	(void)out;
	(void)size;
	(void)rw;
	(void)arg;
	return 0;
}

/* ---- Facts ----------------------------------------------------------------------------------- */

static enum x509_key_type pkey_type(const EVP_PKEY *pkey)
{
	char group[32];

	if (EVP_PKEY_is_a(pkey, "ED25519")) {
		return X509_KEY_ED25519;
	}
	if (EVP_PKEY_is_a(pkey, "EC") &&
	    EVP_PKEY_get_group_name(pkey, group, sizeof(group), NULL) == 1 &&
	    (strcmp(group, "prime256v1") == 0 || strcmp(group, "P-256") == 0)) {
		return X509_KEY_P256;
	}
	return X509_KEY_OTHER;
}

static size_t pkey_pub(EVP_PKEY *pkey, enum x509_key_type type, uint8_t *ret)
{
	size_t len = X509_PUB_MAX;

	if (type == X509_KEY_ED25519) {
		return EVP_PKEY_get_raw_public_key(pkey, ret, &len) == 1 ? len : 0;
	}
	if (type == X509_KEY_P256) {
		unsigned char *point = NULL;

		len = EVP_PKEY_get1_encoded_public_key(pkey, &point);
		if (len > X509_PUB_MAX) {
			len = 0;
		}
		memcpy(ret, point, len);
		OPENSSL_free(point);
		return len;
	}
	return 0;
}

static void pkey_spki_hash(EVP_PKEY *pkey, uint8_t ret_hash[32])
{
	unsigned char *der = NULL;
	int len = i2d_PUBKEY(pkey, &der);

	memset(ret_hash, 0, 32);
	if (len > 0) {
		crypto_sha256(ret_hash, der, (size_t)len);
	}
	OPENSSL_free(der);
}

void x509_spki_hash(X509 *cert, uint8_t ret_hash[32])
{
	EVP_PKEY *pkey = X509_get0_pubkey(cert);

	memset(ret_hash, 0, 32);
	if (pkey != NULL) {
		pkey_spki_hash(pkey, ret_hash);
	}
}

static char *name_common(X509_NAME *name)
{
	int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
	unsigned char *utf8 = NULL;

	if (at < 0 || ASN1_STRING_to_UTF8(
			      &utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at))) < 0) {
		return mem_strdup("");
	}
	char *out = mem_strdup((char *)utf8);
	OPENSSL_free(utf8);
	return out;
}

static int64_t time_ms(const ASN1_TIME *t)
{
	struct tm tm = {0};

	if (t == NULL || ASN1_TIME_to_tm(t, &tm) != 1) {
		return 0;
	}
	return (int64_t)timegm(&tm) * 1000;
}

/* A name with a NUL inside, or too many, makes the certificate unreadable: nothing is skipped
 * silently. */
static int facts_names(X509 *cert, struct x509_facts *f, struct err *err)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	int rc = 0;

	for (int i = 0; rc == 0 && i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *gn = sk_GENERAL_NAME_value(names, i);
		const ASN1_STRING *text = gn->type == GEN_URI     ? gn->d.uniformResourceIdentifier
					  : gn->type == GEN_DNS   ? gn->d.dNSName
					  : gn->type == GEN_IPADD ? gn->d.iPAddress
								  : NULL;
		if (text == NULL) {
			continue;
		}
		const char *data = (const char *)ASN1_STRING_get0_data(text);
		size_t len = (size_t)ASN1_STRING_length(text);

		if (f->n_uris == X509_NAMES_MAX || f->n_dns == X509_NAMES_MAX ||
		    f->n_ips == X509_NAMES_MAX) {
			rc = err_set(err, ERR_LIMIT, "the certificate has more than %d names",
				     X509_NAMES_MAX - 1);
		} else if (gn->type == GEN_IPADD) {
			f->n_ips += ipaddr_from_bytes(data, len, &f->ips[f->n_ips]);
		} else if (memchr(data, '\0', len) != NULL) {
			rc = err_set(err, ERR_INVALID,
				     "the certificate has a name with a NUL byte");
		} else if (gn->type == GEN_URI) {
			f->uris[f->n_uris++] = mem_strndup(data, len);
		} else {
			f->dns[f->n_dns++] = mem_strndup(data, len);
		}
	}
	GENERAL_NAMES_free(names);
	return rc;
}

int x509_facts_of(X509 *cert, struct x509_facts *ret_facts, struct err *err)
{
	struct x509_facts f = {0};
	EVP_PKEY *pkey = X509_get0_pubkey(cert);
	unsigned char *der = NULL;

	if (pkey == NULL) {
		ERR_clear_error();
		return err_field(err, ERR_INVALID, "certificate",
				 "the certificate's public key cannot be read");
	}
	int len = i2d_X509(cert, &der);
	if (len > 0) {
		crypto_sha256(f.sha256, der, (size_t)len);
	}
	OPENSSL_free(der);
	f.subject = name_common(X509_get_subject_name(cert));
	f.issuer = name_common(X509_get_issuer_name(cert));
	f.key_type = pkey_type(pkey);
	f.pub_len = pkey_pub(pkey, f.key_type, f.pub);
	pkey_spki_hash(pkey, f.spki_sha256);
	f.not_before_ms = time_ms(X509_get0_notBefore(cert));
	f.not_after_ms = time_ms(X509_get0_notAfter(cert));
	f.is_ca = X509_check_ca(cert) == 1;
	const ASN1_INTEGER *serial = X509_get0_serialNumber(cert);
	f.serial_len = MIN((size_t)ASN1_STRING_length(serial), sizeof(f.serial));
	memcpy(f.serial, ASN1_STRING_get0_data(serial), f.serial_len);
	int rc = facts_names(cert, &f, err);
	ERR_clear_error();
	if (rc != 0) {
		x509_facts_done(&f);
		return rc;
	}
	*ret_facts = f;
	return 0;
}

void x509_facts_done(struct x509_facts *f)
{
	if (f == NULL) {
		return;
	}
	for (size_t i = 0; i < f->n_uris; i++) {
		mem_free(f->uris[i]);
	}
	for (size_t i = 0; i < f->n_dns; i++) {
		mem_free(f->dns[i]);
	}
	mem_free(f->subject);
	mem_free(f->issuer);
	memset(f, 0, sizeof(*f));
}

bool x509_facts_has_uri(const struct x509_facts *f, const char *uri)
{
	for (size_t i = 0; i < f->n_uris; i++) {
		if (strcmp(f->uris[i], uri) == 0) {
			return true;
		}
	}
	return false;
}

static X509 *read_pem(const char *pem)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	X509 *cert = PEM_read_bio_X509(bio, NULL, x509_no_password, NULL);

	BIO_free(bio);
	ERR_clear_error();
	return cert;
}

static int facts_and_free(X509 *cert, struct x509_facts *ret_facts, struct err *err)
{
	if (cert == NULL) {
		ERR_clear_error();
		return err_field(err, ERR_INVALID, "certificate", "no certificate can be read");
	}
	int rc = x509_facts_of(cert, ret_facts, err);
	X509_free(cert);
	return rc;
}

int x509_parse_pem(const char *pem, struct x509_facts *ret_facts, struct err *err)
{
	return facts_and_free(read_pem(pem), ret_facts, err);
}

int x509_parse_der(const void *der, size_t len, struct x509_facts *ret_facts, struct err *err)
{
	const unsigned char *p = der;

	return facts_and_free(d2i_X509(NULL, &p, (long)len), ret_facts, err);
}

/* ---- Keys ------------------------------------------------------------------------------------ */

static struct x509_key *key_wrap(EVP_PKEY *pkey)
{
	struct x509_key *key = MEM_NEW(struct x509_key);

	key->pkey = pkey;
	key->type = pkey_type(pkey);
	return key;
}

int x509_key_new(enum x509_key_type type, struct x509_key **ret_key, struct err *err)
{
	EVP_PKEY *pkey = NULL;

	if (type == X509_KEY_ED25519) {
		pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	} else if (type == X509_KEY_P256) {
		pkey = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	}
	if (pkey == NULL) {
		ERR_clear_error();
		return err_set(err, ERR_INVALID, "keys of this type cannot be made");
	}
	*ret_key = key_wrap(pkey);
	return 0;
}

EVP_PKEY *x509_read_key(const char *pem)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	EVP_PKEY *pkey = PEM_read_bio_PrivateKey(bio, NULL, x509_no_password, NULL);

	BIO_free(bio);
	return pkey;
}

int x509_key_parse(const char *pem, struct x509_key **ret_key, struct err *err)
{
	EVP_PKEY *pkey = x509_read_key(pem);

	ERR_clear_error();
	if (pkey == NULL) {
		return err_field(err, ERR_INVALID, "key",
				 "no unencrypted private key can be read from the PEM text");
	}
	*ret_key = key_wrap(pkey);
	return 0;
}

void x509_key_free(struct x509_key *key)
{
	if (key == NULL) {
		return;
	}
	EVP_PKEY_free(key->pkey);
	mem_free(key);
}

int x509_key_pem(const struct x509_key *key, struct buf *out)
{
	BIO *bio = BIO_new(BIO_s_secmem());
	char *text;
	int rc = ERR_INTERNAL;

	if (PEM_write_bio_PKCS8PrivateKey(bio, key->pkey, NULL, NULL, 0, NULL, NULL) == 1) {
		long len = BIO_get_mem_data(bio, &text);

		buf_append(out, text, (size_t)len);
		rc = 0;
	}
	BIO_free(bio);
	ERR_clear_error();
	return rc;
}

enum x509_key_type x509_key_type(const struct x509_key *key)
{
	return key->type;
}

size_t x509_key_pub(const struct x509_key *key, uint8_t *ret_pub)
{
	return pkey_pub(key->pkey, key->type, ret_pub);
}

void x509_key_spki_sha256(const struct x509_key *key, uint8_t ret_hash[32])
{
	pkey_spki_hash(key->pkey, ret_hash);
}

int x509_key_seed(const struct x509_key *key, uint8_t ret_seed[32])
{
	size_t len = 32;

	if (key->type != X509_KEY_ED25519 ||
	    EVP_PKEY_get_raw_private_key(key->pkey, ret_seed, &len) != 1) {
		return ERR_INVALID;
	}
	return 0;
}

int x509_key_from_seed(const uint8_t seed[32], struct x509_key **ret_key)
{
	EVP_PKEY *pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, 32);

	if (pkey == NULL) {
		return ERR_INVALID;
	}
	*ret_key = key_wrap(pkey);
	return 0;
}

static EVP_PKEY *pub_read(enum x509_key_type type, const uint8_t *pub, size_t len)
{
	EVP_PKEY *pkey = NULL;

	if (type == X509_KEY_ED25519 && len == 32) {
		pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, pub, len);
	} else if (type == X509_KEY_P256 && len == 65) {
		EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
		char group[] = "P-256";
		OSSL_PARAM params[] = {
			OSSL_PARAM_construct_utf8_string("group", group, 0),
			OSSL_PARAM_construct_octet_string("pub", (void *)pub, len),
			OSSL_PARAM_construct_end(),
		};

		if (EVP_PKEY_fromdata_init(ctx) != 1 ||
		    EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params) != 1) {
			pkey = NULL;
		}
		EVP_PKEY_CTX_free(ctx);
	}
	ERR_clear_error();
	return pkey;
}

int x509_pub_spki_sha256(enum x509_key_type type, const uint8_t *pub, size_t pub_len,
			 uint8_t ret_hash[32], struct err *err)
{
	EVP_PKEY *pkey = pub_read(type, pub, pub_len);

	if (pkey == NULL) {
		return err_field(err, ERR_INVALID, "public_key", "not a public key of this type");
	}
	pkey_spki_hash(pkey, ret_hash);
	EVP_PKEY_free(pkey);
	return 0;
}

/* ---- Issuing --------------------------------------------------------------------------------- */

static bool add_ext(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;

	X509V3_set_ctx_nodb(&ctx);
	X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
	X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	bool ok = ext != NULL && X509_add_ext(cert, ext, -1) == 1;
	X509_EXTENSION_free(ext);
	return ok;
}

static void add_name(GENERAL_NAMES *names, int type, const void *data, size_t len)
{
	GENERAL_NAME *gn = GENERAL_NAME_new();
	ASN1_STRING *text = type == GEN_IPADD ? ASN1_OCTET_STRING_new() : ASN1_IA5STRING_new();

	ASN1_STRING_set(text, data, (int)len);
	GENERAL_NAME_set0_value(gn, type, text);
	sk_GENERAL_NAME_push(names, gn);
}

/* Built as objects, not as configuration text: a name cannot smuggle in another one. */
static bool add_names(X509 *cert, const struct x509_spec *spec)
{
	GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
	bool ok = true;

	for (size_t i = 0; spec->uris != NULL && spec->uris[i] != NULL; i++) {
		add_name(names, GEN_URI, spec->uris[i], strlen(spec->uris[i]));
	}
	for (size_t i = 0; spec->dns != NULL && spec->dns[i] != NULL; i++) {
		add_name(names, GEN_DNS, spec->dns[i], strlen(spec->dns[i]));
	}
	for (size_t i = 0; i < spec->n_ips; i++) {
		add_name(names, GEN_IPADD, spec->ips[i].b, ipaddr_len(&spec->ips[i]));
	}
	if (sk_GENERAL_NAME_num(names) > 0) {
		ok = X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) ==
		     1;
	}
	GENERAL_NAMES_free(names);
	return ok;
}

static bool set_times(X509 *cert, const struct x509_spec *spec)
{
	return ASN1_TIME_set(X509_getm_notBefore(cert), (time_t)(spec->not_before_ms / 1000)) !=
		       NULL &&
	       ASN1_TIME_set(X509_getm_notAfter(cert), (time_t)(spec->not_after_ms / 1000)) != NULL;
}

static bool set_serial(X509 *cert)
{
	uint8_t bytes[16];

	rand_bytes(bytes, sizeof(bytes));
	bytes[0] = (uint8_t)((bytes[0] & 0x7f) | 0x40); /* positive, and always 16 bytes long */
	BIGNUM *bn = BN_bin2bn(bytes, sizeof(bytes), NULL);
	bool ok = bn != NULL && BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(cert)) != NULL;
	BN_free(bn);
	return ok;
}

static int make(EVP_PKEY *pub, EVP_PKEY *sign_key, X509 *issuer, const struct x509_spec *spec,
		struct buf *out, struct err *err)
{
	X509 *cert = X509_new();
	X509_NAME *name = X509_get_subject_name(cert);
	const char *usage = spec->ca ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature";
	const char *ext_usage = spec->server && spec->client ? "serverAuth,clientAuth"
				: spec->server               ? "serverAuth"
				: spec->client               ? "clientAuth"
							     : NULL;
	int rc = ERR_INTERNAL;

	X509 *parent = issuer != NULL ? issuer : cert;
	bool ok = X509_set_version(cert, X509_VERSION_3) == 1 && set_serial(cert) &&
		  set_times(cert, spec) && X509_set_pubkey(cert, pub) == 1 &&
		  X509_NAME_add_entry_by_NID(name, NID_commonName, MBSTRING_UTF8,
					     (const unsigned char *)spec->subject, -1, -1,
					     0) == 1 &&
		  X509_set_issuer_name(cert, X509_get_subject_name(parent)) == 1 &&
		  add_ext(cert, parent, NID_basic_constraints,
			  spec->ca ? "critical,CA:TRUE,pathlen:0" : "critical,CA:FALSE") &&
		  add_ext(cert, parent, NID_key_usage, usage) &&
		  (ext_usage == NULL || add_ext(cert, parent, NID_ext_key_usage, ext_usage)) &&
		  add_ext(cert, parent, NID_subject_key_identifier, "hash") &&
		  add_ext(cert, parent, NID_authority_key_identifier, "keyid:always") &&
		  add_names(cert, spec) &&
		  X509_sign(cert, sign_key,
			    EVP_PKEY_is_a(sign_key, "ED25519") ? NULL : EVP_sha256()) > 0;
	if (ok) {
		BIO *bio = BIO_new(BIO_s_mem());
		char *text;

		if (PEM_write_bio_X509(bio, cert) == 1) {
			long len = BIO_get_mem_data(bio, &text);

			buf_append(out, text, (size_t)len);
			rc = 0;
		}
		BIO_free(bio);
	}
	if (rc != 0) {
		unsigned long e = ERR_peek_last_error();

		err_set(err, rc, "the certificate for %s cannot be made: %s", spec->subject,
			e != 0 ? ERR_reason_error_string(e) : "unknown cause");
	}
	ERR_clear_error();
	X509_free(cert);
	return rc;
}

int x509_make_ca(const struct x509_key *key, const struct x509_spec *spec, struct buf *out_pem,
		 struct err *err)
{
	struct x509_spec ca = *spec;

	ca.ca = true;
	return make(key->pkey, key->pkey, NULL, &ca, out_pem, err);
}

int x509_issue(const struct x509_key *ca_key, const char *ca_pem, enum x509_key_type pub_type,
	       const uint8_t *pub, size_t pub_len, const struct x509_spec *spec,
	       struct buf *out_pem, struct err *err)
{
	X509 *ca = read_pem(ca_pem);
	EVP_PKEY *pkey = pub_read(pub_type, pub, pub_len);
	int rc;

	if (ca == NULL || X509_check_private_key(ca, ca_key->pkey) != 1) {
		rc = err_field(err, ERR_INVALID, "ca",
			       "the CA certificate cannot be read or is not of the CA key");
	} else if (pkey == NULL) {
		rc = err_field(err, ERR_INVALID, "public_key", "not a public key of this type");
	} else {
		rc = make(pkey, ca_key->pkey, ca, spec, out_pem, err);
	}
	ERR_clear_error();
	EVP_PKEY_free(pkey);
	X509_free(ca);
	return rc;
}

bool x509_signed_by(const char *leaf_pem, const char *ca_pem, int64_t now_ms)
{
	X509 *leaf = read_pem(leaf_pem);
	X509 *ca = read_pem(ca_pem);
	bool ok = leaf != NULL && ca != NULL && X509_check_ca(ca) == 1 &&
		  X509_verify(leaf, X509_get0_pubkey(ca)) == 1 &&
		  X509_NAME_cmp(X509_get_issuer_name(leaf), X509_get_subject_name(ca)) == 0 &&
		  time_ms(X509_get0_notBefore(leaf)) <= now_ms &&
		  now_ms <= time_ms(X509_get0_notAfter(leaf)) &&
		  time_ms(X509_get0_notBefore(ca)) <= now_ms &&
		  now_ms <= time_ms(X509_get0_notAfter(ca));

	ERR_clear_error();
	X509_free(leaf);
	X509_free(ca);
	return ok;
}
