/* SPDX-License-Identifier: MIT */
/*
 * cache_store_scan.h -- finding again what is in the file of a store.
 *
 *     struct rv_store_scan scan = { .store = s };
 *     while ((r = reeve_offload(rv_store_scan_step, &scan, until)) > 0)
 *         ;
 *     rv_store_scan_finish(&scan);
 */
#ifndef RV_RUNTIME_CACHE_STORE_SCAN_H
#define RV_RUNTIME_CACHE_STORE_SCAN_H

#include "runtime/cache_store_log.h"

struct rv_store_scan {
    struct rv_store *store; /* its file is open and has a head, its index is empty */
    struct rv_store_found {
        uint64_t seq, before; /* before: where the log was when it was begun */
        uint32_t slots;       /* that the segment before it has */
    } *found;                 /* for each place of the ring; seq 0: no marks */
    uint64_t *chain;          /* segments, the newest first */
    struct rv_store_slot *slots;
    uint64_t slots_seq; /* of which segment `slots` shows a part */
    uint32_t slots_first;
    uint32_t looked, length, left; /* places; of the chain */
};

/* A few MiB of it; may block. 1: there is more; 0: done, the store's end and next are set; -ENOMEM;
 * -EIO: it could not be repaired; -EBADMSG: not what it was when it was closed, or at the end of
 * all numbers: begin anew. */
int rv_store_scan_step(void *arg);

void rv_store_scan_finish(struct rv_store_scan *scan);

#endif
