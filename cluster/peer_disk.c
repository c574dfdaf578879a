/* A leader without room on its disk must refuse what makes the state grow; a voter with room need not. */
#include <inttypes.h>

#include "base/clock.h"
#include "base/log.h"
#include "cluster/cluster_int.h"
#include "cluster/peer_int.h"

enum { HOLD_MS = 10000 };

static void on_transfer(void *arg, const struct err *err)
{
	(void)arg;
	if (err->code != 0) {
		LOG_DEBUG("peer: hand over: %s", err->msg);
	}
}

void peer_disk_run(struct peer *p, uint64_t now_ms)
{
	struct link_state s;

	if (!cluster_disk_low(p->cluster) || now_ms < p->disk_hold_ms) {
		return;
	}
	link_state(p->cluster, &s);
	for (size_t i = 0; s.self_leads && !s.changing && i < s.n; i++) {
		struct peer_link *l = peer_link_find(p, s.server[i].id);

		if (s.server[i].role == LINK_VOTER && l != NULL && peer_link_connected(l) &&
		    !l->disk_low) {
			LOG_WARN("the disk of this lighthouse is nearly full: it hands leadership "
				 "over to %" PRIu64,
				 l->id);
			p->disk_hold_ms = now_ms + HOLD_MS;
			link_transfer(p->cluster, p->loop, l->id, on_transfer, p);
			return;
		}
	}
}
