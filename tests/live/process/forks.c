// Forked children that go on without a program of their own, of a program whose threads have all been at the root.
#include "check.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>

extern char **environ;
static int status;
static volatile int value = 1;

// Forks; the child executes the statements and ends with status 0. Waits, and shows how it ended.
#define CHILD(...)                                       \
    do {                                                 \
        pid_t made = fork();                             \
        if (made == 0) {                                 \
            __VA_ARGS__;                                 \
            _exit(0);                                    \
        }                                                \
        if (made < 0)                                    \
            say("fork: %s\n", strerrorname_np(errno));   \
        int how;                                         \
        while (waitpid(made, &how, 0) < 0 && errno == EINTR) \
            ;                                            \
        say_status("child", how);                        \
    } while (0)

// Writes `count` bytes that follow from their places.
static void pour(int into, long count)
{
    static char bytes[10000];
    for (long done = 0; done < count;) {
        long part = count - done < (long)sizeof bytes ? count - done : (long)sizeof bytes;
        for (long at = 0; at < part; at++)
            bytes[at] = (char)((done + at) % 251);
        if (write(into, bytes, part) != part)
            _exit(96);
        done += part;
    }
}

// Reads to the end; the count of bytes, or -1 if one is wrong.
static long drain(int from)
{
    static char bytes[7000];
    long total = 0, count;
    bool is_right = true;
    while ((count = read(from, bytes, sizeof bytes)) > 0)
        for (long at = 0; at < count; at++, total++)
            is_right &= bytes[at] == (char)(total % 251);
    return is_right ? total : -1;
}

BEHAVIOUR(own_copy)
{
    static char block[3 << 20];
    memset(block, 7, sizeof block);
    CHILD({
        YES(value == 1 && block[0] == 7 && block[sizeof block - 1] == 7);
        value = 2;
        memset(block, 8, sizeof block);
    });
    YES(value == 1 && block[0] == 7 && block[sizeof block - 1] == 7);
}

BEHAVIOUR(parent_changes_afterwards)
{
    int go[2];
    pipe(go);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        read(go[0], &byte, 1);
        _exit(value);
    }
    value = 5;
    write(go[1], "x", 1);
    waitpid(child, &status, 0);
    say_status("child", status);
}

BEHAVIOUR(generations)
{
    CHILD({
        value++;
        CHILD({
            value++;
            CHILD({ _exit(value); });
            _exit(value);
        });
        CHILD({ _exit(value + 10); });
        _exit(value);
    });
    SHOW(value);
}

BEHAVIOUR(many_children)
{
    pid_t children[40];
    for (int at = 0; at < 40; at++)
        if ((children[at] = fork()) == 0)
            _exit(at);
    int right = 0;
    for (int at = 0; at < 40; at++)
        right += waitpid(children[at], &status, 0) == children[at] && WIFEXITED(status) && WEXITSTATUS(status) == at;
    SHOW(right);
    TRY(wait(NULL));
}

BEHAVIOUR(numbers)
{
    pid_t own = getpid();
    CHILD({
        YES(getppid() == own && getpid() != own && tid() == getpid());
        pid_t second = getpid();
        CHILD(YES(getppid() == second && getpid() != second && tid() == getpid()));
    });
    YES(getpid() == own && tid() == own);
}

BEHAVIOUR(pipe_from_child)
{
    int ends[2];
    pipe(ends);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        pour(ends[1], 1000000);
        _exit(3);
    }
    close(ends[1]);
    SHOW(drain(ends[0]));
    waitpid(child, &status, 0);
    say_status("child", status);
}

BEHAVIOUR(pipes_both_ways)
{
    int to[2], from[2];
    pipe(to);
    pipe(from);
    pid_t child = fork();
    if (child == 0) {
        close(to[1]);
        close(from[0]);
        long count = drain(to[0]);
        pour(from[1], count);
        _exit(4);
    }
    close(to[0]);
    close(from[1]);
    pour(to[1], 700000);
    close(to[1]);
    SHOW(drain(from[0]));
    waitpid(child, &status, 0);
    say_status("child", status);
}

static volatile sig_atomic_t caught;
static void count_signal(int signal)
{
    (void)signal;
    caught++;
}

BEHAVIOUR(signals_between)
{
    sigset_t former, with = only(SIGUSR1);
    catch_signal(SIGUSR1, count_signal, 0);
    sigprocmask(SIG_BLOCK, &with, &former);
    pid_t child = fork();
    if (child == 0) {
        kill(getppid(), SIGUSR1);
        while (caught < 1)
            sigsuspend(&former);
        _exit(10 + caught);
    }
    while (caught < 1)
        sigsuspend(&former);
    kill(child, SIGUSR1);
    waitpid(child, &status, 0);
    say_status("child", status);
    SHOW(caught);
}

BEHAVIOUR(handler_of_child_alone)
{
    CHILD({
        catch_signal(SIGUSR2, count_signal, 0);
        raise(SIGUSR2);
        SHOW(caught);
    });
    SHOW(caught);
    CHILD(raise(SIGUSR2));
    CHILD(raise(SIGABRT));
    CHILD(*(volatile int *)8 = 1);
}

BEHAVIOUR(pending_and_timers_are_not_inherited)
{
    block_signal(SIG_BLOCK, SIGUSR1);
    raise(SIGUSR1);
    setitimer(ITIMER_REAL, &(struct itimerval){.it_value.tv_sec = 5}, NULL);
    CHILD({
        sigset_t waiting;
        struct itimerval left;
        sigpending(&waiting);
        SHOW(sigismember(&waiting, SIGUSR1));
        getitimer(ITIMER_REAL, &left);
        YES(left.it_value.tv_sec == 0 && left.it_value.tv_usec == 0);
        catch_signal(SIGALRM, count_signal, 0);
        setitimer(ITIMER_REAL, &(struct itimerval){.it_value.tv_usec = 20000}, NULL);
        UNTIL(caught);
        catch_signal(SIGPROF, count_signal, 0);
        setitimer(ITIMER_PROF, &(struct itimerval){.it_value.tv_usec = 20000}, NULL);
        while (caught < 2)
            value++;
    });
}

BEHAVIOUR(alternate_stack_is_inherited)
{
    static char stack[65536];
    static volatile bool is_on;
    void on_stack(int signal)
    {
        char here;
        (void)signal;
        is_on = &here >= stack && &here < stack + sizeof stack;
    }
    sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL);
    catch_signal(SIGUSR1, on_stack, SA_ONSTACK);
    CHILD(raise(SIGUSR1); YES(is_on));
}

BEHAVIOUR(orphan_goes_on)
{
    int ends[2];
    pipe(ends);
    CHILD({
        pid_t first = getpid();
        if (fork() == 0) {
            close(ends[0]);
            UNTIL(getppid() != first);
            ms(50);
            pour(ends[1], 100000);
            _exit(0);
        }
    });
    close(ends[1]);
    SHOW(drain(ends[0]));
    TRY(wait(NULL));
}

BEHAVIOUR(outlives_its_parent)
{
    // The harness reads to the end of the child's output.
    if (fork() == 0) {
        pid_t child = getpid();
        if (fork() == 0) {
            UNTIL(getppid() != child);
            say("still here\n");
            _exit(0);
        }
        ms(100);
        _exit(0);
    }
    wait(&status);
    ms(300);
}

BEHAVIOUR(daemon_lets_go_of_stderr)
{
    int ends[2];
    pipe(ends);
    CHILD({
        dup2(ends[1], 2);
        execlp("sh", "sh", "-c", "true", NULL);
    });
    dup2(ends[1], 2);
    close(ends[1]);
    pid_t child = fork();
    if (child == 0) {
        close(2);
        close(ends[0]);
        for (;;)
            pause();
    }
    close(2);
    SHOW(drain(ends[0]));
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    say_status("child", status);
}

BEHAVIOUR(signal_of_parents_death)
{
    int ends[2];
    pipe(ends);
    CHILD({
        if (fork() == 0) {
            close(ends[0]);
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            pour(ends[1], 1000);
            for (;;)
                pause();
        }
        ms(100);
    });
    close(ends[1]);
    // Ends when the grandchild is killed.
    SHOW(drain(ends[0]));
    CHILD({
        int wanted = -1;
        prctl(PR_SET_PDEATHSIG, SIGUSR1);
        ms(100);
        prctl(PR_GET_PDEATHSIG, &wanted);
        SHOW(wanted);
    });
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static __thread int own;
static int turns;
static void *take_turns(void *argument)
{
    int number = (int)(intptr_t)argument;
    own = number;
    for (int turn = 0; turn < 50; turn++) {
        pthread_mutex_lock(&lock);
        while (turns % 4 != number)
            pthread_cond_wait(&changed, &lock);
        turns++;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
    }
    return (void *)(intptr_t)own;
}

static void with_threads(void)
{
    pthread_t threads[4];
    int sum = 0;
    for (int at = 0; at < 4; at++)
        PTHREAD(pthread_create(&threads[at], NULL, take_turns, (void *)(intptr_t)at));
    for (int at = 0; at < 4; at++)
        sum += (int)(intptr_t)join(threads[at]);
    say("turns %d, sum %d, own %d\n", turns, sum, own);
}

BEHAVIOUR(threads_in_child)
{
    own = 17;
    CHILD(with_threads(); CHILD(turns = 0; with_threads()));
    SHOW(turns);
}

BEHAVIOUR(threads_at_fork_are_gone)
{
    CHILD({
        pthread_t other;
        pthread_create(&other, NULL, (Body *)pause, NULL);
        // A copy of a copy has its forking thread alone.
        CHILD({
            char text[4096] = "";
            int file = open("/proc/self/status", O_RDONLY);
            read(file, text, sizeof text - 1);
            char *line = strstr(text, "Threads:");
            say("%.10s\n", line == NULL ? "none" : line);
        });
    });
}

BEHAVIOUR(first_thread_of_child_ends)
{
    void *last(void *argument)
    {
        ms(50);
        say("last thread\n");
        exit(21);
        return argument;
    }
    CHILD({
        pthread_t thread;
        pthread_create(&thread, NULL, last, NULL);
        pthread_exit(NULL);
    });
}

BEHAVIOUR(memory_calls)
{
    char *kept = map(8 * PAGE, PROT_READ | PROT_WRITE, 0);
    memset(kept, 1, 8 * PAGE);
    TRY(mprotect(kept + PAGE, PAGE, PROT_NONE));
    char *untouched = map(64 << 20, PROT_READ | PROT_WRITE, 0);
    CHILD({
        TRY(mprotect(kept + PAGE, PAGE, PROT_READ));
        SHOW(kept[PAGE]);
        TRY(munmap(kept, PAGE));
        CHILD(value = kept[0]);
        SHOW(untouched[50 << 20]);
        untouched[1] = 1;
        TRY(madvise(untouched, PAGE, MADV_DONTNEED));
        SHOW(untouched[1]);
        char *more = map(20 << 20, PROT_READ | PROT_WRITE, 0);
        memset(more, 3, 20 << 20);
        more = mremap(more, 20 << 20, 40 << 20, MREMAP_MAYMOVE);
        YES(more != MAP_FAILED && more[(20 << 20) - 1] == 3 && more[(40 << 20) - 1] == 0);
        char *heap = sbrk(1 << 20);
        memset(heap, 4, 1 << 20);
        CHILD(YES(heap[1000] == 4 && more[5] == 3 && kept[PAGE] == 1));
        char *block = malloc(5000000);
        memset(block, 5, 5000000);
        free(block);
    });
    TRY(mprotect(kept + PAGE, PAGE, PROT_READ));
    SHOW(kept[0] + kept[PAGE]);
}

BEHAVIOUR(untouched_file_mapping)
{
    static char bytes[3 << 20];
    memset(bytes, 'f', sizeof bytes);
    int file = file_with("large", bytes, sizeof bytes - 100);
    char *mapped = mmap(NULL, (3 << 20) + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    mapped[PAGE] = 'w';
    CHILD({
        YES(mapped[0] == 'f' && mapped[PAGE] == 'w' && mapped[2 << 20] == 'f' && mapped[(3 << 20) - 1] == 0);
        mapped[0] = 'x';
        TRY(madvise(mapped, 2 * PAGE, MADV_DONTNEED));
        YES(mapped[0] == 'f' && mapped[PAGE] == 'f');
        CHILD(value = mapped[3 << 20]);
    });
    YES(mapped[0] == 'f' && mapped[PAGE] == 'w');
}

BEHAVIOUR(programs_of_child)
{
    CHILD({
        say_status("system", system("echo by the shell; exit 4"));
        char line[100] = "";
        FILE *stream = popen("echo through a pipe", "r");
        fgets(line, sizeof line, stream);
        say("%s", line);
        say_status("pclose", pclose(stream));
        pid_t made;
        PTHREAD(posix_spawn(&made, "/nonexistent", NULL, NULL, (char *[]){"none", NULL}, environ));
        posix_spawnp(&made, "sh", NULL, NULL, (char *[]){"sh", "-c", "echo spawned; exit 5", NULL}, environ);
        waitpid(made, &status, 0);
        say_status("spawned", status);
        if ((made = vfork()) == 0) {
            execlp("sh", "sh", "-c", "echo vforked; exit 6", NULL);
            _exit(111);
        }
        waitpid(made, &status, 0);
        say_status("vforked", status);
        CHILD(execlp("sh", "sh", "-c", "exit 7", NULL));
        TRY(execl("/nonexistent", "x", NULL));
        execlp("sh", "sh", "-c", "echo the child itself; exit 8", NULL);
    });
}

BEHAVIOUR(child_executes_with_limits)
{
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){300, 4000});
    CHILD({
        struct rlimit found;
        getrlimit(RLIMIT_NOFILE, &found);
        YES(found.rlim_cur == 300 && found.rlim_max == 4000);
        setrlimit(RLIMIT_NOFILE, &(struct rlimit){200, 3000});
        setrlimit(RLIMIT_STACK, &(struct rlimit){4 << 20, RLIM_INFINITY});
        TRY(dup2(1, 250));
        CHILD(execlp("sh", "sh", "-c", "ulimit -n; ulimit -Hn; ulimit -s", NULL));
        CHILD(TRY(dup2(1, 250)); CHILD(execlp("sh", "sh", "-c", "ulimit -n", NULL)));
    });
    struct rlimit found;
    getrlimit(RLIMIT_NOFILE, &found);
    YES(found.rlim_cur == 300 && found.rlim_max == 4000);
}

BEHAVIOUR(descriptors_of_child)
{
    int file = file_with("f", "0123456789", 10);
    CHILD({
        int hidden = 0;
        for (int at = 1000; at < 5000; at++)
            hidden += fcntl(at, F_GETFD) >= 0 && close(at) == 0;
        SHOW(hidden);
        lseek(file, 4, SEEK_SET);
        close(file);
    });
    SHOW(lseek(file, 0, SEEK_CUR));
}

BEHAVIOUR(server_in_child)
{
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    TRY(bind(listener, (struct sockaddr *)&address, bytes));
    getsockname(listener, (struct sockaddr *)&address, &bytes);
    TRY(listen(listener, 8));
    pid_t child = fork();
    if (child == 0) {
        for (int at = 0; at < 3; at++) {
            int one = accept(listener, NULL, NULL);
            if (fork() == 0) {
                pour(one, drain(one));
                _exit(0);
            }
            close(one);
        }
        int right = 0;
        while (wait(&status) > 0)
            right += status == 0;
        _exit(right);
    }
    for (int at = 0; at < 3; at++) {
        int one = socket(AF_INET, SOCK_STREAM, 0);
        TRY(connect(one, (struct sockaddr *)&address, sizeof address));
        pour(one, 30000);
        shutdown(one, SHUT_WR);
        SHOW(drain(one));
        close(one);
    }
    waitpid(child, &status, 0);
    say_status("child", status);
}

BEHAVIOUR(handlers_at_fork)
{
    void before(void)
    {
        say("before\n");
    }
    void after(void)
    {
        ms(20);
    }
    void inside(void)
    {
        say("inside\n");
    }
    pthread_atfork(before, after, inside);
    CHILD(CHILD(say("grandchild\n")));
}

BEHAVIOUR(buffered_output_and_exit)
{
    atexit((void (*)(void))sync);
    printf("twice\n");
    CHILD(printf("once\n"); exit(0));
    fflush(stdout);
}
