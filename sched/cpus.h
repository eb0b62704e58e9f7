/* SPDX-License-Identifier: MIT */
/*
 * cpus.h -- the CPUs of this machine: who may use which, and how near they are to each other.
 *
 * root is put before every path that is read: "" is this machine; tests have trees of their own.
 */
#ifndef RV_SCHED_CPUS_H
#define RV_SCHED_CPUS_H

#include <reeve/cpus.h>
#include <sched.h>

/* CPUs above it are not used: what pins threads ends here, too. */
#define RV_CPUS_MAX CPU_SETSIZE

/* How far from each other two CPUs are: what they share. */
enum { RV_SAME_CPU, RV_SAME_CORE, RV_SAME_CACHE, RV_SAME_NODE, RV_FAR };

/* What the kernel says of a CPU. Each number means something only beside an equal one. */
struct rv_cpu {
    int id;
    int core;    /* its first CPU */
    int cache;   /* the last level: its first CPU; -1: unknown */
    int node;    /* NUMA */
    int package; /* the socket */
    int turn;    /* how many CPUs of its core come before it */
};

struct rv_topology {
    unsigned n;
    struct rv_cpu cpu[RV_CPUS_MAX]; /* in the order of reeve_cpus_usable() */
};

/* The calling thread's affinity mask; never empty. */
void rv_cpus_allowed(cpu_set_t *ret_set);
/* The CPUs that the tightest quota of the process's cgroups pays for, rounded up; 0: no limit. */
unsigned rv_cpus_quota(const char *root);
/* As many CPUs of the set as the quota leaves; at least 1. */
unsigned rv_cpus_count(const char *root, const cpu_set_t *set);
/* The same for this process on this machine. */
unsigned rv_cpus_usable(void);

/* Reads what the kernel knows of the CPUs in the set. What it does not say is taken to be all the
 * same, each CPU a core. */
void rv_topology_read(struct rv_topology *ret_topology, const char *root, const cpu_set_t *set);
/* RV_SAME_CPU .. RV_FAR; a CPU that is not in the topology is far from every other. */
unsigned rv_cpus_distance(const struct rv_topology *topology, int a, int b);

#endif
