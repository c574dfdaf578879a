/* The proof of a device: what is signed, how it is verified, and its memory per connection. */
#include "api/device_proof.h"

#include <string.h>

#include "base/crypto.h"
#include "base/enc.h"
#include "base/mem.h"
#include "net/rpc.h"
#include "net/stream.h"

#define LABEL "skerry device proof v1"

static const char conn_kind; /* its address names our pointer at a connection */

/* What a connection has proved. */
struct proved {
	uint8_t machine_key[32];
};

void device_proof_text(uint64_t cluster_id, uint64_t lighthouse_id,
		       const uint8_t exporter[DEVICE_EXPORTER], uint8_t ret_text[DEVICE_PROOF_TEXT])
{
	uint8_t *p = ret_text;

	_Static_assert(sizeof(LABEL) + 16 + DEVICE_EXPORTER == DEVICE_PROOF_TEXT,
		       "length of what is signed");
	memcpy(p, LABEL, sizeof(LABEL)); /* with its NUL */
	p += sizeof(LABEL);
	be_put64(p, cluster_id);
	be_put64(p + 8, lighthouse_id);
	memcpy(p + 16, exporter, DEVICE_EXPORTER);
}

static bool all_zero(const uint8_t *p, size_t len)
{
	uint8_t any = 0;

	for (size_t i = 0; i < len; i++)
		any |= p[i];
	return any == 0;
}

int device_proof_verify(const void *machine_key, size_t key_len, const void *proof,
			size_t proof_len, uint64_t cluster_id, uint64_t lighthouse_id,
			const uint8_t exporter[DEVICE_EXPORTER], struct err *err)
{
	uint8_t text[DEVICE_PROOF_TEXT];

	if (key_len != CRYPTO_KEY || all_zero(machine_key, key_len))
		return err_reason(
			err, ERR_UNAUTHENTICATED, "DEVICE_PROOF_MALFORMED",
			"skerry-machine-key-bin holds %zu bytes; it is an Ed25519 public key "
			"of 32 bytes that are not all zero",
			key_len);
	if (proof_len != DEVICE_PROOF)
		return err_reason(
			err, ERR_UNAUTHENTICATED, "DEVICE_PROOF_MALFORMED",
			"skerry-device-proof-bin holds %zu bytes; it is a signature of 64 bytes",
			proof_len);
	device_proof_text(cluster_id, lighthouse_id, exporter, text);
	if (!crypto_ed25519_verify(proof, machine_key, text, sizeof(text)))
		return err_reason(err, ERR_UNAUTHENTICATED, "DEVICE_PROOF_INVALID",
				  "the device proof is not by this machine key over this TLS "
				  "connection: is there a proxy between that ends TLS?");
	return 0;
}

int device_exporter(struct rpc_call *call, const uint8_t machine_key[32],
		    uint8_t ret_exporter[DEVICE_EXPORTER], struct err *err)
{
	struct stream *stream = rpc_call_stream(call);

	if (!stream || stream_export(stream, "EXPORTER-skerry-device-v1", machine_key, 32,
				     ret_exporter, DEVICE_EXPORTER) < 0)
		return err_reason(
			err, ERR_PRECONDITION, "TLS13_REQUIRED",
			"devices call over TLS 1.3, end to end: their proof is bound to the "
			"connection");
	return 0;
}

int device_proof_call(struct rpc_call *call, uint64_t cluster_id, uint64_t lighthouse_id,
		      uint8_t ret_key[32], struct err *err)
{
	struct proved *proved = rpc_call_conn_data(call, &conn_kind);
	uint8_t exporter[DEVICE_EXPORTER];
	const uint8_t *key, *proof;
	size_t key_len, proof_len;
	int rc;

	key = rpc_call_metadata_bin(call, "skerry-machine-key-bin", &key_len);
	if (!key && !rpc_call_metadata(call, "skerry-machine-key-bin"))
		return 1;
	if (!key)
		return err_reason(err, ERR_UNAUTHENTICATED, "DEVICE_PROOF_MALFORMED",
				  "skerry-machine-key-bin is not base64");
	if (proved && key_len == 32 && !memcmp(proved->machine_key, key, 32)) {
		memcpy(ret_key, key, 32);
		return 0;
	}
	proof = rpc_call_metadata_bin(call, "skerry-device-proof-bin", &proof_len);
	if (!proof)
		return err_reason(err, ERR_UNAUTHENTICATED, "DEVICE_PROOF_MISSING",
				  "the connection has not proved the machine key: send "
				  "skerry-device-proof-bin with its first call");
	if (key_len != 32) /* nothing to export for */
		return device_proof_verify(key, key_len, proof, proof_len, cluster_id,
					   lighthouse_id, exporter, err);
	rc = device_exporter(call, key, exporter, err);
	if (rc < 0)
		return rc;
	rc = device_proof_verify(key, key_len, proof, proof_len, cluster_id, lighthouse_id,
				 exporter, err);
	if (rc < 0)
		return rc;
	proved = MEM_NEW(struct proved);
	memcpy(proved->machine_key, key, 32);
	rpc_call_set_conn_data(call, &conn_kind, proved, mem_free);
	memcpy(ret_key, key, 32);
	return 0;
}
