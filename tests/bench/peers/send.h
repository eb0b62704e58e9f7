/* SPDX-License-Identifier: MIT */
/*
 * send.h -- what the programs share that send a file: their command line, and the account.
 *
 *     PROGRAM HOST:PORT FILE MIB
 *
 * sends the file, over and over, MIB MiB in all, after a quarter as many that do not count, and
 * prints the CPU time of its whole process per MiB.
 */
#ifndef TESTS_BENCH_PEERS_SEND_H
#define TESTS_BENCH_PEERS_SEND_H

#include <fcntl.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include "raw.h"

struct send_job {
    const char *addr;
    int file;
    int64_t bytes; /* of the file */
    int64_t mib;
    int64_t clock, cpu; /* when it began to count, ns */
};

static inline struct send_job send_parse(int argc, char **argv)
{
    struct stat st;
    if (argc != 4 || raw_number(argv[3]) <= 0)
        raw_die("usage: %s HOST:PORT FILE MIB", argv[0]);
    struct send_job j = { .addr = argv[1], .mib = raw_number(argv[3]) };
    j.file = open(argv[2], O_RDONLY | O_CLOEXEC);
    if (j.file < 0 || fstat(j.file, &st) < 0 || st.st_size == 0)
        raw_die("%s: %s: %s", argv[0], argv[2], strerror(errno));
    j.bytes = st.st_size;
    return j;
}

static inline void send_begin(struct send_job *j)
{
    struct timespec ts;
    struct rusage ru;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    getrusage(RUSAGE_SELF, &ru);
    j->clock = (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
    j->cpu = (int64_t)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * 1000000000 +
             (int64_t)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) * 1000;
}

/* sent: the bytes since send_begin(). */
static inline void send_report(const struct send_job *j, int64_t sent)
{
    struct send_job now = { .mib = 0 };
    send_begin(&now);
    double mib = (double)sent / 1048576, ns = (double)(now.clock - j->clock);
    printf("cpu_ns_per_mib=%.0f mb_per_s=%.1f\n", (double)(now.cpu - j->cpu) / mib,
           (double)sent * 1000 / ns);
}

#endif
