/* OpenMP: a reduction over an array touched first by its users, a stencil, dynamic tasks.
 *
 * Owns deterministic output: integers only, so that the order of reductions does not show. Must not know hosts.
 * usage: openmp [mebibytes] [sweeps]
 */
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t mix(uint64_t value) {
    value ^= value >> 33;
    value *= 0xff51afd7ed558ccdull;
    value ^= value >> 33;
    return value;
}

static uint64_t collatz(uint64_t value) {
    uint64_t steps = 0;
    while (value != 1) {
        value = value % 2 ? 3 * value + 1 : value / 2;
        steps++;
    }
    return steps;
}

int main(int argc, char **argv) {
    size_t count = (size_t)(argc > 1 ? atoi(argv[1]) : 16) * 1024 * 1024 / 8;
    int sweeps = argc > 2 ? atoi(argv[2]) : 4;
    uint64_t *left = malloc(count * 8), *right = malloc(count * 8);
    if (!left || !right) return 2;

#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < count; i++) left[i] = mix(i);

    for (int sweep = 0; sweep < sweeps; sweep++) {
#pragma omp parallel for schedule(static)
        for (size_t i = 0; i < count; i++) {
            uint64_t before = left[i == 0 ? count - 1 : i - 1], after = left[i + 1 == count ? 0 : i + 1];
            uint64_t value = before + 2 * left[i] + after;
            for (int round = 0; round < 8; round++) value = mix(value + round);
            right[i] = value;
        }
        uint64_t *swap = left;
        left = right;
        right = swap;
    }
    uint64_t sum = 0, most = 0;
#pragma omp parallel for schedule(static) reduction(+ : sum)
    for (size_t i = 0; i < count; i++) sum += left[i];

#pragma omp parallel for schedule(dynamic, 500) reduction(max : most)
    for (uint64_t i = 1; i < 400000; i++) {
        uint64_t steps = collatz(i);
        if (steps > most) most = steps;
    }
    int members = 0;
#pragma omp parallel
    {
#pragma omp atomic
        members++;
#pragma omp barrier
#pragma omp single
        printf("threads %d\n", members);
    }
    printf("sum %016llx\nlongest %llu\n", (unsigned long long)sum, (unsigned long long)most);
    return 0;
}
