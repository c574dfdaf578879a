/* Who this device is: its keys, where it is enrolled, and the number of its last attach. All of it in the state directory. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "base/err.h"
#include "base/limits.h"
#include "base/macros.h"
#include "base/prefix.h"

#define IDENTITY_PREFIXES 8
#define IDENTITY_NAME     254
#define IDENTITY_CODE     64

/*
 * Files: machine.key (Ed25519 seed and the host it was made on), node.key (X25519 secret), session (a number), cluster.json.
 * A directory that came to another host (its machine-id differs) gives new keys and no enrolment: two devices must never
 * share an identity.
 */
struct enrolment {
	bool registered;
	uint64_t cluster_id; /* 0: no cluster known yet */
	bool has_pin;
	uint8_t pin[32]; /* SHA-256 over the SPKI of the cluster's CA */
	/* While the CA is rotated the one before counts as well. */
	bool has_old_pin;
	uint8_t old_pin[32];
	uint64_t tailnet_id;
	uint64_t node_id;
	char stable_id[IDENTITY_NAME];
	char name[IDENTITY_NAME];
	char tailnet_name[IDENTITY_NAME];
	char user[IDENTITY_NAME];
	int64_t expire_ms;                         /* unix ms, 0 = never */
	struct prefix prefixes[IDENTITY_PREFIXES]; /* the tailnet's at enrolment */
	size_t n_prefixes;
	char *lighthouses[LIM_LIGHTHOUSE_URLS]; /* learnt URLs, owned */
	size_t n_lighthouses;
	char *last_good; /* URL, owned, NULL = none */
	/* A person has been asked to let this device in: the code, "" = nobody. It outlasts a restart. */
	char pending_code[IDENTITY_CODE];
	bool pending_ephemeral;
};

struct identity {
	char *dir;
	uint8_t machine_key[32]; /* public */
	uint8_t *machine_seed;   /* guarded memory */
	uint8_t node_key[32];
	uint8_t *node_secret;
	uint8_t disco_key[32]; /* of this process */
	uint8_t *disco_secret;
	char instance_id[33];      /* random, of this process */
	uint64_t session;          /* last one used */
	uint64_t session_reserved; /* on disk: none above it was used */
	struct enrolment enrolment;
	bool moved; /* the directory came from another host, or its machine key is gone: keys are new */
};

/*
 * Reads the directory or makes what is missing (0700, files 0600). Modes that are wider are ERR_PRECONDITION with the
 * remedy; damaged files ERR_CORRUPT. Blocks.
 */
MUST_CHECK int identity_open(const char *dir, const char *machine_id_file, struct identity *ret,
			     struct err *e);
void identity_done(struct identity *id);

/* The next session number; it is never given twice, not even after a crash. */
MUST_CHECK int identity_next_session(struct identity *id, uint64_t *ret, struct err *e);
/* Notes that a person was asked, under this code, or with "" that nobody is any more, and writes cluster.json if that is new. */
void identity_set_pending(struct identity *id, const char *code, bool ephemeral);
/* Writes cluster.json. */
MUST_CHECK int identity_save_enrolment(struct identity *id, struct err *e);
/* Forgets the registration and makes a new node key. The cluster and its pin stay. */
MUST_CHECK int identity_forget(struct identity *id, struct err *e);

/*
 * The pins that the cluster says count, the first one first (a lighthouse that held one of ours said them). Returns true
 * if they differ from those that are kept. More than two, or one of another length: nothing is taken.
 */
bool enrolment_set_pins(struct enrolment *en, const ProtobufCBinaryData *pins, size_t n);
/* Is it one of ours? */
bool enrolment_has_pin(const struct enrolment *en, const uint8_t pin[32]);

void enrolment_done(struct enrolment *en);
/* Replaces the learnt URLs; returns true if they differ. */
bool enrolment_set_lighthouses(struct enrolment *en, char *const *urls, size_t n);
void enrolment_set_last_good(struct enrolment *en, const char *url);
