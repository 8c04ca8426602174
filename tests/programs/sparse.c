/* Touches one byte in each 2 MiB of 8 GiB and waits: what that costs is measured from outside.
 *
 * Owns the pattern. Must not know the measurement. usage: sparse [seconds to wait]; prints `touched N` when done touching
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define STEP (2ull << 20)
#define BYTES (8ull << 30)

static uint8_t *block;

/* Two threads share the work, so that two hosts touch first. */
static void *touch(void *argument) {
    uint64_t touched = 0;
    for (uint64_t at = (uintptr_t)argument * STEP; at < BYTES; at += 2 * STEP, touched++) block[at + at / STEP] = 1;
    return (void *)(uintptr_t)touched;
}

int main(int argc, char **argv) {
    pthread_t thread[2];
    uint64_t sum = 0;
    block = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (block == MAP_FAILED) return 2;
    for (uintptr_t i = 0; i < 2; i++) if (pthread_create(&thread[i], NULL, touch, (void *)i) != 0) return 3;
    for (int i = 0; i < 2; i++) {
        void *value;
        pthread_join(thread[i], &value);
        sum += (uintptr_t)value;
    }
    printf("touched %llu\n", (unsigned long long)sum);
    fflush(stdout);
    sleep(argc > 1 ? atoi(argv[1]) : 2);
    return sum == BYTES / STEP ? 0 : 1;
}
