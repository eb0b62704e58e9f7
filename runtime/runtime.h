/* SPDX-License-Identifier: MIT */
/*
 * runtime.h -- what a reeve is inside: a scheduler, its io state, its threads, its servers.
 */
#ifndef RV_RUNTIME_RUNTIME_H
#define RV_RUNTIME_RUNTIME_H

#include <reeve/runtime.h>
#include <pthread.h>

#include "io/io.h"
#include "sched/offload.h"
#include "sched/sched.h"
#include "sched/signal.h"

/* The options, checked, with every default filled in. */
struct rv_config {
    struct rv_sched_opts sched;
    struct rv_io_opts io;
    const char *name;
    const int *cpus;
    uint32_t offload_max; /* 0: no pool */
    int rescue_signal; /* -1: none */
    int64_t rescue_ns;
    int64_t stall_ns;  /* 0: no watchdog */
    void (*on_stall)(void *ctx, const struct reeve_stall *stall);
    void *stall_ctx;
};

/* 0, -EINVAL, -ENOTSUP. */
int rv_config_fill(struct rv_config *ret_config, const struct reeve_opts *opts);

struct rv_thread {
    pthread_t thread;
    struct reeve *rt;
    uint32_t worker;
    int cpu;      /* -1: anywhere */
    int attached; /* 1: its engine is attached; < 0: why not; 0: not known yet */
    bool started;
    struct rv_signal_thread signals;
    char name[16];
    RV_ATOMIC(uint32_t) conns; /* that servers have placed on this worker */
};

struct rv_server;

struct reeve {
    struct rv_sched sched; /* first: a scheduler's runtime is found by a cast */
    struct rv_io *io;
    struct rv_thread *threads;
    struct rv_offload offload;
    bool borrowed; /* worker 0 is the caller's thread */
    int root_result;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    bool over;      /* the work is done */
    bool cancelled; /* something had to be cancelled for that */
    bool joined;
    bool draining;
    reeve_time cancel_at; /* when the keeper cancels; 0: never */
    uint64_t keeper;      /* the keeper task's wait token while it sleeps; 0: none */
    bool keeping;
    struct rv_server *servers;

    RV_ATOMIC(uint64_t) conns_live, shed;
};

/* Builds everything but threads. 0 or -errno. */
int rv_runtime_make(struct reeve **ret_rt, const struct rv_config *config);
void rv_runtime_free(struct reeve *rt);
/* Starts the threads of workers first .. n - 1 and waits until all have attached. On failure they
 * are gone again. */
int rv_runtime_start(struct reeve *rt, const struct rv_config *config, uint32_t first);
/* Joins them. */
void rv_runtime_join(struct reeve *rt);
/* Refuses posts and asks every server to drain. */
void rv_runtime_close(struct reeve *rt);
void rv_runtime_cancel(struct reeve *rt);

/* serve.c: asks the runtime's servers to drain; the lock is held. */
void rv_servers_drain(struct reeve *rt);

#endif
