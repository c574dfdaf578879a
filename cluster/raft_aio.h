/* The end of libraft's contexts of asynchronous writes, off the consensus thread. */
#pragma once

/*
 * libraft has a context of the kernel's (io_setup(2)) per segment of its log, and ends it on its loop when the segment is
 * full or a snapshot begins a new one. io_destroy(2) waits until every processor has passed a quiet point: some 40 ms
 * without a step of the consensus loop, on all members at about the same moment, after each 8 MiB of log. libraft calls
 * it by syscall(2) of the C library, so we define that for the process: this one call is handed to a thread of its own, and
 * counts as done. Nothing is under way in a context that libraft ends.
 */

/* Has to be called by something that is linked, or the linker leaves ours out. */
void raft_aio_init(void);
/* How many were handed over, and how many of these are done. */
unsigned raft_aio_handed(void);
unsigned raft_aio_ended(void);
