/* Computes and shares memory until it is stopped, or for the given number of seconds.
 *
 * Owns a victim for the failure cases: every thread writes its own page often and a common page at times. Must not know hosts.
 * usage: endless [threads] [seconds]; prints `running` once all threads run, exits 0 at the end of its time
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct { _Alignas(4096) volatile uint64_t value; } mine[64];
static _Alignas(4096) atomic_ullong common;
static _Alignas(4096) atomic_int started, stop;

static void *work(void *argument) {
    intptr_t me = (intptr_t)argument;
    started++;
    while (!stop) {
        for (int i = 0; i < 200000 && !stop; i++) mine[me].value = mine[me].value * 6364136223846793005ull + 1;
        common += mine[me].value & 1;
    }
    return NULL;
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 4, seconds = argc > 2 ? atoi(argv[2]) : 60;
    pthread_t thread[64];
    if (threads < 1 || threads > 64) return 2;
    for (intptr_t i = 0; i < threads; i++) if (pthread_create(&thread[i], NULL, work, (void *)i) != 0) return 2;
    while (started < threads) usleep(1000);
    puts("running");
    fflush(stdout);
    sleep(seconds);
    stop = 1;
    for (int i = 0; i < threads; i++) pthread_join(thread[i], NULL);
    puts("done");
    return 0;
}
