/* SPDX-License-Identifier: MIT */
/*
 * harness.c -- measuring side by side: samples, result lines, child processes, peers.
 *
 * (1) What is compared runs in turns and is summed up by medians; this file keeps samples and
 *     prints them, who takes turns with whom is decided by the benchmark.
 * (2) A server is a process of its own, pinned before it starts; a repetition that counts memory
 *     runs in a process of its own too. So nothing that ran before weighs on what runs now.
 * (3) Every wait for a child has a bound, and no child outlives us (PR_SET_PDEATHSIG).
 * Threads: one.
 */
#include "tests/bench/harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FIFO_SERVER = 10, FIFO_LOAD = 20, RT_US_MAX = 2000000, ARGS_MAX = 48 };
enum { CASES_MAX = 64, RAISED_NICE = -10, BUILD_MS = 420000, PEER_CASE_MS = 120000 };

static const char *wanted[CASES_MAX];
static int wanted_n;

/* ---- samples ------------------------------------------------------------------------------- */

void bench_add(struct bench_samples *s, double value)
{
    if (s->n < BENCH_SAMPLES_MAX)
        s->v[s->n++] = value;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(const struct bench_samples *s)
{
    if (!s->n)
        return 0;
    struct bench_samples t = *s;
    qsort(t.v, (size_t)t.n, sizeof t.v[0], compare_doubles);
    return t.n % 2 ? t.v[t.n / 2] : (t.v[t.n / 2 - 1] + t.v[t.n / 2]) / 2;
}

double bench_min(const struct bench_samples *s)
{
    double min = s->n ? s->v[0] : 0;
    for (int i = 1; i < s->n; i++)
        min = s->v[i] < min ? s->v[i] : min;
    return min;
}

double bench_max(const struct bench_samples *s)
{
    double max = s->n ? s->v[0] : 0;
    for (int i = 1; i < s->n; i++)
        max = s->v[i] > max ? s->v[i] : max;
    return max;
}

int64_t bench_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

void bench_pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0)
        bench_skip("pinning", "cannot run on CPU %d: %s", cpu, strerror(errno));
}

int bench_ns(struct bench_samples *s, double (*once)(void *ctx), void *ctx, int reps)
{
    if (once(ctx) < 0)
        return -EIO;
    for (int i = 0; i < reps; i++) {
        double ns = once(ctx);
        if (ns < 0)
            return -EIO;
        bench_add(s, ns);
    }
    return 0;
}

struct alone {
    struct bench_samples ns;
    double peak;
};

static _Noreturn void alone_child(int out, double (*once)(void *ctx), void *ctx, int reps, int cpu)
{
    struct alone a = { .ns.n = 0 };
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (cpu >= 0)
        bench_pin(cpu);
    bench_peak_reset();
    if (bench_ns(&a.ns, once, ctx, reps) < 0)
        _exit(1);
    a.peak = (double)bench_peak();
    _exit(write(out, &a, sizeof a) != sizeof a); /* fits the pipe: one write */
}

int bench_ns_alone(struct bench_samples *s, struct bench_samples *rss, double (*once)(void *ctx),
                   void *ctx, int reps, int cpu)
{
    int fds[2], status = 0;
    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        alone_child(fds[1], once, ctx, reps, cpu);
    close(fds[1]);
    struct alone a = { .ns.n = 0 };
    ssize_t n = pid < 0 ? -1 : read(fds[0], &a, sizeof a);
    close(fds[0]);
    if (pid > 0)
        waitpid(pid, &status, 0);
    if (n != sizeof a || status != 0)
        return -EIO;
    for (int i = 0; i < a.ns.n; i++)
        bench_add(s, a.ns.v[i]);
    if (rss)
        bench_add(rss, a.peak);
    return 0;
}

/* ---- results ------------------------------------------------------------------------------- */

static const char *number_text(double v, char text[32])
{
    snprintf(text, 32, v >= 1000 || v == (double)(int64_t)v ? "%.0f" : "%.4g", v);
    return text;
}

static void emit_json(struct bench *b, const char *case_name, const char *metric, double ours,
                      const char *peer, double theirs)
{
    char a[32], v[32];
    number_text(ours, a);
    number_text(peer ? theirs : ours, v);
    printf("{\"bench\":\"%s\",\"case\":\"%s\",\"metric\":\"%s\",\"reeve\":%s", b->program->name,
           case_name, metric, a);
    if (peer)
        printf(",\"peer\":\"%s\",\"value\":%s,\"ratio\":%.3f}\n", peer, v, ours / theirs);
    else
        printf(",\"value\":%s}\n", v);
}

static const char *spread_text(const struct bench_samples *s, char text[80])
{
    char a[32], z[32];
    text[0] = '\0';
    if (s->n > 1)
        snprintf(text, 80, "(%s..%s)", number_text(bench_min(s), a), number_text(bench_max(s), z));
    return text;
}

static void emit_row(struct bench *b, const char *case_name, const char *metric,
                     const struct bench_samples *reeve, const char *peer,
                     const struct bench_samples *theirs)
{
    char a[32], v[32], spread[80];
    if (!b->last_case)
        printf("%-16s %-18s %10s %-17s  %-10s %10s %-17s %6s\n", "case", "metric", "reeve",
               "(spread)", "peer", "value", "(spread)", "ratio");
    if (b->last_case != case_name)
        putchar('\n');
    b->last_case = case_name;
    printf("%-16s %-18s %10s %-17s", case_name, metric, number_text(bench_median(reeve), a),
           spread_text(reeve, spread));
    if (peer)
        printf("  %-10s %10s %-17s %6.3f", peer, number_text(bench_median(theirs), v),
               spread_text(theirs, spread), bench_median(reeve) / bench_median(theirs));
    putchar('\n');
}

void bench_emit(struct bench *b, const char *case_name, const char *metric,
                const struct bench_samples *reeve, const char *peer,
                const struct bench_samples *theirs)
{
    if (peer && (!theirs || !theirs->n || bench_median(theirs) == 0))
        peer = NULL;
    if (b->json)
        emit_json(b, case_name, metric, bench_median(reeve), peer,
                  peer ? bench_median(theirs) : 0);
    else
        emit_row(b, case_name, metric, reeve, peer, theirs);
    fflush(stdout);
}

void bench_emit_value(struct bench *b, const char *case_name, const char *metric, double value)
{
    struct bench_samples s = { .v = { value }, .n = 1 };
    bench_emit(b, case_name, metric, &s, NULL, NULL);
}

static void say(const char *what, const char *why, va_list ap, const char *verb)
{
    fflush(stdout);
    fprintf(stderr, "%s %s: ", verb, what);
    vfprintf(stderr, why, ap);
    fputc('\n', stderr);
}

void bench_skip(const char *what, const char *why, ...)
{
    va_list ap;
    va_start(ap, why);
    say(what, why, ap, "skipped");
    va_end(ap);
}

void bench_fail(struct bench *b, const char *what, const char *why, ...)
{
    va_list ap;
    va_start(ap, why);
    say(what, why, ap, "failed");
    va_end(ap);
    b->failures++;
}

bool bench_time_left(const struct bench *b)
{
    int64_t limit = b->peers ? 480 : 24;
    return !b->quick || bench_now() - b->begun < limit * INT64_C(1000000000);
}

/* ---- the program --------------------------------------------------------------------------- */

/* A repeated function, in turns with the peers that have a case of its name. */
static void run_once(struct bench *b, const struct bench_case *c)
{
    static const char *const peers[] = { "go", "tokio" };
    enum { PEERS = sizeof peers / sizeof peers[0] };
    struct bench_samples ns = { .n = 0 }, rss = { .n = 0 };
    struct bench_samples peer_ns[PEERS] = { { .n = 0 } }, peer_rss[PEERS] = { { .n = 0 } };
    size_t len = strlen(c->name);
    bool wide = c->wide || (len > 3 && !strcmp(c->name + len - 3, "_w2"));
    int cpu = wide ? -1 : b->cpu_server, rounds = !b->peers ? 1 : b->quick ? 2 : 5;
    bool there[PEERS] = { b->peers, b->peers };
    for (int r = 0; r < rounds; r++) {
        if (bench_ns_alone(&ns, &rss, c->once, c->ctx, BENCH_REPS / rounds, cpu) < 0) {
            bench_fail(b, c->name, "the process that measured it did not end well");
            return;
        }
        for (int p = 0; p < PEERS; p++)
            there[p] = there[p] &&
                       bench_peer_case(b, peers[p], c->name, cpu, &peer_ns[p], &peer_rss[p]);
    }
    bool any = false;
    for (int p = 0; p < PEERS; p++)
        if (peer_ns[p].n) {
            any = true;
            bench_emit(b, c->name, "ns_per_op", &ns, peers[p], &peer_ns[p]);
            if (c->rss)
                bench_emit(b, c->name, "rss_bytes", &rss, peers[p], &peer_rss[p]);
        }
    if (any)
        return;
    bench_emit(b, c->name, "ns_per_op", &ns, NULL, NULL);
    if (c->rss)
        bench_emit(b, c->name, "rss_bytes", &rss, NULL, NULL);
}

static _Noreturn void usage(const struct bench_program *p, int status)
{
    fprintf(status ? stderr : stdout,
            "usage: bench_%s [--json] [--quick] [--peers] [--case NAME]... [--list]\n"
            "  --json       one JSON object per result\n"
            "  --quick      fewer, shorter rounds: ends within 30 s, with --peers in 10 minutes\n"
            "  --peers      also build and run the peers that are installed (Go, tokio)\n"
            "  --case NAME  only this case; may be repeated\n"
            "  --list       print the cases' names\n%s",
            p->name, p->usage ? p->usage : "");
    exit(status);
}

static void list_cases(const struct bench_program *p)
{
    for (size_t i = 0; i < p->cases_n; i++)
        puts(p->cases[i].name);
    exit(0);
}

static void want_case(const struct bench_program *p, const char *name)
{
    size_t i = 0;
    while (i < p->cases_n && strcmp(p->cases[i].name, name) != 0)
        i++;
    if (i == p->cases_n || wanted_n == CASES_MAX) {
        fprintf(stderr, "bench_%s: there is no case %s; --list prints them\n", p->name, name);
        exit(1);
    }
    wanted[wanted_n++] = name;
}

static bool is_wanted(const char *name)
{
    for (int i = 0; i < wanted_n; i++)
        if (!strcmp(wanted[i], name))
            return true;
    return !wanted_n;
}

static void parse(struct bench *b, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        int taken = b->program->option ? b->program->option(argv[i], value) : 0;
        if (taken) {
            i += taken - 1;
        } else if (!strcmp(argv[i], "--json")) {
            b->json = true;
        } else if (!strcmp(argv[i], "--quick")) {
            b->quick = true;
        } else if (!strcmp(argv[i], "--peers")) {
            b->peers = true;
        } else if (!strcmp(argv[i], "--list")) {
            list_cases(b->program);
        } else if (!strcmp(argv[i], "--case") && value) {
            want_case(b->program, value);
            i++;
        } else if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            usage(b->program, 0);
        } else {
            fprintf(stderr, "bench_%s: what is %s?\n", b->program->name, argv[i]);
            usage(b->program, 1);
        }
    }
}

/* The CPUs we were given; the first two are for server and load. */
static void choose_cpus(struct bench *b)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        for (int cpu = 0; cpu < CPU_SETSIZE && b->cpus_n < BENCH_CPUS_MAX; cpu++)
            if (CPU_ISSET(cpu, &set))
                b->cpus[b->cpus_n++] = cpu;
    b->cpu_server = b->cpus[0];
    b->cpu_load = b->cpus[b->cpus_n > 1];
    if (b->cpus_n < 2)
        bench_skip("the second CPU", "there is one, so server and load share it");
}

/* What we may do to our own priority, our children may. */
static void try_priorities(struct bench *b)
{
    struct sched_param fifo = { .sched_priority = FIFO_LOAD }, none = { 0 };
    b->realtime = sched_setscheduler(0, SCHED_FIFO, &fifo) == 0;
    sched_setscheduler(0, SCHED_OTHER, &none);
    b->raised = setpriority(PRIO_PROCESS, 0, RAISED_NICE) == 0;
    if (b->raised)
        setpriority(PRIO_PROCESS, 0, 0);
}

/* The build is somewhere below the source tree: look for tests/bench upwards from the program. */
static void find_folders(struct bench *b)
{
    char dir[BENCH_PATH - 64] = "";
    ssize_t n = readlink("/proc/self/exe", dir, sizeof dir - 1);
    dir[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(dir, '/');
    if (slash)
        *slash = '\0';
    snprintf(b->bindir, sizeof b->bindir, "%s", dir);
    snprintf(b->peerdir, sizeof b->peerdir, "%s/peers", dir);
#ifdef BENCH_SOURCE_DIR
    snprintf(b->source, sizeof b->source, "%s", BENCH_SOURCE_DIR);
    return;
#endif
    while ((slash = strrchr(dir, '/'))) {
        *slash = '\0';
        char file[BENCH_PATH + 64];
        snprintf(b->source, sizeof b->source, "%s/tests/bench", dir);
        snprintf(file, sizeof file, "%s/peers/go_echo/main.go", b->source);
        if (access(file, R_OK) == 0)
            return;
    }
    b->source[0] = '\0';
}

int bench_main(const struct bench_program *program, int argc, char **argv)
{
    static struct bench b;
    b.program = program;
    b.begun = bench_now();
    signal(SIGPIPE, SIG_IGN);
    parse(&b, argc, argv);
    choose_cpus(&b);
    try_priorities(&b);
    find_folders(&b);
    if (program->instead && program->instead(&b))
        return b.failures != 0;
    for (size_t i = 0; i < program->cases_n; i++) {
        const struct bench_case *c = &program->cases[i];
        if (!is_wanted(c->name))
            continue;
        if (c->run)
            c->run(&b, c);
        else
            run_once(&b, c);
    }
    return b.failures != 0;
}

/* ---- processes ----------------------------------------------------------------------------- */

static _Noreturn void child_exec(const struct bench_spawn *how, int out)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (how->cpus_n) {
        cpu_set_t set;
        CPU_ZERO(&set);
        for (int i = 0; i < how->cpus_n; i++)
            CPU_SET(how->cpus[i], &set);
        sched_setaffinity(0, sizeof set, &set);
    }
    /* One that does not wait for so long has gone wrong, and would keep the machine to itself. */
    struct rlimit lim = { RT_US_MAX, RT_US_MAX };
    struct sched_param fifo = { .sched_priority = how->fifo };
    if (!how->fifo || setrlimit(RLIMIT_RTTIME, &lim) < 0 ||
        sched_setscheduler(0, SCHED_FIFO, &fifo) < 0)
        setpriority(PRIO_PROCESS, 0, how->nice);
    if (getrlimit(RLIMIT_NOFILE, &lim) == 0) {
        lim.rlim_cur = lim.rlim_max;
        setrlimit(RLIMIT_NOFILE, &lim);
    }
    signal(SIGPIPE, SIG_DFL);
    int null = open("/dev/null", O_RDONLY);
    dup2(null, 0);
    dup2(out, 1);
    dup2(out, 2);
    execv(how->argv[0], (char *const *)(uintptr_t)how->argv);
    dprintf(2, "cannot start %s: %s\n", how->argv[0], strerror(errno));
    _exit(127);
}

int bench_start(struct bench_proc *p, const struct bench_spawn *how)
{
    int fds[2];
    *p = (struct bench_proc){ .pid = -1, .out = -1, .pidfd = -1 };
    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    fflush(stdout);
    p->pid = fork();
    if (p->pid == 0)
        child_exec(how, fds[1]);
    close(fds[1]);
    p->out = fds[0];
    fcntl(p->out, F_SETFL, O_NONBLOCK);
    p->pidfd = p->pid < 0 ? -1 : (int)syscall(SYS_pidfd_open, p->pid, 0);
    if (p->pidfd >= 0)
        return 0;
    int r = -errno;
    close(p->out);
    if (p->pid > 0) {
        kill(p->pid, SIGKILL);
        waitpid(p->pid, NULL, 0);
    }
    return r;
}

/* Takes in what it printed; of more than `said` holds, the latest. False: the pipe is closed. */
static bool listen_to(struct bench_proc *p)
{
    for (;;) {
        if (p->said_n == sizeof p->said - 1) {
            size_t half = sizeof p->said / 2;
            memmove(p->said, p->said + half, p->said_n - half);
            p->said_n -= half;
        }
        ssize_t n = read(p->out, p->said + p->said_n, sizeof p->said - 1 - p->said_n);
        if (n <= 0)
            return n < 0 && (errno == EAGAIN || errno == EINTR);
        p->said_n += (size_t)n;
        p->said[p->said_n] = '\0';
    }
}

/* Waits for output or its end: 1 something happened, 0 the time is over. */
static int wait_for(struct bench_proc *p, bool output, int64_t until)
{
    int64_t left = (until - bench_now()) / 1000000;
    struct pollfd fds[2] = { { .fd = p->pidfd, .events = POLLIN },
                             { .fd = output ? p->out : -1, .events = POLLIN } };
    return left > 0 && poll(fds, 2, (int)left) > 0;
}

int bench_await(struct bench_proc *p, const char *text, int ms, const char **ret_at)
{
    int64_t until = bench_now() + ms * INT64_C(1000000);
    for (bool open = true;;) {
        const char *at = strstr(p->said, text);
        if (at && strchr(at, '\n')) {
            if (ret_at)
                *ret_at = at;
            return 0;
        }
        if (!open)
            return -EPIPE;
        if (!wait_for(p, true, until))
            return -ETIMEDOUT;
        open = listen_to(p);
    }
}

static bool ended(struct bench_proc *p)
{
    struct pollfd fd = { .fd = p->pidfd, .events = POLLIN };
    return poll(&fd, 1, 0) > 0;
}

int bench_stop(struct bench_proc *p, int signo, int ms)
{
    int64_t until = bench_now() + ms * INT64_C(1000000);
    if (signo)
        kill(p->pid, signo);
    bool open = true;
    while (!ended(p)) {
        if (!wait_for(p, open, until)) {
            kill(p->pid, SIGKILL);
            break;
        }
        open = open && listen_to(p);
    }
    int status = 0;
    waitpid(p->pid, &status, 0);
    if (open)
        listen_to(p);
    close(p->out);
    close(p->pidfd);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* The sum over all threads of the number after `key` in /proc/PID/task/TID/FILE. */
static uint64_t sum_tasks(pid_t pid, const char *file, const char *key)
{
    char path[300], text[4096];
    uint64_t sum = 0;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        snprintf(path, sizeof path, "/proc/%d/task/%.20s/%s", (int)pid, e->d_name, file);
        int fd = e->d_name[0] == '.' ? -1 : open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        ssize_t n = read(fd, text, sizeof text - 1);
        close(fd);
        text[n > 0 ? n : 0] = '\0';
        const char *at = strstr(text, key);
        if (at)
            sum += strtoull(at + strlen(key), NULL, 10);
    }
    if (dir)
        closedir(dir);
    return sum;
}

uint64_t bench_cpu_ns(pid_t pid)
{
    return sum_tasks(pid, "schedstat", "");
}

uint64_t bench_switches(pid_t pid)
{
    return sum_tasks(pid, "status", "\nvoluntary_ctxt_switches:");
}

static uint64_t kib_in(const char *path, const char *key)
{
    char line[256];
    uint64_t kib = 0;
    FILE *f = fopen(path, "re");
    while (f && !kib && fgets(line, sizeof line, f))
        if (!strncmp(line, key, strlen(key)))
            kib = strtoull(line + strlen(key), NULL, 10);
    if (f)
        fclose(f);
    return kib * 1024;
}

uint64_t bench_rss(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
    uint64_t bytes = kib_in(path, "Rss:");
    if (bytes)
        return bytes;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    return kib_in(path, "VmRSS:");
}

void bench_peak_reset(void)
{
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "5", 1) != 1)
        bench_skip("the reset of peak memory", "%s", strerror(errno));
    if (fd >= 0)
        close(fd);
}

uint64_t bench_peak(void)
{
    return kib_in("/proc/self/status", "VmHWM:");
}

double bench_number(const char *text, const char *key, double otherwise)
{
    const char *at = strstr(text, key);
    if (!at)
        return otherwise;
    at += strlen(key);
    at += strspn(at, " :=");
    char *end;
    double v = strtod(at, &end);
    return end == at ? otherwise : v;
}

/* ---- echo servers under load --------------------------------------------------------------- */

/* A port that nobody has now; the server gets it a moment later. */
static int free_port(void)
{
    struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t len = sizeof sin;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&sin, sizeof sin) < 0 ||
        getsockname(fd, (struct sockaddr *)&sin, &len) < 0)
        sin.sin_port = 0;
    close(fd);
    return ntohs(sin.sin_port);
}

enum { CPU_LIST = 6 * BENCH_CPUS_MAX };

static void cpu_list(const int *cpus, int n, char text[CPU_LIST])
{
    size_t at = 0;
    text[0] = '\0';
    for (int i = 0; i < n; i++)
        at += (size_t)snprintf(text + at, CPU_LIST - at, i ? ",%d" : "%d", cpus[i]);
}

int bench_server_start(struct bench *b, struct bench_proc *p, const struct bench_server *how,
                       char addr[64])
{
    char workers[16], cpus[CPU_LIST], want[32];
    snprintf(workers, sizeof workers, "%d", how->workers);
    snprintf(want, sizeof want, "127.0.0.1:%d", free_port());
    cpu_list(how->cpus, how->cpus_n, cpus);
    const char *argv[ARGS_MAX] = { how->path, want, "--workers", workers, "--cpu", cpus };
    int n = 6;
    for (const char *const *more = how->more; more && *more && n < ARGS_MAX - 2;)
        argv[n++] = *more++;
    argv[n] = how->stats ? "--stats" : NULL;
    int nice = how->shared_cpu ? (b->raised ? 0 : -RAISED_NICE) : b->raised ? RAISED_NICE : 0;
    struct bench_spawn spawn = { argv, how->cpus, how->cpus_n, nice,
                                 how->realtime && b->realtime ? FIFO_SERVER : 0 };
    const char *at;
    if (access(how->path, X_OK) < 0) {
        bench_skip(how->path, "it is not there; build it first");
        return -ENOENT;
    }
    int r = bench_start(p, &spawn);
    if (r < 0)
        return r;
    r = bench_await(p, "listening on ", 10000, &at);
    if (r < 0) {
        bench_stop(p, SIGKILL, 1000);
        bench_skip(how->path, "it did not say \"listening on\" (%s). It said: %s", strerror(-r),
                   p->said);
        return r;
    }
    at += strlen("listening on ");
    snprintf(addr, 64, "%.*s", (int)strcspn(at, " \r\n"), at);
    const char *port = strrchr(addr, ':');
    if (!port || atoi(port + 1) == 0)
        snprintf(addr, 64, "%s", want);
    return 0;
}

/* echo_load's command line. */
struct words {
    const char *argv[ARGS_MAX];
    int n;
    char text[ARGS_MAX][32];
};

static void __attribute__((format(printf, 3, 4)))
word(struct words *w, const char *option, const char *fmt, ...)
{
    va_list ap;
    w->argv[w->n++] = option;
    va_start(ap, fmt);
    vsnprintf(w->text[w->n], sizeof w->text[0], fmt, ap);
    va_end(ap);
    w->argv[w->n] = w->text[w->n];
    w->n++;
}

static void load_words(struct words *w, const struct bench_load *load)
{
    word(w, "--conns", "%d", load->conns);
    word(w, "--idle", "%d", load->idle);
    word(w, "--threads", "%d", load->threads ? load->threads : 1);
    word(w, "--size", "%d", load->size ? load->size : 64);
    word(w, "--warmup", "%.3f", load->warmup);
    word(w, "--seconds", "%.3f", load->seconds);
    if (load->watch)
        word(w, "--pid", "%d", (int)load->watch);
    if (load->rate > 0) {
        word(w, "--rate", "%.1f", load->rate);
        word(w, "--seed", "%d", load->seed);
    }
    if (load->spin_us) {
        word(w, "--spin", "%d", load->spin_us);
        word(w, "--share", "%.6f", load->share);
        word(w, "--spread", "%s", load->even ? "even" : "random");
    }
}

int bench_load_start(struct bench *b, struct bench_proc *p, const char *addr,
                     const struct bench_load *load)
{
    char path[BENCH_PATH + 64], cpus[CPU_LIST];
    snprintf(path, sizeof path, "%s/../../examples/echo_load", b->bindir);
    cpu_list(load->cpus, load->cpus_n, cpus);
    struct words w = { .argv = { path, addr, "--json", "--cpu", cpus }, .n = 5 };
    load_words(&w, load);
    struct bench_spawn spawn = { w.argv, load->cpus, load->cpus_n, b->raised ? RAISED_NICE : 0,
                                 load->realtime && b->realtime ? FIFO_LOAD : 0 };
    if (load->realtime && !b->realtime)
        word(&w, "--nice", "%d", spawn.nice); /* preempts quickly, at least */
    int r = bench_start(p, &spawn);
    if (r < 0)
        return r;
    r = bench_await(p, "\"event\":\"open\"", 60000, NULL);
    if (r < 0) {
        bench_stop(p, SIGKILL, 1000);
        bench_skip("echo_load", "its connections did not open. It said: %s", p->said);
    }
    return r;
}

int bench_load_run(struct bench *b, const char *addr, const struct bench_load *load,
                   struct bench_loaded *ret_loaded)
{
    struct bench_proc p;
    int r = bench_load_start(b, &p, addr, load);
    if (r < 0)
        return -EIO;
    r = bench_stop(&p, 0, (int)((load->warmup + load->seconds) * 1000) + 10000);
    const char *line = strstr(p.said, "\"req_per_s\"");
    if (r != 0 || !line) {
        bench_skip("echo_load", "it ended with status %d. It said: %s", r, p.said);
        return -EIO;
    }
    static bool warned;
    if (load->watch && !warned && strstr(p.said, "\"cpu_clock\":\"schedstat\"")) {
        warned = true;
        bench_skip("perf's task clock", "it is not permitted (kernel.perf_event_paranoid), so CPU "
                   "time comes from schedstat, which says too little on a busy machine");
    }
    bool plain = load->plain;
    *ret_loaded = (struct bench_loaded){
        .cpu_ns_per_req = bench_number(p.said, "\"server_cpu_ns_per_req\"", 0),
        .load_cpu_ns_per_req = bench_number(p.said, "\"load_cpu_ns_per_req\"", 0),
        .req_per_s = bench_number(p.said, "\"req_per_s\"", 0),
        .p50_us = bench_number(p.said, plain ? "\"plain_p50_us\"" : "\"p50_us\"", 0),
        .p99_us = bench_number(p.said, plain ? "\"plain_p99_us\"" : "\"p99_us\"", 0),
        .p999_us = bench_number(p.said, plain ? "\"plain_p999_us\"" : "\"p999_us\"", 0),
        .requests_all = bench_number(p.said, "\"requests_all\"", 0),
        .dropped = bench_number(p.said, "\"dropped\"", 0),
        .lag_p99_us = bench_number(p.said, "\"lag_p99_us\"", 0),
    };
    return 0;
}

/* ---- peers in other languages -------------------------------------------------------------- */

/*
 * How each is built: a script whose $0 is the name. It reads in $BENCH_SOURCE and writes
 * below $BENCH_OUT only: tokio's are copied there first, as cargo writes a lock file beside them.
 */
static const char go_build[] =
    "cd \"$BENCH_SOURCE/peers/$0\" && GO111MODULE=off GOFLAGS= GOCACHE=\"$BENCH_OUT/go\" "
    "GOPATH=\"$BENCH_OUT/go\" exec go build -o \"$BENCH_OUT/$0\" main.go";
static const char tokio_build[] =
    "mkdir -p \"$BENCH_OUT/tokio_source\" && "
    "cp -Rp \"$BENCH_SOURCE/peers/tokio/.\" \"$BENCH_OUT/tokio_source\" && "
    "cd \"$BENCH_OUT/tokio_source\" && "
    "exec cargo build --release --offline --target-dir \"$BENCH_OUT/tokio\"";

static struct peer {
    const char *name, *tool, *script, *path;
    bool tried;
    char full[BENCH_PATH + 64]; /* "": not there */
} peers[] = {
    { .name = "go_echo", .tool = "go", .script = go_build, .path = "go_echo" },
    { .name = "go_sched", .tool = "go", .script = go_build, .path = "go_sched" },
    { .name = "tokio_echo", .tool = "cargo", .script = tokio_build, .path = "tokio/release/echo" },
    { .name = "tokio_sched", .tool = "cargo", .script = tokio_build,
      .path = "tokio/release/sched" },
};

static bool in_path(const char *tool)
{
    const char *path = getenv("PATH");
    while (path && *path) {
        char file[BENCH_PATH];
        size_t len = strcspn(path, ":");
        snprintf(file, sizeof file, "%.*s/%s", (int)len, path, tool);
        if (access(file, X_OK) == 0)
            return true;
        path += len + (path[len] == ':');
    }
    return false;
}

static bool tokio_is_installed(void)
{
    glob_t g;
    bool found = glob("/usr/share/cargo/registry/tokio-[0-9]*", 0, NULL, &g) == 0;
    globfree(&g);
    return found;
}

static bool peer_build(struct bench *b, struct peer *p)
{
    const char *argv[] = { "/bin/sh", "-c", p->script, p->name, NULL };
    struct bench_spawn spawn = { .argv = argv };
    struct bench_proc proc;
    setenv("BENCH_SOURCE", b->source, 1);
    setenv("BENCH_OUT", b->peerdir, 1);
    int r = bench_start(&proc, &spawn);
    if (r == 0)
        r = bench_stop(&proc, 0, BUILD_MS);
    if (r != 0)
        bench_skip(p->name, "its build failed (%d): %s", r, proc.said);
    return r == 0;
}

const char *bench_peer(struct bench *b, const char *name)
{
    struct peer *p = peers;
    while (strcmp(p->name, name) != 0)
        p++;
    if (!b->peers)
        return NULL;
    if (p->tried)
        return p->full[0] ? p->full : NULL;
    p->tried = true;
    if (!b->source[0])
        bench_skip(name, "its source was not found: the program is not below the source tree");
    else if (!in_path(p->tool))
        bench_skip(name, "there is no %s here", p->tool);
    else if (!strcmp(p->tool, "cargo") && !tokio_is_installed())
        bench_skip(name, "Debian's librust-tokio-dev is not installed");
    else if (peer_build(b, p))
        snprintf(p->full, sizeof p->full, "%s/%s", b->peerdir, p->path);
    return p->full[0] ? p->full : NULL;
}

bool bench_peer_case(struct bench *b, const char *peer, const char *case_name, int cpu,
                     struct bench_samples *ns, struct bench_samples *rss)
{
    char program[32], name[64];
    snprintf(program, sizeof program, "%s_sched", peer);
    const char *path = bench_peer(b, program);
    if (!path)
        return false;
    size_t len = strlen(case_name);
    bool two = len > 3 && !strcmp(case_name + len - 3, "_w2");
    snprintf(name, sizeof name, "%.*s", (int)(two ? len - 3 : len), case_name);
    const char *argv[] = { path, "--workers", two ? "2" : "1", name, NULL };
    struct bench_spawn spawn = { .argv = argv, .cpus = &cpu, .cpus_n = cpu >= 0,
                                 .nice = b->raised ? RAISED_NICE : 0 };
    struct bench_proc p;
    if (bench_start(&p, &spawn) < 0)
        return false;
    int r = bench_stop(&p, 0, PEER_CASE_MS);
    char got[64];
    double value, bytes;
    if (r != 0) {
        bench_skip(program, "case %s ended with status %d. It said: %s", name, r, p.said);
        return false;
    }
    if (sscanf(p.said, "%63s %lf %lf", got, &value, &bytes) != 3 || strcmp(got, name) != 0)
        return false; /* it has no such case */
    bench_add(ns, value);
    bench_add(rss, bytes);
    return true;
}
