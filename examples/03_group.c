/* SPDX-License-Identifier: MIT */
/*
 * 03_group.c -- a group: the first failure cancels the rest, and nobody is left behind.
 *
 * Run build/release/examples/03_group; you will see, at once and not after an hour:
 *
 *     part 0: Operation canceled
 *     part 1: Operation canceled
 *     part 2: Input/output error
 *     part 3: Operation canceled
 *     the group: Input/output error
 *
 * A group is waited for by the task that made the first spawn into it. When the wait returns, all
 * members are done, so what they work on may be on this stack.
 */
#include <reeve/reeve.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { PARTS = 4 };

struct part {
    int number, result;
};

static int work(void *arg)
{
    struct part *p = arg;
    if (p->number == 2)
        p->result = -EIO; /* this one finds that its disk is broken */
    else
        p->result = reeve_sleep(reeve_in(3600 * REEVE_SEC));
    return p->result;
}

static int root(void *arg)
{
    (void)arg;
    reeve_group group = { 0 };
    struct part part[PARTS];
    int failed = 0;
    for (int i = 0; i < PARTS && failed == 0; i++) {
        part[i] = (struct part){ i, -ECANCELED }; /* unless it runs */
        failed = reeve_go(work, &part[i], .group = &group);
    }
    if (failed < 0)
        reeve_group_cancel(&group);
    int r = reeve_group_wait(&group, 0);
    for (int i = 0; i < PARTS && failed == 0; i++)
        printf("part %d: %s\n", i, strerror(-part[i].result));
    printf("the group: %s\n", strerror(-r));
    return failed;
}

int main(void)
{
    int r = reeve_run(root, NULL);
    return r < 0 ? fprintf(stderr, "03_group: %s\n", strerror(-r)), 1 : 0;
}
