/* FFTW with threads: transforms of integers there and back, which start and end threads or wake a pool for each of them.
 *
 * Owns deterministic output: what is rounded is known to be an integer. Must not know hosts.
 * usage: fft [rounds]
 */
#include <fftw3.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 64, COLUMNS = 1024, CELLS = ROWS * COLUMNS, PAGE = 4096 };

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 4;
    if (!fftw_init_threads()) return 2;
    fftw_plan_with_nthreads(4);
    fftw_complex *cells = aligned_alloc(PAGE, CELLS * sizeof *cells);
    if (!cells) return 2;
    fftw_plan there = fftw_plan_dft_2d(ROWS, COLUMNS, cells, cells, FFTW_FORWARD, FFTW_ESTIMATE);
    fftw_plan back = fftw_plan_dft_2d(ROWS, COLUMNS, cells, cells, FFTW_BACKWARD, FFTW_ESTIMATE);
    for (int i = 0; i < CELLS; i++) {
        cells[i][0] = i % 1009;
        cells[i][1] = i % 1013;
    }
    for (int round = 0; round < rounds; round++) {
        fftw_execute(there);
        fftw_execute(back);
        uint64_t digest = 0;
        for (int i = 0; i < CELLS; i++)
            for (int part = 0; part < 2; part++) {
                cells[i][part] = rint(cells[i][part] / CELLS) + round;
                digest = digest * 31 + (uint64_t)(int64_t)cells[i][part];
            }
        printf("round %d %016llx\n", round, (unsigned long long)digest);
    }
    fftw_destroy_plan(there);
    fftw_destroy_plan(back);
    free(cells);
    fftw_cleanup_threads();
    return 0;
}
