/* SPDX-License-Identifier: MIT */
/*
 * config.c -- from options to a configuration: every number checked, every default filled in.
 *
 * How many workers a machine deserves is asked of those who limit this process: its CPU affinity,
 * and the quota of its cgroup, which a container sets without changing the affinity.
 *
 * Threads: any.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "runtime/runtime.h"

enum {
    PASS_PICKS = 61,
    INJECTOR_EVERY = 61,
    PASS_NS = 100000,
    STACK_BYTES = 65536,
    TASKS_MAX = 1 << 20
};
#define TASKS_LIMIT (1u << 28)

/* The CPUs that "QUOTA PERIOD" of a cgroup's cpu.max allow, rounded up; 0: no limit. */
static unsigned quota_of(const char *path)
{
    unsigned long quota = 0, period = 0;
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return 0;
    int n = fscanf(f, "%lu %lu", &quota, &period); /* "max 100000" reads nothing */
    fclose(f);
    return n == 2 && period > 0 ? (unsigned)((quota + period - 1) / period) : 0;
}

/* The tightest quota from the process's own cgroup up to the root. */
static unsigned cgroup_cpus(void)
{
    char line[512], path[640];
    unsigned least = 0;
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (f == NULL)
        return 0;
    bool v2 = false;
    while (!v2 && fgets(line, sizeof line, f))
        v2 = strncmp(line, "0::/", 4) == 0;
    fclose(f);
    if (!v2)
        return 0;
    line[strcspn(line, "\n")] = 0;
    for (char *group = line + 3; *group; *strrchr(group, '/') = 0) {
        snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", group);
        unsigned n = quota_of(path);
        if (n && (least == 0 || n < least))
            least = n;
    }
    return least;
}

unsigned rv_cpus_usable(void)
{
    cpu_set_t set;
    unsigned n = sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
    unsigned quota = cgroup_cpus();
    if (quota && quota < n)
        n = quota;
    return n ? n : 1;
}

static int check(const struct reeve_opts *o)
{
    if (o->embed)
        return -ENOTSUP;
    if (o->preset < REEVE_BALANCED || o->preset > REEVE_LATENCY || o->workers > RV_WORKERS_MAX)
        return -EINVAL;
    if (o->cpus && o->workers == 0)
        return -EINVAL;
    if (o->tasks_max > TASKS_LIMIT || o->pass_ns < 0 || o->pass_picks > INT32_MAX ||
        o->injector_every > INT32_MAX)
        return -EINVAL;
    if (o->stack_bytes && rv_stack_class(o->stack_bytes) < 0)
        return -EINVAL;
    if (o->rescue_signal < -1 || o->rescue_signal > 64)
        return -EINVAL;
    for (unsigned i = 0; o->cpus && i < o->workers; i++)
        if (o->cpus[i] < 0 || o->cpus[i] >= CPU_SETSIZE)
            return -EINVAL;
    return 0;
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
                       (uint8_t)rv_stack_class(o->stack_bytes ? o->stack_bytes : STACK_BYTES),
                   .injector_every = o->injector_every ? o->injector_every : INJECTOR_EVERY,
                   .pass_picks = (int32_t)(o->pass_picks ? o->pass_picks : PASS_PICKS),
                   .pass_ns = o->pass_ns ? o->pass_ns : PASS_NS },
        .io = { .buf_bytes = o->buf_bytes, .bufs = o->bufs },
        .name = o->name ? o->name : "reeve",
        .cpus = o->cpus,
    };
    return 0;
}
