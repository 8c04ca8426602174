/* What system calls and threads cost, measured from inside the program.
 *
 * Owns the calls. Must not know that its threads are on different hosts: with `dvm-exec --place rr` over two hosts the main thread is
 * on one and the first thread it makes on the other. Natively the same calls are the floors.
 *
 * usage: calls gettid|lseek|read|clock|create COUNT
 *   gettid    the other thread asks for its number, by the call: one `latency` each
 *   lseek     the other thread asks where it is in a file: one `latency` each
 *   read      the other thread reads 4 KiB of a file into a page it has written: one `latency` each
 *   clock     the other thread reads the clock BATCH times: one `latency` each
 *   create    main makes a thread and joins it: one `latency` each; a second thread, which takes its turn in the placement, is not
 *             measured
 * prints lines `NAME NANOSECONDS`
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define BATCH 1000

static const char *mode;
static uint64_t count, *latency;
static int file;
static _Alignas(PAGE) char buffer[PAGE];

static uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void ask_number(void) {
    if (syscall(SYS_gettid) <= 0) fail("gettid");
}

static void ask_place(void) {
    if (lseek(file, 0, SEEK_CUR) != 0) fail("lseek");
}

static void read_page(void) {
    if (read(file, buffer, PAGE) != PAGE) fail("read");
}

static void read_clock(void) {
    for (int i = 0; i < BATCH; i++) now_ns();
}

static void *measure(void *argument) {
    void (*call)(void) = (void (*)(void))argument;
    memset(latency, 0, count * sizeof *latency);
    memset(buffer, 1, PAGE);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t start = now_ns();
        call();
        latency[i] = now_ns() - start;
    }
    return argument;
}

static void *end_at_once(void *argument) { return argument; }

static void make_and_join(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, end_at_once, NULL) != 0 || pthread_join(thread, NULL) != 0) fail("pthread_create");
}

static void make_threads(void) {
    for (uint64_t i = 0; i < count; i++) {
        uint64_t start = now_ns();
        make_and_join();
        latency[i] = now_ns() - start;
        make_and_join();
    }
}

static void *call_of(const char *name) {
    if (strcmp(name, "gettid") == 0) return ask_number;
    if (strcmp(name, "lseek") == 0) return ask_place;
    if (strcmp(name, "read") == 0) return read_page;
    if (strcmp(name, "clock") == 0) return read_clock;
    return NULL;
}

/* Nothing of it is on a disk that is waited for: it was just written. */
static int fresh_file(void) {
    FILE *stream = tmpfile();
    if (!stream) fail("tmpfile");
    for (uint64_t i = 0; i < count; i++)
        if (fwrite(buffer, PAGE, 1, stream) != 1) fail("fwrite");
    rewind(stream);
    return fileno(stream);
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    mode = argv[1];
    count = strtoull(argv[2], NULL, 10);
    latency = malloc(count * sizeof *latency);
    void *call = call_of(mode);
    if (call) {
        file = fresh_file();
        pthread_t thread;
        if (pthread_create(&thread, NULL, measure, call) != 0) fail("pthread_create");
        pthread_join(thread, NULL);
    } else if (strcmp(mode, "create") == 0) make_threads();
    else return 2;
    for (uint64_t i = 0; i < count; i++) printf("latency %llu\n", (unsigned long long)latency[i]);
    return 0;
}
