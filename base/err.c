#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void copy_cut(char *out, size_t cap, const char *s)
{
	size_t len = strnlen(s, cap - 1);

	memcpy(out, s, len);
	out[len] = '\0';
}

static void err_vset(struct err *e, int code, const char *reason, const char *field,
		     const char *fmt, va_list ap) PRINTF_LIKE(5, 0);
static void err_vset(struct err *e, int code, const char *reason, const char *field,
		     const char *fmt, va_list ap)
{
	char msg[sizeof(e->msg)];

	if (e == NULL) {
		return;
	}
	/* Formatted aside first: the arguments may point into e itself. */
	vsnprintf(msg, sizeof(msg), fmt, ap);
	e->code = code;
	if (field != e->field) {
		copy_cut(e->field, sizeof(e->field), field);
	}
	if (reason != e->reason) {
		copy_cut(e->reason, sizeof(e->reason), reason);
	}
	copy_cut(e->msg, sizeof(e->msg), msg);
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	err_vset(e, code, "", "", fmt, ap);
	va_end(ap);
	return code;
}

int err_reason(struct err *e, int code, const char *reason, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	err_vset(e, code, reason, "", fmt, ap);
	va_end(ap);
	return code;
}

int err_field(struct err *e, int code, const char *field, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	err_vset(e, code, "", field, fmt, ap);
	va_end(ap);
	return code;
}

int err_errno(struct err *e, const char *fmt, ...)
{
	int saved = errno > 0 ? errno : EIO;
	char what[sizeof(e->msg)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return err_set(e, -saved, "%s: %s", what, err_text(-saved));
}

void err_prefix(struct err *e, const char *fmt, ...)
{
	char context[sizeof(e->msg)];
	char old[sizeof(e->msg)];
	va_list ap;
	size_t len;

	if (e == NULL) {
		return;
	}
	va_start(ap, fmt);
	vsnprintf(context, sizeof(context), fmt, ap);
	va_end(ap);
	memcpy(old, e->msg, sizeof(old));
	copy_cut(e->msg, sizeof(e->msg), context);
	len = strlen(e->msg);
	if (len + 2 < sizeof(e->msg)) {
		memcpy(e->msg + len, ": ", 3);
		copy_cut(e->msg + len + 2, sizeof(e->msg) - len - 2, old);
	}
}

void err_clear(struct err *e)
{
	if (e != NULL) {
		memset(e, 0, sizeof(*e));
	}
}

const char *err_text(int code)
{
	static _Thread_local char errno_text[128];

	switch (code) {
#define ERR_TEXT_(name, value, text, grpc) \
	case name: return text;
		ERR_MAP(ERR_TEXT_)
#undef ERR_TEXT_
	default: break;
	}
	if (code >= 0) {
		return "no error";
	}
	if (code > -2000) {
		/* The GNU form, which may answer with a constant instead of the buffer. */
		return strerror_r(-code, errno_text, sizeof(errno_text));
	}
	return "unknown error";
}

const char *err_name(int code)
{
	switch (code) {
#define ERR_NAME_(name, value, text, grpc) \
	case name: return #name;
		ERR_MAP(ERR_NAME_)
#undef ERR_NAME_
	default: break;
	}
	if (code >= 0) {
		return "OK";
	}
	return code > -2000 ? "ERRNO" : "ERR_UNKNOWN";
}

const char *err_msg(const struct err *e, int code)
{
	return e != NULL && e->msg[0] != '\0' ? e->msg : err_text(code);
}

static int grpc_of_errno(int number)
{
	switch (number) {
	case ENOENT: return 5;
	case EEXIST: return 6;
	case EACCES:
	case EPERM: return 7;
	case EINVAL: return 3;
	case ENOMEM:
	case ENOSPC:
	case EDQUOT:
	case EMFILE:
	case ENFILE: return 8;
	case ETIMEDOUT:
	case ECONNREFUSED:
	case ECONNRESET:
	case ECONNABORTED:
	case EHOSTUNREACH:
	case ENETUNREACH:
	case ENETDOWN:
	case EPIPE:
	case ENOTCONN:
	case EAGAIN: return 14;
	case ECANCELED: return 1;
	case ENOSYS:
	case ENOTSUP: return 12;
	default: return 13;
	}
}

int err_grpc(int code)
{
	switch (code) {
#define ERR_GRPC_(name, value, text, grpc) \
	case name: return grpc;
		ERR_MAP(ERR_GRPC_)
#undef ERR_GRPC_
	default: break;
	}
	if (code >= 0) {
		return 0;
	}
	return code > -2000 ? grpc_of_errno(-code) : 2;
}

int err_from_grpc(int status)
{
	if (status == 0) {
		return 0;
	}
	return status >= 1 && status <= 16 ? -2000 - status : ERR_UNKNOWN;
}
