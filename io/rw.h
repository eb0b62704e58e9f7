/* SPDX-License-Identifier: MIT */
/*
 * rw.h -- one writer at a time, for each fd.
 */
#ifndef RV_IO_RW_H
#define RV_IO_RW_H

#include "io/fdtab.h"

struct rv_io_worker;

/* Ends the wait of everybody who queues to send; under the slot's lock. The new word. */
uint64_t rv_turns_end(struct rv_io_worker *iw, struct rv_fd *f, uint64_t word, int error);

#endif
