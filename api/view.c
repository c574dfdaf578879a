#include "api/view_int.h"

#include "tailnet/query.h"

static void view_end(void *arg)
{
	struct view *v = arg;

	PRE(!v->held);
	if (v->read) {
		cluster_read_end(v->read);
		v->read = NULL;
	}
}

void view_init(struct view *v, struct cluster *cluster, struct loop *loop)
{
	*v = (struct view){.cluster = cluster, .loop = loop};
	v->end = (struct flush_hook){.run = view_end, .arg = v};
}

void view_done(struct view *v)
{
	loop_flush_remove(&v->end);
	view_end(v);
}

int view_take(struct view *v, struct cluster_read **ret, struct err *err)
{
	int rc;

	PRE(!v->held);
	if (v->read && !cluster_read_current(v->read))
		view_end(v);
	if (!v->read) {
		rc = cluster_read_begin(v->cluster, "call", &v->read, err);
		if (rc < 0)
			return rc;
		v->number++;
		v->known = false;
		loop_flush_add(v->loop, &v->end);
	}
	v->held = true;
	*ret = v->read;
	return 0;
}

void view_give(struct view *v)
{
	PRE(v->held);
	v->held = false;
}

int view_revision(struct view *v, uint64_t *ret_epoch, uint64_t *ret_revision, uint64_t *ret_now_ms)
{
	PRE(v->held);
	if (!v->known) {
		int rc = query_revision(cluster_read_kv(v->read), &v->epoch, &v->revision,
					&v->now_ms);

		if (rc < 0)
			return rc;
		v->known = true;
	}
	*ret_epoch = v->epoch;
	*ret_revision = v->revision;
	*ret_now_ms = v->now_ms;
	return 0;
}
