// Signals that arrive during blocking calls: EINTR where the call says so, a restart under SA_RESTART where it may.
#include "check.h"
#include <arpa/inet.h>
#include <linux/futex.h>
#include <poll.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>

static _Atomic int handled;
static _Atomic bool is_ready;
static _Atomic bool is_over;

static void count_signal(int signal)
{
    (void)signal;
    handled++;
}

// Sends SIGUSR1 until the call has come back.
static void interrupt(pthread_t thread)
{
    UNTIL(is_ready);
    while (!is_over) {
        ms(40);
        if (!is_over)
            pthread_kill(thread, SIGUSR1);
    }
    join(thread);
    YES(handled > 0);
}

// Sends SIGUSR1 until the handler has run twice, then lets the call have what it waits for.
#define RESTART(THREAD, ...)              \
    do {                                  \
        pthread_t thread_ = THREAD;       \
        UNTIL(is_ready);                  \
        while (handled < 2) {             \
            ms(40);                       \
            pthread_kill(thread_, SIGUSR1); \
        }                                 \
        ms(40);                           \
        YES(!is_over);                    \
        __VA_ARGS__;                      \
        join(thread_);                    \
    } while (0)

// A call on a member that a signal breaks off, whatever SA_RESTART says.
#define INTERRUPTED(NAME, FLAGS, SETUP, CALL)                             \
    BEHAVIOUR(NAME)                                                       \
    {                                                                     \
        SETUP;                                                            \
        catch_signal(SIGUSR1, count_signal, FLAGS);                       \
        interrupt(START(1, { is_ready = true; TRY(CALL); is_over = true; })); \
    }

static int ends[2];
static char bytes[16];
static struct pollfd polled;
static struct epoll_event event;
static struct timespec long_time = {8, 0};
static struct timeval long_value = {8, 0};

INTERRUPTED(read_of_pipe, 0, pipe(ends), read(ends[0], bytes, 1))
INTERRUPTED(write_of_full_pipe, 0, pipe(ends), write(ends[1], map(1 << 20, PROT_READ, 0), 1 << 20) == 65536 ? 0 : -1)
INTERRUPTED(poll_despite_restart, SA_RESTART, (pipe(ends), polled = (struct pollfd){ends[0], POLLIN, 0}), poll(&polled, 1, 8000))
INTERRUPTED(ppoll_despite_restart, SA_RESTART, (pipe(ends), polled = (struct pollfd){ends[0], POLLIN, 0}), ppoll(&polled, 1, &long_time, NULL))
INTERRUPTED(select_despite_restart, SA_RESTART, , select(0, NULL, NULL, NULL, &long_value))
INTERRUPTED(pselect_despite_restart, SA_RESTART, , pselect(0, NULL, NULL, NULL, &long_time, NULL))
INTERRUPTED(epoll_wait_despite_restart, SA_RESTART, ends[0] = epoll_create1(0), epoll_wait(ends[0], &event, 1, 8000))
INTERRUPTED(nanosleep_despite_restart, SA_RESTART, , nanosleep(&long_time, NULL))
INTERRUPTED(read_of_eventfd, 0, ends[0] = eventfd(0, 0), read(ends[0], bytes, 8))
INTERRUPTED(read_of_timerfd, 0, ends[0] = timerfd_create(CLOCK_MONOTONIC, 0), read(ends[0], bytes, 8))
INTERRUPTED(recv_of_socket, 0, socketpair(AF_UNIX, SOCK_STREAM, 0, ends), recv(ends[0], bytes, 1, 0))
INTERRUPTED(recv_with_timeout_despite_restart, SA_RESTART,
            (socketpair(AF_UNIX, SOCK_STREAM, 0, ends), setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &long_value, sizeof long_value)),
            recv(ends[0], bytes, 1, 0))
INTERRUPTED(futex_wait_without_restart, 0, , syscall(SYS_futex, ends, FUTEX_WAIT, 0, NULL, NULL, 0))

static sem_t semaphore;
INTERRUPTED(sem_wait_without_restart, 0, sem_init(&semaphore, 0, 0), sem_wait(&semaphore))

static int listener(void)
{
    int server = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "socket"};
    bind(server, (struct sockaddr *)&name, sizeof name);
    listen(server, 1);
    return server;
}

INTERRUPTED(accept_without_restart, 0, ends[0] = listener(), accept(ends[0], NULL, NULL))

static int locked_file(void)
{
    ends[0] = file_with("locked", "x", 1);
    ends[1] = open("locked", O_RDWR);
    return flock(ends[0], LOCK_EX);
}

INTERRUPTED(flock_without_restart, 0, locked_file(), flock(ends[1], LOCK_EX))

static int fifo_end(void)
{
    return mkfifo("fifo", 0600);
}

INTERRUPTED(open_of_fifo_without_restart, 0, fifo_end(), open("fifo", O_RDONLY))

BEHAVIOUR(read_of_pipe_restarts)
{
    pipe(ends);
    catch_signal(SIGUSR1, count_signal, SA_RESTART);
    RESTART(START(1, { is_ready = true; TRY(read(ends[0], bytes, 16)); is_over = true; say("%s\n", bytes); }), write(ends[1], "data", 5));
}

BEHAVIOUR(recv_of_socket_restarts)
{
    socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    catch_signal(SIGUSR1, count_signal, SA_RESTART);
    RESTART(START(1, { is_ready = true; TRY(recv(ends[0], bytes, 16, 0)); is_over = true; say("%s\n", bytes); }), send(ends[1], "data", 5, 0));
}

BEHAVIOUR(accept_restarts)
{
    ends[0] = listener();
    catch_signal(SIGUSR1, count_signal, SA_RESTART);
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "socket"};
    int client = socket(AF_UNIX, SOCK_STREAM, 0);
    RESTART(START(1, { is_ready = true; TRY(accept(ends[0], NULL, NULL)); is_over = true; }), connect(client, (struct sockaddr *)&name, sizeof name));
}

BEHAVIOUR(futex_wait_restarts)
{
    static _Atomic int word;
    catch_signal(SIGUSR1, count_signal, SA_RESTART);
    RESTART(START(1, { is_ready = true; TRY(syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0)); is_over = true; }),
            syscall(SYS_futex, &word, FUTEX_WAKE, 1, NULL, NULL, 0));
}

BEHAVIOUR(flock_restarts)
{
    locked_file();
    catch_signal(SIGUSR1, count_signal, SA_RESTART);
    RESTART(START(1, { is_ready = true; TRY(flock(ends[1], LOCK_EX)); is_over = true; }), flock(ends[0], LOCK_UN));
}

BEHAVIOUR(mutex_lock_goes_on)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    catch_signal(SIGUSR1, count_signal, 0);
    pthread_mutex_lock(&mutex);
    RESTART(START(1, { is_ready = true; PTHREAD(pthread_mutex_lock(&mutex)); is_over = true; }), pthread_mutex_unlock(&mutex));
}

BEHAVIOUR(condition_wait_goes_on)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    static bool is_set;
    catch_signal(SIGUSR1, count_signal, 0);
    RESTART(START(1, {
                pthread_mutex_lock(&mutex);
                is_ready = true;
                while (!is_set)
                    pthread_cond_wait(&condition, &mutex);
                pthread_mutex_unlock(&mutex);
                is_over = true;
                say("woken\n");
            }),
            { pthread_mutex_lock(&mutex); is_set = true; pthread_cond_signal(&condition); pthread_mutex_unlock(&mutex); });
}

BEHAVIOUR(join_goes_on)
{
    static pthread_t sleeper;
    static _Atomic bool may_end;
    catch_signal(SIGUSR1, count_signal, 0);
    sleeper = START(2, { UNTIL(may_end); });
    RESTART(START(1, { is_ready = true; PTHREAD(pthread_join(sleeper, NULL)); is_over = true; }), may_end = true);
}

BEHAVIOUR(nanosleep_tells_what_is_left)
{
    static struct timespec left;
    catch_signal(SIGUSR1, count_signal, 0);
    interrupt(START(1, {
        struct timespec wanted = {9, 0};
        is_ready = true;
        TRY(nanosleep(&wanted, &left));
        is_over = true;
        YES(left.tv_sec >= 3 && left.tv_sec < 9);
    }));
}

BEHAVIOUR(absolute_sleep_is_interrupted)
{
    catch_signal(SIGUSR1, count_signal, SA_RESTART);
    interrupt(START(1, {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += 8;
        is_ready = true;
        PTHREAD(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL));
        is_over = true;
    }));
}

BEHAVIOUR(pwait_lets_blocked_signal_in)
{
    static sigset_t none;
    catch_signal(SIGUSR1, count_signal, 0);
    block_signal(SIG_BLOCK, SIGUSR1);
    ends[0] = epoll_create1(0);
    interrupt(START(1, { is_ready = true; TRY(epoll_pwait(ends[0], &event, 1, 8000, &none)); is_over = true; }));
    sigset_t set;
    pthread_sigmask(SIG_SETMASK, NULL, &set);
    SHOW(sigismember(&set, SIGUSR1));
}

BEHAVIOUR(ppoll_sees_signal_sent_before)
{
    static sigset_t none;
    catch_signal(SIGUSR1, count_signal, 0);
    ON(1, {
        block_signal(SIG_BLOCK, SIGUSR1);
        raise(SIGUSR1);
        SHOW(handled);
        TRY(ppoll(NULL, 0, &long_time, &none));
        SHOW(handled);
    });
}

BEHAVIOUR(pselect_sees_signal_sent_before)
{
    static sigset_t none;
    catch_signal(SIGUSR1, count_signal, 0);
    ON(1, { block_signal(SIG_BLOCK, SIGUSR1); raise(SIGUSR1); TRY(pselect(0, NULL, NULL, NULL, &long_time, &none)); SHOW(handled); });
}

BEHAVIOUR(blocked_signal_does_not_interrupt)
{
    pipe(ends);
    catch_signal(SIGUSR1, count_signal, 0);
    pthread_t thread = START(1, {
        block_signal(SIG_BLOCK, SIGUSR1);
        is_ready = true;
        TRY(read(ends[0], bytes, 1));
        SHOW(handled);
    });
    UNTIL(is_ready);
    ms(40);
    pthread_kill(thread, SIGUSR1);
    ms(40);
    write(ends[1], "x", 1);
    join(thread);
}

BEHAVIOUR(ignored_signal_does_not_interrupt)
{
    pipe(ends);
    signal(SIGUSR1, SIG_IGN);
    pthread_t thread = START(1, { is_ready = true; TRY(read(ends[0], bytes, 1)); });
    UNTIL(is_ready);
    ms(40);
    pthread_kill(thread, SIGUSR1);
    ms(40);
    write(ends[1], "x", 1);
    join(thread);
}

BEHAVIOUR(no_signal_is_lost_before_blocking)
{
    // A signal right before the call must still break it off: sent 100 times at all distances.
    static _Atomic int turns;
    pipe(ends);
    catch_signal(SIGUSR1, count_signal, 0);
    pthread_t thread = START(1, {
        sigset_t none;
        sigemptyset(&none);
        block_signal(SIG_BLOCK, SIGUSR1);
        for (int turn = 0; turn < 100; turn++) {
            is_ready = true;
            if (ppoll(NULL, 0, &long_time, &none) != -1 || errno != EINTR)
                say("not interrupted\n");
            turns++;
        }
    });
    for (int turn = 0; turn < 100; turn++) {
        UNTIL(is_ready);
        is_ready = false;
        usleep(turn * 20);
        pthread_kill(thread, SIGUSR1);
        UNTIL(turns > turn);
    }
    join(thread);
    SHOW(handled);
}

BEHAVIOUR(handler_between_two_reads_of_a_line)
{
    // What a partial transfer returns: bytes already moved, not EINTR.
    socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    catch_signal(SIGUSR1, count_signal, 0);
    write(ends[1], "abc", 3);
    interrupt(START(1, { is_ready = true; SHOW(recv(ends[0], bytes, 8, MSG_WAITALL)); is_over = true; }));
}

BEHAVIOUR(handler_without_restart_in_main)
{
    static pthread_t first;
    first = pthread_self();
    pipe(ends);
    catch_signal(SIGUSR1, count_signal, 0);
    pthread_t thread = START(1, { while (!is_over) { ms(40); pthread_kill(first, SIGUSR1); } });
    TRY(read(ends[0], bytes, 1));
    is_over = true;
    join(thread);
}

BEHAVIOUR(siginterrupt_switches)
{
    pipe(ends);
    signal(SIGUSR1, count_signal);
    struct sigaction action;
    sigaction(SIGUSR1, NULL, &action);
    YES((action.sa_flags & SA_RESTART) != 0);
    TRY(siginterrupt(SIGUSR1, 1));
    interrupt(START(1, { is_ready = true; TRY(read(ends[0], bytes, 1)); is_over = true; }));
}
