/* libraft's links where they run: TLS and the end of a socketpair in one loop, the raft thread's. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct cluster;
struct stream_parcel;

/*
 * The peer side dials, accepts and vets the connections of other members. From then on each message would wake the peer
 * thread on its way in and on its way out, which costs more than what is done with it there: so a vetted connection moves
 * to the raft thread, and the pump between it and libraft's end of a socketpair runs in the same loop as libraft.
 */

/* Raft thread. Takes the connection; returns libraft's end, or negative: it is gone. */
int way_open(struct cluster *c, uint64_t way, struct stream_parcel *parcel);
/* Cuts it. One that has ended is none. */
void way_cut(struct cluster *c, uint64_t way);
/* Those that TCP is stuck on are ended, so that libraft has them dialled anew. From the loop, now and then. */
void ways_renew(struct cluster *c);
/* After the thread's end, or on it. */
void ways_free(struct cluster *c);
