// Waiting for descriptors: poll, select, epoll.
#include "check.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>

static int ends[2];
static int queue;
static struct epoll_event events[8];

BEHAVIOUR(poll_sees_write_of_other_host)
{
    pipe(ends);
    pthread_t waiter = START(1, { struct pollfd wait[2] = {{ends[0], POLLIN, 0}, {ends[1], 0, 0}}; SHOW(poll(wait, 2, 5000)); SHOW(wait[0].revents == POLLIN); SHOW(wait[1].revents); });
    ms(40);
    ON(2, { write(ends[1], "x", 1); });
    join(waiter);
}

BEHAVIOUR(poll_times_out)
{
    pipe(ends);
    ON(1, { struct pollfd wait = {ends[0], POLLIN, 0}; long begin = now_ms(); SHOW(poll(&wait, 1, 40)); YES(now_ms() - begin >= 39); SHOW(poll(&wait, 1, 0)); SHOW(poll(NULL, 0, 10)); });
}

BEHAVIOUR(poll_reports_hangup_and_bad)
{
    pipe(ends);
    close(ends[1]);
    ON(1, { struct pollfd wait[3] = {{ends[0], POLLIN, 0}, {99, POLLIN, 0}, {-1, POLLIN, 55}}; SHOW(poll(wait, 3, 1000)); SHOW((wait[0].revents & POLLHUP) != 0); SHOW(wait[1].revents == POLLNVAL); SHOW(wait[2].revents); });
}

BEHAVIOUR(ppoll_leaves_time)
{
    ON(1, { struct timespec limit = {0, 20000000}; SHOW(ppoll(NULL, 0, &limit, NULL)); SHOW(limit.tv_nsec); limit.tv_nsec = -1; TRY(ppoll(NULL, 0, &limit, NULL)); });
}

BEHAVIOUR(select_sees_write_of_other_host)
{
    pipe(ends);
    pthread_t waiter = START(1, {
        fd_set in;
        fd_set out;
        FD_ZERO(&in);
        FD_ZERO(&out);
        FD_SET(ends[0], &in);
        FD_SET(ends[1], &out);
        struct timeval limit = {5, 0};
        SHOW(select(ends[1] + 1, NULL, &out, NULL, &limit));
        SHOW(FD_ISSET(ends[1], &out));
        SHOW(select(ends[0] + 1, &in, NULL, NULL, &limit));
        SHOW(FD_ISSET(ends[0], &in));
        YES(limit.tv_sec < 5);
    });
    ms(40);
    ON(2, { write(ends[1], "x", 1); });
    join(waiter);
}

BEHAVIOUR(select_times_out_and_fails)
{
    pipe(ends);
    ON(1, {
        fd_set in;
        FD_ZERO(&in);
        FD_SET(ends[0], &in);
        struct timeval limit = {0, 30000};
        SHOW(select(ends[0] + 1, &in, NULL, NULL, &limit));
        SHOW(FD_ISSET(ends[0], &in));
        SHOW(limit.tv_usec);
        FD_SET(20, &in);
        TRY(select(21, &in, NULL, NULL, &limit));
        TRY(select(-1, NULL, NULL, NULL, &limit));
    });
}

BEHAVIOUR(pselect_times_out)
{
    ON(1, { struct timespec limit = {0, 20000000}; SHOW(pselect(0, NULL, NULL, NULL, &limit, NULL)); SHOW(limit.tv_nsec); });
}

BEHAVIOUR(epoll_wakes_for_other_host)
{
    pipe(ends);
    queue = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x123456789abcdef};
    TRY(epoll_ctl(queue, EPOLL_CTL_ADD, ends[0], &event));
    pthread_t waiter = START(1, { SHOW(epoll_wait(queue, events, 8, 5000)); SHOW(events[0].events == EPOLLIN); YES(events[0].data.u64 == 0x123456789abcdef); });
    ms(40);
    ON(2, { write(ends[1], "x", 1); });
    join(waiter);
}

BEHAVIOUR(epoll_edge_triggers_once)
{
    pipe(ends);
    queue = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    epoll_ctl(queue, EPOLL_CTL_ADD, ends[0], &event);
    write(ends[1], "x", 1);
    ON(1, { SHOW(epoll_wait(queue, events, 8, 1000)); SHOW(epoll_wait(queue, events, 8, 10)); });
    write(ends[1], "y", 1);
    ON(2, { SHOW(epoll_wait(queue, events, 8, 1000)); });
}

BEHAVIOUR(epoll_one_shot_is_armed_again)
{
    pipe(ends);
    queue = epoll_create1(0);
    static struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT};
    epoll_ctl(queue, EPOLL_CTL_ADD, ends[0], &event);
    write(ends[1], "x", 1);
    ON(1, { SHOW(epoll_wait(queue, events, 8, 1000)); SHOW(epoll_wait(queue, events, 8, 10)); TRY(epoll_ctl(queue, EPOLL_CTL_MOD, ends[0], &event)); });
    ON(2, { SHOW(epoll_wait(queue, events, 8, 1000)); });
}

BEHAVIOUR(epoll_bad_calls)
{
    pipe(ends);
    queue = epoll_create1(0);
    ON(1, {
        struct epoll_event event = {.events = EPOLLIN};
        TRY(epoll_ctl(queue, EPOLL_CTL_MOD, ends[0], &event));
        TRY(epoll_ctl(queue, EPOLL_CTL_DEL, ends[0], NULL));
        TRY(epoll_ctl(queue, EPOLL_CTL_ADD, ends[0], &event));
        TRY(epoll_ctl(queue, EPOLL_CTL_ADD, ends[0], &event));
        TRY(epoll_ctl(queue, EPOLL_CTL_ADD, queue, &event));
        TRY(epoll_ctl(queue, EPOLL_CTL_ADD, 99, &event));
        TRY(epoll_wait(queue, events, 0, 0));
        TRY(epoll_wait(ends[0], events, 1, 0));
        TRY(epoll_create1(99));
        TRY(epoll_ctl(queue, EPOLL_CTL_ADD, open("f", O_CREAT | O_RDWR, 0600), &event));
    });
}

BEHAVIOUR(epoll_of_several_waiters)
{
    static _Atomic int taken;
    queue = epoll_create1(0);
    ends[0] = eventfd(0, EFD_NONBLOCK | EFD_SEMAPHORE);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(queue, EPOLL_CTL_ADD, ends[0], &event);
    void *body(void *argument)
    {
        struct epoll_event own[2];
        uint64_t value;
        while (taken < 30)
            if (epoll_wait(queue, own, 2, 20) > 0 && read(ends[0], &value, 8) == 8)
                taken++;
        return argument;
    }
    pthread_t threads[3];
    for (int at = 0; at < 3; at++)
        threads[at] = start_on(at + 1, body, NULL);
    for (int at = 0; at < 30; at++)
        eventfd_write(ends[0], 1);
    for (int at = 0; at < 3; at++)
        join(threads[at]);
    SHOW(taken);
}

BEHAVIOUR(epoll_nests)
{
    static int outer;
    pipe(ends);
    queue = epoll_create1(0);
    outer = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(queue, EPOLL_CTL_ADD, ends[0], &event);
    epoll_ctl(outer, EPOLL_CTL_ADD, queue, &event);
    write(ends[1], "x", 1);
    ON(1, { SHOW(epoll_wait(outer, events, 8, 1000)); });
}

BEHAVIOUR(epoll_many_events_at_once)
{
    queue = epoll_create1(0);
    for (int at = 0; at < 6; at++) {
        struct epoll_event event = {.events = EPOLLOUT | EPOLLIN, .data.u32 = at};
        epoll_ctl(queue, EPOLL_CTL_ADD, eventfd(at, 0), &event);
    }
    ON(1, { int readable = 0; long found = epoll_wait(queue, events, 8, 0); SHOW(found); for (int at = 0; at < found; at++) readable += (events[at].events & EPOLLIN) != 0; SHOW(readable); SHOW(epoll_wait(queue, events, 2, 0)); });
}

BEHAVIOUR(epoll_pwait2_takes_nanoseconds)
{
    queue = epoll_create1(0);
    ON(1, { struct timespec limit = {0, 20000000}; long begin = now_ms(); SHOW(epoll_pwait2(queue, events, 8, &limit, NULL)); YES(now_ms() - begin >= 19); });
}

BEHAVIOUR(socket_becomes_writable)
{
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends);
    ON(1, { static char block[100000]; while (write(ends[0], block, sizeof block) > 0) { } struct pollfd wait = {ends[0], POLLOUT, 0}; SHOW(poll(&wait, 1, 0)); });
    pthread_t waiter = START(1, { struct pollfd wait = {ends[0], POLLOUT, 0}; SHOW(poll(&wait, 1, 5000)); });
    ON(2, { static char block[100000]; while (read(ends[1], block, sizeof block) > 0) { } });
    join(waiter);
}
