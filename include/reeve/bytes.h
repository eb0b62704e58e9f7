/* SPDX-License-Identifier: MIT */
/** bytes.h -- bytes of somebody's, and how many: how they are passed where they are only read.
 */
#ifndef REEVE_BYTES_H
#define REEVE_BYTES_H

#include <stddef.h>

/** Lent for the length of the call that it is given to, unless that says otherwise. {0} is none. */
struct reeve_bytes {
    const void *data;
    size_t len;
};

#endif /* REEVE_BYTES_H */
