/* Fills a block with a pattern, then checks it once with its first thread and once with another one.
 *
 * Owns the pattern. Must not know where pages are. usage: fill MEBIBYTES; prints what each check summed up to
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static uint64_t *block;
static size_t words;

static uint64_t pattern(size_t index) {
    return (index + 1) * 0x9e3779b97f4a7c15ull;
}

static void *check(void *unused) {
    uint64_t sum = 0;
    for (size_t i = 0; i < words; i++) {
        if (block[i] != pattern(i)) {
            printf("word %zu is %#llx\n", i, (unsigned long long)block[i]);
            exit(1);
        }
        sum = sum * 31 + block[i];
    }
    return (void *)(uintptr_t)sum;
}

int main(int argc, char **argv) {
    pthread_t thread;
    void *sum;
    size_t bytes = (size_t)(argc > 1 ? atoi(argv[1]) : 1) << 20;
    block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (block == MAP_FAILED) return 2;
    words = bytes / sizeof *block;
    for (size_t i = 0; i < words; i++) block[i] = pattern(i);
    printf("first thread: %#llx\n", (unsigned long long)(uintptr_t)check(NULL));
    if (pthread_create(&thread, NULL, check, NULL) != 0 || pthread_join(thread, &sum) != 0) return 3;
    printf("second thread: %#llx\n", (unsigned long long)(uintptr_t)sum);
    return 0;
}
