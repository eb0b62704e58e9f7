/* SPDX-License-Identifier: MIT */
/*
 * sim_pool.c -- the pool for calls that block, played: a few threads that are none.
 *
 * A thread takes the oldest call after a while, makes it at some moment until it is over, and is
 * over after another while. In between its caller may give up, in time to take the call back or
 * too late. The call itself is the real one, and is made by the world in one go.
 *
 *     idle -> coming       [hear]   a job was queued
 *     coming -> running    [begin]  it took one; else back to idle
 *     running -> coming    [end]    done() was told; there may be another
 *
 * (1) As many are coming or running as there are jobs, up to RV_SIM_CALLS: a job is never queued
 *     with all threads idle.
 * (2) A thread that cannot be made fails what is queued only if there is no other.
 *
 * Threads: the simulation's.
 */
#include <errno.h>

#include "io/sim_world.h"
#include "mem/die.h"

static bool is_idle(const struct rv_sim_call *c)
{
    return !c->due && !c->job;
}

static void make_due(struct rv_sim *sim, struct rv_sim_call *c)
{
    RV_MUST(!c->due);
    c->due = true;
    rv_sim_at(sim->now + rv_sim_delay(), RV_SIM_DUE_CALL, (uint32_t)(c - sim->calls), 0);
}

static int hear(void *ctx)
{
    struct rv_sim *sim = ctx;
    struct rv_sim_call *idle = NULL;
    uint32_t busy = 0;
    for (uint32_t i = 0; i < RV_SIM_CALLS; i++) {
        struct rv_sim_call *c = &sim->calls[i];
        if (is_idle(c))
            idle = c;
        else
            busy++;
    }
    if (busy == 0 && rv_sim_chance(sim->opts.faults.nomem)) {
        sim->result.seen.faults++;
        return rv_sim_chance(512) ? -EAGAIN : -ENOMEM; /* (2) */
    }
    if (idle)
        make_due(sim, idle);
    return 0;
}

static void call(struct rv_sim *sim, struct rv_sim_call *c)
{
    sim->steps++;
    c->result = c->job->fn(c->job->arg);
    c->called = true;
    rv_sim_record(RV_SIM_CALL, UINT32_MAX, 0, c->result);
}

static void begin(struct rv_sim *sim, struct rv_sim_call *c)
{
    c->job = rv_offload_take(&sim->offload);
    if (!c->job)
        return;
    c->called = false;
    if (rv_sim_chance(512))
        call(sim, c);
    make_due(sim, c);
}

static void end(struct rv_sim *sim, struct rv_sim_call *c)
{
    if (!c->called)
        call(sim, c);
    struct rv_offload_job *job = c->job;
    c->job = NULL;
    job->done(job, c->result);
}

void rv_sim_pool_due(const struct rv_sim_due *due)
{
    struct rv_sim *sim = rv_sim_world;
    struct rv_sim_call *c = &sim->calls[due->index];
    RV_MUST(c->due);
    c->due = false;
    if (c->job) {
        end(sim, c);
        if (!c->due) /* what it told may have queued a job, and found this thread idle */
            make_due(sim, c);
    } else {
        begin(sim, c);
    }
}

void rv_sim_pool_init(struct rv_sim *sim)
{
    rv_offload_init(&sim->offload, RV_SIM_CALLS, "sim", NULL);
    sim->offload.played = hear;
    sim->offload.played_ctx = sim;
    sim->sched->offload = &sim->offload;
}

void rv_sim_pool_finish(struct rv_sim *sim)
{
    if (!sim->offload.played)
        return;
    for (uint32_t i = 0; i < RV_SIM_CALLS; i++)
        if (sim->calls[i].job)
            end(sim, &sim->calls[i]);
    rv_offload_finish(&sim->offload);
}
