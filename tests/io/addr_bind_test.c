/* SPDX-License-Identifier: MIT */
/*
 * addr_bind_test.c -- binding, and whose a socket file is that stands in the way.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "io/addr.h"
#include "io/io.h"

static char dir[64], path[96];

/* A directory of this test's own, and a path in it. */
static void make_place(void)
{
    snprintf(dir, sizeof dir, "/tmp/reeve-bind-XXXXXX");
    CHECK(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/socket", dir);
}

static void leave_place(void)
{
    unlink(path);
    CHECK_EQ(rmdir(dir), 0);
}

static int bind_as(const char *kind, int backlog)
{
    char text[128];
    struct rv_addr a;
    snprintf(text, sizeof text, "%s:%s", kind, path);
    CHECK_OK(rv_addr_read(text, true, &a));
    return rv_addr_bind(&rv_io_driver_uring, &a, backlog);
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    CHECK_EQ(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

static ino_t inode(void)
{
    struct stat st;
    CHECK_EQ(lstat(path, &st), 0);
    return st.st_ino;
}

TEST(a_socket_file_that_was_left_behind_is_replaced)
{
    static const char *const kinds[] = { "unix", "unixgram", "unixpacket" };
    make_place();
    for (int i = 0; i < 9; i++) { /* whatever kind left it, and whatever kind comes */
        close((int)CHECK_OK(bind_as(kinds[i % 3], 1 - (i % 3 == 1))));
        int fd = (int)CHECK_OK(bind_as(kinds[i / 3], 1 - (i / 3 == 1)));
        CHECK_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        close(fd);
        unlink(path);
    }
    leave_place();
}

TEST(a_socket_that_anybody_holds_keeps_its_file)
{
    static const char *const kinds[] = { "unix", "unixgram", "unixpacket" };
    make_place();
    for (int i = 0; i < 9; i++)
        for (int listens = 0; listens < 2; listens++) { /* also when it is only bound */
            int live = (int)CHECK_OK(bind_as(kinds[i % 3], i % 3 == 1 ? 0 : listens));
            ino_t before = inode();
            CHECK_EQ(bind_as(kinds[i / 3], i / 3 != 1), -EADDRINUSE);
            CHECK_EQ(inode(), before);
            close(live);
            unlink(path);
        }
    leave_place();
}

TEST(a_live_listener_is_not_bothered_by_the_question)
{
    make_place();
    int live = (int)CHECK_OK(bind_as("unix", 1));
    for (int i = 0; i < 10; i++)
        CHECK_EQ(bind_as("unix", 1), -EADDRINUSE);
    CHECK_EQ(fcntl(live, F_SETFL, O_NONBLOCK), 0);
    CHECK_EQ(accept(live, NULL, NULL), -1);
    CHECK_EQ(errno, EAGAIN);
    close(live);
    leave_place();
}

TEST(what_is_no_socket_is_never_removed)
{
    make_place();
    int file = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK_GE(file, 0);
    close(file);
    CHECK_EQ(bind_as("unix", 1), -EADDRINUSE);
    CHECK_EQ(unlink(path), 0);
    CHECK_EQ(mkdir(path, 0700), 0);
    CHECK_EQ(bind_as("unix", 1), -EADDRINUSE);
    CHECK_EQ(rmdir(path), 0);
    char target[128];
    snprintf(target, sizeof target, "%s/target", dir);
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    memcpy(un.sun_path, target, strlen(target) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_EQ(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
    close(fd); /* a socket of nobody, but behind a link */
    CHECK_EQ(symlink(target, path), 0);
    CHECK_EQ(bind_as("unix", 1), -EADDRINUSE);
    CHECK_EQ(unlink(path), 0);
    CHECK_EQ(unlink(target), 0);
    leave_place();
}

TEST(nothing_is_removed_without_the_directorys_lock)
{
    make_place();
    close((int)CHECK_OK(bind_as("unix", 1)));
    int lock = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK_EQ(flock(lock, LOCK_EX), 0);
    ino_t before = inode();
    CHECK_EQ(bind_as("unix", 1), -EADDRINUSE);
    CHECK_EQ(inode(), before);
    close(lock);
    close((int)CHECK_OK(bind_as("unix", 1)));
    leave_place();
}

enum { BINDERS = 8, ROUNDS = 30 };
static pthread_barrier_t gate;

static void *bind_once(void *arg)
{
    pthread_barrier_wait(&gate);
    *(int *)arg = bind_as("unix", 1);
    return NULL;
}

TEST(of_many_who_find_the_same_file_exactly_one_gets_its_place)
{
    make_place();
    CHECK_EQ(pthread_barrier_init(&gate, NULL, BINDERS), 0);
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t thread[BINDERS];
        int fd[BINDERS], won = -1;
        close((int)CHECK_OK(bind_as("unix", 1)));
        for (int i = 0; i < BINDERS; i++)
            CHECK_EQ(pthread_create(&thread[i], NULL, bind_once, &fd[i]), 0);
        for (int i = 0; i < BINDERS; i++)
            CHECK_EQ(pthread_join(thread[i], NULL), 0);
        for (int i = 0; i < BINDERS; i++) {
            if (fd[i] < 0) {
                CHECK_EQ(fd[i], -EADDRINUSE);
                continue;
            }
            CHECK_EQ(won, -1);
            won = fd[i];
        }
        CHECK_GE(won, 0);
        close(won);
    }
    pthread_barrier_destroy(&gate);
    leave_place();
}

TEST(a_relative_path_is_relative_to_the_working_directory)
{
    make_place();
    CHECK_EQ(chdir(dir), 0);
    struct rv_addr a;
    CHECK_OK(rv_addr_read("unix:socket", true, &a));
    for (int i = 0; i < 2; i++)
        close((int)CHECK_OK(rv_addr_bind(&rv_io_driver_uring, &a, 1)));
    CHECK_GT(inode(), 0);
    CHECK_EQ(chdir("/"), 0);
    leave_place();
}

TEST(a_free_abstract_name_is_chosen_by_the_kernel)
{
    struct rv_addr a;
    struct sockaddr_storage is;
    socklen_t len = sizeof is;
    char text[128];
    CHECK_OK(rv_addr_read("unixgram:@", true, &a));
    int fd = (int)CHECK_OK(rv_addr_bind(&rv_io_driver_uring, &a, 0));
    CHECK_EQ(getsockname(fd, (struct sockaddr *)&is, &len), 0);
    CHECK_OK(rv_addr_text((struct sockaddr *)&is, len, text, sizeof text));
    CHECK_EQ(strncmp(text, "unix:@", 6), 0);
    CHECK_GT(strlen(text), 6);
    close(fd);
}

TEST(options_go_with_the_kind_of_socket)
{
    struct rv_addr a;
    CHECK_OK(rv_addr_read("127.0.0.1:0", true, &a));
    int tcp = (int)CHECK_OK(rv_addr_bind(&rv_io_driver_uring, &a, 5));
    CHECK_EQ(option(tcp, SOL_SOCKET, SO_REUSEADDR), 1);
    CHECK_EQ(option(tcp, SOL_SOCKET, SO_ACCEPTCONN), 1);
    CHECK_EQ(option(tcp, IPPROTO_TCP, TCP_NODELAY), 1);
    CHECK_OK(rv_addr_read("udp:127.0.0.1:0", true, &a));
    int udp = (int)CHECK_OK(rv_addr_bind(&rv_io_driver_uring, &a, 0));
    CHECK_EQ(option(udp, SOL_SOCKET, SO_TYPE), SOCK_DGRAM);
    CHECK_EQ(option(udp, SOL_SOCKET, SO_REUSEADDR), 0); /* or another could take its datagrams */
    CHECK_OK(rv_addr_read("udp:*:0", true, &a));
    int any = (int)CHECK_OK(rv_addr_bind(&rv_io_driver_uring, &a, 0));
    if (a.to.ss_family == AF_INET6)
        CHECK_EQ(option(any, IPPROTO_IPV6, IPV6_V6ONLY), 0);
    close(tcp);
    close(udp);
    close(any);
}

TEST(what_the_kernel_refuses_leaves_no_descriptor_and_errno_as_it_was)
{
    make_place();
    int next = dup(0);
    close(next);
    char text[128];
    struct rv_addr a;
    snprintf(text, sizeof text, "unix:%s/none/socket", dir);
    CHECK_OK(rv_addr_read(text, true, &a));
    errno = EXDEV;
    CHECK_EQ(rv_addr_bind(&rv_io_driver_uring, &a, 1), -ENOENT);
    CHECK_EQ(errno, EXDEV);
    int live = (int)CHECK_OK(bind_as("unix", 1));
    CHECK_EQ(live, next);
    errno = EXDEV;
    CHECK_EQ(bind_as("unix", 1), -EADDRINUSE);
    CHECK_EQ(errno, EXDEV);
    close(live);
    errno = EXDEV;
    CHECK_EQ(bind_as("unix", 1), next);
    CHECK_EQ(errno, EXDEV);
    close(next);
    leave_place();
}
