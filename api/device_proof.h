/* The proof of a device: its machine key's signature over the TLS connection (skerry/v1/agent.proto). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"

struct rpc_call;

enum {
	DEVICE_EXPORTER = 32,
	DEVICE_PROOF = 64,
	DEVICE_PROOF_TEXT = 22 + 1 + 8 + 8 + DEVICE_EXPORTER
};

/* What is signed: "skerry device proof v1", 0, cluster id, lighthouse id, exporter. */
void device_proof_text(uint64_t cluster_id, uint64_t lighthouse_id,
		       const uint8_t exporter[DEVICE_EXPORTER],
		       uint8_t ret_text[DEVICE_PROOF_TEXT]);

/*
 * Pure. ERR_UNAUTHENTICATED with reason DEVICE_PROOF_MALFORMED (lengths, zero key) or DEVICE_PROOF_INVALID
 * (the signature is not of this key over this connection: also what a terminating proxy causes, and the message says so).
 */
MUST_CHECK int device_proof_verify(const void *machine_key, size_t key_len, const void *proof,
				   size_t proof_len, uint64_t cluster_id, uint64_t lighthouse_id,
				   const uint8_t exporter[DEVICE_EXPORTER], struct err *err);

/*
 * The exporter of the call's connection for a machine key (label EXPORTER-skerry-device-v1, context the key).
 * ERR_PRECONDITION (reason TLS13_REQUIRED) without TLS 1.3.
 */
MUST_CHECK int device_exporter(struct rpc_call *call, const uint8_t machine_key[32],
			       uint8_t ret_exporter[DEVICE_EXPORTER], struct err *err);

/*
 * The machine key that the call proves: by its own metadata, or by an earlier call on the same connection (the
 * metadata then names the same key). 0 and *ret_key; 1: the call names no machine key; ERR_UNAUTHENTICATED.
 * The gate calls it for each method of AgentService; handlers read caller_of(call)->machine_key.
 */
MUST_CHECK int device_proof_call(struct rpc_call *call, uint64_t cluster_id, uint64_t lighthouse_id,
				 uint8_t ret_key[32], struct err *err);
