/* The plain pages of a face: health, metrics, and what a person sees who opens an approval's URL. */
#pragma once

#include <stdbool.h>

struct api;
struct http_router;

/* What the pages of a face speak of; embedded in it. */
struct pages {
	struct api *api;
	bool draining;
};

/* Borrows `pages` for the router's life. */
void pages_mount(struct pages *pages, struct http_router *router, unsigned serve);
/* The series that do not change: build. */
void pages_metrics_init(struct api *api);
