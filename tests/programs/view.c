/* What a program is told of the machine and of itself, from threads on every host.
 *
 * Owns the questions and compares the answers with each other and with what it is told to expect. Must not know hosts
 * beyond the number of their processors.
 * usage: view <processors of all hosts> <of each host> <threads>
 *        view refused            asks for what several hosts cannot give, and ends with 7
 *        view features           says what CPUID and /proc/cpuinfo say, in every thread
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/times.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 32
#define BURN_NS 60000000ull

static int processors, of_host, threads;
static char **words;
static pthread_barrier_t barrier;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_t thread[THREADS_MAX];
static uint64_t used_ns[THREADS_MAX];
static int ran_on[THREADS_MAX];

#define CHECK(condition)                                                                 \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            fprintf(stderr, "view: line %d: not true: %s (errno %d)\n", __LINE__, #condition, errno); \
            _exit(3);                                                                    \
        }                                                                                \
    } while (0)

static char *text_at(int directory, const char *path) {
    static __thread char text[1 << 18];
    int fd = openat(directory, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        fprintf(stderr, "view: %s cannot be opened (errno %d)\n", path, errno);
        _exit(3);
    }
    size_t filled = 0;
    ssize_t got;
    while ((got = read(fd, text + filled, sizeof text - 1 - filled)) > 0) filled += got;
    CHECK(got == 0);
    text[filled] = 0;
    close(fd);
    return text;
}

static char *text(const char *path) { return text_at(AT_FDCWD, path); }

static int lines_with(const char *text, const char *start) {
    int count = 0;
    for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        count += strncmp(line, start, strlen(start)) == 0;
    return count;
}

static uint64_t number_after(const char *text, const char *name) {
    const char *at = strstr(text, name);
    CHECK(at);
    return strtoull(at + strlen(name), NULL, 10);
}

/* Entries of a directory whose names begin so and go on with a digit, or all but the dots. */
static int entries(const char *path, const char *start, long *largest) {
    DIR *directory = opendir(path);
    CHECK(directory);
    int count = 0;
    struct dirent *entry;
    while ((entry = readdir(directory))) {
        if (entry->d_name[0] == '.' || strncmp(entry->d_name, start, strlen(start))) continue;
        char *end;
        long number = strtol(entry->d_name + strlen(start), &end, 10);
        if (*end || end == entry->d_name + strlen(start)) continue;
        if (largest && number > *largest) *largest = number;
        count++;
    }
    closedir(directory);
    return count;
}

static uint64_t clock_ns(clockid_t clock) {
    struct timespec time;
    CHECK(clock_gettime(clock, &time) == 0);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static uint64_t usage_ns(int who) {
    struct rusage usage;
    CHECK(getrusage(who, &usage) == 0);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000ull + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000ull;
}

static void look_at_machine(void) {
    cpu_set_t set;
    CHECK(sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) == processors);
    CHECK(sysconf(_SC_NPROCESSORS_ONLN) == processors && sysconf(_SC_NPROCESSORS_CONF) == processors);
    CHECK(lines_with(text("/proc/cpuinfo"), "processor") == processors);
    CHECK(lines_with(text("/proc/stat"), "cpu") == processors + 1);
    uint64_t memory_kib = number_after(text("/proc/meminfo"), "MemTotal:");
    struct sysinfo information;
    CHECK(sysinfo(&information) == 0 && information.totalram / 1024 * information.mem_unit == memory_kib);
    int root = open("/", O_RDONLY | O_DIRECTORY);
    CHECK(root >= 0 && number_after(text_at(root, "proc/meminfo"), "MemTotal:") == memory_kib);
    close(root);
    CHECK(entries("/sys/devices/system/cpu", "cpu", NULL) == processors);
    char path[128], expected[32];
    int last = processors - 1;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/physical_package_id", last);
    CHECK(atoi(text(path)) == (processors - 1) / of_host);
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/core_cpus_list", last);
    snprintf(expected, sizeof expected, "%d\n", last);
    CHECK(strcmp(text(path), expected) == 0);
    struct stat status;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d", last);
    CHECK(stat(path, &status) == 0 && S_ISDIR(status.st_mode));
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d", processors);
    CHECK(stat(path, &status) < 0 && errno == ENOENT);
    unsigned cpu, node;
    CHECK(getcpu(&cpu, &node) == 0 && (int)cpu < processors && sched_getcpu() < processors);
    CHECK(syscall(SYS_get_mempolicy, NULL, NULL, 0, NULL, 0) == 0);
}

static void look_at_self(void) {
    char path[128], link[512], real[4096];
    long largest = 0;
    CHECK(entries("/proc/self/task", "", NULL) == threads + 1);
    CHECK(number_after(text("/proc/self/status"), "Threads:") == (uint64_t)threads + 1);
    snprintf(path, sizeof path, "/proc/%d/task/%ld/status", getpid(), syscall(SYS_gettid));
    CHECK((long)number_after(text(path), "\nPid:") == syscall(SYS_gettid));
    CHECK((long)number_after(text("/proc/thread-self/status"), "\nPid:") == syscall(SYS_gettid));
    int open_files = 0;
    for (int fd = 0; fd < 1000; fd++) open_files += fcntl(fd, F_GETFD) >= 0;
    CHECK(entries("/proc/self/fd", "", &largest) == open_files + 1 && largest < 1000);
    CHECK(open("/proc/self/fd/1000", O_RDONLY) < 0 && errno == ENOENT);
    CHECK(access("/proc/self/task/1", F_OK) < 0 && errno == ENOENT);
    CHECK(open("/proc/self/mem", O_RDONLY) < 0 && errno == EACCES);
    ssize_t bytes = readlink("/proc/self/exe", link, sizeof link - 1);
    CHECK(bytes > 0 && realpath(words[0], real));
    link[bytes] = 0;
    CHECK(strcmp(link, real) == 0);
    struct stat one, other;
    CHECK(stat("/proc/self/exe", &one) == 0 && stat(real, &other) == 0 && one.st_ino == other.st_ino);
    CHECK(strcmp(text("/proc/self/cmdline"), words[0]) == 0);
    CHECK(strstr(text("/proc/self/maps"), real) && strstr(text("/proc/self/smaps"), "\nRss:"));
    CHECK(number_after(text("/proc/self/status"), "VmRSS:") > 0 && atoi(text("/proc/self/statm")) > 0);
    int fd = open("/proc/self/auxv", O_RDONLY);
    uint64_t pair[2];
    while (read(fd, pair, sizeof pair) == sizeof pair && pair[0] != AT_NULL)
        if (pair[0] == AT_PHDR || pair[0] == AT_ENTRY || pair[0] == AT_HWCAP2) CHECK(pair[1] == getauxval(pair[0]));
    CHECK(pair[0] == AT_NULL);
    close(fd);
}

static void *look(void *argument) {
    long number = (long)argument;
    pthread_barrier_wait(&barrier);
    pthread_mutex_lock(&lock);
    look_at_machine();
    look_at_self();
    pthread_mutex_unlock(&lock);
    uint64_t before = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    CHECK(before < 20000000000ull);
    while (clock_ns(CLOCK_THREAD_CPUTIME_ID) - before < BURN_NS)
        ;
    used_ns[number] = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    ran_on[number] = sched_getcpu();
    uint64_t said = usage_ns(RUSAGE_THREAD);
    CHECK(said > BURN_NS / 2 && said < used_ns[number] + 40000000);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return NULL;
}

static void *placed(void *argument) {
    cpu_set_t set;
    CHECK(sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) == 1 && CPU_ISSET(processors - 1, &set));
    CHECK(strstr(text("/proc/thread-self/status"), "Cpus_allowed_list"));
    CHECK(setpriority(PRIO_PROCESS, 0, 7) == 0 && getpriority(PRIO_PROCESS, 0) == 7);
    struct sched_param none = {0};
    CHECK(sched_setscheduler(0, SCHED_BATCH, &none) == 0 && sched_getscheduler(0) == SCHED_BATCH);
    *(int *)argument = sched_getcpu();
    return NULL;
}

static void wish(void) {
    cpu_set_t set, all;
    CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
    CPU_ZERO(&set);
    CHECK(sched_setaffinity(0, sizeof set, &set) < 0 && errno == EINVAL);
    CPU_SET(processors - 1, &set);
    CHECK(pthread_setaffinity_np(pthread_self(), sizeof set, &set) == 0);
    int cpu = -1;
    pthread_t child;
    CHECK(pthread_create(&child, NULL, placed, &cpu) == 0 && pthread_join(child, NULL) == 0);
    CHECK(cpu >= processors - of_host && cpu < processors);
    CHECK(sched_setaffinity(0, sizeof all, &all) == 0);
}

static void *features(void *argument) {
    unsigned a, b, c, d;
    __cpuid_count(7, 0, a, b, c, d);
    pthread_mutex_lock(&lock);
    int in_file = strstr(text("/proc/cpuinfo"), " avx512f") != NULL;
    printf("avx512f: cpuid %d, cpuinfo %d, libc %d\n", b >> 16 & 1, in_file, __builtin_cpu_supports("avx512f") != 0);
    pthread_mutex_unlock(&lock);
    (void)argument;
    return NULL;
}

int main(int count, char **arguments) {
    words = arguments;
    if (count == 2 && strcmp(arguments[1], "refused") == 0) {
        CHECK(syscall(SYS_io_uring_setup, 4, NULL) < 0 && syscall(SYS_bpf, 0, NULL, 0) < 0);
        mlockall(MCL_CURRENT);
        return 7;
    }
    if (count == 2 && strcmp(arguments[1], "features") == 0) {
        for (int number = 0; number < 4; number++) CHECK(pthread_create(&thread[number], NULL, features, NULL) == 0);
        for (int number = 0; number < 4; number++) pthread_join(thread[number], NULL);
        printf("tunables %s\n", getenv("GLIBC_TUNABLES") ? getenv("GLIBC_TUNABLES") : "none");
        return 0;
    }
    CHECK(count == 4);
    processors = atoi(arguments[1]);
    of_host = atoi(arguments[2]);
    threads = atoi(arguments[3]);
    CHECK(threads <= THREADS_MAX);
    pthread_barrier_init(&barrier, NULL, threads + 1);
    for (long number = 0; number < threads; number++) CHECK(pthread_create(&thread[number], NULL, look, (void *)number) == 0);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    uint64_t sum = 0;
    for (int number = 0; number < threads; number++) {
        clockid_t clock;
        CHECK(pthread_getcpuclockid(thread[number], &clock) == 0);
        uint64_t now = clock_ns(clock);
        CHECK(now >= used_ns[number] && now < used_ns[number] + 1000000000);
        sum += used_ns[number];
    }
    struct tms ticks;
    CHECK(times(&ticks) != (clock_t)-1);
    uint64_t tick_ns = 1000000000ull / sysconf(_SC_CLK_TCK);
    CHECK(clock_ns(CLOCK_PROCESS_CPUTIME_ID) >= sum);
    CHECK(usage_ns(RUSAGE_SELF) + 20000000 >= sum);
    CHECK((ticks.tms_utime + ticks.tms_stime + 2 * threads) * tick_ns >= sum);
    CHECK(clock() * (1000000000ull / CLOCKS_PER_SEC) >= sum);
    pthread_barrier_wait(&barrier);
    int hosts[THREADS_MAX] = {0}, seen = 0;
    for (int number = 0; number < threads; number++) {
        pthread_join(thread[number], NULL);
        seen += !hosts[ran_on[number] / of_host]++;
    }
    wish();
    printf("%d processors, threads on %d hosts\n", processors, seen);
    return 0;
}
