/* SPDX-License-Identifier: MIT */
/*
 * fds_inotify.c -- changes to files, one at a time.
 *
 * The kernel hands out records of different lengths, as many whole ones as fit into the buffer of
 * a read. They are read into the caller's struct and handed out where they lie:
 *
 *     buf | watch mask cookie len | name, padded with 0 to len | watch mask cookie 0 | ...
 *                                                              ^ at                  ^ end
 *
 * (1) The buffer holds the longest record, so a read never fails for want of room; and 0 <= at <=
 *     end <= its size, with at on a record or at the end.
 *
 * Threads: a task; one at a time for each struct.
 */
#include <errno.h>
#include <limits.h>
#include <reeve/fd.h>
#include <reeve/net.h>
#include <reeve/offload.h>
#include <sys/inotify.h>

#include "mem/die.h"

_Static_assert(sizeof(struct inotify_event) + NAME_MAX + 1 <=
                   sizeof((struct reeve_inotify *)0)->buf,
               "the longest record fits");

int reeve_inotify_open(struct reeve_inotify *n)
{
    int saved = errno, fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (fd < 0) {
        fd = -errno;
        errno = saved;
        return fd;
    }
    n->fd = fd;
    n->is_open = 1;
    n->at = n->end = 0;
    return 0;
}

void reeve_inotify_close(struct reeve_inotify *n)
{
    if (!n->is_open)
        return;
    n->is_open = 0;
    reeve_close(n->fd);
}

struct adding {
    int fd;
    const char *path;
    uint32_t mask;
};

static int add(void *arg)
{
    const struct adding *a = arg;
    int watch = inotify_add_watch(a->fd, a->path, a->mask);
    return watch < 0 ? -errno : watch;
}

int reeve_inotify_add(struct reeve_inotify *n, const char *path, uint32_t mask, reeve_time until)
{
    struct adding a = { n->fd, path, mask };
    return n->is_open ? reeve_offload(add, &a, until) : -EBADF;
}

int reeve_inotify_remove(struct reeve_inotify *n, int watch)
{
    int saved = errno, r = n->is_open ? inotify_rm_watch(n->fd, watch) : -EBADF;
    if (r == -1) {
        r = -errno;
        errno = saved;
    }
    return r;
}

int reeve_inotify_next(struct reeve_inotify *n, struct reeve_inotify_event *ret_event,
                       reeve_time until)
{
    if (!n->is_open)
        return -EBADF;
    if (n->at == n->end) {
        ssize_t got = reeve_read(n->fd, n->buf, sizeof n->buf, until);
        if (got <= 0)
            return got < 0 ? (int)got : -EIO;
        n->at = 0;
        n->end = (uint32_t)got;
    }
    RV_MUST(n->end <= sizeof n->buf && n->end - n->at >= sizeof(struct inotify_event));
    const struct inotify_event *e =
        (const struct inotify_event *)((const char *)n->buf + n->at);
    RV_MUST(n->end - n->at - sizeof *e >= e->len);
    n->at += (uint32_t)sizeof *e + e->len;
    *ret_event = (struct reeve_inotify_event){ e->wd, e->mask, e->cookie, e->len ? e->name : "" };
    return 0;
}
