// Clocks: one time on all hosts, CPU time of threads wherever they run.
#include "check.h"
#include <sys/auxv.h>
#include <sys/times.h>
#include <sys/timex.h>
#include <utime.h>

static long nanoseconds(clockid_t clock)
{
    struct timespec now;
    if (clock_gettime(clock, &now) != 0)
        say("clock %d: %s\n", clock, strerrorname_np(errno));
    return now.tv_sec * 1000000000 + now.tv_nsec;
}

static long by_call(clockid_t clock)
{
    struct timespec now;
    syscall(SYS_clock_gettime, clock, &now);
    return now.tv_sec * 1000000000 + now.tv_nsec;
}

static volatile long spins;

static void spin(long milliseconds)
{
    for (long until = now_ms() + milliseconds; now_ms() < until;)
        spins++;
}

BEHAVIOUR(monotonic_across_hosts)
{
    static long last;
    static _Atomic unsigned turn;
    void *body(void *argument)
    {
        unsigned own = (uintptr_t)argument;
        for (int round = 0; round < 30; round++) {
            while (turn % HOSTS != own)
                sched_yield();
            long now = nanoseconds(CLOCK_MONOTONIC);
            if (now + 2000000 < last)
                say("goes back by over 2 ms\n");
            last = now;
            turn++;
        }
        return argument;
    }
    on_each(HOSTS, body);
    SHOW(turn);
}

#define SAME_ON_HOSTS(NAME, CLOCK)                          \
    BEHAVIOUR(NAME)                                         \
    {                                                       \
        static long seen[HOSTS];                            \
        long begin = nanoseconds(CLOCK);                    \
        ON(1, { seen[1] = nanoseconds(CLOCK); });           \
        ON(2, { seen[2] = nanoseconds(CLOCK); });           \
        long end = nanoseconds(CLOCK);                      \
        YES(begin - 5000000 <= seen[1] && seen[1] <= seen[2] + 5000000); \
        YES(seen[2] <= end + 5000000);                      \
        YES(end - begin < 5000000000);                      \
    }

SAME_ON_HOSTS(realtime_across_hosts, CLOCK_REALTIME)
SAME_ON_HOSTS(boottime_across_hosts, CLOCK_BOOTTIME)
SAME_ON_HOSTS(monotonic_raw_across_hosts, CLOCK_MONOTONIC_RAW)
SAME_ON_HOSTS(coarse_across_hosts, CLOCK_MONOTONIC_COARSE)
SAME_ON_HOSTS(tai_across_hosts, CLOCK_TAI)

BEHAVIOUR(call_and_vdso_agree)
{
    ON(1, {
        clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW};
        for (int at = 0; at < 4; at++) {
            long first = nanoseconds(clocks[at]);
            long second = by_call(clocks[at]);
            long third = nanoseconds(clocks[at]);
            say("%d: %s\n", clocks[at], first <= second && second <= third ? "yes" : "no");
        }
    });
}

BEHAVIOUR(vdso_is_offered)
{
    YES(getauxval(AT_SYSINFO_EHDR) != 0);
    YES(memcmp((void *)getauxval(AT_SYSINFO_EHDR), "\177ELF", 4) == 0);
    ON(1, { YES(memcmp((void *)getauxval(AT_SYSINFO_EHDR), "\177ELF", 4) == 0); });
}

BEHAVIOUR(clock_is_fast_on_members)
{
    ON(1, {
        long least = 1000000;
        for (int round = 0; round < 20; round++) {
            long begin = nanoseconds(CLOCK_MONOTONIC);
            for (int at = 0; at < 100; at++)
                nanoseconds(CLOCK_MONOTONIC);
            long took = (nanoseconds(CLOCK_MONOTONIC) - begin) / 101;
            if (took < least)
                least = took;
        }
        YES(least < 600);
    });
}

BEHAVIOUR(time_and_gettimeofday_agree)
{
    ON(1, {
        struct timeval now;
        struct timezone zone;
        time_t first = time(NULL);
        TRY(gettimeofday(&now, &zone));
        time_t last = time(NULL);
        YES(first <= now.tv_sec + 1 && now.tv_sec <= last + 1);
        TRY(syscall(SYS_gettimeofday, &now, NULL));
        time_t stored = 0;
        YES(time(&stored) == stored);
    });
}

BEHAVIOUR(resolutions)
{
    ON(1, {
        clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID, CLOCK_BOOTTIME, 999};
        for (int at = 0; at < 6; at++) {
            struct timespec resolution = {0, 0};
            int result = clock_getres(clocks[at], &resolution);
            say("%d %s %ld\n", clocks[at], outcome(result), resolution.tv_nsec);
        }
        TRY(clock_getres(CLOCK_MONOTONIC, NULL));
    });
}

BEHAVIOUR(bad_clocks)
{
    ON(1, {
        struct timespec now = {0};
        TRY(clock_gettime(999, &now));
        TRY(clock_gettime(-1, &now));
        now.tv_nsec = -1;
        TRY(clock_settime(CLOCK_REALTIME, &now));
        TRY(clock_settime(CLOCK_MONOTONIC, &now));
    });
}

BEHAVIOUR(thread_cpu_time_grows_on_members)
{
    ON(1, {
        long begin = nanoseconds(CLOCK_THREAD_CPUTIME_ID);
        spin(80);
        long used = nanoseconds(CLOCK_THREAD_CPUTIME_ID) - begin;
        YES(used > 2000000 && used < 2000000000);
        begin = nanoseconds(CLOCK_THREAD_CPUTIME_ID);
        ms(50);
        YES(nanoseconds(CLOCK_THREAD_CPUTIME_ID) - begin < 40000000);
    });
}

BEHAVIOUR(thread_cpu_time_is_own)
{
    ON(1, { spin(60); });
    ON(2, { YES(nanoseconds(CLOCK_THREAD_CPUTIME_ID) < 30000000); });
}

BEHAVIOUR(process_cpu_time_includes_members)
{
    long begin = nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
    static long theirs;
    ON(1, { spin(100); theirs = nanoseconds(CLOCK_THREAD_CPUTIME_ID); });
    long used = nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - begin;
    YES(used * 10 >= theirs * 9);
}

BEHAVIOUR(process_cpu_time_seen_by_member)
{
    static long begin;
    static long end;
    begin = nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
    spin(100);
    ON(1, { end = nanoseconds(CLOCK_PROCESS_CPUTIME_ID); });
    YES(end - begin > 2000000);
}

BEHAVIOUR(clock_function_includes_members)
{
    clock_t begin = clock();
    static long theirs;
    ON(1, { spin(100); theirs = nanoseconds(CLOCK_THREAD_CPUTIME_ID); });
    YES((clock() - begin) * 10000 >= theirs * 9);
}

BEHAVIOUR(rusage_includes_members)
{
    static long theirs;
    struct rusage usage;
    ON(1, { spin(150); theirs = nanoseconds(CLOCK_THREAD_CPUTIME_ID) / 1000; });
    TRY(getrusage(RUSAGE_SELF, &usage));
    long used = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
    YES(used * 10 >= theirs * 8);
    YES(usage.ru_maxrss > 0);
}

BEHAVIOUR(rusage_of_thread)
{
    ON(1, {
        struct rusage usage;
        spin(100);
        TRY(getrusage(RUSAGE_THREAD, &usage));
        long used = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
        YES(used * 1000 * 10 >= nanoseconds(CLOCK_THREAD_CPUTIME_ID) * 5);
    });
}

BEHAVIOUR(times_includes_members)
{
    struct tms before, after;
    static long theirs;
    times(&before);
    ON(1, { spin(200); theirs = nanoseconds(CLOCK_THREAD_CPUTIME_ID); });
    YES(times(&after) != (clock_t)-1);
    long ticks = after.tms_utime + after.tms_stime - before.tms_utime - before.tms_stime;
    YES((ticks + 2) * 10000000 * 10 >= theirs * 7);
}

BEHAVIOUR(clock_of_process_by_number)
{
    static clockid_t clock;
    PTHREAD(clock_getcpuclockid(0, &clock));
    ON(1, { YES(nanoseconds(clock) > 0); });
    PTHREAD(clock_getcpuclockid(999999999, &clock));
}

BEHAVIOUR(file_times_are_of_this_time)
{
    ON(1, {
        struct stat status;
        long begin = nanoseconds(CLOCK_REALTIME);
        close(file_with("now", "x", 1));
        TRY(stat("now", &status));
        long modified = status.st_mtim.tv_sec * 1000000000 + status.st_mtim.tv_nsec;
        YES(modified >= begin - 50000000 && modified <= nanoseconds(CLOCK_REALTIME) + 50000000);
    });
}

BEHAVIOUR(adjtimex_reads)
{
    ON(1, { struct timex state = {0}; YES(adjtimex(&state) >= 0); YES(state.tick > 0); });
}
