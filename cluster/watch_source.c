/* The hub's view of this lighthouse's replicated state. */
#include "base/mem.h"
#include "cluster/cluster.h"
#include "cluster/watch.h"

struct cluster_source {
	struct cluster *cluster;
	struct cluster_read *read;
};

static int source_begin(void *impl, const struct kv **ret_kv, struct err *err)
{
	struct cluster_source *s = impl;
	int rc = cluster_read_begin(s->cluster, "watch", &s->read, err);

	if (rc >= 0)
		*ret_kv = cluster_read_kv(s->read);
	return rc;
}

static void source_end(void *impl)
{
	struct cluster_source *s = impl;

	cluster_read_end(s->read);
	s->read = NULL;
}

static uint64_t source_quorum_age(void *impl)
{
	struct cluster_source *s = impl;
	struct cluster_status st;

	cluster_status(s->cluster, &st);
	return st.quorum_age_ms;
}

static size_t source_ca_pins(void *impl, uint8_t ret[WATCH_PINS][32])
{
	struct cluster_source *s = impl;

	return cluster_ca_pins(s->cluster, ret);
}

struct watch_source watch_source_cluster(struct cluster *c)
{
	static const struct watch_source_ops ops = {source_begin, source_end, source_quorum_age,
						    source_ca_pins};
	struct cluster_source *s = mem_zalloc(sizeof(*s));

	s->cluster = c;
	return (struct watch_source){&ops, s};
}

void watch_source_free(struct watch_source *s)
{
	mem_free(s->impl);
	s->impl = NULL;
}
