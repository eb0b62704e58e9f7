/* SPDX-License-Identifier: MIT */
/*
 * cpus_test.c -- sched/cpus.c: lists of CPUs, how many and which this process may use, and turns.
 *
 * Machines that are not at hand are trees of files below a folder of the test's own.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/stat.h>

#include "sched/cpus.h"

/* ---- lists ---- */

static void check_list(const char *list, const int *want, int n)
{
    int got[8] = { -1, -1, -1, -1, -1, -1, -1, -1 };
    CHECK_EQ(reeve_cpus_parse(list, got, 8), n);
    for (int i = 0; i < n; i++)
        CHECK_EQ(got[i], want[i]);
    CHECK_EQ(got[n], -1);
}

TEST(a_list_is_numbers_and_ranges_in_their_order)
{
    check_list("0", (int[]){ 0 }, 1);
    check_list("0-3,5", (int[]){ 0, 1, 2, 3, 5 }, 5);
    check_list("8,0-1", (int[]){ 8, 0, 1 }, 3);
    check_list("7-7", (int[]){ 7 }, 1);
    check_list("1023", (int[]){ 1023 }, 1);
    check_list("007", (int[]){ 7 }, 1);
    check_list("2,2,0-2", (int[]){ 2, 2, 0, 1, 2 }, 5); /* named twice: two turns */
}

TEST(a_malformed_list_is_refused_and_writes_nothing)
{
    static const char *const bad[] = {
        "",     ",",   "0,",   ",0",   "0,,1", "1-",   "-1",    "3-2",  "0-1-2", " 0",
        "0 ",   "0\n", "0, 1", "x",    "0x1",  "1024", "0-1024", "+1",  "99999999999999999999",
        "0-4294967296", "1.5", "0;1", "4-",
    };
    int cpus[2000];
    for (int i = 0; i < 2000; i++)
        cpus[i] = -7;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (reeve_cpus_parse(bad[i], cpus, 2000) != -EINVAL)
            check_failed(__FILE__, __LINE__, "\"%s\" is not refused", bad[i]);
    CHECK_EQ(reeve_cpus_parse(NULL, cpus, 2000), -EINVAL);
    for (int i = 0; i < 2000; i++)
        CHECK_EQ(cpus[i], -7);
}

TEST(a_list_longer_than_its_room_is_refused_and_writes_nothing)
{
    int cpus[4] = { -7, -7, -7, -7 };
    CHECK_EQ(reeve_cpus_parse("0-3", cpus, 3), -ERANGE);
    CHECK_EQ(reeve_cpus_parse("0,1,2,3", cpus, 3), -ERANGE);
    CHECK_EQ(reeve_cpus_parse("0", cpus, 0), -ERANGE);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(cpus[i], -7);
    CHECK_EQ(reeve_cpus_parse("0-3", cpus, 4), 4);
    CHECK_EQ(cpus[3], 3);
    CHECK_EQ(reeve_cpus_parse("3", cpus, UINT_MAX), 1);
}

/* ---- trees of files ---- */

static char root[64];

static void make_tree(void)
{
    snprintf(root, sizeof root, "/tmp/reeve_cpus_XXXXXX");
    CHECK(mkdtemp(root) != NULL);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static void drop_tree(void)
{
    CHECK_EQ(nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

/* Writes the text to the file below the tree, and makes the folders on the way. */
static void __attribute__((format(printf, 2, 3))) put(const char *text, const char *fmt, ...)
{
    char path[2048];
    int len = snprintf(path, sizeof path, "%s", root);
    va_list args;
    va_start(args, fmt);
    vsnprintf(path + len, sizeof path - (size_t)len, fmt, args);
    va_end(args);
    for (char *p = path + len + 1; (p = strchr(p, '/')) != NULL; *p++ = '/') {
        *p = 0;
        CHECK(mkdir(path, 0755) == 0 || errno == EEXIST);
    }
    FILE *f = fopen(path, "we");
    CHECK(f != NULL);
    fprintf(f, "%s\n", text);
    CHECK_EQ(fclose(f), 0);
}

static void put_number(int n, const char *folder, int cpu, const char *file)
{
    char text[32];
    snprintf(text, sizeof text, "%d", n);
    put(text, "/sys/devices/system/cpu/cpu%d/%s/%s", cpu, folder, file);
}

/* ---- quotas ---- */

TEST(without_cgroups_there_is_no_quota)
{
    make_tree();
    CHECK_EQ(rv_cpus_quota(root), 0);
    put("0::/", "/proc/self/cgroup");
    CHECK_EQ(rv_cpus_quota(root), 0);
    put("nonsense\n\n:\n::", "/proc/self/cgroup");
    CHECK_EQ(rv_cpus_quota(root), 0);
    drop_tree();
}

TEST(a_quota_counts_whole_cpus_rounded_up)
{
    static const struct {
        const char *max;
        unsigned cpus;
    } given[] = {
        { "max 100000", 0 },     { "100000 100000", 1 }, { "100001 100000", 2 },
        { "1000 100000", 1 },    { "350000 100000", 4 }, { "400000 100000", 4 },
        { "9000000 1000", 1024 }, { "50000 0", 0 },       { "junk", 0 },
        { "9223372036854775807 1", 1024 },
    };
    make_tree();
    put("0::/", "/proc/self/cgroup");
    for (size_t i = 0; i < sizeof given / sizeof *given; i++) {
        put(given[i].max, "/sys/fs/cgroup/cpu.max");
        CHECK_EQ(rv_cpus_quota(root), given[i].cpus);
    }
    drop_tree();
}

TEST(the_tightest_quota_from_the_group_up_to_the_mount_counts)
{
    make_tree();
    put("0::/outer/inner.slice/it", "/proc/self/cgroup");
    put("max 100000", "/sys/fs/cgroup/outer/inner.slice/it/cpu.max");
    CHECK_EQ(rv_cpus_quota(root), 0);
    put("800000 100000", "/sys/fs/cgroup/outer/cpu.max");
    CHECK_EQ(rv_cpus_quota(root), 8);
    put("300000 100000", "/sys/fs/cgroup/outer/inner.slice/it/cpu.max");
    CHECK_EQ(rv_cpus_quota(root), 3);
    put("200000 100000", "/sys/fs/cgroup/outer/inner.slice/cpu.max");
    CHECK_EQ(rv_cpus_quota(root), 2);
    put("100000 100000", "/sys/fs/cgroup/outer/other/cpu.max"); /* not ours */
    CHECK_EQ(rv_cpus_quota(root), 2);
    put("100000 100000", "/sys/fs/cgroup/cpu.max");
    CHECK_EQ(rv_cpus_quota(root), 1);
    drop_tree();
}

/* In a container the mount begins at the container's own group, which /proc names all the same. */
TEST(a_group_that_is_not_mounted_here_is_skipped)
{
    make_tree();
    put("0::/docker/0123456789abcdef", "/proc/self/cgroup");
    put("150000 100000", "/sys/fs/cgroup/cpu.max");
    CHECK_EQ(rv_cpus_quota(root), 2);
    char line[3000] = "0::";
    for (int i = 0; i < 250; i++)
        strcat(line, "/abcdefghi"); /* too long to look at, its parents are not */
    put(line, "/proc/self/cgroup");
    put("100000 100000", "/sys/fs/cgroup/abcdefghi/cpu.max");
    CHECK_EQ(rv_cpus_quota(root), 1);
    drop_tree();
}

TEST(the_first_version_of_cgroups_has_its_quota_in_two_files)
{
    make_tree();
    put("12:memory:/a\n4:cpu,cpuacct:/a/b\n3:cpuset:/a\n1:name=systemd:/a", "/proc/self/cgroup");
    put("-1", "/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us");
    put("100000", "/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us");
    CHECK_EQ(rv_cpus_quota(root), 0);
    put("250000", "/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us");
    CHECK_EQ(rv_cpus_quota(root), 3);
    put("50000", "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us");
    put("50000", "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us");
    CHECK_EQ(rv_cpus_quota(root), 1);
    put("1000", "/sys/fs/cgroup/cpuset/a/cpu.cfs_quota_us");
    put("7:cpu:/a", "/proc/self/cgroup");
    CHECK_EQ(rv_cpus_quota(root), 0); /* nothing is mounted under this name */
    put("200000", "/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us");
    put("100000", "/sys/fs/cgroup/cpu/a/cpu.cfs_period_us");
    CHECK_EQ(rv_cpus_quota(root), 2);
    put("7:cpuacct,cpu:/a", "/proc/self/cgroup");
    CHECK_EQ(rv_cpus_quota(root), 2); /* under one of its names */
    put("7:cpuacct:/a", "/proc/self/cgroup");
    CHECK_EQ(rv_cpus_quota(root), 0);
    drop_tree();
}

TEST(of_both_versions_the_tighter_quota_counts)
{
    make_tree();
    put("4:cpu,cpuacct:/a\n0::/b", "/proc/self/cgroup");
    put("300000", "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us");
    put("100000", "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us");
    CHECK_EQ(rv_cpus_quota(root), 3);
    put("200000 100000", "/sys/fs/cgroup/unified/b/cpu.max");
    CHECK_EQ(rv_cpus_quota(root), 2);
    drop_tree();
}

static cpu_set_t set_of(const char *list)
{
    int cpus[RV_CPUS_MAX];
    int n = reeve_cpus_parse(list, cpus, RV_CPUS_MAX);
    CHECK_GT(n, 0);
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i = 0; i < n; i++)
        CPU_SET(cpus[i], &set);
    return set;
}

TEST(affinity_and_quota_both_bound_the_number_of_cpus)
{
    cpu_set_t four = set_of("1,3,5,7");
    make_tree();
    CHECK_EQ(rv_cpus_count(root, &four), 4);
    put("0::/", "/proc/self/cgroup");
    put("300000 100000", "/sys/fs/cgroup/cpu.max");
    CHECK_EQ(rv_cpus_count(root, &four), 3);
    put("900000 100000", "/sys/fs/cgroup/cpu.max");
    CHECK_EQ(rv_cpus_count(root, &four), 4);
    put("1 100000", "/sys/fs/cgroup/cpu.max");
    CHECK_EQ(rv_cpus_count(root, &four), 1);
    drop_tree();
}

/* ---- topology ---- */

/* A CPU whose core has two, id and twin, and whose cache begins at CPU `cache`. */
static void put_cpu(int id, int twin, int package, int core, int cache)
{
    char list[32];
    snprintf(list, sizeof list, "%d,%d", id < twin ? id : twin, id < twin ? twin : id);
    put(list, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", id);
    put_number(core, "topology", id, "core_id");
    put_number(package, "topology", id, "physical_package_id");
    snprintf(list, sizeof list, "%d-%d", cache, cache + 1);
    put(list, "/sys/devices/system/cpu/cpu%d/cache/index2/shared_cpu_list", id); /* no last one */
    put(list, "/sys/devices/system/cpu/cpu%d/cache/index3/shared_cpu_list", id);
}

/* Two sockets, each a NUMA node with four cores of two CPUs and two caches. CPUs are numbered as
 * many machines do it: first one of each core, sockets by turns, then the second ones. So socket 0
 * has 0, 2, 4, 6 and their twins 8, 10, 12, 14; its caches hold {0, 2} and {4, 6}. */
static void make_big_machine(void)
{
    make_tree();
    for (int id = 0; id < 16; id++) {
        int first = id % 8;
        put_cpu(id, id < 8 ? id + 8 : id - 8, id % 2, first / 2, first % 2 + first / 4 * 4);
    }
    put("0-1,4", "/sys/devices/system/node/online");
    put("0,2,4,6,8,10,12,14", "/sys/devices/system/node/node0/cpulist");
    put("1,3,5,7,9,11,13,15", "/sys/devices/system/node/node1/cpulist");
    put("", "/sys/devices/system/node/node4/cpulist"); /* memory alone */
}

static struct rv_topology topology;

static void check_order(const char *allowed, const int *want)
{
    cpu_set_t set = set_of(allowed);
    rv_topology_read(&topology, root, &set);
    CHECK_EQ(topology.n, CPU_COUNT(&set));
    for (unsigned i = 0; i < topology.n; i++)
        CHECK_EQ(topology.cpu[i].id, want[i]);
}

TEST(the_order_takes_each_core_once_first_and_keeps_neighbours_together)
{
    make_big_machine();
    check_order("0-15", (int[]){ 0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15 });
    check_order("0-7", (int[]){ 0, 2, 4, 6, 1, 3, 5, 7 });
    check_order("5,13,7", (int[]){ 5, 7, 13 });
    check_order("1,8,9", (int[]){ 8, 1, 9 }); /* 8 is the first of its core that is allowed */
    check_order("15", (int[]){ 15 });
    drop_tree();
}

TEST(what_the_kernel_does_not_say_is_taken_to_be_all_the_same)
{
    make_tree();
    check_order("0-3,1023", (int[]){ 0, 1, 2, 3, 1023 });
    for (int i = 0; i < 4; i++)
        put_number(i / 2, "topology", i, "core_id"); /* no lists of siblings */
    put("garbage", "/sys/devices/system/node/online");
    check_order("0-3", (int[]){ 0, 2, 1, 3 });
    put_number(1, "topology", 1, "physical_package_id");
    put_number(1, "topology", 3, "physical_package_id");
    check_order("0-3", (int[]){ 0, 2, 1, 3 }); /* cores of one number in two sockets */
    CHECK_EQ(topology.cpu[2].turn, 0);
    drop_tree();
}

static unsigned distance(int a, int b)
{
    unsigned d = rv_cpus_distance(&topology, a, b);
    CHECK_EQ(rv_cpus_distance(&topology, b, a), d);
    return d;
}

TEST(a_distance_says_what_two_cpus_share)
{
    cpu_set_t set = set_of("0-14");
    make_big_machine();
    rv_topology_read(&topology, root, &set);
    CHECK_EQ(distance(3, 3), RV_SAME_CPU);
    CHECK_EQ(distance(0, 8), RV_SAME_CORE);
    CHECK_EQ(distance(0, 2), RV_SAME_CACHE);
    CHECK_EQ(distance(8, 2), RV_SAME_CACHE);
    CHECK_EQ(distance(0, 4), RV_SAME_NODE);
    CHECK_EQ(distance(0, 1), RV_FAR);
    CHECK_EQ(distance(0, 9), RV_FAR);
    CHECK_EQ(distance(0, 15), RV_FAR); /* not in it */
    CHECK_EQ(distance(0, -1), RV_FAR);
    CHECK_EQ(distance(0, 100000), RV_FAR);
    drop_tree();
}

/* ---- this machine ---- */

TEST(the_usable_cpus_are_of_the_affinity_and_as_many_as_workers_by_default)
{
    cpu_set_t set;
    int cpus[RV_CPUS_MAX], few[1];
    rv_cpus_allowed(&set);
    int n = (int)CHECK_OK(reeve_cpus_usable(cpus, RV_CPUS_MAX));
    CHECK_EQ(n, rv_cpus_usable());
    CHECK_GE(n, 1);
    for (int i = 0; i < n; i++) {
        CHECK(CPU_ISSET(cpus[i], &set));
        CPU_CLR(cpus[i], &set); /* each once */
    }
    CHECK_EQ(reeve_cpus_usable(few, 1), 1);
    CHECK_EQ(few[0], cpus[0]);
    CHECK_EQ(reeve_cpus_usable(few, 0), -EINVAL);
}

TEST(a_narrower_affinity_leaves_fewer_cpus)
{
    cpu_set_t one;
    int cpus[RV_CPUS_MAX];
    int n = (int)CHECK_OK(reeve_cpus_usable(cpus, RV_CPUS_MAX));
    int last = cpus[n - 1];
    CPU_ZERO(&one);
    CPU_SET(last, &one);
    CHECK_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    CHECK_EQ(reeve_cpus_usable(cpus, RV_CPUS_MAX), 1);
    CHECK_EQ(cpus[0], last);
    CHECK_EQ(rv_cpus_usable(), 1);
}

/* ---- turns ---- */

TEST(a_placer_goes_round_its_list)
{
    static const int list[] = { 4, 2, 2, 9 };
    struct reeve_placer p;
    CHECK_EQ(reeve_placer_init(&p, list, 4), 0);
    for (int i = 0; i < 20; i++)
        CHECK_EQ(reeve_placer_next(&p), list[i % 4]);
    CHECK_EQ(reeve_placer_init(&p, list, 1), 0);
    for (int i = 0; i < 5; i++)
        CHECK_EQ(reeve_placer_next(&p), 4);
}

TEST(a_placer_without_a_list_says_so)
{
    static const int bad[] = { 1, -1, 1024 };
    struct reeve_placer zero = { 0 }, kept = { .cpus = bad, .count = 1, .opaque = 5 };
    CHECK_EQ(reeve_placer_next(&zero), -EINVAL);
    CHECK_EQ(reeve_placer_init(&kept, bad, 0), -EINVAL);
    CHECK_EQ(reeve_placer_init(&kept, NULL, 3), -EINVAL);
    CHECK_EQ(reeve_placer_init(&kept, bad, 2), -EINVAL);
    CHECK_EQ(reeve_placer_init(&kept, bad + 2, 1), -EINVAL);
    CHECK(kept.cpus == bad);
    CHECK_EQ(kept.count, 1);
    CHECK_EQ(reeve_placer_next(&kept), 1);
}

enum { THREADS = 4, TURNS = 30000 };

struct counter {
    struct reeve_placer *placer;
    unsigned seen[3];
};

static void *take_turns(void *arg)
{
    struct counter *c = arg;
    for (int i = 0; i < TURNS; i++)
        c->seen[reeve_placer_next(c->placer)]++;
    return NULL;
}

TEST(many_threads_take_each_turn_once)
{
    static const int list[] = { 0, 1, 1, 2 };
    struct reeve_placer p;
    pthread_t threads[THREADS];
    struct counter c[THREADS] = { 0 };
    unsigned seen[3] = { 0 };
    CHECK_EQ(reeve_placer_init(&p, list, 4), 0);
    for (int i = 0; i < THREADS; i++) {
        c[i].placer = &p;
        CHECK_EQ(pthread_create(&threads[i], NULL, take_turns, &c[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
        for (int k = 0; k < 3; k++)
            seen[k] += c[i].seen[k];
    }
    CHECK_EQ(seen[0], THREADS * TURNS / 4);
    CHECK_EQ(seen[1], THREADS * TURNS / 2);
    CHECK_EQ(seen[2], THREADS * TURNS / 4);
}
