/* Leveled log lines to stderr: thread-safe, rate limited per call site, free of secrets. */
#pragma once

#include "base/macros.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct err;

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

enum log_format {
	LOG_FORMAT_AUTO,    /* journald if stderr is a journal stream, else text */
	LOG_FORMAT_TEXT,    /* time=... level=info src=cluster/raft.c:12 msg="..." */
	LOG_FORMAT_JOURNAL, /* <6>cluster/raft.c:12: ... (the journal adds the time) */
};

struct log_options {
	enum log_level level; /* lines above it are dropped */
	enum log_format format;
};

/* Before other threads start. Without it: info, text. */
void log_init(const struct log_options *opts);
/* May be changed at any time, any thread. */
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
/* "error", "warn", "info", "debug"; ERR_INVALID names the choices. */
int log_level_parse(const char *text, enum log_level *ret, struct err *e) MUST_CHECK;

/* Tests and the agent's ring: gets each finished line (no newline) instead of stderr; called with
 * the log's lock held, so it may not log. NULL restores stderr. */
typedef void (*log_sink_fn)(void *arg, enum log_level level, const char *line);
void log_set_sink(log_sink_fn fn, void *arg);

/* One per call site, static: at most LOG_SITE_BURST lines in LOG_SITE_WINDOW_MS; the next line let
 * through says how many were dropped. Errors are limited as well. */
struct log_site {
	const char *file;
	int line;
	atomic_uint_fast64_t window_start_ms;
	atomic_uint in_window;
	atomic_uint dropped;
};
#define LOG_SITE_BURST     50
#define LOG_SITE_WINDOW_MS 10000

void log_write(struct log_site *site, enum log_level level, const char *fmt, ...) PRINTF_LIKE(3, 4);

#define LOG_AT_(level_, ...)                                                             \
	do {                                                                             \
		static struct log_site log_site_ = {.file = __FILE__, .line = __LINE__}; \
		if ((level_) <= log_get_level()) {                                       \
			log_write(&log_site_, level_, __VA_ARGS__);                      \
		}                                                                        \
	} while (0)

/* printf-like; details as key=value in the text: LOG_INFO("member joined id=%" PRIu64, id).
 * Control characters are escaped, so that a peer cannot forge a line; whatever looks like a
 * Skerry key (sk-<kind>-<id>-...) is cut after its id. */
#define LOG_ERROR(...) LOG_AT_(LOG_LEVEL_ERROR, __VA_ARGS__)
#define LOG_WARN(...)  LOG_AT_(LOG_LEVEL_WARN, __VA_ARGS__)
#define LOG_INFO(...)  LOG_AT_(LOG_LEVEL_INFO, __VA_ARGS__)
#define LOG_DEBUG(...) LOG_AT_(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* Text that must not be printed. A struct, so that passing it to %s does not compile; the only
 * way to the characters is secret_str_reveal, which greps well. */
struct secret_str {
	char *owned_; /* mem_alloc'd */
};
/* Takes text (mem_alloc'd, may be NULL). */
struct secret_str secret_str_take(char *text);
/* Borrowed; "" if unset. */
const char *secret_str_reveal(const struct secret_str *s);
bool secret_str_set(const struct secret_str *s);
/* Overwrites and frees. */
void secret_str_done(struct secret_str *s);
