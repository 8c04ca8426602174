// Locks, conditions, barriers and semaphores of libc, and atomics, among threads of several hosts.
#include "check.h"
#include <semaphore.h>
#include <threads.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static long sum;

static struct timespec in_ms(clockid_t clock, long milliseconds)
{
    struct timespec time;
    clock_gettime(clock, &time);
    time.tv_nsec += milliseconds * 1000000;
    time.tv_sec += time.tv_nsec / 1000000000;
    time.tv_nsec %= 1000000000;
    return time;
}

BEHAVIOUR(mutex_counts)
{
    void *body(void *argument)
    {
        for (int at = 0; at < 300; at++) {
            pthread_mutex_lock(&mutex);
            sum++;
            pthread_mutex_unlock(&mutex);
        }
        return argument;
    }
    on_each(6, body);
    SHOW(sum);
}

BEHAVIOUR(mutex_trylock_and_timedlock)
{
    pthread_mutex_lock(&mutex);
    ON(1, {
        PTHREAD(pthread_mutex_trylock(&mutex));
        struct timespec until = in_ms(CLOCK_REALTIME, 30);
        PTHREAD(pthread_mutex_timedlock(&mutex, &until));
        until = in_ms(CLOCK_MONOTONIC, 30);
        PTHREAD(pthread_mutex_clocklock(&mutex, CLOCK_MONOTONIC, &until));
    });
    pthread_mutex_unlock(&mutex);
    ON(2, { PTHREAD(pthread_mutex_trylock(&mutex)); PTHREAD(pthread_mutex_unlock(&mutex)); });
}

BEHAVIOUR(mutex_recursive)
{
    static pthread_mutex_t own;
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&own, &attributes);
    ON(1, {
        PTHREAD(pthread_mutex_lock(&own));
        PTHREAD(pthread_mutex_lock(&own));
        PTHREAD(pthread_mutex_unlock(&own));
        ON(2, { PTHREAD(pthread_mutex_trylock(&own)); });
        PTHREAD(pthread_mutex_unlock(&own));
        PTHREAD(pthread_mutex_unlock(&own));
    });
}

BEHAVIOUR(mutex_error_checking)
{
    static pthread_mutex_t own;
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(&own, &attributes);
    ON(1, { PTHREAD(pthread_mutex_lock(&own)); PTHREAD(pthread_mutex_lock(&own)); ON(2, { PTHREAD(pthread_mutex_unlock(&own)); }); PTHREAD(pthread_mutex_unlock(&own)); });
}

BEHAVIOUR(condition_ping_pong)
{
    void *body(void *argument)
    {
        int own = (uintptr_t)argument;
        for (int round = 0; round < 50; round++) {
            pthread_mutex_lock(&mutex);
            while (sum % HOSTS != own)
                pthread_cond_wait(&condition, &mutex);
            sum++;
            pthread_cond_broadcast(&condition);
            pthread_mutex_unlock(&mutex);
        }
        return argument;
    }
    on_each(HOSTS, body);
    SHOW(sum);
}

BEHAVIOUR(condition_signal_wakes_one_at_a_time)
{
    static int waiting;
    static int tokens;
    void *body(void *argument)
    {
        pthread_mutex_lock(&mutex);
        waiting++;
        while (tokens == 0)
            pthread_cond_wait(&condition, &mutex);
        tokens--;
        sum++;
        pthread_mutex_unlock(&mutex);
        return argument;
    }
    pthread_t threads[4];
    for (int at = 0; at < 4; at++)
        threads[at] = start_on(at + 1, body, NULL);
    for (int at = 1; at <= 4; at++) {
        pthread_mutex_lock(&mutex);
        tokens++;
        pthread_cond_signal(&condition);
        pthread_mutex_unlock(&mutex);
        while (true) {
            pthread_mutex_lock(&mutex);
            bool is_taken = sum == at;
            pthread_mutex_unlock(&mutex);
            if (is_taken)
                break;
            ms(1);
        }
    }
    for (int at = 0; at < 4; at++)
        join(threads[at]);
    SHOW(sum);
}

BEHAVIOUR(condition_times_out)
{
    ON(1, {
        struct timespec until = in_ms(CLOCK_REALTIME, 30);
        pthread_mutex_lock(&mutex);
        PTHREAD(pthread_cond_timedwait(&condition, &mutex, &until));
        until = in_ms(CLOCK_MONOTONIC, 30);
        PTHREAD(pthread_cond_clockwait(&condition, &mutex, CLOCK_MONOTONIC, &until));
        pthread_mutex_unlock(&mutex);
    });
}

BEHAVIOUR(condition_of_monotonic_clock)
{
    static pthread_cond_t own;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    PTHREAD(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC));
    pthread_cond_init(&own, &attributes);
    ON(2, {
        struct timespec until = in_ms(CLOCK_MONOTONIC, 40);
        long begin = now_ms();
        pthread_mutex_lock(&mutex);
        PTHREAD(pthread_cond_timedwait(&own, &mutex, &until));
        pthread_mutex_unlock(&mutex);
        YES(now_ms() - begin >= 39);
    });
}

BEHAVIOUR(readers_share_writers_exclude)
{
    static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
    static _Atomic int readers;
    static _Atomic int readers_max;
    static int value;
    void *reader(void *argument)
    {
        pthread_rwlock_rdlock(&lock);
        int now = ++readers;
        if (now > readers_max)
            readers_max = now;
        long until = now_ms() + 5000;
        while (readers_max < 3 && now_ms() < until)
            ms(2);
        readers--;
        pthread_rwlock_unlock(&lock);
        for (int at = 0; at < 30; at++) {
            pthread_rwlock_wrlock(&lock);
            if (readers != 0)
                say("reader inside\n");
            value++;
            pthread_rwlock_unlock(&lock);
        }
        return argument;
    }
    on_each(3, reader);
    SHOW(readers_max);
    SHOW(value);
}

BEHAVIOUR(rwlock_try_and_timed)
{
    static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
    pthread_rwlock_wrlock(&lock);
    PTHREAD(pthread_rwlock_wrlock(&lock));
    ON(1, {
        struct timespec until = in_ms(CLOCK_REALTIME, 20);
        PTHREAD(pthread_rwlock_tryrdlock(&lock));
        PTHREAD(pthread_rwlock_trywrlock(&lock));
        PTHREAD(pthread_rwlock_timedrdlock(&lock, &until));
        PTHREAD(pthread_rwlock_timedwrlock(&lock, &until));
    });
    pthread_rwlock_unlock(&lock);
    ON(2, { PTHREAD(pthread_rwlock_tryrdlock(&lock)); PTHREAD(pthread_rwlock_tryrdlock(&lock)); PTHREAD(pthread_rwlock_trywrlock(&lock)); });
}

BEHAVIOUR(barrier_releases_all)
{
    static pthread_barrier_t barrier;
    static _Atomic int arrived;
    static _Atomic int serial;
    pthread_barrier_init(&barrier, NULL, 6);
    void *body(void *argument)
    {
        for (int round = 1; round <= 20; round++) {
            arrived++;
            if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD)
                serial++;
            if (arrived < 6 * round)
                say("too early\n");
            pthread_barrier_wait(&barrier);
        }
        return argument;
    }
    on_each(6, body);
    SHOW(arrived);
    SHOW(serial);
    PTHREAD(pthread_barrier_destroy(&barrier));
}

BEHAVIOUR(semaphore_counts)
{
    static sem_t items;
    static sem_t room;
    static int taken;
    sem_init(&items, 0, 0);
    sem_init(&room, 0, 4);
    pthread_t consumer = START(2, { for (int at = 0; at < 100; at++) { sem_wait(&items); taken++; sem_post(&room); } });
    ON(1, { for (int at = 0; at < 100; at++) { sem_wait(&room); sem_post(&items); } });
    join(consumer);
    SHOW(taken);
    int value;
    TRY(sem_getvalue(&room, &value));
    SHOW(value);
    TRY(sem_trywait(&items));
}

BEHAVIOUR(semaphore_times_out)
{
    static sem_t semaphore;
    sem_init(&semaphore, 0, 0);
    ON(1, { struct timespec until = in_ms(CLOCK_REALTIME, 30); TRY(sem_timedwait(&semaphore, &until)); });
}

BEHAVIOUR(spin_lock_excludes)
{
    static pthread_spinlock_t lock;
    pthread_spin_init(&lock, PTHREAD_PROCESS_PRIVATE);
    void *body(void *argument)
    {
        for (int at = 0; at < 50; at++) {
            pthread_spin_lock(&lock);
            sum++;
            pthread_spin_unlock(&lock);
        }
        return argument;
    }
    on_each(3, body);
    SHOW(sum);
}

BEHAVIOUR(c11_threads)
{
    static mtx_t lock;
    static cnd_t cond;
    mtx_init(&lock, mtx_timed);
    cnd_init(&cond);
    int body(void *argument)
    {
        mtx_lock(&lock);
        sum += 5;
        cnd_signal(&cond);
        mtx_unlock(&lock);
        return argument == NULL ? 3 : 4;
    }
    thrd_t thread;
    mtx_lock(&lock);
    aim(1);
    SHOW(thrd_create(&thread, body, NULL) == thrd_success);
    while (sum != 5)
        cnd_wait(&cond, &lock);
    mtx_unlock(&lock);
    int result = 0;
    thrd_join(thread, &result);
    SHOW(result);
}

BEHAVIOUR(atomic_increments)
{
    static _Atomic long counter;
    void *body(void *argument)
    {
        for (int at = 0; at < 2000; at++)
            counter++;
        return argument;
    }
    on_each(6, body);
    SHOW(counter);
}

BEHAVIOUR(atomic_of_sixteen_bytes)
{
    static struct { long low, high; } pair __attribute__((aligned(16)));
    void *body(void *argument)
    {
        for (int at = 0; at < 500; at++) {
            char is_done;
            long low = 0, high = 0;
            do {
                low = *(volatile long *)&pair.low;
                high = *(volatile long *)&pair.high;
                long new_low = low + 1, new_high = high + 2;
                asm volatile("lock cmpxchg16b %1\n\tsete %0" : "=q"(is_done), "+m"(pair), "+a"(low), "+d"(high) : "b"(new_low), "c"(new_high) : "memory", "cc");
            } while (!is_done);
        }
        return argument;
    }
    on_each(3, body);
    SHOW(pair.low);
    SHOW(pair.high);
}

BEHAVIOUR(message_by_release_and_acquire)
{
    static int payload[64];
    static _Atomic int flag;
    pthread_t reader = START(1, {
        for (int round = 1; round <= 50; round++) {
            while (atomic_load_explicit(&flag, memory_order_acquire) != 2 * round - 1)
                sched_yield();
            for (int at = 0; at < 64; at++)
                if (payload[at] != round)
                    say("stale\n");
            atomic_store_explicit(&flag, 2 * round, memory_order_release);
        }
    });
    pthread_t writer = START(2, {
        for (int round = 1; round <= 50; round++) {
            for (int at = 0; at < 64; at++)
                payload[at] = round;
            atomic_store_explicit(&flag, 2 * round - 1, memory_order_release);
            while (atomic_load_explicit(&flag, memory_order_acquire) != 2 * round)
                sched_yield();
        }
    });
    join(reader);
    join(writer);
    SHOW(flag);
}

BEHAVIOUR(dekker_with_fences)
{
    static _Atomic int flags[2];
    static _Atomic int seen[2];
    static pthread_barrier_t barrier;
    static int both_zero;
    pthread_barrier_init(&barrier, NULL, 2);
    void *body(void *argument)
    {
        int own = (uintptr_t)argument;
        for (int round = 0; round < 100; round++) {
            pthread_barrier_wait(&barrier);
            atomic_store_explicit(&flags[own], 1, memory_order_relaxed);
            atomic_thread_fence(memory_order_seq_cst);
            seen[own] = atomic_load_explicit(&flags[!own], memory_order_relaxed);
            pthread_barrier_wait(&barrier);
            if (own == 0) {
                both_zero += seen[0] == 0 && seen[1] == 0;
                flags[0] = flags[1] = 0;
            }
        }
        return argument;
    }
    on_each(2, body);
    SHOW(both_zero);
}

BEHAVIOUR(malloc_from_all_hosts)
{
    // Blocks made on one host are freed on another.
    static char *blocks[3][200];
    static pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, 3);
    void *body(void *argument)
    {
        size_t own = (uintptr_t)argument;
        for (int round = 0; round < 5; round++) {
            for (size_t at = 0; at < 200; at++) {
                size_t bytes = at * 37 % 3000 + 1;
                blocks[own][at] = malloc(bytes);
                memset(blocks[own][at], own + 1, bytes);
            }
            pthread_barrier_wait(&barrier);
            size_t other = (own + 1) % 3;
            for (size_t at = 0; at < 200; at++) {
                if (blocks[other][at][at * 37 % 3000] != (char)(other + 1))
                    say("wrong content\n");
                free(blocks[other][at]);
            }
            pthread_barrier_wait(&barrier);
        }
        return argument;
    }
    on_each(3, body);
    say("done\n");
}

BEHAVIOUR(named_semaphore)
{
    ON(1, {
        sem_t *semaphore = sem_open("/dvm-conformance", O_CREAT | O_EXCL, 0600, 1);
        say("sem_open: %s\n", semaphore == SEM_FAILED ? strerrorname_np(errno) : "ok");
        sem_unlink("/dvm-conformance");
    });
}
