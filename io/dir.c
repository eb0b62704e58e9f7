/* SPDX-License-Identifier: MIT */
/*
 * dir.c -- reading directories, many entries at a time.
 *
 * The ring has no request for it, so a thread of the offload pool fetches a batch, from which calls
 * then take entry after entry without waiting.
 *
 *     batch  | entry | entry | entry | ...             |
 *                      at ->          len              BATCH
 *
 * (1) `busy` is held by the one task that reads. It is not waited for: a directory has one
 *     position, so two readers at once are a mistake of theirs.
 * (2) The pool's thread writes into the batch only while busy is held, and the reader does not
 *     leave before that thread has.
 *
 * Threads: open, read - a task; close - anyone.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <reeve/net.h>
#include <reeve/offload.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io/file.h"
#include "mem/alloc.h"
#include "mem/die.h"

#define BATCH (UINT32_C(32) << 10) /* some thousand entries: a longest one has 280 bytes */

/* As getdents64(2) lays it out. */
struct entry {
    uint64_t inode;
    int64_t off;
    uint16_t bytes; /* of this entry, name and padding included */
    uint8_t type;
    char name[];
};

struct reeve_dir {
    int fd;
    RV_ATOMIC(uint32_t) busy;
    uint32_t at, len;
    _Alignas(struct entry) unsigned char batch[BATCH];
};

int reeve_dir_open(reeve_dir **ret_dir, const char *path, reeve_time until)
{
    uint32_t was;
    rv_io_enter("reeve_dir_open", &was);
    struct reeve_open how = { .path = path, .flags = O_RDONLY | O_DIRECTORY };
    struct reeve_dir *d = rv_alloc(sizeof *d);
    int fd = d ? rv_file_open(&how, until) : -ENOMEM;
    rv_io_exit(was);
    if (fd < 0) {
        rv_free(d);
        return fd;
    }
    d->fd = fd;
    d->at = d->len = 0;
    rv_store_relaxed(&d->busy, 0u);
    *ret_dir = d;
    return 0;
}

/* On a thread of the pool, where errno is its own. */
static int fetch(void *arg)
{
    struct reeve_dir *d = arg;
    long n = syscall(SYS_getdents64, d->fd, d->batch, sizeof d->batch);
    return n < 0 ? -errno : (int)n;
}

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* The next one of the batch; NULL: it is used up. */
static const struct entry *from_batch(struct reeve_dir *d)
{
    while (d->at < d->len) {
        const struct entry *e = (const struct entry *)(d->batch + d->at);
        RV_MUST(e->bytes > 0);
        d->at += e->bytes;
        if (!is_dots(e->name))
            return e;
    }
    return NULL;
}

static int next_entry(struct reeve_dir *d, const struct entry **ret_entry, reeve_time until)
{
    while ((*ret_entry = from_batch(d)) == NULL) {
        int n = reeve_offload(fetch, d, until);
        if (n <= 0)
            return n;
        d->at = 0;
        d->len = (uint32_t)n;
    }
    return 1;
}

int reeve_dir_read(reeve_dir *d, struct reeve_dir_entry *ret_entry, reeve_time until)
{
    uint32_t was, idle = 0;
    const struct entry *e;
    rv_io_enter("reeve_dir_read", &was);
    int r = -EBUSY;
    if (rv_cas(&d->busy, &idle, 1u)) { /* acquires what the last reader left; pairs with below */
        r = next_entry(d, &e, until);
        if (r > 0)
            *ret_entry = (struct reeve_dir_entry){ e->name, e->inode, e->type };
        rv_store_release(&d->busy, 0u); /* (1) */
    }
    rv_io_exit(was);
    return r;
}

void reeve_dir_close(reeve_dir *d)
{
    if (!d)
        return;
    if (rv_load_acquire(&d->busy)) /* pairs with the release in reeve_dir_read() */
        rv_die("reeve_dir_close was called while another task reads the directory.");
    reeve_close(d->fd);
    rv_free(d);
}
