/* Random reads, writes and compare-exchanges on many words, each with its time span, for a linearizability check per word.
 *
 * Owns the recording. Must not know the checker. Written values are unique, so that a read names its write.
 * usage: history [threads] [operations per thread] [words] [words per page] [seed]
 * prints one line per operation: thread word kind invoke response first second found
 *   kind r: first = value read; w: first = value written; c: compare-exchange from first to second, done; f: the same, failed,
 *   found = the value there. Times are ticks of one time-stamp counter: the hosts must share a machine.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PAGE 4096
#define THREADS_MAX 16
#define WORDS_MAX 512

struct record { uint64_t invoke, response, first, second, found; uint32_t word; char kind; };

static int threads = 4, operations = 1000, words = 64, words_per_page = 16;
static uint64_t seed = 1;
static _Alignas(PAGE) uint8_t cells[WORDS_MAX * PAGE];
static struct record *records[THREADS_MAX];
static _Alignas(PAGE) atomic_int ready;

static uint64_t *cell(int word) {
    int page = word / words_per_page, slot = word % words_per_page;
    return (uint64_t *)(cells + (size_t)page * PAGE + slot * (PAGE / words_per_page));
}

static uint64_t ticks(void) {
    uint32_t low, high;
    __asm__ volatile("mfence; lfence; rdtsc; lfence" : "=a"(low), "=d"(high)::"memory");
    return (uint64_t)high << 32 | low;
}

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void *work(void *argument) {
    uint64_t me = (uintptr_t)argument, state = seed * 0x9E3779B97F4A7C15ull + me * 77 + 1;
    static __thread uint64_t last[WORDS_MAX];
    struct record *record = records[me];
    for (int i = 0; i < operations; i++) record[i].kind = 0; /* touched before the clock runs */
    ready++;
    while (ready < threads) usleep(200);
    for (int i = 0; i < operations; i++, record++) {
        int word = next_random(&state) % words;
        uint64_t *at = cell(word), unique = (me + 1) << 32 | (uint64_t)(i + 1);
        record->word = word;
        switch (next_random(&state) % 4) {
        case 0:
            record->kind = 'w';
            record->first = unique;
            record->invoke = ticks();
            __atomic_store_n(at, unique, __ATOMIC_RELEASE);
            record->response = ticks();
            last[word] = unique;
            break;
        case 1:
            record->first = last[word];
            record->second = unique;
            record->found = last[word];
            record->invoke = ticks();
            record->kind = __atomic_compare_exchange_n(at, &record->found, unique, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) ? 'c' : 'f';
            record->response = ticks();
            last[word] = record->kind == 'c' ? unique : record->found;
            break;
        default:
            record->kind = 'r';
            record->invoke = ticks();
            record->first = __atomic_load_n(at, __ATOMIC_ACQUIRE);
            record->response = ticks();
            last[word] = record->first;
        }
        for (volatile uint64_t pause = next_random(&state) % 3000; pause > 0; pause--) {}
    }
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t thread[THREADS_MAX];
    if (argc > 1) threads = atoi(argv[1]);
    if (argc > 2) operations = atoi(argv[2]);
    if (argc > 3) words = atoi(argv[3]);
    if (argc > 4) words_per_page = atoi(argv[4]);
    if (argc > 5) seed = strtoull(argv[5], NULL, 10);
    if (threads < 1 || threads > THREADS_MAX || words < 1 || words > WORDS_MAX || words_per_page < 1 || words_per_page > 512) return 2;
    for (int i = 0; i < threads; i++)
        if (!(records[i] = aligned_alloc(PAGE, ((size_t)operations * sizeof(struct record) + PAGE - 1) / PAGE * PAGE))) return 3;
    for (intptr_t i = 0; i < threads; i++)
        if (pthread_create(&thread[i], NULL, work, (void *)i) != 0) return 3;
    for (int i = 0; i < threads; i++) pthread_join(thread[i], NULL);
    for (int i = 0; i < threads; i++)
        for (int j = 0; j < operations; j++) {
            struct record *record = &records[i][j];
            printf("%d %u %c %llu %llu %llu %llu %llu\n", i, record->word, record->kind, (unsigned long long)record->invoke,
                   (unsigned long long)record->response, (unsigned long long)record->first, (unsigned long long)record->second,
                   (unsigned long long)record->found);
        }
    return 0;
}
