/* Stress of the thread library and the address space, one phase after another.
 *
 * Owns deterministic output: what it prints depends on the arguments alone. Must not know that it may run on several hosts.
 * usage: stress [threads] [phase] [part]      a phase by name, or all of them; what takes long is done as often as 1 / part of usual
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 64
#define PAGE 4096

static int threads = 6, part = 1;
static const char *phase_now = "start";

#define CHECK(condition)                                                                        \
    do {                                                                                        \
        if (!(condition)) {                                                                     \
            fprintf(stderr, "stress: phase %s: line %d: not true: %s\n", phase_now, __LINE__, #condition); \
            fflush(stderr);                                                                     \
            _exit(3);                                                                           \
        }                                                                                       \
    } while (0)

typedef void *(*body)(void *);

/* Runs one body per thread and joins all; the sum of what they return. */
static uint64_t run_all(body work) {
    pthread_t thread[THREADS_MAX];
    uint64_t sum = 0;
    for (intptr_t i = 0; i < threads; i++) CHECK(pthread_create(&thread[i], NULL, work, (void *)i) == 0);
    for (int i = 0; i < threads; i++) {
        void *value;
        CHECK(pthread_join(thread[i], &value) == 0);
        sum += (uintptr_t)value;
    }
    return sum;
}

static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* --- mutex ------------------------------------------------------------------------------------------------------ */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static uint64_t counter;

static void *mutex_body(void *argument) {
    for (int i = 0; i < 2000; i++) {
        pthread_mutex_lock(&mutex);
        counter += 1 + (uintptr_t)argument;
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

static uint64_t phase_mutex(void) {
    counter = 0;
    run_all(mutex_body);
    CHECK(counter == 2000ull * threads * (threads + 1) / 2);
    return counter;
}

/* --- condition variables: a bounded queue ------------------------------------------------------------------------ */
#define ITEMS (600 / part)
static pthread_cond_t not_empty = PTHREAD_COND_INITIALIZER, not_full = PTHREAD_COND_INITIALIZER;
static int queue[8], queue_count, queue_head, produced, consumed;

static void *condvar_body(void *argument) {
    uint64_t sum = 0;
    if ((intptr_t)argument % 2 == 0) {
        for (;;) {
            pthread_mutex_lock(&mutex);
            while (queue_count == 8 && produced < ITEMS) pthread_cond_wait(&not_full, &mutex);
            if (produced == ITEMS) { pthread_mutex_unlock(&mutex); break; }
            queue[(queue_head + queue_count++) % 8] = ++produced;
            pthread_cond_signal(&not_empty);
            if (produced == ITEMS) { pthread_cond_broadcast(&not_full); pthread_cond_broadcast(&not_empty); }
            pthread_mutex_unlock(&mutex);
        }
    } else {
        for (;;) {
            pthread_mutex_lock(&mutex);
            while (queue_count == 0 && consumed < ITEMS) {
                struct timespec until;
                clock_gettime(CLOCK_REALTIME, &until);
                until.tv_sec += 1;
                pthread_cond_timedwait(&not_empty, &mutex, &until);
            }
            if (consumed == ITEMS) { pthread_cond_broadcast(&not_empty); pthread_mutex_unlock(&mutex); break; }
            sum += queue[queue_head];
            queue_head = (queue_head + 1) % 8;
            queue_count--;
            if (++consumed == ITEMS) pthread_cond_broadcast(&not_empty);
            pthread_cond_signal(&not_full);
            pthread_mutex_unlock(&mutex);
        }
    }
    return (void *)(uintptr_t)sum;
}

static uint64_t phase_condvar(void) {
    CHECK(threads >= 2);
    produced = consumed = queue_count = queue_head = 0;
    uint64_t sum = run_all(condvar_body);
    CHECK(sum == ITEMS * (ITEMS + 1) / 2);
    return sum;
}

/* --- barrier ----------------------------------------------------------------------------------------------------- */
static pthread_barrier_t barrier;
static volatile int arrived[THREADS_MAX];
static atomic_int serial_threads;

static void *barrier_body(void *argument) {
    intptr_t me = (intptr_t)argument;
    for (int round = 1; round <= 50; round++) {
        arrived[me] = round;
        if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD) serial_threads++;
        for (int i = 0; i < threads; i++) CHECK(arrived[i] == round);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

static uint64_t phase_barrier(void) {
    serial_threads = 0;
    memset((void *)arrived, 0, sizeof arrived);
    CHECK(pthread_barrier_init(&barrier, NULL, threads) == 0);
    run_all(barrier_body);
    CHECK(serial_threads == 50);
    CHECK(pthread_barrier_destroy(&barrier) == 0);
    return serial_threads;
}

/* --- rwlock ------------------------------------------------------------------------------------------------------ */
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static volatile uint64_t pair_left, pair_right;

static void *rwlock_body(void *argument) {
    uint32_t random = 7 + (uintptr_t)argument;
    for (int i = 0; i < 400; i++) {
        if (i % 8 == 0) {
            pthread_rwlock_wrlock(&rwlock);
            pair_left++;
            for (volatile int wait = next_random(&random) % 50; wait > 0; wait--) {}
            pair_right++;
            pthread_rwlock_unlock(&rwlock);
        } else {
            pthread_rwlock_rdlock(&rwlock);
            CHECK(pair_left == pair_right);
            pthread_rwlock_unlock(&rwlock);
        }
    }
    return NULL;
}

static uint64_t phase_rwlock(void) {
    pair_left = pair_right = 0;
    run_all(rwlock_body);
    CHECK(pair_left == 50ull * threads);
    return pair_left;
}

/* --- semaphores, once -------------------------------------------------------------------------------------------- */
static sem_t tokens;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static atomic_int inside, inside_max, once_runs;
static void run_once(void) { once_runs++; }

static void *semaphore_body(void *argument) {
    (void)argument;
    pthread_once(&once, run_once);
    for (int i = 0; i < 200; i++) {
        while (sem_wait(&tokens) != 0) {}
        int now = ++inside, seen = inside_max;
        while (now > seen && !atomic_compare_exchange_weak(&inside_max, &seen, now)) {}
        inside--;
        sem_post(&tokens);
    }
    return NULL;
}

static uint64_t phase_semaphore(void) {
    inside = inside_max = 0;
    CHECK(sem_init(&tokens, 0, 2) == 0);
    run_all(semaphore_body);
    CHECK(inside == 0 && inside_max >= 1 && inside_max <= 2 && once_runs == 1);
    return once_runs;
}

/* --- thread-local storage and its destructors --------------------------------------------------------------------- */
static pthread_key_t key_first, key_second;
static atomic_ullong destroyed;
static __thread uint64_t local_words[700];
static __thread uint64_t local_seed = 42;

static void destroy(void *value) {
    destroyed += *(uint64_t *)value;
    free(value);
}

static void *tls_body(void *argument) {
    uint64_t me = (uintptr_t)argument + 1;
    CHECK(local_seed == 42);
    for (int i = 0; i < 700; i++) CHECK(local_words[i] == 0);
    uint64_t *first = malloc(sizeof *first), *second = malloc(sizeof *second);
    *first = me;
    *second = me * 1000;
    pthread_setspecific(key_first, first);
    pthread_setspecific(key_second, second);
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 700; i++) local_words[i] += me;
        sched_yield();
    }
    for (int i = 0; i < 700; i++) CHECK(local_words[i] == 20 * me);
    local_seed = me;
    CHECK(pthread_getspecific(key_first) == first);
    return NULL;
}

static uint64_t phase_tls(void) {
    destroyed = 0;
    CHECK(pthread_key_create(&key_first, destroy) == 0 && pthread_key_create(&key_second, destroy) == 0);
    for (int round = 0; round < 3; round++) run_all(tls_body);
    CHECK(destroyed == 3ull * 1001 * threads * (threads + 1) / 2);
    pthread_key_delete(key_first);
    pthread_key_delete(key_second);
    return destroyed;
}

/* --- malloc: many sizes, blocks freed by another thread than their maker's ---------------------------------------- */
static _Atomic(uint8_t *) mailbox[THREADS_MAX];

static uint8_t *make_block(uint32_t *random) {
    uint32_t size = 16 + next_random(random) % (next_random(random) % 64 == 0 ? 300000 : 3000);
    uint8_t *block = malloc(size);
    CHECK(block != NULL);
    memcpy(block, &size, 4);
    memset(block + 4, size & 255, size - 4);
    return block;
}

static void end_block(uint8_t *block) {
    uint32_t size;
    memcpy(&size, block, 4);
    for (uint32_t i = 4; i < size; i++) CHECK(block[i] == (size & 255));
    free(block);
}

static void *malloc_body(void *argument) {
    intptr_t me = (intptr_t)argument;
    uint32_t random = 100 + me;
    uint8_t *held[32] = {0};
    for (int i = 0; i < 600; i++) {
        uint8_t **place = &held[next_random(&random) % 32];
        if (*place) end_block(*place);
        *place = make_block(&random);
        if (i % 10 == 0) {
            uint8_t *other = atomic_exchange(&mailbox[(me + 1) % threads], make_block(&random));
            if (other) end_block(other);
        }
        if (i % 50 == 0) {
            uint8_t *bigger = realloc(make_block(&random), 400000);
            CHECK(bigger != NULL);
            free(bigger);
        }
    }
    for (int i = 0; i < 32; i++) if (held[i]) end_block(held[i]);
    return NULL;
}

static uint64_t phase_malloc(void) {
    run_all(malloc_body);
    uint64_t left = 0;
    for (int i = 0; i < threads; i++) {
        uint8_t *block = atomic_exchange(&mailbox[i], NULL);
        if (block) { end_block(block); left++; }
    }
    CHECK(left == (uint64_t)threads);
    return left;
}

/* --- mmap and munmap: reused memory reads zero --------------------------------------------------------------------- */
static void *mmap_body(void *argument) {
    uint32_t random = 900 + (uintptr_t)argument;
    for (int i = 0; i < 120 / part; i++) {
        size_t bytes = (1 + next_random(&random) % 24) * PAGE;
        uint8_t *block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(block != MAP_FAILED);
        for (size_t at = 0; at < bytes; at += 512) CHECK(block[at] == 0);
        memset(block, 0xA5, bytes);
        if (i % 3 == 0) {
            CHECK(madvise(block, bytes, MADV_DONTNEED) == 0);
            for (size_t at = 0; at < bytes; at += 512) CHECK(block[at] == 0);
            memset(block, 0x5A, bytes);
        }
        if (i % 4 == 1 && bytes > 2 * PAGE) {
            /* Not munmap: another thread's mmap could take the hole before it is filled again. */
            uint8_t *fence = mmap(block + PAGE, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
            CHECK(fence == block + PAGE);
            CHECK(block[0] == (i % 3 == 0 ? 0x5A : 0xA5));
            uint8_t *hole = mmap(block + PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
            CHECK(hole == block + PAGE && hole[0] == 0 && hole[PAGE - 1] == 0);
        }
        if (i % 5 == 0) {
            uint8_t *moved = mremap(block, bytes, bytes * 2, MREMAP_MAYMOVE);
            CHECK(moved != MAP_FAILED);
            CHECK(moved[0] == (i % 3 == 0 ? 0x5A : 0xA5) && moved[bytes] == 0 && moved[2 * bytes - 1] == 0);
            block = moved;
            bytes *= 2;
        }
        CHECK(munmap(block, bytes) == 0);
    }
    return (void *)1;
}

/* One thread writes, all look, one unmaps and maps again: nobody may see the old bytes. */
static uint8_t *volatile shared_block;
static void *remap_body(void *argument) {
    for (int round = 0; round < 30 / part; round++) {
        if (argument == NULL) {
            shared_block = mmap((void *)0x200000000000, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            CHECK((void *)shared_block != MAP_FAILED);
        }
        pthread_barrier_wait(&barrier);
        for (int page = 0; page < 16; page++) CHECK(shared_block[page * PAGE + 77] == 0);
        pthread_barrier_wait(&barrier);
        for (int page = (intptr_t)argument; page < 16; page += threads) shared_block[page * PAGE + 77] = round + 1;
        pthread_barrier_wait(&barrier);
        for (int page = 0; page < 16; page++) CHECK(shared_block[page * PAGE + 77] == round + 1);
        pthread_barrier_wait(&barrier);
        if (argument == NULL) CHECK(munmap(shared_block, 16 * PAGE) == 0);
    }
    return NULL;
}

static uint64_t phase_mmap(void) {
    uint64_t sum = run_all(mmap_body);
    CHECK(pthread_barrier_init(&barrier, NULL, threads) == 0);
    run_all(remap_body);
    CHECK(pthread_barrier_destroy(&barrier) == 0);
    return sum;
}

/* --- guard page: the fault arrives in the thread that made it, with its address ------------------------------------ */
static __thread sigjmp_buf escape;
static __thread void *volatile fault_address;

static void on_fault(int number, siginfo_t *information, void *context) {
    (void)number, (void)context;
    fault_address = information->si_addr;
    siglongjmp(escape, 1);
}

static void *guard_body(void *argument) {
    (void)argument;
    volatile uint64_t caught = 0;
    uint8_t *block = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(block != MAP_FAILED);
    memset(block, 1, 4 * PAGE);
    for (int round = 0; round < 20; round++) {
        CHECK(mprotect(block + 2 * PAGE, PAGE, round % 2 ? PROT_READ : PROT_NONE) == 0);
        uint8_t *volatile at = block + 2 * PAGE + round;
        if (sigsetjmp(escape, 1) == 0) {
            *at = 9;
            CHECK(!"the write went through");
        }
        CHECK(fault_address == at);
        caught++;
        CHECK(mprotect(block + 2 * PAGE, PAGE, PROT_READ | PROT_WRITE) == 0);
        CHECK(*at == 1);
    }
    CHECK(munmap(block, 4 * PAGE) == 0);
    if (sigsetjmp(escape, 1) == 0) {
        volatile uintptr_t null_page = 16;
        *(volatile uint8_t *)null_page = 1;
        CHECK(!"the null page was written");
    }
    CHECK(fault_address == (void *)16);
    return (void *)(uintptr_t)(caught + 1);
}

static uint64_t phase_guard(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER}, before;
    CHECK(sigaction(SIGSEGV, &action, &before) == 0);
    uint64_t caught = run_all(guard_body);
    CHECK(sigaction(SIGSEGV, &before, NULL) == 0);
    CHECK(caught == 21ull * threads);
    return caught;
}

/* --- code made at run time, changed under write protection --------------------------------------------------------- */
static uint8_t *code;
static volatile int code_value;

static void *code_body(void *argument) {
    for (int round = 1; round <= 10; round++) {
        if (argument == NULL) {
            CHECK(mprotect(code, PAGE, PROT_READ | PROT_WRITE) == 0);
            uint8_t text[] = {0xB8, round, 0, 0, 0, 0xC3}; /* mov eax, round; ret */
            memcpy(code, text, sizeof text);
            CHECK(mprotect(code, PAGE, PROT_READ | PROT_EXEC) == 0);
            code_value = round;
        }
        pthread_barrier_wait(&barrier);
        CHECK(((int (*)(void))(void *)code)() == code_value);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

static uint64_t phase_code(void) {
    code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(code != MAP_FAILED);
    CHECK(pthread_barrier_init(&barrier, NULL, threads) == 0);
    run_all(code_body);
    CHECK(pthread_barrier_destroy(&barrier) == 0);
    CHECK(munmap(code, PAGE) == 0);
    return code_value;
}

/* --- thread churn -------------------------------------------------------------------------------------------------- */
static void *churn_body(void *argument) {
    volatile uint8_t stack[20000];
    for (size_t i = 0; i < sizeof stack; i += 1000) stack[i] = 1;
    return (void *)((uintptr_t)argument + stack[0]);
}

static atomic_int detached_done;
static void *detached_body(void *argument) {
    (void)argument;
    detached_done++;
    return NULL;
}

static uint64_t phase_churn(void) {
    uint64_t sum = 0;
    int waves = 25 / part;
    for (int wave = 0; wave < waves; wave++) sum += run_all(churn_body);
    CHECK(sum == (uint64_t)waves * threads * (threads + 1) / 2);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    detached_done = 0;
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, &attributes, detached_body, NULL) == 0);
    }
    for (int wait = 0; detached_done < 20 && wait < 10000; wait++) usleep(1000);
    CHECK(detached_done == 20);
    return sum;
}

/* --- signals to single threads ------------------------------------------------------------------------------------- */
static atomic_int signals_taken[THREADS_MAX];
static __thread int signal_self = -1;
static atomic_int signal_ready, signal_stop;

static void on_signal(int number) {
    (void)number;
    if (signal_self >= 0) signals_taken[signal_self]++;
}

static void *signal_body(void *argument) {
    signal_self = (intptr_t)argument;
    signal_ready++;
    while (!signal_stop) usleep(500);
    return NULL;
}

static uint64_t phase_signal(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    pthread_t thread[THREADS_MAX];
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    signal_ready = signal_stop = 0;
    memset((void *)signals_taken, 0, sizeof signals_taken);
    for (intptr_t i = 0; i < threads; i++) CHECK(pthread_create(&thread[i], NULL, signal_body, (void *)i) == 0);
    while (signal_ready < threads) usleep(500);
    uint64_t taken = 0;
    for (int round = 1; round <= 5; round++) {
        for (int i = 0; i < threads; i++) {
            CHECK(pthread_kill(thread[i], SIGUSR1) == 0);
            for (int wait = 0; signals_taken[i] < round && wait < 20000; wait++) usleep(500);
            CHECK(signals_taken[i] == round);
            taken++;
        }
    }
    signal_stop = 1;
    for (int i = 0; i < threads; i++) pthread_join(thread[i], NULL);
    return taken;
}

static const struct {
    const char *name;
    uint64_t (*run)(void);
} phases[] = {
    {"mutex", phase_mutex},   {"condvar", phase_condvar}, {"barrier", phase_barrier}, {"rwlock", phase_rwlock},
    {"semaphore", phase_semaphore}, {"tls", phase_tls},   {"malloc", phase_malloc},   {"mmap", phase_mmap},
    {"guard", phase_guard},   {"code", phase_code},       {"churn", phase_churn},     {"signal", phase_signal},
};

int main(int argc, char **argv) {
    if (argc > 1) threads = atoi(argv[1]);
    if (argc > 3) part = atoi(argv[3]);
    if (threads < 2 || threads > THREADS_MAX || part < 1 || part > 10) {
        fprintf(stderr, "stress: 2 to %d threads, a part of 1 to 10\n", THREADS_MAX);
        return 2;
    }
    int ran = 0;
    for (size_t i = 0; i < sizeof phases / sizeof *phases; i++) {
        if (argc > 2 && strcmp(argv[2], "all") != 0 && strcmp(argv[2], phases[i].name) != 0) continue;
        phase_now = phases[i].name;
        printf("%s %llu\n", phases[i].name, (unsigned long long)phases[i].run());
        fflush(stdout);
        ran++;
    }
    printf("%d phases, %d threads: ok\n", ran, threads);
    return ran > 0 ? 0 : 2;
}
