// Other programs: started natively at the root by fork, vfork, clone and spawn, with their descriptors, signals and ends.
#include "check.h"
#include <spawn.h>
#include <sys/sysinfo.h>
#include <sys/times.h>
#include <sys/prctl.h>
#include <sys/wait.h>

extern char **environ;
static int ends[2];
static pid_t child;
static int status;

// Starts `/bin/sh -c SCRIPT`.
static pid_t start_shell(const char *script)
{
    pid_t made = fork();
    if (made == 0) {
        execl("/bin/sh", "sh", "-c", script, NULL);
        _exit(111);
    }
    if (made < 0)
        say("fork: %s\n", strerrorname_np(errno));
    return made;
}

static void run_shell(const char *script)
{
    pid_t made = start_shell(script);
    if (made > 0) {
        int how;
        YES(waitpid(made, &how, 0) == made);
        say_status("shell", how);
    }
}

BEHAVIOUR(fork_and_execute)
{
    run_shell("echo from the child; exit 7");
}

BEHAVIOUR(fork_and_execute_on_member)
{
    ON(1, { run_shell("echo from the child; exit 7"); });
}

BEHAVIOUR(vfork_and_execute)
{
    ON(1, {
        child = vfork();
        if (child == 0) {
            execl("/bin/sh", "sh", "-c", "echo vforked; exit 5", NULL);
            _exit(111);
        }
        YES(waitpid(child, &status, 0) == child);
        say_status("child", status);
    });
}

BEHAVIOUR(spawn)
{
    ON(1, { char *words[] = {"sh", "-c", "echo spawned; exit 3", NULL}; int error = posix_spawn(&child, "/bin/sh", NULL, NULL, words, environ); waitpid(child, &status, 0); say("posix_spawn: %s\n", named(error)); say_status("child", status); });
}

BEHAVIOUR(spawn_with_actions_and_attributes)
{
    ON(1, {
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attributes;
        sigset_t set = only(SIGUSR1);
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_addopen(&actions, 5, "made", O_RDWR | O_CREAT, 0600);
        posix_spawn_file_actions_adddup2(&actions, 5, 1);
        posix_spawn_file_actions_addclose(&actions, 5);
        posix_spawnattr_init(&attributes);
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF);
        posix_spawnattr_setsigmask(&attributes, &set);
        char *words[] = {"sh", "-c", "echo into the file", NULL};
        PTHREAD(posix_spawnp(&child, "sh", &actions, &attributes, words, environ));
        waitpid(child, &status, 0);
        say_status("child", status);
        char text[100] = "";
        int file = open("made", O_RDONLY);
        read(file, text, 99);
        say("%s", text);
    });
}

BEHAVIOUR(spawn_of_missing_program)
{
    ON(1, { char *words[] = {"none", NULL}; PTHREAD(posix_spawn(&child, "/nonexistent", NULL, NULL, words, environ)); PTHREAD(posix_spawnp(&child, "no-such-program", NULL, NULL, words, environ)); });
}

BEHAVIOUR(system_runs_shell)
{
    ON(1, { SHOW(system(NULL) != 0); say_status("system", system("echo by the shell; exit 4")); say_status("system", system("kill -9 $$")); });
}

BEHAVIOUR(popen_reads)
{
    ON(1, { char line[100] = ""; FILE *stream = popen("echo one; echo two", "r"); YES(stream != NULL); while (fgets(line, sizeof line, stream) != NULL) say("%s", line); say_status("pclose", pclose(stream)); });
}

BEHAVIOUR(popen_writes)
{
    ON(2, { FILE *stream = popen("cat; exit 2", "w"); YES(stream != NULL); fputs("through cat\n", stream); say_status("pclose", pclose(stream)); });
}

BEHAVIOUR(pipe_from_child_to_member)
{
    pipe2(ends, O_CLOEXEC);
    ON(1, {
        child = fork();
        if (child == 0) {
            dup2(ends[1], 1);
            execlp("sh", "sh", "-c", "echo data; head -c 100000 /dev/zero", NULL);
            _exit(111);
        }
        close(ends[1]);
        static char bytes[4096];
        long total = 0;
        long count;
        while ((count = read(ends[0], bytes, sizeof bytes)) > 0)
            total += count;
        SHOW(total);
        waitpid(child, &status, 0);
        say_status("child", status);
    });
}

BEHAVIOUR(pipeline_of_two_children)
{
    pipe2(ends, O_CLOEXEC);
    ON(1, { child = fork(); if (child == 0) { dup2(ends[1], 1); execlp("printf", "printf", "b\\na\\nc\\n", NULL); _exit(111); } });
    ON(2, { pid_t other = fork(); if (other == 0) { dup2(ends[0], 0); execlp("sort", "sort", NULL); _exit(111); } close(ends[0]); close(ends[1]); int how; waitpid(child, &status, 0); waitpid(other, &how, 0); say_status("first", status); say_status("second", how); });
}

BEHAVIOUR(descriptors_are_inherited_or_closed)
{
    int file = file_with("f", "x", 1);
    dup2(file, 40);
    dup3(file, 41, O_CLOEXEC);
    ON(1, { run_shell("for n in 40 41; do [ -e /proc/self/fd/$n ] && echo $n; done; true"); });
}

BEHAVIOUR(no_descriptor_of_the_husk_leaks)
{
    ON(1, { run_shell("ls /proc/self/fd | wc -l"); });
}

BEHAVIOUR(environment_is_passed)
{
    setenv("CONFORMANCE", "yes", 1);
    ON(1, { run_shell("echo $CONFORMANCE"); char *words[] = {"sh", "-c", "echo $ONLY:$CONFORMANCE", NULL}; char *environment[] = {"ONLY=this", NULL}; int error = posix_spawn(&child, "/bin/sh", NULL, NULL, words, environment); waitpid(child, &status, 0); say("posix_spawn: %s\n", named(error)); });
}

BEHAVIOUR(working_directory_is_passed)
{
    mkdir("below", 0700);
    chdir("below");
    ON(1, { run_shell("basename $(pwd)"); });
}

BEHAVIOUR(child_is_of_this_process)
{
    static char script[100];
    snprintf(script, sizeof script, "[ $PPID = %d ] && echo parent known", getpid());
    ON(1, { run_shell(script); });
    run_shell(script);
}

BEHAVIOUR(status_of_killed_child)
{
    ON(1, { child = start_shell("kill -TERM $$; sleep 5"); if (child > 0) { waitpid(child, &status, 0); say_status("child", status); } });
}

BEHAVIOUR(member_kills_child)
{
    ON(1, { child = start_shell("exec sleep 60"); if (child > 0) { ms(30); TRY(kill(child, SIGKILL)); waitpid(child, &status, 0); say_status("child", status); } });
}

BEHAVIOUR(wait_without_hanging)
{
    ON(1, {
        TRY(waitpid(-1, &status, WNOHANG));
        child = start_shell("sleep 0.2; exit 6");
        if (child > 0) {
            SHOW(waitpid(child, &status, WNOHANG));
            siginfo_t info;
            TRY(waitid(P_PID, child, &info, WEXITED | WNOWAIT));
            SHOW(info.si_status);
            YES(info.si_pid == child && info.si_code == CLD_EXITED);
            struct rusage usage;
            YES(wait4(child, &status, 0, &usage) == child);
            say_status("child", status);
            TRY(waitpid(child, &status, 0));
        }
    });
}

BEHAVIOUR(child_signal_arrives)
{
    static _Atomic int handled;
    void handler(int signal, siginfo_t *info, void *context)
    {
        (void)context;
        say("%s exited: %s status %d\n", sigabbrev_np(signal), info->si_code == CLD_EXITED ? "yes" : "no", info->si_status);
        handled++;
    }
    catch_info(SIGCHLD, handler, SA_RESTART);
    ON(1, { child = start_shell("exit 9"); if (child > 0) { UNTIL(handled); waitpid(child, &status, 0); } });
}

BEHAVIOUR(ignored_child_signal_reaps)
{
    signal(SIGCHLD, SIG_IGN);
    ON(1, { child = start_shell("exit 9"); if (child > 0) TRY(waitpid(child, &status, 0)); });
}

BEHAVIOUR(child_has_default_handlers)
{
    catch_signal(SIGUSR1, SIG_IGN, 0);
    void handler(int signal)
    {
        (void)signal;
    }
    catch_signal(SIGUSR2, handler, 0);
    ON(1, { run_shell("kill -USR1 $$; echo ignored as before; kill -USR2 $$; echo never"); });
}

BEHAVIOUR(mask_is_passed)
{
    ON(1, { block_signal(SIG_BLOCK, SIGTERM); run_shell("kill -TERM $$; echo blocked as before"); });
}

BEHAVIOUR(stop_and_continue_child)
{
    ON(1, { child = start_shell("exec sleep 60"); if (child > 0) { kill(child, SIGSTOP); waitpid(child, &status, WUNTRACED); say_status("child", status); kill(child, SIGCONT); waitpid(child, &status, WCONTINUED); say_status("child", status); kill(child, SIGKILL); waitpid(child, &status, 0); say_status("child", status); } });
}

BEHAVIOUR(children_from_all_hosts)
{
    static _Atomic int good;
    void *body(void *argument)
    {
        for (int at = 0; at < 5; at++) {
            char *words[] = {"true", NULL};
            pid_t own;
            int how;
            if (posix_spawnp(&own, "true", NULL, NULL, words, environ) == 0 && waitpid(own, &how, 0) == own && how == 0)
                good++;
        }
        return argument;
    }
    on_each(3, body);
    SHOW(good);
}

BEHAVIOUR(child_while_others_run)
{
    static _Atomic bool is_over;
    static _Atomic long turns;
    pthread_t busy = START(2, { do turns++; while (!is_over); });
    ON(1, { run_shell("exit 1"); });
    is_over = true;
    join(busy);
    YES(turns > 0);
}

BEHAVIOUR(child_writes_back_by_file)
{
    ON(1, { run_shell("echo written > result"); char text[20] = ""; int file = open("result", O_RDONLY); read(file, text, 19); say("%s", text); });
}

BEHAVIOUR(exit_of_forked_child_without_program)
{
    fflush(NULL);
    child = fork();
    if (child == 0)
        _exit(23);
    say("fork: %s\n", outcome(child));
    if (child > 0) {
        waitpid(child, &status, 0);
        say_status("child", status);
    }
}

BEHAVIOUR(forked_child_sees_its_own_copy)
{
    static volatile int value = 1;
    child = fork();
    if (child == 0) {
        value = 2;
        _exit(value);
    }
    say("fork: %s\n", outcome(child));
    if (child > 0) {
        waitpid(child, &status, 0);
        say_status("child", status);
        SHOW(value);
    }
}

BEHAVIOUR(forked_child_of_member_writes)
{
    ON(1, {
        child = fork();
        if (child == 0) {
            say("in the child\n");
            _exit(0);
        }
        if (child > 0)
            waitpid(child, &status, 0);
        say("fork: %s\n", outcome(child));
    });
}

BEHAVIOUR(execute_replaces_process)
{
    static pid_t own;
    own = getpid();
    char script[100];
    snprintf(script, sizeof script, "[ $$ = %d ] && echo same number; exit 12", own);
    execl("/bin/sh", "sh", "-c", script, NULL);
    say("execl: %s\n", strerrorname_np(errno));
}

BEHAVIOUR(execute_from_member_replaces_process)
{
    ON(1, { execl("/bin/sh", "sh", "-c", "echo replaced; exit 13", NULL); say("execl: %s\n", strerrorname_np(errno)); });
}

BEHAVIOUR(execute_of_missing_program)
{
    ON(1, { TRY(execl("/nonexistent", "x", NULL)); TRY(execl("/", "x", NULL)); close(file_with("text", "not a program", 13)); TRY(execl("./text", "x", NULL)); });
}

BEHAVIOUR(script_with_interpreter)
{
    int file = file_with("script", "#!/bin/sh\necho script $1; exit 14\n", 34);
    fchmod(file, 0755);
    close(file);
    ON(1, {
        child = fork();
        if (child == 0) {
            execl("./script", "script", "argument", NULL);
            _exit(111);
        }
        if (child < 0)
            say("fork: %s\n", strerrorname_np(errno));
        else {
            waitpid(child, &status, 0);
            say_status("script", status);
        }
    });
}

BEHAVIOUR(handlers_around_fork)
{
    void before(void)
    {
        say("before\n");
    }
    void after(void)
    {
        say("after in parent\n");
    }
    void inside(void)
    {
    }
    pthread_atfork(before, after, inside);
    ON(1, { run_shell("exit 0"); });
}

BEHAVIOUR(process_descriptor)
{
    ON(1, { child = start_shell("exit 8"); if (child > 0) { int descriptor = syscall(SYS_pidfd_open, child, 0); SHOW(descriptor >= 0); siginfo_t info; TRY(waitid(3, descriptor, &info, WEXITED)); SHOW(info.si_status); } });
}

BEHAVIOUR(usage_of_children)
{
    ON(1, { run_shell("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"); struct rusage usage; TRY(getrusage(RUSAGE_CHILDREN, &usage)); YES(usage.ru_utime.tv_sec * 1000000 + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec > 1000); });
}

// A child that asks what other hosts would have to be asked for, and of which they must not hear.
BEHAVIOUR(fork_and_ask_of_the_machine)
{
    ON(1, {
        long most = get_nprocs();
        child = fork();
        if (child == 0) {
            struct rusage usage;
            struct timespec used;
            struct tms ticks;
            struct sysinfo machine;
            char text[4096];
            TRY(getrusage(RUSAGE_SELF, &usage));
            YES(times(&ticks) != -1);
            YES(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used) == 0 && used.tv_sec < 5);
            YES(sysinfo(&machine) == 0 && machine.totalram > 0);
            YES(get_nprocs() == most);
            YES(syscall(SYS_membarrier, 0, 0, 0) >= 0);
            for (const char **path = (const char *[]){"/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/self/status", NULL}; *path; path++) {
                int file = open(*path, O_RDONLY);
                say("%s: %s\n", *path, outcome(file));
                YES(read(file, text, sizeof text) > 0);
                close(file);
            }
            _exit(6);
        }
        YES(waitpid(child, &status, 0) == child);
        say_status("child", status);
    });
    ON(2, {
        struct rusage usage;
        void *block = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(block, 1, 1 << 20);
        TRY(munmap(block, 1 << 20));
        TRY(getrusage(RUSAGE_SELF, &usage));
    });
}

static volatile int counted;

BEHAVIOUR(fork_waits_for_another_thread)
{
    static int asks[2], answers[2];
    YES(pipe(asks) == 0 && pipe(answers) == 0);
    pthread_t other = START(1, {
        char byte;
        read(asks[0], &byte, 1);
        counted = 1;
        write(answers[1], &byte, 1);
    });
    child = fork();
    if (child == 0) {
        char byte = 'x';
        int before = counted;
        write(asks[1], &byte, 1);
        read(answers[0], &byte, 1);
        _exit(before == 0 && counted == 0 ? 0 : 5);
    }
    waitpid(child, &status, 0);
    join(other);
    say_status("child", status);
    SHOW(counted);
}
