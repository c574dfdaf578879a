#include "net/http.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"

/* ---- Requests -------------------------------------------------------------------------------- */

const char *http_header(const struct http_request *req, const char *name)
{
	for (size_t i = 0; i < req->n_headers; i++) {
		if (strcmp(req->headers[i].name, name) == 0) {
			return req->headers[i].value;
		}
	}
	return NULL;
}

void http_set_handler(struct http_request *req, const struct http_request_handler *handler,
		      void *arg)
{
	req->handler = handler;
	req->arg = arg;
}

int http_respond(struct http_request *req, int status, const struct http_header *headers, size_t n,
		 bool end)
{
	if (req->responded) {
		return ERR_PRECONDITION;
	}
	int rc = req->ops->respond(req, status, headers, n, end);
	if (rc == 0) {
		req->responded = true;
		req->ended = end;
	}
	return rc;
}

int http_write(struct http_request *req, struct blob *blob, size_t off, size_t len, bool end)
{
	if (!req->responded || req->ended) {
		return ERR_PRECONDITION;
	}
	int rc = req->ops->write(req, blob, off, len, end);
	if (rc == 0) {
		req->ended = end;
	}
	return rc;
}

int http_write_copy(struct http_request *req, const void *data, size_t len, bool end)
{
	struct blob *blob = blob_new(data, len);
	int rc = http_write(req, blob, 0, len, end);

	blob_unref(blob);
	return rc;
}

int http_trailers(struct http_request *req, const struct http_header *headers, size_t n)
{
	if (req->ops->trailers == NULL) {
		return ERR_UNIMPLEMENTED;
	}
	if (!req->responded || req->ended) {
		return ERR_PRECONDITION;
	}
	int rc = req->ops->trailers(req, headers, n);
	if (rc == 0) {
		req->ended = true;
	}
	return rc;
}

void http_reset(struct http_request *req, uint32_t h2_code)
{
	req->ended = true;
	req->ops->reset(req, h2_code);
}

void http_consume(struct http_request *req, size_t len)
{
	if (len > 0 && req->ops->consume != NULL) {
		req->ops->consume(req, len);
	}
}

size_t http_backlog(const struct http_request *req)
{
	return req->ops->backlog(req);
}

int http_upgrade(struct http_request *req, int status, const struct http_header *headers, size_t n,
		 struct stream **ret_stream)
{
	if (req->ops->upgrade == NULL) {
		return ERR_UNIMPLEMENTED;
	}
	return req->ops->upgrade(req, status, headers, n, ret_stream);
}

void http_reply(struct http_request *req, int status, const char *content_type, const void *body,
		size_t len)
{
	char length[24];
	const struct http_header headers[] = {
		{"content-type", content_type},
		{"content-length", length},
		{"x-content-type-options", "nosniff"},
	};

	snprintf(length, sizeof(length), "%zu", len);
	bool head_only = strcmp(req->method, "HEAD") == 0;
	int rc = http_respond(req, status, headers, ARRAY_LEN(headers), len == 0 || head_only);
	if (rc == 0 && len > 0 && !head_only) {
		rc = http_write_copy(req, body, len, true);
	}
	if (rc != 0 && rc != ERR_CLOSED) {
		http_reset(req, 2 /* INTERNAL_ERROR */);
	}
}

void http_reply_text(struct http_request *req, int status, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	http_reply(req, status, "text/plain; charset=utf-8", text,
		   MIN((size_t)n, sizeof(text) - 1));
}

static void ignore_body(void *arg, struct http_request *req, const uint8_t *data, size_t len)
{
	(void)arg;
	(void)data;
	http_consume(req, len);
}

static void ignore_end(void *arg, struct http_request *req)
{
	(void)arg;
	(void)req;
}

static void ignore_close(void *arg, struct http_request *req, const struct err *err)
{
	(void)arg;
	(void)req;
	(void)err;
}

const struct http_request_handler http_ignore_handler = {
	.on_body = ignore_body,
	.on_end = ignore_end,
	.on_close = ignore_close,
};

/* ---- Routes ---------------------------------------------------------------------------------- */

struct route {
	struct list link; /* prefixes and content types */
	char *key;
	size_t len;
	http_route_fn fn;
	void *arg;
};

struct http_router {
	struct map exact;
	struct list prefixes;
	struct list contents;
	struct route rest;
};

struct http_router *http_router_new(void)
{
	struct http_router *router = MEM_NEW(struct http_router);

	map_init(&router->exact);
	list_init(&router->prefixes);
	list_init(&router->contents);
	return router;
}

static void route_free(struct route *route)
{
	mem_free(route->key);
	mem_free(route);
}

void http_router_free(struct http_router *router)
{
	struct map_iter it = {0};
	struct list *l;

	if (router == NULL) {
		return;
	}
	while (map_next(&router->exact, &it)) {
		route_free(it.value);
	}
	map_done(&router->exact);
	while ((l = list_pop(&router->prefixes)) != NULL ||
	       (l = list_pop(&router->contents)) != NULL) {
		route_free(LIST_ENTRY(l, struct route, link));
	}
	mem_free(router);
}

void http_mount(struct http_router *router, enum http_match match, const char *key,
		http_route_fn fn, void *arg)
{
	if (match == HTTP_MATCH_REST) {
		PRE(router->rest.fn == NULL);
		router->rest.fn = fn;
		router->rest.arg = arg;
		return;
	}
	struct route *route = MEM_NEW(struct route);
	route->key = mem_strdup(key);
	route->len = strlen(key);
	route->fn = fn;
	route->arg = arg;
	switch (match) {
	case HTTP_MATCH_EXACT:
		PRE(map_get_str(&router->exact, key) == NULL);
		map_put_str(&router->exact, key, route);
		break;
	case HTTP_MATCH_PREFIX: list_push(&router->prefixes, &route->link); break;
	case HTTP_MATCH_CONTENT: list_push(&router->contents, &route->link); break;
	case HTTP_MATCH_REST: break;
	}
}

static const struct route *longest(const struct list *routes, const char *text)
{
	const struct route *best = NULL;

	LIST_FOREACH(routes, l)
	{
		const struct route *route = LIST_ENTRY(l, struct route, link);

		if (strncmp(text, route->key, route->len) == 0 &&
		    (best == NULL || route->len > best->len)) {
			best = route;
		}
	}
	return best;
}

void http_route(struct http_router *router, struct http_request *req)
{
	const char *content = http_header(req, "content-type");
	const struct route *route = content != NULL ? longest(&router->contents, content) : NULL;

	if (route == NULL) {
		route = map_get_str(&router->exact, req->path);
	}
	if (route == NULL) {
		route = longest(&router->prefixes, req->path);
	}
	if (route == NULL && router->rest.fn != NULL) {
		route = &router->rest;
	}
	if (route == NULL) {
		http_set_handler(req, &http_ignore_handler, NULL);
		http_reply_text(req, 404, "there is nothing at %.200s\n", req->path);
		return;
	}
	route->fn(route->arg, req);
	if (req->handler == NULL) {
		http_set_handler(req, &http_ignore_handler, NULL);
		if (!req->responded) {
			http_reply_text(req, 500, "no handler took the request\n");
		}
	}
}
