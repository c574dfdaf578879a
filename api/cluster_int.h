/* Methods of ClusterService that have a file of their own. */
#pragma once

#include "api/admin.h"

/* cluster_doctor.c */
void cluster_diagnose(struct admin_call *c);
/* cluster_trust.c */
void cluster_finalize_upgrade(struct admin_call *c);
void cluster_get_trust(struct admin_call *c);
void cluster_rotate_ca(struct admin_call *c);
void cluster_rotate_seal(struct admin_call *c);
/* cluster_change.c */
void cluster_transfer_leadership(struct admin_call *c);
void cluster_promote_member(struct admin_call *c);
void cluster_demote_member(struct admin_call *c);
void cluster_delete_member(struct admin_call *c);
void cluster_replace_member(struct admin_call *c);
void cluster_cancel_change(struct admin_call *c);
/* In the call's arena; kv: of the transaction that r comes from. */
Skerry__V1__MemberChange *cluster_change_message(struct admin_call *c, const struct kv *kv,
						 const MembershipChange *r);
/* Why a member is a standby, or what is odd about the voters; "": nothing to say. Within a transaction. */
char *cluster_member_note(struct admin_call *c, const MemberRecord *r);
/* cluster_service.c */
/* Pin, role and addresses of the join token in c->key. Within a transaction. */
MUST_CHECK int cluster_token_fill(struct admin_call *c, struct err *err);
