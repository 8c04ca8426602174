// Threads: their birth, attributes, own data, cancellation and end.
#include "check.h"
#include <linux/sched.h>
#include <setjmp.h>
#include <sys/prctl.h>

static __thread int own = 7;
static __thread char own_big[3 * PAGE] = "initial";
static _Atomic int count;

static void *double_it(void *argument)
{
    return (void *)((uintptr_t)argument * 2);
}

BEHAVIOUR(join_returns_value)
{
    for (uintptr_t host = 0; host < HOSTS; host++)
        SHOW(join(start_on(host, double_it, (void *)(host + 20))));
}

BEHAVIOUR(join_self_deadlocks)
{
    ON(1, { PTHREAD(pthread_join(pthread_self(), NULL)); });
}

BEHAVIOUR(tryjoin_and_timedjoin)
{
    static _Atomic bool may_end;
    pthread_t thread = START(1, { UNTIL(may_end); });
    PTHREAD(pthread_tryjoin_np(thread, NULL));
    struct timespec soon;
    clock_gettime(CLOCK_REALTIME, &soon);
    soon.tv_nsec += 20000000;
    if (soon.tv_nsec >= 1000000000) {
        soon.tv_sec++;
        soon.tv_nsec -= 1000000000;
    }
    PTHREAD(pthread_timedjoin_np(thread, NULL, &soon));
    may_end = true;
    PTHREAD(pthread_join(thread, NULL));
}

BEHAVIOUR(detached_thread_ends_alone)
{
    pthread_t thread = START(1, { ms(20); count++; });
    PTHREAD(pthread_detach(thread));
    UNTIL(count == 1);
    SHOW(count);
}

BEHAVIOUR(detached_by_attribute)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_t thread;
    void *body(void *argument)
    {
        count++;
        return argument;
    }
    count_thread();
    PTHREAD(pthread_create(&thread, &attributes, body, NULL));
    UNTIL(count == 1);
    PTHREAD(pthread_attr_destroy(&attributes));
}

BEHAVIOUR(thread_local_is_fresh)
{
    own = 1;
    strcpy(own_big, "main");
    ON(1, { SHOW(own); own = 2; say("%s\n", own_big); strcpy(own_big, "one"); });
    ON(2, { SHOW(own); own = 3; say("%s\n", own_big); });
    SHOW(own);
    say("%s\n", own_big);
}

BEHAVIOUR(thread_local_seen_by_address)
{
    static int *theirs;
    static _Atomic int step;
    pthread_t thread = START(1, { theirs = &own; step = 1; UNTIL(step == 2); SHOW(own); });
    UNTIL(step == 1);
    SHOW(*theirs);
    *theirs = 99;
    step = 2;
    join(thread);
    SHOW(own);
}

BEHAVIOUR(errno_is_own)
{
    errno = EXDEV;
    ON(1, { say("%d\n", errno); errno = EDOM; });
    say("%s\n", strerrorname_np(errno));
}

BEHAVIOUR(specific_data_and_destructors)
{
    static pthread_key_t key;
    void destroy(void *value)
    {
        say("destroyed %s\n", (char *)value);
    }
    PTHREAD(pthread_key_create(&key, destroy));
    ON(1, { YES(pthread_getspecific(key) == NULL); pthread_setspecific(key, "one"); });
    ON(2, { pthread_setspecific(key, "two"); say("%s\n", (char *)pthread_getspecific(key)); });
    PTHREAD(pthread_key_delete(key));
}

BEHAVIOUR(destructor_runs_again)
{
    static pthread_key_t key;
    static int rounds;
    void destroy(void *value)
    {
        if (++rounds < 3)
            pthread_setspecific(key, value);
    }
    pthread_key_create(&key, destroy);
    ON(1, { pthread_setspecific(key, &key); });
    SHOW(rounds);
}

BEHAVIOUR(once_runs_once)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    void first(void)
    {
        ms(20);
        count++;
    }
    void *body(void *argument)
    {
        pthread_once(&once, first);
        if (count != 1)
            say("too early\n");
        return argument;
    }
    on_each(6, body);
    SHOW(count);
}

BEHAVIOUR(stack_size_attribute)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    PTHREAD(pthread_attr_setstacksize(&attributes, 1 << 20));
    PTHREAD(pthread_attr_setstacksize(&attributes, 1));
    void *body(void *argument)
    {
        pthread_attr_t mine;
        size_t size = 0, guard = 0;
        void *base = NULL;
        pthread_getattr_np(pthread_self(), &mine);
        pthread_attr_getstack(&mine, &base, &size);
        pthread_attr_getguardsize(&mine, &guard);
        YES(size >= 1 << 20 && size < 2 << 20);
        YES((char *)&mine >= (char *)base && (char *)&mine < (char *)base + size);
        SHOW(guard);
        char deep[900 << 10];
        memset(deep, 1, sizeof deep);
        SHOW(deep[12345]);
        return argument;
    }
    pthread_t thread;
    aim(1);
    count_thread();
    int error = pthread_create(&thread, &attributes, body, NULL);
    join(thread);
    SHOW(error);
}

BEHAVIOUR(stack_given_by_program)
{
    static char *stack;
    stack = map(1 << 20, PROT_READ | PROT_WRITE, 0);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    PTHREAD(pthread_attr_setstack(&attributes, stack, 1 << 20));
    void *body(void *argument)
    {
        char here;
        YES(&here >= stack && &here < stack + (1 << 20));
        return argument;
    }
    pthread_t thread;
    aim(1);
    count_thread();
    int error = pthread_create(&thread, &attributes, body, NULL);
    join(thread);
    SHOW(error);
}

BEHAVIOUR(deep_recursion_on_main_and_member)
{
    int depth(int left)
    {
        volatile char room[4096];
        room[0] = left;
        return left == 0 ? 0 : depth(left - 1) + 1 + room[0] * 0;
    }
    SHOW(depth(1500));
    ON(1, { int deep(int left) { volatile char room[4096]; room[9] = 1; return left == 0 ? 0 : deep(left - 1) + room[9]; } SHOW(deep(1500)); });
}

BEHAVIOUR(main_stack_attributes)
{
    pthread_attr_t mine;
    void *base;
    size_t size;
    PTHREAD(pthread_getattr_np(pthread_self(), &mine));
    pthread_attr_getstack(&mine, &base, &size);
    YES((char *)&mine > (char *)base && (char *)&mine < (char *)base + size);
    YES(size >= 1 << 20);
}

BEHAVIOUR(names)
{
    static char name[16];
    static _Atomic int step;
    pthread_t thread = START(1, {
        PTHREAD(pthread_setname_np(pthread_self(), "far"));
        prctl(PR_GET_NAME, name);
        say("%s\n", name);
        step = 1;
        UNTIL(step == 2);
        prctl(PR_GET_NAME, name);
        say("%s\n", name);
    });
    UNTIL(step == 1);
    PTHREAD(pthread_getname_np(thread, name, sizeof name));
    say("%s\n", name);
    PTHREAD(pthread_setname_np(thread, "renamed"));
    PTHREAD(pthread_setname_np(thread, "much too long a name"));
    step = 2;
    join(thread);
    prctl(PR_GET_NAME, name);
    say("%s\n", name);
}

BEHAVIOUR(thread_numbers)
{
    static pid_t theirs;
    YES(tid() == getpid());
    ON(1, { theirs = tid(); YES(tid() == getpid()); YES(syscall(SYS_gettid) == gettid()); });
    YES(theirs != getpid());
}

BEHAVIOUR(cancel_deferred)
{
    static int descriptors[2];
    static _Atomic bool is_ready;
    TRY(pipe(descriptors));
    void cleanup(void *what)
    {
        say("cleanup %s\n", (char *)what);
    }
    pthread_t thread = START(1, {
        char byte;
        pthread_cleanup_push(cleanup, "outer");
        pthread_cleanup_push(cleanup, "inner");
        is_ready = true;
        TRY(read(descriptors[0], &byte, 1));
        pthread_cleanup_pop(0);
        pthread_cleanup_pop(0);
    });
    UNTIL(is_ready);
    ms(50);
    pthread_cancel(thread);
    YES(join(thread) == PTHREAD_CANCELED);
}

BEHAVIOUR(cancel_in_condition_wait_holds_mutex)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    static _Atomic bool is_ready;
    void cleanup(void *what)
    {
        PTHREAD(pthread_mutex_trylock(what));
        PTHREAD(pthread_mutex_unlock(what));
    }
    pthread_t thread = START(1, {
        pthread_mutex_lock(&mutex);
        pthread_cleanup_push(cleanup, &mutex);
        is_ready = true;
        while (true)
            pthread_cond_wait(&condition, &mutex);
        pthread_cleanup_pop(0);
    });
    UNTIL(is_ready);
    pthread_mutex_lock(&mutex);
    pthread_mutex_unlock(&mutex);
    pthread_cancel(thread);
    YES(join(thread) == PTHREAD_CANCELED);
    PTHREAD(pthread_mutex_lock(&mutex));
}

BEHAVIOUR(cancel_asynchronous)
{
    static _Atomic bool is_ready;
    pthread_t thread = START(1, {
        pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
        is_ready = true;
        while (true)
            count++;
    });
    UNTIL(is_ready);
    ms(20);
    PTHREAD(pthread_cancel(thread));
    YES(join(thread) == PTHREAD_CANCELED);
    YES(count > 0);
}

BEHAVIOUR(cancel_disabled_until_enabled)
{
    static _Atomic int step;
    pthread_t thread = START(1, {
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
        step = 1;
        UNTIL(step == 2);
        pthread_testcancel();
        say("still here\n");
        pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
        pthread_testcancel();
        say("never\n");
    });
    UNTIL(step == 1);
    PTHREAD(pthread_cancel(thread));
    step = 2;
    YES(join(thread) == PTHREAD_CANCELED);
}

BEHAVIOUR(exit_of_thread_by_pthread_exit)
{
    static pthread_t thread;
    thread = START(1, { pthread_exit((void *)5); });
    SHOW(join(thread));
}

BEHAVIOUR(many_short_threads)
{
    void *body(void *argument)
    {
        count++;
        return argument;
    }
    for (int round = 0; round < 20; round++) {
        pthread_t threads[6];
        for (int at = 0; at < 6; at++)
            pthread_create(&threads[at], NULL, body, NULL);
        for (int at = 0; at < 6; at++)
            pthread_join(threads[at], NULL);
    }
    SHOW(count);
}

BEHAVIOUR(hundred_threads_at_once)
{
    static pthread_t threads[100];
    static pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, 101);
    void *body(void *argument)
    {
        pthread_barrier_wait(&barrier);
        count++;
        return argument;
    }
    for (int at = 0; at < 100; at++)
        if (pthread_create(&threads[at], NULL, body, NULL) != 0)
            say("pthread_create fails\n");
    pthread_barrier_wait(&barrier);
    for (int at = 0; at < 100; at++)
        pthread_join(threads[at], NULL);
    SHOW(count);
}

BEHAVIOUR(thread_starts_thread)
{
    static pthread_t grandchild;
    ON(1, {
        grandchild = START(2, { ms(20); say("grandchild\n"); });
        say("child ends\n");
    });
    join(grandchild);
}

BEHAVIOUR(long_jump_within_member)
{
    ON(1, {
        static jmp_buf place;
        static volatile int rounds;
        int value = setjmp(place);
        SHOW(value);
        if (rounds++ < 3)
            longjmp(place, rounds);
    });
}

BEHAVIOUR(floating_environment_is_inherited)
{
    static unsigned inherited;
    unsigned control = 0, flushing;
    asm volatile("stmxcsr %0" : "=m"(control));
    flushing = control | 0x8040;
    asm volatile("ldmxcsr %0" : : "m"(flushing));
    ON(1, { asm volatile("stmxcsr %0" : "=m"(inherited)); });
    SHOW(inherited & 0x8040);
}

BEHAVIOUR(vector_registers_survive_calls)
{
    ON(1, {
        static volatile double in = 1.5;
        double a = in;
        double b = in * 2;
        for (int at = 0; at < 100; at++) {
            syscall(SYS_getppid);
            a += b;
        }
        SHOW(a * 2);
    });
}

BEHAVIOUR(clone_without_libc)
{
    static char stack[64 << 10] __attribute__((aligned(16)));
    static _Atomic int word;
    static pid_t parent_word;
    static pid_t child_word = -1;
    struct clone_args arguments = {
        .flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID,
        .parent_tid = (uintptr_t)&parent_word,
        .child_tid = (uintptr_t)&child_word,
        .stack = (uintptr_t)stack,
        .stack_size = sizeof stack,
    };
    long result;
    aim(1);
    count_thread();
    asm volatile("syscall\n\ttest %%rax, %%rax\n\tjnz 1f\n\tmovl $1, %[word]\n\tmov $60, %%eax\n\txor %%edi, %%edi\n\tsyscall\n1:"
                 : "=a"(result), [word] "+m"(word)
                 : "a"(SYS_clone3), "D"(&arguments), "S"(sizeof arguments)
                 : "rcx", "r11", "memory");
    YES(result > 0);
    UNTIL(word == 1);
    UNTIL(*(volatile pid_t *)&child_word == 0);
    YES(parent_word == result);
}

BEHAVIOUR(clone_bad_flags)
{
    TRY(syscall(SYS_clone, CLONE_THREAD, NULL, NULL, NULL, NULL));
    TRY(syscall(SYS_clone, CLONE_SIGHAND, NULL, NULL, NULL, NULL));
    TRY(syscall(SYS_clone3, NULL, 64));
    TRY(syscall(SYS_clone3, NULL, 8));
}

BEHAVIOUR(concurrency_hint_and_scheduling)
{
    static struct sched_param parameter;
    static int policy;
    ON(1, {
        PTHREAD(pthread_getschedparam(pthread_self(), &policy, &parameter));
        YES(policy == SCHED_OTHER);
        SHOW(parameter.sched_priority);
        TRY(sched_getscheduler(0));
        TRY(sched_yield());
    });
    SHOW(sched_get_priority_max(SCHED_FIFO));
    SHOW(sched_get_priority_min(SCHED_RR));
}

BEHAVIOUR(nice_is_per_thread)
{
    static pid_t theirs;
    static _Atomic int step;
    pthread_t thread = START(1, {
        theirs = tid();
        TRY(setpriority(PRIO_PROCESS, 0, 5));
        SHOW(getpriority(PRIO_PROCESS, 0));
        step = 1;
        UNTIL(step == 2);
    });
    UNTIL(step == 1);
    SHOW(getpriority(PRIO_PROCESS, theirs) - getpriority(PRIO_PROCESS, 0) >= 0);
    step = 2;
    join(thread);
}

BEHAVIOUR(cpu_clock_of_thread)
{
    static clockid_t clock;
    static _Atomic int step;
    static struct timespec time;
    pthread_t thread = START(1, {
        long until = now_ms() + 60;
        while (now_ms() < until)
            count++;
        step = 1;
        UNTIL(step == 2);
    });
    UNTIL(step == 1);
    PTHREAD(pthread_getcpuclockid(thread, &clock));
    TRY(clock_gettime(clock, &time));
    YES(time.tv_sec * 1000 + time.tv_nsec / 1000000 >= 1);
    step = 2;
    join(thread);
}
