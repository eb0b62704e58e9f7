/* SPDX-License-Identifier: MIT */
/*
 * dial.h -- connecting to the first of several addresses that answers.
 */
#ifndef RV_IO_DIAL_H
#define RV_IO_DIAL_H

#include <reeve/time.h>
#include <stdint.h>

struct rv_names;

/* How long an attempt has before the next address is tried beside it (RFC 8305, section 5). */
#define RV_DIAL_DELAY_NS (250 * REEVE_MS)

/* Connects to one of these addresses: a task, not in reeve code. The fd, or -errno as reeve_dial().
 * n is not 0. */
int rv_dial_names(const struct rv_names *names, uint16_t port, reeve_time deadline);

#endif
