/* OpenMP beyond loops: tasks with dependences, sections, barriers in a row, ordered, critical, locks, single, threadprivate, taskloop.
 *
 * Owns deterministic output: integers only. Must not know hosts.
 * usage: tasks [rounds]
 */
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { TILES = 6, TILE = 128, MEMBERS = 4 };

static uint64_t tiles[TILES][TILES][TILE];
static uint64_t own;
#pragma omp threadprivate(own)

static uint64_t mix(uint64_t value) {
    value ^= value >> 33;
    value *= 0xff51afd7ed558ccdull;
    value ^= value >> 33;
    return value;
}

static void work(uint64_t *tile, const uint64_t *above, const uint64_t *left) {
    for (int i = 0; i < TILE; i++)
        for (int step = 0; step < 10000; step++) tile[i] = mix(tile[i] + above[i] * 3 + left[i] + step);
}

static uint64_t fibonacci(int n) {
    if (n < 2) return n;
    uint64_t left, right;
#pragma omp task shared(left) if (n > 14)
    left = fibonacci(n - 1);
    right = fibonacci(n - 2);
#pragma omp taskwait
    return left + right;
}

/* A wave front: each tile waits for the one above and the one to its left. */
static uint64_t wave(void) {
    static const uint64_t edge[TILE];
#pragma omp parallel num_threads(MEMBERS)
#pragma omp single
    for (int row = 0; row < TILES; row++)
        for (int column = 0; column < TILES; column++) {
            uint64_t *tile = tiles[row][column];
            const uint64_t *above = row ? tiles[row - 1][column] : edge, *left = column ? tiles[row][column - 1] : edge;
#pragma omp task depend(in : above[0], left[0]) depend(out : tile[0])
            work(tile, above, left);
        }
    uint64_t sum = 0;
    for (int i = 0; i < TILE; i++) sum += tiles[TILES - 1][TILES - 1][i];
    return sum;
}

/* Barriers in a row: every member reads what its neighbour wrote before the barrier. */
static uint64_t barriers(int rounds) {
    uint64_t cells[2][MEMBERS] = {{1, 2, 3, 4}};
#pragma omp parallel num_threads(MEMBERS)
    for (int round = 0; round < rounds; round++) {
        int me = omp_get_thread_num();
        cells[(round + 1) % 2][me] = mix(cells[round % 2][(me + 1) % MEMBERS] + round);
#pragma omp barrier
    }
    return cells[rounds % 2][0] ^ cells[rounds % 2][MEMBERS - 1];
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 100;
    uint64_t sum = 0, product = 1, ordered = 0, guarded = 0, both = 0, parts[3] = {0};
    printf("wave %016llx\n", (unsigned long long)wave());
    printf("barriers %016llx\n", (unsigned long long)barriers(rounds));
#pragma omp parallel num_threads(MEMBERS)
#pragma omp single
    sum = fibonacci(22);
    printf("fibonacci %llu\n", (unsigned long long)sum);
#pragma omp parallel sections num_threads(3)
    {
#pragma omp section
        for (int i = 0; i < 100000; i++) parts[0] = mix(parts[0] + i);
#pragma omp section
        for (int i = 0; i < 200000; i++) parts[1] = mix(parts[1] + i);
#pragma omp section
        for (int i = 0; i < 300000; i++) parts[2] = mix(parts[2] + i);
    }
    printf("sections %016llx\n", (unsigned long long)(parts[0] ^ parts[1] ^ parts[2]));
    omp_lock_t lock;
    omp_init_lock(&lock);
#pragma omp parallel for num_threads(MEMBERS) schedule(dynamic, 4) ordered reduction(* : product)
    for (int i = 0; i < rounds; i++) {
        uint64_t value = mix(i);
        product *= value | 1;
#pragma omp ordered
        ordered = mix(ordered + value);
#pragma omp critical
        guarded += value;
        omp_set_lock(&lock);
        guarded += 1;
        omp_unset_lock(&lock);
    }
    omp_destroy_lock(&lock);
    printf("ordered %016llx product %016llx guarded %016llx\n", (unsigned long long)ordered, (unsigned long long)product,
           (unsigned long long)guarded);
#pragma omp parallel num_threads(MEMBERS)
    {
        own = omp_get_thread_num();
#pragma omp single copyprivate(own)
        own = 77;
#pragma omp atomic
        both += own;
    }
#pragma omp parallel num_threads(MEMBERS)
#pragma omp single
#pragma omp taskloop grainsize(8) reduction(+ : both)
    for (int i = 0; i < rounds; i++) both += mix(i) % 1000;
    printf("private and taskloop %llu\n", (unsigned long long)both);
    return 0;
}
