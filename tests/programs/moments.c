/* Forked children beside threads that go on writing: what a child sees must be of one moment.
 *
 * moments THREADS FORKS PAGES    prints how many children saw something else, which no run may
 *
 * Each thread writes the number of its round into its pages, one after the other from the first to the last. At any moment no page
 * is ahead of one before it, nor behind the first by more than a round. A child looks at them in an order that lets them change
 * meanwhile, and says by its status what it saw.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE_BYTES = 4096, THREADS_MAX = 16, PAGES_MAX = 64 };

struct page {
    _Alignas(PAGE_BYTES) _Atomic unsigned long round;
};

static struct page pages[THREADS_MAX][PAGES_MAX];
static int pages_of_each;
static atomic_int is_over, running;

static void *write_rounds(void *argument)
{
    struct page *own = argument;
    for (unsigned long round = 1; !atomic_load(&is_over); round++) {
        for (int at = 0; at < pages_of_each; at++)
            atomic_store(&own[at].round, round);
        if (round == 1)
            atomic_fetch_add(&running, 1);
    }
    return NULL;
}

/* Whether what is seen of one thread's pages can have been there at one moment. */
static int is_of_one_moment(struct page *own)
{
    unsigned long last = atomic_load(&own[0].round), first = last;
    for (int at = 1; at < pages_of_each; at++) {
        unsigned long round = atomic_load(&own[at].round);
        if (round > last || first - round > 1)
            return 0;
        last = round;
    }
    return 1;
}

int main(int count, char **words)
{
    int threads = count == 4 ? atoi(words[1]) : 0, forks = count == 4 ? atoi(words[2]) : 0;
    pages_of_each = count == 4 ? atoi(words[3]) : 0;
    if (threads < 1 || threads > THREADS_MAX || forks < 1 || pages_of_each < 2 || pages_of_each > PAGES_MAX) {
        fprintf(stderr, "usage: moments THREADS FORKS PAGES\n");
        return 2;
    }
    pthread_t thread[THREADS_MAX];
    for (int at = 0; at < threads; at++)
        if (pthread_create(&thread[at], NULL, write_rounds, pages[at]))
            return 3;
    while (atomic_load(&running) < threads)
        usleep(1000);
    int wrong = 0, died = 0;
    for (int made = 0; made < forks; made++) {
        pid_t child = fork();
        if (child == 0) {
            int is_right = 1;
            for (int at = 0; at < threads; at++)
                is_right &= is_of_one_moment(pages[at]);
            _exit(is_right ? 0 : 1);
        }
        int status = 0;
        if (child < 0 || waitpid(child, &status, 0) != child)
            return 4;
        wrong += WIFEXITED(status) && WEXITSTATUS(status) == 1;
        died += !WIFEXITED(status) || WEXITSTATUS(status) > 1;
    }
    atomic_store(&is_over, 1);
    for (int at = 0; at < threads; at++)
        pthread_join(thread[at], NULL);
    printf("%d children: %d saw no moment, %d died\n", forks, wrong, died);
    return 0;
}
