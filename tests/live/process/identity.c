// Who the process is, what it may use, and what it is told about limits.
#include "check.h"
#include <grp.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/utsname.h>

static pid_t seen[4];

BEHAVIOUR(process_numbers_are_one)
{
    ON(1, { seen[0] = getpid(); seen[1] = getppid(); seen[2] = getpgrp(); seen[3] = getsid(0); });
    YES(seen[0] == getpid());
    YES(seen[1] == getppid());
    YES(seen[2] == getpgrp());
    YES(seen[3] == getsid(0));
    ON(2, { YES(getpgid(0) == seen[2]); YES(syscall(SYS_getpid) == getpid()); });
}

BEHAVIOUR(users_and_groups)
{
    ON(1, { uid_t a; uid_t b; uid_t c; SHOW(getuid()); SHOW(geteuid()); SHOW(getgid()); SHOW(getegid()); TRY(getresuid(&a, &b, &c)); SHOW(a + b + c); TRY(getresgid(&a, &b, &c)); SHOW(getgroups(0, NULL)); });
}

BEHAVIOUR(changed_user_is_for_all_threads)
{
    static _Atomic int step;
    pthread_t other = START(1, { step = 1; UNTIL(step == 2); SHOW(geteuid()); });
    UNTIL(step == 1);
    ON(2, { TRY(seteuid(65534)); SHOW(geteuid()); });
    SHOW(geteuid());
    step = 2;
    join(other);
    TRY(seteuid(0));
}

BEHAVIOUR(new_session)
{
    ON(1, { TRY(setsid()); YES(getsid(0) == getpid() || errno == EPERM); });
}

BEHAVIOUR(names_of_system)
{
    static struct utsname of_main;
    static struct utsname of_member;
    TRY(uname(&of_main));
    ON(1, { TRY(uname(&of_member)); });
    YES(memcmp(&of_main, &of_member, sizeof of_main) == 0);
    ON(1, { char name[100]; TRY(gethostname(name, sizeof name)); YES(strcmp(name, of_main.nodename) == 0); });
}

BEHAVIOUR(limits_are_read_and_set)
{
    ON(1, {
        struct rlimit limit;
        TRY(getrlimit(RLIMIT_NOFILE, &limit));
        limit.rlim_cur = 100;
        TRY(setrlimit(RLIMIT_NOFILE, &limit));
        TRY(getrlimit(RLIMIT_NOFILE, &limit));
        SHOW(limit.rlim_cur);
        limit.rlim_cur = limit.rlim_max + 1;
        YES(limit.rlim_max == RLIM_INFINITY || setrlimit(RLIMIT_NOFILE, &limit) == -1);
        TRY(getrlimit(99, &limit));
        TRY(prlimit(getpid(), RLIMIT_CORE, NULL, &limit));
        SHOW(limit.rlim_cur);
    });
}

BEHAVIOUR(open_file_limit_holds)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 20;
    TRY(setrlimit(RLIMIT_NOFILE, &limit));
    ON(1, { int opened = 0; while (open("/dev/null", O_RDONLY) >= 0) opened++; say("%s after %d\n", strerrorname_np(errno), opened); });
}

BEHAVIOUR(limits_same_as_before)
{
    int resources[] = {RLIMIT_NOFILE, RLIMIT_STACK, RLIMIT_AS, RLIMIT_DATA, RLIMIT_FSIZE, RLIMIT_CPU, RLIMIT_MEMLOCK, RLIMIT_NPROC};
    for (int at = 0; at < 8; at++) {
        struct rlimit limit;
        getrlimit(resources[at], &limit);
        say("%d: %lu %lu\n", resources[at], limit.rlim_cur, limit.rlim_max);
    }
}

BEHAVIOUR(stack_limit_is_set)
{
    struct rlimit limit = {1 << 20, 8 << 20};
    TRY(setrlimit(RLIMIT_STACK, &limit));
    ON(1, { struct rlimit now; TRY(getrlimit(RLIMIT_STACK, &now)); SHOW(now.rlim_cur); });
}

BEHAVIOUR(address_space_limit_holds)
{
    struct rlimit limit = {1UL << 31, RLIM_INFINITY};
    TRY(setrlimit(RLIMIT_AS, &limit));
    ON(1, { YES(map(1UL << 33, PROT_READ, 0) == MAP_FAILED && errno == ENOMEM); });
}

BEHAVIOUR(process_controls)
{
    ON(1, {
        SHOW(prctl(PR_GET_DUMPABLE));
        TRY(prctl(PR_SET_PDEATHSIG, 0));
        TRY(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        SHOW(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
        SHOW(prctl(PR_CAPBSET_READ, 0));
        SHOW(prctl(PR_GET_KEEPCAPS));
        TRY(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
        TRY(prctl(PR_SET_VMA, 0, 0, 0, 0));
        TRY(prctl(99999));
    });
}

BEHAVIOUR(random_bytes)
{
    ON(1, { static char bytes[300]; SHOW(getrandom(bytes, 300, 0)); SHOW(getrandom(bytes, 16, GRND_NONBLOCK)); TRY(getrandom(bytes, 1, 99)); SHOW(getentropy(bytes, 256)); int zeros = 0; for (int at = 0; at < 256; at++) zeros += bytes[at] == 0; YES(zeros < 30); });
}

BEHAVIOUR(auxiliary_vector)
{
    ON(1, {
        SHOW(getauxval(AT_PAGESZ));
        SHOW(getauxval(AT_CLKTCK));
        SHOW(getauxval(AT_SECURE));
        SHOW(getauxval(AT_UID));
        YES(getauxval(AT_ENTRY) != 0);
        YES(getauxval(AT_PHDR) != 0);
        YES(getauxval(AT_BASE) != 0);
        YES(getauxval(AT_RANDOM) != 0);
        YES(getauxval(AT_HWCAP) != 0);
        YES(getauxval(AT_MINSIGSTKSZ) >= 2048);
        YES(access((char *)getauxval(AT_EXECFN), X_OK) == 0);
        say("%s\n", (char *)getauxval(AT_PLATFORM));
    });
}

extern char **environ;

BEHAVIOUR(environment_is_unchanged)
{
    ON(1, { YES(getenv("PATH") != NULL); say("%s\n", getenv("LC_ALL")); int own = 0; for (char **at = environ; *at != NULL; at++) own += strncmp(*at, "DVM", 3) == 0 || strncmp(*at, "GLIBC_TUNABLES", 14) == 0; SHOW(own); TRY(setenv("NEW", "value", 1)); });
    ON(2, { say("%s\n", getenv("NEW")); });
}

BEHAVIOUR(arguments_and_name)
{
    ON(1, { say("%s\n", program_invocation_short_name); char name[16]; prctl(PR_GET_NAME, name); YES(strlen(name) > 0); });
}

BEHAVIOUR(priorities_and_scheduling)
{
    ON(1, { TRY(nice(1) == -1 ? -1 : 0); SHOW(getpriority(PRIO_PROCESS, 0)); struct sched_param parameter = {0}; TRY(sched_setscheduler(0, SCHED_BATCH, &parameter)); YES(sched_getscheduler(0) == SCHED_BATCH); struct timespec slice; TRY(sched_rr_get_interval(0, &slice)); TRY(sched_getparam(0, &parameter)); });
}

BEHAVIOUR(scheduling_of_remote_thread)
{
    static _Atomic pid_t theirs;
    static _Atomic bool may_end;
    pthread_t thread = START(1, { theirs = tid(); UNTIL(may_end); });
    UNTIL(theirs);
    struct sched_param parameter = {0};
    PTHREAD(pthread_setschedparam(thread, SCHED_BATCH, &parameter));
    int policy = -1;
    PTHREAD(pthread_getschedparam(thread, &policy, &parameter));
    YES(policy == SCHED_BATCH);
    may_end = true;
    join(thread);
}

BEHAVIOUR(capabilities)
{
    ON(1, { struct { uint32_t version; int pid; } header = {0x20080522, 0}; uint32_t data[6]; TRY(syscall(SYS_capget, &header, data)); YES(data[0] != 0); });
}

BEHAVIOUR(system_values)
{
    ON(1, { SHOW(sysconf(_SC_PAGESIZE)); SHOW(sysconf(_SC_CLK_TCK)); SHOW(sysconf(_SC_IOV_MAX)); SHOW(sysconf(_SC_OPEN_MAX) > 0); SHOW(pathconf(".", _PC_NAME_MAX)); SHOW(sysconf(_SC_ARG_MAX) > 4096); });
}
