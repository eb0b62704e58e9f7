/* SPDX-License-Identifier: MIT */
/*
 * map.c -- mapped files: opening, fetching, copying, flushing, closing.
 *
 * A fault on a page that is not in memory stops a thread for as long as its disk takes. No worker
 * may meet one, so whatever could is done by the offload pool, and what the worker does itself is
 * what cannot: asking whether all is there, and copying if it is.
 *
 *     open       pool: open, fstat, grow             worker: mmap
 *     fetch      worker: size, mincore               pool: MADV_POPULATE_READ, if something is not
 *     prepare    pool: MADV_POPULATE_WRITE           (whether a page may be written to without
 *                                                    a wait, nobody tells at a lower price)
 *     read       worker: like fetch, and copies      pool: copies, if something is not there
 *     write      pool: copies
 *     flush      pool: sync_file_range in pieces, and one msync(MS_SYNC) for what is left to do
 *     start      pool: sync_file_range(WRITE); it allocates blocks, and waits for a full queue
 *     close      worker, if it is small; else pool, and nobody waits
 *
 * Measured on one CPU: mincore 1.3 us for up to 1 MiB that is mapped already, 19 us for 1 MiB that
 * is in the page cache only; a round trip to the pool 9 to 14 us. Hence LOOK_BYTES. cachestat(2) is
 * cheaper, but counts pages that are still being read. The ring takes MADVISE as well, and hands it
 * to threads of the kernel whose number nothing bounds.
 *
 * (1) Nothing here touches the mapped bytes itself: copies are made by process_vm_readv and
 *     process_vm_writev on this very process, which say EFAULT where a touch raises SIGBUS. Unlike
 *     pwrite(2) they cannot make the file longer, and they see what a private map holds.
 * (2) A range is compared with the file's size as well: in the last page of a file that became
 *     shorter there is nothing that faults. Reading compares after it has copied.
 * (3) mincore tells only who may write the file or owns it; to others it says that all is there
 *     (Linux 5.2 and later). A page behind the file's end is never there: so who is told that it is
 *     is being lied to. Asked once for each user that the process runs as.
 * (4) The generation of a record grows at its close, and each copy of a struct reeve_map carries
 *     the one it was opened with.
 * (5) The descriptor is open while the map is: sizes and write-back go by it. It is not in the
 *     table of descriptors, since nobody else knows its number.
 *
 *     free -> open      [rv_map_make]
 *     open -> closing   [reeve_map_close]   the generation grows
 *     closing -> free   [take_down]         on the pool, or at once
 *
 * Threads: make, close, ok, stats - any; look - one that may block; the rest - tasks.
 */
#include "io/map.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "mem/fault.h"
#include "mem/slab.h"
#include "sched/scope.h"

/* Newer than the headers of the oldest system. */
#define POPULATE_READ 22  /* MADV_POPULATE_READ, Linux 5.14 */
#define POPULATE_WRITE 23 /* MADV_POPULATE_WRITE */

#define PAGE_MIN ((size_t)4096)
#define LOOK_BYTES ((size_t)1 << 20)  /* as much as a worker asks mincore about */
#define COPY_BYTES ((size_t)1 << 18)  /* as much as it copies: about 25 us */
#define PIECE_BYTES ((size_t)4 << 20) /* of reading: a few ms of a good disk */
#define WRITE_PIECE_BYTES ((size_t)16 << 20)
#define SMALL_BYTES ((size_t)1 << 20) /* is taken down at once */

static struct rv_slab slab; /* of struct rv_map; ready once `made` is */
static RV_ATOMIC(uint32_t) made;
static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;
static RV_ATOMIC(uint64_t) live_bytes, ever_broken;

/* What a system call came to. */
static int said(long r, int saved)
{
    int error = errno;
    errno = saved;
    return r < 0 ? -error : (int)r;
}

static int make_slab(void)
{
    int r = 0;
    if (rv_load_acquire(&made)) /* pairs with the release below */
        return 0;
    pthread_mutex_lock(&making);
    if (!rv_load_relaxed(&made)) {
        r = rv_slab_init(&slab, sizeof(struct rv_map), RV_MAPS_MAX, "map.record");
        if (r == 0)
            rv_store_release(&made, 1u);
    }
    pthread_mutex_unlock(&making);
    return r;
}

/* ---- the file ---- */

int64_t rv_map_size(int fd)
{
    struct statx st;
    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_SIZE, &st) < 0)
        return -errno;
    return (int64_t)st.stx_size;
}

static void identify(const struct stat *st, struct rv_map_id *ret_id)
{
    *ret_id = (struct rv_map_id){ .dev = st->st_dev,
                                  .ino = st->st_ino,
                                  .size = (uint64_t)st->st_size,
                                  .mtime_s = st->st_mtim.tv_sec,
                                  .mtime_ns = st->st_mtim.tv_nsec };
}

int rv_map_identify(const char *path, struct rv_map_id *ret_id)
{
    struct stat st;
    int saved = errno, r = said(stat(path, &st), saved);
    if (r == 0)
        identify(&st, ret_id);
    return r;
}

/* Whether mincore tells this process the truth about the file; see (3). The answer, with the user
 * that it holds for: bit 0 it was asked, bit 1 it does. */
static uint64_t ask_mincore(int fd, uint64_t user)
{
    size_t page = rv_page_bytes();
    int saved = errno;
    unsigned char there = 1;
    int64_t size = rv_map_size(fd);
    if (size >= 0 && size <= INT64_MAX - (int64_t)(2 * page)) {
        off_t behind = (off_t)rv_page_round((size_t)size);
        void *p = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, behind);
        if (p != MAP_FAILED) {
            if (mincore(p, page, &there) < 0)
                there = 1;
            munmap(p, page);
        }
    }
    errno = saved;
    return user << 2 | (there & 1 ? 0u : 2u) | 1u;
}

static bool tells_truth(struct rv_map *m)
{
    uint64_t user = geteuid(), known = rv_load_relaxed(&m->candid);
    if ((known & 1) == 0 || known >> 2 != user) {
        known = ask_mincore(m->fd, user);
        rv_store_relaxed(&m->candid, known);
    }
    return known & 2;
}

int rv_map_flags(int flags)
{
    const int all = REEVE_MAP_WRITE | REEVE_MAP_CREATE | REEVE_MAP_PRIVATE | REEVE_MAP_HUGE |
                    REEVE_MAP_SPARSE | REEVE_MAP_SEALED;
    bool create = flags & REEVE_MAP_CREATE;
    if (flags & ~all)
        return -EINVAL;
    if (create && (!(flags & REEVE_MAP_WRITE) || flags & REEVE_MAP_PRIVATE))
        return -EINVAL;
    return flags & REEVE_MAP_SPARSE && !create ? -EINVAL : 0;
}

/* Non-blocking, or a pipe without a writer would keep the thread. */
static int open_it(const struct rv_map_source *src)
{
    if (src->path == NULL)
        return fcntl(src->fd, F_DUPFD_CLOEXEC, 3);
    bool write = src->flags & REEVE_MAP_WRITE && !(src->flags & REEVE_MAP_PRIVATE);
    int how = (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    if (src->flags & REEVE_MAP_CREATE)
        how |= O_CREAT;
    return open(src->path, how, 0666);
}

/* Allocates, so that no touch ever finds the disk full; where the file system cannot, or should
 * not, the file just becomes longer. */
static int grow(int fd, uint64_t len, bool sparse)
{
    int r = -1;
    if (len > INT64_MAX)
        return -EFBIG;
    if (!sparse) {
        do
            r = fallocate(fd, 0, 0, (off_t)len);
        while (r < 0 && errno == EINTR);
        if (r < 0 && errno != EOPNOTSUPP)
            return -errno;
    }
    if (r < 0)
        r = ftruncate(fd, (off_t)len);
    return r < 0 ? -errno : 0;
}

/* The open file is as it should be, or is made so. */
static int fit(struct rv_map_source *src, int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -ENODEV;
    if (src->flags & REEVE_MAP_SEALED) {
        int seals = fcntl(fd, F_GET_SEALS);
        if (seals < 0 || !(seals & F_SEAL_SHRINK))
            return -EPERM;
    }
    if (src->len > (uint64_t)st.st_size) {
        if (!(src->flags & REEVE_MAP_CREATE))
            return -ERANGE;
        int r = grow(fd, src->len, src->flags & REEVE_MAP_SPARSE);
        if (r < 0)
            return r;
        if (fstat(fd, &st) < 0)
            return -errno;
    }
    if (src->len == 0)
        src->len = (size_t)st.st_size;
    identify(&st, &src->id);
    return 0;
}

int rv_map_look(void *arg)
{
    struct rv_map_source *src = arg;
    int saved = errno, fd = open_it(src);
    int r = fd < 0 ? -errno : fit(src, fd);
    src->ran = true;
    if (r == 0) {
        src->fd = fd;
        src->candid = ask_mincore(fd, geteuid());
    } else if (fd >= 0) {
        close(fd);
    }
    errno = saved;
    return r;
}

void rv_map_drop(struct rv_map_source *src)
{
    int saved = errno;
    close(src->fd);
    errno = saved;
}

/* ---- the memory ---- */

size_t rv_map_charge(size_t len)
{
    return len > PTRDIFF_MAX ? SIZE_MAX : rv_page_round(len > 0 ? len : 1);
}

/* Where the handler may look for it; bytes 0: no more. */
static void publish(struct rv_map *m, uintptr_t start, size_t bytes)
{
    uint32_t seq = rv_load_relaxed(&m->seq);
    rv_store_relaxed(&m->seq, seq + 1);
    rv_fence_release(); /* pairs with the fence in is_in() */
    rv_store_relaxed(&m->start, start);
    rv_store_relaxed(&m->bytes, bytes);
    rv_store_release(&m->seq, seq + 2); /* pairs with the first load in is_in() */
}

static int map_it(struct rv_map *m, const struct rv_map_source *src, void **ret_data)
{
    size_t bytes = rv_map_charge(src->len);
    int how = src->flags & REEVE_MAP_PRIVATE ? MAP_PRIVATE | MAP_NORESERVE : MAP_SHARED;
    m->prot = src->flags & REEVE_MAP_WRITE ? PROT_READ | PROT_WRITE : PROT_READ;
    if (bytes == SIZE_MAX || RV_FAULT("map.mmap"))
        return -ENOMEM;
    void *data = mmap(NULL, bytes, m->prot, how, src->fd, 0);
    if (data == MAP_FAILED)
        return -errno;
    if (src->flags & REEVE_MAP_HUGE)
        (void)madvise(data, bytes, MADV_HUGEPAGE); /* a kernel without them says so here */
    m->fd = src->fd;
    m->len = src->len;
    m->flags = src->flags;
    rv_store_relaxed(&m->candid, src->candid);
    rv_store_relaxed(&m->broken, 0u);
    rv_store_relaxed(&m->random, UINT64_C(0));
    (void)rv_add_relaxed(&live_bytes, (uint64_t)bytes);
    publish(m, (uintptr_t)data, bytes);
    *ret_data = data;
    return 0;
}

int rv_map_make(struct reeve_map *ret_map, struct rv_map_source *src)
{
    if (src->len == 0) {
        rv_map_drop(src);
        *ret_map = (struct reeve_map){ 0 };
        return 0;
    }
    void *data = NULL;
    int saved = errno, r = make_slab();
    uint32_t idx = r < 0 ? RV_NIL : rv_slab_take(&slab, NULL);
    if (r == 0 && idx == RV_NIL)
        r = -EAGAIN;
    struct rv_map *m = r == 0 ? rv_slab_at(&slab, idx) : NULL;
    if (m && (r = map_it(m, src, &data)) < 0)
        rv_slab_give(&slab, NULL, idx);
    errno = saved;
    if (r < 0) {
        rv_map_drop(src);
        return r;
    }
    uint32_t gen = rv_load_relaxed(&m->gen) | 1; /* odd: open */
    rv_store_release(&m->gen, gen);
    *ret_map = (struct reeve_map){ data, src->len, { (uintptr_t)m, gen } };
    return 0;
}

/* The last that happens to a map, on the pool or at once. */
static int take_down(void *arg)
{
    struct rv_map *m = arg;
    int saved = errno;
    uintptr_t start = rv_load_relaxed(&m->start);
    size_t bytes = rv_load_relaxed(&m->bytes);
    publish(m, 0, 0);
    rv_unmap((void *)start, bytes);
    close(m->fd);
    errno = saved;
    (void)rv_sub_relaxed(&live_bytes, (uint64_t)bytes);
    rv_slab_give(&slab, NULL, (uint32_t)(((char *)m - (char *)slab.base) / slab.bytes));
    return 0;
}

static void taken_down(struct rv_offload_job *job, int result)
{
    if (result < 0) /* the pool is ending, or cannot make a thread */
        take_down(job->arg);
}

/* ---- what all calls on a map begin with ---- */

static struct rv_map *map_of(const struct reeve_map *map)
{
    struct rv_map *m = (struct rv_map *)map->opaque[0];
    /* Pairs with the release in rv_map_make(). */
    if (m && rv_load_acquire(&m->gen) != map->opaque[1])
        rv_die("a map was used after reeve_map_close.");
    return m;
}

/* 1: there are bytes, of *ret_m; 0: there is nothing to do; -ERANGE, -EIO. */
static int begin(const struct reeve_map *map, size_t off, size_t len, const char *call,
                 struct rv_map **ret_m)
{
    rv_in_task(call);
    struct rv_map *m = map_of(map);
    size_t have = m ? m->len : 0;
    if (off > have || len > have - off)
        return -ERANGE;
    if (m == NULL)
        return 0;
    if (rv_load_acquire(&m->broken)) /* pairs with rv_map_mend() */
        return -EIO;
    *ret_m = m;
    return len > 0;
}

static bool is_shared_for_writing(const struct rv_map *m)
{
    return m->flags & REEVE_MAP_WRITE && !(m->flags & REEVE_MAP_PRIVATE);
}

/* The pages that a range touches. */
static char *pages_of(struct rv_map *m, size_t off, size_t len, size_t *ret_bytes)
{
    size_t first = off & ~(rv_page_bytes() - 1);
    *ret_bytes = rv_page_round(off + len) - first;
    return (char *)rv_load_relaxed(&m->start) + first;
}

/* 0: the file reaches to the range's end. */
static int check_size(struct rv_map *m, size_t off, size_t len)
{
    int saved = errno;
    int64_t size = rv_map_size(m->fd);
    errno = saved;
    return size >= 0 && (uint64_t)size >= off + len ? 0 : -EIO;
}

/* Whether all of it is in memory, as far as that is told cheaply. */
static bool is_there(struct rv_map *m, size_t off, size_t len)
{
    unsigned char pages[LOOK_BYTES / PAGE_MIN + 1];
    size_t bytes, page = rv_page_bytes();
    if (len > LOOK_BYTES || !tells_truth(m))
        return false;
    char *start = pages_of(m, off, len, &bytes);
    int saved = errno;
    if (said(mincore(start, bytes, pages), saved) < 0)
        return false;
    for (size_t i = 0; i < bytes / page; i++)
        if (!(pages[i] & 1))
            return false;
    return true;
}

/* ---- on the pool, piece by piece ---- */

struct piece {
    int (*fn)(struct rv_map *m, size_t off, size_t len, struct piece *p);
    struct rv_map *m;
    size_t off, len;
    char *buf;  /* of copies: where this piece of them is */
    int advice; /* of madvise */
    bool write;
};

static int run_piece(void *arg)
{
    struct piece *p = arg;
    int saved = errno, r = p->fn(p->m, p->off, p->len, p);
    errno = saved;
    return r;
}

/* Offers p to the pool for each piece of len bytes from off. */
static int in_pieces(struct piece *p, size_t off, size_t len, size_t most, reeve_time until)
{
    int r = 0;
    (void)rv_add_relaxed(&p->m->calls, 1u);
    for (size_t done = 0; done < len && r >= 0; done += p->len) {
        p->off = off + done;
        p->len = len - done < most ? len - done : most;
        r = reeve_offload(run_piece, p, until);
        if (p->buf)
            p->buf += p->len;
    }
    (void)rv_sub_relaxed(&p->m->calls, 1u);
    return r < 0 ? r : 0;
}

/* ---- what is used at random ---- */

/* A range of pages as one word; what is beyond 2^32 of them counts as the last. */
static uint64_t page_range(size_t off, size_t len)
{
    size_t page = rv_page_bytes(), first = off / page, end = rv_page_round(off + len) / page;
    first = first < UINT32_MAX ? first : UINT32_MAX - 1;
    end = end < UINT32_MAX ? end : UINT32_MAX;
    return (uint64_t)first << 32 | end;
}

/* Said to be used at random. Two such parts make one with what lies between them: what it costs
 * there is one more call of the system. */
static void mark_random(struct rv_map *m, size_t off, size_t len)
{
    uint64_t add = page_range(off, len), was = rv_load_relaxed(&m->random), both;
    do {
        uint32_t first = (uint32_t)(add >> 32), end = (uint32_t)add;
        if (was != 0 && (uint32_t)(was >> 32) < first)
            first = (uint32_t)(was >> 32);
        if ((uint32_t)was > end)
            end = (uint32_t)was;
        both = (uint64_t)first << 32 | end;
    } while (!rv_cas_relaxed(&m->random, &was, both));
}

/* Taken back, if the range holds all of it. */
static void unmark_random(struct rv_map *m, size_t off, size_t len)
{
    uint64_t less = page_range(off, len), was = rv_load_relaxed(&m->random);
    while (was != 0 && was >> 32 >= less >> 32 && (uint32_t)was <= (uint32_t)less)
        if (rv_cas_relaxed(&m->random, &was, UINT64_C(0)))
            return;
}

bool rv_map_is_random(const struct rv_map *m, size_t off, size_t len)
{
    uint64_t some = page_range(off, len), marked = rv_load_relaxed(&m->random);
    return marked != 0 && some >> 32 < (uint32_t)marked && marked >> 32 < (uint32_t)some;
}

/* The kernel reads ahead by itself, in large parts, twice as fast as when it is told to. But not
 * where it was told that accesses are random: there it would get page by page what is wanted as a
 * whole. */
static int populate(struct rv_map *m, size_t off, size_t len, struct piece *p)
{
    size_t bytes;
    char *start = pages_of(m, off, len, &bytes);
    int r;
    if (rv_map_is_random(m, off, len))
        (void)madvise(start, bytes, MADV_WILLNEED);
    do
        r = madvise(start, bytes, p->advice);
    while (r < 0 && errno == EINTR);
    if (r < 0) /* EFAULT, EHWPOISON: a touch would raise SIGBUS */
        return errno == ENOMEM ? -ENOMEM : -EIO;
    return check_size(m, off, len);
}

int reeve_map_fetch(const struct reeve_map *map, size_t off, size_t len, reeve_time until)
{
    struct rv_map *m;
    int r = begin(map, off, len, "reeve_map_fetch", &m);
    if (r <= 0)
        return r;
    if (is_there(m, off, len))
        return check_size(m, off, len);
    struct piece p = { .fn = populate, .m = m, .advice = POPULATE_READ };
    return in_pieces(&p, off, len, PIECE_BYTES, until);
}

int reeve_map_prepare(const struct reeve_map *map, size_t off, size_t len, reeve_time until)
{
    struct rv_map *m;
    int r = begin(map, off, len, "reeve_map_prepare", &m);
    if (r <= 0)
        return r;
    if (!(m->flags & REEVE_MAP_WRITE))
        return -EINVAL;
    struct piece p = { .fn = populate, .m = m, .advice = POPULATE_WRITE };
    return in_pieces(&p, off, len, PIECE_BYTES, until);
}

/* Between the map and a buffer; see (1) and (2). */
static int copy(struct rv_map *m, size_t off, size_t len, struct piece *p)
{
    struct iovec mine = { p->buf, len };
    struct iovec mapped = { (char *)rv_load_relaxed(&m->start) + off, len };
    int saved = errno;
    ssize_t n = p->write ? process_vm_writev(getpid(), &mine, 1, &mapped, 1, 0)
                         : process_vm_readv(getpid(), &mine, 1, &mapped, 1, 0);
    int r = said(n < 0 ? -1 : 0, saved);
    if (r < 0 && r != -EFAULT)
        return r;
    return (size_t)n == len ? check_size(m, off, len) : -EIO;
}

int reeve_map_read(const struct reeve_map *map, size_t off, void *dst, size_t len, reeve_time until)
{
    struct rv_map *m;
    int r = begin(map, off, len, "reeve_map_read", &m);
    if (r <= 0)
        return r;
    struct piece p = { .fn = copy, .m = m, .buf = dst };
    if (len <= COPY_BYTES && is_there(m, off, len))
        return copy(m, off, len, &p);
    return in_pieces(&p, off, len, PIECE_BYTES, until);
}

int reeve_map_write(const struct reeve_map *map, size_t off, const void *src, size_t len,
                    reeve_time until)
{
    struct rv_map *m;
    int r = begin(map, off, len, "reeve_map_write", &m);
    if (r <= 0)
        return r;
    if (!(m->flags & REEVE_MAP_WRITE))
        return -EINVAL;
    struct piece p = { .fn = copy, .m = m, .buf = (char *)(uintptr_t)src, .write = true };
    return in_pieces(&p, off, len, PIECE_BYTES, until);
}

/* ---- to the disk ---- */

static int write_out(struct rv_map *m, size_t off, size_t len, struct piece *p)
{
    unsigned how = SYNC_FILE_RANGE_WRITE;
    size_t first = off & ~(rv_page_bytes() - 1);
    if (p->write) /* to the end: what was under way before, and this */
        how |= SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WAIT_AFTER;
    if (sync_file_range(m->fd, (off_t)first, (off_t)(off + len - first), how) < 0)
        return -errno;
    return check_size(m, off, len);
}

/* sync_file_range neither writes what leads to the data nor empties the disk's own cache; this
 * does, for the whole range at once, since it costs about as much for a page as for a gigabyte. */
static int sync_all(struct rv_map *m, size_t off, size_t len, struct piece *p)
{
    size_t bytes;
    char *start = pages_of(m, off, len, &bytes);
    (void)p;
    if (msync(start, bytes, MS_SYNC) < 0)
        return -errno;
    return check_size(m, off, len);
}

int reeve_map_flush(const struct reeve_map *map, size_t off, size_t len, reeve_time until)
{
    struct rv_map *m;
    int r = begin(map, off, len, "reeve_map_flush", &m);
    if (r <= 0)
        return r;
    if (!is_shared_for_writing(m))
        return -EINVAL;
    struct piece p = { .fn = write_out, .m = m, .write = true };
    if (len > WRITE_PIECE_BYTES && (r = in_pieces(&p, off, len, WRITE_PIECE_BYTES, until)) < 0)
        return r;
    p.fn = sync_all;
    return in_pieces(&p, off, len, len, until);
}

int reeve_map_flush_start(const struct reeve_map *map, size_t off, size_t len, reeve_time until)
{
    struct rv_map *m;
    int r = begin(map, off, len, "reeve_map_flush_start", &m);
    if (r <= 0)
        return r;
    if (!is_shared_for_writing(m))
        return -EINVAL;
    struct piece p = { .fn = write_out, .m = m };
    return in_pieces(&p, off, len, WRITE_PIECE_BYTES, until);
}

/* ---- hints ---- */

static int will_need(struct rv_map *m, size_t off, size_t len, struct piece *p)
{
    size_t bytes;
    char *start = pages_of(m, off, len, &bytes);
    (void)p;
    return madvise(start, bytes, MADV_WILLNEED) < 0 ? -errno : 0;
}

/* Pages that lie in the range as a whole, in this process's tables and then in the page cache. */
static int let_go(struct rv_map *m, size_t off, size_t len, struct piece *p)
{
    size_t page = rv_page_bytes(), first = rv_page_round(off);
    size_t end = off + len == m->len ? rv_page_round(m->len) : (off + len) & ~(page - 1);
    (void)p;
    if (first >= end)
        return 0;
    if (madvise((char *)rv_load_relaxed(&m->start) + first, end - first, MADV_DONTNEED) < 0)
        return -errno;
    return -posix_fadvise(m->fd, (off_t)first, (off_t)(end - first), POSIX_FADV_DONTNEED);
}

/* A flag of the mapping, and no more: the worker does it. */
static int set_flag(struct rv_map *m, size_t off, size_t len, int advice)
{
    size_t bytes;
    char *start = pages_of(m, off, len, &bytes);
    int saved = errno;
    return said(madvise(start, bytes, advice), saved);
}

int reeve_map_advise(const struct reeve_map *map, size_t off, size_t len, enum reeve_map_hint hint,
                     reeve_time until)
{
    struct rv_map *m;
    int r = begin(map, off, len, "reeve_map_advise", &m);
    if ((unsigned)hint > REEVE_MAP_HINT_DONE)
        return -EINVAL;
    if (r <= 0)
        return r;
    struct piece p = { .fn = hint == REEVE_MAP_HINT_DONE ? let_go : will_need, .m = m };
    switch (hint) {
    case REEVE_MAP_HINT_NORMAL:
        unmark_random(m, off, len);
        return set_flag(m, off, len, MADV_NORMAL);
    case REEVE_MAP_HINT_SEQUENTIAL:
        unmark_random(m, off, len);
        return set_flag(m, off, len, MADV_SEQUENTIAL);
    case REEVE_MAP_HINT_RANDOM:
        mark_random(m, off, len);
        return set_flag(m, off, len, MADV_RANDOM);
    case REEVE_MAP_HINT_HUGE:
        r = set_flag(m, off, len, MADV_HUGEPAGE);
        return r == -EINVAL ? -ENOTSUP : r;
    case REEVE_MAP_HINT_DONE:
        if (m->flags & REEVE_MAP_PRIVATE)
            return -EINVAL;
        break;
    default:
        break;
    }
    return in_pieces(&p, off, len, WRITE_PIECE_BYTES, until);
}

/* ---- open, close ---- */

static int open_source(struct reeve_map *ret_map, struct rv_map_source *src, const char *call,
                       reeve_time until)
{
    rv_in_task(call);
    int r = rv_map_flags(src->flags);
    if (r == 0)
        r = reeve_offload(rv_map_look, src, until);
    return r < 0 ? r : rv_map_make(ret_map, src);
}

int reeve_map_open(struct reeve_map *ret_map, const char *path, int flags, size_t len,
                   reeve_time until)
{
    if (path == NULL)
        return -EINVAL;
    struct rv_map_source src = { .path = path, .fd = -1, .flags = flags, .len = len };
    return open_source(ret_map, &src, "reeve_map_open", until);
}

int reeve_map_open_fd(struct reeve_map *ret_map, int fd, int flags, size_t len, reeve_time until)
{
    struct rv_map_source src = { .fd = fd, .flags = flags, .len = len };
    return open_source(ret_map, &src, "reeve_map_open_fd", until);
}

void reeve_map_close(struct reeve_map *map)
{
    struct rv_map *m = map ? map_of(map) : NULL;
    if (map)
        *map = (struct reeve_map){ 0 };
    if (m == NULL)
        return;
    if (rv_load_acquire(&m->calls) != 0)
        rv_die("reeve_map_close was called while another call on the map waits.");
    rv_store_release(&m->gen, rv_load_relaxed(&m->gen) + 1); /* even: closed */
    struct rv_worker *w = rv_worker_self();
    if (w == NULL || (m->len <= SMALL_BYTES && !is_shared_for_writing(m))) {
        take_down(m);
        return;
    }
    m->end = (struct rv_offload_job){ .fn = take_down, .arg = m, .done = taken_down };
    if (rv_offload_start(w->sched->offload, &m->end) < 0)
        take_down(m);
}

int reeve_map_ok(const struct reeve_map *map)
{
    struct rv_map *m = map_of(map);
    return m && rv_load_acquire(&m->broken) ? -EIO : 0; /* pairs with rv_map_mend() */
}

void reeve_map_stats(struct reeve_map_stats *ret_stats)
{
    *ret_stats = (struct reeve_map_stats){
        .live = rv_load_acquire(&made) ? rv_slab_live(&slab) : 0, /* pairs with make_slab() */
        .live_bytes = rv_load_relaxed(&live_bytes),
        .broken = rv_load_relaxed(&ever_broken),
    };
}

/* ---- for the handler of faults, see map_guard.c ---- */

/* A record that changes meanwhile is of no map that somebody may touch. */
static bool is_in(struct rv_map *m, uintptr_t address)
{
    uint32_t seq = rv_load_acquire(&m->seq); /* pairs with the last store in publish() */
    uintptr_t start = rv_load_relaxed(&m->start);
    size_t bytes = rv_load_relaxed(&m->bytes);
    rv_fence_acquire(); /* pairs with the fence in publish() */
    if (seq & 1 || rv_load_relaxed(&m->seq) != seq)
        return false;
    return address >= start && address - start < bytes;
}

static struct rv_map *map_at(uintptr_t address)
{
    uint32_t n = rv_load_acquire(&made) ? rv_load_relaxed(&slab.fresh) : 0;
    for (uint32_t i = 0; i < n; i++) {
        struct rv_map *m = rv_slab_at(&slab, i);
        if (is_in(m, address))
            return m;
    }
    return NULL;
}

bool rv_map_mend(uintptr_t address)
{
    struct rv_map *m = map_at(address);
    if (m == NULL)
        return false;
    size_t page = rv_page_bytes();
    uintptr_t start = rv_load_relaxed(&m->start), end = start + rv_load_relaxed(&m->bytes);
    uintptr_t from = address & ~(uintptr_t)(page - 1);
    int64_t size = rv_map_size(m->fd);
    if (size >= 0 && (uint64_t)size <= from - start)
        from = start + rv_page_round((size_t)size); /* all that is behind the end, at one blow */
    else
        end = from + page; /* there is a file, but its disk cannot read or write it */
    /* Before anybody can read a zero; pairs with the acquires of begin() and reeve_map_ok(). */
    if (rv_xchg_acq_rel(&m->broken, 1u) == 0)
        (void)rv_add_relaxed(&ever_broken, (uint64_t)1);
    return syscall(SYS_mmap, from, end - from, m->prot, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1,
                   0) >= 0;
}
