/* SPDX-License-Identifier: MIT */
/*
 * config.c -- from options to a configuration: every number checked, every default filled in.
 *
 * Threads: any.
 */
#include <errno.h>
#include <string.h>
#include <sched.h>

#include "runtime/runtime.h"
#include "sched/cpus.h"

enum {
    RESCUE_NS = 200000,
    STACK_BYTES = 65536,
    TASKS_MAX = 1 << 20,
    OFFLOAD_PER_CPU = 4
};
#define TASKS_LIMIT (1u << 28)

static int check(const struct reeve_opts *o)
{
    if (o->embed)
        return -ENOTSUP;
    if (o->preset < REEVE_BALANCED || o->preset > REEVE_LATENCY || o->workers > RV_WORKERS_MAX)
        return -EINVAL;
    if (o->cpus && o->workers == 0)
        return -EINVAL;
    if (o->tasks_max > TASKS_LIMIT || o->pass_picks > INT32_MAX || o->injector_every > INT32_MAX)
        return -EINVAL;
    if (o->pass_ns < 0 || o->delay_max_ns < 0)
        return -EINVAL;
    if (o->stack_bytes && rv_stack_class(o->stack_bytes) < 0)
        return -EINVAL;
    if (o->offload_max > RV_OFFLOAD_MAX && o->offload_max != REEVE_NONE)
        return -EINVAL;
    if (o->rescue_signal < -1 || o->rescue_signal > 64 || o->rescue_ns < 0)
        return -EINVAL;
    if (o->stall_ns < 0 || (o->stall_ns > 0) != (o->on_stall != NULL))
        return -EINVAL;
    for (unsigned i = 0; o->cpus && i < o->workers; i++)
        if (o->cpus[i] < 0 || o->cpus[i] >= CPU_SETSIZE)
            return -EINVAL;
    return 0;
}

static uint32_t offload_threads(unsigned asked, unsigned cpus)
{
    if (asked == REEVE_NONE)
        return 0;
    if (asked)
        return asked;
    return cpus < RV_OFFLOAD_MAX / OFFLOAD_PER_CPU ? OFFLOAD_PER_CPU * cpus : RV_OFFLOAD_MAX;
}

/* What a preset stands for. */
struct preset {
    unsigned injector_every;
    int32_t pass_picks;
    int64_t pass_ns, worth_ns;
};

static const struct preset presets[] = {
    [REEVE_BALANCED] = { 61, 61, 100 * REEVE_US, 50 * REEVE_US },
    [REEVE_THROUGHPUT] = { 61, 244, 500 * REEVE_US, 200 * REEVE_US },
    [REEVE_LATENCY] = { 31, 16, 25 * REEVE_US, 5 * REEVE_US },
};

static void fill_from_preset(struct rv_sched_opts *s, const struct reeve_opts *o)
{
    const struct preset *p = &presets[o->preset];
    s->injector_every = o->injector_every ? o->injector_every : p->injector_every;
    s->pass_picks = o->pass_picks ? (int32_t)o->pass_picks : p->pass_picks;
    s->pass_ns = o->pass_ns ? o->pass_ns : p->pass_ns;
    s->worth_ns = p->worth_ns;
    s->delay_max = o->delay_max_ns;
    memcpy(s->waiting_max, o->waiting_max, sizeof s->waiting_max);
}

int rv_config_fill(struct rv_config *ret_config, const struct reeve_opts *o)
{
    static const struct reeve_opts defaults;
    if (o == NULL)
        o = &defaults;
    int r = check(o);
    if (r < 0)
        return r;
    unsigned cpus = rv_cpus_usable();
    *ret_config = (struct rv_config){
        .sched = { .workers = o->workers              ? o->workers
                              : cpus < RV_WORKERS_MAX ? cpus
                                                      : RV_WORKERS_MAX,
                   .tasks_max = o->tasks_max ? o->tasks_max : TASKS_MAX,
                   .stack_class =
                       (uint8_t)rv_stack_class(o->stack_bytes ? o->stack_bytes : STACK_BYTES) },
        .io = { .buf_bytes = o->buf_bytes, .bufs = o->bufs, .zc_bytes = o->zc_bytes },
        .name = o->name ? o->name : "reeve",
        .cpus = o->cpus,
        .offload_max = offload_threads(o->offload_max, cpus),
        .rescue_signal = o->rescue_signal,
        .rescue_ns = o->rescue_ns ? o->rescue_ns : RESCUE_NS,
        .stall_ns = o->stall_ns,
        .on_stall = o->on_stall,
        .stall_ctx = o->stall_ctx,
    };
    fill_from_preset(&ret_config->sched, o);
    return 0;
}
