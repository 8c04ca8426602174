/* Runs one litmus test many times and counts its outcomes.
 *
 * Owns the timing that makes outcomes vary. Must not know which outcomes are allowed: the harness computes that from the
 * same text.
 *
 * usage: litmus --rounds N --layout one|two --seed S [--slot-us SHORTEST] 'x=1; r0=y | y=1; r1=x'
 *   locations x y z; registers r0..r7; `x=2` store, `r0=x` load, `r0=x++` lock xadd, `mfence`
 *   layout: the locations of an instance lie on one page, or each on a page of its own
 * prints: `outcome r0=0 r1=1 x=1 y=1 : 1234` for each outcome seen, then `rounds N`
 *
 * Instances run in batches. Every thread runs instance i of a batch at its time slot, plus a random delay before each
 * operation, so that no message between the threads orders them. A location is never cleared: a store writes
 * generation * 8 + value, and whatever the location held before the batch counts as 0.
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
#define BATCH 64
#define THREADS_MAX 4
#define OPERATIONS_MAX 4
#define LOCATIONS 3
#define REGISTERS 8
#define OUTCOMES_MAX 512
#define SLOT_NS_MAX 4000000

enum kind { STORE, LOAD, INCREMENT, FENCE };
struct operation { enum kind kind; int location, reg; uint64_t value; };

static struct operation program[THREADS_MAX][OPERATIONS_MAX];
static int length[THREADS_MAX], threads, locations, registers, increments;
static int one_page = 1;
static uint64_t rounds = 1000, slot_ns = 200000, seed = 1;

/* Page 0 of an instance holds all its locations, or x alone. */
static _Alignas(PAGE) uint8_t cells[BATCH * LOCATIONS * PAGE];
/* What each thread read, on pages of its own. */
static struct { _Alignas(PAGE) uint64_t value[BATCH][REGISTERS]; } seen[THREADS_MAX];
static uint64_t initial[BATCH][LOCATIONS];
static struct { _Alignas(PAGE) atomic_ullong arrived; } gate;
static struct { _Alignas(PAGE) atomic_ullong start_ns, generation, slot_ns; atomic_int over; } batch;

static struct { uint64_t key, count; } outcomes[OUTCOMES_MAX];
static int outcome_count;

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

/* Gives the processor away while the time is far: there may be fewer processors than threads. */
static void wait_until(uint64_t time_ns) {
    while (now_ns() + 20000 < time_ns) sched_yield();
    while (now_ns() < time_ns) {}
}

/* Mostly nothing or little, sometimes most of a slot. */
static void delay(uint64_t *state, uint64_t slot) {
    uint64_t longest[] = {1, 300, 3000, slot / 10, slot / 3, slot};
    uint64_t most = longest[next_random(state) % 6];
    wait_until(now_ns() + next_random(state) % most);
}

/* All threads arrive before one leaves. `turn` counts the meetings. */
static void meet(uint64_t *turn) {
    uint64_t all = ++*turn * threads;
    atomic_fetch_add(&gate.arrived, 1);
    while (atomic_load(&gate.arrived) < all) sched_yield();
}

static volatile uint64_t *cell(int instance, int location) {
    size_t at = one_page ? (size_t)instance * PAGE + location * 1024 : ((size_t)instance * LOCATIONS + location) * PAGE;
    return (volatile uint64_t *)(cells + at);
}

static void run_instance(int me, int instance, uint64_t generation, uint64_t slot, uint64_t *state) {
    for (int i = 0; i < length[me]; i++) {
        struct operation *operation = &program[me][i];
        volatile uint64_t *at = cell(instance, operation->location);
        delay(state, slot);
        switch (operation->kind) {
        case STORE: *at = generation * 8 + operation->value; break;
        case LOAD: seen[me].value[instance][operation->reg] = *at; break;
        case INCREMENT: seen[me].value[instance][operation->reg] = __atomic_fetch_add(at, 1, __ATOMIC_SEQ_CST); break;
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
    for (int instance = 0; instance < BATCH; instance++) {
        uint64_t key = 0;
        for (int thread = 0; thread < threads; thread++)
            for (int i = 0; i < length[thread]; i++) {
                struct operation *operation = &program[thread][i];
                if (operation->kind != LOAD && operation->kind != INCREMENT) continue;
                uint64_t value = seen[thread].value[instance][operation->reg];
                key |= plain(value, initial[instance][operation->location], generation) << (4 * operation->reg);
            }
        for (int location = 0; location < locations; location++) {
            uint64_t value = *cell(instance, location);
            key |= plain(value, initial[instance][location], generation) << (4 * (REGISTERS + location));
            initial[instance][location] = value;
        }
        count_outcome(key);
    }
}

static void *work(void *argument) {
    int me = (int)(intptr_t)argument;
    uint64_t state = seed * 0x9E3779B97F4A7C15ull + me * 0xD1B54A32D192ED03ull + 1, turn = 0;
    for (;;) {
        meet(&turn);
        if (batch.over) return NULL;
        uint64_t start = batch.start_ns, generation = batch.generation, slot = batch.slot_ns;
        /* The hosts' clocks differ a little, always the same way: in half of the batches each thread is late by an amount of its own. */
        uint64_t shift = next_random(&state) % 2 ? next_random(&state) % (2 * slot) : 0;
        for (int instance = 0; instance < BATCH; instance++) {
            wait_until(start + shift + instance * slot);
            run_instance(me, instance, generation, slot, &state);
        }
        meet(&turn);
        if (me != 0) continue;
        uint64_t end = start + BATCH * slot, now = now_ns();
        tally(generation);
        if (generation * BATCH >= rounds) batch.over = 1;
        batch.generation = generation + 1;
        /* Threads that run behind their slots no longer meet: slots as long as the machine needs them. */
        if (now > end + 4 * slot && slot < SLOT_NS_MAX) slot += slot / 2;
        else if (now < end + 2 * slot && slot > slot_ns) slot -= slot / 10;
        batch.slot_ns = slot;
        batch.start_ns = now_ns() + 2 * slot;
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
        }
        threads++;
    }
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (i + 1 < argc && strcmp(argv[i], "--rounds") == 0) rounds = strtoull(argv[++i], NULL, 10);
        else if (i + 1 < argc && strcmp(argv[i], "--seed") == 0) seed = strtoull(argv[++i], NULL, 10);
        else if (i + 1 < argc && strcmp(argv[i], "--slot-us") == 0) slot_ns = strtoull(argv[++i], NULL, 10) * 1000;
        else if (i + 1 < argc && strcmp(argv[i], "--layout") == 0) one_page = strcmp(argv[++i], "one") == 0;
        else if (argv[i][0] != '-') parse(argv[i]);
        else fail(argv[i]);
    }
    if (threads == 0) fail("no test");
    batch.generation = 1;
    batch.slot_ns = slot_ns;
    batch.start_ns = now_ns() + 50 * 1000000ull;
    pthread_t thread[THREADS_MAX];
    for (intptr_t i = 0; i < threads; i++)
        if (pthread_create(&thread[i], NULL, work, (void *)i) != 0) return 3;
    for (int i = 0; i < threads; i++) pthread_join(thread[i], NULL);
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
    return 0;
}
