/* The plain pages of a face. Without a credential they say no more than a word. */
#include "api/pages_int.h"

#include <string.h>

#include "api/api_int.h"
#include "base/buf.h"
#include "base/enc.h"
#include "base/metrics.h"
#include "net/http.h"

static bool is_read(struct http_request *req)
{
	if (!strcmp(req->method, "GET") || !strcmp(req->method, "HEAD"))
		return true;
	http_reply_text(req, 405, "%s is read with GET\n", req->path);
	return false;
}

static void healthz(void *arg, struct http_request *req)
{
	(void)arg;
	if (is_read(req))
		http_reply_text(req, 200, "ok\n");
}

static void readyz(void *arg, struct http_request *req)
{
	struct pages *p = arg;

	if (!is_read(req))
		return;
	if (p->draining)
		http_reply_text(req, 503, "stopping\n");
	else if (!p->api->ready)
		http_reply_text(req, 503, "no quorum\n");
	else
		http_reply_text(req, 200, "ready\n");
}

static void generate_204(void *arg, struct http_request *req)
{
	(void)arg;
	if (is_read(req))
		http_reply(req, 204, "text/plain", NULL, 0);
}

/* Approval takes a credential, which a browser does not have: the page says what to type. */
static void approve(void *arg, struct http_request *req)
{
	const char *code = req->path + strlen("/approve/");
	size_t len = strlen(code);

	(void)arg;
	if (!is_read(req))
		return;
	if (len != 9 || code[4] != '-' || base32_bad_char(code, 4) != 4 ||
	    base32_bad_char(code + 5, 4) != 4)
		http_reply_text(req, 404, "This is not a code: it has the form xxxx-xxxx.\n");
	else
		http_reply_text(req, 200,
				"A device asks to join the network. If it is yours, let it in:\n\n"
				"    skerry node approve %s\n\n"
				"on a lighthouse, or anywhere with an API key.\n",
				code);
}

/* ---- metrics ---- */

static void gauge(const char *name, const char *help, double v)
{
	gauge_set(metrics_gauge(name, help, NULL), v);
}

static void gather(struct api *api)
{
	struct cluster_status s;
	unsigned connected = 0;

	cluster_status(api->cluster, &s);
	for (size_t i = 0; i < s.n_members; i++)
		connected += s.member[i].connected || s.member[i].self;
	gauge("skerry_cluster_quorum", "1: a leader with quorum is known.", s.quorum);
	gauge("skerry_cluster_quorum_age_seconds", "Since a quorum was known.",
	      (double)s.quorum_age_ms / 1000);
	gauge("skerry_cluster_members", "Members of the cluster.", (double)s.n_members);
	gauge("skerry_cluster_members_connected", "Members that are reached, this one included.",
	      connected);
	gauge("skerry_cluster_feature_level", "Feature level of the state.", s.feature_level);
	gauge("skerry_api_ready", "1: /readyz says so.", api->ready);
}

static void metrics(void *arg, struct http_request *req)
{
	struct pages *p = arg;
	struct buf out = BUF_INIT;

	if (!is_read(req))
		return;
	gather(p->api);
	metrics_write(&out);
	http_reply(req, 200, "text/plain; version=0.0.4; charset=utf-8", out.data, out.len);
	buf_done(&out);
}

void pages_metrics_init(struct api *api)
{
	struct buf labels = BUF_INIT;

	metrics_label(&labels, "version", api->version);
	gauge_set(
		metrics_gauge("skerry_build_info", "The version of this build.", buf_str(&labels)),
		1);
	buf_done(&labels);
}

/* ---- mounting ---- */

void pages_mount(struct pages *p, struct http_router *router, unsigned serve)
{
	http_mount(router, HTTP_MATCH_EXACT, "/healthz", healthz, p);
	http_mount(router, HTTP_MATCH_EXACT, "/readyz", readyz, p);
	http_mount(router, HTTP_MATCH_EXACT, "/generate_204", generate_204, p);
	if (serve & API_SERVE_WEB)
		http_mount(router, HTTP_MATCH_PREFIX, "/approve/", approve, p);
	if (serve & API_SERVE_METRICS)
		http_mount(router, HTTP_MATCH_EXACT, "/metrics", metrics, p);
}
