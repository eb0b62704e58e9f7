/* SPDX-License-Identifier: MIT */
/*
 * echo_load_meter.c -- the server's CPU time, read from outside.
 *
 * It comes from perf's task clock where we may use it, else from schedstat. On a busy machine
 * schedstat says too little: once a thread is about to be preempted, what it still runs in the
 * kernel is charged to the next one, and a server on io_uring stays in the kernel for whole batches
 * (seen: two thirds lost, with a load of higher priority on its CPU).
 *
 * Threads: thread 0.
 */
#include "echo_load.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { METER_THREADS = 256 };

/* A task clock for each of the server's threads, or none and schedstat instead. */
static struct meter {
    int fds[METER_THREADS];
    int n;
} meter;

/* From the scheduler's own account of a thread; 0 if it has just ended. */
static uint64_t schedstat_ns(const char *tid)
{
    char path[300];
    uint64_t ns = 0;
    snprintf(path, sizeof path, "/proc/%" PRId64 "/task/%s/schedstat", config.pid, tid);
    FILE *f = fopen(path, "re");
    if (f && fscanf(f, "%" SCNu64, &ns) != 1)
        ns = 0;
    if (f)
        fclose(f);
    return ns;
}

/* A task clock counts user and kernel time alike; exclude_kernel only asks for fewer rights. */
static int task_clock_open(const char *tid)
{
    struct perf_event_attr attr = {
        .type = PERF_TYPE_SOFTWARE, .size = sizeof attr, .config = PERF_COUNT_SW_TASK_CLOCK,
        .inherit = 1, .exclude_kernel = 1, .exclude_hv = 1,
    };
    return (int)syscall(SYS_perf_event_open, &attr, atoi(tid), -1, -1, PERF_FLAG_FD_CLOEXEC);
}

/* Calls `thread` for each thread of the server; its results add up, unless one is negative. */
static int64_t each_thread(int64_t (*thread)(const char *tid))
{
    char path[64];
    int64_t sum = 0;
    snprintf(path, sizeof path, "/proc/%" PRId64 "/task", config.pid);
    DIR *dir = opendir(path);
    if (!dir)
        die("cannot read %s: %s (is --pid right?)", path, strerror(errno));
    for (struct dirent *e; sum >= 0 && (e = readdir(dir));) {
        int64_t n = e->d_name[0] == '.' ? 0 : thread(e->d_name);
        sum = n < 0 ? n : sum + n;
    }
    closedir(dir);
    return sum;
}

static int64_t add_clock(const char *tid)
{
    int fd = meter.n < METER_THREADS ? task_clock_open(tid) : -1;
    if (fd < 0)
        return -1;
    meter.fds[meter.n++] = fd;
    return 0;
}

static int64_t read_schedstat(const char *tid)
{
    return (int64_t)schedstat_ns(tid);
}

void meter_open(void)
{
    if (each_thread(add_clock) == 0 && meter.n > 0)
        return;
    while (meter.n > 0)
        close(meter.fds[--meter.n]);
}

int64_t meter_read(void)
{
    int64_t sum = 0;
    if (!meter.n)
        return each_thread(read_schedstat);
    for (int i = 0; i < meter.n; i++) {
        int64_t ns;
        if (read(meter.fds[i], &ns, sizeof ns) == sizeof ns)
            sum += ns;
    }
    return sum;
}

const char *meter_name(void)
{
    return meter.n ? "perf" : "schedstat";
}
