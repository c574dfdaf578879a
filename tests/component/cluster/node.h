/* A lighthouse's cluster/ in a child process, driven by lines of text: for tests that kill it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { NODES_MAX = 8, NODE_LINE = 4096 };

struct node {
	char dir[128];
	char name[16];
	uint16_t port;
	pid_t pid;       /* 0: not running */
	int fd;          /* control socket */
	int exit_status; /* of the last process that was waited for */
};

/* Election timeout of nodes that are opened from now on; 0: the default. Longer ones suffer a busy machine better. */
extern unsigned node_election_ms;
/* Between comparisons of the states, and scrubs; 0: the default. */
extern uint64_t node_compare_ms, node_scrub_ms;
/* Log between two snapshots; 0: the default. */
extern uint64_t node_snapshot_bytes;
/* Up to which the store's pages are looked at before LMDB is let at them; 0: any. */
extern uint64_t node_look_bytes;
/* Processor time of one turn of a thread that ends the process; 0: the default. */
extern uint64_t node_turn_ms;

/* The child's life: reads lines from fd and answers them; ends the process (node_child.c). */
void node_child(struct node *n, int fd);

/* A directory and a port of its own. `root` is the test's directory. */
void node_prepare(struct node *n, const char *root, const char *name);
/* Forks; the child waits for lines. The test process must have no threads. */
void node_spawn(struct node *n);
/*
 * Sends a line and waits for the answer (in `out`, without newline; "ok ..." or "error REASON text"). Lines:
 *   init | join TOKEN | open          set up and start
 *   check                             what `skerryd check` does, before it is started
 *   token [MS] | remove ID | digests  administration
 *   acked ID                          "ok acked=N": the last entry that this one knows that one to have acknowledged
 *   change KIND [ID,...] [with=ID] [nofill]   promote, demote, remove, replace, cancel: "ok NUMBER"
 *   die N                             SIGKILL itself at the N-th event of its steps as a leader (before, after each)
 *   forge DIR                         gives DIR a new peer key with a certificate of the cluster's CA
 *   forge DIR expired                 gives DIR a peer certificate that has expired, for the key it has
 *   user NAME                         proposes a user of the tailnet "default"
 *   corrupt record|digest|index|forged   alters a user's record or the digest, takes an entry from an index or puts a
 *                                     wrong one there, behind everything that keeps them
 *   busy spin [peer|store]            the raft thread, or the peer thread, comes to no end; "store": within LMDB
 *   busy stand | busy work            the raft thread waits for long, or has ten long turns: "ok" after it
 *   has NAME                          "ok 1" when the user is in this lighthouse's state
 *   load PREFIX [WIDTH]               starts proposing users PREFIX1, PREFIX2…, WIDTH (1) at a time
 *   stop                              ends the load: "ok N FAILED" (N acknowledged, FAILED refused or unknown)
 *   status                            "ok id=… leader=… term=… voters=… connected=… applied=… revision=… races=… change=… step=… ended=… outcome=…"
 *   quit                              closes and exits with 0
 */
const char *node_say(struct node *n, char out[NODE_LINE], const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Without waiting for the answer, and the answer. */
void node_send(struct node *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *node_answer(struct node *n, char out[NODE_LINE]);
/* As node_say; fails the test unless the answer begins with "ok". Returns what follows it. */
const char *node_ok(struct node *n, char out[NODE_LINE], const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* A number of the status line, or of another "key=number" text. */
uint64_t node_number(const char *line, const char *key);
uint64_t node_status(struct node *n, const char *key);
/* SIGKILL and wait. */
void node_kill(struct node *n);
/* Says quit and waits; fails the test unless the exit code is 0. */
void node_quit(struct node *n);
/* Waits until the child ends by itself, at most ms; returns its exit code, -1: it did not end. */
int node_wait_exit(struct node *n, unsigned ms);
