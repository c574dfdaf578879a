/* The netmap on disk: written on a worker thread, so that a slow disk never holds up the mesh. */
#include <string.h>

#include "agent/agent_int.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/mem.h"

struct save {
	struct agent *a;
	char *path;
	struct buf file;
	int result;
	struct err err;
};

static void save_work(void *arg)
{
	struct save *s = arg;

	s->result = file_write_atomic(s->path, s->file.data, s->file.len, 0600, &s->err);
}

static void save_free(struct save *s)
{
	mem_free(s->path);
	buf_done(&s->file);
	mem_free(s);
}

static void save_done(void *arg)
{
	struct save *s = arg;
	struct agent *a = s->a;

	a->saving = false;
	if (s->result < 0) {
		LOG_ERROR("cannot store the netmap: %s", s->err.msg);
		a->save_due = true;
	}
	save_free(s);
	if (a->save_due) {
		agent_save_soon(a);
	}
}

static struct save *save_new(struct agent *a)
{
	struct save *s = MEM_NEW(struct save);

	s->a = a;
	s->path = agent_path(a, "netmap.pb");
	netmap_file_encode(&a->netmap, &s->file);
	return s;
}

static void on_save(void *arg)
{
	struct agent *a = arg;
	struct save *s;

	if (a->saving || !netmap_held(&a->netmap)) {
		return; /* save_done() comes back */
	}
	s = save_new(a);
	a->save_due = false;
	a->saving = true;
	if (loop_work(a->loop, save_work, save_done, s) < 0) {
		save_free(s);
		a->saving = false;
		a->save_due = true;
		agent_save_soon(a);
	}
}

void agent_save_soon(struct agent *a)
{
	a->save_due = true;
	if (!loop_timer_active(&a->save_timer) && !a->saving) {
		loop_timer_start(&a->save_timer, a->loop, AGENT_SAVE_MS, on_save, a);
	}
}

void agent_save_flush(struct agent *a)
{
	loop_timer_stop(&a->save_timer);
	while (a->saving) {
		loop_turn(a->loop, true);
	}
	loop_timer_stop(&a->save_timer);
	if (a->save_due && netmap_held(&a->netmap)) {
		struct save *s = save_new(a);

		save_work(s);
		if (s->result < 0) {
			LOG_ERROR("cannot store the netmap: %s", s->err.msg);
		}
		a->save_due = false;
		save_free(s);
	}
}
