// What every program of behaviours shares: the registry, what is printed, threads on chosen hosts.
//
// `PROGRAM --list` names the behaviours, `PROGRAM NAME` runs one. What a behaviour prints must be the same in every run:
// relations, error names and counts, never an address, a number of a process or a time.
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    HOSTS = 3,        // over which the harness runs it, threads going to one after the other
    SECONDS_MAX = 10, // after which a broken behaviour ends
    BEHAVIOURS_MAX = 64,
    PAGE = 4096,
};

typedef void *Body(void *);

struct behaviour {
    const char *name;
    void (*run)(void);
};

static struct behaviour behaviours[BEHAVIOURS_MAX];
static int behaviours_count;
// Threads started so far: the first one started is the second of the program and goes to host 1.
static unsigned threads_started;

#define HELPER static __attribute__((unused))

// Defines and registers a behaviour.
#define BEHAVIOUR(NAME)                                                            \
    static void behaviour_##NAME(void);                                            \
    static __attribute__((constructor)) void register_##NAME(void)                 \
    {                                                                              \
        behaviours[behaviours_count++] = (struct behaviour){#NAME, behaviour_##NAME}; \
    }                                                                              \
    static void behaviour_##NAME(void)

// Prints at once, with one call: no buffer is lost when the process dies.
HELPER __attribute__((format(printf, 1, 2))) void say(const char *format, ...)
{
    char text[2048];
    va_list values;
    va_start(values, format);
    int length = vsnprintf(text, sizeof text, format, values);
    va_end(values);
    long written = write(1, text, length);
    if (written != length) {
        dprintf(2, "write of %d bytes: %ld, %s\n", length, written, strerrorname_np(errno));
        _exit(99);
    }
}

// "ok", or the name of errno for a negative result.
HELPER const char *outcome(long result)
{
    return result >= 0 ? "ok" : strerrorname_np(errno);
}

// "ok", or the name of an error as pthread functions return it.
HELPER const char *named(int error)
{
    return error == 0 ? "ok" : strerrorname_np(error);
}

#define TRY(CALL) say("%s: %s\n", #CALL, outcome((long)(CALL)))
#define PTHREAD(CALL) say("%s: %s\n", #CALL, named(CALL))
#define SHOW(VALUE) say("%s: %ld\n", #VALUE, (long)(VALUE))
#define YES(CONDITION) say("%s: %s\n", #CONDITION, (CONDITION) ? "yes" : "no")

HELPER void ms(long milliseconds)
{
    struct timespec left = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR)
        ;
}

HELPER long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

#define UNTIL(CONDITION)     \
    do {                     \
        while (!(CONDITION)) \
            ms(2);           \
    } while (0)

HELPER pid_t tid(void)
{
    return syscall(SYS_gettid);
}

HELPER void *nothing(void *argument)
{
    return argument;
}

// Counts a thread that is about to be started otherwise.
HELPER void count_thread(void)
{
    threads_started++;
}

// Lets the next thread go to `host`.
HELPER void aim(unsigned host)
{
    while ((threads_started + 1) % HOSTS != host % HOSTS) {
        pthread_t idle;
        count_thread();
        if (pthread_create(&idle, NULL, nothing, NULL) != 0)
            _exit(98);
        pthread_join(idle, NULL);
    }
}

HELPER pthread_t start_on(unsigned host, Body *body, void *argument)
{
    pthread_t thread;
    aim(host);
    count_thread();
    if (pthread_create(&thread, NULL, body, argument) != 0)
        _exit(98);
    return thread;
}

HELPER void *join(pthread_t thread)
{
    void *result = NULL;
    int error = pthread_join(thread, &result);
    if (error != 0)
        say("pthread_join: %s\n", named(error));
    return result;
}

// Starts a thread on another host that executes the statements; they use statics only (no trampoline is made).
#define START(HOST, ...)                               \
    ({                                                 \
        void *body(void *argument)                     \
        {                                              \
            (void)argument;                            \
            __VA_ARGS__                                \
            return NULL;                               \
        }                                              \
        start_on(HOST, body, NULL);                    \
    })
// The same, and waits for its end.
#define ON(HOST, ...) join(START(HOST, __VA_ARGS__))

// Runs `body` with its number on threads of all hosts at once, `count` of them.
HELPER void on_each(unsigned count, Body *body)
{
    pthread_t threads[32];
    for (unsigned number = 0; number < count; number++)
        threads[number] = start_on(number + 1, body, (void *)(uintptr_t)number);
    for (unsigned number = 0; number < count; number++)
        join(threads[number]);
}

HELPER void catch_signal(int signal, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    sigaction(signal, &action, NULL);
}

HELPER void catch_info(int signal, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = flags | SA_SIGINFO};
    sigaction(signal, &action, NULL);
}

HELPER void block_signal(int how, int signal)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    pthread_sigmask(how, &set, NULL);
}

HELPER sigset_t only(int signal)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    return set;
}

// Anonymous memory.
HELPER void *map(size_t bytes, int protection, int flags)
{
    return mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
}

// A file in the current directory with these bytes, opened for reading and writing.
HELPER int file_with(const char *name, const void *bytes, size_t count)
{
    int file = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (file < 0 || write(file, bytes, count) != (ssize_t)count)
        _exit(97);
    return file;
}

// How a child ended.
HELPER void say_status(const char *who, int status)
{
    if (WIFEXITED(status))
        say("%s: exit %d\n", who, WEXITSTATUS(status));
    else if (WIFSIGNALED(status))
        say("%s: signal %s\n", who, sigabbrev_np(WTERMSIG(status)));
    else if (WIFSTOPPED(status))
        say("%s: stopped by %s\n", who, sigabbrev_np(WSTOPSIG(status)));
    else
        say("%s: continued\n", who);
}

int main(int count, char **words)
{
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    if (count == 2 && strcmp(words[1], "--list") == 0) {
        for (int at = 0; at < behaviours_count; at++)
            puts(behaviours[at].name);
        return 0;
    }
    for (int at = 0; count >= 2 && at < behaviours_count; at++) {
        if (strcmp(words[1], behaviours[at].name) == 0) {
            alarm(SECONDS_MAX);
            behaviours[at].run();
            return 0;
        }
    }
    fprintf(stderr, "usage: %s --list | NAME\n", words[0]);
    return 2;
}

#endif
