/* The two clusters that a benchmark compares, Skerry and etcd, behind one face: connect, write an object, ask who leads. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "net/rpc_client.h"
#include "tests/bench/client.h"

enum {
	SIDE_MEMBERS = 9,
	SIDE_CONNECTIONS = 32, /* to one member */
	SIDE_VALUE = 256,      /* bytes of a value */
	SIDE_OBJECTS = 10000,
	SIDE_TAILNETS =
		20, /* the objects of Skerry are spread over: a tailnet has a number of request ids */
};

struct loop;
struct tls_ctx;

struct side {
	const char *name;
	bool etcd;
	struct loop *loop;
	struct tls_ctx *tls;
	unsigned members, connections; /* connections: to each member */
	struct rpc_channel *channel[SIDE_MEMBERS][SIDE_CONNECTIONS];
	pid_t pid[SIDE_MEMBERS]; /* of the servers; 0: not given */
	struct client_key key;   /* Skerry */
	char (*object)[48];      /* Skerry: resource names */
	unsigned objects;
	char nonce[17]; /* of this run: in request ids */
	uint64_t count;
};

/*
 * Dials nothing yet. urls and pids: lists with commas (pids NULL: none); key_file: the API key of Skerry, NULL for etcd.
 * 0 or a negative code. side_close() in any case.
 */
MUST_CHECK int side_open(struct side *s, struct loop *loop, const char *name, const char *urls,
			 const char *pids, const char *key_file, unsigned connections,
			 struct err *err);
void side_close(struct side *s);

/* One channel to each connection of each member is made to work: a write through each. */
MUST_CHECK int side_warm(struct side *s, struct err *err);

/* Makes n objects; SIDE_OBJECTS of Skerry in tailnets of their own, fewer in tailnets/1. */
MUST_CHECK int side_fill(struct side *s, unsigned n, struct err *err);

/*
 * Writes a new value of SIDE_VALUE bytes to object `number` % objects. cb exactly once, never inside; deadline 0: 10 s.
 */
void side_write(struct side *s, unsigned member, unsigned connection, uint64_t number,
		uint64_t deadline_ms, rpc_unary_cb cb, void *arg);

/* Index of the member that leads, or negative. Runs the loop. */
MUST_CHECK int side_leader(struct side *s, struct err *err);

/* CPU seconds that the servers have used so far; with pid 0 of a member: negative. */
double side_cpu(const struct side *s);
/* The same of one process. */
double process_cpu(pid_t pid);
