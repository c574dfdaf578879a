/* The one table of error codes, and the struct that carries an error's details. */
#pragma once

#include "base/macros.h"

/* X(name, value, text, grpc status). The first sixteen are the gRPC statuses themselves
 * (value = -2000 - status). System errors are -errno and lie above -2000. */
#define ERR_MAP(X)                                           \
	X(ERR_CANCELLED, -2001, "cancelled", 1)              \
	X(ERR_UNKNOWN, -2002, "unknown error", 2)            \
	X(ERR_INVALID, -2003, "invalid argument", 3)         \
	X(ERR_DEADLINE, -2004, "deadline exceeded", 4)       \
	X(ERR_NOT_FOUND, -2005, "not found", 5)              \
	X(ERR_EXISTS, -2006, "already exists", 6)            \
	X(ERR_DENIED, -2007, "permission denied", 7)         \
	X(ERR_LIMIT, -2008, "limit reached", 8)              \
	X(ERR_PRECONDITION, -2009, "failed precondition", 9) \
	X(ERR_ABORTED, -2010, "aborted", 10)                 \
	X(ERR_RANGE, -2011, "out of range", 11)              \
	X(ERR_UNIMPLEMENTED, -2012, "not implemented", 12)   \
	X(ERR_INTERNAL, -2013, "internal error", 13)         \
	X(ERR_UNAVAILABLE, -2014, "unavailable", 14)         \
	X(ERR_DATA_LOSS, -2015, "data loss", 15)             \
	X(ERR_UNAUTHENTICATED, -2016, "unauthenticated", 16) \
	X(ERR_CLOSED, -2017, "closed", 14)                   \
	X(ERR_PROTOCOL, -2018, "protocol error", 13)         \
	X(ERR_AGAIN, -2019, "try again", 14)                 \
	X(ERR_CORRUPT, -2020, "corrupt data", 15)            \
	X(ERR_NO_QUORUM, -2021, "no quorum", 14)             \
	X(ERR_NOT_LEADER, -2022, "not the leader", 14)       \
	X(ERR_STORE, -2023, "store failure", 13)             \
	X(ERR_TRUNCATED, -2024, "truncated", 3)              \
	X(ERR_STALE, -2025, "stale", 10)                     \
	X(ERR_FATE_UNKNOWN, -2026, "result unknown", 2)      \
	X(ERR_TLS, -2027, "TLS failure", 14)                 \
	X(ERR_RESOLVE, -2028, "name resolution failed", 14)  \
	X(ERR_FEATURE_LEVEL, -2029, "feature level too low", 9)

enum err_code {
#define ERR_ENUM_(name, value, text, grpc) name = value,
	ERR_MAP(ERR_ENUM_)
#undef ERR_ENUM_
};

/* Details of one error. Embedded by the caller, no cleanup; zero it by `struct err e = {0}`.
 * It is meaningful only after a call that returned a negative result. */
struct err {
	int code;        /* enum err_code or -errno */
	char reason[48]; /* UPPER_SNAKE word for machines (google.rpc.ErrorInfo), or "" */
	char field[96];  /* the offending request field, or file:line; or "" */
	char msg[400];   /* for people: what, where and what to do; cut at the size */
};

/* The setters store code and message, replace what was there before, and return code, so that a
 * function can `return err_set(e, ERR_INVALID, "...")`. e may be NULL. Any thread. */
int err_set(struct err *e, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* As err_set, with a reason word such as "NO_QUORUM". */
int err_reason(struct err *e, int code, const char *reason, const char *fmt, ...) PRINTF_LIKE(4, 5);
/* As err_set, with the field or the place. */
int err_field(struct err *e, int code, const char *field, const char *fmt, ...) PRINTF_LIKE(4, 5);
/* For a failed system call: code -errno, message "<what>: <strerror>". Reads errno. */
int err_errno(struct err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Puts "<context>: " before the message. e may be NULL. */
void err_prefix(struct err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Empties it. */
void err_clear(struct err *e);

/* Text of a code or of an -errno; never NULL. The result lives for ever or (errno) until the next
 * call of the same thread. */
const char *err_text(int code);
/* Name of a code ("ERR_INVALID"); "ERRNO" for -errno, "OK" for >= 0. */
const char *err_name(int code);
/* The message if e has one, else the text of code. */
const char *err_msg(const struct err *e, int code);
/* gRPC status 0..16 of a code or of an -errno; 0 for code >= 0. */
int err_grpc(int code);
/* Code of a gRPC status; 0 for 0, ERR_UNKNOWN for what is not a status. */
int err_from_grpc(int status);
