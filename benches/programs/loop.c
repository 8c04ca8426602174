/* Steps of which each needs the one before: what a guest's processor computes beside a native one.
 *
 * Owns the loop. usage: loop COUNT; prints `loop NANOSECONDS`
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * UINT64_C(1000000000) + time.tv_nsec;
}

int main(int argc, char **argv) {
    uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 0, start = now();
    volatile uint64_t first = 1, last;
    uint64_t z = first;
    for (uint64_t i = 0; i < count; i++) {
        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        z ^= z >> 31;
    }
    last = z;
    (void)last;
    printf("loop %" PRIu64 "\n", now() - start);
    return 0;
}
