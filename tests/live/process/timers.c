// Timers that send signals, and sleeping.
#include "check.h"
#include <sys/prctl.h>
#include <sys/timerfd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

static _Atomic int handled;
static _Atomic pid_t handler_tid;

static void count_signal(int signal)
{
    (void)signal;
    handler_tid = tid();
    handled++;
}

static const struct itimerspec soon = {.it_value = {0, 20000000}};

BEHAVIOUR(alarm_comes)
{
    catch_signal(SIGALRM, count_signal, 0);
    ON(1, { SHOW(alarm(1) > 0); UNTIL(handled); SHOW(alarm(0)); });
}

BEHAVIOUR(alarm_tells_what_was_left)
{
    ON(1, { alarm(100); YES(alarm(0) >= 99); SHOW(alarm(0)); });
}

BEHAVIOUR(alarm_kills)
{
    ON(1, { alarm(1); while (true) pause(); });
}

BEHAVIOUR(interval_timer_repeats)
{
    catch_signal(SIGALRM, count_signal, SA_RESTART);
    ON(1, {
        struct itimerval interval = {{0, 10000}, {0, 10000}};
        TRY(setitimer(ITIMER_REAL, &interval, NULL));
        UNTIL(handled >= 5);
        struct itimerval now;
        TRY(getitimer(ITIMER_REAL, &now));
        SHOW(now.it_interval.tv_usec);
        struct itimerval none = {0};
        TRY(setitimer(ITIMER_REAL, &none, NULL));
    });
}

BEHAVIOUR(profiling_timer_counts_cpu_time)
{
    static volatile long spins;
    catch_signal(SIGPROF, count_signal, SA_RESTART);
    ON(0, {
        struct itimerval interval = {{0, 5000}, {0, 5000}};
        TRY(setitimer(ITIMER_PROF, &interval, NULL));
        while (handled < 3)
            spins++;
        struct itimerval none = {0};
        setitimer(ITIMER_PROF, &none, NULL);
    });
    YES(handled >= 3);
}

BEHAVIOUR(profiling_timer_counts_members)
{
    static volatile long spins;
    catch_signal(SIGPROF, count_signal, SA_RESTART);
    struct itimerval interval = {{0, 5000}, {0, 5000}};
    TRY(setitimer(ITIMER_PROF, &interval, NULL));
    pthread_t thread = START(1, { while (handled < 3) spins++; });
    join(thread);
    YES(handled >= 3);
}

BEHAVIOUR(virtual_timer_counts_user_time)
{
    static volatile long spins;
    catch_signal(SIGVTALRM, count_signal, 0);
    struct itimerval once = {{0, 0}, {0, 20000}};
    TRY(setitimer(ITIMER_VIRTUAL, &once, NULL));
    while (!handled)
        spins++;
    SHOW(handled);
}

BEHAVIOUR(bad_interval_timer)
{
    ON(1, {
        struct itimerval bad = {{0, 0}, {0, 1000000}};
        TRY(setitimer(ITIMER_REAL, &bad, NULL));
        TRY(setitimer(17, &bad, NULL));
        TRY(getitimer(17, &bad));
    });
}

BEHAVIOUR(posix_timer_signals_process)
{
    static timer_t timer;
    void handler(int signal, siginfo_t *info, void *context)
    {
        (void)context;
        say("%s SI_TIMER: %s value %d\n", sigabbrev_np(signal), info->si_code == SI_TIMER ? "yes" : "no", info->si_value.sival_int);
        handled++;
    }
    catch_info(SIGUSR1, handler, 0);
    ON(1, {
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 31};
        TRY(timer_create(CLOCK_MONOTONIC, &event, &timer));
        timer_settime(timer, 0, &soon, NULL);
        UNTIL(handled);
        struct itimerspec now;
        TRY(timer_gettime(timer, &now));
        YES(now.it_value.tv_sec == 0 && now.it_value.tv_nsec == 0);
        TRY(timer_delete(timer));
        TRY(timer_delete(timer));
    });
}

BEHAVIOUR(posix_timer_signals_thread)
{
    static _Atomic pid_t theirs;
    static timer_t timer;
    catch_signal(SIGUSR1, count_signal, 0);
    ON(1, {
        theirs = tid();
        struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
        event.sigev_notify_thread_id = tid();
        TRY(timer_create(CLOCK_MONOTONIC, &event, &timer));
        struct itimerspec repeated = {.it_value = {0, 10000000}, .it_interval = {0, 10000000}};
        TRY(timer_settime(timer, 0, &repeated, NULL));
        UNTIL(handled >= 3);
        timer_delete(timer);
    });
    YES(handler_tid == theirs);
}

BEHAVIOUR(posix_timer_of_main_signals_member)
{
    static _Atomic pid_t theirs;
    catch_signal(SIGUSR1, count_signal, 0);
    pthread_t thread = START(2, { theirs = tid(); UNTIL(handled); });
    UNTIL(theirs);
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
    event.sigev_notify_thread_id = theirs;
    TRY(timer_create(CLOCK_REALTIME, &event, &timer));
    TRY(timer_settime(timer, 0, &soon, NULL));
    join(thread);
    YES(handler_tid == theirs);
}

BEHAVIOUR(posix_timer_starts_thread)
{
    static timer_t timer;
    void notify(union sigval value)
    {
        say("notified %d\n", value.sival_int);
        handled++;
    }
    struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_value.sival_int = 8, .sigev_notify_function = notify};
    TRY(timer_create(CLOCK_MONOTONIC, &event, &timer));
    timer_settime(timer, 0, &soon, NULL);
    UNTIL(handled);
    ms(20);
    TRY(timer_delete(timer));
}

BEHAVIOUR(posix_timer_overruns)
{
    static timer_t timer;
    block_signal(SIG_BLOCK, SIGRTMIN);
    ON(1, {
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
        timer_create(CLOCK_MONOTONIC, &event, &timer);
        struct itimerspec fast = {.it_value = {0, 1000000}, .it_interval = {0, 1000000}};
        timer_settime(timer, 0, &fast, NULL);
        ms(50);
        siginfo_t info;
        sigset_t set = only(SIGRTMIN);
        YES(sigwaitinfo(&set, &info) == SIGRTMIN);
        YES(info.si_code == SI_TIMER);
        YES(info.si_overrun >= 10);
        YES(timer_getoverrun(timer) >= 10);
    });
}

BEHAVIOUR(posix_timer_absolute)
{
    static timer_t timer;
    block_signal(SIG_BLOCK, SIGUSR1);
    ON(1, {
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
        timer_create(CLOCK_MONOTONIC, &event, &timer);
        struct itimerspec at = {0};
        clock_gettime(CLOCK_MONOTONIC, &at.it_value);
        long begin = now_ms();
        at.it_value.tv_sec += 1;
        TRY(timer_settime(timer, TIMER_ABSTIME, &at, NULL));
        int number;
        sigset_t set = only(SIGUSR1);
        sigwait(&set, &number);
        long took = now_ms() - begin;
        YES(took >= 990 && took < 3000);
    });
}

BEHAVIOUR(posix_timer_bad)
{
    static timer_t timer;
    ON(1, {
        struct sigevent event = {.sigev_notify = 99, .sigev_signo = SIGUSR1};
        TRY(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer));
        event.sigev_notify = SIGEV_SIGNAL;
        TRY(syscall(SYS_timer_create, 9999, &event, &timer));
        TRY(syscall(SYS_timer_settime, 12345, 0, &soon, NULL));
    });
}

BEHAVIOUR(posix_timer_of_thread_cpu_time)
{
    static timer_t timer;
    static volatile long spins;
    catch_signal(SIGUSR1, count_signal, 0);
    ON(1, {
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
        TRY(timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer));
        TRY(timer_settime(timer, 0, &soon, NULL));
        while (!handled)
            spins++;
        say("came\n");
    });
}

BEHAVIOUR(timer_descriptor_counts)
{
    static int descriptor;
    descriptor = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    ON(1, {
        struct itimerspec fast = {.it_value = {0, 5000000}, .it_interval = {0, 5000000}};
        TRY(timerfd_settime(descriptor, 0, &fast, NULL));
    });
    ON(2, {
        uint64_t expirations = 0;
        ms(40);
        SHOW(read(descriptor, &expirations, 8));
        YES(expirations >= 4);
        struct itimerspec now;
        TRY(timerfd_gettime(descriptor, &now));
        SHOW(now.it_interval.tv_nsec);
        struct itimerspec none = {0};
        TRY(timerfd_settime(descriptor, 0, &none, &now));
    });
    fcntl(descriptor, F_SETFL, O_NONBLOCK);
    uint64_t expirations;
    TRY(read(descriptor, &expirations, 8));
    TRY(timerfd_create(77, 0));
}

BEHAVIOUR(sleep_lasts)
{
    ON(1, {
        long begin = now_ms();
        SHOW(sleep(1));
        long took = now_ms() - begin;
        YES(took >= 999 && took < 4000);
        begin = now_ms();
        TRY(usleep(30000));
        YES(now_ms() - begin >= 29);
    });
}

BEHAVIOUR(bad_sleeps)
{
    ON(1, {
        struct timespec bad = {0, 1000000000};
        TRY(nanosleep(&bad, NULL));
        bad = (struct timespec){-1, 0};
        TRY(nanosleep(&bad, NULL));
        PTHREAD(clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &bad, NULL));
        PTHREAD(clock_nanosleep(12345, 0, &bad, NULL));
    });
}

BEHAVIOUR(absolute_sleep_in_the_past_returns)
{
    ON(1, {
        struct timespec past = {1, 0};
        PTHREAD(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &past, NULL));
        PTHREAD(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &past, NULL));
    });
}

BEHAVIOUR(timer_slack_is_settable)
{
    ON(1, { TRY(prctl(PR_SET_TIMERSLACK, 1000)); SHOW(prctl(PR_GET_TIMERSLACK)); });
}
