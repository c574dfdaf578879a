/* Each thing that an agent refuses, as a change of a good netmap (fake_map_init with four peers). */
#pragma once

#include "agent/admit.h"
#include "tests/component/agent/fake_lighthouse.h"

struct lie {
	const char *name;
	void (*tell)(struct fake_map *m);
	enum refuse_kind kind;
	size_t peers; /* that are left of the four */
};

extern const struct lie lies[];
extern const size_t n_lies;
