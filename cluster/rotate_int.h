/* Rotation of the CA and of cluster.key on the peer thread: what follows the state, and what an operator asks. */
#pragma once

#include "base/arena.h"
#include "base/crypto.h"
#include "cluster/peer_int.h"
#include "tailnet/records.h"

/* Lives as long as the peer; in guarded memory. */
struct rotate {
	uint8_t box_pub[CRYPTO_KEY],
		box_sec[CRYPTO_KEY]; /* of this process: keys are handed over sealed to it */
	uint64_t epoch, revision;    /* of the state that was looked at */
	uint64_t again_ms;           /* and when to look again although it is the same */
	uint32_t held_generation, held_seal; /* of the box that cluster.key is known to open */
	/* Of what was followed to its end: certificates are parsed again when it changes, and once in a while. */
	struct rotate_mark {
		uint64_t until_ms;
		uint32_t member, level, seal, ca, old_ca, key, own_ca, own_seal, lowest_seal,
			lowest_ca;
	} followed;
	bool confirming, fetching, missing_told;
	uint64_t missing_ms; /* since when the key in force is not here */
	size_t turn;         /* which peer is asked next */
	struct list fetches; /* FetchSeal under way */
	struct list asks;    /* rotations under way that were asked for here */
};

/* What the state says of both; records live in the arena. */
struct rotate_view {
	uint32_t level, seal;
	CaRecord *ca, *old; /* old: NULL, only one counts */
	SealedSecret *key;  /* the CA's */
	bool member;
	uint32_t own_ca, own_seal;
	uint32_t lowest_ca, lowest_seal; /* that a member has confirmed; 0: nothing yet */
	unsigned members, holders;       /* members; those that have confirmed the present key */
};
MUST_CHECK int rotate_look(struct peer *p, struct arena *a, struct rotate_view *ret,
			   struct err *err);

/* At the next tick, whatever the state. */
void rotate_soon(struct peer *p);

/* Has the member behind the link hand over the keys that it has; cb fires once, when they are on the disk. */
typedef void (*rotate_fetched_cb)(void *arg, const struct err *err);
void rotate_fetch(struct peer *p, struct peer_link *l, rotate_fetched_cb cb, void *arg);

/* rotate_ask.c */
void rotate_ask_stop(struct peer *p);
