/* The wire form of a message in one pass: the bytes of protobuf-c, which takes two and asks for the size of each part. */
#pragma once

#include <stddef.h>

#include "base/macros.h"

#define PB_ENCODE_FULL ((size_t)-1)

/*
 * Writes the message (any generated struct) to the end of the `size` bytes at `buf`: it is written from its last byte to its
 * first, so that each length is known when it is due. Returns how many bytes it takes, or PB_ENCODE_FULL if it has not enough
 * room; the bytes before it are undefined. Any thread. Deeper than LIM_PB_DEPTH is a programming error.
 */
MUST_CHECK size_t pb_encode(const void *msg, void *buf, size_t size);
