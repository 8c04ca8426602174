/* Pages that every thread reads and one thread writes, each in its turn: every write takes the page from many readers.
 *
 * Owns deterministic output: the sum of all that was read. Must not know that it may run on several hosts.
 * usage: readers [threads] [rounds]
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define PAGES 16
#define WORDS 512

static volatile unsigned long pages[PAGES][WORDS] __attribute__((aligned(4096)));
static pthread_barrier_t barrier;
static long threads, rounds;
static unsigned long sum;

static void *run(void *argument)
{
    long me = (long)argument;
    unsigned long mine = 0;

    for (long round = 0; round < rounds; round++) {
        if (round % threads == me)
            for (long page = 0; page < PAGES; page++)
                pages[page][me] += round + page + 1;
        pthread_barrier_wait(&barrier);
        for (long page = 0; page < PAGES; page++)
            for (long other = 0; other < threads; other++)
                mine += pages[page][other];
        pthread_barrier_wait(&barrier);
    }
    __atomic_fetch_add(&sum, mine, __ATOMIC_SEQ_CST);
    return NULL;
}

int main(int argc, char **argv)
{
    threads = argc > 1 ? atol(argv[1]) : 4;
    rounds = argc > 2 ? atol(argv[2]) : 100;
    if (threads < 1 || threads > WORDS || rounds < 1)
        return 2;
    pthread_t *started = calloc(threads, sizeof *started);
    pthread_barrier_init(&barrier, NULL, threads);
    for (long thread = 0; thread < threads; thread++)
        if (pthread_create(&started[thread], NULL, run, (void *)thread) != 0)
            return 1;
    for (long thread = 0; thread < threads; thread++)
        pthread_join(started[thread], NULL);
    printf("%lu\n", sum);
    return 0;
}
