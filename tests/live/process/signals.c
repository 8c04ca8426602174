// Signals: masks, handlers, waiting for them, sending them to threads on other hosts.
#include "check.h"
#include <setjmp.h>
#include <sys/signalfd.h>
#include <ucontext.h>

static _Atomic int handled;
static _Atomic int ready;
static _Atomic pid_t handler_tid;

static void count_signal(int signal)
{
    (void)signal;
    handler_tid = tid();
    handled++;
}

static void name_signal(int signal)
{
    say("handler: %s\n", sigabbrev_np(signal));
}

BEHAVIOUR(raise_in_main_and_members)
{
    catch_signal(SIGUSR1, name_signal, 0);
    TRY(raise(SIGUSR1));
    ON(1, { TRY(raise(SIGUSR1)); });
    ON(2, { TRY(raise(SIGUSR1)); });
}

BEHAVIOUR(pthread_kill_reaches_that_thread)
{
    static _Atomic pid_t theirs;
    catch_signal(SIGUSR1, count_signal, 0);
    pthread_t thread = START(1, { theirs = tid(); ready = 1; UNTIL(handled == 1); });
    UNTIL(ready);
    PTHREAD(pthread_kill(thread, SIGUSR1));
    join(thread);
    YES(handler_tid == theirs);
}

BEHAVIOUR(member_signals_main)
{
    static pthread_t first;
    first = pthread_self();
    catch_signal(SIGUSR2, count_signal, 0);
    ON(1, { PTHREAD(pthread_kill(first, SIGUSR2)); });
    UNTIL(handled);
    YES(handler_tid == getpid());
}

BEHAVIOUR(member_signals_member)
{
    static pthread_t target;
    static _Atomic pid_t theirs;
    catch_signal(SIGUSR2, count_signal, 0);
    target = START(1, { theirs = tid(); ready = 1; UNTIL(handled == 3); });
    UNTIL(ready);
    for (int round = 1; round <= 3; round++) {
        ON(2, { pthread_kill(target, SIGUSR2); });
        UNTIL(handled == round);
    }
    join(target);
    YES(handler_tid == theirs);
}

BEHAVIOUR(spinning_member_is_interrupted)
{
    static volatile long spins;
    catch_signal(SIGUSR1, count_signal, 0);
    pthread_t thread = START(1, { ready = 1; while (!handled) spins++; });
    UNTIL(ready);
    ms(20);
    PTHREAD(pthread_kill(thread, SIGUSR1));
    join(thread);
    SHOW(handled);
}

BEHAVIOUR(kill_of_process_runs_handler_once)
{
    catch_signal(SIGUSR1, count_signal, 0);
    pthread_t thread = START(1, { UNTIL(handled); });
    TRY(kill(getpid(), SIGUSR1));
    join(thread);
    SHOW(handled);
}

BEHAVIOUR(kill_of_process_goes_to_who_takes_it)
{
    static _Atomic pid_t theirs;
    catch_signal(SIGUSR1, count_signal, 0);
    block_signal(SIG_BLOCK, SIGUSR1);
    pthread_t other = START(2, { UNTIL(handled); });
    pthread_t thread = START(1, { theirs = tid(); block_signal(SIG_UNBLOCK, SIGUSR1); ready = 1; UNTIL(handled); });
    UNTIL(ready);
    TRY(kill(getpid(), SIGUSR1));
    join(thread);
    join(other);
    YES(handler_tid == theirs);
}

BEHAVIOUR(mask_is_inherited)
{
    block_signal(SIG_BLOCK, SIGUSR2);
    ON(1, {
        sigset_t set;
        pthread_sigmask(SIG_SETMASK, NULL, &set);
        SHOW(sigismember(&set, SIGUSR2));
        SHOW(sigismember(&set, SIGUSR1));
        block_signal(SIG_UNBLOCK, SIGUSR2);
    });
    sigset_t set;
    pthread_sigmask(SIG_SETMASK, NULL, &set);
    SHOW(sigismember(&set, SIGUSR2));
}

BEHAVIOUR(blocked_signal_is_pending_then_comes)
{
    catch_signal(SIGUSR1, name_signal, 0);
    ON(1, {
        sigset_t set;
        block_signal(SIG_BLOCK, SIGUSR1);
        raise(SIGUSR1);
        raise(SIGUSR1);
        sigpending(&set);
        SHOW(sigismember(&set, SIGUSR1));
        say("unblocking\n");
        block_signal(SIG_UNBLOCK, SIGUSR1);
        sigpending(&set);
        SHOW(sigismember(&set, SIGUSR1));
    });
}

BEHAVIOUR(pending_of_process_seen_by_all)
{
    block_signal(SIG_BLOCK, SIGUSR1);
    ON(1, { kill(getpid(), SIGUSR1); });
    ON(2, {
        sigset_t set;
        sigpending(&set);
        SHOW(sigismember(&set, SIGUSR1));
    });
    sigset_t set;
    sigpending(&set);
    SHOW(sigismember(&set, SIGUSR1));
}

BEHAVIOUR(pending_of_thread_is_its_own)
{
    block_signal(SIG_BLOCK, SIGUSR1);
    ON(1, {
        sigset_t set;
        raise(SIGUSR1);
        sigpending(&set);
        SHOW(sigismember(&set, SIGUSR1));
    });
    sigset_t set;
    sigpending(&set);
    SHOW(sigismember(&set, SIGUSR1));
}

BEHAVIOUR(ignored_signal_does_nothing)
{
    signal(SIGUSR1, SIG_IGN);
    ON(1, { TRY(raise(SIGUSR1)); });
    TRY(kill(getpid(), SIGUSR1));
    say("alive\n");
}

BEHAVIOUR(ignoring_discards_pending)
{
    catch_signal(SIGUSR1, name_signal, 0);
    ON(1, {
        sigset_t set;
        block_signal(SIG_BLOCK, SIGUSR1);
        raise(SIGUSR1);
        signal(SIGUSR1, SIG_IGN);
        sigpending(&set);
        SHOW(sigismember(&set, SIGUSR1));
        catch_signal(SIGUSR1, name_signal, 0);
        block_signal(SIG_UNBLOCK, SIGUSR1);
        say("nothing came\n");
    });
}

BEHAVIOUR(handler_blocks_itself_and_mask)
{
    static volatile int depth;
    void inner(int signal)
    {
        say("%s at depth %d\n", sigabbrev_np(signal), depth);
    }
    void outer(int signal)
    {
        depth = 1;
        say("%s begins\n", sigabbrev_np(signal));
        raise(SIGUSR1);
        raise(SIGUSR2);
        raise(SIGHUP);
        say("%s ends\n", sigabbrev_np(signal));
        depth = 0;
    }
    struct sigaction action = {.sa_handler = outer};
    sigaddset(&action.sa_mask, SIGUSR2);
    sigaction(SIGTERM, &action, NULL);
    catch_signal(SIGUSR1, inner, 0);
    catch_signal(SIGUSR2, inner, 0);
    catch_signal(SIGHUP, inner, 0);
    raise(SIGTERM);
    say("on a member\n");
    ON(1, { raise(SIGTERM); });
}

BEHAVIOUR(nodefer_nests)
{
    static volatile int depth;
    void handler(int signal)
    {
        if (++depth < 4)
            raise(signal);
        say("depth %d\n", depth--);
    }
    catch_signal(SIGUSR1, handler, SA_NODEFER);
    ON(1, { raise(SIGUSR1); });
}

BEHAVIOUR(without_nodefer_defers)
{
    static volatile int entered;
    static volatile int inside;
    void handler(int signal)
    {
        if (inside)
            say("nested\n");
        inside = 1;
        if (++entered < 3)
            raise(signal);
        inside = 0;
    }
    catch_signal(SIGUSR1, handler, 0);
    ON(1, { raise(SIGUSR1); });
    SHOW(entered);
}

BEHAVIOUR(resethand_resets)
{
    catch_signal(SIGUSR1, name_signal, SA_RESETHAND);
    ON(1, { raise(SIGUSR1); });
    struct sigaction action;
    sigaction(SIGUSR1, NULL, &action);
    YES(action.sa_handler == SIG_DFL);
}

BEHAVIOUR(resethand_second_kills)
{
    catch_signal(SIGUSR1, name_signal, SA_RESETHAND);
    ON(1, { raise(SIGUSR1); raise(SIGUSR1); say("never\n"); });
}

BEHAVIOUR(action_is_remembered)
{
    struct sigaction action = {.sa_handler = name_signal, .sa_flags = SA_RESTART | SA_ONSTACK};
    sigaddset(&action.sa_mask, SIGINT);
    TRY(sigaction(SIGUSR1, &action, NULL));
    ON(1, {
        struct sigaction seen;
        sigaction(SIGUSR1, NULL, &seen);
        YES(seen.sa_handler == name_signal);
        YES((seen.sa_flags & (SA_RESTART | SA_ONSTACK | SA_NODEFER)) == (SA_RESTART | SA_ONSTACK));
        SHOW(sigismember(&seen.sa_mask, SIGINT));
        TRY(sigaction(SIGUSR1, &(struct sigaction){.sa_handler = SIG_IGN}, &seen));
    });
    sigaction(SIGUSR1, NULL, &action);
    YES(action.sa_handler == SIG_IGN);
}

BEHAVIOUR(bad_actions)
{
    struct sigaction action = {.sa_handler = SIG_IGN};
    TRY(sigaction(SIGKILL, &action, NULL));
    TRY(sigaction(SIGSTOP, &action, NULL));
    TRY(syscall(SYS_rt_sigaction, 65, &action, NULL, 8));
    TRY(syscall(SYS_rt_sigaction, 0, &action, NULL, 8));
    TRY(syscall(SYS_rt_sigaction, SIGUSR1, 1, NULL, 8));
    TRY(syscall(SYS_rt_sigaction, SIGUSR1, &action, NULL, 4));
    TRY(syscall(SYS_rt_sigprocmask, 17, &action, NULL, 8));
    TRY(syscall(SYS_rt_sigprocmask, SIG_BLOCK, 1, NULL, 8));
    TRY(kill(getpid(), 65));
    ON(1, { TRY(syscall(SYS_tgkill, getpid(), 999999999, SIGUSR1)); TRY(syscall(SYS_tkill, -1, SIGUSR1)); });
}

BEHAVIOUR(kill_and_stop_cannot_be_blocked)
{
    ON(1, {
        sigset_t set;
        sigfillset(&set);
        pthread_sigmask(SIG_SETMASK, &set, NULL);
        pthread_sigmask(SIG_SETMASK, NULL, &set);
        SHOW(sigismember(&set, SIGKILL));
        SHOW(sigismember(&set, SIGSTOP));
        SHOW(sigismember(&set, SIGTERM));
        SHOW(sigismember(&set, SIGSEGV));
    });
}

BEHAVIOUR(mask_within_handler)
{
    void handler(int signal)
    {
        sigset_t set;
        pthread_sigmask(SIG_SETMASK, NULL, &set);
        say("%s %d %d %d\n", sigabbrev_np(signal), sigismember(&set, SIGUSR1), sigismember(&set, SIGUSR2), sigismember(&set, SIGHUP));
    }
    struct sigaction action = {.sa_handler = handler};
    sigaddset(&action.sa_mask, SIGUSR2);
    sigaction(SIGUSR1, &action, NULL);
    ON(1, {
        raise(SIGUSR1);
        sigset_t set;
        pthread_sigmask(SIG_SETMASK, NULL, &set);
        SHOW(sigismember(&set, SIGUSR1));
        SHOW(sigismember(&set, SIGUSR2));
    });
}

BEHAVIOUR(handler_changes_mask_of_return)
{
    void handler(int signal, siginfo_t *info, void *context)
    {
        (void)signal;
        (void)info;
        sigaddset(&((ucontext_t *)context)->uc_sigmask, SIGUSR2);
    }
    catch_info(SIGUSR1, handler, 0);
    ON(1, {
        sigset_t set;
        raise(SIGUSR1);
        pthread_sigmask(SIG_SETMASK, NULL, &set);
        SHOW(sigismember(&set, SIGUSR2));
    });
}

BEHAVIOUR(jump_out_of_handler)
{
    static sigjmp_buf place;
    static volatile int rounds;
    void handler(int signal)
    {
        (void)signal;
        siglongjmp(place, ++rounds);
    }
    catch_signal(SIGUSR1, handler, 0);
    ON(1, {
        sigset_t set;
        int value = sigsetjmp(place, 1);
        SHOW(value);
        pthread_sigmask(SIG_SETMASK, NULL, &set);
        SHOW(sigismember(&set, SIGUSR1));
        if (value < 3)
            raise(SIGUSR1);
    });
}

BEHAVIOUR(alternate_stack_is_used)
{
    static char *stack;
    void handler(int signal)
    {
        char here;
        stack_t now;
        sigaltstack(NULL, &now);
        say("%s on alternate stack: %s, SS_ONSTACK: %s\n", sigabbrev_np(signal), &here >= stack && &here < stack + 65536 ? "yes" : "no",
            now.ss_flags & SS_ONSTACK ? "yes" : "no");
        TRY(sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL));
    }
    catch_signal(SIGUSR1, handler, SA_ONSTACK);
    catch_signal(SIGUSR2, handler, 0);
    ON(1, {
        stack_t old;
        stack = map(65536, PROT_READ | PROT_WRITE, 0);
        TRY(sigaltstack(NULL, &old));
        YES(old.ss_flags == SS_DISABLE);
        TRY(sigaltstack(&((stack_t){.ss_sp = stack, .ss_size = 65536}), &old));
        raise(SIGUSR1);
        TRY(sigaltstack(NULL, &old));
        YES(old.ss_sp == stack && old.ss_flags == 0);
    });
}

BEHAVIOUR(alternate_stack_too_small)
{
    static char stack[512];
    ON(1, {
        TRY(sigaltstack(&((stack_t){.ss_sp = stack, .ss_size = sizeof stack}), NULL));
        TRY(sigaltstack(&((stack_t){.ss_sp = stack, .ss_size = 65536, .ss_flags = 77}), NULL));
    });
}

BEHAVIOUR(alternate_stack_is_not_inherited_by_threads)
{
    static char stack[65536];
    sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL);
    ON(1, {
        stack_t old;
        sigaltstack(NULL, &old);
        YES(old.ss_flags == SS_DISABLE);
    });
}

BEHAVIOUR(stack_overflow_handled_on_alternate_stack)
{
    static char stack[65536];
    static sigjmp_buf place;
    void handler(int signal)
    {
        say("%s\n", sigabbrev_np(signal));
        siglongjmp(place, 1);
    }
    catch_signal(SIGSEGV, handler, SA_ONSTACK);
    ON(1, {
        int deep(int value)
        {
            volatile char room[1024];
            room[0] = value;
            return deep(value + 1) + room[0];
        }
        sigaltstack(&((stack_t){.ss_sp = stack, .ss_size = sizeof stack}), NULL);
        if (sigsetjmp(place, 1) == 0)
            SHOW(deep(0));
        say("recovered\n");
    });
}

BEHAVIOUR(info_of_kill)
{
    void handler(int signal, siginfo_t *info, void *context)
    {
        (void)context;
        say("%s code %s pid own: %s uid own: %s\n", sigabbrev_np(signal), info->si_code == SI_USER ? "SI_USER" : info->si_code == SI_TKILL ? "SI_TKILL" : "other",
            info->si_pid == getpid() ? "yes" : "no", info->si_uid == getuid() ? "yes" : "no");
        handled++;
    }
    catch_info(SIGUSR1, handler, 0);
    kill(getpid(), SIGUSR1);
    UNTIL(handled == 1);
    ON(1, { raise(SIGUSR1); });
    SHOW(handled);
}

BEHAVIOUR(queued_value_arrives)
{
    void handler(int signal, siginfo_t *info, void *context)
    {
        (void)signal;
        (void)context;
        say("value %d code SI_QUEUE: %s pid own: %s\n", info->si_value.sival_int, info->si_code == SI_QUEUE ? "yes" : "no", info->si_pid == getpid() ? "yes" : "no");
        handled++;
    }
    catch_info(SIGRTMIN + 1, handler, 0);
    block_signal(SIG_BLOCK, SIGRTMIN + 1);
    pthread_t thread = START(1, {
        block_signal(SIG_UNBLOCK, SIGRTMIN + 1);
        ready = 1;
        UNTIL(handled == 1);
    });
    UNTIL(ready);
    (void)(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 4711}));
    join(thread);
}

BEHAVIOUR(queued_to_thread_keep_order)
{
    static _Atomic pid_t theirs;
    void handler(int signal, siginfo_t *info, void *context)
    {
        (void)context;
        say("RT%d value %d\n", signal - SIGRTMIN, info->si_value.sival_int);
        handled++;
    }
    catch_info(SIGRTMIN + 2, handler, 0);
    catch_info(SIGRTMIN + 3, handler, 0);
    pthread_t thread = START(1, {
        block_signal(SIG_BLOCK, SIGRTMIN + 2);
        block_signal(SIG_BLOCK, SIGRTMIN + 3);
        theirs = tid();
        UNTIL(ready);
        sigset_t both = only(SIGRTMIN + 2);
        sigaddset(&both, SIGRTMIN + 3);
        pthread_sigmask(SIG_UNBLOCK, &both, NULL);
        SHOW(handled);
    });
    UNTIL(theirs);
    for (int value = 0; value < 4; value++) {
        pthread_sigqueue(thread, SIGRTMIN + 3, (union sigval){.sival_int = value});
        pthread_sigqueue(thread, SIGRTMIN + 2, (union sigval){.sival_int = 10 + value});
    }
    ready = 1;
    join(thread);
}

BEHAVIOUR(standard_signals_merge_realtime_queue)
{
    catch_signal(SIGUSR1, count_signal, 0);
    catch_signal(SIGRTMIN, count_signal, 0);
    ON(1, {
        block_signal(SIG_BLOCK, SIGUSR1);
        for (int at = 0; at < 5; at++)
            raise(SIGUSR1);
        block_signal(SIG_UNBLOCK, SIGUSR1);
        SHOW(handled);
        block_signal(SIG_BLOCK, SIGRTMIN);
        for (int at = 0; at < 5; at++)
            raise(SIGRTMIN);
        block_signal(SIG_UNBLOCK, SIGRTMIN);
        SHOW(handled);
    });
}

BEHAVIOUR(many_signals_all_arrive)
{
    catch_signal(SIGRTMIN + 4, count_signal, 0);
    pthread_t thread = START(1, { ready = 1; UNTIL(handled == 200); });
    UNTIL(ready);
    for (int at = 0; at < 200; at++)
        pthread_kill(thread, SIGRTMIN + 4);
    join(thread);
    SHOW(handled);
}

BEHAVIOUR(sigwait_takes_from_other_host)
{
    block_signal(SIG_BLOCK, SIGUSR1);
    pthread_t thread = START(1, {
        int signal = 0;
        sigset_t set = only(SIGUSR1);
        PTHREAD(sigwait(&set, &signal));
        say("%s\n", sigabbrev_np(signal));
    });
    ms(50);
    kill(getpid(), SIGUSR1);
    join(thread);
}

BEHAVIOUR(sigwaitinfo_tells)
{
    block_signal(SIG_BLOCK, SIGRTMIN);
    pthread_t thread = START(1, {
        siginfo_t info;
        sigset_t set = only(SIGRTMIN);
        YES(sigwaitinfo(&set, &info) == SIGRTMIN);
        YES(info.si_code == SI_QUEUE);
        SHOW(info.si_value.sival_int);
        YES(info.si_pid == getpid());
    });
    ms(50);
    sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 99});
    join(thread);
}

BEHAVIOUR(sigtimedwait_times_out)
{
    ON(1, {
        sigset_t set = only(SIGUSR1);
        block_signal(SIG_BLOCK, SIGUSR1);
        TRY(sigtimedwait(&set, NULL, &((struct timespec){0, 20000000})));
        TRY(sigtimedwait(&set, NULL, &((struct timespec){0, -1})));
        raise(SIGUSR1);
        SHOW(sigtimedwait(&set, NULL, &((struct timespec){1, 0})));
        TRY(sigtimedwait(&set, NULL, &((struct timespec){0, 0})));
    });
}

BEHAVIOUR(sigtimedwait_interrupted_by_other_signal)
{
    catch_signal(SIGUSR2, count_signal, SA_RESTART);
    static _Atomic bool is_over;
    pthread_t thread = START(1, {
        sigset_t set = only(SIGUSR1);
        block_signal(SIG_BLOCK, SIGUSR1);
        ready = 1;
        TRY(sigtimedwait(&set, NULL, &((struct timespec){5, 0})));
        is_over = true;
    });
    UNTIL(ready);
    while (!is_over) {
        ms(50);
        pthread_kill(thread, SIGUSR2);
    }
    join(thread);
    YES(handled >= 1);
}

BEHAVIOUR(sigsuspend_waits_with_its_mask)
{
    catch_signal(SIGUSR1, name_signal, 0);
    pthread_t thread = START(1, {
        sigset_t none;
        sigset_t set;
        block_signal(SIG_BLOCK, SIGUSR1);
        ready = 1;
        sigemptyset(&none);
        TRY(sigsuspend(&none));
        pthread_sigmask(SIG_SETMASK, NULL, &set);
        SHOW(sigismember(&set, SIGUSR1));
    });
    UNTIL(ready);
    pthread_kill(thread, SIGUSR1);
    join(thread);
}

BEHAVIOUR(pause_ends_with_handler)
{
    static _Atomic bool is_over;
    catch_signal(SIGUSR1, count_signal, SA_RESTART);
    pthread_t thread = START(1, { ready = 1; TRY(pause()); is_over = true; });
    UNTIL(ready);
    while (!is_over) {
        ms(50);
        pthread_kill(thread, SIGUSR1);
    }
    join(thread);
}

BEHAVIOUR(signalfd_reads)
{
    static int descriptor;
    sigset_t set = only(SIGRTMIN);
    block_signal(SIG_BLOCK, SIGRTMIN);
    descriptor = signalfd(-1, &set, SFD_CLOEXEC);
    pthread_t thread = START(1, {
        struct signalfd_siginfo info;
        SHOW(read(descriptor, &info, sizeof info) == sizeof info);
        YES(info.ssi_signo == (unsigned)SIGRTMIN);
        SHOW(info.ssi_int);
        YES((pid_t)info.ssi_pid == getpid());
    });
    ms(50);
    sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 5});
    join(thread);
}

BEHAVIOUR(signalfd_of_own_thread_signal)
{
    static int descriptor;
    sigset_t set = only(SIGUSR1);
    descriptor = signalfd(-1, &set, SFD_NONBLOCK);
    ON(1, {
        struct signalfd_siginfo info;
        block_signal(SIG_BLOCK, SIGUSR1);
        TRY(read(descriptor, &info, sizeof info));
        raise(SIGUSR1);
        TRY(read(descriptor, &info, sizeof info));
        SHOW(info.ssi_signo);
    });
}

BEHAVIOUR(child_signal_number_zero_tests)
{
    ON(1, { TRY(kill(getpid(), 0)); TRY(kill(999999999, 0)); });
}

BEHAVIOUR(handler_makes_calls_and_keeps_errno)
{
    void handler(int signal)
    {
        (void)signal;
        int kept = errno;
        close(-1);
        say("in handler %s\n", strerrorname_np(errno));
        errno = kept;
    }
    catch_signal(SIGUSR1, handler, 0);
    ON(1, { errno = EXDEV; raise(SIGUSR1); say("%s\n", strerrorname_np(errno)); });
}

BEHAVIOUR(handler_keeps_vector_registers)
{
    void handler(int signal)
    {
        volatile double zero = signal * 0.0;
        asm volatile("pxor %%xmm0,%%xmm0\n pxor %%xmm7,%%xmm7\n pxor %%xmm15,%%xmm15" ::: "xmm0", "xmm7", "xmm15");
        handled += 1 + (int)zero;
    }
    catch_signal(SIGUSR1, handler, 0);
    static pthread_t thread;
    thread = START(1, {
        long sum = 0;
        ready = 1;
        asm volatile("mov $0x1234567, %%rax\n movq %%rax, %%xmm7\n movq %%rax, %%xmm15\n 1: cmpl $0, %1\n je 1b\n movq %%xmm7, %0\n movq %%xmm15, %%rax\n add %%rax, %0"
                     : "=&r"(sum) : "m"(handled) : "rax", "xmm7", "xmm15", "cc");
        YES(sum == 2 * 0x1234567);
    });
    UNTIL(ready);
    ms(20);
    pthread_kill(thread, SIGUSR1);
    join(thread);
}

BEHAVIOUR(signal_while_others_share_pages)
{
    static _Atomic long shared[8];
    static _Atomic bool is_over;
    catch_signal(SIGUSR1, count_signal, SA_RESTART);
    pthread_t one = START(1, { while (!is_over) shared[0]++; });
    pthread_t two = START(2, { while (!is_over) shared[1]++; });
    for (int at = 0; at < 50; at++) {
        int before = handled;
        pthread_kill(at & 1 ? one : two, SIGUSR1);
        UNTIL(handled > before);
    }
    is_over = true;
    join(one);
    join(two);
    SHOW(handled);
}

BEHAVIOUR(sigpipe_kills_by_default)
{
    static int ends[2];
    pipe(ends);
    close(ends[0]);
    ON(1, { TRY(write(ends[1], "x", 1)); });
    say("never\n");
}

BEHAVIOUR(sigpipe_ignored_gives_epipe)
{
    static int ends[2];
    pipe(ends);
    close(ends[0]);
    signal(SIGPIPE, SIG_IGN);
    ON(1, { TRY(write(ends[1], "x", 1)); });
}

BEHAVIOUR(sigpipe_handled_in_writer)
{
    static int ends[2];
    static _Atomic pid_t theirs;
    pipe(ends);
    close(ends[0]);
    catch_signal(SIGPIPE, count_signal, 0);
    ON(1, { theirs = tid(); TRY(write(ends[1], "x", 1)); SHOW(handled); });
    YES(handler_tid == theirs);
}

BEHAVIOUR(winch_chld_urg_ignored_by_default)
{
    ON(1, { raise(SIGWINCH); raise(SIGCHLD); raise(SIGURG); raise(SIGCONT); say("alive\n"); });
}

BEHAVIOUR(urg_can_be_caught)
{
    catch_signal(SIGURG, count_signal, SA_RESTART | SA_ONSTACK);
    pthread_t thread = START(1, { ready = 1; UNTIL(handled >= 3); });
    UNTIL(ready);
    for (int at = 1; at <= 3; at++) {
        pthread_kill(thread, SIGURG);
        UNTIL(handled >= at);
    }
    join(thread);
    SHOW(handled);
}

BEHAVIOUR(all_catchable_signals)
{
    ON(1, {
        for (int number = 1; number < 65; number++) {
            if (number == SIGKILL || number == SIGSTOP || number == 32 || number == 33)
                continue;
            int before = handled;
            catch_signal(number, count_signal, 0);
            raise(number);
            if (handled != before + 1)
                say("signal %d was handled %d times\n", number, handled - before);
        }
        SHOW(handled);
    });
}
