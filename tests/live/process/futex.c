// The futex call itself, and the locks that need more of it: robust, priority inheritance, process-shared.
#include "check.h"
#include <linux/futex.h>
#include <semaphore.h>
#include <sys/prctl.h>

static _Atomic int word;
static _Atomic int other;
static _Atomic int waiting;
static _Atomic int woken;

static long futex(_Atomic int *address, int operation, int value, const struct timespec *time, _Atomic int *second, int last)
{
    return syscall(SYS_futex, address, operation, value, time, second, last);
}

static void *wait_on_word(void *argument)
{
    waiting++;
    while (futex(&word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0) != 0 && errno == EINTR)
        ;
    woken++;
    return argument;
}

// Waiters on all hosts, asleep.
static void start_waiters(pthread_t *threads, int count, Body *body)
{
    for (int at = 0; at < count; at++)
        threads[at] = start_on(at + 1, body, NULL);
    UNTIL(waiting == count);
    ms(150);
}

static void join_all(pthread_t *threads, int count)
{
    for (int at = 0; at < count; at++)
        join(threads[at]);
}

BEHAVIOUR(wait_compares)
{
    word = 5;
    ON(1, { TRY(futex(&word, FUTEX_WAIT, 4, NULL, NULL, 0)); TRY(futex(&word, FUTEX_WAIT_PRIVATE, 6, NULL, NULL, 0)); });
}

BEHAVIOUR(wait_times_out)
{
    ON(1, {
        struct timespec soon = {0, 30000000};
        long begin = now_ms();
        TRY(futex(&word, FUTEX_WAIT, 0, &soon, NULL, 0));
        YES(now_ms() - begin >= 29);
        struct timespec bad = {0, 2000000000};
        TRY(futex(&word, FUTEX_WAIT, 0, &bad, NULL, 0));
    });
}

BEHAVIOUR(wait_until_absolute_time)
{
    ON(1, {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += 1;
        long begin = now_ms();
        TRY(futex(&word, FUTEX_WAIT_BITSET, 0, &until, NULL, FUTEX_BITSET_MATCH_ANY));
        YES(now_ms() - begin >= 990);
        clock_gettime(CLOCK_REALTIME, &until);
        TRY(futex(&word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &until, NULL, FUTEX_BITSET_MATCH_ANY));
    });
}

BEHAVIOUR(wake_counts)
{
    pthread_t threads[5];
    start_waiters(threads, 5, wait_on_word);
    ON(1, { SHOW(futex(&word, FUTEX_WAKE_PRIVATE, 2, NULL, NULL, 0)); });
    UNTIL(woken == 2);
    ms(50);
    SHOW(woken);
    ON(2, { SHOW(futex(&word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0)); });
    join_all(threads, 5);
    SHOW(futex(&word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
}

BEHAVIOUR(private_and_shared_do_not_meet)
{
    pthread_t threads[1];
    start_waiters(threads, 1, wait_on_word);
    ON(2, { SHOW(futex(&word, FUTEX_WAKE, 1, NULL, NULL, 0)); SHOW(futex(&word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0)); });
    join_all(threads, 1);
}

BEHAVIOUR(requeue_moves)
{
    pthread_t threads[4];
    start_waiters(threads, 4, wait_on_word);
    ON(1, { SHOW(futex(&word, FUTEX_REQUEUE_PRIVATE, 1, (void *)2, &other, 0)); });
    UNTIL(woken == 1);
    SHOW(futex(&other, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0));
    ON(2, { SHOW(futex(&word, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0)); });
    join_all(threads, 4);
}

BEHAVIOUR(compare_requeue_compares)
{
    pthread_t threads[3];
    start_waiters(threads, 3, wait_on_word);
    ON(1, {
        TRY(futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)10, &other, 7));
        SHOW(futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)10, &other, 0));
        SHOW(futex(&other, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0));
    });
    join_all(threads, 3);
}

static void *wait_for_bit(void *argument)
{
    static _Atomic int next;
    int bit = 1 << next++;
    waiting++;
    if (futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, NULL, NULL, bit) == 0)
        woken |= bit;
    return argument;
}

BEHAVIOUR(bitset_chooses)
{
    pthread_t threads[3];
    start_waiters(threads, 3, wait_for_bit);
    ON(1, { SHOW(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 10, NULL, NULL, 2)); });
    UNTIL(woken == 2);
    ON(2, { SHOW(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 10, NULL, NULL, 5)); TRY(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 1, NULL, NULL, 0)); });
    join_all(threads, 3);
    SHOW(woken);
}

BEHAVIOUR(wake_op_changes_and_wakes)
{
    pthread_t threads[2];
    start_waiters(threads, 2, wait_on_word);
    other = 5;
    ON(1, { other = 5; });
    ON(2, {
        // other += 3, and wake there too if it was above 4.
        SHOW(futex(&word, FUTEX_WAKE_OP_PRIVATE, 10, (void *)1, &other, FUTEX_OP(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_GT, 4)));
    });
    SHOW(other);
    join_all(threads, 2);
}

BEHAVIOUR(wake_op_under_contention)
{
    // The word's page is written by a thread elsewhere all the time.
    static struct { _Atomic int counter; _Atomic int beside; } *shared;
    static _Atomic bool is_over;
    shared = map(PAGE, PROT_READ | PROT_WRITE, 0);
    pthread_t writer = START(1, { while (!is_over) shared->beside++; });
    ON(2, {
        int failures = 0;
        for (int at = 0; at < 200; at++)
            if (futex(&word, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, &shared->counter, FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_EQ, 0)) < 0)
                failures++;
        SHOW(failures);
    });
    is_over = true;
    join(writer);
    SHOW(shared->counter);
}

BEHAVIOUR(bad_calls)
{
    ON(1, {
        TRY(futex((_Atomic int *)((char *)&word + 1), FUTEX_WAIT, 0, NULL, NULL, 0));
        TRY(futex((_Atomic int *)((char *)&word + 1), FUTEX_WAKE, 1, NULL, NULL, 0));
        TRY(futex(NULL, FUTEX_WAIT, 0, NULL, NULL, 0));
        TRY(futex(&word, 99, 0, NULL, NULL, 0));
        TRY(futex(&word, FUTEX_WAKE | FUTEX_CLOCK_REALTIME, 0, NULL, NULL, 0));
    });
}

BEHAVIOUR(wake_before_wait_is_lost)
{
    ON(1, { SHOW(futex(&word, FUTEX_WAKE, 1, NULL, NULL, 0)); struct timespec soon = {0, 10000000}; TRY(futex(&word, FUTEX_WAIT, 0, &soon, NULL, 0)); });
}

BEHAVIOUR(hand_over_between_hosts)
{
    // A token goes round three hosts 300 times, each hop a store, a wake and a wait.
    static _Atomic int token;
    void *body(void *argument)
    {
        int own = (uintptr_t)argument;
        for (int round = 0; round < 100; round++) {
            int seen;
            while ((seen = token) % HOSTS != own)
                futex(&token, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
            token++;
            futex(&token, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
        }
        return argument;
    }
    on_each(HOSTS, body);
    SHOW(token);
}

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
struct waitv { uint64_t value, address; uint32_t flags, reserved; };

BEHAVIOUR(waitv_waits_for_several)
{
    static struct waitv waiters[2];
    waiters[0] = (struct waitv){0, (uintptr_t)&word, 2 | 128, 0};
    waiters[1] = (struct waitv){0, (uintptr_t)&other, 2 | 128, 0};
    static long index;
    pthread_t thread = START(1, { waiting = 1; index = syscall(SYS_futex_waitv, waiters, 2, 0, NULL, 0); });
    UNTIL(waiting);
    ms(100);
    SHOW(futex(&other, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
    join(thread);
    SHOW(index);
}

BEHAVIOUR(robust_owner_dies)
{
    static pthread_mutex_t mutex;
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    PTHREAD(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST));
    PTHREAD(pthread_mutex_init(&mutex, &attributes));
    ON(1, { PTHREAD(pthread_mutex_lock(&mutex)); });
    PTHREAD(pthread_mutex_lock(&mutex));
    PTHREAD(pthread_mutex_consistent(&mutex));
    PTHREAD(pthread_mutex_unlock(&mutex));
    ON(2, { PTHREAD(pthread_mutex_lock(&mutex)); PTHREAD(pthread_mutex_unlock(&mutex)); });
}

BEHAVIOUR(robust_owner_dies_while_others_wait)
{
    static pthread_mutex_t mutex;
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&mutex, &attributes);
    pthread_t owner = START(1, { pthread_mutex_lock(&mutex); waiting = 1; ms(150); });
    UNTIL(waiting);
    pthread_t waiter = START(2, { PTHREAD(pthread_mutex_lock(&mutex)); PTHREAD(pthread_mutex_unlock(&mutex)); });
    join(owner);
    join(waiter);
    PTHREAD(pthread_mutex_lock(&mutex));
}

BEHAVIOUR(robust_not_recovered)
{
    static pthread_mutex_t mutex;
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&mutex, &attributes);
    ON(2, { pthread_mutex_lock(&mutex); });
    ON(1, { PTHREAD(pthread_mutex_lock(&mutex)); PTHREAD(pthread_mutex_unlock(&mutex)); });
    PTHREAD(pthread_mutex_lock(&mutex));
}

BEHAVIOUR(robust_list_of_many)
{
    static pthread_mutex_t mutexes[20];
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    for (int at = 0; at < 20; at++)
        pthread_mutex_init(&mutexes[at], &attributes);
    ON(1, { for (int at = 0; at < 20; at++) pthread_mutex_lock(&mutexes[at]); });
    int died = 0;
    for (int at = 0; at < 20; at++)
        died += pthread_mutex_lock(&mutexes[at]) == EOWNERDEAD;
    SHOW(died);
}

static bool made(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes)
{
    int error = pthread_mutex_init(mutex, attributes);
    say("pthread_mutex_init: %s\n", named(error));
    return error == 0;
}

BEHAVIOUR(inheriting_mutex_excludes)
{
    static pthread_mutex_t mutex;
    static int sum;
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    if (!made(&mutex, &attributes))
        return;
    void *body(void *argument)
    {
        for (int at = 0; at < 50; at++) {
            if (pthread_mutex_lock(&mutex) != 0)
                return argument;
            sum++;
            pthread_mutex_unlock(&mutex);
        }
        return argument;
    }
    on_each(3, body);
    SHOW(sum);
}

BEHAVIOUR(inheriting_mutex_contended)
{
    static pthread_mutex_t mutex;
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
    if (!made(&mutex, &attributes))
        return;
    pthread_t owner = START(1, { PTHREAD(pthread_mutex_lock(&mutex)); PTHREAD(pthread_mutex_lock(&mutex)); waiting = 1; ms(100); pthread_mutex_unlock(&mutex); });
    UNTIL(waiting);
    ON(2, { PTHREAD(pthread_mutex_lock(&mutex)); PTHREAD(pthread_mutex_unlock(&mutex)); });
    join(owner);
}

BEHAVIOUR(inheriting_robust_owner_dies)
{
    static pthread_mutex_t mutex;
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    if (!made(&mutex, &attributes))
        return;
    ON(1, { PTHREAD(pthread_mutex_lock(&mutex)); });
    PTHREAD(pthread_mutex_lock(&mutex));
}

BEHAVIOUR(trylock_pi_of_word)
{
    ON(1, {
        long result = futex(&word, FUTEX_TRYLOCK_PI_PRIVATE, 0, NULL, NULL, 0);
        say("futex: %s\n", outcome(result));
        if (result == 0) {
            YES((word & FUTEX_TID_MASK) == tid());
            TRY(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
            SHOW(word);
            ON(2, { word = 1; TRY(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0)); });
        }
    });
}

BEHAVIOUR(process_shared_in_shared_anonymous_memory)
{
    static struct { pthread_mutex_t mutex; pthread_cond_t condition; sem_t semaphore; int turn; } *shared;
    shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    YES(shared != MAP_FAILED);
    pthread_mutexattr_t attributes;
    pthread_condattr_t condition;
    pthread_mutexattr_init(&attributes);
    pthread_condattr_init(&condition);
    PTHREAD(pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED));
    PTHREAD(pthread_condattr_setpshared(&condition, PTHREAD_PROCESS_SHARED));
    PTHREAD(pthread_mutex_init(&shared->mutex, &attributes));
    PTHREAD(pthread_cond_init(&shared->condition, &condition));
    TRY(sem_init(&shared->semaphore, 1, 0));
    void *body(void *argument)
    {
        int own = (uintptr_t)argument;
        for (int round = 0; round < 20; round++) {
            pthread_mutex_lock(&shared->mutex);
            while (shared->turn % HOSTS != own)
                pthread_cond_wait(&shared->condition, &shared->mutex);
            shared->turn++;
            pthread_cond_broadcast(&shared->condition);
            pthread_mutex_unlock(&shared->mutex);
        }
        sem_post(&shared->semaphore);
        return argument;
    }
    on_each(HOSTS, body);
    for (int at = 0; at < HOSTS; at++)
        TRY(sem_wait(&shared->semaphore));
    SHOW(shared->turn);
}

BEHAVIOUR(robust_list_address)
{
    ON(1, {
        void *head = NULL;
        size_t length = 0;
        TRY(syscall(SYS_get_robust_list, 0, &head, &length));
        YES(head != NULL);
        SHOW(length);
        TRY(syscall(SYS_set_robust_list, head, 7));
    });
}

BEHAVIOUR(thread_end_wakes_word_of_its_number)
{
    ON(1, {
        pthread_t thread = START(2, { ms(50); });
        PTHREAD(pthread_join(thread, NULL));
        int address = 0;
        long old = syscall(SYS_set_tid_address, &address);
        YES(old == tid());
        syscall(SYS_set_tid_address, (char *)pthread_self() + 720);
    });
}

BEHAVIOUR(membarrier_query_and_use)
{
    ON(1, {
        long commands = syscall(SYS_membarrier, 0, 0, 0);
        say("membarrier: %s\n", outcome(commands));
        if (commands > 0) {
            YES((commands & 1) == 1);
            YES(syscall(SYS_membarrier, 16, 0, 0) == 0);
            YES(syscall(SYS_membarrier, 8, 0, 0) == 0);
        }
    });
}
