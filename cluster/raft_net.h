/* The network half of libraft's I/O: its messages straight into and out of the members' connections. */
#pragma once

#include <raft.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "base/macros.h"
#include "net/loop.h"

struct stream;

/*
 * libraft's own half wants a stream of libuv for each link, so that a message would go through a socketpair, one more turn of
 * the loop and some eight system calls before TLS sees it, and the same on its way in. This one encodes (raft_wire.h) into the
 * connection, once per turn for all that the turn has to say, and decodes what TLS gives out.
 *
 * Each member has a connection for each direction, as libraft has it: we dial what we send by, once there is something to
 * send, and from then on always again; what we accept we read from. Nothing travels backwards.
 *
 *   send --link is there, takes more--> encoded, told (0) in this or the next turn
 *        --link is dialled, or full---> waits, in order; told RAFT_NOCONNECTION when too many wait, or the dialling failed
 *   link ends --> dialled anew at once; after a failure RAFT_NET_RETRY_MS later
 *
 * What is in a link that ends may be lost, although it was told 0: as with libraft's. One loop, the raft thread's.
 */
enum { RAFT_NET_RETRY_MS = 20 /* the peer side answers failures late, and ever later */ };

/* A member's connection while it is here. Its user's callbacks may end it (raft_way_close). */
struct raft_way {
	struct list node;
	struct raft_net *net;
	struct stream *stream;
	uint64_t name; /* the peer side's; 0: it has none */
	const struct raft_way_user *user;
	void *arg;
};

struct raft_way_user {
	void (*on_data)(void *arg, const uint8_t *data, size_t len);
	void (*on_writable)(void *arg); /* or NULL */
	/* The member has ended it, or the peer side has cut it: it is gone. */
	void (*on_end)(void *arg, const char *why);
};

/* Embedded in its user, who fills the first part. */
struct raft_net {
	struct loop *loop;
	/* Asks for a connection; the answer is raft_net_connected. */
	void (*connect)(void *arg, uint64_t request, uint64_t id, const char *address);
	/* A connection with a name has ended by itself (`remote`: by the member), or was of no use; not of one that was cut. */
	void (*ended)(void *arg, uint64_t name, bool remote);
	void *arg;
	/* private */
	struct raft_io *io;
	raft_io_recv_cb recv;   /* NULL: not started */
	struct list dials;      /* struct raft_dial */
	struct list ways;       /* struct raft_way */
	struct list outs;       /* struct net_out, one per peer */
	struct list ins;        /* struct net_in */
	struct list told;       /* struct net_send: callbacks that are due */
	struct flush_hook hook; /* what is said where no raft_net_flush follows */
	uint64_t next_request;
	bool closing;
};

/* `net` holds what its user fills. */
void raft_net_init(struct raft_net *net);
/* From io->start on: what comes in is given to `recv`. */
void raft_net_start(struct raft_net *net, struct raft_io *io, raft_io_recv_cb recv);
/* As io->send: 0, and cb later, never in this call; borrows the message's entries until then. Not for InstallSnapshot. */
MUST_CHECK int raft_net_send(struct raft_net *net, struct raft_io_send *req,
			     const struct raft_message *m, raft_io_send_cb cb);
/*
 * Calls what is due and writes what was said in this turn: from a prepare handle, which runs before the loop's own, so that it
 * leaves in this turn. What is said after that leaves a turn later.
 */
void raft_net_flush(struct raft_net *net);
/* Ends it all, at once: every callback has come when it returns (RAFT_CANCELED). Again: nothing happens. */
void raft_net_close(struct raft_net *net);

/* The stream is taken; NULL: it failed. An unknown request: the stream is ended. */
void raft_net_connected(struct raft_net *net, uint64_t request, uint64_t name,
			struct stream *stream);
/* A member came in. */
void raft_net_accepted(struct raft_net *net, uint64_t id, const char *address, uint64_t name,
		       struct stream *stream);
/* The peer side wants it gone. One that has ended is none. */
void raft_net_cut(struct raft_net *net, uint64_t name);
/* Those that TCP is stuck on are ended, so that they are dialled anew: stream_stalled(). From the loop, now and then. */
void raft_net_renew(struct raft_net *net);

/* ---- a connection for another use (raft_install.c) ---- */

/* way NULL: it failed. Takes the way and sets its user (raft_way_use). */
typedef void (*raft_net_dial_cb)(void *arg, struct raft_way *way);
/* *ret_request is set first; cb may come within the call. */
void raft_net_dial(struct raft_net *net, uint64_t id, const char *address, raft_net_dial_cb cb,
		   void *arg, uint64_t *ret_request);
/* cb does not come any more. */
void raft_net_dial_cancel(struct raft_net *net, uint64_t request);
void raft_way_use(struct raft_way *way, const struct raft_way_user *user, void *arg);
/* A failure is told by on_end. */
void raft_way_write(struct raft_way *way, const void *data, size_t len);
/* Ends it, and what was written still leaves if `linger`. No callback comes; the pointer is dead. */
void raft_way_close(struct raft_way *way, bool linger);
