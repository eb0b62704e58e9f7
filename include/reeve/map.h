/* SPDX-License-Identifier: MIT */
/** map.h -- mapped files: a file as memory; and a cache of them.
 *
 * Touching a mapped page that is not in memory stops the thread until the disk has delivered it,
 * and with the thread every task of its worker. So fetch first: reeve_map_fetch waits until a
 * range is in memory while its worker runs other tasks, and what is touched soon after that stops
 * nobody. What is not touched for long may have to be fetched again: memory is the kernel's.
 *
 * When others shorten the file. Pages behind the new end are gone from the map too, and touching
 * them raises SIGBUS, which ends the process. Who may meet files that others shorten (a file server
 * whose files are edited, a peer's memfd) has four ways:
 * - These never raise it, and say -EIO instead: every function of this header, and every system
 *   call that is given a part of the map to read or to write, such as reeve_write from a map
 *   (-EFAULT there). So copy out with reeve_map_read, or send straight from the map.
 * - REEVE_MAP_SEALED refuses files that could be shortened at all.
 * - reeve_map_guard(): touched pages that are gone read as zeroes, and the map is broken from then
 *   on, which reeve_map_ok tells. Then touch as you like, and ask before you believe it.
 * - Files that are replaced by rename(2), as they should be, keep their old content in maps of old.
 *   What is written in place tears under its readers in any case.
 * A fetch that has said 0 is no protection: the file may be shortened a moment later.
 *
 * What needs the disk is done by the offload pool (offload.h), in pieces of a few MiB: between them
 * a deadline or a cancellation ends the call, a piece that has begun is waited for. A runtime
 * without a pool says -ENOTSUP there.
 *
 * Errors that every waiting call here has, besides its own: -ERANGE: out of the map's bounds;
 * -ETIMEDOUT, -ECANCELED; -EIO: the file ends before the end of the range by now, or its disk
 * cannot read or write it, or the map is broken; -ENOMEM, -EAGAIN: no thread or memory for it;
 * -ENOTSUP. Outside a task a call that waits aborts. A map that was closed: abort.
 */
#ifndef REEVE_MAP_H
#define REEVE_MAP_H

#include <reeve/time.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A mapped file. {0} is one of no bytes. data and len are to be read, not changed; it may be
 * copied, and be used by any number of tasks and threads, until one of them closes it. */
struct reeve_map {
    void *data; /* NULL if there are no bytes */
    size_t len;
    uintptr_t opaque[2];
};

/** How to map; 0 is reading. */
enum {
    REEVE_MAP_READ = 0,
    /** Writing, too. What is written goes to the file, at once for all who map or read it, and to
     * the disk when the kernel thinks fit, or by reeve_map_flush. */
    REEVE_MAP_WRITE = 1,
    /** With WRITE: makes the file if there is none (mode 0666 less the umask), and makes it longer
     * if it is shorter than len. Its blocks are allocated, so that a full disk is an error here and
     * not a SIGBUS at some later touch; see SPARSE. */
    REEVE_MAP_CREATE = 2,
    /** What is written stays in this process, and the file as it is. It may show or hide what
     * others write to the file meanwhile. */
    REEVE_MAP_PRIVATE = 4,
    /** Huge pages, where the file system has them: fewer faults, more memory. No promise. */
    REEVE_MAP_HUGE = 8,
    /** With CREATE: what makes the file longer is a hole. Touching it for writing while the disk is
     * full raises SIGBUS. */
    REEVE_MAP_SPARSE = 16,
    /** Only a file that nobody can shorten: a memfd with F_SEAL_SHRINK. */
    REEVE_MAP_SEALED = 32,
};

/** Maps a file from its beginning. len 0: all of it, which may be nothing. len is otherwise at most
 * the file's size, or, with REEVE_MAP_CREATE, makes it that long; a longer file is never shortened.
 * A file that grows later does not grow in the map. Each map holds a descriptor.
 *
 * 0, and *ret_map is yours to close. Errors of its own: what open(2) says; -EINVAL: no path, or
 * flags that do not go together; -ENODEV: not a regular file; -ERANGE: len is above the file's
 * size; -ENOSPC, -EFBIG, -EDQUOT: it cannot be made longer; -EPERM: it is not sealed; -EMFILE,
 * -ENFILE; -EAGAIN: 65536 files are mapped. A file that was made or grew stays so.
 *     struct reeve_map m;
 *     if ((r = reeve_map_open(&m, "index.bin", REEVE_MAP_READ, 0, 0)) < 0) return r;
 *     if ((r = reeve_map_fetch(&m, 0, m.len, 0)) == 0) r = parse(m.data, m.len);
 *     reeve_map_close(&m); */
REEVE_API int reeve_map_open(struct reeve_map *ret_map, const char *path, int flags, size_t len,
                             reeve_time until);

/** The same for an open file, which stays its owner's: the map has a descriptor of its own. It must
 * be open for what is to be done, else -EACCES. */
REEVE_API int reeve_map_open_fd(struct reeve_map *ret_map, int fd, int flags, size_t len,
                                reeve_time until);

/** Makes sure that a range is in memory, to be read. What is there already costs about two
 * microseconds on the worker, if it is at most 1 MiB; else the pool fetches it. With REEVE_POLL the
 * former is all it does, and -ETIMEDOUT says that it is not there, is more than 1 MiB, or that the
 * kernel does not tell (it does not for files that are another user's and not writable). */
REEVE_API int reeve_map_fetch(const struct reeve_map *map, size_t off, size_t len,
                              reeve_time until);

/** The same for writing: afterwards writing to it waits for nothing either, up to the next flush or
 * write-back. All of the range counts as written then, and goes to the disk. It goes to the pool
 * each time, so prepare large pieces. Errors of its own: -EINVAL: the map is for reading. */
REEVE_API int reeve_map_prepare(const struct reeve_map *map, size_t off, size_t len,
                                reeve_time until);

/** Copies out of the map. It never raises SIGBUS. What is in memory and at most 256 KiB is copied
 * on the worker. 0: all of it; else an unknown part is in dst. Besides, -EPERM or -ENOSYS: a
 * seccomp filter forbids process_vm_readv(2). */
REEVE_API int reeve_map_read(const struct reeve_map *map, size_t off, void *dst, size_t len,
                             reeve_time until);

/** Copies into the map, on the pool. It never raises SIGBUS, and never makes the file longer. 0:
 * all of it; else an unknown part was written. -EINVAL: the map is for reading; -EPERM, -ENOSYS. */
REEVE_API int reeve_map_write(const struct reeve_map *map, size_t off, const void *src, size_t len,
                              reeve_time until);

/** Writes what was changed in a range to the disk and waits until it is there, and what is needed
 * to find it again. After -ETIMEDOUT or -ECANCELED a part may be. Errors of its own: -EINVAL: the
 * map is private or for reading; -ENOSPC, -EDQUOT: no room for it; -EIO may be about a write that
 * the kernel had begun earlier, and is said once. */
REEVE_API int reeve_map_flush(const struct reeve_map *map, size_t off, size_t len,
                              reeve_time until);

/** Starts writing to the disk what was changed in a range, and does not wait for its end. It saves
 * nothing from a loss of power: a flush does, and has less left to do then. (MS_ASYNC of msync(2)
 * starts nothing on Linux; this does.) Errors of its own: -EINVAL as above. */
REEVE_API int reeve_map_flush_start(const struct reeve_map *map, size_t off, size_t len,
                                    reeve_time until);

/** What the next use of a range will be. */
enum reeve_map_hint {
    REEVE_MAP_HINT_NORMAL,     /* takes the next two back */
    REEVE_MAP_HINT_SEQUENTIAL, /* read far ahead */
    REEVE_MAP_HINT_RANDOM,     /* read nothing ahead */
    REEVE_MAP_HINT_HUGE,       /* huge pages where possible; -ENOTSUP: this kernel has none */
    REEVE_MAP_HINT_WILL_NEED,  /* start reading it */
    REEVE_MAP_HINT_DONE,       /* it is needed no more: its memory may go */
};

/** Says so to the kernel. The first four never wait and also work with REEVE_POLL; the last two go
 * to the pool. DONE drops whole pages, none that others have mapped, and loses nothing of what was
 * written; of a private map it would, so it says -EINVAL there. -EINVAL: no such hint. */
REEVE_API int reeve_map_advise(const struct reeve_map *map, size_t off, size_t len,
                               enum reeve_map_hint hint, reeve_time until);

/** 0; or -EIO: the map is broken, that is, a page of it was touched that is gone, and reads as
 * zeroes since (see reeve_map_guard). It asks no one and costs nothing. Any thread. */
REEVE_API int reeve_map_ok(const struct reeve_map *map);

/** Ends the mapping and makes *map {0}. It never waits: a large map is taken down by the pool a
 * moment later. What was written stays written, to the file if not yet to the disk. {0}, NULL: does
 * nothing. Nobody touches the map any more. A closed copy of it, a call on it that waits for the
 * pool: abort. Any thread. */
REEVE_API void reeve_map_close(struct reeve_map *map);

/** Handles SIGBUS from now on, for the whole process: if a page of one of reeve's maps is touched
 * that the file does not have any more, or that its disk cannot read, zeroes take its place (and
 * that of all behind the file's end), and the map is broken. Every other SIGBUS goes to whoever
 * handled it before, or ends the process as before. Who installs a handler of his own later must
 * call this one from it. Calls are counted.
 *
 * 0 or what sigaction(2) says. Any thread.
 *     reeve_map_fetch(&m, 0, m.len, 0);
 *     sum = sum_of(m.data, m.len);
 *     if ((r = reeve_map_ok(&m)) < 0) return r;      // sum is made of zeroes too */
REEVE_API int reeve_map_guard(void);

/** Takes one call back; the last puts the former handler back, unless another one came on top. Any
 * thread. More often than reeve_map_guard: abort. */
REEVE_API void reeve_map_unguard(void);

/** Of the whole process. */
struct reeve_map_stats {
    uint64_t live, live_bytes; /* maps that are open, and their length in whole pages */
    uint64_t broken;           /* maps that ever broke */
};
REEVE_API void reeve_map_stats(struct reeve_map_stats *ret_stats);

/** ---- many maps: each file mapped once, for all who ask -------------------------------------
 *
 * A cache of maps, bounded in bytes. A map that is borrowed stays mapped until it is returned; of
 * the others the one that was returned longest ago goes first when room is needed. Who asks for a
 * file while another opens it waits for that, and shares the map. */
typedef struct reeve_maps reeve_maps;

/** Zero is always the default. */
struct reeve_maps_opts {
    size_t bytes_max;  /* mapped at a time, in whole pages; 0: 1 GiB */
    unsigned maps_max; /* 0: 1024; 65536 at most */
    int flags;         /* of reeve_map_open, without REEVE_MAP_CREATE */
    /** How long a map is given out without a look at its file; then the next borrow looks first. 0:
     * one second; < 0: for ever. */
    int64_t check_ns;
    bool full_fails; /* no room, because all is borrowed: says -EAGAIN, and does not wait */
};

/** opts NULL: all defaults. 0, -EINVAL, -ENOMEM. Any thread. */
REEVE_API int reeve_maps_create(reeve_maps **ret_maps, const struct reeve_maps_opts *opts);

/** Closes all maps; NULL is fine. A map that is still borrowed, a call that has not returned:
 * abort, if it is noticed. Any thread. */
REEVE_API void reeve_maps_destroy(reeve_maps *maps);

/** Borrows the map that was added under this name, or else the one of the file at this path. A file
 * that has become another one (its device, inode, size or, unless the maps are shared for writing,
 * its time of modification) is mapped anew, for those who ask from then on, as is a map that broke;
 * who has the old map keeps it. Room for a new map is made by
 * closing maps that nobody has; while there are not enough of them it waits, and who came first
 * gets room first.
 *
 * 0, and *ret_map is yours to return. Errors of its own: those of reeve_map_open; -EFBIG: the file
 * is larger than bytes_max; -EAGAIN: see full_fails; -EINVAL: no path. A failure is not kept: the
 * next borrow tries again.
 *     const struct reeve_map *m;
 *     if ((r = reeve_maps_borrow(maps, path, &m, 0)) < 0) return r;
 *     if ((r = reeve_map_fetch(m, 0, m->len, 0)) == 0) n = reeve_write(fd, m->data, m->len, 0);
 *     reeve_maps_return(maps, m); */
REEVE_API int reeve_maps_borrow(reeve_maps *maps, const char *path,
                                const struct reeve_map **ret_map, reeve_time until);

/** Gives a map back. Any thread; it never waits. NULL: does nothing. A map that is not borrowed
 * from there: abort, if it is noticed. */
REEVE_API void reeve_maps_return(reeve_maps *maps, const struct reeve_map *map);

/** Opens a map, as reeve_map_open, under a name by which it can be borrowed. It counts in bytes_max
 * and stays, unlooked at, until it is removed. 0. Errors of its own: those of reeve_map_open and of
 * reeve_maps_borrow; -EEXIST: there is a map of this name. */
REEVE_API int reeve_maps_add(reeve_maps *maps, const char *name, const char *path, int flags,
                             size_t len, reeve_time until);

/** Takes an added map out; who has borrowed it keeps it until it is returned. 0, or -ENOENT: no map
 * was added under this name. Any thread. */
REEVE_API int reeve_maps_remove(reeve_maps *maps, const char *name);

struct reeve_maps_stats {
    uint64_t hits;      /* borrows of a map that was there, or being opened by another */
    uint64_t misses;    /* borrows that began to open a file */
    uint64_t changes;   /* of these, because the file had changed */
    uint64_t evictions; /* maps closed to make room */
    uint64_t waits;     /* for room */
    uint64_t maps, bytes, pinned, pinned_bytes; /* gauges; pinned: borrowed or added */
};
/** Any thread. */
REEVE_API void reeve_maps_stats(reeve_maps *maps, struct reeve_maps_stats *ret_stats);

#ifdef __cplusplus
}
#endif
#endif /* REEVE_MAP_H */
