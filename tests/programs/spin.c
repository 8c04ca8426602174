/* C11 threads and atomics that never sleep: a barrier of spinning members, a ticket lock, a sequence lock, a ring of one producer and
 * one consumer; then mutex, condition, once and thread-specific storage of <threads.h>.
 *
 * Owns deterministic output: integers only. Must not know hosts.
 */
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <threads.h>

enum { MEMBERS = 4, ROUNDS = 60, SLOTS = 16, ITEMS = 600 };

static uint64_t mix(uint64_t value) {
    value ^= value >> 33;
    value *= 0xff51afd7ed558ccdull;
    value ^= value >> 33;
    return value;
}

static atomic_int arrived, sense;
static atomic_uint next_ticket, serving;
static uint64_t guarded, cells[2][MEMBERS] = {{1, 2, 3, 4}};
static atomic_uint sequence;
static _Atomic uint64_t halves[2];
static atomic_int torn;

static void meet(int *mine) {
    *mine = !*mine;
    if (atomic_fetch_add(&arrived, 1) == MEMBERS - 1) {
        atomic_store_explicit(&arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&sense, *mine, memory_order_release);
    } else {
        while (atomic_load_explicit(&sense, memory_order_acquire) != *mine) {
            if (MEMBERS > 2) thrd_yield();
        }
    }
}

static void guard(uint64_t value) {
    unsigned ticket = atomic_fetch_add(&next_ticket, 1);
    while (atomic_load_explicit(&serving, memory_order_acquire) != ticket) thrd_yield();
    guarded += value;
    atomic_store_explicit(&serving, ticket + 1, memory_order_release);
}

static void write_both(uint64_t value) {
    atomic_fetch_add(&sequence, 1);
    atomic_store(&halves[0], value);
    atomic_store(&halves[1], ~value);
    atomic_fetch_add(&sequence, 1);
}

static void read_both(void) {
    for (;;) {
        unsigned before = atomic_load(&sequence);
        uint64_t first = atomic_load(&halves[0]), second = atomic_load(&halves[1]);
        if (before % 2 == 0 && atomic_load(&sequence) == before) {
            if (before && first != ~second) atomic_fetch_add(&torn, 1);
            return;
        }
        thrd_yield();
    }
}

static int member(void *argument) {
    int me = (int)(intptr_t)argument, mine = 0;
    for (int round = 0; round < ROUNDS; round++) {
        cells[(round + 1) % 2][me] = mix(cells[round % 2][(me + 1) % MEMBERS] + round);
        guard(me + 1);
        if (me == 0) write_both(mix(round));
        else read_both();
        meet(&mine);
    }
    return me;
}

static uint64_t ring[SLOTS];
static atomic_uint head, tail;

static int produce(void *argument) {
    (void)argument;
    for (unsigned i = 0; i < ITEMS; i++) {
        while (i - atomic_load_explicit(&tail, memory_order_acquire) == SLOTS) thrd_yield();
        ring[i % SLOTS] = mix(i);
        atomic_store_explicit(&head, i + 1, memory_order_release);
    }
    return 0;
}

static uint64_t consume(void) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < ITEMS; i++) {
        while (atomic_load_explicit(&head, memory_order_acquire) == i) thrd_yield();
        sum = mix(sum + ring[i % SLOTS]);
        atomic_store_explicit(&tail, i + 1, memory_order_release);
    }
    return sum;
}

static mtx_t lock;
static cnd_t changed;
static once_flag once = ONCE_FLAG_INIT;
static tss_t slot;
static atomic_int destroyed, started;
static int turn;

static void ended(void *value) { atomic_fetch_add(&destroyed, (int)(intptr_t)value); }
static void begin(void) { atomic_fetch_add(&started, 1); }

static int waiter(void *argument) {
    int me = (int)(intptr_t)argument;
    call_once(&once, begin);
    tss_set(slot, (void *)(intptr_t)(me + 1));
    for (int round = 0; round < 30; round++) {
        mtx_lock(&lock);
        while (turn % MEMBERS != me) cnd_wait(&changed, &lock);
        turn++;
        cnd_broadcast(&changed);
        mtx_unlock(&lock);
    }
    return me * 10;
}

static int run(thrd_start_t body) {
    thrd_t threads[MEMBERS];
    int sum = 0, result;
    for (int i = 0; i < MEMBERS; i++)
        if (thrd_create(&threads[i], body, (void *)(intptr_t)i) != thrd_success) return -1;
    for (int i = 0; i < MEMBERS; i++) {
        thrd_join(threads[i], &result);
        sum += result;
    }
    return sum;
}

int main(void) {
    int members = run(member);
    printf("members %d guarded %llu cells %016llx torn %d\n", members, (unsigned long long)guarded,
           (unsigned long long)(cells[0][0] ^ cells[0][3]), atomic_load(&torn));
    thrd_t producer;
    thrd_create(&producer, produce, NULL);
    uint64_t sum = consume();
    thrd_join(producer, NULL);
    printf("ring %016llx\n", (unsigned long long)sum);
    mtx_init(&lock, mtx_plain);
    cnd_init(&changed);
    tss_create(&slot, ended);
    int results = run(waiter);
    printf("waiters %d turns %d started %d destroyed %d\n", results, turn, atomic_load(&started), atomic_load(&destroyed));
    return 0;
}
