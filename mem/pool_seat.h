/* SPDX-License-Identifier: MIT */
/*
 * pool_seat.h -- a small number for each record of a thread (local.h), by which pools find what
 * they keep for it.
 *
 * A pool cannot have a place for every thread of the process, nor a thread's record one for every
 * pool. So each record gets a seat, the lowest that is free, when its thread first has use for one;
 * a pool's table of magazines is indexed by it and is as long as the highest seat that it met.
 *
 * (1) A seat has one holder at a time. What belongs to the seat, the magazines of all pools, passes
 *     on with it: the next holder finds them as they were left.
 * (2) Whoever wants to look at what a vacant seat left takes the seat for that time.
 *
 * Threads: take, leave - the record's; try, give - any.
 */
#ifndef RV_MEM_POOL_SEAT_H
#define RV_MEM_POOL_SEAT_H

#include <stdbool.h>
#include <stdint.h>

#include "mem/local.h"

enum {
    RV_SEATS = 1024,            /* 1 .. RV_SEATS - 1 */
    RV_SEAT_UNKNOWN = 0,        /* it has not asked yet */
    RV_SEAT_NONE = RV_SEATS     /* all were taken: it does without */
};

/* The seat of a record, which it keeps until rv_seat_leave(); or RV_SEAT_NONE. */
uint32_t rv_seat_take(struct rv_local *local);

/* Before a record ends. One without a seat, {0} for example, is fine. */
void rv_seat_leave(struct rv_local *local);

/* Takes a vacant seat for a while; false: it has a holder. Then gives it back. */
bool rv_seat_try(uint32_t seat);
void rv_seat_give(uint32_t seat);

#endif
