/* The workloads of the DISA programs in C with OpenMP: what the machine itself can do.
 *
 * Owns the loops. Must not know who measures: prints `begin` when the data is in memory and the threads are there, then its check
 * value.
 *
 * usage: omp kmeans FILE | omp wordcount FILE | omp primes LIMIT        OMP_NUM_THREADS threads
 */
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLUSTERS = 16, DIMENSIONS = 8, ROUNDS = 10, CHUNK = 100000 };
/* Of a table of words; a power of two, more than the different words there are. */
enum { SLOTS = 1 << 18 };

typedef struct {
    int64_t at[DIMENSIONS];
} point;

typedef struct {
    uint64_t key, count;
    const uint8_t *text;
    size_t bytes;
} word;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void *allocate(size_t bytes) {
    void *memory = calloc(1, bytes);
    if (!memory) fail("memory");
    return memory;
}

static void *contents(const char *name, size_t *bytes) {
    FILE *file = fopen(name, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0) fail(name);
    *bytes = ftell(file);
    rewind(file);
    void *all = allocate(*bytes);
    if (fread(all, 1, *bytes, file) != *bytes) fail(name);
    fclose(file);
    return all;
}

/* A first parallel region starts the threads. */
static void begin(void) {
    int threads = 0;
#pragma omp parallel reduction(+ : threads)
    threads += 1;
    if (threads != omp_get_max_threads()) fail("threads");
    puts("begin");
    fflush(stdout);
}

static uint64_t fnv(const uint8_t *bytes, size_t count) {
    uint64_t state = 0xcbf29ce484222325u;
    for (size_t i = 0; i < count; i++) state = (state ^ bytes[i]) * 0x100000001b3u;
    return state;
}

static int nearest(const point *p, const point *means) {
    int best = 0;
    int64_t least = INT64_MAX;
    for (int k = 0; k < CLUSTERS; k++) {
        int64_t distance = 0;
        for (int d = 0; d < DIMENSIONS; d++) {
            int64_t difference = p->at[d] - means[k].at[d];
            distance += difference * difference;
        }
        if (distance < least) {
            least = distance;
            best = k;
        }
    }
    return best;
}

static void kmeans(const char *name) {
    size_t bytes;
    const point *points = contents(name, &bytes);
    size_t count = bytes / sizeof(point);
    point means[CLUSTERS];
    memcpy(means, points, sizeof means);
    begin();
    for (int round = 0; round < ROUNDS; round++) {
        int64_t sums[CLUSTERS][DIMENSIONS] = {0}, counts[CLUSTERS] = {0};
#pragma omp parallel for schedule(static) reduction(+ : sums, counts)
        for (size_t i = 0; i < count; i++) {
            int k = nearest(&points[i], means);
            for (int d = 0; d < DIMENSIONS; d++) sums[k][d] += points[i].at[d];
            counts[k]++;
        }
        for (int k = 0; k < CLUSTERS; k++)
            for (int d = 0; d < DIMENSIONS && counts[k]; d++) means[k].at[d] = sums[k][d] / counts[k];
    }
    printf("%016lx\n", fnv((const uint8_t *)means, sizeof means));
}

static word *find(word *table, uint64_t key, const uint8_t *text, size_t bytes) {
    for (size_t i = key;; i++) {
        word *slot = &table[i & (SLOTS - 1)];
        if (!slot->count || (slot->key == key && slot->bytes == bytes && memcmp(slot->text, text, bytes) == 0)) return slot;
    }
}

static void add(word *table, word more) {
    word *slot = find(table, more.key, more.text, more.bytes);
    more.count += slot->count;
    *slot = more;
}

/* Words that begin from `first` to before `end`. */
static void count_words(word *table, const uint8_t *text, size_t first, size_t end, size_t size) {
    size_t i = first;
    while (i > 0 && i < end && text[i - 1] > ' ') i++;
    while (i < end) {
        if (text[i] <= ' ') {
            i++;
            continue;
        }
        size_t start = i;
        uint64_t key = 0xcbf29ce484222325u;
        for (; i < size && text[i] > ' '; i++) key = (key ^ text[i]) * 0x100000001b3u;
        add(table, (word){key, 1, text + start, i - start});
    }
}

static void wordcount(const char *name) {
    size_t size, parts = omp_get_max_threads();
    const uint8_t *text = contents(name, &size);
    word **tables = allocate(parts * sizeof *tables);
    for (size_t i = 0; i < parts; i++) tables[i] = allocate(SLOTS * sizeof(word));
    begin();
#pragma omp parallel for schedule(static, 1)
    for (size_t i = 0; i < parts; i++) count_words(tables[i], text, size * i / parts, size * (i + 1) / parts, size);
    uint64_t sum = 0, words = 0, distinct = 0;
    for (size_t i = 1; i < parts; i++)
        for (size_t j = 0; j < SLOTS; j++)
            if (tables[i][j].count) add(tables[0], tables[i][j]);
    for (size_t j = 0; j < SLOTS; j++) {
        sum += tables[0][j].key * tables[0][j].count;
        words += tables[0][j].count;
        distinct += tables[0][j].count > 0;
    }
    printf("%016lx/%lu/%lu\n", sum, words, distinct);
}

static int is_prime(uint64_t n) {
    if (n < 4) return n >= 2;
    if (!(n & 1)) return 0;
    for (uint64_t divisor = 3; divisor * divisor <= n; divisor += 2)
        if (n % divisor == 0) return 0;
    return 1;
}

static void primes(uint64_t limit) {
    uint64_t found = 0;
    begin();
#pragma omp parallel for schedule(dynamic, 1) reduction(+ : found)
    for (uint64_t first = 0; first < limit; first += CHUNK)
        for (uint64_t n = first; n < first + CHUNK && n < limit; n++) found += is_prime(n);
    printf("%lu\n", found);
}

int main(int count, char **arguments) {
    if (count == 3 && strcmp(arguments[1], "kmeans") == 0) kmeans(arguments[2]);
    else if (count == 3 && strcmp(arguments[1], "wordcount") == 0) wordcount(arguments[2]);
    else if (count == 3 && strcmp(arguments[1], "primes") == 0) primes(strtoull(arguments[2], NULL, 10));
    else {
        fprintf(stderr, "usage: see the head of omp.c\n");
        return 2;
    }
    return 0;
}
