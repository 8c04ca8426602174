// How the process ends: exit status, signals, and who ends it from where.
#include "check.h"

static _Atomic int ready;

BEHAVIOUR(return_from_main_of_seven)
{
    say("ending\n");
    exit(7);
}

BEHAVIOUR(exit_from_member)
{
    ON(1, { say("ending\n"); exit(8); });
    say("never\n");
}

BEHAVIOUR(exit_from_member_while_others_run)
{
    static volatile long turns;
    START(1, { while (true) turns++; });
    START(2, { pause(); });
    ON(2, { exit(9); });
}

BEHAVIOUR(raw_exit_group_from_member)
{
    ON(2, { syscall(SYS_exit_group, 300); });
}

BEHAVIOUR(exit_handlers_run_where_exit_is_called)
{
    void first(void)
    {
        say("first registered\n");
    }
    void second(void)
    {
        say("second registered\n");
    }
    atexit(first);
    atexit(second);
    ON(1, { exit(0); });
}

BEHAVIOUR(exit_flushes_streams)
{
    printf("buffered in main\n");
    ON(1, { printf("buffered on a member\n"); exit(0); });
}

BEHAVIOUR(quick_exit_skips_handlers)
{
    void never(void)
    {
        say("never\n");
    }
    void quickly(void)
    {
        say("quick\n");
    }
    atexit(never);
    at_quick_exit(quickly);
    ON(1, { quick_exit(4); });
}

BEHAVIOUR(main_thread_ends_first)
{
    static pthread_t other;
    other = START(1, { ms(80); say("still here\n"); });
    pthread_exit(NULL);
}

BEHAVIOUR(main_thread_ends_first_member_sets_status)
{
    static pthread_t other;
    other = START(1, { ms(80); exit(21); });
    pthread_exit(NULL);
}

BEHAVIOUR(raw_exit_of_main_thread)
{
    static pthread_t other;
    other = START(2, { ms(80); say("last\n"); });
    syscall(SYS_exit, 0);
}

BEHAVIOUR(joining_main_thread)
{
    static pthread_t first;
    static pthread_t other;
    first = pthread_self();
    other = START(1, { PTHREAD(pthread_join(first, NULL)); say("joined main\n"); exit(0); });
    pthread_exit(NULL);
}

BEHAVIOUR(abort_from_main)
{
    abort();
}

BEHAVIOUR(abort_from_member)
{
    ON(1, { abort(); });
}

BEHAVIOUR(abort_despite_handler)
{
    void handler(int signal)
    {
        say("%s\n", sigabbrev_np(signal));
    }
    catch_signal(SIGABRT, handler, 0);
    ON(1, { abort(); });
}

#define KILLED(NAME, SIGNAL) \
    BEHAVIOUR(NAME) { ON(1, { raise(SIGNAL); say("never\n"); }); say("never\n"); }

KILLED(term_from_member, SIGTERM)
KILLED(hup_from_member, SIGHUP)
KILLED(int_from_member, SIGINT)
KILLED(quit_from_member, SIGQUIT)
KILLED(kill_from_member, SIGKILL)
KILLED(usr1_from_member, SIGUSR1)
KILLED(sys_from_member, SIGSYS)
KILLED(realtime_from_member, SIGRTMIN + 5)

BEHAVIOUR(term_of_process_by_member)
{
    ON(2, { kill(getpid(), SIGTERM); pause(); });
}

BEHAVIOUR(main_kills_member_thread_ends_all)
{
    pthread_t thread = START(1, { ready = 1; pause(); });
    UNTIL(ready);
    pthread_kill(thread, SIGTERM);
    pause();
}

BEHAVIOUR(assertion_fails_on_member)
{
    ON(1, { close(2); abort(); });
}

BEHAVIOUR(stack_smash_on_member)
{
    ON(1, { static char none; close(2); int deep(int left) { volatile char room[8192]; room[0] = none; return deep(left + 1) + room[0]; } say("%d\n", deep(0)); });
}

BEHAVIOUR(pipe_closed_on_output)
{
    int ends[2];
    pipe(ends);
    close(ends[0]);
    dup2(ends[1], 1);
    ON(1, { write(1, "x", 1); });
}

BEHAVIOUR(status_is_of_low_byte)
{
    exit(0x1ff);
}

BEHAVIOUR(closed_descriptors_do_no_harm)
{
    for (int at = 3; at < 1100; at++)
        close(at);
    close(0);
    close(2);
    ON(1, { say("alive\n"); });
    exit(3);
}

BEHAVIOUR(cpu_limit_kills)
{
    static volatile long turns;
    setrlimit(RLIMIT_CPU, &(struct rlimit){1, 2});
    while (true)
        turns++;
}
