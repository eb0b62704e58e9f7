/* SPDX-License-Identifier: MIT */
/*
 * post.c -- work from other threads.
 *
 * A call is a posted task that spawns the caller's function as its child and joins it, so that it
 * is told when the whole of it is done, its children included. The join runs the child inline: it
 * costs one descriptor more and no switch.
 *
 * Threads: any.
 */
#include <errno.h>

#include "mem/forked.h"
#include "runtime/runtime.h"
#include "sched/wait.h"

int reeve_post(reeve *rt, const struct reeve_spawn *how)
{
    if (__builtin_expect(rt->sched.forks != rv_forks(), 0))
        return -ECHILD;
    return rv_sched_post(&rt->sched, how);
}

struct call {
    reeve_fn *fn;
    void *arg;
    reeve_time until;
    int result;
    bool done;
    pthread_mutex_t lock;
    pthread_cond_t changed;
};

static void finish(struct call *c, int result)
{
    pthread_mutex_lock(&c->lock);
    c->result = result;
    c->done = true;
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static void skipped(void *arg)
{
    finish(*(struct call **)arg, -ECANCELED);
}

static int run_call(void *arg)
{
    struct call *c = *(struct call **)arg;
    reeve_task *t;
    int result, r = reeve_spawn(&t, c->fn, c->arg, .deadline = c->until);
    if (r == 0) {
        while (reeve_join(t, &result, 0) < 0) /* cancelled: the child too; its end is near */
            rv_wait_mask(rv_worker_self()->cur, true);
        r = result;
    }
    finish(c, r);
    return 0;
}

int reeve_call(reeve *rt, reeve_fn *fn, void *arg, reeve_time until)
{
    if (rt->sched.forks != rv_forks())
        return -ECHILD;
    if (rv_worker_self() != NULL)
        return -EDEADLK;
    if (fn == NULL)
        return -EINVAL;
    if (until < 0 || (until && until <= reeve_now()))
        return -ETIMEDOUT;
    struct call c = { .fn = fn,
                      .arg = arg,
                      .until = until,
                      .lock = PTHREAD_MUTEX_INITIALIZER,
                      .changed = PTHREAD_COND_INITIALIZER };
    struct call *self = &c;
    int r = rv_sched_post(&rt->sched, &(struct reeve_spawn){ .fn = run_call,
                                                             .arg = &self,
                                                             .copy = sizeof self,
                                                             .skipped = skipped,
                                                             .name = "call" });
    if (r < 0)
        return r;
    pthread_mutex_lock(&c.lock);
    while (!c.done)
        pthread_cond_wait(&c.changed, &c.lock);
    pthread_mutex_unlock(&c.lock);
    pthread_cond_destroy(&c.changed);
    pthread_mutex_destroy(&c.lock);
    return c.result;
}
