/* SPDX-License-Identifier: MIT */
/*
 * pool_seat.c -- seats: a bitmap under a lock.
 *
 *     vacant -> held     [rv_seat_take, rv_seat_try]
 *     held -> vacant     [rv_seat_leave, rv_seat_give]
 *
 * (1) Taking and leaving lock, so what a holder did to the seat's magazines is the next one's to
 * see. (2) The lock is taken once in the life of a record, and by who trims a pool.
 * (3) In a child of fork the seats of the parent's workers stay taken: nobody knows in what state
 *     their magazines are.
 *
 * Threads: see pool_seat.h.
 */
#include "mem/pool_seat.h"

#include "mem/die.h"
#include "mem/forked.h"
#include "mem/lock.h"

static struct rv_lock lock; /* guards the bitmap */
static uint64_t held[RV_SEATS / 64] = { 1 };    /* seat 0 is nobody's */

static void forked(void)
{
    rv_lock_init(&lock);
}

static uint32_t lowest_vacant(void)
{
    for (uint32_t i = 0; i < RV_SEATS / 64; i++)
        if (held[i] != UINT64_MAX)
            return i * 64 + (uint32_t)__builtin_ctzll(~held[i]);
    return RV_SEAT_NONE;
}

static uint64_t bit(uint32_t seat)
{
    return UINT64_C(1) << (seat % 64);
}

static void vacate(uint32_t seat)
{
    rv_lock_acquire(&lock);
    RV_MUST((held[seat / 64] & bit(seat)) != 0);
    held[seat / 64] &= ~bit(seat);
    rv_lock_release(&lock);
}

uint32_t rv_seat_take(struct rv_local *local)
{
    if (local->seat != RV_SEAT_UNKNOWN)
        return local->seat;
    rv_fork_hook(forked);
    rv_lock_acquire(&lock);
    uint32_t seat = lowest_vacant();
    if (seat != RV_SEAT_NONE)
        held[seat / 64] |= bit(seat);
    rv_lock_release(&lock);
    RV_ASSERT(seat != 0);
    local->seat = seat;
    return seat;
}

void rv_seat_leave(struct rv_local *local)
{
    uint32_t seat = local->seat;
    RV_ASSERT(seat <= RV_SEAT_NONE);
    local->seat = RV_SEAT_UNKNOWN;
    if (seat != RV_SEAT_UNKNOWN && seat != RV_SEAT_NONE)
        vacate(seat);
}

bool rv_seat_try(uint32_t seat)
{
    RV_ASSERT(seat > 0);
    RV_ASSERT(seat < RV_SEATS);
    rv_lock_acquire(&lock);
    bool vacant = (held[seat / 64] & bit(seat)) == 0;
    held[seat / 64] |= bit(seat);
    rv_lock_release(&lock);
    return vacant;
}

void rv_seat_give(uint32_t seat)
{
    RV_ASSERT(seat > 0);
    RV_ASSERT(seat < RV_SEATS);
    vacate(seat);
}
