/* What a runner would cost at least as a process of its own core, which the host's node feeds: the least that a process must do for a
 * runner that reads two pages of its snapshot and changes one of them, each on one side of a socket.
 *
 *   node: sends 64 bytes                          runner's process: maps both pages privately from the node's memory,
 *   node: takes the answer                <----   reads both, writes one, compares it with the node's, unmaps, answers
 *
 * usage: processes COUNT; prints `runner NANOSECONDS`, the median of COUNT.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 4096, BYTES = 64 };

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void serve(int fd, int memory, const uint8_t *versions) {
    uint8_t *place = mmap(0, 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t job[BYTES / 8];
    while (recv(fd, job, BYTES, 0) == BYTES) {
        for (int i = 0; i < 2; i++)
            if (mmap(place + i * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, memory, job[i] * PAGE) == MAP_FAILED)
                fail("mmap");
        uint64_t *first = (uint64_t *)place, *second = (uint64_t *)(place + PAGE);
        *second = *first + *second + 1;
        const uint64_t *twin = (const uint64_t *)(versions + job[1] * PAGE);
        for (int i = 0; i < PAGE / 8; i++)
            if (second[i] != twin[i]) job[2] = i, job[3] = second[i];
        if (munmap(place, 2 * PAGE) != 0) fail("munmap");
        if (send(fd, job, BYTES, 0) != BYTES) fail("send");
    }
    exit(0);
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

int main(int count, char **arguments) {
    size_t runners = count == 2 ? strtoull(arguments[1], NULL, 10) : 0;
    if (runners == 0) return fprintf(stderr, "usage: processes COUNT\n"), 2;
    int memory = memfd_create("versions", 0), pair[2];
    if (memory < 0 || ftruncate(memory, (off_t)PAGES * PAGE) != 0) fail("memfd");
    uint8_t *versions = mmap(0, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (versions == MAP_FAILED || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) != 0) fail("memory");
    memset(versions, 1, PAGES * PAGE);
    if (fork() == 0) {
        close(pair[0]);
        serve(pair[1], memory, versions);
    }
    close(pair[1]);
    uint64_t *took = calloc(runners, sizeof *took);
    for (size_t i = 0; i < runners; i++) {
        uint64_t job[BYTES / 8] = {i % PAGES, (i * 7 + 1) % PAGES}, began = now();
        if (send(pair[0], job, BYTES, 0) != BYTES || recv(pair[0], job, BYTES, 0) != BYTES) fail("runner");
        took[i] = now() - began;
    }
    qsort(took, runners, sizeof *took, by_value);
    printf("runner %lu\n", took[runners / 2]);
    return 0;
}
