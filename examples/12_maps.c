/* SPDX-License-Identifier: MIT */
/*
 * 12_maps.c -- a file as memory: counts the lines of a file that others may edit meanwhile.
 *
 * Run build/release/examples/12_maps [FILE]; you will see:
 *
 *     ... lines in /etc/passwd
 *
 * The fetch waits until the next stretch of the file is in memory, and the worker runs other tasks
 * meanwhile; so counting itself never waits for the disk. If somebody cuts the file short under the
 * map, the guard turns the end of the program into an error of this one map.
 */
#include <reeve/map.h>
#include <reeve/reeve.h>
#include <stdio.h>
#include <string.h>

enum { STRETCH = 1 << 20 };

static long lines_in(const char *p, size_t len)
{
    long n = 0;
    for (const char *end = p + len; (p = memchr(p, '\n', (size_t)(end - p))) != NULL; p++)
        n++;
    return n;
}

static int count(void *path)
{
    struct reeve_map m;
    long n = 0;
    int r = reeve_map_open(&m, path, REEVE_MAP_READ, 0, 0);
    if (r < 0)
        return r;
    for (size_t at = 0; at < m.len && r == 0; at += STRETCH) {
        size_t len = m.len - at < STRETCH ? m.len - at : STRETCH;
        r = reeve_map_fetch(&m, at, len, reeve_in(10 * REEVE_SEC));
        if (r == 0)
            n += lines_in((const char *)m.data + at, len);
    }
    if (r == 0)
        r = reeve_map_ok(&m);
    if (r == 0)
        printf("%ld lines in %s\n", n, (const char *)path);
    reeve_map_close(&m);
    return r;
}

int main(int argc, char **argv)
{
    int r = reeve_map_guard();
    if (r == 0)
        r = reeve_run(count, argc > 1 ? argv[1] : "/etc/passwd", .workers = 1);
    return r < 0 ? fprintf(stderr, "12_maps: %s\n", strerror(-r)), 1 : 0;
}
