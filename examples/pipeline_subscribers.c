/* SPDX-License-Identifier: MIT */
/*
 * pipeline_subscribers.c -- results to whoever connects to the second port.
 *
 * Each subscriber is a task with a queue of texts, which all subscribers share. It hears a heading
 * once it is in the list, then every window from there on. The stage that
 * publishes never waits: who is queue_max texts behind is dropped. His socket is shut down, which
 * ends the write that he keeps waiting, and the task sees to the rest.
 */
#include "pipeline.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

/* In the hub's list until it leaves or is dropped; on its task's stack. */
struct subscriber {
    int fd;
    reeve_chan *queue; /* of struct text * */
    bool listed;
    struct subscriber *next;
};

void text_release(struct text *t)
{
    if (atomic_fetch_sub(&t->refs, 1) == 1)
        free(t);
}

/* With the hub locked. */
static void unlist(struct pipeline *p, struct subscriber *s)
{
    struct subscriber **at = &p->subscribers;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    s->listed = false;
}

static void drop(struct pipeline *p, struct subscriber *s)
{
    struct linger at_once = { .l_onoff = 1 };
    unlist(p, s);
    reeve_chan_close(s->queue);
    setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once); /* keep nothing for him */
    shutdown(s->fd, SHUT_RDWR);
    count(&p->dropped, 1);
}

void publish(struct pipeline *p, struct text *t)
{
    if (t->len == 0 || reeve_mutex_lock(&p->hub, 0) < 0)
        return;
    for (struct subscriber *s = p->subscribers, *next; s; s = next) {
        next = s->next;
        atomic_fetch_add(&t->refs, 1);
        if (reeve_chan_send(s->queue, &t, REEVE_POLL) < 0) {
            text_release(t);
            drop(p, s);
        }
    }
    reeve_mutex_unlock(&p->hub);
}

void close_hub(struct pipeline *p)
{
    if (reeve_mutex_lock(&p->hub, 0) < 0)
        return;
    p->hub_closed = true;
    for (struct subscriber *s = p->subscribers; s; s = s->next)
        reeve_chan_close(s->queue);
    reeve_mutex_unlock(&p->hub);
}

static int join_hub(struct pipeline *p, struct subscriber *s)
{
    int r = reeve_mutex_lock(&p->hub, 0);
    if (r < 0)
        return r;
    r = p->hub_closed ? -ESHUTDOWN : 0;
    if (r == 0) {
        s->next = p->subscribers;
        p->subscribers = s;
        s->listed = true;
        count(&p->subscribed, 1);
    }
    reeve_mutex_unlock(&p->hub);
    return r;
}

/* Whatever has happened: in the end nobody refers to it. */
static void leave_hub(struct pipeline *p, struct subscriber *s)
{
    struct text *t;
    reeve_shield(reeve_in(60 * REEVE_SEC)); /* the task may have been cancelled */
    if (reeve_mutex_lock(&p->hub, 0) < 0)
        abort(); /* nobody keeps it for more than a moment */
    if (s->listed)
        unlist(p, s);
    reeve_mutex_unlock(&p->hub);
    while (reeve_chan_recv(s->queue, &t, REEVE_POLL) == 0)
        text_release(t);
}

static const char heading[] = "# KEY COUNT SUM MIN MAX\n";

int subscriber_task(int fd, void *pipeline)
{
    struct pipeline *p = pipeline;
    struct subscriber s = { .fd = fd, .queue = reeve_chan_create(sizeof(void *), p->queue_max) };
    struct text *t;
    int bytes = 64 * 1024; /* what is queued counts, not what the kernel would take besides */
    if (!s.queue)
        return -ENOMEM;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    ssize_t r = join_hub(p, &s);
    if (r == 0)
        r = reeve_write(fd, heading, sizeof heading - 1, 0);
    while (r >= 0 && (r = reeve_chan_recv(s.queue, &t, 0)) == 0) {
        r = reeve_write(fd, t->bytes, t->len, 0);
        text_release(t);
    }
    leave_hub(p, &s);
    reeve_chan_destroy(s.queue);
    return r == -EPIPE ? 0 : (int)r;
}
