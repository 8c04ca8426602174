/* What a program does when things go wrong around it, one way for each first argument.
 *
 * Owns the programs of the cases of adversity; their threads act on all hosts. Must not know hosts.
 *   output                  writes from several threads until that fails; says the error on stderr; exits 3
 *   closed                  which of the descriptors 0, 1 and 2 are open, seen by threads, as bits of the exit status
 *   exhaust THREADS [MIB]   takes memory until there is none, by a limit of MIB or for ever; says how it ended; exits 4
 *   crowd THREADS           so many threads at once: all meet, each adds to a sum under a lock
 *   bomb                    forks, as do all children, for a second; exits 1 if one was refused
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, WRITERS = 6 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t barrier;

static void run_all(long count, size_t stack, void *(*body)(void *)) {
    pthread_t *thread = calloc(count, sizeof *thread);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, stack);
    for (intptr_t i = 0; i < count; i++) {
        int error = pthread_create(&thread[i], &attributes, body, (void *)i);
        if (error != 0) {
            fprintf(stderr, "thread %ld: %s\n", (long)i, strerror(error));
            exit(5);
        }
    }
    for (long i = 0; i < count; i++) pthread_join(thread[i], NULL);
    free(thread);
}

/* --- output ------------------------------------------------------------------------------------------------------- */
static char text[WRITERS][64 << 10];
static int failures, error_seen;

static void *write_text(void *argument) {
    intptr_t me = (intptr_t)argument;
    memset(text[me], 'a' + me, sizeof text[me]);
    for (int round = 0; round < 64; round++) {
        ssize_t wrote = write(1, text[me], sizeof text[me]);
        if (wrote == (ssize_t)sizeof text[me]) continue;
        if (wrote >= 0) continue; /* as much as still fitted */
        pthread_mutex_lock(&lock);
        failures++;
        error_seen = errno;
        pthread_mutex_unlock(&lock);
        return NULL;
    }
    return NULL;
}

static int output(void) {
    run_all(WRITERS, 256 << 10, write_text);
    fprintf(stderr, "%d of %d writers: %s\n", failures, WRITERS, failures ? strerrorname_np(error_seen) : "no error");
    return failures ? 3 : 0;
}

/* --- closed ------------------------------------------------------------------------------------------------------- */
static int seen;

static void *look(void *argument) {
    int number = (int)(intptr_t)argument;
    struct stat status;
    char byte = 0;
    int found = fstat(number, &status) == 0 || errno != EBADF;
    found |= (number == 0 ? read(0, &byte, 0) : write(number, &byte, 0)) == 0 || errno != EBADF;
    pthread_mutex_lock(&lock);
    seen |= found << number;
    pthread_mutex_unlock(&lock);
    return NULL;
}

static int closed(void) {
    run_all(3, 256 << 10, look);
    int opened = open("/dev/null", 0);
    return 16 + seen + (opened << 5);
}

/* --- exhaust ------------------------------------------------------------------------------------------------------ */
enum { BLOCK = 1 << 20, HEAP_MAX = 1 << 30 };
static int refused_by = -1;
static size_t taken;

static void *take_all(void *argument) {
    (void)argument;
    for (;;) {
        uint64_t *block = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        int error = errno;
        pthread_mutex_lock(&lock);
        if (block == MAP_FAILED) refused_by = error;
        else taken += BLOCK;
        int is_over = block == MAP_FAILED || taken > HEAP_MAX;
        pthread_mutex_unlock(&lock);
        if (is_over) return NULL;
        for (size_t i = 0; i < BLOCK / sizeof *block; i++) block[i] = i + (uintptr_t)block;
    }
}

/* LIMIT mebibytes of address space above what there is; 0: none. */
static int exhaust(long threads, long limit) {
    if (limit > 0) {
        struct rlimit bytes = {(rlim_t)limit << 20, (rlim_t)limit << 20};
        if (setrlimit(RLIMIT_AS, &bytes) != 0) return 6;
    }
    run_all(threads, 256 << 10, take_all);
    printf("%s\n", refused_by < 0 ? "no end" : strerrorname_np(refused_by));
    return 4;
}

/* --- crowd -------------------------------------------------------------------------------------------------------- */
static uint64_t sum;
static long members;

static void *attend(void *argument) {
    uint64_t me = (uintptr_t)argument + 1, square = me * me;
    pthread_barrier_wait(&barrier);
    pthread_mutex_lock(&lock);
    members++;
    sum += square;
    pthread_mutex_unlock(&lock);
    pthread_barrier_wait(&barrier);
    return NULL;
}

static int crowd(long threads) {
    pthread_barrier_init(&barrier, NULL, threads);
    run_all(threads, 64 << 10, attend);
    printf("%ld threads at once, sum %llu\n", members, (unsigned long long)sum);
    return 0;
}

/* --- bomb --------------------------------------------------------------------------------------------------------- */
static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* Every process forks as often as it may for a second, and says by its status whether somebody was refused. */
static int bomb(void) {
    int was_refused = 0, status;
    double end = now() + 1;
    while (now() < end) {
        pid_t child = fork();
        if (child < 0) {
            was_refused |= errno == EAGAIN;
            usleep(10000);
        }
    }
    while (wait(&status) > 0 || errno == EINTR) was_refused |= WIFEXITED(status) && WEXITSTATUS(status) == 1;
    return was_refused;
}

int main(int count, char **words) {
    long number = count > 2 ? atol(words[2]) : 0, limit = count > 3 ? atol(words[3]) : 0;
    if (count < 2) return 2;
    if (!strcmp(words[1], "output")) return output();
    if (!strcmp(words[1], "closed")) return closed();
    if (!strcmp(words[1], "exhaust")) return exhaust(number, limit);
    if (!strcmp(words[1], "crowd")) return crowd(number);
    if (!strcmp(words[1], "bomb")) return bomb();
    return 2;
}
