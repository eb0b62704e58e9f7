/* SPDX-License-Identifier: MIT */
/** check.h -- tests as plain executables.
 *
 *     #define CHECK_MAIN
 *     #include "tests/check.h"
 *     TEST(a_full_ring_refuses_the_next_item) { CHECK_EQ(ring_push(&full, 1), -EAGAIN); }
 *
 * The name of a test is the claim that it checks. TEST( opens its line and stands under no #if: the
 * build lists the tests of a file by reading it; what cannot be tested here says SKIP("why").
 * Exactly one file of an executable defines CHECK_MAIN; it gets main():
 *
 *     x_test [NAME ...]      runs these tests, or all
 *     x_test --list          prints their names
 *     x_test --no-fork ...   in this very process and without a time limit, for a debugger:
 *                            a failing check aborts, and the first skip ends the run
 *
 * Each test runs in a child process of its own, so that a crash fails one test only, and has
 * CHECK_SECONDS seconds. It leads a process group; whatever it left behind there is killed when it
 * ends. Output: `ok NAME`, `FAIL NAME (why)` or `skip NAME why`. Exit status: 0 none failed; 1 some
 * did; 2 there is no such test; 77 all were skipped.
 *
 * A failing check prints where and what, and ends the process with _exit. Nothing jumps and nothing
 * unwinds, so every check may be used on any thread and on any stack, a task's too. A test that
 * returns leaves by exit(), so a sanitizer's verdict at exit counts: a leak fails the test.
 */
#ifndef TESTS_CHECK_H
#define TESTS_CHECK_H

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

/* A deadline for what must end otherwise (needs reeve/time.h): it passes only where something
 * hangs, however busy the machine is, and before the test's own limit. */
#define LONG reeve_in(120 * REEVE_SEC)

#ifndef CHECK_SECONDS
#define CHECK_SECONDS 300 /* seldom more than one, but a machine may have much else to do */
#endif

struct check_test {
    const char *name;
    void (*run)(void);
    struct check_test *next;
};

void check_register(struct check_test *test);

/* Prints "file:line: ..." and ends the process. */
_Noreturn void check_failed(const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
_Noreturn void check_skipped(const char *why);

/* Compares by op, one of "==" "!=" "<" "<=" ">" ">="; the text is what stands in the source. */
void check_compare(const char *file, int line, const char *text, intmax_t a, const char *op,
                   intmax_t b);
intmax_t check_ok(const char *file, int line, const char *text, intmax_t value);
void check_strings(const char *file, int line, const char *text, const char *a, const char *b);
void check_bytes(const char *file, int line, const char *text, const void *a, const void *b,
                 size_t len);

/* The two halves of CHECK_DIES: the fork (0 in the child), and the verdict on the child's end. */
pid_t check_dies_fork(int *ret_stderr);
void check_dies_verdict(const char *file, int line, const char *text, pid_t child, int child_stderr,
                        const char *sentence);

#define TEST(name)                                                                                 \
    static void test_##name(void);                                                                 \
    __attribute__((constructor)) static void check_register_##name(void)                           \
    {                                                                                              \
        static struct check_test test = { #name, test_##name, NULL };                              \
        check_register(&test);                                                                     \
    }                                                                                              \
    static void test_##name(void)

/** Fails the test unless cond holds. */
#define CHECK(cond) ((cond) ? (void)0 : check_failed(__FILE__, __LINE__, "CHECK(%s)", #cond))

/** Compare two integers or two pointers and print both when they differ. A floating-point operand
 * does not compile (it would be truncated): use CHECK(). */
#define CHECK_EQ(a, b) CHECK_COMPARE_(a, ==, b)
#define CHECK_NE(a, b) CHECK_COMPARE_(a, !=, b)
#define CHECK_LT(a, b) CHECK_COMPARE_(a, <, b)
#define CHECK_LE(a, b) CHECK_COMPARE_(a, <=, b)
#define CHECK_GT(a, b) CHECK_COMPARE_(a, >, b)
#define CHECK_GE(a, b) CHECK_COMPARE_(a, >=, b)

/** expr must be >= 0, and its value is the macro's: `int fd = (int)CHECK_OK(reeve_listen(...))`.
 * The error behind a negative value is printed in words. */
#define CHECK_OK(expr) check_ok(__FILE__, __LINE__, "CHECK_OK(" #expr ")", CHECK_INTEGER_(expr))

#define CHECK_STR_EQ(a, b) check_strings(__FILE__, __LINE__, "CHECK_STR_EQ(" #a ", " #b ")", a, b)
#define CHECK_MEM_EQ(a, b, len)                                                                    \
    check_bytes(__FILE__, __LINE__, "CHECK_MEM_EQ(" #a ", " #b ")", a, b, len)

/** The statement must abort() after printing a line on stderr that contains sentence. It runs in a
 * child process: call this only while the process has one thread, and start threads inside.
 *     CHECK_DIES("joined twice", { reeve_join(t, NULL, 0); reeve_join(t, NULL, 0); }); */
#define CHECK_DIES(sentence, ...)                                                                  \
    do {                                                                                           \
        int check_stderr_;                                                                         \
        pid_t check_child_ = check_dies_fork(&check_stderr_);                                      \
        if (check_child_ == 0) {                                                                   \
            __VA_ARGS__;                                                                           \
            _exit(0);                                                                              \
        }                                                                                          \
        check_dies_verdict(__FILE__, __LINE__, "CHECK_DIES(" #__VA_ARGS__ ")", check_child_,       \
                           check_stderr_, sentence);                                               \
    } while (0)

/** Ends the test here, neither passed nor failed: what it needs is not on this machine. */
#define SKIP(why) check_skipped(why)

#define CHECK_COMPARE_(a, op, b)                                                                   \
    check_compare(__FILE__, __LINE__, "CHECK(" #a " " #op " " #b ")", CHECK_INTEGER_(a), #op,      \
                  CHECK_INTEGER_(b))
#define CHECK_INTEGER_(x)                                                                          \
    ((void)sizeof(char[_Generic((x), float: -1, double: -1, long double: -1, default: 1)]),        \
     (intmax_t)(x))

#ifdef CHECK_MAIN

#include <stdarg.h>

static struct {
    struct check_test *first, **end; /* in the order of registration */
    const char *running;             /* the name of the test this process runs */
    bool no_fork;
} check;

void check_register(struct check_test *test)
{
    if (!check.end)
        check.end = &check.first;
    *check.end = test;
    check.end = &test->next;
}

/* One write(2) per message: tasks and threads of a test may fail at the same time. */
_Noreturn void check_failed(const char *file, int line, const char *fmt, ...)
{
    char text[1024];
    int n = snprintf(text, sizeof text, "%s:%d: ", file, line);
    va_list args;
    va_start(args, fmt);
    n += vsnprintf(text + n, sizeof text - (size_t)n, fmt, args);
    va_end(args);
    size_t len = (size_t)n < sizeof text - 1 ? (size_t)n : sizeof text - 2;
    text[len++] = '\n';
    fflush(stdout);
    if (write(STDERR_FILENO, text, len) < 0 || check.no_fork)
        abort();
    _exit(1);
}

_Noreturn void check_skipped(const char *why)
{
    printf("skip %s %s\n", check.running, why);
    fflush(stdout);
    _exit(77);
}

/* A number as a test wants to see it: "-32 (Broken pipe)", "65536 (0x10000)". */
static const char *check_number(char *ret_text, size_t cap, intmax_t value)
{
    if (value < 0 && value > -134)
        snprintf(ret_text, cap, "%jd (%s)", value, strerror((int)-value));
    else if (value < -4096 || value > 4096)
        snprintf(ret_text, cap, "%jd (0x%jx)", value, (uintmax_t)value);
    else
        snprintf(ret_text, cap, "%jd", value);
    return ret_text;
}

void check_compare(const char *file, int line, const char *text, intmax_t a, const char *op,
                   intmax_t b)
{
    bool less = op[0] == '<' && a < b, more = op[0] == '>' && a > b;
    bool equal = op[0] != '!' && op[1] == '=' && a == b, differ = op[0] == '!' && a != b;
    if (less || more || equal || differ)
        return;
    char left[128], right[128];
    check_failed(file, line, "%s: left is %s, right is %s", text,
                 check_number(left, sizeof left, a), check_number(right, sizeof right, b));
}

intmax_t check_ok(const char *file, int line, const char *text, intmax_t value)
{
    char number[128];
    if (value < 0)
        check_failed(file, line, "%s: got %s", text, check_number(number, sizeof number, value));
    return value;
}

void check_strings(const char *file, int line, const char *text, const char *a, const char *b)
{
    if (!a || !b || strcmp(a, b) != 0)
        check_failed(file, line, "%s: left is \"%s\", right is \"%s\"", text, a ? a : "(null)",
                     b ? b : "(null)");
}

void check_bytes(const char *file, int line, const char *text, const void *a, const void *b,
                 size_t len)
{
    const unsigned char *left = a, *right = b;
    for (size_t i = 0; i < len; i++)
        if (left[i] != right[i])
            check_failed(file, line, "%s: byte %zu of %zu is 0x%02x left, 0x%02x right", text, i,
                         len, left[i], right[i]);
}

pid_t check_dies_fork(int *ret_stderr)
{
    int ends[2];
    fflush(NULL);
    CHECK_EQ(pipe(ends), 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
    } else {
        *ret_stderr = ends[0];
    }
    close(ends[1]);
    return child;
}

void check_dies_verdict(const char *file, int line, const char *text, pid_t child, int child_stderr,
                        const char *sentence)
{
    char said[4096], more[512];
    size_t len = 0;
    ssize_t n;
    while (len < sizeof said - 1 && (n = read(child_stderr, said + len, sizeof said - 1 - len)) > 0)
        len += (size_t)n;
    while (read(child_stderr, more, sizeof more) > 0)
        ;
    close(child_stderr);
    said[len] = '\0';
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
        check_failed(file, line, "%s: did not abort (status 0x%x), said \"%s\"", text,
                     (unsigned)status, said);
    if (!strstr(said, sentence))
        check_failed(file, line, "%s: said \"%s\", not \"%s\"", text, said, sentence);
}

/* Only the child's side of a test; it does not return. */
static _Noreturn void check_run_child(const struct check_test *test)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGALRM, SIG_DFL);
    alarm(CHECK_SECONDS);
    test->run();
    exit(0);
}

/* Waits for a test's process without reaping it, so that its number still names its group while
 * the leftovers there are killed; then reaps it. Returns the wait status. */
static int check_reap(pid_t child)
{
    siginfo_t info;
    int status = -1;
    while (waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT) < 0 && errno == EINTR)
        ;
    kill(-child, SIGKILL);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

/* 0 passed, 1 failed, 77 skipped. */
static int check_run(const struct check_test *test)
{
    check.running = test->name;
    if (check.no_fork) {
        test->run();
        printf("ok %s\n", test->name);
        return 0;
    }
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) {
        printf("FAIL %s (fork: %s)\n", test->name, strerror(errno));
        return 1;
    }
    if (child == 0)
        check_run_child(test);
    setpgid(child, child);
    int status = check_reap(child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        return 77;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        printf("ok %s\n", test->name);
    else if (WIFEXITED(status))
        printf("FAIL %s (exit status %d)\n", test->name, WEXITSTATUS(status));
    else if (WTERMSIG(status) == SIGALRM)
        printf("FAIL %s (not done within %d s)\n", test->name, CHECK_SECONDS);
    else
        printf("FAIL %s (%s)\n", test->name, strsignal(WTERMSIG(status)));
    return WIFEXITED(status) ? WEXITSTATUS(status) != 0 : 1;
}

static const struct check_test *check_find(const char *name)
{
    const struct check_test *test = check.first;
    while (test && strcmp(test->name, name) != 0)
        test = test->next;
    return test;
}

/* Adds the outcome of one test to the totals. */
static void check_count(const struct check_test *test, int *passed, int *failed)
{
    int outcome = check_run(test);
    *passed += outcome == 0;
    *failed += outcome == 1;
}

int main(int argc, char **argv)
{
    int passed = 0, failed = 0, named = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--no-fork") == 0) {
            check.no_fork = true;
        } else if (strcmp(argv[i], "--list") == 0) {
            for (const struct check_test *t = check.first; t; t = t->next)
                puts(t->name);
            return 0;
        } else if (!check_find(argv[i])) {
            fprintf(stderr, "%s: there is no test %s\n", argv[0], argv[i]);
            return 2;
        } else {
            named++;
        }
    }
    for (int i = 1; i < argc && named; i++)
        if (check_find(argv[i]))
            check_count(check_find(argv[i]), &passed, &failed);
    for (const struct check_test *t = check.first; t && !named; t = t->next)
        check_count(t, &passed, &failed);
    if (!check.first)
        fprintf(stderr, "%s: has no tests\n", argv[0]);
    return failed || !check.first ? 1 : passed ? 0 : 77;
}

#endif /* CHECK_MAIN */
#endif /* TESTS_CHECK_H */
