/* SPDX-License-Identifier: MIT */
/*
 * hists.h -- how long tasks waited in a queue and how long they ran at a stretch, by class.
 *
 * Reading the CPU's counter twice for each pick would cost more than the pick, so one in 64 is
 * timed. That is enough: a worker picks millions of times a second. A queue's sample is the entry
 * queued last when a pick was timed, until it is met; if a thief takes it, the next one counts.
 *
 * Threads: the worker writes; anyone reads.
 */
#ifndef RV_SCHED_HISTS_H
#define RV_SCHED_HISTS_H

#include "mem/hist.h"

enum { RV_SAMPLE_EVERY = 64 };

/* Nanoseconds. Mapped lazily: what is never counted costs no memory. */
struct rv_hists {
    struct rv_hist delay[4], run[4];
};

#endif
