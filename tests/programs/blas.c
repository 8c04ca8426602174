/* OpenBLAS with threads of its own: a product and a solution whose exact results are integers.
 *
 * Owns deterministic output: what is rounded is known to be an integer. Must not know hosts.
 * usage: blas [rows]
 */
#include <cblas.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

void dgesv_(const int *rows, const int *sides, double *matrix, const int *stride, int *pivots, double *right, const int *height,
            int *failed);

static uint64_t state = 1;

static int chance(int most) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (int)(state % (uint64_t)most);
}

int main(int argc, char **argv) {
    int rows = argc > 1 ? atoi(argv[1]) : 400;
    size_t count = (size_t)rows * rows;
    double *left = malloc(count * sizeof *left), *right = malloc(count * sizeof *right), *product = malloc(count * sizeof *product);
    double *solution = malloc(rows * sizeof *solution);
    int *pivots = malloc(rows * sizeof *pivots);
    if (!left || !right || !product || !solution || !pivots) return 2;
    for (size_t i = 0; i < count; i++) {
        left[i] = chance(19) - 9;
        right[i] = chance(19) - 9;
    }
    uint64_t digest = 0;
    for (int round = 0; round < 3; round++) {
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, rows, rows, 1, left, rows, right, rows, 0, product, rows);
        for (size_t i = 0; i < count; i++) digest = digest * 31 + (uint64_t)(int64_t)product[i];
        left[round] += 1;
    }
    printf("product %016llx\n", (unsigned long long)digest);
    for (int i = 0; i < rows; i++) left[(size_t)i * rows + i] += 10.0 * rows;
    for (int i = 0; i < rows; i++) {
        solution[i] = 0;
        for (int j = 0; j < rows; j++) solution[i] += left[(size_t)j * rows + i] * (j % 23 - 11);
    }
    int failed = 0, wrong = 0;
    dgesv_(&rows, &(int){1}, left, &rows, pivots, solution, &rows, &failed);
    for (int i = 0; i < rows; i++) wrong += fabs(solution[i] - (i % 23 - 11)) > 1e-9;
    printf("solved %d, wrong %d\n", failed, wrong);
    return 0;
}
