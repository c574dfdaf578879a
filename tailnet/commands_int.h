/* The handlers of the commands, and what several of them share. */
#pragma once

#include "tailnet/state_int.h"

/* Each checks everything, then writes. ACCEPT or REFUSE. */
int cmd_bootstrap(struct state *st);
int cmd_lighthouse_start(struct state *st);
int cmd_lighthouse_lost(struct state *st);
int cmd_join_token_create(struct state *st);
int cmd_member_join(struct state *st);
int cmd_member_set_kind(struct state *st);
int cmd_tick(struct state *st);
int cmd_digest_marker(struct state *st);
int cmd_raise_feature_level(struct state *st);
int cmd_secret_put(struct state *st);
int cmd_epoch_begin(struct state *st);
int cmd_ca_rotate(struct state *st);
int cmd_ca_retire(struct state *st);
int cmd_seal_rotate(struct state *st);
int cmd_member_confirm(struct state *st);
int cmd_backup_note(struct state *st);
int cmd_change_begin(struct state *st);
int cmd_change_progress(struct state *st);
int cmd_change_end(struct state *st);
int cmd_tailnet_create(struct state *st);
int cmd_tailnet_update(struct state *st);
int cmd_tailnet_delete(struct state *st);
int cmd_user_create(struct state *st);
int cmd_user_update(struct state *st);
int cmd_user_delete(struct state *st);
int cmd_auth_key_create(struct state *st);
int cmd_auth_key_delete(struct state *st);
int cmd_api_key_create(struct state *st);
int cmd_api_key_delete(struct state *st);
int cmd_node_register(struct state *st);
int cmd_node_create(struct state *st);
int cmd_node_update(struct state *st);
int cmd_node_delete(struct state *st);
int cmd_node_logout(struct state *st);
int cmd_pending_create(struct state *st);
int cmd_pending_decide(struct state *st);
int cmd_node_facts(struct state *st);
int cmd_session_batch(struct state *st);

/* The highest feature level of the fields that are set in a message, at any depth; 1: of the first. */
uint32_t level_of_fields(const ProtobufCMessage *m);
/* Are there fields at all that need more than this level? */
bool level_fields_above(uint32_t level);

/* ---- shared: values of a request; they refuse with the field named ---- */
int valid_text(struct state *st, const char *text, size_t max, const char *field);
/* What agents take as the tailnet's own zone: two labels at least, none that clients look up by themselves. */
int valid_base_domain(struct state *st, const char *domain, const char *field);
int valid_tags(struct state *st, char **tags, size_t n, const char *field);
int valid_dns(struct state *st, const Skerry__V1__DnsConfig *dns, const char *field);
int valid_prefixes(struct state *st, Skerry__V1__Prefix **prefixes, size_t n, const char *field);
int valid_facts(struct state *st, const RegisterFacts *f);
int valid_endpoints(struct state *st, Skerry__V1__Endpoint **e, size_t n, const char *field);
int valid_host_info(struct state *st, const Skerry__V1__HostInfo *h, const char *field);
int valid_credential(struct state *st, const Skerry__Internal__V1__Credential *c);
/* The etag of an object that was last changed at `revision`. */
int valid_etag(struct state *st, const char *etag, uint64_t revision);
bool bytes_equal(ProtobufCBinaryData a, ProtobufCBinaryData b);
bool bytes_zero(ProtobufCBinaryData b);
bool has_tag(char *const *tags, size_t n, const char *tag);

/* ---- shared: the system (cmd_system.c) ---- */
int valid_ca(struct state *st, const CaRecord *ca);
int valid_secret(struct state *st, const SealedSecret *s);
void ca_put(struct state *st, const CaRecord *ca);
void secret_put(struct state *st, const SealedSecret *s);
/* Which cluster.key the secrets are sealed under, from 1. All change together. */
uint32_t seal_now(struct state *st);
/*
 * The records of a table in the order of their keys; k starts zeroed and holds the key of the one returned. NULL: there are
 * no more, or the store failed, which ends the command.
 */
void *record_next(struct state *st, enum table table, struct skey *k,
		  const ProtobufCMessageDescriptor *desc);

/* ---- shared: members ---- */
/* Neither unknown nor removed; else refuses and returns NULL. */
MemberRecord *member_alive(struct state *st, uint64_t id);
/* A new token whose values were checked; change: the replacement that it is for, 0: none. */
void join_token_put(struct state *st, const Skerry__Internal__V1__Credential *c,
		    uint64_t lifetime_ms, uint64_t change);
/* Checks those values. */
int valid_join_token(struct state *st, const Skerry__Internal__V1__Credential *c,
		     uint64_t lifetime_ms);
/* The change of the members that runs; NULL: none. */
MembershipChange *membership_running(struct state *st);
void membership_put(struct state *st, MembershipChange *c);
/* It ends so, whatever has come of it. */
void membership_close(struct state *st, MembershipChange *c, int outcome);
/* Goes to another step. */
void membership_step(struct state *st, MembershipChange *c, int step, uint64_t about);

/* ---- shared: objects ---- */
/* A new tailnet with its first user; checked before. */
void tailnet_make(struct state *st, const char *name, const Skerry__V1__DnsConfig *dns,
		  const char *base_domain, uint64_t node_expiry_ms, const char *user_name,
		  Skerry__V1__Prefix **prefixes, size_t n_prefixes, uint64_t *ret_id);
/* Takes a key away, with index entries and deadline. */
void auth_key_remove(struct state *st, const AuthKeyRecord *k);
void api_key_remove(struct state *st, const ApiKeyRecord *k);
void pending_remove(struct state *st, const PendingRecord *p);

/* ---- shared: nodes ---- */
/* What a registration is to be made with, after its permission was judged. */
struct registration {
	const RegisterFacts *facts;
	uint64_t user;
	bool user_suspended;
	int method;               /* RegisterMethod */
	const AuthKeyRecord *key; /* NULL: none */
	char **tags;              /* effective ones */
	size_t n_tags;
	bool approved;
	bool ephemeral;
	/* filled by registration_check */
	const TailnetRecord *tailnet;
	bool never_expires;   /* the node that exists was set so */
	NodeRecord *existing; /* NULL: a new node */
	uint8_t v4[4];
	char name[64];
};
/* Conflicts, quota, name and address: everything that can refuse. */
int registration_check(struct state *st, struct registration *r);
/* Writes it; returns the node. */
NodeRecord *registration_make(struct state *st, struct registration *r);
/* Takes a node away with all that hangs on it; leaves a tombstone. */
void node_remove(struct state *st, NodeRecord *n);
/* Moves the node key's expiry: 0 never. Judges `expired` against state time; the caller puts the node. */
void node_set_expiry(struct state *st, NodeRecord *n, uint64_t expire_ms);
uint64_t node_default_expiry(struct state *st, const TailnetRecord *t);

/*
 * Chooses a free name for a node: the sanitised hostname, else with the first free number. `holder` may take a name
 * that rests from before; `self` is the node's own id (0: a new one). name_find says false, name_choose refuses, when
 * none was found.
 */
bool name_find(struct state *st, uint64_t tailnet, const char *hostname, const MachineKey *holder,
	       uint64_t self, char out[64]);
int name_choose(struct state *st, uint64_t tailnet, const char *hostname, const MachineKey *holder,
		uint64_t self, char out[64]);
/* Taken by another node, or resting for another machine. */
bool name_taken(struct state *st, uint64_t tailnet, const char *name, const MachineKey *holder,
		uint64_t self);
/* Whether `given` is what name_choose would have made of `hostname`, with or without a number. */
bool name_follows(const char *given, const char *hostname);
/* The name is free again in 24 h, for its holder at once. */
void name_release(struct state *st, uint64_t tailnet, const char *name, const MachineKey *holder);
/* A free IPv4 address of the tailnet. REFUSE when none was found. */
int address_choose(struct state *st, const TailnetRecord *t, uint8_t out[4]);
void address_release(struct state *st, ProtobufCBinaryData address, const MachineKey *holder);
/* fd7a:115c:a1e0:: with the IPv4 address in the last four bytes. */
void address_v6_of(const uint8_t v4[4], uint8_t out[16]);

/* Ends the sessions that a lighthouse held, with grace. */
void sessions_end(struct state *st, uint64_t lighthouse);
/* Another attach, detach or removal: takes session entry and deadlines away. */
void presence_unlink(struct state *st, const Presence *p);
/* A portion of a deleted tailnet. False: there is more to do at once. */
bool tailnet_purge(struct state *st, uint64_t tailnet, size_t budget);
/* Enters the name into the index; it rests no more. */
void name_take(struct state *st, uint64_t tailnet, const char *name, uint64_t node);
/* The disco key is in use by another machine. */
bool disco_taken(struct state *st, ProtobufCBinaryData key, const MachineKey *machine);
/* Sets it (empty: leaves it) and keeps its index; the caller puts the record. */
void endpoints_set_disco(struct state *st, NodeEndpoints *e, ProtobufCBinaryData key);
