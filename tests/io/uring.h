/* SPDX-License-Identifier: MIT */
/*
 * uring.h -- what a test that needs io_uring asks first.
 *
 * Only a kernel that refuses, or one that is too old, skips the test. That our own code finds no
 * io_uring where there is one is a failure.
 */
#ifndef TESTS_IO_URING_H
#define TESTS_IO_URING_H

#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#include "io/caps.h"
#include "tests/check.h"

static inline void uring_or_skip(void)
{
    static char why[512];
    struct io_uring_params params = { 0 };
    struct utsname name;
    int major = 0, minor = 0;
    int fd = (int)syscall(__NR_io_uring_setup, 1, &params);
    if (fd < 0 && errno != ENOMEM) {
        CHECK_LT(rv_uring_refused(why, sizeof why), 0);
        SKIP(why);
    }
    if (fd >= 0)
        close(fd);
    CHECK_OK(uname(&name));
    sscanf(name.release, "%d.%d", &major, &minor);
    if (major < 6 || (major == 6 && minor < 1))
        SKIP("this kernel is older than Linux 6.1");
    int e = rv_uring_refused(why, sizeof why);
    if (e == -ENOMEM)
        SKIP(why);
    if (e < 0)
        check_failed(__FILE__, __LINE__, "refused: %s", why);
}

#endif
