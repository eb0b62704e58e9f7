/* SPDX-License-Identifier: MIT */
/*
 * caps_test.c -- what this kernel can do is found out, can be switched off, and a refusal is
 * explained.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#include "io/caps.h"
#include "io/ring.h"
#include "mem/fault.h"
#include "tests/io/seccomp.h"
#include "tests/io/uring.h"

static struct rv_caps probe(const struct rv_caps_off *off)
{
    struct rv_caps caps;
    uring_or_skip();
    CHECK_OK(rv_caps_probe(&caps, off));
    return caps;
}

/* The table as text. */
static const char *table(const struct rv_caps *caps)
{
    static char text[8192];
    int ends[2];
    CHECK_OK(pipe(ends));
    CHECK_EQ(rv_caps_write(caps, ends[1]), 0);
    close(ends[1]);
    ssize_t n = read(ends[0], text, sizeof text - 1);
    CHECK_GT(n, 0);
    CHECK_EQ(read(ends[0], text + n, sizeof text - 1 - (size_t)n), 0);
    close(ends[0]);
    text[n] = '\0';
    return text;
}

/* yes, no or off: what the table says of a capability. */
static const char *verdict(const char *text, const char *name)
{
    static char word[8], line[64];
    snprintf(line, sizeof line, "\n  %s ", name);
    const char *at = strstr(text, line);
    if (!at)
        check_failed(__FILE__, __LINE__, "%s is not in the table", name);
    CHECK_EQ(sscanf(at, " %*s %7s", word), 1);
    return word;
}

struct name {
    const char *name;
    size_t in_caps, in_off;
};
#define NAME(field) #field, offsetof(struct rv_caps, field), offsetof(struct rv_caps_off, field)
static const struct name names[] = {
    { NAME(defer_taskrun) },    { NAME(single_issuer) },   { NAME(taskrun_flag) },
    { NAME(coop_taskrun) },     { NAME(submit_all) },      { NAME(registered_ring_fd) },
    { NAME(no_iowait) },        { NAME(abs_timer) },       { NAME(recv_optlen) },
    { NAME(accept_multishot) }, { NAME(send_msg_ring) },   { NAME(clone_buffers) },
    { NAME(min_timeout) },      { NAME(recvsend_bundle) }, { NAME(send_zc) },
    { NAME(waitid) },           { NAME(ftruncate) },       { NAME(guard_install) },
    { NAME(rwf_nosignal) },
};
#define NAMES (sizeof names / sizeof *names)

static bool has(const struct rv_caps *caps, size_t i)
{
    return *(const bool *)((const char *)caps + names[i].in_caps);
}

TEST(a_probe_finds_what_is_required_and_the_kernels_name)
{
    struct utsname name;
    struct rv_caps caps = probe(NULL);
    CHECK_OK(uname(&name));
    CHECK_STR_EQ(caps.release, name.release);
    CHECK(caps.buf_ring);
    CHECK(caps.recv_multishot);
    CHECK(caps.features & IORING_FEAT_EXT_ARG);
    CHECK(rv_caps_op(&caps, IORING_OP_NOP));
    CHECK(rv_caps_op(&caps, IORING_OP_RECV));
    CHECK(!rv_caps_op(&caps, 255));
    CHECK(!rv_caps_op(&caps, 256));
    CHECK(!caps.defer_taskrun || (caps.single_issuer && caps.taskrun_flag));
    CHECK_EQ(caps.waitid, rv_caps_op(&caps, RV_URING_OP_WAITID));
}

TEST(a_second_probe_says_the_same)
{
    struct rv_caps a, b;
    memset(&a, 0x11, sizeof a);
    memset(&b, 0x22, sizeof b);
    probe(NULL);
    CHECK_OK(rv_caps_probe(&a, NULL));
    CHECK_OK(rv_caps_probe(&b, NULL));
    CHECK_MEM_EQ(&a, &b, sizeof a);
}

static void *probe_many(void *ret)
{
    for (int i = 0; i < 20; i++)
        CHECK_OK(rv_caps_probe(ret, NULL));
    return NULL;
}

TEST(threads_that_probe_at_once_agree)
{
    struct rv_caps each[4];
    pthread_t thread[4];
    uring_or_skip();
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&thread[i], NULL, probe_many, &each[i]), 0);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_join(thread[i], NULL), 0);
    for (int i = 1; i < 4; i++)
        CHECK_STR_EQ(table(&each[i]), strdupa(table(&each[0])));
}

TEST(each_capability_can_be_switched_off_by_a_caller)
{
    for (size_t i = 0; i < NAMES; i++) {
        struct rv_caps_off off = { 0 };
        *(bool *)((char *)&off + names[i].in_off) = true;
        struct rv_caps caps = probe(&off);
        CHECK(!has(&caps, i));
        CHECK_STR_EQ(verdict(table(&caps), names[i].name), "off");
    }
}

TEST(each_capability_can_be_switched_off_by_the_environment)
{
    struct rv_caps all = probe(NULL);
    for (size_t i = 0; i < NAMES; i++) {
        CHECK_OK(setenv("REEVE_CAPS_OFF", names[i].name, 1));
        struct rv_caps caps = probe(NULL);
        CHECK(!has(&caps, i));
        CHECK(*(const bool *)((const char *)&caps.off + names[i].in_off));
        CHECK_OK(unsetenv("REEVE_CAPS_OFF"));
        caps = probe(NULL);
        CHECK_EQ(has(&caps, i), has(&all, i));
    }
}

TEST(the_environment_takes_a_list_and_ignores_unknown_names)
{
    CHECK_OK(setenv("REEVE_CAPS_OFF", ",optlen, guard_install,,nonsense,submit_al,waitid ", 1));
    struct rv_caps_off off = { .no_iowait = true };
    struct rv_caps_off expected = {
        .no_iowait = true,
        .recv_optlen = true,
        .guard_install = true,
        .waitid = true,
    };
    rv_caps_off_env(&off);
    CHECK_MEM_EQ(&off, &expected, sizeof off);
    CHECK_OK(setenv("REEVE_CAPS_OFF", "", 1));
    rv_caps_off_env(&off);
    CHECK_MEM_EQ(&off, &expected, sizeof off);
}

TEST(what_needs_a_capability_goes_with_it)
{
    struct rv_caps caps = probe(&(struct rv_caps_off){ .single_issuer = true });
    CHECK(!caps.defer_taskrun);
    caps = probe(&(struct rv_caps_off){ .taskrun_flag = true });
    CHECK(!caps.defer_taskrun);
    CHECK(!caps.coop_taskrun);
}

TEST(a_ring_made_with_the_off_list_of_a_probe_does_without)
{
    CHECK_OK(setenv("REEVE_CAPS_OFF", "defer_taskrun,registered_ring_fd", 1));
    struct rv_caps caps = probe(&(struct rv_caps_off){ .no_iowait = true });
    struct rv_ring r;
    CHECK_OK(rv_ring_init(&r, 8, 16, RV_RING_FLAGS, &caps.off));
    CHECK_OK(rv_ring_enable(&r));
    CHECK_EQ(r.flags & IORING_SETUP_DEFER_TASKRUN, 0);
    CHECK_EQ(!!(r.flags & IORING_SETUP_COOP_TASKRUN), caps.coop_taskrun);
    CHECK_EQ(r.enter_flags, 0);
    CHECK(!r.no_iowait);
    rv_ring_finish(&r);
}

TEST(without_a_required_capability_nothing_starts_and_the_sentence_names_it)
{
    static const char *const required[][2] = {
        { "buf_ring", "provided buffers" },
        { "recv_multishot", "multishot receive" },
    };
    probe(NULL);
    for (int i = 0; i < 2; i++) {
        char why[256];
        struct rv_caps caps, before;
        memset(&caps, 0x77, sizeof caps);
        before = caps;
        CHECK_OK(setenv("REEVE_CAPS_OFF", required[i][0], 1));
        CHECK_EQ(rv_caps_probe(&caps, NULL), -EOPNOTSUPP);
        CHECK_MEM_EQ(&caps, &before, sizeof caps);
        CHECK_EQ(rv_uring_refused(why, sizeof why), -EOPNOTSUPP);
        CHECK(strstr(why, required[i][1]));
        CHECK(strstr(why, "Linux 6.1 or newer"));
    }
}

TEST(the_table_agrees_with_the_fields_and_names_each)
{
    struct rv_caps caps = probe(NULL);
    const char *text = table(&caps);
    CHECK(strstr(text, caps.release));
    CHECK_STR_EQ(verdict(text, "buf_ring"), "yes");
    CHECK_STR_EQ(verdict(text, "recv_multishot"), "yes");
    for (size_t i = 0; i < NAMES; i++)
        CHECK_STR_EQ(verdict(text, names[i].name), has(&caps, i) ? "yes" : "no");
    CHECK_EQ(rv_caps_write(&caps, -1), -EBADF);
}

/* ---- refusals -------------------------------------------------------------------------------- */

/* The sentence must hold one line of one sentence, and these words. */
static void check_refused(int error, const char *word, const char *remedy)
{
    char why[512];
    struct rv_caps caps;
    CHECK_EQ(rv_uring_refused(why, sizeof why), error);
    CHECK_EQ(rv_caps_probe(&caps, NULL), error);
    CHECK_LT(strlen(why), sizeof why - 1);
    CHECK_EQ(why[strlen(why) - 1], '.');
    CHECK(!strchr(why, '\n'));
    if (!strstr(why, word) || !strstr(why, remedy))
        check_failed(__FILE__, __LINE__, "\"%s\" lacks \"%s\" or \"%s\"", why, word, remedy);
}

TEST(a_filter_that_forbids_the_set_up_is_named)
{
    uring_or_skip();
    seccomp_refuse(__NR_io_uring_setup, SECCOMP_ANY_ARGUMENT, EPERM);
    check_refused(-EPERM, "seccomp profile forbids io_uring_setup", "seccomp=unconfined");
}

TEST(a_filter_that_hides_io_uring_is_told_from_an_old_kernel)
{
    uring_or_skip();
    seccomp_refuse(__NR_io_uring_setup, SECCOMP_ANY_ARGUMENT, ENOSYS);
    check_refused(-ENOSYS, "seccomp filter", "io_uring_register");
}

TEST(a_filter_that_forbids_one_of_the_other_calls_is_named)
{
    uring_or_skip();
    pid_t child = fork();
    if (child == 0) {
        seccomp_refuse(__NR_io_uring_enter, SECCOMP_ANY_ARGUMENT, EPERM);
        char why[512];
        CHECK_EQ(rv_uring_refused(why, sizeof why), -EPERM);
        CHECK(strstr(why, "forbids io_uring_enter"));
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    seccomp_refuse(__NR_io_uring_register, SECCOMP_ANY_ARGUMENT, EACCES);
    char why[512];
    CHECK_EQ(rv_uring_refused(why, sizeof why), -EACCES);
    CHECK(strstr(why, "security module"));
    CHECK(strstr(why, "io_uring_register"));
}

TEST(a_process_without_descriptors_is_told_so)
{
    uring_or_skip();
    char why[512];
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK_OK(fd);
    struct rlimit limit = { (rlim_t)fd + 1, (rlim_t)fd + 1 };
    CHECK_OK(setrlimit(RLIMIT_NOFILE, &limit));
    CHECK_EQ(rv_uring_refused(why, sizeof why), -EMFILE);
    CHECK(strstr(why, "ulimit -n"));
    close(fd);
}

TEST(a_refusal_is_not_remembered)
{
    uring_or_skip();
    struct rv_caps caps;
    struct rlimit before, none;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC); /* the lowest that was free */
    CHECK_OK(fd);
    CHECK_OK(getrlimit(RLIMIT_NOFILE, &before));
    none = before;
    none.rlim_cur = (rlim_t)fd + 1;
    CHECK_OK(setrlimit(RLIMIT_NOFILE, &none));
    CHECK_EQ(rv_caps_probe(&caps, NULL), -EMFILE);
    CHECK_OK(setrlimit(RLIMIT_NOFILE, &before));
    CHECK_OK(rv_caps_probe(&caps, NULL));
}

TEST(io_uring_switched_off_by_the_environment_is_never_called)
{
    CHECK_OK(setenv("REEVE_CAPS_OFF", "io_uring", 1));
    seccomp_refuse(__NR_io_uring_setup, SECCOMP_ANY_ARGUMENT, EXDEV); /* shows if it is */
    check_refused(-ENOSYS, "environment", "REEVE_CAPS_OFF");
}

TEST(each_cause_has_its_sentence_and_remedy)
{
    static const struct {
        int error, disabled;
        bool seccomp;
        uint64_t limit;
        const char *cause, *remedy;
    } cases[] = {
        { -EPERM, 2, false, 0, "io_uring_disabled = 2", "sysctl -w kernel.io_uring_disabled=0" },
        { -EPERM, 1, false, 0, "privileged", "(now 1234)" },
        { -EPERM, 0, true, 0, "seccomp profile forbids the_call", "io_uring_enter" },
        { -EPERM, -1, false, 0, "seccomp profile", "unconfined" },
        { -ENOSYS, -1, false, 0, "Linux 5.4.0-x", "CONFIG_IO_URING" },
        { -ENOSYS, -1, true, 0, "the_call does not exist", "allow io_uring_setup" },
        { -EACCES, 0, false, 0, "SELinux", "grant" },
        { -EOPNOTSUPP, 0, false, 0, "(Linux 5.4.0-x) lacks the_thing", "Linux 6.1 or newer" },
        { -ENOMEM, 0, false, 64, "now 64,", "ulimit -l" },
        { -ENOMEM, 0, false, UINT64_MAX, "now unlimited,", "LimitMEMLOCK=" },
        { -EMFILE, 0, false, 1024, "now 1024;", "LimitNOFILE=" },
        { -ENFILE, 0, false, 0, "no open file left", "fs.file-max" },
        { -EIO, 0, false, 0, "the_call failed with error 5 (Input/output error)", "6.1" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char why[512];
        struct rv_uring_facts facts = { "5.4.0-x",         "the_call",    "the_thing",
                                        cases[i].disabled, 1234,          cases[i].seccomp,
                                        cases[i].limit,    cases[i].limit };
        rv_uring_sentence(cases[i].error, &facts, why, sizeof why);
        if (!strstr(why, cases[i].cause) || !strstr(why, cases[i].remedy))
            check_failed(__FILE__, __LINE__, "\"%s\" lacks \"%s\" or \"%s\"", why, cases[i].cause,
                         cases[i].remedy);
        CHECK_EQ(why[strlen(why) - 1], '.');
    }
}

TEST(a_sentence_is_cut_to_its_space)
{
    struct rv_uring_facts facts = { .release = "6", .call = "io_uring_setup" };
    char whole[512], cut[512];
    rv_uring_sentence(-ENOSYS, &facts, whole, sizeof whole);
    for (size_t cap = 0; cap < strlen(whole) + 2; cap++) {
        memset(cut, '#', sizeof cut);
        rv_uring_sentence(-ENOSYS, &facts, cut, cap);
        CHECK_EQ(cut[cap], '#');
        if (cap > 0) {
            CHECK_EQ(strlen(cut), cap - 1 < strlen(whole) ? cap - 1 : strlen(whole));
            CHECK_MEM_EQ(cut, whole, strlen(cut));
        }
    }
    CHECK_OK(setenv("REEVE_CAPS_OFF", "io_uring", 1));
    CHECK_EQ(rv_uring_refused(cut, 0), -ENOSYS);
    CHECK_EQ(rv_uring_refused(cut, 5), -ENOSYS);
    CHECK_STR_EQ(cut, "io_u");
}

/* ---- faults ---------------------------------------------------------------------------------- */

static unsigned open_files(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    CHECK(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

TEST(a_probe_that_fails_half_way_leaves_nothing_open)
{
    uring_or_skip();
    if (!rv_fault_available())
        SKIP("built without RV_FAULTS");
    char why[512];
    unsigned before = open_files(), failed = 0;
    for (uint64_t n = 1;; n++) {
        rv_fault_fail_nth(n);
        int e = rv_uring_refused(why, sizeof why); /* asks each time, unlike a probe */
        const char *name = rv_fault_last_name();
        rv_fault_off();
        if (!name)
            break;
        failed += e < 0;
        CHECK(e == 0 || e == -ENOMEM || e == -EAGAIN || e == -EBUSY || e == -EINTR);
        CHECK(e == 0 || strlen(why) > 0);
        CHECK_EQ(open_files(), before);
    }
    CHECK_GE(failed, 10);
    CHECK_EQ(rv_uring_refused(why, sizeof why), 0);
}
