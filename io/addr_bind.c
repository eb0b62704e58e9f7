/* SPDX-License-Identifier: MIT */
/*
 * addr_bind.c -- a socket with a place of its own.
 *
 * A Unix socket's file outlives its process, and the next one that binds to the path is refused. So
 * a file of nobody is replaced; whose it is, the kernel says. A connect by a *datagram* socket
 * finds the file's inode among the bound sockets, whatever their kind, and bothers none of them:
 *
 *     a socket is bound to it           0, or -EPROTOTYPE: it is another kind, or -EPERM
 *     none is                           -ECONNREFUSED
 *     we may not know                   -EACCES ...
 *
 * (1) Only a socket's file is removed, and only after -ECONNREFUSED. Whatever else is in the way,
 *     a link too, makes bind fail with -EADDRINUSE.
 * (2) Between the answer and the removal nobody who works by these rules binds there: all of it is
 *     done under a lock on the directory (flock), which leaves nothing behind. Who cannot have the
 *     lock removes nothing.
 *
 * Threads: any.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "io/addr.h"
#include "io/io.h"

#define LOCK_TRIES 10000 /* some milliseconds: others hold it for microseconds */

static int set_int(const struct rv_io_driver *driver, int fd, int level, int name, int value)
{
    return driver->setsockopt(fd, level, name, &value, sizeof value);
}

/* The directory of a path, locked; -1: not to be had. */
static int lock_directory(const char *path)
{
    char dir[sizeof((struct sockaddr_un *)0)->sun_path];
    const char *slash = strrchr(path, '/');
    size_t len = slash ? (size_t)(slash - path) + 1 : 0;
    memcpy(dir, path, len);
    strcpy(dir + len, ".");
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int tries = 0; fd >= 0; tries++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return fd;
        if (tries == LOCK_TRIES || (errno != EWOULDBLOCK && errno != EINTR))
            break;
        rv_cpu_relax();
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

/* A socket's file, and no socket is bound to it. */
static bool is_nobodys(const struct rv_addr *a, const char *path)
{
    struct stat st;
    if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return false;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    bool nobodys = connect(fd, (const struct sockaddr *)&a->to, a->len) < 0 &&
                   errno == ECONNREFUSED;
    close(fd);
    return nobodys;
}

static int bind_and_listen(const struct rv_io_driver *driver, int fd, const struct rv_addr *a,
                           int backlog)
{
    int r = driver->bind(fd, (const struct sockaddr *)&a->to, a->len);
    if (r >= 0 && backlog > 0)
        r = driver->listen(fd, backlog);
    return r;
}

/* The address is taken: binds all the same if it is a file of nobody. */
static int replace(const struct rv_io_driver *driver, int fd, const struct rv_addr *a, int backlog)
{
    const char *path = ((const struct sockaddr_un *)&a->to)->sun_path;
    int before = errno, r = -EADDRINUSE, dir = lock_directory(path);
    if (dir >= 0) {
        if (is_nobodys(a, path) && unlink(path) == 0)
            r = bind_and_listen(driver, fd, a, backlog);
        close(dir); /* and unlocked with it */
    }
    errno = before;
    return r;
}

/* What every socket of ours has, by its kind. */
static int set_up(const struct rv_io_driver *driver, int fd, const struct rv_addr *a)
{
    int r = 0;
    if (a->to.ss_family == AF_UNIX)
        return 0;
    if (a->type == SOCK_STREAM) { /* for datagrams it would let others share the port */
        r = set_int(driver, fd, SOL_SOCKET, SO_REUSEADDR, 1);
        if (r >= 0)
            r = set_int(driver, fd, IPPROTO_TCP, TCP_NODELAY, 1);
    }
    if (r >= 0 && a->to.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&a->to;
        bool any = IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr);
        r = set_int(driver, fd, IPPROTO_IPV6, IPV6_V6ONLY, !any); /* "*" is IPv4 too */
    }
    return r;
}

int rv_addr_bind(const struct rv_io_driver *driver, const struct rv_addr *a, int backlog)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)&a->to;
    bool file = un->sun_family == AF_UNIX &&
                a->len > offsetof(struct sockaddr_un, sun_path) && un->sun_path[0] != '\0';
    int fd = driver->socket(a->to.ss_family, a->type | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    int r = set_up(driver, fd, a);
    if (r >= 0)
        r = bind_and_listen(driver, fd, a, backlog);
    if (r == -EADDRINUSE && file)
        r = replace(driver, fd, a, backlog);
    if (r >= 0)
        return fd;
    driver->close(fd);
    return r;
}
