/* SPDX-License-Identifier: MIT */
/*
 * file_test.c -- opening files, what is done to open ones, and names.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <linux/openat2.h>
#include <sys/mman.h>

#include <reeve/file.h>

#include "io/file.h"
#include "tests/io/pair.h"
#include "tests/io/scratch.h"

#define SOON reeve_in(2 * REEVE_MS)

static struct statx stat_of(const char *path)
{
    struct statx st = { 0 };
    CHECK_EQ(reeve_stat(path, &st, LONG), 0);
    return st;
}

/* ---- opening --------------------------------------------------------------------------------- */

static int opens(void *arg)
{
    (void)arg;
    int fd = reeve_open(scratch("new"), O_RDWR | O_CREAT | O_EXCL, 0640, LONG);
    CHECK_GE(fd, 0);
    CHECK_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    CHECK_EQ(stat_of(scratch("new")).stx_mode & 0777, 0640);
    CHECK_EQ(reeve_open(scratch("new"), O_RDWR | O_CREAT | O_EXCL, 0640, LONG), -EEXIST);
    CHECK_EQ(reeve_open(scratch("nothing"), O_RDONLY, 0, LONG), -ENOENT);
    CHECK_EQ(reeve_open(scratch("new/below"), O_RDONLY, 0, LONG), -ENOTDIR);
    CHECK_EQ(reeve_open(scratch(""), O_WRONLY, 0, LONG), -EISDIR);
    CHECK_EQ(reeve_open(NULL, O_RDONLY, 0, LONG), -EFAULT);
    CHECK_EQ(reeve_close(fd), 0);
    CHECK_EQ(is_open(fd), false);
    return 0;
}

TEST(a_file_is_opened_cloexec_or_says_why_not)
{
    umask(0);
    RUN(opens, .workers = 1);
}

static int no_more(void *arg)
{
    (void)arg;
    struct rlimit was, low;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &was), 0);
    scratch_file(scratch("file"), "x", 1);
    low = was;
    low.rlim_cur = 64;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
    int fd, last = -1;
    while ((fd = reeve_open(scratch("file"), O_RDONLY, 0, LONG)) >= 0)
        last = fd;
    CHECK_EQ(fd, -EMFILE);
    CHECK_EQ(reeve_close(last), 0);
    CHECK_EQ(reeve_open(scratch("file"), O_RDONLY, 0, LONG), last);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &was), 0);
    return 0;
}

TEST(without_descriptors_an_open_fails_and_works_again_later)
{
    RUN(no_more, .workers = 1);
}

static int open_in(int dir, const char *path, uint64_t resolve)
{
    return reeve_open_with(
        &(struct reeve_open){ .dir = dir, .path = path, .resolve = resolve }, LONG);
}

static int beneath(void *arg)
{
    (void)arg;
    CHECK_EQ(reeve_mkdir(scratch("root"), 0700, LONG), 0);
    CHECK_EQ(reeve_mkdir(scratch("root/in"), 0700, LONG), 0);
    scratch_file(scratch("root/in/file"), "x", 1);
    scratch_file(scratch("secret"), "x", 1);
    CHECK_EQ(reeve_symlink("../secret", scratch("root/out"), LONG), 0);
    CHECK_EQ(reeve_symlink("in/file", scratch("root/link"), LONG), 0);
    int root = reeve_open(scratch("root"), O_PATH | O_DIRECTORY, 0, LONG), fd;
    CHECK_GE(root, 0);
    static const char *const escapes[] = { "../secret", "out", "in/../../secret", "/etc/passwd" };
    for (size_t i = 0; i < sizeof escapes / sizeof *escapes; i++)
        CHECK_EQ(open_in(root, escapes[i], RESOLVE_BENEATH), -EXDEV);
    static const char *const fine[] = { "in/file", "link", "in/../in/file" };
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        fd = open_in(root, fine[i], RESOLVE_BENEATH);
        CHECK_GE(fd, 0);
        CHECK_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        CHECK_EQ(reeve_close(fd), 0);
    }
    CHECK_EQ(open_in(root, "link", RESOLVE_NO_SYMLINKS), -ELOOP);
    fd = open_in(root, "../secret", 0); /* who does not ask is not held back */
    CHECK_GE(fd, 0);
    CHECK_EQ(reeve_close(fd), 0);
    CHECK_EQ(open_in(root, "in/file", UINT64_C(1) << 60), -EINVAL);
    CHECK_EQ(open_in(1 << 19, "in/file", 0), -EBADF);
    struct reeve_open contradiction = { .path = "x", .dir = root, .mode = 0600 };
    CHECK_EQ(reeve_open_with(&contradiction, LONG), -EINVAL); /* a mode, but nothing to create */
    CHECK_EQ(reeve_close(root), 0);
    return 0;
}

TEST(a_path_that_may_not_leave_its_directory_does_not)
{
    RUN(beneath, .workers = 1);
}

struct opening {
    const char *path;
    int flags;
    reeve_time until;
    int result;
};

static int open_in_task(void *arg)
{
    struct opening *o = arg;
    o->result = reeve_open(o->path, o->flags, 0600, o->until);
    return 0;
}

static RV_ATOMIC(int) before_open;

static int tell_and_open(void *arg)
{
    rv_store_release(&before_open, 1);
    return open_in_task(arg);
}

static int stuck_open(void *arg)
{
    (void)arg;
    CHECK_EQ(mkfifo(scratch("fifo"), 0600), 0);
    int before = fds_open();
    struct opening o = { scratch("fifo"), O_WRONLY, SOON, 0 }; /* nobody reads */
    open_in_task(&o);
    CHECK_EQ(o.result, -ETIMEDOUT);
    o.until = SOON;
    o.flags = O_RDONLY; /* nobody writes */
    open_in_task(&o);
    CHECK_EQ(o.result, -ETIMEDOUT);
    o.flags |= O_NONBLOCK;
    open_in_task(&o);
    CHECK_GE(o.result, 0);
    CHECK_EQ(fcntl(o.result, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    CHECK_EQ(reeve_close(o.result), 0);
    o.flags = O_RDONLY;
    reeve_task *t;
    o.until = LONG;
    rv_store_relaxed(&before_open, 0);
    CHECK_EQ(reeve_spawn(&t, tell_and_open, &o), 0);
    while (!rv_load_acquire(&before_open))
        CHECK_EQ(reeve_sleep(0), 0);
    CHECK_EQ(reeve_sleep(SOON), 0);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(o.result, -ECANCELED);
    CHECK_EQ(fds_open(), before);
    CHECK_EQ(reeve_unlink(scratch("fifo"), LONG), 0);
    return 0;
}

/* Two requests that block take two threads of the kernel. The one entry of the ring that RUN tries
 * first, on this very thread, would be the bound to their number. */
static int both_ends(void *arg)
{
    (void)arg;
    reeve_task *t;
    CHECK_EQ(mkfifo(scratch("fifo"), 0600), 0);
    struct opening o = { scratch("fifo"), O_RDONLY, LONG, -1 };
    CHECK_EQ(reeve_spawn(&t, open_in_task, &o), 0);
    int fd = reeve_open(scratch("fifo"), O_WRONLY, 0, LONG);
    CHECK_GE(fd, 0);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_GE(o.result, 0);
    CHECK_EQ(reeve_close(fd), 0);
    CHECK_EQ(reeve_close(o.result), 0);
    CHECK_EQ(reeve_unlink(scratch("fifo"), LONG), 0);
    return 0;
}

TEST(the_ends_of_a_named_pipe_wait_for_each_other)
{
    RUN(both_ends, .workers = 1);
    RUN(both_ends, .workers = 2);
}

TEST(an_open_that_waits_ends_by_deadline_and_cancellation)
{
    RUN(stuck_open, .workers = 1);
    RUN(stuck_open, .workers = 2);
}

enum { OPENERS = 40, OPEN_ROUNDS = 25 };

/* Cancelled opens race with their success: who succeeds has the fd, and no other exists. */
static int raced_opens(void *arg)
{
    (void)arg;
    scratch_file(scratch("file"), "x", 1);
    int before = fds_open(), succeeded = 0;
    for (int round = 0; round < OPEN_ROUNDS; round++) {
        struct opening o[OPENERS];
        struct reeve_group g = { 0 };
        for (int i = 0; i < OPENERS; i++) {
            o[i] = (struct opening){ scratch("file"), O_RDWR | (i % 3 ? 0 : O_TRUNC),
                                     i % 4 ? LONG : REEVE_POLL, -1000 };
            CHECK_EQ(reeve_spawn(NULL, open_in_task, &o[i], .group = &g), 0);
        }
        if (round % 2)
            CHECK_EQ(reeve_sleep(round % 3 ? 0 : reeve_in(REEVE_US * round * 10)), 0);
        reeve_group_cancel(&g);
        reeve_group_wait(&g, LONG);
        for (int i = 0; i < OPENERS; i++) {
            int r = o[i].result;
            CHECK(r >= 0 || r == -ECANCELED || r == -ETIMEDOUT || r == -1000);
            succeeded += r >= 0;
            if (r >= 0)
                CHECK_EQ(reeve_close(r), 0);
        }
    }
    CHECK_EQ(fds_open(), before);
    CHECK_GT(succeeded, 0);
    return 0;
}

TEST(a_cancelled_open_leaks_no_descriptor)
{
    RUN(raced_opens, .workers = 1);
    RUN(raced_opens, .workers = 2);
}

static int read_pipe(void *arg)
{
    char c;
    return (int)reeve_read(*(int *)arg, &c, 1, LONG);
}

static int reused(void *arg)
{
    (void)arg;
    int ends[2], result;
    reeve_task *t;
    char buf[8];
    scratch_file(scratch("file"), "hello", 5);
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    uint64_t sqes = COUNTER(sqes);
    CHECK_EQ(reeve_spawn(&t, read_pipe, &ends[0]), 0);
    while (COUNTER(sqes) == sqes) /* until the kernel has it */
        CHECK_EQ(reeve_sleep(0), 0);
    close(ends[0]); /* behind reeve's back */
    int fd = reeve_open(scratch("file"), O_RDONLY, 0, LONG);
    CHECK_EQ(fd, ends[0]);
    CHECK_EQ(reeve_join(t, &result, LONG), 0);
    CHECK_EQ(result, -ECANCELED);
    CHECK_EQ(reeve_pread(fd, buf, sizeof buf, 0, LONG), 5);
    CHECK_MEM_EQ(buf, "hello", 5);
    CHECK_EQ(reeve_close(fd), 0);
    CHECK_EQ(is_open(fd), false);
    close(ends[1]);
    return 0;
}

TEST(a_number_that_was_closed_behind_our_back_is_a_new_file)
{
    RUN(reused, .workers = 1);
}

static int by_position(void *arg)
{
    (void)arg;
    char buf[8];
    int fd = reeve_open(scratch("file"), O_RDWR | O_CREAT, 0600, LONG);
    CHECK_EQ(reeve_write(fd, "abcdef", 6, LONG), 6);
    CHECK_EQ(reeve_read(fd, buf, sizeof buf, LONG), 0);
    CHECK_EQ(lseek(fd, 2, SEEK_SET), 2);
    CHECK_EQ(reeve_pread(fd, buf, 1, 0, LONG), 1);
    CHECK_EQ(reeve_read(fd, buf, sizeof buf, LONG), 4); /* pread has not moved it */
    CHECK_MEM_EQ(buf, "cdef", 4);
    CHECK_EQ(reeve_close(fd), 0);
    return 0;
}

TEST(an_opened_file_is_read_and_written_by_position_too)
{
    RUN(by_position, .workers = 1);
}

/* ---- open files ------------------------------------------------------------------------------ */

static int syncs(void *arg)
{
    (void)arg;
    int ends[2], fd = reeve_open(scratch("file"), O_RDWR | O_CREAT, 0600, LONG);
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    CHECK_EQ(reeve_pwrite(fd, "x", 1, 0, LONG), 1);
    CHECK_EQ(reeve_fsync(fd, LONG), 0);
    CHECK_EQ(reeve_fdatasync(fd, LONG), 0);
    CHECK_EQ(reeve_fsync(ends[0], LONG), -EINVAL);
    CHECK_EQ(reeve_fdatasync(-1, LONG), -EBADF);
    CHECK_EQ(reeve_close(fd), 0);
    CHECK_EQ(reeve_fsync(fd, LONG), -EBADF);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

TEST(a_file_is_synced)
{
    RUN(syncs, .workers = 1);
}

static int sizes(void *arg)
{
    (void)arg;
    const uint64_t far = (uint64_t)INT64_MAX;
    int fd = reeve_open(scratch("file"), O_RDWR | O_CREAT, 0600, LONG), r;
    int plain = reeve_open(scratch("file"), O_RDONLY, 0, LONG);
    struct statx st;
    r = reeve_fallocate(fd, 0, 1000, 9000, LONG);
    if (r == -EOPNOTSUPP)
        SKIP("this file system reserves no space");
    CHECK_EQ(r, 0);
    CHECK_EQ(reeve_fstat(fd, &st, LONG), 0);
    CHECK_EQ(st.stx_size, 10000);
    CHECK_EQ(reeve_fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 50000, LONG), 0);
    CHECK_EQ(stat_of(scratch("file")).stx_size, 10000);
    CHECK_EQ(reeve_fallocate(fd, 0, 0, 0, LONG), -EINVAL);
    CHECK_EQ(reeve_fallocate(fd, 0, far, 1, LONG), -ERANGE);
    CHECK_EQ(reeve_fallocate(fd, 0, far + 1, 0, LONG), -ERANGE);
    CHECK_EQ(reeve_fallocate(plain, 0, 0, 1, LONG), -EBADF);
    CHECK_EQ(reeve_ftruncate(fd, 77, LONG), 0);
    CHECK_EQ(stat_of(scratch("file")).stx_size, 77);
    CHECK_EQ(reeve_ftruncate(fd, 100000, LONG), 0);
    CHECK_EQ(stat_of(scratch("file")).stx_size, 100000);
    CHECK_EQ(reeve_ftruncate(plain, 5, LONG), -EINVAL);
    CHECK_EQ(reeve_ftruncate(fd, far + 1, LONG), -ERANGE);
    CHECK_EQ(reeve_ftruncate(-1, 5, LONG), -EBADF);
    CHECK_EQ(reeve_close(fd), 0);
    CHECK_EQ(reeve_ftruncate(fd, 5, LONG), -EBADF);
    CHECK_EQ(reeve_close(plain), 0);
    CHECK_EQ(reeve_unlink(scratch("file"), LONG), 0);
    return 0;
}

TEST(a_file_grows_and_is_cut)
{
    RUN(sizes, .workers = 1);
}

TEST(a_file_is_cut_by_the_pool_where_the_ring_cannot)
{
    CHECK_EQ(setenv("REEVE_CAPS_OFF", "ftruncate", 1), 0);
    RUN(sizes, .workers = 1);
}

static int uses(void *arg)
{
    (void)arg;
    int ends[2], fd = reeve_open(scratch("file"), O_RDWR | O_CREAT, 0600, LONG);
    const uint64_t far = (uint64_t)INT64_MAX;
    char *page;
    unsigned char there;
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    CHECK_EQ(reeve_ftruncate(fd, 1 << 20, LONG), 0);
    for (int use = REEVE_FILE_NORMAL; use <= REEVE_FILE_DONE_WITH; use++) {
        CHECK_EQ(reeve_file_use(fd, use, 0, 0, LONG), 0);
        CHECK_EQ(reeve_file_use(fd, use, 4096, UINT64_C(5) << 30, LONG), 0);
        CHECK_EQ(reeve_file_use(ends[0], use, 0, 0, LONG), -ESPIPE);
        CHECK_EQ(reeve_file_use(-1, use, 0, 0, LONG), -EBADF);
    }
    CHECK_EQ(reeve_file_use(fd, REEVE_FILE_DONE_WITH + 1, 0, 0, LONG), -EINVAL);
    CHECK_EQ(reeve_file_use(fd, (enum reeve_file_use)-1, 0, 0, LONG), -EINVAL);
    CHECK_EQ(reeve_file_use(fd, REEVE_FILE_RANDOM, far, 1, LONG), -ERANGE);

    CHECK_EQ(reeve_pwrite(fd, "x", 1, 0, LONG), 1);
    page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(page != MAP_FAILED);
    CHECK_EQ(mincore(page, 4096, &there), 0);
    CHECK_EQ(there & 1, 1);
    munmap(page, 4096);
    CHECK_EQ(reeve_close(fd), 0);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

TEST(the_kernel_is_told_how_a_file_will_be_used)
{
    RUN(uses, .workers = 1);
}

/* ---- names ----------------------------------------------------------------------------------- */

static int stats(void *arg)
{
    (void)arg;
    struct statx st, untouched;
    scratch_file(scratch("file"), "four", 4);
    CHECK_EQ(reeve_symlink("file", scratch("link"), LONG), 0);
    CHECK_EQ(stat_of(scratch("file")).stx_size, 4);
    CHECK_EQ(stat_of(scratch("link")).stx_mode & S_IFMT, S_IFREG);
    CHECK_EQ(reeve_stat_at(AT_FDCWD, scratch("link"), AT_SYMLINK_NOFOLLOW, STATX_TYPE, &st, LONG),
             0);
    CHECK_EQ(st.stx_mode & S_IFMT, S_IFLNK);
    memset(&untouched, 0x5a, sizeof untouched);
    st = untouched;
    CHECK_EQ(reeve_stat(scratch("nothing"), &st, LONG), -ENOENT);
    CHECK_EQ(reeve_fstat(-1, &st, LONG), -EBADF);
    CHECK_EQ(reeve_fstat(AT_FDCWD, &st, LONG), -EBADF); /* no directory to begin in */
    CHECK_EQ(reeve_fstat(1 << 19, &st, LONG), -EBADF);
    CHECK_MEM_EQ(&st, &untouched, sizeof st);
    int fd = reeve_open(scratch("file"), O_RDONLY, 0, LONG);
    CHECK_EQ(reeve_fstat(fd, &st, LONG), 0);
    CHECK_EQ(st.stx_size, 4);
    CHECK_EQ(reeve_close(fd), 0);
    return 0;
}

TEST(what_is_known_about_a_file_is_told)
{
    RUN(stats, .workers = 1);
}

static int names(void *arg)
{
    (void)arg;
    scratch_file(scratch("a"), "x", 1);
    CHECK_EQ(reeve_rename(scratch("a"), scratch("b"), LONG), 0);
    CHECK_EQ(access(scratch("a"), F_OK), -1);
    CHECK_EQ(reeve_rename(scratch("a"), scratch("b"), LONG), -ENOENT);
    CHECK_EQ(reeve_link(scratch("b"), scratch("c"), LONG), 0);
    CHECK_EQ(stat_of(scratch("b")).stx_nlink, 2);
    CHECK_EQ(reeve_link(scratch("b"), scratch("c"), LONG), -EEXIST);
    CHECK_EQ(reeve_rename_at(AT_FDCWD, scratch("b"), AT_FDCWD, scratch("c"), RENAME_NOREPLACE,
                             LONG),
             -EEXIST);
    CHECK_EQ(reeve_unlink(scratch("b"), LONG), 0);
    CHECK_EQ(reeve_unlink(scratch("b"), LONG), -ENOENT);
    CHECK_EQ(stat_of(scratch("c")).stx_nlink, 1);
    CHECK_EQ(reeve_mkdir(scratch("d"), 0700, LONG), 0);
    CHECK_EQ(reeve_mkdir(scratch("d"), 0700, LONG), -EEXIST);
    CHECK_EQ(reeve_mkdir(scratch("x/d"), 0700, LONG), -ENOENT);
    CHECK_EQ(reeve_unlink(scratch("d"), LONG), -EISDIR);
    CHECK_EQ(reeve_rmdir(scratch("c"), LONG), -ENOTDIR);
    CHECK_EQ(reeve_rename(scratch("c"), scratch("d/c"), LONG), 0);
    CHECK_EQ(reeve_rmdir(scratch("d"), LONG), -ENOTEMPTY);
    CHECK_EQ(reeve_unlink(scratch("d/c"), LONG), 0);
    CHECK_EQ(reeve_rmdir(scratch("d"), LONG), 0);
    CHECK_EQ(access(scratch("d"), F_OK), -1);
    return 0;
}

TEST(names_are_given_changed_and_removed)
{
    RUN(names, .workers = 1);
}

static int in_directories(void *arg)
{
    (void)arg;
    char to[32] = { 0 };
    CHECK_EQ(reeve_mkdir(scratch("one"), 0700, LONG), 0);
    CHECK_EQ(reeve_mkdir(scratch("two"), 0700, LONG), 0);
    int one = reeve_open(scratch("one"), O_RDONLY | O_DIRECTORY, 0, LONG);
    int two = reeve_open(scratch("two"), O_RDONLY | O_DIRECTORY, 0, LONG);
    scratch_file(scratch("one/a"), "x", 1);
    CHECK_EQ(reeve_rename_at(one, "a", two, "b", 0, LONG), 0);
    CHECK_EQ(reeve_rename_at(two, "b", two, "c", 0, LONG), 0);
    CHECK_EQ(reeve_link_at(two, "c", one, "d", 0, LONG), 0);
    CHECK_EQ(reeve_symlink_at("target", one, "s", LONG), 0);
    CHECK_EQ(readlink(scratch("one/s"), to, sizeof to - 1), 6);
    CHECK_STR_EQ(to, "target");
    CHECK_EQ(reeve_mkdir_at(one, "sub", 0700, LONG), 0);
    CHECK_EQ(reeve_unlink_at(one, "sub", AT_REMOVEDIR, LONG), 0);
    CHECK_EQ(reeve_unlink_at(one, "d", 0, LONG), 0);
    CHECK_EQ(reeve_close(two), 0);
    CHECK_EQ(reeve_rename_at(one, "s", two, "s", 0, LONG), -EBADF);
    CHECK_EQ(access(scratch("one/s"), F_OK), -1); /* it leads nowhere */
    CHECK_EQ(reeve_close(one), 0);
    CHECK_EQ(reeve_mkdir_at(one, "sub", 0700, LONG), -EBADF);
    return 0;
}

TEST(names_are_looked_up_in_open_directories)
{
    RUN(in_directories, .workers = 1);
}

static int far_away(void *arg)
{
    (void)arg;
    char far[] = "/dev/shm/reeve-test-XXXXXX";
    int fd = mkstemp(far);
    struct stat here, there;
    if (fd < 0)
        SKIP("there is no second file system to rename to");
    close(fd);
    scratch_file(scratch("a"), "x", 1);
    CHECK_EQ(stat(scratch("a"), &here), 0);
    CHECK_EQ(stat(far, &there), 0);
    int renamed = reeve_rename(scratch("a"), far, LONG);
    unlink(far);
    int linked = reeve_link(scratch("a"), far, LONG);
    unlink(far);
    if (here.st_dev == there.st_dev)
        SKIP("there is no second file system to rename to");
    CHECK_EQ(renamed, -EXDEV);
    CHECK_EQ(linked, -EXDEV);
    return 0;
}

TEST(a_name_does_not_leave_its_file_system)
{
    RUN(far_away, .workers = 1);
}

TEST(files_are_for_tasks)
{
    CHECK_DIES("reeve_open was called outside a task", { reeve_open("x", 0, 0, 0); });
    CHECK_DIES("reeve_fsync was called outside a task", { reeve_fsync(0, 0); });
    CHECK_DIES("reeve_stat was called outside a task", { reeve_stat("x", NULL, 0); });
}
