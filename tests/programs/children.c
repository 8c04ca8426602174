/* Children of a program with threads.
 *
 * children starts THREADS     each thread starts programs in every way and says what came of it
 * children goes-on HOW        a forked child that never has a program of its own, and how it ended
 * children bomb COUNT         COUNT children that fork
 *
 * In the last two a thread has been elsewhere before.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define THREADS_MAX 16
#define TEXT_BYTES 65536

static char texts[THREADS_MAX + 1][TEXT_BYTES];
/* system() changes what the whole process ignores, which children would see. */
static pthread_barrier_t after_system;

static void say(char *text, const char *what, int status)
{
    char line[256];
    if (WIFSIGNALED(status))
        snprintf(line, sizeof line, "%s: signal %d\n", what, WTERMSIG(status));
    else
        snprintf(line, sizeof line, "%s: status %d\n", what, WEXITSTATUS(status));
    strncat(text, line, TEXT_BYTES - strlen(text) - 1);
}

static void drain(char *text, int descriptor)
{
    char part[512];
    ssize_t bytes;
    while ((bytes = read(descriptor, part, sizeof part - 1)) > 0) {
        part[bytes] = 0;
        strncat(text, part, TEXT_BYTES - strlen(text) - 1);
    }
    close(descriptor);
}

static int wait_for(pid_t child)
{
    int status = -1;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

/* Signals 1 to 28: the C library's own above differ by who started us. */
#define MASKS "s/^\\(Sig[BI][a-z]*:\\).*\\(.......\\)$/\\1 \\2/p"
/* What a child finds: its directory, environment, descriptors beside the pipes of others, mask and ignored signals. */
#define LOOK "echo $COLOUR; pwd; cat; test -e /proc/self/fd/9 && echo nine; ulimit -n; ulimit -s;" \
             "sed -n '" MASKS "' /proc/self/status; readlink /proc/self/fd/* | grep -cE 'dvm|userfault|memfd'"

static void with_fork(char *text)
{
    int in[2], out[2];
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
        exit(2);
    pid_t child = fork();
    if (child == 0) {
        sigset_t mask;
        sigemptyset(&mask);
        sigaddset(&mask, SIGUSR2);
        sigprocmask(SIG_SETMASK, &mask, NULL);
        signal(SIGHUP, SIG_IGN);
        signal(SIGSEGV, SIG_IGN);
        dup2(in[0], 0);
        dup2(out[1], 1);
        fcntl(dup2(0, 9), F_SETFD, 0);
        setsid();
        setenv("COLOUR", "blue", 1);
        /* Memory of its own, old and new. */
        char *block = malloc(3 << 20);
        memset(block, 1, 3 << 20);
        strcpy(text, "lost");
        if (chdir("/usr"))
            _exit(2);
        execlp("missing-program", "missing-program", NULL);
        execlp("sh", "sh", "-c", LOOK, NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    if (write(in[1], "through the pipe\n", 17) != 17)
        exit(2);
    close(in[1]);
    drain(text, out[0]);
    say(text, "fork", wait_for(child));
}

static void with_spawn(char *text)
{
    int out[2];
    pid_t child;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t set;
    if (pipe2(out, O_CLOEXEC))
        exit(2);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawnattr_init(&attributes);
    sigfillset(&set);
    posix_spawnattr_setsigdefault(&attributes, &set);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    posix_spawnattr_setsigmask(&attributes, &set);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    /* A shell would change the mask. */
    char *look[] = {"sed", "-n", MASKS, "/proc/self/status", NULL};
    int error = posix_spawnp(&child, "sed", &actions, &attributes, look, environ);
    close(out[1]);
    drain(text, out[0]);
    say(text, error ? strerror(error) : "spawn", wait_for(child));
    char *killed[] = {"sh", "-c", "kill -KILL $$", NULL};
    error = posix_spawn(&child, "/bin/sh", NULL, NULL, killed, environ);
    say(text, error ? strerror(error) : "spawn", wait_for(child));
    char *missing[] = {"missing", NULL};
    error = posix_spawn(&child, "/nonexistent/program", NULL, NULL, missing, environ);
    strcat(strcat(text, strerror(error)), "\n");
}

static void *start_programs(void *argument)
{
    char *text = argument, line[128];
    say(text, "system", system("exit 7"));
    pthread_barrier_wait(&after_system);
    FILE *pipe = popen("echo from popen; exit 3", "re");
    while (fgets(line, sizeof line, pipe))
        strcat(text, line);
    say(text, "popen", pclose(pipe));
    with_spawn(text);
    with_fork(text);
    volatile int reached = 0;
    pid_t child = vfork();
    if (child == 0) {
        reached = 1;
        execl("/nonexistent/program", "program", NULL);
        _exit(errno);
    }
    say(text, reached ? "vfork" : "vfork without memory", wait_for(child));
    child = fork();
    if (child == 0) {
        reached = 2;
        raise(SIGABRT);
    }
    say(text, reached == 1 ? "fork that aborts" : "fork that wrote here", wait_for(child));
    return NULL;
}

static void starts(int threads)
{
    pthread_t thread[THREADS_MAX];
    pthread_barrier_init(&after_system, NULL, 1);
    start_programs(texts[threads]);
    pthread_barrier_init(&after_system, NULL, threads);
    for (int i = 0; i < threads; i++)
        if (pthread_create(&thread[i], NULL, start_programs, texts[i]))
            exit(2);
    for (int i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
    for (int i = 0; i <= threads; i++)
        printf("thread %d\n%s", i, texts[i]);
}

static void *nothing(void *argument)
{
    return argument;
}

/* The next thread of a program goes to another host. */
static void leave_home(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, nothing, NULL) || pthread_join(thread, NULL))
        exit(2);
}

/* No more processes than a machine bears, should they be allowed. */
static void fork_thrice(void)
{
    for (int i = 0; i < 3; i++)
        fork();
}

static void go_on(const char *how)
{
    fflush(stdout);
    leave_home();
    pid_t child = fork();
    if (child == 0) {
        if (!strcmp(how, "waits"))
            wait(NULL);
        if (!strcmp(how, "sleeps"))
            for (;;)
                sleep(100);
        if (!strcmp(how, "computes"))
            for (;;)
                ;
        if (!strcmp(how, "forks"))
            fork_thrice();
        if (!strcmp(how, "calls"))
            for (;;)
                getppid();
        _exit(1);
    }
    say(texts[0], how, wait_for(child));
    fputs(texts[0], stdout);
}

static void bomb(int count)
{
    int refused = 0;
    fflush(stdout);
    leave_home();
    for (int i = 0; i < count; i++) {
        pid_t child = fork();
        if (child == 0) {
            fork_thrice();
            _exit(1);
        }
        int status = wait_for(child);
        refused += WIFEXITED(status) && WEXITSTATUS(status) == 126;
    }
    printf("%d of %d refused\n", refused, count);
}

int main(int count, char **words)
{
    if (count != 3)
        return 2;
    if (!strcmp(words[1], "starts"))
        starts(atoi(words[2]) > THREADS_MAX ? THREADS_MAX : atoi(words[2]));
    else if (!strcmp(words[1], "goes-on"))
        go_on(words[2]);
    else
        bomb(atoi(words[2]));
    return 0;
}
