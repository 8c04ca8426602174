/* Signals at the worst moments.
 *
 * Owns two programs. Must not know that it may run on several hosts.
 * usage: signals storm N      N signals at threads that are always about to block; each is waited for, none may be lost
 *        signals clock        prints what a second thread counts in milliseconds of its own life, for ever
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define TARGETS 2
#define LATEST_S 20

static int nobody_writes[2];
static uint32_t nobody_wakes;
static sem_t handled;
static atomic_int is_over;
static atomic_ulong broken_off[4], odd;

static void on_signal(int number) {
    (void)number;
    int saved = errno;
    sem_post(&handled);
    errno = saved;
}

/* Goes from one call that only a signal ends to the next. */
static void *blocks(void *argument) {
    (void)argument;
    for (unsigned kind = 0; !is_over; kind = (kind + 1) % 4) {
        char byte;
        struct pollfd poll_read = {nobody_writes[0], POLLIN, 0};
        struct timespec long_time = {1000, 0};
        long result;
        switch (kind) {
        case 0: result = read(nobody_writes[0], &byte, 1); break;
        case 1: result = syscall(SYS_futex, &nobody_wakes, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0); break;
        case 2: result = poll(&poll_read, 1, -1); break;
        default: result = nanosleep(&long_time, NULL);
        }
        if (result == -1 && errno == EINTR) broken_off[kind]++;
        else odd++;
    }
    return NULL;
}

static int storm(long count) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    if (sigaction(SIGUSR1, &action, NULL) || pipe(nobody_writes) || sem_init(&handled, 0, 0)) return 2;
    pthread_t target[TARGETS];
    for (int i = 0; i < TARGETS; i++)
        if (pthread_create(&target[i], NULL, blocks, NULL)) return 2;
    for (long i = 0; i < count; i++) {
        pthread_kill(target[i % TARGETS], SIGUSR1);
        struct timespec latest;
        clock_gettime(CLOCK_REALTIME, &latest);
        latest.tv_sec += LATEST_S;
        while (sem_timedwait(&handled, &latest)) {
            if (errno == EINTR) continue;
            printf("signal %ld was lost\n", i);
            fflush(stdout);
            _exit(1);
        }
    }
    /* Who blocks needs a push, and one that was not blocking yet another. Nobody waits for these: a thread may end before. */
    is_over = 1;
    for (int i = 0; i < TARGETS; i++) {
        struct timespec soon;
        do {
            pthread_kill(target[i], SIGUSR1);
            clock_gettime(CLOCK_REALTIME, &soon);
            soon.tv_nsec += 100000000;
            if (soon.tv_nsec >= 1000000000) soon.tv_sec++, soon.tv_nsec -= 1000000000;
        } while (pthread_timedjoin_np(target[i], NULL, &soon));
    }
    int all = 1;
    for (int kind = 0; kind < 4; kind++) all = all && broken_off[kind] > 0;
    printf("%ld signals handled, every kind of call broken off: %s, other results: %lu\n", count, all ? "yes" : "no", odd);
    return 0;
}

static atomic_ulong milliseconds;

static void *counts(void *argument) {
    (void)argument;
    for (;;) {
        struct timespec one = {0, 1000000};
        nanosleep(&one, NULL);
        milliseconds++;
    }
    return NULL;
}

static int show_clock(void) {
    pthread_t other;
    if (pthread_create(&other, NULL, counts, NULL)) return 2;
    for (;;) {
        struct timespec tenth = {0, 100000000};
        nanosleep(&tenth, NULL);
        printf("counted %lu\n", milliseconds);
        fflush(stdout);
    }
}

int main(int count, char **words) {
    if (count == 3 && strcmp(words[1], "storm") == 0) return storm(atol(words[2]));
    if (count == 2 && strcmp(words[1], "clock") == 0) return show_clock();
    return 2;
}
