/* Blocks of libraft's log that are written before they are needed. */
#pragma once

#include <sys/types.h>

/*
 * libraft reserves each segment of its log by posix_fallocate(). ext4 and XFS mark such blocks as not written, and the
 * first write into each changes that: a write that is to be durable then waits for their journal, too, which takes about
 * as long as the write itself. There is no other way to hand libraft a segment, so we define posix_fallocate() for the
 * process: what is reserved is also filled with zeros, which it reads as anyhow. Half of an append's time for 10 ms per
 * segment of 8 MiB, on a worker; on a slow disk the rest of a segment stays reserved alone.
 */
enum { RAFT_BLOCKS_MS = 200 };

/* posix_fallocate() as the C library has it. */
int raft_blocks_reserve(int fd, off_t offset, off_t len);
/* Has to be called by something that is linked, or the linker leaves ours out. */
void raft_blocks_init(void);
