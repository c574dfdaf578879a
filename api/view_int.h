/* One look at the state for all calls of a loop's turn. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "cluster/cluster.h"
#include "net/loop.h"

/*
 * A read transaction begins with the first call of a turn that wants one and ends with the turn. It is handed out only
 * while it shows what a new one would: right after a commit a new one begins. What was found out in it is kept with it.
 * Of the loop's thread.
 */
struct view {
	struct cluster *cluster; /* borrowed */
	struct loop *loop;       /* borrowed */
	struct cluster_read *read;
	bool held;
	uint64_t number; /* another one for each transaction; never 0 */
	bool known;      /* the next three */
	uint64_t epoch, revision, now_ms;
	struct flush_hook end; /* of the turn */
};

void view_init(struct view *v, struct cluster *cluster, struct loop *loop);
void view_done(struct view *v);
/* No other may be held. The transaction is borrowed until view_give(). Errors of cluster_read_begin(). */
MUST_CHECK int view_take(struct view *v, struct cluster_read **ret, struct err *err);
void view_give(struct view *v);
/* query_revision() of the one that is held. */
MUST_CHECK int view_revision(struct view *v, uint64_t *ret_epoch, uint64_t *ret_revision,
			     uint64_t *ret_now_ms);
