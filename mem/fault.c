/* SPDX-License-Identifier: MIT */
/*
 * fault.c -- counts fault points and lets one of them fail.
 *
 * (1) Disarmed, a point reads rv_fault_armed and nothing else.
 * (2) Armed, each point that passes the filter draws a number; the one that draws fail_at fails. So
 *     exactly one fails, whichever threads they are on.
 * Threads: points - any; setters - one, while no thread is inside a point it cares about.
 */
#include "mem/fault.h"

#include <string.h>

#include "mem/die.h"

RV_ATOMIC(uint32_t) rv_fault_armed;

static struct {
    RV_ATOMIC(uint64_t) reached;
    RV_ATOMIC(uint64_t) fail_at;            /* 0: none */
    RV_ATOMIC(const char *) failed_name;
    RV_ATOMIC(const char *) start;          /* the filter */
} fault;

bool rv_fault_available(void)
{
#ifdef RV_FAULTS
    return true;
#else
    return false;
#endif
}

bool rv_fault_reached(const char *name)
{
    RV_ASSERT(name != NULL);
    const char *start = rv_load_acquire(&fault.start);      /* pairs with rv_fault_only() */
    if (start != NULL && strncmp(name, start, strlen(start)) != 0)
        return false;
    if (rv_add_relaxed(&fault.reached, UINT64_C(1)) + 1 != rv_load_relaxed(&fault.fail_at))
        return false;
    rv_store_release(&fault.failed_name, name);             /* pairs with rv_fault_last_name() */
    return true;
}

void rv_fault_fail_nth(uint64_t n)
{
    rv_store_relaxed(&rv_fault_armed, 0U);
    rv_store_relaxed(&fault.reached, UINT64_C(0));
    rv_store_relaxed(&fault.failed_name, NULL);
    rv_store_relaxed(&fault.fail_at, n);
    rv_store_release(&rv_fault_armed, 1U);
}

void rv_fault_off(void)
{
    rv_store_relaxed(&rv_fault_armed, 0U);
    rv_store_relaxed(&fault.start, NULL);
}

void rv_fault_only(const char *start)
{
    rv_store_release(&fault.start, start);      /* pairs with the acquire in rv_fault_reached() */
}

uint64_t rv_fault_count(void)
{
    return rv_load_relaxed(&fault.reached);
}

const char *rv_fault_last_name(void)
{
    return rv_load_acquire(&fault.failed_name);     /* pairs with rv_fault_reached() */
}
