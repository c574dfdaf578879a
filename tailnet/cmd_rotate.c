/* Commands that renew what the cluster trusts: its certificate authority, cluster.key; and the note of a backup. */
#include <string.h>

#include "base/limits.h"
#include "tailnet/commands_int.h"
#include "tailnet/query.h"

#define REMOVED SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_REMOVED

static const CaRecord *ca_newest(struct state *st)
{
	const CaRecord *newest = NULL, *ca;
	struct skey k = {0};

	while ((ca = record_next(st, TABLE_CA, &k, REC(ca_record))) != NULL) {
		newest = ca;
	}
	return newest;
}

/* An older one that is still accepted; its key, to write it by. */
static CaRecord *ca_older(struct state *st, uint32_t generation, struct skey *ret_key)
{
	struct skey k = {0};
	CaRecord *ca;

	while ((ca = record_next(st, TABLE_CA, &k, REC(ca_record))) != NULL) {
		if (ca->generation < generation && ca->retire_ms == 0) {
			*ret_key = k;
			return ca;
		}
	}
	return NULL;
}

uint32_t seal_now(struct state *st)
{
	struct skey k = {0};
	const SealedSecret *s = record_next(st, TABLE_SECRET, &k, REC(sealed_secret));

	return s != NULL ? rotation_number(s->seal) : 1;
}

/* The members that have not confirmed this CA and this cluster.key, by name; NULL: all have. */
static const char *members_lacking(struct state *st, uint32_t ca, uint32_t seal)
{
	const char *names = NULL;
	const MemberRecord *m;
	struct skey k = {0};

	while ((m = record_next(st, TABLE_MEMBER, &k, REC(member_record))) != NULL) {
		if (m->kind != REMOVED &&
		    (m->ca_generation < ca || rotation_number(m->seal) < seal)) {
			names = names == NULL ? m->name : st_printf(st, "%s, %s", names, m->name);
		}
	}
	return names;
}

int cmd_ca_rotate(struct state *st)
{
	const Skerry__Internal__V1__CaRotate *c = st->cmd->ca_rotate;
	const CaRecord *now = ca_newest(st);
	struct skey k;

	if (c->ca == NULL || c->key == NULL) {
		return refuse(st, CODE_INVALID, "", "ca", "the certificate authority is missing");
	}
	if (valid_ca(st, c->ca) == REFUSE || valid_secret(st, c->key) == REFUSE) {
		return REFUSE;
	}
	if (c->ca->cross_der.len == 0 || c->ca->cross_der.len > LIM_CERTIFICATE_BYTES ||
	    c->ca->retire_ms != 0) {
		return refuse(st, CODE_INVALID, "", "ca.cross_der",
			      "the new certificate authority is certified by the one before");
	}
	if (now == NULL || c->ca->generation != now->generation + 1 ||
	    c->key->generation != c->ca->generation) {
		return refuse(
			st, CODE_ABORTED, "CA_CHANGED", "ca.generation",
			"the certificate authority was rotated meanwhile: see `skerry cluster "
			"ca status`");
	}
	if (rotation_number(c->key->seal) != seal_now(st)) {
		return refuse(st, CODE_ABORTED, "SEAL_CHANGED", "key.seal",
			      "cluster.key was rotated meanwhile: try again");
	}
	if (ca_older(st, now->generation, &k) != NULL) {
		return refuse(st, CODE_PRECONDITION, "CA_NOT_RETIRED", "",
			      "the certificate authority before the present one is still accepted: "
			      "retire it first with `skerry cluster ca rotate --retire`");
	}

	ca_put(st, c->ca);
	secret_put(st, c->key);
	st_audit(st, 0, "ca.rotate", "", "generation %u", c->ca->generation);
	return ACCEPT;
}

int cmd_ca_retire(struct state *st)
{
	const Skerry__Internal__V1__CaRetire *c = st->cmd->ca_retire;
	const CaRecord *now = ca_newest(st);
	const char *lacking;
	struct skey key;
	CaRecord *old;

	if (now == NULL || now->generation != c->generation) {
		return refuse(
			st, CODE_ABORTED, "CA_CHANGED", "generation",
			"the certificate authority was rotated meanwhile: see `skerry cluster "
			"ca status`");
	}
	old = ca_older(st, now->generation, &key);
	if (old == NULL) {
		return refuse(
			st, CODE_PRECONDITION, "NOTHING_TO_RETIRE", "",
			"only one certificate authority is accepted: there is none to retire");
	}
	lacking = members_lacking(st, now->generation, 0);
	if (lacking != NULL) {
		return refuse(st, CODE_PRECONDITION, "MEMBER_NOT_CONFIRMED", "",
			      "lighthouse %s has not taken the new certificate authority yet and "
			      "could not come back: start it, or remove it first",
			      lacking);
	}

	old->retire_ms = st->now;
	state_put(st, skey_slice(&key), old, NULL);
	st_audit(st, 0, "ca.retire", "", "generation %u; %llu devices not seen since the rotation",
		 old->generation, (unsigned long long)c->unseen);
	return ACCEPT;
}

/* Each secret of the state once, and nothing else. */
static int secrets_all(struct state *st, const Skerry__Internal__V1__SealRotate *c)
{
	struct skey k = {0};
	const SealedSecret *old;
	size_t n = 0;

	while ((old = record_next(st, TABLE_SECRET, &k, REC(sealed_secret))) != NULL) {
		size_t found = 0;

		for (size_t i = 0; i < c->n_secrets; i++) {
			found += strcmp(c->secrets[i]->name, old->name) == 0 &&
				 c->secrets[i]->generation == old->generation;
		}
		if (found != 1) {
			return refuse(st, CODE_ABORTED, "SECRETS_CHANGED", "secrets",
				      "the sealed secret %s changed meanwhile: try again",
				      old->name);
		}
		n++;
	}
	if (n != c->n_secrets) {
		return refuse(st, CODE_ABORTED, "SECRETS_CHANGED", "secrets",
			      "the cluster has %zu sealed secrets, not %zu: try again", n,
			      c->n_secrets);
	}
	return ACCEPT;
}

int cmd_seal_rotate(struct state *st)
{
	const Skerry__Internal__V1__SealRotate *c = st->cmd->seal_rotate;
	uint32_t now = seal_now(st);
	const char *lacking;

	if (c->seal != now + 1) {
		return refuse(st, CODE_ABORTED, "SEAL_CHANGED", "seal",
			      "cluster.key was rotated meanwhile: try again");
	}
	for (size_t i = 0; i < c->n_secrets; i++) {
		if (valid_secret(st, c->secrets[i]) == REFUSE) {
			return REFUSE;
		}
		if (c->secrets[i]->seal != c->seal) {
			return refuse(st, CODE_INVALID, "", "secrets.seal",
				      "all secrets are sealed under the same key");
		}
	}
	if (secrets_all(st, c) == REFUSE) {
		return REFUSE;
	}
	lacking = members_lacking(st, 0, now);
	if (lacking != NULL) {
		return refuse(
			st, CODE_PRECONDITION, "MEMBER_NOT_CONFIRMED", "",
			"lighthouse %s has not taken the present cluster.key yet: start it, or "
			"remove it first",
			lacking);
	}

	for (size_t i = 0; i < c->n_secrets; i++) {
		secret_put(st, c->secrets[i]);
	}
	st_audit(st, 0, "seal.rotate", "", "cluster.key number %u", c->seal);
	return ACCEPT;
}

int cmd_member_confirm(struct state *st)
{
	const Skerry__Internal__V1__MemberConfirm *c = st->cmd->member_confirm;
	MemberRecord *m = member_alive(st, c->id);
	const CaRecord *ca;

	if (m == NULL) {
		return REFUSE;
	}
	ca = ca_newest(st);
	if (ca == NULL || c->ca_generation > ca->generation || c->seal > seal_now(st)) {
		return refuse(st, CODE_INVALID, "", "ca_generation",
			      "there is no certificate authority or cluster.key of this number");
	}
	m->ca_generation = MAX(m->ca_generation, c->ca_generation);
	m->seal = MAX(m->seal, c->seal);
	st_put_member(st, m);
	st_audit(st, 0, "lighthouse.confirm", st_name(st, RESOURCE_MEMBER, 0, m->id),
		 "certificate authority %u, cluster.key number %u", m->ca_generation, m->seal);
	st_answer(st, RESOURCE_MEMBER, 0, m->id);
	return ACCEPT;
}

int cmd_backup_note(struct state *st)
{
	const Skerry__Internal__V1__BackupNote *c = st->cmd->backup_note;
	MemberRecord *m = member_alive(st, c->lighthouse);

	if (m == NULL || valid_text(st, c->file, LIM_TEXT_BYTES, "file") == REFUSE) {
		return REFUSE;
	}
	if (c->revision == 0 || c->revision > st->meta->revision) {
		return refuse(st, CODE_INVALID, "", "revision",
			      "revision %llu is not one of the past",
			      (unsigned long long)c->revision);
	}
	m->backup_ms = st->now;
	m->backup_revision = c->revision;
	st_put_member(st, m);
	st_audit(st, 0, "backup.create", st_name(st, RESOURCE_MEMBER, 0, m->id),
		 "revision %llu, %llu bytes%s%s", (unsigned long long)c->revision,
		 (unsigned long long)c->bytes, c->file[0] != '\0' ? ", " : "", c->file);
	st_answer(st, RESOURCE_MEMBER, 0, m->id);
	return ACCEPT;
}
