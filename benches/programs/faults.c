/* What faults on pages of another host cost, measured from inside the program.
 *
 * Owns the access patterns. Must not know that its threads are on different hosts: it says only which thread does what. With
 * `dvm-exec --place rr` over two hosts the main thread is on one and all that `start_there` makes on the other.
 *
 * usage: faults read|write|ticket|parallel|scan|beside|clean|hops|touch COUNT [NUMBER]
 *   read      the other thread reads COUNT pages that main wrote, in random order: one `latency` each
 *   write     the same pages are read by both, then written by the other: one `latency` each
 *   ticket    a ticket lock goes COUNT times from one to the other: one `latency` each, from the releasing store to the moment
 *             the other sees its turn; hand-offs that stay on one side are not counted
 *   parallel  NUMBER threads read COUNT pages each at once: `all`, from the first start to the last end
 *   scan      the other thread reads COUNT pages in order NUMBER times: `scan-1`, `scan-2`, ...
 *   beside    COUNT pages are read as in `read`: one `latency` each; NUMBER pages are scanned: `scan-alone`; NUMBER more are
 *             scanned while another thread reads on: `scan-beside`, and one `beside` for each of its reads
 *   clean     over three hosts: main writes COUNT pages, the second host reads them, then the third one: of the first NUMBER, in
 *             random order, one `latency` each; `from` and `to`: when the third one began and ended, of CLOCK_MONOTONIC
 *   hops      over three hosts: the third one reads COUNT pages that the second owns: of a home on the first, one `three` each, and
 *             of a home on the second, one `two` each
 *   touch     main touches COUNT fresh pages: `touch`
 * prints lines `NAME NANOSECONDS`
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
static uint64_t count, number = 1;
static volatile uint8_t *pages;
static uint64_t *order, *latency[2], latencies[2], reading_from, reading_to;
static struct { _Alignas(PAGE) atomic_int ready, go, done; } sync_page;
static struct { _Alignas(PAGE) struct { uint64_t start, end; } of[THREADS_MAX]; } spans;
static struct { _Alignas(PAGE) atomic_ullong next, serving; } lock;

static uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void print(const char *name, uint64_t nanoseconds) { printf("%s %llu\n", name, (unsigned long long)nanoseconds); }

static void *array(uint64_t bytes) {
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

/* A thread touches its own memory first, so that only the measured pages fault. */
static uint64_t fetch(volatile uint64_t *numbers, uint64_t length) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < length; i++) sum += numbers[i];
    return sum;
}

static void clear(uint64_t *numbers, uint64_t length) {
    for (uint64_t i = 0; i < length; i++) numbers[i] = 0;
}

static void *companion(void *argument) { return argument; }

/* Of threads placed in turn over two hosts, this one goes to the other host: its companion, which ends at once, takes our turn. */
static pthread_t start_there(void *(*body)(void *), uint64_t argument) {
    pthread_t thread, idle;
    if (pthread_create(&thread, NULL, body, (void *)(uintptr_t)argument) != 0) exit(2);
    if (pthread_create(&idle, NULL, companion, NULL) != 0) exit(2);
    pthread_join(idle, NULL);
    return thread;
}

static uint64_t timed_read(uint64_t page) {
    uint64_t start = now_ns();
    (void)pages[page * PAGE];
    return now_ns() - start;
}

static void *read_all(void *argument) {
    clear(latency[0], count);
    fetch(order, count);
    for (uint64_t i = 0; i < count; i++) latency[0][i] = timed_read(order[i]);
    latencies[0] = count;
    return argument;
}

static void *write_all(void *argument) {
    clear(latency[0], count);
    fetch(order, count);
    for (uint64_t i = 0; i < count; i++) (void)pages[i * PAGE];
    for (uint64_t i = 0; i < count; i++) {
        uint64_t start = now_ns();
        pages[order[i] * PAGE] = 2;
        latency[0][i] = now_ns() - start;
    }
    latencies[0] = count;
    return argument;
}

static uint64_t timed_scan(uint64_t first, uint64_t length) {
    uint64_t start = now_ns();
    for (uint64_t i = 0; i < length; i++) (void)pages[(first + i) * PAGE];
    return now_ns() - start;
}

static void *scan(void *argument) {
    for (uint64_t round = 1; round <= number; round++) {
        uint64_t time = timed_scan(0, count);
        char name[32];
        snprintf(name, sizeof name, "scan-%llu", (unsigned long long)round);
        print(name, time);
    }
    return argument;
}

/* A word of `serving`: the ticket (31 bits), who released it (1), and when (32, nanoseconds). One store releases, and the next
 * knows from whom and since when without another shared byte. */
static void *ticket(void *argument) {
    uint64_t me = (uintptr_t)argument, half = (count + 1) / 2, seen = 0;
    clear(latency[me], half);
    sync_page.ready++;
    while (sync_page.ready < 2) usleep(100);
    while (!sync_page.done) {
        uint64_t mine = atomic_fetch_add(&lock.next, 1), word;
        while ((word = atomic_load_explicit(&lock.serving, memory_order_acquire)) >> 33 != mine) __builtin_ia32_pause();
        uint32_t now = now_ns();
        if (mine > 0 && (word >> 32 & 1) != me) latency[me][seen++] = (uint32_t)(now - (uint32_t)word);
        if (seen == half) sync_page.done = 1;
        uint64_t free = (mine + 1) << 33 | me << 32 | (uint32_t)now_ns();
        atomic_store_explicit(&lock.serving, free, memory_order_release);
    }
    latencies[me] = seen;
    return NULL;
}

static void *parallel(void *argument) {
    uint64_t me = (uintptr_t)argument;
    fetch(order, count);
    spans.of[me].end = 0;
    sync_page.ready++;
    while (!sync_page.go) usleep(100);
    uint64_t start = now_ns();
    for (uint64_t i = 0; i < count; i++) (void)pages[(me * count + order[i]) * PAGE];
    spans.of[me].start = start;
    spans.of[me].end = now_ns();
    return NULL;
}

static void run_parallel(void) {
    pthread_t thread[THREADS_MAX];
    uint64_t start = UINT64_MAX, end = 0;
    for (uint64_t i = 0; i < number; i++) thread[i] = start_there(parallel, i);
    while (sync_page.ready < (int)number) usleep(100);
    sync_page.go = 1;
    for (uint64_t i = 0; i < number; i++) {
        pthread_join(thread[i], NULL);
        if (spans.of[i].start < start) start = spans.of[i].start;
        if (spans.of[i].end > end) end = spans.of[i].end;
    }
    print("all", end - start);
}

static void *scan_alone(void *argument) {
    print("scan-alone", timed_scan((uintptr_t)argument, number));
    return NULL;
}

static void *scan_beside(void *argument) {
    while (!sync_page.ready) sched_yield();
    sync_page.go = 1;
    uint64_t time = timed_scan((uintptr_t)argument, number);
    sync_page.done = 1;
    print("scan-beside", time);
    return NULL;
}

/* Reads on from page `count` of the order while the scan goes on; has as many pages as the scan, which it cannot outrun. */
static void *read_beside(void *argument) {
    uint64_t seen = 0;
    clear(latency[1], number);
    fetch(order + count, number);
    sync_page.ready = 1;
    while (!sync_page.go) sched_yield();
    while (!sync_page.done && seen < number) {
        latency[1][seen] = timed_read(order[count + seen]);
        seen++;
    }
    latencies[1] = seen;
    return argument;
}

static void run_beside(void) {
    pthread_join(start_there(read_all, 0), NULL);
    pthread_join(start_there(scan_alone, count + number), NULL);
    pthread_t reader = start_there(read_beside, 0), scanner = start_there(scan_beside, count + 2 * number);
    pthread_join(scanner, NULL);
    pthread_join(reader, NULL);
}

static void await(atomic_int *what, int value) {
    while (*what < value) usleep(100);
}

static void *read_second(void *argument) {
    await(&sync_page.go, 1);
    (void)timed_scan(0, count);
    sync_page.done = 1;
    return argument;
}

/* All arrays travel whole, however many pages are read: 0 is no latency. */
static void *read_third(void *argument) {
    clear(latency[0], count);
    fetch(order, count);
    sync_page.ready = 1;
    await(&sync_page.done, 1);
    reading_from = now_ns();
    for (uint64_t i = 0; i < number; i++) latency[0][i] = timed_read(order[i]);
    reading_to = now_ns();
    latencies[0] = count;
    return argument;
}

/* The second COUNT pages are touched first by who is to be their home. */
static void *own_second(void *argument) {
    await(&sync_page.go, 1);
    for (uint64_t i = 0; i < count; i++) pages[i * PAGE] = 2;
    for (uint64_t i = 0; i < count; i++) pages[(count + i) * PAGE] = 2;
    sync_page.done = 1;
    return argument;
}

static void *hop_third(void *argument) {
    for (int i = 0; i < 2; i++) clear(latency[i], count);
    fetch(order, count);
    sync_page.ready = 1;
    await(&sync_page.done, 1);
    for (uint64_t i = 0; i < count; i++) {
        latency[0][i] = timed_read(order[i]);
        latency[1][i] = timed_read(count + order[i]);
    }
    latencies[0] = latencies[1] = count;
    return argument;
}

/* Of threads placed in turn over three hosts, the next two go to the second and to the third. */
static void run_three(void *(*second)(void *), void *(*third)(void *)) {
    pthread_t threads[2];
    if (pthread_create(&threads[0], NULL, second, NULL) != 0 || pthread_create(&threads[1], NULL, third, NULL) != 0) exit(2);
    await(&sync_page.ready, 1);
    sync_page.go = 1;
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    mode = argv[1];
    count = strtoull(argv[2], NULL, 10);
    if (argc > 3) number = strtoull(argv[3], NULL, 10);
    int is_beside = strcmp(mode, "beside") == 0, is_parallel = strcmp(mode, "parallel") == 0;
    if (count == 0 || number == 0 || (is_parallel && number > THREADS_MAX)) return 2;
    int is_hops = strcmp(mode, "hops") == 0, is_clean = strcmp(mode, "clean") == 0;
    if (is_clean && (argc < 4 || number > count)) return 2;
    uint64_t total = is_parallel ? count * number : is_beside ? count + 3 * number : is_hops ? 2 * count : count;
    pages = array(total * PAGE);
    if (strcmp(mode, "touch") == 0) {
        uint64_t start = now_ns();
        for (uint64_t i = 0; i < count; i++) pages[i * PAGE] = 1;
        print("touch", now_ns() - start);
        return 0;
    }
    uint64_t shuffled = is_beside ? count + number : count;
    for (int i = 0; i < 2; i++) latency[i] = array(shuffled * 8);
    order = array(shuffled * 8);
    shuffle(order, shuffled);
    /* Not zero, or they would not travel. */
    for (uint64_t i = 0; i < (is_hops ? count : total); i++) pages[i * PAGE] = 1;
    if (is_parallel) run_parallel();
    else if (is_beside) run_beside();
    else if (strcmp(mode, "ticket") == 0) {
        pthread_t thread = start_there(ticket, 1);
        ticket(NULL);
        pthread_join(thread, NULL);
    } else if (strcmp(mode, "scan") == 0) pthread_join(start_there(scan, 0), NULL);
    else if (strcmp(mode, "read") == 0) pthread_join(start_there(read_all, 0), NULL);
    else if (strcmp(mode, "write") == 0) pthread_join(start_there(write_all, 0), NULL);
    else if (is_clean) run_three(read_second, read_third);
    else if (is_hops) run_three(own_second, hop_third);
    else return 2;
    if (is_clean) {
        print("from", reading_from);
        print("to", reading_to);
    }
    const char *names[2] = {is_hops ? "three" : "latency", is_hops ? "two" : is_beside ? "beside" : "latency"};
    for (int i = 0; i < 2; i++)
        for (uint64_t j = 0; j < latencies[i]; j++)
            if (latency[i][j] > 0) print(names[i], latency[i][j]);
    return 0;
}
