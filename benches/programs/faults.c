/* What faults on pages of another host cost, measured from inside the program.
 *
 * Owns the access patterns. Must not know that its threads are on different hosts: it says only which thread does what. With
 * `dvm-exec --place rr` over two hosts the main thread is on one and the first thread it makes on the other.
 *
 * usage: faults read|write|ticket|parallel|scan|touch COUNT [THREADS]
 *   read      the other thread reads COUNT pages that main wrote, in random order: one latency each
 *   write     the same pages are read by both, then written by the other: one latency each
 *   ticket    COUNT hand-offs of a ticket lock between the two: time from release to acquisition
 *   parallel  THREADS threads read COUNT pages each at once: seconds for all of them, after one thread did the same alone
 *   scan      the other thread reads COUNT pages in order: seconds; with THREADS 2, twice
 *   touch     main touches COUNT fresh pages: seconds
 * prints `latency NS` lines or `seconds NAME S`
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define THREADS_MAX 64

static const char *mode;
static uint64_t count, threads = 8;
static volatile uint8_t *pages;
static uint64_t *latency, *order;
static struct { _Alignas(PAGE) atomic_int ready, go, alone; } sync_page;
static struct { _Alignas(PAGE) atomic_ullong next, serving, released_ns; } lock;

static uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static uint64_t *array(uint64_t bytes) {
    void *block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (block == MAP_FAILED) exit(2);
    return block;
}

/* Fisher-Yates, always the same. */
static void shuffle(uint64_t *numbers, uint64_t length) {
    uint64_t state = 88172645463325252ull;
    for (uint64_t i = 0; i < length; i++) numbers[i] = i;
    for (uint64_t i = length - 1; i > 0; i--) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        uint64_t other = state % (i + 1), value = numbers[i];
        numbers[i] = numbers[other];
        numbers[other] = value;
    }
}

static void print_latencies(void) {
    for (uint64_t i = 0; i < count; i++) printf("latency %llu\n", (unsigned long long)latency[i]);
}

/* The thread on the other host touches its own memory first, so that only the measured pages fault. */
static void *other(void *argument) {
    int is_write = strcmp(mode, "write") == 0, rounds = strcmp(mode, "scan") == 0 ? (int)threads : 1;
    uint64_t sum = 0;
    (void)argument;
    for (uint64_t i = 0; i < count; i++) latency[i] = 0;
    for (uint64_t i = 0; i < count; i++) sum += order[i];
    if (is_write) for (uint64_t i = 0; i < count; i++) sum += pages[i * PAGE];
    if (strcmp(mode, "scan") == 0) {
        for (int round = 0; round < rounds; round++) {
            uint64_t start = now_ns();
            for (uint64_t i = 0; i < count; i++) sum += pages[i * PAGE];
            printf("seconds scan-%d %.6f\n", round + 1, (now_ns() - start) / 1e9);
        }
        return (void *)(uintptr_t)sum;
    }
    for (uint64_t i = 0; i < count; i++) {
        volatile uint8_t *at = pages + order[i] * PAGE;
        uint64_t start = now_ns();
        if (is_write) *at = 2;
        else sum += *at;
        latency[i] = now_ns() - start;
    }
    return (void *)(uintptr_t)sum;
}

static void *ticket(void *argument) {
    uint64_t me = (uintptr_t)argument;
    for (uint64_t i = 0; i < count; i++) latency[i * 2 + me] = 0;
    sync_page.ready++;
    while (sync_page.ready < 2) usleep(100);
    for (uint64_t i = 0; i < count / 2; i++) {
        uint64_t mine = lock.next++;
        while (lock.serving != mine) __builtin_ia32_pause();
        uint64_t now = now_ns();
        if (mine > 0) latency[mine] = now - lock.released_ns;
        lock.released_ns = now_ns();
        lock.serving = mine + 1;
    }
    return NULL;
}

static void *parallel(void *argument) {
    uint64_t me = (uintptr_t)argument, sum = 0;
    sync_page.ready++;
    while (!sync_page.go) usleep(100);
    for (uint64_t i = 0; i < count; i++) sum += pages[(me * count + order[i]) * PAGE];
    return (void *)(uintptr_t)sum;
}

static void *companion(void *argument) { return argument; }

/* Each worker has a companion that ends at once: of threads placed in turn over two hosts, all workers are on the other one. */
static void run_parallel(const char *name, uint64_t first, uint64_t number) {
    pthread_t thread[THREADS_MAX], idle;
    sync_page.ready = sync_page.go = 0;
    for (uint64_t i = 0; i < number; i++) {
        pthread_create(&thread[i], NULL, parallel, (void *)(first + i));
        pthread_create(&idle, NULL, companion, NULL);
        pthread_join(idle, NULL);
    }
    while (sync_page.ready < (int)number) usleep(100);
    uint64_t start = now_ns();
    sync_page.go = 1;
    for (uint64_t i = 0; i < number; i++) pthread_join(thread[i], NULL);
    printf("seconds %s %.6f\n", name, (now_ns() - start) / 1e9);
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    mode = argv[1];
    count = strtoull(argv[2], NULL, 10);
    if (argc > 3) threads = strtoull(argv[3], NULL, 10);
    if (count == 0 || threads == 0 || threads + 1 > THREADS_MAX) return 2;
    uint64_t total = strcmp(mode, "parallel") == 0 ? count * (threads + 1) : count;
    pages = (uint8_t *)array(total * PAGE);
    if (strcmp(mode, "touch") == 0) {
        uint64_t start = now_ns();
        for (uint64_t i = 0; i < count; i++) pages[i * PAGE] = 1;
        printf("seconds touch %.6f\n", (now_ns() - start) / 1e9);
        return 0;
    }
    latency = array((count + 1) * 16);
    order = array(count * 8);
    shuffle(order, count);
    /* Not zero, or they would not travel. */
    for (uint64_t i = 0; i < total; i++) pages[i * PAGE] = 1;
    pthread_t thread;
    if (strcmp(mode, "parallel") == 0) {
        run_parallel("one", 0, 1);
        run_parallel("all", 1, threads);
    } else if (strcmp(mode, "ticket") == 0) {
        pthread_create(&thread, NULL, ticket, (void *)1);
        ticket(NULL);
        pthread_join(thread, NULL);
        print_latencies();
    } else {
        pthread_create(&thread, NULL, other, NULL);
        pthread_join(thread, NULL);
        if (strcmp(mode, "scan") != 0) print_latencies();
    }
    return 0;
}
