// Threads that share in pairs: 2k and 2k+1 add in turn to counters of one page, all pairs are independent. With "alone" each thread has a
// page to itself. Prints the sum, which is the same on any number of hosts, and on stderr the nanoseconds of all turns.
//
// pairs THREADS TURNS [alone|calls|signals]: with "signals" the first thread queues signals to the others meanwhile, and they keep
// values in vector registers while they wait. With "calls" each thread makes a system call now and then, takes a mutex around its turn,
// and keeps values in floating-point registers and in thread-local storage.
#define _GNU_SOURCE
#include <immintrin.h>
#include <pthread.h>
#include <signal.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { THREADS_MAX = 64, PAGE = 4096, WORK = 200, SPINS = 1000, TURN = 256 };

struct page {
    alignas(PAGE) _Atomic uint64_t counters[PAGE / 8];
};

static struct page pages[THREADS_MAX];
static struct {
    alignas(PAGE) pthread_mutex_t mutex;
} locks[THREADS_MAX];
static __thread uint64_t local_count;
static long turns;
static int is_alone, has_calls, has_signals;
static atomic_int failures, handled, finished;

static void handle(int signal) {
    (void)signal;
    atomic_fetch_add(&handled, 1);
}

// Waits for the turn with a value in the upper half of a vector register; false if it is another one afterwards.
__attribute__((target("avx"))) static int await_with_vector(_Atomic uint64_t *turn, long index) {
    __m256d kept = _mm256_set_pd(4.5 + index, 3.5, 2.5, 1.5 + index);
    for (long spins = 1; *turn % 2 != (uint64_t)index % 2; spins++)
        __asm__ volatile("" : "+x"(kept));
    double found[4];
    _mm256_storeu_pd(found, kept);
    return found[0] == 1.5 + index && found[1] == 2.5 && found[2] == 3.5 && found[3] == 4.5 + index;
}

static void *work(void *argument) {
    long index = (long)argument;
    struct page *page = &pages[is_alone ? index : index / 2];
    pthread_mutex_t *mutex = &locks[is_alone ? index : index / 2].mutex;
    _Atomic uint64_t *counter = &page->counters[(index % 2) * 64];
    double exact = 0.5;
    for (long turn = 0; turn < turns; turn++) {
        if (has_calls)
            pthread_mutex_lock(mutex);
        else if (has_signals && __builtin_cpu_supports("avx")) {
            if (!await_with_vector(&page->counters[TURN], index))
                atomic_fetch_add(&failures, 1);
        } else if (!is_alone)
            for (long spins = 1; page->counters[TURN] % 2 != (uint64_t)index % 2; spins++)
                if (spins % SPINS == 0)
                    sched_yield();
        atomic_fetch_add(counter, 1);
        for (volatile int spin = 0; spin < WORK; spin++)
            ;
        if (!has_calls && !is_alone)
            atomic_fetch_add(&page->counters[TURN], 1);
        if (has_calls) {
            pthread_mutex_unlock(mutex);
            exact += 1.0;
            // The compiler keeps `exact` in a register over the raw call.
            long number = 39, result;
            __asm__ volatile("syscall" : "=a"(result), "+x"(exact) : "a"(number) : "rcx", "r11", "memory");
            local_count++;
        }
    }
    if (has_calls && (exact != 0.5 + (double)turns || local_count != (uint64_t)turns))
        atomic_fetch_add(&failures, 1);
    atomic_fetch_add(&finished, 1);
    // Nobody ends before the last signal is sent.
    while (has_signals && finished <= THREADS_MAX)
        usleep(1000);
    return NULL;
}

int main(int count, char **arguments) {
    long threads = count > 1 ? atol(arguments[1]) : 4;
    turns = count > 2 ? atol(arguments[2]) : 100000;
    is_alone = count > 3 && strcmp(arguments[3], "alone") == 0;
    has_calls = count > 3 && strcmp(arguments[3], "calls") == 0;
    has_signals = count > 3 && strcmp(arguments[3], "signals") == 0;
    signal(SIGRTMIN, handle);
    pthread_t thread[THREADS_MAX];
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long index = 0; index < threads; index++) {
        pthread_mutex_init(&locks[index].mutex, NULL);
    }
    for (long index = 0; index < threads; index++)
        if (pthread_create(&thread[index], NULL, work, (void *)index) != 0)
            abort();
    long sent = 0;
    while (has_signals && finished < threads) {
        for (long index = 0; index < threads; index++, sent++)
            if (pthread_sigqueue(thread[index], SIGRTMIN, (union sigval){0}) != 0)
                abort();
        // Never more than one waits for a thread: a queue has an end.
        for (long waited = 0; handled < sent && waited < 5000; waited++)
            usleep(1000);
        if (handled != sent)
            break;
        usleep(5000);
    }
    if (has_signals) {
        for (long waited = 0; handled < sent && waited < 2000; waited++)
            usleep(1000);
        if (handled != sent)
            failures++;
        fprintf(stderr, "signals %d of %ld\n", handled, sent);
        finished = THREADS_MAX + 1;
    }
    for (long index = 0; index < threads; index++)
        pthread_join(thread[index], NULL);
    clock_gettime(CLOCK_MONOTONIC, &end);
    uint64_t sum = 0;
    for (long index = 0; index < threads; index++)
        sum += pages[index].counters[0] + pages[index].counters[64];
    printf("sum %lu failures %d\n", (unsigned long)sum, failures);
    fprintf(stderr, "all %lld\n", (end.tv_sec - start.tv_sec) * 1000000000LL + end.tv_nsec - start.tv_nsec);
    return sum != (uint64_t)(threads * turns) || failures != 0;
}
