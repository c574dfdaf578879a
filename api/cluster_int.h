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
