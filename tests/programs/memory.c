/* What programs rely on of mapped files, guards, advice and growing blocks, each seen by threads on all hosts.
 *
 * Owns the behaviours. Must not know hosts: the output is the same natively. usage: memory BEHAVIOUR; works in its directory
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ull
#define THREADS 3
#define CHECK(what) do { if (!(what)) { printf("line %d: %s: %s\n", __LINE__, #what, strerror(errno)); exit(1); } } while (0)

static __thread sigjmp_buf back;
static __thread siginfo_t seen;

static void caught(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    seen = *info;
    siglongjmp(back, 1);
}

/* What touching `at` comes to: 0, or the signal, its code, and whether it names the address. */
static const char *touch(volatile char *at, int write) {
    static __thread char texts[2][64];
    static __thread unsigned turn;
    char *text = texts[turn++ % 2];
    if (sigsetjmp(back, 1) == 0) {
        if (write) *at = 1; else (void)*at;
        return "fine";
    }
    snprintf(text, sizeof texts[0], "signal %d code %d %s", seen.si_signo, seen.si_code, seen.si_addr == (void *)at ? "here" : "elsewhere");
    return text;
}

/* A call's result, and why it failed. */
static void say(const char *what, long result) {
    printf("%s: %ld %d\n", what, result, result < 0 ? errno : 0);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Runs `body` on each thread, one after the other if `in_turn`. */
static void on_threads(void *(*body)(void *), int in_turn) {
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, body, (void *)i) == 0);
        if (in_turn) CHECK(pthread_join(threads[i], NULL) == 0);
    }
    for (int i = 0; i < THREADS && !in_turn; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

static int make(const char *name, uint64_t bytes, int fill) {
    int file = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK(file >= 0);
    static uint32_t words[1 << 16];
    for (uint64_t done = 0; fill && done < bytes; done += sizeof words) {
        for (unsigned i = 0; i < sizeof words / 4; i++) words[i] = (uint32_t)((done / 4 + i) * 2654435761u);
        CHECK(write(file, words, sizeof words) == sizeof words);
    }
    CHECK(ftruncate(file, (off_t)bytes) == 0);
    return file;
}

static char *map(uint64_t bytes, int protection, int flags, int file) {
    char *at = mmap(NULL, bytes, protection, flags, file, 0);
    CHECK(at != MAP_FAILED);
    return at;
}

static char *block;
static uint64_t block_bytes;
static uint64_t sums[THREADS];

static void *add(void *argument) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < block_bytes / 4; i++) sum += ((uint32_t *)block)[i];
    sums[(uintptr_t)argument] = sum;
    return NULL;
}

static void *add_part(void *argument) {
    uint64_t sum = 0, part = block_bytes / 4 / THREADS, first = (uintptr_t)argument * part;
    for (uint64_t i = first; i < first + part; i++) sum += ((uint32_t *)block)[i];
    sums[(uintptr_t)argument] = sum;
    return NULL;
}

static void print_sums(void) {
    for (int i = 0; i < THREADS; i++) printf("sum %llu\n", (unsigned long long)sums[i]);
}

/* Threads everywhere read a file of 64 MiB that is mapped privately. */
static void file_sum(void) {
    block_bytes = 48ull << 20;
    block = map(block_bytes, PROT_READ, MAP_PRIVATE, make("file", 64ull << 20, 1));
    on_threads(add_part, 0);
    print_sums();
    on_threads(add, 0);
    print_sums();
    CHECK(munmap(block, block_bytes) == 0);
}

static void *change(void *argument) {
    uint64_t mine = (uintptr_t)argument;
    for (uint64_t at = mine * PAGE; at < block_bytes; at += THREADS * PAGE) block[at] = (char)(mine + 1);
    return NULL;
}

/* Private changes stay private, survive mprotect, and are gone after DONTNEED. */
static void file_private(void) {
    int file = make("file", 8 << 20, 1);
    block_bytes = 8 << 20;
    block = map(block_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, file);
    on_threads(add, 1);
    print_sums();
    on_threads(change, 0);
    on_threads(add, 1);
    print_sums();
    char byte;
    CHECK(pread(file, &byte, 1, 5 * PAGE) == 1);
    printf("in the file %d\n", byte);
    CHECK(madvise(block + (1 << 20), 3 << 20, MADV_DONTNEED) == 0);
    on_threads(add, 1);
    print_sums();
    CHECK(madvise(block, block_bytes, MADV_DONTNEED) == 0);
    on_threads(add, 1);
    print_sums();
    CHECK(mmap(block + (2 << 20), 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == block + (2 << 20));
    on_threads(add, 1);
    print_sums();
    CHECK(mmap(block, 2 << 20, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, 4 << 20) == block);
    on_threads(add, 1);
    print_sums();
    CHECK(munmap(block, block_bytes) == 0);
    block = map(block_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    on_threads(add, 1);
    print_sums();
}

static void *touch_far(void *argument) {
    uint64_t sum = 0, seed = 88172645463325252ull + (uintptr_t)argument;
    for (int i = 0; i < 34; i++) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        sum += (unsigned char)block[seed % block_bytes];
    }
    sum += (unsigned char)block[(3ull << 30) + 7];
    sums[(uintptr_t)argument] = sum;
    return NULL;
}

/* A sparse file of 4 GiB costs what is touched of it. */
static void file_sparse(void) {
    int file = make("file", 4ull << 30, 0);
    CHECK(pwrite(file, "x", 1, (3ll << 30) + 7) == 1);
    block_bytes = 4ull << 30;
    double start = now();
    block = map(block_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, file);
    double mapped = now();
    on_threads(touch_far, 0);
    double touched = now();
    print_sums();
    fprintf(stderr, "mapped in %.3f s, touched in %.3f s\n", mapped - start, touched - mapped);
    printf("mapped at once: %s\n", mapped - start < 1 ? "yes" : "no");
    CHECK(munmap(block, block_bytes) == 0);
}

/* System calls of the kernel from and into pages that nobody has touched. */
static void *call(void *argument) {
    (void)argument;
    int file = open("file", O_RDONLY), copy = open("copy", O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK(file >= 0 && copy >= 0);
    char *from = map(4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE, file);
    CHECK(pwrite(copy, from + 12345, 1 << 20, 0) == 1 << 20);
    CHECK(pread(file, from + (2 << 20) + 100, 70000, 5) == 70000);
    CHECK(pwrite(copy, from + (2 << 20), 1 << 20, 1 << 20) == 1 << 20);
    uint64_t sum = 0;
    static uint32_t words[1 << 19];
    CHECK(pread(copy, words, sizeof words, 0) == sizeof words);
    for (unsigned i = 0; i < 1 << 19; i++) sum += words[i];
    printf("copied %llu\n", (unsigned long long)sum);
    CHECK(munmap(from, 4 << 20) == 0 && close(file) == 0 && close(copy) == 0);
    return NULL;
}

static void file_calls(void) {
    close(make("file", 4 << 20, 1));
    on_threads(call, 1);
}

static void *beyond(void *argument) {
    (void)argument;
    printf("last page %s, its rest %d\n", touch(block + 2 * PAGE, 1), block[2 * PAGE + 100]);
    printf("beyond %s\n", touch(block + 3 * PAGE, 0));
    printf("far beyond %s\n", touch(block + 6 * PAGE + 5, 1));
    say("write from beyond", write(1, block + 4 * PAGE, 1));
    return NULL;
}

/* Pages beyond the end of a file, small and large. */
static void file_end(void) {
    block = map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, make("file", 2 * PAGE + 50, 0));
    on_threads(beyond, 1);
    uint64_t bytes = (2 << 20) + 2 * PAGE + 50;
    char *large = map(bytes + 6 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, make("large", bytes, 0));
    block = large + (2 << 20);
    on_threads(beyond, 1);
    CHECK(munmap(large, bytes + 6 * PAGE) == 0);
    printf("unmapped %s\n", touch(large, 0));
}

static void *guard(void *argument) {
    (void)argument;
    printf("guard %s, write %s\n", touch(block + PAGE + 9, 0), touch(block + PAGE, 1));
    printf("beside %s %s\n", touch(block + PAGE - 1, 1), touch(block + 2 * PAGE, 1));
    printf("read-only %s", touch(block + 3 * PAGE, 0));
    printf(" %s\n", touch(block + 3 * PAGE, 1));
    printf("hole %s\n", touch(block + 6 * PAGE, 0));
    return NULL;
}

/* Protections page by page, and what takes them away. */
static void guards(void) {
    block = map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    memset(block, 7, 8 * PAGE);
    CHECK(mprotect(block + PAGE, PAGE, PROT_NONE) == 0);
    CHECK(mprotect(block + 3 * PAGE, PAGE, PROT_READ) == 0);
    CHECK(munmap(block + 6 * PAGE, PAGE) == 0);
    on_threads(guard, 1);
    CHECK(mprotect(block, 6 * PAGE, PROT_READ | PROT_WRITE) == 0);
    printf("after all %s %d\n", touch(block + PAGE, 1), block[PAGE + 1]);
    say("over a hole", mprotect(block, 8 * PAGE, PROT_READ));
    char *reserved = map(64ull << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
    CHECK(mprotect(reserved + (33ull << 30), 16 * PAGE, PROT_READ | PROT_WRITE) == 0);
    block = reserved + (33ull << 30) + 4 * PAGE;
    CHECK(mprotect(block + PAGE, PAGE, PROT_NONE) == 0 && mprotect(block + 3 * PAGE, PAGE, PROT_READ) == 0);
    CHECK(mprotect(block + 6 * PAGE, PAGE, PROT_NONE) == 0);
    on_threads(guard, 1);
}

static void *code(void *argument) {
    int (*function)(void) = (int (*)(void))block;
    printf("returns %d\n", function());
    (void)argument;
    return NULL;
}

/* Code that is written here and run there. */
static void machine_code(void) {
    block = map(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    for (char value = 1; value < 4; value++) {
        CHECK(mprotect(block, PAGE, PROT_READ | PROT_WRITE) == 0);
        memcpy(block, (char[]){(char)0xb8, value, 0, 0, 0, (char)0xc3}, 6);
        CHECK(mprotect(block, PAGE, PROT_READ | PROT_EXEC) == 0);
        on_threads(code, 1);
    }
}

static void *fill(void *argument) {
    uint64_t part = block_bytes / THREADS / PAGE * PAGE, first = (uintptr_t)argument * part;
    for (uint64_t at = first; at < first + part; at += PAGE) *(uint64_t *)(block + at) = at + 1;
    return NULL;
}

/* Blocks that grow, in steps and at once. */
static void growing(void) {
    block_bytes = 1 << 20;
    block = map(block_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    char *wall = mmap(block + block_bytes, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    on_threads(fill, 0);
    double start = now();
    while (block_bytes < 64 << 20) {
        block = mremap(block, block_bytes, 2 * block_bytes, MREMAP_MAYMOVE);
        CHECK(block != MAP_FAILED);
        block_bytes *= 2;
        uint64_t right = 0;
        for (uint64_t at = 0; at < block_bytes / 2; at += PAGE) right += *(uint64_t *)(block + at) != 0;
        printf("%llu MiB: %llu pages kept\n", (unsigned long long)block_bytes >> 20, (unsigned long long)right);
        on_threads(fill, 0);
    }
    fprintf(stderr, "grown in %.3f s\n", now() - start);
    char *to = map(block_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    start = now();
    CHECK(mremap(block, block_bytes, block_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
    fprintf(stderr, "64 MiB moved in %.3f s\n", now() - start);
    printf("moved %d, before %s\n", *(uint64_t *)(to + 5 * PAGE) == 5 * PAGE + 1, touch(block, 0));
    block = mremap(to, block_bytes, PAGE, 0);
    printf("shrunk %d, behind %s\n", block == to, touch(to + PAGE, 0));
    (void)wall;
}

static void *count_bytes(void *argument) {
    uint64_t sum = 0;
    for (uint64_t at = 0; at < block_bytes; at += 64) sum += (unsigned char)block[at];
    sums[(uintptr_t)argument] = sum;
    return NULL;
}

/* Advice, and the calls about what is in memory. */
static void advice(void) {
    block_bytes = 1 << 20;
    block = map(block_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    on_threads(fill, 0);
    memset(block, 3, block_bytes);
    on_threads(count_bytes, 0);
    print_sums();
    CHECK(madvise(block + PAGE, 100 * PAGE, MADV_DONTNEED) == 0);
    on_threads(count_bytes, 0);
    print_sums();
    const int advices[] = {MADV_WILLNEED, MADV_HUGEPAGE, MADV_DONTFORK, MADV_FREE, MADV_REMOVE, 22, 23, 99};
    for (unsigned i = 0; i < sizeof advices / sizeof *advices; i++) {
        printf("advice %d ", advices[i]);
        say("", madvise(block + (512 << 10), PAGE, advices[i]));
    }
    unsigned char resident[256];
    memset(block, 1, block_bytes);
    say("mincore", mincore(block, block_bytes, resident));
    printf("resident %d %d\n", resident[0] & 1, resident[255] & 1);
    CHECK(munmap(block + 200 * PAGE, PAGE) == 0);
    say("mincore over a hole", mincore(block, block_bytes, resident));
    say("locked", mlock(block + 5, PAGE));
    say("unlocked", munlock(block, PAGE));
    say("synced", msync(block, PAGE, MS_SYNC));
    say("synced twice", msync(block, PAGE, MS_SYNC | MS_ASYNC));
    char *end = sbrk(0);
    CHECK(brk(end + 64 * PAGE) == 0);
    memset(end, 9, 64 * PAGE);
    CHECK(brk(end) == 0 && brk(end + 64 * PAGE) == 0);
    printf("break %d %d\n", end[PAGE], end[63 * PAGE]);
    say("too much", (long)mmap(NULL, 1ull << 46, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

/* What cannot be mapped. */
static void refused(void) {
    int file = make("file", 4 * PAGE, 1), write_only = open("file", O_WRONLY), path = open("file", O_PATH), ends[2];
    CHECK(pipe(ends) == 0);
    int zero = open("/dev/zero", O_RDWR), directory = open(".", O_RDONLY);
    const struct { const char *name; int flags, file; long offset; } tries[] = {
        {"write-only", MAP_PRIVATE, write_only, 0}, {"path", MAP_PRIVATE, path, 0}, {"pipe", MAP_PRIVATE, ends[0], 0},
        {"directory", MAP_PRIVATE, directory, 0}, {"offset", MAP_PRIVATE, file, 5}, {"closed", MAP_PRIVATE, 77, 0},
        {"zero", MAP_PRIVATE, zero, 0}, {"shared", MAP_SHARED, file, 0},
    };
    for (unsigned i = 0; i < sizeof tries / sizeof *tries; i++) {
        errno = 0;
        char *at = mmap(NULL, PAGE, PROT_READ, tries[i].flags, tries[i].file, tries[i].offset);
        printf("%s: %d, %d\n", tries[i].name, at == MAP_FAILED ? errno : 0, at == MAP_FAILED ? 0 : at[4]);
    }
}

int main(int argc, char **argv) {
    const struct { const char *name; void (*run)(void); } behaviours[] = {
        {"file-sum", file_sum}, {"file-private", file_private}, {"file-sparse", file_sparse}, {"file-calls", file_calls},
        {"file-end", file_end}, {"guards", guards}, {"machine-code", machine_code}, {"growing", growing},
        {"advice", advice}, {"refused", refused},
    };
    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    for (unsigned i = 0; argc > 1 && i < sizeof behaviours / sizeof *behaviours; i++) {
        if (strcmp(argv[1], behaviours[i].name) == 0) {
            setvbuf(stdout, NULL, _IOLBF, 0);
            behaviours[i].run();
            return 0;
        }
    }
    return 2;
}
