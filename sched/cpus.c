/* SPDX-License-Identifier: MIT */
/*
 * cpus.c -- the CPUs of this machine, as the kernel's files describe them.
 *
 * How many CPUs a process deserves is asked of those who limit it: its affinity mask, which cpusets
 * narrow as well, and the quota of its cgroups, which a container sets without changing the mask.
 *
 * (1) A quota holds for everything below: the tightest counts, from the process's own group up to
 *     the root of what is mounted. In a container that root is often the container's own group,
 *     while the path in /proc names groups that are not mounted there; those are skipped.
 * (2) The order that spreads work best: the n-th CPUs of all cores before the (n+1)-th, since two
 *     on one core share its units. Within that: socket, NUMA node, cache, core, number; so
 *     neighbours in the list are neighbours on the machine.
 * (3) A placer's turn is one atomic addition. 64 bits: it never wraps, so each list comes out even.
 *
 * Threads: any.
 */
#include "sched/cpus.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "mem/rv_atomic.h"

enum { PATH_BYTES = 1024, LIST_BYTES = 4096, NODES_MAX = 1024, CACHES_MAX = 5 };

/* ---- lists ---- */

static bool read_number(const char **p, int *ret)
{
    int n = 0;
    const char *s = *p;
    while (*s >= '0' && *s <= '9' && n < RV_CPUS_MAX)
        n = 10 * n + (*s++ - '0');
    if (s == *p || n >= RV_CPUS_MAX)
        return false;
    *p = s;
    *ret = n;
    return true;
}

/* Walks over a list; with cpus NULL it only counts. */
static int walk(const char *p, int *cpus, unsigned cap)
{
    unsigned n = 0;
    for (;;) {
        int from, to;
        if (!read_number(&p, &from))
            return -EINVAL;
        to = from;
        if (*p == '-' && (p++, !read_number(&p, &to) || to < from))
            return -EINVAL;
        for (; from <= to; from++) {
            if (n == cap)
                return -ERANGE;
            if (cpus)
                cpus[n] = from;
            n++;
        }
        if (*p == 0)
            return (int)n;
        if (*p++ != ',')
            return -EINVAL;
    }
}

int reeve_cpus_parse(const char *list, int *cpus, unsigned cap)
{
    if (list == NULL)
        return -EINVAL;
    int n = walk(list, NULL, cap < INT_MAX ? cap : INT_MAX);
    return n < 0 ? n : walk(list, cpus, cap);
}

/* ---- files ---- */

/* The text of a small file without its newline; false: it is not there. */
static bool __attribute__((format(printf, 3, 4)))
read_text(char *buf, size_t cap, const char *fmt, ...)
{
    char path[PATH_BYTES];
    va_list args;
    va_start(args, fmt);
    int len = vsnprintf(path, sizeof path, fmt, args);
    va_end(args);
    if (len >= (int)sizeof path)
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, buf, cap - 1);
    close(fd);
    if (n <= 0)
        return false;
    buf[n] = 0;
    buf[strcspn(buf, "\n")] = 0;
    return true;
}

/* ---- how many ---- */

static unsigned round_up(long quota, long period)
{
    if (quota <= 0 || period <= 0)
        return 0;
    long cpus = quota / period + (quota % period != 0);
    return cpus < RV_CPUS_MAX ? (unsigned)cpus : RV_CPUS_MAX;
}

/* The CPUs that the quota of one group, the first len bytes of its path, pays for; 0: no limit, or
 * no such group here. */
static unsigned quota_v2(const char *root, const char *mount, const char *group, int len)
{
    char text[64];
    long quota, period;
    if (!read_text(text, sizeof text, "%s%s%.*s/cpu.max", root, mount, len, group))
        return 0;
    return sscanf(text, "%ld %ld", &quota, &period) == 2 ? round_up(quota, period) : 0;
}

static unsigned quota_v1(const char *root, const char *mount, const char *group, int len)
{
    char quota[32], period[32];
    if (!read_text(quota, sizeof quota, "%s%s%.*s/cpu.cfs_quota_us", root, mount, len, group) ||
        !read_text(period, sizeof period, "%s%s%.*s/cpu.cfs_period_us", root, mount, len, group))
        return 0;
    return round_up(strtol(quota, NULL, 10), strtol(period, NULL, 10)); /* -1: no limit */
}

static unsigned tighter(unsigned a, unsigned b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

typedef unsigned quota_fn(const char *root, const char *mount, const char *group, int len);

/* The tightest from the group up to the root of the mount, see (1). */
static unsigned tightest(const char *root, const char *mount, const char *group, quota_fn *quota)
{
    unsigned least = 0;
    int len = (int)strnlen(group, PATH_BYTES);
    for (;;) {
        while (len > 0 && group[len - 1] == '/')
            len--;
        least = tighter(least, quota(root, mount, group, len));
        if (len == 0)
            return least;
        while (len > 0 && group[len - 1] != '/')
            len--;
    }
}

/* Whether the comma-separated names hold "cpu". */
static bool names_cpu(const char *names)
{
    for (const char *p = names; *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == 3 && strncmp(p, "cpu", 3) == 0)
            return true;
    return false;
}

/* A line of /proc/self/cgroup, which is used up: "0::/group" or "4:cpu,cpuacct:/group". */
static unsigned quota_of_line(const char *root, char *line)
{
    char mount[256];
    char *names = strchr(line, ':'), *group = names ? strchr(names + 1, ':') : NULL;
    if (group == NULL)
        return 0;
    names++;
    *group++ = 0;
    group[strcspn(group, "\n")] = 0;
    if (*names == 0)
        return tighter(tightest(root, "/sys/fs/cgroup", group, quota_v2),
                       tightest(root, "/sys/fs/cgroup/unified", group, quota_v2));
    if (!names_cpu(names))
        return 0;
    snprintf(mount, sizeof mount, "/sys/fs/cgroup/%s", names);
    return tighter(tightest(root, mount, group, quota_v1),
                   tightest(root, "/sys/fs/cgroup/cpu", group, quota_v1));
}

unsigned rv_cpus_quota(const char *root)
{
    char path[PATH_BYTES], *line = NULL;
    size_t cap = 0;
    unsigned least = 0;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return 0;
    while (getline(&line, &cap, f) > 0)
        least = tighter(least, quota_of_line(root, line));
    free(line);
    fclose(f);
    return least;
}

void rv_cpus_allowed(cpu_set_t *ret_set)
{
    cpu_set_t all[8]; /* the kernel wants room for as many as it was built for */
    CPU_ZERO(&all[0]);
    if (sched_getaffinity(0, sizeof all, all) < 0 || CPU_COUNT(&all[0]) == 0)
        CPU_SET(0, &all[0]);
    *ret_set = all[0];
}

unsigned rv_cpus_count(const char *root, const cpu_set_t *set)
{
    unsigned n = (unsigned)CPU_COUNT(set);
    n = tighter(n, rv_cpus_quota(root));
    return n ? n : 1;
}

unsigned rv_cpus_usable(void)
{
    cpu_set_t set;
    rv_cpus_allowed(&set);
    return rv_cpus_count("", &set);
}

/* ---- which ---- */

static const char cpu_files[] = "/sys/devices/system/cpu";
static const char node_files[] = "/sys/devices/system/node";

/* The first number in a CPU's file; otherwise `none`. */
static int first_of(const char *root, int cpu, const char *file, int none)
{
    char text[64];
    int n;
    if (!read_text(text, sizeof text, "%s%s/cpu%d/%s", root, cpu_files, cpu, file))
        return none;
    return sscanf(text, "%d", &n) == 1 && n >= 0 ? n : none;
}

/* The first CPU of the last level of cache. Levels are counted through, so it is the last file. */
static int last_cache(const char *root, int cpu)
{
    char file[64];
    for (int i = CACHES_MAX - 1; i >= 2; i--) {
        snprintf(file, sizeof file, "cache/index%d/shared_cpu_list", i);
        int first = first_of(root, cpu, file, -1);
        if (first >= 0)
            return first;
    }
    return -1;
}

static struct rv_cpu *find(const struct rv_topology *t, int id)
{
    for (unsigned i = 0; i < t->n; i++)
        if (t->cpu[i].id == id)
            return (struct rv_cpu *)&t->cpu[i];
    return NULL;
}

/* Adds a node's number to its CPUs. lists: room for a text and the list in it. */
static void read_node(struct rv_topology *t, const char *root, int node, int *ids, char *text)
{
    if (!read_text(text, LIST_BYTES, "%s%s/node%d/cpulist", root, node_files, node))
        return;
    int n = reeve_cpus_parse(text, ids, RV_CPUS_MAX); /* none: memory alone */
    for (int i = 0; i < n; i++) {
        struct rv_cpu *c = find(t, ids[i]);
        if (c)
            c->node = node;
    }
}

static void read_nodes(struct rv_topology *t, const char *root)
{
    char *text = rv_alloc(LIST_BYTES);
    int *ids = rv_alloc(RV_CPUS_MAX * sizeof *ids);
    int *nodes = rv_alloc(NODES_MAX * sizeof *nodes);
    if (text && ids && nodes && read_text(text, LIST_BYTES, "%s%s/online", root, node_files)) {
        int n = reeve_cpus_parse(text, nodes, NODES_MAX);
        for (int i = 0; i < n; i++)
            read_node(t, root, nodes[i], ids, text);
    }
    rv_free(nodes);
    rv_free(ids);
    rv_free(text);
}

static bool same_core(const struct rv_cpu *a, const struct rv_cpu *b)
{
    return a->core == b->core && a->package == b->package;
}

/* See (2). */
static int compare(const void *x, const void *y)
{
    const struct rv_cpu *a = x, *b = y;
    const int left[] = { a->turn, a->package, a->node, a->cache, a->core, a->id };
    const int right[] = { b->turn, b->package, b->node, b->cache, b->core, b->id };
    size_t i = 0;
    while (i < 5 && left[i] == right[i])
        i++;
    return (left[i] > right[i]) - (left[i] < right[i]);
}

void rv_topology_read(struct rv_topology *ret_topology, const char *root, const cpu_set_t *set)
{
    struct rv_topology *t = ret_topology;
    t->n = 0;
    for (int id = 0; id < RV_CPUS_MAX; id++) {
        if (!CPU_ISSET(id, set))
            continue;
        int core = first_of(root, id, "topology/core_id", id);
        struct rv_cpu c = { .id = id,
                            .core = first_of(root, id, "topology/thread_siblings_list", core),
                            .cache = last_cache(root, id),
                            .package = first_of(root, id, "topology/physical_package_id", 0) };
        for (unsigned i = 0; i < t->n; i++)
            c.turn += same_core(&t->cpu[i], &c);
        t->cpu[t->n++] = c;
    }
    read_nodes(t, root);
    qsort(t->cpu, t->n, sizeof *t->cpu, compare);
    RV_ASSERT(t->n == (unsigned)CPU_COUNT(set));
}

unsigned rv_cpus_distance(const struct rv_topology *t, int a, int b)
{
    const struct rv_cpu *x = find(t, a), *y = find(t, b);
    if (a == b)
        return RV_SAME_CPU;
    if (x == NULL || y == NULL)
        return RV_FAR;
    bool near = x->node == y->node && x->package == y->package;
    if (same_core(x, y))
        return RV_SAME_CORE;
    if (near && x->cache >= 0 && x->cache == y->cache)
        return RV_SAME_CACHE;
    return x->node == y->node ? RV_SAME_NODE : RV_FAR;
}

int reeve_cpus_usable(int *cpus, unsigned cap)
{
    cpu_set_t set;
    if (cap == 0)
        return -EINVAL;
    struct rv_topology *t = rv_alloc(sizeof *t);
    if (t == NULL)
        return -ENOMEM;
    rv_cpus_allowed(&set);
    rv_topology_read(t, "", &set);
    unsigned n = rv_cpus_count("", &set);
    n = n < cap ? n : cap;
    for (unsigned i = 0; i < n; i++)
        cpus[i] = t->cpu[i].id;
    rv_free(t);
    return (int)n;
}

/* ---- in turn ---- */

_Static_assert(sizeof(RV_ATOMIC(uint64_t)) == sizeof(uint64_t), "a placer's turn is one of these");

int reeve_placer_init(struct reeve_placer *placer, const int *cpus, unsigned count)
{
    if (cpus == NULL || count == 0)
        return -EINVAL;
    for (unsigned i = 0; i < count; i++)
        if (cpus[i] < 0 || cpus[i] >= RV_CPUS_MAX)
            return -EINVAL;
    *placer = (struct reeve_placer){ .cpus = cpus, .count = count };
    return 0;
}

int reeve_placer_next(struct reeve_placer *placer)
{
    if (placer->count == 0)
        return -EINVAL;
    RV_ATOMIC(uint64_t) *turn = (RV_ATOMIC(uint64_t) *)&placer->opaque;
    return placer->cpus[rv_add_relaxed(turn, (uint64_t)1) % placer->count]; /* (3) */
}
