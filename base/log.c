#include "base/log.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/err.h"
#include "base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_MESSAGE 4096

static const char *const level_names[] = {"error", "warn", "info", "debug"};
/* syslog priorities: err, warning, info, debug */
static const char level_priorities[] = {'3', '4', '6', '7'};

static atomic_int log_level = LOG_LEVEL_INFO;
static enum log_format log_format = LOG_FORMAT_TEXT;
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static log_sink_fn log_sink;
static void *log_sink_arg;

/* systemd names device and inode of the stream it gave us; stderr may have been redirected since. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	if (stream == NULL || sscanf(stream, "%llu:%llu", &dev, &ino) != 2 ||
	    fstat(STDERR_FILENO, &st) != 0) {
		return false;
	}
	return st.st_dev == dev && st.st_ino == ino;
}

void log_init(const struct log_options *opts)
{
	log_format = opts->format;
	if (log_format == LOG_FORMAT_AUTO) {
		log_format = stderr_is_journal() ? LOG_FORMAT_JOURNAL : LOG_FORMAT_TEXT;
	}
	log_set_level(opts->level);
}

void log_set_level(enum log_level level)
{
	atomic_store_explicit(&log_level, (int)level, memory_order_relaxed);
}

enum log_level log_get_level(void)
{
	return (enum log_level)atomic_load_explicit(&log_level, memory_order_relaxed);
}

int log_level_parse(const char *text, enum log_level *ret, struct err *e)
{
	for (size_t i = 0; i < ARRAY_LEN(level_names); i++) {
		if (strcmp(text, level_names[i]) == 0) {
			*ret = (enum log_level)i;
			return 0;
		}
	}
	return err_set(e, ERR_INVALID,
		       "\"%.20s\" is not a log level; expected error, warn, info or debug", text);
}

void log_set_sink(log_sink_fn fn, void *arg)
{
	pthread_mutex_lock(&log_lock);
	log_sink = fn;
	log_sink_arg = arg;
	pthread_mutex_unlock(&log_lock);
}

/* May this site speak now? *ret_dropped: lines it swallowed since it last did. Races between
 * threads can let a few more through, which does no harm. */
static bool site_allows(struct log_site *site, unsigned *ret_dropped)
{
	uint64_t now = clock_mono_ms() + 1; /* 0 stands for never */
	uint64_t start = atomic_load(&site->window_start_ms);

	if (start == 0 || now - start >= LOG_SITE_WINDOW_MS) {
		atomic_store(&site->window_start_ms, now);
		atomic_store(&site->in_window, 0);
	}
	if (atomic_fetch_add(&site->in_window, 1) >= LOG_SITE_BURST) {
		atomic_fetch_add(&site->dropped, 1);
		return false;
	}
	*ret_dropped = atomic_exchange(&site->dropped, 0);
	return true;
}

/* Length of "sk-<kind>-<id>-" at p, 0 if there is none. */
static size_t key_head(const char *p)
{
	static const char *const kinds[] = {"sk-auth-", "sk-api-", "sk-join-"};

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		size_t len = strlen(kinds[i]);
		size_t id;

		if (strncmp(p, kinds[i], len) == 0) {
			id = strspn(p + len, "0123456789");
			return id > 0 && p[len + id] == '-' ? len + id + 1 : 0;
		}
	}
	return 0;
}

static bool key_char(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       c == '-';
}

/* Appends msg without control characters and without the secret part of keys. quoted escapes
 * quotes and backslashes as well. */
static void append_clean(struct buf *b, const char *msg, bool quoted)
{
	for (const char *p = msg; *p != '\0'; p++) {
		unsigned char c = (unsigned char)*p;
		size_t head = c == 's' ? key_head(p) : 0;

		if (head > 0) {
			buf_append(b, p, head);
			buf_append_str(b, "[redacted]");
			p += head;
			while (key_char(*p)) {
				p++;
			}
			p--;
		} else if (c == '\n') {
			buf_append_str(b, "\\n");
		} else if (c < 0x20 || c == 0x7f) {
			buf_printf(b, "\\x%02x", c);
		} else {
			if (quoted && (c == '"' || c == '\\')) {
				buf_u8(b, '\\');
			}
			buf_u8(b, c);
		}
	}
}

/* "cluster/raft.c" of a path that may be absolute: the last folder and the file. */
static const char *short_file(const char *file)
{
	const char *slash = strrchr(file, '/');

	while (slash != NULL && slash > file) {
		slash--;
		if (*slash == '/') {
			return slash + 1;
		}
	}
	return file;
}

static void line_make(struct buf *b, const struct log_site *site, enum log_level level,
		      const char *msg, unsigned dropped)
{
	char now[CLOCK_TEXT];

	if (log_format == LOG_FORMAT_JOURNAL) {
		buf_printf(b, "<%c>%s:%d: ", level_priorities[level], short_file(site->file),
			   site->line);
		append_clean(b, msg, false);
	} else {
		buf_printf(b, "time=%s level=%s src=%s:%d msg=\"",
			   clock_format(clock_wall_ms(), now), level_names[level],
			   short_file(site->file), site->line);
		append_clean(b, msg, true);
		buf_u8(b, '"');
	}
	if (dropped > 0) {
		buf_printf(b, " dropped=%u", dropped);
	}
}

void log_write(struct log_site *site, enum log_level level, const char *fmt, ...)
{
	int saved = errno;
	char msg[LOG_MESSAGE];
	struct buf b = BUF_INIT;
	unsigned dropped = 0;
	va_list ap;

	if (!site_allows(site, &dropped)) {
		errno = saved;
		return;
	}
	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	line_make(&b, site, level, msg, dropped);

	pthread_mutex_lock(&log_lock);
	if (log_sink != NULL) {
		log_sink(log_sink_arg, level, buf_str(&b));
	} else {
		buf_u8(&b, '\n');
		/* One write per line, so that lines of several processes do not mix. */
		IGNORE(write(STDERR_FILENO, b.data, b.len) < 0);
	}
	pthread_mutex_unlock(&log_lock);
	buf_done(&b);
	errno = saved;
}

struct secret_str secret_str_take(char *text)
{
	return (struct secret_str){text};
}

const char *secret_str_reveal(const struct secret_str *s)
{
	return s->owned_ != NULL ? s->owned_ : "";
}

bool secret_str_set(const struct secret_str *s)
{
	return s->owned_ != NULL && s->owned_[0] != '\0';
}

void secret_str_done(struct secret_str *s)
{
	if (s != NULL && s->owned_ != NULL) {
		secret_wipe(s->owned_, strlen(s->owned_));
		mem_free(s->owned_);
		s->owned_ = NULL;
	}
}
