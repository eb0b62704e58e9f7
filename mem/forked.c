/* SPDX-License-Identifier: MIT */
/*
 * forked.c -- hooks that a child runs.
 *
 * (1) Hooks are only added, each once, and run in the order in which they were.
 * (2) A child whose parent was adding one just then may miss that one: what it would put back was
 *     not used yet.
 *
 * Threads: hook, forks - any; a child has but one.
 */
#include "mem/forked.h"

#include <pthread.h>
#include <stddef.h>

#include "mem/die.h"
#include "mem/local.h"
#include "mem/lock.h"
#include "mem/rv_atomic.h"

enum { HOOKS_MAX = 8 };

static struct rv_lock lock; /* guards the adding */
static void (*hooks[HOOKS_MAX])(void);
static RV_ATOMIC(uint32_t) hooks_n;
static RV_ATOMIC(uint32_t) forks;

static void in_child(void)
{
    rv_store_relaxed(&forks, rv_load_relaxed(&forks) + 1);
    rv_lock_init(&lock);
    rv_local_set(NULL);
    for (uint32_t i = 0, n = rv_load_acquire(&hooks_n); i < n; i++) /* pairs with rv_fork_hook() */
        hooks[i]();
}

uint32_t rv_forks(void)
{
    return rv_load_relaxed(&forks);
}

void rv_fork_hook(void (*child)(void))
{
    rv_lock_acquire(&lock);
    uint32_t n = rv_load_relaxed(&hooks_n);
    bool known = false;
    for (uint32_t i = 0; i < n; i++)
        known |= hooks[i] == child;
    if (!known) {
        RV_MUST(n < HOOKS_MAX);
        if (n == 0)
            RV_MUST(pthread_atfork(NULL, NULL, in_child) == 0);
        hooks[n] = child;
        rv_store_release(&hooks_n, n + 1); /* pairs with in_child() */
    }
    rv_lock_release(&lock);
}
