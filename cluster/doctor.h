/* The judgement of `skerry cluster doctor`: from what the lighthouses say to what is wrong and what to do. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster/cluster.h"

enum doctor_severity { DOCTOR_NOTE = 1, DOCTOR_WARNING, DOCTOR_ERROR };

struct doctor_finding {
	enum doctor_severity severity;
	const char *code; /* of docs/doctor.md; static */
	uint64_t id;      /* of the lighthouse; 0: the cluster */
	char message[256], remedy[256];
};

struct doctor_input {
	size_t n;
	const struct cluster_facts *facts; /* one per member; borrowed */
	uint64_t self;                     /* who was asked */
	bool quorum;
	uint32_t feature_level;
	int64_t now_ms; /* unix time of who was asked */
	/* A comparison of the states; n_digests 0: none was made, and why. */
	size_t n_digests;
	const struct cluster_digest *digests;
	const char *no_digests;
	/* The change of the members that is under way, in words; NULL: none. How long it is at its step. */
	const char *change;
	int64_t change_ms;
	bool change_waits; /* for a new host to join: that takes a person */
};

enum {
	DOCTOR_MAX = 128, /* findings; what is beyond is left out */
	DOCTOR_CLOCK_WARN_MS = 1000,
	DOCTOR_CLOCK_ERROR_MS = 10000, /* the leader hands over */
	DOCTOR_APPENDS = 20,           /* fewer say nothing of the disk */
	DOCTOR_APPEND_WARN_US = 100 * 1000,
	DOCTOR_APPEND_ERROR_US = 1000 * 1000, /* the election timeout */
	DOCTOR_LAG_WARN = 1000,
	DOCTOR_LAG_ERROR = 100 * 1000,
	DOCTOR_FULL_WARN = 800, /* parts of a thousand */
	DOCTOR_FULL_ERROR = 950,
	DOCTOR_API_CERT_DAYS = 30,  /* it is renewed with 45 days left */
	DOCTOR_PEER_CERT_DAYS = 90, /* with 182 */
	DOCTOR_CA_CERT_DAYS = 365,
	DOCTOR_BACKUP_DAYS = 7,
	DOCTOR_CHANGE_MS = 60 * 1000, /* a step of a change of the members takes no longer */
};
#define DOCTOR_DISK_WARN (1ull << 30)

struct doctor_result {
	enum doctor_severity severity; /* the worst; DOCTOR_NOTE when there is none */
	int quorum_margin;             /* voters that may still fail; -1: the quorum is lost */
	size_t n;
	struct doctor_finding finding[DOCTOR_MAX]; /* worst first */
};

/* Never fails. */
void doctor_judge(const struct doctor_input *in, struct doctor_result *ret);
