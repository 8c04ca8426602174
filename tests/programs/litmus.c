/* Runs one litmus test many times and counts its outcomes.
 *
 * Owns the timing that makes outcomes vary. Must not know which outcomes are allowed: the harness computes that from the
 * same text.
 *
 * usage: litmus --rounds N --layout one|two --seed S 'x=1; r0=y | y=1; r1=x'
 *   locations x y z; registers r0..r7; `x=2` store, `r0=x` load, `r0=x++` lock xadd, `mfence`
 *   layout: the locations of a round lie on one page, or each on a page of its own
 * prints: `outcome r0=0 r1=1 x=1 y=1 : 1234` for each outcome seen, then `rounds N`; on stderr what it cost
 *
 * Rounds run in batches, and no message between the threads orders those of a batch: every thread knows from the seed when
 * each of its operations is due. Each round has words of its own, the rounds that follow one another on the same pages. A
 * word is never cleared: a store writes generation * 8 + value, and whatever the word held before the batch counts as 0.
 * The clock is CLOCK_MONOTONIC, one for all hosts: they are network namespaces of one kernel.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PAGE 4096
#define LINE 64
/* A host becomes home of whole extents, by touching them first. */
#define EXTENT (2ull << 20)
#define BATCH 512
#define THREADS_MAX 4
#define OPERATIONS_MAX 4
#define LOCATIONS 3
#define REGISTERS 8
#define OUTCOMES_MAX 512
#define UNIT_NS_MIN 20000
/* More would not help: the threads of a busy machine are late by time slices. */
#define UNIT_NS_MAX 150000
/* After so many rounds there is a pause of so many units, in which late threads catch up. */
#define GROUP 16
#define PAUSE_UNITS 8
/* A thread gives its processor away while its time is farther than this. */
#define SPIN_NS 20000
/* From the end of a batch to the first round of the next: time to meet and to draw. */
#define START_NS 1000000

enum kind { STORE, LOAD, INCREMENT, FENCE };
struct operation { enum kind kind; int location, reg; uint64_t value; };

static struct operation program[THREADS_MAX][OPERATIONS_MAX];
static int length[THREADS_MAX], threads, operations, locations, registers, increments;
static int one_page = 1;
static uint64_t rounds = 1000, seed = 1;

/* The words: an extent for each thread, whose host is home of it. Batches use them in turn. */
static uint8_t *areas;
static uint64_t initial[THREADS_MAX][BATCH][LOCATIONS];
/* What each thread read and how often it was late, on pages of its own. */
static struct { _Alignas(PAGE) uint64_t value[BATCH][OPERATIONS_MAX]; uint64_t late; } seen[THREADS_MAX];
static struct { _Alignas(PAGE) atomic_ullong arrived; } gate;
/* `unit_ns`: about what a page needs from host to host. */
static struct { _Alignas(PAGE) uint64_t generation, start_ns, unit_ns; int over; } batch;

static struct { uint64_t key, count; } outcomes[OUTCOMES_MAX];
static int outcome_count;
static uint64_t late_rounds;

static uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void wait_until(uint64_t time_ns) {
    while (now_ns() + SPIN_NS < time_ns) sched_yield();
    while (now_ns() < time_ns) __asm__ volatile("pause");
}

/* Times between a round's operations: none, less than a page needs to travel, or enough for an order as drawn. */
static uint64_t draw_step(uint64_t *state, uint64_t unit) {
    uint64_t longest[] = {0, 0, 0, unit / 16, unit / 2, unit, 2 * unit, 4 * unit};
    uint64_t most = longest[next_random(state) % 8];
    return most ? 1 + next_random(state) % most : 0;
}

/* The thread of one of the `left` operations that are not yet placed. */
static int draw_thread(uint64_t *state, const int *next, int left) {
    int drawn = next_random(state) % left, thread = 0;
    while (drawn >= length[thread] - next[thread]) {
        drawn -= length[thread] - next[thread];
        thread++;
    }
    return thread;
}

/* When each operation of `me` is due. The order of a round's operations is drawn from all interleavings, in a quarter of the
 * rounds from those that leave threads whole, by the same draws in every thread. `own` delays a thread's rounds a little each,
 * and all of a batch in half of the batches, since a thread that is always last would see few outcomes. */
static void schedule(int me, uint64_t *own, uint64_t due[BATCH][OPERATIONS_MAX]) {
    uint64_t state = (seed << 32) + batch.generation * 0x9E3779B97F4A7C15ull + 1, time = batch.start_ns, unit = batch.unit_ns;
    uint64_t jitters[] = {1, 300, 3000, unit / 4};
    uint64_t shift = next_random(own) % 2 ? next_random(own) % (4 * unit) : 0;
    for (int round = 0; round < BATCH; round++) {
        uint64_t step = draw_step(&state, unit), jitter = next_random(own) % jitters[next_random(own) % 4];
        int next[THREADS_MAX] = {0}, whole = next_random(&state) % 4 == 0, thread = 0;
        for (int left = operations; left > 0; left--) {
            if (!whole || next[thread] == 0 || next[thread] == length[thread]) thread = draw_thread(&state, next, left);
            if (thread == me) due[round][next[me]] = time + shift + jitter;
            next[thread]++;
            time += step;
        }
        time += (round + 1) % GROUP == 0 ? PAUSE_UNITS * unit : unit;
    }
}

/* All threads arrive before one leaves. `turn` counts the meetings. */
static void meet(uint64_t *turn) {
    uint64_t all = ++*turn * threads;
    atomic_fetch_add(&gate.arrived, 1);
    while (atomic_load(&gate.arrived) < all) sched_yield();
}

static volatile uint64_t *cell(uint64_t generation, int round, int location) {
    int per_page = one_page ? PAGE / LINE / locations : PAGE / LINE;
    int page = one_page ? round / per_page : round / per_page * locations + location;
    int line = one_page ? round % per_page * locations + location : round % per_page;
    return (volatile uint64_t *)(areas + generation % threads * EXTENT + page * PAGE + line * LINE);
}

/* An operation that is due when its predecessor is, or long past, follows it at once. */
static void run_round(int me, int round, uint64_t generation, const uint64_t *due) {
    for (int i = 0; i < length[me]; i++) {
        struct operation *operation = &program[me][i];
        volatile uint64_t *at = cell(generation, round, operation->location);
        if (i == 0 || due[i] != due[i - 1]) wait_until(due[i]);
        switch (operation->kind) {
        case STORE: *at = generation * 8 + operation->value; break;
        case LOAD: seen[me].value[round][i] = *at; break;
        case INCREMENT: seen[me].value[round][i] = __atomic_fetch_add(at, 1, __ATOMIC_SEQ_CST); break;
        case FENCE: __asm__ volatile("mfence" ::: "memory"); break;
        }
        __asm__ volatile("" ::: "memory");
    }
}

/* The value as the test's text has it. */
static uint64_t plain(uint64_t value, uint64_t before, uint64_t generation) {
    if (value == before) return 0;
    if (value / 8 == generation) return value % 8;
    if (increments && value > before && value - before < 8) return value - before;
    printf("corrupt value %#llx, before the batch %#llx, generation %llu\n", (unsigned long long)value,
           (unsigned long long)before, (unsigned long long)generation);
    exit(4);
}

static void count_outcome(uint64_t key) {
    int i = 0;
    while (i < outcome_count && outcomes[i].key != key) i++;
    if (i == OUTCOMES_MAX) { puts("too many outcomes"); exit(4); }
    if (i == outcome_count) outcomes[outcome_count++].key = key;
    outcomes[i].count++;
}

static void tally(uint64_t generation) {
    uint64_t(*before)[LOCATIONS] = initial[generation % threads];
    for (int round = 0; round < BATCH; round++) {
        uint64_t key = 0;
        for (int thread = 0; thread < threads; thread++)
            for (int i = 0; i < length[thread]; i++) {
                struct operation *operation = &program[thread][i];
                if (operation->kind != LOAD && operation->kind != INCREMENT) continue;
                uint64_t value = seen[thread].value[round][i];
                key |= plain(value, before[round][operation->location], generation) << (4 * operation->reg);
            }
        for (int location = 0; location < locations; location++) {
            uint64_t value = *cell(generation, round, location);
            key |= plain(value, before[round][location], generation) << (4 * (REGISTERS + location));
            before[round][location] = value;
        }
        count_outcome(key);
    }
}

/* Threads that are late run their rounds in bursts: units as long as the machine needs them. */
static void adapt(void) {
    uint64_t late = 0;
    for (int thread = 0; thread < threads; thread++) late += seen[thread].late;
    late_rounds += late;
    if (late > (uint64_t)threads * BATCH / 2) batch.unit_ns += batch.unit_ns / 3;
    else if (late < (uint64_t)threads * BATCH / 4) batch.unit_ns -= batch.unit_ns / 8;
    if (batch.unit_ns > UNIT_NS_MAX) batch.unit_ns = UNIT_NS_MAX;
    if (batch.unit_ns < UNIT_NS_MIN) batch.unit_ns = UNIT_NS_MIN;
}

static void *work(void *argument) {
    int me = (int)(intptr_t)argument;
    uint64_t own = seed * 0x9E3779B97F4A7C15ull + me * 0xD1B54A32D192ED03ull + 1, turn = 0;
    uint64_t due[BATCH][OPERATIONS_MAX];
    *(volatile uint64_t *)(areas + me * EXTENT) = 0;
    for (;;) {
        meet(&turn);
        if (batch.over) return NULL;
        uint64_t generation = batch.generation, unit = batch.unit_ns, late = 0;
        schedule(me, &own, due);
        for (int round = 0; round < BATCH; round++) {
            late += now_ns() > due[round][0] + unit;
            run_round(me, round, generation, due[round]);
        }
        seen[me].late = late;
        meet(&turn);
        if (me != 0) continue;
        tally(generation);
        adapt();
        batch.over = generation * BATCH >= rounds;
        batch.generation = generation + 1;
        batch.start_ns = now_ns() + START_NS;
    }
}

static void fail(const char *what) {
    fprintf(stderr, "litmus: cannot read `%s`\n", what);
    exit(2);
}

static void parse_operation(const char *text, struct operation *operation) {
    char name[2];
    int reg;
    unsigned long long value;
    while (*text == ' ') text++;
    if (strncmp(text, "mfence", 6) == 0) {
        operation->kind = FENCE;
        return;
    }
    if (sscanf(text, "r%d=%1[xyz]", &reg, name) == 2 && reg < REGISTERS) {
        operation->kind = strstr(text, "++") ? INCREMENT : LOAD;
        increments |= operation->kind == INCREMENT;
        operation->reg = reg;
        if (reg >= registers) registers = reg + 1;
    } else if (sscanf(text, "%1[xyz]=%llu", name, &value) == 2 && value < 8) {
        operation->kind = STORE;
        operation->value = value;
    } else {
        fail(text);
    }
    operation->location = name[0] - 'x';
    if (operation->location >= locations) locations = operation->location + 1;
}

static void parse(char *text) {
    char *rest = text, *part;
    while ((part = strsep(&rest, "|"))) {
        if (threads == THREADS_MAX) fail(part);
        char *one, *more = part;
        while ((one = strsep(&more, ";"))) {
            if (length[threads] == OPERATIONS_MAX) fail(one);
            parse_operation(one, &program[threads][length[threads]++]);
            operations++;
        }
        threads++;
    }
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (i + 1 < argc && strcmp(argv[i], "--rounds") == 0) rounds = strtoull(argv[++i], NULL, 10);
        else if (i + 1 < argc && strcmp(argv[i], "--seed") == 0) seed = strtoull(argv[++i], NULL, 10);
        else if (i + 1 < argc && strcmp(argv[i], "--layout") == 0) one_page = strcmp(argv[++i], "one") == 0;
        else if (argv[i][0] != '-') parse(argv[i]);
        else fail(argv[i]);
    }
    if (threads == 0) fail("no test");
    areas = aligned_alloc(EXTENT, threads * EXTENT);
    if (!areas) return 3;
    uint64_t began = now_ns();
    batch.generation = 1;
    batch.unit_ns = 2 * UNIT_NS_MIN;
    batch.start_ns = began + 20 * START_NS;
    pthread_t thread[THREADS_MAX];
    for (intptr_t i = 0; i < threads; i++)
        if (pthread_create(&thread[i], NULL, work, (void *)i) != 0) return 3;
    for (int i = 0; i < threads; i++) pthread_join(thread[i], NULL);
    uint64_t took = now_ns() - began;
    uint64_t total = 0;
    for (int i = 0; i < outcome_count; i++) {
        printf("outcome");
        for (int reg = 0; reg < registers; reg++) printf(" r%d=%d", reg, (int)(outcomes[i].key >> (4 * reg) & 15));
        for (int location = 0; location < locations; location++)
            printf(" %c=%d", 'x' + location, (int)(outcomes[i].key >> (4 * (REGISTERS + location)) & 15));
        printf(" : %llu\n", (unsigned long long)outcomes[i].count);
        total += outcomes[i].count;
    }
    printf("rounds %llu\n", (unsigned long long)total);
    fprintf(stderr, "litmus: %llu us a round, %llu%% of rounds late, unit %llu us\n", (unsigned long long)(took / total / 1000),
            (unsigned long long)(late_rounds * 100 / threads / total), (unsigned long long)(batch.unit_ns / 1000));
    return 0;
}
